/*
 * The real driver's entry points, typed, and the C library's real dlsym.
 *
 * Called by src/account, src/evict and src/interpose. The driver is found at the first use of any of our hooks, by dlopen
 * of the object that the program loaded, or of libcuda.so.1; it is never unloaded again, so the pointers stay good. No lock
 * is held over dlopen: a driver's constructor may call dlsym, which is ours, on a thread that holds the loader's lock. Of
 * several threads that bind at once one publishes its table and the others throw theirs away. Nothing here uses the heap.
 */
#ifndef CUDA_DRIVER_H
#define CUDA_DRIVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdatomic.h>
#include "cuda/cuda_abi.h"

/* A sanitizer's own start-up calls dlsym before its shadow memory is there: what lies on that way is not instrumented. */
#define BEFORE_SANITIZERS __attribute__((no_sanitize("address", "thread", "undefined")))

/* Entry points that this driver is too old to have are NULL. */
struct driver {
#define WRAP(symbol, class, parameters) CUresult(*symbol) parameters;
#define PASS(symbol, class, parameters) CUresult(*symbol) parameters;
#define SAFE(symbol, class, parameters) CUresult(*symbol) parameters;
#define BARE(symbol, class)             CUresult (*symbol)(void);
#include "interpose/hooks.def"
    uintptr_t first, last; /* addresses of the driver's object: first <= address < last */
};

/* The number of each entry point: where it is in the table, and in every other one that hooks.def makes. */
enum {
#define WRAP(symbol, class, parameters) DRIVER_##symbol,
#define PASS(symbol, class, parameters) DRIVER_##symbol,
#define SAFE(symbol, class, parameters) DRIVER_##symbol,
#define BARE(symbol, class)             DRIVER_##symbol,
#include "interpose/hooks.def"
    DRIVER_ENTRIES
};
_Static_assert(offsetof(struct driver, first) == DRIVER_ENTRIES * sizeof(uintptr_t),
               "the entries, one behind the other");

const char *driver_entry_name(unsigned number);

/* Where a call goes that does nothing but pass the gate, by number: for passes.c, which spares looking for the table. 0: no driver is
 * bound, or it has no such function. */
extern _Atomic(uintptr_t) driver_targets[DRIVER_ENTRIES] __attribute__((visibility("hidden")));

/* The driver where it is bound already, else NULL. */
extern _Atomic(const struct driver *) driver_current;
static inline const struct driver *driver_bound(void)
{
    return atomic_load_explicit(&driver_current, memory_order_acquire);
}

/* The driver; loads it where need be. NULL: there is none. Keeps errno. */
const struct driver *driver_load(void);
static inline const struct driver *driver_get(void)
{
    const struct driver *driver = driver_bound();
    return __builtin_expect(driver != NULL, 1) ? driver : driver_load();
}

/* Whether an address lies in the bound driver's object. */
static inline bool driver_holds(const struct driver *driver, const void *address)
{
    return (uintptr_t)address >= driver->first && (uintptr_t)address < driver->last;
}

/* Whether it is a function's there, and not a variable's. The loader's own lock is taken for the moment. */
bool driver_holds_code(const struct driver *driver, const void *address);

/* Whether an address lies in a driver's object (a file named libcuda.so...); binds that driver where none is bound. */
bool driver_owns(const void *address);

/* The same for the address that a call came from; once a driver is bound, of that one alone. */
bool driver_owns_caller(const void *address);

/* The C library's dlsym: never call it with RTLD_NEXT or RTLD_DEFAULT, which look at who calls. */
typedef void *dlsym_function(void *handle, const char *name);
dlsym_function *dlsym_real(void);

/* From now on every entry point of the bound driver answers CUDA_ERROR_DEINITIALIZED, and NVML's NVML_ERROR_UNINITIALIZED, without
 * reaching the real one: for a process that ends while it is out of the card. Called with the gate closed; whoever waits there, and who
 * comes later, gets that answer when it is opened. Once and for good; the caller has bound the driver before. */
void driver_deinitialize(void);
bool driver_is_deinitialized(void);
CUresult driver_deinitialized(void); /* what stands in the entries then */
/* What else leads to the driver and is to be led elsewhere then: called by driver_deinitialize, or at once where that was before. */
void driver_set_deinitialize(void (*also)(void));

/* A result's name for a message; "error N" is up to the caller where it is NULL. */
const char *driver_error_name(const struct driver *driver, CUresult result);

#endif
