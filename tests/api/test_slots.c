/*
 * Several slots in one process: a row in each, with exactly its bytes; frees from other threads and under other pushes credit the
 * slot that paid; limits and views are the pushed slot's; a child begins anew.
 */
#include "api/desk.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static struct cubudget_device device;
static struct cubudget_pool pool;

static int pool_setup(void **state)
{
    (void)state;
    desk_open("memory=24GiB", "8GiB");
    /* Before the process is attached: the row is made when it is, and pays for the context. */
    expect_ok(cubudget_slot_push("early"));
    expect_ok(cubudget_device_open(0, NULL, &device));
    expect_ok(cubudget_pool_create(device, CUBUDGET_NO_LIMIT, &pool));
    expect_ok(cubudget_slot_pop());
    return 0;
}

static void test_pushed_before_attaching(void **state)
{
    (void)state;
    assert_int_equal(desk_slot_used("early"), CONTEXT_BYTES);
    assert_int_equal(desk_slot_used("own"), 0);
}

static struct cubudget_buffer allocate(uint64_t bytes)
{
    struct cubudget_buffer buffer;
    expect_ok(cubudget_pool_alloc(pool, bytes, &buffer));
    return buffer;
}

static void expect_current(const char *name)
{
    char current[CUBUDGET_NAME_BYTES];
    expect_ok(cubudget_slot_current(current));
    assert_string_equal(current, name);
}

static struct cubudget_buffer allocate_in(const char *slot, uint64_t bytes)
{
    CUBUDGET_SCOPED_SLOT(slot);
    expect_current(slot);
    return allocate(bytes);
}

/* What `cubudget dump --json` says: a line of the tests' own making for each row. */
static void dump_read(char *text, size_t bytes)
{
    char command[512];
    (void)snprintf(command, sizeof command,
                   "'%s/cubudget' dump --json | jq -r '.processes[] | \"\\(.slot) \\(.used_bytes)\"' | sort",
                   getenv("abs_top_builddir"));
    FILE *pipe = popen(command, "r");
    assert_non_null(pipe);
    text[fread(text, 1, bytes - 1, pipe)] = '\0';
    assert_int_equal(pclose(pipe), 0);
}

static void test_two_models_have_two_rows(void **state)
{
    char seen[1024], wanted[1024];
    (void)state;
    struct cubudget_buffer first = allocate_in("model-a", 300 * MIB), second = allocate_in("model-b", 500 * MIB + 1);
    expect_current("own");
    assert_int_equal(desk_slot_used("model-a"), 300 * MIB);
    assert_int_equal(desk_slot_used("model-b"), 502 * MIB);
    assert_int_equal(desk_witness_used(), CONTEXT_BYTES + 802 * MIB);
    if (getenv("abs_top_builddir") != NULL && system("command -v jq >/dev/null") == 0) {
        (void)snprintf(wanted, sizeof wanted, "early %llu\nmodel-a %llu\nmodel-b %llu\nown 0\n",
                       (unsigned long long)CONTEXT_BYTES, 300 * MIB, 502 * MIB);
        dump_read(seen, sizeof seen);
        assert_string_equal(seen, wanted);
    }
    if (getenv("abs_top_builddir") != NULL) { /* and the rows of the process together are what the driver says */
        (void)snprintf(seen, sizeof seen, "'%s/cubudget' check --books", getenv("abs_top_builddir"));
        assert_int_equal(system(seen), 0);
    }
    expect_ok(cubudget_buffer_free(&first));
    assert_int_equal(desk_slot_used("model-a"), 0);
    assert_int_equal(desk_slot_used("model-b"), 502 * MIB);
    expect_ok(cubudget_buffer_free(&second));
    assert_int_equal(desk_slot_used("model-b"), 0);
}

static void *free_under_another_push(void *buffer)
{
    CUBUDGET_SCOPED_SLOT("model-b");
    return (void *)(uintptr_t)cubudget_buffer_free(buffer);
}

