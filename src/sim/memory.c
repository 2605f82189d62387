/*
 * Device memory: allocated, freed, looked up and held while copies work on it. What it costs is what was measured: 2 MiB
 * blocks; requests of up to 1 MiB share blocks of their context, 512 bytes at a time, and a block goes back with the
 * last of them; managed memory is paid for whole at its creation. All state under sim_lock.
 */
#include "sim/graph.h"
#include "sim/reservoir.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "sim/vmm.h"

#define SHARED_MOST_BYTES (1ULL << 20)

static uint64_t last_id;

uint64_t memory_next_id(void)
{
    return ++last_id;
}

/* The list a block of that kind belongs in. NULL: none. */
static struct block **block_list(const struct block *block)
{
    return block->owner ? &block->owner->blocks : NULL;
}

static void block_link(struct block *block)
{
    struct block **list = block_list(block);
    if (!list)
        return;
    block->previous = NULL;
    block->next = *list;
    if (block->next)
        block->next->previous = block;
    *list = block;
}

static void block_unlink(struct block *block)
{
    struct block **list = block_list(block);
    if (!list)
        return;
    if (block->next)
        block->next->previous = block->previous;
    if (block->previous)
        block->previous->next = block->next;
    else
        *list = block->next;
    block->next = block->previous = NULL;
}

/* Makes a block of a kind (whose it is, where, what it is like), and pays for it. NULL: the card or the host has not
 * the room. */
static struct block *block_new(const struct block *kind, uint64_t granules, bool low)
{
    if (granules > UINT64_MAX / GRANULE_BYTES ||
        (!kind->uncharged && machine_charge(&sim_process.machine, kind->device, granules * GRANULE_BYTES) != 0))
        return NULL;
    struct block *block = calloc(1, sizeof(*block));
    if (block) {
        *block = *kind;
        block->granules = granules;
        if (address_take(block, low)) {
            block_link(block);
            return block;
        }
    }
    free(block);
    if (!kind->uncharged)
        machine_credit(&sim_process.machine, kind->device, granules * GRANULE_BYTES);
    return NULL;
}

struct block *block_adopt(CUcontext owner, unsigned device, unsigned char *mapping, uint64_t mapping_bytes,
                          uint64_t data_offset, uint64_t bytes)
{
    struct block *block = calloc(1, sizeof(*block));
    if (block) {
        *block = (struct block){.owner = owner,
                                .device = device,
                                .granules = (bytes - 1) / GRANULE_BYTES + 1,
                                .bytes = bytes,
                                .id = memory_next_id(),
                                .data = mapping + data_offset,
                                .mapping = mapping,
                                .mapping_bytes = mapping_bytes,
                                .uncharged = true,
                                .foreign = true};
        if (address_take(block, false)) {
            block_link(block);
            return block;
        }
    }
    free(block);
    munmap(mapping, mapping_bytes);
    return NULL;
}

bool memory_end_block(struct block *block)
{
    block_unlink(block);
    block->freed = true;
    if (!block->uncharged)
        machine_credit(&sim_process.machine, block->device, block->granules * GRANULE_BYTES);
    return block->holds == 0;
}

/* Unmaps before the address is left: the address of managed memory must not have been given to another by then. */
void memory_dispose(struct block *dead)
{
    while (dead) {
        struct block *block = dead;
        dead = dead->next;
        address_unmap(block);
        sim_lock();
        address_leave(block);
        sim_unlock();
        free(block->shares);
        free(block);
    }
}

struct block *memory_end_context(CUcontext context)
{
    struct block *dead = NULL;
    while (context->blocks) {
        struct block *block = context->blocks;
        if (memory_end_block(block)) {
            block->next = dead;
            dead = block;
        }
    }
    return dead;
}

static bool block_stays(const struct block *block)
{
    return !block->freed && (block->managed || block->foreign || block->descriptor);
}

bool memory_stays(void)
{
    return address_any(block_stays);
}

/* Finds a run of free units in a shared block. BLOCK_UNITS: none. */
static unsigned shares_search(const struct shares *shares, unsigned units)
{
    if (shares->free_units < units)
        return BLOCK_UNITS;
    unsigned run = 0;
    for (unsigned unit = 0; unit < BLOCK_UNITS; unit++) {
        run = shares->first[unit] ? 0 : run + 1;
        if (run == units)
            return unit + 1 - units;
    }
    return BLOCK_UNITS;
}

static uint64_t shares_take(struct block *block, unsigned unit, uint64_t bytes)
{
    struct shares *shares = block->shares;
    unsigned units = (unsigned)((bytes + UNIT_BYTES - 1) / UNIT_BYTES);
    for (unsigned i = 0; i < units; i++)
        shares->first[unit + i] = (uint16_t)(unit + 1);
    shares->bytes[unit] = (uint32_t)bytes;
    shares->id[unit] = memory_next_id();
    shares->free_units -= units;
    return block->base + (uint64_t)unit * UNIT_BYTES;
}

