/* What is added to a context after it was made: by its limits, and by green contexts in it. Wrappers; account.h says how. */
#include "config.h"

#include "account/account.h"
#include "evict/agent.h"
#include "platform/gate.h"
#include "interpose/hooks.h"

#define GREEN_BYTES (6ULL << 20) /* the first in a primary context, on an H100; further ones took 4 MiB */

CUresult cuCtxSetLimit(CUlimit limit, size_t value)
{
    const struct driver *driver = driver_get();
    struct measured_charge measured;
    bool passes;
    if (driver == NULL || driver->cuCtxSetLimit == NULL)
        return CUDA_ERROR_NOT_INITIALIZED;
    if (!gate_enter())
        return driver->cuCtxSetLimit(limit, value);
    CUresult result = CUDA_ERROR_OUT_OF_MEMORY;
    bool stacks = limit == CU_LIMIT_STACK_SIZE;
    if (measured_ask(driver, LEDGER_KIND_CONTEXT, stacks ? stacks_cost(driver, value) : 0, &measured, &passes)) {
        result = driver->cuCtxSetLimit(limit, value);
        if (result == CUDA_SUCCESS)
            measured_record_context(&measured, stacks ? CONTEXT_STACKS : CONTEXT_OTHER, measured_cost(&measured));
        else
            measured_abandon(&measured);
        if (result == CUDA_SUCCESS && stacks)
            stacks_lowered(driver, value);
    } else if (passes)
        result = driver->cuCtxSetLimit(limit, value);
    gate_leave();
    return result;
}

/* --- green contexts ------------------------------------------------------------------------------------------------------- */

struct green_making {
    CUgreenCtx *green;
    CUdevResourceDesc description;
    CUdevice device;
    unsigned int flags;
};

static CUresult green_call(const struct driver *driver, const struct green_making *making)
{
    return driver->cuGreenCtxCreate(making->green, making->description, making->device, making->flags);
}

/* The handle of a primary context that is there. */
static CUcontext primary_of(const struct driver *driver, CUdevice device)
{
    CUcontext primary = NULL;
    if (driver->cuDevicePrimaryCtxRetain(&primary, device) != CUDA_SUCCESS)
        return NULL;
    (void)(driver->cuDevicePrimaryCtxRelease_v2 != NULL ? driver->cuDevicePrimaryCtxRelease_v2(device)
                                                        : driver->cuDevicePrimaryCtxRelease(device));
    return primary;
}

/* In a primary context that is there: what the green one adds to it. */
static CUresult green_add(const struct driver *driver, const struct green_making *making)
{
    struct measured_charge measured;
    bool passes;
    if (measured_ask_primary(making->device, GREEN_BYTES, &measured, &passes)) {
        CUresult result = green_call(driver, making);
        if (result == CUDA_SUCCESS)
            measured_record_context(&measured, CONTEXT_OTHER, measured_cost(&measured));
        else
            measured_abandon(&measured);
        return result;
    }
    return passes ? green_call(driver, making) : CUDA_ERROR_OUT_OF_MEMORY;
}

/* It retains the primary context, and makes it where it is not there: then both are measured as one. */
static CUresult green_make(const struct driver *driver, const struct green_making *making)
{
    struct context_charge charge;
    CUcontext view;
    if (!context_begin(driver, making->device, true, &charge))
        return CUDA_ERROR_OUT_OF_MEMORY;
    CUresult result = charge.counts ? green_call(driver, making) : green_add(driver, making);
    CUcontext primary = result == CUDA_SUCCESS ? primary_of(driver, making->device) : NULL;
    context_end(&charge, primary != NULL ? result : CUDA_ERROR_UNKNOWN, primary, true);
    if (result == CUDA_SUCCESS && driver->cuCtxFromGreenCtx(&view, *making->green) == CUDA_SUCCESS)
        green_remember(view, making->device);
    if (result == CUDA_SUCCESS && account_is_attached())
        agent_start();
    return result;
}

CUresult cuGreenCtxCreate(CUgreenCtx *green, CUdevResourceDesc description, CUdevice device, unsigned int flags)
{
    const struct driver *driver = driver_get();
    struct green_making making = {.green = green, .description = description, .device = device, .flags = flags};
    if (driver == NULL || driver->cuGreenCtxCreate == NULL || driver->cuCtxFromGreenCtx == NULL)
        return CUDA_ERROR_NOT_SUPPORTED;
    if (!gate_enter())
        return green_call(driver, &making);
    CUresult result = green_make(driver, &making);
    gate_leave();
    return result;
}

/* What it added stays with the primary context (measured), whose last use it may have been. */
CUresult cuGreenCtxDestroy(CUgreenCtx green)
{
    const struct driver *driver = driver_get();
    struct context_ending ending;
    CUcontext view = NULL;
    CUdevice device;
    if (driver == NULL || driver->cuGreenCtxDestroy == NULL || driver->cuCtxFromGreenCtx == NULL)
        return CUDA_ERROR_NOT_SUPPORTED;
    if (!gate_enter())
        return driver->cuGreenCtxDestroy(green);
    bool known = driver->cuCtxFromGreenCtx(&view, green) == CUDA_SUCCESS && green_find(view, &device);
    if (known)
        context_ending_begin(NULL, device, &ending);
    CUresult result = driver->cuGreenCtxDestroy(green);
    if (known) {
        if (result == CUDA_SUCCESS)
            green_forget(view);
        context_ending_end(&ending, result == CUDA_SUCCESS && context_primary_is_gone(driver, device));
    }
    gate_leave();
    return result;
}
