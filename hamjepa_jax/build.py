"""From a config to the objects of a run: names choose code here alone, through the registries of `parts`.

Facts that the registration of a part states:
  objectives: title (for cards and tables), shown (its terms on the progress line), uses_predictor (whether a
    predictor other than "identity" is allowed), reads_qp (whether it needs states split into q and p, without a
    projector), extends (an objective whose settings it has too), reads_labels (whether its loss reads the images'
    classes; not if absent), least_views (of an image; 2 if absent), least_images (of a batch, or micro-batch; 1 if
    absent).
  predictors: has_steps (whether a horizon curriculum makes sense), warnings (values -> sentences for the log).
  trunks, where there is more to say: torch (`nn.torch_names.TorchNames`, for weights in and out), stage (name of
    a module of the trunk's -> its place from the image on, from 0; None after all: for optimizer.layer_decay),
    masks (True if the module also takes `keep`, the indices of tokens that it sees, and gives [b, 1, n, c]), layers
    (beginning of the names of equal modules whose parameters the trunk gathers by itself, with
    `nn.sharing.in_turn`, where devices share them).
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as linen
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
from flax.errors import FlaxError
from jax.sharding import Mesh

from hamjepa_jax import config as config_lib
from hamjepa_jax import nn, objectives, parts, rng
from hamjepa_jax.config.default import values_of
from hamjepa_jax.config.fields import OPTIMIZER
from hamjepa_jax.data import Moments, ViewSpec, clip_views, draw_gaps, eval_clips, eval_images, gather, make_views
from hamjepa_jax.errors import UserError
from hamjepa_jax.objectives import Context, Grid
from hamjepa_jax.training import optimizer as optimizer_lib
from hamjepa_jax.training.state import TrainState
from hamjepa_jax.training.step import Reads, make_train_step, several_steps

Array = jax.Array
ConfigDict = ml_collections.ConfigDict
NETWORKS = ("encoder", "projector", "predictor")  # groups of parameters
OWN_KEY = 3  # of an objective's own parameters, folded into the key whose splits the networks have
MakeObjective = Callable[[ConfigDict, nn.Predictor], objectives.Objective]


# -- Networks ------


class Model(NamedTuple):
    """The networks of a run as pure functions.

    Attributes:
      init: key -> (params, batch_stats), see `training.state.TrainState`.
      encode: (params, batch_stats, images [n, h, w, 3]) -> (z [n, k], new batch_stats), in training.
      features: (params, batch_stats, images) -> [n, k] float32, frozen, float32 computation, before a projector.
      predictor: see `nn.Predictor`.
      embed: like `encode`, but ((embeddings before a projector [n, d], after it [n, k]), new batch_stats); with
        `keep`, indices of tokens, of these tokens alone.
    """

    init: Callable[[Array], tuple[Any, Any]]
    encode: Callable[[Any, Any, Array], tuple[Array, Any]]
    features: Callable[[Any, Any, Array], Array]
    predictor: nn.Predictor
    embed: Callable[[Any, Any, Array], tuple[tuple[Array, Array], Any]]


def build_model(config: ConfigDict) -> Model:
    encoder, predictor = build_encoder(config), build_predictor(config)
    projector = build_projector(config)
    frozen = build_encoder(config, dtype=jnp.float32)
    size, dim = config.data.image_size, embed_dim(config)

    def init(key: Array) -> tuple[Any, Any]:
        keys = jax.random.split(key, 3)
        image = jnp.zeros((1, size, size, 3 * config.views.stack))
        variables = {"encoder": encoder.init(keys[0], image, train=False)}
        if projector is not None:
            variables["projector"] = projector.init(keys[2], jnp.zeros((1, dim)), train=False)
        params = {name: v["params"] for name, v in variables.items()}
        batch_stats = {name: v.get("batch_stats", {}) for name, v in variables.items()}
        return params | {"predictor": predictor.init(keys[1], dim // 2)}, batch_stats

    def apply(module, name: str, params: Any, batch_stats: Any, x: Array, **options: Any) -> tuple[Array, Any]:
        variables = {"params": params[name], "batch_stats": batch_stats[name]}
        out, updated = module.apply(variables, x, train=True, mutable=["batch_stats"], **options)
        return out, batch_stats | {name: updated.get("batch_stats", {})}

    def embed(
        params: Any, batch_stats: Any, images: Array, keep: Array | None = None
    ) -> tuple[tuple[Array, Array], Any]:
        options = {} if keep is None else {"keep": keep}
        h, batch_stats = apply(encoder, "encoder", params, batch_stats, images, **options)
        if projector is None:
            return (h, h), batch_stats
        z, batch_stats = apply(projector, "projector", params, batch_stats, h)
        return (h, z), batch_stats

    def encode(params: Any, batch_stats: Any, images: Array) -> tuple[Array, Any]:
        (_, z), batch_stats = embed(params, batch_stats, images)
        return z, batch_stats

    def features(params: Any, batch_stats: Any, images: Array) -> Array:
        return frozen.apply(
            {"params": params["encoder"], "batch_stats": batch_stats["encoder"]}, images, train=False
        )

    return Model(init, encode, features, predictor, embed)


def build_projector(config: ConfigDict) -> nn.Projector | None:
    c = config.encoder
    if c.projector == "identity":
        return None
    return nn.Projector(c.projector_dim, c.projector_hidden, c.projector_layers, c.projector_norm)


def build_encoder(config: ConfigDict, dtype: Any = None) -> nn.TokenEncoder | nn.GlobalEncoder:
    """The encoder; `dtype` in place of encoder.dtype."""
    c = config.encoder
    dtype = jnp.dtype(encoder_dtype(config, jax.default_backend())) if dtype is None else dtype
    trunk = _trunk(config, dtype)
    if c.mode == "global":
        return nn.GlobalEncoder(trunk=trunk, embed_dim=c.embed_dim)
    return nn.TokenEncoder(
        trunk=trunk,
        token_hw=c.token_hw,
        token_dim=c.token_dim,
        split_qp=c.split_qp,
        dtype=dtype,
        token_norm=c.token_norm,
    )


def encoder_dtype(config: ConfigDict, platform: str) -> str:
    """Type of the encoder's computation in training on a platform: encoder.dtype, or what "auto" means there.

    XLA emulates bfloat16 on CPUs, which is slower than float32.
    """
    if config.encoder.dtype != "auto":
        return config.encoder.dtype
    return "float32" if platform == "cpu" else "bfloat16"


def _trunk(config: ConfigDict, dtype: Any) -> linen.Module:
    part, values = values_of(config, parts.trunks, config.encoder.trunk)
    return parts.trunks.made(part, linen.Module, values, dtype=dtype, whole=config.encoder.mode == "global")


def build_predictor(config: ConfigDict) -> nn.Predictor:
    part, values = values_of(config, parts.predictors, config.predictor.kind)
    return parts.predictors.made(part, nn.Predictor, values)


def token_grid(config: ConfigDict, image_size: int | None = None) -> tuple[int, int]:
    """Rows and columns of the token grid for images of this size; of data.image_size if None."""
    if config.encoder.token_hw is not None:
        return (config.encoder.token_hw,) * 2
    return _map_shape(_trunk(config, jnp.float32), image_size or config.data.image_size)[1:3]


def map_shape(config: ConfigDict) -> tuple[int, int, int]:
    """Rows, columns and channels of the trunk's feature map of an image of data.image_size."""
    return _map_shape(_trunk(config, jnp.float32), config.data.image_size)[1:]


