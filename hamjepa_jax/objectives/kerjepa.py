"""LeJEPA's prediction loss with a kernel discrepancy to the standard normal (KerJEPA: arXiv 2512.19605)."""

from typing import Any

import jax
import jax.numpy as jnp

from hamjepa_jax import parts, rng
from hamjepa_jax.objectives import kernels
from hamjepa_jax.objectives.consistency import lejepa_prediction
from hamjepa_jax.objectives.objective import Context, Objective, as_one_batch, refuse, scale_diagnostics
from hamjepa_jax.objectives.projections import unit_directions
from hamjepa_jax.parts import Values, field, settings

Array = jax.Array
KERNELS = {"gaussian": kernels.gaussian, "imq": kernels.inverse_multiquadric}

SETTINGS = settings(
    discrepancy=field(
        "mmd",
        'Distance from N(0, I): "mmd", the squared maximum mean discrepancy; "ksd", the squared kernel Stein '
        "discrepancy.",
        choices=("mmd", "ksd"),
    ),
    kernel=field(
        "gaussian",
        'The kernel: "gaussian", or "imq" (inverse multiquadric, of ksd alone).',
        choices=tuple(KERNELS),
    ),
    slicing=field(
        "limit",
        'What is compared: "random", the embedding along random directions; "limit", along all of them, in closed '
        'form (of the Gaussian kernel); "none", the embedding itself.',
        choices=("random", "limit", "none"),
    ),
    num_directions=field(64, 'Random directions if slicing is "random" (ours).', least=1, most=2**16),
    bandwidth=field(
        1.0,
        "Width σ of the kernel on a line, in units of z; of the embedding itself, in √k units of z. 1 on a line "
        "makes the mmd SIGReg's integral over all t, divided by √(2π).",
        least=1e-6,
        most=1e6,
    ),
    unbiased=field(True, "Leaves out the pairs of an example with itself, which draw the ksd's embeddings to 0."),
    weight=field(0.05, "Weight λ of n times the discrepancy, n the examples of a view (ours).", least=0),
    refresh_interval=field(1, "Steps between redraws of the directions.", least=1, most=2**20),
)


@parts.objectives.register(
    "kerjepa",
    SETTINGS,
    title="KerJEPA",
    shown=("pred", "discrepancy", "z_mean_square", "z_min_std"),
    uses_predictor=False,
    reads_qp=False,
    least_images=2,
)
def kerjepa(context: Context, s: Values) -> Objective:
    """L_pred + λ·n·D(z, N(0, I)) (KerJEPA, eq. 16), D averaged over the views (and over the directions).

    L_pred is LeJEPA's; the paper's eq. 17 compares every two views. The limits are those of its theorems 8 and 9,
    with Kummer's function itself, for which the paper computes an approximation (eq. 13).

    Raises:
      UserError: for a kernel or slicing that has no closed form here.
    """
    if s.discrepancy == "mmd" and s.kernel != "gaussian":
        refuse("objective.kerjepa.kernel", s.kernel, "the mmd has a closed form for 'gaussian'; set that, or 'ksd'")
    if s.slicing == "limit" and (s.kernel != "gaussian" or context.embed_dim < 2):
        refuse(
            "objective.kerjepa.slicing",
            s.slicing,
            "is for kernel='gaussian' and embeddings of two coordinates or more; use 'random' or 'none'",
        )

    def draw(count: Array | int) -> Any:
        if s.slicing != "random":
            return ()
        return unit_directions(rng.stream(context.seed, "kerjepa", count), context.embed_dim, s.num_directions)

    def loss(params: Any, z: Array, directions: Any, epoch: Array) -> tuple[Array, dict[str, Array]]:
        del params, epoch
        prediction = lejepa_prediction(z, context.num_global)
        distance = jax.vmap(lambda x: discrepancy(s, x, directions))(z.astype(jnp.float32)).mean()
        scaled = z.shape[1] * distance
        total = prediction + s.weight * scaled
        metrics = {"total": total, "pred": prediction, "discrepancy": scaled}
        return total, metrics | scale_diagnostics(as_one_batch(z), "z")

    return Objective(draw, s.refresh_interval, loss)


def discrepancy(s: Values, x: Array, directions: Any = ()) -> Array:
    """The squared distance of x [n, k] from the standard normal, by the values of SETTINGS.

    Args:
      s: see SETTINGS.
      x: embeddings, float32.
      directions: [k, m] unit columns if slicing is "random".
    """
    if s.slicing == "limit":
        sliced = kernels.sliced_gaussian_mmd if s.discrepancy == "mmd" else kernels.sliced_gaussian_stein
        return sliced(x, bandwidth=s.bandwidth, unbiased=s.unbiased)
    width = s.bandwidth * (x.shape[-1] ** 0.5 if s.slicing == "none" else 1)

    def of(x: Array) -> Array:
        if s.discrepancy == "mmd":
            return kernels.gaussian_mmd(x, bandwidth=width, unbiased=s.unbiased)
        return kernels.stein_discrepancy(x, KERNELS[s.kernel](width), unbiased=s.unbiased)

    if s.slicing == "none":
        return of(x)
    lines = jnp.matmul(x, directions, precision="highest").T[..., None]  # [m, n, 1]
    return jax.vmap(of)(lines).mean()
