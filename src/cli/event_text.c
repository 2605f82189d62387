/* An event as a line for people or as one JSON object; see event_text.h. */
#include "config.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include "cli/event_text.h"
#include "ledger/snapshot.h"
#include "platform/size.h"

/* A process that an event is about, as it is called now. */
struct party {
    bool known;
    uint32_t pid;
    char slot[LEDGER_NAME_BYTES]; /* "": unknown */
};

enum { WHO_BYTES = LEDGER_NAME_BYTES + 32, SENTENCE_BYTES = 512 };

/* --- who ---------------------------------------------------------------------------------------------------------------- */

static void party_find(const struct ledger *ledger, int row, uint64_t time_ns, struct party *party)
{
    unsigned slot;
    *party = (struct party){0};
    if (row < 0 || !snapshot_row_owner(ledger, (unsigned)row, time_ns, &party->pid, &slot))
        return;
    party->known = true;
    (void)snapshot_slot_name(ledger, slot, party->slot);
}

/* Whom the event is about: what it says itself, which stays true when the row is another's. */
static void owner_find(const struct ledger *ledger, const struct ledger_event_record *event, struct party *party)
{
    *party = (struct party){.known = event->row >= 0, .pid = event->pid};
    if (event->slot >= 0)
        (void)snapshot_slot_name(ledger, (unsigned)event->slot, party->slot);
}

static const char *party_text(const struct party *party, char text[WHO_BYTES])
{
    if (!party->known)
        (void)snprintf(text, WHO_BYTES, "somebody");
    else if (party->slot[0] == '\0')
        (void)snprintf(text, WHO_BYTES, "process %u", party->pid);
    else
        (void)snprintf(text, WHO_BYTES, "%s (%u)", party->slot, party->pid);
    return text;
}

/* --- for people ------------------------------------------------------------------------------------------------------------ */

/* " after 1.2 s", or nothing where it took no time that was measured. */
static const char *duration_text(const char *before, uint64_t duration_ns, char text[48])
{
    double ms = (double)duration_ns / 1e6;
    if (duration_ns == 0)
        text[0] = '\0';
    else if (ms < 10)
        (void)snprintf(text, 48, " %s %.2f ms", before, ms);
    else if (ms < 1000)
        (void)snprintf(text, 48, " %s %.0f ms", before, ms);
    else
        (void)snprintf(text, 48, " %s %.1f s", before, ms / 1000);
    return text;
}

/* " of device 0", or nothing. */
static const char *device_text(int device, char text[32])
{
    text[0] = '\0';
    if (device >= 0)
        (void)snprintf(text, 32, " of device %d", device);
    return text;
}

static void sentence_write(const struct ledger_event_record *event, const struct party *owner,
                           const struct party *other, char text[SENTENCE_BYTES])
{
    char who[WHO_BYTES], whom[WHO_BYTES], size[SIZE_TEXT_BYTES], took[48], where[32];
    const char *why = ledger_why_text(event->why), *because = *why != '\0' ? ": " : "";
    (void)party_text(owner, who);
    (void)party_text(other, whom);
    (void)size_format(event->bytes, size, sizeof size);
    (void)device_text(event->device, where);
    switch (event->kind) {
    case LEDGER_EVENT_ASK:
        if (event->row < 0)
            (void)snprintf(text, SENTENCE_BYTES, "%s is asked to leave%s%s", whom, because, why);
        else
            (void)snprintf(text, SENTENCE_BYTES, "%s is asked to leave: %s needs %s%s", whom, who, size, where);
        break;
    case LEDGER_EVENT_DECLINE:
        (void)snprintf(text, SENTENCE_BYTES, "%s stays%s%s%s", who, duration_text("after", event->duration_ns, took),
                       because, why);
        break;
    case LEDGER_EVENT_EVICT:
        (void)snprintf(text, SENTENCE_BYTES, "%s has left with %s%s%s", who, size, where,
                       duration_text("in", event->duration_ns, took));
        break;
    case LEDGER_EVENT_RESTORE:
        (void)snprintf(text, SENTENCE_BYTES, "%s is back with %s%s%s", who, size, where,
                       duration_text("after", event->duration_ns, took));
        break;
    case LEDGER_EVENT_WAIT:
        (void)snprintf(text, SENTENCE_BYTES, "%s was granted %s%s%s", who, size, where,
                       duration_text("after", event->duration_ns, took));
        break;
    case LEDGER_EVENT_REFUSE:
        (void)snprintf(text, SENTENCE_BYTES, "%s was refused %s%s%s%s%s", who, size, where,
                       duration_text("after", event->duration_ns, took), because, why);
        break;
    case LEDGER_EVENT_PRESSURE:
        (void)snprintf(text, SENTENCE_BYTES, "device %d is at %s%s%s%s", event->device,
                       pressure_name((enum pressure_level)(event->other & 3)),
                       event->bytes != EVENT_BYTES_UNKNOWN ? ", with " : "",
                       event->bytes != EVENT_BYTES_UNKNOWN ? size : "",
                       event->bytes != EVENT_BYTES_UNKNOWN ? " used" : "");
        break;
    case LEDGER_EVENT_REAP:
        (void)snprintf(text, SENTENCE_BYTES, "%s has died, and %s%s are free", who, size, where);
        break;
    case LEDGER_EVENT_LOST:
        (void)snprintf(text, SENTENCE_BYTES, "%s could not be restored%s%s", who, because, why);
        break;
    default:
        (void)snprintf(text, SENTENCE_BYTES, "%s: %s%s", who, size, where);
        break;
    }
}

