/*
 * A slot that the user has named. Used by limit, evict and restore.
 */
#ifndef CLI_SLOTS_H
#define CLI_SLOTS_H

#include "ledger/ledger.h"

/* Finds the slot of that name: 0; where there is none says which may have been meant, and returns EXIT_BAD_SETTINGS. */
int slot_find(struct ledger *ledger, const char *name, unsigned *slot);

#endif
