"""Weights named and laid out as in the published PyTorch models, to Flax variables and back (NumPy only)."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hamjepa_jax.nn.encoder import GlobalEncoder, TokenEncoder
from hamjepa_jax.nn.trunks import ResNet18

State = Mapping[str, Any]
MODULES = {  # torch's name -> Flax path
    "stem.0": ("trunk", "stem_conv"),
    "stem.1": ("trunk", "stem_bn"),
    "token_proj.0": ("token_conv",),
    "token_proj.1": ("token_bn",),
    "fc": ("fc", "dense"),
}
BATCH_NORM = {  # torch's name -> (collection, ours)
    "weight": ("params", "scale"),
    "bias": ("params", "bias"),
    "running_mean": ("batch_stats", "mean"),
    "running_var": ("batch_stats", "var"),
}
COUNTER = "num_batches_tracked"  # of torch's batch normalisation; not used with a fixed momentum


def encoder_from_state_dict(
    state_dict: State, *, stem: str, token_layer: int | None, token_hw: int | None, split_qp: bool
) -> tuple[TokenEncoder | GlobalEncoder, dict]:
    """An encoder module and its variables from torch-named weights.

    Args:
      state_dict: name -> array (torch layout, NumPy or anything np.asarray takes). Names are those of a token
        encoder (stem.0, stem.1, layerL.B.conv1, …, token_proj.0, token_proj.1) or of a global one (backbone.0,
        backbone.1, backbone.4 … backbone.7, fc). Layers after `token_layer` are ignored.
      stem: "cifar" or "imagenet"; not visible in the names.
      token_layer: 2, 3 or 4; ignored (may be None) for a global encoder.
      token_hw: side of the token grid, None for the layer's own; ignored for a global encoder.
      split_qp: whether the state is laid out as [q; p]; ignored for a global encoder.

    Returns:
      (module, variables) with `module.apply(variables, images_nhwc, train=False) -> [b, K]`.

    Raises:
      ValueError: naming the missing or unexpected weights, or those of another shape.
    """
    if is_global(state_dict):
        names = {_GLOBAL_NAMES.sub(_torch_trunk_name, name): value for name, value in state_dict.items()}
        width, embed_dim = _size(names, "stem.0.weight"), _size(names, "fc.weight")
        last_layer = 4
        module = GlobalEncoder(ResNet18(stem, last_layer, width), embed_dim)
    else:
        names = dict(state_dict)
        width, token_dim = _size(names, "stem.0.weight"), _size(names, "token_proj.0.weight")
        last_layer = token_layer
        module = TokenEncoder(ResNet18(stem, last_layer, width), token_hw, token_dim, split_qp)
    variables = _variables(names, last_layer)
    check_shapes(variables, _abstract(module))
    return module, variables


def state_dict_from_encoder(variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Torch-named weights of an encoder, the inverse of `encoder_from_state_dict`, bit for bit.

    Args:
      variables: {"params", "batch_stats"} of a `TokenEncoder` or `GlobalEncoder`.

    Returns:
      name -> array in torch's layout, with a zero "num_batches_tracked" for each batch normalisation, as torch's
      strict loading wants it. Layers after the token layer are not there.
    """
    is_global_encoder = "fc" in variables["params"]
    state_dict = {}
    for path, kind, leaf, value in _leaves(variables):
        module = _torch_name(path)
        if is_global_encoder:
            module = _torch_backbone_name(module)
        state_dict[f"{module}.{_torch_leaf(kind, leaf)}"] = _to_torch(leaf, np.asarray(value))
        if leaf == "scale":
            state_dict[f"{module}.{COUNTER}"] = np.zeros((), np.int64)
    return state_dict


def from_classifier(state_dict: State, *, is_global: bool) -> dict[str, Any]:
    """A ResNet-18 classifier's weights, named as torchvision and timm do, under our encoders' torch names.

    Args:
      state_dict: conv1, bn1, layerL.B.conv1, …; the classifier's own layer, fc, is left out.
      is_global: whether to name them as in a global encoder.
    """
    renamed = {}
    for name, value in state_dict.items():
        if not name.startswith("fc."):
            name = re.sub(r"^(conv1|bn1)\.", lambda m: f"stem.{int(m[1] == 'bn1')}.", name)
            renamed[_torch_backbone_name(name) if is_global else name] = value
    return renamed


def is_after(name: str, token_layer: int | None) -> bool:
    """Whether a weight belongs to a layer after the token layer, which does not exist here."""
    layer = re.match(r"layer(\d)\.", name)
    return bool(layer) and token_layer is not None and token_layer < int(layer[1]) <= 4


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


def state_dict_from_mlp(params: Mapping[str, Any], prefix: str) -> dict[str, np.ndarray]:
    """The inverse of `mlp_from_state_dict`, bit for bit."""
    state_dict = {}
    layers = [f"hidden{i}" for i in range(len(params) - 1)] + ["output"]
    for position, layer in enumerate(layers):
        dense = params[layer]["dense"]
        state_dict[f"{prefix}{2 * position}.weight"] = np.asarray(dense["kernel"]).T
        state_dict[f"{prefix}{2 * position}.bias"] = np.asarray(dense["bias"])
    return state_dict


