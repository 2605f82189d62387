/*
 * Device memory that the driver keeps in reserve for a process: its stream-ordered pools, and each device's memory for
 * graphs. What such a reservoir costs is what it has reserved, whatever is handed out of it, and that is asked of the driver after
 * every call that can change it. Private to src/account.
 *
 * Calls that may make one grow are charged the most that they can take before they go to the driver. While such calls are
 * under way the charge is never lowered; the last one to return makes it what the driver says.
 *
 * Synchronisation: fields are under `books`, but where they say otherwise. The driver is asked without the lock, and
 * what it said counts only if nothing has changed meanwhile.
 */
#ifndef ACCOUNT_RESERVOIR_H
#define ACCOUNT_RESERVOIR_H

#include <stdatomic.h>
#include <stdbool.h>
#include "account/account.h"

enum { RESERVOIR_ROWS = LEDGER_SLOTS };
#define RESERVOIR_STEP_BYTES (32ULL << 20) /* what reservoirs grow by: measured */

struct account;

/* What a row other than the reservoir's own has paid for it, and what is handed out to that row. */
struct reservoir_part {
    uint64_t charged_bytes, live_bytes;
};

struct reservoir {
    _Atomic(uint64_t) handle;  /* the pool's; 0: of a device's graphs. Written before the entry can be found */
    uint64_t charged_bytes;    /* committed for it, calls under way included */
    uint64_t bound_bytes;      /* of graphs: what all that were launched since the last trim can take together */
    _Atomic(uint64_t) changes; /* counts calls and corrections; read without the lock too */
    _Atomic(bool) ended;       /* destroyed, and memory of it is still handed out */
    _Atomic(bool) retired;     /* the program has destroyed it, and the driver will when its memory is back */
    uint32_t calls;            /* under way */
    bool alone;     /* the one call under way counts on room that another could take: nobody else may begin */
    bool dirty;     /* charged more than it may hold, until it is asked again */
    uint32_t live;  /* pointers handed out; of pools */
    uint16_t purse; /* who used it first, and pays for what nobody asked for: state.h */
    uint8_t kind;   /* LEDGER_KIND_POOL or LEDGER_KIND_GRAPH */
    bool shared;    /* others have paid as well; never false again */
    struct reservoir_part part[RESERVOIR_ROWS]; /* by row; its own is what is left of charged_bytes */
};

/* Bytes in whole steps; UINT64_MAX where that passes what 64 bits hold. */
static inline uint64_t reservoir_steps(uint64_t bytes)
{
    return bytes > UINT64_MAX - RESERVOIR_STEP_BYTES
               ? UINT64_MAX
               : (bytes + RESERVOIR_STEP_BYTES - 1) / RESERVOIR_STEP_BYTES * RESERVOIR_STEP_BYTES;
}

/* Notes that a call of `bytes` (already charged, in flight) is under way; returns the count of changes to end it with. Under
 * `books`. */
uint64_t reservoir_enter(struct reservoir *reservoir, uint64_t bytes);

/* The call, charged to that purse, has returned, and after it the driver said `reserved_bytes` (UINT64_MAX: it could not say). Under `books`. False: it
 * is to be asked again, with reservoir_correct. */
bool reservoir_leave(struct account *account, struct reservoir *reservoir, unsigned purse, uint64_t bytes,
                     uint64_t seen, uint64_t reserved_bytes);

/* The same where the driver refused the call and cannot say what is reserved (there is no such pool): it took nothing. */
void reservoir_refused(struct account *account, struct reservoir *reservoir, unsigned purse, uint64_t bytes);

/* Whether every reservoir of a device is charged exactly what it holds, as far as is known: no call under way, none to be asked
 * again. Under `books`. */
bool reservoirs_are_settled(const struct account *account, unsigned device);

/* What the driver says is reserved; UINT64_MAX: it cannot say. */
uint64_t reservoir_read(const struct driver *driver, const struct account *account, const struct reservoir *reservoir);

/* Makes the charge what the driver says. Without `books`. */
void reservoir_correct(const struct driver *driver, struct account *account, struct reservoir *reservoir);

#endif
