"""A run with a plugin through the commands: trained, killed, gone on with, evaluated, exported, and tabulated."""

import json
import os
import pathlib
import signal
import subprocess
import sys

import hamjepa_jax as hj
from hamjepa_jax import main, sweep
from hamjepa_jax.data import open_source
from hamjepa_jax.evaluate.__main__ import main as evaluate
from hamjepa_jax.interop.export.__main__ import main as export

ROOT = pathlib.Path(__file__).parent.parent.parent
HERE = pathlib.Path(__file__).parent
CONFIG = f"{ROOT / 'tests' / 'tiny.py'}:quick"


def trained(plugin, workdir, *fields):
    """Trains tests/tiny.py's quick config with a plugin and more fields: killed after step 5, then gone on with."""
    overrides = [f"--config.{f}" for f in (f"plugins={HERE / plugin}.py,{HERE / 'one_conv'}.py", *fields)]
    arguments = [f"--config={CONFIG}", f"--workdir={workdir}", *overrides]
    command = [sys.executable, "-m", "hamjepa_jax.main", *arguments]
    process = subprocess.Popen(command, cwd=ROOT, env=os.environ, stdout=subprocess.PIPE, text=True)
    seen = []
    for line in process.stdout:
        seen.append(line)
        if line.startswith("step 5/"):
            process.send_signal(signal.SIGKILL)
            break
    assert process.wait() == -signal.SIGKILL, "".join(seen)
    assert main.main([f"--workdir={workdir}"]) == 0  # The plugin is found in the workdir's config.
    results = json.loads((workdir / "metrics.json").read_text())
    assert results["step"] == 12
    return results["trained"]


def looked_at(workdir, out):
    """Evaluates and exports a run, and loads the export; returns the evaluation's metrics and the encoder."""
    assert evaluate([str(workdir), f"--out={out / 'evaluation'}"]) == 0
    assert export([str(workdir), f"--out={out / 'export'}"]) == 0
    encoder = hj.load(out / "export")
    assert encoder(open_source("synthetic:96x8").test.images).z.shape[0] == 10
    found = json.loads((out / "evaluation" / "metrics.json").read_text())
    return found["checkpoints"][0]["trained"], encoder


def tabulated(plugin, out, *fields):
    """The report of a sweep with one cell."""
    plugins = [f"{HERE / name}.py" for name in (plugin, "one_conv")]
    override = {"plugins": plugins, **dict(fields), "train.steps": 2, "optimizer.warmup": "1 steps"}
    grid = {"config": CONFIG, "override": override, "axes": {"optimizer.learning_rate": [1e-3]}}
    out.mkdir()
    (out / "grid.json").write_text(json.dumps(grid))
    assert sweep.main([str(out / "grid.json"), f"--out={out}"]) == 0
    return (out / "report.md").read_text()
