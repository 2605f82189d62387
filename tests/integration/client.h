/* What the files of the client (client.c says what it is) share. No state but the process's own; threads only where said. */
#ifndef TESTS_CLIENT_H
#define TESTS_CLIENT_H

#include <stdbool.h>
#include <stdint.h>

#include "cuda/cuda_abi.h"

enum { PLACES = 64 };
extern CUdeviceptr places[PLACES];

/* A function of the driver, by its exported name; ends the program where there is none. */
void *client_symbol(const char *name);

/* Prints "ok" or "error N". */
void answer(CUresult result);

/* A random number; *state is never 0. */
uint64_t random_next(uint64_t *state);

/* Makes the primary context current to the calling thread. */
CUresult context_current_here(void);

/* Commands on pools and graphs (client_pools.c). False: the verb is none of them. */
bool pools_command(const char *verb, const char *arguments);

#endif
