/*
 * The closing side of the gate in a test's hand: in the tests' own copy of the library alone, found by name in the programs that
 * it is preloaded into.
 */
#include "config.h"

#include "cuda/driver.h"
#include "platform/gate.h"

#ifndef CUBUDGET_TESTPOINTS
#error "testpoint_gate.c belongs to the copy built with -DCUBUDGET_TESTPOINTS"
#endif

#define TEST_API __attribute__((visibility("default")))

TEST_API int cubudget_testpoint_gate_close(uint32_t timeout_ms);
TEST_API void cubudget_testpoint_gate_open(void);
TEST_API unsigned cubudget_testpoint_gate_arrivals(void);
TEST_API const char *cubudget_testpoint_gate_reason(void);
TEST_API void cubudget_testpoint_gate_deinitialize(void);

static _Atomic(unsigned) arrivals;

static void arrival_count(void)
{
    atomic_fetch_add(&arrivals, 1);
}

int cubudget_testpoint_gate_close(uint32_t timeout_ms)
{
    gate_set_arrival(arrival_count);
    return gate_close(timeout_ms);
}

void cubudget_testpoint_gate_open(void)
{
    gate_open();
}

unsigned cubudget_testpoint_gate_arrivals(void)
{
    return atomic_load(&arrivals);
}

const char *cubudget_testpoint_gate_reason(void)
{
    return gate_unevictable_reason();
}

void cubudget_testpoint_gate_deinitialize(void)
{
    driver_deinitialize();
}
