/* Where thunks lead; thunk.h has who calls it and what synchronises it. */
#include "config.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include "interpose/hooks.h"
#include "interpose/thunk.h"
#include "platform/gate.h"
#include "platform/log.h"

enum {
#define SAFE(symbol, class, parameters) NUMBER_##symbol,
#define BARE(symbol, class)             NUMBER_##symbol,
#include "interpose/hooks.def"
    NAMED
};
enum { NAME_BYTES = 64, BUCKETS = 4 * THUNK_POOL };

/* The named, in thunk_entry.S's order. */
static const struct {
    uint16_t entry; /* in the driver's table */
    bool safe;
} named[] = {
#define SAFE(symbol, class, parameters) {DRIVER_##symbol, true},
#define BARE(symbol, class)             {DRIVER_##symbol, false},
#include "interpose/hooks.def"
};
_Static_assert(sizeof named / sizeof *named == NAMED, "one number for each");

/* Read by thunk_entry.S. */
extern _Atomic(uintptr_t) thunk_targets[] __attribute__((visibility("hidden")));
_Atomic(uintptr_t) thunk_targets[NAMED + THUNK_POOL];
extern const char thunk_pool[] __attribute__((visibility("hidden")));

/* Of the pool. A place is written by who took it, and then published by its bucket; never changed again. */
static struct {
    uintptr_t real;
    char reason[NAME_BYTES + 32];
} pool[THUNK_POOL];
static _Atomic(unsigned) pool_used;
static _Atomic(uint16_t) buckets[BUCKETS]; /* number in the pool + 1; 0: free */

static CUresult missing(void)
{
    if (driver_is_deinitialized())
        return CUDA_ERROR_DEINITIALIZED;
    return driver_bound() == NULL ? CUDA_ERROR_NOT_INITIALIZED : CUDA_ERROR_NOT_SUPPORTED;
}

static void unevictable(const char *why)
{
    if (gate_make_unevictable(why))
        log_line(LOG_INFO, "this process stays on the card: %s", why);
}

/* --- handing out ------------------------------------------------------------------------------------------------------ */

static void *thunk_at(unsigned place)
{
    uintptr_t address = (uintptr_t)thunk_pool + ((uintptr_t)place << THUNK_SHIFT);
    return (void *)address;
}

/* The bucket that has it, or the free one in which it belongs. */
static unsigned bucket_find(uintptr_t real)
{
    unsigned at = (unsigned)(real * 0x9E3779B97F4A7C15ULL >> 40) % BUCKETS;
    for (;; at = (at + 1) % BUCKETS) {
        unsigned place = atomic_load_explicit(&buckets[at], memory_order_acquire);
        if (place == 0 || pool[place - 1].real == real)
            return at;
    }
}

/* A place of one's own in the pool, filled; THUNK_POOL: there is none left. */
static unsigned place_take(uintptr_t real, const char *name)
{
    unsigned place = atomic_load(&pool_used);
    do
        if (place >= THUNK_POOL)
            return THUNK_POOL;
    while (!atomic_compare_exchange_weak(&pool_used, &place, place + 1));
    pool[place].real = real;
    (void)snprintf(pool[place].reason, sizeof pool[place].reason, "it calls %.*s, which is not known", NAME_BYTES,
                   name);
    return place;
}

void *thunk_for(void *real, const char *name)
{
    unsigned mine = THUNK_POOL;
    for (;;) {
        unsigned at = bucket_find((uintptr_t)real);
        unsigned place = atomic_load_explicit(&buckets[at], memory_order_acquire);
        uint16_t none = 0;
        if (place != 0)
            return thunk_at(place - 1u);
        if (mine == THUNK_POOL)
            mine = place_take((uintptr_t)real, name);
        if (mine == THUNK_POOL)
            break;
        if (atomic_compare_exchange_strong(&buckets[at], &none, (uint16_t)(mine + 1)))
            return thunk_at(mine);
    }
    unevictable("it looked up more unknown driver functions than there are thunks for");
    return real;
}

/* --- being called ----------------------------------------------------------------------------------------------------- */

static uintptr_t named_real(unsigned number)
{
    const struct driver *driver = driver_get();
    uintptr_t real = 0;
    if (driver != NULL)
        memcpy(&real, (const char *)driver + named[number].entry * sizeof real, sizeof real);
    return real;
}

/* What nobody knows may crash in a process that is out of the card, and how long it stays inside cannot be seen: whoever calls it is
 * not to be moved any more. Said before the gate is looked at: who closes it looks the other way round. */
static void unknown_called(unsigned number)
{
    static char reasons[NAMED][NAME_BYTES + 32]; /* written alike by whoever comes first */
    if (number >= NAMED) {
        unevictable(pool[number - NAMED].reason);
        return;
    }
    if (reasons[number][0] == '\0')
        (void)snprintf(reasons[number], sizeof reasons[number], "it calls %s, which is not known",
                       driver_entry_name(named[number].entry));
    unevictable(reasons[number]);
}

/* No call reaches what a thunk stands for any more. Targets that are still 0 are set too: who is about to set one finds it taken. */
static void thunks_deinitialize(void)
{
    for (unsigned i = 0; i < NAMED + THUNK_POOL; i++)
        atomic_store(&thunk_targets[i], (uintptr_t)driver_deinitialized);
}

/* Where the thunk goes from now on. */
static uintptr_t target_settle(unsigned number, uintptr_t real)
{
    static _Atomic(bool) announced;
    uintptr_t target = 0;
    if (!atomic_load(&announced)) {
        driver_set_deinitialize(thunks_deinitialize);
        atomic_store(&announced, true);
    }
    return atomic_compare_exchange_strong(&thunk_targets[number], &target, real) ? real : target;
}

void *thunk_arrive(unsigned number)
{
    int before = errno;
    uintptr_t real = number < NAMED ? named_real(number) : pool[number - NAMED].real;
    if (real != 0) {
        if (number >= NAMED || !named[number].safe)
            unknown_called(number);
        gate_pass();
        real = target_settle(number, real);
    } else
        real = (uintptr_t)missing;
    errno = before;
    return (void *)real;
}
