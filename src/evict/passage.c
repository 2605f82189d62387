/* Off the card and back; passage.h has who calls it. */
#include "config.h"

#include <errno.h>
#include <stdatomic.h>
#include <time.h>
#include "account/evicted.h"
#include "evict/passage.h"
#include "evict/room.h"
#include "platform/futex.h"
#include "platform/gate.h"
#include "platform/log.h"
#include "platform/size.h"

enum {
    QUIET_MS = 200,  /* for the threads inside the driver to come out */
    LINE_MS = 500,   /* in line at a time, between looks at everything else */
    PROOF_MS = 1000, /* for the card to have the room that the books say it has */
    SWEEP_IS_FRESH_MS = 1500,
    PAUSE_FIRST_MS = 50, /* after a proof that failed; doubled after each */
    PAUSE_LAST_MS = 3000,
    PAUSES = 7,
    LATE_ASK_MS = 10000,     /* a clock that was set says nothing of when one was asked */
    END_PATIENCE_MS = 30000, /* measured: a checkpoint of 13 GiB takes 5.6 s */
};

/* Set while the driver is checkpointing or restoring and the books follow; and once the process has begun to end. Whoever sets one looks at
 * the other after. */
static _Atomic(uint32_t) moving, ending;
static _Atomic(bool) is_out, has_arrived;

static uint64_t clock_ns(clockid_t clock)
{
    struct timespec now;
    (void)clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000000000U + (uint64_t)now.tv_nsec;
}

static uint64_t now_ms(void)
{
    return clock_ns(CLOCK_MONOTONIC) / 1000000;
}

/* --- beginning and ending --------------------------------------------------------------------------------------------------- */

const char *passage_begin(struct passage *passage, const struct driver *driver, const struct mechanism *mechanism)
{
    *passage = (struct passage){.driver = driver, .mechanism = mechanism};
    const char *reason = mechanism->able(driver) ? room_prepare() : "this driver cannot checkpoint a process (580 can)";
    if (reason != NULL)
        (void)gate_make_unevictable(reason);
    return reason;
}

void passage_reset(void)
{
    atomic_store(&moving, 0);
    atomic_store(&ending, 0);
    atomic_store(&is_out, false);
    atomic_store(&has_arrived, false);
}

static bool moving_begin(void)
{
    atomic_store(&moving, 1);
    if (atomic_load(&ending) == 0)
        return true;
    atomic_store(&moving, 0);
    futex_wake_all(&moving);
    return false;
}

static void moving_end(void)
{
    atomic_store(&moving, 0);
    if (atomic_load(&ending) != 0)
        futex_wake_all(&moving);
}

bool passage_end(void)
{
    uint64_t deadline_ms = now_ms() + END_PATIENCE_MS;
    atomic_store(&ending, 1);
    while (atomic_load(&moving) != 0 && now_ms() < deadline_ms)
        (void)futex_wait(&moving, 1, 1000);
    return atomic_load(&is_out);
}

bool passage_is_ended(void)
{
    return atomic_load(&ending) != 0;
}

void passage_arrival(void)
{
    atomic_store(&has_arrived, true);
    account_want();
}

/* --- the word ----------------------------------------------------------------------------------------------------------------- */

/* From a state in which others change no more than WANT. */
static void move(struct passage *passage, uint32_t *word, enum ledger_process_state state, bool want)
{
    enum ledger_process_state from = process_word_state(*word);
    while (!ledger_process_move(passage->ledger, passage->row, word, state, want))
        if (process_word_state(*word) != from)
            return; /* somebody wrote what is not his to write */
}

