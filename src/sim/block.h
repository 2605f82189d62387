/*
 * Blocks of device memory: what the card's 2 MiB granules are taken for. Used by address.c, which gives blocks their
 * addresses, and memory.c, which gives them to programs. All fields are under sim_lock.
 */
#ifndef SIM_BLOCK_H
#define SIM_BLOCK_H

#include "sim/sim.h"

enum {
    UNIT_BYTES = 512,                                /* what small requests are rounded to */
    BLOCK_UNITS = (int)(GRANULE_BYTES / UNIT_BYTES), /* of a block that small ones share */
};

/* The table of a shared block: for each unit, 1 + the first unit of the allocation it belongs to; 0: free. */
struct shares {
    unsigned free_units;
    uint16_t first[BLOCK_UNITS];
    uint32_t bytes[BLOCK_UNITS]; /* as asked for, at the first unit of each allocation */
    uint64_t id[BLOCK_UNITS];
};

/* Invariant: reachable by its address while it is in the table, in its owner's list while it is not freed. */
struct block {
    struct block *next, *previous;  /* its owner's or its pool's, or the list of the dead */
    CUcontext owner;                /* NULL: of no context, and in no context's list */
    struct reservoir *reservoir;    /* of the pool it belongs to; or NULL */
    struct graph_allocation *graph; /* what of a graph it is the memory of; or NULL */
    unsigned device;                /* the machine's number of the card it lies on */
    uint64_t base, granules;
    uint64_t bytes, id;    /* as asked for; of a block that is not shared */
    unsigned char *data;   /* where the bytes are: at base itself for managed memory */
    struct shares *shares; /* NULL: all of it is one allocation */
    unsigned holds;        /* copies at work on it */
    bool managed, freed;
    bool uncharged; /* its granules are paid for by something else: a pool, a handle of physical memory */
    bool host;      /* memory of the host, which a pool can have: at base itself, like managed memory */
    bool absent;    /* has an address and no memory: the graph that it belongs to has not allocated it, or freed it */
};

/* Gives a block of that many granules an address and bytes, in the low 4 GiB if asked. False: no room. */
bool address_take(struct block *block, bool low);
/* Makes the address free for others. The bytes are still mapped. */
void address_leave(struct block *block);
/* Unmaps a block's bytes; no lock needed, its address must not have been left (managed memory is put back there). */
void address_unmap(struct block *block);
/* The block at an address, freed or not; NULL: none. */
struct block *address_block(uint64_t address);

#endif
