/*
 * The lock that is lent to the thread that takes it alone: that it is lent, that it still excludes, whoever takes it back and
 * whenever, that a waiter stays out of a borrower's turn, and that ended threads' places are taken up again.
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "platform/biased_lock.h"

#ifdef __SANITIZE_THREAD__
enum { BURSTS = 50000 }; /* nothing is lent there */
#else
enum { BURSTS = 2000000 };
#endif
enum { ALONE = 10000, THREADS = 4 };

static struct biased_lock lock;
static uint64_t counter, intrusions; /* guarded by lock, and by nothing else */

static void lock_begin(void)
{
    memset(&lock, 0, sizeof lock);
    biased_lock_prepare(&lock);
    counter = intrusions = 0;
}

static void turns_take(unsigned turns)
{
    for (unsigned i = 0; i < turns; i++) {
        biased_lock_take(&lock);
        counter++;
        biased_lock_give(&lock);
    }
}

/* Where the kernel or a sanitizer does not allow it, nothing is lent, and all else here must hold all the same. */
static bool is_lent(void)
{
    return atomic_load(&lock.lent) != NULL;
}

static void it_is_lent_to_a_lone_thread(void **state)
{
    (void)state;
    lock_begin();
    turns_take(ALONE);
    assert_int_equal(is_lent(), lock.lendable);
    assert_int_equal(counter, ALONE);
}

static void without_permission_it_is_never_lent(void **state)
{
    (void)state;
    lock_begin();
    lock.lendable = false;
    turns_take(ALONE);
    assert_false(is_lent());
}

static void *lock_enter(void *entered)
{
    errno = E2BIG;
    biased_lock_take(&lock);
    counter++;
    atomic_store((_Atomic(uint32_t) *)entered, errno == E2BIG ? 1 : 2);
    biased_lock_give(&lock);
    return NULL;
}

static void who_takes_it_back_waits_for_the_borrower(void **state)
{
    pthread_t thread;
    _Atomic(uint32_t) entered = 0;
    (void)state;
    lock_begin();
    turns_take(ALONE);
    biased_lock_take(&lock);
    assert_int_equal(pthread_create(&thread, NULL, lock_enter, &entered), 0);
    while (lock.lendable && is_lent()) /* until it has been taken back */
        (void)futex_wait(&entered, 0, 1);
    for (unsigned i = 0; i < 20; i++) {
        (void)futex_wait(&entered, 0, 1);
        assert_int_equal(atomic_load(&entered), 0);
    }
    counter++;
    biased_lock_give(&lock);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(atomic_load(&entered), 1);
    assert_int_equal(counter, ALONE + 2);
    assert_false(is_lent());
}

/* Bursts of all lengths, and loans that are given as readily as at first, so that they begin and are taken back at every point of
 * the others' turns. */
static void *bursts_take(void *seed)
{
    uint64_t random = 88172645463325252u + (uintptr_t)seed;
    uint64_t turns = 0;
    for (unsigned i = 0; i < BURSTS; i++) {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        unsigned burst = (unsigned)(random % (i % 2 ? 40 : 5));
        turns_take(burst);
        biased_lock_take(&lock);
        uint64_t before = counter;
        lock.wanted = 8;
        for (volatile unsigned stay = i % 16 == 0 ? (unsigned)(random >> 32) % 512 : 0; stay > 0; stay--) {
        }
        if (counter != before)
            intrusions++;
        biased_lock_give(&lock);
        turns += burst;
    }
    return (void *)(uintptr_t)turns;
}

static void it_excludes_while_loans_come_and_go(void **state)
{
    pthread_t threads[THREADS];
    uint64_t turns = 0;
    (void)state;
    lock_begin();
    for (uintptr_t i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, bursts_take, (void *)i), 0);
    for (unsigned i = 0; i < THREADS; i++) {
        void *taken;
        assert_int_equal(pthread_join(threads[i], &taken), 0);
        turns += (uintptr_t)taken;
    }
    assert_int_equal(intrusions, 0);
    assert_int_equal(counter, turns);
}

static void *alone_take(void *unused)
{
    turns_take(ALONE);
    return unused;
}

/* One after the other, more than there are places: each is at an address where an ended one may have been. */
static void more_threads_than_places(void **state)
{
    enum { MANY = 3 * BIASED_BORROWERS };
    (void)state;
    lock_begin();
    for (unsigned i = 0; i < MANY; i++) {
        pthread_t thread;
        assert_int_equal(pthread_create(&thread, NULL, alone_take, NULL), 0);
        assert_int_equal(pthread_join(thread, NULL), 0);
        turns_take(1);
        assert_false(is_lent());
    }
    assert_int_equal(counter, (uint64_t)MANY * (ALONE + 1));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_is_lent_to_a_lone_thread),
        cmocka_unit_test(without_permission_it_is_never_lent),
        cmocka_unit_test(who_takes_it_back_waits_for_the_borrower),
        cmocka_unit_test(it_excludes_while_loans_come_and_go),
        cmocka_unit_test(more_threads_than_places),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
