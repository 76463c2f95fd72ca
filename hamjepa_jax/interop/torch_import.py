"""The command python -m hamjepa_jax.interop.torch: a PyTorch checkpoint to a workdir of this package.

The workdir has the checkpoint as step 0: --mode=evaluate evaluates it, and training in it starts from its weights,
with a fresh optimiser. No image is opened; a run adopts the images that it is first trained on.
"""

import argparse
import copy
import json
import logging
import pathlib
from collections.abc import Mapping, Sequence, Set
from typing import Any

import jax
import ml_collections
import numpy as np

import hamjepa_jax
from hamjepa_jax import command_line, runs
from hamjepa_jax.errors import UserError
from hamjepa_jax.interop import torch as torch_names
from hamjepa_jax.interop import torch_checkpoint
from hamjepa_jax.interop.torch_file import read_file
from hamjepa_jax.interop.workdirs import fresh_state, write_workdir
from hamjepa_jax.training.state import TrainState

ConfigDict = ml_collections.ConfigDict
log = logging.getLogger(__name__)


def main(argv: list[str] | None = None) -> int:
    return command_line.run(run, make_parser(), argv)


def make_parser() -> command_line.Parser:
    parser = command_line.Parser(
        prog="python -m hamjepa_jax.interop.torch",
        description="Makes a workdir of a PyTorch checkpoint (.pth, .pt or .safetensors): of a HamJEPA or SIGReg "
        "run, or of a ResNet-18 of torchvision or timm, whose trunk a run then starts from. Needs no PyTorch and "
        "runs no code of the file. What the file does not say has to be given.",
    )
    add = parser.add_argument
    add("checkpoint", metavar="CKPT", help="the file")
    add("--out", required=True, metavar="DIR", help="workdir to make")
    add(
        "--config",
        metavar="FILE",
        help="config of the run, FILE.py or FILE.py:name=value,…; if not given, the one of configs/ that fits",
    )
    add("--source", metavar="SPEC", help="its images, as data.source")
    add("--stem", choices=("cifar", "imagenet"), help="seen in the weights; can be given as a check")
    add("--token_layer", type=int, choices=(2, 3, 4), help="likewise")
    add(
        "--token_hw",
        type=_side,
        default=argparse.SUPPRESS,
        metavar="N|none",
        help="side of the pooled token grid; none for the layer's own",
    )
    add("--split_qp", type=_truth, metavar="true|false", help="whether the state is laid out as [q; p]")
    add(
        "--override",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="a field of the config, for training on, as in optimizer.learning_rate=1e-4; can be repeated",
    )
    add("--non_strict", action="store_true", help="ignore unexpected weights, leave missing ones as initialised")
    return parser


def _side(text: str) -> int | None:
    return None if text == "none" else int(text)


def _truth(text: str) -> bool:
    if text not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"must be true or false, not {text!r}")
    return text == "true"


def run(arguments: argparse.Namespace) -> None:
    given = {name: getattr(arguments, name) for name in ("stem", "token_layer", "split_qp")}
    if hasattr(arguments, "token_hw"):
        given["token_hw"] = arguments.token_hw
    import_checkpoint(
        arguments.checkpoint,
        arguments.out,
        config=arguments.config,
        source=arguments.source,
        overrides=arguments.override,
        given=given,
        strict=not arguments.non_strict,
    )
    log.info("evaluate:  python -m hamjepa_jax.main --mode=evaluate --workdir=%s", arguments.out)
    log.info("train on:  python -m hamjepa_jax.main --workdir=%s", arguments.out)


def import_checkpoint(
    path: str | pathlib.Path,
    out: str | pathlib.Path,
    *,
    config: str | ConfigDict | None = None,
    source: str | None = None,
    overrides: Sequence[str] = (),
    given: Mapping[str, Any] | None = None,
    strict: bool = True,
) -> ConfigDict:
    """Makes the workdir `out` of a PyTorch checkpoint.

    Args:
      path: of the file, see `torch_file.read_file`.
      out: folder without a run.
      config: of the run, or its file; None for the one of configs/ that fits the weights.
      source: its images, as data.source; None for the config's.
      overrides: "field=value" changes of the config.
      given: of stem, token_layer, token_hw and split_qp those that are known.
      strict: whether missing and unexpected weights are an error.

    Returns:
      The config of the workdir.

    Raises:
      UserError: for a file that cannot be read, weights of another network, settings that can be found nowhere.
    """
    saved = read_file(path)
    try:
        checkpoint = torch_checkpoint.parse(saved)
        predictor = torch_checkpoint.read_predictor(checkpoint.predictor)
        given = {k: v for k, v in (given or {}).items() if v is not None or k == "token_hw"}
        changes = [runs.assignment(text) for text in overrides]
        config = _config(checkpoint, predictor, config, given, {field for field, _ in changes})
        if source is not None:
            config.data.source = source
        for field, value in changes:
            runs.override(config, field, value)
        state = _with_weights(fresh_state(config), config, checkpoint, predictor, strict)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    if checkpoint.unused:
        log.info("not read: %s", ", ".join(checkpoint.unused))
    origin = {"file": pathlib.Path(path).name, "epoch": checkpoint.epoch}
    write_workdir(out, config, state, origin)
    encoder = json.dumps(
        {k: v for k, v in config.encoder.items() if k not in ("projector", "projector_dim", "dtype")}
    )
    log.info("wrote %s: epoch %s of %s, encoder %s", out, checkpoint.epoch, path, encoder)
    return config


