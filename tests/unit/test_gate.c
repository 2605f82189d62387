/*
 * The gate: that no thread is inside while it is closed, whoever comes and goes; that who waits for something else does not hold it
 * up; what it makes of calls inside calls, of ones that were left by longjmp, of threads that end inside, and of forks.
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#include "platform/futex.h"
#include "platform/gate.h"

enum { THREADS = 6, CLOSINGS = 4000, PATIENCE_MS = 60000, SHORT_MS = 20 };

static _Atomic(uint32_t) said; /* what a thread has come to */

static void say(uint32_t what)
{
    atomic_store(&said, what);
    futex_wake_all(&said);
}

static void await(uint32_t what)
{
    uint32_t now;
    while ((now = atomic_load(&said)) != what)
        (void)futex_wait(&said, now, UINT32_MAX);
}

static _Atomic(uint32_t) arrivals;
static void arrival_count(void)
{
    atomic_fetch_add(&arrivals, 1);
    futex_wake_all(&arrivals);
}

static void arrival_await(uint32_t count)
{
    uint32_t now;
    while ((now = atomic_load(&arrivals)) < count)
        (void)futex_wait(&arrivals, now, UINT32_MAX);
}

static int set_up(void **state)
{
    (void)state;
    atomic_store(&arrivals, 0);
    atomic_store(&said, 0);
    gate_set_arrival(arrival_count);
    return 0;
}

static pthread_t thread_begin(void *(*run)(void *), void *argument)
{
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, run, argument), 0);
    return thread;
}

static void thread_end(pthread_t thread)
{
    assert_int_equal(pthread_join(thread, NULL), 0);
}

/* --- many at once ------------------------------------------------------------------------------------------------------------- */

/* The witness: each thread counts itself in while it is inside; plain additions of its own, read by who has closed. */
static struct {
    _Atomic(uint64_t) in, out;
    char apart[112];
} witness[THREADS];
static _Atomic(bool) enough;

static void *passes_make(void *argument)
{
    uintptr_t mine = (uintptr_t)argument;
    uint64_t random = 88172645463325252u + mine, count = 0;
    while (!atomic_load_explicit(&enough, memory_order_relaxed)) {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        if (!gate_enter())
            abort();
        atomic_store_explicit(&witness[mine].in, ++count, memory_order_relaxed);
        for (volatile unsigned stay = random % 16 == 0 ? random % 256 : 0; stay > 0; stay--) {
        }
        if (random % 64 == 0) {
            atomic_store_explicit(&witness[mine].out, count, memory_order_relaxed);
            gate_outside_begin();
            gate_outside_end();
            atomic_store_explicit(&witness[mine].in, ++count, memory_order_relaxed);
        }
        atomic_store_explicit(&witness[mine].out, count, memory_order_relaxed);
        gate_leave();
        if (random % 4096 == 0)
            (void)sched_yield();
    }
    return NULL;
}

static uint64_t witness_inside(uint64_t *passes)
{
    uint64_t inside = 0;
    *passes = 0;
    for (unsigned i = 0; i < THREADS; i++) {
        uint64_t in = atomic_load(&witness[i].in);
        inside += in - atomic_load(&witness[i].out);
        *passes += in;
    }
    return inside;
}

static void nobody_is_inside_while_it_is_closed(void **state)
{
    pthread_t threads[THREADS];
    uint64_t at_first, later;
    (void)state;
    for (uintptr_t i = 0; i < THREADS; i++)
        threads[i] = thread_begin(passes_make, (void *)i);
    for (unsigned i = 0; i < CLOSINGS; i++) {
        assert_int_equal(gate_close(PATIENCE_MS), 0);
        assert_true(gate_is_closed());
        assert_int_equal(witness_inside(&at_first), 0);
        for (volatile unsigned stay = i % 512; stay > 0; stay--) {
        }
        if (i % 16 == 0)
            (void)sched_yield();
        assert_int_equal(witness_inside(&later), 0);
        assert_int_equal(at_first, later);
        gate_open();
        (void)sched_yield();
    }
    atomic_store(&enough, true);
    for (unsigned i = 0; i < THREADS; i++)
        thread_end(threads[i]);
    assert_int_equal(witness_inside(&later), 0);
    assert_true(later > 0);
}

