/*
 * Pools and buffers of the C API. Called by programs, from any thread.
 *
 * A handle is an index and a generation: the generation of an entry moves on when it is given back, so that a handle that is used
 * after its end is found out, whatever has the entry now. One lock guards the table; it is never held across a call of the driver.
 * While one is under way for a pool the pool counts it, and closing waits for the count, so that nothing is freed under a call.
 * A forked child of a process with pools knows by the process id that the table is not its own, before it takes a lock that
 * nobody may ever give. It never has one: CUDA cannot be initialised in the child of a process that has used it.
 */
#include "config.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "api/api.h"
#include "evict/agent.h"
#include "platform/gate.h"

enum { POOLS_MAX = 256, BUFFERS_FIRST = 64 };

/* One place for a buffer. `generation` is even while it is free, and odd while a buffer is in it. */
struct place {
    uint32_t generation;
    uint32_t next_free; /* index + 1 of the next free place; of those that are */
    uint64_t pointer;
    size_t bytes;
};

struct pool {
    uint32_t generation; /* as a place's */
    bool closing;
    unsigned calls; /* of the driver, under way */
    struct cubudget_device device;
    CUcontext context; /* the device's primary one, retained */
    uint64_t limit_bytes, used_bytes, peak_bytes, buffers;
    struct place *places;
    uint32_t places_count, first_free; /* index + 1 */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t calls_ended = PTHREAD_COND_INITIALIZER;
static struct pool pools[POOLS_MAX];
static _Atomic(pid_t) owner; /* the process that made the first pool: all there ever are. 0: there was none */

/* --- the driver ------------------------------------------------------------------------------------------------------------ */

/* What every call of the driver needs: the gate passed, and the pool's context current. */
struct visit {
    bool entered;
    CUresult result;
};

static struct visit visit_begin(const struct driver *driver, CUcontext context)
{
    struct visit visit = {.entered = gate_enter()};
    visit.result = driver->cuCtxPushCurrent_v2(context);
    if (visit.result != CUDA_SUCCESS && visit.entered)
        gate_leave();
    return visit;
}

static void visit_end(const struct driver *driver, const struct visit *visit)
{
    CUcontext left;
    (void)driver->cuCtxPopCurrent_v2(&left);
    if (visit->entered)
        gate_leave();
}

static CUresult memory_take(const struct driver *driver, CUcontext context, size_t bytes, CUdeviceptr *pointer)
{
    struct charge charge;
    bool passes;
    struct visit visit = visit_begin(driver, context);
    if (visit.result != CUDA_SUCCESS)
        return visit.result;
    CUresult result = CUDA_ERROR_OUT_OF_MEMORY;
    if (account_ask(driver, LEDGER_KIND_LINEAR, linear_cost(bytes), &charge, &passes)) {
        result = driver->cuMemAlloc_v2(pointer, bytes);
        if (result == CUDA_SUCCESS)
            account_record(&charge, *pointer, bytes);
        else
            account_abandon(&charge);
    } else if (passes)
        result = driver->cuMemAlloc_v2(pointer, bytes);
    visit_end(driver, &visit);
    return result;
}

static CUresult memory_give(const struct driver *driver, CUcontext context, CUdeviceptr pointer)
{
    struct visit visit = visit_begin(driver, context);
    if (visit.result != CUDA_SUCCESS)
        return visit.result;
    int leaving = account_freeing(pointer);
    CUresult result = driver->cuMemFree_v2(pointer);
    if (result == CUDA_SUCCESS)
        (void)account_freed(pointer);
    if (leaving != 0)
        account_leaving(-leaving);
    visit_end(driver, &visit);
    return result;
}

static CUresult context_retain(const struct driver *driver, CUdevice device, CUcontext *context)
{
    struct context_charge charge;
    bool entered = gate_enter();
    CUresult result = CUDA_ERROR_OUT_OF_MEMORY;
    if (context_begin(driver, device, true, &charge)) {
        result = driver->cuDevicePrimaryCtxRetain(context, device);
        context_end(&charge, result, result == CUDA_SUCCESS ? *context : NULL, true);
        if (result == CUDA_SUCCESS && account_is_attached())
            agent_start();
    }
    if (entered)
        gate_leave();
    return result;
}

static CUresult context_release(const struct driver *driver, CUdevice device)
{
    struct context_ending ending;
    bool entered = gate_enter();
    context_ending_begin(NULL, device, &ending);
    account_leaving(+1);
    CUresult result = driver->cuDevicePrimaryCtxRelease_v2(device);
    context_ending_end(&ending, result == CUDA_SUCCESS && context_primary_is_gone(driver, device));
    account_leaving(-1);
    if (entered)
        gate_leave();
    return result;
}

/* --- handles ----------------------------------------------------------------------------------------------------------------- */

static uint64_t handle_make(uint32_t generation, size_t index)
{
    return (uint64_t)generation << 32 | (uint32_t)(index + 1);
}

/* Where a handle that names a place of that generation finds it now. */
enum found { FOUND, GONE, NEVER };
static enum found handle_judge(uint64_t handle, uint32_t generation)
{
    uint32_t then = (uint32_t)(handle >> 32);
    if (then == generation && (generation & 1) != 0)
        return FOUND;
    return (then & 1) != 0 && then < generation ? GONE : NEVER;
}

/* The pool of a handle, with the lock held on success. */
static enum cubudget_error pool_find(struct cubudget_pool handle, struct pool **found)
{
    size_t index = (size_t)(uint32_t)handle.handle - 1;
    if (index >= POOLS_MAX)
        return api_fail(CUBUDGET_ERROR_FOREIGN, "that is no pool");
    struct pool *pool = &pools[index];
    pid_t process = atomic_load(&owner);
    if (process != getpid())
        return process == 0 ? api_fail(CUBUDGET_ERROR_FOREIGN, "that is no pool")
                            : api_fail(CUBUDGET_ERROR_FORKED, "the pool is of process %d", (int)process);
    (void)pthread_mutex_lock(&lock);
    enum found state = handle_judge(handle.handle, pool->generation);
    if (state == FOUND && !pool->closing) {
        *found = pool;
        return CUBUDGET_OK;
    }
    (void)pthread_mutex_unlock(&lock);
    return state == NEVER ? api_fail(CUBUDGET_ERROR_FOREIGN, "that is no pool")
                          : api_fail(CUBUDGET_ERROR_POOL_CLOSED, NULL);
}

/* The place of a buffer in its pool, under the lock, which is given on failure. */
static enum cubudget_error place_find(struct pool *pool, const struct cubudget_buffer *buffer, struct place **found)
{
    size_t index = (size_t)(uint32_t)buffer->handle - 1;
    enum found state =
        index < pool->places_count ? handle_judge(buffer->handle, pool->places[index].generation) : NEVER;
    if (state == FOUND && pool->places[index].pointer == buffer->pointer) {
        *found = &pool->places[index];
        return CUBUDGET_OK;
    }
    (void)pthread_mutex_unlock(&lock);
    return state == GONE ? api_fail(CUBUDGET_ERROR_FREED, NULL)
                         : api_fail(CUBUDGET_ERROR_FOREIGN, "that is no buffer of this pool");
}

static bool places_grow(struct pool *pool)
{
    uint32_t before = pool->places_count, after = before == 0 ? BUFFERS_FIRST : before * 2;
    struct place *places = after > before ? realloc(pool->places, after * sizeof *places) : NULL;
    if (places == NULL)
        return false;
    memset(places + before, 0, (after - before) * sizeof *places);
    for (uint32_t i = after; i-- > before;) {
        places[i].next_free = pool->first_free;
        pool->first_free = i + 1;
    }
    pool->places = places;
    pool->places_count = after;
    return true;
}

static void place_give(struct pool *pool, struct place *place)
{
    place->generation += (place->generation & 1);
    place->pointer = 0;
    place->next_free = pool->first_free;
    pool->first_free = (uint32_t)(place - pool->places) + 1;
}

static void call_end(struct pool *pool)
{
    if (--pool->calls == 0)
        (void)pthread_cond_broadcast(&calls_ended);
}

/* --- making a pool ---------------------------------------------------------------------------------------------------------- */

/* Whether the table is this process's to use. */
static bool table_own(void)
{
    pid_t self = getpid(), before = 0;
    return atomic_compare_exchange_strong(&owner, &before, self) || before == self;
}

/* An entry that is nobody's, marked as ours while its context is made; NULL: there is none. */
static struct pool *pool_take(void)
{
    struct pool *taken = NULL;
    (void)pthread_mutex_lock(&lock);
    for (size_t i = 0; i < POOLS_MAX && taken == NULL; i++)
        if ((pools[i].generation & 1) == 0 && !pools[i].closing)
            taken = &pools[i];
    if (taken != NULL)
        taken->closing = true;
    (void)pthread_mutex_unlock(&lock);
    return taken;
}

enum cubudget_error cubudget_pool_create(struct cubudget_device device, uint64_t limit_bytes,
                                         struct cubudget_pool *pool)
{
    const struct driver *driver;
    CUdevice ordinal;
    CUcontext context;
    if (pool == NULL || limit_bytes == 0)
        return api_fail(CUBUDGET_ERROR_INVALID, pool == NULL ? "pool is NULL" : "a limit of 0 bytes holds nothing");
    enum cubudget_error error = api_start(&driver);
    if (error != CUBUDGET_OK)
        return error;
    bool entered = gate_enter();
    CUresult result = driver->cuDeviceGet(&ordinal, device.ordinal);
    if (entered)
        gate_leave();
    if (result != CUDA_SUCCESS)
        return result == CUDA_ERROR_INVALID_DEVICE
                   ? api_fail(CUBUDGET_ERROR_NO_DEVICE, "CUDA shows this process no device %d", device.ordinal)
                   : api_fail_cuda(result, "cuDeviceGet");
    if (!table_own())
        return api_fail(CUBUDGET_ERROR_FORKED, "this process was forked from one that has pools");
    struct pool *taken = pool_take();
    if (taken == NULL)
        return api_fail(CUBUDGET_ERROR_TOO_MANY, "a process has at most %d pools", POOLS_MAX);
    result = context_retain(driver, ordinal, &context);
    (void)pthread_mutex_lock(&lock);
    if (result == CUDA_SUCCESS) {
        *taken = (struct pool){
            .generation = taken->generation + 1,
            .device = device,
            .context = context,
            .limit_bytes = limit_bytes,
        };
        pool->handle = handle_make(taken->generation, (size_t)(taken - pools));
    }
    taken->closing = false;
    (void)pthread_mutex_unlock(&lock);
    return result == CUDA_SUCCESS ? CUBUDGET_OK : api_fail_cuda(result, "cuDevicePrimaryCtxRetain");
}

enum cubudget_error cubudget_pool_close(struct cubudget_pool handle)
{
    const struct driver *driver = driver_bound();
    struct pool *pool;
    enum cubudget_error error = pool_find(handle, &pool);
    if (error != CUBUDGET_OK)
        return error;
    pool->closing = true; /* no call begins any more */
    while (pool->calls != 0)
        (void)pthread_cond_wait(&calls_ended, &lock);
    (void)pthread_mutex_unlock(&lock);
    CUresult result = CUDA_SUCCESS;
    for (uint32_t i = 0; i < pool->places_count; i++)
        if ((pool->places[i].generation & 1) != 0) {
            CUresult freed = memory_give(driver, pool->context, pool->places[i].pointer);
            result = freed != CUDA_SUCCESS ? freed : result;
        }
    CUresult released = context_release(driver, pool->device.ordinal);
    free(pool->places);
    (void)pthread_mutex_lock(&lock);
    *pool = (struct pool){.generation = pool->generation + 1};
    (void)pthread_mutex_unlock(&lock);
    return result != CUDA_SUCCESS     ? api_fail_cuda(result, "cuMemFree")
           : released != CUDA_SUCCESS ? api_fail_cuda(released, "cuDevicePrimaryCtxRelease")
                                      : CUBUDGET_OK;
}

/* --- allocating ----------------------------------------------------------------------------------------------------------------- */

/* Takes bytes of the pool's limit, and a place for the buffer; under the lock, which is given. */
static enum cubudget_error pool_begin(struct pool *pool, size_t bytes, uint32_t *place)
{
    enum cubudget_error error = CUBUDGET_OK;
    if (bytes > pool->limit_bytes - pool->used_bytes)
        error = api_fail(CUBUDGET_ERROR_POOL_LIMIT, "%llu of %llu bytes are used, and %zu are asked for",
                         (unsigned long long)pool->used_bytes, (unsigned long long)pool->limit_bytes, bytes);
    else if (pool->first_free == 0 && !places_grow(pool))
        error = api_fail(CUBUDGET_ERROR_NO_HOST_MEMORY, NULL);
    else {
        *place = pool->first_free - 1;
        pool->first_free = pool->places[*place].next_free;
        pool->used_bytes += bytes;
        pool->calls++;
    }
    (void)pthread_mutex_unlock(&lock);
    return error;
}

static void pool_end(struct pool *pool, uint32_t index, CUresult result, CUdeviceptr pointer, size_t bytes,
                     struct cubudget_pool handle, struct cubudget_buffer *buffer)
{
    (void)pthread_mutex_lock(&lock);
    struct place *place = &pool->places[index];
    if (result == CUDA_SUCCESS) {
        place->generation++;
        place->pointer = pointer;
        place->bytes = bytes;
        pool->buffers++;
        if (pool->used_bytes > pool->peak_bytes)
            pool->peak_bytes = pool->used_bytes;
        *buffer = (struct cubudget_buffer){
            .pointer = pointer,
            .size = bytes,
            .pool = handle,
            .handle = handle_make(place->generation, index),
        };
    } else {
        place_give(pool, place);
        pool->used_bytes -= bytes;
    }
    call_end(pool);
    (void)pthread_mutex_unlock(&lock);
}

enum cubudget_error cubudget_pool_alloc(struct cubudget_pool handle, size_t bytes, struct cubudget_buffer *buffer)
{
    struct pool *pool;
    CUdeviceptr pointer = 0;
    uint32_t place = 0;
    int before = errno;
    if (buffer == NULL || bytes == 0)
        return api_fail(CUBUDGET_ERROR_INVALID, buffer == NULL ? "buffer is NULL" : "a buffer of 0 bytes is none");
    enum cubudget_error error = pool_find(handle, &pool);
    if (error == CUBUDGET_OK)
        error = pool_begin(pool, bytes, &place);
    if (error != CUBUDGET_OK)
        return error;
    CUresult result = memory_take(driver_bound(), pool->context, bytes, &pointer);
    pool_end(pool, place, result, pointer, bytes, handle, buffer);
    errno = before;
    return result == CUDA_SUCCESS ? CUBUDGET_OK : api_fail_cuda(result, "cuMemAlloc");
}

/* --- freeing ---------------------------------------------------------------------------------------------------------------------- */

/* While the driver is at it the buffer counts as freed: another thread that frees it too is told. */
static enum cubudget_error buffer_free(struct cubudget_pool handle, struct cubudget_buffer *buffer)
{
    struct pool *pool;
    struct place *place = NULL;
    enum cubudget_error error = pool_find(handle, &pool);
    if (error == CUBUDGET_OK)
        error = place_find(pool, buffer, &place);
    if (error != CUBUDGET_OK)
        return error;
    uint32_t index = (uint32_t)(place - pool->places);
    size_t bytes = place->bytes;
    place->generation++;
    pool->calls++;
    (void)pthread_mutex_unlock(&lock);
    CUresult result = memory_give(driver_bound(), pool->context, buffer->pointer);
    (void)pthread_mutex_lock(&lock);
    place = &pool->places[index]; /* the table may have grown */
    if (result == CUDA_SUCCESS) {
        place_give(pool, place);
        pool->used_bytes -= bytes;
        pool->buffers--;
    } else
        place->generation--; /* it is there still */
    call_end(pool);
    (void)pthread_mutex_unlock(&lock);
    if (result != CUDA_SUCCESS)
        return api_fail_cuda(result, "cuMemFree");
    *buffer = (struct cubudget_buffer){0};
    return CUBUDGET_OK;
}

enum cubudget_error cubudget_pool_free(struct cubudget_pool pool, struct cubudget_buffer *buffer)
{
    int before = errno;
    if (buffer == NULL)
        return api_fail(CUBUDGET_ERROR_INVALID, "buffer is NULL");
    if (buffer->handle == 0)
        return CUBUDGET_OK;
    if (buffer->pool.handle != pool.handle)
        return api_fail(CUBUDGET_ERROR_FOREIGN, "the buffer is of another pool");
    enum cubudget_error error = buffer_free(pool, buffer);
    errno = before;
    return error;
}

enum cubudget_error cubudget_buffer_free(struct cubudget_buffer *buffer)
{
    return cubudget_pool_free(buffer != NULL ? buffer->pool : (struct cubudget_pool){0}, buffer);
}

/* --- what it is --------------------------------------------------------------------------------------------------------------------- */

/* What the slot could be granted and the card has. */
static uint64_t room_of(const struct driver *driver, CUcontext context, int ordinal)
{
    size_t free_on_card = SIZE_MAX, total;
    uint64_t free_bytes = UINT64_MAX, total_bytes;
    struct visit visit = visit_begin(driver, context);
    if (visit.result != CUDA_SUCCESS)
        return 0;
    (void)driver->cuMemGetInfo_v2(&free_on_card, &total);
    (void)account_view(ordinal, &free_bytes, &total_bytes);
    visit_end(driver, &visit);
    return free_bytes < free_on_card ? free_bytes : free_on_card;
}

enum cubudget_error cubudget_pool_info(struct cubudget_pool handle, struct cubudget_pool_info *info)
{
    struct pool *pool;
    if (info == NULL || info->size < sizeof info->size)
        return api_fail(CUBUDGET_ERROR_INVALID, "info is NULL, or its size is not set");
    enum cubudget_error error = pool_find(handle, &pool);
    if (error != CUBUDGET_OK)
        return error;
    struct cubudget_pool_info seen = {
        .size = sizeof seen,
        .device = pool->device,
        .limit_bytes = pool->limit_bytes,
        .used_bytes = pool->used_bytes,
        .peak_bytes = pool->peak_bytes,
        .buffers = pool->buffers,
    };
    CUcontext context = pool->context;
    pool->calls++;
    (void)pthread_mutex_unlock(&lock);
    uint64_t room = room_of(driver_bound(), context, seen.device.ordinal), left = seen.limit_bytes - seen.used_bytes;
    seen.available_bytes = room < left ? room : left;
    seen.pressure = (enum cubudget_pressure)account_pressure(seen.device.ordinal);
    (void)pthread_mutex_lock(&lock);
    call_end(pool);
    (void)pthread_mutex_unlock(&lock);
    size_t size = info->size < sizeof seen ? info->size : sizeof seen;
    memcpy(info, &seen, size);
    info->size = size;
    return CUBUDGET_OK;
}
