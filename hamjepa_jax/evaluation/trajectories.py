"""What a learned state and its flow know of a mechanical system whose true states are known.

z is a learned state of n clips at T times, s the true one, (position, momentum).
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from hamjepa_jax.evaluation.factors import r_squared

Array = np.ndarray
PENALTIES = tuple(10.0**k for k in range(-8, 3))  # Of ridge regressions on standardised features.
DEGREE = 3  # Of the polynomial whose Jacobian `symplecticity` takes.
SYMETRIC_FIT, SYMETRIC_SYM = 0.9, 0.05  # Of SyMetric: least R², and largest score of its symplectic maps.
MOST_FEATURES = 2000  # Of a polynomial that is fitted.
VALID_ERROR = 0.1  # Error, as a share of the variance within clips, up to which a prediction is valid.
PROTOCOL = {
    "penalties": PENALTIES,
    "degree": DEGREE,
    "valid_error": VALID_ERROR,
    "rollouts": "to the end of the clips",
    "error_unit": "variance within clips",
    "symetric": [SYMETRIC_FIT, SYMETRIC_SYM],
}


# -- From learned to true states --------------------------------------------------------------------------


def state_scores(train_z: Array, train_s: Array, test_z: Array, test_s: Array) -> dict[str, list[float]]:
    """R² of ridge regressions from learned to true states, on test states.

    Args:
      train_z: [n, k] learned states that the regressions are fitted to; their penalty is chosen by leave-one-out.
      train_s: [n, m] true states.
      test_z: [n', k]; likewise test_s, [n', m].

    Returns:
      {"linear": R² of each coordinate of s, "quadratic": with squares and products of z as well, if these are not
      too many}.
    """
    found = {}
    for name, degree in (("linear", 1), ("quadratic", 2)):
        if degree > 1 and not _is_feasible(train_z.shape[1], degree):
            continue
        model = _polynomial(degree).fit(train_z, train_s)
        predicted = model.predict(test_z).reshape(test_s.shape)
        found[name] = [r_squared(y[:, None], x[:, None]) for x, y in zip(predicted.T, test_s.T, strict=True)]
    return found


def reader(train_z: Array, train_s: Array) -> Callable[[Array], Array]:
    """The linear ridge regression of `state_scores`: learned states [n, k] -> true ones [n, m]."""
    model = _polynomial(1).fit(train_z, train_s)
    return lambda z: model.predict(z).reshape(len(z), -1)


def symplecticity(train_z: Array, train_s: Array, test_z: Array) -> dict[str, float] | None:
    """How far the map f from learned to true states is from canonical, up to one factor.

    f is a ridge regression on polynomials of degree 3 of z = [q; p]. Its Poisson brackets B(z) = Df·Ω·Dfᵀ are αΩ
    with one number α at all states if f is canonical up to the units of its variables: then Hamilton's equations of
    z become those of s. `defect` measures that. `sym` is the score of SyMetric (Higgins et al., 2021, arXiv
    2111.05986) by its public code: of standardised z and s, B·Bᵀ is divided by one number for a trajectory, the
    mean of its largest entry; the score is the mean square of its difference from the identity. It allows a
    sign, and another factor on each trajectory. SyMetric fits a Lasso of the least sufficient degree up to 5 to
    latents of rollouts; ours are encodings, and all of their states count.

    Args:
      train_z: [n, 2k] learned states that f is fitted to.
      train_s: [n, 2m] true ones.
      test_z: [T, n', 2k] at which the brackets are taken, along n' trajectories; [T, 2k] is one.

    Returns:
      {"defect": root mean square of ‖B − αΩ‖ over that of ‖B‖, α by least squares; from 0, canonical, to 1, no
      common factor. "scale": α. "r_squared": of f on the states that it was fitted to. "sym": from 0. "symetric":
      1 if r_squared is above 0.9 and sym below 0.05, else 0}. None where the states have so many coordinates that
      there would be too many polynomials.
    """
    if not _is_feasible(train_z.shape[1], DEGREE):
        return None
    model = _polynomial(DEGREE).fit(train_z, train_s)
    fit = r_squared(train_s, model.predict(train_z).reshape(train_s.shape))
    jacobian = _jacobian(model, test_z.reshape(-1, test_z.shape[-1]))
    brackets = jacobian @ _omega(test_z.shape[-1]) @ jacobian.swapaxes(1, 2)
    omega = _omega(train_s.shape[1])
    scale = (brackets * omega).mean(axis=0).sum() / np.square(omega).sum()
    total = np.square(brackets).sum()
    defect = np.sqrt(np.square(brackets - scale * omega).sum() / total) if total else 1.0
    own = jacobian * train_z.std(axis=0) / train_s.std(axis=0)[:, None]
    sym = _sym(own @ _omega(test_z.shape[-1]) @ own.swapaxes(1, 2), len(test_z))
    found = {"defect": float(defect), "scale": float(scale), "r_squared": fit, "sym": sym}
    return found | {"symetric": float(fit > SYMETRIC_FIT and sym < SYMETRIC_SYM)}


def _sym(brackets: Array, times: int) -> float:
    """SyMetric's score of brackets [times·n, 2m, 2m], time first."""
    products = brackets @ brackets.swapaxes(1, 2)
    products = products.reshape(times, -1, *products.shape[1:])
    largest = np.abs(products).max(axis=(2, 3)).mean(axis=0)  # Of each trajectory.
    products = products / np.where(largest, largest, 1.0)[:, None, None]
    return float(np.square(products - np.eye(products.shape[-1])).mean())


def _is_feasible(coordinates: int, degree: int) -> bool:
    return math.comb(coordinates + degree, degree) <= MOST_FEATURES


def _polynomial(degree: int):
    from sklearn.linear_model import RidgeCV  # Takes a second to import.
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import PolynomialFeatures, StandardScaler

    features = PolynomialFeatures(degree, include_bias=False)
    return make_pipeline(StandardScaler(), features, StandardScaler(), RidgeCV(alphas=PENALTIES))


def _jacobian(model, z: Array) -> Array:
    """[n, m, k] derivatives of a fitted `_polynomial`, by central differences of a smooth function."""
    columns = []
    for i, size in enumerate(1e-4 * z.std(axis=0)):
        change = np.zeros(z.shape[1])
        change[i] = size
        slope = (model.predict(z + change) - model.predict(z - change)) / (2 * size)
        columns.append(slope.reshape(len(z), -1))
    return np.stack(columns, axis=-1)


def _omega(size: int) -> Array:
    d = size // 2
    return np.kron([[0.0, 1.0], [-1.0, 0.0]], np.eye(d))


def motion(z: Array) -> float:
    """Share of the variance of encodings [T, n, k] that is within clips: 0 if they tell what a clip keeps alone."""
    spread = np.square(z - z.mean(axis=(0, 1))).sum()
    return float(np.square(z - z.mean(axis=0)).sum() / spread) if spread else 0.0


# -- Rollouts ---------------------------------------------------------------------------------------------


def rollout(flow: Callable, z: Array, *, frames: int, direction: int) -> Array:
    """[frames + 1, n, k]: states z [n, k] and what the flow over one frame makes of them, again and again."""

    def advance(z, _):
        z = flow(z, direction)
        return z, z

    run = jax.jit(lambda z: jax.lax.scan(advance, z, length=frames)[1])
    return np.concatenate([z[None], np.asarray(run(jnp.asarray(z)))])


def rollout_errors(predicted: Array, encoded: Array) -> Array:
    """[T, n] squared errors of predicted states, in units of the encodings' variance within clips.

    1 is the error of a clip's own mean, 2 that of one of its moments at random. What only tells clips from each
    other does not count: it is predicted without any motion.

    Args:
      predicted: [T, n, k].
      encoded: [T, n, k] encodings of the true frames.
    """
    spread = np.square(encoded - encoded.mean(axis=0)).sum(axis=-1).mean()
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        return np.nan_to_num(np.square(predicted - encoded).sum(axis=-1) / spread, nan=np.inf)


def valid_times(errors: Array, *, largest: float = VALID_ERROR) -> Array:
    """[n] frames before the error is above `largest` for the first time; T − 1 where it never is.

    After the valid prediction time of SyMetric's public code, the frames before the squared error of the pixels is
    above 0.025 of their mean square, of which it takes the median over trajectories; here of states and their
    variance within clips.

    Args:
      errors: [T, n] of `rollout_errors`, the first of the start.
    """
    above = errors > largest
    return np.where(above.any(axis=0), np.maximum(above.argmax(axis=0) - 1, 0), len(errors) - 1)


def retrieved(predicted: Array, encoded: Array) -> Array:
    """[T] share of predicted states whose nearest encoding, of all frames of all clips, is that of their frame.

    Args:
      predicted, encoded: [T, n, k], as in `rollout_errors`.
    """
    steps, n = encoded.shape[:2]
    return (nearest(predicted, encoded) == np.arange(steps * n).reshape(steps, n)).mean(axis=1)


def nearest(predicted: Array, encoded: Array) -> Array:
    """[T, m] positions in the flat [T·n] encodings of the one nearest to each predicted state [T, m, k]."""
    from sklearn.neighbors import NearestNeighbors

    k = encoded.shape[-1]
    bank = NearestNeighbors(n_neighbors=1).fit(encoded.reshape(-1, k))
    finite = np.nan_to_num(predicted.reshape(-1, k), nan=1e30, posinf=1e30, neginf=-1e30).clip(-1e30, 1e30)
    return bank.kneighbors(finite.astype(np.float64), return_distance=False).reshape(predicted.shape[:2])


# -- Energy -----------------------------------------------------------------------------------------------


def energy_scores(along: Array, at: Array, true: Array) -> dict[str, float]:
    """How the learned energy H behaves.

    Args:
      along: [T, n] H along rollouts.
      at: [n'] H of encodings.
      true: [n'] true energies of the same frames.

    Returns:
      {"drift": largest |H − H at the start| of a rollout, its median over the rollouts, in standard deviations of
      H over the encodings. "rank_correlation": Spearman's, of H with the true energy}.
    """
    from scipy import stats

    spread = at.std()
    drift = np.median(np.abs(along - along[0]).max(axis=0))
    return {
        "drift": float(drift / spread) if spread else float("nan"),
        "rank_correlation": float(stats.spearmanr(at, true).statistic),
    }
