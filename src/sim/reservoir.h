/*
 * What lies behind a memory pool: physical bytes that come and go in steps of 32 MiB, and the ranges that allocations
 * take of them, at addresses that are those of the ranges. Called by pool.c, and by memory.c to find what an address lies
 * in; under sim_lock.
 *
 * As measured on an H100 (driver 580): a request goes whole into the first hole that holds it, else the tail grows by what
 * it lacks there, in steps; holes are not joined by remapping. A free lowers what is used at once, and what is reserved
 * when the host has seen the free happen, by waiting for its stream, an event behind it, or its context; then steps that
 * nothing lies in go back to the card, from the middle too, down to the release threshold.
 *
 * Invariants: reserved_bytes = steps that are backed x 32 MiB; extents lie in backed steps, sorted, without overlap.
 */
#ifndef SIM_RESERVOIR_H
#define SIM_RESERVOIR_H

#include "sim/block.h"

#define STEP_BYTES (32ULL << 20)

struct extent {
    uint64_t offset, bytes; /* of the reservoir, in units */
    uint64_t asked_bytes, id;
};

/* A free that the host has not seen happen: its range cannot go back to the card. */
struct unseen {
    struct unseen *next;
    uint64_t offset, bytes;
    struct stream_place place;
    uint64_t moment;
};

struct reservoir {
    unsigned device;     /* the machine's number of the card */
    bool uncharged;      /* host memory: costs the card nothing */
    struct block *arena; /* the addresses, and where the bytes are; NULL: nothing was ever taken */
    bool *backed;        /* for each step up to the tail */
    uint64_t steps, most_bytes /* 0: no limit */, threshold_bytes;
    uint64_t reserved_bytes, reserved_high_bytes, used_bytes, used_high_bytes;
    struct extent *extents; /* sorted */
    size_t extent_count, extent_room;
    struct unseen *unseen;
};

/* What a wait has shown: everything up to a moment in one stream, or in all of a context. */
struct sight {
    CUcontext context;
    struct stream_place place; /* id 0: all streams of the context */
    uint64_t moment;
};

/* Takes a range for that many bytes; its address. 0: the card or the host has not the room, and nothing has changed. The
 * kind is what the arena is to be like. */
uint64_t reservoir_take(struct reservoir *reservoir, const struct block *kind, uint64_t bytes);
/* The range an address lies in. NULL: none. */
const struct extent *reservoir_find(const struct reservoir *reservoir, uint64_t address);
/* Gives back the range of the allocation at an address. With a place the host has yet to see it; without, it has. */
void reservoir_give(struct reservoir *reservoir, uint64_t address, const struct stream_place *place);
/* The wait was over: what it has shown to be free may go back to the card. */
void reservoir_see(struct reservoir *reservoir, const struct sight *sight);
/* Gives back steps that nothing lies in, as long as that many bytes are kept. */
void reservoir_trim(struct reservoir *reservoir, uint64_t keep_bytes);
/* Makes one that is empty like new, but for the arena. */
void reservoir_reset(struct reservoir *reservoir);

#endif
