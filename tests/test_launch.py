"""The launchers: what they print with DRY_RUN=1 is what they run, and how signals and failures go through them."""

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib

import pytest
import yaml

from hamjepa_jax.run.workdir import FINISHED_FILE

ROOT = pathlib.Path(__file__).parent.parent
SCRIPTS = [*(ROOT / "launch").glob("*.sh"), ROOT / "launch" / "slurm.sbatch", ROOT / ".ci" / "run"]
RECIPES = [
    block
    for page in sorted((ROOT / "docs").rglob("*.md"))
    for block in re.findall(r"```bash\n(.*?)```", page.read_text(), re.DOTALL)
    if re.search(r"^launch/|[ ]launch/", block, re.MULTILINE)
]
SKYPILOT = yaml.safe_load((ROOT / "launch" / "skypilot.yaml").read_text())

TOOLS = "nvidia-smi gcloud xpk kubectl sky ssh-add sbatch srun scontrol git docker python pip".split()
# Appends its words to $RECORD and succeeds, or ends as told; a described TPU is ready; nvidia-smi lists $gpus.
STAND_IN = """#!/usr/bin/env bash
name=${0##*/}
if [[ $name == nvidia-smi ]]; then [[ -z ${gpus:-} ]] || printf '%s\\n' $gpus; exit; fi
{ printf '%s\\x1f' "$name" "$@"; printf '\\x1e'; } >>"$RECORD"
[[ "$*" == *" describe "* ]] && echo ACTIVE
status=${name//-/_}_status
exit "${!status:-0}"
"""
TPU = {"TPU": "pod", "ZONE": "us-west4-a", "TYPE": "v5litepod-16", "RUNTIME": "v2-alpha-tpuv5-lite"}
GKE = {"CLUSTER": "c", "ZONE": "us-west4-a", "TYPE": "v5litepod-16", "WORKLOAD": "in100"}
SSH = ["gcloud", "compute", "tpus", "tpu-vm", "ssh", "pod", "--zone=us-west4-a"]
ODD = '--workdir=/mnt/it\'s a "run" $HOME'
ODD_QUOTED = "'--workdir=/mnt/it'\\''s a \"run\" $HOME'"


@pytest.fixture
def launch(tmp_path):
    """launch(script, *arguments, **settings) runs a launcher where the tools it calls are stand-ins.

    Its CompletedProcess has the stand-ins' words as `called`.
    """
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in TOOLS:
        (tools / name).write_text(STAND_IN)
        (tools / name).chmod(0o755)
    kept = {name: os.environ[name] for name in ("HOME", "TMPDIR") if name in os.environ}

    def run(*command, cwd=ROOT, **settings):
        record = tmp_path / "record"
        record.write_text("")
        done = subprocess.run(
            [str(word) for word in command],
            cwd=cwd,
            env=kept | {"PATH": f"{tools}{os.pathsep}/usr/bin:/bin", "RECORD": str(record)} | settings,
            capture_output=True,
            text=True,
            timeout=60,
        )
        done.called = [call.split("\x1f")[:-1] for call in record.read_text().split("\x1e")[:-1]]
        return done

    return run


def remote(calls, flag="--command="):
    """What a launcher has another machine's shell do."""
    return next(word.removeprefix(flag) for call in calls for word in call if word.startswith(flag))


