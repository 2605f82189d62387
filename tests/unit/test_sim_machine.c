/* The simulated machine's file: exact figures whatever happens to its processes. */
#include "unit/sim_stage.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "sim/machine_file.h"

static int setup(void **state)
{
    (void)state;
    return stage_open("");
}

static int teardown(void **state)
{
    (void)state;
    return stage_close();
}

static struct sim_options options_of(const char *text)
{
    struct sim_options options;
    char fault[MACHINE_FAULT_BYTES] = "";
    if (options_parse(text, &options, fault, sizeof(fault)) != 0)
        fail_msg("%s: %s", text, fault);
    return options;
}

/* Opens the machine the text describes and takes a place in it. */
static void machine_enter(struct machine *machine, const char *text)
{
    struct sim_options options = options_of(text);
    char fault[MACHINE_FAULT_BYTES] = "";
    int result = machine_open(machine, &options, fault, sizeof(fault));
    if (result != 0)
        fail_msg("machine_open: %d: %s", result, fault);
    assert_int_equal(machine_claim(machine), 0);
}

static const char *const good_options[] = {
    "",
    "memory=8GiB",
    "memory=1.5GiB,devices=16",
    "machine=a.b-c_1",
    "compute=12.1,name=A card",
    "baseline=600 MiB",
    "context=0",
    "release=0,fail=cuInit:0:100",
    "release=2s,fail=cuMemAlloc_v2:3:2,fail-after=cuMemFree_v2:0:999",
    "memory=1TiB",
    "memory=24000000000",
    "host=64GiB,lock=1ms,checkpoint=2s,restore=300ms+5GiB/s",
    "host=0,checkpoint=2GiB/s,restore=0",
    "hang=cuCheckpointProcessLock:1,hang=cuMemAlloc_v2:0",
};
static const char *const bad_options[] = {
    "memory",
    "memory=",
    "memory=8 gigs",
    "memory=-1",
    "memory=0",
    "memory=1K",
    "devices=0",
    "devices=17",
    "devices=1x",
    "machine=",
    "machine=a/b",
    "machine=.hidden",
    "compute=9",
    "compute=x.y",
    "release=30",
    "release=-1ms",
    "nonsense=1",
    "fail=cuInit:1",
    "fail=:1:2",
    "fail=a:1:0",
    "fail=a:2",
    "memory=1.3B",
    ",",
    "memory=8GiB,",
    "baseline=99T",
    "memory=9e9GiB",
    "host=",
    "lock=1",
    "lock=1GiB/s",
    "checkpoint=",
    "restore=/s",
    "restore=0/s",
    "restore=1+2/s",
    "checkpoint=1ms+",
    "hang=a",
    "hang=a:1:2",
    "hang=:1",
    "restore=1GiB/s+1ms",
};

static void options_are_checked(void **state)
{
    (void)state;
    char fault[256];
    for (size_t i = 0; i < sizeof(good_options) / sizeof(good_options[0]); i++) {
        if (sim_options_check(good_options[i], fault, sizeof(fault)) != 0)
            fail_msg("'%s' is refused: %s", good_options[i], fault);
    }
    for (size_t i = 0; i < sizeof(bad_options) / sizeof(bad_options[0]); i++) {
        fault[0] = '\0';
        if (sim_options_check(bad_options[i], fault, sizeof(fault)) != -EINVAL)
            fail_msg("'%s' is accepted", bad_options[i]);
        assert_true(strlen(fault) > 0);
        assert_null(strchr(fault, '\n'));
    }
}

static void options_are_read(void **state)
{
    (void)state;
    struct sim_options options = options_of("memory=1.5GiB,fail-after=cuMemAlloc_v2:3:2");
    assert_int_equal(options.memory_bytes, 3 * GIB / 2);
    assert_int_equal(options.faults[0].code, 2);
    assert_int_equal(options.faults[0].nth, 3);
    options = options_of("restore=1s+3KiB/s,checkpoint=2MiB/s,hang=cuInit:2,lock=7ms");
    assert_int_equal(options.restore.milliseconds, 1000);
    assert_int_equal(options.restore.second_bytes, 3 * 1024);
    assert_int_equal(options.checkpoint.milliseconds, 0);
    assert_int_equal(options.checkpoint.second_bytes, 2 * MIB);
    assert_int_equal(options.lock_ms, 7);
    assert_int_equal(options.faults[0].code, 0);
    assert_int_equal(options.faults[0].nth, 2);
    assert_true(options.host_bytes > 64 * 1024 * GIB);
}

