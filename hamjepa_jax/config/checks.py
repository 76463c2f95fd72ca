"""Checks before any compute, in three stages: settings alone, with the devices, with the images.

`build.check` adds those that need the networks' shapes, and each part's own.
"""

from collections.abc import Sequence

import ml_collections

from hamjepa_jax import metrics, parts
from hamjepa_jax.config.default import block_of, settings_of, values_of
from hamjepa_jax.config.durations import duration_steps, total_steps
from hamjepa_jax.errors import UserError

ConfigDict = ml_collections.ConfigDict


def check_settings(config: ConfigDict) -> None:
    """Refuses unknown and impossible settings.

    Raises:
      UserError: one sentence with the field, its value and the remedy.
    """
    for path, settings in settings_of(config):
        settings.check(block_of(config, path), f"{path}." if path else "")
    _check_data(config)
    _check_views(config)
    _check_encoder(config)
    _check_method(config)


def _check_data(config: ConfigDict) -> None:
    c = config.data
    if c.loader == "tfdata" and c.num_workers:
        raise UserError(f"data.num_workers {c.num_workers}: data.loader='tfdata' decodes in threads; set it to 0.")
    if c.eval_resize is not None and c.eval_resize < c.image_size:
        raise UserError(
            f"data.eval_resize {c.eval_resize}: evaluation cuts squares of data.image_size {c.image_size} out of "
            f"images with this shorter side; make it at least as large, or None."
        )


def _check_views(config: ConfigDict) -> None:
    views = config.views
    for field in ("global_scale", "local_scale", "ratio", "blur_sigma"):
        low, high = views[field]
        if low > high:
            raise UserError(f"views.{field} {views[field]}: must be a pair (low, high) with 0 < low ≤ high.")
    if views.blur_kernel % 2 == 0:
        raise UserError(
            f"views.blur_kernel {views.blur_kernel}: must be odd, so that the kernel has a centre; use "
            f"{views.blur_kernel + 1}."
        )
    sizes = {"data.image_size": config.data.image_size}
    if views.num_local:
        sizes["views.local_size"] = views.local_size
    smallest = min(sizes, key=sizes.get)
    if views.blur_prob and views.blur_kernel // 2 >= sizes[smallest]:
        raise UserError(
            f"views.blur_kernel {views.blur_kernel}: half of it reaches beyond the border, too far for views of "
            f"{smallest} {sizes[smallest]} to be mirrored there; use at most {2 * sizes[smallest] - 1}, or "
            f"views.blur_prob=0."
        )


def _check_encoder(config: ConfigDict) -> None:
    encoder = config.encoder
    parts.trunks[encoder.trunk]  # Refuses an unknown name, with the known ones.
    if encoder.mode == "global":
        if encoder.embed_dim is None:
            raise UserError(
                "encoder.embed_dim is not set: global mode needs it; give --config.encoder.embed_dim=N."
            )
        if (
            encoder.split_qp or parts.objectives[config.objective.name].about["reads_qp"]
        ) and encoder.embed_dim % 2:
            raise UserError(f"encoder.embed_dim {encoder.embed_dim}: q and p need an even size; make it even.")
        if encoder.token_hw is not None:
            raise UserError(f"encoder.token_hw {encoder.token_hw}: global mode has no tokens; set it to None.")
    elif encoder.split_qp and encoder.token_dim % 2:
        raise UserError(
            f"encoder.token_dim {encoder.token_dim}: split_qp halves the channels of a token into q and p; "
            f"make it even or set encoder.split_qp=False."
        )


