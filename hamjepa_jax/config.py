"""Checks of a run's config before any compute, file arguments, and durations."""

import itertools
import json
import math
import re
import types
from collections.abc import Sequence

import ml_collections
from ml_collections import config_dict

from hamjepa_jax.dynamics import METHODS
from hamjepa_jax.errors import UserError
from hamjepa_jax.evaluation.protocol import TOP_EIGENVALUES, knn_tail
from hamjepa_jax.nn.predictor import ENERGIES
from hamjepa_jax.nn.resnet import STEMS
from hamjepa_jax.objectives.consistency import BOTH_DIRECTIONS, MATCHES
from hamjepa_jax.objectives.hamsigreg import BASES, BINNINGS, CHAIN_MODES, GAUGES, KINDS
from hamjepa_jax.objectives.sigreg import WEIGHTS

ConfigDict = ml_collections.ConfigDict

CHOICES = {
    "data.store": ("device", "host", "stream"),
    "data.loader": ("grain", "tfdata"),
    "encoder.mode": ("token", "global"),
    "encoder.stem": STEMS,
    "encoder.token_layer": (2, 3, 4),
    "encoder.projector": ("identity", "mlp"),
    "encoder.dtype": ("float32", "bfloat16"),
    "predictor.kind": ("hamiltonian", "mlp", "identity"),
    "predictor.energy": ENERGIES,
    "predictor.method": METHODS,
    "objective.name": ("hamjepa", "lejepa", "hamsigreg", "vicreg"),
    "objective.hamjepa.match": MATCHES,
    "objective.hamjepa.both_directions": BOTH_DIRECTIONS,
    "objective.hamjepa.variance_on": ("q", "qp"),
    "objective.lejepa.weight": WEIGHTS,
    "objective.hamsigreg.kind": KINDS,
    "objective.hamsigreg.chain.mode": CHAIN_MODES,
    "objective.hamsigreg.chain.normalize": GAUGES,
    "objective.hamsigreg.learnable.shape.base": BASES,
    "objective.hamsigreg.learnable.shape.gauge": GAUGES,
    "objective.hamsigreg.learnable.shape.binning": BINNINGS,
}
AT_LEAST = {
    "data.num_threads": 1,
    "data.num_workers": 0,
    "data.max_broken_share": 0,
    "data.image_size": 4,
    "views.num_global": 1,
    "views.num_local": 0,
    "views.local_size": 4,
    "views.blur_kernel": 1,
    "views.brightness": 0,
    "views.contrast": 0,
    "views.saturation": 0,
    "encoder.width": 1,
    "encoder.token_dim": 1,
    "encoder.projector_dim": 1,
    "predictor.num_steps": 1,
    "predictor.hidden": 1,
    "predictor.depth": 1,
    "predictor.residual_warmup_epochs": 0,
    "objective.hamjepa.p_weight": 0,
    "objective.hamjepa.energy_weight": 0,
    "objective.hamjepa.budget_weight": 0,
    "objective.hamjepa.q_target": 0,
    "objective.hamjepa.p_target": 0,
    "objective.hamjepa.variance_weight": 0,
    "objective.hamjepa.variance_floor": 0,
    "objective.hamjepa.variance_eps": 0,
    "objective.hamjepa.logdet_weight": 0,
    "objective.hamjepa.logdet_eps": 0,
    "objective.hamjepa.projection_dim": 1,
    "objective.hamjepa.refresh_interval": 1,
    "objective.hamjepa.mean_weight": 0,
    "objective.lejepa.sigreg_weight": 0,
    "objective.lejepa.num_directions": 1,
    "objective.lejepa.num_points": 2,
    "objective.lejepa.refresh_interval": 1,
    "objective.hamsigreg.learnable.bins": 2,
    "objective.hamsigreg.learnable.eps_ridge": 0,
    "objective.hamsigreg.learnable.alpha_ramp": 0,
    "objective.hamsigreg.learnable.beta_ramp": 0,
    "objective.hamsigreg.learnable.adv_mult": 0,
    "objective.hamsigreg.learnable.spectral_weight": 0,
    "objective.hamsigreg.learnable.penalty.cond_weight": 0,
    "objective.hamsigreg.learnable.penalty.curvature_weight": 0,
    "objective.hamsigreg.learnable.penalty.l2_weight": 0,
    "objective.vicreg.invariance_weight": 0,
    "objective.vicreg.variance_weight": 0,
    "objective.vicreg.covariance_weight": 0,
    "objective.vicreg.std_target": 0,
    "objective.vicreg.variance_eps": 0,
    "optimizer.learning_rate": 0,
    "optimizer.weight_decay": 0,
    "optimizer.b1": 0,
    "optimizer.b2": 0,
    "optimizer.eps": 0,
    "optimizer.warmup_start": 0,
    "optimizer.final": 0,
    "optimizer.spectrum_learning_rate": 0,
    "optimizer.spectrum_interval": 1,
    "train.epochs": 1,
    "train.batch_size": 1,
    "train.accumulation": 1,
    "train.steps_per_dispatch": 1,
    "mesh.fsdp": 1,
    "checkpoint.keep_latest": 1,
    "checkpoint.keep_best": 0,
    "evaluate.batch_size": 1,
    "evaluate.probe.epochs": 0,
    "evaluate.probe.batch_size": 1,
    "evaluate.probe.weight_decay": 0,
}
AT_LEAST_OR_NONE = {"encoder.token_hw": 1, "encoder.embed_dim": 1, "optimizer.predictor_learning_rate": 0}
REFERENCES = ("untrained", "pixels")
_ODD = "must be odd; a kernel has a centre"


