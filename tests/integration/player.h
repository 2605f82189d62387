/*
 * A process that plays a program with an agent, over a ledger alone: it holds bytes, and leaves the card and comes back as it is asked to.
 * For tests of what the command does with such programs.
 */
#ifndef TESTS_PLAYER_H
#define TESTS_PLAYER_H

#include "integration/cli_stage.h"

enum player_way {
    PLAYER_LEAVES,     /* and comes back when it is wanted */
    PLAYER_RETURNS,    /* leaves, and comes back at once */
    PLAYER_STAYS_AWAY, /* leaves, and does not come back */
    PLAYER_DECLINES,   /* "a thread stayed inside the driver" */
    PLAYER_IS_SILENT,
    PLAYER_DIES,        /* where it is asked */
    PLAYER_IS_BOUND,    /* "managed memory" is why it cannot leave */
    PLAYER_HAS_NOTHING, /* no context */
};

/* Starts one in a slot of that name; it is there when this returns. It dies with the test. */
pid_t player_start(struct stage *stage, const char *slot, uint64_t bytes, enum player_way way);

/* Kills it. */
void player_end(pid_t pid);

/* The state word of the player that was started last in that row, counted from 0. */
uint32_t player_word(const struct stage *stage, unsigned row);

#endif
