/*
 * Telling of pressure, by the ledger alone: at each threshold by one byte, rising and falling, of odd budgets; nothing while nobody
 * watches; the history; deaths of who tells, and of who watches.
 */
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

/* Makes a row hold so many bytes, in one change. */
static void hold(struct scene *scene, const struct ledger_claim *claim, uint64_t bytes)
{
    uint64_t before = ledger_committed(&scene->ledger, claim->row, scene->device);
    if (bytes > before)
        ledger_commit_unasked(&scene->ledger, claim->row, scene->device, bytes - before);
    else if (bytes < before)
        ledger_credit(&scene->ledger, claim->row, scene->device, before - bytes);
}

static void expect_told(struct scene *scene, uint32_t generation, unsigned level)
{
    struct ledger_pressure told = ledger_pressure_read(&scene->ledger, scene->device);
    assert_int_equal(told.generation, generation);
    assert_int_equal(told.level, level);
}

/* `first` is the least use of that level: one byte decides, and each crossing is one change. */
static uint32_t crossing_check(struct scene *scene, const struct ledger_claim *claim, uint64_t first, unsigned level,
                               uint32_t generation)
{
    hold(scene, claim, first - 1);
    generation = ledger_pressure_read(&scene->ledger, scene->device).generation;
    expect_told(scene, generation, level - 1);
    hold(scene, claim, first);
    expect_told(scene, ++generation, level);
    hold(scene, claim, first + 1);
    expect_told(scene, generation, level);
    hold(scene, claim, first);
    expect_told(scene, generation, level);
    hold(scene, claim, first - 1);
    expect_told(scene, ++generation, level - 1);
    return generation;
}

static void thresholds_are_exact(void **state)
{
    static const uint64_t budgets[] = {1000, 1001, 1019, 99999989, 8 * GIB - 1, 8 * GIB, 8 * GIB + 1, (1ULL << 45) + 7};
    (void)state;
    for (size_t i = 0; i < sizeof budgets / sizeof budgets[0]; i++) {
        struct scene scene;
        struct ledger_claim claim;
        struct ledger_watch watch;
        uint64_t budget = budgets[i];
        scene_open(&scene, budget);
        assert_int_equal(scene_claim(&scene.ledger, "a", &claim), 0);
        assert_int_equal(ledger_watch_begin(&scene.ledger, scene.device, &watch), 0);
        expect_told(&scene, 0, PRESSURE_LOW);
        uint32_t generation = crossing_check(&scene, &claim, (budget + 1) / 2, PRESSURE_MEDIUM, 0);
        generation = crossing_check(&scene, &claim, budget * 80 / 100 + 1, PRESSURE_HIGH, generation);
        generation = crossing_check(&scene, &claim, budget * 95 / 100 + 1, PRESSURE_CRITICAL, generation);
        hold(&scene, &claim, 0);
        expect_told(&scene, generation + 1, PRESSURE_LOW);
        ledger_watch_end(&scene.ledger, &watch);
        ledger_row_release(&scene.ledger, &claim);
        scene_close(&scene);
    }
}

/* A grant, a refusal of the driver, and what landed at another size. */
static void charges_are_told(void **state)
{
    struct scene *scene = *state;
    struct ledger_claim claim;
    struct ledger_watch watch;
    assert_int_equal(scene_claim(&scene->ledger, "a", &claim), 0);
    assert_int_equal(ledger_watch_begin(&scene->ledger, scene->device, &watch), 0);
    assert_int_equal(charge_try(&scene->ledger, &claim, scene->device, 5 * GIB, 1), LEDGER_FITS);
    expect_told(scene, 1, PRESSURE_MEDIUM);
    ledger_settle(&scene->ledger, claim.row, scene->device, 5 * GIB, 0);
    expect_told(scene, 2, PRESSURE_LOW);
    assert_int_equal(charge_try(&scene->ledger, &claim, scene->device, GIB, 1), LEDGER_FITS);
    ledger_settle(&scene->ledger, claim.row, scene->device, GIB, 7 * GIB);
    expect_told(scene, 3, PRESSURE_HIGH);
    ledger_row_release(&scene->ledger, &claim);
    expect_told(scene, 4, PRESSURE_LOW);
    ledger_watch_end(&scene->ledger, &watch);
}

