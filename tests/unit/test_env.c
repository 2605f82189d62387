/* The settings: each variable's good values land in their field, bad ones are refused with the variable and the value. */
#include "config.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "platform/env.h"

#define GIB (1ULL << 30)

static const char *const all[] = {
    "CUBUDGET_BUDGET", "CUBUDGET_LIMIT", "CUBUDGET_RESERVE",  "CUBUDGET_HOST_LIMIT",  "CUBUDGET_PRIORITY",
    "CUBUDGET_WAIT",   "CUBUDGET_EVICT", "CUBUDGET_LOG",      "CUBUDGET_MIN_COMPUTE", "CUBUDGET_SLOT",
    "CUBUDGET_LEDGER", "CUBUDGET_DIR",   "CUBUDGET_LOG_FILE", "CUBUDGET_CONFIG",      "CUBUDGET_SIMULATE",
};

static int environment_clear(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        unsetenv(all[i]);
    return 0;
}

static struct settings settings;
static struct settings_fault fault;

static void setting_give(const char *name, const char *value)
{
    assert_int_equal(setenv(name, value, 1), 0);
    int result = settings_read(&settings, &fault);
    if (result != 0)
        fail_msg("%s='%s': %s", name, value, fault.text);
    assert_string_equal(fault.text, "");
    unsetenv(name);
}

/* Refused, in one line that begins with the variable's name and quotes the value. */
static void setting_refuse(const char *name, const char *value)
{
    char start[128];
    snprintf(start, sizeof start, "%s: '%.40s", name, value);
    assert_int_equal(setenv(name, value, 1), 0);
    if (settings_read(&settings, &fault) != -EINVAL)
        fail_msg("%s='%s' was taken", name, value);
    if (strncmp(fault.text, start, strlen(start)) != 0)
        fail_msg("'%s' does not begin with '%s'", fault.text, start);
    assert_non_null(strchr(fault.text, ';')); /* and says what to write instead */
    unsetenv(name);
}

static void defaults(void **state)
{
    (void)state;
    memset(&settings, 0xA5, sizeof settings);
    assert_int_equal(settings_read(&settings, &fault), 0);
    assert_false(settings.has_budget || settings.has_limit || settings.has_reserve || settings.has_priority ||
                 settings.has_host_limit || settings.simulate);
    assert_int_equal(settings.budget_bytes, 8 * GIB);
    assert_int_equal(settings.priority, 50);
    assert_int_equal(settings.wait_ms, 30000);
    assert_int_equal(settings.min_compute, 75);
    assert_int_equal(settings.evict, EVICT_AUTO);
    assert_int_equal(settings.log_level, LOG_WARN);
    assert_string_equal(settings.slot, "");
    assert_string_equal(settings.ledger, "default");
    assert_null(settings.directory);
    assert_null(settings.config);
    assert_null(settings.log_file);
    assert_null(settings.simulate_options);
}

static void sizes(void **state)
{
    static const char *const names[] = {"CUBUDGET_BUDGET", "CUBUDGET_LIMIT", "CUBUDGET_RESERVE", "CUBUDGET_HOST_LIMIT"};
    static const char *const bad[] = {"8 gigs", "0", "-1", "9223372036854775808", "99999999999999999999", "8GiB ", "x"};
    (void)state;
    setting_give("CUBUDGET_BUDGET", "3GiB");
    assert_true(settings.has_budget);
    assert_int_equal(settings.budget_bytes, 3 * GIB);
    setting_give("CUBUDGET_LIMIT", "2GiB");
    assert_true(settings.has_limit);
    assert_int_equal(settings.limit_bytes, 2 * GIB);
    setting_give("CUBUDGET_RESERVE", "1GiB");
    assert_true(settings.has_reserve);
    assert_int_equal(settings.reserve_bytes, GIB);
    setting_give("CUBUDGET_RESERVE", "0"); /* gives it up */
    assert_true(settings.has_reserve);
    assert_int_equal(settings.reserve_bytes, 0);
    setting_give("CUBUDGET_HOST_LIMIT", "1K");
    assert_true(settings.has_host_limit);
    assert_int_equal(settings.host_limit_bytes, 1024);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        for (size_t j = 0; j < sizeof bad / sizeof *bad; j++)
            if (strcmp(names[i], "CUBUDGET_RESERVE") != 0 || strcmp(bad[j], "0") != 0)
                setting_refuse(names[i], bad[j]);
}

