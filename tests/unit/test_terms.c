/* Terms that change under way: reserves are promised only where nobody holds the bytes, limits and budgets fall below what is
 * used, and of two who want different ones at once one wins. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "ledger/layout.h"
#include "unit/scene.h"

#define BUDGET (8 * GIB)

/* Two slots with a row each, both of this process. */
struct pair {
    struct scene scene;
    struct ledger *ledger;
    struct ledger_claim a, b;
};

static int pair_setup(void **state)
{
    struct pair *pair = calloc(1, sizeof *pair);
    scene_open(&pair->scene, BUDGET);
    pair->ledger = &pair->scene.ledger;
    assert_int_equal(scene_claim(pair->ledger, "a", &pair->a), 0);
    assert_int_equal(scene_claim(pair->ledger, "b", &pair->b), 0);
    *state = pair;
    return 0;
}

static int pair_teardown(void **state)
{
    struct pair *pair = *state;
    ledger_row_release(pair->ledger, &pair->a);
    ledger_row_release(pair->ledger, &pair->b);
    scene_close(&pair->scene);
    free(pair);
    return 0;
}

static enum ledger_verdict charge(struct pair *pair, const struct ledger_claim *claim, uint64_t bytes)
{
    enum ledger_verdict verdict = charge_try(pair->ledger, claim, 0, bytes, 1);
    if (verdict == LEDGER_FITS)
        ledger_landed(pair->ledger, claim->row, 0, bytes);
    return verdict;
}

static int reserve_ask(struct pair *pair, const struct ledger_claim *claim, uint64_t bytes)
{
    struct slot_terms terms = {.has_reserve = true, .reserve_bytes = bytes};
    return ledger_slot_change(pair->ledger, claim->slot, &terms, &pair->scene.fault);
}

static int limit_ask(struct pair *pair, const struct ledger_claim *claim, uint64_t bytes)
{
    struct slot_terms terms = {.has_limit = true, .limit_bytes = bytes};
    return ledger_slot_change(pair->ledger, claim->slot, &terms, &pair->scene.fault);
}

static uint64_t reserve_of(struct pair *pair, const struct ledger_claim *claim)
{
    return atomic_load(&layout_slot(pair->ledger, claim->slot)->reserve_bytes);
}

static void require_says(const struct pair *pair, const char *part)
{
    if (strstr(pair->scene.fault.text, part) == NULL)
        fail_msg("'%s' does not say '%s'", pair->scene.fault.text, part);
}

/* --- reserves ---------------------------------------------------------------------------------------------------------- */

static void no_promise_of_what_others_hold(void **state)
{
    struct pair *pair = *state;
    assert_int_equal(charge(pair, &pair->a, 7 * GIB), LEDGER_FITS);
    assert_int_equal(reserve_ask(pair, &pair->b, GIB + 1), -ERANGE);
    require_says(pair, "others hold 7 GiB");
    assert_int_equal(reserve_of(pair, &pair->b), 0);
    assert_int_equal(reserve_ask(pair, &pair->b, GIB), 0); /* exactly what is left */
    assert_int_equal(charge(pair, &pair->a, 1), LEDGER_OVER_BUDGET);
    assert_int_equal(charge(pair, &pair->b, GIB), LEDGER_FITS);
    ledger_credit(pair->ledger, pair->a.row, 0, GIB);
    assert_int_equal(reserve_ask(pair, &pair->b, 2 * GIB), 0);
    assert_int_equal(charge(pair, &pair->a, 1), LEDGER_OVER_BUDGET);
}

static void own_bytes_need_no_room(void **state)
{
    struct pair *pair = *state;
    assert_int_equal(charge(pair, &pair->a, 6 * GIB), LEDGER_FITS);
    assert_int_equal(charge(pair, &pair->b, 2 * GIB), LEDGER_FITS);
    assert_int_equal(reserve_ask(pair, &pair->b, 2 * GIB), 0);
    assert_int_equal(reserve_ask(pair, &pair->a, 6 * GIB), 0);
    assert_int_equal(reserve_ask(pair, &pair->a, 6 * GIB + 1), -ERANGE);
    require_says(pair, "too much beside the other slots' reserves of 2 GiB under a budget of 8 GiB");
}

