/*
 * A way of moving a process off the card and back: a struct of functions. Called by passage.c on the agent's thread alone, with the gate
 * closed and no thread inside the driver, so nothing here synchronises. The checkpoint (checkpoint.c) frees everything that the
 * process has of any card. One that moves the memory alone and leaves contexts where they are is another struct, which says so.
 */
#ifndef EVICT_MECHANISM_H
#define EVICT_MECHANISM_H

#include <stdbool.h>
#include "cuda/driver.h"
#include "ledger/events.h"

enum mechanism_frees {
    MECHANISM_FREES_ALL,    /* contexts too */
    MECHANISM_FREES_MEMORY, /* what was allocated; contexts stay and stay charged */
};

/* How a move ended. */
enum mechanism_end {
    MECHANISM_DONE,      /* the memory has moved */
    MECHANISM_AS_IT_WAS, /* it has not, and the driver is as it was before */
    MECHANISM_NEVER,     /* the same, and it never will in this process: `reason` */
    MECHANISM_LOST,      /* the driver is beyond use: there is no way back */
};

struct mechanism_result {
    enum mechanism_end end;
    enum ledger_why why; /* what did not succeed */
    CUresult code;       /* what the driver said of it */
    const char *call;    /* which of its calls */
    const char *reason;  /* MECHANISM_NEVER: for people; stays */
};

struct mechanism {
    const char *name;
    enum mechanism_frees frees;
    bool (*able)(const struct driver *driver); /* whether this driver has what it takes */
    struct mechanism_result (*out)(const struct driver *driver);
    struct mechanism_result (*back)(const struct driver *driver); /* MECHANISM_DONE or MECHANISM_LOST */
};

extern const struct mechanism mechanism_checkpoint;

#endif
