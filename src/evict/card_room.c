/*
 * card-room UUID...: prints the free bytes of each of those cards, a line each, as NVML has them. Started by the agent of a process
 * that is out of the card, in which NVML would block for ever (room.c); of use to nobody else. Where the first argument is a path, NVML is that file.
 * Ends with 1 where any of them cannot be told.
 */
#include "config.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "cuda/nvml_library.h"

enum { SECONDS_MOST = 10 };

/* The preloaded library, where the whole system has it, looks for this and leaves the process alone. */
extern const char cubudget_command;
__attribute__((visibility("default"))) const char cubudget_command = 1;

static bool free_bytes(const struct nvml_library *nvml, const char *uuid, unsigned long long *bytes)
{
    nvmlDevice_t device;
    nvmlMemory_t memory;
    if (nvml->nvmlDeviceGetHandleByUUID(uuid, &device) != NVML_SUCCESS ||
        nvml->nvmlDeviceGetMemoryInfo(device, &memory) != NVML_SUCCESS)
        return false;
    *bytes = memory.free;
    return true;
}

/* What it was started with is not its own. */
static void leave_others_alone(void)
{
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    (void)alarm(SECONDS_MOST);
    (void)syscall(SYS_close_range, STDERR_FILENO + 1, ~0U, 0); /* since Linux 5.9; before, they end with us */
    int nothing = open("/dev/null", O_RDWR);
    if (nothing < 0)
        return;
    (void)dup2(nothing, STDIN_FILENO);
    (void)dup2(nothing, STDERR_FILENO);
    if (nothing > STDERR_FILENO)
        (void)close(nothing);
}

int main(int count, char **arguments)
{
    int at = 1;
    leave_others_alone();
    if (at < count && arguments[at][0] == '/')
        (void)dlopen(arguments[at++], RTLD_NOW | RTLD_GLOBAL);
    const struct nvml_library *nvml = nvml_library_get();
    if (nvml == NULL || nvml->nvmlDeviceGetHandleByUUID == NULL || nvml->nvmlDeviceGetMemoryInfo == NULL ||
        (nvml->nvmlInit_v2 != NULL ? nvml->nvmlInit_v2() : nvml->nvmlInit()) != NVML_SUCCESS)
        return 1;
    for (; at < count; at++) {
        unsigned long long bytes;
        if (!free_bytes(nvml, arguments[at], &bytes))
            return 1;
        printf("%llu\n", bytes);
    }
    return fflush(stdout) == 0 ? 0 : 1;
}
