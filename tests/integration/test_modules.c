/* Modules, libraries, limits and green contexts under a budget, judged by the ledger and by the simulator's own count. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "integration/objects.h"

#define PTX ".version 8.0 .target sm_90 .address_size 64 "

static void file_write(struct stage *stage, const char *text, char path[128])
{
    snprintf(path, 128, "%s/module.ptx", stage->directory);
    FILE *file = fopen(path, "we");
    assert_non_null(file);
    fputs(text, file);
    assert_int_equal(fclose(file), 0);
}

static void every_way_of_loading_is_charged_what_it_takes(void **state)
{
    struct stage *stage = *state;
    struct client a;
    char path[128];
    static const char *const ways[] = {"data", "ex", "fat"};
    file_write(stage, PTX ".global .align 4 .b8 big[67108864];\n", path);
    objects_start(stage, &a, NULL, NULL);
    for (size_t i = 0; i < sizeof(ways) / sizeof(ways[0]); i++) {
        client_expect(&a, "ok", "module 0 %s " PTX ".global .align 4 .b8 big[67108864];", ways[i]);
        assert_int_equal(held(stage), 64 * MIB);
        books_agree(stage);
        client_expect(&a, "ok", "module 1 %s " PTX ".global .u32 one;", ways[i]);
        assert_int_equal(held(stage), 64 * MIB);
        client_expect(&a, "ok", "unload 0");
        client_expect(&a, "ok", "unload 1");
        client_expect(&a, "error 400", "unload 0");
        assert_int_equal(held(stage), 0);
        books_agree(stage);
    }
    client_expect(&a, "ok", "module 0 file %s", path); /* the simulator takes nothing for a file's variables */
    books_agree(stage);
    client_expect(&a, "ok", "unload 0");
    client_expect(&a, "error 301", "module 0 file %s.not", path);
    assert_int_equal(held(stage), 0);
    client_end(&a, 0);
    stage_await_empty(stage);
}

/* What no image says is measured. */
static void code_is_charged_as_the_card_says(void **state)
{
    struct stage *stage = *state;
    struct client a;
    objects_start(stage, &a, NULL, "module=83MiB");
    client_expect(&a, "ok", "module 0 data x");
    assert_int_equal(held(stage), 84 * MIB);
    books_agree(stage);
    client_expect(&a, "ok", "module 1 ex " PTX ".global .b32 a[1048576];");
    assert_int_equal(held(stage), 84 * MIB + 88 * MIB);
    books_agree(stage);
    client_expect(&a, "ok", "unload 0");
    client_expect(&a, "ok", "unload 1");
    assert_int_equal(held(stage), 0);
    books_agree(stage);
    client_end(&a, 0);
}

static void modules_are_refused_at_the_budget(void **state)
{
    struct stage *stage = *state;
    struct client a;
    objects_start(stage, &a, "1GiB", NULL);
    for (int i = 0; i < 4; i++)
        client_expect(&a, "ok", "module %d data " PTX ".global .b8 big[104857600];", i);
    client_expect(&a, "error 2", "module 4 data " PTX ".global .b8 big[104857600];");
    client_expect(&a, "error 2", "library 4 " PTX ".global .b8 big[104857600];");
    assert_int_equal(held(stage), 400 * MIB);
    books_agree(stage);
    client_expect(&a, "ok", "unload 2");
    client_expect(&a, "ok", "module 4 data " PTX ".global .b8 big[104857600];");
    assert_true(stage_witness_peak(stage) <= GIB);
    client_end(&a, 0);
}

/* What turns out bigger than the budget only once it is loaded is unloaded again. */
static void module_that_is_too_big_is_taken_back(void **state)
{
    struct stage *stage = *state;
    struct client a;
    objects_start(stage, &a, "1GiB", "module=300MiB");
    client_expect(&a, "ok", "module 0 data x");
    client_expect(&a, "error 2", "module 1 data x");
    assert_int_equal(held(stage), 300 * MIB);
    books_agree(stage);
    client_expect(&a, "ok", "unload 0");
    client_expect(&a, "ok", "module 1 data x");
    client_expect(&a, "ok", "unload 1");
    assert_int_equal(held(stage), 0);
    books_agree(stage);
    client_end(&a, 0);
}

