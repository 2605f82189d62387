/* Claiming a row and giving it back: who it says it is, what the last owner left, how many there are. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>
#include <cmocka.h>

#include "ledger/layout.h"
#include "unit/scene.h"

static int byte_look(const struct scene *scene, off_t byte)
{
    int descriptor = open(scene_path(scene), O_RDWR | O_CLOEXEC);
    assert_true(descriptor >= 0);
    int held = liveness_look(descriptor, byte);
    close(descriptor);
    return held;
}

static void claim_tells_who_it_is(void **state)
{
    struct scene *scene = *state;
    struct ledger *ledger = &scene->ledger;
    struct ledger_claim claim;
    char command[100];
    memset(command, 'c', sizeof command - 1);
    command[sizeof command - 1] = '\0';
    int slot = ledger_slot_claim(ledger, "a slot");
    assert_int_equal(ledger_row_claim(ledger, (unsigned)slot, command, &claim), 0);
    assert_true(claim.held);
    const struct ledger_row *row = layout_row(ledger, claim.row);
    uint64_t tag = atomic_load(layout_tag(ledger, claim.row));
    assert_int_equal(tag_state(tag), LEDGER_ROW_LIVE);
    assert_int_equal(tag_slot(tag), slot);
    assert_int_equal(atomic_load(&row->pid), getpid());
    assert_int_not_equal(atomic_load(&row->start_ticks), 0);
    assert_int_not_equal(atomic_load(&row->pid_namespace), 0);
    assert_memory_equal(row->command, command, sizeof row->command); /* cut, not terminated */
    assert_true(atomic_load(&layout_header(ledger)->rows_high) > claim.row);
    assert_int_equal(byte_look(scene, LEDGER_LIFE_BYTE + (off_t)claim.row), 1);
    assert_int_equal(byte_look(scene, LEDGER_MEMORY_BYTE + (off_t)claim.row), 1);
    ledger_row_release(ledger, &claim);
    assert_false(claim.held);
    assert_int_equal(tag_state(atomic_load(layout_tag(ledger, claim.row))), LEDGER_ROW_FREE);
    assert_int_equal(byte_look(scene, LEDGER_LIFE_BYTE + (off_t)claim.row), 0);
    assert_int_equal(byte_look(scene, LEDGER_MEMORY_BYTE + (off_t)claim.row), 0);
    ledger_row_release(ledger, &claim); /* once more changes nothing */
}

static void next_owner_begins_with_nothing(void **state)
{
    struct scene *scene = *state;
    struct ledger *ledger = &scene->ledger;
    struct ledger_claim claim;
    struct held held;
    assert_int_equal(scene_claim(ledger, "first", &claim), 0);
    unsigned row = claim.row, generation = tag_generation(atomic_load(layout_tag(ledger, row)));
    assert_int_equal(charge_try(ledger, &claim, 0, GIB, 1), LEDGER_FITS);
    ledger_kind_add(ledger, row, 0, LEDGER_KIND_LINEAR, (int64_t)GIB);
    ledger_row_release(ledger, &claim);
    held_read(ledger, 0, &held);
    assert_int_equal(held.committed + held.dead, 0);
    assert_int_equal(scene_claim(ledger, "second", &claim), 0);
    assert_int_equal(claim.row, row); /* low rows first */
    assert_int_equal(tag_generation(atomic_load(layout_tag(ledger, row))), generation + 1);
    assert_int_equal(atomic_load(&layout_cell(ledger, 0, row)->committed_bytes), 0);
    assert_int_equal(atomic_load(&layout_cell(ledger, 0, row)->in_flight_bytes), 0);
    assert_int_equal(atomic_load(&layout_kinds(ledger, 0, row)->bytes[LEDGER_KIND_LINEAR]), 0);
    ledger_row_release(ledger, &claim);
}

/* Counts stay with the slot whose they were, each once. */
static void counts_are_folded(void **state)
{
    struct scene *scene = *state;
    struct ledger *ledger = &scene->ledger;
    struct ledger_claim claim;
    assert_int_equal(scene_claim(ledger, "first", &claim), 0);
    unsigned first = claim.slot;
    for (unsigned i = 0; i < 3; i++)
        ledger_count(ledger, claim.row, LEDGER_COUNT_ALLOCATION);
    ledger_count(ledger, claim.row, LEDGER_COUNT_FREE);
    ledger_count(ledger, claim.row, LEDGER_COUNT_REFUSAL);
    ledger_count(ledger, claim.row, LEDGER_COUNT_WAIT);
    ledger_row_release(ledger, &claim);
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(scene_claim(ledger, "second", &claim), 0);
        ledger_row_release(ledger, &claim);
    }
    const struct ledger_counts *counts = &layout_slot(ledger, first)->counts;
    assert_int_equal(atomic_load(&counts->allocations), 3);
    assert_int_equal(atomic_load(&counts->frees), 1);
    assert_int_equal(atomic_load(&counts->refusals), 1);
    assert_int_equal(atomic_load(&counts->waits), 1);
    assert_int_equal(atomic_load(&layout_slot(ledger, claim.slot)->counts.allocations), 0);
}

static void slot_must_be_there(void **state)
{
    struct scene *scene = *state;
    struct ledger_claim claim;
    assert_int_equal(ledger_row_claim(&scene->ledger, 0, "x", &claim), -EINVAL);
    assert_int_equal(ledger_slot_claim(&scene->ledger, "a"), 0);
    assert_int_equal(ledger_row_claim(&scene->ledger, 1, "x", &claim), -EINVAL);
    assert_int_equal(ledger_row_claim(&scene->ledger, UINT32_MAX, "x", &claim), -EINVAL);
    assert_false(claim.held);
}