@functools.lru_cache(maxsize=64)
def _map_shape(trunk: linen.Module, size: int) -> tuple[int, ...]:
    """Shape of a trunk's feature map of one image; nothing is computed."""
    images = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    key = jax.ShapeDtypeStruct((2,), jnp.uint32)
    found = jax.eval_shape(lambda k, x: trunk.init_with_output(k, x, train=False)[0], key, images)
    if getattr(found, "ndim", None) != 4 or not jnp.issubdtype(found.dtype, jnp.floating) or 0 in found.shape:
        raise UserError(f"encoder.trunk: makes {found} of an image; it must make a float map [b, h, w, c].")
    return found.shape


def embed_dim(config: ConfigDict) -> int:
    """Size of the encoder's output for the global views."""
    if config.encoder.mode == "global":
        return config.encoder.embed_dim
    rows, columns = token_grid(config)
    return rows * columns * config.encoder.token_dim


# -- Checks ------


def check(config: ConfigDict, make_objective: MakeObjective | None = None, *, training: bool = True) -> None:
    """Refuses settings that cannot work on any devices, before any compute: the first of three stages of checks.

    Args:
      config: of a run. The other stages are `config.check_devices`, `config.check_durations` and
        `config.check_images`.
      make_objective: of an objective in place of the one that config.objective names.
      training: False to look at a trained run, whatever its objective was.

    Raises:
      UserError: one sentence with the field, its value and the remedy.
    """
    config_lib.check_settings(config)
    _check_shapes(config)
    predictor = build_predictor(config)
    nn.check_horizon(config.predictor.horizon, config.predictor.num_steps)
    learning_rate_factors(config)
    objective = (make_objective or build_objective)(config, predictor)  # Makes its own checks.
    if not isinstance(objective, objectives.Objective):
        raise UserError(
            f"objective=: its function returned {type(objective).__name__}, not an objectives.Objective."
        )
    if training:
        _check_asked(config, objective)


