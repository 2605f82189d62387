/*
 * A program that finds NVML and the driver by one route only: usage story ROUTE BYTES, ROUTE one of handle, default and next.
 */
#include "story.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *handle;

static void *find_by_handle(const char *name)
{
    return dlsym(handle, name);
}

static void *find_by_default(const char *name)
{
    return dlsym(RTLD_DEFAULT, name);
}

static void *find_by_next(const char *name)
{
    return dlsym(RTLD_NEXT, name);
}

static void *library_open(const char *name, const char *route)
{
    void *opened = dlopen(name, strcmp(route, "handle") == 0 ? RTLD_NOW : RTLD_NOW | RTLD_GLOBAL);
    if (!opened) {
        fprintf(stderr, "story: %s\n", dlerror());
        exit(1);
    }
    return opened;
}

int main(int count, char **words)
{
    struct story_functions call = {0};
    if (count < 3)
        return 64;
    void *(*find)(const char *) = strcmp(words[1], "handle") == 0    ? find_by_handle
                                  : strcmp(words[1], "default") == 0 ? find_by_default
                                                                     : find_by_next;
    handle = library_open("libnvidia-ml.so.1", words[1]);
    *(void **)&call.nvml_init = find("nvmlInit_v2");
    *(void **)&call.count = find("nvmlDeviceGetCount_v2");
    *(void **)&call.by_index = find("nvmlDeviceGetHandleByIndex_v2");
    *(void **)&call.memory_info = find("nvmlDeviceGetMemoryInfo");
    *(void **)&call.memory_info_v2 = find("nvmlDeviceGetMemoryInfo_v2");
    *(void **)&call.processes = find("nvmlDeviceGetComputeRunningProcesses_v3");
    handle = library_open("libcuda.so.1", words[1]);
    *(void **)&call.init = find("cuInit");
    *(void **)&call.retain = find("cuDevicePrimaryCtxRetain");
    *(void **)&call.set_current = find("cuCtxSetCurrent");
    *(void **)&call.alloc = find("cuMemAlloc_v2");
    *(void **)&call.get_info = find("cuMemGetInfo_v2");
    *(void **)&call.total_mem = find("cuDeviceTotalMem_v2");
    return story_run(&call, strtoull(words[2], NULL, 0));
}
