/*
 * A CUDA driver API program that may find its process off the card at any moment: does what its standard input says, one command a line, and
 * answers each with one line, "ok ..." or "error N". It knows nothing of cubudget: test_agent*.c start it preloaded.
 *
 *   init BYTES        cuInit, the primary context, BYTES of memory full of 77, and "ok"
 *   read              copies all of it back and compares: "ok" or "differs"
 *   hammer THREADS    threads that query and synchronise a stream, an event and the context, ask for free memory and set bytes, all the time
 *   calm              they end: "ok ROUNDS", or the first error of any
 *   children          from now on counts SIGCHLD and takes in every child that it has
 *   taken             "ok SIGNALS CHILDREN"
 *   adopt             becomes the parent of orphans among its descendants
 *   thread            another thread reads the memory: "ok" at once; `joined` tells its result
 *   joined
 *   late              cuCtxSynchronize and cuMemFree when the process ends, their results in the file named by $LATE_FILE
 *   fork              a child synchronises, and says how that went
 *   hold              a child that sleeps until its standard input ends
 *   exec              becomes a shell that says "here" and then `cat`
 *   wedge SECONDS     a thread stays inside the driver so long: a host function on a stream
 *   quit              exit(0)
 */
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "cuda/cuda_abi.h"

static struct {
    CUresult (*init)(unsigned);
    CUresult (*primary_retain)(CUcontext *, CUdevice);
    CUresult (*set_current)(CUcontext);
    CUresult (*alloc)(CUdeviceptr *, size_t);
    CUresult (*release)(CUdeviceptr);
    CUresult (*get_info)(size_t *, size_t *);
    CUresult (*set_bytes)(CUdeviceptr, unsigned char, size_t);
    CUresult (*copy_back)(void *, CUdeviceptr, size_t);
    CUresult (*stream_create)(CUstream *, unsigned);
    CUresult (*stream_query)(CUstream);
    CUresult (*stream_wait)(CUstream);
    CUresult (*event_create)(CUevent *, unsigned);
    CUresult (*event_query)(CUevent);
    CUresult (*event_record)(CUevent, CUstream);
    CUresult (*context_wait)(void);
    CUresult (*launch_host)(CUstream, void (*)(void *), void *);
} driver;

static CUcontext context;
static CUdeviceptr memory;
static size_t memory_bytes;

static const struct {
    const char *name;
    void *function;
} symbols[] = {
    {"cuInit", &driver.init},
    {"cuDevicePrimaryCtxRetain", &driver.primary_retain},
    {"cuCtxSetCurrent", &driver.set_current},
    {"cuMemAlloc_v2", &driver.alloc},
    {"cuMemFree_v2", &driver.release},
    {"cuMemGetInfo_v2", &driver.get_info},
    {"cuMemsetD8_v2", &driver.set_bytes},
    {"cuMemcpyDtoH_v2", &driver.copy_back},
    {"cuStreamCreate", &driver.stream_create},
    {"cuStreamQuery", &driver.stream_query},
    {"cuStreamSynchronize", &driver.stream_wait},
    {"cuEventCreate", &driver.event_create},
    {"cuEventQuery", &driver.event_query},
    {"cuEventRecord", &driver.event_record},
    {"cuCtxSynchronize", &driver.context_wait},
    {"cuLaunchHostFunc", &driver.launch_host},
};

static void driver_load(void)
{
    void *handle = dlopen("libcuda.so.1", RTLD_NOW);
    for (size_t i = 0; i < sizeof(symbols) / sizeof(*symbols); i++) {
        void *found = handle ? dlsym(handle, symbols[i].name) : NULL;
        if (!found) {
            printf("error no %s\n", symbols[i].name);
            exit(2);
        }
        memcpy(symbols[i].function, &found, sizeof(found));
    }
}

static void answer(CUresult result)
{
    if (result)
        printf("error %d\n", result);
    else
        printf("ok\n");
}

