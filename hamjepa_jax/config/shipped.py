"""The configs that come with the package, by name."""

import difflib
import pathlib
import re

from hamjepa_jax.errors import UserError

PACKAGE = pathlib.Path(__file__).parent.parent
NO_RUNS = ("__init__", "common")  # files among the configs


def shipped_folder() -> pathlib.Path:
    """The folder of the config files: inside an installed package, beside it in a clone."""
    installed = PACKAGE / "configs"
    return installed if installed.is_dir() else PACKAGE.parent / "configs"


def names() -> list[str]:
    """The names, sorted."""
    return sorted(file.stem for file in shipped_folder().glob("*.py") if file.stem not in NO_RUNS)


def is_name(text: str) -> bool:
    """Whether the text can be a shipped config's name: a word, and no path of a Python file."""
    return re.fullmatch(r"\w+", text) is not None


def shipped_file(name: str, what: str = "--config") -> pathlib.Path:
    """The file of a shipped config.

    Args:
      name: of the config, "cifar100" for example.
      what: the flag that gave the name, for messages.

    Raises:
      UserError: if there is none of this name.
    """
    if name not in names():
        near = difflib.get_close_matches(name, names(), n=1)
        hint = f"did you mean {near[0]}? The" if near else "the"
        raise UserError(f"{what} {name}: no such config; {hint} package has {', '.join(names())}.")
    return shipped_folder() / f"{name}.py"
