/*
 * Processes that want the same bytes at the same moment: exactly one gets the last ones, and however many charge, credit
 * and die, no look at the ledger ever finds more than the budget.
 */
#include <errno.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "ledger/layout.h"
#include "ledger/snapshot.h"
#include "unit/scene.h"

#define BUDGET (8 * GIB)

static void nothing_is_left(struct scene *scene)
{
    struct held held;
    scene_settle(&scene->ledger);
    held_read(&scene->ledger, 0, &held);
    assert_int_equal(held.committed + held.dead + held.bids + held.in_flight, 0);
}

/* Looks until the answer is certain; a rival that does not run now gets its chance. */
static enum ledger_verdict charge_until_certain(struct ledger *ledger, const struct ledger_claim *claim, uint64_t bytes)
{
    struct ledger_bid bid = bid_of(claim, 0, bytes);
    enum ledger_verdict verdict;
    while ((verdict = ledger_bid_look(ledger, &bid, NULL)) == LEDGER_CONTENDED)
        (void)sched_yield();
    return verdict;
}

enum { ROUNDS = 2000, RIVALS = 2 };

static int last_bytes_want(struct scene *scene, void *unused)
{
    struct board *board = scene->board;
    struct ledger_claim claim;
    (void)unused;
    REQUIRE(scene_claim(&scene->ledger, "rivals", &claim) == 0);
    for (uint32_t round = 1; round <= ROUNDS; round++) {
        board_meet(&board->arrived, RIVALS, round);
        enum ledger_verdict verdict = charge_until_certain(&scene->ledger, &claim, 5 * GIB);
        REQUIRE(verdict == LEDGER_FITS || verdict == LEDGER_OVER_BUDGET);
        atomic_fetch_add(&board->figures[0], verdict == LEDGER_FITS);
        board_meet(&board->done, RIVALS, round);
        REQUIRE(atomic_load(&board->figures[0]) == round); /* one each round: never both, never none */
        if (verdict == LEDGER_FITS) {
            ledger_landed(&scene->ledger, claim.row, 0, 5 * GIB);
            ledger_credit(&scene->ledger, claim.row, 0, 5 * GIB);
        }
        board_meet(&board->go, RIVALS, round);
    }
    ledger_row_release(&scene->ledger, &claim);
    return 0;
}

static void last_bytes(void **state)
{
    struct scene *scene = *state;
    pid_t pids[RIVALS];
    for (unsigned i = 0; i < RIVALS; i++)
        pids[i] = scene_fork(scene, NULL, last_bytes_want, NULL);
    for (unsigned i = 0; i < RIVALS; i++)
        scene_join(pids[i]);
    nothing_is_left(scene);
}

/* --- a busy ledger ------------------------------------------------------------------------------------------------------ */

enum { CROWD = 8, REQUESTS = 3000, LIMITED = 4 };
#define LIMIT   (3 * GIB)
#define RESERVE (2 * GIB)

/* Charges and credits sizes of its own choice, in slot "left" (limited) or "right" (with a reserve). */
static int crowd_body(struct scene *scene, void *context)
{
    unsigned number = *(unsigned *)context;
    uint32_t random = 2654435761U * (number + 1);
    uint64_t held[8] = {0};
    struct ledger_claim claim;
    REQUIRE(scene_claim(&scene->ledger, number < LIMITED ? "left" : "right", &claim) == 0);
    for (unsigned i = 0; i < REQUESTS; i++) {
        unsigned at = random_next(&random) % 8;
        if (held[at] != 0) {
            ledger_credit(&scene->ledger, claim.row, 0, held[at]);
            held[at] = 0;
            continue;
        }
        uint64_t bytes = (uint64_t)(random_next(&random) % 1500 + 1) * MIB;
        if (charge_try(&scene->ledger, &claim, 0, bytes, 20) == LEDGER_FITS) {
            ledger_landed(&scene->ledger, claim.row, 0, bytes);
            held[at] = bytes;
            atomic_fetch_add(&scene->board->figures[0], 1);
        } else {
            atomic_fetch_add(&scene->board->figures[1], 1);
        }
    }
    for (unsigned at = 0; at < 8; at++)
        ledger_credit(&scene->ledger, claim.row, 0, held[at]);
    ledger_row_release(&scene->ledger, &claim);
    board_arrive(&scene->board->done);
    return 0;
}

