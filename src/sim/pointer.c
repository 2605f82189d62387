/* What the driver says of a pointer: device, managed and known host memory; anything else is an error. Under sim_lock. */
#include "sim/block.h"

#include <string.h>

#include "sim/vmm.h"

struct answer {
    CUcontext owner; /* NULL: of no context */
    CUdevice device;
    uint64_t base, bytes, id;
    unsigned type, access;
    uint64_t handle_types;
    bool managed, host, shareable;
    CUmemoryPool pool;
};

/* Where a mapping in a reservation differs from linear memory: its range is the reservation (measured). */
static void mapping_look(const struct block *block, struct answer *answer)
{
    const struct reservation *reservation = reserve_find(block->base);
    const struct physical *physical = block->handle->physical;
    answer->base = reservation->base;
    answer->bytes = reservation->bytes;
    answer->handle_types = (uint64_t)physical->properties.requestedHandleTypes;
    answer->access = block->writable ? 3 : block->readable ? 1 : 0;
    if (physical->properties.location.type != CU_MEM_LOCATION_TYPE_DEVICE && !physical->multicast)
        answer->type = CU_MEMORYTYPE_HOST;
}

static bool pointer_look(uint64_t address, struct answer *answer)
{
    struct allocation allocation;
    sim_lock();
    const struct host_range *range = host_find(address);
    bool device = memory_find(address, &allocation);
    if (device)
        *answer = (struct answer){.owner = allocation.owner,
                                  .device = device_ordinal(allocation.device),
                                  .base = allocation.base,
                                  .bytes = allocation.bytes,
                                  .id = allocation.id,
                                  .type = allocation.block->host ? CU_MEMORYTYPE_HOST : CU_MEMORYTYPE_DEVICE,
                                  .access = 3,
                                  .managed = allocation.managed,
                                  .host = allocation.managed || allocation.block->host,
                                  .shareable = !allocation.managed && !allocation.block->uncharged,
                                  .pool = pool_of(allocation.block->reservoir)};
    else if (range)
        *answer = (struct answer){.owner = range->owner,
                                  .device = range->owner->device,
                                  .base = range->address,
                                  .bytes = range->bytes,
                                  .id = range->id,
                                  .type = CU_MEMORYTYPE_HOST,
                                  .access = 3,
                                  .host = true};
    if (device && allocation.block->handle)
        mapping_look(allocation.block, answer);
    sim_unlock();
    return device || range;
}

static CUresult value_put(void *data, const void *value, size_t bytes)
{
    memcpy(data, value, bytes);
    return CUDA_SUCCESS;
}

static CUresult value_put_u32(void *data, unsigned value)
{
    return value_put(data, &value, sizeof(value));
}

/* Booleans are one byte. */
static CUresult value_put_bool(void *data, bool value)
{
    uint8_t byte = value;
    return value_put(data, &byte, sizeof(byte));
}

