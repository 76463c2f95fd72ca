"""The paper's tables from your own machine: every method with every seed, and one report.

OUT/runs/<method>_seed<N> are ordinary workdirs, OUT/report.md and OUT/report.html the report, OUT/results.json its
numbers. The same call goes on after an interruption and trains nothing twice.
"""

import argparse
import logging
import pathlib
import shlex
from typing import Any

import jax
import ml_collections
import numpy as np

from hamjepa_jax import build, report
from hamjepa_jax import config as config_lib
from hamjepa_jax.config.files import change
from hamjepa_jax.config.grammar import assignment
from hamjepa_jax.config.shipped import names as config_names
from hamjepa_jax.config.shipped import shipped_file, shipped_folder
from hamjepa_jax.data import ClipSplit, Source, frames_of, open_source
from hamjepa_jax.errors import UserError
from hamjepa_jax.evaluate import check_trajectories, measured_trajectories
from hamjepa_jax.experiments import many
from hamjepa_jax.experiments.tables import TABLES, PaperTable, Recipe
from hamjepa_jax.files import make_folder, user_path, write_json

ConfigDict = ml_collections.ConfigDict
log = logging.getLogger(__name__)
REPORT_FILES = ("report.md", "report.html", "results.json")
# Sources that are never the table's own data, whatever is in them.
STAND_INS = ("arrays", "digits", "shapes", "synthetic")
# Of a matched table, beside the projector's.
OWN_FIELDS = ("split_qp", "clip_norm", "teacher", "references")
STATISTICS_IMAGES = 5000  # images from which mean and deviation of other data are measured


