/*
 * Memory pools and stream-ordered allocation. A pool's physical bytes are a reservoir's affair; here are the handles, which
 * pool is current where, and the calls. Pools belong to the process, so they outlive contexts. A destroyed pool goes with the
 * last of its memory, and not before the host has seen that freed; its handle may then be used again.
 *
 * Pools cannot be exported: their memory is the process's own, so those calls are not supported. All under sim_lock.
 */
#include "sim/reservoir.h"

#include <stdlib.h>
#include <string.h>

#include "sim/graph.h"

enum pool_state {
    POOL_UNUSED,
    POOL_LIVE,
    POOL_ENDED, /* destroyed, with memory that is in use or not seen free */
};

enum { POOL_SWITCHES = 3 };

struct CUmemPoolHandle_st {
    struct reservoir reservoir; /* first: see pool_of */
    CUmemoryPool next;
    enum pool_state state;
    bool standard; /* the default one of its place */
    CUmemLocation location;
    int type;
    int reuse[POOL_SWITCHES];
    int access[SIM_DEVICES]; /* of each device that the process sees */
};

/* A location and an allocation type: what has a default and a current pool. */
struct pool_home {
    struct pool_home *next;
    CUmemLocation location;
    int type;
    CUmemoryPool standard, current;
};

static CUmemoryPool pools; /* all ever made */
static struct pool_home *homes;

CUmemoryPool pool_of(const struct reservoir *reservoir)
{
    return (CUmemoryPool)(uintptr_t)reservoir;
}

static bool pool_is_live(CUmemoryPool pool)
{
    CUmemoryPool known = pools;
    while (known && known != pool)
        known = known->next;
    return known && known->state == POOL_LIVE;
}

static void pool_settle(CUmemoryPool pool)
{
    struct reservoir *reservoir = &pool->reservoir;
    reservoir_trim(reservoir, pool->state == POOL_ENDED ? 0 : reservoir->threshold_bytes);
    if (pool->state == POOL_ENDED && reservoir->extent_count == 0 && !reservoir->unseen)
        pool->state = POOL_UNUSED;
}

/* A free that is not on a stream is seen at once, as measured. */
void pool_freed(struct reservoir *reservoir, uint64_t address, const struct stream_place *place)
{
    reservoir_give(reservoir, address, place);
    if (!place)
        pool_settle(pool_of(reservoir));
}

void pools_see(const struct stream_place *place, uint64_t moment)
{
    struct sight sight = {.context = place->context, .place = *place, .moment = moment};
    sim_lock();
    for (CUmemoryPool pool = pools; pool; pool = pool->next) {
        if (pool->state == POOL_UNUSED)
            continue;
        reservoir_see(&pool->reservoir, &sight);
        pool_settle(pool);
    }
    sim_unlock();
}

/* What a location can be asked for, as the driver answers. */
static CUresult location_check(const CUmemLocation *location, int type)
{
    if (!location || (type != CU_MEM_ALLOCATION_TYPE_PINNED && type != CU_MEM_ALLOCATION_TYPE_MANAGED))
        return CUDA_ERROR_INVALID_VALUE;
    switch (location->type) {
    case CU_MEM_LOCATION_TYPE_DEVICE:
        return device_check(location->id) == CUDA_SUCCESS ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
    case CU_MEM_LOCATION_TYPE_HOST:
        return CUDA_SUCCESS;
    case CU_MEM_LOCATION_TYPE_HOST_NUMA: /* of which the machine has one */
        return location->id == 0 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
    case CU_MEM_LOCATION_TYPE_NONE:
        return type == CU_MEM_ALLOCATION_TYPE_MANAGED ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
    case CU_MEM_LOCATION_TYPE_HOST_NUMA_CURRENT:
        return CUDA_ERROR_NOT_SUPPORTED;
    default:
        return CUDA_ERROR_INVALID_VALUE;
    }
}

/* The id of a location without any is of no matter. */
static int location_id(const CUmemLocation *location)
{
    return location->type == CU_MEM_LOCATION_TYPE_DEVICE || location->type == CU_MEM_LOCATION_TYPE_HOST_NUMA
               ? location->id
               : 0;
}

