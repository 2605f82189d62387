/*
 * A program that reaches the driver by one route only: usage route ROUTE FILE BYTES [LOOK].
 *
 * FILE is what it opens: the driver by some name, or for the route "plugin" the plugin. Every function of the driver comes by
 * that route and by no other, so that a route that is not caught leaves the ledger empty (tests/clients/routes).
 */
#include "route.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ASKED_VERSION = 12000 };

typedef CUresult proc_address_4(const char *, void **, int, uint64_t);
typedef CUresult proc_address_5(const char *, void **, int, uint64_t, CUdriverProcAddressQueryResult *);

/* How a function is found: its exported name, and the name that cuGetProcAddress knows. */
typedef void *find_function(const char *exported, const char *name);

static void *handle;
static proc_address_4 *ask_4;
static proc_address_5 *ask_5;
static uint64_t flags;

static void *find_by_handle(const char *exported, const char *name)
{
    (void)name;
    return dlsym(handle, exported);
}

static void *find_by_default(const char *exported, const char *name)
{
    (void)name;
    return dlsym(RTLD_DEFAULT, exported);
}

static void *find_by_next(const char *exported, const char *name)
{
    (void)name;
    return dlsym(RTLD_NEXT, exported);
}

static void *find_by_4(const char *exported, const char *name)
{
    void *found = NULL;
    (void)exported;
    return ask_4(name, &found, ASKED_VERSION, flags) == CUDA_SUCCESS ? found : NULL;
}

static void *find_by_5(const char *exported, const char *name)
{
    void *found = NULL;
    CUdriverProcAddressQueryResult status;
    (void)exported;
    return ask_5(name, &found, ASKED_VERSION, flags, &status) == CUDA_SUCCESS ? found : NULL;
}

/* The five-argument form as the four-argument or five-argument form itself hands it out. */
static void *find_by_asked(const char *exported, const char *name)
{
    if (!ask_5)
        *(void **)&ask_5 = find_by_4("", "cuGetProcAddress");
    return ask_5 ? find_by_5(exported, name) : NULL;
}

static const struct route {
    const char *name;
    int mode;
    find_function *find;
    uint64_t flags;
} routes[] = {
    {"handle", RTLD_NOW, find_by_handle, 0},
    {"lazy", RTLD_LAZY, find_by_handle, 0},
    {"deepbind", RTLD_NOW | RTLD_DEEPBIND, find_by_handle, 0},
    {"default", RTLD_NOW | RTLD_GLOBAL, find_by_default, 0},
    {"next", RTLD_NOW | RTLD_GLOBAL, find_by_next, 0},
    {"proc4", RTLD_NOW, find_by_4, CU_GET_PROC_ADDRESS_DEFAULT},
    {"proc4-ptds", RTLD_NOW, find_by_4, CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM},
    {"proc5", RTLD_NOW, find_by_5, CU_GET_PROC_ADDRESS_DEFAULT},
    {"proc5-legacy", RTLD_NOW, find_by_5, CU_GET_PROC_ADDRESS_LEGACY_STREAM},
    {"proc5-ptds", RTLD_NOW, find_by_5, CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM},
    {"asked", RTLD_NOW, find_by_asked, 0},
};

static void driver_find(find_function *find, struct route_driver *driver)
{
    *(void **)&driver->init = find("cuInit", "cuInit");
    *(void **)&driver->retain = find("cuDevicePrimaryCtxRetain", "cuDevicePrimaryCtxRetain");
    *(void **)&driver->set_current = find("cuCtxSetCurrent", "cuCtxSetCurrent");
    *(void **)&driver->get_info = find("cuMemGetInfo_v2", "cuMemGetInfo");
    *(void **)&driver->alloc = find("cuMemAlloc_v2", "cuMemAlloc");
    *(void **)&driver->release = find("cuMemFree_v2", "cuMemFree");
}

static int driver_is_whole(const struct route_driver *driver)
{
    return driver->init && driver->retain && driver->set_current && driver->get_info && driver->alloc &&
           driver->release;
}

static int plugin_open(const char *file, struct route_driver *driver)
{
    void (*plugin_driver)(struct route_driver *) = NULL;
    handle = dlopen(file, RTLD_NOW);
    if (handle)
        *(void **)&plugin_driver = dlsym(handle, "plugin_driver");
    if (!plugin_driver)
        return -1;
    plugin_driver(driver);
    return 0;
}

static int route_open(const char *name, const char *file, struct route_driver *driver)
{
    if (strcmp(name, "plugin") == 0)
        return plugin_open(file, driver);
    for (size_t i = 0; i < sizeof(routes) / sizeof(routes[0]); i++) {
        const struct route *route = &routes[i];
        if (strcmp(name, route->name) != 0)
            continue;
        handle = dlopen(file, route->mode);
        if (!handle)
            return -1;
        flags = route->flags;
        if (route->find == find_by_5)
            *(void **)&ask_5 = dlsym(handle, "cuGetProcAddress_v2");
        else
            *(void **)&ask_4 = dlsym(handle, "cuGetProcAddress");
        driver_find(route->find, driver);
        return 0;
    }
    fprintf(stderr, "route: '%s' is no route\n", name);
    exit(64);
}

int main(int count, char **words)
{
    struct route_driver driver = {0};
    if (count < 4) {
        fprintf(stderr, "usage: route ROUTE FILE BYTES [LOOK]\n");
        return 64;
    }
    if (route_open(words[1], words[2], &driver) != 0) {
        printf("%s\n", dlerror());
        return 1;
    }
    if (!driver_is_whole(&driver)) {
        printf("a function was not found\n");
        return 1;
    }
    return route_run(&driver, strtoull(words[3], NULL, 0), count > 4 ? words[4] : NULL);
}