static void test_other_thread_credits_who_paid(void **state)
{
    pthread_t thread;
    void *error;
    (void)state;
    struct cubudget_buffer mine = allocate_in("model-a", 64 * MIB), kept = allocate_in("model-b", 32 * MIB);
    assert_int_equal(pthread_create(&thread, NULL, free_under_another_push, &mine), 0);
    assert_int_equal(pthread_join(thread, &error), 0);
    assert_null(error);
    assert_int_equal(desk_slot_used("model-a"), 0);
    assert_int_equal(desk_slot_used("model-b"), 32 * MIB);
    expect_ok(cubudget_buffer_free(&kept));
    assert_int_equal(desk_ledger_used(), CONTEXT_BYTES);
}

/* Small ones of several slots lie in one block: whoever came first pays for it, until the last is gone. */
static void test_shared_block_is_paid_once(void **state)
{
    (void)state;
    struct cubudget_buffer first = allocate_in("model-a", 1000), second = allocate_in("model-b", 1000);
    assert_int_equal(desk_slot_used("model-a"), 2 * MIB);
    assert_int_equal(desk_slot_used("model-b"), 0);
    expect_ok(cubudget_buffer_free(&first));
    assert_int_equal(desk_slot_used("model-a"), 2 * MIB);
    expect_ok(cubudget_buffer_free(&second));
    assert_int_equal(desk_slot_used("model-a"), 0);
    assert_int_equal(desk_slot_used("model-b"), 0);
    assert_int_equal(desk_ledger_used(), desk_witness_used());
}

static void test_pushes_nest(void **state)
{
    (void)state;
    expect_error(CUBUDGET_ERROR_NOT_PUSHED, cubudget_slot_pop());
    expect_ok(cubudget_slot_push("model-a"));
    expect_ok(cubudget_slot_push("own"));
    expect_current("own");
    expect_ok(cubudget_slot_pop());
    expect_current("model-a");
    for (unsigned i = 1; i < 32; i++)
        expect_ok(cubudget_slot_push("model-b"));
    expect_error(CUBUDGET_ERROR_TOO_MANY, cubudget_slot_push("model-b"));
    for (unsigned i = 0; i < 32; i++)
        expect_ok(cubudget_slot_pop());
    expect_error(CUBUDGET_ERROR_NOT_PUSHED, cubudget_slot_pop());
    expect_error(CUBUDGET_ERROR_INVALID, cubudget_slot_push(NULL));
    expect_error(CUBUDGET_ERROR_INVALID, cubudget_slot_push(""));
    expect_error(CUBUDGET_ERROR_INVALID, cubudget_slot_push("a/b"));
    expect_error(CUBUDGET_ERROR_INVALID, cubudget_slot_current(NULL));
    expect_current("own");
}

static void *push_and_end(void *unused)
{
    (void)unused;
    return (void *)(uintptr_t)cubudget_slot_push("model-a");
}

/* A thread's memory is used again by the next: its pushes are not. */
static void test_pushes_end_with_the_thread(void **state)
{
    pthread_t thread;
    void *result;
    (void)state;
    assert_int_equal(pthread_create(&thread, NULL, push_and_end, NULL), 0);
    assert_int_equal(pthread_join(thread, &result), 0);
    assert_null(result);
    struct cubudget_buffer buffer = allocate(16 * MIB);
    assert_int_equal(desk_slot_used("own"), 16 * MIB);
    assert_int_equal(desk_slot_used("model-a"), 0);
    expect_ok(cubudget_buffer_free(&buffer));
}

/* The end of the context that all of them share credits each. */
static void test_closing_credits_each(void **state)
{
    (void)state;
    (void)allocate_in("model-a", 10 * MIB);
    (void)allocate_in("model-b", 20 * MIB);
    (void)allocate_in("model-a", 30 * MIB);
    (void)allocate_in("model-b", 100);
    assert_int_equal(desk_slot_used("model-a"), 40 * MIB);
    assert_int_equal(desk_slot_used("model-b"), 22 * MIB);
    expect_ok(cubudget_pool_close(pool));
    assert_int_equal(desk_slot_used("model-a"), 0);
    assert_int_equal(desk_slot_used("model-b"), 0);
    assert_int_equal(desk_slot_used("early"), 0);
    assert_int_equal(desk_witness_used(), 0);
    expect_ok(cubudget_pool_create(device, CUBUDGET_NO_LIMIT, &pool)); /* the own slot pays now */
    assert_int_equal(desk_slot_used("own"), CONTEXT_BYTES);
}

