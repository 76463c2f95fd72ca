"""The training step beside the same encoder in PyTorch, in turn on the same CPUs."""

import os
import statistics
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from hamjepa_jax.benchmark.prepared import prepare
from hamjepa_jax.benchmark.step import in_turn, parts_of
from hamjepa_jax.errors import UserError
from hamjepa_jax.interop.torch import state_dict_from_encoder

STATISTICS, SCALES = ("running_mean", "running_var"), ("weight", "bias")
STEP, OURS, THEIRS = "step", "encoder", "encoder in PyTorch"
LARGEST_DIFFERENCE = {"float32": 1e-3, "bfloat16": 0.1}


class Comparison(NamedTuple):
    """Attributes:
    seconds: of every round, by what was timed: the whole step here, its encoder forward and backward over all
      views, and the same in PyTorch.
    difference: of the two encoders' states of the same images, as a share of the largest number in them.
    about: cores, PyTorch, and the settings; the command adds the machine and its versions.
    """

    seconds: dict[str, list[float]]
    difference: float
    about: dict[str, Any]

    def medians(self) -> dict[str, float]:
        return {name: statistics.median(times) for name, times in self.seconds.items()}

    def as_json(self) -> dict[str, Any]:
        medians = self.medians()
        return self.about | {
            "median_seconds": medians,
            "ratio_of_encoders": medians[OURS] / medians[THEIRS],
            "difference": self.difference,
            "seconds": self.seconds,
        }


def benchmark_against_torch(config: ml_collections.ConfigDict, rounds: int) -> Comparison:
    """Times the step, its encoder, and an encoder of PyTorch with the same weights and images.

    Raises:
      UserError: without PyTorch, on accelerators, or for an encoder that is not made of a ResNet-18's tokens.
      ValueError: if the two encoders give other numbers.
    """
    torch, c = _torch(), config.encoder
    if jax.default_backend() != "cpu" or (c.mode, c.trunk, c.token_norm) != ("token", "resnet18", "batch"):
        raise UserError(
            "--against_torch: compares encoder.mode='token', trunk 'resnet18', token_norm 'batch' on CPUs alone."
        )
    setup, store, batch, step, _ = prepare(config)
    state, load = setup.init(), os.getloadavg()
    encoder = parts_of(setup, state, store, batch)["encoder"]
    views = jax.jit(setup.inputs.views)(store, batch, jnp.int32(0))
    flat = [np.array(x.reshape(-1, *x.shape[2:])) for x in views]
    variables = {"params": state.params["encoder"], "batch_stats": state.batch_stats["encoder"]}
    encode, theirs = _in_torch(torch, setup.config, variables, flat)
    ours = np.asarray(setup.model.encode(state.params, state.batch_stats, jnp.asarray(flat[0]))[0])
    difference = float(np.abs(ours - encode(0)).max() / np.abs(ours).max())
    if difference > LARGEST_DIFFERENCE[setup.config.encoder.dtype]:
        raise ValueError(f"the encoder in PyTorch is another: its states differ by {difference:.1%}.")

    def one_step() -> Any:
        nonlocal state
        state, metrics = step(state, store, batch)
        return metrics

    seconds = in_turn({STEP: one_step, OURS: encoder, THEIRS: theirs}, rounds)
    about = {
        "torch": torch.__version__,
        "torch_threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "load_before": load,
        "dtype": setup.config.encoder.dtype,
        "batch_size": config.train.batch_size,
        "views": [list(x.shape[1:]) for x in views],
    }
    return Comparison(seconds, difference, about)


def _torch() -> Any:
    try:
        import torch
    except ImportError:
        raise UserError("--against_torch: needs PyTorch; pip install 'hamjepa-jax[torch]'.") from None
    return torch


def _in_torch(
    torch: Any, config: ml_collections.ConfigDict, variables: dict[str, Any], flat: list[np.ndarray]
) -> tuple[Callable[[int], np.ndarray], Callable[[], None]]:
    """(encode: number of a size of views -> their states, as here; a call of all forwards and backwards)."""
    weights = {k: torch.from_numpy(np.array(v)) for k, v in state_dict_from_encoder(variables).items()}
    learned = [w.requires_grad_() for k, w in weights.items() if k.endswith((".weight", ".bias"))]
    images = [torch.from_numpy(x.transpose(0, 3, 1, 2).copy()) for x in flat]

    def encode(i: int) -> np.ndarray:
        with torch.no_grad():
            tokens = _tokens(torch.nn.functional, weights, images[i], config.encoder)
        halves = tokens.permute(0, 2, 3, 1).chunk(2 if config.encoder.split_qp else 1, dim=-1)
        return torch.cat([x.flatten(1) for x in halves], dim=1).numpy()

    def forward_and_backward() -> None:
        for weight in learned:
            weight.grad = None
        total = sum(_tokens(torch.nn.functional, weights, x, config.encoder).square().sum() for x in images)
        total.backward()

    return encode, forward_and_backward


def _tokens(f: Any, w: dict[str, Any], x: Any, c: ml_collections.ConfigDict) -> Any:
    """Tokens [b, c, h, w] of images in training: `nn.TokenEncoder` with a ResNet-18, by torch's names."""

    def normalised(x: Any, conv: str, bn: str, stride: int = 1) -> Any:
        kernel = w[f"{conv}.weight"]
        x = f.conv2d(x, kernel, stride=stride, padding=kernel.shape[-1] // 2)
        statistics, scales = ([w[f"{bn}.{k}"] for k in pair] for pair in (STATISTICS, SCALES))
        return f.batch_norm(x, *statistics, *scales, training=True)

    x = f.relu(normalised(x, "stem.0", "stem.1", 1 if c.stem == "cifar" else 2))
    if c.stem == "imagenet":
        x = f.max_pool2d(x, 3, stride=2, padding=1)
    for layer in range(1, c.token_layer + 1):
        for block in range(2):
            name, stride = f"layer{layer}.{block}", 2 if layer > 1 and block == 0 else 1
            y = f.relu(normalised(x, f"{name}.conv1", f"{name}.bn1", stride))
            y = normalised(y, f"{name}.conv2", f"{name}.bn2")
            if f"{name}.downsample.0.weight" in w:
                x = normalised(x, f"{name}.downsample.0", f"{name}.downsample.1", stride)
            x = f.relu(x + y)
    if c.token_hw is not None:
        x = f.adaptive_avg_pool2d(x, c.token_hw)
    return normalised(x, "token_proj.0", "token_proj.1")


def describe(found: Comparison) -> str:
    """The comparison as text."""
    about, medians = found.about, found.medians()
    lines = [
        f"batch {about['batch_size']} × {sum(v[0] for v in about['views'])} views, {about['dtype']}, "
        f"{about['cores']} cores, jax {jax.__version__}, torch {about['torch']}; the states of the two encoders "
        f"differ by {found.difference:.1g}",
        "",
        f"{'medians of ' + str(len(found.seconds[STEP])) + ' rounds, in turn':<32}{'ms':>10}",
        *(f"{name:<32}{seconds * 1e3:>10.1f}" for name, seconds in medians.items()),
        "",
        f"the encoder, forward and backward, takes {medians[OURS] / medians[THEIRS]:.2f} times PyTorch's time",
    ]
    return "\n".join(lines)
