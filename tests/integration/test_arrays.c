/* Arrays under a budget, judged by the ledger and by the simulator's own count. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "integration/objects.h"

/* The same with a budget of 1 GiB, of which the client is left so much, and less than a block. */
static uint64_t filler(uint64_t bytes)
{
    return (GIB - CONTEXT_BYTES - bytes) / (2 * MIB) * 2 * MIB;
}

static void objects_start_tight(struct stage *stage, struct client *client, uint64_t bytes)
{
    objects_start(stage, client, "1GiB", NULL);
    client_expect(client, "ok", "alloc 2047 %llu", (unsigned long long)filler(bytes));
}

static uint64_t held_tight(struct stage *stage, uint64_t bytes)
{
    return held(stage) - filler(bytes);
}

static void every_way_of_making_one_is_charged_what_it_takes(void **state)
{
    struct stage *stage = *state;
    struct client a;
    static const struct {
        const char *command;
        uint64_t mib;
    } cases[] = {
        {"array 0 4096 4096 0 0x20 1 0", 64},
        {"array2 0 4097 4097 0 0x20 1 0", 68},
        {"array3v1 0 128 128 128 0x20 1 0", 8},
        {"array2v1 0 2048 2048 0 0x20 1 0", 16},
        {"array 0 131072 0 0 0x20 4 0", 16},
        {"array 0 500 500 7 0x20 1 1", 8},
        {"array 0 256 256 12 0x20 1 5", 4},
        {"array 0 129 65 33 0x20 4 0", 8},
        {"array 0 1024 1024 0 0x20 1 0x40", 0},
        {"array 0 1024 1024 0 0x20 1 0x80", 0},
        {"mipmap 0 4096 4096 0 0x20 1 0 13", 86},
        {"mipmap 0 512 512 6 0x20 1 4 10", 10},
        {"mipmap 0 2048 2048 0 0x20 1 0x80 12", 0},
        {"array 0 1 60000 0 1 1 0", 4},
        {"array 0 100 3 0 0x20 1 0", 2},
        {"mipmap 0 64 64 0 0x20 1 0 3", 2},
        {"array 0 10000 10000 0 0x10 2 0", 386},
        {"array 0 1024 1024 0 0xc2 4 0", 4},
    };
    objects_start(stage, &a, NULL, NULL);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        client_expect(&a, "ok", "%s", cases[i].command);
        if (held(stage) != cases[i].mib * MIB)
            fail_msg("%s: %llu bytes", cases[i].command, (unsigned long long)held(stage));
        books_agree(stage);
        client_expect(&a, "ok", "destroy 0");
        assert_int_equal(held(stage), 0);
        books_agree(stage);
    }
    client_end(&a, 0);
    stage_await_empty(stage);
}

static void arrays_are_refused_at_the_budget(void **state)
{
    struct stage *stage = *state;
    struct client a;
    objects_start_tight(stage, &a, 65 * MIB);
    for (int i = 0; i < 4; i++)
        client_expect(&a, "ok", "array %d 2048 2048 0 0x20 1 0", i);
    client_expect(&a, "error 2", "array 4 2048 2048 0 0x20 1 0");
    client_expect(&a, "error 2", "mipmap 4 1024 512 0 0x20 1 0 9");
    client_expect(&a, "error 2", "array 4 16 16 0 0x20 1 0");
    client_expect(&a, "error 2", "alloc 4 1");
    client_expect(&a, "error 1", "array 4 0 16 0 0x20 1 0");
    client_expect(&a, "ok", "array 4 8192 8192 0 0x20 1 0x80");
    client_expect(&a, "ok", "destroy 2");
    client_expect(&a, "ok", "mipmap 2 1024 1024 0 0x20 1 0 2");
    client_expect(&a, "ok", "array 5 1024 512 0 0x20 1 0");
    assert_true(stage_witness_peak(stage) <= GIB);
    for (int i = 0; i < 6; i++)
        client_expect(&a, "ok", "destroy %d", i);
    assert_int_equal(held_tight(stage, 65 * MIB), 0);
    books_agree(stage);
    client_end(&a, 0);
}