/* --- the program's own calls, which the library stands in front of -------------------------------------------------------- */

static int (*retain)(void **context, int device), (*release)(int device), (*set_current)(void *context),
    (*synchronise)(void), (*alloc_async)(unsigned long long *pointer, size_t bytes, void *stream),
    (*free_async)(unsigned long long pointer, void *stream);

static void driver_find(void)
{
    *(void **)&retain = dlsym(RTLD_DEFAULT, "cuDevicePrimaryCtxRetain");
    *(void **)&release = dlsym(RTLD_DEFAULT, "cuDevicePrimaryCtxRelease_v2");
    *(void **)&set_current = dlsym(RTLD_DEFAULT, "cuCtxSetCurrent");
    *(void **)&synchronise = dlsym(RTLD_DEFAULT, "cuCtxSynchronize");
    *(void **)&alloc_async = dlsym(RTLD_DEFAULT, "cuMemAllocAsync");
    *(void **)&free_async = dlsym(RTLD_DEFAULT, "cuMemFreeAsync");
}

static unsigned long long allocate_async(const char *slot, size_t bytes)
{
    CUBUDGET_SCOPED_SLOT(slot);
    unsigned long long pointer;
    assert_int_equal(alloc_async(&pointer, bytes, NULL), 0);
    return pointer;
}

/* A stream-ordered pool grows in steps of 32 MiB, each paid by who made it grow; what it gives back is credited to who has paid for
 * more than is handed out to him. */
static void test_a_pools_growth_is_paid_by_who_needs_it(void **state)
{
    void *context;
    (void)state;
    driver_find();
    assert_int_equal(retain(&context, 0), 0);
    assert_int_equal(set_current(context), 0);
    unsigned long long first = allocate_async("model-a", 40 * MIB);
    assert_int_equal(desk_slot_used("model-a"), 64 * MIB);
    unsigned long long second = allocate_async("model-b", 60 * MIB); /* 24 of them where there is room */
    assert_int_equal(desk_slot_used("model-a"), 64 * MIB);
    assert_int_equal(desk_slot_used("model-b"), 64 * MIB);
    unsigned long long third = allocate_async("model-b", 10 * MIB);
    assert_int_equal(desk_slot_used("model-b"), 64 * MIB);
    assert_int_equal(free_async(first, NULL), 0);
    assert_int_equal(synchronise(), 0);
    assert_int_equal(desk_slot_used("model-a"), 32 * MIB);
    assert_int_equal(desk_slot_used("model-b"), 64 * MIB);
    assert_int_equal(desk_ledger_used(), desk_witness_used());
    {
        CUBUDGET_SCOPED_SLOT("model-a"); /* who frees does not matter */
        assert_int_equal(free_async(second, NULL), 0);
        assert_int_equal(free_async(third, NULL), 0);
        assert_int_equal(synchronise(), 0);
    }
    assert_int_equal(desk_slot_used("model-a"), 0);
    assert_int_equal(desk_slot_used("model-b"), 0);
    assert_int_equal(desk_ledger_used(), desk_witness_used());
    assert_int_equal(set_current(NULL), 0);
    assert_int_equal(release(0), 0);
}

/* As another process would do it: the slot of that name is a ledger's slot like any other. */
static int limited_process(void *context)
{
    (void)context;
    (void)setenv("CUBUDGET_SLOT", "limited", 1);
    (void)setenv("CUBUDGET_LIMIT", "100MiB", 1);
    /* its own program again */
    return execl("/proc/self/exe", "test_slots", "attach", (char *)NULL);
}

static void test_limit_is_the_pushed_slots(void **state)
{
    struct cubudget_buffer buffer = {0}, other;
    struct cubudget_pool_info info = {.size = sizeof info};
    struct cubudget_device_info seen = {.size = sizeof seen};
    (void)state;
    assert_int_equal(desk_join(desk_fork(limited_process, NULL, 0)), 0);
    {
        CUBUDGET_SCOPED_SLOT("limited");
        expect_ok(cubudget_pool_info(pool, &info));
        assert_int_equal(info.available_bytes, 100 * MIB);
        expect_ok(cubudget_device_info(device, &seen));
        assert_int_equal(seen.total_bytes, 100 * MIB);
        expect_ok(cubudget_pool_alloc(pool, 100 * MIB, &buffer));
        expect_error(CUBUDGET_ERROR_OUT_OF_MEMORY, cubudget_pool_alloc(pool, 2 * MIB, &other));
    }
    other = allocate(2 * MIB); /* in one's own */
    expect_ok(cubudget_buffer_free(&other));
    expect_ok(cubudget_buffer_free(&buffer));
}

