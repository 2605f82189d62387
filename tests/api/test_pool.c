/* Devices, pools and buffers of the C API, as a program sees them that links to the library and was not preloaded. */
#include "api/desk.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static struct cubudget_device device;

/* --- before there is a device ------------------------------------------------------------------------------------------------ */

static int ask_without_device(void *context)
{
    struct timespec begin, end;
    unsigned count = 77;
    (void)context;
    (void)clock_gettime(CLOCK_MONOTONIC, &begin);
    enum cubudget_error error = cubudget_available();
    (void)clock_gettime(CLOCK_MONOTONIC, &end);
    long us = (end.tv_sec - begin.tv_sec) * 1000000 + (end.tv_nsec - begin.tv_nsec) / 1000;
    (void)printf("availability without a device: %s after %ld us\n", cubudget_error_name(error), us);
    (void)fflush(stdout);
    if (error == CUBUDGET_OK)
        return 77; /* a machine with a GPU */
    bool right = error == CUBUDGET_ERROR_NO_DEVICE || error == CUBUDGET_ERROR_NO_DRIVER;
    right = right && cubudget_device_count(&count) == error && count == 77 && cubudget_last_detail()[0] != '\0';
    return right && cubudget_device_open(0, NULL, &device) == error ? 0 : 1;
}

static void test_no_device_is_told(void **state)
{
    (void)state;
    int status = desk_join(desk_fork(ask_without_device, NULL, 0));
    if (status == 77)
        skip();
    assert_int_equal(status, 0);
}

static int simulate_badly(void *context)
{
    (void)context;
    (void)setenv("CUBUDGET_BUDGET", "8 gigs", 1);
    if (cubudget_simulate(NULL, "/nonexistent") != CUBUDGET_ERROR_SETTINGS)
        return 1;
    return strstr(cubudget_last_detail(), "8 gigs") != NULL ? 0 : 2;
}

static void test_bad_settings_are_told(void **state)
{
    (void)state;
    assert_int_equal(desk_join(desk_fork(simulate_badly, NULL, 0)), 0);
}

/* --- devices --------------------------------------------------------------------------------------------------------------------- */

static void test_device(void **state)
{
    struct cubudget_device_info info = {.size = sizeof info};
    struct cubudget_requirements required = {.size = sizeof required, .compute_capability = 90, .virtual_memory = true};
    struct cubudget_device other = {.ordinal = 77};
    unsigned count;
    (void)state;
    expect_ok(cubudget_available());
    expect_ok(cubudget_device_count(&count));
    assert_int_equal(count, 1);
    expect_ok(cubudget_device_open(0, &required, &device));
    expect_ok(cubudget_device_info(device, &info));
    assert_int_equal(info.compute_capability, 90);
    assert_int_equal(info.multiprocessors, 132);
    assert_true(info.virtual_memory);
    assert_int_equal(info.total_bytes, 2 * GIB);
    assert_true(info.free_bytes <= 2 * GIB);
    assert_true(info.card_bytes > 2 * GIB);
    assert_int_equal(info.pressure, CUBUDGET_PRESSURE_LOW);
    assert_true(info.name[0] != '\0');
    expect_ok(cubudget_device_open_uuid(info.uuid, NULL, &other));
    assert_int_equal(other.ordinal, 0);
}

