/*
 * The simulated machines of a ledger's directory: what they say was held, without asking the ledger. In a build without
 * the simulator there are none. Used by run, dump, check and gc.
 */
#ifndef CLI_WITNESS_H
#define CLI_WITNESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct witness_figures {
    uint64_t used_bytes, peak_bytes;
};

/* What the machine that has this device says. False: no machine there has it. */
bool witness_find(const char *directory, const uint8_t uuid[16], struct witness_figures *figures);

/* A living process that holds memory of a device. */
struct witness_holder {
    uint32_t pid; /* as /proc calls it */
    uint64_t bytes;
};

/* Up to `places` of those of the machine that has this device; returns how many there are, or -1 where no machine has it. */
int witness_holders_read(const char *directory, const uint8_t uuid[16], struct witness_holder *holders,
                         unsigned places);

/* Calls `each` with the name of every simulated machine in the directory, until it returns other than 0. */
int witness_machines_walk(const char *directory, int (*each)(const char *name, void *context), void *context);

/* Removes a machine that nobody uses: 0, -EBUSY, -ENOENT, -errno. */
int witness_machine_remove(const char *directory, const char *name);

/* Whether the simulator understands its options: 0, or -EINVAL with the reason in `fault`. */
int witness_options_check(const char *options, char *fault, size_t fault_bytes);

#endif
