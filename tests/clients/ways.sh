# The ways frameworks go to device memory, tried one like the other; sourced by ways and ways_mapped after stage.sh. Each is charged
# at every step what the simulator says is held, to the byte, sees its data intact, is refused with out of memory where the budget
# ends, holds nothing after its end, and without the preload goes the same way over the whole card.
# shellcheck shell=sh disable=SC2034,SC2154 # stage.sh sets what is not set here, and reads what is
export CUBUDGET_SLOT=a
holdings=$clients/holdings
export WAY_LOOK="$holdings"
# The card is 2 GiB, so that what is refused without the preload is refused by the card.
simulate=memory=2GiB,release=0
budget_bytes=$gib_bytes

# steps TEXT: the looks as "STEP: held BYTES"; what is charged and the peak left out.
steps() {
    printf '%s\n' "$1" | sed -n 's/^\(.*\): charged [a-z0-9]* \(held [0-9]*\) peak [0-9]*$/\1: \2/p'
}

# way NAME LOOKS PROGRAM WORD...: LOOKS is how many steps it takes.
way() {
    name=$1
    looks=$2
    shift 2
    stage_clear
    said=$(CUBUDGET_BUDGET=1GiB preloaded "$@" 2>"$CUBUDGET_DIR/errors")
    expect "$name: ends well" 0 $? || printf '%s\n' "$said"
    expect "$name: all its steps" "$looks" "$(printf '%s\n' "$said" | grep -c ': charged [0-9]')" || printf '%s\n' "$said"
    expect "$name: charged at each step what is held" '' \
        "$(printf '%s\n' "$said" | sed -n 's/^.*: charged \([0-9]*\) held \([0-9]*\) peak .*/\1 \2/p' | awk '$1 != $2')" ||
        printf '%s\n' "$said"
    expect "$name: the last step holds the context alone" "$context_bytes" \
        "$(printf '%s\n' "$said" | sed -n 's/^all .*: charged [0-9]* held \([0-9]*\) .*/\1/p')"
    expect "$name: nothing is held after its end" 'charged 0 held 0' "$("$holdings" | sed 's/ peak.*//')"
    peak=$("$holdings" | sed 's/.*peak //')
    expect "$name: the peak is within the budget" yes "$([ "${peak:-0}" -gt 0 ] && [ "$peak" -le "$budget_bytes" ] && echo yes)"
    # At "full" what is left is less than the smallest thing it asked for, and not a block less than that.
    expect_words "$name: is refused, by us" "$(cat "$CUBUDGET_DIR/errors")" "'a'" '1 GiB'
    preloaded_said=$said

    stage_clear
    said=$(bare "$@" 2>&1)
    expect "$name, alone: ends well" 0 $? || printf '%s\n' "$said"
    expect "$name, alone: not charged" '' "$(printf '%s\n' "$said" | grep ': charged [0-9]')"
    expect "$name, alone: the same steps hold the same until the budget would end" \
        "$(steps "$preloaded_said" | grep -v '^full')" "$(steps "$said" | grep -v '^full')"
    bare_full=$(steps "$said" | sed -n 's/^full: held //p')
    expect "$name, alone: goes beyond the budget" yes "$([ "${bare_full:-0}" -gt "$budget_bytes" ] && echo yes)"
}