static void test_device_refusals(void **state)
{
    struct cubudget_device other = {.ordinal = 77};
    struct cubudget_device_info info = {.size = 0};
    struct cubudget_requirements newer = {.size = sizeof newer, .compute_capability = 91};
    struct cubudget_requirements larger = {.size = sizeof larger, .total_bytes = 2 * GIB + 1};
    (void)state;
    expect_error(CUBUDGET_ERROR_NO_DEVICE, cubudget_device_open(1, NULL, &other));
    expect_error(CUBUDGET_ERROR_NO_DEVICE, cubudget_device_open(-1, NULL, &other));
    expect_error(CUBUDGET_ERROR_UNSUITABLE, cubudget_device_open(0, &newer, &other));
    assert_non_null(strstr(cubudget_last_detail(), "9.1"));
    expect_error(CUBUDGET_ERROR_UNSUITABLE, cubudget_device_open(0, &larger, &other));
    expect_error(CUBUDGET_ERROR_INVALID, cubudget_device_open(0, NULL, NULL));
    expect_error(CUBUDGET_ERROR_INVALID, cubudget_device_open_uuid("GPU-12", NULL, &other));
    expect_error(CUBUDGET_ERROR_NO_DEVICE,
                 cubudget_device_open_uuid("GPU-00000000-0000-0000-0000-000000000000", NULL, &other));
    expect_error(CUBUDGET_ERROR_INVALID, cubudget_device_info(device, &info));
    assert_int_equal(other.ordinal, 77);
}

/* --- pools -------------------------------------------------------------------------------------------------------------------------- */

static struct cubudget_pool pool_open(uint64_t limit_bytes)
{
    struct cubudget_pool pool;
    expect_ok(cubudget_pool_create(device, limit_bytes, &pool));
    return pool;
}

static struct cubudget_pool_info pool_look(struct cubudget_pool pool)
{
    struct cubudget_pool_info info = {.size = sizeof info};
    expect_ok(cubudget_pool_info(pool, &info));
    return info;
}

static void test_buffer_is_charged_once(void **state)
{
    struct cubudget_pool pool = pool_open(256 * MIB);
    struct cubudget_buffer buffer;
    (void)state;
    assert_int_equal(desk_ledger_used(), CONTEXT_BYTES);
    expect_ok(cubudget_pool_alloc(pool, 100 * MIB + 1, &buffer));
    assert_int_equal(buffer.size, 100 * MIB + 1);
    assert_int_equal(desk_ledger_used(), CONTEXT_BYTES + 102 * MIB);
    assert_int_equal(desk_witness_used(), CONTEXT_BYTES + 102 * MIB);
    struct cubudget_pool_info info = pool_look(pool);
    assert_int_equal(info.used_bytes, 100 * MIB + 1);
    assert_int_equal(info.available_bytes, 156 * MIB - 1);
    assert_int_equal(info.buffers, 1);
    expect_ok(cubudget_pool_free(pool, &buffer));
    assert_int_equal(buffer.handle, 0);
    info = pool_look(pool);
    assert_int_equal(info.used_bytes, 0);
    assert_int_equal(info.peak_bytes, 100 * MIB + 1);
    assert_int_equal(info.available_bytes, 256 * MIB);
    assert_int_equal(desk_witness_used(), CONTEXT_BYTES);
    expect_ok(cubudget_pool_close(pool));
    assert_int_equal(desk_ledger_used(), 0);
    assert_int_equal(desk_witness_used(), 0);
}

static void test_memory_is_memory(void **state)
{
    struct cubudget_pool pool = pool_open(CUBUDGET_NO_LIMIT);
    struct cubudget_buffer buffer;
    int (*copy_in)(unsigned long long, const void *, size_t), (*copy_out)(void *, unsigned long long, size_t);
    int (*push)(void *), (*pop)(void **), (*retain)(void **, int), (*release)(int);
    void *context;
    char text[6] = "";
    (void)state;
    *(void **)&copy_in = dlsym(RTLD_DEFAULT, "cuMemcpyHtoD_v2");
    *(void **)&copy_out = dlsym(RTLD_DEFAULT, "cuMemcpyDtoH_v2");
    *(void **)&push = dlsym(RTLD_DEFAULT, "cuCtxPushCurrent_v2");
    *(void **)&pop = dlsym(RTLD_DEFAULT, "cuCtxPopCurrent_v2");
    *(void **)&retain = dlsym(RTLD_DEFAULT, "cuDevicePrimaryCtxRetain");
    *(void **)&release = dlsym(RTLD_DEFAULT, "cuDevicePrimaryCtxRelease_v2");
    expect_ok(cubudget_pool_alloc(pool, 6, &buffer));
    assert_int_equal(retain(&context, 0), 0);
    assert_int_equal(push(context), 0);
    assert_int_equal(copy_in(buffer.pointer, "hello", 6), 0);
    assert_int_equal(copy_out(text, buffer.pointer, 6), 0);
    assert_int_equal(pop(&context), 0);
    assert_int_equal(release(0), 0);
    assert_string_equal(text, "hello");
    expect_ok(cubudget_pool_close(pool));
}

