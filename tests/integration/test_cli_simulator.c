/*
 * cubudget dump, check and gc beside a simulated machine: its figures are shown, held against the ledger's, and it goes with gc
 * when nobody uses it. The test is itself the process that uses the machine.
 */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include "integration/cli_stage.h"
#include "platform/log.h"
#include "sim/machine_file.h"

/* Makes a machine in the stage's directory, and its device one of the ledger. */
static void machine_make(struct stage *stage, struct machine *machine)
{
    struct sim_options options;
    struct ledger_fault ledger_fault;
    char fault[MACHINE_FAULT_BYTES];
    uint64_t shrunk_to;
    assert_int_equal(options_parse("memory=24GiB", &options, fault, sizeof fault), 0);
    assert_int_equal(machine_open(machine, &options, fault, sizeof fault), 0);
    assert_int_equal(machine_claim(machine), 0);
    int device = ledger_device_claim(&stage->ledger, machine->shared->device[0].uuid, "Simulated Card");
    assert_true(device > 0);
    stage->device = (unsigned)device;
    assert_int_equal(ledger_device_settle(&stage->ledger, stage->device, 24 * GIB, 0, &shrunk_to, &ledger_fault), 0);
    ledger_device_describe(&stage->ledger, stage->device, true, 90);
}

static void test_dump(void **state)
{
    struct stage *stage = *state;
    struct machine machine;
    machine_make(stage, &machine);
    charge(stage, row_claim(stage, 0, "a", "x"), 3 * GIB, LEDGER_KIND_LINEAR);
    assert_int_equal(machine_charge(&machine, 0, 5 * GIB), 0);
    machine_credit(&machine, 0, 2 * GIB);
    json_t *root = dump_parse(stage);
    const json_t *real = json_array_get(member(root, "devices"), 0),
                 *simulated = json_array_get(member(root, "devices"), 1);
    assert_true(json_is_true(member(simulated, "simulated")));
    require_integer(simulated, "used_bytes", 3 * GIB);
    require_integer(simulated, "simulator_used_bytes", 3 * GIB);
    require_integer(simulated, "simulator_peak_bytes", 5 * GIB);
    assert_null(json_object_get(real, "simulator_used_bytes"));
    const json_t *process = json_array_get(member(root, "processes"), 0);
    require_integer(process, "driver_bytes", 3 * GIB);
    require_integer(process, "drift_bytes", 0);
    json_decref(root);
    (void)cubudget(stage, "dump", NULL, NULL);
    require_text(stage->out, "         linear 3.00 GiB\n         driver 3.00 GiB, no drift\n");
    require_text(stage->out, "device 1  Simulated Card (simulated)\n");
    require_text(stage->out, "  simulator    3.00 GiB used, peak 5.00 GiB\n");
    machine_close(&machine);
}

static void test_check_agrees(void **state)
{
    struct stage *stage = *state;
    struct machine machine;
    machine_make(stage, &machine);
    charge(stage, row_claim(stage, 0, "a", "x"), 3 * GIB, LEDGER_KIND_LINEAR);
    assert_int_equal(machine_charge(&machine, 0, 3 * GIB), 0);
    (void)cubudget(stage, "check", NULL, NULL);
    require_status(stage, 0);
    require_text(stage->out,
                 "ok   device 1: 3221225472 bytes are charged (0 of them in flight), and the simulator holds "
                 "3221225472\n");
    machine_close(&machine);
}

static void test_check_uncharged(void **state)
{
    struct stage *stage = *state;
    struct machine machine;
    machine_make(stage, &machine);
    assert_int_equal(machine_charge(&machine, 0, 2 * MIB), 0);
    (void)cubudget(stage, "check", NULL, NULL);
    require_status(stage, EXIT_CHECK_FAILED);
    require_text(stage->out,
                 "FAIL device 1: 0 bytes are charged (0 of them in flight), and the simulator holds 2097152\n");
    machine_close(&machine);
}

