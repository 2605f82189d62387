/*
 * The ledger: who holds how much of which device, for all processes of one budget.
 *
 * Called by src/account (charging) and by the command (showing, gc). Knows nothing of CUDA.
 *
 * Synchronisation. Between processes: the protocol below, no locks. Within a process: a row's cells are written only
 * under the lock of the process that owns it (src/account's), so plain atomic stores do; functions that say "owner"
 * need that lock held, all others are safe from anywhere. Nothing here allocates on the heap, and nothing sleeps but those who
 * change terms or decide a budget, who wait for each other for 250 ms at most.
 *
 * The charge of n bytes (tests/model/charge.pml is its model, checked with Spin):
 *   1 publish the bid: ticket first, then bytes, sequentially consistent;
 *   2 look: for every row, read its bid BEFORE its committed bytes, then its tag; sum;
 *   3 it fits: in_flight += n, committed += n, THEN bid = 0 (the other order lets a grant slip between two reads);
 *   4 it does not fit by committed bytes alone, in two looks that agree: a true refusal; withdraw the bid;
 *   5 it does not fit only because of others' bids: draw a ticket (once per request); where an older bid stands,
 *     withdraw and look again later, with the same ticket; where ours is the oldest, let it stand and look again.
 * Everything published is always counted, so of several requests that are too many together the last to publish saw
 * the others. A request fits slot s when
 *     sum over slots t != s of max(used_t, reserve_t) + used_s + n + dead <= budget   and   used_s + n <= limit_s,
 * used_t = committed + bids of live rows of t, dead = committed of ORPHANED and DYING rows.
 */
#ifndef LEDGER_LEDGER_H
#define LEDGER_LEDGER_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <cubudget/ledger_abi.h>
#include "platform/liveness.h"
#include "platform/shm.h"

struct ledger {
    struct shm_file file;
    char path[PATH_MAX];
};

/* What opening asks of a ledger that may exist already. */
struct ledger_plan;
struct ledger_request {
    const char *directory;          /* as shm_directory resolved it */
    const char *name;               /* valid by name_validate */
    bool create;                    /* make it where it is missing */
    bool has_budget;                /* budget_bytes was asked for, not a default */
    uint64_t budget_bytes;          /* of each device; used where this call makes the ledger */
    const struct ledger_plan *plan; /* what else it then has from its first moment; NULL: nothing */
};

/* Why an operation failed, for one line that names the value and the remedy; empty where it succeeded. */
struct ledger_fault {
    char text[512];
};

/* Opens (and with request->create makes) the ledger and checks everything that is fixed in it.
 * 0; -ENOENT: none there; -EEXIST: its budget is another than the one asked for (both named; exit 78); all other errors
 * mean no usable ledger (exit 73): -EPERM, -ELOOP, -EISDIR, -ENODEV, -EFBIG, -EPROTO (magic, version, word size, layout),
 * -ENOSPC, -ENOTSUP, -errno. *fault is filled for each. */
int ledger_open(struct ledger *ledger, const struct ledger_request *request, struct ledger_fault *fault);
void ledger_close(struct ledger *ledger);

/* The budget of devices that have none of their own, and whether somebody asked for it. */
uint64_t ledger_budget(const struct ledger *ledger);
bool ledger_budget_is_explicit(const struct ledger *ledger);

/* Whether the path still leads to this file: 1; 0: removed or replaced; -errno. */
int ledger_is_current(const struct ledger *ledger);

/* Finds the slot of that name or adds it. Returns its index; -ENOSPC: all LEDGER_SLOTS are taken. */
int ledger_slot_claim(struct ledger *ledger, const char *name);

/* Finds the device of that uuid or adds it. Returns its index; -ENOSPC: all LEDGER_DEVICES are taken.
 * The name is written where it is missing. */
int ledger_device_claim(struct ledger *ledger, const uint8_t uuid[LEDGER_UUID_BYTES], const char *name);

/* Decides a device's budget once: total and baseline are noted; budget_bytes becomes the ledger's, or, where the ledger's
 * is a default and the card has less, what the card has above its baseline. Returns 0, or -ERANGE where an explicit
 * budget does not fit the card (*fault filled; exit 78). *shrunk_to is the budget where it was shrunk, else 0. */
int ledger_device_settle(struct ledger *ledger, unsigned device, uint64_t total_bytes, uint64_t baseline_bytes,
                         uint64_t *shrunk_to, struct ledger_fault *fault);

/* Whether a device's budget is decided, so that nobody needs to measure the card again. */
bool ledger_device_is_settled(const struct ledger *ledger, unsigned device);

/* What the idle card uses by itself, as noted when it was settled. */
uint64_t ledger_device_baseline(const struct ledger *ledger, unsigned device);

