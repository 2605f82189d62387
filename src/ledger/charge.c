/*
 * The charge: publish a bid, look, commit or withdraw; and what follows a charge. Called by src/account under the
 * lock of the process that owns the row, so each cell has one writer and plain atomic stores do.
 *
 * Between processes, why no two grants can pass the budget together. Call "sc" a sequentially consistent access; all of
 * them have one order S that everybody agrees on.
 *   - A bid is published by an sc store, and rows_high and every bid are read by sc loads after it. On x86-64 the store is
 *     an xchg and the loads are plain; on aarch64 they are stlr and ldar, which keep this order too (ldapr, which an
 *     acquire load may become, does not: hence sc and not acquire for the reads of bids).
 *   - Take the grants that are held at some moment, and of them the one, L, whose bid is last in S. Every other, G, was
 *     published before L was, so L's look, which comes after in S, read G's bid or something later in that cell. Either G's
 *     bid still stood, and was counted; or what L read was written after G committed (the bid is cleared, or replaced, by a
 *     release store that follows the store of committed bytes), and L read committed bytes after it: G was counted there.
 *     So L's look counted everything held, and found that it fits. Reading committed bytes BEFORE the bid breaks this: G may
 *     commit between the two reads and be counted in neither.
 *   - A row that is claimed during the look: its owner bids after it raised rows_high, made the tag LIVE and published, so
 *     either our look counts it or its bid follows ours in S and its look counts ours.
 *   - The tag is read last, and only where there are bytes to count. A zero that is read from a cleared cell needs no tag:
 *     cells are cleared only after the tag was FREE, so what they held was free indeed. Bytes of a last owner under the tag
 *     of the next count too much for a moment; bytes of a next owner never go uncounted, by the point above.
 *   - The dead bid no more, so their bids are left out; but one may have committed after we read its bid and bytes, and
 *     died before we read the tag. Its bytes are therefore read again once the tag says that it is dead: they are final.
 *   - Who is stopped between the two stores of a grant would cost its bytes twice, as bid and as committed. So the grant
 *     says first what the committed bytes will be with it (settled_bytes); a look that reads bid, settled, committed, and
 *     finds the last two equal, leaves the bid out. No bid of a later request is left out so: it is published after
 *     settled_bytes was taken back, and whoever sees the bid sees that.
 *   - Counting too much (a bid and its commit both seen; bytes that moved from a row behind us to a row before us) refuses
 *     wrongly, never grants wrongly. So a refusal is believed only when two looks agree.
 */
#include "config.h"

#include <string.h>
#include "ledger/layout.h"
#include "platform/testpoint.h"

enum { PASSES_MAX = 16 }; /* looks in one call before "look again": each costs a few ns a row */

/* --- summing ------------------------------------------------------------------------------------------------------------ */

/* One slot's part of a device, without the bidder's own bid. */
struct slot_sums {
    uint64_t committed, bids, older_bids; /* older: of bidders who come before us */
};

/* What one look saw. Rows of the dead count in `committed` and `dead` and for no slot. */
struct look {
    uint64_t committed, dead, bids, older_bids;
    struct slot_sums own; /* the bidder's slot */
    bool by_slot;         /* slots[] is filled, up to slots_high: somewhere there is a reserve */
    unsigned slots_high;
    struct slot_sums slots[LEDGER_SLOTS];
};

static inline void slot_sums_add(struct slot_sums *sums, uint64_t committed, uint64_t bid, uint64_t older)
{
    sums->committed = bytes_add(sums->committed, committed);
    sums->bids = bytes_add(sums->bids, bid);
    sums->older_bids = bytes_add(sums->older_bids, older);
}

/* Sums a device for somebody who asks. The file's first comment says why in this order. `by_slot` is a constant where this
 * is inlined: sums that nobody wants cost nothing, and the others stay in registers. */
