/* The charge as one process sees it: what fits, what is refused by what, tickets, and sizes at the edge of 64 bits. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>

#include "ledger/layout.h"
#include "unit/scene.h"

#define BUDGET (8 * GIB)

/* One process may hold any number of rows, and each is a rival of the others: enough to say what a look sees. */
struct rivals {
    struct scene scene;
    struct ledger *ledger;
    struct ledger_claim a, b, other; /* a and b in one slot */
};

static int rivals_setup(void **state)
{
    struct rivals *rivals = calloc(1, sizeof *rivals);
    scene_open(&rivals->scene, BUDGET);
    rivals->ledger = &rivals->scene.ledger;
    assert_int_equal(scene_claim(rivals->ledger, "one", &rivals->a), 0);
    assert_int_equal(scene_claim(rivals->ledger, "one", &rivals->b), 0);
    assert_int_equal(scene_claim(rivals->ledger, "two", &rivals->other), 0);
    *state = rivals;
    return 0;
}

static int rivals_teardown(void **state)
{
    struct rivals *rivals = *state;
    ledger_row_release(rivals->ledger, &rivals->a);
    ledger_row_release(rivals->ledger, &rivals->b);
    ledger_row_release(rivals->ledger, &rivals->other);
    scene_close(&rivals->scene);
    free(rivals);
    return 0;
}

static enum ledger_verdict charge(struct rivals *rivals, const struct ledger_claim *claim, uint64_t bytes)
{
    return charge_try(rivals->ledger, claim, 0, bytes, 1);
}

static struct ledger_cell *cell_of(struct rivals *rivals, const struct ledger_claim *claim)
{
    return layout_cell(rivals->ledger, 0, claim->row);
}

static void terms_set(struct rivals *rivals, const struct ledger_claim *claim, uint64_t limit, uint64_t reserve)
{
    struct slot_terms terms = {
        .has_limit = limit != 0, .limit_bytes = limit, .has_reserve = reserve != 0, .reserve_bytes = reserve};
    struct ledger_fault fault;
    if (ledger_slot_settle(rivals->ledger, claim->slot, &terms, &fault) != 0)
        fail_msg("%s", fault.text);
}

static void grant_is_committed_and_in_flight(void **state)
{
    struct rivals *rivals = *state;
    struct ledger_cell *cell = cell_of(rivals, &rivals->a);
    assert_int_equal(charge(rivals, &rivals->a, 100 * MIB), LEDGER_FITS);
    assert_int_equal(atomic_load(&cell->committed_bytes), 100 * MIB);
    assert_int_equal(atomic_load(&cell->in_flight_bytes), 100 * MIB);
    assert_int_equal(atomic_load(&cell->bid_bytes), 0);
    ledger_landed(rivals->ledger, rivals->a.row, 0, 100 * MIB);
    assert_int_equal(atomic_load(&cell->in_flight_bytes), 0);
    assert_int_equal(atomic_load(&cell->committed_bytes), 100 * MIB);
    ledger_credit(rivals->ledger, rivals->a.row, 0, 40 * MIB);
    assert_int_equal(atomic_load(&cell->committed_bytes), 60 * MIB);
    ledger_credit(rivals->ledger, rivals->a.row, 0, GIB); /* never below nothing */
    assert_int_equal(atomic_load(&cell->committed_bytes), 0);
}

/* in_flight is a part of committed, whatever order the two come back in. */
static void credit_before_landing(void **state)
{
    struct rivals *rivals = *state;
    struct ledger_cell *cell = cell_of(rivals, &rivals->a);
    assert_int_equal(charge(rivals, &rivals->a, 10 * MIB), LEDGER_FITS);
    ledger_landed(rivals->ledger, rivals->a.row, 0, 10 * MIB);
    assert_int_equal(charge(rivals, &rivals->a, 5 * MIB), LEDGER_FITS);
    ledger_credit(rivals->ledger, rivals->a.row, 0, 12 * MIB);
    assert_int_equal(atomic_load(&cell->committed_bytes), 3 * MIB);
    assert_int_equal(atomic_load(&cell->in_flight_bytes), 3 * MIB);
    ledger_landed(rivals->ledger, rivals->a.row, 0, 5 * MIB);
    assert_int_equal(atomic_load(&cell->in_flight_bytes), 0);
    assert_int_equal(atomic_load(&cell->committed_bytes), 3 * MIB);
}

