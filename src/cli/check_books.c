/*
 * cubudget check --books: do the ledger's rows agree with what the driver says? See check.h. A block of 2 MiB a kind is allowed:
 * what the driver keeps within its blocks cannot be known from outside.
 */
#include "config.h"

#include <stdlib.h>
#include "cli/check.h"
#include "cli/drift.h"
#include "cli/witness.h"

#define BLOCK_BYTES (2ULL << 20)

/* What is charged to a process, or to all of a device. */
struct charged {
    uint64_t bytes, in_flight_bytes;
    unsigned kinds;
};

static void charged_add(struct charged *charged, const struct snapshot_process *process)
{
    charged->bytes += process->used_bytes;
    charged->in_flight_bytes += process->in_flight_bytes;
    for (unsigned kind = 0; kind < LEDGER_KIND_COUNT && process->used_bytes != 0; kind++)
        charged->kinds += process->by_kind[kind] != 0; /* of what is evicted nothing is there */
}

/* What is in flight is charged and may or may not be there yet. */
static bool agrees(const struct charged *charged, uint64_t held_bytes)
{
    uint64_t allowed = charged->kinds * BLOCK_BYTES;
    if (held_bytes > charged->bytes)
        return held_bytes - charged->bytes <= allowed;
    return charged->bytes - held_bytes <= allowed + charged->in_flight_bytes;
}

/* Rows of one process are judged together, at the first of them. */
static bool is_first(const struct snapshot *snapshot, unsigned at)
{
    for (unsigned i = 0; i < at; i++)
        if (drift_is_same_process(&snapshot->processes[i], &snapshot->processes[at]))
            return false;
    return true;
}

static void idle_check(struct check_list *list, const struct snapshot *snapshot, const struct snapshot_process *process,
                       const struct drift *drift)
{
    if (drift->known)
        check_add(list, drift->driver_bytes == 0,
                  "process %u of slot '%s' is charged nothing, and NVML says it holds %llu bytes", process->pid,
                  snapshot->slots[process->slot].name, (unsigned long long)drift->driver_bytes);
}

static void process_check(struct check_list *list, const struct snapshot *snapshot, unsigned at,
                          const struct drift *drift)
{
    const struct snapshot_process *process = &snapshot->processes[at];
    unsigned index = snapshot->devices[process->device].index;
    const char *slot = snapshot->slots[process->slot].name;
    struct charged charged = {0};
    for (unsigned i = at; i < snapshot->process_count; i++)
        if (drift_is_same_process(process, &snapshot->processes[i]))
            charged_add(&charged, &snapshot->processes[i]);
    if (!drift->known)
        check_skip(list, "device %u: process %u of slot '%s': NVML does not say what it holds", index, process->pid,
                   slot);
    else
        check_add(list, agrees(&charged, drift->driver_bytes),
                  "device %u: process %u of slot '%s' is charged %llu bytes, and NVML says it holds %llu: drift %lld, "
                  "and %llu is allowed",
                  index, process->pid, slot, (unsigned long long)charged.bytes, (unsigned long long)drift->driver_bytes,
                  (long long)drift->drift_bytes, (unsigned long long)(charged.kinds * BLOCK_BYTES));
}

static void machine_check(struct check_list *list, const struct snapshot *snapshot, unsigned at, const char *directory)
{
    const struct snapshot_device *device = &snapshot->devices[at];
    struct charged charged = {0};
    struct witness_figures figures;
    if (!device->simulated || !witness_find(directory, device->uuid, &figures))
        return;
    for (unsigned i = 0; i < snapshot->process_count; i++)
        if (snapshot->processes[i].device == (int)at)
            charged_add(&charged, &snapshot->processes[i]);
    check_add(list, agrees(&charged, figures.used_bytes),
              "device %u: %llu bytes are charged to all, and the simulated machine holds %llu: drift %lld, and %llu is "
              "allowed",
              device->index, (unsigned long long)charged.bytes, (unsigned long long)figures.used_bytes,
              (long long)(figures.used_bytes - charged.bytes), (unsigned long long)(charged.kinds * BLOCK_BYTES));
}

bool check_books(struct check_list *list, const struct snapshot *snapshot, const char *directory)
{
    struct drift *drift = drift_read(directory, snapshot);
    if (drift == NULL)
        return false;
    for (unsigned i = 0; i < snapshot->process_count; i++) {
        const struct snapshot_process *process = &snapshot->processes[i];
        if (process->row_state != LEDGER_ROW_LIVE || !is_first(snapshot, i))
            continue;
        if (process->device < 0)
            idle_check(list, snapshot, process, &drift[i]);
        else
            process_check(list, snapshot, i, &drift[i]);
    }
    for (unsigned at = 0; at < snapshot->device_count; at++)
        machine_check(list, snapshot, at, directory);
    free(drift);
    return true;
}
