/*
 * Runs a small program and hears what it prints, in a process that is not ours: its handlers of SIGCHLD, its waits for any child, its
 * descriptors and its other threads are not to notice. Called by room.c on the agent's thread, which waits meanwhile.
 */
#ifndef EVICT_HELPER_H
#define EVICT_HELPER_H

#include <stddef.h>
#include <stdint.h>

/* Runs `path` and fills `answer` with its standard output, ended by a zero byte. 0: it ended with status 0; -ETIMEDOUT: it did not end in time and was
 * killed; -EIO: it ended otherwise; -errno: it could not be started. Keeps errno. One at a time. */
int helper_run(const char *path, char *const arguments[], char *const environment[], uint32_t timeout_ms, char *answer,
               size_t answer_bytes);

#endif
