"""The table of what each objective costs beside one encoder, from what `benchmark objectives` writes."""

from collections.abc import Mapping
from typing import Any

from hamjepa_jax.report.tables import MISSING, markdown_rows


def objectives_table(content: Mapping[str, Any]) -> str:
    """The objectives in Markdown, the cheapest first, in milliseconds and as shares of the encoder's passes."""
    rows = [
        ["objective", "loss, ms", "teacher, ms", "both, of the encoder"],
        [":--", "--:", "--:", "--:"],
        ["encoder alone", f"{content['encoder'] * 1e3:.1f}", MISSING, "100%"],
    ]
    for name, times in sorted(content["objectives"].items(), key=lambda item: item[1]["ratio"]):
        teacher = f"{times['teacher'] * 1e3:.1f}" if times["teacher"] else MISSING
        rows.append([f"`{name}`", f"{times['loss'] * 1e3:.1f}", teacher, f"{times['ratio']:.1%}"])
    setting = (
        f"Batch {content['batch_size']} × {content['views']} views, embeddings of {content['embed_dim']}, "
        f"{content['clock']} time, {content['processor']}."
    )
    return "\n".join([*markdown_rows(rows), "", setting])
