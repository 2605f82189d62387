/* What every program of the routes does with the driver it found; see route.h. */
#include "route.h"

#include <stdio.h>
#include <stdlib.h>

static int failed(const char *where, CUresult result)
{
    printf("error %d at %s\n", result, where);
    return 0;
}

/* The looker is no part of what is looked at: it runs without the preload. */
static int look_run(const char *look)
{
    if (!look)
        return 0;
    fflush(stdout);
    unsetenv("LD_PRELOAD");
    return system(look);
}

int route_run(const struct route_driver *driver, size_t bytes, const char *look)
{
    static const CUdeviceptr untouched = 0x5eed5eed5eed;
    CUdeviceptr pointer = untouched;
    CUcontext context = NULL;
    size_t free_bytes = 0, total_bytes = 0;
    CUresult result = driver->init(0);
    if (result)
        return failed("init", result);
    if ((result = driver->retain(&context, 0)) || (result = driver->set_current(context)))
        return failed("context", result);
    if ((result = driver->alloc(&pointer, bytes))) {
        if (pointer != untouched)
            printf("the refused call wrote to its argument\n");
        return failed("alloc", result);
    }
    if ((result = driver->get_info(&free_bytes, &total_bytes)))
        return failed("info", result);
    printf("ok sees %zu MiB\n", total_bytes >> 20);
    if (look_run(look))
        return 1;
    if ((result = driver->release(pointer)))
        return failed("free", result);
    return look_run(look) ? 1 : 0;
}
