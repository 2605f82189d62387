/* State words, and bytes that leave the card and come back; process.h has who calls it. */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>
#include "ledger/layout.h"
#include "ledger/process.h"
#include "platform/futex.h"
#include "platform/liveness.h"
#include "platform/testpoint.h"

static _Atomic(uint32_t) *word_at(const struct ledger *ledger, unsigned row)
{
    return &layout_row(ledger, row)->process_state;
}

const char *ledger_process_state_name(enum ledger_process_state state)
{
    static const char *const names[LEDGER_PROCESS_STATES] = {
        [LEDGER_PROCESS_NO_AGENT] = "running", [LEDGER_PROCESS_RUNNING] = "running",
        [LEDGER_PROCESS_ASKED] = "asked",      [LEDGER_PROCESS_EVICTING] = "evicting",
        [LEDGER_PROCESS_EVICTED] = "evicted",  [LEDGER_PROCESS_RESTORING] = "restoring",
        [LEDGER_PROCESS_LOST] = "lost",
    };
    return (unsigned)state < LEDGER_PROCESS_STATES ? names[state] : "unknown";
}

unsigned ledger_leader(const struct ledger *ledger, unsigned row)
{
    uint32_t leader = atomic_load_explicit(&layout_row(ledger, row)->leader, memory_order_relaxed);
    return leader < LEDGER_ROWS ? leader : row;
}

void ledger_lead(struct ledger *ledger, unsigned row, unsigned leader)
{
    atomic_store_explicit(&layout_row(ledger, row)->leader, leader, memory_order_relaxed);
}

uint32_t ledger_process_word(const struct ledger *ledger, unsigned row)
{
    return atomic_load(word_at(ledger, row));
}

uint64_t ledger_process_since_ns(const struct ledger *ledger, unsigned row)
{
    return atomic_load_explicit(&layout_row(ledger, row)->state_since_ns, memory_order_relaxed);
}

static void since_note(struct ledger *ledger, unsigned row)
{
    atomic_store_explicit(&layout_row(ledger, row)->state_since_ns, clock_realtime_ns(CLOCK_REALTIME),
                          memory_order_relaxed);
}

static uint32_t word_make(enum ledger_process_state state, uint32_t asker, uint32_t number)
{
    return (uint32_t)state | asker << LEDGER_PROCESS_ASKER_SHIFT | number << LEDGER_PROCESS_NUMBER_SHIFT;
}

/* --- asking ------------------------------------------------------------------------------------------------------------- */

int ledger_process_ask(struct ledger *ledger, unsigned row, unsigned asker, uint32_t *word)
{
    uint32_t seen = ledger_process_word(ledger, row);
    while (process_word_state(seen) == LEDGER_PROCESS_RUNNING) {
        uint32_t asked = word_make(LEDGER_PROCESS_ASKED, asker + 1, process_word_number(seen) + 1);
        if (!atomic_compare_exchange_strong(word_at(ledger, row), &seen, asked))
            continue;
        since_note(ledger, row);
        TESTPOINT("process.asked");
        futex_wake_all(word_at(ledger, row));
        *word = asked;
        return 0;
    }
    /* Who asked may have died before he woke the agent (tests/model/evict.pml). */
    if (process_word_state(seen) == LEDGER_PROCESS_ASKED)
        futex_wake_all(word_at(ledger, row));
    *word = seen;
    return -EBUSY;
}

bool ledger_process_withdraw(struct ledger *ledger, unsigned row, uint32_t asked)
{
    uint32_t seen = asked, running = word_make(LEDGER_PROCESS_RUNNING, 0, process_word_number(asked));
    if (!atomic_compare_exchange_strong(word_at(ledger, row), &seen, running))
        return false;
    since_note(ledger, row);
    futex_wake_all(word_at(ledger, row));
    return true;
}

bool ledger_process_want(struct ledger *ledger, unsigned row)
{
    uint32_t seen = ledger_process_word(ledger, row);
    for (;;) {
        enum ledger_process_state state = process_word_state(seen);
        if (state != LEDGER_PROCESS_EVICTING && state != LEDGER_PROCESS_EVICTED && state != LEDGER_PROCESS_RESTORING)
            return false;
        if (process_word_wants(seen)) {
            futex_wake_all(word_at(ledger, row)); /* who set it may have died before he woke the agent */
            return true;
        }
        if (atomic_compare_exchange_strong(word_at(ledger, row), &seen, seen | LEDGER_PROCESS_WANT)) {
            futex_wake_all(word_at(ledger, row));
            return true;
        }
    }
}

