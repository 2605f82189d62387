/*
 * cubudget dump for people: 80 columns, aligned sizes, bars of use, pressure in words. Colour only where output.h allows it;
 * nothing is said by colour alone.
 */
#include "config.h"

#include <stdio.h>
#include <string.h>
#include <time.h>
#include "cli/dump.h"
#include "cli/output.h"
#include "cli/over.h"

enum {
    BAR_COLUMNS = 30,
    SLOT_COLUMNS = 14, /* longer names are cut; --json has them whole */
    SIZE_COLUMNS = 11, /* "1023.99 MiB" */
    STATE_COLUMNS = 9, /* "restoring" */
    NARROWEST = 60,
};

#define BOLD  "1"
#define DIM   "2"
#define PLAIN "0"

static bool coloured;

static void colour_set(const char *code)
{
    if (coloured)
        (void)printf("\033[%sm", code);
}

static const char *pressure_colour(enum pressure_level level)
{
    static const char *const codes[] = {
        [PRESSURE_LOW] = "32", [PRESSURE_MEDIUM] = "33", [PRESSURE_HIGH] = "31", [PRESSURE_CRITICAL] = "1;31"};
    return codes[level];
}

/* "3.52 GiB", "527.00 MiB", "0": two units only, so that columns compare at a glance. */
static const char *size_text(uint64_t bytes, char text[32])
{
    const uint64_t mib = 1ULL << 20, gib = 1ULL << 30;
    uint64_t unit = bytes >= gib - mib / 200 ? gib : mib;
    unsigned __int128 hundredths = ((unsigned __int128)bytes * 100 + unit / 2) / unit;
    if (bytes == 0)
        (void)snprintf(text, 32, "0");
    else if (hundredths == 0)
        (void)snprintf(text, 32, "%llu B", (unsigned long long)bytes);
    else
        (void)snprintf(text, 32, "%llu.%02u %s", (unsigned long long)(hundredths / 100), (unsigned)(hundredths % 100),
                       unit == gib ? "GiB" : "MiB");
    return text;
}

static void size_column(uint64_t bytes, const char *none)
{
    char text[32];
    (void)printf(" %*s", SIZE_COLUMNS, none != NULL ? none : size_text(bytes, text));
}

/* The text, cut with "~" or filled to so many columns. */
static void text_column(const char *text, unsigned columns)
{
    unsigned width = text_columns(text);
    if (width <= columns) {
        (void)printf("%s%*s", text, (int)(columns - width), "");
        return;
    }
    size_t bytes = text_fitting(text, columns - 1);
    char head[LEDGER_NAME_BYTES + LEDGER_COMMAND_BYTES];
    (void)snprintf(head, sizeof head, "%.*s", (int)bytes, text);
    (void)printf("%s~%*s", head, (int)(columns - 1 - text_columns(head)), "");
}

/* A share of the whole in columns of the bar, rounded, never none for something and never all for less. */
static unsigned bar_columns(uint64_t part, uint64_t whole)
{
    if (part == 0 || whole == 0)
        return 0;
    if (part >= whole)
        return BAR_COLUMNS;
    unsigned columns = (unsigned)(((unsigned __int128)part * BAR_COLUMNS + whole / 2) / whole);
    return columns == 0 ? 1 : columns == BAR_COLUMNS ? BAR_COLUMNS - 1 : columns;
}

static void bar_print(const struct snapshot_device *device)
{
    unsigned used = bar_columns(device->used_bytes, device->budget_bytes);
    uint64_t held_bytes = device->used_bytes + device->dead_bytes;
    unsigned held = bar_columns(held_bytes < device->used_bytes ? UINT64_MAX : held_bytes, device->budget_bytes);
    (void)printf("  [");
    colour_set(pressure_colour(device->pressure));
    for (unsigned i = 0; i < BAR_COLUMNS; i++)
        (void)putchar(i < used ? '#' : i < held ? '~' : '-');
    colour_set(PLAIN);
    (void)printf("]");
}

