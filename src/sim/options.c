/* The options of a simulated machine; see options.h. */
#include "sim/options.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim/machine.h"

/* The defaults are one H100-like device; the context's size is what one cost on an H200 (526.8 MiB, rounded up). */
#define DEFAULT_MEMORY_BYTES  (24ULL << 30)
#define DEFAULT_CONTEXT_BYTES (527ULL << 20)

static const char keys[] = "memory, devices, machine, compute, baseline, context, module, release, name, host, lock, "
                           "checkpoint, restore, fail, "
                           "fail-after and hang";

/* The factor of a unit of size, or 0. */
static uint64_t unit_bytes(const char *unit)
{
    static const struct {
        const char *text;
        uint64_t bytes;
    } units[] = {
        {"", 1},
        {"b", 1},
        {"k", 1ULL << 10},
        {"kib", 1ULL << 10},
        {"kb", 1000},
        {"m", 1ULL << 20},
        {"mib", 1ULL << 20},
        {"mb", 1000000},
        {"g", 1ULL << 30},
        {"gib", 1ULL << 30},
        {"gb", 1000000000},
        {"t", 1ULL << 40},
        {"tib", 1ULL << 40},
        {"tb", 1000000000000ULL},
    };
    for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++)
        if (strcasecmp(unit, units[i].text) == 0)
            return units[i].bytes;
    return 0;
}

/* Digits, maybe a fraction that comes out at whole bytes, maybe a blank, a unit. 0 or -EINVAL. */
static int size_read(const char *text, uint64_t *bytes)
{
    const char *end = text;
    uint64_t whole = 0, fraction = 0, scale = 1;
    if (!isdigit((unsigned char)*text))
        return -EINVAL;
    for (; isdigit((unsigned char)*end); end++)
        if (__builtin_mul_overflow(whole, 10u, &whole) || __builtin_add_overflow(whole, (uint64_t)(*end - '0'), &whole))
            return -EINVAL;
    if (*end == '.') {
        if (!isdigit((unsigned char)end[1]))
            return -EINVAL;
        for (end++; isdigit((unsigned char)*end) && scale < 1000000; end++) {
            fraction = fraction * 10 + (uint64_t)(*end - '0');
            scale *= 10;
        }
    }
    uint64_t unit = unit_bytes(*end == ' ' ? end + 1 : end);
    uint64_t result = 0;
    if (!unit || (fraction * unit) % scale != 0 || __builtin_mul_overflow(whole, unit, &result) ||
        __builtin_add_overflow(result, fraction * unit / scale, &result) || result > (uint64_t)INT64_MAX)
        return -EINVAL;
    *bytes = result;
    return 0;
}

/* A number with ms, s or m; "0" alone. 0 or -EINVAL. */
static int time_read(const char *text, uint32_t *milliseconds)
{
    char *end;
    if (!isdigit((unsigned char)*text))
        return -EINVAL;
    errno = 0;
    unsigned long value = strtoul(text, &end, 10);
    unsigned long factor = strcmp(end, "ms") == 0  ? 1
                           : strcmp(end, "s") == 0 ? 1000
                           : strcmp(end, "m") == 0 ? 60000
                                                   : 0;
    if (value == 0 && *end == '\0')
        factor = 1;
    if (errno || !factor || value > 86400000 / factor)
        return -EINVAL;
    *milliseconds = (uint32_t)(value * factor);
    return 0;
}

static int name_read(const char *text, char *name, size_t name_bytes)
{
    size_t length = strlen(text);
    if (length == 0 || length >= name_bytes || *text == '.')
        return -EINVAL;
    for (size_t i = 0; i < length; i++)
        if (!isalnum((unsigned char)text[i]) && !strchr("._-", text[i]))
            return -EINVAL;
    memcpy(name, text, length + 1);
    return 0;
}

static int compute_read(const char *text, struct sim_options *options)
{
    unsigned major, minor;
    char rest;
    if (sscanf(text, "%2u.%1u%c", &major, &minor, &rest) != 2 || major == 0 || !isdigit((unsigned char)*text))
        return -EINVAL;
    options->compute_major = major;
    options->compute_minor = minor;
    return 0;
}

