"""The model card of an exported run: README.md with the metadata block that the Hugging Face hub reads."""

import json
from typing import Any

import ml_collections

from hamjepa_jax import parts, report
from hamjepa_jax.config import reads_labels
from hamjepa_jax.files import readable

ConfigDict = ml_collections.ConfigDict
TEMPLATE = """---
{metadata}
---

# {title}

A {method} encoder ({trunk}), {history}, for
[hamjepa_jax](https://github.com/hamjepa/hamjepa_jax). It maps an image of {size}×{size} pixels to {state}.

## Use
```python
import hamjepa_jax as hj

encoder = hj.load("{address}")  # {what}
states = encoder(images)  # [n, h, w, 3] uint8, or float in [0, 1]; any size
{use}
```

| file | content |
|---|---|
| `model.safetensors`, `config.json` | all weights and the run's config, for `hamjepa_jax` |
{torch_row}| `encoder.stablehlo` | the encoder as a program, see below |

Without this package, on CPU, CUDA or TPU, with any number of float32 images in [0, 1]:
```python
import jax

program = jax.export.deserialize(bytearray(open("encoder.stablehlo", "rb").read()))
z = program.call(images)  # [n, {size}, {size}, 3]
```
{resized}
## Evaluation
{evaluation}

## Training
```json
{settings}
```
The whole config is in `config.json`.

## Limits
The use of its features on other images than those was not measured.
"""


RESIZED = "It resizes them to {resize} pixels a side and cuts out the central {size}, as in evaluation.\n"
TORCH_ROW = """\
| `torch.safetensors` | the encoder's weights with the published PyTorch models' names |
| `trunk.safetensors` | the trunk's weights with the names of torchvision and timm |
"""


def model_card(
    name: str,
    config: ConfigDict,
    step: int,
    metrics: dict[str, Any] | None,
    origin: dict[str, Any] | None,
    *,
    torch_names: bool,
    address: str | None = None,
) -> str:
    """The text of README.md.

    Args:
      name: of the model.
      config: of the run.
      step: of the weights.
      metrics: of these weights, as in metrics.json; None if they were not evaluated.
      origin: of weights that came from elsewhere, as in the workdir's config.json.
      address: of the model on the hub, if it has one.
      torch_names: whether torch.safetensors and trunk.safetensors are among the files.
    """
    name = readable(name)
    labels = "with" if reads_labels(config) else "without"
    history = f"trained {labels} labels on `{readable(config.data.source)}` for {step} optimiser steps"
    if origin is not None:
        history = f"begun from the weights of `{readable(origin['file'])}`" + (f" and {history}" if step else "")
    c = config.encoder
    split, resize = c.split_qp, config.data.eval_resize
    resized = "" if resize is None else RESIZED.format(resize=resize, size=config.data.image_size)
    use = "states.q, states.p  # positions and momenta; also states.z = [q; p] and states.tokens"
    return TEMPLATE.format(
        metadata=_metadata(name, config, metrics),
        title=name,
        address=address or name,
        what="or this folder" if address else "this folder",
        method=_title(parts.objectives, config.objective.name),
        trunk=f"{_title(parts.trunks, c.trunk)} trunk{_size(c)}",
        torch_row=TORCH_ROW * torch_names,
        history=history,
        size=config.data.image_size,
        resized=resized,
        state="a phase-space state z = [q; p]" if split else "an embedding z",
        use=use if split else "states.z",
        evaluation=_evaluation(config, metrics),
        settings=json.dumps(
            {
                part: json.loads(config[part].to_json_best_effort())
                for part in ("encoder", "predictor", "optimizer")
            },
            indent=1,
        ),
    )


def _size(encoder: ConfigDict) -> str:
    """The settings of a trunk that tell its size, in words."""
    if "token_layer" in parts.trunks[encoder.trunk].settings:
        return f", width {encoder.width}, to layer {4 if encoder.mode == 'global' else encoder.token_layer}"
    if parts.trunks[encoder.trunk].block == "encoder.vit":
        return f", patches of {encoder.vit.patch}×{encoder.vit.patch} pixels"
    return ""


def _title(registry: parts.Registry, name: str) -> str:
    """The title of a part, its name if it has none."""
    return registry[name].about.get("title", name)


def _evaluation(config: ConfigDict, metrics: dict[str, Any] | None) -> str:
    if metrics is None:
        return "These weights were not evaluated."
    bank = ", with the whole training set as the bank of the kNN"
    has_knn = any(report.knn_sweep(of_row) for of_row in report.rows_of(metrics).values())
    return (
        f"Frozen features of the test images of `{readable(_evaluated_on(config))}`{bank * has_knn}:\n\n"
        + report.markdown_table(report.rows_of(metrics))
    )


def _evaluated_on(config: ConfigDict) -> str:
    return config.data.source if config.evaluate.source is None else config.evaluate.source


def _metadata(name: str, config: ConfigDict, metrics: dict[str, Any] | None) -> str:
    """The YAML block. Free text is written as JSON strings, which are YAML too."""
    evaluated_on = _evaluated_on(config)
    learning = [] if reads_labels(config) else ["self-supervised-learning"]
    lines = [
        "library_name: hamjepa_jax",
        "pipeline_tag: image-feature-extraction",
        "tags:",
        *(f"- {tag}" for tag in ("jax", "flax", *learning, config.objective.name)),
    ]
    accuracies = report.headline_accuracies((metrics or {}).get("trained", {}))
    if accuracies:
        lines += [
            "metrics:",
            "- accuracy",
            "model-index:",
            f"- name: {json.dumps(name)}",
            "  results:",
            "  - task:",
            "      type: image-classification",
            "    dataset:",
            f"      name: {json.dumps(readable(evaluated_on))}",
            f"      type: {json.dumps(evaluated_on.partition(':')[0])}",
            "    metrics:",
        ]
        for key, value in accuracies.items():
            lines += ["    - type: accuracy", f"      name: {json.dumps(key)}", f"      value: {value:.4f}"]
    return "\n".join(lines)
