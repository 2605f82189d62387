/*
 * The simulated machine, as the command and the tests may read it: the witness's figures.
 *
 * A machine is a file "simulator-NAME.machine" in $CUBUDGET_DIR (where that is unset: /dev/shm/cubudget-UID), NAME from
 * the option machine=NAME (default "default"). Part of the simulator and written by it alone. Shares no code with
 * src/ledger. Called from any thread; each call opens the file by itself and leaves nothing open.
 */
#ifndef SIM_MACHINE_H
#define SIM_MACHINE_H

#include <stddef.h>
#include <stdint.h>

enum { SIM_DEVICES = 16 };

struct sim_figures {
    unsigned devices;
    uint64_t host_used_bytes; /* of the host, by the images of checkpointed processes */
    uint64_t host_peak_bytes;
    struct {
        uint8_t uuid[16];
        uint64_t total_bytes;
        uint64_t used_bytes; /* of all processes, and of dead ones whose memory is not back yet; without the baseline */
        uint64_t peak_bytes; /* the most ever used at one moment */
    } device[SIM_DEVICES];
};

/* Reads the figures of a machine's file, and moves on the memory of the dead as any other process would.
 * 0; -ENOENT: no such machine; -EPROTO: not one of ours; -errno. */
int sim_machine_read(const char *directory, const char *name, struct sim_figures *figures);

/* A living process that holds memory of a device, as the simulated NVML lists it. */
struct sim_holder {
    int32_t pid;
    uint64_t used_bytes;
};

/* Up to `places` of those of the machine's device with that uuid; *count says how many there are. 0; -ENODEV: the machine has
 * no such device; and as sim_machine_read. */
int sim_machine_holders(const char *directory, const char *name, const uint8_t uuid[16], struct sim_holder *holders,
                        unsigned places, unsigned *count);

/* Removes a machine that no process uses. 0; -EBUSY; -ENOENT; -EPROTO; -errno. */
int sim_machine_remove(const char *directory, const char *name);

/* Checks the text of CUBUDGET_SIMULATE. 0, or -EINVAL with one sentence in fault: what is wrong and what to write. */
int sim_options_check(const char *text, char *fault, size_t fault_bytes);

#endif
