/* Linear memory: cuMemAlloc, its pitched and managed forms, and every call that frees it. Wrappers; account.h says how. */
#include "config.h"

#include "account/account.h"
#include "account/pools.h"
#include "platform/gate.h"
#include "interpose/hooks.h"

#define PITCH_BYTES 512 /* rows are padded to it: measured, 1001 bytes become 1024 */

/* The arguments of any of the three; what a call does not have is 0. */
struct request {
    CUdeviceptr *pointer;
    size_t bytes, *pitch, width_bytes, height;
    unsigned int flags, element_bytes;
    CUdeviceptr_v1 *narrow; /* where the functions without a suffix write: an interface of 32 bits */
    unsigned int *narrow_pitch;
    bool misses_place; /* for an answer */
};

typedef CUresult request_call(const struct driver *driver, const struct request *request);
typedef uint64_t request_bytes(const struct request *request);

/* One charged allocation: `call` is the driver's function, `predicted` and `actual` are what it takes, before and after.
 * Inlined into each wrapper, so that the pointers cost nothing. */
static inline __attribute__((always_inline)) CUresult allocate(enum ledger_kind kind, const struct request *request,
                                                               request_call *call, request_bytes *predicted,
                                                               request_bytes *actual)
{
    const struct driver *driver = driver_get();
    struct charge charge;
    bool passes;
    if (driver == NULL)
        return CUDA_ERROR_NOT_INITIALIZED;
    if (!gate_enter())
        return call(driver, request);
    CUresult result = CUDA_ERROR_OUT_OF_MEMORY;
    if (request->misses_place) /* the driver is to refuse it, whether the budget is full or not */
        result = call(driver, request);
    else if (account_ask(driver, kind, linear_cost(predicted(request)), &charge, &passes)) {
        result = call(driver, request);
        if (result == CUDA_SUCCESS)
            account_record(&charge, *request->pointer, actual(request));
        else
            account_abandon(&charge);
    } else if (passes)
        result = call(driver, request);
    gate_leave();
    return result;
}

/* --- cuMemAlloc, cuMemAllocManaged ------------------------------------------------------------------------------------- */

static inline uint64_t bytes_asked(const struct request *request)
{
    return request->bytes;
}

static inline CUresult call_alloc(const struct driver *driver, const struct request *request)
{
    return driver->cuMemAlloc_v2(request->pointer, request->bytes);
}

CUresult cuMemAlloc_v2(CUdeviceptr *pointer, size_t bytes)
{
    struct request request = {.pointer = pointer, .bytes = bytes, .misses_place = pointer == NULL};
    return allocate(LEDGER_KIND_LINEAR, &request, call_alloc, bytes_asked, bytes_asked);
}

static inline CUresult call_managed(const struct driver *driver, const struct request *request)
{
    return driver->cuMemAllocManaged(request->pointer, request->bytes, request->flags);
}

CUresult cuMemAllocManaged(CUdeviceptr *pointer, size_t bytes, unsigned int flags)
{
    struct request request = {.pointer = pointer, .bytes = bytes, .flags = flags, .misses_place = pointer == NULL};
    return allocate(LEDGER_KIND_MANAGED, &request, call_managed, bytes_asked, bytes_asked);
}

/* --- cuMemAllocPitch --------------------------------------------------------------------------------------------------- */

/* rows * row_bytes, or UINT64_MAX, which fits no budget. */
static uint64_t rows_bytes(uint64_t row_bytes, uint64_t rows)
{
    uint64_t bytes;
    return __builtin_mul_overflow(row_bytes, rows, &bytes) ? UINT64_MAX : bytes;
}

static uint64_t pitch_predicted(const struct request *request)
{
    size_t width = request->width_bytes;
    uint64_t pitch = width > SIZE_MAX - PITCH_BYTES ? SIZE_MAX : (width + PITCH_BYTES - 1) / PITCH_BYTES * PITCH_BYTES;
    return rows_bytes(pitch, request->height);
}

/* The pitch is known only after the call. */
static uint64_t pitch_actual(const struct request *request)
{
    return rows_bytes(*request->pitch, request->height);
}

static inline CUresult call_pitch(const struct driver *driver, const struct request *request)
{
    return driver->cuMemAllocPitch_v2(request->pointer, request->pitch, request->width_bytes, request->height,
                                      request->element_bytes);
}

CUresult cuMemAllocPitch_v2(CUdeviceptr *pointer, size_t *pitch, size_t width_bytes, size_t height,
                            unsigned int element_bytes)
{
    struct request request = {.pointer = pointer,
                              .pitch = pitch,
                              .width_bytes = width_bytes,
                              .height = height,
                              .element_bytes = element_bytes,
                              .misses_place = pointer == NULL || pitch == NULL};
    return allocate(LEDGER_KIND_LINEAR, &request, call_pitch, pitch_predicted, pitch_actual);
}

