"""Vision transformers (Dosovitskiy et al., 2021) as timm's `vit_*`; each size is registered in its own file."""

import re
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.initializers import normal, truncated_normal

from hamjepa_jax.errors import UserError
from hamjepa_jax.nn import sharing
from hamjepa_jax.nn.layers import exact_precision, uniform_fan_in
from hamjepa_jax.nn.torch_names import Shapes, TorchNames
from hamjepa_jax.parts import Values, field, settings

Array = jax.Array

LAYERS = "blocks_"  # Begins the names of the blocks, which `sharing.in_turn` takes.
EPSILON = 1e-6  # of timm's layer normalisations
SIZES = {"vit_tiny": (192, 12, 3), "vit_small": (384, 12, 6), "vit_base": (768, 12, 12)}  # channels, blocks, heads

SETTINGS = settings(
    patch=field(16, "Side of a patch, in pixels.", least=1, most=2**10),
    image_size=field(
        224,
        "Side in pixels of the square images whose patches each have a position embedding of their own; for images "
        "of other sizes it is interpolated.",
        least=1,
        most=2**14,
    ),
    class_token=field(True, "Whether there is a class token beside those of the patches."),
    registers=field(
        0,
        "Number of register tokens. With them the position embedding is of the patches alone, as in timm's reg4 "
        "models; without, also of the class token.",
        least=0,
        most=1024,
    ),
    pool=field(
        "mean",
        "Features in global mode: mean of the patches' tokens, or the class token, after the final norm.",
        choices=("mean", "class"),
    ),
    dim=field(None, "Channels of a token; None: those of the trunk's name.", kind=int, least=1, most=2**14),
    depth=field(None, "Number of blocks; None: that of the trunk's name.", kind=int, least=1, most=1024),
    heads=field(None, "Heads of the attention; None: those of the trunk's name.", kind=int, least=1, most=1024),
)


def vit(name: str, s: Values, *, dtype: Any, whole: bool) -> "ViT":
    """The trunk of these settings.

    Args:
      name: of SIZES, for what the settings leave open.
      s: values of SETTINGS.
      dtype: computation type.
      whole: whether the features of global mode are asked for instead of the patches' tokens.

    Returns:
      module(images [b, h, w, 3], train) -> tokens of the patches [b, h/patch, w/patch, dim] after the final norm;
      where global mode's features are the class token, that one as [b, 1, 1, dim].

    Raises:
      UserError: for settings that contradict each other.
    """
    dim, depth, heads = (given or own for given, own in zip((s.dim, s.depth, s.heads), SIZES[name], strict=True))
    if dim % heads:
        raise UserError(
            f"encoder.vit.heads {heads}: does not divide the {dim} channels of a token; use a divisor of {dim}."
        )
    if s.image_size % s.patch:
        raise UserError(
            f"encoder.vit.image_size {s.image_size}: encoder.vit.patch {s.patch} does not divide it; use "
            f"{max(1, s.image_size // s.patch) * s.patch}."
        )
    if s.pool == "class" and not s.class_token:
        raise UserError("encoder.vit.pool 'class': encoder.vit.class_token is False; set it to True.")
    grid = s.image_size // s.patch
    return ViT(dim, depth, heads, s.patch, grid, s.class_token, s.registers, whole and s.pool == "class", dtype)


