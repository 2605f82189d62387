/*
 * cubudget check: does the ledger agree with itself, and with the simulator where there is one? One line a check. With --books:
 * does it agree with what the driver says each process holds? One line for each that differs.
 *
 * Programs go on meanwhile, and a charge and what the simulator holds are never changed at the same instant; so a check that
 * does not hold is made again, and counts only where it fails every time.
 */
#include "config.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include "cli/check.h"
#include "cli/command.h"
#include "cli/options.h"
#include "cli/output.h"
#include "cli/witness.h"
#include "platform/log.h"

enum { LOOKS = 50, PAUSE_MS = 20 }; /* a second in all: five times what the dead may take to give back */

/* The simulator's figures of one device against the ledger's. In flight is charged and may not be there yet. */
static void witness_check(struct check_list *list, const struct snapshot_device *device, uint64_t in_flight_bytes,
                          const struct witness_figures *figures)
{
    uint64_t charged = device->used_bytes + device->dead_bytes;
    bool agree = in_flight_bytes == 0
                     ? figures->used_bytes == charged
                     : figures->used_bytes <= charged && charged - figures->used_bytes <= in_flight_bytes;
    check_add(list, agree, "device %u: %llu bytes are charged (%llu of them in flight), and the simulator holds %llu",
              device->index, (unsigned long long)charged, (unsigned long long)in_flight_bytes,
              (unsigned long long)figures->used_bytes);
    uint64_t most = device->budget_before > device->budget_bytes ? device->budget_before : device->budget_bytes;
    check_add(list, figures->peak_bytes <= most,
              "device %u: the most the simulator ever held is %llu bytes, of a budget of %llu", device->index,
              (unsigned long long)figures->peak_bytes, (unsigned long long)most);
}

static void witnesses_check(struct check_list *list, const struct snapshot *snapshot, const char *directory)
{
    for (unsigned i = 0; i < snapshot->device_count; i++) {
        const struct snapshot_device *device = &snapshot->devices[i];
        struct witness_figures figures;
        uint64_t in_flight_bytes = 0;
        if (!device->simulated)
            continue;
        for (unsigned j = 0; j < snapshot->process_count; j++)
            if (snapshot->processes[j].device == (int)i)
                in_flight_bytes += snapshot->processes[j].in_flight_bytes;
        if (witness_find(directory, device->uuid, &figures))
            witness_check(list, device, in_flight_bytes, &figures);
    }
}

/* 0 or an exit status after saying why. */
static int look(struct check_list *list, struct ledger *ledger, const char *directory, bool books)
{
    bool spent = false;
    static struct snapshot snapshot; /* too large for a stack that somebody may have limited */
    list->count = 0;
    if (snapshot_take(ledger, &snapshot) != 0)
        return fault_say(EXIT_NO_LEDGER, "no memory to look at %s; free some", ledger->path);
    check_add(list, true, "%s is a ledger of this version and whole", ledger->path);
    if (books) {
        spent = !check_books(list, &snapshot, directory);
    } else {
        check_snapshot(list, ledger, &snapshot);
        check_states(list, &snapshot);
        witnesses_check(list, &snapshot, directory);
    }
    snapshot_free(&snapshot);
    return spent || list->spent ? fault_say(EXIT_NO_LEDGER, "no memory to check %s; free some", ledger->path) : 0;
}

static unsigned failed_count(const struct check_list *list)
{
    unsigned failed = 0;
    for (unsigned i = 0; i < list->count; i++)
        failed += !list->results[i].good;
    return failed;
}

static unsigned skipped_count(const struct check_list *list)
{
    unsigned skipped = 0;
    for (unsigned i = 0; i < list->count; i++)
        skipped += list->results[i].skipped;
    return skipped;
}

static int look_patiently(struct check_list *list, struct ledger *ledger, const char *directory, bool books)
{
    int status = look(list, ledger, directory, books);
    for (unsigned i = 1; i < LOOKS && status == 0 && failed_count(list) != 0; i++) {
        (void)nanosleep(&(struct timespec){.tv_nsec = PAUSE_MS * 1000000L}, NULL);
        status = look(list, ledger, directory, books);
    }
    return status;
}

static int results_json_print(const struct check_list *list)
{
    json_t *checks = json_array();
    unsigned failed = failed_count(list), passed = list->count - failed - skipped_count(list);
    for (unsigned i = 0; i < list->count; i++) {
        const struct check_result *result = &list->results[i];
        (void)json_array_append_new(checks, json_pack("{s:o, s:s}", "ok",
                                                      result->skipped ? json_null() : json_boolean(result->good),
                                                      "text", result->text));
    }
    json_t *root = json_pack("{s:i, s:i, s:o}", "passed", (int)passed, "failed", (int)failed, "checks", checks);
    if (root == NULL)
        return fault_say(EXIT_NO_LEDGER, "no memory to write JSON; free some");
    (void)json_dumpf(root, stdout, JSON_INDENT(2) | JSON_PRESERVE_ORDER);
    (void)putchar('\n');
    json_decref(root);
    return 0;
}

/* `brief`: what holds is counted and not shown. */
static int results_print(const struct check_list *list, bool json, bool brief)
{
    unsigned failed = failed_count(list), skipped = skipped_count(list);
    int status = 0;
    if (json) {
        status = results_json_print(list);
    } else {
        for (unsigned i = 0; i < list->count; i++) {
            const struct check_result *result = &list->results[i];
            if (!brief || !result->good || result->skipped)
                (void)printf("%-4s %s\n", result->skipped ? "skip" : result->good ? "ok" : "FAIL", result->text);
        }
        (void)printf("%u passed, %u failed\n", list->count - failed - skipped, failed);
    }
    return output_finish(status != 0 ? status : failed != 0 ? EXIT_CHECK_FAILED : 0);
}

static int check_run(int argc, char **argv)
{
    struct ledger_options options = {.with_json = true, .with_books = true};
    struct ledger_place place;
    struct ledger ledger;
    struct check_list list = {0};
    enum options_result result = ledger_options_read(
        &options, "Checks that the ledger agrees with itself, and with the simulator where there is one.", argc, argv);
    if (result != OPTIONS_GOOD)
        return options_status(result);
    int status = ledger_place_find(options.name, &place);
    if (status == 0)
        status = ledger_open_existing(&place, &ledger);
    if (status != 0)
        return status;
    status = look_patiently(&list, &ledger, place.directory, options.books);
    if (status == 0)
        status = results_print(&list, options.json, options.books);
    free(list.results);
    ledger_close(&ledger);
    return status;
}

const struct command command_check = {"check", "[--books] [--json]", "check that the figures agree", check_run};