static void figures_are_exact(void **state)
{
    (void)state;
    struct machine machine;
    struct sim_figures figures;
    assert_int_equal(sim_machine_read(stage_directory, "default", &figures), -ENOENT);
    machine_enter(&machine, "memory=100MiB,devices=2,baseline=10MiB");
    assert_int_equal(machine_charge(&machine, 0, 50 * MIB), 0);
    assert_int_equal(machine_charge(&machine, 0, 41 * MIB), -ENOMEM);
    assert_int_equal(machine_charge(&machine, 0, UINT64_MAX), -ENOMEM);
    assert_int_equal(machine_charge(&machine, 0, 40 * MIB), 0);
    assert_int_equal(machine_charge(&machine, 1, 7), 0);
    machine_credit(&machine, 0, 89 * MIB);
    figures = stage_figures();
    assert_int_equal(figures.devices, 2);
    assert_int_equal(figures.device[0].total_bytes, 100 * MIB);
    assert_int_equal(figures.device[0].used_bytes, MIB);
    assert_int_equal(figures.device[0].peak_bytes, 90 * MIB);
    assert_int_equal(figures.device[1].used_bytes, 7);
    assert_int_equal(figures.device[1].peak_bytes, 7);
    assert_memory_not_equal(figures.device[0].uuid, figures.device[1].uuid, 16);
    machine_close(&machine);
    stage_await_used(0);
    assert_int_equal(stage_figures().device[0].peak_bytes, 90 * MIB);
}

static void a_later_process_that_asks_for_another_machine_is_refused(void **state)
{
    (void)state;
    static const char *const others[] = {"memory=2GiB", "devices=2", "compute=8.0", "baseline=1MiB", "host=1GiB"};
    struct machine machine, other;
    char fault[MACHINE_FAULT_BYTES] = "";
    machine_enter(&machine, "memory=1GiB");
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        struct sim_options options = options_of(others[i]);
        assert_int_equal(machine_open(&other, &options, fault, sizeof(fault)), -EINVAL);
        assert_non_null(strstr(fault, "default"));
    }
    machine_enter(&other, "memory=1GiB");
    machine_close(&other);
    machine_enter(&other, "");
    assert_int_equal(machine_charge(&other, 0, GIB), 0);
    machine_close(&other);
    machine_enter(&other, "machine=another,memory=2GiB");
    assert_memory_not_equal(other.shared->device[0].uuid, machine.shared->device[0].uuid, 16);
    machine_close(&other);
    machine_close(&machine);
}

/* A child that has entered a machine and holds bytes; it lives until it is killed. */
static pid_t holder_start(const char *options, uint64_t bytes)
{
    int ready[2];
    char byte = 0;
    assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        struct machine machine;
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        machine_enter(&machine, options);
        byte = (char)(machine_charge(&machine, 0, bytes) == 0);
        if (write(ready[1], &byte, 1) != 1)
            _exit(1);
        for (;;)
            pause();
    }
    close(ready[1]);
    assert_int_equal(read(ready[0], &byte, 1), 1);
    assert_int_equal(byte, 1);
    close(ready[0]);
    return child;
}

static void process_end(pid_t pid)
{
    int status;
    kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, &status, 0), pid);
}

static void memory_of_the_dead_counts_until_it_is_back(void **state)
{
    (void)state;
    struct machine machine;
    machine_enter(&machine, "memory=1GiB,release=60m");
    pid_t holder = holder_start("", GIB);
    process_end(holder);
    assert_int_equal(stage_figures().device[0].used_bytes, GIB);
    assert_int_equal(machine_charge(&machine, 0, 1), -ENOMEM);
    assert_int_equal(machine_used(&machine, 0), GIB);
    struct sim_holder holders[4];
    assert_int_equal(machine_holders(&machine, 0, holders, 4), 0);
    machine.shared->release_ms = 0;
    assert_int_equal(machine_charge(&machine, 0, GIB), 0);
    assert_int_equal(stage_figures().device[0].peak_bytes, GIB);
    machine_close(&machine);
}