bool passage_follow(struct passage *passage)
{
    struct ledger *ledger, *before = passage->ledger;
    unsigned row;
    if (!account_own(&ledger, &row))
        return false;
    if (ledger == before && row == passage->row)
        return true;
    bool wanted = passage->out && before != NULL && process_word_wants(ledger_process_word(before, passage->row));
    passage->ledger = ledger;
    passage->row = row;
    uint32_t word = ledger_process_word(ledger, row);
    enum ledger_process_state state = process_word_state(word);
    if (state == LEDGER_PROCESS_NO_AGENT || (state == LEDGER_PROCESS_EVICTED) != passage->out)
        move(passage, &word, passage->out ? LEDGER_PROCESS_EVICTED : LEDGER_PROCESS_RUNNING, true);
    if (!passage->out)
        ledger_resident_note(ledger, row, now_ms());
    /* A thread that arrived meanwhile wrote into the old word, or into this one before it said that anything is evicted. */
    else if (wanted || atomic_load(&has_arrived))
        (void)ledger_process_want(ledger, row);
    return true;
}

/* --- telling ------------------------------------------------------------------------------------------------------------------- */

static void tell(const struct passage *passage, enum ledger_event_kind kind, enum ledger_why why, uint32_t word,
                 uint64_t since_ns)
{
    struct ledger_event_record event = {
        .kind = kind,
        .why = why,
        .row = (int)passage->row,
        .other = kind == LEDGER_EVENT_EVICT || kind == LEDGER_EVENT_DECLINE ? process_word_asker(word) : -1,
        .slot = -1,
        .device = -1,
        .bytes = passage->image_bytes,
        .duration_ns = clock_ns(CLOCK_MONOTONIC) - since_ns,
    };
    ledger_event_add(passage->ledger, &event);
}

static void say_moved(const struct passage *passage, const char *what, uint64_t since_ns)
{
    char slot[LEDGER_NAME_BYTES], size[SIZE_TEXT_BYTES];
    account_slot_name(slot);
    log_line(LOG_INFO, "slot '%s' %s: %s in %llu ms", slot, what, size_format(passage->image_bytes, size, sizeof size),
             (unsigned long long)((clock_ns(CLOCK_MONOTONIC) - since_ns) / 1000000));
}

_Noreturn static void lose(struct passage *passage, uint32_t *word, const struct mechanism_result *result,
                           uint64_t since_ns)
{
    char slot[LEDGER_NAME_BYTES];
    const char *name = driver_error_name(passage->driver, result->code);
    account_slot_name(slot);
    move(passage, word, LEDGER_PROCESS_LOST, false);
    tell(passage, LEDGER_EVENT_LOST, LEDGER_WHY_NONE, *word, since_ns);
    log_die(EXIT_LOST_RESTORE,
            "slot '%s': the driver could not bring this process back to the card (%s says %d, %s) and never will; "
            "start it again",
            slot, result->call, result->code, name != NULL ? name : "no name");
}

/* --- out ---------------------------------------------------------------------------------------------------------------------- */

/* What stands in the way, in words that stay. */
struct refusal {
    enum ledger_why why;
    const char *detail; /* NULL: why says it all */
    CUresult code;
};

static const char is_ending[] = "the process is ending";

static void decline(struct passage *passage, uint32_t *word, const struct refusal *refusal, uint64_t since_ns)
{
    char slot[LEDGER_NAME_BYTES];
    uint32_t asked = *word;
    if (process_word_state(asked) == LEDGER_PROCESS_ASKED) {
        if (!ledger_process_move(passage->ledger, passage->row, word, LEDGER_PROCESS_RUNNING, false))
            return; /* nobody asks any more */
    } else
        move(passage, word, LEDGER_PROCESS_RUNNING, false);
    ledger_declined_note(passage->ledger, passage->row, now_ms());
    if (!passage_is_ended())
        account_evictable_note(passage->driver);
    tell(passage, LEDGER_EVENT_DECLINE, refusal->why, asked, since_ns);
    account_slot_name(slot);
    log_line(LOG_INFO, "slot '%s' stays on the card though asked to leave: %s%s%s", slot, ledger_why_text(refusal->why),
             refusal->detail != NULL ? ": " : "", refusal->detail != NULL ? refusal->detail : "");
}

