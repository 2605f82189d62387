/*
 * Stream-ordered pools: which there are, what a call may make one grow by, and whose pointer a pointer is. Called by
 * src/interpose through account.h; reservoir.h says how the charge follows the driver.
 *
 * Pools and their memory belong to no context and outlive all of them. A destroyed pool's memory stays until what is handed out of
 * it is freed and the streams of those frees are synchronised (measured), and a destroyed pool cannot be asked. So one that has memory
 * is not destroyed in the driver yet: it is retired, follows the driver as before, and is destroyed when nothing of it is left.
 */
#include "config.h"

#include <errno.h>
#include <sys/mman.h>
#include <time.h>
#include "account/pools.h"
#include "account/state.h"
#include "platform/log.h"
#include "platform/testpoint.h"

/* --- which there are ---------------------------------------------------------------------------------------------------- */

static struct reservoir *pool_of(struct account *account, unsigned number)
{
    return &account->pool[number];
}

#define POOL_FOREIGN UINT32_MAX /* in place of a number */

/* The number of a pool, which is added where it is not known. ACCOUNT_POOLS: there is no room for another; POOL_FOREIGN. Under
 * `books`. */
static unsigned pool_number(struct account *account, uint64_t handle, unsigned device)
{
    struct allocation replaced, entry = {.pointer = handle};
    struct allocation *known = allocmap_find(&account->pools, handle);
    if (__builtin_expect(known != NULL, 1))
        return (unsigned)known->bytes;
    unsigned number = account->pools_high;
    for (unsigned i = 0; i < account->pools_high; i++) /* one that is over */
        if (account->pool[i].ended && account->pool[i].live == 0 && account->pool[i].calls == 0 &&
            account->pool[i].charged_bytes == 0) {
            number = i;
            break;
        }
    entry.bytes = number;
    if (number >= ACCOUNT_POOLS || allocmap_insert(&account->pools, &entry, &replaced) < 0)
        return ACCOUNT_POOLS;
    struct reservoir *pool = pool_of(account, number);
    uint64_t changes = atomic_load(&pool->changes);
    pool->handle = handle;
    pool->purse = (uint16_t)purse_here(account, device); /* who uses it first pays for it */
    if (pool->kind != LEDGER_KIND_POOL)                  /* it is read without the lock too */
        pool->kind = LEDGER_KIND_POOL;
    atomic_store(&pool->changes, changes + 1);
    atomic_store_explicit(&pool->ended, false, memory_order_release);
    if (number == account->pools_high)
        atomic_store_explicit(&account->pools_high, number + 1, memory_order_release);
    return number;
}

/* A pool whose memory is not this process's device memory: the host's, or another process's. */
static bool pool_note_foreign(struct account *account, uint64_t handle)
{
    struct allocation replaced, entry = {.pointer = handle, .bytes = POOL_FOREIGN};
    return allocmap_find(&account->pools, handle) != NULL || allocmap_insert(&account->pools, &entry, &replaced) >= 0;
}

bool pool_learn(CUmemoryPool handle, int location_type, int location_id)
{
    struct account *account = account_get();
    bool known = true;
    if (account == NULL || handle == NULL)
        return true;
    bool on_device = location_type == CU_MEM_LOCATION_TYPE_DEVICE;
    const struct account_device *device = on_device ? account_device_of(account, location_id) : NULL;
    biased_lock_take(&account->books);
    if (device == NULL)
        known = pool_note_foreign(account, (uintptr_t)handle);
    else
        known = pool_number(account, (uintptr_t)handle, account_number(account, device)) != ACCOUNT_POOLS;
    biased_lock_give(&account->books);
    if (!known)
        log_line(LOG_WARN,
                 "this process has %d pools of device memory; one more cannot be held to the budget and is refused",
                 ACCOUNT_POOLS);
    return known;
}

/* Forgets a pool that is about to be destroyed. Under `books`. */
static void pool_forget(struct account *account, struct reservoir *pool)
{
    struct allocation entry;
    (void)allocmap_remove(&account->pools, pool->handle, &entry);
    atomic_store_explicit(&pool->retired, false, memory_order_release);
    atomic_store_explicit(&pool->ended, true, memory_order_release);
    atomic_fetch_add_explicit(&pool->changes, 1, memory_order_release);
}

