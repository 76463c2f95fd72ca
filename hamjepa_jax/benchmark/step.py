"""Times the training step of a config, and its parts as programs of their own."""

import math
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import optax

from hamjepa_jax.benchmark.prepared import prepare
from hamjepa_jax.objectives import Embedded, Objective, Seen
from hamjepa_jax.run.setup import Setup
from hamjepa_jax.training.state import TrainState
from hamjepa_jax.training.step import embed_views

Array = jax.Array


class StepTimes(NamedTuple):
    """Median seconds of a training step and of its parts run alone, and the step's cost by XLA's count.

    Attributes:
      seconds: {"step", "augmentation", "encoder", "predictor and floors", "optimiser"}, and "teacher" where the
        objective has one.
      batch_size, views: examples, and views of each.
      flops, bytes: of one step on all devices; bytes are those of the compiled program, after fusion.
      peak_flops, peak_bandwidth: FLOP/s of a large matrix product and bytes/s of a large copy, measured here.
    """

    seconds: dict[str, float]
    batch_size: int
    views: int
    flops: float
    bytes: float
    peak_flops: float
    peak_bandwidth: float


def benchmark_step(config: ml_collections.ConfigDict, rounds: int) -> StepTimes:
    """Times the training step of a config on its own data, and its parts as programs of their own.

    The parts are differentiated as in the step (the encoder against a fixed cotangent), so that their sum comes
    near the step's time; the difference is the time that XLA saves by fusing them together.
    """
    setup, store, batch, step, traced = prepare(config)
    state, cost = setup.init(), step.program.cost_analysis()
    calls = parts_of(setup, state, store, batch)

    def one_step() -> Any:
        nonlocal state
        state, metrics = step(state, store, batch)
        return metrics

    seconds = _medians(in_turn({"step": one_step} | calls, rounds))
    # Projections are drawn anew once in so many steps.
    seconds["predictor and floors"] += seconds.pop("draw") / setup.training.objective.refresh_interval
    return StepTimes(
        seconds=seconds,
        batch_size=config.train.batch_size,
        views=config.views.num_global + config.views.num_local,
        flops=_flops(traced),
        bytes=setup.mesh.size * cost.get("bytes accessed", float("nan")),  # XLA counts one device's part.
        peak_flops=_peak_flops(jnp.dtype(setup.config.encoder.dtype), rounds),
        peak_bandwidth=_peak_bandwidth(rounds),
    )


def _flops(traced: jax.stages.Traced) -> float:
    """FLOPs of one step on all devices, by XLA's count of a TPU's program before compilation.

    Of CPUs' it counts a loop once, and what a GPU's compiler hands to a library, such as convolutions, not at all.
    """
    return traced.lower(lowering_platforms=("tpu",)).cost_analysis().get("flops", math.nan)


