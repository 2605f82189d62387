/*
 * How the preload behaves towards the program it is loaded into, judged from inside: dlsym and its kin, errno, signals, threads.
 * usage: manners OTHER_LIBRARY. tests/integration/manners starts it. Prints "N passed, N failed".
 */
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cuda/cuda_abi.h"
#include "cuda/nvml_abi.h"

static unsigned passed, failed;

static void check(int holds, const char *what)
{
    if (holds) {
        passed++;
        return;
    }
    failed++;
    printf("FAILED %s\n", what);
}

static void next_is_the_same_each_time(void)
{
    void *first = dlsym(RTLD_NEXT, "labs"), *second = dlsym(RTLD_NEXT, "labs");
    check(first && first == second, "RTLD_NEXT asked twice answers twice");
    check(dlsym(RTLD_NEXT, "main") == NULL, "RTLD_NEXT does not look in the caller's own object");
    check(dlsym(RTLD_DEFAULT, "dlsym") != NULL, "RTLD_DEFAULT finds dlsym");
    check(dlvsym(RTLD_DEFAULT, "strlen", "NO_SUCH_VERSION") == NULL && dlerror() != NULL, "dlvsym knows versions");
    long (*size)(long) = NULL;
    *(void **)&size = first;
    check(size && size(-5) == 5, "and what it finds works");
}

static void foreign_names_come_from_their_own_library(void *other)
{
    int (*create)(void **) = NULL;
    CUresult (*alloc)(CUdeviceptr *, size_t) = NULL;
    CUresult (*ask)(const char *, void **, int, uint64_t) = NULL;
    nvmlReturn_t (*tell)(nvmlDevice_t, nvmlMemory_t *) = NULL;
    nvmlMemory_t memory = {0};
    void *place = NULL;
    CUdeviceptr pointer = 0;
    *(void **)&create = dlsym(other, "cudnnCreate");
    *(void **)&alloc = dlsym(other, "cuMemAlloc_v2");
    *(void **)&ask = dlsym(other, "cuGetProcAddress");
    *(void **)&tell = dlsym(other, "nvmlDeviceGetMemoryInfo");
    check(create && create(&place) == 4242, "cudnnCreate comes from the library that has it");
    check(alloc && alloc(&pointer, 7) == 4243 && pointer == 7, "another library's cuMemAlloc_v2 is its own");
    check(ask && ask("cuInit", &place, 12000, 0) == 4244, "another library's cuGetProcAddress is its own");
    check(tell && tell(NULL, &memory) == 4245 && memory.total == 1,
          "another library's nvmlDeviceGetMemoryInfo is its own");
    check(dlsym(other, "cuInit") == NULL && dlerror() != NULL, "what it has not, it has not");
}

static void errors_are_told_once(void *driver)
{
    (void)dlerror();
    check(dlsym(driver, "cuInit") != NULL && dlerror() == NULL, "success leaves no message");
    check(dlsym(driver, "cuNoSuchThing") == NULL, "an unknown name of the driver is not found");
    const char *message = dlerror();
    check(message && strstr(message, "cuNoSuchThing"), "and the message names it");
    check(dlerror() == NULL, "the message is given once");
    check(dlsym(RTLD_DEFAULT, "cudaNoSuchThing") == NULL && dlerror() != NULL, "nor in the global scope");
    check(dlsym(RTLD_NEXT, "cudaNoSuchThing") == NULL && dlerror() != NULL, "nor in what is next");
    check(dlopen("libno-such-library.so", RTLD_NOW) == NULL, "a library that is not there is not opened");
    check(dlsym(driver, "cuInit") != NULL, "a lookup between");
    check(dlerror() == NULL, "a good lookup takes back the message of a bad open, as the C library's does");
}

static void *look_up(void *driver)
{
    for (int i = 0; i < 2000; i++)
        if (!dlsym(driver, "cuMemAlloc_v2") || dlsym(driver, "cuNoSuchThing") || !dlerror())
            return driver;
    return NULL;
}

static void threads_look_up_at_once(void *driver)
{
    pthread_t threads[4];
    void *trouble = NULL;
    for (int i = 0; i < 4; i++)
        if (pthread_create(&threads[i], NULL, look_up, driver) != 0)
            exit(1);
    for (int i = 0; i < 4; i++) {
        void *result = NULL;
        pthread_join(threads[i], &result);
        trouble = result ? result : trouble;
    }
    check(trouble == NULL, "four threads look up 2,000 times");
}

