/*
 * A CUDA program that drives all families of device memory at once from four threads over two devices, and keeps a plain model of
 * what it holds. It knows nothing of cubudget: test_families.c starts it preloaded. Commands on its standard input, one a line,
 * each answered with one line ("error ..." ends the program):
 *
 *   init CONTEXT_BYTES   the primary context of both devices; what one costs here
 *   run MS SEED          at random for so long; says "half" on the way, and "ok GRANTED REFUSED" at the end
 *   quiet SEED           ends what the model cannot know exactly, makes a few things that it can: "ok BYTES BYTES", per device
 *   empty                ends all, the contexts too
 *   quit
 *
 * Threads pass objects to each other through the exchange, under its lock; else each has its own.
 */
#include <dlfcn.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "integration/family.h"

enum { WORKERS = 4, OBJECTS = 14, EXCHANGED = 8, KNOWN = 12 };

struct functions driver;
CUcontext primary[DEVICES];
CUmemoryPool common_pool[DEVICES];
uint64_t context_bytes;

static struct worker workers[WORKERS];
static struct object objects[WORKERS][OBJECTS], exchanged[EXCHANGED], known[KNOWN];
static pthread_mutex_t exchange = PTHREAD_MUTEX_INITIALIZER;
static atomic_bool stopping;
static unsigned long
    families; /* which, as bits; all but where FAMILIES_ONLY says otherwise: to narrow a failure down */

