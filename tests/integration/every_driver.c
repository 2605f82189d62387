/*
 * A driver that has every function of the table and does nothing, as libcuda.so.1: what each was called last by name is all it
 * knows. Beside them functions and a variable that no table has. For tests/integration/gate, whose program is linked to it.
 */
#include "every_driver.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cuda/cuda_abi.h"

#define DRIVER __attribute__((visibility("default")))

DRIVER const char *every_last(void);
DRIVER extern int cuUnknownVariable;
DRIVER CUresult cuGetProcAddress(const char *name, void **function, int version, uint64_t flags);
DRIVER CUresult cuGetProcAddress_v2(const char *name, void **function, int version, uint64_t flags, int *status);

static _Atomic(const char *) last;

const char *every_last(void)
{
    return last;
}

/* Defined below with what they do. */
#define cuGetProcAddress    unused_4
#define cuGetProcAddress_v2 unused_5

#define FUNCTION(symbol)                                                                                               \
    DRIVER int symbol(void);                                                                                           \
    int symbol(void)                                                                                                   \
    {                                                                                                                  \
        last = #symbol;                                                                                                \
        return CUDA_ERROR_INVALID_VALUE;                                                                               \
    }
#define WRAP(symbol, class, parameters) FUNCTION(symbol)
#define PASS(symbol, class, parameters) FUNCTION(symbol)
#define SAFE(symbol, class, parameters) FUNCTION(symbol)
#define BARE(symbol, class)             FUNCTION(symbol)
#define LEAVE(symbol, class)            FUNCTION(symbol)
#include "interpose/hooks.def"
FUNCTION(cuUnknownFirst)
FUNCTION(cuUnknownSecond)
int cuUnknownVariable = EVERY_VALUE;

#undef cuGetProcAddress
#undef cuGetProcAddress_v2

/* Exported names, whatever the version; and of cuManyN as many functions as anybody wants, which nobody calls. */
static CUresult address_find(const char *name, void **function)
{
    static char many[EVERY_MANY];
    if (!name || !function)
        return CUDA_ERROR_INVALID_VALUE;
    if (strncmp(name, "cuMany", 6) == 0)
        *function = &many[atoi(name + 6)];
    else
        *function = dlsym(dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD), name);
    return CUDA_SUCCESS;
}

CUresult cuGetProcAddress(const char *name, void **function, int version, uint64_t flags)
{
    (void)version;
    (void)flags;
    last = "cuGetProcAddress";
    return address_find(name, function);
}

CUresult cuGetProcAddress_v2(const char *name, void **function, int version, uint64_t flags, int *status)
{
    (void)version;
    (void)flags;
    last = "cuGetProcAddress_v2";
    if (status)
        *status = CU_GET_PROC_ADDRESS_SUCCESS;
    return address_find(name, function);
}
