/*
 * Virtual memory management: physical memory by handle, and its mappings. Wrappers; account/handles.h has the rules. Charged at
 * cuMemCreate, to the device that the call names, in whatever context and in none; reserving addresses costs nothing.
 */
#include "config.h"

#include "account/handles.h"
#include "evict/agent.h"
#include "platform/gate.h"
#include "interpose/hooks.h"

static CUresult create_charged(const struct driver *driver, CUmemGenericAllocationHandle *handle, size_t bytes,
                               const CUmemAllocationProp *prop, unsigned long long flags)
{
    struct charge charge;
    bool passes;
    if (!account_ask_device(prop->location.id, LEDGER_KIND_VMM, bytes, &charge, &passes))
        return passes ? driver->cuMemCreate(handle, bytes, prop, flags) : CUDA_ERROR_OUT_OF_MEMORY;
    CUresult result = driver->cuMemCreate(handle, bytes, prop, flags);
    if (result != CUDA_SUCCESS)
        account_abandon(&charge);
    else if (handle_record(&charge, *handle))
        agent_start();
    return result;
}

/* Memory on the host costs the device nothing; arguments that are missing are the driver's to refuse. */
CUresult cuMemCreate(CUmemGenericAllocationHandle *handle, size_t bytes, const CUmemAllocationProp *prop,
                     unsigned long long flags)
{
    const struct driver *driver = driver_get();
    if (driver == NULL || driver->cuMemCreate == NULL)
        return CUDA_ERROR_NOT_INITIALIZED;
    if (!gate_enter())
        return driver->cuMemCreate(handle, bytes, prop, flags);
    CUresult result;
    if (handle != NULL && prop != NULL && prop->location.type == CU_MEM_LOCATION_TYPE_DEVICE)
        result = create_charged(driver, handle, bytes, prop, flags);
    else {
        result = driver->cuMemCreate(handle, bytes, prop, flags);
        if (result == CUDA_SUCCESS)
            handle_forget(*handle);
    }
    gate_leave();
    return result;
}

CUresult cuMemRelease(CUmemGenericAllocationHandle handle)
{
    const struct driver *driver = driver_get();
    if (driver == NULL || driver->cuMemRelease == NULL)
        return CUDA_ERROR_NOT_INITIALIZED;
    if (!gate_enter())
        return driver->cuMemRelease(handle);
    memory_name name = handle_release_begin(handle);
    account_leaving(+1);
    CUresult result = driver->cuMemRelease(handle);
    handle_release_end(name, handle, result == CUDA_SUCCESS);
    account_leaving(-1);
    gate_leave();
    return result;
}

CUresult cuMemMap(CUdeviceptr address, size_t bytes, size_t offset, CUmemGenericAllocationHandle handle,
                  unsigned long long flags)
{
    const struct driver *driver = driver_get();
    if (driver == NULL || driver->cuMemMap == NULL)
        return CUDA_ERROR_NOT_INITIALIZED;
    if (!gate_enter())
        return driver->cuMemMap(address, bytes, offset, handle, flags);
    struct mapping_begun begun = handle_map_begin(handle, address, bytes);
    CUresult result = driver->cuMemMap(address, bytes, offset, handle, flags);
    handle_map_end(&begun, address, bytes, result == CUDA_SUCCESS);
    gate_leave();
    return result;
}

CUresult cuMemUnmap(CUdeviceptr address, size_t bytes)
{
    const struct driver *driver = driver_get();
    if (driver == NULL || driver->cuMemUnmap == NULL)
        return CUDA_ERROR_NOT_INITIALIZED;
    if (!gate_enter())
        return driver->cuMemUnmap(address, bytes);
    account_leaving(+1);
    CUresult result = driver->cuMemUnmap(address, bytes);
    if (result == CUDA_SUCCESS)
        handle_unmapped(address, bytes);
    account_leaving(-1);
    gate_leave();
    return result;
}

CUresult cuMemRetainAllocationHandle(CUmemGenericAllocationHandle *handle, void *address)
{
    const struct driver *driver = driver_get();
    if (driver == NULL || driver->cuMemRetainAllocationHandle == NULL)
        return CUDA_ERROR_NOT_INITIALIZED;
    if (!gate_enter())
        return driver->cuMemRetainAllocationHandle(handle, address);
    memory_name name = handle_retain_begin((uintptr_t)address);
    CUresult result = driver->cuMemRetainAllocationHandle(handle, address);
    handle_retain_end(name, result == CUDA_SUCCESS ? *handle : 0, result == CUDA_SUCCESS);
    gate_leave();
    return result;
}

/* A multicast object holds no memory of its own, and is released by cuMemRelease. */
CUresult cuMulticastCreate(CUmemGenericAllocationHandle *handle, const CUmulticastObjectProp *prop)
{
    const struct driver *driver = driver_get();
    if (driver == NULL || driver->cuMulticastCreate == NULL)
        return CUDA_ERROR_NOT_INITIALIZED;
    if (!gate_enter())
        return driver->cuMulticastCreate(handle, prop);
    CUresult result = driver->cuMulticastCreate(handle, prop);
    if (result == CUDA_SUCCESS)
        handle_forget(*handle);
    gate_leave();
    return result;
}
