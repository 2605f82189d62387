/*
 * Green contexts: a share of a device's multiprocessors, in its primary context, which one retains while it lives. What it costs
 * is what was measured: 6 MiB the first in a primary context, 4 MiB each further one, back with the primary context and not before.
 * The multiprocessors themselves are not kept apart. A handle is valid if it is in its list. All under sim_lock.
 */
#include "sim/sim.h"

#include <stdlib.h>
#include <string.h>

enum { MULTIPROCESSORS = 132, MULTIPROCESSOR_GROUP = 8 };
#define FIRST_BYTES (6ULL << 20)
#define NEXT_BYTES  (4ULL << 20)

struct CUgreenCtx_st {
    CUgreenCtx next;
    CUdevice device;
    CUcontext parent, context;
    uint64_t generation; /* the parent's, in the life it was made in */
    bool live;
    unsigned multiprocessors;
};

struct CUdevResourceDesc_st {
    CUdevResourceDesc next;
    unsigned multiprocessors;
};

static CUgreenCtx greens;
static CUdevResourceDesc descriptions;

static CUgreenCtx green_find(CUgreenCtx green)
{
    CUgreenCtx known = greens;
    while (known && known != green)
        known = known->next;
    return known && known->live ? known : NULL;
}

static void resource_write(CUdevResource *resource, unsigned multiprocessors)
{
    memset(resource, 0, sizeof(*resource));
    resource->type = CU_DEV_RESOURCE_TYPE_SM;
    resource->sm = (CUdevSmResource){multiprocessors, MULTIPROCESSOR_GROUP, MULTIPROCESSOR_GROUP};
}

SIM_API CUresult cuDeviceGetDevResource(CUdevice device, CUdevResource *resource, CUdevResourceType type)
{
    SIM_ENTER();
    if (!resource)
        return CUDA_ERROR_INVALID_VALUE;
    if (device_check(device) != CUDA_SUCCESS)
        return CUDA_ERROR_INVALID_DEVICE;
    if (type != CU_DEV_RESOURCE_TYPE_SM)
        return CUDA_ERROR_INVALID_VALUE;
    resource_write(resource, MULTIPROCESSORS);
    return CUDA_SUCCESS;
}

SIM_API CUresult cuCtxGetDevResource(CUcontext context, CUdevResource *resource, CUdevResourceType type)
{
    SIM_ENTER();
    if (!resource || type != CU_DEV_RESOURCE_TYPE_SM)
        return CUDA_ERROR_INVALID_VALUE;
    unsigned multiprocessors = MULTIPROCESSORS;
    sim_lock();
    bool alive = context_is_alive(context);
    for (CUgreenCtx green = greens; alive && green; green = green->next)
        if (green->live && green->context == context)
            multiprocessors = green->multiprocessors;
    sim_unlock();
    if (!alive)
        return CUDA_ERROR_INVALID_CONTEXT;
    resource_write(resource, multiprocessors);
    return CUDA_SUCCESS;
}

SIM_API CUresult cuGreenCtxGetDevResource(CUgreenCtx green, CUdevResource *resource, CUdevResourceType type)
{
    SIM_ENTER();
    if (!resource || type != CU_DEV_RESOURCE_TYPE_SM)
        return CUDA_ERROR_INVALID_VALUE;
    sim_lock();
    CUgreenCtx found = green_find(green);
    if (found)
        resource_write(resource, found->multiprocessors);
    sim_unlock();
    return found ? CUDA_SUCCESS : CUDA_ERROR_INVALID_CONTEXT;
}

/* Groups of at least `least` multiprocessors; with NULL for the groups, how many there would be. */
SIM_API CUresult cuDevSmResourceSplitByCount(CUdevResource *groups, unsigned *count, const CUdevResource *input,
                                             CUdevResource *rest, unsigned flags, unsigned least)
{
    SIM_ENTER();
    (void)flags;
    if (!count || !input || input->type != CU_DEV_RESOURCE_TYPE_SM || least == 0 || least > input->sm.smCount)
        return CUDA_ERROR_INVALID_VALUE;
    unsigned size = (least + MULTIPROCESSOR_GROUP - 1) / MULTIPROCESSOR_GROUP * MULTIPROCESSOR_GROUP;
    unsigned all = input->sm.smCount, most = all / size;
    if (groups && *count > most)
        *count = most;
    else if (!groups)
        *count = most;
    for (unsigned i = 0; groups && i < *count; i++)
        resource_write(&groups[i], size);
    if (rest)
        resource_write(rest, groups ? all - *count * size : all % size);
    return CUDA_SUCCESS;
}

