/*
 * Devices of the C API: whether there is one, opening, what it is. Called by programs, from any thread; keeps nothing but what
 * src/account and src/cuda keep.
 */
#include "config.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "api/api.h"
#include "cuda/nvml.h"
#include "platform/gate.h"
#include "ledger/snapshot.h"
#include "platform/card.h"
#include "platform/log.h"

enum { CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED = 102 };

/* --- uuids ---------------------------------------------------------------------------------------------------------------- */

void uuid_write(const uint8_t uuid[LEDGER_UUID_BYTES], char text[CUBUDGET_UUID_TEXT_BYTES])
{
    char *at = text + snprintf(text, CUBUDGET_UUID_TEXT_BYTES, "GPU-");
    for (unsigned i = 0; i < LEDGER_UUID_BYTES; i++)
        at += sprintf(at, i == 4 || i == 6 || i == 8 || i == 10 ? "-%02x" : "%02x", uuid[i]);
}

bool uuid_read(const char *text, uint8_t uuid[LEDGER_UUID_BYTES])
{
    unsigned digits = 0;
    if (strncmp(text, "GPU-", 4) != 0 && strncmp(text, "MIG-", 4) != 0)
        return false;
    for (text += 4; *text != '\0'; text++) {
        if (*text == '-')
            continue;
        if (!isxdigit((unsigned char)*text) || digits == 2 * LEDGER_UUID_BYTES)
            return false;
        char digit[2] = {*text, '\0'};
        uint8_t *byte = &uuid[digits++ / 2];
        *byte = (uint8_t)((unsigned)*byte << 4 | (unsigned)strtoul(digit, NULL, 16));
    }
    return digits == 2 * LEDGER_UUID_BYTES;
}

/* --- starting ---------------------------------------------------------------------------------------------------------------- */

enum cubudget_error api_driver_find(const struct driver **driver)
{
    struct account_fault fault;
    const struct settings *settings = account_settings_get(&fault);
    if (settings == NULL)
        return api_fail(CUBUDGET_ERROR_SETTINGS, "%s", fault.text);
    if (!settings->simulate && !card_is_present())
        return api_fail(CUBUDGET_ERROR_NO_DEVICE, "looked for %s", CARD_LOOKED_FOR);
    *driver = driver_get();
    if (*driver == NULL)
        return api_fail(CUBUDGET_ERROR_NO_DRIVER, "libcuda.so.1 cannot be loaded; install the NVIDIA driver");
    return CUBUDGET_OK;
}

static enum cubudget_error attach_error(int status)
{
    return status == EXIT_NO_DEVICE      ? CUBUDGET_ERROR_UNSUITABLE
           : status == EXIT_BAD_SETTINGS ? CUBUDGET_ERROR_SETTINGS
                                         : CUBUDGET_ERROR_NO_LEDGER;
}

enum cubudget_error api_start(const struct driver **driver)
{
    struct account_fault fault;
    int status = 0, before = errno;
    enum cubudget_error error = api_driver_find(driver);
    if (error != CUBUDGET_OK)
        return error;
    bool entered = gate_enter();
    CUresult result = (*driver)->cuInit(0);
    if (result == CUDA_SUCCESS)
        status = account_attach(*driver, &fault);
    if (entered)
        gate_leave();
    errno = before;
    if (result != CUDA_SUCCESS)
        return api_fail_cuda(result, "cuInit");
    return status == 0 ? CUBUDGET_OK : api_fail(attach_error(status), "%s", fault.text);
}

enum cubudget_error api_ledger_open(struct ledger *ledger)
{
    char directory[PATH_MAX];
    struct account_fault fault;
    struct ledger_fault why;
    int before = errno;
    const struct settings *settings = account_settings_get(&fault);
    if (settings == NULL)
        return api_fail(CUBUDGET_ERROR_SETTINGS, "%s", fault.text);
    if (shm_directory(settings->directory, directory) != 0)
        return api_fail(CUBUDGET_ERROR_NO_LEDGER, "the ledger directory's path is too long");
    struct ledger_request request = {.directory = directory, .name = settings->ledger};
    int result = ledger_open(ledger, &request, &why);
    errno = before;
    return result == 0 ? CUBUDGET_OK : api_fail(CUBUDGET_ERROR_NO_LEDGER, "%s", why.text);
}

/* The user himself hid every device: none will be there, whatever the machine has. */
static bool devices_are_hidden(void)
{
    const char *visible = getenv("CUDA_VISIBLE_DEVICES");
    return visible != NULL && (*visible == '\0' || strncmp(visible, "-1", 2) == 0);
}

