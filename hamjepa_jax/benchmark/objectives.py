"""Times every objective beside one encoder: what the choice of an objective costs in a step."""

import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections

from hamjepa_jax import build, parts
from hamjepa_jax.benchmark.step import in_turn, loss_gradients
from hamjepa_jax.errors import UserError
from hamjepa_jax.objectives import Embedded, Objective, Seen
from hamjepa_jax.training.step import embed_views

ConfigDict = ml_collections.ConfigDict
ENCODER, TEACHER = "encoder", "teacher"


class ObjectiveTimes(NamedTuple):
    """Median seconds over the rounds.

    Attributes:
      encoder: the encoder's passes over all views, forwards and backwards; the same for every objective.
      teacher: its forward pass over the global views.
      objectives: {name: {"loss": loss and gradient with respect to the embeddings and its own parameters, its
        projections drawn as often as a run draws them; "teacher": the teacher's pass, 0 without one; "ratio": both
        beside the encoder, the median over the rounds of each round's ratio}}.
      left_out: {name: why it does not go with this encoder}.
      batch_size, views, embed_dim: examples, views of each, size of an embedding.
      clock: "CPU": seconds of the process, where that computes on CPUs, which other programs take none of; "wall".
    """

    encoder: float
    teacher: float
    objectives: dict[str, dict[str, float]]
    left_out: dict[str, str]
    batch_size: int
    views: int
    embed_dim: int
    clock: str


def benchmark_objectives(config: ConfigDict, rounds: int) -> ObjectiveTimes:
    """Times every objective that goes with a config's encoder, with this config's settings, on random images.

    An objective that takes no predictor has "identity". The optimiser, which is the same for all but for the few
    parameters of an objective's own, is not in it.
    """
    config = config.copy_and_resolve_references()
    left_out: dict[str, str] = {}
    timed: dict[str, Objective] = {}
    model = build.build_model(config)
    params, batch_stats = jax.jit(model.init)(build.init_key(config))
    groups = random_views(config)
    calls = encoder_calls(model, params, batch_stats, groups)
    seen = embeddings(model, params, batch_stats, groups, config.train.batch_size)
    for name in sorted(part.name for part in parts.objectives.parts(config.plugins)):
        try:
            objective, own, carried = made(config, name)
        except UserError as error:
            left_out[name] = str(error)
            continue
        timed[name] = objective
        given = Seen(seen.z, seen.h, carried=carried)
        calls |= objective_calls(name, objective, params | own, given, config.views.num_global)
    on_cpu = jax.default_backend() == "cpu"
    times = in_turn(calls, rounds, time.process_time if on_cpu else time.perf_counter)
    found = {
        name: _of(times, name, objective.refresh_interval, times[TEACHER] if objective.teacher else [0.0] * rounds)
        for name, objective in timed.items()
    }
    encoder, teacher = (statistics.median(times[name]) for name in (ENCODER, TEACHER))
    return ObjectiveTimes(
        encoder=encoder,
        teacher=teacher,
        objectives=found,
        left_out=left_out,
        batch_size=config.train.batch_size,
        views=seen.z.shape[0],
        embed_dim=seen.z.shape[-1],
        clock="CPU" if on_cpu else "wall",
    )


def _of(times: dict[str, list[float]], name: str, drawn_every: int, teacher: list[float]) -> dict[str, float]:
    """The entry of an objective in `ObjectiveTimes.objectives`."""
    drawn = [(loss + draw / drawn_every) for loss, draw in zip(times[name], times[_draw(name)], strict=True)]
    ratios = [(a + b) / c for a, b, c in zip(drawn, teacher, times[ENCODER], strict=True)]
    medians = {"loss": drawn, "teacher": teacher, "ratio": ratios}
    return {what: statistics.median(values) for what, values in medians.items()}


