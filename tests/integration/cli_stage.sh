# shellcheck shell=sh
# For the script tests of the command, which source it: a directory of their own with a copy of the command in a build tree
# that has stand-ins for the preloaded library and the simulator (so that what is tested is the command alone, and programs
# run without a GPU), and what they all ask.
: "${abs_top_builddir:?}" "${CC:?}"
passed=0 failed=0
stage=$(mktemp -d /dev/shm/cubudget-cli-XXXXXX)
trap 'rm -rf "$stage"' EXIT
trap 'exit 130' HUP INT TERM
tree=$stage/tree
ledgers=$stage/ledgers
mkdir -p "$tree/.libs" "$tree/src/sim/.libs"
cp "$abs_top_builddir/cubudget" "$tree/cubudget"
$CC -shared -nostdlib -o "$tree/.libs/libcubudget.so" -x c /dev/null
cp "$tree/.libs/libcubudget.so" "$tree/src/sim/.libs/libcuda.so.1"
for variable in $(env | sed -n 's/^\(CUBUDGET_[A-Z_]*\)=.*/\1/p'); do unset "$variable"; done
unset LD_PRELOAD LD_LIBRARY_PATH NO_COLOR || true
export CUBUDGET_DIR="$ledgers"
export XDG_CONFIG_HOME="$stage/none" # no configuration of the user's
# In a sanitized build the stand-in is loaded before the sanitizer into the command's own children; it intercepts nothing.
export ASAN_OPTIONS="${ASAN_OPTIONS:+$ASAN_OPTIONS:}verify_asan_link_order=0"

pass() { passed=$((passed + 1)); }
fail() {
    failed=$((failed + 1))
    echo "FAIL: $*"
}

# cubudget ARGUMENT...: runs it, its output in $stage/out and $stage/err, and sets $status. Never hangs.
cubudget() {
    status=0
    timeout 60 "$tree/cubudget" "$@" >"$stage/out" 2>"$stage/err" </dev/null || status=$?
}

# refused STATUS TEXT ARGUMENT...: it ends so, says one line that holds TEXT, and nothing on standard output.
refused() {
    wanted=$1 text=$2
    shift 2
    cubudget "$@"
    if [ "$status" -ne "$wanted" ]; then
        fail "cubudget $*: status $status, not $wanted: $(cat "$stage/err")"
    elif [ "$(wc -l <"$stage/err")" -ne 1 ] || ! grep -q '^cubudget: ' "$stage/err"; then
        fail "cubudget $*: not one line: $(cat "$stage/err")"
    elif ! grep -qF -e "$text" "$stage/err"; then
        fail "cubudget $*: does not say '$text': $(cat "$stage/err")"
    elif [ -s "$stage/out" ]; then
        fail "cubudget $*: writes to standard output: $(cat "$stage/out")"
    else
        pass
    fi
}

# good ARGUMENT...: it ends with 0.
good() {
    cubudget "$@"
    if [ "$status" -eq 0 ]; then pass; else fail "cubudget $*: status $status: $(cat "$stage/err")"; fi
}

# says TEXT / silent_about TEXT: standard output of the last one holds it, or does not.
says() { if grep -qF -e "$1" "$stage/out"; then pass; else fail "does not say '$1': $(cat "$stage/out")"; fi; }
silent_about() { if grep -qF -e "$1" "$stage/out"; then fail "says '$1': $(cat "$stage/out")"; else pass; fi; }

# same NAME A B
same() { if [ "$2" = "$3" ]; then pass; else fail "$1: '$2' is not '$3'"; fi; }

finish() {
    echo "$passed passed, $failed failed"
    [ "$failed" -eq 0 ]
}
