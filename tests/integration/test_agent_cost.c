/* What the agents cost: nothing while everything sleeps, and little beside what the driver takes for the moves. The figures are printed. */
#include "integration/agent_stage.h"

#include <dirent.h>
#include <stdio.h>

static bool is_agent(pid_t pid, long thread)
{
    char path[64], name[64] = "";
    snprintf(path, sizeof(path), "/proc/%d/task/%ld/comm", (int)pid, thread);
    FILE *file = fopen(path, "r");
    if (!file)
        return false;
    bool is = fgets(name, sizeof(name), file) != NULL && strcmp(name, "cubudget\n") == 0;
    fclose(file);
    return is;
}

/* Nanoseconds on a processor of a process's agent: the first thread of its name, which those that the simulator starts on it inherit. */
static uint64_t agent_ns(pid_t pid)
{
    char path[64];
    unsigned long long spent = 0;
    long agent = 0;
    snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
    DIR *tasks = opendir(path);
    assert_non_null(tasks);
    for (struct dirent *task; (task = readdir(tasks)) != NULL;) {
        long thread = strtol(task->d_name, NULL, 10);
        if (agent == 0 && thread != 0 && is_agent(pid, thread)) /* listed in the order they were started */
            agent = thread;
    }
    closedir(tasks);
    assert_int_not_equal(agent, 0);
    snprintf(path, sizeof(path), "/proc/%d/task/%ld/schedstat", (int)pid, agent);
    FILE *file = fopen(path, "r");
    if (!file)
        return 0; /* this kernel does not say */
    assert_int_equal(fscanf(file, "%llu", &spent), 1);
    fclose(file);
    return spent;
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
    nanosleep(&(struct timespec){.tv_sec = 6}, NULL); /* what follows an allocation has been looked at */
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

/* A client with a context and memory. */
static void holder_start(struct stage *stage, struct client *client, const char *slot, uint64_t bytes)
{
    client_start(stage, client,
                 &(struct client_terms){.slot = slot, .budget = "3GiB", .simulate = "checkpoint=300ms,release=0"});
    client_expect(client, "ok", "init");
    client_expect(client, "ok", "alloc 0 %llu", (unsigned long long)bytes);
}

/* Who needs the room waits for the driver, and hardly for us. */
static void asker_waits_for_the_driver(void **state)
{
    enum { CHECKPOINT_MS = 300, ROUNDS = 5 };
    struct stage *stage = *state;
    double least_ms = 1e9;
    setenv("CUBUDGET_WAIT", "30s", 1);
    for (int round = 0; round < ROUNDS; round++) {
        struct client victim, asker;
        holder_start(stage, &victim, "a", GIB);
        holder_start(stage, &asker, "b", 2 * MIB);
        unsigned row = row_of(stage, &victim);
        state_await(stage, row, LEDGER_PROCESS_RUNNING);
        nanosleep(&(struct timespec){.tv_nsec = 700 * 1000 * 1000}, NULL); /* beyond the least residency */
        uint64_t begun = stage_now_ns();
        client_expect(&asker, "ok", "alloc 1 %llu", 2 * GIB);
        double took_ms = (double)(stage_now_ns() - begun) / 1e6 - CHECKPOINT_MS;
        least_ms = took_ms < least_ms ? took_ms : least_ms;
        state_await(stage, row, LEDGER_PROCESS_EVICTED);
        assert_int_equal(client_end(&asker, 0), 0);
        assert_int_equal(client_end(&victim, 0), 0);
        stage_await_empty(stage);
    }
    unsetenv("CUBUDGET_WAIT");
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
