/*
 * cubudget help: the commands on one screen, or the help of one of them.
 */
#include "config.h"

#include <stdio.h>
#include <string.h>
#include "cli/command.h"
#include "cli/options.h"
#include "cli/output.h"
#include "platform/log.h"

struct help_options {
    struct options_base base;
    const char *name;
};

static error_t help_parse(int key, char *argument, struct argp_state *state)
{
    struct help_options *options = state->input;
    if (key != ARGP_KEY_ARG)
        return ARGP_ERR_UNKNOWN;
    if (options->name != NULL)
        return argument_refuse(&options->base, state, argument);
    options->name = argument;
    return 0;
}

static void overview_print(void)
{
    (void)printf("Usage: cubudget COMMAND [OPTION...]\n"
                 "Runs CUDA programs, unmodified, together under one budget of device memory.\n\n");
    for (size_t i = 0; commands[i] != NULL; i++) {
        int width = (int)strlen(commands[i]->name);
        (void)printf("  %s %-*s %s\n", commands[i]->name, 26 - width, commands[i]->usage, commands[i]->summary);
    }
    (void)printf("\n"
                 "Examples:\n"
                 "  cubudget run --slot semantic --budget 8GiB -- python3 serve.py\n"
                 "  cubudget dump\n\n"
                 "cubudget COMMAND --help tells of a command's options, man cubudget of everything.\n");
}

static int help_run(int argc, char **argv)
{
    static const struct argp argp = {
        .parser = help_parse, .args_doc = "[COMMAND]", .doc = "Shows all commands, or the help of one of them."};
    struct help_options options = {0};
    enum options_result result = options_read(&argp, &options.base, false, argc, argv);
    if (result != OPTIONS_GOOD)
        return options_status(result);
    if (options.name == NULL) {
        overview_print();
        return output_finish(0);
    }
    const struct command *command = command_find(options.name);
    if (command == NULL)
        return EXIT_USAGE_ERROR;
    char title[64], asked[] = "--help";
    (void)snprintf(title, sizeof title, "cubudget %s", command->name);
    char *words[] = {title, asked, NULL};
    return command->run(2, words);
}

const struct command command_help = {"help", "[COMMAND]", "show this, or the help of one command", help_run};
