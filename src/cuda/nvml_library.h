/*
 * The real NVML's entry points, typed, as driver.h has the driver's. Called by src/cuda/nvml.c (cubudget's own questions) and
 * by src/interpose/nvml.c (what programs ask). The library is found at the first use: the object that the program loaded, or
 * libnvidia-ml.so.1; it is never unloaded again. Safe from any thread: of several that bind at once one publishes its table
 * and the others throw theirs away. No lock is held over dlopen, and nothing here uses the heap.
 */
#ifndef CUDA_NVML_LIBRARY_H
#define CUDA_NVML_LIBRARY_H

#include <stdbool.h>
#include <stdint.h>
#include "cuda/nvml_abi.h"

/* Entry points that this NVML does not have are NULL. */
struct nvml_library {
#define NVML_WRAP(symbol, parameters) nvmlReturn_t(*symbol) parameters;
#define NVML_CALL(symbol, parameters) nvmlReturn_t(*symbol) parameters;
#include "interpose/nvml_hooks.def"
    uintptr_t first, last; /* addresses of its object: first <= address < last */
};

/* NVML; loads it where need be, and does not initialise it. NULL: there is none. Keeps errno. */
const struct nvml_library *nvml_library_get(void);

/* NVML where it is bound already, else NULL. */
const struct nvml_library *nvml_library_bound(void);

/* From now on every function in the table answers NVML_ERROR_UNINITIALIZED; called by driver_deinitialize alone. */
void nvml_library_deinitialize(void);

/* Whether an address lies in the bound NVML's object. */
static inline bool nvml_library_holds(const struct nvml_library *library, const void *address)
{
    return (uintptr_t)address >= library->first && (uintptr_t)address < library->last;
}

/* Whether an address lies in an NVML's object (a file named libnvidia-ml.so...); binds that one where none is bound. */
bool nvml_library_owns(const void *address);

#endif
