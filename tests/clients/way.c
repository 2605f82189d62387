/* What the programs of the ways share; see way.h. */
#include "way.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

struct way_driver way;

static void *library;

void *way_find(const char *exported)
{
    void *found = dlsym(library, exported);
    if (!found) {
        printf("%s was not found\n", exported);
        exit(1);
    }
    return found;
}

void way_expect(CUresult wanted, CUresult result, const char *what)
{
    if (result == wanted)
        return;
    printf("%s: %d, not %d\n", what, result, wanted);
    exit(1);
}

void way_start(void)
{
    CUcontext context;
    library = dlopen("libcuda.so.1", RTLD_NOW);
    if (!library) {
        printf("%s\n", dlerror());
        exit(1);
    }
    *(void **)&way.init = way_find("cuInit");
    *(void **)&way.retain = way_find("cuDevicePrimaryCtxRetain");
    *(void **)&way.set_current = way_find("cuCtxSetCurrent");
    *(void **)&way.get_info = way_find("cuMemGetInfo_v2");
    *(void **)&way.set_bytes = way_find("cuMemsetD8_v2");
    *(void **)&way.copy_back = way_find("cuMemcpyDtoH_v2");
    way_must(way.init(0));
    way_must(way.retain(&context, 0));
    way_must(way.set_current(context));
}

void way_look(const char *step)
{
    const char *look = getenv("WAY_LOOK");
    printf("%s: ", step);
    fflush(stdout);
    unsetenv("LD_PRELOAD"); /* the looker is no part of what is looked at */
    if (!look || system(look) != 0)
        exit(1);
}

void way_recall(CUdeviceptr pointer, size_t bytes, unsigned char byte)
{
    unsigned char first = 0, last = 0;
    way_must(way.copy_back(&first, pointer, 1));
    way_must(way.copy_back(&last, pointer + bytes - 1, 1));
    if (first == byte && last == byte)
        return;
    printf("wrote %d, read %d and %d\n", byte, first, last);
    exit(1);
}

void way_use(CUdeviceptr pointer, size_t bytes, unsigned char byte)
{
    way_must(way.set_bytes(pointer, byte, bytes));
    way_recall(pointer, bytes, byte);
}
