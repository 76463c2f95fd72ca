"""Weights in and out of other frameworks' formats."""

import importlib
from types import ModuleType

_MODULES = ("export", "pretrained", "torch")


def __getattr__(name: str) -> ModuleType:
    # Imported when they are asked for: the package itself needs no JAX.
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module(f"{__name__}.{name}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
