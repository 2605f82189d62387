/*
 * cubudget dump, check and gc over a ledger that the test fills through ledger.h: what they print is what was put in.
 */
#include "config.h"

#include <fcntl.h>
#include <jansson.h>
#include <pty.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>
#include "integration/cli_stage.h"
#include "platform/log.h"

/* Two slots, 5 GiB in all: what the tests below expect to read. */
static void ledger_furnish(struct stage *stage)
{
    static const struct slot_terms terms = {.has_limit = true,
                                            .limit_bytes = 4 * GIB,
                                            .has_reserve = true,
                                            .reserve_bytes = 1 * GIB,
                                            .has_priority = true,
                                            .priority = 101};
    struct ledger_fault fault;
    const struct ledger_claim *semantic = row_claim(stage, 0, "semantic", "python3 serve.py --model semantic");
    const struct ledger_claim *code = row_claim(stage, 1, "c\303\266de-\346\250\241", "runner \"x\"");
    assert_int_equal(ledger_slot_settle(&stage->ledger, semantic->slot, &terms, &fault), 0);
    charge(stage, semantic, 512 * MIB, LEDGER_KIND_CONTEXT);
    charge(stage, semantic, 3 * GIB, LEDGER_KIND_LINEAR);
    charge(stage, code, 1536 * MIB, LEDGER_KIND_MANAGED);
    charge(stage, code, 64 * MIB, LEDGER_KIND_LINEAR);
    ledger_credit(&stage->ledger, code->row, stage->device, 64 * MIB);
    ledger_kind_add(&stage->ledger, code->row, stage->device, LEDGER_KIND_LINEAR, -(int64_t)(64 * MIB));
    ledger_count(&stage->ledger, code->row, LEDGER_COUNT_FREE);
    ledger_count(&stage->ledger, code->row, LEDGER_COUNT_REFUSAL);
}

/* --- JSON ------------------------------------------------------------------------------------------------------------ */

static void require_null(const json_t *object, const char *key)
{
    if (!json_is_null(member(object, key)))
        fail_msg("%s is not null", key);
}

/* Fails on a key that is there and not in the list, too: the interface is what programs rely on. */
static void require_keys(const json_t *object, const char *const *keys, size_t count)
{
    for (size_t i = 0; i < count; i++)
        (void)member(object, keys[i]);
    assert_int_equal(json_object_size(object), count);
}

static void test_json_keys(void **state)
{
    static const char *const root_keys[] = {"ledger", "version", "devices", "slots", "processes"};
    static const char *const device_keys[] = {"index",       "uuid",         "name",       "simulated",
                                              "total_bytes", "budget_bytes", "used_bytes", "available_bytes",
                                              "over_bytes",  "peak_bytes",   "pressure"};
    static const char *const slot_keys[] = {"name",       "limit_bytes", "reserve_bytes", "priority",    "used_bytes",
                                            "over_bytes", "peak_bytes",  "evicted_bytes", "allocations", "frees",
                                            "refusals",   "evictions",   "restores",      "waits"};
    static const char *const process_keys[] = {"pid",         "slot",         "device",        "command",
                                               "state",       "state_since",  "evictable",     "unevictable_reason",
                                               "waiting_for", "used_bytes",   "evicted_bytes", "by_kind",
                                               "host_bytes",  "driver_bytes", "drift_bytes"};
    struct stage *stage = *state;
    ledger_furnish(stage);
    json_t *root = dump_parse(stage);
    require_keys(root, root_keys, sizeof root_keys / sizeof *root_keys);
    require_keys(json_array_get(member(root, "devices"), 0), device_keys, sizeof device_keys / sizeof *device_keys);
    require_keys(json_array_get(member(root, "slots"), 0), slot_keys, sizeof slot_keys / sizeof *slot_keys);
    require_keys(json_array_get(member(root, "processes"), 0), process_keys,
                 sizeof process_keys / sizeof *process_keys);
    json_decref(root);
}

static void test_json_device(void **state)
{
    struct stage *stage = *state;
    ledger_furnish(stage);
    json_t *root = dump_parse(stage);
    assert_int_equal(json_array_size(member(root, "devices")), 1);
    const json_t *device = json_array_get(member(root, "devices"), 0);
    require_string(root, "ledger", "default");
    require_integer(root, "version", LEDGER_ABI_VERSION);
    require_integer(device, "index", 0);
    require_string(device, "uuid", "GPU-01234567-89ab-cdef-fedc-ba9876543210");
    require_string(device, "name", "Test Card");
    assert_true(json_is_false(member(device, "simulated")));
    require_integer(device, "total_bytes", 24 * GIB);
    require_integer(device, "budget_bytes", 8 * GIB);
    require_integer(device, "used_bytes", 5 * GIB);
    require_integer(device, "available_bytes", 3 * GIB);
    require_integer(device, "over_bytes", 0);
    require_integer(device, "peak_bytes", 5 * GIB + 64 * MIB);
    require_string(device, "pressure", "medium");
    json_decref(root);
}

