#!/usr/bin/env bash
# One process of a run, for a scheduler that restarts failed jobs (skypilot.yaml, gke_xpk.sh). Needs: the package.
#
#   launch/worker.sh --config=… --workdir=… [--coordinator=… --num_processes=… --process_id=…]
#
# main ends with 0 after SIGTERM made it save, and a scheduler takes 0 for done. This script then ends with 42, unless the
# run is finished (WORKDIR/finished); started again, it goes on. PYTHON, DRY_RUN=1.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

workdir=$(workdir_of "$@")
command=("$PYTHON" -m hamjepa_jax.main "$@")
if [[ "$DRY_RUN" == 1 ]]; then
    run "${command[@]}"
    exit
fi

"${command[@]}" &
pid=$!
signalled=0
trap 'signalled=1; kill -TERM "$pid" 2>/dev/null || true' TERM INT
while kill -0 "$pid" 2>/dev/null; do # `wait $pid` would end with the signal.
    sleep 0.2 &
    wait $! || true
done
status=0
wait "$pid" || status=$?
if ((status == 0 && signalled)) && [[ ! -e "$workdir/finished" ]]; then status=42; fi
exit "$status"