enum { THREADS = 6, ROUNDS = 200 };

static void *churn(void *number)
{
    char name[16];
    uintptr_t failed = 0;
    struct cubudget_buffer live[4] = {{0, 0, {0}, 0}};
    for (unsigned i = 0; i < ROUNDS; i++) {
        (void)snprintf(name, sizeof name, "churn-%u", (unsigned)((uintptr_t)number + i) % 20);
        CUBUDGET_SCOPED_SLOT(name);
        failed += cubudget_buffer_free(&live[i % 4]) != CUBUDGET_OK;
        failed += cubudget_pool_alloc(pool, (i % 5 + 1) * MIB, &live[i % 4]) != CUBUDGET_OK;
    }
    for (unsigned i = 0; i < 4; i++)
        failed += cubudget_buffer_free(&live[i]) != CUBUDGET_OK;
    return (void *)failed;
}

static void test_many_threads_and_slots(void **state)
{
    pthread_t threads[THREADS];
    (void)state;
    for (uintptr_t i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, churn, (void *)i), 0);
    for (unsigned i = 0; i < THREADS; i++) {
        void *failed;
        assert_int_equal(pthread_join(threads[i], &failed), 0);
        assert_null(failed);
    }
    for (unsigned i = 0; i < 20; i++) {
        char name[16];
        (void)snprintf(name, sizeof name, "churn-%u", i);
        assert_int_equal(desk_slot_used(name), 0);
    }
    assert_int_equal(desk_ledger_used(), CONTEXT_BYTES);
    assert_int_equal(desk_witness_used(), CONTEXT_BYTES);
}

static int child_asks(void *context)
{
    char name[CUBUDGET_NAME_BYTES];
    (void)context;
    if (cubudget_slot_current(name) != CUBUDGET_OK || strcmp(name, "own") != 0)
        return 1;
    return cubudget_slot_pop() == CUBUDGET_ERROR_NOT_PUSHED ? 0 : 2;
}

static void test_child_has_nothing_pushed(void **state)
{
    (void)state;
    CUBUDGET_SCOPED_SLOT("model-a");
    assert_int_equal(desk_join(desk_fork(child_asks, NULL, 0)), 0);
}

static void ledger_remove_now(void)
{
    char path[128];
    (void)snprintf(path, sizeof path, "%s/default.ledger", desk_directory);
    assert_int_equal(unlink(path), 0);
}

/* A slot that is new just after the ledger was removed is waited for, and is in the one that comes. */
static void test_push_just_after_the_ledger_went(void **state)
{
    (void)state;
    ledger_remove_now();
    expect_ok(cubudget_slot_push("late"));
    struct cubudget_buffer buffer = allocate(16 * MIB);
    expect_ok(cubudget_slot_pop());
    assert_int_equal(desk_slot_used("late"), 16 * MIB);
    assert_int_equal(desk_slot_used("own"), CONTEXT_BYTES);
    expect_ok(cubudget_buffer_free(&buffer));
    assert_int_equal(desk_slot_used("late"), 0);
}

/* The same, twice, in a process that has used no context, and so has no thread that looks after its rows. */
static int push_without_a_thread(const char *directory)
{
    struct cubudget_device own;
    char path[128], name[16], current[CUBUDGET_NAME_BYTES];
    (void)snprintf(path, sizeof path, "%s/default.ledger", directory);
    if (cubudget_simulate("memory=24GiB", directory) != CUBUDGET_OK ||
        cubudget_device_open(0, NULL, &own) != CUBUDGET_OK)
        return 1;
    for (unsigned i = 0; i < 2; i++) {
        (void)snprintf(name, sizeof name, "alone-%u", i);
        if (unlink(path) != 0 || cubudget_slot_push(name) != CUBUDGET_OK || access(path, F_OK) != 0 ||
            cubudget_slot_current(current) != CUBUDGET_OK || strcmp(current, name) != 0)
            return 2;
    }
    return 0;
}

