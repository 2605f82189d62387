/* The books of one process over a driver of a few lines: what each call is charged, and what is left when it is undone. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "account/account.h"
#include "ledger/snapshot.h"
#include "unit/fake_driver.h"
#include "unit/scene.h"

#define BLOCK     (2 * MIB)
#define PREDICTED (600 * MIB) /* no NVML here, so a context stays charged what was predicted */

/* --- the stage: one account for all tests, as a process has one ----------------------------------------------------------- */

static struct scene scene;
static int first_context, second_context; /* addresses serve as handles */
static const CUcontext first = (CUcontext)(void *)&first_context, second = (CUcontext)(void *)&second_context;

static uint64_t used(void)
{
    struct snapshot snapshot;
    uint64_t bytes = 0;
    assert_int_equal(snapshot_take(&scene.ledger, &snapshot), 0);
    for (unsigned i = 0; i < snapshot.device_count; i++)
        bytes += snapshot.devices[i].used_bytes;
    for (unsigned i = 0; i < snapshot.process_count; i++)
        assert_int_equal(snapshot.processes[i].in_flight_bytes, 0);
    snapshot_free(&snapshot);
    return bytes;
}

static CUresult context_make(CUcontext handle)
{
    struct context_charge context;
    if (!context_begin(&fake_driver, 0, false, &context))
        return CUDA_ERROR_OUT_OF_MEMORY;
    context_end(&context, CUDA_SUCCESS, handle, false);
    fake_current = handle;
    return CUDA_SUCCESS;
}

static void context_destroy(CUcontext handle)
{
    struct context_ending ending;
    context_ending_begin(handle, 0, &ending);
    context_ending_end(&ending, true);
    fake_current = NULL;
}

static int account_setup(void **state)
{
    (void)state;
    scene_open(&scene, 8 * GIB);
    struct settings settings;
    struct settings_fault fault;
    assert_int_equal(setenv("CUBUDGET_DIR", scene.directory, 1), 0);
    assert_int_equal(settings_read(&settings, &fault), 0);
    struct account_fault refusal;
    account_configure(&settings, true);
    assert_int_equal(account_attach(&fake_driver, &refusal), 0);
    assert_true(account_is_attached());
    return 0;
}

static int account_teardown(void **state)
{
    (void)state;
    scene_close(&scene);
    return 0;
}

static int contexts_setup(void **state)
{
    (void)state;
    assert_int_equal(used(), 0);
    assert_int_equal(context_make(second), CUDA_SUCCESS);
    assert_int_equal(context_make(first), CUDA_SUCCESS);
    return 0;
}

static int contexts_teardown(void **state)
{
    (void)state;
    context_destroy(first);
    context_destroy(second);
    return used() == 0 ? 0 : -1;
}

static void take(uint64_t pointer, uint64_t bytes)
{
    struct charge charge;
    bool passes;
    assert_true(account_ask(&fake_driver, LEDGER_KIND_LINEAR, linear_cost(bytes), &charge, &passes));
    account_record(&charge, pointer, bytes);
}

/* --- tests ------------------------------------------------------------------------------------------------------------- */

static void small_ones_share_a_block(void **state)
{
    (void)state;
    uint64_t base = 64 * BLOCK;
    for (unsigned i = 0; i < 100; i++)
        take(base + i * 512, 100);
    assert_int_equal(used(), 2 * PREDICTED + BLOCK);
    take(base + BLOCK, 1 * MIB); /* in the next block */
    assert_int_equal(used(), 2 * PREDICTED + 2 * BLOCK);
    for (unsigned i = 0; i < 99; i++)
        account_freed(base + i * 512);
    assert_int_equal(used(), 2 * PREDICTED + 2 * BLOCK);
    account_freed(base + 99 * 512);
    account_freed(base + BLOCK);
    assert_int_equal(used(), 2 * PREDICTED);
}

static void large_ones_have_their_own(void **state)
{
    (void)state;
    take(64 * BLOCK, MIB + 1);
    take(65 * BLOCK, BLOCK + 1);
    assert_int_equal(used(), 2 * PREDICTED + 3 * BLOCK);
    account_freed(64 * BLOCK);
    assert_int_equal(used(), 2 * PREDICTED + 2 * BLOCK);
    account_freed(65 * BLOCK);
}

