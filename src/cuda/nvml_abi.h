/*
 * NVML's binary interface as far as cubudget speaks it: our own declarations (facts of the interface, NVML 13).
 */
#ifndef CUDA_NVML_ABI_H
#define CUDA_NVML_ABI_H

#include <stdint.h>

typedef int nvmlReturn_t;
enum {
    NVML_SUCCESS = 0,
    NVML_ERROR_UNINITIALIZED = 1,
    NVML_ERROR_INVALID_ARGUMENT = 2,
    NVML_ERROR_NOT_SUPPORTED = 3,
    NVML_ERROR_NO_PERMISSION = 4,
    NVML_ERROR_NOT_FOUND = 6,
    NVML_ERROR_INSUFFICIENT_SIZE = 7,
    NVML_ERROR_DRIVER_NOT_LOADED = 9,
    NVML_ERROR_LIBRARY_NOT_FOUND = 12,
    NVML_ERROR_FUNCTION_NOT_FOUND = 13,
    NVML_ERROR_ARGUMENT_VERSION_MISMATCH = 25,
    NVML_ERROR_UNKNOWN = 999,
};
#define NVML_VALUE_NOT_AVAILABLE UINT64_MAX

typedef struct nvmlDevice_st *nvmlDevice_t;

typedef struct nvmlMemory_st {
    uint64_t total, free, used; /* used includes what the driver keeps for itself */
} nvmlMemory_t;

typedef struct nvmlMemory_v2_st {
    uint32_t version; /* in: NVML_MEMORY_V2 */
    uint64_t total, reserved, free, used;
} nvmlMemory_v2_t;
#define NVML_MEMORY_V2 ((uint32_t)sizeof(nvmlMemory_v2_t) | 2u << 24)

typedef struct nvmlProcessInfo_v1_st {
    uint32_t pid; /* in the host's PID namespace */
    uint64_t usedGpuMemory;
} nvmlProcessInfo_v1_t;

typedef struct nvmlProcessInfo_st { /* _v2 and _v3 */
    uint32_t pid;
    uint64_t usedGpuMemory;
    uint32_t gpuInstanceId, computeInstanceId;
} nvmlProcessInfo_t;

typedef struct nvmlPciInfo_st { /* _v3 */
    char busIdLegacy[16];
    uint32_t domain, bus, device;
    uint32_t pciDeviceId; /* the device's id above the vendor's */
    uint32_t pciSubSystemId;
    char busId[32];
} nvmlPciInfo_t;

_Static_assert(sizeof(nvmlPciInfo_t) == 68, "NVML ABI");
_Static_assert(sizeof(nvmlMemory_t) == 24, "NVML ABI");
_Static_assert(sizeof(nvmlMemory_v2_t) == 40, "NVML ABI");
_Static_assert(sizeof(nvmlProcessInfo_v1_t) == 16, "NVML ABI");
_Static_assert(sizeof(nvmlProcessInfo_t) == 24, "NVML ABI");

#endif