/* In the user's own time, to the millisecond, as logs have it. */
static void line_print(const struct ledger_event_record *event, const char *sentence)
{
    char seconds[48] = "?";
    time_t time = (time_t)(event->time_ns / 1000000000U);
    struct tm parts;
    if (localtime_r(&time, &parts) != NULL)
        (void)strftime(seconds, sizeof seconds, "%Y-%m-%d %H:%M:%S", &parts);
    (void)printf("%s.%03u %-8s %s\n", seconds, (unsigned)(event->time_ns / 1000000U % 1000U),
                 ledger_event_name(event->kind), sentence);
}

/* --- for programs ------------------------------------------------------------------------------------------------------------ */

static json_t *number(uint64_t value)
{
    return json_integer(value <= INT64_MAX ? (json_int_t)value : INT64_MAX);
}

static json_t *time_json(uint64_t time_ns)
{
    char text[64], seconds[48];
    time_t time = (time_t)(time_ns / 1000000000U);
    struct tm parts;
    if (gmtime_r(&time, &parts) == NULL)
        return json_null();
    (void)strftime(seconds, sizeof seconds, "%Y-%m-%dT%H:%M:%S", &parts);
    (void)snprintf(text, sizeof text, "%s.%03uZ", seconds, (unsigned)(time_ns / 1000000U % 1000U));
    return json_string(text);
}

static json_t *party_json(const struct party *party)
{
    if (!party->known)
        return json_null();
    return json_pack("{s:o, s:o}", "pid", number(party->pid), "slot",
                     party->slot[0] != '\0' ? json_string(party->slot) : json_null());
}

static json_t *event_json(const struct ledger_event_record *event, const struct party *owner, const struct party *other)
{
    bool level = event->kind == LEDGER_EVENT_PRESSURE;
    const char *why = ledger_why_text(event->why);
    return json_pack("{s:o, s:o, s:s, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "time", time_json(event->time_ns),
                     "number", event->number != 0 ? number(event->number) : json_null(), "event",
                     ledger_event_name(event->kind), "pid", owner->known ? number(owner->pid) : json_null(), "slot",
                     owner->slot[0] != '\0' ? json_string(owner->slot) : json_null(), "device",
                     event->device >= 0 ? json_integer(event->device) : json_null(), "bytes",
                     event->bytes != EVENT_BYTES_UNKNOWN ? number(event->bytes) : json_null(), "duration_ms",
                     event->duration_ns != 0 ? json_real((double)(event->duration_ns / 1000U) / 1000) : json_null(),
                     "reason", *why != '\0' ? json_string(why) : json_null(), "other",
                     level ? json_null() : party_json(other), "pressure",
                     level ? json_string(pressure_name((enum pressure_level)(event->other & 3))) : json_null());
}

bool event_print(const struct ledger *ledger, const struct ledger_event_record *event, bool json)
{
    char sentence[SENTENCE_BYTES];
    struct party owner, other;
    owner_find(ledger, event, &owner);
    party_find(ledger, event->kind == LEDGER_EVENT_PRESSURE ? -1 : event->other, event->time_ns, &other);
    if (!json) {
        sentence_write(event, &owner, &other, sentence);
        line_print(event, sentence);
        return true;
    }
    json_t *object = event_json(event, &owner, &other);
    if (object == NULL)
        return false;
    (void)json_dumpf(object, stdout, JSON_COMPACT | JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(9));
    (void)putchar('\n');
    json_decref(object);
    return true;
}