struct start {
    CUresult (*init)(unsigned);
    CUresult (*retain)(CUcontext *, CUdevice);
    CUresult (*set_current)(CUcontext);
    CUresult (*alloc)(CUdeviceptr *, size_t);
    CUresult (*release)(CUdeviceptr);
    CUresult (*get_info)(size_t *, size_t *);
};

/* A call that succeeds leaves errno alone; so does one that is refused. */
static void calls_keep_errno(void *driver)
{
    struct start call;
    CUcontext context;
    CUdeviceptr pointer = 0;
    size_t free_bytes, total_bytes;
    *(void **)&call.init = dlsym(driver, "cuInit");
    *(void **)&call.retain = dlsym(driver, "cuDevicePrimaryCtxRetain");
    *(void **)&call.set_current = dlsym(driver, "cuCtxSetCurrent");
    *(void **)&call.alloc = dlsym(driver, "cuMemAlloc_v2");
    *(void **)&call.release = dlsym(driver, "cuMemFree_v2");
    *(void **)&call.get_info = dlsym(driver, "cuMemGetInfo_v2");
    errno = EDOM;
    check(call.init(0) == CUDA_SUCCESS && errno == EDOM, "cuInit keeps errno");
    check(call.retain(&context, 0) == CUDA_SUCCESS && errno == EDOM, "cuDevicePrimaryCtxRetain keeps errno");
    check(call.set_current(context) == CUDA_SUCCESS, "the context is made current");
    errno = EDOM;
    check(call.alloc(&pointer, 1 << 20) == CUDA_SUCCESS && errno == EDOM, "cuMemAlloc keeps errno");
    check(call.get_info(&free_bytes, &total_bytes) == CUDA_SUCCESS && errno == EDOM, "cuMemGetInfo keeps errno");
    check(call.get_info(NULL, &total_bytes) == call.get_info(&free_bytes, NULL), "cuMemGetInfo survives NULL");
    errno = EDOM;
    check(call.release(pointer) == CUDA_SUCCESS && errno == EDOM, "cuMemFree keeps errno");
    pointer = 77;
    check(call.alloc(&pointer, (size_t)1 << 50) == CUDA_ERROR_OUT_OF_MEMORY && errno == EDOM, "a refusal keeps errno");
    check(pointer == 77, "a refusal leaves its argument");
    check(call.alloc(NULL, 4096) == CUDA_ERROR_INVALID_VALUE, "no place for the pointer is an invalid value");
    check(call.alloc(&pointer, 0) == CUDA_ERROR_INVALID_VALUE, "nothing at all is an invalid value");
    check(call.release(0) == CUDA_SUCCESS, "freeing nothing is fine");
    check(call.release(12345) != CUDA_SUCCESS, "a pointer nobody knows is the driver's to judge");
}

static void handler(int number)
{
    (void)number;
}

struct scene {
    sigset_t blocked;
    struct sigaction actions[32];
    mode_t mask;
};

static void scene_read(struct scene *scene)
{
    memset(scene, 0, sizeof(*scene));
    sigprocmask(SIG_SETMASK, NULL, &scene->blocked);
    for (int number = 1; number < 32; number++)
        sigaction(number, NULL, &scene->actions[number]);
    scene->mask = umask(0);
    umask(scene->mask);
}

static void scenes_compare(const struct scene *before, const struct scene *after)
{
    int blocked = 0, handlers = 0;
    for (int number = 1; number < 32; number++) {
        blocked += sigismember(&before->blocked, number) != sigismember(&after->blocked, number);
        handlers += before->actions[number].sa_handler != after->actions[number].sa_handler;
    }
    check(blocked == 0, "no signal is blocked or let through");
    check(handlers == 0, "no signal handler is changed");
    check(before->mask == after->mask, "the umask is unchanged");
}

int main(int count, char **words)
{
    struct scene before, after;
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (count < 2)
        return 64;
    signal(SIGUSR1, handler);
    umask(027);
    scene_read(&before);
    void *driver = dlopen("libcuda.so.1", RTLD_NOW), *other = dlopen(words[1], RTLD_NOW);
    if (!driver || !other) {
        printf("%s\n", dlerror());
        return 1;
    }
    next_is_the_same_each_time();
    foreign_names_come_from_their_own_library(other);
    errors_are_told_once(driver);
    threads_look_up_at_once(driver);
    calls_keep_errno(driver);
    scene_read(&after);
    scenes_compare(&before, &after);
    printf("%u passed, %u failed\n", passed, failed);
    return failed ? 1 : 0;
}