/* Charged from the load on, taken at the first use: never more than is charged. */
static void libraries_are_charged_until_they_are_unloaded(void **state)
{
    struct stage *stage = *state;
    struct client a;
    char path[128];
    file_write(stage, PTX ".global .align 8 .b64 big[1048576];\n", path);
    objects_start(stage, &a, NULL, NULL);
    client_expect(&a, "ok", "library 0 " PTX ".global .b8 big[67108864];");
    assert_int_equal(held(stage), 64 * MIB);
    client_expect(&a, "ok", "function 0");
    assert_int_equal(held(stage), 64 * MIB);
    books_agree(stage);
    client_expect(&a, "ok", "libraryfile 1 %s", path);
    assert_int_equal(held(stage), 72 * MIB);
    client_expect(&a, "ok", "unlibrary 0");
    client_expect(&a, "ok", "unlibrary 1");
    client_expect(&a, "error 400", "unlibrary 1");
    assert_int_equal(held(stage), 0);
    books_agree(stage);
    client_end(&a, 0);
}

static void end_of_a_context_credits_its_modules_and_stacks(void **state)
{
    struct stage *stage = *state;
    struct client a;
    objects_start(stage, &a, NULL, NULL);
    client_expect(&a, "ok", "new");
    client_expect(&a, "ok", "module 0 data " PTX ".global .b8 big[67108864];");
    client_expect(&a, "ok", "limit 0 4096");
    assert_int_equal(held(stage), CONTEXT_BYTES + 64 * MIB + 792 * MIB);
    books_agree(stage);
    client_expect(&a, "ok", "end");
    assert_int_equal(held(stage), 0);
    books_agree(stage);
    client_expect(&a, "error 400", "unload 0");
    client_expect(&a, "ok", "module 0 data " PTX ".global .b8 big[67108864];");
    client_expect(&a, "ok", "reset");
    assert_int_equal(stage_used(stage), 0);
    books_agree(stage);
    client_end(&a, 0);
}

/* 3,072 bytes more for each of 132 x 2048 threads are 792 MiB: asked for before the driver is. */
static void stacks_are_charged_and_refused(void **state)
{
    struct stage *stage = *state;
    struct client a;
    objects_start(stage, &a, "2GiB", NULL);
    client_expect(&a, "ok", "limit 0 4096");
    assert_int_equal(held(stage), 792 * MIB);
    books_agree(stage);
    client_expect(&a, "ok", "limit 0 1024");
    assert_int_equal(held(stage), 0);
    books_agree(stage);
    client_expect(&a, "ok", "limit 0 4096");
    assert_int_equal(held(stage), 792 * MIB);
    books_agree(stage);
    client_expect(&a, "error 2", "limit 0 8192");
    client_expect(&a, "ok", "limit 1 67108864");
    client_expect(&a, "ok", "limit 2 268435456");
    client_expect(&a, "error 215", "limit 3 10");
    assert_int_equal(held(stage), 792 * MIB);
    books_agree(stage);
    assert_true(stage_witness_peak(stage) <= 2 * GIB);
    client_expect(&a, "ok", "uncontext");
    assert_int_equal(stage_used(stage), 0);
    client_end(&a, 0);
}

static void green_contexts_are_charged_to_the_primary_one(void **state)
{
    struct stage *stage = *state;
    struct client a;
    objects_start(stage, &a, NULL, NULL);
    client_expect(&a, "ok", "green 0");
    assert_int_equal(held(stage), 6 * MIB);
    client_expect(&a, "ok", "green 1");
    assert_int_equal(held(stage), 10 * MIB);
    books_agree(stage);
    client_expect(&a, "ok", "greenalloc 0 %llu", 20 * MIB);
    assert_int_equal(held(stage), 30 * MIB);
    client_expect(&a, "ok", "ungreen 0");
    assert_int_equal(held(stage), 30 * MIB);
    books_agree(stage);
    client_expect(&a, "ok", "free 0");
    client_expect(&a, "ok", "greenalloc 1 %llu", 20 * MIB);
    client_expect(&a, "ok", "uncontext"); /* the green one keeps the primary context */
    assert_int_equal(held(stage), 30 * MIB);
    books_agree(stage);
    client_expect(&a, "ok", "ungreen 1");
    assert_int_equal(stage_used(stage), 0);
    books_agree(stage);
    client_expect(&a, "ok", "green 2"); /* makes the primary context itself */
    assert_int_equal(held(stage), 6 * MIB);
    books_agree(stage);
    client_expect(&a, "ok", "ungreen 2");
    assert_int_equal(stage_used(stage), 0);
    books_agree(stage);
    client_end(&a, 0);
}