/* What is available to none but slots that reserved it. */
static uint64_t reserved_bytes(const struct snapshot *snapshot, unsigned at)
{
    uint64_t reserved = 0, available = snapshot->devices[at].available_bytes;
    for (unsigned slot = 0; slot < snapshot->slot_count; slot++) {
        uint64_t left = snapshot->slots[slot].reserve_bytes;
        for (unsigned i = 0; i < snapshot->process_count && left != 0; i++) {
            const struct snapshot_process *process = &snapshot->processes[i];
            if (process->slot == slot && process->device == (int)at && process->row_state == LEDGER_ROW_LIVE)
                left -= process->used_bytes < left ? process->used_bytes : left;
        }
        if (left >= available - reserved)
            return available;
        reserved += left;
    }
    return reserved;
}

static void device_print(const struct dump *dump, unsigned at)
{
    const struct snapshot_device *device = &dump->snapshot.devices[at];
    char first[32], second[32], uuid[DUMP_UUID_TEXT];
    colour_set(BOLD);
    (void)printf("device %u  %s%s\n", device->index, device->name, device->simulated ? " (simulated)" : "");
    colour_set(PLAIN);
    bar_print(device);
    unsigned percent = device->budget_bytes == 0
                           ? 100
                           : (unsigned)((unsigned __int128)device->used_bytes * 100 / device->budget_bytes);
    (void)printf(" %3u %% used, pressure ", percent);
    colour_set(pressure_colour(device->pressure));
    (void)printf("%s", pressure_name(device->pressure));
    colour_set(PLAIN);
    (void)printf("\n  used      %*s of %s", SIZE_COLUMNS, size_text(device->used_bytes, first),
                 size_text(device->budget_bytes, second));
    if (over_budget(device) != 0)
        (void)printf("\n  over      %*s: nothing more is granted until it fits", SIZE_COLUMNS,
                     size_text(over_budget(device), first));
    (void)printf("\n  available %*s", SIZE_COLUMNS, size_text(device->available_bytes, first));
    if (device->dead_bytes != 0)
        (void)printf(" (%s more when the dead have given it back)", size_text(device->dead_bytes, first));
    uint64_t reserved = reserved_bytes(&dump->snapshot, at);
    if (reserved != 0)
        (void)printf("\n  reserved  %*s of what is available, for slots with a reserve", SIZE_COLUMNS,
                     size_text(reserved, first));
    (void)printf("\n  peak      %*s", SIZE_COLUMNS, size_text(device->peak_bytes, first));
    (void)printf("\n  card      %*s", SIZE_COLUMNS, size_text(device->total_bytes, first));
    (void)printf("   %s\n", dump_uuid_text(device->uuid, uuid));
    if (device->bid_bytes != 0)
        (void)printf("  asked for %*s\n", SIZE_COLUMNS, size_text(device->bid_bytes, first));
    if (dump->has_witness[at])
        (void)printf("  simulator %*s used, peak %s\n", SIZE_COLUMNS, size_text(dump->witness[at].used_bytes, first),
                     size_text(dump->witness[at].peak_bytes, second));
    if (!device->steady)
        (void)printf("  (changing faster than it can be read: figures may be of different moments)\n");
}

/* Who holds more than a limit that was lowered gets nothing more until it fits. */
static void slot_over_print(const struct snapshot *snapshot, unsigned slot)
{
    char size[32];
    for (unsigned at = 0; at < snapshot->device_count; at++)
        if (over_limit(snapshot, slot, at) != 0)
            (void)printf("%*s over its limit by %s on device %u: nothing more until it fits\n", SLOT_COLUMNS, "",
                         size_text(over_limit(snapshot, slot, at), size), snapshot->devices[at].index);
}

/* What has left the card, and how often somebody left it, came back, and had to wait. */
static void slot_moves_print(const struct snapshot_slot *slot)
{
    char size[32];
    if ((slot->evicted_bytes | slot->evictions | slot->restores | slot->waits) != 0)
        (void)printf("%*s evicted %s; evictions %llu, restores %llu, waits %llu\n", SLOT_COLUMNS, "",
                     size_text(slot->evicted_bytes, size), (unsigned long long)slot->evictions,
                     (unsigned long long)slot->restores, (unsigned long long)slot->waits);
}

