/* The table of pointers; allocmap.h has who calls it and what synchronises it. */
#include "config.h"

#include <errno.h>
#include <sys/mman.h>
#include "account/allocmap.h"

enum { CAPACITY_FIRST = 1024, HUGE_FROM_BYTES = 4 << 20 };

static inline size_t place_next(const struct allocmap *map, size_t place)
{
    return (place + 1) & (map->capacity - 1);
}

static void place_put(struct allocmap *map, const struct allocation *entry)
{
    size_t at = allocmap_place(map, entry->pointer);
    while (map->places[at].pointer != 0)
        at = place_next(map, at);
    map->places[at] = *entry;
}

static int table_grow(struct allocmap *map)
{
    size_t capacity = map->capacity != 0 ? map->capacity * 2 : CAPACITY_FIRST;
    size_t bytes = capacity * sizeof *map->places;
    struct allocation *places = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (places == MAP_FAILED)
        return -ENOMEM;
    (void)madvise(places, bytes, MADV_DONTFORK);
    if (bytes >= HUGE_FROM_BYTES) /* a look into a large table is a miss in the TLB as well; ask for fewer pages */
        (void)madvise(places, bytes, MADV_HUGEPAGE);
    struct allocmap larger = {
        .places = places, .capacity = capacity, .count = map->count, .shift = 64 - (unsigned)__builtin_ctzll(capacity)};
    for (size_t i = 0; i < map->capacity; i++)
        if (map->places[i].pointer != 0)
            place_put(&larger, &map->places[i]);
    if (map->places != NULL)
        (void)munmap(map->places, map->capacity * sizeof *map->places);
    *map = larger;
    return 0;
}

int allocmap_grow(struct allocmap *map)
{
    int result = table_grow(map);
    return result != 0 && map->count + 1 < map->capacity ? 0
                                                         : result; /* fuller than it should be is better than lost */
}

/* Empties a place and moves back what was pushed beyond it, so that no search ends early. */
static void place_clear(struct allocmap *map, size_t hole)
{
    size_t mask = map->capacity - 1;
    for (size_t at = place_next(map, hole); map->places[at].pointer != 0; at = place_next(map, at)) {
        size_t home = allocmap_place(map, map->places[at].pointer);
        if (((at - home) & mask) >= ((at - hole) & mask)) { /* its home lies at or before the hole */
            map->places[hole] = map->places[at];
            hole = at;
        }
    }
    map->places[hole].pointer = 0;
    map->count--;
}

void allocmap_drop(struct allocmap *map, struct allocation *entry)
{
    place_clear(map, (size_t)(entry - map->places));
}

bool allocmap_remove(struct allocmap *map, uint64_t pointer, struct allocation *removed)
{
    struct allocation *there = allocmap_find(map, pointer);
    if (there == NULL)
        return false;
    *removed = *there;
    place_clear(map, (size_t)(there - map->places));
    return true;
}

bool allocmap_remove_of(struct allocmap *map, uint32_t owner, size_t *from, struct allocation *removed)
{
    /* Removal may move an entry from the front of the table to its end, past which a single pass would not come again: an
     * entry that wrapped round. So the pass goes on for one full run beyond the end. */
    for (size_t step = *from; step < 2 * map->capacity; step++) {
        size_t at = step & (map->capacity - 1);
        if (map->places[at].pointer == 0 || map->places[at].owner != owner)
            continue;
        *removed = map->places[at];
        place_clear(map, at);
        *from = step; /* the place may hold another now */
        return true;
    }
    *from = 2 * map->capacity;
    return false;
}