def is_global(state_dict: State) -> bool:
    """Whether the names are those of a global encoder."""
    return any(name.startswith("backbone.") for name in state_dict)


def check_shapes(variables: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Compares variables with those a module has.

    Args:
      variables: {"params", "batch_stats"}.
      expected: the same tree with leaves that have a shape.

    Raises:
      ValueError: listing the weights that are missing, unexpected or of another shape, by torch names.
    """
    have, want = (_shapes(tree) for tree in (variables, expected))
    problems = {
        "missing": sorted(want.keys() - have.keys()),
        "unexpected": sorted(have.keys() - want.keys()),
        "of another shape": [
            f"{name} {have[name]}, expected {want[name]}"
            for name in sorted(have.keys() & want.keys())
            if have[name] != want[name]
        ],
    }
    found = [f"{what}: {', '.join(names)}" for what, names in problems.items() if names]
    if found:
        raise ValueError(f"the weights are not this encoder's; {'; '.join(found)}.")


_GLOBAL_NAMES = re.compile(r"^backbone\.(\d+)\.")
_LAYER_NAME = re.compile(r"layer(\d)\.(\d)\.(conv[12]|bn[12]|downsample)(?:\.([01]))?\.(\w+)")


def _torch_trunk_name(match: re.Match) -> str:
    """Position in the global encoder's Sequential -> the token encoder's name of the same module."""
    position = int(match.group(1))
    return f"stem.{position}." if position < 2 else f"layer{position - 3}."


def _torch_backbone_name(module: str) -> str:
    """The inverse of `_torch_trunk_name`, for a module's name without its leaf."""
    stem = re.sub(r"^stem\.", "backbone.", module)
    return re.sub(r"^layer(\d)", lambda m: f"backbone.{int(m[1]) + 3}", stem)


def _size(names: State, name: str) -> int:
    if name not in names:
        raise ValueError(f"the state dict has no {name!r}; it is not one of this encoder's.")
    return np.shape(names[name])[0]


def _abstract(module: TokenEncoder | GlobalEncoder) -> Any:
    """Shapes of an encoder's variables; they do not depend on the images' size."""
    return jax.eval_shape(lambda: module.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)), train=False))


def _variables(names: State, last_layer: int) -> dict:
    variables: dict = {"params": {}, "batch_stats": {}}
    unexpected = []
    for name, value in names.items():
        if name.endswith(COUNTER):
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
    module, _, leaf = name.rpartition(".")
    if leaf not in BATCH_NORM:
        return None
    if module in MODULES:
        return MODULES[module]
    match = _LAYER_NAME.fullmatch(name)
    if not match:
        return None
    layer, block, part, position, _ = match.groups()
    if (part == "downsample") != (position is not None):
        return None
    if part == "downsample":
        part = "downsample_conv" if position == "0" else "downsample_bn"
    return ("trunk", f"layer{layer}_{block}", part)


def _torch_name(path: tuple[str, ...]) -> str:
    """The inverse of `_module_path`, without the leaf."""
    for module, known in MODULES.items():
        if path == known:
            return module
    _, block, part = path
    part = {"downsample_conv": "downsample.0", "downsample_bn": "downsample.1"}.get(part, part)
    return f"{block.replace('_', '.')}.{part}"


def _put(variables: dict, path: tuple[str, ...], leaf: str, value: np.ndarray) -> None:
    if path[-1].endswith("conv") or path[-1].startswith("conv"):
        collection, leaf, value = "params", "kernel", value.transpose(2, 3, 1, 0)
    elif path[-1] == "dense":
        collection, leaf, value = "params", *(("kernel", value.T) if leaf == "weight" else ("bias", value))
    else:
        collection, leaf = BATCH_NORM[leaf]
    node = variables[collection]
    for part in path:
        node = node.setdefault(part, {})
    node[leaf] = value


def _leaves(variables: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], str, str, Any]]:
    """(path of the module, collection, leaf's name, leaf) of every array."""
    for collection in ("params", "batch_stats"):
        for keys, leaf in jax.tree_util.tree_leaves_with_path(variables.get(collection, {})):
            *path, name = (key.key for key in keys)
            yield tuple(path), collection, name, leaf


def _torch_leaf(collection: str, leaf: str) -> str:
    names = {ours: theirs for theirs, ours in BATCH_NORM.items()}
    return "weight" if leaf == "kernel" else names[collection, leaf]


def _to_torch(leaf: str, value: np.ndarray) -> np.ndarray:
    if leaf != "kernel":
        return value
    return value.transpose(3, 2, 0, 1) if value.ndim == 4 else value.T


def _shapes(variables: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Torch name -> shape in torch's layout."""
    return {
        f"{_torch_name(path)}.{_torch_leaf(kind, leaf)}": _to_torch(leaf, np.empty(np.shape(value), np.bool_)).shape
        for path, kind, leaf, value in _leaves(variables)
    }


def _linear(state_dict: State, name: str) -> dict:
    return {"kernel": np.asarray(state_dict[f"{name}.weight"]).T, "bias": np.asarray(state_dict[f"{name}.bias"])}
