/*
 * Modules and libraries: loaded and unloaded. Wrappers; account.h says how, image_cost.h what is predicted. Code that is loaded
 * later, at the first use of a function, is small and shows as drift.
 */
#include "config.h"

#include "account/account.h"
#include "account/image_cost.h"
#include "platform/gate.h"
#include "interpose/hooks.h"

/* --- modules -------------------------------------------------------------------------------------------------------------- */

/* The arguments of the four functions that load one; what one does not have is 0. */
struct loading {
    CUmodule *module;
    const void *image; /* or the path */
    unsigned int count;
    CUjit_option *options;
    void **values;
};

typedef CUresult loading_call(const struct driver *driver, const struct loading *loading);

/* A module that is loaded and turns out bigger than was asked for, where that does not fit at once, is unloaded again: *module is as it
 * was, and *lacking what it takes. */
static CUresult module_settle(const struct driver *driver, const struct loading *loading, CUmodule before,
                              struct measured_charge *measured, uint64_t *lacking)
{
    uint64_t bytes = measured_cost(measured);
    if (!measured_extend(measured, bytes)) {
        (void)driver->cuModuleUnload(*loading->module);
        *loading->module = before;
        account_abandon(&measured->charge);
        *lacking = bytes;
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    measured_record(measured, (uintptr_t)*loading->module, bytes);
    return CUDA_SUCCESS;
}

/* Loads with `bytes` asked for before. */
static CUresult module_try(const struct driver *driver, const struct loading *loading, loading_call *call,
                           uint64_t bytes, uint64_t *lacking)
{
    struct measured_charge measured;
    bool passes;
    CUmodule before = *loading->module;
    *lacking = 0;
    if (!measured_ask(driver, LEDGER_KIND_MODULE, bytes, &measured, &passes))
        return passes ? call(driver, loading) : CUDA_ERROR_OUT_OF_MEMORY;
    CUresult result = call(driver, loading);
    if (result == CUDA_SUCCESS)
        return module_settle(driver, loading, before, &measured, lacking);
    measured_abandon(&measured);
    return result;
}

static CUresult module_load(const struct loading *loading, loading_call *call, uint64_t (*cost)(const void *))
{
    const struct driver *driver = driver_get();
    uint64_t lacking;
    if (driver == NULL)
        return CUDA_ERROR_NOT_INITIALIZED;
    if (!gate_enter())
        return call(driver, loading);
    CUresult result;
    if (loading->module != NULL && loading->image != NULL) {
        result = module_try(driver, loading, call, cost(loading->image), &lacking);
        if (lacking != 0) /* now that it is known what it takes, that can be waited for before it is taken */
            result = module_try(driver, loading, call, lacking, &lacking);
    } else
        result = call(driver, loading); /* the driver is to refuse */
    gate_leave();
    return result;
}

static uint64_t cost_of_file(const void *path)
{
    return image_cost_of_file(path);
}

static CUresult call_load(const struct driver *driver, const struct loading *loading)
{
    return driver->cuModuleLoad(loading->module, loading->image);
}

CUresult cuModuleLoad(CUmodule *module, const char *path)
{
    return module_load(&(struct loading){.module = module, .image = path}, call_load, cost_of_file);
}

static CUresult call_load_data(const struct driver *driver, const struct loading *loading)
{
    return driver->cuModuleLoadData(loading->module, loading->image);
}

CUresult cuModuleLoadData(CUmodule *module, const void *image)
{
    return module_load(&(struct loading){.module = module, .image = image}, call_load_data, image_cost);
}

static CUresult call_load_data_ex(const struct driver *driver, const struct loading *loading)
{
    return driver->cuModuleLoadDataEx(loading->module, loading->image, loading->count, loading->options,
                                      loading->values);
}

CUresult cuModuleLoadDataEx(CUmodule *module, const void *image, unsigned int count, CUjit_option *options,
                            void **values)
{
    struct loading loading = {.module = module, .image = image, .count = count, .options = options, .values = values};
    return module_load(&loading, call_load_data_ex, image_cost);
}

static CUresult call_load_fat(const struct driver *driver, const struct loading *loading)
{
    return driver->cuModuleLoadFatBinary(loading->module, loading->image);
}

CUresult cuModuleLoadFatBinary(CUmodule *module, const void *image)
{
    return module_load(&(struct loading){.module = module, .image = image}, call_load_fat, image_cost);
}

typedef CUresult unloading_call(const struct driver *driver, void *handle);

/* A module or a library goes, with what it was charged. */
static CUresult code_unload(void *handle, unloading_call *call)
{
    const struct driver *driver = driver_get();
    if (driver == NULL)
        return CUDA_ERROR_NOT_INITIALIZED;
    if (!gate_enter())
        return call(driver, handle);
    account_leaving(+1);
    uint64_t aside = account_ending((uintptr_t)handle);
    CUresult result = call(driver, handle);
    account_ended((uintptr_t)handle, aside, result == CUDA_SUCCESS);
    account_leaving(-1);
    gate_leave();
    return result;
}

static CUresult call_unload(const struct driver *driver, void *handle)
{
    return driver->cuModuleUnload(handle);
}

CUresult cuModuleUnload(CUmodule module)
{
    return code_unload(module, call_unload);
}

/* --- libraries -------------------------------------------------------------------------------------------------------------- */

/* The arguments of the two functions that load one. */
struct library_loading {
    CUlibrary *library;
    const void *image; /* or the path */
    CUjit_option *options;
    void **values;
    unsigned int count;
    CUlibraryOption *library_options;
    void **library_values;
    unsigned int library_count;
};

typedef CUresult library_call(const struct driver *driver, const struct library_loading *loading);

static CUresult library_load(const struct library_loading *loading, library_call *call, uint64_t (*cost)(const void *))
{
    const struct driver *driver = driver_get();
    struct charge charge;
    bool passes;
    if (driver == NULL)
        return CUDA_ERROR_NOT_INITIALIZED;
    if (!gate_enter())
        return call(driver, loading);
    CUresult result = CUDA_ERROR_OUT_OF_MEMORY;
    bool asks = loading->library != NULL && loading->image != NULL;
    if (account_ask(driver, LEDGER_KIND_MODULE, asks ? cost(loading->image) : 0, &charge, &passes)) {
        result = call(driver, loading);
        if (result == CUDA_SUCCESS)
            library_record(&charge, (uintptr_t)*loading->library);
        else
            account_abandon(&charge);
    } else if (passes)
        result = call(driver, loading);
    gate_leave();
    return result;
}

static CUresult call_library_data(const struct driver *driver, const struct library_loading *loading)
{
    if (driver->cuLibraryLoadData == NULL)
        return CUDA_ERROR_NOT_SUPPORTED;
    return driver->cuLibraryLoadData(loading->library, loading->image, loading->options, loading->values,
                                     loading->count, loading->library_options, loading->library_values,
                                     loading->library_count);
}

CUresult cuLibraryLoadData(CUlibrary *library, const void *image, CUjit_option *options, void **values,
                           unsigned int count, CUlibraryOption *library_options, void **library_values,
                           unsigned int library_count)
{
    struct library_loading loading = {library, image,           options,        values,
                                      count,   library_options, library_values, library_count};
    return library_load(&loading, call_library_data, image_cost);
}

static CUresult call_library_file(const struct driver *driver, const struct library_loading *loading)
{
    if (driver->cuLibraryLoadFromFile == NULL)
        return CUDA_ERROR_NOT_SUPPORTED;
    return driver->cuLibraryLoadFromFile(loading->library, loading->image, loading->options, loading->values,
                                         loading->count, loading->library_options, loading->library_values,
                                         loading->library_count);
}

CUresult cuLibraryLoadFromFile(CUlibrary *library, const char *path, CUjit_option *options, void **values,
                               unsigned int count, CUlibraryOption *library_options, void **library_values,
                               unsigned int library_count)
{
    struct library_loading loading = {library,         path,           options,      values, count,
                                      library_options, library_values, library_count};
    return library_load(&loading, call_library_file, cost_of_file);
}

static CUresult call_library_unload(const struct driver *driver, void *handle)
{
    return driver->cuLibraryUnload != NULL ? driver->cuLibraryUnload(handle) : CUDA_ERROR_NOT_SUPPORTED;
}

CUresult cuLibraryUnload(CUlibrary library)
{
    return code_unload(library, call_library_unload);
}
