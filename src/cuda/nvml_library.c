/* The real NVML's entry points; nvml_library.h has who calls it and what synchronises it. */
#include "config.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/mman.h>
#include "cuda/driver.h"
#include "cuda/nvml_library.h"
#include "cuda/object.h"

static _Atomic(const struct nvml_library *) current;

static uintptr_t entry_of(const struct nvml_library *library)
{
    return (uintptr_t)(library->nvmlInit_v2 != NULL ? library->nvmlInit_v2 : library->nvmlInit);
}

static nvmlReturn_t deinitialized(void)
{
    return NVML_ERROR_UNINITIALIZED;
}

void nvml_library_deinitialize(void)
{
    const struct nvml_library *library = nvml_library_bound();
    for (size_t at = 0; at < offsetof(struct nvml_library, first) && library != NULL; at += sizeof(uintptr_t)) {
        _Atomic(uintptr_t) *entry = (_Atomic(uintptr_t) *)(uintptr_t)((const char *)library + at);
        atomic_store(entry, (uintptr_t)deinitialized);
    }
}

/* Publishes the table of the NVML open at `handle`, which stays open for good. */
static void handle_bind(void *handle)
{
    const struct nvml_library *none = NULL;
    dlsym_function *find = dlsym_real(); /* ours would find our own functions */
    struct nvml_library *library =
        mmap(NULL, sizeof *library, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (library == MAP_FAILED)
        return;
#define NVML_WRAP(symbol, parameters) *(void **)(void *)&library->symbol = find(handle, #symbol);
#define NVML_CALL(symbol, parameters) *(void **)(void *)&library->symbol = find(handle, #symbol);
#include "interpose/nvml_hooks.def"
    (void)dlerror(); /* names that an old NVML lacks: not an error of the program's */
    (void)object_range_find(entry_of(library), &library->first, &library->last);
    if (entry_of(library) == 0 || !atomic_compare_exchange_strong(&current, &none, library))
        (void)munmap(library, sizeof *library);
    else if (driver_is_deinitialized())
        nvml_library_deinitialize();
}

const struct nvml_library *nvml_library_bound(void)
{
    return atomic_load_explicit(&current, memory_order_acquire);
}

const struct nvml_library *nvml_library_get(void)
{
    const struct nvml_library *library = nvml_library_bound();
    if (library != NULL)
        return library;
    int before = errno;
    /* What the program has loaded already, wherever from, goes by this SONAME; else load it as a program would. */
    void *handle = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_NOLOAD);
    if (handle == NULL)
        handle = dlopen("libnvidia-ml.so.1", RTLD_NOW);
    if (handle != NULL)
        handle_bind(handle);
    else
        (void)dlerror();
    errno = before;
    return nvml_library_bound();
}

bool nvml_library_owns(const void *address)
{
    const struct nvml_library *library = nvml_library_bound();
    if (library != NULL && nvml_library_holds(library, address))
        return true;
    const char *path = object_path(address, "libnvidia-ml.so");
    if (path == NULL)
        return false;
    if (library == NULL) {
        void *handle = dlopen(path, RTLD_NOW | RTLD_NOLOAD);
        if (handle != NULL)
            handle_bind(handle);
    }
    return true;
}
