"""The one command-line dialect, on argparse.

Flags are spelled with underscores and written out, as `--name=value` or `--name value`. `--help` exits with status
0. A mistake is one line on standard error, "error: …", and exit status 2. A command that works on a config takes
`--config=FILE.py[:name=value,…]`, with the name of a shipped config in place of the file if there is one, and any
number of `--config.FIELD=VALUE`.
"""

import argparse
import difflib
import errno
import itertools
import math
import os
import pathlib
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from hamjepa_jax import files
from hamjepa_jax.cli.faults import disk_fault
from hamjepa_jax.cli.terminal import show_any_text
from hamjepa_jax.errors import UserError

_OVERRIDE = re.compile(r"--?(?P<no>no)?config\.(?P<field>[^=\s]+)(=(?P<text>.*))?", re.DOTALL)
_FLAG = re.compile(r"(?P<dashes>--?)(?P<name>[A-Za-z][\w.-]*)(?P<value>=.*)?", re.DOTALL)


class Parser(argparse.ArgumentParser):
    """Flags of one command, see the top of this module."""

    def __init__(self, prog: str, **settings: Any):
        super().__init__(_as_called(prog), allow_abbrev=False, formatter_class=_HelpFormatter, **settings)
        self._takes_config = False
        self._described: tuple[str, list[tuple[str, str]]] | None = None  # A config whose fields --help lists.

    def add_output_file(self, name: str, **settings: Any) -> argparse.Action:
        """Adds a flag for a file to write; its folder is made before any work is done for the file."""
        return self.add_argument(name, type=lambda text: files.file_to_write(text, name), **settings)

    def add_path(self, name: str, **settings: Any) -> argparse.Action:
        """Adds a flag or an argument whose value is a path: "~" is expanded, and an empty path is refused."""
        shown = name if name.startswith("-") else settings.get("metavar", name)
        return self.add_argument(name, type=lambda text: files.user_path(text, shown), **settings)

    def add_config(self, *, alone: bool = False) -> None:
        """Adds --config and --config.FIELD, for `read_config`.

        Args:
          alone: whether the config may also be given without its flag.

        `arguments.config` is the text after --config, or None. `arguments.overrides` is the list of (field, text)
        in the order of the command line; the last one of a field counts.
        """
        self._takes_config = True
        about = self.add_argument_group("config")
        about.add_argument(
            "--config",
            type=_config_file,
            metavar="FILE",
            help="config of the run: the name of a shipped one or FILE.py, with or without :name=value,…; with "
            "--help, its fields are listed too",
        )
        about.add_argument(
            "--config.FIELD",
            metavar="VALUE",
            default=argparse.SUPPRESS,
            help="sets a field of the config, as in --config.train.epochs=5; can be repeated",
        )
        if alone:
            self.add_argument("config_alone", nargs="?", type=_config_file, metavar="CONFIG", help="as --config")

    def parse_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> argparse.Namespace:
        """The arguments; a mistake ends the program, and is blamed on the flag that is mistaken.

        Raises:
          UserError: for an empty path, or overrides without a config.
        """
        words, overrides = self._take_overrides(list(sys.argv[1:] if args is None else args))
        words = self._known_flags(words)
        if self._takes_config:
            self._described = _config_of(words, overrides)
        arguments, rest = self.parse_known_args(words, namespace)
        if rest:
            self.error(f"unexpected argument {rest[0]!r}: every setting is a flag, --name=value.")
        if self._takes_config:
            alone = getattr(arguments, "config_alone", None)
            if alone is not None and arguments.config is not None:
                self.error(f"{alone}: --config={arguments.config} is given too; give one of them.")
            arguments.config = arguments.config or alone
            arguments.overrides = overrides
            if overrides and arguments.config is None:
                field, text = overrides[0]
                raise UserError(
                    f"--config.{field}={text}: changes a config; name its file first, as in --config=FILE."
                )
        return arguments

    def print_help(self, file: Any = None) -> None:
        """Prints the flags and, where --config is given too, every field of the config."""
        super().print_help(file)
        if self._described is not None:
            from hamjepa_jax.config import configure, describe  # Imported late: --help needs no JAX.

            print(f"\nfields, for --config.FIELD=VALUE:\n\n{describe(configure(*self._described))}", file=file)

    def error(self, message: str) -> NoReturn:
        """Ends the program with one line and exit status 2."""
        print(f"error: {' '.join(message.split())} (--help lists the flags)", file=sys.stderr)
        sys.exit(2)

    def _take_overrides(self, words: list[str]) -> tuple[list[str], list[tuple[str, str]]]:
        """The words without --config.FIELD=VALUE, and these as (field, text).

        As with absl's flags, --config.FIELD alone is True and --noconfig.FIELD is False.
        """
        if not self._takes_config:
            return words, []
        rest, overrides = [], []
        while words:
            word = words.pop(0)
            if word == "--":
                return [*rest, word, *words], overrides
            match = _OVERRIDE.fullmatch(word)
            if match is None:
                rest.append(word)
                continue
            text = match["text"]
            if match["no"]:
                if text is not None:
                    self.error(f"{word}: takes no value; --config.{match['field']}=… does.")
                text = "False"
            elif text is None:
                text = words.pop(0) if words and not _FLAG.fullmatch(words[0]) else "True"
            overrides.append((match["field"], text))
        return rest, overrides

    def _known_flags(self, words: list[str]) -> list[str]:
        """The words, with two dashes before every flag's name; ends the program at the first unknown flag."""
        known, checked = self._option_string_actions, []
        for position, word in enumerate(words):
            if word == "--":
                return checked + words[position:]
            match = _FLAG.fullmatch(word)
            if match and word.partition("=")[0] not in known:
                flag = f"--{match['name']}"
                if flag not in known:
                    near = difflib.get_close_matches(flag, [name for name in known if name.startswith("--")], n=1)
                    hint = f"; did you mean {near[0]}?" if near else "."
                    self.error(f"{word.partition('=')[0]}: there is no such flag{hint}")
                word = flag + (match["value"] or "")
            if match and match["value"] == "=--":  # argparse takes such a value for the end of the flags.
                self.error(f"{word}: -- is no value; give another.")
            checked.append(word)
        return checked