/* What the memory of a pool is like. */
static struct block pool_kind(const CUmemLocation *location, int type)
{
    bool on_device = location->type == CU_MEM_LOCATION_TYPE_DEVICE;
    bool managed = type == CU_MEM_ALLOCATION_TYPE_MANAGED;
    return (struct block){.device = sim_process.physical[on_device ? location->id : 0],
                          .managed = managed,
                          .host = !on_device && !managed};
}

/* An unused pool whose arena, if it has one, is of the kind. NULL: none. */
static CUmemoryPool pool_unused(const struct block *kind)
{
    for (CUmemoryPool pool = pools; pool; pool = pool->next) {
        const struct block *arena = pool->reservoir.arena;
        if (pool->state == POOL_UNUSED &&
            (!arena || (arena->device == kind->device && arena->managed == kind->managed && arena->host == kind->host)))
            return pool;
    }
    return NULL;
}

/* Managed memory without a device in its location costs no card, as far as one can say whose it is. */
static CUmemoryPool pool_new(const CUmemLocation *location, int type)
{
    struct block kind = pool_kind(location, type);
    CUmemoryPool pool = pool_unused(&kind);
    if (!pool && (pool = calloc(1, sizeof(*pool))) != NULL) {
        pool->next = pools;
        pools = pool;
    }
    if (!pool)
        return NULL;
    bool on_device = location->type == CU_MEM_LOCATION_TYPE_DEVICE;
    reservoir_reset(&pool->reservoir);
    pool->reservoir.device = kind.device;
    pool->reservoir.uncharged = !on_device;
    pool->state = POOL_LIVE;
    pool->standard = false;
    pool->location = (CUmemLocation){location->type, location_id(location)};
    pool->type = type;
    for (int i = 0; i < POOL_SWITCHES; i++)
        pool->reuse[i] = 1;
    memset(pool->access, 0, sizeof(pool->access));
    if (on_device)
        pool->access[location->id] = CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
    return pool;
}

/* The home of a location, made where it was not known. NULL: no memory. Under sim_lock. */
static struct pool_home *home_find(const CUmemLocation *location, int type)
{
    struct pool_home *home = homes;
    while (home &&
           (home->type != type || home->location.type != location->type || home->location.id != location_id(location)))
        home = home->next;
    if (home)
        return home;
    home = calloc(1, sizeof(*home));
    CUmemoryPool pool = home ? pool_new(location, type) : NULL;
    if (!pool) {
        free(home);
        return NULL;
    }
    pool->standard = true;
    *home =
        (struct pool_home){.next = homes, .location = pool->location, .type = type, .standard = pool, .current = pool};
    return homes = home;
}

/* Where the stream captures, the graph gets a node, and the pool says what the memory is to be like. */
static bool pool_capture(CUmemoryPool pool, CUdevice device, uint64_t bytes, CUstream stream, CUdeviceptr *address,
                         CUresult *result)
{
    CUDA_MEM_ALLOC_NODE_PARAMS parameters = {.bytesize = bytes};
    parameters.poolProps.allocType = pool ? pool->type : CU_MEM_ALLOCATION_TYPE_PINNED;
    parameters.poolProps.location = pool ? pool->location : (CUmemLocation){CU_MEM_LOCATION_TYPE_DEVICE, device};
    if (!capture_allocate(stream, &parameters, result))
        return false;
    if (*result == CUDA_SUCCESS)
        *address = parameters.dptr;
    return true;
}

