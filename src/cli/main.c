/*
 * `cubudget`: finds the command that is asked for and runs it. The commands are in cmd_*.c, one a file.
 */
#include "config.h"

#include <stdio.h>
#include <string.h>
#include "cli/command.h"
#include "cli/output.h"
#include "platform/log.h"

/* The preloaded library looks for this symbol: in a process that has it, nothing is intercepted and no GPU is missed, so
 * that the command works under its own `run`, and on a machine without a GPU. */
extern const char cubudget_command;
__attribute__((visibility("default"))) const char cubudget_command = 1;

const struct command *const commands[] = {
    &command_run, &command_dump, &command_check, &command_gc, &command_version, &command_help, NULL,
};

/* How many letters must be added, dropped or changed to make one word of the other. */
static unsigned words_distance(const char *from, const char *to)
{
    enum { LONGEST = 15 };
    unsigned row[LONGEST + 1];
    size_t width = strlen(to);
    if (width > LONGEST || strlen(from) > LONGEST)
        return LONGEST;
    for (size_t i = 0; i <= width; i++)
        row[i] = (unsigned)i;
    for (size_t i = 1; from[i - 1] != '\0'; i++) {
        unsigned diagonal = row[0];
        row[0] = (unsigned)i;
        for (size_t j = 1; j <= width; j++) {
            unsigned changed = diagonal + (from[i - 1] != to[j - 1]);
            unsigned other = (row[j] < row[j - 1] ? row[j] : row[j - 1]) + 1;
            diagonal = row[j];
            row[j] = changed < other ? changed : other;
        }
    }
    return row[width];
}

const struct command *command_find(const char *name)
{
    const struct command *nearest = NULL;
    unsigned least = 3; /* further than two letters is another word */
    for (size_t i = 0; commands[i] != NULL; i++) {
        unsigned distance = words_distance(name, commands[i]->name);
        if (distance == 0)
            return commands[i];
        if (distance < least && distance < strlen(commands[i]->name)) {
            least = distance;
            nearest = commands[i];
        }
    }
    if (nearest != NULL)
        (void)fault_say(0, "'%.60s' is not a command; did you mean '%s'? See cubudget --help", name, nearest->name);
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
