/* The ring of events; events.h has who calls it. An entry is written by whoever took its number. One whose writer was stopped
 * while others went once around, and who then goes on, is spoiled for both: its check does not hold. */
#include "config.h"

#include <errno.h>
#include <string.h>
#include "ledger/events.h"
#include "ledger/layout.h"
#include "platform/futex.h"
#include "platform/testpoint.h"

enum { NONE_BYTE = 255, NONE_ROW = 0xFFFF };

static struct ledger_event_entry *entry_at(const struct ledger *ledger, uint64_t number)
{
    return (struct ledger_event_entry *)layout_at(ledger, LEDGER_OFFSET_EVENTS) + number % LEDGER_EVENTS;
}

const char *ledger_why_text(enum ledger_why why)
{
    static const char *const texts[LEDGER_WHYS] = {
        [LEDGER_WHY_NONE] = "",
        [LEDGER_WHY_LIMIT] = "it would pass the slot's limit",
        [LEDGER_WHY_BUDGET] = "it is more than the budget less what is reserved for others",
        [LEDGER_WHY_WAITED] = "nothing came free in time",
        [LEDGER_WHY_NO_WAIT] = "it does not fit now and was not to wait",
        [LEDGER_WHY_AGAIN] = "the same was refused a moment before",
        [LEDGER_WHY_NOT_QUIET] = "a thread stayed inside the driver",
        [LEDGER_WHY_LOCK] = "the driver could not be locked in time",
        [LEDGER_WHY_CHECKPOINT] = "the driver would not checkpoint",
        [LEDGER_WHY_HOST] = "no host memory is left for its image",
        [LEDGER_WHY_UNEVICTABLE] = "it cannot be evicted",
        [LEDGER_WHY_NO_ROOM] = "the card has less room than the books say",
        [LEDGER_WHY_OPERATOR] = "an operator asked",
        [LEDGER_WHY_WITHDRAWN] = "who asked does not need it any more",
    };
    return (unsigned)why < LEDGER_WHYS ? texts[why] : "for a reason that is not known here";
}

const char *ledger_event_name(enum ledger_event_kind kind)
{
    static const char *const names[LEDGER_EVENT_KINDS] = {
        [LEDGER_EVENT_NONE] = "none",     [LEDGER_EVENT_ASK] = "ask",           [LEDGER_EVENT_DECLINE] = "decline",
        [LEDGER_EVENT_EVICT] = "evict",   [LEDGER_EVENT_RESTORE] = "restore",   [LEDGER_EVENT_WAIT] = "wait",
        [LEDGER_EVENT_REFUSE] = "refuse", [LEDGER_EVENT_PRESSURE] = "pressure", [LEDGER_EVENT_REAP] = "reap",
        [LEDGER_EVENT_LOST] = "lost",     [LEDGER_EVENT_CHARGE] = "charge",     [LEDGER_EVENT_CREDIT] = "credit",
    };
    return (unsigned)kind < LEDGER_EVENT_KINDS ? names[kind] : "unknown";
}

/* FNV-1a over what an entry says, and its number. */
static uint64_t entry_check(const struct ledger_event_entry *entry, uint64_t number)
{
    const unsigned char *at = (const unsigned char *)&entry->time_ns;
    const unsigned char *end = (const unsigned char *)&entry->check;
    uint64_t hash = 0xCBF29CE484222325ULL ^ number;
    for (; at < end; at++)
        hash = (hash ^ *at) * 0x100000001B3ULL;
    return hash;
}

static void owner_fill(const struct ledger *ledger, struct ledger_event_record *event)
{
    if (event->row < 0 || event->row >= LEDGER_ROWS)
        return;
    if (event->pid == 0)
        event->pid = atomic_load_explicit(&layout_row(ledger, (unsigned)event->row)->pid, memory_order_relaxed);
    if (event->slot < 0)
        event->slot = (int)tag_slot(atomic_load(layout_tag(ledger, (unsigned)event->row)));
}

