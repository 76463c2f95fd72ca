"""Checkpoints with Orbax: saved asynchronously, the latest and the best kept, damaged ones passed over."""

import contextlib
import dataclasses
import json
import logging
import math
import pathlib
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy

from hamjepa_jax import disk
from hamjepa_jax.errors import UserError
from hamjepa_jax.files import room_for_folder
from hamjepa_jax.training import processes

State = TypeVar("State")
# Fields of a training state that a run may go on with or without, whatever its checkpoint has.
MAY_BE_ADDED = ("probe",)
log = logging.getLogger(__name__)


class _Manager(ocp.CheckpointManager):
    """Orbax's manager, for which a step whose metrics cannot be read is one without metrics."""

    def metrics(self, step: int) -> dict[str, float] | None:
        try:
            return super().metrics(step)
        except Exception as error:  # Of any kind: the weights may still be good.
            log.warning("checkpoint of step %d: its metrics cannot be read (%s); it counts as unscored.", step,
                        _first_line(error))  # fmt: skip
            return None


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
        """Opens or creates the directory; the remains of a killed save are removed.

        Args:
          directory: where the checkpoints are.
          keep_latest: how many of the newest to keep.
          keep_best: how many of those highest in `best_metric` to keep beside them.
          best_metric: name of an evaluation metric; checkpoints saved without it count as lowest.
          read_only: changes nothing there, so that a run that is still being trained can be looked at.
        """

        def score(metrics: dict[str, float] | None) -> float:
            value = metrics.get(best_metric) if isinstance(metrics, dict) else None
            return value if isinstance(value, int | float) else float("-inf")

        keep = [preservation_policy.LatestN(keep_latest)]
        if keep_best:
            best = preservation_policy.BestN(
                get_metric_fn=score, n=keep_best, keep_checkpoints_without_metrics=False
            )
            keep.append(best)
        self._score, self._kept, self._saving = score, keep_latest + keep_best, 0
        self._pending = False  # Whether a save was begun that nobody has waited for.
        options = ocp.CheckpointManagerOptions(
            best_fn=score,  # Without it Orbax stores no metrics.
            preservation_policy=preservation_policy.AnyPreservationPolicy(keep),
            cleanup_tmp_directories=not read_only,
            read_only=read_only,
        )
        self._open = lambda: _Manager(directory.absolute(), options=options)
        with disk.reported(directory, "nothing was begun"):
            self._manager = self._open()

    @property
    def directory(self) -> pathlib.Path:
        return pathlib.Path(self._manager.directory)

    def steps(self) -> list[int]:
        """Steps of the finished checkpoints, ascending."""
        return sorted(self._manager.all_steps())

    def best_step(self) -> int | None:
        """The step highest in the chosen metric, if any was saved with it."""
        scores = {step: self._score(self._manager.metrics(step)) for step in self.steps()}
        step = max(scores, key=scores.get, default=None)
        return None if step is None or scores[step] == float("-inf") else step

    def check_room(self, like: Any) -> None:
        """Makes sure that there is room for the checkpoints of a run.

        Args:
          like: the state, as arrays or jax.ShapeDtypeStruct.

        Raises:
          UserError: if the directory cannot be written, or has no room for them.
        """
        directory = self.directory
        disk.check_writable(directory)
        size = _size(like)
        new = max(1, self._kept + 1 - len(self.steps()))  # One more than are kept, while it is written.
        if disk.room(directory) < new * size:
            raise UserError(
                f"{directory}: has {disk.megabytes(disk.room(directory))} free, and {new} checkpoints of "
                f"{disk.megabytes(size)} are to come; make room, use another workdir, or keep fewer "
                f"(checkpoint.keep_latest, checkpoint.keep_best)."
            )

    def save(self, step: int, state: Any, metrics: dict[str, float]) -> None:
        """Starts saving in the background; returns once the state is copied off the device.

        Raises:
          UserError: if this or the save before cannot be written; and after it, if the folder is gone.
        """
        self.settle(step, state)
        self._saving, self._pending = step, True
        # If one of several processes failed during the save, the others would wait long for it.
        with processes.agreed(), self._reported():
            disk.require(self.directory, _size(state))
        with self._reported():
            self._begin(step, state, metrics)

    def settle(self, step: int, state: Any) -> None:
        """Waits for the save under way. If the folder is gone by now, the state is saved in a new one.

        Raises:
          UserError: if the save could not be written; and in any case where the folder is gone.
        """
        self.wait()
        if processes.everywhere(not self._is_gone()):
            return
        with processes.agreed(), self._reported():
            if processes.is_first():
                room_for_folder(self.directory)
        for _ in range(5):  # What remained of the former save may take the new folder away, more than once.
            former, self._manager = self._manager, self._open()
            with contextlib.suppress(Exception):  # Its folder is gone.
                former.close()
            with self._reported():
                self._begin(step, state, {})
                self._manager.wait_until_finished()
            if processes.everywhere(self._folder(step).is_dir()):
                break
        else:
            raise UserError(
                f"{self.directory}: was moved or deleted while the run was training, and step {step} could not be "
                f"saved in a new folder there; put the folder back and run the same command again."
            )
        raise UserError(
            f"{self.directory}: was moved or deleted while the run was training; step {step} was saved in a new "
            f"folder there, and the same command goes on from it."
        )

    def _is_gone(self) -> bool:
        """Whether somebody has moved or deleted the folder, or the checkpoint that was saved last."""
        return not (self._folder(self._saving) if self._saving else self.directory).is_dir()

    def _folder(self, step: int) -> pathlib.Path:
        return self.directory / str(step)

    def _begin(self, step: int, state: Any, metrics: dict[str, float]) -> None:
        if step not in self._manager.all_steps():
            items = ocp.args.Composite(
                state=ocp.args.StandardSave(_present(state)),
                checksum=ocp.args.JsonSave({"checksum": int(checksum(state)), "layout": layout(state)}),
            )
            self._manager.save(step, args=items, metrics=metrics, force=True)

    def restore(self, like: State, step: int | None = None) -> State | None:
        """The state of `step`, or of the newest readable checkpoint; None where there is none yet.

        Args:
          like: state of jax.ShapeDtypeStruct leaves with shardings: what is expected, and where to put it. Of the
            fields MAY_BE_ADDED those that the checkpoint lacks are None, and those that are None here stay so.
          step: a certain step.

        Raises:
          UserError: if the asked-for step or every checkpoint cannot be read, or holds another state.
        """
        return self._first_readable(lambda candidate: self._read(candidate, like), step)

    def restore_as_saved(self, sharding: jax.sharding.Sharding, step: int | None = None) -> dict[str, Any] | None:
        """Like `restore`, of whatever arrays the checkpoint holds, by the fields of a training state."""
        return self._first_readable(lambda candidate: read_as_saved(self._folder(candidate), sharding), step)

    def _first_readable(self, read: Callable[[int], State], step: int | None) -> State | None:
        steps = self.steps()
        if step is not None and step not in steps:
            have = ", ".join(map(str, steps)) or "none"
            raise UserError(f"checkpoint {step!r}: {self._manager.directory} has no such step; it has {have}.")
        for candidate in [step] if step is not None else steps[::-1]:
            state, problem = None, ""
            try:
                state = read(candidate)
            except UserError:
                raise
            except Exception as error:  # Of any kind: this step is unreadable, but the one before may be good.
                problem = _first_line(error)
            if processes.everywhere(state is not None):
                return state
            path = self._folder(candidate)
            log.warning("checkpoint %s is damaged and was passed over (%s).", path, problem or "in another process")
        if not steps:
            return None
        raise UserError(
            f"{self._manager.directory}: no checkpoint there can be read (tried "
            f"{', '.join(map(str, steps if step is None else [step]))}); restore a copy of one, or start again in "
            f"another workdir."
        )

    def _read(self, step: int, like: State) -> State:
        wanted, saved = like, {} if like is None else _saved_tree(self._folder(step))
        if dataclasses.is_dataclass(like):
            like = _as_saved(like, saved)
        if like is not None and _shapes(saved) != _shapes(like):
            raise UserError(
                f"{self._folder(step)}: is of a run with another objective, since its arrays differ from "
                f"those of this one; pass the objective= that the run was begun with, or use another workdir."
            )
        items = ocp.args.Composite(state=ocp.args.StandardRestore(_present(like)), checksum=ocp.args.JsonRestore())
        restored = self._manager.restore(step, args=items)
        _check(restored.state, restored.checksum["checksum"])
        now = layout(restored.state)
        before = restored.checksum.get("layout", now)  # Earlier checkpoints do not say.
        if before != now:
            log.info("checkpoint of step %d, saved by %s, is put on %s", step, _words(before), _words(now))
        if not dataclasses.is_dataclass(like):
            return restored.state
        found = like.replace(**restored.state)
        return found.replace(**{name: None for name in MAY_BE_ADDED if getattr(wanted, name) is None})

    def drop_after(self, step: int) -> None:
        """Deletes the checkpoints newer than `step`: damaged ones, whose steps will be saved again."""
        for newer in [s for s in self.steps() if s > step]:
            self._manager.delete(newer)

    def saving(self) -> bool:
        """Whether a save is under way."""
        return self._manager.is_saving_in_progress()

    def check(self) -> None:
        """Returns at once, whether or not a save is under way.

        Raises:
          UserError: if the last save could not be written.
        """
        if self._pending and not self.saving():
            self.wait()

    def wait(self) -> None:
        """Blocks until the save under way is safely on disk, or its folder is gone, see `settle`.

        Raises:
          UserError: if it could not be written.
        """
        with self._reported():
            self._manager.wait_until_finished()
        self._pending = False

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind, error, traceback) -> None:
        """Closes, however the run ends; but with a process lost, a save under way would never end."""
        if not processes.is_lost(error):
            self.close()

    def close(self) -> None:
        """Waits, and logs a save that failed."""
        try:
            self.wait()
        except UserError as error:
            log.error("%s", error)
        self._manager.close()

    @contextlib.contextmanager
    def _reported(self) -> Iterator[None]:
        """Faults of the disk in saving, in one sentence; a folder that is gone is left to `settle`."""
        try:
            yield
        except Exception as error:
            if disk.fault(error) is None:
                if isinstance(error, OSError | ValueError) and self._is_gone():
                    return
                raise
            path = self._folder(self._saving)
            good = [step for step in self.steps() if step != self._saving]
            kept = f"the last good checkpoint is that of step {good[-1]}" if good else "there is no checkpoint yet"
            raise UserError(disk.sentence(path, error, kept)) from error


