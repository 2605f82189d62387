/*
 * cubudget watch: a line for each event and each change of pressure, in order, from when it was started; and how it ends.
 */
#include "config.h"

#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>
#include "integration/player.h"
#include "ledger/events.h"
#include "platform/log.h"

enum { PATIENCE_MS = 30000 };

enum { STREAM_BYTES = 2048 };

/* The end of a pipe, and what came of the next lines. */
struct stream {
    int descriptor;
    size_t used;
    char bytes[STREAM_BYTES];
};

/* A watch that runs, and what it says. */
struct watcher {
    pid_t pid;
    struct stream out, err;
};

static void stream_open(struct stream *stream, int descriptor)
{
    *stream = (struct stream){.descriptor = descriptor};
}

static void watcher_start(struct stage *stage, struct watcher *watcher, const char *first, const char *second)
{
    char program[4096];
    int out[2], err[2];
    pid_t parent = getpid();
    const char *words[] = {"cubudget", "watch", first, first != NULL ? second : NULL, NULL};
    (void)stage;
    (void)snprintf(program, sizeof program, "%s/cubudget", getenv("abs_top_builddir"));
    assert_int_equal(pipe2(out, O_CLOEXEC), 0);
    assert_int_equal(pipe2(err, O_CLOEXEC), 0);
    watcher->pid = fork();
    assert_true(watcher->pid >= 0);
    if (watcher->pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent)
            _exit(127);
        (void)dup2(out[1], STDOUT_FILENO);
        (void)dup2(err[1], STDERR_FILENO);
        (void)setenv("TZ", "UTC", 1);
        (void)execv(program, (char *const *)(uintptr_t)words);
        _exit(127);
    }
    (void)close(out[1]);
    (void)close(err[1]);
    stream_open(&watcher->out, out[0]);
    stream_open(&watcher->err, err[0]);
}

/* The next line, without its end. Fails where none comes. */
static const char *line_read(struct stream *stream)
{
    static char line[STREAM_BYTES];
    for (;;) {
        char *end = memchr(stream->bytes, '\n', stream->used);
        if (end != NULL) {
            size_t length = (size_t)(end - stream->bytes);
            memcpy(line, stream->bytes, length);
            line[length] = '\0';
            stream->used -= length + 1;
            memmove(stream->bytes, end + 1, stream->used);
            return line;
        }
        struct pollfd ready = {.fd = stream->descriptor, .events = POLLIN};
        if (stream->used == STREAM_BYTES || poll(&ready, 1, PATIENCE_MS) != 1)
            fail_msg("no line came");
        ssize_t got = read(stream->descriptor, stream->bytes + stream->used, STREAM_BYTES - stream->used);
        if (got <= 0)
            fail_msg("it has ended; it said '%.*s'", (int)stream->used, stream->bytes);
        stream->used += (size_t)got;
    }
}

/* Reads a line, of which all but its time is `wanted`. */
static void require_line(struct watcher *watcher, const char *wanted)
{
    int year, month, day, hour, minute, second, milliseconds, at = 0;
    const char *line = line_read(&watcher->out);
    if (sscanf(line, "%4d-%2d-%2d %2d:%2d:%2d.%3d %n", &year, &month, &day, &hour, &minute, &second, &milliseconds,
               &at) != 7 ||
        strcmp(line + at, wanted) != 0)
        fail_msg("it said '%s', not '%s'", line, wanted);
}

static void require_fault(struct watcher *watcher, const char *part)
{
    require_text(line_read(&watcher->err), part);
}

static int watcher_wait(struct watcher *watcher)
{
    int status;
    assert_int_equal(waitpid(watcher->pid, &status, 0), watcher->pid);
    assert_true(WIFEXITED(status));
    (void)close(watcher->out.descriptor);
    (void)close(watcher->err.descriptor);
    return WEXITSTATUS(status);
}

static void watcher_end(struct watcher *watcher)
{
    assert_int_equal(kill(watcher->pid, SIGINT), 0);
    assert_int_equal(watcher_wait(watcher), 0);
}

static void event_add(struct stage *stage, enum ledger_event_kind kind, int row, int other, uint64_t duration_ns,
                      enum ledger_why why)
{
    struct ledger_event_record event = {.kind = kind,
                                        .row = row,
                                        .other = other,
                                        .slot = -1,
                                        .device = (int)stage->device,
                                        .bytes = 1536 * MIB,
                                        .duration_ns = duration_ns,
                                        .why = why};
    ledger_event_add(&stage->ledger, &event);
}

