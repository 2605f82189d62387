/*
 * What is taken without a size in the call: modules, libraries, limits, green contexts. Called by src/interpose through account.h.
 *
 * As far as the cost can be predicted it is asked for before the call; what it really was is measured around it (drift.c) and
 * charged after. Where nothing can be measured the prediction stays.
 */
#include "config.h"

#include "account/state.h"
#include "platform/log.h"

static unsigned purse_of(struct account *account, unsigned device)
{
    biased_lock_take(&account->books);
    unsigned purse = purse_here(account, device);
    biased_lock_give(&account->books);
    return purse;
}

bool measured_ask(const struct driver *driver, enum ledger_kind kind, uint64_t bytes, struct measured_charge *measured,
                  bool *passes)
{
    struct account *account = account_get();
    unsigned device;
    uint32_t owner;
    *passes = true;
    if (account == NULL || !books_context(driver, account, &device, &owner))
        return false;
    measured->charge = (struct charge){.purse = purse_of(account, device), .kind = kind, .owner = owner};
    drift_begin(account, device, &measured->before);
    if (bytes == 0 || account_ask(driver, kind, bytes, &measured->charge, passes))
        return true;
    measured->charge.bytes = 0;
    measured_abandon(measured);
    return false;
}

void measured_abandon(const struct measured_charge *measured)
{
    struct account *account = account_get();
    struct drift unused = measured->before;
    int64_t excess;
    if (account == NULL)
        return;
    unused.state = DRIFT_BUSY;
    (void)drift_end(account, &unused, 0, &excess);
    if (measured->charge.bytes != 0)
        account_abandon(&measured->charge);
}

uint64_t measured_cost(struct measured_charge *measured)
{
    struct account *account = account_get();
    int64_t excess = 0;
    uint64_t bytes = measured->charge.bytes;
    if (account == NULL || drift_end(account, &measured->before, bytes, &excess) != DRIFT_CLEAN)
        return bytes;
    int64_t cost = (int64_t)bytes + excess;
    return cost > 0 ? linear_cost((uint64_t)cost) : 0;
}

bool measured_extend(struct measured_charge *measured, uint64_t bytes)
{
    struct account *account = account_get();
    struct charge *charge = &measured->charge;
    if (account == NULL || bytes <= charge->bytes)
        return true;
    biased_lock_take(&account->books);
    bool granted = admit_at_once(account, charge->purse, bytes - charge->bytes);
    biased_lock_give(&account->books);
    if (granted)
        charge->bytes = bytes;
    return granted;
}

void measured_record(const struct measured_charge *measured, uint64_t handle, uint64_t bytes)
{
    struct account *account = account_get();
    const struct charge *charge = &measured->charge;
    struct allocation entry = {
        .pointer = handle,
        .bytes = bytes,
        .owner = charge->owner,
        .purse = ALLOCATION_PURSE(charge->purse),
        .kind = ALLOCATION_KIND(charge->kind),
    };
    if (account == NULL)
        return;
    biased_lock_take(&account->books);
    struct allocation *there =
        charge->kind == LEDGER_KIND_CONTEXT ? allocmap_find(&account->allocations, handle) : NULL;
    if (there != NULL)
        there->bytes += bytes;
    else if (bytes != 0) {
        books_remember(account, &entry);
        books_count(account, charge->purse, LEDGER_COUNT_ALLOCATION);
    }
    books_settle(account, charge->purse, charge->kind, charge->bytes, bytes);
    biased_lock_give(&account->books);
}

/* --- what is added to a context ----------------------------------------------------------------------------------------- */

/* Odd, so that no address of memory and no handle is the same. */
static uint64_t context_key(uint32_t owner, enum context_part part)
{
    return (uint64_t)owner << 2 | (uint64_t)part;
}

void measured_record_context(const struct measured_charge *measured, enum context_part part, uint64_t bytes)
{
    measured_record(measured, context_key(measured->charge.owner, part), bytes);
}

/* What stacks of that many bytes take for all threads that can be resident in the current context; UINT64_MAX: it cannot be said. */
static uint64_t stacks_total(const struct driver *driver, struct account *account, size_t bytes, unsigned *device,
                             uint32_t *owner)
{
    int processors = 0, threads = 0;
    uint64_t all;
    if (!books_context(driver, account, device, owner))
        return UINT64_MAX;
    if (bytes <= CONTEXT_STACK_BYTES)
        return 0;
    CUdevice ordinal = account->device[*device].ordinal;
    (void)driver->cuDeviceGetAttribute(&processors, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, ordinal);
    (void)driver->cuDeviceGetAttribute(&threads, CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR, ordinal);
    if (processors <= 0 || threads <= 0 ||
        __builtin_mul_overflow((uint64_t)(bytes - CONTEXT_STACK_BYTES), (uint64_t)processors * (uint64_t)threads, &all))
        return UINT64_MAX; /* more than any driver grants */
    return linear_cost(all);
}