/* --- the interface of 32 bits ------------------------------------------------------------------------------------------ */

static CUresult call_alloc_narrow(const struct driver *driver, const struct request *request)
{
    CUresult result = driver->cuMemAlloc(request->narrow, (unsigned int)request->bytes);
    if (result == CUDA_SUCCESS)
        *request->pointer = *request->narrow;
    return result;
}

CUresult cuMemAlloc(CUdeviceptr_v1 *pointer, unsigned int bytes)
{
    CUdeviceptr wide;
    struct request request = {.pointer = &wide, .narrow = pointer, .bytes = bytes, .misses_place = pointer == NULL};
    return allocate(LEDGER_KIND_LINEAR, &request, call_alloc_narrow, bytes_asked, bytes_asked);
}

static CUresult call_pitch_narrow(const struct driver *driver, const struct request *request)
{
    CUresult result =
        driver->cuMemAllocPitch(request->narrow, request->narrow_pitch, (unsigned int)request->width_bytes,
                                (unsigned int)request->height, request->element_bytes);
    if (result == CUDA_SUCCESS) {
        *request->pointer = *request->narrow;
        *request->pitch = *request->narrow_pitch;
    }
    return result;
}

CUresult cuMemAllocPitch(CUdeviceptr_v1 *pointer, unsigned int *pitch, unsigned int width_bytes, unsigned int height,
                         unsigned int element_bytes)
{
    CUdeviceptr wide;
    size_t wide_pitch;
    struct request request = {.pointer = &wide,
                              .pitch = &wide_pitch,
                              .width_bytes = width_bytes,
                              .height = height,
                              .element_bytes = element_bytes,
                              .narrow = pointer,
                              .narrow_pitch = pitch,
                              .misses_place = pointer == NULL || pitch == NULL};
    return allocate(LEDGER_KIND_LINEAR, &request, call_pitch_narrow, pitch_predicted, pitch_actual);
}

/* --- freeing ---------------------------------------------------------------------------------------------------------- */

/* Whatever frees it: this call, unlike cuMemFreeAsync, gives a pool's memory back at once (measured). */
static inline void free_done(const struct driver *driver, CUresult result, CUdeviceptr pointer, int leaving)
{
    if (result == CUDA_SUCCESS && account_freed(pointer))
        pools_correct(driver);
    if (__builtin_expect(leaving != 0, 0))
        account_leaving(-leaving);
    gate_leave();
}

CUresult cuMemFree_v2(CUdeviceptr pointer)
{
    const struct driver *driver = driver_get();
    if (driver == NULL)
        return CUDA_ERROR_NOT_INITIALIZED;
    if (!gate_enter())
        return driver->cuMemFree_v2(pointer);
    int leaving = account_freeing(pointer);
    CUresult result = driver->cuMemFree_v2(pointer);
    free_done(driver, result, pointer, leaving);
    return result;
}

CUresult cuMemFree(CUdeviceptr_v1 pointer)
{
    const struct driver *driver = driver_get();
    if (driver == NULL)
        return CUDA_ERROR_NOT_INITIALIZED;
    if (!gate_enter())
        return driver->cuMemFree(pointer);
    int leaving = account_freeing(pointer);
    CUresult result = driver->cuMemFree(pointer);
    free_done(driver, result, pointer, leaving);
    return result;
}

typedef CUresult free_async(CUdeviceptr pointer, CUstream stream);

/* A pool's pointer, whose reserve shrinks when something is synchronised; or one of cuMemAlloc (measured: it succeeds). */
static CUresult free_in_stream(free_async *const *real, CUdeviceptr pointer, CUstream stream)
{
    if (real == NULL || *real == NULL)
        return CUDA_ERROR_NOT_INITIALIZED;
    if (!gate_enter())
        return (*real)(pointer, stream);
    int leaving = account_freeing(pointer);
    CUresult result = (*real)(pointer, stream);
    if (result == CUDA_SUCCESS)
        (void)account_freed(pointer);
    if (__builtin_expect(leaving != 0, 0))
        account_leaving(-leaving);
    gate_leave();
    return result;
}

CUresult cuMemFreeAsync(CUdeviceptr pointer, CUstream stream)
{
    const struct driver *driver = driver_get();
    return free_in_stream(driver != NULL ? &driver->cuMemFreeAsync : NULL, pointer, stream);
}

CUresult cuMemFreeAsync_ptsz(CUdeviceptr pointer, CUstream stream)
{
    const struct driver *driver = driver_get();
    return free_in_stream(driver != NULL ? &driver->cuMemFreeAsync_ptsz : NULL, pointer, stream);
}