/* Charged and on its way to the driver: the simulator may or may not hold it yet. */
static void test_check_in_flight(void **state)
{
    struct stage *stage = *state;
    struct machine machine;
    machine_make(stage, &machine);
    const struct ledger_claim *claim = row_claim(stage, 0, "a", "x");
    struct ledger_bid bid = {
        .device = stage->device, .row = claim->row, .slot = claim->slot, .bytes = 1 * GIB, .ticket = LEDGER_NO_TICKET};
    assert_int_equal(ledger_bid_look(&stage->ledger, &bid, NULL), LEDGER_FITS);
    (void)cubudget(stage, "check", NULL, NULL);
    require_status(stage, 0);
    assert_int_equal(machine_charge(&machine, 0, 1 * GIB), 0);
    (void)cubudget(stage, "check", NULL, NULL);
    require_status(stage, 0);
    ledger_landed(&stage->ledger, claim->row, stage->device, 1 * GIB);
    machine_credit(&machine, 0, 1 * GIB);
    (void)cubudget(stage, "check", NULL, NULL);
    require_status(stage, EXIT_CHECK_FAILED);
    machine_close(&machine);
}

/* The simulator remembers that more than the budget was held, however short, whatever the ledger says. */
static void test_check_peak(void **state)
{
    struct stage *stage = *state;
    struct machine machine;
    machine_make(stage, &machine);
    assert_int_equal(machine_charge(&machine, 0, 8 * GIB + 2 * MIB), 0);
    machine_credit(&machine, 0, 8 * GIB + 2 * MIB);
    (void)cubudget(stage, "check", NULL, NULL);
    require_status(stage, EXIT_CHECK_FAILED);
    require_text(stage->out,
                 "FAIL device 1: the most the simulator ever held is 8592031744 bytes, of a budget of 8589934592\n");
    machine_close(&machine);
}

/* --- drift ------------------------------------------------------------------------------------------------------------ */

/* The driver's word is of the process: two rows of one process are held against it together. */
static void test_drift_of_two_rows(void **state)
{
    struct stage *stage = *state;
    struct machine machine;
    machine_make(stage, &machine);
    charge(stage, row_claim(stage, 0, "a", "x"), 1 * GIB, LEDGER_KIND_LINEAR);
    charge(stage, row_claim(stage, 1, "b", "x"), 2 * GIB, LEDGER_KIND_LINEAR);
    assert_int_equal(machine_charge(&machine, 0, 3 * GIB - 6 * MIB), 0);
    json_t *root = dump_parse(stage);
    for (size_t i = 0; i < 2; i++) {
        const json_t *process = json_array_get(member(root, "processes"), i);
        require_integer(process, "driver_bytes", 3 * GIB - 6 * MIB);
        assert_int_equal(json_integer_value(member(process, "drift_bytes")), -(json_int_t)(6 * MIB));
    }
    json_decref(root);
    (void)cubudget(stage, "dump", NULL, NULL);
    require_text(stage->out, "         driver 2.99 GiB, drift -6.00 MiB\n");
    machine_close(&machine);
}

/* A process that is charged nothing and holds something: it is on no device of the ledger, and the driver lists it. */
static void test_drift_of_idle(void **state)
{
    struct stage *stage = *state;
    struct machine machine;
    machine_make(stage, &machine);
    (void)row_claim(stage, 0, "a", "x");
    json_t *root = dump_parse(stage);
    assert_true(json_is_null(member(json_array_get(member(root, "processes"), 0), "driver_bytes")));
    json_decref(root);
    (void)cubudget(stage, "check", "--books", NULL);
    require_status(stage, 0);
    assert_int_equal(machine_charge(&machine, 0, 2 * MIB), 0);
    (void)cubudget(stage, "check", "--books", NULL);
    require_status(stage, EXIT_CHECK_FAILED);
    require_text(stage->out, " of slot 'a' is charged nothing, and NVML says it holds 2097152 bytes\n");
    machine_close(&machine);
}

/* Where nobody can say, nothing is claimed: the first device of the stage is on no card. */
static void test_drift_unknown(void **state)
{
    struct stage *stage = *state;
    charge(stage, row_claim(stage, 0, "a", "x"), 1 * GIB, LEDGER_KIND_LINEAR);
    json_t *root = dump_parse(stage);
    assert_true(json_is_null(member(json_array_get(member(root, "processes"), 0), "driver_bytes")));
    assert_true(json_is_null(member(json_array_get(member(root, "processes"), 0), "drift_bytes")));
    json_decref(root);
    (void)cubudget(stage, "check", "--books", NULL);
    require_status(stage, 0);
    require_text(stage->out, "skip device 0: process ");
    require_text(stage->out, "NVML does not say what it holds\n1 passed, 0 failed\n");
    (void)cubudget(stage, "check", "--books", "--json");
    root = json_loads(stage->out, 0, NULL);
    assert_true(json_is_null(member(json_array_get(member(root, "checks"), 1), "ok")));
    json_decref(root);
}

