/*
 * Physical memory that programs hold by handle (cuMemCreate) and map themselves: what each piece was charged, and what still
 * keeps it on the card. Called by the wrappers of src/interpose (vmm.c, import.c); state.h holds its tables, and contexts.c
 * and account.c call what is private to src/account. Everything is under the books' lock; nothing of a forked child's.
 *
 * The driver keeps a piece of memory while anything refers to it, in whatever order things go (each measured, driver 580):
 * references to a handle (cuMemCreate, cuMemRetainAllocationHandle, and imports, which get a handle value of their own),
 * mappings, exported file descriptors, external memory made of one, and buffers mapped from that. So
 *     charged until  references == 0 && mappings == 0 && no exported descriptor of it is open in this process.
 * Memory that was not charged (on the host, imported from others, multicast objects) is not remembered at all: a handle or
 * address that is not in the tables changes nothing.
 *
 * Two threads: where a call may end a piece's life, the books note before the driver's call which piece it means, and act
 * after it only if that piece still goes by that handle: the driver hands handle values out again at once. Where a call
 * begins to hold a piece, it counts before the driver's call and is taken back if the driver refuses.
 */
#ifndef ACCOUNT_HANDLES_H
#define ACCOUNT_HANDLES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include "account/account.h"
#include "account/allocmap.h"

/* Names a piece of memory across a driver's call: its index and which life of that index. 0: none that we know. */
typedef uint64_t memory_name;

/* cuMemCreate has returned `handle` for what was asked for: it is known, and the bytes have landed. Returns whether it is the
 * first of this process, which may hold memory so without ever having had a context. */
bool handle_record(const struct charge *charge, uint64_t handle);

/* The driver gave that value to something that is not charged: what we know by it ended by a way that we do not see. */
void handle_forget(uint64_t handle);

/* Around cuMemRelease. `released`: the driver did. */
memory_name handle_release_begin(uint64_t handle);
void handle_release_end(memory_name name, uint64_t handle, bool released);

/* Around cuMemMap. */
struct mapping_begun {
    memory_name name; /* 0: memory that we do not know */
    bool entered;     /* the address is known already */
    bool stale;       /* something else is known to be mapped there */
};
struct mapping_begun handle_map_begin(uint64_t handle, CUdeviceptr address, size_t bytes);
void handle_map_end(const struct mapping_begun *begun, CUdeviceptr address, size_t bytes, bool mapped);

/* cuMemUnmap has ended every mapping that lies in the range. */
void handle_unmapped(CUdeviceptr address, size_t bytes);

/* Around cuMemRetainAllocationHandle of an address; `handle` is what the driver returned. */
memory_name handle_retain_begin(CUdeviceptr address);
void handle_retain_end(memory_name name, uint64_t handle, bool retained);

/* How something exported is known again when it comes back: its descriptor, or what its bytes are. */
struct shareable {
    bool is_descriptor;
    int descriptor;
    uint64_t digest;
};

/* Around cuMemExportToShareableHandle. */
memory_name handle_export_begin(uint64_t handle);
void handle_export_end(memory_name name, const struct shareable *shareable, bool exported);

/* Around cuMemImportFromShareableHandle. Memory of this process is held once more; of another, the import is not charged. */
memory_name handle_import_begin(const struct shareable *shareable);
void handle_import_end(memory_name name, uint64_t handle, bool imported);

/* Around cuImportExternalMemory (after handle_import_begin; the driver closes the descriptor that it is given), cuDestroyExternalMemory and cuExternalMemoryGetMappedBuffer,
 * whose buffers cuMemFree ends. All of it ends with the context that is current. */
void external_import_end(const struct driver *driver, memory_name name, uint64_t external, bool imported,
                         const struct shareable *taken);
memory_name external_destroy_begin(uint64_t external);
void external_destroy_end(memory_name name, uint64_t external, bool destroyed);
memory_name external_buffer_begin(uint64_t external);
void external_buffer_end(const struct driver *driver, memory_name name, CUdeviceptr buffer, bool mapped);

/* --- private to src/account, under `books` ------------------------------------------------------------------------- */

/* A piece of charged memory. Invariant: a piece that is in use has references, mappings or open exports. */
struct memory {
    uint64_t bytes; /* 0: the place is free */
    uint32_t life;  /* one more each time the place is used again */
    uint32_t references, mappings;
    uint32_t exports; /* entries of struct export that are descriptors */
    uint32_t next;    /* the next free place, plus 1 */
    uint16_t purse;   /* who pays for it: state.h */
    bool lingers;     /* only descriptors keep it */
    bool exported;    /* there are, or were, entries of struct export */
};

struct export
{
    memory_name name;
    struct shareable shareable;
    dev_t device; /* of the descriptor: what it leads to, to see that it still does */
    ino_t inode;
};

/* All zeroes is empty. Entries of the maps: `bytes` is the memory's name. */
struct handles {
    struct allocmap values;    /* by handle; owner: how many references go by that value */
    struct allocmap mapped;    /* by address; owner: how long, in pages of 4 KiB */
    struct allocmap externals; /* external memory objects, by pointer; owner: the context whose end ends it */
    struct allocmap buffers;   /* mapped from those, by address; owner likewise */
    struct memory *memory;
    uint32_t memory_count, memory_capacity, memory_free; /* free: the first free place, plus 1 */
    struct export *exports;
    uint32_t export_count, export_capacity;
    uint32_t lingering; /* pieces */
};

struct account;

/* Looks whether descriptors have been closed, and credits what nothing keeps any more. Costs nothing where nothing lingers. */
void handles_look(struct account *account);

/* A context has ended, or cuMemFree has freed a buffer. */
void handles_close_owner(struct account *account, uint32_t owner);
void handles_buffer_freed(struct account *account, CUdeviceptr buffer);

#endif
