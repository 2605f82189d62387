/*
 * Carrying a process's charges to another ledger, where the file of the old one was removed or replaced under it. Called by
 * src/account under the lock of the process, which owns both rows, so that nothing changes meanwhile. Nothing is asked:
 * the bytes are held already, and two budgets side by side would be worse than one that is full.
 */
#include "config.h"

#include "ledger/layout.h"

struct ledger_held ledger_held(const struct ledger *ledger, unsigned row, unsigned device)
{
    const struct ledger_cell *cell = layout_cell((struct ledger *)(uintptr_t)ledger, device, row);
    return (struct ledger_held){
        .committed_bytes = atomic_load_explicit(&cell->committed_bytes, memory_order_relaxed),
        .in_flight_bytes = atomic_load_explicit(&cell->in_flight_bytes, memory_order_relaxed),
        .changes = atomic_load_explicit(&cell->changes, memory_order_relaxed),
    };
}

uint64_t ledger_committed(const struct ledger *ledger, unsigned row, unsigned device)
{
    return atomic_load_explicit(&layout_cell(ledger, device, row)->committed_bytes, memory_order_relaxed);
}

void ledger_row_copy(const struct ledger *from, unsigned from_row, unsigned from_device, struct ledger *to,
                     unsigned to_row, unsigned to_device)
{
    const struct ledger_kinds *kinds = layout_kinds(from, from_device, from_row);
    uint64_t in_flight =
        atomic_load_explicit(&layout_cell(from, from_device, from_row)->in_flight_bytes, memory_order_relaxed);
    /* In flight before committed, as in a grant (charge.c). */
    atomic_store_explicit(&layout_cell(to, to_device, to_row)->in_flight_bytes, in_flight, memory_order_release);
    ledger_commit_unasked(to, to_row, to_device, ledger_committed(from, from_row, from_device));
    atomic_store_explicit(
        &layout_cell(to, to_device, to_row)->evicted_bytes,
        atomic_load_explicit(&layout_cell(from, from_device, from_row)->evicted_bytes, memory_order_relaxed),
        memory_order_release);
    for (unsigned kind = 0; kind < LEDGER_KIND_COUNT; kind++) {
        uint64_t bytes = atomic_load_explicit(&kinds->bytes[kind], memory_order_relaxed);
        ledger_kind_add(to, to_row, to_device, (enum ledger_kind)kind, (int64_t)bytes);
    }
}

static void count_copy(const ledger_word *from, ledger_word *to)
{
    atomic_store_explicit(to, atomic_load_explicit(from, memory_order_relaxed), memory_order_relaxed);
}

void ledger_counts_copy(const struct ledger *from, unsigned from_row, struct ledger *to, unsigned to_row)
{
    const struct ledger_counts *source = &layout_row(from, from_row)->counts;
    struct ledger_counts *target = &layout_row(to, to_row)->counts;
    count_copy(&source->allocations, &target->allocations);
    count_copy(&source->frees, &target->frees);
    count_copy(&source->refusals, &target->refusals);
    count_copy(&source->evictions, &target->evictions);
    count_copy(&source->restores, &target->restores);
    count_copy(&source->waits, &target->waits);
}
