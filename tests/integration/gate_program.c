/*
 * Calls every function of the driver by every route while the gate is closed: each must wait there until it is opened, and then
 * reach the function of its name. Then what the driver has and nobody knows. Linked to every_driver.c, preloaded with the
 * tests' copy of the library by tests/integration/gate. Prints "N passed, N failed".
 */
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cuda/cuda_abi.h"
#include "cuda/nvml_abi.h"
#include "every_driver.h"

enum { QUIET_MS = 20000, KIND_PASSED = 0, KIND_THUNK = 1, KIND_UNKNOWN = 2 };

/* Enough zeroes for any of them: the functions behind look at nothing. */
typedef int any_call(uintptr_t, uintptr_t, uintptr_t, uintptr_t, uintptr_t, uintptr_t, uintptr_t, uintptr_t, uintptr_t,
                     uintptr_t, uintptr_t, uintptr_t);

#define WRAP(symbol, class, parameters) extern int symbol(void);
#define PASS(symbol, class, parameters) extern int symbol(void);
#define SAFE(symbol, class, parameters) extern int symbol(void);
#define BARE(symbol, class)             extern int symbol(void);
#define LEAVE(symbol, class)            extern int symbol(void);
#include "interpose/hooks.def"

static const struct symbol {
    const char *name;
    int (*linked)(void);
    int kind;
    int exported;
} symbols[] = {
#define WRAP(symbol, class, parameters) {#symbol, symbol, KIND_PASSED, 1},
#define PASS(symbol, class, parameters) {#symbol, symbol, KIND_PASSED, 1},
#define SAFE(symbol, class, parameters) {#symbol, symbol, KIND_THUNK, 1},
#define BARE(symbol, class)             {#symbol, symbol, KIND_UNKNOWN, 1},
#define LEAVE(symbol, class)            {#symbol, symbol, KIND_UNKNOWN, 0},
#include "interpose/hooks.def"
};
enum { SYMBOLS = sizeof(symbols) / sizeof(symbols[0]) };

static unsigned passed, failed;
static void *driver;
static CUresult (*ask)(const char *, void **, int, uint64_t, CUdriverProcAddressQueryResult *);
static const char *(*last)(void);
static int (*close_gate)(uint32_t);
static void (*open_gate)(void);
static unsigned (*arrivals)(void);
static const char *(*reason)(void);
static void (*deinitialize)(void);

static void check(int holds, const char *name, const char *what)
{
    if (holds) {
        passed++;
        return;
    }
    failed++;
    printf("FAILED %s: %s\n", name, what);
}

static void *asked(const char *name)
{
    void *found = NULL;
    return ask(name, &found, 13000, 0, NULL) == CUDA_SUCCESS ? found : NULL;
}

/* --- one call ------------------------------------------------------------------------------------------------------------------- */

struct call {
    void *function;
    int result;
    _Atomic(int) returned;
};

static void *call_run(void *argument)
{
    struct call *call = argument;
    any_call *function;
    memcpy(&function, &call->function, sizeof(function));
    call->result = function(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
    atomic_store(&call->returned, 1);
    return NULL;
}

/* Waits until the call has come to the gate, or has returned, which it must not. */
static int call_arrives(const struct call *call, unsigned before)
{
    while (arrivals() == before && !atomic_load(&call->returned))
        sched_yield();
    return !atomic_load(&call->returned);
}

static void call_check(const char *name, void *function, const char *by)
{
    char what[160];
    pthread_t thread;
    struct call call = {.function = function};
    int status = close_gate(QUIET_MS);
    unsigned before = arrivals();
    snprintf(what, sizeof(what), "found by %s: the gate was not quiet before (%d)", by, status);
    check(status == 0, name, what);
    if (status || pthread_create(&thread, NULL, call_run, &call))
        return;
    snprintf(what, sizeof(what), "found by %s: it does not wait at the closed gate", by);
    check(call_arrives(&call, before), name, what);
    open_gate();
    pthread_join(thread, NULL);
    snprintf(what, sizeof(what), "found by %s: called was %s, which says %d", by, last(), call.result);
    check(strcmp(last(), name) == 0 && call.result == CUDA_ERROR_INVALID_VALUE, name, what);
}

/* --- the table's -------------------------------------------------------------------------------------------------------------------- */

static void symbol_check(const struct symbol *symbol)
{
    void *by_handle = dlsym(driver, symbol->name), *by_default = dlsym(RTLD_DEFAULT, symbol->name), *linked;
    memcpy(&linked, &symbol->linked, sizeof(linked));
    check(by_handle != NULL && by_handle == asked(symbol->name), symbol->name, "it is another by dlsym than by asking");
    check(by_handle == dlsym(driver, symbol->name), symbol->name, "it is another the second time");
    call_check(symbol->name, by_handle, "handle");
    if (!symbol->exported || symbol->kind == KIND_UNKNOWN)
        return;
    check(by_handle == by_default, symbol->name, "it is another by RTLD_DEFAULT");
    call_check(symbol->name, linked, "linking");
}

/* In a process of its own: whoever calls one is not to be moved any more. */
static void in_child(const char *name, void (*run)(const char *))
{
    int status;
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        passed = failed = 0;
        alarm(60);
        run(name);
        fflush(stdout);
        _exit(failed ? 1 : 0);
    }
    waitpid(child, &status, 0);
    check(WIFEXITED(status) && WEXITSTATUS(status) == 0, name, "its process failed");
}