/* Notes for people what kind of card it is: compute_capability is 10 * major + minor. Anybody, any time, the same values. */
void ledger_device_describe(struct ledger *ledger, unsigned device, bool simulated, uint32_t compute_capability);

/* What a slot's first user asks for. -EEXIST where another live process of the slot has settled there and a term was set that is
 * another (*fault names both; exit 78); -ERANGE: a limit or reserve above the budget, a reserve above the limit, reserves that
 * together pass the budget, or a reserve of bytes that others hold now (*fault says what is in the way). A term that was
 * never set is free to take; one that was set to none, nothing or the default was set. Sets all or nothing. Call it after ledger_row_claim, and also where nothing is asked for: the
 * process's rows in the slot then count on its terms, and of several that ask for different ones at once exactly one wins. */
struct slot_terms {
    bool has_limit, has_reserve, has_priority;
    uint64_t limit_bytes, reserve_bytes;
    uint32_t priority;
};
int ledger_slot_settle(struct ledger *ledger, unsigned slot, const struct slot_terms *terms,
                       struct ledger_fault *fault);

/* Changes a slot's terms under way, whoever lives in it: the command's. A limit may fall below what is used: nothing is taken
 * away, and nothing more is granted until it fits. -ERANGE as above. */
int ledger_slot_change(struct ledger *ledger, unsigned slot, const struct slot_terms *terms,
                       struct ledger_fault *fault);

/* Sets those of the terms that nobody ever set: a configuration's. -ERANGE as above. */
int ledger_slot_fill(struct ledger *ledger, unsigned slot, const struct slot_terms *terms, struct ledger_fault *fault);

/* The slot of that name, or -ENOENT: adds none. */
int ledger_slot_find(const struct ledger *ledger, const char *name);

/* What a slot's terms are; has_limit and the like where somebody set them, to whatever. */
void ledger_slot_terms(const struct ledger *ledger, unsigned slot, struct slot_terms *terms);

/* Changes the budget of one device, or with LEDGER_DEVICES of all, those to come included. May fall below what is used, as a
 * limit may. -ERANGE: below the reserves together or below a slot's limit, or more than the card has (*fault names both). */
int ledger_budget_change(struct ledger *ledger, unsigned device, uint64_t budget, struct ledger_fault *fault);

/* Slots with their terms and devices with their budgets, as a configuration names them: within the budget (who plans has seen to
 * that), at most LEDGER_SLOTS and LEDGER_DEVICES. */
struct ledger_plan {
    unsigned slot_count, device_count;
    struct {
        char name[LEDGER_NAME_BYTES];
        struct slot_terms terms;
    } slots[LEDGER_SLOTS];
    struct {
        uint8_t uuid[LEDGER_UUID_BYTES];
        uint64_t budget_bytes;
    } devices[LEDGER_DEVICES];
};

/* Brings a ledger that is in use to a plan: what falls first, then what rises, so that the order of a file's sections does not
 * matter; slots that are not planned stay as they are. has_budget: that of all devices becomes budget_bytes. 0; -ENOSPC;
 * -ERANGE: some of it does not fit now, and *fault says what; -EAGAIN; -ENOMEM. All or nothing: it is tried on a copy first, and
 * where somebody takes the bytes of a planned reserve just then, what was done is taken back. What then stays: slots and devices
 * that were added, without terms; the marks of what was lowered; and a reserve that was lowered, where others took its bytes in that
 * moment (*fault says so). */
int ledger_plan_apply(struct ledger *ledger, const struct ledger_plan *plan, bool has_budget, uint64_t budget_bytes,
                      struct ledger_fault *fault);

/* A claimed row. All zeroes is "none". */
struct ledger_claim {
    struct liveness liveness;
    unsigned row;
    unsigned slot;
    bool held;
};

/* Claims a free row for this process in `slot` and makes it LIVE. Reaps first.
 * 0; -ENOSPC: LEDGER_ROWS are taken; -ESTALE: the file was removed or replaced (open again); -EBUSY: somebody holds the
 * bytes of every free row, which only a `cubudget gc` stopped half way does; -ENOTSUP: locks do not hold in that
 * directory; -EINVAL: no such slot; -errno. `command` is for people. Owner. */
int ledger_row_claim(struct ledger *ledger, unsigned slot, const char *command, struct ledger_claim *claim);

/* Gives the row back at once: all its bytes count as free. Owner. */
void ledger_row_release(struct ledger *ledger, struct ledger_claim *claim);

/* --- charging -------------------------------------------------------------------------------------------------- */

