/*
 * One process's way off the card and back: what its state word asks for is done here, with a way back from every failure before the restore
 * (docs/ARCHITECTURE.md). Called by agent.c, on its one thread, which alone moves the word; passage_end by the thread that ends the process,
 * passage_arrival by any thread at the closed gate.
 */
#ifndef EVICT_PASSAGE_H
#define EVICT_PASSAGE_H

#include <stdbool.h>
#include <stdint.h>
#include "evict/mechanism.h"
#include "ledger/process.h"

struct passage {
    const struct driver *driver;
    const struct mechanism *mechanism;
    struct ledger *ledger; /* where the word is; NULL: not looked yet */
    unsigned row;
    bool out;             /* off the card */
    uint64_t wanted_ns;   /* since when it is wanted back, CLOCK_MONOTONIC; 0: it is not */
    uint64_t image_bytes; /* what it had on the card */
    uint64_t swept_ms;    /* when the gate was last asked whether it was used */
    unsigned evictions, unproven;
    void (*on_out)(void); /* called when it is out, before anybody is told; NULL: nobody */
};

/* Before the first step, on the agent's thread or before it is there. NULL, or why this process can never be moved. */
const char *passage_begin(struct passage *passage, const struct driver *driver, const struct mechanism *mechanism);

/* Makes sure that the word of the ledger that is there now says what is the case. False: there is none. */
bool passage_follow(struct passage *passage);

/* Does what the word asks, and returns the word then; a bounded time. *again: it asks for more. */
uint32_t passage_step(struct passage *passage, bool *again);

/* Whether the gate was used since the last time; notes it in the row. */
bool passage_sweep(struct passage *passage);

/* For gate_set_arrival. */
void passage_arrival(void);

/* The process ends: waits until the driver is left alone, and no passage begins any more: who asks is declined, and who wants it back waits
 * in vain. Whether the process is off the card then. Any thread. */
bool passage_end(void);
bool passage_is_ended(void);
/* In a forked child whose own agent starts: nothing has ended there. */
void passage_reset(void);

#endif