static void words_and_numbers(void **state)
{
    (void)state;
    setting_give("CUBUDGET_PRIORITY", "0");
    assert_true(settings.has_priority);
    assert_int_equal(settings.priority, 0);
    setting_give("CUBUDGET_PRIORITY", "100");
    assert_int_equal(settings.priority, 100);
    setting_give("CUBUDGET_PRIORITY", "max");
    assert_int_equal(settings.priority, 101);
    setting_give("CUBUDGET_WAIT", "0");
    assert_int_equal(settings.wait_ms, 0);
    setting_give("CUBUDGET_WAIT", "2m");
    assert_int_equal(settings.wait_ms, 120000);
    setting_give("CUBUDGET_EVICT", "auto");
    assert_int_equal(settings.evict, EVICT_AUTO);
    setting_give("CUBUDGET_EVICT", "off");
    assert_int_equal(settings.evict, EVICT_OFF);
    setting_give("CUBUDGET_EVICT", "checkpoint");
    assert_int_equal(settings.evict, EVICT_CHECKPOINT);
    setting_give("CUBUDGET_LOG", "error");
    assert_int_equal(settings.log_level, LOG_ERROR);
    setting_give("CUBUDGET_LOG", "debug");
    assert_int_equal(settings.log_level, LOG_DEBUG);
    setting_give("CUBUDGET_MIN_COMPUTE", "9.0");
    assert_int_equal(settings.min_compute, 90);
    setting_give("CUBUDGET_MIN_COMPUTE", "12");
    assert_int_equal(settings.min_compute, 120);
}

static void bad_words_and_numbers(void **state)
{
    static const char *const pairs[][2] = {
        {"CUBUDGET_PRIORITY", "101"},      {"CUBUDGET_PRIORITY", "-1"},    {"CUBUDGET_PRIORITY", "1.5"},
        {"CUBUDGET_PRIORITY", "MAX"},      {"CUBUDGET_PRIORITY", "0100"},  {"CUBUDGET_WAIT", "soon"},
        {"CUBUDGET_WAIT", "30"},           {"CUBUDGET_WAIT", "25000000s"}, {"CUBUDGET_EVICT", "yes"},
        {"CUBUDGET_EVICT", "Auto"},        {"CUBUDGET_LOG", "verbose"},    {"CUBUDGET_MIN_COMPUTE", "7.55"},
        {"CUBUDGET_MIN_COMPUTE", "seven"}, {"CUBUDGET_MIN_COMPUTE", "7."}, {"CUBUDGET_MIN_COMPUTE", "0.5"},
        {"CUBUDGET_DIR", "here"},          {"CUBUDGET_LOG_FILE", "log"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++)
        setting_refuse(pairs[i][0], pairs[i][1]);
}

static void names(void **state)
{
    static const char *const bad[] = {".",    "..",    "a/b",      "a\nb",     "\001",         "a\177",
                                      "\xC3", "a\xFF", "\xC0\xAF", "\xC2\x85", "\xED\xA0\x80", "\xF5\x80\x80\x80"};
    char longest[LEDGER_NAME_BYTES + 1], very_long[301];
    (void)state;
    memset(longest, 'x', sizeof longest);
    longest[LEDGER_NAME_BYTES - 1] = '\0';
    memset(very_long, 'y', sizeof very_long);
    very_long[300] = '\0';
    setting_give("CUBUDGET_SLOT", "caf\xC3\xA9 1");
    assert_string_equal(settings.slot, "caf\xC3\xA9 1");
    setting_give("CUBUDGET_SLOT", longest);
    assert_string_equal(settings.slot, longest);
    setting_give("CUBUDGET_LEDGER", "\xF0\x9F\x98\x80");
    assert_string_equal(settings.ledger, "\xF0\x9F\x98\x80");
    longest[LEDGER_NAME_BYTES - 1] = 'x';
    longest[LEDGER_NAME_BYTES] = '\0';
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        setting_refuse("CUBUDGET_SLOT", bad[i]);
        setting_refuse("CUBUDGET_LEDGER", bad[i]);
    }
    setting_refuse("CUBUDGET_SLOT", longest);
    setting_refuse("CUBUDGET_SLOT", very_long);
}

static void paths(void **state)
{
    static char very_long[5000];
    (void)state;
    setting_give("CUBUDGET_DIR", "/dev/shm/mine");
    assert_string_equal(settings.directory, "/dev/shm/mine");
    setting_give("CUBUDGET_LOG_FILE", "/tmp/log");
    assert_string_equal(settings.log_file, "/tmp/log");
    setting_give("CUBUDGET_CONFIG", "relative.conf");
    assert_string_equal(settings.config, "relative.conf");
    memset(very_long, '/', sizeof very_long - 1);
    setting_refuse("CUBUDGET_DIR", very_long);
}

