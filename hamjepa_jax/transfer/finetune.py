"""Fine-tuning: the encoder of a run trained on with a linear layer for other images' classes, by the usual loop."""

import pathlib
from collections.abc import Mapping
from typing import NamedTuple

import jax
import numpy as np

from hamjepa_jax import parts
from hamjepa_jax.data import Source, frames_of, is_encoded
from hamjepa_jax.errors import UserError
from hamjepa_jax.evaluate import Evaluator, for_images
from hamjepa_jax.objectives.classification import GROUP, class_scores
from hamjepa_jax.run.restore import Run, load_run, open_checkpoints
from hamjepa_jax.run.setup import set_up
from hamjepa_jax.train import train

BATCH, LEAST_STEPS = 64, 100
PLAIN = ("jitter_prob", "grayscale_prob", "blur_prob", "solarize_prob")  # Left out: random crops and flips remain.
WEIGHT_DECAY, CROPS = 0.05, (0.25, 1.0)


class Recipe(NamedTuple):
    """Attributes:
    epochs: passes over the labelled images; more of them where these would make fewer than LEAST_STEPS steps.
    learning_rate: peak of AdamW's, of the linear layer.
    layer_decay: factor of the learning rate from a block of the trunk to the one before.
    """

    epochs: int
    learning_rate: float
    layer_decay: float


def finetune(
    run: Run, source: Source, spec: str, recipe: Recipe, *, seed: int, workdir: pathlib.Path
) -> float | None:
    """Top-1 accuracy on the test images of the encoder trained on from the run's weights.

    Args:
      run: with the weights to begin from.
      source: labelled images, those of the training split to learn from.
      spec: of the source, as data.source.
      recipe: of the training.
      seed: of the training.
      workdir: of it; a run that was begun there goes on.

    Returns:
      The accuracy after the last step; None if a signal asked to stop.

    Raises:
      UserError: if the run cannot be fine-tuned, or the training fails.
    """
    config = _config(run, source, spec, recipe, seed)
    _begin(run, config, source, workdir)
    if train(config, workdir, source=source) is None:
        return None
    tuned = load_run(workdir, images=source)
    head = jax.device_get(tuned.state.params[GROUP])
    z = Evaluator(tuned.config, tuned.model, source, tuned.mesh).features(tuned.state)[1]
    return float(np.mean(np.argmax(class_scores(head, z), axis=1) == source.test.labels))


def check_recipe(config, recipe: Recipe) -> None:
    """Refuses rates that fall along a trunk whose order is not known.

    Args:
      config: of the run.
      recipe: of the fine-tuning.

    Raises:
      UserError: naming the flag.
    """
    trunk = config.encoder.trunk
    if recipe.layer_decay != 1 and parts.trunks[trunk].about.get("stage") is None:
        raise UserError(
            f"--layer_decay {recipe.layer_decay:g}: encoder.trunk={trunk!r} states no order of its modules "
            f"(stage=…); give --layer_decay=1."
        )


def check_images_alone(config, sources: Mapping[str, Source]) -> None:
    """Refuses clips, which are evaluated only.

    Args:
      config: of the run.
      sources: by the names that the user gave.

    Raises:
      UserError: if the run or a source has clips.
    """
    if config.views.stack > 1:
        raise UserError(
            f"--finetune: the run's views are stacks of {config.views.stack} frames; give a run of images."
        )
    for name, source in sources.items():
        if frames_of(source.train) is not None:
            raise UserError(f"--finetune: --sources {name} has clips; give images, or leave the flag out.")


def _begin(run: Run, config, source: Source, workdir: pathlib.Path) -> None:
    """Saves the state that training begins with, the run's encoder in it, as the checkpoint of step 0."""
    with open_checkpoints(config, workdir, read_only=False) as checkpoints:
        if checkpoints.steps():
            return
        setup = set_up(config, source=source)
        given, state = run.state.evaluated(teacher=run.config.evaluate.teacher), setup.init()
        changed = {
            name: getattr(state, name) | {"encoder": given[name]["encoder"]} for name in ("params", "batch_stats")
        }
        placed = jax.tree.map(lambda x, like: jax.device_put(x, like.sharding), state.replace(**changed), state)
        checkpoints.save(0, placed, {})
        checkpoints.wait()


def _config(run: Run, source: Source, spec: str, recipe: Recipe, seed: int):
    """The config of the fine-tuning: the run's encoder and images as it has them, everything else its own."""
    config, n = for_images(run.config, source, spec), len(source.train)
    size = min(BATCH, n) // jax.device_count() * jax.device_count()
    if not size:
        raise UserError(
            f"--finetune: {n} training images are fewer than the {jax.device_count()} devices that share a batch; "
            f"give more labels (--shots) or use fewer devices."
        )
    steps = max(recipe.epochs * (n // size), LEAST_STEPS)
    config.seed, config.mesh.fsdp = seed, 1
    config.data.store, config.data.loader = "stream" if is_encoded(source.train) else "device", "grain"
    config.views.num_global, config.views.num_local, config.views.global_scale = 1, 0, CROPS
    for name in PLAIN:
        config.views[name] = 0.0
    config.objective.name, config.objective.classification.classes = "classification", len(source.train.class_names)
    config.encoder.projector, config.predictor.kind, config.predictor.horizon = "identity", "identity", ()
    config.optimizer.update(
        name="adamw", learning_rate=recipe.learning_rate, layer_decay=recipe.layer_decay, clip_norm=1.0,
        weight_decay=WEIGHT_DECAY, decay_mask=True, warmup=f"{steps // 10} steps",
    )  # fmt: skip
    config.train.update(steps=steps, batch_size=size, accumulation=1, steps_per_dispatch=1)
    config.log.trackers, config.log.every = (), f"{max(steps // 10, 1)} steps"
    config.checkpoint.update(every=f"{max(steps // 5, 1)} steps", keep_latest=1, keep_best=0)
    config.evaluate.update(every="", ks=(1,), references=(), flow=0, teacher=False, source=None, probes=())
    config.evaluate.probe.epochs = config.evaluate.lidar.images = 0
    config.evaluate.online_probe.enabled = False
    return config
