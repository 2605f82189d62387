/*
 * Who is inside the driver, and who must wait outside. Each call is counted in and out (process.c, from the macros in sim.h); a lock
 * of the checkpoint changes the state first and then waits for the count of those inside to fall to 0, so that of a call and a
 * lock that meet at least one sees the other: the count and the state are both sequentially consistent.
 *
 * What a call does when it finds its process's driver checkpointed was measured on an H200, each in a process of its own. From
 * it is inferred what it does under a lock alone: what crashes or fails in a checkpointed driver does not wait for the
 * driver's lock, so it goes on while there is only the lock. What was not tried waits.
 */
#include "sim/checkpoint.h"

#include <errno.h>
#include <linux/futex.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { STRIPES = 64, STRIPE_BYTES = 64 };

/* Threads are spread over several counts, so that they do not fight for one line. */
static struct stripe {
    _Alignas(STRIPE_BYTES) _Atomic uint32_t inside;
} stripes[STRIPES];
static _Atomic uint32_t threads;    /* that have ever made a call */
static _Atomic uint32_t departures; /* a futex: one more each time somebody leaves while the state is not RUNNING */
static _Thread_local unsigned depth;
static _Thread_local struct stripe *own_stripe;

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

static void stripe_leave(struct stripe *stripe)
{
    atomic_fetch_sub(&stripe->inside, 1);
    if (state_get() == STATE_RUNNING)
        return;
    atomic_fetch_add(&departures, 1);
    machine_word_wake(&departures);
}

/* What the real driver does where its memory of the card is gone: it reads what is not mapped. */
static void crash(void)
{
    static volatile uintptr_t nowhere = 8;
    (void)*(volatile int *)nowhere;
}

/* A call that was counted in and met another state than RUNNING. */
static CUresult call_meet(const char *name)
{
    enum conduct conduct = conduct_of(name);
    for (;;) {
        uint32_t state = state_get();
        bool away = state != STATE_LOCKING && state != STATE_LOCKED;
        if (state == STATE_RUNNING || conduct == ANSWERS || (conduct != WAITS && !away))
            return CUDA_SUCCESS;
        if (conduct == CRASHES)
            crash();
        stripe_leave(own_stripe);
        if (conduct == FAILS) {
            depth--;
            return CUDA_ERROR_OPERATING_SYSTEM;
        }
        call_await_running();
        atomic_fetch_add(&own_stripe->inside, 1);
    }
}

CUresult call_begin(const char *name)
{
    if (depth++ > 0) /* in a callback: whoever locks waits for it anyway */
        return CUDA_SUCCESS;
    if (!own_stripe)
        own_stripe = &stripes[atomic_fetch_add(&threads, 1) % STRIPES];
    atomic_fetch_add(&own_stripe->inside, 1);
    return state_get() == STATE_RUNNING ? CUDA_SUCCESS : call_meet(name);
}

void call_end(const struct call *call)
{
    if (call->inside && --depth == 0)
        stripe_leave(own_stripe);
}

bool call_is_inside(void)
{
    return depth > 0;
}

bool calls_await(uint64_t deadline_ms)
{
    for (unsigned i = 0; i < STRIPES; i++)
        for (;;) {
            uint32_t seen = atomic_load(&departures);
            if (atomic_load(&stripes[i].inside) == 0)
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
