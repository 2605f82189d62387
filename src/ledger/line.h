/*
 * The line of those who wait for room, oldest ticket first. A process stands in it once, with its first row, whether for one
 * allocation or for its whole footprint. Called by src/account (standing in it) and the command (showing it).
 *
 * The head of a device's line is the oldest who wants bytes there and whose turn has not passed. While there is a head that is older,
 * nobody is granted anything there: small requests do not starve a big one. A turn lasts LEDGER_TURN_MS unless the head
 * makes use of it, which it says by making it longer; so a head that was stopped costs the others that long.
 * Times are CLOCK_MONOTONIC in ms, given by the caller, so that tests bring a clock of their own.
 */
#ifndef LEDGER_LINE_H
#define LEDGER_LINE_H

#include "ledger/ledger.h"

enum {
    LEDGER_TURN_MS = 100,
    LEDGER_TURN_AGAIN_MS = 500, /* who could not use its turn gets another so often */
};

struct ledger_place {
    uint64_t ticket; /* LEDGER_NO_TICKET: takes a new one */
    enum ledger_waiting kind;
    uint64_t since_ms, deadline_ms;
    uint64_t wanted_bytes[LEDGER_DEVICES]; /* by the ledger's index; 0: nothing there */
};

/* Stands in line, or changes what it wants there. Fills place->ticket. Owner. */
void ledger_line_enter(struct ledger *ledger, unsigned row, struct ledger_place *place);
void ledger_line_leave(struct ledger *ledger, unsigned row); /* Owner. */

/* Whether somebody older than `ticket` (LEDGER_NO_TICKET: older than who is not in line) is at the head of a device's line, other than
 * the process of `row`. Begins the head's turn where it has not begun. One load where nobody waits. */
bool ledger_line_is_behind(struct ledger *ledger, unsigned device, unsigned row, uint64_t ticket, uint64_t now_ms);

/* One's own turn: is it; begins it, or begins another where the last is long over. Owner. */
bool ledger_line_turn(struct ledger *ledger, unsigned device, unsigned row, uint64_t now_ms);
void ledger_line_turn_extend(struct ledger *ledger, unsigned row, uint64_t now_ms);

/* Whose room it waits for, for people. */
void ledger_line_waits_for(struct ledger *ledger, unsigned row, int other);

/* The ticket of a row in line; LEDGER_NO_TICKET: it is not. */
uint64_t ledger_line_ticket(const struct ledger *ledger, unsigned row);

/* Sleeps until room may have come free on a device since `seen`, at most so long. */
uint32_t ledger_room_seen(const struct ledger *ledger, unsigned device);
void ledger_room_sleep(struct ledger *ledger, unsigned device, uint32_t seen, uint32_t timeout_ms);
/* Room may have come free. By whoever gives bytes back, where somebody waits. */
void ledger_room_tell(struct ledger *ledger, unsigned device);

#endif
