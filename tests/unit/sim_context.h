/* The primary context of device 0, current for the whole of a test program. Used by tests/unit/test_sim_*.c. */
#ifndef TESTS_SIM_CONTEXT_H
#define TESTS_SIM_CONTEXT_H

#include "unit/sim_stage.h"

#define CONTEXT_BYTES (527 * MIB)

static CUcontext context;

/* The stage with a context; 0, or what went wrong. stage_close ends it. */
static inline int context_open(const char *options)
{
    if (stage_open(options) != 0 || cuInit(0) != CUDA_SUCCESS || cuDevicePrimaryCtxRetain(&context, 0) != CUDA_SUCCESS)
        return -1;
    return cuCtxSetCurrent(context) != CUDA_SUCCESS ? -1 : 0;
}

/* Device 0's bytes beside the context. */
static inline uint64_t used(void)
{
    return stage_figures().device[0].used_bytes - CONTEXT_BYTES;
}

static inline int group_teardown(void **state)
{
    (void)state;
    return stage_close();
}

#endif