def _check_asked(config: ConfigDict, objective: objectives.Objective) -> None:
    """Refuses what an objective asks for and the run has not."""
    if objective.init is not None and objective.reads in NETWORKS:
        raise UserError(
            f"objective.name: reads={objective.reads!r} is the group of a network, and init makes the objective's "
            f"own; give that a name of its own."
        )
    if config.evaluate.teacher and objective.teacher is None:
        raise UserError("evaluate.teacher True: the objective has no teacher; set it to False.")
    if objective.wide is None or objective.wide.keep is None or leaves_tokens_out(config):
        return
    raise UserError(
        "objective.name: the objective shows the encoder some of the tokens alone, and this encoder takes all; set "
        "encoder.trunk='vit_tiny' or another vit, encoder.mode='token', token_hw=None and projector='identity'."
    )


def _check_shapes(config: ConfigDict) -> None:
    trunk = _trunk(config, jnp.float32)
    _map_shape(trunk, config.data.image_size)
    if config.views.num_local:
        _check_local(config, trunk)
    if config.encoder.mode != "token":
        return
    c, (rows, columns) = config.encoder, token_grid(config)
    if c.embed_dim not in (None, embed_dim(config)):
        raise UserError(
            f"encoder.embed_dim {c.embed_dim}: {rows}×{columns} tokens of {c.token_dim} channels make "
            f"{embed_dim(config)}; set it to that or to None."
        )
    if config.views.num_local and token_grid(config, config.views.local_size) != (rows, columns):
        raise UserError(
            f"views.local_size {config.views.local_size}: local views would have another token grid than the "
            f"{rows}×{columns} of the global ones; set encoder.token_hw={rows} or use encoder.mode='global'."
        )


def _check_local(config: ConfigDict, trunk: linen.Module) -> None:
    """Refuses local views that the trunk cannot take with the parameters that global views have."""
    size, key = config.views.local_size, jax.ShapeDtypeStruct((2,), jnp.uint32)
    _map_shape(trunk, size)
    images = (jax.ShapeDtypeStruct((1, n, n, 3), jnp.float32) for n in (config.data.image_size, size))
    try:
        jax.eval_shape(lambda k, x, y: trunk.apply(trunk.init(k, x, train=False), y, train=False), key, *images)
    except FlaxError as error:
        raise UserError(
            f"views.local_size {size}: encoder.trunk={config.encoder.trunk!r} has other parameters for that size "
            f"than for data.image_size {config.data.image_size}; set it to that, or views.num_local=0."
        ) from error


def warnings(config: ConfigDict) -> list[str]:
    """Sentences to log once at the start of a run, about networks that may surprise."""
    c, (rows, columns, _) = config.encoder, map_shape(config)
    if c.token_hw is None or c.token_hw <= min(rows, columns):
        return []
    return [
        f"encoder.token_hw {c.token_hw}: the trunk's map of an image is {rows}×{columns}, so that tokens repeat "
        f"each other; set it to {min(rows, columns)} at most, or to None."
    ]


# -- Objective ------


def build_objective(
    config: ConfigDict, predictor: nn.Predictor, seed: int | Array | None = None
) -> objectives.Objective:
    """The objective that config.objective names; `seed` in place of config.seed may be traced."""
    part, values = values_of(config, parts.objectives, config.objective.name)
    return parts.objectives.made(part, objectives.Objective, objective_context(config, predictor, seed), values)


