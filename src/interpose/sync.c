/*
 * Synchronisation: the calls at which the driver gives back what pools hold beyond their release threshold (measured:
 * these, and not cuStreamQuery, cuEventQuery or a synchronous copy). A process without pools pays one look.
 */
#include "config.h"

#include "account/account.h"
#include "account/pools.h"
#include "platform/gate.h"
#include "interpose/hooks.h"

struct synchronising {
    bool outermost, pools;
};

static inline struct synchronising synchronise_begin(void)
{
    struct synchronising begun = {.outermost = gate_enter()};
    begun.pools = pools_hold();
    if (__builtin_expect(begun.pools, 0))
        account_leaving(+1);
    return begun;
}

static inline CUresult synchronised(const struct driver *driver, struct synchronising begun, CUresult result)
{
    if (__builtin_expect(begun.pools, 0)) {
        if (begun.outermost)
            pools_correct(driver);
        account_leaving(-1);
    }
    if (begun.outermost)
        gate_leave();
    return result;
}

CUresult cuStreamSynchronize(CUstream stream)
{
    const struct driver *driver = driver_get();
    if (driver == NULL)
        return CUDA_ERROR_NOT_INITIALIZED;
    struct synchronising begun = synchronise_begin();
    return synchronised(driver, begun, driver->cuStreamSynchronize(stream));
}

CUresult cuStreamSynchronize_ptsz(CUstream stream)
{
    const struct driver *driver = driver_get();
    if (driver == NULL || driver->cuStreamSynchronize_ptsz == NULL)
        return CUDA_ERROR_NOT_INITIALIZED;
    struct synchronising begun = synchronise_begin();
    return synchronised(driver, begun, driver->cuStreamSynchronize_ptsz(stream));
}

CUresult cuCtxSynchronize(void)
{
    const struct driver *driver = driver_get();
    if (driver == NULL)
        return CUDA_ERROR_NOT_INITIALIZED;
    struct synchronising begun = synchronise_begin();
    return synchronised(driver, begun, driver->cuCtxSynchronize());
}

/* Some callers (Numba) know only the older prototype; what they leave in the register goes through as it is. */
CUresult cuCtxSynchronize_v2(CUcontext context)
{
    const struct driver *driver = driver_get();
    if (driver == NULL || driver->cuCtxSynchronize_v2 == NULL)
        return CUDA_ERROR_NOT_INITIALIZED;
    struct synchronising begun = synchronise_begin();
    return synchronised(driver, begun, driver->cuCtxSynchronize_v2(context));
}

CUresult cuEventSynchronize(CUevent event)
{
    const struct driver *driver = driver_get();
    if (driver == NULL)
        return CUDA_ERROR_NOT_INITIALIZED;
    struct synchronising begun = synchronise_begin();
    return synchronised(driver, begun, driver->cuEventSynchronize(event));
}
