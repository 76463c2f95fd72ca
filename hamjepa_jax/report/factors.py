"""Table and figure of what readouts know of the factors that images were drawn from, from a factors.json."""

import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from hamjepa_jax.report.axes import READOUTS, finish, grid, save
from hamjepa_jax.report.significance import mean_std
from hamjepa_jax.report.tables import MISSING, READOUT_NAMES, markdown_rows

PROBES = {"ridge": "ridge", "mlp": "MLP"}
WAYS = {"before": "", "after": " after the flow"}


def factors_text(content: Mapping[str, Any]) -> str:
    """Aligned plain text: for each method a row for each factor, a column for each readout, before and after.

    Args:
      content: of factors.json.
    """
    blocks = []
    for method, stages in content["results"].items():
        columns = {
            READOUT_NAMES.get(readout, readout) + WAYS[stage]: scores
            for stage, readouts in stages.items()
            for readout, scores in readouts.items()
        }
        rows = [["", *columns]]
        for factor in _factors(content):
            rows.append([_label(factor, content), *(_cell(scores.get(factor)) for scores in columns.values())])
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
        blocks.append("\n".join([method, *lines]))
    return "\n\n".join([*blocks, _note(content)])


def factors_table(content: Mapping[str, Any]) -> str:
    """The scores before the flow in Markdown: a row for each factor, a column for each method's readouts."""
    columns = {
        f"{method} {READOUT_NAMES.get(readout, readout)}": scores
        for method, stages in content["results"].items()
        for readout, scores in stages["before"].items()
    }
    rows = [["factor", *columns], [":--", *["--:"] * len(columns)]]
    for factor in _factors(content):
        rows.append([_label(factor, content), *(_cell(scores.get(factor)) for scores in columns.values())])
    return "\n".join([*markdown_rows(rows), "", " ".join([_note(content), *_moved(content)])])


def factors_figure(content: Mapping[str, Any], path: str | os.PathLike) -> pathlib.Path:
    """A panel for each method and probe: the scores of each readout before (filled) and after the flow (open).

    Args:
      content: of factors.json.
      path: of the PNG; a PDF is written beside it.

    Returns:
      The path of the PNG.
    """
    methods, factors = list(content["results"]), _factors(content)
    figure, axes = grid(len(methods) * len(PROBES), len(methods))
    panels = [(probe, method) for probe in PROBES for method in methods]
    lowest = min(0.0, *(value for *_, values in _scores(content) for value in values))
    for ax, (probe, method) in zip(axes, panels, strict=True):
        stages = content["results"][method]
        many = [(stage, readout) for readout in stages["before"] for stage in stages]
        for i, (stage, readout) in enumerate(many):
            colour, marker, name = READOUTS.get(readout, READOUTS["z"])
            found = [mean_std(stages[stage][readout].get(f, {}).get(probe, [np.nan])) for f in factors]
            at = np.arange(len(factors)) + 0.7 * ((i + 0.5) / len(many) - 0.5)
            ax.errorbar(
                at, [m for m, _ in found], [s for _, s in found], fmt=marker, color=colour, markersize=4.5,
                markerfacecolor=colour if stage == "before" else "white", elinewidth=0.8, label=name + WAYS[stage],
            )  # fmt: skip
        score = "accuracy or R²" if method == methods[0] else ""
        finish(ax, f"{method}, {PROBES[probe]} probe", "", score)
        ax.set_xticks(range(len(factors)), [f.replace("_", " ") for f in factors], rotation=35, ha="right")
        ax.set_ylim(lowest - 0.05, 1.05)
    shown = {label: handle for ax in axes for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    columns = min(len(shown), 2 * len(methods) + 1)
    figure.legend(shown.values(), shown, fontsize=8, frameon=False, loc="outside lower center", ncols=columns)
    return save(figure, path)


def _factors(content: Mapping[str, Any]) -> list[str]:
    """Names of the factors that were measured, in the order of the source."""
    measured = {path[3] for *path, _ in _scores(content)}
    return [name for name in content["kinds"] if name in measured]


def _scores(content: Mapping[str, Any]) -> Iterator[tuple]:
    """(method, stage, readout, factor, probe, values) of all that was measured."""
    for method, stages in content["results"].items():
        for stage, readouts in stages.items():
            for readout, factors in readouts.items():
                for factor, probes in factors.items():
                    for probe, values in probes.items():
                        yield method, stage, readout, factor, probe, values


def _label(factor: str, content: Mapping[str, Any]) -> str:
    return factor.replace("_", " ") + (" (accuracy)" if content["kinds"][factor] == "categorical" else "")


def _cell(probes: Mapping[str, list[float]] | None) -> str:
    """ "0.41 / 0.83": by ridge and by MLP."""
    return (
        " / ".join(f"{round(mean_std(probes[probe])[0], 2) + 0.0:.2f}" for probe in PROBES) if probes else MISSING
    )


def _note(content: Mapping[str, Any]) -> str:
    runs = max(len(values) for *_, values in _scores(content))
    text = "R² (accuracy where it says so) on test images by a ridge / an MLP probe"
    if runs == 1:
        return f"{text}; one seed."
    largest = max(mean_std(values)[1] for *_, values in _scores(content))
    return f"{text}; means over {runs} seeds, whose standard deviation is at most {largest:.2f}."


def _moved(content: Mapping[str, Any]) -> list[str]:
    """A sentence for each method that has a flow: by how much it changes the scores."""
    sentences = []
    for method, stages in content["results"].items():
        changes = {
            (readout, factor, probe): mean_std(stages["after"][readout][factor][probe])[0] - mean_std(values)[0]
            for of, stage, readout, factor, probe, values in _scores(content)
            if of == method and stage == "before" and "after" in stages
        }
        if changes:
            readout, factor, probe = most = max(changes, key=lambda place: abs(changes[place]))
            sentences.append(
                f"Through the flow of {method} no mean changes by more than {abs(changes[most]):.3f} "
                f"({factor.replace('_', ' ')} in {READOUT_NAMES[readout]}, {PROBES[probe]})."
            )
    return sentences
