/* The state word of a process: who may move it from where, that nothing late hits another's ask, and that no wish is lost; and the bytes that
 * leave the card and come back. */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "ledger/layout.h"
#include "ledger/process.h"
#include "unit/scene.h"

enum { ASKER = 7, OTHER = 9 };

/* A row whose process has an agent. */
static void resident_make(struct scene *scene, struct ledger_claim *claim)
{
    assert_int_equal(scene_claim(&scene->ledger, "victim", claim), 0);
    uint32_t word = ledger_process_word(&scene->ledger, claim->row);
    assert_int_equal(word, LEDGER_PROCESS_NO_AGENT);
    assert_true(ledger_process_move(&scene->ledger, claim->row, &word, LEDGER_PROCESS_RUNNING, false));
}

static void fresh_row_is_its_own_leader(void **state)
{
    struct scene *scene = *state;
    struct ledger *ledger = &scene->ledger;
    struct ledger_claim first, second;
    uint32_t word;
    resident_make(scene, &first);
    assert_int_equal(ledger_leader(ledger, first.row), first.row);
    assert_int_equal(scene_claim(ledger, "other", &second), 0);
    assert_int_equal(ledger_leader(ledger, second.row), second.row);
    ledger_lead(ledger, second.row, first.row);
    assert_int_equal(ledger_leader(ledger, second.row), first.row);
    atomic_store(&layout_row(ledger, second.row)->leader, LEDGER_ROWS); /* damage */
    assert_int_equal(ledger_leader(ledger, second.row), second.row);
    ledger_row_release(ledger, &second);
    /* The next owner has no state of the last one's, nor stands in his line. */
    assert_int_equal(ledger_process_ask(ledger, first.row, ASKER, &word), 0);
    atomic_store(&layout_row(ledger, first.row)->wait_ticket, 5);
    ledger_row_release(ledger, &first);
    assert_int_equal(scene_claim(ledger, "next", &first), 0);
    assert_int_equal(ledger_process_word(ledger, first.row), 0);
    assert_int_equal(atomic_load(&layout_row(ledger, first.row)->wait_ticket), 0);
    ledger_row_release(ledger, &first);
}

static void ask_is_for_the_running(void **state)
{
    struct scene *scene = *state;
    struct ledger *ledger = &scene->ledger;
    struct ledger_claim claim;
    uint32_t word;
    assert_int_equal(scene_claim(ledger, "victim", &claim), 0);
    assert_int_equal(ledger_process_ask(ledger, claim.row, ASKER, &word), -EBUSY); /* no agent */
    assert_int_equal(process_word_state(word), LEDGER_PROCESS_NO_AGENT);
    ledger_row_release(ledger, &claim);
    resident_make(scene, &claim);
    assert_int_equal(ledger_process_ask(ledger, claim.row, ASKER, &word), 0);
    assert_int_equal(process_word_state(word), LEDGER_PROCESS_ASKED);
    assert_int_equal(process_word_asker(word), ASKER);
    assert_int_equal(process_word_number(word), 1);
    assert_false(process_word_wants(word));
    uint32_t other;
    assert_int_equal(ledger_process_ask(ledger, claim.row, OTHER, &other), -EBUSY);
    assert_int_equal(other, word);
    /* An operator is told apart from every row, the last included. */
    assert_true(ledger_process_withdraw(ledger, claim.row, word));
    assert_int_equal(ledger_process_ask(ledger, claim.row, LEDGER_ROWS - 1, &word), 0);
    assert_int_equal(process_word_asker(word), LEDGER_ROWS - 1);
    assert_true(ledger_process_withdraw(ledger, claim.row, word));
    assert_int_equal(ledger_process_ask(ledger, claim.row, LEDGER_ROWS, &word), 0);
    assert_int_equal(process_word_asker(word), LEDGER_ROWS);
    assert_int_equal(process_word_number(word), 3);
    ledger_row_release(ledger, &claim);
}

