/*
 * One sleeping thread per process that has a context. It sleeps on the process's state word: whoever needs the process's room, and whoever
 * wants it back on the card, wakes it there, and it moves the process (passage.c). About once a second it has src/account look after the row. Started
 * by src/interpose and src/api.
 */
#ifndef EVICT_AGENT_H
#define EVICT_AGENT_H

/* Starts the thread where this process has none yet. Safe from any thread; keeps errno; a failure is logged, and harmless but
 * for the looking and that the process stays on the card. */
void agent_start(void);

#endif