/* --- the agent's -------------------------------------------------------------------------------------------------------- */

bool ledger_process_move(struct ledger *ledger, unsigned row, uint32_t *word, enum ledger_process_state state,
                         bool want)
{
    uint32_t asker = state == LEDGER_PROCESS_RUNNING ? 0 : *word >> LEDGER_PROCESS_ASKER_SHIFT & 0x7FF;
    uint32_t next = word_make(state, asker, process_word_number(*word)) | (want ? *word & LEDGER_PROCESS_WANT : 0);
    if (!atomic_compare_exchange_strong(word_at(ledger, row), word, next))
        return false;
    *word = next;
    since_note(ledger, row);
    TESTPOINT("process.moved");
    futex_wake_all(word_at(ledger, row));
    if (state == LEDGER_PROCESS_RUNNING) /* who asked has to ask another */
        for (unsigned device = 0; device < LEDGER_DEVICES; device++)
            room_touch(ledger, device);
    return true;
}

int ledger_process_sleep(struct ledger *ledger, unsigned row, uint32_t word, uint32_t timeout_ms)
{
    return futex_wait(word_at(ledger, row), word, timeout_ms);
}

void ledger_resident_note(struct ledger *ledger, unsigned row, uint64_t now_ms)
{
    atomic_store_explicit(&layout_row(ledger, row)->resident_ms, now_ms, memory_order_relaxed);
}

void ledger_referenced_note(struct ledger *ledger, unsigned row, uint64_t now_ms)
{
    atomic_store_explicit(&layout_row(ledger, row)->referenced_ms, now_ms, memory_order_relaxed);
}

void ledger_declined_note(struct ledger *ledger, unsigned row, uint64_t now_ms)
{
    atomic_store_explicit(&layout_row(ledger, row)->declined_ms, now_ms, memory_order_relaxed);
}

void ledger_evictable_note(struct ledger *ledger, unsigned row, const char *reason)
{
    struct ledger_row *entry = layout_row(ledger, row);
    uint32_t evictable = reason == NULL;
    if (reason != NULL && strncmp(entry->reason, reason, sizeof entry->reason) != 0) {
        memset(entry->reason, 0, sizeof entry->reason);
        memcpy(entry->reason, reason, strnlen(reason, sizeof entry->reason));
    }
    if (atomic_load_explicit(&entry->evictable, memory_order_relaxed) != evictable)
        atomic_store_explicit(&entry->evictable, evictable, memory_order_release);
}

int ledger_host_take(struct ledger *ledger, unsigned row, uint64_t bytes, uint64_t limit_bytes)
{
    uint64_t sum = 0;
    atomic_store(&layout_row(ledger, row)->host_bytes, bytes); /* before the sum: of two at once one sees the other */
    if (bytes == 0)
        return 0;
    for (unsigned at = 0; at < layout_rows_high(ledger); at++)
        if (tag_state(atomic_load(layout_tag(ledger, at))) == LEDGER_ROW_LIVE)
            sum = bytes_add(sum, atomic_load(&layout_row(ledger, at)->host_bytes));
    if (sum <= limit_bytes)
        return 0;
    atomic_store(&layout_row(ledger, row)->host_bytes, 0);
    return -ENOSPC;
}

/* --- bytes -------------------------------------------------------------------------------------------------------------- */

static uint64_t value_of(const ledger_word *word)
{
    return atomic_load_explicit(word, memory_order_relaxed);
}

/* As in charge.c: after the bytes it counts. */
static void cell_changed(struct ledger *ledger, unsigned device, struct ledger_cell *cell)
{
    atomic_store_explicit(&cell->changes, value_of(&cell->changes) + 1, memory_order_release);
    pressure_touch(ledger, device);
    room_touch(ledger, device);
}