static void other_reserves_are_in_the_way(void **state)
{
    struct pair *pair = *state;
    assert_int_equal(reserve_ask(pair, &pair->a, 3 * GIB), 0);
    assert_int_equal(charge(pair, &pair->a, GIB), LEDGER_FITS);
    assert_int_equal(charge(pair, &pair->b, 4 * GIB), LEDGER_FITS);
    assert_int_equal(reserve_ask(pair, &pair->b, 5 * GIB), 0);
    assert_int_equal(reserve_ask(pair, &pair->a, 4 * GIB), -ERANGE);
    assert_int_equal(reserve_of(pair, &pair->a), 3 * GIB);
}

/* A bid that stands still counts as taken; one that goes does not. */
static void bids_are_counted(void **state)
{
    struct pair *pair = *state;
    struct ledger_cell *cell = layout_cell(pair->ledger, 0, pair->a.row);
    atomic_store(&cell->bid_bytes, 7 * GIB);
    assert_int_equal(reserve_ask(pair, &pair->b, 2 * GIB), -EAGAIN);
    require_says(pair, "others are asking");
    assert_int_equal(reserve_of(pair, &pair->b), 0);
    atomic_store(&cell->bid_bytes, 0);
    assert_int_equal(reserve_ask(pair, &pair->b, 2 * GIB), 0);
}

static void given_up_by_zero(void **state)
{
    struct pair *pair = *state;
    assert_int_equal(reserve_ask(pair, &pair->b, 8 * GIB), 0);
    assert_int_equal(charge(pair, &pair->a, 1), LEDGER_OVER_BUDGET);
    assert_int_equal(reserve_ask(pair, &pair->b, 0), 0);
    assert_int_equal(charge(pair, &pair->a, 8 * GIB), LEDGER_FITS);
}

/* --- limits and budgets ------------------------------------------------------------------------------------------------ */

static void limit_below_use(void **state)
{
    struct pair *pair = *state;
    const struct ledger_slot *slot = layout_slot(pair->ledger, pair->a.slot);
    assert_int_equal(limit_ask(pair, &pair->a, 4 * GIB), 0);
    assert_int_equal(atomic_load(&slot->limit_before), 0);
    assert_int_equal(charge(pair, &pair->a, 3 * GIB), LEDGER_FITS);
    assert_int_equal(limit_ask(pair, &pair->a, 2 * GIB), 0);
    assert_int_equal(atomic_load(&slot->limit_before), 4 * GIB);
    assert_int_equal(ledger_committed(pair->ledger, pair->a.row, 0), 3 * GIB); /* nothing is taken away */
    assert_int_equal(charge(pair, &pair->a, 1), LEDGER_OVER_LIMIT);
    ledger_credit(pair->ledger, pair->a.row, 0, 2 * GIB);
    assert_int_equal(charge(pair, &pair->a, GIB), LEDGER_FITS);
    assert_int_equal(charge(pair, &pair->a, 1), LEDGER_OVER_LIMIT);
    assert_int_equal(limit_ask(pair, &pair->a, LEDGER_NO_LIMIT), 0);
    assert_int_equal(charge(pair, &pair->a, 6 * GIB), LEDGER_FITS);
}

static void budget_below_use(void **state)
{
    struct pair *pair = *state;
    struct ledger_fault *fault = &pair->scene.fault;
    assert_int_equal(charge(pair, &pair->a, 6 * GIB), LEDGER_FITS);
    assert_int_equal(ledger_budget_change(pair->ledger, LEDGER_DEVICES, 4 * GIB, fault), 0);
    assert_int_equal(ledger_budget(pair->ledger), 4 * GIB);
    assert_int_equal(atomic_load(&layout_device(pair->ledger, 0)->budget_before), BUDGET);
    assert_int_equal(charge(pair, &pair->b, 1), LEDGER_OVER_BUDGET);
    ledger_credit(pair->ledger, pair->a.row, 0, 3 * GIB);
    assert_int_equal(charge(pair, &pair->b, GIB), LEDGER_FITS);
    assert_int_equal(charge(pair, &pair->b, 1), LEDGER_OVER_BUDGET);
    assert_int_equal(ledger_budget_change(pair->ledger, 0, 5 * GIB, fault), 0); /* one device */
    assert_int_equal(ledger_budget(pair->ledger), 4 * GIB);
    assert_int_equal(charge(pair, &pair->b, GIB), LEDGER_FITS);
    assert_int_equal(ledger_budget_change(pair->ledger, 1, 5 * GIB, fault), -EINVAL);
}

