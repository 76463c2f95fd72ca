"""Folders in the layout of the Hugging Face hub: weights in safetensors, config.json, and back."""

import importlib.metadata
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import ml_collections
import numpy as np
from flax import traverse_util
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from hamjepa_jax import files
from hamjepa_jax.errors import UserError
from hamjepa_jax.interop.workdirs import Networks, check_config
from hamjepa_jax.run.restore import with_empty_networks
from hamjepa_jax.run.workdir import CONFIG_FILE, WEIGHTS_FILE, saved_config

ConfigDict = ml_collections.ConfigDict


def write_weights(out: pathlib.Path, networks: Networks) -> None:
    """Writes all networks' weights, named by their path: params/encoder/trunk/stem_conv/kernel, …."""
    tree = {"params": networks.params, "batch_stats": networks.batch_stats}
    write_tensors(out / WEIGHTS_FILE, traverse_util.flatten_dict(tree, sep="/"), form="flax")


def write_tensors(path: pathlib.Path, tensors: Mapping[str, Any], *, form: str) -> None:
    """Writes a safetensors file; `form` says in its metadata whose names and layouts these are."""
    arrays = {name: np.asarray(value, order="C") for name, value in tensors.items()}
    with files.written_at_once(path) as temporary:
        temporary.write_bytes(save(arrays, metadata={"format": form}))


def write_config(out: pathlib.Path, config: ConfigDict, step: int, origin: Mapping[str, Any]) -> None:
    """Writes config.json: the hub's facts about a model, and the run's config.

    Args:
      out: the folder.
      config: of the run.
      step: of the weights.
      origin: further facts, such as the fingerprint of the data.
    """
    record = {
        "model_type": "hamjepa_jax",
        "architectures": ["TokenEncoder" if config.encoder.mode == "token" else "GlobalEncoder"],
        "hamjepa_jax_version": importlib.metadata.version("hamjepa-jax"),
        "step": step,
        **origin,
        "config": json.loads(config.to_json_best_effort()),
    }
    files.write_json(out / CONFIG_FILE, record)


def is_export(folder: pathlib.Path) -> bool:
    return (folder / WEIGHTS_FILE).is_file()


def read_export(folder: str | pathlib.Path) -> tuple[ConfigDict, Networks]:
    """The config and the weights in an exported folder.

    Raises:
      UserError: if it is no export, or a file in it is damaged.
    """
    folder = pathlib.Path(folder)
    if not is_export(folder):
        raise UserError(f"{folder}: no exported folder (it has no {WEIGHTS_FILE}).")
    try:
        tree = traverse_util.unflatten_dict(load_file(folder / WEIGHTS_FILE), sep="/")
        config, record = saved_config(folder), json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
        tree = with_empty_networks(tree)
        networks = Networks(int(record["step"]), tree["params"], tree["batch_stats"])
    except (SafetensorError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{folder}: damaged ({type(error).__name__}: {error}); export or copy it again.") from None
    check_config(folder, config, networks)
    return config, networks