void ledger_event_add(struct ledger *ledger, struct ledger_event_record *event)
{
    int before = errno;
    struct ledger_header *header = layout_header(ledger);
    owner_fill(ledger, event);
    event->time_ns = clock_realtime_ns(CLOCK_REALTIME);
    event->number = atomic_fetch_add(&header->events, 1) + 1;
    struct ledger_event_entry *entry = entry_at(ledger, event->number),
                              filled = {
                                  .time_ns = event->time_ns,
                                  .duration_ns = event->duration_ns,
                                  .bytes = event->bytes,
                                  .pid = event->pid,
                                  .kind = (uint16_t)event->kind,
                                  .row = event->row >= 0 && event->row < LEDGER_ROWS ? (uint16_t)event->row : NONE_ROW,
                                  .other =
                                      event->other >= 0 && event->other < NONE_ROW ? (uint16_t)event->other : NONE_ROW,
                                  .slot =
                                      event->slot >= 0 && event->slot < LEDGER_SLOTS ? (uint8_t)event->slot : NONE_BYTE,
                                  .device = event->device >= 0 && event->device < LEDGER_DEVICES
                                                ? (uint8_t)event->device
                                                : NONE_BYTE,
                                  .text = (uint32_t)event->why,
                              };
    filled.check = entry_check(&filled, event->number);
    atomic_store_explicit(&entry->number, 0, memory_order_relaxed);
    atomic_thread_fence(memory_order_release);
    memcpy((char *)entry + sizeof entry->number, (const char *)&filled + sizeof filled.number,
           sizeof filled - sizeof filled.number);
    TESTPOINT("event.written");
    atomic_store_explicit(&entry->number, event->number, memory_order_release);
    if (atomic_load_explicit(&header->events_followed, memory_order_relaxed) != 0) {
        (void)atomic_fetch_add(&header->events_signal, 1);
        futex_wake_all(&header->events_signal);
    }
    errno = before;
}

uint64_t ledger_event_count(const struct ledger *ledger)
{
    return atomic_load(&layout_header(ledger)->events);
}

bool ledger_event_read(const struct ledger *ledger, uint64_t number, struct ledger_event_record *event)
{
    struct ledger_event_entry *entry = entry_at(ledger, number), copy;
    if (number == 0 || atomic_load_explicit(&entry->number, memory_order_acquire) != number)
        return false;
    memcpy((char *)&copy + sizeof copy.number, (const char *)entry + sizeof entry->number,
           sizeof copy - sizeof copy.number);
    atomic_thread_fence(memory_order_acquire);
    if (atomic_load_explicit(&entry->number, memory_order_relaxed) != number ||
        copy.check != entry_check(&copy, number) || copy.kind == LEDGER_EVENT_NONE || copy.kind >= LEDGER_EVENT_KINDS)
        return false;
    *event = (struct ledger_event_record){
        .number = number,
        .time_ns = copy.time_ns,
        .duration_ns = copy.duration_ns,
        .bytes = copy.bytes,
        .pid = copy.pid,
        .kind = (enum ledger_event_kind)copy.kind,
        .row = copy.row < LEDGER_ROWS ? copy.row : -1,
        .other = copy.other < LEDGER_ROWS || copy.kind == LEDGER_EVENT_PRESSURE ? copy.other : -1,
        .slot = copy.slot < LEDGER_SLOTS ? copy.slot : -1,
        .device = copy.device < LEDGER_DEVICES ? copy.device : -1,
        .why = (enum ledger_why)copy.text,
    };
    return true;
}

void ledger_events_sleep(struct ledger *ledger, uint64_t seen, uint32_t timeout_ms)
{
    struct ledger_header *header = layout_header(ledger);
    uint32_t signal = atomic_load(&header->events_signal);
    atomic_store(&header->events_followed, 1); /* never taken back: a store to a shared word for each event is cheap */
    if (ledger_event_count(ledger) == seen)
        (void)futex_wait(&header->events_signal, signal, timeout_ms);
}

void ledger_follow_look(struct ledger *ledger, struct ledger_follow *follow)
{
    struct ledger_header *header = layout_header(ledger);
    atomic_store(&header->events_followed, 1);
    follow->signal = atomic_load(&header->events_signal);
    for (unsigned device = 0; device < LEDGER_DEVICES; device++)
        follow->generations[device] = atomic_load(layout_generation(ledger, device));
}

int ledger_follow_sleep(struct ledger *ledger, const struct ledger_follow *follow, uint32_t timeout_ms)
{
    struct futex_look looks[1 + LEDGER_DEVICES] = {{&layout_header(ledger)->events_signal, follow->signal}};
    for (unsigned device = 0; device < LEDGER_DEVICES; device++)
        looks[1 + device] = (struct futex_look){layout_generation(ledger, device), follow->generations[device]};
    return futex_wait_any(looks, 1 + LEDGER_DEVICES, timeout_ms);
}
