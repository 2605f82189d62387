/*
 * Measures one thing in this process, with or without the preload, and prints it in nanoseconds: what bench/bench.c starts over and
 * over. usage: measure WHAT COUNT ROUNDS
 *   pair LIVE ROUNDS      cuMemAlloc + cuMemFree of 512 bytes while LIVE others are held, per pair
 *   async N ROUNDS        cuMemAllocAsync + cuMemFreeAsync of 512 bytes in the default stream, per pair
 *   replace LIVE ROUNDS   frees one of LIVE at random and allocates again, per pair
 *   threads N ROUNDS      pairs in N threads at once, per pair of each thread
 *   gate N ROUNDS         pairs (1 live) after standard input ended: N processes start so together
 *   vmm LIVE ROUNDS       cuMemCreate + cuMemMap + cuMemUnmap + cuMemRelease of 2 MiB while LIVE handles are held, for the four
 *   query N ROUNDS        cuStreamQuery, which only passes the gate, per call
 *   current N ROUNDS      cuCtxGetCurrent, which passes it without a mark, per call
 *   launch N ROUNDS       cuLaunchKernel, five of whose arguments lie on the stack, per call
 *   dlsym N ROUNDS        dlsym of N driver names by handle, per name
 *   missing N ROUNDS      dlsym of a name that the driver does not have, per name
 *   default N ROUNDS      dlsym(RTLD_DEFAULT) of a name of the C library, per name
 *   procaddress N ROUNDS  cuGetProcAddress_v2 of N driver names, per name
 */
#include <dlfcn.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cuda/cuda_abi.h"

enum { ALLOCATION_BYTES = 512, VERSION = 12000, BLOCK_BYTES = 2 << 20 };

static void *driver;
static CUcontext context;
static CUresult (*set_current)(CUcontext);
static CUresult (*alloc)(CUdeviceptr *, size_t);
static CUresult (*release)(CUdeviceptr);
static CUresult (*ask)(const char *, void **, int, uint64_t, CUdriverProcAddressQueryResult *);

static const char *const exported[] = {
    "cuInit",          "cuMemAlloc_v2",   "cuMemFree_v2",         "cuMemGetInfo_v2",
    "cuCtxGetCurrent", "cuCtxSetCurrent", "cuDeviceGetAttribute", "cuCtxSynchronize"};
static const char *const names[] = {
    "cuInit",          "cuMemAlloc",           "cuMemFree",       "cuMemGetInfo", "cuCtxGetCurrent",
    "cuCtxSetCurrent", "cuDeviceGetAttribute", "cuCtxSynchronize"};
enum { NAMES = sizeof(names) / sizeof(names[0]) };

/* What a lone thread measures is its processor time: the same as time on a machine at rest, and right on a busy one. */
static clockid_t clock_used = CLOCK_THREAD_CPUTIME_ID;

