/*
 * The books of a process that leaves the card and comes back. Called by the agent (src/evict) alone, on its one thread, but for
 * account_want; src/account/evicted.c does it.
 *
 * How one eviction goes, as the agent sees it:
 *     account_unevictable     a reason, or NULL
 *     account_image_take      host memory for the image is published, or there is none
 *     (gate closed, Lock, Checkpoint)
 *     account_evict           the bytes leave the budget
 * and the way back:
 *     account_readmit         in line, until the footprint is charged on all devices
 *     account_proof           what must be free on a card, for each device, before Restore may be called
 *     (Restore, Unlock)
 *     account_restored        the bytes are what they were
 *     account_readmit_undo    instead, where there is no room after all
 */
#ifndef ACCOUNT_EVICTED_H
#define ACCOUNT_EVICTED_H

#include <stdbool.h>
#include <stdint.h>
#include "account/account.h"
#include "ledger/process.h"

/* This process's ledger and its first row; false: unattached. The ledger stays mapped until the move after next; the agent alone moves. */
bool account_own(struct ledger **ledger, unsigned *row);

/* A thread of this process wants it on the card: for gate_set_arrival. Any thread that does not hold the books, keeps errno. */
void account_want(void);

/* Why this process cannot be evicted now: memory that the driver cannot move (managed, shared by IPC), a slot that is never evicted, eviction
 * switched off, no checkpoint in this driver, no NVML to prove the room, an unknown call made (gate.h). NULL: it can. The text stays. */
const char *account_unevictable(const struct driver *driver);

/* Takes host memory for the image of what the process holds (its footprint: what it was charged or what NVML says, the larger, and 32 MiB a
 * device), against CUBUDGET_HOST_LIMIT, by default half of what the system has available. 0 or -ENOSPC. Before the checkpoint: NVML answers. */
int account_image_take(void);
void account_image_drop(void);

/* The checkpoint is made: all bytes of all rows of the process move from committed to evicted, and an eviction is counted. Returns the
 * footprint. */
uint64_t account_evict(void);

/* Stands in line for the footprint, asking others to leave, until it is charged on all devices: 0. -EAGAIN: not yet, after at most
 * `patience_ms`; its place in line is kept, call again. -ESTALE: unattached. */
int account_readmit(uint32_t patience_ms);
/* Gives the charge back and stands in line again. */
void account_readmit_undo(void);

/* Device `number` of those this process uses, from 0 on: its uuid, its index in the ledger, and the bytes that must be free on the card now for a
 * restore to be safe: the footprint and what other rows were granted and do not yet hold. False: there are no more. 0 bytes: nothing there. */
bool account_proof(unsigned number, CUuuid *uuid, unsigned *index, uint64_t *bytes);

/* The restore is made: bytes, counts, the time; the image is dropped. */
void account_restored(void);

/* What others would have to know: writes whether and why not into the row. The agent's tick. */
void account_evictable_note(const struct driver *driver);

#endif
