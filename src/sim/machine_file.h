/*
 * The file all processes of one simulated machine share: who holds how much, and what was ever held at most.
 * Called by process.c (the driver), nvml.c and machine.c. Everything in the file is read and written under its one
 * robust mutex, which is held for short bookkeeping only, never over a copy.
 *
 * Nothing in it is a total but the peak: used is the sum over processes, each of whose cells is one word. So a process
 * killed at any instruction leaves exact figures; the next owner of the mutex brings the peak up to the sum.
 *
 * A process's memory lives as long as a lock on its byte of the file: an open-file-description lock on a descriptor
 * that is kept, close-on-exec and inherited by fork, as the real driver's descriptors are. It is seen dead when
 * the lock is gone, and its memory is back release_ms after that was first seen.
 */
#ifndef SIM_MACHINE_FILE_H
#define SIM_MACHINE_FILE_H

#include <pthread.h>
#include <stdint.h>
#include <sys/types.h>

#include "sim/machine.h"
#include "sim/options.h"

enum {
    MACHINE_PROCESSES = 1024,
    MACHINE_VERSION = 1,
    MACHINE_FAULT_BYTES = 256,
};
#define MACHINE_MAGIC "cubudsim"

struct machine_process {
    uint32_t taken;    /* 1: belongs to a process, alive or dead */
    int32_t pid;       /* as /proc shows it, so the outermost PID namespace that is mounted there */
    uint64_t alive_ms; /* CLOCK_MONOTONIC: when it was last known to live */
    uint32_t dead;     /* 1: seen dead, its memory is not back yet */
    uint64_t used_bytes[SIM_DEVICES];
};

struct machine_shared {
    char magic[8];
    uint32_t version, bytes;
    pthread_mutex_t mutex;
    uint32_t removed; /* the file has been unlinked: open again */
    uint32_t places;  /* processes[0 .. places) have ever been taken; the others are all zero */
    uint32_t devices, release_ms, compute_major, compute_minor;
    uint64_t memory_bytes, baseline_bytes, context_bytes, swept_ms;
    char name[SIM_DEVICE_NAME_BYTES];
    struct {
        uint8_t uuid[16];
        uint64_t peak_bytes;
    } device[SIM_DEVICES];
    struct machine_process process[MACHINE_PROCESSES];
};

struct machine {
    struct machine_shared *shared;
    struct machine_process *self; /* NULL: looks on only */
    int descriptor;               /* probes the others' locks; holds ours */
    dev_t filesystem;
    ino_t inode;
};

/* The directory machines live in: $CUBUDGET_DIR, or the user's own under /dev/shm. */
void machine_directory(char *directory, size_t directory_bytes);

/* Opens the machine the options name, making it where there is none. 0; -EINVAL: it is there and differs from what the
 * options ask for, with a sentence in fault; -EPROTO; -errno. */
int machine_open(struct machine *machine, const struct sim_options *options, char *fault, size_t fault_bytes);

/* Takes a place among the machine's processes. 0; -EAGAIN: the machine was removed meanwhile, open again;
 * -EUSERS: all places are taken. */
int machine_claim(struct machine *machine);

/* Looks who is dead, for the watcher. */
void machine_watch(struct machine *machine);

/* Lets go of everything but the memory of a claimed place: that goes with the process. */
void machine_close(struct machine *machine);

/* Takes bytes of a device for this process: 0, or -ENOMEM where the card does not have them / gives them back. */
int machine_charge(struct machine *machine, unsigned device, uint64_t bytes);
void machine_credit(struct machine *machine, unsigned device, uint64_t bytes);

/* Bytes used on a device by all, the dead included whose memory is not back; without the baseline. */
uint64_t machine_used(struct machine *machine, unsigned device);

/* The living that hold memory of a device: up to places of them; returns how many there are. */
unsigned machine_holders(struct machine *machine, unsigned device, struct sim_holder *holders, unsigned places);

#endif
