/*
 * The client's commands on pools and graphs:
 *   async INDEX BYTES        cuMemAllocAsync on the client's stream
 *   asyncfree INDEX          cuMemFreeAsync
 *   sync | eventsync         cuStreamSynchronize | cuEventSynchronize
 *   trim BYTES               cuMemPoolTrimTo of the default pool
 *   threshold BYTES          its release threshold
 *   newpool HOST             cuMemPoolCreate, on device 0 or (HOST 1) in the host's memory
 *   frompool INDEX BYTES     cuMemAllocFromPoolAsync of that pool
 *   keepown                  a release threshold for it: it keeps all that it has
 *   delpool                  cuMemPoolDestroy of it
 *   deldefault               cuMemPoolDestroy of the default pool
 *   reserved                 "ok BYTES": what the default pool says it has reserved
 *   poolthreads COUNT ROUNDS SEED MAX  random allocations of up to MAX bytes from the default pool by COUNT threads, each with
 *                            a stream of its own, all freed at the end: "ok GRANTED REFUSED"
 *   graph N BYTES NODES FREE FLAGS   instantiates a graph of NODES allocations of BYTES, each freed at once where FREE is 1
 *   capture N BYTES          instantiates a graph captured from cuMemAllocAsync and cuMemFreeAsync
 *   launch N | upload N      on the client's stream, which is synchronised
 *   graphfree N              cuMemFreeAsync of the graph's first allocation
 *   graphdestroy N           the instance and the graph
 *   graphtrim                cuDeviceGraphMemTrim
 *   graphreserved            "ok BYTES"
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "integration/client.h"

static struct {
    CUresult (*stream_create)(CUstream *, unsigned);
    CUresult (*stream_synchronize)(CUstream);
    CUresult (*event_create)(CUevent *, unsigned);
    CUresult (*event_record)(CUevent, CUstream);
    CUresult (*event_synchronize)(CUevent);
    CUresult (*alloc)(CUdeviceptr *, size_t, CUstream);
    CUresult (*alloc_from)(CUdeviceptr *, size_t, CUmemoryPool, CUstream);
    CUresult (*release)(CUdeviceptr, CUstream);
    CUresult (*default_pool)(CUmemoryPool *, CUdevice);
    CUresult (*create)(CUmemoryPool *, const CUmemPoolProps *);
    CUresult (*destroy)(CUmemoryPool);
    CUresult (*trim)(CUmemoryPool, size_t);
    CUresult (*set)(CUmemoryPool, int, void *);
    CUresult (*get)(CUmemoryPool, int, void *);
    CUresult (*graph_create)(CUgraph *, unsigned);
    CUresult (*add_alloc)(CUgraphNode *, CUgraph, const CUgraphNode *, size_t, CUDA_MEM_ALLOC_NODE_PARAMS *);
    CUresult (*add_free)(CUgraphNode *, CUgraph, const CUgraphNode *, size_t, CUdeviceptr);
    CUresult (*instantiate)(CUgraphExec *, CUgraph, unsigned long long);
    CUresult (*launch)(CUgraphExec, CUstream);
    CUresult (*upload)(CUgraphExec, CUstream);
    CUresult (*instance_destroy)(CUgraphExec);
    CUresult (*graph_destroy)(CUgraph);
    CUresult (*graph_trim)(CUdevice);
    CUresult (*graph_get)(CUdevice, int, void *);
    CUresult (*capture_begin)(CUstream, int);
    CUresult (*capture_end)(CUstream, CUgraph *);
} pools;

enum { GRAPHS = 8 };
static struct {
    CUgraph graph;
    CUgraphExec instance;
    CUdeviceptr first;
} graphs[GRAPHS];

static CUstream stream;
static CUevent event;
static CUmemoryPool pool, own_pool;

static void pools_load(void)
{
    static const struct {
        const char *name;
        void *place;
    } names[] = {
        {"cuStreamCreate", &pools.stream_create},
        {"cuStreamSynchronize", &pools.stream_synchronize},
        {"cuEventCreate", &pools.event_create},
        {"cuEventRecord", &pools.event_record},
        {"cuEventSynchronize", &pools.event_synchronize},
        {"cuMemAllocAsync", &pools.alloc},
        {"cuMemAllocFromPoolAsync", &pools.alloc_from},
        {"cuMemFreeAsync", &pools.release},
        {"cuDeviceGetDefaultMemPool", &pools.default_pool},
        {"cuMemPoolCreate", &pools.create},
        {"cuMemPoolDestroy", &pools.destroy},
        {"cuMemPoolTrimTo", &pools.trim},
        {"cuMemPoolSetAttribute", &pools.set},
        {"cuMemPoolGetAttribute", &pools.get},
        {"cuGraphCreate", &pools.graph_create},
        {"cuGraphAddMemAllocNode", &pools.add_alloc},
        {"cuGraphAddMemFreeNode", &pools.add_free},
        {"cuGraphInstantiateWithFlags", &pools.instantiate},
        {"cuGraphLaunch", &pools.launch},
        {"cuGraphUpload", &pools.upload},
        {"cuGraphExecDestroy", &pools.instance_destroy},
        {"cuGraphDestroy", &pools.graph_destroy},
        {"cuDeviceGraphMemTrim", &pools.graph_trim},
        {"cuDeviceGetGraphMemAttribute", &pools.graph_get},
        {"cuStreamBeginCapture_v2", &pools.capture_begin},
        {"cuStreamEndCapture", &pools.capture_end},
    };
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        *(void **)names[i].place = client_symbol(names[i].name);
    if (pools.stream_create(&stream, CU_STREAM_NON_BLOCKING) || pools.event_create(&event, 0) ||
        pools.default_pool(&pool, 0)) {
        printf("error no stream\n");
        exit(2);
    }
}

static void answer_bytes(CUresult result, uint64_t bytes)
{
    if (result)
        answer(result);
    else
        printf("ok %llu\n", (unsigned long long)bytes);
}

/* --- pools ---------------------------------------------------------------------------------------------------------------- */

