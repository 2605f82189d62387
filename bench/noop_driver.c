/*
 * A driver that does next to nothing, as libcuda.so.1: what is measured over it is the cost of what stands in front.
 *
 * Memory is an address range per thread, handed out in steps of 512 bytes; what was freed last is handed out first, so that a pair
 * of calls costs a few nanoseconds however much is live. No state is shared between threads but the number of ranges given out.
 */
#include <stdatomic.h>
#include <string.h>

#include "cuda/cuda_abi.h"

#define DRIVER __attribute__((visibility("default")))

enum { STEP_BYTES = 512, KEPT = 64 };
#define RANGE_BYTES (1ULL << 36)
#define TOTAL_BYTES (1ULL << 40)

static _Atomic(uint64_t) ranges = 1;
static _Thread_local struct {
    CUdeviceptr next, end;
    CUdeviceptr kept[KEPT];
    unsigned kept_count;
} heap;
static _Thread_local CUcontext current;
static int primary_active;
static char context_place, pool_place;

/* Every function of the driver, once: the exports, and what cuGetProcAddress knows {name asked for, symbol, version}. */
#define DRIVER_FUNCTIONS(F)                                                                                            \
    F(cuInit, "cuInit", 2000, (unsigned flags))                                                                        \
    F(cuDriverGetVersion, "cuDriverGetVersion", 2020, (int *version))                                                  \
    F(cuDeviceGet, "cuDeviceGet", 2000, (CUdevice * device, int ordinal))                                              \
    F(cuDeviceGetCount, "cuDeviceGetCount", 2000, (int *count))                                                        \
    F(cuDeviceGetAttribute, "cuDeviceGetAttribute", 2000, (int *value, int attribute, CUdevice device))                \
    F(cuDeviceGetName, "cuDeviceGetName", 2000, (char *name, int bytes, CUdevice device))                              \
    F(cuDeviceGetUuid, "cuDeviceGetUuid", 9020, (CUuuid * uuid, CUdevice device))                                      \
    F(cuDeviceGetUuid_v2, "cuDeviceGetUuid", 11040, (CUuuid * uuid, CUdevice device))                                  \
    F(cuDeviceTotalMem_v2, "cuDeviceTotalMem", 3020, (size_t * bytes, CUdevice device))                                \
    F(cuDevicePrimaryCtxRetain, "cuDevicePrimaryCtxRetain", 7000, (CUcontext * context, CUdevice device))              \
    F(cuDevicePrimaryCtxRelease_v2, "cuDevicePrimaryCtxRelease", 11000, (CUdevice device))                             \
    F(cuDevicePrimaryCtxGetState, "cuDevicePrimaryCtxGetState", 7000, (CUdevice device, unsigned *flags, int *active)) \
    F(cuCtxGetCurrent, "cuCtxGetCurrent", 4000, (CUcontext * context))                                                 \
    F(cuCtxSetCurrent, "cuCtxSetCurrent", 4000, (CUcontext context))                                                   \
    F(cuCtxGetDevice, "cuCtxGetDevice", 2000, (CUdevice * device))                                                     \
    F(cuCtxSynchronize, "cuCtxSynchronize", 2000, (void))                                                              \
    F(cuMemGetInfo_v2, "cuMemGetInfo", 3020, (size_t * free_bytes, size_t * total_bytes))                              \
    F(cuMemAlloc_v2, "cuMemAlloc", 3020, (CUdeviceptr * pointer, size_t bytes))                                        \
    F(cuMemFree_v2, "cuMemFree", 3020, (CUdeviceptr pointer))                                                          \
    F(cuDeviceGetMemPool, "cuDeviceGetMemPool", 11020, (CUmemoryPool * pool, CUdevice device))                         \
    F(cuMemPoolGetAttribute, "cuMemPoolGetAttribute", 11020, (CUmemoryPool pool, int attribute, void *value))          \
    F(cuMemAllocAsync, "cuMemAllocAsync", 11020, (CUdeviceptr * pointer, size_t bytes, CUstream stream))               \
    F(cuMemFreeAsync, "cuMemFreeAsync", 11020, (CUdeviceptr pointer, CUstream stream))                                 \
    F(cuStreamQuery, "cuStreamQuery", 2000, (CUstream stream))                                                         \
    F(cuLaunchKernel, "cuLaunchKernel", 4000,                                                                          \
      (CUfunction function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y,     \
       unsigned block_z, unsigned shared_bytes, CUstream stream, void **arguments, void **extra))                      \
    F(cuStreamIsCapturing, "cuStreamIsCapturing", 10000, (CUstream stream, int *status))                               \
    F(cuMemCreate, "cuMemCreate", 10020,                                                                               \
      (CUmemGenericAllocationHandle * handle, size_t bytes, const CUmemAllocationProp *prop,                           \
       unsigned long long flags))                                                                                      \
    F(cuMemMap, "cuMemMap", 10020,                                                                                     \
      (CUdeviceptr address, size_t bytes, size_t offset, CUmemGenericAllocationHandle handle,                          \
       unsigned long long flags))                                                                                      \
    F(cuMemUnmap, "cuMemUnmap", 10020, (CUdeviceptr address, size_t bytes))                                            \
    F(cuMemRelease, "cuMemRelease", 10020, (CUmemGenericAllocationHandle handle))                                      \
    F(cuGetErrorName, "cuGetErrorName", 6000, (CUresult error, const char **name))                                     \
    F(cuGetProcAddress, "cuGetProcAddress", 11030, (const char *name, void **function, int version, uint64_t flags))   \
    F(cuGetProcAddress_v2, "cuGetProcAddress", 12000,                                                                  \
      (const char *name, void **function, int version, uint64_t flags, CUdriverProcAddressQueryResult *status))