/* Many that end: their marks are taken up again, and a gate that is closed meanwhile is closed for new ones. */
static void *one_pass(void *unused)
{
    if (!gate_enter())
        abort();
    gate_leave();
    return unused;
}

static void threads_come_and_go(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 300; i++) {
        atomic_store(&arrivals, 0);
        assert_int_equal(gate_close(PATIENCE_MS), 0);
        pthread_t thread = thread_begin(one_pass, NULL);
        arrival_await(1);
        gate_open();
        thread_end(thread);
    }
}

/* --- one that stays inside ------------------------------------------------------------------------------------------------------ */

static void *stay_inside(void *unused)
{
    if (!gate_enter())
        abort();
    say(1);
    await(2);
    gate_leave();
    return unused;
}

static void who_stays_inside_makes_it_not_quiet(void **state)
{
    (void)state;
    pthread_t thread = thread_begin(stay_inside, NULL);
    await(1);
    errno = E2BIG;
    assert_int_equal(gate_close(SHORT_MS), -ETIMEDOUT);
    assert_int_equal(errno, E2BIG);
    assert_false(gate_is_closed());
    say(2);
    thread_end(thread);
    assert_int_equal(gate_close(PATIENCE_MS), 0);
    assert_int_equal(gate_close(PATIENCE_MS), -EALREADY);
    gate_open();
}

static void *stay_away(void *unused)
{
    if (!gate_enter())
        abort();
    gate_outside_begin();
    say(1);
    await(2);
    errno = E2BIG;
    gate_outside_end();
    if (errno != E2BIG)
        abort();
    say(3);
    await(4);
    gate_leave();
    return unused;
}

static void who_waits_for_room_does_not_hold_it_up(void **state)
{
    (void)state;
    pthread_t thread = thread_begin(stay_away, NULL);
    await(1);
    assert_int_equal(gate_close(PATIENCE_MS), 0);
    say(2);
    arrival_await(1); /* it may not come back in */
    assert_int_equal(atomic_load(&said), 2);
    gate_open();
    await(3);
    assert_int_equal(gate_close(SHORT_MS), -ETIMEDOUT);
    say(4);
    thread_end(thread);
}

static void the_closing_thread_may_not_be_inside(void **state)
{
    (void)state;
    assert_true(gate_enter());
    assert_int_equal(gate_close(PATIENCE_MS), -EDEADLK);
    gate_leave();
}

/* --- calls inside calls ---------------------------------------------------------------------------------------------------------- */

static __attribute__((noinline)) bool enter_deeper(void)
{
    volatile char deeper[256];
    deeper[0] = 0;
    bool outermost = gate_enter();
    deeper[1] = deeper[0];
    return outermost;
}

static void a_call_inside_a_call_is_not_outermost(void **state)
{
    (void)state;
    assert_false(gate_is_inside());
    assert_true(gate_enter());
    assert_true(gate_is_inside());
    assert_false(enter_deeper());
    gate_leave();
    assert_false(gate_is_inside());
}

static jmp_buf back;
static __attribute__((noinline)) void leave_by_longjmp(void)
{
    if (!enter_deeper())
        abort();
    longjmp(back, 1);
}

static void a_call_left_by_longjmp_is_forgotten_at_the_next(void **state)
{
    (void)state;
    if (setjmp(back) == 0)
        leave_by_longjmp();
    assert_true(gate_is_inside());
    assert_true(gate_enter());
    gate_leave();
    assert_int_equal(gate_close(PATIENCE_MS), 0);
    gate_open();
}

static volatile sig_atomic_t handler_outermost;
static void handler(int number)
{
    (void)number;
    handler_outermost = gate_enter();
    if (handler_outermost)
        gate_leave();
}

