/*
 * Waiting in line and coming back to the card, as one process's account does it, over a driver of a few lines. Its neighbours are
 * rows of this same process, each played by a test; their agents are threads of the test that do what an agent does to the ledger.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <pthread.h>
#include <cmocka.h>

#include "account/evicted.h"
#include "account/policy.h"
#include "account/state.h"
#include "ledger/line.h"
#include "unit/fake_driver.h"
#include "unit/scene.h"

static struct scene scene;
static int context_place;
static const CUcontext context = (CUcontext)(void *)&context_place;
static uint64_t events_before;

/* --- the stage ------------------------------------------------------------------------------------------------------------ */

static int account_setup(void **state)
{
    (void)state;
    fake_devices = 2;
    scene_open(&scene, 8 * GIB);
    struct settings settings;
    struct settings_fault fault;
    struct account_fault refusal;
    assert_int_equal(setenv("CUBUDGET_DIR", scene.directory, 1), 0);
    assert_int_equal(settings_read(&settings, &fault), 0);
    account_configure(&settings, true);
    assert_int_equal(account_attach(&fake_driver, &refusal), 0);
    struct context_charge charge;
    assert_true(context_begin(&fake_driver, 0, false, &charge));
    context_end(&charge, CUDA_SUCCESS, context, false);
    fake_current = context;
    return 0;
}

static int account_teardown(void **state)
{
    (void)state;
    scene_close(&scene);
    return 0;
}

static unsigned index_of(unsigned device)
{
    return account_get()->device[device].index;
}

static uint64_t own_bytes(unsigned device)
{
    struct ledger *ledger;
    unsigned row;
    assert_true(account_own(&ledger, &row));
    return ledger_committed(ledger, row, index_of(device));
}

/* A neighbour that holds bytes of the first device. */
struct neighbour {
    struct ledger_claim claim;
    uint64_t bytes;
    pthread_t agent;
};

static void neighbour_come(struct neighbour *neighbour, const char *slot, uint64_t bytes)
{
    neighbour->bytes = bytes;
    assert_int_equal(scene_claim(&scene.ledger, slot, &neighbour->claim), 0);
    if (bytes != 0)
        assert_int_equal(charge_try(&scene.ledger, &neighbour->claim, index_of(0), bytes, 10), LEDGER_FITS);
    ledger_landed(&scene.ledger, neighbour->claim.row, index_of(0), bytes);
}

/* As its agent makes it: on the card for long. */
static void neighbour_run(struct neighbour *neighbour)
{
    uint32_t word = ledger_process_word(&scene.ledger, neighbour->claim.row);
    assert_true(ledger_process_move(&scene.ledger, neighbour->claim.row, &word, LEDGER_PROCESS_RUNNING, false));
    ledger_evictable_note(&scene.ledger, neighbour->claim.row, NULL);
}

static enum ledger_process_state neighbour_state(const struct neighbour *neighbour)
{
    return process_word_state(ledger_process_word(&scene.ledger, neighbour->claim.row));
}

static void neighbour_go(struct neighbour *neighbour)
{
    ledger_row_release(&scene.ledger, &neighbour->claim);
}

/* Waits until it is asked, and leaves. */
static void *agent_play(void *argument)
{
    struct neighbour *neighbour = argument;
    unsigned row = neighbour->claim.row;
    uint32_t word = ledger_process_word(&scene.ledger, row);
    while (process_word_state(word) != LEDGER_PROCESS_ASKED) {
        (void)ledger_process_sleep(&scene.ledger, row, word, UINT32_MAX);
        word = ledger_process_word(&scene.ledger, row);
    }
    REQUIRE(ledger_process_move(&scene.ledger, row, &word, LEDGER_PROCESS_EVICTING, true));
    REQUIRE(ledger_evict_bytes(&scene.ledger, row, index_of(0)) == neighbour->bytes);
    while (!ledger_process_move(&scene.ledger, row, &word, LEDGER_PROCESS_EVICTED, true)) {
    }
    return NULL;
}

static bool ask(uint64_t bytes)
{
    struct charge charge;
    bool passes = false;
    events_before = ledger_event_count(&scene.ledger);
    if (!account_ask(&fake_driver, LEDGER_KIND_LINEAR, bytes, &charge, &passes)) {
        assert_false(passes);
        return false;
    }
    account_abandon(&charge); /* what is granted is all that these tests want to know */
    return true;
}

