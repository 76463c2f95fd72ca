"""The price of isotropy in trained encoders, on data whose task geometry H is known.

Two views x = [u; e]·M of an example share d standard normal factors u; the others, e, are each view's own, and M is
a random rotation. Linear encoders z = x·W of d coordinates are trained by the package's objectives, and measured on
new examples after scaling to the budget tr(HΣ) = d, at which the least worst-case task variance is 1. A task is a
linear readout w with wᵀH⁻¹w ≤ 1, and its variance is that of wᵀz.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from hamjepa_jax import nn, rng
from hamjepa_jax.objectives import Context, Objective, orthonormal_projection
from hamjepa_jax.objectives import hamjepa as hamjepa_objective
from hamjepa_jax.objectives.hamjepa import SETTINGS as HAMJEPA
from hamjepa_jax.objectives.lejepa import SETTINGS as LEJEPA
from hamjepa_jax.objectives.lejepa import regularised_prediction
from hamjepa_jax.parts import Values
from hamjepa_jax.theory.matrices import square_root
from hamjepa_jax.theory.minimax import minimax_covariance, misalignment, price_of_isotropy, worst_case_variance

Array = jax.Array
ISOTROPIC, MATCHED, WRONG, FLOW = "SIGReg", "HamSIGReg, right H", "HamSIGReg, wrong H", "HamJEPA q"
METHODS = ISOTROPIC, MATCHED, WRONG, FLOW


class Trial(NamedTuple):
    """Attributes:
    conditions: condition numbers of H.
    seeds: each has data, a basis of H and initial weights of its own.
    dim: d, the factors that views share, and the coordinates of z, or of q and of p.
    own: factors that each view has of its own.
    steps, batch_size, learning_rate: of training with Adam; the rate falls to 0 along a cosine.
    directions: slices of SIGReg at a step.
    examples, tasks: new ones, on which encoders are measured.
    """

    conditions: Sequence[float] = (1.0, 10.0, 100.0, 1000.0)
    seeds: Sequence[int] = (0, 1, 2)
    dim: int = 8
    own: int = 16
    steps: int = 3000
    batch_size: int = 256
    learning_rate: float = 0.02
    directions: int = 16
    examples: int = 20_000
    tasks: int = 1000


def geometry(trial: Trial, seed: int, condition: float) -> tuple[np.ndarray, np.ndarray]:
    """(H, the wrong H) of a seed, [d, d] each.

    The eigenvalues are a geometric sequence of geometric mean 1; the wrong H has them in reverse order in the same
    random basis.
    """
    basis = np.linalg.qr(np.random.default_rng([seed, 1]).normal(size=(trial.dim, trial.dim)))[0]
    values = np.geomspace(condition**-0.5, condition**0.5, trial.dim)
    return (basis * values) @ basis.T, (basis * values[::-1]) @ basis.T


def run_trial(trial: Trial) -> dict[str, dict[str, list]]:
    """Trains and measures every encoder.

    Returns:
      {method: {"V": [condition][seed] worst-case task variance, "task_mean" and "task_p99": likewise the mean and
      the 99th percentile of the variances of random tasks on the boundary of the class, "closed_form": [condition],
      the worst-case variance by theory, or None for HamJEPA, which has no target covariance}}.
    """
    geometries = [[geometry(trial, seed, k) for seed in trial.seeds] for k in trial.conditions]
    encoders = _encoders(trial, geometries)
    results = {name: {"V": [], "task_mean": [], "task_p99": [], "closed_form": []} for name in METHODS}
    held_out = [np.asarray(_views(trial, seed, trial.steps, trial.examples)[0], np.float64) for seed in trial.seeds]
    for i in range(len(trial.conditions)):
        H, wrong = geometries[i][0]  # The closed forms are the same in every basis.
        closed = {ISOTROPIC: price_of_isotropy(H), MATCHED: 1.0, FLOW: None}
        closed[WRONG] = misalignment(minimax_covariance(wrong, 1.0), H)
        for name in METHODS:
            measured = [
                _measured(trial, x @ encoders[name][i][j], geometries[i][j][0], seed)
                for j, (seed, x) in enumerate(zip(trial.seeds, held_out, strict=True))
            ]
            for key, values in zip(("V", "task_mean", "task_p99"), zip(*measured, strict=True), strict=True):
                results[name][key].append(list(values))
            results[name]["closed_form"].append(closed[name])
    return results


def _measured(trial: Trial, z: np.ndarray, H: np.ndarray, seed: int) -> tuple[float, float, float]:
    """(V, mean and 99th percentile of random tasks' variances) of embeddings z [n, d], scaled to the budget."""
    sigma = np.cov(z, rowvar=False)
    scale = trial.dim / np.trace(H @ sigma)
    w = np.random.default_rng([seed, 2]).normal(size=(trial.tasks, trial.dim))
    w = w / np.linalg.norm(w, axis=1, keepdims=True) @ square_root(H)
    variances = scale * np.var(z @ w.T, axis=0, ddof=1)
    return worst_case_variance(scale * sigma, H), float(variances.mean()), float(np.quantile(variances, 0.99))


# -- Training -----------------------------------------------------------------------------------------------------


def _encoders(trial: Trial, geometries: list[list[tuple]]) -> dict[str, list[list[np.ndarray]]]:
    """{method: [condition][seed] weights [inputs, d]}. What knows no H is trained once for each seed."""
    jobs = [(ISOTROPIC, 0, j, np.eye(trial.dim)) for j in range(len(trial.seeds))]
    for i, of_condition in enumerate(geometries):
        for j, (H, wrong) in enumerate(of_condition):
            jobs += [(MATCHED, i, j, square_root(H)), (WRONG, i, j, square_root(wrong))]
    seeds = jnp.asarray([trial.seeds[j] for _, _, j, _ in jobs])
    roots = jnp.asarray(np.stack([root for *_, root in jobs]), jnp.float32)
    weights = jax.jit(jax.vmap(lambda seed, root: _train(trial, seed, _with_marginal(trial, seed, root))))(
        seeds, roots
    )
    flows = jax.jit(jax.vmap(lambda seed: _train(trial, seed, _with_flow(trial, seed))))(jnp.asarray(trial.seeds))
    found = {(name, i, j): np.asarray(w, np.float64) for (name, i, j, _), w in zip(jobs, weights, strict=True)}
    for j, w in enumerate(flows):
        found[FLOW, 0, j] = np.asarray(w, np.float64)[:, : trial.dim]

    def of(name: str, i: int) -> list[np.ndarray]:
        row = 0 if name in (ISOTROPIC, FLOW) else i
        return [found[name, row, j] for j in range(len(trial.seeds))]

    return {name: [of(name, i) for i in range(len(geometries))] for name in METHODS}


def _with_marginal(trial: Trial, seed: Array, root: Array) -> tuple[Objective, Any, int]:
    """LeJEPA's prediction with SIGReg of H^{1/2}z: (objective, predictor, size of z)."""
    context = _context(trial, seed, trial.dim, nn.identity_predictor())
    settings = _values(LEJEPA, num_directions=trial.directions)
    return regularised_prediction(context, settings, lambda z: z @ root), context.predictor, trial.dim


def _with_flow(trial: Trial, seed: Array) -> tuple[Objective, Any, int]:
    """HamJEPA with the paper's constants: (objective, predictor, size of z)."""
    predictor = nn.hamiltonian_predictor(
        energy="separable", method="leapfrog", step_size=0.05, num_steps=2, hidden=32, depth=2, base_coeff=0.1
    )
    context = _context(trial, seed, 2 * trial.dim, predictor)
    return hamjepa_objective(context, _values(HAMJEPA)), predictor, 2 * trial.dim


def _values(settings: Any, **changes: Any) -> Values:
    return settings.values_of(settings.defaults() | changes)


def _context(trial: Trial, seed: Array, embed_dim: int, predictor: Any) -> Context:
    return Context(
        num_global=2,
        num_local=0,
        batch_size=trial.batch_size,
        embed_dim=embed_dim,
        grid=None,
        seed=seed,
        predictor=predictor,
        residual_scale=lambda epoch: jnp.float32(0.02),
        horizon=None,
        optimizer=Values(),
    )


def _train(trial: Trial, seed: Array, method: tuple[Objective, Any, int]) -> Array:
    """The trained weights [inputs, size of z]."""
    objective, predictor, size = method
    inputs = trial.dim + trial.own
    key = rng.stream(seed, "encoder")
    params = {
        "encoder": 0.5 * jax.random.normal(key, (inputs, size)) / np.sqrt(inputs),
        "predictor": predictor.init(rng.stream(seed, "predictor"), size // 2),
    }
    optimizer = optax.adam(optax.cosine_decay_schedule(trial.learning_rate, trial.steps))

    def step(carry: tuple, number: Array) -> tuple[tuple, None]:
        params, state = carry
        views = _views(trial, seed, number, trial.batch_size)
        draw = objective.draw(number // objective.refresh_interval)

        def loss(params: dict) -> Array:
            z = jnp.einsum("vbn,nk->vbk", views, params["encoder"])
            return objective.loss(params["predictor"], z, draw, jnp.int32(1))[0]

        updates, state = optimizer.update(jax.grad(loss)(params), state, params)
        return (optax.apply_updates(params, updates), state), None

    (params, _), _ = jax.lax.scan(step, (params, optimizer.init(params)), jnp.arange(trial.steps))
    return params["encoder"]


def _views(trial: Trial, seed: int | Array, number: int | Array, count: int) -> Array:
    """Two views of `count` examples, [2, count, inputs]; another number gives other examples."""
    inputs = trial.dim + trial.own
    shared = jax.random.normal(rng.stream(seed, "shared", number), (1, count, trial.dim))
    own = jax.random.normal(rng.stream(seed, "own", number), (2, count, trial.own))
    factors = jnp.concatenate([jnp.broadcast_to(shared, (2, count, trial.dim)), own], axis=-1)
    mixing = orthonormal_projection(rng.stream(seed, "mixing"), inputs, inputs)
    return jnp.einsum("vbf,fn->vbn", factors, mixing)