static void terms_set(struct scene *scene)
{
    struct slot_terms left = {.has_limit = true, .limit_bytes = LIMIT};
    struct slot_terms right = {.has_reserve = true, .reserve_bytes = RESERVE};
    assert_int_equal(
        ledger_slot_settle(&scene->ledger, (unsigned)ledger_slot_claim(&scene->ledger, "left"), &left, &scene->fault),
        0);
    assert_int_equal(
        ledger_slot_settle(&scene->ledger, (unsigned)ledger_slot_claim(&scene->ledger, "right"), &right, &scene->fault),
        0);
}

/* Returns whether the snapshot was of one moment; then nothing in it may pass what was agreed. */
static bool watch(struct scene *scene)
{
    struct snapshot snapshot;
    assert_int_equal(snapshot_take(&scene->ledger, &snapshot), 0);
    const struct snapshot_device *device = &snapshot.devices[0];
    bool steady = device->steady;
    if (steady) {
        assert_true(device->used_bytes + device->dead_bytes <= BUDGET);
        assert_true(snapshot.slots[0].used_bytes <= LIMIT);
        uint64_t right = snapshot.slots[1].used_bytes;
        assert_true(snapshot.slots[0].used_bytes + (right > RESERVE ? right : RESERVE) <= BUDGET);
    }
    assert_true(device->peak_bytes <= BUDGET);
    assert_true(snapshot.slots[0].peak_bytes <= LIMIT);
    snapshot_free(&snapshot);
    return steady;
}

static void crowd(void **state)
{
    struct scene *scene = *state;
    unsigned numbers[CROWD], steady = 0;
    pid_t pids[CROWD];
    terms_set(scene);
    for (unsigned i = 0; i < CROWD; i++) {
        numbers[i] = i;
        pids[i] = scene_fork(scene, NULL, crowd_body, &numbers[i]);
    }
    while (atomic_load(&scene->board->done) < CROWD && waitpid(-1, NULL, WNOHANG | WNOWAIT) >= 0) {
        steady += watch(scene);
        if (atomic_load(&scene->board->done) == 0)
            (void)sched_yield();
        siginfo_t end = {0};
        if (waitid(P_ALL, 0, &end, WEXITED | WNOHANG | WNOWAIT) == 0 && end.si_pid != 0 && end.si_status != 0)
            break; /* one has failed: it is told below */
    }
    for (unsigned i = 0; i < CROWD; i++)
        scene_join(pids[i]);
    steady += watch(scene);
    assert_true(steady > 0);
    assert_true(atomic_load(&scene->board->figures[0]) > 0);
    assert_true(atomic_load(&scene->board->figures[1]) > 0); /* there was something to quarrel about */
    nothing_is_left(scene);
}

/* --- deaths at any moment ------------------------------------------------------------------------------------------------ */

enum { DEATHS = 50 };

static int doomed_body(struct scene *scene, void *unused)
{
    struct ledger_claim claim;
    (void)unused;
    board_arrive(&scene->board->arrived);
    while (atomic_load(&scene->board->failed) == 0) {
        if (scene_claim(&scene->ledger, "doomed", &claim) != 0)
            continue;
        for (unsigned i = 0; i < 50; i++)
            if (charge_try(&scene->ledger, &claim, 0, 5 * GIB, 5) == LEDGER_FITS) {
                ledger_landed(&scene->ledger, claim.row, 0, 5 * GIB);
                ledger_credit(&scene->ledger, claim.row, 0, 5 * GIB);
            }
        ledger_row_release(&scene->ledger, &claim);
    }
    return 0;
}

/* Two at a time, ended wherever they are; whoever looks never finds more than the budget, and at last nothing. */
static void deaths_at_any_moment(void **state)
{
    struct scene *scene = *state;
    uint32_t random = 1;
    struct held held;
    for (uint32_t death = 0; death < DEATHS; death++) {
        pid_t pids[2];
        for (unsigned i = 0; i < 2; i++)
            pids[i] = scene_fork(scene, NULL, doomed_body, NULL);
        board_await(&scene->board->arrived, 2 * (death + 1));
        for (uint32_t looks = random_next(&random) % 100; looks > 0; looks--)
            (void)ledger_reap(&scene->ledger);
        for (unsigned i = 0; i < 2; i++) {
            assert_int_equal(kill(pids[i], SIGKILL), 0);
            assert_true(WIFSIGNALED(scene_wait(pids[i])));
        }
        (void)ledger_reap(&scene->ledger);
        held_read(&scene->ledger, 0, &held);
        assert_int_equal(held.live, 0);
        assert_true(held.dead <= BUDGET);
    }
    nothing_is_left(scene);
}

#define SCENE(test) cmocka_unit_test_setup_teardown(test, scene_setup, scene_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {SCENE(last_bytes), SCENE(crowd), SCENE(deaths_at_any_moment)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
