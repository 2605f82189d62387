/*
 * What evict and restore have in common; see moving.h. Who answers writes an event, which wakes the waiting; as answers may come without one
 * (a process dies), it looks every tenth of a second as well.
 */
#include "config.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "cli/moving.h"
#include "cli/output.h"
#include "cli/slots.h"
#include "platform/log.h"
#include "platform/size.h"

enum { KEY_LEDGER = 0x100, KEY_WAIT, LOOK_MS = 100 };

struct move_options {
    struct options_base base;
    const char *ledger, *slot, *wait;
    bool waits;
    uint32_t wait_ms; /* UINT32_MAX: as long as it takes */
};

static error_t move_parse(int key, char *argument, struct argp_state *state)
{
    struct move_options *options = state->input;
    switch (key) {
    case KEY_LEDGER:
        options->ledger = argument;
        return 0;
    case KEY_WAIT:
        options->waits = true;
        options->wait = argument;
        return 0;
    case ARGP_KEY_ARG:
        if (options->slot != NULL)
            return argument_refuse(&options->base, state, argument);
        options->slot = argument;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

/* 0 or an exit status after saying why; *shown where it was --help that was asked for. */
static int options_take(const struct move *move, struct move_options *options, int argc, char **argv, bool *shown)
{
    static const struct argp_option list[] = {
        {"wait", KEY_WAIT, "TIME", OPTION_ARG_OPTIONAL, "until all have answered, or that long at most", 0},
        {"ledger", KEY_LEDGER, "NAME", 0, "the ledger of that name (CUBUDGET_LEDGER; \"default\")", 0},
        {0},
    };
    const struct argp argp = {.options = list, .parser = move_parse, .args_doc = "SLOT", .doc = move->doc};
    struct settings settings = {.wait_ms = UINT32_MAX};
    struct settings_fault fault;
    enum options_result result = options_read(&argp, &options->base, false, argc, argv);
    *shown = result == OPTIONS_HELPED;
    if (result != OPTIONS_GOOD)
        return options_status(result);
    if (options->slot == NULL)
        return fault_say(EXIT_USAGE_ERROR, "no slot; write cubudget %s SLOT, see cubudget %s --help", move->name,
                         move->name);
    if (options->wait != NULL && *options->wait == '\0')
        return fault_say(EXIT_BAD_SETTINGS, "--wait: '' is empty; give it a time, or none: --wait");
    if (options->wait != NULL && setting_read("CUBUDGET_WAIT", "--wait", options->wait, &settings, &fault) != 0)
        return fault_say(EXIT_BAD_SETTINGS, "%s", fault.text);
    options->wait_ms = settings.wait_ms;
    options->waits = options->waits && options->wait_ms != 0;
    return 0;
}

/* --- the processes ------------------------------------------------------------------------------------------------------ */

struct party {
    unsigned count;
    struct moving *members; /* free() */
};

static struct moving *member_find(struct party *party, unsigned row)
{
    for (unsigned i = 0; i < party->count; i++)
        if (party->members[i].row == row)
            return &party->members[i];
    return NULL;
}

/* The living processes that have a row in the slot and a context. The bytes are those of all their rows, since all of them move. */
static int party_gather(struct ledger *ledger, const char *name, struct party *party)
{
    static struct snapshot snapshot; /* too large for a stack that somebody may have limited */
    if (snapshot_take(ledger, &snapshot) != 0)
        return fault_say(EXIT_NO_LEDGER, "no memory to look at %s; free some", ledger->path);
    party->members = calloc(snapshot.process_count + 1U, sizeof *party->members);
    for (unsigned i = 0; party->members != NULL && i < snapshot.process_count; i++) {
        const struct snapshot_process *process = &snapshot.processes[i];
        if (process->row_state != LEDGER_ROW_LIVE || process->process_state == LEDGER_PROCESS_NO_AGENT ||
            strcmp(snapshot.slots[process->slot].name, name) != 0 || member_find(party, process->leader) != NULL)
            continue;
        party->members[party->count++] =
            (struct moving){.row = process->leader, .pid = process->pid, .found = process->process_state};
    }
    for (unsigned i = 0; party->members != NULL && i < snapshot.process_count; i++) {
        struct moving *member = member_find(party, snapshot.processes[i].leader);
        if (member == NULL || snapshot.processes[i].row_state != LEDGER_ROW_LIVE)
            continue;
        member->used_bytes += snapshot.processes[i].used_bytes;
        member->evicted_bytes += snapshot.processes[i].evicted_bytes;
    }
    snapshot_free(&snapshot);
    return party->members != NULL ? 0 : fault_say(EXIT_NO_LEDGER, "no memory to look at %s; free some", ledger->path);
}

enum move_state move_end(struct moving *moving, enum move_state state, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(moving->text, sizeof moving->text, format, arguments);
    va_end(arguments);
    return state;
}

bool move_event_find(const struct ledger *ledger, const struct moving *moving, enum ledger_event_kind kind,
                     struct ledger_event_record *event)
{
    for (uint64_t number = ledger_event_count(ledger); number > moving->events_before; number--)
        if (ledger_event_read(ledger, number, event) && event->kind == kind && event->row == (int)moving->row &&
            event->pid == moving->pid)
            return true;
    return false;
}

/* --- waiting ------------------------------------------------------------------------------------------------------------ */

static uint64_t clock_ms(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* Says what came of it: of a refusal on standard error. */
static void member_say(const struct moving *member, const char *slot)
{
    if (member->state == MOVE_REFUSED)
        (void)fault_say(0, "slot '%s': process %u %s", slot, member->pid, member->text);
    else
        (void)printf("slot '%s': process %u %s\n", slot, member->pid, member->text);
    (void)fflush(stdout);
}

/* Looks at those who have not answered; returns how many still have not. */
static unsigned party_look(const struct move *move, struct ledger *ledger, struct party *party, const char *slot)
{
    unsigned begun = 0;
    for (unsigned i = 0; i < party->count; i++) {
        struct moving *member = &party->members[i];
        if (member->state != MOVE_BEGUN)
            continue;
        member->state = move->look(ledger, member, clock_ms());
        if (member->state == MOVE_BEGUN)
            begun++;
        else
            member_say(member, slot);
    }
    return begun;
}

static void party_await(const struct move *move, struct ledger *ledger, struct party *party,
                        const struct move_options *options)
{
    struct ledger_follow follow;
    uint64_t end_ms = options->wait_ms == UINT32_MAX ? UINT64_MAX : clock_ms() + options->wait_ms;
    for (;;) {
        ledger_follow_look(ledger, &follow);
        unsigned begun = party_look(move, ledger, party, options->slot);
        uint64_t now_ms = clock_ms();
        if (begun == 0 || now_ms >= end_ms)
            break;
        uint64_t left_ms = end_ms - now_ms;
        (void)ledger_follow_sleep(ledger, &follow, left_ms < LOOK_MS ? (uint32_t)left_ms : LOOK_MS);
    }
    for (unsigned i = 0; i < party->count; i++) {
        struct moving *member = &party->members[i];
        if (member->state != MOVE_BEGUN)
            continue;
        move->give_up(ledger, member);
        member->state = MOVE_REFUSED;
        member_say(member, options->slot);
    }
}

/* 0 or an exit status after saying why. */
static int party_move(const struct move *move, struct ledger *ledger, struct party *party,
                      const struct move_options *options)
{
    int status = 0;
    if (party->count == 0)
        return fault_say(EXIT_CHECK_FAILED, "slot '%s': %s", options->slot, move->nothing);
    for (unsigned i = 0; i < party->count; i++) {
        struct moving *member = &party->members[i];
        member->events_before = ledger_event_count(ledger);
        member->state = move->begin(ledger, member, options->waits);
        if (member->state != MOVE_BEGUN || !options->waits)
            member_say(member, options->slot);
    }
    if (options->waits)
        party_await(move, ledger, party, options);
    for (unsigned i = 0; i < party->count; i++)
        if (party->members[i].state == MOVE_REFUSED)
            status = EXIT_CHECK_FAILED;
    return status;
}

int move_run(const struct move *move, int argc, char **argv)
{
    struct move_options options = {0};
    struct ledger_place place;
    struct ledger ledger;
    struct party party = {0};
    char name[LEDGER_NAME_BYTES];
    unsigned slot;
    bool shown;
    int status = options_take(move, &options, argc, argv, &shown);
    if (status != 0 || shown)
        return status;
    status = ledger_place_find(options.ledger, &place);
    if (status == 0)
        status = ledger_open_existing(&place, &ledger);
    if (status != 0)
        return status;
    status = slot_find(&ledger, options.slot, &slot);
    if (status == 0 && snapshot_slot_name(&ledger, slot, name))
        status = party_gather(&ledger, name, &party);
    if (status == 0)
        status = party_move(move, &ledger, &party, &options);
    free(party.members);
    ledger_close(&ledger);
    return output_finish(status);
}
