/*
 * The simulated NVML: devices, their memory and who holds it, read from the machine's file. Works in a process that never
 * calls cuInit, and sees all devices whatever CUDA_VISIBLE_DEVICES says.
 *
 * One lock for the count of nvmlInit and the machine; never held over a call to the outside, nor over a wait.
 */
#include "cuda/nvml_abi.h"
#include "sim/machine_file.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Callers are programs built with NVIDIA's header: no header of ours declares the entry points. */
#define SIM_API __attribute__((visibility("default")))
#pragma GCC diagnostic ignored "-Wmissing-prototypes"

#define DRIVER_VERSION "580.159.04"

enum { CUDA_VERSION_NUMBER = 13000 };

struct nvmlDevice_st {
    unsigned index;
};

static pthread_mutex_t nvml_lock = PTHREAD_MUTEX_INITIALIZER;
static unsigned users;
static struct machine machine;
static struct sim_options options;
static struct nvmlDevice_st devices[SIM_DEVICES];

static void lock_take(void)
{
    pthread_mutex_lock(&nvml_lock);
}

static void lock_leave(void)
{
    pthread_mutex_unlock(&nvml_lock);
}

/* A child must be able to use NVML whatever the parent's threads do. */
__attribute__((constructor)) static void forks_prepare(void)
{
    pthread_atfork(lock_take, lock_leave, lock_leave);
}

static _Noreturn void settings_refuse(const char *fault)
{
    dprintf(STDERR_FILENO, "cubudget: CUBUDGET_SIMULATE: %s\n", fault);
    _exit(78);
}

/* Under the lock. */
static nvmlReturn_t machine_join(void)
{
    char fault[MACHINE_FAULT_BYTES] = "";
    int saved = errno;
    if (options_parse(getenv("CUBUDGET_SIMULATE"), &options, fault, sizeof(fault)) != 0)
        settings_refuse(fault);
    int result = machine_open(&machine, &options, fault, sizeof(fault));
    if (result == -EINVAL)
        settings_refuse(fault);
    errno = saved;
    return result == 0 ? NVML_SUCCESS : NVML_ERROR_UNKNOWN;
}

/* In a process whose memory the driver has moved away NVML answers nothing until it is back (measured). Lets the lock go
 * meanwhile: a child that is forked then is not held up. Under the lock. */
static void presence_await(void)
{
    enum { LOOK_EVERY_MS = 50 }; /* the word can go with the machine's mapping */
    for (_Atomic uint32_t *away; machine.shared && (away = machine_self_away(&machine)) != NULL;) {
        uint32_t state = *away;
        pthread_mutex_unlock(&nvml_lock);
        machine_word_wait(away, state, LOOK_EVERY_MS);
        pthread_mutex_lock(&nvml_lock);
    }
}

SIM_API nvmlReturn_t nvmlInitWithFlags(unsigned flags)
{
    nvmlReturn_t result = NVML_SUCCESS;
    if (flags & ~3u)
        return NVML_ERROR_INVALID_ARGUMENT;
    pthread_mutex_lock(&nvml_lock);
    if (users == 0)
        result = machine_join();
    if (result == NVML_SUCCESS) {
        users++;
        presence_await();
    }
    pthread_mutex_unlock(&nvml_lock);
    return result;
}

SIM_API nvmlReturn_t nvmlInit_v2(void)
{
    return nvmlInitWithFlags(0);
}

SIM_API nvmlReturn_t nvmlInit(void)
{
    return nvmlInitWithFlags(0);
}

SIM_API nvmlReturn_t nvmlShutdown(void)
{
    pthread_mutex_lock(&nvml_lock);
    presence_await();
    nvmlReturn_t result = users ? NVML_SUCCESS : NVML_ERROR_UNINITIALIZED;
    if (users && --users == 0)
        machine_close(&machine);
    pthread_mutex_unlock(&nvml_lock);
    return result;
}

/* Begins a call: 0 with the lock held and a machine that is not removed; whoever gets 0 calls call_end. */
static nvmlReturn_t call_begin(void)
{
    nvmlReturn_t result = NVML_SUCCESS;
    pthread_mutex_lock(&nvml_lock);
    presence_await();
    if (!users)
        result = NVML_ERROR_UNINITIALIZED;
    else if (!machine.shared || machine.shared->removed) {
        machine_close(&machine);
        result = machine_join();
    }
    if (result != NVML_SUCCESS)
        pthread_mutex_unlock(&nvml_lock);
    return result;
}

