/*
 * A plan, the slots and devices that a configuration names, brought into a ledger: whole before anybody sees it, or step by step
 * into one that is in use. Called by ledger.c for the maker, and by the command.
 */
#include "config.h"

#include <errno.h>
#include "ledger/layout.h"
#include "ledger/plan.h"

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
        result = ledger_budget_change_general(ledger, budget_bytes, fault);
    for (int i = 0; i < LEDGER_DEVICES && result == 0; i++) {
        uint64_t now = atomic_load(&layout_device(ledger, (unsigned)i)->budget_bytes);
        uint64_t target = device_target(plan, devices, i, has_budget, budget_bytes, now);
        if (target != now && up == (target > now))
            result = ledger_budget_change(ledger, (unsigned)i, target, fault);
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
    return ledger_slot_change(ledger, slot, &step, fault);
}

/* Puts the slot's name before what was wrong with it. */
static int slot_fault(int result, const char *name, struct ledger_fault *fault)
{
    struct ledger_fault plain = *fault;
    if (result != 0)
        fault_set(fault, "slot '%s': %.400s", name, plain.text);
    return result;
}

int ledger_plan_apply(struct ledger *ledger, const struct ledger_plan *plan, bool has_budget, uint64_t budget_bytes,
                      struct ledger_fault *fault)
{
    unsigned slots[LEDGER_SLOTS];
    int result = 0;
    fault->text[0] = '\0';
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
        result =
            slot_fault(ledger_slot_change(ledger, slots[i], &plan->slots[i].terms, fault), plan->slots[i].name, fault);
    if (result == 0)
        result = budgets_move(ledger, plan, has_budget, budget_bytes, false, fault);
    return result;
}
