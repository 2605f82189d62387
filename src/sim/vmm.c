/*
 * Virtual memory management: the driver's entry points. None needs a current context (measured). What is accepted and refused
 * is what was measured on an H100, but for a mapping beyond a reservation's end, which that driver let pass and this one
 * refuses. State under sim_lock.
 */
#include "sim/vmm.h"

#include <stdlib.h>

/* 0, or what is wrong with a description of memory. */
static CUresult properties_check(const CUmemAllocationProp *properties)
{
    if (!properties || properties->type != CU_MEM_ALLOCATION_TYPE_PINNED)
        return CUDA_ERROR_INVALID_VALUE;
    switch (properties->location.type) {
    case CU_MEM_LOCATION_TYPE_DEVICE:
        if (device_check(properties->location.id) != CUDA_SUCCESS)
            return CUDA_ERROR_INVALID_DEVICE;
        break;
    case CU_MEM_LOCATION_TYPE_HOST:
        break;
    case CU_MEM_LOCATION_TYPE_HOST_NUMA: /* the machine has one node */
        if (properties->location.id != 0)
            return CUDA_ERROR_INVALID_VALUE;
        break;
    default:
        return CUDA_ERROR_INVALID_VALUE;
    }
    if (properties->requestedHandleTypes == CU_MEM_HANDLE_TYPE_FABRIC)
        return CUDA_ERROR_NOT_PERMITTED;
    return properties->requestedHandleTypes & ~CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR ? CUDA_ERROR_INVALID_VALUE
                                                                                        : CUDA_SUCCESS;
}

SIM_API CUresult cuMemGetAllocationGranularity(size_t *granularity, const CUmemAllocationProp *properties, int option)
{
    SIM_ENTER();
    if (!granularity || (option != CU_MEM_ALLOC_GRANULARITY_MINIMUM && option != CU_MEM_ALLOC_GRANULARITY_RECOMMENDED))
        return CUDA_ERROR_INVALID_VALUE;
    CUresult result = properties_check(properties);
    if (result == CUDA_SUCCESS)
        *granularity = GRANULE_BYTES;
    return result;
}

SIM_API CUresult cuMemAddressReserve(CUdeviceptr *address, size_t bytes, size_t alignment, CUdeviceptr hint,
                                     unsigned long long flags)
{
    SIM_ENTER_MAKING(after);
    struct reservation *made = NULL;
    if (!address || flags != 0)
        return CUDA_ERROR_INVALID_VALUE;
    sim_lock();
    CUresult result = reserve_add(bytes, alignment, hint, &made);
    if (result == CUDA_SUCCESS && after != CUDA_SUCCESS) {
        reserve_remove(made);
        result = after;
    }
    if (result == CUDA_SUCCESS)
        *address = made->base;
    sim_unlock();
    return result;
}

/* A whole reservation with nothing mapped in it. */
SIM_API CUresult cuMemAddressFree(CUdeviceptr address, size_t bytes)
{
    SIM_ENTER();
    CUresult result = CUDA_ERROR_INVALID_VALUE;
    sim_lock();
    struct reservation *reservation = reserve_find(address);
    if (reservation && reservation->base == address && reservation->bytes == bytes &&
        !reserve_next(reservation, address, address + bytes)) {
        reserve_remove(reservation);
        result = CUDA_SUCCESS;
    }
    sim_unlock();
    return result;
}

SIM_API CUresult cuMemCreate(CUmemGenericAllocationHandle *number, size_t bytes, const CUmemAllocationProp *properties,
                             unsigned long long flags)
{
    SIM_ENTER_MAKING(after);
    struct handle *handle = NULL;
    if (!number || flags != 0 || bytes == 0 || bytes % GRANULE_BYTES != 0)
        return CUDA_ERROR_INVALID_VALUE;
    CUresult result = properties_check(properties);
    if (result != CUDA_SUCCESS)
        return result;
    vmm_settle();
    sim_lock();
    result = physical_create(properties, bytes, &handle);
    if (result == CUDA_SUCCESS && after != CUDA_SUCCESS) {
        handle_release(handle);
        result = after;
    }
    if (result == CUDA_SUCCESS)
        *number = handle_number(handle);
    sim_unlock();
    return result;
}