enum ledger_verdict {
    LEDGER_FITS = 0,    /* granted: committed and in flight, the bid is gone */
    LEDGER_OVER_BUDGET, /* refused by what is committed (and reserved); the bid is gone */
    LEDGER_OVER_LIMIT,  /* refused by the slot's own limit; the bid is gone */
    LEDGER_CONTENDED,   /* only others' bids are in the way: look again */
    LEDGER_IN_LINE,     /* somebody waits who was there first (line.h); nothing was published */
};

/* A request under way. Set device, row, slot, bytes; ticket = LEDGER_NO_TICKET; standing = false. */
struct ledger_bid {
    unsigned device, row, slot;
    uint64_t bytes;
    uint64_t ticket;
    bool standing; /* published, between two looks */
    bool restores; /* what was granted before comes back: the slot's limit does not bind it */
    /* Its place in line; LEDGER_NO_TICKET: behind all who wait, 0: before them. And its process's first row, which is not in its own way. */
    uint64_t line_ticket;
    unsigned leader;
};

/* What a look saw, in bytes, for messages and decisions. */
struct ledger_room {
    uint64_t budget_bytes, limit_bytes;
    uint64_t committed_bytes; /* of all rows */
    uint64_t slot_bytes;      /* committed of the bidder's slot */
    uint64_t dead_bytes;      /* of ORPHANED and DYING rows */
    uint64_t reserved_bytes;  /* kept for other slots and not used by them */
    uint64_t bid_bytes;       /* others' bids */
};

/* One look of the protocol above. Bounded: a few passes over the rows, never waits. Owner. *room may be NULL; it is filled
 * for every verdict but LEDGER_FITS. LEDGER_CONTENDED with bid->standing: nobody older is in the way, so whoever is will
 * withdraw (or stands still: count the looks). Without: somebody older is; look again later with the same *bid. */
enum ledger_verdict ledger_bid_look(struct ledger *ledger, struct ledger_bid *bid, struct ledger_room *room);

/* What a device has to keep for one slot and for the others: committed alone, and with all bids. For terms.c. */
struct ledger_keep {
    uint64_t budget_bytes;
    uint64_t own_bytes, own_with_bids; /* of the slot's living rows */
    uint64_t others_bytes,
        others_with_bids;                /* sum of max(used, reserve) of the other slots, and the bytes of the dead */
    uint64_t held_bytes, reserved_bytes; /* of others_bytes: committed; kept beyond that for reserves */
};
void ledger_keep(const struct ledger *ledger, unsigned device, unsigned slot, struct ledger_keep *keep);

/* Takes back a standing bid. Owner. */
void ledger_bid_withdraw(struct ledger *ledger, struct ledger_bid *bid);

/* The driver's call for granted bytes has returned: in_flight -= bytes. Owner. */
void ledger_landed(struct ledger *ledger, unsigned row, unsigned device, uint64_t bytes);

/* The same where the call took other than was charged: committed becomes what it really took. More than was charged is
 * committed unasked. Owner. */
void ledger_settle(struct ledger *ledger, unsigned row, unsigned device, uint64_t charged_bytes, uint64_t actual_bytes);

/* Gives back committed bytes (never below 0). Owner. */
void ledger_credit(struct ledger *ledger, unsigned row, unsigned device, uint64_t bytes);

/* Adds bytes that are already held, without asking (a measured cost above its prediction, a move to a new ledger). May pass
 * the budget, and the peaks then say so. Owner. */
void ledger_commit_unasked(struct ledger *ledger, unsigned row, unsigned device, uint64_t bytes);

/* What the row holds of a device. Owner. */
uint64_t ledger_committed(const struct ledger *ledger, unsigned row, unsigned device);

/* The same with the part whose driver call has not returned, and the count of changes. Owner. */
struct ledger_held {
    uint64_t committed_bytes, in_flight_bytes, changes;
};
struct ledger_held ledger_held(const struct ledger *ledger, unsigned row, unsigned device);

/* Copies all that a row holds of a device, on the card or evicted, its display account too, to another ledger's row, unasked. Owner of
 * both. */
void ledger_row_copy(const struct ledger *from, unsigned from_row, unsigned from_device, struct ledger *to,
                     unsigned to_row, unsigned to_device);

/* Copies a row's counts. Owner of both. */
void ledger_counts_copy(const struct ledger *from, unsigned from_row, struct ledger *to, unsigned to_row);

/* Adds to the row's display account by kind; negative takes away. Owner. */
void ledger_kind_add(struct ledger *ledger, unsigned row, unsigned device, enum ledger_kind kind, int64_t bytes);

/* How often the row's owner has allocated and freed. Owner. */
uint64_t ledger_done(const struct ledger *ledger, unsigned row);

