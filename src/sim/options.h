/*
 * The options of a simulated machine: the text of CUBUDGET_SIMULATE, read once by each process at its first cuInit or
 * nvmlInit. Pure functions, no synchronisation. Called by process.c, nvml.c, machine.c and the tests.
 */
#ifndef SIM_OPTIONS_H
#define SIM_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    SIM_MACHINE_NAME_BYTES = 64,
    SIM_DEVICE_NAME_BYTES = 64,
    SIM_CALL_NAME_BYTES = 64,
    SIM_FAULTS = 16,
};

/*
 * fail=CALL:N:CODE: the N-th call of that name in the process returns CODE and does nothing; N 0: every call.
 * fail-after=CALL:N:CODE: the call does its work, undoes it and returns CODE, as a driver does that fails midway: nothing
 * it made is kept, no output is written, the machine's peak alone shows that it was. A call that makes nothing, or
 * that frees, has then done nothing: an error of the driver leaves things as they were.
 * hang=CALL:N: the call never returns; N 0: no call of that name does.
 * A function with two exported names is counted by the name called.
 */
struct sim_fault {
    char call[SIM_CALL_NAME_BYTES];
    int code; /* 0: it hangs */
    bool after;
    uint64_t nth;
};

/* How long moving bytes takes: so long, and so many bytes a second; 0: no time. */
struct sim_pace {
    uint32_t milliseconds;
    uint64_t second_bytes;
};

struct sim_options {
    char machine[SIM_MACHINE_NAME_BYTES];
    char name[SIM_DEVICE_NAME_BYTES];
    uint64_t memory_bytes, baseline_bytes, context_bytes;
    uint64_t module_bytes; /* what each module takes besides what its image says: this process's alone */
    uint64_t host_bytes;   /* for the images of checkpointed processes, all together */
    uint32_t devices, release_ms, compute_major, compute_minor;
    /* What this process's own lock, checkpoint and restore take. */
    uint32_t lock_ms;
    struct sim_pace checkpoint, restore;
    struct sim_fault faults[SIM_FAULTS];
    unsigned fault_count;
    /* Which were written down, so that a machine that differs is refused only where somebody asked for something. */
    bool memory_given, devices_given, compute_given, baseline_given, context_given, release_given, name_given,
        host_given;
};

/* Defaults for a NULL or empty text. 0, or -EINVAL with one sentence in fault. */
int options_parse(const char *text, struct sim_options *options, char *fault, size_t fault_bytes);

#endif
