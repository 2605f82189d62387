/*
 * A plan, the slots and devices that a configuration names, brought into a ledger: whole before anybody sees it, or step by step
 * into one that is in use. Called by ledger.c for the maker, and by the command.
 *
 * The steps are those of terms.c, under one turn. They are gone through on a copy of the ledger first, so that what cannot be is
 * found out while nothing is changed. What charges take between the copy and the steps can still be in the way of a reserve; then the
 * steps are taken back.
 */
#include "config.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include "ledger/layout.h"
#include "ledger/plan.h"
#include "ledger/terms.h"
#include "platform/testpoint.h"

/* Where a plan has a device already known, its budget; one that is not becomes known, and its budget is held against the card
 * by who uses it first (ledger_device_settle). */
static int device_plan(struct ledger *ledger, const struct ledger_plan *plan, unsigned at)
{
    return ledger_device_claim(ledger, plan->devices[at].uuid, "");
}

void plan_write(struct ledger *image, const struct ledger_plan *plan)
{
    for (unsigned i = 0; i < plan->device_count; i++) {
        int device = device_plan(image, plan, i);
        if (device >= 0)
            atomic_store(&layout_device(image, (unsigned)device)->budget_bytes, plan->devices[i].budget_bytes);
    }
    for (unsigned i = 0; i < plan->slot_count; i++) {
        const struct slot_terms *terms = &plan->slots[i].terms;
        int slot = ledger_slot_claim(image, plan->slots[i].name);
        if (slot < 0)
            continue;
        struct ledger_slot *entry = layout_slot(image, (unsigned)slot);
        if (terms->has_limit)
            atomic_store(&entry->limit_bytes, terms->limit_bytes);
        if (terms->has_reserve)
            atomic_store(&entry->reserve_bytes, terms->reserve_bytes);
        if (terms->has_reserve && terms->reserve_bytes != 0)
            atomic_store(&layout_header(image)->has_reserves, 1);
        if (terms->has_priority)
            atomic_store(&entry->priority, terms->priority);
        terms_mark(entry, terms);
    }
}

/* --- a ledger in use --------------------------------------------------------------------------------------------------------- */

/* What a device is to have: its own budget in the plan, or the ledger's new one; what it has where neither says. */
static uint64_t device_target(const struct ledger_plan *plan, const int devices[LEDGER_DEVICES], int device,
                              bool has_budget, uint64_t budget_bytes, uint64_t now)
{
    for (unsigned i = 0; i < plan->device_count; i++)
        if (devices[i] == device)
            return plan->devices[i].budget_bytes;
    return has_budget && now != 0 ? budget_bytes : now;
}

/* Budgets that rise, or those that fall; each device once, so that none has another budget than its own on the way. */
static int budgets_move(struct ledger *ledger, const struct ledger_plan *plan, bool has_budget, uint64_t budget_bytes,
                        bool up, struct ledger_fault *fault)
{
    int devices[LEDGER_DEVICES], result = 0;
    for (unsigned i = 0; i < plan->device_count; i++) {
        devices[i] = device_plan(ledger, plan, i);
        if (devices[i] < 0) {
            fault_set(fault, "the ledger has its %d devices already; use another --ledger", LEDGER_DEVICES);
            return devices[i];
        }
    }
    uint64_t general = atomic_load(&layout_header(ledger)->budget_bytes);
    if (has_budget && (up ? budget_bytes >= general : budget_bytes < general))
        result = budget_apply_general(ledger, budget_bytes, fault);
    for (int i = 0; i < LEDGER_DEVICES && result == 0; i++) {
        uint64_t now = atomic_load(&layout_device(ledger, (unsigned)i)->budget_bytes);
        uint64_t target = device_target(plan, devices, i, has_budget, budget_bytes, now);
        if (target != now && up == (target > now))
            result = budget_apply(ledger, (unsigned)i, target, fault);
    }
    return result;
}

