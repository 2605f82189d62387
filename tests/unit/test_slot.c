/* Slots: one of each name, 64 of them, and the terms their first user sets. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <cmocka.h>

#include "ledger/layout.h"
#include "unit/scene.h"

static void same_name_same_slot(void **state)
{
    struct scene *scene = *state;
    struct ledger *ledger = &scene->ledger;
    int a = ledger_slot_claim(ledger, "a"), b = ledger_slot_claim(ledger, "b");
    assert_true(a >= 0 && b >= 0 && a != b);
    assert_int_equal(ledger_slot_claim(ledger, "a"), a);
    assert_int_equal(ledger_slot_claim(ledger, "b"), b);
    assert_string_equal(layout_slot(ledger, (unsigned)a)->name, "a");
    assert_int_equal(atomic_load(&layout_slot(ledger, (unsigned)a)->priority), 50);
}

static void all_slots(void **state)
{
    struct scene *scene = *state;
    char name[LEDGER_NAME_BYTES];
    for (int i = 0; i < LEDGER_SLOTS; i++) {
        snprintf(name, sizeof name, "slot %d", i);
        assert_int_equal(ledger_slot_claim(&scene->ledger, name), i);
    }
    assert_int_equal(ledger_slot_claim(&scene->ledger, "one more"), -ENOSPC);
    assert_int_equal(ledger_slot_claim(&scene->ledger, "slot 63"), 63);
    assert_int_equal(ledger_slot_claim(&scene->ledger, "slot 0"), 0);
}

/* A claimer that died after the claim left no name: whoever knows it writes it. */
static void name_is_completed(void **state)
{
    struct scene *scene = *state;
    int slot = ledger_slot_claim(&scene->ledger, "a name");
    memset(layout_slot(&scene->ledger, (unsigned)slot)->name, 0, LEDGER_NAME_BYTES);
    atomic_store(&layout_header(&scene->ledger)->slots_high, 0);
    assert_int_equal(ledger_slot_claim(&scene->ledger, "a name"), slot);
    assert_string_equal(layout_slot(&scene->ledger, (unsigned)slot)->name, "a name");
    assert_int_equal(atomic_load(&layout_header(&scene->ledger)->slots_high), slot + 1);
}

enum { NAMES = LEDGER_SLOTS, CLAIMERS = 2 };

static int names_claim(struct scene *scene, void *context)
{
    char name[LEDGER_NAME_BYTES];
    unsigned mine = *(unsigned *)context;
    for (uint32_t i = 0; i < NAMES; i++) {
        snprintf(name, sizeof name, "name %u", i);
        board_meet(&scene->board->arrived, CLAIMERS, i + 1);
        int slot = ledger_slot_claim(&scene->ledger, name);
        REQUIRE(slot >= 0);
        REQUIRE(strcmp(layout_slot(&scene->ledger, (unsigned)slot)->name, name) == 0);
        uint64_t expected = mine == 0 ? (uint64_t)slot + 1 : 0;
        if (mine == 0)
            atomic_store(&scene->board->figures[i], expected);
        board_meet(&scene->board->done, CLAIMERS, i + 1);
        REQUIRE(atomic_load(&scene->board->figures[i]) == (uint64_t)slot + 1);
    }
    return 0;
}

/* Two processes that add the same name at the same moment get one slot: 64 names, and 64 slots hold them all. */
static void same_name_at_once(void **state)
{
    struct scene *scene = *state;
    unsigned numbers[CLAIMERS] = {0, 1};
    pid_t pids[CLAIMERS];
    for (unsigned i = 0; i < CLAIMERS; i++)
        pids[i] = scene_fork(scene, NULL, names_claim, &numbers[i]);
    for (unsigned i = 0; i < CLAIMERS; i++)
        scene_join(pids[i]);
}

/* --- terms --------------------------------------------------------------------------------------------------------- */

static int terms_ask(struct scene *scene, const char *slot, uint64_t limit, uint64_t reserve)
{
    struct slot_terms terms = {
        .has_limit = limit != 0, .limit_bytes = limit, .has_reserve = reserve != 0, .reserve_bytes = reserve};
    return ledger_slot_settle(&scene->ledger, (unsigned)ledger_slot_claim(&scene->ledger, slot), &terms, &scene->fault);
}

