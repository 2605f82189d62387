/* The simulated driver's stream capture: what becomes a node, what may not be called meanwhile, and how it ends. Errors are
 * those of a card where they were measured. */
#include "unit/sim_stage.h"

#include <pthread.h>
#include <stdbool.h>

#define CONTEXT_BYTES (527 * MIB)

static CUcontext context;
static CUstream stream, other;
static CUdeviceptr linear;

static uint64_t used(void)
{
    return stage_figures().device[0].used_bytes - CONTEXT_BYTES - 2 * MIB;
}

static int group_setup(void **state)
{
    (void)state;
    if (stage_open("") != 0 || cuInit(0) != CUDA_SUCCESS || cuDevicePrimaryCtxRetain(&context, 0) != CUDA_SUCCESS)
        return -1;
    if (cuCtxSetCurrent(context) != CUDA_SUCCESS || cuStreamCreate(&stream, 1) != CUDA_SUCCESS)
        return -1;
    return cuStreamCreate(&other, 1) != CUDA_SUCCESS || cuMemAlloc_v2(&linear, 4096) != CUDA_SUCCESS ? -1 : 0;
}

static int group_teardown(void **state)
{
    (void)state;
    return stage_close();
}

static int nothing_is_left(void **state)
{
    (void)state;
    if (cuCtxSynchronize() != CUDA_SUCCESS || cuDeviceGraphMemTrim(0) != CUDA_SUCCESS)
        return -1;
    return used() == 0 ? 0 : -1;
}

static int status(CUstream of)
{
    int found = -1;
    assert_int_equal(cuStreamIsCapturing(of, &found), CUDA_SUCCESS);
    return found;
}

static void begin(int mode)
{
    assert_int_equal(cuStreamBeginCapture_v2(stream, mode), CUDA_SUCCESS);
    assert_int_equal(status(stream), CU_STREAM_CAPTURE_STATUS_ACTIVE);
}

static CUgraph finish(void)
{
    CUgraph graph = NULL;
    assert_int_equal(cuStreamEndCapture(stream, &graph), CUDA_SUCCESS);
    assert_non_null(graph);
    assert_int_equal(status(stream), CU_STREAM_CAPTURE_STATUS_NONE);
    return graph;
}

static void run(CUgraph graph)
{
    CUgraphExec exec = NULL;
    assert_int_equal(cuGraphInstantiateWithFlags(&exec, graph, 0), CUDA_SUCCESS);
    assert_int_equal(cuGraphLaunch(exec, stream), CUDA_SUCCESS);
    assert_int_equal(cuStreamSynchronize(stream), CUDA_SUCCESS);
    assert_int_equal(cuGraphExecDestroy(exec), CUDA_SUCCESS);
    assert_int_equal(cuGraphDestroy(graph), CUDA_SUCCESS);
}

static unsigned char byte_at(CUdeviceptr address)
{
    unsigned char byte = 0;
    assert_int_equal(cuMemcpyDtoH_v2(&byte, address, 1), CUDA_SUCCESS);
    return byte;
}

static size_t node_count(CUgraph graph)
{
    size_t count = 0;
    assert_int_equal(cuGraphGetNodes(graph, NULL, &count), CUDA_SUCCESS);
    return count;
}

static void work_becomes_nodes(void **state)
{
    (void)state;
    CUmodule module = NULL;
    CUfunction fill = NULL;
    assert_int_equal(cuModuleLoadData(&module, "module"), CUDA_SUCCESS);
    assert_int_equal(cuModuleGetFunction(&fill, module, "fill_u32"), CUDA_SUCCESS);
    assert_int_equal(cuMemsetD8_v2(linear, 0, 4096), CUDA_SUCCESS);
    uint64_t to = linear, count = 4;
    unsigned value = 0x01010101;
    void *arguments[] = {&to, &value, &count};
    begin(CU_STREAM_CAPTURE_MODE_GLOBAL);
    assert_int_equal(cuLaunchKernel(fill, 1, 1, 1, 32, 1, 1, 0, stream, arguments, NULL), CUDA_SUCCESS);
    assert_int_equal(cuMemsetD8Async(linear + 4, 2, 4, stream), CUDA_SUCCESS);
    assert_int_equal(cuMemcpyDtoDAsync_v2(linear + 100, linear, 8, stream), CUDA_SUCCESS);
    assert_int_equal(cuMemcpyHtoDAsync_v2_ptsz(linear, "x", 1, stream), CUDA_SUCCESS);
    CUgraph graph = finish();
    assert_int_equal(byte_at(linear), 0);
    assert_int_equal(node_count(graph), 4);
    run(graph);
    assert_int_equal(byte_at(linear), 'x');
    assert_int_equal(byte_at(linear + 4), 2);
    assert_int_equal(byte_at(linear + 100), 1);
    assert_int_equal(byte_at(linear + 107), 2);
    assert_int_equal(cuModuleUnload(module), CUDA_SUCCESS);
}

