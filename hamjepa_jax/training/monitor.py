"""The watch on a run: speed, losses that are not finite, collapse."""

import contextlib
import math
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from hamjepa_jax.errors import UserError
from hamjepa_jax.files import write_json
from hamjepa_jax.metrics.keys import best_knn, parse
from hamjepa_jax.training.processes import is_first

COLUMNS = 120  # of a line in the log


class Clock:
    """Speed and the share of time spent waiting for data, since the last report; evaluation is left out."""

    def __init__(self):
        self._restart()

    def _restart(self) -> None:
        self._start, self._waited, self._paused, self._steps = time.perf_counter(), 0.0, 0.0, 0

    def waiting_for(self, batches: Iterator):
        """The next batch, its waiting time counted."""
        start = time.perf_counter()
        batch = next(batches)
        self._waited += time.perf_counter() - start
        return batch

    @contextlib.contextmanager
    def paused(self):
        """Leaves the time inside out of the speed: it is not spent on training."""
        start = time.perf_counter()
        yield
        self._paused += time.perf_counter() - start

    def advance(self, steps: int) -> None:
        self._steps += steps

    def report(self, *, batch_size: int, steps_left: int) -> dict[str, float]:
        """{"steps_per_s", "images_per_s", "data_wait" (share), "eta_s"} since the last report."""
        elapsed = max(time.perf_counter() - self._start - self._paused, 1e-9)
        rate = self._steps / elapsed
        speed = {
            "perf/steps_per_s": rate,
            "perf/images_per_s": rate * batch_size,
            "perf/data_wait": self._waited / elapsed,
            "perf/eta_s": steps_left / rate if rate else math.inf,
        }
        self._restart()
        return speed


OfRun = Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]
CHECKED = ("total", "grad_norm")  # Of every step. Fetching all metrics takes longer than the rest of the loop.


class Watch:
    """Metrics of the dispatched steps, looked at one dispatch late so that the device never waits for the host.

    Every step's loss and gradient norm are checked; a run that stops being finite is ended with that step's
    diagnostics in the workdir.
    """

    def __init__(self, workdir: pathlib.Path):
        self._workdir = workdir
        self._newest: tuple[int, Mapping[str, jax.Array], OfRun] | None = None
        self._latest: dict[str, float] | None = None  # All metrics of the newest dispatch, once they were fetched.
        self.last_saved: int | None = None  # Step of the last checkpoint, for the message.

    def push(self, last_step: int, metrics: Mapping[str, jax.Array], of_run: OfRun = dict) -> None:
        """Takes the metrics, scalars or [k], of the dispatch that ended with `last_step`; checks the one before.

        Args:
          last_step: of the dispatch.
          metrics: of the program.
          of_run: gives the metrics of this run, where the program has several.

        Raises:
          UserError: as `latest`, of the dispatch before.
        """
        if self._newest is not None and self._latest is None and not self._is_finite():
            self.latest()
        self._newest, self._latest = (last_step, metrics, of_run), None

    def latest(self) -> dict[str, float]:
        """Waits for, checks and returns the metrics of the newest step.

        Raises:
          UserError: naming the first step and the terms that are not finite, and what to try.
        """
        if self._latest is None:
            self._latest = self._check()
        return self._latest

    def _is_finite(self) -> bool:
        _, metrics, of_run = self._newest
        found = of_run(jax.device_get({name: metrics[name] for name in CHECKED}))
        return all(np.isfinite(values).all() for values in found.values())

    def _check(self) -> dict[str, float]:
        """Metrics of the dispatch's last step as floats."""
        last_step, metrics, of_run = self._newest
        by_name = {name: np.atleast_1d(value) for name, value in of_run(jax.device_get(metrics)).items()}
        steps = range(last_step - len(by_name["total"]) + 1, last_step + 1)
        for i, step in enumerate(steps):
            values = {name: float(v[i]) for name, v in by_name.items()}
            if not all(math.isfinite(values[name]) for name in CHECKED):
                raise UserError(self._diagnose(step, values))
        return values

    def _diagnose(self, step: int, values: Mapping[str, float]) -> str:
        path = self._workdir / f"non_finite_step_{step}.json"
        if is_first():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, {name: v if math.isfinite(v) else str(v) for name, v in values.items()})
        bad = ", ".join(name for name, value in values.items() if not math.isfinite(value))
        kept = "no checkpoint was written yet"
        if self.last_saved is not None:
            kept = f"the last good checkpoint is that of step {self.last_saved}"
        return (
            f"step {step}: {bad} not finite; {kept}; the step's diagnostics are in {path}. Try a lower "
            f"optimizer.learning_rate, optimizer.clip_norm=1.0 or encoder.dtype='float32', in another workdir."
        )


