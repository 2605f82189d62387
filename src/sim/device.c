/* Devices: what a program can ask of them. The figures are those of an H100-like card. No state, no lock. */
#include "sim/sim.h"

#include <stdio.h>
#include <string.h>

CUresult device_check(CUdevice device)
{
    return device < 0 || (unsigned)device >= sim_process.device_count ? CUDA_ERROR_INVALID_DEVICE : CUDA_SUCCESS;
}

CUdevice device_ordinal(unsigned physical)
{
    for (unsigned i = 0; i < sim_process.device_count; i++)
        if (sim_process.physical[i] == physical)
            return (CUdevice)i;
    return 0;
}

SIM_API CUresult cuDeviceGetCount(int *count)
{
    SIM_ENTER();
    if (!count)
        return CUDA_ERROR_INVALID_VALUE;
    *count = (int)sim_process.device_count;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuDeviceGet(CUdevice *device, int ordinal)
{
    SIM_ENTER();
    if (!device)
        return CUDA_ERROR_INVALID_VALUE;
    if (device_check(ordinal) != CUDA_SUCCESS)
        return CUDA_ERROR_INVALID_DEVICE;
    *device = ordinal;
    return CUDA_SUCCESS;
}

/* The entries about one device begin alike: an output, initialised, a device that is there. */
#define SIM_ENTER_DEVICE(output, device)                                                                               \
    SIM_ENTER();                                                                                                       \
    if (!(output))                                                                                                     \
        return CUDA_ERROR_INVALID_VALUE;                                                                               \
    if (device_check(device) != CUDA_SUCCESS)                                                                          \
    return CUDA_ERROR_INVALID_DEVICE

SIM_API CUresult cuDeviceGetName(char *name, int length, CUdevice device)
{
    SIM_ENTER_DEVICE(name, device);
    if (length <= 0)
        return CUDA_ERROR_INVALID_VALUE;
    snprintf(name, (size_t)length, "%s", sim_process.machine.shared->name);
    return CUDA_SUCCESS;
}

SIM_API CUresult cuDeviceGetUuid(CUuuid *uuid, CUdevice device)
{
    SIM_ENTER_DEVICE(uuid, device);
    memcpy(uuid->bytes, sim_process.machine.shared->device[sim_process.physical[device]].uuid, sizeof(uuid->bytes));
    return CUDA_SUCCESS;
}
SIM_TWIN(cuDeviceGetUuid_v2, cuDeviceGetUuid);

SIM_API CUresult cuDeviceTotalMem_v2(size_t *bytes, CUdevice device)
{
    SIM_ENTER_DEVICE(bytes, device);
    *bytes = sim_process.machine.shared->memory_bytes;
    return CUDA_SUCCESS;
}

/* The 32-bit interface says 4 GiB less a byte of anything bigger. */
SIM_API CUresult cuDeviceTotalMem(unsigned *bytes, CUdevice device)
{
    SIM_ENTER_DEVICE(bytes, device);
    uint64_t total_bytes = sim_process.machine.shared->memory_bytes;
    *bytes = total_bytes > UINT32_MAX ? UINT32_MAX : (unsigned)total_bytes;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuDeviceComputeCapability(int *major, int *minor, CUdevice device)
{
    SIM_ENTER_DEVICE(major && minor, device);
    *major = (int)sim_process.machine.shared->compute_major;
    *minor = (int)sim_process.machine.shared->compute_minor;
    return CUDA_SUCCESS;
}

/* Attributes by number; those not named here are 0: what the simulator does not have. */
static const int attributes[] = {
    [1] = 1024,                                         /* threads a block, */
    [2] = 1024,                                         /* and in each dimension */
    [3] = 1024,        [4] = 64,      [5] = 2147483647, /* blocks a grid */
    [6] = 65535,       [7] = 65535,   [8] = 49152,      /* shared memory a block */
    [9] = 65536,                                        /* constant memory */
    [10] = 32,                                          /* warp */
    [11] = 2147483647,                                  /* pitch at most */
    [12] = 65536,                                       /* registers a block */
    [13] = 1980000,                                     /* clock, kHz */
    [14] = 512,                                         /* alignment of textures */
    [15] = 1,                                           /* copies and kernels overlap */
    [16] = 132,                                         /* multiprocessors */
    [19] = 1,                                           /* maps host memory */
    [21] = 131072,                                      /* textures: 1D, 2D, 3D */
    [22] = 131072,     [23] = 65536,  [24] = 16384,     [25] = 16384,     [26] = 16384,  [27] = 32768, [28] = 32768,
    [29] = 2048,       [30] = 512, /* alignment of surfaces */
    [31] = 1,                      /* concurrent kernels */
    [32] = 1,                      /* ECC */
    [36] = 2619000,                /* memory clock, kHz */
    [37] = 5120,                   /* memory bus, bits */
    [38] = 52428800,               /* L2 cache */
    [39] = 2048,                   /* threads a multiprocessor */
    [40] = 3,                      /* copy engines */
    [41] = 1,                      /* unified addressing */
    [42] = 32768,      [43] = 2048,   [44] = 1,         [45] = 32768,     [46] = 32768,  [47] = 8192,  [48] = 8192,
    [49] = 32768,      [51] = 32, /* alignment of a texture's pitch */
    [52] = 32768,      [53] = 32768,  [54] = 2046,      [55] = 32768,     [56] = 131072, [57] = 65536, [58] = 16384,
    [59] = 16384,      [60] = 16384,  [61] = 32768,     [62] = 2048,      [63] = 32768,  [64] = 32768, [65] = 2048,
    [66] = 32768,      [67] = 32768,  [68] = 2046,      [69] = 268435456, [70] = 131072, [71] = 65000, [72] = 2097120,
    [73] = 32768,      [74] = 32768,  [77] = 32768,     [78] = 1, /* stream priorities */
    [79] = 1,                                                     /* L1 caches */
    [80] = 1,          [81] = 233472,                             /* shared memory a multiprocessor */
    [82] = 65536,                                                 /* registers a multiprocessor */
    [83] = 1,                                                     /* managed memory */
    [87] = 2,                                                     /* single to double precision */
    [89] = 1,                                                     /* concurrent access to managed memory */
    [90] = 1,                                                     /* compute preemption */
    [91] = 1,                                                     /* host pointers for registered memory */
    [95] = 1,                                                     /* cooperative launch */
    [97] = 232448,                                                /* shared memory a block that asks for it */
    [99] = 1,                                                     /* host registering */
    [102] = 1,                                                    /* virtual memory management */
    [103] = 1,                                                    /* handles of POSIX descriptors */
    [106] = 32,                                                   /* blocks a multiprocessor */
    [111] = 1024,                                                 /* shared memory a block that is reserved */
    [115] = 1,                                                    /* memory pools */
    [126] = 4,         [141] = 1,                                 /* host memory in handles, of a node */
    [145] = 1,                                                    /* and of the host */
};

enum { ATTRIBUTE_LAST = 147 };

SIM_API CUresult cuDeviceGetAttribute(int *value, int attribute, CUdevice device)
{
    SIM_ENTER_DEVICE(value, device);
    if (attribute < 1 || attribute > ATTRIBUTE_LAST)
        return CUDA_ERROR_INVALID_VALUE;
    switch (attribute) {
    case CU_DEVICE_ATTRIBUTE_PCI_BUS_ID:
        *value = (int)sim_process.physical[device] + 1;
        break;
    case CU_DEVICE_ATTRIBUTE_MULTICAST_SUPPORTED:
        *value = sim_process.device_count > 1;
        break;
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR:
        *value = (int)sim_process.machine.shared->compute_major;
        break;
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR:
        *value = (int)sim_process.machine.shared->compute_minor;
        break;
    default:
        *value = (size_t)attribute < sizeof(attributes) / sizeof(attributes[0]) ? attributes[attribute] : 0;
    }
    return CUDA_SUCCESS;
}

SIM_API CUresult cuDeviceGetProperties(CUdevprop *properties, CUdevice device)
{
    SIM_ENTER_DEVICE(properties, device);
    *properties = (CUdevprop){
        .maxThreadsPerBlock = attributes[1],
        .maxThreadsDim = {attributes[2], attributes[3], attributes[4]},
        .maxGridSize = {attributes[5], attributes[6], attributes[7]},
        .sharedMemPerBlock = attributes[8],
        .totalConstantMemory = attributes[9],
        .SIMDWidth = attributes[10],
        .memPitch = attributes[11],
        .regsPerBlock = attributes[12],
        .clockRate = attributes[13],
        .textureAlign = attributes[14],
    };
    return CUDA_SUCCESS;
}

SIM_API CUresult cuDeviceGetPCIBusId(char *text, int length, CUdevice device)
{
    SIM_ENTER_DEVICE(text, device);
    if (length < 13)
        return CUDA_ERROR_INVALID_VALUE;
    snprintf(text, (size_t)length, "0000:%02X:00.0", sim_process.physical[device] + 1);
    return CUDA_SUCCESS;
}

SIM_API CUresult cuDeviceGetByPCIBusId(CUdevice *device, const char *text)
{
    SIM_ENTER();
    unsigned domain = 0, bus = 0, slot = 0;
    if (!device || !text)
        return CUDA_ERROR_INVALID_VALUE;
    if (sscanf(text, "%x:%x:%x", &domain, &bus, &slot) != 3) {
        domain = 0;
        if (sscanf(text, "%x:%x", &bus, &slot) != 2)
            return CUDA_ERROR_INVALID_VALUE;
    }
    for (unsigned i = 0; i < sim_process.device_count; i++)
        if (domain == 0 && slot == 0 && bus == sim_process.physical[i] + 1) {
            *device = (CUdevice)i;
            return CUDA_SUCCESS;
        }
    return CUDA_ERROR_INVALID_DEVICE;
}
