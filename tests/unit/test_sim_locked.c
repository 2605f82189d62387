/*
 * What a process's other calls do while the simulated driver is locked or its memory is away: wait, answer, fail or crash, as
 * was measured on a card; what a lock waits for; and how transitions are made slow, refused or endless.
 */
#include "unit/sim_stage.h"

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "cuda/nvml_abi.h"

#define CONTEXT_BYTES (527 * MIB)

nvmlReturn_t nvmlInit_v2(void);
nvmlReturn_t nvmlShutdown(void);
nvmlReturn_t nvmlDeviceGetCount_v2(unsigned *count);

static int setup(void **state)
{
    (void)state;
    return stage_open("release=0");
}

static int teardown(void **state)
{
    (void)state;
    return stage_close();
}

static CUcontext context;
static CUstream stream;
static CUevent event;
static CUmodule module;
static CUfunction function;
static CUdeviceptr memory;
static void *pinned;

static int enter(const char *options)
{
    if (options)
        setenv("CUBUDGET_SIMULATE", options, 1);
    must(cuInit(0) == CUDA_SUCCESS && cuDevicePrimaryCtxRetain(&context, 0) == CUDA_SUCCESS);
    must(cuCtxSetCurrent(context) == CUDA_SUCCESS && cuStreamCreate(&stream, 0) == CUDA_SUCCESS);
    must(cuEventCreate(&event, 0) == CUDA_SUCCESS && cuModuleLoadData(&module, "image") == CUDA_SUCCESS);
    must(cuModuleGetFunction(&function, module, "spin_ms") == CUDA_SUCCESS);
    must(cuMemAlloc_v2(&memory, 2 * MIB) == CUDA_SUCCESS && cuMemHostAlloc(&pinned, 4096, 0) == CUDA_SUCCESS);
    return 0;
}

static CUresult out(void)
{
    CUresult result = cuCheckpointProcessLock(getpid(), NULL);
    return result == CUDA_SUCCESS ? cuCheckpointProcessCheckpoint(getpid(), NULL) : result;
}

static CUresult back(void)
{
    CUresult result = cuCheckpointProcessRestore(getpid(), NULL);
    return result == CUDA_SUCCESS ? cuCheckpointProcessUnlock(getpid(), NULL) : result;
}

static int state_now(void)
{
    CUprocessState state = -1;
    return cuCheckpointProcessGetState(getpid(), &state) == CUDA_SUCCESS ? state : -1;
}

/* A call in a thread of its own. */
struct caller {
    const char *name;
    CUresult (*call)(void);
    pthread_t thread;
    atomic_int number; /* the thread's; 0: not yet running */
    atomic_bool returned;
    CUresult result;
};

static void *caller_run(void *argument)
{
    struct caller *caller = argument;
    cuCtxPushCurrent_v2(context);
    atomic_store(&caller->number, (int)syscall(SYS_gettid));
    caller->result = caller->call();
    atomic_store(&caller->returned, true);
    return NULL;
}

static bool thread_sleeps(int number)
{
    char path[64], text[256] = "";
    snprintf(path, sizeof(path), "/proc/self/task/%d/stat", number);
    FILE *file = fopen(path, "r");
    size_t length = file ? fread(text, 1, sizeof(text) - 1, file) : 0;
    if (file)
        fclose(file);
    const char *after_name = length ? strrchr(text, ')') : NULL;
    return after_name && after_name[1] == ' ' && after_name[2] == 'S';
}

static void pause_shortly(void)
{
    nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL);
}

/* Starts it, and waits until it sleeps or has returned. */
static bool caller_start(struct caller *caller)
{
    if (pthread_create(&caller->thread, NULL, caller_run, caller) != 0)
        return false;
    while (atomic_load(&caller->number) == 0)
        pause_shortly();
    while (!atomic_load(&caller->returned) && !thread_sleeps(atomic_load(&caller->number)))
        pause_shortly();
    return true;
}

static CUresult call_alloc(void)
{
    CUdeviceptr address;
    return cuMemAlloc_v2(&address, 1024);
}

static CUresult call_host_alloc(void)
{
    void *address;
    return cuMemHostAlloc(&address, 4096, 0);
}

