/* A snapshot: what it says of a quiet ledger, and that no garbage in the file makes it, or anything else that reads, crash. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "ledger/layout.h"
#include "ledger/snapshot.h"
#include "platform/env.h"
#include "unit/scene.h"

static void empty_ledger(void **state)
{
    struct scene *scene = *state;
    struct snapshot snapshot;
    assert_int_equal(snapshot_take(&scene->ledger, &snapshot), 0);
    assert_string_equal(snapshot.name, "default");
    assert_int_equal(snapshot.version, LEDGER_ABI_VERSION);
    assert_int_equal(snapshot.budget_bytes, 8 * GIB);
    assert_int_equal(snapshot.device_count, 1);
    assert_int_equal(snapshot.slot_count, 0);
    assert_int_equal(snapshot.process_count, 0);
    assert_true(snapshot.devices[0].steady);
    assert_int_equal(snapshot.devices[0].available_bytes, 8 * GIB);
    assert_int_equal(snapshot.devices[0].pressure, PRESSURE_LOW);
    snapshot_free(&snapshot);
    assert_null(snapshot.processes);
}

static void rows_slots_and_kinds(void **state)
{
    struct scene *scene = *state;
    struct ledger *ledger = &scene->ledger;
    struct ledger_claim busy, idle;
    struct snapshot snapshot;
    struct slot_terms terms = {.has_limit = true, .limit_bytes = 5 * GIB, .has_priority = true, .priority = 7};
    assert_int_equal(scene_claim(ledger, "busy", &busy), 0);
    assert_int_equal(scene_claim(ledger, "idle", &idle), 0);
    assert_int_equal(ledger_slot_settle(ledger, busy.slot, &terms, &scene->fault), 0);
    assert_int_equal(charge_try(ledger, &busy, 0, 4 * GIB, 1), LEDGER_FITS);
    ledger_kind_add(ledger, busy.row, 0, LEDGER_KIND_CONTEXT, (int64_t)GIB);
    ledger_count(ledger, busy.row, LEDGER_COUNT_ALLOCATION);
    assert_int_equal(snapshot_take(ledger, &snapshot), 0);
    assert_int_equal(snapshot.devices[0].used_bytes, 4 * GIB);
    assert_int_equal(snapshot.devices[0].peak_bytes, 4 * GIB);
    assert_int_equal(snapshot.devices[0].available_bytes, 4 * GIB);
    assert_int_equal(snapshot.devices[0].pressure, PRESSURE_MEDIUM);
    assert_int_equal(snapshot.slot_count, 2);
    assert_string_equal(snapshot.slots[0].name, "busy");
    assert_int_equal(snapshot.slots[0].limit_bytes, 5 * GIB);
    assert_int_equal(snapshot.slots[0].priority, 7);
    assert_int_equal(snapshot.slots[0].used_bytes, 4 * GIB);
    assert_int_equal(snapshot.slots[0].allocations, 1);
    assert_int_equal(snapshot.slots[0].processes, 1);
    assert_int_equal(snapshot.slots[1].limit_bytes, LEDGER_NO_LIMIT);
    assert_int_equal(snapshot.process_count, 2);
    assert_int_equal(snapshot.processes[0].device, 0);
    assert_int_equal(snapshot.processes[0].slot, 0);
    assert_int_equal(snapshot.processes[0].used_bytes, 4 * GIB);
    assert_int_equal(snapshot.processes[0].in_flight_bytes, 4 * GIB);
    assert_int_equal(snapshot.processes[0].by_kind[LEDGER_KIND_CONTEXT], GIB);
    assert_int_equal(snapshot.processes[0].pid, getpid());
    assert_string_equal(snapshot.processes[0].command, "scene");
    assert_int_equal(snapshot.processes[1].device, -1); /* holds nothing, and is there */
    assert_int_equal(snapshot.processes[1].slot, 1);
    snapshot_free(&snapshot);
    /* Counts outlive their row, once and no more. */
    ledger_row_release(ledger, &busy);
    assert_int_equal(snapshot_take(ledger, &snapshot), 0);
    assert_int_equal(snapshot.slots[0].allocations, 1);
    assert_int_equal(snapshot.slots[0].processes, 0);
    assert_int_equal(snapshot.devices[0].used_bytes, 0);
    snapshot_free(&snapshot);
    ledger_row_release(ledger, &idle);
}