def lint(file, text=None):
    checker = shutil.which(
        "shellcheck", path=f"{pathlib.Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    )
    assert checker, "shellcheck is missing: pip install -e '.[dev]'"
    done = subprocess.run(
        [checker, "--shell=bash", str(file)], input=text, cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_clean(script):
    lint(script)
    assert script.name == "common.sh" or os.access(script, os.X_OK)


@pytest.mark.parametrize("block", ["setup", "run"])
def test_the_yaml_s_scripts_are_clean(block):
    names = " ".join([*SKYPILOT["envs"], "SKYPILOT_NODE_IPS", "SKYPILOT_NUM_NODES", "SKYPILOT_NODE_RANK"])
    lint("-", f"export {names}\n{SKYPILOT[block]}")


# (launcher and arguments, settings, the commands it stands for)
COMMANDS = {
    "slurm": (
        ["bash", "launch/slurm.sbatch", "--config=c.py", ODD],
        {"SLURM_CPUS_PER_TASK": "32", "SLURM_JOB_ID": "7"},
        [
            [*"srun --kill-on-bad-exit=1 --cpus-per-task=32 python -m hamjepa_jax.main --config=c.py".split(), ODD],
            ["scontrol", "requeue", "7"],
        ],
    ),
    "tpu create": (
        ["launch/tpu_vm.sh", "create"],
        TPU | {"SPOT": "1"},
        [
            "gcloud compute tpus queued-resources create pod --node-id=pod --zone=us-west4-a "
            "--accelerator-type=v5litepod-16 --runtime-version=v2-alpha-tpuv5-lite --spot".split(),
            "gcloud compute tpus queued-resources describe pod --zone=us-west4-a "
            "--format=value(state.state)".split(),
        ],
    ),
    "tpu setup": (
        ["launch/tpu_vm.sh", "setup"],
        TPU | {"SHARE": "10.0.0.2:/share"},
        [
            "git bundle create --quiet hamjepa.bundle HEAD".split(),
            "gcloud compute tpus tpu-vm scp hamjepa.bundle pod:hamjepa.bundle --zone=us-west4-a "
            "--worker=all".split(),
            [
                *SSH,
                "--worker=all",
                "--command=set -e\n"
                "rm -rf hamjepa_jax\n"
                "git clone --quiet --config advice.detachedHead=false hamjepa.bundle hamjepa_jax\n"
                "python3 -m pip install --quiet --user uv\n"
                "python3 -m uv venv --quiet --allow-existing --python 3.12 venv\n"
                "python3 -m uv pip install --quiet --python venv --editable 'hamjepa_jax[tpu,fast]'\n"
                "sudo apt-get -o DPkg::Lock::Timeout=600 install --yes --quiet nfs-common\n"
                "sudo mkdir -p /mnt/shared\n"
                "mountpoint -q /mnt/shared || sudo mount -t nfs 10.0.0.2:/share /mnt/shared\n"
                "sudo chmod a+rwx /mnt/shared",
            ],
        ],
    ),
    "tpu run": (
        ["launch/tpu_vm.sh", "run", "--config=c.py", ODD],
        TPU,
        [
            [
                *SSH,
                "--worker=all",
                "--command=cd hamjepa_jax || exit\n"
                "nohup ../venv/bin/python -m hamjepa_jax.main --distributed=tpu --config=c.py "
                f"{ODD_QUOTED} >>../train.log 2>&1 </dev/null &\n"
                "echo $! >../train.pid",
            ]
        ],
    ),
    "tpu logs": (
        ["launch/tpu_vm.sh", "logs"],
        TPU | {"WORKER": "2"},
        [[*SSH, "--worker=2", "--command=tail -n 100 -F train.log"]],
    ),
    "tpu ssh": (["launch/tpu_vm.sh", "ssh", "df -h; ls"], TPU, [[*SSH, "--worker=0", "--command=df -h; ls"]]),
    "tpu stop": (
        ["launch/tpu_vm.sh", "stop"],
        TPU,
        [[*SSH, "--worker=all", "--command=kill -TERM $(cat train.pid); tail --pid=$(cat train.pid) -f /dev/null"]],
    ),
    "tpu teardown": (
        ["launch/tpu_vm.sh", "teardown"],
        TPU,
        ["gcloud compute tpus queued-resources delete pod --zone=us-west4-a --force --quiet".split()],
    ),
    "gke create": (
        ["launch/gke_xpk.sh", "create"],
        GKE | {"SHARE_GB": "2048"},
        [
            "xpk cluster create --cluster=c --zone=us-west4-a --tpu-type=v5litepod-16 --num-slices=1 --on-demand "
            "--enable-gcpfilestore-csi-driver".split(),
            "xpk storage create shared --cluster=c --zone=us-west4-a --type=gcpfilestore --vol=share --tier=ZONAL "
            "--size=2048 --mount-point=/mnt/shared --readonly=false --auto-mount=true".split(),
        ],
    ),
    "gke run": (
        ["launch/gke_xpk.sh", "run", "--config=c.py", ODD],
        GKE,
        [
            "git clone --quiet . hamjepa_jax".split(),
            "docker build --quiet --build-arg=EXTRA=tpu --tag=hamjepa_jax:tpu hamjepa_jax".split(),
            [
                *"xpk workload create --cluster=c --zone=us-west4-a --workload=in100 --tpu-type=v5litepod-16 "
                "--num-slices=1 --base-docker-image=hamjepa_jax:tpu --script-dir=hamjepa_jax --max-restarts=20 "
                "--restart-on-exit-codes=1,42 --termination-grace-period-seconds=120".split(),
                f"--command=exec launch/worker.sh --config=c.py {ODD_QUOTED}",
            ],
        ],
    ),
    "gke logs": (
        ["launch/gke_xpk.sh", "logs"],
        GKE,
        [
            "kubectl logs --follow --selector=jobset.sigs.k8s.io/jobset-name=in100,"
            "batch.kubernetes.io/job-completion-index=0".split()
        ],
    ),
    "gke stop": (
        ["launch/gke_xpk.sh", "stop"],
        GKE,
        ["xpk workload delete --cluster=c --zone=us-west4-a --workload=in100".split()],
    ),
    "gke teardown": (
        ["launch/gke_xpk.sh", "teardown"],
        GKE,
        ["xpk cluster delete --cluster=c --zone=us-west4-a".split()],
    ),
    "worker": (
        ["launch/worker.sh", "--config=c.py", ODD],
        {},
        [["python", "-m", "hamjepa_jax.main", "--config=c.py", ODD]],
    ),
    "skypilot": (
        ["bash", "-c", SKYPILOT["run"]],
        {
            "CONFIG": "c.py",
            "WORKDIR": ODD.partition("=")[2],
            "OVERRIDES": "--config.seed=1 --config.train.epochs=2",
            "SKYPILOT_NODE_IPS": "10.1.0.1\n10.1.0.2",
            "SKYPILOT_NUM_NODES": "2",
            "SKYPILOT_NODE_RANK": "1",
        },
        [
            [
                *"python -m hamjepa_jax.main --config=c.py".split(),
                ODD,
                *"--config.seed=1 --config.train.epochs=2".split(),
                *"--coordinator=10.1.0.1:12321 --num_processes=2 --process_id=1".split(),
            ]
        ],
    ),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_printed_and_run_are_the_same_commands(name, launch):
    command, settings, expected = COMMANDS[name]
    printed = launch(*command, **settings, DRY_RUN="1")
    assert printed.returncode == 0 and not printed.called, printed.stderr
    pasted = launch("bash", "-c", printed.stdout)
    assert pasted.called == expected
    run = launch(*command, **settings)
    assert run.returncode == 0, run.stderr
    temporary = re.compile(r"(?<=^)/.*/(?=hamjepa(?:\.bundle|_jax)$)|(?<==)/\S*/(?=hamjepa_jax$)")
    assert [[temporary.sub("", word) for word in call] for call in run.called] == expected


def test_local_prints_its_processes(launch):
    arguments = ["--config=c.py", "--workdir=runs/a b"]
    printed = launch(
        "launch/local.sh", *arguments, DRY_RUN="1", PROCESSES="2", DEVICES="4", PORT="20001", XLA_FLAGS="--xla_a=1"
    )
    place = "env JAX_PLATFORMS=cpu 'XLA_FLAGS=--xla_a=1 --xla_force_host_platform_device_count=4' PJRT_NPROC=32"
    main = "python -m hamjepa_jax.main --config=c.py '--workdir=runs/a b' --coordinator=127.0.0.1:20001"
    log = "'runs/a b/logs/process_1.log'"
    assert printed.stdout.splitlines() == [
        f"{place} {main} --num_processes=2 --process_id=0 &",
        f"{place} {main} --num_processes=2 --process_id=1 >>{log} 2>&1 &",
    ]
    assert not (ROOT / "runs" / "a b").exists()


@pytest.mark.parametrize(
    "settings", [{"CUDA_VISIBLE_DEVICES": "2,5"}, {"gpus": "2 5"}, {"gpus": "2 5 6", "PROCESSES": "2"}]
)
def test_local_gives_each_process_a_gpu(settings, launch):
    printed = launch("launch/local.sh", "--config=c.py", "--workdir=w", DRY_RUN="1", PORT="20001", **settings)
    main = "python -m hamjepa_jax.main --config=c.py --workdir=w --coordinator=127.0.0.1:20001 --num_processes=2"
    assert printed.stdout.splitlines() == [
        f"env CUDA_VISIBLE_DEVICES=2 {main} --process_id=0 &",
        f"env CUDA_VISIBLE_DEVICES=5 {main} --process_id=1 >>w/logs/process_1.log 2>&1 &",
    ]


RUN = ["--config=c.py", "--workdir=w"]
MISTAKES = {
    "worker without a workdir": (["launch/worker.sh", "--config=c.py"], {}, "--workdir is missing"),
    "slurm without a workdir": (["bash", "launch/slurm.sbatch", "--config=c.py"], {}, "--workdir is missing"),
    "local without a workdir": (["launch/local.sh", "--workdir="], {}, "--workdir is missing"),
    "worker with a workdir without a name": (["launch/worker.sh", "--workdir"], {}, "--workdir is missing"),
    "local without GPUs": (["launch/local.sh", *RUN], {}, "no GPU found"),
    "local with too few GPUs": (
        ["launch/local.sh", *RUN],
        {"PROCESSES": "3", "CUDA_VISIBLE_DEVICES": "0,1"},
        "there are 2 GPUs here",
    ),
    "local with devices only": (["launch/local.sh", *RUN], {"DEVICES": "4"}, "PROCESSES is not set"),
    "tpu without a name": (["launch/tpu_vm.sh", "create"], {}, "TPU is not set"),
    "tpu without a zone": (["launch/tpu_vm.sh", "create"], {"TPU": "pod"}, "ZONE is not set"),
    "tpu without a type": (["launch/tpu_vm.sh", "create"], {"TPU": "pod", "ZONE": "z"}, "TYPE is not set"),
    "tpu without a share": (["launch/tpu_vm.sh", "setup"], TPU, "SHARE is not set"),
    "tpu run without a workdir": (["launch/tpu_vm.sh", "run"], TPU, "--workdir is missing"),
    "tpu with an unknown command": (["launch/tpu_vm.sh", "start"], TPU, "start: must be create,"),
    "tpu without a command": (["launch/tpu_vm.sh"], TPU, "no command: must be create,"),
    "gke without a cluster": (["launch/gke_xpk.sh", "create"], {}, "CLUSTER is not set"),
    "gke without a workload": (["launch/gke_xpk.sh", "run"], GKE | {"WORKLOAD": ""}, "WORKLOAD is not set"),
    "gke run without a workdir": (["launch/gke_xpk.sh", "run"], GKE, "--workdir is missing"),
    "gke with an unknown command": (["launch/gke_xpk.sh", "start"], GKE, "start: must be create,"),
    "measure without a folder": (["launch/measure_gpu.sh", "cifar100:/data"], {}, "the folder of the results"),
} | {
    f"measure for {minutes!r} minutes": (
        ["launch/measure_gpu.sh", "cifar100:/data", "/dev/null/out"],
        {"MINUTES": minutes},
        f"MINUTES={minutes}: give a whole number",
    )
    for minutes in ("0", "0.5", "abc", "-3", "08", "9 m")
}


# How main takes the folder of a run; of several, the last.
WORKDIRS = [
    ["--workdir=a b"],
    ["--config=c.py", "--workdir", "a b"],
    ["--workdir=w", "--workdir", "a b", "--step=1"],
]


@pytest.mark.parametrize("arguments", WORKDIRS)
def test_the_workdir_is_found_as_main_finds_it(arguments, launch):
    done = launch("bash", "-c", 'source launch/common.sh; workdir_of "$@"', "bash", *arguments)
    assert done.stdout == "a b\n", done.stderr


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_sentence(name, launch):
    command, settings, message = MISTAKES[name]
    done = launch(*command, **settings)
    assert done.returncode == 2 and not done.called
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1 and message in done.stderr


@pytest.mark.parametrize("block", RECIPES)
def test_the_guides_recipes_have_all_they_need(block, launch):
    done = launch("bash", "-euc", block, DRY_RUN="1")
    assert done.returncode == 0 and not done.stderr, done.stderr
    for found in re.findall(r"--config=([^\s:]+)|CONFIG=([^\s:]+)", block):
        config = "".join(found)
        assert (ROOT / config).is_file() or (ROOT / "configs" / f"{config}.py").is_file(), config


def test_a_tpu_that_failed_is_not_waited_for(launch, tmp_path):
    stand_in = tmp_path / "tools" / "gcloud"
    stand_in.write_text(stand_in.read_text().replace("echo ACTIVE", "echo FAILED"))
    done = launch("launch/tpu_vm.sh", "create", **TPU)
    assert done.returncode == 2 and "the TPU is FAILED" in done.stderr


@pytest.mark.parametrize(
    ("status", "finished", "ends_with", "requeued"),
    [("0", True, 0, False), ("0", False, 0, True), ("143", False, 143, False), ("1", False, 1, False)],
)
def test_slurm_requeues_what_was_stopped(status, finished, ends_with, requeued, launch, tmp_path):
    (tmp_path / "metrics.json").write_text("{}")  # An evaluation of an earlier checkpoint leaves one too.
    if finished:
        (tmp_path / FINISHED_FILE).touch()
    done = launch("bash", "launch/slurm.sbatch", f"--workdir={tmp_path}", srun_status=status, SLURM_JOB_ID="7")
    assert done.returncode == ends_with
    assert (["scontrol", "requeue", "7"] in done.called) == requeued


@pytest.mark.parametrize("mode", [["--mode=evaluate"], ["--mode", "evaluate"]])
def test_slurm_evaluates_an_unfinished_run_once(mode, launch, tmp_path):
    done = launch("bash", "launch/slurm.sbatch", *mode, f"--workdir={tmp_path}", SLURM_JOB_ID="7")
    assert done.returncode == 0 and [call[0] for call in done.called] == ["srun"]


def test_slurm_finds_its_files_from_the_spool(launch, tmp_path):
    copy = tmp_path / "slurm_script"
    copy.write_text((ROOT / "launch" / "slurm.sbatch").read_text())
    done = launch("bash", copy, "--workdir=w", DRY_RUN="1", SLURM_SUBMIT_DIR=str(ROOT), cwd=tmp_path)
    assert done.returncode == 0 and done.stdout.startswith("srun "), done.stderr


def test_skypilot_asks_for_what_a_run_needs():
    assert {name for name, value in SKYPILOT["envs"].items() if value is None} == {"SHARE", "CONFIG", "WORKDIR"}
    assert SKYPILOT["resources"]["use_spot"] and SKYPILOT["num_nodes"] > 1
    assert SKYPILOT["resources"]["job_recovery"]["recover_on_exit_codes"] == [42]


def test_the_image_s_extras_are_those_of_the_package():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    dockerfile = (ROOT / "Dockerfile").read_text()
    named = re.findall(r"EXTRA=(\w+)", dockerfile) + re.findall(
        r"EXTRA=(\w+)", (ROOT / "launch/gke_xpk.sh").read_text()
    )
    assert {"cuda13", "tpu"} <= set(named) <= set(extras) and "fast" in extras
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert not {"hamjepa_jax", "configs", "launch", ".git"} & set(ignored)  # .git: a run notes its commit.


def test_skypilot_without_the_image_is_told(launch):
    done = launch("bash", "-c", SKYPILOT["setup"], python_status="1", SHARE="s")
    assert done.returncode == 2 and done.stderr.startswith("error: --image-id is missing")


def test_a_pod_s_command_trains(launch):
    called = launch("launch/gke_xpk.sh", "run", "--config=c.py", ODD, **GKE).called
    done = launch("bash", "-c", f"({remote(called)})")
    assert done.called == [["python", "-m", "hamjepa_jax.main", "--config=c.py", ODD]]


# A stand-in for measuring: notes its words, and does what $DOES says of the first one that it names.
MEASURING = """#!{python}
import json, os, pathlib, signal, sys, time
words = sys.argv[1:]
told = json.loads(os.environ.get("DOES", "{{}}"))
does = next((told[word] for word in told if word in words), "measure")
with open(os.environ["RECORD"], "a") as record:
    record.write("\x1f".join(["python", *words]) + "\x1f\x1e")
if does == "fail":
    sys.exit(2)
if does == "wait":
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    pathlib.Path(os.environ["RECORD"]).with_name("waits").touch()
    time.sleep(60)
flags = dict(w.split("=", 1) for w in words if "=" in w)
if "--json" in flags:
    pathlib.Path(flags["--json"]).write_text("{{}}")
if "--out" in flags:
    run = pathlib.Path(flags["--out"], "runs", "hamjepa_seed0")
    run.mkdir(parents=True, exist_ok=True)
    (run / "metrics.json").write_text("{{}}")
"""


@pytest.fixture
def measure(launch, tmp_path):
    """measure(**settings) runs launch/measure_gpu.sh with stand-ins; `short` has the calls in brief."""
    stand_in = tmp_path / "tools" / "python"
    stand_in.write_text(MEASURING.format(python=sys.executable))
    out = tmp_path / "o u t"

    def run(*arguments, **settings):
        done = launch("launch/measure_gpu.sh", "cifar100:/data", out, *arguments, **settings)
        brief = re.compile(r"(?<=--config=)\w+|(?<=--table=)\w+|(?<=--methods=)\w+|--report_only")
        done.short = [" ".join(brief.findall(" ".join(call))) for call in done.called]
        return done

    return run


STEPS = ["cifar100", "cifar100_mlp", "cifar100_sigreg"]
MADE, REPORTED = ["cifar100_30", "cifar100_80"], ["cifar100_30 --report_only", "cifar100_80 --report_only"]


def test_a_gpu_s_measurements_come_in_order_and_go_on(measure):
    first = measure("--parallel_seeds")
    assert first.returncode == 0, first.stderr
    assert first.short == STEPS + MADE + REPORTED
    assert "--parallel_seeds" in first.called[3] and "--seeds=0,1,2" in first.called[3]
    assert measure(SEEDS="1,2").short == MADE + REPORTED  # The steps are measured.
    assert measure(TABLES="cifar100_80").short == [MADE[1], REPORTED[1]]


@pytest.mark.parametrize("settings", [{}, {"TABLES": "cifar100_80", "SEEDS": "2"}])
def test_printed_measurements_are_those_that_are_run(settings, measure, launch, tmp_path):
    printed = measure("--parallel_seeds", DRY_RUN="1", MINUTES="9", **settings)
    assert printed.returncode == 0 and not printed.called
    assert printed.stdout.count("--kill-after=30 510 python -m") == 3 + len(settings.get("TABLES", "2 of").split())
    pasted = launch("bash", "-c", printed.stdout)
    shutil.rmtree(tmp_path / "o u t")
    assert pasted.called == measure("--parallel_seeds", MINUTES="9", **settings).called != []


def test_what_fails_costs_the_rest_nothing_and_is_told(measure):
    done = measure(DOES='{"--config=cifar100_mlp": "fail", "--table=cifar100_30": "fail"}')
    assert done.returncode == 1
    assert done.stderr.splitlines() == ["failed: step of cifar100_mlp", "failed: cifar100_30"]
    assert done.short == [*STEPS, *MADE, REPORTED[1]]  # Of the other table nothing is done.


def test_methods_side_by_side(measure, tmp_path):
    done = measure(SIDE_BY_SIDE="1", DOES='{"--methods=mlp": "fail"}')
    assert done.returncode == 1
    assert done.stderr == f"failed: mlp: see {tmp_path}/o u t/logs/mlp.log\n"
    each = {f"{table} {method}" for table in MADE for method in ("hamjepa", "mlp", "sigreg")}
    assert done.short[:3] == STEPS and set(done.short[3:9]) == each and done.short[9:] == REPORTED


def test_when_the_time_is_up_a_run_is_stopped_and_the_report_written(measure):
    measure(TABLES="cifar100_30")
    done = measure(DOES='{"--report_only": "measure", "--table=cifar100_30": "wait"}', MINUTES="1", SAVING="57")
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert done.stdout == "The time is up; the same command goes on.\n"
    assert done.short == ["cifar100_30", "cifar100_30 --report_only"]  # The other table was not begun.


def test_ctrl_c_stops_a_measurement_and_the_report_is_written(measure, tmp_path):
    measure(TABLES="cifar100_30")
    record = tmp_path / "record"
    record.write_text("")
    does = {"--report_only": "measure", "--table=cifar100_30": "wait"}
    tools = f"{tmp_path / 'tools'}{os.pathsep}/usr/bin:/bin"
    process = subprocess.Popen(
        [str(ROOT / "launch" / "measure_gpu.sh"), "cifar100:/data", str(tmp_path / "o u t")],
        env={"PATH": tools, "RECORD": str(record), "DOES": json.dumps(does)},
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    while "--table=cifar100_30" not in record.read_text() or not (tmp_path / "waits").exists():
        assert process.poll() is None
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)  # As a terminal does.
    try:
        out, _ = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 0 and out == b"The time is up; the same command goes on.\n"
    calls = record.read_text().split("\x1e")[:-1]
    assert len(calls) == 2 and "--report_only" in calls[1]


# A stand-in for training: writes down its process group and arguments, then ends as END says.
TRAINING = """#!{python}
import json, os, pathlib, signal, sys, time
process = next((a.partition("=")[2] for a in sys.argv if a.startswith("--process_id=")), "0")
here = pathlib.Path(os.environ["NOTES"])
signals = []
def stop(number, frame):
    signals.append(signal.Signals(number).name)
    (here / f"signals_{{process}}.json").write_text(json.dumps(signals))
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, stop)
print("process", process, "trains", flush=True)
(here / f"started_{{process}}.tmp").write_text(json.dumps([os.getpgrp(), *sys.argv[1:]]))
(here / f"started_{{process}}.tmp").rename(here / f"started_{{process}}.json")
end = json.loads(os.environ.get("END", "{{}}")).get(process, "on signal")
while end == "never" or (end == "on signal" and not signals):
    time.sleep(0.02)
time.sleep(0.3)  # A second signal would be noted as well.
sys.exit(0 if isinstance(end, str) else end)
"""


@pytest.fixture
def training(tmp_path):
    """training(script, *arguments, **settings) starts a launcher with TRAINING; `count` processes run on return."""
    python = tmp_path / "python"
    python.write_text(TRAINING.format(python=sys.executable))
    python.chmod(0o755)
    started = []

    def start(*command, count=1, **settings):
        environment = os.environ | {"PYTHON": str(python), "NOTES": str(tmp_path)} | settings
        process = subprocess.Popen(
            [str(word) for word in command],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        wait_until(lambda: len(list(tmp_path.glob("started_*.json"))) >= count)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.terminate()
        process.communicate(timeout=30)


def wait_until(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "did not happen"
        time.sleep(0.02)


def alive(path):
    """Whether a process has the file's path on its command line."""
    lines = [p.read_bytes() for p in pathlib.Path("/proc").glob("[0-9]*/cmdline") if p.exists()]
    return any(str(path).encode() in line for line in lines)


LOCAL = {"PROCESSES": "2", "DEVICES": "1"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_local_passes_a_signal_on_once(number, training, tmp_path):
    process = training("launch/local.sh", f"--workdir={tmp_path}/w", count=2, **LOCAL)
    # A terminal signals the launcher's whole process group; processes that were in it would be signalled twice.
    groups = {json.loads((tmp_path / f"started_{i}.json").read_text())[0] for i in range(2)}
    assert len(groups | {process.pid}) == 3
    os.killpg(process.pid, number)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    for i in range(2):
        assert json.loads((tmp_path / f"signals_{i}.json").read_text()) == [number.name]
    assert "process 0 trains" in output and "process 1" not in output
    assert (tmp_path / "w" / "logs" / "process_1.log").read_text() == "process 1 trains\n"


@pytest.mark.parametrize("place", ["0", "1"])
def test_local_ends_all_when_one_fails(place, training, tmp_path):
    other = {"0": "1", "1": "0"}[place]
    process = training(
        "launch/local.sh", f"--workdir={tmp_path}/w", END=json.dumps({place: 3, other: "never"}), GRACE="0", **LOCAL
    )
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 3
    assert f"process {place} failed with status 3; ending the others" in output
    wait_until(lambda: not alive(tmp_path / "python"), seconds=5)


def test_local_waits_for_the_last_to_finish(training, tmp_path):
    process = training("launch/local.sh", f"--workdir={tmp_path}/w", END='{"0": "at once"}', count=2, **LOCAL)
    time.sleep(1)  # Process 0 has ended meanwhile.
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 0


@pytest.mark.parametrize(("finished", "status"), [(False, 42), (True, 0)])
def test_worker_says_when_it_stopped_too_early(finished, status, training, tmp_path):
    process = training("launch/worker.sh", f"--workdir={tmp_path}")
    (tmp_path / "metrics.json").write_text("{}")  # An evaluation of an earlier checkpoint leaves one too.
    if finished:
        (tmp_path / FINISHED_FILE).touch()
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == status
    assert json.loads((tmp_path / "signals_0.json").read_text()) == ["SIGTERM"]


@pytest.mark.parametrize("end", ["at once", 3])
def test_worker_has_training_s_status_otherwise(end, training, tmp_path):
    process = training("launch/worker.sh", f"--workdir={tmp_path}", END=json.dumps({"0": end}))
    assert process.wait(timeout=30) == (3 if end == 3 else 0)


def test_a_tpu_worker_trains_on_until_it_is_told_to_stop(launch, training, tmp_path):
    (tmp_path / "hamjepa_jax").mkdir()
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    home = f"cd '{tmp_path}'; "
    start = remote(launch("launch/tpu_vm.sh", "run", "--config=c.py", ODD, **TPU).called)
    stop = remote(launch("launch/tpu_vm.sh", "stop", **TPU).called)
    training("bash", "-c", f"{home}ln -s ../../python venv/bin/python; {start}").wait(timeout=30)
    assert json.loads((tmp_path / "started_0.json").read_text())[1:] == [
        "-m", "hamjepa_jax.main", "--distributed=tpu", "--config=c.py", ODD,
    ]  # fmt: skip
    assert alive("../venv/bin/python")
    done = subprocess.run(["bash", "-c", home + stop], timeout=30)
    assert done.returncode == 0
    assert json.loads((tmp_path / "signals_0.json").read_text()) == ["SIGTERM"]
    assert (tmp_path / "train.log").read_text() == "process 0 trains\n"


@pytest.mark.slow
def test_local_trains_with_two_processes_and_goes_on(tmp_path):
    def run(signal_after=None):
        process = subprocess.Popen(
            ["launch/local.sh", "--config=tests/tiny.py:quick", f"--workdir={tmp_path}/run"],
            cwd=ROOT,
            env=os.environ | LOCAL | {"PYTHON": sys.executable},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if signal_after is not None:
            wait_until(lambda: signal_after.exists() and signal_after.stat().st_size > 0, seconds=300)
            process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=600)
        assert process.returncode == 0, output
        return output

    assert "the same command goes on" in run(signal_after=tmp_path / "run" / "metrics.jsonl")
    assert not (tmp_path / "run" / FINISHED_FILE).exists()
    assert "going on from the checkpoint" in run()
    assert (tmp_path / "run" / FINISHED_FILE).exists()
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["step"] == 12


def test_cleaning_up_leaves_trained_models_alone():
    done = subprocess.run(["make", "--dry-run", "clean"], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert "rm -rf build dist" in done.stdout and "runs" not in done.stdout, done.stderr
