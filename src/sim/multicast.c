/*
 * Multicast objects: what memory of several devices is bound to, so that one store reaches all of it. They take no device
 * memory; their handles are released, mapped and retained like those of memory. What is bound stays alive until it is
 * unbound or the object ends. Stores through a mapping are not simulated: copies to it are refused as not supported.
 * Not measured: the figures and errors follow the interface's description. State under sim_lock.
 */
#include <stdlib.h>

#include "sim/vmm.h"

struct binding {
    struct binding *next;
    struct handle *handle; /* whose memory */
    unsigned device;       /* the machine's number of the card it lies on */
    uint64_t offset, bytes;
};

struct multicast {
    struct binding *bindings;
    unsigned wanted, devices; /* how many there will be, and bits of those that are, by the machine's numbers */
    uint64_t bytes;
};

static bool is_whole(uint64_t bytes)
{
    return bytes % GRANULE_BYTES == 0;
}

static CUresult properties_check(const CUmulticastObjectProp *properties)
{
    if (!properties || properties->flags != 0 || properties->size == 0 || properties->numDevices == 0)
        return CUDA_ERROR_INVALID_VALUE;
    if (properties->numDevices > sim_process.device_count)
        return CUDA_ERROR_INVALID_DEVICE;
    return properties->handleTypes & ~(unsigned long long)CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR
               ? CUDA_ERROR_NOT_SUPPORTED
               : CUDA_SUCCESS;
}

SIM_API CUresult cuMulticastGetGranularity(size_t *granularity, const CUmulticastObjectProp *properties, int option)
{
    SIM_ENTER();
    if (!granularity || (option != CU_MULTICAST_GRANULARITY_MINIMUM && option != CU_MULTICAST_GRANULARITY_RECOMMENDED))
        return CUDA_ERROR_INVALID_VALUE;
    CUresult result = properties_check(properties);
    if (result == CUDA_SUCCESS)
        *granularity = GRANULE_BYTES;
    return result;
}

static struct handle *multicast_new(const CUmulticastObjectProp *properties)
{
    struct multicast *multicast = calloc(1, sizeof(*multicast));
    struct physical *physical = multicast ? calloc(1, sizeof(*physical)) : NULL;
    struct handle *handle = NULL;
    if (physical) {
        *multicast = (struct multicast){.wanted = properties->numDevices, .bytes = properties->size};
        *physical = (struct physical){.bytes = properties->size, .multicast = multicast};
        handle = handle_new(physical);
    }
    if (!handle) {
        free(physical);
        free(multicast);
    }
    return handle;
}

SIM_API CUresult cuMulticastCreate(CUmemGenericAllocationHandle *number, const CUmulticastObjectProp *properties)
{
    SIM_ENTER_MAKING(after);
    CUresult result = number ? properties_check(properties) : CUDA_ERROR_INVALID_VALUE;
    if (result == CUDA_SUCCESS && !is_whole(properties->size))
        result = CUDA_ERROR_INVALID_VALUE;
    if (result != CUDA_SUCCESS)
        return result;
    sim_lock();
    struct handle *handle = multicast_new(properties);
    if (handle && after != CUDA_SUCCESS)
        handle_release(handle);
    else if (handle)
        *number = handle_number(handle);
    sim_unlock();
    return handle ? after : CUDA_ERROR_OUT_OF_MEMORY;
}

static struct multicast *multicast_find(CUmemGenericAllocationHandle number)
{
    const struct handle *handle = handle_find(number);
    return handle ? handle->physical->multicast : NULL;
}

