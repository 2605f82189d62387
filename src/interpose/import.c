/*
 * Memory that crosses between processes and interfaces. Wrappers; account/handles.h has the rules. An import is never charged:
 * who made the memory is. But memory of this very process that comes back to it is held once more, and goes on being charged.
 */
#include "config.h"

#include <string.h>
#include "account/handles.h"
#include "platform/gate.h"
#include "interpose/hooks.h"

enum { FABRIC_BYTES = 64 };

/* How a thing of that type is known again. False: it is of a type that is not followed. FNV-1a. */
static bool shareable_read(const void *bytes, int descriptor, int type, struct shareable *shareable)
{
    *shareable = (struct shareable){.descriptor = -1};
    if (type == CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR) {
        shareable->is_descriptor = true;
        shareable->descriptor = descriptor;
        return true;
    }
    if (type != CU_MEM_HANDLE_TYPE_FABRIC || bytes == NULL)
        return false;
    shareable->digest = 0xcbf29ce484222325ULL;
    for (unsigned i = 0; i < FABRIC_BYTES; i++)
        shareable->digest = (shareable->digest ^ ((const unsigned char *)bytes)[i]) * 0x100000001b3ULL;
    return true;
}

CUresult cuMemExportToShareableHandle(void *exported, CUmemGenericAllocationHandle handle, int type,
                                      unsigned long long flags)
{
    const struct driver *driver = driver_get();
    struct shareable shareable;
    int descriptor = -1;
    if (driver == NULL || driver->cuMemExportToShareableHandle == NULL)
        return CUDA_ERROR_NOT_INITIALIZED;
    if (!gate_enter())
        return driver->cuMemExportToShareableHandle(exported, handle, type, flags);
    memory_name name = handle_export_begin(handle);
    CUresult result = driver->cuMemExportToShareableHandle(exported, handle, type, flags);
    if (result == CUDA_SUCCESS && type == CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR)
        memcpy(&descriptor, exported, sizeof descriptor);
    bool followed = result == CUDA_SUCCESS && shareable_read(exported, descriptor, type, &shareable);
    handle_export_end(name, &shareable, followed);
    gate_leave();
    return result;
}

CUresult cuMemImportFromShareableHandle(CUmemGenericAllocationHandle *handle, void *shared, int type)
{
    const struct driver *driver = driver_get();
    struct shareable shareable;
    memory_name name = 0;
    if (driver == NULL || driver->cuMemImportFromShareableHandle == NULL)
        return CUDA_ERROR_NOT_INITIALIZED;
    if (!gate_enter())
        return driver->cuMemImportFromShareableHandle(handle, shared, type);
    /* A descriptor is passed in place of the pointer. */
    if (shareable_read(shared, (int)(intptr_t)shared, type, &shareable))
        name = handle_import_begin(&shareable);
    CUresult result = driver->cuMemImportFromShareableHandle(handle, shared, type);
    handle_import_end(name, result == CUDA_SUCCESS ? *handle : 0, result == CUDA_SUCCESS);
    gate_leave();
    return result;
}

/* --- external memory ----------------------------------------------------------------------------------------------------- */

CUresult cuImportExternalMemory(CUexternalMemory *external, const CUDA_EXTERNAL_MEMORY_HANDLE_DESC *description)
{
    const struct driver *driver = driver_get();
    struct shareable shareable = {.descriptor = -1};
    memory_name name = 0;
    if (driver == NULL || driver->cuImportExternalMemory == NULL)
        return CUDA_ERROR_NOT_INITIALIZED;
    if (!gate_enter())
        return driver->cuImportExternalMemory(external, description);
    if (description != NULL && description->type == CU_EXTERNAL_MEMORY_HANDLE_TYPE_OPAQUE_FD &&
        shareable_read(NULL, description->handle.fd, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, &shareable))
        name = handle_import_begin(&shareable);
    CUresult result = driver->cuImportExternalMemory(external, description);
    external_import_end(driver, name, result == CUDA_SUCCESS ? (uintptr_t)*external : 0, result == CUDA_SUCCESS,
                        &shareable);
    gate_leave();
    return result;
}

