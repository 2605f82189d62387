/*
 * Contexts: made, ended, and current to threads. Each costs what the option context= says of its device's memory, and
 * gives back all it owns when it ends. A thread's stack of contexts is its own; the rest is under sim_lock.
 */
#include "sim/graph.h"

#include <stdlib.h>
#include <string.h>

enum { STACK_DEPTH = 64 };

static CUcontext contexts; /* all ever made, the newest first */
static CUcontext primaries[SIM_DEVICES];
static uint64_t next_id = 1;
static _Thread_local CUcontext stack[STACK_DEPTH];
static _Thread_local unsigned depth;

static const size_t default_limits[CONTEXT_LIMITS] = {
    1024,    /* stack of a thread */
    7340032, /* printf fifo */
    8388608, /* heap */
    2,       /* synchronisation depth */
    2048,    /* pending launches */
    128,     /* L2 fetch granularity */
};

static CUcontext context_top(void)
{
    return depth ? stack[depth - 1] : NULL;
}

static bool context_is_known(CUcontext context)
{
    for (CUcontext known = contexts; known; known = known->next)
        if (known == context)
            return true;
    return false;
}

/* A green context lives in one life of its parent. */
static bool context_lives(CUcontext context)
{
    CUcontext parent = context->parent;
    return atomic_load(&context->alive) &&
           (!parent || (atomic_load(&parent->alive) && atomic_load(&parent->generation) == context->parent_generation));
}

bool context_is_alive(CUcontext context)
{
    return context && context_is_known(context) && context_lives(context);
}

/* The thread's own context is always a known one: only such are ever pushed. */
CUresult context_current(CUcontext *context)
{
    CUcontext top = context_top();
    if (!top)
        return CUDA_ERROR_INVALID_CONTEXT;
    if (!context_lives(top))
        return CUDA_ERROR_CONTEXT_IS_DESTROYED;
    if (top->parent)
        top = top->parent;
    int fault = atomic_load(&top->fault);
    if (fault != CUDA_SUCCESS)
        return fault;
    *context = top;
    return CUDA_SUCCESS;
}

static uint64_t context_cost(void)
{
    return sim_process.options.context_given ? sim_process.options.context_bytes
                                             : sim_process.machine.shared->context_bytes;
}

/* Brings a context to life, paid for. Under sim_lock. */
static CUresult context_begin(CUcontext context, unsigned flags)
{
    if (machine_charge(&sim_process.machine, sim_process.physical[context->device], context_cost()) != 0)
        return CUDA_ERROR_OUT_OF_MEMORY;
    context->flags = flags;
    context->peers = 0;
    context->id = next_id++;
    context->cache_config = 0;
    context->shared_config = 0;
    memcpy(context->limits, default_limits, sizeof(default_limits));
    atomic_store(&context->fault, CUDA_SUCCESS);
    atomic_store(&context->alive, true);
    return CUDA_SUCCESS;
}

/* All that was asked of a context has happened, and the host knows. */
static void context_wait(CUcontext context)
{
    struct stream_place place = {.context = context};
    pools_see(&place, UINT64_MAX);
}

/* Ends a context and gives back all it owns. Not under sim_lock; of several callers one does it. */
static void context_end(CUcontext context)
{
    struct block *dead = NULL;
    sim_lock();
    bool ended = atomic_exchange(&context->alive, false);
    if (ended) {
        atomic_fetch_add(&context->generation, 1);
        dead = memory_end_context(context);
        host_end_context(context);
        external_end_context(context);
        machine_credit(&sim_process.machine, sim_process.physical[context->device],
                       context_cost() + context->extra_bytes);
        context->extra_bytes = context->stack_bytes = 0;
        context->greens = context->greens_paid = 0;
    }
    sim_unlock();
    memory_dispose(dead);
    if (ended) {
        capture_end_context(context);
        context_wait(context);
    }
}

/* NULL: no memory. Under sim_lock. */
static CUcontext context_new(CUdevice device)
{
    CUcontext context = calloc(1, sizeof(*context));
    if (context) {
        context->device = device;
        context->next = contexts;
        contexts = context;
    }
    return context;
}

