/* A process that ends while it is off the card, or on its way: it asks for nobody's room any more, and what still calls the driver is told that
 * the driver has ended. */
#include "integration/agent_stage.h"

#include <stdio.h>
#include <sys/wait.h>

/* What the client's handler of exit, which calls the driver, was told. */
static void late_expect(const char *path, const char *wanted)
{
    char line[64] = "";
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    assert_non_null(fgets(line, sizeof(line), file));
    fclose(file);
    assert_string_equal(line, wanted);
}

static void late_ready(struct stage *stage, char path[128])
{
    snprintf(path, 128, "%s/late", stage->directory);
    setenv("LATE_FILE", path, 1);
}

static void ending_process_that_stays_is_left_alone(void **state)
{
    struct stage *stage = *state;
    struct client client;
    char path[128];
    late_ready(stage, path);
    (void)client_ready(stage, &client, (struct client_terms){.slot = "a"});
    client_expect(&client, "ok", "late");
    assert_int_equal(client_end(&client, 0), 0);
    late_expect(path, "0 0\n");
    stage_await_empty(stage);
}

static void ending_process_stays_away(void **state)
{
    struct stage *stage = *state;
    struct client client;
    char path[128];
    late_ready(stage, path);
    unsigned row = client_ready(stage, &client, (struct client_terms){.slot = "a"});
    client_expect(&client, "ok", "late");
    uint64_t events = ledger_event_count(stage_ledger(stage));
    evict(stage, row);
    event_await(stage, LEDGER_EVENT_EVICT, events);
    assert_int_equal(client_end(&client, 0), 0);
    late_expect(path, "4 4\n");
    stage_await_empty(stage);
    struct ledger_event_record event;
    for (uint64_t number = events + 1; number <= ledger_event_count(stage_ledger(stage)); number++)
        assert_true(!ledger_event_read(stage_ledger(stage), number, &event) || event.kind != LEDGER_EVENT_RESTORE);
}

/* Another thread waits for room that does not come. */
static void ending_process_waits_for_no_room(void **state)
{
    struct stage *stage = *state;
    struct client client, other;
    char path[128];
    late_ready(stage, path);
    unsigned row = client_ready(stage, &client, (struct client_terms){.slot = "a", .budget = "1GiB"});
    client_expect(&client, "ok", "late");
    evict(stage, row);
    setenv("CUBUDGET_EVICT", "off", 1);
    (void)client_ready(stage, &other, (struct client_terms){.slot = "b"});
    unsetenv("CUBUDGET_EVICT");
    client_expect(&client, "ok", "thread");
    while (!process_word_wants(ledger_process_word(stage_ledger(stage), row)))
        (void)ledger_process_sleep(stage_ledger(stage), row, ledger_process_word(stage_ledger(stage), row), 100);
    assert_int_equal(client_end(&client, 0), 0);
    late_expect(path, "4 4\n");
    assert_int_equal(client_end(&other, 0), 0);
    stage_await_empty(stage);
}

/* The driver is at it when the process ends: that is waited for. */
static void ending_process_lets_the_driver_finish(void **state)
{
    struct stage *stage = *state;
    struct client client;
    unsigned row = client_ready(stage, &client, (struct client_terms){.slot = "a", .simulate = "checkpoint=300ms"});
    (void)ask(stage, row);
    state_await(stage, row, LEDGER_PROCESS_EVICTING);
    assert_int_equal(client_end(&client, 0), 0);
    stage_await_empty(stage);
    assert_int_equal(stage_witness_used(stage), 0);
}

static void killed_in_every_state(void **state)
{
    static const enum ledger_process_state states[] = {LEDGER_PROCESS_EVICTING, LEDGER_PROCESS_EVICTED,
                                                       LEDGER_PROCESS_RESTORING};
    struct stage *stage = *state;
    for (unsigned i = 0; i < sizeof(states) / sizeof(*states); i++) {
        struct client client;
        unsigned row = client_ready(stage, &client,
                                    (struct client_terms){.slot = "a", .simulate = "checkpoint=200ms,restore=200ms"});
        (void)ask(stage, row);
        if (states[i] == LEDGER_PROCESS_RESTORING) {
            state_await(stage, row, LEDGER_PROCESS_EVICTED);
            client_expect(&client, "ok", "thread");
        }
        state_await(stage, row, states[i]);
        client_end(&client, SIGKILL);
        stage_await_empty(stage);
        for (int look = 0; look < 6000 && stage_witness_used(stage) != 0; look++)
            nanosleep(&(struct timespec){.tv_nsec = 10 * 1000 * 1000}, NULL);
        assert_int_equal(stage_witness_used(stage), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(ending_process_that_stays_is_left_alone, stage_setup, stage_teardown),
        cmocka_unit_test_setup_teardown(ending_process_stays_away, stage_setup, stage_teardown),
        cmocka_unit_test_setup_teardown(ending_process_waits_for_no_room, stage_setup, stage_teardown),
        cmocka_unit_test_setup_teardown(ending_process_lets_the_driver_finish, stage_setup, stage_teardown),
        cmocka_unit_test_setup_teardown(killed_in_every_state, stage_setup, stage_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