def reproduce(arguments: argparse.Namespace) -> None:
    """Trains what is missing and writes the report.

    Raises:
      UserError: for options, data or runs that cannot be used.
    """
    table, out = TABLES[arguments.table], user_path(arguments.out, "--out")
    recipes = chosen_recipes(table, arguments.methods)
    methods, names = list(recipes), {m: report.METHOD_NAMES.get(m, m) for m in recipes}
    if len(set(arguments.seeds)) < len(arguments.seeds) or not arguments.seeds:
        raise UserError(f"--seeds {arguments.seeds}: give one or more seeds, each once.")
    overrides = dict(map(assignment, arguments.override))
    source = open_source(arguments.data, loader=_loader(recipes[methods[0]], arguments.configs, overrides))
    own_data = is_own_data(table, arguments.data, source)
    configs = {
        method: make_config(recipes[method], arguments.configs, arguments.data, source, own_data, overrides)
        for method in methods
    }
    for method, config in configs.items():
        if table.clips:
            check_trajectories(config, source, arguments.data, asked="--table=trajectories", flag="--data")
        check_method(method, config)
    if table.shared is not None:
        check_matched(configs)
    make_folder(out / "runs", "--out")
    finished: dict[str, list[report.FinishedRun]] = {method: [] for method in methods}
    moving: dict[str, list[dict]] = {}  # What runs know of the systems that clips show.
    if arguments.parallel_seeds and not arguments.report_only:
        for method in methods:
            together = [_run_of(configs[method], out, method, seed) for seed in arguments.seeds]
            seeded, workdirs = zip(*together, strict=True)
            if not many.train_together(seeded, workdirs, source):
                log.info("stopped; the same command goes on from there")
                return
    for seed in arguments.seeds:  # Seed by seed, for an early first comparison.
        for method in methods:
            config, workdir = _run_of(configs[method], out, method, seed)
            if arguments.report_only and not (workdir / "metrics.json").exists():
                log.info("%s: not done", workdir)
                continue
            if not arguments.report_only and not many.complete(config, workdir, source):
                log.info("stopped; the same command goes on from there")
                return
            run = report.read_run(workdir)
            total = config_lib.total_steps(config, len(source.train) // config.train.batch_size)
            if many.is_whole(run, total):
                finished[method].append(run)
                if table.clips:
                    moving.setdefault(method, []).append(measured_trajectories(config, workdir, source))
    about = _about(arguments, source, finished, names)
    finished = {method: of_method for method, of_method in finished.items() if of_method}
    if not finished:
        raise UserError(f"--out {out}: no run is done yet; leave --report_only out to train.")
    changed = [field for field in overrides if not report.is_free(field)]
    known = report.PUBLISHED.get(arguments.table, {})
    published = known if own_data and not changed else {}
    if known and not published:
        why = "the configs were changed" if own_data else "these are not the data of the paper's table"
        about += f" No published numbers stand beside the results: {why}."
    title = f"{table.title}" if own_data else f"{source.name} by the recipes of {table.title}"
    blocks, numbers = report.compare_methods(finished, out, names=names, published=published)
    if table.clips:
        moving = {method: moving[method] for method in finished}
        blocks = report.trajectories_blocks(moving, out, names=names) + blocks
        numbers["trajectories"] = moving
    if arguments.pictures:
        for method, (first, *_) in finished.items():
            blocks += many.picture_blocks(first, names[method], source)
    command = "python -m hamjepa_jax.reproduce " + shlex.join(arguments.argv)
    report.write_page(title, [report.Text(about), *blocks, report.Listing("Command", command)], out)
    provenance = {"command": command, "runs": report.run_records(finished)}
    write_json(out / "results.json", {"table": arguments.table, "title": title, **numbers, **provenance})
    log.info("\n%s", report.comparison_table(_rows(finished, names)))
    log.info("report: %s", " ".join(str(out / name) for name in REPORT_FILES))


def _run_of(config: ConfigDict, out: pathlib.Path, method: str, seed: int) -> tuple[ConfigDict, pathlib.Path]:
    """The config and the workdir of a method with one seed."""
    config = config.copy_and_resolve_references()
    config.seed = seed
    return config, out / "runs" / f"{method}_seed{seed}"


def is_own_data(table: PaperTable, spec: str, source: Source) -> bool:
    """Whether these are the table's own data set, on which published numbers were measured, and not a stand-in."""
    kind = spec.partition(":")[0]
    if table.kind == "cifar100":
        return kind == "cifar100" and len(source.train.class_names) == 100
    if table.kind in ("shapes", "trajectories"):
        return kind == table.kind
    # ImageNet-100 comes in any wrapping: a hundred classes with 50 test images each and about 1,300 to train on.
    sizes = len(source.train.class_names), len(source.test), len(source.train) > 120_000
    return kind not in (*STAND_INS, "cifar100") and sizes == (100, 5000, True)


def make_config(
    recipe: Recipe, folder: str | None, spec: str, source: Source, own_data: bool, overrides: dict[str, str]
) -> ConfigDict:
    """The config of one method, fitted to the data and changed as asked for; its seed is set for each run.

    Args:
      recipe: of the method.
      folder: of the config files; None for the package's.
      spec: data.source.
      source: that of `spec`.
      own_data: whether it is the table's own.
      overrides: {field: text}.

    Raises:
      UserError: for a field that does not exist or a value of the wrong type.
    """
    config = _base(recipe, folder)
    config.data.source = spec
    if "seed" in overrides:
        raise UserError("--override seed: seeds are given by --seeds.")
    fitted = ({} if own_data else fit_to_data(config, source)) | fit_to_clips(config, source)
    for field, value in (recipe.changes | fitted).items():
        config_lib.set_field(config, field, value)
    change(config, overrides.items())
    return config


def _base(recipe: Recipe, folder: str | None) -> ConfigDict:
    return config_lib.read_config((shipped_folder() if folder is None else pathlib.Path(folder)) / recipe.file)


def _loader(recipe: Recipe, folder: str | None, overrides: dict[str, str]) -> str:
    """data.loader of the runs, which all recipes of a table have in common."""
    config = _base(recipe, folder)
    change(config, [(field, text) for field, text in overrides.items() if field in ("plugins", "data.loader")])
    return config.data.loader


def fit_to_data(config: ConfigDict, source: Source) -> dict[str, Any]:
    """A recipe's changes for other data than its own: the images' statistics, and a resize if sizes differ."""
    split, size = source.train, config.data.image_size
    rows = range(0, len(split), -(-len(split) // STATISTICS_IMAGES))
    moments = np.asarray([[f(split.image(i) / 255, axis=(0, 1)) for f in (np.mean, _mean_square)] for i in rows])
    mean, mean_square = moments.mean(axis=0)
    std = np.sqrt(np.maximum(mean_square - mean**2, 1e-6))
    changes = {f"data.{name}": tuple(round(float(x), 4) for x in v) for name, v in (("mean", mean), ("std", std))}
    if config.data.eval_resize is None and split.image(0).shape[:2] != (size, size):
        changes["data.eval_resize"] = size
    return changes


def fit_to_clips(config: ConfigDict, source: Source) -> dict[str, Any]:
    """A recipe's changes for clips whose states are known: as many coordinates, and the frames' time step.

    In token mode the tokens say how many coordinates there are.
    """
    split = source.train
    if not isinstance(split, ClipSplit) or split.states is None:
        return {}
    size = {"encoder.embed_dim": split.states.shape[-1]} if config.encoder.mode == "global" else {}
    return size | {"predictor.step_size": split.dt / config.predictor.num_steps}


def _about(
    arguments: argparse.Namespace,
    source: Source,
    finished: dict[str, list[report.FinishedRun]],
    names: dict[str, str],
) -> str:
    """The first paragraph: the data, changed settings, and missing runs."""
    seeds = len(arguments.seeds)
    what = "images" if frames_of(source.test) is None else "clips"
    labels = f"of {len(source.train.class_names)} classes" if source.labelled else "without labels"
    text = f"{source.name}: {len(source.train):,} training and {len(source.test):,} test {what} {labels}."
    if arguments.override:
        text += f" Changed in all configs: {', '.join(arguments.override)}."
    incomplete = [f"{names[m]} {len(r)} of {seeds}" for m, r in finished.items() if len(r) < seeds]
    if incomplete:
        text += f" Not complete: seeds done are {', '.join(incomplete)}."
    return text


def chosen_recipes(table: PaperTable, chosen: tuple[str, ...] | None) -> dict[str, Recipe]:
    """The table's recipes, or those of the chosen methods in the table's order, then configs by name or file.

    Raises:
      UserError: for a method that is neither.
    """
    own, chosen = {}, chosen or ()
    twice = [method for method in chosen if chosen.count(method) > 1]
    if twice:
        raise UserError(f"--methods {twice[0]}: is named {chosen.count(twice[0])} times; give each method once.")
    for method in chosen:
        if method in table.recipes:
            continue
        theirs = f"must be among {', '.join(table.recipes)}"
        if table.shared is None:
            raise UserError(f"--methods {method}: {theirs}.")
        path, is_file = pathlib.Path(method).absolute(), method.endswith(".py")
        if not (path.is_file() if is_file else method in config_names()):
            raise UserError(f"--methods {method}: {theirs}, or a shipped config's name, or FILE.py.")
        file = path if is_file else shipped_file(method)
        if file.stem in table.recipes or file.stem in own:
            raise UserError(f"--methods {method}: another method is called {file.stem} too; rename the file.")
        own[file.stem] = Recipe(str(file), table.shared)
    return {m: recipe for m, recipe in table.recipes.items() if not chosen or m in chosen} | own


def check_method(method: str, config: ConfigDict) -> None:
    """Refuses a config that cannot be trained here.

    Raises:
      UserError: naming the method too.
    """
    try:
        build.check(config)
        config_lib.check_devices(config, jax.device_count())
    except UserError as error:
        raise UserError(f"--methods {method}: {error}") from error


def check_matched(configs: dict[str, ConfigDict]) -> None:
    """Refuses methods that differ in encoder, data, schedule or evaluation.

    Projectors, the halves q and p, clipping, the evaluation of a teacher and features to compare with are the
    methods' own.

    Raises:
      UserError: naming the method and the field.
    """
    (first, reference), *others = configs.items()
    for method, config in others:
        for block in ("data", "views", "encoder", "optimizer", "train", "evaluate"):
            for field, value in reference[block].items():
                free = field.startswith("projector") or field in OWN_FIELDS
                own = config[block].get(field)
                if not free and own != value:
                    raise UserError(
                        f"--methods {method}: its {block}.{field} is {own!r} and that of {first} {value!r}; the "
                        f"methods of this table differ in the method alone, so change its config."
                    )


def _rows(
    finished: dict[str, list[report.FinishedRun]], names: dict[str, str]
) -> dict[str, list[dict[str, float]]]:
    """Rows of the table on the terminal."""
    rows = {}
    for method, of_method in finished.items():
        for readout in of_method[0].readouts():
            name = f"{names[method]} {report.READOUT_NAMES[readout]}"
            rows[name] = [run.readouts()[readout] for run in of_method]
    return rows


def _mean_square(x: np.ndarray, axis: tuple[int, ...]) -> np.ndarray:
    return np.mean(x * x, axis=axis)
