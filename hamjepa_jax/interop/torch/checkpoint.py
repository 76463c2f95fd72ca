"""Reads a PyTorch checkpoint: weights of an encoder and a predictor, settings, and the architecture they show."""

import itertools
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import ml_collections
import numpy as np

from hamjepa_jax import build, parts
from hamjepa_jax.errors import UserError
from hamjepa_jax.interop.torch.file import Unread
from hamjepa_jax.interop.torch.names import (
    is_global,
    known_names,
    mlp_from_state_dict,
    read_trunk_settings,
    token_norm,
)
from hamjepa_jax.interop.torch.trunks import HEADS, find_trunks, trunk_weights

Arrays = dict[str, np.ndarray]
ConfigDict = ml_collections.ConfigDict
WRAPPERS = ("module.", "_orig_mod.")  # of data-parallel and of compiled models


class Checkpoint(NamedTuple):
    """Attributes:
    encoder: torch name -> array; of a whole encoder, or of a bare trunk.
    predictor: likewise; empty where there is none.
    settings: the run's own config, in any form; {} where there is none.
    epoch: of the checkpoint, if it says.
    is_trunk: whether `encoder` is a bare trunk, named as in torchvision or timm.
    unused: names of the parts that are not read.
    taken: where in the file the weights are; "" if they are the file's "encoder".
    others: where else in the file there are such weights.
    """

    encoder: Arrays
    predictor: Arrays
    settings: Any
    epoch: int | None
    is_trunk: bool
    unused: tuple[str, ...]
    taken: str = ""
    others: tuple[str, ...] = ()


class Architecture(NamedTuple):
    """An encoder's settings beside those of its trunk, named as in config.encoder."""

    mode: str
    token_layer: int | None = None
    token_hw: int | None = None
    token_dim: int | None = None
    token_norm: str | None = None
    embed_dim: int | None = None
    split_qp: bool = True


class PredictorWeights(NamedTuple):
    """A predictor's settings as in config.predictor, and its parameters as `nn.Predictor` has them."""

    kind: str
    energy: str
    hidden: int
    depth: int
    input_size: int
    params: dict


def parse(saved: Any, part: str | None = None) -> Checkpoint:
    """Finds the weights in the object that a file holds.

    Understood are {"encoder": weights, "predictor": weights, "config", "epoch", …} of a HamJEPA run, and an encoder
    or a ResNet trunk anywhere in nested dicts, under any prefix of its names, see `trunks.find_trunks`.

    Args:
      saved: the object.
      part: name of the entry or of the network to take, where there are several; the first one that is no moving
        average if None.

    Raises:
      UserError: if there are no weights in any of these places, or weights that are not finite.
    """
    if not isinstance(saved, dict):
        raise UserError(
            f"the file holds a {_kind(saved)}; expected a dict of weights or of parts of a run, as "
            f"torch.save(model.state_dict(), FILE) writes one."
        )
    if part is None and isinstance(saved.get("encoder"), dict):
        encoder = _arrays(saved["encoder"], '"encoder"')
        predictor = _arrays(saved.get("predictor") or {}, '"predictor"')
        unused = [str(k) for k in saved if k not in ("encoder", "predictor", "config", "epoch")]
        found = find_trunks(encoder)
        if found and found[0].kind not in ("token", "global"):
            encoder = trunk_weights(encoder, found[0])[0]
        checkpoint = Checkpoint(encoder, predictor, saved.get("config") or {}, None, False, tuple(unused))
    else:
        checkpoint = _searched(saved, part)
    _check_numbers(checkpoint.encoder)
    _check_numbers(checkpoint.predictor)
    epoch, encoder = saved.get("epoch"), checkpoint.encoder
    return checkpoint._replace(
        settings=saved.get("config") or {},
        epoch=epoch if type(epoch) is int else None,
        is_trunk=any(names.marks[0] in encoder for names in known_names()) and not encoder.keys() & set(HEADS),
    )


def _searched(saved: dict, part: str | None) -> Checkpoint:
    """The weights of the encoder or trunk that is found in a file's nested dicts."""
    found = find_trunks(saved)
    chosen = [trunk for trunk in found if part is None or trunk.is_called(part)]
    if not chosen:
        there = f"there are {', '.join(t.name for t in found)}" if found else "it has none at all"
        if part is not None:
            raise UserError(f"--part {part}: the file has no encoder or trunk of this name; {there}.")
        weights = next((v for v in saved.values() if isinstance(v, dict) and v), saved)
        raise UserError(
            f"the file has no encoder; the weights found are {_listed(weights)}. Expected a HamJEPA or SIGReg "
            f"encoder, or a ResNet or ViT under any prefix."
        )
    trunk = chosen[0]
    encoder, predictor, left = trunk_weights(saved, trunk)
    beside = [str(k) for k in saved if trunk.place and k not in (trunk.place[0], "config", "epoch")]
    return Checkpoint(
        encoder=encoder,
        predictor=predictor,
        settings={},
        epoch=None,
        is_trunk=False,
        unused=(*beside, *left),
        taken=trunk.name,
        others=tuple(t.name for t in found if t is not trunk),
    )


