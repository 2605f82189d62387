/* Sets of device memory: all widths, linear and pitched, by the calling thread, before the call returns. No lock. */
#include "sim/graph.h"

#include <string.h>

/* Fills one row of `count` elements of `element` bytes. */
static void row_set(unsigned char *row, const void *value, unsigned element, uint64_t count)
{
    if (element == 1) {
        memset(row, *(const unsigned char *)value, count);
        return;
    }
    for (uint64_t i = 0; i < count; i++)
        memcpy(row + i * element, value, element);
}

CUresult memset_run(const CUDA_MEMSET_NODE_PARAMS *set)
{
    struct span span;
    uint64_t row_bytes, bytes;
    uint8_t narrow = (uint8_t)set->value;
    uint16_t half = (uint16_t)set->value;
    const void *value = set->elementSize == 1 ? &narrow : set->elementSize == 2 ? (const void *)&half : &set->value;
    if (set->width == 0 || set->height == 0)
        return CUDA_SUCCESS;
    if (set->dst % set->elementSize || __builtin_mul_overflow(set->width, set->elementSize, &row_bytes) ||
        (set->height > 1 && set->pitch < row_bytes) || __builtin_mul_overflow(set->pitch, set->height - 1, &bytes) ||
        __builtin_add_overflow(bytes, row_bytes, &bytes))
        return CUDA_ERROR_INVALID_VALUE;
    CUresult result = span_take(&span, set->dst, bytes, SPAN_DEVICE | SPAN_WRITE);
    if (result != CUDA_SUCCESS)
        return result;
    for (uint64_t row = 0; row < set->height; row++)
        row_set(span.bytes + row * set->pitch, value, set->elementSize, set->width);
    span_release(&span);
    return CUDA_SUCCESS;
}

/* Where it is captured, what it touches is looked at when it runs: memory of a graph is not there before. */
static CUresult memory_set(CUdeviceptr address, uint64_t pitch, unsigned value, unsigned element, uint64_t width,
                           uint64_t height, CUstream stream, bool captures)
{
    CUcontext context;
    struct graph_work work = {
        .type = CU_GRAPH_NODE_TYPE_MEMSET,
        .set = {
            .dst = address, .pitch = pitch, .value = value, .elementSize = element, .width = width, .height = height}};
    CUresult result = stream_check(stream, &context);
    if (result != CUDA_SUCCESS || (captures && capture_work(stream, &work, &result)))
        return result;
    return memset_run(&work.set);
}

/* The six names of one width: linear and pitched; now, on a stream, and of the 32-bit interface. */
#define SIM_MEMSET(name, name_2d, type)                                                                                \
    SIM_API CUresult name##_v2(CUdeviceptr to, type value, size_t count)                                               \
    {                                                                                                                  \
        SIM_ENTER();                                                                                                   \
        return memory_set(to, 0, value, sizeof(value), count, 1, NULL, false);                                         \
    }                                                                                                                  \
    SIM_API CUresult name(CUdeviceptr_v1 to, type value, unsigned count)                                               \
    {                                                                                                                  \
        SIM_ENTER();                                                                                                   \
        return memory_set(to, 0, value, sizeof(value), count, 1, NULL, false);                                         \
    }                                                                                                                  \
    SIM_API CUresult name##Async(CUdeviceptr to, type value, size_t count, CUstream stream)                            \
    {                                                                                                                  \
        SIM_ENTER();                                                                                                   \
        return memory_set(to, 0, value, sizeof(value), count, 1, stream, true);                                        \
    }                                                                                                                  \
    SIM_API CUresult name_2d##_v2(CUdeviceptr to, size_t pitch, type value, size_t width, size_t height)               \
    {                                                                                                                  \
        SIM_ENTER();                                                                                                   \
        return memory_set(to, pitch, value, sizeof(value), width, height, NULL, false);                                \
    }                                                                                                                  \
    SIM_API CUresult name_2d(CUdeviceptr_v1 to, unsigned pitch, type value, unsigned width, unsigned height)           \
    {                                                                                                                  \
        SIM_ENTER();                                                                                                   \
        return memory_set(to, pitch, value, sizeof(value), width, height, NULL, false);                                \
    }                                                                                                                  \
    SIM_API CUresult name_2d##Async(CUdeviceptr to, size_t pitch, type value, size_t width, size_t height,             \
                                    CUstream stream)                                                                   \
    {                                                                                                                  \
        SIM_ENTER();                                                                                                   \
        return memory_set(to, pitch, value, sizeof(value), width, height, stream, true);                               \
    }

SIM_MEMSET(cuMemsetD8, cuMemsetD2D8, unsigned char)
SIM_MEMSET(cuMemsetD16, cuMemsetD2D16, unsigned short)
SIM_MEMSET(cuMemsetD32, cuMemsetD2D32, unsigned int)
