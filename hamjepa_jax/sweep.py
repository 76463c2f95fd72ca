"""Accuracy over a grid of settings: python -m hamjepa_jax.sweep GRID.py --out DIR [--cell i].

A grid file is JSON, or Python that defines get_grid() -> the same as a dict:

  {"config": "configs/cifar100.py",                 base config, FILE.py or FILE.py:name=value,…
   "override": {"train.epochs": 5},                 changed in every cell; may be missing
   "axes": {"predictor.step_size": [0.025, 0.05],   one axis for each field; fields joined by "+" are set together
            "objective.hamjepa.pr_floor_q+objective.hamjepa.pr_floor_p": [0.1, 0.2]},
   "seeds": [0, 1]}                                 each cell is run with each; [0] if missing

Cells are numbered with the seed running fastest, then the last axis. DIR/cells/<name> are ordinary workdirs. Each
invocation writes DIR/report.md, report.html, results.json and the heat maps from all the cells that are done, so
that the tasks of a SLURM array may run `--cell $SLURM_ARRAY_TASK_ID` side by side, and the last to end leaves the
whole table.
"""

import argparse
import functools
import itertools
import json
import logging
import math
import pathlib
import sys
from typing import Any, NamedTuple

import jax
import ml_collections

from hamjepa_jax import command_line, report, runs
from hamjepa_jax import config as config_lib
from hamjepa_jax.data import open_source
from hamjepa_jax.errors import UserError
from hamjepa_jax.folders import make_folder

ConfigDict = ml_collections.ConfigDict
log = logging.getLogger("hamjepa_jax.sweep")  # its name when run as a command, too


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


def main(argv: list[str] | None = None) -> int:
    return command_line.run(sweep, make_parser(), argv)


def make_parser() -> command_line.Parser:
    parser = command_line.Parser(
        prog="python -m hamjepa_jax.sweep",
        description="Trains and evaluates a config over a grid of settings, and writes one table and heat map from "
        "the cells that are done. What is done is skipped, what was broken off is gone on with.",
        epilog='A grid file: {"config": "configs/cifar100.py", "override": {"train.epochs": 5}, "axes": '
        '{"predictor.step_size": [0.025, 0.05], "predictor.num_steps": [1, 2]}, "seeds": [0]}, as JSON, or as what '
        'get_grid() of a Python file returns. Fields joined by "+" are set together.',
    )
    parser.add_argument("grid", metavar="GRID", help="grid file, .json or .py")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for the cells and the table")
    parser.add_argument("--cell", default="all", metavar="I", help='number of a cell, "all", or "none": table only')
    parser.add_argument("--list", action="store_true", help="print the numbered cells and stop")
    return parser


def sweep(arguments: argparse.Namespace) -> None:
    """Runs the chosen cells and writes the table of those that are done.

    Raises:
      UserError: for a grid, cell, data or run that cannot be used.
    """
    grid, out = read_grid(pathlib.Path(arguments.grid)), pathlib.Path(arguments.out)
    cells = grid.cells()
    if arguments.list:
        for i, (point, seed) in enumerate(cells):
            print(f"{i:4d}  {cell_name(grid, point, seed)}")
        return
    chosen = _chosen(arguments.cell, len(cells))
    configs = [make_config(grid, point, seed) for point, seed in cells]
    for config in configs:
        config_lib.validate(config, jax.device_count())
    source_of = functools.cache(open_source)
    for i in chosen:
        workdir = out / "cells" / cell_name(grid, *cells[i])
        make_folder(workdir.parent, "--out")
        log.info("cell %d of 0 … %d", i, len(cells) - 1)
        data = configs[i].data
        if not runs.complete(configs[i], workdir, source_of(data.source, loader=data.loader)):
            log.info("stopped; the same command goes on from there")
            return
    write_report(grid, out)


def read_grid(path: pathlib.Path) -> Grid:
    """The grid in a file.

    Raises:
      UserError: if the file or something in it is not as the module's docstring says.
    """
    if path.suffix == ".py":
        module = runs.load_python(path, "grid")
        if not hasattr(module, "get_grid"):
            raise UserError(f"grid {path}: defines no get_grid().")
        content = module.get_grid()
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
    config = runs.read_config(grid.config)
    for field, value in grid.override.items():
        runs.override(config, field, value)
    for axis, value in point.items():
        for field in axis.split("+"):
            runs.override(config, field.strip(), value)
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


