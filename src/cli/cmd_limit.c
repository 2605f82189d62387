/*
 * cubudget limit: changes what a slot may hold, always gets, and how it ranks, or the budget, while the programs run. Says on
 * standard output what holds now, and on standard error who holds more than that.
 */
#include "config.h"

#include <stdio.h>
#include <string.h>
#include "cli/command.h"
#include "cli/configuration.h"
#include "cli/options.h"
#include "cli/output.h"
#include "cli/over.h"
#include "cli/slots.h"
#include "platform/log.h"
#include "platform/size.h"

struct limit {
    const char *ledger, *budget, *device, *reserve, *priority;
    const char *slot, *size; /* the arguments; NULL: not given */
};

static enum options_result limit_read(struct limit *limit, int argc, char **argv)
{
    const struct options_text list[] = {
        {"budget", "SIZE", "of each device, for all slots together", &limit->budget},
        {"device", "INDEX|UUID", "that budget of this device alone", &limit->device},
        {"reserve", "SIZE", "what the slot can always get; 0: nothing", &limit->reserve},
        {"priority", "0..100|max", "who stays on the card longer; max: always", &limit->priority},
        {"ledger", "NAME", "the ledger of that name (CUBUDGET_LEDGER; \"default\")", &limit->ledger},
    };
    const char *words[2] = {NULL, NULL};
    const struct options_texts texts = {
        .args_doc = "SLOT [SIZE|none]\n--budget SIZE",
        .doc = "Changes a slot's limit, reserve and priority, or the budget, while the programs run."
               "\vWhat is held already is never taken away: below it, nothing more is granted until it fits. A reserve "
               "is granted where nobody else holds its bytes.",
        .list = list,
        .count = sizeof list / sizeof *list,
        .words = words,
        .words_most = 2,
    };
    enum options_result result = options_texts_read(&texts, argc, argv);
    limit->slot = words[0];
    limit->size = words[1];
    return result;
}

/* What is wrong with the words together, or NULL. */
static const char *words_fault(const struct limit *limit)
{
    if (limit->budget != NULL)
        return limit->slot != NULL || limit->reserve != NULL || limit->priority != NULL
                   ? "--budget is for all slots; change a slot's terms by another call"
                   : NULL;
    if (limit->device != NULL)
        return "--device goes with --budget: a slot's limit and reserve hold on each device";
    if (limit->slot == NULL)
        return "no slot; write cubudget limit SLOT SIZE, or cubudget limit --budget SIZE";
    if (limit->size == NULL && limit->reserve == NULL && limit->priority == NULL)
        return "nothing to change; write a size, none, --reserve or --priority";
    return NULL;
}

/* 0, or an exit status after saying why. NULL is not given, and good. */
static int value_read(const char *variable, const char *shown, const char *text, struct settings *settings)
{
    struct settings_fault fault;
    if (text == NULL)
        return 0;
    if (*text == '\0')
        return fault_say(EXIT_BAD_SETTINGS, "%s: '' is empty; give it a value", shown);
    if (setting_read(variable, shown, text, settings, &fault) != 0)
        return fault_say(EXIT_BAD_SETTINGS, "%s", fault.text);
    return 0;
}

static void held_say(struct ledger *ledger, const char *slot)
{
    static struct snapshot snapshot;
    if (snapshot_take(ledger, &snapshot) != 0)
        return;
    for (unsigned i = 0; i < snapshot.slot_count; i++)
        if (slot != NULL && strcmp(snapshot.slots[i].name, slot) == 0)
            over_say(&snapshot, (int)i);
    if (slot == NULL)
        over_say(&snapshot, -1);
    snapshot_free(&snapshot);
}

static const char *bytes_text(uint64_t bytes, uint64_t none, char text[SIZE_TEXT_BYTES])
{
    return bytes == none ? "none" : size_format(bytes, text, SIZE_TEXT_BYTES);
}

