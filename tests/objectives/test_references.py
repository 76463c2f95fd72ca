"""Each further objective against its formula in NumPy, in double precision, and its way out of collapse.

Public formulas: NT-Xent (SimCLR, eq. 1), Barlow Twins (eq. 1–2), alignment and uniformity (section 4.1), BYOL
(eq. 2), the coding rate (MCR², eq. 7–8). SimDINO's and KerJEPA's are as `objectives` states them.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contexts import context, values
from numpy.linalg import norm, slogdet

from hamjepa_jax import objectives, parts
from hamjepa_jax.errors import UserError
from hamjepa_jax.objectives import Embedded, Seen, kernels

B, K = 8, 5
NUM_GLOBAL, NUM_LOCAL = 2, 1
PAIRS = [(0, 1), (0, 2), (1, 2)]  # of a global and a later view


def arrays(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32).astype(np.float64)


def made(name, **given):
    run = context(num_global=NUM_GLOBAL, num_local=NUM_LOCAL, batch_size=B, embed_dim=K)
    return parts.objectives[name].make(run, values(name, **given))


def loss_of(objective, params, z, teacher=None):
    """(loss, metrics) of embeddings [v, b, k] of any precision."""
    z = jnp.asarray(z, jnp.float32)
    if teacher is not None:
        teacher = Embedded(jnp.asarray(teacher, jnp.float32), jnp.asarray(teacher, jnp.float32))
    carried = {} if objective.reads == "byol" else ()  # No batch statistics.
    return objective.of(params, Seen(z, z, teacher, carried), objective.draw(0), 1)[:2]


def unit(x):
    return x / np.maximum(norm(x, axis=-1, keepdims=True), 1e-6)


# -- The formulas ------


def nt_xent(z, tau):
    def pair(a, b):
        x = unit(np.concatenate([a, b]))
        total = 0
        for i in range(2 * B):
            others = sum(np.exp(x[i] @ x[k] / tau) for k in range(2 * B) if k != i)
            total -= np.log(np.exp(x[i] @ x[(i + B) % (2 * B)] / tau) / others)
        return total / (2 * B)

    return np.mean([pair(z[i], z[j]) for i, j in PAIRS])


def barlow(z, weight):
    total = 0
    for i, j in PAIRS:
        a, b = ((x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5) for x in (z[i], z[j]))
        c = a.T @ b / B
        total += ((1 - np.diag(c)) ** 2).sum() + weight * (c**2 - np.diag(np.diag(c) ** 2)).sum()
    return total / len(PAIRS)


def alignment_uniformity(z, alpha, t, weight):
    x = unit(z)
    aligned = np.mean([(norm(x[i] - x[j], axis=1) ** alpha).mean() for i, j in PAIRS])
    pairs = list(itertools.combinations(range(B), 2))
    uniform = np.mean([np.log(np.mean([np.exp(-t * norm(v[i] - v[j]) ** 2) for i, j in pairs])) for v in x])
    return aligned + weight * uniform


def rate(x, eps):
    n, d = x.shape
    return 0.5 * slogdet(np.eye(d) + d / (n * eps**2) * x.T @ x)[1]


def mcr2(z, eps):
    x = unit(z)
    return np.mean([rate(x[:, i], eps) for i in range(B)]) - rate(x.reshape(-1, K), eps)


def total_rate(z, eps, weight):
    x = unit(z)
    cosines = [x[v, i] @ unit(x[:, i].mean(0)) for v in range(3) for i in range(B)]
    return weight * (1 - np.mean(cosines)) - rate(x.reshape(-1, K), eps)


def simdino(z, targets, eps, weight):
    x, targets = unit(z), unit(targets)
    errors = [0.5 * ((x[i] - targets[j]) ** 2).sum(1).mean() for i in range(3) for j in range(2) if i != j]
    rates = [0.5 * slogdet(np.eye(K) + K / eps**2 * np.cov(v.T, bias=True))[1] for v in x]
    return np.mean(errors) - weight * np.mean(rates)


def lejepa_prediction(z):
    return 0.5 * np.mean((z[:2].mean(0) - z) ** 2)


def sliced_mmd(z, sigma, weight):
    """By Kummer's function, which is the mean of exp(−(a·r)²/(2v)) over unit vectors a."""
    from scipy.special import hyp1f1

    def mean(squares, v):
        return hyp1f1(0.5, K / 2, -squares / (2 * v))

    v, distances = sigma**2, []
    for x in z:
        within = np.mean([mean(norm(x[i] - x[j]) ** 2, v) for i, j in itertools.combinations(range(B), 2)])
        across = np.sqrt(v / (v + 1)) * mean(norm(x, axis=1) ** 2, v + 1).mean()
        distances.append(within - 2 * across + np.sqrt(v / (v + 2)))
    return lejepa_prediction(z) + weight * B * np.mean(distances)


