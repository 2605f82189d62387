/*
 * The gate: what every call passes on its way into the driver, and where it waits while the process is out of the card.
 *
 * A thread that is to enter the driver stores where its stack is into a mark of its own and then reads whether the gate is shut;
 * leaving is one plain store. Nothing shared is written while the gate is open. Who closes it stores `shut`, makes every running
 * thread of the process pass a barrier (membarrier), and then waits until no mark says "inside": one of the two sees the other, as
 * in biased_lock.h. Marks are never freed, only taken up by later threads, so that none can vanish under who reads them.
 *
 * The mark also tells an outermost call from one that the driver, a callback or a signal handler makes inside of another: those
 * belong to the outer call and are neither charged nor stopped. Who left a wrapper by longjmp has his mark left behind; the
 * next call from no deeper in the stack is seen to be an outermost one.
 *
 * Called by src/interpose (entering, leaving), src/account (a thread that waits for room is not inside) and src/evict (closing).
 * Any thread, any time, signal handlers too; closing is one thread's at a time. In a forked child the gate is open.
 */
#ifndef PLATFORM_GATE_H
#define PLATFORM_GATE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    GATE_OUT = 0,
    GATE_AWAY =
        1, /* this bit: within a wrapper, and not in the driver just now; alone: out, and not passed since gate_sweep */
};

struct gate_mark {
    _Atomic(uintptr_t)
        inside; /* GATE_OUT, or the stack pointer (an even number) of the outermost call, with GATE_AWAY or without */
    _Atomic(int) thread; /* 0: free to take */
};

extern __thread struct gate_mark *gate_self __attribute__((tls_model("initial-exec"), visibility("hidden")));
extern _Atomic(uint32_t) gate_shut __attribute__((
    visibility("hidden"))); /* not 0: closed, for the so manieth time; a futex; thunk_entry.S reads it too */

bool gate_enter_slowly(uintptr_t stack); /* call gate_enter */
void gate_wait(void);                    /* call gate_pass: sleeps while the gate is shut */

static inline uintptr_t gate_stack(void)
{
    uintptr_t stack;
#if defined(__x86_64__)
    __asm__("mov %%rsp, %0" : "=r"(stack));
#else
    __asm__("mov %0, sp" : "=r"(stack));
#endif
    return stack;
}

static inline bool gate_is_inside(void)
{
    return atomic_load_explicit(&gate_self->inside, memory_order_relaxed) > GATE_AWAY;
}

/* Marks the thread as inside where that takes no more than storing it: its mark, for gate_clear. NULL: ask gate_enter. */
static inline __attribute__((always_inline)) struct gate_mark *gate_try(void)
{
    struct gate_mark *mark = gate_self;
    if (mark == NULL)
        __builtin_unreachable(); /* spares the caller's look at the answer */
    /* A thread without a mark has that of nobody, in which something is set for good; so has one after a sweep, once. */
    if (__builtin_expect(atomic_load_explicit(&mark->inside, memory_order_relaxed) != GATE_OUT, 0))
        return NULL;
    atomic_store_explicit(&mark->inside, gate_stack(), memory_order_relaxed);
    atomic_signal_fence(memory_order_seq_cst); /* the closing side's membarrier makes it a fence of the processor */
    if (__builtin_expect(atomic_load_explicit(&gate_shut, memory_order_acquire) == 0, 1))
        return mark;
    atomic_store_explicit(&mark->inside, GATE_OUT, memory_order_release);
    return NULL;
}

/* Waits while the gate is shut, and marks the thread as inside. False: it was inside already; pass the call on as it is, and do
 * not leave. Keeps errno. */
static inline __attribute__((always_inline)) bool gate_enter(void)
{
    return __builtin_expect(gate_try() != NULL, 1) || gate_enter_slowly(gate_stack());
}

static inline void gate_clear(struct gate_mark *mark)
{
    atomic_store_explicit(&mark->inside, GATE_OUT, memory_order_release);
}

static inline void gate_leave(void)
{
    gate_clear(gate_self);
}

static inline bool gate_value_is_inside(uintptr_t inside)
{
    return inside != GATE_OUT && (inside & GATE_AWAY) == 0;
}

/* For a call that is measured to answer whatever state its process is in: waits while the gate is shut, and leaves no mark. */
static inline void gate_pass(void)
{
    if (__builtin_expect(atomic_load_explicit(&gate_shut, memory_order_acquire) != 0, 0) &&
        !gate_value_is_inside(atomic_load_explicit(&gate_self->inside, memory_order_relaxed)))
        gate_wait();
}

/* A thread inside that is to wait for something else than the driver says so for that time: the gate can be closed meanwhile.
 * Ending waits until it is open. Holding no lock that another thread inside may want; nothing for a thread that is not inside. */
void gate_outside_begin(void);
void gate_outside_end(void);

/* --- closing: one thread at a time, itself not inside -------------------------------------------------------------------- */

/* Closes the gate and waits until no thread is inside. 0: quiet, and closed until gate_open. Else it is open again: -ETIMEDOUT
 * (somebody stayed inside), -EPERM (gate_unevictable_reason says why), -EDEADLK (this thread is inside), -EALREADY (it was
 * closed), -ENOSYS (no membarrier here). Keeps errno. */
int gate_close(uint32_t timeout_ms);
void gate_open(void);

static inline bool gate_is_closed(void)
{
    return atomic_load_explicit(&gate_shut, memory_order_acquire) != 0;
}

/* Called by each thread that arrives at a closed gate, before it sleeps, not inside; it may wake others and may not wait, call the
 * driver, or take a lock held across gate_close. NULL: nobody. */
void gate_set_arrival(void (*arrival)(void));

/* Whether any thread passed, or stayed inside, since the last sweep. One thread at a time. */
bool gate_sweep(void);

/* --- never again ------------------------------------------------------------------------------------------------------------- */

/* From now on the gate cannot be closed, because of that: the first reason stays (true: this is it). The text must stay. */
bool gate_make_unevictable(const char *reason);
const char *gate_unevictable_reason(void); /* NULL: it can be */

#endif