def _check_numbers(weights: Arrays) -> None:
    for name, value in weights.items():
        if value.dtype.kind in "iub" or not value.size:
            continue
        numbers = np.asarray(value, np.float32)
        if not np.isfinite(numbers).all():
            raise UserError(f"{name}: holds numbers that are not finite, so the run that wrote it had failed.")
        if name.endswith("running_var") and (numbers < 0).any():
            raise UserError(f"{name}: holds a negative variance; the file is damaged or of another kind.")


def read_architecture(checkpoint: Checkpoint, given: Mapping[str, Any], config: ConfigDict) -> Architecture:
    """The encoder's settings from the weights' shapes, the checkpoint's own config, and the user's.

    Args:
      checkpoint: of a whole encoder.
      given: of stem, token_layer, token_hw and split_qp those that the user gave.
      config: of the run, with the trunk's settings.

    Raises:
      UserError: for a setting that can be found nowhere, or that the shapes contradict.
    """
    weights = checkpoint.encoder
    predictor = read_predictor(checkpoint.predictor)
    split = _setting("split_qp", bool, given, checkpoint.settings)
    if split is None and predictor is None:
        raise UserError(
            "--split_qp is missing: whether the state is laid out as [q; p] is not visible in these weights; give "
            "--split_qp=true (all runs with a predictor, and the ImageNet-100 baseline) or --split_qp=false."
        )
    split = True if split is None else split
    if is_global(weights):
        return Architecture("global", embed_dim=weights["fc.weight"].shape[0], split_qp=split)

    projection = _weight(weights, "token_proj.0.weight")
    token_dim = projection.shape[0]
    layer, own = _token_layer(config, projection.shape)
    if layer is not None and _setting("token_layer", int, given, {}) not in (None, layer):
        raise UserError(
            f"--token_layer {given['token_layer']}: token_proj.0.weight {projection.shape} reads layer {layer}."
        )
    if "token_hw" in given:
        side = given["token_hw"]
    elif predictor is not None:  # d = h·w·d_f/2 numbers go into a potential, 2d into the other predictors
        tokens = predictor.input_size * (2 if predictor.energy == "separable" else 1) / token_dim
        side = math.isqrt(int(tokens))
        if side * side != tokens:
            raise UserError(f"the predictor takes {predictor.input_size} numbers, which is no square token grid.")
    else:
        side = _setting("token_hw", int, {}, checkpoint.settings)
        if side is None and not _has_setting("token_hw", checkpoint.settings):
            raise UserError(
                "--token_hw is missing: the pooled token grid is not visible in these weights; give "
                "--token_hw=none for the layer's own grid (published CIFAR-100 runs) or --token_hw=8 (published "
                "ImageNet-100 runs)."
            )
    norm, side = token_norm(weights), None if side == own else side
    return Architecture("token", layer, side, token_dim, norm, split_qp=split)


def _token_layer(config: ConfigDict, projection: tuple[int, ...]) -> tuple[int | None, int]:
    """The token layer whose channels the projection takes, None for a trunk of one map, and its map's side."""
    config = config.copy_and_resolve_references()
    layers = parts.trunks[config.encoder.trunk].settings.get("token_layer")
    for layer in layers.choices if layers else (None,):
        if layer is not None:
            config.encoder.token_layer = layer
        side, _, channels = build.map_shape(config)
        if channels == projection[1]:
            return layer, side
    raise UserError(
        f"token_proj.0.weight {projection}: reads no feature map of a {config.encoder.trunk} like this."
    )


def read_trunk(checkpoint: Checkpoint, given: Mapping[str, Any]) -> dict[str, Any]:
    """{field of config.encoder: value} of a trunk, alone or in an encoder.

    Raises:
      UserError: for a network that does not exist here, and if the stem is another than the one given.
    """
    try:
        found = read_trunk_settings(checkpoint.encoder)
    except ValueError:
        raise UserError(
            f"the encoder has no trunk that can be read; its weights are {_listed(checkpoint.encoder)}. Expected a "
            f"HamJEPA or SIGReg encoder, or a ResNet or ViT of torchvision or timm."
        ) from None
    if given.get("stem") not in (None, found.get("stem")):
        raise UserError(f"--stem {given['stem']}: the weights are those of {found.get('stem', found['trunk'])!r}.")
    return found


