#!/usr/bin/env bash
# A TPU VM or pod slice on Google Cloud. Needs: gcloud, logged in, with a project (gcloud config set project …) and
# quota for the TPU; your ssh key in the agent (ssh-add ~/.ssh/google_compute_engine); and for the workdir a Filestore
# share, mounted on all workers at /mnt/shared. A gs:// folder will not do, not through gcsfuse either: the workdir's
# log is appended to, its folders are renamed and its lock must hold across machines.
#
#   export TPU=in100 ZONE=us-west4-a TYPE=v5litepod-16 RUNTIME=v2-alpha-tpuv5-lite SHARE=10.0.0.2:/share
#   launch/tpu_vm.sh create                                        asks for the TPU and waits until it is there
#   launch/tpu_vm.sh setup                                         code (the last commit), packages, share on all workers
#   launch/tpu_vm.sh run --config=… --workdir=/mnt/shared/runs/a   trains on all workers, also after this ends
#   launch/tpu_vm.sh logs                                          follows what the run prints; WORKER=2: another's
#   launch/tpu_vm.sh ssh 'ls /mnt/shared'                          a command on one worker, 0 or WORKER
#   launch/tpu_vm.sh stop                                          saves and ends; `run` again goes on
#   launch/tpu_vm.sh teardown                                      deletes the TPU; the share stays
#
# RUNTIME: v2-alpha-tpuv5-lite (v5e), v2-alpha-tpuv5 (v5p), v2-alpha-tpuv6e (v6e), tpu-ubuntu2204-base (v4). SPOT=1: a
# spot TPU; when it is taken away: teardown, create, setup, and the same run goes on. DRY_RUN=1 prints the commands.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

# on WORKER COMMAND
on() {
    run gcloud compute tpus tpu-vm ssh "$TPU" --zone="$ZONE" --worker="$1" --command="$2"
}

create() {
    need TYPE "the kind of TPU and its number of chips or cores, such as v5litepod-16"
    need RUNTIME "the TPU's software version, such as v2-alpha-tpuv5-lite"
    local request=(gcloud compute tpus queued-resources create "$TPU" --node-id="$TPU" --zone="$ZONE"
        --accelerator-type="$TYPE" --runtime-version="$RUNTIME")
    if [[ "${SPOT:-0}" == 1 ]]; then request+=(--spot); fi
    run "${request[@]}"
    local describe=(gcloud compute tpus queued-resources describe "$TPU" --zone="$ZONE" --format="value(state.state)")
    local state
    if [[ "$DRY_RUN" == 1 ]]; then
        run "${describe[@]}"
        return
    fi
    while true; do
        state=$("${describe[@]}")
        echo "$state"
        case "$state" in
        ACTIVE) return ;;
        FAILED | SUSPEND*) die "the TPU is $state: launch/tpu_vm.sh teardown, then create again." ;;
        esac
        sleep 30
    done
}

setup() {
    need SHARE "the Filestore share for workdirs and data, such as 10.0.0.2:/share"
    local bundle
    bundle=$(mktemp -d)/hamjepa.bundle
    if [[ "$DRY_RUN" == 1 ]]; then bundle=hamjepa.bundle; fi
    run git bundle create --quiet "$bundle" HEAD
    run gcloud compute tpus tpu-vm scp "$bundle" "$TPU:hamjepa.bundle" --zone="$ZONE" --worker=all
    # The TPU images' Python is too old; uv brings its own.
    on all "set -e
rm -rf hamjepa_jax
git clone --quiet --config advice.detachedHead=false hamjepa.bundle hamjepa_jax
python3 -m pip install --quiet --user uv
python3 -m uv venv --quiet --allow-existing --python 3.12 venv
python3 -m uv pip install --quiet --python venv --editable 'hamjepa_jax[tpu,fast]'
sudo apt-get -o DPkg::Lock::Timeout=600 install --yes --quiet nfs-common
sudo mkdir -p /mnt/shared
mountpoint -q /mnt/shared || sudo mount -t nfs $(quoted "$SHARE") /mnt/shared
sudo chmod a+rwx /mnt/shared"
}

train() {
    workdir_of "$@" >/dev/null
    on all "cd hamjepa_jax || exit
nohup ../venv/bin/python -m hamjepa_jax.main --distributed=tpu $(quoted "$@") >>../train.log 2>&1 </dev/null &
echo \$! >../train.pid"
}

need TPU "a name for the TPU"
need ZONE "the zone of the TPU, such as us-west4-a"
case "${1:-}" in
create) create ;;
setup) setup ;;
run) train "${@:2}" ;;
logs) on "${WORKER:-0}" "tail -n 100 -F train.log" ;;
ssh) on "${WORKER:-0}" "${2:-}" ;;
stop) on all "kill -TERM \$(cat train.pid); tail --pid=\$(cat train.pid) -f /dev/null" ;;
teardown) run gcloud compute tpus queued-resources delete "$TPU" --zone="$ZONE" --force --quiet ;;
*) die "${1:-no command}: must be create, setup, run, logs, ssh, stop or teardown." ;;
esac
