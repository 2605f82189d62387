/* What a slot reserves is its own: others never get it, however many want it at once, and the slot gets it without waiting. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "integration/stage.h"

enum { OTHERS = 8 };

static unsigned filled(struct client *client)
{
    unsigned blocks = 0;
    const char *heard = client_hear(client);
    if (sscanf(heard, "ok %u", &blocks) != 1)
        fail_msg("fill: %s", heard);
    return blocks;
}

static uint64_t slot_used(struct stage *stage, const char *name)
{
    struct snapshot snapshot;
    uint64_t used = UINT64_MAX;
    stage_snapshot(stage, &snapshot);
    for (unsigned i = 0; i < snapshot.slot_count; i++)
        if (strcmp(snapshot.slots[i].name, name) == 0)
            used = snapshot.slots[i].used_bytes;
    snapshot_free(&snapshot);
    return used;
}

/* Slot "reserver" keeps 2 of 8 GiB and uses none. Eight others, each in a slot of its own, take block after block at once: all
 * together they get 6 GiB, to the block, and the reserver then gets its 2 at once. */
static void others_get_the_rest_and_no_block_more(void **state)
{
    struct stage *stage = *state;
    struct client reserver, others[OTHERS];
    struct client_terms keeps = {
        .slot = "reserver", .budget = "8GiB", .wrapper = {"env", "CUBUDGET_RESERVE=2GiB", NULL}};
    uint64_t blocks = 0;
    client_start(stage, &reserver, &keeps);
    client_expect(&reserver, "ok", "start");
    for (unsigned i = 0; i < OTHERS; i++) {
        char name[16];
        (void)snprintf(name, sizeof name, "other-%u", i);
        client_start(stage, &others[i], &(struct client_terms){.slot = name});
        client_expect(&others[i], "ok", "init");
    }
    for (unsigned i = 0; i < OTHERS; i++)
        client_tell(&others[i], "fill %llu", 2 * MIB);
    for (unsigned i = 0; i < OTHERS; i++)
        blocks += filled(&others[i]);
    assert_int_equal(blocks * 2 * MIB, (6 * GIB - OTHERS * CONTEXT_BYTES) / (2 * MIB) * (2 * MIB));
    for (unsigned i = 0; i < OTHERS; i++)
        client_expect(&others[i], "error 2", "alloc 0 %llu", 2 * MIB);
    assert_int_equal(stage_used(stage), 6 * GIB);
    assert_int_equal(stage_witness_used(stage), 6 * GIB);
    client_expect(&reserver, "ok", "context");
    client_expect(&reserver, "ok", "alloc 0 %llu", 1520 * MIB); /* all but the context's odd MiB */
    assert_int_equal(slot_used(stage, "reserver"), CONTEXT_BYTES + 1520 * MIB);
    client_expect(&reserver, "error 2", "alloc 1 %llu", 2 * MIB);
    assert_true(stage_witness_peak(stage) <= 8 * GIB);
    client_end(&reserver, 0);
    for (unsigned i = 0; i < OTHERS; i++)
        client_end(&others[i], 0);
    stage_await_empty(stage);
}

/* What the reserver gives back is kept for it again, while others try all the time; what it holds beyond its reserve is not. */
static void given_back_is_kept_again(void **state)
{
    struct stage *stage = *state;
    struct client reserver, others[2];
    struct client_terms keeps = {
        .slot = "reserver", .budget = "8GiB", .wrapper = {"env", "CUBUDGET_RESERVE=2GiB", NULL}};
    client_start(stage, &reserver, &keeps);
    client_expect(&reserver, "ok", "init");
    client_expect(&reserver, "ok", "alloc 0 %llu", GIB);
    for (unsigned i = 0; i < 2; i++) {
        client_start(stage, &others[i], &(struct client_terms){.slot = i == 0 ? "first" : "second"});
        client_expect(&others[i], "ok", "init");
    }
    for (unsigned round = 0; round < 2; round++) { /* the first fills, the second finds it full */
        client_tell(&others[0], "during 1 %u %llu", round + 1, 5 * GIB);
        client_tell(&others[1], "fill %llu", 64 * MIB);
        for (unsigned i = 0; i < 50; i++) {
            client_expect(&reserver, "ok", "free 0");
            client_expect(&reserver, "ok", "alloc 0 %llu", GIB);
        }
        (void)filled(&others[1]);
        (void)client_hear(&others[0]);
    }
    assert_true(stage_witness_peak(stage) <= 8 * GIB);
    client_end(&reserver, 0);
    for (unsigned i = 0; i < 2; i++)
        client_end(&others[i], 0);
    stage_await_empty(stage);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(others_get_the_rest_and_no_block_more, stage_setup, stage_teardown),
        cmocka_unit_test_setup_teardown(given_back_is_kept_again, stage_setup, stage_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