/* What shares blocks is charged as much as the card has taken for it, and no block is lost between arrays and memory. */
static void small_arrays_are_charged_the_blocks_they_take(void **state)
{
    enum { MANY = 100 };
    struct stage *stage = *state;
    struct client a;
    objects_start(stage, &a, NULL, NULL);
    for (int i = 0; i < MANY; i++)
        client_expect(&a, "ok", "array %d 256 256 0 0x20 1 0", i);
    assert_int_equal(held(stage), 26 * MIB);
    books_agree(stage);
    for (int i = 0; i < MANY; i += 2)
        client_expect(&a, "ok", "destroy %d", i);
    assert_int_equal(held(stage), 26 * MIB);
    books_agree(stage);
    for (int i = 1; i < MANY; i += 2)
        client_expect(&a, "ok", "destroy %d", i);
    assert_int_equal(held(stage), 0);
    books_agree(stage);
    client_expect(&a, "ok", "alloc 0 1000");
    client_expect(&a, "ok", "array 0 64 64 0 0x20 1 0");
    assert_int_equal(held(stage), 2 * MIB);
    client_expect(&a, "ok", "free 0"); /* the block stays, for the array */
    assert_int_equal(held(stage), 2 * MIB);
    books_agree(stage);
    client_expect(&a, "ok", "destroy 0");
    assert_int_equal(held(stage), 0);
    client_end(&a, 0);
}

/* Memory and arrays in turn, each block with one of both; then the memory goes, and the arrays hold every block. */
static void no_mix_of_small_things_takes_more_than_the_budget(void **state)
{
    enum { BLOCKS = 16 };
    struct stage *stage = *state;
    struct client a;
    objects_start_tight(stage, &a, 2 * BLOCKS * MIB);
    for (int i = 0; i < BLOCKS; i++) {
        client_expect(&a, "ok", "alloc %d 1048576", i);
        if (i + 1 < BLOCKS) /* each asks for a block first: the last has none to ask for */
            client_expect(&a, "ok", "array %d 512 512 0 0x20 1 0", i);
    }
    for (int i = 0; i < BLOCKS; i++)
        client_expect(&a, "ok", "free %d", i);
    for (int i = 0; i < 2 * BLOCKS; i++)
        (void)client_ask(&a, "alloc %d 2097152", i);
    assert_true(stage_witness_peak(stage) <= GIB);
    assert_true(stage_used(stage) <= GIB);
    assert_true(stage_used(stage) >= stage_witness_used(stage));
    client_end(&a, 0);
}

static void random_mixes_stay_within_the_budget(void **state)
{
    struct stage *stage = *state;
    struct client a;
    objects_start_tight(stage, &a, 24 * MIB);
    for (int seed = 1; seed <= 5; seed++) {
        client_expect(&a, "ok", "churn 2000 %d", seed);
        assert_int_equal(held_tight(stage, 24 * MIB), 0);
        books_agree(stage);
    }
    assert_true(stage_witness_peak(stage) <= GIB);
    client_end(&a, 0);
}

static void end_of_a_context_credits_its_arrays(void **state)
{
    struct stage *stage = *state;
    struct client a;
    objects_start(stage, &a, NULL, NULL);
    client_expect(&a, "ok", "new");
    client_expect(&a, "ok", "array 0 2048 2048 0 0x20 1 0");
    client_expect(&a, "ok", "mipmap 1 1024 1024 0 0x20 1 0 11");
    for (int i = 2; i < 20; i++)
        client_expect(&a, "ok", "array %d 256 256 0 0x20 1 0", i);
    books_agree(stage);
    client_expect(&a, "ok", "end");
    assert_int_equal(held(stage), 0);
    books_agree(stage);
    client_expect(&a, "error 400", "destroy 0");
    client_expect(&a, "error 400", "destroy 1");
    client_expect(&a, "error 400", "destroy 5");
    client_expect(&a, "ok", "array 0 256 256 0 0x20 1 0");
    client_expect(&a, "ok", "array 1 2048 2048 0 0x20 1 0");
    client_expect(&a, "ok", "reset");
    assert_int_equal(stage_used(stage), 0);
    books_agree(stage);
    client_end(&a, 0);
}