static void nobody_watches_and_nothing_is_told(void **state)
{
    struct scene *scene = *state;
    struct ledger_claim claim;
    struct ledger_watch watch, second;
    assert_int_equal(scene_claim(&scene->ledger, "a", &claim), 0);
    hold(scene, &claim, 5 * GIB);
    expect_told(scene, 0, PRESSURE_LOW);
    assert_int_equal(ledger_watch_begin(&scene->ledger, scene->device, &watch), 0);
    expect_told(scene, 1, PRESSURE_MEDIUM); /* what there was to tell */
    assert_int_equal(ledger_watch_begin(&scene->ledger, scene->device, &second), 0);
    ledger_watch_end(&scene->ledger, &watch);
    hold(scene, &claim, 0);
    expect_told(scene, 2, PRESSURE_LOW); /* to the second */
    ledger_watch_end(&scene->ledger, &second);
    hold(scene, &claim, 5 * GIB);
    expect_told(scene, 2, PRESSURE_LOW);
    ledger_row_release(&scene->ledger, &claim);
}

static void another_budget_is_told(void **state)
{
    struct scene *scene = *state;
    struct ledger_claim claim;
    struct ledger_watch watch;
    assert_int_equal(scene_claim(&scene->ledger, "a", &claim), 0);
    assert_int_equal(ledger_watch_begin(&scene->ledger, scene->device, &watch), 0);
    hold(scene, &claim, 3 * GIB);
    expect_told(scene, 0, PRESSURE_LOW);
    atomic_store(&layout_device(&scene->ledger, scene->device)->budget_bytes, 4 * GIB);
    ledger_pressure_publish(&scene->ledger, scene->device);
    expect_told(scene, 1, PRESSURE_MEDIUM);
    ledger_watch_end(&scene->ledger, &watch);
    ledger_row_release(&scene->ledger, &claim);
}

/* The level that each of many changes made can be told for the last 64 of them, and never wrongly. */
static void history_is_right(void **state)
{
    enum { CHANGES = 1000, KNOWN = LEDGER_LEVELS * LEDGER_HISTORY };
    static const uint64_t bytes[] = {0, 5 * GIB, 7 * GIB, 8 * GIB}; /* of each level */
    struct scene *scene = *state;
    struct ledger_claim claim;
    struct ledger_watch watch;
    unsigned made[CHANGES + 1] = {0};
    uint32_t seed = 1;
    assert_int_equal(scene_claim(&scene->ledger, "a", &claim), 0);
    assert_int_equal(ledger_watch_begin(&scene->ledger, scene->device, &watch), 0);
    for (uint32_t i = 1; i <= CHANGES; i++) {
        made[i] = (made[i - 1] + 1 + random_next(&seed) % 3) % 4;
        hold(scene, &claim, bytes[made[i]]);
        expect_told(scene, i, made[i]);
        for (uint32_t then = 1; then <= i; then++) {
            int told = ledger_pressure_told(&scene->ledger, scene->device, then);
            if (told != (int)made[then] && (told != -1 || i - then < KNOWN))
                fail_msg("after %u changes number %u is told as %d, and was %u", i, then, told, made[then]);
        }
        assert_int_equal(ledger_pressure_told(&scene->ledger, scene->device, i + 1), -1);
    }
    ledger_watch_end(&scene->ledger, &watch);
    ledger_row_release(&scene->ledger, &claim);
}