static void driver_load(void)
{
    void *handle = dlopen("libcuda.so.1", RTLD_NOW);
#define F(name, parameters)                                                                                            \
    *(void **)&driver.name = handle ? dlsym(handle, #name) : NULL;                                                     \
    if (!driver.name) {                                                                                                \
        printf("error no %s\n", #name);                                                                                \
        exit(2);                                                                                                       \
    }
    FUNCTIONS(F)
#undef F
}

bool worker_accepts(struct worker *worker, const char *doing, CUresult result)
{
    if (result == CUDA_SUCCESS)
        return true;
    if (result == CUDA_ERROR_OUT_OF_MEMORY) {
        worker->refused++;
        return true;
    }
    worker->doing = doing;
    worker->result = result;
    return false;
}

/* Nothing but success will do: what is ended was there. */
static bool worker_needs(struct worker *worker, const char *doing, CUresult result)
{
    if (result == CUDA_SUCCESS)
        return true;
    worker->doing = doing;
    worker->result = result;
    return false;
}

static const char *const family_names[FAMILIES] = {
    [FAMILY_NONE] = "nothing",
    [FAMILY_LINEAR] = "linear memory",
    [FAMILY_PITCH] = "pitched memory",
    [FAMILY_MANAGED] = "managed memory",
    [FAMILY_ASYNC] = "async memory",
    [FAMILY_FROM_POOL] = "memory of a pool",
    [FAMILY_PHYSICAL] = "physical memory",
    [FAMILY_ARRAY] = "an array",
    [FAMILY_MIPMAP] = "a mipmapped array",
    [FAMILY_GRAPH] = "a graph",
    [FAMILY_CONTEXT] = "a context",
};

/* --- a thread's life ------------------------------------------------------------------------------------------------------- */

static bool worker_begin(struct worker *worker)
{
    for (unsigned device = 0; device < DEVICES; device++) {
        if (!worker_needs(worker, "cuCtxSetCurrent", driver.cuCtxSetCurrent(primary[device])) ||
            !worker_needs(worker, "cuStreamCreate", driver.cuStreamCreate(&worker->stream[device], 1)) ||
            !worker_needs(worker, "cuMemPoolCreate", pool_make(worker, device)))
            return false;
    }
    return true;
}

static bool pool_remake(struct worker *worker, unsigned device)
{
    return worker_needs(worker, "cuMemPoolDestroy", driver.cuMemPoolDestroy(worker->pool[device])) &&
           worker_needs(worker, "cuMemPoolCreate", pool_make(worker, device));
}

/* What concerns no object in particular. */
static bool worker_tidies(struct worker *worker, unsigned device)
{
    size_t free_bytes, total_bytes;
    uint64_t threshold = worker_random(worker, 2) ? UINT64_MAX : 0;
    if (!worker_needs(worker, "cuCtxSetCurrent", driver.cuCtxSetCurrent(primary[device])))
        return false;
    switch (worker_random(worker, 9)) {
    case 0:
        return worker_needs(worker, "cuMemPoolTrimTo",
                            driver.cuMemPoolTrimTo(worker->pool[device], worker_random(worker, 64) * MIB));
    case 1:
        return worker_needs(worker, "cuMemPoolTrimTo (default)", driver.cuMemPoolTrimTo(common_pool[device], 0));
    case 2:
        return worker_needs(worker, "cuDeviceGraphMemTrim", driver.cuDeviceGraphMemTrim((CUdevice)device));
    case 3:
        return worker_needs(worker, "cuCtxSynchronize", driver.cuCtxSynchronize());
    case 4:
        return worker_needs(
            worker, "cuMemPoolSetAttribute",
            driver.cuMemPoolSetAttribute(worker->pool[device], CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, &threshold));
    case 5:
        return pool_remake(worker, device);
    case 6:
        return worker_needs(worker, "cuMemGetInfo", driver.cuMemGetInfo_v2(&free_bytes, &total_bytes)) &&
               worker_needs(worker, "more free than there is", free_bytes > total_bytes);
    default:
        return worker_needs(worker, "cuStreamSynchronize", driver.cuStreamSynchronize(worker->stream[device]));
    }
}

static void object_exchange(struct worker *worker, struct object *object)
{
    pthread_mutex_lock(&exchange);
    struct object *other = &exchanged[worker_random(worker, EXCHANGED)], kept = *other;
    *other = *object;
    *object = kept;
    pthread_mutex_unlock(&exchange);
}

static bool worker_turn(struct worker *worker, struct object *own)
{
    struct object *object = &own[worker_random(worker, OBJECTS)];
    unsigned device = (unsigned)worker_random(worker, DEVICES);
    uint64_t choice = worker_random(worker, 16);
    if (choice < 3)
        return worker_tidies(worker, device);
    if (choice == 3) {
        object_exchange(worker, object);
        return true;
    }
    const char *name = family_names[object->family];
    if (object->family != FAMILY_NONE) {
        if (choice < 8 || object->family == FAMILY_GRAPH)
            return worker_random(worker, 4) == 0 ? worker_needs(worker, name, object_end(worker, object))
                                                 : worker_accepts(worker, name, object_step(worker, object));
        return worker_needs(worker, name, object_end(worker, object));
    }
    enum family family = (enum family)(worker_random(worker, FAMILIES - 1) + 1);
    if (family == FAMILY_CONTEXT && worker_random(worker, 4) != 0) /* the most expensive: fewer of them */
        family = FAMILY_LINEAR;
    if ((families & 1ul << family) == 0)
        return true;
    CUresult result = object_make(worker, object, family, device);
    worker->granted += result == CUDA_SUCCESS;
    return worker_accepts(worker, family_names[family], result);
}

static void *worker_run(void *argument)
{
    unsigned number = *(const unsigned *)argument;
    struct worker *worker = &workers[number];
    if (worker_begin(worker))
        while (!atomic_load(&stopping) && worker_turn(worker, objects[number]))
            continue;
    return NULL;
}

/* --- commands -------------------------------------------------------------------------------------------------------------- */

static void say_error(const struct worker *worker)
{
    printf("error %d: %s\n", worker->result, worker->doing);
}

static bool workers_are_well(void)
{
    for (unsigned i = 0; i < WORKERS; i++)
        if (workers[i].result != CUDA_SUCCESS) {
            say_error(&workers[i]);
            return false;
        }
    return true;
}

static void rest(unsigned long ms)
{
    struct timespec time = {.tv_sec = (time_t)(ms / 1000), .tv_nsec = (long)(ms % 1000) * 1000000};
    nanosleep(&time, NULL);
}

static void command_run(unsigned long ms, uint64_t seed)
{
    pthread_t threads[WORKERS];
    static unsigned numbers[WORKERS];
    unsigned long granted = 0, refused = 0;
    for (unsigned i = 0; i < WORKERS; i++) {
        numbers[i] = i;
        workers[i].random = (seed + i + 1) * 0x9E3779B97F4A7C15u | 1;
        if (pthread_create(&threads[i], NULL, worker_run, &numbers[i]) != 0)
            abort();
    }
    rest(ms / 2);
    printf("half\n");
    fflush(stdout);
    rest(ms - ms / 2);
    atomic_store(&stopping, true);
    for (unsigned i = 0; i < WORKERS; i++) {
        pthread_join(threads[i], NULL);
        granted += workers[i].granted;
        refused += workers[i].refused;
    }
    if (workers_are_well())
        printf("ok %lu %lu\n", granted, refused);
}

static struct worker *object_worker(struct object *object)
{
    return &workers[object->device % WORKERS];
}

/* Ends objects: all of them, or those whose cost the model cannot know. */
static bool objects_end(struct object *list, unsigned count, bool all)
{
    for (unsigned i = 0; i < count; i++) {
        struct worker *worker = object_worker(&list[i]);
        const char *name = family_names[list[i].family];
        if ((all || !list[i].exact) && !worker_needs(worker, name, object_end(worker, &list[i])))
            return false;
    }
    return true;
}

static bool all_end(bool all)
{
    for (unsigned i = 0; i < WORKERS; i++)
        if (!objects_end(objects[i], OBJECTS, all))
            return false;
    return objects_end(exchanged, EXCHANGED, all) && objects_end(known, KNOWN, all);
}

/* After this pools and graphs reserve nothing. */
static bool reserves_end(void)
{
    struct worker *worker = &workers[0];
    for (unsigned device = 0; device < DEVICES; device++) {
        if (!worker_needs(worker, "cuCtxSetCurrent", driver.cuCtxSetCurrent(primary[device])) ||
            !worker_needs(worker, "cuCtxSynchronize", driver.cuCtxSynchronize()) ||
            !worker_needs(worker, "cuMemPoolTrimTo", driver.cuMemPoolTrimTo(common_pool[device], 0)) ||
            !worker_needs(worker, "cuDeviceGraphMemTrim", driver.cuDeviceGraphMemTrim((CUdevice)device)))
            return false;
        for (unsigned i = 0; i < WORKERS; i++)
            if (!worker_needs(worker, "cuMemPoolTrimTo", driver.cuMemPoolTrimTo(workers[i].pool[device], 0)))
                return false;
    }
    return true;
}

/* Makes a thing beside the random ones whose cost the model takes from the arguments. A refusal costs nothing. */
static bool known_add(struct object *object, CUresult result, uint64_t bytes)
{
    if (result != CUDA_SUCCESS)
        object->family = FAMILY_NONE;
    object->bytes = bytes;
    object->exact = true;
    return worker_accepts(&workers[0], "a thing of known cost", result);
}

static uint64_t steps_of(uint64_t bytes)
{
    return (bytes + 32 * MIB - 1) / (32 * MIB) * (32 * MIB);
}

/* On one device: an allocation of each pool, which is empty; a graph's; small things that fit one block. */
static bool known_make(struct object *list, unsigned device)
{
    struct worker *worker = &workers[0];
    uint64_t bytes = worker_random(worker, 90 * MIB) + 1;
    CUDA_ARRAY3D_DESCRIPTOR shape = {.Width = 256, .Height = 256, .Format = CU_AD_FORMAT_FLOAT, .NumChannels = 1};
    for (unsigned i = 0; i < KNOWN / DEVICES; i++)
        list[i] = (struct object){.device = device};
    if (!worker_needs(worker, "cuCtxSetCurrent", driver.cuCtxSetCurrent(primary[device])) ||
        !known_add(&list[0], pooled_make(worker, &list[0], FAMILY_ASYNC, bytes), steps_of(bytes)) ||
        !known_add(&list[1], pooled_make(worker, &list[1], FAMILY_FROM_POOL, bytes / 2 + 1), steps_of(bytes / 2 + 1)) ||
        !known_add(&list[2], graph_make(worker, &list[2], bytes / 3 + 1), steps_of(bytes / 3 + 1)))
        return false;
    list[3].family = FAMILY_LINEAR;
    if (!known_add(&list[3], driver.cuMemAlloc_v2(&list[3].address, 1000), 2 * MIB))
        return false;
    if (list[3].family == FAMILY_NONE)
        return true;
    list[4].family = FAMILY_ARRAY;
    list[5].family = FAMILY_LINEAR;
    return known_add(&list[4], driver.cuArray3DCreate_v2((CUarray *)&list[4].handle, &shape), 0) &&
           known_add(&list[5], driver.cuMemAlloc_v2(&list[5].address, MIB), 0);
}

static void model_add(const struct object *list, unsigned count, uint64_t model[DEVICES])
{
    for (unsigned i = 0; i < count; i++)
        if (list[i].family != FAMILY_NONE)
            model[list[i].device] += list[i].bytes;
}

static void command_quiet(uint64_t seed)
{
    uint64_t model[DEVICES] = {context_bytes, context_bytes};
    workers[0].random = seed * 0x9E3779B97F4A7C15u | 1;
    if (!all_end(false) || !reserves_end() || !known_make(known, 0) || !known_make(known + KNOWN / DEVICES, 1)) {
        (void)workers_are_well();
        return;
    }
    for (unsigned i = 0; i < WORKERS; i++)
        model_add(objects[i], OBJECTS, model);
    model_add(exchanged, EXCHANGED, model);
    model_add(known, KNOWN, model);
    printf("ok %llu %llu\n", (unsigned long long)model[0], (unsigned long long)model[1]);
}

static bool worker_finish(struct worker *worker)
{
    for (unsigned device = 0; device < DEVICES; device++)
        if (!worker_needs(worker, "cuCtxSetCurrent", driver.cuCtxSetCurrent(primary[device])) ||
            !worker_needs(worker, "cuMemPoolDestroy", driver.cuMemPoolDestroy(worker->pool[device])) ||
            !worker_needs(worker, "cuStreamDestroy", driver.cuStreamDestroy_v2(worker->stream[device])))
            return false;
    return true;
}

static void command_empty(void)
{
    bool well = all_end(true) && reserves_end();
    for (unsigned i = 0; i < WORKERS && well; i++)
        well = worker_finish(&workers[i]);
    for (unsigned device = 0; device < DEVICES && well; device++)
        well = worker_needs(&workers[0], "cuDevicePrimaryCtxRelease",
                            driver.cuDevicePrimaryCtxRelease_v2((CUdevice)device));
    if (workers_are_well())
        printf("ok\n");
}

static void command_init(uint64_t bytes)
{
    struct worker *worker = &workers[0];
    context_bytes = bytes;
    bool well = worker_needs(worker, "cuInit", driver.cuInit(0));
    for (unsigned device = 0; device < DEVICES && well; device++)
        well = worker_needs(worker, "cuDevicePrimaryCtxRetain",
                            driver.cuDevicePrimaryCtxRetain(&primary[device], (CUdevice)device)) &&
               worker_needs(worker, "cuDeviceGetDefaultMemPool",
                            driver.cuDeviceGetDefaultMemPool(&common_pool[device], (CUdevice)device));
    if (workers_are_well())
        printf("ok\n");
}

int main(void)
{
    char line[256];
    unsigned long ms;
    unsigned long long number;
    const char *only = getenv("FAMILIES_ONLY");
    families = only && *only ? strtoul(only, NULL, 0) : ~0ul;
    driver_load();
    while (fgets(line, sizeof(line), stdin)) {
        line[strcspn(line, "\n")] = '\0';
        if (strcmp(line, "quit") == 0)
            return 0;
        if (sscanf(line, "init %llu", &number) == 1)
            command_init(number);
        else if (sscanf(line, "run %lu %llu", &ms, &number) == 2)
            command_run(ms, number);
        else if (sscanf(line, "quiet %llu", &number) == 1)
            command_quiet(number);
        else if (strcmp(line, "empty") == 0)
            command_empty();
        else
            abort();
        fflush(stdout);
    }
    return 0;
}
