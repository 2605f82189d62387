/*
 * Memory that graphs allocate when they run. Called by src/interpose through pools.h.
 *
 * Adding nodes and instantiating costs nothing; a launch or an upload backs the instance's allocations from the device's
 * memory for graphs, which grows, is shared by instances whose allocations do not live at once, and shrinks by trimming alone
 * (all measured). Which instances share is the driver's affair, so what may be needed is bounded: all instances launched since
 * the last trim, one beside the other. Where that bound does not fit, the device's graph memory is trimmed first, after
 * which it holds what is live and nothing else.
 */
#include "config.h"

#include <sys/mman.h>
#include "account/pools.h"
#include "account/state.h"
#include "platform/testpoint.h"

/* --- what an instance can take -------------------------------------------------------------------------------------------- */

/* What allocation nodes of one device can take together, however the driver lays them out: it does not join holes, so one of
 * more than a step may need all the steps it would need alone (two of 40 MiB took 128, measured). Smaller ones share steps, and
 * wherever the next always goes into a step that has room for it, all steps but one are at least half full. */
struct sum {
    uint64_t whole_bytes; /* of those that are larger than a step, in steps */
    uint64_t small_bytes, small_count;
};

struct sums {
    struct sum device[LEDGER_DEVICES];
    bool any;
};

static uint64_t bytes_sum(uint64_t a, uint64_t b)
{
    uint64_t sum;
    return __builtin_add_overflow(a, b, &sum) ? UINT64_MAX : sum;
}

static uint64_t sum_most(const struct sum *sum)
{
    uint64_t one_each = sum->small_count * RESERVOIR_STEP_BYTES;
    uint64_t shared = sum->small_bytes <= RESERVOIR_STEP_BYTES
                          ? reservoir_steps(sum->small_bytes)
                          : reservoir_steps(bytes_sum(sum->small_bytes, sum->small_bytes));
    return bytes_sum(sum->whole_bytes, one_each < shared ? one_each : shared);
}

static void node_add(const struct driver *driver, const struct account *account, CUgraphNode node, struct sums *sums)
{
    CUDA_MEM_ALLOC_NODE_PARAMS parameters = {.bytesize = 0};
    if (driver->cuGraphMemAllocNodeGetParams(node, &parameters) != CUDA_SUCCESS ||
        parameters.poolProps.location.type != CU_MEM_LOCATION_TYPE_DEVICE)
        return;
    for (unsigned i = 0; i < account->devices; i++)
        if (account->device[i].ordinal == parameters.poolProps.location.id) {
            struct sum *sum = &sums->device[i];
            sums->any = true;
            if (parameters.bytesize > RESERVOIR_STEP_BYTES)
                sum->whole_bytes = bytes_sum(sum->whole_bytes, reservoir_steps(parameters.bytesize));
            else {
                sum->small_bytes += linear_cost(parameters.bytesize);
                sum->small_count++;
            }
        }
}

enum { DEPTH_MOST = 32 }; /* of graphs in graphs */

static void graph_sum(const struct driver *driver, const struct account *account, CUgraph graph, struct sums *sums,
                      unsigned depth)
{
    size_t count = 0;
    if (depth == DEPTH_MOST || driver->cuGraphGetNodes(graph, NULL, &count) != CUDA_SUCCESS || count == 0)
        return;
    size_t size = count * sizeof(CUgraphNode);
    CUgraphNode *nodes = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (nodes == MAP_FAILED)
        return;
    if (driver->cuGraphGetNodes(graph, nodes, &count) != CUDA_SUCCESS)
        count = 0;
    for (size_t i = 0; i < count; i++) {
        int type = CU_GRAPH_NODE_TYPE_EMPTY;
        CUgraph child = NULL;
        (void)driver->cuGraphNodeGetType(nodes[i], &type);
        if (type == CU_GRAPH_NODE_TYPE_MEM_ALLOC)
            node_add(driver, account, nodes[i], sums);
        else if (type == CU_GRAPH_NODE_TYPE_GRAPH &&
                 driver->cuGraphChildGraphNodeGetGraph(nodes[i], &child) == CUDA_SUCCESS)
            graph_sum(driver, account, child, sums, depth + 1);
    }
    (void)munmap(nodes, size);
}

