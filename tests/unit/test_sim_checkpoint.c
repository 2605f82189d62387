/* The simulated driver's checkpoint: what moves, what survives, what is refused; by the process itself and by another. */
#include "unit/sim_stage.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define CONTEXT_BYTES (527 * MIB)
#define OTHER_BYTES   (8 * MIB) /* of each process beside */
#define FOOTPRINT     (CONTEXT_BYTES + OTHER_BYTES)

static int setup(void **state)
{
    (void)state;
    return stage_open("memory=8GiB,devices=2,release=0,host=2GiB");
}

static int teardown(void **state)
{
    (void)state;
    return stage_close();
}

static CUresult enter(void)
{
    CUcontext context;
    CUresult result = cuInit(0);
    if (result == CUDA_SUCCESS)
        result = cuDevicePrimaryCtxRetain(&context, 0);
    return result == CUDA_SUCCESS ? cuCtxSetCurrent(context) : result;
}

static int state_of(int pid)
{
    CUprocessState state = -1;
    CUresult result = cuCheckpointProcessGetState(pid, &state);
    return result == CUDA_SUCCESS ? state : -result;
}

/* Lock and Checkpoint / Restore and Unlock. */
static CUresult out(int pid)
{
    CUresult result = cuCheckpointProcessLock(pid, NULL);
    return result == CUDA_SUCCESS ? cuCheckpointProcessCheckpoint(pid, NULL) : result;
}

static CUresult back(int pid)
{
    CUresult result = cuCheckpointProcessRestore(pid, NULL);
    return result == CUDA_SUCCESS ? cuCheckpointProcessUnlock(pid, NULL) : result;
}

/* The words of a range are what fill_u32 wrote there. */
static bool words_are(CUdeviceptr address, uint32_t value, unsigned count)
{
    uint32_t words[256];
    if (count > 256 || cuMemcpyDtoH_v2(words, address, count * sizeof(*words)) != CUDA_SUCCESS)
        return false;
    for (unsigned i = 0; i < count; i++)
        if (words[i] != value)
            return false;
    return true;
}

static CUresult words_fill(CUfunction function, CUstream stream, CUdeviceptr to, uint32_t value, uint64_t count)
{
    void *parameters[] = {&to, &value, &count};
    return cuLaunchKernel(function, 1, 1, 1, 32, 1, 1, 0, stream, parameters, NULL);
}

/* One of each kind of object that must work afterwards as before. */
struct things {
    CUdeviceptr linear, small, pooled, mapped;
    CUstream stream;
    CUevent event;
    CUmodule module;
    CUfunction fill;
    CUgraph graph;
    CUgraphExec exec;
};

static int things_map(struct things *things)
{
    CUmemGenericAllocationHandle handle;
    CUmemAllocationProp where = {.type = CU_MEM_ALLOCATION_TYPE_PINNED,
                                 .location = {.type = CU_MEM_LOCATION_TYPE_DEVICE}};
    CUmemAccessDesc access = {where.location, CU_MEM_ACCESS_FLAGS_PROT_READWRITE};
    must(cuMemAddressReserve(&things->mapped, 2 * MIB, 0, 0, 0) == CUDA_SUCCESS);
    must(cuMemCreate(&handle, 2 * MIB, &where, 0) == CUDA_SUCCESS);
    must(cuMemMap(things->mapped, 2 * MIB, 0, handle, 0) == CUDA_SUCCESS);
    must(cuMemSetAccess(things->mapped, 2 * MIB, &access, 1) == CUDA_SUCCESS);
    must(cuMemRelease(handle) == CUDA_SUCCESS);
    return 0;
}

