/* Sizes and times as people write them: what is read, what is refused and how, and what is written. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "platform/size.h"

#define KIB (1ULL << 10)
#define MIB (1ULL << 20)
#define GIB (1ULL << 30)
#define TIB (1ULL << 40)

static void sizes_read(void **state)
{
    static const struct {
        const char *text;
        uint64_t bytes;
    } good[] = {
        {"0", 0},
        {"1", 1},
        {"17B", 17},
        {"17 B", 17},
        {"4K", 4 * KIB},
        {"4kib", 4 * KIB},
        {"4KB", 4000},
        {"3M", 3 * MIB},
        {"3 MiB", 3 * MIB},
        {"3mb", 3000000},
        {"8G", 8 * GIB},
        {"8GiB", 8 * GIB},
        {"8GIB", 8 * GIB},
        {"8GB", 8000000000},
        {"2T", 2 * TIB},
        {"2TiB", 2 * TIB},
        {"2TB", 2000000000000},
        {"1.5GiB", 3 * GIB / 2},
        {"0.5K", 512},
        {"1.000", 1},
        {"0.0009765625K", 1},
        {"007", 7},
        {"1.10KB", 1100},
        {"9223372036854775807", INT64_MAX},
        {"8388607T", 8388607 * TIB},
    };
    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        uint64_t bytes = 42;
        if (size_parse(good[i].text, &bytes) != 0 || bytes != good[i].bytes)
            fail_msg("'%s' was read as %llu", good[i].text, (unsigned long long)bytes);
    }
}

static void sizes_refused(void **state)
{
    static const struct {
        const char *text;
        int result;
    } bad[] = {
        {"", -EINVAL},
        {" 8G", -EINVAL},
        {"8G ", -EINVAL},
        {"8  G", -EINVAL},
        {"8 ", -EINVAL},
        {"-1", -EINVAL},
        {"+1", -EINVAL},
        {"8 gigs", -EINVAL},
        {"8Gi", -EINVAL},
        {"8P", -EINVAL},
        {"0x10", -EINVAL},
        {"1e9", -EINVAL},
        {".5G", -EINVAL},
        {"1.G", -EINVAL},
        {"1,5G", -EINVAL},
        {"1.5", -EINVAL},
        {"0.3K", -EINVAL},
        {"G", -EINVAL},
        {"nan", -EINVAL},
        {"8G\n", -EINVAL},
        {"1.0000000000000000001G", -EINVAL},
        {"9223372036854775808", -ERANGE},
        {"18446744073709551616", -ERANGE},
        {"99999999999999999999999999", -ERANGE},
        {"8388608T", -ERANGE},
        {"99999999999999999999 gigs", -EINVAL},
    };
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        uint64_t bytes = 42;
        int result = size_parse(bad[i].text, &bytes);
        if (result != bad[i].result)
            fail_msg("'%s': %d instead of %d", bad[i].text, result, bad[i].result);
        assert_int_equal(bytes, 42);
    }
}

static void sizes_written(void **state)
{
    static const struct {
        uint64_t bytes;
        const char *text;
    } pairs[] = {
        {0, "0 B"},
        {512, "512 B"},
        {1023, "1023 B"},
        {KIB, "1 KiB"},
        {KIB + 1, "1.00 KiB"},
        {1536, "1.50 KiB"},
        {527 * MIB, "527 MiB"},
        {8 * GIB, "8 GiB"},
        {3 * GIB / 2, "1.50 GiB"},
        {GIB - 1, "1.00 GiB"},
        {1024 * TIB, "1024 TiB"},
        {UINT64_MAX, "16777216.00 TiB"},
    };
    char text[SIZE_TEXT_BYTES], small[5];
    (void)state;
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++)
        assert_string_equal(size_format(pairs[i].bytes, text, sizeof text), pairs[i].text);
    assert_string_equal(size_format(527 * MIB, small, sizeof small), "527 ");
}

/* What is written exactly can be read back. */
static void sizes_round_trip(void **state)
{
    char text[SIZE_TEXT_BYTES];
    (void)state;
    for (uint64_t bytes = 1; bytes < 1ULL << 62; bytes *= 2) {
        uint64_t back = 0;
        assert_int_equal(size_parse(size_format(bytes, text, sizeof text), &back), 0);
        assert_int_equal(back, bytes);
    }
}

static void times_read(void **state)
{
    static const struct {
        const char *text;
        int result;
        uint32_t ms;
    } times[] = {
        {"0", 0, 0},
        {"250ms", 0, 250},
        {"30s", 0, 30000},
        {"1.5s", 0, 1500},
        {"2m", 0, 120000},
        {"0s", 0, 0},
        {"34560m", 0, 2073600000},
        {"3 s", 0, 3000},
        {"34561m", -ERANGE, 0},
        {"25d", -EINVAL, 0},
        {"5", -EINVAL, 0},
        {"-1s", -EINVAL, 0},
        {"", -EINVAL, 0},
        {"0.5ms", -EINVAL, 0},
        {"soon", -EINVAL, 0},
        {"1s ", -EINVAL, 0},
        {"1h", -EINVAL, 0},
        {"99999999999999999999s", -ERANGE, 0},
    };
    (void)state;
    for (size_t i = 0; i < sizeof times / sizeof *times; i++) {
        uint32_t ms = 42;
        int result = time_parse_ms(times[i].text, &ms);
        if (result != times[i].result || ms != (result == 0 ? times[i].ms : 42))
            fail_msg("'%s': %d, %u ms", times[i].text, result, ms);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes_read),       cmocka_unit_test(sizes_refused), cmocka_unit_test(sizes_written),
        cmocka_unit_test(sizes_round_trip), cmocka_unit_test(times_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