/* What a slot is to have first: no more of reserve than it has and is to have, and no less of limit. */
static int slot_lower(struct ledger *ledger, unsigned slot, const struct slot_terms *wanted, struct ledger_fault *fault)
{
    struct slot_terms now, step = {0};
    ledger_slot_terms(ledger, slot, &now);
    step.has_reserve = wanted->has_reserve && wanted->reserve_bytes < now.reserve_bytes;
    step.reserve_bytes = wanted->reserve_bytes;
    step.has_limit = wanted->has_limit && wanted->limit_bytes < now.limit_bytes &&
                     (wanted->has_reserve ? wanted->reserve_bytes : now.reserve_bytes) <= wanted->limit_bytes;
    step.limit_bytes = wanted->limit_bytes;
    return terms_apply(ledger, slot, &step, fault);
}

/* Puts the slot's name before what was wrong with it. */
static int slot_fault(int result, const char *name, struct ledger_fault *fault)
{
    struct ledger_fault plain = *fault;
    if (result != 0)
        fault_set(fault, "slot '%s': %.400s", name, plain.text);
    return result;
}

/* All of it, one step after the other; on failure the steps before hold. */
static int plan_steps(struct ledger *ledger, const struct ledger_plan *plan, bool has_budget, uint64_t budget_bytes,
                      struct ledger_fault *fault)
{
    unsigned slots[LEDGER_SLOTS];
    int result = 0;
    for (unsigned i = 0; i < plan->slot_count; i++) {
        int slot = ledger_slot_claim(ledger, plan->slots[i].name);
        if (slot < 0) {
            fault_set(fault, "slot '%s': the ledger has its %d slots already; use another --ledger",
                      plan->slots[i].name, LEDGER_SLOTS);
            return slot;
        }
        slots[i] = (unsigned)slot;
    }
    result = budgets_move(ledger, plan, has_budget, budget_bytes, true, fault);
    for (unsigned i = 0; i < plan->slot_count && result == 0; i++)
        result = slot_fault(slot_lower(ledger, slots[i], &plan->slots[i].terms, fault), plan->slots[i].name, fault);
    for (unsigned i = 0; i < plan->slot_count && result == 0; i++)
        result = slot_fault(terms_apply(ledger, slots[i], &plan->slots[i].terms, fault), plan->slots[i].name, fault);
    TESTPOINT("plan.raised");
    if (result == 0)
        result = budgets_move(ledger, plan, has_budget, budget_bytes, false, fault);
    return result;
}

/* --- all or nothing ---------------------------------------------------------------------------------------------------------- */

