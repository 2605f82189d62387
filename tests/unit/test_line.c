/* The line of those who wait, with a clock of its own: who is the head, whose turn it is, and whom that keeps waiting. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>
#include <cmocka.h>

#include "ledger/layout.h"
#include "ledger/line.h"
#include "unit/scene.h"

enum { NOW = 1000000 };

static const uint64_t newcomer = LEDGER_NO_TICKET;

/* Stands in line on device 0 for so much; returns the ticket. */
static uint64_t stand(struct scene *scene, const struct ledger_claim *claim, unsigned device, uint64_t bytes)
{
    struct ledger_place place = {.ticket = LEDGER_NO_TICKET,
                                 .kind = LEDGER_WAITING_ALLOCATION,
                                 .since_ms = NOW,
                                 .deadline_ms = LEDGER_NO_DEADLINE};
    place.wanted_bytes[device] = bytes;
    ledger_line_enter(&scene->ledger, claim->row, &place);
    assert_int_equal(ledger_line_ticket(&scene->ledger, claim->row), place.ticket);
    return place.ticket;
}

static void rows_claim(struct scene *scene, struct ledger_claim *claims, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        assert_int_equal(scene_claim(&scene->ledger, "a", &claims[i]), 0);
}

static void nobody_waits(void **state)
{
    struct scene *scene = *state;
    struct ledger_claim claim;
    rows_claim(scene, &claim, 1);
    assert_false(ledger_line_is_behind(&scene->ledger, 0, claim.row, newcomer, NOW));
    assert_int_equal(ledger_line_ticket(&scene->ledger, claim.row), LEDGER_NO_TICKET);
    (void)stand(scene, &claim, 0, GIB);
    assert_false(
        ledger_line_is_behind(&scene->ledger, 0, claim.row, newcomer, NOW)); /* one's own place is no one else's */
    ledger_line_leave(&scene->ledger, claim.row);
    assert_int_equal(atomic_load(&layout_device(&scene->ledger, 0)->waiting), 0);
    ledger_row_release(&scene->ledger, &claim);
}

static void oldest_comes_first(void **state)
{
    struct scene *scene = *state;
    struct ledger *ledger = &scene->ledger;
    struct ledger_claim claims[4];
    uint64_t tickets[3];
    rows_claim(scene, claims, 4);
    /* The order of their rows is not the order of their coming. */
    tickets[2] = stand(scene, &claims[2], 0, GIB);
    tickets[0] = stand(scene, &claims[0], 0, GIB);
    tickets[1] = stand(scene, &claims[1], 0, GIB);
    assert_true(ledger_line_turn(ledger, 0, claims[2].row, NOW));
    assert_false(ledger_line_turn(ledger, 0, claims[0].row, NOW));
    assert_false(ledger_line_turn(ledger, 0, claims[1].row, NOW));
    assert_true(ledger_line_is_behind(ledger, 0, claims[3].row, newcomer, NOW));
    assert_false(ledger_line_is_behind(ledger, 0, claims[2].row, tickets[2], NOW));
    ledger_line_leave(ledger, claims[2].row);
    assert_true(ledger_line_turn(ledger, 0, claims[0].row, NOW));
    assert_false(ledger_line_turn(ledger, 0, claims[1].row, NOW));
    ledger_line_leave(ledger, claims[0].row);
    ledger_line_leave(ledger, claims[1].row);
    assert_false(ledger_line_is_behind(ledger, 0, claims[3].row, newcomer, NOW));
    assert_true(tickets[0] < tickets[1] && tickets[2] < tickets[0]);
}

/* Who comes back with the ticket it had keeps its place. */
static void ticket_is_kept(void **state)
{
    struct scene *scene = *state;
    struct ledger *ledger = &scene->ledger;
    struct ledger_claim claims[2];
    rows_claim(scene, claims, 2);
    uint64_t ticket = stand(scene, &claims[0], 0, GIB);
    (void)stand(scene, &claims[1], 0, GIB);
    ledger_line_leave(ledger, claims[0].row);
    struct ledger_place place = {
        .ticket = ticket, .kind = LEDGER_WAITING_RESTORE, .since_ms = NOW, .wanted_bytes = {2 * GIB}};
    ledger_line_enter(ledger, claims[0].row, &place);
    assert_int_equal(place.ticket, ticket);
    assert_true(ledger_line_turn(ledger, 0, claims[0].row, NOW));
    assert_false(ledger_line_turn(ledger, 0, claims[1].row, NOW));
}

