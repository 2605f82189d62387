/* Who holds memory of a device; residents.h has who calls it. */
#include "config.h"

#include "ledger/layout.h"
#include "ledger/process.h"
#include "ledger/residents.h"

static uint64_t value_of(const ledger_word *word)
{
    return atomic_load_explicit(word, memory_order_relaxed);
}

static void resident_fill(const struct ledger *ledger, unsigned slot, uint64_t now_ns, struct ledger_resident *resident)
{
    const struct ledger_row *leader = layout_row(ledger, resident->leader);
    uint64_t since_ns = value_of(&leader->state_since_ns);
    resident->slot = slot;
    resident->priority = atomic_load_explicit(&layout_slot(ledger, slot)->priority, memory_order_relaxed);
    resident->word = ledger_process_word(ledger, resident->leader);
    resident->evictable = atomic_load_explicit(&leader->evictable, memory_order_acquire) == 1;
    resident->resident_ms = value_of(&leader->resident_ms);
    resident->referenced_ms = value_of(&leader->referenced_ms);
    resident->declined_ms = value_of(&leader->declined_ms);
    resident->ticket = ledger_line_ticket(ledger, resident->leader);
    resident->state_ms = now_ns > since_ns ? (now_ns - since_ns) / 1000000 : 0;
}

unsigned ledger_residents_read(const struct ledger *ledger, unsigned device,
                               struct ledger_resident residents[LEDGER_ROWS])
{
    unsigned count = 0;
    uint64_t now_ns = clock_realtime_ns(CLOCK_REALTIME);
    for (unsigned row = 0; row < layout_rows_high(ledger); row++) {
        uint64_t bytes = atomic_load(&layout_cell(ledger, device, row)->committed_bytes);
        if (bytes == 0)
            continue;
        uint64_t tag = atomic_load(layout_tag(ledger, row));
        if (tag_state(tag) != LEDGER_ROW_LIVE || tag_slot(tag) >= LEDGER_SLOTS)
            continue;
        residents[count] = (struct ledger_resident){.row = row, .leader = ledger_leader(ledger, row), .bytes = bytes};
        resident_fill(ledger, tag_slot(tag), now_ns, &residents[count++]);
    }
    return count;
}

uint64_t ledger_reserves_read(const struct ledger *ledger, unsigned except, uint64_t reserves[LEDGER_SLOTS])
{
    uint64_t sum = 0;
    for (unsigned slot = 0; slot < LEDGER_SLOTS; slot++) {
        reserves[slot] = slot < layout_slots_high(ledger) ? atomic_load(&layout_slot(ledger, slot)->reserve_bytes) : 0;
        if (slot != except)
            sum = bytes_add(sum, reserves[slot]);
    }
    return sum;
}

void ledger_view_evictable(struct ledger *ledger, unsigned device, unsigned slot, unsigned leader,
                           struct ledger_view *view)
{
    uint64_t used[LEDGER_SLOTS] = {0}, movable[LEDGER_SLOTS] = {0}, gain = 0;
    ledger_view(ledger, device, slot, view);
    for (unsigned row = 0; row < layout_rows_high(ledger); row++) {
        uint64_t bytes = atomic_load(&layout_cell(ledger, device, row)->committed_bytes);
        uint64_t tag = atomic_load(layout_tag(ledger, row));
        if (bytes == 0 || tag_state(tag) != LEDGER_ROW_LIVE || tag_slot(tag) >= LEDGER_SLOTS)
            continue;
        struct ledger_resident resident = {.row = row, .leader = ledger_leader(ledger, row), .bytes = bytes};
        resident_fill(ledger, tag_slot(tag), 0, &resident);
        used[resident.slot] = bytes_add(used[resident.slot], bytes);
        if (resident.evictable && resident.leader != leader && resident.priority <= 100)
            movable[resident.slot] = bytes_add(movable[resident.slot], bytes);
    }
    for (unsigned at = 0; at < LEDGER_SLOTS; at++) {
        uint64_t kept = at == slot ? 0 : atomic_load(&layout_slot(ledger, at)->reserve_bytes);
        gain = bytes_add(gain, bytes_less(used[at], kept) - bytes_less(bytes_less(used[at], movable[at]), kept));
    }
    uint64_t of_limit = slot < LEDGER_SLOTS ? bytes_less(layout_limit(ledger, slot), used[slot]) : 0;
    view->free_bytes = bytes_add(view->free_bytes, gain);
    if (view->free_bytes > of_limit)
        view->free_bytes = of_limit;
    if (view->free_bytes > view->total_bytes)
        view->free_bytes = view->total_bytes;
}

uint64_t ledger_device_budget(const struct ledger *ledger, unsigned device)
{
    return layout_budget(ledger, device);
}

uint64_t ledger_kind_bytes(const struct ledger *ledger, unsigned row, unsigned device, enum ledger_kind kind)
{
    return value_of(&layout_kinds(ledger, device, row)->bytes[kind]);
}

uint64_t ledger_host_bytes(const struct ledger *ledger, unsigned except_row)
{
    uint64_t sum = 0;
    for (unsigned row = 0; row < layout_rows_high(ledger); row++)
        if (row != except_row && tag_state(atomic_load(layout_tag(ledger, row))) == LEDGER_ROW_LIVE)
            sum = bytes_add(sum, atomic_load(&layout_row(ledger, row)->host_bytes));
    return sum;
}
