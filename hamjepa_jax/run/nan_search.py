"""--debug_nans: where in a training step the first value that is not finite comes from."""

import functools
import logging
import math
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as linen
import jax
import jax.numpy as jnp
import ml_collections
import optax

from hamjepa_jax import nn
from hamjepa_jax.errors import UserError
from hamjepa_jax.objectives import Embedded, Seen
from hamjepa_jax.run.setup import Setup
from hamjepa_jax.training.state import TrainState
from hamjepa_jax.training.step import embed_views, micro_batches, refreshed

Array = jax.Array
ConfigDict = ml_collections.ConfigDict
Step = Callable[[TrainState, Any, Any], tuple[TrainState, dict[str, Array]]]
# The name that a network's modules are listed under, by the class of the outermost one.
NETWORKS = {"TokenEncoder": "encoder", "GlobalEncoder": "encoder", "Projector": "projector", "MLP": "predictor/mlp"}
TEACHERS = "teacher's"  # the group of its views
log = logging.getLogger(__name__)


class NotFinite(Exception):
    """The first value that is not finite; the message says where it is."""


def one_step_at_a_time(config: ConfigDict) -> ConfigDict:
    """The config with one step per dispatch, so that each can be checked; logs it."""
    log.warning("--debug_nans: every step is waited for and checked, which makes the run slower.")
    if config.train.steps_per_dispatch > 1:
        log.warning("--debug_nans: train.steps_per_dispatch is taken as 1.")
        config = config.copy_and_resolve_references()
        config.train.steps_per_dispatch = 1
    return config


def checked(step: Step, locate: Callable[[TrainState, Any, Any], str]) -> Step:
    """The same step, waited for and checked; the origin of a total or gradient that is not finite is searched.

    Args:
      step: (state, store, batch) -> (state, metrics), which leaves the state's memory alone.
      locate: (state, store, batch) -> the origin in words, see `make_locator`.

    Returns:
      The step; it raises a UserError that names the place.
    """

    def run(state: TrainState, store: Any, batch: Any) -> tuple[TrainState, dict[str, Array]]:
        new_state, metrics = step(state, store, batch)
        bad = [name for name in ("total", "grad_norm") if not math.isfinite(metrics[name])]
        if bad:
            raise UserError(
                f"step {int(state.step) + 1}: {bad[0]} is not finite; {locate(state, store, batch)}; "
                f"all checkpoints are from before this step."
            )
        return new_state, metrics

    return run


def make_locator(setup: Setup) -> Callable[[TrainState, Any, Any], str]:
    """(state, store, batch) -> where the step from this state first has a value that is not finite, in words.

    The step is run again piece by piece and one operation at a time: the state, the views, the modules of the
    networks and the loss terms forwards, and the gradients backwards. All processes of a run have to call it.

    Args:
      setup: of the run.
    """
    views, steps_per_epoch = jax.jit(setup.inputs.views), setup.training.steps_per_epoch
    accumulation = setup.config.train.accumulation
    draw_for = jax.jit(functools.partial(refreshed, setup.training.objective))

    def locate(state: TrainState, store: Any, batch: Any) -> str:
        draw, epoch = draw_for(state.draw, state.step), state.step // steps_per_epoch
        try:
            _check("the parameter", state.params, "was so already, by the update before this step")
            _check("the batch statistic", state.batch_stats, "was so already, by the step before")
            _check("the teacher's parameter", state.teacher, "was so already, by the step before")
            _check("the objective's carried value", state.carried, "was so already, by the step before")
            _check("the random projection", draw, "was the first value that is not")
            parts = micro_batches(batch, accumulation)
            for i in range(accumulation):
                part = jax.tree.map(lambda x: x[i], parts)
                images = views(store, part, epoch)
                given = {"gaps": setup.inputs.gaps(part, epoch), "labels": setup.inputs.labels(store, part)}
                groups = dict(zip(("global", "local"), images, strict=False))
                _check("the views", groups, "have the first value that is not")
                state = _differentiate(setup, state, groups, given, draw, epoch)
        except NotFinite as place:
            return str(place)
        return "one operation at a time it is finite, so the compiled program's rounding makes the difference"

    return locate


