"""Grid files: a config, changes that all cells have, axes, and seeds.

A grid file is JSON, or Python that defines get_grid() -> the same as a dict:

  {"config": "cifar100",                            base config, NAME or FILE.py, with or without :name=value,…
   "override": {"train.epochs": 5},                 changed in every cell; may be missing
   "axes": {"predictor.step_size": [0.025, 0.05],   one axis for each field; fields joined by "+" are set together
            "objective.hamjepa.pr_floor_q+objective.hamjepa.pr_floor_p": [0.1, 0.2]},
   "seeds": [0, 1]}                                 each cell is run with each; [0] if missing

Cells are numbered with the seed running fastest, then the last axis.
"""

import itertools
import json
import pathlib
from typing import Any, NamedTuple

import ml_collections

from hamjepa_jax import config as config_lib
from hamjepa_jax.config.files import called, load_python, plugins_first
from hamjepa_jax.errors import UserError

ConfigDict = ml_collections.ConfigDict


class Grid(NamedTuple):
    """Attributes:
    config: file of the base config.
    override: {field: value} in every cell.
    axes: {field, or fields joined by "+": values}.
    seeds: that each cell is run with.
    """

    config: str
    override: dict[str, Any]
    axes: dict[str, list]
    seeds: list[int]

    def cells(self) -> list[tuple[dict[str, Any], int]]:
        """({axis: value}, seed) of every cell, in the order of their numbers."""
        points = [dict(zip(self.axes, values, strict=True)) for values in itertools.product(*self.axes.values())]
        return [(point, seed) for point in points for seed in self.seeds]


def read_grid(path: pathlib.Path) -> Grid:
    """The grid in a file.

    Raises:
      UserError: if the file or something in it is not as the module's docstring says.
    """
    if path.suffix == ".py":
        module = load_python(path, "grid")
        if not hasattr(module, "get_grid"):
            raise UserError(f"grid {path}: defines no get_grid().")
        content = called(module.get_grid, module.__file__, "grid")
    else:
        content = _read_json(path)
    unknown = set(content) - set(Grid._fields) if isinstance(content, dict) else None
    if unknown is None or unknown or not content.get("config") or not content.get("axes"):
        raise UserError(
            f'grid {path}: expected an object with "config" and "axes", and if wanted "override" and "seeds"'
            + (f"; it has {', '.join(sorted(unknown))}." if unknown else ".")
        )
    grid = Grid(content["config"], content.get("override", {}), content["axes"], content.get("seeds", [0]))
    for name in ("override", "axes"):
        if not isinstance(content.get(name, {}), dict):
            raise UserError(f'grid {path}: "{name}" must be an object with fields as its names.')
    if "seed" in {field.strip() for name in (*grid.override, *grid.axes) for field in name.split("+")}:
        raise UserError(f'grid {path}: seed is no field of a grid; give "seeds", a list of whole numbers.')
    for axis, values in grid.axes.items():
        if not isinstance(values, list | tuple) or not values or len({repr(v) for v in values}) < len(values):
            raise UserError(f"grid {path}: axis {axis} must be a list of different values.")
    seeds = grid.seeds if isinstance(grid.seeds, list | tuple) else ()
    if not seeds or not all(type(seed) is int for seed in seeds) or len(set(seeds)) < len(seeds):
        raise UserError(f"grid {path}: seeds {grid.seeds!r}: give a list of one or more whole numbers, each once.")
    return grid


def make_config(grid: Grid, point: dict[str, Any], seed: int) -> ConfigDict:
    """The config of one cell.

    Raises:
      UserError: for a field that does not exist or a value of the wrong type.
    """
    config = config_lib.read_config(grid.config)
    for field, value in plugins_first(grid.override):
        config_lib.set_field(config, field, value)
    for axis, value in point.items():
        for field in axis.split("+"):
            config_lib.set_field(config, field.strip(), value)
    config.seed = seed
    return config


def cell_name(grid: Grid, point: dict[str, Any], seed: int) -> str:
    """The name of a cell's workdir: "step_size=0.05,num_steps=2,seed=0"."""
    parts = [f"{short(grid, axis)}={value}" for axis, value in point.items()]
    name = ",".join([*parts, f"seed={seed}"])
    return "".join(c if c.isalnum() or c in "=,.+-_" else "_" for c in name)


def short(grid: Grid, axis: str) -> str:
    """The last part of an axis' field where no other axis has the same, else all of it."""
    names = ["+".join(field.strip().split(".")[-1] for field in a.split("+")) for a in grid.axes]
    mine = names[list(grid.axes).index(axis)]
    return mine if names.count(mine) == 1 else axis


def _read_json(path: pathlib.Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"grid {path}: cannot be read ({error.strerror}).") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"grid {path}: is no valid JSON ({error}).") from None
