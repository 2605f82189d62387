/*
 * What each pointer was charged, and what every charge becomes. Called by src/interpose through account.h.
 *
 * Small requests share 2 MiB blocks in the driver; which block a pointer lies in is known only when the driver has answered.
 * So each is charged a block before the call, and given it back where the block was paid for already. The table of blocks
 * counts the allocations in each; the last one that is freed takes the block's charge with it.
 */
#include "config.h"

#include <errno.h>
#include "account/pools.h"
#include "account/state.h"
#include "platform/log.h"
#include "platform/testpoint.h"

#define SMALL_BYTES (1ULL << 20) /* larger requests get blocks of their own */

/* --- asking ---------------------------------------------------------------------------------------------------------- */

/* A context that was made by a route we do not follow: nothing is known of its cost, but its device is. */
static const struct allocation *context_adopt(const struct driver *driver, struct account *account, CUcontext handle)
{
    CUdevice ordinal;
    struct allocation replaced;
    biased_lock_give(&account->books);
    CUresult result = driver->cuCtxGetDevice(&ordinal);
    biased_lock_take(&account->books);
    const struct account_device *device = result == CUDA_SUCCESS ? account_device_of(account, ordinal) : NULL;
    if (device == NULL)
        return NULL;
    struct allocation entry = {
        .pointer = (uintptr_t)handle,
        .owner = ++account->next_owner,
        .purse = ALLOCATION_PURSE(account_number(account, device)),
        .kind = LEDGER_KIND_CONTEXT,
        .uses = 1,
    };
    if (allocmap_find(&account->contexts, entry.pointer) == NULL &&
        allocmap_insert(&account->contexts, &entry, &replaced) < 0)
        return NULL;
    return allocmap_find(&account->contexts, entry.pointer);
}

bool account_ask(const struct driver *driver, enum ledger_kind kind, uint64_t bytes, struct charge *charge,
                 bool *passes)
{
    struct account *account = account_get();
    CUcontext handle = NULL;
    *passes = true;
    if (account == NULL || bytes == 0 || driver->cuCtxGetCurrent(&handle) != CUDA_SUCCESS || handle == NULL)
        return false;
    biased_lock_take(&account->books);
    const struct allocation *context = allocmap_find(&account->contexts, (uintptr_t)handle);
    if (__builtin_expect(context == NULL, 0))
        context = context_adopt(driver, account, handle);
    if (context == NULL) {
        biased_lock_give(&account->books);
        return false;
    }
    *passes = false;
    *charge = (struct charge){.purse = purse_here(account, purse_device(context->purse)),
                              .kind = kind,
                              .owner = context->owner,
                              .bytes = bytes};
    bool granted = admit(account, charge->purse, bytes);
    biased_lock_give(&account->books);
    return granted;
}

bool books_context(const struct driver *driver, struct account *account, unsigned *device, uint32_t *owner)
{
    CUcontext handle = NULL;
    if (driver->cuCtxGetCurrent(&handle) != CUDA_SUCCESS || handle == NULL)
        return false;
    biased_lock_take(&account->books);
    const struct allocation *context = allocmap_find(&account->contexts, (uintptr_t)handle);
    if (context == NULL)
        context = context_adopt(driver, account, handle);
    if (context != NULL) {
        *device = purse_device(context->purse);
        *owner = context->owner;
    }
    biased_lock_give(&account->books);
    return context != NULL;
}

uint32_t account_owner(const struct driver *driver)
{
    struct account *account = account_get();
    CUcontext handle = NULL;
    if (account == NULL || driver->cuCtxGetCurrent(&handle) != CUDA_SUCCESS || handle == NULL)
        return OWNER_NONE;
    biased_lock_take(&account->books);
    const struct allocation *context = allocmap_find(&account->contexts, (uintptr_t)handle);
    uint32_t owner = context != NULL ? context->owner : OWNER_NONE;
    biased_lock_give(&account->books);
    return owner;
}

bool account_ask_device(CUdevice ordinal, enum ledger_kind kind, uint64_t bytes, struct charge *charge, bool *passes)
{
    struct account *account = account_get();
    const struct account_device *device = account != NULL ? account_device_of(account, ordinal) : NULL;
    *passes = true;
    if (device == NULL || bytes == 0)
        return false;
    *passes = false;
    biased_lock_take(&account->books);
    *charge = (struct charge){.purse = purse_here(account, account_number(account, device)),
                              .kind = kind,
                              .owner = OWNER_NONE,
                              .bytes = bytes};
    bool granted = admit(account, charge->purse, bytes);
    biased_lock_give(&account->books);
    return granted;
}