def _check_method(config: ConfigDict) -> None:
    name, kind, encoder = config.objective.name, config.predictor.kind, config.encoder
    about = parts.objectives[name].about
    if config.views.num_global + config.views.num_local < about.get("least_views", 2):
        raise UserError(
            f"views.num_global {config.views.num_global}: objective.name={name!r} compares views of an image and "
            f"needs two at least; set it to 2."
        )
    size, micro_batches, least = config.train.batch_size, config.train.accumulation, about.get("least_images", 1)
    if size // micro_batches < least:
        raise UserError(
            f"train.batch_size {size}: objective.name={name!r} needs (micro-)batches of {least} or more; with "
            f"train.accumulation {micro_batches} use at least {least * micro_batches}."
        )
    predictor = parts.predictors[kind]
    if kind != "identity" and not about["uses_predictor"]:
        raise UserError(
            f"predictor.kind {kind!r}: objective.name={name!r} compares views directly and has no predictor; set "
            f"predictor.kind='identity'."
        )
    if about["reads_qp"]:
        if not encoder.split_qp and encoder.mode == "token":
            raise UserError(f"encoder.split_qp False: objective.name={name!r} reads q and p; set it to True.")
        if encoder.projector != "identity":
            raise UserError(
                f"encoder.projector {encoder.projector!r}: a projector would mix q and p; objective.name={name!r} "
                f"needs encoder.projector='identity'."
            )
    if config.predictor.horizon and not predictor.about["has_steps"] and about["uses_predictor"]:
        raise UserError(
            f"predictor.horizon {config.predictor.horizon}: predictor.kind={kind!r} takes no steps; set it to ()."
        )
    if config.evaluate.flow and kind == "identity":
        raise UserError(
            f"evaluate.flow {config.evaluate.flow}: predictor.kind='identity' learns no flow to measure; set it to "
            f"0."
        )
    if config.evaluate.lidar.images == 1:
        raise UserError(
            "evaluate.lidar.images 1: LiDAR tells images apart; use more than readouts have coordinates."
        )


def check_devices(config: ConfigDict, num_devices: int) -> None:
    """Refuses a config that these devices cannot train together; evaluation does without this check.

    Args:
      config: of the run.
      num_devices: devices that share a batch.

    Raises:
      UserError: one sentence with the field, its value and the remedy.
    """
    fsdp, train = config.mesh.fsdp, config.train
    if num_devices % fsdp:
        fitting = ", ".join(str(n) for n in range(1, num_devices + 1) if num_devices % n == 0)
        raise UserError(f"mesh.fsdp {fsdp}: does not divide the {num_devices} devices; use one of {fitting}.")
    if train.batch_size % (num_devices * train.accumulation):
        shares = f"{num_devices} device{'s' * (num_devices > 1)}" + (
            f" × {train.accumulation} micro-batches" * (train.accumulation > 1)
        )
        step = num_devices * train.accumulation
        nearest = max(step, train.batch_size // step * step)
        raise UserError(f"train.batch_size {train.batch_size}: not divisible by {shares}; use {nearest}.")


def check_durations(config: ConfigDict, num_train: int) -> None:
    """Refuses batches and durations that do not fit the size of the training set.

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
    if total > parts.LARGEST_INT:
        raise UserError(
            f"train.epochs {config.train.epochs}: makes {total} training steps, more than can be counted "
            f"({parts.LARGEST_INT}); train for fewer."
        )
    sizes = dict(steps_per_epoch=steps_per_epoch, total_steps=total)
    warmup = duration_steps("optimizer.warmup", config.optimizer.warmup, **sizes)
    if warmup >= total:
        raise UserError(
            f"optimizer.warmup {config.optimizer.warmup!r}: {warmup} steps of warm-up are not fewer than "
            f"the {total} training steps; shorten it or train longer."
        )
    if total % config.train.steps_per_dispatch:
        raise UserError(
            f"train.steps_per_dispatch {config.train.steps_per_dispatch}: does not divide the {total} training "
            f"steps; choose a divisor of them."
        )
    for block in ("log", "checkpoint", "evaluate"):
        field, every = f"{block}.every", config[block].every
        if field == "evaluate.every" and not every:  # At the end alone.
            continue
        if duration_steps(field, every, **sizes) < 1:
            raise UserError(f"{field} {every!r}: must be at least one step.")


def check_images(config: ConfigDict, shape: Sequence[int]) -> None:
    """Refuses images in memory that are not of the size that evaluation needs.

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
            f"pixels, not data.image_size {size} a side; evaluation needs data.eval_resize={size} to resize them."
        )


def reads_labels(config: ConfigDict) -> bool:
    """Whether the objective that the config names learns from labels."""
    return parts.objectives[config.objective.name].about.get("reads_labels", False)


def check_labels_read(config: ConfigDict, class_names: Sequence[str]) -> None:
    """Refuses an online probe, or an objective that learns from labels, of images without labels.

    Args:
      config: of the run.
      class_names: of the training images; empty if they have no labels.

    Raises:
      UserError: naming the field; also for an objective that is set for another number of classes.
    """
    if config.evaluate.online_probe.enabled and not class_names:
        raise UserError(
            f"evaluate.online_probe.enabled True: the images of data.source {config.data.source!r} have no "
            f"labels; set it to False."
        )
    if not reads_labels(config):
        return
    part, values = values_of(config, parts.objectives, config.objective.name)
    if not class_names:
        raise UserError(
            f"objective.name {part.name!r}: learns from labels, and the images of data.source "
            f"{config.data.source!r} have none; choose another one of the two."
        )
    classes = getattr(values, "classes", len(class_names))
    if classes != len(class_names):
        raise UserError(
            f"{part.block}.classes {classes}: the images of data.source {config.data.source!r} have "
            f"{len(class_names)} classes; set it to that."
        )


