/* What the agents cost: nothing while everything sleeps, and little beside what the driver takes for the moves. The figures are printed. */
#include "integration/agent_stage.h"

#include <dirent.h>
#include <stdio.h>

/* Nanoseconds on a processor of the threads named "cubudget" of a process; 0: this kernel does not say. */
static uint64_t agent_ns(pid_t pid)
{
    char path[512], name[64] = "";
    unsigned long long spent, sum = 0;
    snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
    DIR *tasks = opendir(path);
    assert_non_null(tasks);
    for (struct dirent *task; (task = readdir(tasks)) != NULL;) {
        snprintf(path, sizeof(path), "/proc/%d/task/%.32s/comm", (int)pid, task->d_name);
        FILE *file = fopen(path, "r");
        if (!file)
            continue;
        char *got = fgets(name, sizeof(name), file);
        fclose(file);
        if (!got || strcmp(name, "cubudget\n") != 0)
            continue;
        snprintf(path, sizeof(path), "/proc/%d/task/%.32s/schedstat", (int)pid, task->d_name);
        file = fopen(path, "r");
        if (file && fscanf(file, "%llu", &spent) == 1)
            sum += spent;
        if (file)
            fclose(file);
    }
    closedir(tasks);
    return sum;
}

static void sleeping_agents_cost_next_to_nothing(void **state)
{
    enum { AGENTS = 13, SECONDS = 5 };
    struct stage *stage = *state;
    struct client clients[AGENTS];
    uint64_t before = 0, after = 0;
    for (unsigned i = 0; i < AGENTS; i++) {
        char slot[16];
        snprintf(slot, sizeof(slot), "slot-%u", i);
        (void)client_ready(stage, &clients[i], (struct client_terms){.slot = slot});
    }
    nanosleep(&(struct timespec){.tv_sec = 3}, NULL); /* what follows an allocation has been looked at */
    for (unsigned i = 0; i < AGENTS; i++)
        before += agent_ns(clients[i].pid);
    nanosleep(&(struct timespec){.tv_sec = SECONDS}, NULL);
    for (unsigned i = 0; i < AGENTS; i++)
        after += agent_ns(clients[i].pid);
    print_message("%d agents asleep for %d s: %.3f ms on a processor, all together (to be under 5)\n", AGENTS, SECONDS,
                  (double)(after - before) / 1e6);
    assert_true(after - before < 100 * 1000000ULL); /* loosely: a sanitizer and a loaded machine count too */
    for (unsigned i = 0; i < AGENTS; i++)
        assert_int_equal(client_end(&clients[i], 0), 0);
    stage_await_empty(stage);
}

/* Who needs the room waits for the driver, and hardly for us. */
static void asker_waits_for_the_driver(void **state)
{
    enum { CHECKPOINT_MS = 300, ROUNDS = 5 };
    struct stage *stage = *state;
    double least_ms = 1e9;
    for (int round = 0; round < ROUNDS; round++) {
        struct client victim, asker;
        struct client_terms terms = {
            .slot = "a", .budget = "3GiB", .simulate = "checkpoint=300ms,release=0", .program = "agent_client"};
        setenv("CUBUDGET_WAIT", "30s", 1);
        client_start(stage, &victim, &terms);
        client_expect(&victim, "ok", "init %llu", GIB);
        unsigned row = row_of(stage, &victim);
        terms.slot = "b";
        terms.program = NULL;
        client_start(stage, &asker, &terms);
        client_expect(&asker, "ok", "init");
        state_await(stage, row, LEDGER_PROCESS_RUNNING);
        nanosleep(&(struct timespec){.tv_nsec = 700 * 1000 * 1000}, NULL); /* beyond the least residency */
        uint64_t begun = stage_now_ns();
        client_expect(&asker, "ok", "alloc 0 %llu", 2 * GIB);
        double took_ms = (double)(stage_now_ns() - begun) / 1e6 - CHECKPOINT_MS;
        least_ms = took_ms < least_ms ? took_ms : least_ms;
        state_await(stage, row, LEDGER_PROCESS_EVICTED);
        assert_int_equal(client_end(&asker, 0), 0);
        client_expect(&victim, "ok", "read");
        assert_int_equal(client_end(&victim, 0), 0);
        stage_await_empty(stage);
        unsetenv("CUBUDGET_WAIT");
    }
    print_message("an idle victim of 1 GiB: its room after %.3f ms beyond the driver's %d ms (to be under 5)\n",
                  least_ms, CHECKPOINT_MS);
    assert_true(least_ms >= 0 && least_ms < 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(sleeping_agents_cost_next_to_nothing, stage_setup, stage_teardown),
        cmocka_unit_test_setup_teardown(asker_waits_for_the_driver, stage_setup, stage_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
