/*
 * Threads that the library starts in programs that are not its own. Called by src/evict and src/api, from any thread.
 *
 * They have a small stack and all signals blocked: the program's signals are for its own threads.
 */
#ifndef PLATFORM_THREAD_H
#define PLATFORM_THREAD_H

#include <pthread.h>

/* Starts run(argument) under a name of at most 15 bytes. `thread` NULL: detached; else to be joined by the caller. 0, or an error
 * number. */
int thread_begin(const char *name, void *(*run)(void *), void *argument, pthread_t *thread);

#endif
