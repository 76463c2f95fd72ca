"""How processes find each other, from flags and environment variables."""

import sys

import pytest

from hamjepa_jax.errors import UserError
from hamjepa_jax.run import distributed

NONE = dict(coordinator=None, num_processes=None, process_id=None)


def settings(environ, cluster="auto", **explicit):
    return distributed.settings(environ, cluster=cluster, **NONE | explicit)


def test_a_process_without_any_sign_of_others_is_alone():
    assert settings({}) is None
    assert settings({"TPU_WORKER_HOSTNAMES": "localhost"}) is None
    # The script that sbatch runs is one process, whatever the job's tasks.
    assert settings({"SLURM_JOB_ID": "1", "SLURM_NTASKS": "8", "SLURM_PROCID": "0"}) is None


def test_explicit_flags_are_taken_as_they_are_even_inside_slurm():
    environ = {"SLURM_STEP_NUM_TASKS": "4", "SLURM_LOCALID": "1"}
    given = settings(environ, coordinator="host:1234", num_processes=3, process_id=2)
    assert given["coordinator_address"] == "host:1234"
    assert (given["num_processes"], given["process_id"]) == (3, 2)
    assert given["cluster_detection_method"] == "deactivate" and given["local_device_ids"] == []


def test_tpu_hosts_are_found_by_jax_itself():
    for given in (settings({"TPU_WORKER_HOSTNAMES": "a,b"}), settings({}, cluster="tpu")):
        assert "coordinator_address" not in given and "cluster_detection_method" not in given


def test_off_is_alone_in_any_case():
    assert settings({"TPU_WORKER_HOSTNAMES": "a,b", "SLURM_STEP_NUM_TASKS": "4"}, cluster="off") is None


def slurm(tasks_per_node, node=0, local=0, **variables):
    environ = {
        "SLURM_STEP_NUM_TASKS": "16",
        "SLURM_STEP_TASKS_PER_NODE": tasks_per_node,
        "SLURM_NODEID": str(node),
        "SLURM_LOCALID": str(local),
        **variables,
    }
    given = settings(environ)
    assert given["cluster_detection_method"] == "slurm"
    return given["local_device_ids"]


EIGHT = {"CUDA_VISIBLE_DEVICES": "0,1,2,3,4,5,6,7", "SLURM_GPUS_ON_NODE": "8"}


@pytest.mark.parametrize(
    ("devices", "arguments"),
    [
        ([], dict(tasks_per_node="1(x16)", node=3, **EIGHT)),  # One process per node: all GPUs.
        ([5], dict(tasks_per_node="8(x2)", node=1, local=5, **EIGHT)),  # One process per GPU, all of them seen.
        ([2, 3], dict(tasks_per_node="4(x4)", local=1, **EIGHT)),  # Two GPUs each.
        # Bound by SLURM: each task sees its own, under number 0, …
        ([], dict(tasks_per_node="8(x2)", local=5, CUDA_VISIBLE_DEVICES="0", SLURM_GPUS_ON_NODE="8")),
        # … or two of its own.
        ([], dict(tasks_per_node="4(x4)", local=3, CUDA_VISIBLE_DEVICES="0,1", SLURM_GPUS_ON_NODE="8")),
        ([1], dict(tasks_per_node="2(x2),12", node=1, local=1)),  # SLURM says nothing of GPUs: one each.
        ([], dict(tasks_per_node="8,1", node=1)),
        ([0], dict(tasks_per_node="1,8", node=1)),
    ],
)
def test_each_slurm_task_takes_its_own_devices(devices, arguments):
    assert slurm(**arguments) == devices


@pytest.mark.parametrize(
    ("explicit", "named"),
    [
        (dict(coordinator="host:1"), "--num_processes and --process_id: missing"),
        (dict(coordinator="host", num_processes=2, process_id=0), "--coordinator 'host': must be"),
        (dict(coordinator="host:1", num_processes=2, process_id=2), "--process_id 2: with --num_processes 2"),
        (dict(coordinator="host:1", cluster="tpu"), "--distributed=tpu: contradicts --coordinator"),
    ],
)
def test_incomplete_or_impossible_flags_are_refused(explicit, named):
    with pytest.raises(UserError, match=named):
        settings({}, **explicit)


def test_the_status_of_a_command_is_that_of_its_exit(capsys):
    assert distributed.leave_with(lambda: 3) == 3
    assert distributed.leave_with(lambda: sys.exit(2)) == 2
    assert distributed.leave_with(sys.exit) == 0
    assert distributed.leave_with(lambda: 1 // 0) == 1 and "ZeroDivisionError" in capsys.readouterr().err
