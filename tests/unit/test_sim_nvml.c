/* The simulated NVML: the same card as the driver's, seen from outside. */
#include "unit/sim_stage.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "cuda/nvml_abi.h"

#define CONTEXT_BYTES (527 * MIB)

nvmlReturn_t nvmlInit_v2(void);
nvmlReturn_t nvmlShutdown(void);
nvmlReturn_t nvmlDeviceGetCount_v2(unsigned *count);
nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned index, nvmlDevice_t *device);
nvmlReturn_t nvmlDeviceGetHandleByUUID(const char *uuid, nvmlDevice_t *device);
nvmlReturn_t nvmlDeviceGetHandleByPciBusId_v2(const char *text, nvmlDevice_t *device);
nvmlReturn_t nvmlDeviceGetIndex(nvmlDevice_t device, unsigned *index);
nvmlReturn_t nvmlDeviceGetName(nvmlDevice_t device, char *name, unsigned name_bytes);
nvmlReturn_t nvmlDeviceGetUUID(nvmlDevice_t device, char *uuid, unsigned uuid_bytes);
nvmlReturn_t nvmlDeviceGetPciInfo_v3(nvmlDevice_t device, nvmlPciInfo_t *info);
nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t *memory);
nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t device, nvmlMemory_v2_t *memory);
nvmlReturn_t nvmlDeviceGetComputeRunningProcesses(nvmlDevice_t device, unsigned *count, nvmlProcessInfo_v1_t *list);
nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v3(nvmlDevice_t device, unsigned *count, nvmlProcessInfo_t *list);
nvmlReturn_t nvmlDeviceGetGraphicsRunningProcesses_v3(nvmlDevice_t device, unsigned *count, nvmlProcessInfo_t *list);
nvmlReturn_t nvmlDeviceGetCudaComputeCapability(nvmlDevice_t device, int *major, int *minor);

static int setup(void **state)
{
    (void)state;
    int result = stage_open("devices=2,memory=8GiB,baseline=100MiB,release=0,name=Some card");
    setenv("CUDA_VISIBLE_DEVICES", "1", 1); /* which NVML does not look at */
    return result;
}

static int teardown(void **state)
{
    (void)state;
    return stage_close();
}

static nvmlDevice_t device_get(unsigned index)
{
    nvmlDevice_t device = NULL;
    assert_int_equal(nvmlDeviceGetHandleByIndex_v2(index, &device), NVML_SUCCESS);
    return device;
}

static void devices_are_described(void **state)
{
    (void)state;
    unsigned count = 0, index = 9;
    char text[64];
    nvmlDevice_t device = NULL;
    nvmlPciInfo_t pci;
    int major, minor;
    assert_int_equal(nvmlDeviceGetCount_v2(&count), NVML_ERROR_UNINITIALIZED);
    assert_int_equal(nvmlInit_v2(), NVML_SUCCESS);
    assert_int_equal(nvmlDeviceGetCount_v2(&count), NVML_SUCCESS);
    assert_int_equal(count, 2);
    assert_int_equal(nvmlDeviceGetHandleByIndex_v2(2, &device), NVML_ERROR_INVALID_ARGUMENT);
    assert_int_equal(nvmlDeviceGetUUID(device_get(1), text, sizeof(text)), NVML_SUCCESS);
    assert_int_equal(nvmlDeviceGetHandleByUUID(text, &device), NVML_SUCCESS);
    assert_int_equal(nvmlDeviceGetIndex(device, &index), NVML_SUCCESS);
    assert_int_equal(index, 1);
    assert_int_equal(nvmlDeviceGetHandleByUUID("GPU-0", &device), NVML_ERROR_NOT_FOUND);
    assert_int_equal(nvmlDeviceGetPciInfo_v3(device_get(1), &pci), NVML_SUCCESS);
    assert_int_equal(nvmlDeviceGetHandleByPciBusId_v2(pci.busId, &device), NVML_SUCCESS);
    assert_ptr_equal(device, device_get(1));
    assert_int_equal(nvmlDeviceGetName(device, text, 5), NVML_ERROR_INSUFFICIENT_SIZE);
    assert_int_equal(nvmlDeviceGetName(device, text, sizeof(text)), NVML_SUCCESS);
    assert_string_equal(text, "Some card");
    assert_int_equal(nvmlDeviceGetCudaComputeCapability(device, &major, &minor), NVML_SUCCESS);
    assert_int_equal(major, 9);
    assert_int_equal(nvmlDeviceGetName(NULL, text, sizeof(text)), NVML_ERROR_INVALID_ARGUMENT);
    assert_int_equal(nvmlShutdown(), NVML_SUCCESS);
    assert_int_equal(nvmlShutdown(), NVML_ERROR_UNINITIALIZED);
}