static void file_gone_or_replaced(void **state)
{
    struct scene *scene = *state;
    struct ledger_claim claim;
    struct ledger other;
    assert_int_equal(unlink(scene_path(scene)), 0);
    assert_int_equal(scene_claim(&scene->ledger, "a", &claim), -ESTALE);
    assert_int_equal(scene_ledger(scene, &other, 8 * GIB), 0);
    assert_int_equal(scene_claim(&scene->ledger, "a", &claim), -ESTALE);
    assert_false(claim.held);
    assert_int_equal(ledger_is_current(&scene->ledger), 0);
    assert_int_equal(scene_claim(&other, "a", &claim), 0);
    ledger_row_release(&other, &claim);
    ledger_close(&other);
}

/* What a gc that was stopped half way holds is not taken for rows in use. */
static void bytes_held_by_gc(void **state)
{
    struct scene *scene = *state;
    struct ledger_claim claim;
    struct flock all = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = LEDGER_LOCK_BYTES};
    int descriptor = open(scene_path(scene), O_RDWR | O_CLOEXEC);
    assert_int_equal(fcntl(descriptor, F_OFD_SETLK, &all), 0);
    assert_int_equal(scene_claim(&scene->ledger, "a", &claim), -EBUSY);
    assert_false(claim.held);
    close(descriptor);
    assert_int_equal(scene_claim(&scene->ledger, "a", &claim), 0);
    ledger_row_release(&scene->ledger, &claim);
}

/* A row in the middle whose bytes somebody holds is passed over. */
static void row_in_the_making_is_passed_over(void **state)
{
    struct scene *scene = *state;
    struct ledger_claim claim;
    struct flock one = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = LEDGER_MEMORY_BYTE, .l_len = 1};
    int descriptor = open(scene_path(scene), O_RDWR | O_CLOEXEC);
    assert_int_equal(fcntl(descriptor, F_OFD_SETLK, &one), 0);
    assert_int_equal(scene_claim(&scene->ledger, "a", &claim), 0);
    assert_int_equal(claim.row, 1);
    ledger_row_release(&scene->ledger, &claim);
    close(descriptor);
}

static void all_rows(void **state)
{
    static struct ledger_claim claims[LEDGER_ROWS], more;
    struct scene *scene = *state;
    struct rlimit limit;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur < LEDGER_ROWS + 100) {
        print_message("skipped: needs %d descriptors\n", LEDGER_ROWS + 100);
        skip();
    }
    for (unsigned i = 0; i < LEDGER_ROWS; i++) {
        assert_int_equal(scene_claim(&scene->ledger, "many", &claims[i]), 0);
        assert_int_equal(claims[i].row, i);
        assert_int_equal(charge_try(&scene->ledger, &claims[i], 0, MIB, 1), LEDGER_FITS);
    }
    struct held held;
    held_read(&scene->ledger, 0, &held);
    assert_int_equal(held.committed, LEDGER_ROWS * MIB);
    assert_int_equal(scene_claim(&scene->ledger, "many", &more), -ENOSPC);
    assert_false(more.held);
    ledger_row_release(&scene->ledger, &claims[777]);
    assert_int_equal(scene_claim(&scene->ledger, "another", &more), 0);
    assert_int_equal(more.row, 777);
    ledger_row_release(&scene->ledger, &more);
    for (unsigned i = 0; i < LEDGER_ROWS; i++)
        ledger_row_release(&scene->ledger, &claims[i]);
    held_read(&scene->ledger, 0, &held);
    assert_int_equal(held.committed + held.live, 0);
}

enum { ROUNDS = 300, CLAIMERS = 4 };

static int rows_claim(struct scene *scene, void *unused)
{
    (void)unused;
    struct ledger_claim claim;
    for (uint32_t round = 1; round <= ROUNDS; round++) {
        board_meet(&scene->board->arrived, CLAIMERS, round);
        REQUIRE(scene_claim(&scene->ledger, "a", &claim) == 0);
        /* Nobody else may have been given this row: the count of its owners is never above one. */
        REQUIRE(atomic_fetch_add(&scene->board->figures[claim.row], 1) == 0);
        REQUIRE(charge_try(&scene->ledger, &claim, 0, MIB, 1000) == LEDGER_FITS);
        board_meet(&scene->board->done, CLAIMERS, round);
        REQUIRE(atomic_fetch_sub(&scene->board->figures[claim.row], 1) == 1);
        ledger_row_release(&scene->ledger, &claim);
    }
    return 0;
}

/* Several processes claim at the same moment, again and again: each gets a row of its own. */
static void claimers_at_once(void **state)
{
    struct scene *scene = *state;
    pid_t pids[CLAIMERS];
    for (unsigned i = 0; i < CLAIMERS; i++)
        pids[i] = scene_fork(scene, NULL, rows_claim, NULL);
    for (unsigned i = 0; i < CLAIMERS; i++)
        scene_join(pids[i]);
    struct held held;
    held_read(&scene->ledger, 0, &held);
    assert_int_equal(held.committed + held.live + held.dead, 0);
}

#define SCENE(test) cmocka_unit_test_setup_teardown(test, scene_setup, scene_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        SCENE(claim_tells_who_it_is),
        SCENE(next_owner_begins_with_nothing),
        SCENE(counts_are_folded),
        SCENE(slot_must_be_there),
        SCENE(file_gone_or_replaced),
        SCENE(bytes_held_by_gc),
        SCENE(row_in_the_making_is_passed_over),
        SCENE(all_rows),
        SCENE(claimers_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
