"""What run.json says of a run's origin."""

import sys
import types

import pytest

from hamjepa_jax.run.workdir import environment


@pytest.mark.parametrize(
    "module, expected",
    [
        ("hamjepa_jax.main", "python -m hamjepa_jax.main '--workdir=my runs/a'"),
        ("hamjepa_jax.benchmark.__main__", "python -m hamjepa_jax.benchmark '--workdir=my runs/a'"),
        (None, "python train.py '--workdir=my runs/a'"),
    ],
)
def test_the_command_is_a_line_without_the_paths_of_the_machine(monkeypatch, module, expected):
    main = types.ModuleType("__main__")
    main.__spec__ = module and types.SimpleNamespace(name=module)
    monkeypatch.setitem(sys.modules, "__main__", main)
    monkeypatch.setattr(sys, "argv", ["/home/me/checkout/train.py", "--workdir=my runs/a"])
    assert environment()["command"] == expected
