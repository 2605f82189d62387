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

/* What the driver said is passed on to a program that only links to the library; one that was put under a budget ends. */
static void driver_judge(const struct driver *driver, CUresult result)
{
    if (!account_is_imposed() || !result_is_fatal(result))
        return;
    const char *name = driver_error_name(driver, result);
    log_die(EXIT_NO_DEVICE, "the driver does not start: cuInit says %d (%s); nvidia-smi may say why", result,
            name != NULL ? name : "no name");
}

/* A budget that cannot be kept is no budget: it is never left out in silence. */
static CUresult budget_begin(const struct driver *driver)
{
    struct account_fault fault;
    int status = account_attach(driver, &fault);
    if (status == 0)
        return CUDA_SUCCESS;
    if (account_is_imposed())
        log_die(status, "%s", fault.text);
    log_line(LOG_ERROR, "%s", fault.text);
    return status == EXIT_NO_DEVICE ? CUDA_ERROR_NO_DEVICE : CUDA_ERROR_OPERATING_SYSTEM;
}

CUresult cuInit(unsigned int flags)
{
    const struct driver *driver = driver_get();
    if (driver == NULL && account_is_imposed())
        log_die(EXIT_NO_DEVICE, "the program calls CUDA and libcuda.so.1 cannot be loaded; install the NVIDIA driver");
    if (driver == NULL)
        return CUDA_ERROR_NO_DEVICE;
    if (!gate_enter())
        return driver->cuInit(flags);
    CUresult result = driver->cuInit(flags);
    driver_judge(driver, result);
    if (result == CUDA_SUCCESS)
        result = budget_begin(driver);
    gate_leave();
    return result;
}
