/*
 * A table of pointers and what they were charged: open addressing, linear probing, removal by shifting back, so that it needs
 * no tombstones and a removed entry costs nobody anything. Private to src/account, which holds the books' lock around
 * every call. Memory comes from mmap and is kept out of forked children, who start with no table.
 */
#ifndef ACCOUNT_ALLOCMAP_H
#define ACCOUNT_ALLOCMAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { ENTRY_LEAVING = 1 }; /* in `uses` of memory that is not of a pool: a thread is at freeing it */

enum { ALLOCATION_PURSE_BITS = 10, ALLOCATION_KIND_BITS = 6 };
#define ALLOCATION_PURSE(purse) ((purse) & ((1u << ALLOCATION_PURSE_BITS) - 1))
#define ALLOCATION_KIND(kind)   ((unsigned)(kind) & ((1u << ALLOCATION_KIND_BITS) - 1))

struct allocation {
    uint64_t pointer; /* 0: an empty place */
    uint64_t bytes;   /* charged; in the table of shared blocks: how many allocations lie in the block */
    uint32_t owner;
    uint16_t purse : ALLOCATION_PURSE_BITS, kind : ALLOCATION_KIND_BITS; /* who paid, of what device: state.h */
    uint16_t uses; /* of contexts: cuCtxAttach and cuCtxDetach; of pools' pointers: the number of the pool */
};

/* All zeroes is empty. Invariant: count <= capacity * 3 / 4, capacity a power of two or 0. */
struct allocmap {
    struct allocation *places;
    size_t capacity, count;
    unsigned shift; /* 64 - log2(capacity) */
};

/* Makes room for one more entry. 0; -ENOMEM: the table is full. */
int allocmap_grow(struct allocmap *map);

/* Pointers are multiples of 512 or of 2 MiB; the multiplication spreads both over the high bits. */
static inline size_t allocmap_place(const struct allocmap *map, uint64_t pointer)
{
    return (size_t)(pointer * 0x9E3779B97F4A7C15ULL >> map->shift);
}

/* The entry of a pointer, valid until the next change, or NULL. Inline: every allocation asks some four times. */
static inline struct allocation *allocmap_find(const struct allocmap *map, uint64_t pointer)
{
    if (map->count == 0 || pointer == 0)
        return NULL;
    for (size_t at = allocmap_place(map, pointer);; at = (at + 1) & (map->capacity - 1)) {
        struct allocation *place = &map->places[at];
        if (place->pointer == pointer)
            return place;
        if (place->pointer == 0)
            return NULL;
    }
}

/* Adds an entry. 0; 1: it replaced one of the same pointer, now in *replaced; -ENOMEM. */
static inline int allocmap_insert(struct allocmap *map, const struct allocation *entry, struct allocation *replaced)
{
    if (__builtin_expect(map->count >= map->capacity / 4 * 3, 0)) {
        int result = allocmap_grow(map);
        if (result != 0)
            return result;
    }
    size_t at = allocmap_place(map, entry->pointer);
    while (map->places[at].pointer != 0 && map->places[at].pointer != entry->pointer)
        at = (at + 1) & (map->capacity - 1);
    struct allocation *place = &map->places[at];
    bool there = place->pointer != 0;
    if (there)
        *replaced = *place;
    else
        map->count++;
    *place = *entry;
    return there;
}

/* The entry of a pointer; one of nothing but the pointer where there was none (*fresh). NULL: no memory. To be filled in place:
 * an entry that is put together first and copied then is read before its parts are written, which the processor waits for. */
static inline struct allocation *allocmap_enter(struct allocmap *map, uint64_t pointer, bool *fresh)
{
    if (__builtin_expect(map->count >= map->capacity / 4 * 3, 0) && allocmap_grow(map) != 0)
        return NULL;
    size_t at = allocmap_place(map, pointer);
    while (map->places[at].pointer != 0 && map->places[at].pointer != pointer)
        at = (at + 1) & (map->capacity - 1);
    struct allocation *place = &map->places[at];
    *fresh = place->pointer == 0;
    if (*fresh) {
        map->count++;
        *place = (struct allocation){.pointer = pointer};
    }
    return place;
}

/* Takes out an entry that was found; no other pointer into the table stays good. */
void allocmap_drop(struct allocmap *map, struct allocation *entry);

/* Takes an entry out. False: there is none. */
bool allocmap_remove(struct allocmap *map, uint64_t pointer, struct allocation *removed);

/* Takes out any one entry of an owner, for the end of a context. *from is where to go on: 0 at first. */
bool allocmap_remove_of(struct allocmap *map, uint32_t owner, size_t *from, struct allocation *removed);

#endif
