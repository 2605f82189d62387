/*
 * Terms: the limit, reserve and priority of a slot, and the budgets; set by a slot's first user, and changed under way by the
 * command. Called by src/account and the command.
 *
 * Charges go on meanwhile and are never stopped. What is changed follows the order of the charge (charge.c): it is published,
 * sequentially consistent, and then everybody's bytes and bids are looked at. A charge publishes its bid and then reads the
 * terms. So of a charge and a change that do not go together at least one sees the other:
 *   - A reserve is raised where sum over slots of max(used, reserve) + dead stays within each device's budget, used with all
 *     bids. A charge that did not see the reserve was seen by the look that admitted it. What does not fit is taken back; a
 *     process that dies between the two leaves a reserve that others may still hold a part of: nothing passes the budget, and
 *     it comes true as they free.
 *   - A limit or a budget may be lowered below what is used. Whoever begins after it was published reads it, so nothing
 *     is granted any more until it fits.
 * Changes against each other: a byte of the file that the kernel guards (the turn) lets one change at a time. Without
 * it, where its holder was stopped, the sums are still looked at after the change was published, and taken back.
 */
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include "ledger/layout.h"
#include "ledger/owner.h"
#include "ledger/terms.h"
#include "platform/env.h"
#include "platform/testpoint.h"

enum { TURN_TRIES = 250, CHANGE_TRIES = 100 }; /* a millisecond each */

static void nap(void)
{
    (void)clock_nanosleep(CLOCK_MONOTONIC, 0, &(struct timespec){.tv_nsec = 1000000}, NULL);
}

int turn_take(const struct ledger *ledger)
{
    int turn = -EAGAIN;
    for (unsigned i = 0; i < TURN_TRIES && turn == -EAGAIN; i++) {
        if (i > 0)
            nap();
        turn = liveness_byte_take(ledger->path, ledger->file.device, ledger->file.inode, LEDGER_TERMS_BYTE);
    }
    return turn;
}

void turn_give(int turn)
{
    if (turn >= 0)
        liveness_byte_give(turn, LEDGER_TERMS_BYTE);
}

/* --- sums ---------------------------------------------------------------------------------------------------------------- */

uint64_t reserves_sum(const struct ledger *ledger)
{
    uint64_t sum = 0;
    for (unsigned slot = 0; slot < layout_slots_high(ledger); slot++)
        sum = bytes_add(sum, atomic_load(&layout_slot(ledger, slot)->reserve_bytes));
    return sum;
}

static bool device_is_known(const struct ledger *ledger, unsigned device)
{
    return atomic_load(&layout_device(ledger, device)->claim) != 0;
}

/* The smallest budget a slot has to do with: of the devices known, and of those to come. */
static uint64_t budget_least(const struct ledger *ledger)
{
    uint64_t least = atomic_load(&layout_header(ledger)->budget_bytes);
    for (unsigned device = 0; device < LEDGER_DEVICES; device++) {
        uint64_t budget = atomic_load(&layout_device(ledger, device)->budget_bytes);
        if (device_is_known(ledger, device) && budget != 0 && budget < least)
            least = budget;
    }
    return least;
}

/* --- a reserve ------------------------------------------------------------------------------------------------------------ */

enum keeping { KEEPS, KEEPS_NOT, KEEPS_UNLESS_GRANTED };