TEACHER = arrays(NUM_GLOBAL, B, K, seed=1)
REFERENCES = {
    "simclr": (dict(temperature=0.3), lambda z: nt_xent(z, 0.3)),
    "barlow_twins": (dict(redundancy_weight=0.1), lambda z: barlow(z, 0.1)),
    "alignment_uniformity": (
        dict(alpha=1.5, t=3.0, uniformity_weight=0.7),
        lambda z: alignment_uniformity(z, 1.5, 3.0, 0.7),
    ),
    "mcr2": (dict(eps=0.6), lambda z: mcr2(z, 0.6)),
    "simdino": (
        dict(eps=0.6, rate_weight=2.0),
        lambda z: simdino(z, TEACHER, 0.6, 2.0 * 0.6 * np.sqrt(B / (K * min(B, K)))),
    ),
    "kerjepa": (dict(bandwidth=0.3, weight=0.2), lambda z: sliced_mmd(z, 0.3, 0.2)),
}


def check(name, given, reference, z):
    objective = made(name, **given)
    teacher = TEACHER if objective.teacher else None
    got, metrics = loss_of(objective, {}, z, teacher)
    np.testing.assert_allclose(got, reference(z), rtol=1e-5, atol=1e-6)
    assert metrics["total"] == got and set(parts.objectives[name].about["shown"]) <= set(metrics)


@pytest.mark.parametrize("name", REFERENCES)
def test_a_loss_is_its_formula(name):
    check(name, *REFERENCES[name], arrays(3, B, K))


EXTREMES = {
    "all equal": lambda z: np.full_like(z, 0.3),
    "all zero": np.zeros_like,
    "an image at zero": lambda z: z * (np.arange(B) > 0)[None, :, None],
    "a view at zero": lambda z: z * (np.arange(3) > 0)[:, None, None],
    "far apart": lambda z: 1e4 * z,
    "an outlier": lambda z: np.where(np.arange(z.size).reshape(z.shape) == 0, 1e6, z),
    "tiny": lambda z: 6e-5 * z,
    "far from zero": lambda z: 100 + z,
}


@pytest.mark.parametrize("name", REFERENCES)
def test_a_loss_is_its_formula_at_extreme_embeddings(name):
    """Its gradient is finite there too."""
    given, reference = REFERENCES[name]
    objective = made(name, **given)
    teacher = TEACHER if objective.teacher else None
    loss = jax.jit(jax.value_and_grad(lambda z: loss_of(objective, {}, z, teacher)[0]))
    for label, change in EXTREMES.items():
        z = change(arrays(3, B, K)).astype(np.float32)
        got, gradient = loss(jnp.asarray(z))
        np.testing.assert_allclose(got, reference(z.astype(np.float64)), rtol=1e-5, atol=2e-6, err_msg=label)
        assert np.isfinite(gradient).all(), label


def test_the_discrepancies_of_a_collapse_far_from_zero_keep_their_digits():
    x = (10 + 1e-3 * arrays(64, K)).astype(np.float32)
    squares = ((x[:, None].astype(float) - x[None]) ** 2).sum(-1)
    np.testing.assert_allclose(kernels.squared_distances(jnp.asarray(x)), squares, rtol=1e-3, atol=1e-9)


def test_the_total_coding_rate_is_its_formula():
    given = dict(eps=0.6, compression="cosine", compression_weight=20.0)
    check("mcr2", given, lambda z: total_rate(z, 0.6, 20.0), arrays(3, B, K))


