/*
 * What happens to processes of the simulated driver: initialising, forking, dying, seeing devices, bad options. Each test
 * forks children that use CUDA; this process itself never does.
 */
#include "unit/sim_stage.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <unistd.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#define CONTEXT_BYTES (527 * MIB)

static int setup(void **state)
{
    (void)state;
    return stage_open("devices=3,release=0");
}

static int teardown(void **state)
{
    (void)state;
    return stage_close();
}

static CUresult enter(void)
{
    CUcontext context;
    CUresult result = cuInit(0);
    if (result == CUDA_SUCCESS)
        result = cuDevicePrimaryCtxRetain(&context, 0);
    return result == CUDA_SUCCESS ? cuCtxSetCurrent(context) : result;
}

static int uninitialised_body(void)
{
    int count, version = 0;
    CUcontext context;
    const char *name;
    must(cuDeviceGetCount(&count) == CUDA_ERROR_NOT_INITIALIZED);
    must(cuDevicePrimaryCtxRetain(&context, 0) == CUDA_ERROR_NOT_INITIALIZED);
    must(cuDriverGetVersion(&version) == CUDA_SUCCESS && version == 13000);
    must(cuGetErrorName(2, &name) == CUDA_SUCCESS && strcmp(name, "CUDA_ERROR_OUT_OF_MEMORY") == 0);
    must(cuInit(1) == CUDA_ERROR_INVALID_VALUE);
    errno = 1234;
    must(cuInit(0) == CUDA_SUCCESS && cuInit(0) == CUDA_SUCCESS);
    must(errno == 1234);
    must(cuDeviceGetCount(&count) == CUDA_SUCCESS && count == 3);
    return 0;
}

static void nothing_works_before_init(void **state)
{
    (void)state;
    assert_int_equal(stage_child(uninitialised_body), 0);
}

static int child_after_init_body(void)
{
    int count;
    CUcontext context;
    CUdeviceptr address;
    must(cuInit(0) == CUDA_ERROR_NOT_INITIALIZED);
    must(cuDeviceGetCount(&count) == CUDA_ERROR_NOT_INITIALIZED);
    must(cuDevicePrimaryCtxRetain(&context, 0) == CUDA_ERROR_NOT_INITIALIZED);
    must(cuMemAlloc_v2(&address, 1) == CUDA_ERROR_NOT_INITIALIZED);
    must(cuMemFree_v2(4096) == CUDA_ERROR_NOT_INITIALIZED);
    return 0;
}

static int parent_body(void)
{
    CUdeviceptr address;
    must(stage_child(uninitialised_body) == 0); /* before the parent's cuInit a child is free to call it */
    must(enter() == CUDA_SUCCESS && cuMemAlloc_v2(&address, GIB) == CUDA_SUCCESS);
    must(stage_figures().device[0].used_bytes == GIB + CONTEXT_BYTES);
    must(stage_child(child_after_init_body) == 0);
    must(stage_figures().device[0].used_bytes == GIB + CONTEXT_BYTES);
    must(cuMemFree_v2(address) == CUDA_SUCCESS);
    return 0;
}

static void forked_child_cannot_use_what_its_parent_initialised(void **state)
{
    (void)state;
    assert_int_equal(stage_child(parent_body), 0);
    stage_await_used(0);
    assert_int_equal(stage_figures().device[0].peak_bytes, GIB + CONTEXT_BYTES);
}

static int ready[2];

/* Holds a GiB; with a child that never uses CUDA if asked; says so and waits to be killed. */
static int hold_body(bool with_child)
{
    CUdeviceptr address;
    pid_t child = 0;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    must(enter() == CUDA_SUCCESS && cuMemAlloc_v2(&address, GIB) == CUDA_SUCCESS);
    if (with_child && (child = fork()) == 0)
        for (;;)
            pause();
    must(write(ready[1], &child, sizeof(child)) == sizeof(child));
    for (;;)
        pause();
}

