/* The simulated driver's memory pools: what they cost, when it goes back, and whose they are. Figures are those of a card. */
#include "unit/sim_context.h"

static CUstream one, other;
static CUmemoryPool standard; /* the default pool of device 0 */

static int group_setup(void **state)
{
    (void)state;
    if (context_open("devices=2") != 0 || cuStreamCreate(&one, 1) != CUDA_SUCCESS)
        return -1;
    return cuStreamCreate(&other, 1) != CUDA_SUCCESS || cuDeviceGetDefaultMemPool(&standard, 0) != CUDA_SUCCESS ? -1
                                                                                                                : 0;
}

/* Each test leaves the card as it was. */
static int nothing_is_left(void **state)
{
    (void)state;
    if (cuCtxSynchronize() != CUDA_SUCCESS)
        return -1;
    return used() == 0 && stage_figures().device[1].used_bytes == 0 ? 0 : -1;
}

static uint64_t attribute(CUmemoryPool pool, int which)
{
    uint64_t value = 0;
    assert_int_equal(cuMemPoolGetAttribute(pool, which, &value), CUDA_SUCCESS);
    return value;
}

static uint64_t reserved(CUmemoryPool pool)
{
    return attribute(pool, CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT);
}

static uint64_t taken(CUmemoryPool pool)
{
    return attribute(pool, CU_MEMPOOL_ATTR_USED_MEM_CURRENT);
}

static void threshold_set(CUmemoryPool pool, uint64_t bytes)
{
    assert_int_equal(cuMemPoolSetAttribute(pool, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, &bytes), CUDA_SUCCESS);
}

static CUmemoryPool pool_make(int type, int location, int id, size_t most_bytes)
{
    CUmemoryPool pool = NULL;
    CUmemPoolProps properties = {.allocType = type, .location = {location, id}, .maxSize = most_bytes};
    assert_int_equal(cuMemPoolCreate(&pool, &properties), CUDA_SUCCESS);
    assert_non_null(pool);
    return pool;
}

static CUdeviceptr take(CUmemoryPool pool, size_t bytes, CUstream stream)
{
    CUdeviceptr address = 0;
    CUresult result =
        pool ? cuMemAllocFromPoolAsync(&address, bytes, pool, stream) : cuMemAllocAsync(&address, bytes, stream);
    assert_int_equal(result, CUDA_SUCCESS);
    assert_true(address != 0);
    return address;
}

static void give(CUdeviceptr address, CUstream stream)
{
    assert_int_equal(cuMemFreeAsync(address, stream), CUDA_SUCCESS);
}

static void wait_for(CUstream stream)
{
    assert_int_equal(cuStreamSynchronize(stream), CUDA_SUCCESS);
}

static void pools_grow_in_steps_of_32_mib(void **state)
{
    (void)state;
    static const struct {
        size_t bytes, cost;
    } cases[] = {
        {1, 32 * MIB},        {2 * MIB, 32 * MIB},  {32 * MIB, 32 * MIB},     {32 * MIB + 1, 64 * MIB},
        {40 * MIB, 64 * MIB}, {65 * MIB, 96 * MIB}, {1000 * MIB, 1024 * MIB},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        CUdeviceptr address = take(NULL, cases[i].bytes, one);
        assert_int_equal(reserved(standard), cases[i].cost);
        assert_int_equal(taken(standard), cases[i].bytes);
        assert_int_equal(used(), cases[i].cost);
        give(address, one);
        assert_int_equal(taken(standard), 0);
        assert_int_equal(used(), cases[i].cost);
        wait_for(one);
        assert_int_equal(used(), 0);
    }
}

static void requests_grow_the_tail_by_what_it_lacks(void **state)
{
    (void)state;
    CUdeviceptr small = take(NULL, 1000, one), large = take(NULL, 100 * MIB, one);
    assert_int_equal(used(), 128 * MIB);
    assert_int_equal(taken(standard), 1000 + 100 * MIB);
    give(large, one);
    wait_for(one);
    assert_int_equal(used(), 32 * MIB);
    give(small, one);
    wait_for(one);
    assert_int_equal(used(), 0);
}

