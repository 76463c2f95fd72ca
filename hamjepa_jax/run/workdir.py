"""The folder of a run: its config and data, the versions it ran with, and the lock of its one writer."""

import contextlib
import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import filelock
import jax
import ml_collections

from hamjepa_jax.config import complete, differing_fields, from_saved
from hamjepa_jax.errors import UserError
from hamjepa_jax.files import NO_LOCKS, hold, put_aside, user_path, write_json

ConfigDict = ml_collections.ConfigDict
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"  # Of an export, which has no checkpoints.
ENVIRONMENT_FILE = "run.json"
FINISHED_FILE = "finished"  # Empty; written when nothing is left to do, for launch/ to see.


@contextlib.contextmanager
def claim(workdir: pathlib.Path, config: ConfigDict, fingerprint: str) -> Iterator[None]:
    """Makes `workdir` this run's, or checks that it already is; of several processes, for the first one to call.

    The folder is this process's alone until the context or the process ends.

    Args:
      workdir: created if missing.
      config: written to config.json, compared if one is there.
      fingerprint: of the data source, compared likewise.

    Raises:
      UserError: if the folder cannot be written, is in use, or belongs to another config or other data.
    """
    check_path(workdir)
    with _lock(workdir):
        file = workdir / CONFIG_FILE
        if file.exists():
            saved = read_record(workdir)
            _refuse_other(workdir, saved, config, fingerprint)
            if saved["data_fingerprint"] is None:  # Weights from elsewhere: images and type become the run's.
                saved["config"].setdefault("encoder", {})["dtype"] = config.encoder.dtype
                write_json(file, saved | {"data_fingerprint": fingerprint})
        else:
            write_json(file, record_of(config, fingerprint))
        if (workdir / FINISHED_FILE).is_dir():
            put_aside(workdir / FINISHED_FILE, "is no file")
        (workdir / FINISHED_FILE).unlink(missing_ok=True)
        write_json(workdir / ENVIRONMENT_FILE, environment())
        try:
            yield
        finally:
            if workdir.is_dir() and not file.exists():  # It was moved away, and what came later makes a run too.
                write_json(file, record_of(config, fingerprint))


def check_begun(configs: Sequence[ConfigDict], workdirs: Sequence[pathlib.Path]) -> None:
    """Refuses a workdir that another config was begun in, before any image is fetched; `claim` does so for good.

    Raises:
      UserError: if one belongs to another config, or its config.json is damaged.
    """
    for config, workdir in zip(configs, workdirs, strict=True):
        if (workdir / CONFIG_FILE).exists():
            _refuse_other(workdir, read_record(workdir), complete(config.copy_and_resolve_references()))


def with_own_dtype(config: ConfigDict, workdirs: Sequence[pathlib.Path]) -> ConfigDict:
    """The config with the type of the run in the first of the workdirs that has one, where encoder.dtype is "auto".

    So a run goes on in the type that it began with, on any devices.

    Raises:
      UserError: for a workdir whose config.json is damaged.
    """
    begun = [workdir for workdir in workdirs if (workdir / CONFIG_FILE).exists()]
    if config.encoder.dtype != "auto" or not begun:
        return config
    config = config.copy_and_resolve_references()
    config.encoder.dtype = read_record(begun[0])["config"].get("encoder", {}).get("dtype", "auto")
    return config


def check_path(workdir: pathlib.Path, name: str = "--workdir") -> None:
    """Refuses a path below which checkpoints could be written, but not read again.

    Args:
      workdir: folder of a run.
      name: the flag that gave it, for the message.

    Raises:
      UserError: naming the characters: Orbax takes them for patterns of file names.
    """
    found = sorted(set(str(workdir.absolute())) & set("*?["))
    if found:
        raise UserError(
            f"{name} {workdir.absolute()}: checkpoints cannot be kept below a path with {' and '.join(found)}; "
            f"choose one without."
        )


@contextlib.contextmanager
def _lock(workdir: pathlib.Path) -> Iterator[None]:
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        lock = hold(workdir / ".lock", blocking=False)
    except filelock.Timeout:
        raise UserError(
            f"--workdir {workdir}: another run is using it; wait for it or choose another folder."
        ) from None
    except OSError as error:
        if error.errno in NO_LOCKS:
            raise UserError(
                f"--workdir {workdir}: its file system cannot lock files ({error.strerror}), so two runs could "
                f"write there at once; choose a folder on another file system."
            ) from None
        raise UserError(
            f"--workdir {workdir}: cannot be written ({error.strerror}); choose another folder."
        ) from None
    try:
        yield
    finally:
        lock.release()