static inline __attribute__((always_inline)) void rows_sum(const struct ledger *ledger, const struct ledger_bid *asker,
                                                           struct look *look, bool by_slot)
{
    struct slot_sums all = {0, 0, 0}, own = {0, 0, 0};
    uint64_t dead = 0;
    unsigned high = layout_rows_high(ledger);
    const struct ledger_cell *cells = layout_cell(ledger, asker->device, 0);
    for (unsigned row = 0; row < high; row++) {
        const struct ledger_cell *cell = &cells[row];
        uint64_t bid = atomic_load(&cell->bid_bytes), older = 0, settled = 0;
        if (bid != 0) {
            uint64_t ticket = atomic_load_explicit(&cell->bid_ticket, memory_order_acquire);
            settled = atomic_load_explicit(&cell->settled_bytes, memory_order_acquire);
            if (row == asker->row)
                bid = 0; /* counted by whoever judges the look */
            else if (ticket < asker->ticket)
                older = bid;
        }
        uint64_t committed = atomic_load_explicit(&cell->committed_bytes, memory_order_acquire);
        if ((bid | committed) == 0)
            continue;
        if (settled != 0 && settled == committed)
            bid = older = 0; /* granted, and in the committed bytes already */
        TESTPOINT("look.row_read");
        uint64_t tag = atomic_load_explicit(layout_tag(ledger, row), memory_order_acquire);
        unsigned slot = tag_slot(tag);
        if (tag_state(tag) == LEDGER_ROW_FREE)
            continue;
        if (__builtin_expect(tag_state(tag) != LEDGER_ROW_LIVE || slot >= LEDGER_SLOTS, 0)) {
            committed = atomic_load_explicit(&cell->committed_bytes, memory_order_relaxed); /* what it died with */
            all.committed = bytes_add(all.committed, committed);
            dead = bytes_add(dead, committed);
            continue;
        }
        slot_sums_add(&all, committed, bid, older);
        if (slot == asker->slot)
            slot_sums_add(&own, committed, bid, older);
        else if (by_slot && slot < look->slots_high)
            slot_sums_add(&look->slots[slot], committed, bid, older);
    }
    look->committed = all.committed;
    look->bids = all.bids;
    look->older_bids = all.older_bids;
    look->dead = dead;
    look->own = own;
}

static void look_take(const struct ledger *ledger, const struct ledger_bid *asker, struct look *look)
{
    look->slots_high = 0;
    look->by_slot = atomic_load(&layout_header(ledger)->has_reserves) != 0;
    if (__builtin_expect(!look->by_slot, 1)) {
        rows_sum(ledger, asker, look, false);
        return;
    }
    look->slots_high = layout_slots_high(ledger);
    memset(look->slots, 0, look->slots_high * sizeof look->slots[0]);
    rows_sum(ledger, asker, look, true);
}

/* What the device would need, by three ways to count others' bids: none, the older ones, all. */
struct need {
    uint64_t committed, older, all;
};

/* The bytes kept for other slots and not committed by them; raises the need by what their reserves pass their use. */
static uint64_t reserves_add(const struct ledger *ledger, unsigned own, const struct look *look, struct need *need)
{
    uint64_t kept = 0;
    for (unsigned i = 0; i < look->slots_high; i++) {
        const struct slot_sums *sums = &look->slots[i];
        uint64_t reserve =
            atomic_load(&layout_slot(ledger, i)->reserve_bytes); /* sc: terms.c raises it by the same order */
        if (i == own || reserve == 0)
            continue;
        kept = bytes_add(kept, bytes_less(reserve, sums->committed));
        need->committed = bytes_add(need->committed, bytes_less(reserve, sums->committed));
        need->older = bytes_add(need->older, bytes_less(reserve, bytes_add(sums->committed, sums->older_bids)));
        need->all = bytes_add(need->all, bytes_less(reserve, bytes_add(sums->committed, sums->bids)));
    }
    return kept;
}

/* What is needed of the device and of the slot's limit for `bytes` more. */
static uint64_t need_of(const struct ledger *ledger, const struct ledger_bid *asker, const struct look *look,
                        struct need *device, struct need *slot)
{
    device->committed = bytes_add(look->committed, asker->bytes);
    device->older = bytes_add(device->committed, look->older_bids);
    device->all = bytes_add(device->committed, look->bids);
    slot->committed = bytes_add(look->own.committed, asker->bytes);
    slot->older = bytes_add(slot->committed, look->own.older_bids);
    slot->all = bytes_add(slot->committed, look->own.bids);
    return look->by_slot ? reserves_add(ledger, asker->slot, look, device) : 0;
}

void ledger_keep(const struct ledger *ledger, unsigned device, unsigned slot, struct ledger_keep *keep)
{
    struct ledger_bid asker = {.device = device, .row = LEDGER_ROWS, .slot = slot, .ticket = LEDGER_NO_TICKET};
    struct look look;
    struct need card, own;
    look_take(ledger, &asker, &look);
    keep->reserved_bytes = need_of(ledger, &asker, &look, &card, &own);
    keep->own_bytes = own.committed;
    keep->own_with_bids = own.all;
    keep->others_bytes = bytes_less(card.committed, own.committed);
    keep->others_with_bids = bytes_less(card.all, own.all);
    keep->held_bytes = bytes_less(look.committed, own.committed);
    keep->budget_bytes = layout_budget(ledger, device);
}