def _differentiate(
    setup: Setup, state: TrainState, groups: dict[str, Array], given: dict[str, Any], draw: Any, epoch: Array
) -> TrainState:
    """Loss and gradient of a (micro-)batch, every module checked on the way.

    Returns:
      The state with the batch statistics and the carried values after it.
    """
    trace, params = Trace(), state.params
    model = setup.model
    objective = setup.make_objective(setup.config, trace.predictor(model.predictor))

    def embed(params, stats, groups, **kept):
        names = iter(groups)

        def one(images, stats):
            group = next(names)
            trace.note = f" ({group} views)" if len(groups) > 1 or group == TEACHERS else ""
            return model.embed(params, stats, images, **kept)

        embedded, stats = embed_views(one, list(groups.values()), stats)
        trace.note = ""
        return embedded, stats

    def lose(params, embedded):
        seen = Seen(embedded.z, embedded.h, teacher, state.carried, **given)
        loss, metrics, carried = objective.of(params[objective.reads], seen, draw, epoch + 1)
        return loss, (metrics, carried)

    with jax.disable_jit(), linen.intercept_methods(trace.interceptor):
        teacher, teacher_state = None, state.teacher
        if objective.teacher is not None:
            own = state.teacher["params"]
            teacher, stats = embed(own, state.teacher["batch_stats"], {TEACHERS: groups["global"]})
            teacher = teacher._replace(params={name: own[name] for name in objective.teacher.groups})
            teacher_state = state.teacher | {"batch_stats": stats}
        kept = objective.kept(draw)
        z, back_to_images, stats = jax.vjp(
            lambda p: embed(p, state.batch_stats, groups, **kept), params, has_aux=True
        )
        loss, back_to_states, (metrics, carried) = jax.vjp(lose, params, z, has_aux=True)
        _check_terms({"loss": loss} | metrics)
        trace.backwards = True
        own, at_states = back_to_states(jnp.ones_like(loss))
        if not _is_finite(at_states):
            raise NotFinite(_blamed_term(lambda z: lose(params, z)[1][0], z))
        (through_states,) = back_to_images(at_states)
    gradient = jax.tree.map(jnp.add, own, through_states)
    _check("the gradient of the parameter", gradient, "is the first value that is not, going backwards")
    if not _is_finite(optax.global_norm(gradient)):
        leaves = jax.tree_util.tree_leaves_with_path(gradient)
        path, _ = max(leaves, key=lambda leaf: float(jnp.abs(leaf[1]).max()))
        raise NotFinite(f"every gradient is finite, and their squares, the largest of {_name(path)}, overflow")
    return state.replace(batch_stats=stats, teacher=teacher_state, carried=carried)


class Trace:
    """Checks the inputs and outputs of modules, forwards and backwards.

    Attributes:
      note: appended to the modules' names.
      backwards: whether the gradient of the loss is being computed.
    """

    def __init__(self):
        self.note, self.backwards = "", False
        self._network, self._last = "", "the views"

    def interceptor(self, next_call: Callable, args: tuple, kwargs: dict, context: Any) -> Any:
        """For `flax.linen.intercept_methods`."""
        if context.method_name != "__call__":
            return next_call(*args, **kwargs)
        if not context.module.path:
            kind = type(context.module).__name__
            self._network = context.module.name or NETWORKS.get(kind, kind)
        name = "/".join((self._network, *context.module.path)) + self.note
        x, *rest = args
        return self.probe(next_call(self.probe(x, name, "input"), *rest, **kwargs), name, "output")

    def predictor(self, predictor: nn.Predictor) -> nn.Predictor:
        """The predictor with its flow checked."""

        def flow(params: Any, z: Array, *arguments: Any) -> Array:
            x = self.probe(z, "the predictor's flow", "input")
            return self.probe(predictor.flow(params, x, *arguments), "the predictor's flow", "output")

        return predictor._replace(flow=flow)

    def probe(self, x: Array, name: str, end: str) -> Array:
        """x itself; it is checked here, and its gradient when that is computed.

        Raises:
          NotFinite: naming the place; for a gradient, when that is computed.
        """

        def look(value: Array, is_gradient: bool) -> None:
            if not _is_finite(value):
                raise NotFinite(self._describe(name, end, is_gradient))
            self._last = f"the {end} of {name}"

        return _looked_at(look, x)

    def _describe(self, name: str, end: str, is_gradient: bool) -> str:
        if not is_gradient and end == "output":
            return f"the first value that is not came out of {name}, whose inputs were finite"
        value = f"the gradient at the {end} of {name}" if is_gradient else f"the {end} of {name}"
        way = ", going backwards" if self.backwards else " in the force" if is_gradient else ""
        return f"the first value that is not was {value}{way}; the one before, at {self._last}, was finite"


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _looked_at(look: Callable[[Array, bool], None], x: Array) -> Array:
    look(x, False)
    return x


def _look_forwards(look: Callable[[Array, bool], None], x: Array) -> tuple[Array, None]:
    look(x, False)
    return x, None


def _look_backwards(look: Callable[[Array, bool], None], _: None, gradient: Array) -> tuple[Array]:
    look(gradient, True)
    return (gradient,)


_looked_at.defvjp(_look_forwards, _look_backwards)


def _is_finite(x: Any) -> bool:
    """Whether an array, or every one of a tree, is finite."""
    return all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(x))


def _check(kind: str, tree: Any, predicate: str) -> None:
    """Raises NotFinite with the paths of the leaves that are not finite."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    bad = [_name(path) for path, x in leaves if jnp.issubdtype(x.dtype, jnp.inexact) and not _is_finite(x)]
    if bad:
        raise NotFinite(f"{kind} {_listed(bad)} {predicate}")


def _check_terms(metrics: dict[str, Array]) -> None:
    bad = [name for name, value in metrics.items() if not _is_finite(value)]
    if "loss" in bad or "total" in bad:
        terms = [name for name in bad if name not in ("loss", "total")] or ["loss"]
        raise NotFinite(f"the first value that is not was the loss term {_listed(terms)}, of finite states")


def _blamed_term(terms: Callable[[Embedded], dict[str, Array]], z: Embedded) -> str:
    """The term whose gradient with respect to the states is not finite, in words."""
    names = [name for name, x in terms(z).items() if jnp.issubdtype(x.dtype, jnp.inexact) and name != "total"]
    # One by one: a gradient of zero times infinity would blame the others too.
    bad = [name for name in names if not _is_finite(jax.grad(lambda z: terms(z)[name])(z))]
    where = f"of the loss term {_listed(bad)}" if bad else "of the loss"
    return f"the first value that is not was the gradient {where} with respect to finite states"


def _name(path: tuple) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _listed(names: Sequence[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