static void test_limits(void **state)
{
    struct cubudget_pool pool = pool_open(64 * MIB), wide = pool_open(CUBUDGET_NO_LIMIT);
    struct cubudget_buffer buffer = {.pointer = 77}, other = {.pointer = 77};
    (void)state;
    expect_error(CUBUDGET_ERROR_POOL_LIMIT, cubudget_pool_alloc(pool, 64 * MIB + 1, &buffer));
    assert_int_equal(buffer.pointer, 77);
    expect_ok(cubudget_pool_alloc(pool, 64 * MIB, &buffer));
    expect_error(CUBUDGET_ERROR_POOL_LIMIT, cubudget_pool_alloc(pool, 1, &other));
    uint64_t left = pool_look(wide).available_bytes;
    assert_int_equal(left, 2 * GIB - CONTEXT_BYTES - 64 * MIB);
    expect_error(CUBUDGET_ERROR_OUT_OF_MEMORY, cubudget_pool_alloc(wide, left + 1, &other));
    assert_int_equal(cubudget_last_cuda_error(), 2);
    assert_int_equal(other.pointer, 77);
    expect_ok(cubudget_pool_alloc(wide, left / (2 * MIB) * (2 * MIB), &other));
    expect_error(CUBUDGET_ERROR_INVALID, cubudget_pool_alloc(wide, 0, &other));
    expect_error(CUBUDGET_ERROR_INVALID, cubudget_pool_create(device, 0, &pool));
    assert_true(desk_witness_peak() <= 2 * GIB);
    expect_ok(cubudget_pool_close(wide));
    expect_ok(cubudget_pool_close(pool));
}

static void test_misuse_is_reported(void **state)
{
    struct cubudget_pool pool = pool_open(GIB), other = pool_open(GIB), none = {0}, wild = {.handle = 0x100000005};
    struct cubudget_buffer buffer, copy, kept, nothing = {0};
    (void)state;
    expect_ok(cubudget_pool_alloc(pool, MIB, &buffer));
    expect_ok(cubudget_pool_alloc(pool, 4 * MIB, &kept));
    copy = buffer;
    expect_error(CUBUDGET_ERROR_FOREIGN, cubudget_pool_free(other, &buffer));
    expect_ok(cubudget_pool_free(pool, &buffer));
    expect_ok(cubudget_pool_free(pool, &buffer)); /* all zeroes now */
    expect_error(CUBUDGET_ERROR_FREED, cubudget_pool_free(pool, &copy));
    expect_ok(cubudget_pool_alloc(pool, MIB, &buffer)); /* in the same place */
    expect_error(CUBUDGET_ERROR_FREED, cubudget_buffer_free(&copy));
    copy = buffer;
    copy.pointer += 512;
    expect_error(CUBUDGET_ERROR_FOREIGN, cubudget_buffer_free(&copy));
    copy = buffer;
    copy.handle += 7;
    expect_error(CUBUDGET_ERROR_FOREIGN, cubudget_buffer_free(&copy));
    expect_ok(cubudget_buffer_free(&nothing));
    expect_error(CUBUDGET_ERROR_INVALID, cubudget_buffer_free(NULL));
    assert_int_equal(pool_look(pool).buffers, 2);
    expect_ok(cubudget_pool_close(pool));
    expect_error(CUBUDGET_ERROR_POOL_CLOSED, cubudget_buffer_free(&kept));
    expect_error(CUBUDGET_ERROR_POOL_CLOSED, cubudget_pool_close(pool));
    struct cubudget_pool again = pool_open(GIB); /* in the same place */
    expect_error(CUBUDGET_ERROR_POOL_CLOSED, cubudget_buffer_free(&kept));
    expect_error(CUBUDGET_ERROR_POOL_CLOSED, cubudget_pool_alloc(pool, 1, &copy));
    expect_error(CUBUDGET_ERROR_FOREIGN, cubudget_pool_close(none));
    expect_error(CUBUDGET_ERROR_FOREIGN, cubudget_pool_close(wild));
    expect_ok(cubudget_pool_close(again));
    expect_ok(cubudget_pool_close(other));
    assert_int_equal(desk_witness_used(), 0);
}

