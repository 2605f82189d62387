/*
 * May a request go to the driver? Called by books.c and contexts.c under the books' lock.
 * What does not fit and could, if others left the card or freed something, waits in line (waiting.c).
 *
 * One look of the ledger's protocol nearly always decides. What does not fit is looked at again after the dead were reaped;
 * where the bytes of the dying would make it fit, it waits until the card has them back (some 200 ms). Where only others'
 * bids are in the way it looks again for a bounded time: a bid that stands still belongs to a stopped process and counts
 * as taken.
 */
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <time.h>
#include "account/state.h"
#include "platform/gate.h"
#include "platform/log.h"
#include "platform/size.h"
#include "platform/testpoint.h"

enum {
    DYING_PATIENCE_MS = 2 * LEDGER_DYING_MS, /* twice what the ledger holds the bytes of the dead back */
    RIVAL_PATIENCE_MS = 250,                 /* a grant takes microseconds: a rival that needs more is stopped */
    REAP_AFTER_MS = 2,                       /* a look at every row's locks costs more than most contention lasts */
    NAP_FIRST_US = 20,
    NAP_LAST_US = 2000,
};

/* One request's waiting. */
struct patience {
    uint64_t started_ms, contended_ms; /* 0: not contended now */
    unsigned nap_us;
    bool reaped, dying; /* dying: at the last reaping there were rows whose bytes come free by themselves */
};

