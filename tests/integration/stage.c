/* The stage of end-to-end tests; see stage.h. */
#include "integration/stage.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

enum { PATIENCE_MS = 60000 };

void stage_open(struct stage *stage)
{
    memset(stage, 0, sizeof(*stage));
    snprintf(stage->directory, sizeof(stage->directory), "/dev/shm/cubudget-test-XXXXXX");
    assert_non_null(mkdtemp(stage->directory));
}

int stage_setup(void **state)
{
    struct stage *stage = calloc(1, sizeof(*stage));
    stage_open(stage);
    *state = stage;
    return 0;
}

int stage_teardown(void **state)
{
    stage_close(*state);
    free(*state);
    return 0;
}

static int entry_remove(const char *path, const struct stat *status, int kind, struct FTW *walk)
{
    (void)status;
    (void)kind;
    (void)walk;
    return remove(path);
}

void stage_close(struct stage *stage)
{
    if (stage->opened)
        ledger_close(&stage->ledger);
    nftw(stage->directory, entry_remove, 8, FTW_DEPTH | FTW_PHYS);
}

struct ledger *stage_ledger(struct stage *stage)
{
    if (stage->opened && ledger_is_current(&stage->ledger) != 1) {
        ledger_close(&stage->ledger);
        stage->opened = false;
    }
    if (!stage->opened) {
        struct ledger_request request = {.directory = stage->directory, .name = "default"};
        struct ledger_fault fault = {""};
        int result = ledger_open(&stage->ledger, &request, &fault);
        if (result != 0)
            fail_msg("ledger_open: %d: %s", result, fault.text);
        stage->opened = true;
    }
    return &stage->ledger;
}

void stage_snapshot(struct stage *stage, struct snapshot *snapshot)
{
    assert_int_equal(snapshot_take(stage_ledger(stage), snapshot), 0);
}

uint64_t stage_used(struct stage *stage)
{
    struct snapshot snapshot;
    stage_snapshot(stage, &snapshot);
    uint64_t used_bytes = snapshot.device_count > 0 ? snapshot.devices[0].used_bytes : 0;
    snapshot_free(&snapshot);
    return used_bytes;
}

uint64_t stage_dead(struct stage *stage)
{
    struct snapshot snapshot;
    stage_snapshot(stage, &snapshot);
    uint64_t dead_bytes = snapshot.device_count > 0 ? snapshot.devices[0].dead_bytes : 0;
    snapshot_free(&snapshot);
    return dead_bytes;
}

static struct sim_figures stage_figures(struct stage *stage)
{
    struct sim_figures figures;
    assert_int_equal(sim_machine_read(stage->directory, "default", &figures), 0);
    return figures;
}

uint64_t stage_witness_used(struct stage *stage)
{
    return stage_figures(stage).device[0].used_bytes;
}

uint64_t stage_witness_peak(struct stage *stage)
{
    return stage_figures(stage).device[0].peak_bytes;
}

void stage_await_empty(struct stage *stage)
{
    for (int look = 0; look < PATIENCE_MS / 10; look++) {
        struct snapshot snapshot;
        stage_snapshot(stage, &snapshot);
        uint64_t bytes = 0;
        for (unsigned i = 0; i < snapshot.device_count; i++)
            bytes += snapshot.devices[i].used_bytes + snapshot.devices[i].dead_bytes + snapshot.devices[i].bid_bytes;
        unsigned processes = snapshot.process_count;
        snapshot_free(&snapshot);
        if (bytes == 0 && processes == 0)
            return;
        nanosleep(&(struct timespec){.tv_nsec = 10 * 1000 * 1000}, NULL);
    }
    fail_msg("bytes or processes are left in the ledger after a minute");
}

static void environment_set(const char *name, const char *value)
{
    if (value)
        setenv(name, value, 1);
    else
        unsetenv(name);
}