static void test_scope_frees(void **state)
{
    (void)state;
    {
        CUBUDGET_SCOPED_POOL(pool);
        expect_ok(cubudget_pool_create(device, GIB, &pool));
        {
            CUBUDGET_SCOPED_BUFFER(scratch);
            expect_ok(cubudget_pool_alloc(pool, 8 * MIB, &scratch));
            assert_int_equal(desk_witness_used(), CONTEXT_BYTES + 8 * MIB);
        }
        assert_int_equal(desk_witness_used(), CONTEXT_BYTES);
    }
    assert_int_equal(desk_witness_used(), 0);
}

static int use_parents_pool(void *context)
{
    struct cubudget_buffer *buffer = context;
    struct cubudget_pool pool = buffer->pool, own, unused = {.handle = 1ULL << 32 | 200};
    struct cubudget_buffer other;
    return cubudget_buffer_free(buffer) == CUBUDGET_ERROR_FORKED &&
                   cubudget_pool_create(device, GIB, &own) == CUBUDGET_ERROR_CUDA && /* and changes nothing */
                   cubudget_pool_alloc(unused, 1, &other) == CUBUDGET_ERROR_FORKED &&
                   cubudget_pool_alloc(pool, 1, &other) == CUBUDGET_ERROR_FORKED &&
                   cubudget_pool_close(pool) == CUBUDGET_ERROR_FORKED
               ? 0
               : 1;
}

static void test_child_owns_nothing(void **state)
{
    struct cubudget_pool pool = pool_open(GIB);
    struct cubudget_buffer buffer;
    (void)state;
    expect_ok(cubudget_pool_alloc(pool, 8 * MIB, &buffer));
    assert_int_equal(desk_join(desk_fork(use_parents_pool, &buffer, 0)), 0);
    assert_int_equal(desk_witness_used(), CONTEXT_BYTES + 8 * MIB);
    expect_ok(cubudget_buffer_free(&buffer));
    expect_ok(cubudget_pool_close(pool));
}

static long elapsed_ns(const struct timespec *begin)
{
    struct timespec end;
    (void)clock_gettime(CLOCK_MONOTONIC, &end);
    return (end.tv_sec - begin->tv_sec) * 1000000000L + (end.tv_nsec - begin->tv_nsec);
}

static int compare(const void *a, const void *b)
{
    long first = *(const long *)a, second = *(const long *)b;
    return (first > second) - (first < second);
}

/* What the interface adds and what the simulated driver takes, together, for people: a busy machine or a sanitizer makes it any
 * figure. tests/gpu/api.py holds a real card to one. */
