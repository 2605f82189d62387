/*
 * Who is to leave the card so that somebody else gets room. Pure: it reads what it is given and has no clock, so tests give it both.
 *
 * Lowest priority first, then who was not used for longest, in steps of POLICY_STEP_MS because each agent notes the use of its process only
 * about once a second (the referenced bit and its sweep: CLOCK), then who has been on the card for longest. Never who came to the
 * card less than POLICY_RESIDENCY_MS ago, or has declined since; never the asker; never one of priority max or that says it cannot be evicted;
 * never one who is older in line. Of a slot with a reserve only what lies above it counts: the rest stays promised to it. As many as are needed,
 * and none that the others make superfluous.
 */
#ifndef ACCOUNT_POLICY_H
#define ACCOUNT_POLICY_H

#include "ledger/residents.h"

enum {
    POLICY_RESIDENCY_MS = 500,
    POLICY_STEP_MS = 1000,
    POLICY_ASKED_MS = 500,     /* an agent that has not begun by then is stopped */
    POLICY_EVICTING_MS = 2000, /* and one that has not ended by then, with a ms for each MiB more */
    POLICY_VICTIMS = 64,
};

struct policy_question {
    const struct ledger_resident *residents; /* of the device; several rows of one process stand for one victim */
    unsigned count;
    const uint64_t *reserves; /* of each slot: LEDGER_SLOTS of them */
    uint64_t missing_bytes, now_ms;
    unsigned leader, slot; /* of who asks */
    uint64_t ticket;       /* of who asks */
};

enum policy_verdict {
    POLICY_COMING, /* who leaves already is enough */
    POLICY_ASK,    /* these are to be asked */
    POLICY_LATER,  /* there will be enough at until_ms */
    POLICY_NOBODY, /* not enough can be evicted */
};

struct policy_answer {
    enum policy_verdict verdict;
    uint64_t until_ms;
    unsigned count;
    struct {
        unsigned row; /* first row of the process */
        uint64_t bytes;
    } victims[POLICY_VICTIMS];
};

void policy_choose(const struct policy_question *question, struct policy_answer *answer);

#endif