static void small_requests_share_a_step(void **state)
{
    (void)state;
    enum { MANY = 3000 };
    static CUdeviceptr address[MANY];
    for (int i = 0; i < MANY; i++)
        address[i] = take(NULL, 1000, one);
    assert_int_equal(used(), 32 * MIB);
    assert_int_equal(taken(standard), MANY * 1000);
    for (int i = 0; i < MANY; i++)
        give(address[i], one);
}

static void holes_are_used_whole_and_never_joined(void **state)
{
    (void)state;
    CUdeviceptr address[16];
    for (int i = 0; i < 16; i++)
        address[i] = take(NULL, 8 * MIB, one);
    for (int i = 1; i < 16; i += 2)
        give(address[i], one);
    wait_for(one);
    assert_int_equal(used(), 128 * MIB);
    CUdeviceptr large = take(NULL, 60 * MIB, one); /* 64 MiB are free, 8 in one piece at most */
    assert_int_equal(used(), 192 * MIB);
    CUdeviceptr fits = take(NULL, 8 * MIB, other); /* without a wait in between */
    assert_int_equal(used(), 192 * MIB);
    give(fits, other);
    give(large, one);
    for (int i = 0; i < 16; i += 2)
        give(address[i], one);
}

/* Whoever reads addresses finds the steps: that is how a card lays them out. */
static void addresses_are_those_of_the_steps(void **state)
{
    (void)state;
    CUmemoryPool pool = pool_make(CU_MEM_ALLOCATION_TYPE_PINNED, CU_MEM_LOCATION_TYPE_DEVICE, 0, 0);
    CUdeviceptr first = take(pool, 8 * MIB, one), second = take(pool, 1000, one), third = take(pool, 1, one);
    assert_int_equal(first % (32 * MIB), 0);
    assert_true(second == first + 8 * MIB);
    assert_true(third == second + 1024);
    CUdeviceptr base = 0;
    size_t bytes = 0;
    assert_int_equal(cuMemGetAddressRange_v2(&base, &bytes, second + 999), CUDA_SUCCESS);
    assert_true(base == second && bytes == 1000);
    assert_int_equal(cuMemGetAddressRange_v2(&base, &bytes, second + 1000), CUDA_ERROR_NOT_FOUND);
    give(first, one);
    give(second, one);
    give(third, one);
    assert_int_equal(cuMemPoolDestroy(pool), CUDA_SUCCESS);
}

/* Each allocation is made before the last is freed, so that the tail moves on and on. */
static void pools_never_run_out_of_addresses(void **state)
{
    (void)state;
    CUdeviceptr last = take(NULL, 32 * MIB, one);
    for (int i = 0; i < 3500; i++) { /* more steps than the card has, four times over */
        CUdeviceptr next = take(NULL, 32 * MIB, one);
        give(last, one);
        wait_for(one);
        last = next;
    }
    assert_int_equal(reserved(standard), 32 * MIB);
    assert_int_equal(cuMemsetD8_v2(last, 1, 32 * MIB), CUDA_SUCCESS);
    give(last, one);
}

static void empty_steps_in_the_middle_go_back(void **state)
{
    (void)state;
    CUdeviceptr address[4], more;
    for (int i = 0; i < 4; i++)
        address[i] = take(NULL, 32 * MIB, one);
    give(address[1], one);
    wait_for(one);
    assert_int_equal(used(), 96 * MIB);
    more = take(NULL, 40 * MIB, one);
    assert_int_equal(used(), 160 * MIB);
    assert_int_equal(reserved(standard), 160 * MIB);
    give(more, one);
    for (int i = 0; i < 4; i++)
        if (i != 1)
            give(address[i], one);
}

