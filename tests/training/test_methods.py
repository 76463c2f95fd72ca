"""Every baseline and ablation trains, alone and on eight devices, with a linear encoder in place of the ResNet.

What an objective, a predictor and an optimiser do to a step does not depend on the encoder, and a linear one
compiles in a second; tests/training/test_step.py has whole steps of HamJEPA and SIGReg.
"""

import importlib
import itertools

import jax
import numpy as np
import pytest
import tiny
from jax.sharding import AxisType

from hamjepa_jax import build
from hamjepa_jax import config as config_lib
from hamjepa_jax.training.mesh import batch_sharded, replicated

BATCH, PIXELS = 16, 4 * 4 * 3
STORE = np.random.default_rng(0).normal(size=(64, 2, 4, 4, 3)).astype(np.float32)  # two "views" of each example

ABLATIONS = {
    "mlp": {"predictor.kind": "mlp"},
    "identity": {"predictor.kind": "identity"},
    "explicit euler": {"predictor.method": "euler"},
    "yoshida": {"predictor.method": "yoshida4", "objective.hamjepa.both_directions": "none"},  # slow to compile
    "general energy": {"predictor.energy": "general"},
    "curriculum": {"predictor.num_steps": 3, "predictor.horizon": ((1, 1), (2, 3))},
}
CHAIN_1D = {"objective.hamsigreg.chain.mode": "1d"}
ADVERSARIAL = {"objective.hamsigreg.learnable.adversarial": True}
METHODS = {
    **{name: ("cifar100", changes) for name, changes in ABLATIONS.items()},
    "vicreg": ("cifar100_vicreg", {}),
    "sigreg options": (
        "cifar100_sigreg",
        {f"objective.lejepa.{k}": v for k, v in dict(subsample=8, clip=0.01, weight="uniform").items()}
        | {
            "objective.lejepa.num_points": 17,
            "objective.lejepa.t_max": 5.0,
            "objective.lejepa.refresh_interval": 2,
        },
    ),
    "lejepa": ("cifar100_lejepa", {"objective.lejepa.pool_views": True}),
    "simclr": ("cifar100_simclr", {}),
    "byol": ("cifar100_byol", {"objective.byol.predictor_hidden": 16}),
    "barlow twins": ("cifar100_barlow_twins", {}),
    "alignment": ("cifar100_alignment_uniformity", {}),
    "simdino": ("cifar100_simdino", {}),
    "mcr2": ("cifar100_mcr2", {}),
    "total coding rate": ("cifar100_mcr2", {"objective.mcr2.compression": "cosine"}),
    "kerjepa": ("cifar100_kerjepa", {}),
    "kerjepa, ksd": (
        "cifar100_kerjepa",
        {f"objective.kerjepa.{k}": v for k, v in dict(discrepancy="ksd", slicing="random", kernel="imq").items()},
    ),
    "diag": ("cifar100_hamsigreg_diag", {}),
    "chain on the grid": ("cifar100_hamsigreg_chain", {}),
    "chain along the vector": ("cifar100_hamsigreg_chain", CHAIN_1D),
    "chain of q and p": ("cifar100_hamsigreg_chain", {"encoder.split_qp": True}),
    "learnable": ("cifar100_hamsigreg_learnable", {}),
    "learnable, adversarial": ("cifar100_hamsigreg_learnable", ADVERSARIAL),
}


def set_fields(config, changes):
    for field, value in changes.items():
        *path, name = field.split(".")
        block = config
        for part in path:
            block = block[part]
        block[name] = value
    return config


def small(file, changes):
    """The config of a file in configs/, its method as it is and everything else as small as in tests/tiny.py."""
    config, sizes = importlib.import_module(f"configs.{file}").get_config(), tiny.get_config()
    config.data, config.encoder = sizes.data, sizes.encoder.copy_and_resolve_references()
    config.encoder.split_qp = config.objective.name == "hamjepa"
    config.objective.hamjepa.projection_dim = 8
    config.predictor.hidden, config.predictor.depth, config.optimizer.warmup = 16, 1, "2 steps"
    config.train.batch_size, config.train.epochs = BATCH, 4
    learnable = config.objective.hamsigreg.learnable
    learnable.alpha_start = learnable.alpha_ramp = learnable.beta_ramp = 0.0  # The spectrum acts from the start.
    set_fields(config, changes)
    build.check(config)
    config_lib.check_devices(config, 8)
    return config


