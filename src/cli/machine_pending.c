/*
 * Stands in for the simulator's machine file until that is part of the tree: there is no machine, and any option will do.
 * Called by witness.c.
 */
#include "config.h"

#include <errno.h>
#include "cli/machine_pending.h"

int sim_machine_read(const char *directory, const char *name, struct sim_figures *figures)
{
    (void)directory;
    (void)name;
    (void)figures;
    return -ENOENT;
}

int sim_machine_remove(const char *directory, const char *name)
{
    (void)directory;
    (void)name;
    return -ENOENT;
}

int sim_options_check(const char *text, char *fault, size_t fault_bytes)
{
    (void)text;
    (void)fault;
    (void)fault_bytes;
    return 0;
}
