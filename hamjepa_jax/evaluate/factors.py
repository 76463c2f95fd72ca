"""What the readouts of trained runs know of the factors that their images were drawn from, run by run and together.

OUT/factors.json is the environment with {"protocol", "kinds": {factor: kind}, "runs": […], "results": {method:
{"before" or "after" the flow: {readout: {factor: {probe: [score of each run]}}}}}}; beside it are factors.png and
factors.txt.
"""

import json
import logging
import pathlib
from collections.abc import Mapping, Sequence

import jax
import ml_collections
import numpy as np

from hamjepa_jax import build, evaluation, parts, report
from hamjepa_jax.config import flat_fields
from hamjepa_jax.data import Source, factors_of
from hamjepa_jax.errors import UserError
from hamjepa_jax.evaluate.evaluator import Evaluator, in_batches
from hamjepa_jax.evaluation.factors import PROTOCOL, Values
from hamjepa_jax.files import make_folder, write_json, write_text
from hamjepa_jax.run.restore import flow_of, learns_flow
from hamjepa_jax.run.workdir import environment
from hamjepa_jax.training.state import TrainState

ConfigDict = ml_collections.ConfigDict
Scores = dict[str, dict[str, dict[str, dict[str, float]]]]  # stage, readout, factor, probe
log = logging.getLogger(__name__)


def check_factors(source: Source, spec: str) -> None:
    """Refuses a source whose images' factors are not known.

    Raises:
      UserError: naming the source.
    """
    if not kinds_of_factors(source):
        raise UserError(
            f"--factors: data.source {spec!r} does not state the factors of its images; evaluate on one that does, "
            f"as with --source=shapes."
        )


def check_seeds(workdirs: Sequence[pathlib.Path], configs: Sequence[ConfigDict]) -> None:
    """Refuses runs that are put together and are of one method and seed.

    Raises:
      UserError: naming the two.
    """
    seen: dict[tuple[str, int], pathlib.Path] = {}
    for workdir, config, name in zip(workdirs, configs, _method_names(configs), strict=True):
        other = seen.setdefault((name, config.seed), workdir)
        if other is not workdir:
            raise UserError(
                f"--factors: {workdir} and {other} are both of seed {config.seed}, and one run would count twice; "
                f"leave one of them out."
            )


def kinds_of_factors(source: Source) -> dict[str, str]:
    """{factor: its kind} of those that are known of the training and of the test images."""
    test = factors_of(source.test)
    return {name: factor.kind for name, factor in factors_of(source.train).items() if name in test}


def measure_factors(
    config: ConfigDict,
    model: build.Model,
    state: TrainState,
    evaluator: Evaluator,
    source: Source,
    *,
    features: Sequence[np.ndarray],
    epoch: int,
) -> Scores:
    """The scores of `evaluation.factor_scores` for every readout of a checkpoint, with probes of its own.

    Args:
      config: of the evaluation.
      model: the networks.
      state: the weights.
      evaluator: that has made the features.
      source: the images.
      features: states of the training and the test images.
      epoch: of the checkpoint, counted from 1, for the flow.

    Returns:
      {"before": {readout: {factor: {probe: score}}}}, and "after" the flow if one is learned.
    """
    train, test = factors_of(source.train), factors_of(source.test)
    values = {
        name: Values(train[name].values[evaluator.kept], test[name].values, train[name].kind)
        for name in kinds_of_factors(source)
    }
    stages = {"before": features}
    if learns_flow(config):
        flow, _ = flow_of(config, model.predictor, state.params["predictor"], epoch)
        forward = jax.jit(lambda z: flow(z, 1))
        stages["after"] = [in_batches(forward, z, config.evaluate.batch_size) for z in features]
    found: Scores = {}
    for stage, states in stages.items():
        read = [evaluation.readouts(z, split=config.encoder.split_qp) for z in states]
        found[stage] = {
            name: evaluation.factor_scores(read[0][name], read[1][name], values, seed=config.seed)
            for name in read[0]
        }
    return found


def write_factors(out: pathlib.Path, runs: Sequence[tuple[ConfigDict, dict]]) -> None:
    """Puts runs together: the seeds of one config are one method. Writes factors.json, factors.txt, factors.png.

    Args:
      out: folder to write to.
      runs: (config, metrics.json's object) of each; the last checkpoint counts.
    """
    out = make_folder(out, "--out")
    names = _method_names([config for config, _ in runs])
    results: dict[str, dict] = {}
    kinds: dict[str, str] = {}
    about = []
    for name, (_, measured) in zip(names, runs, strict=True):
        last = measured["checkpoints"][-1]
        _collect(results.setdefault(name, {}), last["factors"])
        kinds |= measured["evaluation"]["factors"]
        kept = ("trained_on", "evaluated_on", "fingerprint", "seed")
        described = {fact: measured["evaluation"][fact] for fact in kept}
        about.append({"method": name, **described, "step": last["step"], "epoch": last["epoch"]})
    content = {**environment(), "protocol": PROTOCOL, "kinds": kinds, "runs": about, "results": results}
    table = report.factors_text(content)
    write_text(out / "factors.txt", table + "\n")
    report.factors_figure(content, out / "factors.png")
    write_json(out / "factors.json", content)
    log.info("%s\nwritten to %s", table, out / "factors.json")


def _collect(into: dict, scores: Mapping | float) -> None:
    """Appends each score to the list at its place."""
    for name, below in scores.items():
        if isinstance(below, Mapping):
            _collect(into.setdefault(name, {}), below)
        else:
            into.setdefault(name, []).append(below)


def _method_names(configs: Sequence[ConfigDict]) -> list[str]:
    """A name for each config: that of its objective and predictor, with a number where methods differ otherwise.

    Settings that make no other run, as those of the log and of the evaluation, make no other method either.
    """
    groups: dict[str, dict[str, str]] = {}
    names = []
    for config in configs:
        fields = flat_fields(config)
        apart = {f: value for f, value in fields.items() if f == "data.source" or not report.is_free(f)}
        of_title = groups.setdefault(_title(config), {})
        identity = json.dumps(apart, sort_keys=True)
        of_title.setdefault(identity, _title(config) + (f" {len(of_title) + 1}" if of_title else ""))
        names.append(of_title[identity])
    return names


def _title(config: ConfigDict) -> str:
    about = parts.objectives[config.objective.name].about
    plain = not about["uses_predictor"] or config.predictor.kind == "hamiltonian"
    return about["title"] + ("" if plain else f" with {config.predictor.kind} predictor")