static void empty_values(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (strcmp(all[i], "CUBUDGET_SIMULATE") != 0)
            setting_refuse(all[i], "");
}

static void simulate(void **state)
{
    (void)state;
#ifdef ENABLE_SIMULATOR
    setting_give("CUBUDGET_SIMULATE", "");
    assert_true(settings.simulate);
    assert_string_equal(settings.simulate_options, "");
    setting_give("CUBUDGET_SIMULATE", "memory=4GiB");
    assert_string_equal(settings.simulate_options, "memory=4GiB");
#else
    setting_refuse("CUBUDGET_SIMULATE", "");
    setting_refuse("CUBUDGET_SIMULATE", "memory=4GiB");
#endif
}

static void pair_refuse(const char *high, const char *low)
{
    assert_int_equal(setenv(high, "4GiB", 1), 0);
    assert_int_equal(setenv(low, "2GiB", 1), 0);
    assert_int_equal(settings_read(&settings, &fault), -EINVAL);
    assert_non_null(strstr(fault.text, high));
    assert_non_null(strstr(fault.text, low));
    assert_non_null(strstr(fault.text, "4 GiB"));
    assert_non_null(strstr(fault.text, "2 GiB"));
    assert_int_equal(setenv(low, "4GiB", 1), 0); /* equal is no more than */
    assert_int_equal(settings_read(&settings, &fault), 0);
    unsetenv(high);
    unsetenv(low);
}

static void values_against_each_other(void **state)
{
    (void)state;
    pair_refuse("CUBUDGET_LIMIT", "CUBUDGET_BUDGET");
    pair_refuse("CUBUDGET_RESERVE", "CUBUDGET_BUDGET");
    pair_refuse("CUBUDGET_RESERVE", "CUBUDGET_LIMIT");
}

/* What is no setting is said once, with what may have been meant. */
static void unknown_variables(void **state)
{
    char text[SETTINGS_UNKNOWN_BYTES];
    size_t at = 0;
    (void)state;
    assert_false(settings_unknown_next(&at, text));
    assert_int_equal(setenv("CUBUDGET_BUDGT", "8GiB", 1), 0);
    assert_int_equal(setenv("CUBUDGET_BUDGET", "8GiB", 1), 0);
    at = 0;
    assert_true(settings_unknown_next(&at, text));
    assert_string_equal(text, "CUBUDGET_BUDGT is no setting and does nothing; did you mean CUBUDGET_BUDGET?");
    assert_false(settings_unknown_next(&at, text));
    unsetenv("CUBUDGET_BUDGT");
    unsetenv("CUBUDGET_BUDGET");
    assert_int_equal(setenv("CUBUDGET_SOMETHING_ELSE", "", 1), 0);
    at = 0;
    assert_true(settings_unknown_next(&at, text));
    assert_string_equal(text, "CUBUDGET_SOMETHING_ELSE is no setting and does nothing; man cubudget lists them");
    unsetenv("CUBUDGET_SOMETHING_ELSE");
}

/* A value written elsewhere is judged like the variable's, and called what it is called there. */
static void values_from_elsewhere(void **state)
{
    (void)state;
    assert_int_equal(setting_read("CUBUDGET_LIMIT", "limit", "2GiB", &settings, &fault), 0);
    assert_int_equal(settings.limit_bytes, 2 * GIB);
    assert_int_equal(setting_read("CUBUDGET_LIMIT", "limit", "8 gigs", &settings, &fault), -EINVAL);
    assert_string_equal(fault.text, "limit: '8 gigs' is not a size; write for example 512MiB or 8GiB");
}

static void name_of_the_executable(void **state)
{
    char name[LEDGER_NAME_BYTES];
    (void)state;
    name_from_executable(name);
    assert_non_null(strstr(name, "test_env"));
    assert_int_equal(name_validate("slot", name, &fault), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults),
        cmocka_unit_test(sizes),
        cmocka_unit_test(words_and_numbers),
        cmocka_unit_test(bad_words_and_numbers),
        cmocka_unit_test(names),
        cmocka_unit_test(paths),
        cmocka_unit_test(empty_values),
        cmocka_unit_test(simulate),
        cmocka_unit_test(values_against_each_other),
        cmocka_unit_test(unknown_variables),
        cmocka_unit_test(values_from_elsewhere),
        cmocka_unit_test(name_of_the_executable),
    };
    return cmocka_run_group_tests(tests, environment_clear, NULL);
}
