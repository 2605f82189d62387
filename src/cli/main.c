/*
 * `cubudget`: finds the command that is asked for and runs it. The commands are in cmd_*.c, one a file.
 */
#include "config.h"

#include <stdio.h>
#include <string.h>
#include "cli/command.h"
#include "cli/output.h"
#include "platform/log.h"
#include "platform/words.h"

/* The preloaded library looks for this symbol: in a process that has it, nothing is intercepted and no GPU is missed, so
 * that the command works under its own `run`, and on a machine without a GPU. */
extern const char cubudget_command;
__attribute__((visibility("default"))) const char cubudget_command = 1;

const struct command *const commands[] = {
    &command_run,     &command_init,  &command_limit, &command_dump,    &command_check, &command_evict,
    &command_restore, &command_watch, &command_gc,    &command_version, &command_help,  NULL,
};

const struct command *command_find(const char *name)
{
    const char *names[sizeof commands / sizeof *commands] = {0};
    for (size_t i = 0; commands[i] != NULL; i++) {
        if (strcmp(commands[i]->name, name) == 0)
            return commands[i];
        names[i] = commands[i]->name;
    }
    const char *nearest = words_nearest(name, names);
    if (nearest != NULL)
        (void)fault_say(0, "'%.60s' is not a command; did you mean '%s'? See cubudget --help", name, nearest);
    else
        (void)fault_say(0, "'%.60s' is not a command; see cubudget --help", name);
    return NULL;
}

int main(int argc, char **argv)
{
    char title[64];
    if (argc < 2)
        return fault_say(EXIT_USAGE_ERROR, "no command; see cubudget --help");
    const char *name = argv[1];
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0)
        name = command_help.name;
    else if (strcmp(name, "--version") == 0 || strcmp(name, "-V") == 0)
        name = command_version.name;
    else if (*name == '-')
        return fault_say(EXIT_USAGE_ERROR,
                         "'%.60s' is not an option of cubudget; options follow the command, see cubudget --help", name);
    const struct command *command = command_find(name);
    if (command == NULL)
        return EXIT_USAGE_ERROR;
    (void)snprintf(title, sizeof title, "cubudget %s", command->name);
    argv[1] = title; /* what the help calls it */
    return command->run(argc - 1, argv + 1);
}
