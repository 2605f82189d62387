/*
 * Contexts: what they cost, who owns what, and what their end frees. Called by src/interpose through account.h.
 *
 * `making` is held from context_begin to context_end and from context_ending_begin to its end, across the driver's call: so
 * nobody's new context can get the handle of one that is being ended before its books are closed, and a primary
 * context's state does not change between asking for it and acting on the answer.
 */
#include "config.h"

#include "account/state.h"
#include "platform/gate.h"
#include "platform/testpoint.h"

static bool primary_is_active(const struct driver *driver, CUdevice ordinal)
{
    unsigned flags;
    int active = 0;
    return driver->cuDevicePrimaryCtxGetState != NULL &&
           driver->cuDevicePrimaryCtxGetState(ordinal, &flags, &active) == CUDA_SUCCESS && active != 0;
}

static void context_remember(struct account *account, struct account_device *device, CUcontext handle, unsigned purse,
                             uint64_t bytes, bool primary)
{
    struct allocation replaced = {0};
    struct allocation entry = {
        .pointer = (uintptr_t)handle,
        .bytes = bytes,
        .owner = ++account->next_owner,
        .purse = ALLOCATION_PURSE(purse),
        .kind = LEDGER_KIND_CONTEXT,
        .uses = 1,
    };
    if (allocmap_insert(&account->contexts, &entry, &replaced) == 1) {
        /* The driver would not give a living context's handle to another: that one ended by a way we do not see. */
        books_close_owner(account, replaced.owner);
        books_credit(account, replaced.purse, LEDGER_KIND_CONTEXT, replaced.bytes);
    }
    if (primary)
        device->primary = handle;
}

/* Before its first context NVML does not list a process, which then holds nothing. */
static void reading_begin(struct account *account, const struct account_device *device, struct context_charge *context,
                          uint64_t charged_bytes)
{
    struct drift *reading = &context->reading;
    context->before = overhead_read(device);
    drift_begin_charged(account, account_number(account, device), charged_bytes, reading);
    reading->own_changes = 0; /* what a context costs is told to others, so nobody's change may be in it */
    if (reading->state == DRIFT_UNKNOWN && context->before.own_bytes == 0 && reading->committed_bytes == 0) {
        reading->own_bytes = 0;
        reading->state = DRIFT_CLEAN;
    }
}

static void reading_abandon(struct account *account, const struct context_charge *context)
{
    struct drift unused = context->reading;
    int64_t excess;
    unused.state = DRIFT_BUSY;
    (void)drift_end(account, &unused, 0, &excess);
}

/* Who holds it may wait for room as long as it takes: waiting for him is no reason why this process should stay on the card. Taken
 * for good only inside again, so that nobody holds it who waits at the gate. */
static void making_take(struct account *account)
{
    while (!brief_lock_try(&account->making)) {
        gate_outside_begin();
        brief_lock_take(&account->making);
        brief_lock_give(&account->making);
        gate_outside_end();
    }
}

/* Waits for room without `making`: other threads use the contexts there are meanwhile, and end some. False: refused. Else
 * `making` is held again, and the charge stands unless somebody else made the context. */
static bool context_wait(const struct driver *driver, struct account *account, bool primary,
                         struct context_charge *context)
{
    brief_lock_give(&account->making);
    context->locked = false;
    biased_lock_take(&account->books);
    context->counts = admit(account, context->charge.purse, context->charge.bytes);
    biased_lock_give(&account->books);
    if (!context->counts)
        return false;
    making_take(account);
    context->locked = true;
    if (primary && primary_is_active(driver, context->ordinal)) {
        context->counts = false;
        account_abandon(&context->charge);
    }
    return true;
}

bool context_begin(const struct driver *driver, CUdevice ordinal, bool primary, struct context_charge *context)
{
    struct account *account = account_get();
    struct account_device *device = account != NULL ? account_device_of(account, ordinal) : NULL;
    *context = (struct context_charge){.ordinal = ordinal};
    if (device == NULL)
        return true;
    making_take(account);
    context->locked = true;
    if (primary && primary_is_active(driver, ordinal))
        return true;
    biased_lock_take(&account->books);
    context->charge = (struct charge){
        .purse = purse_here(account, account_number(account, device)),
        .kind = LEDGER_KIND_CONTEXT,
        .bytes = overhead_predict(account, device),
    };
    context->counts = admit_at_once(account, context->charge.purse, context->charge.bytes);
    biased_lock_give(&account->books);
    if (!context->counts && !context_wait(driver, account, primary, context))
        return false;
    if (!context->counts)
        return true;
    reading_begin(account, device, context, context->charge.bytes);
    TESTPOINT("context.charged");
    return true;
}

