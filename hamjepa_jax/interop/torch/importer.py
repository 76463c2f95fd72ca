"""A PyTorch checkpoint to a workdir of this package.

The workdir has the checkpoint as step 0: --mode=evaluate evaluates it, and training in it starts from its weights,
with a fresh optimiser. No image is opened; a run adopts the images that it is first trained on.
"""

import copy
import json
import logging
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import ml_collections
import numpy as np

from hamjepa_jax import files
from hamjepa_jax.config.default import block_of
from hamjepa_jax.config.files import read_config
from hamjepa_jax.config.grammar import assign, assignment
from hamjepa_jax.config.shipped import shipped_file
from hamjepa_jax.errors import UserError
from hamjepa_jax.interop.torch.checkpoint import (
    Checkpoint,
    PredictorWeights,
    parse,
    read_architecture,
    read_number,
    read_predictor,
    read_trunk,
)
from hamjepa_jax.interop.torch.file import read_file
from hamjepa_jax.interop.torch.names import (
    COUNTER,
    from_zoo,
    image_weight,
    is_absent,
    state_dict_from_encoder,
    variables_from_state_dict,
)
from hamjepa_jax.interop.workdirs import begun_with, fresh_state, write_workdir
from hamjepa_jax.training.state import TrainState

ConfigDict = ml_collections.ConfigDict
log = logging.getLogger(__name__)


def import_checkpoint(
    path: str | pathlib.Path,
    out: str | pathlib.Path,
    *,
    config: str | ConfigDict | None = None,
    source: str | None = None,
    overrides: Sequence[str] = (),
    given: Mapping[str, Any] | None = None,
    part: str | None = None,
    strict: bool = True,
) -> ConfigDict:
    """Makes the workdir `out` of a PyTorch checkpoint.

    Args:
      path: of the file, see `read_file`.
      out: folder without a run.
      config: of the run, or its file; None for the shipped one that fits the weights.
      source: its images, as data.source; None for the config's.
      overrides: "field=value" changes of the config.
      given: those of stem, token_layer, token_hw and split_qp that are known.
      part: name of the entry, or of the network, whose weights are taken where the file holds several.
      strict: whether missing and unexpected weights are an error.

    Returns:
      The config of the workdir.

    Raises:
      UserError: for a file that cannot be read, weights of another network, settings that can be found nowhere.
    """
    path = files.user_path(path, "CKPT")
    saved = read_file(path)
    try:
        checkpoint = parse(saved, part)
        predictor = read_predictor(checkpoint.predictor)
        given = {k: v for k, v in (given or {}).items() if v is not None or k == "token_hw"}
        changes = [assignment(text) for text in overrides]
        config = _config(checkpoint, predictor, config, given, dict(changes))
        if source is not None:
            config.data.source = source
        for field, text in changes:
            assign(config, field, text)
        state = _with_weights(fresh_state(config), config, checkpoint, predictor, strict)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    if checkpoint.others:
        log.info(
            "took the weights of %s; the file also has %s, see --part",
            checkpoint.taken,
            ", ".join(checkpoint.others),
        )
    elif checkpoint.taken:
        log.info("took the weights of %s", checkpoint.taken)
    if checkpoint.unused:
        log.info("not read: %s", ", ".join(checkpoint.unused))
    origin = {"file": path.name, "epoch": checkpoint.epoch}
    write_workdir(out, config, state, origin)
    settings = json.loads(config.encoder.to_json_best_effort())
    shown = {k: v for k, v in settings.items() if not k.startswith("projector") and k != "dtype"}
    epoch = "" if checkpoint.epoch is None else f"epoch {checkpoint.epoch} of "
    log.info("wrote %s: %s%s, encoder %s", out, epoch, path, json.dumps(shown))
    return config


def _config(
    checkpoint: Checkpoint,
    predictor: PredictorWeights | None,
    config: str | ConfigDict | None,
    given: Mapping[str, Any],
    changed: Mapping[str, str],
) -> ConfigDict:
    """The run's config with the checkpoint's architecture; the caller sets the fields in `changed` afterwards."""
    if not isinstance(config, ConfigDict):
        config = read_config(str(config or _fitting_file(checkpoint, predictor)))
    config = copy.deepcopy(config)
    encoder = config.encoder
    _set_trunk(config, read_trunk(checkpoint, given), changed)
    if checkpoint.is_trunk:
        layers = [int(match[1]) for name in checkpoint.encoder if (match := re.match(r"layer(\d)\.", name))]
        if layers:  # A file may end there, as an export's does.
            encoder.token_layer = min(encoder.token_layer, max(layers))
        for field in {"token_layer", "token_hw", "split_qp"} & given.keys():
            encoder[field] = given[field]
        return config
    for field, value in read_architecture(checkpoint, given, config)._asdict().items():
        if value is not None or field in ("token_hw", "embed_dim"):
            encoder[field] = value
    if predictor is not None:
        config.predictor.kind, config.predictor.energy = predictor.kind, predictor.energy
        config.predictor.hidden, config.predictor.depth = predictor.hidden, predictor.depth
        # The weights have been through the warm-up and the curriculum.
        config.predictor.residual_warmup_epochs, config.predictor.horizon = 0, ()
        for field in ("base_coeff", "residual_scale"):
            if f"predictor.{field}" not in changed:
                value = read_number(field, checkpoint.settings)
                config.predictor[field] = config.predictor[field] if value is None else value
    return config