static void exactly_the_budget_fits(void **state)
{
    struct rivals *rivals = *state;
    assert_int_equal(charge(rivals, &rivals->a, BUDGET + 1), LEDGER_OVER_BUDGET);
    assert_int_equal(charge(rivals, &rivals->a, BUDGET - 1), LEDGER_FITS);
    assert_int_equal(charge(rivals, &rivals->other, 2), LEDGER_OVER_BUDGET);
    assert_int_equal(charge(rivals, &rivals->other, 1), LEDGER_FITS);
    assert_int_equal(charge(rivals, &rivals->b, 1), LEDGER_OVER_BUDGET);
    assert_int_equal(atomic_load(&cell_of(rivals, &rivals->b)->bid_bytes), 0);
    ledger_credit(rivals->ledger, rivals->other.row, 0, 1);
    assert_int_equal(charge(rivals, &rivals->b, 1), LEDGER_FITS);
}

static void refusal_tells_what_it_saw(void **state)
{
    struct rivals *rivals = *state;
    struct ledger_room room;
    assert_int_equal(charge(rivals, &rivals->a, 2 * GIB), LEDGER_FITS);
    assert_int_equal(charge(rivals, &rivals->other, 5 * GIB), LEDGER_FITS);
    struct ledger_bid bid = bid_of(&rivals->b, 0, 2 * GIB);
    assert_int_equal(ledger_bid_look(rivals->ledger, &bid, &room), LEDGER_OVER_BUDGET);
    assert_int_equal(room.budget_bytes, BUDGET);
    assert_int_equal(room.limit_bytes, LEDGER_NO_LIMIT);
    assert_int_equal(room.committed_bytes, 7 * GIB);
    assert_int_equal(room.slot_bytes, 2 * GIB);
    assert_int_equal(room.dead_bytes, 0);
    assert_int_equal(room.reserved_bytes, 0);
    assert_int_equal(room.bid_bytes, 0);
}

static void limit_is_the_slots(void **state)
{
    struct rivals *rivals = *state;
    terms_set(rivals, &rivals->a, GIB, 0);
    assert_int_equal(charge(rivals, &rivals->a, GIB + 1), LEDGER_OVER_LIMIT);
    assert_int_equal(charge(rivals, &rivals->a, GIB / 2), LEDGER_FITS);
    assert_int_equal(charge(rivals, &rivals->b, GIB / 2 + 1), LEDGER_OVER_LIMIT); /* the rows of a slot share it */
    assert_int_equal(charge(rivals, &rivals->b, GIB / 2), LEDGER_FITS);
    assert_int_equal(charge(rivals, &rivals->other, 4 * GIB), LEDGER_FITS);
}

/* Reserved bytes are out of others' reach and within the slot's own, to the byte. */
static void reserve_is_kept(void **state)
{
    struct rivals *rivals = *state;
    struct ledger_room room;
    terms_set(rivals, &rivals->other, 0, 3 * GIB);
    struct ledger_bid bid = bid_of(&rivals->a, 0, 5 * GIB + 1);
    assert_int_equal(ledger_bid_look(rivals->ledger, &bid, &room), LEDGER_OVER_BUDGET);
    assert_int_equal(room.reserved_bytes, 3 * GIB);
    assert_int_equal(charge(rivals, &rivals->a, 5 * GIB), LEDGER_FITS);
    assert_int_equal(charge(rivals, &rivals->b, 1), LEDGER_OVER_BUDGET);
    assert_int_equal(charge(rivals, &rivals->other, GIB),
                     LEDGER_FITS); /* used bytes count in the reserve, not beside it */
    assert_int_equal(charge(rivals, &rivals->b, 1), LEDGER_OVER_BUDGET);
    assert_int_equal(charge(rivals, &rivals->other, 2 * GIB), LEDGER_FITS);
    assert_int_equal(charge(rivals, &rivals->other, 1), LEDGER_OVER_BUDGET);
}

static void bid_publish_by_hand(struct rivals *rivals, const struct ledger_claim *claim, uint64_t bytes,
                                uint64_t ticket)
{
    struct ledger_cell *cell = cell_of(rivals, claim);
    atomic_store(&cell->bid_ticket, ticket);
    atomic_store(&cell->bid_bytes, bytes);
}

