/*
 * Stream-ordered pools and graphs' memory, for src/interpose. Any thread; nothing here waits but to be admitted.
 *
 * A wrapper of an allocation calls pool_begin, the driver, pool_end. Wrappers of what can give a pool's memory back
 * (synchronisation, trimming, cuMemFree) call pools_correct after it.
 */
#ifndef ACCOUNT_POOLS_H
#define ACCOUNT_POOLS_H

#include <stdbool.h>
#include "account/account.h"
#include "account/allocmap.h"

/* Learns of a pool and where its memory lies (CUmemLocation). False: there are so many that it cannot be held to the
 * budget. A pool that was imported: CU_MEM_LOCATION_TYPE_NONE, for its memory is charged to who exported it. */
bool pool_learn(CUmemoryPool handle, int location_type, int location_id);

/* The program destroys a pool. POOL_GOES: the driver may; it is forgotten here. POOL_RETIRES: memory of it is not back yet, and a
 * destroyed pool cannot be asked when it is; pools_correct destroys it then. POOL_IS_RETIRED: it was destroyed before. */
enum pool_fate { POOL_GOES, POOL_RETIRES, POOL_IS_RETIRED };
enum pool_fate pool_retire(const struct driver *driver, CUmemoryPool handle);

struct pool_call {
    unsigned pool;
    unsigned purse; /* who pays, should it grow */
    bool counts;
    bool retired; /* no such pool any more, as the program sees it */
    uint64_t growth_bytes, seen;
};

/* Before an allocation of `bytes` from a pool, which lies on the device of that CUDA ordinal where it was not seen
 * before. False: out of memory. */
bool pool_begin(const struct driver *driver, CUmemoryPool handle, CUdevice ordinal, uint64_t bytes,
                struct pool_call *call);

/* After it. False: the pool had been thought to have room, and grew: free the pointer again, it is out of memory. */
bool pool_end(const struct driver *driver, const struct pool_call *call, CUresult result, CUdeviceptr pointer,
              uint64_t bytes);

/* Whether there is any pool, so that pools_correct is worth calling. */
bool pools_hold(void);

/* Makes every pool's charge what the driver has reserved for it, and destroys the retired ones that have nothing left. */
void pools_correct(const struct driver *driver);

/* --- graphs (graphs.c) --------------------------------------------------------------------------------------------------- */

/* Learns what an instantiated graph's allocation nodes can take; `uploaded`: they are backed already. */
void graph_instantiated(const struct driver *driver, CUgraph graph, CUgraphExec instance, bool uploaded);

/* Around an instance's destruction: forgotten before the driver's call, after which another thread's new one may have the
 * handle; `destroyed` false: the driver refused, and it is known again. What it allocated stays charged. */
struct graph_ending {
    struct allocation entries[LEDGER_DEVICES];
    unsigned count;
};
void graph_ending_begin(CUgraphExec instance, struct graph_ending *ending);
void graph_ending_end(const struct graph_ending *ending, bool destroyed);

/* Around a call that may back a graph's allocations with memory: a launch, an upload, an instantiation that uploads
 * (`graph` then, and no instance yet). */
struct graph_call {
    bool counts[LEDGER_DEVICES];
    unsigned purse[LEDGER_DEVICES]; /* who pays */
    uint64_t growth_bytes[LEDGER_DEVICES], seen[LEDGER_DEVICES];
    bool any;
};
bool graph_begin(const struct driver *driver, CUgraphExec instance, CUgraph graph, struct graph_call *call);
void graph_end(const struct driver *driver, const struct graph_call *call, CUresult result);

/* Whether any instantiated graph allocates memory: else graph_begin has nothing to do. */
bool graphs_allocate(void);

/* After cuDeviceGraphMemTrim, and whatever else may have given a device's graph memory back. */
void graphs_trimmed(const struct driver *driver, CUdevice ordinal);

#endif
