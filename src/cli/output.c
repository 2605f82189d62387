/*
 * What the command says, and whether it arrived; see output.h.
 */
#include "config.h"

#include <errno.h>
#include <locale.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include <wchar.h>
#include "cli/output.h"
#include "platform/env.h"
#include "platform/log.h"

int fault_say(int status, const char *format, ...)
{
    char text[1200];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    log_line(LOG_ERROR, "%s", text);
    return status;
}

int output_finish(int status)
{
    bool failed = ferror(stdout) != 0;
    int error = errno;
    if (fclose(stdout) != 0) {
        /* Closed from the start (cubudget dump >&-): that is an error only where something was to be written. */
        error = errno;
        failed = true;
    }
    if (!failed)
        return status;
    if (error != EPIPE)
        (void)fault_say(0, "standard output cannot be written: %s; free some room or write elsewhere", strerror(error));
    return EXIT_CHECK_FAILED;
}

bool output_is_coloured(void)
{
    const char *refused = getenv("NO_COLOR"), *terminal = getenv("TERM");
    if (refused != NULL && *refused != '\0')
        return false;
    return isatty(STDOUT_FILENO) && terminal != NULL && strcmp(terminal, "dumb") != 0;
}

unsigned output_columns(void)
{
    struct winsize size;
    if (!isatty(STDOUT_FILENO))
        return 0;
    return ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

/* The columns of the character at `text`; its bytes go to *bytes. */
static unsigned character_columns(const char *text, size_t left, size_t *bytes)
{
    static bool located;
    mbstate_t state;
    wchar_t character;
    if (!located) /* names are UTF-8 whatever the user's locale is */
        located = setlocale(LC_CTYPE, "C.UTF-8") != NULL;
    *bytes = character_length((const unsigned char *)text, left);
    if (*bytes == 0)
        *bytes = 1;
    memset(&state, 0, sizeof state);
    if (!located || mbrtowc(&character, text, *bytes, &state) != *bytes)
        return 1;
    int columns = wcwidth(character);
    return columns >= 0 ? (unsigned)columns : 1;
}

unsigned text_columns(const char *text)
{
    unsigned columns = 0;
    size_t left = strlen(text), bytes;
    for (; left > 0; text += bytes, left -= bytes)
        columns += character_columns(text, left, &bytes);
    return columns;
}

size_t text_fitting(const char *text, unsigned columns)
{
    size_t all = strlen(text), at = 0, bytes;
    while (at < all) {
        unsigned width = character_columns(text + at, all - at, &bytes);
        if (width > columns)
            break;
        columns -= width;
        at += bytes;
    }
    return at;
}