CUresult cuDestroyExternalMemory(CUexternalMemory external)
{
    const struct driver *driver = driver_get();
    if (driver == NULL || driver->cuDestroyExternalMemory == NULL)
        return CUDA_ERROR_NOT_INITIALIZED;
    if (!gate_enter())
        return driver->cuDestroyExternalMemory(external);
    memory_name name = external_destroy_begin((uintptr_t)external);
    CUresult result = driver->cuDestroyExternalMemory(external);
    external_destroy_end(name, (uintptr_t)external, result == CUDA_SUCCESS);
    gate_leave();
    return result;
}

/* The buffer is freed by cuMemFree, and outlives the object it was mapped from (measured). */
CUresult cuExternalMemoryGetMappedBuffer(CUdeviceptr *buffer, CUexternalMemory external,
                                         const CUDA_EXTERNAL_MEMORY_BUFFER_DESC *description)
{
    const struct driver *driver = driver_get();
    if (driver == NULL || driver->cuExternalMemoryGetMappedBuffer == NULL)
        return CUDA_ERROR_NOT_INITIALIZED;
    if (!gate_enter())
        return driver->cuExternalMemoryGetMappedBuffer(buffer, external, description);
    memory_name name = external_buffer_begin((uintptr_t)external);
    CUresult result = driver->cuExternalMemoryGetMappedBuffer(buffer, external, description);
    if (result == CUDA_SUCCESS)
        account_imported(*buffer);
    external_buffer_end(driver, name, result == CUDA_SUCCESS ? *buffer : 0, result == CUDA_SUCCESS);
    gate_leave();
    return result;
}

/* --- what only comes by an address ----------------------------------------------------------------------------------------- */

/* After a call that made another's memory visible at *pointer; `outermost` is what gate_enter said before it. */
static CUresult address_came(bool outermost, CUresult result, const CUdeviceptr *pointer)
{
    if (!outermost)
        return result;
    if (result == CUDA_SUCCESS && pointer != NULL)
        account_imported(*pointer);
    gate_leave();
    return result;
}

CUresult cuIpcOpenMemHandle(CUdeviceptr *pointer, CUipcMemHandle handle, unsigned int flags)
{
    const struct driver *driver = driver_get();
    if (driver == NULL || driver->cuIpcOpenMemHandle == NULL)
        return CUDA_ERROR_NOT_INITIALIZED;
    bool outermost = gate_enter();
    return address_came(outermost, driver->cuIpcOpenMemHandle(pointer, handle, flags), pointer);
}

CUresult cuIpcOpenMemHandle_v2(CUdeviceptr *pointer, CUipcMemHandle handle, unsigned int flags)
{
    const struct driver *driver = driver_get();
    if (driver == NULL || driver->cuIpcOpenMemHandle_v2 == NULL)
        return CUDA_ERROR_NOT_INITIALIZED;
    bool outermost = gate_enter();
    return address_came(outermost, driver->cuIpcOpenMemHandle_v2(pointer, handle, flags), pointer);
}

CUresult cuMemPoolImportPointer(CUdeviceptr *pointer, CUmemoryPool pool, CUmemPoolPtrExportData *shared)
{
    const struct driver *driver = driver_get();
    if (driver == NULL || driver->cuMemPoolImportPointer == NULL)
        return CUDA_ERROR_NOT_INITIALIZED;
    bool outermost = gate_enter();
    return address_came(outermost, driver->cuMemPoolImportPointer(pointer, pool, shared), pointer);
}

CUresult cuGraphicsResourceGetMappedPointer_v2(CUdeviceptr *pointer, size_t *bytes, CUgraphicsResource resource)
{
    const struct driver *driver = driver_get();
    if (driver == NULL || driver->cuGraphicsResourceGetMappedPointer_v2 == NULL)
        return CUDA_ERROR_NOT_INITIALIZED;
    bool outermost = gate_enter();
    return address_came(outermost, driver->cuGraphicsResourceGetMappedPointer_v2(pointer, bytes, resource), pointer);
}
