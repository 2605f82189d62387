/* Pressure in four words, at the exact thresholds; and the names of kinds. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "ledger/snapshot.h"

static void thresholds(void **state)
{
    static const struct {
        uint64_t used, budget;
        enum pressure_level level;
    } table[] = {
        {0, 100, PRESSURE_LOW},       {49, 100, PRESSURE_LOW},       {50, 100, PRESSURE_MEDIUM},
        {80, 100, PRESSURE_MEDIUM},   {81, 100, PRESSURE_HIGH},      {95, 100, PRESSURE_HIGH},
        {96, 100, PRESSURE_CRITICAL}, {100, 100, PRESSURE_CRITICAL}, {200, 100, PRESSURE_CRITICAL},
        {0, 0, PRESSURE_CRITICAL},    {0, 1, PRESSURE_LOW},          {1, 1, PRESSURE_CRITICAL},
    };
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        assert_int_equal(pressure_of(table[i].used, table[i].budget), table[i].level);
}

/* One byte decides, with sizes whose hundredfold does not fit 64 bits. */
static void thresholds_of_large_budgets(void **state)
{
    const uint64_t budget = 100ULL << 56;
    (void)state;
    assert_int_equal(pressure_of((50ULL << 56) - 1, budget), PRESSURE_LOW);
    assert_int_equal(pressure_of(50ULL << 56, budget), PRESSURE_MEDIUM);
    assert_int_equal(pressure_of(80ULL << 56, budget), PRESSURE_MEDIUM);
    assert_int_equal(pressure_of((80ULL << 56) + 1, budget), PRESSURE_HIGH);
    assert_int_equal(pressure_of(95ULL << 56, budget), PRESSURE_HIGH);
    assert_int_equal(pressure_of((95ULL << 56) + 1, budget), PRESSURE_CRITICAL);
    assert_int_equal(pressure_of(UINT64_MAX, UINT64_MAX), PRESSURE_CRITICAL);
}

static void names(void **state)
{
    static const char *const kinds[] = {"linear", "managed", "context", "pool", "vmm", "array", "graph", "module"};
    (void)state;
    assert_string_equal(pressure_name(PRESSURE_LOW), "low");
    assert_string_equal(pressure_name(PRESSURE_MEDIUM), "medium");
    assert_string_equal(pressure_name(PRESSURE_HIGH), "high");
    assert_string_equal(pressure_name(PRESSURE_CRITICAL), "critical");
    assert_string_equal(pressure_name((enum pressure_level)4), "?");
    assert_int_equal(sizeof kinds / sizeof *kinds, LEDGER_KIND_COUNT);
    for (unsigned i = 0; i < LEDGER_KIND_COUNT; i++)
        assert_string_equal(ledger_kind_name((enum ledger_kind)i), kinds[i]);
    assert_string_equal(ledger_kind_name(LEDGER_KIND_COUNT), "?");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(thresholds),
        cmocka_unit_test(thresholds_of_large_budgets),
        cmocka_unit_test(names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