static CUresult call_launch(void)
{
    unsigned milliseconds = 0;
    void *parameters[] = {&milliseconds};
    return cuLaunchKernel(function, 1, 1, 1, 1, 1, 1, 0, NULL, parameters, NULL);
}

static CUresult call_copy(void)
{
    char byte;
    return cuMemcpyDtoH_v2(&byte, memory, 1);
}

static CUresult call_stream(void)
{
    CUstream made;
    return cuStreamCreate(&made, 0);
}

static CUresult call_function(void)
{
    CUfunction found;
    return cuModuleGetFunction(&found, module, "fill_u32");
}

static CUresult call_init(void)
{
    return cuInit(0);
}

static CUresult call_release(void)
{
    CUcontext retained;
    cuDevicePrimaryCtxRetain(&retained, 0); /* waits as well */
    return cuDevicePrimaryCtxRelease_v2(0);
}

static CUresult call_free(void)
{
    return cuMemFreeHost(pinned);
}

static CUresult call_nvml_init(void)
{
    return nvmlInit_v2();
}

static CUresult call_nvml_count(void)
{
    unsigned count;
    return nvmlDeviceGetCount_v2(&count);
}

static int waits_body(void)
{
    static struct caller callers[] = {
        {.name = "cuMemAlloc", .call = call_alloc},      {.name = "cuMemHostAlloc", .call = call_host_alloc},
        {.name = "cuLaunchKernel", .call = call_launch}, {.name = "cuMemcpyDtoH", .call = call_copy},
        {.name = "cuStreamCreate", .call = call_stream}, {.name = "cuModuleGetFunction", .call = call_function},
        {.name = "cuInit", .call = call_init},           {.name = "cuDevicePrimaryCtxRelease", .call = call_release},
        {.name = "cuMemFreeHost", .call = call_free},
    };
    enum { COUNT = sizeof(callers) / sizeof(callers[0]) };
    must(enter(NULL) == 0);
    must(cuCheckpointProcessLock(getpid(), NULL) == CUDA_SUCCESS);
    for (int i = 0; i < COUNT / 2; i++) /* some while it is only locked */
        must(caller_start(&callers[i]));
    must(cuCheckpointProcessCheckpoint(getpid(), NULL) == CUDA_SUCCESS);
    for (int i = COUNT / 2; i < COUNT; i++)
        must(caller_start(&callers[i]));
    must(cuCheckpointProcessRestore(getpid(), NULL) == CUDA_SUCCESS);
    for (int i = 0; i < COUNT; i++)
        if (atomic_load(&callers[i].returned)) {
            fprintf(stderr, "%s returned %d while locked\n", callers[i].name, callers[i].result);
            return 1;
        }
    must(cuCheckpointProcessUnlock(getpid(), NULL) == CUDA_SUCCESS);
    for (int i = 0; i < COUNT; i++) {
        pthread_join(callers[i].thread, NULL);
        if (callers[i].result != CUDA_SUCCESS) {
            fprintf(stderr, "%s: %d\n", callers[i].name, callers[i].result);
            return 1;
        }
    }
    return 0;
}

static void calls_wait_until_all_is_back(void **state)
{
    (void)state;
    assert_int_equal(stage_child(waits_body), 0);
}

/* Those that take no lock of the driver's. */
static int answers(void)
{
    CUcontext current;
    CUdeviceptr reserved;
    size_t total;
    unsigned flags;
    int value, active;
    const char *name;
    void *address;
    must(cuCtxGetCurrent(&current) == CUDA_SUCCESS && current == context);
    must(cuCtxPushCurrent_v2(context) == CUDA_SUCCESS && cuCtxPopCurrent_v2(NULL) == CUDA_SUCCESS);
    must(cuDeviceGetAttribute(&value, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, 0) == CUDA_SUCCESS && value == 9);
    must(cuDeviceGetCount(&value) == CUDA_SUCCESS && value == 1);
    must(cuDeviceTotalMem_v2(&total, 0) == CUDA_SUCCESS && total == 24 * GIB);
    must(cuDriverGetVersion(&value) == CUDA_SUCCESS && cuGetErrorName(2, &name) == CUDA_SUCCESS);
    must(cuGetProcAddress("cuMemAlloc", &address, 13000, 0) == CUDA_SUCCESS);
    must(cuPointerGetAttribute(&value, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, memory) == CUDA_SUCCESS);
    must(cuMemAddressReserve(&reserved, 2 * MIB, 0, 0, 0) == CUDA_SUCCESS);
    must(cuDevicePrimaryCtxGetState(0, &flags, &active) == CUDA_SUCCESS && active == 1);
    return 0;
}