static CUresult pool_allocate(unsigned index, uint64_t bytes, bool from_own)
{
    CUdeviceptr before = places[index];
    CUresult result = from_own ? pools.alloc_from(&places[index], bytes, own_pool, stream)
                               : pools.alloc(&places[index], bytes, stream);
    return result == CUDA_ERROR_OUT_OF_MEMORY && places[index] != before ? CUDA_ERROR_UNKNOWN : result;
}

static CUresult pool_create(bool in_host)
{
    CUmemPoolProps properties = {
        .allocType = CU_MEM_ALLOCATION_TYPE_PINNED,
        .location = {.type = in_host ? CU_MEM_LOCATION_TYPE_HOST : CU_MEM_LOCATION_TYPE_DEVICE},
    };
    return pools.create(&own_pool, &properties);
}

static CUresult event_wait(void)
{
    CUresult result = pools.event_record(event, stream);
    return result ? result : pools.event_synchronize(event);
}

struct pool_churn {
    unsigned long rounds;
    uint64_t seed, max_bytes, granted, refused;
    CUresult result;
};

/* One random step: frees what is in a place, or fills it. */
static CUresult pool_churn_step(struct pool_churn *churn, CUdeviceptr *held, CUstream own)
{
    CUresult result;
    if (random_next(&churn->seed) % 16 == 0 && (result = pools.stream_synchronize(own)) != CUDA_SUCCESS)
        return result;
    if (*held) {
        result = pools.release(*held, own);
        *held = 0;
        return result;
    }
    result = pools.alloc(held, random_next(&churn->seed) % churn->max_bytes + 1, own);
    if (result == CUDA_SUCCESS)
        churn->granted++;
    if (result != CUDA_ERROR_OUT_OF_MEMORY)
        return result;
    churn->refused++;
    return *held ? CUDA_ERROR_UNKNOWN : CUDA_SUCCESS;
}

