/*
 * What NVML says of a card's memory. Called by src/account around the first context and when a card is met first, and
 * by the command to hold the ledger against it; reaches NVML's own functions, never the wrappers of src/interpose;
 * loads libnvidia-ml.so.1 and initialises it once (some 9 ms). Safe from any thread; keeps errno; -ENOSYS where there is no NVML.
 * A process that the driver has checkpointed must not call this: NVML blocks there for ever (measured).
 */
#ifndef CUDA_NVML_H
#define CUDA_NVML_H

#include <stdbool.h>
#include <stdint.h>
#include "cuda/cuda_abi.h"
#include "cuda/nvml_abi.h"

/* Loads and initialises it now: for a caller who is about to take a lock that must not be held over dlopen. */
void nvml_prepare(void);

/* Bytes of the device held by this process, context included. -ENOENT: NVML does not list it (in a container it knows
 * processes by the host's ids; a MIG instance is not found by uuid). */
int nvml_own_bytes(const CUuuid *uuid, uint64_t *bytes);

/* Bytes in use on the whole card now. */
int nvml_used_bytes(const CUuuid *uuid, uint64_t *bytes);

/* Bytes in use on the card that no process holds: what an idle card uses. */
int nvml_idle_bytes(const CUuuid *uuid, uint64_t *bytes);

/* A process that NVML lists as holding memory of a device. */
struct nvml_holder {
    uint32_t pid;
    uint64_t bytes;
};
/* Up to `places` of them. Returns how many, or -errno as the others. */
int nvml_holders_read(const CUuuid *uuid, struct nvml_holder *holders, unsigned places);

/* The uuid of a device that a program's handle names, a MIG instance's included: what CUDA calls it too. Loads nothing. */
bool nvml_device_uuid(nvmlDevice_t device, CUuuid *uuid);

#endif
