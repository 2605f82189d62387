/*
 * Memory of cuMemAlloc used by other processes. The first handle asked for moves the block's bytes into a file without a
 * name, in place; whoever opens the handle maps that file through /proc of the process that has it, which must still live
 * and be the same user's. An opening is charged to nobody. What may be opened by whom is as measured: not by the
 * process itself (201), a second time at the same address, closed as often as opened, not freed. Under sim_lock.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sim/vmm.h"

enum { PAGE_BYTES = 4096 };

/* What a CUipcMemHandle holds. */
struct ipc {
    char magic[8];
    int32_t pid, descriptor;
    uint64_t filesystem, inode;          /* of the bytes' file */
    uint64_t offset, bytes, block_bytes; /* of the allocation in it */
    uint32_t device;                     /* the machine's number */
    uint32_t reserved;
};
_Static_assert(sizeof(struct ipc) == sizeof(CUipcMemHandle), "the size of the driver's handle");
#define IPC_MAGIC "cubudipc"

struct opening {
    struct opening *next;
    struct ipc ipc;
    CUcontext owner;
    uint64_t address, id; /* id: of the block, which ends with its context */
    unsigned references;
};

static struct opening *openings;

static bool page_is_empty(const unsigned char *page)
{
    return page[0] == 0 && memcmp(page, page + 1, PAGE_BYTES - 1) == 0;
}

/* Writes what is not zero, so that a big block stays lazy. False: no room. */
static bool bytes_write(int descriptor, const struct block *block)
{
    for (uint64_t at = 0; at < block->mapping_bytes; at += PAGE_BYTES)
        if (!page_is_empty(block->data + at) &&
            pwrite(descriptor, block->data + at, PAGE_BYTES, (off_t)at) != PAGE_BYTES)
            return false;
    return true;
}

/* Moves the bytes of a block nobody works on into a file, which stays mapped where they were. */
static bool block_share(struct block *block)
{
    int made = memfd_create("cubudget-ipc", MFD_CLOEXEC);
    int descriptor = made < 0 ? -1 : descriptor_copy(made);
    if (made >= 0)
        close(made);
    if (descriptor < 0)
        return false;
    if (ftruncate(descriptor, (off_t)block->mapping_bytes) != 0 || !bytes_write(descriptor, block) ||
        mmap(block->data, block->mapping_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, descriptor, 0) ==
            MAP_FAILED) {
        close(descriptor);
        return false;
    }
    madvise(block->data, block->mapping_bytes, MADV_DONTFORK);
    madvise(block->data, block->mapping_bytes, MADV_DONTDUMP);
    block->descriptor = descriptor;
    return true;
}

/* The allocation at an address that can be shared: linear memory of a context, and its own. Waits until nobody works on it.
 * Under sim_lock, which it lets go meanwhile. */
static bool allocation_find(uint64_t address, struct allocation *allocation)
{
    for (;;) {
        if (!memory_find(address, allocation) || allocation->managed || allocation->block->uncharged ||
            allocation->block->other_end || !allocation->owner)
            return false;
        if (allocation->block->descriptor || allocation->block->holds == 0)
            return true;
        sim_unlock();
        sched_yield();
        sim_lock();
    }
}

static CUresult handle_make(const struct allocation *allocation, CUipcMemHandle *handle)
{
    struct stat status;
    struct block *block = allocation->block;
    if ((!block->descriptor && !block_share(block)) || fstat(block->descriptor, &status) != 0)
        return CUDA_ERROR_OUT_OF_MEMORY;
    struct ipc ipc = {.magic = IPC_MAGIC,
                      .pid = sim_process.machine.self->pid,
                      .descriptor = block->descriptor,
                      .filesystem = status.st_dev,
                      .inode = status.st_ino,
                      .offset = allocation->base - block->base,
                      .bytes = allocation->bytes,
                      .block_bytes = block->mapping_bytes,
                      .device = allocation->device};
    memcpy(handle, &ipc, sizeof(ipc));
    return CUDA_SUCCESS;
}

/* Any address in the allocation will do. */
SIM_API CUresult cuIpcGetMemHandle(CUipcMemHandle *handle, CUdeviceptr address)
{
    SIM_ENTER_CONTEXT(context);
    (void)context;
    struct allocation allocation;
    int saved = errno;
    if (!handle)
        return CUDA_ERROR_INVALID_VALUE;
    sim_lock();
    CUresult result =
        allocation_find(address, &allocation) ? handle_make(&allocation, handle) : CUDA_ERROR_INVALID_VALUE;
    sim_unlock();
    errno = saved;
    return result;
}

static CUresult handle_check(const struct ipc *ipc)
{
    if (memcmp(ipc->magic, IPC_MAGIC, sizeof(ipc->magic)) != 0 || ipc->bytes == 0 || ipc->offset > ipc->block_bytes ||
        ipc->bytes > ipc->block_bytes - ipc->offset || ipc->device >= SIM_DEVICES)
        return CUDA_ERROR_INVALID_VALUE;
    if (ipc->pid == sim_process.machine.self->pid)
        return CUDA_ERROR_INVALID_CONTEXT;
    for (unsigned i = 0; i < sim_process.device_count; i++)
        if (sim_process.physical[i] == ipc->device)
            return CUDA_SUCCESS;
    return CUDA_ERROR_INVALID_DEVICE; /* not among this process's */
}