static nvmlReturn_t call_end(nvmlReturn_t result)
{
    pthread_mutex_unlock(&nvml_lock);
    return result;
}

/* The same about a device. */
static nvmlReturn_t device_begin(nvmlDevice_t device, const void *output)
{
    nvmlReturn_t result = call_begin();
    if (result != NVML_SUCCESS)
        return result;
    if (!output || device < devices || device >= devices + machine.shared->devices)
        return call_end(NVML_ERROR_INVALID_ARGUMENT);
    return NVML_SUCCESS;
}

SIM_API nvmlReturn_t nvmlDeviceGetCount_v2(unsigned *count)
{
    nvmlReturn_t result = call_begin();
    if (result != NVML_SUCCESS)
        return result;
    if (!count)
        return call_end(NVML_ERROR_INVALID_ARGUMENT);
    *count = machine.shared->devices;
    return call_end(NVML_SUCCESS);
}

SIM_API nvmlReturn_t nvmlDeviceGetCount(unsigned *count)
{
    return nvmlDeviceGetCount_v2(count);
}

SIM_API nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned index, nvmlDevice_t *device)
{
    nvmlReturn_t result = call_begin();
    if (result != NVML_SUCCESS)
        return result;
    if (!device || index >= machine.shared->devices)
        return call_end(NVML_ERROR_INVALID_ARGUMENT);
    devices[index].index = index;
    *device = &devices[index];
    return call_end(NVML_SUCCESS);
}

SIM_API nvmlReturn_t nvmlDeviceGetHandleByIndex(unsigned index, nvmlDevice_t *device)
{
    return nvmlDeviceGetHandleByIndex_v2(index, device);
}

enum { UUID_TEXT_BYTES = 41 }; /* "GPU-", 36 characters, and the end */

static void uuid_write(unsigned index, char text[UUID_TEXT_BYTES])
{
    const uint8_t *u = machine.shared->device[index].uuid;
    snprintf(text, UUID_TEXT_BYTES, "GPU-%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", u[0],
             u[1], u[2], u[3], u[4], u[5], u[6], u[7], u[8], u[9], u[10], u[11], u[12], u[13], u[14], u[15]);
}

SIM_API nvmlReturn_t nvmlDeviceGetHandleByUUID(const char *uuid, nvmlDevice_t *device)
{
    char text[UUID_TEXT_BYTES];
    nvmlReturn_t result = call_begin();
    if (result != NVML_SUCCESS)
        return result;
    if (!uuid || !device)
        return call_end(NVML_ERROR_INVALID_ARGUMENT);
    for (unsigned index = 0; index < machine.shared->devices; index++) {
        uuid_write(index, text);
        if (strcasecmp(uuid, text) == 0) {
            devices[index].index = index;
            *device = &devices[index];
            return call_end(NVML_SUCCESS);
        }
    }
    return call_end(NVML_ERROR_NOT_FOUND);
}

SIM_API nvmlReturn_t nvmlDeviceGetHandleByPciBusId_v2(const char *text, nvmlDevice_t *device)
{
    unsigned domain = 0, bus = 0, slot = 0;
    nvmlReturn_t result = call_begin();
    if (result != NVML_SUCCESS)
        return result;
    if (!text || !device || sscanf(text, "%x:%x:%x", &domain, &bus, &slot) != 3)
        return call_end(NVML_ERROR_INVALID_ARGUMENT);
    if (domain != 0 || slot != 0 || bus < 1 || bus > machine.shared->devices)
        return call_end(NVML_ERROR_NOT_FOUND);
    devices[bus - 1].index = bus - 1;
    *device = &devices[bus - 1];
    return call_end(NVML_SUCCESS);
}

SIM_API nvmlReturn_t nvmlDeviceGetHandleByPciBusId(const char *text, nvmlDevice_t *device)
{
    return nvmlDeviceGetHandleByPciBusId_v2(text, device);
}

SIM_API nvmlReturn_t nvmlDeviceGetIndex(nvmlDevice_t device, unsigned *index)
{
    nvmlReturn_t result = device_begin(device, index);
    if (result != NVML_SUCCESS)
        return result;
    *index = device->index;
    return call_end(NVML_SUCCESS);
}

SIM_API nvmlReturn_t nvmlDeviceGetMinorNumber(nvmlDevice_t device, unsigned *number)
{
    return nvmlDeviceGetIndex(device, number);
}