uint64_t now_ms(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static void nap(struct patience *patience)
{
    struct timespec time = {.tv_nsec = (long)patience->nap_us * 1000};
    (void)clock_nanosleep(CLOCK_MONOTONIC, 0, &time, NULL);
    if (patience->nap_us < NAP_LAST_US)
        patience->nap_us *= 2;
}

/* Whether the bytes of the dead are all that is in the way, but for others' bids. */
static bool dead_are_in_the_way(const struct ledger_room *room, uint64_t bytes)
{
    uint64_t others = room->committed_bytes - room->dead_bytes, need;
    if (room->dead_bytes == 0 || room->committed_bytes < room->dead_bytes)
        return false;
    return !__builtin_add_overflow(others, room->reserved_bytes, &need) &&
           !__builtin_add_overflow(need, bytes, &need) && need <= room->budget_bytes;
}

/* Others' bids are in the way. They are gone in microseconds, or their process is stopped; but a dead process's bid, or its
 * bytes beside a bid, count until somebody looks whether it lives, so that is done before a rival is given up on. */
static bool rivals_wait(struct patience *patience, struct ledger *ledger, const struct ledger_room *room, uint64_t now)
{
    if (patience->contended_ms == 0)
        patience->contended_ms = now;
    uint64_t contended = now - patience->contended_ms;
    if (contended >= REAP_AFTER_MS && (!patience->reaped || room->dead_bytes != 0)) {
        patience->reaped = true;
        if (ledger_reap(ledger) > 0 && now - patience->started_ms <= DYING_PATIENCE_MS)
            patience->contended_ms = now; /* what is dying will not be in the way for long */
    }
    if (contended > RIVAL_PATIENCE_MS)
        return false;
    nap(patience);
    return true;
}

/* After a look that did not fit, without the lock: whether to look again. */
static bool patience_wait(struct patience *patience, struct ledger *ledger, enum ledger_verdict verdict,
                          const struct ledger_room *room, uint64_t bytes)
{
    uint64_t now = now_ms();
    if (verdict == LEDGER_CONTENDED)
        return rivals_wait(patience, ledger, room, now);
    patience->contended_ms = 0;
    bool first = !patience->reaped, dying_before = patience->dying;
    patience->reaped = true;
    patience->dying = ledger_reap(ledger) > 0;
    if (first) /* a dead row that nobody looked at counted as alive, in its slot too */
        return true;
    /* Orphaned bytes stay as long as a child lives: only what is dying is worth waiting for, and a look when it came free. */
    if (verdict != LEDGER_OVER_BUDGET || !dead_are_in_the_way(room, bytes) ||
        now - patience->started_ms > DYING_PATIENCE_MS)
        return false;
    if (patience->dying)
        nap(patience);
    return patience->dying || dying_before;
}

/* The first refusal of a process is worth a line to everybody; later ones to who wants to know. */
static void refusal_say(const struct account *account, unsigned purse, uint64_t bytes, enum ledger_verdict verdict,
                        const struct ledger_room *room, const struct wait_end *end)
{
    static _Atomic(bool) said;
    const char *slot = account->slot[purse_row(purse)];
    unsigned device = purse_device(purse);
    char asked[SIZE_TEXT_BYTES], used[SIZE_TEXT_BYTES], bound[SIZE_TEXT_BYTES], waited[48] = "";
    enum log_level level = atomic_exchange_explicit(&said, true, memory_order_relaxed) ? LOG_INFO : LOG_WARN;
    (void)size_format(bytes, asked, sizeof asked);
    if (end->waited_ms >= 1000)
        (void)snprintf(waited, sizeof waited, " after waiting for %u s", (unsigned)(end->waited_ms / 1000));
    if (verdict == LEDGER_IN_LINE)
        log_line(level,
                 "slot '%s' asked for %s of device %u and is refused%s: others wait for room there and were first "
                 "(cubudget dump shows who)",
                 slot, asked, device, waited);
    else if (verdict == LEDGER_OVER_LIMIT)
        log_line(
            level,
            "slot '%s' asked for %s of device %u and is refused: it holds %s of its limit of %s (cubudget dump shows "
            "by whom; cubudget limit sets another)",
            slot, asked, device, size_format(room->slot_bytes, used, sizeof used),
            size_format(room->limit_bytes, bound, sizeof bound));
    else
        log_line(level,
                 "slot '%s' asked for %s of device %u and is refused%s: %s of the budget of %s are taken or reserved "
                 "(cubudget dump "
                 "shows by whom)",
                 slot, asked, device, waited,
                 size_format(room->committed_bytes + room->reserved_bytes + room->bid_bytes, used, sizeof used),
                 size_format(room->budget_bytes, bound, sizeof bound));
}

enum ledger_verdict bid_look(struct account *account, unsigned purse, struct ledger_bid *bid, struct ledger_room *room)
{
    struct account_row *row = &account->row[purse_row(purse)];
    if (row->bidding && !bid->standing)
        return LEDGER_CONTENDED;
    bid->row = row->claim.row; /* a move to another ledger changes both; it leaves standing bids alone */
    bid->slot = row->claim.slot;
    bid->leader = own_leader(account);
    bid->device = account->device[purse_device(purse)].index;
    enum ledger_verdict verdict = ledger_bid_look(account->ledger, bid, room);
    row->bidding = bid->standing;
    return verdict;
}

void bid_drop(struct account *account, unsigned purse, struct ledger_bid *bid)
{
    if (!bid->standing)
        return;
    ledger_bid_withdraw(account->ledger, bid);
    account->row[purse_row(purse)].bidding = false;
}

/* Looks again for as long as what is in the way goes by itself within moments: others' bids, the bytes of the dying. */
static enum ledger_verdict moments_wait(struct account *account, unsigned purse, struct ledger_bid *bid,
                                        enum ledger_verdict verdict, struct ledger_room *room)
{
    struct patience patience = {.started_ms = now_ms(), .nap_us = NAP_FIRST_US};
    while (verdict != LEDGER_FITS && verdict != LEDGER_IN_LINE) {
        struct ledger *ledger = account->ledger;
        biased_lock_give(&account->books);
        gate_outside_begin(); /* it sleeps: its process can leave the card meanwhile */
        bool again = patience_wait(&patience, ledger, verdict, room, bid->bytes);
        if (gate_is_closed()) { /* who is away for long may not stand in others' way with a bid */
            biased_lock_take(&account->books);
            bid_drop(account, purse, bid);
            biased_lock_give(&account->books);
        }
        gate_outside_end();
        biased_lock_take(&account->books);
        if (!again)
            break;
        if (account->ledger != ledger) /* moved meanwhile: a ticket is of the ledger that gave it */
            bid->ticket = LEDGER_NO_TICKET;
        verdict = bid_look(account, purse, bid, room);
    }
    bid_drop(account, purse, bid);
    return verdict;
}

static void refusal_note(struct account *account, unsigned purse, uint64_t bytes, const struct wait_end *end)
{
    struct ledger_event_record event = {
        .kind = LEDGER_EVENT_REFUSE,
        .row = (int)account->row[purse_row(purse)].claim.row,
        .slot = (int)account->row[purse_row(purse)].claim.slot,
        .other = -1,
        .device = (int)account->device[purse_device(purse)].index,
        .bytes = bytes,
        .duration_ns = end->waited_ms * 1000000,
        .why = end->why,
    };
    books_count(account, purse, LEDGER_COUNT_REFUSAL);
    ledger_event_add(account->ledger, &event);
}

static __attribute__((noinline)) bool admit_slowly(struct account *account, unsigned purse, struct ledger_bid *bid,
                                                   enum ledger_verdict verdict, struct ledger_room *room)
{
    struct wait_end end = {.why = LEDGER_WHY_NONE};
    int before = errno;
    verdict = moments_wait(account, purse, bid, verdict, room);
    if (verdict != LEDGER_FITS)
        verdict = line_wait(account, purse, bid, verdict, room, &end);
    if (verdict != LEDGER_FITS) {
        bid_drop(account, purse, bid);
        refusal_note(account, purse, bid->bytes, &end);
        biased_lock_give(&account->books);
        refusal_say(account, purse, bid->bytes, verdict, room, &end);
        biased_lock_take(&account->books);
    }
    errno = before;
    return verdict == LEDGER_FITS;
}

bool admit(struct account *account, unsigned purse, uint64_t bytes)
{
    struct ledger_bid bid = {.bytes = bytes, .ticket = LEDGER_NO_TICKET, .line_ticket = LEDGER_NO_TICKET};
    struct ledger_room room;
    room.budget_bytes = 0;
    enum ledger_verdict verdict = bid_look(account, purse, &bid, &room);
    if (__builtin_expect(verdict != LEDGER_FITS, 0)) {
        if (room.budget_bytes == 0) /* another thread of this process was bidding: nothing was looked at yet */
            room = (struct ledger_room){0};
        handles_look(account); /* the first thing that admit_slowly does is to look again */
        if (!admit_slowly(account, purse, &bid, verdict, &room))
            return false;
    }
    TESTPOINT("admit.granted");
    return true;
}

enum ledger_verdict admit_look(struct account *account, unsigned purse, uint64_t bytes)
{
    struct ledger_bid bid = {.bytes = bytes, .ticket = LEDGER_NO_TICKET, .line_ticket = LEDGER_NO_TICKET};
    enum ledger_verdict verdict = bid_look(account, purse, &bid, NULL);
    bid_drop(account, purse, &bid);
    return verdict;
}

bool admit_at_once(struct account *account, unsigned purse, uint64_t bytes)
{
    return admit_look(account, purse, bytes) == LEDGER_FITS;
}
