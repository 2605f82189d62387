/*
 * What programs see of the memory: their slot's view of the budget, from the first call on (the CUDA runtime asks for the
 * total while it starts and never again). The driver is asked first, and answers every error itself.
 */
#include "config.h"

#include "account/account.h"
#include "platform/gate.h"
#include "interpose/hooks.h"

/* The view of the device that is current on this thread. */
static bool view_of_current(const struct driver *driver, uint64_t *free_bytes, uint64_t *total_bytes)
{
    CUdevice device;
    return account_is_attached() && driver->cuCtxGetDevice(&device) == CUDA_SUCCESS &&
           account_view(device, free_bytes, total_bytes);
}

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

CUresult cuMemGetInfo_v2(size_t *free_bytes, size_t *total_bytes)
{
    const struct driver *driver = driver_get();
    uint64_t free_seen, total_seen;
    if (driver == NULL)
        return CUDA_ERROR_NOT_INITIALIZED;
    if (!gate_enter())
        return driver->cuMemGetInfo_v2(free_bytes, total_bytes);
    CUresult result = driver->cuMemGetInfo_v2(free_bytes, total_bytes);
    bool seen = result == CUDA_SUCCESS && view_of_current(driver, &free_seen, &total_seen);
    gate_leave();
    if (!seen)
        return result;
    if (free_bytes != NULL) /* processes outside the ledger may have taken more of the card than the budget leaves */
        *free_bytes = least(*free_bytes, free_seen);
    if (total_bytes != NULL)
        *total_bytes = least(*total_bytes, total_seen);
    return result;
}

/* The 32-bit interface: what does not fit is told as the most that does. */
CUresult cuMemGetInfo(unsigned int *free_bytes, unsigned int *total_bytes)
{
    const struct driver *driver = driver_get();
    uint64_t free_seen, total_seen;
    if (driver == NULL || driver->cuMemGetInfo == NULL)
        return CUDA_ERROR_NOT_INITIALIZED;
    if (!gate_enter())
        return driver->cuMemGetInfo(free_bytes, total_bytes);
    CUresult result = driver->cuMemGetInfo(free_bytes, total_bytes);
    bool seen = result == CUDA_SUCCESS && view_of_current(driver, &free_seen, &total_seen);
    gate_leave();
    if (!seen)
        return result;
    if (free_bytes != NULL)
        *free_bytes = (unsigned int)least(*free_bytes, free_seen);
    if (total_bytes != NULL)
        *total_bytes = (unsigned int)least(*total_bytes, total_seen);
    return result;
}

CUresult cuDeviceTotalMem_v2(size_t *bytes, CUdevice device)
{
    const struct driver *driver = driver_get();
    uint64_t free_seen, total_seen;
    if (driver == NULL)
        return CUDA_ERROR_NOT_INITIALIZED;
    if (!gate_enter())
        return driver->cuDeviceTotalMem_v2(bytes, device);
    CUresult result = driver->cuDeviceTotalMem_v2(bytes, device);
    bool seen = result == CUDA_SUCCESS && bytes != NULL && account_view(device, &free_seen, &total_seen);
    gate_leave();
    if (seen)
        *bytes = least(*bytes, total_seen);
    return result;
}

CUresult cuDeviceTotalMem(unsigned int *bytes, CUdevice device)
{
    const struct driver *driver = driver_get();
    uint64_t free_seen, total_seen;
    if (driver == NULL || driver->cuDeviceTotalMem == NULL)
        return CUDA_ERROR_NOT_INITIALIZED;
    if (!gate_enter())
        return driver->cuDeviceTotalMem(bytes, device);
    CUresult result = driver->cuDeviceTotalMem(bytes, device);
    bool seen = result == CUDA_SUCCESS && bytes != NULL && account_view(device, &free_seen, &total_seen);
    gate_leave();
    if (seen)
        *bytes = (unsigned int)least(*bytes, total_seen);
    return result;
}
