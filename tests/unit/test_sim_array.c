/* The simulated driver's arrays: what they cost, what they hold, and what is an error. One context for all but one test. */
#include "unit/sim_context.h"

CUresult cuArrayCreate(CUarray *array, const CUDA_ARRAY_DESCRIPTOR_v1 *descriptor);
CUresult cuArrayCreate_v2(CUarray *array, const CUDA_ARRAY_DESCRIPTOR *descriptor);
CUresult cuArray3DCreate(CUarray *array, const CUDA_ARRAY3D_DESCRIPTOR_v1 *descriptor);
CUresult cuArray3DCreate_v2(CUarray *array, const CUDA_ARRAY3D_DESCRIPTOR *descriptor);
CUresult cuArrayGetDescriptor_v2(CUDA_ARRAY_DESCRIPTOR *descriptor, CUarray array);
CUresult cuArray3DGetDescriptor_v2(CUDA_ARRAY3D_DESCRIPTOR *descriptor, CUarray array);
CUresult cuArrayDestroy(CUarray array);
CUresult cuMipmappedArrayCreate(CUmipmappedArray *mipmap, const CUDA_ARRAY3D_DESCRIPTOR *descriptor, unsigned levels);
CUresult cuMipmappedArrayGetLevel(CUarray *array, CUmipmappedArray mipmap, unsigned level);
CUresult cuMipmappedArrayDestroy(CUmipmappedArray mipmap);
CUresult cuArrayGetMemoryRequirements(CUDA_ARRAY_MEMORY_REQUIREMENTS *requirements, CUarray array, CUdevice device);
CUresult cuMipmappedArrayGetMemoryRequirements(CUDA_ARRAY_MEMORY_REQUIREMENTS *requirements, CUmipmappedArray mipmap,
                                               CUdevice device);
CUresult cuArrayGetSparseProperties(CUDA_ARRAY_SPARSE_PROPERTIES *properties, CUarray array);
CUresult cuMemcpyHtoA_v2(CUarray to, size_t offset, const void *from, size_t bytes);
CUresult cuMemcpyAtoH_v2(void *to, CUarray from, size_t offset, size_t bytes);
CUresult cuMemcpyAtoA_v2(CUarray to, size_t to_offset, CUarray from, size_t from_offset, size_t bytes);
CUresult cuMemcpyDtoA_v2(CUarray to, size_t offset, CUdeviceptr from, size_t bytes);
CUresult cuMemcpyAtoD_v2(CUdeviceptr to, CUarray from, size_t offset, size_t bytes);

static int group_setup(void **state)
{
    (void)state;
    return context_open("");
}

static CUDA_ARRAY3D_DESCRIPTOR shape(size_t width, size_t height, size_t depth, CUarray_format format,
                                     unsigned channels, unsigned flags)
{
    return (CUDA_ARRAY3D_DESCRIPTOR){width, height, depth, format, channels, flags};
}

static CUarray make(CUDA_ARRAY3D_DESCRIPTOR descriptor)
{
    CUarray array = NULL;
    assert_int_equal(cuArray3DCreate_v2(&array, &descriptor), CUDA_SUCCESS);
    assert_non_null(array);
    return array;
}

