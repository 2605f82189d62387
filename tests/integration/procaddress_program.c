/*
 * The versions and flags of cuGetProcAddress, judged from inside a program (tests/integration/procaddress starts it preloaded):
 * what it hands out is of the interface that was asked for. Prints "N passed, N failed".
 */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cuda/cuda_abi.h"

typedef CUresult proc_address_4(const char *, void **, int, uint64_t);
typedef CUresult proc_address_5(const char *, void **, int, uint64_t, CUdriverProcAddressQueryResult *);

static unsigned passed, failed;
static void *driver;
static proc_address_4 *ask_4;
static proc_address_5 *ask_5;

static void check(int holds, const char *what)
{
    if (holds) {
        passed++;
        return;
    }
    failed++;
    printf("FAILED %s\n", what);
}

/* Whether an address lies in the object whose file name has that word in it. */
static int lies_in(void *address, const char *word)
{
    Dl_info info;
    return address && dladdr(address, &info) && info.dli_fname && strstr(info.dli_fname, word);
}

static void *asked(const char *name, int version, uint64_t flags)
{
    void *five = NULL, *four = NULL;
    CUdriverProcAddressQueryResult status = CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND;
    CUresult result = ask_5(name, &five, version, flags, &status);
    if (ask_4(name, &four, version, flags) != result || (result == CUDA_SUCCESS && four != five)) {
        printf("the two forms differ about %s, version %d\n", name, version);
        failed++;
    }
    return result == CUDA_SUCCESS && status == CU_GET_PROC_ADDRESS_SUCCESS ? five : NULL;
}

/* The names without a suffix were a 32-bit interface until 3.2: a 64-bit wrapper there would write past its argument. */
static void old_interface_is_never_mixed_with_the_new(void)
{
    static const char *const names[] = {"cuMemAlloc", "cuMemFree", "cuMemAllocPitch"};
    char what[128];
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        void *old = asked(names[i], 2000, 0), *new = asked(names[i], 3020, 0);
        snprintf(what, sizeof(what), "%s of 3.2 is intercepted", names[i]);
        check(lies_in(new, "libcubudget"), what);
        snprintf(what, sizeof(what), "%s of 2.0 is intercepted by itself", names[i]);
        check(lies_in(old, "libcubudget") && old != new, what);
        snprintf(what, sizeof(what), "%s of the newest version is that of 3.2", names[i]);
        check(asked(names[i], 13000, 0) == new, what);
        snprintf(what, sizeof(what), "dlsym's %s is that of 2.0", names[i]);
        check(dlsym(driver, names[i]) == old, what);
    }
}

static void old_queries_write_what_they_may(void)
{
    unsigned words[4] = {0, 0x5eed5eed, 0, 0x5eed5eed};
    CUresult (*get_info)(unsigned *, unsigned *) = NULL;
    CUresult (*total_memory)(unsigned *, CUdevice) = NULL;
    *(void **)&get_info = asked("cuMemGetInfo", 2000, 0);
    *(void **)&total_memory = asked("cuDeviceTotalMem", 2000, 0);
    check(lies_in(*(void **)&get_info, "libcubudget"), "cuMemGetInfo of 2.0 is intercepted");
    check(lies_in(*(void **)&total_memory, "libcubudget"), "cuDeviceTotalMem of 2.0 is intercepted");
    check(asked("cuMemGetInfo", 3020, 0) != *(void **)&get_info, "cuMemGetInfo of 3.2 is another");
    if (!get_info || !total_memory)
        return;
    check(get_info(&words[0], &words[2]) == CUDA_SUCCESS, "cuMemGetInfo of 2.0 answers");
    check(words[1] == 0x5eed5eed && words[3] == 0x5eed5eed, "cuMemGetInfo of 2.0 writes 32 bits");
    check(words[0] > 0 && words[0] <= words[2], "cuMemGetInfo of 2.0: free is within total");
    words[0] = 0;
    check(total_memory(&words[0], 0) == CUDA_SUCCESS && words[0] == words[2], "cuDeviceTotalMem of 2.0 agrees");
    check(words[1] == 0x5eed5eed, "cuDeviceTotalMem of 2.0 writes 32 bits");
}

