/* Virtual memory management under a budget: a preloaded program over the simulator, judged by the ledger and by the witness. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <signal.h>
#include <sys/wait.h>
#include <cmocka.h>

#include "integration/vmm_failures.h"

static void vmm_start(struct stage *stage, struct client *client, const char *budget, const char *simulate)
{
    client_start(stage, client,
                 &(struct client_terms){.slot = "a", .budget = budget, .simulate = simulate, .program = "vmm_client"});
}

static void create_is_charged_and_the_last_holder_gives_back(void **state)
{
    struct stage *stage = *state;
    struct client a;
    vmm_start(stage, &a, NULL, NULL);
    client_expect(&a, "ok", "init 0");
    client_expect(&a, "ok", "create 0 0 %llu", 6 * MIB);
    books_are(stage, 0, CONTEXT_BYTES + 6 * MIB);
    client_expect(&a, "ok", "map 0 0 %llu", 6 * MIB);
    client_expect(&a, "ok", "map 0 1 %llu", 6 * MIB); /* one handle twice */
    books_are(stage, 0, CONTEXT_BYTES + 6 * MIB);
    client_expect(&a, "ok", "writemap 0 7 %llu", 6 * MIB);
    client_expect(&a, "ok", "release 0");
    client_expect(&a, "ok", "unmap 0 %llu", 6 * MIB);
    books_are(stage, 0, CONTEXT_BYTES + 6 * MIB);
    client_expect(&a, "ok", "retain 1 1 %llu", 3 * MIB);
    client_expect(&a, "ok", "unmap 1 %llu", 6 * MIB);
    books_are(stage, 0, CONTEXT_BYTES + 6 * MIB);
    client_expect(&a, "ok", "release 1");
    books_are(stage, 0, CONTEXT_BYTES);
    client_expect(&a, "error 1", "release 1"); /* one too many */
    client_expect(&a, "ok", "create 0 0 %llu", 2 * MIB);
    client_expect(&a, "ok", "release 0");
    books_are(stage, 0, CONTEXT_BYTES);
    client_end(&a, 0);
    stage_await_empty(stage);
}

/* Refused in every order of making, mapping and letting go; what is refused is the driver's own error, the output untouched. */
static void never_more_than_the_budget(void **state)
{
    enum { PIECES = 40 };
    struct stage *stage = *state;
    struct client a;
    uint64_t piece = 64 * MIB, budget = 2 * GIB, fits = (budget - CONTEXT_BYTES) / piece;
    vmm_start(stage, &a, "2GiB", NULL);
    client_expect(&a, "ok", "init 0");
    for (unsigned order = 0; order < 3; order++) {
        uint64_t made = 0;
        for (unsigned i = 0; i < PIECES; i++) {
            const char *answer = client_ask(&a, "create %u 0 %llu", i, (unsigned long long)piece);
            if (strcmp(answer, "ok") != 0)
                break;
            made++;
            if (order >= 1)
                client_expect(&a, "ok", "map %u %u %llu", i, i, (unsigned long long)piece);
            if (order == 2)
                client_expect(&a, "ok", "release %u", i);
        }
        assert_int_equal(made, fits);
        client_expect(&a, "error 2", "create 60 0 %llu", (unsigned long long)piece);
        books_are(stage, 0, CONTEXT_BYTES + fits * piece);
        for (unsigned i = 0; i < made; i++) {
            if (order >= 1)
                client_expect(&a, "ok", "unmap %u %llu", i, (unsigned long long)piece);
            if (order <= 1)
                client_expect(&a, "ok", "release %u", i);
        }
        books_are(stage, 0, CONTEXT_BYTES);
    }
    assert_true(peak_of(stage, 0) <= budget);
    client_end(&a, 0);
    stage_await_empty(stage);
}

