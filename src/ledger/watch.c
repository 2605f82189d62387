/*
 * Telling who wants to know that a device's level of pressure has changed. Called by whoever changes what is held (charge.c,
 * row.c, reap.c) where somebody watches, and by the C API.
 *
 * There is no total in the ledger, so the changer notices: after its change it sums, and where the level is not the published
 * one it publishes. One word per device holds the count of changes and the last 16 levels, moved by compare-and-swap alone, so a
 * change is counted and told in one store, by whoever makes it. Why nobody who watches sleeps for ever on a level that is over:
 *   - A change that is published is read again afterwards. Of two changers at once, either the second finds the first one's
 *     word and corrects it, or the first, after its own store, sums what the second has changed. (Both fence: the store of the
 *     change, then the load of the word; the store of the word, then the loads of the sum.)
 *   - Who begins to watch raises `watchers`, waits until every processor has seen that, or what it stored before (membarrier),
 *     and then sums himself. A changer that did not see `watchers` had its change seen by that sum.
 *   - A changer may die between its change and the word, or between the word and the wake. A watcher therefore looks himself now
 *     and then (the C API: each second), and publishes what he finds.
 * `watchers` is a count of beginnings and no count of watchers: whether any lives, the kernel's lock on the watch byte says, and
 * where none does anybody makes it 0 again, unless it has moved since he read it.
 */
#include "config.h"

#include <errno.h>
#include <linux/membarrier.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "ledger/layout.h"
#include "ledger/snapshot.h"
#include "platform/futex.h"
#include "platform/testpoint.h"

enum { ROUNDS_MAX = 1000 }; /* others who never rest: the last of them publishes what is true */

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the count is the upper half of the word");

static uint32_t generation_of(uint64_t word)
{
    return (uint32_t)(word >> 32);
}

static unsigned level_of(uint64_t word)
{
    return (unsigned)(word & 3);
}

uint64_t ledger_used(const struct ledger *ledger, unsigned device)
{
    uint64_t sum = 0;
    unsigned high = layout_rows_high(ledger);
    for (unsigned row = 0; row < high; row++) {
        uint64_t bytes = atomic_load(&layout_cell(ledger, device, row)->committed_bytes);
        if (bytes != 0 && tag_state(atomic_load(layout_tag(ledger, row))) == LEDGER_ROW_LIVE)
            sum = bytes_add(sum, bytes);
    }
    return sum;
}

unsigned ledger_pressure_level(const struct ledger *ledger, unsigned device)
{
    return (unsigned)pressure_of(ledger_used(ledger, device), layout_budget(ledger, device));
}

/* Before the count moves on from a sixteenth change, its word is kept: whoever moves it keeps the same word first. */
static void history_keep(struct ledger_device *entry, uint64_t word)
{
    uint32_t generation = generation_of(word);
    if (generation % LEDGER_LEVELS == LEDGER_LEVELS - 1)
        word_raise(&entry->pressure_before[generation / LEDGER_LEVELS % LEDGER_HISTORY], word);
}

void ledger_pressure_publish(struct ledger *ledger, unsigned device)
{
    struct ledger_device *entry = layout_device(ledger, device);
    atomic_thread_fence(memory_order_seq_cst);
    for (unsigned round = 0; round < ROUNDS_MAX; round++) {
        uint64_t word = atomic_load(&entry->pressure);
        unsigned level = ledger_pressure_level(ledger, device);
        if (level == level_of(word))
            return;
        if (ledger_pressure_level(ledger, device) != level) /* bytes that moved behind the first look */
            continue;
        uint64_t next = (uint64_t)(generation_of(word) + 1) << 32 | (uint32_t)(word << 2) | level;
        history_keep(entry, word);
        TESTPOINT("pressure.looked");
        if (!atomic_compare_exchange_strong(&entry->pressure, &word, next))
            continue;
        TESTPOINT("pressure.published");
        futex_wake_all(layout_generation(ledger, device));
    }
}

void ledger_pressure_publish_all(struct ledger *ledger)
{
    for (unsigned device = 0; device < LEDGER_DEVICES; device++)
        pressure_touch(ledger, device);
}

