"""Tables and a figure of what runs know of the systems that their clips show."""

import math
import os
import pathlib
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from hamjepa_jax.report import page
from hamjepa_jax.report.axes import COLOURS, finish, grid, log_axis, save
from hamjepa_jax.report.methods import METHOD_NAMES, runs_origin
from hamjepa_jax.report.significance import mean_std
from hamjepa_jax.report.tables import MISSING, READOUT_NAMES, markdown_rows

Run = Mapping[str, Any]  # {"seed", "step", …}, as `evaluate.measured_trajectories` gives it.
WAYS = ("forward", "backward")
NOTE = (
    "R² by ridge regression, a mean over the coordinates; errors are squared, in units of the encodings' variance "
    "within clips (1: a clip's mean; 2: one of its moments at random), their median over the clips; retrieval: the "
    "nearest encoding of all frames of all clips is that of the right frame; valid time: until the error is above "
    "0.1; SyMetric's criterion: R² of the map above 0.9 and score below 0.05; drift in standard deviations of the "
    "learned energy."
)


def trajectories_text(content: Mapping[str, Any]) -> str:
    """Plain text: for each checkpoint the R² of the true states, the rollouts and the energy.

    Args:
      content: of trajectories.json.
    """
    return "\n\n".join("\n".join(_lines(c)) for c in content["checkpoints"])


def _lines(c: Mapping[str, Any]) -> list[str]:
    lines = [f"step {c['step']}, epoch {c['epoch']:g}"]
    for readout, scores in c["states"].items():
        cells = [f"{kind} {' '.join(f'{x:.3f}' for x in values)}" for kind, values in scores.items()]
        lines.append(f"R² of position and momentum from {READOUT_NAMES.get(readout, readout)}: {', '.join(cells)}")
    lines.append(f"share of the encodings' variance that is within clips: {c['motion']:.3f}")
    if "symplecticity" in c:
        s = c["symplecticity"]
        lines.append(
            f"symplectic defect of the map to them {s['defect']:.3f} (its R² {s['r_squared']:.3f}, SyMetric's "
            f"score {s['sym']:.3f})"
        )
    for way in ("forward", "backward"):
        if way in c:
            lines.append(_rollout(way, c))
    if "energy" in c:
        e = c["energy"]
        lines.append(f"energy: drift {e['drift']:.3g}, rank correlation {e['rank_correlation']:.3f}")
    return lines