/* Every move and what it keeps: the number always, the asker until it runs again, WANT where it is said to stay. */
static void whole_way_and_back(void **state)
{
    struct scene *scene = *state;
    struct ledger *ledger = &scene->ledger;
    struct ledger_claim claim;
    uint32_t word;
    resident_make(scene, &claim);
    assert_int_equal(ledger_process_ask(ledger, claim.row, ASKER, &word), 0);
    assert_true(ledger_process_move(ledger, claim.row, &word, LEDGER_PROCESS_EVICTING, false));
    assert_int_equal(process_word_asker(word), ASKER);
    assert_true(ledger_process_want(ledger, claim.row)); /* while it is on its way out */
    uint32_t old = word;
    assert_false(
        ledger_process_move(ledger, claim.row, &word, LEDGER_PROCESS_EVICTED, true)); /* the word has the wish now */
    assert_int_equal(word, old | LEDGER_PROCESS_WANT);
    assert_true(ledger_process_move(ledger, claim.row, &word, LEDGER_PROCESS_EVICTED, true));
    assert_true(process_word_wants(word));
    assert_int_equal(process_word_number(word), 1);
    assert_true(ledger_process_move(ledger, claim.row, &word, LEDGER_PROCESS_RESTORING, true));
    assert_true(ledger_process_move(ledger, claim.row, &word, LEDGER_PROCESS_EVICTED, true)); /* no room after all */
    assert_true(process_word_wants(word));
    assert_true(ledger_process_move(ledger, claim.row, &word, LEDGER_PROCESS_RESTORING, true));
    assert_true(ledger_process_move(ledger, claim.row, &word, LEDGER_PROCESS_RUNNING, false));
    assert_false(process_word_wants(word));
    assert_int_equal(process_word_asker(word), -1);
    assert_int_equal(process_word_number(word), 1);
    assert_int_equal(word, ledger_process_word(ledger, claim.row));
    ledger_row_release(ledger, &claim);
}

static void late_withdrawal_does_nothing(void **state)
{
    struct scene *scene = *state;
    struct ledger *ledger = &scene->ledger;
    struct ledger_claim claim;
    uint32_t first, second, word;
    resident_make(scene, &claim);
    assert_int_equal(ledger_process_ask(ledger, claim.row, ASKER, &first), 0);
    word = first;
    assert_true(ledger_process_move(ledger, claim.row, &word, LEDGER_PROCESS_RUNNING, false)); /* it stays */
    assert_int_equal(ledger_process_ask(ledger, claim.row, ASKER, &second), 0); /* the same asker, another ask */
    assert_int_not_equal(first, second);
    assert_false(ledger_process_withdraw(ledger, claim.row, first));
    assert_int_equal(ledger_process_word(ledger, claim.row), second);
    word = second;
    assert_true(ledger_process_move(ledger, claim.row, &word, LEDGER_PROCESS_EVICTING, false));
    assert_false(ledger_process_withdraw(ledger, claim.row, second)); /* taken up */
    assert_int_equal(process_word_state(ledger_process_word(ledger, claim.row)), LEDGER_PROCESS_EVICTING);
    ledger_row_release(ledger, &claim);
}

/* The number wraps and touches neither the state nor the asker. */
static void number_wraps(void **state)
{
    struct scene *scene = *state;
    struct ledger *ledger = &scene->ledger;
    struct ledger_claim claim;
    uint32_t word = 0;
    resident_make(scene, &claim);
    for (unsigned i = 1; i <= 0x10000 + 3; i++) {
        assert_int_equal(ledger_process_ask(ledger, claim.row, ASKER, &word), 0);
        assert_int_equal(process_word_number(word), i & 0xFFFF);
        assert_int_equal(process_word_asker(word), ASKER);
        assert_true(ledger_process_withdraw(ledger, claim.row, word));
    }
    ledger_row_release(ledger, &claim);
}

