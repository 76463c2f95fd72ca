"""Classification: the cross-entropy of every view with its own image's label, against NumPy."""

import jax.numpy as jnp
import numpy as np
import pytest
from contexts import context, values

from hamjepa_jax import parts
from hamjepa_jax.errors import UserError
from hamjepa_jax.objectives import Objective, Seen


def objective(classes, dim=4):
    part = parts.objectives["classification"]
    return parts.objectives.made(part, Objective, context(embed_dim=dim), values("classification", classes=classes))


def test_every_view_is_compared_with_its_image_s_label():
    rng = np.random.default_rng(0)
    z, labels = rng.normal(size=(2, 5, 4)), rng.integers(0, 3, 5)
    params = {"kernel": rng.normal(size=(4, 3)), "bias": rng.normal(size=3)}
    scores = z @ params["kernel"] + params["bias"]
    log_p = scores - np.log(np.exp(scores).sum(axis=-1, keepdims=True))
    expected = -np.mean([log_p[v, b, labels[b]] for v in range(2) for b in range(5)])
    seen = Seen(jnp.asarray(z, jnp.float32), jnp.asarray(z, jnp.float32), carried=(), labels=jnp.asarray(labels))
    as_float = {name: jnp.asarray(x, jnp.float32) for name, x in params.items()}
    loss, metrics, carried = objective(3).of(as_float, seen, (), 1)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    np.testing.assert_allclose(metrics["accuracy"], np.mean(scores.argmax(axis=-1) == labels), atol=1e-6)
    assert carried == ()


def test_it_starts_at_zero_and_wants_the_number_of_classes():
    params, _ = objective(3).first_own(jnp.zeros(2, jnp.uint32))
    assert params["kernel"].shape == (4, 3) and not np.abs(params["kernel"]).any()
    with pytest.raises(UserError, match=r"objective\.classification\.classes None: must be the number"):
        objective(None)
