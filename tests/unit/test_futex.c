/* The brief lock under threads, and waiting on a word: at once where it differs, until woken, until its time is up. */
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/prctl.h>
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

/* --- several words -------------------------------------------------------------------------------------------------------- */

static void any_returns(void **state)
{
    _Atomic(uint32_t) words[3] = {1, 2, 3};
    struct futex_look looks[3] = {{&words[0], 1}, {&words[1], 2}, {&words[2], 3}};
    (void)state;
    errno = E2BIG;
    assert_int_equal(futex_wait_any(looks, 3, 1), -ETIMEDOUT);
    assert_int_equal(futex_wait_any(looks, 3, 0), -ETIMEDOUT);
    for (unsigned i = 0; i < 3; i++) {
        looks[i].expected = 9;
        assert_int_equal(futex_wait_any(looks, 3, 20000), 0);
        looks[i].expected = i + 1;
    }
    assert_int_equal(errno, E2BIG);
}

static int either_await(struct scene *scene, void *unused)
{
    (void)unused;
    for (uint32_t round = 0; round < 200; round++) {
        uint32_t go = atomic_load(&scene->board->go), done = atomic_load(&scene->board->done);
        struct futex_look looks[2] = {{&scene->board->go, go}, {&scene->board->done, done}};
        board_arrive(&scene->board->arrived);
        while (atomic_load(&scene->board->go) == go && atomic_load(&scene->board->done) == done)
            (void)futex_wait_any(looks, 2, UINT32_MAX);
    }
    return 0;
}

/* Whichever of them it is that changes, and whoever changes it. */
static void any_is_woken_by_each(void **state)
{
    struct scene scene;
    (void)state;
    scene_open(&scene, 0);
    pid_t pid = scene_fork(&scene, NULL, either_await, NULL);
    for (uint32_t round = 1; round <= 200; round++) {
        board_await(&scene.board->arrived, round);
        board_arrive(round % 2 == 0 ? &scene.board->go : &scene.board->done);
    }
    scene_join(pid);
    scene_close(&scene);
}

/* A kernel that knows no futex_waitv, as far as this process can tell. */
static void kernel_make_old(void)
{
    struct sock_filter program[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 449, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    const struct sock_fprog filter = {sizeof program / sizeof *program, program};
    REQUIRE(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
    REQUIRE(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0);
}

static int old_body(struct scene *scene, void *unused)
{
    _Atomic(uint32_t) words[2] = {1, 2};
    struct futex_look looks[2] = {{&words[0], 1}, {&words[1], 2}};
    (void)scene;
    (void)unused;
    kernel_make_old();
    REQUIRE(futex_wait_any(looks, 2, 1) == -ETIMEDOUT);
    REQUIRE(futex_wait_any(looks, 2, UINT32_MAX) == 0); /* for the caller to look */
    looks[0].expected = 7;
    REQUIRE(futex_wait_any(looks, 2, UINT32_MAX) == 0);
    return 0;
}

static void any_on_an_old_kernel(void **state)
{
    struct scene scene;
    (void)state;
    scene_open(&scene, 0);
    scene_join(scene_fork(&scene, NULL, old_body, NULL));
    scene_close(&scene);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(brief_lock_excludes),  cmocka_unit_test(brief_lock_waits),
        cmocka_unit_test(wait_returns),         cmocka_unit_test(wake_reaches_other_processes),
        cmocka_unit_test(any_returns),          cmocka_unit_test(any_is_woken_by_each),
        cmocka_unit_test(any_on_an_old_kernel),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
