/*
 * Where things lie in a mapped ledger: the one place that turns offsets into pointers. Private to src/ledger.
 * Callers keep indexes in range (LEDGER_ROWS, ...); a slot's index that was read from a tag is theirs to check.
 */
#ifndef LEDGER_LAYOUT_H
#define LEDGER_LAYOUT_H

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <time.h>
#include "ledger/ledger.h"
#include "ledger/line.h"

typedef _Atomic(uint64_t) ledger_word; /* a tag, or any single shared word */

static inline void *layout_at(const struct ledger *ledger, size_t offset)
{
    return (char *)ledger->file.bytes + offset;
}

static inline struct ledger_header *layout_header(const struct ledger *ledger)
{
    return layout_at(ledger, LEDGER_OFFSET_HEADER);
}

static inline struct ledger_device *layout_device(const struct ledger *ledger, unsigned device)
{
    return (struct ledger_device *)layout_at(ledger, LEDGER_OFFSET_DEVICES) + device;
}

/* The half of a device's pressure word that waiters sleep on: the count of changes. */
static inline _Atomic(uint32_t) *layout_generation(const struct ledger *ledger, unsigned device)
{
    return (_Atomic(uint32_t) *)(void *)&layout_device(ledger, device)->pressure + 1;
}

static inline struct ledger_slot *layout_slot(const struct ledger *ledger, unsigned slot)
{
    return (struct ledger_slot *)layout_at(ledger, LEDGER_OFFSET_SLOTS) + slot;
}

static inline ledger_word *layout_tag(const struct ledger *ledger, unsigned row)
{
    return (ledger_word *)layout_at(ledger, LEDGER_OFFSET_TAGS) + row;
}

static inline struct ledger_row *layout_row(const struct ledger *ledger, unsigned row)
{
    return (struct ledger_row *)layout_at(ledger, LEDGER_OFFSET_ROWS) + row;
}

static inline struct ledger_cell *layout_cell(const struct ledger *ledger, unsigned device, unsigned row)
{
    return (struct ledger_cell *)layout_at(ledger, LEDGER_OFFSET_CELLS) + (size_t)device * LEDGER_ROWS + row;
}

static inline struct ledger_kinds *layout_kinds(const struct ledger *ledger, unsigned device, unsigned row)
{
    return (struct ledger_kinds *)layout_at(ledger, LEDGER_OFFSET_KINDS) + (size_t)device * LEDGER_ROWS + row;
}

/* How many rows may count. Sequentially consistent: charge.c says why. */
static inline unsigned layout_rows_high(const struct ledger *ledger)
{
    uint32_t high = atomic_load(&layout_header(ledger)->rows_high);
    return high < LEDGER_ROWS ? high : LEDGER_ROWS;
}

static inline unsigned layout_slots_high(const struct ledger *ledger)
{
    uint32_t high = atomic_load(&layout_header(ledger)->slots_high);
    return high < LEDGER_SLOTS ? high : LEDGER_SLOTS;
}

/* A device's budget; before it is decided, the ledger's. 2^63 and more is damage, and must not admit what saturates every sum:
 * the device's then counts as undecided, the ledger's as nothing. Budgets and limits change under way: sequentially consistent,
 * so that who published his bid before a change was seen by whoever made it, and who publishes after sees the change. */
static inline uint64_t layout_budget(const struct ledger *ledger, unsigned device)
{
    uint64_t budget = atomic_load(&layout_device(ledger, device)->budget_bytes);
    if (budget == 0 || budget >> 63 != 0)
        budget = atomic_load(&layout_header(ledger)->budget_bytes);
    return budget >> 63 == 0 ? budget : 0;
}

static inline uint64_t layout_limit(const struct ledger *ledger, unsigned slot)
{
    uint64_t limit = atomic_load(&layout_slot(ledger, slot)->limit_bytes);
    return limit != 0 ? limit : LEDGER_NO_LIMIT;
}

/* What is held of a device has changed. Nearly always nobody watches, and it costs a load. The store of the change may not be
 * seen yet by somebody who begins to watch now: he waits for that (watch.c). */