static void *pool_churn_run(void *argument)
{
    struct pool_churn *churn = argument;
    CUdeviceptr held[16] = {0};
    CUstream own;
    churn->result = context_current_here();
    if (churn->result == CUDA_SUCCESS)
        churn->result = pools.stream_create(&own, CU_STREAM_NON_BLOCKING);
    for (unsigned long round = 0; round < churn->rounds && churn->result == CUDA_SUCCESS; round++)
        churn->result = pool_churn_step(churn, &held[random_next(&churn->seed) % 16], own);
    for (unsigned i = 0; i < 16 && churn->result == CUDA_SUCCESS; i++)
        if (held[i])
            churn->result = pools.release(held[i], own);
    if (churn->result == CUDA_SUCCESS)
        churn->result = pools.stream_synchronize(own);
    return NULL;
}

static void pool_threads(const char *arguments)
{
    enum { THREADS = 16 };
    unsigned count;
    unsigned long rounds;
    unsigned long long seed, max_bytes, granted = 0, refused = 0;
    struct pool_churn churns[THREADS];
    pthread_t threads[THREADS];
    CUresult result = CUDA_SUCCESS;
    if (sscanf(arguments, "%u %lu %llu %llu", &count, &rounds, &seed, &max_bytes) != 4 || count > THREADS)
        abort();
    for (unsigned i = 0; i < count; i++) {
        churns[i] = (struct pool_churn){.rounds = rounds, .seed = seed + i, .max_bytes = max_bytes};
        if (pthread_create(&threads[i], NULL, pool_churn_run, &churns[i]) != 0)
            abort();
    }
    for (unsigned i = 0; i < count; i++) {
        pthread_join(threads[i], NULL);
        granted += churns[i].granted;
        refused += churns[i].refused;
        if (churns[i].result)
            result = churns[i].result;
    }
    if (result)
        answer(result);
    else
        printf("ok %llu %llu\n", granted, refused);
}

/* --- graphs ------------------------------------------------------------------------------------------------------------- */

static CUresult graph_fill(CUgraph graph, uint64_t bytes, unsigned nodes, bool freed, CUdeviceptr *first)
{
    CUgraphNode last = NULL;
    for (unsigned i = 0; i < nodes; i++) {
        CUDA_MEM_ALLOC_NODE_PARAMS parameters = {
            .poolProps = {.allocType = CU_MEM_ALLOCATION_TYPE_PINNED,
                          .location = {.type = CU_MEM_LOCATION_TYPE_DEVICE}},
            .bytesize = bytes,
        };
        CUgraphNode node;
        CUresult result = pools.add_alloc(&node, graph, &last, last != NULL, &parameters);
        if (result)
            return result;
        last = node;
        if (i == 0)
            *first = parameters.dptr;
        if (freed && (result = pools.add_free(&last, graph, &node, 1, parameters.dptr)) != CUDA_SUCCESS)
            return result;
    }
    return CUDA_SUCCESS;
}

static void graph_make(const char *arguments)
{
    unsigned index, nodes, freed;
    unsigned long long bytes, flags;
    if (sscanf(arguments, "%u %llu %u %u %llu", &index, &bytes, &nodes, &freed, &flags) != 5 || index >= GRAPHS)
        abort();
    CUresult result = pools.graph_create(&graphs[index].graph, 0);
    if (!result)
        result = graph_fill(graphs[index].graph, bytes, nodes, freed != 0, &graphs[index].first);
    if (!result)
        result = pools.instantiate(&graphs[index].instance, graphs[index].graph, flags);
    answer(result);
}