static void budget_out_of_range(void **state)
{
    struct pair *pair = *state;
    struct ledger_fault *fault = &pair->scene.fault;
    assert_int_equal(reserve_ask(pair, &pair->a, 2 * GIB), 0);
    assert_int_equal(reserve_ask(pair, &pair->b, 2 * GIB), 0);
    assert_int_equal(ledger_budget_change(pair->ledger, LEDGER_DEVICES, 4 * GIB - 1, fault), -ERANGE);
    require_says(pair, "4294967295 B is below the slots' reserves of 4294967296 B");
    assert_int_equal(limit_ask(pair, &pair->a, 6 * GIB), 0);
    assert_int_equal(ledger_budget_change(pair->ledger, LEDGER_DEVICES, 5 * GIB, fault), -ERANGE);
    require_says(pair, "below the limit of slot 'a', 6 GiB");
    assert_int_equal(ledger_budget_change(pair->ledger, LEDGER_DEVICES, 20 * GIB, fault), -ERANGE);
    require_says(pair, "20 GiB does not fit device 0");
    assert_int_equal(ledger_budget(pair->ledger), BUDGET);
    assert_int_equal(layout_budget(pair->ledger, 0), BUDGET);
    assert_int_equal(ledger_budget_change(pair->ledger, LEDGER_DEVICES, 6 * GIB, fault), 0);
}

static void refused_terms_leave_nothing(void **state)
{
    struct pair *pair = *state;
    struct slot_terms both = {.has_limit = true, .limit_bytes = 3 * GIB, .has_reserve = true, .reserve_bytes = 2 * GIB};
    assert_int_equal(charge(pair, &pair->b, 7 * GIB), LEDGER_FITS);
    assert_int_equal(ledger_slot_change(pair->ledger, pair->a.slot, &both, &pair->scene.fault), -ERANGE);
    assert_int_equal(layout_limit(pair->ledger, pair->a.slot), LEDGER_NO_LIMIT);
    assert_int_equal(reserve_of(pair, &pair->a), 0);
    ledger_credit(pair->ledger, pair->b.row, 0, GIB);
    assert_int_equal(ledger_slot_change(pair->ledger, pair->a.slot, &both, &pair->scene.fault), 0);
    assert_int_equal(limit_ask(pair, &pair->a, GIB), -ERANGE); /* below the reserve */
    require_says(pair, "a reserve of 2 GiB is above the slot's limit of 1 GiB");
}

/* --- whether they were set ------------------------------------------------------------------------------------------------ */

static const struct slot_terms wishes = {.has_limit = true,
                                         .limit_bytes = 4 * GIB,
                                         .has_reserve = true,
                                         .reserve_bytes = 2 * GIB,
                                         .has_priority = true,
                                         .priority = 80};

static struct slot_terms terms_of(struct pair *pair, const struct ledger_claim *claim)
{
    struct slot_terms terms;
    ledger_slot_terms(pair->ledger, claim->slot, &terms);
    return terms;
}

/* What somebody set to none, nothing or the default was set, and is not filled in. */
static void defaults_that_were_set_stay(void **state)
{
    struct pair *pair = *state;
    const struct slot_terms defaults = {
        .has_limit = true, .limit_bytes = LEDGER_NO_LIMIT, .has_reserve = true, .has_priority = true, .priority = 50};
    struct slot_terms now = terms_of(pair, &pair->a);
    assert_false(now.has_limit || now.has_reserve || now.has_priority);
    assert_int_equal(ledger_slot_change(pair->ledger, pair->a.slot, &defaults, &pair->scene.fault), 0);
    now = terms_of(pair, &pair->a);
    assert_true(now.has_limit && now.has_reserve && now.has_priority);
    assert_int_equal(ledger_slot_fill(pair->ledger, pair->a.slot, &wishes, &pair->scene.fault), 0);
    now = terms_of(pair, &pair->a);
    assert_true(now.limit_bytes == LEDGER_NO_LIMIT);
    assert_int_equal(now.reserve_bytes, 0);
    assert_int_equal(now.priority, 50);
}

