/*
 * cubudget init: makes a ledger whole, or brings one to what the configuration file says: budgets, and all slots with their
 * terms; for one user, or for those of a group. Says on standard output what it has then.
 */
#include "config.h"

#include <errno.h>
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "cli/command.h"
#include "cli/configuration.h"
#include "cli/options.h"
#include "cli/output.h"
#include "cli/over.h"
#include "platform/log.h"
#include "platform/shm.h"
#include "platform/size.h"

enum { KEY_CONFIG = 0x100, KEY_GROUP, KEY_LEDGER };

struct init {
    struct options_base base;
    const char *config, *group, *ledger;
};

static error_t init_parse(int key, char *argument, struct argp_state *state)
{
    struct init *init = state->input;
    switch (key) {
    case KEY_CONFIG:
        init->config = argument;
        return 0;
    case KEY_GROUP:
        init->group = argument;
        return 0;
    case KEY_LEDGER:
        init->ledger = argument;
        return 0;
    case ARGP_KEY_ARG:
        return argument_refuse(&init->base, state, argument);
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static enum options_result init_read(struct init *init, int argc, char **argv)
{
    static const struct argp_option list[] = {
        {"config", KEY_CONFIG, "FILE", 0, "what the ledger shall be (CUBUDGET_CONFIG; ~/.config/cubudget.ini)", 0},
        {"group", KEY_GROUP, "NAME", 0, "for the users of this group, in a directory of the group", 0},
        {"ledger", KEY_LEDGER, "NAME", 0, "the ledger of that name (CUBUDGET_LEDGER; that of the file)", 0},
        {0},
    };
    static const struct argp argp = {
        .options = list,
        .parser = init_parse,
        .doc = "Makes a ledger, or changes the one that is there, to what the configuration file says."
               "\vWithout a file the ledger has a budget of CUBUDGET_BUDGET, or 8GiB, and no slots. man cubudget.ini "
               "tells of the file.",
    };
    return options_read(&argp, &init->base, false, argc, argv);
}

/* --- the group ------------------------------------------------------------------------------------------------------- */

static int group_find(const char *text, gid_t *group)
{
    char *end;
    const struct group *entry = getgrnam(text);
    errno = 0;
    unsigned long number = strtoul(text, &end, 10);
    if (entry == NULL && (errno != 0 || *text < '0' || *text > '9' || *end != '\0' || number >= UINT32_MAX))
        return fault_say(EXIT_BAD_SETTINGS,
                         "--group: '%.60s' is not a group of this system; write the name or number of one", text);
    *group = entry != NULL ? entry->gr_gid : (gid_t)number;
    return 0;
}

/* Makes the group's directory. Where nobody says which, the one that the members' own configuration leads to. */
static int group_prepare(const struct init *init, const struct config *config, struct ledger_place *place, gid_t *group,
                         bool *shared)
{
    *shared = init->group != NULL || config->ledger.lines[CONFIG_GROUP] != 0;
    *group = config->group;
    int status = init->group != NULL ? group_find(init->group, group) : 0;
    if (status != 0 || !*shared)
        return status;
    if (getenv("CUBUDGET_DIR") == NULL && config->ledger.lines[CONFIG_DIRECTORY] == 0)
        shm_group_directory(*group, place->directory);
    int result = shm_group_directory_make(place->directory, *group);
    if (result == -ENOTEMPTY)
        return fault_say(
            EXIT_SKIPPED_OR_NOT_ALLOWED,
            "%s is there already, with something in it or open to others, and is not given to group %lu; name "
            "one that is not there, or remove it",
            place->directory, (unsigned long)*group);
    if (result == -EPERM)
        return fault_say(EXIT_SKIPPED_OR_NOT_ALLOWED,
                         "%s cannot be made a directory of group %lu: it is another's, or you are not in the group; "
                         "ask a member or root, or set CUBUDGET_DIR to another",
                         place->directory, (unsigned long)*group);
    if (result != 0)
        return fault_say(EXIT_NO_LEDGER, "%s cannot be made a directory of group %lu: %s; set CUBUDGET_DIR to another",
                         place->directory, (unsigned long)*group, strerror(-result));
    return 0;
}

/* A ledger that was there before its directory became the group's is its maker's alone. */
static int group_check(const struct ledger *ledger, gid_t group)
{
    struct stat status;
    if (stat(ledger->path, &status) == 0 && status.st_gid == group && (status.st_mode & 07777) == 0660)
        return 0;
    return fault_say(EXIT_BAD_SETTINGS, "%s is not the group's: it was there before; remove it with cubudget gc first",
                     ledger->path);
}

/* --- the ledger ------------------------------------------------------------------------------------------------------ */

/* The budget it shall have: the variable's, the file's, or none that somebody asked for. */
static int budget_find(const struct config *config, bool *asked, uint64_t *budget_bytes, const char **name)
{
    struct settings settings = {.budget_bytes = SETTINGS_DEFAULT_BUDGET_BYTES};
    struct settings_fault fault;
    const char *variable = getenv("CUBUDGET_BUDGET");
    *name = variable != NULL ? "CUBUDGET_BUDGET" : "the default";
    *asked = variable != NULL || config->ledger.lines[CONFIG_BUDGET] != 0;
    if (variable != NULL && *variable == '\0')
        return fault_say(EXIT_BAD_SETTINGS, "CUBUDGET_BUDGET: '' is empty; give it a value or unset it");
    if (variable != NULL && setting_read("CUBUDGET_BUDGET", *name, variable, &settings, &fault) != 0)
        return fault_say(EXIT_BAD_SETTINGS, "%s", fault.text);
    *budget_bytes = variable == NULL && *asked ? config->ledger.values.budget_bytes : settings.budget_bytes;
    return 0;
}

static void summary_print(struct ledger *ledger, const struct config *config, const char *what)
{
    static struct snapshot snapshot;
    char first[SIZE_TEXT_BYTES], second[SIZE_TEXT_BYTES];
    uint64_t reserves = 0, limits = 0, least;
    unsigned reserving = 0, limited = 0;
    if (snapshot_take(ledger, &snapshot) != 0)
        return;
    least = snapshot.budget_bytes;
    for (unsigned i = 0; i < snapshot.slot_count; i++) {
        reserves += snapshot.slots[i].reserve_bytes;
        reserving += snapshot.slots[i].reserve_bytes != 0;
        if (snapshot.slots[i].limit_bytes == LEDGER_NO_LIMIT)
            continue;
        limits += snapshot.slots[i].limit_bytes;
        limited++;
    }
    (void)printf("ledger '%s' (%s) %s", snapshot.name, ledger->path, what);
    (void)printf(config->path[0] != '\0' ? " from %s\n" : "\n", config->path);
    (void)printf("  budget   %s a device\n", size_format(snapshot.budget_bytes, first, sizeof first));
    for (unsigned i = 0; i < snapshot.device_count; i++)
        if (snapshot.devices[i].budget_bytes != snapshot.budget_bytes) {
            (void)printf("  device %u: budget %s\n", snapshot.devices[i].index,
                         size_format(snapshot.devices[i].budget_bytes, first, sizeof first));
            least = snapshot.devices[i].budget_bytes < least ? snapshot.devices[i].budget_bytes : least;
        }
    (void)printf("  slots    %u, %u of them with a limit: %s together\n", snapshot.slot_count, limited,
                 size_format(limits, first, sizeof first));
    (void)printf("  reserves %s of %u slot%s; %s for whoever asks\n", size_format(reserves, first, sizeof first),
                 reserving, reserving == 1 ? "" : "s",
                 size_format(least > reserves ? least - reserves : 0, second, sizeof second));
    over_say(&snapshot, -1);
    snapshot_free(&snapshot);
}

/* Makes it whole; or, where it is there, changes it. */
static int ledger_make(struct config *config, const struct ledger_place *place, bool shared, gid_t group)
{
    static struct ledger_plan plan;
    struct ledger ledger;
    struct ledger_fault fault;
    bool asked = false, made;
    uint64_t budget_bytes = 0;
    const char *name;
    int status = budget_find(config, &asked, &budget_bytes, &name);
    if (status != 0)
        return status;
    struct ledger_request request = {
        .directory = place->directory, .name = place->name, .has_budget = false, .budget_bytes = budget_bytes};
    int result = ledger_open(&ledger, &request, &fault);
    made = result == -ENOENT;
    if (made || result == 0)
        status = config_plan(config, made ? NULL : &ledger, made || asked ? budget_bytes : ledger_budget(&ledger),
                             made || asked ? name : "the ledger's", &plan);
    if (made && status == 0) {
        request.create = true;
        request.has_budget = asked;
        request.plan = &plan;
        result = ledger_open(&ledger, &request, &fault);
    } else if (made) {
        return status;
    }
    if (result != 0)
        return fault_say(result == -EEXIST ? EXIT_BAD_SETTINGS : EXIT_NO_LEDGER, "%s", fault.text);
    if (status == 0 && shared)
        status = group_check(&ledger, group);
    if (status == 0 && !made && ledger_plan_apply(&ledger, &plan, asked, budget_bytes, &fault) != 0)
        status = fault_say(EXIT_BAD_SETTINGS, "%s%s%s", config->path, config->path[0] != '\0' ? ": " : "", fault.text);
    if (status == 0)
        summary_print(&ledger, config, made ? "made" : "set");
    ledger_close(&ledger);
    return status;
}

static int init_run(int argc, char **argv)
{
    static struct config config;
    struct init init = {0};
    struct ledger_place place;
    gid_t group = 0;
    bool shared;
    enum options_result result = init_read(&init, argc, argv);
    if (result != OPTIONS_GOOD)
        return options_status(result);
    int status = config_load(&config, init.config);
    if (status == 0)
        status = config_place_find(init.ledger, &config, &place);
    if (status == 0)
        status = group_prepare(&init, &config, &place, &group, &shared);
    if (status == 0)
        status = ledger_make(&config, &place, shared, group);
    return status == 0 ? output_finish(0) : status;
}

const struct command command_init = {"init", "[--config FILE]", "make a ledger, from a file or for a group", init_run};