/* Ends a call that answers with a text. */
static nvmlReturn_t text_end(char *output, unsigned output_bytes, const char *text)
{
    if (output_bytes <= strlen(text))
        return call_end(NVML_ERROR_INSUFFICIENT_SIZE);
    strcpy(output, text);
    return call_end(NVML_SUCCESS);
}

SIM_API nvmlReturn_t nvmlDeviceGetName(nvmlDevice_t device, char *name, unsigned name_bytes)
{
    nvmlReturn_t result = device_begin(device, name);
    return result == NVML_SUCCESS ? text_end(name, name_bytes, machine.shared->name) : result;
}

SIM_API nvmlReturn_t nvmlDeviceGetUUID(nvmlDevice_t device, char *uuid, unsigned uuid_bytes)
{
    char text[UUID_TEXT_BYTES];
    nvmlReturn_t result = device_begin(device, uuid);
    if (result != NVML_SUCCESS)
        return result;
    uuid_write(device->index, text);
    return text_end(uuid, uuid_bytes, text);
}

SIM_API nvmlReturn_t nvmlDeviceGetPciInfo_v3(nvmlDevice_t device, nvmlPciInfo_t *info)
{
    nvmlReturn_t result = device_begin(device, info);
    if (result != NVML_SUCCESS)
        return result;
    memset(info, 0, sizeof(*info));
    info->bus = device->index + 1;
    info->pciDeviceId = 0x233010DE;
    snprintf(info->busIdLegacy, sizeof(info->busIdLegacy), "0000:%02X:00.0", info->bus & 0xFF);
    snprintf(info->busId, sizeof(info->busId), "00000000:%02X:00.0", info->bus & 0xFF);
    return call_end(NVML_SUCCESS);
}

SIM_API nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t *memory)
{
    nvmlReturn_t result = device_begin(device, memory);
    if (result != NVML_SUCCESS)
        return result;
    memory->total = machine.shared->memory_bytes;
    memory->used = machine.shared->baseline_bytes + machine_used(&machine, device->index);
    memory->free = memory->total - memory->used;
    return call_end(NVML_SUCCESS);
}

/* The baseline is what the driver keeps for itself: apart from used here. */
SIM_API nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t device, nvmlMemory_v2_t *memory)
{
    nvmlReturn_t result = device_begin(device, memory);
    if (result != NVML_SUCCESS)
        return result;
    if (memory->version != NVML_MEMORY_V2)
        return call_end(NVML_ERROR_ARGUMENT_VERSION_MISMATCH);
    memory->total = machine.shared->memory_bytes;
    memory->reserved = machine.shared->baseline_bytes;
    memory->used = machine_used(&machine, device->index);
    memory->free = memory->total - memory->reserved - memory->used;
    return call_end(NVML_SUCCESS);
}

/* How the lists of processes are asked for: *count has the places on the way in, the processes on the way out. */
static nvmlReturn_t processes_read(nvmlDevice_t device, unsigned *count, nvmlProcessInfo_v1_t *first_form,
                                   nvmlProcessInfo_t *second_form)
{
    struct sim_holder *holders = NULL;
    nvmlReturn_t result = device_begin(device, count);
    if (result != NVML_SUCCESS)
        return result;
    unsigned places = first_form || second_form ? *count : 0;
    if (places > MACHINE_PROCESSES)
        places = MACHINE_PROCESSES;
    if (places && !(holders = calloc(places, sizeof(*holders))))
        return call_end(NVML_ERROR_UNKNOWN);
    unsigned found = machine_holders(&machine, device->index, holders, places);
    for (unsigned i = 0; i < found && i < places; i++) {
        if (first_form)
            first_form[i] = (nvmlProcessInfo_v1_t){(uint32_t)holders[i].pid, holders[i].used_bytes};
        else
            second_form[i] =
                (nvmlProcessInfo_t){(uint32_t)holders[i].pid, holders[i].used_bytes, UINT32_MAX, UINT32_MAX};
    }
    free(holders);
    *count = found;
    return call_end(found > places ? NVML_ERROR_INSUFFICIENT_SIZE : NVML_SUCCESS);
}

SIM_API nvmlReturn_t nvmlDeviceGetComputeRunningProcesses(nvmlDevice_t device, unsigned *count,
                                                          nvmlProcessInfo_v1_t *processes)
{
    return processes_read(device, count, processes, NULL);
}

SIM_API nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v2(nvmlDevice_t device, unsigned *count,
                                                             nvmlProcessInfo_t *processes)
{
    return processes_read(device, count, NULL, processes);
}

SIM_API nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v3(nvmlDevice_t device, unsigned *count,
                                                             nvmlProcessInfo_t *processes)
{
    return processes_read(device, count, NULL, processes);
}

