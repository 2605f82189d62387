/*
 * The results of cubudget check, collected.
 */
#ifndef CLI_CHECK_H
#define CLI_CHECK_H

#include <stdbool.h>
#include "ledger/snapshot.h"

enum { CHECK_TEXT_BYTES = 320 };

struct check_result {
    bool good;
    bool skipped; /* could not be made: neither good nor bad */
    char text[CHECK_TEXT_BYTES];
};

struct check_list {
    unsigned count, room;
    struct check_result *results; /* free() */
    bool spent;                   /* memory was: what is missing was not checked */
};

void check_add(struct check_list *list, bool good, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Notes a check that could not be made, and why. */
void check_skip(struct check_list *list, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Does the ledger agree with itself? */
void check_snapshot(struct check_list *list, const struct ledger *ledger, const struct snapshot *snapshot);

/* Do the states of its processes agree with what they hold and wait for? */
void check_states(struct check_list *list, const struct snapshot *snapshot);

/* Does it agree with what the driver says each process holds? False: no memory. */
bool check_books(struct check_list *list, const struct snapshot *snapshot, const char *directory);

#endif