def check_frames(
    config: ConfigDict, num_frames: int | None, *, training: bool = True, part: str = "training"
) -> None:
    """Refuses examples whose frames do not make the views.

    Args:
      config: of the run.
      num_frames: of each example; None if they are images.
      training: False if they are evaluated alone.
      part: "training" or "test", for messages.

    Raises:
      UserError: for stacks or gaps of images, streamed clips, views other than two of one size, short clips, or
        LiDAR of clips.
    """
    c, source = config.views, f"data.source {config.data.source!r}"
    if num_frames is None:
        for field in ("stack", "max_gap") if training else ("stack",):
            if c[field] != 1:
                remedy = "set it to 1" if training else "choose one with clips"
                raise UserError(f"views.{field} {c[field]}: {source} has images and no clips; {remedy}.")
        return
    if config.evaluate.lidar.images:
        raise UserError(
            f"evaluate.lidar.images {config.evaluate.lidar.images}: LiDAR takes random views of images, and "
            f"{source} has clips; set it to 0."
        )
    have = f"the {part} clips of {source} have {num_frames} frame{'s' * (num_frames != 1)}"
    if num_frames < c.stack:
        raise UserError(f"views.stack {c.stack}: {have}; use at most that.")
    if not training:
        return
    if config.data.store == "stream":
        raise UserError("data.store 'stream': clips are not streamed; use 'device' or 'host'.")
    if (c.num_global, c.num_local) != (2, 0):
        raise UserError(
            f"views.num_global {c.num_global}, views.num_local {c.num_local}: clips have two global views, the "
            f"earlier and the later one; set them to 2 and 0."
        )
    longest = num_frames - c.stack
    if not longest:
        remedy = f"use at most {num_frames - 1}, or longer clips" if num_frames > 1 else "use longer clips"
        raise UserError(f"views.stack {c.stack}: {have}, and none is left for a later view; {remedy}.")
    if c.max_gap > longest:
        raise UserError(
            f"views.max_gap {c.max_gap}: {have}, and a view has views.stack {c.stack}; use at most {longest}, or "
            f"longer clips."
        )


def warnings(config: ConfigDict, *, labelled: bool = True) -> list[str]:
    """Sentences to log once at the start of a run, about effects of a valid config that may surprise.

    Args:
      config: of the run.
      labelled: whether the images that are evaluated have labels.
    """
    found = []
    predictor, values = values_of(config, parts.predictors, config.predictor.kind)
    if "warnings" in predictor.about and parts.objectives[config.objective.name].about["uses_predictor"]:
        found += predictor.about["warnings"](values)
    best = config.checkpoint.best_metric
    given, of_probes = _given_in_training(config, labelled)
    one = given[0] if labelled else next(key for key in given if key.endswith("/rankme"))
    known = best in given or best.partition("/")[2] in of_probes
    if config.checkpoint.keep_best and config.evaluate.every and not known:
        found.append(
            f"checkpoint.best_metric {best!r}: evaluation in training gives no such number, so no best checkpoint "
            f"is kept; set it to one of its numbers, such as {one!r}."
        )
    online = config.evaluate.online_probe
    if online.enabled and not config.evaluate.every and not online.log:
        found.append(
            "evaluate.online_probe.enabled True: with evaluate.every='' its accuracy is never measured; give "
            "evaluate.every a time, or set evaluate.online_probe.log=True."
        )
    return found


def _given_in_training(config: ConfigDict, labelled: bool) -> tuple[list[str], list[str]]:
    """Keys of the numbers of an evaluation in training: of the run's own images, and of each of evaluate.probes.

    The latter have the name of their source in front.
    """
    c, readouts = config.evaluate, ("q", "p", "qp") if config.encoder.split_qp else ("z",)
    lidar = (c.lidar.images, c.lidar.views) if c.lidar.images else None
    own = metrics.Protocol(ks=c.ks if labelled else (), probe=None, lidar=lidar)
    others = metrics.Protocol(ks=c.ks, probe=None)
    given, of_probes = (metrics.expected_keys(asked, readouts, plugins=config.plugins) for asked in (own, others))
    online = [f"{readout}/online_probe_top1" for readout in readouts] if c.online_probe.enabled else []
    return given + online, of_probes if c.probes else []
