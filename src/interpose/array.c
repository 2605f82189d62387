/* Arrays and mipmapped arrays, made and destroyed. Wrappers; account.h says how, array_cost.h what they take. */
#include "config.h"

#include "account/account.h"
#include "account/array_cost.h"
#include "platform/gate.h"
#include "interpose/hooks.h"

/* The arguments of the five functions that make one, each with its own descriptor. */
struct making {
    void *handle; /* where the driver writes the array or the mipmapped array */
    const void *descriptor;
    unsigned int levels;
};

typedef CUresult making_call(const struct driver *driver, const struct making *making);

/* One charged array of the shape in `wide`, which is NULL where the driver is to refuse by itself. */
static CUresult array_make(const struct making *making, making_call *call, const CUDA_ARRAY3D_DESCRIPTOR *wide)
{
    const struct driver *driver = driver_get();
    struct array_charge array;
    bool passes;
    if (driver == NULL)
        return CUDA_ERROR_NOT_INITIALIZED;
    if (!gate_enter())
        return call(driver, making);
    CUresult result = CUDA_ERROR_OUT_OF_MEMORY;
    uint64_t bytes = wide != NULL && making->handle != NULL ? array_cost(wide, making->levels) : 0;
    if (array_ask(driver, bytes, &array, &passes)) {
        result = call(driver, making);
        if (result == CUDA_SUCCESS)
            array_record(&array, (uintptr_t) * (void **)making->handle);
        else {
            account_abandon(&array.charge);
            array_abandon(&array);
        }
    } else if (passes)
        result = call(driver, making);
    gate_leave();
    return result;
}

static CUresult call_3d_v2(const struct driver *driver, const struct making *making)
{
    return driver->cuArray3DCreate_v2 != NULL ? driver->cuArray3DCreate_v2(making->handle, making->descriptor)
                                              : CUDA_ERROR_NOT_SUPPORTED;
}

CUresult cuArray3DCreate_v2(CUarray *array, const CUDA_ARRAY3D_DESCRIPTOR *descriptor)
{
    return array_make(&(struct making){.handle = array, .descriptor = descriptor, .levels = 1}, call_3d_v2, descriptor);
}

static CUresult call_3d(const struct driver *driver, const struct making *making)
{
    return driver->cuArray3DCreate != NULL ? driver->cuArray3DCreate(making->handle, making->descriptor)
                                           : CUDA_ERROR_NOT_SUPPORTED;
}

CUresult cuArray3DCreate(CUarray *array, const CUDA_ARRAY3D_DESCRIPTOR_v1 *descriptor)
{
    struct making making = {.handle = array, .descriptor = descriptor, .levels = 1};
    if (descriptor == NULL)
        return array_make(&making, call_3d, NULL);
    CUDA_ARRAY3D_DESCRIPTOR wide = {.Width = descriptor->Width,
                                    .Height = descriptor->Height,
                                    .Depth = descriptor->Depth,
                                    .Format = descriptor->Format,
                                    .NumChannels = descriptor->NumChannels,
                                    .Flags = descriptor->Flags};
    return array_make(&making, call_3d, &wide);
}

static CUresult call_2d_v2(const struct driver *driver, const struct making *making)
{
    return driver->cuArrayCreate_v2 != NULL ? driver->cuArrayCreate_v2(making->handle, making->descriptor)
                                            : CUDA_ERROR_NOT_SUPPORTED;
}

CUresult cuArrayCreate_v2(CUarray *array, const CUDA_ARRAY_DESCRIPTOR *descriptor)
{
    struct making making = {.handle = array, .descriptor = descriptor, .levels = 1};
    if (descriptor == NULL)
        return array_make(&making, call_2d_v2, NULL);
    CUDA_ARRAY3D_DESCRIPTOR wide = {.Width = descriptor->Width,
                                    .Height = descriptor->Height,
                                    .Format = descriptor->Format,
                                    .NumChannels = descriptor->NumChannels};
    return array_make(&making, call_2d_v2, &wide);
}

static CUresult call_2d(const struct driver *driver, const struct making *making)
{
    return driver->cuArrayCreate != NULL ? driver->cuArrayCreate(making->handle, making->descriptor)
                                         : CUDA_ERROR_NOT_SUPPORTED;
}

CUresult cuArrayCreate(CUarray *array, const CUDA_ARRAY_DESCRIPTOR_v1 *descriptor)
{
    struct making making = {.handle = array, .descriptor = descriptor, .levels = 1};
    if (descriptor == NULL)
        return array_make(&making, call_2d, NULL);
    CUDA_ARRAY3D_DESCRIPTOR wide = {.Width = descriptor->Width,
                                    .Height = descriptor->Height,
                                    .Format = descriptor->Format,
                                    .NumChannels = descriptor->NumChannels};
    return array_make(&making, call_2d, &wide);
}

static CUresult call_mipmap(const struct driver *driver, const struct making *making)
{
    return driver->cuMipmappedArrayCreate != NULL
               ? driver->cuMipmappedArrayCreate(making->handle, making->descriptor, making->levels)
               : CUDA_ERROR_NOT_SUPPORTED;
}

CUresult cuMipmappedArrayCreate(CUmipmappedArray *mipmap, const CUDA_ARRAY3D_DESCRIPTOR *descriptor,
                                unsigned int levels)
{
    struct making making = {.handle = mipmap, .descriptor = descriptor, .levels = levels};
    return array_make(&making, call_mipmap, descriptor);
}

/* --- destroying --------------------------------------------------------------------------------------------------------- */

typedef CUresult ending_call(const struct driver *driver, void *handle);

static CUresult array_end(void *handle, ending_call *call)
{
    const struct driver *driver = driver_get();
    struct array_ending ending;
    if (driver == NULL)
        return CUDA_ERROR_NOT_INITIALIZED;
    if (!gate_enter())
        return call(driver, handle);
    array_ending_begin((uintptr_t)handle, &ending);
    account_leaving(!ending.small);
    CUresult result = call(driver, handle);
    array_ending_end(&ending, result == CUDA_SUCCESS);
    account_leaving(-!ending.small);
    gate_leave();
    return result;
}

static CUresult call_destroy(const struct driver *driver, void *handle)
{
    return driver->cuArrayDestroy != NULL ? driver->cuArrayDestroy(handle) : CUDA_ERROR_NOT_SUPPORTED;
}

CUresult cuArrayDestroy(CUarray array)
{
    return array_end(array, call_destroy);
}

static CUresult call_destroy_mipmap(const struct driver *driver, void *handle)
{
    return driver->cuMipmappedArrayDestroy != NULL ? driver->cuMipmappedArrayDestroy(handle) : CUDA_ERROR_NOT_SUPPORTED;
}

CUresult cuMipmappedArrayDestroy(CUmipmappedArray mipmap)
{
    return array_end(mipmap, call_destroy_mipmap);
}
