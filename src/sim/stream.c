/*
 * Streams and events. All work is done before the call that asks for it returns, so a stream is always idle, an event that
 * was recorded has always happened, and callbacks run in the calling thread. Handles are never given back to the heap but
 * used again, so that a stale one is told from a live one. Under sim_lock.
 */
#include "sim/graph.h"

#include <stdlib.h>
#include <time.h>

enum { STREAM_LIVE = 0x5354524D, EVENT_LIVE = 0x45564E54 };

struct CUstream_st {
    uint32_t state;      /* STREAM_LIVE, or 0: on the list of the unused */
    CUstream next, made; /* of the unused; of all ever made */
    CUcontext context;
    uint64_t generation, id;
    unsigned flags;
    int priority;
    struct capture_tail tail;
};

struct CUevent_st {
    uint32_t state;
    CUevent next, made;
    CUcontext context;
    uint64_t generation, recorded_ns; /* 0: never recorded */
    struct stream_place place;        /* where it was recorded last, and when */
    uint64_t moment;
    struct capture_tail captured; /* where, if that was in a capture */
    unsigned flags;
};

static CUstream unused_streams, all_streams;
static CUevent unused_events, all_events;
static uint64_t next_stream = 3; /* 1 and 2 are the implicit ones */
static uint64_t last_moment;

static bool stream_is_implicit(CUstream stream)
{
    return (uintptr_t)stream <= (uintptr_t)CU_STREAM_PER_THREAD;
}

static bool stream_is_live(CUstream stream)
{
    return stream->state == STREAM_LIVE && atomic_load(&stream->context->alive) &&
           atomic_load(&stream->context->generation) == stream->generation;
}

CUresult stream_check(CUstream stream, CUcontext *context)
{
    if (stream_is_implicit(stream))
        return context_current(context);
    sim_lock();
    bool live = stream_is_live(stream);
    sim_unlock();
    if (!live)
        return CUDA_ERROR_INVALID_HANDLE;
    *context = stream->context;
    return atomic_load(&stream->context->fault);
}

static uint64_t stream_id(CUstream stream)
{
    return stream == CU_STREAM_PER_THREAD ? 2 : stream_is_implicit(stream) ? 1 : stream->id;
}

CUresult stream_find(CUstream stream, struct stream_place *place)
{
    CUcontext context;
    CUresult result = stream_check(stream, &context);
    if (result != CUDA_SUCCESS)
        return result;
    bool implicit = stream_is_implicit(stream);
    *place = (struct stream_place){.context = context, .id = stream_id(stream)};
    place->legacy = place->id == 1;
    place->blocking = implicit || !(stream->flags & CU_STREAM_NON_BLOCKING);
    return CUDA_SUCCESS;
}

uint64_t stream_moment(void)
{
    return ++last_moment;
}

/* The stream of a thread by default captures for that thread. */
struct capture_tail *stream_tail(CUstream stream)
{
    static _Thread_local struct capture_tail of_thread;
    if (stream == CU_STREAM_PER_THREAD)
        return &of_thread;
    return stream_is_implicit(stream) ? NULL : &stream->tail;
}

void streams_visit(void (*visit)(struct capture_tail *tail, void *argument), void *argument)
{
    for (CUstream stream = all_streams; stream; stream = stream->made)
        visit(&stream->tail, argument);
}