/* Nothing of nothing is no error, as measured. With an error that was ordered for afterwards all is given back. */
static CUresult pool_allocate(CUmemoryPool pool, bool current, uint64_t bytes, CUstream stream, CUresult after,
                              CUdeviceptr *address)
{
    uint64_t taken = 0;
    CUcontext context;
    CUresult result = stream_check(stream, &context);
    if (result != CUDA_SUCCESS)
        return result;
    if (!address)
        return CUDA_ERROR_INVALID_VALUE;
    sim_lock();
    bool unknown = !current && !pool_is_live(pool);
    sim_unlock();
    if (unknown)
        return CUDA_ERROR_INVALID_VALUE;
    if (after == CUDA_SUCCESS ? pool_capture(pool, context->device, bytes, stream, address, &result)
                              : capture_is_on(stream)) /* a node cannot be undone */
        return after == CUDA_SUCCESS ? result : after;
    result = capture_forbid();
    if (result != CUDA_SUCCESS)
        return result;
    sim_lock();
    if (current) {
        CUmemLocation location = {CU_MEM_LOCATION_TYPE_DEVICE, context->device};
        const struct pool_home *home = home_find(&location, CU_MEM_ALLOCATION_TYPE_PINNED);
        pool = home ? home->current : NULL;
    }
    if (!pool_is_live(pool))
        result = current ? CUDA_ERROR_OUT_OF_MEMORY : CUDA_ERROR_INVALID_VALUE;
    else if (bytes > 0) {
        struct block kind = pool_kind(&pool->location, pool->type);
        taken = reservoir_take(&pool->reservoir, &kind, bytes);
        result = taken ? after : CUDA_ERROR_OUT_OF_MEMORY;
        if (taken && after != CUDA_SUCCESS)
            pool_freed(&pool->reservoir, taken, NULL);
    }
    sim_unlock();
    if (result == CUDA_SUCCESS)
        *address = taken;
    return result;
}

SIM_API CUresult cuMemAllocAsync(CUdeviceptr *address, size_t bytes, CUstream stream)
{
    SIM_ENTER_MAKING(after);
    return pool_allocate(NULL, true, bytes, stream, after, address);
}

SIM_API CUresult cuMemAllocFromPoolAsync(CUdeviceptr *address, size_t bytes, CUmemoryPool pool, CUstream stream)
{
    SIM_ENTER_MAKING(after);
    return pool_allocate(pool, false, bytes, stream, after, address);
}

SIM_API CUresult cuMemPoolCreate(CUmemoryPool *pool, const CUmemPoolProps *properties)
{
    SIM_ENTER_MAKING(after);
    if (!pool || !properties)
        return CUDA_ERROR_INVALID_VALUE;
    CUresult result = location_check(&properties->location, properties->allocType);
    if (result != CUDA_SUCCESS)
        return CUDA_ERROR_INVALID_VALUE;
    bool on_device = properties->location.type == CU_MEM_LOCATION_TYPE_DEVICE;
    if (properties->handleTypes != CU_MEM_HANDLE_TYPE_NONE &&
        (properties->handleTypes != CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR || !on_device))
        return CUDA_ERROR_INVALID_VALUE;
    sim_lock();
    CUmemoryPool made = pool_new(&properties->location, properties->allocType);
    if (made) {
        made->reservoir.most_bytes = properties->maxSize;
        made->state = after == CUDA_SUCCESS ? POOL_LIVE : POOL_UNUSED;
    }
    sim_unlock();
    if (!made)
        return CUDA_ERROR_OUT_OF_MEMORY;
    if (after == CUDA_SUCCESS)
        *pool = made;
    return after;
}

