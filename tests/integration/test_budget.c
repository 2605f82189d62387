/* One budget over several preloaded programs, judged by the ledger and by the simulator's own count. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <fcntl.h>
#include <time.h>
#include <unistd.h>
#include <sys/stat.h>
#include <cmocka.h>

#include "integration/books_agree.h"

static void program_sees_its_budget(void **state)
{
    struct stage *stage = *state;
    struct client a;
    char expected[64];
    client_start(stage, &a, &(struct client_terms){.slot = "a"});
    client_expect(&a, "ok", "init");
    snprintf(expected, sizeof(expected), "ok %llu %llu", 8 * GIB - CONTEXT_BYTES, 8 * GIB);
    client_expect(&a, expected, "info");
    client_expect(&a, "ok", "alloc 0 %llu", 3 * GIB);
    client_expect(&a, "ok", "write 0 90 1048576");
    client_expect(&a, "ok", "read 0 90 1048576");
    snprintf(expected, sizeof(expected), "ok %llu %llu", 5 * GIB - CONTEXT_BYTES, 8 * GIB);
    client_expect(&a, expected, "info");
    assert_int_equal(stage_used(stage), 3 * GIB + CONTEXT_BYTES);
    books_agree(stage);
    client_expect(&a, "error 2", "alloc 1 %llu", 5 * GIB);
    client_expect(&a, "ok", "free 0");
    assert_int_equal(stage_used(stage), CONTEXT_BYTES);
    books_agree(stage);
    client_end(&a, 0);
    stage_await_empty(stage);
}

static void every_kind_is_charged_what_it_costs(void **state)
{
    struct stage *stage = *state;
    struct client a;
    client_start(stage, &a, NULL);
    client_expect(&a, "ok", "init");
    static const struct {
        const char *command;
        uint64_t bytes;
    } cases[] = {
        {"alloc 0 1", 2 * MIB},
        {"alloc 0 2097152", 2 * MIB},
        {"alloc 0 2097153", 4 * MIB},
        {"alloc 0 1073741824", GIB},
        {"managed 0 268435456", 256 * MIB},
        {"pitch 0 1001 1000", 2 * MIB},
        {"pitch 0 100000 1000", 96 * MIB},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        client_expect(&a, "ok", "%s", cases[i].command);
        assert_int_equal(stage_used(stage), CONTEXT_BYTES + cases[i].bytes);
        books_agree(stage);
        client_expect(&a, "ok", "free 0");
        assert_int_equal(stage_used(stage), CONTEXT_BYTES);
        books_agree(stage);
    }
    for (unsigned i = 0; i < 60; i++)
        client_expect(&a, "ok", "alloc %u 1000", i);
    assert_int_equal(stage_used(stage), CONTEXT_BYTES + 2 * MIB);
    books_agree(stage);
    client_expect(&a, "ok", "reset");
    assert_int_equal(stage_used(stage), 0);
    books_agree(stage);
    client_end(&a, 0);
}

static void third_program_is_refused_and_the_others_go_on(void **state)
{
    struct stage *stage = *state;
    struct client a, b, c;
    client_start(stage, &a, &(struct client_terms){.slot = "a"});
    client_start(stage, &b, &(struct client_terms){.slot = "b"});
    client_start(stage, &c, &(struct client_terms){.slot = "c"});
    client_expect(&a, "ok", "init");
    client_expect(&b, "ok", "init");
    client_expect(&c, "ok", "init");
    client_expect(&a, "ok", "alloc 0 %llu", 3 * GIB);
    client_expect(&b, "ok", "alloc 0 %llu", 2 * GIB);
    client_expect(&c, "error 2", "alloc 0 %llu", 2 * GIB);
    client_expect(&a, "ok", "alloc 1 1048576");
    client_expect(&b, "ok", "write 0 7 1000");
    client_expect(&b, "ok", "free 0");
    client_expect(&c, "ok", "alloc 0 %llu", 2 * GIB);
    books_agree(stage);
    struct snapshot snapshot;
    stage_snapshot(stage, &snapshot);
    assert_int_equal(snapshot.slot_count, 3);
    assert_int_equal(snapshot.process_count, 3);
    for (unsigned i = 0; i < snapshot.slot_count; i++)
        assert_int_equal(snapshot.slots[i].refusals, strcmp(snapshot.slots[i].name, "c") == 0 ? 1 : 0);
    snapshot_free(&snapshot);
    client_end(&a, 0);
    client_end(&b, 0);
    client_end(&c, 0);
}

static void limit_of_a_slot_holds_its_processes_together(void **state)
{
    struct stage *stage = *state;
    struct client a, b;
    struct client_terms terms = {.slot = "small", .limit = "2GiB"};
    client_start(stage, &a, &terms);
    client_start(stage, &b, &terms);
    client_expect(&a, "ok", "init");
    client_expect(&b, "ok", "init");
    client_expect(&a, "ok", "alloc 0 %llu", 512 * MIB);
    client_expect(&b, "error 2", "alloc 0 %llu", 512 * MIB);
    client_expect(&b, "ok", "alloc 0 %llu", 2 * GIB - 2 * CONTEXT_BYTES - 512 * MIB);
    client_expect(&a, "error 2", "alloc 1 1");
    client_end(&a, 0);
    client_end(&b, 0);
}

/* Exactly one of two gets the last bytes, round after round. */
static void last_bytes_go_to_exactly_one(void **state)
{
    enum { ROUNDS = 60 };
    struct stage *stage = *state;
    struct client a, b;
    char gate[128];
    snprintf(gate, sizeof(gate), "%s/gate", stage->directory);
    struct client_terms terms = {.slot = "racer", .budget = "2GiB", .gate = gate};
    for (int round = 0; round < ROUNDS; round++) {
        client_start(stage, &a, &terms);
        client_start(stage, &b, &terms);
        client_expect(&a, "ok", "init");
        client_expect(&b, "ok", "init");
        uint64_t rest = 2 * GIB - 2 * CONTEXT_BYTES;
        client_tell(&a, "race %llu", (unsigned long long)rest);
        client_tell(&b, "race %llu", (unsigned long long)rest);
        close(open(gate, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
        int granted = 0;
        struct client *both[] = {&a, &b};
        for (int i = 0; i < 2; i++) {
            const char *answer = client_hear(both[i]);
            assert_non_null(answer);
            if (strcmp(answer, "ok") == 0)
                granted++;
            else
                assert_string_equal(answer, "error 2");
        }
        assert_int_equal(granted, 1);
        unlink(gate);
        client_end(&a, 0);
        client_end(&b, 0);
        stage_await_empty(stage);
    }
    assert_true(stage_witness_peak(stage) <= 2 * GIB);
}

/* One look: what the ledger holds, where it could be read at one moment, and what it and the witness ever held at most. */
static bool budget_watch(struct stage *stage, uint64_t budget)
{
    struct snapshot snapshot;
    stage_snapshot(stage, &snapshot);
    const struct snapshot_device *device = &snapshot.devices[0];
    bool steady = device->steady;
    if (steady)
        assert_true(device->used_bytes + device->dead_bytes <= budget);
    assert_true(device->peak_bytes <= budget);
    snapshot_free(&snapshot);
    assert_true(stage_witness_peak(stage) <= budget);
    return steady;
}

/* Eight processes take and give at random; whoever looks, and the witness, never sees more than the budget. */
static void budget_holds_under_random_load(void **state)
{
    enum { CLIENTS = 8 };
    struct stage *stage = *state;
    struct client clients[CLIENTS];
    uint64_t budget = 8 * CONTEXT_BYTES + 300 * MIB;
    char text[32];
    snprintf(text, sizeof(text), "%llu", (unsigned long long)budget);
    for (int i = 0; i < CLIENTS; i++) {
        client_start(stage, &clients[i], &(struct client_terms){.slot = i % 2 ? "odd" : "even", .budget = text});
        client_expect(&clients[i], "ok", "init");
    }
    for (int i = 0; i < CLIENTS; i++)
        client_tell(&clients[i], "during 10 %d %llu", i + 1, 64 * MIB);
    unsigned long long refused_in_all = 0;
    unsigned looks = 0;
    for (int done = 0; done < CLIENTS;) {
        looks += budget_watch(stage, budget);
        unsigned long long granted, refused;
        if (!client_is_ready(&clients[done]))
            continue; /* they are still at it: look again */
        const char *answer = client_hear(&clients[done]);
        assert_non_null(answer);
        if (sscanf(answer, "ok %llu %llu", &granted, &refused) != 2)
            fail_msg("client %d: %s", done, answer);
        assert_true(granted > 0);
        refused_in_all += refused;
        done++;
    }
    print_message("%u looks\n", looks);
    assert_true(looks > 0);
    assert_true(refused_in_all > 0);
    assert_int_equal(stage_used(stage), 8 * CONTEXT_BYTES);
    books_agree(stage);
    for (int i = 0; i < CLIENTS; i++)
        client_end(&clients[i], 0);
    stage_await_empty(stage);
}

static void threads_of_one_process_agree(void **state)
{
    struct stage *stage = *state;
    struct client a;
    client_start(stage, &a, &(struct client_terms){.budget = "1GiB"});
    client_expect(&a, "ok", "init");
    const char *answer = client_ask(&a, "threads 8 3000 5 %llu", 80 * MIB);
    unsigned long long granted, refused;
    if (sscanf(answer, "ok %llu %llu", &granted, &refused) != 2)
        fail_msg("threads: %s", answer);
    assert_true(granted > 0 && refused > 0);
    assert_int_equal(stage_used(stage), CONTEXT_BYTES);
    books_agree(stage);
    assert_true(stage_witness_peak(stage) <= GIB);
    client_end(&a, 0);
}

/* What a context's end frees may be another thread's before the books are closed: neither is lost or counted twice. */
static void context_ends_while_another_thread_allocates(void **state)
{
    struct stage *stage = *state;
    struct client a;
    client_start(stage, &a, &(struct client_terms){.simulate = "memory=2GiB"}); /* addresses come round soon */
    client_expect(&a, "ok", "init");
    const char *given = getenv("CONTEXT_PARTS"); /* fewer where each takes longer */
    long parts = given != NULL ? strtol(given, NULL, 10) : 20;
    for (long part = 0; part < parts; part++) /* an answer is waited for a minute, and a sanitizer makes these slow */
        client_expect(&a, "ok", "contexts 100");
    assert_int_equal(stage_used(stage), CONTEXT_BYTES);
    books_agree(stage);
    client_end(&a, 0);
    stage_await_empty(stage);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(program_sees_its_budget, stage_setup, stage_teardown),
        cmocka_unit_test_setup_teardown(every_kind_is_charged_what_it_costs, stage_setup, stage_teardown),
        cmocka_unit_test_setup_teardown(third_program_is_refused_and_the_others_go_on, stage_setup, stage_teardown),
        cmocka_unit_test_setup_teardown(limit_of_a_slot_holds_its_processes_together, stage_setup, stage_teardown),
        cmocka_unit_test_setup_teardown(last_bytes_go_to_exactly_one, stage_setup, stage_teardown),
        cmocka_unit_test_setup_teardown(budget_holds_under_random_load, stage_setup, stage_teardown),
        cmocka_unit_test_setup_teardown(threads_of_one_process_agree, stage_setup, stage_teardown),
        cmocka_unit_test_setup_teardown(context_ends_while_another_thread_allocates, stage_setup, stage_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