/* Adds one that the watcher tells of, again and again until it has begun to: it says nothing when it begins. */
static void watcher_await(struct stage *stage, struct watcher *watcher)
{
    for (unsigned i = 0; i < PATIENCE_MS / 10; i++) {
        struct pollfd ready = {.fd = watcher->out.descriptor, .events = POLLIN};
        event_add(stage, LEDGER_EVENT_CHARGE, -1, -1, 0, LEDGER_WHY_NONE);
        if (poll(&ready, 1, 10) == 1)
            break;
    }
    /* What it tells of them ends with the one that is added last. */
    event_add(stage, LEDGER_EVENT_CREDIT, -1, -1, 0, LEDGER_WHY_NONE);
    const char *line;
    while (strstr((line = line_read(&watcher->out)), " credit ") == NULL)
        if (strstr(line, " charge ") == NULL) /* what was there before */
            fail_msg("it said '%s'", line);
}

static void test_every_event(void **state)
{
    struct stage *stage = *state;
    struct watcher watcher;
    char wanted[256], who[64];
    pid_t pid = player_start(stage, "c\303\266de", 1 * GIB, PLAYER_IS_SILENT);
    const struct ledger_claim *claim = row_claim(stage, 0, "semantic", "x");
    int row = (int)claim->row;
    (void)snprintf(who, sizeof who, "semantic (%d)", (int)getpid());
    event_add(stage, LEDGER_EVENT_REFUSE, row, -1, 0, LEDGER_WHY_LIMIT); /* before it was started: not told */
    watcher_start(stage, &watcher, NULL, NULL);
    watcher_await(stage, &watcher);
    event_add(stage, LEDGER_EVENT_ASK, row, 0, 0, LEDGER_WHY_NONE);
    (void)snprintf(wanted, sizeof wanted, "ask      c\303\266de (%d) is asked to leave: %s needs 1.50 GiB of device 0",
                   (int)pid, who);
    require_line(&watcher, wanted);
    event_add(stage, LEDGER_EVENT_ASK, -1, 0, 0, LEDGER_WHY_OPERATOR);
    (void)snprintf(wanted, sizeof wanted, "ask      c\303\266de (%d) is asked to leave: an operator asked", (int)pid);
    require_line(&watcher, wanted);
    static const struct {
        enum ledger_event_kind kind;
        uint64_t duration_ns;
        enum ledger_why why;
        const char *name, *rest;
    } told[] = {
        {LEDGER_EVENT_DECLINE, 200000000, LEDGER_WHY_NOT_QUIET, "decline ",
         "stays after 200 ms: a thread stayed inside the driver"},
        {LEDGER_EVENT_EVICT, 1234567890, LEDGER_WHY_NONE, "evict   ", "has left with 1.50 GiB of device 0 in 1.2 s"},
        {LEDGER_EVENT_RESTORE, 4200000, LEDGER_WHY_NONE, "restore ", "is back with 1.50 GiB of device 0 after 4.20 ms"},
        {LEDGER_EVENT_WAIT, 61000000000, LEDGER_WHY_NONE, "wait    ", "was granted 1.50 GiB of device 0 after 61.0 s"},
        {LEDGER_EVENT_REFUSE, 30000000000, LEDGER_WHY_WAITED, "refuse  ",
         "was refused 1.50 GiB of device 0 after 30.0 s: nothing came free in time"},
        {LEDGER_EVENT_REFUSE, 0, LEDGER_WHY_LIMIT, "refuse  ",
         "was refused 1.50 GiB of device 0: it would pass the slot's limit"},
        {LEDGER_EVENT_REAP, 0, LEDGER_WHY_NONE, "reap    ", "has died, and 1.50 GiB of device 0 are free"},
        {LEDGER_EVENT_LOST, 0, LEDGER_WHY_NO_ROOM, "lost    ",
         "could not be restored: the card has less room than the books say"},
    };
    for (size_t i = 0; i < sizeof told / sizeof *told; i++) {
        event_add(stage, told[i].kind, row, -1, told[i].duration_ns, told[i].why);
        (void)snprintf(wanted, sizeof wanted, "%s %s %s", told[i].name, who, told[i].rest);
        require_line(&watcher, wanted);
    }
    watcher_end(&watcher);
    player_end(pid);
}