def read_predictor(weights: Arrays) -> PredictorWeights | None:
    """The predictor with these weights: a separable or general energy, or the MLP of the ablation.

    Raises:
      UserError: for weights of none of these.
    """
    if not weights:
        return None
    found = {re.sub(r"\d+\.(weight|bias)$", "", name) for name in weights}
    if len(found) != 1 or not all(re.search(r"\d+\.(weight|bias)$", name) for name in weights):
        raise UserError(
            f"the predictor has weights {', '.join(sorted(weights))}; expected the linear layers of one energy or "
            f"MLP, as <prefix><position>.weight and .bias."
        )
    (prefix,) = found
    try:
        params = mlp_from_state_dict(weights, prefix)
    except (KeyError, ValueError) as error:
        raise UserError(f"the predictor's weights under {prefix!r} are incomplete: {error}.") from None
    kernels = [layer["dense"]["kernel"] for layer in params.values()]
    if any(a.shape[1] != b.shape[0] for a, b in itertools.pairwise(kernels)) or len(kernels) < 2:
        raise UserError(f"the predictor's layers {[k.shape for k in kernels]} do not follow on each other.")
    inputs, outputs, hidden = kernels[0].shape[0], kernels[-1].shape[1], kernels[0].shape[1]
    if outputs == 1:
        energy = "separable" if prefix.endswith("residual_V.") else "general"
        return PredictorWeights("hamiltonian", energy, hidden, len(kernels) - 1, inputs, {"mlp": params})
    if outputs == inputs:
        # The energy of an MLP predictor means nothing; it takes the whole state, like a general one.
        return PredictorWeights("mlp", "general", hidden, len(kernels) - 1, inputs, {"mlp": params})
    raise UserError(
        f"the predictor maps {inputs} numbers to {outputs}; it is neither an energy nor an MLP on states."
    )


def find_setting(name: str, settings: Any) -> Iterator[Any]:
    """Values of a name wherever it stands in nested settings, also those of classes left unread."""
    if isinstance(settings, Unread):
        settings = settings.state
    if isinstance(settings, dict):
        if name in settings:
            yield settings[name]
        for value in settings.values():
            yield from find_setting(name, value)


def read_number(name: str, settings: Any) -> float | None:
    """The number that the checkpoint's own config has under a name of config.predictor; None where it has none.

    Raises:
      UserError: if it has several, or something else.
    """
    found = [value for value in find_setting(name, settings) if value is not None]
    if any(isinstance(value, bool) or not isinstance(value, int | float | np.number) for value in found):
        raise UserError(
            f"the checkpoint's config has {name} {found}, which is no number; give --override=predictor.{name}=…."
        )
    values = sorted({float(value) for value in found})
    if len(values) > 1:
        raise UserError(f"the checkpoint's config has {name} {values}; give --override=predictor.{name}=….")
    return values[0] if values else None


def _arrays(weights: Any, where: str) -> Arrays:
    """The weights with the wrappers' prefixes taken off."""
    if not isinstance(weights, dict) or not all(isinstance(v, np.ndarray | np.generic) for v in weights.values()):
        other = (
            [str(k) for k, v in weights.items() if not isinstance(v, np.ndarray)]
            if isinstance(weights, dict)
            else []
        )
        raise UserError(
            f"{where} holds {', '.join(other[:5]) or _kind(weights)}; expected names and tensors alone."
        )
    for prefix in WRAPPERS * 2:
        if weights and all(name.startswith(prefix) for name in weights):
            weights = {name.removeprefix(prefix): value for name, value in weights.items()}
    if weights and all(name.startswith("encoder.") for name in weights):
        weights = {name.removeprefix("encoder."): value for name, value in weights.items()}
    return dict(weights)


def _setting(name: str, kind: type, given: Mapping[str, Any], settings: Any) -> Any:
    if given.get(name) is not None:
        return given[name]
    values = {v for v in find_setting(name, settings) if isinstance(v, kind) and not (kind is int and v is True)}
    if len(values) > 1:
        raise UserError(f"the checkpoint's config has {name} {sorted(values)}; give --{name}.")
    return values.pop() if values else None


def _has_setting(name: str, settings: Any) -> bool:
    return any(True for _ in find_setting(name, settings))


def _weight(weights: Arrays, name: str) -> np.ndarray:
    if name not in weights or (name.endswith("0.weight") and weights[name].ndim != 4):
        raise UserError(
            f"the encoder has no convolution {name!r}; its weights are {_listed(weights)}. Expected a HamJEPA or "
            f"SIGReg encoder, or a ResNet or ViT of torchvision or timm."
        )
    return weights[name]


def _listed(weights: Arrays, most: int = 8) -> str:
    names = sorted(weights)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "") or "none"


def _kind(saved: Any) -> str:
    return saved.name if isinstance(saved, Unread) else type(saved).__name__
