/*
 * Options of a command line; see options.h. argp parses and writes the help; what it would say of mistakes takes several
 * lines, so it is kept quiet and we look at the word it stopped at.
 */
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "cli/configuration.h"
#include "cli/options.h"
#include "cli/output.h"
#include "platform/env.h"
#include "platform/log.h"
#include "platform/shm.h"

enum { KEY_HELP = 'h', KEY_LEDGER = 0x100, KEY_JSON, KEY_BOOKS };

struct reading {
    const struct argp *outer, *argp;
    struct options_base *base;
};

/* The long option that `word` (with its dashes) names, by whole name. */
static const struct argp_option *option_find(const struct argp *argp, const char *word)
{
    size_t length = strcspn(word, "=");
    if (argp->options == NULL || strncmp(word, "--", 2) != 0)
        return NULL;
    for (const struct argp_option *option = argp->options; option->name != NULL || option->key != 0; option++)
        if (option->name != NULL && strlen(option->name) == length - 2 &&
            strncmp(option->name, word + 2, length - 2) == 0)
            return option;
    return NULL;
}

static void mistake_say(const struct reading *reading, const struct argp_state *state)
{
    const char *word = state->next > 0 && state->next <= state->argc ? state->argv[state->next - 1] : "";
    const struct argp_option *option = option_find(reading->argp, word);
    reading->base->told = true;
    if (option != NULL && option->arg != NULL)
        (void)fault_say(0, "%s needs a value: %s=%s; see %s --help", word, word, option->arg, state->name);
    else if (option != NULL || strncmp(word, "--help=", 7) == 0)
        (void)fault_say(0, "'%.100s': this option takes no value; see %s --help", word, state->name);
    else
        (void)fault_say(0, "'%.100s' is not an option of %s; see %s --help", word, state->name, state->name);
}

