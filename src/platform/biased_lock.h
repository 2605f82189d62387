/*
 * A lock that is nearly free for the one thread that nearly always takes it.
 *
 * Most programs allocate in one thread, and every atomic exchange on that way waits for the one before it. So the lock is lent to
 * a thread that has taken it often and alone: that thread enters and leaves with plain stores, and who else comes takes the lock
 * back first, which costs him a membarrier (a microsecond or so), as in quickly reacquirable locks (Dice, Moir, Scherer 2003).
 * Lent again after that only when one thread has taken it alone twice as often as before, up to a bound.
 *
 * How the two meet: the borrower stores `inside` and then reads `lent`; who takes it back clears `lent`, makes every running
 * thread of the process pass a full barrier, and then reads `inside`. One of them sees the other. Each borrower has an `inside` of
 * his own, kept for his thread: a late store of an earlier borrower must not touch the present one's.
 *
 * All zeroes is unlocked and never lent, so that a page wiped on fork holds such a one. Not for use across a sleep. Used by
 * src/account.
 */
#ifndef PLATFORM_BIASED_LOCK_H
#define PLATFORM_BIASED_LOCK_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include "platform/futex.h"

enum { BIASED_BORROWERS = 8 };

struct biased_lease {
    const void
        *thread; /* written once, before the lease is first lent; told by the address of a thread's own variable */
    _Atomic(uint32_t) inside;
};

struct biased_lock {
    _Atomic(struct biased_lease *) lent; /* written by who holds `lock` */
    struct biased_lease *entered;        /* how who holds it came in: by this lease, or NULL: by `lock` */
    struct brief_lock lock;
    /* Under `lock`: */
    bool lendable;
    const void *last; /* the thread that took it last */
    uint32_t alone;   /* how often in a row */
    uint32_t wanted;  /* lent after so many */
    struct biased_lease lease[BIASED_BORROWERS];
};

extern __thread char biased_thread __attribute__((tls_model("initial-exec"), visibility("hidden")));

/* Allows lending, where the kernel has membarrier for a process (Linux 4.14) and lets us use it. Before the first take. */
void biased_lock_prepare(struct biased_lock *lock);

void biased_lock_take_slowly(struct biased_lock *lock); /* call biased_lock_take */

static inline void biased_lock_take(struct biased_lock *lock)
{
    struct biased_lease *lease = atomic_load_explicit(&lock->lent, memory_order_acquire);
    if (__builtin_expect(lease != NULL && lease->thread == &biased_thread, 1)) {
        atomic_store_explicit(&lease->inside, 1, memory_order_relaxed);
        atomic_signal_fence(memory_order_seq_cst); /* the other side's membarrier makes it a fence of the processor */
        if (__builtin_expect(atomic_load_explicit(&lock->lent, memory_order_relaxed) == lease, 1)) {
            atomic_signal_fence(memory_order_seq_cst);
            lock->entered = lease;
            return;
        }
        atomic_store_explicit(&lease->inside, 0, memory_order_release);
    }
    biased_lock_take_slowly(lock);
}

static inline void biased_lock_give(struct biased_lock *lock)
{
    struct biased_lease *lease = lock->entered;
    if (__builtin_expect(lease != NULL, 1))
        atomic_store_explicit(&lease->inside, 0, memory_order_release);
    else
        brief_lock_give(&lock->lock);
}

#endif
