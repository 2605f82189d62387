/* One thing of each family of device memory: how it is made, used and ended; see family.h. */
#include "integration/family.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GRANULE_BYTES (2 * MIB)
#define SMALL_BYTES   MIB    /* what is no larger shares blocks */
#define UNTOUCHED     0x7777 /* what an output holds that a refused call may not write */

static uint64_t blocks_of(uint64_t bytes)
{
    return (bytes + GRANULE_BYTES - 1) / GRANULE_BYTES * GRANULE_BYTES;
}

uint64_t worker_random(struct worker *worker, uint64_t below)
{
    worker->random ^= worker->random << 13;
    worker->random ^= worker->random >> 7;
    worker->random ^= worker->random << 17;
    return worker->random % below;
}

/* A refused call leaves its output as it was: anything else ends the program, loudly. */
static CUresult refused(CUresult result, bool untouched)
{
    if (result != CUDA_SUCCESS && !untouched) {
        printf("error a refused call (%d) wrote its output\n", result);
        fflush(stdout);
        _Exit(4);
    }
    return result;
}

/* --- linear memory ------------------------------------------------------------------------------------------------------- */

static uint64_t size_random(struct worker *worker)
{
    switch (worker_random(worker, 8)) {
    case 0:
    case 1:
        return worker_random(worker, 4096) + 1;
    case 2:
        return worker_random(worker, SMALL_BYTES) + 1;
    case 3:
        return (worker_random(worker, 64) + 1) * GRANULE_BYTES;
    default:
        return worker_random(worker, 48 * MIB) + SMALL_BYTES + 1;
    }
}

static void linear_cost(struct object *object, uint64_t bytes)
{
    object->exact = bytes > SMALL_BYTES;
    object->bytes = blocks_of(bytes);
}

static CUresult linear_make(struct worker *worker, struct object *object)
{
    CUdeviceptr address = UNTOUCHED;
    object->size = size_random(worker);
    CUresult result = driver.cuMemAlloc_v2(&address, object->size);
    object->address = address;
    linear_cost(object, object->size);
    return refused(result, address == UNTOUCHED);
}

static CUresult pitch_make(struct worker *worker, struct object *object)
{
    CUdeviceptr address = UNTOUCHED;
    size_t pitch = UNTOUCHED, width = worker_random(worker, 8192) + 1, height = worker_random(worker, 4096) + 1;
    CUresult result = driver.cuMemAllocPitch_v2(&address, &pitch, width, height, 4);
    object->address = address;
    linear_cost(object, pitch * height);
    return refused(result, address == UNTOUCHED && pitch == UNTOUCHED);
}

static CUresult managed_make(struct worker *worker, struct object *object)
{
    CUdeviceptr address = UNTOUCHED;
    object->size = size_random(worker);
    CUresult result = driver.cuMemAllocManaged(&address, object->size, 1);
    object->address = address;
    object->exact = true;
    object->bytes = blocks_of(object->size);
    return refused(result, address == UNTOUCHED);
}

/* Whichever call: the driver takes both for both. */
static CUresult address_free(struct worker *worker, struct object *object)
{
    bool pooled = object->family == FAMILY_ASYNC || object->family == FAMILY_FROM_POOL;
    if (worker_random(worker, 4) == 0 ? !pooled : pooled)
        return driver.cuMemFreeAsync(object->address, worker->stream[object->device]);
    return driver.cuMemFree_v2(object->address);
}

/* --- pools --------------------------------------------------------------------------------------------------------------- */

CUresult pool_make(struct worker *worker, unsigned device)
{
    CUmemPoolProps properties = {.allocType = CU_MEM_ALLOCATION_TYPE_PINNED,
                                 .location = {CU_MEM_LOCATION_TYPE_DEVICE, (int)device}};
    return driver.cuMemPoolCreate(&worker->pool[device], &properties);
}

