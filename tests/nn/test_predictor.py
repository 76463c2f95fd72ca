"""Predictors against the published numbers, and the structure they promise."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hamjepa_jax import dynamics, nn, parts
from hamjepa_jax.errors import UserError
from hamjepa_jax.interop.torch import mlp_from_state_dict

SCALE = 0.3
DT = float(np.float32(0.15))  # the goldens' step is the float32 rounding of 0.15
# golden energy -> (our name, prefix of the torch weights)
ENERGIES = {
    "quadratic": ("quadratic", None),
    "separable": ("separable", "residual_V."),
    "learnable": ("general", "residual."),
}


def golden_params(golden, name):
    _, prefix = ENERGIES[name]
    if prefix is None:
        return {}
    start = f"{name}/param/"
    weights = {k.removeprefix(start): v for k, v in golden.items() if k.startswith(start)}
    return {"mlp": mlp_from_state_dict(weights, prefix)}


def predictor_of(energy, method="leapfrog", steps=2, **options):
    defaults = dict(step_size=DT, hidden=10, depth=2, base_coeff=0.4)
    return nn.hamiltonian_predictor(energy=energy, method=method, num_steps=steps, **(defaults | options))


@pytest.mark.parametrize("steps", [1, 2, 5])
@pytest.mark.parametrize("method", ["leapfrog", "symplectic_euler"])
@pytest.mark.parametrize("name", ENERGIES)
def test_predictor_goldens(name, method, steps, goldens, x64):
    golden = goldens("predictor")
    predictor = predictor_of(ENERGIES[name][0], method, steps)
    params, z = golden_params(golden, name), jnp.asarray(golden["z0"])
    close = dict(rtol=1e-10, atol=1e-10)

    @jax.jit
    def measured(params, z, direction):
        def objective(params, z):
            out = predictor.flow(params, z, direction, SCALE)
            return (out * golden["cotangent"]).sum(), out

        (_, out), gradients = jax.value_and_grad(objective, (0, 1), has_aux=True)(params, z)
        return out, [predictor.energy(params, state, SCALE) for state in (z, out)], gradients

    for direction in (1, -1):
        key = f"{name}/{method}/steps{steps}/dir{direction:+d}"
        out, energies, (by_params, by_z) = measured(params, z, direction)
        np.testing.assert_allclose(out, golden[f"{key}/out"], **close)
        np.testing.assert_allclose(by_z, golden[f"{key}/grad_z"], **close)
        for number, energy in enumerate(energies):
            np.testing.assert_allclose(energy, golden[f"{key}/energy{number}"], **close)
        start = f"{key}/grad/"
        weights = {k.removeprefix(start): v for k, v in golden.items() if k.startswith(start)}
        if name != "quadratic":
            want = mlp_from_state_dict(weights, ENERGIES[name][1])
            jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **close), by_params["mlp"], want)


@pytest.mark.parametrize("energy", ["separable", "quadratic"])
def test_learned_flow_is_symplectic_and_reversible(energy, x64):
    predictor = predictor_of(energy, step_size=0.5)
    params = jax.tree.map(lambda a: 3 * a.astype(jnp.float64), predictor.init(jax.random.key(0), 4))
    z = jnp.asarray(np.random.default_rng(0).normal(size=(3, 8)))

    @functools.partial(jax.jit, static_argnums=1)
    def flow(z, direction):
        return predictor.flow(params, z, direction, 1.0)

    assert dynamics.symplectic_defect(flow, z).max() < 1e-12
    assert jnp.abs(dynamics.log_abs_det(flow, z)).max() < 1e-12
    assert dynamics.reversal_error(flow, z).max() < 1e-12


@pytest.mark.slow
def test_integration_is_float32_under_bfloat16():
    predictor = predictor_of("separable", step_size=0.05)
    params = predictor.init(jax.random.key(0), 4)
    z = jnp.asarray(np.random.default_rng(0).normal(size=(3, 8)), jnp.bfloat16)
    out = predictor.flow(params, z, 1, SCALE)
    exact = predictor.flow(params, z.astype(jnp.float32), 1, SCALE)
    assert out.dtype == jnp.bfloat16
    np.testing.assert_array_equal(out, exact.astype(jnp.bfloat16))


def test_residual_scale_zero_leaves_the_oscillator():
    predictor = predictor_of("separable")
    params, z = predictor.init(jax.random.key(0), 4), jnp.ones((2, 8))
    still = predictor.flow(params, z, 1, 0.0)
    want = dynamics.leapfrog(lambda q: 0.4 * q, z[:, :4], z[:, 4:], step_size=DT, num_steps=2)
    np.testing.assert_allclose(still, np.concatenate(want, -1), rtol=1e-6)
    assert np.abs(predictor.flow(params, z, 1, 1.0) - still).max() > 1e-4


def test_learnable_step_size_starts_at_the_given_one_and_has_a_gradient():
    fixed, learned = predictor_of("quadratic"), predictor_of("quadratic", learnable_step_size=True)
    params, z = learned.init(jax.random.key(0), 4), jnp.ones((2, 8))
    np.testing.assert_allclose(learned.flow(params, z, -1, 1.0), fixed.flow({}, z, -1, 1.0), rtol=1e-6)
    gradient = jax.grad(lambda p: learned.flow(p, z, 1, 1.0).sum())(params)["raw_step_size"]
    assert abs(gradient) > 1e-3


@pytest.mark.parametrize(
    "method", [pytest.param(m, marks=[pytest.mark.slow] if m == "yoshida4" else []) for m in dynamics.METHODS]
)
@pytest.mark.parametrize("direction", [1, -1])
def test_a_horizon_is_that_many_steps(method, direction, x64):
    """One program for every horizon, its value and gradient those of the shorter flow, forward and backward."""
    longest = predictor_of("separable", method, steps=4)
    params = longest.init(jax.random.key(0), 3)
    z, weights = jnp.asarray(np.random.default_rng(0).normal(size=(2, 5, 6)))

    def value(z, horizon):
        return (weights * longest.flow(params, z, direction, SCALE, horizon)).sum()

    value_and_grad = jax.jit(jax.value_and_grad(value))
    for steps in (1, 3, 4):
        shorter = predictor_of("separable", method, steps=steps)
        value_of_it = jax.value_and_grad(lambda z, s=shorter: (weights * s.flow(params, z, direction, SCALE)).sum())
        want = jax.jit(value_of_it)(z)
        got = value_and_grad(z, steps)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12), got, want)
    assert value_and_grad._cache_size() == 1


def test_a_horizon_of_the_mlp_and_of_the_identity():
    z = jnp.ones((2, 8))
    longest, shorter = (nn.mlp_predictor(num_steps=steps, hidden=16, depth=1) for steps in (3, 2))
    params = longest.init(jax.random.key(0), 4)
    want = shorter.flow(params, z, -1, 1.0)
    np.testing.assert_allclose(longest.flow(params, z, -1, 1.0, 2), want, rtol=1e-6)
    assert np.abs(longest.flow(params, z, -1, 1.0) - want).max() > 1e-3
    assert nn.identity_predictor().flow({}, z, 1, 1.0, 2) is z


def test_mlp_predictor_is_the_written_out_residual_network():
    predictor = nn.mlp_predictor(num_steps=2, hidden=16, depth=2)
    params, z = predictor.init(jax.random.key(0), 4), jnp.ones((2, 8))
    for direction in (1, -1):
        want = z
        for _ in range(2):
            want = want + direction * nn.MLP(16, 2, 8).apply({"params": params["mlp"]}, want)
        np.testing.assert_allclose(predictor.flow(params, z, direction, 1.0), want, rtol=1e-6)
    assert predictor.energy is None


def test_identity_predictor_changes_nothing():
    z = jnp.ones((2, 8))
    predictor = nn.identity_predictor()
    assert predictor.flow(predictor.init(jax.random.key(0), 4), z, -1, 1.0) is z


# -- Settings ------


@pytest.mark.parametrize("name, steps", [("hamiltonian", True), ("mlp", True), ("identity", False)])
def test_settings_make_the_predictor(name, steps):
    part = parts.predictors[name]
    assert part.block == "predictor" and part.about["has_steps"] is steps
    given = dict(num_steps=3, hidden=16, depth=1) if steps else {}
    if name == "hamiltonian":
        given |= dict(method="yoshida4", step_size=0.3, base_coeff=0.7)
    made = part.make(part.settings(**given))
    by_hand = {
        "hamiltonian": lambda: nn.hamiltonian_predictor(energy="separable", **given),
        "mlp": lambda: nn.mlp_predictor(**given),
        "identity": nn.identity_predictor,
    }[name]()
    params, z = made.init(jax.random.key(0), 4), jnp.ones((2, 8))
    np.testing.assert_array_equal(made.flow(params, z, -1, SCALE), by_hand.flow(params, z, -1, SCALE))
    assert (made.energy is None) == (by_hand.energy is None)


BAD_HORIZONS = {
    ((1, 1), 2): r"\(epoch, steps\)",
    ((1, 1, 1), (5, 2)): r"\(epoch, steps\)",
    ((1, 1), (5.5, 2)): r"\(epoch, steps\)",
    ((1, "1"), (5, 2)): r"\(epoch, steps\)",
    ((1, None), (5, 2)): r"\(epoch, steps\)",
    ((True, 1), (5, 2)): r"\(epoch, steps\)",
    ("11", "52"): r"\(epoch, steps\)",
    ((2, 1), (3, 2)): r"begin with 1",
    ((1, 1), (1, 2)): r"ascend",
    ((1, 2), (5, 1)): r"steps must grow",
    ((1, 1), (5, 3)): r"predictor\.num_steps 2",
    ((1, 0), (5, 2)): r"at least 1",
}


@pytest.mark.parametrize("stages", BAD_HORIZONS)
def test_impossible_curricula_are_refused_in_a_sentence(stages):
    with pytest.raises(UserError, match=r"predictor\.horizon.*" + BAD_HORIZONS[stages]):
        nn.check_horizon(stages, 2)


def test_a_curriculum_may_be_missing_or_grow_to_all_steps():
    for stages in ((), ((1, 2),), ((1, 1), (11, 2)), [[1, 1], [11, 2]]):
        nn.check_horizon(stages, 2)


def test_a_curriculum_of_the_wrong_kind_is_refused_by_its_field():
    fields = parts.predictors["hamiltonian"].settings
    for stages in (5, "11", (1, 2), ((1, 1), 2)):
        with pytest.raises(UserError, match=r"predictor\.horizon.*must be a list.*\(epoch, steps\)"):
            fields.check(fields.defaults() | {"horizon": stages}, "predictor.")
