"""The table of methods of a document, from the results.json of the command hamjepa_jax.reproduce."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hamjepa_jax.report.differences import interval, turned
from hamjepa_jax.report.headline import headline_title
from hamjepa_jax.report.published import Published
from hamjepa_jax.report.tables import MISSING, READOUT_NAMES, markdown_rows, mean_text, signed

METHOD_NAMES = {
    "sigreg": "SIGReg",
    "mlp": "MLP predictor",
    "hamjepa": "HamJEPA",
    "lejepa": "LeJEPA",
    "hamsigreg_diag": "HamSIGReg (diagonal)",
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
    for method, readout, metrics in rows_of_methods(content):
        values = [metrics[key]["values"] for key in protocol.values()]
        reference = published.get((method, readout), {})
        shown = [str(Published(**reference[kind])) if kind in reference else MISSING for kind in compared]
        rows.append([row_name(method, readout), *map(mean_text, values), *shown, _seeds(metrics)])
    title = f"{content['title']}, data `{content['data']['source'].partition(':')[0]}`"
    return "\n".join([*markdown_rows(rows), "", runs_origin(title, content["runs"])])


def matched_table(content: Mapping[str, Any]) -> str:
    """The table of many methods: accuracies, their paired differences from the first method, and seconds of a run.

    Args:
      content: of results.json.
    """
    protocol, results = content["protocol"], content["results"]
    first = next(iter(results))
    subject = first, next(iter(results[first]))
    differences = {
        (d["against"], d["its_readout"], d["metric"]): d
        for d in content["differences"]
        if (d["method"], d["readout"]) == subject
    }
    titles = [headline_title(kind, protocol) for kind in protocol]
    header = ["features", *(cell for title in titles for cell in (f"{title} %", "difference")), "seconds", "seeds"]
    rows = [header, [":--", *["--:"] * (len(header) - 1)]]
    for method, readout, metrics in rows_of_methods(content):
        row = [row_name(method, readout)]
        for title, key in zip(titles, protocol.values(), strict=True):
            row += [mean_text(metrics[key]["values"]), _difference(differences.get((method, readout, title)))]
        trained = readout in results[method]
        rows.append([*row, _seconds(content, method) if trained else MISSING, _seeds(metrics)])
    note = f"Differences: points above {row_name(*subject)}, paired by seed, 95% intervals."
    note += " Seconds: the median run's wall time."
    title = f"{content['title']}, data `{content['data']['source']}`"
    origin = f"{runs_origin(title, content['runs'])} `{content['command']}`"
    return "\n".join([*markdown_rows(rows), "", note, "", origin])


def _difference(d: Mapping[str, Any] | None) -> str:
    """How far the other method is above the first."""
    if d is None:
        return MISSING
    above = turned(d)
    return signed(above["difference"]) + (f" {interval(above)}" if "low" in above else "")


def _seeds(metrics: Mapping[str, Any]) -> str:
    """How many seeds the numbers of a row are of."""
    return str(max(len(numbers["values"]) for numbers in metrics.values()))


def _seconds(content: Mapping[str, Any], method: str) -> str:
    walls = [run["wall_s"] for run in content["runs"] if run["name"] == method and run["wall_s"] is not None]
    return f"{statistics.median(walls):.0f}" if walls else MISSING


def rows_of_methods(content: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """(method, readout, metrics) of every row; features to compare with after the readouts of their method."""
    for method, readouts in content["results"].items():
        for rows in (readouts, content.get("references", {}).get(method, {})):
            for readout, metrics in rows.items():
                yield method, readout, metrics


def row_name(method: str, readout: str) -> str:
    """ "SIGReg z", "HamJEPA untrained q"; "raw pixels", which are of no method."""
    if "pixels" in readout:
        return readout
    return f"{METHOD_NAMES.get(method, method)} {READOUT_NAMES.get(readout, readout)}"


def runs_origin(title: str, runs: Sequence[Mapping[str, Any]]) -> str:
    """The title; machines, versions, commits and days of the runs."""
    of_all = [run["environment"] for run in runs]
    machines = dict.fromkeys(_machine(e) for e in of_all)
    versions = dict.fromkeys(f"jax {e['versions']['jax']}" for e in of_all)
    commits = dict.fromkeys(commit_text(e["git"]) for e in of_all if e["git"])
    days = dict.fromkeys(e["time"][:10] for e in of_all)
    return f"{title}: {', '.join([*machines, *versions, *commits, *days])}."


def commit_text(git: Mapping[str, Any]) -> str:
    """ "commit 0123456789", and whether files had been changed since."""
    return f"commit {git['commit'][:10]}" + (" with changes" if git["modified"] else "")


def _machine(environment: Mapping[str, Any]) -> str:
    devices = environment["devices"]
    if environment["backend"] == "cpu":
        return environment.get("processor", f"{len(devices)} CPU devices")
    return f"{len(devices)} × {devices[0]}"
