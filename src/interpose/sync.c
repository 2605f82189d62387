/*
 * Synchronisation: the calls at which the driver gives back what pools hold beyond their release threshold (measured:
 * these, and not cuStreamQuery, cuEventQuery or a synchronous copy). A process without pools pays one look.
 */
#include "config.h"

#include "account/account.h"
#include "account/pools.h"
#include "interpose/gate.h"
#include "interpose/hooks.h"

static inline CUresult synchronised(const struct driver *driver, CUresult result)
{
    if (__builtin_expect(pools_hold(), 0) && gate_enter()) {
        pools_correct(driver);
        gate_leave();
    }
    return result;
}

CUresult cuStreamSynchronize(CUstream stream)
{
    const struct driver *driver = driver_get();
    return driver == NULL ? CUDA_ERROR_NOT_INITIALIZED : synchronised(driver, driver->cuStreamSynchronize(stream));
}

CUresult cuStreamSynchronize_ptsz(CUstream stream)
{
    const struct driver *driver = driver_get();
    if (driver == NULL || driver->cuStreamSynchronize_ptsz == NULL)
        return CUDA_ERROR_NOT_INITIALIZED;
    return synchronised(driver, driver->cuStreamSynchronize_ptsz(stream));
}

CUresult cuCtxSynchronize(void)
{
    const struct driver *driver = driver_get();
    return driver == NULL ? CUDA_ERROR_NOT_INITIALIZED : synchronised(driver, driver->cuCtxSynchronize());
}

/* Some callers (Numba) know only the older prototype; what they leave in the register goes through as it is. */
CUresult cuCtxSynchronize_v2(CUcontext context)
{
    const struct driver *driver = driver_get();
    if (driver == NULL || driver->cuCtxSynchronize_v2 == NULL)
        return CUDA_ERROR_NOT_INITIALIZED;
    return synchronised(driver, driver->cuCtxSynchronize_v2(context));
}

CUresult cuEventSynchronize(CUevent event)
{
    const struct driver *driver = driver_get();
    return driver == NULL ? CUDA_ERROR_NOT_INITIALIZED : synchronised(driver, driver->cuEventSynchronize(event));
}
