"""What trained runs know of the systems that their clips show: states, rollouts and energies.

OUT/trajectories.json is the environment with {"protocol", the run and its data, "checkpoints": [{"step", "epoch",
the results of `measure_trajectories`}]}; trajectories.txt is a table of it.
"""

import hashlib
import json
import logging
import pathlib
from collections.abc import Callable, Iterator

import jax
import ml_collections
import numpy as np

from hamjepa_jax import build, evaluation, parts, report
from hamjepa_jax.data import Source
from hamjepa_jax.errors import UserError
from hamjepa_jax.evaluate.results import measured_step
from hamjepa_jax.evaluation import trajectories as measures
from hamjepa_jax.files import make_folder, write_json, write_text
from hamjepa_jax.run.restore import flow_of, load_run
from hamjepa_jax.run.workdir import environment
from hamjepa_jax.training.checkpoint import recorded_checksum
from hamjepa_jax.training.state import TrainState

ConfigDict = ml_collections.ConfigDict
Array = np.ndarray
FITTED_CLIPS = 500  # Training clips, at most, that the maps from learned to true states are fitted to.
log = logging.getLogger(__name__)


def check_trajectories(
    config: ConfigDict, source: Source, spec: str, *, asked: str = "--trajectories", flag: str = "--source"
) -> None:
    """Refuses a source without true states, and test clips too short for a rollout.

    Args:
      config: of the run.
      source: to measure on.
      spec: of the source.
      asked: the flag that asks for the measures, for messages.
      flag: that names another source, for messages.

    Raises:
      UserError: naming the source.
    """
    if getattr(source.test, "states", None) is None or getattr(source.train, "states", None) is None:
        raise UserError(
            f"{asked}: data.source {spec!r} does not state the states of its frames; choose one that does, as "
            f"with {flag}=trajectories:pendulum."
        )
    frames, stack = source.test.num_frames, config.views.stack
    if frames <= stack:
        raise UserError(
            f"{asked}: the test clips of data.source {spec!r} have {frames} frames; rollouts need more than "
            f"views.stack {stack}."
        )


def measure_trajectories(
    config: ConfigDict, model: build.Model, state: TrainState, source: Source, mesh, *, epoch: int
) -> dict:
    """All measures of one checkpoint.

    Args:
      config: of the run.
      model: the networks.
      state: the weights.
      source: clips with states.
      mesh: devices to spread the encoding over.
      epoch: of the checkpoint, counted from 1, for the flow.

    Returns:
      {"states": {readout: see `state_scores`}, "motion", "symplecticity", "frames": length of the rollouts, which
      go to the end of the test clips, "gap": longest one in training, "dt", "forward", "backward": {"error": [T]
      medians over the clips, "retrieved": [T], "valid_time": mean, in frames}, "energy"}.
      Symplecticity is left out of states without q and p, rollouts and energy where none is learned.
    """
    train, test = encoded_clips(config, model, state, source, mesh)
    train_s, test_s = (middle_of(split.states, config.views.stack) for split in (source.train, source.test))
    flat = [x.reshape(-1, x.shape[-1]).astype(np.float64) for x in (train, train_s, test, test_s)]
    read = [evaluation.readouts(z, split=config.encoder.split_qp) for z in (flat[0], flat[2])]
    found: dict = {"states": {x: measures.state_scores(read[0][x], flat[1], read[1][x], flat[3]) for x in read[0]}}
    found["motion"] = measures.motion(test)
    if config.encoder.split_qp:
        canonical = measures.symplecticity(flat[0], flat[1], test.astype(np.float64))
        found |= {} if canonical is None else {"symplecticity": canonical}
    if not parts.objectives[config.objective.name].about["uses_predictor"]:
        return found
    frames = len(test) - 1
    flow, energy = flow_of(config, model.predictor, state.params["predictor"], epoch)
    paths = {
        "forward": measures.rollout(flow, test[0], frames=frames, direction=1),
        "backward": measures.rollout(flow, test[-1], frames=frames, direction=-1),
    }
    found |= {"frames": frames, "gap": config.views.max_gap, "dt": source.test.dt}
    found |= {way: _compared(path, test[:: 1 if way == "forward" else -1]) for way, path in paths.items()}
    if energy is not None and source.test.energies is not None:
        true = middle_of(source.test.energies[..., None], config.views.stack)
        along, at = np.split(energy_along(energy, np.concatenate([paths["forward"], test])), 2)
        found["energy"] = measures.energy_scores(along, at.ravel(), true.ravel())
    return found


def _compared(predicted: Array, encoded: Array) -> dict:
    errors = measures.rollout_errors(predicted, encoded)
    return {
        "error": np.median(errors, axis=1).tolist(),
        "retrieved": measures.retrieved(predicted, encoded).tolist(),
        "valid_time": float(measures.valid_times(errors).mean()),
    }