static void terms_are_taken(void **state)
{
    struct scene *scene = *state;
    struct slot_terms priority = {.has_priority = true, .priority = 101};
    assert_int_equal(terms_ask(scene, "a", 0, 0), 0);
    assert_int_equal(layout_limit(&scene->ledger, 0), LEDGER_NO_LIMIT);
    assert_int_equal(terms_ask(scene, "a", 4 * GIB, 2 * GIB), 0);
    assert_int_equal(layout_limit(&scene->ledger, 0), 4 * GIB);
    assert_int_equal(atomic_load(&layout_slot(&scene->ledger, 0)->reserve_bytes), 2 * GIB);
    assert_int_equal(ledger_slot_settle(&scene->ledger, 0, &priority, &scene->fault), 0);
    assert_int_equal(atomic_load(&layout_slot(&scene->ledger, 0)->priority), 101);
    assert_int_equal(terms_ask(scene, "a", 3 * GIB, GIB), 0); /* nobody else lives there */
    assert_int_equal(layout_limit(&scene->ledger, 0), 3 * GIB);
    assert_int_equal(ledger_slot_settle(&scene->ledger, LEDGER_SLOTS, &priority, &scene->fault), -EINVAL);
}

static void terms_out_of_range(void **state)
{
    struct scene *scene = *state;
    assert_int_equal(terms_ask(scene, "a", 9 * GIB, 0), -ERANGE);
    assert_non_null(strstr(scene->fault.text, "9 GiB"));
    assert_non_null(strstr(scene->fault.text, "8 GiB"));
    assert_int_equal(terms_ask(scene, "a", 0, 9 * GIB), -ERANGE);
    assert_int_equal(terms_ask(scene, "a", 2 * GIB, 3 * GIB), -ERANGE);
    assert_non_null(strstr(scene->fault.text, "3 GiB"));
    assert_non_null(strstr(scene->fault.text, "2 GiB"));
    assert_int_equal(layout_limit(&scene->ledger, 0), LEDGER_NO_LIMIT); /* what was refused left nothing */
    assert_int_equal(atomic_load(&layout_slot(&scene->ledger, 0)->reserve_bytes), 0);
    assert_int_equal(terms_ask(scene, "a", 8 * GIB, 8 * GIB), 0);
}

static void reserves_together(void **state)
{
    struct scene *scene = *state;
    assert_int_equal(terms_ask(scene, "a", 0, 5 * GIB), 0);
    assert_int_equal(terms_ask(scene, "b", 0, 3 * GIB + 1), -ERANGE);
    assert_int_equal(atomic_load(&layout_slot(&scene->ledger, 1)->reserve_bytes), 0);
    assert_int_equal(terms_ask(scene, "b", 0, 3 * GIB), 0);
    assert_int_equal(terms_ask(scene, "a", 0, 4 * GIB), 0); /* lowering is always granted, and frees */
    assert_int_equal(terms_ask(scene, "b", 0, 4 * GIB), 0);
}

struct lodger {
    uint64_t limit;
    _Atomic(uint32_t) *until;
};

/* Lives in slot "a" with a limit until told to go. */
static int slot_live_in(struct scene *scene, void *context)
{
    struct lodger *lodger = context;
    struct ledger_claim claim;
    REQUIRE(scene_claim(&scene->ledger, "a", &claim) == 0);
    REQUIRE(terms_ask(scene, "a", lodger->limit, 0) == 0);
    board_arrive(&scene->board->arrived);
    board_await(&scene->board->go, 1);
    return 0; /* without giving the row back: a death like any other */
}

static void terms_of_a_live_neighbour(void **state)
{
    struct scene *scene = *state;
    struct lodger lodger = {.limit = 2 * GIB};
    pid_t pid = scene_fork(scene, NULL, slot_live_in, &lodger);
    board_await(&scene->board->arrived, 1);
    assert_int_equal(terms_ask(scene, "a", 3 * GIB, 0), -EEXIST);
    assert_non_null(strstr(scene->fault.text, "2 GiB"));
    assert_non_null(strstr(scene->fault.text, "3 GiB"));
    assert_int_equal(terms_ask(scene, "a", 2 * GIB, 0), 0);
    assert_int_equal(terms_ask(scene, "a", 0, 0), 0);
    assert_int_equal(terms_ask(scene, "a", 0, GIB), 0); /* its reserve was never set: free to take */
    assert_int_equal(terms_ask(scene, "a", 0, 2 * GIB), -EEXIST);
    assert_int_equal(terms_ask(scene, "b", 3 * GIB, 0), 0);
    board_arrive(&scene->board->go);
    scene_join(pid);
    assert_int_equal(terms_ask(scene, "a", 3 * GIB, 0), 0); /* the dead hold no terms */
}

