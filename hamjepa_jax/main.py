"""Command line: python -m hamjepa_jax.main --config=configs/NAME.py --workdir=DIR [--mode=train|evaluate]."""

import errno
import faulthandler
import logging
import os
import pathlib
import re
import sys
import traceback

from absl import app, flags
from absl import logging as absl_logging
from ml_collections import config_flags

from hamjepa_jax import command_line, distributed
from hamjepa_jax.errors import UserError

CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Config file, FILE.py or FILE.py:name=value,…", lock_config=True
)
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run: checkpoints, logs, plots and results.")
MODE = flags.DEFINE_enum("mode", "train", ["train", "evaluate"], "Train (or go on), or evaluate a workdir.")
STEP = flags.DEFINE_integer("step", None, "Checkpoint to evaluate; the newest if not given.")
PROFILE = flags.DEFINE_string("profile", None, "START:STEPS: trace these training steps into WORKDIR/profile.")
DEBUG_NANS = flags.DEFINE_bool(
    "debug_nans", False, "Slower: look at every step, and name what first gave a value that is not finite."
)
DISTRIBUTED = flags.DEFINE_enum(
    "distributed",
    "auto",
    distributed.CLUSTERS,
    "How the processes of a run find each other: auto (the three flags below, a SLURM job step, or the host names "
    "of a TPU slice), tpu (the metadata of a TPU virtual machine), off.",
)
COORDINATOR = flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0, the same on all.")
NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "Processes of the run.")
PROCESS_ID = flags.DEFINE_integer("process_id", None, "Which of them this is, from 0.")

OVERRIDE = re.compile(r"--?config\.([^=]+)=(.*)", re.DOTALL)
# Faults that reading a file meets as well as writing one.
READING_TOO = {
    errno.EACCES: "see to its permissions",
    errno.EPERM: "see to its permissions",
    errno.EIO: "see to the disk",
}


def run(argv: list[str]) -> int:
    if len(argv) > 1:
        raise UserError(f"unexpected argument {argv[1]!r}: every setting is a flag, --name=value.")
    if WORKDIR.value is None:
        raise UserError("--workdir is missing: name the folder of the run, as in --workdir=runs/first.")
    _check_mode()
    # Imported late: flags and their mistakes need no JAX.
    join_processes()
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
        from hamjepa_jax.training.profile import parse_window

        profile = None if PROFILE.value is None else parse_window(PROFILE.value)
        train(config, workdir, profile=profile, debug_nans=DEBUG_NANS.value)
    return 0


def _check_mode() -> None:
    """Refuses flags that the mode would pass over."""
    if MODE.value == "train" and STEP.value is not None:
        raise UserError(
            f"--step={STEP.value}: training goes on from the newest checkpoint; leave the flag out, or give "
            f"--mode=evaluate."
        )
    for flag in (PROFILE, DEBUG_NANS):
        if MODE.value == "evaluate" and flag.value not in (None, False):
            raise UserError(f"--{flag.name}: is about training steps; --mode=evaluate takes none, so leave it out.")


def join_processes() -> None:
    """Finds the other processes of the run, if there are any, before JAX looks for devices."""
    settings = distributed.settings(
        os.environ,
        cluster=DISTRIBUTED.value,
        coordinator=COORDINATOR.value,
        num_processes=NUM_PROCESSES.value,
        process_id=PROCESS_ID.value,
    )
    if settings is None:
        return
    import jax

    try:
        jax.distributed.initialize(**settings)
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"--distributed={DISTRIBUTED.value}: the processes did not find each other ({error})."
        ) from None
    faulthandler.disable()  # JAX's word on a lost process would drown in the stacks of its threads.
    if jax.process_index() > 0:  # What all say, the first says for all.
        logging.getLogger("hamjepa_jax").setLevel(logging.ERROR)


def main(argv: list[str]) -> int:
    """Runs, and turns a user's mistake into one sentence and exit status 2."""
    try:
        return run(argv)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        status = 2
    except SystemExit as stop:  # A signal, where nothing is lost.
        status = stop.code
    except Exception as error:
        from hamjepa_jax.training import disk, processes

        if processes.is_lost(error):
            print(f"error: {processes.LOST} ({error})", file=sys.stderr)
        elif isinstance(error, OSError) and disk.fault(error) in READING_TOO:
            path, code = error.filename or WORKDIR.value, disk.fault(error)
            print(
                f"error: {path}: cannot be read or written ({os.strerror(code)}); what is there stays; "
                f"{READING_TOO[code]} and give the same command again.",
                file=sys.stderr,
            )
        elif isinstance(error, OSError) and disk.fault(error) is not None:
            path = pathlib.Path(error.filename or WORKDIR.value)
            print(f"error: {disk.sentence(path, error, 'what is there stays')}", file=sys.stderr)
        else:
            traceback.print_exc()
        status = 1
    from hamjepa_jax.training import processes

    processes.leave(status)
    return status


def parse_flags(argv: list[str]) -> list[str]:
    """Flags of the command line; mistakes in them, and in the config file they load, in one sentence."""
    try:
        argv = _in_one_word(argv)
        for argument in argv:
            file = re.match(r"--?config=([^:]*)", argument)
            if file and not pathlib.Path(file[1]).is_file():
                raise UserError(f"--config {file[1]}: no such file; the ones that come along are in configs/.")
        # A field's type reads "None" as a string or not at all, so these are set afterwards.
        overrides = [OVERRIDE.fullmatch(argument) for argument in argv]
        last = dict(match.groups() for match in overrides if match)
        left = flags.FLAGS([a for a, m in zip(argv, overrides, strict=True) if not (m and m[2] == "None")])
        if CONFIG.value is not None:
            hasattr(CONFIG.value, "seed")  # An OSError in the file is kept back until the config is looked at.
        for field in (field for field, value in last.items() if value == "None"):
            _set_none(field)
        return left
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


def _in_one_word(argv: list[str]) -> list[str]:
    """The arguments, with "=" in place of a blank between --config and its file, or a field and None."""
    joined: list[str] = []
    for argument in argv:
        flag = joined[-1] if joined else ""
        if re.fullmatch(r"--?config", flag) or (argument == "None" and re.fullmatch(r"--?config\.[^=]+", flag)):
            joined[-1] = f"{flag}={argument}"
        else:
            joined.append(argument)
    return joined


def _set_none(field: str) -> None:
    if CONFIG.value is None:
        raise UserError(f"--config.{field}=None: changes a config; name its file first, as --config=FILE.")
    from hamjepa_jax.config import set_none

    set_none(CONFIG.value, field)


def log_to_terminal() -> None:
    """Our own messages to standard output as they are; other libraries' from warnings on."""
    absl_logging.set_verbosity(absl_logging.WARNING)
    command_line.show_messages()
    for name in ("absl", "asyncio"):
        logging.getLogger(name).addFilter(is_not_orbax)


def is_not_orbax(record: logging.LogRecord) -> bool:
    """Whether to show a record: what Orbax logs with a stack it also raises, and that is told in one sentence."""
    return not record.exc_info or "orbax" not in "".join(traceback.format_exception(*record.exc_info))


if __name__ == "__main__":
    log_to_terminal()
    app.run(main, flags_parser=parse_flags)
