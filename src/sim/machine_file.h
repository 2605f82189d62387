/*
 * The file all processes of one simulated machine share: who holds how much, and what was ever held at most.
 * Called by process.c (the driver), nvml.c and machine.c. Everything in the file is read and written under its one
 * robust mutex, which is held for short bookkeeping only, never over a copy.
 *
 * Nothing in it is a total but the peak: used is the sum over processes, each of whose cells is one word. So a process
 * killed at any instruction leaves exact figures; the next owner of the mutex brings the peak up to the sum.
 *
 * A second byte says whether the process itself lives: its lock is held by a mapping that a forked child does not get.
 *
 * What a checkpoint moves to the host is a second cell of the process, image_bytes; the bytes themselves stay where they are.
 *
 * A process's memory lives as long as a lock on its byte of the file: an open-file-description lock on a descriptor
 * that is kept, close-on-exec and inherited by fork, as the real driver's descriptors are. It is seen dead when
 * the lock is gone, and its memory is back release_ms after that was first seen.
 */
#ifndef SIM_MACHINE_FILE_H
#define SIM_MACHINE_FILE_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "sim/machine.h"
#include "sim/options.h"

enum {
    MACHINE_PROCESSES = 1024,
    MACHINE_VERSION = 2,
    MACHINE_FAULT_BYTES = 256,
    MACHINE_RESULTS = 8,
};
#define MACHINE_MAGIC "cubudsim"

/* How a process stands with the driver's checkpoint: the driver's four states, and the ways between them. */
enum {
    STATE_RUNNING,
    STATE_LOCKED,
    STATE_CHECKPOINTED,
    STATE_FAILED,
    STATE_LOCKING,       /* RUNNING to who asks: new calls wait, those inside go on */
    STATE_CHECKPOINTING, /* LOCKED to who asks */
    STATE_RESTORING,     /* CHECKPOINTED to who asks */
};

struct machine_request {
    uint32_t operation;   /* see checkpoint.h */
    uint32_t devices;     /* bits of those a restore names; 0: it names none */
    int32_t after;        /* a CUresult to fail with when the work is done; 0: none */
    uint32_t withdrawn;   /* whoever asked has given up */
    uint64_t deadline_ms; /* CLOCK_MONOTONIC, of a lock; 0: none */
};

/* Where other processes leave a request for the checkpoint's thread of a process, one at a time. */
struct machine_mail {
    _Atomic uint32_t asked, answered; /* requests ever; equal: none is open. Futexes */
    uint32_t started;                 /* 1: the open one is being worked on, and can no longer be withdrawn */
    struct machine_request request;
    struct {
        uint32_t number;
        int32_t code;
    } result[MACHINE_RESULTS]; /* of the last requests, each at its number modulo MACHINE_RESULTS */
};

struct machine_process {
    uint32_t taken;    /* 1: belongs to a process, alive or dead */
    int32_t pid;       /* as /proc shows it, so the outermost PID namespace that is mounted there */
    uint64_t alive_ms; /* CLOCK_MONOTONIC: when it was last known to live */
    uint32_t dead;     /* 1: seen dead, its memory is not back yet */
    uint64_t used_bytes[SIM_DEVICES];
    uint64_t number;                   /* no other process of the machine has had it */
    int32_t thread;                    /* that serves its mail, as /proc shows it; 0: none yet */
    _Atomic uint32_t state;            /* STATE_, written by the process itself; a futex */
    uint64_t image_bytes[SIM_DEVICES]; /* on the host, of each device's memory */
    struct machine_mail mail;
};

struct machine_shared {
    char magic[8];
    uint32_t version, bytes;
    pthread_mutex_t mutex;
    uint32_t removed; /* the file has been unlinked: open again */
    uint32_t places;  /* processes[0 .. places) have ever been taken; the others are all zero */
    uint32_t devices, release_ms, compute_major, compute_minor;
    uint64_t memory_bytes, baseline_bytes, context_bytes, swept_ms;
    uint64_t host_bytes, host_peak_bytes; /* for images, at most; the most there ever were */
    uint64_t claims;                      /* places ever taken */
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
    void *life;                   /* the mapping that holds its life byte */
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

/* The mutex, for the mail; order: nothing else is taken under it. */
void machine_lock(struct machine_shared *shared);
void machine_unlock(struct machine_shared *shared);

/* A process's memory moves to the host in two steps, in between which it takes room in both: an image is made (0, or -ENOMEM
 * where the host has not the room), the memory is let go. And back: the memory is taken, on all devices or none (0, or -ENOMEM
 * where one has not the room), the image is dropped. */
int machine_image_make(struct machine *machine);
void machine_image_keep(struct machine *machine);
int machine_image_return(struct machine *machine);
void machine_image_drop(struct machine *machine);

/* The state word of the calling process's own place while its memory is away, for a library that knows of it only through the
 * machine; NULL: it is not. */
_Atomic uint32_t *machine_self_away(struct machine *machine);

/* Whether a place is still that of the process it was, which itself lives, and has a thread that serves its mail. Under the
 * mutex. */
bool machine_process_serves(const struct machine *machine, const struct machine_process *process, uint64_t number);

/* Sleeps on a word of the machine, or of the process's own memory, while it has a value: woken, or after some milliseconds at
 * most (0: only woken). / Wakes all. */
void machine_word_wait(_Atomic uint32_t *word, uint32_t value, uint64_t most_ms);
void machine_word_wake(_Atomic uint32_t *word);
uint64_t machine_clock_ms(void);

/* Bytes used on a device by all, the dead included whose memory is not back; without the baseline. */
uint64_t machine_used(struct machine *machine, unsigned device);

/* The living that hold memory of a device: up to places of them; returns how many there are. */
unsigned machine_holders(struct machine *machine, unsigned device, struct sim_holder *holders, unsigned places);

#endif
