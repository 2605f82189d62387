/* What NVML says of a card's memory; nvml.h has who calls it and what synchronises it. */
#include "config.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "cuda/nvml.h"
#include "cuda/nvml_library.h"

enum {
    PROCESSES_MAX = 1024,
    UUID_TEXT_BYTES = 64,
    DEVICE_UUID_BYTES = 96, /* what nvmlDeviceGetUUID may need at most */
};

typedef nvmlReturn_t process_lister(nvmlDevice_t device, unsigned *count, nvmlProcessInfo_t *list);

/* Set alike by whoever comes first. */
static _Atomic(int) state; /* 0: not initialised yet; 1: there; -1: not there */

static process_lister *compute_lister(const struct nvml_library *nvml)
{
    return nvml->nvmlDeviceGetComputeRunningProcesses_v3 != NULL ? nvml->nvmlDeviceGetComputeRunningProcesses_v3
                                                                 : nvml->nvmlDeviceGetComputeRunningProcesses_v2;
}

static process_lister *graphics_lister(const struct nvml_library *nvml)
{
    return nvml->nvmlDeviceGetGraphicsRunningProcesses_v3 != NULL ? nvml->nvmlDeviceGetGraphicsRunningProcesses_v3
                                                                  : nvml->nvmlDeviceGetGraphicsRunningProcesses_v2;
}

static bool nvml_start(const struct nvml_library *nvml)
{
    if (nvml == NULL || nvml->nvmlDeviceGetHandleByUUID == NULL || nvml->nvmlDeviceGetMemoryInfo == NULL ||
        compute_lister(nvml) == NULL)
        return false;
    return (nvml->nvmlInit_v2 != NULL ? nvml->nvmlInit_v2() : nvml->nvmlInit()) == NVML_SUCCESS;
}

/* NVML, initialised; NULL: there is none. */
static const struct nvml_library *nvml_load(void)
{
    int seen = atomic_load_explicit(&state, memory_order_acquire);
    if (seen == 0) {
        seen = nvml_start(nvml_library_get()) ? 1 : -1;
        atomic_store_explicit(&state, seen, memory_order_release);
    }
    return seen > 0 ? nvml_library_bound() : NULL;
}

static int device_open(const CUuuid *uuid, nvmlDevice_t *device)
{
    const uint8_t *b = uuid->bytes;
    const struct nvml_library *nvml = nvml_load();
    char text[UUID_TEXT_BYTES];
    if (nvml == NULL)
        return -ENOSYS;
    (void)snprintf(text, sizeof text, "GPU-%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", b[0],
                   b[1], b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]);
    return nvml->nvmlDeviceGetHandleByUUID(text, device) == NVML_SUCCESS ? 0 : -ENOENT;
}

typedef void process_visitor(const nvmlProcessInfo_t *process, void *context);

/* Calls `visit` for each listed process; 0 or -errno. */
static int processes_walk(process_lister *lister, nvmlDevice_t device, process_visitor *visit, void *context)
{
    size_t size = PROCESSES_MAX * sizeof(nvmlProcessInfo_t);
    unsigned count = PROCESSES_MAX;
    if (lister == NULL)
        return 0;
    nvmlProcessInfo_t *list = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (list == MAP_FAILED)
        return -ENOMEM;
    int result = lister(device, &count, list) == NVML_SUCCESS ? 0 : -EIO;
    for (unsigned i = 0; result == 0 && i < count && i < PROCESSES_MAX; i++)
        if (list[i].usedGpuMemory != NVML_VALUE_NOT_AVAILABLE)
            visit(&list[i], context);
    (void)munmap(list, size);
    return result;
}

struct process_sum {
    uint32_t pid; /* 0: all */
    unsigned counted;
    uint64_t bytes;
};

static void process_add(const nvmlProcessInfo_t *process, void *context)
{
    struct process_sum *sum = context;
    if (sum->pid != 0 && sum->pid != process->pid)
        return;
    sum->bytes += process->usedGpuMemory;
    sum->counted++;
}

