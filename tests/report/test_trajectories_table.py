"""The table of methods on clips, from a results.json, and its figures."""

import math

import numpy as np
from PIL import Image

from hamjepa_jax import report
from hamjepa_jax.report.trajectories import trajectories_table


def run(seed, *, error=(0.0, 0.1, *[0.15] * 28, 0.2), energy=True, scores=(0.9, 0.8)):
    way = {"error": list(error), "retrieved": [1.0, *[0.5] * 28, 0.125, 0.25], "valid_time": 2.0}
    found = {"seed": seed, "step": 3, "epoch": 1, "frames": 30, "gap": 1, "dt": 0.5, "motion": 0.75}
    found |= {"states": {"qp": {"linear": list(scores)}}, "forward": way, "backward": way}
    found["symplecticity"] = {"defect": 0.1 * seed, "scale": 1.0, "r_squared": 0.99, "sym": 0.01, "symetric": 1.0}
    return found | ({"energy": {"drift": 0.02, "rank_correlation": 0.95}} if energy else {})


CONTENT = {
    "title": "Clips",
    "data": {"source": "trajectories:spring"},
    "trajectories": {
        "hamjepa": [run(1), run(3, scores=(0.7, 0.8))],
        "mlp": [run(1, energy=False), run(3, error=(0.0, 0.3, *[0.35] * 28, math.inf), energy=False)],
    },
    "runs": [],
}


def test_each_measure_has_a_row_and_each_method_a_column():
    lines = trajectories_table(CONTENT).splitlines()
    rows = {line.split(" | ")[0].removeprefix("| "): line for line in lines if line.startswith("| ")}
    assert lines[0] == "| measure | HamJEPA | MLP predictor |"
    assert rows["R² of position from (q,p), linear"].endswith("| 0.80 ± 0.14 | 0.90 ± 0.00 |")
    assert rows["symplectic defect"].endswith("| 0.20 ± 0.14 | 0.20 ± 0.14 |")
    assert rows["share of seeds that meet SyMetric's criterion"].endswith("| 1.00 ± 0.00 | 1.00 ± 0.00 |")
    assert rows["error forward, 1 frame"].endswith("| 0.10 ± 0.00 | 0.20 ± 0.14 |")
    assert rows["error forward, 10 frames"].endswith("| 0.15 ± 0.00 | 0.25 ± 0.14 |")  # Ten times the gap.
    assert rows["share of variance within clips"].endswith("| 0.75 ± 0.00 | 0.75 ± 0.00 |")
    assert rows["error forward, 30 frames"].endswith("| 0.20 ± 0.00 | diverges for 1 of 2 |")
    assert rows["retrieval backward, 30 frames"].endswith("| 0.25 ± 0.00 | 0.25 ± 0.00 |")
    assert rows["drift of the learned energy"].endswith("| 0.020 ± 0.000 | – |")
    assert not any("from q, " in row for row in rows)  # Not measured.
    assert lines[-3].endswith("over 2 seeds.") and lines[-1].startswith("Clips, data `trajectories:spring`")


def test_methods_with_fewer_seeds_are_told():
    fewer = CONTENT | {"trajectories": CONTENT["trajectories"] | {"identity": [run(1)]}}
    assert trajectories_table(fewer).splitlines()[-3].endswith("over 2 seeds (identity 1).")
    alone = CONTENT | {"trajectories": {"mlp": [run(1)]}}
    assert trajectories_table(alone).splitlines()[-3].endswith("One seed.")


def test_figures_are_drawn_of_diverging_rollouts_too(tmp_path):
    rng = np.random.default_rng(0)
    cloud = rng.standard_normal((5, 3, 2))
    sides = np.linspace(-1, 1, 7)
    orbits = report.Orbits(
        cloud, cloud * np.inf, ("q", "p"), cloud, cloud, cloud, rng.random(3), (sides, sides, rng.random((7, 7)))
    )
    assert report.portrait_figure(orbits, tmp_path / "portrait.png").is_file()
    assert report.rollouts_figure(CONTENT["trajectories"], tmp_path / "rollouts.png").is_file()
    frames = rng.integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
    rollout = report.Rollout(frames, frames[::-1], {"true": np.zeros(5)}, 0.5)
    with Image.open(report.rollout_animation(rollout, tmp_path / "rollout.gif")) as animation:
        assert animation.format == "GIF" and animation.n_frames == 5
