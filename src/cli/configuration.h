/*
 * The configuration file: what it says (configuration.c) and what that means for a ledger (configuration_plan.c). Used by the commands; the
 * preloaded library never reads it. One thread, so nothing is synchronised.
 */
#ifndef CLI_CONFIGURATION_H
#define CLI_CONFIGURATION_H

#include <limits.h>
#include "ledger/ledger.h"
#include "platform/env.h"

enum { CONFIG_TEXT_BYTES = 200, CONFIG_FILE_MAX = 1 << 20, CONFIG_FAULT_BYTES = PATH_MAX + 512 };

enum config_key {
    CONFIG_NAME,
    CONFIG_BUDGET,
    CONFIG_GROUP,
    CONFIG_DIRECTORY,
    CONFIG_LIMIT,
    CONFIG_RESERVE,
    CONFIG_PRIORITY,
    CONFIG_EVICT,
    CONFIG_WAIT,
    CONFIG_KEYS,
};

struct config_section {
    unsigned line;                /* of its heading; 0: not there */
    char name[CONFIG_TEXT_BYTES]; /* of the slot or device */
    unsigned lines[CONFIG_KEYS];  /* where each key is given; 0: it is not */
    char texts[CONFIG_KEYS][CONFIG_TEXT_BYTES];
    struct settings values; /* what the texts mean */
};

struct config {
    char path[PATH_MAX]; /* as it was named; empty: there is no file */
    struct config_section ledger, slots[LEDGER_SLOTS], devices[LEDGER_DEVICES];
    unsigned slot_count, device_count;
    gid_t group; /* where [ledger] names one */
    char fault[CONFIG_FAULT_BYTES];
};

/* Finds the file: `given` (NULL: not), CUBUDGET_CONFIG, $XDG_CONFIG_HOME or ~/.config/cubudget.ini, /etc/cubudget.ini; and
 * reads it. 0, also where there is none and none was named; or an exit status after saying what is wrong, with file and
 * line. *config is what was found, and large: static. */
int config_load(struct config *config, const char *given);

/* Reads the file at config->path. 0 or EXIT_BAD_SETTINGS with config->fault filled. */
int config_read(struct config *config);

/* Fills config->fault with "FILE:LINE: text"; line 0: "FILE: text". Keeps the first. Returns EXIT_BAD_SETTINGS. */
int config_fault_set(struct config *config, unsigned line, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* "limit" and the like. */
const char *config_key_name(enum config_key key);

/* The slot's section, or NULL. */
const struct config_section *config_slot(const struct config *config, const char *name);

/* Where the file says that ledgers are: its directory, or its group's. False: it says nothing. */
bool config_directory(const struct config *config, char directory[PATH_MAX]);

/* What the file asks of a ledger, held against the budget it is to have: `budget_bytes`, called `budget_name` where the
 * file does not set it; 0: not known, and not held against. `existing` (NULL: none) knows devices by index. 0, or
 * EXIT_BAD_SETTINGS after saying why. */
int config_plan(struct config *config, const struct ledger *existing, uint64_t budget_bytes, const char *budget_name,
                struct ledger_plan *plan);

/* For `cubudget run` (configuration_run.c), whose program charges to the slot `slot_name`; empty: not known. Each sets only what
 * the user has not. 0, or an exit status after saying why. */
int config_variables_set(const struct config *config, const char *slot_name); /* where the ledger is; evict and wait */
/* Adds to a request what a ledger that is not there yet shall have. */
int config_request_fill(struct config *config, const struct settings *settings, struct ledger_request *request);
/* The slot's terms in the ledger, and those of the file that are missing there; says where the two have others. */
void config_terms_find(const struct config *config, const struct ledger *ledger, const char *slot_name,
                       struct slot_terms *there, struct slot_terms *missing);
/* Sets what was missing, where it still is. */
int config_terms_fill(const struct config *config, struct ledger *ledger, const char *slot_name,
                      const struct slot_terms *missing);

/* Reads "GPU-xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx", with or without what stands before the first '-'. */
bool device_uuid_parse(const char *text, uint8_t uuid[LEDGER_UUID_BYTES]);

/* The ledger's device of that uuid or index, and its uuid; or -1. */
int device_find(const struct ledger *ledger, const char *text, uint8_t found_uuid[LEDGER_UUID_BYTES]);

#endif
