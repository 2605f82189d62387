/*
 * Who holds more than a limit or budget that was lowered under way: nothing is taken away, and nothing more is granted until it
 * fits. Told by dump, and by the command that lowered it. Reads a snapshot; keeps nothing.
 */
#ifndef CLI_OVER_H
#define CLI_OVER_H

#include "ledger/snapshot.h"

/* What the living processes of a slot hold of the snapshot's device `at`. */
uint64_t over_slot_held(const struct snapshot *snapshot, unsigned slot, unsigned at);

/* By how much the device is above its budget, the dead included; or a slot above its limit on the device. 0: it is not. */
uint64_t over_budget(const struct snapshot_device *device);
uint64_t over_limit(const struct snapshot *snapshot, unsigned slot, unsigned at);

/* One line on standard error for each that is above; `slot` -1: for all, and for the budgets. */
void over_say(const struct snapshot *snapshot, int slot);

#endif