static error_t outer_parse(int key, char *argument, struct argp_state *state)
{
    struct reading *reading = state->input;
    (void)argument;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = reading->base;
        return 0;
    case KEY_HELP:
        argp_help(reading->outer, stdout, ARGP_HELP_SHORT_USAGE | ARGP_HELP_LONG | ARGP_HELP_DOC, state->name);
        reading->base->helped = true;
        state->next = state->argc;
        return 0;
    case ARGP_KEY_ERROR:
        if (!reading->base->told && !reading->base->helped)
            mistake_say(reading, state);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

error_t argument_refuse(struct options_base *base, const struct argp_state *state, const char *argument)
{
    base->told = true;
    (void)fault_say(0, "'%.100s' is one argument too many; see %s --help", argument, state->name);
    return EINVAL;
}

enum options_result options_read(const struct argp *argp, struct options_base *base, bool in_order, int argc,
                                 char **argv)
{
    static const struct argp_option help_option[] = {
        {"help", KEY_HELP, NULL, 0, "show this help", -1},
        {0},
    };
    const struct argp_child children[] = {{.argp = argp}, {0}};
    const struct argp outer = {
        .options = help_option, .parser = outer_parse, .children = children, /* whose own text argp shows */
    };
    struct reading reading = {&outer, argp, base};
    unsigned flags = ARGP_NO_ERRS | ARGP_NO_HELP | ARGP_NO_EXIT | (in_order ? ARGP_IN_ORDER : 0U);
    error_t result = argp_parse(&outer, argc, argv, flags, NULL, &reading);
    if (base->helped)
        return OPTIONS_HELPED;
    return result == 0 ? OPTIONS_GOOD : OPTIONS_WRONG;
}

int options_status(enum options_result result)
{
    return result == OPTIONS_HELPED ? output_finish(0) : EXIT_USAGE_ERROR;
}

/* --- texts ------------------------------------------------------------------------------------------------------------- */

enum { KEY_TEXT = 0x200 }; /* + number in the list */

struct texts_reading {
    struct options_base base;
    const struct options_texts *texts;
    unsigned words;
};

static error_t texts_parse(int key, char *argument, struct argp_state *state)
{
    struct texts_reading *reading = state->input;
    const struct options_texts *texts = reading->texts;
    if (key >= KEY_TEXT && key < KEY_TEXT + (int)texts->count) {
        *texts->list[key - KEY_TEXT].value = argument;
        return 0;
    }
    if (key != ARGP_KEY_ARG)
        return ARGP_ERR_UNKNOWN;
    if (reading->words == texts->words_most)
        return argument_refuse(&reading->base, state, argument);
    texts->words[reading->words++] = argument;
    return 0;
}

enum options_result options_texts_read(const struct options_texts *texts, int argc, char **argv)
{
    struct argp_option list[OPTIONS_TEXTS_MAX + 1] = {0};
    struct texts_reading reading = {.texts = texts};
    for (unsigned i = 0; i < texts->count; i++)
        list[i] = (struct argp_option){
            texts->list[i].name, KEY_TEXT + (int)i, texts->list[i].argument, 0, texts->list[i].doc, 0};
    const struct argp argp = {.options = list, .parser = texts_parse, .args_doc = texts->args_doc, .doc = texts->doc};
    return options_read(&argp, &reading.base, false, argc, argv);
}

/* --- a ledger ---------------------------------------------------------------------------------------------------------- */

static error_t ledger_parse(int key, char *argument, struct argp_state *state)
{
    struct ledger_options *options = state->input;
    switch (key) {
    case KEY_LEDGER:
        options->name = argument;
        return 0;
    case KEY_JSON:
        options->json = true;
        return 0;
    case KEY_BOOKS:
        options->books = true;
        return 0;
    case ARGP_KEY_ARG:
        return argument_refuse(&options->base, state, argument);
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

enum options_result ledger_options_read(struct ledger_options *options, const char *doc, int argc, char **argv)
{
    struct argp_option list[4] = {
        {"ledger", KEY_LEDGER, "NAME", 0, "the ledger of that name (CUBUDGET_LEDGER; \"default\")", 0},
    };
    unsigned count = 1;
    if (options->with_books)
        list[count++] =
            (struct argp_option){"books", KEY_BOOKS, NULL, 0, "against what the driver says each process holds", 0};
    if (options->with_json)
        list[count++] = (struct argp_option){"json", KEY_JSON, NULL, 0, "as JSON, sizes in bytes", 0};
    const struct argp argp = {.options = list, .parser = ledger_parse, .doc = doc};
    return options_read(&argp, &options->base, false, argc, argv);
}

int config_place_find(const char *given_name, const struct config *config, struct ledger_place *place)
{
    const char *directory = getenv("CUBUDGET_DIR"), *variable = getenv("CUBUDGET_LEDGER");
    const char *written =
        config != NULL && config->ledger.lines[CONFIG_NAME] != 0 ? config->ledger.values.ledger : NULL;
    char from_file[PATH_MAX];
    struct settings_fault fault;
    place->name = given_name != NULL ? given_name : variable != NULL ? variable : written != NULL ? written : "default";
    if (name_validate(given_name != NULL ? "--ledger" : "CUBUDGET_LEDGER", place->name, &fault) != 0)
        return fault_say(EXIT_BAD_SETTINGS, "%s", fault.text);
    if (directory != NULL && *directory != '/')
        return fault_say(EXIT_BAD_SETTINGS,
                         "CUBUDGET_DIR: '%.60s' is not an absolute path; write one that begins with /, or unset it",
                         directory);
    if (directory == NULL && config != NULL && config_directory(config, from_file))
        directory = from_file;
    if (shm_directory(directory, place->directory) != 0)
        return fault_say(EXIT_BAD_SETTINGS,
                         "CUBUDGET_DIR: '%.60s...' is longer than a path can be; choose a shorter one", directory);
    return 0;
}

int ledger_place_find(const char *given_name, struct ledger_place *place)
{
    static struct config config; /* place->name may point into it */
    bool named = given_name != NULL || getenv("CUBUDGET_LEDGER") != NULL;
    if (named && getenv("CUBUDGET_DIR") != NULL)
        return config_place_find(given_name, NULL, place);
    int status = config_load(&config, NULL);
    return status == 0 ? config_place_find(given_name, &config, place) : status;
}

int ledger_open_existing(const struct ledger_place *place, struct ledger *ledger)
{
    const struct ledger_request request = {.directory = place->directory, .name = place->name};
    struct ledger_fault fault;
    int result = ledger_open(ledger, &request, &fault);
    return result == 0 ? 0 : fault_say(EXIT_NO_LEDGER, "%s", fault.text);
}
