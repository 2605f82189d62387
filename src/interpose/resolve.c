/*
 * Names and pointers: what stands for each of the driver's functions, found by name (dlsym) and by the identity of
 * the real pointer (cuGetProcAddress): a wrapper, or a thunk where hooks.def does not know it. Tables are made once from hooks.def; lookups are lock-free and safe from any thread.
 */
#include "config.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include "cuda/object.h"
#include "interpose/hooks.h"
#include "interpose/resolve.h"
#include "interpose/thunk.h"
#include "platform/gate.h"

/* By the numbers of the driver's table, which are in the order of strcmp, as hooks.def is. What stands for each function: how far it
 * is from here (wrappers.S). */
extern const int32_t wrapper_distances[DRIVER_ENTRIES] __attribute__((visibility("hidden")));

/* Which of them only pass the gate. */
static const bool passive[DRIVER_ENTRIES] = {
#define WRAP(symbol, class, parameters) false,
#define PASS(symbol, class, parameters) true,
#define SAFE(symbol, class, parameters) true,
#define BARE(symbol, class)             true,
#include "interpose/hooks.def"
};

static void *wrapper_of(unsigned number)
{
    const int32_t *from = &wrapper_distances[number];
    return (void *)((uintptr_t)from + (uintptr_t)(intptr_t)*from);
}

/* --- by pointer ----------------------------------------------------------------------------------------------------- */

enum { BUCKET_BITS = 12, BUCKETS = 1 << BUCKET_BITS }; /* a power of two, so sparse that a miss looks once */
_Static_assert(BUCKETS >= 4 * DRIVER_ENTRIES, "the table of pointers is to stay sparse");

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
    for (unsigned i = 0; i < DRIVER_ENTRIES; i++) {
        uintptr_t real;
        memcpy(&real, (const char *)driver + i * sizeof real, sizeof real);
        if (real == 0)
            continue;
        size_t at = bucket_of(real);
        while (table->buckets[at].real != 0 && table->buckets[at].real != real)
            at = (at + 1) % BUCKETS;
        /* Two names for one function: either wrapper does the same, but for one that has something to do. */
        if (table->buckets[at].real != 0 && passive[i])
            continue;
        table->buckets[at].real = real;
        table->buckets[at].wrapper = wrapper_of(i);
    }
    if (!atomic_compare_exchange_strong(&pointers, &none, table))
        (void)munmap(table, sizeof *table);
    return atomic_load(&pointers);
}

static const struct pointer_table *pointers_get(void)
{
    const struct pointer_table *table = atomic_load_explicit(&pointers, memory_order_acquire);
    if (table != NULL)
        return table;
    int before = errno;
    const struct driver *driver = driver_get();
    table = driver != NULL ? pointers_build(driver) : NULL;
    errno = before;
    return table;
}

/* What stands for a real pointer in the table; NULL: nothing. */
static void *pointer_find(const struct pointer_table *table, const void *real)
{
    for (size_t at = bucket_of((uintptr_t)real); table->buckets[at].real != 0; at = (at + 1) % BUCKETS)
        if (table->buckets[at].real == (uintptr_t)real)
            return table->buckets[at].wrapper;
    return NULL;
}

/* Where our own functions lie. */
static bool is_ours(const void *address)
{
    static _Atomic(uintptr_t) first, last;
    if (atomic_load_explicit(&last, memory_order_acquire) == 0) {
        uintptr_t from = 0, to = 1;
        (void)object_range_find((uintptr_t)wrapper_of(0), &from, &to);
        atomic_store(&first, from);
        atomic_store(&last, to);
    }
    return (uintptr_t)address >= atomic_load(&first) && (uintptr_t)address < atomic_load(&last);
}

/* What the driver has and the table has not: a function gets a thunk, a variable stays what it is. */
static void *unknown_substitute(void *found, const char *name)
{
    int before = errno;
    const struct driver *driver = driver_bound();
    bool function = driver != NULL && driver_holds_code(driver, found);
    errno = before;
    return function ? thunk_for(found, name) : found;
}

/* --- by name -------------------------------------------------------------------------------------------------------- */