/* Lives in slot "a", whose reserve it gave up and whose priority it called the default, until told to go. */
static int slot_live_plainly(struct scene *scene, void *context)
{
    struct slot_terms terms = {.has_reserve = true, .has_priority = true, .priority = 50};
    struct ledger_claim claim;
    (void)context;
    REQUIRE(scene_claim(&scene->ledger, "a", &claim) == 0);
    REQUIRE(ledger_slot_settle(&scene->ledger, claim.slot, &terms, &scene->fault) == 0);
    board_arrive(&scene->board->arrived);
    board_await(&scene->board->go, 1);
    return 0;
}

/* Nothing and the default are terms like others where a neighbour has set them; nobody has set the limit. */
static void plain_terms_of_a_live_neighbour(void **state)
{
    struct scene *scene = *state;
    struct slot_terms priority = {.has_priority = true, .priority = 60};
    pid_t pid = scene_fork(scene, NULL, slot_live_plainly, NULL);
    board_await(&scene->board->arrived, 1);
    assert_int_equal(terms_ask(scene, "a", 0, GIB), -EEXIST);
    assert_non_null(strstr(scene->fault.text, "a reserve of 0 B and 1 GiB was asked for"));
    assert_int_equal(ledger_slot_settle(&scene->ledger, 0, &priority, &scene->fault), -EEXIST);
    assert_non_null(strstr(scene->fault.text, "a priority of 50 and 60 was asked for"));
    assert_int_equal(terms_ask(scene, "a", 3 * GIB, 0), 0);
    board_arrive(&scene->board->go);
    scene_join(pid);
    assert_int_equal(terms_ask(scene, "a", 0, GIB), 0);
}

enum { ROUNDS = 200, SLOTS = 60 };

/* Each round in a slot of its own, whose limit was never set. */
static int terms_race(struct scene *scene, void *context)
{
    unsigned mine = *(unsigned *)context;
    char name[LEDGER_NAME_BYTES];
    for (uint32_t round = 1; round <= SLOTS; round++) {
        struct ledger_claim claim;
        snprintf(name, sizeof name, "slot %u", round);
        board_meet(&scene->board->arrived, 2, round);
        REQUIRE(scene_claim(&scene->ledger, name, &claim) == 0);
        int result = terms_ask(scene, name, (1 + mine) * MIB, 0);
        REQUIRE(result == 0 || result == -EEXIST);
        atomic_fetch_add(&scene->board->figures[0], result == 0);
        board_meet(&scene->board->done, 2, round);
        REQUIRE(atomic_load(&scene->board->figures[0]) == round); /* exactly one of the two, each round */
        board_meet(&scene->board->go, 2, round);
        ledger_row_release(&scene->ledger, &claim);
    }
    return 0;
}

static int reserves_race(struct scene *scene, void *context)
{
    unsigned mine = *(unsigned *)context;
    const char *name = mine == 0 ? "left" : "right";
    struct slot_terms none = {.has_reserve = true, .reserve_bytes = 0};
    unsigned slot = (unsigned)ledger_slot_claim(&scene->ledger, name);
    for (uint32_t round = 1; round <= ROUNDS; round++) {
        board_meet(&scene->board->arrived, 2, round);
        int result = terms_ask(scene, name, 0, 5 * GIB);
        REQUIRE(result == 0 || result == -ERANGE);
        atomic_fetch_add(&scene->board->figures[round % 2], result == 0);
        board_meet(&scene->board->done, 2, round);
        REQUIRE(atomic_load(&scene->board->figures[round % 2]) <= 1); /* never both: 10 GiB of 8 */
        REQUIRE(ledger_slot_settle(&scene->ledger, slot, &none, &scene->fault) == 0);
        board_meet(&scene->board->go, 2, round);
        atomic_store(&scene->board->figures[round % 2], 0);
    }
    return 0;
}

static void race_run(struct scene *scene, scene_body *body)
{
    unsigned numbers[2] = {0, 1};
    pid_t pids[2];
    for (unsigned i = 0; i < 2; i++)
        pids[i] = scene_fork(scene, NULL, body, &numbers[i]);
    for (unsigned i = 0; i < 2; i++)
        scene_join(pids[i]);
}

static void terms_at_once(void **state)
{
    race_run(*state, terms_race);
}

static void reserves_at_once(void **state)
{
    race_run(*state, reserves_race);
}

#define SCENE(test) cmocka_unit_test_setup_teardown(test, scene_setup, scene_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        SCENE(same_name_same_slot),
        SCENE(all_slots),
        SCENE(name_is_completed),
        SCENE(same_name_at_once),
        SCENE(terms_are_taken),
        SCENE(terms_out_of_range),
        SCENE(reserves_together),
        SCENE(terms_of_a_live_neighbour),
        SCENE(plain_terms_of_a_live_neighbour),
        SCENE(terms_at_once),
        SCENE(reserves_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
