"""The usual data sets of transfer by name: where they are looked for, and what to do where one is missing.

And the flags of fine-tuning's recipe.
"""

import os
import pathlib
from collections.abc import Container
from typing import NamedTuple

from hamjepa_jax.errors import UserError

DATA_DIR = "HAMJEPA_DATA"  # Environment variable.
TFDS_DIR = "TFDS_DATA_DIR"
RECIPE = {"finetune_epochs": 30, "finetune_rate": 1e-3, "layer_decay": 0.75}  # The defaults of the flags.


class Known(NamedTuple):
    """Attributes:
    tfds: its name in TFDS, with the split that numbers are told for where it has several; "" if it is not there.
    spec: that needs no preparation; "" for none.
    """

    tfds: str = ""
    spec: str = ""


NAMES = {
    "cifar10": Known("cifar10"),
    "cifar100": Known("cifar100", "cifar100:"),
    "dtd": Known("dtd?test=test"),
    "aircraft": Known(),
    "cars": Known("cars196"),
    "flowers": Known("oxford_flowers102?test=test"),
    "food": Known("food101"),
    "pets": Known("oxford_iiit_pet"),
    "galaxy10": Known(),
    "medmnist": Known(),
}


def source_spec(name: str, data_dir: str | None = None, *, kinds: Container[str] = ()) -> str:
    """The data.source of a name, or the text itself if it is one ("KIND:WHERE").

    A name is looked for as NAME.npz and as the folder NAME in the data folder, then among prepared TFDS sets.

    Args:
      name: one of NAMES, or KIND or KIND:WHERE as data.source has it.
      data_dir: folder of the data sets; $HAMJEPA_DATA, or ./data, if None.
      kinds: of sources; such a name needs no ":".

    Raises:
      UserError: saying where to put the data, or that there is no such name.
    """
    if name not in NAMES:
        if ":" not in name and name not in kinds:
            raise UserError(
                f"--sources {name}: is none of the names {', '.join(NAMES)}; write other images as data.source has "
                f"them, as in folder:{name} or arrays:{name}.npz."
            )
        return name
    root = pathlib.Path(os.path.expanduser(data_dir or os.environ.get(DATA_DIR) or "data"))
    if (root / f"{name}.npz").is_file():
        return f"arrays:{root / name}.npz"
    if (root / name).is_dir():
        return f"folder:{root / name}"
    known = NAMES[name]
    prepared = pathlib.Path(os.path.expanduser(os.environ.get(TFDS_DIR) or "~/tensorflow_datasets"))
    set_name = known.tfds.partition("?")[0]
    if set_name and (prepared / set_name).is_dir():
        return f"tfds:{known.tfds}"
    if known.spec:
        return known.spec
    or_tfds = f", or prepare the TFDS set {set_name!r} in {prepared}" if set_name else ""
    raise UserError(
        f"--sources {name}: is not there; put its images into {root / name}/train/<class>/ and "
        f"{root / name}/test/<class>/, or arrays into {root / name}.npz{or_tfds}."
    )
