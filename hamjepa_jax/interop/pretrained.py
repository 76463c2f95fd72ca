"""Trained encoders for use: images of any number, size and type in, states out."""

import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from hamjepa_jax import build, files
from hamjepa_jax.cli.terminal import without_orbax_warnings
from hamjepa_jax.data import eval_images
from hamjepa_jax.errors import UserError
from hamjepa_jax.evaluation import readouts
from hamjepa_jax.interop import hub
from hamjepa_jax.interop.exported import is_export, read_export
from hamjepa_jax.interop.images import as_arrays, check_images, refuse_stacks
from hamjepa_jax.interop.workdirs import Networks, read_networks
from hamjepa_jax.run.workdir import saved_config

Array = jax.Array
ConfigDict = ml_collections.ConfigDict
LARGEST_BATCH = 256  # images at once; more are done in pieces


class States(NamedTuple):
    """States that an encoder gives n images.

    Attributes:
      z: [n, K] states, float32; [q; p] where the state is split.
      q: [n, K/2] positions; None without the split.
      p: [n, K/2] momenta; likewise.
      tokens: [n, h, w, channels] the token grid that z is laid out from; None for a global encoder.
    """

    z: Array
    q: Array | None
    p: Array | None
    tokens: Array | None


class PretrainedEncoder:
    """A trained encoder: encoder(images) -> States.

    Attributes:
      config: of the run.
      step: of the checkpoint.
      params: weights of all networks, see `training.state.TrainState`.
      batch_stats: their running statistics.
    """

    def __init__(self, config: ConfigDict, networks: Networks):
        self.config, self.step = config, networks.step
        self.params, self.batch_stats = networks.params, networks.batch_stats
        model = build.build_model(config)
        self._predictor = model.predictor
        self._encode = jax.jit(lambda v, images: model.features(v[0], v[1], prepare(config, images)))

    def __call__(self, images: Array | np.ndarray | Sequence[Any]) -> States:
        """Encodes images with running batch statistics, in float32.

        One program is compiled for each size of the images and each power of two up to 256 that their number is
        padded to.

        A function of arrays as any other in JAX: it can be traced by jit, vmap, grad and eval_shape. Bytes are
        resized in whole levels, as in evaluation. Floats are not rounded: gradients with respect to them are real,
        and their states may differ by a rounding error of the levels from those of the same images in bytes.

        Args:
          images: [n, h, w, 3] uint8, or float in [0, 1], not normalised; or a sequence of [h, w, 3] or of Pillow's
            images, which may differ in size. PyTorch's tensors are read too. Other sizes than the encoder was
            trained for are resized (shorter side, antialiased bilinear) and cut to the central square, by the run's
            evaluation settings; where data.eval_resize is set, all sizes are.

        Raises:
          ValueError: for images of another form.
        """
        arrays = as_arrays(images)
        return self._states(
            self._of_different_sizes(arrays) if isinstance(arrays, list) else self._of_one_size(arrays)
        )

    def predict(self, states: States | Array, direction: int = 1) -> Array:
        """The state [n, K] that the learned predictor expects of another view: its flow applied to z.

        The flow has its whole residual and all its steps, as after warm-up and curriculum, also for a checkpoint of
        an earlier epoch; `restore.trained_flow` is the one of the checkpoint's own epoch.

        Args:
          states: of a call, or z alone.
          direction: 1, or −1 for backwards in time.

        Raises:
          ValueError: for states of another size, or another direction.
        """
        z, size = states.z if isinstance(states, States) else jnp.asarray(states), build.embed_dim(self.config)
        if z.shape[-1:] != (size,):
            raise ValueError(f"expected states [..., {size}], got shape {z.shape}.")
        if direction not in (1, -1):
            raise ValueError(f"direction must be 1 or -1, got {direction!r}.")
        return self._predictor.flow(self.params["predictor"], z, direction, self.config.predictor.residual_scale)

    def _of_one_size(self, images: Array | np.ndarray) -> Array:
        check_images(images)
        pieces = []
        for start in range(0, images.shape[0], LARGEST_BATCH):
            piece = images[start : start + LARGEST_BATCH]
            count = piece.shape[0]
            missing = (1 << (count - 1).bit_length()) - count
            xp = jnp if isinstance(piece, jax.Array) else np
            padded = xp.concatenate([piece, xp.repeat(piece[-1:], missing, axis=0)]) if missing else piece
            pieces.append(self._encode((self.params, self.batch_stats), padded)[:count])
        return jnp.concatenate(pieces)

    def _of_different_sizes(self, images: list[Array | np.ndarray]) -> Array:
        xp = jnp if any(isinstance(image, jax.Array) for image in images) else np
        by_kind: dict[tuple, list[int]] = {}
        for i, image in enumerate(images):
            by_kind.setdefault((image.shape, image.dtype), []).append(i)
        z = [self._of_one_size(xp.stack([images[i] for i in rows])) for rows in by_kind.values()]
        order = np.argsort(np.concatenate([*by_kind.values()]))
        return jnp.concatenate(z)[order]

    def _states(self, z: Array) -> States:
        c = self.config.encoder
        parts = readouts(z, split=c.split_qp)
        q, p = parts.get("q"), parts.get("p")
        if c.mode == "global":
            return States(z, q, p, None)
        grid = build.token_grid(self.config)
        halves = [x.reshape(z.shape[0], *grid, -1) for x in ((q, p) if c.split_qp else (z,))]
        return States(z, q, p, jnp.concatenate(halves, axis=-1))


def load(path: str | pathlib.Path, *, step: int | None = None) -> PretrainedEncoder:
    """The encoder of a workdir or of an export; the images it was trained on are not needed.

    Args:
      path: folder of a run, or of an export of `python -m hamjepa_jax.interop.export`; or an export on the Hugging
        Face hub, "hf://owner/name" or "hf://owner/name@revision" (extra hub).
      step: the checkpoint of a workdir; the newest readable one if None.

    Raises:
      UserError: if the folder is neither, its weights cannot be read, or the hub does not give it.
    """
    if hub.is_address(path):
        path = hub.fetch(str(path))
    path = files.user_path(path, "path")
    if is_export(path):
        if step is not None:
            raise UserError(f"{path}: an exported folder has one step only; load it without step={step}.")
        return PretrainedEncoder(*read_export(path))
    with without_orbax_warnings():
        config = saved_config(path)
        refuse_stacks(config.views.stack, path)
        return PretrainedEncoder(config, read_networks(path, step))


def prepare(config: ConfigDict, images: Array) -> Array:
    """Images [n, h, w, 3], uint8 or float in [0, 1] -> [n, size, size, 3], as the run evaluates them."""
    c, size = config.data, config.data.image_size
    as_they_are = c.eval_resize is None and images.shape[1:3] == (size, size)
    resize = None if as_they_are else c.eval_resize or size
    return eval_images(images, size=size, resize=resize, mean=c.mean, std=c.std)


def stablehlo_function(config: ConfigDict, networks: Networks) -> Callable[[Array], Array]:
    """Images [n, size, size, 3], float32 in [0, 1], to z [n, K]: what `PretrainedEncoder` makes of them.

    The weights are constants of the function.
    """
    model = build.build_model(config)
    return lambda images: model.features(networks.params, networks.batch_stats, prepare(config, images))
