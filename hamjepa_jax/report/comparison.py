"""Methods against each other over seeds: results, tests of the differences, and the runs they come from."""

import math
import pathlib
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hamjepa_jax.errors import UserError
from hamjepa_jax.metrics import METHODS_TABLE
from hamjepa_jax.metrics.keys import knn_sweep
from hamjepa_jax.report import method_plots, page
from hamjepa_jax.report.differences import Runs, difference_blocks, paired_differences
from hamjepa_jax.report.finished import FinishedRun, alike, evaluated_on, refuse_other_data
from hamjepa_jax.report.headline import describe_protocol, headline_keys, headline_title
from hamjepa_jax.report.label_free import label_free_blocks
from hamjepa_jax.report.plots import summary_panels
from hamjepa_jax.report.provenance import config_blocks, run_blocks
from hamjepa_jax.report.published import KNN_KEY, PROBE_KEY, Published
from hamjepa_jax.report.significance import mean_std
from hamjepa_jax.report.tables import MISSING, READOUT_NAMES, cell, mean_text, metric_columns, over_seeds, signed


def compare_methods(
    runs: Runs,
    folder: pathlib.Path,
    *,
    names: Mapping[str, str],
    published: Mapping[tuple[str, str], Mapping[str, Published]],
) -> tuple[list[page.Block], dict]:
    """The comparison as blocks of a page, its figures drawn into folder/plots, and as numbers.

    Args:
      runs: {method: its runs, one for each seed}, each method before those that it is compared with.
      folder: of the report.
      names: {method: its name in the report}.
      published: {(method, readout): {"knn", "probe"}} to set beside the results; empty for none.

    Returns:
      The blocks, and {"protocol", "data", "seeds", "results", "references", "published", "differences"} for a JSON
      file. Nothing in the latter depends on the clock: the same runs give the same numbers, however often they were
      interrupted.

    Raises:
      UserError: if runs of a method differ in more than the seed, or methods in their images or protocol.
    """
    runs = {method: alike(of_method) for method, of_method in runs.items()}
    refuse_other_data([run for of_method in runs.values() for run in of_method])
    first = next(iter(runs.values()))[0]
    headline = headline_keys(first)
    for run, *_ in runs.values():
        _refuse_other_protocol(first, run, headline)
    seeds = sorted({run.seed for of_method in runs.values() for run in of_method})
    numbers = {
        "protocol": headline,
        "data": {"source": first.config["data.source"], "fingerprint": first.fingerprint},
        "seeds": seeds,
        "results": {m: _numbers([run.readouts() for run in of_method]) for m, of_method in runs.items()},
        "references": {m: _numbers([run.references() for run in of_method]) for m, of_method in runs.items()},
        "published": [
            {"method": m, "readout": r} | {kind: by[kind]._asdict() for kind in by if _as_published(kind, headline)}
            for (m, r), by in published.items()
            if m in runs
        ],
        "differences": paired_differences(runs, headline),
    }
    blocks = [
        page.Heading("Results"),
        page.Text(
            f"Data: {first.config['data.source']} (fingerprint {first.fingerprint}).{evaluated_on(first)} "
            f"{over_seeds(seeds)}. "
            f"{describe_protocol(headline)} Evaluated are the weights after the last step."
        ),
        _results_table(runs, names, headline, published),
        *_definitions(runs),
        *_published_note(published, headline),
        *_figures(runs, names, folder, headline, published),
        page.Heading("Differences"),
        *difference_blocks(numbers["differences"], runs, headline, names, folder / "plots"),
        *label_free_blocks({names[m]: of_method for m, of_method in runs.items()}, "method"),
        page.Heading("Every seed"),
        page.Text("The same numbers before averaging, with the checkpoint each was measured at."),
        _seed_table(runs, names, headline),
        *run_blocks({names[m]: r for m, r in runs.items()}, "method"),
        *config_blocks({names[m]: r for m, r in runs.items()}),
    ]
    return blocks, numbers


def _refuse_other_protocol(first: FinishedRun, run: FinishedRun, headline: Mapping[str, str]) -> None:
    found = headline_keys(run)
    if found != headline:
        mine, theirs = (", ".join(sorted(keys.values())) or "nothing" for keys in (headline, found))
        raise UserError(
            f"{run.workdir} and {first.workdir} were measured by different protocols ({theirs}; {mine}): evaluate "
            f"them alike to compare them."
        )


def _rows(runs: Runs) -> Iterator[tuple[str, str, list[dict[str, float]]]]:
    """(method, readout, its metrics for each seed)."""
    for method, of_method in runs.items():
        per_seed = [run.readouts() for run in of_method]
        for readout in per_seed[0]:
            yield method, readout, [metrics[readout] for metrics in per_seed]


