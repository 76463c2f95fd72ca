"""Checkpoints of one or several runs to numbers, figures and features.

For each workdir, OUT/metrics.json is {"evaluation": {…}, "checkpoints": [{"step", "epoch", "trained": {…}, …}]}.
"evaluation" names the images and the protocol; the kinds of features are those of `Evaluator.at_the_end`, and
`hamjepa_jax.metrics.keys` explains the keys of their metrics. Beside it are table.txt; summary.json and the
four-panel figures of each checkpoint in step_<N>/; and for several checkpoints, in plots/, the training dynamics
and the decomposition into q and p.
"""

import argparse
import dataclasses
import json
import logging
import math
import pathlib
from collections.abc import Iterator

import ml_collections
import numpy as np

from hamjepa_jax import disk, parts, report
from hamjepa_jax import metrics as metrics_lib
from hamjepa_jax.data import ShapeSplit, Source, check_source, frames_of, is_encoded, open_source
from hamjepa_jax.errors import UserError
from hamjepa_jax.evaluate.evaluator import Evaluator, Options, for_images
from hamjepa_jax.evaluate.factors import (
    check_factors,
    check_seeds,
    kinds_of_factors,
    measure_factors,
    write_factors,
)
from hamjepa_jax.evaluate.pictures import draw_pictures
from hamjepa_jax.evaluate.portraits import draw_portraits
from hamjepa_jax.evaluate.results import METRICS_FILE, SUMMARY_FILE, TABLE_FILE, write_agreement, write_results
from hamjepa_jax.evaluate.several import evaluator_of
from hamjepa_jax.evaluate.trajectories import check_trajectories, measure_trajectories, write_trajectories
from hamjepa_jax.evaluate.transform import geometry_map
from hamjepa_jax.files import make_folder, readable, user_path, write_json, write_text, written_at_once
from hamjepa_jax.run.restore import Run, load_run, open_checkpoints, restore_weights
from hamjepa_jax.run.setup import check_clips
from hamjepa_jax.run.workdir import CONFIG_FILE, saved_config
from hamjepa_jax.training import processes
from hamjepa_jax.training.state import TrainState
from hamjepa_jax.training.writer import METRICS_LOG

ConfigDict = ml_collections.ConfigDict
log = logging.getLogger(__name__)


def evaluate(config: ConfigDict, workdir: str | pathlib.Path, *, step: int | None = None) -> dict:
    """Evaluates a checkpoint of an existing run and writes its results into the workdir.

    A workdir that cannot be written is left alone: a folder in the working directory takes its place, and the log
    says so.

    Args:
      config: of the run, see `run.workdir.saved_config`.
      workdir: of the run.
      step: the checkpoint; the newest readable one if None.

    Returns:
      {"step", "trained": metrics, …}, see `Evaluator.at_the_end`.

    Raises:
      UserError: if there is no such checkpoint or the data cannot be read.
    """
    workdir = user_path(workdir, "--workdir")
    run = load_run(workdir, step=step, config=config)
    with processes.agreed():
        out = _for_results(workdir) if processes.is_first() else workdir
    evaluator = evaluator_of(run.config, run.model, run.source, run.mesh)
    features = evaluator.features(run.state)
    step = int(run.state.step)
    results, summary = evaluator.at_the_end(run.state, run.init, epoch=run.epoch_at(step), features=features)
    neighbours = evaluator.neighbours(features)
    if processes.is_first():
        write_results(workdir, run.config, step, results, summary, neighbours, out=out)
    processes.wait_for_all("the results to be written")
    return {"step": step, **results}


def _for_results(workdir: pathlib.Path) -> pathlib.Path:
    """The workdir if it can be written, else a folder for its results.

    Raises:
      UserError: if neither can be written.
    """
    try:
        disk.check_writable(workdir)
    except UserError:
        out = pathlib.Path(f"evaluation_of_{workdir.resolve().name}").absolute()
        log.warning(
            "%s: cannot be written, so the results go to %s", workdir, make_folder(out, "working directory")
        )
        return out
    return workdir


