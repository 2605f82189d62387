/*
 * The settings in CUBUDGET_*, validated. Called once by the library's constructor and by the command. Reads the
 * environment and nothing else; no heap, no locale, no locks.
 *
 * Each variable is one line of a table: its name, how its value is read, and where it goes.
 */
#include "config.h"

#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <unistd.h>
#include "platform/env.h"
#include "platform/size.h"
#include "platform/words.h"

enum { QUOTE_BYTES = 60 }; /* how much of a bad value is repeated */

static int fault_set(struct settings_fault *fault, const char *format, ...) __attribute__((format(printf, 2, 3)));

static int fault_set(struct settings_fault *fault, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(fault->text, sizeof fault->text, format, arguments);
    va_end(arguments);
    return -EINVAL;
}

size_t character_length(const unsigned char *text, size_t left)
{
    unsigned first = text[0];
    if (first < 0x80)
        return first >= 0x20 && first != 0x7F ? 1 : 0;
    size_t length = first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : 2;
    static const uint32_t least[] = {0, 0, 0xA0, 0x800, 0x10000}; /* below: overlong, or a C1 control */
    if (first < 0xC2 || first > 0xF4 || length > left)
        return 0;
    uint32_t point = first & (0xFFU >> (length + 1));
    for (size_t i = 1; i < length; i++) {
        if ((text[i] & 0xC0) != 0x80)
            return 0;
        point = point << 6 | (text[i] & 0x3FU);
    }
    if (point < least[length] || (point >= 0xD800 && point <= 0xDFFF) || point > 0x10FFFF)
        return 0;
    return length;
}

int name_validate(const char *what, const char *name, struct settings_fault *fault)
{
    static const char remedy[] = "write 1 to 63 bytes of UTF-8 without '/' and control characters";
    size_t bytes = strlen(name);
    bool good = bytes > 0 && bytes < LEDGER_NAME_BYTES && strcmp(name, ".") != 0 && strcmp(name, "..") != 0;
    for (size_t i = 0, step; good && i < bytes; i += step) {
        step = character_length((const unsigned char *)name + i, bytes - i);
        good = step != 0 && name[i] != '/';
    }
    if (good)
        return 0;
    return fault_set(fault, "%s: '%.*s' is not a name; %s", what, QUOTE_BYTES, name, remedy);
}

