/*
 * An NVML that starts another program while it is initialised and while it is asked, as the real one does where a device's
 * node is missing (it forks and execs nvidia-modprobe). It knows no device.
 */
#include <sys/wait.h>
#include <unistd.h>

#include "cuda/nvml_abi.h"

#define NVML __attribute__((visibility("default")))

NVML nvmlReturn_t nvmlInit_v2(void);
NVML nvmlReturn_t nvmlDeviceGetHandleByUUID(const char *uuid, nvmlDevice_t *device);
NVML nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t *memory);
NVML nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v3(nvmlDevice_t device, unsigned *count,
                                                          nvmlProcessInfo_t *list);

static nvmlReturn_t program_start(nvmlReturn_t result)
{
    pid_t child = fork();
    if (child == 0)
        _exit(0);
    return child > 0 && waitpid(child, NULL, 0) == child ? result : NVML_ERROR_UNKNOWN;
}

nvmlReturn_t nvmlInit_v2(void)
{
    return program_start(NVML_SUCCESS);
}

nvmlReturn_t nvmlDeviceGetHandleByUUID(const char *uuid, nvmlDevice_t *device)
{
    (void)uuid;
    (void)device;
    return program_start(NVML_ERROR_NOT_FOUND);
}

nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t *memory)
{
    (void)device;
    (void)memory;
    return NVML_ERROR_NOT_SUPPORTED;
}

nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v3(nvmlDevice_t device, unsigned *count, nvmlProcessInfo_t *list)
{
    (void)device;
    (void)count;
    (void)list;
    return NVML_ERROR_NOT_SUPPORTED;
}
