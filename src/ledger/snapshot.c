/*
 * A copy of the ledger for people and programs that read. Called by the command and the C API, never on the way of an
 * allocation. It writes nothing but what reaping moves.
 *
 * A device's rows are read until two looks at all of them agree, in bytes and in their counts of changes: then all of it
 * was so at one moment, between the two. Where writers never rest it is taken as the last look found it, and says so
 * (`steady`): such a sum may count bytes twice that moved from a row behind the reader to a row before it.
 */
#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "ledger/layout.h"
#include "ledger/owner.h"
#include "ledger/snapshot.h"
#include "platform/env.h"

enum { LOOKS_MAX = 100, OVERDUE_MS = 10000 };

/* What one row holds of one device, as read. */
struct cell_copy {
    uint64_t tag, committed, in_flight, bid, evicted;
    uint64_t changes_before, changes_after; /* the count of changes, read before and after the rest */
};

struct rows_copy {
    unsigned rows;
    struct cell_copy cells[LEDGER_ROWS];
};

/* --- text that anybody may have written ---------------------------------------------------------------------------------- */

/* Copies up to `bytes` of shared text to `to` (which has one more), as valid UTF-8 without control characters. */
static void text_copy(char *to, const char *from, size_t bytes)
{
    unsigned char copy[LEDGER_NAME_BYTES > LEDGER_COMMAND_BYTES ? LEDGER_NAME_BYTES : LEDGER_COMMAND_BYTES];
    _Static_assert(LEDGER_REASON_BYTES <= sizeof copy, "any text fits");
    memcpy(copy, from, bytes);
    size_t length = strnlen((const char *)copy, bytes);
    for (size_t at = 0; at < length;) {
        size_t step = character_length(copy + at, length - at);
        if (step == 0) {
            copy[at] = '?';
            step = 1;
        }
        at += step;
    }
    memcpy(to, copy, length);
    to[length] = '\0';
}

static void name_copy(char to[LEDGER_NAME_BYTES], const char *from)
{
    text_copy(to, from, LEDGER_NAME_BYTES - 1);
    if (to[0] == '\0') /* claimed, and its claimer died before writing the name */
        memcpy(to, "?", 2);
}

static uint64_t word_of(const ledger_word *word)
{
    return atomic_load_explicit(word, memory_order_relaxed);
}

/* --- rows ------------------------------------------------------------------------------------------------------------------ */

static void cell_copy(const struct ledger *ledger, unsigned device, unsigned row, struct cell_copy *copy)
{
    const struct ledger_cell *cell = layout_cell(ledger, device, row);
    copy->changes_before = atomic_load_explicit(&cell->changes, memory_order_acquire);
    copy->bid = atomic_load(&cell->bid_bytes);
    copy->committed = atomic_load_explicit(&cell->committed_bytes, memory_order_acquire);
    copy->in_flight = atomic_load_explicit(&cell->in_flight_bytes, memory_order_acquire);
    copy->evicted = atomic_load_explicit(&cell->evicted_bytes, memory_order_acquire);
    copy->tag = atomic_load(layout_tag(ledger, row));
    copy->changes_after = atomic_load_explicit(&cell->changes, memory_order_acquire);
    if (copy->in_flight > copy->committed) /* between the two stores of a grant */
        copy->in_flight = copy->committed;
}

/* A change counts itself after its stores. Where the count is the same before the first look and after the second, no
 * change ended between, so at most one was under way, and equal bytes were there all the time: bytes that went and came
 * back would have counted. (The count of the second look read before its bytes would miss just that.) */
static bool cells_are_same(const struct cell_copy *first, const struct cell_copy *second)
{
    return first->tag == second->tag && first->committed == second->committed &&
           first->in_flight == second->in_flight && first->evicted == second->evicted &&
           first->changes_before == second->changes_after; /* bids come and go without being held */
}

/* Reads a device's rows until two looks agree. */
static bool rows_copy(const struct ledger *ledger, unsigned device, struct rows_copy *copy)
{
    copy->rows = layout_rows_high(ledger);
    for (unsigned row = 0; row < copy->rows; row++)
        cell_copy(ledger, device, row, &copy->cells[row]);
    for (unsigned look = 0; look < LOOKS_MAX; look++) {
        bool same = true;
        unsigned rows = layout_rows_high(ledger);
        for (unsigned row = 0; row < rows; row++) {
            struct cell_copy now;
            cell_copy(ledger, device, row, &now);
            same = same && row < copy->rows && cells_are_same(&copy->cells[row], &now);
            copy->cells[row] = now;
        }
        copy->rows = rows;
        if (same)
            return true;
    }
    return false;
}

