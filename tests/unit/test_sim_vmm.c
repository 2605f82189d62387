/*
 * The simulated driver's virtual memory management: what it costs and for how long, what is accepted and refused, and that
 * bytes are the same through every mapping. Two devices; this process uses CUDA itself.
 */
#include "unit/sim_stage.h"

#include <pthread.h>
#include <signal.h>
#include <unistd.h>
#include <sys/wait.h>

#define CONTEXT_BYTES (527 * MIB)
#define PIECE         (20 * MIB)

static CUcontext contexts[2];
static uint64_t before[2];

static uint64_t used(unsigned device)
{
    return stage_figures().device[device].used_bytes - before[device];
}

static int group_setup(void **state)
{
    (void)state;
    if (stage_open("devices=2,memory=8GiB") != 0 || cuInit(0) != CUDA_SUCCESS ||
        cuDevicePrimaryCtxRetain(&contexts[0], 0) != CUDA_SUCCESS ||
        cuDevicePrimaryCtxRetain(&contexts[1], 1) != CUDA_SUCCESS)
        return -1;
    before[0] = before[1] = CONTEXT_BYTES;
    return cuCtxSetCurrent(contexts[0]);
}

static int group_teardown(void **state)
{
    (void)state;
    return stage_close();
}

static CUmemAllocationProp properties_of(int type, int id, int handle_types)
{
    return (CUmemAllocationProp){
        .type = CU_MEM_ALLOCATION_TYPE_PINNED, .requestedHandleTypes = handle_types, .location = {type, id}};
}

static CUresult try_create(size_t bytes, int type, int id, int handle_types, CUmemGenericAllocationHandle *handle)
{
    CUmemAllocationProp properties = properties_of(type, id, handle_types);
    return cuMemCreate(handle, bytes, &properties, 0);
}

static CUmemGenericAllocationHandle create(size_t bytes, int device)
{
    CUmemGenericAllocationHandle handle = 0;
    assert_int_equal(try_create(bytes, CU_MEM_LOCATION_TYPE_DEVICE, device, 0, &handle), CUDA_SUCCESS);
    assert_true(handle != 0);
    return handle;
}

static CUdeviceptr reserve(size_t bytes)
{
    CUdeviceptr address = 0;
    assert_int_equal(cuMemAddressReserve(&address, bytes, 0, 0, 0), CUDA_SUCCESS);
    assert_int_equal(address % (2 * MIB), 0);
    return address;
}

static CUresult allow(CUdeviceptr address, size_t bytes, int flags)
{
    CUmemAccessDesc access = {.location = {CU_MEM_LOCATION_TYPE_DEVICE, 0}, .flags = flags};
    return cuMemSetAccess(address, bytes, &access, 1);
}

static int access_of(CUdeviceptr address)
{
    unsigned long long flags = 9;
    CUmemLocation location = {CU_MEM_LOCATION_TYPE_DEVICE, 0};
    assert_int_equal(cuMemGetAccess(&flags, &location, address), CUDA_SUCCESS);
    return (int)flags;
}

static unsigned char byte_at(CUdeviceptr address)
{
    unsigned char byte = 0;
    assert_int_equal(cuMemcpyDtoH_v2(&byte, address, 1), CUDA_SUCCESS);
    return byte;
}

