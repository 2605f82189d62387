/*
 * Libraries: images that belong to no context. Loading one takes nothing of the card; a kernel's function, or the module, first asked
 * for in a context loads it there, as measured (a global variable of 64 MiB: nothing at cuLibraryLoadData and cuLibraryGetKernel,
 * 64 MiB at cuKernelGetFunction). A handle is valid if it is in its list. All under sim_lock.
 */
#include "sim/module.h"

#include <stdlib.h>
#include <sys/stat.h>

struct CUlib_st {
    CUlibrary next;
    bool loaded;
    uint64_t bytes; /* what a module of it takes */
};

struct CUkern_st {
    CUkernel next;
    CUlibrary library;
    const struct kernel *kernel;
};

static CUlibrary libraries;
static CUkernel kernels;

static bool library_is_live(CUlibrary library)
{
    CUlibrary known = libraries;
    while (known && known != library)
        known = known->next;
    return known && known->loaded;
}

static bool kernel_is_live(CUkernel kernel)
{
    CUkernel known = kernels;
    while (known && known != kernel)
        known = known->next;
    return known && library_is_live(known->library);
}

static CUresult library_load(CUlibrary *library, uint64_t bytes, CUresult after)
{
    if (after != CUDA_SUCCESS)
        return after;
    sim_lock();
    CUlibrary made = libraries;
    while (made && made->loaded)
        made = made->next;
    if (!made && (made = calloc(1, sizeof(*made))) != NULL) {
        made->next = libraries;
        libraries = made;
    }
    if (made) {
        made->loaded = true;
        made->bytes = bytes;
    }
    sim_unlock();
    if (!made)
        return CUDA_ERROR_OUT_OF_MEMORY;
    *library = made;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuLibraryLoadData(CUlibrary *library, const void *image, CUjit_option *options, void **values,
                                   unsigned count, CUlibraryOption *library_options, void **library_values,
                                   unsigned library_count)
{
    SIM_ENTER_MAKING(after);
    if (!library || !image || (count && (!options || !values)) ||
        (library_count && (!library_options || !library_values)))
        return CUDA_ERROR_INVALID_VALUE;
    return *(const char *)image ? library_load(library, image_bytes(image), after) : CUDA_ERROR_INVALID_IMAGE;
}

SIM_API CUresult cuLibraryLoadFromFile(CUlibrary *library, const char *path, CUjit_option *options, void **values,
                                       unsigned count, CUlibraryOption *library_options, void **library_values,
                                       unsigned library_count)
{
    SIM_ENTER_MAKING(after);
    struct stat status;
    if (!library || !path || (count && (!options || !values)) ||
        (library_count && (!library_options || !library_values)))
        return CUDA_ERROR_INVALID_VALUE;
    if (stat(path, &status) != 0)
        return CUDA_ERROR_FILE_NOT_FOUND;
    return status.st_size > 0 ? library_load(library, sim_process.options.module_bytes, after)
                              : CUDA_ERROR_INVALID_IMAGE;
}

SIM_API CUresult cuLibraryUnload(CUlibrary library)
{
    SIM_ENTER();
    uint64_t address = 0;
    bool more = true;
    sim_lock();
    bool live = library_is_live(library);
    if (live)
        library->loaded = false;
    for (CUkernel *link = &kernels; live && *link;) {
        CUkernel kernel = *link;
        if (kernel->library != library) {
            link = &kernel->next;
            continue;
        }
        *link = kernel->next;
        free(kernel);
    }
    sim_unlock();
    while (live && more) {
        sim_lock();
        more = module_end_of_library(library, &address);
        sim_unlock();
        memory_free(more ? address : 0);
    }
    return live ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

/* The same handle each time. */
SIM_API CUresult cuLibraryGetKernel(CUkernel *kernel, CUlibrary library, const char *name)
{
    SIM_ENTER();
    if (!kernel || !name)
        return CUDA_ERROR_INVALID_VALUE;
    const struct kernel *named = kernel_find(name);
    sim_lock();
    bool live = library_is_live(library);
    CUkernel made = live && named ? kernels : NULL;
    while (made && (made->library != library || made->kernel != named))
        made = made->next;
    if (live && named && !made && (made = calloc(1, sizeof(*made))) != NULL) {
        *made = (struct CUkern_st){.next = kernels, .library = library, .kernel = named};
        kernels = made;
    }
    sim_unlock();
    if (!live)
        return CUDA_ERROR_INVALID_HANDLE;
    if (!named)
        return CUDA_ERROR_NOT_FOUND;
    if (!made)
        return CUDA_ERROR_OUT_OF_MEMORY;
    *kernel = made;
    return CUDA_SUCCESS;
}

/* The module of a library in the current context, loaded there if it is not yet. */
static CUresult library_module(CUlibrary library, CUcontext context, CUmodule *module)
{
    sim_lock();
    bool live = library_is_live(library);
    CUmodule found = live ? module_of_library(library, context) : NULL;
    uint64_t bytes = live ? library->bytes : 0;
    sim_unlock();
    if (!live)
        return CUDA_ERROR_INVALID_HANDLE;
    *module = found;
    return found ? CUDA_SUCCESS : module_load(context, bytes, library, module, CUDA_SUCCESS);
}

SIM_API CUresult cuLibraryGetModule(CUmodule *module, CUlibrary library)
{
    SIM_ENTER_CONTEXT(context);
    CUmodule found;
    if (!module)
        return CUDA_ERROR_INVALID_VALUE;
    CUresult result = library_module(library, context, &found);
    if (result == CUDA_SUCCESS)
        *module = found;
    return result;
}

SIM_API CUresult cuKernelGetFunction(CUfunction *function, CUkernel kernel)
{
    SIM_ENTER_CONTEXT(context);
    CUmodule module;
    if (!function)
        return CUDA_ERROR_INVALID_VALUE;
    sim_lock();
    bool live = kernel_is_live(kernel);
    CUlibrary library = live ? kernel->library : NULL;
    const struct kernel *named = live ? kernel->kernel : NULL;
    sim_unlock();
    CUresult result = live ? library_module(library, context, &module) : CUDA_ERROR_INVALID_HANDLE;
    if (result != CUDA_SUCCESS)
        return result;
    sim_lock();
    CUfunction found = function_of(module, named);
    sim_unlock();
    if (!found)
        return CUDA_ERROR_OUT_OF_MEMORY;
    *function = found;
    return CUDA_SUCCESS;
}