/* The bytes' file, mapped. NULL: it, or the process, is gone. */
static unsigned char *bytes_open(const struct ipc *ipc)
{
    char path[64];
    struct stat status;
    snprintf(path, sizeof(path), "/proc/%d/fd/%d", ipc->pid, ipc->descriptor);
    int descriptor = open(path, O_RDWR | O_CLOEXEC);
    if (descriptor < 0)
        return NULL;
    void *mapping = MAP_FAILED;
    if (fstat(descriptor, &status) == 0 && status.st_dev == ipc->filesystem && status.st_ino == ipc->inode &&
        (uint64_t)status.st_size == ipc->block_bytes)
        mapping = mmap(NULL, ipc->block_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
    close(descriptor);
    if (mapping == MAP_FAILED)
        return NULL;
    madvise(mapping, ipc->block_bytes, MADV_DONTFORK);
    return mapping;
}

/* Whether an opening's block is still there: it goes with its context. */
static bool opening_is_alive(const struct opening *opening)
{
    struct allocation allocation;
    return memory_find(opening->address, &allocation) && allocation.id == opening->id;
}

/* The link to an opening by its handle or, where there is none, by its address. NULL: none. Forgets those that ended. */
static struct opening **opening_find(CUcontext owner, const struct ipc *ipc, uint64_t address)
{
    for (struct opening **link = &openings; *link;) {
        struct opening *opening = *link;
        if (!opening_is_alive(opening)) {
            *link = opening->next;
            free(opening);
            continue;
        }
        if (ipc ? opening->owner == owner && memcmp(&opening->ipc, ipc, sizeof(*ipc)) == 0
                : opening->address == address)
            return link;
        link = &opening->next;
    }
    return NULL;
}

static CUresult opening_make(CUcontext owner, const struct ipc *ipc, struct opening **made)
{
    unsigned char *mapping = bytes_open(ipc);
    if (!mapping)
        return CUDA_ERROR_INVALID_HANDLE;
    struct opening *opening = calloc(1, sizeof(*opening));
    if (!opening) {
        munmap(mapping, ipc->block_bytes);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    struct block *block = block_adopt(owner, ipc->device, mapping, ipc->block_bytes, ipc->offset, ipc->bytes);
    if (!block) {
        free(opening);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    block->other_end = true;
    *opening = (struct opening){
        .next = openings, .ipc = *ipc, .owner = owner, .address = block->base, .id = block->id, .references = 0};
    openings = opening;
    *made = opening;
    return CUDA_SUCCESS;
}

/* Takes a reference away. The block to dispose of, if it was the last; under sim_lock. */
static struct block *opening_leave(struct opening **link)
{
    struct opening *opening = *link;
    struct allocation allocation;
    if (--opening->references)
        return NULL;
    *link = opening->next;
    struct block *dead =
        memory_find(opening->address, &allocation) && memory_end_block(allocation.block) ? allocation.block : NULL;
    free(opening);
    return dead;
}

static CUresult handle_open(CUcontext owner, const struct ipc *ipc, CUresult after, CUdeviceptr *address)
{
    int saved = errno;
    struct block *dead = NULL;
    sim_lock();
    struct opening **link = opening_find(owner, ipc, 0);
    struct opening *opening = link ? *link : NULL;
    CUresult result = opening ? CUDA_SUCCESS : opening_make(owner, ipc, &opening);
    if (result == CUDA_SUCCESS) {
        opening->references++;
        if (after == CUDA_SUCCESS)
            *address = opening->address;
        else
            dead = opening_leave(link ? link : &openings);
        result = after;
    }
    sim_unlock();
    memory_dispose(dead);
    errno = saved;
    return result;
}

SIM_API CUresult cuIpcOpenMemHandle_v2(CUdeviceptr *address, CUipcMemHandle handle, unsigned flags)
{
    SIM_ENTER_MAKING(after);
    SIM_CONTEXT(context);
    struct ipc ipc;
    memcpy(&ipc, &handle, sizeof(ipc));
    if (!address || flags != CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS)
        return CUDA_ERROR_INVALID_VALUE;
    CUresult result = handle_check(&ipc);
    return result == CUDA_SUCCESS ? handle_open(context, &ipc, after, address) : result;
}
SIM_TWIN(cuIpcOpenMemHandle, cuIpcOpenMemHandle_v2);

SIM_API CUresult cuIpcCloseMemHandle(CUdeviceptr address)
{
    SIM_ENTER();
    struct block *dead = NULL;
    sim_lock();
    struct opening **link = opening_find(NULL, NULL, address);
    if (link)
        dead = opening_leave(link);
    sim_unlock();
    memory_dispose(dead);
    return link ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}