static void every_version_and_flag_is_caught(void)
{
    static const struct {
        const char *name;
        int version;
    } cases[] = {
        {"cuInit", 2000},
        {"cuMemAllocManaged", 6000},
        {"cuMemGetInfo", 3020},
        {"cuDeviceTotalMem", 3020},
        {"cuMemFreeAsync", 11020},
        {"cuDevicePrimaryCtxRetain", 7000},
        {"cuDevicePrimaryCtxRelease", 7000},
        {"cuDevicePrimaryCtxRelease", 11000},
        {"cuDevicePrimaryCtxReset", 7000},
        {"cuDevicePrimaryCtxReset", 11000},
        {"cuCtxCreate", 2000},
        {"cuCtxCreate", 3020},
        {"cuCtxCreate", 11040},
        {"cuCtxCreate", 12050},
        {"cuCtxDestroy", 2000},
        {"cuCtxDestroy", 4000},
        {"cuCtxAttach", 2000},
        {"cuCtxDetach", 2000},
        {"cuGetProcAddress", 11030},
        {"cuGetProcAddress", 12000},
    };
    char what[128];
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        for (uint64_t flags = 0; flags <= 2; flags++) {
            snprintf(what, sizeof(what), "%s of %d with flags %d is intercepted", cases[i].name, cases[i].version,
                     (int)flags);
            check(lies_in(asked(cases[i].name, cases[i].version, flags), "libcubudget"), what);
        }
    }
    check(asked("cuGetProcAddress", 11030, 0) == *(void **)&ask_4, "cuGetProcAddress of 11.3 has four arguments");
    check(asked("cuGetProcAddress", 12000, 0) == *(void **)&ask_5, "cuGetProcAddress of 12.0 has five");
    check(asked("cuMemFreeAsync", 11020, CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM) !=
              asked("cuMemFreeAsync", 11020, CU_GET_PROC_ADDRESS_DEFAULT),
          "cuMemFreeAsync per thread is another");
    check(lies_in(asked("cuCtxGetCurrent", 4000, 0), "libcubudget"), "what is safe at any time passes the gate too");
    check(lies_in(asked("cuStreamQuery", 2000, 0), "libcubudget"), "and so does what only passes it");
    check(asked("cuCtxGetCurrent", 4000, 0) == dlsym(driver, "cuCtxGetCurrent") &&
              asked("cuStreamQuery", 2000, 0) == dlsym(driver, "cuStreamQuery"),
          "both are the same function by either route");
}

static void strange_questions_get_the_drivers_answers(void)
{
    void *found = &passed;
    CUdriverProcAddressQueryResult status = CU_GET_PROC_ADDRESS_SUCCESS;
    check(ask_5("cuMemAlloc", &found, 12000, 0, NULL) == CUDA_SUCCESS && lies_in(found, "libcubudget"),
          "no place for the status is no trouble");
    found = &passed;
    check(ask_5("cuNoSuchThing", &found, 12000, 0, &status) != CUDA_SUCCESS || found == NULL,
          "a name that is not the driver's is not found");
    check(status == CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND, "and the status says so");
    check(!asked("cuMemAllocManaged", 2000, 0), "a version before the function's first does not have it");
    ask_5("", &found, 12000, 0, &status);
    ask_5("cuMemAlloc", &found, 0, 0, &status);
    ask_4("", &found, 0, 0);
    check(1, "the empty name and version 0 end no program");
    check(ask_5(NULL, &found, 12000, 0, &status) != CUDA_SUCCESS, "no name is an error");
    check(ask_5("cuMemAlloc", NULL, 12000, 0, &status) != CUDA_SUCCESS, "no place for the answer is an error");
}

int main(void)
{
    CUresult (*init)(unsigned) = NULL;
    CUresult (*retain)(CUcontext *, CUdevice) = NULL;
    CUresult (*set_current)(CUcontext) = NULL;
    CUcontext context;
    setvbuf(stdout, NULL, _IOLBF, 0);
    driver = dlopen("libcuda.so.1", RTLD_NOW);
    if (!driver) {
        printf("%s\n", dlerror());
        return 1;
    }
    *(void **)&ask_4 = dlsym(driver, "cuGetProcAddress");
    *(void **)&ask_5 = dlsym(driver, "cuGetProcAddress_v2");
    *(void **)&init = dlsym(driver, "cuInit");
    *(void **)&retain = dlsym(driver, "cuDevicePrimaryCtxRetain");
    *(void **)&set_current = dlsym(driver, "cuCtxSetCurrent");
    if (!ask_4 || !ask_5 || init(0) || retain(&context, 0) || set_current(context)) {
        printf("the driver does not start\n");
        return 1;
    }
    old_interface_is_never_mixed_with_the_new();
    old_queries_write_what_they_may();
    every_version_and_flag_is_caught();
    strange_questions_get_the_drivers_answers();
    printf("%u passed, %u failed\n", passed, failed);
    return failed ? 1 : 0;
}