def test_the_coding_rate_has_one_value_from_either_gram_matrix():
    for n, d in ((4, 9), (9, 4)):
        x = arrays(n, d)
        got, info = objectives.coding_rate.coding_rate(jnp.asarray(x, jnp.float32), eps=0.5)
        np.testing.assert_allclose(got, rate(x, 0.5), rtol=1e-5)
        np.testing.assert_allclose(info["rate_per_dim"], got / d, rtol=1e-6)


# -- BYOL ------


def byol_with_identity():
    """BYOL whose prediction network is one linear layer, the identity."""
    objective = made("byol", predictor_layers=1)
    return objective, {"output": {"dense": {"kernel": jnp.eye(K), "bias": jnp.zeros(K)}}}


def test_byol_is_its_formula():
    objective, params = byol_with_identity()
    z = arrays(3, B, K)
    pairs = [(i, j) for i in range(3) for j in range(2) if i != j]
    errors = [((unit(z[i]) - unit(TEACHER[j])) ** 2).sum(1).mean() for i, j in pairs]
    np.testing.assert_allclose(loss_of(objective, params, z, TEACHER)[0], 2 * np.mean(errors), rtol=1e-5)


def test_byols_network_is_of_its_settings_and_seed():
    objective = made("byol", predictor_hidden=7)
    key = jax.random.key(0)
    params, stats = objective.first_own(key)
    assert params["hidden"]["dense"]["kernel"].shape == (K, 7) and stats["bn"]["mean"].shape == (7,)
    other, _ = objective.first_own(jax.random.key(1))
    assert np.abs(params["hidden"]["dense"]["kernel"] - other["hidden"]["dense"]["kernel"]).max() > 0.01
    z = jnp.asarray(arrays(3, B, K), jnp.float32)
    after = objective.of(params, Seen(z, z, Embedded(z[:2], z[:2]), stats), (), 1)[2]
    assert np.abs(after["bn"]["mean"] - stats["bn"]["mean"]).max() > 0


@pytest.mark.parametrize(
    "schedule, expected",
    [
        ("cosine", [0.9, 0.914644661, 0.95, 1.0]),
        ("linear", [0.9, 0.925, 0.95, 1.0]),
        ("constant", [0.9] * 4),
    ],
)
def test_the_momentum_follows_its_schedule(schedule, expected):
    teacher = made("byol", momentum=0.9, momentum_schedule=schedule).teacher
    np.testing.assert_allclose([teacher.momentum(jnp.float32(x)) for x in (0, 0.25, 0.5, 1)], expected, rtol=1e-6)


# -- KerJEPA ------


def mmd(x, sigma, unbiased):
    n, d = x.shape
    pairs = [(i, j) for i in range(n) for j in range(n) if i != j or not unbiased]
    within = np.mean([np.exp(-(norm(x[i] - x[j]) ** 2) / (2 * sigma**2)) for i, j in pairs])
    v = sigma**2
    across = np.mean([(v / (v + 1)) ** (d / 2) * np.exp(-(y @ y) / (2 * (v + 1))) for y in x])
    return within - 2 * across + (v / (v + 2)) ** (d / 2)


def ksd(x, kernel, sigma):
    """By differentiating the kernel numerically: u = s·s k + s·∇k + ∇k·s + tr ∇∇k, the score s(x) = −x."""
    n, d = x.shape
    k = (lambda r: np.exp(-r / (2 * sigma**2))) if kernel == "gaussian" else lambda r: (1 + r / sigma**2) ** -0.5
    value, h, identity = (lambda a, b: k((a - b) @ (a - b))), 1e-3, np.eye(d)

    def stein(a, b):
        by_a = np.array([(value(a + h * e, b) - value(a - h * e, b)) / (2 * h) for e in identity])
        by_b = np.array([(value(a, b + h * e) - value(a, b - h * e)) / (2 * h) for e in identity])
        both = [
            (value(a + h * e, b + h * e) - value(a + h * e, b - h * e))
            - (value(a - h * e, b + h * e) - value(a - h * e, b - h * e))
            for e in identity
        ]
        return a @ b * value(a, b) - a @ by_b - b @ by_a + sum(both) / (4 * h * h)

    return np.mean([stein(x[i], x[j]) for i in range(n) for j in range(n) if i != j])


