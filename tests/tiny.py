"""A HamJEPA run of seconds: 96 synthetic 8×8 images, batches of 16, a narrow encoder up to layer 2.

Also a quicker one for tests of what surrounds a step, photographs, and the files of a run that was evaluated.
"""

import json
import pathlib

import numpy as np
from PIL import Image

from hamjepa_jax import parts
from hamjepa_jax.config import default_config


def get_config(arg=None):
    if arg == "quick":
        return quick("hamjepa")
    config = default_config()
    config.data.source = "synthetic:96x8"
    config.data.image_size = 8
    config.encoder.width, config.encoder.token_layer, config.encoder.token_dim = 4, 2, 4
    config.encoder.dtype = "float32"
    config.predictor.hidden = 16
    config.predictor.residual_warmup_epochs = 2
    # Few projections for the batch of 32 states: a nearly singular covariance would amplify rounding.
    config.objective.hamjepa.refresh_interval, config.objective.hamjepa.projection_dim = 4, 8
    config.optimizer.warmup = "2 steps"
    config.optimizer.clip_norm = 1.0
    config.train.batch_size, config.train.epochs = 16, 2
    config.log.every, config.log.tensorboard, config.log.compilation_cache = "1 steps", False, ""
    config.checkpoint.every, config.checkpoint.best_metric = "3 steps", "q/knn_top1_k5_cosine_majority"
    config.evaluate.every, config.evaluate.ks, config.evaluate.batch_size = "1 epochs", (1, 5), 32
    config.evaluate.probe.epochs = 1
    return config


def quick(objective="lejepa"):
    """The same run with a trunk of one convolution and plain crops, of LeJEPA unless told otherwise.

    Its programs compile several times faster: the trunk, the colours and the flow are most of a step's operations.
    """
    config = get_config()
    config.plugins = (str(pathlib.Path(__file__).resolve().parent / "plugins" / "one_conv.py"),)
    parts.load_plugins(config.plugins)
    config.encoder.trunk, config.objective.name = "one_conv", objective
    if objective == "lejepa":
        config.predictor.kind = "identity"
    for change in ("jitter", "grayscale", "blur", "solarize"):
        config.views[f"{change}_prob"] = 0.0
    return config


def photographs(folder, *, train, val):
    """Makes a folder of two classes, so many images of each, of various sizes; returns it as data.source."""
    rng = np.random.default_rng(0)
    for part, number in (("train", train), ("val", val)):
        for name in ("cat", "dog"):
            (folder / part / name).mkdir(parents=True)
            for i in range(number):
                pixels = rng.integers(0, 256, (12 + i, 20, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / part / name / f"{i:02}.png")
    return f"folder:{folder}"


def write_evaluated(workdir, config, *, step, logged):
    """Makes the workdir of a run that was evaluated at `step` and whose log has one line, `logged`."""
    workdir.mkdir(parents=True)
    histogram = {"edges": [0, 1], "counts": [1]}
    panels = {"knn_top1": {}, "spectrum": [1], "cosine_histogram": histogram, "norm_histogram": histogram}
    files = {
        "config.json": {"config": json.loads(config.to_json_best_effort()), "data_fingerprint": "aa"},
        "metrics.json": {"step": step, "trained": {}},
        "summary.json": {"q": panels},
        "run.json": {},
        "metrics.jsonl": logged,
    }
    for name, content in files.items():
        (workdir / name).write_text(json.dumps(content))