def evaluate_all(arguments: argparse.Namespace) -> None:
    """Evaluates each workdir in turn.

    Raises:
      UserError: for a workdir, checkpoint, data or option that cannot be used.
    """
    workdirs = [user_path(w, "WORKDIR") for w in arguments.workdirs]
    names = [w.resolve().name for w in workdirs]
    if arguments.out and len(set(names)) < len(names):
        raise UserError(
            f"--out {arguments.out}: two workdirs have the same name ({', '.join(names)}); evaluate them apart."
        )
    _refuse_idle(arguments)
    # All are read before anything is computed: a mistyped workdir is reported at once.
    configs = [_settings(saved_config(w), arguments) for w in workdirs]
    if arguments.factors and arguments.out:
        check_seeds(workdirs, configs)
    # An evaluation streams nothing, so it takes files of any loader.
    source = open_source(arguments.source, loader="tfdata", field="--source") if arguments.source else None
    if source is not None:
        check_source(source)
    suffix = "" if source is None else f"_on_{_file_name(source.name)}"
    outs = [workdir / f"evaluation{suffix}" for workdir in workdirs]
    if arguments.out:
        outs = [user_path(arguments.out, "--out") / (name if len(workdirs) > 1 else "") for name in names]
    for out in outs:
        if (out / CONFIG_FILE).exists():
            raise UserError(f"--out {out}: holds a run, whose own results would be lost; choose another folder.")
    outs = [make_folder(out, "--out") for out in outs]  # All before minutes of work for the first.
    if arguments.export is not None:
        make_folder(arguments.export, "--export")
    measured = [
        evaluate_workdir(workdir, config, source, out, arguments)
        for workdir, config, out in zip(workdirs, configs, outs, strict=True)
    ]
    if arguments.factors:
        runs = list(zip(configs, measured, strict=True))
        groups = (
            {arguments.out: runs} if arguments.out else {out: [run] for out, run in zip(outs, runs, strict=True)}
        )
        for out, group in groups.items():
            write_factors(out, group)


def _refuse_idle(arguments: argparse.Namespace) -> None:
    """Refuses flags that would do nothing."""
    if arguments.temperature is not None and arguments.vote != "softmax":
        raise UserError(
            f"--temperature {arguments.temperature}: belongs to the softmax vote; give --vote=softmax too."
        )
    if arguments.export_format is not None and arguments.export is None:
        raise UserError(f"--export_format {arguments.export_format}: nothing is exported; give --export=DIR too.")


def evaluate_workdir(
    workdir: pathlib.Path,
    config: ConfigDict,
    source: Source | None,
    out: pathlib.Path,
    arguments: argparse.Namespace,
) -> dict:
    """Evaluates the chosen checkpoints of one run, writes all to `out`, and returns metrics.json's object."""
    spec = arguments.source or config.evaluate.source
    if source is None and spec is not None:
        source = open_source(spec, loader="tfdata")
        check_source(source)
    run = load_run(workdir, config=config, images=None if source is None else like_trained_on(workdir, config))
    source = source or run.source
    on = run.config if spec is None else for_images(run.config, source, spec)
    options = Options(
        readouts=arguments.readouts,
        vote=arguments.vote,
        temperature=0.07 if arguments.temperature is None else arguments.temperature,
        shots=arguments.few_shot,
        published_top5=arguments.published_top5,
        views=arguments.views,
        metric=arguments.metric,
    )
    _check(on, run, source, options)
    clips = frames_of(source.test) is not None
    _check_measures(arguments, on, source, clips)
    evaluator = Evaluator(on, run.model, source, run.mesh, options=options)
    evaluation = {
        "workdir": str(workdir),
        "trained_on": run.config.data.source,
        "evaluated_on": on.data.source,
        "fingerprint": source.fingerprint(),
        "seed": run.config.seed,
        "options": dataclasses.asdict(options),
        "evaluate": json.loads(on.evaluate.to_json_best_effort()),
        "factors": kinds_of_factors(source) if arguments.factors else {},
    }
    checkpoints = []
    for state in _states(run, workdir, arguments.steps):
        step = int(state.step)
        epoch = run.epoch_at(step)
        features = evaluator.features(state)
        results, summary = evaluator.at_the_end(state, run.init, epoch=epoch, features=features)
        checkpoints.append({"step": step, "epoch": step / run.steps_per_epoch, **results})
        if arguments.factors:
            checkpoints[-1]["factors"] = measure_factors(
                on, run.model, state, evaluator, source, features=features, epoch=epoch
            )
        if arguments.trajectories:
            checkpoints[-1]["trajectories"] = measure_trajectories(
                on, run.model, state, source, run.mesh, epoch=epoch
            )
        folder = make_folder(out / f"step_{step}", "--out")
        write_json(folder / SUMMARY_FILE, summary, indent=None)
        for readout, part in summary.items():
            report.summary_panels({readout: part}, folder / f"{readout}.png")
        report.summary_panels(summary, folder / "readouts.png")
        report.neighbours_figure(evaluator.neighbours(features), folder / "neighbours.png")
        if arguments.pictures and clips:
            measured = checkpoints[-1]["trajectories"]
            pictures = make_folder(folder / "pictures", "--out")
            draw_portraits(on, run.model, state, source, run.mesh, measured=measured, epoch=epoch, folder=pictures)
        elif arguments.pictures:
            draw_pictures(
                on, run.model, state, evaluator, source,
                features=features, epoch=epoch, folder=make_folder(folder / "pictures", "--out"),
            )  # fmt: skip
        if arguments.export:
            _export(features, evaluator.train_labels, source, on, workdir, step, arguments)
        _write(out, evaluation, checkpoints)  # After each, since a long list of checkpoints may be interrupted.
        log.info("%s, step %d, on %s:\n%s\n", workdir, step, on.data.source, _table(checkpoints[-1]))
    if len(checkpoints) > 1:
        _draw_across(checkpoints, out / "plots")
        write_agreement(out, [report.readouts_of(c["trained"]) for c in checkpoints])
    log.info("written to %s", out)
    measured = {"evaluation": evaluation, "checkpoints": checkpoints}
    if arguments.trajectories:
        write_trajectories(out, measured)
    return measured