/* Notes the time in the row where anything was allocated or freed since the last note. Owner. */
void ledger_row_touch(struct ledger *ledger, unsigned row);

enum ledger_event {
    LEDGER_COUNT_ALLOCATION = 0,
    LEDGER_COUNT_FREE = 1,
    LEDGER_COUNT_REFUSAL = 2,
    LEDGER_COUNT_EVICTION = 3,
    LEDGER_COUNT_RESTORE = 4,
    LEDGER_COUNT_WAIT = 5,
}; /* as they lie in struct ledger_counts */
void ledger_count(struct ledger *ledger, unsigned row, enum ledger_event event); /* Owner. */

/* What slot `slot` could be granted now, of its limit and of the device's budget; and both. */
struct ledger_view {
    uint64_t free_bytes;
    uint64_t total_bytes; /* the slot's limit, or the budget where there is none or it is higher */
};
void ledger_view(struct ledger *ledger, unsigned device, unsigned slot, struct ledger_view *view);

/* The same with what others hold that can be moved out of the way: all that evictable processes but that of row `leader` hold, down to
 * their slots' reserves. */
void ledger_view_evictable(struct ledger *ledger, unsigned device, unsigned slot, unsigned leader,
                           struct ledger_view *view);

/* Least cost of a context seen on a device: keeps the smaller. 0: none seen yet. */
uint64_t ledger_context_cost(struct ledger *ledger, unsigned device);
void ledger_context_cost_seen(struct ledger *ledger, unsigned device, uint64_t bytes);

/* --- pressure: watch.c -------------------------------------------------------------------------------------------- */

/* What live rows hold of a device now. */
uint64_t ledger_used(const struct ledger *ledger, unsigned device);

/* A device's level of pressure (enum pressure_level) by what live rows hold now. */
unsigned ledger_pressure_level(const struct ledger *ledger, unsigned device);

/* Makes the published level the one there is, counts the change and wakes who waits. Whoever changes what is held, or the
 * budget, calls it where somebody watches; safe from anywhere. */
void ledger_pressure_publish(struct ledger *ledger, unsigned device);

/* The same for every device. */
void ledger_pressure_publish_all(struct ledger *ledger);

/* Somebody who wants changes to be counted: as long as he lives, and no longer. 0; -ESTALE; -ENOTSUP; -errno. */
struct ledger_watch {
    void *page; /* its file description shares the device's watch byte */
    unsigned device;
};
int ledger_watch_begin(struct ledger *ledger, unsigned device, struct ledger_watch *watch);
void ledger_watch_end(struct ledger *ledger, struct ledger_watch *watch);

/* Where all who watched are gone, however they went: nobody does. Now and then, by anybody. */
void ledger_watch_prune(struct ledger *ledger);

/* The published level and the count of changes, modulo 2^32. */
struct ledger_pressure {
    uint32_t generation;
    unsigned level;
};
struct ledger_pressure ledger_pressure_read(const struct ledger *ledger, unsigned device);

/* The level that change `generation` made, of the last 64 at least; -1: it is not known any more. */
int ledger_pressure_told(const struct ledger *ledger, unsigned device, uint32_t generation);

/* Sleeps while the count of changes is `generation`, at most timeout_ms. Woken by a change, or for nothing. */
void ledger_pressure_sleep(struct ledger *ledger, unsigned device, uint32_t generation, uint32_t timeout_ms);
void ledger_pressure_wake(struct ledger *ledger, unsigned device);

/* Whether somebody uses that device, or did. */
bool ledger_device_is_claimed(const struct ledger *ledger, unsigned device);

/* A device's uuid. / The index of the device of that uuid (NULL: of the first there is), or -ENODEV. */
void ledger_device_uuid(const struct ledger *ledger, unsigned device, uint8_t uuid[LEDGER_UUID_BYTES]);
int ledger_device_find(const struct ledger *ledger, const uint8_t uuid[LEDGER_UUID_BYTES]);

/* --- the dead -------------------------------------------------------------------------------------------------- */

enum { LEDGER_DYING_MS = 200 }; /* the card shows a killed process's memory some 30 ms after its locks are gone */

/* Looks at every row's two bytes and moves the rows of the dead on: LIVE -> ORPHANED -> DYING -> FREE. Any number of
 * processes may do it at once, each may die or stop at any instruction. Returns how many rows are DYING still (their bytes
 * come free within LEDGER_DYING_MS), or -errno. */
int ledger_reap(struct ledger *ledger);

/* Removes a ledger that nobody uses: takes every lock byte first. 0; -EBUSY: in use; -ENOENT; -errno. */
int ledger_remove(const char *directory, const char *name, struct ledger_fault *fault);

#endif
