/*
 * Executable graphs: a copy of the work of a graph and its children, in order, which a launch does before it returns. The
 * memory of the graph is backed first, all of it (graph_memory.c).
 *
 * An exec is changed under sim_lock; what it has to do stays as it is from its making to its end. Launches of one exec,
 * and its end, take turns by a mutex of its own, which comes before sim_lock and is held while kernels run. Execs are never
 * given back to the heap but used again, so that a stale handle can be told from a live one.
 */
#include "sim/graph.h"

#include <stdlib.h>

enum { EXEC_LIVE = 0x45584543 };

struct CUgraphExec_st {
    pthread_mutex_t turn;
    uint32_t state;
    CUgraphExec next; /* of the unused */
    CUgraph graph;    /* it was made of, if that still has the serial */
    uint64_t graph_serial, flags;
    struct graph_work *works;
    size_t work_count;
    struct graph_layout **layouts; /* of the graph and its children */
    size_t layout_count;
};

static CUgraphExec unused_execs;

static bool exec_is_live(CUgraphExec exec)
{
    return exec && exec->state == EXEC_LIVE;
}

static CUgraphExec exec_new(void)
{
    CUgraphExec exec = unused_execs;
    if (exec) {
        unused_execs = exec->next;
    } else if ((exec = calloc(1, sizeof(*exec))) != NULL) {
        pthread_mutex_init(&exec->turn, NULL);
    }
    return exec;
}

static struct block *exec_end(CUgraphExec exec)
{
    struct block *dead = NULL;
    for (size_t i = 0; i < exec->layout_count; i++)
        dead = layout_leave(exec->layouts[i], dead);
    free(exec->layouts);
    free(exec->works);
    exec->layouts = NULL;
    exec->works = NULL;
    exec->layout_count = exec->work_count = 0;
    exec->state = 0;
    exec->next = unused_execs;
    unused_execs = exec;
    return dead;
}

static bool exec_add_layout(CUgraphExec exec, struct graph_layout *layout)
{
    struct graph_layout **more = realloc(exec->layouts, (exec->layout_count + 1) * sizeof(*more));
    if (!more)
        return false;
    exec->layouts = more;
    exec->layouts[exec->layout_count++] = layout;
    layout_hold(layout);
    return true;
}

/* Adds the work of a graph, that of a child in the place of its node. */
static bool exec_add_graph(CUgraphExec exec, CUgraph graph)
{
    struct graph_work *more = realloc(exec->works, (exec->work_count + graph->node_count + 1) * sizeof(*more));
    if (!more)
        return false;
    exec->works = more;
    if (graph->layout && !exec_add_layout(exec, graph->layout))
        return false;
    size_t left = graph->node_count;
    for (CUgraphNode node = graph->first; node; node = node->next, left--) {
        if (node->work.type != CU_GRAPH_NODE_TYPE_GRAPH) {
            exec->works[exec->work_count++] = node->work;
            continue;
        }
        if (!exec_add_graph(exec, node->work.child))
            return false;
        more =
            realloc(exec->works, (exec->work_count + left) * sizeof(*more)); /* the child took the room of the rest */
        if (!more)
            return false;
        exec->works = more;
    }
    return true;
}

