/*
 * Off the card and back by the driver's own checkpoint (since 570): all that the process has of any card, contexts included, goes to host
 * memory. mechanism.h has who calls it. A process does it to itself, by the pid that it knows itself by: also in a PID namespace of its
 * own (measured).
 */
#include "config.h"

#include <unistd.h>
#include "evict/mechanism.h"

enum {
    LOCK_TIMEOUT_MS = 500, /* work in flight ends first; measured: 0.6 ms where there is none */
    UNLOCK_TRIES = 3,
};

static bool checkpoint_able(const struct driver *driver)
{
    return driver->cuCheckpointProcessLock != NULL && driver->cuCheckpointProcessCheckpoint != NULL &&
           driver->cuCheckpointProcessRestore != NULL && driver->cuCheckpointProcessUnlock != NULL;
}

static struct mechanism_result lost(CUresult code, const char *call)
{
    return (struct mechanism_result){.end = MECHANISM_LOST, .code = code, .call = call};
}

/* A driver that stays locked keeps every thread of the program for ever. */
static CUresult unlock(const struct driver *driver)
{
    CUresult result = CUDA_SUCCESS;
    for (int try = 0; try < UNLOCK_TRIES; try++) {
        result = driver->cuCheckpointProcessUnlock((int)getpid(), NULL);
        if (result == CUDA_SUCCESS)
            break;
    }
    return result;
}

static struct mechanism_result checkpoint_out(const struct driver *driver)
{
    CUcheckpointLockArgs arguments = {.timeoutMs = LOCK_TIMEOUT_MS};
    CUresult result = driver->cuCheckpointProcessLock((int)getpid(), &arguments);
    if (result != CUDA_SUCCESS) /* measured: 600 NOT_READY after the timeout, and nothing has changed */
        return (struct mechanism_result){
            .end = result == CUDA_ERROR_NOT_SUPPORTED ? MECHANISM_NEVER : MECHANISM_AS_IT_WAS,
            .why = LEDGER_WHY_LOCK,
            .code = result,
            .call = "cuCheckpointProcessLock",
            .reason = "the driver cannot be locked for a checkpoint",
        };
    result = driver->cuCheckpointProcessCheckpoint((int)getpid(), NULL);
    if (result == CUDA_SUCCESS)
        return (struct mechanism_result){.end = MECHANISM_DONE};
    CUresult unlocked = unlock(driver);
    if (unlocked != CUDA_SUCCESS) /* it failed midway */
        return lost(result, "cuCheckpointProcessCheckpoint");
    return (struct mechanism_result){
        .end = result == CUDA_ERROR_NOT_SUPPORTED ? MECHANISM_NEVER : MECHANISM_AS_IT_WAS,
        .why = LEDGER_WHY_CHECKPOINT,
        .code = result,
        .call = "cuCheckpointProcessCheckpoint",
        .reason = "the driver has memory of it that it cannot checkpoint",
    };
}

/* Measured: a restore that failed is never made good, whatever room there is later. */
static struct mechanism_result checkpoint_back(const struct driver *driver)
{
    CUresult result = driver->cuCheckpointProcessRestore((int)getpid(), NULL);
    if (result != CUDA_SUCCESS)
        return lost(result, "cuCheckpointProcessRestore");
    result = unlock(driver);
    if (result != CUDA_SUCCESS)
        return lost(result, "cuCheckpointProcessUnlock");
    return (struct mechanism_result){.end = MECHANISM_DONE};
}

const struct mechanism mechanism_checkpoint = {
    .name = "checkpoint",
    .frees = MECHANISM_FREES_ALL,
    .able = checkpoint_able,
    .out = checkpoint_out,
    .back = checkpoint_back,
};
