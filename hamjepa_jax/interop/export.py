"""The command python -m hamjepa_jax.interop.export: a run to a folder for others, and back to a workdir.

OUT has the layout of the Hugging Face hub and nothing that needs this package but what says so:
  model.safetensors     all networks' weights, named by their path in this package
  config.json           the run's config
  README.md             the model card, with the numbers of metrics.json
  torch.safetensors     the encoder's (and the potential's) weights with the published PyTorch models' names
  encoder.stablehlo     the whole encoder as a program (jax.export): any number of images, on CPU, CUDA and TPU
"""

import argparse
import json
import logging
import pathlib
import sys

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jax import export as jax_export
from safetensors.numpy import save_file

from hamjepa_jax import command_line
from hamjepa_jax.errors import UserError
from hamjepa_jax.folders import make_folder
from hamjepa_jax.interop import torch as torch_names
from hamjepa_jax.interop.exported import is_export, read_export, write_config, write_weights
from hamjepa_jax.interop.model_card import model_card
from hamjepa_jax.interop.pretrained import stablehlo_function
from hamjepa_jax.interop.workdirs import Networks, fresh_state, read_networks, write_workdir
from hamjepa_jax.training.workdir import saved_config

ConfigDict = ml_collections.ConfigDict
PLATFORMS = ("cpu", "cuda", "tpu")
TORCH_FILE = "torch.safetensors"
STABLEHLO_FILE = "encoder.stablehlo"
POTENTIALS = {"separable": "H.residual_V.", "general": "H.residual."}  # the published models' names
log = logging.getLogger(__name__)


def main(argv: list[str] | None = None) -> int:
    return command_line.run(run, make_parser(), argv)


def make_parser() -> command_line.Parser:
    parser = command_line.Parser(
        prog="python -m hamjepa_jax.interop.export",
        description="Writes a run as safetensors, config.json and a model card (the layout of the Hugging Face "
        "hub), its encoder as StableHLO and with PyTorch's names; or makes a workdir of such a folder again.",
    )
    parser.add_argument("folder", metavar="WORKDIR", help="folder of a run, or of an export to make a workdir of")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder to write")
    parser.add_argument("--step", type=int, metavar="N", help="checkpoint; the newest if not given")
    parser.add_argument("--name", help="of the model, for the card; that of the folder if not given")
    return parser


def run(arguments: argparse.Namespace) -> None:
    folder = pathlib.Path(arguments.folder)
    if is_export(folder):
        restore_workdir(folder, arguments.out)
        log.info("wrote the workdir %s", arguments.out)
    else:
        export_run(folder, arguments.out, step=arguments.step, name=arguments.name)
        files = sorted(path.name for path in pathlib.Path(arguments.out).iterdir())
        log.info("wrote %s: %s", arguments.out, ", ".join(files))


def export_run(
    workdir: str | pathlib.Path, out: str | pathlib.Path, *, step: int | None = None, name: str | None = None
) -> None:
    """Writes everything that is listed at the top of this module.

    Args:
      workdir: of a run.
      out: folder, made if missing; files of an earlier export there are replaced.
      step: the checkpoint; the newest readable one if None.
      name: of the model, for the card.

    Raises:
      UserError: if there is no such checkpoint, or `out` is a workdir, holds other files or cannot be written.
    """
    workdir = pathlib.Path(workdir)
    config, networks = saved_config(workdir), read_networks(workdir, step)
    out = make_folder(out, "--out")
    if (out / "checkpoints").exists():
        raise UserError(f"--out {out}: is the workdir of a run; choose another folder.")
    # Hidden files are those of a clone of a hub's empty repository.
    if not is_export(out) and any(not path.name.startswith(".") for path in out.iterdir()):
        raise UserError(f"--out {out}: holds files that are no export; choose an empty or a new folder.")
    networks = networks._replace(
        params=jax.device_get(networks.params), batch_stats=jax.device_get(networks.batch_stats)
    )
    record = json.loads((workdir / "config.json").read_text())
    write_weights(out, networks)
    write_config(out, config, networks.step, {k: record[k] for k in ("data_fingerprint", "origin") if k in record})
    save_file(torch_weights(config, networks), out / TORCH_FILE, metadata={"format": "pt"})
    (out / STABLEHLO_FILE).write_bytes(encoder_program(config, networks))
    metrics, origin = _metrics(workdir, networks.step), record.get("origin")
    card = model_card(name or workdir.resolve().name, config, networks.step, metrics, origin)
    (out / "README.md").write_text(card, encoding="utf-8")


def restore_workdir(folder: str | pathlib.Path, out: str | pathlib.Path) -> None:
    """A workdir with an export's weights as step 0 and a fresh optimiser, to be evaluated or trained on.

    Its epochs count from 1 again; the warm-up and the curriculum of its flow are behind it.

    Raises:
      UserError: if the folder is no export, or `out` holds a run.
    """
    config, networks = read_export(folder)
    config = config.copy_and_resolve_references()
    config.predictor.residual_warmup_epochs, config.predictor.horizon = 0, ()  # behind them
    state = fresh_state(config)
    shapes = [jax.tree.map(np.shape, t) for t in ((state.params, state.batch_stats), networks[1:])]
    if shapes[0] != shapes[1]:
        raise UserError(f"{folder}: its weights are not those of the networks in its config.json.")
    write_workdir(
        out,
        config,
        state.replace(params=networks.params, batch_stats=networks.batch_stats),
        {"file": pathlib.Path(folder).resolve().name, "step": networks.step},
    )


def torch_weights(config: ConfigDict, networks: Networks) -> dict[str, np.ndarray]:
    """The encoder's weights by the published models' names; a potential's with "predictor." before them."""
    encoder = {"params": networks.params["encoder"], "batch_stats": networks.batch_stats["encoder"]}
    weights = torch_names.state_dict_from_encoder(encoder)
    weights = {f"encoder.{name}": value for name, value in weights.items()}
    prefix = POTENTIALS.get(config.predictor.energy)
    if config.predictor.kind == "hamiltonian" and prefix is not None:
        potential = torch_names.state_dict_from_mlp(networks.params["predictor"]["mlp"], prefix)
        weights |= {f"predictor.{name}": value for name, value in potential.items()}
    return {name: np.ascontiguousarray(value) for name, value in weights.items()}


def encoder_program(config: ConfigDict, networks: Networks) -> bytes:
    """The encoder serialised by jax.export: float32 images [n, size, size, 3] in [0, 1] to z, any n."""
    (n,), size = jax_export.symbolic_shape("n"), config.data.image_size
    images = jax.ShapeDtypeStruct((n, size, size, 3), jnp.float32)
    function = jax.jit(stablehlo_function(config, networks))
    return bytes(jax_export.export(function, platforms=PLATFORMS)(images).serialize())


def _metrics(workdir: pathlib.Path, step: int) -> dict | None:
    """The run's final metrics, if they are those of this step."""
    file = workdir / "metrics.json"
    metrics = json.loads(file.read_text()) if file.exists() else {}
    return metrics if metrics.get("step") == step else None


if __name__ == "__main__":
    # Under its own name, which its messages need to reach the terminal.
    from hamjepa_jax.interop import export

    command_line.log_to_terminal()
    sys.exit(export.main())
