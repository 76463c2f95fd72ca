"""Folders in the layout of the Hugging Face hub: weights in safetensors, config.json, and back."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

import ml_collections
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

import hamjepa_jax
from hamjepa_jax.errors import UserError
from hamjepa_jax.interop.workdirs import Networks
from hamjepa_jax.training.workdir import saved_config

ConfigDict = ml_collections.ConfigDict
WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"


def write_weights(out: pathlib.Path, networks: Networks) -> None:
    """Writes all networks' weights, named by their path: params/encoder/trunk/stem_conv/kernel, …."""
    tree = {"params": networks.params, "batch_stats": networks.batch_stats}
    save_file(_flatten(tree), out / WEIGHTS_FILE, metadata={"format": "flax"})


def write_config(out: pathlib.Path, config: ConfigDict, step: int, origin: Mapping[str, Any]) -> None:
    """Writes config.json: what the hub shows of a model, and the run's config.

    Args:
      out: the folder.
      config: of the run.
      step: of the weights.
      origin: further facts, such as the fingerprint of the data.
    """
    record = {
        "model_type": "hamjepa_jax",
        "architectures": ["TokenEncoder" if config.encoder.mode == "token" else "GlobalEncoder"],
        "hamjepa_jax_version": hamjepa_jax.__version__,
        "step": step,
        **origin,
        "config": json.loads(config.to_json_best_effort()),
    }
    (out / CONFIG_FILE).write_text(json.dumps(record, indent=2))


def is_export(folder: pathlib.Path) -> bool:
    return (folder / WEIGHTS_FILE).is_file()


def read_export(folder: str | pathlib.Path) -> tuple[ConfigDict, Networks]:
    """The config and the weights in an exported folder.

    Raises:
      UserError: if it is none, or a file in it is damaged.
    """
    folder = pathlib.Path(folder)
    if not is_export(folder):
        raise UserError(f"{folder}: no exported folder (it has no {WEIGHTS_FILE}).")
    try:
        tree = _unflatten(load_file(folder / WEIGHTS_FILE))
        config, record = saved_config(folder), json.loads((folder / CONFIG_FILE).read_text())
        # Networks without parameters have left no name behind.
        params = {"predictor": {}} | tree["params"]
        return config, Networks(record["step"], params, tree["batch_stats"])
    except (SafetensorError, KeyError, ValueError) as error:
        raise UserError(f"{folder}: damaged ({type(error).__name__}: {error}); export or copy it again.") from None


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, np.ndarray]:
    flat = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{prefix}{name}/")
        else:
            flat[f"{prefix}{name}"] = np.ascontiguousarray(value)
    return flat


def _unflatten(flat: Mapping[str, np.ndarray]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for path, value in flat.items():
        *parents, name = path.split("/")
        node = tree
        for part in parents:
            node = node.setdefault(part, {})
        node[name] = value
    return tree
