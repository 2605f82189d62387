/*
 * Memory that handles stand for: made on a card or on the host, shared with other processes by descriptors, ended with its
 * last reference and mapping. Called by vmm.c, multicast.c and external.c. Under sim_lock.
 *
 * It is charged once, to the process that made it. What may be exported lies in a file of its own that has no name; each
 * export is an opening of that file with a lock on it, which lasts until every copy of that descriptor, in whatever process,
 * every import and every mapping made from it is gone. So the maker can tell when nobody has it any more, and waits for that
 * before it gives the bytes back. Where the maker dies first its memory counts as gone, though an importer still reads it.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sim/vmm.h"

enum { DESCRIPTOR_FLOOR = 64, WAIT_STACK_BYTES = 64 * 1024 };

static struct physical *physicals;
static struct physical *exported; /* ended here, and somebody else's still */
static struct handle *handles;

int descriptor_copy(int descriptor)
{
    int saved = errno;
    int copy = fcntl(descriptor, F_DUPFD_CLOEXEC, DESCRIPTOR_FLOOR);
    errno = saved;
    return copy;
}

uint64_t physical_describe(int descriptor, unsigned *device, int *handle_types)
{
    char path[48], target[64] = "";
    struct stat status;
    int saved = errno;
    snprintf(path, sizeof(path), "/proc/self/fd/%d", descriptor);
    bool known = readlink(path, target, sizeof(target) - 1) > 0 &&
                 sscanf(target, "/memfd:cubudget-device-%u-%d", device, handle_types) == 2 &&
                 fstat(descriptor, &status) == 0;
    errno = saved;
    return known ? (uint64_t)status.st_size : 0;
}

/* A file for bytes that may leave the process. 0; -1. */
static int file_make(struct physical *physical)
{
    char name[64];
    struct stat status;
    snprintf(name, sizeof(name), "cubudget-device-%u-%d", physical->device, physical->properties.requestedHandleTypes);
    int made = memfd_create(name, MFD_CLOEXEC);
    int descriptor = made < 0 ? -1 : descriptor_copy(made);
    if (made >= 0)
        close(made);
    if (descriptor < 0)
        return -1;
    if (ftruncate(descriptor, (off_t)physical->bytes) != 0 || fstat(descriptor, &status) != 0) {
        close(descriptor);
        return -1;
    }
    physical->descriptor = descriptor;
    physical->filesystem = status.st_dev;
    physical->inode = status.st_ino;
    return 0;
}

/* The bytes, from the file where there is one. */
static bool bytes_map(struct physical *physical)
{
    int flags = MAP_SHARED | MAP_NORESERVE | (physical->descriptor ? 0 : MAP_ANONYMOUS);
    void *data =
        mmap(NULL, physical->bytes, PROT_READ | PROT_WRITE, flags, physical->descriptor ? physical->descriptor : -1, 0);
    if (data == MAP_FAILED)
        return false;
    madvise(data, physical->bytes, MADV_DONTFORK);
    madvise(data, physical->bytes, MADV_DONTDUMP);
    physical->data = data;
    return true;
}

static void bytes_end(struct physical *physical)
{
    int saved = errno;
    if (physical->data)
        munmap(physical->data, physical->bytes);
    if (physical->descriptor)
        close(physical->descriptor);
    errno = saved;
    free(physical);
}

struct handle *handle_new(struct physical *physical)
{
    struct handle *handle = calloc(1, sizeof(*handle));
    if (!handle)
        return NULL;
    if (physical->handles++ == 0) {
        physical->next = physicals;
        physicals = physical;
    }
    handle->physical = physical;
    handle->references = 1;
    handle->next = handles;
    handles = handle;
    return handle;
}

