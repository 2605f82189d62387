/*
 * Loaded objects, by an address in them. Called by driver.c and nvml_library.c, which bind the driver's and NVML's; safe from
 * any thread. The loader's own lock is taken for the moment of each call.
 */
#ifndef CUDA_OBJECT_H
#define CUDA_OBJECT_H

#include <stdbool.h>
#include <stdint.h>

/* The addresses of the object that an address lies in: first <= address < last. False: in none. */
bool object_range_find(uintptr_t address, uintptr_t *first, uintptr_t *last);

/* Whether an address lies in a loaded object's code. */
bool object_is_code(const void *address);

/* The path of the object that an address lies in, where its file's name begins with `stem`; NULL where it does not. The text
 * is the loader's and stays while the object is loaded. */
const char *object_path(const void *address, const char *stem);

#endif
