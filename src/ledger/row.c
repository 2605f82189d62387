/*
 * Claiming a row and giving it back. Called by src/account under the process's lock.
 *
 * Between processes the kernel's locks on the row's two bytes decide: who holds them may turn FREE into LIVE, nobody
 * else. Until the tag says LIVE nothing in the row counts, so a claimer may die or stop after any store; the next one
 * does it all again.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "ledger/layout.h"
#include "ledger/owner.h"
#include "platform/testpoint.h"

/* --- identity ----------------------------------------------------------------------------------------------------------- */

/* What /proc says of a process. Zeroes: unknown. */
struct proc_stat {
    char state;           /* field 3 */
    uint64_t threads;     /* field 20 */
    uint64_t start_ticks; /* field 22 */
};

/* The second field is the command in parentheses and may hold blanks and parentheses. */
static void stat_read(const char *path, struct proc_stat *stat)
{
    enum { BEFORE_THREADS = 20 - 3, BEFORE_START = 22 - 20 };
    char text[1024];
    *stat = (struct proc_stat){0};
    int descriptor = open(path, O_RDONLY | O_CLOEXEC);
    if (descriptor < 0)
        return;
    ssize_t bytes = read(descriptor, text, sizeof text - 1);
    (void)close(descriptor);
    if (bytes <= 0)
        return;
    text[bytes] = '\0';
    const char *at = strrchr(text, ')');
    if (at == NULL || at[1] != ' ')
        return;
    at += 2;
    stat->state = *at;
    for (unsigned i = 0; at != NULL && i < BEFORE_THREADS + BEFORE_START; i++) {
        at = strchr(at, ' ');
        if (at != NULL)
            at++;
        if (at != NULL && i == BEFORE_THREADS - 1)
            stat->threads = strtoull(at, NULL, 10);
    }
    if (at != NULL)
        stat->start_ticks = strtoull(at, NULL, 10);
}

void owner_read(struct row_owner *owner)
{
    struct stat status;
    owner->pid = (uint32_t)getpid();
    owner->pid_namespace = stat("/proc/self/ns/pid", &status) == 0 ? (uint64_t)status.st_ino : 0;
    struct proc_stat self;
    stat_read("/proc/self/stat", &self);
    owner->start_ticks = self.start_ticks;
}

bool owner_is(const struct row_owner *owner, const struct ledger_row *row)
{
    return atomic_load_explicit(&row->pid, memory_order_relaxed) == owner->pid &&
           atomic_load_explicit(&row->pid_namespace, memory_order_relaxed) == owner->pid_namespace &&
           atomic_load_explicit(&row->start_ticks, memory_order_relaxed) == owner->start_ticks;
}

bool owner_is_gone(const struct row_owner *self, const struct ledger_row *row)
{
    char path[32];
    struct proc_stat seen;
    int before = errno;
    pid_t pid = (pid_t)atomic_load_explicit(&row->pid, memory_order_relaxed);
    uint64_t start_ticks = atomic_load_explicit(&row->start_ticks, memory_order_relaxed);
    if (pid <= 0 || start_ticks == 0 || self->pid_namespace == 0 ||
        atomic_load_explicit(&row->pid_namespace, memory_order_relaxed) != self->pid_namespace)
        return false;
    bool gone = kill(pid, 0) != 0 && errno == ESRCH; /* /proc may hide other users' processes, kill does not */
    if (!gone) {
        (void)snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
        stat_read(path, &seen);
        /* A zombie with threads is a process whose first thread has ended: alive. */
        gone = seen.start_ticks != 0 &&
               (seen.start_ticks != start_ticks || ((seen.state == 'Z' || seen.state == 'X') && seen.threads <= 1));
    }
    errno = before;
    return gone;
}

static void identity_write(struct ledger_row *row, const char *command)
{
    struct row_owner owner;
    owner_read(&owner);
    uint64_t now_ns = clock_realtime_ns(CLOCK_REALTIME);
    atomic_store_explicit(&row->pid, owner.pid, memory_order_relaxed);
    atomic_store_explicit(&row->process_state, LEDGER_PROCESS_RUNNING, memory_order_relaxed);
    atomic_store_explicit(&row->pid_namespace, owner.pid_namespace, memory_order_relaxed);
    atomic_store_explicit(&row->start_ticks, owner.start_ticks, memory_order_relaxed);
    atomic_store_explicit(&row->started_ns, now_ns, memory_order_relaxed);
    atomic_store_explicit(&row->state_since_ns, now_ns, memory_order_relaxed);
    atomic_store_explicit(&row->used_ns, now_ns, memory_order_relaxed);
    atomic_store_explicit(&row->flags, 0, memory_order_relaxed);
    memset(row->command, 0, sizeof row->command);
    memcpy(row->command, command, strnlen(command, sizeof row->command));
    memset(row->reason, 0, sizeof row->reason);
}

/* --- what the last owner left ------------------------------------------------------------------------------------------- */

/* Moves one count. Taken away first: a death between the two loses it, where the other order would count it twice for
 * each death. */
static void count_fold(ledger_word *from, ledger_word *to)
{
    uint64_t count = atomic_exchange_explicit(from, 0, memory_order_relaxed);
    if (count != 0 && to != NULL)
        (void)atomic_fetch_add_explicit(to, count, memory_order_relaxed);
}

