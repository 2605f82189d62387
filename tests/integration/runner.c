/*
 * A model's runner, as the trials need thirteen of: takes its memory once, and then, with idle times in between, writes to it and
 * reads it back in every way a round can, each time against a copy that it keeps. It knows nothing of cubudget.
 *
 * usage: runner [KEY=VALUE...]
 *   seed=N rounds=N (0: until the board says so) bytes=SIZE_IN_MIB idle=MS (the longest pause between rounds) rest=MS (the
 *   longest pause after one round of eight) scratch=MIB (the most taken and freed within a round; 0: none)
 *   board=FILE place=N (runner.h) gate=FILE (says "holds" when it has its memory, and begins when there is such a file) name=TEXT
 * Ends with 0, or as runner.h says, and one line on standard output.
 *
 * Only windows of the memory are touched, because the simulator's machine is larger than the one it runs on: some in each
 * allocation, the first and the last bytes among them. The kernel is one that the simulator has too.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "cuda/cuda_abi.h"
#include "integration/fill_kernel.h"
#include "integration/runner.h"

enum {
    PIECES = 4,
    WINDOWS_A_PIECE = 6,
    WINDOWS = PIECES * WINDOWS_A_PIECE,
    WINDOW_BYTES = 16384,
    WINDOW_WORDS = WINDOW_BYTES / 4,
    THREADS_A_BLOCK = 256,
    TOUCHED_A_ROUND = 6,
    MIB_BYTES = 1 << 20,
};

static struct {
    CUresult (*init)(unsigned);
    CUresult (*retain)(CUcontext *, CUdevice);
    CUresult (*set_current)(CUcontext);
    CUresult (*load)(CUmodule *, const void *);
    CUresult (*function)(CUfunction *, CUmodule, const char *);
    CUresult (*launch)(CUfunction, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, CUstream,
                       void **, void **);
    CUresult (*alloc)(CUdeviceptr *, size_t);
    CUresult (*release)(CUdeviceptr);
    CUresult (*upload)(CUdeviceptr, const void *, size_t);
    CUresult (*upload_async)(CUdeviceptr, const void *, size_t, CUstream);
    CUresult (*download)(void *, CUdeviceptr, size_t);
    CUresult (*copy)(CUdeviceptr, CUdeviceptr, size_t);
    CUresult (*set_words)(CUdeviceptr, unsigned, size_t);
    CUresult (*stream_create)(CUstream *, unsigned);
    CUresult (*stream_query)(CUstream);
    CUresult (*stream_synchronize)(CUstream);
    CUresult (*event_create)(CUevent *, unsigned);
    CUresult (*event_record)(CUevent, CUstream);
    CUresult (*event_query)(CUevent);
    CUresult (*synchronize)(void);
} driver;

static const struct {
    const char *name;
    void *place;
} symbols[] = {
    {"cuInit", &driver.init},
    {"cuDevicePrimaryCtxRetain", &driver.retain},
    {"cuCtxSetCurrent", &driver.set_current},
    {"cuModuleLoadData", &driver.load},
    {"cuModuleGetFunction", &driver.function},
    {"cuLaunchKernel", &driver.launch},
    {"cuMemAlloc_v2", &driver.alloc},
    {"cuMemFree_v2", &driver.release},
    {"cuMemcpyHtoD_v2", &driver.upload},
    {"cuMemcpyHtoDAsync_v2", &driver.upload_async},
    {"cuMemcpyDtoH_v2", &driver.download},
    {"cuMemcpyDtoD_v2", &driver.copy},
    {"cuMemsetD32_v2", &driver.set_words},
    {"cuStreamCreate", &driver.stream_create},
    {"cuStreamQuery", &driver.stream_query},
    {"cuStreamSynchronize", &driver.stream_synchronize},
    {"cuEventCreate", &driver.event_create},
    {"cuEventRecord", &driver.event_record},
    {"cuEventQuery", &driver.event_query},
    {"cuCtxSynchronize", &driver.synchronize},
};

struct terms {
    uint64_t seed, rounds, mib, idle_ms, rest_ms, scratch_mib, place;
    const char *board, *gate, *name;
};

struct window {
    CUdeviceptr at;
    uint32_t words[WINDOW_WORDS]; /* what is there */
};

static struct terms terms = {.seed = 1, .rounds = 40, .mib = 64, .name = "runner"};
static struct runner_place nowhere, *place = &nowhere;
static struct window windows[WINDOWS];
static uint64_t random_state, compared, slowest_ms;
static CUfunction fill;
static CUstream stream;
static CUevent event;

