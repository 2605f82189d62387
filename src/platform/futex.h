/*
 * Waiting in the kernel, and the brief lock.
 *
 * The brief lock guards a process's own books: some 20 ns at a time, and mostly not across a wait (two that are rarely
 * asked for, src/account's, are held across a driver's call: who waits for them looks again every 50 us). Unlocking is a plain
 * store (one atomic read-modify-write less than a mutex), so a waiter that slept may be late by its timeout (50 us),
 * never for ever. All zeroes is unlocked, so that a page wiped on fork holds an unlocked one.
 */
#ifndef PLATFORM_FUTEX_H
#define PLATFORM_FUTEX_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* Sleeps while *word == expected, at most timeout_ms (UINT32_MAX: no limit). Returns 0 when woken or the value
 * differs, -ETIMEDOUT, -EINTR. Shared: the word may lie in memory shared between processes. */
int futex_wait(_Atomic(uint32_t) *word, uint32_t expected, uint32_t timeout_ms);
void futex_wake_all(_Atomic(uint32_t) *word);

/* The same for up to FUTEX_ANY_MAX words at once: sleeps while each is as expected. A kernel that cannot (before 5.16, or where a
 * filter forbids it) sleeps on the first alone, FUTEX_ANY_LOOK_MS at most, and says 0 then: the caller looks again. */
enum { FUTEX_ANY_MAX = 32, FUTEX_ANY_LOOK_MS = 50 };
struct futex_look {
    _Atomic(uint32_t) *word;
    uint32_t expected;
};
int futex_wait_any(const struct futex_look *looks, unsigned count, uint32_t timeout_ms);

struct brief_lock {
    _Atomic(uint32_t) held;
};
void brief_lock_wait(struct brief_lock *lock); /* the slow path; call brief_lock_take */

static inline void brief_lock_take(struct brief_lock *lock)
{
    if (__builtin_expect(atomic_exchange_explicit(&lock->held, 1, memory_order_acquire) != 0, 0))
        brief_lock_wait(lock);
}

static inline bool brief_lock_try(struct brief_lock *lock)
{
    return atomic_exchange_explicit(&lock->held, 1, memory_order_acquire) == 0;
}

static inline void brief_lock_give(struct brief_lock *lock)
{
    atomic_store_explicit(&lock->held, 0, memory_order_release);
}

#endif