static void test_json_slots(void **state)
{
    struct stage *stage = *state;
    ledger_furnish(stage);
    json_t *root = dump_parse(stage);
    assert_int_equal(json_array_size(member(root, "slots")), 2);
    const json_t *semantic = json_array_get(member(root, "slots"), 0);
    const json_t *code = json_array_get(member(root, "slots"), 1);
    require_string(semantic, "name", "semantic");
    require_integer(semantic, "limit_bytes", 4 * GIB);
    require_integer(semantic, "reserve_bytes", 1 * GIB);
    require_integer(semantic, "priority", 101);
    require_integer(semantic, "used_bytes", 3584 * MIB);
    require_integer(semantic, "over_bytes", 0);
    require_integer(semantic, "peak_bytes", 3584 * MIB);
    require_integer(semantic, "allocations", 2);
    require_string(code, "name", "c\303\266de-\346\250\241");
    require_null(code, "limit_bytes");
    require_integer(code, "reserve_bytes", 0);
    require_integer(code, "priority", 50);
    require_integer(code, "used_bytes", 1536 * MIB);
    require_integer(code, "peak_bytes", 1600 * MIB);
    require_integer(code, "allocations", 2);
    require_integer(code, "frees", 1);
    require_integer(code, "refusals", 1);
    require_integer(code, "waits", 0);
    json_decref(root);
}

static void test_json_processes(void **state)
{
    struct stage *stage = *state;
    ledger_furnish(stage);
    json_t *root = dump_parse(stage);
    assert_int_equal(json_array_size(member(root, "processes")), 2);
    const json_t *process = json_array_get(member(root, "processes"), 0);
    const json_t *kinds = member(process, "by_kind");
    require_integer(process, "pid", (uint64_t)getpid());
    require_string(process, "slot", "semantic");
    require_integer(process, "device", 0);
    require_string(process, "command", "python3 serve.py --model semantic");
    require_string(process, "state", "running");
    assert_true(json_is_string(member(process, "state_since")));
    assert_true(json_is_false(member(process, "evictable")));
    assert_true(json_is_string(member(process, "unevictable_reason")));
    require_null(process, "waiting_for");
    require_null(process, "driver_bytes");
    require_null(process, "drift_bytes");
    require_integer(process, "used_bytes", 3584 * MIB);
    require_integer(kinds, "context", 512 * MIB);
    require_integer(kinds, "linear", 3 * GIB);
    require_integer(kinds, "managed", 0);
    assert_int_equal(json_object_size(kinds), LEDGER_KIND_COUNT);
    require_string(json_array_get(member(root, "processes"), 1), "command", "runner \"x\"");
    json_decref(root);
}

/* A process that holds nothing is listed, on no device. */
static void test_json_idle(void **state)
{
    struct stage *stage = *state;
    (void)row_claim(stage, 0, "idle", "idler");
    json_t *root = dump_parse(stage);
    assert_int_equal(json_array_size(member(root, "processes")), 1);
    require_null(json_array_get(member(root, "processes"), 0), "device");
    require_integer(json_array_get(member(root, "processes"), 0), "used_bytes", 0);
    json_decref(root);
}

/* A process that claims a row, charges 1 GiB, leaves a child that keeps the driver's descriptors, and is killed: its bytes
 * are nobody's slot's, and not available. Returns the pipe that the child waits at. */
static int orphan_make(struct stage *stage)
{
    int said[2], wait[2], status;
    char word;
    assert_int_equal(pipe2(said, O_CLOEXEC), 0);
    assert_int_equal(pipe2(wait, O_CLOEXEC), 0);
    pid_t owner = fork();
    assert_true(owner >= 0);
    if (owner == 0) {
        const struct ledger_request request = {.directory = stage->directory, .name = "default"};
        struct ledger ledger;
        struct ledger_fault fault;
        struct ledger_claim claim = {0};
        (void)close(wait[1]);
        int slot = ledger_open(&ledger, &request, &fault) == 0 ? ledger_slot_claim(&ledger, "gone") : -1;
        if (slot < 0 || ledger_row_claim(&ledger, (unsigned)slot, "gone", &claim) != 0)
            _exit(1);
        ledger_commit_unasked(&ledger, claim.row, 0, 1 * GIB);
        if (fork() != 0) { /* the child only waits */
            if (write(said[1], "x", 1) == 1)
                (void)pause();
            _exit(1);
        }
        (void)close(said[1]);
        (void)read(wait[0], &word, 1);
        _exit(0);
    }
    (void)close(wait[0]);
    (void)close(said[1]);
    assert_int_equal(read(said[0], &word, 1), 1);
    assert_int_equal(kill(owner, SIGKILL), 0);
    assert_int_equal(waitpid(owner, &status, 0), owner);
    (void)close(said[0]);
    return wait[1];
}

