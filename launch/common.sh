# shellcheck shell=bash
# Functions of all launchers. A launcher takes its settings from environment variables and passes its arguments on to
# hamjepa_jax.main. With DRY_RUN=1 it prints its commands, ready to be pasted into a shell, and runs nothing.

PYTHON=${PYTHON:-python}
DRY_RUN=${DRY_RUN:-0}

# die MESSAGE: ends the launcher, as main does for a user's mistake.
die() {
    echo "error: $1" >&2
    exit 2
}

# need NAME MEANING: NAME must be set.
need() {
    [[ -n "${!1:-}" ]] || die "$1 is not set: it is $2; put $1=… before the command."
}

# workdir_of ARGUMENT…: the run's folder, as main finds it.
workdir_of() {
    local workdir=""
    while (($#)); do
        case "$1" in
        --workdir=*) workdir=${1#--workdir=} ;;
        --workdir) workdir=${2:-} ;;
        esac
        shift
    done
    [[ -n "$workdir" ]] || die "--workdir is missing: name the folder of the run, as in --workdir=runs/first."
    echo "$workdir"
}

# quoted WORD…: one line that a shell reads as these words.
quoted() {
    local word line="" escaped="'\\''"
    for word in "$@"; do
        [[ "$word" =~ ^[A-Za-z0-9_./:=@%+,-]+$ ]] || word=\'${word//\'/"$escaped"}\'
        line+="${line:+ }$word"
    done
    echo "$line"
}

# run WORD…: runs or prints the command.
run() {
    if [[ "$DRY_RUN" == 1 ]]; then quoted "$@"; else "$@"; fi
}
