"""The command hamjepa: each of its commands is the page that python -m hamjepa_jax.… is too."""

import difflib
import runpy
import sys

COMMANDS = {  # name: (module, what it does)
    "train": ("main", "train a config, or go on with a run"),
    "evaluate": ("evaluate", "evaluate checkpoints, also on other images"),
    "transfer": ("transfer", "a run's encoder on other labelled data, from few or all labels"),
    "reproduce": ("reproduce", "the paper's tables, with error bars"),
    "sweep": ("sweep", "a grid of runs and its report"),
    "config": ("config", "every field of a config: value, default, meaning"),
    "prepare": ("data.prepare", "folders of images to a TFDS data set"),
    "import": ("interop.torch", "a PyTorch checkpoint to a workdir"),
    "export": ("interop.export", "a trained encoder as safetensors, StableHLO and model card"),
    "aot": ("aot", "memory, FLOPs and step time on TPU slices, without a TPU"),
    "benchmark": ("benchmark", "speed of the step, the input, evaluation and checkpoints"),
    "theory": ("theory", "figures of the theory"),
    "physics": ("physics", "figures of flows, and of the flow of a run"),
    "report": ("report", "the tables of documents again, from their JSON files"),
}


def main(argv: list[str] | None = None) -> int:
    """Runs one command; its exit status is the page's.

    Args:
      argv: the words after `hamjepa`; those of this process if None.
    """
    words = sys.argv[1:] if argv is None else argv
    if not words or words[0] in ("-h", "--help", "help"):
        print(_help())
        return 0
    name = words[0]
    if name == "--version":
        import importlib.metadata  # Late: it is two thirds of the time that --help takes.

        print(f"hamjepa {importlib.metadata.version('hamjepa-jax')}")
        return 0
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        print(f"error: hamjepa {name}: there is no such command; {hint}hamjepa --help lists them.", file=sys.stderr)
        return 2
    sys.argv[1:] = words[1:]
    runpy.run_module(f"hamjepa_jax.{COMMANDS[name][0]}", run_name="__main__", alter_sys=True)
    return 0


def _help() -> str:
    width = max(map(len, COMMANDS))
    others = ", ".join(f"{name} ({module})" for name, (module, _) in COMMANDS.items() if name != module)
    lines = [f"  {name:{width}}  {about}" for name, (_, about) in COMMANDS.items()]
    return "\n".join(
        ["usage: hamjepa COMMAND [--name=value …]", "", "Self-supervised training with HamJEPA.", "", *lines, "",
         "hamjepa COMMAND --help lists the flags. Each is also python -m hamjepa_jax.COMMAND, but for",
         f"{others}."]
    )  # fmt: skip
