"""What a frozen encoder's features are worth on other data.

OUT/results.json is {"run", "cells": [{"source", "shots", "seed", "metrics"}]}; a cell that is there is not measured
again. "run" tells the weights: a run that was moved is the same one. Fine-tuning adds "finetune" to the metrics of
a cell and its "recipe" beside them. Next to the file are report.md and report.html.
"""

import argparse
import hashlib
import json
import logging
import pathlib
import re
import shutil
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from hamjepa_jax import evaluation, parts, report
from hamjepa_jax.data import Source, check_source, open_source, rows_of
from hamjepa_jax.errors import UserError
from hamjepa_jax.evaluate import Evaluator, for_images, like_trained_on, probe_settings
from hamjepa_jax.evaluation.logistic import WITHOUT_CHOICE, logistic_regression
from hamjepa_jax.files import make_folder, user_path, write_json
from hamjepa_jax.run.restore import Run, load_run
from hamjepa_jax.run.workdir import environment, saved_config
from hamjepa_jax.transfer.finetune import LEAST_STEPS, Recipe, check_images_alone, check_recipe, finetune
from hamjepa_jax.transfer.names import RECIPE, source_spec

log = logging.getLogger(__name__)
RESULTS_FILE = "results.json"
ALL, K = "all", 20
TITLES = {
    "knn": "kNN %",
    "probe": "linear probe %",
    "logistic": "logistic regression %",
    "finetune": "fine-tuning %",
}


def transfer(arguments: argparse.Namespace) -> None:
    """Measures the cells that are missing, source by source, and writes the table when all are there.

    Raises:
      UserError: for a run, source or flag that cannot be used.
    """
    workdir = user_path(arguments.workdir, "RUN")
    config = saved_config(workdir)  # First: a mistyped folder is reported before anything is fetched.
    readout, shots = _readout(config.encoder.split_qp, arguments.readout), _shots(arguments.shots)
    recipe = _recipe(arguments)
    specs = {name: source_spec(name, arguments.data_dir, kinds=parts.sources) for name in arguments.sources}
    sources = {name: _opened(name, spec, shots) for name, spec in specs.items()}
    for name, source in sources.items():
        for_images(config, source, specs[name])  # Refuses what the encoder cannot take.
    if arguments.finetune:
        check_recipe(config, recipe)
        check_images_alone(config, sources)
    out = make_folder(user_path(arguments.out or workdir / "transfer", "--out"), "--out")
    run = load_run(workdir, step=arguments.step, config=config, images=like_trained_on(workdir, config))
    about = {
        "workdir": str(workdir), "step": int(run.state.step), "readout": readout, "weights": _fingerprint(run),
    }  # fmt: skip
    content = _begun(out / RESULTS_FILE, about)
    prints = {name: source.fingerprint() for name, source in sources.items()}
    wanted = [(name, n, seed, prints[name]) for name in sources for n in shots for seed in range(arguments.seeds)]
    for name, source in sources.items():
        missing = [cell for cell in wanted if cell[0] == name and _find(content, *cell) is None]
        if missing:
            features = _features(run, source, specs[name], readout)
            for _, n, seed, fingerprint in missing:
                metrics = measure(features, source, n, seed, probe=probe_settings(run.config))
                content["cells"].append(
                    {
                        "source": name,
                        "shots": n,
                        "seed": seed,
                        "fingerprint": fingerprint,
                        "metrics": metrics,
                    }
                )
                write_json(out / RESULTS_FILE, content)
                log.info("%s, %s labels a class, seed %d: %s", name, n, seed, _line(metrics))
    if arguments.finetune:
        if not _finetune(run, sources, specs, wanted, recipe, content, out):
            return  # A signal: the same command goes on.
    _write_report(out, content, wanted)


