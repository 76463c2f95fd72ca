"""The table of the evaluation's speed, from what `benchmark evaluation --json` writes."""

from collections.abc import Mapping
from typing import Any

from hamjepa_jax.report.tables import MISSING, markdown_rows


def evaluation_table(content: Mapping[str, Any]) -> str:
    """Seconds and accuracies in Markdown, and below them the times of kNN as ratios.

    Args:
      content: of the file.
    """
    rows = [["", "seconds", "top-1 %"], [":--", "--:", "--:"]]
    for row in content["rows"]:
        accuracy = MISSING if row["accuracy"] is None else f"{100 * row['accuracy']:.2f}"
        rows.append([row["name"].strip(), f"{row['seconds']:.1f}", accuracy])
    ratios = " and ".join(f"{ratio:.2f} of {name}'s" for name, ratio in content["ratios"].items())
    size = (
        f"{content['test']:,} queries, a bank of {content['train']:,}, {content['dim']:,} coordinates, "
        f"{content['classes']} classes, made up; medians of {content['rounds']} rounds in turns."
    )
    return "\n".join([*markdown_rows(rows), "", f"{size} Once compiled, kNN takes {ratios} time."])
