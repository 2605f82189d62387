# shellcheck shell=sh
# For script tests that run preloaded programs on the simulator, which source it after cli_stage.sh: the stage's copy of the command
# gets the real library and simulator, and programs (tests/integration/client) are spoken to line by line.
: "${abs_top_builddir:?}" "${tree:?}" "${stage:?}"
status=0
case $("$tree/cubudget" version) in
*'with simulator'*) ;;
*)
    echo 'skipped: this build is without the simulator'
    exit 77
    ;;
esac
if [ -n "${SANITIZER_CFLAGS-}" ]; then
    echo 'skipped: a sanitized library needs its runtime first in every program'
    exit 77
fi
cp "$abs_top_builddir/.libs/libcubudget.so" "$tree/.libs/"
cp "$abs_top_builddir/src/sim/.libs/libcuda.so.1" "$abs_top_builddir/src/sim/.libs/libnvidia-ml.so.1" "$tree/src/sim/.libs/"
cp "$abs_top_builddir/card-room" "$tree/card-room"
cp "$abs_top_builddir/tests/integration/client" "$stage/client"
live_pids=
live_end() {
    # shellcheck disable=SC2086 # a list of process ids
    [ -z "$live_pids" ] || kill -9 $live_pids 2>/dev/null || true
    rm -rf "$stage"
}
trap live_end EXIT

# live_start NUMBER COMMAND...: starts a program whose input is our descriptor NUMBER (3, 5, 7) and whose output NUMBER + 1. What it
# says of itself is in $stage/NUMBER.err. Sets $live_pid.
live_start() {
    number=$1
    shift
    rm -f "$stage/$number.in" "$stage/$number.out"
    mkfifo "$stage/$number.in" "$stage/$number.out"
    eval "exec $number<>'$stage/$number.in' $((number + 1))<>'$stage/$number.out'"
    "$@" <"$stage/$number.in" >"$stage/$number.out" 2>"$stage/$number.err" &
    live_pid=$!
    live_pids="$live_pids $live_pid"
}

# live_ask NUMBER LINE ANSWER: says a line to it and expects that answer within a minute.
live_ask() {
    eval "printf '%s\\n' \"\$2\" >&$1"
    same "$2" "$(eval "timeout 60 head -n 1 <&$(($1 + 1))")" "$3"
}

# live_await TEXT COMMAND...: until the command's output holds the text, for a minute at most.
live_await() {
    text=$1
    shift
    tries=0
    until "$@" 2>/dev/null | grep -qF -e "$text"; do
        tries=$((tries + 1))
        if [ $tries -gt 600 ]; then
            fail "$* never says '$text'"
            return
        fi
        sleep 0.1
    done
    pass
}