# suffix of a name -> (side of the threshold that is bad, threshold, meaning)
_COLLAPSE = {
    "_mean_square": ("below", 1e-3, "the features have shrunk to nothing"),
    "_min_std": ("below", 1e-3, "some coordinate no longer varies over the batch"),
    "_pr": ("below", 0.01, "the features vary in a few directions only"),
    "_eigmax": ("above", 0.9, "one direction carries the variance"),
}


def collapse_warnings(metrics: Mapping[str, float]) -> dict[str, str]:
    """{diagnostic: sentence} for every diagnostic that says the representation has collapsed."""
    warnings = {}
    for name, value in metrics.items():
        for suffix, (side, threshold, meaning) in _COLLAPSE.items():
            beyond = value < threshold if side == "below" else value > threshold
            if name.endswith(suffix) and beyond:
                warnings[name] = f"collapse: {name} {value:.2g} is {side} {threshold:g}, {meaning}."
    return warnings


def layout_line(batch_size: int, mesh: Mesh) -> str:
    """Processes, devices and each device's part of the batch in one line."""
    kind = mesh.devices.flat[0].device_kind
    axes = " × ".join(f"{name} {size}" for name, size in mesh.shape.items())
    return (
        f"{jax.process_count()} process(es), {mesh.size} × {kind} ({axes}): a batch of {batch_size} is "
        f"{batch_size // mesh.size} images on each device"
    )


def progress_line(
    step: int,
    total: int,
    epoch: float,
    metrics: Mapping[str, float],
    speed: Mapping[str, float],
    columns: int | None = COLUMNS,
) -> str:
    """Step, speed, waiting, time left, and as many of the losses as fit into the columns; all of them with None."""
    minutes, seconds = divmod(round(min(speed["perf/eta_s"], 3.6e6)), 60)
    head = (
        f"step {step}/{total} · epoch {epoch:.2f} · {speed['perf/images_per_s']:,.0f} images/s · "
        f"data wait {speed['perf/data_wait']:.1%} · {minutes}:{seconds:02d} left"
    )
    line = f"{head} |"
    for name, value in metrics.items():
        longer = f"{line} {name} {value:.3g}"
        if columns is not None and len(longer) > columns:
            break
        line = longer
    return line


def size_line(params: Any) -> str:
    """Number and bytes of the parameters in one line."""
    sizes = [(leaf.size, leaf.size * leaf.dtype.itemsize) for leaf in jax.tree.leaves(params)]
    return f"{sum(n for n, _ in sizes):,} parameters ({sum(b for _, b in sizes) / 1e6:,.2f} MB)"


def evaluation_line(step: int, epoch: float, metrics: Mapping[str, float], seconds: float) -> str:
    """Best kNN accuracy of every readout, with its k, in one line; without labels RankMe."""
    best = best_knn(metrics)
    found = "kNN top-1 " + " · ".join(f"{readout} {value:.2%} (k{k})" for readout, (k, value) in best.items())
    if not best:
        ranks = {parse(text).readout: value for text, value in metrics.items() if parse(text).measures("rankme")}
        found = "RankMe " + " · ".join(f"{readout} {value:.1f}" for readout, value in ranks.items())
    return f"step {step} · epoch {epoch:.2f} · {found} | {seconds:.1f} s"
