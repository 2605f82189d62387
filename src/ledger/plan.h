/* What plan.c lends to ledger.c. Private to src/ledger. */
#ifndef LEDGER_PLAN_H
#define LEDGER_PLAN_H

#include "ledger/ledger.h"

/* Writes a plan into a ledger that nobody else sees yet. */
void plan_write(struct ledger *image, const struct ledger_plan *plan);

#endif
