/*
 * What the parts of the simulated driver share about graphs: the work a node stands for, the memory of graphs, and the
 * capture of streams. Included by graph*.c and capture.c, and by those whose work can be captured. Under sim_lock, but
 * where a function says otherwise.
 */
#ifndef SIM_GRAPH_H
#define SIM_GRAPH_H

#include "sim/block.h"

enum { KERNEL_VALUES = 4 };

/* A kernel and its parameters, copied; see module.c. */
struct kernel_call {
    const struct kernel *kernel;
    uint64_t values[KERNEL_VALUES];
};

/* What a node does when it runs. */
struct graph_work {
    int type; /* CU_GRAPH_NODE_TYPE_... */
    union {
        struct kernel_call kernel;
        CUDA_MEMCPY3D copy;
        CUDA_MEMSET_NODE_PARAMS set;
        CUDA_HOST_NODE_PARAMS host;
        CUgraph child;
        struct graph_allocation *allocation;
        uint64_t freed;
    };
};

/* How the other kinds of work are done; no lock. */
CUresult kernel_run(const struct kernel_call *call);
CUresult copy_run(const CUDA_MEMCPY3D *copy);
CUresult memset_run(const CUDA_MEMSET_NODE_PARAMS *set);
/* Copies a launch into a call. 0; NOT_SUPPORTED where parameters come packed; INVALID_VALUE; INVALID_HANDLE. No lock. */
CUresult kernel_record(struct kernel_call *call, CUfunction function, const CUlaunchConfig *launch, void **parameters,
                       void **extra);

/* Graphs and nodes: never given back to the heap but used again, so that a stale handle can be told from a live one. */
struct CUgraphNode_st {
    uint32_t state;
    CUgraphNode next; /* of the graph, in the order of creation, which runs no node before what it depends on */
    CUgraph graph;
    struct graph_work work;
    CUgraphNode *dependencies;
    size_t dependency_count;
    uint64_t mark;    /* of the last walk that came by */
    CUgraphNode twin; /* while a graph is cloned: the copy */
};

struct CUgraph_st {
    uint32_t state;
    CUgraph next; /* of the unused */
    uint64_t serial;
    CUgraphNode first, last;
    size_t node_count;
    struct graph_layout *layout; /* of its own allocations; NULL: none yet */
    CUgraphNode parent;          /* the node it is the child of */
    bool has_memory;             /* it, or a child, has nodes that allocate or free */
    unsigned execs;              /* that were made of it and live */
};

bool graph_is_live(CUgraph graph);
/* Adds a node. 0 or what the driver says; nothing is changed then. */
CUresult graph_add(CUgraph graph, const CUgraphNode *dependencies, size_t count, const struct graph_work *work,
                   CUgraphNode *node);
CUresult graph_add_allocation(CUgraph graph, const CUgraphNode *dependencies, size_t count,
                              CUDA_MEM_ALLOC_NODE_PARAMS *parameters, CUgraphNode *node);
CUresult graph_add_free(CUgraph graph, const CUgraphNode *dependencies, size_t count, uint64_t address,
                        CUgraphNode *node);
CUgraph graph_new(void);
/* Ends a graph with its nodes and children; returns what memory_dispose is to have, in front of dead. */
struct block *graph_end(CUgraph graph, struct block *dead);
/* Marks some nodes and all that they depend on; returns the mark. 0: no memory. */
uint64_t graph_mark(CUgraph graph, const CUgraphNode *nodes, size_t count);

/*
 * The memory of graphs. A graph's allocations have fixed addresses and lie in its layout, a row of steps of 32 MiB; an
 * allocation may lie where another was that is freed before it. A device has a reserve of physical steps: steps of a layout
 * are mapped to it when an exec is uploaded or launched, and stay so until another layout needs them or the reserve is
 * trimmed. As measured on an H100 (driver 580).
 */
struct graph_allocation {
    struct graph_allocation *next; /* of the layout, in the order of creation */
    struct graph_layout *layout;
    struct block *block;
    CUDA_MEM_ALLOC_NODE_PARAMS parameters;
    uint64_t offset, bytes;
    CUgraphNode free_node; /* that frees it in its own graph */
    bool freed_elsewhere;  /* another graph has a node that frees it */
    bool live;
};

struct graph_layout {
    struct graph_layout *next; /* of all */
    unsigned device;           /* the machine's number */
    unsigned references;       /* its graph and that graph's exec */
    unsigned busy;             /* launches and uploads at work */
    struct graph_allocation *allocations;
    uint64_t steps;
    unsigned *live; /* for each step: allocations alive in it */
    bool *mapped;
};

/* NULL: no memory. The layout has one reference. */
struct graph_layout *layout_new(CUdevice device);
void layout_hold(struct graph_layout *layout);
/* Returns what memory_dispose is to have, in front of dead. */
struct block *layout_leave(struct graph_layout *layout, struct block *dead);
/* Places an allocation; what is freed by a node with the mark is out of its way. NULL: no room. */
struct graph_allocation *layout_place(struct graph_layout *layout, const CUDA_MEM_ALLOC_NODE_PARAMS *parameters,
                                      uint64_t mark);
/* The allocation of a graph at an address. NULL: none. */
struct graph_allocation *allocation_of_graph(uint64_t address);
/* Backs all steps of a layout. False: the card has not the room; as measured, what it had stays in the reserve. */
bool layout_map(struct graph_layout *layout);
void allocation_begin(struct graph_allocation *allocation);
void allocation_over(struct graph_allocation *allocation);

/* Capture. What these say true to is captured, or cannot be, with what the caller is to return. No lock. */
bool capture_work(CUstream stream, const struct graph_work *work, CUresult *result);
bool capture_allocate(CUstream stream, CUDA_MEM_ALLOC_NODE_PARAMS *parameters, CUresult *result);
bool capture_free(CUstream stream, uint64_t address, CUresult *result);
bool capture_is_on(CUstream stream);
/* A call that cannot be captured, on a stream (900 where that captures) / on a context's streams / that may not be made
 * while others capture, unless the thread says that it knows better. Each ends the capture that it meets. No lock. */
CUresult capture_refuse(CUstream stream);
CUresult capture_refuse_context(CUcontext context);
CUresult capture_forbid(void);
void capture_end_context(CUcontext context);

/* Where a stream's or an event's captured work ends. */
struct capture_tail {
    uint64_t capture; /* its number; 0: captures nothing */
    CUgraphNode *nodes;
    size_t count;
};
/* An event is recorded in a stream / waited for: whether that was a matter of capture. No lock. */
bool capture_record(CUstream stream, struct capture_tail *event);
bool capture_wait(CUstream stream, const struct capture_tail *event, CUresult *result);
/* The stream is destroyed. */
void capture_leave(CUstream stream);

/* Of stream.c: the tail of a stream that is live. NULL: the legacy stream, which cannot capture / the tails of all. */
struct capture_tail *stream_tail(CUstream stream);
void streams_visit(void (*visit)(struct capture_tail *tail, void *argument), void *argument);

#endif
