#!/usr/bin/env bash
# What is measured on one GPU: the training step against the roofline, then the paper's CIFAR-100 tables. Needs: the
# package with its extra for CUDA, GNU timeout, and CIFAR-100.
#
#   MINUTES=9 launch/measure_gpu.sh cifar100:/data runs/gpu      measures for nine minutes at most
#
# The first argument is the data source, the second the folder of the results; what follows is passed on to
# hamjepa_jax.reproduce. The same command goes on: what is measured is not measured again, a run that was stopped goes on
# from its last step. Results: OUT/step_<config>.json, OUT/<table>/report.html and results.json, logs in OUT/logs.
#
# MINUTES: of this call (none: until all is done). SIDE_BY_SIDE=1 trains the three methods at the same time, each with a
# quarter of the GPU's memory: a small GPU job leaves gaps (compilation, evaluation) that another fills, so all are done
# sooner, but no run's own time counts. SEEDS (0,1,2), TABLES (cifar100_30 cifar100_80), PYTHON, DRY_RUN=1.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

(($# >= 2)) || die "name the data and the folder of the results, as in launch/measure_gpu.sh cifar100:/data runs/gpu."
data=$1 out=$2
shift 2
read -ra tables <<<"${TABLES:-cifar100_30 cifar100_80}"
end=$((SECONDS + ${MINUTES:+60 * }${MINUTES:-1000000000}))
SAVING=30 # seconds that a stopped run has to save

# left: the seconds that are left for work in this call.
left() { echo $((end - SECONDS - SAVING)); }

# until_the_end WORD…: runs a command, and stops it when the time is up; it saves then.
until_the_end() {
    local seconds
    seconds=$(left)
    if ((seconds < 1)); then return 0; fi
    run timeout --preserve-status --signal=TERM --kill-after="$SAVING" "$seconds" "$@"
}

# reproduce RUNNER TABLE ARGUMENT…: trains what the arguments name of a table, by run or until_the_end.
reproduce() {
    local runner=$1 table=$2
    shift 2
    "$runner" "$PYTHON" -m hamjepa_jax.reproduce "--table=$table" "--data=$data" "--out=$out/$table" \
        "--seeds=${SEEDS:-0,1,2}" "--override=checkpoint.every=10 epochs" "$@"
}

# all_tables RUNNER ARGUMENT…: every table, one after another; one that fails does not cost the others their turn.
all_tables() {
    local runner=$1 table
    shift
    for table in "${tables[@]}"; do
        reproduce "$runner" "$table" "$@" || echo "failed: $table" >&2
    done
}

# side_by_side ARGUMENT…: the same, every method in a process of its own, so that none waits for another.
side_by_side() {
    local method log pids=()
    for method in hamjepa mlp sigreg; do
        log="$out/logs/$method.log"
        if [[ "$DRY_RUN" == 1 ]]; then
            all_tables until_the_end "--methods=$method" "$@"
            continue
        fi
        all_tables until_the_end "--methods=$method" "$@" >>"$log" 2>&1 &
        pids[$!]="$method: see $log"
    done
    for pid in "${!pids[@]}"; do
        wait "$pid" || echo "failed: ${pids[pid]}" >&2
    done
}

run mkdir -p "$out/logs"
for config in cifar100 cifar100_mlp cifar100_sigreg; do
    if [[ ! -e "$out/step_$config.json" ]]; then
        until_the_end "$PYTHON" -m hamjepa_jax.benchmark step "--config=configs/$config.py" \
            "--config.data.source=$data" "--json=$out/step_$config.json" || echo "step of $config: not measured" >&2
    fi
done
if [[ "${SIDE_BY_SIDE:-0}" == 1 ]]; then
    XLA_PYTHON_CLIENT_MEM_FRACTION=0.25 side_by_side "$@"
else
    all_tables until_the_end "$@"
fi
# The reports of what is done so far, also when the time is up.
all_tables run --report_only "$@"