def parse_arg(arg: str | None, **defaults) -> types.SimpleNamespace:
    """Reads a config file's argument "name=value,name=value" (what follows ":" in --config=FILE:ARG).

    Args:
      arg: the argument, or None.
      **defaults: every name that is understood; a value is read as its default's type.

    Returns:
      The values as attributes.

    Raises:
      UserError: for an unknown name or a value of the wrong type.
    """
    values = dict(defaults)
    for part in filter(None, (arg or "").split(",")):
        name, equals, text = part.partition("=")
        if name not in defaults or not equals:
            known = ", ".join(f"{k}=…" for k in defaults)
            raise UserError(f"config argument {part!r}: this file understands {known}, separated by commas.")
        kind = type(defaults[name])
        try:
            values[name] = kind(text)
        except ValueError:
            raise UserError(f"config argument {part!r}: {name} must be of type {kind.__name__}.") from None
    return types.SimpleNamespace(**values)


def duration_steps(field: str, text: str, *, steps_per_epoch: int, total_steps: int) -> int:
    """ "10 epochs", "500 steps" or "5%" (of the total) as a number of optimiser steps.

    Raises:
      UserError: naming the field, if the text is none of these.
    """
    number, unit = (text[:-1], "%") if text.endswith("%") else text.partition(" ")[::2]
    sizes = {"%": total_steps / 100, "epoch": steps_per_epoch, "epochs": steps_per_epoch, "step": 1, "steps": 1}
    try:
        value = float(number) * sizes[unit]
    except (ValueError, KeyError):
        raise UserError(
            f'{field} {text!r}: write a duration as "10 epochs", "500 steps" or "5%" of the training steps.'
        ) from None
    if not 0 <= value < math.inf:
        raise UserError(f"{field} {text!r}: a duration is finite and not negative.")
    return round(value)


def total_steps(config: ConfigDict, steps_per_epoch: int) -> int:
    """Optimiser steps of the whole run."""
    return config.train.steps if config.train.steps is not None else config.train.epochs * steps_per_epoch


