/*
 * What NVML tells a program of its memory: the same story as cuMemGetInfo and cuDeviceTotalMem (query.c), so that one who asks
 * three ways hears it once. The real NVML is asked first and answers every error itself. Told so are processes with a row in
 * the ledger, about devices of theirs; lists of processes and everything else of NVML's pass as they are.
 */
#include "config.h"

#include <errno.h>
#include <string.h>
#include "account/account.h"
#include "cuda/driver.h"
#include "cuda/nvml.h"
#include "cuda/nvml_library.h"
#include "platform/gate.h"
#include "interpose/hooks.h"
#include "interpose/resolve.h"

/* --- found by name ------------------------------------------------------------------------------------------------------ */

struct nvml_hook {
    const char *name;
    void (*wrapper)(void);
};

static const struct nvml_hook hooks[] = {
#define NVML_WRAP(symbol, parameters) {#symbol, (void (*)(void))symbol},
#include "interpose/nvml_hooks.def"
};
enum { HOOKS = sizeof hooks / sizeof *hooks };

/* NVML asks itself, or the driver does: they get the real one. */
static bool caller_is_theirs(const void *caller)
{
    const struct nvml_library *nvml = nvml_library_bound();
    const struct driver *driver = driver_bound();
    return (nvml != NULL && nvml_library_holds(nvml, caller)) || (driver != NULL && driver_holds(driver, caller));
}

/* As in resolve.c: exact names, and only what lies in NVML's own object. */
void *nvml_dlsym(void *handle, const char *name, const void *caller)
{
    void *found = dlsym_real()(handle, name), *wrapper = NULL;
    for (unsigned i = 0; i < HOOKS && found != NULL; i++)
        if (strcmp(name, hooks[i].name) == 0)
            memcpy(&wrapper, &hooks[i].wrapper, sizeof wrapper);
    if (wrapper == NULL || found == wrapper)
        return found;
    int before = errno;
    bool substitute = nvml_library_owns(found) && !caller_is_theirs(caller);
    errno = before;
    return substitute ? wrapper : found;
}

/* --- what is told --------------------------------------------------------------------------------------------------------- */

static bool view_of(nvmlDevice_t device, uint64_t *free_bytes, uint64_t *total_bytes)
{
    CUuuid uuid;
    return account_is_attached() && nvml_device_uuid(device, &uuid) &&
           account_view_uuid(&uuid, free_bytes, total_bytes);
}

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t *memory)
{
    const struct nvml_library *nvml = nvml_library_get();
    uint64_t free_seen, total_seen;
    if (nvml == NULL)
        return NVML_ERROR_LIBRARY_NOT_FOUND;
    if (nvml->nvmlDeviceGetMemoryInfo == NULL)
        return NVML_ERROR_FUNCTION_NOT_FOUND;
    if (!gate_enter())
        return nvml->nvmlDeviceGetMemoryInfo(device, memory);
    nvmlReturn_t result = nvml->nvmlDeviceGetMemoryInfo(device, memory);
    bool seen = result == NVML_SUCCESS && view_of(device, &free_seen, &total_seen);
    gate_leave();
    if (!seen)
        return result;
    memory->total = least(memory->total, total_seen);
    memory->free = least(memory->free, free_seen);
    memory->used = memory->total - least(memory->total, memory->free);
    return result;
}

/* What the card keeps for itself is no part of a budget: nothing of it is reserved, and the three still add up. */
nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t device, nvmlMemory_v2_t *memory)
{
    const struct nvml_library *nvml = nvml_library_get();
    uint64_t free_seen, total_seen;
    if (nvml == NULL)
        return NVML_ERROR_LIBRARY_NOT_FOUND;
    if (nvml->nvmlDeviceGetMemoryInfo_v2 == NULL)
        return NVML_ERROR_FUNCTION_NOT_FOUND;
    if (!gate_enter())
        return nvml->nvmlDeviceGetMemoryInfo_v2(device, memory);
    nvmlReturn_t result = nvml->nvmlDeviceGetMemoryInfo_v2(device, memory);
    bool seen = result == NVML_SUCCESS && view_of(device, &free_seen, &total_seen);
    gate_leave();
    if (!seen)
        return result;
    memory->total = least(memory->total, total_seen);
    memory->free = least(memory->free, free_seen);
    memory->reserved = 0;
    memory->used = memory->total - least(memory->total, memory->free);
    return result;
}