static bool driver_allocates(const struct driver *driver)
{
    return driver->cuGraphMemAllocNodeGetParams != NULL && driver->cuGraphGetNodes != NULL &&
           driver->cuGraphNodeGetType != NULL && driver->cuGraphChildGraphNodeGetGraph != NULL &&
           driver->cuDeviceGetGraphMemAttribute != NULL;
}

/* Handles are aligned; the low bits tell the devices of one instance apart. */
static uint64_t key_of(CUgraphExec instance, unsigned device)
{
    return (uintptr_t)instance + device;
}

void graph_instantiated(const struct driver *driver, CUgraph graph, CUgraphExec instance, bool uploaded)
{
    struct account *account = account_get();
    struct sums sums = {.any = false};
    struct allocation replaced;
    if (account == NULL || instance == NULL || !driver_allocates(driver))
        return;
    graph_sum(driver, account, graph, &sums, 0);
    if (!sums.any)
        return;
    biased_lock_take(&account->books);
    for (unsigned i = 0; i < account->devices; i++) {
        struct allocation entry = {.pointer = key_of(instance, i), .bytes = sum_most(&sums.device[i])};
        entry.owner = uploaded ? account->graph_epoch[i] + 1 : 0;
        if (entry.bytes != 0)
            (void)allocmap_insert(&account->instances, &entry, &replaced);
    }
    biased_lock_give(&account->books);
    atomic_store_explicit(&account->graphs_allocate, true, memory_order_release);
}

void graph_ending_begin(CUgraphExec instance, struct graph_ending *ending)
{
    struct account *account = account_get();
    ending->count = 0;
    if (account == NULL || !atomic_load_explicit(&account->graphs_allocate, memory_order_acquire))
        return;
    biased_lock_take(&account->books);
    for (unsigned i = 0; i < account->devices; i++)
        if (allocmap_remove(&account->instances, key_of(instance, i), &ending->entries[ending->count]))
            ending->count++;
    biased_lock_give(&account->books);
}

void graph_ending_end(const struct graph_ending *ending, bool destroyed)
{
    struct account *account = account_get();
    struct allocation replaced;
    if (account == NULL || destroyed || ending->count == 0)
        return;
    biased_lock_take(&account->books);
    for (unsigned i = 0; i < ending->count; i++)
        (void)allocmap_insert(&account->instances, &ending->entries[i], &replaced);
    biased_lock_give(&account->books);
}

bool graphs_allocate(void)
{
    struct account *account = account_get();
    return account != NULL && atomic_load_explicit(&account->graphs_allocate, memory_order_acquire);
}

/* --- backing it ------------------------------------------------------------------------------------------------------------ */

void graphs_trimmed(const struct driver *driver, CUdevice ordinal)
{
    struct account *account = account_get();
    const struct account_device *known = account != NULL ? account_device_of(account, ordinal) : NULL;
    if (known == NULL || !atomic_load_explicit(&account->graphs_allocate, memory_order_acquire))
        return;
    unsigned device = account_number(account, known);
    struct reservoir *reservoir = &account->graph[device];
    reservoir_correct(driver, account, reservoir);
    biased_lock_take(&account->books);
    if (reservoir->calls == 0) { /* what is left is live, and counts until the next trim */
        account->graph_epoch[device]++;
        reservoir->bound_bytes = reservoir->charged_bytes;
    }
    biased_lock_give(&account->books);
}

/* How much a device's graph memory may grow, if an instance of that many bytes is backed; `entry` NULL: not launched yet. Under
 * `books`. */
static uint64_t growth_of(const struct reservoir *reservoir, const struct allocation *entry, uint64_t bytes,
                          uint32_t epoch)
{
    bool counted = entry != NULL && entry->owner == epoch + 1;
    uint64_t bound = reservoir->bound_bytes;
    if (!counted && __builtin_add_overflow(bound, bytes, &bound))
        bound = UINT64_MAX;
    return bound > reservoir->charged_bytes ? bound - reservoir->charged_bytes : 0;
}