static int own_bytes(const CUuuid *uuid, uint64_t *bytes)
{
    struct process_sum sum = {.pid = (uint32_t)getpid()};
    nvmlDevice_t device;
    *bytes = 0;
    int result = device_open(uuid, &device);
    if (result == 0)
        result = processes_walk(compute_lister(nvml_library_bound()), device, process_add, &sum);
    *bytes = sum.bytes;
    return result == 0 && sum.counted == 0 ? -ENOENT : result;
}

static int used_bytes(const CUuuid *uuid, uint64_t *bytes)
{
    nvmlDevice_t device;
    nvmlMemory_t memory;
    int result = device_open(uuid, &device);
    if (result != 0)
        return result;
    if (nvml_library_bound()->nvmlDeviceGetMemoryInfo(device, &memory) != NVML_SUCCESS)
        return -EIO;
    *bytes = memory.used;
    return 0;
}

static int idle_bytes(const CUuuid *uuid, uint64_t *bytes)
{
    struct process_sum sum = {.pid = 0};
    nvmlDevice_t device;
    uint64_t used;
    int result = device_open(uuid, &device);
    if (result == 0)
        result = used_bytes(uuid, &used);
    if (result != 0)
        return result;
    result = processes_walk(compute_lister(nvml_library_bound()), device, process_add, &sum);
    (void)processes_walk(graphics_lister(nvml_library_bound()), device, process_add, &sum);
    *bytes = used > sum.bytes ? used - sum.bytes : 0;
    return result;
}

struct holder_list {
    struct nvml_holder *holders;
    unsigned count, places;
};

static void holder_add(const nvmlProcessInfo_t *process, void *context)
{
    struct holder_list *list = context;
    if (list->count < list->places)
        list->holders[list->count++] = (struct nvml_holder){process->pid, process->usedGpuMemory};
}

static int holders_read(const CUuuid *uuid, struct nvml_holder *holders, unsigned places)
{
    struct holder_list list = {.holders = holders, .places = places};
    nvmlDevice_t device;
    int result = device_open(uuid, &device);
    if (result == 0)
        result = processes_walk(compute_lister(nvml_library_bound()), device, holder_add, &list);
    return result == 0 ? (int)list.count : result;
}

/* The 32 hexadecimal digits of "GPU-01234567-89ab-..." or "MIG-...". */
static bool uuid_parse(const char *text, CUuuid *uuid)
{
    unsigned digits = 0;
    if (strncmp(text, "GPU-", 4) != 0 && strncmp(text, "MIG-", 4) != 0)
        return false;
    for (text += 4; *text != '\0'; text++) {
        unsigned digit = *text >= '0' && *text <= '9'   ? (unsigned)(*text - '0')
                         : *text >= 'a' && *text <= 'f' ? (unsigned)(*text - 'a') + 10
                         : *text >= 'A' && *text <= 'F' ? (unsigned)(*text - 'A') + 10
                                                        : 16;
        if (*text == '-')
            continue;
        if (digit > 15 || digits == 2 * sizeof uuid->bytes)
            return false;
        uint8_t *byte = &uuid->bytes[digits++ / 2];
        *byte = (uint8_t)((unsigned)*byte << 4 | digit);
    }
    return digits == 2 * sizeof uuid->bytes;
}

bool nvml_device_uuid(nvmlDevice_t device, CUuuid *uuid)
{
    const struct nvml_library *nvml = nvml_library_bound();
    char text[DEVICE_UUID_BYTES];
    return nvml != NULL && nvml->nvmlDeviceGetUUID != NULL &&
           nvml->nvmlDeviceGetUUID(device, text, sizeof text) == NVML_SUCCESS && uuid_parse(text, uuid);
}

void nvml_prepare(void)
{
    int before = errno;
    (void)nvml_load();
    errno = before;
}

/* The figures, with the program's errno kept. */
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

int nvml_holders_read(const CUuuid *uuid, struct nvml_holder *holders, unsigned places)
{
    KEEPING_ERRNO(holders_read(uuid, holders, places));
}
