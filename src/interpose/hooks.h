/*
 * What is exported under the driver's and NVML's own names, from the tables: wrappers that the files of this folder define or
 * passes.awk makes, and the thunks of thunk_entry.S. Programs reach them by linking, dlsym and cuGetProcAddress.
 */
#ifndef INTERPOSE_HOOKS_H
#define INTERPOSE_HOOKS_H

#include "cuda/cuda_abi.h"
#include "cuda/driver.h"
#include "cuda/nvml_abi.h"

#define WRAP(symbol, class, parameters) __attribute__((visibility("default"))) CUresult symbol parameters;
#define PASS(symbol, class, parameters) __attribute__((visibility("default"))) CUresult symbol parameters;
#define SAFE(symbol, class, parameters) __attribute__((visibility("default"))) CUresult symbol parameters;
#define BARE(symbol, class)             __attribute__((visibility("default"))) CUresult symbol(void);
#include "interpose/hooks.def"

#define NVML_WRAP(symbol, parameters) __attribute__((visibility("default"))) nvmlReturn_t symbol parameters;
#include "interpose/nvml_hooks.def"

#endif
