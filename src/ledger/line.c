/* Who waits for room, and whose turn it is; line.h has who calls it. Every word is written by its row's owner, but for a turn,
 * which whoever sees the head begins. */
#include "config.h"

#include "ledger/layout.h"
#include "ledger/line.h"
#include "platform/futex.h"
#include "platform/testpoint.h"

static bool is_live(const struct ledger *ledger, unsigned row)
{
    return tag_state(atomic_load_explicit(layout_tag(ledger, row), memory_order_acquire)) == LEDGER_ROW_LIVE;
}

/* Whether a row stands in a device's line; with which ticket. */
static bool row_waits(const struct ledger *ledger, unsigned device, unsigned row, uint64_t *ticket)
{
    uint64_t plus_one = atomic_load_explicit(&layout_row(ledger, row)->wait_ticket, memory_order_acquire);
    if (plus_one == 0 ||
        atomic_load_explicit(&layout_cell(ledger, device, row)->wanted_bytes, memory_order_relaxed) == 0)
        return false;
    *ticket = plus_one - 1;
    return is_live(ledger, row);
}

void ledger_line_enter(struct ledger *ledger, unsigned row, struct ledger_place *place)
{
    struct ledger_row *entry = layout_row(ledger, row);
    if (place->ticket == LEDGER_NO_TICKET)
        place->ticket = atomic_fetch_add(&layout_header(ledger)->next_ticket, 1);
    if (atomic_load_explicit(&entry->wait_ticket, memory_order_relaxed) != place->ticket + 1)
        atomic_store_explicit(&entry->wait_turn_ms, 0, memory_order_relaxed);
    atomic_store_explicit(&entry->wait_since_ms, place->since_ms, memory_order_relaxed);
    atomic_store_explicit(&entry->wait_deadline_ms, place->deadline_ms, memory_order_relaxed);
    atomic_store_explicit(&entry->waiting, place->kind, memory_order_relaxed);
    for (unsigned device = 0; device < LEDGER_DEVICES; device++) {
        ledger_word *wanted = &layout_cell(ledger, device, row)->wanted_bytes;
        if (place->wanted_bytes[device] != 0)
            atomic_store(&layout_device(ledger, device)->waiting, 1);
        if (atomic_load_explicit(wanted, memory_order_relaxed) != place->wanted_bytes[device])
            atomic_store_explicit(wanted, place->wanted_bytes[device], memory_order_relaxed);
    }
    atomic_store(&entry->wait_ticket, place->ticket + 1);
    TESTPOINT("line.entered");
}

/* Where nobody is in line any more, nobody needs to be told. One who is just entering says again that he waits at his next look. */
static void waiting_clear(struct ledger *ledger, unsigned device)
{
    uint64_t ticket;
    for (unsigned row = 0; row < layout_rows_high(ledger); row++)
        if (row_waits(ledger, device, row, &ticket))
            return;
    atomic_store(&layout_device(ledger, device)->waiting, 0);
}

void ledger_line_leave(struct ledger *ledger, unsigned row)
{
    struct ledger_row *entry = layout_row(ledger, row);
    atomic_store(&entry->wait_ticket, 0);
    atomic_store_explicit(&entry->waiting, LEDGER_WAITING_NOT, memory_order_relaxed);
    atomic_store_explicit(&entry->waits_for, 0, memory_order_relaxed);
    for (unsigned device = 0; device < LEDGER_DEVICES; device++) {
        ledger_word *wanted = &layout_cell(ledger, device, row)->wanted_bytes;
        if (atomic_load_explicit(wanted, memory_order_relaxed) == 0)
            continue;
        atomic_store_explicit(wanted, 0, memory_order_relaxed);
        waiting_clear(ledger, device);
        ledger_room_tell(ledger, device); /* the next in line is the head now */
    }
}

bool ledger_line_is_behind(struct ledger *ledger, unsigned device, unsigned row, uint64_t ticket, uint64_t now_ms)
{
    uint64_t oldest = ticket;
    int head = -1;
    if (!line_stands(ledger, device))
        return false;
    for (unsigned other = 0; other < layout_rows_high(ledger); other++) {
        uint64_t its;
        if (other == row || !row_waits(ledger, device, other, &its) || its >= oldest)
            continue;
        uint64_t turn_ms = atomic_load(&layout_row(ledger, other)->wait_turn_ms);
        if (turn_ms != 0 && now_ms > turn_ms)
            continue; /* it had its turn */
        oldest = its;
        head = (int)other;
    }
    if (head < 0)
        return false;
    uint64_t none = 0;
    (void)atomic_compare_exchange_strong(&layout_row(ledger, (unsigned)head)->wait_turn_ms, &none,
                                         now_ms + LEDGER_TURN_MS);
    return true;
}

bool ledger_line_turn(struct ledger *ledger, unsigned device, unsigned row, uint64_t now_ms)
{
    struct ledger_row *entry = layout_row(ledger, row);
    atomic_store_explicit(&layout_device(ledger, device)->waiting, 1, memory_order_relaxed);
    if (ledger_line_is_behind(ledger, device, row, ledger_line_ticket(ledger, row), now_ms))
        return false;
    uint64_t turn_ms = atomic_load(&entry->wait_turn_ms);
    if (turn_ms == 0 || now_ms > turn_ms + LEDGER_TURN_AGAIN_MS - LEDGER_TURN_MS)
        ledger_line_turn_extend(ledger, row, now_ms);
    return true;
}

void ledger_line_turn_extend(struct ledger *ledger, unsigned row, uint64_t now_ms)
{
    atomic_store(&layout_row(ledger, row)->wait_turn_ms, now_ms + LEDGER_TURN_MS);
}

void ledger_line_waits_for(struct ledger *ledger, unsigned row, int other)
{
    atomic_store_explicit(&layout_row(ledger, row)->waits_for, (uint32_t)(other + 1), memory_order_relaxed);
}

uint64_t ledger_line_ticket(const struct ledger *ledger, unsigned row)
{
    uint64_t plus_one = atomic_load_explicit(&layout_row(ledger, row)->wait_ticket, memory_order_acquire);
    return plus_one == 0 ? LEDGER_NO_TICKET : plus_one - 1;
}

/* --- sleeping ----------------------------------------------------------------------------------------------------------- */

uint32_t ledger_room_seen(const struct ledger *ledger, unsigned device)
{
    return atomic_load(&layout_device(ledger, device)->room);
}

void ledger_room_sleep(struct ledger *ledger, unsigned device, uint32_t seen, uint32_t timeout_ms)
{
    (void)futex_wait(&layout_device(ledger, device)->room, seen, timeout_ms);
}

void ledger_room_tell(struct ledger *ledger, unsigned device)
{
    (void)atomic_fetch_add(&layout_device(ledger, device)->room, 1);
    futex_wake_all(&layout_device(ledger, device)->room);
}