/* --- watching ---------------------------------------------------------------------------------------------------------- */

int ledger_watch_begin(struct ledger *ledger, unsigned device, struct ledger_watch *watch)
{
    int before = errno;
    *watch = (struct ledger_watch){.device = device};
    int result = liveness_share(ledger->path, ledger->file.device, ledger->file.inode,
                                LEDGER_WATCH_BYTE + (off_t)device, &watch->page);
    if (result == 0) {
        /* The byte first: who finds the count as it was before it looked at the byte may make it 0. */
        _Atomic(uint32_t) *watchers = &layout_device(ledger, device)->watchers;
        if (atomic_fetch_add(watchers, 1) == UINT32_MAX)
            (void)atomic_fetch_add(watchers, 1);
        (void)syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0,
                      0); /* where it is refused, the look of each second remains */
        ledger_pressure_publish(ledger, device);
    }
    errno = before;
    return result;
}

void ledger_watch_end(struct ledger *ledger, struct ledger_watch *watch)
{
    liveness_unshare(watch->page);
    watch->page = NULL;
    ledger_watch_prune(ledger);
}

void ledger_watch_prune(struct ledger *ledger)
{
    int before = errno, descriptor = -1;
    for (unsigned device = 0; device < LEDGER_DEVICES; device++) {
        _Atomic(uint32_t) *watchers = &layout_device(ledger, device)->watchers;
        uint32_t seen = atomic_load(watchers);
        if (seen == 0)
            continue;
        if (descriptor < 0)
            descriptor = liveness_open(ledger->path, ledger->file.device, ledger->file.inode);
        if (descriptor >= 0 && liveness_look(descriptor, LEDGER_WATCH_BYTE + (off_t)device) == 0)
            (void)atomic_compare_exchange_strong(watchers, &seen, 0);
    }
    if (descriptor >= 0)
        (void)close(descriptor);
    errno = before;
}

struct ledger_pressure ledger_pressure_read(const struct ledger *ledger, unsigned device)
{
    uint64_t word = atomic_load(&layout_device(ledger, device)->pressure);
    return (struct ledger_pressure){.generation = generation_of(word), .level = level_of(word)};
}

int ledger_pressure_told(const struct ledger *ledger, unsigned device, uint32_t generation)
{
    const struct ledger_device *entry = layout_device(ledger, device);
    uint64_t word = atomic_load(&entry->pressure);
    uint32_t age = generation_of(word) - generation;
    if (age >= LEDGER_LEVELS) { /* kept before the count moved on, so before the word that says so could be read */
        word = atomic_load(&entry->pressure_before[generation / LEDGER_LEVELS % LEDGER_HISTORY]);
        age = generation_of(word) - generation;
    }
    return age < LEDGER_LEVELS ? (int)(word >> 2 * age & 3) : -1;
}

void ledger_pressure_sleep(struct ledger *ledger, unsigned device, uint32_t generation, uint32_t timeout_ms)
{
    (void)futex_wait(layout_generation(ledger, device), generation, timeout_ms);
}

void ledger_pressure_wake(struct ledger *ledger, unsigned device)
{
    futex_wake_all(layout_generation(ledger, device));
}

bool ledger_device_is_claimed(const struct ledger *ledger, unsigned device)
{
    return device < LEDGER_DEVICES && atomic_load(&layout_device(ledger, device)->claim) != 0;
}

int ledger_device_find(const struct ledger *ledger, const uint8_t uuid[LEDGER_UUID_BYTES])
{
    for (unsigned device = 0; device < LEDGER_DEVICES; device++) {
        const struct ledger_device *entry = layout_device(ledger, device);
        if (atomic_load(&entry->claim) != 0 && (uuid == NULL || memcmp(entry->uuid, uuid, LEDGER_UUID_BYTES) == 0))
            return (int)device;
    }
    return -ENODEV;
}

void ledger_device_uuid(const struct ledger *ledger, unsigned device, uint8_t uuid[LEDGER_UUID_BYTES])
{
    memcpy(uuid, layout_device(ledger, device)->uuid, LEDGER_UUID_BYTES);
}
