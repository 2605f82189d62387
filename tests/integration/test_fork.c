/* Forked children: they owe nothing, take nothing, and get an account of their own when they use the GPU themselves. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/wait.h>
#include <cmocka.h>

#include "integration/stage.h"

static void child_owes_nothing_and_the_parent_loses_nothing(void **state)
{
    struct stage *stage = *state;
    struct client parent;
    client_start(stage, &parent, NULL);
    client_expect(&parent, "ok", "init");
    client_expect(&parent, "ok", "alloc 0 %llu", GIB);
    client_expect(&parent, "ok", "write 0 5 4096");
    /* CUDA is unusable in a child once the parent has initialised it: the driver says so, and the books stay. */
    client_expect(&parent, "error 3", "fork start");
    client_expect(&parent, "error 3", "fork context");
    assert_int_equal(stage_used(stage), GIB + CONTEXT_BYTES);
    const char *freed = client_ask(&parent, "fork free 0");
    assert_int_equal(strncmp(freed, "error", 5), 0);
    assert_int_equal(stage_used(stage), GIB + CONTEXT_BYTES);
    assert_int_equal(stage_used(stage), stage_witness_used(stage));
    client_expect(&parent, "ok", "read 0 5 4096");
    client_expect(&parent, "ok", "alloc 1 %llu", GIB);
    client_expect(&parent, "ok", "free 0");
    assert_int_equal(stage_used(stage), GIB + CONTEXT_BYTES);
    client_end(&parent, 0);
    stage_await_empty(stage);
}

static void child_that_uses_cuda_first_has_its_own_row(void **state)
{
    struct stage *stage = *state;
    struct client parent;
    client_start(stage, &parent, NULL);
    client_expect(&parent, "ok", "fork init");
    /* The child is ending or has ended: in either case its row is there to be seen, at this first look. */
    struct snapshot snapshot;
    stage_snapshot(stage, &snapshot);
    assert_int_equal(snapshot.devices[0].used_bytes + snapshot.devices[0].dead_bytes, CONTEXT_BYTES);
    snapshot_free(&snapshot);
    client_expect(&parent, "ok", "init");
    client_expect(&parent, "ok", "alloc 0 %llu", GIB);
    assert_int_equal(stage_used(stage), GIB + CONTEXT_BYTES);
    client_end(&parent, 0);
    stage_await_empty(stage);
}

static void exec_gives_everything_back(void **state)
{
    struct stage *stage = *state;
    struct client program, child;
    client_start(stage, &program, NULL);
    client_expect(&program, "ok", "init");
    client_expect(&program, "ok", "alloc 0 %llu", GIB);
    client_tell(&program, "exec");
    stage_await_empty(stage);
    client_end(&program, SIGKILL);

    client_start(stage, &child, NULL);
    client_expect(&child, "ok", "init");
    client_expect(&child, "ok", "alloc 0 %llu", GIB);
    assert_int_equal(stage_used(stage), GIB + CONTEXT_BYTES);
    client_end(&child, 0);
    stage_await_empty(stage);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(child_owes_nothing_and_the_parent_loses_nothing, stage_setup, stage_teardown),
        cmocka_unit_test_setup_teardown(child_that_uses_cuda_first_has_its_own_row, stage_setup, stage_teardown),
        cmocka_unit_test_setup_teardown(exec_gives_everything_back, stage_setup, stage_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
