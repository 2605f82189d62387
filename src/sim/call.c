/*
 * Who is inside the driver, and who must wait outside. Each thread has a mark of its own that is set while it is in a call
 * (process.c, from the macros in sim.h); a lock of the checkpoint changes the state first and then waits for the marks of those
 * inside to be cleared. A call that sets its mark must then see the new state, or the lock the mark: the lock has the kernel put
 * a barrier into every running thread between the two (membarrier), so that a call needs none and costs a store and a load.
 * Where the kernel refuses, each call has the barrier itself.
 *
 * What a call does when it finds its process's driver checkpointed was measured on an H200, each in a process of its own. From
 * it is inferred what it does under a lock alone: what crashes or fails in a checkpointed driver does not wait for the
 * driver's lock, so it goes on while there is only the lock. What was not tried waits.
 */
#include "sim/checkpoint.h"

#include <linux/membarrier.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { LINE_BYTES = 64 };

/* Never freed; of a thread that has ended it is the next new one's. */
struct mark {
    _Alignas(LINE_BYTES) _Atomic uint32_t inside;
    _Atomic uint32_t taken;
    struct mark *next;
};
static struct mark *_Atomic marks;
static _Atomic uint32_t departures; /* a futex: one more each time somebody leaves while the state is not RUNNING */
static bool calls_are_fenced;       /* the kernel makes no barriers; written before the first call */
static pthread_key_t mark_key;
static bool mark_key_is_made;

/* The calling thread's. Small enough for the room that is kept for libraries loaded later, and so found without a call. */
static _Thread_local struct {
    struct mark *mark; /* NULL: none yet */
    unsigned depth;    /* of calls within calls */
} own __attribute__((tls_model("initial-exec")));

enum conduct { WAITS, ANSWERS, CRASHES, FAILS };

static const struct {
    const char *name;
    enum conduct conduct;
} conducts[] = {
    {"cuEventQuery", CRASHES}, /* measured */
    {"cuStreamQuery", CRASHES},
    {"cuStreamSynchronize", CRASHES},
    {"cuCtxSynchronize", CRASHES},
    {"cuCtxSynchronize_v2", CRASHES}, /* inferred */
    {"cuEventSynchronize", CRASHES},
    {"cuMemGetInfo", FAILS}, /* measured */
    {"cuMemGetInfo_v2", FAILS},
    {"cuCtxGetCurrent", ANSWERS}, /* measured */
    {"cuCtxPushCurrent_v2", ANSWERS},
    {"cuDeviceGetAttribute", ANSWERS},
    {"cuDeviceGetCount", ANSWERS},
    {"cuDeviceTotalMem", ANSWERS},
    {"cuDeviceTotalMem_v2", ANSWERS},
    {"cuPointerGetAttribute", ANSWERS},
    {"cuFuncGetAttribute", ANSWERS},
    {"cuMemAddressReserve", ANSWERS},
    {"cuDevicePrimaryCtxGetState", ANSWERS},
    {"cuCtxPopCurrent_v2", ANSWERS}, /* inferred, of the same kind */
    {"cuCtxSetCurrent", ANSWERS},
    {"cuCtxGetDevice", ANSWERS},
    {"cuDeviceComputeCapability", ANSWERS},
    {"cuDeviceGet", ANSWERS},
    {"cuDeviceGetByPCIBusId", ANSWERS},
    {"cuDeviceGetName", ANSWERS},
    {"cuDeviceGetPCIBusId", ANSWERS},
    {"cuDeviceGetProperties", ANSWERS},
    {"cuDeviceGetUuid", ANSWERS},
    {"cuPointerGetAttributes", ANSWERS},
};

static enum conduct conduct_of(const char *name)
{
    for (size_t i = 0; i < sizeof(conducts) / sizeof(conducts[0]); i++)
        if (strcmp(conducts[i].name, name) == 0)
            return conducts[i].conduct;
    return WAITS;
}

uint32_t state_get(void)
{
    return atomic_load(&sim_process.machine.self->state);
}

void state_set(uint32_t state)
{
    atomic_store(&sim_process.machine.self->state, state);
    machine_word_wake(&sim_process.machine.self->state);
}

void call_await_running(void)
{
    for (uint32_t state; (state = state_get()) != STATE_RUNNING;)
        machine_word_wait(&sim_process.machine.self->state, state, 0);
}

