"""Names that PyTorch's model zoos give a trunk's weights; a trunk states them at its registration, `torch=`."""

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

Shapes = Mapping[str, tuple[int, ...]]


class TorchNames(NamedTuple):
    """How a trunk is called there, and how it is recognised in a file of weights.

    A module has the same name here and there, but for "_3" at the end in place of ".3": layer1_0 is layer1.0,
    blocks_3 is blocks.3. Kernels and scales are "weight" there, in torch's layout, and running statistics have
    torch's names; all other arrays have the same name and shape.

    Attributes:
      modules: {name of a module here: there}, for those of another name.
      marks: names of two weights that every such network has; the first is its convolution of the image.
      weights: regular expression for the beginning of its weights' names.
      partial: regular expression for those of modules that a trunk may do without, as layers after the token layer.
      read: shapes by name -> {field of config.encoder: value} that they show, among them "trunk"; fields of a
        block have a dot. The value ... is of a field that no shape shows and that has to be given. A UserError says
        why they are those of no trunk here.
    """

    modules: Mapping[str, str]
    marks: tuple[str, str]
    weights: str
    partial: str
    read: Callable[[Shapes], dict[str, Any]]

    def module(self, path: tuple[str, ...]) -> str:
        """The name of the module at a path in the trunk's parameters."""
        return ".".join(self.modules.get(name) or re.sub(r"_(\d+)$", r".\1", name) for name in path)