static void reservations_are_whole_and_cost_nothing(void **state)
{
    (void)state;
    CUdeviceptr address = 7, other;
    static const size_t odd[] = {0, 1, 4096, MIB, 3 * MIB};
    for (size_t i = 0; i < sizeof(odd) / sizeof(odd[0]); i++)
        assert_int_equal(cuMemAddressReserve(&address, odd[i], 0, 0, 0), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(cuMemAddressReserve(&address, 2 * MIB, 3 * MIB, 0, 0), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(cuMemAddressReserve(&address, 2 * MIB, 0, 0, 1), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(cuMemAddressReserve(NULL, 2 * MIB, 0, 0, 0), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(address, 7);
    assert_int_equal(cuMemAddressReserve(&address, 2 * MIB, GIB, 0, 0), CUDA_SUCCESS);
    assert_int_equal(address % GIB, 0);
    assert_int_equal(cuMemAddressFree(address, 2 * MIB), CUDA_SUCCESS);
    assert_int_equal(cuMemAddressReserve(&other, 2 * MIB, 0, address, 0), CUDA_SUCCESS);
    assert_int_equal(other, address); /* the address asked for, where it is free */
    assert_int_equal(cuMemAddressFree(other, 4 * MIB), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(cuMemAddressFree(other + 2 * MIB, 2 * MIB), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(cuMemAddressFree(other, 2 * MIB), CUDA_SUCCESS);
    assert_int_equal(cuMemAddressFree(other, 2 * MIB), CUDA_ERROR_INVALID_VALUE);
    address = reserve(64 * GIB); /* more than the cards have */
    assert_int_equal(used(0), 0);
    assert_int_equal(cuMemAddressFree(address, 64 * GIB), CUDA_SUCCESS);
}

static void memory_is_charged_to_the_device_named(void **state)
{
    (void)state;
    CUmemGenericAllocationHandle handle = 7, one = create(PIECE, 1);
    assert_int_equal(used(0), 0);
    assert_int_equal(used(1), PIECE);
    assert_int_equal(cuMemRelease(one), CUDA_SUCCESS);
    assert_int_equal(used(1), 0);
    assert_int_equal(try_create(3 * MIB, 1, 0, 0, &handle), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(try_create(0, 1, 0, 0, &handle), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(try_create(PIECE, 0, 0, 0, &handle), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(try_create(PIECE, 4, 0, 0, &handle), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(try_create(PIECE, 3, 99, 0, &handle), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(try_create(PIECE, 1, 2, 0, &handle), CUDA_ERROR_INVALID_DEVICE);
    assert_int_equal(try_create(PIECE, 1, 0, 2, &handle), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(try_create(PIECE, 1, 0, 8, &handle), CUDA_ERROR_NOT_PERMITTED);
    assert_int_equal(try_create(8 * GIB, 1, 0, 0, &handle), CUDA_ERROR_OUT_OF_MEMORY);
    assert_int_equal(cuMemCreate(&handle, PIECE, NULL, 0), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(handle, 7);
    assert_int_equal(cuMemRelease(7), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(used(0), 0);
}

static void host_memory_costs_no_card_and_is_the_hosts(void **state)
{
    (void)state;
    CUmemGenericAllocationHandle host, node, card = create(PIECE, 0);
    CUdeviceptr address = reserve(2 * PIECE);
    CUmemAccessDesc to_host = {.location = {CU_MEM_LOCATION_TYPE_HOST, 0}, .flags = 3};
    unsigned type = 0;
    assert_int_equal(try_create(PIECE, CU_MEM_LOCATION_TYPE_HOST, 5, 0, &host), CUDA_SUCCESS);
    assert_int_equal(try_create(PIECE, CU_MEM_LOCATION_TYPE_HOST_NUMA, 0, 0, &node), CUDA_SUCCESS);
    assert_int_equal(used(0), PIECE);
    assert_int_equal(cuMemMap(address, PIECE, 0, host, 0), CUDA_SUCCESS);
    assert_int_equal(cuMemMap(address + PIECE, PIECE, 0, card, 0), CUDA_SUCCESS);
    assert_int_equal(cuMemSetAccess(address + PIECE, PIECE, &to_host, 1), CUDA_ERROR_NOT_SUPPORTED);
    assert_int_equal(cuMemSetAccess(address, PIECE, &to_host, 1), CUDA_SUCCESS);
    assert_int_equal(allow(address, PIECE, 3), CUDA_SUCCESS);
    assert_int_equal(cuMemsetD8_v2(address, 0x5A, 4096), CUDA_SUCCESS);
    assert_int_equal(*(unsigned char *)(uintptr_t)(address + 4095), 0x5A);
    assert_int_equal(cuPointerGetAttribute(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, address), CUDA_SUCCESS);
    assert_int_equal(type, CU_MEMORYTYPE_HOST);
    assert_int_equal(cuMemUnmap(address, 2 * PIECE), CUDA_SUCCESS);
    assert_int_equal(cuMemAddressFree(address, 2 * PIECE), CUDA_SUCCESS);
    assert_int_equal(cuMemRelease(host), CUDA_SUCCESS);
    assert_int_equal(cuMemRelease(node), CUDA_SUCCESS);
    assert_int_equal(cuMemRelease(card), CUDA_SUCCESS);
    assert_int_equal(used(0), 0);
}

static void memory_lives_until_references_and_mappings_are_gone(void **state)
{
    (void)state;
    CUdeviceptr address = reserve(4 * PIECE);
    CUmemGenericAllocationHandle handle = create(PIECE, 0), again = 0;
    assert_int_equal(cuMemMap(address, PIECE, 0, handle, 0), CUDA_SUCCESS);
    assert_int_equal(cuMemMap(address + 2 * PIECE, PIECE, 0, handle, 0), CUDA_SUCCESS);
    assert_int_equal(cuMemRelease(handle), CUDA_SUCCESS);
    assert_int_equal(cuMemRelease(handle), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(used(0), PIECE);
    assert_int_equal(cuMemMap(address + PIECE, PIECE, 0, handle, 0), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(cuMemUnmap(address, PIECE), CUDA_SUCCESS);
    assert_int_equal(used(0), PIECE);
    assert_int_equal(cuMemRetainAllocationHandle(&again, (void *)(uintptr_t)(address + 2 * PIECE + 5)), CUDA_SUCCESS);
    assert_int_equal(again, handle);
    assert_int_equal(cuMemRetainAllocationHandle(&again, (void *)(uintptr_t)address), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(cuMemUnmap(address + 2 * PIECE, PIECE), CUDA_SUCCESS);
    assert_int_equal(used(0), PIECE);
    assert_int_equal(cuMemRelease(again), CUDA_SUCCESS);
    assert_int_equal(used(0), 0);
    assert_int_equal(cuMemAddressFree(address, 4 * PIECE), CUDA_SUCCESS);
}

static void mappings_are_whole(void **state)
{
    (void)state;
    CUdeviceptr address = reserve(4 * PIECE);
    CUmemGenericAllocationHandle one = create(PIECE, 0), other = create(PIECE, 0);
    assert_int_equal(cuMemMap(address, 2 * MIB, 0, one, 0), CUDA_ERROR_NOT_SUPPORTED);
    assert_int_equal(cuMemMap(address, PIECE - 2 * MIB, 2 * MIB, one, 0), CUDA_ERROR_NOT_SUPPORTED);
    assert_int_equal(cuMemMap(address, 2 * PIECE, 0, one, 0), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(cuMemMap(address + 4096, PIECE, 0, one, 0), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(cuMemMap(address + 4 * PIECE - 2 * MIB, PIECE, 0, one, 0), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(cuMemMap(4096, PIECE, 0, one, 0), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(cuMemMap(address, PIECE, 0, one, 0), CUDA_SUCCESS);
    assert_int_equal(cuMemMap(address + 2 * MIB, PIECE, 0, other, 0), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(cuMemMap(address + 2 * PIECE, PIECE, 0, other, 0), CUDA_SUCCESS);
    assert_int_equal(cuMemAddressFree(address, 4 * PIECE), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(cuMemUnmap(address, PIECE / 2), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(cuMemUnmap(address + PIECE / 2, PIECE), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(cuMemUnmap(address, 0), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(cuMemUnmap(address + PIECE, PIECE), CUDA_SUCCESS); /* nothing there */
    assert_int_equal(cuMemRelease(one), CUDA_SUCCESS);
    assert_int_equal(cuMemRelease(other), CUDA_SUCCESS);
    assert_int_equal(used(0), 2 * PIECE);
    assert_int_equal(cuMemUnmap(address, 4 * PIECE), CUDA_SUCCESS); /* both, and what lies between */
    assert_int_equal(used(0), 0);
    assert_int_equal(cuMemAddressFree(address, 4 * PIECE), CUDA_SUCCESS);
}

static void access_is_given_to_whole_mappings(void **state)
{
    (void)state;
    CUdeviceptr address = reserve(4 * PIECE);
    CUmemGenericAllocationHandle one = create(PIECE, 0), other = create(PIECE, 0);
    unsigned long long flags = 9;
    CUmemLocation here = {CU_MEM_LOCATION_TYPE_DEVICE, 0};
    CUmemAccessDesc nowhere = {.location = {CU_MEM_LOCATION_TYPE_DEVICE, 5}, .flags = 3};
    assert_int_equal(cuMemMap(address, PIECE, 0, one, 0), CUDA_SUCCESS);
    assert_int_equal(cuMemMap(address + PIECE, PIECE, 0, other, 0), CUDA_SUCCESS);
    assert_int_equal(cuMemsetD8_v2(address, 1, 1), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(access_of(address), 0);
    assert_int_equal(cuMemGetAccess(&flags, &here, address + 3 * PIECE), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(cuMemSetAccess(address, PIECE, &nowhere, 1), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(allow(address, 2 * MIB, 3), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(allow(address, 3 * PIECE, 3), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(allow(address, PIECE, 2), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(access_of(address), 0);
    assert_int_equal(allow(address, 2 * PIECE, 3), CUDA_SUCCESS);
    assert_int_equal(cuMemsetD8_v2(address + PIECE - 4, 7, 8), CUDA_SUCCESS); /* over both */
    assert_int_equal(byte_at(address + PIECE + 3), 7);
    assert_int_equal(cuMemsetD8_v2(address, 0, 2 * PIECE + 1), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(cuMemsetD8_v2(address + 2 * PIECE, 0, 1), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(allow(address, PIECE, 1), CUDA_SUCCESS);
    assert_int_equal(access_of(address), 1);
    assert_int_equal(cuMemsetD8_v2(address, 1, 1), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(byte_at(address + PIECE - 1), 7);
    assert_int_equal(allow(address, PIECE, 0), CUDA_SUCCESS);
    unsigned char byte;
    assert_int_equal(cuMemcpyDtoH_v2(&byte, address, 1), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(cuMemUnmap(address, 2 * PIECE), CUDA_SUCCESS);
    assert_int_equal(cuMemRelease(one), CUDA_SUCCESS);
    assert_int_equal(cuMemRelease(other), CUDA_SUCCESS);
    assert_int_equal(cuMemAddressFree(address, 4 * PIECE), CUDA_SUCCESS);
}

static void bytes_are_the_same_through_every_mapping(void **state)
{
    (void)state;
    CUdeviceptr address = reserve(2 * PIECE), elsewhere = reserve(PIECE);
    CUmemGenericAllocationHandle handle = create(PIECE, 0);
    assert_int_equal(cuMemMap(address + PIECE, PIECE, 0, handle, 0), CUDA_SUCCESS);
    assert_int_equal(cuMemMap(elsewhere, PIECE, 0, handle, 0), CUDA_SUCCESS);
    assert_int_equal(allow(address + PIECE, PIECE, 3), CUDA_SUCCESS);
    assert_int_equal(allow(elsewhere, PIECE, 3), CUDA_SUCCESS);
    assert_int_equal(cuMemcpyHtoD_v2(address + PIECE + 12345, "same", 4), CUDA_SUCCESS);
    assert_int_equal(byte_at(elsewhere + 12345), 's');
    assert_int_equal(byte_at(elsewhere + 12349), 0);
    assert_int_equal(cuMemUnmap(address + PIECE, PIECE), CUDA_SUCCESS);
    assert_int_equal(cuMemUnmap(elsewhere, PIECE), CUDA_SUCCESS);
    assert_int_equal(cuMemMap(address, PIECE, 0, handle, 0), CUDA_SUCCESS);
    assert_int_equal(allow(address, PIECE, 3), CUDA_SUCCESS);
    assert_int_equal(byte_at(address + 12348), 'e'); /* they live in the memory, not in the mapping */
    assert_int_equal(cuMemUnmap(address, PIECE), CUDA_SUCCESS);
    assert_int_equal(cuMemRelease(handle), CUDA_SUCCESS);
    handle = create(PIECE, 0);
    assert_int_equal(cuMemMap(address, PIECE, 0, handle, 0), CUDA_SUCCESS);
    assert_int_equal(allow(address, PIECE, 3), CUDA_SUCCESS);
    assert_int_equal(byte_at(address + 12345), 0);
    assert_int_equal(cuMemUnmap(address, PIECE), CUDA_SUCCESS);
    assert_int_equal(cuMemRelease(handle), CUDA_SUCCESS);
    assert_int_equal(cuMemAddressFree(address, 2 * PIECE), CUDA_SUCCESS);
    assert_int_equal(cuMemAddressFree(elsewhere, PIECE), CUDA_SUCCESS);
}

static void mapped_pointers_are_described(void **state)
{
    (void)state;
    CUdeviceptr address = reserve(3 * PIECE), base = 0, start = 0;
    CUmemGenericAllocationHandle handle = create(PIECE, 1);
    CUmemAllocationProp properties;
    CUipcMemHandle ipc;
    size_t bytes = 0, range_bytes = 0;
    int device = -1;
    void *context = &context;
    assert_int_equal(cuMemMap(address + PIECE, PIECE, 0, handle, 0), CUDA_SUCCESS);
    assert_int_equal(cuMemGetAddressRange_v2(&base, &bytes, address + PIECE + 9), CUDA_SUCCESS);
    assert_int_equal(base, address + PIECE);
    assert_int_equal(bytes, PIECE);
    assert_int_equal(cuPointerGetAttribute(&start, 11, base), CUDA_SUCCESS);
    assert_int_equal(cuPointerGetAttribute(&range_bytes, 12, base), CUDA_SUCCESS);
    assert_int_equal(start, address);
    assert_int_equal(range_bytes, 3 * PIECE);
    assert_int_equal(cuPointerGetAttribute(&device, 9, base), CUDA_SUCCESS);
    assert_int_equal(device, 1);
    assert_int_equal(cuPointerGetAttribute(&context, 1, base), CUDA_SUCCESS);
    assert_null(context);
    assert_int_equal(cuPointerGetAttribute(&device, 9, address), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(cuMemFree_v2(base), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(cuIpcGetMemHandle(&ipc, base), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(cuMemGetAllocationPropertiesFromHandle(&properties, handle), CUDA_SUCCESS);
    assert_int_equal(properties.location.id, 1);
    assert_int_equal(cuMemUnmap(base, PIECE), CUDA_SUCCESS);
    assert_int_equal(cuMemRelease(handle), CUDA_SUCCESS);
    assert_int_equal(cuMemAddressFree(address, 3 * PIECE), CUDA_SUCCESS);
}

static void memory_outlives_contexts(void **state)
{
    (void)state;
    CUdeviceptr address = reserve(PIECE);
    CUmemGenericAllocationHandle handle = create(PIECE, 0);
    assert_int_equal(cuMemMap(address, PIECE, 0, handle, 0), CUDA_SUCCESS);
    assert_int_equal(allow(address, PIECE, 3), CUDA_SUCCESS);
    assert_int_equal(cuMemsetD8_v2(address, 3, PIECE), CUDA_SUCCESS);
    assert_int_equal(cuDevicePrimaryCtxReset_v2(0), CUDA_SUCCESS);
    assert_int_equal(stage_figures().device[0].used_bytes, PIECE);
    assert_int_equal(cuDevicePrimaryCtxRetain(&contexts[0], 0), CUDA_SUCCESS);
    assert_int_equal(cuCtxSetCurrent(contexts[0]), CUDA_SUCCESS);
    assert_int_equal(byte_at(address + PIECE - 1), 3);
    assert_int_equal(cuMemRelease(handle), CUDA_SUCCESS);
    assert_int_equal(cuMemUnmap(address, PIECE), CUDA_SUCCESS);
    assert_int_equal(cuMemAddressFree(address, PIECE), CUDA_SUCCESS);
    assert_int_equal(used(0), 0);
}

static void an_import_in_the_same_process_is_another_handle(void **state)
{
    (void)state;
    CUmemGenericAllocationHandle handle = 0, import = 0, closed = create(PIECE, 0);
    CUdeviceptr address = reserve(2 * PIECE);
    size_t free_before = 0, free_now = 0;
    int descriptor = -1;
    assert_int_equal(cuMemExportToShareableHandle(&descriptor, closed, 1, 0), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(cuMemRelease(closed), CUDA_SUCCESS);
    assert_int_equal(cuMemGetInfo_v2(&free_before, NULL), CUDA_SUCCESS);
    assert_int_equal(try_create(PIECE, 1, 0, 1, &handle), CUDA_SUCCESS);
    assert_int_equal(cuMemExportToShareableHandle(&descriptor, handle, 8, 0), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(descriptor, -1);
    assert_int_equal(cuMemImportFromShareableHandle(&import, (void *)(intptr_t)-1, 1), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(cuMemImportFromShareableHandle(&import, (void *)(intptr_t)STDERR_FILENO, 1),
                     CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(cuMemExportToShareableHandle(&descriptor, handle, 1, 0), CUDA_SUCCESS);
    assert_int_equal(cuMemImportFromShareableHandle(&import, (void *)(intptr_t)descriptor, 1), CUDA_SUCCESS);
    assert_true(import != handle);
    assert_int_equal(used(0), PIECE);
    assert_int_equal(cuMemMap(address, PIECE, 0, handle, 0), CUDA_SUCCESS);
    assert_int_equal(cuMemMap(address + PIECE, PIECE, 0, import, 0), CUDA_SUCCESS);
    assert_int_equal(allow(address, 2 * PIECE, 3), CUDA_SUCCESS);
    assert_int_equal(cuMemsetD8_v2(address, 9, PIECE), CUDA_SUCCESS);
    assert_int_equal(byte_at(address + 2 * PIECE - 1), 9);
    assert_int_equal(cuMemUnmap(address, 2 * PIECE), CUDA_SUCCESS);
    assert_int_equal(cuMemRelease(handle), CUDA_SUCCESS);
    assert_int_equal(cuMemRelease(import), CUDA_SUCCESS);
    assert_int_equal(used(0), PIECE); /* the descriptor has it */
    assert_int_equal(cuMemImportFromShareableHandle(&import, (void *)(intptr_t)descriptor, 1), CUDA_SUCCESS);
    assert_int_equal(close(descriptor), 0);
    assert_int_equal(used(0), PIECE); /* the import has it */
    assert_int_equal(cuMemMap(address, PIECE, 0, import, 0), CUDA_SUCCESS);
    assert_int_equal(allow(address, PIECE, 3), CUDA_SUCCESS);
    assert_int_equal(byte_at(address + 5), 9);
    assert_int_equal(cuMemUnmap(address, PIECE), CUDA_SUCCESS);
    assert_int_equal(cuMemRelease(import), CUDA_SUCCESS);
    assert_int_equal(cuMemGetInfo_v2(&free_now, NULL), CUDA_SUCCESS);
    assert_int_equal(free_now, free_before); /* who asks sees it at once */
    assert_int_equal(used(0), 0);
    assert_int_equal(cuMemAddressFree(address, 2 * PIECE), CUDA_SUCCESS);
}

static void external_memory_is_charged_to_nobody(void **state)
{
    (void)state;
    CUmemGenericAllocationHandle handle = 0;
    CUexternalMemory memory = NULL;
    CUdeviceptr address = reserve(PIECE), buffer = 0;
    int descriptor = -1;
    assert_int_equal(try_create(PIECE, 1, 0, 1, &handle), CUDA_SUCCESS);
    assert_int_equal(cuMemExportToShareableHandle(&descriptor, handle, 1, 0), CUDA_SUCCESS);
    CUDA_EXTERNAL_MEMORY_HANDLE_DESC description = {.type = 1, .handle.fd = descriptor, .size = PIECE + 1};
    CUDA_EXTERNAL_MEMORY_BUFFER_DESC part = {.offset = PIECE - 100, .size = 101};
    assert_int_equal(cuImportExternalMemory(&memory, &description), CUDA_ERROR_INVALID_VALUE);
    description.size = PIECE;
    assert_int_equal(cuImportExternalMemory(&memory, &description), CUDA_SUCCESS);
    assert_int_equal(cuExternalMemoryGetMappedBuffer(&buffer, memory, &part), CUDA_ERROR_INVALID_VALUE);
    part.size = 100;
    assert_int_equal(cuExternalMemoryGetMappedBuffer(&buffer, memory, &part), CUDA_SUCCESS);
    assert_int_equal(cuMemMap(address, PIECE, 0, handle, 0), CUDA_SUCCESS);
    assert_int_equal(allow(address, PIECE, 3), CUDA_SUCCESS);
    assert_int_equal(cuMemcpyHtoD_v2(buffer + 99, "x", 1), CUDA_SUCCESS);
    assert_int_equal(byte_at(address + PIECE - 1), 'x');
    assert_int_equal(cuMemsetD8_v2(buffer, 0, 101), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(used(0), PIECE);
    assert_int_equal(cuDestroyExternalMemory(memory), CUDA_SUCCESS);
    assert_int_equal(cuDestroyExternalMemory(memory), CUDA_ERROR_INVALID_HANDLE);
    assert_int_equal(byte_at(buffer + 99), 'x');
    assert_int_equal(cuMemUnmap(address, PIECE), CUDA_SUCCESS);
    assert_int_equal(cuMemRelease(handle), CUDA_SUCCESS);
    assert_int_equal(used(0), PIECE);
    assert_int_equal(cuMemFree_v2(buffer), CUDA_SUCCESS);
    stage_await_used(before[0]);
    assert_int_equal(cuMemAddressFree(address, PIECE), CUDA_SUCCESS);
}

static void multicast_objects_take_nothing_and_keep_what_is_bound(void **state)
{
    (void)state;
    CUmulticastObjectProp properties = {.numDevices = 2, .size = 2 * PIECE};
    CUmemGenericAllocationHandle object = 0, zero = create(PIECE, 0), one = create(PIECE, 1);
    CUmemAllocationProp described;
    CUdeviceptr address = reserve(2 * PIECE);
    size_t granularity = 0;
    assert_int_equal(cuMulticastGetGranularity(&granularity, &properties, 0), CUDA_SUCCESS);
    assert_int_equal(granularity, 2 * MIB);
    assert_int_equal(cuMulticastCreate(&object, &properties), CUDA_SUCCESS);
    assert_int_equal(cuMemGetAllocationPropertiesFromHandle(&described, object), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(cuMulticastAddDevice(object, 0), CUDA_SUCCESS);
    assert_int_equal(cuMulticastAddDevice(object, 0), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(cuMulticastAddDevice(zero, 0), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(cuMulticastBindMem(object, 0, zero, 0, PIECE, 0), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(cuMulticastAddDevice(object, 1), CUDA_SUCCESS);
    assert_int_equal(cuMulticastBindMem(object, 0, zero, 0, PIECE, 0), CUDA_SUCCESS);
    assert_int_equal(cuMulticastBindMem(object, 2 * MIB, zero, 0, PIECE, 0), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(cuMemMap(address, PIECE, 0, one, 0), CUDA_SUCCESS);
    assert_int_equal(cuMulticastBindAddr(object, PIECE, address, PIECE, 0), CUDA_SUCCESS);
    assert_int_equal(cuMemUnmap(address, PIECE), CUDA_SUCCESS);
    assert_int_equal(cuMemRelease(zero), CUDA_SUCCESS);
    assert_int_equal(cuMemRelease(one), CUDA_SUCCESS);
    assert_int_equal(used(0), PIECE);
    assert_int_equal(used(1), PIECE);
    assert_int_equal(cuMulticastUnbind(object, 0, 0, 2 * MIB), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(cuMulticastUnbind(object, 0, 0, PIECE), CUDA_SUCCESS);
    assert_int_equal(used(0), 0);
    assert_int_equal(cuMemMap(address, 2 * PIECE, 0, object, 0), CUDA_SUCCESS);
    assert_int_equal(allow(address, 2 * PIECE, 3), CUDA_SUCCESS);
    assert_int_equal(cuMemsetD8_v2(address, 0, 1), CUDA_ERROR_NOT_SUPPORTED);
    assert_int_equal(cuMemRelease(object), CUDA_SUCCESS);
    assert_int_equal(used(1), PIECE);
    assert_int_equal(cuMemUnmap(address, 2 * PIECE), CUDA_SUCCESS);
    assert_int_equal(used(1), 0);
    assert_int_equal(cuMemAddressFree(address, 2 * PIECE), CUDA_SUCCESS);
}

static void devices_reach_each_other(void **state)
{
    (void)state;
    int can = -1;
    CUdeviceptr here = 0, there = 0;
    assert_int_equal(cuDeviceCanAccessPeer(&can, 0, 1), CUDA_SUCCESS);
    assert_int_equal(can, 1);
    assert_int_equal(cuDeviceCanAccessPeer(&can, 1, 1), CUDA_SUCCESS);
    assert_int_equal(can, 0);
    assert_int_equal(cuCtxDisablePeerAccess(contexts[1]), CUDA_ERROR_PEER_ACCESS_NOT_ENABLED);
    assert_int_equal(cuCtxEnablePeerAccess(contexts[1], 1), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(cuCtxEnablePeerAccess(contexts[0], 0), CUDA_ERROR_PEER_ACCESS_UNSUPPORTED);
    assert_int_equal(cuCtxEnablePeerAccess(contexts[1], 0), CUDA_SUCCESS);
    assert_int_equal(cuCtxEnablePeerAccess(contexts[1], 0), CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED);
    assert_int_equal(cuMemAlloc_v2(&here, 3 * MIB), CUDA_SUCCESS);
    assert_int_equal(cuMemsetD8_v2(here, 8, 3 * MIB), CUDA_SUCCESS);
    assert_int_equal(cuCtxSetCurrent(contexts[1]), CUDA_SUCCESS);
    assert_int_equal(cuMemAlloc_v2(&there, 3 * MIB), CUDA_SUCCESS);
    assert_int_equal(cuCtxSetCurrent(contexts[0]), CUDA_SUCCESS);
    assert_int_equal(used(0), 4 * MIB);
    assert_int_equal(used(1), 4 * MIB);
    assert_int_equal(cuMemcpyPeer(there, contexts[1], here, contexts[0], 3 * MIB), CUDA_SUCCESS);
    assert_int_equal(byte_at(there + 3 * MIB - 1), 8);
    assert_int_equal(cuCtxDisablePeerAccess(contexts[1]), CUDA_SUCCESS);
    assert_int_equal(cuMemFree_v2(here), CUDA_SUCCESS);
    assert_int_equal(cuMemFree_v2(there), CUDA_SUCCESS);
    assert_int_equal(used(0) + used(1), 0);
}

static void *without_context(void *argument)
{
    CUdeviceptr address = reserve(PIECE), linear = 0;
    CUmemGenericAllocationHandle handle = create(PIECE, 1);
    CUmemAccessDesc access = {.location = {CU_MEM_LOCATION_TYPE_DEVICE, 1}, .flags = 3};
    CUexternalMemory memory;
    CUipcMemHandle ipc = {{0}};
    CUstream stream;
    CUevent event;
    CUdevice device;
    CUDA_EXTERNAL_MEMORY_HANDLE_DESC description = {.type = 1, .size = 1};
    unsigned char byte = 0;
    size_t bytes, pitch;
    void *host;
    (void)argument;
    assert_int_equal(cuMemMap(address, PIECE, 0, handle, 0), CUDA_SUCCESS);
    assert_int_equal(cuMemSetAccess(address, PIECE, &access, 1), CUDA_SUCCESS);
    assert_int_equal(cuMemsetD8_v2(address, 0, 1), CUDA_ERROR_INVALID_CONTEXT);
    assert_int_equal(cuMemcpyDtoH_v2(&byte, address, 1), CUDA_ERROR_INVALID_CONTEXT);
    assert_int_equal(cuMemAlloc_v2(&linear, 1), CUDA_ERROR_INVALID_CONTEXT);
    assert_int_equal(cuMemAllocPitch_v2(&linear, &pitch, 8, 8, 4), CUDA_ERROR_INVALID_CONTEXT);
    assert_int_equal(cuMemAllocManaged(&linear, 1, 1), CUDA_ERROR_INVALID_CONTEXT);
    assert_int_equal(cuMemHostAlloc(&host, 1, 0), CUDA_ERROR_INVALID_CONTEXT);
    assert_int_equal(cuMemGetInfo_v2(&bytes, &bytes), CUDA_ERROR_INVALID_CONTEXT);
    assert_int_equal(cuMemGetAddressRange_v2(&linear, &bytes, address), CUDA_ERROR_INVALID_CONTEXT);
    assert_int_equal(cuStreamCreate(&stream, 0), CUDA_ERROR_INVALID_CONTEXT);
    assert_int_equal(cuEventCreate(&event, 0), CUDA_ERROR_INVALID_CONTEXT);
    assert_int_equal(cuCtxSynchronize(), CUDA_ERROR_INVALID_CONTEXT);
    assert_int_equal(cuCtxGetDevice(&device), CUDA_ERROR_INVALID_CONTEXT);
    assert_int_equal(cuCtxEnablePeerAccess(contexts[1], 0), CUDA_ERROR_INVALID_CONTEXT);
    assert_int_equal(cuIpcGetMemHandle(&ipc, address), CUDA_ERROR_INVALID_CONTEXT);
    assert_int_equal(cuIpcOpenMemHandle_v2(&linear, ipc, 1), CUDA_ERROR_INVALID_CONTEXT);
    assert_int_equal(cuImportExternalMemory(&memory, &description), CUDA_ERROR_INVALID_CONTEXT);
    assert_int_equal(cuMemFree_v2(0), CUDA_SUCCESS);
    assert_int_equal(cuMemFree_v2(4096), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(cuMemUnmap(address, PIECE), CUDA_SUCCESS);
    assert_int_equal(cuMemRelease(handle), CUDA_SUCCESS);
    assert_int_equal(cuMemAddressFree(address, PIECE), CUDA_SUCCESS);
    return NULL;
}

static void threads_without_a_context_can_map_and_not_copy(void **state)
{
    (void)state;
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, without_context, NULL), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(used(1), 0);
}

static CUdeviceptr forbidden;

static int pointer_read(void)
{
    signal(SIGSEGV, SIG_DFL);
    close(STDERR_FILENO); /* what a sanitizer would say of it */
    return *(volatile char *)(uintptr_t)forbidden == 0 ? 0 : 1;
}

static void host_cannot_touch_mapped_device_memory(void **state)
{
    (void)state;
    CUmemGenericAllocationHandle handle = create(PIECE, 0);
    forbidden = reserve(PIECE);
    assert_int_equal(cuMemMap(forbidden, PIECE, 0, handle, 0), CUDA_SUCCESS);
    assert_int_equal(allow(forbidden, PIECE, 3), CUDA_SUCCESS);
    int status = stage_child(pointer_read);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
    assert_int_equal(cuMemUnmap(forbidden, PIECE), CUDA_SUCCESS);
    assert_int_equal(cuMemRelease(handle), CUDA_SUCCESS);
    assert_int_equal(cuMemAddressFree(forbidden, PIECE), CUDA_SUCCESS);
}

enum { ROUNDS = 50 };

/* Two threads work in one reservation, each in its half: unmapping waits for the other's copies, and nothing is lost. */
static void *half_use(void *argument)
{
    CUdeviceptr address = *(CUdeviceptr *)argument;
    unsigned char *host = malloc(2 * MIB);
    assert_int_equal(cuCtxSetCurrent(contexts[0]), CUDA_SUCCESS);
    for (int i = 0; i < ROUNDS; i++) {
        CUmemGenericAllocationHandle handle = create(2 * MIB, 0);
        assert_int_equal(cuMemMap(address, 2 * MIB, 0, handle, 0), CUDA_SUCCESS);
        assert_int_equal(cuMemRelease(handle), CUDA_SUCCESS);
        assert_int_equal(allow(address, 2 * MIB, 3), CUDA_SUCCESS);
        assert_int_equal(cuMemsetD8_v2(address, (unsigned char)i, 2 * MIB), CUDA_SUCCESS);
        assert_int_equal(cuMemcpyDtoH_v2(host, address, 2 * MIB), CUDA_SUCCESS);
        assert_int_equal(host[0], i & 255);
        assert_int_equal(host[2 * MIB - 1], i & 255);
        assert_int_equal(cuMemUnmap(address, 2 * MIB), CUDA_SUCCESS);
    }
    free(host);
    return NULL;
}

static void threads_map_and_unmap(void **state)
{
    (void)state;
    pthread_t threads[2];
    CUdeviceptr halves[2];
    halves[0] = reserve(4 * MIB);
    halves[1] = halves[0] + 2 * MIB;
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, half_use, &halves[i]), 0);
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    assert_int_equal(used(0), 0);
    assert_int_equal(cuMemAddressFree(halves[0], 4 * MIB), CUDA_SUCCESS);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(reservations_are_whole_and_cost_nothing),
        cmocka_unit_test(memory_is_charged_to_the_device_named),
        cmocka_unit_test(host_memory_costs_no_card_and_is_the_hosts),
        cmocka_unit_test(memory_lives_until_references_and_mappings_are_gone),
        cmocka_unit_test(mappings_are_whole),
        cmocka_unit_test(access_is_given_to_whole_mappings),
        cmocka_unit_test(bytes_are_the_same_through_every_mapping),
        cmocka_unit_test(mapped_pointers_are_described),
        cmocka_unit_test(memory_outlives_contexts),
        cmocka_unit_test(an_import_in_the_same_process_is_another_handle),
        cmocka_unit_test(external_memory_is_charged_to_nobody),
        cmocka_unit_test(multicast_objects_take_nothing_and_keep_what_is_bound),
        cmocka_unit_test(devices_reach_each_other),
        cmocka_unit_test(threads_without_a_context_can_map_and_not_copy),
        cmocka_unit_test(host_cannot_touch_mapped_device_memory),
        cmocka_unit_test(threads_map_and_unmap),
    };
    return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
