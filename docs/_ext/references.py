"""The lists of fields and commands, made from the package's statements, and docstrings of plain text as RST."""

import importlib
import itertools
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
            lines += [f".. confval:: {path}", "", f"   ``{kind}``, by default ``{field.default!r}``.", ""]
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
    for line in with_blocks_of_code(lines):
        if line in ("Args:", "Returns:", "Raises:"):
            section = line
            made += [] if line == "Returns:" else [line]
        elif section == "Returns:":
            made.append(f":returns: {line.strip()}")
            section = ""
        else:
            full = "  hamjepa_jax.errors.UserError" if section == "Raises:" else "  UserError"
            made.append(line.replace("  UserError", full))
    lines[:] = one_name_each(made)


def with_blocks_of_code(lines: list[str]) -> list[str]:
    """The lines in RST, where an indented paragraph outside of the sections is shown as it stands."""
    made, code, section = [], False, False
    for i, line in enumerate(lines):
        section = section or line in ("Args:", "Returns:", "Raises:", "Attributes:")
        indented = line.startswith("  ") and not section
        if indented and not code and (i == 0 or not lines[i - 1]):
            made += ["::", ""]
            code = True
        elif line and not indented:
            code = False
        made.append(line if code else plain(line))
    return made


def readable_signature(
    app: Sphinx, what: str, name: str, obj: object, options: object, signature: str | None, returned: str | None
) -> tuple[str | None, str | None]:
    """The signature in short: no factories of defaults, none of Flax's own arguments, ArrayLike by its name."""
    if signature:
        signature = re.sub(r", parent: .*, name: [^,]* = None\)", ")", signature)
        signature = re.sub(r"= <class '([\w.]+)'>", lambda found: f"= {found[1].rpartition('.')[2]}", signature)
        signature = signature.replace("<factory>", "...")
        arrays = r"~?[\w.]*_Buffer \| .*?\[complex \| bytes \| str\]"  # What ArrayLike stands for.
        signature = re.sub(arrays, "~numpy.typing.ArrayLike", signature)
    return signature, returned


def one_name_each(lines: list[str]) -> list[str]:
    """Lines where "a, b: text" of a section has become an entry for each name."""
    made, i = [], 0
    while i < len(lines):
        several = re.fullmatch(r"(  )((?:\w+, )+\w+): (.*)", lines[i])
        i += 1
        if not several:
            made.append(lines[i - 1])
            continue
        rest = list(itertools.takewhile(lambda line: line.startswith("    "), lines[i:]))
        i += len(rest)
        for name in several[2].split(", "):
            made += [f"  {name}: {several[3]}", *rest]
    return made


def without_field_numbers(
    app: Sphinx, what: str, name: str, obj: object, skip: bool, options: object
) -> bool | None:
    """Leaves out the fields of a NamedTuple, which say no more than their number; "Attributes" explains them."""
    return True if str(getattr(obj, "__doc__", "")).startswith("Alias for field number") else None


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("config-reference", ConfigReference)
    app.add_directive("command-reference", CommandReference)
    app.connect("autodoc-process-docstring", as_rst, priority=100)  # before napoleon
    app.connect("autodoc-process-signature", readable_signature)
    app.connect("autodoc-skip-member", without_field_numbers)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