SIM_API CUresult cuMemRelease(CUmemGenericAllocationHandle number)
{
    SIM_ENTER();
    sim_lock();
    struct handle *handle = handle_find(number);
    if (handle)
        handle_release(handle);
    sim_unlock();
    return handle ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

/* The handle an address was mapped by, also where nobody has a reference to it any more. */
SIM_API CUresult cuMemRetainAllocationHandle(CUmemGenericAllocationHandle *number, void *address)
{
    SIM_ENTER_MAKING(after);
    if (!number)
        return CUDA_ERROR_INVALID_VALUE;
    sim_lock();
    const struct block *block = reserve_block((uint64_t)(uintptr_t)address);
    CUresult result = block ? after : CUDA_ERROR_INVALID_VALUE;
    if (result == CUDA_SUCCESS) {
        block->handle->references++;
        *number = handle_number(block->handle);
    }
    sim_unlock();
    return result;
}

SIM_API CUresult cuMemGetAllocationPropertiesFromHandle(CUmemAllocationProp *properties,
                                                        CUmemGenericAllocationHandle number)
{
    SIM_ENTER();
    sim_lock();
    const struct handle *handle = handle_find(number);
    bool known = properties && handle && !handle->physical->multicast;
    if (known)
        *properties = handle->physical->properties;
    sim_unlock();
    return known ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

/* Under sim_lock. */
static struct block *mapping_new(struct reservation *reservation, struct handle *handle, uint64_t address)
{
    struct block *block = calloc(1, sizeof(*block));
    if (!block)
        return NULL;
    *block = (struct block){.device = handle->physical->device,
                            .base = address,
                            .granules = handle->physical->bytes / GRANULE_BYTES,
                            .bytes = handle->physical->bytes,
                            .id = memory_next_id(),
                            .handle = handle,
                            .other_end = true,
                            .uncharged = true};
    if (!reserve_map(reservation, block, handle->physical)) {
        free(block);
        return NULL;
    }
    handle->mappings++;
    return block;
}

/* Under sim_lock, after all work in the reservation has ended. */
static void mapping_end(struct reservation *reservation, struct block *block)
{
    reserve_unmap(reservation, block);
    handle_unmap(block->handle);
    free(block);
}

static CUresult map(uint64_t address, uint64_t bytes, uint64_t offset, const CUmemGenericAllocationHandle number,
                    CUresult after)
{
    struct handle *handle = handle_find(number);
    struct reservation *reservation = reserve_find(address);
    if (!handle || !reservation || bytes == 0 || address % GRANULE_BYTES != 0 || bytes % GRANULE_BYTES != 0 ||
        bytes > reservation->bytes - (address - reservation->base) || bytes > handle->physical->bytes ||
        reserve_block(address) || reserve_next(reservation, address, address + bytes))
        return CUDA_ERROR_INVALID_VALUE;
    if (offset != 0 || bytes != handle->physical->bytes)
        return CUDA_ERROR_NOT_SUPPORTED; /* as measured */
    struct block *block = mapping_new(reservation, handle, address);
    if (!block)
        return CUDA_ERROR_OUT_OF_MEMORY;
    if (after != CUDA_SUCCESS)
        mapping_end(reservation, block);
    return after;
}

SIM_API CUresult cuMemMap(CUdeviceptr address, size_t bytes, size_t offset, CUmemGenericAllocationHandle number,
                          unsigned long long flags)
{
    SIM_ENTER_MAKING(after);
    if (flags != 0)
        return CUDA_ERROR_INVALID_VALUE;
    sim_lock();
    CUresult result = map(address, bytes, offset, number, after);
    sim_unlock();
    return result;
}

/* The reservation, if the range lies in it and cuts no mapping. NULL: not so. */
static struct reservation *range_of_wholes(uint64_t address, uint64_t bytes)
{
    struct reservation *reservation = reserve_find(address);
    if (!reservation || bytes == 0 || address % GRANULE_BYTES != 0 || bytes % GRANULE_BYTES != 0 ||
        bytes > reservation->bytes - (address - reservation->base))
        return NULL;
    const struct block *first = reserve_block(address), *last = reserve_block(address + bytes - 1);
    if ((first && first->base < address) || (last && last->base + last->bytes > address + bytes))
        return NULL;
    return reservation;
}

/* Several mappings at once, and whatever lies between them; waits until no copy works there. */
SIM_API CUresult cuMemUnmap(CUdeviceptr address, size_t bytes)
{
    SIM_ENTER();
    struct reservation *reservation;
    struct block *block;
    sim_lock();
    while ((reservation = range_of_wholes(address, bytes)) != NULL && reservation->holds)
        sim_wait();
    while (reservation && (block = reserve_next(reservation, address, address + bytes)) != NULL)
        mapping_end(reservation, block);
    sim_unlock();
    return reservation ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

/* The bit of a place that may have access. 0: no such place. */
static unsigned access_bit(const CUmemLocation *location)
{
    if (location->type == CU_MEM_LOCATION_TYPE_HOST)
        return 1u << SIM_DEVICES;
    if (location->type != CU_MEM_LOCATION_TYPE_DEVICE || device_check(location->id) != CUDA_SUCCESS)
        return 0;
    return 1u << sim_process.physical[location->id];
}

static CUresult access_check(uint64_t address, uint64_t bytes, const CUmemAccessDesc *access)
{
    if (!access_bit(&access->location) ||
        (access->flags != CU_MEM_ACCESS_FLAGS_PROT_NONE && access->flags != CU_MEM_ACCESS_FLAGS_PROT_READ &&
         access->flags != CU_MEM_ACCESS_FLAGS_PROT_READWRITE))
        return CUDA_ERROR_INVALID_VALUE;
    for (uint64_t at = address; at < address + bytes;) {
        const struct block *block = reserve_block(at);
        if (!block)
            return CUDA_ERROR_INVALID_VALUE;
        if (access->location.type == CU_MEM_LOCATION_TYPE_HOST &&
            block->handle->physical->properties.location.type == CU_MEM_LOCATION_TYPE_DEVICE)
            return CUDA_ERROR_NOT_SUPPORTED;
        at = block->base + block->bytes;
    }
    return CUDA_SUCCESS;
}

static CUresult access_set(struct block *block, const CUmemAccessDesc *access)
{
    unsigned bit = access_bit(&access->location);
    if (access->location.type == CU_MEM_LOCATION_TYPE_HOST && access->flags != CU_MEM_ACCESS_FLAGS_PROT_NONE &&
        !reserve_open_to_host(block, block->handle->physical))
        return CUDA_ERROR_OUT_OF_MEMORY;
    block->readable = access->flags ? block->readable | bit : block->readable & ~bit;
    block->writable =
        access->flags == CU_MEM_ACCESS_FLAGS_PROT_READWRITE ? block->writable | bit : block->writable & ~bit;
    return CUDA_SUCCESS;
}

/* Whole mappings that follow on each other. */
SIM_API CUresult cuMemSetAccess(CUdeviceptr address, size_t bytes, const CUmemAccessDesc *access, size_t count)
{
    SIM_ENTER();
    CUresult result = CUDA_ERROR_INVALID_VALUE;
    if (!access || count == 0)
        return result;
    sim_lock();
    struct reservation *reservation = range_of_wholes(address, bytes);
    for (size_t i = 0; reservation && i < count; i++) {
        result = access_check(address, bytes, &access[i]);
        if (result != CUDA_SUCCESS)
            break;
    }
    for (uint64_t at = address; result == CUDA_SUCCESS && at < address + bytes;) {
        struct block *block = reserve_block(at);
        for (size_t i = 0; result == CUDA_SUCCESS && i < count; i++)
            result = access_set(block, &access[i]);
        at = block->base + block->bytes;
    }
    sim_unlock();
    return result;
}

SIM_API CUresult cuMemGetAccess(unsigned long long *flags, const CUmemLocation *location, CUdeviceptr address)
{
    SIM_ENTER();
    unsigned bit = location ? access_bit(location) : 0;
    if (!flags || !bit)
        return CUDA_ERROR_INVALID_VALUE;
    sim_lock();
    const struct block *block = reserve_block(address);
    if (block)
        *flags = block->writable & bit   ? CU_MEM_ACCESS_FLAGS_PROT_READWRITE
                 : block->readable & bit ? CU_MEM_ACCESS_FLAGS_PROT_READ
                                         : CU_MEM_ACCESS_FLAGS_PROT_NONE;
    sim_unlock();
    return block ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

SIM_API CUresult cuMemExportToShareableHandle(void *shareable, CUmemGenericAllocationHandle number, int type,
                                              unsigned long long flags)
{
    SIM_ENTER_MAKING(after);
    int descriptor = -1;
    if (!shareable || flags != 0 || type != CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR)
        return CUDA_ERROR_INVALID_VALUE;
    sim_lock();
    struct handle *handle = handle_find(number);
    CUresult result = !handle                        ? CUDA_ERROR_INVALID_VALUE
                      : handle->physical->multicast  ? CUDA_ERROR_NOT_SUPPORTED
                      : handle->physical->descriptor ? after
                                                     : CUDA_ERROR_INVALID_VALUE;
    if (result == CUDA_SUCCESS)
        result = physical_export(handle->physical, &descriptor);
    sim_unlock();
    if (result == CUDA_SUCCESS)
        *(int *)shareable = descriptor;
    return result;
}

/* Leaves the descriptor to the program. */
SIM_API CUresult cuMemImportFromShareableHandle(CUmemGenericAllocationHandle *number, void *shareable, int type)
{
    SIM_ENTER_MAKING(after);
    struct handle *handle = NULL;
    if (!number || type != CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR)
        return CUDA_ERROR_INVALID_VALUE;
    sim_lock();
    CUresult result = physical_import((int)(intptr_t)shareable, &handle);
    if (result == CUDA_SUCCESS && after != CUDA_SUCCESS) {
        handle_release(handle);
        result = after;
    }
    if (result == CUDA_SUCCESS)
        *number = handle_number(handle);
    sim_unlock();
    return result;
}
