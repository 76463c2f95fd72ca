"""Settings stated once, and parts chosen by name.

A part (an objective, a predictor, a trunk, a source of images, a metric) is one file that states its settings and
registers itself:

    SETTINGS = settings(weight=field(1.0, "Weight of the penalty.", least=0))

    @objectives.register("mine", SETTINGS)
    def mine(context, s): ...            # s.weight

Default configs, refusals, help texts and the list of fields are all made from these statements.
"""

import contextlib
import dataclasses
import importlib
import importlib.util
import math
import os
import pathlib
import pkgutil
import sys
import types
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from hamjepa_jax.errors import UserError

LARGEST_INT = 2**31 - 1  # Programs on the devices count in int32,
LARGEST_FLOAT, SMALLEST_FLOAT = 3.4e38, 1.2e-38  # and compute in float32.
_WORDS = {int: "a whole number", float: "a number", str: "text", bool: "True or False", tuple: "a list itself"}


@dataclasses.dataclass(frozen=True)
class Field:
    """One setting, see `field`."""

    default: Any
    meaning: str
    kind: type
    optional: bool = False
    of: type | None = None
    length: int | None = None
    choices: tuple = ()
    least: float | None = None
    above: float | None = None
    most: float | None = None
    below: float | None = None
    empty: bool = True
    hint: str = ""

    def problem(self, value: Any) -> str | None:
        """The problem with a value, as the end of a sentence; None if there is none."""
        if value is None:
            return None if self.optional else f"must be {self._wanted()}"
        if self.kind is not tuple:
            return self._problem_of(value, self.kind)
        if not isinstance(value, tuple | list):
            return f"must be {self._wanted()}"
        if (self.length is not None and len(value) != self.length) or not (value or self.empty):
            return f"must be {self._wanted()}"
        problems = (self._problem_of(element, self.of) for element in value if self.of is not None)
        return next((problem for problem in problems if problem), None)

    def check(self, path: str, value: Any) -> None:
        """Refuses a value that breaks the bounds.

        Raises:
          UserError: "path value: must be …; remedy".
        """
        problem = self.problem(value)
        if problem:
            raise UserError(f"{path} {value!r}: {problem}{f'; {self.hint}' if self.hint else ''}.")

    def _problem_of(self, value: Any, kind: type) -> str | None:
        if not _is_a(value, kind):
            return f"must be {self._wanted()}"
        if self.choices:
            return None if value in self.choices else f"must be {self._wanted()}"
        if kind in (int, float) and not (math.isfinite(value) and self._within(value)):
            return f"must be {self._wanted()}" + (" and finite" if not math.isfinite(value) else "")
        if kind is int and abs(value) > LARGEST_INT:
            return f"must be at most {LARGEST_INT}"
        if kind is float and not (value == 0 or SMALLEST_FLOAT <= abs(value) <= LARGEST_FLOAT):
            return f"must be 0, or between {SMALLEST_FLOAT} and {LARGEST_FLOAT} in size, as float32 is"
        if kind is float and not self._strictly_within(float(np.float32(value))):
            return f"must be {self._wanted()}, in float32 too"
        return None

    def _within(self, value: float) -> bool:
        return (
            (self.least is None or value >= self.least)
            and (self.most is None or value <= self.most)
            and self._strictly_within(value)
        )

    def _strictly_within(self, value: float) -> bool:
        return (self.above is None or value > self.above) and (self.below is None or value < self.below)

    def _wanted(self) -> str:
        """The values that are allowed, in words."""
        if self.choices:
            text = f"one of {', '.join(map(str, self.choices))}"
        elif self.kind is tuple:
            number = f"{self.length} values" if self.length is not None else "a list"
            number += " of one value or more" * (not self.empty)
            text = number if self.of is None else f"{number}, each {self._one(self.of)}"
        else:
            text = self._one(self.kind)
        return text + ", or None" * self.optional

    def _one(self, kind: type) -> str:
        bounds = self.bounds()
        return f"{_WORDS[kind]}{' ' if bounds else ''}{bounds}"

    def bounds(self) -> str:
        """The bounds in words: "of at least 1"; an empty text without any."""
        if self.least is not None and self.most is not None:
            return f"between {self.least} and {self.most}"
        ends = [
            ("of at least", self.least),
            ("above", self.above),
            ("of at most", self.most),
            ("below", self.below),
        ]
        return " and ".join(f"{words} {end}" for words, end in ends if end is not None)


def _is_a(value: Any, kind: type) -> bool:
    if kind is bool:
        return isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, kind)