static const struct {
    size_t width, height, depth;
    CUarray_format format;
    unsigned channels, flags;
    uint64_t mib;
} measured[] = {
    {1000, 1000, 0, CU_AD_FORMAT_FLOAT, 1, 0, 4},        {1024, 1024, 0, CU_AD_FORMAT_FLOAT, 1, 0, 4},
    {1025, 1024, 0, CU_AD_FORMAT_FLOAT, 1, 0, 6},        {1024, 1025, 0, CU_AD_FORMAT_FLOAT, 1, 0, 6},
    {4096, 4096, 0, CU_AD_FORMAT_FLOAT, 1, 0, 64},       {4097, 4097, 0, CU_AD_FORMAT_FLOAT, 1, 0, 68},
    {513, 513, 0, CU_AD_FORMAT_FLOAT, 4, 0, 6},          {2000, 3000, 0, CU_AD_FORMAT_SIGNED_INT8, 1, 0, 6},
    {100000, 0, 0, CU_AD_FORMAT_FLOAT, 4, 0, 14},        {131072, 0, 0, CU_AD_FORMAT_FLOAT, 4, 0, 16},
    {3, 50000, 0, CU_AD_FORMAT_FLOAT, 1, 0, 4},          {16, 65536, 0, CU_AD_FORMAT_UNSIGNED_INT8, 1, 0, 4},
    {128, 128, 128, CU_AD_FORMAT_FLOAT, 1, 0, 8},        {100, 100, 100, CU_AD_FORMAT_FLOAT, 1, 0, 6},
    {129, 65, 33, CU_AD_FORMAT_FLOAT, 4, 0, 8},          {512, 512, 8, CU_AD_FORMAT_FLOAT, 1, 1, 8},
    {500, 500, 7, CU_AD_FORMAT_FLOAT, 1, 1, 8},          {256, 256, 12, CU_AD_FORMAT_FLOAT, 1, 5, 4},
    {1024, 1024, 0, CU_AD_FORMAT_FLOAT, 1, 0x40, 0},     {1024, 1024, 0, CU_AD_FORMAT_FLOAT, 1, 0x80, 0},
    {10000, 10000, 0, CU_AD_FORMAT_HALF, 2, 0, 386},     {1, 60000, 0, CU_AD_FORMAT_UNSIGNED_INT8, 1, 0, 4},
    {1024, 1024, 0, CU_AD_FORMAT_UNORM_INT8X4, 4, 0, 4}, {16384, 16384, 0, CU_AD_FORMAT_FLOAT, 1, 0, 1024},
};

static void arrays_cost_what_was_measured(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(measured) / sizeof(measured[0]); i++) {
        CUarray array = make(shape(measured[i].width, measured[i].height, measured[i].depth, measured[i].format,
                                   measured[i].channels, measured[i].flags));
        if (used() != measured[i].mib * MIB)
            fail_msg("case %zu takes %llu bytes", i, (unsigned long long)used());
        assert_int_equal(cuArrayDestroy(array), CUDA_SUCCESS);
        assert_int_equal(used(), 0);
    }
}

static void small_arrays_share_blocks_with_small_memory(void **state)
{
    (void)state;
    CUarray array[64];
    CUdeviceptr address;
    for (int i = 0; i < 64; i++)
        array[i] = make(shape(64, 64, 0, CU_AD_FORMAT_FLOAT, 1, 0));
    assert_int_equal(used(), 2 * MIB);
    assert_int_equal(cuMemAlloc_v2(&address, 1000), CUDA_SUCCESS);
    assert_int_equal(used(), 2 * MIB);
    for (int i = 0; i < 64; i++)
        assert_int_equal(cuArrayDestroy(array[i]), CUDA_SUCCESS);
    assert_int_equal(used(), 2 * MIB);
    assert_int_equal(cuMemFree_v2(address), CUDA_SUCCESS);
    assert_int_equal(used(), 0);
    for (int i = 0; i < 8; i++)
        array[i] = make(shape(512, 512, 0, CU_AD_FORMAT_FLOAT, 1, 0));
    assert_int_equal(used(), 8 * MIB);
    for (int i = 0; i < 8; i++)
        assert_int_equal(cuArrayDestroy(array[i]), CUDA_SUCCESS);
    assert_int_equal(used(), 0);
}

static void mipmapped_arrays_cost_the_sum_of_their_levels(void **state)
{
    (void)state;
    static const struct {
        size_t width, height, depth;
        unsigned channels, levels, flags;
        uint64_t mib;
    } cases[] = {
        {1024, 1024, 0, 1, 1, 0, 4},    {1024, 1024, 0, 1, 11, 0, 6}, {1000, 700, 0, 1, 10, 0, 6},
        {4096, 4096, 0, 1, 13, 0, 86},  {512, 512, 6, 1, 10, 4, 10},  {300, 200, 5, 2, 4, 1, 4},
        {2048, 2048, 0, 1, 12, 128, 0},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        CUDA_ARRAY3D_DESCRIPTOR descriptor = shape(cases[i].width, cases[i].height, cases[i].depth, CU_AD_FORMAT_FLOAT,
                                                   cases[i].channels, cases[i].flags);
        CUmipmappedArray mipmap = NULL;
        assert_int_equal(cuMipmappedArrayCreate(&mipmap, &descriptor, cases[i].levels), CUDA_SUCCESS);
        if (used() != cases[i].mib * MIB)
            fail_msg("case %zu takes %llu bytes", i, (unsigned long long)used());
        assert_int_equal(cuMipmappedArrayDestroy(mipmap), CUDA_SUCCESS);
        assert_int_equal(used(), 0);
    }
}