static void death_gives_memory_back_when_no_child_is_left(void **state)
{
    (void)state;
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    for (int with_child = 0; with_child < 2; with_child++) {
        pid_t heir = 0;
        int status;
        assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
        fflush(NULL);
        pid_t parent = fork();
        if (parent == 0)
            _exit(hold_body(with_child));
        close(ready[1]);
        assert_int_equal(read(ready[0], &heir, sizeof(heir)), sizeof(heir));
        assert_int_equal(stage_figures().device[0].used_bytes, GIB + CONTEXT_BYTES);
        kill(parent, SIGKILL);
        assert_int_equal(waitpid(parent, &status, 0), parent);
        if (heir) {
            assert_int_equal(stage_figures().device[0].used_bytes, GIB + CONTEXT_BYTES);
            kill(heir, SIGKILL);
            assert_int_equal(waitpid(heir, &status, 0), heir);
        }
        assert_int_equal(stage_figures().device[0].used_bytes, 0);
        close(ready[0]);
    }
}

/* The devices seen under the setting, by their numbers in the machine: "2,0"; an error's number where there is none. */
static const char *visible_setting;
static char visible_answer[32];

static int visible_body(void)
{
    char answer[32] = "";
    int count = 0, bus;
    setenv("CUDA_VISIBLE_DEVICES", visible_setting, 1);
    CUresult result = cuInit(0);
    if (result == CUDA_SUCCESS)
        cuDeviceGetCount(&count);
    else
        snprintf(answer, sizeof(answer), "error %d", result);
    for (int device = 0; device < count; device++) {
        cuDeviceGetAttribute(&bus, CU_DEVICE_ATTRIBUTE_PCI_BUS_ID, device);
        snprintf(answer + strlen(answer), sizeof(answer) - strlen(answer), "%s%d", device ? "," : "", bus - 1);
    }
    return write(ready[1], answer, sizeof(answer)) == sizeof(answer) ? 0 : 1;
}

static void visible_expect(const char *setting, const char *expected)
{
    visible_setting = setting;
    assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
    assert_int_equal(stage_child(visible_body), 0);
    assert_int_equal(read(ready[0], visible_answer, sizeof(visible_answer)), sizeof(visible_answer));
    close(ready[0]);
    close(ready[1]);
    if (strcmp(visible_answer, expected) != 0)
        fail_msg("CUDA_VISIBLE_DEVICES='%s': %s, not %s", setting, visible_answer, expected);
}

static int init_body(void)
{
    return cuInit(0);
}

static void visible_devices_are_chosen_and_ordered(void **state)
{
    (void)state;
    static const struct {
        const char *setting, *expected;
    } cases[] = {
        {"0,1,2", "0,1,2"},   {"2,0", "2,0"},         {"1", "1"},
        {" 1 , 2 ", "1,2"},   {"", "error 100"},      {"-1", "error 100"},
        {"0,-1,1", "0"},      {"1,7,0", "1"},         {"none", "error 100"},
        {"0,0", "error 101"}, {"1,2,1", "error 101"}, {"0,5", "0"},
        {"00", "0"},          {"abc", "error 100"},   {"MIG-6f2a7c1e-8d1b-5f5c-9a53-0f1d2c3b4a59", "error 100"},
    };
    char whole[64], prefix[16];
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        visible_expect(cases[i].setting, cases[i].expected);
    assert_int_equal(stage_child(init_body), 0);
    struct sim_figures figures = stage_figures();
    const uint8_t *u = figures.device[1].uuid;
    snprintf(whole, sizeof(whole), "GPU-%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", u[0],
             u[1], u[2], u[3], u[4], u[5], u[6], u[7], u[8], u[9], u[10], u[11], u[12], u[13], u[14], u[15]);
    visible_expect(whole, "1");
    snprintf(prefix, sizeof(prefix), "%.10s", whole);
    visible_expect(prefix, "1");
    visible_expect("GPU-", "error 100"); /* fits several */
}

static const char *bad_options;

static int bad_body(void)
{
    setenv("CUBUDGET_SIMULATE", bad_options, 1);
    dup2(ready[1], STDERR_FILENO);
    return cuInit(0);
}

