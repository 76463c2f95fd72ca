"""A table of what a run knows of the systems that its clips show, from a trajectories.json."""

from collections.abc import Mapping
from typing import Any

from hamjepa_jax.report.tables import READOUT_NAMES


def trajectories_text(content: Mapping[str, Any]) -> str:
    """Plain text: for each checkpoint the R² of the true states, the rollouts and the energy.

    Args:
      content: of trajectories.json.
    """
    return "\n\n".join("\n".join(_lines(c)) for c in content["checkpoints"])


def _lines(c: Mapping[str, Any]) -> list[str]:
    lines = [f"step {c['step']}, epoch {c['epoch']:g}"]
    for readout, scores in c["states"].items():
        cells = [f"{kind} {' '.join(f'{x:.3f}' for x in values)}" for kind, values in scores.items()]
        lines.append(f"R² of position and momentum from {READOUT_NAMES.get(readout, readout)}: {', '.join(cells)}")
    if "symplecticity" in c:
        s = c["symplecticity"]
        lines.append(f"symplectic defect of the map to them {s['defect']:.3f} (its R² {s['r_squared']:.3f})")
    for way in ("forward", "backward"):
        if way in c:
            lines.append(_rollout(way, c))
    if "energy" in c:
        e = c["energy"]
        lines.append(f"energy: drift {e['drift']:.3g}, rank correlation {e['rank_correlation']:.3f}")
    return lines


def _rollout(way: str, c: Mapping[str, Any]) -> str:
    shown = sorted({1, c["frames"] // 4, c["frames"] // 2, c["frames"]} - {0})
    cells = [f"{k}: {c[way]['error'][k]:.3g}, {100 * c[way]['retrieved'][k]:.0f} %" for k in shown]
    return (
        f"{way} rollout, error and retrieval after so many of {c['frames']} frames: {'; '.join(cells)}; valid for "
        f"{c[way]['valid_time']:.1f}"
    )