/* --- recording -------------------------------------------------------------------------------------------------------- */

void books_settle(struct account *account, unsigned purse, enum ledger_kind kind, uint64_t charged_bytes,
                  uint64_t actual_bytes)
{
    unsigned row = account->row[purse_row(purse)].claim.row, index = account->device[purse_device(purse)].index;
    ledger_settle(account->ledger, row, index, charged_bytes, actual_bytes);
    if (actual_bytes != 0)
        ledger_kind_add(account->ledger, row, index, kind, (int64_t)actual_bytes);
}

void books_credit(struct account *account, unsigned purse, enum ledger_kind kind, uint64_t bytes)
{
    unsigned row = account->row[purse_row(purse)].claim.row, index = account->device[purse_device(purse)].index;
    if (bytes == 0)
        return;
    ledger_credit(account->ledger, row, index, bytes);
    ledger_kind_add(account->ledger, row, index, kind, -(int64_t)bytes);
}

/* Takes back what was charged for an entry that is gone. */
static void entry_credit(struct account *account, const struct allocation *entry)
{
    uint64_t bytes = entry->bytes;
    unsigned purse = entry->purse;
    if (__builtin_expect(entry->kind == LEDGER_KIND_POOL, 0)) { /* what is charged is the pool's reserve */
        account->pool[entry->uses].live--;
        reservoir_hand(&account->pool[entry->uses], purse, -(int64_t)bytes);
        return;
    }
    if (bytes == 0 && __builtin_expect(entry->kind == LEDGER_KIND_ARRAY, 0)) {
        arrays_small_gone(account, entry);
        return;
    }
    if (bytes == 0) {
        uint64_t base = entry->pointer & ~(BLOCK_BYTES - 1);
        struct allocation *block = allocmap_find(&account->blocks, base), removed;
        if (block != NULL && block->owner == entry->owner && --block->bytes == 0) {
            (void)allocmap_remove(&account->blocks, base, &removed);
            purse = removed.purse; /* who came into the block first has paid for it */
            bytes = arrays_keep_block(account, entry->owner, purse) ? 0 : BLOCK_BYTES;
        }
    }
    books_credit(account, purse, (enum ledger_kind)entry->kind, bytes);
}

/* Counts a small allocation in its block; returns what that costs. */
static uint64_t block_enter(struct account *account, const struct allocation *entry)
{
    uint64_t base = entry->pointer & ~(BLOCK_BYTES - 1);
    struct allocation *there = allocmap_find(&account->blocks, base);
    if (__builtin_expect(there != NULL && there->owner == entry->owner, 1)) {
        there->bytes++;
        return 0;
    }
    struct allocation block = *entry, replaced;
    block.pointer = base;
    block.bytes = 1;
    if (there != NULL) { /* of a context that has ended, and whose books are not closed yet */
        books_credit(account, there->purse, (enum ledger_kind)there->kind, BLOCK_BYTES);
        *there = block;
        return BLOCK_BYTES;
    }
    (void)allocmap_insert(&account->blocks, &block, &replaced); /* without memory for it the block stays charged */
    return BLOCK_BYTES;
}

/* An entry whose pointer the driver handed out again: it has been freed, by a thread that has not come to account_freed yet,
 * nearly always. Its charge goes now, and the note keeps that thread from taking the new entry for its own. (Where it was
 * freed by a way that we do not see, nobody comes for the note: then the next free of that address leaves its entry, until
 * the address is handed out once more.) */
static void entry_supersede(struct account *account, const struct allocation *replaced)
{
    struct allocation *note = allocmap_find(&account->reused, replaced->pointer), none;
    struct allocation fresh = {.pointer = replaced->pointer, .bytes = 1};
    entry_credit(account, replaced);
    books_count(account, replaced->purse, LEDGER_COUNT_FREE);
    if (replaced->owner == account->ending && replaced->owner != OWNER_NONE && replaced->uses != ENTRY_LEAVING)
        return; /* freed by the end of its context, whose books are not closed yet: no free of it is on its way */
    if (note != NULL)
        note->bytes++;
    else
        (void)allocmap_insert(&account->reused, &fresh, &none);
}

