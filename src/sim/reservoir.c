/* The physical bytes behind a memory pool; see reservoir.h. */
#include "sim/reservoir.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static uint64_t bytes_in_units(uint64_t bytes)
{
    return (bytes + UNIT_BYTES - 1) / UNIT_BYTES * UNIT_BYTES;
}

/* The first place in [from, to) where that many bytes lie in backed steps. UINT64_MAX: none. */
static uint64_t hole_search(const struct reservoir *reservoir, uint64_t from, uint64_t to, uint64_t bytes)
{
    for (uint64_t step = from / STEP_BYTES; from + bytes <= to; step++) {
        if (!reservoir->backed[step])
            from = (step + 1) * STEP_BYTES;
        else if ((step + 1) * STEP_BYTES >= from + bytes)
            return from;
    }
    return UINT64_MAX;
}

/* Finds a hole; *index is where its extent belongs. */
static uint64_t hole_find(const struct reservoir *reservoir, uint64_t bytes, size_t *index)
{
    uint64_t from = 0;
    for (*index = 0; *index < reservoir->extent_count; ++*index) {
        const struct extent *extent = &reservoir->extents[*index];
        uint64_t at = hole_search(reservoir, from, extent->offset, bytes);
        if (at != UINT64_MAX)
            return at;
        from = extent->offset + extent->bytes;
    }
    return hole_search(reservoir, from, reservoir->steps * STEP_BYTES, bytes);
}

/* Where the free bytes at the tail begin. */
static uint64_t tail_start(const struct reservoir *reservoir)
{
    uint64_t start = reservoir->steps;
    while (start > 0 && reservoir->backed[start - 1])
        start--;
    start *= STEP_BYTES;
    if (reservoir->extent_count > 0) {
        const struct extent *last = &reservoir->extents[reservoir->extent_count - 1];
        if (last->offset + last->bytes > start)
            start = last->offset + last->bytes;
    }
    return start;
}

static bool steps_charge(struct reservoir *reservoir, uint64_t steps)
{
    uint64_t most_bytes = (reservoir->most_bytes + STEP_BYTES - 1) / STEP_BYTES * STEP_BYTES;
    if (reservoir->most_bytes && reservoir->reserved_bytes + steps * STEP_BYTES > most_bytes)
        return false;
    if (!reservoir->uncharged && machine_charge(&sim_process.machine, reservoir->device, steps * STEP_BYTES) != 0)
        return false;
    reservoir->reserved_bytes += steps * STEP_BYTES;
    if (reservoir->reserved_bytes > reservoir->reserved_high_bytes)
        reservoir->reserved_high_bytes = reservoir->reserved_bytes;
    return true;
}

/* Backs a run of steps that have gone back to the card, where the addresses of the arena are spent. */
static bool gap_fill(struct reservoir *reservoir, uint64_t bytes)
{
    uint64_t steps = (bytes + STEP_BYTES - 1) / STEP_BYTES, run = 0;
    for (uint64_t step = 0; step < reservoir->steps; step++) {
        run = reservoir->backed[step] ? 0 : run + 1;
        if (run < steps)
            continue;
        if (!steps_charge(reservoir, steps))
            return false;
        for (uint64_t i = 0; i < steps; i++)
            reservoir->backed[step - i] = true;
        return true;
    }
    return false;
}

/* Adds steps at the tail until that many bytes are free there. */
static bool tail_grow(struct reservoir *reservoir, uint64_t bytes)
{
    uint64_t have_bytes = reservoir->steps * STEP_BYTES - tail_start(reservoir);
    uint64_t more = (bytes - have_bytes + STEP_BYTES - 1) / STEP_BYTES;
    if ((reservoir->steps + more) * STEP_BYTES > reservoir->arena->granules * GRANULE_BYTES)
        return gap_fill(reservoir, bytes);
    bool *backed = realloc(reservoir->backed, reservoir->steps + more);
    if (!backed)
        return false;
    reservoir->backed = backed;
    if (!steps_charge(reservoir, more))
        return false;
    for (uint64_t i = 0; i < more; i++)
        reservoir->backed[reservoir->steps++] = true;
    return true;
}

/* Makes room in the list, and addresses for the first allocation of all. */
static bool reservoir_prepare(struct reservoir *reservoir, const struct block *kind)
{
    if (reservoir->extent_count == reservoir->extent_room) {
        size_t room = reservoir->extent_room * 2 + 16;
        struct extent *more = realloc(reservoir->extents, room * sizeof(*more));
        if (!more)
            return false;
        reservoir->extents = more;
        reservoir->extent_room = room;
    }
    if (reservoir->arena)
        return true;
    struct block *arena = calloc(1, sizeof(*arena));
    if (arena) {
        *arena = *kind;
        arena->reservoir = reservoir;
        arena->uncharged = true;
        if (address_take_arena(arena, STEP_BYTES)) {
            reservoir->arena = arena;
            return true;
        }
    }
    free(arena);
    return false;
}

