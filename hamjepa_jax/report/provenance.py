"""The runs of a table: their time, machine, code and settings."""

import json
import statistics
from collections.abc import Mapping, Sequence

from hamjepa_jax.report import page
from hamjepa_jax.report.finished import FinishedRun, differing
from hamjepa_jax.report.tables import MISSING


def run_blocks(runs: Mapping[str, Sequence[FinishedRun]], of: str) -> list[page.Block]:
    """Wall time, machine and commit of every run.

    Args:
      runs: {name: its runs, one for each seed}.
      of: header of the names, "method" for example.
    """
    header = [of, "seed", "wall time", "images/s", "evaluation", "devices", "jax", "commit", "begun", "workdir"]
    rows = []
    for name, of_name in runs.items():
        for run in of_name:
            e, git = run.environment, run.environment["git"]
            commit = MISSING if git is None else git["commit"][:10] + " (modified)" * bool(git["modified"])
            speed = _median(run, "perf/images_per_s", "{:,.0f}")
            begun = run.sessions[0]["begun"] if run.sessions else e["time"]
            time, share, machine = _wall_time(run), _evaluation_share(run), _devices(e)
            jax = e["versions"]["jax"]
            rows.append([name, str(run.seed), time, speed, share, machine, jax, commit, begun, run.workdir.name])
    note = (
        "Wall time covers training with its evaluations and the final evaluation, added up over the sessions of a "
        "run that was interrupted. Images per second is the median over training, without evaluation. Evaluation "
        "is the time spent on evaluating in training as a share of the wall time."
    )
    return [page.Heading("Runs"), page.Text(note), page.Table(header, rows, text_columns=1)]


def run_records(runs: Mapping[str, Sequence[FinishedRun]]) -> list[dict]:
    """Seed, seconds, speed, machine, versions and commit of every run, for a JSON file.

    A run's own command is left out: its paths are those of one machine, and the table's command stands beside.

    Args:
      runs: {name: its runs, one for each seed}.
    """
    return [
        {
            "name": name,
            "seed": run.seed,
            "workdir": run.workdir.name,
            "wall_s": _wall_seconds(run),
            "evaluation_s": _evaluation_seconds(run),
            "images_per_s": _median_value(run, "perf/images_per_s"),
            "sessions": len(run.sessions),
            "environment": {name: fact for name, fact in run.environment.items() if name != "command"},
        }
        for name, of_name in runs.items()
        for run in of_name
    ]


def config_blocks(runs: Mapping[str, Sequence[FinishedRun]]) -> list[page.Block]:
    """Every method's config, and the fields in which they differ.

    Args:
      runs: {name of the method: its runs}.
    """
    configs = {name: of_method[0].config for name, of_method in runs.items()}
    first = next(iter(configs.values()))
    fields = sorted({field for config in configs.values() for field in differing(first, config)})
    blocks: list[page.Block] = [page.Heading("Configs")]
    if fields:
        rows = [[field, *(str(config.get(field, MISSING)) for config in configs.values())] for field in fields]
        blocks += [
            page.Text("The methods' configs differ in these fields; those of one method's seeds in the seed only."),
            page.Table(["field", *configs], rows, text_columns=1 + len(configs)),
        ]
    return blocks + [config_listing(of_method[0], f"Config of {name}") for name, of_method in runs.items()]


def config_listing(run: FinishedRun, title: str) -> page.Listing:
    return page.Listing(f"{title} (seed {run.seed})", json.dumps(run.config, indent=1, ensure_ascii=False))


def _devices(environment: Mapping) -> str:
    kinds = environment["devices"]
    return ", ".join(f"{kinds.count(kind)}× {kind}" for kind in dict.fromkeys(kinds))


def _wall_seconds(run: FinishedRun) -> float | None:
    return sum(s["seconds"] for s in run.sessions) if run.sessions else None


def _wall_time(run: FinishedRun) -> str:
    seconds = _wall_seconds(run)
    if seconds is None:
        return MISSING
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    text = f"{hours}:{minutes:02d}:{seconds:02d}"
    return text + (f" ({len(run.sessions)} sessions)" if len(run.sessions) > 1 else "")


def _evaluation_share(run: FinishedRun) -> str:
    total = _wall_seconds(run)
    return f"{_evaluation_seconds(run) / total:.1%}" if total else MISSING


def _evaluation_seconds(run: FinishedRun) -> float:
    return sum(r.get("perf/evaluation_s") or 0 for r in run.history)


def _median(run: FinishedRun, key: str, form: str) -> str:
    value = _median_value(run, key)
    return MISSING if value is None else form.format(value)


def _median_value(run: FinishedRun, key: str) -> float | None:
    values = [r[key] for r in run.history if r.get(key) is not None]
    return statistics.median(values) if values else None
