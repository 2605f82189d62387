/*
 * cuInit: the first moment at which a program really wants a GPU, and so the moment to verify what the constructor could not.
 * A framework that is told "no device" falls back to the CPU in silence; a program that was put under a budget ends instead.
 */
#include "config.h"

#include <stdlib.h>
#include <string.h>
#include "account/account.h"
#include "platform/gate.h"
#include "interpose/hooks.h"
#include "platform/log.h"

/* Whether the user himself hid every device: then "no device" is what he asked for. */
static bool devices_are_hidden(void)
{
    const char *visible = getenv("CUDA_VISIBLE_DEVICES");
    return visible != NULL && (*visible == '\0' || strncmp(visible, "-1", 2) == 0);
}

static bool result_is_fatal(CUresult result)
{
    switch (result) {
    case CUDA_SUCCESS:
    case CUDA_ERROR_INVALID_VALUE:   /* flags: the program's own mistake */
    case CUDA_ERROR_NOT_INITIALIZED: /* a forked child of a process that uses CUDA */
    case CUDA_ERROR_DEINITIALIZED:   /* the process is ending */
        return false;
    case CUDA_ERROR_NO_DEVICE:
        return !devices_are_hidden();
    default:
        return true;
    }
}

CUresult cuInit(unsigned int flags)
{
    const struct driver *driver = driver_get();
    if (driver == NULL)
        log_die(EXIT_NO_DEVICE, "the program calls CUDA and libcuda.so.1 cannot be loaded; install the NVIDIA driver");
    if (!gate_enter())
        return driver->cuInit(flags);
    CUresult result = driver->cuInit(flags);
    if (result_is_fatal(result)) {
        const char *name = driver_error_name(driver, result);
        log_die(EXIT_NO_DEVICE, "the driver does not start: cuInit says %d (%s); nvidia-smi may say why", result,
                name != NULL ? name : "no name");
    }
    if (result == CUDA_SUCCESS)
        account_attach(driver);
    gate_leave();
    return result;
}