/* Which stack lies higher is chance: one from the heap and one from a mapping are tried. */
static void a_handler_on_its_own_stack_is_inside_its_thread(void **state)
{
    struct sigaction action = {.sa_handler = handler, .sa_flags = SA_ONSTACK};
    static char low[65536];
    char high[65536];
    char *stacks[] = {low, high};
    (void)state;
    assert_int_equal(sigaction(SIGUSR1, &action, NULL), 0);
    for (unsigned i = 0; i < 2; i++) {
        stack_t stack = {.ss_sp = stacks[i], .ss_size = sizeof low};
        assert_int_equal(sigaltstack(&stack, NULL), 0);
        handler_outermost = -1;
        assert_true(enter_deeper()); /* deeper than what is `high` */
        assert_int_equal(raise(SIGUSR1), 0);
        assert_false(handler_outermost);
        gate_leave();
        assert_int_equal(raise(SIGUSR1), 0);
        assert_true(handler_outermost);
    }
    stack_t none = {.ss_flags = SS_DISABLE};
    assert_int_equal(sigaltstack(&none, NULL), 0);
}

/* --- threads that end inside --------------------------------------------------------------------------------------------------- */

static void *end_inside(void *how)
{
    if (!gate_enter())
        abort();
    if (how != NULL)
        (void)syscall(SYS_exit, 0); /* no destructor runs */
    pthread_exit(NULL);
}

static void a_thread_that_ends_inside_is_not_inside(void **state)
{
    (void)state;
    thread_end(thread_begin(end_inside, NULL));
    assert_int_equal(gate_close(SHORT_MS), 0);
    gate_open();
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    /* The next thread on its stack finds its thread-specific data, which a sanitizer does not stand. */
    thread_end(thread_begin(end_inside, (void *)1));
    assert_int_equal(gate_close(PATIENCE_MS), 0);
    gate_open();
#endif
}

static pthread_key_t late;
static void call_late(void *value)
{
    (void)value;
    for (unsigned i = 0; i < 3; i++)
        one_pass(NULL);
}

static void *end_with_a_late_call(void *unused)
{
    (void)pthread_setspecific(late, &late);
    one_pass(NULL);
    return unused;
}

static void a_destructor_may_still_call(void **state)
{
    (void)state;
    assert_int_equal(pthread_key_create(&late, call_late), 0);
    for (unsigned i = 0; i < 100; i++)
        thread_end(thread_begin(end_with_a_late_call, NULL));
    assert_int_equal(gate_close(PATIENCE_MS), 0);
    gate_open();
    assert_int_equal(pthread_key_delete(late), 0);
}

/* --- forks ------------------------------------------------------------------------------------------------------------------------ */

static int child_status(pid_t child)
{
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    return status;
}

static void child_check(void)
{
    bool open = gate_enter();
    gate_leave();
    if (!open || gate_close(PATIENCE_MS) != 0)
        _exit(1);
    gate_open();
    _exit(0);
}

/* The parent's threads, one of them inside, are not the child's; and it is not closed there. */
static void a_forked_child_has_an_open_gate(void **state)
{
    (void)state;
    pthread_t thread = thread_begin(stay_inside, NULL);
    await(1);
    pid_t child = fork();
    if (child == 0)
        child_check();
    assert_int_equal(child_status(child), 0);
    say(2);
    thread_end(thread);
    assert_int_equal(gate_close(PATIENCE_MS), 0);
    child = fork();
    if (child == 0)
        child_check();
    assert_int_equal(child_status(child), 0);
    assert_true(gate_is_closed());
    gate_open();
}

static void so_has_one_made_by_the_bare_system_call(void **state)
{
    (void)state;
    assert_int_equal(gate_close(PATIENCE_MS), 0);
    pid_t child = (pid_t)syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL);
    if (child == 0) {
        bool outermost = gate_enter();
        gate_leave();
        _exit(outermost ? 0 : 1);
    }
    assert_int_equal(child_status(child), 0);
    gate_open();
}

