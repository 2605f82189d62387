/*
 * The driver's checkpoint, as measured on an H200 with driver 580: RUNNING, by Lock LOCKED, by Checkpoint CHECKPOINTED (all the
 * process had of any card is free), by Restore LOCKED, by Unlock RUNNING; anything else is ILLEGAL_STATE. The bytes of the
 * simulated memory lie in the process anyway and stay there: what moves is what the machine counts.
 *
 * The work is done in the process it is about, by the calling thread, or by the thread that serves the mail of others; one at
 * a time, under passage_taken, which no other lock is held around. The state word changes under it alone.
 *
 * Not measured: CUDA_ERROR_NOT_INITIALIZED for a process without CUDA or one that dies meanwhile, NOT_PERMITTED for another
 * user's and for a call from a callback, OUT_OF_MEMORY where the host has no room for the image. Published of other drivers:
 * NOT_SUPPORTED by Checkpoint, with the state still LOCKED, for what it cannot move, which on 580 is managed and shared memory.
 */
#include "sim/checkpoint.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { THREAD_STACK_BYTES = 256 * 1024 }; /* the thread-local memory of big programs comes out of it */

static _Atomic uint32_t
    passage_taken;   /* the lock, a futex: a lock of the checkpoint waits for it no longer than it may */
static bool is_lost; /* a restore has failed: none will ever succeed */

static void pass_time(uint64_t milliseconds)
{
    struct timespec time = {.tv_sec = (time_t)(milliseconds / 1000), .tv_nsec = (long)(milliseconds % 1000) * 1000000};
    while (milliseconds && clock_nanosleep(CLOCK_MONOTONIC, 0, &time, &time) != 0)
        ;
}

static uint64_t pace_ms(const struct sim_pace *pace)
{
    uint64_t bytes = 0;
    for (unsigned device = 0; device < SIM_DEVICES; device++)
        bytes += sim_process.machine.self->image_bytes[device];
    double moving = pace->second_bytes ? (double)bytes * 1000 / (double)pace->second_bytes : 0;
    return pace->milliseconds + (uint64_t)moving;
}

/* False: the deadline (0: none) comes first, and has come. */
static bool pass_time_until(uint64_t milliseconds, uint64_t deadline_ms)
{
    uint64_t now_ms = machine_clock_ms(), left_ms = deadline_ms > now_ms ? deadline_ms - now_ms : 0;
    bool fits = !deadline_ms || milliseconds == 0 || milliseconds < left_ms;
    pass_time(fits ? milliseconds : left_ms);
    return fits;
}

/* Those who wait outside go on waiting until the lock is given up. */
static CUresult passage_to_locked(const struct machine_request *request)
{
    if (state_get() != STATE_RUNNING)
        return CUDA_ERROR_ILLEGAL_STATE;
    state_set(STATE_LOCKING);
    bool locked =
        pass_time_until(sim_process.options.lock_ms, request->deadline_ms) && calls_await(request->deadline_ms);
    CUresult result = locked ? request->after : CUDA_ERROR_NOT_READY;
    state_set(result == CUDA_SUCCESS ? STATE_LOCKED : STATE_RUNNING);
    return result;
}

static CUresult passage_to_host(const struct machine_request *request)
{
    struct machine *machine = &sim_process.machine;
    if (state_get() != STATE_LOCKED)
        return CUDA_ERROR_ILLEGAL_STATE;
    sim_lock();
    bool stays = memory_stays() || physical_in_use();
    sim_unlock();
    if (stays)
        return CUDA_ERROR_NOT_SUPPORTED;
    if (machine_image_make(machine) != 0)
        return CUDA_ERROR_OUT_OF_MEMORY;
    state_set(STATE_CHECKPOINTING);
    pass_time(pace_ms(&sim_process.options.checkpoint));
    if (request->after != CUDA_SUCCESS) {
        machine_image_drop(machine);
        state_set(STATE_FAILED);
        return request->after;
    }
    machine_image_keep(machine);
    state_set(STATE_CHECKPOINTED);
    return CUDA_SUCCESS;
}

/* Whether a restore that names devices names all that have something to restore. */
static bool devices_suffice(uint32_t devices)
{
    for (unsigned device = 0; devices && device < SIM_DEVICES; device++)
        if (sim_process.machine.self->image_bytes[device] && !(devices & 1u << device))
            return false;
    return true;
}

