"""Tables in Markdown documents, made from the JSON files that commands wrote.

A table stands between two comments, which name its form, a key of FORMS, and its file, relative to the document:

    <!-- table: scaling docs/results/aot.json -->
    | … |
    <!-- /table -->

Below it stands where the numbers are from, if the file has "command", "versions", "git" and "time".
"""

import json
import pathlib
import re
import shlex
from collections.abc import Callable
from typing import Any

from hamjepa_jax.errors import UserError
from hamjepa_jax.report.details import differences_table, geometry_table, times_table
from hamjepa_jax.report.evaluation_speed import evaluation_table
from hamjepa_jax.report.factors import factors_table
from hamjepa_jax.report.memory import memory_table
from hamjepa_jax.report.methods import commit_text, matched_table, methods_table
from hamjepa_jax.report.objectives import objectives_table
from hamjepa_jax.report.price import price_table
from hamjepa_jax.report.scaling import scaling_table
from hamjepa_jax.report.step_time import against_torch_table, step_table
from hamjepa_jax.report.sweeps import sweep_table
from hamjepa_jax.report.trajectories import trajectories_table

# {form: the file's content to Markdown}
FORMS: dict[str, Callable[[Any], str]] = {
    "against_torch": against_torch_table,
    "differences": differences_table,
    "evaluation": evaluation_table,
    "factors": factors_table,
    "geometry": geometry_table,
    "matched": matched_table,
    "memory": memory_table,
    "methods": methods_table,
    "objectives": objectives_table,
    "price": price_table,
    "scaling": scaling_table,
    "step": step_table,
    "sweep": sweep_table,
    "times": times_table,
    "trajectories": trajectories_table,
}

_TABLE = re.compile(
    r"^(<!-- table: (?P<form>\S+) (?P<file>\S+) -->\n)(?P<body>.*?)^(<!-- /table -->)$", re.DOTALL | re.MULTILINE
)


def made_again(document: pathlib.Path) -> str:
    """The text of a document with each of its tables as its file says now.

    Raises:
      UserError: for a form that is not in FORMS, a file that cannot be read or lacks what the form shows, or a
        table without its end; for a document that is no text.
    """
    try:
        text = document.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise UserError(f"{document}: is no text in UTF-8; name a Markdown document.") from None
    if len(re.findall("^<!-- table:", text, re.MULTILINE)) != len(_TABLE.findall(text)):
        raise UserError(
            f"{document}: a table is not between <!-- table: FORM FILE --> and <!-- /table -->, each on a line."
        )
    return _TABLE.sub(lambda match: f"{match[1]}{_table(match, document)}\n{match[5]}", text)


def _table(match: re.Match, document: pathlib.Path) -> str:
    form, file = match["form"], match["file"]
    place = f"{document}: <!-- table: {form} {file} -->"
    if form not in FORMS:
        raise UserError(f"{place}: there is no such form; choose one of {', '.join(FORMS)}.")
    try:
        content = json.loads((document.parent / file).read_text(encoding="utf-8"))
        return FORMS[form](content) + _origin(content)
    except OSError as error:
        raise UserError(f"{place}: the file cannot be read ({error.strerror}).") from None
    except (ValueError, LookupError, TypeError) as error:
        raise UserError(f"{place}: the file is not what the form shows ({error!r}); write it again.") from None


def _origin(content: Any) -> str:
    """The command that wrote a file, its versions, commit and day; "" if the file does not say."""
    if not isinstance(content, dict) or not {"command", "versions", "git", "time"} <= set(content):
        return ""
    versions = [f"{name} {content['versions'][name]}" for name in ("jax", "libtpu") if name in content["versions"]]
    commit = [commit_text(content["git"])] if content["git"] else []
    return f"\n\n`{_command(content['command'])}` ({', '.join([*versions, *commit, content['time'][:10]])})"


def _command(command: str | list[str]) -> str:
    """A command line; earlier versions wrote a list, which begins with the path of the module's file."""
    if isinstance(command, str):
        return command
    module = pathlib.PurePosixPath(command[0]).parent
    return shlex.join(["python", "-m", f"hamjepa_jax.{module.name}", *command[1:]])