def objective_context(config: ConfigDict, predictor: nn.Predictor, seed: int | Array | None = None) -> Context:
    """The facts of the run that an objective may know."""
    has_projector = config.encoder.projector != "identity"
    return Context(
        num_global=config.views.num_global,
        num_local=config.views.num_local,
        batch_size=config.train.batch_size // config.train.accumulation,
        embed_dim=config.encoder.projector_dim if has_projector else embed_dim(config),
        grid=None if has_projector or config.encoder.mode != "token" else state_grid(config),
        seed=config.seed if seed is None else seed,
        predictor=predictor,
        residual_scale=residual_scale(config),
        horizon=horizon(config),
        optimizer=OPTIMIZER.values_of(config.optimizer),
        network=nn.network,
        max_gap=config.views.max_gap,
        token_network=_token_network(config),
    )


def _token_network(config: ConfigDict) -> Callable[..., Any] | None:
    """`nn.token_network` on the token grid, where the encoder gives whole tokens and can leave some out."""
    if config.encoder.split_qp or not leaves_tokens_out(config):
        return None
    rows, columns = token_grid(config)
    return functools.partial(nn.token_network, places=rows * columns)


def leaves_tokens_out(config: ConfigDict) -> bool:
    """Whether the encoder can see some of the tokens alone."""
    c = config.encoder
    masks = parts.trunks[c.trunk].about.get("masks", False)
    return masks and c.mode == "token" and not c.token_hw and c.projector == "identity"


def state_grid(config: ConfigDict) -> Grid:
    """The token grid as it lies in an embedding: one grid, or one in each of q and p."""
    channels = config.encoder.token_dim // (2 if config.encoder.split_qp else 1)
    return Grid(*token_grid(config), channels)


def residual_scale(config: ConfigDict) -> Callable[[Array | int], Array]:
    """Epoch, counted from 1, -> scale of the learned part of the energy, s·min(1, epoch/warm-up)."""
    scale, warmup = config.predictor.residual_scale, config.predictor.residual_warmup_epochs

    def schedule(epoch: Array | int) -> Array:
        epoch = jnp.asarray(epoch, jnp.float32)
        return scale * (jnp.minimum(1.0, epoch / warmup) if warmup else jnp.ones_like(epoch))

    return schedule


def horizon(config: ConfigDict) -> Callable[[Array | int], Array] | None:
    """Epoch, counted from 1, -> steps of the flow that are taken; None without a curriculum, when all are."""
    stages = config.predictor.horizon
    if not stages:
        return None
    first_epochs, steps = np.array(stages, np.int32).T
    return lambda epoch: jnp.where(epoch >= first_epochs, steps, steps[0]).max()


# -- Optimiser ------


def build_schedules(config: ConfigDict, steps_per_epoch: int) -> dict[str, optax.Schedule]:
    """Learning rates by group of the networks' parameters."""
    c, total = config.optimizer, config_lib.total_steps(config, steps_per_epoch)
    warmup = config_lib.duration_steps(
        "optimizer.warmup", c.warmup, steps_per_epoch=steps_per_epoch, total_steps=total
    )

    def schedule(peak: float) -> optax.Schedule:
        return optimizer_lib.warmup_cosine(
            peak, warmup_steps=warmup, total_steps=total, start=c.warmup_start, final=c.final
        )

    own = c.learning_rate if c.predictor_learning_rate is None else c.predictor_learning_rate
    schedules = {"encoder": schedule(c.learning_rate), "predictor": schedule(own)}
    if config.encoder.projector == "mlp":
        schedules["projector"] = schedules["encoder"]
    return schedules


def build_weight_decay(config: ConfigDict, steps_per_epoch: int) -> float | optax.Schedule:
    """optimizer.weight_decay, or the cosine from it to weight_decay_final over all of training."""
    c = config.optimizer
    if c.weight_decay_final is None:
        return c.weight_decay
    total = config_lib.total_steps(config, steps_per_epoch)
    return optimizer_lib.cosine_between(c.weight_decay, c.weight_decay_final, total)


