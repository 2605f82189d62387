/* Every way back: what the driver, the gate, the host or the card refuse leaves the process as it was, or ends it where nothing else is left. */
#include "integration/agent_stage.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

/* The process is asked, declines because of that, and works on; asked again it goes and comes back, where `again`. */
static void declines(struct stage *stage, struct client_terms terms, enum ledger_why why, bool again)
{
    struct client client;
    unsigned row = client_ready(stage, &client, terms);
    uint64_t events = ledger_event_count(stage_ledger(stage));
    (void)ask(stage, row);
    struct ledger_event_record event = event_await(stage, LEDGER_EVENT_DECLINE, events);
    assert_int_equal(event.why, why);
    assert_int_equal(event.row, row);
    client_expect(&client, "ok", "read");
    assert_int_equal(process_word_state(ledger_process_word(stage_ledger(stage), row)), LEDGER_PROCESS_RUNNING);
    assert_int_equal(stage_used(stage), ON_CARD);
    if (again) {
        evict(stage, row);
        assert_int_equal(stage_used(stage), 0);
        client_expect(&client, "ok", "read");
    }
    assert_int_equal(stage_witness_used(stage), ON_CARD);
    assert_int_equal(client_end(&client, 0), 0);
    stage_await_empty(stage);
}

static void lock_refused(void **state)
{
    declines(*state, (struct client_terms){.slot = "a", .simulate = "fail=cuCheckpointProcessLock:1:999"},
             LEDGER_WHY_LOCK, true);
}

static void lock_too_slow(void **state)
{
    declines(*state, (struct client_terms){.slot = "a", .simulate = "lock=1m"}, LEDGER_WHY_LOCK, false);
}

static void checkpoint_refused(void **state)
{
    declines(*state, (struct client_terms){.slot = "a", .simulate = "fail=cuCheckpointProcessCheckpoint:1:2"},
             LEDGER_WHY_CHECKPOINT, true);
}

static void unlock_fails_once(void **state)
{
    declines(*state,
             (struct client_terms){.slot = "a",
                                   .simulate = "fail=cuCheckpointProcessCheckpoint:1:2,"
                                               "fail=cuCheckpointProcessUnlock:1:999"},
             LEDGER_WHY_CHECKPOINT, true);
}

static void host_of_the_machine_is_full(void **state)
{
    declines(*state, (struct client_terms){.slot = "a", .simulate = "host=100MiB"}, LEDGER_WHY_CHECKPOINT, false);
}

static void host_limit_is_spent(void **state)
{
    setenv("CUBUDGET_HOST_LIMIT", "500MiB", 1);
    declines(*state, (struct client_terms){.slot = "a"}, LEDGER_WHY_HOST, false);
    unsetenv("CUBUDGET_HOST_LIMIT");
}

static void eviction_is_off(void **state)
{
    setenv("CUBUDGET_EVICT", "off", 1);
    declines(*state, (struct client_terms){.slot = "a"}, LEDGER_WHY_UNEVICTABLE, false);
    unsetenv("CUBUDGET_EVICT");
}

/* What a driver says it can never do is not tried twice. */
static void checkpoint_not_supported(void **state)
{
    struct stage *stage = *state;
    struct client client;
    unsigned row = client_ready(
        stage, &client, (struct client_terms){.slot = "a", .simulate = "fail=cuCheckpointProcessCheckpoint:1:801"});
    uint64_t events = ledger_event_count(stage_ledger(stage));
    (void)ask(stage, row);
    assert_int_equal(event_await(stage, LEDGER_EVENT_DECLINE, events).why, LEDGER_WHY_CHECKPOINT);
    events = ledger_event_count(stage_ledger(stage));
    (void)ask(stage, row);
    assert_int_equal(event_await(stage, LEDGER_EVENT_DECLINE, events).why, LEDGER_WHY_UNEVICTABLE);
    client_expect(&client, "ok", "read");
    assert_int_equal(client_end(&client, 0), 0);
    stage_await_empty(stage);
}

