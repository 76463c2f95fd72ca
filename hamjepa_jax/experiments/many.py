"""Many runs: each is trained and evaluated unless it is done."""

import datetime
import logging
import pathlib
import time
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import ml_collections

from hamjepa_jax import config as config_lib
from hamjepa_jax import metrics, report
from hamjepa_jax.data import Source
from hamjepa_jax.errors import UserError
from hamjepa_jax.evaluate import evaluate, measured_step, pictures_of, probe_settings
from hamjepa_jax.files import put_aside, write_json
from hamjepa_jax.metrics import keys
from hamjepa_jax.run.workdir import read_record, saved_config
from hamjepa_jax.train import train, train_seeds

ConfigDict = ml_collections.ConfigDict
log = logging.getLogger(__name__)


def complete(config: ConfigDict, workdir: pathlib.Path, source: Source) -> bool:
    """Makes sure that a run is trained and evaluated: begins it, goes on with it, or leaves it alone if it is done.

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
        if not _is_measured(config, workdir, labelled=source.labelled or config.evaluate.source is not None):
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
    """Trains the unfinished runs in one program; `complete` does the rest. The runs differ in their seed alone.

    Returns:
      Whether they are trained; False if a signal asked to stop.

    Raises:
      UserError: as `train_seeds`.
    """
    pending = [(c, w) for c, w in zip(configs, workdirs, strict=True) if not _is_trained(c, w, source)]
    if len(pending) < 2:
        return True
    log.info("%s: training at once", ", ".join(str(w) for _, w in pending))
    sessions = [_Session(w, share=len(pending)) for _, w in pending]
    try:
        return train_seeds(*zip(*pending, strict=True), source, callbacks=[[session.tick] for session in sessions])
    finally:
        for session in sessions:
            session.tick()


def picture_blocks(run: report.FinishedRun, name: str, source: Source) -> list[Any]:
    """The blocks of a report with the pictures of one run.

    Args:
      run: whose pictures are drawn, unless they are there.
      name: of its method or cell.
      source: its images.
    """
    found = pictures_of(run.workdir, source)
    if not found:
        return [report.Text(f"{name}: pictures of clips need true states, and an objective that learns motion.")]
    return [report.Heading(f"Pictures of {name}, seed {run.seed}"), *found]


def is_whole(run: report.FinishedRun, total: int) -> bool:
    """Whether the run was evaluated at its last step, `total`; if not, the log says that it is left out.

    `--mode=evaluate` also evaluates a run that is not trained to its end.
    """
    step = run.metrics["step"]
    if step != total:
        log.info("%s: evaluated at step %d of %d; left out", run.workdir, step, total)
    return step == total


def _is_trained(config: ConfigDict, workdir: pathlib.Path, source: Source) -> bool:
    """Whether the run's last step was evaluated, in any way.

    Raises:
      UserError: if the workdir holds a finished run of another config or of other data.
    """
    step = measured_step(workdir)
    if step is None:
        return False
    total = config_lib.total_steps(config, len(source.train) // config.train.batch_size)
    found = config_lib.differing_fields(saved_config(workdir), config)
    if read_record(workdir)["data_fingerprint"] != source.fingerprint():
        found.append(f"data.source: the images of {config.data.source!r} are not those it was run on")
    if found:
        raise UserError(f"{workdir}: holds a run that differs in {'; '.join(found)}; choose another --out.")
    return step == total


def differences(workdir: pathlib.Path, config: ConfigDict) -> list[str]:
    """Lines "field: saved → given" of what makes another run, or another measurement, than the one in a workdir.

    Raises:
      UserError: if its config.json is damaged.
    """
    saved, results = saved_config(workdir), report.measured(workdir) or {}
    with saved.ignore_type():
        saved.update_from_flattened_dict(report.settings_of(results))
    return config_lib.differing_fields(saved, config, counting=report.TOLD_BY_NO_KEY)


def _is_measured(config: ConfigDict, workdir: pathlib.Path, *, labelled: bool = True) -> bool:
    """Whether metrics.json has what the config's evaluation would find; no other accuracy, flow, LiDAR or source.

    It does not, if it was measured on other images, or of a teacher.
    Features to compare with may be more than the config asks for.
    """
    results = report.measured(workdir) or {"trained": {}}
    found, references = results["trained"], {kind.partition("_")[0] for kind in results}  # "pixels_32px"
    readouts = ("q", "p", "qp") if config.encoder.split_qp else ("z",)
    protocol = metrics.Protocol(
        ks=config.evaluate.ks if labelled else (), probe=probe_settings(config) if labelled else None
    )
    wanted = metrics.expected_keys(protocol, readouts, plugins=config.plugins)
    has_flow = any(keys.parse(text).readout == "flow" for text in found)
    has_lidar = any(keys.parse(text).quantity == "lidar" for text in found)
    further = [kind for kind in results if kind.startswith("on ")]
    complete = (
        has_flow == bool(config.evaluate.flow)
        and has_lidar == bool(config.evaluate.lidar.images)
        and len(further) == len(config.evaluate.probes)
        and references >= set(config.evaluate.references)
        and not differences(workdir, config)
    )
    return complete and _accuracies(wanted) == _accuracies(found)


def _accuracies(texts: Iterable[str]) -> set[str]:
    """The printed keys of top-1 accuracies by kNN and probe."""
    return {text for text in texts if keys.parse(text).quantity in ("knn_top1", "probe_top1")}


class _Session:
    """Records when and for how long this process worked on a run, even if it is killed.

    Several runs at once share the time.
    """

    def __init__(self, workdir: pathlib.Path, share: int = 1):
        self._workdir, self._start, self._share = workdir, time.monotonic(), share
        path = workdir / report.SESSIONS_FILE
        self._earlier = report.read_sessions(workdir)
        if path.exists() and not self._earlier:
            put_aside(path, "is damaged")
        self._begun = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")

    def tick(self, *_: Any) -> None:
        """Notes that the run is still going; a callback of `train`, which calls it whenever it logs."""
        if not self._workdir.is_dir() or jax.process_index():
            return
        session = {"begun": self._begun, "seconds": round((time.monotonic() - self._start) / self._share, 1)}
        write_json(self._workdir / report.SESSIONS_FILE, [*self._earlier, session], indent=None)