static void levels_are_arrays_with_bytes_of_their_own(void **state)
{
    (void)state;
    CUDA_ARRAY3D_DESCRIPTOR descriptor = shape(100, 60, 0, CU_AD_FORMAT_UNSIGNED_INT8, 1, 0), seen;
    CUmipmappedArray mipmap = NULL;
    CUarray level[3], again, none = (CUarray)(uintptr_t)5;
    char text[32] = "";
    assert_int_equal(cuMipmappedArrayCreate(&mipmap, &descriptor, 3), CUDA_SUCCESS);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(cuMipmappedArrayGetLevel(&level[i], mipmap, i), CUDA_SUCCESS);
        assert_int_equal(cuArray3DGetDescriptor_v2(&seen, level[i]), CUDA_SUCCESS);
        assert_int_equal(seen.Width, 100 >> i);
        assert_int_equal(seen.Height, 60 >> i);
        assert_int_equal(cuMemcpyHtoA_v2(level[i], 0, i == 0 ? "first" : i == 1 ? "other" : "third", 6), CUDA_SUCCESS);
    }
    assert_int_equal(cuMipmappedArrayGetLevel(&again, mipmap, 1), CUDA_SUCCESS);
    assert_ptr_equal(again, level[1]);
    assert_int_equal(cuMemcpyAtoH_v2(text, level[0], 0, 6), CUDA_SUCCESS);
    assert_string_equal(text, "first");
    assert_int_equal(cuMemcpyAtoH_v2(text, level[1], 0, 6), CUDA_SUCCESS);
    assert_string_equal(text, "other");
    assert_int_equal(cuMipmappedArrayGetLevel(&none, mipmap, 3), CUDA_ERROR_INVALID_VALUE);
    assert_ptr_equal(none, (CUarray)(uintptr_t)5);
    assert_int_equal(cuArrayDestroy(level[0]), CUDA_ERROR_INVALID_HANDLE);
    assert_int_equal(cuMipmappedArrayDestroy(mipmap), CUDA_SUCCESS);
    assert_int_equal(cuMemcpyAtoH_v2(text, level[0], 0, 6), CUDA_ERROR_INVALID_HANDLE);
    assert_int_equal(cuMipmappedArrayDestroy(mipmap), CUDA_ERROR_INVALID_HANDLE);
    assert_int_equal(used(), 0);
}

static CUDA_MEMCPY3D box(size_t width, size_t height, size_t depth)
{
    return (CUDA_MEMCPY3D){.WidthInBytes = width, .Height = height, .Depth = depth};
}

