/*
 * Prints what a ledger says, for the script tests: a line "SLOT USED_BYTES REFUSALS" for each slot, or "none" where there
 * is no ledger. It opens the ledger in $CUBUDGET_DIR itself and needs neither the command nor the preload.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "ledger/snapshot.h"

int main(void)
{
    const char *directory = getenv("CUBUDGET_DIR");
    if (!directory) {
        fprintf(stderr, "figures: CUBUDGET_DIR is not set\n");
        return 64;
    }
    static struct ledger ledger;
    static struct snapshot snapshot;
    struct ledger_request request = {.directory = directory, .name = "default"};
    struct ledger_fault fault = {""};
    int result = ledger_open(&ledger, &request, &fault);
    if (result == -ENOENT) {
        puts("none");
        return 0;
    }
    if (result != 0 || snapshot_take(&ledger, &snapshot) != 0) {
        fprintf(stderr, "figures: %s\n", fault.text);
        return 73;
    }
    for (unsigned i = 0; i < snapshot.slot_count; i++) {
        const struct snapshot_slot *slot = &snapshot.slots[i];
        printf("%s %llu %llu\n", slot->name, (unsigned long long)slot->used_bytes, (unsigned long long)slot->refusals);
    }
    snapshot_free(&snapshot);
    ledger_close(&ledger);
    return 0;
}