static void what_is_not_ours_changes_nothing(void **state)
{
    (void)state;
    account_freed(12345 * BLOCK);
    account_freed(0);
    assert_int_equal(used(), 2 * PREDICTED);
}

/* The driver hands an address out again before its last owner's thread has come to the books: by turns of both kinds. */
static void address_handed_out_again_at_once(void **state)
{
    static const uint64_t sizes[] = {10 * BLOCK, 100};
    (void)state;
    for (unsigned before = 0; before < 2; before++)
        for (unsigned after = 0; after < 2; after++) {
            uint64_t pointer = 64 * BLOCK, kept = sizes[after] > MIB ? sizes[after] : BLOCK;
            take(pointer, sizes[before]);
            take(pointer, sizes[after]); /* freed and taken by another thread */
            assert_int_equal(used(), 2 * PREDICTED + kept);
            account_freed(pointer); /* the first owner, late */
            assert_int_equal(used(), 2 * PREDICTED + kept);
            account_freed(pointer);
            assert_int_equal(used(), 2 * PREDICTED);
        }
}

static void refused_by_the_driver(void **state)
{
    (void)state;
    struct charge charge;
    bool passes;
    assert_true(account_ask(&fake_driver, LEDGER_KIND_MANAGED, 3 * BLOCK, &charge, &passes));
    account_abandon(&charge);
    assert_int_equal(used(), 2 * PREDICTED);
}

/* A pitch that is wider than was predicted, and one that is narrower. */
static void cost_differs_from_what_was_asked(void **state)
{
    (void)state;
    struct charge charge;
    bool passes;
    assert_true(account_ask(&fake_driver, LEDGER_KIND_LINEAR, 4 * BLOCK, &charge, &passes));
    account_record(&charge, 64 * BLOCK, 5 * BLOCK);
    assert_true(account_ask(&fake_driver, LEDGER_KIND_LINEAR, 4 * BLOCK, &charge, &passes));
    account_record(&charge, 70 * BLOCK, 3 * BLOCK);
    assert_int_equal(used(), 2 * PREDICTED + 8 * BLOCK);
    account_freed(64 * BLOCK);
    account_freed(70 * BLOCK);
}

static void end_of_a_context_frees_its_own(void **state)
{
    (void)state;
    take(64 * BLOCK, 100);
    take(65 * BLOCK, 7 * BLOCK);
    fake_current = second;
    take(80 * BLOCK, 100);
    take(81 * BLOCK, 5 * BLOCK);
    assert_int_equal(used(), 2 * PREDICTED + 14 * BLOCK);
    context_destroy(first);
    assert_int_equal(used(), PREDICTED + 6 * BLOCK);
    account_freed(65 * BLOCK); /* too late: nothing */
    account_freed(81 * BLOCK);
    assert_int_equal(used(), PREDICTED + BLOCK);
    assert_int_equal(context_make(first), CUDA_SUCCESS);
}

static void context_made_elsewhere_is_adopted(void **state)
{
    static int other_context;
    (void)state;
    fake_current = (CUcontext)(void *)&other_context;
    take(64 * BLOCK, BLOCK);
    assert_int_equal(used(), 2 * PREDICTED + BLOCK); /* its own cost is not known, its memory is charged */
    context_destroy((CUcontext)(void *)&other_context);
    assert_int_equal(used(), 2 * PREDICTED);
}

static void nothing_to_charge_passes(void **state)
{
    (void)state;
    struct charge charge;
    bool passes = false;
    fake_current = NULL;
    assert_false(account_ask(&fake_driver, LEDGER_KIND_LINEAR, BLOCK, &charge, &passes));
    assert_true(passes);
    fake_current = first;
    passes = false;
    assert_false(account_ask(&fake_driver, LEDGER_KIND_LINEAR, 0, &charge, &passes));
    assert_true(passes);
}

/* Memory of no context: for the device that the call names, without a current context, and left by the end of any. */
static void named_device_is_charged(void **state)
{
    (void)state;
    struct charge charge;
    bool passes = false;
    fake_current = NULL;
    assert_true(account_ask_device(0, LEDGER_KIND_VMM, BLOCK, &charge, &passes));
    assert_int_equal(charge.owner, OWNER_NONE);
    account_record(&charge, 64 * BLOCK, BLOCK);
    context_destroy(first);
    assert_int_equal(used(), PREDICTED + BLOCK);
    account_freed(64 * BLOCK);
    assert_int_equal(context_make(first), CUDA_SUCCESS);
    assert_false(account_ask_device(1, LEDGER_KIND_VMM, BLOCK, &charge, &passes));
    assert_true(passes);
    assert_false(account_ask_device(0, LEDGER_KIND_VMM, 0, &charge, &passes));
    assert_true(passes);
    assert_false(account_ask_device(0, LEDGER_KIND_VMM, 8 * GIB, &charge, &passes));
    assert_false(passes);
    assert_int_equal(used(), 2 * PREDICTED);
}

