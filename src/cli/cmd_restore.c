/*
 * cubudget restore: wants the processes of a slot back on the card, as their own use of the GPU would.
 */
#include "config.h"

#include "cli/command.h"
#include "cli/moving.h"
#include "platform/size.h"

static enum move_state restore_begin(struct ledger *ledger, struct moving *moving, bool waits)
{
    char size[SIZE_TEXT_BYTES];
    (void)waits;
    if (ledger_process_want(ledger, moving->row))
        return move_end(moving, MOVE_BEGUN, "is wanted back on the card (%s)",
                        size_format(moving->evicted_bytes, size, sizeof size));
    if (process_word_state(ledger_process_word(ledger, moving->row)) == LEDGER_PROCESS_LOST)
        return move_end(moving, MOVE_REFUSED, "could not be restored and is about to end");
    return move_end(moving, MOVE_DONE, "is on the card");
}

static enum move_state restore_look(struct ledger *ledger, struct moving *moving, uint64_t now_ms)
{
    struct ledger_event_record event;
    char size[SIZE_TEXT_BYTES];
    (void)now_ms;
    if (!snapshot_row_lives(ledger, moving->row, moving->pid))
        return move_end(moving, MOVE_REFUSED, "has ended");
    enum ledger_process_state state = process_word_state(ledger_process_word(ledger, moving->row));
    if (state == LEDGER_PROCESS_LOST)
        return move_end(moving, MOVE_REFUSED, "could not be restored and is about to end");
    (void)size_format(moving->evicted_bytes, size, sizeof size);
    if (move_event_find(ledger, moving, LEDGER_EVENT_RESTORE, &event)) /* it may have left again since */
        return move_end(moving, MOVE_DONE, "is back on the card: %s after %.2f s", size,
                        (double)event.duration_ns / 1e9);
    if (state == LEDGER_PROCESS_RUNNING || state == LEDGER_PROCESS_ASKED || state == LEDGER_PROCESS_NO_AGENT)
        return move_end(moving, MOVE_DONE, "is back on the card: %s", size);
    return MOVE_BEGUN;
}

static void restore_give_up(struct ledger *ledger, struct moving *moving)
{
    bool moves = process_word_state(ledger_process_word(ledger, moving->row)) == LEDGER_PROCESS_RESTORING;
    (void)move_end(moving, MOVE_REFUSED, "%s",
                   moves ? "is not back yet, and on its way" : "is not back yet: it waits for room");
}

static int restore_run(int argc, char **argv)
{
    static const struct move restore = {
        .name = "restore",
        .doc = "Has the processes of SLOT that were moved off the card come back."
               "\vThey stand in line for their room like anybody who waits, and others are asked to leave for them.",
        .nothing = "nothing to restore: no program of it has used the GPU yet",
        .begin = restore_begin,
        .look = restore_look,
        .give_up = restore_give_up,
    };
    return move_run(&restore, argc, argv);
}

const struct command command_restore = {"restore", "SLOT [--wait]", "bring a slot back to the card", restore_run};
