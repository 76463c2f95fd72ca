"""Weights in and out of other frameworks' formats."""

import importlib
from types import ModuleType

_MODULES = ("export", "pretrained", "torch", "torch_import")


def __getattr__(name: str) -> ModuleType:
    # Imported late: `python -m hamjepa_jax.interop.torch` would find itself imported already.
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module(f"{__name__}.{name}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
