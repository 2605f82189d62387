/* A program linked to libcuda.so.1: usage route_linked BYTES [LOOK]. */
#include "route.h"

#include <stdlib.h>

int main(int count, char **words)
{
    if (count < 2)
        return 64;
    const struct route_driver driver = {
        .init = cuInit,
        .retain = cuDevicePrimaryCtxRetain,
        .set_current = cuCtxSetCurrent,
        .get_info = cuMemGetInfo_v2,
        .alloc = cuMemAlloc_v2,
        .release = cuMemFree_v2,
    };
    return route_run(&driver, strtoull(words[1], NULL, 0), count > 2 ? words[2] : NULL);
}
