"""The table of a step on slices of TPUs, from what the command hamjepa_jax.aot writes."""

from collections.abc import Mapping
from typing import Any

Report = Mapping[str, Any]  # One entry of "reports".

_COLUMNS = (
    "slice", "batch", "memory a chip", "GFLOP a chip", "traffic a chip", "collectives", "arithmetic", "traffic",
    "links", "step", "efficiency",
)  # fmt: skip
SCALING_HEADER = f"| {' | '.join(_COLUMNS)} |\n{'|---' * len(_COLUMNS)}|"


def scaling_table(content: Mapping[str, Any]) -> str:
    """The table in Markdown of {"reports": [one of each slice]}; the first slice of each kind is the base."""
    reports = content["reports"]
    return "\n".join([SCALING_HEADER, *(scaling_row(report, base_of(report, reports)) for report in reports)])


def base_of(report: Report, reports: list[Report]) -> Report:
    """The first report on the same kind of chip, against which its efficiency is."""
    return next(r for r in reports if _kind(r) == _kind(report))


def scaling_row(report: Report, base: Report) -> str:
    """A line of the table; efficiency is in images/s a chip, beside `base`'s, over both ends of the range."""
    time, found = report["time"], report["collectives"].values()
    worse, better = sorted(100 * _speed(report, end) / _speed(base, end) for end in ("least", "most"))
    cells = [
        report["topology"],
        f"{report['batch_size']:,}",
        f"{sum(report['memory'].values()) / 1e9:.2f} GB",
        f"{report['flops'] / 1e9:,.0f}",
        f"{sum(report['traffic'].values()) / 1e9:.1f} GB",
        f"{sum(c['number'] for c in found)}, {sum(c['bytes'] for c in found) / 1e6:,.1f} MB",
        _range(time["compute"] * 1e3, time["array"] * 1e3, ".2f", " ms"),
        f"{time['memory'] * 1e3:.2f} ms",
        f"{time['links'] * 1e3:.2f} ms",
        _range(time["least"] * 1e3, time["most"] * 1e3, ".2f", " ms"),
        _range(worse, better, ".0f", "%"),
    ]
    return f"| {' | '.join(cells)} |"


def _kind(report: Report) -> str:
    return report["topology"].partition(":")[0]


def _speed(report: Report, end: str) -> float:
    return report["batch_size"] / report["chips"] / report["time"][end]


def _range(low: float, high: float, form: str, unit: str) -> str:
    low_text, high_text = format(low, form), format(high, form)
    return f"{low_text}{unit}" if low_text == high_text else f"{low_text}–{high_text}{unit}"
