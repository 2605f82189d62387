/* Processes that are killed, stopped, orphan a child or live in other PID namespaces: nothing is lost, nobody waits. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <sys/wait.h>
#include <cmocka.h>

#include "integration/stage.h"

#define CONTEXT_BYTES     (527 * MIB)
#define ALL_BUT_A_CONTEXT (4 * GIB - 528 * MIB) /* of the keeper's budget, in whole 2 MiB blocks */

static void pause_us(unsigned microseconds)
{
    struct timespec time = {.tv_sec = microseconds / 1000000, .tv_nsec = (long)(microseconds % 1000000) * 1000};
    nanosleep(&time, NULL);
}

/* Waits until the witness has the memory of the dead back. */
static void witness_await(struct stage *stage, uint64_t bytes)
{
    for (int look = 0; look < 6000 && stage_witness_used(stage) != bytes; look++)
        pause_us(10000);
    assert_int_equal(stage_witness_used(stage), bytes);
}

static void kills_at_random_points_leave_nothing(void **state)
{
    struct stage *stage = *state;
    const char *kills_text = getenv("KILLS"); /* fewer where each takes longer */
    int kills = kills_text ? atoi(kills_text) : 200;
    assert_true(kills > 0);
    const char *seed_text = getenv("SEED");
    unsigned seed = seed_text ? (unsigned)strtoul(seed_text, NULL, 10) : (unsigned)getpid();
    print_message("SEED=%u\n", seed);
    struct client keeper;
    client_start(stage, &keeper, &(struct client_terms){.slot = "keeper", .budget = "4GiB"});
    client_expect(&keeper, "ok", "init");
    for (int kill_number = 0; kill_number < kills; kill_number++) {
        struct client victim;
        client_start(stage, &victim, &(struct client_terms){.slot = "victim"});
        client_expect(&victim, "ok", "init");
        client_expect(&victim, "ok", "busy %d %llu", kill_number + 1, 100 * MIB);
        pause_us((unsigned)rand_r(&seed) % 3000);
        client_end(&victim, SIGKILL);
    }
    client_expect(&keeper, "ok", "alloc 0 %llu", ALL_BUT_A_CONTEXT);
    assert_int_equal(stage_used(stage), CONTEXT_BYTES + ALL_BUT_A_CONTEXT);
    assert_int_equal(stage_dead(stage), 0);
    witness_await(stage, CONTEXT_BYTES + ALL_BUT_A_CONTEXT);
    assert_true(stage_witness_peak(stage) <= 4 * GIB);
    client_end(&keeper, 0);
    stage_await_empty(stage);
}

static const char *const points[] = {
    "attach.opened",    "claim.locked",          "claim.cleared",  "claim.live",
    "attach.claimed",   "bid.published",         "bid.looked",     "charge.in_flight",
    "charge.committed", "charge.bid_cleared",    "admit.granted",  "context.charged",
    "context.created",  "alloc.driver_returned", "alloc.recorded", "free.driver_returned",
    "free.credited",    "credit.done",           "context.ended",
};

/* Runs a client into a test point; true: it got there (a point may be passed only on some of these commands). */
static void victim_run(struct stage *stage, struct client *victim, const char *point, const char *deed)
{
    char testpoint[64];
    snprintf(testpoint, sizeof(testpoint), "%s:%s", point, deed);
    client_start(stage, victim, &(struct client_terms){.slot = "victim", .testpoints = true, .testpoint = testpoint});
    client_tell(victim, "init");
    client_tell(victim, "alloc 0 %llu", (unsigned long long)GIB);
    client_tell(victim, "free 0");
    client_tell(victim, "reset");
    client_tell(victim, "quit");
}

static void kill_at_each_named_point_leaves_nothing(void **state)
{
    struct stage *stage = *state;
    struct client keeper;
    client_start(stage, &keeper, &(struct client_terms){.slot = "keeper", .budget = "4GiB"});
    client_expect(&keeper, "ok", "init");
    for (size_t i = 0; i < sizeof(points) / sizeof(points[0]); i++) {
        struct client victim;
        int status;
        victim_run(stage, &victim, points[i], "kill");
        waitpid(victim.pid, &status, 0);
        close(victim.to);
        close(victim.from);
        if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
            fail_msg("point %s was never passed", points[i]);
        if (strcmp(client_ask(&keeper, "alloc 0 %llu", ALL_BUT_A_CONTEXT), "ok") != 0)
            fail_msg("after a kill at %s: %s", points[i], keeper.heard);
        assert_int_equal(stage_used(stage), CONTEXT_BYTES + ALL_BUT_A_CONTEXT);
        assert_int_equal(stage_dead(stage), 0);
        client_expect(&keeper, "ok", "free 0");
    }
    client_end(&keeper, 0);
    stage_await_empty(stage);
}

