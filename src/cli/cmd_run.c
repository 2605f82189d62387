/*
 * cubudget run: turns its options into CUBUDGET_* variables, makes sure that settings and ledger are good, and becomes the
 * command with the library preloaded. Whatever would stop the program at its first CUDA call shows here, before it starts.
 */
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "cli/command.h"
#include "cli/configuration.h"
#include "cli/executable.h"
#include "cli/launch.h"
#include "cli/options.h"
#include "cli/output.h"
#include "cli/witness.h"
#include "ledger/snapshot.h"
#include "platform/env.h"
#include "platform/log.h"
#include "platform/shm.h"
#include "platform/size.h"

enum { FIRST_KEY = 0x100, EXIT_NOT_EXECUTABLE = 126, EXIT_NOT_FOUND = 127 };

/* Each option is a variable of the same meaning; the key of the i-th is FIRST_KEY + i. */
static const struct run_option {
    const char *name, *variable, *argument, *doc;
    int flags;
} run_options[] = {
    {"slot", "CUBUDGET_SLOT", "NAME", "charge this slot (the program's own name)", 0},
    {"budget", "CUBUDGET_BUDGET", "SIZE", "of each device, for all slots of the ledger together (8GiB)", 0},
    {"limit", "CUBUDGET_LIMIT", "SIZE", "the most this slot may hold (no limit)", 0},
    {"reserve", "CUBUDGET_RESERVE", "SIZE", "what this slot can always get; 0 gives it up", 0},
    {"priority", "CUBUDGET_PRIORITY", "0..100|max", "who stays on the card longer (50); max: always", 0},
    {"ledger", "CUBUDGET_LEDGER", "NAME", "the ledger of that name (default)", 0},
    {"config", "CUBUDGET_CONFIG", "FILE", "what the ledger and its slots shall be (~/.config/cubudget.ini)", 0},
    {"evict", "CUBUDGET_EVICT", "auto|off|checkpoint", "how it may be moved off the card for others (auto)", 0},
    {"wait", "CUBUDGET_WAIT", "TIME", "how long an allocation waits for room (30s); 0: not", 0},
    {"simulate", "CUBUDGET_SIMULATE", "KEY=VALUE,...", "run on the simulated GPU", OPTION_ARG_OPTIONAL},
};
enum { RUN_OPTIONS = sizeof run_options / sizeof *run_options };

struct run {
    struct options_base base;
    const char *values[RUN_OPTIONS]; /* NULL: not given */
    char **command;                  /* NULL: none */
    char slot[LEDGER_NAME_BYTES];    /* that the command will charge to; empty: not known */
};

static error_t run_parse(int key, char *argument, struct argp_state *state)
{
    struct run *run = state->input;
    if (key >= FIRST_KEY && key < FIRST_KEY + RUN_OPTIONS) {
        run->values[key - FIRST_KEY] = argument != NULL ? argument : "";
        return 0;
    }
    if (key != ARGP_KEY_ARG)
        return ARGP_ERR_UNKNOWN;
    run->command = state->argv + state->next - 1; /* the rest is the command's */
    state->next = state->argc;
    return 0;
}

static enum options_result run_read(struct run *run, int argc, char **argv)
{
    struct argp_option list[RUN_OPTIONS + 1] = {0};
    for (int i = 0; i < RUN_OPTIONS; i++)
        list[i] = (struct argp_option){run_options[i].name,  FIRST_KEY + i,      run_options[i].argument,
                                       run_options[i].flags, run_options[i].doc, 0};
    const struct argp argp = {
        .options = list,
        .parser = run_parse,
        .args_doc = "COMMAND [ARGUMENT...]",
        .doc = "Runs COMMAND with its device memory charged to a slot of the ledger."
               "\vSIZE is bytes or a number with K M G T, KiB MiB GiB TiB (1024) or KB MB GB TB (1000); TIME a number "
               "with ms, s or m. Each option has a variable, such as CUBUDGET_SLOT, that is used where the option is "
               "not given. The exit status is COMMAND's; 126 and 127 "
               "where it cannot be run or found, 64 usage, 73 no usable ledger, 78 bad settings.",
    };
    return options_read(&argp, &run->base, true, argc, argv);
}