/* The pool of a handle; NULL: it is none of ours. */
static struct reservoir *pool_lookup(struct account *account, CUmemoryPool handle)
{
    biased_lock_take(&account->books);
    const struct allocation *known = allocmap_find(&account->pools, (uintptr_t)handle);
    struct reservoir *pool =
        known != NULL && known->bytes != POOL_FOREIGN ? pool_of(account, (unsigned)known->bytes) : NULL;
    biased_lock_give(&account->books);
    return pool;
}

/* Has a pool give its memory back at the next synchronisation, as a destroyed one does, and be no device's current one. */
static void pool_lay_down(const struct driver *driver, CUmemoryPool handle, CUdevice ordinal)
{
    uint64_t threshold = 0;
    CUmemoryPool current = NULL, standard = NULL;
    (void)driver->cuMemPoolSetAttribute(handle, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, &threshold);
    if (driver->cuDeviceGetMemPool(&current, ordinal) == CUDA_SUCCESS && current == handle &&
        driver->cuDeviceGetDefaultMemPool(&standard, ordinal) == CUDA_SUCCESS)
        (void)driver->cuDeviceSetMemPool(ordinal, standard);
}

enum pool_fate pool_retire(const struct driver *driver, CUmemoryPool handle)
{
    struct account *account = account_get();
    struct reservoir *pool = account != NULL ? pool_lookup(account, handle) : NULL;
    if (pool == NULL)
        return POOL_GOES;
    if (atomic_load_explicit(&pool->retired, memory_order_acquire))
        return POOL_IS_RETIRED;
    uint64_t reserved = reservoir_read(driver, account, pool);
    if (reserved == 0 || reserved == UINT64_MAX || driver->cuMemPoolSetAttribute == NULL ||
        driver->cuDeviceGetMemPool == NULL || driver->cuDeviceGetDefaultMemPool == NULL ||
        driver->cuDeviceSetMemPool == NULL) {
        biased_lock_take(&account->books);
        pool_forget(account, pool);
        biased_lock_give(&account->books);
        return POOL_GOES;
    }
    atomic_store_explicit(&pool->retired, true, memory_order_release);
    pool_lay_down(driver, handle, account->device[purse_device(pool->purse)].ordinal);
    return POOL_RETIRES;
}

/* --- room without growing ------------------------------------------------------------------------------------------------ */

struct extent {
    uint64_t start, end;
};

/* In place and without the heap (Shell's, with Ciura's gaps): the program's allocator may be what called us. */
static void extents_sort(struct extent *extents, size_t count)
{
    static const size_t gaps[] = {54901, 24400, 10844, 4820, 2142, 952, 423, 188, 83, 37, 16, 7, 3, 1};
    for (size_t g = 0; g < sizeof gaps / sizeof *gaps; g++)
        for (size_t i = gaps[g]; i < count; i++) {
            struct extent moved = extents[i];
            size_t at = i;
            for (; at >= gaps[g] && extents[at - gaps[g]].start > moved.start; at -= gaps[g])
                extents[at] = extents[at - gaps[g]];
            extents[at] = moved;
        }
}

static uint64_t step_of(uint64_t address)
{
    return address / RESERVOIR_STEP_BYTES;
}

/* Whether a hole between sorted extents holds `bytes`, within the steps that they touch; *touched: how many those are. A hole
 * that spans a step which nothing touches may have no memory behind it. Extents overlap where the driver has freed one, and
 * given it to another, before the thread that freed it came to the books. */
static bool holes_hold(const struct extent *extents, size_t count, uint64_t bytes, uint64_t *touched)
{
    bool holds = false;
    uint64_t end = 0;
    *touched = 0;
    for (size_t i = 0; i < count; i++) {
        uint64_t first = step_of(extents[i].start), last = step_of(extents[i].end - 1);
        uint64_t step_before = end != 0 ? step_of(end - 1) : 0;
        if (end != 0 && first <= step_before + 1) {
            holds |= extents[i].start > end && extents[i].start - end >= bytes;
            *touched += last > step_before ? last - step_before : 0;
        } else {
            holds |= extents[i].start % RESERVOIR_STEP_BYTES >= bytes;
            if (end != 0)
                holds |= (step_before + 1) * RESERVOIR_STEP_BYTES - end >= bytes;
            *touched += last - first + 1;
        }
        if (extents[i].end > end)
            end = extents[i].end;
    }
    if (end != 0)
        holds |= (step_of(end - 1) + 1) * RESERVOIR_STEP_BYTES - end >= bytes;
    return holds;
}

