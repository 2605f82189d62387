/* The table of pointers; allocmap.h has who calls it and what synchronises it. */
#include "config.h"

#include <errno.h>
#include <sys/mman.h>
#include "account/allocmap.h"

enum { CAPACITY_FIRST = 1024, HUGE_FROM_BYTES = 4 << 20 };

/* Pointers are multiples of 512 or of 2 MiB; the multiplication spreads both over the high bits. */
static inline size_t place_of(const struct allocmap *map, uint64_t pointer)
{
    unsigned bits = (unsigned)__builtin_ctzll(map->capacity);
    return (size_t)(pointer * 0x9E3779B97F4A7C15ULL >> (64 - bits));
}

static inline size_t place_next(const struct allocmap *map, size_t place)
{
    return (place + 1) & (map->capacity - 1);
}

static void place_put(struct allocmap *map, const struct allocation *entry)
{
    size_t at = place_of(map, entry->pointer);
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
    struct allocmap larger = {.places = places, .capacity = capacity, .count = map->count};
    for (size_t i = 0; i < map->capacity; i++)
        if (map->places[i].pointer != 0)
            place_put(&larger, &map->places[i]);
    if (map->places != NULL)
        (void)munmap(map->places, map->capacity * sizeof *map->places);
    *map = larger;
    return 0;
}

struct allocation *allocmap_find(const struct allocmap *map, uint64_t pointer)
{
    if (map->capacity == 0 || pointer == 0)
        return NULL;
    for (size_t at = place_of(map, pointer); map->places[at].pointer != 0; at = place_next(map, at))
        if (map->places[at].pointer == pointer)
            return &map->places[at];
    return NULL;
}

int allocmap_insert(struct allocmap *map, const struct allocation *entry, struct allocation *replaced)
{
    struct allocation *there = allocmap_find(map, entry->pointer);
    if (there != NULL) {
        *replaced = *there;
        *there = *entry;
        return 1;
    }
    if (map->count >= map->capacity / 4 * 3) {
        int result = table_grow(map);
        if (result != 0 && map->count + 1 >= map->capacity) /* fuller than it should be is better than lost */
            return result;
    }
    place_put(map, entry);
    map->count++;
    return 0;
}

/* Empties a place and moves back what was pushed beyond it, so that no search ends early. */
static void place_clear(struct allocmap *map, size_t hole)
{
    size_t mask = map->capacity - 1;
    for (size_t at = place_next(map, hole); map->places[at].pointer != 0; at = place_next(map, at)) {
        size_t home = place_of(map, map->places[at].pointer);
        if (((at - home) & mask) >= ((at - hole) & mask)) { /* its home lies at or before the hole */
            map->places[hole] = map->places[at];
            hole = at;
        }
    }
    map->places[hole].pointer = 0;
    map->count--;
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