/* --- settings ---------------------------------------------------------------------------------------------------------- */

static bool variable_is_given(const struct run *run, const char *variable, const char **option)
{
    for (int i = 0; i < RUN_OPTIONS; i++)
        if (strcmp(run_options[i].variable, variable) == 0) {
            *option = run_options[i].name;
            return run->values[i] != NULL;
        }
    return false;
}

/* Says a fault of the settings in the words of who wrote it: where a variable came from an option, its name. */
static int settings_fault_say(const struct run *run, const char *text)
{
    char shown[512];
    size_t used = 0;
    bool quoted = false;
    while (*text != '\0' && used < sizeof shown - 1) {
        char variable[64];
        const char *option;
        size_t length = strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZ_");
        (void)snprintf(variable, sizeof variable, "%.*s", (int)length, text);
        quoted ^= *text == '\'';
        if (!quoted && length > 0 && variable_is_given(run, variable, &option)) {
            int added = snprintf(shown + used, sizeof shown - used, "--%s", option);
            used += (size_t)added;
            text += length;
        } else {
            size_t step = length > 0 ? length : 1;
            if (step > sizeof shown - 1 - used)
                step = sizeof shown - 1 - used;
            memcpy(shown + used, text, step);
            used += step;
            text += step;
        }
    }
    shown[used < sizeof shown ? used : sizeof shown - 1] = '\0';
    return fault_say(EXIT_BAD_SETTINGS, "%s", shown);
}

/* A CUBUDGET_ variable that does nothing is said once, here, and not again by each process of the program. */
static int unknown_say(const struct settings *settings)
{
    char text[SETTINGS_UNKNOWN_BYTES];
    size_t at = 0;
    bool said = false;
    while (settings_unknown_next(&at, text)) {
        if (settings->log_level >= LOG_WARN)
            log_line(LOG_WARN, "%s", text);
        said = true;
    }
    if (!said || setenv(SETTINGS_WARNED, "1", 1) == 0)
        return 0;
    return fault_say(EXIT_BAD_SETTINGS, "%s: %s; shorten the environment", SETTINGS_WARNED, strerror(errno));
}

/* The file is read by programs that may be in another directory. */
static int config_prepare(const struct run *run, struct config *config)
{
    char path[PATH_MAX];
    int status = config_load(config, NULL);
    if (status != 0 || config->path[0] == '\0')
        return status;
    if (realpath(config->path, path) == NULL || setenv("CUBUDGET_CONFIG", path, 1) != 0)
        return fault_say(EXIT_BAD_SETTINGS, "%.200s: %s; name another file", config->path, strerror(errno));
    return config_variables_set(config, run->slot);
}

static int settings_prepare(struct run *run, struct config *config, struct settings *settings)
{
    struct settings_fault fault;
    for (int i = 0; i < RUN_OPTIONS; i++)
        if (run->values[i] != NULL && setenv(run_options[i].variable, run->values[i], 1) != 0)
            return fault_say(EXIT_BAD_SETTINGS, "--%s: %s; shorten the environment", run_options[i].name,
                             strerror(errno));
    if (settings_read(settings, &fault) != 0) /* first, so that what the user wrote is judged by itself */
        return settings_fault_say(run, fault.text);
    if (settings->slot[0] != '\0')
        memcpy(run->slot, settings->slot, sizeof run->slot);
    else if (!executable_name(run->command[0], run->slot))
        run->slot[0] = '\0'; /* exec will say so */
    int status = config_prepare(run, config);
    if (status == 0 && settings_read(settings, &fault) != 0)
        return settings_fault_say(run, fault.text);
    if (status == 0)
        status = unknown_say(settings);
    if (status != 0)
        return status;
    if (settings->simulate && witness_options_check(settings->simulate_options, fault.text, sizeof fault.text) != 0) {
        char text[sizeof fault.text + 32];
        (void)snprintf(text, sizeof text, "CUBUDGET_SIMULATE: %s", fault.text);
        return settings_fault_say(run, text);
    }
    return 0;
}