/* Whether a pool surely has room for `bytes` without growing: the driver puts an allocation into any hole that holds it whole
 * (measured). Asked only where growing would not fit the budget, so it may take its time. Under `books`.
 *
 * Of one step at most: should another thread's synchronisation give a step back meanwhile, and the hole with it, then what
 * this call makes the pool grow by is no more than what was given back, and is still charged. */
static bool pool_has_room(const struct account *account, unsigned number, uint64_t bytes)
{
    const struct reservoir *pool = &account->pool[number];
    size_t count = 0, size = ((size_t)pool->live + 1) * sizeof(struct extent);
    uint64_t touched;
    if (pool->calls != 0 || bytes > RESERVOIR_STEP_BYTES || pool->charged_bytes == 0)
        return false;
    struct extent *extents = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (extents == MAP_FAILED)
        return false;
    for (size_t i = 0; i < account->allocations.capacity && count < pool->live; i++) {
        const struct allocation *entry = &account->allocations.places[i];
        if (entry->pointer != 0 && entry->kind == LEDGER_KIND_POOL && entry->uses == number)
            extents[count++] = (struct extent){entry->pointer, entry->pointer + entry->bytes};
    }
    extents_sort(extents, count);
    bool holds = holes_hold(extents, count, bytes, &touched);
    (void)munmap(extents, size);
    uint64_t steps = pool->charged_bytes / RESERVOIR_STEP_BYTES;
    return touched <= steps && (holds || touched < steps); /* more: laid out in another way than we believe */
}

/* --- allocating ------------------------------------------------------------------------------------------------------------ */

/* A handle that the driver knows nothing of must not keep a place. Under `books`. */
static void pool_forget_unused(struct account *account, struct reservoir *pool)
{
    struct allocation removed;
    if (pool->calls != 0 || pool->live != 0 || pool->charged_bytes != 0 || atomic_load(&pool->ended))
        return;
    (void)allocmap_remove(&account->pools, pool->handle, &removed);
    atomic_store_explicit(&pool->ended, true, memory_order_release);
}

#define UNIT_BYTES 512 /* what requests are rounded to */

/* Waits until no call counts on room that this one could take. Under `books`, which it gives up meanwhile. */
static void pool_wait(struct account *account, const struct reservoir *pool)
{
    static const struct timespec nap = {.tv_nsec = 20000}; /* an allocation takes microseconds */
    while (__builtin_expect(pool->alone, 0)) {
        int before = errno;
        biased_lock_give(&account->books);
        (void)clock_nanosleep(CLOCK_MONOTONIC, 0, &nap, NULL);
        biased_lock_take(&account->books);
        errno = before;
    }
}

/* Charges what a call may make a pool grow by: 0 where it surely finds room in it. What the pool keeps and nobody uses makes way
 * first. False: out of memory. Under `books`, which it gives up meanwhile. */
static bool growth_charge(const struct driver *driver, struct account *account, struct reservoir *pool, unsigned purse,
                          uint64_t bytes, uint64_t *growth)
{
    unsigned number = (unsigned)(pool - account->pool);
    *growth = reservoir_steps(bytes);
    pool_wait(account, pool);
    enum ledger_verdict verdict = admit_look(account, purse, *growth);
    if (verdict == LEDGER_FITS)
        return true;
    if (pool_has_room(account, number, bytes)) {
        *growth = 0;
        pool->alone = true;
        return true;
    }
    if (verdict_is_full(verdict) && pool->charged_bytes != 0 && driver->cuMemPoolTrimTo != NULL) {
        biased_lock_give(&account->books);
        account_leaving(+1);
        (void)driver->cuMemPoolTrimTo((CUmemoryPool)(uintptr_t)pool->handle, 0);
        reservoir_correct(driver, account, pool);
        account_leaving(-1);
        biased_lock_take(&account->books);
    }
    bool granted = admit(account, purse, *growth);
    if (granted)
        pool_wait(account, pool); /* the lock was given up since */
    return granted;
}