CUresult stream_create(CUcontext context, CUstream *stream, unsigned flags, int priority)
{
    if (!stream || flags & ~(unsigned)CU_STREAM_NON_BLOCKING)
        return CUDA_ERROR_INVALID_VALUE;
    sim_lock();
    CUstream made = unused_streams, before = all_streams;
    if (made) {
        unused_streams = made->next;
        before = made->made;
    } else if ((made = calloc(1, sizeof(*made))) != NULL) {
        all_streams = made;
    }
    if (made)
        *made = (struct CUstream_st){.state = STREAM_LIVE,
                                     .made = before,
                                     .context = context,
                                     .generation = atomic_load(&context->generation),
                                     .id = next_stream++,
                                     .flags = flags,
                                     .priority = priority > 0    ? 0
                                                 : priority < -5 ? -5
                                                                 : priority};
    sim_unlock();
    if (!made)
        return CUDA_ERROR_OUT_OF_MEMORY;
    *stream = made;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuStreamCreate(CUstream *stream, unsigned flags)
{
    SIM_ENTER_CONTEXT(context);
    return stream_create(context, stream, flags, 0);
}

SIM_API CUresult cuStreamCreateWithPriority(CUstream *stream, unsigned flags, int priority)
{
    SIM_ENTER_CONTEXT(context);
    return stream_create(context, stream, flags, priority);
}

SIM_API CUresult cuStreamDestroy_v2(CUstream stream)
{
    SIM_ENTER();
    if (stream_is_implicit(stream))
        return CUDA_ERROR_INVALID_HANDLE;
    capture_leave(stream);
    sim_lock();
    bool live = stream->state == STREAM_LIVE;
    struct stream_place place = {.context = stream->context, .id = stream->id};
    if (live) {
        stream->state = 0;
        stream->next = unused_streams;
        unused_streams = stream;
    }
    sim_unlock();
    if (live)
        pools_see(&place, UINT64_MAX);
    return live ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}
SIM_TWIN(cuStreamDestroy, cuStreamDestroy_v2);

#define SIM_ENTER_STREAM(stream, context)                                                                              \
    SIM_ENTER();                                                                                                       \
    CUcontext context;                                                                                                 \
    do {                                                                                                               \
        CUresult enter_stream_ = stream_check(stream, &(context));                                                     \
        if (enter_stream_ != CUDA_SUCCESS)                                                                             \
            return enter_stream_;                                                                                      \
        (void)(context);                                                                                               \
    } while (0)

SIM_API CUresult cuStreamQuery(CUstream stream)
{
    SIM_ENTER_STREAM(stream, context);
    return capture_refuse(stream);
}

SIM_API CUresult cuStreamSynchronize(CUstream stream)
{
    SIM_ENTER();
    struct stream_place place;
    CUresult result = stream_find(stream, &place);
    if (result == CUDA_SUCCESS)
        result = capture_refuse(stream);
    if (result == CUDA_SUCCESS)
        result = capture_forbid();
    if (result == CUDA_SUCCESS)
        pools_see(&place, UINT64_MAX);
    return result;
}

SIM_API CUresult cuStreamGetPriority(CUstream stream, int *priority)
{
    SIM_ENTER_STREAM(stream, context);
    if (!priority)
        return CUDA_ERROR_INVALID_VALUE;
    *priority = stream_is_implicit(stream) ? 0 : stream->priority;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuStreamGetFlags(CUstream stream, unsigned *flags)
{
    SIM_ENTER_STREAM(stream, context);
    if (!flags)
        return CUDA_ERROR_INVALID_VALUE;
    *flags = stream_is_implicit(stream) ? 0 : stream->flags;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuStreamGetId(CUstream stream, unsigned long long *id)
{
    SIM_ENTER_STREAM(stream, context);
    if (!id)
        return CUDA_ERROR_INVALID_VALUE;
    *id = stream_id(stream);
    return CUDA_SUCCESS;
}

SIM_API CUresult cuStreamGetCtx(CUstream stream, CUcontext *owner)
{
    SIM_ENTER_STREAM(stream, context);
    if (!owner)
        return CUDA_ERROR_INVALID_VALUE;
    *owner = context;
    return CUDA_SUCCESS;
}

/* Green contexts are not real: a stream has none. */
SIM_API CUresult cuStreamGetCtx_v2(CUstream stream, CUcontext *owner, void **green)
{
    SIM_ENTER_STREAM(stream, context);
    if (!owner || !green)
        return CUDA_ERROR_INVALID_VALUE;
    *owner = context;
    *green = NULL;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuStreamGetDevice(CUstream stream, CUdevice *device)
{
    SIM_ENTER_STREAM(stream, context);
    if (!device)
        return CUDA_ERROR_INVALID_VALUE;
    *device = context->device;
    return CUDA_SUCCESS;
}

/* Managed memory is one for all streams. */
SIM_API CUresult cuStreamAttachMemAsync(CUstream stream, CUdeviceptr address, size_t bytes, unsigned flags)
{
    SIM_ENTER_STREAM(stream, context);
    (void)bytes;
    struct allocation allocation;
    sim_lock();
    bool managed = memory_find(address, &allocation) && allocation.managed;
    sim_unlock();
    return managed && (flags == 1 || flags == 2 || flags == 4) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

SIM_API CUresult cuStreamAddCallback(CUstream stream, void (*callback)(CUstream, CUresult, void *), void *data,
                                     unsigned flags)
{
    SIM_ENTER_STREAM(stream, context);
    if (!callback || flags != 0)
        return CUDA_ERROR_INVALID_VALUE;
    CUresult result = capture_refuse(stream);
    if (result != CUDA_SUCCESS)
        return result;
    callback(stream, CUDA_SUCCESS, data);
    return CUDA_SUCCESS;
}

SIM_API CUresult cuLaunchHostFunc(CUstream stream, void (*function)(void *), void *data)
{
    SIM_ENTER_STREAM(stream, context);
    CUresult result;
    struct graph_work work = {.type = CU_GRAPH_NODE_TYPE_HOST, .host = {.fn = function, .userData = data}};
    if (!function)
        return CUDA_ERROR_INVALID_VALUE;
    if (capture_work(stream, &work, &result))
        return result;
    function(data);
    return CUDA_SUCCESS;
}

static bool event_is_live(CUevent event)
{
    return event && event->state == EVENT_LIVE && atomic_load(&event->context->alive) &&
           atomic_load(&event->context->generation) == event->generation;
}

SIM_API CUresult cuEventCreate(CUevent *event, unsigned flags)
{
    SIM_ENTER_CONTEXT(context);
    if (!event || flags & ~7u || (flags & 4 && !(flags & CU_EVENT_DISABLE_TIMING)))
        return CUDA_ERROR_INVALID_VALUE;
    sim_lock();
    CUevent made = unused_events, before = all_events;
    if (made) {
        unused_events = made->next;
        before = made->made;
    } else if ((made = calloc(1, sizeof(*made))) != NULL) {
        all_events = made;
    }
    if (made)
        *made = (struct CUevent_st){.state = EVENT_LIVE,
                                    .made = before,
                                    .context = context,
                                    .generation = atomic_load(&context->generation),
                                    .flags = flags};
    sim_unlock();
    if (!made)
        return CUDA_ERROR_OUT_OF_MEMORY;
    *event = made;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuEventDestroy_v2(CUevent event)
{
    SIM_ENTER();
    sim_lock();
    bool live = event && event->state == EVENT_LIVE;
    if (live) {
        event->state = 0;
        free(event->captured.nodes);
        event->captured = (struct capture_tail){0};
        event->next = unused_events;
        unused_events = event;
    }
    sim_unlock();
    return live ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}
SIM_TWIN(cuEventDestroy, cuEventDestroy_v2);

static CUresult event_record(CUevent event, CUstream stream)
{
    struct stream_place place;
    CUresult found = stream_find(stream, &place);
    if (found != CUDA_SUCCESS)
        return found;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    sim_lock();
    CUresult result = event_is_live(event) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
    if (result == CUDA_SUCCESS && event->context != place.context)
        result = CUDA_ERROR_INVALID_HANDLE; /* an event and its stream are of one context */
    if (result == CUDA_SUCCESS) {
        event->recorded_ns = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
        event->place = place;
        event->moment = stream_moment();
    }
    sim_unlock();
    if (result == CUDA_SUCCESS)
        (void)capture_record(stream, &event->captured);
    return result;
}

SIM_API CUresult cuEventRecord(CUevent event, CUstream stream)
{
    SIM_ENTER();
    return event_record(event, stream);
}

SIM_API CUresult cuEventRecordWithFlags(CUevent event, CUstream stream, unsigned flags)
{
    SIM_ENTER();
    return flags & ~1u ? CUDA_ERROR_INVALID_VALUE : event_record(event, stream);
}

static CUresult event_check(CUevent event)
{
    sim_lock();
    CUresult result = event_is_live(event) ? atomic_load(&event->context->fault) : CUDA_ERROR_INVALID_HANDLE;
    sim_unlock();
    return result;
}

/* What was recorded in a capture has not happened, and never will. */
static CUresult event_check_happened(CUevent event)
{
    CUresult result = event_check(event);
    return result == CUDA_SUCCESS && event->captured.capture ? CUDA_ERROR_CAPTURED_EVENT : result;
}

SIM_API CUresult cuEventQuery(CUevent event)
{
    SIM_ENTER();
    return event_check_happened(event);
}

SIM_API CUresult cuEventSynchronize(CUevent event)
{
    SIM_ENTER();
    CUresult result = event_check_happened(event);
    if (result == CUDA_SUCCESS)
        result = capture_forbid();
    if (result == CUDA_SUCCESS && event->recorded_ns)
        pools_see(&event->place, event->moment);
    return result;
}

SIM_API CUresult cuStreamWaitEvent(CUstream stream, CUevent event, unsigned flags)
{
    SIM_ENTER_STREAM(stream, context);
    CUresult result = flags & ~1u ? CUDA_ERROR_INVALID_VALUE : event_check(event);
    if (result == CUDA_SUCCESS)
        (void)capture_wait(stream, &event->captured, &result);
    return result;
}

SIM_API CUresult cuEventElapsedTime_v2(float *milliseconds, CUevent start, CUevent end)
{
    SIM_ENTER();
    if (!milliseconds)
        return CUDA_ERROR_INVALID_VALUE;
    sim_lock();
    CUresult result = CUDA_SUCCESS;
    if (!event_is_live(start) || !event_is_live(end) || start->captured.capture || end->captured.capture ||
        !start->recorded_ns || !end->recorded_ns || (start->flags | end->flags) & CU_EVENT_DISABLE_TIMING)
        result = CUDA_ERROR_INVALID_HANDLE;
    else
        *milliseconds = (float)((double)(int64_t)(end->recorded_ns - start->recorded_ns) / 1e6);
    sim_unlock();
    return result;
}
SIM_TWIN(cuEventElapsedTime, cuEventElapsedTime_v2);
