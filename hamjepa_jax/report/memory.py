"""The table of a chip's memory in a training step, from what the command hamjepa_jax.aot writes."""

from collections.abc import Mapping
from typing import Any

from hamjepa_jax.report.tables import markdown_rows

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "collective-permute", "all-to-all")


def memory_table(content: Mapping[str, Any]) -> str:
    """The table in Markdown of {"reports": [one of each slice]}: what a chip holds, and what it exchanges."""
    rows = [
        ["slice", "batch", "state", "temporaries", "all", *KINDS, "links", "step"],
        [":--", *["--:"] * (6 + len(KINDS))],
    ]
    for report in content["reports"]:
        memory, time = report["memory"], report["time"]
        sizes = [_mb(size) for size in (memory["state"], memory["temporaries"], sum(memory.values()))]
        exchanged = [_mb(report["collectives"].get(kind, {"bytes": 0})["bytes"]) for kind in KINDS]
        step = f"{time['least'] * 1e3:.1f}–{time['most'] * 1e3:.1f} ms"
        links = f"{time['links'] * 1e3:.2f} ms"
        rows.append([report["topology"], f"{report['batch_size']:,}", *sizes, *exchanged, links, step])
    return "\n".join(markdown_rows(rows))


def _mb(size: float) -> str:
    return f"{size / 1e6:,.0f} MB"
