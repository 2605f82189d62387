/*
 * Every intercepted function fails, before its effect and after it, with out of memory and with an error that nobody expects: the
 * program hears the driver's own answer, its outputs are as they were, and the books say what the card says, which is what they said
 * before; then it succeeds, and what it made is taken back. The names come from the table of hooks itself, so that a new wrapper
 * without a script in fault_client.c fails here.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "integration/books_agree.h"

#define DEVICES 2

static const char *const hooked[] = {
#define WRAP(symbol, class, parameters) #symbol,
#include "interpose/hooks.def"
};

/* What an injected failure does not show. */
static const struct exception {
    const char *name, *reason;
} exceptions[] = {
    {"cuInit", "the simulated driver orders its faults when it is initialised"},
    {"cuGetProcAddress", "the simulated driver answers it before cuInit too, and orders no faults for it"},
    {"cuGetProcAddress_v2", "likewise"},
    {"cuDeviceTotalMem", "asks and changes nothing"},
    {"cuDeviceTotalMem_v2", "asks and changes nothing"},
    {"cuMemGetInfo", "asks and changes nothing"},
    {"cuMemGetInfo_v2", "asks and changes nothing"},
    {"cuGraphicsResourceGetMappedPointer_v2", "the simulated driver has no graphics"},
    {"cuIpcOpenMemHandle", "opens another process's memory only; test_imports has it"},
    {"cuIpcOpenMemHandle_v2", "opens another process's memory only; test_imports has it"},
    {"cuMemPoolImportFromShareableHandle", "the simulated driver does not share pools"},
    {"cuMemPoolImportPointer", "the simulated driver does not share pools"},
};

static bool is_exception(const char *name)
{
    for (size_t i = 0; i < sizeof(exceptions) / sizeof(exceptions[0]); i++)
        if (strcmp(exceptions[i].name, name) == 0)
            return true;
    return false;
}

/* A launch that fails midway leaves the device's memory for graphs grown, as one does on a card. */
static bool leaves_growth(const char *name)
{
    return strncmp(name, "cuGraphLaunch", 13) == 0 || strncmp(name, "cuGraphUpload", 13) == 0;
}

/* A library takes its memory at its first use and is charged from its load on. */
static bool is_charged_early(const char *name)
{
    return strncmp(name, "cuLibrary", 9) == 0;
}

struct held {
    uint64_t books[DEVICES], machine[DEVICES];
};

static struct held held_now(struct stage *stage)
{
    struct held held;
    for (unsigned device = 0; device < DEVICES; device++) {
        held.books[device] = books_of(stage, device);
        held.machine[device] = machine_of(stage, device);
    }
    return held;
}

static void held_must_agree(const char *name, const char *when, const struct held *held)
{
    for (unsigned device = 0; device < DEVICES; device++)
        if (held->books[device] != held->machine[device])
            fail_msg("%s, %s: device %u: the books say %llu, the card %llu", name, when, device,
                     (unsigned long long)held->books[device], (unsigned long long)held->machine[device]);
}

static void call_must_fail(struct stage *stage, struct client *client, const char *name, unsigned turn, int code)
{
    char expected[32], when[32];
    struct held before = held_now(stage);
    snprintf(expected, sizeof(expected), "%d untouched", code);
    snprintf(when, sizeof(when), "failure %u", turn + 1);
    const char *answer = client_ask(client, "call");
    if (strcmp(answer, expected) != 0)
        fail_msg("%s, %s: '%s' where '%s' was expected", name, when, answer, expected);
    struct held after = held_now(stage);
    if (!is_charged_early(name))
        held_must_agree(name, when, &after);
    for (unsigned device = 0; device < DEVICES; device++)
        if (!leaves_growth(name) && after.books[device] != before.books[device])
            fail_msg("%s, %s: device %u: the books were %llu and are %llu", name, when, device,
                     (unsigned long long)before.books[device], (unsigned long long)after.books[device]);
}

static void one_name(struct stage *stage, const char *name)
{
    static const int codes[] = {999, 2, 999, 2};
    struct client client;
    struct held held;
    char simulate[512];
    snprintf(simulate, sizeof(simulate),
             "devices=2,release=0,fail=%s:1:999,fail=%s:2:2,fail-after=%s:3:999,fail-after=%s:4:2", name, name, name,
             name);
    setenv("FAULT_NAME", name, 1);
    client_start(stage, &client, &(struct client_terms){.simulate = simulate, .program = "fault_client"});
    const char *answer = client_ask(&client, "scene");
    if (strcmp(answer, "ok") != 0)
        fail_msg("%s: the scene: %s", name, answer);
    for (unsigned turn = 0; turn < 4; turn++)
        call_must_fail(stage, &client, name, turn, codes[turn]);
    answer = client_ask(&client, "call");
    if (strncmp(answer, "0 ", 2) != 0)
        fail_msg("%s, after its failures: %s", name, answer);
    held = held_now(stage);
    if (!is_charged_early(name))
        held_must_agree(name, "success", &held);
    answer = client_ask(&client, "undo");
    if (strcmp(answer, "ok") != 0)
        fail_msg("%s, taken back: %s", name, answer);
    held = held_now(stage);
    held_must_agree(name, "taken back", &held);
    assert_int_equal(client_end(&client, 0), 0);
    stage_await_empty(stage);
}

static void every_wrapper_fails_as_the_driver_does(void **state)
{
    const char *only = getenv("FAULT_ONLY");
    for (size_t i = 0; i < sizeof(hooked) / sizeof(hooked[0]); i++)
        if (!is_exception(hooked[i]) && (!only || strcmp(only, hooked[i]) == 0))
            one_name(*state, hooked[i]);
}

/* An exception that is no name of the table is a leftover. */
static void exceptions_are_of_the_table(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(exceptions) / sizeof(exceptions[0]); i++) {
        bool found = false;
        for (size_t j = 0; j < sizeof(hooked) / sizeof(hooked[0]); j++)
            found = found || strcmp(exceptions[i].name, hooked[j]) == 0;
        if (!found || !*exceptions[i].reason)
            fail_msg("%s is excepted and not hooked", exceptions[i].name);
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(every_wrapper_fails_as_the_driver_does, stage_setup, stage_teardown),
        cmocka_unit_test(exceptions_are_of_the_table),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