def read_config(arguments: argparse.Namespace, example: str = "cifar100") -> Any:
    """The config that the command line describes, with its overrides.

    Args:
      arguments: of a `Parser` with `add_config`.
      example: a file, for the message.

    Raises:
      UserError: if --config is missing, or the file or a field cannot be used.
    """
    if arguments.config is None:
        raise UserError(f"--config is missing: name one, as in --config={example}, or a file.")
    from hamjepa_jax.config.files import configure  # Imported late: --help needs no JAX.

    return configure(arguments.config, arguments.overrides)


def run_command(
    function: Callable[[argparse.Namespace], None],
    parser: argparse.ArgumentParser,
    argv: Sequence[str] | None = None,
) -> int:
    """Parses the command line and calls the function with the arguments.

    Args:
      function: the command; it also finds the words themselves, as `arguments.argv`.
      parser: of its flags.
      argv: the words after the command's name; those of this process if None.

    Returns:
      The exit status: 0, 2 for a user's mistake, 1 for a disk that fails, 130 after Ctrl-C. Each but the first
      comes with one sentence on standard error.
    """
    show_any_text()
    arguments = argparse.Namespace(argv=list(sys.argv[1:] if argv is None else argv))
    try:
        function(parser.parse_args(arguments.argv, arguments))
    except UserError as error:
        return _fail(error, 2)
    except KeyboardInterrupt:
        print("stopped by Ctrl-C.", file=sys.stderr)
        return 130
    except BrokenPipeError:  # Its reader has had enough, as `head` has.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        # A failed write knows no path; a command writes to --out, or else to its workdir.
        if error.errno == errno.ENAMETOOLONG:
            return _fail(f"{error.filename}: the name is too long for a file; give a shorter one.", 2)
        sentence = disk_fault(error, getattr(arguments, "out", None) or getattr(arguments, "workdir", None))
        if sentence is None:
            raise
        return _fail(sentence, 1)
    except MemoryError as error:
        return _fail(_out_of_memory(error), 1)
    except RuntimeError as error:
        if str(error).startswith("RESOURCE_EXHAUSTED"):
            return _fail(_out_of_memory(error), 1)
        if "Unable to initialize backend" not in str(error):
            raise
        asked = os.environ.get("JAX_PLATFORMS", "")
        return _fail(
            f"JAX_PLATFORMS={asked}: there is no such device for JAX here ({' '.join(str(error).split())}); unset "
            f"it, or install JAX for it.",
            2,
        )
    return 0