/* Asked again behind the closed gate: until then threads went on allocating, and what they made may be more, or what cannot be moved. */
static bool still_can(struct passage *passage, struct refusal *refusal)
{
    const char *reason = account_unevictable(passage->driver);
    if (reason != NULL)
        *refusal = (struct refusal){.why = LEDGER_WHY_UNEVICTABLE, .detail = reason};
    else if (account_image_take() != 0)
        *refusal = (struct refusal){.why = LEDGER_WHY_HOST};
    else
        return true;
    return false;
}

/* Closes the gate and has the mechanism move. True: it is out, and nobody is inside. */
static bool driver_leave(struct passage *passage, uint32_t *word, struct refusal *refusal, uint64_t since_ns)
{
    int closed = gate_close(QUIET_MS);
    if (closed == -ENOSYS)
        (void)gate_make_unevictable("this kernel has no membarrier (since Linux 4.14)");
    if (closed != 0) {
        *refusal = (struct refusal){.why = LEDGER_WHY_NOT_QUIET};
        if (closed != -ETIMEDOUT)
            *refusal = (struct refusal){.why = LEDGER_WHY_UNEVICTABLE, .detail = gate_unevictable_reason()};
        return false;
    }
    if (!moving_begin()) {
        *refusal = (struct refusal){.why = LEDGER_WHY_UNEVICTABLE, .detail = is_ending};
        gate_open();
        return false;
    }
    if (!still_can(passage, refusal)) {
        moving_end();
        gate_open();
        return false;
    }
    struct mechanism_result result = passage->mechanism->out(passage->driver);
    if (result.end == MECHANISM_LOST)
        lose(passage, word, &result, since_ns);
    if (result.end == MECHANISM_DONE)
        return true;
    if (result.end == MECHANISM_NEVER)
        (void)gate_make_unevictable(result.reason);
    *refusal = (struct refusal){
        .why = result.why, .detail = driver_error_name(passage->driver, result.code), .code = result.code};
    moving_end();
    gate_open();
    return false;
}

/* When it was asked, by CLOCK_MONOTONIC. */
static uint64_t asked_ns(const struct passage *passage)
{
    uint64_t ago_ns = clock_ns(CLOCK_REALTIME) - ledger_process_since_ns(passage->ledger, passage->row);
    return clock_ns(CLOCK_MONOTONIC) - (ago_ns < LATE_ASK_MS * 1000000ULL ? ago_ns : 0);
}

bool passage_sweep(struct passage *passage)
{
    passage->swept_ms = now_ms();
    bool used = gate_sweep();
    if (used)
        ledger_referenced_note(passage->ledger, passage->row, passage->swept_ms);
    return used;
}

/* Who is quiet is looked at seldom, so that the row may say of one who has just begun to work that he idles. Then whoever asked chooses
 * again, knowing better; and if it is this one again, the look is fresh. An operator means what he asks. */
static bool is_chosen_wrongly(struct passage *passage, uint32_t *word)
{
    if (process_word_asker(*word) == LEDGER_ROWS || now_ms() - passage->swept_ms < SWEEP_IS_FRESH_MS ||
        !passage_sweep(passage))
        return false;
    return ledger_process_move(passage->ledger, passage->row, word, LEDGER_PROCESS_RUNNING, false);
}

static void go_out(struct passage *passage, uint32_t *word)
{
    if (is_chosen_wrongly(passage, word))
        return;
    uint64_t since_ns = asked_ns(passage);
    struct refusal refusal = {
        .why = LEDGER_WHY_UNEVICTABLE,
        .detail = passage_is_ended() ? is_ending : account_unevictable(passage->driver),
    };
    passage->image_bytes = 0;
    if (refusal.detail != NULL) {
        decline(passage, word, &refusal, since_ns);
        return;
    }
    if (account_image_take() != 0) {
        refusal = (struct refusal){.why = LEDGER_WHY_HOST};
        decline(passage, word, &refusal, since_ns);
        return;
    }
    if (!ledger_process_move(passage->ledger, passage->row, word, LEDGER_PROCESS_EVICTING, false)) {
        account_image_drop();
        return; /* withdrawn */
    }
    if (!driver_leave(passage, word, &refusal, since_ns)) {
        account_image_drop();
        decline(passage, word, &refusal, since_ns);
        return;
    }
    passage->image_bytes = account_evict();
    passage->out = true;
    passage->evictions++;
    passage->unproven = 0;
    atomic_store(&is_out, true);
    if (passage->on_out != NULL)
        passage->on_out();
    move(passage, word, LEDGER_PROCESS_EVICTED, true);
    moving_end();
    tell(passage, LEDGER_EVENT_EVICT, LEDGER_WHY_NONE, *word, since_ns);
    say_moved(passage, "has left the card", since_ns);
}

