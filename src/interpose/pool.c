/* Stream-ordered memory: what allocates from pools, makes them and trims them. Wrappers; src/account/pools.h says how. */
#include "config.h"

#include "account/account.h"
#include "account/pools.h"
#include "platform/gate.h"
#include "interpose/hooks.h"

/* --- allocating -------------------------------------------------------------------------------------------------------- */

/* The arguments of all the forms; `pool` NULL: the one that is current to the stream's device. */
struct request {
    size_t bytes;
    CUmemoryPool pool;
    CUstream stream;
    bool per_thread; /* the default stream is the thread's own */
};

typedef CUresult request_call(const struct driver *driver, const struct request *request, CUdeviceptr *pointer);

/* The device that a stream works on. Of the default streams: the current context's. */
static bool stream_device(const struct driver *driver, const struct request *request, CUdevice *ordinal)
{
    CUstream stream = request->stream;
    CUcontext context;
    if ((uintptr_t)stream <= (uintptr_t)CU_STREAM_PER_THREAD)
        return driver->cuCtxGetDevice(ordinal) == CUDA_SUCCESS;
    if (driver->cuStreamGetDevice != NULL)
        return driver->cuStreamGetDevice(stream, ordinal) == CUDA_SUCCESS;
    if (driver->cuStreamGetCtx == NULL || driver->cuStreamGetCtx(stream, &context) != CUDA_SUCCESS ||
        driver->cuCtxPushCurrent_v2(context) != CUDA_SUCCESS)
        return false;
    bool known = driver->cuCtxGetDevice(ordinal) == CUDA_SUCCESS;
    (void)driver->cuCtxPopCurrent_v2(&context);
    return known;
}

/* On a capturing stream the call adds a node to a graph, and takes nothing until that is launched. */
static bool stream_is_capturing(const struct driver *driver, const struct request *request)
{
    int status = CU_STREAM_CAPTURE_STATUS_NONE;
    CUresult (*ask)(CUstream, int *) =
        request->per_thread ? driver->cuStreamIsCapturing_ptsz : driver->cuStreamIsCapturing;
    return ask != NULL && ask(request->stream, &status) == CUDA_SUCCESS && status != CU_STREAM_CAPTURE_STATUS_NONE;
}

/* Where the call will take its memory from. False: nothing to charge, or the driver will refuse it anyhow. */
static bool pool_find(const struct driver *driver, const struct request *request, CUmemoryPool *pool, CUdevice *ordinal)
{
    if (!account_is_attached() || !stream_device(driver, request, ordinal) || stream_is_capturing(driver, request))
        return false;
    *pool = request->pool;
    return *pool != NULL ||
           (driver->cuDeviceGetMemPool != NULL && driver->cuDeviceGetMemPool(pool, *ordinal) == CUDA_SUCCESS);
}

