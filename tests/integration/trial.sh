# shellcheck shell=sh
# A trial, for the scripts that source this (thirteen, thirteen_numba): runners in slots of one ledger, whose footprints are several
# times its budget, on a simulated machine; started together, awaited, and judged by their own words, by the ledger and by the
# machine. Each runner has its own slot and a seed of its own.
#   SEED=N    everybody's random choices (printed; the times at which processes run are nobody's choice)
#   ROUNDS=N  of each runner
# shellcheck disable=SC1091,SC2154 # stage.sh is sourced, and sets what is not set here
. "${abs_top_srcdir:?}/tests/clients/stage.sh"
tally=$build/tests/integration/tally
seed=${SEED:-$(od -An -N2 -tu2 /dev/urandom | tr -d ' ')}
patience=${PATIENCE:-300} # seconds, until a runner that hangs is ended and the trial has failed
# The simulator backs bytes where they are touched, so that images take next to nothing of the host.
export CUBUDGET_HOST_LIMIT=64GiB
# Longer than the default, so that a slow machine refuses nobody; what hangs is ended by $patience.
export CUBUDGET_WAIT=300s
numbers= # of the runners that were started
echo "SEED=$seed"

# trial_start NUMBER OPTIONS COMMAND...: a runner in the slot "runner NUMBER", OPTIONS being words for `cubudget run`.
trial_start() {
    number=$1 options=$2
    shift 2
    # shellcheck disable=SC2086 # words
    timeout -k 5 "$patience" "$cubudget" run --slot "runner$number" --simulate="$simulate" $options -- "$@" \
        >"$CUBUDGET_DIR/said.$number" 2>"$CUBUDGET_DIR/error.$number" </dev/null &
    eval "pid_$number=$!"
    started="$started $!"
    numbers="$numbers $number"
}

# Until each either holds its memory or has ended: then $gate is there, and they begin. So all want their memory at the same time.
gate=$CUBUDGET_DIR/gate
trial_open() {
    for number in $numbers; do
        eval "process=\$pid_$number"
        until grep -q holds "$CUBUDGET_DIR/said.$number" || ! kill -0 "$process" 2>/dev/null; do
            sleep 0.05
        done
    done
    echo "  $(cat "$CUBUDGET_DIR"/said.* | grep -c holds) hold their memory"
    : >"$gate"
}

# Awaits all; their statuses, in the order of their numbers, are in $statuses.
trial_await() {
    statuses=
    for number in $numbers; do
        eval "wait \"\$pid_$number\""
        statuses="$statuses $?"
        cat "$CUBUDGET_DIR/said.$number"
        sed "s/^/runner$number: /" "$CUBUDGET_DIR/error.$number"
    done
    started=
    numbers=
}

# count KEY: the first number after it in what the tally said.
count() { sed -n "s/^$1 \([0-9]*\).*/\1/p" "$CUBUDGET_DIR/tally"; }

# least WHAT BOUND NUMBER / most WHAT BOUND NUMBER: one check each.
least() { expect "$1: $3 is at least $2" yes "$([ "${3:-0}" -ge "$2" ] && echo yes)"; }
most() { expect "$1: $3 is at most $2" yes "$([ -n "$3" ] && [ "$3" -le "$2" ] && echo yes)"; }

# The most that anybody is said to hold.
held_most() { "$cubudget" dump --json | tr ',' '\n' | sed -n 's/.*used_bytes": *\([0-9]*\).*/\1/p' | sort -n | tail -n 1; }

# trial_judge BUDGET_BYTES: what must hold however it went, and what happened.
trial_judge() {
    "$tally" >"$CUBUDGET_DIR/tally"
    expect 'the events can be read' 0 $?
    sed 's/^/  /' "$CUBUDGET_DIR/tally"
    expect 'no event is lost' 0 "$(count unread)"
    peak=$("$cubudget" dump --json | tr ',' '\n' | sed -n 's/.*"simulator_peak_bytes": *\([0-9]*\).*/\1/p')
    most 'what the card ever held' "$1" "$peak"
    echo "  the card held $((peak >> 20)) MiB at most, of a budget of $(($1 >> 20)) MiB"
    tries=0 # the bytes of who has just ended are the last
    while left=$(held_most) && [ "$left" != 0 ] && [ $tries -lt 100 ]; do
        tries=$((tries + 1))
        sleep 0.1
    done
    expect 'nothing is held any more, by the ledger or by the machine' 0 "$left"
    checked=$("$cubudget" check 2>&1)
    expect "the command's own check: $checked" 0 $?
}