static void test_latency(void **state)
{
    enum { SAMPLES = 1001 };
    static long allocations[SAMPLES], frees[SAMPLES];
    struct cubudget_pool pool = pool_open(CUBUDGET_NO_LIMIT);
    (void)state;
    for (unsigned i = 0; i < SAMPLES; i++) {
        struct cubudget_buffer buffer;
        struct timespec begin;
        (void)clock_gettime(CLOCK_MONOTONIC, &begin);
        expect_ok(cubudget_pool_alloc(pool, 20 * MIB, &buffer));
        allocations[i] = elapsed_ns(&begin);
        (void)clock_gettime(CLOCK_MONOTONIC, &begin);
        expect_ok(cubudget_buffer_free(&buffer));
        frees[i] = elapsed_ns(&begin);
    }
    qsort(allocations, SAMPLES, sizeof allocations[0], compare);
    qsort(frees, SAMPLES, sizeof frees[0], compare);
    print_message("20 MiB on the simulator: allocated in %ld ns, freed in %ld ns\n", allocations[SAMPLES / 2],
                  frees[SAMPLES / 2]);
    expect_ok(cubudget_pool_close(pool));
}

enum { THREADS = 8, ROUNDS = 300, LIVE = 5 };

static void *allocate_and_free(void *argument)
{
    struct cubudget_pool pool = *(struct cubudget_pool *)argument;
    struct cubudget_buffer live[LIVE] = {{0, 0, {0}, 0}};
    uintptr_t failed = 0;
    for (unsigned i = 0; i < ROUNDS; i++) {
        struct cubudget_buffer *buffer = &live[i % LIVE];
        failed += cubudget_buffer_free(buffer) != CUBUDGET_OK;
        enum cubudget_error error = cubudget_pool_alloc(pool, (i % 7 + 1) * MIB / 2, buffer);
        failed += error != CUBUDGET_OK && error != CUBUDGET_ERROR_POOL_LIMIT;
    }
    for (unsigned i = 0; i < LIVE; i++)
        failed += cubudget_buffer_free(&live[i]) != CUBUDGET_OK;
    return (void *)failed;
}

static void test_threads(void **state)
{
    struct cubudget_pool pool = pool_open(60 * MIB);
    pthread_t threads[THREADS];
    (void)state;
    for (unsigned i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, allocate_and_free, &pool), 0);
    for (unsigned i = 0; i < THREADS; i++) {
        void *failed;
        assert_int_equal(pthread_join(threads[i], &failed), 0);
        assert_null(failed);
    }
    struct cubudget_pool_info info = pool_look(pool);
    assert_int_equal(info.used_bytes, 0);
    assert_int_equal(info.buffers, 0);
    assert_true(info.peak_bytes <= 60 * MIB);
    assert_int_equal(desk_ledger_used(), CONTEXT_BYTES);
    assert_int_equal(desk_witness_used(), CONTEXT_BYTES);
    expect_ok(cubudget_pool_close(pool));
}

static void test_closing_frees_under_use(void **state)
{
    (void)state;
    for (unsigned round = 0; round < 20; round++) {
        struct cubudget_pool pool = pool_open(CUBUDGET_NO_LIMIT);
        struct cubudget_buffer buffer;
        pthread_t thread;
        void *failed;
        assert_int_equal(pthread_create(&thread, NULL, allocate_and_free, &pool), 0);
        expect_ok(cubudget_pool_alloc(pool, MIB, &buffer));
        expect_ok(cubudget_pool_close(pool)); /* somewhere in its rounds, whose calls then fail and say so */
        assert_int_equal(pthread_join(thread, &failed), 0);
        assert_int_equal(desk_ledger_used(), 0);
        assert_int_equal(desk_witness_used(), 0);
    }
}

/* --- the books ------------------------------------------------------------------------------------------------------------------------- */

