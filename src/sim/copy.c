/*
 * Copies of linear memory and arrays: all forms, by the calling thread, before the call returns. What they touch is held for as long
 * (span_take), and must lie in one allocation; the copy itself is under no lock. A side in an array has the array's own rows
 * and planes, and must lie within what the program sees of it.
 */
#include "sim/array.h"
#include "sim/graph.h"

#include <string.h>

static CUresult copy_linear(uint64_t to, unsigned to_kind, uint64_t from, unsigned from_kind, uint64_t bytes)
{
    struct span target, source;
    CUresult result = span_take(&target, to, bytes, to_kind | SPAN_WRITE);
    if (result != CUDA_SUCCESS)
        return result;
    result = span_take(&source, from, bytes, from_kind);
    if (result == CUDA_SUCCESS && bytes > 0)
        memmove(target.bytes, source.bytes, bytes);
    span_release(&target);
    if (result == CUDA_SUCCESS)
        span_release(&source);
    return result;
}

static uint64_t host_address(const void *pointer)
{
    return (uint64_t)(uintptr_t)pointer;
}

static unsigned memory_type(unsigned kind)
{
    return (kind & SPAN_DEVICE) != 0 ? CU_MEMORYTYPE_DEVICE : CU_MEMORYTYPE_UNIFIED;
}

/* On a stream: done, or captured. */
static CUresult copy_linear_on(CUstream stream, uint64_t to, unsigned to_kind, uint64_t from, unsigned from_kind,
                               uint64_t bytes)
{
    CUresult result;
    struct graph_work work = {.type = CU_GRAPH_NODE_TYPE_MEMCPY,
                              .copy = {.srcMemoryType = memory_type(from_kind),
                                       .srcDevice = from,
                                       .dstMemoryType = memory_type(to_kind),
                                       .dstDevice = to,
                                       .WidthInBytes = bytes,
                                       .Height = 1,
                                       .Depth = 1}};
    return capture_work(stream, &work, &result) ? result : copy_linear(to, to_kind, from, from_kind, bytes);
}

static bool capture_copy_3d(CUstream stream, const CUDA_MEMCPY3D *copy, CUresult *result)
{
    struct graph_work work = {.type = CU_GRAPH_NODE_TYPE_MEMCPY};
    if (!copy)
        return false;
    work.copy = *copy;
    return capture_work(stream, &work, result);
}

static bool capture_copy_2d(CUstream stream, const CUDA_MEMCPY2D *copy, CUresult *result)
{
    if (!copy)
        return false;
    CUDA_MEMCPY3D deep = {
        .srcXInBytes = copy->srcXInBytes,
        .srcY = copy->srcY,
        .srcMemoryType = copy->srcMemoryType,
        .srcHost = copy->srcHost,
        .srcDevice = copy->srcDevice,
        .srcArray = copy->srcArray,
        .srcPitch = copy->srcPitch,
        .dstXInBytes = copy->dstXInBytes,
        .dstY = copy->dstY,
        .dstMemoryType = copy->dstMemoryType,
        .dstHost = copy->dstHost,
        .dstDevice = copy->dstDevice,
        .dstArray = copy->dstArray,
        .dstPitch = copy->dstPitch,
        .WidthInBytes = copy->WidthInBytes,
        .Height = copy->Height,
        .Depth = 1,
    };
    return capture_copy_3d(stream, &deep, result);
}

#define SIM_ENTER_STREAM(stream)                                                                                       \
    SIM_ENTER();                                                                                                       \
    do {                                                                                                               \
        CUcontext enter_context_;                                                                                      \
        CUresult enter_stream_ = stream_check(stream, &enter_context_);                                                \
        if (enter_stream_ != CUDA_SUCCESS)                                                                             \
            return enter_stream_;                                                                                      \
    } while (0)

