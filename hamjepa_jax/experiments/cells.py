"""The cells of a grid: each an ordinary run, and one report of those that are done.

OUT/cells/<name> are ordinary workdirs. Each call writes OUT/report.md, report.html, results.json and the heat maps
from all the cells that are done. So the tasks of a SLURM array may run `--cell $SLURM_ARRAY_TASK_ID` side by side,
and the last one to end leaves the whole table.
"""

import argparse
import functools
import itertools
import logging
import math
import pathlib
import shlex
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from hamjepa_jax import build, report
from hamjepa_jax import config as config_lib
from hamjepa_jax.data import Source, open_source
from hamjepa_jax.errors import UserError
from hamjepa_jax.experiments import many
from hamjepa_jax.experiments.grid import Grid, cell_name, make_config, read_grid, short
from hamjepa_jax.files import make_folder, user_path, write_json
from hamjepa_jax.metrics import FLOW_TABLE, METHODS_TABLE, Shown

log = logging.getLogger(__name__)
FLOW_LOOK = {"label": "", "form": ".1e", "log": True}  # Of the flow's panels.


def sweep(arguments: argparse.Namespace) -> None:
    """Runs the chosen cells and writes the table of those that are done.

    Raises:
      UserError: for a grid, cell, data or run that cannot be used.
    """
    grid, out = read_grid(user_path(arguments.grid, "GRID")), user_path(arguments.out, "--out")
    cells = grid.cells()
    configs = [make_config(grid, point, seed) for point, seed in cells]
    for config in configs:
        build.check(config)
    chosen = _chosen(arguments.cell, len(cells))
    if arguments.list:
        for i, (point, seed) in enumerate(cells):
            print(f"{i:4d}  {cell_name(grid, point, seed)}")
        return
    for config in configs:
        config_lib.check_devices(config, jax.device_count())
    source_of = functools.cache(open_source)
    for i in chosen:
        workdir = out / "cells" / cell_name(grid, *cells[i])
        make_folder(workdir.parent, "--out")
        log.info("cell %d of 0 … %d", i, len(cells) - 1)
        data = configs[i].data
        if not many.complete(configs[i], workdir, source_of(data.source, loader=data.loader)):
            log.info("stopped; the same command goes on from there")
            return
    command = "python -m hamjepa_jax.sweep " + shlex.join(arguments.argv)
    write_report(grid, out, command, source_of if arguments.pictures else None)


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


