"""Speed on the machine at hand.

python -m hamjepa_jax.benchmark step --config=configs/NAME.py   the training step and its parts
python -m hamjepa_jax.benchmark input DIR                       decoding and cropping the JPEGs of DIR
python -m hamjepa_jax.benchmark evaluation                      kNN and probe against scikit-learn
python -m hamjepa_jax.benchmark checkpoint --config=…           saving and restoring, and training meanwhile
"""

import contextlib
import pathlib
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import optax
from absl import app, flags

from hamjepa_jax import benchmark_checkpoint, build
from hamjepa_jax import config as config_lib
from hamjepa_jax.data import open_source
from hamjepa_jax.data.benchmark import benchmark_input
from hamjepa_jax.errors import UserError
from hamjepa_jax.evaluation.benchmark import benchmark_evaluation
from hamjepa_jax.inputs import open_inputs
from hamjepa_jax.main import CONFIG, WORKDIR, log_to_terminal, parse_flags
from hamjepa_jax.restore import initial_state
from hamjepa_jax.train import compile_step
from hamjepa_jax.training.mesh import make_mesh

Array = jax.Array
ROUNDS = flags.DEFINE_integer("rounds", 10, "Timed rounds; medians are printed.", lower_bound=1)


class StepReport(NamedTuple):
    """Median seconds of a training step and of its parts run alone, and the step's cost by XLA's count.

    Attributes:
      seconds: {"step", "augmentation", "encoder", "predictor and floors", "optimiser"}.
      batch_size, views: examples, and views of each.
      flops, bytes: of one step on all devices.
      peak_flops, peak_bandwidth: FLOP/s of a large matrix product and bytes/s of a large copy, measured here.
    """

    seconds: dict[str, float]
    batch_size: int
    views: int
    flops: float
    bytes: float
    peak_flops: float
    peak_bandwidth: float


def benchmark_step(config: ml_collections.ConfigDict, rounds: int) -> StepReport:
    """Times the training step of a config on its own data, and its parts as programs of their own.

    The parts are differentiated as in the step (the encoder against a fixed cotangent), so that their sum comes
    near the step's time; what XLA saves by fusing them together is the difference.
    """
    config_lib.validate(config, jax.device_count())
    mesh = make_mesh(config.mesh.fsdp)
    source = open_source(config.data.source, loader=config.data.loader)
    config_lib.validate_durations(config, len(source.train))
    config.train.steps_per_dispatch = 1
    inputs = open_inputs(config, source.train, mesh)
    model = build.build_model(config)
    training = build.build_training(config, model, len(source.train), mesh, views=inputs.views)
    objective = build.build_objective(config, model.predictor)
    optimizer = build.build_optimizer(config, build.build_schedules(config, training.steps_per_epoch))
    abstract, init = initial_state(config, training, mesh)
    state = init()
    with contextlib.closing(inputs.batches(0)) as batches:
        batch = next(batches)
    step = compile_step(training, mesh, abstract, inputs.store, batch)
    cost = step.cost_analysis()

    views = jax.jit(inputs.views)
    images = views(inputs.store, batch, jnp.int32(0))
    flat = [x.reshape(-1, *x.shape[2:]) for x in images]

    @jax.jit
    def encoder(params, batch_stats, flat):
        def loss(params):
            stats, total = batch_stats, 0.0
            for x in flat:
                z, stats = model.encode(params, stats, x)
                total += jnp.sum(z * z)
            return total, stats

        return jax.grad(loss, has_aux=True)(params)

    encode = jax.jit(lambda params, stats, x: model.encode(params, stats, x)[0])
    z = jnp.concatenate(
        [
            encode(state.params, state.batch_stats, x).reshape(*v.shape[:2], -1).swapaxes(0, 1)
            for x, v in zip(flat, images, strict=True)
        ]
    )

    @jax.jit
    def losses(read, z, draw):
        return jax.grad(lambda p, z: objective.loss(p, z, draw, jnp.int32(1)), (0, 1), has_aux=True)(read, z)

    @jax.jit
    def update(params, opt_state):
        updates, opt_state = optimizer.update(params, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    draw = jax.jit(objective.draw)

    def one_step():
        nonlocal state
        state, metrics = step(state, inputs.store, batch)
        return metrics

    params, batch_stats, opt_state = jax.tree.map(jnp.copy, (state.params, state.batch_stats, state.opt_state))
    kept_draw = jax.tree.map(jnp.copy, state.draw)  # The step gives its state's memory away.
    calls = {
        "step": one_step,
        "augmentation": lambda: views(inputs.store, batch, jnp.int32(0)),
        "encoder": lambda: encoder(params, batch_stats, flat),
        "predictor and floors": lambda: losses(params[objective.reads], z, kept_draw),
        "draw": lambda: draw(1),
        "optimiser": lambda: update(params, opt_state),
    }
    seconds = _interleaved(calls, rounds)
    # Projections are drawn anew once in so many steps.
    seconds["predictor and floors"] += seconds.pop("draw") / objective.refresh_interval
    peaks = _peak_flops(jnp.dtype(config.encoder.dtype), rounds), _peak_bandwidth(rounds)
    return StepReport(
        seconds=seconds,
        batch_size=config.train.batch_size,
        views=config.views.num_global + config.views.num_local,
        flops=mesh.size * cost.get("flops", float("nan")),  # XLA counts one device's part.
        bytes=mesh.size * cost.get("bytes accessed", float("nan")),
        peak_flops=peaks[0],
        peak_bandwidth=peaks[1],
    )


def _interleaved(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Median seconds of each call, taken in turn so that a drifting machine slows all of them alike."""
    for call in calls.values():
        jax.block_until_ready(call())
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            start = time.perf_counter()
            jax.block_until_ready(call())
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def _peak_flops(dtype: Any, rounds: int) -> float:
    n = 8192 if jax.default_backend() != "cpu" else 2048
    a = jnp.ones((n, n), dtype)
    multiply = jax.jit(lambda a: a @ a)
    return 2 * n**3 / _interleaved({"": lambda: multiply(a)}, rounds)[""] * jax.device_count()


def _peak_bandwidth(rounds: int) -> float:
    a = jnp.ones(2**28 if jax.default_backend() != "cpu" else 2**25, jnp.float32)
    add = jax.jit(lambda a: a + 1)
    return 2 * a.nbytes / _interleaved({"": lambda: add(a)}, rounds)[""] * jax.device_count()


def describe(report: StepReport) -> str:
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
        f"({report.bytes / 1e9:,.2f} GB before fusion at {report.peak_bandwidth / 1e9:,.0f} GB/s)",
    ]
    return "\n".join(lines)


def main(argv: list[str]) -> int:
    try:
        match argv[1:]:
            case ["step"] if CONFIG.value is not None:
                print(describe(benchmark_step(CONFIG.value, ROUNDS.value)))
            case ["checkpoint"] if CONFIG.value is not None:
                folder = WORKDIR.value and pathlib.Path(WORKDIR.value)
                report = benchmark_checkpoint.benchmark_checkpoint(CONFIG.value, ROUNDS.value, folder)
                print(benchmark_checkpoint.describe(report))
            case ["step" | "checkpoint"]:
                raise UserError("--config is missing: name a file, as in --config=configs/cifar100.py.")
            case ["input", folder]:
                print(benchmark_input(folder))
            case ["evaluation"]:
                print(benchmark_evaluation(50_000, 5_000, 1024, num_classes=100, epochs=50))
            case _:
                raise UserError("name what to time: step or checkpoint --config=FILE, input DIR, or evaluation.")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    log_to_terminal()
    app.run(main, flags_parser=parse_flags)
