/* Stream-ordered pools and graphs' memory under a budget, judged by the ledger, the driver's own attributes and the witness. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "integration/stage.h"

/* The ledger has charged the context and `bytes`, and the card holds as much. */
static void holds(struct stage *stage, uint64_t bytes)
{
    assert_int_equal(stage_used(stage), CONTEXT_BYTES + bytes);
    assert_int_equal(stage_witness_used(stage), CONTEXT_BYTES + bytes);
}

/* A program with a budget of its context and `bytes`. */
static void program_start(struct stage *stage, struct client *client, uint64_t bytes)
{
    char budget[32];
    snprintf(budget, sizeof(budget), "%llu", CONTEXT_BYTES + bytes);
    client_start(stage, client, &(struct client_terms){.slot = "a", .budget = budget, .simulate = "context=527MiB"});
    client_expect(client, "ok", "init");
}

static void program_end(struct stage *stage, struct client *client, uint64_t bytes)
{
    assert_true(stage_witness_peak(stage) <= CONTEXT_BYTES + bytes);
    client_end(client, 0);
    stage_await_empty(stage);
}

static void pool_costs_what_it_reserves(void **state)
{
    struct stage *stage = *state;
    struct client a;
    client_start(stage, &a, &(struct client_terms){.slot = "a"});
    client_expect(&a, "ok", "init");
    client_expect(&a, "ok", "async 0 1000");
    holds(stage, 32 * MIB);
    client_expect(&a, "ok", "async 1 %llu", 100 * MIB);
    holds(stage, 128 * MIB);
    client_expect(&a, "ok", "asyncfree 1");
    holds(stage, 128 * MIB);
    client_expect(&a, "ok", "sync");
    holds(stage, 32 * MIB);
    client_expect(&a, "ok", "asyncfree 0");
    client_expect(&a, "ok", "eventsync");
    holds(stage, 0);
    client_expect(&a, "ok", "async 0 %llu", 40 * MIB);
    holds(stage, 64 * MIB);
    client_expect(&a, "ok", "free 0"); /* cuMemFree of a pool's pointer gives back at once */
    holds(stage, 0);
    program_end(stage, &a, 8 * GIB);
}

static void threshold_keeps_and_trim_gives_back(void **state)
{
    struct stage *stage = *state;
    struct client a;
    client_start(stage, &a, &(struct client_terms){.slot = "a"});
    client_expect(&a, "ok", "init");
    client_expect(&a, "ok", "threshold 18446744073709551615");
    client_expect(&a, "ok", "async 0 %llu", 100 * MIB);
    client_expect(&a, "ok", "asyncfree 0");
    client_expect(&a, "ok", "sync");
    holds(stage, 128 * MIB);
    client_expect(&a, "ok", "trim 0");
    holds(stage, 0);
    client_expect(&a, "ok", "async 0 1");
    client_expect(&a, "ok", "reset"); /* ends the context, not the pool's memory */
    assert_int_equal(stage_used(stage), 32 * MIB);
    assert_int_equal(stage_witness_used(stage), 32 * MIB);
    client_end(&a, 0);
    stage_await_empty(stage);
}

static void pool_stops_at_the_budget(void **state)
{
    struct stage *stage = *state;
    struct client a;
    program_start(stage, &a, 96 * MIB);
    client_expect(&a, "error 2", "async 0 %llu", 97 * MIB);
    client_expect(&a, "ok", "async 0 %llu", 40 * MIB);
    holds(stage, 64 * MIB);
    client_expect(&a, "error 2", "async 1 %llu", 33 * MIB);
    client_expect(&a, "ok", "async 1 %llu", 32 * MIB);
    holds(stage, 96 * MIB);
    client_expect(&a, "error 2", "alloc 2 1");
    client_expect(&a, "ok", "asyncfree 0");
    client_expect(&a, "error 2", "alloc 2 1"); /* the pool has it still */
    client_expect(&a, "ok", "sync");
    client_expect(&a, "ok", "alloc 2 1");
    program_end(stage, &a, 96 * MIB);
}