/* --- one look ------------------------------------------------------------------------------------------------------------- */

enum judgement { FITS, OVER_LIMIT, OVER_BUDGET, BEHIND_OLDER, BEHIND_YOUNGER };

static enum judgement look_judge(const struct ledger *ledger, const struct ledger_bid *asker, const struct look *look,
                                 struct ledger_room *room)
{
    struct need device, slot;
    uint64_t reserved = need_of(ledger, asker, look, &device, &slot);
    uint64_t budget = layout_budget(ledger, asker->device);
    uint64_t limit = asker->restores ? LEDGER_NO_LIMIT : layout_limit(ledger, asker->slot);
    if (__builtin_expect(device.all <= budget && slot.all <= limit, 1))
        return FITS;
    if (room != NULL)
        *room = (struct ledger_room){
            .budget_bytes = budget,
            .limit_bytes = limit,
            .committed_bytes = look->committed,
            .slot_bytes = look->own.committed,
            .dead_bytes = look->dead,
            .reserved_bytes = reserved,
            .bid_bytes = look->bids,
        };
    if (slot.committed > limit)
        return OVER_LIMIT;
    if (device.committed > budget)
        return OVER_BUDGET;
    return slot.older > limit || device.older > budget ? BEHIND_OLDER : BEHIND_YOUNGER;
}

/* Bytes first would let a look take them for those of the ticket before. */
static void bid_publish(struct ledger_cell *cell, uint64_t ticket, uint64_t bytes)
{
    atomic_store_explicit(&cell->bid_ticket, ticket, memory_order_relaxed);
    atomic_store_explicit(&cell->settled_bytes, 0, memory_order_relaxed);
    atomic_store(&cell->bid_bytes, bytes); /* sc: before every read of the look that follows; releases the two above */
    TESTPOINT("bid.published");
}

static void bid_clear(struct ledger_cell *cell, struct ledger_bid *bid)
{
    atomic_store_explicit(&cell->bid_bytes, 0, memory_order_release);
    bid->standing = false;
}

/* After the bytes it counts: a reader who finds it unchanged around two equal looks saw what was there at once. */
static void cell_change(struct ledger_cell *cell)
{
    uint64_t changes = atomic_load_explicit(&cell->changes, memory_order_relaxed);
    atomic_store_explicit(&cell->changes, changes + 1, memory_order_release);
}

static uint64_t word_of(const ledger_word *word)
{
    return atomic_load_explicit(word, memory_order_relaxed);
}

/* The grant. In flight before committed, so that a card's free memory is never promised twice; committed before the bid
 * is cleared, so that no look misses both. `device_peak` and `slot_peak`: what the look counted, bids and this one too: they
 * may be committed before us or after, and whoever was last counted all of them, so that no moment's use is missed, and
 * what fitted never passes the budget. */
static inline void bid_commit(struct ledger *ledger, struct ledger_cell *cell, struct ledger_bid *bid,
                              uint64_t device_peak, uint64_t slot_peak)
{
    atomic_store_explicit(&cell->in_flight_bytes, bytes_add(word_of(&cell->in_flight_bytes), bid->bytes),
                          memory_order_release);
    TESTPOINT("charge.in_flight");
    uint64_t committed = bytes_add(word_of(&cell->committed_bytes), bid->bytes);
    atomic_store_explicit(&cell->settled_bytes, committed, memory_order_release);
    atomic_store_explicit(&cell->committed_bytes, committed, memory_order_release);
    TESTPOINT("charge.committed");
    bid_clear(cell, bid);
    TESTPOINT("charge.bid_cleared");
    cell_change(cell);
    word_raise(&layout_device(ledger, bid->device)->peak_bytes, device_peak);
    word_raise(&layout_slot(ledger, bid->slot)->peak_bytes[bid->device], slot_peak);
    pressure_touch(ledger, bid->device);
}

/* The look of nearly every request, reading the same in the same order as rows_sum but keeping less: nobody else bids, no
 * slot has a reserve, and it fits. False: something is otherwise, and nothing is decided. */