static int things_make(struct things *things)
{
    must(cuMemAlloc_v2(&things->linear, 64 * MIB) == CUDA_SUCCESS);
    must(cuMemAlloc_v2(&things->small, 1024) == CUDA_SUCCESS);
    must(cuMemAllocAsync(&things->pooled, MIB, NULL) == CUDA_SUCCESS);
    must(things_map(things) == 0);
    must(cuStreamCreate(&things->stream, 0) == CUDA_SUCCESS);
    must(cuEventCreate(&things->event, 0) == CUDA_SUCCESS);
    must(cuModuleLoadData(&things->module, "image") == CUDA_SUCCESS);
    must(cuModuleGetFunction(&things->fill, things->module, "fill_u32") == CUDA_SUCCESS);
    must(cuStreamBeginCapture_v2(things->stream, 0) == CUDA_SUCCESS);
    must(words_fill(things->fill, things->stream, things->small, 77, 256) == CUDA_SUCCESS);
    must(cuStreamEndCapture(things->stream, &things->graph) == CUDA_SUCCESS);
    must(cuGraphInstantiateWithFlags(&things->exec, things->graph, 0) == CUDA_SUCCESS);
    must(words_fill(things->fill, NULL, things->linear, 11, 256) == CUDA_SUCCESS);
    must(words_fill(things->fill, NULL, things->small, 12, 256) == CUDA_SUCCESS);
    must(words_fill(things->fill, NULL, things->pooled, 13, 256) == CUDA_SUCCESS);
    must(words_fill(things->fill, NULL, things->mapped, 14, 256) == CUDA_SUCCESS);
    return 0;
}

static int things_check(const struct things *things)
{
    must(words_are(things->linear, 11, 256) && words_are(things->small, 12, 256));
    must(words_are(things->pooled, 13, 256) && words_are(things->mapped, 14, 256));
    must(cuEventRecord(things->event, things->stream) == CUDA_SUCCESS);
    must(cuEventSynchronize(things->event) == CUDA_SUCCESS);
    must(words_fill(things->fill, things->stream, things->linear, 21, 256) == CUDA_SUCCESS);
    must(words_are(things->linear, 21, 256));
    must(cuGraphLaunch(things->exec, things->stream) == CUDA_SUCCESS && words_are(things->small, 77, 256));
    return 0;
}

static int round_body(void)
{
    struct things things;
    int self = getpid();
    must(enter() == CUDA_SUCCESS && things_make(&things) == 0);
    uint64_t footprint = stage_figures().device[0].used_bytes;
    must(footprint > CONTEXT_BYTES + 64 * MIB);
    must(state_of(self) == CU_PROCESS_STATE_RUNNING);
    must(cuCheckpointProcessLock(self, NULL) == CUDA_SUCCESS && state_of(self) == CU_PROCESS_STATE_LOCKED);
    must(stage_figures().device[0].used_bytes == footprint && stage_figures().host_used_bytes == 0);
    must(cuCheckpointProcessCheckpoint(self, NULL) == CUDA_SUCCESS);
    must(state_of(self) == CU_PROCESS_STATE_CHECKPOINTED);
    must(stage_figures().device[0].used_bytes == 0 && stage_figures().host_used_bytes == footprint);
    must(cuCheckpointProcessRestore(self, NULL) == CUDA_SUCCESS && state_of(self) == CU_PROCESS_STATE_LOCKED);
    must(stage_figures().device[0].used_bytes == footprint && stage_figures().host_used_bytes == 0);
    must(cuCheckpointProcessUnlock(self, NULL) == CUDA_SUCCESS && state_of(self) == CU_PROCESS_STATE_RUNNING);
    must(things_check(&things) == 0);
    must(out(self) == CUDA_SUCCESS && back(self) == CUDA_SUCCESS); /* once more */
    must(stage_figures().device[0].used_bytes == footprint && stage_figures().host_peak_bytes == footprint);
    must(stage_figures().device[0].peak_bytes == footprint);
    must(cuDevicePrimaryCtxRelease_v2(0) == CUDA_SUCCESS);
    return 0;
}

static void memory_moves_and_everything_survives(void **state)
{
    (void)state;
    assert_int_equal(stage_child(round_body), 0);
    stage_await_used(0);
}