/* With --all it begins with what was there. */
static void test_all(void **state)
{
    struct stage *stage = *state;
    struct watcher watcher;
    for (uint64_t i = 0; i < LEDGER_EVENTS + 5; i++)
        event_add(stage, i < 6 ? LEDGER_EVENT_CREDIT : LEDGER_EVENT_CHARGE, -1, -1, 0, LEDGER_WHY_NONE);
    watcher_start(stage, &watcher, "--all", NULL);
    require_line(&watcher, "credit   somebody: 1.50 GiB of device 0"); /* one of the six is left */
    for (uint64_t i = 1; i < LEDGER_EVENTS; i++)
        require_line(&watcher, "charge   somebody: 1.50 GiB of device 0");
    event_add(stage, LEDGER_EVENT_CREDIT, -1, -1, 0, LEDGER_WHY_NONE);
    require_line(&watcher, "credit   somebody: 1.50 GiB of device 0");
    watcher_end(&watcher);
}

static json_t *json_read(struct watcher *watcher)
{
    const char *line = line_read(&watcher->out);
    json_t *object = json_loads(line, JSON_REJECT_DUPLICATES, NULL);
    if (object == NULL)
        fail_msg("no JSON: %s", line);
    assert_int_equal(json_object_size(object), 11);
    return object;
}

static void test_json(void **state)
{
    struct stage *stage = *state;
    struct watcher watcher;
    pid_t pid = player_start(stage, "code", 1 * GIB, PLAYER_IS_SILENT);
    const struct ledger_claim *claim = row_claim(stage, 0, "semantic", "x");
    event_add(stage, LEDGER_EVENT_ASK, (int)claim->row, 0, 0, LEDGER_WHY_NONE);
    event_add(stage, LEDGER_EVENT_REFUSE, (int)claim->row, -1, 30001500000, LEDGER_WHY_WAITED);
    watcher_start(stage, &watcher, "--json", "--all");
    json_t *ask = json_read(&watcher), *refuse = json_read(&watcher);
    require_string(ask, "event", "ask");
    require_integer(ask, "number", 1);
    require_integer(ask, "pid", (uint64_t)getpid());
    require_string(ask, "slot", "semantic");
    require_integer(ask, "device", 0);
    require_integer(ask, "bytes", 1536 * MIB);
    require_integer(member(ask, "other"), "pid", (uint64_t)pid);
    require_string(member(ask, "other"), "slot", "code");
    assert_true(json_is_null(member(ask, "duration_ms")));
    assert_true(json_is_null(member(ask, "reason")));
    assert_true(json_is_null(member(ask, "pressure")));
    assert_int_equal(strlen(json_string_value(member(ask, "time"))), strlen("2026-01-01T00:00:00.000Z"));
    require_string(refuse, "event", "refuse");
    require_string(refuse, "reason", "nothing came free in time");
    assert_true(json_real_value(member(refuse, "duration_ms")) == 30001.5);
    assert_true(json_is_null(member(refuse, "other")));
    json_decref(ask);
    json_decref(refuse);
    ledger_commit_unasked(&stage->ledger, claim->row, stage->device, 5 * GIB); /* 6 of 8 GiB */
    json_t *pressure = json_read(&watcher);
    require_string(pressure, "event", "pressure");
    require_string(pressure, "pressure", "medium");
    require_integer(pressure, "bytes", 6 * GIB);
    assert_true(json_is_null(member(pressure, "number")));
    assert_true(json_is_null(member(pressure, "pid")));
    json_decref(pressure);
    watcher_end(&watcher);
    player_end(pid);
}

/* Each change of level of each device, in order, whoever makes it; nothing is added to the ring for it. */
static void test_pressure(void **state)
{
    static const uint8_t second[LEDGER_UUID_BYTES] = "another";
    struct stage *stage = *state;
    struct watcher watcher;
    struct ledger_fault fault;
    uint64_t shrunk_to;
    const struct ledger_claim *claim = row_claim(stage, 0, "a", "x");
    ledger_commit_unasked(&stage->ledger, claim->row, stage->device, 5 * GIB); /* before it was started: not told */
    watcher_start(stage, &watcher, NULL, NULL);
    watcher_await(stage, &watcher);
    uint64_t events = ledger_event_count(&stage->ledger);
    ledger_commit_unasked(&stage->ledger, claim->row, stage->device, 2 * GIB);
    require_line(&watcher, "pressure device 0 is at high, with 7 GiB used");
    ledger_commit_unasked(&stage->ledger, claim->row, stage->device, 1 * GIB);
    require_line(&watcher, "pressure device 0 is at critical, with 8 GiB used");
    ledger_credit(&stage->ledger, claim->row, stage->device, 7 * GIB);
    require_line(&watcher, "pressure device 0 is at low, with 1 GiB used");
    assert_int_equal(ledger_event_count(&stage->ledger), events);
    /* A device that comes later is watched from its first byte on. */
    int device = ledger_device_claim(&stage->ledger, second, "Second");
    assert_int_equal(ledger_device_settle(&stage->ledger, (unsigned)device, 24 * GIB, 0, &shrunk_to, &fault), 0);
    ledger_commit_unasked(&stage->ledger, claim->row, (unsigned)device, 5 * GIB);
    require_line(&watcher, "pressure device 1 is at medium, with 5 GiB used");
    watcher_end(&watcher);
    /* It leaves no watcher behind, which would cost every allocation. */
    const struct ledger_device *entry =
        (const struct ledger_device *)(const void *)((const char *)stage->ledger.file.bytes + LEDGER_OFFSET_DEVICES);
    assert_int_equal(entry[0].watchers, 0);
    assert_int_equal(entry[1].watchers, 0);
}