static void too_much_is_refused(void **state)
{
    (void)state;
    struct charge charge;
    bool passes;
    assert_false(account_ask(&fake_driver, LEDGER_KIND_LINEAR, 8 * GIB, &charge, &passes));
    assert_false(passes);
    assert_false(account_ask(&fake_driver, LEDGER_KIND_LINEAR, linear_cost(UINT64_MAX), &charge, &passes));
    assert_false(passes);
    assert_int_equal(used(), 2 * PREDICTED);
}

static void uses_of_a_context_are_counted(void **state)
{
    (void)state;
    assert_false(context_use(first, +1));
    assert_false(context_use(first, -1));
    assert_true(context_use(first, -1));
    assert_false(context_use(first, +1));
    assert_false(context_use(NULL, -1));
}

static void array_take(uint64_t handle, uint64_t bytes)
{
    struct array_charge array;
    bool passes;
    assert_true(array_ask(&fake_driver, bytes, &array, &passes));
    array_record(&array, handle);
}

static void array_give(uint64_t handle)
{
    struct array_ending ending;
    array_ending_begin(handle, &ending);
    array_ending_end(&ending, true);
}

/* The driver may hand a handle out again before it has given the memory back: both are charged until the call has returned. */
static void handle_is_used_again_while_its_array_is_destroyed(void **state)
{
    (void)state;
    struct array_ending ending;
    array_take(0x1000, 3 * BLOCK);
    array_ending_begin(0x1000, &ending);
    array_take(0x1000, 5 * BLOCK);
    assert_int_equal(used(), 2 * PREDICTED + 8 * BLOCK);
    array_ending_end(&ending, true);
    assert_int_equal(used(), 2 * PREDICTED + 5 * BLOCK);
    array_give(0x1000);
    assert_int_equal(used(), 2 * PREDICTED);
}

/* A driver that refuses leaves the array what it was; a context that ends takes one along that is being destroyed. */
static void array_stays_charged_where_it_is_not_destroyed(void **state)
{
    (void)state;
    struct array_ending ending;
    array_take(0x1000, 3 * BLOCK);
    array_ending_begin(0x1000, &ending);
    array_ending_end(&ending, false);
    assert_int_equal(used(), 2 * PREDICTED + 3 * BLOCK);
    array_ending_begin(0x1000, &ending);
    context_destroy(first);
    assert_int_equal(used(), PREDICTED);
    array_ending_end(&ending, false);
    assert_int_equal(used(), PREDICTED);
    assert_int_equal(context_make(first), CUDA_SUCCESS);
}

/* Eight of 200 KiB are taken to fill a block, and what was charged stays until the last is gone. */
static void small_arrays_are_packed_where_the_card_cannot_say(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 20; i++)
        array_take(0x1000 + i * 64, 200 << 10);
    assert_int_equal(used(), 2 * PREDICTED + 3 * BLOCK);
    for (unsigned i = 0; i < 17; i++)
        array_give(0x1000 + i * 64);
    assert_int_equal(used(), 2 * PREDICTED + 3 * BLOCK);
    array_give(0x1000 + 17 * 64); /* two are left: they hold two blocks at most */
    assert_int_equal(used(), 2 * PREDICTED + 2 * BLOCK);
    array_take(0x1000, 3 * BLOCK);
    array_give(0x1000 + 18 * 64);
    array_give(0x1000 + 19 * 64);
    assert_int_equal(used(), 2 * PREDICTED + 3 * BLOCK);
    array_give(0x1000);
    array_give(0x1000); /* an import, or too late */
    assert_int_equal(used(), 2 * PREDICTED);
}

