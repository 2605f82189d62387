/*
 * What the files of the family client share: one thing of any family of device memory, made, used and ended at random, and what a
 * plain model says that it costs. family_client.c says what the program does; family_objects.c knows the families.
 *
 * An object belongs to the thread that has it in hand; the random state is the worker's own.
 */
#ifndef TESTS_FAMILY_H
#define TESTS_FAMILY_H

#include <stdbool.h>
#include <stdint.h>

#include "cuda/cuda_abi.h"

#define MIB (1024ULL * 1024)

enum { DEVICES = 2 };

#define FUNCTIONS(F)                                                                                                   \
    F(cuInit, (unsigned))                                                                                              \
    F(cuDevicePrimaryCtxRetain, (CUcontext *, CUdevice))                                                               \
    F(cuDevicePrimaryCtxRelease_v2, (CUdevice))                                                                        \
    F(cuCtxCreate_v2, (CUcontext *, unsigned, CUdevice))                                                               \
    F(cuCtxDestroy_v2, (CUcontext))                                                                                    \
    F(cuCtxPopCurrent_v2, (CUcontext *))                                                                               \
    F(cuCtxSetCurrent, (CUcontext))                                                                                    \
    F(cuCtxSynchronize, (void))                                                                                        \
    F(cuStreamCreate, (CUstream *, unsigned))                                                                          \
    F(cuStreamSynchronize, (CUstream))                                                                                 \
    F(cuStreamDestroy_v2, (CUstream))                                                                                  \
    F(cuMemGetInfo_v2, (size_t *, size_t *))                                                                           \
    F(cuMemAlloc_v2, (CUdeviceptr *, size_t))                                                                          \
    F(cuMemFree_v2, (CUdeviceptr))                                                                                     \
    F(cuMemAllocPitch_v2, (CUdeviceptr *, size_t *, size_t, size_t, unsigned))                                         \
    F(cuMemAllocManaged, (CUdeviceptr *, size_t, unsigned))                                                            \
    F(cuMemAllocAsync, (CUdeviceptr *, size_t, CUstream))                                                              \
    F(cuMemAllocFromPoolAsync, (CUdeviceptr *, size_t, CUmemoryPool, CUstream))                                        \
    F(cuMemFreeAsync, (CUdeviceptr, CUstream))                                                                         \
    F(cuMemPoolCreate, (CUmemoryPool *, const CUmemPoolProps *))                                                       \
    F(cuMemPoolDestroy, (CUmemoryPool))                                                                                \
    F(cuMemPoolTrimTo, (CUmemoryPool, size_t))                                                                         \
    F(cuMemPoolSetAttribute, (CUmemoryPool, int, void *))                                                              \
    F(cuDeviceGetDefaultMemPool, (CUmemoryPool *, CUdevice))                                                           \
    F(cuMemAddressReserve, (CUdeviceptr *, size_t, size_t, CUdeviceptr, unsigned long long))                           \
    F(cuMemAddressFree, (CUdeviceptr, size_t))                                                                         \
    F(cuMemCreate, (CUmemGenericAllocationHandle *, size_t, const CUmemAllocationProp *, unsigned long long))          \
    F(cuMemMap, (CUdeviceptr, size_t, size_t, CUmemGenericAllocationHandle, unsigned long long))                       \
    F(cuMemUnmap, (CUdeviceptr, size_t))                                                                               \
    F(cuMemRelease, (CUmemGenericAllocationHandle))                                                                    \
    F(cuMemRetainAllocationHandle, (CUmemGenericAllocationHandle *, void *))                                           \
    F(cuArray3DCreate_v2, (CUarray *, const CUDA_ARRAY3D_DESCRIPTOR *))                                                \
    F(cuArrayDestroy, (CUarray))                                                                                       \
    F(cuMipmappedArrayCreate, (CUmipmappedArray *, const CUDA_ARRAY3D_DESCRIPTOR *, unsigned))                         \
    F(cuMipmappedArrayDestroy, (CUmipmappedArray))                                                                     \
    F(cuGraphCreate, (CUgraph *, unsigned))                                                                            \
    F(cuGraphDestroy, (CUgraph))                                                                                       \
    F(cuGraphAddMemAllocNode, (CUgraphNode *, CUgraph, const CUgraphNode *, size_t, CUDA_MEM_ALLOC_NODE_PARAMS *))     \
    F(cuGraphAddMemFreeNode, (CUgraphNode *, CUgraph, const CUgraphNode *, size_t, CUdeviceptr))                       \
    F(cuGraphInstantiateWithFlags, (CUgraphExec *, CUgraph, unsigned long long))                                       \
    F(cuGraphExecDestroy, (CUgraphExec))                                                                               \
    F(cuGraphLaunch, (CUgraphExec, CUstream))                                                                          \
    F(cuDeviceGraphMemTrim, (CUdevice))

struct functions {
#define F(name, parameters) CUresult(*name) parameters;
    FUNCTIONS(F)
#undef F
};
extern struct functions driver;

/* The primary context and the default pool of each device. */
extern CUcontext primary[DEVICES];
extern CUmemoryPool common_pool[DEVICES];

/* What a context of the machine costs: the test says it at the start. */
extern uint64_t context_bytes;

/* A thread that makes and ends things. */
struct worker {
    uint64_t random;
    CUstream stream[DEVICES];
    CUmemoryPool pool[DEVICES];
    unsigned long granted, refused;
    const char *doing; /* what failed, where the result is not success */
    CUresult result;
};

uint64_t worker_random(struct worker *worker, uint64_t below);

/* Lets a refusal for want of memory pass, and counts it. False: something else went wrong, and the worker is to stop. */
bool worker_accepts(struct worker *worker, const char *doing, CUresult result);

enum family {
    FAMILY_NONE,
    FAMILY_LINEAR,
    FAMILY_PITCH,
    FAMILY_MANAGED,
    FAMILY_ASYNC,
    FAMILY_FROM_POOL,
    FAMILY_PHYSICAL,
    FAMILY_ARRAY,
    FAMILY_MIPMAP,
    FAMILY_GRAPH,
    FAMILY_CONTEXT,
    FAMILIES,
};

/*
 * bytes: what it costs its device by the model, a plain one: blocks of 2 MiB, whole. `exact` is false where only the driver knows
 * (what shares blocks or lies in a pool); such objects are ended before the model is asked.
 */
struct object {
    enum family family;
    unsigned device;
    bool exact;
    uint64_t bytes, size; /* size: as asked for */
    CUdeviceptr address;
    void *handle;
    /* physical memory: */
    CUmemGenericAllocationHandle memory;
    unsigned references;
    bool mapped;
    /* graphs: */
    CUgraph graph;
    bool frees_itself, frees_before, alive;
};

/* Each returns what the driver did; after a refusal the object is FAMILY_NONE. */
CUresult object_make(struct worker *worker, struct object *object, enum family family, unsigned device);
CUresult object_step(struct worker *worker, struct object *object);
CUresult object_end(struct worker *worker, struct object *object);

/* With sizes of the caller's choice: an allocation of the default or the worker's own pool; a graph that allocates, launched. */
CUresult pooled_make(struct worker *worker, struct object *object, enum family family, uint64_t bytes);
CUresult graph_make(struct worker *worker, struct object *object, uint64_t bytes);

CUresult pool_make(struct worker *worker, unsigned device);

#endif