def made(config: ConfigDict, name: str) -> tuple[Objective, dict[str, Any], Any]:
    """(the objective, {group: its own parameters}, its carried state) with an encoder's config.

    Raises:
      UserError: if it does not go with the encoder.
    """
    config = config.copy_and_resolve_references()
    config.objective.name = name
    if not parts.objectives[name].about["uses_predictor"]:
        config.predictor.kind = "identity"
    build.check(config)
    predictor = build.build_predictor(config)
    objective = build.build_objective(config, predictor)
    if objective.wide is not None and objective.wide.keep is not None:
        raise UserError(f"objective.name {name!r}: shows its encoder a part of the tokens; it has another step.")
    own, carried = objective.first_own(jax.random.key(0))
    return objective, {} if objective.init is None else {objective.reads: own}, carried


def random_views(config: ConfigDict) -> list[jax.Array]:
    """Views of each size as one batch [b·v, …], standard normal."""
    keys = jax.random.split(jax.random.key(0), 2)
    b, channels = config.train.batch_size, 3 * config.views.stack
    return [
        jax.random.normal(key, (b * number, spec.size, spec.size, channels))
        for key, (spec, number) in zip(keys, build.view_specs(config), strict=False)
    ]


def embeddings(model: build.Model, params: Any, batch_stats: Any, groups: list[jax.Array], b: int) -> Embedded:
    """The embeddings of all views of a batch of b."""
    embed = jax.jit(lambda params, x: model.embed(params, batch_stats, x)[0])
    views = [x.reshape(b, -1, *x.shape[1:]) for x in groups]
    return embed_views(lambda x, stats: (embed(params, x), stats), views, None)[0]


def encoder_calls(
    model: build.Model, params: Any, batch_stats: Any, groups: list[jax.Array]
) -> dict[str, Callable[[], Any]]:
    """The encoder's part of a step, and a teacher's."""

    @jax.jit
    def gradient(params, groups):
        def loss(params):
            zs = [model.embed(params, batch_stats, x)[0][1] for x in groups]
            return sum(jnp.sum(z * z) for z in zs)

        return jax.grad(loss)(params)

    teacher = jax.jit(lambda params, x: model.embed(params, batch_stats, x)[0])
    return {ENCODER: lambda: gradient(params, groups), TEACHER: lambda: teacher(params, groups[0])}


def _draw(name: str) -> str:
    return f"{name}, drawing"


def objective_calls(
    name: str, objective: Objective, params: dict[str, Any], seen: Seen, num_global: int
) -> dict[str, Callable[[], Any]]:
    """The loss of an objective with its gradients, and the drawing of its projections."""
    draw = jax.jit(objective.draw)
    drawn = draw(0)
    if objective.teacher is not None:
        own = {group: params[group] for group in objective.teacher.groups}
        seen = seen._replace(teacher=Embedded(seen.z[:num_global], seen.h[:num_global], own))

    losses = loss_gradients(objective)
    return {name: lambda: losses(params[objective.reads], seen, drawn), _draw(name): lambda: draw(1)}


def describe(report: ObjectiveTimes) -> str:
    """The report as text."""
    device = jax.devices()[0].device_kind
    lines = [
        f"{jax.device_count()} × {device}, jax {jax.__version__}, {report.clock} time",
        f"batch {report.batch_size} × {report.views} views, embeddings of {report.embed_dim}",
        f"encoder, forwards and backwards: {report.encoder * 1e3:.2f} ms",
        "",
        f"{'objective':<24}{'ms':>10}{'teacher':>10}{'of encoder':>12}",
    ]
    for name, times in sorted(report.objectives.items(), key=lambda item: item[1]["ratio"]):
        lines.append(
            f"{name:<24}{times['loss'] * 1e3:>10.2f}{times['teacher'] * 1e3:>10.2f}{times['ratio']:>12.1%}"
        )
    lines += [f"left out: {why}" for why in report.left_out.values()]
    return "\n".join(lines)