/* --- the ledger -------------------------------------------------------------------------------------------------------- */

/* A share of the budget that the ledger as it is can never give. */
static int share_check(const struct run *run, const char *variable, bool has, uint64_t bytes, uint64_t budget_bytes)
{
    char share[SIZE_TEXT_BYTES], budget[SIZE_TEXT_BYTES], text[256];
    if (!has || bytes <= budget_bytes)
        return 0;
    (void)snprintf(text, sizeof text, "%s: %s is above the ledger's budget of %s; write less", variable,
                   size_format(bytes, share, sizeof share), size_format(budget_bytes, budget, sizeof budget));
    return settings_fault_say(run, text);
}

/* A limit or reserve that does not go with what the slot has, or is to have by the file. */
static int order_check(const struct run *run, const struct settings *settings, const struct slot_terms *terms)
{
    char own[SIZE_TEXT_BYTES], other[SIZE_TEXT_BYTES], text[256];
    if (settings->has_limit && !settings->has_reserve && terms->reserve_bytes > settings->limit_bytes)
        (void)snprintf(text, sizeof text, "CUBUDGET_LIMIT: %s is below the reserve of slot '%s', %s; write more",
                       size_format(settings->limit_bytes, own, sizeof own), run->slot,
                       size_format(terms->reserve_bytes, other, sizeof other));
    else if (settings->has_reserve && !settings->has_limit && settings->reserve_bytes > terms->limit_bytes)
        (void)snprintf(text, sizeof text, "CUBUDGET_RESERVE: %s is above the limit of slot '%s', %s; write less",
                       size_format(settings->reserve_bytes, own, sizeof own), run->slot,
                       size_format(terms->limit_bytes, other, sizeof other));
    else
        return 0;
    return settings_fault_say(run, text);
}

/* The slot's terms: what the file has and nobody has set goes into the ledger. */
static int terms_prepare(const struct run *run, const struct config *config, const struct settings *settings,
                         struct ledger *ledger)
{
    struct slot_terms there, missing;
    config_terms_find(config, ledger, run->slot, &there, &missing);
    if (missing.has_limit)
        there.limit_bytes = missing.limit_bytes;
    if (missing.has_reserve)
        there.reserve_bytes = missing.reserve_bytes;
    int status = order_check(run, settings, &there);
    return status == 0 ? config_terms_fill(config, ledger, run->slot, &missing) : status;
}

/* Whether the kernel's locks tell the living from the dead in this directory (on overlayfs they do not). The byte lies behind
 * those of rows; that another `run` holds it at this moment shows that they do. */
static int locks_check(const struct ledger *ledger)
{
    static const off_t probe_byte = 2 * (off_t)LEDGER_LOCK_BYTES;
    struct liveness held = {0};
    int result =
        liveness_hold(&held, ledger->path, ledger->file.device, ledger->file.inode, probe_byte, probe_byte + 1);
    if (result == 0)
        liveness_drop(&held);
    if (result == -ENOTSUP)
        return fault_say(
            EXIT_NO_LEDGER,
            "%s lies on a file system whose locks do not tell who is alive (overlayfs, as in containers, is "
            "one); set CUBUDGET_DIR to a directory under /dev/shm, or bind-mount one",
            ledger->path);
    if (result == 0 || result == -EAGAIN || result == -ESTALE)
        return 0;
    return fault_say(EXIT_NO_LEDGER, "%s cannot be locked: %s; choose another directory with CUBUDGET_DIR",
                     ledger->path, strerror(-result));
}