static void bad_options_end_the_process_with_one_line(void **state)
{
    (void)state;
    static const char *const texts[] = {"memory=8 gigs", "nonsense=1", "memory=1GiB,devices=2"};
    assert_int_equal(stage_child(init_body), 0); /* makes the machine that the last one differs from */
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        char said[512] = "";
        bad_options = texts[i];
        assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
        int status = stage_child(bad_body);
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), 78);
        assert_true(read(ready[0], said, sizeof(said) - 1) > 0);
        const char *beginning = "cubudget: CUBUDGET_SIMULATE: ";
        assert_memory_equal(said, beginning, strlen(beginning));
        assert_ptr_equal(strchr(said, '\n'), said + strlen(said) - 1);
        close(ready[0]);
        close(ready[1]);
    }
}

static int faults_body(void)
{
    CUdeviceptr address;
    size_t bytes;
    int count;
    setenv("CUBUDGET_SIMULATE", "fail=cuMemAlloc_v2:2:2,fail=cuMemGetInfo_v2:0:999", 1);
    must(enter() == CUDA_SUCCESS);
    must(cuMemAlloc_v2(&address, 1) == CUDA_SUCCESS);
    must(cuMemAlloc_v2(&address, 1) == CUDA_ERROR_OUT_OF_MEMORY);
    must(cuMemAlloc_v2(&address, 1) == CUDA_SUCCESS);
    must(cuMemGetInfo_v2(&bytes, &bytes) == CUDA_ERROR_UNKNOWN);
    must(cuMemGetInfo_v2(&bytes, &bytes) == CUDA_ERROR_UNKNOWN);
    must(cuDeviceGetCount(&count) == CUDA_SUCCESS);
    return 0;
}

static int init_fault_body(void)
{
    setenv("CUBUDGET_SIMULATE", "fail=cuInit:1:100", 1);
    must(cuInit(0) == CUDA_ERROR_NO_DEVICE);
    must(cuInit(0) == CUDA_SUCCESS);
    return 0;
}

static void ordered_faults_happen(void **state)
{
    (void)state;
    assert_int_equal(stage_child(faults_body), 0);
    assert_int_equal(stage_child(init_fault_body), 0);
}

static int big_body(void)
{
    CUdeviceptr address;
    char back = 0;
    setenv("CUBUDGET_SIMULATE", "machine=big,memory=1TiB,context=1MiB,baseline=1GiB", 1);
    must(enter() == CUDA_SUCCESS);
    must(cuMemAlloc_v2(&address, 900 * GIB) == CUDA_SUCCESS);
    must(cuMemcpyHtoD_v2(address + 899 * GIB, "x", 1) == CUDA_SUCCESS);
    must(cuMemcpyDtoH_v2(&back, address + 899 * GIB, 1) == CUDA_SUCCESS && back == 'x');
    must(cuMemAlloc_v2(&address, 123 * GIB) == CUDA_ERROR_OUT_OF_MEMORY);
    size_t free_bytes, total_bytes;
    must(cuMemGetInfo_v2(&free_bytes, &total_bytes) == CUDA_SUCCESS);
    must(total_bytes == 1024 * GIB && free_bytes == 123 * GIB - MIB);
    return 0;
}

static void big_machines_fit_small_ones(void **state)
{
    (void)state;
#ifdef __SANITIZE_THREAD__
    skip(); /* its shadow has no room for a TiB of addresses */
#endif
    assert_int_equal(stage_child(big_body), 0);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(nothing_works_before_init, setup, teardown),
        cmocka_unit_test_setup_teardown(forked_child_cannot_use_what_its_parent_initialised, setup, teardown),
        cmocka_unit_test_setup_teardown(death_gives_memory_back_when_no_child_is_left, setup, teardown),
        cmocka_unit_test_setup_teardown(visible_devices_are_chosen_and_ordered, setup, teardown),
        cmocka_unit_test_setup_teardown(bad_options_end_the_process_with_one_line, setup, teardown),
        cmocka_unit_test_setup_teardown(ordered_faults_happen, setup, teardown),
        cmocka_unit_test_setup_teardown(big_machines_fit_small_ones, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
