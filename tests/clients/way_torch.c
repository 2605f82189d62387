/*
 * PyTorch's way: a cache of blocks of 2, 32 and 64 MiB from cuMemAlloc; what is freed stays in the cache. On out of memory it
 * asks again, gives its cache back and asks once more, and only then reports, with cuMemGetInfo. usage: way_torch
 */
#include "way.h"

#include <stdio.h>
#include <stdlib.h>

enum { BLOCKS = 512 };

static struct {
    CUresult (*alloc)(CUdeviceptr *, size_t);
    CUresult (*release)(CUdeviceptr);
} linear;

static struct block {
    CUdeviceptr pointer;
    size_t bytes;
    int cached;
} blocks[BLOCKS];
static unsigned count, refusals;

static void cache_empty(void)
{
    unsigned kept = 0;
    for (unsigned i = 0; i < count; i++)
        if (blocks[i].cached)
            way_must(linear.release(blocks[i].pointer));
        else
            blocks[kept++] = blocks[i];
    count = kept;
}

static CUresult block_ask(CUdeviceptr *pointer, size_t bytes)
{
    static const CUdeviceptr untouched = 0x5eed5eed;
    *pointer = untouched;
    CUresult result = linear.alloc(pointer, bytes);
    if (result == CUDA_SUCCESS)
        return result;
    way_expect(CUDA_ERROR_OUT_OF_MEMORY, result, "cuMemAlloc");
    if (*pointer != untouched)
        printf("the refused call wrote to its argument\n");
    refusals++;
    return result;
}

/* -1: there is no room even without the cache. */
static int block_take(size_t bytes, unsigned char byte)
{
    CUdeviceptr pointer;
    for (unsigned i = 0; i < count; i++)
        if (blocks[i].cached && blocks[i].bytes == bytes) {
            blocks[i].cached = 0;
            return 0;
        }
    if (block_ask(&pointer, bytes) != CUDA_SUCCESS && block_ask(&pointer, bytes) != CUDA_SUCCESS) {
        cache_empty();
        if (block_ask(&pointer, bytes) != CUDA_SUCCESS)
            return -1;
    }
    way_use(pointer, bytes, byte);
    blocks[count++] = (struct block){.pointer = pointer, .bytes = bytes};
    return 0;
}

static void block_give(size_t bytes)
{
    for (unsigned i = count; i-- > 0;)
        if (!blocks[i].cached && blocks[i].bytes == bytes) {
            blocks[i].cached = 1;
            return;
        }
}

int main(void)
{
    static const size_t sizes[] = {2 * MIB, 32 * MIB, 64 * MIB};
    size_t free_bytes = 0, total_bytes = 0;
    unsigned taken = 0;
    way_start();
    *(void **)&linear.alloc = way_find("cuMemAlloc_v2");
    *(void **)&linear.release = way_find("cuMemFree_v2");
    way_look("start");
    for (unsigned round = 0; round < 3; round++)
        for (unsigned i = 0; i < 3; i++)
            if (block_take(sizes[i], (unsigned char)(round + 1)) != 0)
                return 1;
    way_look("three of each held");
    block_give(64 * MIB);
    block_give(64 * MIB);
    way_look("two of 64 MiB in the cache");
    if (block_take(64 * MIB, 9) != 0)
        return 1;
    way_look("one of them taken again");
    while (taken < 400 && block_take(32 * MIB, 7) == 0)
        taken++;
    way_must(way.get_info(&free_bytes, &total_bytes));
    printf("%u more of 32 MiB, then %u refusals; free %llu of %llu MiB\n", taken, refusals,
           (unsigned long long)(free_bytes / MIB), (unsigned long long)(total_bytes / MIB));
    way_look("full");
    for (unsigned i = 0; i < count; i++)
        blocks[i].cached = 1;
    cache_empty();
    way_look("all given back");
    return 0;
}