static void terms_are_filled_in_one_by_one(void **state)
{
    struct pair *pair = *state;
    assert_int_equal(reserve_ask(pair, &pair->a, 0), 0);
    assert_int_equal(ledger_slot_fill(pair->ledger, pair->a.slot, &wishes, &pair->scene.fault), 0);
    struct slot_terms now = terms_of(pair, &pair->a);
    assert_int_equal(now.limit_bytes, 4 * GIB);
    assert_int_equal(now.reserve_bytes, 0);
    assert_int_equal(now.priority, 80);
    assert_int_equal(charge(pair, &pair->b, 7 * GIB), LEDGER_FITS);
    assert_int_equal(ledger_slot_fill(pair->ledger, pair->b.slot, &wishes, &pair->scene.fault), 0);
    assert_int_equal(ledger_slot_fill(pair->ledger, LEDGER_SLOTS, &wishes, &pair->scene.fault), -EINVAL);
}

/* A refused term was not set. */
static void refused_terms_are_not_set(void **state)
{
    struct pair *pair = *state;
    assert_int_equal(charge(pair, &pair->b, 7 * GIB), LEDGER_FITS);
    assert_int_equal(ledger_slot_fill(pair->ledger, pair->a.slot, &wishes, &pair->scene.fault), -ERANGE);
    struct slot_terms now = terms_of(pair, &pair->a);
    assert_false(now.has_limit || now.has_reserve || now.has_priority);
}

/* A ledger that a plan made knows what the plan said, to the default too. */
static void planned_terms_were_set(void **state)
{
    struct scene scene;
    static const struct ledger_plan plan = {
        .slot_count = 1,
        .slots = {{.name = "a", .terms = {.has_reserve = true, .has_priority = true, .priority = 50}}}};
    struct slot_terms now;
    (void)state;
    scene_open(&scene, 0);
    struct ledger_request request = {
        .directory = scene.directory, .name = "default", .create = true, .budget_bytes = BUDGET, .plan = &plan};
    assert_int_equal(ledger_open(&scene.ledger, &request, &scene.fault), 0);
    ledger_slot_terms(&scene.ledger, 0, &now);
    assert_true(!now.has_limit && now.has_reserve && now.has_priority);
    scene_close(&scene);
}

/* --- plans ---------------------------------------------------------------------------------------------------------------- */

static void plan_moves_a_reserve(void **state)
{
    struct pair *pair = *state;
    static struct ledger_plan plan;
    assert_int_equal(reserve_ask(pair, &pair->b, 6 * GIB), 0);
    plan = (struct ledger_plan){.slot_count = 2,
                                .slots = {{.name = "a", .terms = {.has_reserve = true, .reserve_bytes = 4 * GIB}},
                                          {.name = "b", .terms = {.has_reserve = true, .reserve_bytes = GIB}}}};
    assert_int_equal(ledger_plan_apply(pair->ledger, &plan, true, 5 * GIB, &pair->scene.fault), 0);
    assert_int_equal(reserve_of(pair, &pair->a), 4 * GIB);
    assert_int_equal(reserve_of(pair, &pair->b), GIB);
    assert_int_equal(ledger_budget(pair->ledger), 5 * GIB);
}

