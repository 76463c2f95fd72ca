"""HamSIGReg's transforms and learned spectrum against the published numbers and dense matrices."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hamjepa_jax import objectives
from hamjepa_jax.objectives import learned_spectrum
from hamjepa_jax.objectives.transforms import apply_grid_spectrum

OPTIONS = dict(h=4, w=3, bins=4, base="laplacian", span_max=0.5, gauge="logdet", alpha=0.7, beta=0.4)


def golden_cases(goldens):
    golden = goldens("hamsigreg")
    for case in json.loads(str(golden["cases"])):
        index = case.pop("index")
        prefix = f"{index}/"
        yield case.pop("kind"), case, {k.removeprefix(prefix): v for k, v in golden.items() if k.startswith(prefix)}


def raw_parameters(seed=0, bins=4):
    rng = np.random.default_rng(seed)
    return {"raw_span": jnp.float32(rng.normal()), "raw_shape": jnp.asarray(rng.normal(size=bins - 1), jnp.float32)}


def periodic_laplacian(n):
    eye = np.eye(n)
    return 2 * eye - np.roll(eye, 1, axis=0) - np.roll(eye, -1, axis=0)


def root(matrix):
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(values)) @ vectors.T


def test_transforms_equal_the_goldens(goldens):
    z = jnp.asarray(goldens("hamsigreg")["z"], jnp.float32)
    for kind, options, golden in golden_cases(goldens):
        learned = {k: golden[k] for k in ("raw_span", "raw_shape") if k in golden}
        got = objectives.ham_transform(z, kind, **options, **learned)
        np.testing.assert_allclose(got, golden["transformed"], rtol=1e-5, atol=1e-6, err_msg=f"{kind} {options}")


def test_learned_spectra_equal_the_goldens(goldens):
    seen = 0
    for kind, options, golden in golden_cases(goldens):
        if kind != "learnable":
            continue
        seen += 1
        raw = {k: jnp.asarray(golden[k]) for k in ("raw_span", "raw_shape")}
        span = {k: options[k] for k in ("bins", "init_loglambda_span", "span_max")}
        np.testing.assert_allclose(learned_spectrum.init_spectrum(**span)["raw_span"], raw["raw_span"], rtol=1e-6)
        clip, binning = options.get("delta_clip"), options.get("binning", "linear_radius")
        g = learned_spectrum.log_increments(raw, span_max=options["span_max"], delta_clip=clip)
        np.testing.assert_allclose(g, golden["g_bins"], rtol=1e-5)
        bins = learned_spectrum.radial_bins(options["h"], options["w"], bins=options["bins"], binning=binning)
        np.testing.assert_array_equal(bins, golden["bin_idx"])

        ridge, cond = (
            options.pop("eps_ridge", 0.0),
            {k: options.pop(k) for k in ("cond_max", "cond_weight") if k in options},
        )
        shape = {
            k: v for k, v in options.items() if k not in ("d_f", "init_loglambda_span", "alpha_init", "beta_init")
        }
        shape |= {k: options[f"{k}_init"] for k in ("alpha", "beta") if f"{k}_init" in options}
        np.testing.assert_allclose(
            learned_spectrum.spectrum(raw, eps_ridge=ridge, **shape), golden["lambda_2d"], rtol=1e-5
        )
        penalty = learned_spectrum.spectral_regularizer(raw, **cond, **shape)
        np.testing.assert_allclose(penalty, golden["spectral_reg"], rtol=1e-5)
        health = learned_spectrum.spectrum_health(raw, **shape)
        assert {f"health/{k}" for k in health} == {k for k in golden if k.startswith("health/")}
        for k, value in health.items():
            np.testing.assert_allclose(value, golden[f"health/{k}"], rtol=1e-5, atol=1e-8, err_msg=k)
    assert seen == 3


@pytest.mark.parametrize("k", [8, 9])
@pytest.mark.parametrize("normalize", ["trace", "logdet"])
def test_chain_is_a_dense_matrix(k, normalize, x64):
    kappa, eps, beta = 1.3, 0.05, 0.6
    stiffened = kappa * periodic_laplacian(k) + eps * np.eye(k)
    distinct = np.unique(np.linalg.eigvalsh(stiffened).round(9))  # the real transform sees each once
    scale = distinct.mean() if normalize == "trace" else np.exp(np.log(distinct).mean())
    dense = (1 - beta) * np.eye(k) + beta * stiffened / scale
    z = np.random.default_rng(0).normal(size=(5, k))
    options = dict(mode="1d", kappa=kappa, eps=eps, beta=beta, normalize=normalize)
    got = objectives.ham_transform(jnp.asarray(z), "chain", **options)
    np.testing.assert_allclose(got, z @ root(dense), atol=1e-8)


@pytest.mark.parametrize("normalize", ["trace", "logdet"])
def test_grid_chain_is_a_dense_matrix(normalize, x64):
    h, w, d_f, kappa, eps, beta = 3, 4, 2, 0.8, 0.02, 0.7
    laplacian = np.kron(periodic_laplacian(h), np.eye(w)) + np.kron(np.eye(h), periodic_laplacian(w))
    stiffened = kappa * laplacian + eps * np.eye(h * w)
    values = np.linalg.eigvalsh(stiffened)
    scale = values.mean() if normalize == "trace" else np.exp(np.log(values).mean())
    dense = np.kron((1 - beta) * np.eye(h * w) + beta * stiffened / scale, np.eye(d_f))
    z = np.random.default_rng(1).normal(size=(2, 5, h * w * d_f))  # leading axes are batches
    options = dict(mode="grid", h=h, w=w, d_f=d_f, kappa=kappa, eps=eps, beta=beta, normalize=normalize)
    got = objectives.ham_transform(jnp.asarray(z), "chain", **options)
    np.testing.assert_allclose(got, z @ root(dense), atol=1e-12)


def test_applied_twice_the_learned_kind_has_its_spectrum(x64):
    raw = raw_parameters()
    options = dict(OPTIONS)
    lambda_2d = np.asarray(learned_spectrum.spectrum(raw, **options))
    h, w, d_f = 4, 3, 2
    apply = lambda z: apply_grid_spectrum(z, lambda_2d, d_f=d_f)  # noqa: E731
    basis = jnp.eye(h * w * d_f)
    H = np.asarray(apply(apply(basis)))
    np.testing.assert_allclose(H, H.T, atol=1e-12)
    np.testing.assert_allclose(np.linalg.eigvalsh(H), np.sort(np.repeat(lambda_2d, d_f)), rtol=1e-6)
    wave = np.cos(2 * np.pi * (np.arange(h)[:, None] / h + np.arange(w)[None, :] / w)).ravel()
    z = np.stack([wave, 0 * wave], -1).ravel()  # frequency (1, 1) of the first channel
    np.testing.assert_allclose(apply(apply(jnp.asarray(z))), lambda_2d[1, 1] * z, atol=1e-7)


def test_diag_has_eigenvalues_one_to_two_of_unit_determinant(x64):
    H = np.square(np.diag(objectives.ham_transform(jnp.eye(7), "diag")))
    np.testing.assert_allclose(H / H[0], np.linspace(1, 2, 7))
    np.testing.assert_allclose(np.log(H).sum(), 0.0, atol=1e-12)


@pytest.mark.parametrize("gauge, mean", [("trace", np.mean), ("logdet", lambda x: np.exp(np.log(x).mean()))])
@pytest.mark.parametrize("base", learned_spectrum.BASES)
@pytest.mark.parametrize("binning", learned_spectrum.BINNINGS)
def test_gauge_isotropy_and_monotone_learning(gauge, mean, base, binning):
    options = {**OPTIONS, "gauge": gauge, "base": base, "binning": binning, "beta": 0.0, "bins": 5}
    raw = raw_parameters(3, bins=5)
    lam = np.asarray(learned_spectrum.spectrum(raw, **options))
    np.testing.assert_allclose(mean(lam), 1.0, rtol=1e-6)
    radius = np.hypot(np.fft.fftfreq(4)[:, None], np.fft.fftfreq(3)[None, :]).ravel()
    assert (np.diff(lam.ravel()[np.argsort(radius, kind="stable")]) > -1e-6).all()  # without a base, by radius only


@pytest.mark.parametrize("binning", learned_spectrum.BINNINGS)
def test_bins_grow_with_the_radius_and_cover_the_range(binning):
    bins = learned_spectrum.radial_bins(8, 8, bins=6, binning=binning)
    radius = np.hypot(np.fft.fftfreq(8)[:, None], np.fft.fftfreq(8)[None, :])
    assert bins[0, 0] == 0 and bins[4, 4] == bins.max() == 5
    assert (np.diff(bins.ravel()[np.argsort(radius.ravel(), kind="stable")]) >= 0).all()
    if binning == "quantile_radius":
        assert np.bincount(bins.ravel()).min() >= 4


def test_alpha_and_beta_at_zero_leave_the_identity():
    lam = learned_spectrum.spectrum(raw_parameters(), **{**OPTIONS, "alpha": 0.0, "beta": 0.0})
    np.testing.assert_allclose(lam, 1.0, rtol=1e-6)
    z = jnp.asarray(np.random.default_rng(0).normal(size=(2, 24)), jnp.float32)
    np.testing.assert_allclose(apply_grid_spectrum(z, lam, d_f=2), z, atol=1e-6)


def test_initial_parameters_are_used_where_none_are_given():
    options = dict(h=4, w=3, d_f=2, bins=4, base="r2", init_loglambda_span=0.2, span_max=0.4, gauge="trace")
    z = jnp.asarray(np.random.default_rng(0).normal(size=(3, 24)), jnp.float32)
    raw = learned_spectrum.init_spectrum(bins=4, init_loglambda_span=0.2, span_max=0.4)
    g = learned_spectrum.log_increments(raw, span_max=0.4, delta_clip=None)
    np.testing.assert_allclose(g, [0, 0.2 / 3, 0.4 / 3, 0.2], rtol=1e-6)
    given = objectives.ham_transform(z, "learnable", **options, **raw)
    np.testing.assert_array_equal(objectives.ham_transform(z, "learnable", **options), given)


def test_gradients_reach_every_raw_parameter_and_match_differences(x64):
    z = jnp.asarray(np.random.default_rng(0).normal(size=(6, 24)))
    raw = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), raw_parameters())
    options = dict(
        d_f=2,
        init_loglambda_span=0.1,
        alpha_init=0.9,
        **{k: OPTIONS[k] for k in OPTIONS if k not in ("alpha", "beta")},
    )

    @jax.jit
    def loss(raw):
        moved = objectives.ham_transform(z, "learnable", **options, **raw)
        penalty = learned_spectrum.spectral_regularizer(raw, cond_max=1.1, cond_weight=0.1, **OPTIONS)
        return jnp.sum(moved**4) + penalty

    gradient = jax.grad(loss)(raw)
    assert all(np.all(np.abs(g) > 1e-6) for g in jax.tree.leaves(gradient))
    for i in range(3):
        nudge = jnp.zeros(3).at[i].set(1e-6)
        up, down = (loss({**raw, "raw_shape": raw["raw_shape"] + s * nudge}) for s in (1, -1))
        np.testing.assert_allclose((up - down) / 2e-6, gradient["raw_shape"][i], rtol=1e-5)
    up, down = (loss({**raw, "raw_span": raw["raw_span"] + s * 1e-6}) for s in (1, -1))
    np.testing.assert_allclose((up - down) / 2e-6, gradient["raw_span"], rtol=1e-5)


def test_gradient_with_respect_to_z_is_the_symmetric_transform():
    z, v = jnp.asarray(np.random.default_rng(2).normal(size=(2, 1, 24)), jnp.float32)
    for kind, options in {
        "diag": {},
        "chain": dict(mode="1d", kappa=1.0, eps=0.1, beta=1.0, normalize="trace"),
        "learnable": dict(h=4, w=3, d_f=2, bins=3, base="r2", init_loglambda_span=0.2, span_max=0.4, gauge="trace"),
    }.items():
        transform = lambda x, kind=kind, options=options: objectives.ham_transform(x, kind, **options)  # noqa: E731
        _, pullback = jax.vjp(transform, z)
        np.testing.assert_allclose(pullback(v)[0], transform(v), atol=1e-5)


def test_compiles_with_traced_schedules():
    @jax.jit
    def peak(raw, epoch):
        ramp = learned_spectrum.schedule(epoch, 2, 4)
        return learned_spectrum.spectrum(raw, **{**OPTIONS, "alpha": ramp, "beta": ramp}).max()

    raw = raw_parameters()
    peaks = [float(peak(raw, epoch)) for epoch in (0, 2, 4, 6, 60)]
    np.testing.assert_allclose(peaks[:2], 1.0, rtol=1e-6)
    assert 1.0 < peaks[2] < peaks[3] == peaks[4]


def test_schedule_is_zero_then_a_ramp_then_one():
    got = [float(learned_spectrum.schedule(epoch, 3, 4)) for epoch in (0, 3, 4, 5, 7, 9)]
    assert got == [0.0, 0.0, 0.25, 0.5, 1.0, 1.0]
    assert [float(learned_spectrum.schedule(epoch, 3, 0)) for epoch in (2, 3, 4)] == [0.0, 0.0, 1.0]
    assert float(learned_spectrum.schedule(1, 0, 0)) == 1.0
    with pytest.raises(ValueError, match="-1"):
        learned_spectrum.schedule(0, 0, -1)


def test_half_precision_is_transformed_in_float32():
    z = jnp.ones((2, 12), jnp.bfloat16)
    chain = dict(mode="1d", kappa=1.0, eps=0.1, beta=1.0, normalize="trace")
    assert objectives.ham_transform(z, "chain", **chain).dtype == jnp.float32
    assert objectives.ham_transform(z, "identity").dtype == jnp.float32


CHAIN = dict(mode="1d", kappa=1.0, eps=0.1, beta=1.0, normalize="trace")
LEARNABLE = dict(h=2, w=2, d_f=3, bins=3, base="r2", init_loglambda_span=0.2, span_max=0.4, gauge="trace")


@pytest.mark.parametrize(
    "kind, options, message",
    [
        ("ring", {}, "kind.*'ring'"),
        ("chain", {**CHAIN, "mode": "2d"}, "mode.*'2d'"),
        ("chain", {**CHAIN, "mode": "grid"}, "needs h, w and d_f"),
        ("chain", {**CHAIN, "mode": "grid", "h": 3, "w": 2, "d_f": 3}, r"3×2 grid of 3 channels has 18.*\(2, 12\)"),
        ("chain", {**CHAIN, "kappa": -1.0}, "kappa > 0"),
        ("chain", {**CHAIN, "beta": 1.5}, "beta in"),
        ("chain", {**CHAIN, "normalize": "max"}, "normalize.*'max'"),
        ("learnable", {**LEARNABLE, "h": 3}, "3×2 grid"),
        ("learnable", {**LEARNABLE, "base": "r4"}, "base.*'r4'"),
        ("learnable", {**LEARNABLE, "gauge": "det"}, "gauge.*'det'"),
        ("learnable", {**LEARNABLE, "binning": "log"}, "binning.*'log'"),
        ("learnable", {**LEARNABLE, "bins": 1}, "at least 2 bins"),
        ("learnable", {**LEARNABLE, "init_loglambda_span": 0.4}, "init_loglambda_span"),
        ("learnable", {**LEARNABLE, "raw_shape": np.zeros(4, np.float32)}, r"3 bins need raw_shape \[2\].*\(4,\)"),
    ],
)
def test_mistakes_are_named(kind, options, message):
    with pytest.raises(ValueError, match=message):
        objectives.ham_transform(jnp.ones((2, 12)), kind, **options)


def test_unknown_and_missing_options_are_refused():
    with pytest.raises(TypeError, match="kapa"):
        objectives.ham_transform(jnp.ones((2, 12)), "chain", kapa=1.0)
    with pytest.raises(TypeError, match="beta"):
        objectives.ham_transform(jnp.ones((2, 12)), "diag", beta=1.0)


# -- Published details of the learned spectrum ------


def test_the_base_is_divided_by_its_arithmetic_mean_before_it_is_blended():
    """Published eigenvalues of an 8×8 grid in the logdet gauge."""
    raw = learned_spectrum.init_spectrum(bins=8, init_loglambda_span=0.05, span_max=0.4)
    options = dict(h=8, w=8, bins=8, base="laplacian", span_max=0.4, gauge="logdet", beta=0.4)
    lam = learned_spectrum.spectrum(raw, **options)
    np.testing.assert_allclose([lam[0, 0], lam[4, 4]], [0.6177, 1.4336], atol=5e-5)


@pytest.mark.parametrize("gauge, mean", [("trace", np.mean), ("logdet", lambda x: np.exp(np.log(x).mean()))])
def test_the_gauge_holds_after_the_ridge(gauge, mean):
    options = {**OPTIONS, "gauge": gauge}
    without = np.asarray(learned_spectrum.spectrum(raw_parameters(), **options))
    lam = np.asarray(learned_spectrum.spectrum(raw_parameters(), eps_ridge=0.5, **options))
    np.testing.assert_allclose(mean(lam), 1.0, rtol=1e-6)
    ridged = without / without.mean() + 0.5
    np.testing.assert_allclose(lam, ridged / mean(ridged), rtol=1e-5)
    assert lam.max() / lam.min() < without.max() / without.min()


@pytest.mark.parametrize("gauge", ["trace", "logdet"])
def test_a_clip_of_the_log_spectrum_bounds_the_condition_number(gauge):
    options = {**OPTIONS, "gauge": gauge, "beta": 1.0}
    free = np.asarray(learned_spectrum.spectrum(raw_parameters(), **options))
    clipped = np.asarray(learned_spectrum.spectrum(raw_parameters(), log_clip=0.3, **options))
    assert free.max() / free.min() > np.exp(0.6)
    np.testing.assert_allclose(clipped.max() / clipped.min(), np.exp(0.6), rtol=1e-5)
    wide = learned_spectrum.spectrum(raw_parameters(), log_clip=50.0, **options)
    np.testing.assert_allclose(wide, free, rtol=1e-5)
    gradient = jax.grad(lambda raw: learned_spectrum.spectrum(raw, log_clip=0.3, **options)[0, 1])(raw_parameters())
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(gradient))
