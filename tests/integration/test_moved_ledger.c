/* A ledger file that is removed or replaced under running programs: their charges move to the new one, and a line says so. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "integration/stage.h"

static void ledger_unlink(struct stage *stage)
{
    char path[128];
    snprintf(path, sizeof(path), "%s/default.ledger", stage->directory);
    assert_int_equal(unlink(path), 0);
}

/* Idle programs move by themselves: nobody asks them anything meanwhile. */
static void used_await(struct stage *stage, uint64_t bytes)
{
    char path[128];
    snprintf(path, sizeof(path), "%s/default.ledger", stage->directory);
    for (int look = 0; look < 6000; look++) {
        if (access(path, F_OK) == 0 && stage_used(stage) == bytes)
            return;
        nanosleep(&(struct timespec){.tv_nsec = 10 * 1000 * 1000}, NULL);
    }
    assert_int_equal(stage_used(stage), bytes);
}

static int line_count(const char *path, const char *part)
{
    char line[1024];
    int count = 0;
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    while (fgets(line, sizeof(line), file))
        count += strstr(line, part) != NULL;
    fclose(file);
    return count;
}

static void charges_of_idle_programs_move(void **state)
{
    struct stage *stage = *state;
    struct client a, b, late;
    char log_file[128];
    snprintf(log_file, sizeof(log_file), "%s/log", stage->directory);
    client_start(stage, &a, &(struct client_terms){.slot = "a", .budget = "6GiB", .log_file = log_file});
    client_expect(&a, "ok", "init");
    client_expect(&a, "ok", "alloc 0 %llu", GIB);
    client_start(stage, &b, &(struct client_terms){.slot = "b", .log_file = log_file});
    client_expect(&b, "ok", "init");
    client_expect(&b, "ok", "alloc 0 %llu", 2 * GIB);
    ledger_unlink(stage);
    used_await(stage, 3 * GIB + 2 * CONTEXT_BYTES);
    assert_int_equal(line_count(log_file, "moved"), 2);
    client_start(stage, &late, &(struct client_terms){.slot = "late"});
    client_expect(&late, "ok", "init");
    client_expect(&late, "error 2", "alloc 0 %llu", 3 * GIB);
    client_expect(&a, "ok", "free 0");
    client_expect(&late, "ok", "alloc 0 %llu", 2 * GIB);
    assert_int_equal(stage_used(stage), stage_witness_used(stage));
    client_end(&a, 0);
    client_end(&b, 0);
    client_end(&late, 0);
    stage_await_empty(stage);
}

static void charges_move_to_a_ledger_that_somebody_else_made(void **state)
{
    struct stage *stage = *state;
    struct client a, b;
    client_start(stage, &a, &(struct client_terms){.slot = "a"});
    client_expect(&a, "ok", "init");
    client_expect(&a, "ok", "alloc 0 %llu", GIB);
    for (int round = 0; round < 3; round++) {
        ledger_unlink(stage);
        client_start(stage, &b, &(struct client_terms){.slot = "b"});
        client_expect(&b, "ok", "init");
        used_await(stage, GIB + 2 * CONTEXT_BYTES);
        client_end(&b, 0);
        used_await(stage, GIB + CONTEXT_BYTES);
    }
    client_expect(&a, "ok", "free 0");
    assert_int_equal(stage_used(stage), CONTEXT_BYTES);
    client_end(&a, 0);
    stage_await_empty(stage);
}

/* While no other ledger can be had it says so once, not every second; and moves when one can be. */
static void stranded_program_says_so_once(void **state)
{
    struct stage *stage = *state;
    struct client a;
    char log_file[128], path[128];
    snprintf(log_file, sizeof(log_file), "%s/log", stage->directory);
    snprintf(path, sizeof(path), "%s/default.ledger", stage->directory);
    client_start(stage, &a, &(struct client_terms){.slot = "a", .log_file = log_file});
    client_expect(&a, "ok", "init");
    client_expect(&a, "ok", "alloc 0 %llu", GIB);
    ledger_unlink(stage);
    assert_int_equal(mkdir(path, 0700), 0); /* what lies there cannot be a ledger */
    for (int look = 0; look < 6000 && (access(log_file, F_OK) != 0 || line_count(log_file, "is gone") == 0); look++)
        nanosleep(&(struct timespec){.tv_nsec = 10 * 1000 * 1000}, NULL);
    nanosleep(&(struct timespec){.tv_sec = 2, .tv_nsec = 500 * 1000 * 1000}, NULL);
    assert_int_equal(line_count(log_file, "is gone"), 1);
    client_expect(&a, "ok", "alloc 1 %llu", GIB);
    assert_int_equal(rmdir(path), 0);
    used_await(stage, 2 * GIB + CONTEXT_BYTES);
    client_end(&a, 0);
    stage_await_empty(stage);
}

/* Terms that were changed under way, and those of a plan that the program was never told, are not lost with the file; nor that
 * somebody set some to nothing or the default. */
static void terms_move(void **state)
{
    struct stage *stage = *state;
    struct client a, plain;
    struct slot_terms nothing = {
        .has_limit = true, .limit_bytes = LEDGER_NO_LIMIT, .has_reserve = true, .has_priority = true, .priority = 50};
    struct ledger_fault fault;
    struct slot_terms terms = {.has_limit = true,
                               .limit_bytes = 3 * GIB,
                               .has_reserve = true,
                               .reserve_bytes = GIB,
                               .has_priority = true,
                               .priority = 7};
    client_start(stage, &a, &(struct client_terms){.slot = "a", .limit = "5GiB"});
    client_expect(&a, "ok", "init");
    int slot = ledger_slot_find(stage_ledger(stage), "a");
    assert_true(slot >= 0);
    assert_int_equal(ledger_slot_change(stage_ledger(stage), (unsigned)slot, &terms, &fault), 0);
    client_start(stage, &plain, &(struct client_terms){.slot = "plain"});
    client_expect(&plain, "ok", "init");
    slot = ledger_slot_find(stage_ledger(stage), "plain");
    assert_int_equal(ledger_slot_change(stage_ledger(stage), (unsigned)slot, &nothing, &fault), 0);
    ledger_unlink(stage);
    used_await(stage, 2 * CONTEXT_BYTES);
    slot = ledger_slot_find(stage_ledger(stage), "plain");
    assert_true(slot >= 0);
    ledger_slot_terms(stage_ledger(stage), (unsigned)slot, &nothing);
    assert_true(nothing.has_limit && nothing.limit_bytes == LEDGER_NO_LIMIT && nothing.has_reserve &&
                nothing.has_priority);
    client_end(&plain, 0);
    slot = ledger_slot_find(stage_ledger(stage), "a");
    assert_true(slot >= 0);
    ledger_slot_terms(stage_ledger(stage), (unsigned)slot, &terms);
    assert_int_equal(terms.limit_bytes, 3 * GIB);
    assert_int_equal(terms.reserve_bytes, GIB);
    assert_int_equal(terms.priority, 7);
    client_expect(&a, "error 2", "alloc 0 %llu", 3 * GIB);
    client_end(&a, 0);
    stage_await_empty(stage);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(charges_of_idle_programs_move, stage_setup, stage_teardown),
        cmocka_unit_test_setup_teardown(charges_move_to_a_ledger_that_somebody_else_made, stage_setup, stage_teardown),
        cmocka_unit_test_setup_teardown(terms_move, stage_setup, stage_teardown),
        cmocka_unit_test_setup_teardown(stranded_program_says_so_once, stage_setup, stage_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