def _refuse_other(workdir: pathlib.Path, saved: dict, config: ConfigDict, fingerprint: str | None = None) -> None:
    # By the given plugins: theirs may have moved.
    before = _config_of(workdir, saved["config"] | {"plugins": config.plugins})
    differences = differing_fields(before, config)
    if fingerprint is not None and saved["data_fingerprint"] not in (None, fingerprint):
        differences.append(f"data.source: the images of {config.data.source!r} are not those it was begun with")
    if differences:
        raise UserError(
            f"--workdir {workdir}: belongs to another run; it differs in {'; '.join(differences)}. "
            f"Use those settings or another workdir."
        )


def record_of(config: ConfigDict, fingerprint: str | None, **more: Any) -> dict:
    """The content of config.json."""
    return {"config": json.loads(config.to_json_best_effort()), "data_fingerprint": fingerprint, **more}


def read_record(workdir: str | pathlib.Path) -> dict:
    """The content of a workdir's or an export's config.json: {"config", "data_fingerprint", …}.

    Raises:
      UserError: if there is none, or it is damaged.
    """
    workdir = user_path(workdir, "--workdir")
    file = workdir / CONFIG_FILE
    if not file.exists():
        raise UserError(f"{workdir}: holds no run (no config.json); give the workdir of a training run.")
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, IsADirectoryError, RecursionError) as error:
        raise _damaged(file, " ".join(str(error).split())) from None
    if not isinstance(record, dict) or not isinstance(record.get("config"), dict) or not record["config"]:
        raise _damaged(file, 'it has no "config"')
    return {"data_fingerprint": None} | record


def _damaged(file: pathlib.Path, problem: str) -> UserError:
    return UserError(
        f"{file}: is damaged ({problem}); restore a copy of it, or move it away and begin the run again in "
        f"another workdir."
    )


def saved_config(workdir: str | pathlib.Path) -> ConfigDict:
    """The config of the run in a workdir; its plugins are loaded.

    Raises:
      UserError: if there is none, or it is damaged.
    """
    return _config_of(pathlib.Path(workdir), read_record(workdir)["config"])


def _config_of(workdir: pathlib.Path, saved: dict) -> ConfigDict:
    try:
        return from_saved(saved)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _damaged(workdir / CONFIG_FILE, " ".join(str(error).split())) from None


def use_compilation_cache(directory: str | None, workdir: pathlib.Path) -> None:
    """Keeps compiled programs on disk, so that a run that goes on starts at once.

    Args:
      directory: where; None is `.jax_cache` beside the workdir, "" turns the cache off.
      workdir: of the run.
    """
    if directory == "":
        return
    path = workdir.parent / ".jax_cache" if directory is None else pathlib.Path(os.path.expanduser(directory))
    jax.config.update("jax_compilation_cache_dir", str(path.absolute()))


def environment() -> dict:
    """Versions, devices, git state, command and time, as they are now."""
    return {
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": _command(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        "versions": {name: _version(name) for name in ("hamjepa-jax", *PACKAGES)},
        "backend": jax.default_backend(),
        "devices": [d.device_kind for d in jax.devices()],
        "processes": jax.process_count(),
        "git": _git_state(),
    }


def _command() -> str:
    """The command line of this process; a module by its name, so that the line is the same on every machine."""
    module = sys.modules["__main__"].__spec__
    program = [pathlib.Path(sys.argv[0]).name] if module is None else ["-m", module.name.removesuffix(".__main__")]
    return shlex.join(["python", *program, *sys.argv[1:]])


def _version(name: str) -> str | None:
    """None for what runs without being installed, such as this package from a clone."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    """Cores and model of this machine's processor, as "16 × Intel(R) Xeon(R) …"."""
    try:
        text = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8")
        names = [line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")]
    except OSError:  # no Linux
        names = []
    return f"{os.cpu_count()} × {names[0] if names else platform.processor() or platform.machine()}"


def _git_state() -> dict | None:
    """Commit of the code's checkout and whether it was changed.

    Outside a checkout, in a container for example, the commit is the environment variable GIT_COMMIT, and whether
    the code was changed is not known; without the variable there is no state.
    """
    root = pathlib.Path(__file__).parent

    def git(*args: str) -> str:
        return subprocess.run(["git", *args], cwd=root, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "modified": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.CalledProcessError):
        commit = os.environ.get("GIT_COMMIT")
        return {"commit": commit, "modified": None} if commit else None
