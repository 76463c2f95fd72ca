"""The contract of a metric: its input, and the statement of its keys, columns and panels.

A metric is one file: a function of the features that registers itself.

    @metrics.register("coding_rate", columns=[Column("coding rate")], panels=[Panel("Coding rate")])
    def coding_rate(x: Features) -> float: ...

Facts that a registration may state:
  keys: the quantities or `Key`s that the function gives numbers for, or a function from what is asked for (a
    `Protocol`, or the `FlowStates`) to them; where it gives none, the metric is not measured. The metric's name if
    they are not stated.
  columns, panels: its places in tables and plots.
  of: "features", the default, for a function of `Features`; "flow" for one of `FlowStates`.
  place: among the numbers of a readout, ascending; later than the package's own if it is not stated.
  listed: whether `python -m hamjepa_jax.evaluate` prints its numbers below the table.
  score: of a metric that needs no labels and is said to foretell accuracy: its number -> a score, higher for
    features that are expected to be better. Reports compare it with the accuracies.

The function returns {key or quantity: number}, or the number alone if there is one key. A metric with settings of
its own is called with their values as second argument. A file of this folder imports jax inside the function, if at
all: reports read columns and panels without jax.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from hamjepa_jax.metrics import keys

Metrics = Mapping[str, float]  # Of one readout, by keys without it.

# The paper's protocol.
KS = (1, 5, 10, 20, 50, 100, 200)
PROBE = {"epochs": 50, "batch_size": 256, "learning_rate": 1e-3, "weight_decay": 1e-6}
TOP_EIGENVALUES = 256
MAX_SAMPLES = 5000
NUM_PAIRS = 20_000

# Of `evaluation.summary_statistics`.
STATISTICS = ("mean", "std", "p10", "p50", "p90", "min", "max")


class Protocol(NamedTuple):
    """How features are measured.

    Attributes:
      ks: numbers of neighbours; empty leaves kNN out.
      probe: settings of the linear probe, "learning_rate" one rate or several; None leaves it out.
      vote: of the kNN, "majority" or "softmax".
      temperature: of the softmax vote.
      shots: labelled training examples a class; None for all.
      top: number of leading eigenvalues that ranks are computed from.
      num_pairs: random pairs of examples for the cosines.
      views: whether there are two random views of each test image.
      published_top5: whether the kNN's top-5 is counted as the published numbers do as well.
      lidar: (images, random views of each) that LiDAR is measured with; None leaves it out.
    """

    ks: Sequence[int] = KS
    probe: Mapping[str, Any] | None = PROBE
    vote: str = "majority"
    temperature: float = 0.07
    shots: int | None = None
    top: int = TOP_EIGENVALUES
    num_pairs: int = NUM_PAIRS
    views: bool = False
    published_top5: bool = False
    lidar: tuple[int, int] | None = None

    def learning_rates(self) -> list[float]:
        """Of the probe."""
        return np.atleast_1d(self.probe["learning_rate"]).tolist()


@dataclasses.dataclass(frozen=True, eq=False)
class Features:
    """The features of one readout: all that a metric may look at. Arrays are NumPy's or JAX's.

    Attributes:
      train: [n, d], of the labelled training images.
      train_labels: [n] class indices.
      test: [m, d], of the test images.
      test_labels: [m].
      sample: [s, d] NumPy array, a random sample of the rows of `test` for measures that cost s² d.
      views: the same rows of two random views of the test images, or None.
      surrogates: [n, v, d] NumPy array, of v random views of each of n test images; None if not asked for.
      num_classes: number of classes.
      protocol: how to measure.
      seed: of random draws.
      mesh: devices to spread work over; None for one device.
    """

    train: Any
    train_labels: Any
    test: Any
    test_labels: Any
    sample: np.ndarray
    views: tuple[np.ndarray, np.ndarray] | None
    num_classes: int
    protocol: Protocol
    seed: int
    mesh: Any = None
    surrogates: np.ndarray | None = None

    @functools.cached_property
    def spectrum(self) -> np.ndarray:
        """Leading eigenvalues of the covariance of `sample`, descending; computed once for all metrics."""
        from hamjepa_jax.evaluation.geometry import covariance_spectrum

        return covariance_spectrum(self.sample, self.protocol.top)


class FlowStates(NamedTuple):
    """A learned flow of phase space, measured at held-out states.

    Attributes:
      measured: "log_abs_det" [m], "symplectic_defect" [m], "reversal_error" [n] and "energy_drift" [k + 1, n] of k
        applications of the flow.
      has_energy: whether the flow has an energy, without which the drift means nothing.
    """

    measured: Mapping[str, np.ndarray]
    has_energy: bool


# The tables: of the features of one run, of methods over several seeds, and of learned flows.
RUN_TABLE, METHODS_TABLE, FLOW_TABLE = "run", "methods", "flow"
# The figures that take further panels, each drawn against the epoch.
LEARNING_CURVE, TRAINING_DYNAMICS = "learning_curve", "training_dynamics"


class Shown(NamedTuple):
    """A column as it stands in one table.

    Attributes:
      title: in the header.
      pick: from a row's metrics, one readout's for each seed, to (the numbers of the seeds that have it, a remark).
      factor: that the numbers are multiplied by.
      digits: after the point.
      note: for the line below the table; may be empty.
      scientific: whether a number is shown as 1.2e-07.
    """

    title: str
    pick: Callable[[Sequence[Metrics]], tuple[list[float], str]]
    factor: float
    digits: int
    note: str
    scientific: bool = False


@dataclasses.dataclass(frozen=True)
class Column:
    """A column of tables. It shows the first key of its quantity, so numbers of two protocols never share a column.

    Attributes:
      title: in the header.
      quantity: which of the metric's quantities is shown; the metric's name if empty.
      factor: 100 for per cent.
      digits: after the point.
      tables: those that have the column, of RUN_TABLE, METHODS_TABLE and FLOW_TABLE.
      note: makes a remark below a run's table from the key.
      always: whether a table has the column, with dashes, where the metric was not measured.
      scientific: whether a number is shown as 1.2e-07, for those that are of rounding's size.
    """

    title: str
    quantity: str = ""
    factor: float = 1.0
    digits: int = 2
    tables: tuple[str, ...] = (RUN_TABLE, METHODS_TABLE)
    note: Callable[[keys.Key], str] | None = None
    always: bool = False
    scientific: bool = False

    def shown(self, texts: Sequence[str], headline_k: int) -> Shown | None:
        """The column in a table whose rows have these printed keys; None if it has nothing to show."""
        del headline_k  # For kNN's own columns.
        text = keys.first(texts, self.quantity)
        if text is None and not self.always:
            return None
        note = self.note(keys.parse(text)) if self.note and text else ""

        def pick(runs: Sequence[Metrics]) -> tuple[list[float], str]:
            return [run[text] for run in runs if text in run], ""

        return Shown(self.title, pick, self.factor, self.digits, note, self.scientific)


@dataclasses.dataclass(frozen=True)
class Panel:
    """A panel of figures of a run: the metric against the epoch, a line for each readout.

    Attributes:
      title: above it.
      label: of the ordinate; the title if empty.
      quantity: which of the metric's quantities is drawn; the metric's name if empty.
      factor: 100 for per cent.
      figures: those that have the panel where the metric was measured, of LEARNING_CURVE and TRAINING_DYNAMICS.
      place: among the panels, ascending.
      from_zero: whether the ordinate of the learning curve begins at 0.
      pick: finds the number in one readout's metrics; that of the quantity's first key if None.
      down_to: finds the lower edge of a band below the line; no band if None.
      always: whether training_dynamics has the panel, empty, where the metric was not measured.
    """

    title: str
    label: str = ""
    quantity: str = ""
    factor: float = 1.0
    figures: tuple[str, ...] = (LEARNING_CURVE, TRAINING_DYNAMICS)
    place: int = 100
    from_zero: bool = False
    pick: Callable[[Metrics], float | None] | None = None
    down_to: Callable[[Metrics], float | None] | None = None
    always: bool = False

    def value(self, metrics: Metrics) -> float | None:
        """The number that is drawn, times the factor; None if it was not measured."""
        return self._scaled((self.pick or self._first)(metrics))

    def lower(self, metrics: Metrics) -> float | None:
        """The lower edge of the band, times the factor."""
        return None if self.down_to is None else self._scaled(self.down_to(metrics))

    def _first(self, metrics: Metrics) -> float | None:
        text = keys.first(metrics, self.quantity)
        return None if text is None else metrics[text]

    def _scaled(self, value: float | None) -> float | None:
        return None if value is None else self.factor * value