def _config_of(words: Sequence[str], overrides: list[tuple[str, str]]) -> tuple[str, list[tuple[str, str]]] | None:
    """(text of --config, overrides) on a command line; None without --config."""
    for i, word in enumerate(words):
        if word.startswith("--config="):
            return word.removeprefix("--config="), overrides
        if word == "--config" and i + 1 < len(words):
            return words[i + 1], overrides
    return None


def _config_file(text: str) -> str:
    files.user_path(text.partition(":")[0], "--config")  # A path would change slashes in the file's arguments.
    return os.path.expanduser(text)


def _out_of_memory(error: BaseException) -> str:
    reason = (str(error).strip().splitlines() or ["no memory"])[0]
    return (
        f"there is too little memory for this ({reason}); use a smaller train.batch_size or evaluate.batch_size, "
        f"train.accumulation, a smaller network, or fewer images."
    )


def _fail(message: object, status: int) -> int:
    """A name in the message may hold line breaks or a terminal's commands; they are shown as escapes."""
    text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(message))
    print(f"error: {text}", file=sys.stderr)
    return status


# -- Types of values, for `type=` --------------------------------------------------------------------------------


def list_of(kind: Callable[[str], Any], *, empty: bool = False) -> Callable[[str], tuple]:
    """A list with commas; without an element it is refused unless `empty`."""

    def parse(text: str) -> tuple:
        values = tuple(kind(part.strip()) for part in text.split(",") if part.strip())
        if not values and not empty:
            raise argparse.ArgumentTypeError("the list is empty; give one value or more, with commas between")
        return values

    parse.__name__ = f"comma-separated {kind.__name__}"  # argparse shows it in its message
    return parse


def whole_number(least: int) -> Callable[[str], int]:
    """A whole number of at least `least`."""

    def parse(text: str) -> int:
        if not re.fullmatch(r"[+-]?\d{1,18}", text.strip()) or int(text) < least:
            raise argparse.ArgumentTypeError(f"must be a whole number of at least {least}, not {text!r}")
        return int(text)

    return parse


def number(above: float, most: float = math.inf) -> Callable[[str], float]:
    """A finite number above `above` and of at most `most`."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (above < value <= most and math.isfinite(value)):
            limit = "" if most == math.inf else f" and of at most {most:g}"
            raise argparse.ArgumentTypeError(f"must be a number above {above:g}{limit}, not {text!r}")
        return value

    return parse


def truth(text: str) -> bool:
    """True or false, as "true" or "false"."""
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"must be true or false, not {text!r}")
    return text.lower() == "true"


def _as_called(prog: str) -> str:
    """The command as it was typed: "hamjepa train" in place of "python -m hamjepa_jax.main"."""
    for word, name in itertools.pairwise(sys.orig_argv[:3]):
        if pathlib.Path(word).stem == "hamjepa":
            return f"hamjepa {name}"
    return prog


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Names the default of a flag that has one, a list as it is written on the command line."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if isinstance(action.default, tuple) and action.default:
            return f"{action.help} (default: {','.join(map(str, action.default))})"
        return super()._get_help_string(action) if action.default else action.help