uint64_t ledger_evict_bytes(struct ledger *ledger, unsigned row, unsigned device)
{
    struct ledger_cell *cell = layout_cell(ledger, device, row);
    uint64_t bytes = value_of(&cell->committed_bytes);
    atomic_store_explicit(&cell->evicted_bytes, bytes, memory_order_release);
    TESTPOINT("evict.noted");
    atomic_store_explicit(&cell->in_flight_bytes, 0, memory_order_release);
    atomic_store_explicit(&cell->committed_bytes, 0, memory_order_release);
    TESTPOINT("evict.moved");
    if (bytes != 0)
        cell_changed(ledger, device, cell);
    return bytes;
}

void ledger_restore_bytes(struct ledger *ledger, unsigned row, unsigned device, uint64_t charged_bytes)
{
    struct ledger_cell *cell = layout_cell(ledger, device, row);
    uint64_t bytes = value_of(&cell->evicted_bytes);
    if ((bytes | charged_bytes) == 0)
        return;
    atomic_store_explicit(&cell->committed_bytes,
                          bytes_add(bytes_less(value_of(&cell->committed_bytes), charged_bytes), bytes),
                          memory_order_release);
    TESTPOINT("restore.moved");
    atomic_store_explicit(&cell->in_flight_bytes, bytes_less(value_of(&cell->in_flight_bytes), charged_bytes),
                          memory_order_release);
    atomic_store_explicit(&cell->evicted_bytes, 0, memory_order_release);
    cell_changed(ledger, device, cell);
}

uint64_t ledger_evicted(const struct ledger *ledger, unsigned row, unsigned device)
{
    return value_of(&layout_cell(ledger, device, row)->evicted_bytes);
}

uint64_t ledger_promised(const struct ledger *ledger, unsigned device, unsigned leader)
{
    uint64_t sum = 0;
    for (unsigned row = 0; row < layout_rows_high(ledger); row++) {
        uint64_t bytes = atomic_load(&layout_cell(ledger, device, row)->in_flight_bytes);
        if (bytes != 0 && ledger_leader(ledger, row) != leader &&
            tag_state(atomic_load(layout_tag(ledger, row))) != LEDGER_ROW_FREE)
            sum = bytes_add(sum, bytes);
    }
    return sum;
}

/* --- one restorer at a time --------------------------------------------------------------------------------------------- */

int ledger_restore_lock(const struct ledger *ledger, unsigned device, int *descriptor)
{
    int result =
        liveness_byte_take(ledger->path, ledger->file.device, ledger->file.inode, LEDGER_RESTORE_BYTE + (off_t)device);
    if (result < 0)
        return result;
    *descriptor = result;
    return 0;
}

void ledger_restore_unlock(int descriptor)
{
    /* Said, and not left to close: a child that was forked meanwhile has the description too. */
    struct flock whole = {.l_type = F_UNLCK, .l_whence = SEEK_SET};
    (void)fcntl(descriptor, F_OFD_SETLK, &whole);
    (void)close(descriptor);
}

/* --- to another ledger ---------------------------------------------------------------------------------------------------- */

static void value_copy(const ledger_word *from, ledger_word *to)
{
    atomic_store_explicit(to, value_of(from), memory_order_relaxed);
}

void ledger_process_copy(const struct ledger *from, unsigned from_row, struct ledger *to, unsigned to_row)
{
    const struct ledger_row *source = layout_row(from, from_row);
    struct ledger_row *target = layout_row(to, to_row);
    uint32_t word = ledger_process_word(from, from_row);
    enum ledger_process_state state = process_word_state(word);
    if (state != LEDGER_PROCESS_NO_AGENT && state != LEDGER_PROCESS_EVICTED)
        state = LEDGER_PROCESS_RUNNING;
    value_copy(&source->resident_ms, &target->resident_ms);
    value_copy(&source->referenced_ms, &target->referenced_ms);
    value_copy(&source->declined_ms, &target->declined_ms);
    value_copy(&source->host_bytes, &target->host_bytes);
    value_copy(&source->state_since_ns, &target->state_since_ns);
    memcpy(target->reason, source->reason, sizeof target->reason);
    atomic_store(&target->evictable, atomic_load(&source->evictable));
    atomic_store(&target->process_state, word_make(state, 0, 0) | (word & LEDGER_PROCESS_WANT));
}

void ledger_process_want_carry(const struct ledger *from, unsigned from_row, struct ledger *to, unsigned to_row)
{
    if (process_word_wants(ledger_process_word(from, from_row)))
        (void)ledger_process_want(to, to_row);
}
