"""The table of methods of a document, from the results.json of the command hamjepa_jax.reproduce."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hamjepa_jax.report.headline import headline_title
from hamjepa_jax.report.published import Published
from hamjepa_jax.report.tables import MISSING, READOUT_NAMES, markdown_rows, mean_text

METHOD_NAMES = {
    "sigreg": "SIGReg",
    "mlp": "MLP predictor",
    "hamjepa": "HamJEPA",
    "lejepa": "LeJEPA",
    "vicreg": "VICReg",
    "kerjepa": "KerJEPA",
    "simclr": "SimCLR",
    "alignment_uniformity": "alignment and uniformity",
    "barlow_twins": "Barlow Twins",
    "byol": "BYOL",
    "simdino": "SimDINO",
    "mcr2": "MCR²",
    "general": "general energy",
    "euler": "explicit Euler",
}


def methods_table(content: Mapping[str, Any]) -> str:
    """Each method's headline accuracies in Markdown, beside the published ones; below them where they are from.

    Args:
      content: of results.json.
    """
    protocol, published = content["protocol"], {(p["method"], p["readout"]): p for p in content["published"]}
    compared = [kind for kind in protocol if any(kind in p for p in published.values())]
    header = ["features", *(f"{headline_title(kind, protocol)} %" for kind in protocol)]
    header += [f"published {headline_title(kind, protocol)} %" for kind in compared]
    rows = [[*header, "seeds"], [":--", *["--:"] * len(header)]]
    for method, readout, metrics in _rows(content):
        values = [metrics[key]["values"] for key in protocol.values()]
        reference = published.get((method, readout), {})
        shown = [str(Published(**reference[kind])) if kind in reference else MISSING for kind in compared]
        name = f"{METHOD_NAMES.get(method, method)} {READOUT_NAMES.get(readout, readout)}"
        rows.append([name, *map(mean_text, values), *shown, str(len(values[0]))])
    title = f"{content['title']}, data `{content['data']['source'].partition(':')[0]}`"
    return "\n".join([*markdown_rows(rows), "", runs_origin(title, content["runs"])])


def _rows(content: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """(method, readout, metrics) of every row; features to compare with after the readouts of their method."""
    for method, readouts in content["results"].items():
        for rows in (readouts, content.get("references", {}).get(method, {})):
            for readout, metrics in rows.items():
                yield method, readout, metrics


def runs_origin(title: str, runs: Sequence[Mapping[str, Any]]) -> str:
    """The title; machines, versions, commits and days of the runs."""
    of_all = [run["environment"] for run in runs]
    machines = dict.fromkeys(_machine(e) for e in of_all)
    versions = dict.fromkeys(f"jax {e['versions']['jax']}" for e in of_all)
    commits = dict.fromkeys(f"commit {e['git']['commit'][:10]}" for e in of_all if e["git"])
    days = dict.fromkeys(e["time"][:10] for e in of_all)
    return f"{title}: {', '.join([*machines, *versions, *commits, *days])}."


def _machine(environment: Mapping[str, Any]) -> str:
    devices = environment["devices"]
    if environment["backend"] == "cpu":
        return environment.get("processor", f"{len(devices)} CPU devices")
    return f"{len(devices)} × {devices[0]}"