static void unknown_is_refused(const char *name)
{
    check(reason() != NULL && strstr(reason(), name) != NULL, name, "the process is not unevictable for it");
    check(close_gate(QUIET_MS) == -EPERM, name, "the gate can be closed after it");
}

static void unknown_check(const char *name)
{
    check(reason() == NULL, name, "the process is unevictable before");
    void *function = dlsym(driver, name);
    check(function && function == asked(name) && function == dlsym(driver, name), name, "it is not one function");
    check(reason() == NULL, name, "the process is unevictable for having looked");
    call_check(name, function, "handle");
    unknown_is_refused(name);
    struct call again = {.function = function};
    call_run(&again); /* it goes straight through */
    check(again.result == CUDA_ERROR_INVALID_VALUE, name, "it does not answer the second time");
}

static void unknown_linked_check(const char *name)
{
    for (unsigned i = 0; i < SYMBOLS; i++)
        if (strcmp(symbols[i].name, name) == 0) {
            void *linked;
            memcpy(&linked, &symbols[i].linked, sizeof(linked));
            call_check(name, linked, "linking");
        }
    unknown_is_refused(name);
}

/* --- more than there are thunks for ------------------------------------------------------------------------------------------------ */

static void *many_asked(unsigned number)
{
    char name[32];
    snprintf(name, sizeof(name), "cuMany%u", number);
    return asked(name);
}

static void many_check(const char *name)
{
    static void *handed[EVERY_MANY];
    unsigned same = 0, distinct = 1;
    for (unsigned i = 0; i < EVERY_THUNKS; i++)
        handed[i] = many_asked(i);
    for (unsigned i = 0; i < EVERY_THUNKS; i++) {
        same += handed[i] == many_asked(i);
        distinct += i > 0 && handed[i] != handed[i - 1];
    }
    check(same == EVERY_THUNKS && distinct == EVERY_THUNKS, name, "each is one, and none is another's");
    check(reason() == NULL && close_gate(QUIET_MS) == 0, name,
          "the last thunk is handed out, and the process stays evictable");
    open_gate();
    void *first = many_asked(EVERY_THUNKS), *second = many_asked(EVERY_THUNKS + 1);
    check((char *)second - (char *)first == 1, name, "beyond the thunks the function itself is handed out");
    check(reason() != NULL && close_gate(QUIET_MS) == -EPERM, name, "and the process stays on the card");
    check(many_asked(7) == handed[7], name, "what has a thunk keeps it");
}

static void variable_check(void)
{
    int *variable = dlsym(driver, "cuUnknownVariable");
    check(variable && *variable == EVERY_VALUE, "cuUnknownVariable", "a variable is what it is");
    check(dlsym(driver, "cuNotThere") == NULL && asked("cuNotThere") == NULL, "cuNotThere", "what is missing is found");
}

static void nvml_check(const char *name)
{
    void *nvml = dlopen("libnvidia-ml.so.1", RTLD_NOW);
    void *function = nvml ? dlsym(nvml, name) : NULL;
    struct call call = {.function = function};
    pthread_t thread;
    unsigned before = arrivals();
    check(function != NULL && close_gate(QUIET_MS) == 0, name, "it is not there");
    if (!function || pthread_create(&thread, NULL, call_run, &call))
        return;
    check(call_arrives(&call, before), name, "it does not wait at the closed gate");
    open_gate();
    pthread_join(thread, NULL);
}

/* --- after the end -------------------------------------------------------------------------------------------------------------- */

static void *nvml_found(const char *name)
{
    void *nvml = dlopen("libnvidia-ml.so.1", RTLD_NOW);
    return nvml ? dlsym(nvml, name) : NULL;
}

struct ended {
    struct call call;
    const char *name;
    pthread_t thread;
    int answer;
};