/* A rival's bid counts; where it has no ticket it is the younger, so ours stands. */
static void younger_bid_leaves_ours_standing(void **state)
{
    struct rivals *rivals = *state;
    struct ledger_room room;
    bid_publish_by_hand(rivals, &rivals->other, 6 * GIB, LEDGER_NO_TICKET);
    struct ledger_bid bid = bid_of(&rivals->a, 0, 3 * GIB);
    assert_int_equal(ledger_bid_look(rivals->ledger, &bid, &room), LEDGER_CONTENDED);
    assert_true(bid.standing);
    assert_int_equal(room.bid_bytes, 6 * GIB);
    assert_int_not_equal(bid.ticket, LEDGER_NO_TICKET); /* drawn at the first rival, once */
    uint64_t ticket = bid.ticket;
    assert_int_equal(atomic_load(&cell_of(rivals, &rivals->a)->bid_bytes), 3 * GIB);
    assert_int_equal(atomic_load(&cell_of(rivals, &rivals->a)->bid_ticket), ticket);
    assert_int_equal(ledger_bid_look(rivals->ledger, &bid, NULL), LEDGER_CONTENDED);
    assert_int_equal(bid.ticket, ticket);
    bid_publish_by_hand(rivals, &rivals->other, 0, LEDGER_NO_TICKET);
    assert_int_equal(ledger_bid_look(rivals->ledger, &bid, NULL), LEDGER_FITS);
    assert_int_equal(atomic_load(&cell_of(rivals, &rivals->a)->committed_bytes), 3 * GIB);
}

static void older_bid_makes_ours_withdraw(void **state)
{
    struct rivals *rivals = *state;
    atomic_store(&layout_header(rivals->ledger)->next_ticket, 10);
    bid_publish_by_hand(rivals, &rivals->other, 6 * GIB, 3);
    struct ledger_bid bid = bid_of(&rivals->a, 0, 3 * GIB);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(ledger_bid_look(rivals->ledger, &bid, NULL), LEDGER_CONTENDED);
        assert_false(bid.standing);
        assert_int_equal(bid.ticket, 10);
        assert_int_equal(atomic_load(&cell_of(rivals, &rivals->a)->bid_bytes), 0);
    }
    assert_int_equal(charge(rivals, &rivals->b, 2 * GIB), LEDGER_FITS); /* what fits beside it goes on */
    bid_publish_by_hand(rivals, &rivals->other, 0, LEDGER_NO_TICKET);
    assert_int_equal(ledger_bid_look(rivals->ledger, &bid, NULL), LEDGER_FITS);
}

/* Bids of the same slot contend for its limit as all do for the budget. */
static void bids_contend_for_a_limit(void **state)
{
    struct rivals *rivals = *state;
    terms_set(rivals, &rivals->a, GIB, 0);
    bid_publish_by_hand(rivals, &rivals->b, GIB, LEDGER_NO_TICKET);
    assert_int_equal(charge(rivals, &rivals->a, 1), LEDGER_CONTENDED);
    assert_int_equal(charge(rivals, &rivals->other, GIB), LEDGER_FITS);
    bid_publish_by_hand(rivals, &rivals->b, 0, LEDGER_NO_TICKET);
    assert_int_equal(charge(rivals, &rivals->a, 1), LEDGER_FITS);
}

/* A bid that its slot's reserve covers takes nothing from others. */
static void bid_inside_a_reserve(void **state)
{
    struct rivals *rivals = *state;
    terms_set(rivals, &rivals->other, 0, 3 * GIB);
    bid_publish_by_hand(rivals, &rivals->other, 2 * GIB, LEDGER_NO_TICKET);
    assert_int_equal(charge(rivals, &rivals->a, 5 * GIB), LEDGER_FITS);
}

/* Over by committed bytes alone is a refusal even where bids stand too. */
static void refusal_beside_bids(void **state)
{
    struct rivals *rivals = *state;
    bid_publish_by_hand(rivals, &rivals->other, GIB, 0);
    assert_int_equal(charge(rivals, &rivals->a, BUDGET + 1), LEDGER_OVER_BUDGET);
}

static void withdrawing(void **state)
{
    struct rivals *rivals = *state;
    bid_publish_by_hand(rivals, &rivals->other, BUDGET, LEDGER_NO_TICKET);
    struct ledger_bid bid = bid_of(&rivals->a, 0, GIB);
    assert_int_equal(ledger_bid_look(rivals->ledger, &bid, NULL), LEDGER_CONTENDED);
    assert_true(bid.standing);
    ledger_bid_withdraw(rivals->ledger, &bid);
    assert_false(bid.standing);
    assert_int_equal(atomic_load(&cell_of(rivals, &rivals->a)->bid_bytes), 0);
    ledger_bid_withdraw(rivals->ledger, &bid); /* once more changes nothing */
}

