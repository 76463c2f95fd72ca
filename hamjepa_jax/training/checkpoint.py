"""Checkpoints of the training state with Orbax: asynchronous, the latest and the best kept, damage stepped over."""

import logging
import pathlib
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy

from hamjepa_jax.errors import UserError

State = TypeVar("State")
log = logging.getLogger(__name__)


class Checkpoints:
    """The checkpoints of one run, by step."""

    def __init__(
        self,
        directory: pathlib.Path,
        *,
        keep_latest: int,
        keep_best: int,
        best_metric: str,
        read_only: bool = False,
    ):
        """Opens or creates the directory; what a killed save left unfinished is removed.

        Args:
          directory: where the checkpoints are.
          keep_latest: how many of the newest to keep.
          keep_best: how many of those highest in `best_metric` to keep beside them.
          best_metric: name of an evaluation metric; checkpoints saved without it count as lowest.
          read_only: changes nothing there, so that a run that is still being trained can be looked at.
        """

        def score(metrics: dict[str, float] | None) -> float:
            return (metrics or {}).get(best_metric, float("-inf"))

        keep = [preservation_policy.LatestN(keep_latest)]
        if keep_best:
            best = preservation_policy.BestN(
                get_metric_fn=score, n=keep_best, keep_checkpoints_without_metrics=False
            )
            keep.append(best)
        self._score = score
        self._manager = ocp.CheckpointManager(
            directory.absolute(),
            options=ocp.CheckpointManagerOptions(
                best_fn=score,  # Without it Orbax stores no metrics.
                preservation_policy=preservation_policy.AnyPreservationPolicy(keep),
                cleanup_tmp_directories=not read_only,
                read_only=read_only,
            ),
        )

    def steps(self) -> list[int]:
        """Steps of the finished checkpoints, ascending."""
        return sorted(self._manager.all_steps())

    def best_step(self) -> int | None:
        """The step highest in the chosen metric, if any was saved with it."""
        scores = {step: self._score(self._manager.metrics(step)) for step in self.steps()}
        step = max(scores, key=scores.get, default=None)
        return None if step is None or scores[step] == float("-inf") else step

    def save(self, step: int, state: Any, metrics: dict[str, float]) -> None:
        """Starts saving in the background; returns once the state is copied off the device."""
        if step not in self._manager.all_steps():
            items = ocp.args.Composite(
                state=ocp.args.StandardSave(state),
                checksum=ocp.args.JsonSave({"checksum": int(checksum(state))}),
            )
            self._manager.save(step, args=items, metrics=metrics, force=True)

    def restore(self, like: State, step: int | None = None) -> State | None:
        """The state of `step`, or of the newest readable checkpoint; None where there is none yet.

        Args:
          like: state of jax.ShapeDtypeStruct leaves with shardings: what is expected, and where to put it.
          step: a certain step.

        Raises:
          UserError: if the asked-for step, or every checkpoint there is, cannot be read.
        """
        steps = self.steps()
        if step is not None and step not in steps:
            have = ", ".join(map(str, steps)) or "none"
            raise UserError(f"checkpoint {step}: {self._manager.directory} has no such step; it has {have}.")
        for candidate in [step] if step is not None else steps[::-1]:
            try:
                return self._read(candidate, like)
            except (
                Exception
            ) as error:  # Whatever is wrong inside, the step is unreadable and the one before may not be.
                path = self._manager.directory / str(candidate)
                log.warning("checkpoint %s is damaged and was passed over (%s).", path, _first_line(error))
        if not steps:
            return None
        raise UserError(
            f"{self._manager.directory}: no checkpoint there can be read (tried "
            f"{', '.join(map(str, steps if step is None else [step]))}); restore a copy of one, or start again in "
            f"another workdir."
        )

    def _read(self, step: int, like: State) -> State:
        items = ocp.args.Composite(state=ocp.args.StandardRestore(like), checksum=ocp.args.JsonRestore())
        restored = self._manager.restore(step, args=items)
        if int(checksum(restored.state)) != restored.checksum["checksum"]:
            raise ValueError("its numbers are not those that were saved")
        return restored.state

    def drop_after(self, step: int) -> None:
        """Deletes the checkpoints newer than `step`: damaged ones, whose steps will be saved again."""
        for newer in [s for s in self.steps() if s > step]:
            self._manager.delete(newer)

    def wait(self) -> None:
        """Blocks until what was begun is safely on disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        self._manager.close()


@jax.jit
def checksum(state: Any) -> jax.Array:
    """A 32-bit sum over the bits of every array: storage that returns other bits than it was given is found out.

    Words are weighted by odd numbers, so that no change of a single word can cancel.
    """
    total = jnp.zeros((), jnp.uint32)
    for leaf in jax.tree.leaves(state):
        words = jax.lax.bitcast_convert_type(leaf, jnp.uint32).reshape(-1)
        total += (words * (2 * jnp.arange(words.size, dtype=jnp.uint32) + 1)).sum(dtype=jnp.uint32)
    return total


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