/* Lives for good: the interface has nothing that frees it. */
SIM_API CUresult cuDevResourceGenerateDesc(CUdevResourceDesc *description, CUdevResource *resources, unsigned count)
{
    SIM_ENTER();
    unsigned multiprocessors = 0;
    if (!description || !resources || count == 0)
        return CUDA_ERROR_INVALID_VALUE;
    for (unsigned i = 0; i < count; i++) {
        if (resources[i].type != CU_DEV_RESOURCE_TYPE_SM)
            return CUDA_ERROR_INVALID_VALUE;
        multiprocessors += resources[i].sm.smCount;
    }
    CUdevResourceDesc made = calloc(1, sizeof(*made));
    if (!made)
        return CUDA_ERROR_OUT_OF_MEMORY;
    sim_lock();
    *made = (struct CUdevResourceDesc_st){descriptions, multiprocessors};
    descriptions = made;
    sim_unlock();
    *description = made;
    return CUDA_SUCCESS;
}

static bool description_is_known(CUdevResourceDesc description)
{
    CUdevResourceDesc known = descriptions;
    while (known && known != description)
        known = known->next;
    return known != NULL;
}

/* Makes one in a primary context that is retained for it. Under sim_lock. */
static CUresult green_make(CUgreenCtx made, CUdevResourceDesc description, CUcontext parent)
{
    if (!description_is_known(description))
        return CUDA_ERROR_INVALID_VALUE;
    if (parent->greens == parent->greens_paid) {
        CUresult result = context_extend(parent, parent->greens_paid == 0 ? FIRST_BYTES : NEXT_BYTES);
        if (result != CUDA_SUCCESS)
            return result;
        parent->greens_paid++;
    }
    CUcontext context = context_make_green(parent);
    if (!context)
        return CUDA_ERROR_OUT_OF_MEMORY;
    parent->greens++;
    *made = (struct CUgreenCtx_st){.next = greens,
                                   .device = parent->device,
                                   .parent = parent,
                                   .context = context,
                                   .generation = atomic_load(&parent->generation),
                                   .live = true,
                                   .multiprocessors = description->multiprocessors};
    greens = made;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuGreenCtxCreate(CUgreenCtx *green, CUdevResourceDesc description, CUdevice device, unsigned flags)
{
    SIM_ENTER_MAKING(after);
    CUcontext parent;
    if (!green || !description || flags != CU_GREEN_CTX_DEFAULT_STREAM)
        return CUDA_ERROR_INVALID_VALUE;
    CUresult result = primary_retain(device, &parent);
    if (result != CUDA_SUCCESS)
        return result;
    CUgreenCtx made = calloc(1, sizeof(*made));
    sim_lock();
    if (after !=
        CUDA_SUCCESS) /* undone by not doing it: what one takes is not given back while the primary one lives */
        result = after;
    else
        result = made ? green_make(made, description, parent) : CUDA_ERROR_OUT_OF_MEMORY;
    sim_unlock();
    if (result != CUDA_SUCCESS) {
        free(made);
        primary_release(device);
        return result;
    }
    *green = made;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuGreenCtxDestroy(CUgreenCtx green)
{
    SIM_ENTER();
    CUdevice device = 0;
    sim_lock();
    CUgreenCtx found = green_find(green);
    if (found) {
        found->live = false;
        device = found->device;
        context_end_green(found->context);
        if (atomic_load(&found->parent->generation) == found->generation)
            found->parent->greens--;
    }
    sim_unlock();
    if (!found)
        return CUDA_ERROR_INVALID_CONTEXT;
    primary_release(device);
    return CUDA_SUCCESS;
}

SIM_API CUresult cuCtxFromGreenCtx(CUcontext *context, CUgreenCtx green)
{
    SIM_ENTER();
    if (!context)
        return CUDA_ERROR_INVALID_VALUE;
    sim_lock();
    CUgreenCtx found = green_find(green);
    if (found)
        *context = found->context;
    sim_unlock();
    return found ? CUDA_SUCCESS : CUDA_ERROR_INVALID_CONTEXT;
}

/* A stream of the primary context; green ones must not wait for the default stream. */
SIM_API CUresult cuGreenCtxStreamCreate(CUstream *stream, CUgreenCtx green, unsigned flags, int priority)
{
    SIM_ENTER();
    if (!stream || flags != CU_STREAM_NON_BLOCKING)
        return CUDA_ERROR_INVALID_VALUE;
    sim_lock();
    CUgreenCtx found = green_find(green);
    CUcontext parent = found && context_is_alive(found->context) ? found->parent : NULL;
    sim_unlock();
    return parent ? stream_create(parent, stream, flags, priority) : CUDA_ERROR_INVALID_CONTEXT;
}
