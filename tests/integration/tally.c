/*
 * Counts what happened in a ledger, for the trials: a line "KIND COUNT total_ms N longest_ms N" for each kind of event in the ring of
 * the ledger in $CUBUDGET_DIR, "KIND COUNT" of REASON for those with reasons, and the sums of the slots' own counts. It needs
 * neither the command nor the preload.
 */
#include <stdio.h>
#include <stdlib.h>

#include "ledger/events.h"
#include "ledger/snapshot.h"

struct sum {
    uint64_t count, total_ns, longest_ns;
    uint64_t reasons[LEDGER_WHYS];
};

static struct ledger ledger;
static struct sum sums[LEDGER_EVENT_KINDS];

static uint64_t events_sum(void)
{
    uint64_t count = ledger_event_count(&ledger), missing = 0;
    for (uint64_t number = 1; number <= count; number++) {
        struct ledger_event_record event;
        if (!ledger_event_read(&ledger, number, &event) || event.kind >= LEDGER_EVENT_KINDS) {
            missing++;
            continue;
        }
        struct sum *sum = &sums[event.kind];
        sum->count++;
        sum->total_ns += event.duration_ns;
        if (event.duration_ns > sum->longest_ns)
            sum->longest_ns = event.duration_ns;
        if (event.why > LEDGER_WHY_NONE && event.why < LEDGER_WHYS)
            sum->reasons[event.why]++;
    }
    return missing;
}

static void events_show(uint64_t missing)
{
    for (int kind = LEDGER_EVENT_ASK; kind <= LEDGER_EVENT_LOST; kind++) {
        const struct sum *sum = &sums[kind];
        const char *name = ledger_event_name((enum ledger_event_kind)kind);
        printf("%s %llu total_ms %llu longest_ms %llu\n", name, (unsigned long long)sum->count,
               (unsigned long long)(sum->total_ns / 1000000), (unsigned long long)(sum->longest_ns / 1000000));
        for (int why = 1; why < LEDGER_WHYS; why++)
            if (sum->reasons[why] != 0)
                printf("%s because %s: %llu\n", name, ledger_why_text((enum ledger_why)why),
                       (unsigned long long)sum->reasons[why]);
    }
    printf("unread %llu\n", (unsigned long long)missing);
}

static void slots_show(void)
{
    struct snapshot snapshot;
    uint64_t refusals = 0, evictions = 0, restores = 0, waits = 0;
    if (snapshot_take(&ledger, &snapshot) != 0)
        exit(73);
    for (unsigned i = 0; i < snapshot.slot_count; i++) {
        refusals += snapshot.slots[i].refusals;
        evictions += snapshot.slots[i].evictions;
        restores += snapshot.slots[i].restores;
        waits += snapshot.slots[i].waits;
    }
    printf("slots_refusals %llu\nslots_evictions %llu\nslots_restores %llu\nslots_waits %llu\n",
           (unsigned long long)refusals, (unsigned long long)evictions, (unsigned long long)restores,
           (unsigned long long)waits);
    snapshot_free(&snapshot);
}

int main(void)
{
    const struct ledger_request request = {.directory = getenv("CUBUDGET_DIR"), .name = "default"};
    struct ledger_fault fault = {""};
    if (!request.directory || ledger_open(&ledger, &request, &fault) != 0) {
        fprintf(stderr, "tally: %s\n", fault.text);
        return 73;
    }
    events_show(events_sum());
    slots_show();
    ledger_close(&ledger);
    return 0;
}