static CUresult begin(size_t bytes)
{
    CUresult result = driver.init(0);
    if (!result)
        result = driver.primary_retain(&context, 0);
    if (!result)
        result = driver.set_current(context);
    if (!result)
        result = driver.alloc(&memory, bytes);
    if (!result)
        result = driver.set_bytes(memory, 77, bytes);
    memory_bytes = bytes;
    return result;
}

static void read_answer(void)
{
    unsigned char *copy = malloc(memory_bytes);
    CUresult result = driver.copy_back(copy, memory, memory_bytes);
    /* The first is right, and each is like the next: a sanitizer looks at two ranges, not at each byte. */
    bool same = !result && copy[0] == 77 && memcmp(copy, copy + 1, memory_bytes - 1) == 0;
    free(copy);
    if (result)
        answer(result);
    else
        printf(same ? "ok\n" : "differs\n");
}

/* --- threads that use the driver all the time -------------------------------------------------------------------------------- */

enum { HAMMERS_MOST = 16 };
static pthread_t hammers[HAMMERS_MOST];
static unsigned hammer_count;
static atomic_bool calm;
static atomic_ulong rounds;
static _Atomic(CUresult) trouble;

static void note(CUresult result)
{
    CUresult none = CUDA_SUCCESS;
    if (result && result != CUDA_ERROR_NOT_READY)
        atomic_compare_exchange_strong(&trouble, &none, result);
}

static void *hammer_run(void *unused)
{
    CUstream stream = NULL;
    CUevent event = NULL;
    CUdeviceptr own = 0;
    size_t free_bytes, total_bytes;
    (void)unused;
    note(driver.set_current(context));
    note(driver.stream_create(&stream, 1));
    note(driver.event_create(&event, 0));
    note(driver.alloc(&own, 4096));
    while (!calm && !trouble) {
        note(driver.stream_query(stream));
        note(driver.event_record(event, stream));
        note(driver.event_query(event));
        note(driver.stream_wait(stream));
        note(driver.context_wait());
        note(driver.get_info(&free_bytes, &total_bytes));
        note(driver.set_bytes(own, 1, 4096));
        rounds++;
    }
    note(driver.release(own));
    return NULL;
}

static void hammer(unsigned threads)
{
    calm = false;
    for (hammer_count = 0; hammer_count < threads && hammer_count < HAMMERS_MOST; hammer_count++)
        if (pthread_create(&hammers[hammer_count], NULL, hammer_run, NULL) != 0)
            abort();
    printf("ok\n");
}

static void hammer_end(void)
{
    calm = true;
    while (hammer_count > 0)
        pthread_join(hammers[--hammer_count], NULL);
    if (trouble)
        answer(trouble);
    else
        printf("ok %lu\n", (unsigned long)rounds);
}

/* --- a program that minds its children --------------------------------------------------------------------------------------- */

static atomic_uint signals_seen, children_taken;

static void on_child(int number)
{
    (void)number;
    signals_seen++;
}

static void *children_take(void *unused)
{
    (void)unused;
    for (;;) {
        if (waitpid(-1, NULL, 0) > 0)
            children_taken++;
        else
            nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
    }
    return NULL;
}

static void children_mind(void)
{
    pthread_t thread;
    struct sigaction action = {.sa_handler = on_child};
    sigaction(SIGCHLD, &action, NULL);
    if (pthread_create(&thread, NULL, children_take, NULL) != 0)
        abort();
    pthread_detach(thread);
    printf("ok\n");
}

/* --- ends ---------------------------------------------------------------------------------------------------------------------- */

static void on_exit_late(void)
{
    FILE *file = fopen(getenv("LATE_FILE"), "w");
    CUresult waited = driver.context_wait();
    fprintf(file, "%d %d\n", waited, driver.release(memory));
    fclose(file);
}

static CUresult reader_result;
static _Atomic(bool) reader_is_done;

