"""Ridge regression from one eigendecomposition gives scikit-learn's numbers."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from hamjepa_jax.evaluation.factors import PENALTIES
from hamjepa_jax.evaluation.ridge import ridge


@pytest.mark.parametrize(("n", "d"), [(60, 12), (12, 60)])
@pytest.mark.parametrize("rank", [12, 5])
def test_every_penalty_and_target_is_as_scikit_learns(n, d, rank):
    rng = np.random.default_rng(n)
    x = rng.normal(size=(n, rank)) @ rng.normal(size=(rank, d)) + 3.0  # Not centred; of rank 5, singular.
    y, at = rng.normal(size=(n, 3)) + 1.0, rng.normal(size=(20, d))
    solved = ridge(x)
    for penalty in PENALTIES:
        expected = Ridge(alpha=penalty * n).fit(x, y).predict(at)
        found = solved.predict(y, penalty * n, at)
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max())
