/*
 * A library that is not the driver and has names like its: one that begins with "cu" and belongs to nobody else, and two
 * that are the driver's names too. Who asks this library for them must get these.
 */
#include "cuda/cuda_abi.h"

#define OTHER __attribute__((visibility("default")))

OTHER int cudnnCreate(void **handle);
OTHER CUresult cuMemAlloc_v2(CUdeviceptr *pointer, size_t bytes);
OTHER CUresult cuGetProcAddress(const char *name, void **function, int version, uint64_t flags);

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