/* A thread that stays inside the driver. */
static void thread_stays_inside(void **state)
{
    struct stage *stage = *state;
    struct client client;
    unsigned row = client_ready(stage, &client, (struct client_terms){.slot = "a"});
    struct ledger_event_record event;
    do { /* the thread may be on its way in still: then another is sent */
        client_expect(&client, "ok", "wedge 2");
        uint64_t events = ledger_event_count(stage_ledger(stage));
        (void)ask(stage, row);
        while (process_word_state(ledger_process_word(stage_ledger(stage), row)) == LEDGER_PROCESS_ASKED ||
               process_word_state(ledger_process_word(stage_ledger(stage), row)) == LEDGER_PROCESS_EVICTING)
            ledger_events_sleep(stage_ledger(stage), events, 10);
        event = (struct ledger_event_record){.kind = LEDGER_EVENT_NONE};
        if (process_word_state(ledger_process_word(stage_ledger(stage), row)) == LEDGER_PROCESS_RUNNING)
            event = event_await(stage, LEDGER_EVENT_DECLINE, events);
        else
            client_expect(&client, "ok", "read");
    } while (event.kind == LEDGER_EVENT_NONE);
    assert_int_equal(event.why, LEDGER_WHY_NOT_QUIET);
    client_expect(&client, "ok", "read");
    assert_int_equal(client_end(&client, 0), 0);
    stage_await_empty(stage);
}

/* Who was asked and stopped before he could hear it goes on as if nothing had been. */
static void ask_is_withdrawn(void **state)
{
    struct stage *stage = *state;
    struct client client;
    unsigned row = client_ready(stage, &client, (struct client_terms){.slot = "a"});
    state_await(stage, row, LEDGER_PROCESS_RUNNING);
    kill(client.pid, SIGSTOP);
    int status;
    assert_int_equal(waitpid(client.pid, &status, WUNTRACED), client.pid);
    uint32_t asked = ask(stage, row);
    assert_true(ledger_process_withdraw(stage_ledger(stage), row, asked));
    assert_false(ledger_process_withdraw(stage_ledger(stage), row, asked));
    kill(client.pid, SIGCONT);
    client_expect(&client, "ok", "read");
    assert_int_equal(process_word_state(ledger_process_word(stage_ledger(stage), row)), LEDGER_PROCESS_RUNNING);
    evict(stage, row);
    client_expect(&client, "ok", "read");
    assert_int_equal(client_end(&client, 0), 0);
    stage_await_empty(stage);
}

/* Somebody outside the books holds what they say is free: no restore is tried until it is. */
static void card_has_less_room_than_the_books(void **state)
{
    struct stage *stage = *state;
    struct client client, stranger;
    struct client_terms terms = {.slot = "a", .budget = "1GiB", .simulate = "memory=1500MiB"};
    unsigned row = client_ready(stage, &client, terms);
    evict(stage, row);
    terms = (struct client_terms){
        .program = "agent_client", .simulate = "memory=1500MiB", .wrapper = {"env", "-u", "LD_PRELOAD"}};
    client_start(stage, &stranger, &terms);
    client_expect(&stranger, "ok", "init %llu", 700 * MIB);
    client_expect(&client, "ok", "thread");
    state_await(stage, row, LEDGER_PROCESS_RESTORING);
    state_await(stage, row, LEDGER_PROCESS_EVICTED);
    state_await(stage, row, LEDGER_PROCESS_RESTORING);
    assert_int_equal(client_end(&stranger, 0), 0);
    client_expect(&client, "ok", "joined");
    client_expect(&client, "ok", "read");
    assert_int_equal(client_end(&client, 0), 0);
    stage_await_empty(stage);
}