static void want_is_for_who_is_away(void **state)
{
    static const bool wanted[LEDGER_PROCESS_STATES] = {
        [LEDGER_PROCESS_EVICTING] = true, [LEDGER_PROCESS_EVICTED] = true, [LEDGER_PROCESS_RESTORING] = true};
    struct scene *scene = *state;
    struct ledger_claim claim;
    resident_make(scene, &claim);
    for (uint32_t at = 0; at < LEDGER_PROCESS_STATES; at++) {
        atomic_store(&layout_row(&scene->ledger, claim.row)->process_state, at);
        assert_int_equal(ledger_process_want(&scene->ledger, claim.row), wanted[at]);
        assert_int_equal(ledger_process_word(&scene->ledger, claim.row), wanted[at] ? at | LEDGER_PROCESS_WANT : at);
        assert_int_equal(ledger_process_want(&scene->ledger, claim.row), wanted[at]); /* once more changes nothing */
    }
    assert_int_equal(process_word_state(15), LEDGER_PROCESS_NO_AGENT); /* damage */
    ledger_row_release(&scene->ledger, &claim);
}

/* --- at once ------------------------------------------------------------------------------------------------------------ */

enum { ROUNDS = 2000, HANDS = 3 };

struct struggle {
    unsigned row;
};

/* Asks, and takes back what it asked: each withdrawal that succeeds is of its own ask. figures[0] counts asks that stand. */
static int asker_body(struct scene *scene, void *context)
{
    const struct struggle *struggle = context;
    uint32_t word;
    for (unsigned i = 0; i < ROUNDS; i++) {
        if (ledger_process_ask(&scene->ledger, struggle->row, ASKER, &word) != 0)
            continue;
        REQUIRE(atomic_fetch_add(&scene->board->figures[0], 1) == 0); /* nobody else's stands */
        atomic_fetch_sub(&scene->board->figures[0], 1);
        REQUIRE(ledger_process_withdraw(&scene->ledger, struggle->row, word));
        REQUIRE(!ledger_process_withdraw(&scene->ledger, struggle->row, word));
    }
    return 0;
}

static void askers_at_once(void **state)
{
    struct scene *scene = *state;
    struct ledger_claim claim;
    pid_t pids[HANDS];
    resident_make(scene, &claim);
    struct struggle struggle = {claim.row};
    for (unsigned i = 0; i < HANDS; i++)
        pids[i] = scene_fork(scene, NULL, asker_body, &struggle);
    for (unsigned i = 0; i < HANDS; i++)
        scene_join(pids[i]);
    assert_int_equal(process_word_state(ledger_process_word(&scene->ledger, claim.row)), LEDGER_PROCESS_RUNNING);
    ledger_row_release(&scene->ledger, &claim);
}

/* Wants a process back once for each time it is away, and waits until it is back before the next. */
static int wanter_body(struct scene *scene, void *context)
{
    const struct struggle *struggle = context;
    struct ledger *ledger = &scene->ledger;
    for (uint32_t round = 1; round <= ROUNDS; round++) {
        board_await(&scene->board->go, round);
        REQUIRE(ledger_process_want(ledger, struggle->row));
        for (uint32_t word = ledger_process_word(ledger, struggle->row);
             process_word_state(word) != LEDGER_PROCESS_RUNNING; word = ledger_process_word(ledger, struggle->row))
            (void)ledger_process_sleep(ledger, struggle->row, word, UINT32_MAX);
        board_arrive(&scene->board->done);
    }
    return 0;
}

/* An agent that sleeps on the word alone, for ever, while a wish comes at any moment of EVICTING and EVICTED: it hears of each. */
static void no_wish_is_lost(void **state)
{
    struct scene *scene = *state;
    struct ledger *ledger = &scene->ledger;
    struct ledger_claim claim;
    uint32_t word;
    resident_make(scene, &claim);
    struct struggle struggle = {claim.row};
    pid_t wanter = scene_fork(scene, NULL, wanter_body, &struggle);
    for (uint32_t round = 1; round <= ROUNDS; round++) {
        assert_int_equal(ledger_process_ask(ledger, claim.row, LEDGER_ROWS, &word), 0);
        assert_true(ledger_process_move(ledger, claim.row, &word, LEDGER_PROCESS_EVICTING, false));
        board_arrive(&scene->board->go);
        while (!ledger_process_move(ledger, claim.row, &word, LEDGER_PROCESS_EVICTED, true)) {
        }
        while (!process_word_wants(word)) {
            (void)ledger_process_sleep(ledger, claim.row, word, UINT32_MAX);
            word = ledger_process_word(ledger, claim.row);
        }
        assert_true(ledger_process_move(ledger, claim.row, &word, LEDGER_PROCESS_RESTORING, true));
        assert_true(ledger_process_move(ledger, claim.row, &word, LEDGER_PROCESS_RUNNING, false));
        board_await(&scene->board->done, round);
    }
    scene_join(wanter);
    ledger_row_release(ledger, &claim);
}

