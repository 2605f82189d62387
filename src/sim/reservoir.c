/* The physical bytes behind a memory pool; see reservoir.h. */
#include "sim/reservoir.h"

#include <stdlib.h>

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

/* Finds a hole; *link is where its extent belongs in the list. */
static uint64_t hole_find(struct reservoir *reservoir, uint64_t bytes, struct extent ***link)
{
    uint64_t from = 0;
    for (*link = &reservoir->extents; **link; *link = &(**link)->next) {
        uint64_t at = hole_search(reservoir, from, (**link)->offset, bytes);
        if (at != UINT64_MAX)
            return at;
        from = (**link)->offset + (**link)->bytes;
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
    for (const struct extent *extent = reservoir->extents; extent; extent = extent->next)
        if (extent->offset + extent->bytes > start)
            start = extent->offset + extent->bytes;
    return start;
}

/* Adds steps at the tail until that many bytes are free there. */
static bool tail_grow(struct reservoir *reservoir, uint64_t bytes)
{
    uint64_t have_bytes = reservoir->steps * STEP_BYTES - tail_start(reservoir);
    uint64_t more = (bytes - have_bytes + STEP_BYTES - 1) / STEP_BYTES;
    uint64_t most_bytes = (reservoir->most_bytes + STEP_BYTES - 1) / STEP_BYTES * STEP_BYTES;
    if (reservoir->most_bytes && reservoir->reserved_bytes + more * STEP_BYTES > most_bytes)
        return false;
    if (!reservoir->uncharged && machine_charge(&sim_process.machine, reservoir->device, more * STEP_BYTES) != 0)
        return false;
    bool *backed = realloc(reservoir->backed, reservoir->steps + more);
    if (!backed) {
        if (!reservoir->uncharged)
            machine_credit(&sim_process.machine, reservoir->device, more * STEP_BYTES);
        return false;
    }
    reservoir->backed = backed;
    for (uint64_t i = 0; i < more; i++)
        reservoir->backed[reservoir->steps++] = true;
    reservoir->reserved_bytes += more * STEP_BYTES;
    if (reservoir->reserved_bytes > reservoir->reserved_high_bytes)
        reservoir->reserved_high_bytes = reservoir->reserved_bytes;
    return true;
}

struct extent *reservoir_take(struct reservoir *reservoir, uint64_t bytes)
{
    struct extent **link;
    uint64_t taken_bytes = bytes_in_units(bytes);
    if (bytes > 2 * sim_process.machine.shared->memory_bytes)
        return NULL;
    struct extent *extent = calloc(1, sizeof(*extent));
    if (!extent)
        return NULL;
    uint64_t at = hole_find(reservoir, taken_bytes, &link);
    if (at == UINT64_MAX && tail_grow(reservoir, taken_bytes))
        at = hole_find(reservoir, taken_bytes, &link);
    if (at == UINT64_MAX) {
        free(extent);
        return NULL;
    }
    *extent = (struct extent){.next = *link, .offset = at, .bytes = taken_bytes, .asked_bytes = bytes};
    *link = extent;
    reservoir->used_bytes += bytes;
    if (reservoir->used_bytes > reservoir->used_high_bytes)
        reservoir->used_high_bytes = reservoir->used_bytes;
    return extent;
}

void reservoir_give(struct reservoir *reservoir, uint64_t address, const struct stream_place *place)
{
    struct extent **link = &reservoir->extents;
    while (*link && (*link)->address != address)
        link = &(*link)->next;
    struct extent *extent = *link;
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
    *link = extent->next;
    free(extent);
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
    for (const struct extent *extent = reservoir->extents; extent; extent = extent->next)
        if (extent->offset < to && extent->offset + extent->bytes > from)
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
    }
    while (reservoir->steps > 0 && !reservoir->backed[reservoir->steps - 1])
        reservoir->steps--;
    if (given_bytes > 0 && !reservoir->uncharged)
        machine_credit(&sim_process.machine, reservoir->device, given_bytes);
}

void reservoir_end(struct reservoir *reservoir)
{
    free(reservoir->backed);
    *reservoir = (struct reservoir){0};
}