class Attention(nn.Module):
    """Multi-head self-attention, with the softmax in float32: [b, t, c] -> [b, t, c]."""

    heads: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Array) -> Array:
        b, t, channels = x.shape
        qkv = dense(3 * channels, self.dtype, "qkv")(x).reshape(b, t, 3, self.heads, channels // self.heads)
        q, k, v = (qkv[:, :, i] for i in range(3))
        precision = exact_precision(self.dtype)
        scores = jnp.einsum("bihd,bjhd->bhij", q, k, precision=precision, preferred_element_type=jnp.float32)
        weights = jax.nn.softmax(scores * q.shape[-1] ** -0.5, axis=-1).astype(self.dtype)
        mixed = jnp.einsum("bhij,bjhd->bihd", weights, v, precision=precision)
        return dense(channels, self.dtype, "proj")(mixed.reshape(b, t, channels))


class Mlp(nn.Module):
    """Linear, exact (erf) GELU, linear, with four times as many hidden channels: [b, t, c] -> [b, t, c]."""

    dtype: Any

    @nn.compact
    def __call__(self, x: Array) -> Array:
        hidden = nn.gelu(dense(4 * x.shape[-1], self.dtype, "fc1")(x), approximate=False)
        return dense(x.shape[-1], self.dtype, "fc2")(hidden)


class Block(nn.Module):
    """Attention and MLP, each after a layer norm and with a residual connection: [b, t, c] -> [b, t, c]."""

    heads: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Array) -> Array:
        x = x + Attention(self.heads, self.dtype, name="attn")(layer_norm(self.dtype, "norm1")(x))
        return x + Mlp(self.dtype, name="mlp")(layer_norm(self.dtype, "norm2")(x))


class PatchEmbed(nn.Module):
    """A linear map of each patch, written as a convolution: [b, h, w, 3] -> [b, h/patch, w/patch, dim]."""

    dim: int
    patch: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Array) -> Array:
        return nn.Conv(
            self.dim,
            (self.patch, self.patch),
            strides=(self.patch, self.patch),
            padding="VALID",
            dtype=self.dtype,
            precision=exact_precision(self.dtype),
            kernel_init=uniform_fan_in,
            name="proj",
        )(x)


class ViT(nn.Module):
    """Images [b, h, w, 3] -> tokens [b, h/patch, w/patch, dim]; parameters are named as in timm, "_3" for ".3".

    With `keep` [n], indices of patches in row-major order, the others are left out: -> their tokens [b, 1, n, dim].

    Attributes:
      dim, depth, heads: channels of a token, blocks, heads of the attention.
      patch: side of a patch, in pixels.
      grid: side of the grid of patches that the position embedding is of.
      class_token: whether there is one.
      registers: number of register tokens.
      gives_class: whether the class token is given, as [b, 1, 1, dim], instead of the patches' tokens.
      dtype: computation type; parameters are float32.
    """

    dim: int
    depth: int
    heads: int
    patch: int
    grid: int
    class_token: bool = True
    registers: int = 0
    gives_class: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, train: bool, keep: Array | None = None) -> Array:
        height, width = x.shape[1:3]
        if height % self.patch or width % self.patch:
            raise UserError(
                f"encoder.vit.patch {self.patch}: does not divide images of {height}×{width} pixels; choose "
                f"data.image_size and views.local_size that it divides."
            )
        x = PatchEmbed(self.dim, self.patch, self.dtype, name="patch_embed")(x.astype(self.dtype))
        b, rows, columns, _ = x.shape
        x, first = self._with_positions(x.reshape(b, rows * columns, self.dim), rows, columns, keep)
        x = self._blocks(x)
        x = layer_norm(self.dtype, "norm")(x)
        if self.gives_class:
            return x[:, :1][:, None]
        return x[:, first:].reshape(b, *((rows, columns) if keep is None else (1, -1)), self.dim)

    def _blocks(self, x: Array) -> Array:
        """The tokens after all blocks; where devices share parameters, a block at a time has its own gathered."""
        blocks = [Block(self.heads, self.dtype, name=f"{LAYERS}{i}") for i in range(self.depth)]
        if self.is_initializing() or sharing.sharing() == 1:
            for block in blocks:
                x = block(x)
            return x
        one = Block(self.heads, self.dtype, parent=None)
        params = [self.variables["params"][block.name] for block in blocks]
        return sharing.in_turn(lambda params, x: one.apply({"params": params}, x), params, x)

    def _with_positions(self, x: Array, rows: int, columns: int, keep: Array | None) -> tuple[Array, int]:
        """The patches' tokens with positions added and the others before them, and the number of these others."""
        before, embedded = [], 0
        if self.class_token:
            before.append(self.param("cls_token", normal(1e-6), (1, 1, self.dim)))
            embedded = int(not self.registers)
        if self.registers:
            before.append(self.param("reg_token", normal(1e-6), (1, self.registers, self.dim)))
        positions = self.param("pos_embed", truncated_normal(0.02), (1, embedded + self.grid**2, self.dim))
        x = x + resampled(positions[:, embedded:], self.grid, rows, columns).astype(self.dtype)
        x = x if keep is None else x[:, keep]
        if not before:
            return x, 0
        tokens = jnp.concatenate(before, axis=1)
        tokens = (tokens + positions[:, :embedded] if embedded else tokens).astype(self.dtype)
        return jnp.concatenate([jnp.broadcast_to(tokens, (x.shape[0], *tokens.shape[1:])), x], 1), tokens.shape[1]