/* --- and back ------------------------------------------------------------------------------------------------------------------- */

/* Charged, and the card has not the room: whose memory that is the books do not know, or it is on its way. */
static void no_room(struct passage *passage, uint32_t *word, int result)
{
    char slot[LEDGER_NAME_BYTES];
    account_readmit_undo();
    move(passage, word, LEDGER_PROCESS_EVICTED, true);
    account_slot_name(slot);
    if (passage->unproven++ == 0)
        log_line(result == -EAGAIN ? LOG_INFO : LOG_WARN, "slot '%s' waits to come back: %s", slot,
                 result == -EAGAIN ? ledger_why_text(LEDGER_WHY_NO_ROOM)
                                   : "the helper card-room does not say what the card has free");
}

static uint32_t pause_ms(unsigned unproven)
{
    return unproven < PAUSES ? (uint32_t)PAUSE_FIRST_MS << (unproven - 1) : (uint32_t)PAUSE_LAST_MS;
}

static void come_back(struct passage *passage, uint32_t *word)
{
    if (passage->wanted_ns == 0)
        passage->wanted_ns = clock_ns(CLOCK_MONOTONIC);
    if (passage->unproven >
        0) /* whoever holds the card's room is not in the books: others are not to leave for nothing all the time */
        (void)ledger_process_sleep(passage->ledger, passage->row, *word, pause_ms(passage->unproven));
    if (account_readmit(LINE_MS) != 0)
        return;
    move(passage, word, LEDGER_PROCESS_RESTORING, true);
    int result = room_prove(PROOF_MS);
    if (result != 0) {
        no_room(passage, word, result);
        return;
    }
    if (!moving_begin()) { /* the process ends, and everything of it; its handlers of exit may take their time */
        room_give_up();
        account_readmit_undo();
        move(passage, word, LEDGER_PROCESS_EVICTED, false);
        return;
    }
    struct mechanism_result restored = passage->mechanism->back(passage->driver);
    if (restored.end != MECHANISM_DONE)
        lose(passage, word, &restored, passage->wanted_ns);
    account_restored();
    room_give_up();
    passage->out = false;
    atomic_store(&is_out, false);
    ledger_resident_note(passage->ledger, passage->row, now_ms());
    move(passage, word, LEDGER_PROCESS_RUNNING, false);
    atomic_store(&has_arrived, false);
    tell(passage, LEDGER_EVENT_RESTORE, LEDGER_WHY_NONE, *word, passage->wanted_ns); /* with the gate open it may end */
    gate_open();
    moving_end();
    say_moved(passage, "is back on the card", passage->wanted_ns);
    passage->wanted_ns = 0;
}

static bool asks(const struct passage *passage, uint32_t word)
{
    return (!passage->out && process_word_state(word) == LEDGER_PROCESS_ASKED) ||
           (passage->out && process_word_state(word) == LEDGER_PROCESS_EVICTED && process_word_wants(word) &&
            !passage_is_ended());
}

uint32_t passage_step(struct passage *passage, bool *again)
{
    uint32_t word = ledger_process_word(passage->ledger, passage->row);
    if (asks(passage, word)) {
        if (passage->out)
            come_back(passage, &word);
        else
            go_out(passage, &word);
        word = ledger_process_word(passage->ledger, passage->row);
    }
    *again = asks(passage, word);
    return word;
}
