/*
 * Faults ordered by the options fail= and fail-after=: the call returns the error, writes no output and leaves nothing behind,
 * and the next call of that name works. Each case runs in a child of its own, which makes a scene and then the call.
 */
#include "unit/sim_stage.h"

#include <stdbool.h>
#include <stdio.h>
#include <unistd.h>

#define PIECE (20 * MIB)

CUresult cuArrayCreate_v2(CUarray *array, const CUDA_ARRAY_DESCRIPTOR *descriptor);

/* What the calls work on, and where they write. */
static struct {
    CUdeviceptr linear, place, mapped, of_pool;
    CUgraph graph;
    CUmemGenericAllocationHandle mapped_handle, handle, object;
    CUexternalMemory external;
    int descriptor, external_descriptor;
} scene;
static struct {
    CUdeviceptr address;
    CUdeviceptr_v1 low;
    CUmemGenericAllocationHandle handle;
    CUcontext context;
    CUexternalMemory external;
    CUarray array;
    CUmodule module;
    CUmemoryPool pool;
    CUgraphExec exec;
    size_t bytes;
    int descriptor;
} out;

static const CUmemAllocationProp properties = {.type = CU_MEM_ALLOCATION_TYPE_PINNED,
                                               .requestedHandleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR,
                                               .location = {CU_MEM_LOCATION_TYPE_DEVICE, 0}};
static const CUmulticastObjectProp object_properties = {.numDevices = 1, .size = 2 * PIECE};

static const CUmemPoolProps pool_properties = {.allocType = CU_MEM_ALLOCATION_TYPE_PINNED,
                                               .location = {CU_MEM_LOCATION_TYPE_DEVICE, 0}};

static int scene_make(void)
{
    CUcontext context;
    int other = -1;
    must(cuInit(0) == CUDA_SUCCESS && cuDevicePrimaryCtxRetain(&context, 0) == CUDA_SUCCESS);
    must(cuCtxSetCurrent(context) == CUDA_SUCCESS && cuMemAlloc_v2(&scene.linear, 3 * MIB) == CUDA_SUCCESS);
    must(cuMemAddressReserve(&scene.place, 2 * PIECE, 0, 0, 0) == CUDA_SUCCESS);
    must(cuMemAddressReserve(&scene.mapped, PIECE, 0, 0, 0) == CUDA_SUCCESS);
    must(cuMemCreate(&scene.handle, PIECE, &properties, 0) == CUDA_SUCCESS);
    must(cuMemCreate(&scene.mapped_handle, PIECE, &properties, 0) == CUDA_SUCCESS);
    must(cuMemMap(scene.mapped, PIECE, 0, scene.mapped_handle, 0) == CUDA_SUCCESS);
    must(cuMemExportToShareableHandle(&scene.descriptor, scene.handle, 1, 0) == CUDA_SUCCESS);
    must(cuMemExportToShareableHandle(&scene.external_descriptor, scene.handle, 1, 0) == CUDA_SUCCESS);
    must(cuMemExportToShareableHandle(&other, scene.handle, 1, 0) == CUDA_SUCCESS);
    CUDA_EXTERNAL_MEMORY_HANDLE_DESC description = {.type = 1, .handle.fd = other, .size = PIECE};
    must(cuImportExternalMemory(&scene.external, &description) == CUDA_SUCCESS);
    must(cuMulticastCreate(&scene.object, &object_properties) == CUDA_SUCCESS);
    must(cuMulticastAddDevice(scene.object, 0) == CUDA_SUCCESS);
    must(cuMemAllocAsync(&scene.of_pool, MIB, NULL) == CUDA_SUCCESS && cuGraphCreate(&scene.graph, 0) == CUDA_SUCCESS);
    memset(&out, 0x77, sizeof(out));
    return 0;
}

static CUresult call_alloc(void)
{
    return cuMemAlloc_v2(&out.address, PIECE);
}

static CUresult call_alloc_low(void)
{
    return cuMemAlloc(&out.low, 1000);
}

static CUresult call_pitch(void)
{
    return cuMemAllocPitch_v2(&out.address, &out.bytes, 4096, 4096, 4);
}

