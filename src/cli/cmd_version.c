/*
 * cubudget version: which version this is, and whether it can simulate.
 */
#include "config.h"

#include <stdio.h>
#include <cubudget/ledger_abi.h>
#include "cli/command.h"
#include "cli/options.h"
#include "cli/output.h"

static error_t version_parse(int key, char *argument, struct argp_state *state)
{
    return key == ARGP_KEY_ARG ? argument_refuse(state->input, state, argument) : ARGP_ERR_UNKNOWN;
}

static int version_run(int argc, char **argv)
{
    static const struct argp argp = {.parser = version_parse, .doc = "Shows the version of cubudget."};
    struct options_base base = {0};
    enum options_result result = options_read(&argp, &base, false, argc, argv);
    if (result != OPTIONS_GOOD)
        return options_status(result);
#ifdef ENABLE_SIMULATOR
    static const char simulator[] = "with";
#else
    static const char simulator[] = "without";
#endif
    (void)printf("cubudget %s (ledger layout %d, %s simulator)\n", PACKAGE_VERSION, LEDGER_ABI_VERSION, simulator);
    return output_finish(0);
}

const struct command command_version = {"version", "", "show the version", version_run};
