/*
 * cudaMallocAsync's way: the default pool of the device, which grows in steps of 32 MiB and keeps what is freed up to its
 * release threshold; synchronised and trimmed. Functions by cuGetProcAddress, as the CUDA runtime finds them. usage: way_pool
 */
#include "way.h"

#include <stdio.h>
#include <stdlib.h>

enum { VERSION = 12000, BLOCKS = 512 };

static struct {
    CUresult (*ask)(const char *, void **, int, uint64_t, CUdriverProcAddressQueryResult *);
    CUresult (*default_pool)(CUmemoryPool *, CUdevice);
    CUresult (*get)(CUmemoryPool, int, void *);
    CUresult (*set)(CUmemoryPool, int, void *);
    CUresult (*trim)(CUmemoryPool, size_t);
    CUresult (*alloc)(CUdeviceptr *, size_t, CUstream);
    CUresult (*release)(CUdeviceptr, CUstream);
    CUresult (*stream_create)(CUstream *, unsigned);
    CUresult (*synchronize)(CUstream);
} pool;

static void *runtime_find(const char *name)
{
    void *found = NULL;
    CUdriverProcAddressQueryResult status;
    if (pool.ask(name, &found, VERSION, 0, &status) != CUDA_SUCCESS || !found) {
        printf("%s was not found\n", name);
        exit(1);
    }
    return found;
}

static void functions_find(void)
{
    *(void **)&pool.ask = way_find("cuGetProcAddress_v2");
    *(void **)&pool.default_pool = runtime_find("cuDeviceGetDefaultMemPool");
    *(void **)&pool.get = runtime_find("cuMemPoolGetAttribute");
    *(void **)&pool.set = runtime_find("cuMemPoolSetAttribute");
    *(void **)&pool.trim = runtime_find("cuMemPoolTrimTo");
    *(void **)&pool.alloc = runtime_find("cuMemAllocAsync");
    *(void **)&pool.release = runtime_find("cuMemFreeAsync");
    *(void **)&pool.stream_create = runtime_find("cuStreamCreate");
    *(void **)&pool.synchronize = runtime_find("cuStreamSynchronize");
}

/* What the pool says of itself, which nobody changes on the way. */
static void reserved_tell(CUmemoryPool handle)
{
    uint64_t reserved = 0;
    way_must(pool.get(handle, CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT, &reserved));
    printf("reserved %llu MiB\n", (unsigned long long)(reserved / MIB));
}

int main(void)
{
    static const CUdeviceptr untouched = 0x5eed5eed;
    CUdeviceptr blocks[BLOCKS], small = 0, large = 0;
    CUmemoryPool handle;
    CUstream stream;
    uint64_t threshold = UINT64_MAX;
    unsigned taken = 0;
    way_start();
    functions_find();
    way_must(pool.stream_create(&stream, CU_STREAM_NON_BLOCKING));
    way_must(pool.default_pool(&handle, 0));
    way_look("start");
    way_must(pool.alloc(&small, 1000, stream));
    way_look("1000 bytes");
    way_must(pool.alloc(&large, 100 * MIB, stream));
    way_must(pool.synchronize(stream));
    way_use(large, 100 * MIB, 5);
    reserved_tell(handle);
    way_look("100 MiB more");
    way_must(pool.release(large, stream));
    way_look("freed");
    way_must(pool.synchronize(stream));
    way_look("synchronised, threshold 0");
    way_must(pool.set(handle, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, &threshold));
    way_must(pool.alloc(&large, 100 * MIB, stream));
    way_must(pool.release(large, stream));
    way_must(pool.synchronize(stream));
    reserved_tell(handle);
    way_look("freed and synchronised, kept by the threshold");
    way_must(pool.trim(handle, 0));
    way_look("trimmed");
    while (taken < BLOCKS) {
        blocks[taken] = untouched;
        CUresult result = pool.alloc(&blocks[taken], 32 * MIB, stream);
        if (result == CUDA_ERROR_OUT_OF_MEMORY && blocks[taken] == untouched)
            break;
        way_expect(CUDA_SUCCESS, result, "cuMemAllocAsync");
        taken++;
    }
    printf("%u of 32 MiB, then %s\n", taken, taken < BLOCKS ? "refused" : "enough");
    way_look("full");
    for (unsigned i = 0; i < taken; i++)
        way_must(pool.release(blocks[i], stream));
    way_must(pool.release(small, stream));
    way_must(pool.synchronize(stream));
    way_must(pool.trim(handle, 0));
    way_look("all given back");
    return 0;
}
