/*
 * A library that is not the driver and has names like its: one that begins with "cu" and belongs to nobody else, and three
 * that are the driver's and NVML's names too. Who asks this library for them must get these.
 */
#include "cuda/cuda_abi.h"
#include "cuda/nvml_abi.h"

#define OTHER __attribute__((visibility("default")))

OTHER int cudnnCreate(void **handle);
OTHER CUresult cuMemAlloc_v2(CUdeviceptr *pointer, size_t bytes);
OTHER CUresult cuGetProcAddress(const char *name, void **function, int version, uint64_t flags);
OTHER nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t *memory);

OTHER int cudnnCreate(void **handle)
{
    *handle = handle;
    return 4242;
}

OTHER CUresult cuMemAlloc_v2(CUdeviceptr *pointer, size_t bytes)
{
    *pointer = bytes;
    return 4243;
}

OTHER CUresult cuGetProcAddress(const char *name, void **function, int version, uint64_t flags)
{
    (void)name;
    (void)function;
    (void)version;
    (void)flags;
    return 4244;
}

nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t *memory)
{
    (void)device;
    memory->total = 1;
    return 4245;
}
