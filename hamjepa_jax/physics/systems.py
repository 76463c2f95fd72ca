"""One-degree-of-freedom systems H = ½p² + V(q) that the demonstrations integrate, in dimensionless units."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from hamjepa_jax import dynamics

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class System:
    """A potential with the window, step and blob it is shown with.

    Attributes:
      name: as on the command line.
      title: as on the figures.
      formula: the energy, in mathtext.
      potential: V, batched over leading axes: [..., 1] -> [...].
      q_label: the position's axis label with its unit.
      q_max: half-width of the window of starting positions.
      p_max: half-width of the window of starting momenta.
      step_size: Δt.
      num_steps: steps of a rollout.
      blob_center: (q, p) of the centre of the square grid of starts that is carried along to measure area.
      blob_radius: half-width of that grid.
    """

    name: str
    title: str
    formula: str
    potential: Callable[[Array], Array]
    q_label: str
    q_max: float
    p_max: float
    step_size: float
    num_steps: int
    blob_center: tuple[float, float]
    blob_radius: float

    def energy(self, q: Array, p: Array) -> Array:
        """H(q, p): [..., 1] × [..., 1] -> [...]."""
        return dynamics.half_square(p) + self.potential(q)

    @property
    def duration(self) -> float:
        """Time span of a rollout, Δt times the number of steps."""
        return self.step_size * self.num_steps


def _pendulum(q):
    return (1.0 - jnp.cos(q)).sum(-1)


def _oscillator(q):
    return dynamics.half_square(q)


def _duffing(q):
    return 0.25 * jnp.square(q * q - 1.0).sum(-1)


SYSTEMS = {
    # The paper's demonstration: window, step, duration and blob are its own.
    "pendulum": System(
        name="pendulum",
        title="Pendulum",
        formula=r"$H=\frac{1}{2}p^2+1-\cos q$",
        potential=_pendulum,
        q_label="angle q (rad)",
        q_max=3.141592653589793,
        p_max=2.5,
        step_size=0.1,
        num_steps=250,
        blob_center=(0.5, 0.0),
        blob_radius=0.35,
    ),
    "oscillator": System(
        name="oscillator",
        title="Harmonic oscillator",
        formula=r"$H=\frac{1}{2}p^2+\frac{1}{2}q^2$",
        potential=_oscillator,
        q_label="position q (dimensionless)",
        q_max=2.5,
        p_max=2.5,
        step_size=0.1,
        num_steps=250,
        blob_center=(0.5, 0.0),
        blob_radius=0.35,
    ),
    # At the pendulum's step explicit Euler overflows float64 in this quartic well: the same span is cut finer.
    "duffing": System(
        name="duffing",
        title="Duffing oscillator",
        formula=r"$H=\frac{1}{2}p^2+\frac{1}{4}(q^2-1)^2$",
        potential=_duffing,
        q_label="position q (dimensionless)",
        q_max=1.5,
        p_max=1.0,
        step_size=0.02,
        num_steps=1250,
        blob_center=(1.1, 0.0),  # within one well: across the saddle no grid this coarse resolves the stretching
        blob_radius=0.15,
    ),
}
