/* The books for programs that read: a snapshot of the ledger in the terms of the C API. Any process, any thread; keeps nothing. */
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "api/api.h"
#include "ledger/snapshot.h"

_Static_assert(CUBUDGET_KINDS == (int)LEDGER_KIND_COUNT && CUBUDGET_NAME_BYTES == (int)LEDGER_NAME_BYTES &&
                   CUBUDGET_COMMAND_BYTES == LEDGER_COMMAND_BYTES + 1 && CUBUDGET_NO_LIMIT == LEDGER_NO_LIMIT,
               "the interface's own numbers are the ledger's");
_Static_assert((int)CUBUDGET_PRESSURE_CRITICAL == (int)PRESSURE_CRITICAL, "levels are numbered alike");
_Static_assert((int)CUBUDGET_PROCESS_DYING == (int)LEDGER_ROW_DYING, "states are numbered alike");
_Static_assert((int)CUBUDGET_ACTIVITY_LOST == (int)LEDGER_PROCESS_LOST &&
                   (int)CUBUDGET_WAITING_RESTORE == (int)LEDGER_WAITING_RESTORE &&
                   CUBUDGET_REASON_BYTES == LEDGER_REASON_BYTES + 1,
               "and so is what processes do");

struct cubudget_snapshot {
    struct cubudget_ledger_entry ledger;
    struct cubudget_device_entry devices[LEDGER_DEVICES];
    struct cubudget_slot_entry slots[LEDGER_SLOTS];
    struct cubudget_process_entry processes[];
};

static void device_copy(const struct snapshot_device *from, struct cubudget_device_entry *to)
{
    *to = (struct cubudget_device_entry){
        .size = sizeof *to,
        .simulated = from->simulated,
        .steady = from->steady,
        .pressure = (enum cubudget_pressure)from->pressure,
        .total_bytes = from->total_bytes,
        .budget_bytes = from->budget_bytes,
        .used_bytes = from->used_bytes,
        .available_bytes = from->available_bytes,
        .peak_bytes = from->peak_bytes,
    };
    uuid_write(from->uuid, to->uuid);
    memcpy(to->name, from->name, sizeof to->name);
}

static void slot_copy(const struct snapshot_slot *from, struct cubudget_slot_entry *to)
{
    *to = (struct cubudget_slot_entry){
        .size = sizeof *to,
        .priority = from->priority,
        .processes = from->processes,
        .limit_bytes = from->limit_bytes,
        .reserve_bytes = from->reserve_bytes,
        .used_bytes = from->used_bytes,
        .evicted_bytes = from->evicted_bytes,
        .peak_bytes = from->peak_bytes,
        .allocations = from->allocations,
        .frees = from->frees,
        .refusals = from->refusals,
        .evictions = from->evictions,
        .restores = from->restores,
        .waits = from->waits,
    };
    memcpy(to->name, from->name, sizeof to->name);
}

static void process_copy(const struct snapshot_process *from, struct cubudget_process_entry *to)
{
    *to = (struct cubudget_process_entry){
        .size = sizeof *to,
        .pid = from->pid,
        .device = from->device,
        .slot = from->slot,
        .state = (enum cubudget_process_state)from->row_state,
        .used_bytes = from->used_bytes,
        .evicted_bytes = from->evicted_bytes,
        .activity = (enum cubudget_activity)from->process_state,
        .activity_since_ns = from->state_since_ns,
        .evictable = from->evictable,
        .host_bytes = from->host_bytes,
        .waiting = (enum cubudget_waiting)from->wait.kind,
        .waiting_device = from->wait.device,
        .waiting_bytes = from->wait.bytes,
        .waiting_since_ns = from->wait.since_ns,
        .waiting_for_pid = from->wait.for_pid,
        .waiting_for_slot = from->wait.for_slot,
    };
    memcpy(to->unevictable_reason, from->reason, sizeof to->unevictable_reason);
    memcpy(to->by_kind, from->by_kind, sizeof to->by_kind);
    memcpy(to->command, from->command, sizeof to->command);
}

static struct cubudget_snapshot *snapshot_copy(const struct snapshot *from)
{
    struct cubudget_snapshot *to = calloc(1, sizeof *to + from->process_count * sizeof to->processes[0]);
    if (to == NULL)
        return NULL;
    to->ledger = (struct cubudget_ledger_entry){
        .size = sizeof to->ledger,
        .version = from->version,
        .budget_bytes = from->budget_bytes,
        .devices = from->device_count,
        .slots = from->slot_count,
        .processes = from->process_count,
    };
    memcpy(to->ledger.name, from->name, sizeof to->ledger.name);
    for (unsigned i = 0; i < from->device_count; i++)
        device_copy(&from->devices[i], &to->devices[i]);
    for (unsigned i = 0; i < from->slot_count; i++)
        slot_copy(&from->slots[i], &to->slots[i]);
    for (unsigned i = 0; i < from->process_count; i++)
        process_copy(&from->processes[i], &to->processes[i]);
    return to;
}

/* A snapshot of all 1,024 rows is too much for a thread's stack: it is taken into memory of its own. */
static struct cubudget_snapshot *snapshot_make(struct ledger *ledger)
{
    struct snapshot *taken = calloc(1, sizeof *taken);
    struct cubudget_snapshot *made = NULL;
    if (taken != NULL && snapshot_take(ledger, taken) == 0) {
        made = snapshot_copy(taken);
        snapshot_free(taken);
    }
    free(taken);
    return made;
}

enum cubudget_error cubudget_snapshot_take(struct cubudget_snapshot **snapshot)
{
    struct ledger ledger;
    int before = errno;
    if (snapshot == NULL)
        return api_fail(CUBUDGET_ERROR_INVALID, "snapshot is NULL");
    enum cubudget_error error = api_ledger_open(&ledger);
    if (error != CUBUDGET_OK)
        return error;
    struct cubudget_snapshot *made = snapshot_make(&ledger);
    ledger_close(&ledger);
    errno = before;
    if (made == NULL)
        return api_fail(CUBUDGET_ERROR_NO_HOST_MEMORY, NULL);
    *snapshot = made;
    return CUBUDGET_OK;
}

void cubudget_snapshot_free(struct cubudget_snapshot *snapshot)
{
    free(snapshot);
}

const struct cubudget_ledger_entry *cubudget_snapshot_ledger(const struct cubudget_snapshot *snapshot)
{
    return snapshot != NULL ? &snapshot->ledger : NULL;
}

const struct cubudget_device_entry *cubudget_snapshot_device(const struct cubudget_snapshot *snapshot, unsigned index)
{
    return snapshot != NULL && index < snapshot->ledger.devices ? &snapshot->devices[index] : NULL;
}

const struct cubudget_slot_entry *cubudget_snapshot_slot(const struct cubudget_snapshot *snapshot, unsigned index)
{
    return snapshot != NULL && index < snapshot->ledger.slots ? &snapshot->slots[index] : NULL;
}

const struct cubudget_process_entry *cubudget_snapshot_process(const struct cubudget_snapshot *snapshot, unsigned index)
{
    return snapshot != NULL && index < snapshot->ledger.processes ? &snapshot->processes[index] : NULL;
}