bool pool_begin(const struct driver *driver, CUmemoryPool handle, CUdevice ordinal, uint64_t bytes,
                struct pool_call *call)
{
    struct account *account = account_get();
    const struct account_device *device = account != NULL ? account_device_of(account, ordinal) : NULL;
    call->counts = call->retired = false;
    if (device == NULL || bytes == 0 || handle == NULL)
        return true;
    bytes = bytes > UINT64_MAX - UNIT_BYTES ? bytes : (bytes + UNIT_BYTES - 1) / UNIT_BYTES * UNIT_BYTES;
    biased_lock_take(&account->books);
    call->pool = pool_number(account, (uintptr_t)handle, account_number(account, device));
    if (call->pool >= ACCOUNT_POOLS) { /* foreign, or one too many */
        biased_lock_give(&account->books);
        return call->pool == POOL_FOREIGN;
    }
    struct reservoir *pool = pool_of(account, call->pool);
    if (__builtin_expect(atomic_load_explicit(&pool->retired, memory_order_relaxed), 0)) {
        biased_lock_give(&account->books);
        call->retired = true;
        return true;
    }
    call->purse = purse_here(account, purse_device(pool->purse));
    call->counts = growth_charge(driver, account, pool, call->purse, bytes, &call->growth_bytes);
    if (call->counts)
        call->seen = reservoir_enter(pool, call->growth_bytes);
    biased_lock_give(&account->books);
    TESTPOINT("pool.charged");
    return call->counts;
}

bool pool_end(const struct driver *driver, const struct pool_call *call, CUresult result, CUdeviceptr pointer,
              uint64_t bytes)
{
    struct account *account = account_get();
    if (!call->counts || account == NULL)
        return true;
    TESTPOINT("pool.driver_returned");
    struct reservoir *pool = pool_of(account, call->pool);
    uint64_t reserved = reservoir_read(driver, account, pool);
    biased_lock_take(&account->books);
    if (call->growth_bytes == 0)
        pool->alone = false;
    if (__builtin_expect(result != CUDA_SUCCESS && reserved == UINT64_MAX, 0)) {
        reservoir_refused(account, pool, call->purse, call->growth_bytes);
        pool_forget_unused(account, pool);
        biased_lock_give(&account->books);
        return true;
    }
    uint64_t before = pool->charged_bytes - call->growth_bytes;
    bool settled = reservoir_leave(account, pool, call->purse, call->growth_bytes, call->seen, reserved);
    bool grew_unasked = call->growth_bytes == 0 && settled && pool->charged_bytes > before;
    if (result == CUDA_SUCCESS) {
        books_pool_pointer(account, pointer, (bytes + UNIT_BYTES - 1) / UNIT_BYTES * UNIT_BYTES, call);
        books_count(account, call->purse, LEDGER_COUNT_ALLOCATION);
    }
    biased_lock_give(&account->books);
    if (!settled)
        reservoir_correct(driver, account, pool);
    return !grew_unasked;
}

/* --- giving back ------------------------------------------------------------------------------------------------------------ */

/* Destroys a retired pool of which nothing is left. One thread does: the one that forgets it. */
static void pool_bury(const struct driver *driver, struct account *account, struct reservoir *pool)
{
    biased_lock_take(&account->books);
    bool goes = atomic_load(&pool->retired) && pool->live == 0 && pool->calls == 0 && pool->charged_bytes == 0;
    CUmemoryPool handle = (CUmemoryPool)(uintptr_t)pool->handle;
    if (goes)
        pool_forget(account, pool);
    biased_lock_give(&account->books);
    if (goes && driver->cuMemPoolDestroy != NULL)
        (void)driver->cuMemPoolDestroy(handle);
}

void pools_correct(const struct driver *driver)
{
    struct account *account = account_get();
    if (account == NULL)
        return;
    unsigned high = atomic_load_explicit(&account->pools_high, memory_order_acquire);
    for (unsigned i = 0; i < high; i++) {
        struct reservoir *pool = pool_of(account, i);
        biased_lock_take(&account->books);
        bool charged = pool->charged_bytes != 0;
        biased_lock_give(&account->books);
        if (charged)
            reservoir_correct(driver, account, pool);
        if (__builtin_expect(atomic_load_explicit(&pool->retired, memory_order_relaxed), 0))
            pool_bury(driver, account, pool);
    }
}

bool pools_hold(void)
{
    struct account *account = account_get();
    return account != NULL && atomic_load_explicit(&account->pools_high, memory_order_relaxed) != 0;
}
