"""Many runs: configs read from files and changed by assignments, and each run trained unless it is done."""

import ast
import datetime
import importlib.util
import json
import logging
import pathlib
import sys
import time
from collections.abc import Sequence
from typing import Any

import jax
import ml_collections

from hamjepa_jax import config as config_lib
from hamjepa_jax import evaluation, report
from hamjepa_jax.data import Source
from hamjepa_jax.errors import UserError
from hamjepa_jax.evaluate import METRICS_FILE, evaluate, probe_settings
from hamjepa_jax.train import train
from hamjepa_jax.train_seeds import train_seeds
from hamjepa_jax.training.workdir import saved_config

ConfigDict = ml_collections.ConfigDict
log = logging.getLogger(__name__)


def read_config(file: str | pathlib.Path) -> ConfigDict:
    """The config of "FILE.py" or "FILE.py:name=value,…".

    Raises:
      UserError: if there is no such file or it does not understand the argument.
    """
    name, _, argument = str(file).partition(":")
    module = load_python(pathlib.Path(name), "config")
    if not hasattr(module, "get_config"):
        raise UserError(f"config {name}: defines no get_config(arg).")
    return module.get_config(argument or None)


def load_python(path: pathlib.Path, what: str):
    """The module in a Python file.

    Raises:
      UserError: if there is no such file or it fails.
    """
    if not path.is_file():
        raise UserError(f"{what} {path}: no such file.")
    # Config files import each other as `configs.NAME`: from the folder above theirs.
    above = str(path.resolve().parent.parent)
    if above not in sys.path:
        sys.path.insert(0, above)
    spec = importlib.util.spec_from_file_location(f"_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (ImportError, SyntaxError) as error:
        raise UserError(f"{what} {path}: cannot be loaded ({error}).") from None
    return module


def assignment(text: str) -> tuple[str, Any]:
    """ "path.to.field=value" as (field, value): a Python literal, or else a string.

    Raises:
      UserError: if it is not of this form.
    """
    field, equals, value = text.partition("=")
    if not equals or not field:
        raise UserError(f"--override {text}: expected a field and its value, as in train.epochs=5.")
    try:
        return field, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return field, value


def override(config: ConfigDict, field: str, value: Any) -> None:
    """Sets a field of the config.

    Raises:
      UserError: if there is no such field, or the value is not of its type.
    """
    *folders, name = field.split(".")
    node = config
    for folder in folders:
        node = node.get(folder) if isinstance(node, ConfigDict) else None
    if not isinstance(node, ConfigDict) or name not in node or isinstance(node[name], ConfigDict):
        raise UserError(f"{field}: is no field of a config; see configs/common.py.")
    try:
        node[name] = tuple(value) if isinstance(value, list) else value
    except TypeError as error:
        raise UserError(f"{field} {value!r}: {' '.join(str(error).split())}") from None


def complete(config: ConfigDict, workdir: pathlib.Path, source: Source) -> bool:
    """Makes sure that a run is trained and evaluated: it is begun, gone on with, or left alone if it is done.

    Args:
      config: of the run.
      workdir: of the run; other settings than those it was begun with are refused.
      source: the config's data, opened.

    Returns:
      Whether the run is done; False if a signal asked it to stop.

    Raises:
      UserError: as `train`.
    """
    if _is_trained(config, workdir, source):
        if not _is_measured(config, workdir):
            log.info("%s: done, but not measured by this protocol; evaluating", workdir)
            evaluate(config, workdir)
        else:
            log.info("%s: done", workdir)
        return True
    log.info("%s: training", workdir)
    session = _Session(workdir)
    try:
        return train(config, workdir, source=source, callbacks=[session.tick]) is not None
    finally:
        session.tick()


def train_together(configs: Sequence[ConfigDict], workdirs: Sequence[pathlib.Path], source: Source) -> bool:
    """Trains those of the runs, alike but for the seed, that are not done yet in one program; then `complete` them.

    Returns:
      Whether that is done; False if a signal asked to stop.

    Raises:
      UserError: as `train_seeds`.
    """
    pending = [(c, w) for c, w in zip(configs, workdirs, strict=True) if not _is_trained(c, w, source)]
    if len(pending) < 2:
        return True
    log.info("%s: training at once", ", ".join(str(w) for _, w in pending))
    sessions = [_Session(w, share=len(pending)) for _, w in pending]
    try:
        return train_seeds(*zip(*pending, strict=True), source)
    finally:
        for session in sessions:
            session.tick()


def is_whole(run: report.FinishedRun, total: int) -> bool:
    """Whether the run was evaluated at its last step, of `total`; if not, the log says that it is left out.

    At another step `--mode=evaluate` leaves a run that is not trained to its end.
    """
    step = run.metrics["step"]
    if step != total:
        log.info("%s: evaluated at step %d of %d; left out", run.workdir, step, total)
    return step == total


def _is_trained(config: ConfigDict, workdir: pathlib.Path, source: Source) -> bool:
    """Whether the run's last step was evaluated.

    Raises:
      UserError: if the workdir holds a finished run of another config or of other data.
    """
    results = workdir / METRICS_FILE
    if not results.exists():
        return False
    total = config_lib.total_steps(config, len(source.train) // config.train.batch_size)
    saved = json.loads((workdir / "config.json").read_text())
    differences = config_lib.differing_fields(json.loads(saved_config(workdir).to_json_best_effort()), config)
    if saved["data_fingerprint"] != source.fingerprint():
        differences.append(f"data.source: the images of {config.data.source!r} are not those it was run on")
    if differences:
        raise UserError(f"{workdir}: holds a run that differs in {'; '.join(differences)}; choose another --out.")
    return json.loads(results.read_text())["step"] == total


def _is_measured(config: ConfigDict, workdir: pathlib.Path) -> bool:
    """Whether metrics.json has what the config's evaluation would find."""
    found = json.loads((workdir / METRICS_FILE).read_text())["trained"]
    readouts = ("q", "p", "qp") if config.encoder.split_qp else ("z",)
    keys = evaluation.accuracy_keys(ks=config.evaluate.ks, probe=probe_settings(config))
    wanted = {f"{readout}/{key}" for readout in readouts for key in keys}
    measured = {k for k in found if "/knn_top1_" in k or "/probe_top1_" in k}
    return wanted == measured


class _Session:
    """Keeps when this process worked on a run and for how long, also if it is killed.

    Where it works on several at once, each has its share of the time.
    """

    def __init__(self, workdir: pathlib.Path, share: int = 1):
        self._workdir, self._start, self._share = workdir, time.monotonic(), share
        path = workdir / report.SESSIONS_FILE
        self._earlier = json.loads(path.read_text()) if path.exists() else []
        self._begun = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")

    def tick(self, *_: Any) -> None:
        """Notes that the run still goes; as a callback of `train`, whenever it logs."""
        if not self._workdir.is_dir() or jax.process_index():
            return
        session = {"begun": self._begun, "seconds": round((time.monotonic() - self._start) / self._share, 1)}
        path = self._workdir / report.SESSIONS_FILE
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps([*self._earlier, session]))
        temporary.replace(path)
