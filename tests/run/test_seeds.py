"""Seeds trained at once are the runs trained one by one, up to rounding."""

import json
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from hamjepa_jax import disk
from hamjepa_jax.data import open_source
from hamjepa_jax.errors import UserError
from hamjepa_jax.run.restore import open_checkpoints
from hamjepa_jax.run.seeds import make_step, stack
from hamjepa_jax.run.setup import set_up
from hamjepa_jax.train import train, train_seeds
from hamjepa_jax.training.writer import MetricsWriter


def with_seed(config, seed):
    config = config.copy_and_resolve_references()
    config.seed = seed
    return config


def newest(config, workdir):
    checkpoints = open_checkpoints(config, workdir)
    step = checkpoints.steps()[-1]
    state = jax.device_get(checkpoints.restore(None, step))
    checkpoints.close()
    return step, state


def logged(workdir, name):
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return [line[name] for line in lines if name in line]


def signalled_after_logging(step):
    """Writes like MetricsWriter; a signal comes in with the first record of `step`."""
    write, sent = MetricsWriter.write_scalars, []

    def write_scalars(self, at, scalars):
        write(self, at, scalars)
        if at == step and not sent:  # A second one would end the process.
            sent.append(at)
            signal.raise_signal(signal.SIGTERM)

    return write_scalars


@pytest.mark.slow
def test_seeds_at_once_equal_separate_runs_and_train_goes_on_from_them(tiny_config, tmp_path, monkeypatch):
    tiny_config.train.steps, tiny_config.checkpoint.every = 4, "2 steps"
    tiny_config.evaluate.every = ""
    configs = [with_seed(tiny_config, seed) for seed in (0, 5)]
    source = open_source(tiny_config.data.source)
    at_once, apart = [tmp_path / f"once{i}" for i in (0, 1)], [tmp_path / f"apart{i}" for i in (0, 1)]
    with monkeypatch.context() as patch:  # Stopped on the way, with nothing lost, and gone on with.
        patch.setattr(MetricsWriter, "write_scalars", signalled_after_logging(1))
        assert not train_seeds(configs, at_once, source)
    for config, together in zip(configs, at_once, strict=True):
        assert newest(config, together)[0] == logged(together, "step")[-1] == 2
    assert train_seeds(configs, at_once, source)
    for config, together, alone in zip(configs, at_once, apart, strict=True):
        train(config, alone)
        (step, got), (step_alone, want) = newest(config, together), newest(config, alone)
        assert logged(together, "step") == [1, 2, 3, 4]
        assert step == step_alone == 4
        for name in ("train/total", "train/pred", "train/grad_norm"):
            np.testing.assert_allclose(logged(together, name), logged(alone, name), rtol=2e-3, err_msg=name)
        np.testing.assert_allclose(logged(together, "train/total")[:2], logged(alone, "train/total")[:2], rtol=1e-5)
        kernels = [s["params"]["encoder"]["token_conv"]["kernel"] for s in (got, want)]
        np.testing.assert_allclose(*kernels, atol=2e-4)
        np.testing.assert_allclose(got["draw"]["q"], want["draw"]["q"], atol=1e-5)  # each seed's own projections
    assert abs(logged(at_once[0], "train/total")[0] - logged(at_once[1], "train/total")[0]) > 1e-4
    assert train(configs[1], at_once[1])["step"] == 4  # evaluates what was trained together

    # Runs at different steps cannot go on together.
    tiny_config.train.steps = 4
    fresh = tmp_path / "fresh"
    with pytest.raises(UserError, match=r"steps 4, 0; leave the flag out"):
        train_seeds([configs[0], with_seed(tiny_config, 9)], [at_once[0], fresh], source)


def count_conditions(jaxpr):
    """Branches in a program that are only computed where they are taken."""
    return sum(
        (equation.primitive.name == "cond") + sum(map(count_conditions, jaxprs_in_params(equation.params)))
        for equation in jaxpr.eqns
    )


def test_seeds_at_once_refresh_their_projections_only_when_due(tiny_config):
    setup = set_up(tiny_config, devices=jax.devices()[:1])
    training, state = setup.training, setup.abstract
    images, index = jnp.zeros((96, 8, 8, 3), jnp.uint8), jnp.zeros((16,), jnp.int32)
    alone = jax.make_jaxpr(training.step)(state, images, index)
    states = jax.eval_shape(stack, state, state)
    together = jax.make_jaxpr(make_step(setup))(jnp.array([0, 5]), states, images, jnp.stack([index, index]))
    assert count_conditions(together.jaxpr) == count_conditions(alone.jaxpr) > 0


def test_room_for_the_checkpoints_of_all_seeds_is_looked_for(quick_config, tmp_path, monkeypatch):
    monkeypatch.setattr(disk, "room", lambda path: 1000 if "second" in str(path) else 10**12)
    configs = [with_seed(quick_config, seed) for seed in (0, 1)]
    workdirs = [tmp_path / "first", tmp_path / "second"]
    with pytest.raises(UserError, match=r"second/checkpoints: has 0\.0 MB free"):
        train_seeds(configs, workdirs, open_source(quick_config.data.source))


@pytest.mark.slow
def test_a_table_is_made_with_its_seeds_trained_at_once(tmp_path, capsys):
    from hamjepa_jax import reproduce

    small = {
        "data.image_size": 8, "encoder.width": 4, "encoder.token_layer": 2, "encoder.token_dim": 4,
        "encoder.dtype": "float32", "train.epochs": 1, "train.batch_size": 16, "optimizer.warmup": "2 steps",
        "evaluate.ks": (1, 5), "evaluate.probe.epochs": 1, "objective.hamjepa.projection_dim": 8,
    }  # fmt: skip
    overrides = [f"--override={field}={value}" for field, value in small.items()]
    made = reproduce.main(
        ["--table=cifar100_30", "--seeds=0,1", "--data=synthetic:96x8", f"--out={tmp_path}", "--methods=hamjepa",
         "--parallel_seeds", *overrides]
    )  # fmt: skip
    assert made == 0, capsys.readouterr().err
    assert (tmp_path / "report.html").exists()
    for seed in (0, 1):
        saved = json.loads((tmp_path / "runs" / f"hamjepa_seed{seed}" / "config.json").read_text())
        assert saved["config"]["seed"] == seed
