/*
 * Who holds memory of a device, as who needs room sees them. Called by src/account under the lock of its process; reads what others
 * write, so a picture is of about one moment.
 */
#ifndef LEDGER_RESIDENTS_H
#define LEDGER_RESIDENTS_H

#include "ledger/ledger.h"

/* One living row that holds something. What is said of its process is in the process's first row. */
struct ledger_resident {
    unsigned row, leader, slot;
    uint32_t priority; /* of its slot */
    uint32_t word;     /* of its process: process.h */
    bool evictable;    /* as its process says */
    uint64_t bytes;    /* committed on the device */
    uint64_t resident_ms, referenced_ms, declined_ms, ticket;
    uint64_t state_ms; /* how long its process has been in its state */
};

/* Fills at most LEDGER_ROWS. Returns how many. */
unsigned ledger_residents_read(const struct ledger *ledger, unsigned device,
                               struct ledger_resident residents[LEDGER_ROWS]);

/* Every slot's reserve, and the sum of those of all slots but one. */
uint64_t ledger_reserves_read(const struct ledger *ledger, unsigned except, uint64_t reserves[LEDGER_SLOTS]);

uint64_t ledger_device_budget(const struct ledger *ledger, unsigned device);

/* What a row's charges are for. Owner. */
uint64_t ledger_kind_bytes(const struct ledger *ledger, unsigned row, unsigned device, enum ledger_kind kind);

/* Host memory that the images of all processes but one's take. */
uint64_t ledger_host_bytes(const struct ledger *ledger, unsigned except_row);

#endif