def _results_table(runs, names, headline, published) -> page.Table:
    columns = metric_columns(METHODS_TABLE, (key for _, _, seeds in _rows(runs) for m in seeds for key in m))
    header = ["method", "readout", *(f"{headline_title(kind, headline)} %" for kind in headline)]
    compared = [kind for kind in headline if published and _as_published(kind, headline)]
    header += [f"published {headline_title(kind, headline)} %" for kind in compared]
    header += [f"ours − published, {headline_title(kind, headline)}" for kind in compared]
    header += [column.title for column in columns]
    rows = []
    for method, readout, seeds in _rows(runs):
        row = [names[method], READOUT_NAMES[readout]]
        means = {kind: 100 * statistics.mean(m[key] for m in seeds) for kind, key in headline.items()}
        row += [mean_text([m[key] for m in seeds]) for key in headline.values()]
        reference = published.get((method, readout), {})
        row += [str(reference[kind]) if kind in reference else MISSING for kind in compared]
        row += [signed(means[kind] - reference[kind].mean) if kind in reference else MISSING for kind in compared]
        rows.append(row + [cell(column, seeds) for column in columns])
    for method, of_method in runs.items():
        per_seed = [run.references() for run in of_method]
        for reference in _shared(per_seed):
            seeds = [metrics[reference] for metrics in per_seed]
            row = [
                names[method],
                reference,
                *(mean_text([m[k] for m in seeds if k in m]) for k in headline.values()),
            ]
            rows.append([*row, *[MISSING] * 2 * len(compared), *(cell(column, seeds) for column in columns)])
    return page.Table(header, rows, text_columns=2)


def _definitions(runs: Runs) -> list[page.Block]:
    """What the columns of the metrics show, in so far as they say so."""
    every_key = (key for _, _, seeds in _rows(runs) for metrics in seeds for key in metrics)
    notes = [column.note for column in metric_columns(METHODS_TABLE, every_key) if column.note]
    return [page.Text(f"Columns: {'; '.join(notes)}.")] if notes else []


def _as_published(kind: str, headline: Mapping[str, str]) -> bool:
    """Whether an accuracy was measured, and by the protocol of the published numbers."""
    return headline.get(kind) == {"knn": KNN_KEY, "probe": PROBE_KEY}[kind]


def _published_note(published, headline) -> list[page.Block]:
    other = [headline_title(kind, headline) for kind in headline if published and not _as_published(kind, headline)]
    if not other:
        return []
    return [page.Text(f"No published numbers stand beside {', '.join(other)}: measured by another protocol here.")]


def _figures(runs, names, folder, headline, published) -> list[page.Block]:
    rows, plots = list(_rows(runs)), folder / "plots"
    panels = {
        headline_title(kind, headline): {(names[m], r): [100 * s[key] for s in seeds] for m, r, seeds in rows}
        for kind, key in headline.items()
    }
    references = {
        headline_title(kind, headline): {
            (names[m], r): tuple(by[kind]) for (m, r), by in published.items() if m in runs
        }
        for kind in headline
        if _as_published(kind, headline)
    }
    found = []
    if panels:
        method_plots.accuracy_figure(panels, references, plots / "accuracy.png")
        found.append(
            ("accuracy", "Accuracy by method and readout: bars are means, whiskers one deviation, dots the seeds.")
        )
    if "knn" in headline:
        sweeps = {(names[m], r): [_percent(knn_sweep(s)) for s in seeds] for m, r, seeds in rows}
        method_plots.sweep_figure(sweeps, plots / "knn_sweep.png")
        found.append(("knn_sweep", "kNN accuracy against k: mean over seeds, shaded one standard deviation."))
        curves = {
            (names[m], r): [_curve(run, f"eval/{r}/{headline['knn']}") for run in runs[m]] for m, r, _ in rows
        }
        title = f"{headline_title('knn', headline)} in training"
        if any(curve for of_method in curves.values() for curve in of_method):  # Some evaluate at the end alone.
            method_plots.progress_figure(curves, title, plots / "progress.png")
            found.append(("progress", f"{title}: mean over seeds, shaded one standard deviation."))
    blocks = [page.Figure(plots / f"{name}.png", caption) for name, caption in found]
    for method, of_method in runs.items():
        summary_panels(of_method[0].summary, plots / f"features_{method}.png")
        caption = f"{names[method]}, features of seed {of_method[0].seed}: kNN sweep, spectrum, cosines and norms."
        blocks.append(page.Figure(plots / f"features_{method}.png", caption))
    return blocks


def _percent(by_k: Mapping[int, float]) -> dict[int, float]:
    return {k: 100 * v for k, v in by_k.items()}


def _curve(run: FinishedRun, key: str) -> dict[float, float]:
    return {r["epoch"]: 100 * r[key] for r in run.history if None not in (r.get(key), r.get("epoch"))}


def _seed_table(runs, names, headline) -> page.Table:
    header = ["method", "readout", "seed", "step", "epoch", *(f"{headline_title(k, headline)} %" for k in headline)]
    rows = []
    for method, of_method in runs.items():
        for run in of_method:
            for readout, metrics in run.readouts().items():
                at = [str(run.seed), str(run.metrics["step"]), f"{run.epoch():g}"]
                accuracy = [f"{100 * metrics[key]:.2f}" for key in headline.values()]
                rows.append([names[method], READOUT_NAMES[readout], *at, *accuracy])
    return page.Table(header, rows, text_columns=2)


def _numbers(per_seed: Sequence[Mapping[str, Mapping[str, float]]]) -> dict:
    """{readout: {metric: {"mean", "std", "values"}}} with the values in the order of the seeds.

    What some seeds lack, as references may be, is left out.
    """
    found = {}
    for readout in _shared(per_seed):
        found[readout] = {}
        for key in _shared([metrics[readout] for metrics in per_seed]):
            values = [m[readout][key] for m in per_seed]
            mean, std = mean_std(values)
            found[readout][key] = {"mean": mean, "std": None if math.isnan(std) else std, "values": values}
    return found


def _shared(mappings: Sequence[Mapping[str, Any]]) -> list[str]:
    """The keys that all have, in the first one's order."""
    return [key for key in mappings[0] if all(key in other for other in mappings)]
