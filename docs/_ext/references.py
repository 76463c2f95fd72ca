"""The lists of fields and commands, made from the package's statements, and docstrings of plain text as RST."""

import importlib
import re

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from hamjepa_jax.cli.command import COMMANDS
from hamjepa_jax.cli.parser import Parser
from hamjepa_jax.config import default_config, fields_of


class ConfigReference(SphinxDirective):
    """Every field of the default config, a section for each block."""

    def run(self) -> list[nodes.Node]:
        lines, block = [], None
        for path, field in fields_of(default_config()).items():
            above = path.rpartition(".")[0]
            if above != block:
                title = above or "The run itself"
                lines += [title, "-" * len(title), ""]
                block = above
            kind = field.kind.__name__ + " or None" * field.optional
            limits = [f"One of {', '.join(f'``{choice}``' for choice in field.choices)}."] if field.choices else []
            limits += [f"{field.bounds().capitalize()}."] if field.bounds() else []
            lines += [f".. confval:: {path}", f"   :type: ``{kind}``", f"   :default: ``{field.default!r}``", ""]
            lines += [f"   {' '.join([plain(field.meaning), *limits])}", ""]
        return self.parse_text_to_nodes("\n".join(lines), allow_section_headings=True)


class CommandReference(SphinxDirective):
    """The help of every command."""

    def run(self) -> list[nodes.Node]:
        sections = []
        for name, (module, about) in COMMANDS.items():
            section = nodes.section(ids=[f"command-{name}"], names=[name])
            section += nodes.title(text=f"hamjepa {name}")
            section += nodes.paragraph(text=f"{about[0].upper()}{about[1:]}.")
            text = _parser_of(module).format_help()
            section += nodes.literal_block(text, text, language="text")
            sections.append(section)
        return sections


def _parser_of(module: str) -> Parser:
    page = importlib.import_module(f"hamjepa_jax.{module}")
    if hasattr(page, "__path__"):
        page = importlib.import_module(f"{page.__name__}.__main__")
    return page.make_parser()


def plain(text: str) -> str:
    """Text whose marks mean nothing in RST, but for code between backticks."""
    parts = re.split(r"(`+[^`]*`+)", text)
    return "".join(part if i % 2 else re.sub(r"([*|\\]|_(?=\W|$))", r"\\\1", part) for i, part in enumerate(parts))


def as_rst(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Sections of docstrings as RST has them: what is returned is a text, and has no type before a colon."""
    made, section = [], ""
    for line in map(plain, lines):
        if line in ("Args:", "Returns:", "Raises:"):
            section = line
            made += [] if line == "Returns:" else [line]
        elif section == "Returns:":
            made.append(f":returns: {line.strip()}")
            section = ""
        else:
            full = "  hamjepa_jax.errors.UserError" if section == "Raises:" else "  UserError"
            made.append(line.replace("  UserError", full))
    lines[:] = made


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("config-reference", ConfigReference)
    app.add_directive("command-reference", CommandReference)
    app.connect("autodoc-process-docstring", as_rst, priority=100)  # before napoleon
    return {"parallel_read_safe": True, "parallel_write_safe": True}