/* An event whose writer died is not waited for longer than a moment, and those after it are told. */
static void test_unwhole(void **state)
{
    struct stage *stage = *state;
    struct watcher watcher;
    watcher_start(stage, &watcher, NULL, NULL);
    watcher_await(stage, &watcher);
    struct ledger_header *header = stage->ledger.file.bytes;
    header->events++; /* as if its writer had died at its first store */
    event_add(stage, LEDGER_EVENT_CHARGE, -1, -1, 0, LEDGER_WHY_NONE);
    require_line(&watcher, "charge   somebody: 1.50 GiB of device 0");
    watcher_end(&watcher);
}

static void test_replaced_ledger(void **state)
{
    struct stage *stage = *state;
    struct watcher watcher;
    struct ledger_fault fault;
    watcher_start(stage, &watcher, NULL, NULL);
    watcher_await(stage, &watcher);
    assert_int_equal(ledger_remove(stage->directory, "default", &fault), 0); /* a watch keeps no ledger in use */
    require_fault(&watcher, "the ledger 'default' of ");
    ledger_close(&stage->ledger);
    char path[128]; /* something else in its place is said, and waited out */
    (void)snprintf(path, sizeof path, "%s/default.ledger", stage->directory);
    assert_int_equal(mkdir(path, 0700), 0);
    require_fault(&watcher, "is a directory");
    assert_int_equal(rmdir(path), 0);
    const struct ledger_request request = {
        .directory = stage->directory, .name = "default", .create = true, .has_budget = true, .budget_bytes = 8 * GIB};
    assert_int_equal(ledger_open(&stage->ledger, &request, &fault), 0);
    event_add(stage, LEDGER_EVENT_CHARGE, -1, -1, 0, LEDGER_WHY_NONE); /* all of the new one is news */
    require_fault(&watcher, " is there again");
    require_line(&watcher, "charge   somebody: 1.50 GiB of device 0");
    watcher_end(&watcher);
}

/* A reader that goes ends it, also where nothing happens any more. */
static void test_reader_gone(void **state)
{
    struct stage *stage = *state;
    struct watcher watcher;
    char rest;
    watcher_start(stage, &watcher, NULL, NULL);
    watcher_await(stage, &watcher);
    (void)close(watcher.out.descriptor);
    watcher.out.descriptor = open("/dev/null", O_RDONLY | O_CLOEXEC);
    int err = dup(watcher.err.descriptor);
    assert_int_equal(watcher_wait(&watcher), EXIT_CHECK_FAILED);
    assert_int_equal(read(err, &rest, 1), 0); /* without a word */
    (void)close(err);
}

/* A damaged count of changes is not counted through: what is known is told, and of the others how many there are. */
static void test_damaged_pressure(void **state)
{
    struct stage *stage = *state;
    struct watcher watcher;
    watcher_start(stage, &watcher, NULL, NULL);
    watcher_await(stage, &watcher);
    struct ledger_device *entry =
        (struct ledger_device *)(void *)((char *)stage->ledger.file.bytes + LEDGER_OFFSET_DEVICES);
    struct pollfd ready = {.fd = watcher.err.descriptor, .events = POLLIN};
    entry->pressure -= (uint64_t)1 << 32; /* as if there had been 2^32 - 1 more */
    event_add(stage, LEDGER_EVENT_CHARGE, -1, -1, 0, LEDGER_WHY_NONE);
    assert_int_equal(poll(&ready, 1, 2000), 1);
    require_fault(&watcher, " changes of pressure came faster than they could be told");
    watcher_end(&watcher);
}

