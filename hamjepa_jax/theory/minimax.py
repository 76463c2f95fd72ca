"""The best covariance for a task geometry H, and the cost of another one (paper, sections 2 and 3).

Tasks are linear readouts w with wᵀH⁻¹w ≤ 1; representations z have covariance Σ under the budget tr(HΣ) = c. Every
function takes NumPy or JAX arrays and computes in float64.
"""

import numpy as np
from numpy.typing import ArrayLike

from hamjepa_jax.theory.matrices import covariance, positive_definite, same_size, square_root


def minimax_covariance(H: ArrayLike, c: float) -> np.ndarray:
    """Σ* = (c/d)·H⁻¹, the least worst-case task variance and the largest entropy under tr(HΣ) = c.

    The d eigenvalues of H^{1/2}ΣH^{1/2} add up to c, so the largest is at least c/d, with equality iff they are
    equal. Log-determinant, and with it the entropy of a Gaussian, is largest at the same point.

    Args:
      H: [d, d] symmetric positive definite geometry.
      c: budget, positive; in units of energy.

    Returns:
      [d, d].

    Raises:
      ValueError: if H is not symmetric positive definite or c is not positive.
    """
    H = positive_definite("the geometry H", H)
    return _budget(c) / len(H) * _symmetric_inverse(H)


def isotropic_covariance(H: ArrayLike, c: float) -> np.ndarray:
    """Σ_iso = c/tr(H)·I, the isotropic covariance under the same budget: [d, d] -> [d, d].

    Raises:
      ValueError: if H is not symmetric positive definite or c is not positive.
    """
    H = positive_definite("the geometry H", H)
    return _budget(c) / np.trace(H) * np.eye(len(H))


def worst_case_variance(sigma: ArrayLike, H: ArrayLike) -> float:
    """V(Σ) = max {wᵀΣw : wᵀH⁻¹w ≤ 1} = λ_max(H^{1/2}ΣH^{1/2}).

    Args:
      sigma: [d, d] covariance; may be singular.
      H: [d, d] symmetric positive definite geometry.

    Returns:
      The variance, in squared units of a task's output.

    Raises:
      ValueError: if sigma is no covariance, H is not positive definite, or their sizes differ.
    """
    sigma, H = _checked(sigma, H)
    return float(np.linalg.eigvalsh(_whitened(sigma, H))[-1])


def worst_task_direction(sigma: ArrayLike, H: ArrayLike) -> np.ndarray:
    """The task w = H^{1/2}u, u the top eigenvector of H^{1/2}ΣH^{1/2}, at which wᵀΣw = V(Σ) and wᵀH⁻¹w = 1: [d].

    Raises:
      ValueError: as `worst_case_variance`.
    """
    sigma, H = _checked(sigma, H)
    return square_root(H) @ np.linalg.eigh(_whitened(sigma, H))[1][:, -1]


def price_of_isotropy(H: ArrayLike) -> float:
    """ρ(H) = V(Σ_iso)/V(Σ*) = d·λ_max(H)/tr(H), in [1, d]; 1 iff H is a multiple of the identity.

    Raises:
      ValueError: if H is not symmetric positive definite.
    """
    H = positive_definite("the geometry H", H)
    return float(len(H) * np.linalg.eigvalsh(H)[-1] / np.trace(H))


def misalignment(sigma: ArrayLike, H: ArrayLike) -> float:
    """V(Σ) over the best achievable at the same budget: d·λ_max(H^{1/2}ΣH^{1/2})/tr(HΣ), in [1, d].

    1 iff Σ is a multiple of H⁻¹. For every Σ the supremum over H is d (see `worst_geometry`), so no fixed
    covariance is right for all geometries.

    Raises:
      ValueError: as `worst_case_variance`.
    """
    sigma, H = _checked(sigma, H)
    eigenvalues = np.linalg.eigvalsh(_whitened(sigma, H))
    return float(len(H) * eigenvalues[-1] / eigenvalues.sum())


def worst_geometry(sigma: ArrayLike, condition: float) -> tuple[np.ndarray, float]:
    """The geometry of condition number at most κ that Σ is worst misaligned with.

    With λ_1 ≥ … ≥ λ_d the eigenvalues of Σ and v the first eigenvector, the maximum is attained at
    H = I + (κ − 1)·vvᵀ and equals d·κλ_1/(κλ_1 + λ_2 + … + λ_d).

    Proof. Scale H so that I ≼ H ≼ κI, and let μ_1 ≥ … ≥ μ_d be the eigenvalues of Σ^{1/2}HΣ^{1/2}, which are those
    of H^{1/2}ΣH^{1/2}. From Σ ≼ Σ^{1/2}HΣ^{1/2} ≼ κΣ follow μ_1 ≤ κλ_1 and μ_i ≥ λ_i. The misalignment is
    d·μ_1/(μ_1 + Σ_{i≥2} μ_i), which grows with μ_1 and shrinks with the others: the value above bounds it, and the
    H above attains μ_1 = κλ_1, μ_i = λ_i. It tends to d as κ → ∞.

    Args:
      sigma: [d, d] covariance.
      condition: κ ≥ 1.

    Returns:
      (H [d, d] with eigenvalues 1 and κ, the misalignment of sigma with it).

    Raises:
      ValueError: if sigma is no covariance or the condition number is under 1 or not finite.
    """
    sigma = covariance("the covariance sigma", sigma)
    if not 1 <= condition < np.inf:
        raise ValueError(f"a condition number is finite and at least 1, got {condition}.")
    values, vectors = np.linalg.eigh(sigma)
    top = vectors[:, -1]
    H = np.eye(len(sigma)) + (condition - 1) * np.outer(top, top)
    return H, float(len(sigma) * condition * values[-1] / (values.sum() + (condition - 1) * values[-1]))


def gaussian_entropy(sigma: ArrayLike) -> float:
    """Differential entropy of N(0, Σ) in nats, ½·logdet(2πe·Σ).

    Raises:
      ValueError: if sigma is not symmetric positive definite.
    """
    sigma = positive_definite("the covariance sigma", sigma)
    return float(0.5 * np.linalg.slogdet(2 * np.pi * np.e * sigma)[1])


def gibbs_covariances(H: ArrayLike, c: float) -> tuple[np.ndarray, np.ndarray]:
    """Covariances of the Gibbs law of the quadratic lift ½qᵀHq + ½‖p‖² at inverse temperature β = d/c.

    The density exp(−β·(½qᵀHq + ½‖p‖²)) is Gaussian with q and p independent: q ~ N(0, (c/d)·H⁻¹), the minimax law
    of H, and p ~ N(0, (c/d)·I).

    Returns:
      (covariance of q, covariance of p), each [d, d].

    Raises:
      ValueError: if H is not symmetric positive definite or c is not positive.
    """
    sigma_q = minimax_covariance(H, c)
    return sigma_q, c / len(sigma_q) * np.eye(len(sigma_q))


def _budget(c: float) -> float:
    if not 0 < c < np.inf:
        raise ValueError(f"the budget c must be positive and finite, got {c}.")
    return float(c)


def _checked(sigma, H):
    sigma, H = covariance("the covariance sigma", sigma), positive_definite("the geometry H", H)
    same_size("the covariance sigma", sigma, "the geometry H", H)
    return sigma, H


def _whitened(sigma, H):
    root = square_root(H)
    return root @ sigma @ root


def _symmetric_inverse(H):
    return square_root(H, -1.0)
