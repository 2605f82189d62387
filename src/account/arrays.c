/*
 * Arrays. Called by src/interpose through account.h, and by books.c.
 *
 * Large ones are charged what their descriptor says, as any memory. Small ones share 2 MiB blocks, and which block one lies in
 * nobody can know; what is kept is a bound, for each context:
 *
 *     charged_bytes >= blocks that hold small arrays and no small memory that is counted
 *     charged_bytes <= BLOCK_BYTES * count
 *
 * A new one is charged a block, and given it back where the card says that it took none: one block less than the books say,
 * exactly; anything else is another thread's free, which the books have not seen yet. One that goes gives back what the card
 * says came free, and what is charged beyond a block for each that is left. A block whose last small memory is freed stays
 * charged while arrays may lie in it. Where the card cannot say, a context's are taken to be packed by powers of two, and what was
 * charged stays until the last is gone.
 */
#include "config.h"

#include "account/state.h"
#include "platform/testpoint.h"

#define SMALL_BYTES (1ULL << 20)

/* --- the sharers, under `books` ----------------------------------------------------------------------------------------- */

/* Those of one context that one row pays for; purse PURSE_ANY: the first of the context's. */
#define PURSE_ANY UINT32_MAX
static struct array_sharer *sharer_find(struct account *account, uint32_t owner, unsigned purse)
{
    for (unsigned i = 0; i < ARRAY_SHARERS; i++)
        if (account->array_sharer[i].owner == owner && (purse == PURSE_ANY || account->array_sharer[i].purse == purse))
            return &account->array_sharer[i];
    return NULL;
}

static struct array_sharer *sharer_of(struct account *account, const struct charge *charge)
{
    struct array_sharer *sharer =
        charge->owner != OWNER_NONE ? sharer_find(account, charge->owner, charge->purse) : NULL;
    if (sharer == NULL && charge->owner != OWNER_NONE && (sharer = sharer_find(account, OWNER_NONE, PURSE_ANY)) != NULL)
        *sharer = (struct array_sharer){.owner = charge->owner, .purse = (uint16_t)charge->purse};
    return sharer;
}

static void sharer_credit(struct account *account, struct array_sharer *sharer, uint64_t bytes)
{
    if (bytes > sharer->charged_bytes)
        bytes = sharer->charged_bytes;
    sharer->charged_bytes -= bytes;
    books_credit(account, sharer->purse, LEDGER_KIND_ARRAY, bytes);
}

static uint64_t class_of(const struct allocation *entry)
{
    return 1ULL << entry->uses;
}

void arrays_small_gone(struct account *account, const struct allocation *entry)
{
    struct array_sharer *sharer = sharer_find(account, entry->owner, entry->purse);
    if (sharer == NULL)
        return;
    sharer->class_bytes -= class_of(entry);
    sharer->count--;
    uint64_t most = sharer->count * BLOCK_BYTES;
    if (sharer->charged_bytes > most)
        sharer_credit(account, sharer, sharer->charged_bytes - most);
    if (sharer->count == 0)
        *sharer = (struct array_sharer){.owner = OWNER_NONE};
}

bool arrays_keep_block(struct account *account, uint32_t owner, unsigned purse)
{
    struct array_sharer *sharer = owner != OWNER_NONE ? sharer_find(account, owner, purse) : NULL;
    if (sharer == NULL || sharer->charged_bytes + BLOCK_BYTES > sharer->count * BLOCK_BYTES)
        return false;
    unsigned row = account->row[purse_row(purse)].claim.row, index = account->device[purse_device(purse)].index;
    sharer->charged_bytes += BLOCK_BYTES;
    ledger_kind_add(account->ledger, row, index, LEDGER_KIND_LINEAR, -(int64_t)BLOCK_BYTES);
    ledger_kind_add(account->ledger, row, index, LEDGER_KIND_ARRAY, (int64_t)BLOCK_BYTES);
    return true;
}

void arrays_close_owner(struct account *account, uint32_t owner)
{
    struct array_sharer *sharer;
    while (owner != OWNER_NONE && (sharer = sharer_find(account, owner, PURSE_ANY)) != NULL) {
        sharer_credit(account, sharer, sharer->charged_bytes);
        *sharer = (struct array_sharer){.owner = OWNER_NONE};
    }
}

/* --- making ------------------------------------------------------------------------------------------------------------- */