static _Noreturn void client_become(const struct stage *stage, const struct client_terms *terms)
{
    const char *build = getenv("abs_top_builddir");
    char preload[512], simulator[512], program[512];
    snprintf(preload, sizeof(preload), "%s/.libs/%s", build,
             terms->testpoints ? "libcubudget-testpoints.so" : "libcubudget.so");
    snprintf(simulator, sizeof(simulator), "%s/src/sim/.libs", build);
    snprintf(program, sizeof(program), "%s/tests/integration/%s", build, terms->program ? terms->program : "client");
    environment_set("CUBUDGET_DIR", stage->directory);
    environment_set("CUBUDGET_SLOT", terms->slot);
    environment_set("CUBUDGET_BUDGET", terms->budget);
    environment_set("CUBUDGET_LIMIT", terms->limit);
    environment_set("CUBUDGET_SIMULATE", terms->simulate ? terms->simulate : "");
    environment_set("CUBUDGET_TESTPOINT", terms->testpoint);
    environment_set("CUBUDGET_LOG_FILE", terms->log_file);
    environment_set("CUDA_VISIBLE_DEVICES", terms->visible_devices);
    environment_set("RACE_GATE", terms->gate);
    /* A sanitized build: its run-time comes behind the preload, and what is live at a kill is no leak. */
    environment_set("ASAN_OPTIONS", "verify_asan_link_order=0:detect_leaks=0");
    environment_set("LD_LIBRARY_PATH", simulator);
    environment_set("LD_PRELOAD", preload);
    const char *arguments[6] = {NULL};
    size_t count = 0;
    while (count < 4 && terms->wrapper[count]) {
        arguments[count] = terms->wrapper[count];
        count++;
    }
    arguments[count] = program;
    execvp(arguments[0], (char *const *)(uintptr_t)arguments);
    _exit(127);
}

void client_start(struct stage *stage, struct client *client, const struct client_terms *terms)
{
    static const struct client_terms none;
    int to[2], from[2];
    memset(client, 0, sizeof(*client));
    assert_int_equal(pipe2(to, O_CLOEXEC), 0);
    assert_int_equal(pipe2(from, O_CLOEXEC), 0);
    fflush(NULL);
    client->pid = fork();
    assert_true(client->pid >= 0);
    if (client->pid == 0) {
        dup2(to[0], STDIN_FILENO);
        dup2(from[1], STDOUT_FILENO);
        if (!terms || !terms->loud) {
            int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
            dup2(null, STDERR_FILENO);
        }
        client_become(stage, terms ? terms : &none);
    }
    close(to[0]);
    close(from[1]);
    client->to = to[1];
    client->from = from[0];
}

void client_tell(struct client *client, const char *format, ...)
{
    char line[512];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(line, sizeof(line) - 1, format, arguments);
    va_end(arguments);
    assert_true(length > 0 && length < (int)sizeof(line) - 1);
    line[length] = '\n';
    signal(SIGPIPE, SIG_IGN);
    ssize_t ignored = write(client->to, line, (size_t)length + 1);
    (void)ignored; /* a client that died is seen by client_hear */
}

const char *client_hear(struct client *client)
{
    for (;;) {
        char *end = memchr(client->pending, '\n', client->pending_bytes);
        if (end) {
            size_t length = (size_t)(end - client->pending);
            snprintf(client->heard, sizeof(client->heard), "%.*s", (int)length, client->pending);
            client->pending_bytes -= length + 1;
            memmove(client->pending, end + 1, client->pending_bytes);
            return client->heard;
        }
        struct pollfd readable = {.fd = client->from, .events = POLLIN};
        int ready = poll(&readable, 1, PATIENCE_MS);
        if (ready == 0)
            fail_msg("client %d did not answer within a minute", (int)client->pid);
        ssize_t count = read(client->from, client->pending + client->pending_bytes,
                             sizeof(client->pending) - client->pending_bytes);
        if (count <= 0)
            return NULL;
        client->pending_bytes += (size_t)count;
    }
}

bool client_is_ready(struct client *client)
{
    struct pollfd readable = {.fd = client->from, .events = POLLIN};
    return memchr(client->pending, '\n', client->pending_bytes) != NULL || poll(&readable, 1, 0) > 0;
}

const char *client_ask(struct client *client, const char *format, ...)
{
    char line[256];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line, sizeof(line), format, arguments);
    va_end(arguments);
    client_tell(client, "%s", line);
    const char *answer = client_hear(client);
    return answer ? answer : "(gone)";
}

int client_end(struct client *client, int signal_number)
{
    int status = 0;
    if (signal_number)
        kill(client->pid, signal_number);
    else
        client_tell(client, "quit");
    waitpid(client->pid, &status, 0);
    close(client->to);
    close(client->from);
    return status;
}
