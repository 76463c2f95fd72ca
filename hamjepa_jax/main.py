"""Command line: python -m hamjepa_jax.main --config=configs/NAME.py --workdir=DIR [--mode=train|evaluate]."""

import logging
import pathlib
import sys

from absl import app, flags
from absl import logging as absl_logging
from ml_collections import config_flags

from hamjepa_jax.errors import UserError

CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Config file, FILE.py or FILE.py:name=value,…", lock_config=True
)
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run: checkpoints, logs, plots and results.")
MODE = flags.DEFINE_enum("mode", "train", ["train", "evaluate"], "Train (or go on), or evaluate a workdir.")
STEP = flags.DEFINE_integer("step", None, "Checkpoint to evaluate; the newest if not given.")


def run(argv: list[str]) -> int:
    if len(argv) > 1:
        raise UserError(f"unexpected argument {argv[1]!r}: every setting is a flag, --name=value.")
    if WORKDIR.value is None:
        raise UserError("--workdir is missing: name the folder of the run, as in --workdir=runs/first.")
    # Imported late: flags and their mistakes need no JAX.
    from hamjepa_jax.training.workdir import saved_config

    workdir = pathlib.Path(WORKDIR.value)
    if MODE.value == "evaluate":
        from hamjepa_jax.evaluate import evaluate

        evaluate(CONFIG.value or saved_config(workdir), workdir, step=STEP.value)
    else:
        config = CONFIG.value
        if config is None and (workdir / "config.json").exists():  # The run goes on as it was begun.
            config = saved_config(workdir)
        if config is None:
            raise UserError("--config is missing: name a file, as in --config=configs/quickstart.py.")
        from hamjepa_jax.train import train

        train(config, workdir)
    return 0


def main(argv: list[str]) -> int:
    """Runs, and turns a user's mistake into one sentence and exit status 2."""
    try:
        return run(argv)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def parse_flags(argv: list[str]) -> list[str]:
    """Flags of the command line; mistakes in them, and in the config file they load, in one sentence."""
    try:
        for argument in argv:
            file = argument.removeprefix("--config=").partition(":")[0]
            if argument.startswith("--config=") and not pathlib.Path(file).is_file():
                raise UserError(f"--config {file}: no such file; the ones that come along are in configs/.")
        return flags.FLAGS(argv)
    except (KeyError, AttributeError) as error:  # An override of a field that the config does not have.
        names = [a.partition("=")[0] for a in argv if a.startswith("--config.")]
        unknown = next((n for n in names if any(part in str(error) for part in n.split(".")[1:])), None)
        message = f"{unknown}: the config has no such field; configs/common.py lists every field."
        if unknown is None:  # The file itself sets a field that is not there.
            message = f"--config: {' '.join(str(error).split())}"
    except (UserError, flags.Error, TypeError, ValueError, OSError) as error:
        message = " ".join(str(error).split())
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)


def log_to_terminal() -> None:
    """Our own messages to standard output as they are; other libraries' from warnings on."""
    absl_logging.set_verbosity(absl_logging.WARNING)
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger = logging.getLogger("hamjepa_jax")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False


if __name__ == "__main__":
    log_to_terminal()
    app.run(main, flags_parser=parse_flags)