/* A head that does not take its turn is passed over when that is over, not a moment sooner, and gets another 500 ms after. */
static void turn_passes(void **state)
{
    struct scene *scene = *state;
    struct ledger *ledger = &scene->ledger;
    struct ledger_claim claims[3];
    rows_claim(scene, claims, 3);
    (void)stand(scene, &claims[0], 0, GIB);                                      /* and then it is stopped */
    assert_true(ledger_line_is_behind(ledger, 0, claims[2].row, newcomer, NOW)); /* its turn begins by being seen */
    uint64_t second = stand(scene, &claims[1], 0, GIB);
    assert_true(ledger_line_is_behind(ledger, 0, claims[1].row, second, NOW + LEDGER_TURN_MS));
    assert_false(ledger_line_is_behind(ledger, 0, claims[1].row, second, NOW + LEDGER_TURN_MS + 1));
    /* The second is the head now, and has a turn of its own. */
    assert_true(ledger_line_is_behind(ledger, 0, claims[2].row, newcomer, NOW + LEDGER_TURN_MS + 1));
    assert_true(ledger_line_is_behind(ledger, 0, claims[2].row, newcomer, NOW + 2 * LEDGER_TURN_MS + 1));
    assert_false(ledger_line_is_behind(ledger, 0, claims[2].row, newcomer, NOW + 2 * LEDGER_TURN_MS + 2));
    /* The first goes on: what fits it may be granted, but it keeps nobody waiting until its next turn. */
    assert_true(ledger_line_turn(ledger, 0, claims[0].row, NOW + LEDGER_TURN_AGAIN_MS));
    assert_false(ledger_line_is_behind(ledger, 0, claims[1].row, second, NOW + LEDGER_TURN_AGAIN_MS));
    assert_true(ledger_line_turn(ledger, 0, claims[0].row, NOW + LEDGER_TURN_AGAIN_MS + 1));
    assert_true(ledger_line_is_behind(ledger, 0, claims[1].row, second, NOW + LEDGER_TURN_AGAIN_MS + 1));
    assert_false(
        ledger_line_is_behind(ledger, 0, claims[1].row, second, NOW + LEDGER_TURN_AGAIN_MS + LEDGER_TURN_MS + 2));
}

/* Who makes use of his turn keeps it. */
static void turn_is_extended(void **state)
{
    struct scene *scene = *state;
    struct ledger *ledger = &scene->ledger;
    struct ledger_claim claims[2];
    rows_claim(scene, claims, 2);
    (void)stand(scene, &claims[0], 0, GIB);
    assert_true(ledger_line_turn(ledger, 0, claims[0].row, NOW));
    for (uint64_t ms = NOW; ms < NOW + 10 * LEDGER_TURN_MS; ms += LEDGER_TURN_MS) {
        assert_true(ledger_line_is_behind(ledger, 0, claims[1].row, newcomer, ms + LEDGER_TURN_MS));
        ledger_line_turn_extend(ledger, claims[0].row, ms + LEDGER_TURN_MS);
    }
    assert_false(ledger_line_is_behind(ledger, 0, claims[1].row, newcomer, NOW + 11 * LEDGER_TURN_MS + 1));
}

/* The time of a turn is not of the last request's: who stands in line anew begins anew. */
static void turn_begins_anew(void **state)
{
    struct scene *scene = *state;
    struct ledger *ledger = &scene->ledger;
    struct ledger_claim claims[2];
    rows_claim(scene, claims, 2);
    (void)stand(scene, &claims[0], 0, GIB);
    assert_true(ledger_line_turn(ledger, 0, claims[0].row, NOW));
    ledger_line_leave(ledger, claims[0].row);
    (void)stand(scene, &claims[0], 0, GIB);
    assert_true(ledger_line_is_behind(ledger, 0, claims[1].row, newcomer, NOW + 10 * LEDGER_TURN_MS));
}

static int stander_body(struct scene *scene, void *unused)
{
    struct ledger_claim claim;
    (void)unused;
    REQUIRE(scene_claim(&scene->ledger, "dead", &claim) == 0);
    (void)stand(scene, &claim, 0, GIB);
    return 0; /* with its row, as one that is killed */
}