/* Valid UTF-8 without control characters, ended. */
static void text_check(const char *text, size_t room)
{
    size_t length = strnlen(text, room);
    assert_true(length < room);
    for (size_t at = 0, step; at < length; at += step) {
        step = character_length((const unsigned char *)text + at, length - at);
        assert_int_not_equal(step, 0);
    }
}

static void snapshot_check(const struct snapshot *snapshot)
{
    assert_in_range(snapshot->device_count, 0, LEDGER_DEVICES);
    assert_in_range(snapshot->slot_count, 0, LEDGER_SLOTS);
    text_check(snapshot->name, sizeof snapshot->name);
    for (unsigned i = 0; i < snapshot->device_count; i++)
        text_check(snapshot->devices[i].name, sizeof snapshot->devices[i].name);
    for (unsigned i = 0; i < snapshot->slot_count; i++)
        text_check(snapshot->slots[i].name, sizeof snapshot->slots[i].name);
    for (unsigned i = 0; i < snapshot->process_count; i++) {
        const struct snapshot_process *process = &snapshot->processes[i];
        assert_true(process->slot < snapshot->slot_count);
        assert_true(process->device >= -1 && process->device < (int)snapshot->device_count);
        assert_true(process->in_flight_bytes <= process->used_bytes);
        assert_true(process->row < LEDGER_ROWS);
        text_check(process->command, sizeof process->command);
        text_check(process->reason, sizeof process->reason);
        assert_true(process->leader < LEDGER_ROWS);
        assert_true((unsigned)process->process_state < LEDGER_PROCESS_STATES);
        assert_in_range(process->wait.kind, LEDGER_WAITING_NOT, LEDGER_WAITING_RESTORE);
        assert_true(process->wait.device >= -1 && process->wait.device < (int)snapshot->device_count);
        assert_true(process->wait.for_row >= -1 && process->wait.for_row < LEDGER_ROWS);
        assert_true(process->wait.for_slot >= -1 && process->wait.for_slot < (int)snapshot->slot_count);
    }
}

/* Everything behind the fields that opening checks. Mostly other garbage each round, of bytes drawn once. */
static void garbage_write(struct scene *scene, const uint64_t *pool, size_t words, uint32_t *random)
{
    struct ledger_header *header = layout_header(&scene->ledger);
    uint64_t *file = scene->ledger.file.bytes;
    for (size_t at = 4096 / 8; at < LEDGER_FILE_BYTES / 8;) {
        size_t from = random_next(random) % (words - 1024), run = 1024;
        if (run > LEDGER_FILE_BYTES / 8 - at)
            run = LEDGER_FILE_BYTES / 8 - at;
        memcpy(file + at, pool + from, run * 8);
        at += run;
    }
    memcpy(header->name, pool + random_next(random) % 1000, sizeof header->name);
    atomic_store(&header->rows_high, random_next(random) % 3 == 0 ? random_next(random) : 40);
    atomic_store(&header->slots_high, random_next(random));
    atomic_store(&header->has_reserves, random_next(random) % 2);
    atomic_store(&header->next_ticket, pool[random_next(random) % 1000]);
}

