/*
 * A process stopped, or killed, at each named point of a charge, a claim, a credit, a reap, a making and a removing. Stopped,
 * it costs others at most the bytes it asked for; killed, it leaves nothing: no bytes, no bids, no file.
 */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "ledger/layout.h"
#include "ledger/snapshot.h"
#include "unit/scene.h"

#define BUDGET (8 * GIB)
#define ASKED  (3 * GIB)

/* The points a process that claims, charges, and credits passes, in this order. */
static const char *const charge_points[] = {
    "slot.claimed", "claim.locked",     "claim.cleared",    "claim.live",         "bid.published",
    "bid.looked",   "charge.in_flight", "charge.committed", "charge.bid_cleared", "credit.done",
};

static int busy_body(struct scene *scene, void *unused)
{
    struct ledger_claim claim;
    (void)unused;
    REQUIRE(scene_claim(&scene->ledger, "victim", &claim) == 0);
    REQUIRE(charge_try(&scene->ledger, &claim, 0, ASKED, 1) == LEDGER_FITS);
    ledger_landed(&scene->ledger, claim.row, 0, ASKED);
    ledger_credit(&scene->ledger, claim.row, 0, ASKED);
    ledger_row_release(&scene->ledger, &claim);
    return 0;
}

static pid_t busy_start(struct scene *scene, const char *point, const char *action)
{
    char wish[80];
    snprintf(wish, sizeof wish, "%s:%s", point, action);
    return scene_fork(scene, wish, busy_body, NULL);
}

static void nothing_is_left(struct scene *scene)
{
    struct held held;
    scene_settle(&scene->ledger);
    held_read(&scene->ledger, 0, &held);
    assert_int_equal(held.committed, 0);
    assert_int_equal(held.dead, 0);
    assert_int_equal(held.bids, 0);
    assert_int_equal(held.in_flight, 0);
    assert_int_equal(held.live + held.orphaned + held.dying, 0);
}