SIM_API CUresult cuMemcpy(CUdeviceptr to, CUdeviceptr from, size_t bytes)
{
    SIM_ENTER_STREAM(NULL);
    return copy_linear(to, SPAN_ANY, from, SPAN_ANY, bytes);
}

SIM_API CUresult cuMemcpyAsync(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream)
{
    SIM_ENTER_STREAM(stream);
    return copy_linear_on(stream, to, SPAN_ANY, from, SPAN_ANY, bytes);
}

SIM_API CUresult cuMemcpyHtoD_v2(CUdeviceptr to, const void *from, size_t bytes)
{
    SIM_ENTER_STREAM(NULL);
    return copy_linear(to, SPAN_DEVICE, host_address(from), SPAN_ANY, bytes);
}

SIM_API CUresult cuMemcpyHtoD(CUdeviceptr_v1 to, const void *from, unsigned bytes)
{
    SIM_ENTER_STREAM(NULL);
    return copy_linear(to, SPAN_DEVICE, host_address(from), SPAN_ANY, bytes);
}

SIM_API CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void *from, size_t bytes, CUstream stream)
{
    SIM_ENTER_STREAM(stream);
    return copy_linear_on(stream, to, SPAN_DEVICE, host_address(from), SPAN_ANY, bytes);
}

SIM_API CUresult cuMemcpyHtoDAsync(CUdeviceptr_v1 to, const void *from, unsigned bytes, CUstream stream)
{
    SIM_ENTER_STREAM(stream);
    return copy_linear_on(stream, to, SPAN_DEVICE, host_address(from), SPAN_ANY, bytes);
}

SIM_API CUresult cuMemcpyDtoH_v2(void *to, CUdeviceptr from, size_t bytes)
{
    SIM_ENTER_STREAM(NULL);
    return copy_linear(host_address(to), SPAN_ANY, from, SPAN_DEVICE, bytes);
}

SIM_API CUresult cuMemcpyDtoH(void *to, CUdeviceptr_v1 from, unsigned bytes)
{
    SIM_ENTER_STREAM(NULL);
    return copy_linear(host_address(to), SPAN_ANY, from, SPAN_DEVICE, bytes);
}

SIM_API CUresult cuMemcpyDtoHAsync_v2(void *to, CUdeviceptr from, size_t bytes, CUstream stream)
{
    SIM_ENTER_STREAM(stream);
    return copy_linear_on(stream, host_address(to), SPAN_ANY, from, SPAN_DEVICE, bytes);
}

SIM_API CUresult cuMemcpyDtoHAsync(void *to, CUdeviceptr_v1 from, unsigned bytes, CUstream stream)
{
    SIM_ENTER_STREAM(stream);
    return copy_linear_on(stream, host_address(to), SPAN_ANY, from, SPAN_DEVICE, bytes);
}

SIM_API CUresult cuMemcpyDtoD_v2(CUdeviceptr to, CUdeviceptr from, size_t bytes)
{
    SIM_ENTER_STREAM(NULL);
    return copy_linear(to, SPAN_DEVICE, from, SPAN_DEVICE, bytes);
}

SIM_API CUresult cuMemcpyDtoD(CUdeviceptr_v1 to, CUdeviceptr_v1 from, unsigned bytes)
{
    SIM_ENTER_STREAM(NULL);
    return copy_linear(to, SPAN_DEVICE, from, SPAN_DEVICE, bytes);
}

SIM_API CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream)
{
    SIM_ENTER_STREAM(stream);
    return copy_linear_on(stream, to, SPAN_DEVICE, from, SPAN_DEVICE, bytes);
}

SIM_API CUresult cuMemcpyDtoDAsync(CUdeviceptr_v1 to, CUdeviceptr_v1 from, unsigned bytes, CUstream stream)
{
    SIM_ENTER_STREAM(stream);
    return copy_linear_on(stream, to, SPAN_DEVICE, from, SPAN_DEVICE, bytes);
}

