/* What the programs of the routes share: the driver's functions as a route found them, and what is done with them. */
#ifndef TESTS_CLIENTS_ROUTE_H
#define TESTS_CLIENTS_ROUTE_H

#include "cuda/cuda_abi.h"

struct route_driver {
    CUresult (*init)(unsigned);
    CUresult (*retain)(CUcontext *, CUdevice);
    CUresult (*set_current)(CUcontext);
    CUresult (*get_info)(size_t *, size_t *);
    CUresult (*alloc)(CUdeviceptr *, size_t);
    CUresult (*release)(CUdeviceptr);
};

/* The driver's exports as a linked program declares them; the programs of the routes that link say so themselves. */
CUresult cuInit(unsigned flags);
CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device);
CUresult cuCtxSetCurrent(CUcontext context);
CUresult cuMemGetInfo_v2(size_t *free_bytes, size_t *total_bytes);
CUresult cuMemAlloc_v2(CUdeviceptr *pointer, size_t bytes);
CUresult cuMemFree_v2(CUdeviceptr pointer);

/* Takes `bytes`, prints "ok" (or "error N" and where), runs `look` as a shell command while it holds them and once more
 * after it gave them back. Returns the program's exit status. */
int route_run(const struct route_driver *driver, size_t bytes, const char *look);

#endif
