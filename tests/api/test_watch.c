/*
 * Pressure, told to who watches: each change of level, at the exact thresholds, in this process and in others, in another PID
 * namespace, none lost; by waiting, by a descriptor, by a callback.
 */
#include "api/desk.h"

#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { STEP_MS = 30000 }; /* what a change may take before a test gives up */

static struct cubudget_device device;
static struct cubudget_pool pool;

static int pool_setup(void **state)
{
    (void)state;
    desk_open("memory=24GiB", "8GiB");
    expect_ok(cubudget_device_open(0, NULL, &device));
    expect_ok(cubudget_pool_create(device, CUBUDGET_NO_LIMIT, &pool));
    return 0;
}

static int64_t now_us(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

/* The level goes to high and back: 85 % of the budget and the context's 7 %. */
#define HIGH_BYTES (6700ULL * MIB)

/* --- here ------------------------------------------------------------------------------------------------------------------------- */

static void take(struct cubudget_watch *watch, enum cubudget_pressure level, uint64_t generation)
{
    struct cubudget_pressure_change change;
    expect_ok(cubudget_pressure_wait(watch, STEP_MS, &change));
    assert_int_equal(change.level, level);
    assert_int_equal(change.generation, generation);
    assert_int_equal(change.untold, 0);
}

static void test_changes_come_in_order(void **state)
{
    struct cubudget_watch *watch;
    struct cubudget_buffer half, more, last;
    struct cubudget_pressure_change change;
    enum cubudget_pressure level;
    (void)state;
    expect_ok(cubudget_watch_open(NULL, &watch));
    expect_error(CUBUDGET_ERROR_TIMEOUT, cubudget_pressure_wait(watch, 0, &change));
    expect_ok(cubudget_pool_alloc(pool, 4 * GIB, &half));
    expect_ok(cubudget_watch_level(watch, &level));
    assert_int_equal(level, CUBUDGET_PRESSURE_MEDIUM);
    expect_ok(cubudget_pool_alloc(pool, 2 * GIB + 512 * MIB, &more));
    expect_ok(cubudget_pool_alloc(pool, 900 * MIB, &last));
    expect_ok(cubudget_buffer_free(&half));
    take(watch, CUBUDGET_PRESSURE_MEDIUM, 1);
    take(watch, CUBUDGET_PRESSURE_HIGH, 2);
    take(watch, CUBUDGET_PRESSURE_CRITICAL, 3);
    expect_ok(cubudget_pressure_wait(watch, 0, &change));
    assert_int_equal(change.level, CUBUDGET_PRESSURE_LOW);
    assert_int_equal(change.pending, 0);
    expect_error(CUBUDGET_ERROR_TIMEOUT, cubudget_pressure_wait(watch, 0, &change));
    expect_ok(cubudget_buffer_free(&more));
    expect_ok(cubudget_buffer_free(&last));
    expect_error(CUBUDGET_ERROR_TIMEOUT, cubudget_pressure_wait(watch, 0, &change));
    cubudget_watch_close(watch);
}

static void test_far_behind_is_counted(void **state)
{
    enum { CHANGES = 200 };
    struct cubudget_watch *watch;
    struct cubudget_pressure_change change;
    uint64_t taken = 0, untold = 0;
    (void)state;
    expect_ok(cubudget_watch_open(NULL, &watch));
    for (unsigned i = 0; i < CHANGES / 2; i++) {
        struct cubudget_buffer buffer;
        expect_ok(cubudget_pool_alloc(pool, HIGH_BYTES, &buffer));
        expect_ok(cubudget_buffer_free(&buffer));
    }
    while (cubudget_pressure_wait(watch, 0, &change) == CUBUDGET_OK) {
        taken++;
        untold += change.untold;
        assert_int_equal(change.generation, taken + untold);
        assert_int_equal(change.level, change.generation % 2 != 0 ? CUBUDGET_PRESSURE_HIGH : CUBUDGET_PRESSURE_LOW);
    }
    assert_int_equal(taken + untold, CHANGES);
    assert_true(taken >= 64);
    cubudget_watch_close(watch);
}

static void test_refusals(void **state)
{
    struct cubudget_watch *watch;
    (void)state;
    expect_error(CUBUDGET_ERROR_INVALID, cubudget_watch_open("nonsense", &watch));
    expect_error(CUBUDGET_ERROR_INVALID, cubudget_watch_open(NULL, NULL));
    expect_error(CUBUDGET_ERROR_NO_DEVICE, cubudget_watch_open("GPU-00000000-0000-0000-0000-000000000000", &watch));
    expect_ok(cubudget_watch_open(NULL, &watch));
    expect_error(CUBUDGET_ERROR_INVALID, cubudget_pressure_wait(watch, 0, NULL));
    expect_error(CUBUDGET_ERROR_INVALID, cubudget_watch_callback(watch, NULL, NULL));
    cubudget_watch_close(watch);
    cubudget_watch_close(NULL);
    assert_string_equal(cubudget_pressure_name(CUBUDGET_PRESSURE_CRITICAL), "critical");
    assert_int_equal(cubudget_pressure_of(50, 100), CUBUDGET_PRESSURE_MEDIUM);
}

static int use_parents_watch(void *context)
{
    struct cubudget_pressure_change change;
    bool told = cubudget_pressure_wait(context, 0, &change) == CUBUDGET_ERROR_FORKED;
    cubudget_watch_close(context);
    return told ? 0 : 1;
}

static void test_child_has_no_watch(void **state)
{
    struct cubudget_watch *watch;
    struct cubudget_pressure_change change;
    (void)state;
    expect_ok(cubudget_watch_open(NULL, &watch));
    assert_int_equal(desk_join(desk_fork(use_parents_watch, watch, 0)), 0);
    expect_error(CUBUDGET_ERROR_TIMEOUT, cubudget_pressure_wait(watch, 0, &change));
    cubudget_watch_close(watch);
}

/* --- descriptor and callback ----------------------------------------------------------------------------------------------------------- */

static void test_descriptor(void **state)
{
    struct cubudget_watch *watch;
    struct cubudget_buffer buffer;
    struct cubudget_pressure_change change;
    struct pollfd polled = {.events = POLLIN};
    (void)state;
    expect_ok(cubudget_watch_open(NULL, &watch));
    expect_ok(cubudget_watch_descriptor(watch, &polled.fd));
    assert_int_equal(poll(&polled, 1, 0), 0);
    for (unsigned i = 0; i < 50; i++) {
        expect_ok(cubudget_pool_alloc(pool, HIGH_BYTES, &buffer));
        assert_int_equal(poll(&polled, 1, STEP_MS), 1);
        take(watch, CUBUDGET_PRESSURE_HIGH, 2 * i + 1);
        expect_ok(cubudget_buffer_free(&buffer));
        assert_int_equal(poll(&polled, 1, STEP_MS), 1);
        take(watch, CUBUDGET_PRESSURE_LOW, 2 * i + 2);
        while (poll(&polled, 1, 0) == 1) /* told late of what was taken already: a look finds nothing, and clears it */
            expect_error(CUBUDGET_ERROR_TIMEOUT, cubudget_pressure_wait(watch, 0, &change));
    }
    cubudget_watch_close(watch);
}

/* --- another ledger ------------------------------------------------------------------------------------------------------------------- */

/* `program fill DIRECTORY`: makes the ledger that is not there, and two changes in it: to medium, and to high. Says so by a byte, and stays
 * until there is nothing more to read. */
static int ledger_fill(const char *directory)
{
    struct cubudget_watch *watch;
    struct cubudget_buffer first, second;
    char byte = 'f';
    if (cubudget_simulate("memory=24GiB", directory) != CUBUDGET_OK ||
        cubudget_device_open(0, NULL, &device) != CUBUDGET_OK ||
        cubudget_pool_create(device, CUBUDGET_NO_LIMIT, &pool) != CUBUDGET_OK ||
        cubudget_watch_open(NULL, &watch) != CUBUDGET_OK)
        return 1;
    if (cubudget_pool_alloc(pool, 3800 * MIB, &first) != CUBUDGET_OK ||
        cubudget_pool_alloc(pool, 2600 * MIB, &second) != CUBUDGET_OK)
        return 2;
    bool told = write(STDOUT_FILENO, &byte, 1) == 1;
    while (told && read(STDIN_FILENO, &byte, 1) > 0) {
    }
    cubudget_watch_close(watch);
    return told ? 0 : 3;
}

struct filler {
    int to_filler[2], from_filler[2];
};

static int become_filler(void *context)
{
    const struct filler *filler = context;
    (void)dup2(filler->to_filler[0], STDIN_FILENO);
    (void)dup2(filler->from_filler[1], STDOUT_FILENO);
    (void)close(filler->to_filler[1]);
    return execl("/proc/self/exe", "test_watch", "fill", desk_directory, (char *)NULL);
}

/* The ledger is replaced by one whose count of changes is, when it is found, the very one that was told last: what has changed is told
 * all the same. */
static void test_descriptor_after_a_replaced_ledger(void **state)
{
    struct cubudget_watch *watch;
    struct cubudget_buffer buffer;
    struct cubudget_pressure_change change = {.level = CUBUDGET_PRESSURE_LOW};
    struct pollfd polled = {.events = POLLIN};
    struct filler filler;
    char path[128], byte;
    (void)state;
    expect_ok(cubudget_watch_open(NULL, &watch));
    expect_ok(cubudget_watch_descriptor(watch, &polled.fd));
    expect_ok(cubudget_pool_alloc(pool, HIGH_BYTES, &buffer));
    take(watch, CUBUDGET_PRESSURE_HIGH, 1);
    expect_ok(cubudget_buffer_free(&buffer));
    take(watch, CUBUDGET_PRESSURE_LOW, 2); /* as many as the filler makes */
    assert_int_equal(pipe(filler.to_filler), 0);
    assert_int_equal(pipe(filler.from_filler), 0);
    (void)snprintf(path, sizeof path, "%s/default.ledger", desk_directory);
    assert_int_equal(unlink(path), 0);
    pid_t pid = desk_fork(become_filler, &filler, 0);
    (void)close(filler.from_filler[1]);
    assert_int_equal(read(filler.from_filler[0], &byte, 1), 1);
    while (change.level !=
           CUBUDGET_PRESSURE_HIGH) { /* one change where it is found late, two where it is found in between */
        assert_int_equal(poll(&polled, 1, STEP_MS), 1);
        enum cubudget_error error = cubudget_pressure_wait(watch, 0, &change);
        assert_true(error == CUBUDGET_OK || error == CUBUDGET_ERROR_TIMEOUT);
    }
    (void)close(filler.to_filler[1]);
    assert_int_equal(desk_join(pid), 0);
    (void)close(filler.to_filler[0]);
    (void)close(filler.from_filler[0]);
    cubudget_watch_close(watch);
}

struct heard {
    _Atomic(uint64_t) count;
    uint64_t wrong;
};

static void hear(const struct cubudget_pressure_change *change, void *context)
{
    struct heard *heard = context;
    uint64_t count = atomic_load(&heard->count) + 1;
    bool right = change->generation == count && change->untold == 0 &&
                 change->level == (count % 2 != 0 ? CUBUDGET_PRESSURE_HIGH : CUBUDGET_PRESSURE_LOW);
    heard->wrong += !right;
    atomic_store(&heard->count, count);
}

/* Waits until so many were heard; false after STEP_MS. */
static bool heard_await(struct heard *heard, uint64_t count)
{
    int64_t end = now_us() + STEP_MS * 1000;
    while (atomic_load(&heard->count) < count && now_us() < end)
        (void)sched_yield();
    return atomic_load(&heard->count) >= count;
}

static void test_callback(void **state)
{
    struct heard heard = {0};
    struct cubudget_watch *watch;
    struct cubudget_pressure_change change;
    int descriptor;
    (void)state;
    expect_ok(cubudget_watch_open(NULL, &watch));
    expect_ok(cubudget_watch_callback(watch, hear, &heard));
    expect_error(CUBUDGET_ERROR_INVALID, cubudget_pressure_wait(watch, 0, &change));
    expect_error(CUBUDGET_ERROR_INVALID, cubudget_watch_descriptor(watch, &descriptor));
    for (unsigned i = 0; i < 50; i++) {
        struct cubudget_buffer buffer;
        expect_ok(cubudget_pool_alloc(pool, HIGH_BYTES, &buffer));
        expect_ok(cubudget_buffer_free(&buffer));
        assert_true(heard_await(&heard, 2 * i + 2)); /* so that it never falls far behind */
    }
    cubudget_watch_close(watch);
    assert_int_equal(heard.count, 100);
    assert_int_equal(heard.wrong, 0);
}

/* --- another process ---------------------------------------------------------------------------------------------------------------------- */

/* Watches and answers a byte for each change it takes: the level. */
struct distant {
    int from_watcher;
    int to_parent;
    unsigned changes;
};

static int watch_and_answer(void *context)
{
    const struct distant *distant = context;
    struct cubudget_watch *watch;
    struct cubudget_pressure_change change;
    char byte = 'r';
    if (cubudget_watch_open(NULL, &watch) != CUBUDGET_OK || write(distant->to_parent, &byte, 1) != 1)
        return 1;
    for (uint64_t count = 0; count < distant->changes;) {
        if (cubudget_pressure_wait(watch, STEP_MS, &change) != CUBUDGET_OK)
            return 2;
        count += change.untold + 1;
        if (change.generation != count ||
            change.level != (count % 2 != 0 ? CUBUDGET_PRESSURE_HIGH : CUBUDGET_PRESSURE_LOW))
            return 3;
        byte = (char)('0' + (int)change.level);
        if (change.pending == 0 && write(distant->to_parent, &byte, 1) != 1)
            return 4;
    }
    cubudget_watch_close(watch);
    return 0;
}

static pid_t distant_start(struct distant *distant, unsigned changes, int new_pid_namespace)
{
    int pipes[2];
    char byte;
    assert_int_equal(pipe(pipes), 0);
    *distant = (struct distant){.from_watcher = pipes[0], .to_parent = pipes[1], .changes = changes};
    pid_t pid = desk_fork(watch_and_answer, distant, new_pid_namespace);
    (void)close(pipes[1]);
    if (read(pipes[0], &byte, 1) == 1)
        return pid;
    int status = desk_join(pid); /* it ended before it watched */
    (void)close(pipes[0]);
    if (status != 77)
        fail_msg("the watcher ended with %d", status);
    return -1;
}

static int compare(const void *a, const void *b)
{
    int64_t first = *(const int64_t *)a, second = *(const int64_t *)b;
    return (first > second) - (first < second);
}

/* Each change is answered before the next is made: what passes between is how long it took to be told, and more. */
static void changes_are_answered(int new_pid_namespace)
{
    enum { ROUNDS = 100 };
    struct distant distant;
    int64_t took[2 * ROUNDS];
    pid_t pid = distant_start(&distant, 2 * ROUNDS, new_pid_namespace);
    if (pid < 0)
        skip();
    for (unsigned i = 0; i < 2 * ROUNDS; i++) {
        static struct cubudget_buffer buffer;
        char byte = 0;
        int64_t begin = now_us();
        if (i % 2 == 0)
            expect_ok(cubudget_pool_alloc(pool, HIGH_BYTES, &buffer));
        else
            expect_ok(cubudget_buffer_free(&buffer));
        assert_int_equal(read(distant.from_watcher, &byte, 1), 1);
        took[i] = now_us() - begin;
        assert_int_equal(byte, i % 2 == 0 ? '2' : '0');
    }
    assert_int_equal(desk_join(pid), 0);
    (void)close(distant.from_watcher);
    qsort(took, 2 * ROUNDS, sizeof took[0], compare);
    print_message("told and answered: median %lld us, worst %lld us\n", (long long)took[ROUNDS],
                  (long long)took[2 * ROUNDS - 1]);
    /* Somebody who polled, or was woken by the look of each second, would need longer in half of the cases. */
    assert_true(took[ROUNDS] < 10000);
}

static void test_other_process_is_told(void **state)
{
    (void)state;
    changes_are_answered(0);
}

static void test_other_pid_namespace_is_told(void **state)
{
    (void)state;
    changes_are_answered(1);
}

/* Ten watchers, a thousand changes as fast as they come: ten thousand changes to tell. */
static void test_none_is_lost(void **state)
{
    enum { WATCHERS = 10, CHANGES = 1000 };
    struct distant distant[WATCHERS];
    pid_t pids[WATCHERS];
    (void)state;
    for (unsigned i = 0; i < WATCHERS; i++)
        pids[i] = distant_start(&distant[i], CHANGES, 0);
    for (unsigned i = 0; i < CHANGES / 2; i++) {
        struct cubudget_buffer buffer;
        expect_ok(cubudget_pool_alloc(pool, HIGH_BYTES, &buffer));
        expect_ok(cubudget_buffer_free(&buffer));
    }
    for (unsigned i = 0; i < WATCHERS; i++) {
        assert_int_equal(desk_join(pids[i]), 0);
        (void)close(distant[i].from_watcher);
    }
}

/* --- deaths ------------------------------------------------------------------------------------------------------------------------------------ */

static int watch_for_ever(void *context)
{
    struct distant endless = *(struct distant *)context;
    endless.changes = 1 << 30;
    return watch_and_answer(&endless);
}

static void test_killed_watcher_leaves_nobody_watching(void **state)
{
    struct distant distant;
    struct cubudget_watch *watch;
    struct cubudget_pressure_change change;
    int pipes[2];
    char byte;
    (void)state;
    assert_int_equal(pipe(pipes), 0);
    distant = (struct distant){.from_watcher = pipes[0], .to_parent = pipes[1]};
    pid_t pid = desk_fork(watch_for_ever, &distant, 0);
    assert_int_equal(read(pipes[0], &byte, 1), 1);
    assert_int_equal(desk_watchers(), 1);
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_int_equal(desk_join(pid), 128 + SIGKILL);
    (void)close(pipes[0]);
    (void)close(pipes[1]);
    int64_t end = now_us() + STEP_MS * 1000;
    while (desk_watchers() != 0 && now_us() < end) { /* the look of each second, of this process's own thread */
        struct timespec nap = {.tv_nsec = 10000000};
        (void)nanosleep(&nap, NULL);
    }
    assert_int_equal(desk_watchers(), 0);
    expect_ok(cubudget_watch_open(NULL, &watch));
    assert_int_equal(desk_watchers(), 1);
    expect_error(CUBUDGET_ERROR_TIMEOUT, cubudget_pressure_wait(watch, 0, &change));
    cubudget_watch_close(watch);
    assert_int_equal(desk_watchers(), 0);
}

int main(int count, char **arguments)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_descriptor_after_a_replaced_ledger), /* first: the count of changes is the ledger's */
        cmocka_unit_test(test_changes_come_in_order),
        cmocka_unit_test(test_far_behind_is_counted),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_child_has_no_watch),
        cmocka_unit_test(test_descriptor),
        cmocka_unit_test(test_callback),
        cmocka_unit_test(test_other_process_is_told),
        cmocka_unit_test(test_other_pid_namespace_is_told),
        cmocka_unit_test(test_none_is_lost),
        cmocka_unit_test(test_killed_watcher_leaves_nobody_watching),
    };
    if (count > 2 && strcmp(arguments[1], "fill") == 0)
        return ledger_fill(arguments[2]);
    int failed = cmocka_run_group_tests(tests, pool_setup, NULL);
    desk_close();
    return failed;
}