static bool contexts_are_alive(CUcontext one, CUcontext other)
{
    sim_lock();
    bool alive = context_is_alive(one) && context_is_alive(other);
    sim_unlock();
    return alive;
}

SIM_API CUresult cuMemcpyPeer(CUdeviceptr to, CUcontext to_context, CUdeviceptr from, CUcontext from_context,
                              size_t bytes)
{
    SIM_ENTER_STREAM(NULL);
    if (!contexts_are_alive(to_context, from_context))
        return CUDA_ERROR_INVALID_CONTEXT;
    return copy_linear(to, SPAN_DEVICE, from, SPAN_DEVICE, bytes);
}

SIM_API CUresult cuMemcpyPeerAsync(CUdeviceptr to, CUcontext to_context, CUdeviceptr from, CUcontext from_context,
                                   size_t bytes, CUstream stream)
{
    SIM_ENTER_STREAM(stream);
    if (!contexts_are_alive(to_context, from_context))
        return CUDA_ERROR_INVALID_CONTEXT;
    return copy_linear_on(stream, to, SPAN_DEVICE, from, SPAN_DEVICE, bytes);
}

/* One side of a copy in two or three dimensions. */
struct side {
    uint64_t address, pitch, rows; /* rows: from one plane to the next */
    uint64_t x, y, z;
    unsigned kind;
    struct span span;
};

/* The size of a copy in bytes, rows and planes. */
struct extent {
    uint64_t width, height, depth;
};

/* An array's side, within the array: x, y and z are read already. */
static CUresult side_read_array(struct side *side, CUarray array, const struct extent *extent)
{
    struct array_view view;
    CUresult result = array_look(array, &view);
    if (result != CUDA_SUCCESS)
        return result;
    const struct array_layout *layout = &view.layout;
    if (side->x > layout->width_bytes || extent->width > layout->width_bytes - side->x || side->y > layout->height ||
        extent->height > layout->height - side->y || side->z > layout->depth || extent->depth > layout->depth - side->z)
        return CUDA_ERROR_INVALID_VALUE;
    side->address = view.address;
    side->pitch = layout->row_bytes;
    side->rows = layout->rows;
    side->kind = SPAN_DEVICE;
    return CUDA_SUCCESS;
}

static CUresult side_read(struct side *side, unsigned type, const void *host, CUdeviceptr device, CUarray array,
                          const struct extent *extent)
{
    switch (type) {
    case CU_MEMORYTYPE_HOST:
        side->address = host_address(host);
        side->kind = SPAN_ANY;
        return CUDA_SUCCESS;
    case CU_MEMORYTYPE_DEVICE:
        side->address = device;
        side->kind = SPAN_DEVICE;
        return CUDA_SUCCESS;
    case CU_MEMORYTYPE_UNIFIED:
        side->address = device;
        side->kind = SPAN_ANY;
        return CUDA_SUCCESS;
    case CU_MEMORYTYPE_ARRAY:
        return side_read_array(side, array, extent);
    default:
        return CUDA_ERROR_INVALID_VALUE;
    }
}

/* Holds all that a side's part of the copy touches, from its first byte to its last. */
static CUresult side_take(struct side *side, const struct extent *extent)
{
    uint64_t plane, first, last, more;
    if (side->pitch == 0)
        side->pitch = extent->width + side->x;
    if (side->rows == 0)
        side->rows = extent->height + side->y;
    if (extent->width > side->pitch || side->x > side->pitch - extent->width || extent->height > side->rows ||
        __builtin_mul_overflow(side->pitch, side->rows, &plane) || __builtin_mul_overflow(plane, side->z, &first) ||
        __builtin_mul_overflow(side->pitch, side->y, &more) || __builtin_add_overflow(first, more, &first) ||
        __builtin_add_overflow(first, side->x, &first) || __builtin_mul_overflow(plane, extent->depth - 1, &last) ||
        __builtin_mul_overflow(side->pitch, extent->height - 1, &more) || __builtin_add_overflow(last, more, &last) ||
        __builtin_add_overflow(last, extent->width, &last) || __builtin_add_overflow(side->address, first, &first))
        return CUDA_ERROR_INVALID_VALUE;
    return span_take(&side->span, first, last, side->kind);
}