/* --- host memory -------------------------------------------------------------------------------------------------------- */

static void host_memory_is_summed(void **state)
{
    struct scene *scene = *state;
    struct ledger *ledger = &scene->ledger;
    struct ledger_claim first, second;
    assert_int_equal(scene_claim(ledger, "a", &first), 0);
    assert_int_equal(scene_claim(ledger, "b", &second), 0);
    assert_int_equal(ledger_host_take(ledger, first.row, 3 * GIB, 4 * GIB), 0);
    assert_int_equal(ledger_host_take(ledger, second.row, GIB + 1, 4 * GIB), -ENOSPC);
    assert_int_equal(atomic_load(&layout_row(ledger, second.row)->host_bytes), 0);
    assert_int_equal(ledger_host_take(ledger, second.row, GIB, 4 * GIB), 0);
    assert_int_equal(ledger_host_take(ledger, first.row, 0, 0), 0); /* given back, whatever the limit is by now */
    assert_int_equal(ledger_host_take(ledger, first.row, 3 * GIB, 4 * GIB), 0);
    ledger_row_release(ledger, &second); /* the dead hold none */
    assert_int_equal(ledger_host_take(ledger, first.row, 4 * GIB, 4 * GIB), 0);
    assert_int_equal(ledger_host_take(ledger, first.row, UINT64_MAX, 4 * GIB), -ENOSPC);
    ledger_row_release(ledger, &first);
}

static int taker_body(struct scene *scene, void *context)
{
    struct ledger_claim claim;
    (void)context;
    REQUIRE(scene_claim(&scene->ledger, "taker", &claim) == 0);
    for (uint32_t round = 1; round <= ROUNDS; round++) {
        board_meet(&scene->board->arrived, 2, round);
        bool taken = ledger_host_take(&scene->ledger, claim.row, 3 * GIB, 4 * GIB) == 0;
        if (taken)
            REQUIRE(atomic_fetch_add(&scene->board->figures[0], 1) == 0); /* both would be 6 of 4 GiB */
        board_meet(&scene->board->done, 2, round);
        if (taken) {
            atomic_fetch_sub(&scene->board->figures[0], 1);
            (void)ledger_host_take(&scene->ledger, claim.row, 0, 0);
        }
    }
    ledger_row_release(&scene->ledger, &claim);
    return 0;
}

static void host_memory_of_two_at_once(void **state)
{
    struct scene *scene = *state;
    pid_t first = scene_fork(scene, NULL, taker_body, NULL), second = scene_fork(scene, NULL, taker_body, NULL);
    scene_join(first);
    scene_join(second);
}

/* --- bytes ---------------------------------------------------------------------------------------------------------------- */