static int become_one_without_a_thread(void *directory)
{
    return execl("/proc/self/exe", "test_slots", "push", (char *)directory, (char *)NULL);
}

static void test_push_without_a_thread(void **state)
{
    char directory[sizeof desk_directory + 8];
    (void)state;
    (void)snprintf(directory, sizeof directory, "%s/alone", desk_directory);
    assert_int_equal(mkdir(directory, 0700), 0);
    assert_int_equal(desk_join(desk_fork(become_one_without_a_thread, directory, 0)), 0);
}

/* The ledger's file is removed under it: every row moves, and is credited there. */
static void test_rows_move_with_the_ledger(void **state)
{
    (void)state;
    struct cubudget_buffer first = allocate_in("model-a", 64 * MIB), second = allocate_in("model-b", 32 * MIB);
    ledger_remove_now();
    struct cubudget_snapshot *snapshot;
    for (unsigned i = 0; i < 3000 && cubudget_snapshot_take(&snapshot) != CUBUDGET_OK;
         i++) /* the look of each second */
        (void)usleep(10000);
    cubudget_snapshot_free(snapshot);
    for (unsigned i = 0; i < 3000 && desk_ledger_used() != CONTEXT_BYTES + 96 * MIB; i++)
        (void)usleep(10000);
    assert_int_equal(desk_slot_used("model-a"), 64 * MIB);
    assert_int_equal(desk_slot_used("model-b"), 32 * MIB);
    assert_int_equal(desk_slot_used("own"), CONTEXT_BYTES);
    expect_ok(cubudget_buffer_free(&first));
    expect_ok(cubudget_buffer_free(&second));
    assert_int_equal(desk_ledger_used(), CONTEXT_BYTES);
}

/* The slots of a process are 64 at most, its own among them. */
static void test_slots_are_counted(void **state)
{
    unsigned made = 0;
    enum cubudget_error error;
    (void)state;
    for (;; made++) {
        char name[16];
        (void)snprintf(name, sizeof name, "one-%u", made);
        error = cubudget_slot_push(name);
        if (error != CUBUDGET_OK || cubudget_slot_pop() != CUBUDGET_OK)
            break;
    }
    desk_expect(CUBUDGET_ERROR_TOO_MANY, error, "the slot that is too many", __FILE__, __LINE__);
    assert_true(made >= 16 && made < 64);
    struct cubudget_buffer buffer = allocate_in("one-0", 8 * MIB);
    assert_int_equal(desk_slot_used("one-0"), 8 * MIB);
    expect_ok(cubudget_buffer_free(&buffer));
}

int main(int count, char **arguments)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pushed_before_attaching),
        cmocka_unit_test(test_two_models_have_two_rows),
        cmocka_unit_test(test_other_thread_credits_who_paid),
        cmocka_unit_test(test_shared_block_is_paid_once),
        cmocka_unit_test(test_pushes_nest),
        cmocka_unit_test(test_pushes_end_with_the_thread),
        cmocka_unit_test(test_closing_credits_each),
        cmocka_unit_test(test_a_pools_growth_is_paid_by_who_needs_it),
        cmocka_unit_test(test_limit_is_the_pushed_slots),
        cmocka_unit_test(test_many_threads_and_slots),
        cmocka_unit_test(test_child_has_nothing_pushed),
        cmocka_unit_test(test_rows_move_with_the_ledger),
        cmocka_unit_test(test_push_just_after_the_ledger_went),
        cmocka_unit_test(test_push_without_a_thread),
        cmocka_unit_test(test_slots_are_counted),
    };
    if (count > 1 && strcmp(arguments[1], "attach") == 0) {
        if (cubudget_simulate(getenv("CUBUDGET_SIMULATE"), NULL) != CUBUDGET_OK)
            return 1;
        return cubudget_device_open(0, NULL, &device) == CUBUDGET_OK ? 0 : 2;
    }
    if (count > 2 && strcmp(arguments[1], "push") == 0)
        return push_without_a_thread(arguments[2]);
    int failed = cmocka_run_group_tests(tests, pool_setup, NULL);
    desk_close();
    return failed;
}
