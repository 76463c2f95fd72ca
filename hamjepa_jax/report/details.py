"""Further tables of a results.json of the command hamjepa_jax.reproduce: differences, geometry, times."""

import statistics
from collections.abc import Mapping
from typing import Any

from hamjepa_jax.metrics import METHODS_TABLE
from hamjepa_jax.report.differences import interval, p_text
from hamjepa_jax.report.methods import METHOD_NAMES, row_name, rows_of_methods
from hamjepa_jax.report.tables import MISSING, cell, markdown_rows, metric_columns, signed


def differences_table(content: Mapping[str, Any]) -> str:
    """The paired differences of every two methods in Markdown, with 95% intervals and p-values.

    Args:
      content: of results.json.
    """
    metrics = list(dict.fromkeys(d["metric"] for d in content["differences"]))
    rows: dict[str, dict[str, Mapping]] = {}
    for d in content["differences"]:
        one, other = row_name(d["method"], d["readout"]), row_name(d["against"], d["its_readout"])
        rows.setdefault(f"{one} − {other}", {})[d["metric"]] = d
    header = ["difference", *(title for metric in metrics for title in (metric, "p")), "seeds"]
    lines = [header, [":--", *["--:"] * (len(header) - 1)]]
    for name, of_row in rows.items():
        cells = [text for metric in metrics for text in _tested(of_row[metric])]
        lines.append([name, *cells, str(len(of_row[metrics[0]]["seeds"]))])
    note = "Points of accuracy, paired by seed, with 95% intervals; p of a t-test, not corrected for their number."
    return "\n".join([*markdown_rows(lines), "", note])


def geometry_table(content: Mapping[str, Any]) -> str:
    """What would show a collapse: effective rank, cosines of random pairs, norms; a row for each readout.

    Args:
      content: of results.json.
    """
    rows = [(m, r, {key: x["values"] for key, x in metrics.items()}) for m, r, metrics in rows_of_methods(content)]
    keys = [key for *_, metrics in rows for key in metrics]
    columns = [column for column in metric_columns(METHODS_TABLE, keys) if column.factor == 1]
    lines = [["features", *(column.title for column in columns), "seeds"], [":--", *["--:"] * (1 + len(columns))]]
    for method, readout, metrics in rows:
        seeds = [dict(zip(metrics, values, strict=True)) for values in zip(*metrics.values(), strict=True)]
        lines.append([row_name(method, readout), *(cell(column, seeds) for column in columns), str(len(seeds))])
    note = "Of the states of test images: effective rank of their covariance, cosine of random pairs, norm."
    return "\n".join([*markdown_rows(lines), "", note])


def times_table(content: Mapping[str, Any]) -> str:
    """Wall times of the runs and images a second in training: medians, and least and most; a row for each method.

    Args:
      content: of results.json.
    """
    lines = [["method", "seconds of a run", "images/s", "runs"], [":--", "--:", "--:", "--:"]]
    for method in content["results"]:
        runs = [run for run in content["runs"] if run["name"] == method]
        spans = [_span([run[key] for run in runs if run[key] is not None]) for key in ("wall_s", "images_per_s")]
        lines.append([METHOD_NAMES.get(method, method), *spans, str(len(runs))])
    return "\n".join(markdown_rows(lines))


def _tested(d: Mapping[str, Any]) -> list[str]:
    points = signed(d["difference"])
    return [f"{points} {interval(d)}", p_text(d["p"])] if "p" in d else [points, MISSING]


def _span(values: list[float]) -> str:
    """ "1,204 (980–1,310)"; "980" of one."""
    if len(values) < 2:
        return f"{values[0]:,.0f}" if values else MISSING
    return f"{statistics.median(values):,.0f} ({min(values):,.0f}–{max(values):,.0f})"
