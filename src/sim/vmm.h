/*
 * Virtual memory management: memory that handles stand for (physical.c), addresses that programs reserve (reserve.c), and
 * the mappings of one in the other (vmm.c). Used by those, multicast.c, external.c, and by address.c, memory.c and pointer.c
 * for addresses that lie in a reservation. Everything under sim_lock, but where said otherwise.
 *
 * Memory lives while a handle to it lives; a handle lives while it has references or mappings. It belongs to no context.
 */
#ifndef SIM_VMM_H
#define SIM_VMM_H

#include "sim/block.h"

struct multicast;

/* Bytes of a card, or of the host. Mapped once as shared memory, from which every mapping is a copy of the page tables. */
struct physical {
    struct physical *next;
    CUmemAllocationProp properties;
    uint64_t bytes;
    unsigned device; /* the machine's number; of host memory that of no card */
    bool charged;    /* made here, on a card */
    unsigned char *data;
    int descriptor;              /* of the file it lies in, where it may be exported; 0: none */
    uint64_t filesystem, inode;  /* of that file: what an import is told by */
    unsigned handles;            /* 0: its bytes go as soon as no export is left */
    struct multicast *multicast; /* not memory at all, but what memory is bound to; NULL: memory */
};

struct handle {
    struct handle *next;
    struct physical *physical;
    unsigned references, mappings; /* bindings to multicast objects count as mappings */
};

/* A new piece of memory with one handle of one reference. 0, or a CUresult. */
CUresult physical_create(const CUmemAllocationProp *properties, uint64_t bytes, struct handle **handle);
/* A handle of one reference to memory of another process or of this one. INVALID_VALUE: no such descriptor. */
CUresult physical_import(int descriptor, struct handle **handle);
/* A descriptor that keeps the memory. 0, or a CUresult. */
CUresult physical_export(struct physical *physical, int *descriptor);
/* One more handle of one reference. NULL: no memory. */
struct handle *handle_new(struct physical *physical);
/* The handle of a number, with references; NULL: none. */
struct handle *handle_find(CUmemGenericAllocationHandle number);
CUmemGenericAllocationHandle handle_number(const struct handle *handle);
/* Takes away one reference or one mapping; the last of all ends the memory. */
void handle_release(struct handle *handle);
void handle_unmap(struct handle *handle);
/* Credits what was exported and has now been let go by all; takes sim_lock itself. */
void vmm_settle(void);

/* What the file of a piece of device memory is called, in which a descriptor says what it is; returns the size, or 0 where
 * it is no such file. Needs no lock. */
uint64_t physical_describe(int descriptor, unsigned *device, int *handle_types);
/* A copy of a descriptor, out of the way of programs that count on small numbers; -1: none. Needs no lock. */
int descriptor_copy(int descriptor);

void multicast_end(struct multicast *multicast);

/* Addresses nobody else is given. A mapping is a block in its table; bytes lie in the shadow at the same place, so that a
 * copy may run over mappings that follow on each other. */
struct reservation {
    struct reservation *next;
    uint64_t base, bytes;
    unsigned char *shadow;
    struct block **table;
    unsigned holds; /* copies at work in it: nothing is unmapped meanwhile */
};

/* 0, INVALID_VALUE, OUT_OF_MEMORY. */
CUresult reserve_add(uint64_t bytes, uint64_t alignment, uint64_t hint, struct reservation **made);
/* Both outside of use: nothing is mapped in it. */
void reserve_remove(struct reservation *reservation);
struct reservation *reserve_find(uint64_t address);
/* The mapping at an address; NULL: none. */
struct block *reserve_block(uint64_t address);
/* Holds the reservation for work on the range, which must be mapped and accessible all over. */
CUresult reserve_take(struct span *span, uint64_t address, uint64_t bytes, unsigned kind);
/* Not under sim_lock; nothing for a span that holds none. */
void reserve_release(struct span *span);
/* The first mapping whose base is at or after an address and before end; NULL: none. */
struct block *reserve_next(const struct reservation *reservation, uint64_t address, uint64_t end);
/* Puts a mapping in / takes one out, after all work in the reservation has ended. */
bool reserve_map(struct reservation *reservation, struct block *block, const struct physical *physical);
void reserve_unmap(struct reservation *reservation, struct block *block);
/* Makes host memory's bytes readable for the host at the mapping's own address. */
bool reserve_open_to_host(const struct block *block, const struct physical *physical);

#endif