static void graph_capture(const char *arguments)
{
    unsigned index;
    unsigned long long bytes;
    CUdeviceptr pointer;
    if (sscanf(arguments, "%u %llu", &index, &bytes) != 2 || index >= GRAPHS)
        abort();
    CUresult result = pools.capture_begin(stream, CU_STREAM_CAPTURE_MODE_GLOBAL);
    if (!result)
        result = pools.alloc(&pointer, bytes, stream);
    if (!result)
        result = pools.release(pointer, stream);
    if (!result)
        result = pools.capture_end(stream, &graphs[index].graph);
    if (!result)
        result = pools.instantiate(&graphs[index].instance, graphs[index].graph, 0);
    answer(result);
}

static CUresult graph_run(CUresult (*run)(CUgraphExec, CUstream), unsigned index)
{
    CUresult result = run(graphs[index].instance, stream);
    return result ? result : pools.stream_synchronize(stream);
}

static CUresult graph_end(unsigned index)
{
    CUresult result = pools.instance_destroy(graphs[index].instance);
    return result ? result : pools.graph_destroy(graphs[index].graph);
}

static bool graphs_command(const char *verb, const char *arguments, unsigned index)
{
    uint64_t bytes = 0;
    if (strcmp(verb, "graph") == 0)
        graph_make(arguments);
    else if (strcmp(verb, "capture") == 0)
        graph_capture(arguments);
    else if (strcmp(verb, "launch") == 0)
        answer(graph_run(pools.launch, index));
    else if (strcmp(verb, "upload") == 0)
        answer(graph_run(pools.upload, index));
    else if (strcmp(verb, "graphfree") == 0)
        answer(pools.release(graphs[index].first, stream));
    else if (strcmp(verb, "graphdestroy") == 0)
        answer(graph_end(index));
    else if (strcmp(verb, "graphtrim") == 0)
        answer(pools.graph_trim(0));
    else if (strcmp(verb, "graphreserved") == 0) {
        CUresult result = pools.graph_get(0, CU_GRAPH_MEM_ATTR_RESERVED_MEM_CURRENT, &bytes);
        answer_bytes(result, bytes);
    } else
        return false;
    return true;
}

/* --- commands ----------------------------------------------------------------------------------------------------------- */

bool pools_command(const char *verb, const char *arguments)
{
    static const char *const known = " async asyncfree sync eventsync trim threshold newpool frompool keepown delpool "
                                     "deldefault reserved poolthreads "
                                     "graph capture launch upload graphfree graphdestroy graphtrim graphreserved ";
    char word[32];
    unsigned long long first = 0, second = 0, bytes = 0;
    snprintf(word, sizeof(word), " %s ", verb);
    if (strstr(known, word) == NULL)
        return false;
    if (stream == NULL)
        pools_load();
    (void)sscanf(arguments, "%llu %llu", &first, &second);
    if (graphs_command(verb, arguments, (unsigned)first % GRAPHS))
        return true;
    if (strcmp(verb, "async") == 0 || strcmp(verb, "frompool") == 0)
        answer(pool_allocate((unsigned)first % PLACES, second, verb[0] == 'f'));
    else if (strcmp(verb, "asyncfree") == 0)
        answer(pools.release(places[first % PLACES], stream));
    else if (strcmp(verb, "sync") == 0)
        answer(pools.stream_synchronize(stream));
    else if (strcmp(verb, "eventsync") == 0)
        answer(event_wait());
    else if (strcmp(verb, "trim") == 0)
        answer(pools.trim(pool, first));
    else if (strcmp(verb, "threshold") == 0)
        answer(pools.set(pool, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, &first));
    else if (strcmp(verb, "newpool") == 0)
        answer(pool_create(first != 0));
    else if (strcmp(verb, "keepown") == 0) {
        first = UINT64_MAX;
        answer(pools.set(own_pool, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, &first));
    } else if (strcmp(verb, "delpool") == 0)
        answer(pools.destroy(own_pool));
    else if (strcmp(verb, "deldefault") == 0)
        answer(pools.destroy(pool));
    else if (strcmp(verb, "reserved") == 0) {
        CUresult result = pools.get(pool, CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT, &bytes);
        answer_bytes(result, bytes);
    } else
        pool_threads(arguments);
    return true;
}