static double now_ns(void)
{
    struct timespec now;
    clock_gettime(clock_used, &now);
    return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

static _Noreturn void fail(const char *what)
{
    fprintf(stderr, "measure: %s\n", what);
    exit(1);
}

static void *symbol(const char *name)
{
    void *found = dlsym(driver, name);
    if (!found)
        fail(name);
    return found;
}

static void driver_start(void)
{
    CUresult (*init)(unsigned);
    CUresult (*retain)(CUcontext *, CUdevice);
    driver = dlopen("libcuda.so.1", RTLD_NOW);
    if (!driver)
        fail(dlerror());
    *(void **)&init = symbol("cuInit");
    *(void **)&retain = symbol("cuDevicePrimaryCtxRetain");
    *(void **)&set_current = symbol("cuCtxSetCurrent");
    *(void **)&alloc = symbol("cuMemAlloc_v2");
    *(void **)&release = symbol("cuMemFree_v2");
    *(void **)&ask = symbol("cuGetProcAddress_v2");
    if (init(0) || retain(&context, 0) || set_current(context))
        fail("the driver does not start");
}

static CUdeviceptr *live_hold(size_t live)
{
    CUdeviceptr *held = calloc(live + 1, sizeof(*held));
    for (size_t i = 0; held && i < live; i++)
        if (alloc(&held[i], ALLOCATION_BYTES))
            fail("an allocation was refused");
    if (!held)
        fail("out of memory");
    return held;
}

static double pair_measure(size_t rounds)
{
    CUdeviceptr pointer = 0;
    double start = now_ns();
    for (size_t i = 0; i < rounds; i++)
        if (alloc(&pointer, ALLOCATION_BYTES) || release(pointer))
            fail("a pair failed");
    return (now_ns() - start) / (double)rounds;
}

static double replace_measure(size_t live, size_t rounds)
{
    CUdeviceptr *held = live_hold(live);
    uint64_t random = 88172645463325252u;
    double start = now_ns();
    for (size_t i = 0; i < rounds; i++) {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        CUdeviceptr *one = &held[random % live];
        if (release(*one) || alloc(one, ALLOCATION_BYTES))
            fail("a pair failed");
    }
    return (now_ns() - start) / (double)rounds;
}

static double async_measure(size_t rounds)
{
    CUresult (*alloc_async)(CUdeviceptr *, size_t, CUstream);
    CUresult (*release_async)(CUdeviceptr, CUstream);
    *(void **)&alloc_async = symbol("cuMemAllocAsync");
    *(void **)&release_async = symbol("cuMemFreeAsync");
    CUdeviceptr pointer = 0;
    double start = now_ns();
    for (size_t i = 0; i < rounds; i++)
        if (alloc_async(&pointer, ALLOCATION_BYTES, NULL) || release_async(pointer, NULL))
            fail("a pair failed");
    return (now_ns() - start) / (double)rounds;
}

static double query_measure(size_t rounds)
{
    CUresult (*query)(CUstream);
    *(void **)&query = symbol("cuStreamQuery");
    double start = now_ns();
    for (size_t i = 0; i < rounds; i++)
        if (query(NULL))
            fail("a query failed");
    return (now_ns() - start) / (double)rounds;
}

static double current_measure(size_t rounds)
{
    CUresult (*get_current)(CUcontext *);
    CUcontext found;
    *(void **)&get_current = symbol("cuCtxGetCurrent");
    double start = now_ns();
    for (size_t i = 0; i < rounds; i++)
        if (get_current(&found))
            fail("there is no current context");
    return (now_ns() - start) / (double)rounds;
}

static double launch_measure(size_t rounds)
{
    CUresult (*launch)(CUfunction, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, CUstream,
                       void **, void **);
    *(void **)&launch = symbol("cuLaunchKernel");
    double start = now_ns();
    for (size_t i = 0; i < rounds; i++)
        if (launch(NULL, 1, 1, 1, 1, 1, 1, 0, NULL, NULL, NULL))
            fail("a launch failed");
    return (now_ns() - start) / (double)rounds;
}

static void handles_hold(size_t live,
                         CUresult (*create)(CUmemGenericAllocationHandle *, size_t, const CUmemAllocationProp *,
                                            unsigned long long),
                         const CUmemAllocationProp *prop)
{
    CUmemGenericAllocationHandle held;
    for (size_t i = 0; i < live; i++)
        if (create(&held, BLOCK_BYTES, prop, 0))
            fail("a handle was refused");
}

static double vmm_measure(size_t live, size_t rounds)
{
    CUresult (*create)(CUmemGenericAllocationHandle *, size_t, const CUmemAllocationProp *, unsigned long long);
    CUresult (*map)(CUdeviceptr, size_t, size_t, CUmemGenericAllocationHandle, unsigned long long);
    CUresult (*unmap)(CUdeviceptr, size_t);
    CUresult (*give)(CUmemGenericAllocationHandle);
    CUmemGenericAllocationHandle handle = 0;
    const CUmemAllocationProp prop = {.type = 1, .location = {.type = CU_MEM_LOCATION_TYPE_DEVICE}};
    const CUdeviceptr address = 1ULL << 40;
    double start = 0;
    *(void **)&create = symbol("cuMemCreate");
    *(void **)&map = symbol("cuMemMap");
    *(void **)&unmap = symbol("cuMemUnmap");
    *(void **)&give = symbol("cuMemRelease");
    handles_hold(live, create, &prop);
    for (size_t i = 0; i < rounds + rounds / 10; i++) {
        if (i == rounds / 10)
            start = now_ns();
        if (create(&handle, BLOCK_BYTES, &prop, 0) || map(address, BLOCK_BYTES, 0, handle, 0) ||
            unmap(address, BLOCK_BYTES) || give(handle))
            fail("one of the four failed");
    }
    return (now_ns() - start) / (double)rounds;
}

static pthread_barrier_t together;
static size_t thread_rounds;

static void *thread_run(void *result)
{
    if (set_current(context))
        fail("a thread has no context");
    CUdeviceptr *held = live_hold(1);
    pair_measure(thread_rounds / 10 + 1);
    pthread_barrier_wait(&together);
    *(double *)result = pair_measure(thread_rounds);
    free(held);
    return NULL;
}

static double threads_measure(size_t count, size_t rounds)
{
    enum { THREADS = 64 };
    pthread_t threads[THREADS];
    double results[THREADS], sum = 0;
    if (count < 1 || count > THREADS)
        fail("1 to 64 threads");
    thread_rounds = rounds;
    pthread_barrier_init(&together, NULL, (unsigned)count);
    for (size_t i = 0; i < count; i++)
        if (pthread_create(&threads[i], NULL, thread_run, &results[i]))
            fail("no thread");
    for (size_t i = 0; i < count; i++) {
        pthread_join(threads[i], NULL);
        sum += results[i];
    }
    return sum / (double)count;
}

static double gate_measure(size_t rounds)
{
    char byte;
    live_hold(1);
    pair_measure(rounds / 10 + 1);
    printf("ready\n");
    fflush(stdout);
    while (read(STDIN_FILENO, &byte, 1) > 0) {
    }
    return pair_measure(rounds);
}

static double dlsym_measure(size_t rounds)
{
    double start = now_ns();
    for (size_t i = 0; i < rounds; i++)
        for (size_t n = 0; n < NAMES; n++)
            if (!dlsym(driver, exported[n]))
                fail(exported[n]);
    return (now_ns() - start) / (double)(rounds * NAMES);
}

static double missing_measure(size_t rounds)
{
    double start = now_ns();
    for (size_t i = 0; i < rounds; i++)
        if (dlsym(driver, "cuNoSuchThing") || !dlerror())
            fail("a name that should not be there");
    return (now_ns() - start) / (double)rounds;
}

static double default_measure(size_t rounds)
{
    double start = now_ns();
    for (size_t i = 0; i < rounds; i++)
        if (!dlsym(RTLD_DEFAULT, "strlen"))
            fail("strlen");
    return (now_ns() - start) / (double)rounds;
}

static double procaddress_measure(size_t rounds)
{
    void *found;
    CUdriverProcAddressQueryResult status;
    double start = now_ns();
    for (size_t i = 0; i < rounds; i++)
        for (size_t n = 0; n < NAMES; n++)
            if (ask(names[n], &found, VERSION, 0, &status) || !found)
                fail(names[n]);
    return (now_ns() - start) / (double)(rounds * NAMES);
}

int main(int count, char **words)
{
    double result;
    if (count != 4)
        fail("usage: measure WHAT COUNT ROUNDS");
    const char *what = words[1];
    if (strcmp(what, "threads") == 0 || strcmp(what, "gate") == 0)
        clock_used = CLOCK_MONOTONIC;
    size_t number = strtoull(words[2], NULL, 0), rounds = strtoull(words[3], NULL, 0);
    driver_start();
    if (strcmp(what, "pair") == 0) {
        live_hold(number);
        pair_measure(rounds / 10 + 1);
        result = pair_measure(rounds);
    } else if (strcmp(what, "async") == 0)
        result = async_measure(rounds);
    else if (strcmp(what, "replace") == 0)
        result = replace_measure(number, rounds);
    else if (strcmp(what, "threads") == 0)
        result = threads_measure(number, rounds);
    else if (strcmp(what, "gate") == 0)
        result = gate_measure(rounds);
    else if (strcmp(what, "vmm") == 0)
        result = vmm_measure(number, rounds);
    else if (strcmp(what, "query") == 0)
        result = query_measure(rounds);
    else if (strcmp(what, "current") == 0)
        result = current_measure(rounds);
    else if (strcmp(what, "launch") == 0)
        result = launch_measure(rounds);
    else if (strcmp(what, "dlsym") == 0)
        result = dlsym_measure(rounds);
    else if (strcmp(what, "missing") == 0)
        result = missing_measure(rounds);
    else if (strcmp(what, "default") == 0)
        result = default_measure(rounds);
    else if (strcmp(what, "procaddress") == 0)
        result = procaddress_measure(rounds);
    else
        fail("no such measurement");
    printf("%.3f\n", result);
    return 0;
}