static CUresult allocate_charged(const struct driver *driver, const struct request *request, request_call *call,
                                 CUdeviceptr *pointer)
{
    CUmemoryPool pool;
    CUdevice ordinal;
    CUdeviceptr taken;
    struct pool_call charge;
    if (pointer == NULL || !pool_find(driver, request, &pool, &ordinal))
        return call(driver, request, pointer);
    if (!pool_begin(driver, pool, ordinal, request->bytes, &charge))
        return CUDA_ERROR_OUT_OF_MEMORY;
    if (charge.retired)
        return CUDA_ERROR_INVALID_VALUE;
    CUresult result = call(driver, request, &taken);
    bool kept = pool_end(driver, &charge, result, result == CUDA_SUCCESS ? taken : 0, request->bytes);
    if (result != CUDA_SUCCESS)
        return result;
    if (!kept) { /* the driver laid it out otherwise than we believed */
        account_leaving(+1);
        if (driver->cuMemFree_v2(taken) == CUDA_SUCCESS)
            (void)account_freed(taken);
        pools_correct(driver);
        account_leaving(-1);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    *pointer = taken;
    return result;
}

static inline CUresult allocate(const struct request *request, request_call *call, CUdeviceptr *pointer)
{
    const struct driver *driver = driver_get();
    if (driver == NULL)
        return CUDA_ERROR_NOT_INITIALIZED;
    if (!gate_enter())
        return call(driver, request, pointer);
    CUresult result = allocate_charged(driver, request, call, pointer);
    gate_leave();
    return result;
}

static CUresult call_async(const struct driver *driver, const struct request *request, CUdeviceptr *pointer)
{
    if (driver->cuMemAllocAsync == NULL)
        return CUDA_ERROR_NOT_SUPPORTED;
    return driver->cuMemAllocAsync(pointer, request->bytes, request->stream);
}

CUresult cuMemAllocAsync(CUdeviceptr *pointer, size_t bytes, CUstream stream)
{
    struct request request = {.bytes = bytes, .stream = stream};
    return allocate(&request, call_async, pointer);
}

static CUresult call_async_ptsz(const struct driver *driver, const struct request *request, CUdeviceptr *pointer)
{
    if (driver->cuMemAllocAsync_ptsz == NULL)
        return CUDA_ERROR_NOT_SUPPORTED;
    return driver->cuMemAllocAsync_ptsz(pointer, request->bytes, request->stream);
}

CUresult cuMemAllocAsync_ptsz(CUdeviceptr *pointer, size_t bytes, CUstream stream)
{
    struct request request = {.bytes = bytes, .stream = stream, .per_thread = true};
    return allocate(&request, call_async_ptsz, pointer);
}

static CUresult call_from_pool(const struct driver *driver, const struct request *request, CUdeviceptr *pointer)
{
    if (driver->cuMemAllocFromPoolAsync == NULL)
        return CUDA_ERROR_NOT_SUPPORTED;
    return driver->cuMemAllocFromPoolAsync(pointer, request->bytes, request->pool, request->stream);
}

CUresult cuMemAllocFromPoolAsync(CUdeviceptr *pointer, size_t bytes, CUmemoryPool pool, CUstream stream)
{
    struct request request = {.bytes = bytes, .pool = pool, .stream = stream};
    return allocate(&request, call_from_pool, pointer);
}

static CUresult call_from_pool_ptsz(const struct driver *driver, const struct request *request, CUdeviceptr *pointer)
{
    if (driver->cuMemAllocFromPoolAsync_ptsz == NULL)
        return CUDA_ERROR_NOT_SUPPORTED;
    return driver->cuMemAllocFromPoolAsync_ptsz(pointer, request->bytes, request->pool, request->stream);
}

CUresult cuMemAllocFromPoolAsync_ptsz(CUdeviceptr *pointer, size_t bytes, CUmemoryPool pool, CUstream stream)
{
    struct request request = {.bytes = bytes, .pool = pool, .stream = stream, .per_thread = true};
    return allocate(&request, call_from_pool_ptsz, pointer);
}

/* --- pools --------------------------------------------------------------------------------------------------------------- */

CUresult cuMemPoolCreate(CUmemoryPool *pool, const CUmemPoolProps *properties)
{
    const struct driver *driver = driver_get();
    CUmemoryPool made;
    if (driver == NULL || driver->cuMemPoolCreate == NULL)
        return CUDA_ERROR_NOT_INITIALIZED;
    if (!gate_enter())
        return driver->cuMemPoolCreate(pool, properties);
    bool refused = pool == NULL || properties == NULL; /* by the driver */
    CUresult result = driver->cuMemPoolCreate(refused ? pool : &made, properties);
    if (refused) {
        gate_leave();
        return result;
    }
    if (result == CUDA_SUCCESS && !pool_learn(made, properties->location.type, properties->location.id)) {
        (void)driver->cuMemPoolDestroy(made);
        result = CUDA_ERROR_OUT_OF_MEMORY;
    }
    if (result == CUDA_SUCCESS)
        *pool = made;
    gate_leave();
    return result;
}

/* The default pools cannot be destroyed. */
static bool pool_is_default(const struct driver *driver, CUmemoryPool pool)
{
    int count = 0;
    (void)driver->cuDeviceGetCount(&count);
    for (CUdevice device = 0; device < count; device++) {
        CUmemoryPool its = NULL;
        if (driver->cuDeviceGetDefaultMemPool != NULL &&
            driver->cuDeviceGetDefaultMemPool(&its, device) == CUDA_SUCCESS && its == pool)
            return true;
    }
    return false;
}

/* The books of one that goes end before the call: after it another thread's new pool may have the same handle. */
CUresult cuMemPoolDestroy(CUmemoryPool pool)
{
    const struct driver *driver = driver_get();
    if (driver == NULL || driver->cuMemPoolDestroy == NULL)
        return CUDA_ERROR_NOT_INITIALIZED;
    if (!gate_enter())
        return driver->cuMemPoolDestroy(pool);
    enum pool_fate fate = pool_is_default(driver, pool) ? POOL_GOES : pool_retire(driver, pool);
    CUresult result = fate == POOL_RETIRES ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
    if (fate == POOL_GOES)
        result = driver->cuMemPoolDestroy(pool);
    gate_leave();
    return result;
}

CUresult cuMemPoolTrimTo(CUmemoryPool pool, size_t bytes)
{
    const struct driver *driver = driver_get();
    if (driver == NULL || driver->cuMemPoolTrimTo == NULL)
        return CUDA_ERROR_NOT_INITIALIZED;
    bool outermost = gate_enter();
    account_leaving(+1);
    CUresult result = driver->cuMemPoolTrimTo(pool, bytes);
    if (outermost && pools_hold())
        pools_correct(driver);
    account_leaving(-1);
    if (outermost)
        gate_leave();
    return result;
}

/* An imported pool is another process's (or counted where this process made it), and nothing can be allocated from it. */
CUresult cuMemPoolImportFromShareableHandle(CUmemoryPool *pool, void *handle, int type, unsigned long long flags)
{
    const struct driver *driver = driver_get();
    if (driver == NULL || driver->cuMemPoolImportFromShareableHandle == NULL)
        return CUDA_ERROR_NOT_INITIALIZED;
    if (!gate_enter())
        return driver->cuMemPoolImportFromShareableHandle(pool, handle, type, flags);
    CUresult result = driver->cuMemPoolImportFromShareableHandle(pool, handle, type, flags);
    if (result == CUDA_SUCCESS)
        (void)pool_learn(*pool, CU_MEM_LOCATION_TYPE_NONE, 0);
    gate_leave();
    return result;
}

/* --- pools that are there already ------------------------------------------------------------------------------------------ */

/* After a call that told of a pool; `outermost` is what gate_enter said before it. */
static CUresult pool_told(bool outermost, CUresult result, const CUmemoryPool *pool, const CUmemLocation *location)
{
    if (!outermost)
        return result;
    if (result == CUDA_SUCCESS && pool != NULL && location != NULL)
        (void)pool_learn(*pool, location->type, location->id);
    gate_leave();
    return result;
}

CUresult cuDeviceGetDefaultMemPool(CUmemoryPool *pool, CUdevice device)
{
    const struct driver *driver = driver_get();
    if (driver == NULL || driver->cuDeviceGetDefaultMemPool == NULL)
        return CUDA_ERROR_NOT_INITIALIZED;
    CUmemLocation location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = device};
    bool outermost = gate_enter();
    return pool_told(outermost, driver->cuDeviceGetDefaultMemPool(pool, device), pool, &location);
}