static void slots_print(const struct snapshot *snapshot)
{
    colour_set(BOLD);
    (void)printf("\n%-*s %*s %*s %*s %4s %7s %7s\n", SLOT_COLUMNS, "SLOT", SIZE_COLUMNS, "USED", SIZE_COLUMNS, "PEAK",
                 SIZE_COLUMNS, "LIMIT", "PRIO", "ALLOCS", "REFUSED");
    colour_set(PLAIN);
    for (unsigned i = 0; i < snapshot->slot_count; i++) {
        const struct snapshot_slot *slot = &snapshot->slots[i];
        char priority[16], reserve[32];
        text_column(slot->name, SLOT_COLUMNS);
        size_column(slot->used_bytes, NULL);
        size_column(slot->peak_bytes, NULL);
        size_column(slot->limit_bytes, slot->limit_bytes == LEDGER_NO_LIMIT ? "none" : NULL);
        (void)snprintf(priority, sizeof priority, slot->priority > 100 ? "max" : "%u", slot->priority);
        (void)printf(" %4s %7llu %7llu\n", priority, (unsigned long long)slot->allocations,
                     (unsigned long long)slot->refusals);
        if (slot->reserve_bytes != 0)
            (void)printf("%*s reserve %s\n", SLOT_COLUMNS, "", size_text(slot->reserve_bytes, reserve));
        slot_moves_print(slot);
        slot_over_print(snapshot, i);
    }
}

static void kinds_print(const struct snapshot_process *process, unsigned indent)
{
    char text[32];
    const char *before = "";
    for (unsigned kind = 0; kind < LEDGER_KIND_COUNT; kind++) {
        if (process->by_kind[kind] == 0)
            continue;
        if (*before == '\0')
            (void)printf("%*s", (int)indent, "");
        (void)printf("%s%s %s", before, ledger_kind_name((enum ledger_kind)kind),
                     size_text(process->by_kind[kind], text));
        before = ", ";
    }
    if (*before != '\0')
        (void)printf("\n");
}

/* What the driver says beside what the row says, where it can. */
static void drift_print(const struct drift *drift, unsigned indent)
{
    char held[32], differs[32];
    bool less = drift->drift_bytes < 0;
    uint64_t bytes = less ? 0 - (uint64_t)drift->drift_bytes : (uint64_t)drift->drift_bytes;
    if (!drift->known)
        return;
    (void)printf("%*sdriver %s", (int)indent, "", size_text(drift->driver_bytes, held));
    if (bytes == 0)
        (void)printf(", no drift\n");
    else
        (void)printf(", drift %s%s\n", less ? "-" : "+", size_text(bytes, differs));
}

/* "0.3 s", "12 s", "3 min", "2 h": how long ago a time was. */
static const char *age_text(uint64_t then_ns, uint64_t now_ns, char text[32])
{
    uint64_t ms = now_ns > then_ns ? (now_ns - then_ns) / 1000000U : 0;
    if (ms < 10000)
        (void)snprintf(text, 32, "%llu.%llu s", (unsigned long long)(ms / 1000), (unsigned long long)(ms % 1000 / 100));
    else if (ms < 120000)
        (void)snprintf(text, 32, "%llu s", (unsigned long long)(ms / 1000));
    else if (ms < 7200000)
        (void)snprintf(text, 32, "%llu min", (unsigned long long)(ms / 60000));
    else
        (void)snprintf(text, 32, "%llu h", (unsigned long long)(ms / 3600000));
    return text;
}

/* What of it left the card and since when it is doing what it does, where that is not just running. */
static void state_print(const struct snapshot_process *process, uint64_t now_ns, unsigned indent)
{
    char evicted[32], host[32], age[32];
    if (process->row_state != LEDGER_ROW_LIVE)
        return;
    (void)age_text(process->state_since_ns, now_ns, age);
    switch (process->process_state) {
    case LEDGER_PROCESS_ASKED:
        (void)printf("%*sasked %s ago to leave the card\n", (int)indent, "", age);
        break;
    case LEDGER_PROCESS_EVICTING:
        (void)printf("%*sleaving the card for %s\n", (int)indent, "", age);
        break;
    case LEDGER_PROCESS_EVICTED:
        (void)printf("%*soff the card for %s: %s, with %s of host memory%s\n", (int)indent, "", age,
                     size_text(process->evicted_bytes, evicted), size_text(process->host_bytes, host),
                     process->wanted ? ", wanted back" : "");
        break;
    case LEDGER_PROCESS_RESTORING:
        (void)printf("%*scoming back for %s: %s\n", (int)indent, "", age, size_text(process->evicted_bytes, evicted));
        break;
    case LEDGER_PROCESS_LOST:
        (void)printf("%*scould not be restored, %s ago\n", (int)indent, "", age);
        break;
    case LEDGER_PROCESS_RUNNING:
        if (!process->evictable && process->reason[0] != '\0')
            (void)printf("%*scannot leave the card: %s\n", (int)indent, "", process->reason);
        break;
    default:
        break;
    }
}

