/* Who holds more than was lowered; see over.h. */
#include "config.h"

#include "cli/over.h"
#include "cli/output.h"
#include "platform/size.h"

static uint64_t sum(uint64_t a, uint64_t b)
{
    uint64_t result;
    return __builtin_add_overflow(a, b, &result) ? UINT64_MAX : result;
}

uint64_t over_slot_held(const struct snapshot *snapshot, unsigned slot, unsigned at)
{
    uint64_t bytes = 0;
    for (unsigned i = 0; i < snapshot->process_count; i++) {
        const struct snapshot_process *process = &snapshot->processes[i];
        if (process->slot == slot && process->device == (int)at && process->row_state == LEDGER_ROW_LIVE)
            bytes = sum(bytes, process->used_bytes);
    }
    return bytes;
}

uint64_t over_budget(const struct snapshot_device *device)
{
    uint64_t held = sum(device->used_bytes, device->dead_bytes);
    return held > device->budget_bytes ? held - device->budget_bytes : 0;
}

uint64_t over_limit(const struct snapshot *snapshot, unsigned slot, unsigned at)
{
    uint64_t held = over_slot_held(snapshot, slot, at), limit = snapshot->slots[slot].limit_bytes;
    return held > limit ? held - limit : 0;
}

void over_say(const struct snapshot *snapshot, int slot)
{
    static const char rest[] = "nothing is taken away, and nothing more is granted until it fits";
    char held[SIZE_TEXT_BYTES], bound[SIZE_TEXT_BYTES];
    for (unsigned at = 0; at < snapshot->device_count; at++) {
        const struct snapshot_device *device = &snapshot->devices[at];
        if (slot < 0 && over_budget(device) != 0)
            (void)fault_say(0, "device %u: %s are held, above the budget of %s: %s", device->index,
                            size_format(sum(device->used_bytes, device->dead_bytes), held, sizeof held),
                            size_format(device->budget_bytes, bound, sizeof bound), rest);
        for (unsigned i = 0; i < snapshot->slot_count; i++)
            if ((slot < 0 || (unsigned)slot == i) && over_limit(snapshot, i, at) != 0)
                (void)fault_say(0, "slot '%s' holds %s of device %u, above its limit of %s: %s",
                                snapshot->slots[i].name,
                                size_format(over_slot_held(snapshot, i, at), held, sizeof held), device->index,
                                size_format(snapshot->slots[i].limit_bytes, bound, sizeof bound), rest);
    }
}