def learning_rate_factors(config: ConfigDict) -> Callable[[Any], Any] | None:
    """Parameters -> factor of each array's learning rate, by optimizer.layer_decay; None if all are 1.

    Raises:
      UserError: if the trunk states no order of its modules.
    """
    decay, stage = config.optimizer.layer_decay, parts.trunks[config.encoder.trunk].about.get("stage")
    if decay == 1:
        return None
    if stage is None:
        raise UserError(
            f"optimizer.layer_decay {decay}: encoder.trunk={config.encoder.trunk!r} states no order of its modules "
            f"(stage=…); set it to 1."
        )

    def factors(params: Any) -> Any:
        places = {name: stage(name) for name in params["encoder"]["trunk"]}
        after = 1 + max(place for place in places.values() if place is not None)
        of_trunk = {name: decay ** (after - (after if place is None else place)) for name, place in places.items()}

        def factor(path: tuple, x: Array) -> float:
            names = [key.key for key in path]
            return of_trunk[names[2]] if names[:2] == ["encoder", "trunk"] else 1.0

        return jax.tree_util.tree_map_with_path(factor, params)

    return factors


def build_optimizer(
    config: ConfigDict,
    schedules: dict[str, optax.Schedule],
    objective: objectives.Objective | None = None,
    weight_decay: float | optax.Schedule | None = None,
) -> optax.GradientTransformation:
    """The networks' optimiser; an objective's own parameters have its optimiser, or the encoder's schedule.

    `weight_decay` as of `build_weight_decay`; optimizer.weight_decay throughout if None.
    """
    c, separate = config.optimizer, {}
    if objective is not None and objective.init is not None:
        if objective.optimizer is None:
            schedules = schedules | {objective.reads: schedules["encoder"]}
        else:
            separate[objective.reads] = objective.optimizer
    rule = optimizer_lib.Rule(
        name=c.name,
        weight_decay=c.weight_decay if weight_decay is None else weight_decay,
        b1=c.b1,
        b2=c.b2,
        eps=c.eps,
        momentum=c.momentum,
        decay_mask=c.decay_mask,
    )
    factors = learning_rate_factors(config)
    return optimizer_lib.by_groups(rule, schedules, clip_norm=c.clip_norm, separate=separate, factors=factors)


# -- Views ------


def view_specs(config: ConfigDict) -> tuple[tuple[ViewSpec, int], ...]:
    """(specification, number) of the global and, if any, of the local views."""
    c = config.views
    shared = dict(
        ratio=c.ratio,
        flip_prob=c.flip_prob,
        jitter_prob=c.jitter_prob,
        brightness=c.brightness,
        contrast=c.contrast,
        saturation=c.saturation,
        hue=c.hue,
        grayscale_prob=c.grayscale_prob,
        blur_prob=c.blur_prob,
        blur_sigma=c.blur_sigma,
        blur_kernel=c.blur_kernel,
        solarize_prob=c.solarize_prob,
        solarize_threshold=c.solarize_threshold / 255,
    )
    specs = ((ViewSpec(size=config.data.image_size, scale=c.global_scale, **shared), c.num_global),)
    if c.num_local:
        specs += ((ViewSpec(size=c.local_size, scale=c.local_scale, **shared), c.num_local),)
    return specs


def build_views(
    config: ConfigDict, mesh: Mesh, seed: int | Array | None = None
) -> Callable[[Array, Array, Array], tuple[Array, ...]]:
    """(images or clips of a `DeviceStore`, example indices [b], epoch) -> the views of each size, as `views_of`.

    `seed` in place of config.seed may be traced.
    """
    make = views_of(config, seed)
    return lambda examples, indices, epoch: make(gather(examples, indices, mesh), indices, epoch)


def views_of(
    config: ConfigDict, seed: int | Array | None = None
) -> Callable[[Array, Array, Array], tuple[Array, ...]]:
    """(images [b, h, w, 3] or clips [b, T, h, w, 3], indices [b], epoch) -> the views of each size.

    They are [b, v, size, size, c], c of `views.stack` frames. `seed` in place of config.seed may be traced.
    """
    specs, moments = view_specs(config), _moments(config)
    seed = config.seed if seed is None else seed

    def views(examples: Array, indices: Array, epoch: Array) -> tuple[Array, ...]:
        options = dict(seed=seed, epoch=epoch, specs=specs, mean=config.data.mean, std=config.data.std)
        if examples.ndim == 5:
            return clip_views(examples, indices, **options, moments=moments)
        return make_views(examples, indices, **options)

    return views


