/*
 * The simulated machine: what its processes share, and what the command may read of it.
 *
 * A file "simulator-NAME.machine" in $CUBUDGET_DIR (where that is unset: /dev/shm/cubudget-UID), NAME from the option
 * machine=NAME (default "default"). Part of the simulator and written by it alone; the command reads the witness's
 * figures through sim_machine_read. Shares no code with src/ledger.
 */
#ifndef SIM_MACHINE_H
#define SIM_MACHINE_H

#include <stdint.h>

enum { SIM_DEVICES = 16 };

struct sim_figures {
    unsigned devices;
    struct {
        uint8_t uuid[16];
        uint64_t total_bytes;
        uint64_t used_bytes; /* of all processes, and of dead ones whose memory is not back yet; without the baseline */
        uint64_t peak_bytes; /* the most ever used at one moment */
    } device[SIM_DEVICES];
};

/* Reads the figures of a machine's file. 0; -ENOENT: no such machine; -EPROTO: not one of ours; -errno. Read-only. */
int sim_machine_read(const char *directory, const char *name, struct sim_figures *figures);

/* Removes a machine that no process uses. 0; -EBUSY; -ENOENT; -errno. */
int sim_machine_remove(const char *directory, const char *name);

#endif