CUresult cuDeviceGetMemPool(CUmemoryPool *pool, CUdevice device)
{
    const struct driver *driver = driver_get();
    if (driver == NULL || driver->cuDeviceGetMemPool == NULL)
        return CUDA_ERROR_NOT_INITIALIZED;
    CUmemLocation location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = device};
    bool outermost = gate_enter();
    return pool_told(outermost, driver->cuDeviceGetMemPool(pool, device), pool, &location);
}

CUresult cuMemGetDefaultMemPool(CUmemoryPool *pool, CUmemLocation *location, int type)
{
    const struct driver *driver = driver_get();
    if (driver == NULL || driver->cuMemGetDefaultMemPool == NULL)
        return CUDA_ERROR_NOT_INITIALIZED;
    bool outermost = gate_enter();
    return pool_told(outermost, driver->cuMemGetDefaultMemPool(pool, location, type), pool, location);
}

CUresult cuMemGetMemPool(CUmemoryPool *pool, CUmemLocation *location, int type)
{
    const struct driver *driver = driver_get();
    if (driver == NULL || driver->cuMemGetMemPool == NULL)
        return CUDA_ERROR_NOT_INITIALIZED;
    bool outermost = gate_enter();
    return pool_told(outermost, driver->cuMemGetMemPool(pool, location, type), pool, location);
}