static int ready[2];

/* A child that sees device 1 alone and holds a context and 3 GiB there. */
static pid_t holder_start(void)
{
    char byte;
    assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        CUcontext context;
        CUdeviceptr address;
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (cuInit(0) != CUDA_SUCCESS || cuCtxCreate_v2(&context, 0, 0) != CUDA_SUCCESS ||
            cuMemAlloc_v2(&address, 3 * GIB) != CUDA_SUCCESS || write(ready[1], "", 1) != 1)
            _exit(1);
        for (;;)
            pause();
    }
    close(ready[1]);
    assert_int_equal(read(ready[0], &byte, 1), 1);
    close(ready[0]);
    return child;
}

static void memory_and_processes_are_told(void **state)
{
    (void)state;
    nvmlMemory_t memory;
    nvmlMemory_v2_t memory_v2 = {.version = 0};
    nvmlProcessInfo_v1_t old_list[4];
    nvmlProcessInfo_t list[4];
    unsigned count = 0;
    assert_int_equal(nvmlInit_v2(), NVML_SUCCESS);
    pid_t holder = holder_start();
    assert_int_equal(nvmlDeviceGetMemoryInfo(device_get(1), &memory), NVML_SUCCESS);
    assert_int_equal(memory.total, 8 * GIB);
    assert_int_equal(memory.used, 3 * GIB + CONTEXT_BYTES + 100 * MIB);
    assert_int_equal(memory.free, memory.total - memory.used);
    assert_int_equal(nvmlDeviceGetMemoryInfo_v2(device_get(1), &memory_v2), NVML_ERROR_ARGUMENT_VERSION_MISMATCH);
    memory_v2.version = NVML_MEMORY_V2;
    assert_int_equal(nvmlDeviceGetMemoryInfo_v2(device_get(1), &memory_v2), NVML_SUCCESS);
    assert_int_equal(memory_v2.reserved, 100 * MIB);
    assert_int_equal(memory_v2.total, memory_v2.reserved + memory_v2.used + memory_v2.free);
    assert_int_equal(nvmlDeviceGetMemoryInfo(device_get(0), &memory), NVML_SUCCESS);
    assert_int_equal(memory.used, 100 * MIB);

    assert_int_equal(nvmlDeviceGetComputeRunningProcesses_v3(device_get(1), &count, NULL),
                     NVML_ERROR_INSUFFICIENT_SIZE);
    assert_int_equal(count, 1);
    count = 4;
    assert_int_equal(nvmlDeviceGetComputeRunningProcesses_v3(device_get(1), &count, list), NVML_SUCCESS);
    assert_int_equal(count, 1);
    assert_int_equal(list[0].pid, holder);
    assert_int_equal(list[0].usedGpuMemory, 3 * GIB + CONTEXT_BYTES);
    count = 4;
    assert_int_equal(nvmlDeviceGetComputeRunningProcesses(device_get(1), &count, old_list), NVML_SUCCESS);
    assert_int_equal(count, 1);
    assert_int_equal(old_list[0].usedGpuMemory, 3 * GIB + CONTEXT_BYTES);
    count = 4;
    assert_int_equal(nvmlDeviceGetComputeRunningProcesses_v3(device_get(0), &count, list), NVML_SUCCESS);
    assert_int_equal(count, 0);
    count = 4;
    assert_int_equal(nvmlDeviceGetGraphicsRunningProcesses_v3(device_get(1), &count, list), NVML_SUCCESS);
    assert_int_equal(count, 0);

    kill(holder, SIGKILL);
    waitpid(holder, NULL, 0);
    assert_int_equal(nvmlDeviceGetMemoryInfo(device_get(1), &memory), NVML_SUCCESS);
    assert_int_equal(memory.used, 100 * MIB);
    assert_int_equal(nvmlShutdown(), NVML_SUCCESS);
}

static void a_new_machine_is_found(void **state)
{
    (void)state;
    nvmlMemory_t memory;
    assert_int_equal(nvmlInit_v2(), NVML_SUCCESS);
    assert_int_equal(sim_machine_remove(stage_directory, "default"), 0);
    pid_t holder = holder_start();
    assert_int_equal(nvmlDeviceGetMemoryInfo(device_get(1), &memory), NVML_SUCCESS);
    assert_int_equal(memory.used, 3 * GIB + CONTEXT_BYTES + 100 * MIB);
    kill(holder, SIGKILL);
    waitpid(holder, NULL, 0);
    assert_int_equal(nvmlShutdown(), NVML_SUCCESS);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(devices_are_described, setup, teardown),
        cmocka_unit_test_setup_teardown(memory_and_processes_are_told, setup, teardown),
        cmocka_unit_test_setup_teardown(a_new_machine_is_found, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
