/*
 * One sleeping thread per process that has a context. In this version it does one thing: about once a second it has
 * src/account look after the row (account_tick). Called by src/interpose.
 */
#ifndef EVICT_AGENT_H
#define EVICT_AGENT_H

/* Starts the thread where this process has none yet. Safe from any thread; keeps errno; a failure is logged and harmless but
 * for the looking. */
void agent_start(void);

#endif