static void test_snapshot(void **state)
{
    struct cubudget_pool pool = pool_open(GIB);
    struct cubudget_buffer buffer;
    struct cubudget_snapshot *snapshot;
    (void)state;
    expect_ok(cubudget_pool_alloc(pool, 300 * MIB, &buffer));
    expect_ok(cubudget_snapshot_take(&snapshot));
    const struct cubudget_ledger_entry *ledger = cubudget_snapshot_ledger(snapshot);
    const struct cubudget_device_entry *entry = cubudget_snapshot_device(snapshot, 0);
    const struct cubudget_process_entry *process = cubudget_snapshot_process(snapshot, 0);
    assert_string_equal(ledger->name, "default");
    assert_int_equal(ledger->budget_bytes, 2 * GIB);
    assert_int_equal(ledger->devices, 1);
    assert_int_equal(ledger->processes, 1);
    assert_true(entry->simulated && entry->steady);
    assert_int_equal(entry->used_bytes, CONTEXT_BYTES + 300 * MIB);
    assert_int_equal(entry->available_bytes, 2 * GIB - entry->used_bytes);
    assert_int_equal(process->pid, (uint32_t)getpid());
    assert_int_equal(process->state, CUBUDGET_PROCESS_LIVE);
    assert_int_equal(process->size, sizeof *process);
    assert_in_range(process->activity, CUBUDGET_ACTIVITY_NO_CONTEXT, CUBUDGET_ACTIVITY_RUNNING);
    assert_true(process->activity_since_ns != 0);
    assert_int_equal(process->host_bytes, 0);
    assert_int_equal(process->waiting, CUBUDGET_WAITING_NOT);
    assert_int_equal(process->waiting_for_slot, -1);
    assert_int_equal(process->by_kind[0], 300 * MIB);
    assert_int_equal(process->by_kind[2], CONTEXT_BYTES);
    assert_string_equal(cubudget_snapshot_slot(snapshot, process->slot)->name, "own");
    assert_null(cubudget_snapshot_device(snapshot, 1));
    assert_null(cubudget_snapshot_process(snapshot, 1));
    assert_null(cubudget_snapshot_slot(NULL, 0));
    cubudget_snapshot_free(snapshot);
    cubudget_snapshot_free(NULL);
    expect_error(CUBUDGET_ERROR_INVALID, cubudget_snapshot_take(NULL));
    expect_ok(cubudget_pool_close(pool));
}

static void test_errors_have_names(void **state)
{
    (void)state;
    for (int error = CUBUDGET_OK; error <= CUBUDGET_ERROR_UNSUPPORTED; error++) {
        assert_string_not_equal(cubudget_error_name((enum cubudget_error)error), "CUBUDGET_ERROR_UNKNOWN");
        assert_true(strlen(cubudget_error_sentence((enum cubudget_error)error)) > 10);
    }
    assert_string_equal(cubudget_error_name(CUBUDGET_OK), "CUBUDGET_OK");
    assert_string_equal(cubudget_error_name((enum cubudget_error)(CUBUDGET_ERROR_UNSUPPORTED + 1)),
                        "CUBUDGET_ERROR_UNKNOWN");
    assert_string_equal(cubudget_error_name((enum cubudget_error) - 1), "CUBUDGET_ERROR_UNKNOWN");
}

static int simulate_once(void **state)
{
    (void)state;
    desk_open("memory=4GiB", "2GiB");
    return 0;
}

int main(void)
{
    const struct CMUnitTest before[] = {
        cmocka_unit_test(test_no_device_is_told),
        cmocka_unit_test(test_bad_settings_are_told),
    };
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_device),
        cmocka_unit_test(test_device_refusals),
        cmocka_unit_test(test_buffer_is_charged_once),
        cmocka_unit_test(test_memory_is_memory),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_misuse_is_reported),
        cmocka_unit_test(test_scope_frees),
        cmocka_unit_test(test_child_owns_nothing),
        cmocka_unit_test(test_latency),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_closing_frees_under_use),
        cmocka_unit_test(test_snapshot),
        cmocka_unit_test(test_errors_have_names),
    };
    int failed = cmocka_run_group_tests(before, NULL, NULL);
    failed += cmocka_run_group_tests(tests, simulate_once, NULL);
    desk_close();
    return failed;
}