void name_from_path(const char *path, char name[LEDGER_NAME_BYTES])
{
    const char *base = strrchr(path, '/');
    base = base != NULL ? base + 1 : path;
    size_t left = strlen(base), used = 0;
    while (left > 0) {
        size_t step = character_length((const unsigned char *)base, left);
        size_t bytes = step != 0 ? step : 1;
        if (used + bytes >= LEDGER_NAME_BYTES)
            break;
        if (step != 0)
            memcpy(name + used, base, bytes);
        else
            name[used] = '_';
        used += bytes;
        base += bytes;
        left -= bytes;
    }
    name[used] = '\0';
    if (used == 0 || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
        memcpy(name, "process", sizeof "process");
}

void name_from_executable(char name[LEDGER_NAME_BYTES])
{
    static const char deleted[] = " (deleted)";
    char path[PATH_MAX];
    ssize_t length = readlink("/proc/self/exe", path, sizeof path - 1);
    if (length <= 0) { /* no /proc: the name the kernel was given */
        const char *given = (const char *)getauxval(AT_EXECFN);
        (void)snprintf(path, sizeof path, "%s", given != NULL ? given : "process");
    } else {
        path[length] = '\0';
        size_t tail = sizeof deleted - 1;
        if ((size_t)length > tail && strcmp(path + length - tail, deleted) == 0)
            path[(size_t)length - tail] = '\0';
    }
    name_from_path(path, name);
}

/* --- one reader a kind of value ---------------------------------------------------------------------------------- */

struct variable;
typedef int variable_reader(const struct variable *variable, const char *value, struct settings *settings,
                            struct settings_fault *fault);

struct variable {
    const char *name;
    variable_reader *read;
    size_t value_offset; /* of the field in struct settings */
    size_t has_offset;   /* of its has_ twin; SIZE_MAX: none */
};

static void *field_of(struct settings *settings, size_t offset)
{
    return (char *)settings + offset;
}

static void present_set(const struct variable *variable, struct settings *settings)
{
    if (variable->has_offset != SIZE_MAX)
        *(bool *)field_of(settings, variable->has_offset) = true;
}

static int size_read(const struct variable *variable, const char *value, struct settings *settings,
                     struct settings_fault *fault)
{
    uint64_t bytes;
    int result = size_parse(value, &bytes);
    if (result == -ERANGE)
        return fault_set(fault, "%s: '%.*s' is too large; write a size below 8388608 TiB", variable->name, QUOTE_BYTES,
                         value);
    if (result != 0)
        return fault_set(fault, "%s: '%.*s' is not a size; write for example 512MiB or 8GiB", variable->name,
                         QUOTE_BYTES, value);
    if (bytes == 0)
        return fault_set(fault, "%s: '%.*s' is nothing; write a size above 0, such as 8GiB, or leave it unset",
                         variable->name, QUOTE_BYTES, value);
    *(uint64_t *)field_of(settings, variable->value_offset) = bytes;
    present_set(variable, settings);
    return 0;
}

/* A reserve of nothing gives up the one that is there. */
static int reserve_read(const struct variable *variable, const char *value, struct settings *settings,
                        struct settings_fault *fault)
{
    uint64_t bytes;
    if (size_parse(value, &bytes) != 0 || bytes != 0)
        return size_read(variable, value, settings, fault);
    settings->reserve_bytes = 0;
    settings->has_reserve = true;
    return 0;
}

static int name_read(const struct variable *variable, const char *value, struct settings *settings,
                     struct settings_fault *fault)
{
    int result = name_validate(variable->name, value, fault);
    if (result == 0)
        memcpy(field_of(settings, variable->value_offset), value, strlen(value) + 1);
    return result;
}

/* Read at once, by the command, in the directory it was written for. */
static int file_read(const struct variable *variable, const char *value, struct settings *settings,
                     struct settings_fault *fault)
{
    (void)fault;
    *(const char **)field_of(settings, variable->value_offset) = value;
    return 0;
}

static int path_read(const struct variable *variable, const char *value, struct settings *settings,
                     struct settings_fault *fault)
{
    if (*value != '/')
        return fault_set(fault,
                         "%s: '%.*s' is not an absolute path; programs change their directory, so write "
                         "one that begins with /",
                         variable->name, QUOTE_BYTES, value);
    if (strlen(value) >= PATH_MAX)
        return fault_set(fault, "%s: '%.*s...' is longer than a path can be; choose a shorter one", variable->name,
                         QUOTE_BYTES, value);
    *(const char **)field_of(settings, variable->value_offset) = value;
    return 0;
}

static int wait_read(const struct variable *variable, const char *value, struct settings *settings,
                     struct settings_fault *fault)
{
    int result = time_parse_ms(value, (uint32_t *)field_of(settings, variable->value_offset));
    if (result == -ERANGE)
        return fault_set(fault, "%s: '%.*s' is too long; write at most 24 days (34560m)", variable->name, QUOTE_BYTES,
                         value);
    if (result != 0)
        return fault_set(fault, "%s: '%.*s' is not a time; write a number with ms, s or m, such as 30s, or 0",
                         variable->name, QUOTE_BYTES, value);
    return 0;
}

/* Digits alone, at most 3 of them. -1: something else. */
static int number_read(const char *text, size_t length)
{
    int number = 0;
    if (length == 0 || length > 3)
        return -1;
    for (size_t i = 0; i < length; i++) {
        if (text[i] < '0' || text[i] > '9')
            return -1;
        number = number * 10 + (text[i] - '0');
    }
    return number;
}

static int priority_read(const struct variable *variable, const char *value, struct settings *settings,
                         struct settings_fault *fault)
{
    int number = strcmp(value, "max") == 0 ? SETTINGS_PRIORITY_MAX : number_read(value, strlen(value));
    if (number < 0 || (number > 100 && strcmp(value, "max") != 0))
        return fault_set(fault, "%s: '%.*s' is not a priority; write 0 (evicted first) to 100, or max (never)",
                         variable->name, QUOTE_BYTES, value);
    *(uint32_t *)field_of(settings, variable->value_offset) = (uint32_t)number;
    present_set(variable, settings);
    return 0;
}

static int compute_read(const struct variable *variable, const char *value, struct settings *settings,
                        struct settings_fault *fault)
{
    const char *dot = strchr(value, '.');
    int major = number_read(value, dot != NULL ? (size_t)(dot - value) : strlen(value));
    int minor = dot == NULL ? 0 : strlen(dot + 1) == 1 ? number_read(dot + 1, 1) : -1;
    if (major < 1 || minor < 0)
        return fault_set(fault, "%s: '%.*s' is not a compute capability; write one such as 7.5", variable->name,
                         QUOTE_BYTES, value);
    *(uint32_t *)field_of(settings, variable->value_offset) = (uint32_t)(10 * major + minor);
    return 0;
}

/* The index of value in a list of words, or -1. */
static int word_find(const char *const *words, int count, const char *value)
{
    for (int i = 0; i < count; i++)
        if (strcmp(words[i], value) == 0)
            return i;
    return -1;
}

static int evict_read(const struct variable *variable, const char *value, struct settings *settings,
                      struct settings_fault *fault)
{
    static const char *const words[] = {[EVICT_AUTO] = "auto", [EVICT_OFF] = "off", [EVICT_CHECKPOINT] = "checkpoint"};
    int found = word_find(words, sizeof words / sizeof *words, value);
    if (found < 0)
        return fault_set(fault, "%s: '%.*s' is not a mode; write auto, off or checkpoint", variable->name, QUOTE_BYTES,
                         value);
    settings->evict = (enum evict_mode)found;
    return 0;
}

static int log_read(const struct variable *variable, const char *value, struct settings *settings,
                    struct settings_fault *fault)
{
    static const char *const words[] = {
        [LOG_ERROR] = "error", [LOG_WARN] = "warn", [LOG_INFO] = "info", [LOG_DEBUG] = "debug"};
    int found = word_find(words, sizeof words / sizeof *words, value);
    if (found < 0)
        return fault_set(fault, "%s: '%.*s' is not a level; write error, warn, info or debug", variable->name,
                         QUOTE_BYTES, value);
    settings->log_level = (enum log_level)found;
    return 0;
}

static int simulate_read(const struct variable *variable, const char *value, struct settings *settings,
                         struct settings_fault *fault)
{
#ifdef ENABLE_SIMULATOR
    (void)variable;
    (void)fault;
    settings->simulate = true;
    settings->simulate_options = value;
    return 0;
#else
    (void)settings;
    return fault_set(fault,
                     "%s: '%.*s' asks for the simulator, which this build is without; leave it out, or build "
                     "with --enable-simulator",
                     variable->name, QUOTE_BYTES, value);
#endif
}

#define FIELD(member) offsetof(struct settings, member)
static const struct variable variables[] = {
    {"CUBUDGET_BUDGET", size_read, FIELD(budget_bytes), FIELD(has_budget)},
    {"CUBUDGET_LIMIT", size_read, FIELD(limit_bytes), FIELD(has_limit)},
    {"CUBUDGET_RESERVE", reserve_read, FIELD(reserve_bytes), FIELD(has_reserve)},
    {"CUBUDGET_HOST_LIMIT", size_read, FIELD(host_limit_bytes), FIELD(has_host_limit)},
    {"CUBUDGET_PRIORITY", priority_read, FIELD(priority), FIELD(has_priority)},
    {"CUBUDGET_WAIT", wait_read, FIELD(wait_ms), SIZE_MAX},
    {"CUBUDGET_MIN_COMPUTE", compute_read, FIELD(min_compute), SIZE_MAX},
    {"CUBUDGET_EVICT", evict_read, FIELD(evict), SIZE_MAX},
    {"CUBUDGET_LOG", log_read, FIELD(log_level), SIZE_MAX},
    {"CUBUDGET_SLOT", name_read, FIELD(slot), SIZE_MAX},
    {"CUBUDGET_LEDGER", name_read, FIELD(ledger), SIZE_MAX},
    {"CUBUDGET_DIR", path_read, FIELD(directory), SIZE_MAX},
    {"CUBUDGET_CONFIG", file_read, FIELD(config), SIZE_MAX},
    {"CUBUDGET_LOG_FILE", path_read, FIELD(log_file), SIZE_MAX},
    {"CUBUDGET_SIMULATE", simulate_read, 0, SIZE_MAX},
};
#undef FIELD
enum { VARIABLES = sizeof variables / sizeof *variables };

/* --- what is no setting -------------------------------------------------------------------------------------------- */

bool settings_unknown_next(size_t *at, char text[SETTINGS_UNKNOWN_BYTES])
{
    static const char prefix[] = "CUBUDGET_";
    /* Of our own making: the tests' and what `cubudget run` leaves for its program. */
    static const char *const ours[] = {SETTINGS_WARNED, "CUBUDGET_TESTPOINT",
                                       "CUBUDGET_LIBRARY"}; /* the last: Python's */
    const char *names[VARIABLES + 1] = {0};
    if (getenv(SETTINGS_WARNED) != NULL)
        return false;
    for (size_t i = 0; i < VARIABLES; i++)
        names[i] = variables[i].name;
    for (; environ != NULL && environ[*at] != NULL; ++*at) {
        char name[64] = "";
        if (strncmp(environ[*at], prefix, sizeof prefix - 1) != 0)
            continue;
        for (size_t i = 0; i < sizeof name - 1 && environ[*at][i] != '\0' && environ[*at][i] != '='; i++)
            name[i] = environ[*at][i];
        bool known = false;
        for (size_t i = 0; i < sizeof ours / sizeof *ours; i++)
            known = known || strcmp(name, ours[i]) == 0;
        for (size_t i = 0; i < VARIABLES; i++)
            known = known || strcmp(name, names[i]) == 0;
        if (known)
            continue;
        const char *nearest = words_nearest(name, names);
        if (nearest != NULL)
            (void)snprintf(text, SETTINGS_UNKNOWN_BYTES, "%s is no setting and does nothing; did you mean %s?", name,
                           nearest);
        else
            (void)snprintf(text, SETTINGS_UNKNOWN_BYTES, "%s is no setting and does nothing; man cubudget lists them",
                           name);
        ++*at;
        return true;
    }
    return false;
}

/* --- all of them ------------------------------------------------------------------------------------------------------ */

int setting_read(const char *variable, const char *shown, const char *value, struct settings *settings,
                 struct settings_fault *fault)
{
    fault->text[0] = '\0';
    for (size_t i = 0; i < VARIABLES; i++) {
        struct variable as_shown = variables[i];
        if (strcmp(variables[i].name, variable) != 0)
            continue;
        as_shown.name = shown;
        return as_shown.read(&as_shown, value, settings, fault);
    }
    return fault_set(fault, "%s: no such setting", shown);
}

/* "a above b" is an error: both are named with their values. */
static int order_check(const char *name, uint64_t bytes, const char *bound_name, uint64_t bound,
                       struct settings_fault *fault)
{
    char value[SIZE_TEXT_BYTES], bound_value[SIZE_TEXT_BYTES];
    if (bytes <= bound)
        return 0;
    return fault_set(fault, "%s: %s is above %s, %s; lower the one or raise the other", name,
                     size_format(bytes, value, sizeof value), bound_name,
                     size_format(bound, bound_value, sizeof bound_value));
}

static int settings_check(const struct settings *settings, struct settings_fault *fault)
{
    int result = 0;
    if (settings->has_limit && settings->has_budget)
        result = order_check("CUBUDGET_LIMIT", settings->limit_bytes, "CUBUDGET_BUDGET", settings->budget_bytes, fault);
    if (result == 0 && settings->has_reserve && settings->has_budget)
        result =
            order_check("CUBUDGET_RESERVE", settings->reserve_bytes, "CUBUDGET_BUDGET", settings->budget_bytes, fault);
    if (result == 0 && settings->has_reserve && settings->has_limit)
        result =
            order_check("CUBUDGET_RESERVE", settings->reserve_bytes, "CUBUDGET_LIMIT", settings->limit_bytes, fault);
    return result;
}

int settings_read(struct settings *settings, struct settings_fault *fault)
{
    *settings = (struct settings){
        .budget_bytes = SETTINGS_DEFAULT_BUDGET_BYTES,
        .priority = SETTINGS_DEFAULT_PRIORITY,
        .wait_ms = SETTINGS_DEFAULT_WAIT_MS,
        .min_compute = SETTINGS_DEFAULT_MIN_COMPUTE,
        .evict = EVICT_AUTO,
        .log_level = LOG_WARN,
        .ledger = "default",
    };
    fault->text[0] = '\0';
    for (size_t i = 0; i < VARIABLES; i++) {
        const char *value = getenv(variables[i].name);
        if (value == NULL)
            continue;
        if (*value == '\0' && variables[i].read != simulate_read)
            return fault_set(fault, "%s: '' is empty; give it a value or unset it", variables[i].name);
        int result = variables[i].read(&variables[i], value, settings, fault);
        if (result != 0)
            return result;
    }
    return settings_check(settings, fault);
}