static void test_orphaned(void **state)
{
    struct stage *stage = *state;
    int child = orphan_make(stage);
    json_t *root = dump_parse(stage);
    const json_t *process = json_array_get(member(root, "processes"), 0);
    const json_t *device = json_array_get(member(root, "devices"), 0);
    require_string(process, "state", "orphaned");
    require_null(process, "state_since");
    require_integer(process, "used_bytes", 1 * GIB);
    require_integer(json_array_get(member(root, "slots"), 0), "used_bytes", 0);
    require_integer(device, "used_bytes", 0);
    require_integer(device, "available_bytes", 7 * GIB);
    json_decref(root);
    (void)cubudget(stage, "dump", NULL, NULL);
    require_text(stage->out, "[~~~~--------------------------]");
    require_text(stage->out, "1.00 GiB more when the dead have given it back");
    (void)cubudget(stage, "gc", NULL, NULL);
    require_status(stage, EXIT_CHECK_FAILED);
    (void)close(child);
}

/* --- the table ------------------------------------------------------------------------------------------------------- */

static void test_table(void **state)
{
    struct stage *stage = *state;
    char wanted[4096];
    ledger_furnish(stage);
    (void)cubudget(stage, "dump", NULL, NULL);
    require_status(stage, 0);
    assert_string_equal(stage->err, "");
    (void)snprintf(wanted, sizeof wanted,
                   "ledger 'default' (%s/default.ledger), budget 8.00 GiB a device\n"
                   "\n"
                   "device 0  Test Card\n"
                   "  [###################-----------]  62 %% used, pressure medium\n"
                   "  used         5.00 GiB of 8.00 GiB\n"
                   "  available    3.00 GiB\n"
                   "  peak         5.06 GiB\n"
                   "  card        24.00 GiB   GPU-01234567-89ab-cdef-fedc-ba9876543210\n"
                   "\n"
                   "SLOT                  USED        PEAK       LIMIT PRIO  ALLOCS REFUSED\n"
                   "semantic          3.50 GiB    3.50 GiB    4.00 GiB  max       2       0\n"
                   "               reserve 1.00 GiB\n"
                   "c\303\266de-\346\250\241           1.50 GiB    1.56 GiB        none   50       2       1\n"
                   "\n"
                   "     PID SLOT           STATE            USED  COMMAND\n"
                   "%8d semantic       running      3.50 GiB  python3 serve.py --model semantic\n"
                   "         linear 3.00 GiB, context 512.00 MiB\n"
                   "%8d c\303\266de-\346\250\241        running      1.50 GiB  runner \"x\"\n"
                   "         managed 1.50 GiB\n",
                   stage->directory, (int)getpid(), (int)getpid());
    assert_string_equal(stage->out, wanted);
}

/* What is available to one slot alone is told from what anybody can have. */
static void test_table_reserve(void **state)
{
    static const struct slot_terms terms = {.has_reserve = true, .reserve_bytes = 5 * GIB};
    struct stage *stage = *state;
    struct ledger_fault fault;
    const struct ledger_claim *claim = row_claim(stage, 0, "a", "x");
    assert_int_equal(ledger_slot_settle(&stage->ledger, claim->slot, &terms, &fault), 0);
    charge(stage, claim, 1 * GIB, LEDGER_KIND_LINEAR);
    charge(stage, row_claim(stage, 1, "b", "y"), 2 * GIB, LEDGER_KIND_LINEAR);
    (void)cubudget(stage, "dump", NULL, NULL);
    require_text(stage->out, "  available    5.00 GiB\n  reserved     4.00 GiB of what is available, ");
}