@pytest.mark.parametrize("unbiased", [True, False])
def test_kerjepas_mmd_is_its_formula(unbiased):
    z = arrays(3, B, K)
    given = dict(slicing="none", unbiased=unbiased, bandwidth=0.8, weight=0.3)
    distances = [mmd(view, 0.8 * np.sqrt(K), unbiased) for view in z]
    check("kerjepa", given, lambda z: lejepa_prediction(z) + 0.3 * B * np.mean(distances), z)


@pytest.mark.parametrize("kernel", ["gaussian", "imq"])
def test_kerjepas_stein_discrepancy_is_its_formula(kernel):
    x = arrays(B, K)
    s = values("kerjepa", discrepancy="ksd", slicing="none", kernel=kernel, bandwidth=0.8)
    got = objectives.kerjepa.discrepancy(s, jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(got, ksd(x, kernel, 0.8 * np.sqrt(K)), rtol=1e-5, atol=1e-5)


def test_the_limit_of_many_directions_is_their_kummer_function():
    from scipy.special import hyp1f1

    squares = np.concatenate([[0.0], np.geomspace(1e-3, 1e8, 100)])
    for d in (2, 3, 4, 64, 2048):
        got = kernels.mean_over_directions(jnp.asarray(squares, jnp.float32), d)
        want = hyp1f1(0.5, d / 2, -np.float32(squares).astype(float) / 2)
        np.testing.assert_allclose(got, want, rtol=1e-5 if d == 2 else 3e-6, err_msg=f"{d}")
    x, a = arrays(B, K), unit(arrays(200_000, K, seed=3))
    lines = x @ a.T
    within = np.mean(
        [np.exp(-((lines[i] - lines[j]) ** 2) / 2).mean() for i in range(B) for j in range(B) if i != j]
    )
    drawn = within - 2 * np.sqrt(0.5) * np.exp(-(lines**2) / 4).mean() + np.sqrt(1 / 3)
    got = kernels.sliced_gaussian_mmd(jnp.asarray(x, jnp.float32), bandwidth=1.0, unbiased=True)
    np.testing.assert_allclose(got, drawn, atol=2e-3)


@pytest.mark.parametrize("d", [2, 3, 64])
@pytest.mark.parametrize("bandwidth", [0.5, 2.0])
def test_the_limit_of_the_stein_discrepancy_is_that_of_many_directions(d, bandwidth):
    """Against Kummer's functions, and against the Stein kernel on lines, averaged over directions."""
    from scipy.special import hyp1f1

    rng = np.random.default_rng(d)
    x = np.concatenate([rng.normal(size=(5, d)) + 0.5, np.full((2, d), 0.3)])  # Two alike: r = 0.
    width, n = bandwidth**2, len(x)
    kummer, drawn = np.zeros((n, n)), np.zeros((n, n))
    directions = unit(rng.normal(size=(100_000, d)))
    for i in range(n):
        for j in range(n):
            r = x[i] - x[j]
            squares = r @ r
            at = -squares / (2 * width)
            mean, along = hyp1f1(0.5, d / 2, at), hyp1f1(1.5, d / 2 + 1, at) / d
            across = (mean - along) / (d - 1)
            both = (x[i] @ r) * (x[j] @ r) / squares if squares else 0.0
            kummer[i, j] = both * along + (x[i] @ x[j] - both) * across
            kummer[i, j] += mean / width - (1 / width + 1 / width**2) * squares * along
            u, v = directions @ x[i], directions @ x[j]
            kernel = np.exp(-((u - v) ** 2) / (2 * width))
            drawn[i, j] = np.mean((u * v + 1 / width - (u - v) ** 2 * (1 / width + 1 / width**2)) * kernel)
    got = [
        kernels.sliced_gaussian_stein(jnp.asarray(x, jnp.float32), bandwidth=bandwidth, unbiased=u) for u in (0, 1)
    ]
    off = ~np.eye(n, dtype=bool)
    tolerance = 1e-3 if d == 2 else 2e-5
    np.testing.assert_allclose(got, [kummer.mean(), kummer[off].mean()], rtol=tolerance)
    np.testing.assert_allclose(got, [drawn.mean(), drawn[off].mean()], rtol=0.02)


def test_the_limit_of_the_stein_discrepancy_has_finite_gradients():
    for x in (jnp.ones((4, 3)), jnp.zeros((4, 3)), 1e3 + jnp.arange(12.0).reshape(4, 3) * 1e-3):
        gradient = jax.grad(lambda x: kernels.sliced_gaussian_stein(x, bandwidth=1.0, unbiased=True))(x)
        assert np.isfinite(gradient).all()


def test_sigreg_is_the_sliced_mmd():
    """Epps–Pulley's integral over all t, with the weight exp(−t²/2), is √(2π)·n times the biased MMD of σ = 1."""
    x, a = jnp.asarray(arrays(1, 20, K), jnp.float32), jnp.asarray(unit(arrays(6, K, seed=2)).T, jnp.float32)
    s = values("kerjepa", slicing="random", unbiased=False)
    statistic = objectives.sigreg(x, a, num_points=200, t_max=8.0, weight="gaussian")
    np.testing.assert_allclose(
        statistic / 20 / np.sqrt(2 * np.pi), objectives.kerjepa.discrepancy(s, x[0], a), atol=1e-6
    )


@pytest.mark.parametrize(
    "given, field",
    [
        (dict(kernel="imq"), "kernel 'imq'"),
        (dict(discrepancy="ksd", kernel="imq"), "slicing 'limit'"),
    ],
)
def test_a_discrepancy_without_a_closed_form_is_refused(given, field):
    with pytest.raises(UserError, match=rf"objective\.kerjepa\.{field}"):
        made("kerjepa", **given)


# -- LeJEPA as its paper has it ------


def test_lejepa_in_its_papers_form():
    """(1 − λ)·L_pred + λ·SIGReg, of each view or of all as one sample."""
    z = arrays(3, B, K)
    for pooled in (False, True):
        objective = made("lejepa", weighting="convex", sigreg_weight=0.3, pool_views=pooled)
        samples = z.swapaxes(0, 1).reshape(1, -1, K) if pooled else z
        t = np.linspace(0, 3, 9)
        weights = np.exp(-(t**2) / 2) * 2 * 0.375 * np.where((t == 0) | (t == 3), 0.5, 1)
        ty = (samples @ np.asarray(objective.draw(0)))[..., None] * t
        error = (np.cos(ty).mean(1) - np.exp(-(t**2) / 2)) ** 2 + np.sin(ty).mean(1) ** 2
        sigreg = samples.shape[1] * (error @ weights).mean()
        want = 0.7 * lejepa_prediction(z) + 0.3 * sigreg
        np.testing.assert_allclose(loss_of(objective, {}, z)[0], want, rtol=1e-5)
    with pytest.raises(UserError, match=r"objective\.lejepa\.sigreg_weight 1\.5.*weighting='sum'"):
        made("lejepa", weighting="convex", sigreg_weight=1.5)


# -- Against collapse ------

COLLAPSES = {name: {} for name in (*REFERENCES, "byol", "lejepa")}
STEIN = {"kerjepa, ksd": ("kerjepa", dict(discrepancy="ksd", slicing="none", kernel="imq"))}


@pytest.mark.parametrize("name", [*COLLAPSES, *STEIN])
def test_the_gradient_leads_out_of_a_collapse(name):
    """The loss falls as the differences of images grow from nearly nothing.

    All images lie near one point; for Barlow Twins, which sees no scale, near a line. BYOL has no term against
    collapse: its teacher's targets differ, and its gradient follows them.
    """
    part, given = STEIN.get(name, (name, {}))
    objective, params = byol_with_identity() if name == "byol" else (made(part, **given), {})
    images = arrays(1, B, K, seed=4) * np.ones((3, 1, 1))
    start = arrays(1, B, 1, seed=5) * np.ones((3, 1, K)) if name == "barlow_twins" else np.full((3, B, K), 0.3)
    teacher = images[:2] if objective.teacher else None

    def loss(size):
        return loss_of(objective, params, jnp.asarray(start) + size * jnp.asarray(images), teacher)[0]

    assert jax.grad(loss)(jnp.float32(0.05)) < -1e-3