static void failing_calls_leave_the_books_as_they_were(void **state)
{
    struct stage *stage = *state;
    struct client a;
    objects_start(stage, &a, NULL,
                  "fail=cuArray3DCreate_v2:2:999,fail=cuMipmappedArrayCreate:1:2,fail=cuArrayDestroy:1:700,"
                  "fail=cuMipmappedArrayDestroy:1:700,fail=cuArray3DCreate_v2:3:700");
    client_expect(&a, "ok", "array 0 2048 2048 0 0x20 1 0");
    client_expect(&a, "error 999", "array 1 2048 2048 0 0x20 1 0");
    client_expect(&a, "error 700", "array 1 64 64 0 0x20 1 0");
    client_expect(&a, "error 2", "mipmap 1 2048 2048 0 0x20 1 0 2");
    assert_int_equal(held(stage), 16 * MIB);
    client_expect(&a, "error 700", "destroy 0");
    assert_int_equal(held(stage), 16 * MIB);
    books_agree(stage);
    client_expect(&a, "ok", "mipmap 1 64 64 0 0x20 1 0 2");
    client_expect(&a, "error 700", "destroy 1");
    assert_int_equal(held(stage), 18 * MIB);
    books_agree(stage);
    client_expect(&a, "ok", "destroy 1");
    client_expect(&a, "ok", "destroy 0");
    client_expect(&a, "error 400", "destroy 0");
    assert_int_equal(held(stage), 0);
    books_agree(stage);
    client_end(&a, 0);
}

/* The card had it for a moment. */
static void calls_that_fail_late_leave_the_books_as_they_were(void **state)
{
    struct stage *stage = *state;
    struct client a;
    objects_start(stage, &a, NULL, "fail-after=cuArray3DCreate_v2:0:999,fail-after=cuMipmappedArrayCreate:0:2");
    for (int i = 0; i < 3; i++) {
        client_expect(&a, "error 999", "array 0 2048 2048 0 0x20 1 0");
        client_expect(&a, "error 999", "array 0 64 64 0 0x20 1 0");
        client_expect(&a, "error 2", "mipmap 0 2048 2048 0 0x20 1 0 2");
        assert_int_equal(held(stage), 0);
        books_agree(stage);
    }
    client_expect(&a, "ok", "array2 0 64 64 0 0x20 1 0");
    assert_int_equal(held(stage), 2 * MIB);
    client_expect(&a, "ok", "destroy 0");
    assert_int_equal(held(stage), 0);
    books_agree(stage);
    client_end(&a, 0);
}

static void interface_of_32_bits_is_charged(void **state)
{
    struct stage *stage = *state;
    struct client a;
    objects_start_tight(stage, &a, 32 * MIB);
    client_expect(&a, "ok", "null");
    client_expect(&a, "ok", "narrow 0 %llu", 20 * MIB);
    assert_int_equal(held_tight(stage, 32 * MIB), 20 * MIB);
    client_expect(&a, "ok", "pitch 1 1001 8192");
    assert_int_equal(held_tight(stage, 32 * MIB), 28 * MIB);
    books_agree(stage);
    client_expect(&a, "error 2", "narrow 2 %llu", 6 * MIB);
    client_expect(&a, "error 2", "pitch 2 1001 8192");
    client_expect(&a, "ok", "narrow 2 100");
    client_expect(&a, "ok", "unnarrow 0");
    client_expect(&a, "ok", "unnarrow 2");
    client_expect(&a, "ok", "unnarrow 1");
    assert_int_equal(held_tight(stage, 32 * MIB), 0);
    books_agree(stage);
    assert_true(stage_witness_peak(stage) <= GIB);
    client_end(&a, 0);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(every_way_of_making_one_is_charged_what_it_takes, stage_setup, stage_teardown),
        cmocka_unit_test_setup_teardown(arrays_are_refused_at_the_budget, stage_setup, stage_teardown),
        cmocka_unit_test_setup_teardown(small_arrays_are_charged_the_blocks_they_take, stage_setup, stage_teardown),
        cmocka_unit_test_setup_teardown(no_mix_of_small_things_takes_more_than_the_budget, stage_setup, stage_teardown),
        cmocka_unit_test_setup_teardown(random_mixes_stay_within_the_budget, stage_setup, stage_teardown),
        cmocka_unit_test_setup_teardown(end_of_a_context_credits_its_arrays, stage_setup, stage_teardown),
        cmocka_unit_test_setup_teardown(failing_calls_leave_the_books_as_they_were, stage_setup, stage_teardown),
        cmocka_unit_test_setup_teardown(calls_that_fail_late_leave_the_books_as_they_were, stage_setup, stage_teardown),
        cmocka_unit_test_setup_teardown(interface_of_32_bits_is_charged, stage_setup, stage_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
