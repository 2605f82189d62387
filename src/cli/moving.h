/*
 * What evict and restore have in common: their options, the processes of the slot, waiting for them and saying what came of it. They differ
 * in what they ask of a process, and in what is an answer.
 */
#ifndef CLI_MOVING_H
#define CLI_MOVING_H

#include "cli/options.h"
#include "ledger/events.h"
#include "ledger/process.h"
#include "ledger/snapshot.h"

enum move_state {
    MOVE_BEGUN,   /* it was asked, and no answer has come */
    MOVE_DONE,    /* it is where it shall be */
    MOVE_REFUSED, /* it will not be, or not in time */
};

enum { MOVE_TEXT_BYTES = 160 };

/* One process on its way; of its first row. */
struct moving {
    unsigned row;
    uint32_t pid, asked; /* asked: the word that says so; 0: it was not */
    bool joined;         /* that ask is somebody else's, and his to withdraw */
    uint64_t used_bytes, evicted_bytes;
    enum ledger_process_state found; /* what it was doing when it was found */
    uint64_t events_before;          /* how many events there were before it was asked */
    uint64_t answered_ms;            /* when it was first seen to have answered without a word of how; 0: it has not */
    enum move_state state;
    char text[MOVE_TEXT_BYTES]; /* what came of it: "is off the card already" */
};

struct move {
    const char *name; /* of the command */
    const char *doc;
    const char *nothing; /* what is said where no process of the slot has a context */
    /* Asks. Returns what came of it at once, with moving->text. `waits`: whether the command will wait for the answer. */
    enum move_state (*begin)(struct ledger *ledger, struct moving *moving, bool waits);
    /* Whether there is an answer. */
    enum move_state (*look)(struct ledger *ledger, struct moving *moving, uint64_t now_ms);
    /* The time is over: what is said. */
    void (*give_up)(struct ledger *ledger, struct moving *moving);
};

int move_run(const struct move *move, int argc, char **argv);

/* Says what came of it. */
enum move_state move_end(struct moving *moving, enum move_state state, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* The last event of that kind about the process since it was asked. */
bool move_event_find(const struct ledger *ledger, const struct moving *moving, enum ledger_event_kind kind,
                     struct ledger_event_record *event);

#endif