def _finetune(
    run: Run,
    sources: dict[str, Source],
    specs: dict[str, str],
    wanted: Sequence[tuple],
    recipe: Recipe,
    content: dict[str, Any],
    out: pathlib.Path,
) -> bool:
    """Fine-tunes for every cell that was not by this recipe; False if a signal asked to stop."""
    for name, n, seed, fingerprint in wanted:
        cell = _cell(content, name, n, seed, fingerprint)
        if cell.get("recipe") == recipe._asdict():
            continue
        source = sources[name]
        if n != ALL:
            labels, classes = source.train.labels, len(source.train.class_names)
            rows = evaluation.few_shot_rows(labels, n, num_classes=classes, seed=seed)
            source = Source(source.name, rows_of(source.train, rows), source.test)
        place = "-".join(
            [f"{content['run']['weights']}-{fingerprint}-{n}-{seed}", *(f"{value:g}" for value in recipe)]
        )
        workdir = out / "finetune" / place
        accuracy = finetune(run, source, specs[name], recipe, seed=seed, workdir=workdir)
        if accuracy is None:
            return False
        cell["metrics"]["finetune"], cell["recipe"] = accuracy, recipe._asdict()
        write_json(out / RESULTS_FILE, content)
        shutil.rmtree(workdir / "checkpoints")  # The largest part; the log stays.
        log.info("%s, %s labels a class, seed %d: fine-tuned %.2f%%", name, n, seed, 100 * accuracy)
    return True


def measure(
    features: Sequence, source: Source, shots: int | str, seed: int, *, probe: dict | None
) -> dict[str, float]:
    """kNN, probe and logistic regression from `shots` labelled training images a class, or all of them.

    Args:
      features: (states of training images, their labels, states of test images) of one readout.
      source: of the images.
      shots: a number, or "all".
      seed: of the labelled images, of the probe, and of the images that a penalty is chosen on.
      probe: its settings; None leaves it out.
    """
    train_x, train_y, test_x = features
    test_y, classes = source.test.labels, len(source.train.class_names)
    k = K
    if shots != ALL:
        rows = evaluation.few_shot_rows(train_y, shots, num_classes=classes, seed=seed)
        train_x, train_y, k = train_x[rows], train_y[rows], min(K, shots)
    data, found = (train_x, train_y, test_x, test_y), {}
    found["knn"] = evaluation.knn_accuracy(*data, ks=(k,), num_classes=classes)["top1"][k]
    if probe is not None:
        rate = probe["learning_rate"][0]
        settings = probe | {"learning_rate": rate}
        found["probe"] = evaluation.linear_probe(*data, num_classes=classes, seed=seed, **settings)["top1"]
    fit = logistic_regression(*data, num_classes=classes, seed=seed)
    return found | {"logistic": fit.top1, "logistic_penalty": fit.penalty}


def _recipe(arguments: argparse.Namespace) -> Recipe:
    """Of the fine-tuning; its flags are refused without it."""
    given = {name: getattr(arguments, name) for name in RECIPE}
    given = {name: value for name, value in given.items() if value is not None}
    if given and not arguments.finetune:
        (name, value), *_ = given.items()
        raise UserError(f"--{name} {value:g}: nothing is fine-tuned; give --finetune too.")
    return Recipe(*(RECIPE | given).values())


def _shots(texts: Sequence[str]) -> list[int | str]:
    """The numbers of labels a class that were asked for, each once."""
    odd = [text for text in texts if text != ALL and not (re.fullmatch("[0-9]+", text) and int(text))]
    if odd:
        raise UserError(f'--shots {odd[0]}: give whole numbers of images a class from 1, or "all".')
    return list(dict.fromkeys(text if text == ALL else int(text) for text in texts))


def _opened(name: str, spec: str, shots: Sequence[int | str]) -> Source:
    source = open_source(spec, loader="tfdata", field="--sources")
    check_source(source)
    if not source.labelled:
        raise UserError(f"--sources {name}: its images have no labels; name a source with labels.")
    labels = source.train.labels
    smallest = min((labels == c).sum() for c in range(len(source.train.class_names)))
    too_many = [n for n in shots if n != ALL and n > smallest]
    if too_many:
        raise UserError(f"--shots {too_many[0]}: the smallest class of {name} has {smallest} training images.")
    return source


def _readout(split: bool, asked: str | None) -> str:
    have = ("qp", "q", "p") if split else ("z",)
    if asked is not None and asked not in have:
        raise UserError(f"--readout {asked}: this run's states have {', '.join(have)}.")
    return asked or have[0]


def _features(run: Run, source: Source, spec: str, readout: str) -> tuple:
    evaluator = Evaluator(for_images(run.config, source, spec), run.model, source, run.mesh)
    train, test = (
        evaluation.readouts(z, split=run.config.encoder.split_qp)[readout] for z in evaluator.features(run.state)
    )
    return train, evaluator.train_labels, test


