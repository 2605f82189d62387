/*
 * What must hold in a ledger whatever its programs do; see check.h. Judges a snapshot, so that all checks speak of the same
 * moment. Reads what programs write meanwhile: cells are atomic words.
 */
#include "config.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include "cli/check.h"
#include "cli/over.h"
#include "platform/size.h"

/* NULL: no memory, and the list says so. */
static struct check_result *result_add(struct check_list *list)
{
    if (list->count == list->room) {
        unsigned room = list->room == 0 ? 32 : 2 * list->room;
        struct check_result *results = reallocarray(list->results, room, sizeof *results);
        if (results == NULL) {
            list->spent = true;
            return NULL;
        }
        list->results = results;
        list->room = room;
    }
    return &list->results[list->count++];
}

void check_add(struct check_list *list, bool good, const char *format, ...)
{
    struct check_result *result = result_add(list);
    va_list arguments;
    if (result == NULL)
        return;
    va_start(arguments, format);
    result->good = good;
    result->skipped = false;
    (void)vsnprintf(result->text, sizeof result->text, format, arguments);
    va_end(arguments);
}

void check_skip(struct check_list *list, const char *format, ...)
{
    struct check_result *result = result_add(list);
    va_list arguments;
    if (result == NULL)
        return;
    va_start(arguments, format);
    result->good = true;
    result->skipped = true;
    (void)vsnprintf(result->text, sizeof result->text, format, arguments);
    va_end(arguments);
}

static uint64_t sum(uint64_t a, uint64_t b)
{
    uint64_t result;
    return __builtin_add_overflow(a, b, &result) ? UINT64_MAX : result;
}

/* "WHAT A is within WHOSE B", or that it is not, by how much. What was granted under a bound that was lowered since (`before`;
 * 0: it was not) is nobody's fault: nothing is taken away. */
static void bound_check(struct check_list *list, const char *where, const char *what, uint64_t bytes,
                        const char *bound_name, uint64_t bound_bytes, uint64_t before)
{
    char value[SIZE_TEXT_BYTES], bound[SIZE_TEXT_BYTES], was[SIZE_TEXT_BYTES];
    (void)size_format(bytes, value, sizeof value);
    (void)size_format(bound_bytes, bound, sizeof bound);
    if (bytes <= bound_bytes)
        check_add(list, true, "%s: %s, %s, is within %s, %s", where, what, value, bound_name, bound);
    else if (bytes <= before)
        check_add(list, true, "%s: %s, %s, is above %s, %s, which was lowered%s%s", where, what, value, bound_name,
                  bound, before == LEDGER_NO_LIMIT ? "" : " from ",
                  before == LEDGER_NO_LIMIT ? "" : size_format(before, was, sizeof was));
    else
        check_add(list, false, "%s: %s, %s, is %llu bytes above %s, %s", where, what, value,
                  (unsigned long long)(bytes - bound_bytes), bound_name, bound);
}

/* Limits and reserves hold on each device by itself. */
static void slots_check(struct check_list *list, const struct snapshot *snapshot, unsigned at, const char *where)
{
    uint64_t reserves = 0;
    for (unsigned slot = 0; slot < snapshot->slot_count; slot++) {
        const struct snapshot_slot *entry = &snapshot->slots[slot];
        char what[LEDGER_NAME_BYTES + 32];
        reserves = sum(reserves, entry->reserve_bytes);
        if (entry->limit_bytes == LEDGER_NO_LIMIT)
            continue;
        (void)snprintf(what, sizeof what, "what slot '%s' holds", entry->name);
        bound_check(list, where, what, over_slot_held(snapshot, slot, at), "its limit", entry->limit_bytes,
                    entry->limit_before);
    }
    if (reserves != 0)
        bound_check(list, where, "what slots have reserved", reserves, "the budget", snapshot->devices[at].budget_bytes,
                    0);
}

/* Bytes and bids are some process's: a sum that no process explains is damage, or somebody dead who still asks. */
static void processes_check(struct check_list *list, const struct snapshot *snapshot, unsigned at, const char *where)
{
    const struct snapshot_device *device = &snapshot->devices[at];
    uint64_t held = 0, bids = 0, all = sum(device->used_bytes, device->dead_bytes);
    for (unsigned i = 0; i < snapshot->process_count; i++) {
        const struct snapshot_process *process = &snapshot->processes[i];
        if (process->device != (int)at)
            continue;
        held = sum(held, process->used_bytes);
        bids = sum(bids, process->bid_bytes);
    }
    check_add(list, held == all, "%s: %llu bytes are charged, and processes hold %llu of them", where,
              (unsigned long long)all, (unsigned long long)held);
    check_add(list, bids == device->bid_bytes,
              "%s: %llu bytes are asked for, and living processes ask for %llu of them", where,
              (unsigned long long)device->bid_bytes, (unsigned long long)bids);
}

/* The one look at the bytes themselves: a snapshot shows no more in flight than is charged, whatever is written there. */
static void flight_check(struct check_list *list, const struct ledger *ledger, const struct snapshot *snapshot,
                         unsigned at, const char *where)
{
    unsigned device = snapshot->devices[at].index, wrong = 0;
    const struct ledger_cell *cells =
        (const struct ledger_cell *)(const void *)((const char *)ledger->file.bytes + LEDGER_OFFSET_CELLS) +
        (size_t)device * LEDGER_ROWS;
    for (unsigned i = 0; i < snapshot->process_count; i++) {
        const struct snapshot_process *process = &snapshot->processes[i];
        uint64_t in_flight = cells[process->row].in_flight_bytes, committed = cells[process->row].committed_bytes;
        if (process->device != (int)at || in_flight <= committed)
            continue;
        check_add(list, false, "%s: process %u has %llu bytes in flight and only %llu charged", where, process->pid,
                  (unsigned long long)in_flight, (unsigned long long)committed);
        wrong++;
    }
    if (wrong == 0)
        check_add(list, true, "%s: nothing is in flight that is not charged", where);
}

void check_snapshot(struct check_list *list, const struct ledger *ledger, const struct snapshot *snapshot)
{
    for (unsigned at = 0; at < snapshot->device_count; at++) {
        const struct snapshot_device *device = &snapshot->devices[at];
        char where[32];
        (void)snprintf(where, sizeof where, "device %u", device->index);
        bound_check(list, where, "what is charged", sum(device->used_bytes, device->dead_bytes), "the budget",
                    device->budget_bytes, device->budget_before);
        bound_check(list, where, "the peak", device->peak_bytes, "the budget", device->budget_bytes,
                    device->budget_before);
        slots_check(list, snapshot, at, where);
        processes_check(list, snapshot, at, where);
        flight_check(list, ledger, snapshot, at, where);
    }
}
