/*
 * A copy of a ledger at one moment, summed, range-checked and in terms a person or a JSON reader wants.
 * Called by the command and the C API. A device's rows are read until two looks at all of them agree, so what a
 * snapshot says was held at one moment was; where writers never rest, the 100th look is taken as it is (`steady`).
 */
#ifndef LEDGER_SNAPSHOT_H
#define LEDGER_SNAPSHOT_H

#include "ledger/ledger.h"
#include "ledger/process.h"

enum pressure_level { PRESSURE_LOW, PRESSURE_MEDIUM, PRESSURE_HIGH, PRESSURE_CRITICAL };

/* low < 50 % of the budget, medium 50 to 80 %, high > 80 to 95 %, critical > 95 % (50, 80 and 95 % exactly: medium, medium,
 * high). A budget of 0 is critical. */
enum pressure_level pressure_of(uint64_t used_bytes, uint64_t budget_bytes);
const char *pressure_name(enum pressure_level level); /* "low" "medium" "high" "critical" */

const char *ledger_kind_name(enum ledger_kind kind); /* "linear" "managed" "context" ... */

struct snapshot_device {
    unsigned index; /* in the ledger */
    uint8_t uuid[LEDGER_UUID_BYTES];
    char name[LEDGER_NAME_BYTES];
    bool simulated;
    bool steady; /* two looks at all rows agreed: the sums were true at one moment; else writers never rested */
    uint64_t total_bytes, budget_bytes, baseline_bytes, used_bytes, dead_bytes, available_bytes, peak_bytes, bid_bytes;
    uint64_t budget_before; /* the highest budget that was lowered; 0: none was */
    enum pressure_level pressure;
};

struct snapshot_slot {
    char name[LEDGER_NAME_BYTES];
    uint64_t limit_bytes;  /* LEDGER_NO_LIMIT: none */
    uint64_t limit_before; /* the highest limit that was lowered below what was held; 0: none was */
    uint64_t reserve_bytes, used_bytes, evicted_bytes, peak_bytes;
    uint32_t priority;
    uint64_t allocations, frees, refusals, evictions, restores, waits;
    unsigned processes; /* live ones */
};

/* What a process stands in line for, and whose room it hopes for. */
struct snapshot_wait {
    enum ledger_waiting kind; /* LEDGER_WAITING_NOT: it does not wait, and the rest means nothing */
    int device;               /* index into devices[]; -1: unknown */
    uint64_t bytes;           /* of that device */
    uint64_t since_ns;        /* CLOCK_REALTIME */
    int for_row,
        for_slot; /* who is to make room: its row, and its slot as an index into slots[]; -1: nobody in particular */
    uint32_t for_pid;
};

/* One device's account of one process in one slot; a process that holds nothing anywhere appears once, with device -1. */
struct snapshot_process {
    uint32_t pid;
    uint64_t start_ticks, pid_namespace;
    unsigned row, slot; /* slot: index into slots[] */
    int device;         /* index into devices[] */
    enum ledger_row_state row_state;
    /* Of the whole process, from its first row: */
    unsigned leader; /* that row */
    enum ledger_process_state process_state;
    bool wanted;             /* somebody wants it back on the card */
    uint64_t state_since_ns; /* CLOCK_REALTIME */
    bool evictable;
    char reason[LEDGER_REASON_BYTES + 1]; /* why it is not evictable; "": that is not known */
    uint64_t host_bytes;                  /* of host memory for its image */
    bool stands_in_line; /* and counts there: as far as the ledger can tell it lives, though it may have ended */
    bool is_overdue;     /* it still stands there, 10 s after its deadline */
    struct snapshot_wait wait;
    /* Of this row: */
    char command[LEDGER_COMMAND_BYTES + 1];
    uint64_t used_bytes, in_flight_bytes, bid_bytes, evicted_bytes;
    uint64_t by_kind[LEDGER_KIND_COUNT];
};

struct snapshot {
    char name[LEDGER_NAME_BYTES];
    uint32_t version; /* LEDGER_ABI_VERSION of the file */
    uint64_t budget_bytes;
    unsigned device_count, slot_count, process_count;
    struct snapshot_device devices[LEDGER_DEVICES];
    struct snapshot_slot slots[LEDGER_SLOTS];
    struct snapshot_process *processes; /* process_count of them; free() by snapshot_free */
};

/* Reaps, then fills *snapshot. 0 or -ENOMEM. snapshot_free afterwards. available_bytes of a device is
 * budget - used - dead bytes, at least 0. used_bytes of devices and slots leave out ORPHANED and DYING rows. */
int snapshot_take(struct ledger *ledger, struct snapshot *snapshot);
void snapshot_free(struct snapshot *snapshot);

/* The name of slot `slot` of the ledger, as a snapshot shows it. False: there is none. */
bool snapshot_slot_name(const struct ledger *ledger, unsigned slot, char name[LEDGER_NAME_BYTES]);

/* Who had row `row` at a time (CLOCK_REALTIME). False: it has another owner by now, or never had one. *slot is the ledger's. */
bool snapshot_row_owner(const struct ledger *ledger, unsigned row, uint64_t time_ns, uint32_t *pid, unsigned *slot);

/* Whether the process `pid` that had that row lives and has it still. Reaps first. */
bool snapshot_row_lives(struct ledger *ledger, unsigned row, uint32_t pid);

/* Why the process of that first row cannot be evicted, as its agent last said it; "" where it said nothing. */
void snapshot_reason(const struct ledger *ledger, unsigned row, char reason[LEDGER_REASON_BYTES + 1]);

#endif
