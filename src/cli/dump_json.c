/*
 * cubudget dump --json. Sizes are in bytes; what is not known is null, never 0. jansson keeps signed numbers: what is above
 * 2^63 (only a damaged ledger has it) is shown as the most it can.
 */
#include "config.h"

#include <time.h>
#include "cli/dump.h"
#include "cli/over.h"

static json_t *number(uint64_t value)
{
    return json_integer(value <= INT64_MAX ? (json_int_t)value : INT64_MAX);
}

/* Takes `value` over; a failure shows in json_dumps or as a missing key only where memory is spent, which jansson reports
 * by NULL from `value` itself. */
static void put(json_t *object, const char *key, json_t *value, bool *good)
{
    if (json_object_set_new(object, key, value) != 0)
        *good = false;
}

/* Seconds since 1970 in UTC as RFC 3339 writes them, to the millisecond. */
static json_t *time_text(uint64_t since_ns)
{
    char text[64], seconds[48];
    time_t since = (time_t)(since_ns / 1000000000U);
    struct tm parts;
    if (since_ns == 0 || gmtime_r(&since, &parts) == NULL)
        return json_null();
    (void)strftime(seconds, sizeof seconds, "%Y-%m-%dT%H:%M:%S", &parts);
    (void)snprintf(text, sizeof text, "%s.%03uZ", seconds, (unsigned)(since_ns / 1000000U % 1000U));
    return json_string(text);
}

static json_t *device_json(const struct dump *dump, unsigned at, bool *good)
{
    const struct snapshot_device *device = &dump->snapshot.devices[at];
    char uuid[DUMP_UUID_TEXT];
    json_t *object = json_object();
    put(object, "index", number(device->index), good);
    put(object, "uuid", json_string(dump_uuid_text(device->uuid, uuid)), good);
    put(object, "name", json_string(device->name), good);
    put(object, "simulated", json_boolean(device->simulated), good);
    put(object, "total_bytes", number(device->total_bytes), good);
    put(object, "budget_bytes", number(device->budget_bytes), good);
    put(object, "used_bytes", number(device->used_bytes), good);
    put(object, "available_bytes", number(device->available_bytes), good);
    put(object, "over_bytes", number(over_budget(device)), good);
    put(object, "peak_bytes", number(device->peak_bytes), good);
    put(object, "pressure", json_string(pressure_name(device->pressure)), good);
    if (dump->has_witness[at]) {
        put(object, "simulator_used_bytes", number(dump->witness[at].used_bytes), good);
        put(object, "simulator_peak_bytes", number(dump->witness[at].peak_bytes), good);
    }
    return object;
}

/* The most by which it is above its limit on any device. */
static uint64_t slot_over(const struct snapshot *snapshot, unsigned slot)
{
    uint64_t most = 0;
    for (unsigned at = 0; at < snapshot->device_count; at++) {
        uint64_t over = over_limit(snapshot, slot, at);
        most = over > most ? over : most;
    }
    return most;
}

static json_t *slot_json(const struct snapshot *snapshot, unsigned at, bool *good)
{
    const struct snapshot_slot *slot = &snapshot->slots[at];
    json_t *object = json_object();
    put(object, "name", json_string(slot->name), good);
    put(object, "limit_bytes", slot->limit_bytes == LEDGER_NO_LIMIT ? json_null() : number(slot->limit_bytes), good);
    put(object, "reserve_bytes", number(slot->reserve_bytes), good);
    put(object, "priority", number(slot->priority), good);
    put(object, "used_bytes", number(slot->used_bytes), good);
    put(object, "over_bytes", number(slot_over(snapshot, at)), good);
    put(object, "evicted_bytes", number(slot->evicted_bytes), good);
    put(object, "peak_bytes", number(slot->peak_bytes), good);
    put(object, "allocations", number(slot->allocations), good);
    put(object, "frees", number(slot->frees), good);
    put(object, "refusals", number(slot->refusals), good);
    put(object, "evictions", number(slot->evictions), good);
    put(object, "restores", number(slot->restores), good);
    put(object, "waits", number(slot->waits), good);
    return object;
}