static void bytes_go_back_when_the_free_was_seen(void **state)
{
    (void)state;
    CUevent event = NULL;
    unsigned char byte;
    CUdeviceptr linear = 0;
    assert_int_equal(cuEventCreate(&event, CU_EVENT_DISABLE_TIMING), CUDA_SUCCESS);
    CUdeviceptr address = take(NULL, 40 * MIB, one);
    assert_int_equal(cuEventRecord(event, one), CUDA_SUCCESS);
    give(address, one);
    assert_int_equal(cuStreamQuery(one), CUDA_SUCCESS);
    assert_int_equal(cuEventQuery(event), CUDA_SUCCESS);
    assert_int_equal(cuEventSynchronize(event), CUDA_SUCCESS); /* recorded before the free */
    wait_for(other);
    assert_int_equal(cuMemPoolTrimTo(standard, 0), CUDA_SUCCESS);
    assert_int_equal(cuMemAlloc_v2(&linear, 2 * MIB), CUDA_SUCCESS);
    assert_int_equal(cuMemcpyDtoH_v2(&byte, linear, 1), CUDA_SUCCESS);
    assert_int_equal(cuMemFree_v2(linear), CUDA_SUCCESS);
    assert_int_equal(used(), 64 * MIB);
    assert_int_equal(cuEventRecord(event, one), CUDA_SUCCESS);
    assert_int_equal(used(), 64 * MIB);
    assert_int_equal(cuEventSynchronize(event), CUDA_SUCCESS);
    assert_int_equal(used(), 0);
    give(take(NULL, 40 * MIB, one), one);
    assert_int_equal(cuCtxSynchronize(), CUDA_SUCCESS);
    assert_int_equal(used(), 0);
    assert_int_equal(cuEventDestroy_v2(event), CUDA_SUCCESS);
}

static void legacy_stream_sees_what_waits_for_it(void **state)
{
    (void)state;
    CUstream blocking = NULL;
    assert_int_equal(cuStreamCreate(&blocking, CU_STREAM_DEFAULT), CUDA_SUCCESS);
    CUdeviceptr first = take(NULL, 32 * MIB, one), second = take(NULL, 32 * MIB, NULL);
    CUdeviceptr third = take(NULL, 32 * MIB, blocking);
    give(first, one);
    give(second, NULL);
    give(third, blocking);
    wait_for(NULL);
    assert_int_equal(used(), 32 * MIB);
    wait_for(one);
    assert_int_equal(used(), 0);
    give(take(NULL, 32 * MIB, blocking), blocking);
    assert_int_equal(used(), 32 * MIB);
    assert_int_equal(cuStreamDestroy_v2(blocking), CUDA_SUCCESS);
    assert_int_equal(used(), 0);
}