def read_as_saved(folder: pathlib.Path, sharding: jax.sharding.Sharding) -> dict[str, Any]:
    """The arrays of one checkpoint by the fields of its training state; fields without arrays are absent.

    Args:
      folder: of the step.
      sharding: where to put the arrays.

    Raises:
      ValueError: if they are not those that were saved; and what Orbax raises.
    """
    like = _abstract(_saved_tree(folder), sharding)
    with ocp.PyTreeCheckpointer() as checkpointer:
        arguments = ocp.args.PyTreeRestore(
            item=like, restore_args=ocp.checkpoint_utils.construct_restore_args(like)
        )
        state = checkpointer.restore(folder / "state", args=arguments)
    _check(state, _saved_checksum(folder))
    return state


def recorded_checksum(directory: pathlib.Path, step: int) -> int | None:
    """What a checkpoint's state was told by when it was saved, read without the state; None if there is none.

    Args:
      directory: of the run's checkpoints.
      step: of the checkpoint.
    """
    try:
        return _saved_checksum(directory / str(step))
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _saved_checksum(folder: pathlib.Path) -> int:
    """The checksum in the folder of a step."""
    return json.loads((folder / "checksum" / "metadata").read_text(encoding="utf-8"))["checksum"]


def _as_saved(like: Any, saved: dict[str, Any]) -> Any:
    """The expected state with those of the fields MAY_BE_ADDED that the checkpoint has, and no others."""
    changes, whole = {}, jax.tree.leaves(like)[0].sharding  # The step's: on every device.
    for name in MAY_BE_ADDED:
        if name not in saved:
            changes[name] = None
        elif getattr(like, name) is None:
            changes[name] = _abstract(saved[name], whole)
    return like.replace(**changes)


