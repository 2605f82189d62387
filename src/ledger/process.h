/*
 * What a process is doing, as all others see it: the state word of its first row, and the moves between its states
 * (docs/LEDGER.md has the picture; tests/model/evict.pml is its model). Called by src/account (asking), src/evict (the agent, which
 * alone makes the moves of its own process) and the command. Safe from anywhere; waits are in ledger_process_sleep alone.
 */
#ifndef LEDGER_PROCESS_H
#define LEDGER_PROCESS_H

#include "ledger/ledger.h"

static inline enum ledger_process_state process_word_state(uint32_t word)
{
    uint32_t state = word & LEDGER_PROCESS_STATE_MASK;
    return state < LEDGER_PROCESS_STATES ? (enum ledger_process_state)state : LEDGER_PROCESS_NO_AGENT;
}

static inline bool process_word_wants(uint32_t word)
{
    return (word & LEDGER_PROCESS_WANT) != 0;
}

/* The row of who asked, LEDGER_ASKER_OPERATOR - 1 = LEDGER_ROWS for the command; -1: nobody. */
static inline int process_word_asker(uint32_t word)
{
    return (int)(word >> LEDGER_PROCESS_ASKER_SHIFT & 0x7FF) - 1;
}

static inline uint32_t process_word_number(uint32_t word)
{
    return word >> LEDGER_PROCESS_NUMBER_SHIFT;
}

/* "running" "asked" "evicting" "evicted" "restoring" "lost"; a process without an agent is running too. */
const char *ledger_process_state_name(enum ledger_process_state state);

/* The first row of the process that a row belongs to. */
unsigned ledger_leader(const struct ledger *ledger, unsigned row);

/* Says of a row that its process's first row is that. Owner, right after the claim. */
void ledger_lead(struct ledger *ledger, unsigned row, unsigned leader);

/* The word, sequentially consistent. */
uint32_t ledger_process_word(const struct ledger *ledger, unsigned row);

/* Since when it says so, CLOCK_REALTIME. */
uint64_t ledger_process_since_ns(const struct ledger *ledger, unsigned row);

/* --- by who needs the room --------------------------------------------------------------------------------------------- */

/* RUNNING -> ASKED, and wakes its agent. `asker`: a row, or LEDGER_ROWS for the command. 0 and the word that says so; -EBUSY: it is
 * not running (the word says what it is doing). */
int ledger_process_ask(struct ledger *ledger, unsigned row, unsigned asker, uint32_t *word);

/* ASKED -> RUNNING, where that ask still stands. False: it does not. */
bool ledger_process_withdraw(struct ledger *ledger, unsigned row, uint32_t asked);

/* Wants the process back: sets the bit while it is evicting, evicted or restoring, and wakes its agent. False: it is none of these. */
bool ledger_process_want(struct ledger *ledger, unsigned row);

/* --- by the agent ------------------------------------------------------------------------------------------------------ */

/* Moves to `state` where the word is *word still, keeping asker and number; `want` says whether WANT stays. On success *word is the
 * new word, the time is noted, and whoever sleeps on the word is woken; else it is what is there now. */
bool ledger_process_move(struct ledger *ledger, unsigned row, uint32_t *word, enum ledger_process_state state,
                         bool want);

/* Sleeps while the word is `word`, at most so long (UINT32_MAX: no limit). 0, -ETIMEDOUT, -EINTR. */
int ledger_process_sleep(struct ledger *ledger, unsigned row, uint32_t word, uint32_t timeout_ms);

/* Notes for who looks for a victim, and for people. Owner. */
void ledger_resident_note(struct ledger *ledger, unsigned row, uint64_t now_ms);
void ledger_referenced_note(struct ledger *ledger, unsigned row, uint64_t now_ms);
/* It was asked and did not leave: by its agent, or by who gave up waiting for a stopped one. */
void ledger_declined_note(struct ledger *ledger, unsigned row, uint64_t now_ms);
/* NULL: it can be evicted. Written where it changed. */
void ledger_evictable_note(struct ledger *ledger, unsigned row, const char *reason);

/* Host memory for the image: published, and then summed with all others'. 0: within the limit; -ENOSPC: it is not, and is taken
 * back. 0 bytes give it back. Owner. */
int ledger_host_take(struct ledger *ledger, unsigned row, uint64_t bytes, uint64_t limit_bytes);

/* --- bytes that leave the card and come back: owner, under the process's lock ------------------------------------------------ */

/* committed becomes evicted; in flight there is nothing. After the checkpoint. Returns the bytes. */
uint64_t ledger_evict_bytes(struct ledger *ledger, unsigned row, unsigned device);

/* evicted becomes committed again, of which `charged_bytes` are committed and in flight already (the footprint that was charged for the
 * restore, on the first row; 0 on the others). After the restore. */
void ledger_restore_bytes(struct ledger *ledger, unsigned row, unsigned device, uint64_t charged_bytes);

uint64_t ledger_evicted(const struct ledger *ledger, unsigned row, unsigned device);

/* In flight of all other rows than those of that leader, the dead's included: what of the card's free memory is promised. */
uint64_t ledger_promised(const struct ledger *ledger, unsigned device, unsigned leader);

/* --- one restorer at a time -------------------------------------------------------------------------------------------------- */

/* Takes a device's restore byte: it goes with the process. 0 and a descriptor for ledger_restore_unlock; -EAGAIN: another has it; -errno. */
int ledger_restore_lock(const struct ledger *ledger, unsigned device, int *descriptor);
void ledger_restore_unlock(int descriptor);

/* Carries a process's state to its first row in another ledger, where it leaves the old one: EVICTED stays that, anything else is RUNNING,
 * or NO_AGENT where it had none. Call ledger_process_want_carry once everybody finds the new one. Owner of both. */
void ledger_process_copy(const struct ledger *from, unsigned from_row, struct ledger *to, unsigned to_row);
void ledger_process_want_carry(const struct ledger *from, unsigned from_row, struct ledger *to, unsigned to_row);

#endif
