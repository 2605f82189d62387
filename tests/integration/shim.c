/*
 * A second preloaded library, as profilers are: it stands before the C library's labs and before the driver's cuMemAlloc_v2, and
 * finds the next one by dlsym(RTLD_NEXT), asked anew at each call. shim_calls says how often it was passed.
 */
#include <dlfcn.h>
#include <stddef.h>

#include "cuda/cuda_abi.h"

#define SHIM __attribute__((visibility("default")))

SHIM long labs(long value);
SHIM CUresult cuMemAlloc_v2(CUdeviceptr *pointer, size_t bytes);
SHIM unsigned shim_calls(void);

static unsigned calls;

SHIM unsigned shim_calls(void)
{
    return calls;
}

SHIM long labs(long value)
{
    long (*first)(long) = NULL, (*second)(long) = NULL;
    *(void **)&first = dlsym(RTLD_NEXT, "labs");
    *(void **)&second = dlsym(RTLD_NEXT, "labs");
    calls++;
    return first && first == second && first != labs ? first(value) : -1;
}

SHIM CUresult cuMemAlloc_v2(CUdeviceptr *pointer, size_t bytes)
{
    CUresult (*first)(CUdeviceptr *, size_t) = NULL, (*second)(CUdeviceptr *, size_t) = NULL;
    *(void **)&first = dlsym(RTLD_NEXT, "cuMemAlloc_v2");
    *(void **)&second = dlsym(RTLD_NEXT, "cuMemAlloc_v2");
    calls++;
    return first && first == second && first != cuMemAlloc_v2 ? first(pointer, bytes) : CUDA_ERROR_UNKNOWN;
}