static inline bool bid_grant_quickly(struct ledger *ledger, struct ledger_cell *cells, struct ledger_bid *bid)
{
    uint64_t all = bid->bytes, own = bid->bytes;
    bool overflow = false;
    if (atomic_load(&layout_header(ledger)->has_reserves) != 0)
        return false;
    unsigned high = layout_rows_high(ledger);
    for (unsigned row = 0; row < high; row++) {
        uint64_t rival = atomic_load(&cells[row].bid_bytes);
        uint64_t committed = atomic_load_explicit(&cells[row].committed_bytes, memory_order_acquire);
        bool ours = row == bid->row; /* LIVE, and in our slot */
        if (!ours) {
            if ((rival | committed) == 0)
                continue;
            TESTPOINT("look.row_read");
            uint64_t tag = atomic_load_explicit(layout_tag(ledger, row), memory_order_acquire);
            if (tag_state(tag) == LEDGER_ROW_FREE)
                continue;
            if (__builtin_expect(tag_state(tag) != LEDGER_ROW_LIVE, 0)) /* what it died with */
                committed = atomic_load_explicit(&cells[row].committed_bytes, memory_order_relaxed);
            else if (rival != 0)
                return false;
            else
                ours = tag_slot(tag) == bid->slot;
        }
        overflow |= __builtin_add_overflow(all, committed, &all);
        if (ours)
            overflow |= __builtin_add_overflow(own, committed, &own);
    }
    TESTPOINT("bid.looked");
    if (overflow || all > layout_budget(ledger, bid->device) ||
        (own > layout_limit(ledger, bid->slot) && !bid->restores))
        return false;
    bid_commit(ledger, &cells[bid->row], bid, all, own);
    return true;
}

/* Whether a refusal may be believed: the look before saw the same. */
struct agreement {
    enum judgement judgement;
    uint64_t committed, own;
};

static bool agreement_reached(struct agreement *before, enum judgement judgement, const struct look *look)
{
    bool same =
        judgement == before->judgement && look->committed == before->committed && look->own.committed == before->own;
    *before = (struct agreement){judgement, look->committed, look->own.committed};
    return same && (judgement == OVER_LIMIT || judgement == OVER_BUDGET);
}

static enum ledger_verdict refusal_of(enum judgement judgement)
{
    return judgement == OVER_LIMIT ? LEDGER_OVER_LIMIT : LEDGER_OVER_BUDGET;
}

/* Looks without a bid of one's own. Who knows that he has rivals does not push a bid in front of an older one that needs
 * the room: the older would have to look again for nothing, and with many rivals for ever. LEDGER_FITS: worth a bid. */
static enum ledger_verdict bid_peek(const struct ledger *ledger, const struct ledger_bid *bid, struct look *look,
                                    struct ledger_room *room)
{
    struct agreement before = {.judgement = FITS};
    for (unsigned pass = 0; pass < PASSES_MAX; pass++) {
        look_take(ledger, bid, look);
        enum judgement judgement = look_judge(ledger, bid, look, room);
        if (judgement == BEHIND_OLDER)
            return LEDGER_CONTENDED;
        if (judgement == FITS || judgement == BEHIND_YOUNGER)
            return LEDGER_FITS;
        if (agreement_reached(&before, judgement, look))
            return refusal_of(judgement);
    }
    return LEDGER_CONTENDED;
}

/* Looks with the bid published, until something is certain. */
static enum ledger_verdict bid_settle(struct ledger *ledger, struct ledger_bid *bid, struct look *look,
                                      struct ledger_room *room)
{
    struct ledger_cell *cell = layout_cell(ledger, bid->device, bid->row);
    struct agreement before = {.judgement = FITS};
    for (unsigned pass = 0; pass < PASSES_MAX; pass++) {
        look_take(ledger, bid, look);
        TESTPOINT("bid.looked");
        enum judgement judgement = look_judge(ledger, bid, look, room);
        if (judgement == FITS) {
            bid_commit(ledger, cell, bid, bytes_add(bytes_add(look->committed, look->bids), bid->bytes),
                       bytes_add(bytes_add(look->own.committed, look->own.bids), bid->bytes));
            return LEDGER_FITS;
        }
        if (agreement_reached(&before, judgement, look)) {
            bid_clear(cell, bid);
            return refusal_of(judgement);
        }
        if (judgement != BEHIND_OLDER && judgement != BEHIND_YOUNGER)
            continue;
        if (bid->ticket == LEDGER_NO_TICKET) { /* the first rival met: from now on there is an order */
            bid->ticket = atomic_fetch_add(&layout_header(ledger)->next_ticket, 1);
            atomic_store(&cell->bid_ticket, bid->ticket);
            continue;
        }
        if (judgement == BEHIND_OLDER)
            bid_clear(cell, bid);
        else
            bid->standing = true;
        return LEDGER_CONTENDED;
    }
    bid_clear(cell, bid); /* others charge and credit so fast that no two looks agree */
    return LEDGER_CONTENDED;
}