/* A box of a volume comes back with the bytes that were there, through linear memory and through another array. */
static void boxes_go_to_arrays_and_back(void **state)
{
    (void)state;
    enum { WIDTH = 37, HEIGHT = 11, DEPTH = 5 };
    unsigned char out[DEPTH][HEIGHT][WIDTH], back[DEPTH][HEIGHT][WIDTH] = {{{0}}};
    for (int i = 0; i < DEPTH * HEIGHT * WIDTH; i++)
        (&out[0][0][0])[i] = (unsigned char)(i * 13 + i / 251);
    CUarray volume = make(shape(WIDTH + 3, HEIGHT + 2, DEPTH + 1, CU_AD_FORMAT_UNSIGNED_INT8, 1, 0));
    CUarray layers = make(shape(WIDTH, HEIGHT, DEPTH, CU_AD_FORMAT_UNSIGNED_INT8, 1, CUDA_ARRAY3D_LAYERED));
    CUDA_MEMCPY3D copy = box(WIDTH, HEIGHT, DEPTH);
    copy.srcMemoryType = CU_MEMORYTYPE_HOST;
    copy.srcHost = out;
    copy.srcPitch = WIDTH;
    copy.srcHeight = HEIGHT;
    copy.dstMemoryType = CU_MEMORYTYPE_ARRAY;
    copy.dstArray = volume;
    copy.dstXInBytes = 3;
    copy.dstY = 2;
    copy.dstZ = 1;
    assert_int_equal(cuMemcpy3D_v2(&copy), CUDA_SUCCESS);
    copy = box(WIDTH, HEIGHT, DEPTH);
    copy.srcMemoryType = copy.dstMemoryType = CU_MEMORYTYPE_ARRAY;
    copy.srcArray = volume;
    copy.srcXInBytes = 3;
    copy.srcY = 2;
    copy.srcZ = 1;
    copy.dstArray = layers;
    assert_int_equal(cuMemcpy3D_v2(&copy), CUDA_SUCCESS);
    copy = box(WIDTH, HEIGHT, DEPTH);
    copy.srcMemoryType = CU_MEMORYTYPE_ARRAY;
    copy.srcArray = layers;
    copy.dstMemoryType = CU_MEMORYTYPE_HOST;
    copy.dstHost = back;
    copy.dstPitch = WIDTH;
    copy.dstHeight = HEIGHT;
    assert_int_equal(cuMemcpy3D_v2(&copy), CUDA_SUCCESS);
    assert_memory_equal(out, back, sizeof(out));
    copy.srcZ = 1;
    assert_int_equal(cuMemcpy3D_v2(&copy), CUDA_ERROR_INVALID_VALUE);
    copy.srcZ = 0;
    copy.srcXInBytes = 1;
    assert_int_equal(cuMemcpy3D_v2(&copy), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(cuArrayDestroy(volume), CUDA_SUCCESS);
    assert_int_equal(cuArrayDestroy(layers), CUDA_SUCCESS);
}

static void runs_follow_the_rows_of_an_array(void **state)
{
    (void)state;
    unsigned char out[300], back[300] = {0};
    CUdeviceptr address;
    for (int i = 0; i < 300; i++)
        out[i] = (unsigned char)(i * 7 + 1);
    CUarray one = make(shape(30, 10, 0, CU_AD_FORMAT_UNSIGNED_INT8, 1, 0));
    CUarray other = make(shape(100, 3, 0, CU_AD_FORMAT_UNSIGNED_INT8, 1, 0));
    assert_int_equal(cuMemAlloc_v2(&address, 300), CUDA_SUCCESS);
    assert_int_equal(cuMemcpyHtoA_v2(one, 0, out, 300), CUDA_SUCCESS);
    assert_int_equal(cuMemcpyAtoA_v2(other, 0, one, 0, 300), CUDA_SUCCESS);
    assert_int_equal(cuMemcpyAtoD_v2(address, other, 50, 250), CUDA_SUCCESS);
    assert_int_equal(cuMemcpyDtoA_v2(one, 50, address, 250), CUDA_SUCCESS);
    assert_int_equal(cuMemcpyAtoH_v2(back, one, 0, 300), CUDA_SUCCESS);
    assert_memory_equal(out, back, 300);
    assert_int_equal(cuMemcpyAtoH_v2(back, one, 1, 300), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(cuMemFree_v2(address), CUDA_SUCCESS);
    assert_int_equal(cuArrayDestroy(one), CUDA_SUCCESS);
    assert_int_equal(cuArrayDestroy(other), CUDA_SUCCESS);
    assert_int_equal(used(), 0);
}

static void wrong_descriptors_are_refused(void **state)
{
    (void)state;
    static const CUDA_ARRAY3D_DESCRIPTOR wrong[] = {
        {0, 1, 0, CU_AD_FORMAT_FLOAT, 1, 0},
        {1, 1, 0, CU_AD_FORMAT_FLOAT, 3, 0},
        {1, 1, 0, 0x77, 1, 0},
        {1, 0, 1, CU_AD_FORMAT_FLOAT, 1, 0},
        {131073, 0, 0, CU_AD_FORMAT_FLOAT, 1, 0},
        {8, 8, 5, CU_AD_FORMAT_FLOAT, 1, CUDA_ARRAY3D_CUBEMAP},
        {8, 9, 6, CU_AD_FORMAT_FLOAT, 1, 4},
        {8, 8, 12, CU_AD_FORMAT_FLOAT, 1, 4},
        {1, 1, 0, CU_AD_FORMAT_UNORM_INT8X4, 2, 0},
        {1, 1, 0, CU_AD_FORMAT_NV12, 1, 0},
        {1, 1, 0, CU_AD_FORMAT_BC7_UNORM_SRGB, 4, 0},
        {8, 8, 0, CU_AD_FORMAT_FLOAT, 1, CUDA_ARRAY3D_LAYERED},
        {20000, 20000, 2, CU_AD_FORMAT_FLOAT, 1, 0},
        {1, 1, 0, CU_AD_FORMAT_FLOAT, 1, 0x1000},
    };
    CUarray array = (CUarray)(uintptr_t)5;
    CUmipmappedArray mipmap = (CUmipmappedArray)(uintptr_t)6;
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
        if (cuArray3DCreate_v2(&array, &wrong[i]) != CUDA_ERROR_INVALID_VALUE)
            fail_msg("case %zu was taken", i);
    CUDA_ARRAY3D_DESCRIPTOR right = shape(8, 8, 0, CU_AD_FORMAT_FLOAT, 1, 0);
    assert_int_equal(cuArray3DCreate_v2(NULL, &right), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(cuArray3DCreate_v2(&array, NULL), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(cuMipmappedArrayCreate(&mipmap, &right, 0), CUDA_ERROR_INVALID_VALUE);
    CUDA_ARRAY3D_DESCRIPTOR big = shape(32768, 32768, 2048, CU_AD_FORMAT_FLOAT, 4, CUDA_ARRAY3D_LAYERED);
    assert_int_equal(cuArray3DCreate_v2(&array, &big), CUDA_ERROR_OUT_OF_MEMORY);
    assert_int_equal(cuMipmappedArrayCreate(&mipmap, &big, 16), CUDA_ERROR_OUT_OF_MEMORY);
    assert_ptr_equal(array, (CUarray)(uintptr_t)5);
    assert_ptr_equal(mipmap, (CUmipmappedArray)(uintptr_t)6);
    assert_int_equal(cuArrayDestroy(array), CUDA_ERROR_INVALID_HANDLE);
    assert_int_equal(used(), 0);
}

/* Requirements are told of arrays that are mapped later alone, tiles of sparse ones alone; both hold nothing. */
static void arrays_without_memory_tell_what_they_will_need(void **state)
{
    (void)state;
    CUDA_ARRAY_MEMORY_REQUIREMENTS need = {0};
    CUDA_ARRAY_SPARSE_PROPERTIES tiles = {0};
    CUDA_ARRAY3D_DESCRIPTOR descriptor = shape(1024, 1024, 0, CU_AD_FORMAT_FLOAT, 1, CUDA_ARRAY3D_DEFERRED_MAPPING);
    CUarray ordinary = make(shape(1024, 1024, 0, CU_AD_FORMAT_FLOAT, 1, 0)), deferred = make(descriptor);
    CUarray sparse = make(shape(1024, 1024, 0, CU_AD_FORMAT_FLOAT, 1, CUDA_ARRAY3D_SPARSE));
    CUmipmappedArray mipmap;
    assert_int_equal(cuArrayGetMemoryRequirements(&need, ordinary, 0), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(cuArrayGetMemoryRequirements(&need, deferred, 0), CUDA_SUCCESS);
    assert_int_equal(need.size, 4 * MIB);
    assert_int_equal(cuMipmappedArrayCreate(&mipmap, &descriptor, 11), CUDA_SUCCESS);
    assert_int_equal(cuMipmappedArrayGetMemoryRequirements(&need, mipmap, 0), CUDA_SUCCESS);
    assert_true(need.size > 5 * MIB && need.size < 6 * MIB);
    assert_int_equal(cuArrayGetSparseProperties(&tiles, ordinary), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(cuArrayGetSparseProperties(&tiles, sparse), CUDA_SUCCESS);
    assert_int_equal(tiles.tileExtent.width * tiles.tileExtent.height * tiles.tileExtent.depth * 4, 65536);
    assert_int_equal(cuMemcpyHtoA_v2(sparse, 0, "x", 1), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(used(), 4 * MIB);
    assert_int_equal(cuArrayDestroy(ordinary), CUDA_SUCCESS);
    assert_int_equal(cuArrayDestroy(deferred), CUDA_SUCCESS);
    assert_int_equal(cuArrayDestroy(sparse), CUDA_SUCCESS);
    assert_int_equal(cuMipmappedArrayDestroy(mipmap), CUDA_SUCCESS);
}

static void older_interfaces_have_their_own_structures(void **state)
{
    (void)state;
    CUDA_ARRAY_DESCRIPTOR_v1 narrow = {2048, 2048, CU_AD_FORMAT_FLOAT, 1};
    CUDA_ARRAY3D_DESCRIPTOR_v1 solid = {128, 128, 128, CU_AD_FORMAT_FLOAT, 1, 0};
    CUDA_ARRAY_DESCRIPTOR flat = {1024, 1024, CU_AD_FORMAT_SIGNED_INT16, 2}, seen;
    CUarray array[3];
    assert_int_equal(cuArrayCreate(&array[0], &narrow), CUDA_SUCCESS);
    assert_int_equal(cuArray3DCreate(&array[1], &solid), CUDA_SUCCESS);
    assert_int_equal(cuArrayCreate_v2(&array[2], &flat), CUDA_SUCCESS);
    assert_int_equal(used(), (16 + 8 + 4) * MIB);
    assert_int_equal(cuArrayGetDescriptor_v2(&seen, array[2]), CUDA_SUCCESS);
    assert_memory_equal(&seen, &flat, sizeof(seen));
    for (int i = 0; i < 3; i++)
        assert_int_equal(cuArrayDestroy(array[i]), CUDA_SUCCESS);
    assert_int_equal(used(), 0);
}

static void arrays_end_with_their_context(void **state)
{
    (void)state;
    CUcontext other;
    CUmipmappedArray mipmap;
    CUDA_ARRAY3D_DESCRIPTOR descriptor = shape(1024, 1024, 0, CU_AD_FORMAT_FLOAT, 1, 0), seen;
    assert_int_equal(cuCtxCreate_v2(&other, 0, 0), CUDA_SUCCESS);
    CUarray array = make(descriptor);
    assert_int_equal(cuMipmappedArrayCreate(&mipmap, &descriptor, 5), CUDA_SUCCESS);
    assert_true(used() > CONTEXT_BYTES);
    assert_int_equal(cuCtxDestroy_v2(other), CUDA_SUCCESS);
    assert_int_equal(used(), 0);
    assert_int_equal(cuCtxSetCurrent(context), CUDA_SUCCESS);
    assert_int_equal(cuArray3DGetDescriptor_v2(&seen, array), CUDA_ERROR_INVALID_HANDLE);
    assert_int_equal(cuArrayDestroy(array), CUDA_ERROR_INVALID_HANDLE);
    assert_int_equal(cuMipmappedArrayDestroy(mipmap), CUDA_ERROR_INVALID_HANDLE);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(arrays_cost_what_was_measured),
        cmocka_unit_test(small_arrays_share_blocks_with_small_memory),
        cmocka_unit_test(mipmapped_arrays_cost_the_sum_of_their_levels),
        cmocka_unit_test(levels_are_arrays_with_bytes_of_their_own),
        cmocka_unit_test(boxes_go_to_arrays_and_back),
        cmocka_unit_test(runs_follow_the_rows_of_an_array),
        cmocka_unit_test(wrong_descriptors_are_refused),
        cmocka_unit_test(arrays_without_memory_tell_what_they_will_need),
        cmocka_unit_test(older_interfaces_have_their_own_structures),
        cmocka_unit_test(arrays_end_with_their_context),
    };
    return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
