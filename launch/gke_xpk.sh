#!/usr/bin/env bash
# A TPU slice on Google Kubernetes Engine through xpk. Needs: xpk (pip install xpk), kubectl, Docker and gcloud, logged
# in (gcloud auth login; gcloud auth application-default login), with a project (gcloud config set project …) that has
# quota for the TPU. Workdirs and data lie on a Filestore share that `create` makes and every pod has at /mnt/shared (a
# bucket will not do: see tpu_vm.sh).
#
#   export CLUSTER=hamjepa ZONE=us-west4-a TYPE=v5litepod-16 WORKLOAD=in100
#   launch/gke_xpk.sh create                                        cluster and share
#   launch/gke_xpk.sh run --config=… --workdir=/mnt/shared/runs/a   builds the image of the last commit and trains
#   launch/gke_xpk.sh logs                                          follows what process 0 prints
#   launch/gke_xpk.sh stop                                          saves and ends; `run` again goes on
#   launch/gke_xpk.sh teardown                                      deletes the cluster; the share stays
#
# A pod that is moved or preempted saves within its two minutes, and the run starts again, as it does when a pod is lost:
# up to 20 times in all. SPOT=1: spot capacity. SHARE_GB: size of the share (1024). DRY_RUN=1 prints the commands.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

create() {
    need TYPE "the kind of TPU and its number of chips or cores, such as v5litepod-16"
    local capacity=--on-demand
    if [[ "${SPOT:-0}" == 1 ]]; then capacity=--spot; fi
    run xpk cluster create "${where[@]}" --tpu-type="$TYPE" --num-slices=1 "$capacity" --enable-gcpfilestore-csi-driver
    run xpk storage create shared "${where[@]}" --type=gcpfilestore --vol=share --tier=ZONAL \
        --size="${SHARE_GB:-1024}" --mount-point=/mnt/shared --readonly=false --auto-mount=true
}

train() {
    need TYPE "the kind of TPU and its number of chips or cores, such as v5litepod-16"
    workdir_of "$@" >/dev/null
    local source
    source=$(mktemp -d)/hamjepa_jax
    if [[ "$DRY_RUN" == 1 ]]; then source=hamjepa_jax; fi
    run git clone --quiet . "$source"
    run docker build --quiet --build-arg=EXTRA=tpu --tag=hamjepa_jax:tpu "$source"
    # exec: the pod's SIGTERM goes to the last process of the command. 42: worker.sh was stopped before the end; 1: main
    # has lost another process.
    run xpk workload create "${where[@]}" --workload="$WORKLOAD" --tpu-type="$TYPE" --num-slices=1 \
        --base-docker-image=hamjepa_jax:tpu --script-dir="$source" \
        --max-restarts=20 --restart-on-exit-codes=1,42 --termination-grace-period-seconds=120 \
        --command="exec launch/worker.sh $(quoted "$@")"
}

need CLUSTER "a name for the cluster"
need ZONE "the zone of the cluster, such as us-west4-a"
where=("--cluster=$CLUSTER" "--zone=$ZONE")
case "${1:-}" in
run | logs | stop) need WORKLOAD "a name for the run on the cluster" ;;
esac
case "${1:-}" in
create) create ;;
run) train "${@:2}" ;;
logs) run kubectl logs --follow \
    --selector="jobset.sigs.k8s.io/jobset-name=$WORKLOAD,batch.kubernetes.io/job-completion-index=0" ;;
stop) run xpk workload delete "${where[@]}" --workload="$WORKLOAD" ;;
teardown) run xpk cluster delete "${where[@]}" ;;
*) die "${1:-no command}: must be create, run, logs, stop or teardown." ;;
esac