/* The steps on a copy. Bids are left out: they are gone in microseconds, and the steps themselves wait for them. */
static int plan_try(const struct ledger *ledger, const struct ledger_plan *plan, bool has_budget, uint64_t budget_bytes,
                    struct ledger_fault *fault)
{
    struct ledger copy = *ledger;
    copy.file.bytes = mmap(NULL, LEDGER_FILE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (copy.file.bytes == MAP_FAILED) {
        fault_set(fault, "no memory to try it on a copy of the ledger; free some");
        return -ENOMEM;
    }
    memcpy(copy.file.bytes, ledger->file.bytes, LEDGER_FILE_BYTES);
    for (unsigned device = 0; device < LEDGER_DEVICES; device++)
        for (unsigned row = 0; row < layout_rows_high(&copy); row++)
            atomic_store_explicit(&layout_cell(&copy, device, row)->bid_bytes, 0, memory_order_relaxed);
    int result = plan_steps(&copy, plan, has_budget, budget_bytes, fault);
    (void)munmap(copy.file.bytes, LEDGER_FILE_BYTES);
    return result;
}

/* What the steps may change. */
struct terms_before {
    uint64_t budget_bytes, device_budget_bytes[LEDGER_DEVICES];
    uint32_t budget_explicit;
    struct {
        uint64_t limit_bytes, reserve_bytes;
        uint32_t priority, terms_set;
    } slots[LEDGER_SLOTS];
};

static void before_read(const struct ledger *ledger, struct terms_before *before)
{
    before->budget_bytes = atomic_load(&layout_header(ledger)->budget_bytes);
    before->budget_explicit = atomic_load(&layout_header(ledger)->budget_explicit);
    for (unsigned i = 0; i < LEDGER_DEVICES; i++)
        before->device_budget_bytes[i] = atomic_load(&layout_device(ledger, i)->budget_bytes);
    for (unsigned i = 0; i < LEDGER_SLOTS; i++) {
        const struct ledger_slot *entry = layout_slot(ledger, i);
        before->slots[i].limit_bytes = atomic_load(&entry->limit_bytes);
        before->slots[i].reserve_bytes = atomic_load(&entry->reserve_bytes);
        before->slots[i].priority = atomic_load(&entry->priority);
        before->slots[i].terms_set = atomic_load(&entry->terms_set);
    }
}

/* A reserve that was lowered on the way. The bytes may be others' by now. */
static void reserve_return(struct ledger *ledger, unsigned slot, uint64_t reserve, struct ledger_fault *fault)
{
    struct slot_terms terms = {.has_reserve = true, .reserve_bytes = reserve};
    struct ledger_fault plain = *fault, why;
    struct size_pair sizes;
    if (terms_apply(ledger, slot, &terms, &why) == 0)
        return;
    size_pair_format(&sizes, reserve, atomic_load(&layout_slot(ledger, slot)->reserve_bytes));
    fault_set(fault, "%.300s; and slot '%.*s' has a reserve of %s and not %s any more: others took the rest meanwhile",
              plain.text, LEDGER_NAME_BYTES, layout_slot(ledger, slot)->name, sizes.second, sizes.first);
}

/* What rose falls first, so that it stands in nobody's way. */
static void before_restore(struct ledger *ledger, const struct terms_before *before, struct ledger_fault *fault)
{
    for (unsigned i = 0; i < LEDGER_SLOTS; i++)
        if (atomic_load(&layout_slot(ledger, i)->reserve_bytes) > before->slots[i].reserve_bytes)
            atomic_store(&layout_slot(ledger, i)->reserve_bytes, before->slots[i].reserve_bytes);
    for (unsigned i = 0; i < LEDGER_DEVICES; i++)
        atomic_store(&layout_device(ledger, i)->budget_bytes, before->device_budget_bytes[i]);
    atomic_store(&layout_header(ledger)->budget_bytes, before->budget_bytes);
    atomic_store(&layout_header(ledger)->budget_explicit, before->budget_explicit);
    for (unsigned i = 0; i < LEDGER_SLOTS; i++) {
        struct ledger_slot *entry = layout_slot(ledger, i);
        atomic_store(&entry->limit_bytes, before->slots[i].limit_bytes);
        atomic_store(&entry->priority, before->slots[i].priority);
        if (atomic_load(&entry->reserve_bytes) < before->slots[i].reserve_bytes)
            reserve_return(ledger, i, before->slots[i].reserve_bytes, fault);
        atomic_store(&entry->terms_set, before->slots[i].terms_set);
    }
    ledger_pressure_publish_all(ledger);
}

int ledger_plan_apply(struct ledger *ledger, const struct ledger_plan *plan, bool has_budget, uint64_t budget_bytes,
                      struct ledger_fault *fault)
{
    struct terms_before before;
    fault->text[0] = '\0';
    int turn = turn_take(ledger);
    int result = plan_try(ledger, plan, has_budget, budget_bytes, fault);
    if (result == 0) {
        TESTPOINT("plan.tried");
        before_read(ledger, &before);
        result = plan_steps(ledger, plan, has_budget, budget_bytes, fault);
        if (result != 0)
            before_restore(ledger, &before, fault);
    }
    turn_give(turn);
    return result;
}