def token_grid(config: ConfigDict, image_size: int) -> int:
    """Side of the token grid that the encoder yields for images of this size."""
    if config.encoder.token_hw is not None:
        return config.encoder.token_hw
    halvings = config.encoder.token_layer - 1 + (2 if config.encoder.stem == "imagenet" else 0)
    side = image_size
    for _ in range(halvings):
        side = -(-side // 2)
    return side


def embed_dim(config: ConfigDict) -> int:
    """Size of the encoder's output for the global views: h·w·token_dim, or encoder.embed_dim in global mode."""
    if config.encoder.mode == "global":
        return config.encoder.embed_dim
    return token_grid(config, config.data.image_size) ** 2 * config.encoder.token_dim


def validate(config: ConfigDict, num_devices: int) -> None:
    """Refuses unknown and impossible settings before any compute.

    Args:
      config: of configs/common.py's form.
      num_devices: devices that share a batch.

    Raises:
      UserError: one sentence with the field, its value and the remedy.
    """
    for field, choices in CHOICES.items():
        value = _get(config, field)
        if value not in choices:
            raise UserError(f"{field} {value!r}: must be one of {', '.join(map(str, choices))}.")
    for field, least in AT_LEAST.items():
        value = _get(config, field)
        if value is None or not least <= value < math.inf:
            raise UserError(f"{field} {value!r}: must be at least {least}{' and finite' * (value == math.inf)}.")
    for field, least in AT_LEAST_OR_NONE.items():
        value = _get(config, field)
        if value is not None and not least <= value < math.inf:
            raise UserError(f"{field} {value!r}: must be a number of at least {least}, or None.")
    _validate_data(config)
    _validate_views(config)
    _validate_encoder(config)
    _validate_method(config)
    _validate_mesh(config, num_devices)
    _validate_training(config, num_devices)


def _validate_data(config: ConfigDict) -> None:
    c = config.data
    if c.loader == "tfdata" and c.num_workers:
        raise UserError(f"data.num_workers {c.num_workers}: data.loader='tfdata' decodes in threads; set it to 0.")
    if c.max_broken_share > 1:
        raise UserError(f"data.max_broken_share {c.max_broken_share}: must be a share between 0 and 1.")
    if not c.memory_budget_gb > 0:
        raise UserError(f"data.memory_budget_gb {c.memory_budget_gb}: must be positive.")
    if c.stored_size is not None and c.stored_size < 4:
        raise UserError(f"data.stored_size {c.stored_size}: the side of the stored squares is at least 4 pixels.")
    if c.eval_resize is not None and c.eval_resize < c.image_size:
        raise UserError(
            f"data.eval_resize {c.eval_resize}: squares of data.image_size {c.image_size} are cut out of images "
            f"whose shorter side this is; make it at least as large, or None."
        )


def _validate_views(config: ConfigDict) -> None:
    views = config.views
    for field in ("flip_prob", "jitter_prob", "grayscale_prob", "blur_prob", "solarize_prob"):
        if not 0 <= views[field] <= 1:
            raise UserError(f"views.{field} {views[field]}: must be a probability between 0 and 1.")
    for field in ("global_scale", "local_scale", "ratio", "blur_sigma"):
        value = views[field]
        if len(value) != 2 or not 0 < value[0] <= value[1]:
            raise UserError(f"views.{field} {value}: must be a pair (low, high) with 0 < low ≤ high.")
    for field in ("global_scale", "local_scale"):
        if views[field][1] > 1:
            raise UserError(f"views.{field} {views[field]}: a crop's share of the image cannot exceed 1.")
    if views.blur_kernel % 2 == 0:
        raise UserError(f"views.blur_kernel {views.blur_kernel}: {_ODD}; use {views.blur_kernel + 1}.")
    sizes = {"data.image_size": config.data.image_size}
    if views.num_local:
        sizes["views.local_size"] = views.local_size
    smallest = min(sizes, key=sizes.get)
    if views.blur_prob and views.blur_kernel // 2 >= sizes[smallest]:
        raise UserError(
            f"views.blur_kernel {views.blur_kernel}: half of it is mirrored at the borders, more than views of "
            f"{smallest} {sizes[smallest]} have; use at most {2 * sizes[smallest] - 1}, or views.blur_prob=0."
        )
    if not 0 <= views.hue <= 0.5:
        raise UserError(f"views.hue {views.hue}: must be between 0 and 0.5 (of a turn).")
    if any(s <= 0 for s in config.data.std) or len(config.data.std) != 3 or len(config.data.mean) != 3:
        raise UserError(
            f"data.mean {config.data.mean}, data.std {config.data.std}: three channels, deviations > 0."
        )


def _validate_encoder(config: ConfigDict) -> None:
    encoder, size = config.encoder, config.data.image_size
    reads_halves = config.objective.name == "hamjepa" or encoder.split_qp
    if encoder.mode == "global":
        if encoder.embed_dim is None:
            raise UserError(
                "encoder.embed_dim is not set: global mode needs it; give --config.encoder.embed_dim=N."
            )
        if reads_halves and encoder.embed_dim % 2:
            raise UserError(f"encoder.embed_dim {encoder.embed_dim}: q and p need an even size.")
        if encoder.token_hw is not None:
            raise UserError(f"encoder.token_hw {encoder.token_hw}: global mode has no tokens; set it to None.")
        return
    if encoder.split_qp and encoder.token_dim % 2:
        raise UserError(
            f"encoder.token_dim {encoder.token_dim}: split_qp halves the channels of a token into q and p; "
            f"make it even or set encoder.split_qp=False."
        )
    side = token_grid(config, size)
    if encoder.embed_dim not in (None, embed_dim(config)):
        raise UserError(
            f"encoder.embed_dim {encoder.embed_dim}: {side}×{side} tokens of {encoder.token_dim} channels make "
            f"{embed_dim(config)}; set it to that or to None."
        )
    if config.views.num_local and token_grid(config, config.views.local_size) != side:
        raise UserError(
            f"views.local_size {config.views.local_size}: local views would have another token grid than the "
            f"{side}×{side} of the global ones; set encoder.token_hw={side} or use encoder.mode='global'."
        )


def _validate_method(config: ConfigDict) -> None:
    name, predictor = config.objective.name, config.predictor
    if config.views.num_global + config.views.num_local < 2:
        raise UserError(
            f"views.num_global {config.views.num_global}: objective.name={name!r} compares views of an image and "
            f"needs two at least; set it to 2."
        )
    if predictor.learnable_step_size:
        raise UserError(
            "predictor.learnable_step_size True: a learned step collapses HamJEPA training, and the other "
            "objectives take no steps; set it to False."
        )
    if name == "hamjepa":
        _validate_hamjepa(config)
        _validate_horizon(config)
        return
    if predictor.kind != "identity":
        raise UserError(
            f"predictor.kind {predictor.kind!r}: objective.name={name!r} compares views directly and has no "
            f"predictor; set predictor.kind='identity'."
        )
    if name in ("lejepa", "hamsigreg"):
        _validate_sigreg(config)
    if name == "hamsigreg":
        _validate_geometry(config)


def _validate_hamjepa(config: ConfigDict) -> None:
    encoder, predictor = config.encoder, config.predictor
    if not encoder.split_qp and encoder.mode == "token":
        raise UserError("encoder.split_qp False: objective.name='hamjepa' reads q and p; set it to True.")
    if encoder.projector != "identity":
        raise UserError(
            f"encoder.projector {encoder.projector!r}: a projector would destroy the reading of the state as "
            f"(q, p); objective.name='hamjepa' needs encoder.projector='identity'."
        )
    if config.objective.hamjepa.energy_weight and predictor.kind != "hamiltonian":
        raise UserError(
            f"objective.hamjepa.energy_weight {config.objective.hamjepa.energy_weight}: predictor.kind="
            f"{predictor.kind!r} has no energy; set it to 0."
        )


def _validate_horizon(config: ConfigDict) -> None:
    stages, num_steps = config.predictor.horizon, config.predictor.num_steps
    if not stages:
        return
    if config.predictor.kind == "identity":
        raise UserError(f"predictor.horizon {stages}: predictor.kind='identity' takes no steps; set it to ().")
    if not all(isinstance(s, tuple) and len(s) == 2 for s in stages):
        raise UserError(
            f"predictor.horizon {stages}: give stages (epoch, steps), as in ((1, 1), (11, {num_steps}))."
        )
    epochs, steps = zip(*stages, strict=True)
    if epochs[0] != 1 or any(a >= b for a, b in itertools.pairwise(epochs)):
        raise UserError(f"predictor.horizon {stages}: the stages' epochs must ascend and begin with 1.")
    if steps[0] < 1 or any(a >= b for a, b in itertools.pairwise(steps)) or steps[-1] != num_steps:
        raise UserError(
            f"predictor.horizon {stages}: the stages' steps must grow, from at least 1 to predictor.num_steps "
            f"{num_steps}, with which the trained map is read."
        )


def _validate_sigreg(config: ConfigDict) -> None:
    settings, size = config.objective.lejepa, config.train.batch_size // config.train.accumulation
    if settings.t_max <= 0:
        raise UserError(f"objective.lejepa.t_max {settings.t_max}: must be positive; 3 with num_points=9 is usual.")
    if settings.subsample is not None and not 1 <= settings.subsample <= size:
        raise UserError(
            f"objective.lejepa.subsample {settings.subsample}: a view has {size} examples in a (micro-)batch; give "
            f"at most that many, or None for all."
        )
    if settings.clip is not None and settings.clip < 0:
        raise UserError(f"objective.lejepa.clip {settings.clip}: statistics are not negative; use None for none.")


def _validate_geometry(config: ConfigDict) -> None:
    settings = config.objective.hamsigreg
    chain, learnable = settings.chain, settings.learnable
    if settings.kind == "chain" and not (chain.kappa > 0 and chain.eps > 0 and 0 <= chain.beta <= 1):
        raise UserError(
            f"objective.hamsigreg.chain kappa {chain.kappa}, eps {chain.eps}, beta {chain.beta}: H would not be "
            f"positive definite; use kappa > 0, eps > 0 and beta in [0, 1]."
        )
    on_grid = settings.kind == "learnable" or (settings.kind == "chain" and chain.mode == "grid")
    if on_grid and (config.encoder.mode != "token" or config.encoder.projector != "identity"):
        raise UserError(
            f"objective.hamsigreg.kind {settings.kind!r}: its geometry is that of the token grid, which "
            f"encoder.mode={config.encoder.mode!r} with encoder.projector={config.encoder.projector!r} does not "
            f"give; use 'token' with 'identity', or kind 'diag', or 'chain' with chain.mode='1d'."
        )
    if on_grid and token_grid(config, config.data.image_size) < 2:
        raise UserError(
            f"objective.hamsigreg.kind {settings.kind!r}: a grid of one token has no neighbours or frequencies; "
            f"use a lower encoder.token_layer or larger images."
        )
    if settings.kind != "learnable":
        return
    if not 0 < learnable.init_loglambda_span < learnable.span_max:
        raise UserError(
            f"objective.hamsigreg.learnable.init_loglambda_span {learnable.init_loglambda_span}: must lie between "
            f"0 and span_max {learnable.span_max}, both excluded."
        )
    shape, penalty = learnable.shape, learnable.penalty
    if not (shape.base_ridge > 0 and shape.base_strength >= 0):
        raise UserError(
            f"objective.hamsigreg.learnable.shape base_ridge {shape.base_ridge}, base_strength "
            f"{shape.base_strength}: H would not be positive definite; use base_ridge > 0 and base_strength ≥ 0."
        )
    if shape.delta_clip is not None and shape.delta_clip <= 0:
        raise UserError(
            f"objective.hamsigreg.learnable.shape.delta_clip {shape.delta_clip}: must be positive, or None for off."
        )
    if penalty.cond_max is not None and penalty.cond_max < 1:
        raise UserError(
            f"objective.hamsigreg.learnable.penalty.cond_max {penalty.cond_max}: a condition number is at least 1; "
            f"use None for off."
        )


def warnings(config: ConfigDict) -> list[str]:
    """What a valid config does that its reader may not expect, in sentences to log once at the start of a run."""
    predictor = config.predictor
    found = []
    explicit = predictor.kind == "hamiltonian" and predictor.energy == "general"
    if config.objective.name == "hamjepa" and explicit:
        found.append(
            f"predictor.energy 'general' is not separable: predictor.method {predictor.method!r} is then neither "
            f"symplectic nor exactly reversible, and the flow need not preserve volume."
        )
    if config.checkpoint.keep_best and config.evaluate.every and not _is_measured_in_training(config):
        given = f"{_readouts(config)[0]}/knn_top1_k{config.evaluate.ks[0]}_{knn_tail()}"
        found.append(
            f"checkpoint.best_metric {config.checkpoint.best_metric!r}: evaluation in training gives no such "
            f"number, and no best checkpoint is kept; set it to one that is given, as {given!r} is."
        )
    return found


def _readouts(config: ConfigDict) -> tuple[str, ...]:
    return ("q", "p", "qp") if config.encoder.split_qp else ("z",)


def _is_measured_in_training(config: ConfigDict) -> bool:
    """Whether checkpoint.best_metric is among the numbers that evaluation gives in training, without the probe."""
    readout, _, what = config.checkpoint.best_metric.partition("/")
    neighbours = re.fullmatch(rf"knn_top[15]_k(\d+)_{knn_tail()}", what)
    geometry = rf"(effective_rank|participation_ratio)_top{TOP_EIGENVALUES}|uniformity"
    geometry += r"|(mean|std|p10|p50|p90|min|max)_(cosine|norm)"
    known = int(neighbours[1]) in config.evaluate.ks if neighbours else re.fullmatch(geometry, what)
    return bool(known) and readout in _readouts(config)


def _validate_mesh(config: ConfigDict, num_devices: int) -> None:
    data, fsdp = config.mesh.data, config.mesh.fsdp
    if num_devices % fsdp:
        fitting = ", ".join(str(n) for n in range(1, num_devices + 1) if num_devices % n == 0)
        raise UserError(f"mesh.fsdp {fsdp}: does not divide the {num_devices} devices; use one of {fitting}.")
    if data not in (None, num_devices // fsdp):
        raise UserError(
            f"mesh.data {data}: with mesh.fsdp={fsdp} the {num_devices} devices make {num_devices // fsdp} groups; "
            f"set it to that or to None."
        )


def _validate_training(config: ConfigDict, num_devices: int) -> None:
    train = config.train
    if train.batch_size % (num_devices * train.accumulation):
        parts = f"{num_devices} devices" + (f" × {train.accumulation} micro-batches" * (train.accumulation > 1))
        step = num_devices * train.accumulation
        nearest = max(step, train.batch_size // step * step)
        raise UserError(f"train.batch_size {train.batch_size}: not divisible by {parts}; use {nearest}.")
    if train.steps is not None and train.steps < 1:
        raise UserError(f"train.steps {train.steps}: must be at least 1, or None to train for train.epochs.")
    if config.optimizer.clip_norm is not None and not config.optimizer.clip_norm > 0:
        raise UserError(f"optimizer.clip_norm {config.optimizer.clip_norm}: must be positive, or None for none.")
    for field in ("b1", "b2"):
        if config.optimizer[field] >= 1:
            raise UserError(f"optimizer.{field} {config.optimizer[field]}: AdamW's averages need less than 1.")
    ks, rates = config.evaluate.ks, config.evaluate.probe.learning_rates
    if not ks or not all(isinstance(k, int) and k >= 1 for k in ks):
        raise UserError(f"evaluate.ks {ks}: give at least one neighbour count, each a whole number of 1 or more.")
    if not rates or not all(0 < rate < math.inf for rate in rates):
        raise UserError(
            f"evaluate.probe.learning_rates {rates}: give at least one, each above 0; "
            f"evaluate.probe.epochs=0 turns it off."
        )
    for name in config.evaluate.references:
        if name not in REFERENCES:
            raise UserError(f"evaluate.references {name!r}: must be among {', '.join(REFERENCES)}.")


def validate_durations(config: ConfigDict, num_train: int) -> None:
    """Refuses what only the size of the training set shows to be impossible.

    Raises:
      UserError: too few images for one batch, a warm-up that is not shorter than training.
    """
    batch_size = config.train.batch_size
    if num_train < batch_size:
        raise UserError(
            f"train.batch_size {batch_size}: data.source {config.data.source!r} has only {num_train} training "
            f"images, too few for one batch; use a batch of at most {num_train}."
        )
    steps_per_epoch = num_train // batch_size
    total = total_steps(config, steps_per_epoch)
    sizes = dict(steps_per_epoch=steps_per_epoch, total_steps=total)
    warmup = duration_steps("optimizer.warmup", config.optimizer.warmup, **sizes)
    if warmup >= total:
        raise UserError(
            f"optimizer.warmup {config.optimizer.warmup!r}: {warmup} steps of warm-up leave nothing of the "
            f"{total} training steps; shorten it or train longer."
        )
    if total % config.train.steps_per_dispatch:
        raise UserError(
            f"train.steps_per_dispatch {config.train.steps_per_dispatch}: does not divide the {total} training "
            f"steps; choose a divisor of them."
        )
    for field in ("log.every", "checkpoint.every", "evaluate.every"):
        every = _get(config, field)
        if field == "evaluate.every" and not every:  # Only at the end.
            continue
        if duration_steps(field, every, **sizes) < 1:
            raise UserError(f"{field} {every!r}: must be at least one step.")


def validate_images(config: ConfigDict, shape: Sequence[int]) -> None:
    """Refuses images in memory that evaluation could not take as they are.

    Args:
      config: of the run.
      shape: (height, width, …) in pixels of the test images, as the source holds them.

    Raises:
      UserError: if they are not squares of data.image_size and are not to be resized.
    """
    size = config.data.image_size
    if config.data.eval_resize is None and tuple(shape[:2]) != (size, size):
        raise UserError(
            f"data.eval_resize None: the images of data.source {config.data.source!r} have {shape[0]}×{shape[1]} "
            f"pixels, not data.image_size {size} a side, for which evaluation needs data.eval_resize={size}."
        )


# Fields that may differ when a run goes on in its workdir: they do not change what is trained. The source's place
# may change too, since its content is compared by fingerprint.
FREE_FIELDS = (
    "log.", "checkpoint.", "evaluate.", "mesh.", "data.source", "data.memory_budget_gb", "data.cache_dir",
    "data.loader", "data.num_threads", "data.num_workers", "data.max_broken_share", "train.steps_per_dispatch",
)  # fmt: skip


def differing_fields(saved: dict, config: ConfigDict) -> list[str]:
    """Lines "field: saved → given" for every field that makes another run of the config than the saved one."""
    old, new = _flatten(saved), _flatten(json.loads(config.to_json_best_effort()))
    names = [k for k in sorted(old | new) if old.get(k) != new.get(k) and not k.startswith(FREE_FIELDS)]
    return [f"{k}: {old.get(k, '(absent)')!r} → {new.get(k, '(absent)')!r}" for k in names]


def set_none(config: ConfigDict, field: str) -> None:
    """Sets a field to None, if it is one that configs/common.py makes optional.

    Args:
      config: of a config file, where optional fields are references.
      field: its dotted path.

    Raises:
      UserError: if there is no such field, or it needs a value.
    """
    _get(config, field)
    path, _, name = field.rpartition(".")
    block = _get(config, path) if path else config
    if not isinstance(dict(block.items(preserve_field_references=True))[name], config_dict.FieldReference):
        raise UserError(f"{field} None: this field needs a value; configs/common.py says which may be None.")
    block[name] = None


def _flatten(tree: dict, prefix: str = "") -> dict:
    flat = {}
    for name, value in tree.items():
        flat |= _flatten(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat


def _get(config: ConfigDict, field: str):
    for part in field.split("."):
        if part not in config:
            raise UserError(f"{field}: this config does not have it, so it was made for another version; set it.")
        config = config[part]
    return config