static void memory_stays_while_a_forked_child_lives(void **state)
{
    (void)state;
    int ready[2];
    pid_t heir = 0;
    assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    fflush(NULL);
    pid_t parent = fork();
    if (parent == 0) {
        struct machine machine;
        machine_enter(&machine, "memory=1GiB,release=0");
        if (machine_charge(&machine, 0, GIB) != 0)
            _exit(1);
        heir = fork();
        if (heir == 0)
            for (;;)
                pause();
        if (write(ready[1], &heir, sizeof(heir)) != sizeof(heir))
            _exit(1);
        for (;;)
            pause();
    }
    close(ready[1]);
    assert_int_equal(read(ready[0], &heir, sizeof(heir)), sizeof(heir));
    close(ready[0]);
    process_end(parent);
    assert_int_equal(stage_figures().device[0].used_bytes, GIB);
    process_end(heir);
    assert_int_equal(stage_figures().device[0].used_bytes, 0);
}

static void exec_gives_memory_back(void **state)
{
    (void)state;
    int ready[2];
    char byte;
    assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        struct machine machine;
        machine_enter(&machine, "memory=1GiB,release=0");
        if (machine_charge(&machine, 0, GIB) == 0 && dup2(ready[1], STDOUT_FILENO) == STDOUT_FILENO)
            execlp("sh", "sh", "-c", "echo && exec sleep 600", (char *)NULL);
        _exit(1);
    }
    close(ready[1]);
    /* What the new program says comes after all that the exec closed; the closing has no order of its own. */
    assert_int_equal(read(ready[0], &byte, 1), 1);
    close(ready[0]);
    assert_int_equal(stage_figures().device[0].used_bytes, 0);
    process_end(child);
}

static void removal_waits_for_the_living(void **state)
{
    (void)state;
    struct machine early;
    struct sim_options options = options_of("memory=1GiB,release=60m");
    char fault[MACHINE_FAULT_BYTES];
    assert_int_equal(sim_machine_remove(stage_directory, "default"), -ENOENT);
    pid_t holder = holder_start("memory=1GiB,release=60m", GIB);
    assert_int_equal(sim_machine_remove(stage_directory, "default"), -EBUSY);
    assert_int_equal(machine_open(&early, &options, fault, sizeof(fault)), 0);
    process_end(holder);
    assert_int_equal(sim_machine_remove(stage_directory, "default"), 0);
    assert_int_equal(sim_machine_remove(stage_directory, "default"), -ENOENT);
    assert_int_equal(machine_claim(&early), -EAGAIN);
    machine_close(&early);
}

static void file_write(const char *name, const char *bytes, size_t count)
{
    char path[128];
    snprintf(path, sizeof(path), "%s/simulator-%s.machine", stage_directory, name);
    int file = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    assert_true(file >= 0);
    assert_int_equal(write(file, bytes, count), (ssize_t)count);
    close(file);
}

static void files_that_are_no_machines_are_told(void **state)
{
    (void)state;
    struct sim_figures figures;
    struct machine machine;
    char path[128], fault[MACHINE_FAULT_BYTES];
    char *zeros = calloc(1, sizeof(struct machine_shared));
    file_write("short", "no machine", 10);
    assert_int_equal(sim_machine_read(stage_directory, "short", &figures), -EPROTO);
    file_write("zeros", zeros, sizeof(struct machine_shared));
    free(zeros);
    assert_int_equal(sim_machine_read(stage_directory, "zeros", &figures), -EPROTO);
    assert_int_equal(sim_machine_remove(stage_directory, "zeros"), -EPROTO);
    struct sim_options options = options_of("machine=zeros");
    assert_int_equal(machine_open(&machine, &options, fault, sizeof(fault)), -EPROTO);
    snprintf(path, sizeof(path), "%s/simulator-link.machine", stage_directory);
    assert_int_equal(symlink("simulator-zeros.machine", path), 0);
    assert_int_equal(sim_machine_read(stage_directory, "link", &figures), -ELOOP);
}