/* A process waits once, whatever the number of its rows. */
static bool wait_was_told(const struct snapshot *snapshot, unsigned at)
{
    const struct snapshot_process *process = &snapshot->processes[at];
    for (unsigned i = 0; i < at; i++)
        if (snapshot->processes[i].leader == process->leader &&
            snapshot->processes[i].wait.device == process->wait.device)
            return true;
    return false;
}

static void wait_print(const struct snapshot *snapshot, unsigned at, uint64_t now_ns, unsigned indent)
{
    const struct snapshot_wait *wait = &snapshot->processes[at].wait;
    char size[32], age[32];
    if (wait->kind == LEDGER_WAITING_NOT || wait_was_told(snapshot, at))
        return;
    (void)printf("%*swaiting %s %s %s", (int)indent, "", age_text(wait->since_ns, now_ns, age),
                 wait->kind == LEDGER_WAITING_RESTORE ? "to come back, for" : "for", size_text(wait->bytes, size));
    if (wait->device >= 0)
        (void)printf(" of device %u", snapshot->devices[wait->device].index);
    if (wait->for_row >= 0)
        (void)printf(", on process %u%s%s%s", wait->for_pid, wait->for_slot >= 0 ? " (" : "",
                     wait->for_slot >= 0 ? snapshot->slots[wait->for_slot].name : "", wait->for_slot >= 0 ? ")" : "");
    (void)printf("\n");
}

static uint64_t clock_now_ns(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000000000U + (uint64_t)now.tv_nsec;
}

static void processes_print(const struct dump *dump)
{
    const struct snapshot *snapshot = &dump->snapshot;
    enum { COMMAND_AT = 8 + 1 + SLOT_COLUMNS + 1 + STATE_COLUMNS + 1 + SIZE_COLUMNS + 2 };
    uint64_t now_ns = clock_now_ns();
    unsigned terminal = output_columns();
    colour_set(BOLD);
    (void)printf("\n%8s %-*s %-*s %*s  %s\n", "PID", SLOT_COLUMNS, "SLOT", STATE_COLUMNS, "STATE", SIZE_COLUMNS, "USED",
                 "COMMAND");
    colour_set(PLAIN);
    for (unsigned i = 0; i < snapshot->process_count; i++) {
        const struct snapshot_process *process = &snapshot->processes[i];
        (void)printf("%8u ", process->pid);
        text_column(snapshot->slots[process->slot].name, SLOT_COLUMNS);
        (void)printf(" %-*s", STATE_COLUMNS, dump_state_name(process));
        size_column(process->used_bytes, NULL);
        size_t bytes = terminal == 0
                           ? strlen(process->command)
                           : text_fitting(process->command, (terminal < NARROWEST ? NARROWEST : terminal) - COMMAND_AT);
        (void)printf("  %.*s\n", (int)bytes, process->command);
        colour_set(DIM);
        state_print(process, now_ns, 9);
        wait_print(snapshot, i, now_ns, 9);
        kinds_print(process, 9);
        drift_print(&dump->drift[i], 9);
        colour_set(PLAIN);
    }
}

void dump_table_print(const struct dump *dump)
{
    const struct snapshot *snapshot = &dump->snapshot;
    char budget[32];
    coloured = output_is_coloured();
    (void)printf("ledger '%s' (%s), budget %s a device\n\n", snapshot->name, dump->path,
                 size_text(snapshot->budget_bytes, budget));
    for (unsigned i = 0; i < snapshot->device_count; i++)
        device_print(dump, i);
    if (snapshot->device_count == 0)
        (void)printf("no device yet: no program of this ledger has used CUDA so far\n");
    if (snapshot->slot_count != 0)
        slots_print(snapshot);
    if (snapshot->process_count != 0)
        processes_print(dump);
}