/* The place for an entry of that pointer, to be filled in; `spare` where there is no memory for one. */
static inline struct allocation *entry_enter(struct account *account, uint64_t pointer, struct allocation *spare)
{
    bool fresh;
    struct allocation *entry = allocmap_enter(&account->allocations, pointer, &fresh);
    if (__builtin_expect(entry == NULL, 0)) {
        log_line(LOG_WARN, "no memory for the books: an allocation stays charged until its context ends");
        spare->pointer = pointer;
        return spare;
    }
    if (__builtin_expect(!fresh, 0)) {
        struct allocation replaced = *entry;
        entry_supersede(account, &replaced); /* changes other tables only */
    }
    return entry;
}

static void entry_remember(struct account *account, const struct allocation *entry)
{
    struct allocation spare;
    *entry_enter(account, entry->pointer, &spare) = *entry;
}

void books_remember(struct account *account, const struct allocation *entry)
{
    entry_remember(account, entry);
}

void books_pool_pointer(struct account *account, CUdeviceptr pointer, uint64_t bytes, const struct pool_call *call)
{
    struct allocation spare, *entry = entry_enter(account, pointer, &spare);
    entry->bytes = bytes;
    entry->owner = OWNER_NONE;
    entry->purse = ALLOCATION_PURSE(call->purse);
    entry->kind = LEDGER_KIND_POOL;
    entry->uses = (uint16_t)call->pool;
    account->pool[call->pool].live++;
    reservoir_hand(&account->pool[call->pool], call->purse, (int64_t)bytes);
}

void account_record(const struct charge *charge, CUdeviceptr pointer, uint64_t actual_bytes)
{
    struct account *account = account_get();
    TESTPOINT("alloc.driver_returned");
    if (account == NULL)
        return;
    bool small = charge->kind == LEDGER_KIND_LINEAR && actual_bytes <= SMALL_BYTES;
    uint64_t cost = linear_cost(actual_bytes);
    biased_lock_take(&account->books);
    struct allocation spare, *entry = entry_enter(account, pointer, &spare);
    entry->bytes = small ? 0 : cost;
    entry->owner = charge->owner;
    entry->purse = ALLOCATION_PURSE(charge->purse);
    entry->kind = ALLOCATION_KIND(charge->kind);
    entry->uses = 0;
    if (small)
        cost = block_enter(account, entry);
    books_settle(account, charge->purse, charge->kind, charge->bytes, cost);
    books_count(account, charge->purse, LEDGER_COUNT_ALLOCATION);
    biased_lock_give(&account->books);
    TESTPOINT("alloc.recorded");
}

void account_imported(CUdeviceptr pointer)
{
    struct account *account = account_get();
    struct allocation entry;
    if (account == NULL)
        return;
    biased_lock_take(&account->books);
    account->foreign = true;
    if (allocmap_remove(&account->allocations, pointer, &entry))
        entry_supersede(account, &entry);
    biased_lock_give(&account->books);
}

void account_abandon(const struct charge *charge)
{
    struct account *account = account_get();
    if (account == NULL)
        return;
    biased_lock_take(&account->books);
    books_settle(account, charge->purse, charge->kind, charge->bytes, 0);
    biased_lock_give(&account->books);
}

/* --- freeing ---------------------------------------------------------------------------------------------------------- */

/* Between the driver's free and this the driver may have handed the same address to another thread, whose record found our
 * entry, credited it and left a note: then the entry that is there now is not ours. */
static bool free_is_noted(struct account *account, CUdeviceptr pointer)
{
    struct allocation *note = allocmap_find(&account->reused, pointer), removed;
    if (note == NULL)
        return false;
    if (--note->bytes == 0)
        (void)allocmap_remove(&account->reused, pointer, &removed);
    return true;
}

int account_freeing(CUdeviceptr pointer)
{
    struct account *account = account_get();
    if (account == NULL || __builtin_expect(!atomic_load_explicit(&account->measured, memory_order_relaxed), 1))
        return 0;
    biased_lock_take(&account->books);
    struct allocation *entry = allocmap_find(&account->allocations, pointer);
    if (entry != NULL && entry->kind != LEDGER_KIND_POOL)
        entry->uses = ENTRY_LEAVING;
    (void)atomic_fetch_add(&account->leaving, 1);
    biased_lock_give(&account->books);
    return 1;
}