static void require_books(struct stage *stage, int status)
{
    (void)cubudget(stage, "check", "--books", NULL);
    require_status(stage, status);
    if (status == 0)
        assert_string_equal(stage->out, "3 passed, 0 failed\n");
    else
        require_text(stage->out, "1 passed, 2 failed\n");
}

/* A block of 2 MiB for each kind the row has is allowed, and no byte more, in either direction. */
static void test_books_tolerance(void **state)
{
    struct stage *stage = *state;
    struct machine machine;
    machine_make(stage, &machine);
    const struct ledger_claim *claim = row_claim(stage, 0, "a", "x");
    charge(stage, claim, 1 * GIB, LEDGER_KIND_LINEAR);
    assert_int_equal(machine_charge(&machine, 0, 1 * GIB), 0);
    require_books(stage, 0);
    assert_int_equal(machine_charge(&machine, 0, 2 * MIB), 0);
    require_books(stage, 0);
    assert_int_equal(machine_charge(&machine, 0, 1), 0);
    require_books(stage, EXIT_CHECK_FAILED);
    require_text(stage->out, "of slot 'a' is charged 1073741824 bytes, and NVML says it holds 1075838977: drift "
                             "2097153, and 2097152 is allowed\n");
    require_text(stage->out, "FAIL device 1: 1073741824 bytes are charged to all, and the simulated machine holds "
                             "1075838977: drift 2097153, and 2097152 is allowed\n");
    charge(stage, claim, 2 * MIB, LEDGER_KIND_ARRAY); /* a second kind */
    require_books(stage, 0);
    machine_credit(&machine, 0, 4 * MIB + 1);
    require_books(stage, 0);
    machine_credit(&machine, 0, 1);
    require_books(stage, EXIT_CHECK_FAILED);
    machine_close(&machine);
}

/* Charged and on its way to the driver: it may be there or not. */
static void test_books_in_flight(void **state)
{
    struct stage *stage = *state;
    struct machine machine;
    machine_make(stage, &machine);
    const struct ledger_claim *claim = row_claim(stage, 0, "a", "x");
    struct ledger_bid bid = {
        .device = stage->device, .row = claim->row, .slot = claim->slot, .bytes = 1 * GIB, .ticket = LEDGER_NO_TICKET};
    assert_int_equal(ledger_bid_look(&stage->ledger, &bid, NULL), LEDGER_FITS);
    require_books(stage, 0);
    assert_int_equal(machine_charge(&machine, 0, 1 * GIB), 0);
    require_books(stage, 0);
    ledger_landed(&stage->ledger, claim->row, stage->device, 1 * GIB);
    machine_credit(&machine, 0, 1 * GIB);
    require_books(stage, EXIT_CHECK_FAILED);
    machine_close(&machine);
}

static void test_gc(void **state)
{
    struct stage *stage = *state;
    struct machine machine;
    char path[128];
    machine_make(stage, &machine);
    (void)snprintf(path, sizeof path, "%s/simulator-default.machine", stage->directory);
    (void)cubudget(stage, "gc", NULL, NULL);
    require_status(stage, EXIT_CHECK_FAILED);
    require_text(stage->err, "the simulated machine 'default' of ");
    require_text(stage->err, " is in use");
    assert_int_equal(access(path, F_OK), 0);
    (void)close(machine.descriptor); /* as at this process's end */
    machine.descriptor = -1;
    (void)cubudget(stage, "gc", NULL, NULL);
    require_status(stage, 0);
    require_text(stage->err, "cubudget: removed the simulated machine 'default' of ");
    assert_int_equal(access(path, F_OK), -1);
}

#define stage_test(test) cmocka_unit_test_setup_teardown(test, stage_open, stage_close)

int main(void)
{
    const struct CMUnitTest tests[] = {
        stage_test(test_dump),
        stage_test(test_check_agrees),
        stage_test(test_check_uncharged),
        stage_test(test_check_in_flight),
        stage_test(test_check_peak),
        stage_test(test_drift_of_two_rows),
        stage_test(test_drift_of_idle),
        stage_test(test_drift_unknown),
        stage_test(test_books_tolerance),
        stage_test(test_books_in_flight),
        stage_test(test_gc),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