#define DECLARE(symbol, name, version, parameters) DRIVER CUresult symbol parameters;
DRIVER_FUNCTIONS(DECLARE)
#undef DECLARE

CUresult cuInit(unsigned flags)
{
    return flags ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
}

CUresult cuDriverGetVersion(int *version)
{
    *version = 13000;
    return CUDA_SUCCESS;
}

CUresult cuDeviceGet(CUdevice *device, int ordinal)
{
    *device = ordinal;
    return ordinal == 0 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE;
}

CUresult cuDeviceGetCount(int *count)
{
    *count = 1;
    return CUDA_SUCCESS;
}

CUresult cuDeviceGetAttribute(int *value, int attribute, CUdevice device)
{
    (void)device;
    *value = attribute == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR ? 9 : 0;
    return CUDA_SUCCESS;
}

CUresult cuDeviceGetName(char *name, int bytes, CUdevice device)
{
    (void)device;
    if (bytes < 1)
        return CUDA_ERROR_INVALID_VALUE;
    strncpy(name, "no-op", (size_t)bytes);
    name[bytes - 1] = 0;
    return CUDA_SUCCESS;
}

CUresult cuDeviceGetUuid(CUuuid *uuid, CUdevice device)
{
    memset(uuid, 0x60, sizeof(*uuid));
    uuid->bytes[0] = (uint8_t)device;
    return CUDA_SUCCESS;
}

CUresult cuDeviceGetUuid_v2(CUuuid *uuid, CUdevice device)
{
    return cuDeviceGetUuid(uuid, device);
}

CUresult cuDeviceTotalMem_v2(size_t *bytes, CUdevice device)
{
    (void)device;
    *bytes = TOTAL_BYTES;
    return CUDA_SUCCESS;
}

CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device)
{
    (void)device;
    primary_active = 1;
    *context = (CUcontext)(void *)&context_place;
    return CUDA_SUCCESS;
}

CUresult cuDevicePrimaryCtxRelease_v2(CUdevice device)
{
    (void)device;
    primary_active = 0;
    return CUDA_SUCCESS;
}

CUresult cuDevicePrimaryCtxGetState(CUdevice device, unsigned *flags, int *active)
{
    (void)device;
    *flags = 0;
    *active = primary_active;
    return CUDA_SUCCESS;
}

CUresult cuCtxGetCurrent(CUcontext *context)
{
    *context = current;
    return CUDA_SUCCESS;
}

CUresult cuCtxSetCurrent(CUcontext context)
{
    current = context;
    return CUDA_SUCCESS;
}

CUresult cuCtxGetDevice(CUdevice *device)
{
    *device = 0;
    return current ? CUDA_SUCCESS : CUDA_ERROR_INVALID_CONTEXT;
}

CUresult cuCtxSynchronize(void)
{
    return CUDA_SUCCESS;
}

CUresult cuMemGetInfo_v2(size_t *free_bytes, size_t *total_bytes)
{
    *free_bytes = TOTAL_BYTES;
    *total_bytes = TOTAL_BYTES;
    return CUDA_SUCCESS;
}