static CUresult attribute_put(const struct answer *answer, int attribute, uint64_t address, void *data)
{
    switch (attribute) {
    case CU_POINTER_ATTRIBUTE_CONTEXT:
        return value_put(data, &answer->owner, sizeof(answer->owner));
    case CU_POINTER_ATTRIBUTE_MEMORY_TYPE:
        return value_put_u32(data, answer->type);
    case CU_POINTER_ATTRIBUTE_DEVICE_POINTER:
        return value_put(data, &address, sizeof(address));
    case CU_POINTER_ATTRIBUTE_HOST_POINTER:
        return answer->host ? value_put(data, &address, sizeof(address)) : CUDA_ERROR_INVALID_VALUE;
    case CU_POINTER_ATTRIBUTE_SYNC_MEMOPS:
        return value_put_bool(data, false);
    case CU_POINTER_ATTRIBUTE_IS_LEGACY_CUDA_IPC_CAPABLE:
        return value_put_bool(data, answer->shareable);
    case CU_POINTER_ATTRIBUTE_BUFFER_ID:
        return value_put(data, &answer->id, sizeof(answer->id));
    case CU_POINTER_ATTRIBUTE_IS_MANAGED:
        return value_put_bool(data, answer->managed);
    case CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL:
        return value_put_u32(data, (unsigned)answer->device);
    case CU_POINTER_ATTRIBUTE_RANGE_START_ADDR:
        return value_put(data, &answer->base, sizeof(answer->base));
    case CU_POINTER_ATTRIBUTE_RANGE_SIZE:
        return value_put(data, &answer->bytes, sizeof(answer->bytes));
    case CU_POINTER_ATTRIBUTE_MAPPED:
        return value_put_bool(data, true);
    case CU_POINTER_ATTRIBUTE_ALLOWED_HANDLE_TYPES:
        return value_put(data, &answer->handle_types, sizeof(answer->handle_types));
    case CU_POINTER_ATTRIBUTE_ACCESS_FLAGS:
        return value_put_u32(data, answer->access);
    case CU_POINTER_ATTRIBUTE_MEMPOOL_HANDLE:
        return value_put(data, &answer->pool, sizeof(answer->pool));
    default:
        return attribute < 1 || attribute > 21 ? CUDA_ERROR_INVALID_VALUE : CUDA_ERROR_NOT_SUPPORTED;
    }
}

SIM_API CUresult cuPointerGetAttribute(void *data, int attribute, CUdeviceptr address)
{
    SIM_ENTER();
    struct answer answer;
    if (!data || !pointer_look(address, &answer))
        return CUDA_ERROR_INVALID_VALUE;
    return attribute_put(&answer, attribute, address, data);
}

/* What is 0 for pointers the driver does not know, by the size of each attribute. */
static void attribute_clear(int attribute, void *data)
{
    switch (attribute) {
    case CU_POINTER_ATTRIBUTE_MEMORY_TYPE:
    case CU_POINTER_ATTRIBUTE_ACCESS_FLAGS:
        memset(data, 0, 4);
        break;
    case CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL:
        memset(data, 0xFF, 4); /* -2 in the driver; any negative number is no device */
        *(unsigned char *)data = 0xFE;
        break;
    case CU_POINTER_ATTRIBUTE_SYNC_MEMOPS:
    case CU_POINTER_ATTRIBUTE_IS_LEGACY_CUDA_IPC_CAPABLE:
    case CU_POINTER_ATTRIBUTE_IS_MANAGED:
    case CU_POINTER_ATTRIBUTE_MAPPED:
        memset(data, 0, 1);
        break;
    default:
        memset(data, 0, 8);
    }
}

/* Succeeds for any pointer: what cannot be said is 0. */
SIM_API CUresult cuPointerGetAttributes(unsigned count, const int *attributes, void **data, CUdeviceptr address)
{
    SIM_ENTER();
    struct answer answer;
    if (count == 0 || !attributes || !data)
        return CUDA_ERROR_INVALID_VALUE;
    bool known = pointer_look(address, &answer);
    for (unsigned i = 0; i < count; i++) {
        CUresult result = CUDA_ERROR_INVALID_VALUE;
        if (known)
            result = attribute_put(&answer, attributes[i], address, data[i]);
        if (result == CUDA_ERROR_NOT_SUPPORTED || attributes[i] < 1 || attributes[i] > 21)
            return known ? result : CUDA_ERROR_INVALID_VALUE;
        if (result != CUDA_SUCCESS)
            attribute_clear(attributes[i], data[i]);
    }
    return CUDA_SUCCESS;
}

/* Synchronising memory operations, the only one that can be set: all of them are. */
SIM_API CUresult cuPointerSetAttribute(const void *value, int attribute, CUdeviceptr address)
{
    SIM_ENTER();
    struct answer answer;
    if (!value || attribute != CU_POINTER_ATTRIBUTE_SYNC_MEMOPS || !pointer_look(address, &answer))
        return CUDA_ERROR_INVALID_VALUE;
    return answer.type == CU_MEMORYTYPE_DEVICE && !answer.managed ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}
