/*
 * What the command says: errors as one line on standard error, data on standard output, and whether that arrived.
 * Used by every command.
 */
#ifndef CLI_OUTPUT_H
#define CLI_OUTPUT_H

#include <stdbool.h>
#include <stddef.h>

/* Says "cubudget: ..." on standard error, whatever the log settings, and returns `status`. */
int fault_say(int status, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Flushes and closes standard output. Returns `status`; or EXIT_CHECK_FAILED where what was written did not arrive, with a
 * line unless the reader has simply gone. */
int output_finish(int status);

/* Whether to colour: standard output is a terminal that can, and the user did not say NO_COLOR. */
bool output_is_coloured(void);

/* The columns of the terminal; 0 where standard output is none. */
unsigned output_columns(void);

/* How many columns a text takes on a terminal. The text is valid UTF-8. */
unsigned text_columns(const char *text);

/* How many bytes of the text fit `columns`, whole characters only. */
size_t text_fitting(const char *text, unsigned columns);

#endif
