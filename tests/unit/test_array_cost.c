/* What arrays are taken to cost before the driver is asked: as an H100 showed it, and never less than nothing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "account/account.h"
#include "account/array_cost.h"

#define MIB (1024ULL * 1024)

static uint64_t cost(size_t width, size_t height, size_t depth, CUarray_format format, unsigned channels,
                     unsigned flags, unsigned levels)
{
    CUDA_ARRAY3D_DESCRIPTOR descriptor = {width, height, depth, format, channels, flags};
    return array_cost(&descriptor, levels);
}

static uint64_t float_mib(size_t width, size_t height, size_t depth, unsigned channels, unsigned flags, unsigned levels)
{
    return linear_cost(cost(width, height, depth, CU_AD_FORMAT_FLOAT, channels, flags, levels)) / MIB;
}

static void costs_are_what_was_measured(void **state)
{
    (void)state;
    assert_int_equal(float_mib(1000, 1000, 0, 1, 0, 1), 4);
    assert_int_equal(float_mib(1025, 1024, 0, 1, 0, 1), 6);
    assert_int_equal(float_mib(1024, 1025, 0, 1, 0, 1), 6);
    assert_int_equal(float_mib(4097, 4097, 0, 1, 0, 1), 68);
    assert_int_equal(float_mib(513, 513, 0, 4, 0, 1), 6);
    assert_int_equal(float_mib(100000, 0, 0, 4, 0, 1), 14);
    assert_int_equal(float_mib(131072, 0, 0, 4, 0, 1), 16);
    assert_int_equal(float_mib(3, 50000, 0, 1, 0, 1), 4);
    assert_int_equal(float_mib(128, 128, 128, 1, 0, 1), 8);
    assert_int_equal(float_mib(100, 100, 100, 1, 0, 1), 6);
    assert_int_equal(float_mib(129, 65, 33, 4, 0, 1), 8);
    assert_int_equal(float_mib(500, 500, 7, 1, CUDA_ARRAY3D_LAYERED, 1), 8);
    assert_int_equal(float_mib(256, 256, 12, 1, CUDA_ARRAY3D_LAYERED | CUDA_ARRAY3D_CUBEMAP, 1), 4);
    assert_int_equal(linear_cost(cost(10000, 10000, 0, CU_AD_FORMAT_HALF, 2, 0, 1)) / MIB, 386);
    assert_int_equal(linear_cost(cost(2000, 3000, 0, CU_AD_FORMAT_SIGNED_INT8, 1, 0, 1)) / MIB, 6);
}

static void mipmaps_cost_the_sum_of_their_levels(void **state)
{
    (void)state;
    assert_int_equal(float_mib(1024, 1024, 0, 1, 0, 11), 6);
    assert_int_equal(float_mib(1000, 700, 0, 1, 0, 10), 6);
    assert_int_equal(float_mib(4096, 4096, 0, 1, 0, 13), 86);
    assert_int_equal(float_mib(512, 512, 6, 1, CUDA_ARRAY3D_CUBEMAP, 10), 10);
    assert_int_equal(float_mib(300, 200, 5, 2, CUDA_ARRAY3D_LAYERED, 4), 4);
    assert_int_equal(cost(1024, 1024, 0, CU_AD_FORMAT_FLOAT, 1, 0, 11),
                     cost(1024, 1024, 0, CU_AD_FORMAT_FLOAT, 1, 0, 4000));
}

static void formats_have_their_sizes(void **state)
{
    (void)state;
    assert_int_equal(cost(1024, 1024, 0, CU_AD_FORMAT_UNORM_INT8X4, 4, 0, 1), 4 * MIB);
    assert_int_equal(cost(1024, 1024, 0, CU_AD_FORMAT_SNORM_INT16X4, 4, 0, 1), 8 * MIB);
    assert_int_equal(cost(1024, 1024, 0, CU_AD_FORMAT_UNORM_INT_101010_2, 4, 0, 1), 4 * MIB);
    assert_int_equal(cost(4096, 4096, 0, CU_AD_FORMAT_BC1_UNORM, 4, 0, 1), 8 * MIB);
    assert_int_equal(cost(4096, 4096, 0, CU_AD_FORMAT_BC7_UNORM_SRGB, 4, 0, 1), 16 * MIB);
    assert_true(cost(1024, 1024, 0, CU_AD_FORMAT_NV12, 1, 0, 1) >= 3 * MIB / 2); /* what it holds, and maybe more */
    assert_true(cost(1024, 1024, 0, 0x7F, 4, 0, 1) >= 4 * MIB);
}

static void what_holds_nothing_costs_nothing(void **state)
{
    (void)state;
    assert_int_equal(cost(1024, 1024, 0, CU_AD_FORMAT_FLOAT, 1, CUDA_ARRAY3D_SPARSE, 1), 0);
    assert_int_equal(cost(1024, 1024, 0, CU_AD_FORMAT_FLOAT, 1, CUDA_ARRAY3D_DEFERRED_MAPPING, 11), 0);
    assert_int_equal(cost(0, 1024, 0, CU_AD_FORMAT_FLOAT, 1, 0, 1), 0);
    assert_int_equal(cost(1024, 1024, 0, CU_AD_FORMAT_FLOAT, 1, 0, 0), 0);
    assert_int_equal(cost(1024, 1024, 0, CU_AD_FORMAT_FLOAT, 1, CUDA_ARRAY3D_LAYERED, 1), 0);
}

/* No descriptor makes a sum that wraps round to something small. */
static void absurd_sizes_do_not_wrap_round(void **state)
{
    (void)state;
    static const size_t sides[] = {SIZE_MAX, SIZE_MAX / 2, SIZE_MAX / 16 + 1, 1ULL << 62, 1ULL << 40};
    for (size_t i = 0; i < sizeof(sides) / sizeof(sides[0]); i++) {
        assert_true(cost(sides[i], sides[i], 0, CU_AD_FORMAT_FLOAT, 4, 0, 1) > 1ULL << 60);
        assert_true(cost(sides[i], sides[i], sides[i], CU_AD_FORMAT_FLOAT, 4, 0, 64) > 1ULL << 60);
        assert_true(cost(sides[i], 0, 0, CU_AD_FORMAT_FLOAT, 4, 0, 1) > 1ULL << 40);
        assert_true(cost(1, sides[i], 0, CU_AD_FORMAT_UNSIGNED_INT8, 1, 0, 1) > 1ULL << 40);
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(costs_are_what_was_measured),    cmocka_unit_test(mipmaps_cost_the_sum_of_their_levels),
        cmocka_unit_test(formats_have_their_sizes),       cmocka_unit_test(what_holds_nothing_costs_nothing),
        cmocka_unit_test(absurd_sizes_do_not_wrap_round),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
