/*
 * cubudget watch: a line for each event and each change of pressure, as they happen, until it is interrupted or nobody reads it. It sleeps
 * on the ledger's own words, so it costs nothing while nothing happens but a look a second for what nobody tells: the dead, a ledger
 * that was replaced, a reader that has gone.
 */
#include "config.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "cli/command.h"
#include "cli/event_text.h"
#include "cli/options.h"
#include "cli/output.h"
#include "platform/log.h"

enum {
    KEY_LEDGER = 0x100,
    KEY_JSON,
    KEY_ALL,
    LOOK_MS = 1000,
    NAP_MS = 200,                           /* one sleep: how late a signal is noticed that comes just before it */
    KNOWN = LEDGER_LEVELS * LEDGER_HISTORY, /* changes of pressure that the ledger keeps at least */
    WHOLE_MS = 200, /* how long an event may take to be written; one whose writer died never is */
};

struct watch_options {
    struct options_base base;
    const char *ledger;
    bool json, all;
};

struct watching {
    const struct watch_options *options;
    struct ledger_place place;
    struct ledger ledger;
    bool open;
    struct ledger_watch held[LEDGER_DEVICES];
    uint32_t generations[LEDGER_DEVICES]; /* the last change that was told */
    uint64_t next;                        /* the event to be read next */
    uint64_t unwhole_ms;                  /* since when that is not whole; 0: it was not looked at yet */
};

static volatile sig_atomic_t interrupted;

static void interrupt(int signal)
{
    (void)signal;
    interrupted = 1;
}

static uint64_t clock_ns(clockid_t clock)
{
    struct timespec now;
    (void)clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000000000U + (uint64_t)now.tv_nsec;
}

/* --- options ------------------------------------------------------------------------------------------------------------- */