/* Sets or clears it before the state is looked at. */
static void mark_write(struct mark *mark, uint32_t inside)
{
    if (calls_are_fenced) {
        atomic_store(&mark->inside, inside);
    } else {
        atomic_store_explicit(&mark->inside, inside, memory_order_release);
        atomic_signal_fence(memory_order_seq_cst);
    }
}

__attribute__((noinline, cold)) static void departure_tell(void)
{
    atomic_fetch_add(&departures, 1);
    machine_word_wake(&departures);
}

static void mark_clear(struct mark *mark)
{
    mark_write(mark, 0);
    if (state_get() != STATE_RUNNING)
        departure_tell();
}

/* At the end of a thread, also of one that was cancelled in a call. */
static void mark_leave(void *argument)
{
    struct mark *mark = argument;
    own.mark = NULL;
    own.depth = 0;
    mark_clear(mark);
    atomic_store(&mark->taken, 0);
}

/* NULL: no memory. */
__attribute__((noinline, cold)) static struct mark *mark_take(void)
{
    struct mark *mark = atomic_load(&marks);
    for (uint32_t expected = 0; mark && !atomic_compare_exchange_strong(&mark->taken, &expected, 1); expected = 0)
        mark = mark->next;
    if (!mark) {
        mark = aligned_alloc(LINE_BYTES, sizeof(*mark));
        if (!mark)
            return NULL;
        memset(mark, 0, sizeof(*mark));
        atomic_store(&mark->taken, 1);
        mark->next = atomic_load(&marks);
        while (!atomic_compare_exchange_weak(&marks, &mark->next, mark))
            ;
    }
    if (mark_key_is_made)
        pthread_setspecific(mark_key, mark);
    own.mark = mark;
    return mark;
}

void calls_prepare(void)
{
    mark_key_is_made = pthread_key_create(&mark_key, mark_leave) == 0;
    calls_are_fenced = syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0) != 0;
}

/* What the real driver does where its memory of the card is gone: it reads what is not mapped. */
static void crash(void)
{
    static volatile uintptr_t nowhere = 8;
    (void)*(volatile int *)nowhere;
}

/* A call that was counted in and met another state than RUNNING. */
__attribute__((noinline, cold)) static CUresult call_meet(const char *name)
{
    enum conduct conduct = conduct_of(name);
    for (;;) {
        uint32_t state = state_get();
        bool away = state != STATE_LOCKING && state != STATE_LOCKED;
        if (state == STATE_RUNNING || conduct == ANSWERS || (conduct != WAITS && !away))
            return CUDA_SUCCESS;
        if (conduct == CRASHES)
            crash();
        own.depth = 0; /* a signal's handler that calls now waits as well */
        mark_clear(own.mark);
        if (conduct == FAILS)
            return CUDA_ERROR_OPERATING_SYSTEM;
        call_await_running();
        own.depth = 1;
        mark_write(own.mark, 1);
    }
}

CUresult call_begin(const char *name)
{
    if (own.depth > 0) { /* in a callback: whoever locks waits for it anyway */
        own.depth++;
        return CUDA_SUCCESS;
    }
    struct mark *mark = own.mark ? own.mark : mark_take();
    if (!mark)
        return CUDA_ERROR_OUT_OF_MEMORY;
    own.depth = 1;
    mark_write(mark, 1);
    return state_get() == STATE_RUNNING ? CUDA_SUCCESS : call_meet(name);
}

void call_end(const struct call *call)
{
    if (call->inside && --own.depth == 0)
        mark_clear(own.mark);
}

bool call_is_inside(void)
{
    return own.depth > 0;
}

bool calls_await(uint64_t deadline_ms)
{
    if (!calls_are_fenced)
        syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0);
    for (struct mark *mark = atomic_load(&marks); mark; mark = mark->next)
        for (;;) {
            uint32_t seen = atomic_load(&departures);
            if (atomic_load(&mark->inside) == 0)
                break;
            uint64_t now_ms = machine_clock_ms();
            if (deadline_ms && now_ms >= deadline_ms)
                return false;
            machine_word_wait(&departures, seen, deadline_ms ? deadline_ms - now_ms : 0);
        }
    return true;
}

void call_hang(void)
{
    for (;;)
        pause();
}