/* The first event of that kind since the last ask. */
static struct ledger_event_record event_of(enum ledger_event_kind kind)
{
    struct ledger_event_record event;
    for (uint64_t number = events_before + 1; number <= ledger_event_count(&scene.ledger); number++)
        if (ledger_event_read(&scene.ledger, number, &event) && event.kind == kind)
            return event;
    fail_msg("no event '%s'", ledger_event_name(kind));
    return event;
}

/* --- refusals --------------------------------------------------------------------------------------------------------------- */

static void refused_when_its_time_is_over(void **state)
{
    (void)state;
    struct neighbour other;
    neighbour_come(&other, "other", 6 * GIB);
    account_settings.wait_ms = 50;
    assert_false(ask(3 * GIB));
    struct ledger_event_record event = event_of(LEDGER_EVENT_REFUSE);
    assert_int_equal(event.why, LEDGER_WHY_WAITED);
    assert_true(event.duration_ns >= 50000000);
    assert_int_equal(event.bytes, 3 * GIB);
    assert_int_equal(ledger_line_ticket(&scene.ledger, own_leader(account_get())), LEDGER_NO_TICKET);
    /* Frameworks ask again at once; another size is another request. */
    account_settings.wait_ms = 30000;
    assert_false(ask(3 * GIB));
    assert_int_equal(event_of(LEDGER_EVENT_REFUSE).why, LEDGER_WHY_AGAIN);
    account_get()->in_line.refused.bytes = 0;
    neighbour_go(&other);
}

static void refused_at_once_where_waiting_cannot_help(void **state)
{
    (void)state;
    struct neighbour other;
    struct ledger_fault fault;
    struct slot_terms terms = {.has_reserve = true, .reserve_bytes = GIB};
    account_settings.wait_ms = 30000;
    assert_false(ask(8 * GIB)); /* with the context more than the budget */
    assert_int_equal(event_of(LEDGER_EVENT_REFUSE).why, LEDGER_WHY_BUDGET);
    neighbour_come(&other, "other", 0);
    assert_int_equal(ledger_slot_change(&scene.ledger, other.claim.slot, &terms, &fault), 0);
    assert_false(ask(7 * GIB));
    assert_int_equal(event_of(LEDGER_EVENT_REFUSE).why, LEDGER_WHY_BUDGET);
    terms.reserve_bytes = 0;
    assert_int_equal(ledger_slot_change(&scene.ledger, other.claim.slot, &terms, &fault), 0);
    neighbour_go(&other);
}

static void refused_at_once_where_it_is_not_to_wait(void **state)
{
    (void)state;
    struct neighbour idle;
    neighbour_come(&idle, "idle", 6 * GIB);
    neighbour_run(&idle);
    account_settings.wait_ms = 0;
    assert_false(ask(3 * GIB));
    assert_int_equal(event_of(LEDGER_EVENT_REFUSE).why, LEDGER_WHY_NO_WAIT);
    assert_int_equal(neighbour_state(&idle), LEDGER_PROCESS_RUNNING); /* and asks nobody to leave */
    neighbour_go(&idle);
}

/* --- grants ------------------------------------------------------------------------------------------------------------------ */

/* Gives its bytes back once somebody is in line. */
static void *bytes_give_back(void *argument)
{
    struct neighbour *neighbour = argument;
    while (ledger_line_ticket(&scene.ledger, own_leader(account_get())) == LEDGER_NO_TICKET)
        (void)sched_yield();
    ledger_credit(&scene.ledger, neighbour->claim.row, index_of(0), neighbour->bytes);
    return NULL;
}

static void granted_when_a_neighbour_frees(void **state)
{
    (void)state;
    struct neighbour other;
    neighbour_come(&other, "other", 6 * GIB);
    account_settings.wait_ms = 30000;
    assert_int_equal(pthread_create(&other.agent, NULL, bytes_give_back, &other), 0);
    assert_true(ask(3 * GIB));
    assert_int_equal(pthread_join(other.agent, NULL), 0);
    assert_int_equal(event_of(LEDGER_EVENT_WAIT).bytes, 3 * GIB);
    neighbour_go(&other);
}

