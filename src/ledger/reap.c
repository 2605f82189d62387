/*
 * Moving the rows of the dead on. Called before refusing, before showing and on claim, by anybody, any number at once.
 *
 * All of it is compare-and-swap on the row's tag, from the very tag that was there before the kernel was asked: the tag
 * holds generation and time, so an answer about one owner can never hit the next. Nothing else is written (who watches the pressure is told
 * afterwards, and looks himself now and then; the event that tells of it is for people), hence a reaper that dies or stops has either moved a
 * row or not.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include "ledger/events.h"
#include "ledger/layout.h"
#include "platform/testpoint.h"

/* A description of our own to ask the kernel with: it must hold none of the locks. */
static int probe_open(const struct ledger *ledger)
{
    struct stat status;
    int descriptor = open(ledger->path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
    if (descriptor < 0)
        return errno == ENOENT || errno == ELOOP ? -ESTALE : -errno;
    if (fstat(descriptor, &status) == 0 && status.st_dev == ledger->file.device && status.st_ino == ledger->file.inode)
        return descriptor;
    (void)close(descriptor);
    return -ESTALE;
}

/* The state that the row's owner's locks say, in *next. 0 or -errno. */
static int state_probe(int descriptor, unsigned row, enum ledger_row_state state, enum ledger_row_state *next)
{
    int held = state == LEDGER_ROW_LIVE ? liveness_look(descriptor, LEDGER_LIFE_BYTE + (off_t)row) : 0;
    if (held < 0)
        return held;
    if (held == 1) {
        *next = LEDGER_ROW_LIVE;
        return 0;
    }
    held = liveness_look(descriptor, LEDGER_MEMORY_BYTE + (off_t)row);
    if (held < 0)
        return held;
    *next = held == 1 ? LEDGER_ROW_ORPHANED : LEDGER_ROW_DYING;
    return 0;
}

/* What a dead row holds, before it comes free: afterwards its cells and its name may be another's. */
struct estate {
    uint32_t pid;
    uint64_t bytes[LEDGER_DEVICES];
};

static void estate_read(const struct ledger *ledger, unsigned row, struct estate *estate)
{
    estate->pid = atomic_load_explicit(&layout_row(ledger, row)->pid, memory_order_relaxed);
    for (unsigned device = 0; device < LEDGER_DEVICES; device++)
        estate->bytes[device] =
            atomic_load_explicit(&layout_cell(ledger, device, row)->committed_bytes, memory_order_relaxed);
}

static void estate_tell(struct ledger *ledger, unsigned row, uint64_t tag, const struct estate *estate)
{
    for (unsigned device = 0; device < LEDGER_DEVICES; device++) {
        struct ledger_event_record event = {.kind = LEDGER_EVENT_REAP,
                                            .pid = estate->pid,
                                            .row = (int)row,
                                            .other = -1,
                                            .slot = (int)tag_slot(tag),
                                            .device = (int)device,
                                            .bytes = estate->bytes[device]};
        if (event.bytes != 0)
            ledger_event_add(ledger, &event);
    }
}

/* Moves one row one step; *moved where it was this call that did. Returns 1 while it is DYING, else 0 or -errno. */
static int row_reap(struct ledger *ledger, unsigned row, int descriptor, bool *moved)
{
    ledger_word *word = layout_tag(ledger, row);
    uint64_t tag = atomic_load(word);
    enum ledger_row_state state = tag_state(tag), next = state;
    uint32_t now_ms = clock_monotonic_ms();
    switch (state) {
    case LEDGER_ROW_LIVE:
    case LEDGER_ROW_ORPHANED:
        if (descriptor < 0)
            return 0;
        int result = state_probe(descriptor, row, state, &next);
        if (result != 0)
            return result;
        TESTPOINT("reap.probed");
        break;
    case LEDGER_ROW_DYING:
        /* Modulo 2^32: a time in the future (another time namespace, a damaged file) is a great age, and so FREE. */
        if ((uint32_t)(now_ms - tag_since_ms(tag)) >= LEDGER_DYING_MS)
            next = LEDGER_ROW_FREE;
        break;
    case LEDGER_ROW_FREE:
        return 0;
    default:
        next = LEDGER_ROW_DYING; /* no state at all: damage; it ends like a dead one */
    }
    if (next == state)
        return state == LEDGER_ROW_DYING;
    struct estate estate = {0};
    if (next == LEDGER_ROW_FREE)
        estate_read(ledger, row, &estate);
    if (atomic_compare_exchange_strong(word, &tag, tag_move(tag, next, now_ms))) {
        *moved = true;
        TESTPOINT("reap.moved");
        if (next == LEDGER_ROW_FREE)
            estate_tell(ledger, row, tag, &estate);
    }
    return next == LEDGER_ROW_DYING; /* where another reaper was first, it moved it to the same */
}

int ledger_reap(struct ledger *ledger)
{
    int before = errno, dying = 0, failed = 0;
    bool moved = false;
    unsigned high = layout_rows_high(ledger);
    int descriptor = probe_open(ledger);
    if (descriptor < 0)
        failed = descriptor; /* what is DYING still comes free */
    for (unsigned row = 0; row < high; row++) {
        int result = row_reap(ledger, row, descriptor, &moved);
        if (result < 0)
            failed = result;
        else
            dying += result;
    }
    if (descriptor >= 0)
        (void)close(descriptor);
    if (moved)
        ledger_pressure_publish_all(ledger);
    for (unsigned device = 0; moved && device < LEDGER_DEVICES; device++)
        room_touch(ledger, device);
    errno = before;
    return failed != 0 ? failed : dying;
}