static void rows_copy(const struct side *to, const struct side *from, const struct extent *extent)
{
    for (uint64_t z = 0; z < extent->depth; z++)
        for (uint64_t y = 0; y < extent->height; y++)
            memmove(to->span.bytes + z * to->pitch * to->rows + y * to->pitch,
                    from->span.bytes + z * from->pitch * from->rows + y * from->pitch, extent->width);
}

static CUresult copy_box(struct side *to, struct side *from, const struct extent *extent)
{
    if (extent->width == 0 || extent->height == 0 || extent->depth == 0)
        return CUDA_SUCCESS;
    to->kind |= SPAN_WRITE;
    CUresult result = side_take(to, extent);
    if (result != CUDA_SUCCESS)
        return result;
    result = side_take(from, extent);
    if (result == CUDA_SUCCESS) {
        rows_copy(to, from, extent);
        span_release(&from->span);
    }
    span_release(&to->span);
    return result;
}

static CUresult copy_2d(const CUDA_MEMCPY2D *copy)
{
    if (!copy)
        return CUDA_ERROR_INVALID_VALUE;
    struct side from = {.pitch = copy->srcPitch, .x = copy->srcXInBytes, .y = copy->srcY};
    struct side to = {.pitch = copy->dstPitch, .x = copy->dstXInBytes, .y = copy->dstY};
    struct extent extent = {copy->WidthInBytes, copy->Height, 1};
    CUresult result = side_read(&from, copy->srcMemoryType, copy->srcHost, copy->srcDevice, copy->srcArray, &extent);
    if (result == CUDA_SUCCESS)
        result = side_read(&to, copy->dstMemoryType, copy->dstHost, copy->dstDevice, copy->dstArray, &extent);
    return result == CUDA_SUCCESS ? copy_box(&to, &from, &extent) : result;
}

/* The structure of the 32-bit interface, widened. */
static CUresult copy_2d_v1(const CUDA_MEMCPY2D_v1 *copy)
{
    if (!copy)
        return CUDA_ERROR_INVALID_VALUE;
    CUDA_MEMCPY2D wide = {
        .srcXInBytes = copy->srcXInBytes,
        .srcY = copy->srcY,
        .srcMemoryType = copy->srcMemoryType,
        .srcHost = copy->srcHost,
        .srcDevice = copy->srcDevice,
        .srcArray = copy->srcArray,
        .srcPitch = copy->srcPitch,
        .dstXInBytes = copy->dstXInBytes,
        .dstY = copy->dstY,
        .dstMemoryType = copy->dstMemoryType,
        .dstHost = copy->dstHost,
        .dstDevice = copy->dstDevice,
        .dstArray = copy->dstArray,
        .dstPitch = copy->dstPitch,
        .WidthInBytes = copy->WidthInBytes,
        .Height = copy->Height,
    };
    return copy_2d(&wide);
}

SIM_API CUresult cuMemcpy2D_v2(const CUDA_MEMCPY2D *copy)
{
    SIM_ENTER_STREAM(NULL);
    return copy_2d(copy);
}

SIM_API CUresult cuMemcpy2D(const CUDA_MEMCPY2D_v1 *copy)
{
    SIM_ENTER_STREAM(NULL);
    return copy_2d_v1(copy);
}

SIM_API CUresult cuMemcpy2DUnaligned_v2(const CUDA_MEMCPY2D *copy)
{
    SIM_ENTER_STREAM(NULL);
    return copy_2d(copy);
}

SIM_API CUresult cuMemcpy2DUnaligned(const CUDA_MEMCPY2D_v1 *copy)
{
    SIM_ENTER_STREAM(NULL);
    return copy_2d_v1(copy);
}