/* The driver fails where there is no way back. */
static void is_lost(struct stage *stage, const char *simulate)
{
    struct client client;
    char log_file[128], line[512] = "", more[512];
    snprintf(log_file, sizeof(log_file), "%s/log", stage->directory);
    unsigned row =
        client_ready(stage, &client, (struct client_terms){.slot = "a", .simulate = simulate, .log_file = log_file});
    uint64_t events = ledger_event_count(stage_ledger(stage));
    (void)ask(stage, row);
    if (strstr(simulate, "Restore") != NULL) {
        state_await(stage, row, LEDGER_PROCESS_EVICTED);
        client_tell(&client, "read");
    }
    assert_int_equal(event_await(stage, LEDGER_EVENT_LOST, events).row, row);
    int status = client_end(&client, 0);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 70);
    FILE *file = fopen(log_file, "r");
    assert_non_null(file);
    assert_non_null(fgets(line, sizeof(line), file));
    assert_non_null(strstr(line, "start it again"));
    assert_null(fgets(more, sizeof(more), file));
    fclose(file);
    stage_await_empty(stage);
    assert_int_equal(stage_witness_used(stage), 0);
}

static void failed_restore_ends_it(void **state)
{
    is_lost(*state, "release=0,fail=cuCheckpointProcessRestore:1:2");
}

static void checkpoint_that_fails_midway_ends_it(void **state)
{
    is_lost(*state, "release=0,fail-after=cuCheckpointProcessCheckpoint:1:999");
}

/* A driver that never answers keeps its process; its death gives everything back. */
static void driver_hangs(void **state)
{
    struct stage *stage = *state;
    struct client client;
    unsigned row = client_ready(stage, &client,
                                (struct client_terms){.slot = "a", .simulate = "hang=cuCheckpointProcessCheckpoint:1"});
    (void)ask(stage, row);
    state_await(stage, row, LEDGER_PROCESS_EVICTING);
    assert_int_equal(stage_used(stage), ON_CARD);
    client_end(&client, SIGKILL);
    stage_await_empty(stage);
}

static void file_copy(const char *from, const char *to)
{
    char command[1024];
    snprintf(command, sizeof(command), "cp '%s' '%s'", from, to);
    assert_int_equal(system(command), 0);
}

/* The library elsewhere, without its helper: nothing could prove the room to come back to, so nothing leaves. */
static void helper_is_missing(void **state)
{
    struct stage *stage = *state;
    char from[512], to[160], preload[200];
    snprintf(from, sizeof(from), "%s/.libs/libcubudget.so", getenv("abs_top_builddir"));
    snprintf(to, sizeof(to), "%s/libcubudget.so", stage->directory);
    snprintf(preload, sizeof(preload), "LD_PRELOAD=%s", to);
    file_copy(from, to);
    if (access(PKGLIBDIR "/card-room", X_OK) == 0)
        skip(); /* an installed one would be found */
    declines(stage, (struct client_terms){.slot = "a", .wrapper = {"env", preload}}, LEDGER_WHY_UNEVICTABLE, false);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(lock_refused, stage_setup, stage_teardown),
        cmocka_unit_test_setup_teardown(lock_too_slow, stage_setup, stage_teardown),
        cmocka_unit_test_setup_teardown(checkpoint_refused, stage_setup, stage_teardown),
        cmocka_unit_test_setup_teardown(unlock_fails_once, stage_setup, stage_teardown),
        cmocka_unit_test_setup_teardown(host_of_the_machine_is_full, stage_setup, stage_teardown),
        cmocka_unit_test_setup_teardown(host_limit_is_spent, stage_setup, stage_teardown),
        cmocka_unit_test_setup_teardown(eviction_is_off, stage_setup, stage_teardown),
        cmocka_unit_test_setup_teardown(checkpoint_not_supported, stage_setup, stage_teardown),
        cmocka_unit_test_setup_teardown(thread_stays_inside, stage_setup, stage_teardown),
        cmocka_unit_test_setup_teardown(ask_is_withdrawn, stage_setup, stage_teardown),
        cmocka_unit_test_setup_teardown(card_has_less_room_than_the_books, stage_setup, stage_teardown),
        cmocka_unit_test_setup_teardown(failed_restore_ends_it, stage_setup, stage_teardown),
        cmocka_unit_test_setup_teardown(checkpoint_that_fails_midway_ends_it, stage_setup, stage_teardown),
        cmocka_unit_test_setup_teardown(driver_hangs, stage_setup, stage_teardown),
        cmocka_unit_test_setup_teardown(helper_is_missing, stage_setup, stage_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