CUresult pooled_make(struct worker *worker, struct object *object, enum family family, uint64_t bytes)
{
    CUdeviceptr address = UNTOUCHED;
    CUstream stream = worker->stream[object->device];
    object->family = family;
    object->size = bytes;
    CUresult result = family == FAMILY_ASYNC
                          ? driver.cuMemAllocAsync(&address, bytes, stream)
                          : driver.cuMemAllocFromPoolAsync(&address, bytes, worker->pool[object->device], stream);
    object->address = address;
    return refused(result, address == UNTOUCHED);
}

/* --- physical memory ------------------------------------------------------------------------------------------------------- */

static CUresult physical_make(struct worker *worker, struct object *object)
{
    CUmemAllocationProp properties = {.type = CU_MEM_ALLOCATION_TYPE_PINNED,
                                      .location = {CU_MEM_LOCATION_TYPE_DEVICE, (int)object->device}};
    CUmemGenericAllocationHandle handle = UNTOUCHED;
    object->size = (worker_random(worker, 24) + 1) * GRANULE_BYTES;
    CUresult result = driver.cuMemAddressReserve(&object->address, object->size, 0, 0, 0);
    if (result != CUDA_SUCCESS)
        return result;
    result = driver.cuMemCreate(&handle, object->size, &properties, 0);
    if (result != CUDA_SUCCESS)
        (void)driver.cuMemAddressFree(object->address, object->size);
    object->memory = handle;
    object->references = 1;
    object->exact = true;
    object->bytes = object->size;
    return refused(result, handle == UNTOUCHED);
}

/* The address range alone is left of one that has neither references nor a mapping. */
static CUresult physical_settle(struct object *object, CUresult result)
{
    if (result != CUDA_SUCCESS || object->references != 0 || object->mapped)
        return result;
    object->family = FAMILY_NONE;
    return driver.cuMemAddressFree(object->address, object->size);
}

static CUresult physical_step(struct worker *worker, struct object *object)
{
    CUresult result = CUDA_SUCCESS;
    CUmemGenericAllocationHandle again;
    if (object->mapped && worker_random(worker, 3) == 0) {
        result = driver.cuMemRetainAllocationHandle(&again, (void *)(uintptr_t)object->address);
        object->memory = again;
        object->references += result == CUDA_SUCCESS;
    } else if (object->references != 0 && worker_random(worker, 2) == 0) {
        result = driver.cuMemRelease(object->memory);
        object->references -= result == CUDA_SUCCESS;
    } else if (object->mapped) {
        result = driver.cuMemUnmap(object->address, object->size);
        object->mapped = result != CUDA_SUCCESS;
    } else {
        result = driver.cuMemMap(object->address, object->size, 0, object->memory, 0);
        object->mapped = result == CUDA_SUCCESS;
    }
    return physical_settle(object, result);
}

static CUresult physical_end(struct worker *worker, struct object *object)
{
    CUresult result = CUDA_SUCCESS;
    while (result == CUDA_SUCCESS && (object->references != 0 || object->mapped))
        if (object->mapped && (object->references == 0 || worker_random(worker, 2) == 0)) {
            result = driver.cuMemUnmap(object->address, object->size);
            object->mapped = false;
        } else {
            result = driver.cuMemRelease(object->memory);
            object->references--;
        }
    return physical_settle(object, result);
}

/* --- arrays ---------------------------------------------------------------------------------------------------------------- */

/* Planes whose every level has whole rows of 64 bytes and whole blocks of 128 rows take what they look like. */
static CUresult array_make(struct worker *worker, struct object *object)
{
    CUDA_ARRAY3D_DESCRIPTOR shape = {.Format = CU_AD_FORMAT_FLOAT, .NumChannels = 1};
    void *handle = (void *)UNTOUCHED;
    unsigned levels = object->family == FAMILY_MIPMAP ? 2 : 1;
    CUresult result;
    if (worker_random(worker, 2) == 0) {
        shape.Width = (worker_random(worker, 12) + 2) * 256;
        shape.Height = (worker_random(worker, 12) + 2) * 256;
        object->bytes = shape.Width * shape.Height * 4;
        if (levels == 2)
            object->bytes += object->bytes / 4;
        object->exact = object->bytes > SMALL_BYTES;
        object->bytes = blocks_of(object->bytes);
    } else {
        shape.Width = worker_random(worker, 400) + 2;
        shape.Height = worker_random(worker, 400) + 2;
    }
    if (object->family == FAMILY_MIPMAP)
        result = driver.cuMipmappedArrayCreate((CUmipmappedArray *)&handle, &shape, levels);
    else
        result = driver.cuArray3DCreate_v2((CUarray *)&handle, &shape);
    object->handle = handle;
    return refused(result, handle == (void *)UNTOUCHED);
}

