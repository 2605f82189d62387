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

struct init {
    const char *config, *group, *ledger;
};

static enum options_result init_read(struct init *init, int argc, char **argv)
{
    const struct options_text list[] = {
        {"config", "FILE", "what the ledger shall be (CUBUDGET_CONFIG; ~/.config/cubudget.ini)", &init->config},
        {"group", "NAME", "for the users of this group, in a directory of the group", &init->group},
        {"ledger", "NAME", "the ledger of that name (CUBUDGET_LEDGER; that of the file)", &init->ledger},
    };
    const struct options_texts texts = {
        .doc = "Makes a ledger, or changes the one that is there, to what the configuration file says."
               "\vWithout a file the ledger has a budget of CUBUDGET_BUDGET, or 8GiB, and no slots. man cubudget.ini "
               "tells of the file.",
        .list = list,
        .count = sizeof list / sizeof *list,
    };
    return options_texts_read(&texts, argc, argv);
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

struct sharing {
    bool wanted;
    gid_t group;
};

/* Whom it is for. The group's directory, where nobody says which, is the one that the members' own configuration leads to. */
static int group_read(const struct init *init, const struct config *config, struct ledger_place *place,
                      struct sharing *sharing)
{
    sharing->wanted = init->group != NULL || config->ledger.lines[CONFIG_GROUP] != 0;
    sharing->group = config->group;
    int status = init->group != NULL ? group_find(init->group, &sharing->group) : 0;
    if (status == 0 && sharing->wanted && getenv("CUBUDGET_DIR") == NULL && config->ledger.lines[CONFIG_DIRECTORY] == 0)
        shm_group_directory(sharing->group, place->directory);
    return status;
}

/* Makes the group's directory, or finds that it is one. */
static int group_prepare(const struct ledger_place *place, const struct sharing *sharing)
{
    gid_t group = sharing->group;
    if (!sharing->wanted)
        return 0;
    int result = shm_group_directory_make(place->directory, group);
    if (result == -ENOTEMPTY)
        return fault_say(
            EXIT_SKIPPED_OR_NOT_ALLOWED,
            "%s is there already, with something in it or open to others, and is not given to group %lu; name "
            "one that is not there, or remove it",
            place->directory, (unsigned long)group);
    if (result == -EPERM)
        return fault_say(EXIT_SKIPPED_OR_NOT_ALLOWED,
                         "%s cannot be made a directory of group %lu: it is another's, or you are not in the group; "
                         "ask a member or root, or set CUBUDGET_DIR to another",
                         place->directory, (unsigned long)group);
    if (result != 0)
        return fault_say(EXIT_NO_LEDGER, "%s cannot be made a directory of group %lu: %s; set CUBUDGET_DIR to another",
                         place->directory, (unsigned long)group, strerror(-result));
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

/* What it shall have: read before anything is made or changed. */
struct wish {
    bool asked; /* for a budget */
    uint64_t budget_bytes;
    const char *budget_name;
    struct ledger_plan plan;
};

static int wish_read(struct config *config, const struct ledger *existing, struct wish *wish)
{
    bool own = existing == NULL || wish->asked;
    return config_plan(config, existing, own ? wish->budget_bytes : ledger_budget(existing),
                       own ? wish->budget_name : "the ledger's", &wish->plan);
}

static int ledger_new(struct config *config, const struct ledger_place *place, const struct sharing *sharing,
                      struct wish *wish)
{
    struct ledger ledger;
    struct ledger_fault fault;
    int status = wish_read(config, NULL, wish);
    if (status == 0)
        status = group_prepare(place, sharing);
    if (status != 0)
        return status;
    const struct ledger_request request = {.directory = place->directory,
                                           .name = place->name,
                                           .create = true,
                                           .has_budget = wish->asked,
                                           .budget_bytes = wish->budget_bytes,
                                           .plan = &wish->plan};
    int result = ledger_open(&ledger, &request, &fault);
    if (result != 0)
        return fault_say(result == -EEXIST ? EXIT_BAD_SETTINGS : EXIT_NO_LEDGER, "%s", fault.text);
    if (sharing->wanted)
        status = group_check(&ledger, sharing->group);
    if (status == 0)
        summary_print(&ledger, config, "made");
    ledger_close(&ledger);
    return status;
}

static int ledger_change(struct config *config, struct ledger *ledger, const struct sharing *sharing, struct wish *wish)
{
    struct ledger_fault fault;
    int status = sharing->wanted ? group_check(ledger, sharing->group) : 0;
    if (status == 0)
        status = wish_read(config, ledger, wish);
    if (status == 0 && ledger_plan_apply(ledger, &wish->plan, wish->asked, wish->budget_bytes, &fault) != 0)
        status = fault_say(EXIT_BAD_SETTINGS, "%s%s%s", config->path, config->path[0] != '\0' ? ": " : "", fault.text);
    if (status == 0)
        summary_print(ledger, config, "set");
    return status;
}

/* Makes it whole; or, where it is there, changes it. */
static int ledger_make(struct config *config, const struct ledger_place *place, const struct sharing *sharing)
{
    static struct wish wish;
    struct ledger ledger;
    struct ledger_fault fault;
    const struct ledger_request request = {.directory = place->directory, .name = place->name};
    int status = budget_find(config, &wish.asked, &wish.budget_bytes, &wish.budget_name);
    if (status != 0)
        return status;
    int result = ledger_open(&ledger, &request, &fault);
    if (result == -ENOENT)
        return ledger_new(config, place, sharing, &wish);
    status = group_prepare(place, sharing); /* what is wrong with the directory is said first */
    if (status == 0 && result != 0)
        status = fault_say(result == -EEXIST ? EXIT_BAD_SETTINGS : EXIT_NO_LEDGER, "%s", fault.text);
    if (status == 0)
        status = ledger_change(config, &ledger, sharing, &wish);
    if (result == 0)
        ledger_close(&ledger);
    return status;
}

static int init_run(int argc, char **argv)
{
    static struct config config;
    struct init init = {0};
    struct ledger_place place;
    struct sharing sharing;
    enum options_result result = init_read(&init, argc, argv);
    if (result != OPTIONS_GOOD)
        return options_status(result);
    int status = config_load(&config, init.config);
    if (status == 0)
        status = config_place_find(init.ledger, &config, &place);
    if (status == 0)
        status = group_read(&init, &config, &place, &sharing);
    if (status == 0)
        status = ledger_make(&config, &place, &sharing);
    return status == 0 ? output_finish(0) : status;
}

const struct command command_init = {"init", "[--config FILE]", "make a ledger, from a file or for a group", init_run};