static int order_body(void)
{
    int self = getpid();
    must(enter() == CUDA_SUCCESS);
    must(cuCheckpointProcessCheckpoint(self, NULL) == CUDA_ERROR_ILLEGAL_STATE);
    must(cuCheckpointProcessRestore(self, NULL) == CUDA_ERROR_ILLEGAL_STATE);
    must(cuCheckpointProcessUnlock(self, NULL) == CUDA_ERROR_ILLEGAL_STATE);
    must(cuCheckpointProcessLock(self, NULL) == CUDA_SUCCESS);
    must(cuCheckpointProcessLock(self, NULL) == CUDA_ERROR_ILLEGAL_STATE);
    must(cuCheckpointProcessRestore(self, NULL) == CUDA_ERROR_ILLEGAL_STATE);
    must(cuCheckpointProcessUnlock(self, NULL) == CUDA_SUCCESS && out(self) == CUDA_SUCCESS);
    must(cuCheckpointProcessLock(self, NULL) == CUDA_ERROR_ILLEGAL_STATE);
    must(cuCheckpointProcessCheckpoint(self, NULL) == CUDA_ERROR_ILLEGAL_STATE);
    must(cuCheckpointProcessUnlock(self, NULL) == CUDA_ERROR_ILLEGAL_STATE);
    must(state_of(self) == CU_PROCESS_STATE_CHECKPOINTED && stage_figures().device[0].used_bytes == 0);
    must(cuCheckpointProcessRestore(self, NULL) == CUDA_SUCCESS);
    must(cuCheckpointProcessCheckpoint(self, NULL) == CUDA_SUCCESS && back(self) == CUDA_SUCCESS);
    return 0;
}

static void other_orders_are_illegal(void **state)
{
    (void)state;
    assert_int_equal(stage_child(order_body), 0);
}

static int arguments_body(void)
{
    int self = getpid(), thread = -7, running;
    CUcheckpointLockArgs lock = {.timeoutMs = 1000};
    CUcheckpointCheckpointArgs checkpoint = {{0}};
    CUcheckpointRestoreArgs restore = {.gpuPairs = NULL};
    CUcheckpointUnlockArgs unlock = {{0}};
    must(cuCheckpointProcessGetState(self, &running) == CUDA_ERROR_NOT_INITIALIZED);
    must(cuCheckpointProcessLock(self, NULL) == CUDA_ERROR_NOT_INITIALIZED);
    must(enter() == CUDA_SUCCESS);
    must(cuCheckpointProcessGetState(self, NULL) == CUDA_ERROR_INVALID_VALUE);
    must(cuCheckpointProcessGetRestoreThreadId(self, NULL) == CUDA_ERROR_INVALID_VALUE);
    must(state_of(0) == -CUDA_ERROR_INVALID_VALUE && state_of(-1) == -CUDA_ERROR_INVALID_VALUE);
    must(state_of(getppid()) == -CUDA_ERROR_NOT_INITIALIZED); /* lives, and never called cuInit */
    must(cuCheckpointProcessGetRestoreThreadId(getppid(), &thread) == CUDA_ERROR_NOT_INITIALIZED && thread == -7);
    lock.reserved0 = 1;
    must(cuCheckpointProcessLock(self, &lock) == CUDA_ERROR_INVALID_VALUE);
    lock.reserved0 = 0;
    lock.reserved1[6] = 1;
    must(cuCheckpointProcessLock(self, &lock) == CUDA_ERROR_INVALID_VALUE);
    lock.reserved1[6] = 0;
    must(cuCheckpointProcessLock(self, &lock) == CUDA_SUCCESS);
    checkpoint.reserved[7] = 1;
    must(cuCheckpointProcessCheckpoint(self, &checkpoint) == CUDA_ERROR_INVALID_VALUE);
    checkpoint.reserved[7] = 0;
    must(cuCheckpointProcessCheckpoint(self, &checkpoint) == CUDA_SUCCESS);
    restore.reserved[43] = 1;
    must(cuCheckpointProcessRestore(self, &restore) == CUDA_ERROR_INVALID_VALUE);
    restore.reserved[43] = 0;
    restore.reserved1 = 1;
    must(cuCheckpointProcessRestore(self, &restore) == CUDA_ERROR_INVALID_VALUE);
    restore.reserved1 = 0;
    must(cuCheckpointProcessRestore(self, &restore) == CUDA_SUCCESS);
    unlock.reserved[0] = 1;
    must(cuCheckpointProcessUnlock(self, &unlock) == CUDA_ERROR_INVALID_VALUE);
    unlock.reserved[0] = 0;
    must(cuCheckpointProcessUnlock(self, &unlock) == CUDA_SUCCESS);
    return 0;
}

