"""Finds encoders and trunks in nested dicts of weights, under any prefix of their names."""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from hamjepa_jax.interop.torch.names import known_names

Arrays = dict[str, np.ndarray]
# How a network of each kind is recognised: its first convolution, and another weight that it has. Trunks with the
# names of torchvision or timm are added as they are registered, under the name of their first convolution.
KINDS = {
    "token": ("stem.0.weight", "layer1.0.conv1.weight"),
    "global": ("backbone.0.weight", "fc.weight"),
    "sequential": ("0.weight", "4.0.conv1.weight"),  # nn.Sequential(*resnet.children()), as lightly has it
}
DEEPEST = 4  # dicts within dicts
_AVERAGED = re.compile(r"(^|[._])(ema|teacher|momentum|target|encoder_k)([._]|$)")
HEADS = ("token_proj.0.weight", "fc.weight")  # of our encoders, after their trunk


class Trunk(NamedTuple):
    """Where the weights of a network are.

    Attributes:
      place: keys that lead to the dict of its weights.
      prefix: of its weights' names, with the dot at its end.
      kind: of `kinds`.
    """

    place: tuple[str, ...]
    prefix: str
    kind: str

    @property
    def name(self) -> str:
        """The place and the prefix in words."""
        place, prefix = ".".join(self.place), self.prefix.removesuffix(".")
        return f"{place!r} under {prefix!r}" if place and prefix else repr(place or prefix or "the whole file")

    def is_called(self, part: str) -> bool:
        """Whether `part` is one of the place's keys or of the prefix's parts, or the whole prefix."""
        prefix = self.prefix.removesuffix(".")
        return part in (*self.place, *prefix.split("."), prefix, ".".join(self.place))


def find_trunks(saved: Any) -> list[Trunk]:
    """All networks in the dicts of a file, moving averages of others last."""
    found = [trunk for place, weights in _dicts(saved, ()) for trunk in _in_names(place, weights)]
    return sorted(found, key=lambda trunk: bool(_AVERAGED.search(".".join([*trunk.place, trunk.prefix]))))


def trunk_weights(saved: Any, trunk: Trunk) -> tuple[Arrays, Arrays, tuple[str, ...]]:
    """The weights of a network that was found.

    Returns:
      (the encoder's weights, named as in our encoders or as in torchvision; the predictor's beside one of our
      encoders, else {}; the first parts of the names that were left).
    """
    for key in trunk.place:
        saved = saved[key]
    weights = {str(k): v for k, v in saved.items() if isinstance(v, np.ndarray | np.generic)}
    beside = f"{trunk.prefix.removesuffix('encoder.')}predictor."
    ours = trunk.kind in ("token", "global") or _has_our_head(weights, trunk)
    own_names = _weights_of_a_trunk(trunk.kind)
    predictor = {k.removeprefix(beside): v for k, v in weights.items() if ours and k.startswith(beside)}
    taken = {}
    for name in weights:
        own = name.removeprefix(trunk.prefix)
        if trunk.kind == "sequential":
            own = re.sub(r"^(\d+)\.", lambda match: _sequential_name(int(match[1])), own)
        if name.startswith(trunk.prefix) and (not name.startswith(beside) if ours else re.match(own_names, own)):
            taken[name] = own
    left = {_first_part(k) for k in weights if k not in taken and not (ours and k.startswith(beside))}
    return {own: weights[name] for name, own in taken.items()}, predictor, tuple(sorted(left))


def kinds() -> dict[str, tuple[str, str]]:
    """{kind of a network: names of two of its weights}, the published encoders first."""
    return KINDS | {names.marks[0]: names.marks for names in known_names()}


def _weights_of_a_trunk(kind: str) -> str:
    """Regular expression for the beginning of a trunk's names; those of a sequential ResNet have been changed."""
    return next(
        (names.weights for names in known_names() if names.marks[0] == kind),
        next(names.weights for names in known_names() if names.marks[0] == "conv1.weight"),
    )


def _has_our_head(weights: Arrays, trunk: Trunk) -> bool:
    """Whether a network with a zoo's names is the trunk of one of our encoders. A ResNet's are named otherwise."""
    heads = HEADS if trunk.prefix.endswith("encoder.") else HEADS[:1]  # Elsewhere fc is a classifier's.
    return trunk.kind not in (*KINDS, "conv1.weight") and any(f"{trunk.prefix}{head}" in weights for head in heads)


def _dicts(saved: Any, place: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Arrays]]:
    """Every dict with arrays in it, and the keys that lead there."""
    if not isinstance(saved, dict) or len(place) > DEEPEST:
        return
    arrays = {str(k): v for k, v in saved.items() if isinstance(v, np.ndarray | np.generic)}
    if arrays:
        yield place, arrays
    for key, value in saved.items():
        if isinstance(key, str):
            yield from _dicts(value, (*place, key))


def _in_names(place: tuple[str, ...], weights: Arrays) -> Iterator[Trunk]:
    for name, value in weights.items():
        if value.ndim != 4 or value.shape[1] != 3:
            continue
        prefixes = {kind: (_prefix(name, first), second) for kind, (first, second) in kinds().items()}
        found = [k for k, (p, second) in prefixes.items() if p is not None and p + second in weights]
        if found:  # A global encoder's backbone is a sequential one too.
            yield Trunk(place, prefixes[found[0]][0], found[0])


def _prefix(name: str, own: str) -> str | None:
    """The part of a first convolution's name before `own`; None if it has another name."""
    if name == own:
        return ""
    return name.removesuffix(own) if name.endswith(f".{own}") else None


def _sequential_name(position: int) -> str:
    """The name in torchvision's ResNet of a position in nn.Sequential, with the dot at its end."""
    return {0: "conv1.", 1: "bn1."}.get(position) or (
        f"layer{position - 3}." if 4 <= position <= 7 else f"{position}."
    )


def _first_part(name: str) -> str:
    """The part of a name that tells a network from others: without the wrappers' prefixes and its own layers."""
    return re.sub(r"^((module|_orig_mod|model)\.)+", "", name).split(".")[0]
