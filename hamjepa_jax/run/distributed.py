"""How the processes of a run find each other: explicit flags, a SLURM job step, or a TPU pod."""

import faulthandler
import logging
import re
import sys
import traceback
from collections.abc import Callable, Mapping
from typing import Any

from hamjepa_jax.errors import UserError

CLUSTERS = ("auto", "tpu", "off")
# A process that is silent for this long counts as dead, and the others end.
HEARTBEAT_S = 60
# How long a process waits for the others at its end; `train` has already brought them together.
SHUTDOWN_S = 30


def join(environ: Mapping[str, str], **flags: Any) -> int:
    """Finds the other processes of the run, if there are any, before JAX looks for devices.

    Args:
      environ: the environment variables.
      **flags: see `settings`.

    Returns:
      Which process of the run this is, from 0.

    Raises:
      UserError: for flags that cannot be used, or if the processes do not find each other.
    """
    found = settings(environ, **flags)
    if found is None:
        return 0
    import jax

    try:
        jax.distributed.initialize(**found)
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"--distributed={flags['cluster']}: the processes did not find each other ({error})."
        ) from None
    faulthandler.disable()  # JAX's message on a lost process would drown in the stacks of its threads.
    process = found.get("process_id")
    if process is None and "SLURM_PROCID" in environ:
        process = int(environ["SLURM_PROCID"])
    if process is None:  # on TPUs; it starts the devices, with their library's first messages
        process = jax.process_index()
    if process > 0:  # The first process speaks for all.
        logging.getLogger("hamjepa_jax").setLevel(logging.ERROR)
    return process


def leave_with(command: Callable[[], int]) -> int:
    """The exit status of a command that may be one of several processes; of several, this one ends at once.

    Args:
      command: gives its exit status.
    """
    status = 1
    try:
        status = command()
    except SystemExit as stop:  # A signal where nothing is to be saved, --help, or a mistaken flag.
        status = stop.code or 0
    except Exception as error:
        from hamjepa_jax.training import processes

        if processes.is_lost(error):
            print(f"error: {processes.LOST} ({error})", file=sys.stderr)
        else:
            traceback.print_exc()
    if "jax" in sys.modules:
        from hamjepa_jax.training import processes

        processes.leave(status)
    return status


def settings(
    environ: Mapping[str, str],
    *,
    cluster: str,
    coordinator: str | None,
    num_processes: int | None,
    process_id: int | None,
) -> dict[str, Any] | None:
    """Arguments for `jax.distributed.initialize`, or None for a process that is alone.

    Args:
      environ: the environment variables.
      cluster: "auto": the explicit arguments, else a SLURM job step of several tasks, else the hosts of
        TPU_WORKER_HOSTNAMES; "tpu": the metadata of the TPU virtual machine; "off": alone in any case.
      coordinator: HOST:PORT of process 0.
      num_processes: of the run.
      process_id: this one, from 0.

    Raises:
      UserError: for explicit arguments that are incomplete, contradictory or out of range.
    """
    common = dict(heartbeat_timeout_seconds=HEARTBEAT_S, shutdown_timeout_seconds=SHUTDOWN_S)
    explicit = {"coordinator": coordinator, "num_processes": num_processes, "process_id": process_id}
    given = {name: value for name, value in explicit.items() if value is not None}
    if given and cluster != "auto":
        raise UserError(f"--distributed={cluster}: contradicts --{next(iter(given))}; give one of the two.")
    if given:
        _check_explicit(explicit)
        # "deactivate": JAX would look at SLURM's variables for the devices otherwise.
        return common | dict(
            coordinator_address=coordinator,
            num_processes=num_processes,
            process_id=process_id,
            cluster_detection_method="deactivate",
            local_device_ids=[],
        )
    if cluster == "off":
        return None
    if cluster == "tpu" or "," in environ.get("TPU_WORKER_HOSTNAMES", ""):
        return common
    # A job step of srun; in sbatch's own script, which is one process, there is no SLURM_STEP_NUM_TASKS of several.
    if int(environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
        return common | dict(cluster_detection_method="slurm", local_device_ids=slurm_devices(environ))
    return None


def slurm_devices(environ: Mapping[str, str]) -> list[int]:
    """This task's part of the GPUs that it sees; [] means all.

    One task on a node has all GPUs. Several share them in the order of their local ids, unless SLURM has bound each
    to its own GPUs already (`--gpus-per-task`, `--gpu-bind`): a task then sees fewer than the job has on the node.
    """
    tasks = _tasks_of_node(environ)
    if tasks == 1:
        return []
    seen = [gpu for gpu in environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if gpu]
    on_node = int(environ.get("SLURM_GPUS_ON_NODE", "0")) or tasks
    if seen and len(seen) < max(on_node, 2):
        return []
    share, local = max(1, (len(seen) or on_node) // tasks), int(environ["SLURM_LOCALID"])
    return list(range(local * share, (local + 1) * share))


def _tasks_of_node(environ: Mapping[str, str]) -> int:
    """Tasks of the step on this node: SLURM writes "8(x2),4" for two nodes of 8 and one of 4."""
    counts = []
    for part in environ["SLURM_STEP_TASKS_PER_NODE"].split(","):
        tasks, times = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part).groups()
        counts += [int(tasks)] * int(times or 1)
    return counts[int(environ["SLURM_NODEID"])]


def _check_explicit(explicit: Mapping[str, Any]) -> None:
    missing = [f"--{name}" for name, value in explicit.items() if value is None]
    if missing:
        raise UserError(
            f"{' and '.join(missing)}: missing; --coordinator=HOST:PORT, --num_processes=N and --process_id=I go "
            f"together."
        )
    host, _, port = explicit["coordinator"].rpartition(":")
    if not host or not port.isdecimal():
        raise UserError(f"--coordinator {explicit['coordinator']!r}: must be HOST:PORT of process 0.")
    count, process = explicit["num_processes"], explicit["process_id"]
    if not 0 <= process < count:
        raise UserError(f"--process_id {process}: with --num_processes {count} the ids are 0 to {count - 1}.")
