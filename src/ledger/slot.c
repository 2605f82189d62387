/*
 * Slots and devices: found by name or uuid and added once; and a device's budget, decided once. Called by src/account and the
 * command. What is changed later is in terms.c.
 *
 * An entry is claimed by one compare-and-swap of its name's hash into the claim word; the name follows, written by
 * whoever knows it, always the same bytes. So two who add the same name at once get one entry, and one who dies after
 * the claim leaves an entry that the next who knows the name completes. Entries are never given back.
 */
#include "config.h"

#include <errno.h>
#include <string.h>
#include "ledger/layout.h"
#include "ledger/terms.h"
#include "platform/testpoint.h"

/* FNV-1a, 64 bits; 0 means "free" in a claim word and is never a hash. */
static uint64_t bytes_hash(const void *bytes, size_t count)
{
    const unsigned char *at = bytes;
    uint64_t hash = 0xCBF29CE484222325ULL;
    for (size_t i = 0; i < count; i++)
        hash = (hash ^ at[i]) * 0x100000001B3ULL;
    return hash != 0 ? hash : 1;
}

/* Writes only what differs: others may be reading, and nearly always it is all there. */
static void text_complete(char *to, const void *from, size_t bytes)
{
    if (memcmp(to, from, bytes) != 0)
        memcpy(to, from, bytes);
}

/* Whether entry's claim word is, or by this call becomes, `hash`. Words fill from the front and never empty, so the
 * first free one is where a name that was not found before it belongs; losing the race for it means looking again. */
static bool claim_take(ledger_word *claim, uint64_t hash)
{
    uint64_t seen = atomic_load(claim);
    if (seen == 0 && atomic_compare_exchange_strong(claim, &seen, hash))
        return true;
    return seen == hash;
}

int ledger_slot_claim(struct ledger *ledger, const char *name)
{
    size_t bytes = strnlen(name, LEDGER_NAME_BYTES - 1);
    uint64_t hash = bytes_hash(name, bytes);
    for (unsigned i = 0; i < LEDGER_SLOTS; i++) {
        struct ledger_slot *slot = layout_slot(ledger, i);
        if (!claim_take(&slot->claim, hash))
            continue;
        TESTPOINT("slot.claimed");
        text_complete(slot->name, name, bytes);
        high_raise(&layout_header(ledger)->slots_high, i + 1); /* before any row's tag names it */
        return (int)i;
    }
    return -ENOSPC;
}

int ledger_device_claim(struct ledger *ledger, const uint8_t uuid[LEDGER_UUID_BYTES], const char *name)
{
    uint64_t hash = bytes_hash(uuid, LEDGER_UUID_BYTES);
    for (unsigned i = 0; i < LEDGER_DEVICES; i++) {
        struct ledger_device *device = layout_device(ledger, i);
        if (!claim_take(&device->claim, hash))
            continue;
        TESTPOINT("device.claimed");
        text_complete((char *)device->uuid, uuid, LEDGER_UUID_BYTES);
        text_complete(device->name, name, strnlen(name, LEDGER_NAME_BYTES - 1));
        return (int)i;
    }
    return -ENOSPC;
}

/* What the device's budget has to do with: the wish for this device alone, which `cubudget init` left there, or the ledger's,
 * which shrinks to a small card where nobody asked for it. 0 and *budget, or -ERANGE and *fault. */
static int budget_decide(const struct ledger *ledger, uint64_t own_wish, uint64_t room, uint64_t *budget,
                         struct ledger_fault *fault)
{
    struct size_pair sizes;
    uint64_t wish = own_wish != 0 ? own_wish : atomic_load(&layout_header(ledger)->budget_bytes);
    bool asked = own_wish != 0 || atomic_load(&layout_header(ledger)->budget_explicit) != 0;
    *budget = room < wish ? room : wish;
    if (room == 0 || (room < wish && asked)) {
        size_pair_format(&sizes, wish, room);
        fault_set(fault,
                  "a budget of %s does not fit the card, which has %s above what it uses when idle; ask "
                  "for less with cubudget limit --budget, or with --budget in another --ledger",
                  sizes.first, sizes.second);
        return -ERANGE;
    }
    uint64_t reserves = reserves_sum(ledger);
    if (reserves <= *budget)
        return 0;
    size_pair_format(&sizes, reserves, *budget);
    fault_set(fault, "reserves of %s together do not fit the card, whose budget is %s; lower some with cubudget limit",
              sizes.first, sizes.second);
    return -ERANGE;
}

/* Under the turn: nobody changes terms meanwhile, unless he waited in vain for one who was stopped. */
static int budget_settle(struct ledger *ledger, struct ledger_device *entry, uint64_t total_bytes,
                         uint64_t baseline_bytes, struct ledger_fault *fault)
{
    uint64_t budget, wish = atomic_load(&entry->budget_bytes);
    if (wish != 0 && atomic_load(&entry->total_bytes) != 0)
        return 0; /* somebody was quicker */
    int result = budget_decide(ledger, wish, bytes_less(total_bytes, baseline_bytes), &budget, fault);
    if (result != 0)
        return result;
    if (wish == 0) { /* the figures first: whoever sees a budget decided sees what it was decided on */
        atomic_store(&entry->total_bytes, total_bytes);
        atomic_store(&entry->baseline_bytes, baseline_bytes);
        (void)atomic_compare_exchange_strong(&entry->budget_bytes, &wish, budget);
        return 0;
    }
    atomic_store(&entry->baseline_bytes, baseline_bytes);
    atomic_store(&entry->total_bytes,
                 total_bytes); /* last: this is what says that the wish was held against the card */
    return 0;
}

uint64_t ledger_device_baseline(const struct ledger *ledger, unsigned device)
{
    return atomic_load(&layout_device(ledger, device)->baseline_bytes);
}

int ledger_device_settle(struct ledger *ledger, unsigned device, uint64_t total_bytes, uint64_t baseline_bytes,
                         uint64_t *shrunk_to, struct ledger_fault *fault)
{
    struct ledger_header *header = layout_header(ledger);
    fault->text[0] = '\0';
    *shrunk_to = 0;
    if (device >= LEDGER_DEVICES)
        return -EINVAL;
    struct ledger_device *entry = layout_device(ledger, device);
    if (!ledger_device_is_settled(ledger, device)) {
        int turn = turn_take(ledger);
        int result = budget_settle(ledger, entry, total_bytes, baseline_bytes, fault);
        turn_give(turn);
        if (result != 0)
            return result;
    }
    /* What the card has, and not what somebody set for it. */
    uint64_t decided = atomic_load(&entry->budget_bytes);
    uint64_t room = bytes_less(atomic_load(&entry->total_bytes), atomic_load(&entry->baseline_bytes));
    if (atomic_load(&header->budget_explicit) == 0 && decided < atomic_load(&header->budget_bytes) && decided == room)
        *shrunk_to = decided;
    return 0;
}

bool ledger_device_is_settled(const struct ledger *ledger, unsigned device)
{
    return device < LEDGER_DEVICES && atomic_load(&layout_device(ledger, device)->budget_bytes) != 0 &&
           atomic_load(&layout_device(ledger, device)->total_bytes) != 0;
}

void ledger_device_describe(struct ledger *ledger, unsigned device, bool simulated, uint32_t compute_capability)
{
    if (device >= LEDGER_DEVICES)
        return;
    atomic_store(&layout_device(ledger, device)->simulated, simulated);
    atomic_store(&layout_device(ledger, device)->compute_capability, compute_capability);
}
