/*
 * What an array takes of a device, from its descriptor. Pure; called by src/interpose before the driver is asked. (The simulator
 * has its own computation of the same: neither may call the other's.)
 */
#ifndef ACCOUNT_ARRAY_COST_H
#define ACCOUNT_ARRAY_COST_H

#include <stdint.h>
#include "cuda/cuda_abi.h"

/* Bytes, padded as the driver pads them, of `levels` levels (1: no mipmaps; more than there are counts as all). 0: it holds
 * nothing (sparse, or mapped later), or is nothing a driver makes. UINT64_MAX: more than any device has. */
uint64_t array_cost(const CUDA_ARRAY3D_DESCRIPTOR *descriptor, unsigned levels);

#endif
