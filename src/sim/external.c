/*
 * External memory: what another interface (Vulkan, say) exports as a descriptor, or cuMemExportToShareableHandle does. Here any
 * file that can be mapped will do. It is charged to nobody: who made it has paid. A buffer is a mapping of its own, freed with
 * cuMemFree or the end of its context, also after the object it came from was destroyed (measured). State under sim_lock.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sim/vmm.h"

enum { PAGE_BYTES = 4096 };

struct CUextMemory_st {
    struct CUextMemory_st *next;
    uint64_t bytes;
    CUcontext owner;
    unsigned device; /* the machine's number */
    int descriptor;  /* ours since the import */
};

static CUexternalMemory memories;

static CUexternalMemory *memory_link(CUexternalMemory memory)
{
    CUexternalMemory *link = &memories;
    while (*link && *link != memory)
        link = &(*link)->next;
    return *link ? link : NULL;
}

/* The memory a description means, with a descriptor of its own. 0, or a CUresult. */
static CUresult memory_open(CUexternalMemory memory, const CUDA_EXTERNAL_MEMORY_HANDLE_DESC *description)
{
    struct stat status;
    int handle_types;
    uint64_t bytes = physical_describe(description->handle.fd, &memory->device, &handle_types);
    if (!bytes)
        memory->device = sim_process.physical[memory->owner->device];
    if (fstat(description->handle.fd, &status) != 0 || !S_ISREG(status.st_mode) ||
        (uint64_t)status.st_size < description->size)
        return CUDA_ERROR_INVALID_VALUE;
    memory->bytes = description->size;
    memory->descriptor = descriptor_copy(description->handle.fd);
    return memory->descriptor < 0 ? CUDA_ERROR_OPERATING_SYSTEM : CUDA_SUCCESS;
}

/* On success the descriptor is the driver's, and no longer the program's to close. */
SIM_API CUresult cuImportExternalMemory(CUexternalMemory *memory, const CUDA_EXTERNAL_MEMORY_HANDLE_DESC *description)
{
    SIM_ENTER_MAKING(after);
    SIM_CONTEXT(context);
    int saved = errno;
    if (!memory || !description || description->size == 0 || description->flags & ~1u)
        return CUDA_ERROR_INVALID_VALUE;
    if (description->type != CU_EXTERNAL_MEMORY_HANDLE_TYPE_OPAQUE_FD)
        return CUDA_ERROR_NOT_SUPPORTED;
    CUexternalMemory made = calloc(1, sizeof(*made));
    if (!made)
        return CUDA_ERROR_OUT_OF_MEMORY;
    made->owner = context;
    CUresult result = memory_open(made, description);
    if (result == CUDA_SUCCESS && after != CUDA_SUCCESS) {
        close(made->descriptor);
        result = after;
    }
    errno = saved;
    if (result != CUDA_SUCCESS) {
        free(made);
        return result;
    }
    close(description->handle.fd);
    sim_lock();
    made->next = memories;
    memories = made;
    sim_unlock();
    *memory = made;
    return CUDA_SUCCESS;
}

/* Under sim_lock. */
static CUresult buffer_map(CUexternalMemory memory, uint64_t offset, uint64_t bytes, uint64_t *address)
{
    int saved = errno;
    uint64_t start = offset / PAGE_BYTES * PAGE_BYTES, whole = offset - start + bytes;
    void *mapping = mmap(NULL, whole, PROT_READ | PROT_WRITE, MAP_SHARED, memory->descriptor, (off_t)start);
    struct block *block = NULL;
    if (mapping != MAP_FAILED) {
        madvise(mapping, whole, MADV_DONTFORK);
        block = block_adopt(memory->owner, memory->device, mapping, whole, offset - start, bytes);
    }
    errno = saved;
    if (!block)
        return CUDA_ERROR_OUT_OF_MEMORY;
    *address = block->base;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuExternalMemoryGetMappedBuffer(CUdeviceptr *address, CUexternalMemory memory,
                                                 const CUDA_EXTERNAL_MEMORY_BUFFER_DESC *description)
{
    SIM_ENTER_MAKING(after);
    SIM_CONTEXT(context);
    (void)context;
    uint64_t taken = 0;
    if (!address || !description || description->flags != 0 || description->size == 0)
        return CUDA_ERROR_INVALID_VALUE;
    sim_lock();
    CUresult result = memory_link(memory) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
    if (result == CUDA_SUCCESS &&
        (description->size > memory->bytes || description->offset > memory->bytes - description->size))
        result = CUDA_ERROR_INVALID_VALUE;
    if (result == CUDA_SUCCESS)
        result = buffer_map(memory, description->offset, description->size, &taken);
    sim_unlock();
    if (result == CUDA_SUCCESS && after != CUDA_SUCCESS) {
        memory_free(taken);
        return after;
    }
    if (result == CUDA_SUCCESS)
        *address = taken;
    return result;
}

SIM_API CUresult cuDestroyExternalMemory(CUexternalMemory memory)
{
    SIM_ENTER();
    sim_lock();
    CUexternalMemory *link = memory_link(memory);
    if (link)
        *link = memory->next;
    sim_unlock();
    if (!link)
        return CUDA_ERROR_INVALID_HANDLE;
    close(memory->descriptor);
    free(memory);
    return CUDA_SUCCESS;
}

void external_end_context(CUcontext context)
{
    for (CUexternalMemory *link = &memories; *link;) {
        CUexternalMemory memory = *link;
        if (memory->owner != context) {
            link = &memory->next;
            continue;
        }
        *link = memory->next;
        close(memory->descriptor);
        free(memory);
    }
}
