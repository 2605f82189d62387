/* The simulated driver's memory: costs, addresses, copies with real bytes, and what is an error. One context for all. */
#include "unit/sim_context.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>
#include <sys/wait.h>

static int group_setup(void **state)
{
    (void)state;
    return context_open("");
}

static CUdeviceptr allocate(size_t bytes)
{
    CUdeviceptr address = 0;
    assert_int_equal(cuMemAlloc_v2(&address, bytes), CUDA_SUCCESS);
    assert_true(address != 0);
    return address;
}

static void allocations_cost_what_was_measured(void **state)
{
    (void)state;
    static const struct {
        size_t bytes, cost;
    } cases[] = {
        {1, 2 * MIB},       {512, 2 * MIB},         {4096, 2 * MIB},      {MIB, 2 * MIB},           {MIB + 1, 2 * MIB},
        {2 * MIB, 2 * MIB}, {2 * MIB + 1, 4 * MIB}, {20 * MIB, 20 * MIB}, {1024 * MIB, 1024 * MIB},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        CUdeviceptr address = allocate(cases[i].bytes);
        assert_int_equal(used(), cases[i].cost);
        assert_int_equal(address % 512, 0);
        assert_int_equal(cuMemFree_v2(address), CUDA_SUCCESS);
        assert_int_equal(used(), 0);
    }
}

static void small_requests_share_blocks(void **state)
{
    (void)state;
    enum { MANY = 3000 };
    static CUdeviceptr address[MANY];
    for (int i = 0; i < MANY; i++) {
        address[i] = allocate(1000);
        if (i == 59)
            assert_int_equal(used(), 2 * MIB);
    }
    assert_int_equal(used(), 4 * MIB);
    for (int i = 0; i < MANY; i += 2)
        assert_int_equal(cuMemFree_v2(address[i]), CUDA_SUCCESS);
    assert_int_equal(used(), 4 * MIB);
    for (int i = 0; i < MANY; i += 2) /* the holes are used again */
        address[i] = allocate(1000);
    assert_int_equal(used(), 4 * MIB);
    for (int i = 0; i < MANY; i++)
        for (int j = i + 1; j < i + 3 && j < MANY; j++)
            assert_true(address[i] + 1000 <= address[j] || address[j] + 1000 <= address[i]);
    for (int i = 0; i < MANY; i++)
        assert_int_equal(cuMemFree_v2(address[i]), CUDA_SUCCESS);
    assert_int_equal(used(), 0);
}