static int devices_read(const char *text, uint32_t *devices)
{
    char *end;
    unsigned long value = isdigit((unsigned char)*text) ? strtoul(text, &end, 10) : 0;
    if (value < 1 || value > SIM_DEVICES || *end)
        return -EINVAL;
    *devices = (uint32_t)value;
    return 0;
}

/* TIME, SIZE/s or TIME+SIZE/s */
static int pace_read(const char *text, struct sim_pace *pace)
{
    char copy[64], *rate = copy;
    size_t length = strlen(text);
    if (length == 0 || length >= sizeof(copy))
        return -EINVAL;
    *pace = (struct sim_pace){0};
    memcpy(copy, text, length + 1);
    if (length < 2 || strcmp(copy + length - 2, "/s") != 0)
        return time_read(copy, &pace->milliseconds);
    copy[length - 2] = '\0';
    char *plus = strchr(copy, '+');
    if (plus) {
        *plus = '\0';
        rate = plus + 1;
        if (time_read(copy, &pace->milliseconds) != 0)
            return -EINVAL;
    }
    return size_read(rate, &pace->second_bytes) == 0 && pace->second_bytes > 0 ? 0 : -EINVAL;
}

/* CALL:N:CODE, of a hang CALL:N */
static int fault_read(const char *text, bool after, bool hang, struct sim_options *options)
{
    const char *colon = strchr(text, ':');
    if (!colon || colon == text || options->fault_count == SIM_FAULTS ||
        (size_t)(colon - text) >= SIM_CALL_NAME_BYTES || !isdigit((unsigned char)colon[1]))
        return -EINVAL;
    struct sim_fault fault = {.call = "", .after = after};
    memcpy(fault.call, text, (size_t)(colon - text));
    char *end;
    errno = 0;
    fault.nth = strtoull(colon + 1, &end, 10);
    if (errno || (hang ? *end != '\0' : *end != ':' || !isdigit((unsigned char)end[1])))
        return -EINVAL;
    unsigned long code = hang ? 0 : strtoul(end + 1, &end, 10);
    if ((code < 1 && !hang) || code > 9999 || *end)
        return -EINVAL;
    fault.code = (int)code;
    options->faults[options->fault_count++] = fault;
    return 0;
}

static int text_read(const char *text, char *name, size_t name_bytes)
{
    size_t length = strlen(text);
    if (length == 0 || length >= name_bytes)
        return -EINVAL;
    for (size_t i = 0; i < length; i++)
        if ((unsigned char)text[i] < ' ')
            return -EINVAL;
    memcpy(name, text, length + 1);
    return 0;
}

static int sized_read(const char *value, uint64_t *bytes, uint64_t least_bytes, bool *given)
{
    uint64_t read_bytes;
    if (size_read(value, &read_bytes) != 0 || read_bytes < least_bytes || read_bytes > 64ULL << 40)
        return -EINVAL;
    *bytes = read_bytes;
    *given = true;
    return 0;
}

/* One option of the checkpoint, likewise. */
static int checkpoint_option_read(const char *key, const char *value, struct sim_options *options,
                                  const char **expected)
{
    if (strcmp(key, "host") == 0) {
        *expected = "a size such as 64GiB";
        return sized_read(value, &options->host_bytes, 0, &options->host_given);
    }
    if (strcmp(key, "lock") == 0) {
        *expected = "a time such as 1ms";
        return time_read(value, &options->lock_ms);
    }
    *expected = "a time, bytes a second or both, such as 300ms, 2GiB/s or 300ms+2GiB/s";
    if (strcmp(key, "checkpoint") == 0)
        return pace_read(value, &options->checkpoint);
    return strcmp(key, "restore") == 0 ? pace_read(value, &options->restore) : -ENOENT;
}

