/*
 * A process stopped, or killed, while its bytes leave the card or come back, or while it asks, moves, or stands in line: no byte is
 * counted twice at any moment, none is left when it is dead, and what it asked of others does not outlive their next state.
 */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "ledger/events.h"
#include "ledger/layout.h"
#include "ledger/process.h"
#include "ledger/snapshot.h"
#include "unit/scene.h"

#define BUDGET    (8 * GIB)
#define HELD      (3 * GIB)
#define FOOTPRINT (HELD + 32 * MIB)

/* The points a process that leaves and comes back passes, in this order, and the most that counts of it meanwhile. */
static const struct step {
    const char *point;
    uint64_t counted_bytes;
} steps[] = {
    {"evict.noted", HELD},
    {"evict.moved", 0},
    {"restore.moved", HELD},
};

static int traveller_body(struct scene *scene, void *unused)
{
    struct ledger *ledger = &scene->ledger;
    struct ledger_claim claim;
    (void)unused;
    REQUIRE(scene_claim(ledger, "traveller", &claim) == 0);
    REQUIRE(charge_try(ledger, &claim, 0, HELD, 1) == LEDGER_FITS);
    ledger_landed(ledger, claim.row, 0, HELD);
    REQUIRE(ledger_evict_bytes(ledger, claim.row, 0) == HELD);
    REQUIRE(charge_try(ledger, &claim, 0, FOOTPRINT, 1) == LEDGER_FITS);
    ledger_restore_bytes(ledger, claim.row, 0, FOOTPRINT);
    REQUIRE(ledger_committed(ledger, claim.row, 0) == HELD);
    ledger_row_release(ledger, &claim);
    return 0;
}

static pid_t traveller_start(struct scene *scene, const char *point, const char *action)
{
    char wish[80];
    snprintf(wish, sizeof wish, "%s:%s", point, action);
    return scene_fork(scene, wish, traveller_body, NULL);
}

static void process_kill(pid_t pid)
{
    assert_int_equal(kill(pid, SIGKILL), 0);
    int status = scene_wait(pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

static void nothing_is_left(struct scene *scene)
{
    struct snapshot snapshot;
    struct held held;
    scene_settle(&scene->ledger);
    held_read(&scene->ledger, 0, &held);
    assert_int_equal(held.committed + held.in_flight + held.bids + held.dead, 0);
    assert_int_equal(snapshot_take(&scene->ledger, &snapshot), 0);
    assert_int_equal(snapshot.process_count, 0);
    assert_int_equal(snapshot.devices[0].available_bytes, BUDGET);
    for (unsigned i = 0; i < snapshot.slot_count; i++)
        assert_int_equal(snapshot.slots[i].evicted_bytes, 0);
    snapshot_free(&snapshot);
}

/* While it is stopped there, others can have all of the budget but what counts of it, and not a byte more. */
static void counted_once(struct scene *scene, const struct step *step)
{
    struct ledger_claim claim;
    struct held held;
    held_read(&scene->ledger, 0, &held);
    if (held.committed != step->counted_bytes)
        fail_msg("stopped at %s, %llu bytes count, not %llu", step->point, (unsigned long long)held.committed,
                 (unsigned long long)step->counted_bytes);
    assert_int_equal(scene_claim(&scene->ledger, "others", &claim), 0);
    assert_int_equal(charge_try(&scene->ledger, &claim, 0, BUDGET - step->counted_bytes + 1, 1), LEDGER_OVER_BUDGET);
    assert_int_equal(charge_try(&scene->ledger, &claim, 0, BUDGET - step->counted_bytes, 1), LEDGER_FITS);
    ledger_row_release(&scene->ledger, &claim);
}

static void stopped_on_the_way(void **state)
{
    struct scene *scene = *state;
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        pid_t pid = traveller_start(scene, steps[i].point, "stop");
        if (!scene_stopped(pid))
            fail_msg("%s is never passed", steps[i].point);
        counted_once(scene, &steps[i]);
        assert_int_equal(kill(pid, SIGCONT), 0);
        scene_join(pid);
        nothing_is_left(scene);
    }
}

static void killed_on_the_way(void **state)
{
    struct scene *scene = *state;
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        struct ledger_claim claim;
        int status = scene_wait(traveller_start(scene, steps[i].point, "kill"));
        if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
            fail_msg("%s is never passed", steps[i].point);
        nothing_is_left(scene);
        assert_int_equal(scene_claim(&scene->ledger, "others", &claim), 0);
        assert_int_equal(charge_try(&scene->ledger, &claim, 0, BUDGET, 1), LEDGER_FITS);
        assert_int_equal(ledger_evicted(&scene->ledger, claim.row, 0), 0); /* the row that it had */
        ledger_row_release(&scene->ledger, &claim);
    }
}

/* Dead and not yet reaped, no more counts of it than the card may hold. */
static void dying_counts_what_is_committed(void **state)
{
    struct scene *scene = *state;
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        struct held held;
        pid_t pid = traveller_start(scene, steps[i].point, "stop");
        assert_true(scene_stopped(pid));
        process_kill(pid);
        assert_int_equal(ledger_reap(&scene->ledger), 1);
        held_read(&scene->ledger, 0, &held);
        assert_int_equal(held.committed, 0);
        assert_int_equal(held.dead, steps[i].counted_bytes);
        nothing_is_left(scene);
    }
}

