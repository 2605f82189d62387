/* The shape of a simulated array; see array_format.h. */
#include "sim/array_format.h"

/* Rows are padded to 64 bytes. Planes are padded to blocks of rows: the smallest power of two from 8 on that covers the height,
 * up to 128 (4097 x 4097 of 4 bytes took 68 MiB on an H100), in three dimensions up to 32 (129 x 65 x 33 of 16 bytes took 8 MiB). One
 * dimension is a plane of one row. */
enum { ROW_BYTES = 64, BLOCK_ROWS = 8, BLOCK_ROWS_MOST = 128, BLOCK_ROWS_SOLID = 32 };

enum {
    CUBE_FACES = 6,
    LAYERS = 2048,
    LAYERED_SIDE = 32768,
    SOLID_SIDE = 16384,
    FLAT_WIDTH = 131072,
    FLAT_HEIGHT = 65536
};

/* Formats that say their number of channels themselves: pairs of first number and bytes of a texel. */
static unsigned packed_bytes(CUarray_format format, unsigned channels)
{
    static const struct {
        unsigned char channels, bytes;
    } normalised[] = {{1, 1}, {2, 2}, {4, 4}, {1, 2}, {2, 4}, {4, 8}};
    if (format == CU_AD_FORMAT_UNORM_INT_101010_2)
        return channels == 4 ? 4 : 0;
    if (format < CU_AD_FORMAT_UNORM_INT8X1 || format > CU_AD_FORMAT_SNORM_INT16X4)
        return 0;
    unsigned at = (unsigned)(format - CU_AD_FORMAT_UNORM_INT8X1) % 6;
    return normalised[at].channels == channels ? normalised[at].bytes : 0;
}

unsigned array_element_bytes(CUarray_format format, unsigned channels)
{
    if (channels != 1 && channels != 2 && channels != 4)
        return 0;
    switch (format) {
    case CU_AD_FORMAT_UNSIGNED_INT8:
    case CU_AD_FORMAT_SIGNED_INT8:
        return channels;
    case CU_AD_FORMAT_UNSIGNED_INT16:
    case CU_AD_FORMAT_SIGNED_INT16:
    case CU_AD_FORMAT_HALF:
        return 2 * channels;
    case CU_AD_FORMAT_UNSIGNED_INT32:
    case CU_AD_FORMAT_SIGNED_INT32:
    case CU_AD_FORMAT_FLOAT:
        return 4 * channels;
    default:
        return packed_bytes(format, channels);
    }
}

static bool is_layered(const CUDA_ARRAY3D_DESCRIPTOR *descriptor)
{
    return (descriptor->Flags & (CUDA_ARRAY3D_LAYERED | CUDA_ARRAY3D_CUBEMAP)) != 0;
}

static bool cube_is_valid(const CUDA_ARRAY3D_DESCRIPTOR *descriptor)
{
    bool layered = (descriptor->Flags & CUDA_ARRAY3D_LAYERED) != 0;
    return descriptor->Width == descriptor->Height && descriptor->Depth >= CUBE_FACES &&
           descriptor->Depth % CUBE_FACES == 0 && (layered || descriptor->Depth == CUBE_FACES);
}

bool array_descriptor_is_valid(const CUDA_ARRAY3D_DESCRIPTOR *descriptor)
{
    size_t width = descriptor->Width, height = descriptor->Height, depth = descriptor->Depth;
    if (array_element_bytes(descriptor->Format, descriptor->NumChannels) == 0 || width == 0 ||
        (descriptor->Flags & ~0x1FFu) != 0)
        return false;
    if ((descriptor->Flags & CUDA_ARRAY3D_CUBEMAP) != 0 && !cube_is_valid(descriptor))
        return false;
    if (is_layered(descriptor))
        return depth >= 1 && depth <= LAYERS && width <= LAYERED_SIDE && height <= LAYERED_SIDE;
    if (depth == 0)
        return width <= FLAT_WIDTH && height <= FLAT_HEIGHT;
    return height >= 1 && width <= SOLID_SIDE && height <= SOLID_SIDE && depth <= SOLID_SIDE;
}

static size_t side_of_level(size_t side, unsigned level)
{
    return side == 0 ? 0 : side >> level == 0 ? 1 : side >> level;
}

CUDA_ARRAY3D_DESCRIPTOR array_level(const CUDA_ARRAY3D_DESCRIPTOR *descriptor, unsigned level)
{
    CUDA_ARRAY3D_DESCRIPTOR small = *descriptor;
    small.Width = side_of_level(descriptor->Width, level);
    small.Height = side_of_level(descriptor->Height, level);
    if (!is_layered(descriptor))
        small.Depth = side_of_level(descriptor->Depth, level);
    return small;
}

unsigned array_level_limit(const CUDA_ARRAY3D_DESCRIPTOR *descriptor)
{
    size_t longest = descriptor->Width > descriptor->Height ? descriptor->Width : descriptor->Height;
    unsigned levels = 1;
    if (!is_layered(descriptor) && descriptor->Depth > longest)
        longest = descriptor->Depth;
    while (longest >> levels != 0)
        levels++;
    return levels;
}

static uint64_t padded(uint64_t value, uint64_t unit)
{
    return (value + unit - 1) / unit * unit;
}

static uint64_t rows_of(const CUDA_ARRAY3D_DESCRIPTOR *descriptor, uint64_t height)
{
    uint64_t block = BLOCK_ROWS;
    uint64_t most = descriptor->Depth != 0 && !is_layered(descriptor) ? BLOCK_ROWS_SOLID : BLOCK_ROWS_MOST;
    while (block < most && block < height)
        block *= 2;
    return padded(height, block);
}

struct array_layout array_layout_of(const CUDA_ARRAY3D_DESCRIPTOR *descriptor)
{
    struct array_layout layout = {
        .element_bytes = array_element_bytes(descriptor->Format, descriptor->NumChannels),
        .height = descriptor->Height != 0 ? descriptor->Height : 1,
        .depth = descriptor->Depth != 0 ? descriptor->Depth : 1,
    };
    layout.width_bytes = descriptor->Width * layout.element_bytes;
    layout.row_bytes = padded(layout.width_bytes, ROW_BYTES);
    layout.rows = rows_of(descriptor, layout.height);
    layout.bytes = layout.row_bytes * layout.rows * layout.depth;
    return layout;
}