/* Neither what the budget would have been, nor the slots, nor their terms: as if nobody had asked. */
static void plan_is_all_or_nothing(void **state)
{
    struct pair *pair = *state;
    static struct ledger_plan plan = {
        .slot_count = 3,
        .slots = {{.name = "new", .terms = {.has_priority = true, .priority = 80}},
                  {.name = "a", .terms = {.has_limit = true, .limit_bytes = 2 * GIB}},
                  {.name = "b", .terms = {.has_reserve = true, .reserve_bytes = 4 * GIB}}}};
    struct slot_terms now;
    assert_int_equal(charge(pair, &pair->a, 7 * GIB), LEDGER_FITS);
    assert_int_equal(ledger_plan_apply(pair->ledger, &plan, true, 9 * GIB, &pair->scene.fault), -ERANGE);
    require_says(pair, "slot 'b': a reserve of 4 GiB cannot be kept now: of the budget of 9 GiB");
    assert_int_equal(ledger_budget(pair->ledger), BUDGET);
    assert_int_equal(layout_budget(pair->ledger, 0), BUDGET);
    assert_int_equal(ledger_slot_find(pair->ledger, "new"), -ENOENT);
    now = terms_of(pair, &pair->a);
    assert_false(now.has_limit);
    plan.slots[2].terms.reserve_bytes = 2 * GIB;
    assert_int_equal(ledger_plan_apply(pair->ledger, &plan, true, 9 * GIB, &pair->scene.fault), 0);
    assert_int_equal(reserve_of(pair, &pair->b), 2 * GIB);
    assert_int_equal(layout_budget(pair->ledger, 0), 9 * GIB);
    assert_int_equal(ledger_slot_find(pair->ledger, "new"), 2);
}

/* A plan with one slot too many uses up none. */
static void plan_with_too_many_slots(void **state)
{
    struct pair *pair = *state;
    static struct ledger_plan plan = {.slot_count = LEDGER_SLOTS - 1};
    for (unsigned i = 0; i < plan.slot_count; i++)
        snprintf(plan.slots[i].name, sizeof plan.slots[i].name, "one-%u", i);
    assert_int_equal(ledger_plan_apply(pair->ledger, &plan, false, 0, &pair->scene.fault), -ENOSPC);
    assert_int_equal(layout_slots_high(pair->ledger), 2);
}

/* A device that was planned is held against the card by who meets it first. */
static void planned_device(void **state)
{
    struct pair *pair = *state;
    struct scene scene;
    static const struct ledger_plan plan = {.device_count = 1,
                                            .devices = {{.uuid = "planned", .budget_bytes = 3 * GIB}}};
    uint64_t shrunk_to;
    (void)pair;
    scene_open(&scene, 0);
    struct ledger_request request = {
        .directory = scene.directory, .name = "default", .create = true, .budget_bytes = BUDGET, .plan = &plan};
    assert_int_equal(ledger_open(&scene.ledger, &request, &scene.fault), 0);
    int device = ledger_device_claim(&scene.ledger, plan.devices[0].uuid, "a card");
    assert_int_equal(device, 0);
    assert_false(ledger_device_is_settled(&scene.ledger, 0));
    assert_int_equal(ledger_device_settle(&scene.ledger, 0, 2 * GIB, 0, &shrunk_to, &scene.fault), -ERANGE);
    assert_int_equal(ledger_device_settle(&scene.ledger, 0, 24 * GIB, GIB, &shrunk_to, &scene.fault), 0);
    assert_true(ledger_device_is_settled(&scene.ledger, 0));
    assert_int_equal(layout_budget(&scene.ledger, 0), 3 * GIB);
    assert_string_equal(layout_device(&scene.ledger, 0)->name, "a card");
    scene_close(&scene);
}

/* --- at once --------------------------------------------------------------------------------------------------------------- */

enum { ROUNDS = 60, HOGS = 8 };

