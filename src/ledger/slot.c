/*
 * Slots and devices: found by name or uuid, added once, and given their terms. Called by src/account and the command.
 *
 * An entry is claimed by one compare-and-swap of its name's hash into the claim word; the name follows, written by
 * whoever knows it, always the same bytes. So two who add the same name at once get one entry, and one who dies after
 * the claim leaves an entry that the next who knows the name completes. Entries are never given back.
 */
#include "config.h"

#include <errno.h>
#include <string.h>
#include "ledger/layout.h"
#include "ledger/owner.h"
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

int ledger_device_settle(struct ledger *ledger, unsigned device, uint64_t total_bytes, uint64_t baseline_bytes,
                         uint64_t *shrunk_to, struct ledger_fault *fault)
{
    struct ledger_header *header = layout_header(ledger);
    struct ledger_device *entry = layout_device(ledger, device);
    struct size_pair sizes;
    fault->text[0] = '\0';
    *shrunk_to = 0;
    if (device >= LEDGER_DEVICES)
        return -EINVAL;
    uint64_t wish = atomic_load(&header->budget_bytes);
    uint64_t decided = atomic_load(&entry->budget_bytes);
    if (decided == 0) {
        uint64_t room = bytes_less(total_bytes, baseline_bytes);
        if (room == 0 || (room < wish && atomic_load(&header->budget_explicit) != 0)) {
            size_pair_format(&sizes, wish, room);
            fault_set(fault,
                      "a budget of %s does not fit the card, which has %s above what it uses when idle; ask "
                      "for less with --budget in another --ledger, or after cubudget gc",
                      sizes.first, sizes.second);
            return -ERANGE;
        }
        /* The figures first: whoever sees a budget decided sees what it was decided on. Two who settle at once have
         * measured the same idle card. */
        atomic_store(&entry->total_bytes, total_bytes);
        atomic_store(&entry->baseline_bytes, baseline_bytes);
        if (atomic_compare_exchange_strong(&entry->budget_bytes, &decided, room < wish ? room : wish))
            decided = room < wish ? room : wish;
    }
    if (decided < wish)
        *shrunk_to = decided;
    return 0;
}

bool ledger_device_is_settled(const struct ledger *ledger, unsigned device)
{
    return device < LEDGER_DEVICES && atomic_load(&layout_device(ledger, device)->budget_bytes) != 0;
}

void ledger_device_describe(struct ledger *ledger, unsigned device, bool simulated, uint32_t compute_capability)
{
    if (device >= LEDGER_DEVICES)
        return;
    atomic_store(&layout_device(ledger, device)->simulated, simulated);
    atomic_store(&layout_device(ledger, device)->compute_capability, compute_capability);
}

/* --- terms of a slot -------------------------------------------------------------------------------------------------- */

/* The smallest budget a slot has to do with. */
static uint64_t budget_least(const struct ledger *ledger)
{
    uint64_t least = atomic_load(&layout_header(ledger)->budget_bytes);
    for (unsigned device = 0; device < LEDGER_DEVICES; device++) {
        uint64_t budget = atomic_load(&layout_device(ledger, device)->budget_bytes);
        if (atomic_load(&layout_device(ledger, device)->claim) != 0 && budget != 0 && budget < least)
            least = budget;
    }
    return least;
}

static uint64_t reserves_sum(const struct ledger *ledger)
{
    uint64_t sum = 0;
    for (unsigned slot = 0; slot < layout_slots_high(ledger); slot++)
        sum = bytes_add(sum, atomic_load(&layout_slot(ledger, slot)->reserve_bytes));
    return sum;
}

/* Whether a process other than this one is alive in the slot. */
static bool slot_is_shared(struct ledger *ledger, unsigned slot)
{
    struct row_owner self;
    owner_read(&self);
    (void)ledger_reap(ledger); /* so that the dead do not hold their terms */
    for (unsigned row = 0; row < layout_rows_high(ledger); row++) {
        uint64_t tag = atomic_load(layout_tag(ledger, row));
        if (tag_state(tag) == LEDGER_ROW_LIVE && tag_slot(tag) == slot && !owner_is(&self, layout_row(ledger, row)))
            return true;
    }
    return false;
}

/* Terms that were never set are free to take; others are a live neighbour's to keep. */
static bool term_conflicts(uint64_t there, bool has, uint64_t asked)
{
    return has && there != 0 && there != asked;
}

/* The terms that were judged. Setting others swaps from these alone: who set his own meanwhile makes the swap fail, and is
 * then seen as the neighbour that he is. */
struct terms_seen {
    uint64_t limit, reserve;
};

