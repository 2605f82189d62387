/*
 * Capture of streams into graphs. While a stream captures, what is asked of it becomes nodes that depend on its tail; other
 * streams join by waiting for an event that was recorded in it, and must have joined again at the end. What may not be
 * called meanwhile is as measured (cuMemAlloc, cuMemFree, cuMemAllocAsync and waits elsewhere, where the capture and the
 * calling thread are not relaxed), and ends the capture as the driver does: it is invalidated until its end is asked for.
 *
 * Under sim_lock. A count of captures lets everybody else pass without looking.
 */
#include "sim/graph.h"

#include <stdlib.h>
#include <string.h>

struct capture {
    struct capture *next;
    uint64_t id;
    CUgraph graph;
    bool borrowed; /* the caller's graph, which stays */
    bool invalid;
    CUcontext context;
    struct capture_tail *origin;
    const void *thread;
    int mode;
};

static struct capture *captures;
static uint64_t last_id;
static atomic_uint capture_count;
static _Thread_local int thread_mode = CU_STREAM_CAPTURE_MODE_GLOBAL;

static bool captures_none(void)
{
    return atomic_load_explicit(&capture_count, memory_order_acquire) == 0;
}

/* The address of a thread's own variable tells it from all that live. */
static const void *thread_self(void)
{
    return &thread_mode;
}

static struct capture *capture_find(uint64_t id)
{
    struct capture *capture = captures;
    while (capture && capture->id != id)
        capture = capture->next;
    return capture;
}

/* What a stream captures into. NULL: nothing. */
static struct capture *capture_of(CUstream stream, struct capture_tail **tail)
{
    *tail = stream_tail(stream);
    return *tail && (*tail)->capture ? capture_find((*tail)->capture) : NULL;
}

/* The tail becomes these nodes. False: no memory. */
static bool tail_set(struct capture_tail *tail, uint64_t id, const CUgraphNode *nodes, size_t count)
{
    CUgraphNode *kept = calloc(count + 1, sizeof(CUgraphNode));
    if (!kept)
        return false;
    if (count > 0)
        memcpy(kept, nodes, count * sizeof(CUgraphNode));
    free(tail->nodes);
    *tail = (struct capture_tail){.capture = id, .nodes = kept, .count = count};
    return true;
}

static void tail_clear(struct capture_tail *tail)
{
    free(tail->nodes);
    *tail = (struct capture_tail){0};
}

/* Adds nodes to a tail, each once. False: no memory. */
static bool tail_join(struct capture_tail *tail, const CUgraphNode *nodes, size_t count)
{
    CUgraphNode *kept = realloc(tail->nodes, (tail->count + count + 1) * sizeof(CUgraphNode));
    if (!kept)
        return false;
    tail->nodes = kept;
    for (size_t i = 0; i < count; i++) {
        size_t at = 0;
        while (at < tail->count && kept[at] != nodes[i])
            at++;
        if (at == tail->count)
            kept[tail->count++] = nodes[i];
    }
    return true;
}

static CUresult capture_invalidate(struct capture *capture)
{
    capture->invalid = true;
    return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
}

