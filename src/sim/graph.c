/*
 * Graphs and their nodes. A node depends on nodes that were there before it, so the order of creation is one in which they
 * can run. The rules for nodes that allocate and free are the driver's, as measured where cuda.h leaves them open: such
 * graphs cannot be cloned (801), and be children only by moving them, after which no memory nodes can be added to them.
 *
 * Nodes and edges cannot be taken away, changed or added later; those calls are not supported. All under sim_lock.
 */
#include "sim/graph.h"

#include <stdlib.h>
#include <string.h>

enum { GRAPH_LIVE = 0x47525048, NODE_LIVE = 0x4E4F4445 };

static CUgraph unused_graphs;
static CUgraphNode unused_nodes;
static uint64_t last_serial, last_mark;

bool graph_is_live(CUgraph graph)
{
    return graph && graph->state == GRAPH_LIVE;
}

static bool node_is_live(CUgraphNode node)
{
    return node && node->state == NODE_LIVE;
}

CUgraph graph_new(void)
{
    CUgraph graph = unused_graphs;
    if (graph)
        unused_graphs = graph->next;
    else
        graph = calloc(1, sizeof(*graph));
    if (graph)
        *graph = (struct CUgraph_st){.state = GRAPH_LIVE, .serial = ++last_serial};
    return graph;
}

struct block *graph_end(CUgraph graph, struct block *dead)
{
    CUgraphNode next;
    for (CUgraphNode node = graph->first; node; node = next) {
        next = node->next;
        if (node->work.type == CU_GRAPH_NODE_TYPE_GRAPH)
            dead = graph_end(node->work.child, dead);
        free(node->dependencies);
        node->state = 0;
        node->next = unused_nodes;
        unused_nodes = node;
    }
    if (graph->layout)
        dead = layout_leave(graph->layout, dead);
    graph->state = 0;
    graph->next = unused_graphs;
    unused_graphs = graph;
    return dead;
}

uint64_t graph_mark(CUgraph graph, const CUgraphNode *nodes, size_t count)
{
    CUgraphNode *stack = calloc(graph->node_count + 1, sizeof(CUgraphNode));
    size_t depth = 0;
    uint64_t mark = ++last_mark;
    if (!stack)
        return 0;
    for (size_t i = 0; i < count; i++) {
        if (nodes[i]->mark == mark)
            continue;
        nodes[i]->mark = mark;
        stack[depth++] = nodes[i];
    }
    while (depth > 0) {
        const struct CUgraphNode_st *node = stack[--depth];
        for (size_t i = 0; i < node->dependency_count; i++) {
            CUgraphNode before = node->dependencies[i];
            if (before->mark == mark)
                continue;
            before->mark = mark;
            stack[depth++] = before;
        }
    }
    free(stack);
    return mark;
}

/* Dependencies are nodes of the same graph, none of them twice. */
static bool dependencies_are_valid(CUgraph graph, const CUgraphNode *dependencies, size_t count)
{
    if (!graph_is_live(graph) || (count > 0 && !dependencies))
        return false;
    uint64_t mark = ++last_mark;
    for (size_t i = 0; i < count; i++) {
        if (!node_is_live(dependencies[i]) || dependencies[i]->graph != graph || dependencies[i]->mark == mark)
            return false;
        dependencies[i]->mark = mark;
    }
    return true;
}