static void arguments_are_checked(void **state)
{
    (void)state;
    assert_int_equal(stage_child(arguments_body), 0);
}

static int pairs_body(void)
{
    int self = getpid();
    CUuuid first, second;
    CUcheckpointGpuPair pairs[2];
    CUcheckpointRestoreArgs restore = {.gpuPairs = pairs, .gpuPairsCount = 1};
    must(enter() == CUDA_SUCCESS);
    must(cuDeviceGetUuid(&first, 0) == CUDA_SUCCESS && cuDeviceGetUuid(&second, 1) == CUDA_SUCCESS);
    must(out(self) == CUDA_SUCCESS);
    pairs[0] = pairs[1] = (CUcheckpointGpuPair){second, second};
    must(cuCheckpointProcessRestore(self, &restore) == CUDA_ERROR_INVALID_VALUE); /* device 0 is not named */
    pairs[1] = (CUcheckpointGpuPair){first, second};
    restore.gpuPairsCount = 2;
    must(cuCheckpointProcessRestore(self, &restore) == CUDA_ERROR_INVALID_VALUE); /* both to one */
    pairs[0] = (CUcheckpointGpuPair){second, first};
    must(cuCheckpointProcessRestore(self, &restore) == CUDA_ERROR_NOT_SUPPORTED); /* not simulated */
    restore.gpuPairsCount = 0;
    must(cuCheckpointProcessRestore(self, &restore) == CUDA_ERROR_INVALID_VALUE);
    restore.gpuPairsCount = 1;
    pairs[0] = (CUcheckpointGpuPair){first, first};
    must(cuCheckpointProcessRestore(self, &restore) == CUDA_SUCCESS);
    must(cuCheckpointProcessUnlock(self, NULL) == CUDA_SUCCESS);
    return 0;
}

static void restore_takes_the_cards_it_is_told(void **state)
{
    (void)state;
    assert_int_equal(stage_child(pairs_body), 0);
}

/* Another process: it enters, allocates, says so, and answers one letter for each it is sent: 'c' checks its memory, 'x' ends it in
 * order, 'f' forks a child that lives on without CUDA; 'e' runs another program, without an answer. */
struct other {
    pid_t pid;
    int to, from;
};

static int other_body(int from, int to)
{
    CUdeviceptr address;
    char letter = 'r';
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    must(enter() == CUDA_SUCCESS && cuMemAlloc_v2(&address, OTHER_BYTES) == CUDA_SUCCESS);
    must(cuMemsetD8_v2(address, 0x5a, OTHER_BYTES) == CUDA_SUCCESS);
    for (;;) {
        pid_t heir;
        must(write(to, &letter, 1) == 1);
        if (read(from, &letter, 1) != 1 || letter == 'x')
            return 0;
        if (letter == 'c')
            must(words_are(address + OTHER_BYTES - 1024, 0x5a5a5a5a, 256));
        if (letter == 'f' && (heir = fork()) == 0) {
            close(to);
            while (read(from, &letter, 1) == 1 && letter != 'x')
                ;
            _exit(0);
        }
        if (letter == 'e')
            execl("/bin/sleep", "sleep", "1000", (char *)NULL);
    }
}

static struct other other_start(void)
{
    int to[2], from[2];
    char letter;
    struct other other;
    if (pipe2(to, O_CLOEXEC) != 0 || pipe2(from, O_CLOEXEC) != 0)
        abort();
    fflush(NULL);
    other.pid = fork();
    if (other.pid == 0) {
        close(to[1]);
        close(from[0]);
        _exit(other_body(to[0], from[1]));
    }
    close(to[0]);
    close(from[1]);
    other.to = to[1];
    other.from = from[0];
    if (read(other.from, &letter, 1) != 1 || letter != 'r')
        abort();
    return other;
}

static bool other_do(const struct other *other, char letter)
{
    char answer;
    return write(other->to, &letter, 1) == 1 && read(other->from, &answer, 1) == 1 && answer == letter;
}

static int other_end(const struct other *other, int signal)
{
    int status = -1;
    if (signal)
        kill(other->pid, signal);
    else if (write(other->to, "x", 1) != 1) /* closing is not enough: others have inherited this end */
        return -1;
    close(other->to);
    close(other->from);
    waitpid(other->pid, &status, 0);
    return status;
}