/* No sum wraps: what does not fit 64 bits does not fit a budget. */
static void sizes_near_the_end(void **state)
{
    static const uint64_t sizes[] = {INT64_MAX, 1ULL << 63, UINT64_MAX - 1, UINT64_MAX};
    struct rivals *rivals = *state;
    assert_int_equal(charge(rivals, &rivals->a, GIB), LEDGER_FITS);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        assert_int_equal(charge(rivals, &rivals->a, sizes[i]), LEDGER_OVER_BUDGET);
        assert_int_equal(charge(rivals, &rivals->other, sizes[i]), LEDGER_OVER_BUDGET);
    }
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        atomic_store(&cell_of(rivals, &rivals->other)->committed_bytes, sizes[i]);
        atomic_store(&cell_of(rivals, &rivals->b)->committed_bytes, sizes[i]);
        assert_int_equal(charge(rivals, &rivals->a, 1), LEDGER_OVER_BUDGET);
    }
    atomic_store(&cell_of(rivals, &rivals->other)->committed_bytes, 0);
    atomic_store(&cell_of(rivals, &rivals->b)->committed_bytes, 0);
    bid_publish_by_hand(rivals, &rivals->other, UINT64_MAX, 0);
    bid_publish_by_hand(rivals, &rivals->b, UINT64_MAX, 0);
    assert_int_equal(charge(rivals, &rivals->a, 1), LEDGER_CONTENDED);
}

/* A damaged budget admits nothing that an honest one would not. */
static void damaged_budget(void **state)
{
    struct rivals *rivals = *state;
    atomic_store(&layout_device(rivals->ledger, 0)->budget_bytes, UINT64_MAX);
    assert_int_equal(charge(rivals, &rivals->a, UINT64_MAX), LEDGER_OVER_BUDGET);
    assert_int_equal(charge(rivals, &rivals->a, BUDGET), LEDGER_FITS);
    assert_int_equal(charge(rivals, &rivals->b, 1), LEDGER_OVER_BUDGET);
    ledger_credit(rivals->ledger, rivals->a.row, 0, BUDGET);
    atomic_store(&layout_header(rivals->ledger)->budget_bytes, 1ULL << 63);
    assert_int_equal(charge(rivals, &rivals->a, 1), LEDGER_OVER_BUDGET);
}

static void indexes_out_of_range(void **state)
{
    struct rivals *rivals = *state;
    struct ledger_bid bids[] = {
        {.device = LEDGER_DEVICES, .bytes = 1, .ticket = LEDGER_NO_TICKET},
        {.row = LEDGER_ROWS, .bytes = 1, .ticket = LEDGER_NO_TICKET},
        {.slot = LEDGER_SLOTS, .bytes = 1, .ticket = LEDGER_NO_TICKET},
    };
    for (size_t i = 0; i < sizeof bids / sizeof *bids; i++)
        assert_int_equal(ledger_bid_look(rivals->ledger, &bids[i], NULL), LEDGER_OVER_BUDGET);
}

static void devices_are_apart(void **state)
{
    struct rivals *rivals = *state;
    static const uint8_t uuid[LEDGER_UUID_BYTES] = "scene device 1";
    struct ledger_fault fault;
    uint64_t shrunk_to;
    assert_int_equal(ledger_device_claim(rivals->ledger, uuid, "second"), 1);
    assert_int_equal(ledger_device_settle(rivals->ledger, 1, 2 * BUDGET, 0, &shrunk_to, &fault), 0);
    assert_int_equal(charge(rivals, &rivals->a, BUDGET), LEDGER_FITS);
    assert_int_equal(charge_try(rivals->ledger, &rivals->a, 1, BUDGET, 1), LEDGER_FITS);
    assert_int_equal(charge_try(rivals->ledger, &rivals->b, 1, 1, 1), LEDGER_OVER_BUDGET);
}