def _fingerprint(run: Run) -> str:
    """Of the weights and statistics that are measured."""
    found = hashlib.sha256()
    variables = run.state.evaluated(teacher=run.config.evaluate.teacher)
    for path, x in jax.tree_util.tree_leaves_with_path(jax.device_get(variables)):
        found.update(f"{jax.tree_util.keystr(path)} {x.dtype} {x.shape}".encode() + np.ascontiguousarray(x).data)
    return found.hexdigest()[:16]


def _begun(path: pathlib.Path, about: dict[str, Any]) -> dict[str, Any]:
    """What was measured before, of the same weights.

    Raises:
      UserError: if the file is of other weights, or damaged.
    """
    if not path.exists():
        return {"run": about, "environment": environment(), "cells": []}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        run, cells = dict(content["run"]), content["cells"]
        for cell in cells:
            cell["source"], cell["shots"], cell["seed"], cell["fingerprint"], dict(cell["metrics"])
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{path}: is damaged; move it away, or choose another --out.") from None
    told_by = ("step", "readout", "weights" if "weights" in run else "workdir")  # Earlier versions told the folder.
    other = [name for name in told_by if run.get(name) != about[name]]
    if other:
        what = "other weights" if other[0] == "weights" else f"another {other[0]}"
        raise UserError(
            f"{path}: is of {what} ({run.get(other[0])}, not {about[other[0]]}); move it away, or choose another "
            f"--out."
        )
    return content | {"run": about}


def _find(content: dict, name: str, shots: int | str, seed: int, fingerprint: str) -> dict[str, float] | None:
    cell = _cell(content, name, shots, seed, fingerprint)
    return None if cell is None else cell["metrics"]


def _cell(content: dict, name: str, shots: int | str, seed: int, fingerprint: str) -> dict[str, Any] | None:
    cell = {"source": name, "shots": shots, "seed": seed, "fingerprint": fingerprint}
    return next((c for c in content["cells"] if cell.items() <= c.items()), None)


def _write_report(out: pathlib.Path, content: dict, wanted: Sequence[tuple]) -> None:
    by_row: dict[tuple, list[dict]] = {}
    for name, shots, seed, fingerprint in wanted:
        by_row.setdefault((name, shots), []).append(_find(content, name, shots, seed, fingerprint))
    shown = [kind for kind in TITLES if all(kind in metrics for row in by_row.values() for metrics in row)]
    recipes = {tuple(_cell(content, *cell).get("recipe", {}).items()) for cell in wanted}
    if len(recipes) > 1 and "finetune" in shown:
        shown.remove("finetune")
        log.warning("fine-tuning by several recipes is in no one table; --finetune makes all by one.")
    header = ["source", "labels a class", *(TITLES[kind] for kind in shown), "seeds"]
    rows = [
        [name, str(shots), *(report.mean_text([m[kind] for m in row]) for kind in shown), str(len(row))]
        for (name, shots), row in by_row.items()
    ]
    run = content["run"]
    text = (
        f"Frozen features {report.READOUT_NAMES[run['readout']]} of {run['workdir']}, step {run['step']}: top-1 "
        f"accuracy on test images, mean ± sample standard deviation over draws of the labelled images and seeds of "
        f"the probe. kNN: cosine, majority of the {K} nearest, or of as many as there are labels a class if these "
        f"are fewer. Logistic regression: L-BFGS on standardised features, the penalty chosen on a fifth of the "
        f"labelled training images, or {WITHOUT_CHOICE:g} where each class has one."
    )
    if "finetune" in shown:
        (recipe,) = recipes
        last = ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in recipe)
        last += f", at least {LEAST_STEPS} steps"
        text += f" Fine-tuning: encoder and a linear layer on all of its state, AdamW, {last}; after the last step."
    report.write_page("Transfer", [report.Text(text), report.Table(header, rows, text_columns=2)], out)
    log.info("written to %s", out / "report.html")


def _line(metrics: dict[str, float]) -> str:
    return ", ".join(f"{TITLES[kind].removesuffix(' %')} {metrics[kind]:.2%}" for kind in TITLES if kind in metrics)