uint64_t reservoir_take(struct reservoir *reservoir, const struct block *kind, uint64_t bytes)
{
    size_t index;
    uint64_t taken_bytes = bytes_in_units(bytes);
    if (bytes > 2 * sim_process.machine.shared->memory_bytes || !reservoir_prepare(reservoir, kind))
        return 0;
    uint64_t at = hole_find(reservoir, taken_bytes, &index);
    if (at == UINT64_MAX && tail_grow(reservoir, taken_bytes))
        at = hole_find(reservoir, taken_bytes, &index);
    if (at == UINT64_MAX)
        return 0;
    struct extent *place = &reservoir->extents[index];
    memmove(place + 1, place, (reservoir->extent_count++ - index) * sizeof(*place));
    *place = (struct extent){.offset = at, .bytes = taken_bytes, .asked_bytes = bytes, .id = memory_next_id()};
    reservoir->used_bytes += bytes;
    if (reservoir->used_bytes > reservoir->used_high_bytes)
        reservoir->used_high_bytes = reservoir->used_bytes;
    return reservoir->arena->base + at;
}

const struct extent *reservoir_find(const struct reservoir *reservoir, uint64_t address)
{
    uint64_t offset = address - reservoir->arena->base;
    size_t low = 0, high = reservoir->extent_count; /* the last extent that begins at or before it lies below high */
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (reservoir->extents[middle].offset <= offset)
            low = middle + 1;
        else
            high = middle;
    }
    const struct extent *extent = low > 0 ? &reservoir->extents[low - 1] : NULL;
    return extent && offset - extent->offset < extent->bytes ? extent : NULL;
}

void reservoir_give(struct reservoir *reservoir, uint64_t address, const struct stream_place *place)
{
    const struct extent *extent = reservoir_find(reservoir, address);
    if (!extent)
        return;
    struct unseen *unseen = place ? calloc(1, sizeof(*unseen)) : NULL;
    if (unseen) {
        *unseen = (struct unseen){.next = reservoir->unseen,
                                  .offset = extent->offset,
                                  .bytes = extent->bytes,
                                  .place = *place,
                                  .moment = stream_moment()};
        reservoir->unseen = unseen;
    }
    reservoir->used_bytes -= extent->asked_bytes;
    size_t index = (size_t)(extent - reservoir->extents);
    struct extent *gone = &reservoir->extents[index];
    memmove(gone, gone + 1, (--reservoir->extent_count - index) * sizeof(*gone));
}

static bool sight_covers(const struct sight *sight, const struct unseen *unseen)
{
    if (unseen->moment > sight->moment || unseen->place.context != sight->context)
        return false;
    if (sight->place.id == 0 || sight->place.id == unseen->place.id)
        return true;
    return sight->place.legacy && unseen->place.blocking; /* the legacy stream waits for all of these */
}

void reservoir_see(struct reservoir *reservoir, const struct sight *sight)
{
    for (struct unseen **link = &reservoir->unseen; *link;) {
        struct unseen *unseen = *link;
        if (!sight_covers(sight, unseen)) {
            link = &unseen->next;
            continue;
        }
        *link = unseen->next;
        free(unseen);
    }
}

static bool step_is_empty(const struct reservoir *reservoir, uint64_t step)
{
    uint64_t from = step * STEP_BYTES, to = from + STEP_BYTES;
    for (size_t i = 0; i < reservoir->extent_count; i++)
        if (reservoir->extents[i].offset < to && reservoir->extents[i].offset + reservoir->extents[i].bytes > from)
            return false;
    for (const struct unseen *unseen = reservoir->unseen; unseen; unseen = unseen->next)
        if (unseen->offset < to && unseen->offset + unseen->bytes > from)
            return false;
    return true;
}

void reservoir_trim(struct reservoir *reservoir, uint64_t keep_bytes)
{
    uint64_t given_bytes = 0;
    for (uint64_t step = reservoir->steps; step > 0; step--) {
        if (reservoir->reserved_bytes < STEP_BYTES || reservoir->reserved_bytes - STEP_BYTES < keep_bytes)
            break;
        if (!reservoir->backed[step - 1] || !step_is_empty(reservoir, step - 1))
            continue;
        reservoir->backed[step - 1] = false;
        reservoir->reserved_bytes -= STEP_BYTES;
        given_bytes += STEP_BYTES;
        madvise(reservoir->arena->data + (step - 1) * STEP_BYTES, STEP_BYTES, MADV_DONTNEED);
    }
    while (reservoir->steps > 0 && !reservoir->backed[reservoir->steps - 1])
        reservoir->steps--;
    if (given_bytes > 0 && !reservoir->uncharged)
        machine_credit(&sim_process.machine, reservoir->device, given_bytes);
}

void reservoir_reset(struct reservoir *reservoir)
{
    struct block *arena = reservoir->arena;
    free(reservoir->backed);
    free(reservoir->extents);
    *reservoir = (struct reservoir){.arena = arena};
}