/* Bytes of a dead row count for the device and for no slot; its bid counts for nothing. */
static void dead_rows_count(void **state)
{
    struct rivals *rivals = *state;
    struct ledger_room room;
    assert_int_equal(charge(rivals, &rivals->b, 2 * GIB), LEDGER_FITS);
    bid_publish_by_hand(rivals, &rivals->b, 3 * GIB, 0);
    for (unsigned dead = LEDGER_ROW_ORPHANED; dead <= LEDGER_ROW_DYING; dead++) {
        uint64_t tag = atomic_load(layout_tag(rivals->ledger, rivals->b.row));
        atomic_store(layout_tag(rivals->ledger, rivals->b.row), tag_move(tag, (enum ledger_row_state)dead, 0));
        struct ledger_bid bid = bid_of(&rivals->a, 0, 6 * GIB + 1);
        assert_int_equal(ledger_bid_look(rivals->ledger, &bid, &room), LEDGER_OVER_BUDGET);
        assert_int_equal(room.dead_bytes, 2 * GIB);
        assert_int_equal(room.committed_bytes, 2 * GIB);
        assert_int_equal(room.slot_bytes, 0);
        assert_int_equal(charge(rivals, &rivals->a, 6 * GIB), LEDGER_FITS);
        ledger_credit(rivals->ledger, rivals->a.row, 0, 6 * GIB);
    }
}

static void view_tells_what_could_be_had(void **state)
{
    struct rivals *rivals = *state;
    struct ledger_view view;
    ledger_view(rivals->ledger, 0, rivals->a.slot, &view);
    assert_int_equal(view.total_bytes, BUDGET);
    assert_int_equal(view.free_bytes, BUDGET);
    terms_set(rivals, &rivals->a, 4 * GIB, 0);
    terms_set(rivals, &rivals->other, 0, 2 * GIB);
    assert_int_equal(charge(rivals, &rivals->a, GIB), LEDGER_FITS);
    ledger_view(rivals->ledger, 0, rivals->a.slot, &view);
    assert_int_equal(view.total_bytes, 4 * GIB);
    assert_int_equal(view.free_bytes, 3 * GIB);
    ledger_view(rivals->ledger, 0, rivals->other.slot, &view);
    assert_int_equal(view.total_bytes, BUDGET);
    assert_int_equal(view.free_bytes, 7 * GIB);
    assert_int_equal(charge(rivals, &rivals->other, 5 * GIB), LEDGER_FITS);
    ledger_view(rivals->ledger, 0, rivals->a.slot, &view);
    assert_int_equal(view.free_bytes, 2 * GIB);
    assert_int_equal(charge(rivals, &rivals->b, view.free_bytes + 1), LEDGER_OVER_BUDGET);
    assert_int_equal(charge(rivals, &rivals->b, view.free_bytes), LEDGER_FITS);
}

static void peaks_rise_only(void **state)
{
    struct rivals *rivals = *state;
    struct ledger_device *device = layout_device(rivals->ledger, 0);
    struct ledger_slot *slot = layout_slot(rivals->ledger, rivals->a.slot);
    assert_int_equal(charge(rivals, &rivals->a, 3 * GIB), LEDGER_FITS);
    assert_int_equal(charge(rivals, &rivals->other, 2 * GIB), LEDGER_FITS);
    ledger_credit(rivals->ledger, rivals->a.row, 0, 3 * GIB);
    assert_int_equal(charge(rivals, &rivals->b, GIB), LEDGER_FITS);
    assert_int_equal(atomic_load(&device->peak_bytes), 5 * GIB);
    assert_int_equal(atomic_load(&slot->peak_bytes[0]), 3 * GIB);
    assert_int_equal(charge(rivals, &rivals->b, BUDGET), LEDGER_OVER_BUDGET); /* what was refused was never held */
    assert_int_equal(atomic_load(&device->peak_bytes), 5 * GIB);
}

/* Bytes held already are added without asking, even past the budget, and everybody sees it. */
static void commit_unasked(void **state)
{
    struct rivals *rivals = *state;
    ledger_commit_unasked(rivals->ledger, rivals->a.row, 0, BUDGET + GIB);
    assert_int_equal(atomic_load(&cell_of(rivals, &rivals->a)->committed_bytes), BUDGET + GIB);
    assert_int_equal(atomic_load(&cell_of(rivals, &rivals->a)->in_flight_bytes), 0);
    assert_int_equal(atomic_load(&layout_device(rivals->ledger, 0)->peak_bytes), BUDGET + GIB);
    assert_int_equal(atomic_load(&layout_slot(rivals->ledger, rivals->a.slot)->peak_bytes[0]), BUDGET + GIB);
    assert_int_equal(charge(rivals, &rivals->other, 1), LEDGER_OVER_BUDGET);
}