static void idle_neighbour_is_asked_and_leaves(void **state)
{
    (void)state;
    struct neighbour idle, busy;
    neighbour_come(&idle, "idle", 3 * GIB);
    neighbour_come(&busy, "busy", 3 * GIB);
    neighbour_run(&idle);
    neighbour_run(&busy);
    ledger_referenced_note(&scene.ledger, busy.claim.row, now_ms());
    account_settings.wait_ms = 30000;
    assert_int_equal(pthread_create(&idle.agent, NULL, agent_play, &idle), 0);
    assert_true(ask(3 * GIB));
    assert_int_equal(pthread_join(idle.agent, NULL), 0);
    assert_int_equal(event_of(LEDGER_EVENT_ASK).other, idle.claim.row);
    assert_int_equal(neighbour_state(&idle), LEDGER_PROCESS_EVICTED);
    assert_int_equal(neighbour_state(&busy), LEDGER_PROCESS_RUNNING);
    assert_int_equal(ledger_evicted(&scene.ledger, idle.claim.row, index_of(0)), 3 * GIB);
    neighbour_go(&idle);
    neighbour_go(&busy);
}

static void who_does_not_answer_is_passed_over(void **state)
{
    (void)state;
    struct neighbour stopped, idle;
    neighbour_come(&stopped, "stopped", 3 * GIB);
    neighbour_come(&idle, "idle", 3 * GIB);
    neighbour_run(&stopped);
    neighbour_run(&idle);
    ledger_referenced_note(&scene.ledger, idle.claim.row, now_ms()); /* so the stopped one is asked first */
    account_settings.wait_ms = 30000;
    assert_int_equal(pthread_create(&idle.agent, NULL, agent_play, &idle), 0);
    assert_true(ask(3 * GIB));
    assert_int_equal(pthread_join(idle.agent, NULL), 0);
    assert_int_equal(event_of(LEDGER_EVENT_ASK).other, stopped.claim.row);
    assert_int_equal(neighbour_state(&stopped), LEDGER_PROCESS_RUNNING); /* the ask was taken back */
    neighbour_go(&stopped);
    neighbour_go(&idle);
}

static void newcomer_stands_behind_who_waits(void **state)
{
    (void)state;
    struct neighbour first;
    struct ledger_place place = {
        .ticket = LEDGER_NO_TICKET, .kind = LEDGER_WAITING_ALLOCATION, .deadline_ms = LEDGER_NO_DEADLINE};
    neighbour_come(&first, "first", 0);
    place.since_ms = now_ms();
    place.wanted_bytes[index_of(0)] = 8 * GIB;
    ledger_line_enter(&scene.ledger, first.claim.row, &place);
    account_settings.wait_ms = 30000;
    assert_true(
        ask(MIB)); /* it fits, and is granted only when the turn of the first is over, who does nothing with it */
    assert_true(event_of(LEDGER_EVENT_WAIT).duration_ns >= (uint64_t)(LEDGER_TURN_MS - 1) * 1000000);
    account_settings.wait_ms = 0;
    assert_true(ask(MIB)); /* the turn of the first is over */
    ledger_line_leave(&scene.ledger, first.claim.row);
    neighbour_go(&first);
}

/* --- out and back ------------------------------------------------------------------------------------------------------------- */

static void away(void)
{
    assert_int_equal(account_image_take(), 0);
    uint64_t bytes = own_bytes(0);
    assert_int_equal(account_evict(), bytes);
    assert_int_equal(own_bytes(0), 0);
}

static void bytes_are_what_they_were(void **state)
{
    (void)state;
    uint64_t bytes = own_bytes(0), needed;
    unsigned index;
    CUuuid uuid;
    away();
    assert_int_equal(account_readmit(0), 0);
    assert_true(own_bytes(0) > bytes); /* charged with a margin until it is back */
    /* Nobody stands behind it while it moves. */
    assert_int_equal(ledger_line_ticket(&scene.ledger, own_leader(account_get())), LEDGER_NO_TICKET);
    assert_true(account_proof(0, &uuid, &index, &needed));
    assert_true(needed > bytes);
    assert_true(account_proof(1, &uuid, &index, &needed));
    assert_int_equal(needed, 0);
    assert_false(account_proof(2, &uuid, &index, &needed));
    account_restored();
    assert_int_equal(own_bytes(0), bytes);
    assert_int_equal(ledger_evicted(&scene.ledger, own_leader(account_get()), index_of(0)), 0);
    assert_int_equal(ledger_host_bytes(&scene.ledger, LEDGER_ROWS), 0);
    assert_int_equal(ledger_promised(&scene.ledger, index_of(0), LEDGER_ROWS), 0);
}