static bool block_is_low(const struct block *block)
{
    return block->base >> 32 == 0;
}

static uint64_t small_allocate(const struct block *kind, uint64_t bytes, bool low)
{
    unsigned units = (unsigned)((bytes + UNIT_BYTES - 1) / UNIT_BYTES);
    struct block **list = block_list(kind);
    for (struct block *block = list ? *list : NULL; block; block = block->next) {
        if (!block->shares || block_is_low(block) != low)
            continue;
        unsigned unit = shares_search(block->shares, units);
        if (unit < BLOCK_UNITS)
            return shares_take(block, unit, bytes);
    }
    struct shares *shares = calloc(1, sizeof(*shares));
    struct block *block = shares ? block_new(kind, 1, low) : NULL;
    if (!block) {
        free(shares);
        return 0;
    }
    shares->free_units = BLOCK_UNITS;
    block->shares = shares;
    return shares_take(block, 0, bytes);
}

uint64_t memory_place(const struct block *kind, uint64_t bytes, bool share, bool low)
{
    if (bytes <= SHARED_MOST_BYTES && share)
        return small_allocate(kind, bytes, low);
    struct block *block = block_new(kind, (bytes - 1) / GRANULE_BYTES + 1, low);
    if (!block)
        return 0;
    block->bytes = bytes;
    block->id = memory_next_id();
    return block->base;
}

CUresult memory_allocate(CUcontext context, uint64_t bytes, bool managed, bool low, uint64_t *address)
{
    uint64_t taken = 0;
    if (bytes == 0)
        return CUDA_ERROR_INVALID_VALUE;
    CUresult captures = capture_forbid();
    if (captures != CUDA_SUCCESS)
        return captures;
    sim_lock();
    if (!atomic_load(&context->alive)) {
        sim_unlock();
        return CUDA_ERROR_CONTEXT_IS_DESTROYED;
    }
    struct block kind = {.owner = context, .device = sim_process.physical[context->device], .managed = managed};
    taken = memory_place(&kind, bytes, !managed, low);
    sim_unlock();
    if (!taken)
        return CUDA_ERROR_OUT_OF_MEMORY;
    *address = taken;
    return CUDA_SUCCESS;
}

bool memory_find(uint64_t address, struct allocation *allocation)
{
    struct block *block = address_block(address);
    if (!block || block->freed || block->absent)
        return false;
    *allocation = (struct allocation){.base = block->base,
                                      .bytes = block->bytes,
                                      .block = block,
                                      .managed = block->managed,
                                      .owner = block->owner,
                                      .device = block->device,
                                      .id = block->id};
    if (block->reservoir) {
        const struct extent *extent = reservoir_find(block->reservoir, address);
        if (!extent)
            return false;
        allocation->base += extent->offset;
        allocation->bytes = extent->asked_bytes;
        allocation->id = extent->id;
    }
    if (block->shares) {
        unsigned first = block->shares->first[(address - block->base) / UNIT_BYTES];
        if (first == 0)
            return false;
        allocation->base += (uint64_t)(first - 1) * UNIT_BYTES;
        allocation->bytes = block->shares->bytes[first - 1];
        allocation->id = block->shares->id[first - 1];
    }
    return address - allocation->base < allocation->bytes;
}

/* Frees one allocation, on a stream if a place is given; returns the block to dispose of, if that was its last and nobody
 * works on it. */
static struct block *allocation_end(const struct allocation *allocation, const struct stream_place *place)
{
    struct block *block = allocation->block;
    struct shares *shares = block->shares;
    if (block->reservoir) {
        pool_freed(block->reservoir, allocation->base, place);
        return NULL;
    }
    if (shares) {
        unsigned unit = (unsigned)((allocation->base - block->base) / UNIT_BYTES);
        for (unsigned i = unit; i < BLOCK_UNITS && shares->first[i] == unit + 1; i++) {
            shares->first[i] = 0;
            shares->free_units++;
        }
        if (shares->free_units < BLOCK_UNITS)
            return NULL;
    }
    if (block->graph && graph_freed(block))
        return NULL;
    return memory_end_block(block) ? block : NULL;
}