static void bytes_leave_and_come_back(void **state)
{
    struct scene *scene = *state;
    struct ledger *ledger = &scene->ledger;
    struct ledger_claim claim, other;
    struct held held;
    assert_int_equal(scene_claim(ledger, "a", &claim), 0);
    assert_int_equal(scene_claim(ledger, "b", &other), 0);
    assert_int_equal(charge_try(ledger, &claim, 0, 5 * GIB, 1), LEDGER_FITS);
    ledger_landed(ledger, claim.row, 0, 5 * GIB);
    assert_int_equal(ledger_evict_bytes(ledger, claim.row, 0), 5 * GIB);
    assert_int_equal(ledger_evicted(ledger, claim.row, 0), 5 * GIB);
    held_read(ledger, 0, &held);
    assert_int_equal(held.committed + held.in_flight, 0);
    assert_int_equal(charge_try(ledger, &other, 0, 8 * GIB, 1), LEDGER_FITS); /* the whole budget is free */
    assert_int_equal(charge_try(ledger, &claim, 0, 6 * GIB, 1), LEDGER_OVER_BUDGET);
    ledger_credit(ledger, other.row, 0, 7 * GIB);
    ledger_landed(ledger, other.row, 0, 8 * GIB);
    /* The footprint, a gigabyte above what is charged, is charged first. */
    assert_int_equal(charge_try(ledger, &claim, 0, 6 * GIB, 1), LEDGER_FITS);
    assert_int_equal(ledger_promised(ledger, 0, other.row), 6 * GIB);
    assert_int_equal(ledger_promised(ledger, 0, claim.row), 0);
    ledger_restore_bytes(ledger, claim.row, 0, 6 * GIB);
    assert_int_equal(ledger_evicted(ledger, claim.row, 0), 0);
    assert_int_equal(ledger_committed(ledger, claim.row, 0), 5 * GIB);
    assert_int_equal(ledger_held(ledger, claim.row, 0).in_flight_bytes, 0);
    ledger_row_release(ledger, &claim);
    ledger_row_release(ledger, &other);
}

/* A row that is not the first of its process was charged nothing for the restore. */
static void bytes_of_other_rows_come_back(void **state)
{
    struct scene *scene = *state;
    struct ledger *ledger = &scene->ledger;
    struct ledger_claim claim;
    assert_int_equal(scene_claim(ledger, "a", &claim), 0);
    assert_int_equal(charge_try(ledger, &claim, 0, GIB, 1), LEDGER_FITS);
    ledger_landed(ledger, claim.row, 0, GIB);
    uint64_t changes = ledger_held(ledger, claim.row, 0).changes;
    assert_int_equal(ledger_evict_bytes(ledger, claim.row, 0), GIB);
    assert_int_not_equal(ledger_held(ledger, claim.row, 0).changes, changes); /* a reader between sees that it moved */
    ledger_restore_bytes(ledger, claim.row, 0, 0);
    assert_int_equal(ledger_committed(ledger, claim.row, 0), GIB);
    assert_int_equal(ledger_evicted(ledger, claim.row, 0), 0);
    ledger_row_release(ledger, &claim);
}

static int restorer_body(struct scene *scene, void *unused)
{
    int descriptor;
    (void)unused;
    REQUIRE(ledger_restore_lock(&scene->ledger, 0, &descriptor) == 0);
    board_arrive(&scene->board->arrived);
    (void)pause();
    return 0;
}

static void one_restorer_of_a_device(void **state)
{
    struct scene *scene = *state;
    int first, second;
    pid_t pid = scene_fork(scene, NULL, restorer_body, NULL);
    board_await(&scene->board->arrived, 1);
    assert_int_equal(ledger_restore_lock(&scene->ledger, 0, &first), -EAGAIN);
    assert_int_equal(ledger_restore_lock(&scene->ledger, 1, &second), 0);
    ledger_restore_unlock(second);
    assert_int_equal(kill(pid, SIGKILL), 0);
    (void)scene_wait(pid);
    assert_int_equal(ledger_restore_lock(&scene->ledger, 0, &first), 0); /* it went with him */
    ledger_restore_unlock(first);
    assert_int_equal(ledger_restore_lock(&scene->ledger, 0, &first), 0);
    ledger_restore_unlock(first);
}

#define SCENE(test) cmocka_unit_test_setup_teardown(test, scene_setup, scene_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        SCENE(fresh_row_is_its_own_leader),
        SCENE(ask_is_for_the_running),
        SCENE(whole_way_and_back),
        SCENE(late_withdrawal_does_nothing),
        SCENE(number_wraps),
        SCENE(want_is_for_who_is_away),
        SCENE(askers_at_once),
        SCENE(no_wish_is_lost),
        SCENE(host_memory_is_summed),
        SCENE(host_memory_of_two_at_once),
        SCENE(bytes_leave_and_come_back),
        SCENE(bytes_of_other_rows_come_back),
        SCENE(one_restorer_of_a_device),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
