/* A driver that does nothing; fake_driver.h says who uses it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "unit/fake_driver.h"
#include "unit/scene.h"

int fake_devices = 1;
CUcontext fake_current;

static CUresult fake_count(int *count)
{
    *count = fake_devices;
    return CUDA_SUCCESS;
}

static CUresult fake_get(CUdevice *device, int ordinal)
{
    *device = ordinal;
    return CUDA_SUCCESS;
}

static CUresult fake_uuid(CUuuid *uuid, CUdevice device)
{
    memset(uuid, 7 + device, sizeof *uuid);
    return CUDA_SUCCESS;
}

static CUresult fake_total(size_t *bytes, CUdevice device)
{
    (void)device;
    *bytes = 24 * GIB;
    return CUDA_SUCCESS;
}

static CUresult fake_name(char *name, int bytes, CUdevice device)
{
    (void)device;
    assert_true(bytes > 4);
    memcpy(name, "fake", 5);
    return CUDA_SUCCESS;
}

static CUresult fake_attribute(int *value, int attribute, CUdevice device)
{
    (void)device;
    *value = attribute == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR ? 9 : 0;
    return CUDA_SUCCESS;
}

static CUresult fake_context(CUcontext *context)
{
    *context = fake_current;
    return CUDA_SUCCESS;
}

static CUresult fake_device(CUdevice *device)
{
    *device = 0;
    return fake_current != NULL ? CUDA_SUCCESS : CUDA_ERROR_INVALID_CONTEXT;
}

const struct driver fake_driver = {
    .cuDeviceGetCount = fake_count,
    .cuDeviceGet = fake_get,
    .cuDeviceGetUuid_v2 = fake_uuid,
    .cuDeviceTotalMem_v2 = fake_total,
    .cuDeviceGetName = fake_name,
    .cuDeviceGetAttribute = fake_attribute,
    .cuCtxGetCurrent = fake_context,
    .cuCtxGetDevice = fake_device,
};
