"""Tables of what `benchmark step` writes: a training step beside the roofline, and the encoder beside PyTorch's."""

from collections.abc import Mapping
from typing import Any

from hamjepa_jax.report.tables import markdown_rows


def step_table(content: Mapping[str, Any]) -> str:
    """A step and its parts in Markdown, in milliseconds and as shares of the step; below them the two ceilings.

    Args:
      content: what `benchmark step --json` writes.
    """
    step = content["seconds"]["step"]
    parts = {name: seconds for name, seconds in content["seconds"].items() if name != "step"}
    arithmetic, traffic = content["flops"] / content["peak_flops"], content["bytes"] / content["peak_bandwidth"]
    ceilings = {"arithmetic at the peak": arithmetic, "memory traffic at the peak": traffic}
    rows = [["", "ms", "of the step"], [":--", "--:", "--:"], ["step", f"{step * 1e3:.2f}", "100%"]]
    rows += [
        [name, f"{seconds * 1e3:.2f}", f"{seconds / step:.0%}"] for name, seconds in (parts | ceilings).items()
    ]
    device, images = content["devices"][0], content["batch_size"]
    note = (
        f"{len(content['devices'])} × {device}, {images} images in {content['views']} views, {images / step:,.0f} "
        f"images/s. The parts were run alone. The peaks are those of a large matrix product and of a large copy, "
        f"measured there: {content['peak_flops'] / 1e12:,.0f} TFLOP/s and {content['peak_bandwidth'] / 1e12:,.2f} "
        f"TB/s. A step has {content['flops'] / 1e12:,.2f} TFLOP, and {content['bytes'] / 1e9:,.1f} GB of traffic "
        f"after fusion, by the compiler's counts."
    )
    return "\n".join([*markdown_rows(rows), "", note])


def against_torch_table(content: Mapping[str, Any]) -> str:
    """The step, its encoder, and the same encoder in PyTorch, in Markdown.

    Args:
      content: what `benchmark step --against_torch --json` writes.
    """
    medians = content["median_seconds"]
    rows = [["", "seconds"], [":--", "--:"], *([name, f"{seconds:.2f}"] for name, seconds in medians.items())]
    views, height, width, _ = content["views"][0]
    rounds, ratio = len(content["seconds"]["step"]), content["ratio_of_encoders"]
    note = (
        f"{content['processor']}, PyTorch {content['torch']}, {content['dtype']}, {content['batch_size']} images "
        f"in {views} views of {height} × {width} pixels; medians of {rounds} rounds in turns. Our encoder takes "
        f"{ratio:.2f} times as long as PyTorch's."
    )
    return "\n".join([*markdown_rows(rows), "", note])