def write_report(grid: Grid, out: pathlib.Path) -> None:
    """Writes the table, the heat maps and the numbers of the cells that are done.

    Raises:
      UserError: if seeds of one cell differ in more than the seed.
    """
    done = _finished(grid, out)
    if not done:
        log.info("no cell is done yet")
        return
    first = done[0][1][0]
    readouts = list(dict.fromkeys(readout for _, cell in done for readout in cell[0].readouts()))
    protocol = report.headline_keys(first)
    axes = list(grid.axes)
    header = [*(short(grid, a) for a in axes), "readout"]
    header += [f"{report.headline_title(kind, protocol)} %" for kind in protocol] + ["effective rank", "seeds"]
    rows, results = [], []
    for point, cell in done:
        for readout in cell[0].readouts():
            metrics = [run.readouts()[readout] for run in cell]
            rank = next((k for k in metrics[0] if k.startswith("effective_rank_top")), None)
            numbers = [report.mean_text([m[key] for m in metrics if key in m]) for key in protocol.values()]
            numbers.append(report.mean_text([m[rank] for m in metrics] if rank else [], 1, 1))
            values = [str(point[a]) for a in axes]
            shown_seeds = ", ".join(str(run.seed) for run in cell)
            rows.append([*values, report.READOUT_NAMES[readout], *numbers, shown_seeds])
            found = {key: [m[key] for m in metrics] for key in metrics[0]}
            results.append({"cell": point, "readout": readout, "seeds": [r.seed for r in cell], "metrics": found})
    cells = {", ".join(f"{short(grid, a)}={v}" for a, v in point.items()): cell for point, cell in done}
    blocks = [
        report.Text(_about(grid, first, protocol, len(done))),
        *_heat_maps(grid, done, protocol, readouts, out),
        report.Heading("Every cell"),
        report.Table(header, rows, text_columns=len(axes) + 1),
        *report.run_blocks(cells, "cell"),
        report.config_listing(first, f"Config of {next(iter(cells))}"),
    ]
    report.write_page(f"Sweep over {', '.join(short(grid, a) for a in axes)}", blocks, out)
    command_line.write_json(out / "results.json", {"grid": grid._asdict(), "protocol": protocol, "cells": results})
    log.info("%d of %d cells done; report: %s", len(done), len(grid.cells()) // len(grid.seeds), out / "report.md")


def _about(grid: Grid, first: report.FinishedRun, protocol: dict[str, str], done: int) -> str:
    settings = ", ".join(f"{k}={v}" for k, v in grid.override.items())
    return (
        f"Base config {grid.config}{f' with {settings}' if settings else ''}; data {first.config['data.source']} "
        f"(fingerprint {first.fingerprint}); seeds {', '.join(map(str, grid.seeds))}, mean ± sample standard "
        f"deviation; {done} of {len(grid.cells()) // len(grid.seeds)} cells are done. Top-1 accuracy on the test "
        f"images, the training images as bank and for the probe. {report.describe_protocol(protocol)} Evaluated "
        f"are the weights after the last step."
    )


def _finished(grid: Grid, out: pathlib.Path) -> list[tuple[dict[str, Any], list[report.FinishedRun]]]:
    """(axis values, runs by seed) of the cells with at least one seed done."""
    by_point: dict[str, tuple[dict, list]] = {}
    for point, seed in grid.cells():
        workdir = out / "cells" / cell_name(grid, point, seed)
        if not (workdir / "metrics.json").exists():
            continue
        run, config = report.read_run(workdir), make_config(grid, point, seed)
        differences = config_lib.differing_fields(
            json.loads((workdir / "config.json").read_text())["config"], config
        )
        if differences:
            raise UserError(
                f"{workdir}: holds a run that differs in {'; '.join(differences)}; choose another --out."
            )
        total = config_lib.total_steps(config, run.steps_per_epoch())
        if total and not runs.is_whole(run, total):  # 0: a run that logged nothing
            continue
        by_point.setdefault(repr(point), (point, []))[1].append(run)
    for _, cell in by_point.values():
        report.refuse_mixed(cell)
    if "data.source" not in "+".join(grid.axes).split("+"):
        report.refuse_other_data([run for _, cell in by_point.values() for run in cell])
    return list(by_point.values())


def _heat_maps(grid, done, protocol, readouts, out: pathlib.Path) -> list[report.Figure]:
    """A figure for each readout: the last two axes across and up, a row of panels for each value of the others."""
    *outer, across = list(grid.axes)
    up = outer.pop() if outer else None
    by_point = {repr(point): cell for point, cell in done}
    figures = []
    for readout in readouts:
        panels = []
        for fixed in itertools.product(*(grid.axes[a] for a in outer)):
            point = dict(zip(outer, fixed, strict=True))
            for kind, key in protocol.items():
                table = [
                    [
                        _accuracy(by_point.get(repr(point | ({up: y} if up else {}) | {across: x})), readout, key)
                        for x in grid.axes[across]
                    ]
                    for y in (grid.axes[up] if up else [None])
                ]
                where = ", ".join(f"{short(grid, a)}={v}" for a, v in point.items())
                title = f"{report.headline_title(kind, protocol)}, {report.READOUT_NAMES[readout]}"
                panels.append(
                    {
                        "title": f"{title}\n{where}" if where else title,
                        "x": (short(grid, across), grid.axes[across]),
                        "y": (short(grid, up), grid.axes[up]) if up else None,
                        "mean": [[mean for mean, _ in row] for row in table],
                        "std": [[std for _, std in row] for row in table],
                    }
                )
        path = report.grid_figure(panels, out / "plots" / f"grid_{readout}.png")
        figures.append(report.Figure(path, f"Accuracy of {report.READOUT_NAMES[readout]} over the grid."))
    return figures


def _accuracy(cell: list[report.FinishedRun] | None, readout: str, key: str) -> tuple[float, float]:
    """Mean and deviation over seeds in per cent; NaN where the cell is not done or lacks it."""
    found = [run.readouts().get(readout, {}).get(key) for run in cell or ()]
    if not found or None in found:
        return math.nan, math.nan
    return report.mean_std([100 * value for value in found])


def _chosen(text: str, count: int) -> list[int]:
    if text in ("all", "none"):
        return list(range(count)) if text == "all" else []
    try:
        i = int(text)
    except ValueError:
        i = -1
    if not 0 <= i < count:
        raise UserError(f'--cell {text}: expected a number from 0 to {count - 1}, "all" or "none".')
    return [i]


def _read_json(path: pathlib.Path) -> Any:
    try:
        return json.loads(path.read_text())
    except OSError as error:
        raise UserError(f"grid {path}: cannot be read ({error.strerror}).") from None
    except json.JSONDecodeError as error:
        raise UserError(f"grid {path}: is no valid JSON ({error}).") from None


if __name__ == "__main__":
    command_line.log_to_terminal()
    sys.exit(main())