/* Growing is out of the question, and the pool's own holes are room enough. */
static void full_budget_leaves_the_pool_its_holes(void **state)
{
    struct stage *stage = *state;
    struct client a;
    program_start(stage, &a, 128 * MIB);
    for (unsigned i = 0; i < 16; i++)
        client_expect(&a, "ok", "async %u %llu", i, 8 * MIB);
    holds(stage, 128 * MIB);
    client_expect(&a, "error 2", "async 20 1");
    for (unsigned i = 0; i < 16; i += 2)
        client_expect(&a, "ok", "asyncfree %u", i);
    client_expect(&a, "error 2", "async 20 %llu", 9 * MIB); /* 64 MiB are free, in holes of 8 */
    for (unsigned i = 0; i < 16; i += 2)
        client_expect(&a, "ok", "async %u %llu", i, 8 * MIB);
    holds(stage, 128 * MIB);
    client_expect(&a, "ok", "threshold 18446744073709551615");
    for (unsigned i = 0; i < 16; i++)
        client_expect(&a, "ok", "asyncfree %u", i);
    client_expect(&a, "ok", "sync");
    client_expect(&a, "ok", "async 0 %llu", 128 * MIB);
    holds(stage, 128 * MIB);
    program_end(stage, &a, 128 * MIB);
}

static void own_pools_come_and_go(void **state)
{
    struct stage *stage = *state;
    struct client a;
    program_start(stage, &a, 96 * MIB);
    client_expect(&a, "ok", "newpool 0");
    client_expect(&a, "ok", "frompool 0 %llu", 5 * MIB);
    holds(stage, 32 * MIB);
    client_expect(&a, "ok", "delpool");
    holds(stage, 32 * MIB);
    client_expect(&a, "ok", "asyncfree 0");
    client_expect(&a, "ok", "sync");
    holds(stage, 0);
    assert_true(strncmp(client_ask(&a, "deldefault"), "error ", 6) == 0);
    for (unsigned i = 0; i < 40; i++) {
        client_expect(&a, "ok", "newpool 0");
        client_expect(&a, "ok", "frompool 0 %llu", 96 * MIB);
        client_expect(&a, "ok", "asyncfree 0");
        client_expect(&a, "ok", "delpool");
        client_expect(&a, "ok", "sync");
        holds(stage, 0);
    }
    client_expect(&a, "ok", "async 0 1");
    holds(stage, 32 * MIB);
    program_end(stage, &a, 96 * MIB);
}

static void threads_share_a_pool(void **state)
{
    struct stage *stage = *state;
    struct client a;
    program_start(stage, &a, 512 * MIB);
    assert_true(strncmp(client_ask(&a, "poolthreads 4 2000 42 %llu", 48 * MIB), "ok ", 3) == 0);
    client_expect(&a, "ok", "sync");
    holds(stage, 0);
    program_end(stage, &a, 512 * MIB);
}

static void graph_costs_when_it_is_launched(void **state)
{
    struct stage *stage = *state;
    struct client a;
    client_start(stage, &a, &(struct client_terms){.slot = "a"});
    client_expect(&a, "ok", "init");
    client_expect(&a, "ok", "graph 0 %llu 1 0 0", 300 * MIB);
    holds(stage, 0);
    client_expect(&a, "ok", "launch 0");
    holds(stage, 320 * MIB);
    client_expect(&a, "ok", "graphfree 0");
    client_expect(&a, "ok", "launch 0");
    holds(stage, 320 * MIB);
    client_expect(&a, "ok", "graphdestroy 0");
    client_expect(&a, "ok", "graphtrim");
    holds(stage, 320 * MIB); /* live, though its graph is gone */
    client_expect(&a, "ok", "graphfree 0");
    client_expect(&a, "ok", "graphtrim");
    holds(stage, 0);
    client_expect(&a, "ok", "graph 1 %llu 3 1 0", 40 * MIB);
    client_expect(&a, "ok", "launch 1");
    holds(stage, 64 * MIB); /* each takes over what the one before left */
    client_expect(&a, "ok", "graphtrim");
    holds(stage, 0);
    client_expect(&a, "ok", "upload 1");
    holds(stage, 64 * MIB);
    client_expect(&a, "ok", "graphtrim");
    client_expect(&a, "ok", "graph 3 %llu 2 0 0", 40 * MIB);
    client_expect(&a, "ok", "launch 3");
    holds(stage, 128 * MIB); /* holes are not joined */
    client_expect(&a, "ok", "capture 2 %llu", 12 * MIB);
    client_expect(&a, "ok 0", "reserved"); /* captured allocations are the graph's, not the pool's */
    holds(stage, 128 * MIB);
    program_end(stage, &a, 8 * GIB);
}

