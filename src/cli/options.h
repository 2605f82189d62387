/*
 * Options of a command line, read by argp, with every mistake said in one line. Used by every command.
 */
#ifndef CLI_OPTIONS_H
#define CLI_OPTIONS_H

#include <argp.h>
#include <limits.h>
#include <stdbool.h>
#include "ledger/ledger.h"

/* The first member of what a command's own argp parser is given as input. */
struct options_base {
    bool helped; /* --help was asked for and shown */
    bool told;   /* a mistake was said already */
};

enum options_result { OPTIONS_GOOD, OPTIONS_HELPED, OPTIONS_WRONG };

/* Reads argv by `argp`, and --help. The caller ends with output_finish(0) on OPTIONS_HELPED and with
 * EXIT_USAGE_ERROR on OPTIONS_WRONG, which has been said. `in_order`: options end at the first argument. */
enum options_result options_read(const struct argp *argp, struct options_base *base, bool in_order, int argc,
                                 char **argv);

/* For parsers: says that the argument is one too many. */
error_t argument_refuse(struct options_base *base, const struct argp_state *state, const char *argument);

/* The exit status for a result that is not OPTIONS_GOOD. */
int options_status(enum options_result result);

/* Options that each keep their value as a text, and the arguments beside them, for commands that read no more than that. */
struct options_text {
    const char *name, *argument, *doc;
    const char **value; /* left as it is where the option is not given */
};
enum { OPTIONS_TEXTS_MAX = 8 };
struct options_texts {
    const char *args_doc, *doc; /* as argp's */
    const struct options_text *list;
    unsigned count;      /* at most OPTIONS_TEXTS_MAX */
    const char **words;  /* where the arguments go */
    unsigned words_most; /* so many of them; another is refused */
};
enum options_result options_texts_read(const struct options_texts *texts, int argc, char **argv);

/* --ledger, --json and --books, for the commands that look at a ledger. */
struct ledger_options {
    struct options_base base;
    bool with_json;  /* set before: whether --json is one of the options */
    bool with_books; /* and --books */
    bool json, books;
    const char *name; /* as given; NULL: not */
};
enum options_result ledger_options_read(struct ledger_options *options, const char *doc, int argc, char **argv);

/* Where the ledger is that is meant: by --ledger, CUBUDGET_LEDGER and CUBUDGET_DIR alone, so that a mistake in another
 * setting keeps nobody from looking; what those do not say, a configuration file may. */
struct ledger_place {
    char directory[PATH_MAX];
    const char *name;
};

/* 0, or an exit status after saying why. */
int ledger_place_find(const char *given_name, struct ledger_place *place);
struct config;
int config_place_find(const char *given_name, const struct config *config,
                      struct ledger_place *place); /* NULL: no file */
int ledger_open_existing(const struct ledger_place *place, struct ledger *ledger);

#endif