static void free_without_a_stream_is_seen_at_once(void **state)
{
    (void)state;
    CUdeviceptr address = take(NULL, 40 * MIB, one);
    assert_int_equal(cuMemFree_v2(address), CUDA_SUCCESS);
    assert_int_equal(used(), 0);
    assert_int_equal(cuMemFree_v2(address), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(cuMemFreeAsync(address, one), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(cuMemAlloc_v2(&address, 4 * MIB), CUDA_SUCCESS);
    give(address, one); /* ordinary memory is no pool's */
    assert_int_equal(used(), 0);
}

static void threshold_and_trim_say_what_is_kept(void **state)
{
    (void)state;
    CUmemoryPool pool = pool_make(CU_MEM_ALLOCATION_TYPE_PINNED, CU_MEM_LOCATION_TYPE_DEVICE, 0, 0);
    threshold_set(pool, UINT64_MAX);
    assert_true(attribute(pool, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD) == UINT64_MAX);
    CUdeviceptr kept = take(pool, 10 * MIB, one);
    give(take(pool, 100 * MIB, one), one);
    wait_for(one);
    assert_int_equal(used(), 128 * MIB);
    assert_int_equal(cuMemPoolTrimTo(pool, 70 * MIB), CUDA_SUCCESS);
    assert_int_equal(used(), 96 * MIB);
    assert_int_equal(cuMemPoolTrimTo(pool, 0), CUDA_SUCCESS);
    assert_int_equal(used(), 32 * MIB);
    give(kept, one);
    wait_for(one);
    assert_int_equal(used(), 32 * MIB);
    threshold_set(pool, 0);
    wait_for(other); /* whoever waits next */
    assert_int_equal(used(), 0);
    assert_int_equal(cuMemPoolDestroy(pool), CUDA_SUCCESS);
}

static void high_marks_are_kept_and_reset(void **state)
{
    (void)state;
    uint64_t zero = 0, one_byte = 1;
    CUmemoryPool pool = pool_make(CU_MEM_ALLOCATION_TYPE_PINNED, CU_MEM_LOCATION_TYPE_DEVICE, 0, 0);
    CUdeviceptr kept = take(pool, 8 * MIB, one);
    give(take(pool, 100 * MIB, one), one);
    wait_for(one);
    assert_int_equal(attribute(pool, CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH), 128 * MIB);
    assert_int_equal(attribute(pool, CU_MEMPOOL_ATTR_USED_MEM_HIGH), 108 * MIB);
    assert_int_equal(cuMemPoolSetAttribute(pool, CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH, &zero), CUDA_SUCCESS);
    assert_int_equal(cuMemPoolSetAttribute(pool, CU_MEMPOOL_ATTR_USED_MEM_HIGH, &zero), CUDA_SUCCESS);
    assert_int_equal(attribute(pool, CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH), 32 * MIB);
    assert_int_equal(attribute(pool, CU_MEMPOOL_ATTR_USED_MEM_HIGH), 8 * MIB);
    assert_int_equal(cuMemPoolSetAttribute(pool, CU_MEMPOOL_ATTR_USED_MEM_HIGH, &one_byte), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(cuMemPoolSetAttribute(pool, CU_MEMPOOL_ATTR_USED_MEM_CURRENT, &zero), CUDA_ERROR_INVALID_VALUE);
    give(kept, one);
    wait_for(one);
    assert_int_equal(cuMemPoolDestroy(pool), CUDA_SUCCESS);
}

static void switches_are_ints(void **state)
{
    (void)state;
    struct {
        int value, guard;
    } narrow = {7, 0x5A5A5A5A};
    assert_int_equal(cuMemPoolGetAttribute(standard, CU_MEMPOOL_ATTR_REUSE_ALLOW_OPPORTUNISTIC, &narrow.value),
                     CUDA_SUCCESS);
    assert_int_equal(narrow.value, 1);
    assert_int_equal(narrow.guard, 0x5A5A5A5A);
    narrow.value = 0;
    assert_int_equal(cuMemPoolSetAttribute(standard, CU_MEMPOOL_ATTR_REUSE_ALLOW_OPPORTUNISTIC, &narrow.value),
                     CUDA_SUCCESS);
    narrow.value = 7;
    assert_int_equal(cuMemPoolGetAttribute(standard, CU_MEMPOOL_ATTR_REUSE_ALLOW_OPPORTUNISTIC, &narrow.value),
                     CUDA_SUCCESS);
    assert_int_equal(narrow.value, 0);
    assert_int_equal(cuMemPoolGetAttribute(standard, 9, &narrow), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(cuMemPoolGetAttribute(standard, 0, &narrow), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(cuMemPoolGetAttribute(NULL, 5, &narrow), CUDA_ERROR_INVALID_VALUE);
}

static void destroyed_pools_end_with_their_memory(void **state)
{
    (void)state;
    CUmemoryPool pool = pool_make(CU_MEM_ALLOCATION_TYPE_PINNED, CU_MEM_LOCATION_TYPE_DEVICE, 0, 0), current = NULL;
    uint64_t value;
    CUdeviceptr more = 77;
    assert_int_equal(cuDeviceSetMemPool(0, pool), CUDA_SUCCESS);
    CUdeviceptr address = take(NULL, 5 * MIB, one);
    assert_int_equal(reserved(pool), 32 * MIB);
    assert_int_equal(reserved(standard), 0);
    assert_int_equal(cuMemPoolDestroy(pool), CUDA_SUCCESS);
    assert_int_equal(cuDeviceGetMemPool(&current, 0), CUDA_SUCCESS);
    assert_ptr_equal(current, standard);
    assert_int_equal(cuMemPoolDestroy(pool), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(cuMemPoolGetAttribute(pool, 5, &value), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(cuMemAllocFromPoolAsync(&more, MIB, pool, one), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(more, 77);
    assert_int_equal(cuMemsetD8_v2(address, 3, 5 * MIB), CUDA_SUCCESS);
    assert_int_equal(used(), 32 * MIB);
    give(address, one);
    assert_int_equal(used(), 32 * MIB);
    wait_for(one);
    assert_int_equal(used(), 0);
    pool = pool_make(CU_MEM_ALLOCATION_TYPE_PINNED, CU_MEM_LOCATION_TYPE_DEVICE, 0, 0);
    threshold_set(pool, UINT64_MAX);
    give(take(pool, 40 * MIB, one), one);
    wait_for(one);
    assert_int_equal(used(), 64 * MIB);
    assert_int_equal(cuMemPoolDestroy(pool), CUDA_SUCCESS);
    assert_int_equal(used(), 0);
    assert_int_equal(cuMemPoolDestroy(standard), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(cuMemPoolDestroy(NULL), CUDA_ERROR_INVALID_VALUE);
}

static void what_does_not_fit_is_out_of_memory(void **state)
{
    (void)state;
    CUdeviceptr address = 77;
    CUmemoryPool pool = pool_make(CU_MEM_ALLOCATION_TYPE_PINNED, CU_MEM_LOCATION_TYPE_DEVICE, 0, 8 * MIB);
    assert_int_equal(cuMemAllocAsync(&address, 24 * GIB, one), CUDA_ERROR_OUT_OF_MEMORY);
    assert_int_equal(cuMemAllocAsync(&address, SIZE_MAX, one), CUDA_ERROR_OUT_OF_MEMORY);
    assert_int_equal(cuMemAllocFromPoolAsync(&address, 40 * MIB, pool, one), CUDA_ERROR_OUT_OF_MEMORY);
    assert_int_equal(cuMemAllocAsync(NULL, MIB, one), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(cuMemAllocFromPoolAsync(&address, MIB, NULL, one), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(address, 77);
    assert_int_equal(reserved(standard), 0);
    assert_int_equal(taken(standard), 0);
    address = take(pool, 29 * MIB, one); /* the limit is rounded to a step */
    CUdeviceptr more = 78;
    assert_int_equal(cuMemAllocFromPoolAsync(&more, 30 * MIB, pool, one), CUDA_ERROR_OUT_OF_MEMORY);
    assert_int_equal(more, 78);
    assert_int_equal(cuMemFree_v2(address), CUDA_SUCCESS);
    assert_int_equal(cuMemPoolDestroy(pool), CUDA_SUCCESS);
    assert_int_equal(cuMemAllocAsync(&more, 0, one), CUDA_SUCCESS); /* nothing, of nothing */
    assert_int_equal(more, 0);
}

static void bytes_are_real(void **state)
{
    (void)state;
    char back[8] = "";
    CUdeviceptr small = 0, large = 0;
    assert_int_equal(cuMemAllocAsync_ptsz(&small, 1000, one), CUDA_SUCCESS);
    assert_int_equal(cuMemAllocFromPoolAsync_ptsz(&large, 40 * MIB, standard, one), CUDA_SUCCESS);
    assert_int_equal(cuMemsetD8Async(small, 'x', 1000, one), CUDA_SUCCESS);
    assert_int_equal(cuMemcpyDtoDAsync_v2(large + 33 * MIB, small, 1000, one), CUDA_SUCCESS);
    assert_int_equal(cuMemcpyDtoH_v2(back, large + 33 * MIB + 992, 8), CUDA_SUCCESS);
    assert_memory_equal(back, "xxxxxxxx", 8);
    assert_int_equal(cuMemsetD8Async(small, 0, 1001, one), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(cuMemFreeAsync_ptsz(large, one), CUDA_SUCCESS);
    give(small, one);
    assert_int_equal(cuMemcpyDtoH_v2(back, small, 1), CUDA_ERROR_INVALID_VALUE);
}

static void pointers_are_the_pools(void **state)
{
    (void)state;
    CUdeviceptr address = take(NULL, 1000, one);
    CUmemoryPool pool = NULL;
    CUcontext owner = context;
    unsigned type = 0;
    assert_int_equal(cuPointerGetAttribute(&pool, CU_POINTER_ATTRIBUTE_MEMPOOL_HANDLE, address), CUDA_SUCCESS);
    assert_ptr_equal(pool, standard);
    assert_int_equal(cuPointerGetAttribute(&owner, CU_POINTER_ATTRIBUTE_CONTEXT, address), CUDA_SUCCESS);
    assert_null(owner);
    assert_int_equal(cuPointerGetAttribute(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, address), CUDA_SUCCESS);
    assert_int_equal(type, CU_MEMORYTYPE_DEVICE);
    CUipcMemHandle handle;
    assert_int_equal(cuIpcGetMemHandle(&handle, address), CUDA_ERROR_INVALID_VALUE);
    give(address, one);
}

static void host_pools_cost_no_device(void **state)
{
    (void)state;
    unsigned type = 0;
    CUmemoryPool pool = pool_make(CU_MEM_ALLOCATION_TYPE_PINNED, CU_MEM_LOCATION_TYPE_HOST, 5, 0);
    CUdeviceptr address = take(pool, 8 * MIB, one);
    unsigned char *bytes = (unsigned char *)(uintptr_t)address;
    assert_int_equal(reserved(pool), 32 * MIB);
    assert_int_equal(used(), 0);
    assert_int_equal(cuMemsetD8Async(address, 9, 8 * MIB, one), CUDA_SUCCESS);
    assert_int_equal(bytes[8 * MIB - 1], 9);
    bytes[0] = 4;
    unsigned char back = 0;
    assert_int_equal(cuMemcpyDtoH_v2(&back, address, 1), CUDA_SUCCESS);
    assert_int_equal(back, 4);
    assert_int_equal(cuPointerGetAttribute(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, address), CUDA_SUCCESS);
    assert_int_equal(type, CU_MEMORYTYPE_HOST);
    give(address, one);
    wait_for(one);
    assert_int_equal(reserved(pool), 0);
    assert_int_equal(cuMemPoolDestroy(pool), CUDA_SUCCESS);
}

static void managed_pools_are_the_hosts_too(void **state)
{
    (void)state;
    uint8_t managed = 0;
    CUmemoryPool pool = pool_make(CU_MEM_ALLOCATION_TYPE_MANAGED, CU_MEM_LOCATION_TYPE_DEVICE, 0, 0);
    CUdeviceptr address = take(pool, 8 * MIB, one);
    *(unsigned char *)(uintptr_t)address = 1;
    assert_int_equal(cuPointerGetAttribute(&managed, CU_POINTER_ATTRIBUTE_IS_MANAGED, address), CUDA_SUCCESS);
    assert_int_equal(managed, 1);
    assert_int_equal(used(), 32 * MIB);
    assert_int_equal(cuMemFree_v2(address), CUDA_SUCCESS);
    assert_int_equal(cuMemPoolDestroy(pool), CUDA_SUCCESS);
}

static void locations_are_answered_as_by_the_driver(void **state)
{
    (void)state;
    static const struct {
        int type, location, id;
        CUresult get, create;
    } cases[] = {
        {1, 1, 0, 0, 0}, {2, 1, 0, 0, 0}, {1, 2, 0, 0, 0}, {2, 2, 0, 0, 0},   {1, 3, 0, 0, 0}, {2, 0, 0, 0, 0},
        {1, 0, 0, 1, 1}, {1, 1, 9, 1, 1}, {1, 3, 7, 1, 1}, {1, 4, 0, 801, 1}, {0, 1, 0, 1, 1}, {3, 1, 0, 1, 1},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        CUmemLocation location = {cases[i].location, cases[i].id};
        CUmemPoolProps properties = {.allocType = cases[i].type, .location = location};
        CUmemoryPool first = NULL, current = NULL, made = NULL;
        assert_int_equal(cuMemGetDefaultMemPool(&first, &location, cases[i].type), cases[i].get);
        assert_int_equal(cuMemGetMemPool(&current, &location, cases[i].type), cases[i].get);
        assert_ptr_equal(first, current);
        assert_int_equal(cuMemPoolCreate(&made, &properties), cases[i].create);
        assert_int_equal(made != NULL, cases[i].create == CUDA_SUCCESS);
        if (!made)
            continue;
        assert_int_equal(cuMemSetMemPool(&location, cases[i].type, made), CUDA_SUCCESS);
        assert_int_equal(cuMemSetMemPool(&location, 3 - cases[i].type, made), CUDA_ERROR_INVALID_VALUE);
        assert_int_equal(cuMemGetMemPool(&current, &location, cases[i].type), CUDA_SUCCESS);
        assert_ptr_equal(current, made);
        assert_int_equal(cuMemPoolDestroy(made), CUDA_SUCCESS);
        assert_int_equal(cuMemGetMemPool(&current, &location, cases[i].type), CUDA_SUCCESS);
        assert_ptr_equal(current, first);
    }
}

static void access_is_remembered(void **state)
{
    (void)state;
    CUmemoryPool pool = pool_make(CU_MEM_ALLOCATION_TYPE_PINNED, CU_MEM_LOCATION_TYPE_DEVICE, 0, 0);
    static const struct {
        CUmemAccessDesc access;
        CUresult result;
    } cases[] = {
        {{{1, 0}, 0}, 101}, {{{1, 0}, 1}, 801}, {{{1, 0}, 3}, 0},   {{{1, 9}, 3}, 101},
        {{{2, 0}, 3}, 801}, {{{1, 1}, 3}, 0},   {{{1, 1}, 1}, 801},
    };
    CUmemLocation peer = {1, 1}, host = {2, 0};
    int flags = 9;
    assert_int_equal(cuMemPoolGetAccess(&flags, pool, &peer), CUDA_SUCCESS);
    assert_int_equal(flags, 0);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        assert_int_equal(cuMemPoolSetAccess(pool, &cases[i].access, 1), cases[i].result);
    assert_int_equal(cuMemPoolGetAccess(&flags, pool, &peer), CUDA_SUCCESS);
    assert_int_equal(flags, 3);
    assert_int_equal(cuMemPoolGetAccess(&flags, pool, &host), CUDA_SUCCESS);
    assert_int_equal(flags, 0);
    assert_int_equal(cuMemPoolDestroy(pool), CUDA_SUCCESS);
}

static void memory_comes_from_the_device_of_the_stream(void **state)
{
    (void)state;
    CUcontext second = NULL;
    CUstream far = NULL;
    CUmemoryPool theirs = NULL, ours = NULL;
    assert_int_equal(cuDeviceGetDefaultMemPool(&theirs, 1), CUDA_SUCCESS);
    assert_int_equal(cuDeviceGetDefaultMemPool(&ours, 2), CUDA_ERROR_INVALID_DEVICE);
    assert_int_equal(cuDeviceSetMemPool(1, standard), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(cuCtxCreate_v2(&second, 0, 1), CUDA_SUCCESS);
    assert_int_equal(cuStreamCreate(&far, CU_STREAM_NON_BLOCKING), CUDA_SUCCESS);
    assert_int_equal(cuCtxSetCurrent(context), CUDA_SUCCESS);
    CUdeviceptr address = take(NULL, 3 * MIB, far), from_here = take(standard, 3 * MIB, far);
    assert_int_equal(reserved(theirs), 32 * MIB);
    assert_int_equal(stage_figures().device[1].used_bytes, CONTEXT_BYTES + 32 * MIB);
    assert_int_equal(used(), 32 * MIB);
    give(from_here, far);
    assert_int_equal(cuCtxDestroy_v2(second), CUDA_SUCCESS); /* which waits for its streams; the memory stays */
    assert_int_equal(used(), 0);
    assert_int_equal(stage_figures().device[1].used_bytes, 32 * MIB);
    assert_int_equal(cuMemsetD8_v2(address, 1, 3 * MIB), CUDA_SUCCESS);
    assert_int_equal(cuMemFree_v2(address), CUDA_SUCCESS);
    assert_int_equal(stage_figures().device[1].used_bytes, 0);
}

static void pools_outlive_the_primary_context(void **state)
{
    (void)state;
    CUmemoryPool again = NULL;
    CUcontext same = NULL;
    CUdeviceptr address = take(NULL, 10 * MIB, NULL);
    threshold_set(standard, UINT64_MAX);
    give(take(NULL, 100 * MIB, NULL), NULL);
    assert_int_equal(cuDevicePrimaryCtxReset_v2(0), CUDA_SUCCESS);
    assert_int_equal(reserved(standard), 128 * MIB);
    assert_int_equal(cuMemPoolTrimTo(standard, 0), CUDA_SUCCESS); /* the reset has seen the free */
    assert_int_equal(stage_figures().device[0].used_bytes, 32 * MIB);
    assert_int_equal(cuDevicePrimaryCtxRetain(&same, 0), CUDA_SUCCESS);
    assert_ptr_equal(same, context);
    assert_int_equal(cuDeviceGetDefaultMemPool(&again, 0), CUDA_SUCCESS);
    assert_ptr_equal(again, standard);
    threshold_set(standard, 0);
    assert_int_equal(cuMemFree_v2(address), CUDA_SUCCESS);
    assert_int_equal(used(), 0);
}

#define POOL_TEST(name) cmocka_unit_test_setup_teardown(name, NULL, nothing_is_left)

int main(void)
{
    const struct CMUnitTest tests[] = {
        POOL_TEST(pools_grow_in_steps_of_32_mib),
        POOL_TEST(requests_grow_the_tail_by_what_it_lacks),
        POOL_TEST(small_requests_share_a_step),
        POOL_TEST(holes_are_used_whole_and_never_joined),
        POOL_TEST(addresses_are_those_of_the_steps),
        POOL_TEST(pools_never_run_out_of_addresses),
        POOL_TEST(empty_steps_in_the_middle_go_back),
        POOL_TEST(bytes_go_back_when_the_free_was_seen),
        POOL_TEST(legacy_stream_sees_what_waits_for_it),
        POOL_TEST(free_without_a_stream_is_seen_at_once),
        POOL_TEST(threshold_and_trim_say_what_is_kept),
        POOL_TEST(high_marks_are_kept_and_reset),
        POOL_TEST(switches_are_ints),
        POOL_TEST(destroyed_pools_end_with_their_memory),
        POOL_TEST(what_does_not_fit_is_out_of_memory),
        POOL_TEST(bytes_are_real),
        POOL_TEST(pointers_are_the_pools),
        POOL_TEST(host_pools_cost_no_device),
        POOL_TEST(managed_pools_are_the_hosts_too),
        POOL_TEST(locations_are_answered_as_by_the_driver),
        POOL_TEST(access_is_remembered),
        POOL_TEST(memory_comes_from_the_device_of_the_stream),
        POOL_TEST(pools_outlive_the_primary_context), /* the last: streams end with the context */
    };
    return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
