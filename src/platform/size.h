/* Sizes and times as people write them. Pure functions; safe everywhere, the constructor included. */
#ifndef PLATFORM_SIZE_H
#define PLATFORM_SIZE_H

#include <stddef.h>
#include <stdint.h>

/* Reads a size: digits, optionally a fraction ("1.5GiB"), an optional blank, a unit: none or B (bytes);
 * K M G T and KiB MiB GiB TiB (powers of 1024); KB MB GB TB (powers of 1000); letters in any case.
 * Returns 0; -EINVAL: not a size (negative, empty, trailing characters, a fraction of a byte);
 * -ERANGE: 2^63 bytes or more. *bytes is untouched on error. */
int size_parse(const char *text, uint64_t *bytes);

/* Writes a size for people: "8 GiB", "1.50 GiB", "527 MiB", "512 B". Returns text. */
char *size_format(uint64_t bytes, char *text, size_t text_bytes);
enum { SIZE_TEXT_BYTES = 32 };

/* Reads a time: a number with ms, s or m; "0" alone is allowed. -EINVAL, -ERANGE (above 24 days) as above. */
int time_parse_ms(const char *text, uint32_t *milliseconds);

#endif