static int ledger_check(const struct run *run, const struct config *config, const struct settings *settings,
                        struct ledger *ledger)
{
    struct snapshot snapshot;
    int status = locks_check(ledger);
    if (status != 0)
        return status;
    if (snapshot_take(ledger, &snapshot) != 0)
        return fault_say(EXIT_NO_LEDGER, "no memory to look at %s; free some", ledger->path);
    status = share_check(run, "CUBUDGET_LIMIT", settings->has_limit, settings->limit_bytes, snapshot.budget_bytes);
    if (status == 0)
        status =
            share_check(run, "CUBUDGET_RESERVE", settings->has_reserve, settings->reserve_bytes, snapshot.budget_bytes);
    snapshot_free(&snapshot);
    return status == 0 ? terms_prepare(run, config, settings, ledger) : status;
}

/* Opens the ledger, or makes it whole from the file. */
static int ledger_find(struct config *config, const struct settings *settings, const char *directory,
                       struct ledger *ledger)
{
    struct ledger_fault fault;
    struct ledger_request request = {
        .directory = directory,
        .name = settings->ledger,
        .has_budget = settings->has_budget,
        .budget_bytes = settings->budget_bytes,
    };
    int result = ledger_open(ledger, &request, &fault);
    if (result == -ENOENT) {
        request.create = true;
        int status = config->path[0] != '\0' ? config_request_fill(config, settings, &request) : 0;
        if (status != 0)
            return status;
        result = ledger_open(ledger, &request, &fault);
    }
    return result == 0 ? 0 : fault_say(result == -EEXIST ? EXIT_BAD_SETTINGS : EXIT_NO_LEDGER, "%s", fault.text);
}

static int ledger_prepare(const struct run *run, struct config *config, const struct settings *settings)
{
    char directory[PATH_MAX];
    struct ledger ledger;
    if (shm_directory(settings->directory, directory) != 0)
        return fault_say(EXIT_BAD_SETTINGS,
                         "CUBUDGET_DIR: '%.60s...' is longer than a path can be; choose a shorter one",
                         settings->directory);
    int status = ledger_find(config, settings, directory, &ledger);
    if (status != 0)
        return status;
    status = ledger_check(run, config, settings, &ledger);
    ledger_close(&ledger);
    if (status == 0 && setenv("CUBUDGET_DIR", directory, 1) != 0) /* children must not decide otherwise */
        status = fault_say(EXIT_BAD_SETTINGS, "CUBUDGET_DIR: %s; shorten the environment", strerror(errno));
    return status;
}

/* --- the command ------------------------------------------------------------------------------------------------------- */

static int command_become(char **command)
{
    (void)execvp(command[0], command);
    int error = errno;
    if (error == ENOENT && strchr(command[0], '/') != NULL && access(command[0], F_OK) == 0)
        return fault_say(EXIT_NOT_FOUND,
                         "'%.200s' is there, but not the interpreter that it names in its first line, or the loader it "
                         "was linked for; install that, or name another",
                         command[0]);
    if (error == ENOENT)
        return fault_say(EXIT_NOT_FOUND, "'%.200s' is not found; check its name, and PATH", command[0]);
    const char *remedy = error == EACCES  ? "name a program that you may execute"
                         : error == E2BIG ? "give it less in arguments and environment"
                                          : "see execve(2)";
    return fault_say(EXIT_NOT_EXECUTABLE, "'%.200s' cannot be run: %s; %s", command[0], strerror(error), remedy);
}

static int run_run(int argc, char **argv)
{
    static struct config config; /* too large for a stack that somebody may have limited */
    struct run run = {0};
    struct settings settings;
    struct launch_files files;
    enum options_result result = run_read(&run, argc, argv);
    if (result != OPTIONS_GOOD)
        return options_status(result);
    if (run.command == NULL)
        return fault_say(EXIT_USAGE_ERROR, "no command to run; write cubudget run [OPTION...] -- COMMAND");
    int status = settings_prepare(&run, &config, &settings);
    if (status == 0)
        status = launch_files_find(&files, settings.simulate);
    if (status == 0)
        status = ledger_prepare(&run, &config, &settings);
    if (status == 0)
        status = launch_environment_set(&files, settings.simulate);
    return status != 0 ? status : command_become(run.command);
}

const struct command command_run = {"run", "[OPTION...] COMMAND...", "start a program in a slot", run_run};