uint64_t stacks_cost(const struct driver *driver, size_t bytes)
{
    struct account *account = account_get();
    unsigned device;
    uint32_t owner;
    uint64_t all = account != NULL ? stacks_total(driver, account, bytes, &device, &owner) : UINT64_MAX;
    if (all == UINT64_MAX)
        return 0;
    biased_lock_take(&account->books);
    const struct allocation *held = allocmap_find(&account->allocations, context_key(owner, CONTEXT_STACKS));
    uint64_t held_bytes = held != NULL ? held->bytes : 0;
    biased_lock_give(&account->books);
    return all > held_bytes ? all - held_bytes : 0;
}

void stacks_lowered(const struct driver *driver, size_t bytes)
{
    struct account *account = account_get();
    unsigned device;
    uint32_t owner;
    uint64_t all = account != NULL ? stacks_total(driver, account, bytes, &device, &owner) : UINT64_MAX;
    if (all == UINT64_MAX)
        return;
    biased_lock_take(&account->books);
    struct allocation *held = allocmap_find(&account->allocations, context_key(owner, CONTEXT_STACKS));
    if (held != NULL && held->bytes > all) {
        books_credit(account, device, LEDGER_KIND_CONTEXT, held->bytes - all);
        held->bytes = all;
    }
    biased_lock_give(&account->books);
}

/* --- libraries ------------------------------------------------------------------------------------------------------------ */

void library_record(const struct charge *charge, uint64_t handle)
{
    struct measured_charge measured = {.charge = *charge};
    measured.charge.owner = OWNER_NONE; /* it outlives the context that was current */
    measured_record(&measured, handle, charge->bytes);
}

/* --- green contexts ------------------------------------------------------------------------------------------------------- */

void green_remember(CUcontext context, CUdevice ordinal)
{
    struct account *account = account_get();
    struct account_device *device = account != NULL ? account_device_of(account, ordinal) : NULL;
    struct allocation replaced;
    if (device == NULL)
        return;
    biased_lock_take(&account->books);
    const struct allocation *primary = allocmap_find(&account->contexts, (uintptr_t)device->primary);
    if (primary != NULL) {
        struct allocation alias = {.pointer = (uintptr_t)context,
                                   .owner = primary->owner,
                                   .purse = primary->purse,
                                   .kind = LEDGER_KIND_CONTEXT,
                                   .uses = 1};
        (void)allocmap_insert(&account->contexts, &alias, &replaced);
    }
    biased_lock_give(&account->books);
}

bool green_find(CUcontext context, CUdevice *ordinal)
{
    struct account *account = account_get();
    if (account == NULL)
        return false;
    biased_lock_take(&account->books);
    const struct allocation *alias = allocmap_find(&account->contexts, (uintptr_t)context);
    if (alias != NULL)
        *ordinal = account->device[purse_device(alias->purse)].ordinal;
    biased_lock_give(&account->books);
    return alias != NULL;
}

void green_forget(CUcontext context)
{
    struct account *account = account_get();
    struct allocation alias;
    if (account == NULL)
        return;
    biased_lock_take(&account->books);
    (void)allocmap_remove(&account->contexts, (uintptr_t)context, &alias);
    biased_lock_give(&account->books);
}

bool measured_ask_primary(CUdevice ordinal, uint64_t bytes, struct measured_charge *measured, bool *passes)
{
    struct account *account = account_get();
    struct account_device *device = account != NULL ? account_device_of(account, ordinal) : NULL;
    *passes = true;
    if (device == NULL)
        return false;
    biased_lock_take(&account->books);
    const struct allocation *primary = allocmap_find(&account->contexts, (uintptr_t)device->primary);
    uint32_t owner = primary != NULL ? primary->owner : OWNER_NONE;
    biased_lock_give(&account->books);
    if (owner == OWNER_NONE)
        return false;
    unsigned number = account_number(account, device);
    measured->charge = (struct charge){.purse = purse_of(account, number), .kind = LEDGER_KIND_CONTEXT, .owner = owner};
    drift_begin(account, number, &measured->before);
    if (account_ask_device(ordinal, LEDGER_KIND_CONTEXT, bytes, &measured->charge, passes)) {
        measured->charge.owner = owner;
        return true;
    }
    measured->charge.bytes = 0;
    measured_abandon(measured);
    return false;
}