static void everything_reads(struct scene *scene, uint32_t *random)
{
    struct ledger *ledger = &scene->ledger;
    struct snapshot snapshot;
    struct ledger_view view;
    struct ledger_claim claim;
    struct slot_terms terms = {.has_limit = true, .limit_bytes = GIB, .has_reserve = true, .reserve_bytes = MIB};
    static const uint8_t uuid[LEDGER_UUID_BYTES] = "another";
    uint64_t shrunk_to;
    assert_int_equal(snapshot_take(ledger, &snapshot), 0);
    snapshot_check(&snapshot);
    snapshot_free(&snapshot);
    unsigned row = random_next(random) % LEDGER_ROWS, slot;
    char name[LEDGER_NAME_BYTES], reason[LEDGER_REASON_BYTES + 1];
    uint32_t pid;
    if (snapshot_slot_name(ledger, random_next(random) % (2 * LEDGER_SLOTS), name))
        text_check(name, sizeof name);
    snapshot_reason(ledger, row, reason);
    text_check(reason, sizeof reason);
    (void)snapshot_row_owner(ledger, row, UINT64_MAX, &pid, &slot);
    (void)snapshot_row_lives(ledger, row, 1);
    ledger_view(ledger, random_next(random) % LEDGER_DEVICES, random_next(random) % LEDGER_SLOTS, &view);
    (void)ledger_slot_claim(ledger, "another");
    (void)ledger_device_claim(ledger, uuid, "another");
    (void)ledger_slot_settle(ledger, random_next(random) % LEDGER_SLOTS, &terms, &scene->fault);
    (void)ledger_device_settle(ledger, random_next(random) % LEDGER_DEVICES, GIB, MIB, &shrunk_to, &scene->fault);
    assert_true(strnlen(scene->fault.text, sizeof scene->fault.text) < sizeof scene->fault.text);
    if (ledger_row_claim(ledger, random_next(random) % LEDGER_SLOTS, "garbage", &claim) != 0)
        return;
    (void)charge_try(ledger, &claim, random_next(random) % LEDGER_DEVICES, random_next(random), 3);
    ledger_commit_unasked(ledger, claim.row, random_next(random) % LEDGER_DEVICES, random_next(random));
    ledger_credit(ledger, claim.row, random_next(random) % LEDGER_DEVICES, random_next(random));
    ledger_row_release(ledger, &claim);
}

enum { ROUNDS = 1000, POOL_WORDS = 1 << 16 };

static void garbage(void **state)
{
    struct scene *scene = *state;
    uint64_t *pool = calloc(POOL_WORDS, sizeof *pool);
    uint32_t random = 20230817;
    assert_non_null(pool);
    for (size_t i = 0; i < POOL_WORDS; i++)
        pool[i] = (uint64_t)random_next(&random) << 32 | random_next(&random);
    for (unsigned round = 0; round < ROUNDS; round++) {
        garbage_write(scene, pool, POOL_WORDS, &random);
        everything_reads(scene, &random);
    }
    free(pool);
}

/* A row tells who had it, until somebody else has it. */
static void owner_of_a_row(void **state)
{
    struct scene *scene = *state;
    struct ledger *ledger = &scene->ledger;
    struct ledger_claim claim;
    uint32_t pid = 0;
    unsigned slot = 99;
    assert_false(snapshot_row_owner(ledger, 0, UINT64_MAX, &pid, &slot));
    assert_int_equal(scene_claim(ledger, "first", &claim), 0);
    uint64_t began_ns = atomic_load(&layout_row(ledger, 0)->started_ns);
    assert_true(snapshot_row_owner(ledger, 0, began_ns, &pid, &slot));
    assert_int_equal(pid, getpid());
    assert_int_equal(slot, claim.slot);
    assert_false(snapshot_row_owner(ledger, 0, began_ns - 1, &pid, &slot)); /* somebody else's, or nobody's */
    assert_true(snapshot_row_lives(ledger, 0, (uint32_t)getpid()));
    assert_false(snapshot_row_lives(ledger, 0, (uint32_t)getpid() + 1));
    ledger_row_release(ledger, &claim);
    assert_false(snapshot_row_lives(ledger, 0, (uint32_t)getpid()));
    assert_true(snapshot_row_owner(ledger, 0, began_ns, &pid, &slot)); /* it still says whose it was */
}

#define SCENE(test) cmocka_unit_test_setup_teardown(test, scene_setup, scene_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {SCENE(empty_ledger), SCENE(rows_slots_and_kinds), SCENE(owner_of_a_row),
                                       SCENE(garbage)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