/* A signal after the last look for one and before the system call that sleeps is noticed soon all the same. */
static void test_signal_before_sleep(void **state)
{
#ifdef __x86_64__
    enum { SLEEP_CALL = 449, CALL_BYTES = 2, SOON_MS = 700 };
    struct stage *stage = *state;
    struct watcher watcher;
    struct user_regs_struct registers;
    struct timespec before, after;
    int status;
    watcher_start(stage, &watcher, NULL, NULL);
    watcher_await(stage, &watcher);
    if (ptrace(PTRACE_SEIZE, watcher.pid, NULL, (void *)(uintptr_t)PTRACE_O_TRACESYSGOOD) != 0) {
        watcher_end(&watcher);
        skip();
    }
    assert_int_equal(ptrace(PTRACE_INTERRUPT, watcher.pid, NULL, NULL), 0);
    for (bool looked = false;;) { /* to its entry after another call: a whole step's */
        assert_int_equal(waitpid(watcher.pid, &status, 0), watcher.pid);
        assert_true(WIFSTOPPED(status));
        assert_int_equal(ptrace(PTRACE_GETREGS, watcher.pid, NULL, &registers), 0);
        bool call = WSTOPSIG(status) == (SIGTRAP | 0x80);
        looked = looked || (call && registers.orig_rax != SLEEP_CALL);
        if (looked && call && registers.orig_rax == SLEEP_CALL)
            break;
        assert_int_equal(ptrace(PTRACE_SYSCALL, watcher.pid, NULL, NULL), 0);
    }
    registers.orig_rax = (unsigned long long)-1; /* not now */
    assert_int_equal(ptrace(PTRACE_SETREGS, watcher.pid, NULL, &registers), 0);
    assert_int_equal(ptrace(PTRACE_SYSCALL, watcher.pid, NULL, NULL), 0);
    assert_int_equal(waitpid(watcher.pid, &status, 0), watcher.pid);
    registers.rip -= CALL_BYTES; /* but after the signal's handler */
    registers.rax = SLEEP_CALL;
    assert_int_equal(ptrace(PTRACE_SETREGS, watcher.pid, NULL, &registers), 0);
    (void)clock_gettime(CLOCK_MONOTONIC, &before);
    assert_int_equal(kill(watcher.pid, SIGINT), 0);
    assert_int_equal(ptrace(PTRACE_DETACH, watcher.pid, NULL, NULL), 0);
    assert_int_equal(watcher_wait(&watcher), 0);
    (void)clock_gettime(CLOCK_MONOTONIC, &after);
    assert_in_range((after.tv_sec - before.tv_sec) * 1000 + (after.tv_nsec - before.tv_nsec) / 1000000, 0, SOON_MS);
#else
    (void)state;
    skip();
#endif
}

/* Asleep it costs next to nothing: two seconds of nothing are two looks. */
static void test_is_not_busy(void **state)
{
    struct stage *stage = *state;
    struct watcher watcher;
    struct rusage before, after;
    watcher_start(stage, &watcher, NULL, NULL);
    watcher_await(stage, &watcher);
    assert_int_equal(getrusage(RUSAGE_CHILDREN, &before), 0);
    (void)poll(NULL, 0, 2000); /* what is measured is how little happens in this time */
    watcher_end(&watcher);
    assert_int_equal(getrusage(RUSAGE_CHILDREN, &after), 0);
    int64_t used_us =
        (after.ru_utime.tv_sec - before.ru_utime.tv_sec + after.ru_stime.tv_sec - before.ru_stime.tv_sec) * 1000000 +
        after.ru_utime.tv_usec - before.ru_utime.tv_usec + after.ru_stime.tv_usec - before.ru_stime.tv_usec;
    print_message("processor time of a watch, its start included: %lld us\n", (long long)used_us);
    assert_in_range(used_us, 0, 250000); /* one that looked without sleeping would take all it gets of two seconds */
    assert_in_range(after.ru_nvcsw - before.ru_nvcsw, 0,
                    500); /* and one that slept too briefly would wake thousands of times */
}

#define stage_test(test) cmocka_unit_test_setup_teardown(test, stage_open, stage_close)

int main(void)
{
    const struct CMUnitTest tests[] = {
        stage_test(test_every_event),
        stage_test(test_all),
        stage_test(test_json),
        stage_test(test_pressure),
        stage_test(test_unwhole),
        stage_test(test_replaced_ledger),
        stage_test(test_reader_gone),
        stage_test(test_is_not_busy),
        stage_test(test_damaged_pressure),
        stage_test(test_signal_before_sleep),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