/* Expandable segments: one reservation, mapped piece by piece until refused, and unmapped as one range. */
static void pieces_of_one_reservation(void **state)
{
    struct stage *stage = *state;
    struct client a;
    vmm_start(stage, &a, "1GiB", NULL);
    client_expect(&a, "ok", "init 0");
    static const uint64_t sizes[] = {2 * MIB, 20 * MIB, 128 * MIB};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        unsigned long long mapped = 0, fits = (GIB - CONTEXT_BYTES) / sizes[i];
        const char *answer = client_ask(&a, "pieces %llu 1000", (unsigned long long)sizes[i]);
        assert_int_equal(sscanf(answer, "ok %llu", &mapped), 1);
        assert_int_equal(mapped, fits);
        books_are(stage, 0, CONTEXT_BYTES + mapped * sizes[i]);
        client_expect(&a, "ok", "unpieces");
        books_are(stage, 0, CONTEXT_BYTES);
    }
    assert_true(peak_of(stage, 0) <= GIB);
    client_end(&a, 0);
}

/* No context is needed, none of a device's, and none takes it away. */
static void contexts_come_and_go(void **state)
{
    struct stage *stage = *state;
    struct client a;
    vmm_start(stage, &a, NULL, NULL);
    client_expect(&a, "ok", "start");
    client_expect(&a, "ok", "create 0 0 %llu", 8 * MIB);
    books_are(stage, 0, 8 * MIB);
    client_expect(&a, "ok", "context 0");
    client_expect(&a, "ok", "create 1 0 %llu", 4 * MIB);
    client_expect(&a, "ok", "map 1 1 %llu", 4 * MIB);
    books_are(stage, 0, CONTEXT_BYTES + 12 * MIB);
    client_expect(&a, "ok", "reset 0");
    books_are(stage, 0, 12 * MIB);
    client_expect(&a, "ok", "release 0");
    client_expect(&a, "ok", "release 1");
    client_expect(&a, "ok", "unmap 1 %llu", 4 * MIB);
    books_are(stage, 0, 0);
    client_end(&a, 0);
}

static void named_device_is_charged(void **state)
{
    struct stage *stage = *state;
    struct client a;
    vmm_start(stage, &a, "1GiB", "devices=2");
    client_expect(&a, "ok", "init 0");
    client_expect(&a, "ok", "create 0 1 %llu", 900 * MIB);
    books_are(stage, 0, CONTEXT_BYTES);
    books_are(stage, 1, 900 * MIB);
    client_expect(&a, "error 2", "create 1 1 %llu", 200 * MIB);
    client_expect(&a, "ok", "create 1 0 %llu", 200 * MIB);
    client_expect(&a, "error 101", "create 2 2 %llu", 2 * MIB); /* no such device: the driver's answer */
    client_expect(&a, "ok", "release 0");
    client_expect(&a, "ok", "release 1");
    books_are(stage, 0, CONTEXT_BYTES);
    books_are(stage, 1, 0);
    client_end(&a, 0);
}

/* What the driver refuses goes through as it is, and is not charged; memory of the host and multicast objects cost nothing. */
static void not_charged(void **state)
{
    struct stage *stage = *state;
    struct client a;
    vmm_start(stage, &a, NULL, "devices=2");
    client_expect(&a, "ok", "init 0");
    client_expect(&a, "error 1", "create 0 0 %llu", 3 * MIB);
    client_expect(&a, "error 1", "create 0 0 0");
    client_expect(&a, "ok 1 1 1 1 1 1", "null");
    books_are(stage, 0, CONTEXT_BYTES);
    client_expect(&a, "ok", "create 0 -1 %llu", 4 * MIB);
    client_expect(&a, "ok", "map 0 0 %llu", 4 * MIB);
    client_expect(&a, "ok", "release 0");
    books_are(stage, 0, CONTEXT_BYTES);
    client_expect(&a, "ok", "unmap 0 %llu", 4 * MIB);
    client_expect(&a, "ok", "multicast 0 %llu", 4 * MIB);
    books_are(stage, 0, CONTEXT_BYTES);
    client_expect(&a, "ok", "release 0");
    books_are(stage, 0, CONTEXT_BYTES);
    client_end(&a, 0);
}