/* Whatever the quick look left undecided. `peek`: nothing is published yet. */
static __attribute__((noinline)) enum ledger_verdict bid_look_fully(struct ledger *ledger, struct ledger_bid *bid,
                                                                    bool peek, struct ledger_room *room)
{
    struct look look;
    if (peek) {
        enum ledger_verdict verdict = bid_peek(ledger, bid, &look, room);
        if (verdict != LEDGER_FITS)
            return verdict;
        bid_publish(layout_cell(ledger, bid->device, bid->row), bid->ticket, bid->bytes);
    }
    return bid_settle(ledger, bid, &look, room);
}

enum ledger_verdict ledger_bid_look(struct ledger *ledger, struct ledger_bid *bid, struct ledger_room *room)
{
    if (bid->device >= LEDGER_DEVICES || bid->row >= LEDGER_ROWS || bid->slot >= LEDGER_SLOTS)
        return LEDGER_OVER_BUDGET;
    if (__builtin_expect(line_stands(ledger, bid->device), 0) && bid->line_ticket != 0 && !bid->standing &&
        ledger_line_is_behind(ledger, bid->device, bid->leader, bid->line_ticket, clock_monotonic_full_ms()))
        return LEDGER_IN_LINE;
    bool has_rivals = bid->ticket != LEDGER_NO_TICKET;
    if (!bid->standing && !has_rivals) {
        struct ledger_cell *cells = layout_cell(ledger, bid->device, 0);
        bid_publish(&cells[bid->row], bid->ticket, bid->bytes);
        if (__builtin_expect(bid_grant_quickly(ledger, cells, bid), 1))
            return LEDGER_FITS;
    }
    return bid_look_fully(ledger, bid, has_rivals && !bid->standing, room);
}

void ledger_bid_withdraw(struct ledger *ledger, struct ledger_bid *bid)
{
    if (bid->standing && bid->device < LEDGER_DEVICES && bid->row < LEDGER_ROWS)
        bid_clear(layout_cell(ledger, bid->device, bid->row), bid);
}

/* --- after the grant ---------------------------------------------------------------------------------------------------- */

uint64_t ledger_done(const struct ledger *ledger, unsigned row)
{
    const struct ledger_row *entry = layout_row(ledger, row);
    return word_of(&entry->counts.allocations) + word_of(&entry->counts.frees);
}

void ledger_row_touch(struct ledger *ledger, unsigned row)
{
    struct ledger_row *entry = layout_row(ledger, row);
    uint64_t done = ledger_done(ledger, row);
    if (done == word_of(&entry->counted))
        return;
    atomic_store_explicit(&entry->counted, done, memory_order_relaxed);
    atomic_store_explicit(&entry->used_ns, clock_realtime_ns(CLOCK_REALTIME_COARSE), memory_order_relaxed);
}

void ledger_settle(struct ledger *ledger, unsigned row, unsigned device, uint64_t charged_bytes, uint64_t actual_bytes)
{
    struct ledger_cell *cell = layout_cell(ledger, device, row);
    if (__builtin_expect(actual_bytes > charged_bytes, 0))
        ledger_commit_unasked(ledger, row, device, actual_bytes - charged_bytes);
    atomic_store_explicit(&cell->in_flight_bytes, bytes_less(word_of(&cell->in_flight_bytes), charged_bytes),
                          memory_order_release);
    if (actual_bytes < charged_bytes)
        atomic_store_explicit(&cell->committed_bytes,
                              bytes_less(word_of(&cell->committed_bytes), charged_bytes - actual_bytes),
                              memory_order_release);
    cell_change(cell);
    if (__builtin_expect(actual_bytes < charged_bytes, 0)) {
        pressure_touch(ledger, device);
        room_touch(ledger, device);
    }
}

void ledger_landed(struct ledger *ledger, unsigned row, unsigned device, uint64_t bytes)
{
    ledger_settle(ledger, row, device, bytes, bytes);
}