/* The block of the last small memory may hold an array: one block for each array stays, and goes with it. */
static void block_stays_charged_while_arrays_may_lie_in_it(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 3; i++)
        take((64 + i) * BLOCK, 1 * MIB);
    for (unsigned i = 0; i < 2; i++)
        array_take(0x1000 + i * 64, 1000);
    assert_int_equal(used(), 2 * PREDICTED + 4 * BLOCK);
    for (unsigned i = 0; i < 3; i++)
        account_freed((64 + i) * BLOCK);
    assert_int_equal(used(), 2 * PREDICTED + 2 * BLOCK);
    array_give(0x1000);
    assert_int_equal(used(), 2 * PREDICTED + BLOCK);
    array_give(0x1000 + 64);
    assert_int_equal(used(), 2 * PREDICTED);
}

static void end_of_a_context_frees_its_arrays_and_more(void **state)
{
    (void)state;
    struct measured_charge measured;
    bool passes;
    array_take(0x1000, 1000);
    array_take(0x1040, 5 * BLOCK);
    assert_true(measured_ask(&fake_driver, LEDGER_KIND_MODULE, 3 * BLOCK, &measured, &passes));
    assert_int_equal(measured_cost(&measured), 3 * BLOCK); /* nobody says otherwise */
    measured_record(&measured, 0x2000, 3 * BLOCK);
    assert_true(measured_ask(&fake_driver, LEDGER_KIND_CONTEXT, BLOCK, &measured, &passes));
    measured_record_context(&measured, CONTEXT_STACKS, measured_cost(&measured));
    assert_true(measured_ask(&fake_driver, LEDGER_KIND_CONTEXT, 2 * BLOCK, &measured, &passes));
    measured_record_context(&measured, CONTEXT_STACKS, measured_cost(&measured));
    assert_int_equal(used(), 2 * PREDICTED + 12 * BLOCK);
    context_destroy(first);
    assert_int_equal(used(), PREDICTED);
    array_give(0x1000);
    account_freed(0x2000);
    assert_int_equal(used(), PREDICTED);
    assert_int_equal(context_make(first), CUDA_SUCCESS);
}

static void refused_measurements_leave_nothing(void **state)
{
    (void)state;
    struct measured_charge measured;
    struct array_charge array;
    bool passes = true;
    assert_false(measured_ask(&fake_driver, LEDGER_KIND_MODULE, 8 * GIB, &measured, &passes));
    assert_false(passes);
    assert_true(measured_ask(&fake_driver, LEDGER_KIND_MODULE, BLOCK, &measured, &passes));
    measured_abandon(&measured);
    assert_true(measured_ask(&fake_driver, LEDGER_KIND_MODULE, 0, &measured, &passes));
    assert_int_equal(measured_cost(&measured), 0);
    assert_false(measured_extend(&measured, 8 * GIB)); /* more than there is: the caller undoes it */
    account_abandon(&measured.charge);
    assert_true(array_ask(&fake_driver, 1000, &array, &passes));
    account_abandon(&array.charge);
    array_abandon(&array);
    assert_false(array_ask(&fake_driver, 0, &array, &passes));
    assert_true(passes);
    assert_int_equal(used(), 2 * PREDICTED);
}

int main(void)
{
#define BOOKS(test) cmocka_unit_test_setup_teardown(test, contexts_setup, contexts_teardown)
    static const struct CMUnitTest tests[] = {
        BOOKS(small_ones_share_a_block),
        BOOKS(large_ones_have_their_own),
        BOOKS(what_is_not_ours_changes_nothing),
        BOOKS(address_handed_out_again_at_once),
        BOOKS(refused_by_the_driver),
        BOOKS(cost_differs_from_what_was_asked),
        BOOKS(end_of_a_context_frees_its_own),
        BOOKS(context_made_elsewhere_is_adopted),
        BOOKS(nothing_to_charge_passes),
        BOOKS(named_device_is_charged),
        BOOKS(too_much_is_refused),
        BOOKS(uses_of_a_context_are_counted),
        BOOKS(handle_is_used_again_while_its_array_is_destroyed),
        BOOKS(array_stays_charged_where_it_is_not_destroyed),
        BOOKS(small_arrays_are_packed_where_the_card_cannot_say),
        BOOKS(block_stays_charged_while_arrays_may_lie_in_it),
        BOOKS(end_of_a_context_frees_its_arrays_and_more),
        BOOKS(refused_measurements_leave_nothing),
    };
    return cmocka_run_group_tests(tests, account_setup, account_teardown);
}
