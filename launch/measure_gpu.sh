#!/usr/bin/env bash
# What is measured on one GPU: the training step against the roofline, then the paper's CIFAR-100 tables. Needs: the
# package with its extra for CUDA, GNU timeout, and CIFAR-100.
#
#   MINUTES=9 launch/measure_gpu.sh cifar100:/data runs/gpu      measures for nine minutes at most
#
# The first argument is the data source, the second the folder of the results; what follows is passed on to
# hamjepa_jax.reproduce. The same command goes on: what is measured is not measured again, a run that was stopped goes on
# from its last step. Results: OUT/step_<config>.json, OUT/<table>/report.html and results.json, logs in OUT/logs.
# It ends with 1 if something failed, with 0 if all is done, the time is up, or Ctrl-C was pressed (not side by side).
#
# MINUTES: of this call (none: until all is done). SIDE_BY_SIDE=1 trains the three methods at the same time, each with a
# quarter of the GPU's memory: a small GPU job leaves gaps (compilation, evaluation) that another fills, so all are done
# sooner, but no run's own time counts. SAVING (30): seconds that a stopped run has to save. SEEDS (0,1,2), TABLES
# (cifar100_30 cifar100_80), PYTHON, DRY_RUN=1.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

(($# >= 2)) || die "name the data and the folder of the results, as in launch/measure_gpu.sh cifar100:/data runs/gpu."
data=$1 out=$2
shift 2
read -ra tables <<<"${TABLES:-cifar100_30 cifar100_80}"
minutes=${MINUTES:-1000000}
[[ "$minutes" =~ ^[1-9][0-9]{0,6}$ ]] || die "MINUTES=$minutes: give a whole number from 1, as in MINUTES=9."
end=$((SECONDS + 60 * minutes))
SAVING=${SAVING:-30}
failed=0
with_ctrl_c=()
if [[ "${SIDE_BY_SIDE:-0}" != 1 ]]; then # Ctrl-C reaches the run, which saves; then the time is up.
    with_ctrl_c=(--foreground)
    trap 'end=$SECONDS' INT
fi

# left: the seconds that are left for work in this call.
left() { echo $((end - SECONDS - SAVING)); }

# until_the_end WORD…: runs a command, and stops it when the time is up; it saves then.
until_the_end() {
    local seconds
    seconds=$(left)
    if ((seconds < 1)); then return 0; fi
    run timeout "${with_ctrl_c[@]}" --preserve-status --signal=TERM --kill-after="$SAVING" "$seconds" "$@"
}

# reproduce RUNNER TABLE ARGUMENT…: trains what the arguments name of a table, by run or until_the_end.
reproduce() {
    local runner=$1 table=$2
    shift 2
    "$runner" "$PYTHON" -m hamjepa_jax.reproduce "--table=$table" "--data=$data" "--out=$out/$table" \
        "--seeds=${SEEDS:-0,1,2}" "--override=checkpoint.every=10 epochs" "$@"
}

# stopped WHAT: succeeds if the time is up: what ended was stopped. If not, it failed, and this says so.
stopped() {
    if (($(left) < 1)); then return 0; fi
    echo "failed: $1" >&2
    return 1
}

# all_tables ARGUMENT…: every table, one after another; one that fails does not cost the others their turn.
all_tables() {
    local table status=0
    for table in "${tables[@]}"; do
        reproduce until_the_end "$table" "$@" || stopped "$table" || status=1
    done
    return "$status"
}

# side_by_side ARGUMENT…: the same, every method in a process of its own, so that none waits for another.
side_by_side() {
    local method log status=0 pids=()
    for method in hamjepa mlp sigreg; do
        log="$out/logs/$method.log"
        if [[ "$DRY_RUN" == 1 ]]; then
            all_tables "--methods=$method" "$@"
            continue
        fi
        all_tables "--methods=$method" "$@" >>"$log" 2>&1 &
        pids[$!]="$method: see $log"
    done
    for pid in "${!pids[@]}"; do
        wait "$pid" || stopped "${pids[pid]}" || status=1
    done
    return "$status"
}

# reports ARGUMENT…: the reports of what is done so far, also when the time is up.
reports() {
    local table
    for table in "${tables[@]}"; do
        if [[ "$DRY_RUN" == 1 ]] || compgen -G "$out/$table/runs/*/metrics.json" >/dev/null; then
            reproduce run "$table" --report_only "$@" || failed=1
        fi
    done
}

run mkdir -p "$out/logs"
for config in cifar100 cifar100_mlp cifar100_sigreg; do
    if [[ ! -e "$out/step_$config.json" ]]; then
        until_the_end "$PYTHON" -m hamjepa_jax.benchmark step "--config=$config" "--config.data.source=$data" \
            "--json=$out/step_$config.json" || stopped "step of $config" || failed=1
    fi
done
if [[ "${SIDE_BY_SIDE:-0}" == 1 ]]; then
    XLA_PYTHON_CLIENT_MEM_FRACTION=0.25 side_by_side "$@" || failed=1
else
    all_tables "$@" || failed=1
fi
reports "$@"
if (($(left) < 1)); then echo "The time is up; the same command goes on."; fi
exit "$failed"
