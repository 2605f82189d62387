/*
 * What a configuration means for a program that `cubudget run` starts: variables, where the user has set none himself, and a ledger
 * made whole where there is none. What the ledger has already holds against the file, because somebody changed it under way or
 * made it by other means; where the two differ, a line says so.
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

int config_variables_set(const struct config *config)
{
    char directory[PATH_MAX];
    const char *name = getenv("CUBUDGET_SLOT");
    const struct config_section *slot = name != NULL ? config_slot(config, name) : NULL;
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

/* Sets the variable where the ledger has no such term, or the same one. */
static int term_set(const struct config *config, const struct config_section *section, enum config_key key,
                    const char *variable, bool has, uint64_t there, uint64_t written)
{
    char held[SIZE_TEXT_BYTES], asked[SIZE_TEXT_BYTES];
    if (section->lines[key] == 0 || getenv(variable) != NULL)
        return 0;
    if (!has || there == written)
        return written == LEDGER_NO_LIMIT ? 0 : variable_default(variable, section->texts[key]);
    bool sizes = key != CONFIG_PRIORITY;
    if (sizes) {
        (void)size_format(there, held, sizeof held);
        (void)size_format(written, asked, sizeof asked);
    } else {
        (void)snprintf(held, sizeof held, "%llu", (unsigned long long)there);
        (void)snprintf(asked, sizeof asked, "%llu", (unsigned long long)written);
    }
    log_line(LOG_WARN,
             "%s:%u: %s: %s here and %s in the ledger, which holds; cubudget limit or cubudget init changes it",
             config->path, section->lines[key], config_key_name(key), asked, there == LEDGER_NO_LIMIT ? "none" : held);
    return 0;
}

int config_terms_set(const struct config *config, const struct ledger *ledger)
{
    const char *name = getenv("CUBUDGET_SLOT");
    const struct config_section *slot = name != NULL ? config_slot(config, name) : NULL;
    int found = slot != NULL ? ledger_slot_find(ledger, name) : -1;
    struct slot_terms terms = {0};
    if (found >= 0)
        ledger_slot_terms(ledger, (unsigned)found, &terms);
    int status = term_set(config, &config->ledger, CONFIG_BUDGET, "CUBUDGET_BUDGET", true, ledger_budget(ledger),
                          config->ledger.values.budget_bytes);
    if (status == 0 && slot != NULL)
        status = term_set(config, slot, CONFIG_LIMIT, "CUBUDGET_LIMIT", terms.has_limit, terms.limit_bytes,
                          slot->values.limit_bytes);
    if (status == 0 && slot != NULL)
        status = term_set(config, slot, CONFIG_RESERVE, "CUBUDGET_RESERVE", terms.has_reserve, terms.reserve_bytes,
                          slot->values.reserve_bytes);
    if (status == 0 && slot != NULL)
        status = term_set(config, slot, CONFIG_PRIORITY, "CUBUDGET_PRIORITY",
                          terms.has_priority && terms.priority != SETTINGS_DEFAULT_PRIORITY, terms.priority,
                          slot->values.priority);
    return status;
}