def like_trained_on(workdir: pathlib.Path, config: ConfigDict) -> Source | None:
    """A stand-in for the training images, which are not needed where others are evaluated; None without a log.

    Their number says in which epoch a checkpoint is, and the log knows it.
    """
    log_file = workdir / METRICS_LOG
    steps_per_epoch = report.steps_per_epoch(report.read_history(log_file)) if log_file.is_file() else 0
    if not steps_per_epoch:
        return None
    size = config.data.image_size
    train = ShapeSplit(steps_per_epoch * config.train.batch_size, size, size)
    return Source("training images", train, ShapeSplit(2, size, size))


def _settings(config: ConfigDict, arguments: argparse.Namespace) -> ConfigDict:
    """The run's config with the evaluation settings that were given."""
    c = config.evaluate
    given = {"ks": arguments.ks, "references": arguments.references, "flow": arguments.flow}
    for name, value in given.items():
        if value is not None:
            c[name] = value
    if arguments.learning_rates is not None:
        c.probe.learning_rates = arguments.learning_rates
    if arguments.lidar is not None:
        c.lidar.images = arguments.lidar
    if arguments.probe_epochs is not None:
        c.probe.epochs = arguments.probe_epochs
    return config


def _check(config: ConfigDict, run: Run, source: Source, options: Options) -> None:
    """Refuses options that would fail after minutes of computing; settings were checked as the run was loaded."""
    check_clips(config, source, training=False)
    have = ("q", "p", "qp") if config.encoder.split_qp else ("z",)
    for readout in options.readouts or ():
        if readout not in have:
            raise UserError(f"--readouts {readout}: this run's states have {', '.join(have)}.")
    if options.shots is not None and not source.labelled:
        raise UserError(f"--few_shot {options.shots}: the images of {config.data.source!r} have no labels.")
    if options.shots is not None:
        smallest = int(np.bincount(source.train.labels, minlength=len(source.train.class_names)).min())
        if not 1 <= options.shots <= smallest:
            remedy = f"choose from 1 to {smallest}" if smallest else "leave it out"
            raise UserError(
                f"--few_shot {options.shots}: the smallest class of {config.data.source!r} has {smallest} training "
                f"images; {remedy}."
            )
    if not 0 < options.temperature < math.inf:
        raise UserError(f"--temperature {options.temperature}: must be above 0 and finite.")
    if options.views and config.views.num_global < 2:
        raise UserError(f"--views: views.num_global={config.views.num_global}, but two global views are compared.")
    if options.views and is_encoded(source.test):
        raise UserError("--views: needs images in memory, as an arrays: source has them.")
    if options.metric is not None:
        geometry_map(config, options.metric, run.state, 1)


def _check_measures(arguments: argparse.Namespace, config: ConfigDict, source: Source, clips: bool) -> None:
    """Refuses pictures, factors and trajectories of data that do not have them."""
    spec, objective = config.data.source, config.objective.name
    if arguments.pictures and clips and not arguments.trajectories:
        raise UserError(f"--pictures: {spec!r} has clips, whose pictures show motion; give --trajectories too.")
    if arguments.pictures and clips and not parts.objectives[objective].about["uses_predictor"]:
        raise UserError(f"--pictures: objective.name {objective!r} learns no motion; leave the flag out.")
    if arguments.factors:
        check_factors(source, spec)
    if arguments.trajectories:
        check_trajectories(config, source, spec)