static int by_another_body(void)
{
    struct other other = other_start();
    CUcheckpointLockArgs lock = {.timeoutMs = 60000};
    char path[64];
    int thread = 0;
    must(cuInit(0) == CUDA_SUCCESS); /* no context: nothing of its own on the card */
    must(stage_figures().device[0].used_bytes == FOOTPRINT);
    must(cuCheckpointProcessGetRestoreThreadId(other.pid, &thread) == CUDA_SUCCESS && thread != other.pid);
    snprintf(path, sizeof(path), "/proc/%d/task/%d", other.pid, thread);
    must(access(path, F_OK) == 0);
    for (int round = 0; round < 10; round++) {
        must(state_of(other.pid) == CU_PROCESS_STATE_RUNNING);
        must(cuCheckpointProcessRestore(other.pid, NULL) == CUDA_ERROR_ILLEGAL_STATE);
        must(cuCheckpointProcessLock(other.pid, &lock) == CUDA_SUCCESS);
        must(state_of(other.pid) == CU_PROCESS_STATE_LOCKED && state_of(getpid()) == CU_PROCESS_STATE_RUNNING);
        must(cuCheckpointProcessCheckpoint(other.pid, NULL) == CUDA_SUCCESS);
        must(stage_figures().device[0].used_bytes == 0 && stage_figures().host_used_bytes == FOOTPRINT);
        must(back(other.pid) == CUDA_SUCCESS);
        must(stage_figures().device[0].used_bytes == FOOTPRINT);
        must(other_do(&other, 'c'));
    }
    must(other_end(&other, 0) == 0 && state_of(other.pid) == -CUDA_ERROR_NOT_INITIALIZED);
    return 0;
}

static void another_process_does_the_same(void **state)
{
    (void)state;
    assert_int_equal(stage_child(by_another_body), 0);
    stage_await_used(0);
}

/* A restore fits to the byte, and one that does not fit is the last. */
static int room_body(void)
{
    struct other lucky = other_start(), lost = other_start();
    CUdeviceptr address, granule;
    must(enter() == CUDA_SUCCESS && out(lucky.pid) == CUDA_SUCCESS && out(lost.pid) == CUDA_SUCCESS);
    must(cuMemAlloc_v2(&address, 8 * GIB - CONTEXT_BYTES - FOOTPRINT) == CUDA_SUCCESS);
    must(stage_figures().device[0].used_bytes == 8 * GIB - FOOTPRINT);
    must(back(lucky.pid) == CUDA_SUCCESS && other_do(&lucky, 'c'));
    must(other_end(&lucky, 0) == 0);
    stage_await_used(8 * GIB - FOOTPRINT);
    must(cuMemAlloc_v2(&granule, 2 * MIB) == CUDA_SUCCESS);
    must(cuCheckpointProcessRestore(lost.pid, NULL) == CUDA_ERROR_OUT_OF_MEMORY);
    must(state_of(lost.pid) == CU_PROCESS_STATE_CHECKPOINTED && stage_figures().host_used_bytes == FOOTPRINT);
    must(stage_figures().device[0].used_bytes == 8 * GIB - FOOTPRINT + 2 * MIB);
    must(cuMemFree_v2(address) == CUDA_SUCCESS);
    for (int again = 0; again < 3; again++)
        must(cuCheckpointProcessRestore(lost.pid, NULL) == CUDA_ERROR_OPERATING_SYSTEM);
    must(cuCheckpointProcessUnlock(lost.pid, NULL) == CUDA_ERROR_ILLEGAL_STATE);
    must(state_of(lost.pid) == CU_PROCESS_STATE_CHECKPOINTED);
    must(other_end(&lost, SIGKILL) == SIGKILL && stage_figures().host_used_bytes == 0);
    return 0;
}

static void a_restore_without_room_is_the_last(void **state)
{
    (void)state;
    assert_int_equal(stage_child(room_body), 0);
}