/* --- graphs ---------------------------------------------------------------------------------------------------------------- */

static CUresult graph_launch(struct worker *worker, struct object *object)
{
    CUstream stream = worker->stream[object->device];
    CUresult result = driver.cuGraphLaunch(object->handle, stream);
    if (result == CUDA_SUCCESS)
        object->alive = !object->frees_itself;
    return result;
}

static CUresult graph_instantiate(struct object *object, uint64_t bytes)
{
    CUDA_MEM_ALLOC_NODE_PARAMS parameters = {.bytesize = bytes};
    CUgraphNode node, freeing;
    CUgraphExec instance = NULL;
    parameters.poolProps.allocType = CU_MEM_ALLOCATION_TYPE_PINNED;
    parameters.poolProps.location = (CUmemLocation){CU_MEM_LOCATION_TYPE_DEVICE, (int)object->device};
    CUresult result = driver.cuGraphAddMemAllocNode(&node, object->graph, NULL, 0, &parameters);
    object->address = parameters.dptr;
    if (result == CUDA_SUCCESS && object->frees_itself)
        result = driver.cuGraphAddMemFreeNode(&freeing, object->graph, &node, 1, parameters.dptr);
    if (result == CUDA_SUCCESS)
        result = driver.cuGraphInstantiateWithFlags(
            &instance, object->graph, object->frees_before ? CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH : 0);
    object->handle = instance;
    return result;
}

static CUresult graph_free(struct worker *worker, struct object *object)
{
    CUresult result = worker_random(worker, 2) == 0
                          ? driver.cuMemFree_v2(object->address)
                          : driver.cuMemFreeAsync(object->address, worker->stream[object->device]);
    object->alive = result != CUDA_SUCCESS;
    return result;
}

static CUresult graph_end(struct worker *worker, struct object *object)
{
    bool late = object->alive && worker_random(worker, 2) == 0;
    CUresult result = CUDA_SUCCESS;
    if (object->alive && !late)
        result = graph_free(worker, object);
    if (result == CUDA_SUCCESS && object->handle != NULL)
        result = driver.cuGraphExecDestroy(object->handle);
    if (result == CUDA_SUCCESS)
        result = driver.cuGraphDestroy(object->graph);
    if (result == CUDA_SUCCESS && late) /* what lives outlives its graph */
        result = graph_free(worker, object);
    return result;
}

CUresult graph_make(struct worker *worker, struct object *object, uint64_t bytes)
{
    object->family = FAMILY_GRAPH;
    CUresult result = driver.cuGraphCreate(&object->graph, 0);
    if (result != CUDA_SUCCESS)
        return result;
    result = graph_instantiate(object, bytes);
    if (result == CUDA_SUCCESS)
        result = graph_launch(worker, object);
    if (result == CUDA_ERROR_OUT_OF_MEMORY && graph_end(worker, object) != CUDA_SUCCESS)
        abort();
    return result;
}

static CUresult graph_step(struct worker *worker, struct object *object)
{
    if (object->alive && (!object->frees_before || worker_random(worker, 2) == 0))
        return graph_free(worker, object);
    return graph_launch(worker, object);
}

/* --- contexts -------------------------------------------------------------------------------------------------------------- */