/* One option. 0; -EINVAL with what is expected in *expected; -ENOENT: no such key. */
static int option_read(const char *key, const char *value, struct sim_options *options, const char **expected)
{
    if (strcmp(key, "memory") == 0) {
        *expected = "a size of 1MiB to 64TiB such as 24GiB";
        return sized_read(value, &options->memory_bytes, 1 << 20, &options->memory_given);
    }
    if (strcmp(key, "baseline") == 0) {
        *expected = "a size such as 600MiB";
        return sized_read(value, &options->baseline_bytes, 0, &options->baseline_given);
    }
    if (strcmp(key, "context") == 0) {
        *expected = "a size such as 527MiB";
        return sized_read(value, &options->context_bytes, 0, &options->context_given);
    }
    if (strcmp(key, "module") == 0) {
        bool given;
        *expected = "a size such as 83MiB";
        return sized_read(value, &options->module_bytes, 0, &given);
    }
    if (strcmp(key, "devices") == 0) {
        *expected = "a number from 1 to 16";
        options->devices_given = true;
        return devices_read(value, &options->devices);
    }
    if (strcmp(key, "machine") == 0) {
        *expected = "a name of letters, digits, '.', '_' and '-', 63 at most";
        return name_read(value, options->machine, sizeof(options->machine));
    }
    if (strcmp(key, "compute") == 0) {
        *expected = "a compute capability such as 9.0";
        options->compute_given = true;
        return compute_read(value, options);
    }
    if (strcmp(key, "release") == 0) {
        *expected = "a time such as 30ms";
        options->release_given = true;
        return time_read(value, &options->release_ms);
    }
    if (strcmp(key, "name") == 0) {
        *expected = "a text of 63 bytes at most";
        options->name_given = true;
        return text_read(value, options->name, sizeof(options->name));
    }
    if (strcmp(key, "fail") == 0 || strcmp(key, "fail-after") == 0) {
        *expected = "CALL:N:CODE such as cuMemAlloc_v2:3:2, N 0 for every call, sixteen at most";
        return fault_read(value, key[4] != '\0', false, options);
    }
    if (strcmp(key, "hang") == 0) {
        *expected = "CALL:N such as cuCheckpointProcessLock:1, N 0 for every call, sixteen faults at most";
        return fault_read(value, false, true, options);
    }
    return checkpoint_option_read(key, value, options, expected);
}

static int item_read(char *item, struct sim_options *options, char *fault, size_t fault_bytes)
{
    const char *expected = "";
    char *value = strchr(item, '=');
    if (!value) {
        snprintf(fault, fault_bytes, "'%s' is not KEY=VALUE: the keys are %s", item, keys);
        return -EINVAL;
    }
    *value++ = '\0';
    int result = option_read(item, value, options, &expected);
    if (result == -ENOENT)
        snprintf(fault, fault_bytes, "there is no option '%s': the keys are %s", item, keys);
    else if (result)
        snprintf(fault, fault_bytes, "%s='%s' is not valid: write %s", item, value, expected);
    return result ? -EINVAL : 0;
}

static void options_default(struct sim_options *options)
{
    memset(options, 0, sizeof(*options));
    strcpy(options->machine, "default");
    strcpy(options->name, "Simulated H100");
    options->memory_bytes = DEFAULT_MEMORY_BYTES;
    options->context_bytes = DEFAULT_CONTEXT_BYTES;
    options->host_bytes = UINT64_MAX;
    options->devices = 1;
    options->release_ms = 30;
    options->compute_major = 9;
}

int options_parse(const char *text, struct sim_options *options, char *fault, size_t fault_bytes)
{
    char copy[1024];
    options_default(options);
    if (!text || !*text)
        return 0;
    if (strlen(text) >= sizeof(copy)) {
        snprintf(fault, fault_bytes, "the text is too long: write 1023 bytes at most");
        return -EINVAL;
    }
    strcpy(copy, text);
    char *next = copy;
    while (next) {
        char *item = next;
        next = strchr(item, ',');
        if (next)
            *next++ = '\0';
        if (item_read(item, options, fault, fault_bytes) != 0)
            return -EINVAL;
    }
    if (options->baseline_bytes > options->memory_bytes) {
        snprintf(fault, fault_bytes, "baseline=%" PRIu64 " is more than memory=%" PRIu64 ": write a smaller one",
                 options->baseline_bytes, options->memory_bytes);
        return -EINVAL;
    }
    return 0;
}

int sim_options_check(const char *text, char *fault, size_t fault_bytes)
{
    struct sim_options options;
    return options_parse(text, &options, fault, fault_bytes);
}
