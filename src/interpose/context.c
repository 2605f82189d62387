/* Contexts: what makes them, what ends them, and what their end frees. Wrappers; account.h says how. */
#include "config.h"

#include "account/account.h"
#include "account/pools.h"
#include "evict/agent.h"
#include "platform/gate.h"
#include "interpose/hooks.h"

/* --- making ------------------------------------------------------------------------------------------------------------ */

/* The arguments of all the functions that make a context; what one does not have is 0. */
struct making {
    CUcontext *context;
    unsigned int flags;
    CUdevice device;
    CUexecAffinityParam *affinity;
    int affinities;
    CUctxCreateParams *params;
};

typedef CUresult making_call(const struct driver *driver, const struct making *making);

static CUresult context_make(const struct making *making, making_call *call, bool primary)
{
    const struct driver *driver = driver_get();
    struct context_charge charge;
    if (driver == NULL)
        return CUDA_ERROR_NOT_INITIALIZED;
    if (!gate_enter())
        return call(driver, making);
    CUresult result = CUDA_ERROR_OUT_OF_MEMORY;
    if (making->context == NULL) /* the driver is to refuse it, whether the budget is full or not */
        result = call(driver, making);
    else if (context_begin(driver, making->device, primary, &charge)) {
        result = call(driver, making);
        context_end(&charge, result, result == CUDA_SUCCESS ? *making->context : NULL, primary);
        if (result == CUDA_SUCCESS && account_is_attached())
            agent_start();
    }
    gate_leave();
    return result;
}

static CUresult call_retain(const struct driver *driver, const struct making *making)
{
    return driver->cuDevicePrimaryCtxRetain(making->context, making->device);
}

CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device)
{
    return context_make(&(struct making){.context = context, .device = device}, call_retain, true);
}

static CUresult call_create(const struct driver *driver, const struct making *making)
{
    return driver->cuCtxCreate(making->context, making->flags, making->device);
}

CUresult cuCtxCreate(CUcontext *context, unsigned int flags, CUdevice device)
{
    return context_make(&(struct making){.context = context, .flags = flags, .device = device}, call_create, false);
}

static CUresult call_create_v2(const struct driver *driver, const struct making *making)
{
    return driver->cuCtxCreate_v2(making->context, making->flags, making->device);
}

CUresult cuCtxCreate_v2(CUcontext *context, unsigned int flags, CUdevice device)
{
    return context_make(&(struct making){.context = context, .flags = flags, .device = device}, call_create_v2, false);
}

static CUresult call_create_v3(const struct driver *driver, const struct making *making)
{
    if (driver->cuCtxCreate_v3 == NULL)
        return CUDA_ERROR_NOT_SUPPORTED;
    return driver->cuCtxCreate_v3(making->context, making->affinity, making->affinities, making->flags, making->device);
}

CUresult cuCtxCreate_v3(CUcontext *context, CUexecAffinityParam *affinity, int affinities, unsigned int flags,
                        CUdevice device)
{
    struct making making = {
        .context = context, .affinity = affinity, .affinities = affinities, .flags = flags, .device = device};
    return context_make(&making, call_create_v3, false);
}

static CUresult call_create_v4(const struct driver *driver, const struct making *making)
{
    if (driver->cuCtxCreate_v4 == NULL)
        return CUDA_ERROR_NOT_SUPPORTED;
    return driver->cuCtxCreate_v4(making->context, making->params, making->flags, making->device);
}

CUresult cuCtxCreate_v4(CUcontext *context, CUctxCreateParams *params, unsigned int flags, CUdevice device)
{
    struct making making = {.context = context, .params = params, .flags = flags, .device = device};
    return context_make(&making, call_create_v4, false);
}

/* --- ending a primary context ------------------------------------------------------------------------------------------- */

typedef CUresult primary_call(CUdevice device);

/* A release may be the last and may not: the driver's own state says so. A reset always is the end of what was in it. */
static CUresult primary_end(const struct driver *driver, primary_call *const *real, CUdevice device)
{
    struct context_ending ending;
    if (real == NULL || *real == NULL)
        return CUDA_ERROR_NOT_INITIALIZED;
    if (!gate_enter())
        return (*real)(device);
    context_ending_begin(NULL, device, &ending);
    account_leaving(+1);
    CUresult result = (*real)(device);
    context_ending_end(&ending, result == CUDA_SUCCESS && context_primary_is_gone(driver, device));
    if (pools_hold())
        pools_correct(driver);
    graphs_trimmed(driver, device);
    account_leaving(-1);
    gate_leave();
    return result;
}

CUresult cuDevicePrimaryCtxRelease(CUdevice device)
{
    const struct driver *driver = driver_get();
    return primary_end(driver, driver != NULL ? &driver->cuDevicePrimaryCtxRelease : NULL, device);
}

CUresult cuDevicePrimaryCtxRelease_v2(CUdevice device)
{
    const struct driver *driver = driver_get();
    return primary_end(driver, driver != NULL ? &driver->cuDevicePrimaryCtxRelease_v2 : NULL, device);
}

CUresult cuDevicePrimaryCtxReset(CUdevice device)
{
    const struct driver *driver = driver_get();
    return primary_end(driver, driver != NULL ? &driver->cuDevicePrimaryCtxReset : NULL, device);
}

CUresult cuDevicePrimaryCtxReset_v2(CUdevice device)
{
    const struct driver *driver = driver_get();
    return primary_end(driver, driver != NULL ? &driver->cuDevicePrimaryCtxReset_v2 : NULL, device);
}

/* --- ending any other ------------------------------------------------------------------------------------------------------ */

typedef CUresult context_call(CUcontext context);

/* A destroyed context is gone however often it was attached; a detached one with its last use. */
static CUresult context_drop(context_call *const *real, CUcontext context, bool counted)
{
    struct context_ending ending;
    if (real == NULL || *real == NULL)
        return CUDA_ERROR_NOT_INITIALIZED;
    if (!gate_enter())
        return (*real)(context);
    context_ending_begin(context, 0, &ending);
    account_leaving(+1);
    CUresult result = (*real)(context);
    bool ended = result == CUDA_SUCCESS && context != NULL && (!counted || context_use(context, -1));
    context_ending_end(&ending, ended);
    account_leaving(-1);
    gate_leave();
    return result;
}

CUresult cuCtxDestroy(CUcontext context)
{
    const struct driver *driver = driver_get();
    return context_drop(driver != NULL ? &driver->cuCtxDestroy : NULL, context, false);
}

CUresult cuCtxDestroy_v2(CUcontext context)
{
    const struct driver *driver = driver_get();
    return context_drop(driver != NULL ? &driver->cuCtxDestroy_v2 : NULL, context, false);
}

CUresult cuCtxDetach(CUcontext context)
{
    const struct driver *driver = driver_get();
    return context_drop(driver != NULL ? &driver->cuCtxDetach : NULL, context, true);
}

CUresult cuCtxAttach(CUcontext *context, unsigned int flags)
{
    const struct driver *driver = driver_get();
    if (driver == NULL || driver->cuCtxAttach == NULL)
        return CUDA_ERROR_NOT_INITIALIZED;
    if (!gate_enter())
        return driver->cuCtxAttach(context, flags);
    CUresult result = driver->cuCtxAttach(context, flags);
    if (result == CUDA_SUCCESS)
        (void)context_use(*context, +1);
    gate_leave();
    return result;
}