def linear_model(config):
    """`build.Model` with a linear encoder of the pixels."""
    predictor, dim = build.build_predictor(config), build.embed_dim(config)

    def init(key):
        kernel = jax.random.normal(key, (PIXELS, dim)) / np.sqrt(PIXELS)
        return {"encoder": kernel, "predictor": predictor.init(key, dim // 2)}, {"encoder": ()}

    def encode(params, batch_stats, images):
        return images.reshape(-1, PIXELS) @ params["encoder"], batch_stats

    def embed(params, batch_stats, images):
        z, batch_stats = encode(params, batch_stats, images)
        return (z, z), batch_stats

    return build.Model(init, encode, None, predictor, embed)


def run(config, monkeypatch, *, devices=1, steps=4, start=None):
    """Metrics by step and states before and after; four steps make an epoch. `start` saves making a first state."""
    monkeypatch.setattr(build, "build_views", lambda config, mesh: lambda store, indices, epoch: (store[indices],))
    axes = (AxisType.Auto,)
    mesh = jax.make_mesh((devices,), ("data",), devices=jax.devices()[:devices], axis_types=axes)
    training = build.build_training(config, linear_model(config), len(STORE), mesh)
    if start is None:
        start = jax.device_get(jax.jit(lambda: training.init(build.init_key(config)))())
    state = jax.device_put(start, replicated(mesh))
    step = jax.jit(training.step, out_shardings=replicated(mesh))
    store, history, states = jax.device_put(STORE, replicated(mesh)), [], [start]
    for i in range(steps):
        indices = np.random.default_rng(i).permutation(len(STORE))[:BATCH]
        state, metrics = step(state, store, jax.device_put(indices, batch_sharded(mesh)))
        history.append(jax.device_get(metrics))
        states.append(jax.device_get(state))
    assert step._cache_size() == 1
    return history, states


def differs(a, b):
    return any(not np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


# In `make test` another method has their code, but for an option.
VARIED = (
    "mlp", "identity", "explicit euler", "yoshida", "general energy", "curriculum", "chain along the vector",
    "learnable, adversarial", "lejepa", "barlow twins", "alignment", "simdino", "mcr2", "total coding rate",
    "kerjepa", "kerjepa, ksd",
)  # fmt: skip


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in VARIED else []) for name in METHODS]
)
def test_a_method_trains_alone_and_on_eight_devices(name, monkeypatch):
    config = small(*METHODS[name])
    one, states = run(config, monkeypatch, devices=1)
    eight, states_of_eight = run(config, monkeypatch, devices=8, start=states[0])
    for a, b in zip(one, eight, strict=True):
        assert all(np.isfinite(value) for value in a.values()), a
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-3, atol=1e-4), a, b)
    for quantity in ("total", "grad_norm"):
        np.testing.assert_allclose(one[0][quantity], eight[0][quantity], rtol=1e-5)
    # The first gradient, as Adam's first moment has it.
    moments = [jax.tree.leaves(s[1].opt_state) for s in (states, states_of_eight)]
    largest = max(np.abs(x).max() for x in moments[0] if x.ndim)
    for a, b in zip(
        *moments, strict=True
    ):  # Where a gradient is zero, as before a normalisation, rounding is left.
        np.testing.assert_allclose(a, b, atol=max(2e-5 * np.abs(a).max(), 2e-7 * largest))
    assert differs(states[0].params["encoder"], states[-1].params["encoder"])


# -- HamSIGReg ------


def test_the_identity_geometry_is_lejepa_exactly(monkeypatch):
    lejepa, states = run(small("cifar100_sigreg", {}), monkeypatch)
    identity = {"objective.hamsigreg.kind": "identity"}
    same, same_states = run(small("cifar100_hamsigreg_diag", identity), monkeypatch)
    assert lejepa == same
    assert not differs(states[-1], same_states[-1])


def spectrum_of(state):
    return state.params["spectrum"]


LEARNABLE = "objective.hamsigreg.learnable."


@pytest.mark.parametrize("adversarial", [False, True])
def test_the_spectrum_moves_by_its_own_loss_and_nothing_else_does(adversarial, monkeypatch):
    """One step with and without the spectrum's own update: every network ends at the same bits."""
    changes = {LEARNABLE + "adversarial": adversarial, LEARNABLE + "adv_mult": 50.0}
    moving = small("cifar100_hamsigreg_learnable", changes)
    still = small("cifar100_hamsigreg_learnable", changes | {"optimizer.spectrum_learning_rate": 0.0})
    _, (start, after) = run(moving, monkeypatch, steps=1)
    _, (_, unmoved) = run(still, monkeypatch, steps=1)
    assert differs(spectrum_of(start), spectrum_of(after)) and not differs(spectrum_of(start), spectrum_of(unmoved))
    for group in ("encoder", "predictor"):
        assert not differs(after.params[group], unmoved.params[group])


