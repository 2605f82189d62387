/*
 * Waiting in line for room, and asking others to leave the card. Called by admit.c under the books' lock, which is given up for each
 * sleep; by evicted.c the asking alone. ledger/line.h has whose turn it is, policy.h who is asked.
 *
 * One thread of a process stands in line for it. Another that has to wait looks again every few milliseconds and is not in line:
 * between threads of one process there is no order to keep.
 */
#include "config.h"

#include <stdio.h>
#include "account/policy.h"
#include "account/state.h"
#include "ledger/line.h"
#include "ledger/process.h"
#include "platform/gate.h"
#include "platform/log.h"
#include "platform/size.h"
#include "platform/testpoint.h"

enum {
    SLEEP_MS = 20,         /* a wake can be missed by who is just falling asleep: then this is what it costs */
    STANDING_MS = 10,      /* an agent that runs begins within less */
    REAP_EVERY_MS = 100,   /* who died without a look holds its bytes still */
    AGAIN_WITHIN_MS = 1000 /* frameworks ask two or three times for what they were just refused */
};

/* --- asking ------------------------------------------------------------------------------------------------------------- */

static void ask_tell(struct account *account, const struct wish *wish, unsigned victim)
{
    struct ledger_event_record event = {
        .kind = LEDGER_EVENT_ASK,
        .row = (int)own_leader(account),
        .slot = (int)wish->slot,
        .other = (int)victim,
        .device = (int)wish->device,
        .bytes = wish->missing_bytes,
    };
    ledger_event_add(account->ledger, &event);
    ledger_line_waits_for(account->ledger, own_leader(account), (int)victim);
}

/* Forgets those that have answered. */
static void asked_prune(struct account *account, struct asked *asked)
{
    unsigned kept = 0;
    for (unsigned i = 0; i < asked->count; i++)
        if (ledger_process_word(account->ledger, asked->who[i].row) == asked->who[i].word)
            asked->who[kept++] = asked->who[i];
    asked->count = kept;
}

void victims_spare(struct account *account, struct asked *asked)
{
    uint64_t now = now_ms();
    for (unsigned i = 0; i < asked->count; i++)
        if (ledger_process_withdraw(account->ledger, asked->who[i].row, asked->who[i].word) &&
            now - asked->who[i].at_ms >= POLICY_ASKED_MS) /* it is stopped: the next is to ask others first */
            ledger_declined_note(account->ledger, asked->who[i].row, now);
    asked->count = 0;
}

/* An ask of somebody who died before he woke whom he asked would stand until that one looks by himself. */
static void standing_wake(struct account *account, const struct policy_question *question)
{
    uint32_t word;
    for (unsigned i = 0; i < question->count; i++) {
        const struct ledger_resident *resident = &question->residents[i];
        if (process_word_state(resident->word) == LEDGER_PROCESS_ASKED && resident->state_ms >= STANDING_MS &&
            resident->row == resident->leader)
            (void)ledger_process_ask(account->ledger, resident->leader, own_leader(account), &word);
    }
}

uint64_t victims_ask(struct account *account, const struct wish *wish, struct asked *asked)
{
    uint64_t reserves[LEDGER_SLOTS];
    struct policy_answer answer;
    (void)ledger_reserves_read(account->ledger, wish->slot, reserves);
    struct policy_question question = {
        .residents = account->residents,
        .count = ledger_residents_read(account->ledger, wish->device, account->residents),
        .reserves = reserves,
        .missing_bytes = wish->missing_bytes,
        .now_ms = wish->now_ms,
        .leader = own_leader(account),
        .slot = wish->slot,
        .ticket = wish->ticket,
    };
    policy_choose(&question, &answer);
    asked_prune(account, asked);
    standing_wake(account, &question);
    for (unsigned i = 0; answer.verdict == POLICY_ASK && i < answer.count && asked->count < ASKED_MOST; i++) {
        uint32_t word;
        if (ledger_process_ask(account->ledger, answer.victims[i].row, own_leader(account), &word) != 0)
            continue;
        asked->who[asked->count].row = answer.victims[i].row;
        asked->who[asked->count].at_ms = wish->now_ms;
        asked->who[asked->count++].word = word;
        ask_tell(account, wish, answer.victims[i].row);
    }
    switch (answer.verdict) {
    case POLICY_NOBODY:
        return 0;
    case POLICY_LATER:
        return answer.until_ms;
    default:
        return wish->now_ms + SLEEP_MS;
    }
}

uint64_t room_missing(const struct ledger_room *room, uint64_t bytes)
{
    uint64_t need;
    if (__builtin_add_overflow(room->committed_bytes, room->reserved_bytes, &need) ||
        __builtin_add_overflow(need, bytes, &need))
        return UINT64_MAX;
    return need > room->budget_bytes ? need - room->budget_bytes : 0;
}