def _set_trunk(config: ConfigDict, settings: Mapping[str, Any], changed: Mapping[str, str]) -> None:
    """Sets the trunk's fields. Those that no weight shows are in `changed` or in the config."""
    for name, value in settings.items():
        path = f"encoder.{name}"
        block, _, field = path.rpartition(".")
        if value is not ...:
            block_of(config, block)[field] = value
        elif path in changed:
            assign(config, path, changed[path])
        elif block_of(config, block)[field] is None:
            raise UserError(f"no weight shows {path}, and the size is of no name; give --override {path}=N.")


def _fitting_file(checkpoint: Checkpoint, predictor: PredictorWeights | None) -> pathlib.Path:
    read_trunk(checkpoint, {})  # Refuses what has none.
    first = checkpoint.encoder[image_weight(checkpoint.encoder)]
    data = "imagenet100" if first.shape[-1] >= 7 else "cifar100"  # Stems of 7×7 and usual patches.
    kind = "" if checkpoint.is_trunk or predictor is not None else "_sigreg"
    return shipped_file(f"{data}{kind}")


def _with_weights(
    state: TrainState,
    config: ConfigDict,
    checkpoint: Checkpoint,
    predictor: PredictorWeights | None,
    strict: bool,
) -> TrainState:
    """The state with the checkpoint's weights in place of the fresh ones; the log names those that stay fresh."""
    trunk, params, batch_stats = config.encoder.trunk, dict(state.params), dict(state.batch_stats)
    like = {"params": params["encoder"], "batch_stats": batch_stats["encoder"]}
    fresh = state_dict_from_encoder(like, trunk)
    own = {weight for weight in fresh if not weight.endswith(COUNTER)}
    weights = {k: np.asarray(v) for k, v in checkpoint.encoder.items() if not k.endswith(COUNTER)}
    if checkpoint.is_trunk:
        weights = from_zoo(weights, is_global=config.encoder.mode == "global")
        own -= {weight for weight in own if weight.startswith(("token_proj.", "fc."))}
        log.info(
            "only the trunk's weights are in the checkpoint; all others are freshly initialised (seed %d).",
            config.seed,
        )
    missing = own - weights.keys()
    if not strict:
        unexpected = {k for k in weights if k not in fresh and not is_absent(k, fresh, trunk)}
        unexpected |= {k for k in weights.keys() & own if weights[k].shape != fresh[k].shape}
        weights = {k: v for k, v in weights.items() if k not in unexpected}
        log.warning("freshly initialised: %s; ignored: %s", sorted(own - weights.keys()), sorted(unexpected))
    elif missing:
        raise UserError(f"the encoder lacks the weights {', '.join(sorted(missing))} (see --non_strict).")
    weights = {k: v.astype(np.float32) for k, v in weights.items()}
    try:
        variables = variables_from_state_dict(fresh | weights, like, trunk)
    except ValueError as error:
        raise UserError(f"{error} (See --non_strict.)") from None
    params["encoder"], batch_stats["encoder"] = variables["params"], variables["batch_stats"]
    if predictor is not None:
        params["predictor"] = _like(params["predictor"], predictor)
    elif not checkpoint.is_trunk and config.predictor.kind != "identity":
        log.warning(
            "the checkpoint has no predictor; predictor.kind=%r is freshly initialised.", config.predictor.kind
        )
    return begun_with(state, params, batch_stats)


def _like(fresh: Mapping[str, Any], predictor: PredictorWeights) -> dict:
    """The predictor's parameters, as float32, if they have the shapes that the config asks for."""
    shapes = [jax.tree.map(np.shape, tree) for tree in (dict(fresh), predictor.params)]
    if shapes[0] != shapes[1]:
        raise UserError(
            f"the predictor takes states of other sizes ({predictor.input_size} numbers) than the encoder gives; "
            f"check --token_hw and the config's data.image_size."
        )
    return jax.tree.map(lambda x: np.asarray(x, np.float32), predictor.params)