static int answers_body(void)
{
    size_t free_bytes = 5, total_bytes = 5;
    must(enter(NULL) == 0 && cuCheckpointProcessLock(getpid(), NULL) == CUDA_SUCCESS);
    must(answers() == 0 && cuMemGetInfo_v2(&free_bytes, &total_bytes) == CUDA_SUCCESS && free_bytes != 5);
    must(cuStreamQuery(stream) == CUDA_SUCCESS && cuEventQuery(event) == CUDA_SUCCESS);
    must(cuStreamSynchronize(stream) == CUDA_SUCCESS && cuCtxSynchronize() == CUDA_SUCCESS);
    free_bytes = total_bytes = 5;
    must(cuCheckpointProcessCheckpoint(getpid(), NULL) == CUDA_SUCCESS && answers() == 0);
    must(cuMemGetInfo_v2(&free_bytes, &total_bytes) == CUDA_ERROR_OPERATING_SYSTEM);
    must(free_bytes == 5 && total_bytes == 5);
    must(back() == CUDA_SUCCESS && cuMemGetInfo_v2(&free_bytes, &total_bytes) == CUDA_SUCCESS);
    must(cuCheckpointProcessLock(getpid(), NULL) == CUDA_SUCCESS); /* who was refused is not counted as inside */
    return 0;
}

static void some_calls_answer_meanwhile(void **state)
{
    (void)state;
    assert_int_equal(stage_child(answers_body), 0);
}

static CUresult call_event_query(void)
{
    return cuEventQuery(event);
}

static CUresult call_stream_query(void)
{
    return cuStreamQuery(stream);
}

static CUresult call_stream_wait(void)
{
    return cuStreamSynchronize(stream);
}

static CUresult call_context_wait(void)
{
    return cuCtxSynchronize();
}

static CUresult (*fatal_call)(void);

static int crash_body(void)
{
    struct rlimit none = {0, 0};
    setrlimit(RLIMIT_CORE, &none);
    signal(SIGSEGV, SIG_DFL);
    must(enter(NULL) == 0 && fatal_call() == CUDA_SUCCESS && out() == CUDA_SUCCESS && back() == CUDA_SUCCESS);
    must(fatal_call() == CUDA_SUCCESS && out() == CUDA_SUCCESS);
    fatal_call();
    return 2;
}

static void queries_and_waits_crash(void **state)
{
    (void)state;
    CUresult (*const calls[])(void) = {call_event_query, call_stream_query, call_stream_wait, call_context_wait};
    for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
        fatal_call = calls[i];
        int status = stage_child(crash_body);
        assert_true(WIFSIGNALED(status));
        assert_int_equal(WTERMSIG(status), SIGSEGV);
    }
}

static sem_t callback_runs, callback_ends;

/* Work of the device that takes as long as the test wants; it may ask the driver for what it is not asked to wait for. */
static void callback(void *nested)
{
    int *result = nested;
    sem_post(&callback_runs);
    while (sem_wait(&callback_ends) != 0)
        ;
    *result = call_host_alloc();
}

static int nested_result = -1;

static CUresult call_work(void)
{
    return cuLaunchHostFunc(stream, callback, &nested_result);
}

static CUresult call_lock(void)
{
    return cuCheckpointProcessLock(getpid(), NULL);
}

