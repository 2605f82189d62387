/*
 * What contexts cost: predicted before, measured after. Called by contexts.c; keeps nothing but what the ledger keeps per
 * device for all processes.
 */
#include "config.h"

#include "account/state.h"
#include "cuda/nvml.h"

#define PREDICTED_BYTES (600ULL << 20) /* before any was measured: 527 MiB on an H200 with driver 580, and some room */
#define LEAST_BYTES     (16ULL << 20)  /* less than this, or more than that, is no context but a misread figure */
#define MOST_BYTES      (4ULL << 30)

uint64_t overhead_predict(const struct account *account, const struct account_device *device)
{
    uint64_t seen = ledger_context_cost(account->ledger, device->index);
    return seen >= LEAST_BYTES && seen <= MOST_BYTES ? seen : PREDICTED_BYTES;
}

uint64_t overhead_before(const struct account_device *device)
{
    uint64_t bytes;
    return nvml_used_bytes(&device->uuid, &bytes) == 0 ? bytes : UINT64_MAX;
}

/* NVML's figure for this process alone is exact. Where it does not know us (in a container it speaks of the host's process
 * ids) the card's total before and after will do, unless a neighbour allocated meanwhile: hence only up to the
 * prediction, and the ledger keeps the least that anybody saw. */
uint64_t overhead_measure(const struct account_device *device, uint64_t before_bytes, uint64_t others_bytes)
{
    uint64_t own, after, bytes = 0, most = MOST_BYTES;
    if (nvml_own_bytes(&device->uuid, &own) == 0)
        bytes = own > others_bytes ? own - others_bytes : 0;
    else if (before_bytes != UINT64_MAX && nvml_used_bytes(&device->uuid, &after) == 0) {
        bytes = after > before_bytes ? after - before_bytes : 0;
        most = PREDICTED_BYTES;
    }
    return bytes >= LEAST_BYTES && bytes <= most ? bytes : 0;
}
