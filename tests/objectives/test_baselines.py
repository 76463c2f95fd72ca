"""SIGReg's options, the VICReg baseline and the loss of a learned geometry against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contexts import context, values

from hamjepa_jax import objectives, parts
from hamjepa_jax.objectives import learned_spectrum
from hamjepa_jax.objectives.transforms import apply_grid_spectrum

QUADRATURE = dict(num_points=9, t_max=3.0, weight="gaussian")


def embeddings(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def directions(k, m, seed=1):
    a = np.random.default_rng(seed).normal(size=(k, m))
    return jnp.asarray(a / np.linalg.norm(a, axis=0), jnp.float32)


# -- SIGReg ------


def test_a_subsample_is_sigreg_of_evenly_spaced_examples():
    z, a = embeddings(2, 24, 6), directions(6, 5)
    got = objectives.sigreg(z, a, **QUADRATURE, subsample=8)
    np.testing.assert_allclose(got, objectives.sigreg(z[:, ::3], a, **QUADRATURE), rtol=1e-6)
    np.testing.assert_array_equal(
        objectives.sigreg(z, a, **QUADRATURE, subsample=24), objectives.sigreg(z, a, **QUADRATURE)
    )
    gradient = jax.grad(lambda z: objectives.sigreg(z, a, **QUADRATURE, subsample=8))(z)
    assert np.abs(gradient[:, ::3]).min() > 0 and not np.abs(gradient[:, 1::3]).any()


def test_slices_below_the_clip_value_count_as_zero():
    z, a = embeddings(1, 40, 6), directions(6, 20)
    slices = np.array([objectives.sigreg(z, a[:, i : i + 1], **QUADRATURE) for i in range(20)])
    clip = float(np.median(slices))
    got, gradient = jax.value_and_grad(lambda z: objectives.sigreg(z, a, **QUADRATURE, clip=clip))(z)
    np.testing.assert_allclose(got, np.where(slices < clip, 0, slices).mean(), rtol=1e-5)
    assert np.abs(gradient).max() > 0
    assert objectives.sigreg(z, a, **QUADRATURE, clip=1e6) == 0


@pytest.mark.parametrize("size", [0, 25])
def test_an_impossible_subsample_is_named(size):
    with pytest.raises(ValueError, match=rf"24 examples.*{size}"):
        objectives.sigreg(embeddings(2, 24, 6), directions(6, 5), **QUADRATURE, subsample=size)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"t_max": 0.0}, "t_max > 0.*got 0.0"),
        ({"t_max": -3.0}, "got -3.0"),
        ({"t_max": float("nan")}, "got nan"),
        ({"num_points": 1}, "two points.*and 1"),
        ({"directions": jnp.zeros((6, 0))}, r"no directions.*\(6, 0\)"),
        ({"weight": "flat"}, "weight.*'flat'"),
    ],
)
def test_an_impossible_quadrature_is_named(changes, message):
    options = {"directions": directions(6, 5), **QUADRATURE, **changes}
    with pytest.raises(ValueError, match=message):
        objectives.sigreg(embeddings(2, 24, 6), **options)


# -- VICReg ------


def test_vicreg_terms_are_the_papers():
    x = np.random.default_rng(0).normal(size=(30, 5)) * np.array([0.1, 0.5, 0.9, 1.0, 3.0])
    x[:, 4] += x[:, 3]
    covariance = np.cov(x.T)
    variance = np.maximum(0, 1 - np.sqrt(np.diag(covariance) + 1e-4)).mean()
    off_diagonal = covariance - np.diag(np.diag(covariance))
    x = jnp.asarray(x, jnp.float32)
    np.testing.assert_allclose(objectives.variance_hinge(x, target=1.0, eps=1e-4), variance, rtol=1e-5)
    np.testing.assert_allclose(objectives.covariance_penalty(x), (off_diagonal**2).sum() / 5, rtol=1e-4)
    with pytest.raises(ValueError, match=r"\(1, 5\)"):
        objectives.covariance_penalty(x[:1])


def test_vicreg_weighs_and_sums_its_terms_over_two_views():
    weights = dict(invariance_weight=25.0, variance_weight=5.0, covariance_weight=2.0)
    objective = objectives.vicreg(context(), values("vicreg", std_target=1.5, **weights))
    z = embeddings(2, 20, 4)
    total, metrics = objective.loss({}, z, objective.draw(0), 1)
    np.testing.assert_allclose(metrics["pred"], np.square(z[0] - z[1]).mean(), rtol=1e-6)
    np.testing.assert_allclose(
        metrics["var"], sum(objectives.variance_hinge(x, target=1.5, eps=1e-4) for x in z), rtol=1e-5
    )
    np.testing.assert_allclose(metrics["cov"], sum(objectives.covariance_penalty(x) for x in z), rtol=1e-5)
    np.testing.assert_allclose(total, 25 * metrics["pred"] + 5 * metrics["var"] + 2 * metrics["cov"], rtol=1e-6)


# -- Learned geometry ------

SHAPE = dict(base="r2", gauge="trace")
LEARNABLE = dict(
    bins=3, span_max=0.8, init_loglambda_span=0.3, eps_ridge=0.1, alpha_ramp=4.0, adv_mult=3.0, spectral_weight=0.7,
    penalty=dict(cond_max=None, cond_weight=0.0, curvature_weight=0.1, l2_weight=0.2),
)  # fmt: skip


@pytest.mark.parametrize("adversarial", [False, True])
def test_one_scalar_carries_the_encoders_and_the_spectrums_loss(adversarial):
    """Each gradient against that of its own loss written out; two grids [q; p] an embedding, α at ¼."""
    defaults = parts.objectives["hamsigreg"].settings.defaults()["learnable"]
    learnable = {**defaults, **LEARNABLE, "adversarial": adversarial, "shape": {**defaults["shape"], **SHAPE}}
    objective = objectives.hamsigreg(
        context(embed_dim=24, grid=objectives.Grid(2, 3, 2)),
        values("hamsigreg", kind="learnable", learnable=learnable, num_directions=16),
    )
    z, a = embeddings(2, 10, 24), objective.draw(0)
    raw = objective.init() | {"raw_shape": jnp.asarray([0.3, -0.2], jnp.float32)}
    options = dict(SHAPE, h=2, w=3, bins=3, span_max=0.8, alpha=0.25)

    def isotropy(raw, z):
        halves = [
            apply_grid_spectrum(half, learned_spectrum.spectrum(raw, eps_ridge=0.1, **options), d_f=2)
            for half in jnp.split(z, 2, axis=-1)
        ]
        return objectives.sigreg(jnp.concatenate(halves, axis=-1), a, **QUADRATURE)

    def regularizer(raw):
        return learned_spectrum.spectral_regularizer(raw, curvature_weight=0.1, l2_weight=0.2, **options)

    def encoders(z):
        return objectives.lejepa_prediction(z, 2) + 0.02 * isotropy(raw, z) + 0.7 * regularizer(raw)

    def spectrums(raw):
        return (-1 if adversarial else 1) * 0.02 * 3.0 * isotropy(raw, z) + 0.7 * regularizer(raw)

    loss = jax.jit(jax.value_and_grad(objective.loss, (0, 1), has_aux=True))
    (value, metrics), (by_raw, by_z) = loss(raw, z, a, 1)
    want, want_by_z = jax.jit(jax.value_and_grad(encoders))(z)
    np.testing.assert_allclose(value, want, rtol=1e-6)
    np.testing.assert_allclose(by_z, want_by_z, rtol=1e-4, atol=1e-8)
    own, want_by_raw = jax.jit(jax.value_and_grad(spectrums))(raw)
    np.testing.assert_allclose(metrics["spectrum_loss"], own, rtol=1e-5)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4), by_raw, want_by_raw)
    assert metrics["total"] == value and metrics["spectrum_alpha"] == 0.25
