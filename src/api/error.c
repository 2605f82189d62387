/* Errors of the C API: names, sentences, and what the calling thread was told last. No synchronisation: all of it is the thread's. */
#include "config.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include "api/api.h"

static __thread char last_detail[512];
static __thread int last_cuda_error;

static const struct {
    const char *name, *sentence;
} errors[] = {
#define ERROR(code, text) [CUBUDGET_##code] = {"CUBUDGET_" #code, text}
    ERROR(OK, "nothing is wrong"),
    ERROR(ERROR_INVALID, "an argument is missing or out of range"),
    ERROR(ERROR_NO_DEVICE, "this machine has no such GPU"),
    ERROR(ERROR_NO_DRIVER, "the NVIDIA driver's library cannot be loaded"),
    ERROR(ERROR_UNSUITABLE, "the GPU lacks something that was required"),
    ERROR(ERROR_OUT_OF_MEMORY, "the budget, the slot's limit or the card has no room for it"),
    ERROR(ERROR_POOL_LIMIT, "the pool's own limit has no room for it"),
    ERROR(ERROR_NO_LEDGER, "there is no ledger that can be used"),
    ERROR(ERROR_SETTINGS, "the settings are wrong or do not fit the ledger"),
    ERROR(ERROR_FREED, "the buffer was freed before"),
    ERROR(ERROR_POOL_CLOSED, "the pool was closed before"),
    ERROR(ERROR_FOREIGN, "the buffer or pool is not what it is taken for"),
    ERROR(ERROR_TIMEOUT, "nothing happened in the time given"),
    ERROR(ERROR_NOT_PUSHED, "no slot was pushed by this thread"),
    ERROR(ERROR_TOO_MANY, "there are too many of them"),
    ERROR(ERROR_NO_HOST_MEMORY, "the host has no memory for it"),
    ERROR(ERROR_FORKED, "it belongs to the parent of this process"),
    ERROR(ERROR_CUDA, "the driver refused"),
    ERROR(ERROR_SYSTEM, "the operating system refused"),
    ERROR(ERROR_UNSUPPORTED, "this build or this driver cannot do it"),
#undef ERROR
};

static bool error_is_known(enum cubudget_error error)
{
    return (unsigned)error < sizeof errors / sizeof *errors;
}

const char *cubudget_error_name(enum cubudget_error error)
{
    return error_is_known(error) ? errors[error].name : "CUBUDGET_ERROR_UNKNOWN";
}

const char *cubudget_error_sentence(enum cubudget_error error)
{
    return error_is_known(error) ? errors[error].sentence : "that is no error of cubudget's";
}

int cubudget_last_cuda_error(void)
{
    return last_cuda_error;
}

const char *cubudget_last_detail(void)
{
    return last_detail;
}

enum cubudget_error api_fail(enum cubudget_error error, const char *format, ...)
{
    int before = errno;
    va_list arguments;
    last_cuda_error = 0;
    last_detail[0] = '\0';
    if (format != NULL) {
        va_start(arguments, format);
        (void)vsnprintf(last_detail, sizeof last_detail, format, arguments);
        va_end(arguments);
    }
    errno = before;
    return error;
}

enum cubudget_error api_fail_cuda(CUresult result, const char *call)
{
    const struct driver *driver = driver_bound();
    const char *name = driver != NULL ? driver_error_name(driver, result) : NULL;
    enum cubudget_error error = result == CUDA_ERROR_OUT_OF_MEMORY ? CUBUDGET_ERROR_OUT_OF_MEMORY
                                : result == CUDA_ERROR_NO_DEVICE   ? CUBUDGET_ERROR_NO_DEVICE
                                                                   : CUBUDGET_ERROR_CUDA;
    (void)api_fail(error, "%s says %d (%s)", call, (int)result, name != NULL ? name : "no name");
    last_cuda_error = (int)result;
    return error;
}
