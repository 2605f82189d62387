/*
 * What cubudget dump and check say of processes in each state, of bytes off the card, and of the line.
 */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>
#include "integration/player.h"
#include "ledger/events.h"
#include "ledger/line.h"
#include "ledger/process.h"
#include "platform/log.h"

static struct ledger_row *row_of(struct stage *stage, unsigned row)
{
    return (struct ledger_row *)(void *)((char *)stage->ledger.file.bytes + LEDGER_OFFSET_ROWS) + row;
}

static struct ledger_cell *cell_of(struct stage *stage, unsigned row)
{
    return (struct ledger_cell *)(void *)((char *)stage->ledger.file.bytes + LEDGER_OFFSET_CELLS) + row;
}

static uint64_t now_ms(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* As an agent leaves the word. */
static void state_set(struct stage *stage, unsigned row, enum ledger_process_state state, bool want)
{
    row_of(stage, row)->process_state = (uint32_t)state | (want ? LEDGER_PROCESS_WANT : 0);
}

static void line_enter(struct stage *stage, unsigned row, enum ledger_waiting kind, uint64_t bytes, uint64_t ago_ms)
{
    struct ledger_place place = {
        .ticket = LEDGER_NO_TICKET, .kind = kind, .since_ms = now_ms() - ago_ms, .deadline_ms = LEDGER_NO_DEADLINE};
    place.wanted_bytes[stage->device] = bytes;
    ledger_line_enter(&stage->ledger, row, &place);
}

static json_t *process_at(json_t *root, size_t at)
{
    return json_array_get(member(root, "processes"), at);
}

static void require_bool(const json_t *object, const char *key, bool wanted)
{
    if (json_is_true(member(object, key)) != wanted)
        fail_msg("%s is not %s", key, wanted ? "true" : "false");
}

/* --- dump ------------------------------------------------------------------------------------------------------------------ */

/* A state, what the table calls it, and what it says below the process. */
static const struct {
    enum ledger_process_state state;
    const char *name, *line;
} shown[] = {
    {LEDGER_PROCESS_NO_AGENT, "running", NULL},
    {LEDGER_PROCESS_RUNNING, "running", NULL},
    {LEDGER_PROCESS_ASKED, "asked", "         asked 0.0 s ago to leave the card\n"},
    {LEDGER_PROCESS_EVICTING, "evicting", "         leaving the card for 0.0 s\n"},
    {LEDGER_PROCESS_EVICTED, "evicted", "         off the card for 0.0 s: 0, with 0 of host memory\n"},
    {LEDGER_PROCESS_RESTORING, "restoring", "         coming back for 0.0 s: 0\n"},
    {LEDGER_PROCESS_LOST, "lost", "         could not be restored, 0.0 s ago\n"},
    {(enum ledger_process_state)9, "running", NULL}, /* damage */
};

static void test_every_state(void **state)
{
    struct stage *stage = *state;
    const struct ledger_claim *claim = row_claim(stage, 0, "a", "x");
    char line[128];
    ledger_evictable_note(&stage->ledger, claim->row, NULL);
    charge(stage, claim, 1 * GIB, LEDGER_KIND_LINEAR);
    for (size_t i = 0; i < sizeof shown / sizeof *shown; i++) {
        struct timespec now;
        (void)clock_gettime(CLOCK_REALTIME, &now);
        state_set(stage, claim->row, shown[i].state, false);
        row_of(stage, claim->row)->state_since_ns = ((uint64_t)now.tv_sec + 1000) * 1000000000U; /* a clock put back */
        json_t *root = dump_parse(stage);
        require_string(process_at(root, 0), "state", shown[i].name);
        require_bool(process_at(root, 0), "evictable",
                     shown[i].state != LEDGER_PROCESS_NO_AGENT && shown[i].state < LEDGER_PROCESS_STATES);
        json_decref(root);
        (void)cubudget(stage, "dump", NULL, NULL);
        (void)snprintf(line, sizeof line, "%8d a              %-9s    1.00 GiB  x\n", (int)getpid(), shown[i].name);
        require_text(stage->out, line);
        if (shown[i].line != NULL)
            require_text(stage->out, shown[i].line);
        else
            require_text(stage->out, "  x\n         linear 1.00 GiB\n");
    }
}

/* Why it stays: no context; what its agent says; nothing known. */
static void test_unevictable(void **state)
{
    struct stage *stage = *state;
    const struct ledger_claim *claim = row_claim(stage, 0, "a", "x");
    charge(stage, claim, 1 * GIB, LEDGER_KIND_LINEAR);
    json_t *root = dump_parse(stage);
    require_string(process_at(root, 0), "unevictable_reason", "no context yet");
    json_decref(root);
    state_set(stage, claim->row, LEDGER_PROCESS_RUNNING, false);
    root = dump_parse(stage);
    require_string(process_at(root, 0), "unevictable_reason", "not known yet");
    json_decref(root);
    ledger_evictable_note(&stage->ledger, claim->row, "it has called cuFrobnicate_v7, which is not known here to us");
    root = dump_parse(stage);
    require_bool(process_at(root, 0), "evictable", false);
    require_string(process_at(root, 0), "unevictable_reason", "it has called cuFrobnicate_v7, which is not know");
    json_decref(root);
    (void)cubudget(stage, "dump", NULL, NULL);
    require_text(stage->out, "         cannot leave the card: it has called cuFrobnicate_v7, which is not know\n");
    ledger_evictable_note(&stage->ledger, claim->row, NULL);
    root = dump_parse(stage);
    require_bool(process_at(root, 0), "evictable", true);
    assert_true(json_is_null(member(process_at(root, 0), "unevictable_reason")));
    json_decref(root);
}

/* One that left: its bytes are off the card, charged to nobody, and shown with its image; all rows of it are in its state. */
static void test_evicted(void **state)
{
    struct stage *stage = *state;
    const struct ledger_claim *first = row_claim(stage, 0, "a", "x"), *second = row_claim(stage, 1, "b", "x");
    charge(stage, first, 3 * GIB, LEDGER_KIND_LINEAR);
    charge(stage, second, 1 * GIB, LEDGER_KIND_LINEAR);
    ledger_lead(&stage->ledger, second->row, first->row);
    assert_int_equal(ledger_host_take(&stage->ledger, first->row, 4128 * MIB, UINT64_MAX), 0);
    (void)ledger_evict_bytes(&stage->ledger, first->row, stage->device);
    (void)ledger_evict_bytes(&stage->ledger, second->row, stage->device);
    state_set(stage, first->row, LEDGER_PROCESS_EVICTED, true);
    row_of(stage, first->row)->counts.evictions = 3;
    row_of(stage, first->row)->counts.restores = 2;
    json_t *root = dump_parse(stage);
    const json_t *device = json_array_get(member(root, "devices"), 0), *slot = json_array_get(member(root, "slots"), 0);
    for (size_t i = 0; i < 2; i++) {
        const json_t *process = process_at(root, i);
        require_string(process, "state", "evicted");
        require_integer(process, "used_bytes", 0);
        require_integer(process, "evicted_bytes", i == 0 ? 3 * GIB : 1 * GIB);
        require_integer(process, "host_bytes", 4128 * MIB);
        require_integer(member(process, "by_kind"), "linear", i == 0 ? 3 * GIB : 1 * GIB);
    }
    require_integer(device, "used_bytes", 0);
    require_integer(device, "available_bytes", 8 * GIB);
    require_string(device, "pressure", "low");
    require_integer(slot, "evicted_bytes", 3 * GIB);
    require_integer(slot, "evictions", 3);
    require_integer(slot, "restores", 2);
    json_decref(root);
    (void)cubudget(stage, "dump", NULL, NULL);
    require_text(stage->out, "               evicted 3.00 GiB; evictions 3, restores 2, waits 0\n");
    require_text(stage->out, ": 3.00 GiB, with 4.03 GiB of host memory, wanted back\n         linear 3.00 GiB\n");
    (void)cubudget(stage, "check", NULL, NULL);
    require_status(stage, 0);
}

/* A row that names a first row of somebody else is its own. */
static void test_damaged_leader(void **state)
{
    struct stage *stage = *state;
    const struct ledger_claim *claim = row_claim(stage, 0, "a", "x");
    pid_t other = player_start(stage, "b", 1 * GIB, PLAYER_IS_SILENT);
    charge(stage, claim, 1 * GIB, LEDGER_KIND_LINEAR);
    state_set(stage, claim->row, LEDGER_PROCESS_LOST, false);
    row_of(stage, claim->row)->leader = 1;
    json_t *root = dump_parse(stage);
    require_string(process_at(root, 0), "state", "lost");
    require_string(process_at(root, 1), "state", "running");
    json_decref(root);
    player_end(other);
}

static void test_waiting(void **state)
{
    struct stage *stage = *state;
    const struct ledger_claim *claim = row_claim(stage, 0, "a", "x");
    pid_t other = player_start(stage, "b", 1 * GIB, PLAYER_IS_SILENT);
    char line[256];
    line_enter(stage, claim->row, LEDGER_WAITING_ALLOCATION, 2 * GIB, 3250);
    json_t *root = dump_parse(stage);
    const json_t *idle = process_at(root, 1), *waiting = member(idle, "waiting_for"); /* it holds nothing, and waits */
    require_string(waiting, "kind", "allocation");
    require_integer(waiting, "bytes", 2 * GIB);
    require_integer(waiting, "device", 0);
    assert_true(json_is_string(member(waiting, "since")));
    assert_true(json_is_null(member(waiting, "for")));
    assert_int_equal(json_object_size(waiting), 5);
    assert_true(json_is_null(member(process_at(root, 0), "waiting_for")));
    json_decref(root);
    ledger_line_waits_for(&stage->ledger, claim->row, 1);
    root = dump_parse(stage);
    const json_t *whom = member(member(process_at(root, 1), "waiting_for"), "for");
    require_integer(whom, "pid", (uint64_t)other);
    require_string(whom, "slot", "b");
    json_decref(root);
    (void)cubudget(stage, "dump", NULL, NULL);
    (void)snprintf(line, sizeof line, " s for 2.00 GiB of device 0, on process %d (b)\n", (int)other);
    require_text(stage->out, "         waiting 3.");
    require_text(stage->out, line);
    line_enter(stage, claim->row, LEDGER_WAITING_RESTORE, 2 * GIB, 3250);
    (void)cubudget(stage, "dump", NULL, NULL);
    require_text(stage->out, " s to come back, for 2.00 GiB of device 0, on process ");
    ledger_line_leave(&stage->ledger, claim->row);
    root = dump_parse(stage);
    assert_true(json_is_null(member(process_at(root, 1), "waiting_for")));
    json_decref(root);
    player_end(other);
}

/* --- check ----------------------------------------------------------------------------------------------------------------- */

static void require_check(struct stage *stage, const char *fault)
{
    (void)cubudget(stage, "check", NULL, NULL);
    require_status(stage, fault == NULL ? 0 : EXIT_CHECK_FAILED);
    if (fault != NULL)
        require_text(stage->out, fault);
    else
        assert_null(strstr(stage->out, "FAIL"));
}

static void test_check_kinds(void **state)
{
    struct stage *stage = *state;
    const struct ledger_claim *claim = row_claim(stage, 0, "a", "x");
    charge(stage, claim, 1 * GIB, LEDGER_KIND_LINEAR);
    require_check(stage, NULL);
    ledger_kind_add(&stage->ledger, claim->row, stage->device, LEDGER_KIND_ARRAY, 4096);
    require_check(stage, " has 1073745920 bytes by kind, and 1073741824 on the card and 0 off it, 0 in flight\n");
    ledger_kind_add(&stage->ledger, claim->row, stage->device, LEDGER_KIND_ARRAY, -8192 + 4096);
    require_check(stage, NULL);
    (void)ledger_evict_bytes(&stage->ledger, claim->row, stage->device);
    state_set(stage, claim->row, LEDGER_PROCESS_EVICTED, false);
    require_check(stage, NULL);
    cell_of(stage, claim->row)->evicted_bytes = 4096; /* bytes lost on the way */
    require_check(stage, " has 1073741824 bytes by kind, and 0 on the card and 4096 off it, 0 in flight\n");
}

static void test_check_evicted(void **state)
{
    struct stage *stage = *state;
    const struct ledger_claim *claim = row_claim(stage, 0, "a", "x");
    charge(stage, claim, 1 * GIB, LEDGER_KIND_LINEAR);
    state_set(stage, claim->row, LEDGER_PROCESS_EVICTED, false);
    require_check(stage, " is evicted, and is charged 1073741824 bytes\n");
    (void)ledger_evict_bytes(&stage->ledger, claim->row, stage->device);
    /* Charged for its way back: on the way, which is as it shall be. */
    struct ledger_bid bid = {
        .device = stage->device, .row = claim->row, .slot = claim->slot, .bytes = 2 * GIB, .ticket = LEDGER_NO_TICKET};
    assert_int_equal(ledger_bid_look(&stage->ledger, &bid, NULL), LEDGER_FITS);
    require_check(stage, NULL);
    ledger_credit(&stage->ledger, claim->row, stage->device, 2 * GIB);
    ledger_landed(&stage->ledger, claim->row, stage->device, 2 * GIB);
    state_set(stage, claim->row, LEDGER_PROCESS_RUNNING, false);
    require_check(stage, " is on the card, and 1073741824 bytes of it are off it\n");
}

static void test_check_unanswered(void **state)
{
    struct stage *stage = *state;
    const struct ledger_claim *claim = row_claim(stage, 0, "a", "x");
    state_set(stage, claim->row, LEDGER_PROCESS_ASKED, false);
    require_check(stage, NULL);
    row_of(stage, claim->row)->state_since_ns -= 20ULL * 1000000000U;
    require_check(stage, " was asked to leave 2");
    require_text(stage->out, " s ago and has not answered\n");
}

static void test_check_line(void **state)
{
    struct stage *stage = *state;
    const struct ledger_claim *claim = row_claim(stage, 0, "a", "x");
    line_enter(stage, claim->row, LEDGER_WAITING_ALLOCATION, 1 * GIB, 1000);
    require_check(stage, NULL);
    row_of(stage, claim->row)->wait_deadline_ms = now_ms() - 5000;
    require_check(stage, NULL);
    row_of(stage, claim->row)->wait_deadline_ms = now_ms() - 11000;
    require_check(stage, " stands in line, more than 10 s after it was to give up\n");
    row_of(stage, claim->row)->wait_deadline_ms = LEDGER_NO_DEADLINE;
    cell_of(stage, claim->row)->wanted_bytes = 0;
    require_check(stage, " stands in line, and waits for nothing\n");
    cell_of(stage, claim->row)->wanted_bytes = 1 * GIB;
    uint32_t pid = row_of(stage, claim->row)->pid;
    row_of(stage, claim->row)->pid =
        (1U << 22) - 1; /* nobody's: as where a forked child keeps a dead one's life byte */
    require_check(stage, " has ended, and still stands in line\n");
    row_of(stage, claim->row)->pid = pid;
}

#define stage_test(test) cmocka_unit_test_setup_teardown(test, stage_open, stage_close)

int main(void)
{
    const struct CMUnitTest tests[] = {
        stage_test(test_every_state),    stage_test(test_unevictable),      stage_test(test_evicted),
        stage_test(test_damaged_leader), stage_test(test_waiting),          stage_test(test_check_kinds),
        stage_test(test_check_evicted),  stage_test(test_check_unanswered), stage_test(test_check_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
