/*
 * One line to standard error or the log file. Called from everywhere, the constructor included.
 *
 * The file is opened anew for each line: a descriptor that we kept could be closed by the program and its number
 * be given to something of the program's. The settings are written once, before other threads log; the level is
 * atomic so that a later change is at worst seen late.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "platform/log.h"

enum { LINE_BYTES = 1000 };

static _Atomic(int) log_threshold = LOG_WARN;
static char log_path[PATH_MAX];
static _Atomic(bool) log_to_file;

void log_configure(enum log_level level, const char *file)
{
    atomic_store(&log_to_file, false);
    atomic_store(&log_threshold, (int)level);
    if (file != NULL && strlen(file) < sizeof log_path) {
        memcpy(log_path, file, strlen(file) + 1);
        atomic_store(&log_to_file, true);
    }
}

/* Where nobody reads a pipe any more the line is lost, and the program lives: the signal that this write raises, on this
 * thread, is held back and taken away. One that was there before stays. */
static void line_write(int target, const char *line, size_t bytes)
{
    static const struct timespec at_once = {0};
    sigset_t pipe, before, pending;
    (void)sigemptyset(&pipe);
    (void)sigaddset(&pipe, SIGPIPE);
    (void)sigemptyset(&pending);
    (void)sigpending(&pending);
    bool ours = sigismember(&pending, SIGPIPE) == 0 && pthread_sigmask(SIG_BLOCK, &pipe, &before) == 0;
    ssize_t written;
    while ((written = write(target, line, bytes)) < 0 && errno == EINTR) {
    }
    if (ours && written < 0 && errno == EPIPE)
        while (sigtimedwait(&pipe, NULL, &at_once) < 0 && errno == EINTR) {
        }
    if (ours)
        (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
}

static void line_send(const char *line, size_t bytes)
{
    int descriptor = -1;
    if (atomic_load(&log_to_file))
        descriptor = open(log_path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY, 0600);
    line_write(descriptor >= 0 ? descriptor : STDERR_FILENO, line, bytes);
    if (descriptor >= 0)
        (void)close(descriptor);
}

/* Writes prefix, text and newline; cuts a long text without leaving half a character of UTF-8. */
static size_t line_format(char line[LINE_BYTES + 1], const char *format, va_list arguments)
{
    static const char prefix[] = "cubudget: ";
    size_t start = sizeof prefix - 1, room = LINE_BYTES - 1; /* one byte stays for the newline */
    memcpy(line, prefix, start);
    int wanted = vsnprintf(line + start, room - start + 1, format, arguments);
    size_t end = start + (wanted > 0 ? (size_t)wanted : 0);
    if (end > room) {
        end = room;
        while (end > start && ((unsigned char)line[end - 1] & 0xC0) == 0x80)
            end--;
        if (end > start && ((unsigned char)line[end - 1] & 0xC0) == 0xC0)
            end--;
    }
    for (size_t i = start; i < end; i++) {
        unsigned char byte = (unsigned char)line[i];
        if (byte < 0x20 || byte == 0x7F)
            line[i] = '?';
    }
    line[end++] = '\n';
    return end;
}

void log_line(enum log_level level, const char *format, ...)
{
    if ((int)level > atomic_load(&log_threshold))
        return;
    int before = errno;
    char line[LINE_BYTES + 1];
    va_list arguments;
    va_start(arguments, format);
    size_t bytes = line_format(line, format, arguments);
    va_end(arguments);
    line_send(line, bytes);
    errno = before;
}

_Noreturn void log_die(int status, const char *format, ...)
{
    char line[LINE_BYTES + 1];
    va_list arguments;
    va_start(arguments, format);
    size_t bytes = line_format(line, format, arguments);
    va_end(arguments);
    line_send(line, bytes);
    _exit(status);
}
