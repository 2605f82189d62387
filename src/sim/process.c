/*
 * The process's own state: cuInit, which devices it sees, what happened to it (fork), and the faults that were ordered.
 * sim_process is written by the first cuInit alone, under init_lock, before the mark says ready.
 */
#include "sim/checkpoint.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* A page the kernel wipes in a forked child: there CUDA is not initialised and never can be. */
struct mark {
    atomic_int alive; /* 1 in the process that made it */
    atomic_int ready; /* 1 after a cuInit that succeeded */
    atomic_int left;  /* 1 once the process is ending in order */
};

struct sim_process sim_process;
static struct mark *_Atomic process_mark;
static pthread_mutex_t init_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_mutex_t state_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t state_changed = PTHREAD_COND_INITIALIZER;
static CUresult init_result = CUDA_ERROR_NOT_INITIALIZED;
static _Atomic uint64_t fault_calls[SIM_FAULTS];

void sim_lock(void)
{
    pthread_mutex_lock(&state_lock);
}

void sim_unlock(void)
{
    pthread_mutex_unlock(&state_lock);
}

void sim_wait(void)
{
    pthread_cond_wait(&state_changed, &state_lock);
}

void sim_wake(void)
{
    pthread_cond_broadcast(&state_changed);
}

/* NULL: no memory for a page. */
static struct mark *mark_make(void)
{
    struct mark *made = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (made == MAP_FAILED)
        return NULL;
    madvise(made, 4096, MADV_WIPEONFORK);
    atomic_store(&made->alive, 1);
    struct mark *expected = NULL;
    if (!atomic_compare_exchange_strong(&process_mark, &expected, made)) {
        munmap(made, 4096);
        return expected;
    }
    return made;
}

/* The second name a jump to a function's first was made through, until the function looks (process_enter). */
static _Thread_local const char *twin_called, *twin_target;

void process_called_as(const char *twin, const char *name)
{
    twin_called = twin;
    twin_target = name;
}

static const char *name_called(const char *name)
{
    const char *called = twin_called && strcmp(twin_target, name) == 0 ? twin_called : name;
    twin_called = NULL;
    return called;
}

/* The result an option orders for this call now, or success; what is ordered for after the call, in *after, where the
 * call can undo what it made. */
static CUresult fault_check(const char *name, CUresult *after)
{
    CUresult result = CUDA_SUCCESS;
    name = name_called(name);
    for (unsigned i = 0; i < sim_process.options.fault_count; i++) {
        const struct sim_fault *fault = &sim_process.options.faults[i];
        if (strcmp(fault->call, name) != 0)
            continue;
        uint64_t call = atomic_fetch_add(&fault_calls[i], 1) + 1;
        if (fault->nth != 0 && fault->nth != call)
            continue;
        if (fault->code == CUDA_SUCCESS)
            call_hang();
        if (fault->after && after)
            *after = fault->code;
        else if (result == CUDA_SUCCESS)
            result = fault->code;
    }
    return result;
}

static CUresult process_check(void)
{
    struct mark *mark = atomic_load_explicit(&process_mark, memory_order_acquire);
    if (!mark || !atomic_load_explicit(&mark->ready, memory_order_acquire))
        return CUDA_ERROR_NOT_INITIALIZED;
    if (atomic_load_explicit(&mark->left, memory_order_relaxed))
        return CUDA_ERROR_DEINITIALIZED;
    return CUDA_SUCCESS;
}

struct call process_enter(const char *name, CUresult *after)
{
    struct call call = {.result = process_check()};
    if (call.result == CUDA_SUCCESS) {
        call.result = call_begin(name);
        call.inside = call.result == CUDA_SUCCESS;
    }
    if (call.inside && sim_process.options.fault_count)
        call.result = fault_check(name, after);
    return call;
}

CUresult process_look(const char *name, CUresult *after)
{
    CUresult result = process_check();
    return result == CUDA_SUCCESS && sim_process.options.fault_count ? fault_check(name, after) : result;
}

/* A process that ends in order is answered so from here on. Its memory goes with its descriptors and not before: on a card it
 * stays while a forked child holds them, after an exit as after a kill (measured). */
__attribute__((destructor)) static void process_leave(void)
{
    struct mark *mark = atomic_load_explicit(&process_mark, memory_order_acquire);
    if (mark)
        atomic_store(&mark->left, 1);
}

static _Noreturn void settings_refuse(const char *fault)
{
    dprintf(STDERR_FILENO, "cubudget: CUBUDGET_SIMULATE: %s\n", fault);
    _exit(78);
}

/* The device a word of CUDA_VISIBLE_DEVICES names: an index, or the beginning of a GPU-uuid that fits one. -1: none, a MIG
 * device among them: the machine's cards are whole. */
