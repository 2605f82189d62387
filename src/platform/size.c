/*
 * Sizes and times as people write them. Pure functions, called by the constructor, the command and every message;
 * nothing here is shared. Exact: a value is either a whole number of bytes (milliseconds) or an error, so that what a
 * user wrote and what is enforced are never a rounding apart.
 */
#include "config.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include "platform/size.h"

enum { FRACTION_DIGITS = 18 }; /* 10^18 times the largest unit still fits 128 bits */

struct unit {
    const char *name;
    uint64_t factor;
};

static const struct unit size_units[] = {
    {"", 1},
    {"B", 1},
    {"K", 1ULL << 10},
    {"KiB", 1ULL << 10},
    {"KB", 1000ULL},
    {"M", 1ULL << 20},
    {"MiB", 1ULL << 20},
    {"MB", 1000000ULL},
    {"G", 1ULL << 30},
    {"GiB", 1ULL << 30},
    {"GB", 1000000000ULL},
    {"T", 1ULL << 40},
    {"TiB", 1ULL << 40},
    {"TB", 1000000000000ULL},
};

static const struct unit time_units[] = {{"ms", 1}, {"s", 1000}, {"m", 60000}};

static bool digit_is(char character)
{
    return character >= '0' && character <= '9';
}

/* A decimal number as whole + fraction / scale. */
struct decimal {
    uint64_t whole, fraction, scale;
};

/* Reads "8" or "1.5" and leaves *text behind it. -ERANGE where the whole part alone is 2^63 or more. */
static int decimal_read(const char **text, struct decimal *value)
{
    const char *at = *text;
    bool huge = false;
    *value = (struct decimal){0, 0, 1};
    if (!digit_is(*at))
        return -EINVAL;
    for (; digit_is(*at); at++) {
        if (value->whole > (UINT64_MAX >> 1) / 10)
            huge = true;
        else
            value->whole = value->whole * 10 + (uint64_t)(*at - '0');
    }
    if (*at == '.') {
        const char *first = ++at;
        if (!digit_is(*at))
            return -EINVAL;
        while (digit_is(*at))
            at++;
        const char *end = at;
        while (end > first && end[-1] == '0') /* zeros at the end say nothing */
            end--;
        if (end - first > FRACTION_DIGITS)
            return -EINVAL;
        for (; first < end; first++) {
            value->fraction = value->fraction * 10 + (uint64_t)(*first - '0');
            value->scale *= 10;
        }
    }
    *text = at;
    return huge ? -ERANGE : 0;
}

static char small(char letter)
{
    return letter >= 'A' && letter <= 'Z' ? (char)(letter - 'A' + 'a') : letter;
}

/* Not strcasecmp: a unit means the same in every locale, and the tables of one are pages to read in every process. */
static bool names_agree(const char *left, const char *right)
{
    while (*left != '\0' && small(*left) == small(*right))
        left++, right++;
    return small(*left) == small(*right);
}

static const struct unit *unit_find(const struct unit *units, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++)
        if (names_agree(units[i].name, name))
            return &units[i];
    return NULL;
}

/* value * factor, where that is a whole number below `bound`. */
static int decimal_scale(const struct decimal *value, uint64_t factor, uint64_t bound, uint64_t *result)
{
    unsigned __int128 part = (unsigned __int128)value->fraction * factor,
                      whole = (unsigned __int128)value->whole * factor;
    if (value->scale !=
        1) { /* with a fraction: else nothing is divided, which is a function apart for so wide a number */
        if (part % value->scale != 0)
            return -EINVAL;
        whole += part / value->scale;
    }
    if (whole >= bound)
        return -ERANGE;
    *result = (uint64_t)whole;
    return 0;
}

int size_parse(const char *text, uint64_t *bytes)
{
    struct decimal value;
    int read = decimal_read(&text, &value);
    if (read == -EINVAL)
        return read;
    if (text[0] == ' ' && text[1] != '\0')
        text++;
    const struct unit *unit = unit_find(size_units, sizeof size_units / sizeof *size_units, text);
    if (unit == NULL)
        return -EINVAL;
    if (read != 0)
        return read;
    return decimal_scale(&value, unit->factor, 1ULL << 63, bytes);
}

int time_parse_ms(const char *text, uint32_t *milliseconds)
{
    enum { DAYS_24_MS = 24 * 24 * 3600 * 1000 }; /* below 2^31, so that a time fits the kernel's and poll's int */
    struct decimal value;
    uint64_t result;
    if (strcmp(text, "0") == 0) {
        *milliseconds = 0;
        return 0;
    }
    int read = decimal_read(&text, &value);
    if (read == -EINVAL)
        return read;
    if (text[0] == ' ' && text[1] != '\0')
        text++;
    const struct unit *unit = unit_find(time_units, sizeof time_units / sizeof *time_units, text);
    if (unit == NULL)
        return -EINVAL;
    if (read == 0)
        read = decimal_scale(&value, unit->factor, (uint64_t)DAYS_24_MS + 1, &result);
    if (read != 0)
        return read;
    *milliseconds = (uint32_t)result;
    return 0;
}

char *size_format(uint64_t bytes, char *text, size_t text_bytes)
{
    static const char *const names[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    enum { LAST = sizeof names / sizeof *names - 1 };
    unsigned unit = 0;
    while (unit < LAST && bytes >> (10 * (unit + 1)) != 0)
        unit++;
    uint64_t one = 1ULL << (10 * unit);
    uint64_t whole = bytes >> (10 * unit), rest = bytes & (one - 1);
    if (rest == 0) {
        (void)snprintf(text, text_bytes, "%llu %s", (unsigned long long)whole, names[unit]);
        return text;
    }
    uint64_t hundredths = (uint64_t)(((unsigned __int128)rest * 100 + one / 2) / one);
    if (hundredths == 100) {
        hundredths = 0;
        whole++;
    }
    if (whole == 1024 && unit < LAST) { /* 1023.999 MiB is 1.00 GiB */
        whole = 1;
        unit++;
    }
    (void)snprintf(text, text_bytes, "%llu.%02llu %s", (unsigned long long)whole, (unsigned long long)hundredths,
                   names[unit]);
    return text;
}