def test_minimising_and_maximising_move_the_spectrum_apart(monkeypatch):
    changes = {LEARNABLE + "spectral_weight": 0.0, "optimizer.spectrum_learning_rate": 0.05}
    gentle = small("cifar100_hamsigreg_learnable", changes)
    harsh = small("cifar100_hamsigreg_learnable", changes | {LEARNABLE + "adversarial": True})
    down, up = run(gentle, monkeypatch, steps=1)[1], run(harsh, monkeypatch, steps=1)[1]
    for name in ("raw_span", "raw_shape"):
        start = spectrum_of(down[0])[name]
        # Adam's first step is the sign of the gradient, and without the regulariser only that is turned.
        np.testing.assert_allclose(spectrum_of(down[1])[name] - start, start - spectrum_of(up[1])[name], rtol=1e-3)
        assert np.abs(spectrum_of(up[1])[name] - start).max() > 0.04


def test_the_encoder_gets_the_spectral_term_as_a_constant(monkeypatch):
    """With a heavy spectral term the total grows by it, and the encoder's gradient stays what it was."""
    heavy = small("cifar100_hamsigreg_learnable", {LEARNABLE + "spectral_weight": 1e4})
    none = small("cifar100_hamsigreg_learnable", {LEARNABLE + "spectral_weight": 0.0})
    (with_term,), (without,) = run(heavy, monkeypatch, steps=1)[0], run(none, monkeypatch, steps=1)[0]
    assert with_term["spectral"] > 0
    np.testing.assert_allclose(with_term["total"] - without["total"], 1e4 * with_term["spectral"], rtol=1e-3)
    np.testing.assert_allclose(with_term["grad_norm"], without["grad_norm"], rtol=1e-6)


def test_the_spectrum_is_updated_every_n_steps_without_decay_or_clipping(monkeypatch):
    changes = {"optimizer.spectrum_interval": 3, "optimizer.clip_norm": 1e-9, "optimizer.weight_decay": 0.5}
    changes |= {"optimizer.spectrum_learning_rate": 0.01}
    _, states = run(small("cifar100_hamsigreg_learnable", changes), monkeypatch, steps=5)
    moved = [differs(spectrum_of(a), spectrum_of(b)) for a, b in itertools.pairwise(states)]
    assert moved == [True, False, False, True, False]
    step = np.abs(spectrum_of(states[1])["raw_shape"] - spectrum_of(states[0])["raw_shape"])
    np.testing.assert_allclose(step, 0.01, rtol=0.02)  # Adam's first step, whatever the networks' clip says.


def test_schedules_and_health_of_the_spectrum_are_logged(monkeypatch):
    changes = {LEARNABLE + "alpha_start": 1.0, LEARNABLE + "alpha_ramp": 2.0, LEARNABLE + "beta_start": 2.0}
    history, _ = run(small("cifar100_hamsigreg_learnable", changes), monkeypatch, steps=12)  # three epochs
    assert [float(m["spectrum_alpha"]) for m in history[::4]] == [0.0, 0.5, 1.0]
    assert [float(m["spectrum_beta"]) for m in history[::4]] == [0.0, 0.0, 1.0]
    np.testing.assert_allclose(history[0]["spectrum_lam_cond"], 1.0, rtol=1e-6)
    assert history[-1]["spectrum_lam_cond"] > 5  # the Laplacian base: 1 + 4ν, ν up to 8
    assert {"spectrum_loglam_min", "spectrum_g_last", "spectrum_loss", "spectral"} <= set(history[0])


# -- Horizon curriculum ------


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["hamiltonian", "mlp"])
def test_a_curriculum_is_the_plain_horizon_of_its_stage(kind, monkeypatch):
    """Four steps an epoch: one step of the flow in the first, three from the second epoch on."""
    changes = {"predictor.kind": kind, "predictor.num_steps": 3, "predictor.horizon": ((1, 1), (2, 3))}
    grown, grown_states = run(small("cifar100", changes), monkeypatch, steps=5)
    assert [int(m["horizon"]) for m in grown] == [1, 1, 1, 1, 3]
    plain = small("cifar100", {"predictor.kind": kind, "predictor.num_steps": 1})
    short, short_states = run(plain, monkeypatch, steps=4)
    for a, b in zip(grown, short, strict=False):
        for name in b:
            np.testing.assert_allclose(a[name], b[name], rtol=1e-4, atol=1e-6, err_msg=name)
    np.testing.assert_allclose(grown_states[4].params["encoder"], short_states[4].params["encoder"], atol=1e-6)
