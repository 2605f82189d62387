/* A process leaves the card when it is asked and comes back when it is used; and every way back where the driver will not. */
#include "integration/agent_stage.h"

#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>

#define ON_CARD (CONTEXT_BYTES + 64 * MIB)

/* A client with data in 64 MiB. */
static unsigned client_ready(struct stage *stage, struct client *client, const struct client_terms *terms)
{
    client_start(stage, client, terms);
    client_expect(client, "ok", "init");
    client_expect(client, "ok", "alloc 0 %llu", 64 * MIB);
    client_expect(client, "ok", "write 0 77 %llu", 64 * MIB);
    return row_of(stage, client);
}

static void data_come_back(struct client *client)
{
    client_expect(client, "ok", "read 0 77 %llu", 64 * MIB);
}

static void process_leaves_and_comes_back(void **state)
{
    struct stage *stage = *state;
    struct client client;
    unsigned row = client_ready(stage, &client, &(struct client_terms){.slot = "a", .loud = true});
    uint64_t events = ledger_event_count(stage_ledger(stage));
    assert_int_equal(stage_used(stage), ON_CARD);
    evict(stage, row);
    assert_int_equal(stage_used(stage), 0);
    assert_int_equal(stage_witness_used(stage), 0);
    struct ledger_event_record event = event_await(stage, LEDGER_EVENT_EVICT, events);
    assert_int_equal(event.row, row);
    assert_int_equal(event.bytes, ON_CARD);
    data_come_back(&client);
    assert_int_equal(process_word_state(ledger_process_word(stage_ledger(stage), row)), LEDGER_PROCESS_RUNNING);
    assert_int_equal(stage_used(stage), ON_CARD);
    assert_int_equal(stage_witness_used(stage), ON_CARD);
    event = event_await(stage, LEDGER_EVENT_RESTORE, events);
    assert_int_equal(event.row, row);
    assert_int_equal(event.bytes, ON_CARD);
    assert_int_equal(client_end(&client, 0), 0);
    stage_await_empty(stage);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(process_leaves_and_comes_back, stage_setup, stage_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
