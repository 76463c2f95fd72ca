#!/usr/bin/env bash
# Several processes on this machine. Needs: the package installed, bash 4.4, and for GPUs nvidia-smi.
#
#   launch/local.sh --config=configs/cifar100.py --workdir=runs/a                 one process for each GPU
#   CUDA_VISIBLE_DEVICES=2,3 launch/local.sh --config=… --workdir=…               for each of these GPUs
#   PROCESSES=2 DEVICES=4 launch/local.sh --config=… --workdir=…                  CPU processes of 4 devices each
#
# PORT: where the other processes find process 0 (random). GRACE: seconds that the others have to end by themselves after
# one has failed (10). PYTHON, DRY_RUN=1.
#
# Process 0 writes here, process I to WORKDIR/logs/process_I.log. SIGTERM and Ctrl-C are passed on: all save once and
# end, and the same command goes on. The exit status is that of the first process that failed.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

workdir=$(workdir_of "$@")
if [[ -n "${DEVICES:-}" ]]; then
    need PROCESSES "the number of CPU processes"
    xla_flags="${XLA_FLAGS:+$XLA_FLAGS }--xla_force_host_platform_device_count=$DEVICES"
else
    listed=${CUDA_VISIBLE_DEVICES:-$(nvidia-smi --query-gpu=index --format=csv,noheader 2>/dev/null | paste -sd,)} || true
    IFS=, read -ra gpus <<<"$listed"
    ((${#gpus[@]})) || die "no GPU found: for CPU processes put PROCESSES=2 DEVICES=4 before the command."
    PROCESSES=${PROCESSES:-${#gpus[@]}}
    ((PROCESSES <= ${#gpus[@]})) || die "PROCESSES=$PROCESSES: there are ${#gpus[@]} GPUs here, one for each process."
fi
coordinator=127.0.0.1:${PORT:-$((20000 + RANDOM % 10000))}

# start I WORD…: process I in a process group of its own, so that Ctrl-C reaches it once, through this script.
start() {
    local log="$workdir/logs/process_$1.log" i=$1
    shift
    if [[ "$DRY_RUN" == 1 ]]; then
        if ((i == 0)); then echo "$(quoted "$@") &"; else echo "$(quoted "$@") >>$(quoted "$log") 2>&1 &"; fi
        return
    fi
    mkdir -p "$workdir/logs"
    if ((i == 0)); then "$@" </dev/null & else "$@" </dev/null >>"$log" 2>&1 & fi
    pids[i]=$!
}

send() {
    local pid
    for pid in "${pids[@]}"; do kill -s "$1" -- "$2$pid" 2>/dev/null || true; done
}

pids=()
set -m
trap 'send TERM ""' TERM HUP
trap 'send INT ""' INT
trap 'send KILL -' EXIT # Nothing outlives this script, data-loading processes included.
for ((i = 0; i < PROCESSES; i++)); do
    if [[ -n "${DEVICES:-}" ]]; then
        # Threads for every device's collectives: with as few as devices, collectives can wait for each other for ever.
        place=(JAX_PLATFORMS=cpu "XLA_FLAGS=$xla_flags" "PJRT_NPROC=${PJRT_NPROC:-$((8 * DEVICES))}")
    else
        place=("CUDA_VISIBLE_DEVICES=${gpus[i]}")
    fi
    start "$i" env "${place[@]}" "$PYTHON" -m hamjepa_jax.main "$@" \
        "--coordinator=$coordinator" "--num_processes=$PROCESSES" "--process_id=$i"
done

failed=0
while ((${#pids[@]})); do
    for i in "${!pids[@]}"; do
        kill -0 "${pids[i]}" 2>/dev/null && continue
        status=0
        wait "${pids[i]}" 2>/dev/null || status=$?
        unset "pids[i]"
        if ((status && !failed)); then
            failed=$status
            deadline=$((SECONDS + ${GRACE:-10}))
            echo "process $i failed with status $status; ending the others (messages: here and in $workdir/logs)" >&2
        fi
    done
    if ((failed && SECONDS >= deadline)); then send KILL -; fi
    sleep 0.2 &
    wait $! || true
done
exit "$failed"