CUresult graph_add(CUgraph graph, const CUgraphNode *dependencies, size_t count, const struct graph_work *work,
                   CUgraphNode *node)
{
    if (!dependencies_are_valid(graph, dependencies, count))
        return CUDA_ERROR_INVALID_VALUE;
    CUgraphNode *kept = calloc(count + 1, sizeof(CUgraphNode));
    CUgraphNode made = unused_nodes;
    if (made)
        unused_nodes = made->next;
    else
        made = calloc(1, sizeof(*made));
    if (!kept || !made) {
        free(kept);
        if (made) {
            made->next = unused_nodes;
            unused_nodes = made;
        }
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    if (count > 0)
        memcpy(kept, dependencies, count * sizeof(CUgraphNode));
    *made = (struct CUgraphNode_st){
        .state = NODE_LIVE, .graph = graph, .work = *work, .dependencies = kept, .dependency_count = count};
    if (graph->last)
        graph->last->next = made;
    else
        graph->first = made;
    graph->last = made;
    graph->node_count++;
    *node = made;
    return CUDA_SUCCESS;
}

static void memory_note(CUgraph graph)
{
    for (; graph; graph = graph->parent ? graph->parent->graph : NULL)
        graph->has_memory = true;
}

CUresult graph_add_allocation(CUgraph graph, const CUgraphNode *dependencies, size_t count,
                              CUDA_MEM_ALLOC_NODE_PARAMS *parameters, CUgraphNode *node)
{
    const CUmemPoolProps *properties = &parameters->poolProps;
    if (parameters->bytesize == 0 || !dependencies_are_valid(graph, dependencies, count))
        return CUDA_ERROR_INVALID_VALUE;
    if (graph->parent || properties->location.type != CU_MEM_LOCATION_TYPE_DEVICE ||
        properties->allocType != CU_MEM_ALLOCATION_TYPE_PINNED || properties->handleTypes != CU_MEM_HANDLE_TYPE_NONE)
        return CUDA_ERROR_NOT_SUPPORTED;
    if (device_check(properties->location.id) != CUDA_SUCCESS)
        return CUDA_ERROR_INVALID_VALUE;
    if (graph->layout && graph->layout->device != sim_process.physical[properties->location.id])
        return CUDA_ERROR_NOT_SUPPORTED; /* a graph with memory of several devices is not real */
    if (parameters->bytesize > 2 * sim_process.machine.shared->memory_bytes)
        return CUDA_ERROR_OUT_OF_MEMORY;
    uint64_t mark = graph_mark(graph, dependencies, count);
    if (!graph->layout)
        graph->layout = layout_new(properties->location.id);
    struct graph_allocation *allocation = graph->layout ? layout_place(graph->layout, parameters, mark) : NULL;
    if (!allocation)
        return CUDA_ERROR_OUT_OF_MEMORY;
    struct graph_work work = {.type = CU_GRAPH_NODE_TYPE_MEM_ALLOC, .allocation = allocation};
    CUresult result = graph_add(graph, dependencies, count, &work, node);
    if (result != CUDA_SUCCESS)
        return result; /* the host is out of memory: the address goes with the graph */
    memory_note(graph);
    parameters->dptr = allocation->parameters.dptr;
    return CUDA_SUCCESS;
}

/* Whether a graph has a node that frees the address, which is another graph's. */
static bool graph_frees(CUgraph graph, uint64_t address)
{
    for (CUgraphNode node = graph->first; node; node = node->next)
        if (node->work.type == CU_GRAPH_NODE_TYPE_MEM_FREE && node->work.freed == address)
            return true;
    return false;
}

CUresult graph_add_free(CUgraph graph, const CUgraphNode *dependencies, size_t count, uint64_t address,
                        CUgraphNode *node)
{
    struct graph_allocation *allocation = allocation_of_graph(address);
    if (!dependencies_are_valid(graph, dependencies, count) || !allocation || allocation->free_node)
        return CUDA_ERROR_INVALID_VALUE;
    bool own = allocation->layout == graph->layout;
    if (own ? allocation->freed_elsewhere : graph_frees(graph, address))
        return CUDA_ERROR_INVALID_VALUE;
    if (graph->parent)
        return CUDA_ERROR_NOT_SUPPORTED;
    struct graph_work work = {.type = CU_GRAPH_NODE_TYPE_MEM_FREE, .freed = address};
    CUresult result = graph_add(graph, dependencies, count, &work, node);
    if (result != CUDA_SUCCESS)
        return result;
    memory_note(graph);
    if (own)
        allocation->free_node = *node;
    else
        allocation->freed_elsewhere = true;
    return CUDA_SUCCESS;
}

/* Copies a graph without memory nodes. */
static CUresult graph_copy(CUgraph from, CUgraph *copy)
{
    CUresult result = CUDA_SUCCESS;
    CUgraph to = graph_new();
    if (!to)
        return CUDA_ERROR_OUT_OF_MEMORY;
    for (CUgraphNode node = from->first; result == CUDA_SUCCESS && node; node = node->next) {
        struct graph_work work = node->work;
        if (work.type == CU_GRAPH_NODE_TYPE_GRAPH)
            result = graph_copy(node->work.child, &work.child);
        if (result != CUDA_SUCCESS)
            break;
        result = graph_add(to, NULL, 0, &work, &node->twin);
        if (result != CUDA_SUCCESS)
            break;
        CUgraphNode twin = node->twin, *kept = calloc(node->dependency_count + 1, sizeof(CUgraphNode));
        if (work.type == CU_GRAPH_NODE_TYPE_GRAPH)
            work.child->parent = twin;
        if (!kept) {
            result = CUDA_ERROR_OUT_OF_MEMORY;
            break;
        }
        for (size_t i = 0; i < node->dependency_count; i++)
            kept[i] = node->dependencies[i]->twin;
        free(twin->dependencies);
        twin->dependencies = kept;
        twin->dependency_count = node->dependency_count;
    }
    if (result == CUDA_SUCCESS)
        *copy = to;
    else
        (void)graph_end(to, NULL); /* which has no memory */
    return result;
}

static CUresult graph_add_child(CUgraph graph, const CUgraphNode *dependencies, size_t count, CUgraph child, bool move,
                                CUgraphNode *node)
{
    CUgraph owned = child;
    if (!dependencies_are_valid(graph, dependencies, count) || !graph_is_live(child) || child == graph)
        return CUDA_ERROR_INVALID_VALUE;
    if (move ? child->parent || child->execs > 0 : child->has_memory)
        return CUDA_ERROR_NOT_SUPPORTED;
    CUresult result = move ? CUDA_SUCCESS : graph_copy(child, &owned);
    if (result != CUDA_SUCCESS)
        return result;
    struct graph_work work = {.type = CU_GRAPH_NODE_TYPE_GRAPH, .child = owned};
    result = graph_add(graph, dependencies, count, &work, node);
    if (result != CUDA_SUCCESS) {
        if (!move)
            (void)graph_end(owned, NULL);
        return result;
    }
    owned->parent = *node;
    if (owned->has_memory)
        memory_note(graph);
    return CUDA_SUCCESS;
}

SIM_API CUresult cuGraphCreate(CUgraph *graph, unsigned flags)
{
    SIM_ENTER();
    if (!graph || flags != 0)
        return CUDA_ERROR_INVALID_VALUE;
    sim_lock();
    CUgraph made = graph_new();
    sim_unlock();
    if (!made)
        return CUDA_ERROR_OUT_OF_MEMORY;
    *graph = made;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuGraphDestroy(CUgraph graph)
{
    SIM_ENTER();
    struct block *dead = NULL;
    sim_lock();
    bool own = graph_is_live(graph) && !graph->parent;
    if (own)
        dead = graph_end(graph, NULL);
    sim_unlock();
    memory_dispose(dead);
    return own ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

SIM_API CUresult cuGraphClone(CUgraph *clone, CUgraph graph)
{
    SIM_ENTER();
    CUresult result = CUDA_ERROR_INVALID_VALUE;
    CUgraph made = NULL;
    if (!clone)
        return CUDA_ERROR_INVALID_VALUE;
    sim_lock();
    if (graph_is_live(graph))
        result = graph->has_memory ? CUDA_ERROR_NOT_SUPPORTED : graph_copy(graph, &made);
    sim_unlock();
    if (result == CUDA_SUCCESS)
        *clone = made;
    return result;
}

/* Adds a node for work that is at hand. */
static CUresult node_add(CUgraphNode *node, CUgraph graph, const CUgraphNode *dependencies, size_t count,
                         const struct graph_work *work)
{
    CUgraphNode made = NULL;
    if (!node)
        return CUDA_ERROR_INVALID_VALUE;
    sim_lock();
    CUresult result = graph_add(graph, dependencies, count, work, &made);
    sim_unlock();
    if (result == CUDA_SUCCESS)
        *node = made;
    return result;
}

static CUresult node_add_kernel(CUgraphNode *node, CUgraph graph, const CUgraphNode *dependencies, size_t count,
                                const CUDA_KERNEL_NODE_PARAMS *parameters)
{
    if (!parameters)
        return CUDA_ERROR_INVALID_VALUE;
    CUlaunchConfig launch = {.gridDimX = parameters->gridDimX,
                             .gridDimY = parameters->gridDimY,
                             .gridDimZ = parameters->gridDimZ,
                             .blockDimX = parameters->blockDimX,
                             .blockDimY = parameters->blockDimY,
                             .blockDimZ = parameters->blockDimZ};
    struct graph_work work = {.type = CU_GRAPH_NODE_TYPE_KERNEL};
    CUresult result =
        kernel_record(&work.kernel, parameters->func, &launch, parameters->kernelParams, parameters->extra);
    return result == CUDA_SUCCESS ? node_add(node, graph, dependencies, count, &work) : result;
}

static CUresult node_add_set(CUgraphNode *node, CUgraph graph, const CUgraphNode *dependencies, size_t count,
                             const CUDA_MEMSET_NODE_PARAMS *set)
{
    if (!set || (set->elementSize != 1 && set->elementSize != 2 && set->elementSize != 4) ||
        set->dst % set->elementSize != 0)
        return CUDA_ERROR_INVALID_VALUE;
    struct graph_work work = {.type = CU_GRAPH_NODE_TYPE_MEMSET, .set = *set};
    return node_add(node, graph, dependencies, count, &work);
}

static CUresult node_add_copy(CUgraphNode *node, CUgraph graph, const CUgraphNode *dependencies, size_t count,
                              const CUDA_MEMCPY3D *copy)
{
    if (!copy)
        return CUDA_ERROR_INVALID_VALUE;
    struct graph_work work = {.type = CU_GRAPH_NODE_TYPE_MEMCPY, .copy = *copy};
    return node_add(node, graph, dependencies, count, &work);
}

static CUresult node_add_host(CUgraphNode *node, CUgraph graph, const CUgraphNode *dependencies, size_t count,
                              const CUDA_HOST_NODE_PARAMS *host)
{
    if (!host || !host->fn)
        return CUDA_ERROR_INVALID_VALUE;
    struct graph_work work = {.type = CU_GRAPH_NODE_TYPE_HOST, .host = *host};
    return node_add(node, graph, dependencies, count, &work);
}

static CUresult node_add_child(CUgraphNode *node, CUgraph graph, const CUgraphNode *dependencies, size_t count,
                               CUgraph child, bool move)
{
    CUgraphNode made = NULL;
    if (!node)
        return CUDA_ERROR_INVALID_VALUE;
    sim_lock();
    CUresult result = graph_add_child(graph, dependencies, count, child, move, &made);
    sim_unlock();
    if (result == CUDA_SUCCESS)
        *node = made;
    return result;
}

static CUresult node_add_allocation(CUgraphNode *node, CUgraph graph, const CUgraphNode *dependencies, size_t count,
                                    CUDA_MEM_ALLOC_NODE_PARAMS *parameters)
{
    CUgraphNode made = NULL;
    if (!node || !parameters)
        return CUDA_ERROR_INVALID_VALUE;
    sim_lock();
    CUresult result = graph_add_allocation(graph, dependencies, count, parameters, &made);
    sim_unlock();
    if (result == CUDA_SUCCESS)
        *node = made;
    return result;
}

static CUresult node_add_free(CUgraphNode *node, CUgraph graph, const CUgraphNode *dependencies, size_t count,
                              uint64_t address)
{
    CUgraphNode made = NULL;
    if (!node)
        return CUDA_ERROR_INVALID_VALUE;
    sim_lock();
    CUresult result = graph_add_free(graph, dependencies, count, address, &made);
    sim_unlock();
    if (result == CUDA_SUCCESS)
        *node = made;
    return result;
}

/* The first version of the structure ends before kern. */
SIM_API CUresult cuGraphAddKernelNode(CUgraphNode *node, CUgraph graph, const CUgraphNode *dependencies, size_t count,
                                      const CUDA_KERNEL_NODE_PARAMS *parameters)
{
    SIM_ENTER();
    CUDA_KERNEL_NODE_PARAMS whole = {0};
    if (!parameters)
        return CUDA_ERROR_INVALID_VALUE;
    memcpy(&whole, parameters, offsetof(CUDA_KERNEL_NODE_PARAMS, kern));
    return node_add_kernel(node, graph, dependencies, count, &whole);
}

SIM_API CUresult cuGraphAddKernelNode_v2(CUgraphNode *node, CUgraph graph, const CUgraphNode *dependencies,
                                         size_t count, const CUDA_KERNEL_NODE_PARAMS *parameters)
{
    SIM_ENTER();
    return node_add_kernel(node, graph, dependencies, count, parameters);
}

/* The first version of the structure ends before ctx. */
SIM_API CUresult cuGraphAddMemsetNode(CUgraphNode *node, CUgraph graph, const CUgraphNode *dependencies, size_t count,
                                      const CUDA_MEMSET_NODE_PARAMS *set, CUcontext context)
{
    SIM_ENTER();
    CUDA_MEMSET_NODE_PARAMS whole = {.ctx = context};
    if (!set)
        return CUDA_ERROR_INVALID_VALUE;
    memcpy(&whole, set, offsetof(CUDA_MEMSET_NODE_PARAMS, ctx));
    return node_add_set(node, graph, dependencies, count, &whole);
}

SIM_API CUresult cuGraphAddMemcpyNode(CUgraphNode *node, CUgraph graph, const CUgraphNode *dependencies, size_t count,
                                      const CUDA_MEMCPY3D *copy, CUcontext context)
{
    SIM_ENTER();
    (void)context;
    return node_add_copy(node, graph, dependencies, count, copy);
}

SIM_API CUresult cuGraphAddHostNode(CUgraphNode *node, CUgraph graph, const CUgraphNode *dependencies, size_t count,
                                    const CUDA_HOST_NODE_PARAMS *host)
{
    SIM_ENTER();
    return node_add_host(node, graph, dependencies, count, host);
}

SIM_API CUresult cuGraphAddEmptyNode(CUgraphNode *node, CUgraph graph, const CUgraphNode *dependencies, size_t count)
{
    SIM_ENTER();
    struct graph_work work = {.type = CU_GRAPH_NODE_TYPE_EMPTY};
    return node_add(node, graph, dependencies, count, &work);
}

SIM_API CUresult cuGraphAddChildGraphNode(CUgraphNode *node, CUgraph graph, const CUgraphNode *dependencies,
                                          size_t count, CUgraph child)
{
    SIM_ENTER();
    return node_add_child(node, graph, dependencies, count, child, false);
}

SIM_API CUresult cuGraphAddMemAllocNode(CUgraphNode *node, CUgraph graph, const CUgraphNode *dependencies, size_t count,
                                        CUDA_MEM_ALLOC_NODE_PARAMS *parameters)
{
    SIM_ENTER();
    return node_add_allocation(node, graph, dependencies, count, parameters);
}

SIM_API CUresult cuGraphAddMemFreeNode(CUgraphNode *node, CUgraph graph, const CUgraphNode *dependencies, size_t count,
                                       CUdeviceptr address)
{
    SIM_ENTER();
    return node_add_free(node, graph, dependencies, count, address);
}

static CUresult node_add_any(CUgraphNode *node, CUgraph graph, const CUgraphNode *dependencies, size_t count,
                             CUgraphNodeParams *parameters)
{
    struct graph_work empty = {.type = CU_GRAPH_NODE_TYPE_EMPTY};
    if (!parameters)
        return CUDA_ERROR_INVALID_VALUE;
    switch (parameters->type) {
    case CU_GRAPH_NODE_TYPE_KERNEL:
        return node_add_kernel(node, graph, dependencies, count, &parameters->kernel);
    case CU_GRAPH_NODE_TYPE_MEMCPY:
        return node_add_copy(node, graph, dependencies, count, &parameters->memcpy.copyParams);
    case CU_GRAPH_NODE_TYPE_MEMSET:
        return node_add_set(node, graph, dependencies, count, &parameters->memset);
    case CU_GRAPH_NODE_TYPE_HOST:
        return node_add_host(node, graph, dependencies, count, &parameters->host);
    case CU_GRAPH_NODE_TYPE_GRAPH:
        if (parameters->graph.ownership != CU_GRAPH_CHILD_GRAPH_OWNERSHIP_CLONE &&
            parameters->graph.ownership != CU_GRAPH_CHILD_GRAPH_OWNERSHIP_MOVE)
            return CUDA_ERROR_INVALID_VALUE;
        return node_add_child(node, graph, dependencies, count, parameters->graph.graph,
                              parameters->graph.ownership == CU_GRAPH_CHILD_GRAPH_OWNERSHIP_MOVE);
    case CU_GRAPH_NODE_TYPE_EMPTY:
        return node_add(node, graph, dependencies, count, &empty);
    case CU_GRAPH_NODE_TYPE_MEM_ALLOC:
        return node_add_allocation(node, graph, dependencies, count, &parameters->alloc);
    case CU_GRAPH_NODE_TYPE_MEM_FREE:
        return node_add_free(node, graph, dependencies, count, parameters->free.dptr);
    default:
        return CUDA_ERROR_NOT_SUPPORTED;
    }
}

SIM_API CUresult cuGraphAddNode(CUgraphNode *node, CUgraph graph, const CUgraphNode *dependencies, size_t count,
                                CUgraphNodeParams *parameters)
{
    SIM_ENTER();
    return node_add_any(node, graph, dependencies, count, parameters);
}

/* Edges say nothing here but that one node is before another: programmatic ones are not real. */
SIM_API CUresult cuGraphAddNode_v2(CUgraphNode *node, CUgraph graph, const CUgraphNode *dependencies,
                                   const CUgraphEdgeData *edges, size_t count, CUgraphNodeParams *parameters)
{
    SIM_ENTER();
    static const CUgraphEdgeData plain;
    for (size_t i = 0; edges && i < count; i++)
        if (memcmp(&edges[i], &plain, sizeof(plain)) != 0)
            return CUDA_ERROR_NOT_SUPPORTED;
    return node_add_any(node, graph, dependencies, count, parameters);
}

/* Lists nodes as the driver does: without a list their number; places that are left over are cleared. */
static CUresult nodes_list(CUgraph graph, bool roots, CUgraphNode *nodes, size_t *count)
{
    size_t found = 0;
    if (!count)
        return CUDA_ERROR_INVALID_VALUE;
    sim_lock();
    bool live = graph_is_live(graph);
    for (CUgraphNode node = live ? graph->first : NULL; node; node = node->next) {
        if (roots && node->dependency_count > 0)
            continue;
        if (nodes && found == *count)
            break;
        if (nodes)
            nodes[found] = node;
        found++;
    }
    sim_unlock();
    if (!live)
        return CUDA_ERROR_INVALID_VALUE;
    for (size_t i = found; nodes && i < *count; i++)
        nodes[i] = NULL;
    *count = found;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuGraphGetNodes(CUgraph graph, CUgraphNode *nodes, size_t *count)
{
    SIM_ENTER();
    return nodes_list(graph, false, nodes, count);
}

SIM_API CUresult cuGraphGetRootNodes(CUgraph graph, CUgraphNode *nodes, size_t *count)
{
    SIM_ENTER();
    return nodes_list(graph, true, nodes, count);
}

/* Copies a node's work, if it is of that kind; -1: of any. */
static CUresult node_read(CUgraphNode node, int type, struct graph_work *work)
{
    sim_lock();
    bool found = node_is_live(node) && (type < 0 || node->work.type == type);
    if (found)
        *work = node->work;
    sim_unlock();
    return found ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

SIM_API CUresult cuGraphNodeGetType(CUgraphNode node, int *type)
{
    SIM_ENTER();
    struct graph_work work;
    CUresult result = type ? node_read(node, -1, &work) : CUDA_ERROR_INVALID_VALUE;
    if (result == CUDA_SUCCESS)
        *type = work.type;
    return result;
}

SIM_API CUresult cuGraphMemAllocNodeGetParams(CUgraphNode node, CUDA_MEM_ALLOC_NODE_PARAMS *parameters)
{
    SIM_ENTER();
    if (!parameters)
        return CUDA_ERROR_INVALID_VALUE;
    sim_lock();
    bool found = node_is_live(node) && node->work.type == CU_GRAPH_NODE_TYPE_MEM_ALLOC;
    if (found)
        *parameters = node->work.allocation->parameters;
    sim_unlock();
    return found ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

SIM_API CUresult cuGraphMemFreeNodeGetParams(CUgraphNode node, CUdeviceptr *address)
{
    SIM_ENTER();
    struct graph_work work;
    CUresult result = address ? node_read(node, CU_GRAPH_NODE_TYPE_MEM_FREE, &work) : CUDA_ERROR_INVALID_VALUE;
    if (result == CUDA_SUCCESS)
        *address = work.freed;
    return result;
}

SIM_API CUresult cuGraphChildGraphNodeGetGraph(CUgraphNode node, CUgraph *graph)
{
    SIM_ENTER();
    struct graph_work work;
    CUresult result = graph ? node_read(node, CU_GRAPH_NODE_TYPE_GRAPH, &work) : CUDA_ERROR_INVALID_VALUE;
    if (result == CUDA_SUCCESS)
        *graph = work.child;
    return result;
}