static uint64_t larger(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* Whether one look at a device leaves room for a slot's reserve to be `reserve`. What the slot holds itself needs no room. */
static enum keeping keep_judge(const struct ledger_keep *keep, uint64_t reserve)
{
    if (reserve <= keep->own_bytes)
        return KEEPS;
    if (bytes_add(keep->others_with_bids, larger(keep->own_with_bids, reserve)) <= keep->budget_bytes)
        return KEEPS;
    return bytes_add(keep->others_bytes, reserve) <= keep->budget_bytes ? KEEPS_UNLESS_GRANTED : KEEPS_NOT;
}

/* Looks until it is certain: bytes that move from one row to another during a look are counted twice, so a refusal takes two
 * looks. *wrong is the device that has no room. */
static enum keeping devices_keep(const struct ledger *ledger, unsigned slot, uint64_t reserve, unsigned *wrong,
                                 struct ledger_keep *keep)
{
    enum keeping all = KEEPS;
    for (unsigned device = 0; device < LEDGER_DEVICES; device++) {
        if (!device_is_known(ledger, device))
            continue;
        ledger_keep(ledger, device, slot, keep);
        enum keeping one = keep_judge(keep, reserve);
        if (one == KEEPS_NOT) {
            ledger_keep(ledger, device, slot, keep);
            one = keep_judge(keep, reserve);
        }
        *wrong = device;
        if (one == KEEPS_NOT)
            return KEEPS_NOT;
        if (one == KEEPS_UNLESS_GRANTED)
            all = one;
    }
    return all;
}

static int reserve_refuse(uint64_t reserve, unsigned device, const struct ledger_keep *keep, struct ledger_fault *fault)
{
    struct size_pair sizes, held;
    size_pair_format(&sizes, reserve, keep->budget_bytes);
    size_pair_format(&held, keep->held_bytes, keep->reserved_bytes);
    fault_set(fault,
              "a reserve of %s cannot be kept now: of the budget of %s of device %u others hold %s, and %s more are "
              "kept for their reserves; free some (cubudget dump shows whose) or ask for less",
              sizes.first, sizes.second, device, held.first, held.second);
    return -ERANGE;
}

static int sum_refuse(const struct ledger *ledger, uint64_t before, uint64_t reserve, uint64_t budget,
                      struct ledger_fault *fault)
{
    struct size_pair sizes, others;
    size_pair_format(&sizes, reserve, budget);
    size_pair_format(&others, bytes_less(reserves_sum(ledger), before), budget);
    fault_set(fault,
              "a reserve of %s is too much beside the other slots' reserves of %s under a budget of %s; ask for less",
              sizes.first, others.first, sizes.second);
    return -ERANGE;
}

/* One try; -EAGAIN: another set it meanwhile, or others are just asking for what it needs. */
static int reserve_try(struct ledger *ledger, unsigned slot, uint64_t before, uint64_t reserve,
                       struct ledger_fault *fault)
{
    struct ledger_slot *entry = layout_slot(ledger, slot);
    struct ledger_keep keep;
    unsigned device = 0;
    uint64_t budget = budget_least(ledger), seen = before;
    if (bytes_add(bytes_less(reserves_sum(ledger), before), reserve) > budget)
        return sum_refuse(ledger, before, reserve, budget, fault);
    /* First without being seen: what is published and taken back again refuses others for nothing. */
    enum keeping keeping = devices_keep(ledger, slot, reserve, &device, &keep);
    if (keeping == KEEPS_NOT)
        return reserve_refuse(reserve, device, &keep, fault);
    if (keeping == KEEPS_UNLESS_GRANTED)
        return -EAGAIN;
    atomic_store(&layout_header(ledger)->has_reserves, 1); /* first: a look that misses it misses only no reserve */
    if (!atomic_compare_exchange_strong(&entry->reserve_bytes, &seen, reserve))
        return -EAGAIN;
    TESTPOINT("reserve.published");
    budget = budget_least(ledger);
    bool fits = reserves_sum(ledger) <= budget;
    if (fits && devices_keep(ledger, slot, reserve, &device, &keep) == KEEPS)
        return 0;
    seen = reserve;
    (void)atomic_compare_exchange_strong(&entry->reserve_bytes, &seen, before);
    return fits ? -EAGAIN : sum_refuse(ledger, before, reserve, budget, fault);
}

static int reserve_set(struct ledger *ledger, unsigned slot, uint64_t reserve, struct ledger_fault *fault)
{
    struct ledger_slot *entry = layout_slot(ledger, slot);
    int result = -EAGAIN;
    for (unsigned i = 0; i < CHANGE_TRIES && result == -EAGAIN; i++) {
        uint64_t before = atomic_load(&entry->reserve_bytes);
        if (i > 0)
            nap(); /* bids are gone in microseconds, unless their process is stopped */
        if (reserve == before)
            return 0;
        if (reserve < before) /* gives room back: always granted */
            result = atomic_compare_exchange_strong(&entry->reserve_bytes, &before, reserve) ? 0 : -EAGAIN;
        else
            result = reserve_try(ledger, slot, before, reserve, fault);
    }
    if (result == -EAGAIN)
        fault_set(fault, "others are asking for the bytes it would reserve; try again");
    return result;
}

/* --- a limit -------------------------------------------------------------------------------------------------------------- */

/* Where a limit falls below what the slot holds, the one it was granted under is kept for who checks the books. The look
 * comes after the limit was published: whoever was granted bytes under the old one is in it. */
static void limit_set(struct ledger *ledger, unsigned slot, uint64_t limit)
{
    struct ledger_slot *entry = layout_slot(ledger, slot);
    uint64_t before = atomic_exchange(&entry->limit_bytes, limit);
    before = before != 0 ? before : LEDGER_NO_LIMIT;
    for (unsigned device = 0; device < LEDGER_DEVICES && limit < before; device++) {
        struct ledger_keep keep;
        if (!device_is_known(ledger, device))
            continue;
        ledger_keep(ledger, device, slot, &keep);
        if (keep.own_with_bids > limit)
            word_raise(&entry->limit_before, before);
    }
}

static int limit_check(const struct ledger *ledger, unsigned slot, const struct slot_terms *terms,
                       struct ledger_fault *fault)
{
    const struct ledger_slot *entry = layout_slot(ledger, slot);
    struct size_pair sizes;
    uint64_t budget = budget_least(ledger);
    uint64_t limit = terms->has_limit ? terms->limit_bytes : atomic_load(&entry->limit_bytes);
    uint64_t reserve = terms->has_reserve ? terms->reserve_bytes : atomic_load(&entry->reserve_bytes);
    if (terms->has_limit && limit > budget && limit != LEDGER_NO_LIMIT) {
        size_pair_format(&sizes, limit, budget);
        fault_set(fault, "a limit of %s is above the budget of %s; lower the one or raise the other", sizes.first,
                  sizes.second);
        return -ERANGE;
    }
    if (limit != 0 && reserve > limit && (terms->has_limit || terms->has_reserve)) {
        size_pair_format(&sizes, reserve, limit);
        fault_set(fault, "a reserve of %s is above the slot's limit of %s; lower the one or raise the other",
                  sizes.first, sizes.second);
        return -ERANGE;
    }
    return 0;
}

/* --- whether they were set --------------------------------------------------------------------------------------------------- */

void terms_mark(struct ledger_slot *entry, const struct slot_terms *terms)
{
    uint32_t bits = (terms->has_limit ? LEDGER_TERM_LIMIT : 0U) | (terms->has_reserve ? LEDGER_TERM_RESERVE : 0U) |
                    (terms->has_priority ? LEDGER_TERM_PRIORITY : 0U);
    if ((atomic_load(&entry->terms_set) & bits) != bits)
        atomic_fetch_or(&entry->terms_set, bits);
}

void ledger_slot_terms(const struct ledger *ledger, unsigned slot, struct slot_terms *terms)
{
    const struct ledger_slot *entry = layout_slot(ledger, slot);
    uint32_t set = atomic_load(&entry->terms_set); /* before the values, which are written before it */
    terms->limit_bytes = layout_limit(ledger, slot);
    terms->reserve_bytes = atomic_load(&entry->reserve_bytes);
    terms->priority = atomic_load(&entry->priority);
    terms->has_limit = (set & LEDGER_TERM_LIMIT) != 0 || atomic_load(&entry->limit_bytes) != 0;
    terms->has_reserve = (set & LEDGER_TERM_RESERVE) != 0 || terms->reserve_bytes != 0;
    terms->has_priority = (set & LEDGER_TERM_PRIORITY) != 0 || terms->priority != SETTINGS_DEFAULT_PRIORITY;
}

/* --- all terms of a slot ---------------------------------------------------------------------------------------------------- */

/* All or none. The limit first where the reserve rises, so that at no moment a reserve is above its limit; where it falls, the
 * other way round. */
int terms_apply(struct ledger *ledger, unsigned slot, const struct slot_terms *terms, struct ledger_fault *fault)
{
    struct ledger_slot *entry = layout_slot(ledger, slot);
    uint64_t limit = atomic_load(&entry->limit_bytes), reserve = atomic_load(&entry->reserve_bytes);
    bool falls = terms->has_reserve && terms->reserve_bytes < reserve;
    int result = limit_check(ledger, slot, terms, fault);
    if (result != 0)
        return result;
    if (falls)
        result = reserve_set(ledger, slot, terms->reserve_bytes, fault);
    if (result == 0 && terms->has_limit && terms->limit_bytes != limit)
        limit_set(ledger, slot, terms->limit_bytes);
    if (result == 0 && terms->has_reserve && !falls) {
        result = reserve_set(ledger, slot, terms->reserve_bytes, fault);
        if (result != 0 && terms->has_limit)
            (void)atomic_exchange(&entry->limit_bytes, limit);
    }
    if (result == 0 && terms->has_priority)
        atomic_store(&entry->priority, terms->priority);
    TESTPOINT("terms.valued");
    if (result == 0)
        terms_mark(entry, terms); /* last: who dies before it has told nobody that his terms hold */
    return result;
}

/* Whether another living process counts on the slot's terms. One that has claimed its row and not come to its terms yet
 * does not: of several that come at once, the first to have its turn sets them, and the others find it here. */
static bool slot_is_lived_in(struct ledger *ledger, unsigned slot)
{
    struct row_owner self;
    owner_read(&self);
    (void)ledger_reap(ledger); /* so that the dead do not hold their terms */
    for (unsigned row = 0; row < layout_rows_high(ledger); row++) {
        uint64_t tag = atomic_load(layout_tag(ledger, row));
        const struct ledger_row *entry = layout_row(ledger, row);
        if (tag_state(tag) == LEDGER_ROW_LIVE && tag_slot(tag) == slot && !owner_is(&self, entry) &&
            (atomic_load(&entry->flags) & LEDGER_ROW_SETTLED) != 0)
            return true;
    }
    return false;
}

/* From now on this process's rows in the slot count on its terms. */
static void rows_settle(struct ledger *ledger, unsigned slot)
{
    struct row_owner self;
    owner_read(&self);
    for (unsigned row = 0; row < layout_rows_high(ledger); row++) {
        uint64_t tag = atomic_load(layout_tag(ledger, row));
        struct ledger_row *entry = layout_row(ledger, row);
        if (tag_state(tag) == LEDGER_ROW_LIVE && tag_slot(tag) == slot && owner_is(&self, entry))
            atomic_fetch_or(&entry->flags, LEDGER_ROW_SETTLED);
    }
}

/* Terms that were never set are free to take, whoever lives there: the neighbours lose nothing by a reserve, which is granted
 * against the other slots' bytes. What was set is theirs to keep, also where it was set to none or to nothing. Returns the name of
 * a term that was set and asked for otherwise, or NULL; *values are its two. */
static const char *conflict_find(const struct slot_terms *there, const struct slot_terms *asked,
                                 struct size_pair *values)
{
    if (there->has_limit && asked->has_limit && there->limit_bytes != asked->limit_bytes) {
        size_pair_format(values, there->limit_bytes, asked->limit_bytes);
        if (there->limit_bytes == LEDGER_NO_LIMIT)
            (void)snprintf(values->first, sizeof values->first, "none");
        return "limit";
    }
    if (there->has_reserve && asked->has_reserve && there->reserve_bytes != asked->reserve_bytes) {
        size_pair_format(values, there->reserve_bytes, asked->reserve_bytes);
        return "reserve";
    }
    if (there->has_priority && asked->has_priority && there->priority != asked->priority) {
        (void)snprintf(values->first, sizeof values->first, there->priority > 100 ? "max" : "%u", there->priority);
        (void)snprintf(values->second, sizeof values->second, asked->priority > 100 ? "max" : "%u", asked->priority);
        return "priority";
    }
    return NULL;
}

static int neighbours_check(struct ledger *ledger, unsigned slot, const struct slot_terms *terms,
                            struct ledger_fault *fault)
{
    struct slot_terms there;
    struct size_pair values;
    ledger_slot_terms(ledger, slot, &there);
    const char *term = conflict_find(&there, terms, &values);
    if (term == NULL || !slot_is_lived_in(ledger, slot))
        return 0;
    fault_set(fault,
              "it is in use with a %s of %s and %s was asked for; leave it unset to take the slot's own, change it "
              "with cubudget limit, or choose another --slot",
              term, values.first, values.second);
    return -EEXIST;
}

int ledger_slot_settle(struct ledger *ledger, unsigned slot, const struct slot_terms *terms, struct ledger_fault *fault)
{
    fault->text[0] = '\0';
    if (slot >= LEDGER_SLOTS)
        return -EINVAL;
    int turn = terms->has_limit || terms->has_reserve || terms->has_priority ? turn_take(ledger) : -1;
    int result = neighbours_check(ledger, slot, terms, fault);
    TESTPOINT("terms.judged");
    if (result == 0)
        result = terms_apply(ledger, slot, terms, fault);
    if (result == 0)
        rows_settle(ledger, slot);
    turn_give(turn);
    return result;
}

int ledger_slot_fill(struct ledger *ledger, unsigned slot, const struct slot_terms *terms, struct ledger_fault *fault)
{
    struct slot_terms there, missing = *terms;
    fault->text[0] = '\0';
    if (slot >= LEDGER_SLOTS)
        return -EINVAL;
    int turn = turn_take(ledger);
    ledger_slot_terms(ledger, slot, &there);
    missing.has_limit = terms->has_limit && !there.has_limit;
    missing.has_reserve = terms->has_reserve && !there.has_reserve;
    missing.has_priority = terms->has_priority && !there.has_priority;
    int result = terms_apply(ledger, slot, &missing, fault);
    turn_give(turn);
    return result;
}

int ledger_slot_change(struct ledger *ledger, unsigned slot, const struct slot_terms *terms, struct ledger_fault *fault)
{
    fault->text[0] = '\0';
    if (slot >= LEDGER_SLOTS)
        return -EINVAL;
    int turn = turn_take(ledger);
    int result = terms_apply(ledger, slot, terms, fault);
    turn_give(turn);
    return result;
}

int ledger_slot_find(const struct ledger *ledger, const char *name)
{
    for (unsigned slot = 0; slot < layout_slots_high(ledger); slot++)
        if (strncmp(layout_slot(ledger, slot)->name, name, LEDGER_NAME_BYTES) == 0)
            return (int)slot;
    return -ENOENT;
}

/* --- budgets ---------------------------------------------------------------------------------------------------------------- */

/* Whether a device's budget, or that of all, may become `budget`. */
static int budget_check(const struct ledger *ledger, unsigned device, uint64_t budget, struct ledger_fault *fault)
{
    const struct ledger_device *entry = layout_device(ledger, device);
    uint64_t total = atomic_load(&entry->total_bytes);
    uint64_t room = bytes_less(total, atomic_load(&entry->baseline_bytes));
    struct size_pair sizes;
    if (total == 0 || budget <= room)
        return 0;
    size_pair_format(&sizes, budget, room);
    fault_set(fault, "a budget of %s does not fit device %u, which has %s above what it uses when idle; ask for less",
              sizes.first, device, sizes.second);
    return -ERANGE;
}

static int shares_check(const struct ledger *ledger, uint64_t budget, struct ledger_fault *fault)
{
    struct size_pair sizes;
    uint64_t reserves = reserves_sum(ledger);
    if (reserves > budget) {
        size_pair_format(&sizes, budget, reserves);
        fault_set(fault,
                  "a budget of %s is below the slots' reserves of %s together; lower some first (cubudget limit)",
                  sizes.first, sizes.second);
        return -ERANGE;
    }
    for (unsigned slot = 0; slot < layout_slots_high(ledger); slot++) {
        uint64_t limit = layout_limit(ledger, slot);
        if (limit == LEDGER_NO_LIMIT || limit <= budget)
            continue;
        size_pair_format(&sizes, budget, limit);
        fault_set(fault, "a budget of %s is below the limit of slot '%.*s', %s; lower that first (cubudget limit)",
                  sizes.first, LEDGER_NAME_BYTES, layout_slot(ledger, slot)->name, sizes.second);
        return -ERANGE;
    }
    return 0;
}

static void budget_store(struct ledger *ledger, unsigned device, uint64_t budget)
{
    struct ledger_device *entry = layout_device(ledger, device);
    uint64_t before = atomic_exchange(&entry->budget_bytes, budget);
    TESTPOINT("budget.stored");
    if (before > budget)
        word_raise(&entry->budget_before, before);
}

int budget_apply(struct ledger *ledger, unsigned device, uint64_t budget, struct ledger_fault *fault)
{
    bool all = device == LEDGER_DEVICES;
    int result = shares_check(ledger, budget, fault);
    for (unsigned i = 0; i < LEDGER_DEVICES && result == 0; i++)
        if ((all || i == device) && device_is_known(ledger, i))
            result = budget_check(ledger, i, budget, fault);
    if (result != 0)
        return result;
    if (all) {
        atomic_store(&layout_header(ledger)->budget_bytes, budget);
        atomic_store(&layout_header(ledger)->budget_explicit, 1);
    }
    for (unsigned i = 0; i < LEDGER_DEVICES; i++)
        if ((all && atomic_load(&layout_device(ledger, i)->budget_bytes) != 0) || i == device)
            budget_store(ledger, i, budget);
    TESTPOINT("budget.published");
    ledger_pressure_publish_all(ledger); /* a level is a share of the budget */
    return 0;
}

int budget_apply_general(struct ledger *ledger, uint64_t budget, struct ledger_fault *fault)
{
    int result = shares_check(ledger, budget, fault);
    if (result == 0) {
        atomic_store(&layout_header(ledger)->budget_bytes, budget);
        TESTPOINT("budget.stored");
        atomic_store(&layout_header(ledger)->budget_explicit, 1);
    }
    return result;
}

int ledger_budget_change(struct ledger *ledger, unsigned device, uint64_t budget, struct ledger_fault *fault)
{
    fault->text[0] = '\0';
    if (device > LEDGER_DEVICES || (device < LEDGER_DEVICES && !device_is_known(ledger, device)))
        return -EINVAL;
    int turn = turn_take(ledger);
    int result = budget_apply(ledger, device, budget, fault);
    turn_give(turn);
    return result;
}