static bool cell_is_empty(const struct cell_copy *cell)
{
    return (cell->committed | cell->bid | cell->evicted) == 0;
}

/* --- filling ---------------------------------------------------------------------------------------------------------------- */

/* Where the parts of the ledger went in the snapshot: -1 where they did not. */
struct index {
    int slots[LEDGER_SLOTS];
    bool listed[LEDGER_ROWS];
    int devices[LEDGER_DEVICES];
    bool gone[LEDGER_ROWS];  /* LIVE by its locks, and its process is not there any more */
    uint64_t now_ms, now_ns; /* CLOCK_MONOTONIC and CLOCK_REALTIME of one moment */
};

/* A row's tag as it is shown. */
static uint64_t tag_shown(const struct index *index, unsigned row, uint64_t tag)
{
    return index->gone[row] && tag_state(tag) == LEDGER_ROW_LIVE ? tag_move(tag, LEDGER_ROW_ORPHANED, tag_since_ms(tag))
                                                                 : tag;
}

static void gone_find(const struct ledger *ledger, struct index *index)
{
    struct row_owner self;
    owner_read(&self);
    for (unsigned row = 0; row < layout_rows_high(ledger); row++)
        index->gone[row] = tag_state(atomic_load(layout_tag(ledger, row))) == LEDGER_ROW_LIVE &&
                           owner_is_gone(&self, layout_row(ledger, row));
}

static int slot_of(const struct index *index, uint64_t tag)
{
    return tag_slot(tag) < LEDGER_SLOTS ? index->slots[tag_slot(tag)] : -1;
}

static void slot_fill(const struct ledger *ledger, unsigned number, struct snapshot_slot *slot)
{
    const struct ledger_slot *entry = layout_slot(ledger, number);
    name_copy(slot->name, entry->name);
    slot->limit_bytes = layout_limit(ledger, number);
    slot->limit_before = word_of(&entry->limit_before);
    slot->reserve_bytes = word_of(&entry->reserve_bytes);
    slot->priority = atomic_load_explicit(&entry->priority, memory_order_relaxed);
    if (slot->priority > 101)
        slot->priority = 101;
    for (unsigned device = 0; device < LEDGER_DEVICES; device++)
        slot->peak_bytes = bytes_add(slot->peak_bytes, word_of(&entry->peak_bytes[device]));
    slot->allocations = word_of(&entry->counts.allocations);
    slot->frees = word_of(&entry->counts.frees);
    slot->refusals = word_of(&entry->counts.refusals);
    slot->evictions = word_of(&entry->counts.evictions);
    slot->restores = word_of(&entry->counts.restores);
    slot->waits = word_of(&entry->counts.waits);
}

/* Rows keep their counts after they are given back, until they are claimed again: those of all states belong here. */
static void counts_add(const struct ledger *ledger, const struct index *index, struct snapshot *snapshot)
{
    for (unsigned row = 0; row < layout_rows_high(ledger); row++) {
        uint64_t tag = tag_shown(index, row, atomic_load(layout_tag(ledger, row)));
        const struct ledger_counts *counts = &layout_row(ledger, row)->counts;
        int at = slot_of(index, tag);
        if (at < 0)
            continue;
        struct snapshot_slot *slot = &snapshot->slots[at];
        slot->processes += tag_state(tag) == LEDGER_ROW_LIVE;
        slot->allocations += word_of(&counts->allocations);
        slot->frees += word_of(&counts->frees);
        slot->refusals += word_of(&counts->refusals);
        slot->evictions += word_of(&counts->evictions);
        slot->restores += word_of(&counts->restores);
        slot->waits += word_of(&counts->waits);
    }
}

static void device_begin(const struct ledger *ledger, unsigned number, struct snapshot_device *device)
{
    const struct ledger_device *entry = layout_device(ledger, number);
    device->index = number;
    memcpy(device->uuid, entry->uuid, sizeof device->uuid);
    name_copy(device->name, entry->name);
    device->simulated = atomic_load_explicit(&entry->simulated, memory_order_relaxed) != 0;
    device->total_bytes = word_of(&entry->total_bytes);
    device->budget_bytes = layout_budget(ledger, number);
    device->budget_before = word_of(&entry->budget_before);
    device->baseline_bytes = word_of(&entry->baseline_bytes);
    device->peak_bytes = word_of(&entry->peak_bytes);
}

