/* A program linked to libcuda.so.1 and libnvidia-ml.so.1: usage story_linked BYTES. */
#include "story.h"

#include <stdlib.h>

int main(int count, char **words)
{
    const struct story_functions call = {
        .init = cuInit,
        .retain = cuDevicePrimaryCtxRetain,
        .set_current = cuCtxSetCurrent,
        .alloc = cuMemAlloc_v2,
        .get_info = cuMemGetInfo_v2,
        .total_mem = cuDeviceTotalMem_v2,
        .nvml_init = nvmlInit_v2,
        .count = nvmlDeviceGetCount_v2,
        .by_index = nvmlDeviceGetHandleByIndex_v2,
        .memory_info = nvmlDeviceGetMemoryInfo,
        .memory_info_v2 = nvmlDeviceGetMemoryInfo_v2,
        .processes = nvmlDeviceGetComputeRunningProcesses_v3,
    };
    return count < 2 ? 64 : story_run(&call, strtoull(words[1], NULL, 0));
}
