# The stage of the script tests, sourced by them (tests/clients and tests/integration): a ledger directory and a simulated
# machine of their own, ways to start a program with and without the preload, and a count of what held.
# shellcheck shell=sh
set -u
build=${abs_top_builddir:?is set by make check}
top=${abs_top_srcdir:?is set by make check}
library=$build/.libs/libcubudget.so
simulator=$build/src/sim/.libs
clients=$build/tests/clients
figures=$clients/figures
cubudget=$build/cubudget
passed=0
failed=0
skipped=0

# What the simulator takes for a context, and what the programs of these tests take beside it.
context_bytes=552599552
gib_bytes=1073741824
held_bytes=$((context_bytes + gib_bytes))
# shellcheck disable=SC2034 # these are for the scripts that source this
readonly build top library simulator clients figures cubudget context_bytes gib_bytes held_bytes

for name in $(env | sed -n 's/^\(CUBUDGET_[A-Z_]*\)=.*/\1/p') LD_PRELOAD LD_LIBRARY_PATH CUDA_VISIBLE_DEVICES; do
    unset "$name"
done

if [ -n "${SANITIZER_CFLAGS-}" ]; then
    echo "skipped: programs that were not built with the sanitizer cannot load its run-time library"
    exit 77
fi

# What does not fit is refused at once, which is what most of these tests are about; the others say otherwise.
CUBUDGET_WAIT=0
export CUBUDGET_WAIT

CUBUDGET_DIR=$(mktemp -d /dev/shm/cubudget-test.XXXXXX) || exit 1
export CUBUDGET_DIR
started= # processes to end when the script does, by id
stage_close() {
    for process in $started; do
        kill "$process" 2>/dev/null
    done
    rm -rf "${CUBUDGET_DIR:?}"
}
trap stage_close EXIT
trap 'exit 130' INT TERM

# A new machine and no ledger: no program of the last case runs any more.
stage_clear() {
    rm -rf "${CUBUDGET_DIR:?}"
    mkdir -m 700 "$CUBUDGET_DIR"
}

# preloaded COMMAND...: with the library and the simulated GPU. Options of the machine in $simulate. What hangs is ended after
# two minutes, so that it fails here and not somewhere else.
preloaded() {
    timeout -k 5 120 env LD_PRELOAD="$library" LD_LIBRARY_PATH="$simulator" CUBUDGET_SIMULATE="${simulate-}" "$@"
}

# bare COMMAND...: the simulated GPU alone.
bare() {
    timeout -k 5 120 env LD_LIBRARY_PATH="$simulator" CUBUDGET_SIMULATE="${simulate-}" "$@"
}

# expect WHAT WANTED GOT: one check, by equality.
expect() {
    if [ "$2" = "$3" ]; then
        passed=$((passed + 1))
        return 0
    fi
    failed=$((failed + 1))
    printf 'FAILED %s\n  wanted: %s\n  got:    %s\n' "$1" "$2" "$3"
    return 1
}

# expect_words WHAT TEXT WORD...: one check, that TEXT has each WORD in it.
expect_words() {
    what=$1
    text=$2
    shift 2
    for word in "$@"; do
        case $text in
        *"$word"*) ;;
        *)
            failed=$((failed + 1))
            printf 'FAILED %s\n  wanted a text with: %s\n  got:    %s\n' "$what" "$word" "$text"
            return 1
            ;;
        esac
    done
    passed=$((passed + 1))
}

# skip WHAT REASON: says that a check was left out.
skip() {
    skipped=$((skipped + 1))
    printf 'skipped %s: %s\n' "$1" "$2"
}

# Ends the script with the count.
finish() {
    [ "$skipped" -eq 0 ] || echo "$skipped skipped"
    if [ "$passed" -eq 0 ] && [ "$failed" -eq 0 ]; then
        echo "skipped: nothing here could be tried"
        exit 77
    fi
    echo "$passed passed, $failed failed"
    [ "$failed" -eq 0 ]
    exit
}
