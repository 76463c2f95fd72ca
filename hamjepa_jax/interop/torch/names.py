"""Weights named and laid out as in the published PyTorch models, to Flax variables and back (NumPy only).

A trunk's weights have the names of torchvision and timm, as the trunk states them (`nn.torch_names`). In the
published HamJEPA and SIGReg encoders some modules of a ResNet are called otherwise: stem.0 and stem.1 of a token
encoder are conv1 and bn1; backbone.0, .1, .4 … .7 of a global one are conv1, bn1, layer1 … layer4.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np

from hamjepa_jax import nn, parts
from hamjepa_jax.nn.torch_names import TorchNames

State = Mapping[str, Any]
HEADS = {  # Flax path -> torch's name
    ("token_conv",): "token_proj.0",
    ("token_bn",): "token_proj.1",
    ("token_ln",): "token_proj.1",
    ("fc", "dense"): "fc",
}
LEAVES = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}  # ours -> torch's
COUNTER = "num_batches_tracked"  # of torch's batch normalisation; not used with a fixed momentum


def encoder_from_state_dict(
    state_dict: State, *, stem: str | None, token_layer: int | None, token_hw: int | None, split_qp: bool
) -> tuple[nn.TokenEncoder | nn.GlobalEncoder, dict]:
    """An encoder module and its variables from torch-named weights.

    Args:
      state_dict: name -> array (torch layout, NumPy or anything np.asarray takes). Names are those of a token
        encoder (token_proj.0, token_proj.1) or a global one (fc), with those of a trunk beside them: for a ResNet
        stem.0, stem.1, layerL.B.conv1, … in the former and backbone.0, backbone.1, backbone.4 … backbone.7 in the
        latter; for a transformer those of timm. Layers after `token_layer` are ignored.
      stem: "cifar" or "imagenet", of a ResNet; None reads it off the first convolution.
      token_layer: 1 … 4, of a ResNet; ignored (may be None) for a global encoder and for other trunks.
      token_hw: side of the token grid, None for the layer's own; ignored for a global encoder.
      split_qp: whether the state is laid out as [q; p]; ignored for a global encoder.

    Returns:
      (module, variables) with `module.apply(variables, images_nhwc, train=False) -> [b, K]`.

    Raises:
      ValueError: naming the missing or unexpected weights, or those of another shape.
    """
    settings = read_trunk_settings(state_dict)
    settings |= {k: v for k, v in (("stem", stem), ("token_layer", token_layer)) if v is not None}
    trunk = trunk_module(settings, whole=is_global(state_dict))
    if is_global(state_dict):
        module = nn.GlobalEncoder(trunk, np.shape(state_dict["fc.weight"])[0])
    elif "token_proj.0.weight" in state_dict:
        norm = token_norm(state_dict)
        token_dim = np.shape(state_dict["token_proj.0.weight"])[0]
        module = nn.TokenEncoder(trunk, token_hw, token_dim, split_qp, token_norm=norm)
    else:
        raise ValueError("the state dict has no 'token_proj.0.weight'; it is not one of this encoder's.")
    side = 32 * np.shape(state_dict[image_weight(state_dict)])[-1]  # Any size does that a patch divides.
    return module, variables_from_state_dict(state_dict, _abstract(module, side), settings["trunk"])


def state_dict_from_encoder(variables: Mapping[str, Any], trunk: str = "resnet18") -> dict[str, np.ndarray]:
    """Torch-named weights of an encoder, the inverse of `encoder_from_state_dict`, bit for bit.

    Args:
      variables: {"params", "batch_stats"} of a `TokenEncoder` or `GlobalEncoder`.
      trunk: name of its trunk, as in encoder.trunk; ResNets of all depths have the same names.

    Returns:
      name -> array in torch's layout, with a zero "num_batches_tracked" for each batch normalisation, as torch's
      strict loading wants it. Layers after the token layer are not there.
    """
    state_dict = {}
    for name, (collection, path, leaf) in _table(variables, trunk).items():
        state_dict[name] = to_torch(leaf, np.asarray(_node(variables[collection], path)[leaf]))
        if leaf == "var":
            state_dict[name.replace(LEAVES["var"], COUNTER)] = np.zeros((), np.int64)
    return state_dict


def trunk_state_dict(variables: Mapping[str, Any], trunk: str) -> dict[str, np.ndarray]:
    """The trunk's weights under the names of torchvision and timm alone, otherwise as `state_dict_from_encoder`."""
    heads = tuple(f"{name}." for name in HEADS.values())
    weights = state_dict_from_encoder(variables, trunk).items()
    return {zoo_name(name): value for name, value in weights if not name.startswith(heads)}


