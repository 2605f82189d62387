/* What NVML says of a card's memory; nvml.h has who calls it and what synchronises it. */
#include "config.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "cuda/driver.h"
#include "cuda/nvml.h"
#include "cuda/nvml_abi.h"

enum { PROCESSES_MAX = 1024, UUID_TEXT_BYTES = 64 };

typedef nvmlReturn_t process_lister(nvmlDevice_t device, unsigned *count, nvmlProcessInfo_t *list);

struct nvml {
    nvmlReturn_t (*init)(void);
    nvmlReturn_t (*handle_by_uuid)(const char *uuid, nvmlDevice_t *device);
    nvmlReturn_t (*memory_info)(nvmlDevice_t device, nvmlMemory_t *memory);
    process_lister *compute_processes, *graphics_processes;
};

/* Filled alike by whoever comes first: several at once write the same words. */
static _Atomic(int) state; /* 0: not looked for yet; 1: there; -1: not there */
static struct nvml nvml;

static void entry_find(void *handle, const char *name, const char *older, void *entry)
{
    void *found = dlsym_real()(handle, name);
    if (found == NULL && older != NULL)
        found = dlsym_real()(handle, older);
    __atomic_store_n((void **)entry, found, __ATOMIC_RELAXED);
}

static bool nvml_load(void)
{
    int seen = atomic_load_explicit(&state, memory_order_acquire);
    if (seen != 0)
        return seen > 0;
    void *handle = dlopen("libnvidia-ml.so.1", RTLD_NOW);
    if (handle != NULL) {
        entry_find(handle, "nvmlInit_v2", "nvmlInit", &nvml.init);
        entry_find(handle, "nvmlDeviceGetHandleByUUID", NULL, &nvml.handle_by_uuid);
        entry_find(handle, "nvmlDeviceGetMemoryInfo", NULL, &nvml.memory_info);
        entry_find(handle, "nvmlDeviceGetComputeRunningProcesses_v3", "nvmlDeviceGetComputeRunningProcesses_v2",
                   &nvml.compute_processes);
        entry_find(handle, "nvmlDeviceGetGraphicsRunningProcesses_v3", "nvmlDeviceGetGraphicsRunningProcesses_v2",
                   &nvml.graphics_processes);
    }
    (void)dlerror();
    bool there = handle != NULL && nvml.init != NULL && nvml.handle_by_uuid != NULL && nvml.memory_info != NULL &&
                 nvml.compute_processes != NULL && nvml.init() == NVML_SUCCESS;
    atomic_store_explicit(&state, there ? 1 : -1, memory_order_release);
    return there;
}

static int device_open(const CUuuid *uuid, nvmlDevice_t *device)
{
    const uint8_t *b = uuid->bytes;
    char text[UUID_TEXT_BYTES];
    if (!nvml_load())
        return -ENOSYS;
    (void)snprintf(text, sizeof text, "GPU-%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", b[0],
                   b[1], b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]);
    return nvml.handle_by_uuid(text, device) == NVML_SUCCESS ? 0 : -ENOENT;
}

/* What the listed processes hold; with a pid, that one alone. Returns how many were counted or -errno. */
static int processes_sum(process_lister *lister, nvmlDevice_t device, uint32_t pid, uint64_t *bytes)
{
    size_t size = PROCESSES_MAX * sizeof(nvmlProcessInfo_t);
    unsigned count = PROCESSES_MAX;
    int counted = 0;
    if (lister == NULL)
        return 0;
    nvmlProcessInfo_t *list = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (list == MAP_FAILED)
        return -ENOMEM;
    if (lister(device, &count, list) != NVML_SUCCESS)
        counted = -EIO;
    for (unsigned i = 0; counted >= 0 && i < count && i < PROCESSES_MAX; i++) {
        if ((pid != 0 && list[i].pid != pid) || list[i].usedGpuMemory == NVML_VALUE_NOT_AVAILABLE)
            continue;
        *bytes += list[i].usedGpuMemory;
        counted++;
    }
    (void)munmap(list, size);
    return counted;
}

static int own_bytes(const CUuuid *uuid, uint64_t *bytes)
{
    nvmlDevice_t device;
    *bytes = 0;
    int result = device_open(uuid, &device);
    if (result != 0)
        return result;
    result = processes_sum(nvml.compute_processes, device, (uint32_t)getpid(), bytes);
    return result > 0 ? 0 : result < 0 ? result : -ENOENT;
}

static int used_bytes(const CUuuid *uuid, uint64_t *bytes)
{
    nvmlDevice_t device;
    nvmlMemory_t memory;
    int result = device_open(uuid, &device);
    if (result != 0)
        return result;
    if (nvml.memory_info(device, &memory) != NVML_SUCCESS)
        return -EIO;
    *bytes = memory.used;
    return 0;
}

static int idle_bytes(const CUuuid *uuid, uint64_t *bytes)
{
    nvmlDevice_t device;
    uint64_t used, held = 0;
    int result = device_open(uuid, &device);
    if (result == 0)
        result = used_bytes(uuid, &used);
    if (result != 0)
        return result;
    if (processes_sum(nvml.compute_processes, device, 0, &held) < 0)
        return -EIO;
    (void)processes_sum(nvml.graphics_processes, device, 0, &held);
    *bytes = used > held ? used - held : 0;
    return 0;
}

void nvml_prepare(void)
{
    int before = errno;
    (void)nvml_load();
    errno = before;
}

/* The three figures, with the program's errno kept. */
#define KEEPING_ERRNO(call)                                                                                            \
    do {                                                                                                               \
        int before = errno;                                                                                            \
        int result = (call);                                                                                           \
        errno = before;                                                                                                \
        return result;                                                                                                 \
    } while (0)

int nvml_own_bytes(const CUuuid *uuid, uint64_t *bytes)
{
    KEEPING_ERRNO(own_bytes(uuid, bytes));
}

int nvml_used_bytes(const CUuuid *uuid, uint64_t *bytes)
{
    KEEPING_ERRNO(used_bytes(uuid, bytes));
}

int nvml_idle_bytes(const CUuuid *uuid, uint64_t *bytes)
{
    KEEPING_ERRNO(idle_bytes(uuid, bytes));
}