static void graphs_stop_at_the_budget(void **state)
{
    struct stage *stage = *state;
    struct client a;
    program_start(stage, &a, 96 * MIB);
    client_expect(&a, "ok", "graph 0 %llu 1 0 0", 90 * MIB);
    client_expect(&a, "ok", "graph 1 %llu 1 0 0", 60 * MIB);
    client_expect(&a, "ok", "graph 2 %llu 1 0 0", 97 * MIB);
    client_expect(&a, "error 2", "launch 2");
    holds(stage, 0);
    client_expect(&a, "ok", "launch 0");
    holds(stage, 96 * MIB);
    client_expect(&a, "error 2", "launch 1"); /* the first's memory is live */
    client_expect(&a, "ok", "graphfree 0");
    client_expect(&a, "ok", "launch 1"); /* it is not: trimmed to make room */
    client_expect(&a, "ok", "graphfree 1");
    client_expect(&a, "ok", "launch 0");
    client_expect(&a, "ok", "graphfree 0");
    client_expect(&a, "error 2", "alloc 0 %llu", 64 * MIB);
    client_expect(&a, "ok", "graphtrim");
    client_expect(&a, "ok", "alloc 0 %llu", 64 * MIB);
    client_expect(&a, "ok", "capture 3 %llu", 60 * MIB);
    client_expect(&a, "error 2", "launch 3");
    client_expect(&a, "ok", "free 0");
    client_expect(&a, "ok", "launch 3");
    holds(stage, 64 * MIB);
    program_end(stage, &a, 96 * MIB);
}

/* A pool that the driver does not let go of is still there, with what it keeps; and so is a graph. */
static void refused_ends_change_nothing(void **state)
{
    struct stage *stage = *state;
    struct client a;
    client_start(stage, &a,
                 &(struct client_terms){.slot = "a",
                                        .simulate = "context=527MiB,fail=cuMemPoolDestroy:1:999,"
                                                    "fail=cuGraphExecDestroy:1:999"});
    client_expect(&a, "ok", "init");
    client_expect(&a, "ok", "newpool 0");
    client_expect(&a, "error 999", "delpool");
    client_expect(&a, "ok", "keepown");
    client_expect(&a, "ok", "frompool 0 %llu", 40 * MIB);
    client_expect(&a, "ok", "asyncfree 0");
    client_expect(&a, "ok", "sync");
    holds(stage, 64 * MIB);
    client_expect(&a, "ok", "delpool"); /* with memory in it: gone for the program, kept until that is back */
    client_expect(&a, "error 1", "frompool 0 %llu", 40 * MIB);
    client_expect(&a, "ok", "sync");
    holds(stage, 0);
    client_expect(&a, "ok", "graph 0 %llu 1 1 0", 60 * MIB);
    client_expect(&a, "error 999", "graphdestroy 0");
    client_expect(&a, "ok", "launch 0");
    holds(stage, 64 * MIB);
    client_expect(&a, "ok", "graphtrim");
    holds(stage, 0);
    program_end(stage, &a, 8 * GIB);
}

/* What the driver refuses because there is no such pool costs nothing, however often. */
static void pools_that_are_not_there_cost_nothing(void **state)
{
    struct stage *stage = *state;
    struct client a;
    program_start(stage, &a, 96 * MIB);
    client_expect(&a, "ok", "newpool 0");
    client_expect(&a, "ok", "delpool");
    for (unsigned i = 0; i < 4; i++)
        client_expect(&a, "error 1", "frompool 0 %llu", 40 * MIB);
    holds(stage, 0);
    client_expect(&a, "ok", "async 0 %llu", 96 * MIB);
    holds(stage, 96 * MIB);
    program_end(stage, &a, 96 * MIB);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(pool_costs_what_it_reserves, stage_setup, stage_teardown),
        cmocka_unit_test_setup_teardown(threshold_keeps_and_trim_gives_back, stage_setup, stage_teardown),
        cmocka_unit_test_setup_teardown(pool_stops_at_the_budget, stage_setup, stage_teardown),
        cmocka_unit_test_setup_teardown(full_budget_leaves_the_pool_its_holes, stage_setup, stage_teardown),
        cmocka_unit_test_setup_teardown(own_pools_come_and_go, stage_setup, stage_teardown),
        cmocka_unit_test_setup_teardown(threads_share_a_pool, stage_setup, stage_teardown),
        cmocka_unit_test_setup_teardown(graph_costs_when_it_is_launched, stage_setup, stage_teardown),
        cmocka_unit_test_setup_teardown(graphs_stop_at_the_budget, stage_setup, stage_teardown),
        cmocka_unit_test_setup_teardown(refused_ends_change_nothing, stage_setup, stage_teardown),
        cmocka_unit_test_setup_teardown(pools_that_are_not_there_cost_nothing, stage_setup, stage_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