enum cubudget_error cubudget_available(void)
{
    const struct driver *driver;
    char directory[PATH_MAX];
    struct account_fault fault;
    struct ledger ledger;
    struct ledger_fault why;
    int before = errno;
    enum cubudget_error error = api_driver_find(&driver);
    if (error != CUBUDGET_OK)
        return error;
    if (devices_are_hidden())
        return api_fail(CUBUDGET_ERROR_NO_DEVICE, "CUDA_VISIBLE_DEVICES hides them all");
    const struct settings *settings = account_settings_get(&fault);
    if (settings == NULL || shm_directory(settings->directory, directory) != 0)
        return api_fail(CUBUDGET_ERROR_NO_LEDGER, "the ledger directory's path is too long");
    struct ledger_request request = {.directory = directory,
                                     .name = settings->ledger,
                                     .has_budget = settings->has_budget,
                                     .budget_bytes = settings->budget_bytes};
    int result = ledger_open(&ledger, &request, &why);
    errno = before;
    if (result == 0)
        ledger_close(&ledger);
    if (result == 0 || result == -ENOENT) /* the first to use a device makes it */
        return CUBUDGET_OK;
    return api_fail(result == -EEXIST ? CUBUDGET_ERROR_SETTINGS : CUBUDGET_ERROR_NO_LEDGER, "%s", why.text);
}

enum cubudget_error cubudget_device_count(unsigned *count)
{
    const struct driver *driver;
    int seen = 0;
    if (count == NULL)
        return api_fail(CUBUDGET_ERROR_INVALID, "count is NULL");
    enum cubudget_error error = api_start(&driver);
    if (error != CUBUDGET_OK)
        return error;
    gate_pass(); /* measured to answer in any state */
    CUresult result = driver->cuDeviceGetCount(&seen);
    if (result != CUDA_SUCCESS)
        return api_fail_cuda(result, "cuDeviceGetCount");
    *count = (unsigned)seen;
    return CUBUDGET_OK;
}

/* --- what it is --------------------------------------------------------------------------------------------------------------- */

static int attribute_of(const struct driver *driver, int attribute, CUdevice device)
{
    int value = 0;
    return driver->cuDeviceGetAttribute(&value, attribute, device) == CUDA_SUCCESS ? value : 0;
}

static CUresult uuid_ask(const struct driver *driver, CUdevice device, CUuuid *uuid)
{
    return driver->cuDeviceGetUuid_v2 != NULL ? driver->cuDeviceGetUuid_v2(uuid, device)
           : driver->cuDeviceGetUuid != NULL  ? driver->cuDeviceGetUuid(uuid, device)
                                              : CUDA_ERROR_NOT_SUPPORTED;
}

/* What the slot could be granted, and what the card has left for it where strangers hold some. */
static void room_ask(CUdevice device, const CUuuid *uuid, struct cubudget_device_info *info)
{
    uint64_t used, free_bytes, total_bytes;
    if (account_view(device, &free_bytes, &total_bytes)) {
        info->total_bytes = total_bytes < info->card_bytes ? total_bytes : info->card_bytes;
        info->free_bytes = free_bytes;
    }
    if (nvml_used_bytes(uuid, &used) == 0) {
        uint64_t left = used < info->card_bytes ? info->card_bytes - used : 0;
        info->free_bytes = left < info->free_bytes ? left : info->free_bytes;
    }
    info->pressure = (enum cubudget_pressure)account_pressure(device);
}

static enum cubudget_error info_fill(const struct driver *driver, int ordinal, struct cubudget_device_info *info)
{
    CUdevice device;
    CUuuid uuid;
    size_t bytes = 0;
    CUresult result = driver->cuDeviceGet(&device, ordinal);
    if (result == CUDA_ERROR_INVALID_DEVICE)
        return api_fail(CUBUDGET_ERROR_NO_DEVICE, "CUDA shows this process no device %d", ordinal);
    if (result == CUDA_SUCCESS)
        result = driver->cuDeviceTotalMem_v2(&bytes, device);
    if (result == CUDA_SUCCESS)
        result = uuid_ask(driver, device, &uuid);
    if (result != CUDA_SUCCESS)
        return api_fail_cuda(result, "asking the device what it is");
    *info = (struct cubudget_device_info){
        .size = sizeof *info,
        .ordinal = ordinal,
        .multiprocessors = (unsigned)attribute_of(driver, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, device),
        .compute_capability =
            (unsigned)(10 * attribute_of(driver, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, device) +
                       attribute_of(driver, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, device)),
        .virtual_memory = attribute_of(driver, CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED, device) != 0,
        .card_bytes = bytes,
        .total_bytes = bytes,
        .free_bytes = bytes,
    };
    uuid_write(uuid.bytes, info->uuid);
    if (driver->cuDeviceGetName(info->name, (int)sizeof info->name, device) != CUDA_SUCCESS)
        (void)snprintf(info->name, sizeof info->name, "GPU %d", ordinal);
    room_ask(device, &uuid, info);
    return CUBUDGET_OK;
}