SIM_API CUresult cuMemPoolDestroy(CUmemoryPool pool)
{
    SIM_ENTER();
    sim_lock();
    bool live = pool_is_live(pool) && !pool->standard;
    for (struct pool_home *home = homes; live && home; home = home->next)
        if (home->current == pool)
            home->current = home->standard;
    if (live) {
        pool->state = POOL_ENDED;
        pool_settle(pool);
    }
    sim_unlock();
    return live ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

SIM_API CUresult cuMemPoolTrimTo(CUmemoryPool pool, size_t keep_bytes)
{
    SIM_ENTER();
    CUresult result = capture_forbid();
    if (result != CUDA_SUCCESS)
        return result;
    sim_lock();
    bool live = pool_is_live(pool);
    if (live)
        reservoir_trim(&pool->reservoir, keep_bytes);
    sim_unlock();
    return live ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

static bool attribute_is_switch(int attribute)
{
    return attribute >= CU_MEMPOOL_ATTR_REUSE_FOLLOW_EVENT_DEPENDENCIES &&
           attribute <= CU_MEMPOOL_ATTR_REUSE_ALLOW_INTERNAL_DEPENDENCIES;
}

/* Marks of the highest can be reset to zero, which makes them what is now. */
static CUresult attribute_set(CUmemoryPool pool, int attribute, uint64_t value)
{
    struct reservoir *reservoir = &pool->reservoir;
    switch (attribute) {
    case CU_MEMPOOL_ATTR_RELEASE_THRESHOLD:
        reservoir->threshold_bytes = value;
        return CUDA_SUCCESS;
    case CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH:
        if (value != 0)
            return CUDA_ERROR_INVALID_VALUE;
        reservoir->reserved_high_bytes = reservoir->reserved_bytes;
        return CUDA_SUCCESS;
    case CU_MEMPOOL_ATTR_USED_MEM_HIGH:
        if (value != 0)
            return CUDA_ERROR_INVALID_VALUE;
        reservoir->used_high_bytes = reservoir->used_bytes;
        return CUDA_SUCCESS;
    default:
        return CUDA_ERROR_INVALID_VALUE;
    }
}

SIM_API CUresult cuMemPoolSetAttribute(CUmemoryPool pool, int attribute, const void *value)
{
    SIM_ENTER();
    CUresult result = CUDA_ERROR_INVALID_VALUE;
    uint64_t wide = 0;
    int narrow = 0;
    if (!value)
        return CUDA_ERROR_INVALID_VALUE;
    bool is_switch = attribute_is_switch(attribute);
    memcpy(is_switch ? (void *)&narrow : (void *)&wide, value, is_switch ? sizeof(narrow) : sizeof(wide));
    sim_lock();
    if (pool_is_live(pool) && is_switch) {
        pool->reuse[attribute - 1] = narrow != 0;
        result = CUDA_SUCCESS;
    } else if (pool_is_live(pool)) {
        result = attribute_set(pool, attribute, wide);
    }
    sim_unlock();
    return result;
}

SIM_API CUresult cuMemPoolGetAttribute(CUmemoryPool pool, int attribute, void *value)
{
    SIM_ENTER();
    if (!value || attribute < CU_MEMPOOL_ATTR_REUSE_FOLLOW_EVENT_DEPENDENCIES ||
        attribute > CU_MEMPOOL_ATTR_USED_MEM_HIGH)
        return CUDA_ERROR_INVALID_VALUE;
    sim_lock();
    bool live = pool_is_live(pool);
    if (live && attribute_is_switch(attribute)) {
        memcpy(value, &pool->reuse[attribute - 1], sizeof(int));
    } else if (live) {
        const struct reservoir *reservoir = &pool->reservoir;
        const uint64_t values[] = {reservoir->threshold_bytes, reservoir->reserved_bytes,
                                   reservoir->reserved_high_bytes, reservoir->used_bytes, reservoir->used_high_bytes};
        memcpy(value, &values[attribute - CU_MEMPOOL_ATTR_RELEASE_THRESHOLD], sizeof(uint64_t));
    }
    sim_unlock();
    return live ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

/* One device's access to a pool, as the driver answers: its own device's cannot be taken away. */
static CUresult access_check(CUmemoryPool pool, const CUmemAccessDesc *access)
{
    if (access->location.type != CU_MEM_LOCATION_TYPE_DEVICE)
        return CUDA_ERROR_NOT_SUPPORTED;
    if (device_check(access->location.id) != CUDA_SUCCESS)
        return CUDA_ERROR_INVALID_DEVICE;
    bool own = pool->location.type == CU_MEM_LOCATION_TYPE_DEVICE && pool->location.id == access->location.id;
    switch (access->flags) {
    case CU_MEM_ACCESS_FLAGS_PROT_NONE:
        return own ? CUDA_ERROR_INVALID_DEVICE : CUDA_SUCCESS;
    case CU_MEM_ACCESS_FLAGS_PROT_READ:
        return CUDA_ERROR_NOT_SUPPORTED;
    case CU_MEM_ACCESS_FLAGS_PROT_READWRITE:
        return CUDA_SUCCESS;
    default:
        return CUDA_ERROR_INVALID_VALUE;
    }
}

SIM_API CUresult cuMemPoolSetAccess(CUmemoryPool pool, const CUmemAccessDesc *map, size_t count)
{
    SIM_ENTER();
    if (!map || count == 0)
        return CUDA_ERROR_INVALID_VALUE;
    sim_lock();
    CUresult result = pool_is_live(pool) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
    for (size_t i = 0; result == CUDA_SUCCESS && i < count; i++)
        result = access_check(pool, &map[i]);
    for (size_t i = 0; result == CUDA_SUCCESS && i < count; i++)
        pool->access[map[i].location.id] = map[i].flags;
    sim_unlock();
    return result;
}

SIM_API CUresult cuMemPoolGetAccess(int *flags, CUmemoryPool pool, const CUmemLocation *location)
{
    SIM_ENTER();
    if (!flags || !location)
        return CUDA_ERROR_INVALID_VALUE;
    bool of_device = location->type == CU_MEM_LOCATION_TYPE_DEVICE;
    if (of_device && device_check(location->id) != CUDA_SUCCESS)
        return CUDA_ERROR_INVALID_DEVICE;
    sim_lock();
    bool live = pool_is_live(pool);
    if (live)
        *flags = of_device ? pool->access[location->id]
                 : pool->location.type != CU_MEM_LOCATION_TYPE_DEVICE || pool->type == CU_MEM_ALLOCATION_TYPE_MANAGED
                     ? CU_MEM_ACCESS_FLAGS_PROT_READWRITE
                     : CU_MEM_ACCESS_FLAGS_PROT_NONE;
    sim_unlock();
    return live ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

/* The default or the current pool of a place. */
static CUresult home_read(CUmemoryPool *pool, const CUmemLocation *location, int type, bool current)
{
    CUresult result = pool ? location_check(location, type) : CUDA_ERROR_INVALID_VALUE;
    if (result != CUDA_SUCCESS)
        return result;
    sim_lock();
    const struct pool_home *home = home_find(location, type);
    if (home)
        *pool = current ? home->current : home->standard;
    sim_unlock();
    return home ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

static CUresult home_set(const CUmemLocation *location, int type, CUmemoryPool pool)
{
    CUresult result = location_check(location, type);
    if (result != CUDA_SUCCESS)
        return result;
    sim_lock();
    if (!pool_is_live(pool) || pool->type != type || pool->location.type != location->type ||
        pool->location.id != location_id(location))
        result = CUDA_ERROR_INVALID_VALUE;
    struct pool_home *home = result == CUDA_SUCCESS ? home_find(location, type) : NULL;
    if (home)
        home->current = pool;
    else if (result == CUDA_SUCCESS)
        result = CUDA_ERROR_OUT_OF_MEMORY;
    sim_unlock();
    return result;
}

SIM_API CUresult cuMemGetDefaultMemPool(CUmemoryPool *pool, const CUmemLocation *location, int type)
{
    SIM_ENTER();
    return home_read(pool, location, type, false);
}

SIM_API CUresult cuMemGetMemPool(CUmemoryPool *pool, const CUmemLocation *location, int type)
{
    SIM_ENTER();
    return home_read(pool, location, type, true);
}

SIM_API CUresult cuMemSetMemPool(const CUmemLocation *location, int type, CUmemoryPool pool)
{
    SIM_ENTER();
    return home_set(location, type, pool);
}

static CUresult device_home_read(CUmemoryPool *pool, CUdevice device, bool current)
{
    CUmemLocation location = {CU_MEM_LOCATION_TYPE_DEVICE, device};
    if (device_check(device) != CUDA_SUCCESS)
        return CUDA_ERROR_INVALID_DEVICE;
    return home_read(pool, &location, CU_MEM_ALLOCATION_TYPE_PINNED, current);
}

SIM_API CUresult cuDeviceGetDefaultMemPool(CUmemoryPool *pool, CUdevice device)
{
    SIM_ENTER();
    return device_home_read(pool, device, false);
}

SIM_API CUresult cuDeviceGetMemPool(CUmemoryPool *pool, CUdevice device)
{
    SIM_ENTER();
    return device_home_read(pool, device, true);
}

SIM_API CUresult cuDeviceSetMemPool(CUdevice device, CUmemoryPool pool)
{
    SIM_ENTER();
    CUmemLocation location = {CU_MEM_LOCATION_TYPE_DEVICE, device};
    if (device_check(device) != CUDA_SUCCESS)
        return CUDA_ERROR_INVALID_DEVICE;
    return home_set(&location, CU_MEM_ALLOCATION_TYPE_PINNED, pool);
}
