"""The notebooks run from top to bottom, offline, with small settings; no outputs are kept in them."""

import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "colab").glob("*.ipynb"))
# What a test sets in the cell tagged "parameters".
SETTINGS = {
    "quickstart": {"EPOCHS": 1},
    "theory_and_flows": {},
    "trajectories": {"EPOCHS": 1},
    "evaluate_checkpoint": {"EPOCHS": 1, "PROBE_EPOCHS": 1},
}
FIGURES = {"quickstart": 5, "theory_and_flows": 4, "evaluate_checkpoint": 2, "trajectories": 3}  # At least.
# Without ipywidgets every figure is drawn once; with it there are sliders, and each of them draws it anew.
RUNNER = """
import json, sys
sliders = []
if "with_widgets" in sys.argv:
    import ipywidgets
    interact = ipywidgets.interact
    def recorded(draw, **widgets):
        sliders.extend(widgets.values())
        return interact(draw, **widgets)
    ipywidgets.interact = recorded
else:
    sys.modules["ipywidgets"] = None
notebook, settings = json.load(open(sys.argv[1])), json.loads(sys.argv[2])
namespace = {"__name__": "__main__"}
for number, cell in enumerate(notebook["cells"]):
    if cell["cell_type"] == "code":
        exec(compile("".join(cell["source"]), f"cell {number}", "exec"), namespace)
        if "parameters" in cell["metadata"].get("tags", []):
            namespace.update(settings)
import matplotlib.pyplot as plt
cells_drew = len(plt.get_fignums())
for count, slider in enumerate(sliders, start=cells_drew + 1):
    slider.value = 10**slider.min if isinstance(slider, ipywidgets.FloatLogSlider) else slider.min
    assert len(plt.get_fignums()) == count, f"moving {slider} drew nothing"
for number in plt.get_fignums():
    plt.figure(number).savefig(f"figure_{number}.png", dpi=70)
print("sliders:", len(sliders))
print("figures:", cells_drew)
"""


def cells(path):
    return json.loads(path.read_text())["cells"]


def test_every_notebook_has_settings_here():
    assert {path.stem for path in NOTEBOOKS} == set(SETTINGS)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_are_stripped_and_code_is_plain_python(path):
    for cell in cells(path):
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None
            assert not any(line.lstrip().startswith(("!", "%")) for line in cell["source"])


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_from_top_to_bottom(path, tmp_path):
    assert run_notebook(path, tmp_path)["sliders"] == 0


@pytest.mark.slow
def test_the_sliders_of_the_theory_notebook_draw_anew(tmp_path):
    pytest.importorskip("ipywidgets")  # `make test-notebooks` installs it.
    (path,) = (path for path in NOTEBOOKS if path.stem == "theory_and_flows")
    assert run_notebook(path, tmp_path, "with_widgets")["sliders"] == 6


def run_notebook(path, tmp_path, *options):
    """{"figures": number drawn by the cells, "sliders": number of them}; the pictures are in `tmp_path`."""
    settings = {k: v for k, v in SETTINGS[path.stem].items()}
    if path.stem == "evaluate_checkpoint":
        settings |= {"CHECKPOINT": str(tmp_path / "run"), "OUT": str(tmp_path / "export")}
    if path.stem in ("quickstart", "trajectories"):
        settings["WORKDIR"] = str(tmp_path / "run")
    search = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"MPLBACKEND": "Agg", "PYTHONPATH": search}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", RUNNER, str(path), json.dumps(settings), *options],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    counts = {name: int(count) for name, count in re.findall(r"^(sliders|figures): (\d+)$", done.stdout, re.M)}
    assert counts["figures"] >= FIGURES[path.stem]
    assert all(file.stat().st_size > 5000 for file in tmp_path.glob("figure_*.png"))
    return counts