/* The first row of a row's process; the row itself where the one it names is somebody else's. */
static unsigned leader_of(const struct ledger *ledger, unsigned row)
{
    unsigned leader = ledger_leader(ledger, row);
    const struct ledger_row *own = layout_row(ledger, row), *first = layout_row(ledger, leader);
    bool same = atomic_load_explicit(&own->pid, memory_order_relaxed) ==
                    atomic_load_explicit(&first->pid, memory_order_relaxed) &&
                word_of(&own->pid_namespace) == word_of(&first->pid_namespace) &&
                word_of(&own->start_ticks) == word_of(&first->start_ticks);
    return same ? leader : row;
}

/* What of it a process waits for: on the device that is shown where it wants something there, else on the first where it does. */
static void wanted_find(const struct ledger *ledger, const struct index *index, unsigned row, int shown,
                        struct snapshot_wait *wait)
{
    wait->device = -1;
    for (unsigned device = 0; device < LEDGER_DEVICES; device++) {
        uint64_t bytes = word_of(&layout_cell(ledger, device, row)->wanted_bytes);
        if (bytes == 0 || index->devices[device] < 0 || (wait->device >= 0 && index->devices[device] != shown))
            continue;
        wait->device = index->devices[device];
        wait->bytes = bytes;
    }
}

static void wait_fill(const struct ledger *ledger, const struct index *index, unsigned row,
                      struct snapshot_process *process)
{
    const struct ledger_row *entry = layout_row(ledger, row);
    struct snapshot_wait *wait = &process->wait;
    uint64_t since_ms = word_of(&entry->wait_since_ms), deadline_ms = word_of(&entry->wait_deadline_ms);
    uint32_t whom = atomic_load_explicit(&entry->waits_for, memory_order_relaxed);
    wait->for_row = wait->for_slot = wait->device = -1;
    process->stands_in_line = atomic_load_explicit(&entry->wait_ticket, memory_order_acquire) != 0 &&
                              tag_state(atomic_load(layout_tag(ledger, row))) == LEDGER_ROW_LIVE;
    if (!process->stands_in_line || process->row_state != LEDGER_ROW_LIVE)
        return;
    wait->kind = atomic_load_explicit(&entry->waiting, memory_order_relaxed) == LEDGER_WAITING_RESTORE
                     ? LEDGER_WAITING_RESTORE
                     : LEDGER_WAITING_ALLOCATION;
    wait->since_ns = bytes_less(index->now_ns, bytes_less(index->now_ms, since_ms) * 1000000U);
    process->is_overdue = deadline_ms != LEDGER_NO_DEADLINE && index->now_ms > bytes_add(deadline_ms, OVERDUE_MS);
    wanted_find(ledger, index, row, process->device, wait);
    if (whom == 0 || whom > LEDGER_ROWS)
        return;
    wait->for_row = (int)whom - 1;
    wait->for_pid = atomic_load_explicit(&layout_row(ledger, whom - 1)->pid, memory_order_relaxed);
    wait->for_slot = slot_of(index, atomic_load(layout_tag(ledger, whom - 1)));
}

/* What is the process's and not the row's. */
static void leader_fill(const struct ledger *ledger, const struct index *index, struct snapshot_process *process)
{
    const struct ledger_row *entry = layout_row(ledger, process->leader);
    uint32_t word = atomic_load(&entry->process_state);
    process->process_state = process_word_state(word);
    process->wanted = process_word_wants(word);
    process->state_since_ns = word_of(&entry->state_since_ns);
    process->evictable = process->row_state == LEDGER_ROW_LIVE && process->process_state != LEDGER_PROCESS_NO_AGENT &&
                         atomic_load_explicit(&entry->evictable, memory_order_acquire) == 1;
    if (process->row_state != LEDGER_ROW_LIVE)
        memcpy(process->reason, "it has ended", sizeof "it has ended");
    else if (process->process_state == LEDGER_PROCESS_NO_AGENT)
        memcpy(process->reason, "no context yet", sizeof "no context yet");
    else if (!process->evictable)
        text_copy(process->reason, entry->reason, LEDGER_REASON_BYTES);
    process->host_bytes = word_of(&entry->host_bytes);
    wait_fill(ledger, index, process->leader, process);
}

