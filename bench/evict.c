/*
 * What eviction costs where it is not needed, and what it adds of its own where it is: over the simulator, because there a
 * transition takes a time that is known. `make bench` runs it. usage: evict BUILD_DIRECTORY
 *
 * It starts itself as the programs that it measures, preloaded or bare:
 *   evict launch ROUNDS   a loop of launches and stream queries, ns per round
 *   evict hold MIB        holds so much; "take MIB" and "touch" on its standard input are answered with the ms they took, "free"
 *                         gives back what was taken
 * Nothing here is a test: it fails only where something cannot be measured.
 */
#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "cuda/cuda_abi.h"
#include "integration/fill_kernel.h"

enum {
    LAUNCH_ROUNDS = 400000,
    LAUNCH_WORDS = 4096, /* which keep the simulated launch busy for a microsecond: a driver's own takes two and more */
    LAUNCH_RUNS = 11,
    EVICT_RUNS = 11,
    LOCK_MS = 1,
    CHECKPOINT_MS = 60,
    RESTORE_MS = 40,
    RESIDENCY_MS = 700, /* longer than anybody is left alone for after coming back */
    IDLE_PROCESSES = 13,
    SETTLE_MS = 24000, /* at first the books look what the driver loads by itself, and then more and more rarely */
    IDLE_MS = 5000,
    RUNS_MOST = 16,
};

static char build[PATH_MAX], directory[] = "/dev/shm/cubudget-bench-XXXXXX";

static _Noreturn void fail(const char *what)
{
    fprintf(stderr, "evict: %s\n", what);
    exit(1);
}

static double clock_ms(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

static void pause_ms(unsigned milliseconds)
{
    struct timespec time = {.tv_sec = milliseconds / 1000, .tv_nsec = (long)(milliseconds % 1000) * 1000000};
    nanosleep(&time, NULL);
}

/* --- the programs that are measured ------------------------------------------------------------------------------------ */

static void *driver;

static void *symbol(const char *name)
{
    void *found = dlsym(driver, name);
    if (!found)
        fail(name);
    return found;
}

static void driver_start(void)
{
    CUresult (*init)(unsigned), (*retain)(CUcontext *, CUdevice), (*set_current)(CUcontext);
    CUcontext context;
    driver = dlopen("libcuda.so.1", RTLD_NOW);
    if (!driver)
        fail(dlerror());
    *(void **)&init = symbol("cuInit");
    *(void **)&retain = symbol("cuDevicePrimaryCtxRetain");
    *(void **)&set_current = symbol("cuCtxSetCurrent");
    if (init(0) || retain(&context, 0) || set_current(context))
        fail("the driver does not start");
}

static int launch_main(unsigned long rounds)
{
    CUresult (*load)(CUmodule *, const void *), (*get)(CUfunction *, CUmodule, const char *), (*query)(CUstream);
    CUresult (*alloc)(CUdeviceptr *, size_t);
    CUresult (*launch)(CUfunction, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, CUstream,
                       void **, void **);
    CUmodule module;
    CUfunction fill;
    CUdeviceptr to;
    uint32_t value = 7;
    uint64_t count = LAUNCH_WORDS;
    void *parameters[] = {&to, &value, &count};
    driver_start();
    *(void **)&load = symbol("cuModuleLoadData");
    *(void **)&get = symbol("cuModuleGetFunction");
    *(void **)&query = symbol("cuStreamQuery");
    *(void **)&alloc = symbol("cuMemAlloc_v2");
    *(void **)&launch = symbol("cuLaunchKernel");
    if (load(&module, fill_image) || get(&fill, module, "fill_u32") || alloc(&to, 4 * LAUNCH_WORDS))
        fail("there is no kernel");
    double started = 0;
    for (unsigned long i = 0; i < rounds + rounds / 10; i++) {
        if (i == rounds / 10)
            started = clock_ms(CLOCK_PROCESS_CPUTIME_ID);
        CUresult result = launch(fill, LAUNCH_WORDS / 256, 1, 1, 256, 1, 1, 0, NULL, parameters, NULL);
        if (result == CUDA_SUCCESS)
            result = query(NULL);
        if (result != CUDA_SUCCESS && result != CUDA_ERROR_NOT_READY) /* a real card is behind */
            fail("a launch failed");
    }
    printf("%.3f\n", (clock_ms(CLOCK_PROCESS_CPUTIME_ID) - started) * 1e6 / (double)rounds);
    return 0;
}

static int hold_main(size_t mebibytes)
{
    CUresult (*alloc)(CUdeviceptr *, size_t), (*release)(CUdeviceptr), (*set_bytes)(CUdeviceptr, unsigned char, size_t);
    CUdeviceptr held, taken = 0;
    char line[64];
    size_t more;
    driver_start();
    *(void **)&alloc = symbol("cuMemAlloc_v2");
    *(void **)&release = symbol("cuMemFree_v2");
    *(void **)&set_bytes = symbol("cuMemsetD8_v2");
    if (alloc(&held, mebibytes << 20))
        fail("no memory");
    puts("ready");
    fflush(stdout);
    while (fgets(line, sizeof(line), stdin)) {
        double started = clock_ms(CLOCK_MONOTONIC);
        CUresult result = CUDA_ERROR_INVALID_VALUE;
        if (sscanf(line, "take %zu", &more) == 1)
            result = alloc(&taken, more << 20);
        else if (strcmp(line, "touch\n") == 0)
            result = set_bytes(held, 1, 4096);
        else if (strcmp(line, "free\n") == 0)
            result = release(taken);
        if (result)
            fail("a call was refused");
        printf("%.4f\n", clock_ms(CLOCK_MONOTONIC) - started);
        fflush(stdout);
    }
    return 0;
}

/* --- who measures them --------------------------------------------------------------------------------------------------- */

struct worker {
    pid_t pid;
    FILE *to, *from;
};

struct figure {
    double runs[RUNS_MOST];
    unsigned count;
};

static void directory_empty(void)
{
    static const char *const files[] = {"default.ledger", "simulator-default.machine"};
    char path[PATH_MAX];
    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
        snprintf(path, sizeof(path), "%s/%s", directory, files[i]);
        unlink(path);
    }
}