CUresult physical_create(const CUmemAllocationProp *properties, uint64_t bytes, struct handle **handle)
{
    int saved = errno;
    bool on_card = properties->location.type == CU_MEM_LOCATION_TYPE_DEVICE;
    struct physical *physical = calloc(1, sizeof(*physical));
    if (!physical)
        return CUDA_ERROR_OUT_OF_MEMORY;
    *physical = (struct physical){.properties = *properties, .bytes = bytes, .charged = on_card};
    if (on_card)
        physical->device = sim_process.physical[properties->location.id];
    if (on_card && machine_charge(&sim_process.machine, physical->device, bytes) != 0) {
        free(physical);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    bool made = (properties->requestedHandleTypes == 0 || file_make(physical) == 0) && bytes_map(physical) &&
                (*handle = handle_new(physical)) != NULL;
    errno = saved;
    if (made)
        return CUDA_SUCCESS;
    if (on_card)
        machine_credit(&sim_process.machine, physical->device, bytes);
    bytes_end(physical);
    return CUDA_ERROR_OUT_OF_MEMORY;
}

/* Memory whose file this is, if this process has it. */
static struct physical *physical_find(const struct stat *status)
{
    for (struct physical *physical = physicals; physical; physical = physical->next)
        if (physical->descriptor && physical->filesystem == status->st_dev && physical->inode == status->st_ino)
            return physical;
    return NULL;
}

/* Memory of another process, not charged here. */
static struct physical *physical_adopt(int descriptor, const struct stat *status)
{
    unsigned device = 0;
    int handle_types = 0;
    uint64_t bytes = physical_describe(descriptor, &device, &handle_types);
    struct physical *physical = bytes && device < SIM_DEVICES ? calloc(1, sizeof(*physical)) : NULL;
    if (!physical)
        return NULL;
    *physical = (struct physical){.properties = {.type = CU_MEM_ALLOCATION_TYPE_PINNED,
                                                 .requestedHandleTypes = handle_types,
                                                 .location = {CU_MEM_LOCATION_TYPE_DEVICE, device_ordinal(device)}},
                                  .bytes = bytes,
                                  .device = device,
                                  .filesystem = status->st_dev,
                                  .inode = status->st_ino};
    int copy = descriptor_copy(descriptor); /* of the export itself: its lock says that somebody has the memory */
    physical->descriptor = copy < 0 ? 0 : copy;
    if (copy >= 0 && bytes_map(physical))
        return physical;
    bytes_end(physical);
    return NULL;
}

CUresult physical_import(int descriptor, struct handle **handle)
{
    struct stat status;
    unsigned device;
    int handle_types, saved = errno;
    bool known = physical_describe(descriptor, &device, &handle_types) && fstat(descriptor, &status) == 0;
    errno = saved;
    if (!known)
        return CUDA_ERROR_INVALID_VALUE;
    struct physical *physical = physical_find(&status);
    if (!physical)
        physical = physical_adopt(descriptor, &status);
    if (!physical)
        return CUDA_ERROR_OUT_OF_MEMORY;
    *handle = handle_new(physical);
    if (!*handle && physical->handles == 0)
        bytes_end(physical);
    return *handle ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

/* Another opening of the same file, so that its lock is its own. */
CUresult physical_export(struct physical *physical, int *descriptor)
{
    char path[48];
    int saved = errno;
    struct flock lock = {.l_type = F_RDLCK, .l_whence = SEEK_SET, .l_len = 1};
    snprintf(path, sizeof(path), "/proc/self/fd/%d", physical->descriptor);
    int opened = open(path, O_RDWR | O_CLOEXEC);
    if (opened >= 0 && fcntl(opened, F_OFD_SETLK, &lock) != 0) {
        close(opened);
        opened = -1;
    }
    errno = saved;
    if (opened < 0)
        return CUDA_ERROR_OPERATING_SYSTEM;
    *descriptor = opened;
    return CUDA_SUCCESS;
}

/* Whether an export of it is open anywhere: its lock is one to read; one to write is that of who waited for the last. */
static bool exports_are_left(const struct physical *physical)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 1};
    return physical->descriptor && fcntl(physical->descriptor, F_OFD_GETLK, &lock) == 0 && lock.l_type == F_RDLCK;
}

/* Credits those of the ended that nobody has any more. */
static void exported_look(void)
{
    int saved = errno;
    for (struct physical **link = &exported; *link;) {
        struct physical *physical = *link;
        if (exports_are_left(physical)) {
            link = &physical->next;
            continue;
        }
        *link = physical->next;
        machine_credit(&sim_process.machine, physical->device, physical->bytes);
        bytes_end(physical);
    }
    errno = saved;
}

bool physical_in_use(void)
{
    exported_look();
    for (const struct physical *physical = physicals; physical; physical = physical->next)
        if (!physical->multicast && (physical->charged ? exports_are_left(physical) : physical->descriptor != 0))
            return true;
    return exported != NULL;
}

void vmm_settle(void)
{
    sim_lock();
    exported_look();
    sim_unlock();
}

/* Sleeps until the last export is closed, on a descriptor of its own: looked at by anybody else before, that is well too. */
static void *exports_await(void *argument)
{
    int descriptor = (int)(intptr_t)argument;
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 1};
    while (fcntl(descriptor, F_OFD_SETLKW, &lock) != 0 && errno == EINTR)
        ;
    close(descriptor);
    vmm_settle();
    return NULL;
}

/* Without the thread the bytes come back at the next look. */
static void exports_watch(const struct physical *physical)
{
    pthread_t thread;
    pthread_attr_t attributes;
    sigset_t all, before;
    char path[48];
    snprintf(path, sizeof(path), "/proc/self/fd/%d", physical->descriptor);
    int descriptor = open(path, O_RDWR | O_CLOEXEC);
    if (descriptor < 0 || pthread_attr_init(&attributes) != 0) {
        if (descriptor >= 0)
            close(descriptor);
        return;
    }
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attributes, WAIT_STACK_BYTES);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    if (pthread_create(&thread, &attributes, exports_await, (void *)(intptr_t)descriptor) != 0)
        close(descriptor);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
}

static void physical_end(struct physical *physical)
{
    struct physical **link = &physicals;
    while (*link != physical)
        link = &(*link)->next;
    *link = physical->next;
    if (physical->multicast)
        multicast_end(physical->multicast);
    if (physical->charged && exports_are_left(physical)) {
        if (physical->data)
            munmap(physical->data, physical->bytes);
        physical->data = NULL;
        physical->next = exported;
        exported = physical;
        exports_watch(physical);
        return;
    }
    if (physical->charged)
        machine_credit(&sim_process.machine, physical->device, physical->bytes);
    bytes_end(physical);
}

/* The number is the address, so that numbers come again, as the driver's do. */
CUmemGenericAllocationHandle handle_number(const struct handle *handle)
{
    return (CUmemGenericAllocationHandle)(uintptr_t)handle;
}

struct handle *handle_find(CUmemGenericAllocationHandle number)
{
    for (struct handle *handle = handles; handle; handle = handle->next)
        if (handle_number(handle) == number)
            return handle->references ? handle : NULL;
    return NULL;
}

static void handle_end_if_unused(struct handle *handle)
{
    if (handle->references || handle->mappings)
        return;
    struct handle **link = &handles;
    while (*link != handle)
        link = &(*link)->next;
    *link = handle->next;
    if (--handle->physical->handles == 0)
        physical_end(handle->physical);
    free(handle);
}

void handle_release(struct handle *handle)
{
    handle->references--;
    handle_end_if_unused(handle);
}

void handle_unmap(struct handle *handle)
{
    handle->mappings--;
    handle_end_if_unused(handle);
}