static CUresult call_managed(void)
{
    return cuMemAllocManaged(&out.address, PIECE, 1);
}

static CUresult call_array(void)
{
    CUDA_ARRAY_DESCRIPTOR descriptor = {.Width = 4096, .Height = 4096, .Format = CU_AD_FORMAT_FLOAT, .NumChannels = 1};
    return cuArrayCreate_v2(&out.array, &descriptor);
}

static CUresult call_module(void)
{
    return cuModuleLoadData(&out.module, ".version 8.0\n.target sm_90\n.address_size 64\n.global .b8 big[67108864];\n");
}

static CUresult call_free(void)
{
    return cuMemFree_v2(scene.linear);
}

static CUresult call_reserve(void)
{
    return cuMemAddressReserve(&out.address, PIECE, 0, 0, 0);
}

static CUresult call_create(void)
{
    return cuMemCreate(&out.handle, PIECE, &properties, 0);
}

static CUresult call_map(void)
{
    return cuMemMap(scene.place, PIECE, 0, scene.handle, 0);
}

static CUresult call_unmap(void)
{
    return cuMemUnmap(scene.mapped, PIECE);
}

static CUresult call_release(void)
{
    return cuMemRelease(scene.mapped_handle);
}

static CUresult call_retain(void)
{
    return cuMemRetainAllocationHandle(&out.handle, (void *)(uintptr_t)scene.mapped);
}

static CUresult call_access(void)
{
    CUmemAccessDesc access = {.location = {CU_MEM_LOCATION_TYPE_DEVICE, 0}, .flags = 3};
    return cuMemSetAccess(scene.mapped, PIECE, &access, 1);
}

static CUresult call_export(void)
{
    return cuMemExportToShareableHandle(&out.descriptor, scene.handle, 1, 0);
}

static CUresult call_import(void)
{
    return cuMemImportFromShareableHandle(&out.handle, (void *)(intptr_t)scene.descriptor, 1);
}

static CUresult call_object(void)
{
    return cuMulticastCreate(&out.handle, &object_properties);
}

static CUresult call_bind(void)
{
    return cuMulticastBindMem(scene.object, 0, scene.handle, 0, PIECE, 0);
}

static CUresult call_external(void)
{
    CUDA_EXTERNAL_MEMORY_HANDLE_DESC description = {.type = 1, .handle.fd = scene.external_descriptor, .size = PIECE};
    return cuImportExternalMemory(&out.external, &description);
}

static CUresult call_buffer(void)
{
    CUDA_EXTERNAL_MEMORY_BUFFER_DESC description = {.size = PIECE};
    return cuExternalMemoryGetMappedBuffer(&out.address, scene.external, &description);
}

static CUresult call_context(void)
{
    return cuCtxCreate_v2(&out.context, 0, 0);
}

static CUresult call_primary(void)
{
    return cuDevicePrimaryCtxRetain(&out.context, 1);
}

static CUresult call_async(void)
{
    return cuMemAllocAsync(&out.address, 40 * MIB, NULL);
}

static CUresult call_free_async(void)
{
    return cuMemFreeAsync(scene.of_pool, NULL);
}

static CUresult call_pool(void)
{
    return cuMemPoolCreate(&out.pool, &pool_properties);
}

static CUresult call_instantiate(void)
{
    return cuGraphInstantiateWithFlags(&out.exec, scene.graph, 0);
}