static void *reader_run(void *unused)
{
    unsigned char first = 0;
    (void)unused;
    driver.set_current(context);
    reader_result = driver.copy_back(&first, memory, 1);
    atomic_store(&reader_is_done, true);
    return NULL;
}

static void thread_begin(void)
{
    pthread_t reader;
    bool started = pthread_create(&reader, NULL, reader_run, NULL) == 0;
    if (started)
        pthread_detach(reader); /* the process may end before it */
    printf(started ? "ok\n" : "error\n");
}

static void thread_join(void)
{
    while (!atomic_load(&reader_is_done))
        nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
    answer(reader_result);
}

static void child_run(bool holds)
{
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        while (holds)
            pause();
        driver.stream_query(NULL);
        printf("child error %d\n", driver.context_wait());
        fflush(stdout);
        _exit(0);
    }
    if (holds)
        printf("ok %d\n", (int)child);
    else
        waitpid(child, NULL, 0);
}

static _Atomic(bool) wedge_holds;

static void host_function(void *seconds)
{
    atomic_store(&wedge_holds, true);
    nanosleep(&(struct timespec){.tv_sec = *(unsigned *)seconds}, NULL);
}

static void *wedge_run(void *seconds)
{
    CUstream stream = NULL;
    note(driver.set_current(context));
    note(driver.stream_create(&stream, 1));
    note(driver.launch_host(stream, host_function, seconds));
    note(driver.stream_wait(stream));
    return NULL;
}

static void wedge(unsigned long wanted)
{
    static unsigned seconds;
    pthread_t thread;
    seconds = (unsigned)wanted;
    atomic_store(&wedge_holds, false);
    bool started = pthread_create(&thread, NULL, wedge_run, &seconds) == 0;
    if (started)
        pthread_detach(thread);
    while (started && !atomic_load(&wedge_holds)) /* the thread goes in right after its launch */
        nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
    printf(started ? "ok\n" : "error\n");
}

static void command_run(const char *verb, const char *argument)
{
    unsigned long number = strtoul(argument, NULL, 10);
    if (strcmp(verb, "init") == 0)
        answer(begin(number));
    else if (strcmp(verb, "read") == 0)
        read_answer();
    else if (strcmp(verb, "hammer") == 0)
        hammer((unsigned)number);
    else if (strcmp(verb, "calm") == 0)
        hammer_end();
    else if (strcmp(verb, "children") == 0)
        children_mind();
    else if (strcmp(verb, "taken") == 0)
        printf("ok %u %u\n", signals_seen, children_taken);
    else if (strcmp(verb, "adopt") == 0)
        printf(prctl(PR_SET_CHILD_SUBREAPER, 1) == 0 ? "ok\n" : "error\n");
    else if (strcmp(verb, "thread") == 0)
        thread_begin();
    else if (strcmp(verb, "joined") == 0)
        thread_join();
    else if (strcmp(verb, "late") == 0)
        printf(atexit(on_exit_late) == 0 ? "ok\n" : "error\n");
    else if (strcmp(verb, "fork") == 0 || strcmp(verb, "hold") == 0)
        child_run(*verb == 'h');
    else if (strcmp(verb, "wedge") == 0)
        wedge(number);
    else if (strcmp(verb, "exec") == 0) {
        execlp("sh", "sh", "-c", "echo here; exec cat", (char *)NULL);
        answer(-errno);
    } else if (strcmp(verb, "quit") == 0)
        exit(0);
    else
        printf("error what is '%s'?\n", verb);
}

int main(void)
{
    char line[256];
    driver_load();
    while (fgets(line, sizeof(line), stdin)) {
        line[strcspn(line, "\n")] = '\0';
        char *argument = line + strcspn(line, " ");
        if (*argument)
            *argument++ = '\0';
        command_run(line, argument);
        fflush(stdout);
    }
    return 0;
}
