/*
 * Drift: what the driver says a process holds of a device, less what the ledger charges it. The driver's word is NVML's, of the
 * card or of the simulated machine. Used by dump and check.
 */
#ifndef CLI_DRIFT_H
#define CLI_DRIFT_H

#include <stdbool.h>
#include <stdint.h>
#include "ledger/snapshot.h"

struct drift {
    bool known;            /* false: NVML cannot say, and the rest means nothing */
    uint64_t driver_bytes; /* of the whole process */
    int64_t drift_bytes;   /* less what all its rows of that device are charged */
};

/* Asks NVML, once a device. One for each of snapshot->processes, in their order: give it back with free(). NULL: no memory.
 * A process that is charged nothing anywhere (in no slot) is shown what it holds on all devices together. Not known are: dead processes; those of other PID namespaces, whose numbers mean other processes here; and on a card those
 * that NVML does not list (in a container it may know processes by other numbers). */
struct drift *drift_read(const char *directory, const struct snapshot *snapshot);

/* Whether two of a snapshot's entries are of one process. */
bool drift_is_same_process(const struct snapshot_process *first, const struct snapshot_process *second);

#endif