static void directory_remove(void)
{
    directory_empty();
    rmdir(directory);
}

static _Noreturn void worker_become(const char *slot, const char *budget, const char *what, const char *number,
                                    int preloaded)
{
    char path[PATH_MAX + 32], simulate[96], program[PATH_MAX + 32];
    snprintf(simulate, sizeof(simulate), "lock=%dms,checkpoint=%dms,restore=%dms", LOCK_MS, CHECKPOINT_MS, RESTORE_MS);
    snprintf(path, sizeof(path), "%s/src/sim/.libs", build);
    setenv("LD_LIBRARY_PATH", path, 1);
    setenv("CUBUDGET_DIR", directory, 1);
    setenv("CUBUDGET_SIMULATE", simulate, 1);
    setenv("CUBUDGET_BUDGET", budget, 1);
    setenv("CUBUDGET_SLOT", slot, 1);
    snprintf(path, sizeof(path), "%s/.libs/libcubudget.so", build);
    if (preloaded)
        setenv("LD_PRELOAD", path, 1);
    snprintf(program, sizeof(program), "%s/bench/evict", build);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    execl(program, program, what, number, (char *)NULL);
    _exit(127);
}

static void worker_start(struct worker *worker, const char *slot, const char *budget, const char *what,
                         const char *number, int preloaded)
{
    int to[2], from[2];
    if (pipe2(to, O_CLOEXEC) || pipe2(from, O_CLOEXEC))
        fail("no pipe");
    fflush(NULL);
    worker->pid = fork();
    if (worker->pid < 0)
        fail("no process");
    if (worker->pid == 0) {
        dup2(to[0], STDIN_FILENO);
        dup2(from[1], STDOUT_FILENO);
        worker_become(slot, budget, what, number, preloaded);
    }
    close(to[0]);
    close(from[1]);
    worker->to = fdopen(to[1], "w");
    worker->from = fdopen(from[0], "r");
}

static double worker_hear(struct worker *worker)
{
    char line[64];
    double result = 0;
    if (!fgets(line, sizeof(line), worker->from))
        fail("a program that is measured has ended");
    if (strcmp(line, "ready\n") != 0 && sscanf(line, "%lf", &result) != 1)
        fail(line);
    return result;
}

static double worker_ask(struct worker *worker, const char *line)
{
    fprintf(worker->to, "%s\n", line);
    fflush(worker->to);
    return worker_hear(worker);
}

static void worker_end(struct worker *worker)
{
    int status = 0;
    fclose(worker->to);
    waitpid(worker->pid, &status, 0);
    fclose(worker->from);
    if (status != 0)
        fail("a program that is measured ended badly");
}

static int figures_compare(const void *a, const void *b)
{
    double first = *(const double *)a, second = *(const double *)b;
    return (first > second) - (first < second);
}

static double figure_median(struct figure *figure)
{
    qsort(figure->runs, figure->count, sizeof(figure->runs[0]), figures_compare);
    return figure->runs[figure->count / 2];
}

static void figure_show(const char *name, struct figure *figure, const char *unit, const char *target)
{
    double median = figure_median(figure);
    printf("%-58s %9.2f %s (%.2f to %.2f)  %s\n", name, median, unit, figure->runs[0], figure->runs[figure->count - 1],
           target);
    fflush(stdout);
}

