/* A process leaves the card when it is asked and comes back when it is used, and nothing of it notices. */
#include "integration/agent_stage.h"

#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

static void process_leaves_and_comes_back(void **state)
{
    struct stage *stage = *state;
    struct client client;
    unsigned row = client_ready(stage, &client, (struct client_terms){.slot = "a"});
    uint64_t events = ledger_event_count(stage_ledger(stage));
    assert_int_equal(stage_used(stage), ON_CARD);
    evict(stage, row);
    assert_int_equal(stage_used(stage), 0);
    assert_int_equal(stage_witness_used(stage), 0);
    struct ledger_event_record event = event_await(stage, LEDGER_EVENT_EVICT, events);
    assert_int_equal(event.row, row);
    assert_int_equal(event.bytes, ON_CARD);
    client_expect(&client, "ok", "read");
    assert_int_equal(process_word_state(ledger_process_word(stage_ledger(stage), row)), LEDGER_PROCESS_RUNNING);
    assert_int_equal(stage_used(stage), ON_CARD);
    assert_int_equal(stage_witness_used(stage), ON_CARD);
    event = event_await(stage, LEDGER_EVENT_RESTORE, events);
    assert_int_equal(event.row, row);
    assert_int_equal(event.bytes, ON_CARD);
    assert_int_equal(client_end(&client, 0), 0);
    stage_await_empty(stage);
}

/* Any of these calls crashes a process that is checkpointed, as on the card. */
static void busy_threads_do_not_notice(void **state)
{
    enum { ROUNDS = 50, THREADS = 4 };
    struct stage *stage = *state;
    struct client client;
    unsigned evicted = 0;
    unsigned long rounds = 0;
    unsigned row = client_ready(stage, &client, (struct client_terms){.slot = "a"});
    client_expect(&client, "ok", "hammer %d", THREADS);
    for (unsigned round = 0; round < ROUNDS; round++) {
        uint64_t events = ledger_event_count(stage_ledger(stage));
        (void)ask(stage, row);
        event_await(stage, LEDGER_EVENT_EVICT, events); /* and the threads want it back at once */
        evicted++;
        state_await(stage, row, LEDGER_PROCESS_RUNNING);
    }
    client_tell(&client, "calm");
    const char *heard = client_hear(&client);
    assert_non_null(heard);
    assert_int_equal(sscanf(heard, "ok %lu", &rounds), 1);
    assert_true(rounds > ROUNDS);
    print_message("%u evictions under %d threads, which made %lu rounds\n", evicted, THREADS, rounds);
    client_expect(&client, "ok", "read");
    assert_int_equal(client_end(&client, 0), 0);
    stage_await_empty(stage);
}

/* The helper that is asked for the card's room is nobody's child. */
static void children_are_the_programs_own(void **state)
{
    struct stage *stage = *state;
    struct client client;
    unsigned row = client_ready(stage, &client, (struct client_terms){.slot = "a"});
    client_expect(&client, "ok", "children");
    client_expect(&client, "ok", "adopt");
    for (int round = 0; round < 5; round++) {
        evict(stage, row);
        client_expect(&client, "ok", "read");
    }
    client_expect(&client, "ok 0 0", "taken");
    client_expect(&client, "child error 3", "fork");
    assert_int_equal(client_end(&client, 0), 0);
    stage_await_empty(stage);
}

/* A ledger that is removed under a process that is off the card is followed, and the process comes back by the new one. */
static void ledger_is_followed_while_away(void **state)
{
    struct stage *stage = *state;
    struct client client;
    char path[128];
    unsigned row = client_ready(stage, &client, (struct client_terms){.slot = "a"});
    snprintf(path, sizeof(path), "%s/default.ledger", stage->directory);
    evict(stage, row);
    assert_int_equal(unlink(path), 0);
    for (int look = 0; look < 6000 && access(path, F_OK) != 0; look++)
        nanosleep(&(struct timespec){.tv_nsec = 10 * 1000 * 1000}, NULL);
    state_await(stage, row_of(stage, &client), LEDGER_PROCESS_EVICTED);
    assert_int_equal(stage_used(stage), 0);
    client_expect(&client, "ok", "read");
    assert_int_equal(stage_used(stage), ON_CARD);
    assert_int_equal(stage_witness_used(stage), ON_CARD);
    assert_int_equal(client_end(&client, 0), 0);
    stage_await_empty(stage);
}

static void child_of_an_evicted_process_runs_on(void **state)
{
    struct stage *stage = *state;
    struct client client;
    unsigned row = client_ready(stage, &client, (struct client_terms){.slot = "a"});
    evict(stage, row);
    client_expect(&client, "child error 3", "fork"); /* no CUDA there, and no closed gate */
    state_await(stage, row, LEDGER_PROCESS_EVICTED);
    client_expect(&client, "ok", "read");
    assert_int_equal(client_end(&client, 0), 0);
    stage_await_empty(stage);
}

static void exec_of_an_evicted_process_leaves_nothing(void **state)
{
    struct stage *stage = *state;
    struct client client;
    unsigned row = client_ready(stage, &client, (struct client_terms){.slot = "a"});
    evict(stage, row);
    client_expect(&client, "here", "exec");
    stage_await_empty(stage);
    assert_int_equal(stage_witness_used(stage), 0);
    client_end(&client, SIGKILL);
}

/* Killed and stopped while off the card: it holds nothing then, and a stopped one comes back when it goes on. */
static void death_and_stop_while_away(void **state)
{
    struct stage *stage = *state;
    struct client client;
    unsigned row = client_ready(stage, &client, (struct client_terms){.slot = "a"});
    evict(stage, row);
    kill(client.pid, SIGSTOP);
    client_tell(&client, "read");
    assert_int_equal(stage_used(stage), 0);
    kill(client.pid, SIGCONT);
    assert_string_equal(client_hear(&client), "ok");
    evict(stage, row);
    client_end(&client, SIGKILL);
    stage_await_empty(stage);
    assert_int_equal(stage_witness_used(stage), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(process_leaves_and_comes_back, stage_setup, stage_teardown),
        cmocka_unit_test_setup_teardown(busy_threads_do_not_notice, stage_setup, stage_teardown),
        cmocka_unit_test_setup_teardown(children_are_the_programs_own, stage_setup, stage_teardown),
        cmocka_unit_test_setup_teardown(ledger_is_followed_while_away, stage_setup, stage_teardown),
        cmocka_unit_test_setup_teardown(child_of_an_evicted_process_runs_on, stage_setup, stage_teardown),
        cmocka_unit_test_setup_teardown(exec_of_an_evicted_process_leaves_nothing, stage_setup, stage_teardown),
        cmocka_unit_test_setup_teardown(death_and_stop_while_away, stage_setup, stage_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
