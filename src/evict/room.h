/*
 * The proof that a card has room for a restore. A restore that finds none is fatal, and NVML, which could say, blocks for ever in the process
 * that was checkpointed (measured), so a program of our own is started for the question: lib/cubudget/card-room. Called by the agent's thread alone, but
 * for room_prepare.
 */
#ifndef EVICT_ROOM_H
#define EVICT_ROOM_H

#include <stdint.h>

/* Finds the program and notes the environment that it will need, which the program may change later: by the thread that starts the agent, while
 * nothing is out. NULL, or why the question cannot be asked. */
const char *room_prepare(void);

/* Whether each card of this process has the room that account_proof asks for: 0; -EAGAIN: not within that time; -errno: the helper does not
 * answer. Takes the devices' restore bytes, which room_give_up or the process's end gives back. */
int room_prove(uint32_t patience_ms);
void room_give_up(void);

#endif