/* Corrects the charge of a context that was just made. */
static void context_charge_settle(struct account *account, struct account_device *device,
                                  const struct context_charge *context, CUcontext handle, bool primary)
{
    int64_t excess = 0;
    enum drift_state state = drift_end(account, &context->reading, context->charge.bytes, &excess);
    uint64_t measured = overhead_measure(device, &context->before, state, (int64_t)context->charge.bytes + excess);
    uint64_t bytes = measured != 0 ? measured : context->charge.bytes;
    biased_lock_take(&account->books);
    /* What others are told to expect comes from processes that hold nothing else there: another thread's frees meanwhile
     * would make it too little, and it is the least that is kept. */
    if (measured != 0 && books_held(account, account_number(account, device)).committed_bytes == context->charge.bytes)
        ledger_context_cost_seen(account->ledger, device->index, measured);
    books_settle(account, context->charge.purse, LEDGER_KIND_CONTEXT, context->charge.bytes, bytes);
    context_remember(account, device, handle, context->charge.purse, bytes, primary);
    biased_lock_give(&account->books);
}

void context_end(struct context_charge *context, CUresult result, CUcontext handle, bool primary)
{
    struct account *account = account_get();
    struct account_device *device = account != NULL ? account_device_of(account, context->ordinal) : NULL;
    if (device == NULL || !context->locked)
        return;
    if (context->counts) {
        TESTPOINT("context.created");
        if (result == CUDA_SUCCESS)
            context_charge_settle(account, device, context, handle, primary);
        else {
            reading_abandon(account, context);
            account_abandon(&context->charge);
        }
    } else if (result == CUDA_SUCCESS) {
        biased_lock_take(&account->books);
        if (allocmap_find(&account->contexts, (uintptr_t)handle) == NULL)
            context_remember(account, device, handle, account_number(account, device), 0,
                             primary); /* made by a route we do not follow */
        device->primary = handle;
        biased_lock_give(&account->books);
    }
    brief_lock_give(&account->making);
}

void context_ending_begin(CUcontext handle, CUdevice ordinal, struct context_ending *ending)
{
    struct account *account = account_get();
    *ending = (struct context_ending){.handle = handle, .ordinal = ordinal};
    if (account == NULL)
        return;
    making_take(account);
    ending->locked = true;
    biased_lock_take(&account->books);
    if (handle == NULL) {
        struct account_device *device = account_device_of(account, ordinal);
        ending->handle = device != NULL ? device->primary : NULL;
    }
    const struct allocation *context = allocmap_find(&account->contexts, (uintptr_t)ending->handle);
    account->ending = context != NULL ? context->owner : OWNER_NONE;
    atomic_store(&account->measured, true); /* from now on a free says so before, and is not taken for the end's */
    biased_lock_give(&account->books);
}

static void context_close(struct account *account, CUcontext handle)
{
    struct allocation context;
    if (!allocmap_remove(&account->contexts, (uintptr_t)handle, &context))
        return;
    books_close_owner(account, context.owner);
    for (unsigned i = 0; i < account->devices; i++)
        if (account->device[i].primary == handle)
            account->device[i].primary = NULL;
    books_credit(account, context.purse, LEDGER_KIND_CONTEXT, context.bytes);
    implicit_forget(account, purse_device(context.purse));
}

void context_ending_end(struct context_ending *ending, bool ended)
{
    struct account *account = account_get();
    if (account == NULL || !ending->locked)
        return;
    TESTPOINT("context.ended");
    biased_lock_take(&account->books);
    if (ended && ending->handle != NULL)
        context_close(account, ending->handle);
    account->ending = OWNER_NONE;
    biased_lock_give(&account->books);
    brief_lock_give(&account->making);
}

bool context_primary_is_gone(const struct driver *driver, CUdevice ordinal)
{
    return !primary_is_active(driver, ordinal);
}

bool context_use(CUcontext handle, int change)
{
    struct account *account = account_get();
    bool gone = false;
    if (account == NULL)
        return false;
    biased_lock_take(&account->books);
    struct allocation *context = allocmap_find(&account->contexts, (uintptr_t)handle);
    if (context != NULL) {
        context->uses = (uint16_t)(context->uses + change);
        gone = context->uses == 0;
    }
    biased_lock_give(&account->books);
    return gone;
}
