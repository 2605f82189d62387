/*
 * Lending a lock and taking it back: the slow half of biased_lock.h, which says what synchronises. Called by src/account.
 */
#include "config.h"

#include <errno.h>
#include <linux/membarrier.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include "platform/biased_lock.h"

enum {
    LEND_FIRST = 64, /* times in a row that one thread took it alone, before it is lent */
    LEND_LAST =
        4096,    /* never more: taking it back (some microseconds at worst) then weighs about a nanosecond a time */
    SPINS = 100, /* the borrower needs some 20 ns: mostly it is gone before a sleep would have begun */
    NAP_NS = 50000,
    BLIND_NS = 20000000, /* every processor has switched or taken an interrupt by then */
};

__thread char biased_thread;

#if defined(__SANITIZE_THREAD__)
#define MEMBARRIER_IS_UNDERSTOOD 0 /* ThreadSanitizer does not see the fences that it implies */
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define MEMBARRIER_IS_UNDERSTOOD 0
#endif
#endif
#ifndef MEMBARRIER_IS_UNDERSTOOD
#define MEMBARRIER_IS_UNDERSTOOD 1
#endif

void biased_lock_prepare(struct biased_lock *lock)
{
    int before = errno;
    lock->lendable =
        MEMBARRIER_IS_UNDERSTOOD && syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0) == 0;
    lock->wanted = LEND_FIRST;
    errno = before;
}

static void nap(long nanoseconds)
{
    struct timespec time = {.tv_nsec = nanoseconds};
    (void)clock_nanosleep(CLOCK_MONOTONIC, 0, &time, NULL);
}

/* Ends the loan and waits until the borrower is out. With `lock` held. */
static void take_back(struct biased_lock *lock, struct biased_lease *lease)
{
    int before = errno;
    atomic_store(&lock->lent, NULL);
    /* Denied after it was registered for: only a filter of system calls set up meanwhile does that. */
    if (syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0) != 0) {
        nap(BLIND_NS);
        lock->lendable = false;
    }
    for (unsigned i = 0; atomic_load_explicit(&lease->inside, memory_order_acquire) != 0; i++)
        if (i > SPINS)
            nap(NAP_NS);
    lock->wanted = lock->wanted < LEND_LAST ? lock->wanted * 2 : LEND_LAST;
    errno = before;
}

/* The lease of this thread, or a new one; NULL where all are of other threads. An ended thread's is taken up by a thread whose
 * variable lies at the same address. */
static struct biased_lease *lease_find(struct biased_lock *lock)
{
    for (unsigned i = 0; i < BIASED_BORROWERS; i++) {
        struct biased_lease *lease = &lock->lease[i];
        if (lease->thread == NULL)
            lease->thread = &biased_thread;
        if (lease->thread == &biased_thread)
            return lease;
    }
    return NULL;
}

/* With `lock` held: lends it to this thread where that is worth it. True: the thread now holds it by its lease. */
static bool lend(struct biased_lock *lock)
{
    if (lock->last != &biased_thread) {
        lock->last = &biased_thread;
        lock->alone = 0;
    }
    if (!lock->lendable || ++lock->alone < lock->wanted)
        return false;
    lock->alone = 0;
    struct biased_lease *lease = lease_find(lock);
    if (lease == NULL)
        return false;
    atomic_store_explicit(&lease->inside, 1, memory_order_relaxed);
    lock->entered = lease;
    atomic_store_explicit(&lock->lent, lease, memory_order_release);
    brief_lock_give(&lock->lock);
    return true;
}

void biased_lock_take_slowly(struct biased_lock *lock)
{
    brief_lock_take(&lock->lock);
    struct biased_lease *lease = atomic_load_explicit(&lock->lent, memory_order_relaxed);
    if (lease != NULL) {
        take_back(lock, lease);
        lock->last = NULL;
    }
    if (!lend(lock))
        lock->entered = NULL;
}
