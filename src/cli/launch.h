/*
 * What a program needs to be started under the budget: the preloaded library, the simulator, and the environment that
 * names both. Used by cubudget run.
 */
#ifndef CLI_LAUNCH_H
#define CLI_LAUNCH_H

#include <limits.h>
#include <stdbool.h>

struct launch_files {
    char library[PATH_MAX];   /* libcubudget.so */
    char simulator[PATH_MAX]; /* the directory of the simulator's libcuda.so.1; only where it is wanted */
};

/* Finds the library that belongs to this executable: of the build tree, beside it in its (moved) prefix, or where it was to be
 * installed. 0, or an exit status after saying what was looked for. */
int launch_files_find(struct launch_files *files, bool with_simulator);

/* Puts them first in LD_PRELOAD and LD_LIBRARY_PATH, each once. 0, or an exit status after saying why. */
int launch_environment_set(const struct launch_files *files, bool with_simulator);

#endif