static int work_body(void)
{
    static struct caller work = {.call = call_work}, late = {.call = call_alloc}, lock = {.call = call_lock};
    CUcheckpointLockArgs brief = {.timeoutMs = 20};
    sem_init(&callback_runs, 0, 0);
    sem_init(&callback_ends, 0, 0);
    must(enter(NULL) == 0 && caller_start(&work));
    while (sem_wait(&callback_runs) != 0)
        ;
    must(cuCheckpointProcessLock(getpid(), &brief) == CUDA_ERROR_NOT_READY);
    must(state_now() == CU_PROCESS_STATE_RUNNING && call_alloc() == CUDA_SUCCESS);
    must(caller_start(&lock) && state_now() == CU_PROCESS_STATE_RUNNING && !atomic_load(&lock.returned));
    must(caller_start(&late) && !atomic_load(&late.returned)); /* what comes while it waits, waits too */
    sem_post(&callback_ends);
    pthread_join(lock.thread, NULL);
    pthread_join(work.thread, NULL);
    must(lock.result == CUDA_SUCCESS && state_now() == CU_PROCESS_STATE_LOCKED);
    must(work.result == CUDA_SUCCESS && nested_result == CUDA_SUCCESS && !atomic_load(&late.returned));
    must(cuCheckpointProcessUnlock(getpid(), NULL) == CUDA_SUCCESS);
    pthread_join(late.thread, NULL);
    must(late.result == CUDA_SUCCESS);
    return 0;
}

static void a_lock_waits_for_work_in_flight(void **state)
{
    (void)state;
    assert_int_equal(stage_child(work_body), 0);
}

static void callback_locks(void *result)
{
    *(int *)result = cuCheckpointProcessLock(getpid(), NULL);
}

static int callback_body(void)
{
    int result = -1;
    must(enter(NULL) == 0 && cuLaunchHostFunc(stream, callback_locks, &result) == CUDA_SUCCESS);
    must(result == CUDA_ERROR_NOT_PERMITTED && state_now() == CU_PROCESS_STATE_RUNNING);
    return 0;
}

static void a_callback_cannot_lock_itself_out(void **state)
{
    (void)state;
    assert_int_equal(stage_child(callback_body), 0);
}

/* Many threads that allocate, copy and free while the driver goes out and comes back: nobody is lost, nothing is torn. */
static atomic_bool storm_ends;

static void *storm_run(void *argument)
{
    uint64_t seed = (uint64_t)(uintptr_t)argument, seen;
    CUdeviceptr address;
    cuCtxPushCurrent_v2(context);
    for (uint64_t round = 0; !atomic_load(&storm_ends); round++) {
        uint64_t value = seed << 32 | round;
        if (cuMemAlloc_v2(&address, 4096) != CUDA_SUCCESS || cuMemcpyHtoD_v2(address, &value, 8) != CUDA_SUCCESS ||
            cuMemcpyDtoH_v2(&seen, address, 8) != CUDA_SUCCESS || seen != value ||
            cuMemFree_v2(address) != CUDA_SUCCESS)
            return (void *)1;
    }
    return NULL;
}

static int storm_body(void)
{
    enum { THREADS = 8, ROUNDS = 200 };
    pthread_t threads[THREADS];
    must(enter(NULL) == 0);
    for (uintptr_t i = 0; i < THREADS; i++)
        must(pthread_create(&threads[i], NULL, storm_run, (void *)(i + 1)) == 0);
    for (int round = 0; round < ROUNDS; round++) {
        must(out() == CUDA_SUCCESS && stage_figures().device[0].used_bytes == 0);
        must(back() == CUDA_SUCCESS);
    }
    atomic_store(&storm_ends, true);
    for (int i = 0; i < THREADS; i++) {
        void *result;
        pthread_join(threads[i], &result);
        must(result == NULL);
    }
    must(stage_figures().device[0].used_bytes == CONTEXT_BYTES + 2 * MIB && stage_figures().host_used_bytes == 0);
    return 0;
}

static void a_storm_of_calls_loses_nothing(void **state)
{
    (void)state;
    assert_int_equal(stage_child(storm_body), 0);
}

static int nvml_child_body(void)
{
    unsigned count = 0;
    int state;
    must(nvmlDeviceGetCount_v2(&count) == NVML_SUCCESS && nvmlInit_v2() == NVML_SUCCESS && count == 1);
    must(cuInit(0) == CUDA_ERROR_NOT_INITIALIZED && cuStreamQuery(stream) == CUDA_ERROR_NOT_INITIALIZED);
    must(cuCheckpointProcessGetState(getppid(), &state) == CUDA_ERROR_NOT_INITIALIZED);
    return 0;
}