def _rollout(way: str, c: Mapping[str, Any]) -> str:
    shown = sorted({1, c["frames"] // 4, c["frames"] // 2, c["frames"]} - {0})
    cells = [f"{k}: {c[way]['error'][k]:.3g}, {100 * c[way]['retrieved'][k]:.0f} %" for k in shown]
    return (
        f"{way} rollout, error and retrieval after so many of {c['frames']} frames: {'; '.join(cells)}; valid for "
        f"{c[way]['valid_time']:.1f}"
    )


# -- Methods against each other ---------------------------------------------------------------------------


def trajectories_table(content: Mapping[str, Any]) -> str:
    """A row for each measure, a column for each method, in Markdown; below it where the numbers are from.

    Args:
      content: of the results.json of `reproduce --table=trajectories`.
    """
    runs = content["trajectories"]
    names = {method: METHOD_NAMES.get(method, method) for method in runs}
    header, *rows = _rows(runs, names)
    lines = markdown_rows([header, [":--", *["--:"] * len(runs)], *rows])
    over = _over_seeds({names[method]: len(of_method) for method, of_method in runs.items()})
    title = f"{content['title']}, data `{content['data']['source']}`"
    return "\n".join([*lines, "", f"{NOTE} {over}", "", runs_origin(title, content["runs"])])


def _over_seeds(counts: Mapping[str, int]) -> str:
    """What the numbers of a table are of methods with so many seeds."""
    most = max(counts.values())
    if most == 1:
        return "One seed."
    fewer = [f"{name} {count}" for name, count in counts.items() if count < most]
    only = f" ({', '.join(fewer)})" if fewer else ""
    return f"Mean ± sample standard deviation over {most} seeds{only}."


def trajectories_blocks(
    runs: Mapping[str, Sequence[Run]], folder: pathlib.Path, *, names: Mapping[str, str]
) -> list[page.Block]:
    """The same as blocks of a page, with a figure of the errors against time in folder/plots.

    Args:
      runs: {method: its runs, one for each seed}.
      folder: of the report.
      names: {method: its name in the report}.
    """
    header, *rows = _rows(runs, names)
    figure = rollouts_figure({names[m]: of_method for m, of_method in runs.items()}, folder / "plots/rollouts.png")
    caption = "Error of rollouts against time: mean over seeds of the median over clips, shaded least and largest."
    return [
        page.Heading("States, rollouts and energy"),
        page.Text(NOTE),
        page.Table(header, rows),
        page.Figure(figure, caption),
    ]


def rollouts_figure(runs: Mapping[str, Sequence[Run]], path: str | os.PathLike) -> pathlib.Path:
    """A panel for each direction of time: the error of rollouts against time, a line for each method.

    Args:
      runs: {name: its runs, one for each seed}.
      path: of the PNG; a PDF is written beside it.
    """
    figure, axes = grid(len(WAYS), columns=len(WAYS))
    for ax, way in zip(axes, WAYS, strict=True):
        for colour, (name, of_name) in zip(COLOURS, runs.items(), strict=False):
            errors = np.asarray([run[way]["error"] for run in of_name if way in run], float)
            if not errors.size:
                continue
            errors[~np.isfinite(errors)] = np.nan
            time = of_name[0]["dt"] * np.arange(1, errors.shape[1])
            ax.plot(time, errors[:, 1:].mean(axis=0), color=colour, linewidth=1.4, label=name)
            ax.fill_between(time, errors[:, 1:].min(axis=0), errors[:, 1:].max(axis=0), color=colour, alpha=0.15)
        log_axis(ax)
        finish(ax, f"Rollouts {way}", "time", "squared error / variance within clips")
        if ax.has_data():
            ax.axvline(_longest_gap(runs, way), color="#777777", linewidth=0.8, linestyle=":", label="longest gap")
            ax.legend(fontsize=8, frameon=False)
    return save(figure, path)


def _longest_gap(runs: Mapping[str, Sequence[Run]], way: str) -> float:
    """In training, in units of time."""
    return max(run["dt"] * run["gap"] for of_name in runs.values() for run in of_name if way in run)


def _rows(runs: Mapping[str, Sequence[Run]], names: Mapping[str, str]) -> list[list[str]]:
    """The header and a row for each measure that any run has."""
    first = next(iter(runs.values()))[0]
    rows = [["measure", *(names[method] for method in runs)]]
    for title, get in _measures(first).items():
        found = [[x for run in of_method if (x := _found(get, run)) is not None] for of_method in runs.values()]
        if any(found):
            rows.append([title, *map(_cell, found)])
    return rows


def _measures(run: Run) -> dict[str, Callable[[Run], float]]:
    """{title: the number of a run}; a run that lacks it raises a LookupError."""

    def state(readout: str, kind: str, half: int) -> Callable[[Run], float]:
        def get(run: Run) -> float:
            values = run["states"][readout][kind]
            d = len(values) // 2
            return statistics.mean(values[half * d : (half + 1) * d])

        return get

    def rollout(way: str, what: str, frame: int) -> Callable[[Run], float]:
        return lambda run: run[way][what][frame]

    found: dict[str, Callable[[Run], float]] = {}
    for kind in ("linear", "quadratic"):
        for half, name in enumerate(("position", "momentum")):
            for readout in READOUT_NAMES:
                found[f"R² of {name} from {READOUT_NAMES[readout]}, {kind}"] = state(readout, kind, half)
    found["share of variance within clips"] = lambda run: run["motion"]
    found["symplectic defect"] = lambda run: run["symplecticity"]["defect"]
    found["R² of its map"] = lambda run: run["symplecticity"]["r_squared"]
    found["SyMetric's score of it"] = lambda run: run["symplecticity"]["sym"]
    found["share of seeds that meet SyMetric's criterion"] = lambda run: run["symplecticity"]["symetric"]
    if "frames" in run:
        shown = sorted({1, run["gap"], min(10 * run["gap"], run["frames"]), run["frames"]})
        for way in WAYS:
            for frame in shown:
                found[f"error {way}, {_after(frame)}"] = rollout(way, "error", frame)
            found[f"valid time {way}, of {run['frames']} frames"] = lambda run, way=way: run[way]["valid_time"]
        for way in WAYS:
            for frame in shown:
                found[f"retrieval {way}, {_after(frame)}"] = rollout(way, "retrieved", frame)
    found["drift of the learned energy"] = lambda run: run["energy"]["drift"]
    found["its rank correlation with the true one"] = lambda run: run["energy"]["rank_correlation"]
    return found


def _after(frames: int) -> str:
    return f"{frames} frame" + "s" * (frames > 1)


def _found(get: Callable[[Run], float], run: Run) -> float | None:
    try:
        return get(run)
    except LookupError:
        return None


def _cell(values: Sequence[float]) -> str:
    """ "0.94 ± 0.01"; three digits below 0.1 and one above 10."""
    if not values:
        return MISSING
    if not all(map(math.isfinite, values)):
        return (
            "diverges"
            if all(math.isinf(x) for x in values)
            else f"diverges for {_infinite(values)} of {len(values)}"
        )
    mean, std = mean_std(values)
    size = max(abs(mean), 0.0 if math.isnan(std) else std)
    form = ".1f" if size >= 10 else ".2f" if size >= 0.1 else ".4f" if size < 0.01 else ".3f"
    return f"{mean:{form}}" if math.isnan(std) else f"{mean:{form}} ± {std:{form}}"


def _infinite(values: Sequence[float]) -> int:
    return sum(not math.isfinite(x) for x in values)