CUresult context_extend(CUcontext context, uint64_t bytes)
{
    if (machine_charge(&sim_process.machine, sim_process.physical[context->device], bytes) != 0)
        return CUDA_ERROR_OUT_OF_MEMORY;
    context->extra_bytes += bytes;
    return CUDA_SUCCESS;
}

CUcontext context_make_green(CUcontext parent)
{
    CUcontext made = context_new(parent->device);
    if (made) {
        made->parent = parent;
        made->parent_generation = atomic_load(&parent->generation);
        made->id = next_id++;
        atomic_store(&made->alive, true);
    }
    return made;
}

void context_end_green(CUcontext context)
{
    atomic_store(&context->alive, false);
}

static CUresult context_push(CUcontext context)
{
    if (depth == STACK_DEPTH)
        return CUDA_ERROR_INVALID_VALUE;
    stack[depth++] = context;
    return CUDA_SUCCESS;
}

static CUresult context_create(CUcontext *context, unsigned flags, CUdevice device, CUresult after)
{
    if (!context || flags & ~0xFFu)
        return CUDA_ERROR_INVALID_VALUE;
    if (device_check(device) != CUDA_SUCCESS)
        return CUDA_ERROR_INVALID_DEVICE;
    if (depth == STACK_DEPTH)
        return CUDA_ERROR_INVALID_VALUE;
    sim_lock();
    CUcontext made = context_new(device);
    CUresult result = made ? context_begin(made, flags) : CUDA_ERROR_OUT_OF_MEMORY;
    if (result == CUDA_SUCCESS)
        made->references = 1;
    sim_unlock();
    if (result != CUDA_SUCCESS)
        return result;
    if (after != CUDA_SUCCESS) {
        context_end(made);
        return after;
    }
    *context = made;
    return context_push(made);
}

SIM_API CUresult cuCtxCreate_v2(CUcontext *context, unsigned flags, CUdevice device)
{
    SIM_ENTER_MAKING(after);
    return context_create(context, flags, device, after);
}

SIM_API CUresult cuCtxCreate(CUcontext *context, unsigned flags, CUdevice device)
{
    SIM_ENTER_MAKING(after);
    return context_create(context, flags, device, after);
}

/* Execution affinity needs MPS, which the simulator has not. */
SIM_API CUresult cuCtxCreate_v3(CUcontext *context, CUexecAffinityParam *parameters, int count, unsigned flags,
                                CUdevice device)
{
    SIM_ENTER_MAKING(after);
    if (parameters || count != 0)
        return CUDA_ERROR_UNSUPPORTED_EXEC_AFFINITY;
    return context_create(context, flags, device, after);
}

SIM_API CUresult cuCtxCreate_v4(CUcontext *context, CUctxCreateParams *parameters, unsigned flags, CUdevice device)
{
    SIM_ENTER_MAKING(after);
    const void *const *fields = (const void *const *)parameters; /* affinity, its count, graphics interoperation */
    if (parameters && (fields[0] || fields[2]))
        return CUDA_ERROR_NOT_SUPPORTED;
    return context_create(context, flags, device, after);
}

/* Takes one reference away; the last one ends the context. */
static CUresult context_leave(CUcontext context, bool all)
{
    sim_lock();
    bool known = context_is_alive(context) && !context->primary && !context->parent;
    bool last = known && (all || --context->references == 0);
    sim_unlock();
    if (!known)
        return CUDA_ERROR_INVALID_CONTEXT;
    if (last) {
        context_end(context);
        if (context_top() == context)
            depth--;
    }
    return CUDA_SUCCESS;
}

SIM_API CUresult cuCtxDestroy_v2(CUcontext context)
{
    SIM_ENTER();
    return context_leave(context, true);
}
SIM_TWIN(cuCtxDestroy, cuCtxDestroy_v2);