SIM_API CUresult cuMemcpy2DAsync_v2(const CUDA_MEMCPY2D *copy, CUstream stream)
{
    SIM_ENTER_STREAM(stream);
    CUresult result;
    return capture_copy_2d(stream, copy, &result) ? result : copy_2d(copy);
}

SIM_API CUresult cuMemcpy2DAsync(const CUDA_MEMCPY2D_v1 *copy, CUstream stream)
{
    SIM_ENTER_STREAM(stream);
    CUresult result = capture_refuse(stream);
    return result == CUDA_SUCCESS ? copy_2d_v1(copy) : result;
}

static CUresult copy_3d(const CUDA_MEMCPY3D *copy)
{
    if (!copy)
        return CUDA_ERROR_INVALID_VALUE;
    struct side from = {
        .pitch = copy->srcPitch, .rows = copy->srcHeight, .x = copy->srcXInBytes, .y = copy->srcY, .z = copy->srcZ};
    struct side to = {
        .pitch = copy->dstPitch, .rows = copy->dstHeight, .x = copy->dstXInBytes, .y = copy->dstY, .z = copy->dstZ};
    struct extent extent = {copy->WidthInBytes, copy->Height, copy->Depth};
    CUresult result = side_read(&from, copy->srcMemoryType, copy->srcHost, copy->srcDevice, copy->srcArray, &extent);
    if (result == CUDA_SUCCESS)
        result = side_read(&to, copy->dstMemoryType, copy->dstHost, copy->dstDevice, copy->dstArray, &extent);
    return result == CUDA_SUCCESS ? copy_box(&to, &from, &extent) : result;
}

/* A captured copy, when its graph is launched. */
CUresult copy_run(const CUDA_MEMCPY3D *copy)
{
    return copy_3d(copy);
}

static CUresult copy_3d_v1(const CUDA_MEMCPY3D_v1 *copy)
{
    if (!copy)
        return CUDA_ERROR_INVALID_VALUE;
    CUDA_MEMCPY3D wide = {
        .srcXInBytes = copy->srcXInBytes,
        .srcY = copy->srcY,
        .srcZ = copy->srcZ,
        .srcMemoryType = copy->srcMemoryType,
        .srcHost = copy->srcHost,
        .srcDevice = copy->srcDevice,
        .srcArray = copy->srcArray,
        .srcPitch = copy->srcPitch,
        .srcHeight = copy->srcHeight,
        .dstXInBytes = copy->dstXInBytes,
        .dstY = copy->dstY,
        .dstZ = copy->dstZ,
        .dstMemoryType = copy->dstMemoryType,
        .dstHost = copy->dstHost,
        .dstDevice = copy->dstDevice,
        .dstArray = copy->dstArray,
        .dstPitch = copy->dstPitch,
        .dstHeight = copy->dstHeight,
        .WidthInBytes = copy->WidthInBytes,
        .Height = copy->Height,
        .Depth = copy->Depth,
    };
    return copy_3d(&wide);
}

SIM_API CUresult cuMemcpy3D_v2(const CUDA_MEMCPY3D *copy)
{
    SIM_ENTER_STREAM(NULL);
    return copy_3d(copy);
}

SIM_API CUresult cuMemcpy3D(const CUDA_MEMCPY3D_v1 *copy)
{
    SIM_ENTER_STREAM(NULL);
    return copy_3d_v1(copy);
}

SIM_API CUresult cuMemcpy3DAsync_v2(const CUDA_MEMCPY3D *copy, CUstream stream)
{
    SIM_ENTER_STREAM(stream);
    CUresult result;
    return capture_copy_3d(stream, copy, &result) ? result : copy_3d(copy);
}

SIM_API CUresult cuMemcpy3DAsync(const CUDA_MEMCPY3D_v1 *copy, CUstream stream)
{
    SIM_ENTER_STREAM(stream);
    CUresult result = capture_refuse(stream);
    return result == CUDA_SUCCESS ? copy_3d_v1(copy) : result;
}