static void process_kill(pid_t pid)
{
    assert_int_equal(kill(pid, SIGKILL), 0);
    int status = scene_wait(pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

/* While it is stopped, the rest of the budget is everybody's, at the first look; and every answer comes. */
static void stopped_costs_its_bytes(struct scene *scene, const char *point)
{
    struct ledger_claim claim;
    pid_t pid = busy_start(scene, point, "stop");
    if (!scene_stopped(pid))
        fail_msg("%s is never passed", point);
    assert_int_equal(scene_claim(&scene->ledger, "others", &claim), 0);
    if (charge_try(&scene->ledger, &claim, 0, BUDGET - ASKED, 1) != LEDGER_FITS)
        fail_msg("stopped at %s, it costs more than it asked for", point);
    bool counted = strncmp(point, "bid.", 4) == 0 || strncmp(point, "charge.", 7) == 0;
    if ((charge_try(&scene->ledger, &claim, 0, ASKED, 1) == LEDGER_FITS) == counted)
        fail_msg("stopped at %s, what it asked for %s", point, counted ? "is not counted" : "is counted");
    ledger_credit(&scene->ledger, claim.row, 0, counted ? 0 : ASKED);
    assert_int_equal(charge_try(&scene->ledger, &claim, 0, ASKED + 1, 1), LEDGER_OVER_BUDGET);
    ledger_credit(&scene->ledger, claim.row, 0, BUDGET);
    ledger_row_release(&scene->ledger, &claim);
    assert_int_equal(kill(pid, SIGCONT), 0);
    scene_join(pid);
    nothing_is_left(scene);
}

static void stopped_at_each_point(void **state)
{
    for (size_t i = 0; i < sizeof charge_points / sizeof *charge_points; i++)
        stopped_costs_its_bytes(*state, charge_points[i]);
}

static void killed_at_each_point(void **state)
{
    struct scene *scene = *state;
    for (size_t i = 0; i < sizeof charge_points / sizeof *charge_points; i++) {
        int status = scene_wait(busy_start(scene, charge_points[i], "kill"));
        if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
            fail_msg("%s is never passed", charge_points[i]);
        nothing_is_left(scene);
    }
    /* And the ledger is as good as new. */
    scene_join(scene_fork(scene, NULL, busy_body, NULL));
    nothing_is_left(scene);
    assert_int_equal(ledger_slot_claim(&scene->ledger, "victim"), 0);
    assert_string_equal(layout_slot(&scene->ledger, 0)->name, "victim");
}

/* Stopped, then killed where it stands: what others could not have comes back. */
static void killed_while_stopped(void **state)
{
    struct scene *scene = *state;
    for (size_t i = 0; i < sizeof charge_points / sizeof *charge_points; i++) {
        pid_t pid = busy_start(scene, charge_points[i], "stop");
        assert_true(scene_stopped(pid));
        process_kill(pid);
        nothing_is_left(scene);
    }
}

/* --- the look that was late -------------------------------------------------------------------------------------------- */

static int late_body(struct scene *scene, void *unused)
{
    struct ledger_claim claim;
    (void)unused;
    REQUIRE(scene_claim(&scene->ledger, "late", &claim) == 0);
    enum ledger_verdict verdict = charge_try(&scene->ledger, &claim, 0, BUDGET - ASKED + 1, 1);
    REQUIRE(verdict != LEDGER_FITS); /* the other's bytes are on the card until it is known that they are not */
    return 0;
}

/* A look reads a row's bid and old bytes; the owner commits, dies, and is found dead; then the look reads its tag. */
static void death_between_two_reads(void **state)
{
    struct scene *scene = *state;
    pid_t victim = scene_fork(scene, "bid.looked:stop", busy_body, NULL);
    assert_true(scene_stopped(victim));
    pid_t late = scene_fork(scene, "look.row_read:stop", late_body, NULL);
    assert_true(scene_stopped(late));
    /* What the victim would do next, then its death. Its row is 0: it came first. */
    struct ledger_cell *cell = layout_cell(&scene->ledger, 0, 0);
    atomic_store(&cell->in_flight_bytes, ASKED);
    atomic_store(&cell->committed_bytes, ASKED);
    process_kill(victim);
    assert_int_equal(ledger_reap(&scene->ledger), 1);
    assert_int_equal(kill(late, SIGCONT), 0);
    scene_join(late);
    nothing_is_left(scene);
}

/* --- reapers ----------------------------------------------------------------------------------------------------------- */

static int reaper_body(struct scene *scene, void *unused)
{
    (void)unused;
    (void)ledger_reap(&scene->ledger);
    return 0;
}

/* A reaper that dies midway leaves what another finishes; one that was late changes nothing of the next owner's. */
static void reaper_killed(void **state)
{
    static const char *const points[] = {"reap.probed:kill", "reap.moved:kill"};
    struct scene *scene = *state;
    for (size_t i = 0; i < sizeof points / sizeof *points; i++) {
        (void)scene_wait(busy_start(scene, "charge.committed", "kill"));
        int status = scene_wait(scene_fork(scene, points[i], reaper_body, NULL));
        assert_true(WIFSIGNALED(status));
        nothing_is_left(scene);
    }
}

static void reaper_late(void **state)
{
    struct scene *scene = *state;
    struct ledger_claim claim;
    (void)scene_wait(busy_start(scene, "charge.committed", "kill"));
    pid_t late = scene_fork(scene, "reap.probed:stop", reaper_body, NULL); /* it has found row 0 dead */
    assert_true(scene_stopped(late));
    nothing_is_left(scene);
    assert_int_equal(scene_claim(&scene->ledger, "next", &claim), 0);
    assert_int_equal(claim.row, 0);
    uint64_t tag = atomic_load(layout_tag(&scene->ledger, 0));
    assert_int_equal(kill(late, SIGCONT), 0);
    scene_join(late);
    assert_int_equal(atomic_load(layout_tag(&scene->ledger, 0)), tag);
    ledger_row_release(&scene->ledger, &claim);
}

/* --- makers and removers ------------------------------------------------------------------------------------------------ */

static int maker_body(struct scene *scene, void *unused)
{
    struct ledger ledger;
    (void)unused;
    REQUIRE(scene_ledger(scene, &ledger, BUDGET) == 0);
    return 0;
}

static void maker_killed(void **state)
{
    static const char *const points[] = {"create.filled:kill", "create.linked:kill"};
    for (size_t i = 0; i < sizeof points / sizeof *points; i++) {
        struct scene scene;
        (void)state;
        scene_open(&scene, 0);
        int status = scene_wait(scene_fork(&scene, points[i], maker_body, NULL));
        assert_true(WIFSIGNALED(status));
        scene_join(scene_fork(&scene, NULL, maker_body, NULL));
        assert_int_equal(ledger_remove(scene.directory, "default", &scene.fault), 0);
        assert_int_equal(rmdir(scene.directory), 0); /* no temporary file was left */
        scene_close(&scene);
    }
}

static int remover_body(struct scene *scene, void *unused)
{
    (void)unused;
    (void)ledger_remove(scene->directory, "default", &scene->fault);
    return 0;
}

static void remover_stopped_and_killed(void **state)
{
    struct scene *scene = *state;
    struct ledger_claim claim;
    pid_t pid = scene_fork(scene, "remove.locked:stop", remover_body, NULL);
    assert_true(scene_stopped(pid));
    assert_int_equal(scene_claim(&scene->ledger, "a", &claim), -EBUSY);
    assert_int_equal(ledger_remove(scene->directory, "default", &scene->fault), -EBUSY);
    process_kill(pid);
    assert_int_equal(scene_claim(&scene->ledger, "a", &claim), 0);
    assert_int_equal(ledger_remove(scene->directory, "default", &scene->fault), -EBUSY);
    ledger_row_release(&scene->ledger, &claim);
    assert_int_equal(ledger_remove(scene->directory, "default", &scene->fault), 0);
    assert_int_equal(scene_claim(&scene->ledger, "a", &claim), -ESTALE);
}

#define SCENE(test) cmocka_unit_test_setup_teardown(test, scene_setup, scene_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        SCENE(stopped_at_each_point),   SCENE(killed_at_each_point),
        SCENE(killed_while_stopped),    SCENE(death_between_two_reads),
        SCENE(reaper_killed),           SCENE(reaper_late),
        cmocka_unit_test(maker_killed), SCENE(remover_stopped_and_killed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