bool account_freed(CUdeviceptr pointer)
{
    struct account *account = account_get();
    struct allocation entry;
    bool pooled = false;
    TESTPOINT("free.driver_returned");
    if (account == NULL)
        return false;
    biased_lock_take(&account->books);
    bool noted = account->reused.count != 0 && free_is_noted(account, pointer);
    if (!noted && allocmap_remove(&account->allocations, pointer, &entry)) {
        entry_credit(account, &entry);
        books_count(account, entry.purse, LEDGER_COUNT_FREE);
        pooled = entry.kind == LEDGER_KIND_POOL;
    } else if (!noted)
        handles_buffer_freed(account, pointer);
    biased_lock_give(&account->books);
    TESTPOINT("free.credited");
    return pooled;
}

/* --- what has a handle ------------------------------------------------------------------------------------------------- */

#define ASIDE (1ULL << 63) /* no address and no handle: those of user space are lower */

/* The entry stays in the table, so that the end of its context still finds it. */
uint64_t account_ending(uint64_t handle)
{
    struct account *account = account_get();
    struct allocation entry, replaced;
    uint64_t aside = 0;
    if (account == NULL)
        return 0;
    biased_lock_take(&account->books);
    if (allocmap_remove(&account->allocations, handle, &entry)) {
        aside = entry.pointer = ASIDE | ++account->next_aside;
        (void)allocmap_insert(&account->allocations, &entry, &replaced); /* into a table that has just lost one */
    }
    biased_lock_give(&account->books);
    return aside;
}

void account_ended(uint64_t handle, uint64_t aside, bool gone)
{
    struct account *account = account_get();
    struct allocation entry;
    if (account == NULL)
        return;
    biased_lock_take(&account->books);
    bool known = aside != 0 && allocmap_remove(&account->allocations, aside, &entry);
    if (known && gone) {
        entry_credit(account, &entry);
        books_count(account, entry.purse, LEDGER_COUNT_FREE);
    } else if (known) {
        entry.pointer = handle;
        entry_remember(account, &entry);
    } else if (gone)
        handles_buffer_freed(account, handle);
    biased_lock_give(&account->books);
}

/* --- the end of an owner ------------------------------------------------------------------------------------------------ */

/* Bytes of one purse, by kind. Most entries of a context are of one: it is credited when another comes. */
struct closing {
    unsigned purse;
    uint64_t kinds[LEDGER_KIND_COUNT];
};

static void closing_credit(struct account *account, struct closing *closing)
{
    for (unsigned kind = 0; kind < LEDGER_KIND_COUNT; kind++)
        books_credit(account, closing->purse, (enum ledger_kind)kind, closing->kinds[kind]);
    *closing = (struct closing){0};
}

static void closing_add(struct account *account, struct closing *closing, const struct allocation *entry,
                        uint64_t bytes)
{
    if (closing->purse != entry->purse) {
        closing_credit(account, closing);
        closing->purse = entry->purse;
    }
    closing->kinds[entry->kind] += bytes;
}

void books_close_owner(struct account *account, uint32_t owner)
{
    struct closing closing = {0};
    struct allocation entry;
    size_t at = 0;
    handles_close_owner(account, owner);
    while (allocmap_remove_of(&account->allocations, owner, &at, &entry))
        closing_add(account, &closing, &entry, entry.bytes);
    at = 0;
    while (allocmap_remove_of(&account->blocks, owner, &at, &entry))
        closing_add(account, &closing, &entry, BLOCK_BYTES);
    closing_credit(account, &closing);
    arrays_close_owner(account, owner);
}

struct ledger_held books_held(const struct account *account, unsigned device)
{
    struct ledger_held sum = {0};
    for (unsigned i = 0; i < account->rows; i++) {
        struct ledger_held held =
            ledger_held(account->ledger, account->row[i].claim.row, account->device[device].index);
        sum.committed_bytes += held.committed_bytes;
        sum.in_flight_bytes += held.in_flight_bytes;
        sum.changes += held.changes;
    }
    return sum;
}