static int terms_check(struct ledger *ledger, unsigned slot, const struct slot_terms *terms, struct terms_seen *seen,
                       struct ledger_fault *fault)
{
    struct ledger_slot *entry = layout_slot(ledger, slot);
    uint64_t limit = atomic_load(&entry->limit_bytes), reserve = atomic_load(&entry->reserve_bytes);
    *seen = (struct terms_seen){limit, reserve};
    bool limit_conflicts = term_conflicts(limit, terms->has_limit, terms->limit_bytes);
    struct size_pair sizes;
    if ((limit_conflicts || term_conflicts(reserve, terms->has_reserve, terms->reserve_bytes)) &&
        slot_is_shared(ledger, slot)) {
        size_pair_format(&sizes, limit_conflicts ? limit : reserve,
                         limit_conflicts ? terms->limit_bytes : terms->reserve_bytes);
        fault_set(fault,
                  "the slot '%.*s' is in use with a %s of %s and %s was asked for; leave it unset to take the "
                  "slot's own, or choose another --slot",
                  LEDGER_NAME_BYTES, entry->name, limit_conflicts ? "limit" : "reserve", sizes.first, sizes.second);
        return -EEXIST;
    }
    uint64_t budget = budget_least(ledger);
    if (terms->has_limit && terms->limit_bytes > budget && terms->limit_bytes != LEDGER_NO_LIMIT) {
        size_pair_format(&sizes, terms->limit_bytes, budget);
        fault_set(fault, "a limit of %s is above the budget of %s; lower the one or raise the other", sizes.first,
                  sizes.second);
        return -ERANGE;
    }
    if (terms->has_limit || limit != 0) {
        uint64_t bound = terms->has_limit ? terms->limit_bytes : limit;
        if (terms->has_reserve && terms->reserve_bytes > bound) {
            size_pair_format(&sizes, terms->reserve_bytes, bound);
            fault_set(fault, "a reserve of %s is above the slot's limit of %s; lower the one or raise the other",
                      sizes.first, sizes.second);
            return -ERANGE;
        }
    }
    return 0;
}

/* A reserve is asked for like memory: published first, then everybody's are summed; so of two that are too many together
 * at least one sees the other. Looking before publishing keeps the common refusal from being seen by anybody. */
static int reserve_set(struct ledger *ledger, unsigned slot, uint64_t before, uint64_t reserve,
                       struct ledger_fault *fault)
{
    struct ledger_slot *entry = layout_slot(ledger, slot);
    uint64_t budget = budget_least(ledger);
    uint64_t sum = bytes_add(bytes_less(reserves_sum(ledger), before), reserve);
    if (sum <= budget) {
        atomic_store(&layout_header(ledger)->has_reserves, 1); /* first: a look that misses it misses only no reserve */
        uint64_t seen = before;
        if (!atomic_compare_exchange_strong(&entry->reserve_bytes, &seen, reserve))
            return -EAGAIN; /* another first process of the slot was quicker: judged anew */
        sum = reserves_sum(ledger);
        if (sum <= budget || reserve <= before)
            return 0;
        uint64_t ours = reserve;
        (void)atomic_compare_exchange_strong(&entry->reserve_bytes, &ours, before);
    }
    struct size_pair sizes;
    size_pair_format(&sizes, reserve, budget);
    fault_set(fault, "a reserve of %s is too much beside the other slots' reserves under a budget of %s; ask for less",
              sizes.first, sizes.second);
    return -ERANGE;
}

static int limit_set(struct ledger *ledger, unsigned slot, uint64_t before, uint64_t limit)
{
    struct ledger_slot *entry = layout_slot(ledger, slot);
    return atomic_compare_exchange_strong(&entry->limit_bytes, &before, limit) ? 0 : -EAGAIN;
}

int ledger_slot_settle(struct ledger *ledger, unsigned slot, const struct slot_terms *terms, struct ledger_fault *fault)
{
    enum { TRIES = 100 };
    int result = -EAGAIN;
    fault->text[0] = '\0';
    if (slot >= LEDGER_SLOTS)
        return -EINVAL;
    for (unsigned i = 0; i < TRIES && result == -EAGAIN; i++) {
        struct terms_seen seen;
        result = terms_check(ledger, slot, terms, &seen, fault);
        if (result == 0 && terms->has_reserve)
            result = reserve_set(ledger, slot, seen.reserve, terms->reserve_bytes, fault);
        if (result == 0 && terms->has_limit)
            result = limit_set(ledger, slot, seen.limit, terms->limit_bytes);
    }
    if (result == 0 && terms->has_priority)
        atomic_store(&layout_slot(ledger, slot)->priority, terms->priority);
    return result;
}