def gaps_of(config: ConfigDict, seed: int | Array | None = None) -> Callable[[Array, Array], Array]:
    """(indices of clips [b], epoch) -> frames from one view of each clip to the next, [b] int32."""
    seed = config.seed if seed is None else seed
    return lambda indices, epoch: draw_gaps(indices, seed=seed, epoch=epoch, max_gap=config.views.max_gap)


def _moments(config: ConfigDict) -> Moments:
    return Moments(stack=config.views.stack, max_gap=config.views.max_gap, shared=config.views.shared)


def eval_transform(config: ConfigDict) -> Callable[[Array], Array]:
    """uint8 images [b, h, w, 3] -> normalised evaluation images [b, size, size, 3]; of clips, the first stack."""
    c = config.data
    options = dict(size=c.image_size, resize=c.eval_resize, mean=c.mean, std=c.std)

    def transform(images: Array) -> Array:
        if images.ndim == 5:
            return eval_clips(images, stack=config.views.stack, **options)
        return eval_images(images, **options)

    return transform


# -- Training ------


class Training(NamedTuple):
    """A run's training as pure functions.

    Attributes:
      init: key -> the first state.
      step: (state, store, batch) -> (state, metrics), to be jitted; with k steps per dispatch metrics are [k].
      objective, optimizer, schedules: the pieces of the step.
      steps_per_epoch, total_steps: optimiser steps.
    """

    init: Callable[[Array], TrainState]
    step: Callable[[TrainState, Any, Any], tuple[TrainState, dict[str, Array]]]
    objective: objectives.Objective
    optimizer: optax.GradientTransformation
    schedules: dict[str, optax.Schedule]
    steps_per_epoch: int
    total_steps: int


def build_training(
    config: ConfigDict,
    model: Model,
    num_train: int,
    mesh: Mesh,
    make_objective: MakeObjective = build_objective,
    reads: Reads | None = None,
) -> Training:
    """The training of a config.

    Args:
      config: of the run.
      model: of the config.
      num_train: training images.
      mesh: devices that share a batch.
      make_objective: (config, predictor) -> objective.
      reads: what the step takes from store and batch, see `run.inputs`; views of images on the devices if None.
    """
    steps_per_epoch = num_train // config.train.batch_size
    total = config_lib.total_steps(config, steps_per_epoch)
    objective = make_objective(config, model.predictor)
    schedules = build_schedules(config, steps_per_epoch)
    weight_decay = build_weight_decay(config, steps_per_epoch)
    optimizer = build_optimizer(config, schedules, objective, weight_decay)

    def init(key: Array) -> TrainState:
        params, batch_stats = model.init(key)
        own, carried = objective.first_own(jax.random.fold_in(key, OWN_KEY))
        if objective.init is not None:
            params |= {objective.reads: own}
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            params=params,
            batch_stats=batch_stats,
            opt_state=optimizer.init(params),
            draw=objective.draw(0),
            teacher=_first_teacher(objective, params, batch_stats),
            carried=carried,
        )

    step = make_train_step(
        embed=model.embed,
        reads=reads or Reads(build_views(config, mesh)),
        objective=objective,
        optimizer=optimizer,
        schedule=schedules["encoder"],
        steps_per_epoch=steps_per_epoch,
        total_steps=total,
        accumulation=config.train.accumulation,
        mesh=mesh,
        layers=parts.trunks[config.encoder.trunk].about.get("layers"),
    )
    if config.train.steps_per_dispatch > 1:
        step = several_steps(step)
    return Training(init, step, objective, optimizer, schedules, steps_per_epoch, total)


def _first_teacher(objective: objectives.Objective, params: Any, batch_stats: Any) -> dict[str, Any] | None:
    """A copy of the networks that the objective's teacher averages."""
    if objective.teacher is None:
        return None
    groups = *batch_stats, *objective.teacher.groups  # The encoder, and the projector if there is one.
    return {"params": {name: params[name] for name in groups}, "batch_stats": batch_stats}


def init_key(config: ConfigDict) -> Array:
    return rng.stream(config.seed, "init")
