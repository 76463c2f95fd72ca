"""What features know of the factors that images were drawn from: ridge and MLP probes.

Both probes are least squares to a matrix of targets: a linear factor itself, the sine and cosine of a periodic
one, or an indicator for each class of a categorical one, whose largest output is the answer.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from hamjepa_jax.evaluation.ridge import Ridge, ridge

PROBES = "ridge", "mlp"
HELD_OUT = 0.2  # Of the training examples: the ridge's penalty and the MLP's last epoch are chosen on them.
PENALTIES = tuple(10.0**k for k in range(-6, 3))  # Of the ridge, for each training example.
HIDDEN, EPOCHS, PATIENCE = 128, 60, 6  # Of the MLP: units of its hidden layer, most epochs, and those without gain.
PROTOCOL = {"held_out": HELD_OUT, "penalties": PENALTIES, "hidden": HIDDEN, "epochs": EPOCHS, "patience": PATIENCE}

Array = np.ndarray


class Values(NamedTuple):
    """A factor's values for training and for test examples.

    Attributes:
      train: [n] or [n, k]; NaN where an example does not show the factor. Such examples are left out.
      test: [m] or [m, k].
      kind: "categorical", whole numbers from 0; "linear"; or "periodic", in turns.
    """

    train: Array
    test: Array
    kind: str


def factor_scores(
    train_x: Array, test_x: Array, factors: Mapping[str, Values], *, seed: int = 0
) -> dict[str, dict[str, float]]:
    """How well each factor is read out of features by a linear and by a nonlinear probe.

    Args:
      train_x: [n, d] features of the training examples.
      test_x: [m, d] of the test examples.
      factors: by name.
      seed: of the examples that are held out, and of the MLP.

    Returns:
      {factor: {"ridge": score, "mlp": score}} on the test examples: the accuracy of a categorical factor, else R²
      (1 − squared error over the variance, both summed over the targets; 0 for a probe that knows nothing). A
      factor that does not vary among the test examples, or of which there are fewer than 10 training examples, is
      left out.

    Raises:
      ValueError: if features and values do not fit together.
    """
    scores, solved = {}, {}
    for name, values in factors.items():
        if len(values.train) != len(train_x) or len(values.test) != len(test_x):
            shapes = train_x.shape, test_x.shape, values.train.shape, values.test.shape
            raise ValueError(f"factor {name!r} does not fit the features: shapes {shapes}.")
        data = _data(train_x, test_x, values, seed)
        if data is not None:
            scores[name] = {"ridge": _ridge(data, solved), "mlp": _mlp(data, seed)}
    return scores


class _Data(NamedTuple):
    """One factor's examples, standardised by the training examples: (features, targets) of each part.

    Factors whose training examples are the same have the same features.
    """

    fit: tuple[Array, Array]
    held_out: tuple[Array, Array]
    test: tuple[Array, Array]
    score: Callable[[Array, Array], float]  # (targets, predictions)
    rows: bytes  # Which training examples show the factor.


def _data(train_x: Array, test_x: Array, values: Values, seed: int) -> _Data | None:
    classes = 1 + int(max(values.train.max(), values.test.max())) if values.kind == "categorical" else 0
    parts, rows = [], b""
    for x, v in ((train_x, values.train), (test_x, values.test)):
        v = v[:, None] if v.ndim == 1 else v
        shown = ~np.isnan(v).any(axis=1)
        rows = rows or shown.tobytes()
        parts.append((np.asarray(x, np.float64)[shown], _targets(v[shown], values.kind, classes)))
    (x, y), (test_x, test_y) = parts
    if len(x) < 10 or not len(test_y) or not np.ptp(test_y, axis=0).any():
        return None
    centre, scale = x.mean(axis=0), x.std(axis=0)
    scale[scale == 0] = 1.0
    x, test_x = (x - centre) / scale, (test_x - centre) / scale
    order = np.random.default_rng(seed).permutation(len(x))
    held, rest = np.split(order, [int(HELD_OUT * len(x))])
    score = functools.partial(_accuracy, classes=classes) if classes else r_squared
    return _Data((x[rest], y[rest]), (x[held], y[held]), (test_x, test_y), score, rows)


def _targets(values: Array, kind: str, classes: int) -> Array:
    if kind == "periodic":
        angles = 2 * np.pi * values.astype(np.float64)
        return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
    if kind == "linear":
        return values.astype(np.float64)
    return np.concatenate([np.eye(classes)[column] for column in values.T], axis=1)


def _ridge(data: _Data, solved: dict[bytes, tuple[Ridge, Ridge]]) -> float:
    """The penalty is that of the best score on the held-out examples; then all training examples are fitted.

    `solved` keeps what factors with the same training examples share.
    """
    both_x, both_y = (np.concatenate(pair) for pair in zip(data.fit, data.held_out, strict=True))
    if data.rows not in solved:
        solved[data.rows] = ridge(data.fit[0]), ridge(both_x)
    part, whole = solved[data.rows]
    fit_y, (x, y) = data.fit[1], data.held_out
    penalty = max(PENALTIES, key=lambda p: data.score(y, part.predict(fit_y, p * len(fit_y), x)))
    x, y = data.test
    return data.score(y, whole.predict(both_y, penalty * len(both_y), x))


def _mlp(data: _Data, seed: int) -> float:
    """One hidden layer, fitted until the score on the held-out examples no longer grows; its best weights count."""
    from sklearn.neural_network import MLPRegressor

    centre, scale = data.fit[1].mean(axis=0), data.fit[1].std(axis=0)
    scale[scale == 0] = 1.0
    network = MLPRegressor(
        hidden_layer_sizes=(HIDDEN,),
        learning_rate_init=2e-3,
        batch_size=min(200, len(data.fit[0])),
        random_state=seed,
    )
    best, weights, waited = -np.inf, None, 0
    x, y = data.held_out[0].astype(np.float32), data.held_out[1]
    fit_x, fit_y = (a.astype(np.float32) for a in (data.fit[0], (data.fit[1] - centre) / scale))
    for _ in range(EPOCHS):
        network.partial_fit(fit_x, _columns(fit_y))
        found = data.score(y, _predicted(network, x, y) * scale + centre)
        if found > best:
            best, waited = found, 0
            weights = [w.copy() for w in network.coefs_], [b.copy() for b in network.intercepts_]
        else:
            waited += 1
        if waited == PATIENCE:
            break
    network.coefs_, network.intercepts_ = weights
    x, y = data.test[0].astype(np.float32), data.test[1]
    return data.score(y, _predicted(network, x, y) * scale + centre)


def _columns(y: Array) -> Array:
    return y[:, 0] if y.shape[1] == 1 else y  # scikit-learn wants one target as a vector.


def _predicted(model: Any, x: Array, y: Array) -> Array:
    return model.predict(x).reshape(y.shape)


def r_squared(y: Array, predicted: Array) -> float:
    """1 − Σ(y − ŷ)²/Σ(y − ȳ)², summed over examples and targets; 0 if y does not vary.

    >>> y = np.asarray([[0.0], [1.0], [2.0]])
    >>> r_squared(y, y), r_squared(y, np.ones((3, 1)))
    (1.0, 0.0)
    """
    spread = np.square(y - y.mean(axis=0)).sum()
    return float(1 - np.square(y - predicted).sum() / spread) if spread else 0.0


def _accuracy(y: Array, predicted: Array, *, classes: int) -> float:
    given, found = (t.reshape(len(t), -1, classes).argmax(axis=-1) for t in (y, predicted))
    return float(np.mean(given == found))