/* A node was added for what the stream was asked. */
static CUresult capture_advance(struct capture *capture, struct capture_tail *tail, CUresult result, CUgraphNode node)
{
    if (result != CUDA_SUCCESS)
        return result;
    return tail_set(tail, capture->id, &node, 1) ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

bool capture_work(CUstream stream, const struct graph_work *work, CUresult *result)
{
    struct capture_tail *tail;
    CUgraphNode node = NULL;
    if (captures_none())
        return false;
    sim_lock();
    struct capture *capture = capture_of(stream, &tail);
    if (capture && capture->invalid) {
        *result = CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    } else if (capture) {
        *result = graph_add(capture->graph, tail->nodes, tail->count, work, &node);
        *result = capture_advance(capture, tail, *result, node);
    }
    sim_unlock();
    return capture;
}

bool capture_allocate(CUstream stream, CUDA_MEM_ALLOC_NODE_PARAMS *parameters, CUresult *result)
{
    struct capture_tail *tail;
    CUgraphNode node = NULL;
    if (captures_none())
        return false;
    sim_lock();
    struct capture *capture = capture_of(stream, &tail);
    if (capture && capture->invalid) {
        *result = CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    } else if (capture) {
        *result = graph_add_allocation(capture->graph, tail->nodes, tail->count, parameters, &node);
        *result = capture_advance(capture, tail, *result, node);
    }
    sim_unlock();
    return capture;
}

bool capture_free(CUstream stream, uint64_t address, CUresult *result)
{
    struct capture_tail *tail;
    CUgraphNode node = NULL;
    if (captures_none())
        return false;
    sim_lock();
    struct capture *capture = capture_of(stream, &tail);
    if (capture && capture->invalid) {
        *result = CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    } else if (capture) {
        *result = graph_add_free(capture->graph, tail->nodes, tail->count, address, &node);
        *result = capture_advance(capture, tail, *result, node);
    }
    sim_unlock();
    return capture;
}

bool capture_is_on(CUstream stream)
{
    struct capture_tail *tail;
    if (captures_none())
        return false;
    sim_lock();
    bool on = capture_of(stream, &tail);
    sim_unlock();
    return on;
}

CUresult capture_refuse(CUstream stream)
{
    struct capture_tail *tail;
    if (captures_none())
        return CUDA_SUCCESS;
    sim_lock();
    struct capture *capture = capture_of(stream, &tail);
    CUresult result = capture ? capture_invalidate(capture) : CUDA_SUCCESS;
    sim_unlock();
    return result;
}

CUresult capture_refuse_context(CUcontext context)
{
    CUresult result = CUDA_SUCCESS;
    if (captures_none())
        return CUDA_SUCCESS;
    sim_lock();
    for (struct capture *capture = captures; capture; capture = capture->next)
        if (capture->context == context)
            result = capture_invalidate(capture);
    sim_unlock();
    return result;
}

CUresult capture_forbid(void)
{
    CUresult result = CUDA_SUCCESS;
    if (captures_none() || thread_mode == CU_STREAM_CAPTURE_MODE_RELAXED)
        return CUDA_SUCCESS;
    sim_lock();
    for (struct capture *capture = captures; capture; capture = capture->next) {
        bool own = capture->thread == thread_self() && capture->mode != CU_STREAM_CAPTURE_MODE_RELAXED;
        bool global = capture->mode == CU_STREAM_CAPTURE_MODE_GLOBAL && thread_mode == CU_STREAM_CAPTURE_MODE_GLOBAL;
        if (own || global)
            result = capture_invalidate(capture);
    }
    sim_unlock();
    return result;
}

static void tail_leave(struct capture_tail *tail, void *argument)
{
    if (tail->capture == ((struct capture *)argument)->id)
        tail_clear(tail);
}

/* Takes a capture from the list and its streams; its graph is the caller's affair. */
static void capture_remove(struct capture *capture)
{
    struct capture **link = &captures;
    while (*link != capture)
        link = &(*link)->next;
    *link = capture->next;
    tail_clear(capture->origin);
    streams_visit(tail_leave, capture);
    atomic_fetch_sub(&capture_count, 1);
}

static struct block *capture_drop(struct capture *capture, struct block *dead)
{
    capture_remove(capture);
    if (!capture->borrowed)
        dead = graph_end(capture->graph, dead);
    free(capture);
    return dead;
}

void capture_end_context(CUcontext context)
{
    struct block *dead = NULL;
    if (captures_none())
        return;
    sim_lock();
    for (struct capture *capture = captures, *next; capture; capture = next) {
        next = capture->next;
        if (capture->context == context)
            dead = capture_drop(capture, dead);
    }
    sim_unlock();
    memory_dispose(dead);
}

void capture_leave(CUstream stream)
{
    struct block *dead = NULL;
    struct capture_tail *tail;
    if (captures_none())
        return;
    sim_lock();
    struct capture *capture = capture_of(stream, &tail);
    if (capture && capture->origin == tail) {
        dead = capture_drop(capture, dead);
    } else if (capture) {
        capture->invalid = true;
        tail_clear(tail);
    }
    sim_unlock();
    memory_dispose(dead);
}

bool capture_record(CUstream stream, struct capture_tail *event)
{
    struct capture_tail *tail;
    sim_lock();
    tail_clear(event); /* of an earlier capture */
    struct capture *capture = captures_none() ? NULL : capture_of(stream, &tail);
    if (capture && !tail_set(event, capture->id, tail->nodes, tail->count))
        capture->invalid = true;
    sim_unlock();
    return capture;
}

/* Waiting joins the capture the event was recorded in; a captured stream cannot wait for what is not captured. */
bool capture_wait(CUstream stream, const struct capture_tail *event, CUresult *result)
{
    struct capture_tail *tail;
    if (captures_none() && event->capture == 0)
        return false;
    sim_lock();
    struct capture *here = capture_of(stream, &tail), *there = event->capture ? capture_find(event->capture) : NULL;
    bool matters = here || event->capture;
    *result = CUDA_SUCCESS;
    if (event->capture && !there) {
        *result = CUDA_ERROR_CAPTURED_EVENT; /* the capture is over */
    } else if (matters && !there) {
        here->invalid = true;
        *result = CUDA_ERROR_STREAM_CAPTURE_ISOLATION;
    } else if (there && here && here != there) {
        here->invalid = there->invalid = true;
        *result = CUDA_ERROR_STREAM_CAPTURE_MERGE;
    } else if (there && (there->invalid || !tail)) {
        *result = tail ? CUDA_ERROR_STREAM_CAPTURE_INVALIDATED : capture_invalidate(there);
    } else if (there) {
        bool joined =
            here ? tail_join(tail, event->nodes, event->count) : tail_set(tail, there->id, event->nodes, event->count);
        *result = joined ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
    }
    sim_unlock();
    return matters;
}

/* Begins a capture; into a graph of the caller's, if one is given. Under sim_lock. */
static CUresult capture_start(CUstream stream, CUcontext context, CUgraph graph, const CUgraphNode *nodes, size_t count,
                              int mode)
{
    struct capture_tail *tail = stream_tail(stream);
    if (!tail)
        return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    if (tail->capture)
        return CUDA_ERROR_ILLEGAL_STATE;
    struct capture *capture = calloc(1, sizeof(*capture));
    CUgraph into = graph ? graph : graph_new();
    if (!capture || !into || !tail_set(tail, last_id + 1, nodes, count)) {
        if (into && !graph)
            (void)graph_end(into, NULL); /* which is empty */
        free(capture);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    *capture = (struct capture){.next = captures,
                                .id = ++last_id,
                                .graph = into,
                                .borrowed = graph != NULL,
                                .context = context,
                                .origin = tail,
                                .thread = thread_self(),
                                .mode = mode};
    captures = capture;
    atomic_fetch_add(&capture_count, 1);
    return CUDA_SUCCESS;
}

static CUresult capture_begin(CUstream stream, int mode)
{
    CUcontext context;
    CUresult result = stream_check(stream, &context);
    if (result != CUDA_SUCCESS)
        return result;
    if (mode < CU_STREAM_CAPTURE_MODE_GLOBAL || mode > CU_STREAM_CAPTURE_MODE_RELAXED)
        return CUDA_ERROR_INVALID_VALUE;
    sim_lock();
    result = capture_start(stream, context, NULL, NULL, 0, mode);
    sim_unlock();
    return result;
}

SIM_API CUresult cuStreamBeginCapture_v2(CUstream stream, int mode)
{
    SIM_ENTER();
    return capture_begin(stream, mode);
}

SIM_API CUresult cuStreamBeginCapture(CUstream stream)
{
    SIM_ENTER();
    return capture_begin(stream, CU_STREAM_CAPTURE_MODE_GLOBAL);
}

SIM_API CUresult cuStreamBeginCaptureToGraph(CUstream stream, CUgraph graph, const CUgraphNode *nodes,
                                             const CUgraphEdgeData *edges, size_t count, int mode)
{
    SIM_ENTER();
    CUcontext context;
    CUresult result = stream_check(stream, &context);
    if (result != CUDA_SUCCESS)
        return result;
    if (edges)
        return CUDA_ERROR_NOT_SUPPORTED;
    if (mode < CU_STREAM_CAPTURE_MODE_GLOBAL || mode > CU_STREAM_CAPTURE_MODE_RELAXED || (count > 0 && !nodes))
        return CUDA_ERROR_INVALID_VALUE;
    sim_lock();
    result = graph_is_live(graph) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
    for (size_t i = 0; result == CUDA_SUCCESS && i < count; i++)
        if (!nodes[i] || nodes[i]->graph != graph)
            result = CUDA_ERROR_INVALID_VALUE;
    if (result == CUDA_SUCCESS)
        result = capture_start(stream, context, graph, nodes, count, mode);
    sim_unlock();
    return result;
}

/* Whether a stream has joined and its tail is not before that of the origin. */
struct join_check {
    const struct capture *capture;
    uint64_t mark;
    bool unjoined;
};

static void tail_check(struct capture_tail *tail, void *argument)
{
    struct join_check *check = argument;
    for (size_t i = 0; tail->capture == check->capture->id && i < tail->count; i++)
        if (tail->nodes[i]->mark != check->mark)
            check->unjoined = true;
}

static CUresult capture_finish(struct capture *capture, CUgraph *graph, struct block **dead)
{
    struct join_check check = {.capture = capture};
    CUresult result = capture->invalid ? CUDA_ERROR_STREAM_CAPTURE_INVALIDATED : CUDA_SUCCESS;
    if (result == CUDA_SUCCESS) {
        check.mark = graph_mark(capture->graph, capture->origin->nodes, capture->origin->count);
        streams_visit(tail_check, &check);
        if (check.unjoined)
            result = CUDA_ERROR_STREAM_CAPTURE_UNJOINED;
    }
    *graph = NULL;
    if (result != CUDA_SUCCESS) {
        *dead = capture_drop(capture, NULL);
        return result;
    }
    *graph = capture->graph;
    capture_remove(capture);
    free(capture);
    return CUDA_SUCCESS;
}

/* Ends in the stream where it began, and in the thread, unless it is relaxed. */
SIM_API CUresult cuStreamEndCapture(CUstream stream, CUgraph *graph)
{
    SIM_ENTER();
    CUcontext context;
    CUgraph made = NULL;
    struct block *dead = NULL;
    struct capture_tail *tail;
    CUresult result = stream_check(stream, &context);
    if (result != CUDA_SUCCESS)
        return result;
    if (!graph)
        return CUDA_ERROR_INVALID_VALUE;
    sim_lock();
    struct capture *capture = capture_of(stream, &tail);
    bool ends = false;
    if (!capture)
        result = CUDA_ERROR_ILLEGAL_STATE;
    else if (capture->origin != tail)
        result = CUDA_ERROR_STREAM_CAPTURE_UNMATCHED;
    else if (capture->mode != CU_STREAM_CAPTURE_MODE_RELAXED && capture->thread != thread_self())
        result = CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD;
    else
        ends = true;
    if (ends)
        result = capture_finish(capture, &made, &dead);
    sim_unlock();
    memory_dispose(dead);
    if (ends)
        *graph = made;
    return result;
}

struct capture_answer {
    int status;
    uint64_t id;
    CUgraph graph;
    const CUgraphNode *nodes;
    size_t count;
};

static CUresult capture_look(CUstream stream, struct capture_answer *answer)
{
    CUcontext context;
    struct capture_tail *tail;
    CUresult result = stream_check(stream, &context);
    if (result != CUDA_SUCCESS)
        return result;
    sim_lock();
    const struct capture *capture = capture_of(stream, &tail);
    *answer = (struct capture_answer){.status = CU_STREAM_CAPTURE_STATUS_NONE};
    if (capture && capture->invalid)
        answer->status = CU_STREAM_CAPTURE_STATUS_INVALIDATED;
    else if (capture)
        *answer = (struct capture_answer){.status = CU_STREAM_CAPTURE_STATUS_ACTIVE,
                                          .id = capture->id,
                                          .graph = capture->graph,
                                          .nodes = tail->nodes,
                                          .count = tail->count};
    sim_unlock();
    return CUDA_SUCCESS;
}

SIM_API CUresult cuStreamIsCapturing(CUstream stream, int *status)
{
    SIM_ENTER();
    struct capture_answer answer;
    CUresult result = status ? capture_look(stream, &answer) : CUDA_ERROR_INVALID_VALUE;
    if (result == CUDA_SUCCESS)
        *status = answer.status;
    return result;
}

static CUresult capture_tell(CUstream stream, int *status, uint64_t *id, CUgraph *graph, const CUgraphNode **nodes,
                             const CUgraphEdgeData **edges, size_t *count)
{
    struct capture_answer answer;
    CUresult result = status ? capture_look(stream, &answer) : CUDA_ERROR_INVALID_VALUE;
    if (result != CUDA_SUCCESS)
        return result;
    *status = answer.status;
    if (answer.status != CU_STREAM_CAPTURE_STATUS_ACTIVE)
        return CUDA_SUCCESS;
    if (id)
        *id = answer.id;
    if (graph)
        *graph = answer.graph;
    if (nodes)
        *nodes = answer.nodes;
    if (edges)
        *edges = NULL;
    if (count)
        *count = answer.count;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuStreamGetCaptureInfo(CUstream stream, int *status, uint64_t *id)
{
    SIM_ENTER();
    return capture_tell(stream, status, id, NULL, NULL, NULL, NULL);
}

SIM_API CUresult cuStreamGetCaptureInfo_v2(CUstream stream, int *status, uint64_t *id, CUgraph *graph,
                                           const CUgraphNode **nodes, size_t *count)
{
    SIM_ENTER();
    return capture_tell(stream, status, id, graph, nodes, NULL, count);
}

SIM_API CUresult cuStreamGetCaptureInfo_v3(CUstream stream, int *status, uint64_t *id, CUgraph *graph,
                                           const CUgraphNode **nodes, const CUgraphEdgeData **edges, size_t *count)
{
    SIM_ENTER();
    return capture_tell(stream, status, id, graph, nodes, edges, count);
}

SIM_API CUresult cuThreadExchangeStreamCaptureMode(int *mode)
{
    SIM_ENTER();
    if (!mode || *mode < CU_STREAM_CAPTURE_MODE_GLOBAL || *mode > CU_STREAM_CAPTURE_MODE_RELAXED)
        return CUDA_ERROR_INVALID_VALUE;
    int before = thread_mode;
    thread_mode = *mode;
    *mode = before;
    return CUDA_SUCCESS;
}