static void ended_start(struct ended *ended)
{
    unsigned before = arrivals();
    pthread_attr_t small;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 256 << 10);
    int status = pthread_create(&ended->thread, &small, call_run, &ended->call);
    pthread_attr_destroy(&small);
    if (status) {
        printf("no thread\n");
        exit(1);
    }
    check(call_arrives(&ended->call, before), ended->name, "it does not wait at the closed gate");
}

/* Calls each while the gate is closed, lets the driver be gone, and opens it; then each again. None may reach the driver. */
static void all_end(struct ended *all, unsigned count)
{
    const char *const before = last();
    check(close_gate(QUIET_MS) == 0, "the end", "the gate is not quiet");
    for (unsigned i = 0; i < count; i++)
        ended_start(&all[i]);
    deinitialize();
    open_gate();
    for (unsigned i = 0; i < count; i++) {
        pthread_join(all[i].thread, NULL);
        check(all[i].call.result == all[i].answer, all[i].name, "who waited for it hears that the driver is there");
        all[i].call.result = -1;
        call_run(&all[i].call);
        check(all[i].call.result == all[i].answer, all[i].name, "it answers after the end");
    }
    check(last() == before, last(), "it reached the driver");
}

/* The functions that answer, straight away for some, before there is an end. */
static void deinitialize_check(const char *name)
{
    static struct ended all[2 * SYMBOLS + 3];
    unsigned count = 0;
    for (unsigned i = 0; i < SYMBOLS; i++) {
        struct ended *by_handle = &all[count++];
        *by_handle = (struct ended){.name = symbols[i].name, .answer = CUDA_ERROR_DEINITIALIZED};
        by_handle->call.function = dlsym(driver, symbols[i].name);
        if (symbols[i].kind != KIND_UNKNOWN && i % 2 == 0)
            call_run(&by_handle->call);
        atomic_store(&by_handle->call.returned, 0);
        if (!symbols[i].exported)
            continue;
        all[count] = *by_handle;
        memcpy(&all[count++].call.function, &symbols[i].linked, sizeof(symbols[i].linked));
    }
    all[count++] = (struct ended){
        .name = name, .answer = CUDA_ERROR_DEINITIALIZED, .call.function = dlsym(driver, "cuUnknownFirst")};
    all[count++] = (struct ended){
        .name = "nvml", .answer = NVML_ERROR_UNINITIALIZED, .call.function = nvml_found("nvmlDeviceGetMemoryInfo")};
    all[count++] = (struct ended){.name = "nvml_v2",
                                  .answer = NVML_ERROR_UNINITIALIZED,
                                  .call.function = nvml_found("nvmlDeviceGetMemoryInfo_v2")};
    all_end(all, count);
    struct call late = {.function = dlsym(driver, "cuUnknownSecond")};
    call_run(&late);
    check(late.result == CUDA_ERROR_DEINITIALIZED, "cuUnknownSecond", "it answers after the end, looked up then");
}

static void controls_find(void)
{
    driver = dlopen("libcuda.so.1", RTLD_NOW);
    *(void **)&ask = driver ? dlsym(driver, "cuGetProcAddress_v2") : NULL;
    *(void **)&last = driver ? dlsym(driver, "every_last") : NULL;
    *(void **)&close_gate = dlsym(RTLD_DEFAULT, "cubudget_testpoint_gate_close");
    *(void **)&open_gate = dlsym(RTLD_DEFAULT, "cubudget_testpoint_gate_open");
    *(void **)&arrivals = dlsym(RTLD_DEFAULT, "cubudget_testpoint_gate_arrivals");
    *(void **)&reason = dlsym(RTLD_DEFAULT, "cubudget_testpoint_gate_reason");
    *(void **)&deinitialize = dlsym(RTLD_DEFAULT, "cubudget_testpoint_gate_deinitialize");
    if (ask && last && close_gate && open_gate && arrivals && reason && deinitialize)
        return;
    printf("the driver or the tests' copy of the library is not here\n");
    exit(1);
}

int main(void)
{
    controls_find();
    for (unsigned i = 0; i < SYMBOLS; i++)
        if (symbols[i].kind != KIND_UNKNOWN)
            symbol_check(&symbols[i]);
        else {
            in_child(symbols[i].name, unknown_check);
            if (symbols[i].exported)
                in_child(symbols[i].name, unknown_linked_check);
        }
    in_child("cuUnknownFirst", unknown_check);
    in_child("cuUnknownSecond", unknown_check);
    in_child("cuMany", many_check);
    in_child("the end", deinitialize_check);
    variable_check();
    nvml_check("nvmlDeviceGetMemoryInfo");
    nvml_check("nvmlDeviceGetMemoryInfo_v2");
    printf("%u passed, %u failed\n", passed, failed);
    return failed ? 1 : 0;
}
