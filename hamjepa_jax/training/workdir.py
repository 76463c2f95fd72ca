"""The folder of a run: whose it is, what it was run with, and that one process at a time writes there."""

import datetime
import fcntl
import importlib.metadata
import json
import pathlib
import platform
import subprocess
import sys

import jax
import ml_collections

import hamjepa_jax
from hamjepa_jax.config import differing_fields
from hamjepa_jax.errors import UserError

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
FINISHED_FILE = "finished"  # Empty; there once `train` has nothing left to do, for launch/ to see.


def claim(workdir: pathlib.Path, config: ml_collections.ConfigDict, fingerprint: str):
    """Makes `workdir` this run's, or checks that it already is; of several processes, for the first one to call.

    Args:
      workdir: created if missing.
      config: written to config.json, compared if one is there.
      fingerprint: of the data source, compared likewise.

    Returns:
      The open lock; the folder is this process's until it is closed or the process ends.

    Raises:
      UserError: if the folder cannot be written, is in use, or belongs to another config or other data.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        lock = (workdir / ".lock").open("w")
    except OSError as error:
        raise UserError(
            f"--workdir {workdir}: cannot be written ({error.strerror}); choose another folder."
        ) from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(
            f"--workdir {workdir}: another run is using it; wait for it or choose another folder."
        ) from None
    except OSError as error:
        raise UserError(
            f"--workdir {workdir}: its file system cannot lock files ({error.strerror}), so two runs could write "
            f"there at once; choose a folder on another."
        ) from None
    file = workdir / "config.json"
    if file.exists():
        saved = json.loads(file.read_text())
        differences = differing_fields(saved["config"], config)
        if saved["data_fingerprint"] not in (None, fingerprint):
            differences.append(f"data.source: the images of {config.data.source!r} are not those it was begun with")
        if differences:
            lock.close()
            raise UserError(
                f"--workdir {workdir}: belongs to another run; it differs in {'; '.join(differences)}. "
                f"Use those settings or another workdir."
            )
        if saved["data_fingerprint"] is None:  # Weights from elsewhere: these images become the run's.
            _write_json(file, saved | {"data_fingerprint": fingerprint})
    else:
        record = {"config": json.loads(config.to_json_best_effort()), "data_fingerprint": fingerprint}
        _write_json(file, record)
    (workdir / FINISHED_FILE).unlink(missing_ok=True)
    (workdir / "run.json").write_text(json.dumps(environment(), indent=2))
    return lock


def _write_json(file: pathlib.Path, record: dict) -> None:
    """In one go: where there is a file, it is whole."""
    temporary = file.with_suffix(".tmp")
    temporary.write_text(json.dumps(record, indent=2))
    temporary.replace(file)


def saved_config(workdir: pathlib.Path) -> ml_collections.ConfigDict:
    """The config that a workdir was run with.

    Raises:
      UserError: if there is none.
    """
    file = workdir / "config.json"
    if not file.exists():
        raise UserError(f"--workdir {workdir}: holds no run (no config.json); give the workdir of a training run.")
    return ml_collections.ConfigDict(_tuples(json.loads(file.read_text())["config"])).lock()


def use_compilation_cache(directory: str | None, workdir: pathlib.Path) -> None:
    """Keeps compiled programs on disk, so that a run that goes on starts at once.

    Args:
      directory: where; None is `.jax_cache` beside the workdir, "" turns the cache off.
      workdir: of the run.
    """
    if directory == "":
        return
    path = workdir.parent / ".jax_cache" if directory is None else pathlib.Path(directory)
    jax.config.update("jax_compilation_cache_dir", str(path.absolute()))


def environment() -> dict:
    """Versions, devices, git state, command and time, as they are now."""
    return {
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": {"hamjepa-jax": hamjepa_jax.__version__, **_versions()},
        "backend": jax.default_backend(),
        "devices": [d.device_kind for d in jax.devices()],
        "processes": jax.process_count(),
        "git": _git_state(),
    }


def _versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in PACKAGES}


def _git_state() -> dict | None:
    """Commit of the code's checkout and whether it was changed; None outside one."""
    root = pathlib.Path(__file__).parent

    def git(*args: str) -> str:
        return subprocess.run(["git", *args], cwd=root, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "modified": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.CalledProcessError):
        return None


def _tuples(tree):
    """JSON has lists only; configs have tuples."""
    if isinstance(tree, dict):
        return {k: _tuples(v) for k, v in tree.items()}
    return tuple(_tuples(v) for v in tree) if isinstance(tree, list) else tree