void ledger_credit(struct ledger *ledger, unsigned row, unsigned device, uint64_t bytes)
{
    struct ledger_cell *cell = layout_cell(ledger, device, row);
    uint64_t left = bytes_less(word_of(&cell->committed_bytes), bytes);
    if (word_of(&cell->in_flight_bytes) > left) /* a refused call's bytes, credited before they landed */
        atomic_store_explicit(&cell->in_flight_bytes, left, memory_order_release);
    atomic_store_explicit(&cell->committed_bytes, left, memory_order_release);
    cell_change(cell);
    pressure_touch(ledger, device);
    room_touch(ledger, device);
    TESTPOINT("credit.done");
}

void ledger_commit_unasked(struct ledger *ledger, unsigned row, unsigned device, uint64_t bytes)
{
    struct ledger_cell *cell = layout_cell(ledger, device, row);
    struct ledger_bid asker = {
        .device = device,
        .row = row,
        .slot = tag_slot(atomic_load(layout_tag(ledger, row))),
        .ticket = LEDGER_NO_TICKET,
    };
    struct look first, second;
    atomic_store(&cell->committed_bytes, bytes_add(word_of(&cell->committed_bytes), bytes));
    cell_change(cell);
    /* A look can count bytes twice that move meanwhile; the smaller of two is the better guess at a peak. */
    look_take(ledger, &asker, &first);
    look_take(ledger, &asker, &second);
    word_raise(&layout_device(ledger, device)->peak_bytes,
               first.committed < second.committed ? first.committed : second.committed);
    if (asker.slot < LEDGER_SLOTS)
        word_raise(&layout_slot(ledger, asker.slot)->peak_bytes[device],
                   first.own.committed < second.own.committed ? first.own.committed : second.own.committed);
    pressure_touch(ledger, device);
}

void ledger_kind_add(struct ledger *ledger, unsigned row, unsigned device, enum ledger_kind kind, int64_t bytes)
{
    ledger_word *word = &layout_kinds(ledger, device, row)->bytes[kind];
    uint64_t now = word_of(word);
    now = bytes >= 0 ? bytes_add(now, (uint64_t)bytes) : bytes_less(now, 0 - (uint64_t)bytes);
    atomic_store_explicit(word, now, memory_order_relaxed);
}

_Static_assert(offsetof(struct ledger_counts, frees) == 8 * LEDGER_COUNT_FREE &&
                   offsetof(struct ledger_counts, refusals) == 8 * LEDGER_COUNT_REFUSAL &&
                   offsetof(struct ledger_counts, evictions) == 8 * LEDGER_COUNT_EVICTION &&
                   offsetof(struct ledger_counts, restores) == 8 * LEDGER_COUNT_RESTORE &&
                   offsetof(struct ledger_counts, waits) == 8 * LEDGER_COUNT_WAIT,
               "events are numbered as their counts lie");

void ledger_count(struct ledger *ledger, unsigned row, enum ledger_event event)
{
    ledger_word *word = &layout_row(ledger, row)->counts.allocations + event;
    atomic_store_explicit(word, word_of(word) + 1, memory_order_relaxed);
}

/* --- what programs are told --------------------------------------------------------------------------------------------- */

void ledger_view(struct ledger *ledger, unsigned device, unsigned slot, struct ledger_view *view)
{
    struct ledger_bid asker = {.device = device, .row = LEDGER_ROWS, .slot = slot, .ticket = LEDGER_NO_TICKET};
    struct look look;
    struct need card, own;
    look_take(ledger, &asker, &look);
    (void)need_of(ledger, &asker, &look, &card, &own);
    uint64_t budget = layout_budget(ledger, device), limit = layout_limit(ledger, slot);
    uint64_t of_budget = bytes_less(budget, card.committed), of_limit = bytes_less(limit, own.committed);
    view->total_bytes = limit < budget ? limit : budget;
    view->free_bytes = of_limit < of_budget ? of_limit : of_budget;
}

uint64_t ledger_context_cost(struct ledger *ledger, unsigned device)
{
    return atomic_load_explicit(&layout_device(ledger, device)->context_bytes, memory_order_relaxed);
}

void ledger_context_cost_seen(struct ledger *ledger, unsigned device, uint64_t bytes)
{
    ledger_word *word = &layout_device(ledger, device)->context_bytes;
    uint64_t seen = word_of(word);
    while (bytes != 0 && (seen == 0 || bytes < seen) &&
           !atomic_compare_exchange_weak_explicit(word, &seen, bytes, memory_order_relaxed, memory_order_relaxed)) {
    }
}