CUresult cuMemAlloc_v2(CUdeviceptr *pointer, size_t bytes)
{
    if (heap.kept_count > 0 && bytes <= STEP_BYTES) {
        *pointer = heap.kept[--heap.kept_count];
        return CUDA_SUCCESS;
    }
    bytes = (bytes + STEP_BYTES - 1) / STEP_BYTES * STEP_BYTES;
    if (heap.end - heap.next < bytes) {
        heap.next = atomic_fetch_add(&ranges, 1) * RANGE_BYTES;
        heap.end = heap.next + RANGE_BYTES;
    }
    *pointer = heap.next;
    heap.next += bytes;
    return CUDA_SUCCESS;
}

CUresult cuMemFree_v2(CUdeviceptr pointer)
{
    if (heap.kept_count < KEPT)
        heap.kept[heap.kept_count++] = pointer;
    return CUDA_SUCCESS;
}

CUresult cuDeviceGetMemPool(CUmemoryPool *pool, CUdevice device)
{
    (void)device;
    *pool = (CUmemoryPool)(void *)&pool_place;
    return CUDA_SUCCESS;
}

/* One step is reserved for ever. */
CUresult cuMemPoolGetAttribute(CUmemoryPool pool, int attribute, void *value)
{
    uint64_t bytes = attribute == CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT ? 32ULL << 20 : 0;
    (void)pool;
    memcpy(value, &bytes, sizeof(bytes));
    return CUDA_SUCCESS;
}

CUresult cuMemAllocAsync(CUdeviceptr *pointer, size_t bytes, CUstream stream)
{
    (void)stream;
    return cuMemAlloc_v2(pointer, bytes);
}

CUresult cuMemFreeAsync(CUdeviceptr pointer, CUstream stream)
{
    (void)stream;
    return cuMemFree_v2(pointer);
}

CUresult cuStreamQuery(CUstream stream)
{
    (void)stream;
    return CUDA_SUCCESS;
}

CUresult cuLaunchKernel(CUfunction function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                        unsigned block_y, unsigned block_z, unsigned shared_bytes, CUstream stream, void **arguments,
                        void **extra)
{
    (void)grid_x, (void)grid_y, (void)grid_z, (void)block_x, (void)block_y, (void)block_z;
    (void)function, (void)shared_bytes, (void)stream, (void)arguments, (void)extra;
    return CUDA_SUCCESS;
}

CUresult cuStreamIsCapturing(CUstream stream, int *status)
{
    (void)stream;
    *status = CU_STREAM_CAPTURE_STATUS_NONE;
    return CUDA_SUCCESS;
}

/* Handles are addresses of steps; the one released last is the next. */
CUresult cuMemCreate(CUmemGenericAllocationHandle *handle, size_t bytes, const CUmemAllocationProp *prop,
                     unsigned long long flags)
{
    (void)bytes;
    return prop && flags == 0 ? cuMemAlloc_v2(handle, STEP_BYTES) : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuMemMap(CUdeviceptr address, size_t bytes, size_t offset, CUmemGenericAllocationHandle handle,
                  unsigned long long flags)
{
    return address && bytes && offset == 0 && handle && flags == 0 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuMemUnmap(CUdeviceptr address, size_t bytes)
{
    return address && bytes ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuMemRelease(CUmemGenericAllocationHandle handle)
{
    return cuMemFree_v2(handle);
}

CUresult cuGetErrorName(CUresult error, const char **name)
{
    *name = error == CUDA_SUCCESS ? "CUDA_SUCCESS" : "CUDA_ERROR";
    return CUDA_SUCCESS;
}

static const struct {
    const char *name;
    void (*function)(void);
    int version;
} functions[] = {
#define ENTRY(symbol, name, version, parameters) {name, (void (*)(void))symbol, version},
    DRIVER_FUNCTIONS(ENTRY)
#undef ENTRY
};

static CUresult address_find(const char *name, void **function, int version, CUdriverProcAddressQueryResult *status)
{
    int best_version = -1;
    *function = NULL;
    for (size_t i = 0; i < sizeof(functions) / sizeof(functions[0]); i++)
        if (functions[i].version <= version && functions[i].version > best_version &&
            strcmp(functions[i].name, name) == 0) {
            memcpy(function, &functions[i].function, sizeof(*function));
            best_version = functions[i].version;
        }
    if (status)
        *status = *function ? CU_GET_PROC_ADDRESS_SUCCESS : CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND;
    return *function ? CUDA_SUCCESS : CUDA_ERROR_NOT_FOUND;
}

CUresult cuGetProcAddress(const char *name, void **function, int version, uint64_t flags)
{
    (void)flags;
    return address_find(name, function, version, NULL);
}

CUresult cuGetProcAddress_v2(const char *name, void **function, int version, uint64_t flags,
                             CUdriverProcAddressQueryResult *status)
{
    (void)flags;
    return address_find(name, function, version, status);
}
