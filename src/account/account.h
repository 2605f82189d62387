/*
 * A process's own account: the row it holds in the ledger, what each pointer and context was charged, and the decision
 * whether a request may go to the driver. Called by the wrappers of src/interpose; calls src/ledger, src/platform, src/cuda.
 *
 * Synchronisation: one brief lock per process guards the row's cells and the maps; it lies, with all other state of being
 * attached, in a page that a forked child finds wiped (MADV_WIPEONFORK), so that a child, however it was made, is unattached
 * and owes nothing. All functions are safe from any thread and keep errno. Tables come from mmap, never from the heap.
 */
#ifndef ACCOUNT_ACCOUNT_H
#define ACCOUNT_ACCOUNT_H

#include <stdbool.h>
#include <stdint.h>
#include <cubudget/ledger_abi.h>
#include "platform/env.h"

#endif