/* Those of the libraries above it go on in small letters (cuda..., cublas...); cudbg... are a debugger's. */
BEFORE_SANITIZERS static bool name_may_be_drivers(const char *name)
{
    return name != NULL && name[0] == 'c' && name[1] == 'u' &&
           ((name[2] >= 'A' && name[2] <= 'Z') || (name[2] == 'd' && name[3] == 'b' && name[4] == 'g'));
}

BEFORE_SANITIZERS static bool name_may_be_nvmls(const char *name)
{
    return name != NULL && name[0] == 'n' && name[1] == 'v' && name[2] == 'm' && name[3] == 'l';
}

/* What stands for the function of that name; NULL: nothing. */
static void *name_find(const char *name)
{
    if (!name_may_be_drivers(name))
        return NULL;
    unsigned low = 0, high = DRIVER_ENTRIES;
    while (low < high) {
        unsigned middle = (low + high) / 2;
        int order = strcmp(name + 2, driver_entry_name(middle) + 2);
        if (order == 0)
            return wrapper_of(middle);
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}

/* A name was found under a real handle: the wrapper, where what was found is the driver's. A plugin's own function of that name
 * stays what it is, and so does what another preload put in front of the driver. A driver that asks (a loader in front of
 * another libcuda does) gets its own, or it would call us and we it, for ever. */
static void *found_substitute(void *found, const char *name, const void *caller)
{
    if (is_ours(found))
        return found;
    int before = errno;
    bool substitute = driver_owns(found) && !driver_owns_caller(caller);
    errno = before;
    if (!substitute)
        return found;
    void *wrapper = name_find(name);
    return wrapper != NULL ? wrapper : unknown_substitute(found, name);
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
    if (driver_holds(driver, caller))
        return found;
    const struct pointer_table *table = pointers_get();
    void *wrapper = table != NULL ? pointer_find(table, found) : NULL;
    return wrapper != NULL ? wrapper : unknown_substitute(found, name);
}

BEFORE_SANITIZERS void *dlsym_route(void *handle, const char *name)
{
    bool drivers = name_may_be_drivers(name);
    void *address;
    /* RTLD_NEXT and RTLD_DEFAULT look at who calls, so they get the call as it came; our exports answer by themselves. */
    if (handle != RTLD_NEXT && handle != RTLD_DEFAULT && (drivers || name_may_be_nvmls(name))) {
        void *(*target)(void *, const char *, const void *) = drivers ? dlsym_substituting : nvml_dlsym;
        memcpy(&address, &target, sizeof address);
    } else {
        dlsym_function *target = dlsym_real();
        memcpy(&address, &target, sizeof address);
    }
    return address;
}

/* --- cuGetProcAddress ------------------------------------------------------------------------------------------------- */

/* Whatever the driver hands out so is a function, wherever it lies. */
static void *answer_substitute(void *real, const char *name)
{
    const struct pointer_table *table = pointers_get();
    void *wrapper = table != NULL ? pointer_find(table, real) : NULL;
    if (wrapper != NULL)
        return wrapper;
    int before = errno;
    bool ours = is_ours(real);
    errno = before;
    return ours ? real : thunk_for(real, name);
}

CUresult cuGetProcAddress(const char *symbol, void **function, int version, uint64_t flags)
{
    const struct driver *driver = driver_get();
    if (driver == NULL || driver->cuGetProcAddress == NULL)
        return CUDA_ERROR_NOT_FOUND;
    gate_pass(); /* measured to answer whatever the state */
    CUresult result = driver->cuGetProcAddress(symbol, function, version, flags);
    if (result == CUDA_SUCCESS && function != NULL && *function != NULL)
        *function = answer_substitute(*function, symbol);
    return result;
}

CUresult cuGetProcAddress_v2(const char *symbol, void **function, int version, uint64_t flags,
                             CUdriverProcAddressQueryResult *status)
{
    const struct driver *driver = driver_get();
    if (driver == NULL || driver->cuGetProcAddress_v2 == NULL)
        return CUDA_ERROR_NOT_FOUND;
    gate_pass();
    CUresult result = driver->cuGetProcAddress_v2(symbol, function, version, flags, status);
    if (result == CUDA_SUCCESS && function != NULL && *function != NULL)
        *function = answer_substitute(*function, symbol);
    return result;
}