/* --- standing in line --------------------------------------------------------------------------------------------------- */

/* One request's wait. */
struct stay {
    uint64_t started_ms, deadline_ms, reaped_ms, until_ms;
    uint64_t ticket;
    uint32_t seen;         /* the count of the device's room, before the last look */
    struct ledger *ledger; /* that gave the ticket */
    bool in_line;
    struct asked asked;
};

/* Whether no waiting can help: not even all others' leaving would make room. */
static bool is_hopeless(const struct account *account, unsigned purse, uint64_t bytes)
{
    uint64_t reserves[LEDGER_SLOTS], need;
    unsigned device = purse_device(purse);
    uint64_t others = ledger_reserves_read(account->ledger, account->row[purse_row(purse)].claim.slot, reserves);
    return __builtin_add_overflow(books_held(account, device).committed_bytes, bytes, &need) ||
           __builtin_add_overflow(need, others, &need) ||
           need > ledger_device_budget(account->ledger, account->device[device].index);
}

/* Why a request is refused without waiting; LEDGER_WHY_NONE: it may wait. */
static enum ledger_why why_at_once(const struct account *account, unsigned purse, const struct ledger_bid *bid,
                                   enum ledger_verdict verdict, uint64_t now)
{
    if (verdict == LEDGER_OVER_LIMIT)
        return LEDGER_WHY_LIMIT;
    if (is_hopeless(account, purse, bid->bytes))
        return LEDGER_WHY_BUDGET;
    if (account_settings.wait_ms == 0)
        return LEDGER_WHY_NO_WAIT;
    if (account->in_line.refused.bytes != 0 && bid->bytes >= account->in_line.refused.bytes &&
        purse == account->in_line.refused.purse && now - account->in_line.refused.at_ms < AGAIN_WITHIN_MS)
        return LEDGER_WHY_AGAIN;
    return LEDGER_WHY_NONE;
}

static void line_enter(struct account *account, unsigned purse, const struct ledger_bid *bid, struct stay *stay)
{
    struct in_line *line = &account->in_line;
    struct ledger_place place = {
        .ticket = stay->ticket,
        .kind = LEDGER_WAITING_ALLOCATION,
        .since_ms = stay->started_ms,
        .deadline_ms = stay->deadline_ms,
    };
    place.wanted_bytes[account->device[purse_device(purse)].index] = bid->bytes;
    ledger_line_enter(account->ledger, own_leader(account), &place);
    stay->ticket = line->ticket = place.ticket;
    line->device = purse_device(purse);
    line->bytes = bid->bytes;
    line->since_ms = stay->started_ms;
    line->deadline_ms = stay->deadline_ms;
}

static void line_leave(struct account *account, struct stay *stay)
{
    victims_spare(account, &stay->asked);
    if (!stay->in_line)
        return;
    ledger_line_leave(account->ledger, own_leader(account));
    account->in_line.taken = stay->in_line = false;
}

/* One look from the line: by the turn of this process, asking for what is missing. */
static enum ledger_verdict line_look(struct account *account, unsigned purse, struct ledger_bid *bid,
                                     struct ledger_room *room, struct stay *stay, uint64_t now)
{
    unsigned device = account->device[purse_device(purse)].index;
    line_enter(account, purse, bid, stay); /* again: an eviction meanwhile has put its own wish there */
    stay->until_ms = now + SLEEP_MS;
    if (!ledger_line_turn(account->ledger, device, own_leader(account), now))
        return LEDGER_IN_LINE;
    bid->line_ticket = stay->ticket;
    enum ledger_verdict verdict = bid_look(account, purse, bid, room);
    bid_drop(account, purse, bid); /* it sleeps now, perhaps for long */
    if (verdict != LEDGER_OVER_BUDGET)
        return verdict;
    struct wish wish = {
        .device = device,
        .slot = account->row[purse_row(purse)].claim.slot,
        .missing_bytes = room_missing(room, bid->bytes),
        .ticket = stay->ticket,
        .now_ms = now,
    };
    uint64_t until = victims_ask(account, &wish, &stay->asked);
    if (until != 0) { /* it makes use of its turn */
        ledger_line_turn_extend(account->ledger, own_leader(account), now);
        if (until < stay->until_ms && until > now)
            stay->until_ms = until;
    }
    return verdict;
}

