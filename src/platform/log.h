/*
 * One line to standard error (or CUBUDGET_LOG_FILE), written with a single write(2): lines of several processes do not
 * mix, no heap, no stdio, async-signal-safe but for the formatting. Never to standard output. Keeps errno.
 */
#ifndef PLATFORM_LOG_H
#define PLATFORM_LOG_H

#include "platform/env.h"

/* Sets level and file (NULL: standard error). Before the first call: warnings and worse to standard error. */
void log_configure(enum log_level level, const char *file);

/* "cubudget: " + text + newline. Control characters in it are shown as '?'; longer than 1,000 bytes is cut. */
void log_line(enum log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* log_line at LOG_ERROR, then _exit(status): no handler of the program runs. */
_Noreturn void log_die(int status, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The exit statuses of the whole project. */
enum exit_status {
    EXIT_CHECK_FAILED = 1,
    EXIT_USAGE_ERROR = 64,
    EXIT_NO_DEVICE = 69,
    EXIT_LOST_RESTORE = 70,
    EXIT_NO_LEDGER = 73,
    EXIT_SKIPPED_OR_NOT_ALLOWED = 77,
    EXIT_BAD_SETTINGS = 78,
};

#endif