def field(
    default: Any,
    meaning: str,
    *,
    kind: type | None = None,
    of: type | None = None,
    optional: bool = False,
    **limits: Any,
) -> Field:
    """States one setting.

    Args:
      default: its value if none is given.
      meaning: a sentence.
      kind: int, float, str, bool or tuple; that of the default if None. A default of None needs it.
      of: kind of a tuple's elements; that of the default's first element if None.
      optional: whether None is allowed; it is if the default is None.
      **limits: `choices`; `least`, `above`, `most`, `below` (of a number or of a tuple's elements); of a tuple its
        `length`, and `empty=False` where it needs an element; `hint`, the remedy that a refusal ends with.
        Numbers are finite and in the range of float32, whole ones at most 2³¹ − 1 in size.

    Raises:
      ValueError: if the kind is not known, or the default breaks its own bounds.
    """
    kind = type(default) if kind is None else kind
    if kind is tuple and of is None and default:
        of = type(default[0])
    if kind not in (int, float, str, bool, tuple):
        raise ValueError(f"a field's kind is int, float, str, bool or tuple, not {kind.__name__}: {meaning}")
    made = Field(default, meaning, kind, optional or default is None, of, **limits)
    problem = made.problem(default)
    if problem:
        raise ValueError(f"the default {default!r} {problem}: {meaning}")
    return made


class Values(types.SimpleNamespace):
    """Values of a group of settings, as attributes; groups within it likewise."""

    def asdict(self) -> dict[str, Any]:
        """The values as a dictionary; groups within it are dictionaries too."""
        return {k: v.asdict() if isinstance(v, Values) else v for k, v in vars(self).items()}


class Settings(Mapping[str, "Field | Settings"]):
    """Fields by name, and groups of them; see `settings`. Calling it gives the values: SETTINGS(weight=2.0)."""

    def __init__(self, fields: Mapping[str, "Field | Settings"]):
        self._fields = dict(fields)

    def __getitem__(self, name: str) -> "Field | Settings":
        return self._fields[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def __or__(self, other: "Settings") -> "Settings":
        """Both groups as one; a name that is in both must stand for the same statement.

        Raises:
          ValueError: naming a field that is stated twice.
        """
        twice = [name for name in other if name in self and self[name] != other[name]]
        if twice:
            raise ValueError(f"the setting {twice[0]!r} is stated twice.")
        return Settings(self._fields | dict(other))

    def __call__(self, **given: Any) -> Values:
        """The values given, and the defaults of the others, checked.

        Raises:
          UserError: for an unknown name or a value that breaks its bounds.
        """
        values = self.defaults()
        for name, value in given.items():
            if name not in self:
                raise UserError(f"{name}: no such setting; there are {', '.join(self)}.")
            values[name] = {**values[name], **value} if isinstance(self[name], Settings) else value
        self.check(values)
        return self.values_of(values)

    def walk(self, prefix: str = "") -> Iterator[tuple[str, Field]]:
        """(dotted path, field) of every field."""
        for name, item in self._fields.items():
            if isinstance(item, Settings):
                yield from item.walk(f"{prefix}{name}.")
            else:
                yield f"{prefix}{name}", item

    def defaults(self) -> dict[str, Any]:
        """Default values, nested as the groups are."""
        return {n: f.defaults() if isinstance(f, Settings) else f.default for n, f in self._fields.items()}

    def values_of(self, block: Mapping[str, Any]) -> Values:
        """The values of these fields out of a config's block, which may hold others."""
        found = {}
        for name, item in self._fields.items():
            found[name] = item.values_of(block[name]) if isinstance(item, Settings) else block[name]
        return Values(**found)

    def check(self, block: Mapping[str, Any], prefix: str = "") -> None:
        """Refuses values that break their fields' bounds.

        Args:
          block: of a config.
          prefix: path of the block with a dot at the end, for the message.

        Raises:
          UserError: "field value: must be …; remedy".
        """
        for name, item in self._fields.items():
            if name not in block:
                raise UserError(f"{prefix}{name}: the config lacks it, so it was made for another version; set it.")
            if isinstance(item, Settings):
                item.check(block[name], f"{prefix}{name}.")
            else:
                item.check(f"{prefix}{name}", block[name])


def settings(**fields: Field | Settings) -> Settings:
    """A group of settings: fields by name, and groups within it."""
    return Settings(fields)


class Part(NamedTuple):
    """A registered part.

    Attributes:
      name: a config chooses the part by it.
      make: the function or class that was registered.
      settings: it is called with their values.
      block: path of these settings in a config.
      about: further facts, as given at the registration.
      plugin: the name of the plugin that registered it; None for this package's own and for a notebook's.
    """

    name: str
    make: Callable
    settings: Settings
    block: str
    about: Mapping[str, Any]
    plugin: str | None


class Registry:
    """The parts of one kind, by name."""

    def __init__(self, kind: str, group: str, field: str):
        """Empty.

        Args:
          kind: the word for such a part in messages: "objective".
          group: path in a config below which a part's settings stand: "objective".
          field: the field that names a part, for messages: "objective.name".
        """
        self.kind, self.group, self.field = kind, group, field
        self._parts: dict[str, Part] = {}

    def register(
        self, name: str, settings: Settings | None = None, *, block: str | None = None, **about: Any
    ) -> Callable[[Callable], Callable]:
        """Decorator that adds a part.

        Args:
          name: a config chooses the part by it; letters, digits and underscores.
          settings: of the part; none if None.
          block: path of the settings in a config; GROUP.NAME if None.
          **about: facts about the part; see the note above `objectives` below.

        Raises:
          ValueError: if another part has the name.
        """

        def add(make: Callable) -> Callable:
            old = self._parts.get(name)
            # The same part again, as when a notebook's cell runs twice, replaces itself.
            if old is not None and _home(old.make) != _home(make):
                raise ValueError(f"the {self.kind} {name!r} is registered already, by {old.make.__module__}.")
            path = f"{self.group}.{name}" if block is None else block
            # A plugin may be the first to import a module of this package, whose parts are no plugin's.
            own = make.__module__.startswith("hamjepa_jax.")
            plugin = _loading[-1] if _loading and not own else None
            self._parts[name] = Part(name, make, settings or Settings({}), path, about, plugin)
            return make

        return add

    def __getitem__(self, name: str) -> Part:
        """The part of that name.

        Raises:
          UserError: if there is none.
        """
        if name not in self._parts:
            raise UserError(
                f"{self.field} {name!r}: must be one of {', '.join(self._parts)}, or a part of your own from a "
                f"module that config.plugins names."
            )
        return self._parts[name]

    def __contains__(self, name: str) -> bool:
        return name in self._parts

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts)

    def parts(self, plugins: Sequence[str] | None = None) -> list[Part]:
        """The parts that a config with these plugins has: not those of other plugins; all of them if None."""
        names = None if plugins is None else [None, *map(plugin_name, plugins)]
        return [part for part in self._parts.values() if names is None or part.plugin in names]