enum cubudget_error cubudget_device_info(struct cubudget_device device, struct cubudget_device_info *info)
{
    const struct driver *driver;
    struct cubudget_device_info seen;
    if (info == NULL || info->size < sizeof info->size)
        return api_fail(CUBUDGET_ERROR_INVALID, "info is NULL, or its size is not set");
    enum cubudget_error error = api_start(&driver);
    if (error == CUBUDGET_OK) {
        bool entered = gate_enter();
        error = info_fill(driver, device.ordinal, &seen);
        if (entered)
            gate_leave();
    }
    if (error != CUBUDGET_OK)
        return error;
    size_t size = info->size < sizeof seen ? info->size : sizeof seen;
    memcpy(info, &seen, size);
    info->size = size;
    return CUBUDGET_OK;
}

/* --- opening ------------------------------------------------------------------------------------------------------------------- */

static enum cubudget_error requirements_check(const struct cubudget_requirements *asked,
                                              const struct cubudget_device_info *info)
{
    struct cubudget_requirements required = {0};
    if (asked == NULL)
        return CUBUDGET_OK;
    if (asked->size < sizeof asked->size)
        return api_fail(CUBUDGET_ERROR_INVALID, "the size of the requirements is not set");
    memcpy(&required, asked, asked->size < sizeof required ? asked->size : sizeof required);
    if (info->compute_capability < required.compute_capability)
        return api_fail(CUBUDGET_ERROR_UNSUITABLE, "'%s' has compute capability %u.%u, and %u.%u is required",
                        info->name, info->compute_capability / 10, info->compute_capability % 10,
                        required.compute_capability / 10, required.compute_capability % 10);
    if (required.virtual_memory && !info->virtual_memory)
        return api_fail(CUBUDGET_ERROR_UNSUITABLE, "'%s' has no virtual memory management", info->name);
    if (info->total_bytes < required.total_bytes)
        return api_fail(CUBUDGET_ERROR_UNSUITABLE, "'%s' has %llu bytes for this slot, and %llu are required",
                        info->name, (unsigned long long)info->total_bytes, (unsigned long long)required.total_bytes);
    return CUBUDGET_OK;
}

enum cubudget_error cubudget_device_open(int ordinal, const struct cubudget_requirements *required,
                                         struct cubudget_device *device)
{
    const struct driver *driver;
    struct cubudget_device_info info;
    if (device == NULL)
        return api_fail(CUBUDGET_ERROR_INVALID, "device is NULL");
    enum cubudget_error error = api_start(&driver);
    if (error == CUBUDGET_OK)
        error = info_fill(driver, ordinal, &info);
    if (error == CUBUDGET_OK)
        error = requirements_check(required, &info);
    if (error == CUBUDGET_OK)
        device->ordinal = ordinal;
    return error;
}

/* The ordinal of the device with that uuid; -1: CUDA shows none. */
static int ordinal_find(const struct driver *driver, const uint8_t wanted[LEDGER_UUID_BYTES])
{
    bool entered = gate_enter();
    int count = 0, found = -1;
    (void)driver->cuDeviceGetCount(&count);
    for (int ordinal = 0; ordinal < count && found < 0; ordinal++) {
        CUdevice handle;
        CUuuid seen;
        if (driver->cuDeviceGet(&handle, ordinal) == CUDA_SUCCESS && uuid_ask(driver, handle, &seen) == CUDA_SUCCESS &&
            memcmp(seen.bytes, wanted, LEDGER_UUID_BYTES) == 0)
            found = ordinal;
    }
    if (entered)
        gate_leave();
    return found;
}

enum cubudget_error cubudget_device_open_uuid(const char *uuid, const struct cubudget_requirements *required,
                                              struct cubudget_device *device)
{
    const struct driver *driver;
    uint8_t wanted[LEDGER_UUID_BYTES];
    if (uuid == NULL || device == NULL || !uuid_read(uuid, wanted))
        return api_fail(CUBUDGET_ERROR_INVALID, "'%s' is no uuid; write GPU- and 32 hexadecimal digits",
                        uuid != NULL ? uuid : "NULL");
    enum cubudget_error error = api_start(&driver);
    if (error != CUBUDGET_OK)
        return error;
    int ordinal = ordinal_find(driver, wanted);
    if (ordinal >= 0)
        return cubudget_device_open(ordinal, required, device);
    return api_fail(CUBUDGET_ERROR_NO_DEVICE, "CUDA shows this process no device '%s'", uuid);
}
