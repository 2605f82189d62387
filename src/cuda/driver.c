/* The real driver's entry points; driver.h has who calls it and what synchronises it. */
#include "config.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "cuda/driver.h"
#include "cuda/nvml_library.h"
#include "cuda/object.h"

_Atomic(const struct driver *) driver_current;
_Atomic(uintptr_t) driver_targets[DRIVER_ENTRIES];
static _Atomic(uintptr_t) real_dlsym;
static _Atomic(bool) deinitialized;
static _Atomic(void (*)(void)) deinitialize_also;

/* --- the C library's dlsym ---------------------------------------------------------------------------------------- */

/* dlsym moved from libdl to libc in 2.34 and kept its old version; whichever is newest is what a program would get. */
BEFORE_SANITIZERS dlsym_function *dlsym_real(void)
{
    static const char *const versions[] = {
        "GLIBC_2.34",
#if defined(__x86_64__)
        "GLIBC_2.2.5",
#else
        "GLIBC_2.17",
#endif
    };
    uintptr_t address = atomic_load_explicit(&real_dlsym, memory_order_relaxed);
    for (size_t i = 0; address == 0 && i < sizeof versions / sizeof *versions; i++)
        address = (uintptr_t)dlvsym(RTLD_NEXT, "dlsym", versions[i]);
    if (address == 0)
        abort(); /* no C library that we know how to stand in front of */
    atomic_store_explicit(&real_dlsym, address, memory_order_relaxed);
    return (dlsym_function *)address;
}

/* --- binding -------------------------------------------------------------------------------------------------------- */

/* All names in one piece, and where each begins: a table of pointers is a page for the loader to change in every process. */
static const struct names {
#define NAME(symbol)                    char symbol[sizeof #symbol];
#define WRAP(symbol, class, parameters) NAME(symbol)
#define PASS(symbol, class, parameters) NAME(symbol)
#define SAFE(symbol, class, parameters) NAME(symbol)
#define BARE(symbol, class)             NAME(symbol)
#include "interpose/hooks.def"
} names = {
#define WRAP(symbol, class, parameters) #symbol,
#define PASS(symbol, class, parameters) #symbol,
#define SAFE(symbol, class, parameters) #symbol,
#define BARE(symbol, class)             #symbol,
#include "interpose/hooks.def"
};
_Static_assert(sizeof names <= UINT16_MAX, "places are written in 16 bits");

static const uint16_t name_places[DRIVER_ENTRIES] = {
#define WRAP(symbol, class, parameters) offsetof(struct names, symbol),
#define PASS(symbol, class, parameters) offsetof(struct names, symbol),
#define SAFE(symbol, class, parameters) offsetof(struct names, symbol),
#define BARE(symbol, class)             offsetof(struct names, symbol),
#include "interpose/hooks.def"
};

const char *driver_entry_name(unsigned number)
{
    return (const char *)&names + name_places[number];
}

static void entries_find(struct driver *driver, void *handle)
{
    dlsym_function *find = dlsym_real();
    for (unsigned i = 0; i < DRIVER_ENTRIES; i++) {
        void *found = find(handle, driver_entry_name(i));
        memcpy((char *)driver + i * sizeof found, &found, sizeof found);
    }
    (void)dlerror(); /* names that an old driver lacks: not an error of the program's */
    (void)object_range_find((uintptr_t)driver->cuInit, &driver->first, &driver->last);
}

static void targets_fill(const struct driver *driver)
{
    for (unsigned i = 0; i < DRIVER_ENTRIES; i++) {
        uintptr_t real;
        memcpy(&real, (const char *)driver + i * sizeof real, sizeof real);
        atomic_store_explicit(&driver_targets[i], real, memory_order_release);
    }
}

/* Publishes the table of the driver open at `handle`, which stays open for good. */
static void handle_bind(void *handle)
{
    const struct driver *none = NULL;
    struct driver *driver = mmap(NULL, sizeof *driver, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (driver == MAP_FAILED)
        return;
    entries_find(driver, handle);
    if (driver->cuInit == NULL || !atomic_compare_exchange_strong(&driver_current, &none, driver))
        (void)munmap(driver, sizeof *driver);
    else
        targets_fill(driver);
}

const struct driver *driver_load(void)
{
    int before = errno;
    /* What the program has loaded already, wherever from, goes by this SONAME; else load it as a program would. */
    void *handle = dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);
    if (handle == NULL)
        handle = dlopen("libcuda.so.1", RTLD_NOW);
    if (handle != NULL)
        handle_bind(handle);
    else
        (void)dlerror();
    errno = before;
    return driver_bound();
}

/* --- the end --------------------------------------------------------------------------------------------------------------- */

CUresult driver_deinitialized(void)
{
    return CUDA_ERROR_DEINITIALIZED;
}

bool driver_is_deinitialized(void)
{
    return atomic_load(&deinitialized);
}

/* In the table itself: threads that wait at the gate hold a pointer to it, and look into it when they have passed. One that asks before the gate
 * whether the driver has a function may do so just now: it finds the one or the other, and both are there. */
__attribute__((no_sanitize("thread"))) void driver_deinitialize(void)
{
    const struct driver *driver = driver_bound();
    atomic_store(&deinitialized, true);
    for (unsigned i = 0; i < DRIVER_ENTRIES && driver != NULL; i++) {
        _Atomic(uintptr_t) *entry = (_Atomic(uintptr_t) *)(uintptr_t)((const char *)driver + i * sizeof(uintptr_t));
        atomic_store(entry, (uintptr_t)driver_deinitialized);
        atomic_store(&driver_targets[i], (uintptr_t)driver_deinitialized);
    }
    nvml_library_deinitialize();
    void (*also)(void) = atomic_load(&deinitialize_also);
    if (also != NULL)
        also();
}

void driver_set_deinitialize(void (*also)(void))
{
    atomic_store(&deinitialize_also, also);
    if (driver_is_deinitialized())
        also();
}

bool driver_holds_code(const struct driver *driver, const void *address)
{
    return driver_holds(driver, address) && object_is_code(address);
}

bool driver_owns_caller(const void *address)
{
    const struct driver *driver = driver_bound();
    return driver != NULL ? driver_holds(driver, address) : driver_owns(address);
}

bool driver_owns(const void *address)
{
    const struct driver *driver = driver_bound();
    if (driver != NULL && driver_holds(driver, address))
        return true;
    const char *path = object_path(address, "libcuda.so");
    if (path == NULL)
        return false;
    if (driver == NULL) {
        void *handle = dlopen(path, RTLD_NOW | RTLD_NOLOAD);
        if (handle != NULL)
            handle_bind(handle);
    }
    return true;
}

const char *driver_error_name(const struct driver *driver, CUresult result)
{
    const char *name = NULL;
    if (driver->cuGetErrorName == NULL || driver->cuGetErrorName(result, &name) != CUDA_SUCCESS)
        return NULL;
    return name;
}