static void kinds_and_counts(void **state)
{
    struct rivals *rivals = *state;
    struct ledger_kinds *kinds = layout_kinds(rivals->ledger, 0, rivals->a.row);
    struct ledger_counts *counts = &layout_row(rivals->ledger, rivals->a.row)->counts;
    ledger_kind_add(rivals->ledger, rivals->a.row, 0, LEDGER_KIND_LINEAR, 10);
    ledger_kind_add(rivals->ledger, rivals->a.row, 0, LEDGER_KIND_LINEAR, -4);
    ledger_kind_add(rivals->ledger, rivals->a.row, 0, LEDGER_KIND_CONTEXT, 7);
    assert_int_equal(atomic_load(&kinds->bytes[LEDGER_KIND_LINEAR]), 6);
    assert_int_equal(atomic_load(&kinds->bytes[LEDGER_KIND_CONTEXT]), 7);
    ledger_kind_add(rivals->ledger, rivals->a.row, 0, LEDGER_KIND_LINEAR, INT64_MIN);
    assert_int_equal(atomic_load(&kinds->bytes[LEDGER_KIND_LINEAR]), 0);
    static const enum ledger_event events[] = {LEDGER_COUNT_ALLOCATION, LEDGER_COUNT_FREE, LEDGER_COUNT_REFUSAL,
                                               LEDGER_COUNT_WAIT};
    for (unsigned i = 0; i < 4; i++)
        for (unsigned times = 0; times <= i; times++)
            ledger_count(rivals->ledger, rivals->a.row, events[i]);
    assert_int_equal(atomic_load(&counts->allocations), 1);
    assert_int_equal(atomic_load(&counts->frees), 2);
    assert_int_equal(atomic_load(&counts->refusals), 3);
    assert_int_equal(atomic_load(&counts->waits), 4);
    assert_int_equal(atomic_load(&counts->evictions) + atomic_load(&counts->restores), 0);
}

/* What a call took is what stays charged: less than was asked for, the same, or more. */
static void settling(void **state)
{
    static const uint64_t actual[] = {0, 60, 100, 140};
    struct rivals *rivals = *state;
    struct ledger_cell *cell = cell_of(rivals, &rivals->a);
    uint64_t held = 0;
    for (unsigned i = 0; i < sizeof actual / sizeof *actual; i++) {
        uint64_t changes = atomic_load(&cell->changes);
        assert_int_equal(charge(rivals, &rivals->a, 100), LEDGER_FITS);
        ledger_settle(rivals->ledger, rivals->a.row, 0, 100, actual[i]);
        held += actual[i];
        assert_int_equal(atomic_load(&cell->committed_bytes), held);
        assert_int_equal(atomic_load(&cell->in_flight_bytes), 0);
        assert_true(atomic_load(&cell->changes) > changes);
    }
    assert_int_equal(ledger_committed(rivals->ledger, rivals->a.row, 0), held);
}

static void context_cost_keeps_the_least(void **state)
{
    struct rivals *rivals = *state;
    assert_int_equal(ledger_context_cost(rivals->ledger, 0), 0);
    ledger_context_cost_seen(rivals->ledger, 0, 600 * MIB);
    ledger_context_cost_seen(rivals->ledger, 0, 527 * MIB);
    ledger_context_cost_seen(rivals->ledger, 0, 700 * MIB);
    ledger_context_cost_seen(rivals->ledger, 0, 0);
    assert_int_equal(ledger_context_cost(rivals->ledger, 0), 527 * MIB);
}

#define RIVALS(test) cmocka_unit_test_setup_teardown(test, rivals_setup, rivals_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        RIVALS(grant_is_committed_and_in_flight),
        RIVALS(credit_before_landing),
        RIVALS(exactly_the_budget_fits),
        RIVALS(refusal_tells_what_it_saw),
        RIVALS(limit_is_the_slots),
        RIVALS(reserve_is_kept),
        RIVALS(younger_bid_leaves_ours_standing),
        RIVALS(older_bid_makes_ours_withdraw),
        RIVALS(bids_contend_for_a_limit),
        RIVALS(bid_inside_a_reserve),
        RIVALS(refusal_beside_bids),
        RIVALS(withdrawing),
        RIVALS(sizes_near_the_end),
        RIVALS(damaged_budget),
        RIVALS(indexes_out_of_range),
        RIVALS(devices_are_apart),
        RIVALS(dead_rows_count),
        RIVALS(view_tells_what_could_be_had),
        RIVALS(peaks_rise_only),
        RIVALS(commit_unasked),
        RIVALS(kinds_and_counts),
        RIVALS(settling),
        RIVALS(context_cost_keeps_the_least),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
