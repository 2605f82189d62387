/*
 * The last LEDGER_EVENTS things that happened, for who wants to know why. Added by src/account, src/evict and src/ledger; read by the
 * command. Nobody waits for anybody: who adds takes a number by an atomic addition; who reads skips what is not whole.
 */
#ifndef LEDGER_EVENTS_H
#define LEDGER_EVENTS_H

#include "ledger/ledger.h"

/* Why something was refused or not done: numbers are part of the layout, sentences are not. */
enum ledger_why {
    LEDGER_WHY_NONE = 0,
    LEDGER_WHY_LIMIT = 1,        /* over the slot's own limit */
    LEDGER_WHY_BUDGET = 2,       /* more than the budget less others' reserves */
    LEDGER_WHY_WAITED = 3,       /* nothing came free in time */
    LEDGER_WHY_NO_WAIT = 4,      /* it was not to wait */
    LEDGER_WHY_AGAIN = 5,        /* the same was just refused */
    LEDGER_WHY_NOT_QUIET = 6,    /* a thread stayed inside the driver */
    LEDGER_WHY_LOCK = 7,         /* the driver's lock was not to be had in time */
    LEDGER_WHY_CHECKPOINT = 8,   /* the driver would not checkpoint */
    LEDGER_WHY_HOST = 9,         /* no host memory for the image */
    LEDGER_WHY_UNEVICTABLE = 10, /* the row's reason says why */
    LEDGER_WHY_NO_ROOM = 11,     /* the card has less room than the books say */
    LEDGER_WHY_OPERATOR = 12,    /* the command asked */
    LEDGER_WHY_WITHDRAWN = 13,   /* who asked does not want it any more */
    LEDGER_WHYS = 14,
};
const char *ledger_why_text(enum ledger_why why);           /* a sentence's end: "it would pass the slot's limit" */
const char *ledger_event_name(enum ledger_event_kind kind); /* "ask" "decline" "evict" ... */

struct ledger_event_record {
    uint64_t number, time_ns, duration_ns, bytes;
    uint32_t pid; /* of row */
    enum ledger_event_kind kind;
    int row, other, slot, device; /* -1: none */
    enum ledger_why why;
};

/* Adds one; number and time_ns are filled, and pid and slot (0, -1) from the row where there is one. Safe from anywhere, keeps errno. */
void ledger_event_add(struct ledger *ledger, struct ledger_event_record *event);

/* How many there were. / Event `number`, from 1 on. False: it is not whole, or not there any more. */
uint64_t ledger_event_count(const struct ledger *ledger);
bool ledger_event_read(const struct ledger *ledger, uint64_t number, struct ledger_event_record *event);

/* Sleeps until there are more than `seen`, at most so long. */
void ledger_events_sleep(struct ledger *ledger, uint64_t seen, uint32_t timeout_ms);

/* For who follows events and the pressure of all devices together (where he watches it: ledger_watch_begin): takes what both stood at,
 * BEFORE he looks at either; then sleeps until one has moved on, at most so long. Nothing is lost between. 0, -ETIMEDOUT, -EINTR. */
struct ledger_follow {
    uint32_t signal, generations[LEDGER_DEVICES];
};
void ledger_follow_look(struct ledger *ledger, struct ledger_follow *follow);
int ledger_follow_sleep(struct ledger *ledger, const struct ledger_follow *follow, uint32_t timeout_ms);

#endif
