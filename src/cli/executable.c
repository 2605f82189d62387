/* Finding the executable behind a command, as execvp and the kernel do; see executable.h. */
#include "config.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "cli/executable.h"

enum {
    SCRIPTS_MAX = 5,
    HEAD_BYTES = 256
}; /* interpreters of interpreters, and how much of a file the kernel looks at */

static bool may_execute(const char *path)
{
    struct stat status;
    return stat(path, &status) == 0 && S_ISREG(status.st_mode) && access(path, X_OK) == 0;
}

/* The file that execvp would take. */
static bool command_find(const char *command, char path[PATH_MAX])
{
    const char *at = getenv("PATH");
    int length;
    if (strchr(command, '/') != NULL || *command == '\0') {
        length = snprintf(path, PATH_MAX, "%s", command);
        return length > 0 && length < PATH_MAX && may_execute(path);
    }
    at = at != NULL ? at : "/bin:/usr/bin"; /* as execvp does */
    for (;;) {
        size_t bytes = strcspn(at, ":");
        length = snprintf(path, PATH_MAX, "%.*s%s%s", (int)bytes, at, bytes > 0 ? "/" : "", command);
        if (length > 0 && length < PATH_MAX && may_execute(path))
            return true;
        if (at[bytes] == '\0')
            return false;
        at += bytes + 1;
    }
}

/* How a file begins, as a string; empty where it cannot be read. */
static void head_read(const char *path, char head[HEAD_BYTES])
{
    int descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    ssize_t length = descriptor >= 0 ? read(descriptor, head, HEAD_BYTES - 1) : 0;
    if (descriptor >= 0)
        (void)close(descriptor);
    head[length > 0 ? length : 0] = '\0';
}

/* What runs the file: an interpreter, whose path comes in its place; false: it runs itself. */
static bool interpreter_find(char path[PATH_MAX])
{
    char head[HEAD_BYTES];
    head_read(path, head);
    if (*head == '\0' || strncmp(head, "\177ELF", 4) == 0)
        return false;
    if (strncmp(head, "#!", 2) != 0) {
        memcpy(path, "/bin/sh", sizeof "/bin/sh"); /* execvp's own, for what the kernel does not know */
        return true;
    }
    char *word = head + 2 + strspn(head + 2, " \t");
    word[strcspn(word, " \t\n")] = '\0';
    if (*word == '\0')
        return false;
    (void)snprintf(path, PATH_MAX, "%s", word);
    return true;
}

bool executable_name(const char *command, char name[LEDGER_NAME_BYTES])
{
    char path[PATH_MAX], resolved[PATH_MAX];
    if (!command_find(command, path))
        return false;
    for (unsigned i = 0; i < SCRIPTS_MAX && interpreter_find(path); i++) {
    }
    if (realpath(path, resolved) == NULL)
        return false;
    name_from_path(resolved, name);
    return true;
}
