/*
 * PyTorch's way with expandable segments: address space reserved once, more than the card has; pieces of 2 and 20 MiB mapped into
 * it one after another, unmapped from the middle when there is no room, and mapped there again. usage: way_segments
 */
#include "way.h"

#include <stdio.h>
#include <stdlib.h>

enum { PINNED = 1, ON_DEVICE = 1, READ_WRITE = 3, PLACES = 1024 };

static struct {
    CUresult (*create)(CUmemGenericAllocationHandle *, size_t, const CUmemAllocationProp *, unsigned long long);
    CUresult (*release)(CUmemGenericAllocationHandle);
    CUresult (*reserve)(CUdeviceptr *, size_t, size_t, CUdeviceptr, unsigned long long);
    CUresult (*unreserve)(CUdeviceptr, size_t);
    CUresult (*map)(CUdeviceptr, size_t, size_t, CUmemGenericAllocationHandle, unsigned long long);
    CUresult (*unmap)(CUdeviceptr, size_t);
    CUresult (*set_access)(CUdeviceptr, size_t, const CUmemAccessDesc *, size_t);
} vmm;

struct segment {
    CUdeviceptr base;
    size_t piece_bytes;
    CUmemGenericAllocationHandle handles[PLACES]; /* 0: not mapped */
};

static void functions_find(void)
{
    *(void **)&vmm.create = way_find("cuMemCreate");
    *(void **)&vmm.release = way_find("cuMemRelease");
    *(void **)&vmm.reserve = way_find("cuMemAddressReserve");
    *(void **)&vmm.unreserve = way_find("cuMemAddressFree");
    *(void **)&vmm.map = way_find("cuMemMap");
    *(void **)&vmm.unmap = way_find("cuMemUnmap");
    *(void **)&vmm.set_access = way_find("cuMemSetAccess");
}

/* Maps pieces [first, end) with access set at once, as the allocator does. Where there is no room it undoes what it began and
 * says how far it came. */
static unsigned segment_map(struct segment *segment, unsigned first, unsigned end)
{
    static const CUmemAllocationProp prop = {.type = PINNED, .location = {.type = ON_DEVICE, .id = 0}};
    static const CUmemAccessDesc access = {.location = {.type = ON_DEVICE, .id = 0}, .flags = READ_WRITE};
    unsigned made = first;
    for (; made < end; made++) {
        CUresult result = vmm.create(&segment->handles[made], segment->piece_bytes, &prop, 0);
        if (result == CUDA_ERROR_OUT_OF_MEMORY) {
            if (segment->handles[made] != 0)
                printf("the refused call wrote to its argument\n");
            break;
        }
        way_expect(CUDA_SUCCESS, result, "cuMemCreate");
    }
    for (unsigned i = first; i < made; i++)
        way_must(vmm.map(segment->base + i * segment->piece_bytes, segment->piece_bytes, 0, segment->handles[i], 0));
    if (made > first)
        way_must(vmm.set_access(segment->base + first * segment->piece_bytes, (made - first) * segment->piece_bytes,
                                &access, 1));
    return made;
}

static void segment_unmap(struct segment *segment, unsigned first, unsigned end)
{
    for (unsigned i = first; i < end; i++) {
        way_must(vmm.unmap(segment->base + i * segment->piece_bytes, segment->piece_bytes));
        way_must(vmm.release(segment->handles[i]));
        segment->handles[i] = 0;
    }
}

static void segment_open(struct segment *segment, size_t piece_bytes, size_t total_bytes)
{
    size_t bytes = total_bytes + total_bytes / 8;
    segment->piece_bytes = piece_bytes;
    way_must(vmm.reserve(&segment->base, (bytes + piece_bytes - 1) / piece_bytes * piece_bytes, 0, 0, 0));
}

int main(void)
{
    static struct segment small, large;
    size_t free_bytes = 0, total_bytes = 0;
    way_start();
    functions_find();
    way_must(way.get_info(&free_bytes, &total_bytes));
    segment_open(&small, 2 * MIB, total_bytes);
    segment_open(&large, 20 * MIB, total_bytes);
    way_look("start, both reserved");
    (void)segment_map(&small, 0, 10);
    (void)segment_map(&large, 0, 8);
    way_use(small.base, 10 * 2 * MIB, 3);
    way_use(large.base, 8 * 20 * MIB, 4);
    way_look("20 and 160 MiB mapped");
    segment_unmap(&large, 2, 5);
    way_look("60 unmapped from the middle");
    way_recall(large.base, 2 * 20 * MIB, 4);
    way_recall(large.base + 5 * 20 * MIB, 3 * 20 * MIB, 4);
    way_expect(1, segment_map(&large, 2, 5) == 5, "mapped again");
    way_use(large.base + 2 * 20 * MIB, 3 * 20 * MIB, 5);
    way_use(large.base, 8 * 20 * MIB, 6); /* across all pieces */
    way_look("mapped there again");
    unsigned end = segment_map(&large, 8, 60);
    printf("grown to %u of 60 pieces of 20 MiB\n", end);
    way_look("full");
    segment_unmap(&small, 0, 10); /* a cache that gives way */
    unsigned further = segment_map(&large, end, 60);
    printf("the small one's 20 MiB given up: %u more\n", further - end);
    segment_unmap(&large, 0, further);
    way_look("all unmapped");
    way_must(vmm.unreserve(small.base, (total_bytes + total_bytes / 8 + 2 * MIB - 1) / (2 * MIB) * (2 * MIB)));
    way_must(vmm.unreserve(large.base, (total_bytes + total_bytes / 8 + 20 * MIB - 1) / (20 * MIB) * (20 * MIB)));
    return 0;
}
