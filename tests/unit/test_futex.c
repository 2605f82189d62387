/* The brief lock under threads, and waiting on a word: at once where it differs, until woken, until its time is up. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "platform/futex.h"
#include "unit/scene.h"

enum { THREADS = 8, TURNS = 20000 };

static struct brief_lock lock;
static uint64_t counter; /* guarded by lock, and by nothing else */

static void *turns_take(void *unused)
{
    for (unsigned i = 0; i < TURNS; i++) {
        if (i % 2 == 0 || !brief_lock_try(&lock))
            brief_lock_take(&lock);
        counter++;
        brief_lock_give(&lock);
    }
    return unused;
}

static void brief_lock_excludes(void **state)
{
    pthread_t threads[THREADS];
    (void)state;
    counter = 0;
    for (unsigned i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, turns_take, NULL), 0);
    for (unsigned i = 0; i < THREADS; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    assert_int_equal(counter, (uint64_t)THREADS * TURNS);
}

static void *lock_enter(void *entered)
{
    errno = E2BIG;
    brief_lock_take(&lock);
    atomic_store((_Atomic(uint32_t) *)entered, errno == E2BIG ? 1 : 2);
    brief_lock_give(&lock);
    return NULL;
}

/* A waiter stays out while the lock is held, comes in without being woken, and keeps errno. */
static void brief_lock_waits(void **state)
{
    pthread_t thread;
    _Atomic(uint32_t) entered = 0;
    (void)state;
    brief_lock_take(&lock);
    assert_int_equal(pthread_create(&thread, NULL, lock_enter, &entered), 0);
    for (unsigned i = 0; i < 20; i++) {
        (void)futex_wait(&entered, 0, 1);
        assert_int_equal(atomic_load(&entered), 0);
    }
    brief_lock_give(&lock);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(atomic_load(&entered), 1);
}

static void wait_returns(void **state)
{
    _Atomic(uint32_t) word = 7;
    (void)state;
    errno = E2BIG;
    assert_int_equal(futex_wait(&word, 8, UINT32_MAX), 0);
    assert_int_equal(futex_wait(&word, 7, 1), -ETIMEDOUT);
    assert_int_equal(futex_wait(&word, 7, 0), -ETIMEDOUT);
    futex_wake_all(&word);
    assert_int_equal(errno, E2BIG);
}

static int word_await(struct scene *scene, void *unused)
{
    (void)unused;
    board_arrive(&scene->board->arrived);
    board_await(&scene->board->go, 1);
    return 0;
}

/* The word may lie in memory that processes share. */
static void wake_reaches_other_processes(void **state)
{
    struct scene scene;
    pid_t pids[3];
    (void)state;
    scene_open(&scene, 0);
    for (unsigned i = 0; i < 3; i++)
        pids[i] = scene_fork(&scene, NULL, word_await, NULL);
    board_await(&scene.board->arrived, 3);
    board_arrive(&scene.board->go);
    for (unsigned i = 0; i < 3; i++)
        scene_join(pids[i]);
    scene_close(&scene);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(brief_lock_excludes),
        cmocka_unit_test(brief_lock_waits),
        cmocka_unit_test(wait_returns),
        cmocka_unit_test(wake_reaches_other_processes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