static error_t watch_parse(int key, char *argument, struct argp_state *state)
{
    struct watch_options *options = state->input;
    switch (key) {
    case KEY_LEDGER:
        options->ledger = argument;
        return 0;
    case KEY_JSON:
        options->json = true;
        return 0;
    case KEY_ALL:
        options->all = true;
        return 0;
    case ARGP_KEY_ARG:
        return argument_refuse(&options->base, state, argument);
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static enum options_result watch_read(struct watch_options *options, int argc, char **argv)
{
    static const struct argp_option list[] = {
        {"all", KEY_ALL, NULL, 0, "begin with what has happened before, as far as it is known", 0},
        {"json", KEY_JSON, NULL, 0, "as JSON, one object a line, sizes in bytes", 0},
        {"ledger", KEY_LEDGER, "NAME", 0, "the ledger of that name (CUBUDGET_LEDGER; \"default\")", 0},
        {0},
    };
    static const struct argp argp = {
        .options = list,
        .parser = watch_parse,
        .doc = "Prints a line for each event and each change of pressure, from now on, until it is interrupted."
               "\vEvents are: ask, decline, evict, restore, wait, refuse, reap, lost; see man cubudget-watch.",
    };
    return options_read(&argp, &options->base, false, argc, argv);
}

/* --- devices ------------------------------------------------------------------------------------------------------------- */

/* Watches devices that are not watched yet. `fresh`: they are new, and what happened to them is news. */
static void devices_watch(struct watching *watching, bool fresh)
{
    for (unsigned device = 0; device < LEDGER_DEVICES; device++) {
        if (watching->held[device].page != NULL || !ledger_device_is_claimed(&watching->ledger, device))
            continue;
        uint32_t before = ledger_pressure_read(&watching->ledger, device).generation;
        if (ledger_watch_begin(&watching->ledger, device, &watching->held[device]) == 0)
            watching->generations[device] = fresh ? before : ledger_pressure_read(&watching->ledger, device).generation;
    }
}

static void devices_end(struct watching *watching)
{
    for (unsigned device = 0; device < LEDGER_DEVICES; device++)
        if (watching->held[device].page != NULL)
            ledger_watch_end(&watching->ledger, &watching->held[device]);
}

/* What is used is known of the last change alone: of those before it, it is over. */
static void pressure_tell(struct watching *watching, unsigned device, unsigned level, bool last)
{
    const struct ledger_event_record event = {.kind = LEDGER_EVENT_PRESSURE,
                                              .time_ns = clock_ns(CLOCK_REALTIME),
                                              .bytes =
                                                  last ? ledger_used(&watching->ledger, device) : EVENT_BYTES_UNKNOWN,
                                              .row = -1,
                                              .slot = -1,
                                              .device = (int)device,
                                              .other = (int)level};
    (void)event_print(&watching->ledger, &event, watching->options->json);
}

/* Every change since the last that was told, in order. */
static void pressures_tell(struct watching *watching)
{
    for (unsigned device = 0; device < LEDGER_DEVICES; device++) {
        uint32_t untold = 0, now = ledger_pressure_read(&watching->ledger, device).generation;
        if (watching->held[device].page == NULL)
            continue;
        if (now - watching->generations[device] > KNOWN) { /* however many a damaged word makes of them */
            untold = now - watching->generations[device] - KNOWN;
            watching->generations[device] = now - KNOWN;
        }
        while (watching->generations[device] != now) {
            int level = ledger_pressure_told(&watching->ledger, device, ++watching->generations[device]);
            if (level >= 0)
                pressure_tell(watching, device, (unsigned)level, watching->generations[device] == now);
            else
                untold++;
        }
        if (untold != 0)
            (void)fault_say(0, "device %u: %u changes of pressure came faster than they could be told", device, untold);
    }
}

/* --- events -------------------------------------------------------------------------------------------------------------- */

/* An event that is not whole: its writer is at it, or has died. True: it is not worth waiting for. */
static bool unwhole_is_over(struct watching *watching)
{
    uint64_t now_ms = clock_ns(CLOCK_MONOTONIC) / 1000000U;
    if (watching->unwhole_ms == 0)
        watching->unwhole_ms = now_ms;
    return now_ms - watching->unwhole_ms >= WHOLE_MS;
}

/* Prints what has happened. Returns whether one is being written. */
static bool events_tell(struct watching *watching)
{
    struct ledger_event_record event;
    uint64_t count = ledger_event_count(&watching->ledger);
    if (count >= LEDGER_EVENTS && watching->next <= count - LEDGER_EVENTS) {
        uint64_t oldest = count - LEDGER_EVENTS + 1;
        (void)fault_say(0, "%llu events came faster than they could be told",
                        (unsigned long long)(oldest - watching->next));
        watching->next = oldest;
    }
    for (; watching->next <= count; watching->next++) {
        if (ledger_event_read(&watching->ledger, watching->next, &event))
            (void)event_print(&watching->ledger, &event, watching->options->json);
        else if (!unwhole_is_over(watching))
            return true;
        watching->unwhole_ms = 0;
    }
    return false;
}

/* --- the ledger ---------------------------------------------------------------------------------------------------------- */

static void ledger_begin(struct watching *watching, bool fresh)
{
    uint64_t count = ledger_event_count(&watching->ledger);
    watching->open = true;
    watching->next = !fresh && !watching->options->all ? count + 1 : 1;
    if (watching->next == 1 && count >= LEDGER_EVENTS)
        watching->next = count - LEDGER_EVENTS + 1;
    watching->unwhole_ms = 0;
    devices_watch(watching, fresh);
}

/* The file is gone, or another: what was still written to it is told, then the next one is waited for. */
static void ledger_leave(struct watching *watching)
{
    (void)events_tell(watching);
    devices_end(watching);
    ledger_close(&watching->ledger);
    watching->open = false;
    (void)fflush(stdout);
    (void)fault_say(0, "the ledger '%s' of %s was removed; waiting for the next one", watching->place.name,
                    watching->place.directory);
}

static void ledger_await(struct watching *watching)
{
    const struct ledger_request request = {.directory = watching->place.directory, .name = watching->place.name};
    static char said[sizeof((struct ledger_fault *)0)->text]; /* what is wrong with it is said once */
    struct ledger_fault fault;
    int result = ledger_open(&watching->ledger, &request, &fault);
    if (result == 0) {
        (void)fault_say(0, "the ledger '%s' of %s is there again", watching->place.name, watching->place.directory);
        ledger_begin(watching, true);
        said[0] = '\0';
        return;
    }
    if (result != -ENOENT && strcmp(said, fault.text) != 0) {
        (void)fault_say(0, "%s", fault.text);
        (void)snprintf(said, sizeof said, "%s", fault.text);
    }
    for (unsigned slept_ms = 0; slept_ms < LOOK_MS && interrupted == 0; slept_ms += NAP_MS)
        (void)poll(NULL, 0, NAP_MS);
}

/* --- the loop ------------------------------------------------------------------------------------------------------------ */

/* Whether what is printed still arrives; a pipe whose reader has gone says so before anything is written. */
static bool output_lives(void)
{
    struct pollfd out = {.fd = STDOUT_FILENO};
    if (fflush(stdout) != 0 || ferror(stdout) != 0)
        return false;
    if (poll(&out, 1, 0) == 1 && (out.revents & POLLERR) != 0) {
        errno = EPIPE;
        return false;
    }
    return true;
}

/* In naps: a signal between the last look at `interrupted` and the system call does not end that one. */
static void watch_sleep(struct watching *watching, const struct ledger_follow *follow, unsigned most_ms)
{
    int result = -ETIMEDOUT;
    for (unsigned slept_ms = 0; slept_ms < most_ms && interrupted == 0 && result == -ETIMEDOUT; slept_ms += NAP_MS)
        result = ledger_follow_sleep(&watching->ledger, follow, NAP_MS);
}

static void watch_step(struct watching *watching)
{
    struct ledger_follow follow;
    ledger_follow_look(&watching->ledger, &follow);
    (void)ledger_reap(&watching->ledger);
    devices_watch(watching, true);
    for (unsigned device = 0; device < LEDGER_DEVICES; device++)
        if (watching->held[device].page != NULL)
            ledger_pressure_publish(&watching->ledger, device);
    bool unwhole = events_tell(watching);
    pressures_tell(watching);
    if (ledger_is_current(&watching->ledger) == 0)
        ledger_leave(watching);
    else if (output_lives() && interrupted == 0)
        watch_sleep(watching, &follow, unwhole ? WHOLE_MS : LOOK_MS);
}

static int watch_follow(struct watching *watching)
{
    const struct sigaction ending = {.sa_handler = interrupt}; /* without SA_RESTART: it ends a sleep */
    (void)sigaction(SIGINT, &ending, NULL);
    (void)sigaction(SIGTERM, &ending, NULL);
    (void)signal(SIGPIPE, SIG_IGN);
    while (interrupted == 0 && output_lives()) {
        if (watching->open)
            watch_step(watching);
        else
            ledger_await(watching);
    }
    if (watching->open) {
        devices_end(watching);
        ledger_close(&watching->ledger);
    }
    if (interrupted == 0 && ferror(stdout) == 0) /* a reader that has gone, seen before anything was written */
        return EXIT_CHECK_FAILED;
    return output_finish(0);
}

static int watch_run(int argc, char **argv)
{
    static struct watching watching; /* too large for a stack that somebody may have limited */
    struct watch_options options = {0};
    enum options_result result = watch_read(&options, argc, argv);
    if (result != OPTIONS_GOOD)
        return options_status(result);
    watching.options = &options;
    int status = ledger_place_find(options.ledger, &watching.place);
    if (status == 0)
        status = ledger_open_existing(&watching.place, &watching.ledger);
    if (status != 0)
        return status;
    ledger_begin(&watching, false);
    return watch_follow(&watching);
}

const struct command command_watch = {"watch", "[--all] [--json]", "tell of events as they happen", watch_run};
