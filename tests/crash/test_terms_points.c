/*
 * A process stopped, or killed, while it changes terms: others charge as before, and change terms as soon as it is dead, or a
 * quarter of a second later where it stands still.
 */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "ledger/layout.h"
#include "unit/scene.h"

#define BUDGET   (8 * GIB)
#define RESERVED (3 * GIB)

static int raiser_body(struct scene *scene, void *unused)
{
    struct slot_terms terms = {.has_reserve = true, .reserve_bytes = RESERVED};
    (void)unused;
    (void)ledger_slot_change(&scene->ledger, (unsigned)ledger_slot_claim(&scene->ledger, "raised"), &terms,
                             &scene->fault);
    return 0;
}

static int lowerer_body(struct scene *scene, void *unused)
{
    (void)unused;
    (void)ledger_budget_change(&scene->ledger, LEDGER_DEVICES, BUDGET - GIB, &scene->fault);
    return 0;
}

static void process_kill(pid_t pid)
{
    assert_int_equal(kill(pid, SIGKILL), 0);
    int status = scene_wait(pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

/* Its reserve is published and not looked at yet: it counts, nothing passes the budget, and anybody may give it up. */
static void raiser_stopped_and_killed(void **state)
{
    struct scene *scene = *state;
    struct ledger_claim claim;
    struct slot_terms none = {.has_reserve = true}, limit = {.has_limit = true, .limit_bytes = 6 * GIB};
    assert_int_equal(scene_claim(&scene->ledger, "others", &claim), 0);
    pid_t pid = scene_fork(scene, "reserve.published:stop", raiser_body, NULL);
    assert_true(scene_stopped(pid));
    assert_int_equal(charge_try(&scene->ledger, &claim, 0, BUDGET - RESERVED, 1), LEDGER_FITS);
    assert_int_equal(charge_try(&scene->ledger, &claim, 0, 1, 1), LEDGER_OVER_BUDGET);
    assert_int_equal(ledger_slot_change(&scene->ledger, claim.slot, &limit, &scene->fault), 0); /* it holds the turn */
    process_kill(pid);
    int raised = ledger_slot_find(&scene->ledger, "raised");
    assert_true(raised >= 0);
    assert_int_equal(ledger_slot_change(&scene->ledger, (unsigned)raised, &none, &scene->fault), 0);
    assert_int_equal(charge_try(&scene->ledger, &claim, 0, GIB, 1), LEDGER_FITS);
    ledger_row_release(&scene->ledger, &claim);
}

/* A raiser that goes on after others took what it was to reserve takes it back. */
static void raiser_late(void **state)
{
    struct scene *scene = *state;
    struct ledger_claim claim;
    assert_int_equal(scene_claim(&scene->ledger, "others", &claim), 0);
    pid_t pid = scene_fork(scene, "reserve.published:stop", raiser_body, NULL);
    assert_true(scene_stopped(pid));
    ledger_commit_unasked(&scene->ledger, claim.row, 0, BUDGET - RESERVED + 1); /* as if its bid had come before */
    assert_int_equal(kill(pid, SIGCONT), 0);
    scene_join(pid);
    int raised = ledger_slot_find(&scene->ledger, "raised");
    assert_int_equal(atomic_load(&layout_slot(&scene->ledger, (unsigned)raised)->reserve_bytes), 0);
    ledger_row_release(&scene->ledger, &claim);
}

static void budget_changer_stopped(void **state)
{
    struct scene *scene = *state;
    struct ledger_claim claim;
    assert_int_equal(scene_claim(&scene->ledger, "others", &claim), 0);
    pid_t pid = scene_fork(scene, "budget.published:stop", lowerer_body, NULL);
    assert_true(scene_stopped(pid));
    assert_int_equal(charge_try(&scene->ledger, &claim, 0, BUDGET, 1), LEDGER_OVER_BUDGET);
    assert_int_equal(charge_try(&scene->ledger, &claim, 0, BUDGET - GIB, 1), LEDGER_FITS);
    assert_int_equal(ledger_budget_change(&scene->ledger, LEDGER_DEVICES, BUDGET, &scene->fault), 0);
    process_kill(pid);
    assert_int_equal(ledger_budget(&scene->ledger), BUDGET);
    ledger_row_release(&scene->ledger, &claim);
}

static int settler_body(struct scene *scene, void *limit)
{
    struct slot_terms terms = {.has_limit = true, .limit_bytes = *(uint64_t *)limit};
    struct ledger_claim claim;
    REQUIRE(scene_claim(&scene->ledger, "shared", &claim) == 0);
    int result = ledger_slot_settle(&scene->ledger, claim.slot, &terms, &scene->fault);
    board_arrive(&scene->board->arrived);
    board_await(&scene->board->go, 1);
    return result == 0 ? 0 : 2;
}

/* A newcomer that dies before it has settled holds no terms, and nobody up. */
static void settler_killed(void **state)
{
    struct scene *scene = *state;
    uint64_t first = 2 * GIB, second = 3 * GIB;
    int status = scene_wait(scene_fork(scene, "terms.judged:kill", settler_body, &first));
    assert_true(WIFSIGNALED(status));
    pid_t pid = scene_fork(scene, NULL, settler_body, &second);
    board_await(&scene->board->arrived, 1);
    int slot = ledger_slot_find(&scene->ledger, "shared");
    assert_int_equal(layout_limit(&scene->ledger, (unsigned)slot), second);
    board_arrive(&scene->board->go);
    scene_join(pid);
}

#define SCENE(test) cmocka_unit_test_setup_teardown(test, scene_setup, scene_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        SCENE(raiser_stopped_and_killed),
        SCENE(raiser_late),
        SCENE(budget_changer_stopped),
        SCENE(settler_killed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