/* --- asking and standing in line ------------------------------------------------------------------------------------------ */

static int asker_body(struct scene *scene, void *context)
{
    uint32_t word;
    REQUIRE(ledger_process_ask(&scene->ledger, *(unsigned *)context, 5, &word) == 0);
    return 0;
}

/* An asker that dies between its ask and its wake: the word says what it asked, and its agent finds it at its next look. */
static void asker_killed(void **state)
{
    struct scene *scene = *state;
    struct ledger_claim claim;
    assert_int_equal(scene_claim(&scene->ledger, "victim", &claim), 0);
    uint32_t word = ledger_process_word(&scene->ledger, claim.row);
    assert_true(ledger_process_move(&scene->ledger, claim.row, &word, LEDGER_PROCESS_RUNNING, false));
    uint32_t running = word;
    int status = scene_wait(scene_fork(scene, "process.asked:kill", asker_body, &claim.row));
    assert_true(WIFSIGNALED(status));
    word = ledger_process_word(&scene->ledger, claim.row);
    assert_int_equal(process_word_state(word), LEDGER_PROCESS_ASKED);
    assert_int_equal(process_word_asker(word), 5);
    assert_int_equal(ledger_process_sleep(&scene->ledger, claim.row, running, UINT32_MAX), 0);
    assert_true(ledger_process_move(&scene->ledger, claim.row, &word, LEDGER_PROCESS_RUNNING, false));
    ledger_row_release(&scene->ledger, &claim);
}

static int mover_body(struct scene *scene, void *unused)
{
    struct ledger_claim claim;
    (void)unused;
    REQUIRE(scene_claim(&scene->ledger, "mover", &claim) == 0);
    uint32_t word = ledger_process_word(&scene->ledger, claim.row);
    REQUIRE(ledger_process_move(&scene->ledger, claim.row, &word, LEDGER_PROCESS_RUNNING, false));
    REQUIRE(ledger_process_ask(&scene->ledger, claim.row, LEDGER_ROWS, &word) == 0);
    REQUIRE(ledger_process_move(&scene->ledger, claim.row, &word, LEDGER_PROCESS_EVICTING, false));
    REQUIRE(ledger_process_move(&scene->ledger, claim.row, &word, LEDGER_PROCESS_EVICTED, true));
    return 0;
}

/* Whatever state a process dies in, the next owner of its row is in none. */
static void mover_killed(void **state)
{
    static const char *const points[] = {"process.moved:kill@1", "process.asked:kill", "process.moved:kill@2",
                                         "process.moved:kill@3"};
    struct scene *scene = *state;
    for (size_t i = 0; i < sizeof points / sizeof *points; i++) {
        struct ledger_claim claim;
        int status = scene_wait(scene_fork(scene, points[i], mover_body, NULL));
        if (!WIFSIGNALED(status))
            fail_msg("%s is never passed", points[i]);
        assert_int_not_equal(ledger_process_word(&scene->ledger, 0), 0);
        scene_settle(&scene->ledger);
        assert_int_equal(scene_claim(&scene->ledger, "next", &claim), 0);
        assert_int_equal(claim.row, 0);
        assert_int_equal(ledger_process_word(&scene->ledger, 0), 0);
        ledger_row_release(&scene->ledger, &claim);
    }
}

static int stander_body(struct scene *scene, void *unused)
{
    struct ledger_claim claim;
    struct ledger_place place = {.ticket = LEDGER_NO_TICKET, .kind = LEDGER_WAITING_ALLOCATION, .wanted_bytes = {HELD}};
    (void)unused;
    REQUIRE(scene_claim(&scene->ledger, "stander", &claim) == 0);
    ledger_line_enter(&scene->ledger, claim.row, &place);
    return 0;
}

/* Stopped in line it costs others its turn; killed, nothing. */
static void stander_stopped_and_killed(void **state)
{
    struct scene *scene = *state;
    struct ledger_claim claim;
    enum { NOW = 1000 };
    pid_t pid = scene_fork(scene, "line.entered:stop", stander_body, NULL);
    assert_true(scene_stopped(pid));
    assert_int_equal(scene_claim(&scene->ledger, "others", &claim), 0);
    assert_true(ledger_line_is_behind(&scene->ledger, 0, claim.row, LEDGER_NO_TICKET, NOW));
    assert_false(ledger_line_is_behind(&scene->ledger, 0, claim.row, LEDGER_NO_TICKET, NOW + LEDGER_TURN_MS + 1));
    process_kill(pid);
    (void)ledger_reap(&scene->ledger);
    atomic_store(&layout_row(&scene->ledger, 0)->wait_turn_ms, 0); /* as if its turn had not begun */
    assert_false(ledger_line_is_behind(&scene->ledger, 0, claim.row, LEDGER_NO_TICKET, NOW));
    ledger_row_release(&scene->ledger, &claim);
}

#define SCENE(test) cmocka_unit_test_setup_teardown(test, scene_setup, scene_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        SCENE(stopped_on_the_way), SCENE(killed_on_the_way), SCENE(dying_counts_what_is_committed),
        SCENE(asker_killed),       SCENE(mover_killed),      SCENE(stander_stopped_and_killed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