/* A graph with memory has one exec at a time: another, or one of a child that was moved, is not supported, as measured. */
static CUresult exec_make(CUgraph graph, uint64_t flags, CUgraphExec *exec)
{
    if (!graph_is_live(graph))
        return CUDA_ERROR_INVALID_VALUE;
    if (graph->parent || (graph->has_memory && graph->execs > 0))
        return CUDA_ERROR_NOT_SUPPORTED;
    CUgraphExec made = exec_new();
    if (!made)
        return CUDA_ERROR_OUT_OF_MEMORY;
    if (!exec_add_graph(made, graph)) {
        (void)exec_end(made); /* the graph holds its layouts too */
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    made->state = EXEC_LIVE;
    made->graph = graph;
    made->graph_serial = graph->serial;
    made->flags = flags;
    graph->execs++;
    *exec = made;
    return CUDA_SUCCESS;
}

/* With an error that was ordered for afterwards what was made is ended. */
static CUresult graph_instantiate(CUgraphExec *exec, CUgraph graph, uint64_t flags, CUresult after)
{
    const uint64_t known =
        CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH | CUDA_GRAPH_INSTANTIATE_FLAG_USE_NODE_PRIORITY;
    CUgraphExec made = NULL;
    if (!exec || flags & ~(known | CUDA_GRAPH_INSTANTIATE_FLAG_DEVICE_LAUNCH))
        return CUDA_ERROR_INVALID_VALUE;
    if (flags & CUDA_GRAPH_INSTANTIATE_FLAG_DEVICE_LAUNCH)
        return CUDA_ERROR_NOT_SUPPORTED; /* kernels cannot launch graphs here */
    sim_lock();
    CUresult result = exec_make(graph, flags, &made);
    if (result == CUDA_SUCCESS && after != CUDA_SUCCESS) {
        graph->execs--;
        (void)exec_end(made); /* the graph holds its layouts too */
        result = after;
    }
    sim_unlock();
    if (result == CUDA_SUCCESS)
        *exec = made;
    return result;
}

SIM_API CUresult cuGraphInstantiate(CUgraphExec *exec, CUgraph graph, CUgraphNode *error_node, char *log,
                                    size_t log_bytes)
{
    SIM_ENTER_MAKING(after);
    SIM_CONTEXT(context);
    (void)context;
    CUresult result = graph_instantiate(exec, graph, 0, after);
    if (error_node)
        *error_node = NULL;
    if (log && log_bytes > 0)
        *log = '\0';
    return result;
}

SIM_API CUresult cuGraphInstantiate_v2(CUgraphExec *exec, CUgraph graph, CUgraphNode *error_node, char *log,
                                       size_t log_bytes)
{
    SIM_ENTER_MAKING(after);
    SIM_CONTEXT(context);
    (void)context;
    CUresult result = graph_instantiate(exec, graph, 0, after);
    if (error_node)
        *error_node = NULL;
    if (log && log_bytes > 0)
        *log = '\0';
    return result;
}

SIM_API CUresult cuGraphInstantiateWithFlags(CUgraphExec *exec, CUgraph graph, unsigned long long flags)
{
    SIM_ENTER_MAKING(after);
    SIM_CONTEXT(context);
    (void)context;
    return graph_instantiate(exec, graph, flags, after);
}

/* Backs the memory of an exec and keeps it from others until layouts_leave. */
static CUresult layouts_enter(CUgraphExec exec)
{
    CUresult result = CUDA_SUCCESS;
    for (size_t i = 0; i < exec->layout_count; i++)
        exec->layouts[i]->busy++;
    for (size_t i = 0; result == CUDA_SUCCESS && i < exec->layout_count; i++)
        if (!layout_map(exec->layouts[i]))
            result = CUDA_ERROR_OUT_OF_MEMORY;
    return result;
}

static void layouts_leave(CUgraphExec exec)
{
    for (size_t i = 0; i < exec->layout_count; i++)
        exec->layouts[i]->busy--;
}

/* Takes the exec's turn. False: there is none of that handle. */
static bool exec_enter(CUgraphExec exec)
{
    sim_lock();
    bool live = exec_is_live(exec);
    sim_unlock();
    if (!live)
        return false;
    pthread_mutex_lock(&exec->turn);
    sim_lock();
    live = exec_is_live(exec); /* it may have ended meanwhile */
    sim_unlock();
    if (!live)
        pthread_mutex_unlock(&exec->turn);
    return live;
}

/* With an error that was ordered for afterwards, what the reserve has grown by stays, as where the card has no more. */
static CUresult exec_upload(CUgraphExec exec, CUstream stream, CUresult after)
{
    CUcontext context;
    CUresult result = stream_check(stream, &context);
    if (result == CUDA_SUCCESS)
        result = capture_refuse(stream);
    if (result != CUDA_SUCCESS)
        return result;
    if (!exec_enter(exec))
        return CUDA_ERROR_INVALID_VALUE;
    sim_lock();
    result = layouts_enter(exec);
    layouts_leave(exec);
    sim_unlock();
    pthread_mutex_unlock(&exec->turn);
    return result == CUDA_SUCCESS ? after : result;
}

SIM_API CUresult cuGraphInstantiateWithParams(CUgraphExec *exec, CUgraph graph,
                                              CUDA_GRAPH_INSTANTIATE_PARAMS *parameters)
{
    SIM_ENTER_MAKING(after);
    SIM_CONTEXT(context);
    (void)context;
    const uint64_t upload = CUDA_GRAPH_INSTANTIATE_FLAG_UPLOAD;
    CUgraphExec made = NULL;
    if (!exec || !parameters)
        return CUDA_ERROR_INVALID_VALUE;
    CUresult result = graph_instantiate(&made, graph, parameters->flags & ~upload, after);
    if (result == CUDA_SUCCESS && parameters->flags & upload) {
        result = exec_upload(made, parameters->hUploadStream, CUDA_SUCCESS);
        if (result != CUDA_SUCCESS) {
            sim_lock();
            graph->execs--;
            struct block *dead = exec_end(made);
            sim_unlock();
            memory_dispose(dead);
        }
    }
    parameters->hErrNode_out = NULL;
    parameters->result_out = result == CUDA_SUCCESS ? CUDA_GRAPH_INSTANTIATE_SUCCESS : CUDA_GRAPH_INSTANTIATE_ERROR;
    if (result == CUDA_SUCCESS)
        *exec = made;
    return result;
}

SIM_API CUresult cuGraphUpload(CUgraphExec exec, CUstream stream)
{
    SIM_ENTER_MAKING(after);
    return exec_upload(exec, stream, after);
}

static bool exec_has_layout(CUgraphExec exec, const struct graph_layout *layout)
{
    for (size_t i = 0; i < exec->layout_count; i++)
        if (exec->layouts[i] == layout)
            return true;
    return false;
}

/* What an exec frees of other graphs must be alive, and its own must not, unless it frees that by itself. */
static CUresult launch_check(CUgraphExec exec)
{
    for (size_t i = 0; i < exec->work_count; i++) {
        if (exec->works[i].type != CU_GRAPH_NODE_TYPE_MEM_FREE)
            continue;
        const struct graph_allocation *freed = allocation_of_graph(exec->works[i].freed);
        if (!freed || (!freed->live && !exec_has_layout(exec, freed->layout)))
            return CUDA_ERROR_INVALID_VALUE;
    }
    bool frees = exec->flags & CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH;
    for (size_t i = 0; i < exec->layout_count; i++)
        for (struct graph_allocation *own = exec->layouts[i]->allocations; own; own = own->next) {
            if (own->live && !frees)
                return CUDA_ERROR_INVALID_VALUE;
            if (own->live)
                allocation_over(own);
        }
    return CUDA_SUCCESS;
}

static CUresult work_run(const struct graph_work *work)
{
    switch (work->type) {
    case CU_GRAPH_NODE_TYPE_KERNEL:
        return kernel_run(&work->kernel);
    case CU_GRAPH_NODE_TYPE_MEMCPY:
        return copy_run(&work->copy);
    case CU_GRAPH_NODE_TYPE_MEMSET:
        return memset_run(&work->set);
    case CU_GRAPH_NODE_TYPE_HOST:
        work->host.fn(work->host.userData);
        return CUDA_SUCCESS;
    case CU_GRAPH_NODE_TYPE_MEM_ALLOC:
        sim_lock();
        allocation_begin(work->allocation);
        sim_unlock();
        return CUDA_SUCCESS;
    case CU_GRAPH_NODE_TYPE_MEM_FREE:
        return memory_free(work->freed);
    default:
        return CUDA_SUCCESS;
    }
}

/* The same of a launch, which then runs nothing. */
static CUresult exec_launch(CUgraphExec exec, CUstream stream, CUresult after)
{
    CUcontext context;
    CUresult result = stream_check(stream, &context), done = CUDA_SUCCESS;
    if (result == CUDA_SUCCESS)
        result = capture_refuse(stream);
    if (result != CUDA_SUCCESS)
        return result;
    if (!exec_enter(exec))
        return CUDA_ERROR_INVALID_VALUE;
    sim_lock();
    result = launch_check(exec);
    if (result == CUDA_SUCCESS) {
        result = layouts_enter(exec);
        result = result == CUDA_SUCCESS ? after : result;
        if (result != CUDA_SUCCESS)
            layouts_leave(exec);
    }
    sim_unlock();
    if (result == CUDA_SUCCESS) {
        for (size_t i = 0; done == CUDA_SUCCESS && i < exec->work_count; i++)
            done = work_run(&exec->works[i]);
        if (done != CUDA_SUCCESS) /* the launch succeeds: whoever waits for it hears of it */
            atomic_store(&context->fault, CUDA_ERROR_ILLEGAL_ADDRESS);
        sim_lock();
        layouts_leave(exec);
        sim_unlock();
    }
    pthread_mutex_unlock(&exec->turn);
    return result;
}

SIM_API CUresult cuGraphLaunch(CUgraphExec exec, CUstream stream)
{
    SIM_ENTER_MAKING(after);
    return exec_launch(exec, stream, after);
}

SIM_API CUresult cuGraphExecDestroy(CUgraphExec exec)
{
    SIM_ENTER();
    if (!exec_enter(exec))
        return CUDA_ERROR_INVALID_VALUE;
    sim_lock();
    if (exec->graph->serial == exec->graph_serial && graph_is_live(exec->graph))
        exec->graph->execs--;
    struct block *dead = exec_end(exec);
    sim_unlock();
    pthread_mutex_unlock(&exec->turn);
    memory_dispose(dead);
    return CUDA_SUCCESS;
}

SIM_API CUresult cuGraphExecGetFlags(CUgraphExec exec, uint64_t *flags)
{
    SIM_ENTER();
    sim_lock();
    bool live = flags && exec_is_live(exec);
    if (live)
        *flags = exec->flags;
    sim_unlock();
    return live ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}