def _home(make: Callable) -> tuple[str, str]:
    return make.__module__, make.__qualname__


# The facts of a registration (`about`) are explained in `build` for the first three kinds, in `data.sources` and
# `metrics.contract` for the others.
objectives = Registry("objective", "objective", "objective.name")
predictors = Registry("predictor", "predictor", "predictor.kind")
trunks = Registry("trunk", "encoder", "encoder.trunk")
sources = Registry("source", "data", "data.source")
metrics = Registry("metric", "evaluate", "metric")
REGISTRIES = (objectives, predictors, trunks, sources, metrics)

_loading: list[str] = []  # The plugins that are being imported, the innermost last.


def load_plugins(names: Iterable[str]) -> None:
    """Imports modules, or Python files, that register your own parts; a loaded one is not run again.

    Args:
      names: "package.module", or the path of a file that ends in ".py".

    Raises:
      UserError: naming the one that cannot be imported.
    """
    for name in map(plugin_name, names):
        with _noted(name):
            try:
                _load_file(pathlib.Path(name)) if name.endswith(".py") else _load_module(name)
            except (Exception, SystemExit) as error:
                reason = " ".join(f"{type(error).__name__}: {error}".split())
                raise UserError(
                    f"plugins {name!r}: cannot be imported ({reason}); give an importable module or the path of a "
                    f"Python file."
                ) from error


def register_all(package: str, path: Iterable[str]) -> None:
    """Imports every module of a package of parts, so that each registers its own: adding a file is enough.

    Args:
      package: its name, `__name__` in its __init__.py; likewise `path`, its `__path__`.
    """
    for module in pkgutil.iter_modules(path):
        importlib.import_module(f"{package}.{module.name}")


def plugin_name(name: str) -> str:
    """The name that a plugin's parts carry: its module, or the absolute path of its file."""
    return str(pathlib.Path(os.path.expanduser(name)).resolve()) if name.endswith(".py") else name


@contextlib.contextmanager
def _noted(plugin: str) -> Iterator[None]:
    _loading.append(plugin)
    try:
        yield
    finally:
        _loading.pop()


def _load_module(name: str) -> None:
    if "" not in sys.path and str(pathlib.Path.cwd()) not in sys.path:
        sys.path.append(str(pathlib.Path.cwd()))  # As `python -m` does.
    importlib.import_module(name)


def _load_file(path: pathlib.Path) -> None:
    name = f"hamjepa_jax_plugin_{path.stem}_{zlib.crc32(str(path).encode()):08x}"
    if name in sys.modules:
        return
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