/* The structure between contexts has the contexts where the other has reserved fields, and is otherwise the same. */
static CUresult copy_3d_peer(const CUDA_MEMCPY3D_PEER *copy)
{
    _Static_assert(sizeof(CUDA_MEMCPY3D_PEER) == sizeof(CUDA_MEMCPY3D), "the two have one layout");
    CUDA_MEMCPY3D same;
    if (!copy)
        return CUDA_ERROR_INVALID_VALUE;
    if (!contexts_are_alive(copy->srcContext, copy->dstContext))
        return CUDA_ERROR_INVALID_CONTEXT;
    memcpy(&same, copy, sizeof(same));
    return copy_3d(&same);
}

SIM_API CUresult cuMemcpy3DPeer(const CUDA_MEMCPY3D_PEER *copy)
{
    SIM_ENTER_STREAM(NULL);
    return copy_3d_peer(copy);
}

SIM_API CUresult cuMemcpy3DPeerAsync(const CUDA_MEMCPY3D_PEER *copy, CUstream stream)
{
    SIM_ENTER_STREAM(stream);
    CUresult result = capture_refuse(stream);
    return result == CUDA_SUCCESS ? copy_3d_peer(copy) : result;
}

/* --- runs of an array's bytes ------------------------------------------------------------------------------------------ */

/* One end of such a copy: bytes from `offset` on of an array, its rows one behind another, or memory. */
struct run_end {
    CUarray array; /* NULL: memory */
    uint64_t address, offset;
    unsigned kind;
    struct array_layout layout;
};

