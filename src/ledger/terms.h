/*
 * What terms.c lends to the rest of src/ledger: the turn of those who change terms. Private to src/ledger.
 */
#ifndef LEDGER_TERMS_H
#define LEDGER_TERMS_H

#include "ledger/ledger.h"

/* Waits for the turn to change terms: a byte of the file that the kernel guards, so that it comes free when its holder dies.
 * After 250 ms (its holder was stopped) the answer is negative, and the caller goes on without: what must never be wrong is
 * published first and then looked at (terms.c); the turn only keeps two that change at once from refusing each other. */
int turn_take(const struct ledger *ledger);
void turn_give(int turn);

/* What ledger_slot_change and ledger_budget_change do, under the turn, and the same for the budget of the devices to come alone. They
 * look at nothing but the ledger's bytes. */
int terms_apply(struct ledger *ledger, unsigned slot, const struct slot_terms *terms, struct ledger_fault *fault);
int budget_apply(struct ledger *ledger, unsigned device, uint64_t budget, struct ledger_fault *fault);
int budget_apply_general(struct ledger *ledger, uint64_t budget, struct ledger_fault *fault);

/* Notes which terms were set, after they were. */
void terms_mark(struct ledger_slot *entry, const struct slot_terms *terms);

/* All slots' reserves together. */
uint64_t reserves_sum(const struct ledger *ledger);

#endif
