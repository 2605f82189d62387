/* What pools and graphs have in common: a charge that follows what the driver has reserved. reservoir.h says how. */
#include "config.h"

#include "account/reservoir.h"
#include "account/state.h"

uint64_t reservoir_enter(struct reservoir *reservoir, uint64_t bytes)
{
    reservoir->charged_bytes += bytes;
    reservoir->calls++;
    return atomic_fetch_add_explicit(&reservoir->changes, 1, memory_order_release) + 1;
}

_Static_assert((int)RESERVOIR_ROWS == (int)ACCOUNT_ROWS, "a part for each row");

/* Notes that another row than the reservoir's own has paid. */
static void part_add(struct reservoir *reservoir, unsigned purse, uint64_t bytes)
{
    if (__builtin_expect(purse != reservoir->purse, 0)) {
        reservoir->part[purse_row(purse)].charged_bytes += bytes;
        reservoir->shared = true;
    }
}

/* Credits others' parts with up to `bytes`: what they have paid beyond the steps that are handed out to them, or (`all`) all of it.
 * Returns what is left. */
static uint64_t parts_credit(struct account *account, struct reservoir *reservoir, uint64_t bytes, bool all)
{
    for (unsigned row = 0; row < account->rows && bytes != 0; row++) {
        struct reservoir_part *part = &reservoir->part[row];
        uint64_t kept = all ? 0 : reservoir_steps(part->live_bytes);
        uint64_t least = part->charged_bytes > kept ? part->charged_bytes - kept : 0;
        least = least < bytes ? least : bytes;
        books_credit(account, row << PURSE_DEVICE_BITS | purse_device(reservoir->purse),
                     (enum ledger_kind)reservoir->kind, least);
        part->charged_bytes -= least;
        bytes -= least;
    }
    return bytes;
}

static uint64_t parts_sum(const struct account *account, const struct reservoir *reservoir)
{
    uint64_t sum = 0;
    for (unsigned row = 0; row < account->rows; row++)
        sum += reservoir->part[row].charged_bytes;
    return sum;
}

/* Steps that came back are of nobody: they are credited first to who has paid for more than is handed out to him. */
static void shares_credit(struct account *account, struct reservoir *reservoir, uint64_t bytes)
{
    uint64_t own = reservoir->charged_bytes - (reservoir->shared ? parts_sum(account, reservoir) : 0);
    if (reservoir->shared)
        bytes = parts_credit(account, reservoir, bytes, false);
    own = own < bytes ? own : bytes;
    books_credit(account, reservoir->purse, (enum ledger_kind)reservoir->kind, own);
    if (bytes > own)
        (void)parts_credit(account, reservoir, bytes - own, true);
}

/* Moves the charge to what is reserved. */
static void charge_follow(struct account *account, struct reservoir *reservoir, uint64_t reserved_bytes)
{
    uint64_t charged = reservoir->charged_bytes;
    enum ledger_kind kind = (enum ledger_kind)reservoir->kind;
    reservoir->dirty = false;
    if (reserved_bytes == charged)
        return;
    if (reserved_bytes < charged)
        shares_credit(account, reservoir, charged - reserved_bytes);
    else
        books_settle(account, reservoir->purse, kind, 0, reserved_bytes - charged); /* grew by a way we do not see */
    reservoir->charged_bytes = reserved_bytes;
    atomic_fetch_add_explicit(&reservoir->changes, 1, memory_order_release);
}

bool reservoir_leave(struct account *account, struct reservoir *reservoir, unsigned purse, uint64_t bytes,
                     uint64_t seen, uint64_t reserved_bytes)
{
    uint64_t before = reservoir->charged_bytes - bytes;
    bool alone = --reservoir->calls == 0 && reserved_bytes != UINT64_MAX &&
                 atomic_load_explicit(&reservoir->changes, memory_order_relaxed) == seen;
    if (__builtin_expect(alone && reserved_bytes >= before, 1)) { /* nearly always: all of it or none */
        if (bytes != 0 || reserved_bytes != before) {
            books_settle(account, purse, (enum ledger_kind)reservoir->kind, bytes, reserved_bytes - before);
            part_add(reservoir, purse, reserved_bytes - before);
        }
        reservoir->charged_bytes = reserved_bytes;
        reservoir->dirty = false;
        atomic_fetch_add_explicit(&reservoir->changes, 1, memory_order_release);
        return true;
    }
    reservoir->dirty = true;
    if (bytes != 0) {
        books_settle(account, purse, (enum ledger_kind)reservoir->kind, bytes, bytes);
        part_add(reservoir, purse, bytes);
    }
    atomic_fetch_add_explicit(&reservoir->changes, 1, memory_order_release);
    if (alone)
        charge_follow(account, reservoir, reserved_bytes);
    return alone || reservoir->calls != 0;
}

static bool is_settled(const struct reservoir *reservoir, unsigned device)
{
    return purse_device(reservoir->purse) != device || (reservoir->calls == 0 && !reservoir->dirty);
}

bool reservoirs_are_settled(const struct account *account, unsigned device)
{
    unsigned high = atomic_load_explicit(&account->pools_high, memory_order_relaxed);
    for (unsigned i = 0; i < high; i++)
        if (!is_settled(&account->pool[i], device))
            return false;
    return is_settled(&account->graph[device], device);
}

void reservoir_refused(struct account *account, struct reservoir *reservoir, unsigned purse, uint64_t bytes)
{
    reservoir->calls--;
    if (bytes != 0)
        books_settle(account, purse, (enum ledger_kind)reservoir->kind, bytes, 0);
    reservoir->charged_bytes -= bytes;
    atomic_fetch_add_explicit(&reservoir->changes, 1, memory_order_release);
}

uint64_t reservoir_read(const struct driver *driver, const struct account *account, const struct reservoir *reservoir)
{
    uint64_t bytes = 0;
    CUresult result = CUDA_ERROR_NOT_SUPPORTED;
    if (reservoir->kind == LEDGER_KIND_GRAPH) {
        if (driver->cuDeviceGetGraphMemAttribute != NULL)
            result = driver->cuDeviceGetGraphMemAttribute(account->device[purse_device(reservoir->purse)].ordinal,
                                                          CU_GRAPH_MEM_ATTR_RESERVED_MEM_CURRENT, &bytes);
    } else if (driver->cuMemPoolGetAttribute != NULL)
        result = driver->cuMemPoolGetAttribute((CUmemoryPool)(uintptr_t)reservoir->handle,
                                               CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT, &bytes);
    return result == CUDA_SUCCESS ? bytes : UINT64_MAX;
}

void reservoir_correct(const struct driver *driver, struct account *account, struct reservoir *reservoir)
{
    for (;;) {
        uint64_t seen = atomic_load_explicit(&reservoir->changes, memory_order_acquire);
        bool ended = atomic_load_explicit(&reservoir->ended, memory_order_acquire);
        uint64_t reserved = ended ? 0 : reservoir_read(driver, account, reservoir);
        if (reserved == UINT64_MAX)
            return;
        biased_lock_take(&account->books);
        bool busy = reservoir->calls != 0 || (ended && reservoir->live != 0);
        bool stable = atomic_load_explicit(&reservoir->changes, memory_order_relaxed) == seen;
        if (!busy && stable)
            charge_follow(account, reservoir, reserved);
        if (reservoir->calls != 0) /* the last of them may have asked before what made us ask: it asks again */
            atomic_fetch_add_explicit(&reservoir->changes, 1, memory_order_release);
        biased_lock_give(&account->books);
        if (busy || stable)
            return;
    }
}