static CUresult run_end_read(struct run_end *end, uint64_t bytes)
{
    struct array_view view;
    if (!end->array)
        return CUDA_SUCCESS;
    CUresult result = array_look(end->array, &view);
    if (result != CUDA_SUCCESS)
        return result;
    uint64_t all = view.layout.width_bytes * view.layout.height;
    end->layout = view.layout;
    end->address = view.address;
    end->kind = SPAN_DEVICE;
    return end->offset <= all && bytes <= all - end->offset ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

/* Where the byte `done` further on lies; *most shrinks to what lies behind it in its row. */
static uint64_t run_end_at(const struct run_end *end, uint64_t done, uint64_t *most)
{
    uint64_t offset = end->offset + done;
    if (!end->array)
        return end->address + offset;
    uint64_t x = offset % end->layout.width_bytes, rest = end->layout.width_bytes - x;
    *most = *most < rest ? *most : rest;
    return end->address + offset / end->layout.width_bytes * end->layout.row_bytes + x;
}

static CUresult copy_bytes(struct run_end to, struct run_end from, uint64_t bytes)
{
    CUresult result = run_end_read(&to, bytes);
    if (result == CUDA_SUCCESS)
        result = run_end_read(&from, bytes);
    for (uint64_t done = 0; result == CUDA_SUCCESS && done < bytes;) {
        uint64_t most = bytes - done;
        uint64_t target = run_end_at(&to, done, &most), source = run_end_at(&from, done, &most);
        result = copy_linear(target, to.kind, source, from.kind, most);
        done += most;
    }
    return result;
}

static struct run_end run_array(CUarray array, uint64_t offset)
{
    return (struct run_end){.array = array, .offset = offset};
}

static struct run_end run_host(const void *host)
{
    return (struct run_end){.address = host_address(host), .kind = SPAN_ANY};
}

static struct run_end run_device(CUdeviceptr device)
{
    return (struct run_end){.address = device, .kind = SPAN_DEVICE};
}

SIM_API CUresult cuMemcpyHtoA_v2(CUarray to, size_t offset, const void *from, size_t bytes)
{
    SIM_ENTER_STREAM(NULL);
    return copy_bytes(run_array(to, offset), run_host(from), bytes);
}

SIM_API CUresult cuMemcpyHtoAAsync_v2(CUarray to, size_t offset, const void *from, size_t bytes, CUstream stream)
{
    SIM_ENTER_STREAM(stream);
    CUresult result = capture_refuse(stream);
    return result == CUDA_SUCCESS ? copy_bytes(run_array(to, offset), run_host(from), bytes) : result;
}

SIM_API CUresult cuMemcpyAtoH_v2(void *to, CUarray from, size_t offset, size_t bytes)
{
    SIM_ENTER_STREAM(NULL);
    return copy_bytes(run_host(to), run_array(from, offset), bytes);
}

SIM_API CUresult cuMemcpyAtoHAsync_v2(void *to, CUarray from, size_t offset, size_t bytes, CUstream stream)
{
    SIM_ENTER_STREAM(stream);
    CUresult result = capture_refuse(stream);
    return result == CUDA_SUCCESS ? copy_bytes(run_host(to), run_array(from, offset), bytes) : result;
}

SIM_API CUresult cuMemcpyDtoA_v2(CUarray to, size_t offset, CUdeviceptr from, size_t bytes)
{
    SIM_ENTER_STREAM(NULL);
    return copy_bytes(run_array(to, offset), run_device(from), bytes);
}

SIM_API CUresult cuMemcpyAtoD_v2(CUdeviceptr to, CUarray from, size_t offset, size_t bytes)
{
    SIM_ENTER_STREAM(NULL);
    return copy_bytes(run_device(to), run_array(from, offset), bytes);
}

SIM_API CUresult cuMemcpyAtoA_v2(CUarray to, size_t to_offset, CUarray from, size_t from_offset, size_t bytes)
{
    SIM_ENTER_STREAM(NULL);
    return copy_bytes(run_array(to, to_offset), run_array(from, from_offset), bytes);
}

SIM_API CUresult cuMemcpyHtoA(CUarray to, unsigned offset, const void *from, unsigned bytes)
{
    SIM_ENTER_STREAM(NULL);
    return copy_bytes(run_array(to, offset), run_host(from), bytes);
}

SIM_API CUresult cuMemcpyHtoAAsync(CUarray to, unsigned offset, const void *from, unsigned bytes, CUstream stream)
{
    SIM_ENTER_STREAM(stream);
    CUresult result = capture_refuse(stream);
    return result == CUDA_SUCCESS ? copy_bytes(run_array(to, offset), run_host(from), bytes) : result;
}

SIM_API CUresult cuMemcpyAtoH(void *to, CUarray from, unsigned offset, unsigned bytes)
{
    SIM_ENTER_STREAM(NULL);
    return copy_bytes(run_host(to), run_array(from, offset), bytes);
}

SIM_API CUresult cuMemcpyAtoHAsync(void *to, CUarray from, unsigned offset, unsigned bytes, CUstream stream)
{
    SIM_ENTER_STREAM(stream);
    CUresult result = capture_refuse(stream);
    return result == CUDA_SUCCESS ? copy_bytes(run_host(to), run_array(from, offset), bytes) : result;
}

SIM_API CUresult cuMemcpyDtoA(CUarray to, unsigned offset, CUdeviceptr_v1 from, unsigned bytes)
{
    SIM_ENTER_STREAM(NULL);
    return copy_bytes(run_array(to, offset), run_device(from), bytes);
}

SIM_API CUresult cuMemcpyAtoD(CUdeviceptr_v1 to, CUarray from, unsigned offset, unsigned bytes)
{
    SIM_ENTER_STREAM(NULL);
    return copy_bytes(run_device(to), run_array(from, offset), bytes);
}

SIM_API CUresult cuMemcpyAtoA(CUarray to, unsigned to_offset, CUarray from, unsigned from_offset, unsigned bytes)
{
    SIM_ENTER_STREAM(NULL);
    return copy_bytes(run_array(to, to_offset), run_array(from, from_offset), bytes);
}