def resampled(positions: Array, grid: int, rows: int, columns: int) -> Array:
    """Position embeddings [1, grid², c] of a square grid as those of another [1, rows·columns, c].

    Bicubic (Keys' kernel, a = −½), with antialiasing: timm's `resample_abs_pos_embed`.
    """
    if (rows, columns) == (grid, grid):
        return positions
    c = positions.shape[-1]
    square = positions.reshape(1, grid, grid, c)
    resized = jax.image.resize(
        square, (1, rows, columns, c), "bicubic", antialias=True, precision=jax.lax.Precision.HIGHEST
    )
    return resized.reshape(1, rows * columns, c)


def dense(features: int, dtype: Any, name: str) -> nn.Dense:
    init = truncated_normal(0.02)
    return nn.Dense(features, dtype=dtype, precision=exact_precision(dtype), kernel_init=init, name=name)


def layer_norm(dtype: Any, name: str) -> nn.LayerNorm:
    """Layer normalisation with statistics in float32."""
    return nn.LayerNorm(epsilon=EPSILON, use_fast_variance=False, dtype=dtype, name=name)


def stage(module: str) -> int | None:
    """The number of a module's block from 1 on, 0 for the embeddings, None after all; see `build`."""
    if module == "norm":
        return None
    return 1 + int(module.removeprefix(LAYERS)) if module.startswith(LAYERS) else 0


def read(shapes: Shapes) -> dict[str, Any]:
    """The settings that timm's names and shapes show; see `TorchNames`. No shape shows the number of heads."""
    dim, _, patch, _ = shapes["patch_embed.proj.weight"]
    depth = 1 + max(int(m[1]) for m in (re.match(r"blocks\.(\d+)\.", name) for name in shapes) if m)
    class_token, registers = "cls_token" in shapes, shapes.get("reg_token", (1, 0))[1]
    if "pos_embed" not in shapes:
        raise UserError("the trunk has no pos_embed; only transformers with a learned position embedding are read.")
    positions = shapes["pos_embed"][1] - (class_token and not registers)
    grid = round(positions**0.5)
    if grid**2 != positions:
        raise UserError(f"pos_embed {shapes['pos_embed']}: is of no square grid of patches.")
    found = {
        "vit.patch": patch,
        "vit.image_size": grid * patch,
        "vit.class_token": class_token,
        "vit.registers": registers,
    }
    for name, size in SIZES.items():
        if size[:2] == (dim, depth):
            return found | {"trunk": name, "vit.dim": None, "vit.depth": None}
    return found | {"trunk": "vit_small", "vit.dim": dim, "vit.depth": depth, "vit.heads": ...}


TORCH = TorchNames(
    modules={},
    marks=("patch_embed.proj.weight", "blocks.0.attn.qkv.weight"),
    weights=r"(cls_token|reg_token|pos_embed)$|(patch_embed|blocks|norm)\.",
    partial=r"(?!)",
    read=read,
)
# Facts of the registrations, see `build`.
ABOUT = {"torch": TORCH, "stage": stage, "masks": True, "layers": LAYERS}