def write_report(
    grid: Grid, out: pathlib.Path, command: str, source_of: Callable[..., Source] | None = None
) -> None:
    """Writes the table, the heat maps and the numbers of the cells that are done, with their machine and code.

    With `source_of`, data.source -> images, also the pictures of the most accurate cell.

    Raises:
      UserError: if seeds of one cell differ in more than the seed.
    """
    done = _finished(grid, out)
    if not done:
        log.info("no cell is done yet")
        return
    first = done[0][1][0]
    readouts = list(dict.fromkeys(readout for _, cell in done for readout in cell[0].readouts()))
    protocol = _protocol(done)
    axes = list(grid.axes)
    header = [*(short(grid, a) for a in axes), "readout"]
    header += [f"{report.headline_title(kind, protocol)} %" for kind in protocol]
    columns = report.metric_columns(METHODS_TABLE, _keys(done))
    flow = report.metric_columns(FLOW_TABLE, (key for _, cell in done for run in cell for key in run.flow()))
    header += [*(column.title for column in columns), "seeds"]
    rows, results = [], []
    for point, cell in done:
        for readout in cell[0].readouts():
            metrics = [run.readouts()[readout] for run in cell]
            numbers = [report.mean_text([m[key] for m in metrics if key in m]) for key in protocol.values()]
            numbers += [report.cell(column, metrics) for column in columns]
            values = [str(point[a]) for a in axes]
            shown_seeds = ", ".join(str(run.seed) for run in cell)
            rows.append([*values, report.READOUT_NAMES[readout], *numbers, shown_seeds])
            results.append(_record(point, readout, cell, metrics))
        if cell[0].flow():
            results.append(_record(point, "flow", cell, [run.flow() for run in cell]))
    cells = {", ".join(f"{short(grid, a)}={v}" for a, v in point.items()): cell for point, cell in done}
    blocks = [
        report.Text(_about(grid, first, protocol, len(done))),
        *_heat_maps(grid, done, protocol, readouts, flow, out),
        report.Heading("Every cell"),
        report.Table(header, rows, text_columns=len(axes) + 1),
        *_flow_table(grid, done, flow),
        *_pictures(cells, readouts[0], protocol, source_of),
        *report.label_free_blocks(cells, "cell"),
        *report.run_blocks(cells, "cell"),
        report.config_listing(first, f"Config of {next(iter(cells))}"),
    ]
    report.write_page(f"Sweep over {', '.join(short(grid, a) for a in axes)}", blocks, out)
    provenance = {"command": command, "runs": report.run_records(cells)}
    write_json(out / "results.json", {"grid": grid._asdict(), "protocol": protocol, "cells": results} | provenance)
    log.info("%d of %d cells done; report: %s", len(done), len(grid.cells()) // len(grid.seeds), out / "report.md")


def _protocol(done) -> dict[str, str]:
    """The headline accuracies: of each kind the first that a cell has, since cells may be measured differently."""
    found: dict[str, str] = {}
    for _, (run, *_) in done:
        found = report.headline_keys(run) | found
    return dict(sorted(found.items()))  # kNN, then the probe.


def _pictures(cells, readout: str, protocol: dict[str, str], source_of) -> list[Any]:
    """The pictures of the cell with the highest mean of the first accuracy, of the first readout's; if asked for.

    Without accuracies they are those of the first cell.
    """
    if source_of is None:
        return []
    key = next(iter(protocol.values()), "")
    name = max(
        cells, key=lambda name: np.mean([run.readouts().get(readout, {}).get(key, 0) for run in cells[name]])
    )
    run = cells[name][0]
    return many.picture_blocks(run, name, source_of(run.config["data.source"], loader=run.config["data.loader"]))


def _record(point: dict[str, Any], readout: str, cell: list[report.FinishedRun], metrics: list[dict]) -> dict:
    """One entry of "cells" in results.json: {key: a number for each seed} of a readout or of the flow."""
    found = {key: [m[key] for m in metrics] for key in metrics[0]}
    return {"cell": point, "readout": readout, "seeds": [run.seed for run in cell], "metrics": found}


def _flow_table(grid: Grid, done, columns: Sequence[Shown]) -> list[report.Heading | report.Table]:
    """The structure of the learned flow in every cell; nothing where it was not measured."""
    if not columns:
        return []
    header = [*(short(grid, a) for a in grid.axes), *(column.title for column in columns)]
    rows = [
        [*map(str, point.values()), *(report.cell(column, [run.flow() for run in cell]) for column in columns)]
        for point, cell in done
    ]
    return [report.Heading("The learned flow"), report.Table(header, rows, text_columns=len(grid.axes))]


def _about(grid: Grid, first: report.FinishedRun, protocol: dict[str, str], done: int) -> str:
    settings = ", ".join(f"{k}={v}" for k, v in grid.override.items())
    data = f"data {first.config['data.source']} (fingerprint {first.fingerprint}); "
    return (
        f"Base config {grid.config}{f' with {settings}' if settings else ''}; {'' if _over_data(grid) else data}"
        f"{done} of {len(grid.cells()) // len(grid.seeds)} cells are done.{report.evaluated_on(first)} "
        f"{report.over_seeds(grid.seeds)}. "
        f"{report.describe_protocol(protocol)} Evaluated are the weights after the last step."
    )


def _over_data(grid: Grid) -> bool:
    """Whether the cells differ in their images."""
    return "data.source" in {field.strip() for axis in grid.axes for field in axis.split("+")}


def _keys(done: Sequence[tuple[dict[str, Any], list[report.FinishedRun]]]) -> Iterator[str]:
    """The keys of all readouts of all cells, without the readout."""
    for _, cell in done:
        for run in cell:
            for metrics in run.readouts().values():
                yield from metrics


def _finished(grid: Grid, out: pathlib.Path) -> list[tuple[dict[str, Any], list[report.FinishedRun]]]:
    """(axis values, runs by seed) of the cells with at least one seed done."""
    by_point: dict[str, tuple[dict, list]] = {}
    for point, seed in grid.cells():
        workdir = out / "cells" / cell_name(grid, point, seed)
        if not (workdir / "metrics.json").exists():
            continue
        run, config = report.read_run(workdir), make_config(grid, point, seed)
        differences = many.differences(workdir, config)
        if differences:
            raise UserError(
                f"{workdir}: holds a run that differs in {'; '.join(differences)}; choose another --out."
            )
        total = config_lib.total_steps(config, run.steps_per_epoch())
        if total and not many.is_whole(run, total):  # 0: a run that logged nothing
            continue
        by_point.setdefault(repr(point), (point, []))[1].append(run)
    cells = [(point, report.alike(cell)) for point, cell in by_point.values()]
    if not _over_data(grid):
        report.refuse_other_data([run for _, cell in cells for run in cell])
    return cells


def _heat_maps(grid, done, protocol, readouts, flow: Sequence[Shown], out: pathlib.Path) -> list[report.Figure]:
    """A figure for each readout, with the flow's panels: the last two axes across and up, panels for each value of
    the others.
    """
    figures = []
    for readout in readouts if protocol else readouts[:1]:  # The flow's panels are the same beside each.
        shown = [
            (
                f"{report.headline_title(kind, protocol)}, {report.READOUT_NAMES[readout]}",
                functools.partial(_accuracy, readout=readout, key=key),
                {},
            )
            for kind, key in protocol.items()
        ]
        shown += [(column.title, functools.partial(_of_flow, column=column), FLOW_LOOK) for column in flow]
        panels = [panel for fixed in _outer_points(grid) for panel in _panels(grid, done, fixed, shown)]
        if not panels:  # Neither an accuracy nor a flow was measured.
            continue
        path = report.grid_figure(panels, out / "plots" / f"grid_{readout}.png")
        name = report.READOUT_NAMES[readout]
        caption = f"Accuracy of {name} over the grid." if protocol else ""
        caption += " The flow's structure at test states stands beside." if protocol and flow else ""
        figures.append(report.Figure(path, caption or "The flow's structure at test states over the grid."))
    return figures


def _outer_points(grid: Grid) -> list[dict[str, Any]]:
    """Every choice of values for all axes but the last two."""
    outer = list(grid.axes)[:-2]
    return [dict(zip(outer, fixed, strict=True)) for fixed in itertools.product(*(grid.axes[a] for a in outer))]


def _panels(grid: Grid, done, fixed: dict[str, Any], shown) -> Iterator[dict]:
    """A panel of `report.grid_figure` for each (title, cell -> (mean, deviation), look) at fixed outer axes."""
    by_point = {repr(point): cell for point, cell in done}
    *up, across = [axis for axis in grid.axes if axis not in fixed]
    rows = [{up[0]: y} for y in grid.axes[up[0]]] if up else [{}]
    where = ", ".join(f"{short(grid, a)}={v}" for a, v in fixed.items())
    for title, number, look in shown:
        table = [[number(by_point.get(repr(fixed | row | {across: x}))) for x in grid.axes[across]] for row in rows]
        yield {
            "title": f"{title}\n{where}" if where else title,
            "x": (short(grid, across), grid.axes[across]),
            "y": (short(grid, up[0]), grid.axes[up[0]]) if up else None,
            "mean": [[mean for mean, _ in row] for row in table],
            "std": [[std for _, std in row] for row in table],
        } | look


def _accuracy(cell: list[report.FinishedRun] | None, readout: str, key: str) -> tuple[float, float]:
    """Mean and deviation over seeds in per cent; NaN where the cell is not done or lacks it."""
    found = [run.readouts().get(readout, {}).get(key) for run in cell or ()]
    if not found or None in found:
        return math.nan, math.nan
    return report.mean_std([100 * value for value in found])


def _of_flow(cell: list[report.FinishedRun] | None, column: Shown) -> tuple[float, float]:
    """Mean and deviation over seeds; NaN where the cell is not done or its flow was not measured."""
    values, _ = column.pick([run.flow() for run in cell or ()])
    return report.mean_std(values) if values else (math.nan, math.nan)