def variables_from_state_dict(state_dict: State, like: Mapping[str, Any], trunk: str) -> dict[str, Any]:
    """An encoder's variables from torch-named weights.

    Args:
      state_dict: see `encoder_from_state_dict`.
      like: {"params", "batch_stats"} of the encoder, whose leaves have a shape.
      trunk: name of its trunk.

    Raises:
      ValueError: listing the weights that are missing, unexpected or of another shape.
    """
    table, given = _table(like, trunk), {k: v for k, v in state_dict.items() if not k.endswith(COUNTER)}
    variables: dict[str, Any] = {"params": {}, "batch_stats": {}}
    shapes = []
    for name in table.keys() & given.keys():
        collection, path, leaf = table[name]
        value, want = from_torch(leaf, np.asarray(given[name])), np.shape(_node(like[collection], path)[leaf])
        if value.shape != want:
            expected = to_torch(leaf, np.empty(want, np.bool_)).shape
            shapes.append(f"{name} {np.shape(given[name])}, expected {expected}")
        node = variables[collection]
        for part in path:
            node = node.setdefault(part, {})
        node[leaf] = value
    problems = {
        "missing": table.keys() - given.keys(),
        "unexpected": {name for name in given if name not in table and not is_absent(name, table, trunk)},
        "of another shape": shapes,
    }
    found = [f"{what}: {', '.join(sorted(names))}" for what, names in problems.items() if names]
    if found:
        raise ValueError(f"the weights are not this encoder's; {'; '.join(found)}.")
    return variables


def is_absent(name: str, wanted: Mapping[str, Any], trunk: str) -> bool:
    """Whether a weight belongs to a layer that an encoder with the `wanted` weights does without."""
    first = name.split(".")[0]
    return bool(re.match(_names(trunk).partial, name)) and first not in {k.split(".")[0] for k in wanted}


def read_trunk_settings(state_dict: State) -> dict[str, Any]:
    """{field of config.encoder: value} that the weights of a trunk show; see `TorchNames.read`.

    Raises:
      ValueError: for weights of no trunk that states its names.
      UserError: for those of a similar network that does not exist here.
    """
    shapes = {zoo_name(name): np.shape(value) for name, value in state_dict.items()}
    for names in known_names():
        if all(mark in shapes for mark in names.marks):
            return names.read(shapes)
    first = " or ".join(repr(names.marks[0]) for names in known_names())
    raise ValueError(f"the state dict has no {first}; it is not one of this encoder's.")


def image_weight(state_dict: State) -> str:
    """The name in the state dict of the weight that the images are convolved with."""
    marks = {names.marks[0] for names in known_names()}
    return next(name for name in state_dict if zoo_name(name) in marks)


def trunk_module(settings: Mapping[str, Any], *, whole: bool) -> linen.Module:
    """The trunk of settings as `read_trunk_settings` gives them; `whole` as for the parts.

    Raises:
      ValueError: for a setting that no weight shows.
    """
    unseen = [name for name, value in settings.items() if value is ...]
    if unseen:
        raise ValueError(f"no weight shows {unseen[0]} of this trunk; import the file with it in the config.")
    part = parts.trunks[settings["trunk"]]
    prefix = f"{part.block}.".removeprefix("encoder.")
    own = {k.removeprefix(prefix): v for k, v in settings.items() if k.startswith(prefix)}
    values = part.settings(**{k: v for k, v in own.items() if k in part.settings})
    return part.make(values, dtype=jnp.float32, whole=whole)


