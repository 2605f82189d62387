/*
 * cubudget gc: removes a ledger that nobody uses, and the simulated machines beside it that nobody uses. What it did is said
 * on standard error. It never removes what a living process holds: the ledger's locks decide that.
 */
#include "config.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include "cli/command.h"
#include "cli/options.h"
#include "cli/output.h"
#include "cli/witness.h"
#include "platform/log.h"

struct sweep {
    const char *directory;
    unsigned removed;
    int status;
};

static int machine_remove(const char *name, void *context)
{
    struct sweep *sweep = context;
    int result = witness_machine_remove(sweep->directory, name);
    if (result == 0) {
        sweep->removed++;
        (void)fault_say(0, "removed the simulated machine '%s' of %s", name, sweep->directory);
    } else if (result == -EBUSY) {
        sweep->status =
            fault_say(EXIT_CHECK_FAILED, "the simulated machine '%s' of %s is in use; end its processes first", name,
                      sweep->directory);
    } else if (result != -ENOENT) {
        sweep->status = fault_say(EXIT_CHECK_FAILED, "the simulated machine '%s' of %s cannot be removed: %s", name,
                                  sweep->directory, strerror(-result));
    }
    return 0;
}

/* 0, also where there was none; or an exit status after saying why. */
static int ledger_sweep(const struct ledger_place *place, struct sweep *sweep)
{
    struct ledger_fault fault;
    int result = ledger_remove(place->directory, place->name, &fault);
    if (result == 0) {
        sweep->removed++;
        (void)fault_say(0, "removed the ledger '%s' of %s", place->name, place->directory);
        return 0;
    }
    if (result == -ENOENT)
        return 0;
    return fault_say(result == -EBUSY ? EXIT_CHECK_FAILED : EXIT_NO_LEDGER, "%s", fault.text);
}

static int gc_run(int argc, char **argv)
{
    struct ledger_options options = {0};
    struct ledger_place place;
    enum options_result result = ledger_options_read(
        &options, "Removes the ledger, and simulated machines beside it, where nobody uses them.", argc, argv);
    if (result != OPTIONS_GOOD)
        return options_status(result);
    int status = ledger_place_find(options.name, &place);
    struct sweep sweep = {.directory = place.directory};
    if (status == 0)
        status = ledger_sweep(&place, &sweep);
    if (status != 0)
        return status;
    (void)witness_machines_walk(place.directory, machine_remove, &sweep);
    if (sweep.removed == 0 && sweep.status == 0)
        (void)fault_say(0, "nothing to remove: there is no ledger '%s' in %s", place.name, place.directory);
    return sweep.status;
}

const struct command command_gc = {"gc", "", "remove a ledger that nobody uses", gc_run};
