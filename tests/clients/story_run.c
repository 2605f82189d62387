/* What every program of the stories asks; see story.h. */
#include "story.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define MIB(bytes) ((unsigned long long)((bytes) >> 20))

static void devices_tell(const struct story_functions *call)
{
    unsigned count = 0;
    nvmlDevice_t device;
    if (call->count(&count) != NVML_SUCCESS)
        printf("no count\n");
    for (unsigned index = 0; index < count; index++) {
        nvmlMemory_t first = {0};
        nvmlMemory_v2_t second = {.version = NVML_MEMORY_V2};
        errno = EDOM;
        if (call->by_index(index, &device) != NVML_SUCCESS || call->memory_info(device, &first) != NVML_SUCCESS ||
            call->memory_info_v2(device, &second) != NVML_SUCCESS || errno != EDOM)
            printf("device %u does not tell\n", index);
        printf("device %u: total %llu free %llu used %llu; total %llu reserved %llu free %llu used %llu\n", index,
               MIB(first.total), MIB(first.free), MIB(first.used), MIB(second.total), MIB(second.reserved),
               MIB(second.free), MIB(second.used));
    }
}

/* What NVML refuses it refuses still, and writes nothing. */
static void errors_tell(const struct story_functions *call)
{
    nvmlDevice_t device = NULL;
    nvmlMemory_t first = {1, 2, 3};
    nvmlMemory_v2_t second = {.version = 7, .total = 1, .reserved = 2, .free = 3, .used = 4};
    (void)call->by_index(0, &device);
    nvmlReturn_t nothing = call->memory_info(device, NULL), nobody = call->memory_info(NULL, &first);
    nvmlReturn_t version = call->memory_info_v2(device, &second);
    printf("errors %d %d %d %s\n", nothing, nobody, version,
           first.total == 1 && first.free == 2 && first.used == 3 && second.total == 1 && second.reserved == 2 &&
                   second.free == 3 && second.used == 4
               ? "untouched"
               : "touched");
}

/* The program's own row of a list of processes, with the real figure. */
static void processes_tell(const struct story_functions *call)
{
    nvmlProcessInfo_t list[16];
    unsigned own = 0, devices = 0;
    nvmlDevice_t device;
    uint64_t bytes = 0;
    (void)call->count(&devices);
    for (unsigned index = 0; index < devices; index++) {
        unsigned count = 16;
        if (call->by_index(index, &device) != NVML_SUCCESS || call->processes(device, &count, list) != NVML_SUCCESS)
            printf("no list\n");
        for (unsigned i = 0; i < count && i < 16; i++)
            if (list[i].pid == (unsigned)getpid()) {
                own++;
                bytes += list[i].usedGpuMemory;
            }
    }
    printf("processes: %u of this one, %llu\n", own, MIB(bytes));
}

int story_run(const struct story_functions *call, size_t bytes)
{
    CUcontext context;
    CUdeviceptr pointer;
    nvmlDevice_t device;
    nvmlMemory_t memory;
    size_t free_bytes = 0, total_bytes = 0, total_mem = 0, alone = 0;
    printf("before nvmlInit %d\n", call->memory_info(NULL, &memory));
    if (call->nvml_init() != NVML_SUCCESS || call->by_index(0, &device) != NVML_SUCCESS)
        return 1;
    printf("before cuInit\n");
    devices_tell(call);
    if (call->init(0) || call->retain(&context, 0) || call->set_current(context) || call->alloc(&pointer, bytes) ||
        call->get_info(&free_bytes, &total_bytes) || call->total_mem(&total_mem, 0))
        return 1;
    printf("after\ncuda: total %llu free %llu; total %llu\n", MIB(total_bytes), MIB(free_bytes), MIB(total_mem));
    devices_tell(call);
    processes_tell(call);
    errors_tell(call);
    printf("NULL %d %d", call->get_info(NULL, NULL), call->get_info(NULL, &alone));
    printf(" %s\n", alone == total_bytes ? "same" : "other");
    return 0;
}
