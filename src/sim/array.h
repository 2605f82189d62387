/* Arrays as the copies see them. Called by copy.c; array.c has what synchronises it. */
#ifndef SIM_ARRAY_H
#define SIM_ARRAY_H

#include "sim/array_format.h"
#include "sim/sim.h"

/* Where an array's bytes are, and how they lie. They may be freed meanwhile: whoever works on them takes a span. */
struct array_view {
    uint64_t address;
    struct array_layout layout;
};

/* 0; INVALID_HANDLE: no such array; INVALID_VALUE: one that holds nothing (sparse, or mapped later). */
CUresult array_look(CUarray array, struct array_view *view);

#endif
