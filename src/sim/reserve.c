/*
 * Address reservations: ranges programs ask for to map memory in. Each is two ranges of the host: the addresses themselves,
 * which nobody can touch, and a shadow of the same size where the bytes of what is mapped are. Both cost nothing until
 * bytes are written. Called by vmm.c, address.c, memory.c and pointer.c. Under sim_lock.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "sim/vmm.h"

static struct reservation *reservations;

static void *pointer_of(uint64_t address)
{
    return (void *)(uintptr_t)address;
}

/* Addresses nobody can touch. NULL: none. */
static unsigned char *range_map(uint64_t hint, uint64_t bytes, int flags)
{
    void *mapping =
        mmap(pointer_of(hint), bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | flags, -1, 0);
    return mapping == MAP_FAILED ? NULL : mapping;
}

/* The range at the hint if it is free there, else anywhere, aligned. 0: no room. */
static uint64_t addresses_take(uint64_t bytes, uint64_t alignment, uint64_t hint)
{
    uint64_t whole;
    if (hint && hint % alignment == 0 && range_map(hint, bytes, MAP_FIXED_NOREPLACE) == pointer_of(hint))
        return hint;
    if (__builtin_add_overflow(bytes, alignment, &whole))
        return 0;
    unsigned char *mapping = range_map(0, whole, 0);
    if (!mapping)
        return 0;
    uint64_t start = (uint64_t)(uintptr_t)mapping, base = (start + alignment - 1) / alignment * alignment;
    if (base > start)
        munmap(mapping, base - start);
    if (base + bytes < start + whole)
        munmap(pointer_of(base + bytes), start + whole - base - bytes);
    return base;
}

static struct block **table_map(uint64_t bytes)
{
    void *table = mmap(NULL, bytes / GRANULE_BYTES * sizeof(struct block *), PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return table == MAP_FAILED ? NULL : table;
}

void reserve_remove(struct reservation *reservation)
{
    struct reservation **link = &reservations;
    while (*link && *link != reservation)
        link = &(*link)->next;
    if (*link)
        *link = reservation->next;
    if (reservation->base)
        munmap(pointer_of(reservation->base), reservation->bytes);
    if (reservation->shadow)
        munmap(reservation->shadow, reservation->bytes);
    if (reservation->table)
        munmap(reservation->table, reservation->bytes / GRANULE_BYTES * sizeof(struct block *));
    free(reservation);
}

CUresult reserve_add(uint64_t bytes, uint64_t alignment, uint64_t hint, struct reservation **made)
{
    int saved = errno;
    if (bytes == 0 || bytes % GRANULE_BYTES != 0 || (alignment & (alignment - 1)) != 0)
        return CUDA_ERROR_INVALID_VALUE;
    struct reservation *reservation = calloc(1, sizeof(*reservation));
    if (!reservation)
        return CUDA_ERROR_OUT_OF_MEMORY;
    reservation->bytes = bytes;
    reservation->base = addresses_take(bytes, alignment > GRANULE_BYTES ? alignment : GRANULE_BYTES, hint);
    reservation->shadow = range_map(0, bytes, 0);
    reservation->table = table_map(bytes);
    errno = saved;
    if (!reservation->base || !reservation->shadow || !reservation->table) {
        reserve_remove(reservation);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    reservation->next = reservations;
    reservations = reservation;
    *made = reservation;
    return CUDA_SUCCESS;
}

struct reservation *reserve_find(uint64_t address)
{
    for (struct reservation *reservation = reservations; reservation; reservation = reservation->next)
        if (address - reservation->base < reservation->bytes)
            return reservation;
    return NULL;
}

struct block *reserve_block(uint64_t address)
{
    const struct reservation *reservation = reserve_find(address);
    return reservation ? reservation->table[(address - reservation->base) / GRANULE_BYTES] : NULL;
}

struct block *reserve_next(const struct reservation *reservation, uint64_t address, uint64_t end)
{
    for (; address < end; address += GRANULE_BYTES) {
        struct block *block = reservation->table[(address - reservation->base) / GRANULE_BYTES];
        if (block && block->base >= address)
            return block;
    }
    return NULL;
}

/* Which device works is not looked at: what one device may touch, a copy reaches. */
CUresult reserve_take(struct span *span, uint64_t address, uint64_t bytes, unsigned kind)
{
    struct reservation *reservation = reserve_find(address);
    if (bytes > reservation->bytes - (address - reservation->base))
        return CUDA_ERROR_INVALID_VALUE;
    for (uint64_t at = address; at < address + bytes;) {
        const struct block *block = reserve_block(at);
        if (!block || !(kind & SPAN_WRITE ? block->writable : block->readable))
            return CUDA_ERROR_INVALID_VALUE;
        if (!block->data)
            return CUDA_ERROR_NOT_SUPPORTED; /* a multicast object: what lies behind it is not simulated */
        at = block->base + block->bytes;
    }
    reservation->holds++;
    span->reservation = reservation;
    span->bytes = reservation->shadow + (address - reservation->base);
    return CUDA_SUCCESS;
}

void reserve_release(struct span *span)
{
    if (!span->reservation)
        return;
    sim_lock();
    if (--span->reservation->holds == 0)
        sim_wake();
    sim_unlock();
    span->reservation = NULL;
}

static void table_fill(struct reservation *reservation, const struct block *block, struct block *value)
{
    uint64_t at = (block->base - reservation->base) / GRANULE_BYTES;
    for (uint64_t i = 0; i < block->granules; i++)
        reservation->table[at + i] = value;
}

/* A second mapping of shared memory in a given place, by its address alone: no descriptor is kept for it. */
static bool bytes_show(const struct physical *physical, unsigned char *place)
{
    if (mremap(physical->data, 0, physical->bytes, MREMAP_MAYMOVE | MREMAP_FIXED, place) == MAP_FAILED)
        return false;
    madvise(place, physical->bytes, MADV_DONTFORK);
    madvise(place, physical->bytes, MADV_DONTDUMP);
    return true;
}

bool reserve_map(struct reservation *reservation, struct block *block, const struct physical *physical)
{
    int saved = errno;
    if (physical->data) {
        block->data = reservation->shadow + (block->base - reservation->base);
        bool shown = bytes_show(physical, block->data);
        errno = saved;
        if (!shown)
            return false;
    }
    table_fill(reservation, block, block);
    return true;
}

void reserve_unmap(struct reservation *reservation, struct block *block)
{
    int saved = errno;
    table_fill(reservation, block, NULL);
    range_map((uint64_t)(uintptr_t)reservation->shadow + (block->base - reservation->base), block->bytes, MAP_FIXED);
    range_map(block->base, block->bytes, MAP_FIXED);
    errno = saved;
}

bool reserve_open_to_host(const struct block *block, const struct physical *physical)
{
    int saved = errno;
    bool shown = bytes_show(physical, pointer_of(block->base));
    errno = saved;
    return shown;
}
