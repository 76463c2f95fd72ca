"""Weights named and laid out as in the published PyTorch models, to Flax variables and back (NumPy only)."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from hamjepa_jax.nn.encoder import GlobalEncoder, TokenEncoder

State = Mapping[str, Any]


def encoder_from_state_dict(
    state_dict: State, *, stem: str, token_layer: int | None, token_hw: int | None, split_qp: bool
) -> tuple[TokenEncoder | GlobalEncoder, dict]:
    """An encoder module and its variables from torch-named weights.

    Args:
      state_dict: name -> array (torch layout, NumPy or anything np.asarray takes). Names are those of a token
        encoder (stem.0, stem.1, layerL.B.conv1, …, token_proj.0, token_proj.1) or of a global one (backbone.0,
        backbone.1, backbone.4 … backbone.7, fc). Layers behind `token_layer` are ignored.
      stem: "cifar" or "imagenet"; not visible in the names.
      token_layer: 2, 3 or 4; ignored (may be None) for a global encoder.
      token_hw: side of the token grid, None for the layer's own; ignored for a global encoder.
      split_qp: whether the state is laid out as [q; p]; ignored for a global encoder.

    Returns:
      (module, variables) with `module.apply(variables, images_nhwc, train=False) -> [b, K]`.

    Raises:
      ValueError: naming the missing or unexpected weights.
    """
    if any(name.startswith("backbone.") for name in state_dict):
        names = {_GLOBAL_NAMES.sub(_torch_trunk_name, name): value for name, value in state_dict.items()}
        width, embed_dim = _size(names, "stem.0.weight"), _size(names, "fc.weight")
        module, last_layer = GlobalEncoder(stem, embed_dim, width), 4
    else:
        names = dict(state_dict)
        width, token_dim = _size(names, "stem.0.weight"), _size(names, "token_proj.0.weight")
        module, last_layer = TokenEncoder(stem, token_layer, token_hw, token_dim, split_qp, width), token_layer
    return module, _variables(names, last_layer)


def mlp_from_state_dict(state_dict: State, prefix: str) -> dict:
    """Parameters of `nn.MLP` from a torch Sequential of linear layers at even positions under `prefix`.

    For a potential the prefix is "residual_V." (separable energy) or "residual." (general energy).

    Raises:
      ValueError: if no weight has the prefix.
    """
    pattern = re.compile(re.escape(prefix) + r"(\d+)\.weight")
    positions = sorted(int(m.group(1)) for m in map(pattern.fullmatch, state_dict) if m)
    if not positions:
        raise ValueError(f"no weight is named {prefix}<number>.weight; got {', '.join(sorted(state_dict))}.")
    names = [f"hidden{i}" for i in range(len(positions) - 1)] + ["output"]
    return {
        name: {"dense": _linear(state_dict, f"{prefix}{position}")}
        for name, position in zip(names, positions, strict=True)
    }


_GLOBAL_NAMES = re.compile(r"^backbone\.(\d+)\.")
_LAYER_NAME = re.compile(r"layer(\d)\.(\d)\.(\w+)(?:\.(\d))?\.(\w+)")
_BATCH_NORM = {  # torch's name -> (collection, ours)
    "weight": ("params", "scale"),
    "bias": ("params", "bias"),
    "running_mean": ("batch_stats", "mean"),
    "running_var": ("batch_stats", "var"),
}


def _torch_trunk_name(match: re.Match) -> str:
    """Position in the global encoder's Sequential -> the token encoder's name of the same module."""
    position = int(match.group(1))
    return f"stem.{position}." if position < 2 else f"layer{position - 3}."


def _size(names: State, name: str) -> int:
    if name not in names:
        raise ValueError(f"the state dict has no {name!r}; it is not one of this encoder's.")
    return np.asarray(names[name]).shape[0]


def _variables(names: State, last_layer: int) -> dict:
    variables: dict = {"params": {}, "batch_stats": {}}
    unexpected = []
    for name, value in names.items():
        if name.endswith("num_batches_tracked"):
            continue
        path = _module_path(name)
        if path is None:
            unexpected.append(name)
        elif not (path[0] == "trunk" and path[1].startswith("layer") and int(path[1][5]) > last_layer):
            _put(variables, path, name.rsplit(".", 1)[1], np.asarray(value))
    if unexpected:
        raise ValueError(f"unexpected weights in the state dict: {', '.join(sorted(unexpected))}.")
    return variables


def _module_path(name: str) -> tuple[str, ...] | None:
    """The Flax path of the module that a torch weight belongs to; None for an unknown name."""
    fixed = {
        "stem.0": ("trunk", "stem_conv"),
        "stem.1": ("trunk", "stem_bn"),
        "token_proj.0": ("token_conv",),
        "token_proj.1": ("token_bn",),
        "fc": ("fc", "dense"),
    }
    module = name.rsplit(".", 1)[0]
    if module in fixed:
        return fixed[module]
    match = _LAYER_NAME.fullmatch(name)
    if not match:
        return None
    layer, block, part, position, _ = match.groups()
    if part == "downsample":
        part = "downsample_conv" if position == "0" else "downsample_bn"
    return ("trunk", f"layer{layer}_{block}", part)


def _put(variables: dict, path: tuple[str, ...], leaf: str, value: np.ndarray) -> None:
    if path[-1].endswith("conv") or path[-1].startswith("conv"):
        collection, leaf, value = "params", "kernel", value.transpose(2, 3, 1, 0)
    elif path[-1] == "dense":
        collection, leaf, value = "params", *(("kernel", value.T) if leaf == "weight" else ("bias", value))
    else:
        collection, leaf = _BATCH_NORM[leaf]
    node = variables[collection]
    for part in path:
        node = node.setdefault(part, {})
    node[leaf] = value


def _linear(state_dict: State, name: str) -> dict:
    return {"kernel": np.asarray(state_dict[f"{name}.weight"]).T, "bias": np.asarray(state_dict[f"{name}.bias"])}