static void room_is_proven_for_all_that_left(void **state)
{
    (void)state;
    uint64_t needed, bytes = own_bytes(0);
    unsigned index;
    CUuuid uuid;
    struct charge charge;
    bool passes;
    assert_int_equal(account_image_take(), 0);
    /* A thread goes on allocating until the gate is closed. */
    assert_true(account_ask(&fake_driver, LEDGER_KIND_LINEAR, GIB, &charge, &passes));
    account_record(&charge, 1024 * GIB, GIB);
    assert_int_equal(account_evict(), bytes + GIB);
    assert_int_equal(account_readmit(0), 0);
    assert_true(account_proof(0, &uuid, &index, &needed));
    assert_true(needed > bytes + GIB);
    account_restored();
    assert_int_equal(own_bytes(0), bytes + GIB);
    (void)account_freed(1024 * GIB);
    assert_int_equal(own_bytes(0), bytes);
}

static void comes_back_only_where_there_is_room(void **state)
{
    (void)state;
    struct neighbour other;
    uint64_t bytes = own_bytes(0);
    away();
    neighbour_come(&other, "other", 8 * GIB);
    assert_int_equal(account_readmit(30), -EAGAIN);
    assert_int_equal(own_bytes(0), 0);
    assert_int_not_equal(ledger_line_ticket(&scene.ledger, own_leader(account_get())), LEDGER_NO_TICKET);
    neighbour_run(&other);
    assert_int_equal(pthread_create(&other.agent, NULL, agent_play, &other), 0);
    assert_int_equal(account_readmit(30000), 0);
    assert_int_equal(pthread_join(other.agent, NULL), 0);
    account_readmit_undo(); /* the card had less than the books said */
    assert_int_equal(own_bytes(0), 0);
    assert_int_equal(account_readmit(30000), 0);
    account_restored();
    assert_int_equal(own_bytes(0), bytes);
    assert_int_equal(ledger_line_ticket(&scene.ledger, own_leader(account_get())), LEDGER_NO_TICKET);
    neighbour_go(&other);
}

static void host_memory_is_limited(void **state)
{
    (void)state;
    struct neighbour other;
    neighbour_come(&other, "other", 0);
    account_settings.has_host_limit = true;
    account_settings.host_limit_bytes = 2 * GIB;
    assert_int_equal(ledger_host_take(&scene.ledger, other.claim.row, 2 * GIB - 600 * MIB, 2 * GIB), 0);
    assert_int_equal(account_image_take(), -ENOSPC);
    assert_int_equal(ledger_host_bytes(&scene.ledger, other.claim.row), 0);
    assert_int_equal(ledger_host_take(&scene.ledger, other.claim.row, GIB, 2 * GIB), 0);
    assert_int_equal(account_image_take(), 0);
    account_image_drop();
    account_settings.has_host_limit = false;
    neighbour_go(&other);
}

static void free_memory_counts_who_can_leave(void **state)
{
    (void)state;
    struct neighbour idle;
    uint64_t free_bytes, total_bytes, own = own_bytes(0);
    neighbour_come(&idle, "idle", 3 * GIB);
    account_settings.wait_ms = 30000;
    assert_true(account_view(0, &free_bytes, &total_bytes));
    assert_int_equal(free_bytes, 5 * GIB - own);
    neighbour_run(&idle);
    assert_true(account_view(0, &free_bytes, &total_bytes));
    assert_int_equal(free_bytes, 8 * GIB - own);
    account_settings.wait_ms = 0; /* who does not wait cannot have it */
    assert_true(account_view(0, &free_bytes, &total_bytes));
    assert_int_equal(free_bytes, 5 * GIB - own);
    neighbour_go(&idle);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refused_when_its_time_is_over),
        cmocka_unit_test(refused_at_once_where_waiting_cannot_help),
        cmocka_unit_test(refused_at_once_where_it_is_not_to_wait),
        cmocka_unit_test(granted_when_a_neighbour_frees),
        cmocka_unit_test(idle_neighbour_is_asked_and_leaves),
        cmocka_unit_test(who_does_not_answer_is_passed_over),
        cmocka_unit_test(newcomer_stands_behind_who_waits),
        cmocka_unit_test(bytes_are_what_they_were),
        cmocka_unit_test(room_is_proven_for_all_that_left),
        cmocka_unit_test(comes_back_only_where_there_is_room),
        cmocka_unit_test(host_memory_is_limited),
        cmocka_unit_test(free_memory_counts_who_can_leave),
    };
    return cmocka_run_group_tests(tests, account_setup, account_teardown);
}
