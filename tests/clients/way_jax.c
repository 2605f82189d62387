/*
 * JAX's way: each function by dlsym, memory by cuMemCreate, cuMemMap and cuMemSetAccess in pieces of 2 to 128 MiB, given back by
 * the address alone (cuMemRetainAllocationHandle, cuMemUnmap, and two releases). usage: way_jax
 */
#include "way.h"

#include <stdio.h>
#include <stdlib.h>

enum { PINNED = 1, ON_DEVICE = 1, READ_WRITE = 3, PIECES = 64 };

static struct {
    CUresult (*granularity)(size_t *, const CUmemAllocationProp *, int);
    CUresult (*create)(CUmemGenericAllocationHandle *, size_t, const CUmemAllocationProp *, unsigned long long);
    CUresult (*release)(CUmemGenericAllocationHandle);
    CUresult (*retain)(CUmemGenericAllocationHandle *, void *);
    CUresult (*reserve)(CUdeviceptr *, size_t, size_t, CUdeviceptr, unsigned long long);
    CUresult (*unreserve)(CUdeviceptr, size_t);
    CUresult (*map)(CUdeviceptr, size_t, size_t, CUmemGenericAllocationHandle, unsigned long long);
    CUresult (*unmap)(CUdeviceptr, size_t);
    CUresult (*set_access)(CUdeviceptr, size_t, const CUmemAccessDesc *, size_t);
} vmm;

static const CUmemAllocationProp prop = {.type = PINNED, .location = {.type = ON_DEVICE, .id = 0}};

static void functions_find(void)
{
    *(void **)&vmm.granularity = way_find("cuMemGetAllocationGranularity");
    *(void **)&vmm.create = way_find("cuMemCreate");
    *(void **)&vmm.release = way_find("cuMemRelease");
    *(void **)&vmm.retain = way_find("cuMemRetainAllocationHandle");
    *(void **)&vmm.reserve = way_find("cuMemAddressReserve");
    *(void **)&vmm.unreserve = way_find("cuMemAddressFree");
    *(void **)&vmm.map = way_find("cuMemMap");
    *(void **)&vmm.unmap = way_find("cuMemUnmap");
    *(void **)&vmm.set_access = way_find("cuMemSetAccess");
}

/* 0: the budget, or the card, has no room for it, and nothing was written. */
static CUdeviceptr piece_take(size_t bytes)
{
    static const CUmemGenericAllocationHandle untouched = 0x5eed;
    static const CUmemAccessDesc access = {.location = {.type = ON_DEVICE, .id = 0}, .flags = READ_WRITE};
    CUmemGenericAllocationHandle handle = untouched;
    CUdeviceptr pointer = 0;
    CUresult result = vmm.create(&handle, bytes, &prop, 0);
    if (result == CUDA_ERROR_OUT_OF_MEMORY && handle == untouched)
        return 0;
    way_expect(CUDA_SUCCESS, result, "cuMemCreate");
    way_must(vmm.reserve(&pointer, bytes, 0, 0, 0));
    way_must(vmm.map(pointer, bytes, 0, handle, 0));
    way_must(vmm.set_access(pointer, bytes, &access, 1));
    return pointer;
}

static void piece_give(CUdeviceptr pointer, size_t bytes)
{
    CUmemGenericAllocationHandle handle = 0;
    way_must(vmm.retain(&handle, (void *)(uintptr_t)pointer));
    way_must(vmm.unmap(pointer, bytes));
    way_must(vmm.release(handle)); /* what retaining added, and what creating was */
    way_must(vmm.release(handle));
    way_must(vmm.unreserve(pointer, bytes));
}

int main(void)
{
    CUdeviceptr pieces[PIECES] = {0};
    size_t granule = 0, taken = 0;
    way_start();
    functions_find();
    way_look("start");
    way_must(vmm.granularity(&granule, &prop, 0));
    printf("granularity %zu\n", granule);
    for (unsigned i = 0; i < 7; i++) { /* 2, 4, ... 128 MiB */
        pieces[i] = piece_take(granule << i);
        if (pieces[i] == 0)
            way_expect(CUDA_SUCCESS, CUDA_ERROR_OUT_OF_MEMORY, "a piece");
        way_use(pieces[i], granule << i, (unsigned char)(i + 1));
    }
    way_look("2 to 128 MiB held");
    for (unsigned i = 0; i < 7; i++)
        way_recall(pieces[i], granule << i, (unsigned char)(i + 1));
    piece_give(pieces[3], granule << 3);
    piece_give(pieces[6], granule << 6);
    way_look("16 and 128 MiB given back");
    for (taken = 7; taken < PIECES && (pieces[taken] = piece_take(128 * MIB)) != 0; taken++)
        way_use(pieces[taken], 128 * MIB, 99);
    printf("%zu pieces of 128 MiB, then %s\n", taken - 7, taken < PIECES ? "refused" : "enough");
    way_look("full");
    for (unsigned i = 0; i < taken; i++)
        if (i != 3 && i != 6)
            piece_give(pieces[i], i < 7 ? granule << i : 128 * MIB);
    way_look("all given back");
    return 0;
}