/* Each round in a slot that has terms already and nobody lives in. */
static int newcomers_race(struct scene *scene, void *context)
{
    unsigned mine = *(unsigned *)context;
    struct slot_terms old = {.has_limit = true, .limit_bytes = 9 * MIB};
    for (uint32_t round = 1; round <= ROUNDS; round++) {
        struct slot_terms terms = {.has_limit = true, .limit_bytes = (1 + mine) * MIB};
        struct ledger_claim claim;
        char name[LEDGER_NAME_BYTES];
        snprintf(name, sizeof name, "slot %u", round);
        if (mine == 0)
            REQUIRE(ledger_slot_change(&scene->ledger, (unsigned)ledger_slot_claim(&scene->ledger, name), &old,
                                       &scene->fault) == 0);
        board_meet(&scene->board->arrived, 2, round);
        REQUIRE(scene_claim(&scene->ledger, name, &claim) == 0);
        board_meet(&scene->board->failed, 2, round); /* both live there, and neither has settled */
        int result = ledger_slot_settle(&scene->ledger, claim.slot, &terms, &scene->fault);
        REQUIRE(result == 0 || result == -EEXIST);
        REQUIRE(result != 0 || layout_limit(&scene->ledger, claim.slot) == terms.limit_bytes);
        atomic_fetch_add(&scene->board->figures[0], result == 0);
        board_meet(&scene->board->done, 2, round);
        REQUIRE(atomic_load(&scene->board->figures[0]) == round); /* exactly one, each round */
        board_meet(&scene->board->go, 2, round);
        ledger_row_release(&scene->ledger, &claim);
    }
    return 0;
}

/* One takes 6 GiB, the other reserves 3: of 8 GiB one of the two is had, never both, and never none. */
static int promise_race(struct scene *scene, void *context)
{
    unsigned mine = *(unsigned *)context;
    struct ledger_claim claim;
    struct slot_terms some = {.has_reserve = true, .reserve_bytes = 3 * GIB}, none = {.has_reserve = true};
    REQUIRE(scene_claim(&scene->ledger, mine == 0 ? "taker" : "keeper", &claim) == 0);
    for (uint32_t round = 1; round <= ROUNDS; round++) {
        bool got;
        board_meet(&scene->board->arrived, 2, round);
        if (mine == 0)
            got = charge_try(&scene->ledger, &claim, 0, 6 * GIB, 1000) == LEDGER_FITS;
        else
            got = ledger_slot_change(&scene->ledger, claim.slot, &some, &scene->fault) == 0;
        atomic_fetch_add(&scene->board->figures[0], got);
        board_meet(&scene->board->done, 2, round);
        REQUIRE(atomic_load(&scene->board->figures[0]) == round);
        if (got && mine == 0) {
            ledger_landed(&scene->ledger, claim.row, 0, 6 * GIB);
            ledger_credit(&scene->ledger, claim.row, 0, 6 * GIB);
        } else if (got) {
            REQUIRE(ledger_slot_change(&scene->ledger, claim.slot, &none, &scene->fault) == 0);
        }
        board_meet(&scene->board->go, 2, round);
    }
    return 0;
}

enum { PLANS = 100 };
#define DEVICE_BUDGET (4 * GIB)

/* One brings the ledger to its file again and again, the other takes all it can get: never more than the device's own budget, though
 * that of the other devices is larger and changes. */
static int plan_race(struct scene *scene, void *context)
{
    unsigned mine = *(unsigned *)context;
    static struct ledger_plan plan = {.device_count = 1, .devices = {{.budget_bytes = DEVICE_BUDGET}}};
    struct ledger_claim claim;
    struct held held;
    ledger_device_uuid(&scene->ledger, scene->device, plan.devices[0].uuid);
    if (mine == 0)
        REQUIRE(ledger_plan_apply(&scene->ledger, &plan, true, 6 * GIB, &scene->fault) == 0);
    else
        REQUIRE(scene_claim(&scene->ledger, "hog", &claim) == 0);
    board_meet(&scene->board->arrived, 2, 1);
    for (unsigned i = 0; mine == 0 && i < PLANS; i++)
        REQUIRE(ledger_plan_apply(&scene->ledger, &plan, true, (6 + i % 2) * GIB, &scene->fault) == 0);
    if (mine == 0) {
        atomic_store(&scene->board->figures[0], 1);
        return 0;
    }
    do {
        while (charge_try(&scene->ledger, &claim, scene->device, GIB / 4, 1000) == LEDGER_FITS)
            ledger_landed(&scene->ledger, claim.row, scene->device, GIB / 4);
        held_read(&scene->ledger, scene->device, &held);
        REQUIRE(held.committed == DEVICE_BUDGET);
        ledger_credit(&scene->ledger, claim.row, scene->device, held.committed);
    } while (atomic_load(&scene->board->figures[0]) == 0);
    return 0;
}