/* A new entry, for a row of slot `slot` on device `device` (index into devices[]; -1: on none). */
static struct snapshot_process *process_add(struct snapshot *snapshot, const struct ledger *ledger,
                                            const struct index *index, unsigned row, uint64_t tag, unsigned slot,
                                            int device)
{
    struct snapshot_process *process = &snapshot->processes[snapshot->process_count++];
    const struct ledger_row *entry = layout_row(ledger, row);
    *process = (struct snapshot_process){
        .pid = atomic_load_explicit(&entry->pid, memory_order_relaxed),
        .start_ticks = word_of(&entry->start_ticks),
        .pid_namespace = word_of(&entry->pid_namespace),
        .row = row,
        .slot = slot,
        .device = device,
        .row_state = tag_state(tag),
        .leader = leader_of(ledger, row),
    };
    text_copy(process->command, entry->command, LEDGER_COMMAND_BYTES);
    leader_fill(ledger, index, process);
    return process;
}

static void row_add(const struct ledger *ledger, struct index *index, struct snapshot *snapshot, unsigned at,
                    unsigned row, const struct cell_copy *cell)
{
    struct snapshot_device *device = &snapshot->devices[at];
    int slot = slot_of(index, cell->tag);
    bool live = tag_state(cell->tag) == LEDGER_ROW_LIVE && tag_slot(cell->tag) < LEDGER_SLOTS;
    uint64_t *held = live ? &device->used_bytes : &device->dead_bytes;
    *held = bytes_add(*held, cell->committed);
    if (live)
        device->bid_bytes = bytes_add(device->bid_bytes, cell->bid);
    if (slot < 0) /* damage: bytes without a slot; they count, and there is nobody to show */
        return;
    if (live) {
        snapshot->slots[slot].used_bytes = bytes_add(snapshot->slots[slot].used_bytes, cell->committed);
        snapshot->slots[slot].evicted_bytes = bytes_add(snapshot->slots[slot].evicted_bytes, cell->evicted);
    }
    if (cell_is_empty(cell))
        return;
    index->listed[row] = true;
    struct snapshot_process *process = process_add(snapshot, ledger, index, row, cell->tag, (unsigned)slot, (int)at);
    process->used_bytes = cell->committed;
    process->in_flight_bytes = cell->in_flight;
    process->bid_bytes = live ? cell->bid : 0;
    process->evicted_bytes = cell->evicted;
    for (unsigned kind = 0; kind < LEDGER_KIND_COUNT; kind++)
        process->by_kind[kind] = word_of(&layout_kinds(ledger, device->index, row)->bytes[kind]);
}

static void device_fill(const struct ledger *ledger, struct index *index, struct snapshot *snapshot, unsigned at,
                        struct rows_copy *rows)
{
    struct snapshot_device *device = &snapshot->devices[at];
    device->steady = rows_copy(ledger, device->index, rows);
    for (unsigned row = 0; row < rows->rows; row++) {
        rows->cells[row].tag = tag_shown(index, row, rows->cells[row].tag);
        if (tag_state(rows->cells[row].tag) != LEDGER_ROW_FREE)
            row_add(ledger, index, snapshot, at, row, &rows->cells[row]);
    }
    device->available_bytes = bytes_less(device->budget_bytes, bytes_add(device->used_bytes, device->dead_bytes));
    device->pressure = pressure_of(device->used_bytes, device->budget_bytes);
}

/* Those who hold nothing anywhere: they are there all the same. */
static void idle_add(const struct ledger *ledger, const struct index *index, struct snapshot *snapshot)
{
    for (unsigned row = 0; row < layout_rows_high(ledger); row++) {
        uint64_t tag = tag_shown(index, row, atomic_load(layout_tag(ledger, row)));
        int slot = slot_of(index, tag);
        if (tag_state(tag) != LEDGER_ROW_FREE && slot >= 0 && !index->listed[row])
            (void)process_add(snapshot, ledger, index, row, tag, (unsigned)slot, -1);
    }
}

