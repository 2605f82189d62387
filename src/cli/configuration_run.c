/*
 * What a configuration means for a program that `cubudget run` starts: variables that say where the ledger is and how the program
 * waits, where the user has set none himself; a ledger made whole where there is none; and terms of the slot that nobody has set
 * yet. What was set in the ledger holds against the file, because somebody changed it under way or made it by other means;
 * where the two differ, a line says so. Terms go into the ledger and never into variables: the program's children would
 * bring those back long after somebody had changed them, and to other slots.
 */
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "cli/configuration.h"
#include "cli/output.h"
#include "platform/log.h"
#include "platform/size.h"

/* Sets a variable that the user has not set. */
static int variable_default(const char *variable, const char *text)
{
    if (setenv(variable, text, 0) == 0)
        return 0;
    return fault_say(EXIT_BAD_SETTINGS, "%s: %s; shorten the environment", variable, strerror(errno));
}

/* The group's directory, which may be gone since the machine was started: made again as cubudget init makes it, or refused where
 * it is not the group's. A private one in its place would keep the others out. */
static int group_directory_prepare(const struct config *config, const char *directory)
{
    int result = shm_group_directory_make(directory, config->group);
    if (result == 0)
        return 0;
    return fault_say(
        EXIT_SKIPPED_OR_NOT_ALLOWED,
        "%s:%u: group: %s is no directory of group %lu, or you are not in it (%s); ask a member or root for "
        "cubudget init, after removing what is there",
        config->path, config->ledger.lines[CONFIG_GROUP], directory, (unsigned long)config->group, strerror(-result));
}

int config_variables_set(const struct config *config, const char *slot_name)
{
    char directory[PATH_MAX];
    const struct config_section *slot = config_slot(config, slot_name);
    int status = 0;
    if (config->ledger.lines[CONFIG_NAME] != 0)
        status = variable_default("CUBUDGET_LEDGER", config->ledger.values.ledger);
    bool shared = config->ledger.lines[CONFIG_GROUP] != 0 && getenv("CUBUDGET_DIR") == NULL;
    if (status == 0 && shared && config_directory(config, directory))
        status = group_directory_prepare(config, directory);
    if (status == 0 && config_directory(config, directory))
        status = variable_default("CUBUDGET_DIR", directory);
    if (status == 0 && slot != NULL && slot->lines[CONFIG_EVICT] != 0)
        status = variable_default("CUBUDGET_EVICT", slot->texts[CONFIG_EVICT]);
    if (status == 0 && slot != NULL && slot->lines[CONFIG_WAIT] != 0)
        status = variable_default("CUBUDGET_WAIT", slot->texts[CONFIG_WAIT]);
    return status;
}

int config_request_fill(struct config *config, const struct settings *settings, struct ledger_request *request)
{
    static struct ledger_plan plan;
    bool written = !settings->has_budget && config->ledger.lines[CONFIG_BUDGET] != 0;
    if (written)
        request->budget_bytes = config->ledger.values.budget_bytes;
    int status = config_plan(config, NULL, request->budget_bytes,
                             settings->has_budget ? "the budget asked for" : "the default", &plan);
    request->has_budget = request->has_budget || written;
    request->plan = &plan;
    return status;
}

/* --- terms ------------------------------------------------------------------------------------------------------------ */

static const char *term_text(enum config_key key, uint64_t value, char text[SIZE_TEXT_BYTES])
{
    if (key != CONFIG_PRIORITY)
        return value == LEDGER_NO_LIMIT ? "none" : size_format(value, text, SIZE_TEXT_BYTES);
    (void)snprintf(text, SIZE_TEXT_BYTES, value > 100 ? "max" : "%llu", (unsigned long long)value);
    return text;
}

/* Whether the file's term counts: it has one, and the user has said nothing else. Says so where the ledger has another. */
static bool term_wanted(const struct config *config, const struct config_section *section, enum config_key key,
                        const char *variable, bool has, uint64_t there, uint64_t written)
{
    char held[SIZE_TEXT_BYTES], asked[SIZE_TEXT_BYTES];
    if (section->lines[key] == 0 || getenv(variable) != NULL)
        return false;
    if (has && there != written)
        log_line(LOG_WARN,
                 "%s:%u: %s: %s here and %s in the ledger, which holds; cubudget limit or cubudget init changes it",
                 config->path, section->lines[key], config_key_name(key), term_text(key, written, asked),
                 term_text(key, there, held));
    return !has;
}

void config_terms_find(const struct config *config, const struct ledger *ledger, const char *slot_name,
                       struct slot_terms *there, struct slot_terms *missing)
{
    const struct config_section *slot = config_slot(config, slot_name);
    int found = *slot_name != '\0' ? ledger_slot_find(ledger, slot_name) : -1;
    *there = (struct slot_terms){.limit_bytes = LEDGER_NO_LIMIT};
    *missing = (struct slot_terms){0};
    if (found >= 0)
        ledger_slot_terms(ledger, (unsigned)found, there);
    (void)term_wanted(config, &config->ledger, CONFIG_BUDGET, "CUBUDGET_BUDGET", true, ledger_budget(ledger),
                      config->ledger.values.budget_bytes);
    if (slot == NULL)
        return;
    *missing = (struct slot_terms){
        .has_limit = term_wanted(config, slot, CONFIG_LIMIT, "CUBUDGET_LIMIT", there->has_limit, there->limit_bytes,
                                 slot->values.limit_bytes),
        .limit_bytes = slot->values.limit_bytes,
        .has_reserve = term_wanted(config, slot, CONFIG_RESERVE, "CUBUDGET_RESERVE", there->has_reserve,
                                   there->reserve_bytes, slot->values.reserve_bytes),
        .reserve_bytes = slot->values.reserve_bytes,
        .has_priority = term_wanted(config, slot, CONFIG_PRIORITY, "CUBUDGET_PRIORITY", there->has_priority,
                                    there->priority, slot->values.priority),
        .priority = slot->values.priority,
    };
}

int config_terms_fill(const struct config *config, struct ledger *ledger, const char *slot_name,
                      const struct slot_terms *missing)
{
    struct ledger_fault fault;
    if (!missing->has_limit && !missing->has_reserve && !missing->has_priority)
        return 0;
    int slot = ledger_slot_claim(ledger, slot_name);
    if (slot < 0)
        return fault_say(EXIT_NO_LEDGER,
                         "the ledger has its %d slots already and '%s' is another; use one of them or another --ledger",
                         LEDGER_SLOTS, slot_name);
    if (ledger_slot_fill(ledger, (unsigned)slot, missing, &fault) != 0)
        return fault_say(EXIT_BAD_SETTINGS, "%s: slot '%s': %s", config->path, slot_name, fault.text);
    return 0;
}
