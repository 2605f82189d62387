/*
 * What the parts of the simulated driver that load code share: module.c has the modules, library.c the libraries that become
 * modules when a kernel of theirs is first asked for. All but image_bytes and module_load under sim_lock.
 */
#ifndef SIM_MODULE_H
#define SIM_MODULE_H

#include "sim/sim.h"

struct kernel;

/* Bytes of the card that an image takes: its global variables where it is PTX, and what the option module= says. */
uint64_t image_bytes(const void *image);

/* Loads a module of so many bytes; `library` NULL: by itself. `after`: the error that it is to end with, all undone. */
CUresult module_load(CUcontext context, uint64_t bytes, CUlibrary library, CUmodule *module, CUresult after);

/* The live module of a library in a context, or NULL. */
CUmodule module_of_library(CUlibrary library, CUcontext context);

/* Ends a library's modules; returns the address of one, or 0 when there is none left: the caller frees it without the lock. */
bool module_end_of_library(CUlibrary library, uint64_t *address);

/* The kernel of a name, or NULL. */
const struct kernel *kernel_find(const char *name);

/* The function of a module and a kernel: the same handle each time. NULL: no memory. */
CUfunction function_of(CUmodule module, const struct kernel *kernel);

#endif