static CUresult memory_free_by(uint64_t address, const struct stream_place *place)
{
    struct allocation allocation;
    struct block *dead = NULL;
    if (address == 0)
        return CUDA_SUCCESS;
    sim_lock();
    bool found = memory_find(address, &allocation) && allocation.base == address && !allocation.block->other_end;
    if (found)
        dead = allocation_end(&allocation, place);
    sim_unlock();
    memory_dispose(dead);
    return found ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult memory_free(uint64_t address)
{
    return memory_free_by(address, NULL);
}

CUresult span_take(struct span *span, uint64_t address, uint64_t bytes, unsigned kind)
{
    struct allocation allocation;
    CUresult result = CUDA_SUCCESS;
    *span = (struct span){.bytes = (unsigned char *)(uintptr_t)address};
    if (bytes == 0)
        return CUDA_SUCCESS;
    sim_lock();
    if (reserve_find(address)) {
        result = reserve_take(span, address, bytes, kind);
    } else if (memory_is_device_range(address)) {
        if (!memory_find(address, &allocation) || bytes > allocation.bytes - (address - allocation.base)) {
            result = CUDA_ERROR_INVALID_VALUE;
        } else {
            span->block = allocation.block;
            span->bytes = allocation.block->data + (address - allocation.block->base);
            allocation.block->holds++;
        }
    } else {
        const struct host_range *range = host_find(address);
        bool inside = range && bytes <= range->bytes - (address - range->address);
        if (address == 0 || (kind & SPAN_DEVICE && !inside))
            result = CUDA_ERROR_INVALID_VALUE;
    }
    sim_unlock();
    return result;
}

void span_release(struct span *span)
{
    struct block *block = span->block;
    reserve_release(span);
    if (!block)
        return;
    sim_lock();
    bool last = --block->holds == 0 && block->freed;
    if (last)
        block->next = NULL;
    sim_unlock();
    if (last)
        memory_dispose(block);
    span->block = NULL;
}

/* Memory made, and on order unmade. */
static CUresult memory_make(CUcontext context, uint64_t bytes, bool managed, bool low, CUresult after,
                            uint64_t *address)
{
    uint64_t taken = 0;
    CUresult result = memory_allocate(context, bytes, managed, low, &taken);
    if (result == CUDA_SUCCESS && after != CUDA_SUCCESS) {
        memory_free(taken);
        return after;
    }
    if (result == CUDA_SUCCESS)
        *address = taken;
    return result;
}

SIM_API CUresult cuMemAlloc_v2(CUdeviceptr *address, size_t bytes)
{
    SIM_ENTER_MAKING(after);
    SIM_CONTEXT(context);
    return address ? memory_make(context, bytes, false, false, after, address) : CUDA_ERROR_INVALID_VALUE;
}

SIM_API CUresult cuMemAlloc(CUdeviceptr_v1 *address, unsigned bytes)
{
    SIM_ENTER_MAKING(after);
    SIM_CONTEXT(context);
    uint64_t taken = 0;
    CUresult result = address ? memory_make(context, bytes, false, true, after, &taken) : CUDA_ERROR_INVALID_VALUE;
    if (result == CUDA_SUCCESS)
        *address = (CUdeviceptr_v1)taken;
    return result;
}

/* flags: 1 attached to all streams, 2 to the host */
SIM_API CUresult cuMemAllocManaged(CUdeviceptr *address, size_t bytes, unsigned flags)
{
    SIM_ENTER_MAKING(after);
    SIM_CONTEXT(context);
    if (!address || (flags != 1 && flags != 2))
        return CUDA_ERROR_INVALID_VALUE;
    return memory_make(context, bytes, true, false, after, address);
}

static CUresult pitch_allocate(CUcontext context, uint64_t width, uint64_t height, unsigned element, bool low,
                               CUresult after, uint64_t *address, uint64_t *pitch_bytes)
{
    uint64_t bytes;
    if (width == 0 || height == 0 || width > UINT64_MAX - UNIT_BYTES || (element != 4 && element != 8 && element != 16))
        return CUDA_ERROR_INVALID_VALUE;
    uint64_t pitch = (width + UNIT_BYTES - 1) / UNIT_BYTES * UNIT_BYTES;
    if (__builtin_mul_overflow(pitch, height, &bytes))
        return CUDA_ERROR_OUT_OF_MEMORY;
    CUresult result = memory_make(context, bytes, false, low, after, address);
    if (result == CUDA_SUCCESS)
        *pitch_bytes = pitch;
    return result;
}

SIM_API CUresult cuMemAllocPitch_v2(CUdeviceptr *address, size_t *pitch, size_t width, size_t height, unsigned element)
{
    SIM_ENTER_MAKING(after);
    SIM_CONTEXT(context);
    uint64_t taken = 0, pitch_bytes = 0;
    if (!address || !pitch)
        return CUDA_ERROR_INVALID_VALUE;
    CUresult result = pitch_allocate(context, width, height, element, false, after, &taken, &pitch_bytes);
    if (result == CUDA_SUCCESS) {
        *address = taken;
        *pitch = pitch_bytes;
    }
    return result;
}

SIM_API CUresult cuMemAllocPitch(CUdeviceptr_v1 *address, unsigned *pitch, unsigned width, unsigned height,
                                 unsigned element)
{
    SIM_ENTER_MAKING(after);
    SIM_CONTEXT(context);
    uint64_t taken = 0, pitch_bytes = 0;
    if (!address || !pitch)
        return CUDA_ERROR_INVALID_VALUE;
    CUresult result = pitch_allocate(context, width, height, element, true, after, &taken, &pitch_bytes);
    if (result == CUDA_SUCCESS) {
        *address = (CUdeviceptr_v1)taken;
        *pitch = (unsigned)pitch_bytes;
    }
    return result;
}

/* Needs no current context: an address says what it belongs to (programs free after they popped their last one). */
SIM_API CUresult cuMemFree_v2(CUdeviceptr address)
{
    SIM_ENTER();
    CUresult result = capture_forbid();
    return result == CUDA_SUCCESS ? memory_free(address) : result;
}

SIM_API CUresult cuMemFree(CUdeviceptr_v1 address)
{
    SIM_ENTER();
    CUresult result = capture_forbid();
    return result == CUDA_SUCCESS ? memory_free(address) : result;
}

/* Also frees what cuMemAlloc made, as measured. */
SIM_API CUresult cuMemFreeAsync(CUdeviceptr address, CUstream stream)
{
    SIM_ENTER();
    struct stream_place place;
    CUresult result = stream_find(stream, &place);
    if (result != CUDA_SUCCESS || capture_free(stream, address, &result))
        return result;
    result = capture_forbid();
    return result == CUDA_SUCCESS ? memory_free_by(address, &place) : result;
}

static void info_read(CUcontext context, uint64_t *free_bytes, uint64_t *total_bytes)
{
    const struct machine_shared *shared = sim_process.machine.shared;
    vmm_settle();
    uint64_t used_bytes = machine_used(&sim_process.machine, sim_process.physical[context->device]);
    *total_bytes = shared->memory_bytes;
    *free_bytes = shared->memory_bytes - shared->baseline_bytes - used_bytes;
}

/* Measured: either output may be NULL, or both. */
SIM_API CUresult cuMemGetInfo_v2(size_t *free_bytes, size_t *total_bytes)
{
    SIM_ENTER_CONTEXT(context);
    uint64_t free_now, total;
    info_read(context, &free_now, &total);
    if (free_bytes) /* either may be NULL, as measured */
        *free_bytes = free_now;
    if (total_bytes)
        *total_bytes = total;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuMemGetInfo(unsigned *free_bytes, unsigned *total_bytes)
{
    SIM_ENTER_CONTEXT(context);
    uint64_t free_now, total;
    info_read(context, &free_now, &total);
    if (free_bytes)
        *free_bytes = free_now > UINT32_MAX ? UINT32_MAX : (unsigned)free_now;
    if (total_bytes)
        *total_bytes = total > UINT32_MAX ? UINT32_MAX : (unsigned)total;
    return CUDA_SUCCESS;
}

/* The allocation an address lies in; pinned host memory counts as well. */
static CUresult range_find(uint64_t address, uint64_t *base, uint64_t *bytes)
{
    struct allocation allocation;
    CUresult result = CUDA_SUCCESS;
    sim_lock();
    const struct host_range *range = host_find(address);
    if (memory_find(address, &allocation)) {
        *base = allocation.base;
        *bytes = allocation.bytes;
    } else if (range) {
        *base = range->address;
        *bytes = range->bytes;
    } else {
        result = CUDA_ERROR_NOT_FOUND;
    }
    sim_unlock();
    return result;
}

SIM_API CUresult cuMemGetAddressRange_v2(CUdeviceptr *base, size_t *bytes, CUdeviceptr address)
{
    SIM_ENTER_CONTEXT(context);
    (void)context;
    uint64_t found_base, found_bytes;
    CUresult result = range_find(address, &found_base, &found_bytes);
    if (result == CUDA_SUCCESS && base)
        *base = found_base;
    if (result == CUDA_SUCCESS && bytes)
        *bytes = found_bytes;
    return result;
}

SIM_API CUresult cuMemGetAddressRange(CUdeviceptr_v1 *base, unsigned *bytes, CUdeviceptr_v1 address)
{
    SIM_ENTER_CONTEXT(context);
    (void)context;
    uint64_t found_base, found_bytes;
    CUresult result = range_find(address, &found_base, &found_bytes);
    if (result == CUDA_SUCCESS && base)
        *base = (CUdeviceptr_v1)found_base;
    if (result == CUDA_SUCCESS && bytes)
        *bytes = (unsigned)found_bytes;
    return result;
}
