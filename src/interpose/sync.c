/*
 * Synchronisation: the calls at which the driver gives back what pools hold beyond their release threshold (measured:
 * these, and not cuStreamQuery, cuEventQuery or a synchronous copy). A process without pools pays one look.
 */
#include "config.h"

#include "account/account.h"
#include "account/pools.h"
#include "interpose/gate.h"
#include "interpose/hooks.h"

static inline bool synchronise_begin(void)
{
    bool pools = pools_hold();
    if (__builtin_expect(pools, 0))
        account_leaving(+1);
    return pools;
}

static inline CUresult synchronised(const struct driver *driver, bool pools, CUresult result)
{
    if (__builtin_expect(pools, 0)) {
        if (gate_enter()) {
            pools_correct(driver);
            gate_leave();
        }
        account_leaving(-1);
    }
    return result;
}

CUresult cuStreamSynchronize(CUstream stream)
{
    const struct driver *driver = driver_get();
    if (driver == NULL)
        return CUDA_ERROR_NOT_INITIALIZED;
    bool pools = synchronise_begin();
    return synchronised(driver, pools, driver->cuStreamSynchronize(stream));
}

CUresult cuStreamSynchronize_ptsz(CUstream stream)
{
    const struct driver *driver = driver_get();
    if (driver == NULL || driver->cuStreamSynchronize_ptsz == NULL)
        return CUDA_ERROR_NOT_INITIALIZED;
    bool pools = synchronise_begin();
    return synchronised(driver, pools, driver->cuStreamSynchronize_ptsz(stream));
}

CUresult cuCtxSynchronize(void)
{
    const struct driver *driver = driver_get();
    if (driver == NULL)
        return CUDA_ERROR_NOT_INITIALIZED;
    bool pools = synchronise_begin();
    return synchronised(driver, pools, driver->cuCtxSynchronize());
}

/* Some callers (Numba) know only the older prototype; what they leave in the register goes through as it is. */
CUresult cuCtxSynchronize_v2(CUcontext context)
{
    const struct driver *driver = driver_get();
    if (driver == NULL || driver->cuCtxSynchronize_v2 == NULL)
        return CUDA_ERROR_NOT_INITIALIZED;
    bool pools = synchronise_begin();
    return synchronised(driver, pools, driver->cuCtxSynchronize_v2(context));
}

CUresult cuEventSynchronize(CUevent event)
{
    const struct driver *driver = driver_get();
    if (driver == NULL)
        return CUDA_ERROR_NOT_INITIALIZED;
    bool pools = synchronise_begin();
    return synchronised(driver, pools, driver->cuEventSynchronize(event));
}