/* All devices come back, or none. */
static int devices_body(void)
{
    CUcontext context;
    CUdeviceptr address;
    int self = getpid();
    must(enter() == CUDA_SUCCESS && cuCtxCreate_v2(&context, 0, 1) == CUDA_SUCCESS);
    must(cuMemAlloc_v2(&address, 2 * MIB) == CUDA_SUCCESS && out(self) == CUDA_SUCCESS);
    must(stage_figures().device[0].used_bytes == 0 && stage_figures().device[1].used_bytes == 0);
    must(stage_figures().host_used_bytes == 2 * CONTEXT_BYTES + 2 * MIB);
    must(back(self) == CUDA_SUCCESS);
    must(stage_figures().device[0].used_bytes == CONTEXT_BYTES);
    must(stage_figures().device[1].used_bytes == CONTEXT_BYTES + 2 * MIB);
    must(cuMemAlloc_v2(&address, 8 * GIB - CONTEXT_BYTES - 3 * MIB) == CUDA_SUCCESS); /* on device 1: beyond host= */
    must(out(self) == CUDA_ERROR_OUT_OF_MEMORY && state_of(self) == CU_PROCESS_STATE_LOCKED);
    must(cuCheckpointProcessUnlock(self, NULL) == CUDA_SUCCESS && cuMemFree_v2(address) == CUDA_SUCCESS);
    return 0;
}

static void all_devices_move(void **state)
{
    (void)state;
    assert_int_equal(stage_child(devices_body), 0);
}

/* host=2GiB holds three images of FOOTPRINT and no fourth. */
static int host_body(void)
{
    struct other others[4];
    for (int i = 0; i < 4; i++)
        others[i] = other_start();
    must(cuInit(0) == CUDA_SUCCESS);
    for (int i = 0; i < 3; i++)
        must(out(others[i].pid) == CUDA_SUCCESS);
    must(stage_figures().host_used_bytes == 3 * FOOTPRINT && stage_figures().device[0].used_bytes == FOOTPRINT);
    must(out(others[3].pid) == CUDA_ERROR_OUT_OF_MEMORY && state_of(others[3].pid) == CU_PROCESS_STATE_LOCKED);
    must(stage_figures().host_used_bytes == 3 * FOOTPRINT && stage_figures().device[0].used_bytes == FOOTPRINT);
    must(other_end(&others[0], SIGKILL) == SIGKILL);
    must(cuCheckpointProcessCheckpoint(others[3].pid, NULL) == CUDA_SUCCESS);
    for (int i = 1; i < 4; i++) {
        must(back(others[i].pid) == CUDA_SUCCESS && other_do(&others[i], 'c'));
        must(other_end(&others[i], 0) == 0);
    }
    must(stage_figures().host_used_bytes == 0 && stage_figures().host_peak_bytes == 3 * FOOTPRINT);
    return 0;
}

static void the_host_holds_no_more_than_it_has(void **state)
{
    (void)state;
    assert_int_equal(stage_child(host_body), 0);
}

static bool refused_and_unlocked(int pid)
{
    return out(pid) == CUDA_ERROR_NOT_SUPPORTED && state_of(pid) == CU_PROCESS_STATE_LOCKED &&
           cuCheckpointProcessUnlock(pid, NULL) == CUDA_SUCCESS;
}

static int unmovable_body(void)
{
    int self = getpid(), descriptor = -1;
    CUdeviceptr address;
    CUipcMemHandle ipc;
    CUmemGenericAllocationHandle handle;
    CUmemAllocationProp where = {.type = CU_MEM_ALLOCATION_TYPE_PINNED,
                                 .requestedHandleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR,
                                 .location = {.type = CU_MEM_LOCATION_TYPE_DEVICE}};
    must(enter() == CUDA_SUCCESS && cuMemAllocManaged(&address, MIB, 1) == CUDA_SUCCESS);
    must(refused_and_unlocked(self) && cuMemFree_v2(address) == CUDA_SUCCESS);
    must(out(self) == CUDA_SUCCESS && back(self) == CUDA_SUCCESS);
    must(cuMemAlloc_v2(&address, 2 * MIB) == CUDA_SUCCESS && cuIpcGetMemHandle(&ipc, address) == CUDA_SUCCESS);
    must(refused_and_unlocked(self) && cuMemFree_v2(address) == CUDA_SUCCESS);
    must(cuMemCreate(&handle, 2 * MIB, &where, 0) == CUDA_SUCCESS); /* may be exported, is not */
    must(out(self) == CUDA_SUCCESS && back(self) == CUDA_SUCCESS);
    must(cuMemExportToShareableHandle(&descriptor, handle, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0) == 0);
    must(refused_and_unlocked(self));
    close(descriptor);
    must(out(self) == CUDA_SUCCESS && back(self) == CUDA_SUCCESS && cuMemRelease(handle) == CUDA_SUCCESS);
    return 0;
}

