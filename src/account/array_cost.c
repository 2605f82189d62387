/* What an array takes; array_cost.h says who asks. The padding is what an H100 with driver 580 showed. */
#include "config.h"

#include <stdbool.h>
#include "account/array_cost.h"

/* How texels of a format are stored: in tiles of side x side, of so many bytes. */
struct tile {
    unsigned side, bytes;
};

static unsigned channel_bytes(CUarray_format format)
{
    switch (format) {
    case CU_AD_FORMAT_UNSIGNED_INT8:
    case CU_AD_FORMAT_SIGNED_INT8:
        return 1;
    case CU_AD_FORMAT_UNSIGNED_INT16:
    case CU_AD_FORMAT_SIGNED_INT16:
    case CU_AD_FORMAT_HALF:
        return 2;
    case CU_AD_FORMAT_UNSIGNED_INT32:
    case CU_AD_FORMAT_SIGNED_INT32:
    case CU_AD_FORMAT_FLOAT:
        return 4;
    default:
        return 0;
    }
}

static struct tile tile_of(CUarray_format format, unsigned channels)
{
    static const unsigned char normalised[] = {1, 2, 4,
                                               2, 4, 8}; /* from UNORM_INT8X1 on, and again from SNORM_INT8X1 on */
    unsigned bytes = channel_bytes(format);
    if (bytes != 0)
        return (struct tile){1, bytes * channels};
    if (format >= CU_AD_FORMAT_UNORM_INT8X1 && format <= CU_AD_FORMAT_SNORM_INT16X4)
        return (struct tile){1, normalised[(format - CU_AD_FORMAT_UNORM_INT8X1) % 6]};
    if (format >= CU_AD_FORMAT_BC1_UNORM && format <= CU_AD_FORMAT_BC7_UNORM_SRGB) {
        bool half = format <= CU_AD_FORMAT_BC1_UNORM_SRGB || format == CU_AD_FORMAT_BC4_UNORM ||
                    format == CU_AD_FORMAT_BC4_SNORM;
        return (struct tile){4, half ? 8 : 16};
    }
    if (format == CU_AD_FORMAT_UNORM_INT_101010_2)
        return (struct tile){1, 4};
    return (struct tile){1, 8}; /* video and formats to come: as much as the widest of them */
}

static uint64_t round_up(uint64_t value, uint64_t unit)
{
    return value > UINT64_MAX - unit ? UINT64_MAX / unit * unit : (value + unit - 1) / unit * unit;
}

static uint64_t times(uint64_t a, uint64_t b)
{
    uint64_t product;
    return __builtin_mul_overflow(a, b, &product) ? UINT64_MAX : product;
}

/* Rows come in blocks of 8, 16, 32, ... of which the first that covers them all is taken; the largest is 128, in a volume 32. */
static uint64_t rows_padded(uint64_t rows, bool volume)
{
    uint64_t largest = volume ? 32 : 128;
    for (uint64_t block = 8; block < largest; block *= 2)
        if (rows <= block)
            return block;
    return round_up(rows, largest);
}

static uint64_t halved(uint64_t side, unsigned level)
{
    uint64_t half = level < 64 ? side >> level : 0;
    return half != 0 ? half : 1;
}

uint64_t array_cost(const CUDA_ARRAY3D_DESCRIPTOR *descriptor, unsigned levels)
{
    struct tile tile = tile_of(descriptor->Format, descriptor->NumChannels);
    bool layered = (descriptor->Flags & (CUDA_ARRAY3D_LAYERED | CUDA_ARRAY3D_CUBEMAP)) != 0;
    bool volume = !layered && descriptor->Depth != 0;
    uint64_t all = 0;
    if ((descriptor->Flags & (CUDA_ARRAY3D_SPARSE | CUDA_ARRAY3D_DEFERRED_MAPPING)) != 0 || descriptor->Width == 0)
        return 0;
    for (unsigned level = 0; level < levels && level < 64; level++) {
        uint64_t width = halved(descriptor->Width, level), height = halved(descriptor->Height, level);
        uint64_t depth = layered ? descriptor->Depth : halved(descriptor->Depth, level);
        uint64_t row = round_up(times(round_up(width, tile.side) / tile.side, tile.bytes), 64);
        uint64_t rows = rows_padded(round_up(height, tile.side) / tile.side, volume);
        if (__builtin_add_overflow(all, times(times(row, rows), depth), &all))
            return UINT64_MAX;
        if (width == 1 && height == 1 && (layered || depth == 1))
            break;
    }
    return all;
}
