"""The table of a grid of settings in a document, from the results.json of the command hamjepa_jax.sweep."""

from collections.abc import Mapping, Sequence
from typing import Any

from hamjepa_jax.metrics import FLOW_TABLE
from hamjepa_jax.report.headline import headline_title
from hamjepa_jax.report.methods import runs_origin
from hamjepa_jax.report.tables import READOUT_NAMES, cell, markdown_rows, mean_text, metric_columns

FLOW = "flow"


def sweep_table(content: Mapping[str, Any]) -> str:
    """Every cell in Markdown: the accuracies of its first readout, and its flow; below them where they are from.

    Where cells differ in their first readouts, a column names them. A cell may lack an accuracy that others have.

    Args:
      content: of results.json.
    """
    protocol, axes = content["protocol"], list(content["grid"]["axes"])
    firsts: dict[str, Mapping[str, Any]] = {}
    for found in content["cells"]:
        if found["readout"] != FLOW:
            firsts.setdefault(repr(found["cell"]), found)
    flows = {repr(c["cell"]): c["metrics"] for c in content["cells"] if c["readout"] == FLOW}
    readouts = list(dict.fromkeys(READOUT_NAMES[found["readout"]] for found in firsts.values()))
    same = len(readouts) == 1
    columns = metric_columns(FLOW_TABLE, (key for metrics in flows.values() for key in metrics))
    header = [*(f"`{axis}`" for axis in axes), *([] if same else ["readout"])]
    header += [f"{headline_title(kind, protocol)} %" + f" of {readouts[0]}" * same for kind in protocol]
    header += [column.title.replace("|", "\\|") for column in columns]
    rows = [header, ["--:"] * len(header)]
    for place, found in firsts.items():
        flow = _by_seed(flows.get(place, {}))
        row = [*(str(found["cell"][axis]) for axis in axes), *([] if same else [READOUT_NAMES[found["readout"]]])]
        row += [mean_text(found["metrics"].get(key, ())) for key in protocol.values()]
        rows.append(row + [cell(column, flow) for column in columns])
    seeds = ", ".join(map(str, content["grid"]["seeds"]))
    title = f"`{content['grid']['config']}`, seed{'s' * (len(content['grid']['seeds']) > 1)} {seeds}"
    return "\n".join([*markdown_rows(rows), "", runs_origin(title, content["runs"])])


def _by_seed(metrics: Mapping[str, Sequence[float]]) -> list[dict[str, float]]:
    """{key: a number for each seed} -> a {key: number} for each seed."""
    return [dict(zip(metrics, values, strict=True)) for values in zip(*metrics.values(), strict=True)]