static int visible_device(const char *word)
{
    const struct machine_shared *shared = sim_process.machine.shared;
    char *end;
    if (strncmp(word, "GPU-", 4) == 0) {
        int found = -1;
        for (unsigned device = 0; device < shared->devices; device++) {
            const uint8_t *u = shared->device[device].uuid;
            char text[48];
            snprintf(text, sizeof(text), "GPU-%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x",
                     u[0], u[1], u[2], u[3], u[4], u[5], u[6], u[7], u[8], u[9], u[10], u[11], u[12], u[13], u[14],
                     u[15]);
            if (strncasecmp(text, word, strlen(word)) != 0)
                continue;
            if (found >= 0)
                return -1;
            found = (int)device;
        }
        return found;
    }
    long index = strtol(word, &end, 10);
    return end == word || *end || index < 0 || index >= (long)shared->devices ? -1 : (int)index;
}

/* The devices in the order CUDA_VISIBLE_DEVICES names them, up to the first that is not valid; one named twice is an
 * error of its own (measured: 101, where none valid is 100). */
static CUresult devices_choose(void)
{
    const char *text = getenv("CUDA_VISIBLE_DEVICES");
    char words[1024];
    unsigned seen = 0;
    sim_process.device_count = 0;
    if (!text) {
        for (unsigned device = 0; device < sim_process.machine.shared->devices; device++)
            sim_process.physical[sim_process.device_count++] = device;
        return CUDA_SUCCESS;
    }
    snprintf(words, sizeof(words), "%s", text);
    for (char *rest = words, *word; (word = strsep(&rest, ",")) != NULL;) {
        while (*word == ' ')
            word++;
        for (size_t length = strlen(word); length > 0 && word[length - 1] == ' '; length--)
            word[length - 1] = '\0';
        int device = visible_device(word);
        if (device < 0)
            break;
        if (seen & 1u << device)
            return CUDA_ERROR_INVALID_DEVICE;
        seen |= 1u << device;
        sim_process.physical[sim_process.device_count++] = (unsigned)device;
    }
    return sim_process.device_count ? CUDA_SUCCESS : CUDA_ERROR_NO_DEVICE;
}

static CUresult machine_join(void)
{
    char fault[MACHINE_FAULT_BYTES] = "";
    int result;
    do {
        result = machine_open(&sim_process.machine, &sim_process.options, fault, sizeof(fault));
        if (result == -EINVAL)
            settings_refuse(fault);
        if (result != 0)
            return CUDA_ERROR_OPERATING_SYSTEM;
        CUresult chosen = devices_choose();
        if (chosen != CUDA_SUCCESS) {
            machine_close(&sim_process.machine);
            return chosen;
        }
        result = machine_claim(&sim_process.machine);
        if (result != 0)
            machine_close(&sim_process.machine);
    } while (result == -EAGAIN);
    return result == 0 ? CUDA_SUCCESS : CUDA_ERROR_OPERATING_SYSTEM;
}

/* Read once, and again only after a fault ordered for cuInit. Under init_lock. */
static void options_read(void)
{
    static bool known;
    char fault[MACHINE_FAULT_BYTES] = "";
    if (!known && options_parse(getenv("CUBUDGET_SIMULATE"), &sim_process.options, fault, sizeof(fault)) != 0)
        settings_refuse(fault);
    known = true;
}

/* The first that is not failed on order decides for the process. Under init_lock. */
static CUresult process_initialise(struct mark *mark)
{
    options_read();
    CUresult result = fault_check("cuInit", NULL);
    if (result != CUDA_SUCCESS || init_result != CUDA_ERROR_NOT_INITIALIZED)
        return result != CUDA_SUCCESS ? result : init_result;
    init_result = machine_join();
    if (init_result == CUDA_SUCCESS) {
        calls_prepare();
        watch_start(&sim_process.machine);
        checkpoint_start();
        atomic_store_explicit(&mark->ready, 1, memory_order_release);
    }
    return init_result;
}

SIM_API CUresult cuInit(unsigned flags)
{
    int saved = errno;
    struct mark *mark = atomic_load(&process_mark);
    if (!mark)
        mark = mark_make();
    if (!mark)
        return CUDA_ERROR_OUT_OF_MEMORY;
    if (!atomic_load(&mark->alive)) /* the parent has called cuInit: too late for the child */
        return CUDA_ERROR_NOT_INITIALIZED;
    if (flags != 0)
        return CUDA_ERROR_INVALID_VALUE;
    if (atomic_load(&mark->ready) && !atomic_load(&mark->left))
        call_await_running();
    pthread_mutex_lock(&init_lock);
    CUresult result = process_initialise(mark);
    pthread_mutex_unlock(&init_lock);
    errno = saved;
    return result;
}

SIM_API CUresult cuDriverGetVersion(int *version)
{
    if (!version)
        return CUDA_ERROR_INVALID_VALUE;
    *version = SIM_DRIVER_VERSION;
    return CUDA_SUCCESS;
}
