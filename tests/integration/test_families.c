/*
 * All families of device memory at once, at random: three processes with four threads each over two devices, under budgets that
 * refuse often, one of them killed in the middle. The witness's peak never passes a budget; and at a quiet moment the ledger, the
 * witness and the clients' own plain model say the same, to the byte.
 *
 * FAMILIES_SECONDS says how long (20), FAMILIES_SEED gives the seed, which is printed. Threads take turns as they come, so a
 * seed gives the same choices and not the same run.
 */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <cmocka.h>

#include "integration/books_agree.h"

enum { CLIENTS = 3, DEVICES = 2 };

#define SMALL_CONTEXT_BYTES (128 * MIB)
#define BUDGET_BYTES        (1536 * MIB)

static unsigned long long seed_of_run(void)
{
    const char *given = getenv("FAMILIES_SEED");
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return given && *given ? strtoull(given, NULL, 10) : (unsigned long long)now.tv_nsec / 1000 + 1;
}

static unsigned long ms_of_run(void)
{
    const char *given = getenv("FAMILIES_SECONDS");
    unsigned long seconds = given ? strtoul(given, NULL, 10) : 0;
    return (seconds != 0 ? seconds : 20) * 1000;
}

static void clients_start(struct stage *stage, struct client clients[CLIENTS])
{
    const struct client_terms terms = {.budget = "1536MiB",
                                       .simulate = "devices=2,context=128MiB,release=30ms",
                                       .program = "family_client",
                                       .loud = true};
    for (unsigned i = 0; i < CLIENTS; i++) {
        client_start(stage, &clients[i], &terms);
        client_expect(&clients[i], "ok", "init %llu", SMALL_CONTEXT_BYTES);
    }
}

/* Until the dead one's rows are gone from the ledger, which is after the card has its bytes back. */
static void await_dead(struct stage *stage, pid_t dead)
{
    enum { LOOKS = 6000 };
    for (int look = 0; look < LOOKS; look++) {
        struct snapshot snapshot;
        bool gone = true;
        stage_snapshot(stage, &snapshot);
        for (unsigned i = 0; i < snapshot.process_count; i++)
            gone = gone && snapshot.processes[i].pid != (uint32_t)dead;
        for (unsigned device = 0; device < snapshot.device_count; device++)
            gone = gone && snapshot.devices[device].dead_bytes == 0;
        snapshot_free(&snapshot);
        if (gone)
            return;
        nanosleep(&(struct timespec){.tv_nsec = 10 * 1000 * 1000}, NULL);
    }
    fail_msg("the killed process is still in the ledger after a minute");
}

static void peaks_must_hold(struct stage *stage, const char *when)
{
    for (unsigned device = 0; device < DEVICES; device++)
        if (peak_of(stage, device) > BUDGET_BYTES)
            fail_msg("%s: device %u: %llu bytes were used at once, of a budget of %llu", when, device,
                     (unsigned long long)peak_of(stage, device), BUDGET_BYTES);
}

/* Runs all of them, kills one half-way, and hears the others out. */
static void clients_run(struct stage *stage, struct client clients[CLIENTS], unsigned victim, unsigned long long seed)
{
    unsigned long ms = ms_of_run();
    for (unsigned i = 0; i < CLIENTS; i++)
        client_tell(&clients[i], "run %lu %llu", ms, seed * CLIENTS + i);
    for (unsigned i = 0; i < CLIENTS; i++)
        assert_string_equal(client_hear(&clients[i]), "half");
    peaks_must_hold(stage, "before the kill");
    assert_true(WIFSIGNALED(client_end(&clients[victim], SIGKILL)));
    for (unsigned i = 0; i < CLIENTS; i++) {
        unsigned long granted = 0, refused = 0;
        if (i == victim)
            continue;
        const char *answer = client_hear(&clients[i]);
        if (answer == NULL || sscanf(answer, "ok %lu %lu", &granted, &refused) != 2)
            fail_msg("client %u: %s", i, answer ? answer : "(gone)");
        print_message("client %u: %lu granted, %lu refused\n", i, granted, refused);
        assert_true(granted > 0 && refused > 0);
    }
}

static void model_ask(struct client *client, unsigned long long seed, uint64_t model[DEVICES])
{
    unsigned long long first, second;
    const char *answer = client_ask(client, "quiet %llu", seed);
    if (sscanf(answer, "ok %llu %llu", &first, &second) != 2)
        fail_msg("%s", answer);
    model[0] += first;
    model[1] += second;
}

static void all_families_from_three_processes(void **state)
{
    struct stage *stage = *state;
    struct client clients[CLIENTS];
    unsigned long long seed = seed_of_run();
    unsigned victim = (unsigned)(seed % CLIENTS);
    uint64_t model[DEVICES] = {0};
    print_message("FAMILIES_SEED=%llu\n", seed);
    clients_start(stage, clients);
    clients_run(stage, clients, victim, seed);
    for (unsigned i = 0; i < CLIENTS; i++)
        if (i != victim)
            model_ask(&clients[i], seed + i, model);
    await_dead(stage, clients[victim].pid);
    for (unsigned device = 0; device < DEVICES; device++) {
        print_message("device %u: model %llu, books %llu, machine %llu, peak %llu\n", device,
                      (unsigned long long)model[device], (unsigned long long)books_of(stage, device),
                      (unsigned long long)machine_of(stage, device), (unsigned long long)peak_of(stage, device));
        books_are(stage, device, model[device]);
    }
    peaks_must_hold(stage, "after the kill");
    for (unsigned i = 0; i < CLIENTS; i++)
        if (i != victim)
            client_expect(&clients[i], "ok", "empty");
    for (unsigned device = 0; device < DEVICES; device++)
        books_are(stage, device, 0);
    peaks_must_hold(stage, "at the end");
    for (unsigned i = 0; i < CLIENTS; i++)
        if (i != victim)
            assert_int_equal(client_end(&clients[i], 0), 0);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(all_families_from_three_processes, stage_setup, stage_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
