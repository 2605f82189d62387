/*
 * What contexts cost: predicted before, measured after. Called by contexts.c; keeps nothing but what the ledger keeps per
 * device for all processes.
 */
#include "config.h"

#include <errno.h>
#include "account/state.h"
#include "cuda/nvml.h"

#define PREDICTED_BYTES        (600ULL << 20) /* before any was measured: 527 MiB on an H200 with driver 580, and some room */
#define LEAST_BYTES            (64ULL << 20) /* less than this, or more than that, is no context but a misread figure */
#define MOST_BYTES             (4ULL << 30)
#define NEIGHBOURS_LEAST_BYTES (PREDICTED_BYTES / 2) /* judged more strictly where neighbours' frees may be in it */

uint64_t overhead_predict(const struct account *account, const struct account_device *device)
{
    uint64_t seen = ledger_context_cost(account->ledger, device->index);
    return seen >= LEAST_BYTES && seen <= MOST_BYTES ? seen : PREDICTED_BYTES;
}

struct overhead overhead_read(const struct account_device *device)
{
    struct overhead seen = {.own_bytes = UINT64_MAX, .used_bytes = UINT64_MAX};
    int result = nvml_own_bytes(&device->uuid, &seen.own_bytes);
    if (result == -ENOENT)
        seen.own_bytes = 0; /* not listed: it holds nothing yet, or is listed under another number */
    else if (result != 0)
        seen.own_bytes = UINT64_MAX;
    if (nvml_used_bytes(&device->uuid, &seen.used_bytes) != 0)
        seen.used_bytes = UINT64_MAX;
    return seen;
}

static uint64_t growth(uint64_t before, uint64_t after, uint64_t least, uint64_t most)
{
    if (before == UINT64_MAX || after == UINT64_MAX || after < before)
        return 0;
    return after - before >= least && after - before <= most ? after - before : 0;
}

/* Where NVML does not know us (in a container it speaks of the host's process ids, and a neighbour may have our number there: his
 * figure does not grow) the growth of the card's total will do, unless a neighbour allocated meanwhile: hence only up to the
 * prediction, and the ledger keeps the least that anybody saw. What other threads of the process allocate and free meanwhile would be
 * taken for the context's: a reading that is not clean says nothing, and the prediction stays. */
uint64_t overhead_measure(const struct account_device *device, const struct overhead *before, enum drift_state state,
                          int64_t cost_bytes)
{
    uint64_t own = 0;
    if (state == DRIFT_CLEAN && cost_bytes > 0)
        own = growth(0, (uint64_t)cost_bytes, LEAST_BYTES, MOST_BYTES);
    if (own != 0 || state == DRIFT_BUSY)
        return own;
    struct overhead after = overhead_read(device);
    return growth(before->used_bytes, after.used_bytes, NEIGHBOURS_LEAST_BYTES, PREDICTED_BYTES);
}