/* Each wrapped call fails once, before it did anything and after; the books stay the machine's, and all goes on. */
static void failures_leave_the_books_alone(void **state)
{
    static const char *const calls[] = {
        "cuMemCreate", "cuMemMap", "cuMemUnmap", "cuMemRelease", "cuMemRetainAllocationHandle",
    };
    static const char *const steps[] = {"create 0 0 6291456", "map 0 0 6291456", "retain 1 0 0",
                                        "release 1",          "release 0",       "unmap 0 6291456"};
    (void)state;
    for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++)
        failures_of(calls[i], steps, sizeof(steps) / sizeof(steps[0]));
}

/* A process killed at any point of the four calls leaves nothing: the whole budget is another's. */
static void kill_at_each_named_point_leaves_nothing(void **state)
{
    static const char *const points[] = {"handle.driver_returned", "handle.recorded", "handle.unmapped",
                                         "handle.released", "handle.credited"};
    struct stage *stage = *state;
    struct client keeper;
    vmm_start(stage, &keeper, "4GiB", NULL);
    client_expect(&keeper, "ok", "start");
    for (size_t i = 0; i < sizeof(points) / sizeof(points[0]); i++) {
        struct client victim;
        char testpoint[64];
        snprintf(testpoint, sizeof(testpoint), "%s:kill", points[i]);
        struct client_terms terms = {
            .slot = "victim", .testpoints = true, .testpoint = testpoint, .program = "vmm_client"};
        client_start(stage, &victim, &terms);
        client_expect(&victim, "ok", "start");
        client_tell(&victim, "create 0 0 %llu", GIB);
        client_tell(&victim, "map 0 0 %llu", GIB);
        client_tell(&victim, "unmap 0 %llu", GIB);
        client_tell(&victim, "release 0");
        int status = client_end(&victim, 0);
        if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
            fail_msg("point %s was never passed", points[i]);
        client_expect(&keeper, "ok", "create 0 0 %llu", 4 * GIB);
        books_are(stage, 0, 4 * GIB);
        client_expect(&keeper, "ok", "release 0");
    }
    assert_true(peak_of(stage, 0) <= 4 * GIB);
    client_end(&keeper, 0);
    stage_await_empty(stage);
}

/* From several threads of two processes, over two devices. */
static void random_work_leaves_nothing(void **state)
{
    struct stage *stage = *state;
    struct client a, b;
    vmm_start(stage, &a, "700MiB", "devices=2");
    vmm_start(stage, &b, "700MiB", "devices=2");
    client_expect(&a, "ok", "start");
    client_expect(&b, "ok", "start");
    for (unsigned round = 0; round < 4; round++) {
        unsigned long long granted[2] = {0}, refused[2] = {0};
        client_tell(&a, "random 4 2000 %u %llu 0", 20 + round, 64 * MIB);
        client_tell(&b, "random 4 2000 %u %llu 0", 40 + round, 64 * MIB);
        const char *answer = client_hear(&a);
        assert_non_null(answer);
        assert_int_equal(sscanf(answer, "ok %llu %llu", &granted[0], &refused[0]), 2);
        answer = client_hear(&b);
        assert_non_null(answer);
        assert_int_equal(sscanf(answer, "ok %llu %llu", &granted[1], &refused[1]), 2);
        assert_true(granted[0] > 0 && granted[1] > 0 && refused[0] + refused[1] > 0);
        books_are(stage, 0, 0);
        books_are(stage, 1, 0);
    }
    assert_true(peak_of(stage, 0) <= 700 * MIB && peak_of(stage, 1) <= 700 * MIB);
    client_end(&a, 0);
    client_end(&b, 0);
    stage_await_empty(stage);
}

int main(void)
{
#define STAGED(test) cmocka_unit_test_setup_teardown(test, stage_setup, stage_teardown)
    static const struct CMUnitTest tests[] = {
        STAGED(create_is_charged_and_the_last_holder_gives_back),
        STAGED(never_more_than_the_budget),
        STAGED(pieces_of_one_reservation),
        STAGED(contexts_come_and_go),
        STAGED(named_device_is_charged),
        STAGED(not_charged),
        cmocka_unit_test(failures_leave_the_books_alone),
        STAGED(kill_at_each_named_point_leaves_nothing),
        STAGED(random_work_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
