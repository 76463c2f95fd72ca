"""The files that an evaluation leaves in a workdir."""

import logging
import pathlib

import ml_collections

from hamjepa_jax import config as config_lib
from hamjepa_jax import report
from hamjepa_jax.files import room_for_folder, write_json, write_text
from hamjepa_jax.training.trackers import Results
from hamjepa_jax.training.writer import METRICS_LOG

ConfigDict = ml_collections.ConfigDict
log = logging.getLogger(__name__)

METRICS_FILE = "metrics.json"
SUMMARY_FILE = "summary.json"
TABLE_FILE = "table.txt"
LABEL_FREE_FILE = "label_free.md"


def write_results(
    workdir: pathlib.Path,
    config: ConfigDict,
    step: int,
    results: dict,
    summary: dict,
    neighbours: report.Neighbours,
    *,
    out: pathlib.Path | None = None,
) -> None:
    """Shows the table of a run on the terminal, and writes metrics.json, summary.json, table.txt and the plots.

    Args:
      workdir: of the run.
      config: that it was evaluated with.
      step: of the weights.
      results: as `Evaluator.at_the_end` gives them, like `summary`.
      neighbours: as `Evaluator.neighbours` gives them.
      out: folder to write to; the workdir if None.
    """
    out, table = out or workdir, report.comparison_table(report.rows_of(results))
    log.info("step %d of %s:\n%s", step, workdir, table)  # Before anything is written: a disk may be full.
    out.mkdir(parents=True, exist_ok=True)  # The workdir may have been moved away while the run was training.
    write_json(out / SUMMARY_FILE, summary, indent=None)
    write_text(out / TABLE_FILE, table + "\n")
    plots = room_for_folder(out / "plots")
    report.summary_panels(summary, plots / "readouts.png")
    report.neighbours_figure(neighbours, plots / "neighbours.png")
    if (workdir / METRICS_LOG).is_file():  # An imported run has no history.
        history = report.read_history(workdir / METRICS_LOG)
        report.learning_curve(history, plots / "learning_curve.png")
        write_agreement(out, report.checkpoints_of(history))
    fields = config_lib.flat_fields(config)
    settings = {name: fields[name] for name in report.TOLD_BY_NO_KEY}
    # Last, so that all files are there when it is.
    write_json(out / METRICS_FILE, {"step": step, "settings": settings, **results})
    log.info("%s", where_results_are(out))


def write_agreement(out: pathlib.Path, checkpoints: list[dict]) -> None:
    """Writes how label-free measures agree with the accuracies, if there are checkpoints enough to say.

    Args:
      out: folder to write to.
      checkpoints: {readout: metrics} of each, in order.
    """
    text = report.label_free_text(checkpoints)
    if text:
        write_text(out / LABEL_FREE_FILE, text)


def results_in(workdir: pathlib.Path, step: int, results: dict) -> Results:
    """The results for trackers, once they are written.

    Args:
      workdir: of the run, where `write_results` has written.
      step: of the weights.
      results: as `Evaluator.at_the_end` gives them; other features than the trained ones have their name in front.
    """
    metrics = {
        name if features == "trained" else f"{features}/{name}": value
        for features, measured in results.items()
        for name, value in measured.items()
        if isinstance(value, int | float)
    }
    figures = {file.stem: file for file in sorted((workdir / "plots").glob("*.png"))}
    return Results(step, metrics, (workdir / TABLE_FILE).read_text(encoding="utf-8"), figures)


def where_results_are(out: pathlib.Path) -> str:
    """The paths of a run's results in a folder, one a line."""
    places = {
        "numbers": METRICS_FILE,
        "plots": "plots/",
        "log": METRICS_LOG,
        "tensorboard": "tensorboard/",
        "checkpoints": "checkpoints/",
    }
    return "\n".join(f"{name:<12} {out / place}" for name, place in places.items() if (out / place).exists())


def measured_step(workdir: pathlib.Path) -> int | None:
    """The step whose results are in the workdir; None if there are none, or they are damaged."""
    return (report.measured(workdir) or {}).get("step")