def _abstract(saved: Any, sharding: jax.sharding.Sharding) -> Any:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), saved)


def _present(state: Any) -> Any:
    """The fields of a training state that are there: checkpoints of versions without the others stay readable."""
    if not dataclasses.is_dataclass(state):
        return state
    fields = {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}
    return {name: value for name, value in fields.items() if value is not None}


def _saved_tree(folder: pathlib.Path) -> dict[str, Any]:
    """The description of a checkpoint's arrays, by the fields of its training state."""
    with ocp.PyTreeCheckpointer() as checkpointer:
        saved = checkpointer.metadata(folder / "state").item_metadata
    if saved is None:
        raise ValueError(f"{folder.name}/state has no readable list of its arrays")
    return {name: saved[name] for name in saved.keys()}


def _shapes(tree: Any) -> list[tuple[int, ...]]:
    """The shapes of all arrays, sorted: containers are saved under other names than they have."""
    return sorted(tuple(x.shape) for x in jax.tree.leaves(tree))


@jax.jit
def checksum(state: Any) -> jax.Array:
    """A 32-bit sum over the bits of every array: it detects storage that returns other bits than it was given.

    Words are weighted by odd numbers, so that no change of a single word can cancel.
    """
    total = jnp.zeros((), jnp.uint32)
    for leaf in jax.tree.leaves(state):
        words = jax.lax.bitcast_convert_type(leaf, jnp.uint32).reshape(-1)
        total += (words * (2 * jnp.arange(words.size, dtype=jnp.uint32) + 1)).sum(dtype=jnp.uint32)
    return total


def _check(state: Any, recorded: int) -> None:
    if int(checksum(state)) != recorded:
        raise ValueError("its numbers are not those that were saved")


def layout(state: Any) -> dict[str, int]:
    """Processes, and sizes of the mesh's axes, that a state is spread over."""
    mesh = getattr(getattr(jax.tree.leaves(state)[0], "sharding", None), "mesh", None)  # None in host memory
    return {"processes": jax.process_count(), **({} if mesh is None else mesh.shape)}


def _words(layout: dict[str, int]) -> str:
    return " × ".join(f"{name} {size}" for name, size in layout.items())


def _size(state: Any) -> int:
    """Bytes of a state of arrays or shapes."""
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(state))


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