static void race_run(struct scene *scene, scene_body *body, unsigned count)
{
    unsigned numbers[HOGS];
    pid_t pids[HOGS];
    for (unsigned i = 0; i < count; i++) {
        numbers[i] = i;
        pids[i] = scene_fork(scene, NULL, body, &numbers[i]);
    }
    for (unsigned i = 0; i < count; i++)
        scene_join(pids[i]);
}

static void newcomers_at_once(void **state)
{
    race_run(*state, newcomers_race, 2);
}

static void plan_and_charge_at_once(void **state)
{
    race_run(*state, plan_race, 2);
}

static void promise_and_charge_at_once(void **state)
{
    race_run(*state, promise_race, 2);
}

/* Takes blocks of 64 MiB until there are none. */
static int hog(struct scene *scene, void *context)
{
    struct ledger_claim claim;
    char name[LEDGER_NAME_BYTES];
    enum ledger_verdict verdict;
    snprintf(name, sizeof name, "hog %u", *(unsigned *)context);
    REQUIRE(scene_claim(&scene->ledger, name, &claim) == 0);
    board_meet(&scene->board->arrived, HOGS, 1);
    while ((verdict = charge_try(&scene->ledger, &claim, 0, 64 * MIB, 100000)) == LEDGER_FITS) {
        ledger_landed(&scene->ledger, claim.row, 0, 64 * MIB);
        atomic_fetch_add(&scene->board->figures[0], 64 * MIB);
    }
    REQUIRE(verdict == LEDGER_OVER_BUDGET);
    board_meet(&scene->board->done, HOGS + 1, 1);
    board_await(&scene->board->go, 1); /* alive, and holding it, while the one with the reserve asks */
    return 0;
}

/* What a slot has reserved and does not use, eight others cannot have, and it has it at once. */
static void reserve_under_contention(void **state)
{
    struct scene *scene = *state;
    struct slot_terms terms = {.has_reserve = true, .reserve_bytes = 2 * GIB};
    struct ledger_claim claim;
    unsigned numbers[HOGS];
    pid_t pids[HOGS];
    assert_int_equal(scene_claim(&scene->ledger, "reserved", &claim), 0);
    assert_int_equal(ledger_slot_settle(&scene->ledger, claim.slot, &terms, &scene->fault), 0);
    for (unsigned i = 0; i < HOGS; i++) {
        numbers[i] = i;
        pids[i] = scene_fork(scene, NULL, hog, &numbers[i]);
    }
    board_meet(&scene->board->done, HOGS + 1, 1);
    assert_int_equal(atomic_load(&scene->board->figures[0]), 6 * GIB);
    assert_int_equal(charge_try(&scene->ledger, &claim, 0, 2 * GIB, 1), LEDGER_FITS);
    board_arrive(&scene->board->go);
    for (unsigned i = 0; i < HOGS; i++)
        scene_join(pids[i]);
    ledger_row_release(&scene->ledger, &claim);
}

#define PAIR(test)  cmocka_unit_test_setup_teardown(test, pair_setup, pair_teardown)
#define SCENE(test) cmocka_unit_test_setup_teardown(test, scene_setup, scene_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        PAIR(no_promise_of_what_others_hold),
        PAIR(own_bytes_need_no_room),
        PAIR(other_reserves_are_in_the_way),
        PAIR(bids_are_counted),
        PAIR(given_up_by_zero),
        PAIR(limit_below_use),
        PAIR(budget_below_use),
        PAIR(budget_out_of_range),
        PAIR(refused_terms_leave_nothing),
        PAIR(defaults_that_were_set_stay),
        PAIR(terms_are_filled_in_one_by_one),
        PAIR(refused_terms_are_not_set),
        cmocka_unit_test(planned_terms_were_set),
        PAIR(plan_moves_a_reserve),
        PAIR(plan_is_all_or_nothing),
        PAIR(plan_with_too_many_slots),
        PAIR(planned_device),
        SCENE(newcomers_at_once),
        SCENE(promise_and_charge_at_once),
        SCENE(plan_and_charge_at_once),
        SCENE(reserve_under_contention),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
