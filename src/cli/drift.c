/* Drift; see drift.h. */
#include "config.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include "cli/drift.h"
#include "cli/witness.h"
#include "cuda/nvml.h"

/* What NVML lists of one device. */
struct listing {
    int count; /* -1: it does not say */
    struct witness_holder holders[LEDGER_ROWS];
};

static int card_read(const uint8_t uuid[LEDGER_UUID_BYTES], struct listing *listing)
{
    static struct nvml_holder holders[LEDGER_ROWS];
    CUuuid device;
    memcpy(device.bytes, uuid, sizeof device.bytes);
    int count = nvml_holders_read(&device, holders, LEDGER_ROWS);
    for (int i = 0; i < count; i++)
        listing->holders[i] = (struct witness_holder){holders[i].pid, holders[i].bytes};
    return count < 0 ? -1 : count;
}

static void listing_read(const char *directory, const struct snapshot_device *device, struct listing *listing)
{
    listing->count = device->simulated ? witness_holders_read(directory, device->uuid, listing->holders, LEDGER_ROWS)
                                       : card_read(device->uuid, listing);
    if (listing->count > LEDGER_ROWS)
        listing->count = LEDGER_ROWS;
}

/* False: it is not listed. */
static bool listing_find(const struct listing *listing, uint32_t pid, uint64_t *bytes)
{
    bool listed = false;
    *bytes = 0;
    for (int i = 0; i < listing->count; i++)
        if (listing->holders[i].pid == pid) {
            *bytes += listing->holders[i].bytes;
            listed = true;
        }
    return listed;
}

static bool process_is(const struct snapshot_process *first, const struct snapshot_process *second)
{
    return first->pid == second->pid && first->pid_namespace == second->pid_namespace &&
           first->start_ticks == second->start_ticks && first->row_state == second->row_state;
}

bool drift_is_same_process(const struct snapshot_process *first, const struct snapshot_process *second)
{
    return process_is(first, second) && first->device == second->device;
}

/* A row without anything, of a process that is charged in another slot: what it holds is told there. */
static bool is_told_elsewhere(const struct snapshot *snapshot, const struct snapshot_process *process)
{
    if (process->device >= 0)
        return false;
    for (unsigned i = 0; i < snapshot->process_count; i++)
        if (snapshot->processes[i].device >= 0 && process_is(process, &snapshot->processes[i]))
            return true;
    return false;
}

static void drift_fill(const struct snapshot *snapshot, unsigned at, unsigned device, const struct listing *listing,
                       struct drift *drift)
{
    const struct snapshot_process *process = &snapshot->processes[at];
    uint64_t driver_bytes, charged_bytes = 0;
    bool listed = listing_find(listing, process->pid, &driver_bytes);
    if (process->device < 0 && !listed)
        return;
    for (unsigned i = 0; i < snapshot->process_count; i++)
        if (drift_is_same_process(process, &snapshot->processes[i]))
            charged_bytes += snapshot->processes[i].used_bytes;
    drift->known = listed || snapshot->devices[device].simulated;
    drift->driver_bytes += driver_bytes;
    drift->drift_bytes = (int64_t)(drift->driver_bytes - charged_bytes);
}

/* The PID namespace of this process as the ledger's rows tell theirs; 0: unknown. */
static uint64_t own_namespace(void)
{
    struct stat status;
    return stat("/proc/self/ns/pid", &status) == 0 ? status.st_ino : 0;
}

struct drift *drift_read(const char *directory, const struct snapshot *snapshot)
{
    static struct listing listing; /* too large for a stack that somebody may have limited */
    uint64_t here = own_namespace();
    struct drift *drift = calloc(snapshot->process_count + 1U, sizeof *drift);
    for (unsigned device = 0; drift != NULL && device < snapshot->device_count; device++) {
        bool asked = false;
        for (unsigned i = 0; i < snapshot->process_count; i++) {
            const struct snapshot_process *process = &snapshot->processes[i];
            if ((process->device >= 0 && process->device != (int)device) || process->row_state != LEDGER_ROW_LIVE ||
                here == 0 || process->pid_namespace != here || is_told_elsewhere(snapshot, process))
                continue;
            if (!asked) /* and only then: where no process is, no NVML needs to be started */
                listing_read(directory, &snapshot->devices[device], &listing);
            asked = true;
            if (listing.count >= 0)
                drift_fill(snapshot, i, device, &listing, &drift[i]);
        }
    }
    return drift;
}