def known_names() -> list[TorchNames]:
    """What the registered trunks state of their names, each once."""
    found: list[TorchNames] = []
    for part in parts.trunks.parts():
        names = part.about.get("torch")
        if names is not None and names not in found:
            found.append(names)
    return found


def from_zoo(state_dict: State, *, is_global: bool) -> dict[str, Any]:
    """A trunk's weights with the names of torchvision or timm, under those in our encoders."""
    return {published_name(name, is_global): value for name, value in state_dict.items()}


def zoo_name(name: str) -> str:
    """The name in torchvision or timm of a weight of one of our encoders; heads keep theirs."""
    name = re.sub(r"^(stem|backbone)\.([01])\.", lambda m: ("conv1.", "bn1.")[int(m[2])], name)
    return re.sub(r"^backbone\.([4-7])\.", lambda m: f"layer{int(m[1]) - 3}.", name)


def published_name(name: str, is_global: bool) -> str:
    """The inverse of `zoo_name`."""
    stem = "backbone" if is_global else "stem"
    name = re.sub(r"^(conv1|bn1)\.", lambda m: f"{stem}.{int(m[1] == 'bn1')}.", name)
    return re.sub(r"^layer(\d)\.", lambda m: f"backbone.{int(m[1]) + 3}.", name) if is_global else name


def token_norm(state_dict: State) -> str:
    """encoder.token_norm of a token encoder's weights."""
    return "batch" if "token_proj.1.running_mean" in state_dict else "layer"


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
    return any(name.startswith("backbone.") for name in state_dict) or (
        "fc.weight" in state_dict and "token_proj.0.weight" not in state_dict
    )


def to_torch(leaf: str, value: np.ndarray) -> np.ndarray:
    """An array of ours in torch's layout, by its name here."""
    if leaf != "kernel":
        return value
    return value.transpose(3, 2, 0, 1) if value.ndim == 4 else value.T


def from_torch(leaf: str, value: np.ndarray) -> np.ndarray:
    """The inverse of `to_torch`."""
    if leaf != "kernel":
        return value
    return value.transpose(2, 3, 1, 0) if value.ndim == 4 else value.T


def _table(variables: Mapping[str, Any], trunk: str) -> dict[str, tuple[str, tuple[str, ...], str]]:
    """{torch name: (collection, path of the module, leaf's name)} of every array of an encoder."""
    names, is_global_encoder = _names(trunk), "fc" in variables["params"]
    found = {}
    for path, collection, leaf in _leaves(variables):
        if path[0] == "trunk":
            own = ".".join(filter(None, (names.module(path[1:]), LEAVES.get(leaf, leaf))))
            found[published_name(own, is_global_encoder)] = collection, path, leaf
        else:
            found[f"{HEADS[path]}.{LEAVES.get(leaf, leaf)}"] = collection, path, leaf
    return found


def _names(trunk: str) -> TorchNames:
    return parts.trunks[trunk].about["torch"]


def _leaves(variables: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], str, str]]:
    """(path of the module, collection, leaf's name) of every array."""
    for collection in ("params", "batch_stats"):
        for keys, _ in jax.tree_util.tree_leaves_with_path(variables.get(collection, {})):
            *path, name = (key.key for key in keys)
            yield tuple(path), collection, name


def _node(tree: Mapping[str, Any], path: tuple[str, ...]) -> Mapping[str, Any]:
    for part in path:
        tree = tree[part]
    return tree


def _abstract(module: nn.TokenEncoder | nn.GlobalEncoder, side: int) -> Any:
    """Shapes of an encoder's variables, from images of `side` pixels."""
    return jax.eval_shape(lambda: module.init(jax.random.key(0), jnp.zeros((1, side, side, 3)), train=False))


def _linear(state_dict: State, name: str) -> dict:
    return {"kernel": np.asarray(state_dict[f"{name}.weight"]).T, "bias": np.asarray(state_dict[f"{name}.bias"])}