/* A name as long as names can be keeps its columns. */
static void test_table_long_name(void **state)
{
    struct stage *stage = *state;
    (void)row_claim(stage, 0,
                    "\346\250\241\346\250\241\346\250\241\346\250\241\346\250\241\346\250\241\346\250\241\346\250\241",
                    "x");
    (void)cubudget(stage, "dump", NULL, NULL);
    require_text(stage->out,
                 "\n\346\250\241\346\250\241\346\250\241\346\250\241\346\250\241\346\250\241~            0");
}

/* What `cubudget dump` says to a terminal of 70 columns. */
static void dump_on_terminal(struct stage *stage)
{
    const struct winsize size = {.ws_row = 24, .ws_col = 70};
    char program[4096];
    size_t used = 0;
    ssize_t got;
    int terminal, status;
    (void)snprintf(program, sizeof program, "%s/cubudget", getenv("abs_top_builddir"));
    pid_t child = forkpty(&terminal, NULL, NULL, &size);
    assert_true(child >= 0);
    if (child == 0) {
        (void)execl(program, "cubudget", "dump", (char *)NULL);
        _exit(127);
    }
    while (used < sizeof stage->out - 1 && (got = read(terminal, stage->out + used, sizeof stage->out - 1 - used)) > 0)
        used += (size_t)got; /* ends with EIO when the child has gone */
    stage->out[used] = '\0';
    (void)close(terminal);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* Colour on a terminal that can, unless the user says no; and lines are cut to its width. */
static void test_terminal(void **state)
{
    struct stage *stage = *state;
    ledger_furnish(stage);
    assert_int_equal(setenv("TERM", "xterm", 1), 0);
    (void)unsetenv("NO_COLOR");
    dump_on_terminal(stage);
    require_text(stage->out, "\033[33mmedium\033[0m");
    require_text(stage->out, "  python3 serve.py --mode\r\n");
    assert_int_equal(setenv("NO_COLOR", "1", 1), 0);
    dump_on_terminal(stage);
    assert_null(strchr(stage->out, '\033'));
    (void)unsetenv("NO_COLOR");
    assert_int_equal(setenv("TERM", "dumb", 1), 0);
    dump_on_terminal(stage);
    assert_null(strchr(stage->out, '\033'));
    assert_int_equal(setenv("TERM", "xterm", 1), 0);
    (void)cubudget(stage, "dump", NULL, NULL);
    assert_null(strchr(stage->out, '\033'));
}

/* --- check ----------------------------------------------------------------------------------------------------------- */

static void test_check_good(void **state)
{
    struct stage *stage = *state;
    ledger_furnish(stage);
    (void)cubudget(stage, "check", NULL, NULL);
    require_status(stage, 0);
    assert_null(strstr(stage->out, "FAIL"));
    require_text(stage->out, "ok   device 0: what is charged, 5 GiB, is within the budget, 8 GiB\n");
    require_text(stage->out, "ok   device 0: what slot 'semantic' holds, 3.50 GiB, is within its limit, 4 GiB\n");
    require_text(stage->out, " passed, 0 failed\n");
}

static void test_check_json(void **state)
{
    struct stage *stage = *state;
    ledger_furnish(stage);
    (void)cubudget(stage, "check", "--json", NULL);
    require_status(stage, 0);
    json_t *root = json_loads(stage->out, 0, NULL);
    assert_non_null(root);
    require_integer(root, "failed", 0);
    assert_int_equal(json_array_size(member(root, "checks")), json_integer_value(member(root, "passed")));
    assert_true(json_is_true(member(json_array_get(member(root, "checks"), 0), "ok")));
    json_decref(root);
}

static void require_check_fails(struct stage *stage, const char *line)
{
    (void)cubudget(stage, "check", NULL, NULL);
    require_status(stage, EXIT_CHECK_FAILED);
    require_text(stage->out, line);
    assert_null(strstr(stage->out, " 0 failed\n"));
}

static void test_check_over_budget(void **state)
{
    struct stage *stage = *state;
    const struct ledger_claim *claim = row_claim(stage, 0, "a", "x");
    ledger_commit_unasked(&stage->ledger, claim->row, stage->device, 8 * GIB + 1);
    require_check_fails(stage, "FAIL device 0: what is charged, 8.00 GiB, is 1 bytes above the budget, 8 GiB\n");
    require_text(stage->out, "FAIL device 0: the peak");
    ledger_credit(&stage->ledger, claim->row, stage->device, 1);
    require_check_fails(stage, "ok   device 0: what is charged");
    require_text(stage->out, "FAIL device 0: the peak, 8.00 GiB, is 1 bytes above the budget, 8 GiB\n");
}

static void test_check_over_limit(void **state)
{
    static const struct slot_terms terms = {.has_limit = true, .limit_bytes = 1 * GIB};
    struct ledger_fault fault;
    struct stage *stage = *state;
    const struct ledger_claim *claim = row_claim(stage, 0, "a", "x");
    assert_int_equal(ledger_slot_settle(&stage->ledger, claim->slot, &terms, &fault), 0);
    ledger_commit_unasked(&stage->ledger, claim->row, stage->device, 2 * GIB);
    require_check_fails(stage,
                        "FAIL device 0: what slot 'a' holds, 2 GiB, is 1073741824 bytes above its limit, 1 GiB\n");
}

/* Where the cells of row `row` begin; the layout is part of the interface (ledger_abi.h). */
static struct ledger_cell *cell_of(struct stage *stage, unsigned row)
{
    return (struct ledger_cell *)(void *)((char *)stage->ledger.file.bytes + LEDGER_OFFSET_CELLS) + row;
}

static void test_check_in_flight(void **state)
{
    struct stage *stage = *state;
    const struct ledger_claim *claim = row_claim(stage, 0, "a", "x");
    ledger_commit_unasked(&stage->ledger, claim->row, stage->device, 1 * GIB);
    cell_of(stage, claim->row)->in_flight_bytes = 1 * GIB + 4096;
    require_check_fails(stage, "bytes in flight and only 1073741824 charged\n");
}

/* A row whose tag names a slot that nobody claimed: bytes and a bid without an owner. */
static void test_check_nobodys(void **state)
{
    struct stage *stage = *state;
    const struct ledger_claim *claim = row_claim(stage, 0, "a", "x");
    uint64_t *tags = (uint64_t *)(void *)((char *)stage->ledger.file.bytes + LEDGER_OFFSET_TAGS);
    uint64_t before = tags[claim->row];
    ledger_commit_unasked(&stage->ledger, claim->row, stage->device, 1 * GIB);
    cell_of(stage, claim->row)->bid_bytes = 4096;
    tags[claim->row] = (before & ~(0xFFULL << LEDGER_TAG_SLOT_SHIFT)) | 7ULL << LEDGER_TAG_SLOT_SHIFT;
    require_check_fails(stage, "FAIL device 0: 1073741824 bytes are charged, and processes hold 0 of them\n");
    require_text(stage->out, "FAIL device 0: 4096 bytes are asked for, and living processes ask for 0 of them\n");
    tags[claim->row] = before;
    cell_of(stage, claim->row)->bid_bytes = 0;
}

/* --- gc -------------------------------------------------------------------------------------------------------------- */

static void test_gc(void **state)
{
    struct stage *stage = *state;
    (void)row_claim(stage, 0, "a", "x");
    (void)cubudget(stage, "gc", NULL, NULL);
    require_status(stage, EXIT_CHECK_FAILED);
    require_text(stage->err, "cubudget: the ledger 'default' (");
    require_text(stage->err, "is in use");
    assert_int_equal(ledger_is_current(&stage->ledger), 1);
    ledger_row_release(&stage->ledger, &stage->claims[0]);
    (void)cubudget(stage, "gc", NULL, NULL);
    require_status(stage, 0);
    require_text(stage->err, "cubudget: removed the ledger 'default' of ");
    assert_int_equal(ledger_is_current(&stage->ledger), 0);
    (void)cubudget(stage, "gc", NULL, NULL);
    require_status(stage, 0);
    require_text(stage->err, "cubudget: nothing to remove");
    assert_string_equal(stage->out, "");
}

/* gc takes the ledger that is named and no other. */
static void test_gc_named(void **state)
{
    struct stage *stage = *state;
    (void)cubudget(stage, "gc", "--ledger", "other");
    require_status(stage, 0);
    assert_int_equal(ledger_is_current(&stage->ledger), 1);
}

#define stage_test(test) cmocka_unit_test_setup_teardown(test, stage_open, stage_close)

int main(void)
{
    const struct CMUnitTest tests[] = {
        stage_test(test_json_keys),
        stage_test(test_json_device),
        stage_test(test_json_slots),
        stage_test(test_json_processes),
        stage_test(test_json_idle),
        stage_test(test_orphaned),
        stage_test(test_table),
        stage_test(test_table_reserve),
        stage_test(test_table_long_name),
        stage_test(test_terminal),
        stage_test(test_check_good),
        stage_test(test_check_json),
        stage_test(test_check_over_budget),
        stage_test(test_check_over_limit),
        stage_test(test_check_in_flight),
        stage_test(test_check_nobodys),
        stage_test(test_gc),
        stage_test(test_gc_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