static void two_first_users_get_one_machine(void **state)
{
    (void)state;
    enum { ROUNDS = 100, USERS = 2 };
    for (int round = 0; round < ROUNDS; round++) {
        int gate[2], ready[2];
        pid_t users[USERS];
        char byte;
        assert_int_equal(pipe2(gate, O_CLOEXEC), 0);
        assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
        fflush(NULL);
        for (int i = 0; i < USERS; i++) {
            users[i] = fork();
            if (users[i] != 0)
                continue;
            struct machine machine;
            close(gate[1]);
            if (read(gate[0], &byte, 1) != 0) /* until the gate closes for both */
                _exit(1);
            machine_enter(&machine, "release=0");
            if (machine_charge(&machine, 0, MIB) != 0 || write(ready[1], "", 1) != 1)
                _exit(1);
            for (;;)
                pause();
        }
        close(gate[0]);
        close(gate[1]);
        for (int i = 0; i < USERS; i++)
            assert_int_equal(read(ready[0], &byte, 1), 1);
        assert_int_equal(stage_figures().device[0].used_bytes, USERS * MIB);
        for (int i = 0; i < USERS; i++)
            process_end(users[i]);
        close(ready[0]);
        close(ready[1]);
        assert_int_equal(sim_machine_remove(stage_directory, "default"), 0);
    }
}

/* Takes and gives for ever. */
static _Noreturn void churn(unsigned seed)
{
    struct machine machine;
    machine_enter(&machine, "memory=64MiB,release=0");
    for (;;) {
        uint64_t bytes = ((uint64_t)rand_r(&seed) % 40 + 1) * MIB;
        if (machine_charge(&machine, 0, bytes) == 0)
            machine_credit(&machine, 0, bytes);
    }
}

static void kills_at_any_instruction_leave_exact_figures(void **state)
{
    (void)state;
    enum { KILLS = 200, CROWD = 2 };
    unsigned seed = (unsigned)getpid();
    struct machine machine;
    machine_enter(&machine, "memory=64MiB,release=0");
    print_message("seed %u\n", seed);
    for (int round = 0; round < KILLS / CROWD; round++) {
        pid_t crowd[CROWD];
        fflush(NULL);
        for (int i = 0; i < CROWD; i++)
            if ((crowd[i] = fork()) == 0)
                churn(seed + (unsigned)(round * CROWD + i));
        for (int i = 0; i < CROWD; i++) {
            poll(NULL, 0, (int)((unsigned)rand_r(&seed) % 4)); /* anywhere: the moment does not matter */
            process_end(crowd[i]);
        }
        struct sim_figures figures = stage_figures();
        assert_int_equal(figures.device[0].used_bytes, 0);
        assert_true(figures.device[0].peak_bytes <= 64 * MIB);
        assert_int_equal(machine_charge(&machine, 0, 64 * MIB), 0);
        machine_credit(&machine, 0, 64 * MIB);
    }
    machine_close(&machine);
}

/* A process that may open one file more, where two are needed: it is told, and does not try for ever. */
static int scarce_body(void)
{
    struct machine machine;
    struct sim_options options = options_of("");
    char fault[MACHINE_FAULT_BYTES] = "";
    int next = dup(STDERR_FILENO);
    struct rlimit limit = {(rlim_t)next + 1, (rlim_t)next + 1};
    close(next);
    alarm(20);
    if (next < 0 || setrlimit(RLIMIT_NOFILE, &limit) != 0)
        return 1;
    return machine_open(&machine, &options, fault, sizeof(fault)) == -EMFILE ? 0 : 2;
}

static void scarce_descriptors_are_told(void **state)
{
    (void)state;
    struct machine machine;
    machine_enter(&machine, "");
    assert_int_equal(stage_child(scarce_body), 0);
    machine_close(&machine);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(options_are_checked, setup, teardown),
        cmocka_unit_test_setup_teardown(options_are_read, setup, teardown),
        cmocka_unit_test_setup_teardown(figures_are_exact, setup, teardown),
        cmocka_unit_test_setup_teardown(a_later_process_that_asks_for_another_machine_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(memory_of_the_dead_counts_until_it_is_back, setup, teardown),
        cmocka_unit_test_setup_teardown(memory_stays_while_a_forked_child_lives, setup, teardown),
        cmocka_unit_test_setup_teardown(exec_gives_memory_back, setup, teardown),
        cmocka_unit_test_setup_teardown(removal_waits_for_the_living, setup, teardown),
        cmocka_unit_test_setup_teardown(files_that_are_no_machines_are_told, setup, teardown),
        cmocka_unit_test_setup_teardown(scarce_descriptors_are_told, setup, teardown),
        cmocka_unit_test_setup_teardown(two_first_users_get_one_machine, setup, teardown),
        cmocka_unit_test_setup_teardown(kills_at_any_instruction_leave_exact_figures, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
