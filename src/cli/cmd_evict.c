/*
 * cubudget evict: asks the processes of a slot to leave the card, as somebody who needs their room would.
 */
#include "config.h"

#include "cli/command.h"
#include "cli/moving.h"
#include "platform/size.h"

enum {
    SILENCE_MS = 500, /* how long after an answer its event may come */
    AGAIN_MS = 50,    /* and after the end of an ask that was joined, which may be no answer */
};

static void ask_note(struct ledger *ledger, const struct moving *moving)
{
    struct ledger_event_record event = {.kind = LEDGER_EVENT_ASK,
                                        .row = -1,
                                        .other = (int)moving->row,
                                        .slot = -1,
                                        .device = -1,
                                        .bytes = moving->used_bytes,
                                        .why = LEDGER_WHY_OPERATOR};
    ledger_event_add(ledger, &event);
}

/* Asks; where it is not running, what it does says the rest. */
static enum move_state process_ask(struct ledger *ledger, struct moving *moving, bool waits)
{
    char size[SIZE_TEXT_BYTES], reason[LEDGER_REASON_BYTES + 1];
    uint32_t word;
    snapshot_reason(ledger, moving->row, reason);
    if (process_word_state(ledger_process_word(ledger, moving->row)) == LEDGER_PROCESS_RUNNING && reason[0] != '\0')
        return move_end(moving, MOVE_REFUSED, "stays on the card: %s", reason);
    if (ledger_process_ask(ledger, moving->row, LEDGER_ROWS, &word) == 0) {
        moving->asked = word;
        moving->joined = false;
        ask_note(ledger, moving);
        return move_end(moving, MOVE_BEGUN, "was asked to leave the card (%s)",
                        size_format(moving->used_bytes, size, sizeof size));
    }
    switch (process_word_state(word)) {
    case LEDGER_PROCESS_ASKED:
    case LEDGER_PROCESS_EVICTING:
        moving->asked = word; /* by somebody else; the answer is the same */
        moving->joined = true;
        return move_end(moving, MOVE_BEGUN, "is on its way off the card already");
    case LEDGER_PROCESS_EVICTED:
        return move_end(moving, MOVE_DONE, "is off the card already");
    case LEDGER_PROCESS_LOST:
        return move_end(moving, MOVE_REFUSED, "could not be restored and is about to end");
    default: /* it is coming back just now, or was when we looked */
        return move_end(moving, waits ? MOVE_BEGUN : MOVE_REFUSED, "is coming back to the card; ask again, or --wait");
    }
}

/* It runs, or comes back: it left and was wanted, or it stays, and an event says why. Or an ask that was joined is over without an
 * answer, as who made it needs nothing any more or is to choose again: what the operator wants of it is not, so it is asked in his name. */
static enum move_state answer_find(struct ledger *ledger, struct moving *moving, bool runs, uint64_t now_ms)
{
    struct ledger_event_record event;
    char reason[LEDGER_REASON_BYTES + 1];
    if (move_event_find(ledger, moving, LEDGER_EVENT_EVICT, &event))
        return move_end(moving, MOVE_DONE, "left the card, and was wanted back");
    snapshot_reason(ledger, moving->row, reason);
    if (move_event_find(ledger, moving, LEDGER_EVENT_DECLINE, &event) && event.why != LEDGER_WHY_UNEVICTABLE)
        return move_end(moving, MOVE_REFUSED, "stays on the card: %s", ledger_why_text(event.why));
    if (reason[0] != '\0')
        return move_end(moving, MOVE_REFUSED, "stays on the card: %s", reason);
    if (moving->answered_ms == 0)
        moving->answered_ms = now_ms;
    if (moving->joined && runs && now_ms - moving->answered_ms >= AGAIN_MS)
        return process_ask(ledger, moving, true);
    if (now_ms - moving->answered_ms < SILENCE_MS)
        return MOVE_BEGUN;
    return move_end(moving, MOVE_REFUSED, "stays on the card, and does not say why");
}

static enum move_state evict_look(struct ledger *ledger, struct moving *moving, uint64_t now_ms)
{
    struct ledger_event_record event;
    char size[SIZE_TEXT_BYTES];
    if (!snapshot_row_lives(ledger, moving->row, moving->pid))
        return move_end(moving, MOVE_DONE, "has ended");
    uint32_t word = ledger_process_word(ledger, moving->row);
    switch (process_word_state(word)) {
    case LEDGER_PROCESS_EVICTED:
        (void)size_format(moving->used_bytes, size, sizeof size);
        if (move_event_find(ledger, moving, LEDGER_EVENT_EVICT, &event))
            return move_end(moving, MOVE_DONE, "left the card: %s in %.2f s", size, (double)event.duration_ns / 1e9);
        return move_end(moving, MOVE_DONE, "left the card: %s", size);
    case LEDGER_PROCESS_ASKED:
    case LEDGER_PROCESS_EVICTING:
        moving->answered_ms = 0;
        return MOVE_BEGUN;
    case LEDGER_PROCESS_LOST:
        return move_end(moving, MOVE_REFUSED, "could not be restored and is about to end");
    case LEDGER_PROCESS_RUNNING:
        return moving->asked == 0 ? process_ask(ledger, moving, true) : answer_find(ledger, moving, true, now_ms);
    default:
        return moving->asked == 0 ? MOVE_BEGUN : answer_find(ledger, moving, false, now_ms);
    }
}

static void evict_give_up(struct ledger *ledger, struct moving *moving)
{
    if (moving->asked != 0 && !moving->joined && ledger_process_withdraw(ledger, moving->row, moving->asked)) {
        (void)move_end(moving, MOVE_REFUSED, "did not leave the card in time, and is not asked any more");
        return;
    }
    switch (process_word_state(ledger_process_word(ledger, moving->row))) {
    case LEDGER_PROCESS_ASKED:
        (void)move_end(moving, MOVE_REFUSED, "has not left the card yet, and is still asked to by somebody else");
        return;
    case LEDGER_PROCESS_EVICTING:
    case LEDGER_PROCESS_EVICTED: /* since it was looked at last */
        (void)move_end(moving, MOVE_REFUSED, "has not left the card yet, and is on its way");
        return;
    default: /* the ask is over, and not answered; or it is coming back, and could not be asked */
        (void)move_end(moving, MOVE_REFUSED, "did not leave the card in time, and is not asked any more");
    }
}

static int evict_run(int argc, char **argv)
{
    static const struct move evict = {
        .name = "evict",
        .doc = "Asks the processes of SLOT to move off the card, into host memory."
               "\vThey come back when they next use the GPU, or by cubudget restore. One that cannot leave says why.",
        .nothing = "nothing to evict: no program of it has used the GPU yet",
        .begin = process_ask,
        .look = evict_look,
        .give_up = evict_give_up,
    };
    return move_run(&evict, argc, argv);
}

const struct command command_evict = {"evict", "SLOT [--wait]", "move a slot off the card", evict_run};