static int nvml_body(void)
{
    static struct caller first = {.call = call_nvml_count}, second = {.call = call_nvml_init};
    must(enter(NULL) == 0 && nvmlInit_v2() == NVML_SUCCESS && call_nvml_count() == NVML_SUCCESS);
    must(out() == CUDA_SUCCESS && caller_start(&first) && caller_start(&second));
    must(!atomic_load(&first.returned) && !atomic_load(&second.returned));
    must(stage_child(nvml_child_body) == 0);
    must(!atomic_load(&first.returned) && !atomic_load(&second.returned));
    must(cuCheckpointProcessRestore(getpid(), NULL) == CUDA_SUCCESS);
    pthread_join(first.thread, NULL);
    pthread_join(second.thread, NULL);
    must(first.result == NVML_SUCCESS && second.result == NVML_SUCCESS && call_nvml_count() == NVML_SUCCESS);
    must(nvmlShutdown() == NVML_SUCCESS && nvmlShutdown() == NVML_SUCCESS);
    return 0;
}

static void nvml_waits_in_that_process_alone(void **state)
{
    (void)state;
    assert_int_equal(stage_child(nvml_body), 0);
}

static uint64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* 527 MiB of context and 2 MiB at 8 GiB/s are 64 ms. */
static int slow_body(void)
{
    uint64_t start;
    must(enter("release=0,lock=15ms,checkpoint=20ms,restore=10ms+8GiB/s") == 0);
    start = now_ms();
    must(cuCheckpointProcessLock(getpid(), NULL) == CUDA_SUCCESS && now_ms() - start >= 15);
    start = now_ms();
    must(cuCheckpointProcessCheckpoint(getpid(), NULL) == CUDA_SUCCESS && now_ms() - start >= 20);
    start = now_ms();
    must(cuCheckpointProcessRestore(getpid(), NULL) == CUDA_SUCCESS && now_ms() - start >= 74);
    must(cuCheckpointProcessUnlock(getpid(), NULL) == CUDA_SUCCESS);
    return 0;
}

/* A lock that takes longer than whoever asks will wait. */
static int slow_lock_body(void)
{
    CUcheckpointLockArgs brief = {.timeoutMs = 20};
    must(enter("release=0,lock=1m") == 0);
    must(cuCheckpointProcessLock(getpid(), &brief) == CUDA_ERROR_NOT_READY);
    must(state_now() == CU_PROCESS_STATE_RUNNING && call_alloc() == CUDA_SUCCESS);
    return 0;
}

static CUresult call_checkpoint(void)
{
    return cuCheckpointProcessCheckpoint(getpid(), NULL);
}

/* While memory is on its way it takes room on both sides, and the state is still the old one. */
static int midway_body(void)
{
    static struct caller checkpoint = {.call = call_checkpoint};
    size_t free_bytes, total_bytes;
    must(enter("release=0,checkpoint=1m") == 0 && cuCheckpointProcessLock(getpid(), NULL) == CUDA_SUCCESS);
    must(caller_start(&checkpoint));
    while (stage_figures().host_used_bytes == 0)
        pause_shortly();
    must(stage_figures().device[0].used_bytes == CONTEXT_BYTES + 2 * MIB);
    must(stage_figures().host_used_bytes == CONTEXT_BYTES + 2 * MIB && state_now() == CU_PROCESS_STATE_LOCKED);
    while (cuMemGetInfo_v2(&free_bytes, &total_bytes) != CUDA_ERROR_OPERATING_SYSTEM)
        pause_shortly();
    return 0; /* and leaves it there */
}

static void transitions_take_the_time_they_are_told(void **state)
{
    (void)state;
    assert_int_equal(stage_child(slow_body), 0);
    assert_int_equal(stage_child(slow_lock_body), 0);
    assert_int_equal(stage_child(midway_body), 0);
    stage_await_used(0);
    assert_int_equal(stage_figures().host_used_bytes, 0);
}

