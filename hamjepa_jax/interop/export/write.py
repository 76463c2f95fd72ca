"""Writes a run as a folder for others, and makes a workdir of such a folder."""

import json
import logging
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jax import export as jax_export

from hamjepa_jax import files, parts, report
from hamjepa_jax.errors import UserError
from hamjepa_jax.interop.exported import is_export, read_export, write_config, write_tensors, write_weights
from hamjepa_jax.interop.hub import SCHEME
from hamjepa_jax.interop.images import refuse_stacks
from hamjepa_jax.interop.model_card import model_card
from hamjepa_jax.interop.pretrained import stablehlo_function
from hamjepa_jax.interop.torch.names import state_dict_from_encoder, state_dict_from_mlp, trunk_state_dict
from hamjepa_jax.interop.workdirs import Networks, fresh_state, read_networks, with_weights, write_workdir
from hamjepa_jax.run.workdir import CONFIG_FILE, saved_config

ConfigDict = ml_collections.ConfigDict
PLATFORMS = ("cpu", "cuda", "tpu")
TORCH_FILE = "torch.safetensors"
TRUNK_FILE = "trunk.safetensors"
STABLEHLO_FILE = "encoder.stablehlo"
POTENTIALS = {"separable": "H.residual_V.", "general": "H.residual."}  # the published models' names
log = logging.getLogger(__name__)


def export_run(
    workdir: str | pathlib.Path,
    out: str | pathlib.Path,
    *,
    step: int | None = None,
    name: str | None = None,
    pushed_to: str | None = None,
) -> None:
    """Writes the files that the package's docstring lists.

    Args:
      workdir: of a run.
      out: folder, made if missing; files of an earlier export there are replaced.
      step: the checkpoint; the newest readable one if None.
      name: of the model, for the card.
      pushed_to: owner/name on the Hugging Face hub, for the card.

    Raises:
      UserError: if there is no such checkpoint, or `out` is a workdir, holds other files or cannot be written.
    """
    workdir = files.user_path(workdir, "WORKDIR")
    config, networks = saved_config(workdir), read_networks(workdir, step)
    refuse_stacks(config.views.stack, workdir)
    out = files.make_folder(out, "--out")
    if (out / "checkpoints").exists():
        raise UserError(f"--out {out}: is the workdir of a run; choose another folder.")
    # Hidden files are those of a clone of a hub's empty repository.
    if not is_export(out) and any(not path.name.startswith(".") for path in out.iterdir()):
        raise UserError(f"--out {out}: holds files that are no export; choose an empty or a new folder.")
    networks = networks._replace(
        params=jax.device_get(networks.params), batch_stats=jax.device_get(networks.batch_stats)
    )
    record = json.loads((workdir / CONFIG_FILE).read_text(encoding="utf-8"))
    write_weights(out, networks)
    write_config(out, config, networks.step, {k: record[k] for k in ("data_fingerprint", "origin") if k in record})
    if has_torch_names(config):
        write_tensors(out / TORCH_FILE, torch_weights(config, networks), form="pt")
        write_tensors(out / TRUNK_FILE, trunk_weights(config, networks), form="pt")
    else:
        for file in (TORCH_FILE, TRUNK_FILE):  # Of an earlier export.
            (out / file).unlink(missing_ok=True)
        log.info("no %s: encoder.trunk %r has no names in PyTorch", TORCH_FILE, config.encoder.trunk)
    with files.written_at_once(out / STABLEHLO_FILE) as temporary:
        temporary.write_bytes(encoder_program(config, networks))
    metrics, origin = _metrics(workdir, networks.step), record.get("origin")
    card = model_card(
        name or (pushed_to or workdir.resolve().name).rpartition("/")[2],
        config,
        networks.step,
        metrics,
        origin,
        torch_names=has_torch_names(config),
        address=None if pushed_to is None else f"{SCHEME}{pushed_to}",
    )
    files.write_text(out / "README.md", card)


def restore_workdir(folder: str | pathlib.Path, out: str | pathlib.Path) -> None:
    """A workdir with an export's weights as step 0 and a fresh optimiser, to be evaluated or trained on.

    Its epochs count from 1 again, without the warm-up and the curriculum of its flow, which it has been through.

    Raises:
      UserError: if the folder is no export, or `out` holds a run.
    """
    config, networks = read_export(folder)
    config = config.copy_and_resolve_references()
    config.predictor.residual_warmup_epochs, config.predictor.horizon = 0, ()
    try:
        state = with_weights(fresh_state(config), networks)
    except ValueError:
        raise UserError(f"{folder}: its weights are not those of the networks in its config.json.") from None
    write_workdir(out, config, state, {"file": pathlib.Path(folder).resolve().name, "step": networks.step})


def has_torch_names(config: ConfigDict) -> bool:
    """Whether the trunk states the names of its weights in PyTorch."""
    return "torch" in parts.trunks[config.encoder.trunk].about


def torch_weights(config: ConfigDict, networks: Networks) -> dict[str, np.ndarray]:
    """The encoder's weights by the published models' names; a potential's with "predictor." before them."""
    weights = state_dict_from_encoder(_encoder(networks), config.encoder.trunk)
    weights = {f"encoder.{name}": value for name, value in weights.items()}
    prefix = POTENTIALS.get(config.predictor.energy)
    if config.predictor.kind == "hamiltonian" and prefix is not None:
        potential = state_dict_from_mlp(networks.params["predictor"]["mlp"], prefix)
        weights |= {f"predictor.{name}": value for name, value in potential.items()}
    return {name: np.ascontiguousarray(value) for name, value in weights.items()}


def trunk_weights(config: ConfigDict, networks: Networks) -> dict[str, np.ndarray]:
    """The trunk's weights by the names of torchvision and timm."""
    weights = trunk_state_dict(_encoder(networks), config.encoder.trunk)
    return {name: np.ascontiguousarray(value) for name, value in weights.items()}


def _encoder(networks: Networks) -> dict[str, Any]:
    return {"params": networks.params["encoder"], "batch_stats": networks.batch_stats["encoder"]}


def encoder_program(config: ConfigDict, networks: Networks) -> bytes:
    """The encoder serialised by jax.export: float32 images [n, size, size, 3] in [0, 1] to z, any n."""
    (n,), size = jax_export.symbolic_shape("n"), config.data.image_size
    images = jax.ShapeDtypeStruct((n, size, size, 3), jnp.float32)
    function = jax.jit(stablehlo_function(config, networks))
    return bytes(jax_export.export(function, platforms=PLATFORMS)(images).serialize())


def _metrics(workdir: pathlib.Path, step: int) -> dict | None:
    """The run's final metrics, if they are those of this step."""
    metrics = report.measured(workdir)
    return metrics if metrics is not None and metrics["step"] == step else None