static void pitched_and_managed_memory_cost_what_they_take(void **state)
{
    (void)state;
    CUdeviceptr address = 0;
    size_t pitch = 0;
    assert_int_equal(cuMemAllocPitch_v2(&address, &pitch, 1001, 1000, 4), CUDA_SUCCESS);
    assert_int_equal(pitch, 1024);
    assert_int_equal(used(), 2 * MIB);
    assert_int_equal(cuMemFree_v2(address), CUDA_SUCCESS);
    assert_int_equal(cuMemAllocPitch_v2(&address, &pitch, 100000, 1000, 16), CUDA_SUCCESS);
    assert_int_equal(pitch % 512, 0);
    assert_int_equal(used(), 96 * MIB);
    assert_int_equal(cuMemFree_v2(address), CUDA_SUCCESS);
    assert_int_equal(cuMemAllocPitch_v2(&address, &pitch, 10, 10, 3), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(cuMemAllocManaged(&address, 256 * MIB, 1), CUDA_SUCCESS);
    assert_int_equal(used(), 256 * MIB);
    assert_int_equal(cuMemFree_v2(address), CUDA_SUCCESS);
    assert_int_equal(cuMemAllocManaged(&address, 1, 3), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(used(), 0);
}

static void what_does_not_fit_is_out_of_memory(void **state)
{
    (void)state;
    size_t free_bytes, total_bytes, pitch = 5;
    CUdeviceptr address = 77;
    assert_int_equal(cuMemGetInfo_v2(&free_bytes, &total_bytes), CUDA_SUCCESS);
    assert_int_equal(total_bytes, 24 * GIB);
    assert_int_equal(free_bytes, 24 * GIB - CONTEXT_BYTES);
    assert_int_equal(cuMemAlloc_v2(&address, free_bytes + 1), CUDA_ERROR_OUT_OF_MEMORY);
    assert_int_equal(cuMemAlloc_v2(&address, SIZE_MAX), CUDA_ERROR_OUT_OF_MEMORY);
    assert_int_equal(cuMemAllocManaged(&address, free_bytes + 1, 1), CUDA_ERROR_OUT_OF_MEMORY);
    assert_int_equal(cuMemAllocPitch_v2(&address, &pitch, SIZE_MAX / 2, SIZE_MAX / 2, 4), CUDA_ERROR_OUT_OF_MEMORY);
    assert_int_equal(cuMemAllocPitch_v2(&address, &pitch, 4096, 1 << 30, 4), CUDA_ERROR_OUT_OF_MEMORY);
    assert_int_equal(cuMemAlloc_v2(&address, 0), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(address, 77);
    assert_int_equal(pitch, 5);
    address = allocate(free_bytes / (2 * MIB) * 2 * MIB);
    CUdeviceptr more = 78;
    assert_int_equal(cuMemAlloc_v2(&more, 2 * MIB), CUDA_ERROR_OUT_OF_MEMORY);
    assert_int_equal(more, 78);
    assert_int_equal(cuMemFree_v2(address), CUDA_SUCCESS);
}

static void freeing_takes_the_address_of_an_allocation(void **state)
{
    (void)state;
    CUdeviceptr small = allocate(1000), large = allocate(3 * MIB);
    int here;
    assert_int_equal(cuMemFree_v2(0), CUDA_SUCCESS);
    assert_int_equal(cuMemFree_v2(small + 512), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(cuMemFree_v2(large + 2 * MIB), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(cuMemFree_v2((uintptr_t)&here), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(cuMemFree_v2(small), CUDA_SUCCESS);
    assert_int_equal(cuMemFree_v2(small), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(cuMemFreeAsync(large, NULL), CUDA_SUCCESS);
    assert_int_equal(cuMemFreeAsync(large, NULL), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(used(), 0);
}

static void interface_of_32_bits_has_its_own_types(void **state)
{
    (void)state;
    struct {
        CUdeviceptr_v1 address, guard;
    } narrow = {0, 0x5A5A5A5A};
    unsigned free_bytes = 0, total_bytes = 0, value = 0;
    assert_int_equal(cuMemAlloc(&narrow.address, 1000), CUDA_SUCCESS);
    assert_int_equal(narrow.guard, 0x5A5A5A5A);
    assert_int_equal(used(), 2 * MIB);
    assert_int_equal(cuMemcpyHtoD(narrow.address, "narrow", 7), CUDA_SUCCESS);
    assert_int_equal(cuMemcpyDtoH_v2(&value, narrow.address, 4), CUDA_SUCCESS);
    assert_memory_equal(&value, "narr", 4);
    assert_int_equal(cuMemFree(narrow.address), CUDA_SUCCESS);
    assert_int_equal(cuMemGetInfo(&free_bytes, &total_bytes), CUDA_SUCCESS);
    assert_int_equal(total_bytes, UINT32_MAX);
    assert_int_equal(used(), 0);
}

static void bytes_are_real(void **state)
{
    (void)state;
    enum { COUNT = 3 * 1024 * 1024 };
    unsigned char *out = malloc(COUNT), *back = calloc(1, COUNT);
    for (int i = 0; i < COUNT; i++)
        out[i] = (unsigned char)(i * 7 + i / 255);
    CUdeviceptr one = allocate(COUNT), other = allocate(COUNT);
    assert_int_equal(cuMemcpyHtoD_v2(one, out, COUNT), CUDA_SUCCESS);
    assert_int_equal(cuMemcpyDtoD_v2(other, one, COUNT), CUDA_SUCCESS);
    assert_int_equal(cuMemcpyDtoH_v2(back, other, COUNT), CUDA_SUCCESS);
    assert_memory_equal(out, back, COUNT);
    memset(back, 0, COUNT);
    assert_int_equal(cuMemcpy((uintptr_t)back, one + 100, 1000), CUDA_SUCCESS);
    assert_memory_equal(out + 100, back, 1000);
    assert_int_equal(cuMemcpyHtoDAsync_v2_ptsz(one + 5, "twin", 4, NULL), CUDA_SUCCESS);
    assert_int_equal(cuMemcpyDtoH_v2(back, one + 5, 4), CUDA_SUCCESS);
    assert_memory_equal(back, "twin", 4);
    assert_int_equal(cuMemcpyDtoD_v2(one + 3, one, 1000), CUDA_SUCCESS); /* overlapping */
    assert_int_equal(cuMemFree_v2(one), CUDA_SUCCESS);
    assert_int_equal(cuMemFree_v2(other), CUDA_SUCCESS);
    free(out);
    free(back);
}

static void sets_fill_every_width(void **state)
{
    (void)state;
    CUdeviceptr address = allocate(4096);
    unsigned char bytes[64];
    unsigned short halves[4];
    unsigned words[4];
    assert_int_equal(cuMemsetD8_v2(address, 0xAB, 4096), CUDA_SUCCESS);
    assert_int_equal(cuMemsetD16_v2(address + 2, 0x1234, 2), CUDA_SUCCESS);
    assert_int_equal(cuMemcpyDtoH_v2(halves, address, 8), CUDA_SUCCESS);
    assert_int_equal(halves[0], 0xABAB);
    assert_int_equal(halves[1], 0x1234);
    assert_int_equal(halves[2], 0x1234);
    assert_int_equal(halves[3], 0xABAB);
    assert_int_equal(cuMemsetD32Async(address, 0xDEADBEEF, 3, NULL), CUDA_SUCCESS);
    assert_int_equal(cuMemcpyDtoH_v2(words, address, 16), CUDA_SUCCESS);
    assert_int_equal(words[2], 0xDEADBEEF);
    assert_int_equal(words[3], 0xABABABAB);
    assert_int_equal(cuMemsetD2D8_v2(address, 16, 0, 5, 3), CUDA_SUCCESS);
    assert_int_equal(cuMemcpyDtoH_v2(bytes, address, 64), CUDA_SUCCESS);
    assert_int_equal(bytes[16 + 4], 0);
    assert_int_equal(bytes[16 + 5], 0xAB);
    assert_int_equal(bytes[48], 0xAB);
    assert_int_equal(cuMemsetD16_v2(address + 1, 0, 2), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(cuMemsetD8_v2(address, 0, 4097), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(cuMemFree_v2(address), CUDA_SUCCESS);
}

static void boxes_are_copied_row_by_row(void **state)
{
    (void)state;
    unsigned char host[8][8], back[8][8];
    CUdeviceptr address = 0;
    size_t pitch = 0;
    for (unsigned char i = 0; i < 64; i++)
        host[i / 8][i % 8] = i;
    memset(back, 0xFF, sizeof(back));
    assert_int_equal(cuMemAllocPitch_v2(&address, &pitch, 8, 8, 4), CUDA_SUCCESS);
    CUDA_MEMCPY2D there = {.srcMemoryType = CU_MEMORYTYPE_HOST,
                           .srcHost = host,
                           .srcPitch = 8,
                           .dstMemoryType = CU_MEMORYTYPE_DEVICE,
                           .dstDevice = address,
                           .dstPitch = pitch,
                           .WidthInBytes = 8,
                           .Height = 8};
    assert_int_equal(cuMemcpy2D_v2(&there), CUDA_SUCCESS);
    CUDA_MEMCPY3D home = {.srcXInBytes = 2,
                          .srcY = 1,
                          .srcZ = 1,
                          .srcMemoryType = CU_MEMORYTYPE_UNIFIED,
                          .srcDevice = address,
                          .srcPitch = pitch,
                          .srcHeight = 4,
                          .dstXInBytes = 1,
                          .dstMemoryType = CU_MEMORYTYPE_HOST,
                          .dstHost = back,
                          .dstPitch = 8,
                          .dstHeight = 8,
                          .WidthInBytes = 3,
                          .Height = 2,
                          .Depth = 1};
    assert_int_equal(cuMemcpy3D_v2(&home), CUDA_SUCCESS);
    /* plane 1 of planes of 4 rows, row 1 of it, byte 2 */
    assert_memory_equal(&back[0][1], &host[5][2], 3);
    assert_memory_equal(&back[1][1], &host[6][2], 3);
    assert_int_equal(back[0][0], 0xFF);
    assert_int_equal(back[0][4], 0xFF);
    home.Height = 4; /* beyond the plane */
    assert_int_equal(cuMemcpy3D_v2(&home), CUDA_ERROR_INVALID_VALUE);
    there.Height = 9; /* beyond the allocation */
    assert_int_equal(cuMemcpy2D_v2(&there), CUDA_ERROR_INVALID_VALUE);
    there.Height = 8;
    there.dstMemoryType = CU_MEMORYTYPE_ARRAY;
    assert_int_equal(cuMemcpy2D_v2(&there), CUDA_ERROR_INVALID_HANDLE);
    assert_int_equal(cuMemFree_v2(address), CUDA_SUCCESS);
}

static void touching_what_is_not_there_is_an_error(void **state)
{
    (void)state;
    char here[64] = "";
    CUdeviceptr address = allocate(1000), gone = allocate(3 * MIB);
    assert_int_equal(cuMemFree_v2(gone), CUDA_SUCCESS);
    assert_int_equal(cuMemcpyDtoH_v2(here, address, 1001), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(cuMemcpyDtoH_v2(here, address + 1000, 1), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(cuMemcpyDtoH_v2(here, gone, 1), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(cuMemcpyHtoD_v2(gone, here, 1), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(cuMemcpy((uintptr_t)here, gone, 1), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(cuMemsetD8_v2(gone, 0, 1), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(cuMemcpyHtoD_v2((uintptr_t)here, here, 1), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(cuMemcpyHtoD_v2(0, here, 1), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(cuMemcpyHtoD_v2(address, NULL, 1), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(cuMemcpyHtoD_v2(address, NULL, 0), CUDA_SUCCESS);
    assert_int_equal(cuMemFree_v2(address), CUDA_SUCCESS);
}

static CUdeviceptr forbidden;

static int device_pointer_read(void)
{
    signal(SIGSEGV, SIG_DFL);
    close(STDERR_FILENO); /* what a sanitizer would say of it */
    return *(volatile char *)(uintptr_t)forbidden == 0 ? 0 : 1;
}

static void host_cannot_touch_device_memory(void **state)
{
    (void)state;
    forbidden = allocate(4096);
    assert_int_equal(cuMemsetD8_v2(forbidden, 0, 4096), CUDA_SUCCESS);
    int status = stage_child(device_pointer_read);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
    assert_int_equal(cuMemFree_v2(forbidden), CUDA_SUCCESS);
}

static void managed_memory_is_the_hosts_too(void **state)
{
    (void)state;
    CUdeviceptr address = 0;
    unsigned char *bytes;
    assert_int_equal(cuMemAllocManaged(&address, 10000, 1), CUDA_SUCCESS);
    bytes = (unsigned char *)(uintptr_t)address;
    assert_int_equal(cuMemsetD8_v2(address, 9, 10000), CUDA_SUCCESS);
    assert_int_equal(bytes[9999], 9);
    bytes[0] = 4;
    unsigned char back = 0;
    assert_int_equal(cuMemcpyDtoH_v2(&back, address, 1), CUDA_SUCCESS);
    assert_int_equal(back, 4);
    assert_int_equal(cuMemFree_v2(address), CUDA_SUCCESS);
    assert_int_equal(cuMemcpyDtoH_v2(&back, address, 1), CUDA_ERROR_INVALID_VALUE);
}

static void host_memory_is_known_to_the_device(void **state)
{
    (void)state;
    char *pinned = NULL;
    static char own[8192];
    CUdeviceptr device = 0;
    assert_int_equal(cuMemHostAlloc((void **)&pinned, 10000, 2), CUDA_SUCCESS);
    assert_int_equal(used(), 0);
    assert_int_equal(cuMemHostGetDevicePointer_v2(&device, pinned + 5, 0), CUDA_SUCCESS);
    assert_int_equal(cuMemsetD8_v2(device, 'p', 100), CUDA_SUCCESS);
    assert_int_equal(pinned[104], 'p');
    assert_int_equal(pinned[105], 0);
    assert_int_equal(cuMemHostGetDevicePointer_v2(&device, own, 0), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(cuMemHostRegister_v2(own, sizeof(own), 0), CUDA_SUCCESS);
    assert_int_equal(cuMemHostRegister_v2(own + 4096, 10, 0), CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED);
    assert_int_equal(cuMemHostGetDevicePointer_v2(&device, own, 0), CUDA_SUCCESS);
    assert_int_equal(cuMemHostUnregister(own + 1), CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED);
    assert_int_equal(cuMemFreeHost(own), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(cuMemHostUnregister(own), CUDA_SUCCESS);
    assert_int_equal(cuMemHostUnregister(pinned), CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED);
    assert_int_equal(cuMemFreeHost(pinned), CUDA_SUCCESS);
}

static void pointers_are_described(void **state)
{
    (void)state;
    CUdeviceptr address = allocate(1000), managed = 0, base = 0;
    size_t bytes = 0;
    unsigned type = 0;
    unsigned char flag = 7;
    int ordinal = -1;
    CUcontext owner = NULL;
    assert_int_equal(cuMemAllocManaged(&managed, 5, 1), CUDA_SUCCESS);
    assert_int_equal(cuMemGetAddressRange_v2(&base, &bytes, address + 999), CUDA_SUCCESS);
    assert_int_equal(base, address);
    assert_int_equal(bytes, 1000);
    assert_int_equal(cuMemGetAddressRange_v2(&base, &bytes, address + 1000), CUDA_ERROR_NOT_FOUND);
    assert_int_equal(cuPointerGetAttribute(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, address), CUDA_SUCCESS);
    assert_int_equal(type, CU_MEMORYTYPE_DEVICE);
    assert_int_equal(cuPointerGetAttribute(&owner, CU_POINTER_ATTRIBUTE_CONTEXT, address + 3), CUDA_SUCCESS);
    assert_ptr_equal(owner, context);
    assert_int_equal(cuPointerGetAttribute(&ordinal, CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL, address), CUDA_SUCCESS);
    assert_int_equal(ordinal, 0);
    assert_int_equal(cuPointerGetAttribute(&flag, CU_POINTER_ATTRIBUTE_IS_MANAGED, address), CUDA_SUCCESS);
    assert_int_equal(flag, 0);
    assert_int_equal(cuPointerGetAttribute(&flag, CU_POINTER_ATTRIBUTE_IS_MANAGED, managed), CUDA_SUCCESS);
    assert_int_equal(flag, 1);
    assert_int_equal(cuPointerGetAttribute(&base, CU_POINTER_ATTRIBUTE_HOST_POINTER, address),
                     CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(cuPointerGetAttribute(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, (uintptr_t)&type),
                     CUDA_ERROR_INVALID_VALUE);
    const int both[] = {CU_POINTER_ATTRIBUTE_MEMORY_TYPE, CU_POINTER_ATTRIBUTE_RANGE_START_ADDR};
    void *data[] = {&type, &base};
    assert_int_equal(cuPointerGetAttributes(2, both, data, (uintptr_t)&type), CUDA_SUCCESS);
    assert_int_equal(type, 0);
    assert_int_equal(base, 0);
    assert_int_equal(cuMemFree_v2(address), CUDA_SUCCESS);
    assert_int_equal(cuMemFree_v2(managed), CUDA_SUCCESS);
}

/* A thread that copies to and from memory another frees under it: results may be errors, never a crash. */
static _Atomic(CUdeviceptr) shared_address;
static _Atomic int copying;

static void *copier_run(void *argument)
{
    static char bytes[4 * MIB];
    (void)argument;
    cuCtxSetCurrent(context);
    while (copying) {
        CUresult result = cuMemcpyHtoD_v2(shared_address, bytes, sizeof(bytes));
        if (result != CUDA_SUCCESS && result != CUDA_ERROR_INVALID_VALUE)
            return (void *)1;
    }
    return NULL;
}

static void freeing_under_a_copy_is_safe(void **state)
{
    (void)state;
    pthread_t copier;
    void *failed;
    copying = 1;
    assert_int_equal(pthread_create(&copier, NULL, copier_run, NULL), 0);
    for (int round = 0; round < 300; round++) {
        shared_address = allocate(4 * MIB);
        assert_int_equal(cuMemFree_v2(shared_address), CUDA_SUCCESS);
    }
    copying = 0;
    pthread_join(copier, &failed);
    assert_null(failed);
    assert_int_equal(used(), 0);
}

static void *churner_run(void *argument)
{
    unsigned seed = *(unsigned *)argument;
    CUdeviceptr held[32] = {0};
    cuCtxSetCurrent(context);
    for (int round = 0; round < 2000; round++) {
        unsigned at = (unsigned)rand_r(&seed) % 32;
        size_t bytes = (unsigned)rand_r(&seed) % (unsigned)(3 * MIB) + 1;
        if (cuMemFree_v2(held[at]) != CUDA_SUCCESS || cuMemAlloc_v2(&held[at], bytes) != CUDA_SUCCESS)
            return (void *)1;
        unsigned char mark = (unsigned char)seed, back = 0;
        if (cuMemsetD8_v2(held[at], mark, 16 < bytes ? 16 : bytes) != CUDA_SUCCESS ||
            cuMemcpyDtoH_v2(&back, held[at], 1) != CUDA_SUCCESS || back != mark)
            return (void *)1;
    }
    for (unsigned at = 0; at < 32; at++)
        if (cuMemFree_v2(held[at]) != CUDA_SUCCESS)
            return (void *)1;
    return NULL;
}

static void threads_allocate_and_free(void **state)
{
    (void)state;
    enum { THREADS = 8 };
    pthread_t threads[THREADS];
    unsigned seeds[THREADS];
    for (unsigned i = 0; i < THREADS; i++) {
        seeds[i] = i + 1;
        assert_int_equal(pthread_create(&threads[i], NULL, churner_run, &seeds[i]), 0);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        void *failed;
        pthread_join(threads[i], &failed);
        assert_null(failed);
    }
    assert_int_equal(used(), 0);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(allocations_cost_what_was_measured),
        cmocka_unit_test(small_requests_share_blocks),
        cmocka_unit_test(pitched_and_managed_memory_cost_what_they_take),
        cmocka_unit_test(what_does_not_fit_is_out_of_memory),
        cmocka_unit_test(freeing_takes_the_address_of_an_allocation),
        cmocka_unit_test(interface_of_32_bits_has_its_own_types),
        cmocka_unit_test(bytes_are_real),
        cmocka_unit_test(sets_fill_every_width),
        cmocka_unit_test(boxes_are_copied_row_by_row),
        cmocka_unit_test(touching_what_is_not_there_is_an_error),
        cmocka_unit_test(host_cannot_touch_device_memory),
        cmocka_unit_test(managed_memory_is_the_hosts_too),
        cmocka_unit_test(host_memory_is_known_to_the_device),
        cmocka_unit_test(pointers_are_described),
        cmocka_unit_test(freeing_under_a_copy_is_safe),
        cmocka_unit_test(threads_allocate_and_free),
    };
    return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