SIM_API CUresult cuCtxAttach(CUcontext *context, unsigned flags)
{
    SIM_ENTER_CONTEXT(current);
    if (!context || flags != 0)
        return CUDA_ERROR_INVALID_VALUE;
    sim_lock();
    current->references++;
    sim_unlock();
    *context = current;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuCtxDetach(CUcontext context)
{
    SIM_ENTER();
    return context_leave(context, false);
}

SIM_API CUresult cuCtxPushCurrent_v2(CUcontext context)
{
    SIM_ENTER();
    sim_lock();
    bool alive = context_is_alive(context);
    sim_unlock();
    return alive ? context_push(context) : CUDA_ERROR_INVALID_CONTEXT;
}
SIM_TWIN(cuCtxPushCurrent, cuCtxPushCurrent_v2);

SIM_API CUresult cuCtxPopCurrent_v2(CUcontext *context)
{
    SIM_ENTER();
    if (depth == 0)
        return CUDA_ERROR_INVALID_CONTEXT;
    depth--;
    if (context)
        *context = stack[depth];
    return CUDA_SUCCESS;
}
SIM_TWIN(cuCtxPopCurrent, cuCtxPopCurrent_v2);

SIM_API CUresult cuCtxSetCurrent(CUcontext context)
{
    SIM_ENTER();
    if (!context) {
        if (depth)
            depth--;
        return CUDA_SUCCESS;
    }
    sim_lock();
    bool alive = context_is_alive(context);
    sim_unlock();
    if (!alive)
        return CUDA_ERROR_INVALID_CONTEXT;
    if (depth)
        depth--;
    return context_push(context);
}

SIM_API CUresult cuCtxGetCurrent(CUcontext *context)
{
    SIM_ENTER();
    if (!context)
        return CUDA_ERROR_INVALID_VALUE;
    *context = context_top();
    return CUDA_SUCCESS;
}

SIM_API CUresult cuCtxGetDevice(CUdevice *device)
{
    SIM_ENTER_CONTEXT(current);
    if (!device)
        return CUDA_ERROR_INVALID_VALUE;
    *device = current->device;
    return CUDA_SUCCESS;
}

/* A context named by its handle; NULL is the calling thread's. */
static CUresult context_named(CUcontext context, CUcontext *named)
{
    if (!context)
        return context_current(named);
    sim_lock();
    bool alive = context_is_alive(context);
    sim_unlock();
    if (!alive)
        return CUDA_ERROR_INVALID_CONTEXT;
    *named = context;
    return atomic_load(&context->fault);
}

/* CUDA 13 gave two old names a parameter. Programs that look for the newest suffix by dlsym and call with the old
 * prototype (Numba does) pass whatever the register holds: what was never a context is taken for none. */
static CUresult context_named_maybe(CUcontext context, CUcontext *named)
{
    sim_lock();
    bool known = context_is_known(context);
    sim_unlock();
    return context_named(known ? context : NULL, named);
}

SIM_API CUresult cuCtxGetDevice_v2(CUdevice *device, CUcontext context)
{
    SIM_ENTER();
    CUcontext named;
    CUresult result = device ? context_named_maybe(context, &named) : CUDA_ERROR_INVALID_VALUE;
    if (result == CUDA_SUCCESS)
        *device = named->device;
    return result;
}

SIM_API CUresult cuCtxGetId(CUcontext context, unsigned long long *id)
{
    SIM_ENTER();
    CUcontext named;
    CUresult result = id ? context_named(context, &named) : CUDA_ERROR_INVALID_VALUE;
    if (result == CUDA_SUCCESS)
        *id = named->id;
    return result;
}

SIM_API CUresult cuCtxGetApiVersion(CUcontext context, unsigned *version)
{
    SIM_ENTER();
    CUcontext named;
    CUresult result = version ? context_named(context, &named) : CUDA_ERROR_INVALID_VALUE;
    if (result == CUDA_SUCCESS)
        *version = 3020;
    return result;
}

SIM_API CUresult cuCtxSynchronize(void)
{
    SIM_ENTER_CONTEXT(current);
    CUresult result = capture_refuse_context(current);
    if (result == CUDA_SUCCESS)
        context_wait(current);
    return result;
}

SIM_API CUresult cuCtxSynchronize_v2(CUcontext context)
{
    SIM_ENTER();
    CUcontext named;
    CUresult result = context_named_maybe(context, &named);
    if (result == CUDA_SUCCESS)
        result = capture_refuse_context(named);
    if (result == CUDA_SUCCESS)
        context_wait(named);
    return result;
}

SIM_API CUresult cuCtxGetFlags(unsigned *flags)
{
    SIM_ENTER_CONTEXT(current);
    if (!flags)
        return CUDA_ERROR_INVALID_VALUE;
    *flags = current->flags;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuCtxSetFlags(unsigned flags)
{
    SIM_ENTER_CONTEXT(current);
    if (flags & ~0xFFu)
        return CUDA_ERROR_INVALID_VALUE;
    current->flags = flags;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuCtxGetLimit(size_t *value, int limit)
{
    SIM_ENTER_CONTEXT(current);
    if (!value)
        return CUDA_ERROR_INVALID_VALUE;
    if (limit < 0 || limit >= CONTEXT_LIMITS)
        return CUDA_ERROR_UNSUPPORTED_LIMIT;
    sim_lock();
    *value = current->limits[limit];
    sim_unlock();
    return CUDA_SUCCESS;
}

/* Stacks for all threads that can be resident are taken at once, beyond the 1 KiB that a context comes with, and given back when
 * the limit falls; the other limits cost nothing at the call: measured. Under sim_lock. */
static CUresult stacks_take(CUcontext context, size_t value)
{
    enum { RESIDENT_THREADS = 132 * 2048 };
    if (value > 1 << 20)
        return CUDA_ERROR_INVALID_VALUE;
    uint64_t base = default_limits[CU_LIMIT_STACK_SIZE];
    uint64_t bytes = value > base ? (value - base) * RESIDENT_THREADS : 0;
    bytes = (bytes + GRANULE_BYTES - 1) / GRANULE_BYTES * GRANULE_BYTES;
    if (bytes <= context->stack_bytes) {
        uint64_t back = context->stack_bytes - bytes;
        machine_credit(&sim_process.machine, sim_process.physical[context->device], back);
        context->extra_bytes -= back;
        context->stack_bytes = bytes;
        return CUDA_SUCCESS;
    }
    CUresult result = context_extend(context, bytes - context->stack_bytes);
    if (result == CUDA_SUCCESS)
        context->stack_bytes = bytes;
    return result;
}

/* 3, the depth of synchronisation, is unsupported since compute capability 9.0: measured. */
SIM_API CUresult cuCtxSetLimit(int limit, size_t value)
{
    SIM_ENTER_CONTEXT(current);
    if (limit < 0 || limit >= CONTEXT_LIMITS || (limit == 3 && sim_process.machine.shared->compute_major >= 9))
        return CUDA_ERROR_UNSUPPORTED_LIMIT;
    sim_lock();
    CUresult result = limit == CU_LIMIT_STACK_SIZE ? stacks_take(current, value) : CUDA_SUCCESS;
    if (result == CUDA_SUCCESS)
        current->limits[limit] = value;
    sim_unlock();
    return result;
}

SIM_API CUresult cuCtxGetCacheConfig(int *config)
{
    SIM_ENTER_CONTEXT(current);
    if (!config)
        return CUDA_ERROR_INVALID_VALUE;
    *config = current->cache_config;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuCtxSetCacheConfig(int config)
{
    SIM_ENTER_CONTEXT(current);
    if (config < 0 || config > 3)
        return CUDA_ERROR_INVALID_VALUE;
    current->cache_config = config;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuCtxGetSharedMemConfig(int *config)
{
    SIM_ENTER_CONTEXT(current);
    if (!config)
        return CUDA_ERROR_INVALID_VALUE;
    *config = current->shared_config;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuCtxSetSharedMemConfig(int config)
{
    SIM_ENTER_CONTEXT(current);
    if (config < 0 || config > 2)
        return CUDA_ERROR_INVALID_VALUE;
    current->shared_config = config;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuCtxGetStreamPriorityRange(int *least, int *greatest)
{
    SIM_ENTER_CONTEXT(current);
    (void)current;
    if (least)
        *least = 0;
    if (greatest)
        *greatest = -5;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuCtxResetPersistingL2Cache(void)
{
    SIM_ENTER_CONTEXT(current);
    (void)current;
    return CUDA_SUCCESS;
}

/* The primary context: one for each device, with the same handle in each of its lives. */

/* Takes away one reference; the last one ends the context. False: there was none. */
static bool primary_leave(CUdevice device)
{
    sim_lock();
    CUcontext primary = primaries[device];
    bool retained = primary && primary->references > 0;
    bool last = retained && --primary->references == 0;
    sim_unlock();
    if (last)
        context_end(primary);
    return retained;
}

CUresult primary_retain(CUdevice device, CUcontext *context)
{
    if (device_check(device) != CUDA_SUCCESS)
        return CUDA_ERROR_INVALID_DEVICE;
    sim_lock();
    CUcontext primary = primaries[device];
    if (!primary) {
        primary = primaries[device] = context_new(device);
        if (primary)
            primary->primary = true;
    }
    CUresult result = primary ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
    if (primary && !atomic_load(&primary->alive))
        result = context_begin(primary, primary->flags);
    if (result == CUDA_SUCCESS)
        primary->references++;
    sim_unlock();
    if (result == CUDA_SUCCESS)
        *context = primary;
    return result;
}

SIM_API CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device)
{
    SIM_ENTER_MAKING(after);
    CUcontext primary;
    CUresult result = context ? primary_retain(device, &primary) : CUDA_ERROR_INVALID_VALUE;
    if (result != CUDA_SUCCESS)
        return result;
    if (after == CUDA_SUCCESS)
        *context = primary;
    else
        primary_leave(device);
    return after;
}

CUresult primary_release(CUdevice device)
{
    if (device_check(device) != CUDA_SUCCESS)
        return CUDA_ERROR_INVALID_DEVICE;
    return primary_leave(device) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_CONTEXT;
}

SIM_API CUresult cuDevicePrimaryCtxRelease_v2(CUdevice device)
{
    SIM_ENTER();
    return primary_release(device);
}
SIM_TWIN(cuDevicePrimaryCtxRelease, cuDevicePrimaryCtxRelease_v2);

/* Ends it whatever its references, which stay. */
SIM_API CUresult cuDevicePrimaryCtxReset_v2(CUdevice device)
{
    SIM_ENTER();
    if (device_check(device) != CUDA_SUCCESS)
        return CUDA_ERROR_INVALID_DEVICE;
    sim_lock();
    CUcontext primary = primaries[device];
    sim_unlock();
    if (primary)
        context_end(primary);
    return CUDA_SUCCESS;
}
SIM_TWIN(cuDevicePrimaryCtxReset, cuDevicePrimaryCtxReset_v2);

SIM_API CUresult cuDevicePrimaryCtxGetState(CUdevice device, unsigned *flags, int *active)
{
    SIM_ENTER();
    if (device_check(device) != CUDA_SUCCESS)
        return CUDA_ERROR_INVALID_DEVICE;
    sim_lock();
    CUcontext primary = primaries[device];
    if (flags)
        *flags = primary ? primary->flags : 0;
    if (active)
        *active = primary && atomic_load(&primary->alive);
    sim_unlock();
    return CUDA_SUCCESS;
}

SIM_API CUresult cuDevicePrimaryCtxSetFlags_v2(CUdevice device, unsigned flags)
{
    SIM_ENTER();
    if (device_check(device) != CUDA_SUCCESS)
        return CUDA_ERROR_INVALID_DEVICE;
    if (flags & ~0xFFu)
        return CUDA_ERROR_INVALID_VALUE;
    sim_lock();
    CUcontext primary = primaries[device];
    if (!primary) {
        primary = primaries[device] = context_new(device);
        if (primary)
            primary->primary = true;
    }
    if (primary)
        primary->flags = flags;
    sim_unlock();
    return primary ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}
SIM_TWIN(cuDevicePrimaryCtxSetFlags, cuDevicePrimaryCtxSetFlags_v2);