static void managed_and_shared_memory_is_not_moved(void **state)
{
    (void)state;
    assert_int_equal(stage_child(unmovable_body), 0);
}

/* Of so many processes alone, that still run. */
static bool only_is_left(unsigned processes)
{
    stage_await_used(processes * FOOTPRINT);
    return stage_figures().host_used_bytes == 0;
}

static int ends_body(void)
{
    struct other killed = other_start(), left = other_start(), ran = other_start(), forked = other_start();
    must(cuInit(0) == CUDA_SUCCESS);
    must(out(killed.pid) == CUDA_SUCCESS && other_end(&killed, SIGKILL) == SIGKILL && only_is_left(3));
    must(out(left.pid) == CUDA_SUCCESS && other_end(&left, 0) == 0 && only_is_left(2));
    must(out(ran.pid) == CUDA_SUCCESS && write(ran.to, "e", 1) == 1);
    while (state_of(ran.pid) != -CUDA_ERROR_NOT_INITIALIZED) /* until the other program runs */
        sched_yield();
    must(only_is_left(1) && other_end(&ran, SIGKILL) == SIGKILL);
    must(other_do(&forked, 'f') && out(forked.pid) == CUDA_SUCCESS); /* a child keeps the descriptors, not the image */
    must(kill(forked.pid, SIGKILL) == 0 && waitpid(forked.pid, NULL, 0) == forked.pid && only_is_left(0));
    must(state_of(forked.pid) == -CUDA_ERROR_NOT_INITIALIZED);
    must(write(forked.to, "x", 1) == 1); /* to the child */
    return 0;
}

static void the_dead_leave_nothing(void **state)
{
    (void)state;
    assert_int_equal(stage_child(ends_body), 0);
}

/* A process that is stopped cannot be locked; whoever asks says for how long it waits, and nothing is left of the request. */
static int stopped_body(void)
{
    struct other other = other_start();
    CUcheckpointLockArgs lock = {.timeoutMs = 30};
    int status;
    must(cuInit(0) == CUDA_SUCCESS && kill(other.pid, SIGSTOP) == 0);
    must(waitpid(other.pid, &status, WUNTRACED) == other.pid && WIFSTOPPED(status));
    must(cuCheckpointProcessLock(other.pid, &lock) == CUDA_ERROR_NOT_READY);
    must(cuCheckpointProcessLock(other.pid, &lock) == CUDA_ERROR_NOT_READY); /* behind the first */
    must(kill(other.pid, SIGCONT) == 0);
    must(out(other.pid) == CUDA_SUCCESS && back(other.pid) == CUDA_SUCCESS && other_do(&other, 'c'));
    must(kill(other.pid, SIGSTOP) == 0 && waitpid(other.pid, &status, WUNTRACED) == other.pid);
    pid_t killer = fork();
    if (killer == 0)
        _exit(kill(other.pid, SIGKILL));
    must(cuCheckpointProcessLock(other.pid, NULL) == CUDA_ERROR_NOT_INITIALIZED); /* it dies under way */
    must(waitpid(killer, &status, 0) == killer && other_end(&other, SIGKILL) == SIGKILL);
    return 0;
}

static void whoever_asks_outlives_a_stop_and_a_death(void **state)
{
    (void)state;
    assert_int_equal(stage_child(stopped_body), 0);
}

/* Sends a process out and back until it is killed. */
static int asker_body(int pid)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    must(cuInit(0) == CUDA_SUCCESS);
    for (;;) {
        CUresult result = out(pid);
        must(result == CUDA_SUCCESS);
        result = back(pid);
        must(result == CUDA_SUCCESS);
    }
}

