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
#include <stdio.h>
#include <string.h>
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

static int zeroer_body(struct scene *scene, void *unused)
{
    struct slot_terms terms = {.has_limit = true, .limit_bytes = GIB, .has_reserve = true};
    (void)unused;
    (void)ledger_slot_change(&scene->ledger, (unsigned)ledger_slot_claim(&scene->ledger, "zeroed"), &terms,
                             &scene->fault);
    return 0;
}

/* One who dies between a term and the note that it was set: the limit shows it by its value, and the reserve of nothing, which he
 * told nobody of, is free to take. */
static void setter_killed(void **state)
{
    struct scene *scene = *state;
    struct slot_terms now,
        wish = {.has_reserve = true, .reserve_bytes = GIB, .has_limit = true, .limit_bytes = 2 * GIB};
    int status = scene_wait(scene_fork(scene, "terms.valued:kill", zeroer_body, NULL));
    assert_true(WIFSIGNALED(status));
    int slot = ledger_slot_find(&scene->ledger, "zeroed");
    assert_true(slot >= 0);
    ledger_slot_terms(&scene->ledger, (unsigned)slot, &now);
    assert_true(now.has_limit && !now.has_reserve && !now.has_priority);
    assert_int_equal(ledger_slot_fill(&scene->ledger, (unsigned)slot, &wish, &scene->fault), 0);
    ledger_slot_terms(&scene->ledger, (unsigned)slot, &now);
    assert_int_equal(now.limit_bytes, GIB);
    assert_int_equal(now.reserve_bytes, GIB);
}

/* --- a plan, and what is in its way only after it was tried ------------------------------------------------------------------ */

enum { PLAN_REFUSED = 5 };

/* "low" gives up one of its 2 GiB of reserve, "raised" is to have 2. */
static int planner_body(struct scene *scene, void *unused)
{
    static const struct ledger_plan plan = {
        .slot_count = 3,
        .slots = {{.name = "low",
                   .terms = {.has_reserve = true, .reserve_bytes = GIB, .has_limit = true, .limit_bytes = 4 * GIB}},
                  {.name = "raised", .terms = {.has_reserve = true, .reserve_bytes = 2 * GIB}},
                  {.name = "others", .terms = {.has_priority = true, .priority = 7}}}};
    (void)unused;
    int result = ledger_plan_apply(&scene->ledger, &plan, true, BUDGET + GIB / 2, &scene->fault);
    if (result == -ERANGE &&
        strstr(scene->fault.text, "slot 'low' has a reserve of 1 GiB and not 2 GiB any more") != NULL)
        return PLAN_REFUSED + 1;
    return result == -ERANGE ? PLAN_REFUSED : result;
}

static void plan_prepare(struct scene *scene, struct ledger_claim *others, uint64_t held)
{
    struct slot_terms two = {.has_reserve = true, .reserve_bytes = 2 * GIB};
    assert_int_equal(scene_claim(&scene->ledger, "others", others), 0);
    assert_int_equal(
        ledger_slot_change(&scene->ledger, (unsigned)ledger_slot_claim(&scene->ledger, "low"), &two, &scene->fault), 0);
    assert_int_equal(charge_try(&scene->ledger, others, 0, held, 1), LEDGER_FITS);
}

/* Nothing of the plan is left but the slot that it added; `low` is what the slot of that name has of reserve. */
static void plan_left_nothing(struct scene *scene, uint64_t low)
{
    struct slot_terms now;
    assert_int_equal(ledger_budget(&scene->ledger), BUDGET);
    assert_int_equal(layout_budget(&scene->ledger, 0), BUDGET);
    ledger_slot_terms(&scene->ledger, (unsigned)ledger_slot_find(&scene->ledger, "low"), &now);
    assert_true(!now.has_limit && now.has_reserve && now.reserve_bytes == low);
    ledger_slot_terms(&scene->ledger, (unsigned)ledger_slot_find(&scene->ledger, "raised"), &now);
    assert_true(!now.has_reserve && now.reserve_bytes == 0);
    ledger_slot_terms(&scene->ledger, (unsigned)ledger_slot_find(&scene->ledger, "others"), &now);
    assert_true(!now.has_priority && now.priority == 50);
}

static int planner_go_on(pid_t pid)
{
    assert_int_equal(kill(pid, SIGCONT), 0);
    int status = scene_wait(pid);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void plan_taken_back(void **state)
{
    struct scene *scene = *state;
    struct ledger_claim others;
    plan_prepare(scene, &others, 5 * GIB);
    pid_t pid = scene_fork(scene, "plan.tried:stop", planner_body, NULL);
    assert_true(scene_stopped(pid));
    assert_int_equal(charge_try(&scene->ledger, &others, 0, GIB, 1), LEDGER_FITS);
    assert_int_equal(planner_go_on(pid), PLAN_REFUSED);
    plan_left_nothing(scene, 2 * GIB);
    ledger_row_release(&scene->ledger, &others);
}

static void plan_taken_back_but_for_what_others_took(void **state)
{
    struct scene *scene = *state;
    struct ledger_claim others;
    plan_prepare(scene, &others, 5 * GIB);
    pid_t pid = scene_fork(scene, "reserve.published:stop@2", planner_body, NULL); /* the first is of the copy */
    assert_true(scene_stopped(pid));
    ledger_commit_unasked(&scene->ledger, others.row, 0, 2 * GIB);
    assert_int_equal(planner_go_on(pid), PLAN_REFUSED + 1);
    plan_left_nothing(scene, GIB);
    ledger_row_release(&scene->ledger, &others);
}

/* Stopped after each budget that it stores: the device has its own at every moment. */
static int device_planner_body(struct scene *scene, void *general)
{
    struct ledger_plan plan = {.device_count = 1, .devices = {{.budget_bytes = 4 * GIB}}};
    ledger_device_uuid(&scene->ledger, scene->device, plan.devices[0].uuid);
    return ledger_plan_apply(&scene->ledger, &plan, true, *(uint64_t *)general, &scene->fault);
}

static void device_budget_stands(void **state)
{
    struct scene *scene = *state;
    char point[32];
    uint64_t general = 6 * GIB;
    unsigned stops = 0;
    scene_join(scene_fork(scene, NULL, device_planner_body, &general));
    for (unsigned nth = 1;; nth++) {
        general = (5 + nth % 4) * GIB; /* rises and falls */
        snprintf(point, sizeof point, "budget.stored:stop@%u", nth);
        pid_t pid = scene_fork(scene, point, device_planner_body, &general);
        if (!scene_stopped(pid))
            break;
        stops++;
        assert_int_equal(layout_budget(&scene->ledger, 0), 4 * GIB);
        assert_int_equal(planner_go_on(pid), 0);
    }
    assert_true(stops >= 2); /* the copy's and the ledger's own */
}

#define SCENE(test) cmocka_unit_test_setup_teardown(test, scene_setup, scene_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        SCENE(raiser_stopped_and_killed),
        SCENE(raiser_late),
        SCENE(budget_changer_stopped),
        SCENE(settler_killed),
        SCENE(setter_killed),
        SCENE(plan_taken_back),
        SCENE(plan_taken_back_but_for_what_others_took),
        SCENE(device_budget_stands),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