static void failing_calls_leave_the_books_as_they_were(void **state)
{
    struct stage *stage = *state;
    struct client a;
    objects_start(stage, &a, NULL,
                  "fail=cuModuleLoadData:1:999,fail=cuModuleUnload:1:700,fail=cuLibraryLoadData:1:2,"
                  "fail=cuLibraryUnload:1:700,fail=cuCtxSetLimit:1:999,fail=cuGreenCtxCreate:1:999,"
                  "fail=cuGreenCtxDestroy:1:700");
    client_expect(&a, "error 999", "module 0 data " PTX ".global .b8 big[67108864];");
    client_expect(&a, "error 2", "library 0 " PTX ".global .b8 big[67108864];");
    client_expect(&a, "error 999", "limit 0 4096");
    client_expect(&a, "error 999", "green 0");
    assert_int_equal(held(stage), 0);
    books_agree(stage);
    client_expect(&a, "ok", "module 0 data " PTX ".global .b8 big[67108864];");
    client_expect(&a, "ok", "library 1 " PTX ".global .b8 big[67108864];");
    client_expect(&a, "ok", "function 1");
    client_expect(&a, "ok", "green 2");
    client_expect(&a, "error 700", "unload 0");
    client_expect(&a, "error 700", "unlibrary 1");
    client_expect(&a, "error 700", "ungreen 2");
    assert_int_equal(held(stage), 134 * MIB);
    books_agree(stage);
    client_expect(&a, "ok", "ungreen 2");
    client_expect(&a, "ok", "unlibrary 1");
    client_expect(&a, "ok", "unload 0");
    client_expect(&a, "ok", "uncontext");
    assert_int_equal(stage_used(stage), 0);
    books_agree(stage);
    client_end(&a, 0);
}

/* The card had it for a moment. */
static void calls_that_fail_late_leave_the_books_as_they_were(void **state)
{
    struct stage *stage = *state;
    struct client a;
    objects_start(
        stage, &a, NULL,
        "fail-after=cuModuleLoadData:0:999,fail-after=cuLibraryLoadData:0:999,fail-after=cuGreenCtxCreate:0:2");
    for (int i = 0; i < 3; i++) {
        client_expect(&a, "error 999", "module 0 data " PTX ".global .b8 big[67108864];");
        client_expect(&a, "error 999", "module 0 data x");
        client_expect(&a, "error 999", "library 0 " PTX ".global .b8 big[67108864];");
        client_expect(&a, "error 2", "green 0");
        assert_int_equal(held(stage), 0);
        books_agree(stage);
    }
    client_expect(&a, "ok", "uncontext");
    assert_int_equal(stage_used(stage), 0);
    client_expect(&a, "error 2", "green 0"); /* made a primary context, and ended it */
    assert_int_equal(stage_used(stage), 0);
    books_agree(stage);
    client_end(&a, 0);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(every_way_of_loading_is_charged_what_it_takes, stage_setup, stage_teardown),
        cmocka_unit_test_setup_teardown(code_is_charged_as_the_card_says, stage_setup, stage_teardown),
        cmocka_unit_test_setup_teardown(modules_are_refused_at_the_budget, stage_setup, stage_teardown),
        cmocka_unit_test_setup_teardown(module_that_is_too_big_is_taken_back, stage_setup, stage_teardown),
        cmocka_unit_test_setup_teardown(libraries_are_charged_until_they_are_unloaded, stage_setup, stage_teardown),
        cmocka_unit_test_setup_teardown(end_of_a_context_credits_its_modules_and_stacks, stage_setup, stage_teardown),
        cmocka_unit_test_setup_teardown(stacks_are_charged_and_refused, stage_setup, stage_teardown),
        cmocka_unit_test_setup_teardown(green_contexts_are_charged_to_the_primary_one, stage_setup, stage_teardown),
        cmocka_unit_test_setup_teardown(calls_that_fail_late_leave_the_books_as_they_were, stage_setup, stage_teardown),
        cmocka_unit_test_setup_teardown(failing_calls_leave_the_books_as_they_were, stage_setup, stage_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
