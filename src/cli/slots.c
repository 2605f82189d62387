/* A slot that the user has named; see slots.h. */
#include "config.h"

#include "cli/output.h"
#include "cli/slots.h"
#include "ledger/snapshot.h"
#include "platform/log.h"
#include "platform/words.h"

int slot_find(struct ledger *ledger, const char *name, unsigned *slot)
{
    static struct snapshot snapshot; /* too large for a stack that somebody may have limited */
    const char *names[LEDGER_SLOTS + 1] = {0}, *nearest = NULL;
    int found = ledger_slot_find(ledger, name);
    if (found >= 0) {
        *slot = (unsigned)found;
        return 0;
    }
    if (snapshot_take(ledger, &snapshot) == 0) {
        for (unsigned i = 0; i < snapshot.slot_count; i++)
            names[i] = snapshot.slots[i].name;
        nearest = words_nearest(name, names);
    }
    int status = nearest != NULL
                     ? fault_say(EXIT_BAD_SETTINGS, "there is no slot '%.80s' in %s; did you mean '%s'?", name,
                                 ledger->path, nearest)
                     : fault_say(EXIT_BAD_SETTINGS,
                                 "there is no slot '%.80s' in %s; cubudget dump shows them, cubudget run and init add "
                                 "others",
                                 name, ledger->path);
    snapshot_free(&snapshot);
    return status;
}