static void counts_fold(struct ledger *ledger, unsigned row, unsigned slot)
{
    struct ledger_counts *from = &layout_row(ledger, row)->counts;
    struct ledger_counts *to = slot < LEDGER_SLOTS ? &layout_slot(ledger, slot)->counts : NULL;
    count_fold(&from->allocations, to != NULL ? &to->allocations : NULL);
    count_fold(&from->frees, to != NULL ? &to->frees : NULL);
    count_fold(&from->refusals, to != NULL ? &to->refusals : NULL);
    count_fold(&from->evictions, to != NULL ? &to->evictions : NULL);
    count_fold(&from->restores, to != NULL ? &to->restores : NULL);
    count_fold(&from->waits, to != NULL ? &to->waits : NULL);
}

/* Release stores: a look that reads one of these zeroes must then read a tag no older than FREE (charge.c). */
static void cells_clear(struct ledger *ledger, unsigned row)
{
    for (unsigned device = 0; device < LEDGER_DEVICES; device++) {
        struct ledger_cell *cell = layout_cell(ledger, device, row);
        atomic_store_explicit(&cell->bid_bytes, 0, memory_order_release);
        atomic_store_explicit(&cell->bid_ticket, LEDGER_NO_TICKET, memory_order_release);
        atomic_store_explicit(&cell->settled_bytes, 0, memory_order_release);
        atomic_store_explicit(&cell->in_flight_bytes, 0, memory_order_release);
        atomic_store_explicit(&cell->committed_bytes, 0, memory_order_release);
        atomic_store_explicit(&cell->evicted_bytes, 0, memory_order_release);
        for (unsigned kind = 0; kind < LEDGER_KINDS; kind++)
            atomic_store_explicit(&layout_kinds(ledger, device, row)->bytes[kind], 0, memory_order_relaxed);
    }
}

/* --- claiming ----------------------------------------------------------------------------------------------------------- */

/* Tries one row whose tag was seen FREE. -EAGAIN: somebody else is at it. */
static int row_try(struct ledger *ledger, unsigned row, unsigned slot, const char *command, struct ledger_claim *claim)
{
    ledger_word *tag = layout_tag(ledger, row);
    int result = liveness_hold(&claim->liveness, ledger->path, ledger->file.device, ledger->file.inode,
                               LEDGER_LIFE_BYTE + (off_t)row, LEDGER_MEMORY_BYTE + (off_t)row);
    if (result != 0)
        return result;
    TESTPOINT("claim.locked");
    /* Again, now that nobody else can claim it: it may have been claimed and left dead since the first look. */
    uint64_t seen = atomic_load(tag);
    if (tag_state(seen) == LEDGER_ROW_FREE) {
        counts_fold(ledger, row, tag_slot(seen));
        cells_clear(ledger, row);
        TESTPOINT("claim.cleared");
        identity_write(layout_row(ledger, row), command);
        /* Before LIVE: who does not see it counted yet published his bid before ours will be, and we shall see his. */
        high_raise(&layout_header(ledger)->rows_high, row + 1);
        uint64_t live = tag_make(LEDGER_ROW_LIVE, slot, tag_generation(seen) + 1, clock_monotonic_ms());
        if (atomic_compare_exchange_strong(tag, &seen, live)) {
            TESTPOINT("claim.live");
            claim->row = row;
            claim->slot = slot;
            claim->held = true;
            return 0;
        }
    }
    liveness_drop(&claim->liveness);
    return -EAGAIN;
}

int ledger_row_claim(struct ledger *ledger, unsigned slot, const char *command, struct ledger_claim *claim)
{
    bool busy = false;
    *claim = (struct ledger_claim){.liveness = {.page = NULL, .memory_descriptor = -1}};
    if (slot >= layout_slots_high(ledger))
        return -EINVAL;
    (void)ledger_reap(ledger); /* low rows come back first, which keeps every look short */
    for (unsigned row = 0; row < LEDGER_ROWS; row++) {
        if (tag_state(atomic_load(layout_tag(ledger, row))) != LEDGER_ROW_FREE)
            continue;
        int result = row_try(ledger, row, slot, command, claim);
        if (result == -EAGAIN) {
            busy = true;
            continue;
        }
        if (result != 0)
            return result;
        if (ledger_is_current(ledger) == 1)
            return 0;
        ledger_row_release(ledger, claim); /* gc unlinked it between our open and our lock */
        return -ESTALE;
    }
    if (ledger_is_current(ledger) != 1)
        return -ESTALE;
    return busy ? -EBUSY : -ENOSPC;
}

void ledger_row_release(struct ledger *ledger, struct ledger_claim *claim)
{
    if (!claim->held)
        return;
    ledger_word *tag = layout_tag(ledger, claim->row);
    uint64_t seen = atomic_load(tag);
    /* FREE before the locks go: in the other order a reaper would take us for dead. Only we, holding the life byte,
     * can have changed a LIVE tag, unless the file was damaged. */
    while (tag_state(seen) != LEDGER_ROW_FREE &&
           !atomic_compare_exchange_weak(tag, &seen, tag_move(seen, LEDGER_ROW_FREE, clock_monotonic_ms()))) {
    }
    ledger_pressure_publish_all(ledger);
    liveness_drop(&claim->liveness);
    claim->held = false;
}
