/*
 * The shape of a simulated array: which descriptors are valid, and how its texels lie in memory. Pure; called by array.c.
 */
#ifndef SIM_ARRAY_FORMAT_H
#define SIM_ARRAY_FORMAT_H

#include <stdbool.h>
#include <stdint.h>

#include "cuda/cuda_abi.h"

/* How one level of an array lies in memory: rows of row_bytes, `rows` of them to a plane, `depth` planes or layers; of which the
 * program sees width_bytes and height. */
struct array_layout {
    uint64_t element_bytes;
    uint64_t width_bytes, height, depth;
    uint64_t row_bytes, rows;
    uint64_t bytes; /* row_bytes * rows * depth */
};

/* Bytes of a texel, all channels; 0: not a format that the simulator has, or a number of channels that it does not come in. */
unsigned array_element_bytes(CUarray_format format, unsigned channels);

/* Whether a driver makes an array of this. */
bool array_descriptor_is_valid(const CUDA_ARRAY3D_DESCRIPTOR *descriptor);

/* The descriptor of a level of a mipmapped array: 0 is the whole. */
CUDA_ARRAY3D_DESCRIPTOR array_level(const CUDA_ARRAY3D_DESCRIPTOR *descriptor, unsigned level);

/* How many levels it can have. */
unsigned array_level_limit(const CUDA_ARRAY3D_DESCRIPTOR *descriptor);

/* The layout of a valid descriptor. */
struct array_layout array_layout_of(const CUDA_ARRAY3D_DESCRIPTOR *descriptor);

#endif
