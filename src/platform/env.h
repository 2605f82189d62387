/*
 * The settings of a process: what CUBUDGET_* in the environment asks for, validated.
 *
 * Read once by the library's constructor (before anything else runs, so: no heap, no locks) and by the command,
 * which turns its options into the same variables first, so that both judge alike.
 */
#ifndef PLATFORM_ENV_H
#define PLATFORM_ENV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <cubudget/ledger_abi.h>

enum evict_mode { EVICT_AUTO, EVICT_OFF, EVICT_CHECKPOINT };
enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

#define SETTINGS_DEFAULT_BUDGET_BYTES (8ULL << 30)
enum {
    SETTINGS_DEFAULT_WAIT_MS = 30000,
    SETTINGS_DEFAULT_MIN_COMPUTE = 75, /* 10 * major + minor */
    SETTINGS_DEFAULT_PRIORITY = 50,
    SETTINGS_PRIORITY_MAX = 101, /* "max": never evicted */
};

/* A field is meaningful where its has_ twin is set or where a default is named. */
struct settings {
    bool has_budget, has_limit, has_reserve, has_priority, has_host_limit, simulate;
    uint64_t budget_bytes; /* default SETTINGS_DEFAULT_BUDGET_BYTES */
    uint64_t limit_bytes;
    uint64_t reserve_bytes;
    uint64_t host_limit_bytes;
    uint32_t priority;    /* default SETTINGS_DEFAULT_PRIORITY */
    uint32_t wait_ms;     /* default SETTINGS_DEFAULT_WAIT_MS */
    uint32_t min_compute; /* default SETTINGS_DEFAULT_MIN_COMPUTE */
    enum evict_mode evict;
    enum log_level log_level;       /* default LOG_WARN */
    char slot[LEDGER_NAME_BYTES];   /* empty: named after the executable */
    char ledger[LEDGER_NAME_BYTES]; /* default "default" */
    const char *directory;          /* CUBUDGET_DIR or NULL; the environment owns it */
    const char *config;             /* CUBUDGET_CONFIG or NULL */
    const char *log_file;           /* CUBUDGET_LOG_FILE or NULL */
    const char *simulate_options;   /* CUBUDGET_SIMULATE where it is set */
};

/* What is wrong with a setting, for one line: "CUBUDGET_BUDGET: '8 gigs' is not a size; write ..." */
struct settings_fault {
    char text[256];
};

/* Fills *settings from the environment. Returns 0, or -EINVAL with *fault filled (exit 78). An empty variable is an
 * error like any other bad value, except CUBUDGET_SIMULATE, whose empty value means "simulate, no options".
 * CUBUDGET_SIMULATE set in a build without the simulator is an error. */
int settings_read(struct settings *settings, struct settings_fault *fault);

/* The same for one value that is written elsewhere, judged as the variable's is: `shown` is what the fault calls it. */
int setting_read(const char *variable, const char *shown, const char *value, struct settings *settings,
                 struct settings_fault *fault);

/* A sentence about the next CUBUDGET_ variable that is none of ours, from environ[*at] on: a slip would otherwise be ignored in
 * silence. False: there is none, or SETTINGS_WARNED is set: `cubudget run` has told of them then, for all processes of its
 * program. No heap. */
#define SETTINGS_WARNED "CUBUDGET_WARNED"
enum { SETTINGS_UNKNOWN_BYTES = 192 };
bool settings_unknown_next(size_t *at, char text[SETTINGS_UNKNOWN_BYTES]);

/* The length of the UTF-8 character at text, which has `left` bytes; 0: none there, or a control character. */
size_t character_length(const unsigned char *text, size_t left);

/* Whether a name may be a slot's or a ledger's: 1 to 63 bytes of valid UTF-8, no '/', no control characters, not
 * "." or "..". Returns 0 or -EINVAL with *fault filled, naming `what` (a variable or an option) and the value. */
int name_validate(const char *what, const char *name, struct settings_fault *fault);

/* Writes the slot's name of a process that named none: the base name of its executable's path, made valid; and of this process,
 * by /proc/self/exe. */
void name_from_path(const char *path, char name[LEDGER_NAME_BYTES]);
void name_from_executable(char name[LEDGER_NAME_BYTES]);

#endif
