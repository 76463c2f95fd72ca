"""The table of the price of isotropy in trained encoders, from the trained.json that `theory --trained` writes."""

from collections.abc import Mapping
from typing import Any

from hamjepa_jax.report.tables import MISSING, markdown_rows, mean_text


def price_table(content: Mapping[str, Any]) -> str:
    """Measured worst-case task variances in Markdown, with the closed forms in brackets: a row for each encoder.

    Args:
      content: of trained.json.
    """
    conditions = content["trial"]["conditions"]
    rows = [["encoder", *(f"cond(H) = {k:g}" for k in conditions)], [":--", *["--:"] * len(conditions)]]
    for name, of_method in content["results"].items():
        pairs = zip(of_method["V"], of_method["closed_form"], strict=True)
        rows.append([name, *(f"{mean_text(values, 1)} ({_closed(known)})" for values, known in pairs)])
    return "\n".join(markdown_rows(rows))


def _closed(value: float | None) -> str:
    return MISSING if value is None else f"{value:.2f}"
