"""The files that an evaluation leaves in a workdir."""

import json
import pathlib

from hamjepa_jax import report
from hamjepa_jax.files import room_for_folder, write_json, write_text
from hamjepa_jax.training.writer import METRICS_LOG

METRICS_FILE = "metrics.json"
SUMMARY_FILE = "summary.json"
TABLE_FILE = "table.txt"


def write_results(workdir: pathlib.Path, step: int, results: dict, summary: dict) -> str:
    """Writes metrics.json, summary.json, table.txt and the plots of a run; returns the table."""
    workdir.mkdir(parents=True, exist_ok=True)  # It may have been moved away while the run was training.
    write_json(workdir / SUMMARY_FILE, summary, indent=None)
    table = report.comparison_table(report.rows_of(results))
    write_text(workdir / TABLE_FILE, table + "\n")
    plots = room_for_folder(workdir / "plots")
    report.summary_panels(summary, plots / "readouts.png")
    if (workdir / METRICS_LOG).exists():  # An imported run has no history.
        report.learning_curve(report.read_history(workdir / METRICS_LOG), plots / "learning_curve.png")
    write_json(workdir / METRICS_FILE, {"step": step, **results})  # Last, so that all files are there when it is.
    return table


def where_results_are(workdir: pathlib.Path) -> str:
    """The paths of a finished run's results, one a line."""
    places = {
        "numbers": METRICS_FILE,
        "plots": "plots/",
        "log": METRICS_LOG,
        "tensorboard": "tensorboard/",
        "checkpoints": "checkpoints/",
    }
    return "\n".join(
        f"{name:<12} {workdir / place}" for name, place in places.items() if (workdir / place).exists()
    )


def measured_step(workdir: pathlib.Path) -> int | None:
    """The step whose results are in the workdir; None if there are none."""
    file = workdir / METRICS_FILE
    return json.loads(file.read_text(encoding="utf-8"))["step"] if file.exists() else None