SIM_API CUresult cuMulticastAddDevice(CUmemGenericAllocationHandle number, CUdevice device)
{
    SIM_ENTER();
    if (device_check(device) != CUDA_SUCCESS)
        return CUDA_ERROR_INVALID_DEVICE;
    unsigned bit = 1u << sim_process.physical[device];
    sim_lock();
    struct multicast *multicast = multicast_find(number);
    bool added = multicast && !(multicast->devices & bit) &&
                 (unsigned)__builtin_popcount(multicast->devices) < multicast->wanted;
    if (added)
        multicast->devices |= bit;
    sim_unlock();
    return added ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

static void binding_end(struct binding *binding)
{
    handle_unmap(binding->handle);
    free(binding);
}

void multicast_end(struct multicast *multicast)
{
    while (multicast->bindings) {
        struct binding *binding = multicast->bindings;
        multicast->bindings = binding->next;
        binding_end(binding);
    }
    free(multicast);
}

/* The team must be complete, and what is bound lie on a card of it, inside both, beside what that card has bound. */
static CUresult bind(struct multicast *multicast, uint64_t offset, struct handle *handle, uint64_t memory_offset,
                     uint64_t bytes, CUresult after)
{
    if (!multicast || !handle || handle->physical->multicast || bytes == 0 || !is_whole(bytes) || !is_whole(offset) ||
        !is_whole(memory_offset) || bytes > multicast->bytes || offset > multicast->bytes - bytes ||
        bytes > handle->physical->bytes || memory_offset > handle->physical->bytes - bytes ||
        handle->physical->properties.location.type != CU_MEM_LOCATION_TYPE_DEVICE ||
        !(multicast->devices & 1u << handle->physical->device))
        return CUDA_ERROR_INVALID_VALUE;
    if ((unsigned)__builtin_popcount(multicast->devices) != multicast->wanted)
        return CUDA_ERROR_INVALID_VALUE;
    for (const struct binding *other = multicast->bindings; other; other = other->next)
        if (other->device == handle->physical->device && offset < other->offset + other->bytes &&
            other->offset < offset + bytes)
            return CUDA_ERROR_INVALID_VALUE;
    struct binding *binding = after == CUDA_SUCCESS ? calloc(1, sizeof(*binding)) : NULL;
    if (!binding)
        return after == CUDA_SUCCESS ? CUDA_ERROR_OUT_OF_MEMORY : after;
    *binding = (struct binding){.next = multicast->bindings,
                                .handle = handle,
                                .device = handle->physical->device,
                                .offset = offset,
                                .bytes = bytes};
    multicast->bindings = binding;
    handle->mappings++;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuMulticastBindMem(CUmemGenericAllocationHandle number, size_t offset,
                                    CUmemGenericAllocationHandle memory, size_t memory_offset, size_t bytes,
                                    unsigned long long flags)
{
    SIM_ENTER_MAKING(after);
    if (flags != 0)
        return CUDA_ERROR_INVALID_VALUE;
    sim_lock();
    CUresult result = bind(multicast_find(number), offset, handle_find(memory), memory_offset, bytes, after);
    sim_unlock();
    return result;
}

/* Memory by where it is mapped. */
SIM_API CUresult cuMulticastBindAddr(CUmemGenericAllocationHandle number, size_t offset, CUdeviceptr address,
                                     size_t bytes, unsigned long long flags)
{
    SIM_ENTER_MAKING(after);
    CUresult result = CUDA_ERROR_INVALID_VALUE;
    if (flags != 0)
        return result;
    sim_lock();
    const struct block *block = reserve_block(address);
    if (block)
        result = bind(multicast_find(number), offset, block->handle, address - block->base, bytes, after);
    sim_unlock();
    return result;
}

/* Whole bindings of one device that fill the range. */
static bool unbind(struct multicast *multicast, unsigned device, uint64_t offset, uint64_t bytes)
{
    uint64_t bound_bytes = 0;
    for (const struct binding *binding = multicast->bindings; binding; binding = binding->next)
        if (binding->device == device && binding->offset >= offset && binding->bytes <= bytes &&
            binding->offset - offset <= bytes - binding->bytes)
            bound_bytes += binding->bytes;
    if (bytes == 0 || bound_bytes != bytes)
        return false;
    for (struct binding **link = &multicast->bindings; *link;) {
        struct binding *binding = *link;
        if (binding->device == device && binding->offset >= offset && binding->offset - offset < bytes) {
            *link = binding->next;
            binding_end(binding);
        } else {
            link = &binding->next;
        }
    }
    return true;
}

SIM_API CUresult cuMulticastUnbind(CUmemGenericAllocationHandle number, CUdevice device, size_t offset, size_t bytes)
{
    SIM_ENTER();
    if (device_check(device) != CUDA_SUCCESS)
        return CUDA_ERROR_INVALID_DEVICE;
    sim_lock();
    struct multicast *multicast = multicast_find(number);
    bool unbound = multicast && unbind(multicast, sim_process.physical[device], offset, bytes);
    sim_unlock();
    return unbound ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}