static inline void pressure_touch(struct ledger *ledger, unsigned device)
{
    if (__builtin_expect(atomic_load_explicit(&layout_device(ledger, device)->watchers, memory_order_relaxed) != 0, 0))
        ledger_pressure_publish(ledger, device);
}

/* Whether somebody may be waiting for room of a device: nearly always nobody is, and it costs a load. */
static inline bool line_stands(const struct ledger *ledger, unsigned device)
{
    return atomic_load_explicit(&layout_device(ledger, device)->waiting, memory_order_relaxed) != 0;
}

/* Room may have come free. Who begins to wait just now, and is not seen yet, looks again by himself within milliseconds. */
static inline void room_touch(struct ledger *ledger, unsigned device)
{
    if (__builtin_expect(line_stands(ledger, device), 0))
        ledger_room_tell(ledger, device);
}

/* --- tags ---------------------------------------------------------------------------------------------------------- */

static inline enum ledger_row_state tag_state(uint64_t tag)
{
    return (enum ledger_row_state)(tag >> LEDGER_TAG_STATE_SHIFT & 0xF);
}

static inline unsigned tag_slot(uint64_t tag)
{
    return (unsigned)(tag >> LEDGER_TAG_SLOT_SHIFT & 0xFF);
}

static inline unsigned tag_generation(uint64_t tag)
{
    return (unsigned)(tag >> LEDGER_TAG_GENERATION_SHIFT & 0xFFFF);
}

static inline uint32_t tag_since_ms(uint64_t tag)
{
    return (uint32_t)(tag >> LEDGER_TAG_SINCE_SHIFT);
}

static inline uint64_t tag_make(enum ledger_row_state state, unsigned slot, unsigned generation, uint32_t since_ms)
{
    return (uint64_t)state << LEDGER_TAG_STATE_SHIFT | (uint64_t)slot << LEDGER_TAG_SLOT_SHIFT |
           (uint64_t)(generation & 0xFFFF) << LEDGER_TAG_GENERATION_SHIFT |
           (uint64_t)since_ms << LEDGER_TAG_SINCE_SHIFT;
}

/* The same row in another state from now on. */
static inline uint64_t tag_move(uint64_t tag, enum ledger_row_state state, uint32_t since_ms)
{
    return tag_make(state, tag_slot(tag), tag_generation(tag), since_ms);
}

/* --- small things -------------------------------------------------------------------------------------------------- */

static inline uint32_t clock_monotonic_ms(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint32_t)((uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000);
}

/* Not modulo 2^32. */
static inline uint64_t clock_monotonic_full_ms(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static inline uint64_t clock_realtime_ns(clockid_t clock)
{
    struct timespec now;
    (void)clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000000000U + (uint64_t)now.tv_nsec;
}

static inline uint64_t bytes_add(uint64_t a, uint64_t b)
{
    uint64_t sum;
    return __builtin_add_overflow(a, b, &sum) ? UINT64_MAX : sum;
}

static inline uint64_t bytes_less(uint64_t a, uint64_t b)
{
    return a > b ? a - b : 0;
}

static inline void word_raise(ledger_word *word, uint64_t value)
{
    uint64_t seen = atomic_load_explicit(word, memory_order_relaxed);
    while (seen < value &&
           !atomic_compare_exchange_weak_explicit(word, &seen, value, memory_order_relaxed, memory_order_relaxed)) {
    }
}

/* Raises a count of entries in use. Sequentially consistent, like the loads above. */
static inline void high_raise(_Atomic(uint32_t) *high, uint32_t value)
{
    uint32_t seen = atomic_load(high);
    while (seen < value && !atomic_compare_exchange_weak(high, &seen, value)) {
    }
}

__attribute__((format(printf, 2, 3))) static inline void fault_set(struct ledger_fault *fault, const char *format, ...)
{
    va_list arguments;
    if (fault == NULL)
        return;
    va_start(arguments, format);
    (void)vsnprintf(fault->text, sizeof fault->text, format, arguments);
    va_end(arguments);
}

/* Two sizes for one sentence: as people write them, or to the byte where that would make them look alike. */
struct size_pair {
    char first[32], second[32];
};
void size_pair_format(struct size_pair *pair, uint64_t first, uint64_t second);

#endif