static void allocations_are_the_graphs_and_not_the_pools(void **state)
{
    (void)state;
    CUdeviceptr address = 0, more = 0, of_pool = 0;
    CUmemoryPool pool = NULL;
    uint64_t reserved = 7;
    assert_int_equal(cuDeviceGetDefaultMemPool(&pool, 0), CUDA_SUCCESS);
    assert_int_equal(cuMemAllocAsync(&of_pool, MIB, stream), CUDA_SUCCESS);
    begin(CU_STREAM_CAPTURE_MODE_GLOBAL);
    assert_int_equal(cuMemFreeAsync(of_pool, stream), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(status(stream), CU_STREAM_CAPTURE_STATUS_ACTIVE);
    assert_int_equal(cuMemAllocAsync(&address, 12 * MIB, stream), CUDA_SUCCESS);
    assert_int_equal(cuMemAllocFromPoolAsync(&more, 40 * MIB, pool, stream), CUDA_SUCCESS);
    assert_int_equal(cuMemFreeAsync(more, stream), CUDA_SUCCESS);
    assert_int_equal(cuMemFreeAsync(more, stream), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(status(stream), CU_STREAM_CAPTURE_STATUS_ACTIVE);
    assert_int_equal(cuMemsetD8Async(address, 5, 12 * MIB, stream), CUDA_SUCCESS);
    CUgraph graph = finish();
    assert_int_equal(cuMemFree_v2(of_pool), CUDA_SUCCESS);
    assert_int_equal(used(), 0);
    run(graph);
    assert_int_equal(cuMemPoolGetAttribute(pool, CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT, &reserved), CUDA_SUCCESS);
    assert_int_equal(reserved, 0);
    assert_true(used() >= 64 * MIB);
    assert_int_equal(byte_at(address + 12 * MIB - 1), 5);
    assert_int_equal(cuDeviceGraphMemTrim(0), CUDA_SUCCESS);
    assert_int_equal(used(), 32 * MIB);
    assert_int_equal(cuMemFreeAsync(address, stream), CUDA_SUCCESS);
}

static CUresult wait_for_it(void)
{
    return cuStreamSynchronize(stream);
}

static CUresult look_at_it(void)
{
    return cuStreamQuery(stream);
}

static CUresult wait_for_all(void)
{
    return cuCtxSynchronize();
}

static CUresult wait_for_other(void)
{
    return cuStreamSynchronize(other);
}

static CUresult allocate(void)
{
    CUdeviceptr address;
    CUresult result = cuMemAlloc_v2(&address, MIB);
    return result == CUDA_SUCCESS ? cuMemFree_v2(address) : result;
}

static CUresult free_nothing(void)
{
    return cuMemFree_v2(0);
}

static CUresult allocate_elsewhere(void)
{
    CUdeviceptr address;
    CUresult result = cuMemAllocAsync(&address, MIB, other);
    return result == CUDA_SUCCESS ? cuMemFreeAsync(address, other) : result;
}

static CUresult copy_now(void)
{
    return cuMemcpyHtoD_v2(linear, "abcd", 4);
}

static CUresult set_elsewhere(void)
{
    return cuMemsetD8Async(linear, 1, 4, NULL);
}

static CUresult trim_graphs(void)
{
    return cuDeviceGraphMemTrim(0);
}

static CUresult trim_pool(void)
{
    CUmemoryPool pool = NULL;
    CUresult result = cuDeviceGetDefaultMemPool(&pool, 0);
    return result == CUDA_SUCCESS ? cuMemPoolTrimTo(pool, 0) : result;
}

static void calls_that_may_not_be_made_end_it(void **state)
{
    (void)state;
    static const struct {
        CUresult (*call)(void);
        bool global, relaxed; /* whether it ends a capture of that mode */
    } cases[] = {
        {wait_for_it, true, true},         {look_at_it, true, true},    {wait_for_all, true, true},
        {wait_for_other, true, false},     {allocate, true, false},     {free_nothing, true, false},
        {allocate_elsewhere, true, false}, {trim_pool, true, false},    {copy_now, false, false},
        {set_elsewhere, false, false},     {trim_graphs, false, false},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        for (int relaxed = 0; relaxed < 2; relaxed++) {
            bool ends = relaxed ? cases[i].relaxed : cases[i].global;
            CUgraph graph = (CUgraph)(uintptr_t)77;
            begin(relaxed ? CU_STREAM_CAPTURE_MODE_RELAXED : CU_STREAM_CAPTURE_MODE_GLOBAL);
            assert_int_equal(cases[i].call(), ends ? CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED : CUDA_SUCCESS);
            assert_int_equal(status(stream),
                             ends ? CU_STREAM_CAPTURE_STATUS_INVALIDATED : CU_STREAM_CAPTURE_STATUS_ACTIVE);
            if (ends)
                assert_int_equal(cuMemsetD8Async(linear, 1, 4, stream), CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
            assert_int_equal(cuStreamEndCapture(stream, &graph),
                             ends ? CUDA_ERROR_STREAM_CAPTURE_INVALIDATED : CUDA_SUCCESS);
            assert_int_equal(graph == NULL, ends);
            if (graph)
                assert_int_equal(cuGraphDestroy(graph), CUDA_SUCCESS);
        }
    assert_int_equal(cuMemFreeAsync(0, other), CUDA_SUCCESS);
    assert_int_equal(cuStreamSynchronize(other), CUDA_SUCCESS);
}

static void a_thread_can_know_better(void **state)
{
    (void)state;
    int mode = CU_STREAM_CAPTURE_MODE_RELAXED;
    begin(CU_STREAM_CAPTURE_MODE_GLOBAL);
    assert_int_equal(cuThreadExchangeStreamCaptureMode(&mode), CUDA_SUCCESS);
    assert_int_equal(mode, CU_STREAM_CAPTURE_MODE_GLOBAL);
    assert_int_equal(allocate(), CUDA_SUCCESS);
    assert_int_equal(cuThreadExchangeStreamCaptureMode(&mode), CUDA_SUCCESS);
    assert_int_equal(mode, CU_STREAM_CAPTURE_MODE_RELAXED);
    assert_int_equal(cuGraphDestroy(finish()), CUDA_SUCCESS);
    mode = 3;
    assert_int_equal(cuThreadExchangeStreamCaptureMode(&mode), CUDA_ERROR_INVALID_VALUE);
}

struct elsewhere {
    CUresult allocated, ended;
};

static void *thread_run(void *argument)
{
    struct elsewhere *elsewhere = argument;
    CUgraph graph = NULL;
    (void)cuCtxSetCurrent(context);
    elsewhere->allocated = allocate();
    elsewhere->ended = cuStreamEndCapture(stream, &graph);
    return NULL;
}

static void captures_belong_to_their_thread(void **state)
{
    (void)state;
    pthread_t thread;
    struct elsewhere elsewhere = {-1, -1};
    begin(CU_STREAM_CAPTURE_MODE_THREAD_LOCAL);
    assert_int_equal(pthread_create(&thread, NULL, thread_run, &elsewhere), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(elsewhere.allocated, CUDA_SUCCESS);
    assert_int_equal(elsewhere.ended, CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD);
    assert_int_equal(cuGraphDestroy(finish()), CUDA_SUCCESS);
}

static void beginning_and_ending_are_checked(void **state)
{
    (void)state;
    CUgraph graph = NULL, seen = NULL;
    const CUgraphNode *nodes = NULL;
    uint64_t id = 0;
    size_t count = 7;
    int found = 7;
    assert_int_equal(cuStreamBeginCapture_v2(NULL, 0), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    assert_int_equal(cuStreamEndCapture(stream, &graph), CUDA_ERROR_ILLEGAL_STATE);
    assert_int_equal(cuStreamBeginCapture_v2(stream, 3), CUDA_ERROR_INVALID_VALUE);
    begin(CU_STREAM_CAPTURE_MODE_GLOBAL);
    assert_int_equal(cuStreamBeginCapture_v2(stream, 0), CUDA_ERROR_ILLEGAL_STATE);
    assert_int_equal(cuMemsetD8Async(linear, 1, 4, stream), CUDA_SUCCESS);
    assert_int_equal(cuStreamGetCaptureInfo_v2(stream, &found, &id, &seen, &nodes, &count), CUDA_SUCCESS);
    assert_int_equal(found, CU_STREAM_CAPTURE_STATUS_ACTIVE);
    assert_int_equal(count, 1);
    assert_true(id != 0);
    CUgraphNode last = nodes[0];
    graph = finish();
    assert_ptr_equal(graph, seen);
    CUgraphNode only = NULL;
    count = 1;
    assert_int_equal(cuGraphGetNodes(graph, &only, &count), CUDA_SUCCESS);
    assert_ptr_equal(only, last);
    assert_int_equal(cuGraphDestroy(graph), CUDA_SUCCESS);
    assert_int_equal(cuStreamBeginCapture_v2(CU_STREAM_PER_THREAD, 0), CUDA_SUCCESS);
    assert_int_equal(cuStreamEndCapture(CU_STREAM_PER_THREAD, &graph), CUDA_SUCCESS);
    assert_int_equal(cuGraphDestroy(graph), CUDA_SUCCESS);
}

static void other_streams_join_by_events(void **state)
{
    (void)state;
    CUevent fork = NULL, join = NULL;
    CUgraph graph = NULL;
    assert_int_equal(cuEventCreate(&fork, CU_EVENT_DISABLE_TIMING), CUDA_SUCCESS);
    assert_int_equal(cuEventCreate(&join, CU_EVENT_DISABLE_TIMING), CUDA_SUCCESS);
    for (int joins = 0; joins < 2; joins++) {
        assert_int_equal(cuMemsetD8_v2(linear, 0, 16), CUDA_SUCCESS);
        begin(CU_STREAM_CAPTURE_MODE_GLOBAL);
        assert_int_equal(cuMemsetD8Async(linear, 1, 8, stream), CUDA_SUCCESS);
        assert_int_equal(cuEventRecord(fork, stream), CUDA_SUCCESS);
        assert_int_equal(cuEventQuery(fork), CUDA_ERROR_CAPTURED_EVENT);
        assert_int_equal(cuStreamWaitEvent(other, fork, 0), CUDA_SUCCESS);
        assert_int_equal(status(other), CU_STREAM_CAPTURE_STATUS_ACTIVE);
        assert_int_equal(cuMemsetD8Async(linear, 2, 4, other), CUDA_SUCCESS);
        assert_int_equal(cuStreamEndCapture(other, &graph), CUDA_ERROR_STREAM_CAPTURE_UNMATCHED);
        if (!joins) {
            assert_int_equal(cuStreamEndCapture(stream, &graph), CUDA_ERROR_STREAM_CAPTURE_UNJOINED);
            assert_null(graph);
            assert_int_equal(status(other), CU_STREAM_CAPTURE_STATUS_NONE);
            continue;
        }
        assert_int_equal(cuEventRecord(join, other), CUDA_SUCCESS);
        assert_int_equal(cuStreamWaitEvent(stream, join, 0), CUDA_SUCCESS);
        assert_int_equal(cuMemcpyDtoDAsync_v2(linear + 8, linear, 8, stream), CUDA_SUCCESS);
        graph = finish();
        assert_int_equal(byte_at(linear), 0);
        run(graph);
        assert_int_equal(byte_at(linear + 8), 2);
        assert_int_equal(byte_at(linear + 12), 1);
    }
    assert_int_equal(cuEventRecord(join, other), CUDA_SUCCESS); /* outside */
    begin(CU_STREAM_CAPTURE_MODE_GLOBAL);
    assert_int_equal(cuStreamWaitEvent(stream, join, 0), CUDA_ERROR_STREAM_CAPTURE_ISOLATION);
    assert_int_equal(cuStreamEndCapture(stream, &graph), CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
    assert_int_equal(cuEventDestroy_v2(fork), CUDA_SUCCESS);
    assert_int_equal(cuEventDestroy_v2(join), CUDA_SUCCESS);
}

static void streams_and_contexts_take_their_capture_along(void **state)
{
    (void)state;
    CUstream short_lived = NULL;
    CUcontext second = NULL;
    CUdeviceptr address = 0;
    assert_int_equal(cuStreamCreate(&short_lived, 1), CUDA_SUCCESS);
    assert_int_equal(cuStreamBeginCapture_v2(short_lived, 0), CUDA_SUCCESS);
    assert_int_equal(cuMemAllocAsync(&address, MIB, short_lived), CUDA_SUCCESS);
    assert_int_equal(cuStreamDestroy_v2(short_lived), CUDA_SUCCESS);
    assert_int_equal(allocate(), CUDA_SUCCESS);
    assert_int_equal(cuCtxCreate_v2(&second, 0, 0), CUDA_SUCCESS);
    assert_int_equal(cuStreamCreate(&short_lived, 1), CUDA_SUCCESS);
    assert_int_equal(cuStreamBeginCapture_v2(short_lived, 0), CUDA_SUCCESS);
    assert_int_equal(cuMemAllocAsync(&address, MIB, short_lived), CUDA_SUCCESS);
    assert_int_equal(cuCtxDestroy_v2(second), CUDA_SUCCESS);
    assert_int_equal(cuCtxSetCurrent(context), CUDA_SUCCESS);
    assert_int_equal(allocate(), CUDA_SUCCESS);
}

#define CAPTURE_TEST(name) cmocka_unit_test_setup_teardown(name, NULL, nothing_is_left)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CAPTURE_TEST(work_becomes_nodes),
        CAPTURE_TEST(allocations_are_the_graphs_and_not_the_pools),
        CAPTURE_TEST(calls_that_may_not_be_made_end_it),
        CAPTURE_TEST(a_thread_can_know_better),
        CAPTURE_TEST(captures_belong_to_their_thread),
        CAPTURE_TEST(beginning_and_ending_are_checked),
        CAPTURE_TEST(other_streams_join_by_events),
        CAPTURE_TEST(streams_and_contexts_take_their_capture_along),
    };
    return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