bool array_ask(const struct driver *driver, uint64_t bytes, struct array_charge *array, bool *passes)
{
    struct account *account = account_get();
    unsigned device;
    uint32_t owner;
    *passes = true;
    array->bytes = bytes;
    if (account == NULL || bytes == 0)
        return false;
    if (bytes > SMALL_BYTES)
        return account_ask(driver, LEDGER_KIND_ARRAY, linear_cost(bytes), &array->charge, passes);
    if (!books_context(driver, account, &device, &owner))
        return false;
    drift_begin(account, device, &array->before);
    if (account_ask(driver, LEDGER_KIND_ARRAY, BLOCK_BYTES, &array->charge, passes))
        return true;
    array_abandon(array);
    return false;
}

void array_abandon(const struct array_charge *array)
{
    struct account *account = account_get();
    int64_t unused;
    if (account != NULL && array->bytes <= SMALL_BYTES) {
        struct drift void_reading = array->before;
        void_reading.state = DRIFT_BUSY;
        (void)drift_end(account, &void_reading, 0, &unused);
    }
}

/* How many bits of a block's share a small array takes. */
static uint16_t class_bits(uint64_t bytes)
{
    return (uint16_t)(bytes <= 1 ? 0 : 64 - __builtin_clzll(bytes - 1));
}

/* Counts a small array; returns what it is to be charged before the card is asked. */
static uint64_t sharer_enter(struct array_sharer *sharer, const struct allocation *entry, enum drift_state state)
{
    sharer->count++;
    sharer->class_bytes += class_of(entry);
    if (state != DRIFT_UNKNOWN)
        return BLOCK_BYTES;
    return linear_cost(sharer->class_bytes) > sharer->charged_bytes ? BLOCK_BYTES : 0;
}

static void small_record(struct account *account, const struct array_charge *array, uint64_t handle)
{
    const struct charge *charge = &array->charge;
    uint64_t bytes = BLOCK_BYTES;
    int64_t excess = 0;
    struct allocation entry = {
        .pointer = handle,
        .owner = charge->owner,
        .purse = ALLOCATION_PURSE(charge->purse),
        .kind = LEDGER_KIND_ARRAY,
        .uses = class_bits(array->bytes),
    };
    biased_lock_take(&account->books);
    struct array_sharer *sharer = sharer_of(account, charge);
    if (sharer == NULL)
        entry.bytes = BLOCK_BYTES; /* more contexts than anybody has: a block of its own */
    else
        bytes = sharer_enter(sharer, &entry, array->before.state);
    books_remember(account, &entry);
    if (sharer != NULL)
        sharer->charged_bytes += bytes;
    books_settle(account, charge->purse, LEDGER_KIND_ARRAY, charge->bytes, bytes);
    books_count(account, charge->purse, LEDGER_COUNT_ALLOCATION);
    biased_lock_give(&account->books);
    if (drift_end(account, &array->before, 0, &excess) != DRIFT_CLEAN || excess != -(int64_t)BLOCK_BYTES)
        return;
    biased_lock_take(&account->books);
    sharer = sharer_find(account, charge->owner, charge->purse);
    if (sharer != NULL && charge->owner != OWNER_NONE)
        sharer_credit(account, sharer, BLOCK_BYTES);
    biased_lock_give(&account->books);
}

void array_record(const struct array_charge *array, uint64_t handle)
{
    struct account *account = account_get();
    if (account == NULL)
        return;
    if (array->bytes > SMALL_BYTES)
        account_record(&array->charge, handle, array->bytes);
    else
        small_record(account, array, handle);
}

/* --- destroying --------------------------------------------------------------------------------------------------------- */

void array_ending_begin(uint64_t handle, struct array_ending *ending)
{
    struct account *account = account_get();
    unsigned purse = 0;
    *ending = (struct array_ending){.handle = handle};
    if (account == NULL)
        return;
    biased_lock_take(&account->books);
    const struct allocation *entry = allocmap_find(&account->allocations, handle);
    if (entry != NULL && entry->kind == LEDGER_KIND_ARRAY && entry->bytes == 0) {
        ending->small = true;
        ending->owner = entry->owner;
        purse = entry->purse;
        ending->purse = purse;
    }
    biased_lock_give(&account->books);
    ending->aside = account_ending(handle);
    if (ending->small)
        drift_begin(account, purse_device(purse), &ending->before);
}

void array_ending_end(const struct array_ending *ending, bool gone)
{
    struct account *account = account_get();
    int64_t excess = 0;
    if (account == NULL)
        return;
    account_ended(ending->handle, ending->aside, gone);
    if (!ending->small || drift_end(account, &ending->before, 0, &excess) != DRIFT_CLEAN || !gone ||
        excess != -(int64_t)BLOCK_BYTES)
        return;
    biased_lock_take(&account->books);
    struct array_sharer *sharer = sharer_find(account, ending->owner, ending->purse);
    if (sharer != NULL && ending->owner != OWNER_NONE)
        sharer_credit(account, sharer, BLOCK_BYTES);
    biased_lock_give(&account->books);
}