static const struct fault_case {
    const char *name;
    CUresult (*call)(void);
    unsigned nth; /* which call of that name this is, after the scene's */
} cases[] = {
    {"cuMemAlloc_v2", call_alloc, 2},
    {"cuMemAlloc", call_alloc_low, 1},
    {"cuMemAllocPitch_v2", call_pitch, 1},
    {"cuMemAllocManaged", call_managed, 1},
    {"cuArrayCreate_v2", call_array, 1},
    {"cuModuleLoadData", call_module, 1},
    {"cuMemFree_v2", call_free, 1},
    {"cuMemAddressReserve", call_reserve, 3},
    {"cuMemCreate", call_create, 3},
    {"cuMemMap", call_map, 2},
    {"cuMemUnmap", call_unmap, 1},
    {"cuMemRelease", call_release, 1},
    {"cuMemRetainAllocationHandle", call_retain, 1},
    {"cuMemSetAccess", call_access, 1},
    {"cuMemExportToShareableHandle", call_export, 4},
    {"cuMemImportFromShareableHandle", call_import, 1},
    {"cuMulticastCreate", call_object, 2},
    {"cuMulticastBindMem", call_bind, 1},
    {"cuImportExternalMemory", call_external, 2},
    {"cuExternalMemoryGetMappedBuffer", call_buffer, 1},
    {"cuMemAllocAsync", call_async, 2},
    {"cuMemFreeAsync", call_free_async, 1},
    {"cuMemPoolCreate", call_pool, 1},
    {"cuGraphInstantiateWithFlags", call_instantiate, 1},
    {"cuCtxCreate_v2", call_context, 1},
    {"cuDevicePrimaryCtxRetain", call_primary, 2},
};
static const struct fault_case *current;
static const char *option;

static int case_body(void)
{
    char text[128];
    CUcontext before, now;
    snprintf(text, sizeof(text), "devices=2,%s=%s:%u:999", option, current->name, current->nth);
    setenv("CUBUDGET_SIMULATE", text, 1);
    must(scene_make() == 0);
    struct sim_figures figures = stage_figures(), after;
    unsigned char untouched[sizeof(out)];
    memcpy(untouched, &out, sizeof(out));
    must(cuCtxGetCurrent(&before) == CUDA_SUCCESS);
    must(current->call() == CUDA_ERROR_UNKNOWN);
    must(memcmp(untouched, &out, sizeof(out)) == 0);
    after = stage_figures();
    must(after.device[0].used_bytes == figures.device[0].used_bytes);
    must(after.device[1].used_bytes == figures.device[1].used_bytes);
    must(cuCtxGetCurrent(&now) == CUDA_SUCCESS && now == before);
    must(strcmp(option, "fail") != 0 || after.device[0].peak_bytes == figures.device[0].peak_bytes);
    must(current->call() == CUDA_SUCCESS);
    return 0;
}

static int setup(void **state)
{
    (void)state;
    return stage_open("devices=2,release=0");
}

static int teardown(void **state)
{
    (void)state;
    return stage_close();
}

static void all_cases(const char *with)
{
    option = with;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        current = &cases[i];
        if (stage_child(case_body) != 0)
            fail_msg("%s of %s", option, current->name);
        stage_await_used(0); /* what this child held would else come back under the next one's eyes */
    }
}

static void a_call_that_fails_before_did_nothing(void **state)
{
    (void)state;
    all_cases("fail");
}

static void a_call_that_fails_after_leaves_nothing(void **state)
{
    (void)state;
    all_cases("fail-after");
}

/* The card had the bytes for a moment, which is what tells the two kinds apart. */
static int peak_body(void)
{
    CUmemGenericAllocationHandle handle;
    CUcontext context;
    setenv("CUBUDGET_SIMULATE", "fail-after=cuMemCreate:0:2", 1);
    must(cuInit(0) == CUDA_SUCCESS && cuDevicePrimaryCtxRetain(&context, 0) == CUDA_SUCCESS);
    uint64_t peak = stage_figures().device[0].peak_bytes;
    must(cuMemCreate(&handle, PIECE, &properties, 0) == CUDA_ERROR_OUT_OF_MEMORY);
    must(cuMemCreate(&handle, PIECE, &properties, 0) == CUDA_ERROR_OUT_OF_MEMORY);
    must(stage_figures().device[0].peak_bytes == peak + PIECE);
    return 0;
}

static void a_call_that_fails_after_was_made(void **state)
{
    (void)state;
    assert_int_equal(stage_child(peak_body), 0);
}

