/* Physical memory by handle, over a ledger and a driver that does nothing: what keeps a piece charged, in every order of things. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "account/handles.h"
#include "ledger/snapshot.h"
#include "unit/fake_driver.h"
#include "unit/scene.h"

#define BLOCK (2 * MIB)

/* --- the stage ------------------------------------------------------------------------------------------------------------ */

static struct scene scene;

/* Of both devices; of one by used_on. */
static uint64_t used_on(unsigned number)
{
    struct snapshot snapshot;
    uint64_t bytes = 0;
    assert_int_equal(snapshot_take(&scene.ledger, &snapshot), 0);
    for (unsigned i = 0; i < snapshot.device_count; i++)
        if (snapshot.devices[i].uuid[0] == 7 + number)
            bytes = snapshot.devices[i].used_bytes;
    for (unsigned i = 0; i < snapshot.process_count; i++)
        assert_int_equal(snapshot.processes[i].in_flight_bytes, 0);
    snapshot_free(&snapshot);
    return bytes;
}

static uint64_t used(void)
{
    return used_on(0) + used_on(1);
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

static int nothing_is_left(void **state)
{
    (void)state;
    return used() == 0 ? 0 : -1;
}

static void create(CUdevice device, uint64_t handle, uint64_t bytes)
{
    struct charge charge;
    bool passes;
    assert_true(account_ask_device(device, LEDGER_KIND_VMM, bytes, &charge, &passes));
    (void)handle_record(&charge, handle);
}

static void release(uint64_t handle)
{
    handle_release_end(handle_release_begin(handle), handle, true);
}

static void map_try(uint64_t handle, uint64_t address, uint64_t bytes, bool succeeds)
{
    struct mapping_begun begun = handle_map_begin(handle, address, bytes);
    handle_map_end(&begun, address, bytes, succeeds);
}

static void map(uint64_t handle, uint64_t address, uint64_t bytes)
{
    map_try(handle, address, bytes, true);
}

static void retain(uint64_t handle, uint64_t address)
{
    handle_retain_end(handle_retain_begin(address), handle, true);
}

enum { H = 0x2d5aafa0, OTHER = 0x2d5ab2c0, THIRD = 0x2d5ab600 };
#define AT (1ULL << 40)

/* --- references and mappings ------------------------------------------------------------------------------------------------ */

static void release_gives_back(void **state)
{
    (void)state;
    create(0, H, 3 * BLOCK);
    create(1, OTHER, 5 * BLOCK);
    assert_int_equal(used_on(0), 3 * BLOCK);
    assert_int_equal(used_on(1), 5 * BLOCK);
    release(OTHER);
    assert_int_equal(used_on(1), 0);
    assert_int_equal(used_on(0), 3 * BLOCK);
    release(H);
    release(H); /* one too many, which the driver would refuse */
}

static void last_of_both_gives_back(void **state)
{
    (void)state;
    for (unsigned release_first = 0; release_first < 2; release_first++) {
        create(0, H, 3 * BLOCK);
        map(H, AT, 3 * BLOCK);
        if (release_first)
            release(H);
        else
            handle_unmapped(AT, 3 * BLOCK);
        assert_int_equal(used(), 3 * BLOCK);
        if (release_first)
            handle_unmapped(AT, 3 * BLOCK);
        else
            release(H);
        assert_int_equal(used(), 0);
    }
}

static void one_handle_at_several_addresses(void **state)
{
    (void)state;
    create(0, H, BLOCK);
    map(H, AT, BLOCK);
    map(H, AT + 8 * BLOCK, BLOCK);
    release(H);
    handle_unmapped(AT, BLOCK);
    assert_int_equal(used(), BLOCK);
    handle_unmapped(AT + 8 * BLOCK, BLOCK);
}

/* Whole mappings of several handles at once, with holes and beside others that stay. */
static void range_unmaps_what_lies_in_it(void **state)
{
    enum { MANY = 400 };
    (void)state;
    for (unsigned i = 0; i < MANY; i++) {
        create(0, H + 16 * i, BLOCK);
        map(H + 16 * i, AT + 3 * i * BLOCK, BLOCK); /* two blocks apart */
        release(H + 16 * i);
    }
    assert_int_equal(used(), MANY * BLOCK);
    handle_unmapped(AT + BLOCK, 3 * 99 * BLOCK); /* numbers 1 to 99 */
    assert_int_equal(used(), (MANY - 99) * BLOCK);
    handle_unmapped(AT, BLOCK);
    handle_unmapped(AT, 3 * MANY * BLOCK);
    assert_int_equal(used(), 0);
    for (unsigned i = 0; i < 4; i++) { /* one after another without holes */
        create(0, H + 16 * i, (i + 1) * BLOCK);
        map(H + 16 * i, AT + i * 8 * BLOCK, (i + 1) * BLOCK);
        release(H + 16 * i);
    }
    handle_unmapped(AT, 32 * BLOCK);
}

static void retained_by_address(void **state)
{
    (void)state;
    create(0, H, 4 * BLOCK);
    map(H, AT, 4 * BLOCK);
    retain(H, AT + 3 * BLOCK + 5); /* inside it */
    retain(H, AT);
    release(H);
    release(H);
    handle_unmapped(AT, 4 * BLOCK);
    assert_int_equal(used(), 4 * BLOCK);
    release(H);
    assert_int_equal(used(), 0);
    create(0, H, BLOCK); /* while every handle is released */
    map(H, AT, BLOCK);
    release(H);
    retain(H, AT);
    handle_unmapped(AT, BLOCK);
    assert_int_equal(used(), BLOCK);
    release(H);
}

static void what_is_not_ours_changes_nothing(void **state)
{
    (void)state;
    create(0, H, BLOCK);
    release(OTHER);
    map(OTHER, AT, BLOCK);
    retain(OTHER, AT);
    handle_unmapped(AT, BLOCK);
    handle_retain_end(handle_retain_begin(AT + 64 * BLOCK), 0, false);
    assert_int_equal(used(), BLOCK);
    release(H);
}

/* --- failures, and other threads between the driver's answer and ours -------------------------------------------------------- */

static void refusals_of_the_driver_change_nothing(void **state)
{
    struct charge charge;
    bool passes;
    (void)state;
    assert_true(account_ask_device(0, LEDGER_KIND_VMM, BLOCK, &charge, &passes));
    account_abandon(&charge);
    assert_int_equal(used(), 0);
    create(0, H, BLOCK);
    map_try(H, AT, BLOCK, false);
    handle_release_end(handle_release_begin(H), H, false);
    struct shareable shareable = {.is_descriptor = true, .descriptor = 0};
    handle_export_end(handle_export_begin(H), &shareable, false);
    assert_int_equal(handle_import_begin(&shareable), 0);
    assert_int_equal(used(), BLOCK);
    map(H, AT, BLOCK);
    create(1, OTHER, 3 * BLOCK);
    map_try(OTHER, AT, BLOCK, false); /* there is something already */
    release(OTHER);
    assert_int_equal(used(), BLOCK);
    handle_retain_end(handle_retain_begin(AT), 0, false);
    release(H);
    assert_int_equal(used(), BLOCK);
    handle_unmapped(AT, BLOCK);
}

/* What the books take to be mapped at an address went by a way that they do not see. */
static void address_mapped_again(void **state)
{
    (void)state;
    create(0, H, BLOCK);
    create(1, OTHER, 3 * BLOCK);
    map(H, AT, BLOCK);
    release(H);
    map(OTHER, AT, 3 * BLOCK);
    assert_int_equal(used_on(0), 0);
    release(OTHER);
    assert_int_equal(used_on(1), 3 * BLOCK);
    map(THIRD, AT, BLOCK); /* not charged */
    assert_int_equal(used(), 0);
}

/* A thread has released a handle and not come back to the books; another is given the same value meanwhile. */
static void value_handed_out_again_at_once(void **state)
{
    (void)state;
    create(0, H, 3 * BLOCK);
    memory_name before = handle_release_begin(H);
    create(1, H, 5 * BLOCK);
    assert_int_equal(used_on(0), 0);
    assert_int_equal(used_on(1), 5 * BLOCK);
    handle_release_end(before, H, true);
    assert_int_equal(used_on(1), 5 * BLOCK);
    release(H);
    assert_int_equal(used(), 0);
    create(0, H, 3 * BLOCK); /* to something on the host */
    before = handle_release_begin(H);
    handle_forget(H);
    assert_int_equal(used(), 0);
    handle_release_end(before, H, true);
    before = handle_release_begin(H); /* that thing, and then to memory of ours */
    create(0, H, BLOCK);
    handle_release_end(before, H, true);
    assert_int_equal(used(), BLOCK);
    release(H);
}

/* Held from before the driver's call: a release that comes to the books first does not give back what a mapping keeps. */
static void mapping_and_release_at_once(void **state)
{
    (void)state;
    create(0, H, BLOCK);
    struct mapping_begun mapping = handle_map_begin(H, AT, BLOCK);
    release(H);
    assert_int_equal(used(), BLOCK);
    handle_map_end(&mapping, AT, BLOCK, true);
    memory_name retaining = handle_retain_begin(AT);
    handle_unmapped(AT, BLOCK);
    assert_int_equal(used(), BLOCK);
    handle_retain_end(retaining, H, true);
    release(H);
    assert_int_equal(used(), 0);
    create(0, H, BLOCK);
    mapping = handle_map_begin(H, AT, BLOCK);
    release(H);
    handle_map_end(&mapping, AT, BLOCK, false);
}

/* --- exports and imports -------------------------------------------------------------------------------------------------------- */

/* A descriptor stands for an exported one: what it leads to does not matter. */
static struct shareable descriptor_open(void)
{
    struct shareable shareable = {.is_descriptor = true, .descriptor = open("/dev/null", O_RDONLY | O_CLOEXEC)};
    assert_true(shareable.descriptor >= 0);
    return shareable;
}

static void export_as(uint64_t handle, const struct shareable *shareable)
{
    handle_export_end(handle_export_begin(handle), shareable, true);
}

static void import_as(uint64_t handle, const struct shareable *shareable)
{
    handle_import_end(handle_import_begin(shareable), handle, true);
}

/* The driver gives a value that it has just released to another's memory, before the books of the release are closed. */
static void anothers_memory_under_a_released_value_is_not_charged(void **state)
{
    (void)state;
    struct shareable foreign = descriptor_open();
    create(0, H, 4 * BLOCK);
    memory_name released = handle_release_begin(H);
    import_as(H, &foreign);
    assert_int_equal(used(), 0);
    handle_release_end(released, H, true);
    map(H, AT, 4 * BLOCK);
    assert_int_equal(used(), 0);
    handle_unmapped(AT, 4 * BLOCK);
    release(H);
    assert_int_equal(used(), 0);
    close(foreign.descriptor);
}

static void own_memory_imported_is_held_twice(void **state)
{
    (void)state;
    struct shareable shareable = descriptor_open();
    create(0, H, 4 * BLOCK);
    export_as(H, &shareable);
    import_as(OTHER, &shareable);
    close(shareable.descriptor);
    release(H);
    assert_int_equal(used(), 4 * BLOCK);
    map(OTHER, AT, 4 * BLOCK);
    release(OTHER);
    assert_int_equal(used(), 4 * BLOCK);
    handle_unmapped(AT, 4 * BLOCK);
}

static void foreign_memory_imported_is_not_charged(void **state)
{
    (void)state;
    struct shareable shareable = descriptor_open();
    import_as(OTHER, &shareable);
    map(OTHER, AT, BLOCK);
    assert_int_equal(used(), 0);
    release(OTHER);
    handle_unmapped(AT, BLOCK);
    assert_int_equal(used(), 0);
    close(shareable.descriptor);
}

/* The driver keeps exported memory while the descriptor is open: seen to be closed at the tick, or when room is needed. */
static void open_descriptor_keeps_it_charged(void **state)
{
    (void)state;
    struct shareable shareable = descriptor_open(), second = descriptor_open();
    create(0, H, 5 * GIB);
    export_as(H, &shareable);
    export_as(H, &second);
    release(H);
    assert_int_equal(used(), 5 * GIB);
    close(shareable.descriptor);
    account_tick(false);
    assert_int_equal(used(), 5 * GIB);
    import_as(OTHER, &second);
    close(second.descriptor);
    account_tick(false);
    assert_int_equal(used(), 5 * GIB);
    release(OTHER);
    assert_int_equal(used(), 0);
    shareable = descriptor_open();
    create(0, H, 5 * GIB);
    export_as(H, &shareable);
    release(H);
    close(shareable.descriptor);
    create(0, OTHER, 5 * GIB); /* fits only without the other */
    assert_int_equal(used(), 5 * GIB);
    release(OTHER);
}

/* The number of a closed descriptor comes again, at an export or as something else. */
static void number_of_a_descriptor_comes_again(void **state)
{
    (void)state;
    struct shareable shareable = descriptor_open();
    create(0, H, BLOCK);
    create(0, OTHER, 3 * BLOCK);
    export_as(H, &shareable);
    export_as(OTHER, &shareable);
    release(H);
    assert_int_equal(used(), 3 * BLOCK);
    release(OTHER);
    assert_int_equal(used(), 3 * BLOCK);
    int zero = open("/dev/zero", O_RDONLY | O_CLOEXEC);
    assert_int_equal(dup2(zero, shareable.descriptor), shareable.descriptor);
    account_tick(false);
    assert_int_equal(used(), 0);
    import_as(THIRD, &shareable);
    close(zero);
    close(shareable.descriptor);
}

static void fabric_handles_are_known_again(void **state)
{
    (void)state;
    struct shareable fabric = {.descriptor = -1, .digest = 4711}, unknown = {.descriptor = -1, .digest = 4712};
    create(0, H, BLOCK);
    export_as(H, &fabric);
    export_as(H, &fabric);
    import_as(OTHER, &fabric);
    import_as(THIRD, &unknown);
    release(H);
    assert_int_equal(used(), BLOCK);
    release(OTHER);
    assert_int_equal(used(), 0);
    import_as(OTHER, &fabric); /* its memory is gone; the driver would refuse */
    assert_int_equal(used(), 0);
}

static void external_memory_holds_until_its_buffers_go(void **state)
{
    (void)state;
    struct shareable shareable = descriptor_open();
    create(0, H, BLOCK);
    export_as(H, &shareable);
    external_import_end(&fake_driver, handle_import_begin(&shareable), 0x1000, true, &shareable);
    struct shareable another =
        descriptor_open(); /* the driver took the first, and its number means something else now */
    assert_int_equal(dup2(another.descriptor, shareable.descriptor), shareable.descriptor);
    release(H);
    assert_int_equal(used(), BLOCK);
    external_buffer_end(&fake_driver, external_buffer_begin(0x1000), AT, true);
    external_buffer_end(&fake_driver, external_buffer_begin(0x1000), 0, false);
    external_destroy_end(external_destroy_begin(0x1000), 0x1000, false);
    external_destroy_end(external_destroy_begin(0x1000), 0x1000, true);
    assert_int_equal(used(), BLOCK);
    account_freed(AT);
    assert_int_equal(used(), 0);
    external_destroy_end(external_destroy_begin(0x1000), 0x1000, true);
    account_freed(AT);
    close(another.descriptor);
    close(shareable.descriptor);
}

/* The end of a context ends its external memory, and no other memory by handle. */
static void end_of_a_context(void **state)
{
    (void)state;
    static int place;
    struct shareable shareable = descriptor_open();
    struct context_charge context;
    struct context_ending ending;
    assert_true(context_begin(&fake_driver, 0, false, &context));
    context_end(&context, CUDA_SUCCESS, (CUcontext)(void *)&place, false);
    fake_current = (CUcontext)(void *)&place;
    create(0, H, BLOCK);
    create(0, OTHER, 3 * BLOCK);
    export_as(H, &shareable);
    external_import_end(&fake_driver, handle_import_begin(&shareable), 0x1000, true, &shareable);
    external_buffer_end(&fake_driver, external_buffer_begin(0x1000), AT, true);
    close(shareable.descriptor);
    release(H);
    context_ending_begin(fake_current, 0, &ending);
    context_ending_end(&ending, true);
    fake_current = NULL;
    assert_int_equal(used(), 3 * BLOCK);
    release(OTHER);
}

/* What stood at an address that an import is given was freed unseen; the next free of it is not ours. */
static void address_of_an_import_was_free(void **state)
{
    struct charge charge;
    bool passes;
    (void)state;
    assert_true(account_ask_device(0, LEDGER_KIND_LINEAR, 3 * BLOCK, &charge, &passes));
    account_record(&charge, AT, 3 * BLOCK);
    account_imported(AT);
    assert_int_equal(used(), 0);
    account_imported(AT);
    account_freed(AT);
    assert_int_equal(used(), 0);
}

static void forked_child_owes_nothing(void **state)
{
    (void)state;
    create(0, H, BLOCK);
    pid_t child = fork();
    if (child == 0) {
        release(H);
        handle_unmapped(AT, BLOCK);
        _exit(account_is_attached());
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    assert_int_equal(used(), BLOCK);
    release(H);
}

/* --- at random --------------------------------------------------------------------------------------------------------------- */

/* A plain model: pieces with references and mappings, every value and address its own, driven through more than fits the first
 * tables. */
static void random_work_agrees_with_a_plain_model(void **state)
{
    enum { PIECES = 500, STEPS = 60000 };
    static struct {
        unsigned references, mappings;
    } model[PIECES];
    uint32_t seed = 20261124;
    uint64_t expected = 0;
    (void)state;
    memset(model, 0, sizeof model);
    for (unsigned step = 0; step < STEPS; step++) {
        unsigned i = random_next(&seed) % PIECES, what = random_next(&seed) % 5;
        uint64_t handle = H + 48ULL * i, address = AT + i * 64 * BLOCK, bytes = (i % 7 + 1) * BLOCK;
        bool held = model[i].references != 0 || model[i].mappings != 0;
        if (what == 0 && !held && expected + bytes <= 7 * GIB) {
            create((CUdevice)(i % 2), handle, bytes);
            model[i].references = 1;
            expected += bytes;
        } else if (what == 1 && model[i].references != 0 && model[i].mappings < 4)
            map(handle, address + model[i].mappings++ * 8 * BLOCK, bytes);
        else if (what == 2 && model[i].mappings != 0) {
            retain(handle, address + 17);
            model[i].references++;
        } else if (what == 3 && model[i].references != 0) {
            release(handle);
            model[i].references--;
        } else if (what == 4 && model[i].mappings != 0) {
            bool all = random_next(&seed) % 2;
            handle_unmapped(all ? address : address + (model[i].mappings - 1) * 8 * BLOCK, all ? 32 * BLOCK : bytes);
            model[i].mappings = all ? 0 : model[i].mappings - 1;
        }
        if (held && model[i].references == 0 && model[i].mappings == 0)
            expected -= bytes;
        if (step % 512 == 0)
            assert_int_equal(used(), expected);
    }
    for (unsigned i = 0; i < PIECES; i++) {
        handle_unmapped(AT + i * 64 * BLOCK, 32 * BLOCK);
        while (model[i].references-- > 0)
            release(H + 48ULL * i);
    }
}

int main(void)
{
#define HANDLES(test) cmocka_unit_test_teardown(test, nothing_is_left)
    static const struct CMUnitTest tests[] = {
        HANDLES(release_gives_back),
        HANDLES(last_of_both_gives_back),
        HANDLES(one_handle_at_several_addresses),
        HANDLES(range_unmaps_what_lies_in_it),
        HANDLES(retained_by_address),
        HANDLES(what_is_not_ours_changes_nothing),
        HANDLES(refusals_of_the_driver_change_nothing),
        HANDLES(address_mapped_again),
        HANDLES(value_handed_out_again_at_once),
        HANDLES(mapping_and_release_at_once),
        HANDLES(anothers_memory_under_a_released_value_is_not_charged),
        HANDLES(own_memory_imported_is_held_twice),
        HANDLES(foreign_memory_imported_is_not_charged),
        HANDLES(open_descriptor_keeps_it_charged),
        HANDLES(number_of_a_descriptor_comes_again),
        HANDLES(fabric_handles_are_known_again),
        HANDLES(external_memory_holds_until_its_buffers_go),
        HANDLES(end_of_a_context),
        HANDLES(address_of_an_import_was_free),
        HANDLES(forked_child_owes_nothing),
        HANDLES(random_work_agrees_with_a_plain_model),
    };
    fake_devices = 2;
    return cmocka_run_group_tests(tests, account_setup, account_teardown);
}