/* The room is taken at once, before the bytes have moved. */
static CUresult passage_to_device(const struct machine_request *request)
{
    struct machine *machine = &sim_process.machine;
    if (state_get() != STATE_CHECKPOINTED)
        return CUDA_ERROR_ILLEGAL_STATE;
    if (is_lost)
        return CUDA_ERROR_OPERATING_SYSTEM;
    if (!devices_suffice(request->devices))
        return CUDA_ERROR_INVALID_VALUE;
    if (machine_image_return(machine) != 0) {
        is_lost = true;
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    state_set(STATE_RESTORING);
    pass_time(pace_ms(&sim_process.options.restore));
    if (request->after != CUDA_SUCCESS) {
        machine_image_keep(machine);
        state_set(STATE_FAILED);
        return request->after;
    }
    machine_image_drop(machine);
    state_set(STATE_LOCKED);
    return CUDA_SUCCESS;
}

static CUresult passage_to_running(const struct machine_request *request)
{
    if (state_get() != STATE_LOCKED)
        return CUDA_ERROR_ILLEGAL_STATE;
    if (request->after == CUDA_SUCCESS)
        state_set(STATE_RUNNING);
    return request->after;
}

static CUresult passage_make(const struct machine_request *request)
{
    switch (request->operation) {
    case CHECKPOINT_LOCK:
        return passage_to_locked(request);
    case CHECKPOINT_CHECKPOINT:
        return passage_to_host(request);
    case CHECKPOINT_RESTORE:
        return passage_to_device(request);
    default:
        return passage_to_running(request);
    }
}

/* False: not until the deadline (0: none). */
static bool passage_take(uint64_t deadline_ms)
{
    for (uint32_t expected = 0; !atomic_compare_exchange_strong(&passage_taken, &expected, 1); expected = 0) {
        uint64_t now_ms = machine_clock_ms();
        if (deadline_ms && now_ms >= deadline_ms)
            return false;
        machine_word_wait(&passage_taken, 1, deadline_ms ? deadline_ms - now_ms : 0);
    }
    return true;
}

static void passage_leave(void)
{
    atomic_store(&passage_taken, 0);
    machine_word_wake(&passage_taken);
}

/* In this process. */
static CUresult request_do(const struct machine_request *request)
{
    if (request->withdrawn || !passage_take(request->deadline_ms))
        return CUDA_ERROR_NOT_READY;
    CUresult result = passage_make(request);
    passage_leave();
    return result;
}

/* The calling thread's number where /proc is that of the machine's first process, as the machine's pids are. */
static int32_t thread_number(void)
{
    char text[64];
    int pid, thread;
    ssize_t length = readlink("/proc/thread-self", text, sizeof(text) - 1);
    text[length > 0 ? length : 0] = '\0';
    return sscanf(text, "%d/task/%d", &pid, &thread) == 2 ? thread : (int32_t)syscall(SYS_gettid);
}

static void *mail_serve(void *argument)
{
    _Atomic uint32_t *is_ready = argument;
    struct machine_request request;
    struct machine *machine = &sim_process.machine;
    machine_lock(machine->shared);
    machine->self->thread = thread_number();
    machine_unlock(machine->shared);
    atomic_store(is_ready, 1);
    machine_word_wake(is_ready);
    for (;;) {
        mail_take(&request);
        mail_answer(request_do(&request));
    }
    return NULL;
}

void checkpoint_start(void)
{
    static _Atomic uint32_t is_ready;
    bool started = thread_start(THREAD_STACK_BYTES, mail_serve, &is_ready);
    while (started && !atomic_load(&is_ready))
        machine_word_wait(&is_ready, 0, 0);
}

/* The process a call is about: 0; INVALID_VALUE; NOT_INITIALIZED: it has no CUDA; NOT_PERMITTED: it is another user's. */
static CUresult process_named(int pid, struct machine_process **process, uint64_t *number)
{
    char path[32];
    struct stat status;
    if (pid <= 0)
        return CUDA_ERROR_INVALID_VALUE;
    *process = process_of_pid(pid, number);
    if (!*process)
        return CUDA_ERROR_NOT_INITIALIZED;
    snprintf(path, sizeof(path), "/proc/%d", pid);
    if (*process != sim_process.machine.self && geteuid() != 0 && stat(path, &status) == 0 &&
        status.st_uid != geteuid())
        return CUDA_ERROR_NOT_PERMITTED;
    return CUDA_SUCCESS;
}

static CUresult request_send(int pid, const struct machine_request *request)
{
    struct machine_process *process;
    uint64_t number;
    CUresult result = process_named(pid, &process, &number);
    if (result != CUDA_SUCCESS)
        return result;
    if (process != sim_process.machine.self)
        return mail_ask(process, number, request);
    return call_is_inside() ? CUDA_ERROR_NOT_PERMITTED : request_do(request);
}

static bool is_zero(const void *bytes, size_t count)
{
    const unsigned char *byte = bytes;
    while (count && *byte == 0) {
        byte++;
        count--;
    }
    return count == 0;
}

#define CHECKPOINT_ENTER(after)                                                                                        \
    CUresult after = CUDA_SUCCESS;                                                                                     \
    do {                                                                                                               \
        CUresult enter_result_ = process_look(__func__, &(after));                                                     \
        if (enter_result_ != CUDA_SUCCESS)                                                                             \
            return enter_result_;                                                                                      \
    } while (0)

SIM_API CUresult cuCheckpointProcessGetRestoreThreadId(int pid, int *thread)
{
    struct machine_process *process;
    uint64_t number;
    CHECKPOINT_ENTER(after);
    CUresult result = thread ? process_named(pid, &process, &number) : CUDA_ERROR_INVALID_VALUE;
    if (result == CUDA_SUCCESS)
        result = after;
    if (result == CUDA_SUCCESS)
        *thread = process->thread;
    return result;
}

SIM_API CUresult cuCheckpointProcessGetState(int pid, CUprocessState *state)
{
    struct machine_process *process;
    uint64_t number;
    CHECKPOINT_ENTER(after);
    CUresult result = state ? process_named(pid, &process, &number) : CUDA_ERROR_INVALID_VALUE;
    if (result == CUDA_SUCCESS)
        result = after;
    if (result != CUDA_SUCCESS)
        return result;
    uint32_t seen = atomic_load(&process->state);
    *state = seen == STATE_LOCKING         ? CU_PROCESS_STATE_RUNNING
             : seen == STATE_CHECKPOINTING ? CU_PROCESS_STATE_LOCKED
             : seen == STATE_RESTORING     ? CU_PROCESS_STATE_CHECKPOINTED
                                           : (CUprocessState)seen;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuCheckpointProcessLock(int pid, CUcheckpointLockArgs *arguments)
{
    CHECKPOINT_ENTER(after);
    struct machine_request request = {.operation = CHECKPOINT_LOCK, .after = after};
    if (arguments && (arguments->reserved0 || !is_zero(arguments->reserved1, sizeof(arguments->reserved1))))
        return CUDA_ERROR_INVALID_VALUE;
    if (arguments && arguments->timeoutMs)
        request.deadline_ms = machine_clock_ms() + arguments->timeoutMs;
    return request_send(pid, &request);
}

SIM_API CUresult cuCheckpointProcessCheckpoint(int pid, CUcheckpointCheckpointArgs *arguments)
{
    CHECKPOINT_ENTER(after);
    struct machine_request request = {.operation = CHECKPOINT_CHECKPOINT, .after = after};
    return arguments && !is_zero(arguments, sizeof(*arguments)) ? CUDA_ERROR_INVALID_VALUE
                                                                : request_send(pid, &request);
}

/* The machine's number of a card; -1: it has none of that uuid. */
static int device_of_uuid(const CUuuid *uuid)
{
    const struct machine_shared *shared = sim_process.machine.shared;
    for (unsigned device = 0; device < shared->devices; device++)
        if (memcmp(shared->device[device].uuid, uuid->bytes, sizeof(uuid->bytes)) == 0)
            return (int)device;
    return -1;
}

/* Every card must be named once, and stay itself: moving to another is not simulated. */
static CUresult pairs_read(const CUcheckpointGpuPair *pairs, unsigned count, uint32_t *devices)
{
    uint32_t targets = 0;
    bool moves = false;
    if (!pairs != !count)
        return CUDA_ERROR_INVALID_VALUE;
    for (unsigned i = 0; i < count; i++) {
        int from = device_of_uuid(&pairs[i].oldUuid), to = device_of_uuid(&pairs[i].newUuid);
        if (from < 0 || to < 0 || *devices & 1u << from || targets & 1u << to)
            return CUDA_ERROR_INVALID_VALUE;
        *devices |= 1u << from;
        targets |= 1u << to;
        moves = moves || from != to;
    }
    return moves ? CUDA_ERROR_NOT_SUPPORTED : CUDA_SUCCESS;
}

SIM_API CUresult cuCheckpointProcessRestore(int pid, CUcheckpointRestoreArgs *arguments)
{
    CHECKPOINT_ENTER(after);
    struct machine_request request = {.operation = CHECKPOINT_RESTORE, .after = after};
    if (arguments) {
        if (!is_zero(arguments->reserved, sizeof(arguments->reserved)) || arguments->reserved1)
            return CUDA_ERROR_INVALID_VALUE;
        CUresult result = pairs_read(arguments->gpuPairs, arguments->gpuPairsCount, &request.devices);
        if (result != CUDA_SUCCESS)
            return result;
    }
    return request_send(pid, &request);
}

SIM_API CUresult cuCheckpointProcessUnlock(int pid, CUcheckpointUnlockArgs *arguments)
{
    CHECKPOINT_ENTER(after);
    struct machine_request request = {.operation = CHECKPOINT_UNLOCK, .after = after};
    return arguments && !is_zero(arguments, sizeof(*arguments)) ? CUDA_ERROR_INVALID_VALUE
                                                                : request_send(pid, &request);
}
