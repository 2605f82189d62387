/*
 * The slot that a command's memory will be charged to where nobody names one. Used by cubudget run.
 */
#ifndef CLI_EXECUTABLE_H
#define CLI_EXECUTABLE_H

#include "platform/env.h"

/* Writes the name that the preloaded library will find for the process that execvp(command) makes: that of the executable, and for
 * a script of its interpreter. False: there is no such command. What that program itself executes later nobody can know. */
bool executable_name(const char *command, char name[LEDGER_NAME_BYTES]);

#endif