static void dead_do_not_count(void **state)
{
    struct scene *scene = *state;
    struct ledger *ledger = &scene->ledger;
    struct ledger_claim claim;
    scene_join(scene_fork(scene, NULL, stander_body, NULL));
    rows_claim(scene, &claim, 1);                                              /* reaps */
    assert_int_not_equal(atomic_load(&layout_row(ledger, 0)->wait_ticket), 0); /* nobody cleans up */
    assert_false(ledger_line_is_behind(ledger, 0, claim.row, newcomer, NOW));
    uint64_t ticket = stand(scene, &claim, 0, GIB);
    assert_true(ledger_line_turn(ledger, 0, claim.row, NOW));
    assert_int_equal(ledger_line_ticket(ledger, claim.row), ticket);
    ledger_line_leave(ledger, claim.row);
    assert_int_equal(atomic_load(&layout_device(ledger, 0)->waiting), 0); /* nor are they told of room */
}

/* Each device has a line of its own; one request may stand in several. */
static void devices_apart(void **state)
{
    struct scene *scene = *state;
    struct ledger *ledger = &scene->ledger;
    struct ledger_claim claims[3];
    rows_claim(scene, claims, 3);
    (void)stand(scene, &claims[0], 0, GIB);
    assert_true(ledger_line_is_behind(ledger, 0, claims[2].row, newcomer, NOW));
    assert_false(ledger_line_is_behind(ledger, 1, claims[2].row, newcomer, NOW));
    struct ledger_place both = {
        .ticket = LEDGER_NO_TICKET, .kind = LEDGER_WAITING_RESTORE, .since_ms = NOW, .wanted_bytes = {GIB, GIB}};
    ledger_line_enter(ledger, claims[1].row, &both);
    assert_false(ledger_line_turn(ledger, 0, claims[1].row, NOW));
    assert_true(ledger_line_turn(ledger, 1, claims[1].row, NOW));
    assert_true(ledger_line_is_behind(ledger, 1, claims[2].row, newcomer, NOW));
    /* It may change what it wants, where it stands. */
    both.wanted_bytes[1] = 0;
    ledger_line_enter(ledger, claims[1].row, &both);
    assert_false(ledger_line_is_behind(ledger, 1, claims[2].row, newcomer, NOW));
}

enum { ROUNDS = 300 };

static int sleeper_body(struct scene *scene, void *context)
{
    struct ledger_claim claim;
    (void)context;
    REQUIRE(scene_claim(&scene->ledger, "sleeper", &claim) == 0);
    struct ledger_place place = {.ticket = LEDGER_NO_TICKET, .kind = LEDGER_WAITING_ALLOCATION, .wanted_bytes = {GIB}};
    ledger_line_enter(&scene->ledger, claim.row, &place);
    for (unsigned round = 0; round < ROUNDS; round++) {
        uint32_t seen = ledger_room_seen(&scene->ledger, 0);
        board_arrive(&scene->board->arrived);
        while (ledger_room_seen(&scene->ledger, 0) == seen)
            ledger_room_sleep(&scene->ledger, 0, seen, UINT32_MAX);
    }
    ledger_line_leave(&scene->ledger, claim.row);
    ledger_row_release(&scene->ledger, &claim);
    return 0;
}

/* Each credit tells who waits, and none does where nobody waits. */
static void credits_wake(void **state)
{
    struct scene *scene = *state;
    struct ledger *ledger = &scene->ledger;
    struct ledger_claim claim;
    rows_claim(scene, &claim, 1);
    uint32_t before = ledger_room_seen(ledger, 0);
    ledger_commit_unasked(ledger, claim.row, 0, GIB);
    ledger_credit(ledger, claim.row, 0, GIB);
    assert_int_equal(ledger_room_seen(ledger, 0), before);
    pid_t sleeper = scene_fork(scene, NULL, sleeper_body, NULL);
    for (uint32_t round = 1; round <= ROUNDS; round++) {
        board_await(&scene->board->arrived, round);
        ledger_commit_unasked(ledger, claim.row, 0, GIB);
        ledger_credit(ledger, claim.row, 0, GIB);
    }
    scene_join(sleeper);
    ledger_row_release(ledger, &claim);
}

#define SCENE(test) cmocka_unit_test_setup_teardown(test, scene_setup, scene_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        SCENE(nobody_waits),      SCENE(oldest_comes_first), SCENE(ticket_is_kept),
        SCENE(turn_passes),       SCENE(turn_is_extended),   SCENE(turn_begins_anew),
        SCENE(dead_do_not_count), SCENE(devices_apart),      SCENE(credits_wake),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