def _states(run: Run, workdir: pathlib.Path, chosen: str) -> Iterator[TrainState]:
    """The states of the chosen checkpoints, ascending.

    Raises:
      UserError: if there is no such checkpoint.
    """
    if chosen == "latest":
        yield run.state
        return
    with open_checkpoints(run.config, workdir) as checkpoints:
        for step in _steps(checkpoints, chosen, run.config):
            yield restore_weights(checkpoints, run.abstract, run.mesh, step)


def _steps(checkpoints, chosen: str, config: ConfigDict) -> list[int]:
    have = checkpoints.steps()
    if chosen == "all":
        return have
    if chosen == "best":
        best = checkpoints.best_step()
        if best is None:
            raise UserError(f"--steps best: no checkpoint was saved with {config.checkpoint.best_metric}.")
        return [best]
    try:
        steps = sorted({int(step) for step in chosen.split(",")})
    except ValueError:
        raise UserError(f'--steps {chosen}: expected "latest", "best", "all" or steps, as in 1000,2000.') from None
    missing = [step for step in steps if step not in have]
    if missing:
        raise UserError(
            f"--steps {missing[0]}: there is no such checkpoint; there are {', '.join(map(str, have))}."
        )
    return steps


def _write(out: pathlib.Path, evaluation: dict, checkpoints: list[dict]) -> None:
    write_json(out / METRICS_FILE, {"evaluation": evaluation, "checkpoints": checkpoints})
    tables = [f"step {c['step']}, epoch {c['epoch']:g}\n{_table(c)}" for c in checkpoints]
    head = readable(
        f"{evaluation['workdir']}, seed {evaluation['seed']}, trained on {evaluation['trained_on']}, evaluated on "
        f"{evaluation['evaluated_on']} (fingerprint {evaluation['fingerprint']})"
    )
    write_text(out / TABLE_FILE, "\n\n".join([head, *tables]) + "\n")


def _table(checkpoint: dict) -> str:
    rows = report.rows_of(checkpoint)
    lines = [report.comparison_table(rows)]
    trained = checkpoint["trained"]
    lines += [f"{key:<40} {trained[key]:.6g}" for key in metrics_lib.listed(trained)]
    return "\n".join(lines)


def _draw_across(checkpoints: list[dict], plots: pathlib.Path) -> None:
    """The figures of several checkpoints of one run."""
    history = [
        {"step": c["step"], "epoch": c["epoch"], **{f"eval/{key}": value for key, value in c["trained"].items()}}
        for c in checkpoints
    ]
    report.training_dynamics(history, plots / "training_dynamics.png")
    if all(any(key.startswith(f"eval/{half}/") for key in history[0]) for half in ("q", "p")):
        report.decomposition(history, plots / "decomposition.png")


def _export(
    features: list[np.ndarray],
    train_labels: np.ndarray,
    source: Source,
    config: ConfigDict,
    workdir: pathlib.Path,
    step: int,
    arguments: argparse.Namespace,
) -> None:
    """Writes states [n, K] with labels: NAME_stepN.npz, or NAME_stepN/{train,test}_{features,labels}.npy."""
    folder = make_folder(arguments.export, "--export")
    arrays = {
        "train_features": features[0],
        "train_labels": train_labels,
        "test_features": features[1],
        "test_labels": source.test.labels,
    }
    name = f"{workdir.resolve().name}_step{step}"
    if arguments.source:
        name += f"_on_{_file_name(source.name)}"
    about = {
        "class_names": np.asarray(source.train.class_names),
        "split_qp": np.asarray(config.encoder.split_qp),  # the first half of a state is q, the second p
    }
    if arguments.export_format != "npy":
        with written_at_once(folder / f"{name}.npz") as temporary, temporary.open("wb") as file:
            np.savez(file, **arrays, **about)
        return
    (folder / name).mkdir(exist_ok=True)
    for key, array in (arrays | about).items():
        with written_at_once(folder / name / f"{key}.npy") as temporary, temporary.open("wb") as file:
            np.save(file, array)


def _file_name(text: str) -> str:
    return "".join(c if c.isalnum() or c in "-." else "_" for c in text)
