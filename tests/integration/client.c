/*
 * A CUDA driver API program that does what its standard input says, one command a line, and answers each with one line:
 * "ok ...", or "error N" with the driver's result. It knows nothing of cubudget: the tests start it preloaded.
 *
 *   init                     cuInit, the primary context of device 0 made current
 *   start                    cuInit alone
 *   context / uncontext      the primary context retained and made current / released
 *   alloc INDEX BYTES        cuMemAlloc_v2 into place INDEX
 *   managed INDEX BYTES      cuMemAllocManaged
 *   pitch INDEX WIDTH HEIGHT cuMemAllocPitch_v2
 *   free INDEX               cuMemFree_v2
 *   info                     cuMemGetInfo_v2: "ok FREE TOTAL"
 *   write INDEX BYTE COUNT   cuMemsetD8
 *   read INDEX BYTE COUNT    copies back and compares: "ok" or "differs"
 *   reset                    cuDevicePrimaryCtxReset_v2
 *   random ROUNDS SEED MAX   ROUNDS of random allocations and frees up to MAX bytes, all freed at the end:
 *                            "ok GRANTED REFUSED"; any other result than success or out of memory is an error
 *   during SECONDS SEED MAX  the same for so long
 *   threads COUNT ROUNDS SEED MAX  the same as random, from COUNT threads at once
 *   busy SEED MAX            says "ok" and goes on for ever
 *   fill BYTES               allocates blocks of BYTES until one is refused, and keeps them: "ok COUNT"
 *   contexts ROUNDS          makes, fills and destroys a context ROUNDS times, while another thread allocates in the first
 *   race BYTES               waits for the file named by the environment's RACE_GATE, then allocates
 *   fork COMMAND...          runs one command in a forked child: the child's answer
 *   hold                     forks a child that sleeps until its standard input (shared) ends: "ok PID"
 *   exec                     becomes `sleep 60`
 *   quit
 * and those of client_pools.c.
 */
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "integration/client.h"

static struct {
    CUresult (*init)(unsigned);
    CUresult (*primary_retain)(CUcontext *, CUdevice);
    CUresult (*primary_release)(CUdevice);
    CUresult (*primary_reset)(CUdevice);
    CUresult (*context_create)(CUcontext *, unsigned, CUdevice);
    CUresult (*context_destroy)(CUcontext);
    CUresult (*set_current)(CUcontext);
    CUresult (*alloc)(CUdeviceptr *, size_t);
    CUresult (*alloc_managed)(CUdeviceptr *, size_t, unsigned);
    CUresult (*alloc_pitch)(CUdeviceptr *, size_t *, size_t, size_t, unsigned);
    CUresult (*release)(CUdeviceptr);
    CUresult (*get_info)(size_t *, size_t *);
    CUresult (*set_bytes)(CUdeviceptr, unsigned char, size_t);
    CUresult (*copy_back)(void *, CUdeviceptr, size_t);
} driver;

CUdeviceptr places[PLACES];
static CUcontext context;
static void *driver_handle;

void *client_symbol(const char *name)
{
    void *found = dlsym(driver_handle, name);
    if (!found) {
        printf("error no %s\n", name);
        exit(2);
    }
    return found;
}

static void driver_load(void)
{
    driver_handle = dlopen("libcuda.so.1", RTLD_NOW);
    if (!driver_handle) {
        printf("error %s\n", dlerror());
        exit(2);
    }
    *(void **)&driver.init = client_symbol("cuInit");
    *(void **)&driver.primary_retain = client_symbol("cuDevicePrimaryCtxRetain");
    *(void **)&driver.primary_release = client_symbol("cuDevicePrimaryCtxRelease_v2");
    *(void **)&driver.primary_reset = client_symbol("cuDevicePrimaryCtxReset_v2");
    *(void **)&driver.context_create = client_symbol("cuCtxCreate_v2");
    *(void **)&driver.context_destroy = client_symbol("cuCtxDestroy_v2");
    *(void **)&driver.set_current = client_symbol("cuCtxSetCurrent");
    *(void **)&driver.alloc = client_symbol("cuMemAlloc_v2");
    *(void **)&driver.alloc_managed = client_symbol("cuMemAllocManaged");
    *(void **)&driver.alloc_pitch = client_symbol("cuMemAllocPitch_v2");
    *(void **)&driver.release = client_symbol("cuMemFree_v2");
    *(void **)&driver.get_info = client_symbol("cuMemGetInfo_v2");
    *(void **)&driver.set_bytes = client_symbol("cuMemsetD8_v2");
    *(void **)&driver.copy_back = client_symbol("cuMemcpyDtoH_v2");
}