/* Two processes cross a threshold back and forth at once: whatever they met, the level that is told at the end is true. */
static int crosser_body(struct scene *scene, void *context)
{
    enum { ROUNDS = 2000 };
    struct ledger_claim claim;
    (void)context;
    REQUIRE(scene_claim(&scene->ledger, "a", &claim) == 0);
    for (uint32_t round = 1; round <= ROUNDS; round++) {
        board_meet(&scene->board->arrived, 2, 2 * round - 1);
        if (round % 2 != 0)
            ledger_commit_unasked(&scene->ledger, claim.row, scene->device, 3 * GIB);
        else
            ledger_credit(&scene->ledger, claim.row, scene->device, 3 * GIB);
        board_meet(&scene->board->arrived, 2, 2 * round);
        unsigned level = ledger_pressure_read(&scene->ledger, scene->device).level;
        REQUIRE(level == (round % 2 != 0 ? PRESSURE_MEDIUM : PRESSURE_LOW));
    }
    return 0;
}

static void rivals_leave_the_truth(void **state)
{
    struct scene *scene = *state;
    struct ledger_watch watch;
    assert_int_equal(ledger_watch_begin(&scene->ledger, scene->device, &watch), 0);
    pid_t first = scene_fork(scene, NULL, crosser_body, NULL), second = scene_fork(scene, NULL, crosser_body, NULL);
    scene_join(first);
    scene_join(second);
    ledger_watch_end(&scene->ledger, &watch);
}

/* --- deaths -------------------------------------------------------------------------------------------------------------- */

static int killed_body(struct scene *scene, void *context)
{
    struct ledger_claim claim;
    (void)context;
    REQUIRE(scene_claim(&scene->ledger, "a", &claim) == 0);
    REQUIRE(charge_try(&scene->ledger, &claim, scene->device, 5 * GIB, 1) == LEDGER_FITS);
    return 0;
}

/* Killed before its change was published, or after, and before it woke anybody: the next look tells, and reaping is told. */
static void teller_dies(void **state)
{
    static const char *const points[] = {"pressure.looked:kill", "pressure.published:kill"};
    for (size_t i = 0; i < sizeof points / sizeof points[0]; i++) {
        struct scene *scene = *state;
        struct ledger_watch watch;
        assert_int_equal(ledger_watch_begin(&scene->ledger, scene->device, &watch), 0);
        uint32_t before = ledger_pressure_read(&scene->ledger, scene->device).generation;
        assert_true(WIFSIGNALED(scene_wait(scene_fork(scene, points[i], killed_body, NULL))));
        ledger_pressure_publish(&scene->ledger, scene->device);
        expect_told(scene, before + 1, PRESSURE_MEDIUM);
        (void)ledger_reap(&scene->ledger);
        expect_told(scene, before + 2, PRESSURE_LOW);
        scene_settle(&scene->ledger);
        expect_told(scene, before + 2, PRESSURE_LOW);
        ledger_watch_end(&scene->ledger, &watch);
    }
}

static int watcher_body(struct scene *scene, void *context)
{
    struct ledger_watch watch;
    (void)context;
    REQUIRE(ledger_watch_begin(&scene->ledger, scene->device, &watch) == 0);
    board_arrive(&scene->board->arrived);
    pause();
    return 0;
}

static void watcher_dies(void **state)
{
    struct scene *scene = *state;
    _Atomic(uint32_t) *watchers = &layout_device(&scene->ledger, scene->device)->watchers;
    pid_t pid = scene_fork(scene, NULL, watcher_body, NULL);
    board_await(&scene->board->arrived, 1);
    ledger_watch_prune(&scene->ledger);
    assert_int_equal(atomic_load(watchers), 1);
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_true(WIFSIGNALED(scene_wait(pid)));
    ledger_watch_prune(&scene->ledger);
    assert_int_equal(atomic_load(watchers), 0);
}

#define scene_test(name) cmocka_unit_test_setup_teardown(name, scene_setup, scene_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(thresholds_are_exact),
        scene_test(charges_are_told),
        scene_test(nobody_watches_and_nothing_is_told),
        scene_test(another_budget_is_told),
        scene_test(history_is_right),
        scene_test(rivals_leave_the_truth),
        scene_test(teller_dies),
        scene_test(watcher_dies),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