/* Nobody draws on a simulated card. */
static nvmlReturn_t processes_none(nvmlDevice_t device, unsigned *count)
{
    nvmlReturn_t result = device_begin(device, count);
    if (result != NVML_SUCCESS)
        return result;
    *count = 0;
    return call_end(NVML_SUCCESS);
}

SIM_API nvmlReturn_t nvmlDeviceGetGraphicsRunningProcesses(nvmlDevice_t device, unsigned *count,
                                                           nvmlProcessInfo_v1_t *processes)
{
    (void)processes;
    return processes_none(device, count);
}

SIM_API nvmlReturn_t nvmlDeviceGetGraphicsRunningProcesses_v2(nvmlDevice_t device, unsigned *count,
                                                              nvmlProcessInfo_t *processes)
{
    (void)processes;
    return processes_none(device, count);
}

SIM_API nvmlReturn_t nvmlDeviceGetGraphicsRunningProcesses_v3(nvmlDevice_t device, unsigned *count,
                                                              nvmlProcessInfo_t *processes)
{
    (void)processes;
    return processes_none(device, count);
}

SIM_API nvmlReturn_t nvmlDeviceGetCudaComputeCapability(nvmlDevice_t device, int *major, int *minor)
{
    nvmlReturn_t result = device_begin(device, major && minor ? major : NULL);
    if (result != NVML_SUCCESS)
        return result;
    *major = (int)machine.shared->compute_major;
    *minor = (int)machine.shared->compute_minor;
    return call_end(NVML_SUCCESS);
}

/* 1: enabled */
SIM_API nvmlReturn_t nvmlDeviceGetPersistenceMode(nvmlDevice_t device, int *mode)
{
    nvmlReturn_t result = device_begin(device, mode);
    if (result != NVML_SUCCESS)
        return result;
    *mode = 1;
    return call_end(NVML_SUCCESS);
}

SIM_API nvmlReturn_t nvmlDeviceGetMigMode(nvmlDevice_t device, unsigned *current, unsigned *pending)
{
    nvmlReturn_t result = device_begin(device, current && pending ? current : NULL);
    return result == NVML_SUCCESS ? call_end(NVML_ERROR_NOT_SUPPORTED) : result;
}

SIM_API nvmlReturn_t nvmlSystemGetDriverVersion(char *version, unsigned version_bytes)
{
    nvmlReturn_t result = call_begin();
    if (result != NVML_SUCCESS)
        return result;
    return version ? text_end(version, version_bytes, DRIVER_VERSION) : call_end(NVML_ERROR_INVALID_ARGUMENT);
}

SIM_API nvmlReturn_t nvmlSystemGetNVMLVersion(char *version, unsigned version_bytes)
{
    nvmlReturn_t result = call_begin();
    if (result != NVML_SUCCESS)
        return result;
    return version ? text_end(version, version_bytes, "13." DRIVER_VERSION) : call_end(NVML_ERROR_INVALID_ARGUMENT);
}

SIM_API nvmlReturn_t nvmlSystemGetCudaDriverVersion(int *version)
{
    if (!version)
        return NVML_ERROR_INVALID_ARGUMENT;
    *version = CUDA_VERSION_NUMBER;
    return NVML_SUCCESS;
}

SIM_API nvmlReturn_t nvmlSystemGetCudaDriverVersion_v2(int *version)
{
    return nvmlSystemGetCudaDriverVersion(version);
}

SIM_API const char *nvmlErrorString(nvmlReturn_t result)
{
    switch (result) {
    case NVML_SUCCESS:
        return "Success";
    case NVML_ERROR_UNINITIALIZED:
        return "Uninitialized";
    case NVML_ERROR_INVALID_ARGUMENT:
        return "Invalid Argument";
    case NVML_ERROR_NOT_SUPPORTED:
        return "Not Supported";
    case NVML_ERROR_NO_PERMISSION:
        return "Insufficient Permissions";
    case NVML_ERROR_NOT_FOUND:
        return "Not Found";
    case NVML_ERROR_INSUFFICIENT_SIZE:
        return "Insufficient Size";
    case NVML_ERROR_DRIVER_NOT_LOADED:
        return "Driver Not Loaded";
    case NVML_ERROR_FUNCTION_NOT_FOUND:
        return "Function Not Found";
    case NVML_ERROR_ARGUMENT_VERSION_MISMATCH:
        return "Argument version mismatch";
    default:
        return "Unknown Error";
    }
}