void answer(CUresult result)
{
    if (result)
        printf("error %d\n", result);
    else
        printf("ok\n");
}

static CUresult context_enter(void)
{
    CUresult result = driver.primary_retain(&context, 0);
    return result ? result : driver.set_current(context);
}

CUresult context_current_here(void)
{
    return driver.set_current(context);
}

struct churn {
    unsigned long rounds; /* 0: until `until`, or for ever where that is 0 too */
    time_t until;         /* CLOCK_MONOTONIC */
    uint64_t seed, max_bytes, granted, refused;
    CUresult result;
};

uint64_t random_next(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static bool churn_goes_on(const struct churn *churn, unsigned long round)
{
    struct timespec now;
    if (churn->until == 0)
        return churn->rounds == 0 || round < churn->rounds;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec < churn->until;
}

/* Random allocations and frees; leaves nothing behind. */
static void churn_run(struct churn *churn)
{
    CUdeviceptr held[16] = {0};
    uint64_t state = churn->seed * 0x9E3779B97F4A7C15u + 1;
    for (unsigned long round = 0; churn_goes_on(churn, round); round++) {
        unsigned place = (unsigned)(random_next(&state) % 16);
        CUresult result;
        if (held[place]) {
            result = driver.release(held[place]);
            held[place] = 0;
        } else {
            uint64_t bytes = random_next(&state) % churn->max_bytes + 1;
            if (random_next(&state) % 4 == 0)
                bytes = bytes % 4096 + 1;
            result = driver.alloc(&held[place], bytes);
            if (result == CUDA_ERROR_OUT_OF_MEMORY) {
                churn->refused++;
                result = CUDA_SUCCESS;
            } else if (result == CUDA_SUCCESS)
                churn->granted++;
        }
        if (result != CUDA_SUCCESS) {
            churn->result = result;
            return;
        }
    }
    for (unsigned place = 0; place < 16; place++)
        if (held[place] && (churn->result = driver.release(held[place])) != CUDA_SUCCESS)
            return;
}

static void *churn_thread(void *argument)
{
    struct churn *churn = argument;
    churn->result = driver.set_current(context);
    if (churn->result == CUDA_SUCCESS)
        churn_run(churn);
    return NULL;
}

static void churn_answer(struct churn *churns, unsigned count)
{
    pthread_t threads[64];
    uint64_t granted = 0, refused = 0;
    CUresult result = CUDA_SUCCESS;
    for (unsigned i = 0; i < count; i++)
        if (pthread_create(&threads[i], NULL, churn_thread, &churns[i]) != 0)
            abort();
    for (unsigned i = 0; i < count; i++) {
        pthread_join(threads[i], NULL);
        granted += churns[i].granted;
        refused += churns[i].refused;
        if (churns[i].result)
            result = churns[i].result;
    }
    if (result)
        printf("error %d\n", result);
    else
        printf("ok %llu %llu\n", (unsigned long long)granted, (unsigned long long)refused);
}

static void command_threads(const char *arguments)
{
    unsigned count;
    unsigned long rounds;
    unsigned long long seed, max_bytes;
    struct churn churns[64] = {0};
    if (sscanf(arguments, "%u %lu %llu %llu", &count, &rounds, &seed, &max_bytes) != 4 || count > 64 || !rounds)
        abort();
    for (unsigned i = 0; i < count; i++)
        churns[i] = (struct churn){.rounds = rounds, .seed = seed + i, .max_bytes = max_bytes};
    churn_answer(churns, count);
}

static void command_during(const char *arguments)
{
    unsigned seconds;
    unsigned long long seed, max_bytes;
    struct timespec now;
    if (sscanf(arguments, "%u %llu %llu", &seconds, &seed, &max_bytes) != 3)
        abort();
    clock_gettime(CLOCK_MONOTONIC, &now);
    struct churn churn = {.until = now.tv_sec + (time_t)seconds, .seed = seed, .max_bytes = max_bytes};
    churn_answer(&churn, 1);
}

static atomic_bool contexts_done;

/* Takes and gives in the first context, so fast that addresses come round. */
static void *beside_run(void *unused)
{
    CUdeviceptr held[5] = {0};
    (void)unused;
    if (driver.set_current(context) != CUDA_SUCCESS)
        abort();
    for (unsigned turn = 0; !contexts_done; turn = (turn + 1) % 5) {
        if (held[turn] && driver.release(held[turn]) != CUDA_SUCCESS)
            abort();
        if (driver.alloc(&held[turn], 64 << 20) != CUDA_SUCCESS)
            held[turn] = 0;
    }
    for (unsigned turn = 0; turn < 5; turn++)
        if (held[turn] && driver.release(held[turn]) != CUDA_SUCCESS)
            abort();
    return NULL;
}

static void command_contexts(const char *arguments)
{
    unsigned long rounds = strtoul(arguments, NULL, 10);
    pthread_t thread;
    CUresult result = CUDA_SUCCESS;
    contexts_done = false;
    if (pthread_create(&thread, NULL, beside_run, NULL) != 0)
        abort();
    for (unsigned long round = 0; round < rounds && result == CUDA_SUCCESS; round++) {
        CUcontext other;
        CUdeviceptr unused;
        result = driver.context_create(&other, 0, 0);
        for (int i = 0; i < 3 && result == CUDA_SUCCESS; i++)
            (void)driver.alloc(&unused,
                               64 << 20); /* freed by the end of its context; or refused, there being no room */
        if (result == CUDA_SUCCESS)
            result = driver.context_destroy(other);
    }
    contexts_done = true;
    pthread_join(thread, NULL);
    answer(result);
}

static void command_busy(const char *arguments)
{
    unsigned long long seed, max_bytes;
    if (sscanf(arguments, "%llu %llu", &seed, &max_bytes) != 2)
        abort();
    printf("ok\n");
    fflush(stdout);
    struct churn churn = {.seed = seed, .max_bytes = max_bytes};
    churn_run(&churn);
    _exit(3);
}

static void command_read(const char *arguments)
{
    unsigned index, byte;
    size_t count;
    if (sscanf(arguments, "%u %u %zu", &index, &byte, &count) != 3)
        abort();
    unsigned char *copy = malloc(count);
    CUresult result = driver.copy_back(copy, places[index], count);
    size_t same = 0;
    while (result == CUDA_SUCCESS && same < count && copy[same] == byte)
        same++;
    free(copy);
    if (result)
        printf("error %d\n", result);
    else
        printf(same == count ? "ok\n" : "differs\n");
}

static void command_memory(const char *verb, const char *arguments)
{
    unsigned index = 0, byte = 0;
    size_t first = 0, second = 0, pitch = 0;
    if (sscanf(arguments, "%u %zu %zu", &index, &first, &second) < 1 || index >= PLACES)
        abort();
    CUdeviceptr before = places[index];
    CUresult result = CUDA_ERROR_INVALID_VALUE;
    if (strcmp(verb, "alloc") == 0)
        result = driver.alloc(&places[index], first);
    else if (strcmp(verb, "managed") == 0)
        result = driver.alloc_managed(&places[index], first, 1);
    else if (strcmp(verb, "pitch") == 0)
        result = driver.alloc_pitch(&places[index], &pitch, first, second, 4);
    else if (strcmp(verb, "free") == 0)
        result = driver.release(places[index]);
    else if (strcmp(verb, "write") == 0 && sscanf(arguments, "%u %u %zu", &index, &byte, &second) == 3)
        result = driver.set_bytes(places[index], (unsigned char)byte, second);
    if (result == CUDA_ERROR_OUT_OF_MEMORY && places[index] != before)
        printf("error output touched\n");
    else
        answer(result);
}

static void command_race(const char *arguments)
{
    const char *gate = getenv("RACE_GATE");
    while (access(gate, F_OK) != 0)
        ;
    CUdeviceptr pointer = 0;
    answer(driver.alloc(&pointer, strtoull(arguments, NULL, 10)));
}

static void command_fill(const char *arguments)
{
    size_t bytes = strtoul(arguments, NULL, 10);
    unsigned count = 0;
    CUdeviceptr block;
    CUresult result;
    while ((result = driver.alloc(&block, bytes)) == CUDA_SUCCESS)
        count++;
    if (result == CUDA_ERROR_OUT_OF_MEMORY)
        printf("ok %u\n", count);
    else
        answer(result);
}

static void command_run(char *line);

static void command_fork(char *line)
{
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        command_run(line);
        fflush(stdout);
        _exit(0);
    }
    int status = 0;
    waitpid(child, &status, 0);
    if (status != 0)
        printf("error child status %#x\n", (unsigned)status);
}