/* --- the rest ----------------------------------------------------------------------------------------------------------------------- */

static void *safe_pass(void *unused)
{
    gate_pass();
    say(3);
    return unused;
}

static void what_is_safe_waits_too(void **state)
{
    (void)state;
    assert_int_equal(gate_close(PATIENCE_MS), 0);
    pthread_t thread = thread_begin(safe_pass, NULL);
    arrival_await(1);
    assert_int_equal(atomic_load(&said), 0);
    gate_open();
    thread_end(thread);
    assert_int_equal(atomic_load(&said), 3);
}

static void a_sweep_tells_of_passes_since_the_last(void **state)
{
    (void)state;
    (void)gate_sweep();
    assert_false(gate_sweep());
    one_pass(NULL);
    assert_true(gate_sweep());
    assert_false(gate_sweep());
    assert_true(gate_enter());
    assert_true(gate_sweep());
    assert_true(gate_sweep()); /* long inside is in use */
    gate_leave();
}

/* The last test: there is no way back. */
static void what_is_unevictable_is_never_closed_again(void **state)
{
    (void)state;
    assert_null(gate_unevictable_reason());
    assert_true(gate_make_unevictable("the first"));
    assert_false(gate_make_unevictable("the second"));
    assert_string_equal(gate_unevictable_reason(), "the first");
    assert_int_equal(gate_close(PATIENCE_MS), -EPERM);
    assert_false(gate_is_closed());
}

/* Late between saying that it wants to come back and falling asleep: meanwhile the gate was opened and closed again. */
static void arrival_between_closings(void)
{
    if (atomic_fetch_add(&arrivals, 1) == 0) {
        gate_open();
        if (gate_close(PATIENCE_MS) != 0)
            abort();
    } else
        gate_open();
}

static void *pass_once(void *argument)
{
    (void)argument;
    if (!gate_enter())
        abort();
    gate_leave();
    return NULL;
}

static void of_each_closing_it_is_told_anew(void **state)
{
    (void)state;
    struct timespec deadline;
    gate_set_arrival(arrival_between_closings);
    assert_int_equal(gate_close(PATIENCE_MS), 0);
    pthread_t thread = thread_begin(pass_once, NULL);
    (void)clock_gettime(CLOCK_REALTIME, &deadline);
    deadline.tv_sec += 60; /* else it slept through the second closing, of which nobody was told */
    assert_int_equal(pthread_timedjoin_np(thread, NULL, &deadline), 0);
    assert_int_equal(atomic_load(&arrivals), 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(nobody_is_inside_while_it_is_closed, set_up),
        cmocka_unit_test_setup(threads_come_and_go, set_up),
        cmocka_unit_test_setup(who_stays_inside_makes_it_not_quiet, set_up),
        cmocka_unit_test_setup(who_waits_for_room_does_not_hold_it_up, set_up),
        cmocka_unit_test_setup(the_closing_thread_may_not_be_inside, set_up),
        cmocka_unit_test_setup(a_call_inside_a_call_is_not_outermost, set_up),
        cmocka_unit_test_setup(a_call_left_by_longjmp_is_forgotten_at_the_next, set_up),
        cmocka_unit_test_setup(a_handler_on_its_own_stack_is_inside_its_thread, set_up),
        cmocka_unit_test_setup(a_thread_that_ends_inside_is_not_inside, set_up),
        cmocka_unit_test_setup(a_destructor_may_still_call, set_up),
        cmocka_unit_test_setup(a_forked_child_has_an_open_gate, set_up),
        cmocka_unit_test_setup(so_has_one_made_by_the_bare_system_call, set_up),
        cmocka_unit_test_setup(what_is_safe_waits_too, set_up),
        cmocka_unit_test_setup(of_each_closing_it_is_told_anew, set_up),
        cmocka_unit_test_setup(a_sweep_tells_of_passes_since_the_last, set_up),
        cmocka_unit_test_setup(what_is_unevictable_is_never_closed_again, set_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
