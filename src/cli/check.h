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
    char text[CHECK_TEXT_BYTES];
};

struct check_list {
    unsigned count, room;
    struct check_result *results; /* free() */
    bool spent;                   /* memory was: what is missing was not checked */
};

void check_add(struct check_list *list, bool good, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Does the ledger agree with itself? */
void check_snapshot(struct check_list *list, const struct ledger *ledger, const struct snapshot *snapshot);

#endif