/* A launch and a query, with eviction enabled and not needed, beside the same without the preload. */
static void launches_measure(void)
{
    struct figure figures[2] = {{.count = LAUNCH_RUNS}, {.count = LAUNCH_RUNS}};
    char rounds[32], line[64];
    snprintf(rounds, sizeof(rounds), "%d", LAUNCH_ROUNDS);
    for (unsigned run = 0; run < 2 * LAUNCH_RUNS; run++) {
        struct worker worker;
        directory_empty();
        worker_start(&worker, "launch", "8GiB", "launch", rounds, (int)(run % 2));
        figures[run % 2].runs[run / 2] = worker_hear(&worker);
        worker_end(&worker);
    }
    double speed = figure_median(&figures[0]) / figure_median(&figures[1]);
    snprintf(line, sizeof(line), "%.3f of bare speed; target 0.97: %s", speed, speed >= 0.97 ? "holds" : "MISSED");
    figure_show("a launch of a microsecond and a stream query, bare", &figures[0], "ns", "");
    figure_show("the same preloaded, eviction enabled and not needed", &figures[1], "ns", line);
}

/* The victim holds 1 GiB and is idle; the asker wants 1 GiB, and the budget has room for one of them. */
static void evictions_measure(void)
{
    struct worker victim, asker;
    struct figure asked = {.count = EVICT_RUNS}, returned = {.count = EVICT_RUNS};
    char line[96];
    directory_empty();
    worker_start(&victim, "victim", "2688MiB", "hold", "1024", 1); /* two contexts, 1 GiB and a half */
    worker_hear(&victim);
    worker_start(&asker, "asker", "2688MiB", "hold", "16", 1);
    worker_hear(&asker);
    for (unsigned run = 0; run < EVICT_RUNS; run++) {
        pause_ms(RESIDENCY_MS);
        asked.runs[run] = worker_ask(&asker, "take 1024") - LOCK_MS - CHECKPOINT_MS;
        worker_ask(&asker, "free");
        returned.runs[run] = worker_ask(&victim, "touch") - RESTORE_MS;
    }
    double own = figure_median(&asked);
    snprintf(line, sizeof(line), "target 5 ms: %s", own < 5 ? "holds" : "MISSED");
    figure_show("asking an idle 1 GiB victim out, less the transition", &asked, "ms", line);
    figure_show("its first call afterwards, less the transition", &returned, "ms", "");
    worker_end(&asker);
    worker_end(&victim);
}

/* The thread of a process that is its agent: the first of its name, which threads that the simulator starts on it inherit. */
static long agent_of(pid_t pid)
{
    char path[64], name[32];
    long agent = 0;
    snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
    DIR *tasks = opendir(path);
    if (!tasks)
        fail(path);
    for (struct dirent *entry; (entry = readdir(tasks)) != NULL;) {
        long thread = strtol(entry->d_name, NULL, 10);
        snprintf(path, sizeof(path), "/proc/%d/task/%ld/comm", (int)pid, thread);
        FILE *file = thread > 0 ? fopen(path, "re") : NULL;
        if (!file)
            continue;
        if (fgets(name, sizeof(name), file) && strcmp(name, "cubudget\n") == 0 && (agent == 0 || thread < agent))
            agent = thread;
        fclose(file);
    }
    closedir(tasks);
    return agent;
}

/* Processor time of a process's agent so far, in ms. */
static double agent_ms(pid_t pid)
{
    unsigned long long spent_ns = 0;
    char path[64];
    snprintf(path, sizeof(path), "/proc/%d/task/%ld/schedstat", (int)pid, agent_of(pid));
    FILE *file = fopen(path, "re");
    if (!file || fscanf(file, "%llu", &spent_ns) != 1)
        fail(path);
    fclose(file);
    return (double)spent_ns / 1e6;
}

static void idle_measure(void)
{
    struct worker workers[IDLE_PROCESSES];
    struct figure spent = {.count = 1};
    char slot[16], line[64];
    directory_empty();
    for (unsigned i = 0; i < IDLE_PROCESSES; i++) {
        snprintf(slot, sizeof(slot), "idle%u", i);
        worker_start(&workers[i], slot, "16GiB", "hold", "16", 1);
        worker_hear(&workers[i]);
    }
    pause_ms(SETTLE_MS);
    for (unsigned i = 0; i < IDLE_PROCESSES; i++)
        spent.runs[0] -= agent_ms(workers[i].pid);
    pause_ms(IDLE_MS);
    for (unsigned i = 0; i < IDLE_PROCESSES; i++)
        spent.runs[0] += agent_ms(workers[i].pid);
    snprintf(line, sizeof(line), "target 5 ms: %s", spent.runs[0] < 5 ? "holds" : "MISSED");
    figure_show("processor time of the agents of 13 idle processes in 5 s", &spent, "ms", line);
    for (unsigned i = 0; i < IDLE_PROCESSES; i++)
        worker_end(&workers[i]);
}

int main(int count, char **words)
{
    if (count == 3 && strcmp(words[1], "launch") == 0)
        return launch_main(strtoul(words[2], NULL, 10));
    if (count == 3 && strcmp(words[1], "hold") == 0)
        return hold_main(strtoul(words[2], NULL, 10));
    if (count != 2 || !realpath(words[1], build) || !mkdtemp(directory))
        fail("usage: evict BUILD_DIRECTORY");
    atexit(directory_remove);
    launches_measure();
    evictions_measure();
    idle_measure();
    return 0;
}
