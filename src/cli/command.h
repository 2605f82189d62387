/*
 * The commands of `cubudget`: one file each, which gives one of these. main.c has the list and calls them; a command
 * returns the exit status. The command is one thread, so nothing here is synchronised.
 */
#ifndef CLI_COMMAND_H
#define CLI_COMMAND_H

struct command {
    const char *name;
    const char *usage;                 /* what follows "cubudget NAME" */
    const char *summary;               /* a few words for the list of commands */
    int (*run)(int argc, char **argv); /* argv[0] is "cubudget NAME" */
};

extern const struct command command_run, command_init, command_limit, command_dump, command_check, command_evict,
    command_restore, command_watch, command_gc, command_version, command_help;

/* The list, ended by NULL. */
extern const struct command *const commands[];

/* Finds a command. Where there is none: NULL, after one line that says what may have been meant. */
const struct command *command_find(const char *name);

#endif