static uint64_t random_next(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

static uint64_t random_below(uint64_t bound)
{
    return bound ? random_next() % bound : 0;
}

static uint64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static void pause_ms(uint64_t milliseconds)
{
    struct timespec time = {.tv_sec = (time_t)(milliseconds / 1000), .tv_nsec = (long)(milliseconds % 1000) * 1000000};
    while (nanosleep(&time, &time) != 0 && errno == EINTR)
        ;
}

static _Noreturn void finish(int status, const char *why)
{
    printf("%s: %s: rounds %llu compared %llu wrong %u refused %llu slowest round %llu ms\n", terms.name, why,
           (unsigned long long)place->rounds, (unsigned long long)compared, (unsigned)place->wrong,
           (unsigned long long)place->refused, (unsigned long long)slowest_ms);
    fflush(stdout);
    exit(status);
}

/* A call that must succeed. */
static void must(CUresult result, const char *what)
{
    char why[96];
    place->steps++;
    if (result == CUDA_SUCCESS)
        return;
    snprintf(why, sizeof(why), "%s returned %d", what, result);
    if (result == CUDA_ERROR_OUT_OF_MEMORY) {
        place->refused++;
        finish(RUNNER_EXIT_REFUSED, why);
    }
    place->wrong++;
    finish(RUNNER_EXIT_WRONG, why);
}

static void driver_load(void)
{
    void *handle = dlopen("libcuda.so.1", RTLD_NOW);
    if (!handle)
        finish(RUNNER_EXIT_USAGE, dlerror());
    for (size_t i = 0; i < sizeof(symbols) / sizeof(symbols[0]); i++) {
        void *found = dlsym(handle, symbols[i].name);
        if (!found)
            finish(RUNNER_EXIT_USAGE, symbols[i].name);
        *(void **)symbols[i].place = found;
    }
}

/* One window in each of as many parts of a piece; the first begins it, the last ends it. */
static void windows_place(unsigned piece, CUdeviceptr base, uint64_t bytes)
{
    uint64_t part = bytes / WINDOWS_A_PIECE / 256 * 256;
    for (unsigned i = 0; i < WINDOWS_A_PIECE; i++) {
        uint64_t offset = i * part + random_below((part - WINDOW_BYTES) / 256) * 256;
        if (i == 0)
            offset = 0;
        if (i + 1 == WINDOWS_A_PIECE)
            offset = bytes - WINDOW_BYTES;
        windows[piece * WINDOWS_A_PIECE + i].at = base + offset;
    }
}

static void window_invent(struct window *window)
{
    for (unsigned i = 0; i < WINDOW_WORDS; i++)
        window->words[i] = (uint32_t)random_next();
}

static void window_even(struct window *window, uint32_t value)
{
    for (unsigned i = 0; i < WINDOW_WORDS; i++)
        window->words[i] = value;
}

static void window_upload(struct window *window)
{
    window_invent(window);
    must(driver.upload(window->at, window->words, WINDOW_BYTES), "cuMemcpyHtoD");
}

static void window_upload_async(struct window *window)
{
    window_invent(window);
    must(driver.upload_async(window->at, window->words, WINDOW_BYTES, stream), "cuMemcpyHtoDAsync");
    must(driver.stream_synchronize(stream), "cuStreamSynchronize");
}

static void window_fill(struct window *window)
{
    uint32_t value = (uint32_t)random_next();
    uint64_t count = WINDOW_WORDS;
    void *parameters[] = {&window->at, &value, &count};
    window_even(window, value);
    must(driver.launch(fill, WINDOW_WORDS / THREADS_A_BLOCK, 1, 1, THREADS_A_BLOCK, 1, 1, 0, stream, parameters, NULL),
         "cuLaunchKernel");
    must(driver.event_record(event, stream), "cuEventRecord");
    CUresult result;
    while ((result = driver.event_query(event)) == CUDA_ERROR_NOT_READY)
        place->steps++;
    must(result, "cuEventQuery");
}

static void window_set(struct window *window)
{
    uint32_t value = (uint32_t)random_next();
    window_even(window, value);
    must(driver.set_words(window->at, value, WINDOW_WORDS), "cuMemsetD32");
    must(driver.synchronize(), "cuCtxSynchronize");
}

static void window_copy(struct window *window)
{
    const struct window *other = &windows[random_below(WINDOWS)];
    if (other == window)
        return;
    must(driver.copy(window->at, other->at, WINDOW_BYTES), "cuMemcpyDtoD");
    must(driver.synchronize(), "cuCtxSynchronize");
    memcpy(window->words, other->words, WINDOW_BYTES);
}

/* Reads a window back and holds it against what should be there. */
static void window_compare(const struct window *window)
{
    static uint32_t read[WINDOW_WORDS];
    memset(read, 0x5A, sizeof(read));
    must(driver.download(read, window->at, WINDOW_BYTES), "cuMemcpyDtoH");
    compared++;
    if (memcmp(read, window->words, WINDOW_BYTES) != 0) {
        place->wrong++;
        fprintf(stderr, "%s: window %d at %#llx is not what it should be in round %llu\n", terms.name,
                (int)(window - windows), (unsigned long long)window->at, (unsigned long long)place->rounds);
    }
}

/* Takes some more for a moment. */
static void scratch_use(void)
{
    static struct window scratch;
    uint64_t bytes = (1 + random_below(terms.scratch_mib)) * MIB_BYTES;
    must(driver.alloc(&scratch.at, bytes), "cuMemAlloc");
    window_upload(&scratch);
    window_compare(&scratch);
    must(driver.release(scratch.at), "cuMemFree");
}

static void memory_take(void)
{
    static const unsigned shares[PIECES] = {8, 4, 3, 1}; /* of 16 */
    for (unsigned piece = 0; piece < PIECES; piece++) {
        CUdeviceptr base = 0;
        uint64_t bytes = terms.mib * shares[piece] / 16 * MIB_BYTES;
        must(driver.alloc(&base, bytes), "cuMemAlloc");
        windows_place(piece, base, bytes);
    }
    for (unsigned i = 0; i < WINDOWS; i++)
        window_upload(&windows[i]);
}

static void runner_start(void)
{
    CUcontext context;
    CUmodule module;
    must(driver.init(0), "cuInit");
    must(driver.retain(&context, 0), "cuDevicePrimaryCtxRetain");
    must(driver.set_current(context), "cuCtxSetCurrent");
    must(driver.load(&module, fill_image), "cuModuleLoadData");
    must(driver.function(&fill, module, "fill_u32"), "cuModuleGetFunction");
    must(driver.stream_create(&stream, 1), "cuStreamCreate");
    must(driver.event_create(&event, 0), "cuEventCreate");
    memory_take();
}

static void gate_await(void)
{
    printf("%s: holds %llu MiB\n", terms.name, (unsigned long long)terms.mib);
    fflush(stdout);
    while (terms.gate && access(terms.gate, F_OK) != 0)
        pause_ms(5);
}

static void round_work(void)
{
    static void (*const ways[])(struct window *) = {window_upload, window_upload_async, window_fill, window_set,
                                                    window_copy};
    uint64_t started = now_ms();
    for (unsigned i = 0; i < TOUCHED_A_ROUND; i++) {
        ways[random_below(sizeof(ways) / sizeof(ways[0]))](&windows[random_below(WINDOWS)]);
        window_compare(&windows[random_below(WINDOWS)]);
    }
    CUresult result = driver.stream_query(stream);
    must(result == CUDA_ERROR_NOT_READY ? CUDA_SUCCESS : result, "cuStreamQuery");
    if (terms.scratch_mib && random_below(4) == 0)
        scratch_use();
    uint64_t took = now_ms() - started;
    if (took > slowest_ms)
        slowest_ms = took;
    place->rounds++;
}

/* Between rounds: idle, and what the board says. False: it is over. */
static bool round_next(void)
{
    if (terms.rounds && place->rounds >= terms.rounds)
        return false;
    pause_ms(random_below(8) == 0 ? random_below(terms.rest_ms + 1) : random_below(terms.idle_ms + 1));
    while (place->order == RUNNER_PARK) {
        place->state = RUNNER_PARKED;
        pause_ms(2);
    }
    place->state = RUNNER_WORKING;
    return place->order != RUNNER_END;
}

static void board_find(void)
{
    if (!terms.board)
        return;
    int descriptor = open(terms.board, O_RDWR | O_CLOEXEC);
    struct runner_board *board =
        descriptor < 0 ? MAP_FAILED : mmap(NULL, sizeof(*board), PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
    if (board == MAP_FAILED || terms.place >= RUNNER_PLACES)
        finish(RUNNER_EXIT_USAGE, "no board");
    close(descriptor);
    place = &board->places[terms.place];
    place->rounds = place->steps = 0;
    place->state = RUNNER_STARTING;
    place->pid = (uint32_t)getpid();
}

static bool word_read(const char *word)
{
    static const struct {
        const char *key;
        uint64_t *value;
    } numbers[] = {
        {"seed=", &terms.seed},    {"rounds=", &terms.rounds}, {"bytes=", &terms.mib},
        {"idle=", &terms.idle_ms}, {"rest=", &terms.rest_ms},  {"scratch=", &terms.scratch_mib},
        {"place=", &terms.place},
    };
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        size_t length = strlen(numbers[i].key);
        if (strncmp(word, numbers[i].key, length) == 0) {
            char *end;
            *numbers[i].value = strtoull(word + length, &end, 10);
            return end != word + length && *end == '\0';
        }
    }
    if (strncmp(word, "board=", 6) == 0)
        terms.board = word + 6;
    else if (strncmp(word, "gate=", 5) == 0)
        terms.gate = word + 5;
    else if (strncmp(word, "name=", 5) == 0)
        terms.name = word + 5;
    else
        return false;
    return true;
}

int main(int count, char **words)
{
    for (int i = 1; i < count; i++)
        if (!word_read(words[i]))
            finish(RUNNER_EXIT_USAGE, words[i]);
    if (terms.mib < 16)
        finish(RUNNER_EXIT_USAGE, "bytes= is in MiB, 16 or more");
    random_state = terms.seed * 0x9E3779B97F4A7C15u | 1;
    board_find();
    driver_load();
    runner_start();
    gate_await();
    while (round_next())
        round_work();
    for (unsigned i = 0; i < WINDOWS; i++)
        window_compare(&windows[i]);
    place->state = RUNNER_DONE;
    finish(place->wrong ? RUNNER_EXIT_WRONG : place->refused ? RUNNER_EXIT_REFUSED : 0, "done");
}