static int refused_body(void)
{
    int self = getpid();
    must(enter("release=0,fail=cuCheckpointProcessLock:1:999,fail-after=cuCheckpointProcessLock:2:600,"
               "fail-after=cuCheckpointProcessUnlock:1:999,fail-after=cuCheckpointProcessRestore:1:304") == 0);
    must(cuCheckpointProcessLock(self, NULL) == CUDA_ERROR_UNKNOWN && state_now() == CU_PROCESS_STATE_RUNNING);
    must(cuCheckpointProcessLock(self, NULL) == CUDA_ERROR_NOT_READY && state_now() == CU_PROCESS_STATE_RUNNING);
    must(out() == CUDA_SUCCESS);
    must(cuCheckpointProcessRestore(self, NULL) == CUDA_ERROR_OPERATING_SYSTEM);
    must(state_now() == CU_PROCESS_STATE_FAILED && stage_figures().device[0].used_bytes == 0);
    must(cuCheckpointProcessLock(self, NULL) == CUDA_ERROR_ILLEGAL_STATE);
    must(cuCheckpointProcessRestore(self, NULL) == CUDA_ERROR_ILLEGAL_STATE);
    must(cuCheckpointProcessUnlock(self, NULL) == CUDA_ERROR_ILLEGAL_STATE);
    return 0;
}

static int failed_body(void)
{
    must(enter("release=0,fail-after=cuCheckpointProcessCheckpoint:1:999,fail-after=cuCheckpointProcessUnlock:1:2") ==
         0);
    must(cuCheckpointProcessLock(getpid(), NULL) == CUDA_SUCCESS);
    must(cuCheckpointProcessUnlock(getpid(), NULL) == 2 && state_now() == CU_PROCESS_STATE_LOCKED);
    must(cuCheckpointProcessUnlock(getpid(), NULL) == CUDA_SUCCESS && out() == CUDA_ERROR_UNKNOWN);
    must(state_now() == CU_PROCESS_STATE_FAILED && stage_figures().host_used_bytes == 0);
    must(stage_figures().device[0].used_bytes == CONTEXT_BYTES + 2 * MIB);
    return 0;
}

static void transitions_fail_as_they_are_told(void **state)
{
    (void)state;
    assert_int_equal(stage_child(refused_body), 0);
    assert_int_equal(stage_child(failed_body), 0);
}

static CUresult call_free_memory(void)
{
    return cuMemFree_v2(memory);
}

static int hang_body(void)
{
    static struct caller lock = {.call = call_lock}, inside = {.call = call_free_memory};
    CUcheckpointLockArgs brief = {.timeoutMs = 20};
    must(enter("release=0,hang=cuCheckpointProcessLock:1,hang=cuMemFree_v2:1") == 0);
    must(caller_start(&lock) && !atomic_load(&lock.returned) && state_now() == CU_PROCESS_STATE_RUNNING);
    must(call_alloc() == CUDA_SUCCESS && cuCheckpointProcessLock(getpid(), &brief) == CUDA_SUCCESS);
    must(cuCheckpointProcessUnlock(getpid(), NULL) == CUDA_SUCCESS && caller_start(&inside));
    must(cuCheckpointProcessLock(getpid(), &brief) == CUDA_ERROR_NOT_READY); /* it hangs inside */
    must(!atomic_load(&inside.returned) && state_now() == CU_PROCESS_STATE_RUNNING);
    return 0;
}

static void calls_hang_as_they_are_told(void **state)
{
    (void)state;
    assert_int_equal(stage_child(hang_body), 0);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(calls_wait_until_all_is_back, setup, teardown),
        cmocka_unit_test_setup_teardown(some_calls_answer_meanwhile, setup, teardown),
        cmocka_unit_test_setup_teardown(queries_and_waits_crash, setup, teardown),
        cmocka_unit_test_setup_teardown(a_lock_waits_for_work_in_flight, setup, teardown),
        cmocka_unit_test_setup_teardown(a_callback_cannot_lock_itself_out, setup, teardown),
        cmocka_unit_test_setup_teardown(a_storm_of_calls_loses_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(nvml_waits_in_that_process_alone, setup, teardown),
        cmocka_unit_test_setup_teardown(transitions_take_the_time_they_are_told, setup, teardown),
        cmocka_unit_test_setup_teardown(transitions_fail_as_they_are_told, setup, teardown),
        cmocka_unit_test_setup_teardown(calls_hang_as_they_are_told, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