/* Charges one device for a call; `bytes` is what a graph that is not instantiated yet can take. */
static bool device_begin(const struct driver *driver, struct account *account, unsigned device, CUgraphExec instance,
                         uint64_t bytes, struct graph_call *call)
{
    biased_lock_take(&account->books);
    struct reservoir *reservoir = &account->graph[device];
    struct allocation *entry = allocmap_find(&account->instances, key_of(instance, device));
    if (entry != NULL)
        bytes = entry->bytes;
    uint64_t growth = growth_of(reservoir, entry, bytes, account->graph_epoch[device]);
    unsigned purse = purse_here(account, device);
    enum ledger_verdict verdict = growth == 0 ? LEDGER_FITS : admit_look(account, purse, growth);
    bool granted = verdict == LEDGER_FITS;
    if (!granted) {
        biased_lock_give(&account->books);
        account_leaving(+1);
        if (verdict_is_full(verdict) && driver->cuDeviceGraphMemTrim != NULL &&
            driver->cuDeviceGraphMemTrim(account->device[device].ordinal) == CUDA_SUCCESS)
            graphs_trimmed(driver, account->device[device].ordinal);
        account_leaving(-1);
        biased_lock_take(&account->books);
        entry = allocmap_find(&account->instances, key_of(instance, device));
        growth = growth_of(reservoir, entry, bytes, account->graph_epoch[device]);
        granted = growth == 0 || admit(account, purse, growth);
    }
    if (granted) {
        entry = allocmap_find(&account->instances, key_of(instance, device)); /* admit may have let others in */
        uint32_t mark = account->graph_epoch[device] + 1;
        if (entry == NULL || entry->owner != mark)
            reservoir->bound_bytes += bytes;
        if (entry != NULL)
            entry->owner = mark;
        call->counts[device] = true;
        call->any = true;
        call->purse[device] = purse;
        call->growth_bytes[device] = growth;
        call->seen[device] = reservoir_enter(reservoir, growth);
    }
    biased_lock_give(&account->books);
    TESTPOINT("graph.charged");
    return granted;
}

bool graph_begin(const struct driver *driver, CUgraphExec instance, CUgraph graph, struct graph_call *call)
{
    struct account *account = account_get();
    struct sums sums = {.any = false};
    call->any = false;
    if (account == NULL || !driver_allocates(driver))
        return true;
    if (graph != NULL)
        graph_sum(driver, account, graph, &sums, 0);
    for (unsigned i = 0; i < account->devices; i++) {
        uint64_t bytes = sum_most(&sums.device[i]);
        call->counts[i] = false;
        biased_lock_take(&account->books);
        bool takes = bytes != 0 || allocmap_find(&account->instances, key_of(instance, i)) != NULL;
        biased_lock_give(&account->books);
        if (takes && !device_begin(driver, account, i, instance, bytes, call)) {
            graph_end(driver, call, CUDA_SUCCESS);
            return false;
        }
    }
    return true;
}

/* A launch that the driver refuses for want of memory leaves the reserve grown by all that the card had (measured): trimmed. */
void graph_end(const struct driver *driver, const struct graph_call *call, CUresult result)
{
    struct account *account = account_get();
    if (!call->any || account == NULL)
        return;
    TESTPOINT("graph.driver_returned");
    for (unsigned i = 0; i < account->devices; i++) {
        if (!call->counts[i])
            continue;
        struct reservoir *reservoir = &account->graph[i];
        uint64_t reserved = reservoir_read(driver, account, reservoir);
        biased_lock_take(&account->books);
        bool settled =
            reservoir_leave(account, reservoir, call->purse[i], call->growth_bytes[i], call->seen[i], reserved);
        biased_lock_give(&account->books);
        if (result == CUDA_ERROR_OUT_OF_MEMORY && driver->cuDeviceGraphMemTrim != NULL) {
            (void)driver->cuDeviceGraphMemTrim(account->device[i].ordinal);
            graphs_trimmed(driver, account->device[i].ordinal);
        } else if (!settled)
            reservoir_correct(driver, account, reservoir);
    }
}
