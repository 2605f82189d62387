/*
 * Names and pointers: which of the driver's functions have a wrapper, found by name (dlsym) and by the identity of
 * the real pointer (cuGetProcAddress). Tables are made once from hooks.def; lookups are lock-free and safe from any thread.
 */
#include "config.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include "interpose/gate.h"
#include "interpose/hooks.h"
#include "interpose/resolve.h"

struct hook {
    const char *name;
    void (*wrapper)(void);
    size_t entry; /* offset of the real pointer in struct driver */
};

/* In the order of strcmp, as hooks.def is. */
static const struct hook hooks[] = {
#define WRAP(symbol, class, parameters) {#symbol, (void (*)(void))symbol, offsetof(struct driver, symbol)},
#include "interpose/hooks.def"
};
enum { HOOKS = sizeof hooks / sizeof *hooks };

static void *wrapper_of(const struct hook *hook)
{
    void *address;
    memcpy(&address, &hook->wrapper, sizeof address);
    return address;
}

/* --- by pointer ----------------------------------------------------------------------------------------------------- */

enum { BUCKET_BITS = 9, BUCKETS = 1 << BUCKET_BITS }; /* a power of two, so sparse that a miss looks once */
_Static_assert(BUCKETS >= 4 * HOOKS, "the table of pointers is to stay sparse");

struct pointer_table {
    struct {
        uintptr_t real;
        void *wrapper;
    } buckets[BUCKETS];
};

static _Atomic(const struct pointer_table *) pointers;

static size_t bucket_of(uintptr_t real)
{
    return (size_t)(real * 0x9E3779B97F4A7C15ULL >> (64 - BUCKET_BITS));
}

/* Builds the table for a bound driver. Several threads may: one table is published, the others are thrown away. */
static const struct pointer_table *pointers_build(const struct driver *driver)
{
    const struct pointer_table *none = NULL;
    struct pointer_table *table = mmap(NULL, sizeof *table, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (table == MAP_FAILED)
        return NULL;
    for (size_t i = 0; i < HOOKS; i++) {
        uintptr_t real;
        memcpy(&real, (const char *)driver + hooks[i].entry, sizeof real);
        if (real == 0)
            continue;
        size_t at = bucket_of(real);
        while (table->buckets[at].real != 0 && table->buckets[at].real != real)
            at = (at + 1) % BUCKETS;
        table->buckets[at].real = real; /* two names for one function: either wrapper does the same */
        table->buckets[at].wrapper = wrapper_of(&hooks[i]);
    }
    if (!atomic_compare_exchange_strong(&pointers, &none, table))
        (void)munmap(table, sizeof *table);
    return atomic_load(&pointers);
}

void *hook_of_pointer(void *real)
{
    const struct pointer_table *table = atomic_load_explicit(&pointers, memory_order_acquire);
    if (table == NULL) {
        int before = errno;
        const struct driver *driver = driver_get();
        table = driver != NULL ? pointers_build(driver) : NULL;
        errno = before;
        if (table == NULL)
            return real;
    }
    for (size_t at = bucket_of((uintptr_t)real); table->buckets[at].real != 0; at = (at + 1) % BUCKETS)
        if (table->buckets[at].real == (uintptr_t)real)
            return table->buckets[at].wrapper;
    return real;
}

/* --- by name -------------------------------------------------------------------------------------------------------- */

BEFORE_SANITIZERS static bool name_may_be_drivers(const char *name)
{
    return name != NULL && name[0] == 'c' && name[1] == 'u';
}

BEFORE_SANITIZERS static bool name_may_be_nvmls(const char *name)
{
    return name != NULL && name[0] == 'n' && name[1] == 'v' && name[2] == 'm' && name[3] == 'l';
}

static const struct hook *hook_find(const char *name)
{
    if (!name_may_be_drivers(name))
        return NULL;
    size_t low = 0, high = HOOKS;
    while (low < high) {
        size_t middle = (low + high) / 2;
        int order = strcmp(name + 2, hooks[middle].name + 2);
        if (order == 0)
            return &hooks[middle];
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}

/* A name was found under a real handle: the wrapper, where it has one and what was found is the driver's. A plugin's own
 * function of that name stays what it is, and so does what another preload put in front of the driver. A driver that asks
 * (a loader in front of another libcuda does) gets its own, or it would call us and we it, for ever. */
static void *found_substitute(void *found, const char *name, const void *caller)
{
    const struct hook *hook = hook_find(name);
    if (hook == NULL || found == wrapper_of(hook))
        return found;
    int before = errno;
    bool substitute = driver_owns(found) && !driver_owns_caller(caller);
    errno = before;
    return substitute ? wrapper_of(hook) : found;
}

/* dlsym with a real handle for a name that begins as the driver's do. Once the driver is bound the pointer alone says what
 * it is; names are compared only for what lies outside it. */
static void *dlsym_substituting(void *handle, const char *name, const void *caller)
{
    void *found = dlsym_real()(handle, name);
    if (found == NULL)
        return NULL;
    const struct driver *driver = driver_bound();
    if (driver == NULL || !driver_holds(driver, found))
        return found_substitute(found, name, caller);
    return driver_holds(driver, caller) ? found : hook_of_pointer(found);
}

BEFORE_SANITIZERS void *dlsym_route(void *handle, const char *name)
{
    bool drivers = name_may_be_drivers(name);
    void *address;
    /* RTLD_NEXT and RTLD_DEFAULT look at who calls, so they get the call as it came; our exports answer by themselves. */
    if (handle != RTLD_NEXT && handle != RTLD_DEFAULT && (drivers || name_may_be_nvmls(name)) && !gate_is_inside()) {
        void *(*target)(void *, const char *, const void *) = drivers ? dlsym_substituting : nvml_dlsym;
        memcpy(&address, &target, sizeof address);
    } else {
        dlsym_function *target = dlsym_real();
        memcpy(&address, &target, sizeof address);
    }
    return address;
}

/* --- cuGetProcAddress ------------------------------------------------------------------------------------------------- */

CUresult cuGetProcAddress(const char *symbol, void **function, int version, uint64_t flags)
{
    const struct driver *driver = driver_get();
    if (driver == NULL || driver->cuGetProcAddress == NULL)
        return CUDA_ERROR_NOT_FOUND;
    CUresult result = driver->cuGetProcAddress(symbol, function, version, flags);
    if (result == CUDA_SUCCESS && function != NULL && *function != NULL)
        *function = hook_of_pointer(*function);
    return result;
}

CUresult cuGetProcAddress_v2(const char *symbol, void **function, int version, uint64_t flags,
                             CUdriverProcAddressQueryResult *status)
{
    const struct driver *driver = driver_get();
    if (driver == NULL || driver->cuGetProcAddress_v2 == NULL)
        return CUDA_ERROR_NOT_FOUND;
    CUresult result = driver->cuGetProcAddress_v2(symbol, function, version, flags, status);
    if (result == CUDA_SUCCESS && function != NULL && *function != NULL)
        *function = hook_of_pointer(*function);
    return result;
}