/* Whatever state the last asker has left it in. */
static CUresult recover(int pid)
{
    (void)cuCheckpointProcessUnlock(pid, NULL); /* comes behind a request that was left open */
    if (state_of(pid) == CU_PROCESS_STATE_LOCKED)
        return cuCheckpointProcessUnlock(pid, NULL);
    return state_of(pid) == CU_PROCESS_STATE_CHECKPOINTED ? back(pid) : CUDA_SUCCESS;
}

/* Askers are killed at any moment: a request is done or not begun, and the next asker finds it all in order. */
static int killed_askers_body(void)
{
    enum { ROUNDS = 60 };
    struct other other = other_start();
    unsigned seed = (unsigned)getpid();
    pid_t askers[ROUNDS];
    int gates[ROUNDS][2], status;
    char letter = 'g';
    printf("seed %u\n", seed);
    for (int i = 0; i < ROUNDS; i++) { /* before this process has called cuInit */
        must(pipe2(gates[i], O_CLOEXEC) == 0);
        fflush(NULL);
        askers[i] = fork();
        if (askers[i] == 0)
            _exit(read(gates[i][0], &letter, 1) == 1 ? asker_body(other.pid) : 1);
    }
    must(cuInit(0) == CUDA_SUCCESS);
    for (int i = 0; i < ROUNDS; i++) {
        must(write(gates[i][1], &letter, 1) == 1);
        while (state_of(other.pid) == CU_PROCESS_STATE_RUNNING)
            sched_yield();
        for (int pause = rand_r(&seed) % 200; pause > 0; pause--)
            sched_yield();
        must(kill(askers[i], SIGKILL) == 0 && waitpid(askers[i], &status, 0) == askers[i]);
        must(WIFSIGNALED(status) && recover(other.pid) == CUDA_SUCCESS);
        must(state_of(other.pid) == CU_PROCESS_STATE_RUNNING && other_do(&other, 'c'));
        must(stage_figures().device[0].used_bytes == FOOTPRINT && stage_figures().host_used_bytes == 0);
    }
    must(other_end(&other, 0) == 0);
    return 0;
}

static void killed_askers_leave_nothing_open(void **state)
{
    (void)state;
    assert_int_equal(stage_child(killed_askers_body), 0);
}

static int user_body(void)
{
    struct other other = other_start();
    must(cuInit(0) == CUDA_SUCCESS && setresuid(65534, 65534, 65534) == 0);
    must(state_of(getpid()) == CU_PROCESS_STATE_RUNNING);
    must(cuCheckpointProcessLock(other.pid, NULL) == CUDA_ERROR_NOT_PERMITTED);
    must(state_of(other.pid) == -CUDA_ERROR_NOT_PERMITTED);
    must(write(other.to, "x", 1) == 1); /* this user may not kill it */
    return 0;
}

static void another_users_process_is_not_touched(void **state)
{
    (void)state;
    if (geteuid() != 0)
        skip();
    assert_int_equal(stage_child(user_body), 0);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(memory_moves_and_everything_survives, setup, teardown),
        cmocka_unit_test_setup_teardown(other_orders_are_illegal, setup, teardown),
        cmocka_unit_test_setup_teardown(arguments_are_checked, setup, teardown),
        cmocka_unit_test_setup_teardown(restore_takes_the_cards_it_is_told, setup, teardown),
        cmocka_unit_test_setup_teardown(another_process_does_the_same, setup, teardown),
        cmocka_unit_test_setup_teardown(a_restore_without_room_is_the_last, setup, teardown),
        cmocka_unit_test_setup_teardown(all_devices_move, setup, teardown),
        cmocka_unit_test_setup_teardown(the_host_holds_no_more_than_it_has, setup, teardown),
        cmocka_unit_test_setup_teardown(managed_and_shared_memory_is_not_moved, setup, teardown),
        cmocka_unit_test_setup_teardown(the_dead_leave_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(whoever_asks_outlives_a_stop_and_a_death, setup, teardown),
        cmocka_unit_test_setup_teardown(killed_askers_leave_nothing_open, setup, teardown),
        cmocka_unit_test_setup_teardown(another_users_process_is_not_touched, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
