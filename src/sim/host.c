/*
 * Host memory the driver knows: allocated by it (pinned), or the program's own and registered. Its device address is its
 * host address. Costs the card nothing. The list is under sim_lock.
 */
#include "sim/sim.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

enum {
    FLAGS_ALLOCATE = 7,  /* portable, mapped, write-combined */
    FLAGS_REGISTER = 15, /* portable, mapped, I/O memory, read-only */
    FLAG_MAPPED = 2,
    PAGE_BYTES = 4096,
};

static struct host_range *ranges;

struct host_range *host_find(uint64_t address)
{
    for (struct host_range *range = ranges; range; range = range->next)
        if (address - range->address < range->bytes)
            return range;
    return NULL;
}

static uint64_t pages_bytes(uint64_t bytes)
{
    return (bytes + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
}

static void range_dispose(struct host_range *range)
{
    if (!range->registered)
        munmap((void *)(uintptr_t)range->address, pages_bytes(range->bytes));
    free(range);
}

void host_end_context(CUcontext context)
{
    for (struct host_range **link = &ranges; *link;) {
        struct host_range *range = *link;
        if (range->owner != context) {
            link = &range->next;
            continue;
        }
        *link = range->next;
        range_dispose(range);
    }
}

/* Takes the range that begins at an address out of the list. NULL: none of that kind begins there. */
static struct host_range *range_remove(uint64_t address, bool registered)
{
    sim_lock();
    struct host_range **link = &ranges;
    while (*link && ((*link)->address != address || (*link)->registered != registered))
        link = &(*link)->next;
    struct host_range *found = *link;
    if (found)
        *link = found->next;
    sim_unlock();
    return found;
}

static void range_insert(struct host_range *range)
{
    range->id = memory_next_id();
    range->next = ranges;
    ranges = range;
}

static CUresult host_allocate(CUcontext context, void **address, size_t bytes, unsigned flags)
{
    int saved = errno;
    if (!address || bytes == 0 || flags & ~(unsigned)FLAGS_ALLOCATE)
        return CUDA_ERROR_INVALID_VALUE;
    struct host_range *range = bytes < SIZE_MAX - PAGE_BYTES ? calloc(1, sizeof(*range)) : NULL;
    void *mapping = MAP_FAILED;
    if (range)
        mapping =
            mmap(NULL, pages_bytes(bytes), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    errno = saved;
    if (mapping == MAP_FAILED) {
        free(range);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    *range = (struct host_range){
        .address = (uint64_t)(uintptr_t)mapping, .bytes = bytes, .flags = flags | FLAG_MAPPED, .owner = context};
    sim_lock();
    range_insert(range);
    sim_unlock();
    *address = mapping;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuMemHostAlloc(void **address, size_t bytes, unsigned flags)
{
    SIM_ENTER_CONTEXT(context);
    return host_allocate(context, address, bytes, flags);
}

SIM_API CUresult cuMemAllocHost_v2(void **address, size_t bytes)
{
    SIM_ENTER_CONTEXT(context);
    return host_allocate(context, address, bytes, 0);
}

SIM_API CUresult cuMemAllocHost(void **address, unsigned bytes)
{
    SIM_ENTER_CONTEXT(context);
    return host_allocate(context, address, bytes, 0);
}

SIM_API CUresult cuMemFreeHost(void *address)
{
    SIM_ENTER();
    if (!address)
        return CUDA_SUCCESS;
    struct host_range *range = range_remove((uint64_t)(uintptr_t)address, false);
    if (!range)
        return CUDA_ERROR_INVALID_VALUE;
    range_dispose(range);
    return CUDA_SUCCESS;
}

static bool ranges_overlap(uint64_t address, uint64_t bytes)
{
    for (const struct host_range *range = ranges; range; range = range->next)
        if (address < range->address + range->bytes && range->address < address + bytes)
            return true;
    return false;
}

SIM_API CUresult cuMemHostRegister_v2(void *pointer, size_t bytes, unsigned flags)
{
    SIM_ENTER_CONTEXT(context);
    uint64_t address = (uint64_t)(uintptr_t)pointer, end;
    if (!pointer || bytes == 0 || flags & ~(unsigned)FLAGS_REGISTER || __builtin_add_overflow(address, bytes, &end))
        return CUDA_ERROR_INVALID_VALUE;
    struct host_range *range = calloc(1, sizeof(*range));
    if (!range)
        return CUDA_ERROR_OUT_OF_MEMORY;
    *range = (struct host_range){.address = address,
                                 .bytes = bytes,
                                 .flags = (flags & ~(unsigned)FLAG_MAPPED) | FLAG_MAPPED,
                                 .registered = true,
                                 .owner = context};
    sim_lock();
    CUresult result = memory_is_device_range(address)  ? CUDA_ERROR_INVALID_VALUE
                      : ranges_overlap(address, bytes) ? CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED
                                                       : CUDA_SUCCESS;
    if (result == CUDA_SUCCESS)
        range_insert(range);
    sim_unlock();
    if (result != CUDA_SUCCESS)
        free(range);
    return result;
}
SIM_TWIN(cuMemHostRegister, cuMemHostRegister_v2);

SIM_API CUresult cuMemHostUnregister(void *address)
{
    SIM_ENTER();
    struct host_range *range = range_remove((uint64_t)(uintptr_t)address, true);
    if (!range)
        return CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED;
    range_dispose(range);
    return CUDA_SUCCESS;
}

SIM_API CUresult cuMemHostGetDevicePointer_v2(CUdeviceptr *device, void *host, unsigned flags)
{
    SIM_ENTER_CONTEXT(context);
    (void)context;
    if (!device || flags != 0)
        return CUDA_ERROR_INVALID_VALUE;
    sim_lock();
    bool found = host_find((uint64_t)(uintptr_t)host) != NULL;
    sim_unlock();
    if (!found)
        return CUDA_ERROR_INVALID_VALUE;
    *device = (uint64_t)(uintptr_t)host;
    return CUDA_SUCCESS;
}

/* Host memory has no address of 32 bits. */
SIM_API CUresult cuMemHostGetDevicePointer(CUdeviceptr_v1 *device, void *host, unsigned flags)
{
    SIM_ENTER_CONTEXT(context);
    (void)context;
    if (!device || !host || flags != 0)
        return CUDA_ERROR_INVALID_VALUE;
    return CUDA_ERROR_NOT_SUPPORTED;
}

SIM_API CUresult cuMemHostGetFlags(unsigned *flags, void *host)
{
    SIM_ENTER_CONTEXT(context);
    (void)context;
    if (!flags)
        return CUDA_ERROR_INVALID_VALUE;
    sim_lock();
    const struct host_range *range = host_find((uint64_t)(uintptr_t)host);
    CUresult result = range && !range->registered ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
    if (result == CUDA_SUCCESS)
        *flags = range->flags;
    sim_unlock();
    return result;
}