/* A context with something in it, which goes with it; one small thing in it has a block for itself. */
static CUresult context_make(struct worker *worker, struct object *object)
{
    CUcontext made = (void *)UNTOUCHED;
    CUdeviceptr inside;
    CUresult result = driver.cuCtxCreate_v2(&made, 0, (CUdevice)object->device);
    (void)refused(result, made == (void *)UNTOUCHED);
    if (result != CUDA_SUCCESS)
        return result;
    object->handle = made;
    object->exact = true;
    object->bytes = context_bytes;
    for (unsigned count = (unsigned)worker_random(worker, 3); result == CUDA_SUCCESS && count != 0; count--) {
        uint64_t bytes = count == 1 ? 1000 : worker_random(worker, 20 * MIB) + SMALL_BYTES + 1;
        result = driver.cuMemAlloc_v2(&inside, bytes);
        if (result == CUDA_SUCCESS)
            object->bytes += blocks_of(bytes);
        else if (result == CUDA_ERROR_OUT_OF_MEMORY)
            worker->refused++;
    }
    if (result == CUDA_ERROR_OUT_OF_MEMORY)
        result = CUDA_SUCCESS;
    CUresult back = driver.cuCtxPopCurrent_v2(&made);
    return result != CUDA_SUCCESS ? result : back;
}

/* --- any ------------------------------------------------------------------------------------------------------------------- */

CUresult object_make(struct worker *worker, struct object *object, enum family family, unsigned device)
{
    *object = (struct object){.family = family, .device = device};
    CUresult result = driver.cuCtxSetCurrent(primary[device]);
    if (result != CUDA_SUCCESS)
        return result;
    if (family == FAMILY_LINEAR)
        result = linear_make(worker, object);
    else if (family == FAMILY_PITCH)
        result = pitch_make(worker, object);
    else if (family == FAMILY_MANAGED)
        result = managed_make(worker, object);
    else if (family == FAMILY_ASYNC || family == FAMILY_FROM_POOL)
        result = pooled_make(worker, object, family, size_random(worker));
    else if (family == FAMILY_PHYSICAL)
        result = physical_make(worker, object);
    else if (family == FAMILY_ARRAY || family == FAMILY_MIPMAP)
        result = array_make(worker, object);
    else if (family == FAMILY_CONTEXT)
        result = context_make(worker, object);
    else {
        object->frees_itself = worker_random(worker, 3) == 0;
        object->frees_before = worker_random(worker, 3) == 0;
        result = graph_make(worker, object, size_random(worker));
    }
    if (result != CUDA_SUCCESS)
        object->family = FAMILY_NONE;
    return result;
}

CUresult object_step(struct worker *worker, struct object *object)
{
    CUresult result = driver.cuCtxSetCurrent(primary[object->device]);
    if (result != CUDA_SUCCESS)
        return result;
    if (object->family == FAMILY_PHYSICAL)
        return physical_step(worker, object);
    return object->family == FAMILY_GRAPH ? graph_step(worker, object) : object_end(worker, object);
}

CUresult object_end(struct worker *worker, struct object *object)
{
    CUresult result = driver.cuCtxSetCurrent(primary[object->device]);
    if (result != CUDA_SUCCESS)
        return result;
    switch (object->family) {
    case FAMILY_NONE:
    case FAMILIES:
        break;
    case FAMILY_PHYSICAL:
        result = physical_end(worker, object);
        break;
    case FAMILY_ARRAY:
        result = driver.cuArrayDestroy(object->handle);
        break;
    case FAMILY_MIPMAP:
        result = driver.cuMipmappedArrayDestroy(object->handle);
        break;
    case FAMILY_GRAPH:
        result = graph_end(worker, object);
        break;
    case FAMILY_CONTEXT:
        result = driver.cuCtxDestroy_v2(object->handle);
        break;
    case FAMILY_LINEAR:
    case FAMILY_PITCH:
    case FAMILY_MANAGED:
    case FAMILY_ASYNC:
    case FAMILY_FROM_POOL:
        result = address_free(worker, object);
        break;
    }
    object->family = FAMILY_NONE;
    return result;
}
