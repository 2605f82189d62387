/* Devices: one of each uuid, 16 of them, and a budget that is decided once. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "ledger/layout.h"
#include "unit/scene.h"

static void same_uuid_same_device(void **state)
{
    struct scene scene;
    uint8_t uuid[LEDGER_UUID_BYTES] = {0};
    (void)state;
    scene_open(&scene, 8 * GIB); /* has device 0 */
    for (int i = 1; i < LEDGER_DEVICES; i++) {
        uuid[15] = (uint8_t)i;
        assert_int_equal(ledger_device_claim(&scene.ledger, uuid, "a card"), i);
    }
    assert_int_equal(ledger_device_claim(&scene.ledger, uuid, "a card"), LEDGER_DEVICES - 1);
    assert_memory_equal(layout_device(&scene.ledger, LEDGER_DEVICES - 1)->uuid, uuid, sizeof uuid);
    assert_string_equal(layout_device(&scene.ledger, LEDGER_DEVICES - 1)->name, "a card");
    uuid[15] = 99;
    assert_int_equal(ledger_device_claim(&scene.ledger, uuid, "one more"), -ENOSPC);
    scene_close(&scene);
}

/* Opens a ledger with that budget, explicit or a default, and a device nothing was decided of. */
static void undecided_open(struct scene *scene, uint64_t budget_bytes, bool is_explicit)
{
    static const uint8_t uuid[LEDGER_UUID_BYTES] = "a card";
    scene_open(scene, 0);
    struct ledger_request request = {.directory = scene->directory,
                                     .name = "default",
                                     .create = true,
                                     .has_budget = is_explicit,
                                     .budget_bytes = budget_bytes};
    assert_int_equal(ledger_open(&scene->ledger, &request, &scene->fault), 0);
    assert_int_equal(ledger_device_claim(&scene->ledger, uuid, "a card"), 0);
}

static void budget_is_decided_once(void **state)
{
    struct scene scene;
    uint64_t shrunk_to = 42;
    (void)state;
    undecided_open(&scene, 8 * GIB, true);
    assert_false(ledger_device_is_settled(&scene.ledger, 0));
    assert_false(ledger_device_is_settled(&scene.ledger, LEDGER_DEVICES));
    assert_int_equal(ledger_device_settle(&scene.ledger, 0, 24 * GIB, GIB, &shrunk_to, &scene.fault), 0);
    assert_int_equal(shrunk_to, 0);
    assert_true(ledger_device_is_settled(&scene.ledger, 0));
    const struct ledger_device *device = layout_device(&scene.ledger, 0);
    assert_int_equal(atomic_load(&device->budget_bytes), 8 * GIB);
    assert_int_equal(atomic_load(&device->total_bytes), 24 * GIB);
    assert_int_equal(atomic_load(&device->baseline_bytes), GIB);
    /* Who measures later, on a card in use, changes nothing. */
    assert_int_equal(ledger_device_settle(&scene.ledger, 0, 24 * GIB, 20 * GIB, &shrunk_to, &scene.fault), 0);
    assert_int_equal(atomic_load(&device->budget_bytes), 8 * GIB);
    assert_int_equal(atomic_load(&device->baseline_bytes), GIB);
    assert_int_equal(ledger_device_settle(&scene.ledger, LEDGER_DEVICES, 1, 0, &shrunk_to, &scene.fault), -EINVAL);
    scene_close(&scene);
}

static void explicit_budget_must_fit(void **state)
{
    struct scene scene;
    uint64_t shrunk_to;
    (void)state;
    undecided_open(&scene, 8 * GIB, true);
    assert_int_equal(ledger_device_settle(&scene.ledger, 0, 8 * GIB, 1, &shrunk_to, &scene.fault), -ERANGE);
    assert_non_null(strstr(scene.fault.text, "8589934592 B")); /* one byte apart, so to the byte */
    assert_non_null(strstr(scene.fault.text, "8589934591 B"));
    assert_false(ledger_device_is_settled(&scene.ledger, 0));
    assert_int_equal(ledger_device_settle(&scene.ledger, 0, 8 * GIB, 0, &shrunk_to, &scene.fault), 0);
    assert_int_equal(shrunk_to, 0);
    scene_close(&scene);
}

static void default_budget_shrinks(void **state)
{
    struct scene scene;
    uint64_t shrunk_to;
    (void)state;
    undecided_open(&scene, 8 * GIB, false);
    assert_int_equal(ledger_device_settle(&scene.ledger, 0, 6 * GIB, GIB, &shrunk_to, &scene.fault), 0);
    assert_int_equal(shrunk_to, 5 * GIB);
    assert_int_equal(layout_budget(&scene.ledger, 0), 5 * GIB);
    assert_int_equal(ledger_device_settle(&scene.ledger, 0, 6 * GIB, GIB, &shrunk_to, &scene.fault), 0);
    assert_int_equal(shrunk_to, 5 * GIB); /* the next one is told as well */
    scene_close(&scene);
}

static void card_without_room(void **state)
{
    struct scene scene;
    uint64_t shrunk_to;
    (void)state;
    undecided_open(&scene, 8 * GIB, false);
    assert_int_equal(ledger_device_settle(&scene.ledger, 0, GIB, GIB, &shrunk_to, &scene.fault), -ERANGE);
    assert_int_equal(ledger_device_settle(&scene.ledger, 0, GIB, 2 * GIB, &shrunk_to, &scene.fault), -ERANGE);
    assert_false(ledger_device_is_settled(&scene.ledger, 0));
    scene_close(&scene);
}

static void description(void **state)
{
    struct scene scene;
    (void)state;
    scene_open(&scene, 8 * GIB);
    ledger_device_describe(&scene.ledger, 0, true, 90);
    assert_int_equal(atomic_load(&layout_device(&scene.ledger, 0)->simulated), 1);
    assert_int_equal(atomic_load(&layout_device(&scene.ledger, 0)->compute_capability), 90);
    ledger_device_describe(&scene.ledger, LEDGER_DEVICES, true, 90); /* nowhere: no harm */
    scene_close(&scene);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(same_uuid_same_device),    cmocka_unit_test(budget_is_decided_once),
        cmocka_unit_test(explicit_budget_must_fit), cmocka_unit_test(default_budget_shrinks),
        cmocka_unit_test(card_without_room),        cmocka_unit_test(description),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
