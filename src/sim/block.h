/*
 * Blocks of device memory: what the card's 2 MiB granules are taken for. Used by address.c, which gives blocks their
 * addresses, and memory.c, which gives them to programs. All fields are under sim_lock.
 */
#ifndef SIM_BLOCK_H
#define SIM_BLOCK_H

#include "sim/sim.h"

struct handle;

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
    struct block *next, *previous;  /* its owner's, or the list of the dead */
    CUcontext owner;                /* NULL: of no context, and in no context's list */
    struct reservoir *reservoir;    /* of the pool it is the arena of; or NULL */
    struct graph_allocation *graph; /* what of a graph it is the memory of; or NULL */
    unsigned device;                /* the machine's number of the card it lies on */
    uint64_t base, granules;
    uint64_t bytes, id;     /* as asked for; of a block that is not shared */
    unsigned char *data;    /* where the bytes are: at base itself for managed memory */
    unsigned char *mapping; /* what is unmapped with the block: data, or what data lies in; NULL: nothing */
    uint64_t mapping_bytes;
    int descriptor;              /* of the file the bytes are in since they were exported to other processes; 0: none */
    struct shares *shares;       /* NULL: all of it is one allocation */
    unsigned holds;              /* copies at work on it */
    struct handle *handle;       /* of a mapping in a reservation: whose memory it shows */
    unsigned readable, writable; /* by which places: bits of the machine's devices, and one of the host */
    bool managed, freed;
    bool other_end; /* cuMemUnmap or cuIpcCloseMemHandle ends it, cuMemFree does not */
    bool uncharged; /* its granules are paid for by something else: a pool, a handle of physical memory */
    bool host;      /* memory of the host, which a pool can have: at base itself, like managed memory */
    bool foreign;   /* another process's bytes */
    bool absent;    /* has an address and no memory: the graph that it belongs to has not allocated it, or freed it */
};

/* A block of somebody else's bytes, which are paid for elsewhere: it takes the mapping over, also where it fails. NULL: no
 * room. Under sim_lock. */
struct block *block_adopt(CUcontext owner, unsigned device, unsigned char *mapping, uint64_t mapping_bytes,
                          uint64_t data_offset, uint64_t bytes);

/* Gives a block of that many granules an address, in the low 4 GiB if asked, and bytes where it has none. False: no
 * room. */
bool address_take(struct block *block, bool low);
/* Gives a block that never ends addresses of its own, more than any pool needs, and bytes. False: no room. */
bool address_take_arena(struct block *block, uint64_t alignment);
/* Makes the address free for others. The bytes are still mapped. */
void address_leave(struct block *block);
/* Unmaps a block's bytes; no lock needed, its address must not have been left (managed memory is put back there). */
void address_unmap(struct block *block);
/* Takes a block from its owner and pays its granules back. True: nobody works on it, so memory_dispose may have it; else
 * the last span_release will. Under sim_lock. */
bool memory_end_block(struct block *block);
/* An allocation of a graph was freed: whether its block stays, for the next launch. Under sim_lock; see graph_memory.c. */
bool graph_freed(struct block *block);
/* Whether there is a block of which something holds. */
bool address_any(bool (*holds)(const struct block *block));
/* The block at an address, freed or not; NULL: none. */
struct block *address_block(uint64_t address);

#endif