static void parts_fill(const struct ledger *ledger, struct index *index, struct snapshot *snapshot)
{
    const struct ledger_header *header = layout_header(ledger);
    name_copy(snapshot->name, header->name);
    snapshot->version = header->abi_version;
    snapshot->budget_bytes = word_of(&header->budget_bytes);
    for (unsigned slot = 0; slot < LEDGER_SLOTS; slot++) {
        index->slots[slot] = -1;
        if (word_of(&layout_slot(ledger, slot)->claim) == 0)
            continue;
        index->slots[slot] = (int)snapshot->slot_count;
        slot_fill(ledger, slot, &snapshot->slots[snapshot->slot_count++]);
    }
    for (unsigned device = 0; device < LEDGER_DEVICES; device++) {
        index->devices[device] = -1;
        if (word_of(&layout_device(ledger, device)->claim) == 0)
            continue;
        index->devices[device] = (int)snapshot->device_count;
        device_begin(ledger, device, &snapshot->devices[snapshot->device_count++]);
    }
    index->now_ms = clock_realtime_ns(CLOCK_MONOTONIC) / 1000000U;
    index->now_ns = clock_realtime_ns(CLOCK_REALTIME);
}

/* What the snapshot is put together in; too large for a stack. */
struct workspace {
    struct index index;
    struct rows_copy rows;
};

int snapshot_take(struct ledger *ledger, struct snapshot *snapshot)
{
    memset(snapshot, 0, sizeof *snapshot);
    (void)ledger_reap(ledger); /* where it cannot ask (the file is gone), the rows are shown as they are */
    struct workspace *work = calloc(1, sizeof *work);
    if (work == NULL)
        return -ENOMEM;
    parts_fill(ledger, &work->index, snapshot);
    gone_find(ledger, &work->index);
    /* Rows may be claimed while we read: room for every one that could be, on each device, and once as idle. */
    size_t most = (size_t)LEDGER_ROWS * (snapshot->device_count + 1U);
    snapshot->processes = calloc(most, sizeof *snapshot->processes);
    if (snapshot->processes == NULL) {
        free(work);
        return -ENOMEM;
    }
    for (unsigned device = 0; device < snapshot->device_count; device++)
        device_fill(ledger, &work->index, snapshot, device, &work->rows);
    idle_add(ledger, &work->index, snapshot);
    counts_add(ledger, &work->index, snapshot);
    free(work);
    if (snapshot->process_count > 0) {
        struct snapshot_process *fitted =
            realloc(snapshot->processes, snapshot->process_count * sizeof *snapshot->processes);
        if (fitted != NULL)
            snapshot->processes = fitted;
    }
    return 0;
}

void snapshot_free(struct snapshot *snapshot)
{
    free(snapshot->processes);
    snapshot->processes = NULL;
    snapshot->process_count = 0;
}

bool snapshot_slot_name(const struct ledger *ledger, unsigned slot, char name[LEDGER_NAME_BYTES])
{
    if (slot >= LEDGER_SLOTS || word_of(&layout_slot(ledger, slot)->claim) == 0)
        return false;
    name_copy(name, layout_slot(ledger, slot)->name);
    return true;
}

bool snapshot_row_owner(const struct ledger *ledger, unsigned row, uint64_t time_ns, uint32_t *pid, unsigned *slot)
{
    if (row >= layout_rows_high(ledger) || word_of(&layout_row(ledger, row)->started_ns) > time_ns)
        return false;
    *pid = atomic_load_explicit(&layout_row(ledger, row)->pid, memory_order_relaxed);
    *slot = tag_slot(atomic_load(layout_tag(ledger, row)));
    return true;
}

bool snapshot_row_lives(struct ledger *ledger, unsigned row, uint32_t pid)
{
    struct row_owner self;
    (void)ledger_reap(ledger);
    owner_read(&self);
    const struct ledger_row *entry = layout_row(ledger, row);
    return tag_state(atomic_load(layout_tag(ledger, row))) == LEDGER_ROW_LIVE &&
           atomic_load_explicit(&entry->pid, memory_order_relaxed) == pid && !owner_is_gone(&self, entry);
}

void snapshot_reason(const struct ledger *ledger, unsigned row, char reason[LEDGER_REASON_BYTES + 1])
{
    reason[0] = '\0';
    if (atomic_load_explicit(&layout_row(ledger, row)->evictable, memory_order_acquire) != 1)
        text_copy(reason, layout_row(ledger, row)->reason, LEDGER_REASON_BYTES);
}
