"""From a config to the objects of a run. The only place where a config's names choose code."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
from jax.sharding import Mesh

from hamjepa_jax import config as config_lib
from hamjepa_jax import nn, objectives, rng
from hamjepa_jax.data import ViewSpec, eval_images, gather, make_views
from hamjepa_jax.training import optimizer as optimizer_lib
from hamjepa_jax.training.state import TrainState
from hamjepa_jax.training.step import make_train_step, several_steps

Array = jax.Array
ConfigDict = ml_collections.ConfigDict


class Model(NamedTuple):
    """The networks of a run as pure functions.

    Attributes:
      init: key -> (params, batch_stats), see `training.state.TrainState`.
      encode: (params, batch_stats, images [n, h, w, 3]) -> (z [n, k], new batch_stats), in training.
      features: (params, batch_stats, images) -> [n, k] float32, frozen, float32 computation, before a projector.
      predictor: see `nn.Predictor`.
    """

    init: Callable[[Array], tuple[Any, Any]]
    encode: Callable[[Any, Any, Array], tuple[Array, Any]]
    features: Callable[[Any, Any, Array], Array]
    predictor: nn.Predictor


def build_model(config: ConfigDict) -> Model:
    encoder, predictor = build_encoder(config), build_predictor(config)
    projector = nn.Projector(config.encoder.projector_dim) if config.encoder.projector == "mlp" else None
    frozen = encoder.clone(dtype=jnp.float32)
    size, dim = config.data.image_size, config_lib.embed_dim(config)

    def init(key: Array) -> tuple[Any, Any]:
        keys = jax.random.split(key, 3)
        variables = {"encoder": encoder.init(keys[0], jnp.zeros((1, size, size, 3)), train=False)}
        if projector is not None:
            variables["projector"] = projector.init(keys[2], jnp.zeros((1, dim)), train=False)
        params = {name: v["params"] for name, v in variables.items()}
        batch_stats = {name: v["batch_stats"] for name, v in variables.items()}
        return params | {"predictor": predictor.init(keys[1], dim // 2)}, batch_stats

    def apply(module, name: str, params: Any, batch_stats: Any, x: Array) -> tuple[Array, Any]:
        variables = {"params": params[name], "batch_stats": batch_stats[name]}
        out, updated = module.apply(variables, x, train=True, mutable=["batch_stats"])
        return out, batch_stats | {name: updated["batch_stats"]}

    def encode(params: Any, batch_stats: Any, images: Array) -> tuple[Array, Any]:
        z, batch_stats = apply(encoder, "encoder", params, batch_stats, images)
        if projector is None:
            return z, batch_stats
        return apply(projector, "projector", params, batch_stats, z)

    def features(params: Any, batch_stats: Any, images: Array) -> Array:
        return frozen.apply(
            {"params": params["encoder"], "batch_stats": batch_stats["encoder"]}, images, train=False
        )

    return Model(init, encode, features, predictor)


def build_encoder(config: ConfigDict) -> nn.TokenEncoder | nn.GlobalEncoder:
    c, dtype = config.encoder, jnp.dtype(config.encoder.dtype)
    if c.mode == "global":
        return nn.GlobalEncoder(c.stem, c.embed_dim, c.width, dtype)
    return nn.TokenEncoder(c.stem, c.token_layer, c.token_hw, c.token_dim, c.split_qp, c.width, dtype)


def build_predictor(config: ConfigDict) -> nn.Predictor:
    c = config.predictor
    if c.kind == "identity":
        return nn.identity_predictor()
    if c.kind == "mlp":
        return nn.mlp_predictor(num_steps=c.num_steps, hidden=c.hidden, depth=c.depth)
    return nn.hamiltonian_predictor(
        energy=c.energy,
        method=c.method,
        step_size=c.step_size,
        num_steps=c.num_steps,
        hidden=c.hidden,
        depth=c.depth,
        base_coeff=c.base_coeff,
        learnable_step_size=c.learnable_step_size,
    )


def residual_scale(config: ConfigDict) -> Callable[[Array | int], Array]:
    """Epoch, counted from 1, -> scale of the learned part of the energy (METHOD's s·min(1, epoch/warm-up))."""
    scale, warmup = config.predictor.residual_scale, config.predictor.residual_warmup_epochs

    def schedule(epoch: Array | int) -> Array:
        epoch = jnp.asarray(epoch, jnp.float32)
        return scale * (jnp.minimum(1.0, epoch / warmup) if warmup else jnp.ones_like(epoch))

    return schedule


def horizon(config: ConfigDict) -> Callable[[Array | int], Array] | None:
    """Epoch, counted from 1, -> steps of the flow that are taken; None without a curriculum: all, always."""
    stages = config.predictor.horizon
    if not stages:
        return None
    first_epochs, steps = np.array(stages, np.int32).T
    return lambda epoch: jnp.where(epoch >= first_epochs, steps, steps[0]).max()


def build_objective(
    config: ConfigDict, predictor: nn.Predictor, seed: int | Array | None = None
) -> objectives.Objective:
    """The objective that config.objective names; `seed` in place of config.seed may be traced."""
    seed = config.seed if seed is None else seed
    name, num_global = config.objective.name, config.views.num_global
    dim = config.encoder.projector_dim if config.encoder.projector == "mlp" else config_lib.embed_dim(config)
    if name == "vicreg":
        return objectives.vicreg(num_global=num_global, **config.objective.vicreg)
    if name in ("lejepa", "hamsigreg"):
        isotropy = dict(config.objective.lejepa, embed_dim=dim, num_global=num_global, seed=seed)
        if _learns_spectrum(config):
            learnable = dict(config.objective.hamsigreg.learnable)
            learnable["shape"] = {**learnable["shape"], **token_grid(config)}
            learnable["penalty"] = dict(learnable["penalty"])
            return objectives.learned_geometry(**isotropy, **learnable, d_f=grid_channels(config))
        transform = fixed_geometry(config) if name == "hamsigreg" else None
        return objectives.lejepa(**isotropy, transform=transform)
    views = num_global + config.views.num_local
    return objectives.hamjepa(
        predictor.flow,
        predictor.energy,
        predictor.potential,
        residual_scale=residual_scale(config),
        half_dim=dim // 2,
        num_states=views * config.train.batch_size // config.train.accumulation,
        num_global=num_global,
        seed=seed,
        horizon=horizon(config),
        **config.objective.hamjepa,
    )


def fixed_geometry(config: ConfigDict) -> Callable[[Array], Array]:
    """Embeddings [..., k] -> H^{1/2} of them, for the kinds of HamSIGReg that learn nothing."""
    kind = config.objective.hamsigreg.kind
    if kind != "chain":
        return lambda z: objectives.ham_transform(z, kind)
    chain = dict(config.objective.hamsigreg.chain)
    if chain["mode"] == "1d":
        return lambda z: objectives.ham_transform(z, kind, **chain)
    chain |= dict(token_grid(config), d_f=grid_channels(config))
    grid_size = chain["h"] * chain["w"] * chain["d_f"]

    def on_grids(z: Array) -> Array:
        grids = z.reshape(*z.shape[:-1], -1, grid_size)
        return objectives.ham_transform(grids, kind, **chain).reshape(z.shape)

    return on_grids


def token_grid(config: ConfigDict) -> dict[str, int]:
    """Rows and columns of the encoder's token grid."""
    side = config_lib.token_grid(config, config.data.image_size)
    return {"h": side, "w": side}


def grid_channels(config: ConfigDict) -> int:
    """Channels of a token that lie together in the embedding: all, or half in each of q and p."""
    return config.encoder.token_dim // (2 if config.encoder.split_qp else 1)


def _learns_spectrum(config: ConfigDict) -> bool:
    return config.objective.name == "hamsigreg" and config.objective.hamsigreg.kind == "learnable"


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


def build_optimizer(config: ConfigDict, schedules: dict[str, optax.Schedule]) -> optax.GradientTransformation:
    c = config.optimizer
    adam = dict(b1=c.b1, b2=c.b2, eps=c.eps)
    separate = {}
    if _learns_spectrum(config):
        separate[objectives.SPECTRUM] = optimizer_lib.adamw_at_intervals(
            c.spectrum_learning_rate, interval=c.spectrum_interval, **adam
        )
    return optimizer_lib.adamw(
        schedules, **adam, weight_decay=c.weight_decay, clip_norm=c.clip_norm, separate=separate
    )


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
    """(images of a `DeviceStore`, example indices [b], epoch) -> the views of each size, [b, v, h, w, 3] each.

    `seed` in place of config.seed may be traced.
    """
    specs = view_specs(config)

    def views(images: Array, indices: Array, epoch: Array) -> tuple[Array, ...]:
        return make_views(
            gather(images, indices, mesh),
            indices,
            seed=config.seed if seed is None else seed,
            epoch=epoch,
            specs=specs,
            mean=config.data.mean,
            std=config.data.std,
        )

    return views


def eval_transform(config: ConfigDict) -> Callable[[Array], Array]:
    """uint8 images [b, h, w, 3] -> normalised evaluation images [b, size, size, 3]."""
    c = config.data
    return lambda images: eval_images(images, size=c.image_size, resize=c.eval_resize, mean=c.mean, std=c.std)


class Training(NamedTuple):
    """What the loop needs: init(key) makes a state, step(state, store, batch) advances it (to be jitted)."""

    init: Callable[[Array], TrainState]
    step: Callable[[TrainState, Any, Any], tuple[TrainState, dict[str, Array]]]
    steps_per_epoch: int
    total_steps: int


def build_training(
    config: ConfigDict,
    model: Model,
    num_train: int,
    mesh: Mesh,
    make_objective: Callable[[ConfigDict, nn.Predictor], objectives.Objective] = build_objective,
    views: Callable[[Any, Any, Array], tuple[Array, ...]] | None = None,
) -> Training:
    """What the loop needs for `num_train` training images.

    Args:
      config: of the run.
      model: of the config.
      num_train: training images.
      mesh: devices that share a batch.
      make_objective: (config, predictor) -> objective.
      views: (store, batch, epoch) -> views, see `inputs.Inputs`; those of images on the devices if None.
    """
    steps_per_epoch = num_train // config.train.batch_size
    objective = make_objective(config, model.predictor)
    schedules = build_schedules(config, steps_per_epoch)
    optimizer = build_optimizer(config, schedules)

    def init(key: Array) -> TrainState:
        params, batch_stats = model.init(key)
        if objective.init is not None:
            params |= {objective.reads: objective.init()}
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            params=params,
            batch_stats=batch_stats,
            opt_state=optimizer.init(params),
            draw=objective.draw(0),
        )

    step = make_train_step(
        encode=model.encode,
        views=views or build_views(config, mesh),
        objective=objective,
        optimizer=optimizer,
        schedule=schedules["encoder"],
        steps_per_epoch=steps_per_epoch,
        accumulation=config.train.accumulation,
        mesh=mesh,
    )
    if config.train.steps_per_dispatch > 1:
        step = several_steps(step)
    return Training(init, step, steps_per_epoch, config_lib.total_steps(config, steps_per_epoch))


def init_key(config: ConfigDict) -> Array:
    return rng.stream(config.seed, "init")