def parts_of(setup: Setup, state: TrainState, store: Any, batch: Any) -> dict[str, Callable[[], Any]]:
    """The parts of a step as calls of compiled programs; "draw" makes new projections."""
    model, objective, optimizer = setup.model, setup.training.objective, setup.training.optimizer
    # Copies: the step gives its state's memory away.
    params, batch_stats, opt_state, drawn = jax.tree.map(
        jnp.copy, (state.params, state.batch_stats, state.opt_state, state.draw)
    )
    views, draw = jax.jit(setup.inputs.views), jax.jit(objective.draw)
    images, gaps = views(store, batch, jnp.int32(0)), setup.inputs.gaps(batch, jnp.int32(0))
    labels = setup.inputs.labels(store, batch)
    flat = [x.reshape(-1, *x.shape[2:]) for x in images]
    kept = objective.kept(drawn)

    @jax.jit
    def embed(variables, x, kept):
        return model.embed(variables["params"], variables["batch_stats"], x, **kept)[0]

    def embedded(variables: Any, number: int, kept: dict[str, Array]) -> Embedded:
        """Embeddings [v, b, k] of the views of the first `number` sizes."""
        return embed_views(lambda x, stats: (embed(variables, x, kept), stats), images[:number], None)[0]

    student = embedded({"params": params, "batch_stats": batch_stats}, len(flat), kept)
    own, carried = jax.tree.map(jnp.copy, (state.teacher, state.carried))
    seen = Seen(student.z, student.h, _teachers(objective, own, embedded), carried, gaps, labels)

    @jax.jit
    def encoder(params, batch_stats, flat):
        def loss(params):
            stats, total = batch_stats, 0.0
            for x in flat:
                (_, z), stats = model.embed(params, stats, x, **kept)
                total += jnp.sum(z * z)
            return total, stats

        return jax.grad(loss, has_aux=True)(params)

    losses = loss_gradients(objective)

    @jax.jit
    def update(params, opt_state):
        updates, opt_state = optimizer.update(params, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    teachers = {} if objective.teacher is None else {"teacher": lambda: embed(own, flat[0], {})}
    return {
        "augmentation": lambda: views(store, batch, jnp.int32(0)),
        "encoder": lambda: encoder(params, batch_stats, flat),
        **teachers,
        "predictor and floors": lambda: losses(params[objective.reads], seen, drawn),
        "draw": lambda: draw(1),
        "optimiser": lambda: update(params, opt_state),
    }


def loss_gradients(objective: Objective) -> Callable[[Any, Seen, Any], Any]:
    """(what it reads, seen, projections) -> gradients of the loss by the first and by the embeddings, compiled."""

    @jax.jit
    def losses(read, seen, drawn):
        def loss(read, z, h):
            loss, *rest = objective.of(read, seen._replace(z=z, h=h), drawn, jnp.int32(1))
            return loss, rest

        return jax.grad(loss, (0, 1, 2), has_aux=True)(read, seen.z, seen.h)

    return losses


def _teachers(objective: Objective, own: Any, embedded: Callable[..., Embedded]) -> Embedded | None:
    """The embeddings of the global views by the teacher `own`."""
    if objective.teacher is None:
        return None
    return embedded(own, 1, {})._replace(params={name: own["params"][name] for name in objective.teacher.groups})


def in_turn(
    calls: dict[str, Callable[[], Any]], rounds: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    """Seconds of each call in each round, taken in turn so that a drifting machine slows all of them alike."""
    for call in calls.values():
        jax.block_until_ready(call())
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            start = clock()
            jax.block_until_ready(call())
            times[name].append(clock() - start)
    return times


def _medians(times: dict[str, list[float]]) -> dict[str, float]:
    return {name: statistics.median(values) for name, values in times.items()}


def _peak_flops(dtype: Any, rounds: int) -> float:
    n = 8192 if jax.default_backend() != "cpu" else 2048
    a = jnp.ones((n, n), dtype)
    multiply = jax.jit(lambda a: a @ a)
    return 2 * n**3 / _medians(in_turn({"": lambda: multiply(a)}, rounds))[""] * jax.device_count()


def _peak_bandwidth(rounds: int) -> float:
    a = jnp.ones(2**28 if jax.default_backend() != "cpu" else 2**25, jnp.float32)
    add = jax.jit(lambda a: a + 1)
    return 2 * a.nbytes / _medians(in_turn({"": lambda: add(a)}, rounds))[""] * jax.device_count()


def describe(report: StepTimes) -> str:
    """The report as text."""
    step = report.seconds["step"]
    device = jax.devices()[0].device_kind
    lines = [
        f"{jax.device_count()} × {device}, jax {jax.__version__}, batch {report.batch_size} × {report.views} views",
        f"{1 / step:.2f} steps/s, {report.batch_size / step:,.0f} images/s, {step * 1e3:.1f} ms a step",
        "",
        f"{'part, run alone':<24}{'ms':>10}{'of step':>10}",
    ]
    for name, seconds in report.seconds.items():
        if name != "step":
            lines.append(f"{name:<24}{seconds * 1e3:>10.2f}{seconds / step:>10.1%}")
    compute, memory = report.flops / report.peak_flops, report.bytes / report.peak_bandwidth
    lines += [
        "",
        f"{report.flops / 1e9:,.1f} GFLOP a step by XLA's count: {report.flops / step / 1e9:,.1f} GFLOP/s, "
        f"{compute / step:.1%} of the {report.peak_flops / 1e9:,.0f} GFLOP/s of a large matrix product here",
        f"roofline: {compute * 1e3:.1f} ms by arithmetic, {memory * 1e3:.1f} ms by memory traffic "
        f"({report.bytes / 1e9:,.2f} GB after fusion at {report.peak_bandwidth / 1e9:,.1f} GB/s)",
    ]
    return "\n".join(lines)
