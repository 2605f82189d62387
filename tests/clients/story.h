/* What the programs of tests/clients/stories share: NVML's and the driver's functions as a route found them, and what is asked. */
#ifndef TESTS_CLIENTS_STORY_H
#define TESTS_CLIENTS_STORY_H

#include "cuda/cuda_abi.h"
#include "cuda/nvml_abi.h"

struct story_functions {
    CUresult (*init)(unsigned);
    CUresult (*retain)(CUcontext *, CUdevice);
    CUresult (*set_current)(CUcontext);
    CUresult (*alloc)(CUdeviceptr *, size_t);
    CUresult (*get_info)(size_t *, size_t *);
    CUresult (*total_mem)(size_t *, CUdevice);
    nvmlReturn_t (*nvml_init)(void);
    nvmlReturn_t (*count)(unsigned *);
    nvmlReturn_t (*by_index)(unsigned, nvmlDevice_t *);
    nvmlReturn_t (*memory_info)(nvmlDevice_t, nvmlMemory_t *);
    nvmlReturn_t (*memory_info_v2)(nvmlDevice_t, nvmlMemory_v2_t *);
    nvmlReturn_t (*processes)(nvmlDevice_t, unsigned *, nvmlProcessInfo_t *);
};

/* The exports as a linked program declares them. */
CUresult cuInit(unsigned flags);
CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device);
CUresult cuCtxSetCurrent(CUcontext context);
CUresult cuMemAlloc_v2(CUdeviceptr *pointer, size_t bytes);
CUresult cuMemGetInfo_v2(size_t *free_bytes, size_t *total_bytes);
CUresult cuDeviceTotalMem_v2(size_t *bytes, CUdevice device);
nvmlReturn_t nvmlInit_v2(void);
nvmlReturn_t nvmlDeviceGetCount_v2(unsigned *count);
nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned index, nvmlDevice_t *device);
nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t *memory);
nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t device, nvmlMemory_v2_t *memory);
nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v3(nvmlDevice_t device, unsigned *count, nvmlProcessInfo_t *list);

/* Asks NVML before cuInit and again, with the driver, when `bytes` are held on CUDA's device 0; prints what was told, in MiB.
 * Returns the program's exit status. */
int story_run(const struct story_functions *call, size_t bytes);

#endif
