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

/* Moves the charge to what is reserved. */
static void charge_follow(struct account *account, struct reservoir *reservoir, uint64_t reserved_bytes)
{
    uint64_t charged = reservoir->charged_bytes;
    enum ledger_kind kind = (enum ledger_kind)reservoir->kind;
    reservoir->dirty = false;
    if (reserved_bytes == charged)
        return;
    if (reserved_bytes < charged)
        books_credit(account, reservoir->purse, kind, charged - reserved_bytes);
    else
        books_settle(account, reservoir->purse, kind, 0, reserved_bytes - charged); /* grew by a way we do not see */
    reservoir->charged_bytes = reserved_bytes;
    atomic_fetch_add_explicit(&reservoir->changes, 1, memory_order_release);
}

bool reservoir_leave(struct account *account, struct reservoir *reservoir, uint64_t bytes, uint64_t seen,
                     uint64_t reserved_bytes)
{
    uint64_t before = reservoir->charged_bytes - bytes;
    bool alone = --reservoir->calls == 0 && reserved_bytes != UINT64_MAX &&
                 atomic_load_explicit(&reservoir->changes, memory_order_relaxed) == seen;
    if (__builtin_expect(alone && reserved_bytes >= before, 1)) { /* nearly always: all of it or none */
        if (bytes != 0 || reserved_bytes != before)
            books_settle(account, reservoir->purse, (enum ledger_kind)reservoir->kind, bytes, reserved_bytes - before);
        reservoir->charged_bytes = reserved_bytes;
        reservoir->dirty = false;
        atomic_fetch_add_explicit(&reservoir->changes, 1, memory_order_release);
        return true;
    }
    reservoir->dirty = true;
    if (bytes != 0)
        books_settle(account, reservoir->purse, (enum ledger_kind)reservoir->kind, bytes, bytes);
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

void reservoir_refused(struct account *account, struct reservoir *reservoir, uint64_t bytes)
{
    reservoir->calls--;
    if (bytes != 0)
        books_settle(account, reservoir->purse, (enum ledger_kind)reservoir->kind, bytes, 0);
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
