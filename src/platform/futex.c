/*
 * Waiting in the kernel, and the slow path of the brief lock. Called by src/account and src/evict; the words
 * themselves are what synchronises.
 */
#include "config.h"

#include <errno.h>
#include <linux/futex.h>
#include <stdbool.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include "platform/futex.h"

static long futex_call(_Atomic(uint32_t) *word, int operation, uint32_t value, const struct timespec *timeout)
{
    return syscall(SYS_futex, word, operation, value, timeout, NULL, 0);
}

int futex_wait(_Atomic(uint32_t) *word, uint32_t expected, uint32_t timeout_ms)
{
    struct timespec timeout = {
        .tv_sec = (time_t)(timeout_ms / 1000),
        .tv_nsec = (long)(timeout_ms % 1000) * 1000000L,
    };
    int before = errno, result = 0;
    if (futex_call(word, FUTEX_WAIT, expected, timeout_ms == UINT32_MAX ? NULL : &timeout) != 0)
        result = errno == EAGAIN ? 0 : -errno;
    errno = before;
    return result;
}

/* As the kernel has them; older headers do not. */
struct kernel_waiter {
    uint64_t value, address;
    uint32_t flags, reserved;
};
enum { KERNEL_FUTEX_WAITV = 449, KERNEL_FLAG_32_BITS = 2 };

static int first_wait(const struct futex_look *look, uint32_t timeout_ms)
{
    bool cut = timeout_ms > FUTEX_ANY_LOOK_MS;
    int result = futex_wait(look->word, look->expected, cut ? FUTEX_ANY_LOOK_MS : timeout_ms);
    return result == -ETIMEDOUT && cut ? 0 : result;
}

int futex_wait_any(const struct futex_look *looks, unsigned count, uint32_t timeout_ms)
{
    struct kernel_waiter waiters[FUTEX_ANY_MAX] = {0};
    struct timespec end;
    int before = errno, result = 0;
    for (unsigned i = 0; i < count && i < FUTEX_ANY_MAX; i++)
        waiters[i] = (struct kernel_waiter){looks[i].expected, (uintptr_t)looks[i].word, KERNEL_FLAG_32_BITS, 0};
    (void)clock_gettime(CLOCK_MONOTONIC, &end);
    end.tv_sec += (time_t)(timeout_ms / 1000);
    end.tv_nsec += (long)(timeout_ms % 1000) * 1000000L;
    if (end.tv_nsec >= 1000000000L) {
        end.tv_nsec -= 1000000000L;
        end.tv_sec++;
    }
    if (syscall(KERNEL_FUTEX_WAITV, waiters, count, 0, timeout_ms == UINT32_MAX ? NULL : &end, CLOCK_MONOTONIC) < 0)
        result = errno == EAGAIN                        ? 0
                 : errno == EINTR || errno == ETIMEDOUT ? -errno
                                                        : first_wait(&looks[0], timeout_ms);
    errno = before;
    return result;
}

void futex_wake_all(_Atomic(uint32_t) *word)
{
    int before = errno;
    (void)futex_call(word, FUTEX_WAKE, INT32_MAX, NULL);
    errno = before;
}

static inline void processor_relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield");
#endif
}

void brief_lock_wait(struct brief_lock *lock)
{
    enum { SPINS = 100 };
    static const struct timespec nap = {.tv_nsec = 50000};
    int before = errno;
    do {
        /* The holder needs some 20 ns: mostly it is gone before a sleep would have begun. Reading until it looks
         * free keeps the cache line shared; only then is it worth an exchange. */
        for (unsigned i = 0; i < SPINS && atomic_load_explicit(&lock->held, memory_order_relaxed) != 0; i++)
            processor_relax();
        if (atomic_load_explicit(&lock->held, memory_order_relaxed) != 0)
            (void)futex_call(&lock->held, FUTEX_WAIT_PRIVATE, 1, &nap); /* nobody wakes: giving is a plain store */
    } while (atomic_exchange_explicit(&lock->held, 1, memory_order_acquire) != 0);
    errno = before;
}