/* A graph's launch that fails midway leaves the device's reserve grown, as one does that the card has no room for. */
static int launch_body(void)
{
    CUgraph graph;
    CUgraphNode node;
    CUgraphExec exec;
    CUcontext context;
    CUDA_MEM_ALLOC_NODE_PARAMS parameters = {.poolProps = pool_properties, .bytesize = PIECE};
    setenv("CUBUDGET_SIMULATE", "fail=cuGraphLaunch:1:999,fail-after=cuGraphLaunch:2:999", 1);
    must(cuInit(0) == CUDA_SUCCESS && cuDevicePrimaryCtxRetain(&context, 0) == CUDA_SUCCESS);
    must(cuCtxSetCurrent(context) == CUDA_SUCCESS && cuGraphCreate(&graph, 0) == CUDA_SUCCESS);
    must(cuGraphAddMemAllocNode(&node, graph, NULL, 0, &parameters) == CUDA_SUCCESS);
    must(cuGraphInstantiateWithFlags(&exec, graph, 0) == CUDA_SUCCESS);
    uint64_t used = stage_figures().device[0].used_bytes;
    must(cuGraphLaunch(exec, NULL) == CUDA_ERROR_UNKNOWN);
    must(stage_figures().device[0].used_bytes == used);
    must(cuGraphLaunch(exec, NULL) == CUDA_ERROR_UNKNOWN);
    must(stage_figures().device[0].used_bytes == used + 32 * MIB);
    must(cuMemFree_v2(parameters.dptr) == CUDA_ERROR_INVALID_VALUE); /* nothing ran */
    must(cuGraphLaunch(exec, NULL) == CUDA_SUCCESS && cuMemFree_v2(parameters.dptr) == CUDA_SUCCESS);
    must(cuDeviceGraphMemTrim(0) == CUDA_SUCCESS && stage_figures().device[0].used_bytes == used);
    return 0;
}

static void a_launch_that_fails_after_leaves_the_reserve(void **state)
{
    (void)state;
    assert_int_equal(stage_child(launch_body), 0);
}

/* One function of two names is counted by the name called, whatever else was called between. */
static int names_body(void)
{
    CUcontext context;
    char byte;
    setenv("CUBUDGET_SIMULATE",
           "fail=cuDevicePrimaryCtxRelease:1:999,fail=cuDevicePrimaryCtxReset_v2:2:999,"
           "fail=cuMemcpyHtoDAsync_v2_ptsz:1:700",
           1);
    must(cuInit(0) == CUDA_SUCCESS);
    for (int i = 0; i < 3; i++)
        must(cuDevicePrimaryCtxRetain(&context, 0) == CUDA_SUCCESS);
    must(cuCtxSetCurrent(context) == CUDA_SUCCESS);
    must(cuDevicePrimaryCtxRelease_v2(0) == CUDA_SUCCESS);
    must(cuDevicePrimaryCtxRelease(0) == CUDA_ERROR_UNKNOWN);
    must(cuDevicePrimaryCtxRelease(0) == CUDA_SUCCESS);
    must(cuMemcpyHtoDAsync_v2_ptsz(0, &byte, 0, NULL) == CUDA_ERROR_ILLEGAL_ADDRESS);
    must(cuMemcpyHtoDAsync_v2_ptsz(0, &byte, 0, NULL) == CUDA_SUCCESS);
    must(cuDevicePrimaryCtxReset(0) == CUDA_SUCCESS);
    must(cuDevicePrimaryCtxReset_v2(0) == CUDA_SUCCESS);
    must(cuDevicePrimaryCtxReset(0) == CUDA_SUCCESS);
    must(cuDevicePrimaryCtxReset_v2(0) == CUDA_ERROR_UNKNOWN);
    return 0;
}

static void calls_are_counted_by_the_name_called(void **state)
{
    (void)state;
    assert_int_equal(stage_child(names_body), 0);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_call_that_fails_before_did_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(a_call_that_fails_after_leaves_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(a_call_that_fails_after_was_made, setup, teardown),
        cmocka_unit_test_setup_teardown(a_launch_that_fails_after_leaves_the_reserve, setup, teardown),
        cmocka_unit_test_setup_teardown(calls_are_counted_by_the_name_called, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