static void stop_at_each_named_point_costs_only_its_bytes(void **state)
{
    struct stage *stage = *state;
    struct client keeper;
    client_start(stage, &keeper, &(struct client_terms){.slot = "keeper", .budget = "4GiB"});
    client_expect(&keeper, "ok", "init");
    for (size_t i = 0; i < sizeof(points) / sizeof(points[0]); i++) {
        struct client victim;
        int status;
        victim_run(stage, &victim, points[i], "stop");
        waitpid(victim.pid, &status, WUNTRACED);
        if (!WIFSTOPPED(status))
            fail_msg("point %s was never passed", points[i]);
        /* At most a context (600 MiB before it is measured) and 1 GiB are the stopped one's. */
        if (strcmp(client_ask(&keeper, "alloc 0 %llu", ALL_BUT_A_CONTEXT - 600 * MIB - GIB), "ok") != 0)
            fail_msg("stopped at %s: %s", points[i], keeper.heard);
        client_expect(&keeper, "ok", "free 0");
        struct client newcomer;
        client_start(stage, &newcomer, &(struct client_terms){.slot = "newcomer"});
        client_expect(&newcomer, "ok", "init");
        client_end(&newcomer, 0);
        client_end(&victim, SIGKILL);
    }
    client_expect(&keeper, "ok", "alloc 0 %llu", ALL_BUT_A_CONTEXT);
    client_end(&keeper, 0);
    stage_await_empty(stage);
}

static void orphaned_bytes_stay_charged_until_the_child_is_gone(void **state)
{
    struct stage *stage = *state;
    struct client parent, other;
    client_start(stage, &other, &(struct client_terms){.slot = "other"});
    client_expect(&other, "ok", "init");
    client_start(stage, &parent, &(struct client_terms){.slot = "parent"});
    client_expect(&parent, "ok", "init");
    client_expect(&parent, "ok", "alloc 0 %llu", 3 * GIB);
    int child = 0;
    assert_int_equal(sscanf(client_ask(&parent, "hold"), "ok %d", &child), 1);
    client_end(&parent, SIGKILL);
    assert_int_equal(stage_used(stage), CONTEXT_BYTES);
    assert_int_equal(stage_dead(stage), 3 * GIB + CONTEXT_BYTES);
    struct snapshot snapshot;
    stage_snapshot(stage, &snapshot);
    bool orphaned = false;
    for (unsigned i = 0; i < snapshot.process_count; i++)
        orphaned |= snapshot.processes[i].row_state == LEDGER_ROW_ORPHANED;
    snapshot_free(&snapshot);
    assert_true(orphaned);
    client_expect(&other, "error 2", "alloc 0 %llu", 5 * GIB);
    assert_int_equal(stage_witness_used(stage), 3 * GIB + 2 * CONTEXT_BYTES);
    kill(child, SIGKILL);
    while (kill(child, 0) == 0 && stage_dead(stage) != 0)
        pause_us(10000);
    client_expect(&other, "ok", "alloc 0 %llu", 5 * GIB);
    assert_int_equal(stage_dead(stage), 0);
    client_end(&other, 0);
    stage_await_empty(stage);
}

static void pid_namespaces_do_not_confuse_the_living_and_the_dead(void **state)
{
    struct stage *stage = *state;
    struct client inside, outside, second;
    if (system("unshare --pid --fork --kill-child true 2>/dev/null") != 0) {
        print_message("skipped: unshare --pid is not permitted here\n");
        skip();
    }
    assert_int_equal(setenv("CUBUDGET_WAIT", "0", 1), 0); /* nobody leaves the card for the one outside */
    struct client_terms contained = {.slot = "inside", .wrapper = {"unshare", "--pid", "--fork", "--kill-child"}};
    client_start(stage, &outside, &(struct client_terms){.slot = "outside"});
    client_expect(&outside, "ok", "init");
    client_start(stage, &inside, &contained);
    client_expect(&inside, "ok", "init");
    client_expect(&inside, "ok", "alloc 0 %llu", 2 * GIB);
    client_start(stage, &second, &contained);
    client_expect(&second, "ok", "init");
    client_expect(&second, "ok", "alloc 0 %llu", GIB);
    assert_int_equal(stage_used(stage), 3 * GIB + 3 * CONTEXT_BYTES);
    client_expect(&outside, "error 2", "alloc 0 %llu", 4 * GIB);
    client_end(&inside, SIGKILL); /* unshare; --kill-child ends the client in its namespace, some time after */
    for (int look = 0; look < 6000 && stage_used(stage) != GIB + 2 * CONTEXT_BYTES; look++)
        pause_us(10000);
    client_expect(&outside, "ok", "alloc 0 %llu", 4 * GIB);
    assert_int_equal(stage_used(stage), 5 * GIB + 2 * CONTEXT_BYTES);
    assert_int_equal(unsetenv("CUBUDGET_WAIT"), 0);
    client_end(&second, SIGKILL);
    client_end(&outside, 0);
    stage_await_empty(stage);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(kills_at_random_points_leave_nothing, stage_setup, stage_teardown),
        cmocka_unit_test_setup_teardown(kill_at_each_named_point_leaves_nothing, stage_setup, stage_teardown),
        cmocka_unit_test_setup_teardown(stop_at_each_named_point_costs_only_its_bytes, stage_setup, stage_teardown),
        cmocka_unit_test_setup_teardown(orphaned_bytes_stay_charged_until_the_child_is_gone, stage_setup,
                                        stage_teardown),
        cmocka_unit_test_setup_teardown(pid_namespaces_do_not_confuse_the_living_and_the_dead, stage_setup,
                                        stage_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