def encoded_clips(
    config: ConfigDict, model: build.Model, state: TrainState, source: Source, mesh
) -> tuple[Array, Array]:
    """[T', n, K] states of every stack of consecutive frames of the (first) training and test clips."""
    transform, stack, size = build.eval_transform(config), config.views.stack, config.evaluate.batch_size
    splits = [split.images[:FITTED_CLIPS] for split in (source.train, source.test)]
    times = [clips.shape[1] - stack + 1 for clips in splits]

    def batches() -> Iterator[Array]:
        for clips, moments in zip(splits, times, strict=True):
            for first in range(0, moments * len(clips), size):
                t, n = np.divmod(np.arange(first, min(first + size, moments * len(clips))), len(clips))
                yield clips[n[:, None], t[:, None] + np.arange(stack)]

    z = evaluation.extract(
        lambda v, x: model.features(v["params"], v["batch_stats"], transform(x)),
        batches(),
        batch_size=size,
        variables=state.evaluated(teacher=config.evaluate.teacher),
        mesh=mesh,
    )
    of_train, of_test = np.split(z, [times[0] * len(splits[0])])
    return of_train.reshape(times[0], len(splits[0]), -1), of_test.reshape(times[1], len(splits[1]), -1)


def energy_along(energy: Callable, z: Array) -> Array:
    """The learned energy [T, n] of states [T, n, K], one moment after another."""
    return np.asarray(jax.jit(lambda z: jax.lax.map(energy, z))(z))


def middle_of(values: Array, stack: int) -> Array:
    """[T', n, m] means of [n, T, m] over the frames of each stack of the (first) clips: their middle."""
    windows = np.lib.stride_tricks.sliding_window_view(values[:FITTED_CLIPS], stack, axis=1)
    return windows.mean(axis=-1).swapaxes(0, 1)


def write_trajectories(out: pathlib.Path, measured: dict) -> None:
    """Writes trajectories.json and trajectories.txt from metrics.json's object."""
    out = make_folder(out, "--out")
    kept = ("workdir", "trained_on", "evaluated_on", "fingerprint", "seed")
    content = {
        **environment(),
        "protocol": measures.PROTOCOL,
        **{name: measured["evaluation"][name] for name in kept},
        "checkpoints": [
            {"step": c["step"], "epoch": c["epoch"], **c["trajectories"]} for c in measured["checkpoints"]
        ],
    }
    table = report.trajectories_text(content)
    write_text(out / "trajectories.txt", table + "\n")
    write_json(out / "trajectories.json", content)
    log.info("%s\nwritten to %s", table, out / "trajectories.json")


def measured_trajectories(config: ConfigDict, workdir: pathlib.Path, source: Source) -> dict:
    """What a finished run knows of its own clips: from WORKDIR/trajectories.json, or measured and written there.

    Args:
      config: of the run.
      workdir: of the run.
      source: the config's data, opened.

    Returns:
      {"seed", "step", "epoch", the results of `measure_trajectories`}.

    Raises:
      UserError: if the source states no states, or there is no checkpoint.
    """
    file, step = workdir / "trajectories.json", measured_step(workdir)
    told_by = _told_by(workdir, step, source)
    content = _kept(file, step, told_by)
    if content is None:
        check_trajectories(config, source, config.data.source)
        log.info("%s: measuring rollouts", workdir)
        run = load_run(workdir, step=step, config=config, images=source)
        epoch = run.epoch_at(int(run.state.step))
        measured = measure_trajectories(run.config, run.model, run.state, source, run.mesh, epoch=epoch)
        content = environment() | told_by | {"seed": config.seed}
        content["checkpoints"] = [{"step": int(run.state.step), "epoch": epoch, **measured}]
        write_json(file, content)
        content = json.loads(file.read_text(encoding="utf-8"))
    return {"seed": content["seed"], **content["checkpoints"][-1]}


def _told_by(workdir: pathlib.Path, step: int | None, source: Source) -> dict:
    """What the measures depend on: the protocol, the frames, their states, and the weights of a step."""
    states = hashlib.sha256()
    for split in (source.train, source.test):
        known = [getattr(split, name, None) for name in ("states", "energies", "dt")]
        states.update(b"".join(b"-" if x is None else np.ascontiguousarray(x, np.float64).tobytes() for x in known))
    return {
        "protocol": measures.PROTOCOL,
        "fingerprint": source.fingerprint(),
        "states": states.hexdigest()[:16],
        "weights": None if step is None else recorded_checksum(workdir / "checkpoints", step),
    }


def _kept(file: pathlib.Path, step: int | None, told_by: dict) -> dict | None:
    """A trajectories.json of this step and of what `_told_by` tells; None if there is none, or it is damaged."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        of_step = content["checkpoints"][-1]["step"] == step
        alike = {name: content[name] for name in told_by} == json.loads(json.dumps(told_by))
        return content if of_step and alike else None
    except (OSError, ValueError, LookupError, TypeError):
        return None