/* What a process stands in line for; null: it does not. */
static json_t *waiting_json(const struct snapshot *snapshot, const struct snapshot_wait *wait, bool *good)
{
    if (wait->kind == LEDGER_WAITING_NOT)
        return json_null();
    json_t *object = json_object(), *whom = wait->for_row >= 0 ? json_object() : json_null();
    put(object, "kind", json_string(wait->kind == LEDGER_WAITING_RESTORE ? "restore" : "allocation"), good);
    put(object, "bytes", number(wait->bytes), good);
    put(object, "device", wait->device >= 0 ? number(snapshot->devices[wait->device].index) : json_null(), good);
    put(object, "since", time_text(wait->since_ns), good);
    if (wait->for_row >= 0) {
        put(whom, "pid", number(wait->for_pid), good);
        put(whom, "slot", wait->for_slot >= 0 ? json_string(snapshot->slots[wait->for_slot].name) : json_null(), good);
    }
    put(object, "for", whom, good);
    return object;
}

static json_t *process_json(const struct dump *dump, unsigned at, bool *good)
{
    const struct snapshot *snapshot = &dump->snapshot;
    const struct snapshot_process *process = &snapshot->processes[at];
    const struct drift *drift = &dump->drift[at];
    json_t *object = json_object(), *kinds = json_object();
    /* When a dead process died is not in the ledger; the time it holds is of its life. */
    bool alive = process->row_state == LEDGER_ROW_LIVE;
    put(object, "pid", number(process->pid), good);
    put(object, "slot", json_string(snapshot->slots[process->slot].name), good);
    put(object, "device", process->device >= 0 ? number(snapshot->devices[process->device].index) : json_null(), good);
    put(object, "command", json_string(process->command), good);
    put(object, "state", json_string(dump_state_name(process)), good);
    put(object, "state_since", alive ? time_text(process->state_since_ns) : json_null(), good);
    put(object, "evictable", json_boolean(process->evictable), good);
    put(object, "unevictable_reason",
        process->evictable           ? json_null()
        : process->reason[0] != '\0' ? json_string(process->reason)
                                     : json_string("not known yet"),
        good);
    put(object, "waiting_for", waiting_json(snapshot, &process->wait, good), good);
    put(object, "used_bytes", number(process->used_bytes), good);
    put(object, "evicted_bytes", number(process->evicted_bytes), good);
    put(object, "host_bytes", number(process->host_bytes), good);
    for (unsigned kind = 0; kind < LEDGER_KIND_COUNT; kind++)
        put(kinds, ledger_kind_name((enum ledger_kind)kind), number(process->by_kind[kind]), good);
    put(object, "by_kind", kinds, good);
    put(object, "driver_bytes", drift->known ? number(drift->driver_bytes) : json_null(), good);
    put(object, "drift_bytes", drift->known ? json_integer(drift->drift_bytes) : json_null(), good);
    return object;
}

json_t *dump_json(const struct dump *dump)
{
    const struct snapshot *snapshot = &dump->snapshot;
    json_t *root = json_object(), *devices = json_array(), *slots = json_array(), *processes = json_array();
    bool good = true;
    for (unsigned i = 0; i < snapshot->device_count; i++)
        good = json_array_append_new(devices, device_json(dump, i, &good)) == 0 && good;
    for (unsigned i = 0; i < snapshot->slot_count; i++)
        good = json_array_append_new(slots, slot_json(snapshot, i, &good)) == 0 && good;
    for (unsigned i = 0; i < snapshot->process_count; i++)
        good = json_array_append_new(processes, process_json(dump, i, &good)) == 0 && good;
    put(root, "ledger", json_string(snapshot->name), &good);
    put(root, "version", number(snapshot->version), &good);
    put(root, "devices", devices, &good);
    put(root, "slots", slots, &good);
    put(root, "processes", processes, &good);
    if (good)
        return root;
    json_decref(root);
    return NULL;
}
