/*
 * The address space of device memory. Addresses are a reservation that nobody can touch, so that a host load from a
 * device pointer faults as it does on a card; the bytes are mapped elsewhere, but for managed memory, which is mapped in
 * its place. Everything is lazy: a big machine takes no memory until bytes are written.
 *
 * Two regions: one for all, twice as big as the cards together, so that fragmentation is no matter; and a small one below
 * 4 GiB for the 32-bit interface. A table has for each granule the block it belongs to. A pool's arena is a region of its
 * own and one block. What programs reserve for themselves lies outside all of these (reserve.c). Under sim_lock.
 */
#include "sim/block.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "sim/vmm.h"

struct region {
    uint64_t base, granules;
    uint64_t next; /* where the last search ended */
    struct block **table;
    struct region *more; /* of the arenas */
};

#define LOW_BYTES (256ULL << 20)

static struct region high, low, *arenas;

static void *memory_map(void *address, uint64_t bytes, int protection, int flags)
{
    void *mapping = mmap(address, bytes, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | flags, -1, 0);
    return mapping == MAP_FAILED ? NULL : mapping;
}

static bool region_describe(struct region *region, uint64_t address, uint64_t bytes)
{
    region->table = memory_map(NULL, bytes / GRANULE_BYTES * sizeof(*region->table), PROT_READ | PROT_WRITE, 0);
    if (!region->table)
        return false;
    region->base = address;
    region->granules = bytes / GRANULE_BYTES;
    return true;
}

static bool region_make_high(void)
{
    uint64_t bytes = sim_process.machine.shared->memory_bytes * sim_process.device_count * 2;
    bytes = (bytes + 64 * GRANULE_BYTES) / GRANULE_BYTES * GRANULE_BYTES;
    for (; bytes >= GRANULE_BYTES; bytes = bytes / 2 / GRANULE_BYTES * GRANULE_BYTES) {
        unsigned char *mapping = memory_map(NULL, bytes + GRANULE_BYTES, PROT_NONE, 0);
        if (!mapping)
            continue;
        uint64_t base = ((uint64_t)(uintptr_t)mapping + GRANULE_BYTES - 1) / GRANULE_BYTES * GRANULE_BYTES;
        return region_describe(&high, base, bytes);
    }
    return false;
}

static bool region_make_low(void)
{
    for (uint64_t address = 0x20000000; address < 0xF0000000; address += LOW_BYTES)
        if (memory_map((void *)(uintptr_t)address, LOW_BYTES, PROT_NONE, MAP_FIXED_NOREPLACE))
            return region_describe(&low, address, LOW_BYTES);
    return false;
}

/* The first run of free granules from the last search on, then from the beginning. UINT64_MAX: none. */
static uint64_t region_search(const struct region *region, uint64_t start, uint64_t granules)
{
    uint64_t run = 0;
    for (uint64_t i = start; i < region->granules;) {
        const struct block *taken = region->table[i];
        if (taken) {
            i = (taken->base - region->base) / GRANULE_BYTES + taken->granules;
            run = 0;
            continue;
        }
        i++;
        if (++run == granules)
            return i - granules;
    }
    return UINT64_MAX;
}

static bool bytes_map(struct block *block)
{
    uint64_t bytes = block->granules * GRANULE_BYTES;
    if (block->data)
        return true;
    if (block->managed || block->host) {
        block->data = memory_map((void *)(uintptr_t)block->base, bytes, PROT_READ | PROT_WRITE, MAP_FIXED);
        return block->data != NULL;
    }
    block->data = memory_map(NULL, bytes, PROT_READ | PROT_WRITE, 0);
    if (block->data) {
        madvise(block->data, bytes, MADV_DONTFORK);
        madvise(block->data, bytes, MADV_DONTDUMP);
    }
    block->mapping = block->data;
    block->mapping_bytes = bytes;
    return block->data != NULL;
}

bool address_take(struct block *block, bool in_low)
{
    int saved = errno;
    struct region *region = in_low ? &low : &high;
    bool taken = false;
    if (region->table || (in_low ? region_make_low() : region_make_high())) {
        uint64_t at = region_search(region, region->next, block->granules);
        if (at == UINT64_MAX)
            at = region_search(region, 0, block->granules);
        if (at != UINT64_MAX) {
            block->base = region->base + at * GRANULE_BYTES;
            taken = bytes_map(block);
        }
        for (uint64_t i = 0; taken && i < block->granules; i++)
            region->table[at + i] = block;
        if (taken)
            region->next = at + block->granules;
    }
    errno = saved;
    return taken;
}

static struct region *region_of(uint64_t address)
{
    struct region *const regions[] = {&high, &low};
    for (int i = 0; i < 2; i++)
        if (regions[i]->table && address >= regions[i]->base &&
            address - regions[i]->base < regions[i]->granules * GRANULE_BYTES)
            return regions[i];
    for (struct region *arena = arenas; arena; arena = arena->more)
        if (address >= arena->base && address - arena->base < arena->granules * GRANULE_BYTES)
            return arena;
    return NULL;
}

/* Of the card's size four times over: what lies in the way of growth is left behind sooner than it goes. */
bool address_take_arena(struct block *block, uint64_t alignment)
{
    int saved = errno;
    uint64_t bytes = (sim_process.machine.shared->memory_bytes * 4 + alignment) / alignment * alignment;
    struct region *region = calloc(1, sizeof(*region));
    unsigned char *mapping = region ? memory_map(NULL, bytes + alignment, PROT_NONE, 0) : NULL;
    uint64_t base = ((uint64_t)(uintptr_t)mapping + alignment - 1) / alignment * alignment;
    block->base = base;
    block->granules = bytes / GRANULE_BYTES;
    bool made = mapping && region_describe(region, base, bytes);
    if (made && !bytes_map(block)) {
        munmap(region->table, region->granules * sizeof(*region->table));
        made = false;
    }
    for (uint64_t i = 0; made && i < region->granules; i++)
        region->table[i] = block;
    if (made) {
        region->more = arenas;
        arenas = region;
    } else {
        if (mapping)
            munmap(mapping, bytes + alignment);
        free(region);
    }
    errno = saved;
    return made;
}

void address_leave(struct block *block)
{
    struct region *region = region_of(block->base);
    uint64_t at = (block->base - region->base) / GRANULE_BYTES;
    for (uint64_t i = 0; i < block->granules; i++)
        region->table[at + i] = NULL;
}

void address_unmap(struct block *block)
{
    if (block->managed || block->host)
        memory_map((void *)(uintptr_t)block->base, block->granules * GRANULE_BYTES, PROT_NONE, MAP_FIXED);
    else if (block->mapping)
        munmap(block->mapping, block->mapping_bytes);
    if (block->descriptor)
        close(block->descriptor);
}

static bool region_any(const struct region *region, bool (*holds)(const struct block *block))
{
    for (uint64_t i = 0; i < region->granules;) {
        const struct block *block = region->table[i];
        if (block && holds(block))
            return true;
        i += block ? block->granules : 1;
    }
    return false;
}

bool address_any(bool (*holds)(const struct block *block))
{
    bool any = (high.table && region_any(&high, holds)) || (low.table && region_any(&low, holds));
    for (const struct region *arena = arenas; !any && arena; arena = arena->more)
        any = region_any(arena, holds);
    return any;
}

struct block *address_block(uint64_t address)
{
    const struct region *region = region_of(address);
    return region ? region->table[(address - region->base) / GRANULE_BYTES] : reserve_block(address);
}

bool memory_is_device_range(uint64_t address)
{
    return region_of(address) != NULL || reserve_find(address) != NULL;
}
