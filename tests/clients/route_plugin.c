/* A plugin that is linked to libcuda.so.1 and opened at run time by a program that knows nothing of CUDA (route.c). */
#include "route.h"

__attribute__((visibility("default"))) void plugin_driver(struct route_driver *driver);

void plugin_driver(struct route_driver *driver)
{
    *driver = (struct route_driver){
        .init = cuInit,
        .retain = cuDevicePrimaryCtxRetain,
        .set_current = cuCtxSetCurrent,
        .get_info = cuMemGetInfo_v2,
        .alloc = cuMemAlloc_v2,
        .release = cuMemFree_v2,
    };
}