/* A look of a thread whose process has another in line. */
static enum ledger_verdict stay_look(struct account *account, unsigned purse, struct ledger_bid *bid,
                                     struct ledger_room *room, struct stay *stay, uint64_t now)
{
    if (account->ledger != stay->ledger) { /* moved: a ticket is of the ledger that gave it */
        stay->ledger = account->ledger;
        stay->ticket = stay->in_line ? account->in_line.ticket : LEDGER_NO_TICKET;
        bid->ticket = LEDGER_NO_TICKET;
        stay->asked.count = 0;
    }
    if (!stay->in_line && !account->in_line.taken) {
        account->in_line.taken = stay->in_line = true;
        TESTPOINT("wait.in_line");
    }
    if (stay->in_line)
        return line_look(account, purse, bid, room, stay, now);
    stay->until_ms = now + SLEEP_MS / 4;
    enum ledger_verdict verdict = bid_look(account, purse, bid, room);
    bid_drop(account, purse, bid);
    return verdict;
}

/* Sleeps outside the gate, so that this process can leave the card meanwhile; comes back when it is there again. */
static void stay_sleep(struct account *account, unsigned purse, struct stay *stay, uint64_t now)
{
    struct ledger *ledger = account->ledger;
    unsigned device = account->device[purse_device(purse)].index;
    uint64_t until = stay->until_ms < stay->deadline_ms ? stay->until_ms : stay->deadline_ms;
    bool reap = now - stay->reaped_ms >= REAP_EVERY_MS;
    if (reap)
        stay->reaped_ms = now;
    biased_lock_give(&account->books);
    gate_outside_begin();
    if (reap)
        (void)ledger_reap(ledger);
    TESTPOINT("wait.sleeps");
    ledger_room_sleep(ledger, device, stay->seen, until > now ? (uint32_t)(until - now) : 1);
    gate_outside_end();
    biased_lock_take(&account->books);
}

static void wait_tell(struct account *account, unsigned purse, uint64_t bytes, uint64_t waited_ms)
{
    struct ledger_event_record event = {
        .kind = LEDGER_EVENT_WAIT,
        .row = (int)account->row[purse_row(purse)].claim.row,
        .slot = (int)account->row[purse_row(purse)].claim.slot,
        .other = -1,
        .device = (int)account->device[purse_device(purse)].index,
        .bytes = bytes,
        .duration_ns = waited_ms * 1000000,
    };
    ledger_event_add(account->ledger, &event);
}

static void wait_say(struct account *account, unsigned purse, uint64_t bytes)
{
    char size[SIZE_TEXT_BYTES];
    const char *slot = account->slot[purse_row(purse)];
    biased_lock_give(&account->books);
    log_line(LOG_INFO, "slot '%s' waits for %s of device %u (cubudget dump shows on whom)", slot,
             size_format(bytes, size, sizeof size), purse_device(purse));
    biased_lock_take(&account->books);
}

enum ledger_verdict line_wait(struct account *account, unsigned purse, struct ledger_bid *bid,
                              enum ledger_verdict verdict, struct ledger_room *room, struct wait_end *end)
{
    uint64_t now = now_ms();
    struct stay stay = {
        .started_ms = now,
        .deadline_ms = now + account_settings.wait_ms,
        .reaped_ms = now,
        .ticket = LEDGER_NO_TICKET,
        .ledger = account->ledger,
    };
    end->why = why_at_once(account, purse, bid, verdict, now);
    if (end->why != LEDGER_WHY_NONE)
        return verdict == LEDGER_FITS ? LEDGER_OVER_BUDGET : verdict;
    books_count(account, purse, LEDGER_COUNT_WAIT);
    wait_say(account, purse, bid->bytes);
    for (;;) {
        now = now_ms();
        stay.seen = ledger_room_seen(account->ledger, account->device[purse_device(purse)].index); /* before the look */
        verdict = stay_look(account, purse, bid, room, &stay, now);
        if (verdict == LEDGER_FITS)
            break;
        if (verdict == LEDGER_OVER_LIMIT)
            end->why = LEDGER_WHY_LIMIT;
        else if (now >= stay.deadline_ms)
            end->why = LEDGER_WHY_WAITED;
        else if (is_hopeless(account, purse, bid->bytes)) /* the budget was lowered, a reserve raised */
            end->why = LEDGER_WHY_BUDGET;
        if (end->why != LEDGER_WHY_NONE)
            break;
        stay_sleep(account, purse, &stay, now);
    }
    end->waited_ms = now - stay.started_ms;
    line_leave(account, &stay);
    if (verdict == LEDGER_FITS)
        wait_tell(account, purse, bid->bytes, end->waited_ms);
    else {
        account->in_line.refused.bytes = bid->bytes;
        account->in_line.refused.at_ms = now;
        account->in_line.refused.purse = purse;
    }
    return verdict;
}