static int slot_change(struct ledger *ledger, const struct limit *limit, const struct settings *settings)
{
    struct ledger_fault fault;
    char size[SIZE_TEXT_BYTES], reserve[SIZE_TEXT_BYTES];
    unsigned slot = 0;
    struct slot_terms terms = {
        .has_limit = limit->size != NULL,
        .limit_bytes = settings->has_limit ? settings->limit_bytes : LEDGER_NO_LIMIT,
        .has_reserve = settings->has_reserve,
        .reserve_bytes = settings->reserve_bytes,
        .has_priority = settings->has_priority,
        .priority = settings->priority,
    };
    int status = slot_find(ledger, limit->slot, &slot);
    if (status != 0)
        return status;
    if (ledger_slot_change(ledger, slot, &terms, &fault) != 0)
        return fault_say(EXIT_BAD_SETTINGS, "slot '%s': %s", limit->slot, fault.text);
    ledger_slot_terms(ledger, slot, &terms);
    (void)printf("slot '%s': limit %s, reserve %s, priority ", limit->slot,
                 bytes_text(terms.limit_bytes, LEDGER_NO_LIMIT, size), bytes_text(terms.reserve_bytes, 0, reserve));
    (void)printf(terms.priority > 100 ? "max\n" : "%u\n", terms.priority);
    held_say(ledger, limit->slot);
    return 0;
}

static int budget_change(struct ledger *ledger, const char *name, const struct limit *limit, uint64_t budget_bytes)
{
    struct ledger_fault fault;
    char size[SIZE_TEXT_BYTES];
    uint8_t uuid[LEDGER_UUID_BYTES];
    int device = LEDGER_DEVICES;
    if (limit->device != NULL && (device = device_find(ledger, limit->device, uuid)) < 0)
        return fault_say(EXIT_BAD_SETTINGS,
                         "--device: '%.60s' is no device of %s; write an index or uuid that cubudget dump shows",
                         limit->device, ledger->path);
    if (ledger_budget_change(ledger, (unsigned)device, budget_bytes, &fault) != 0)
        return fault_say(EXIT_BAD_SETTINGS, "%s", fault.text);
    (void)size_format(budget_bytes, size, sizeof size);
    if (limit->device != NULL)
        (void)printf("device %d: budget %s\n", device, size);
    else
        (void)printf("ledger '%s': budget %s a device\n", name, size);
    held_say(ledger, NULL);
    return 0;
}

static int limit_run(int argc, char **argv)
{
    struct limit limit = {0};
    struct settings settings = {0};
    struct ledger_place place;
    struct ledger ledger;
    enum options_result result = limit_read(&limit, argc, argv);
    if (result != OPTIONS_GOOD)
        return options_status(result);
    const char *wrong = words_fault(&limit);
    if (wrong != NULL)
        return fault_say(EXIT_USAGE_ERROR, "%s; see cubudget limit --help", wrong);
    bool unlimited = limit.size != NULL && strcmp(limit.size, "none") == 0;
    int status = value_read("CUBUDGET_BUDGET", "--budget", limit.budget, &settings);
    if (status == 0)
        status = value_read("CUBUDGET_LIMIT", "limit", unlimited ? NULL : limit.size, &settings);
    if (status == 0)
        status = value_read("CUBUDGET_RESERVE", "--reserve", limit.reserve, &settings);
    if (status == 0)
        status = value_read("CUBUDGET_PRIORITY", "--priority", limit.priority, &settings);
    if (status == 0)
        status = ledger_place_find(limit.ledger, &place);
    if (status == 0)
        status = ledger_open_existing(&place, &ledger);
    if (status != 0)
        return status;
    if (limit.budget != NULL)
        status = budget_change(&ledger, place.name, &limit, settings.budget_bytes);
    else
        status = slot_change(&ledger, &limit, &settings);
    ledger_close(&ledger);
    return status == 0 ? output_finish(0) : status;
}

const struct command command_limit = {"limit", "SLOT [SIZE]", "change a limit, a reserve or the budget", limit_run};