static void command_hold(void)
{
    fflush(stdout);
    pid_t child = fork();
    if (child == 0)
        for (;;)
            pause();
    printf("ok %d\n", (int)child);
}

static void command_info(void)
{
    size_t free_bytes = 0, total_bytes = 0;
    CUresult result = driver.get_info(&free_bytes, &total_bytes);
    if (result)
        answer(result);
    else
        printf("ok %zu %zu\n", free_bytes, total_bytes);
}

static void command_run(char *line)
{
    char *arguments = strchr(line, ' ');
    if (arguments)
        *arguments++ = '\0';
    else
        arguments = line + strlen(line);
    if (strcmp(line, "start") == 0)
        answer(driver.init(0));
    else if (strcmp(line, "context") == 0)
        answer(context_enter());
    else if (strcmp(line, "init") == 0) {
        CUresult result = driver.init(0);
        answer(result ? result : context_enter());
    } else if (strcmp(line, "uncontext") == 0)
        answer(driver.primary_release(0));
    else if (strcmp(line, "reset") == 0)
        answer(driver.primary_reset(0));
    else if (strcmp(line, "info") == 0)
        command_info();
    else if (strcmp(line, "read") == 0)
        command_read(arguments);
    else if (strcmp(line, "threads") == 0)
        command_threads(arguments);
    else if (strcmp(line, "random") == 0) {
        char one[128];
        snprintf(one, sizeof(one), "1 %.100s", arguments);
        command_threads(one);
    } else if (strcmp(line, "during") == 0)
        command_during(arguments);
    else if (strcmp(line, "contexts") == 0)
        command_contexts(arguments);
    else if (strcmp(line, "busy") == 0)
        command_busy(arguments);
    else if (strcmp(line, "fill") == 0)
        command_fill(arguments);
    else if (strcmp(line, "race") == 0)
        command_race(arguments);
    else if (strcmp(line, "fork") == 0)
        command_fork(arguments);
    else if (strcmp(line, "hold") == 0)
        command_hold();
    else if (strcmp(line, "exec") == 0) {
        execlp("sleep", "sleep", "60", (char *)NULL);
        answer(-errno);
    } else if (strcmp(line, "quit") == 0)
        exit(0);
    else if (!pools_command(line, arguments))
        command_memory(line, arguments);
}

int main(void)
{
    char line[256];
    driver_load();
    while (fgets(line, sizeof(line), stdin)) {
        line[strcspn(line, "\n")] = '\0';
        command_run(line);
        fflush(stdout);
    }
    return 0;
}