def _config(
    checkpoint: torch_checkpoint.Checkpoint,
    predictor: torch_checkpoint.PredictorWeights | None,
    config: str | ConfigDict | None,
    given: Mapping[str, Any],
    changed: Set[str],
) -> ConfigDict:
    """The run's config with the checkpoint's architecture; fields of `changed` are set afterwards."""
    if not isinstance(config, ConfigDict):
        config = runs.read_config(config or _fitting_file(checkpoint, predictor))
    config = copy.deepcopy(config)
    encoder = config.encoder
    if checkpoint.is_trunk:
        encoder.stem, encoder.width = torch_checkpoint.read_trunk(checkpoint, given)
        for name in {"token_layer", "token_hw", "split_qp"} & given.keys():
            encoder[name] = given[name]
        return config
    architecture = torch_checkpoint.read_architecture(checkpoint, given, config.data.image_size)
    for name, value in architecture._asdict().items():
        if value is not None or name in ("token_hw", "embed_dim"):
            encoder[name] = value
    if predictor is not None:
        config.predictor.kind, config.predictor.energy = predictor.kind, predictor.energy
        config.predictor.hidden, config.predictor.depth = predictor.hidden, predictor.depth
        config.predictor.residual_warmup_epochs, config.predictor.horizon = 0, ()  # behind them
        for name in ("base_coeff", "residual_scale"):
            if f"predictor.{name}" not in changed:
                value = torch_checkpoint.read_number(name, checkpoint.settings)
                config.predictor[name] = config.predictor[name] if value is None else value
    return config


def _fitting_file(
    checkpoint: torch_checkpoint.Checkpoint, predictor: torch_checkpoint.PredictorWeights | None
) -> pathlib.Path:
    name = "conv1.weight" if checkpoint.is_trunk else "stem.0.weight"
    first = checkpoint.encoder.get(name, checkpoint.encoder.get("backbone.0.weight"))
    data = "imagenet100" if first is not None and first.shape[-1] == 7 else "cifar100"
    kind = "" if checkpoint.is_trunk or predictor is not None else "_sigreg"
    return pathlib.Path(hamjepa_jax.__file__).parent.parent / "configs" / f"{data}{kind}.py"


def _with_weights(
    state: TrainState,
    config: ConfigDict,
    checkpoint: torch_checkpoint.Checkpoint,
    predictor: torch_checkpoint.PredictorWeights | None,
    strict: bool,
) -> TrainState:
    """The state with the checkpoint's weights in place of the fresh ones; what stays fresh is logged."""
    e, params, batch_stats = config.encoder, dict(state.params), dict(state.batch_stats)
    fresh = torch_names.state_dict_from_encoder(
        {"params": params["encoder"], "batch_stats": batch_stats["encoder"]}
    )
    own = {name for name in fresh if not name.endswith(torch_names.COUNTER)}
    weights = {k: np.asarray(v) for k, v in checkpoint.encoder.items() if not k.endswith(torch_names.COUNTER)}
    if checkpoint.is_trunk:
        weights = torch_names.from_classifier(weights, is_global=e.mode == "global")
        own -= {name for name in own if name.startswith(("token_proj.", "fc."))}
        log.info(
            "only the trunk's weights are in the checkpoint; all others are freshly initialised (seed %d).",
            config.seed,
        )
    missing = own - weights.keys()
    if not strict:
        unexpected = {k for k in weights if k not in fresh and not torch_names.is_behind(k, e.token_layer)}
        unexpected |= {k for k in weights.keys() & own if weights[k].shape != fresh[k].shape}
        weights = {k: v for k, v in weights.items() if k not in unexpected}
        log.warning("freshly initialised: %s; ignored: %s", sorted(own - weights.keys()), sorted(unexpected))
    elif missing:
        raise UserError(f"the encoder lacks the weights {', '.join(sorted(missing))} (see --non_strict).")
    weights = {k: v.astype(np.float32) for k, v in weights.items()}
    options = dict(stem=e.stem, token_layer=e.token_layer, token_hw=e.token_hw, split_qp=e.split_qp)
    try:
        _, variables = torch_names.encoder_from_state_dict(fresh | weights, **options)
        torch_names.check_shapes(
            variables, {"params": params["encoder"], "batch_stats": batch_stats["encoder"]}
        )  # A bare trunk may have another width.
    except ValueError as error:
        raise UserError(f"{error} (See --non_strict.)") from None
    params["encoder"], batch_stats["encoder"] = variables["params"], variables["batch_stats"]
    if predictor is not None:
        params["predictor"] = _like(params["predictor"], predictor)
    elif not checkpoint.is_trunk and config.predictor.kind != "identity":
        log.warning(
            "the checkpoint has no predictor; predictor.kind=%r is freshly initialised.", config.predictor.kind
        )
    return state.replace(params=params, batch_stats=batch_stats)


def _like(fresh: Mapping[str, Any], predictor: torch_checkpoint.PredictorWeights) -> dict:
    """The predictor's parameters, as float32, if they have the shapes that the config asks for."""
    shapes = [jax.tree.map(np.shape, tree) for tree in (dict(fresh), predictor.params)]
    if shapes[0] != shapes[1]:
        raise UserError(
            f"the predictor takes states of other sizes ({predictor.input_size} numbers) than the encoder gives; "
            f"check --token_hw and the config's data.image_size."
        )
    return jax.tree.map(lambda x: np.asarray(x, np.float32), predictor.params)
