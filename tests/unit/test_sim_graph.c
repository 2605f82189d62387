/* The simulated driver's graphs: what their memory costs, when, and what they do. Figures and errors are those of a card. */
#include "unit/sim_context.h"

#include <pthread.h>

static CUstream stream;

static int group_setup(void **state)
{
    (void)state;
    return context_open("devices=2") != 0 || cuStreamCreate(&stream, 1) != CUDA_SUCCESS ? -1 : 0;
}

/* Each test leaves nothing but what a trim gives back. */
static int nothing_is_left(void **state)
{
    (void)state;
    return cuDeviceGraphMemTrim(0) == CUDA_SUCCESS && used() == 0 && stage_figures().device[1].used_bytes == 0 ? 0 : -1;
}

static uint64_t attribute(int which)
{
    uint64_t value = 7;
    assert_int_equal(cuDeviceGetGraphMemAttribute(0, which, &value), CUDA_SUCCESS);
    return value / MIB;
}

/* What the driver says is used and reserved, in MiB; the card agrees. */
static void assert_reserve(uint64_t used_mib, uint64_t reserved_mib)
{
    assert_int_equal(attribute(CU_GRAPH_MEM_ATTR_USED_MEM_CURRENT), used_mib);
    assert_int_equal(attribute(CU_GRAPH_MEM_ATTR_RESERVED_MEM_CURRENT), reserved_mib);
    assert_int_equal(used() / MIB, reserved_mib);
}

static void trim(void)
{
    assert_int_equal(cuDeviceGraphMemTrim(0), CUDA_SUCCESS);
}

static CUgraph graph_make(void)
{
    CUgraph graph = NULL;
    assert_int_equal(cuGraphCreate(&graph, 0), CUDA_SUCCESS);
    return graph;
}

static CUDA_MEM_ALLOC_NODE_PARAMS allocation(uint64_t bytes)
{
    CUDA_MEM_ALLOC_NODE_PARAMS parameters = {.bytesize = bytes};
    parameters.poolProps.allocType = CU_MEM_ALLOCATION_TYPE_PINNED;
    parameters.poolProps.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
    return parameters;
}

/* Adds a node after another (NULL: none) and returns it. */
static CUgraphNode add_alloc(CUgraph graph, CUgraphNode after, uint64_t bytes, CUdeviceptr *address)
{
    CUgraphNode node = NULL;
    CUDA_MEM_ALLOC_NODE_PARAMS parameters = allocation(bytes);
    assert_int_equal(cuGraphAddMemAllocNode(&node, graph, &after, after != NULL, &parameters), CUDA_SUCCESS);
    assert_true(parameters.dptr != 0);
    *address = parameters.dptr;
    return node;
}

static CUgraphNode add_free(CUgraph graph, CUgraphNode after, CUdeviceptr address)
{
    CUgraphNode node = NULL;
    assert_int_equal(cuGraphAddMemFreeNode(&node, graph, &after, after != NULL, address), CUDA_SUCCESS);
    return node;
}

static CUgraphNode add_set(CUgraph graph, CUgraphNode after, CUdeviceptr address, unsigned value, size_t bytes)
{
    CUgraphNode node = NULL;
    CUDA_MEMSET_NODE_PARAMS set = {.dst = address, .value = value, .elementSize = 1, .width = bytes, .height = 1};
    assert_int_equal(cuGraphAddMemsetNode(&node, graph, &after, after != NULL, &set, context), CUDA_SUCCESS);
    return node;
}

static CUgraphExec instantiate(CUgraph graph, unsigned long long flags)
{
    CUgraphExec exec = NULL;
    assert_int_equal(cuGraphInstantiateWithFlags(&exec, graph, flags), CUDA_SUCCESS);
    return exec;
}

static void launch(CUgraphExec exec)
{
    assert_int_equal(cuGraphLaunch(exec, stream), CUDA_SUCCESS);
    assert_int_equal(cuStreamSynchronize(stream), CUDA_SUCCESS);
}

static void end(CUgraph graph, CUgraphExec exec)
{
    assert_int_equal(cuGraphExecDestroy(exec), CUDA_SUCCESS);
    assert_int_equal(cuGraphDestroy(graph), CUDA_SUCCESS);
}

static void release(CUdeviceptr address)
{
    assert_int_equal(cuMemFree_v2(address), CUDA_SUCCESS);
}

static unsigned char byte_at(CUdeviceptr address)
{
    unsigned char byte = 0;
    assert_int_equal(cuMemcpyDtoH_v2(&byte, address, 1), CUDA_SUCCESS);
    return byte;
}

static void launches_cost_and_trims_give_back(void **state)
{
    (void)state;
    static const struct {
        uint64_t bytes, mib;
    } cases[] = {{1, 32}, {2 * MIB, 32}, {33 * MIB, 64}, {300 * MIB, 320}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        CUdeviceptr address;
        CUgraph graph = graph_make();
        add_alloc(graph, NULL, cases[i].bytes, &address);
        assert_reserve(0, 0);
        CUgraphExec exec = instantiate(graph, 0);
        assert_reserve(0, 0);
        launch(exec);
        assert_reserve(cases[i].mib, cases[i].mib);
        assert_int_equal(cuGraphLaunch(exec, stream), CUDA_ERROR_INVALID_VALUE); /* not freed */
        assert_int_equal(cuMemFreeAsync(address, stream), CUDA_SUCCESS);
        assert_int_equal(cuStreamSynchronize(stream), CUDA_SUCCESS);
        assert_reserve(cases[i].mib, cases[i].mib);
        launch(exec);
        end(graph, exec);
        trim();
        assert_reserve(cases[i].mib, cases[i].mib); /* alive, without its graph */
        assert_int_equal(cuMemsetD8_v2(address, 1, cases[i].bytes), CUDA_SUCCESS);
        release(address);
        assert_reserve(cases[i].mib, cases[i].mib);
        trim();
        assert_reserve(0, 0);
        assert_int_equal(cuMemFree_v2(address), CUDA_ERROR_INVALID_VALUE);
    }
}

static void what_follows_a_free_has_its_memory(void **state)
{
    (void)state;
    CUdeviceptr address;
    CUgraphNode after = NULL;
    CUgraph graph = graph_make(), other = graph_make();
    for (int i = 0; i < 3; i++) {
        after = add_alloc(graph, after, 40 * MIB, &address);
        after = add_free(graph, after, address);
    }
    CUgraphExec exec = instantiate(graph, 0);
    launch(exec);
    assert_reserve(64, 64);
    after = add_alloc(other, NULL, 50 * MIB, &address);
    add_free(other, after, address);
    CUgraphExec second = instantiate(other, 0);
    launch(second); /* graphs share what is not alive */
    assert_reserve(64, 64);
    trim();
    assert_reserve(0, 0);
    launch(exec);
    launch(second);
    assert_reserve(64, 64);
    end(graph, exec);
    end(other, second);
    assert_reserve(64, 64);
}

static void branches_do_not_share(void **state)
{
    (void)state;
    CUdeviceptr address;
    CUgraph graph = graph_make();
    for (int i = 0; i < 2; i++) {
        CUgraphNode alloc = add_alloc(graph, NULL, 40 * MIB, &address);
        add_free(graph, alloc, address);
    }
    CUgraphExec exec = instantiate(graph, 0);
    launch(exec);
    assert_reserve(96, 128);
    trim();
    assert_reserve(0, 0);
    end(graph, exec);
}

static void trims_leave_the_steps_that_are_alive(void **state)
{
    (void)state;
    CUdeviceptr first, second, third;
    CUgraph graph = graph_make(), other = graph_make();
    add_alloc(graph, add_alloc(graph, NULL, 40 * MIB, &first), 40 * MIB, &second);
    CUgraphExec exec = instantiate(graph, 0), more;
    launch(exec);
    assert_reserve(96, 128);
    release(first);
    trim();
    assert_reserve(64, 64);
    add_alloc(other, NULL, 20 * MIB, &third);
    more = instantiate(other, 0);
    launch(more);
    assert_reserve(96, 96);
    release(second);
    trim();
    assert_reserve(32, 32);
    release(third);
    trim();
    assert_reserve(0, 0);
    end(graph, exec);
    end(other, more);
}

static void reserve_grows_by_what_is_lacking(void **state)
{
    (void)state;
    CUdeviceptr address, more[3];
    CUgraphNode after = NULL;
    CUgraph graph = graph_make(), other = graph_make(), third = graph_make();
    add_alloc(graph, NULL, 60 * MIB, &address);
    CUgraphExec exec = instantiate(graph, 0);
    launch(exec);
    assert_reserve(64, 64);
    release(address);
    add_alloc(other, NULL, 90 * MIB, &address);
    CUgraphExec second = instantiate(other, 0);
    launch(second);
    assert_reserve(96, 96);
    release(address);
    trim();
    for (int i = 0; i < 3; i++)
        after = add_alloc(third, after, 40 * MIB, &more[i]);
    CUgraphExec last = instantiate(third, 0);
    launch(last);
    assert_reserve(128, 128);
    for (int i = 0; i < 3; i++)
        release(more[i]);
    end(graph, exec);
    end(other, second);
    end(third, last);
}

static void uploads_cost_like_launches(void **state)
{
    (void)state;
    CUdeviceptr first, second;
    CUgraph graph = graph_make(), other = graph_make();
    add_alloc(graph, NULL, 70 * MIB, &first);
    add_alloc(other, NULL, 12 * MIB, &second);
    CUgraphExec exec = instantiate(graph, 0), more = instantiate(other, 0);
    assert_int_equal(cuGraphUpload(exec, stream), CUDA_SUCCESS);
    assert_reserve(96, 96);
    trim();
    assert_reserve(0, 0);
    assert_int_equal(cuGraphUpload_ptsz(exec, stream), CUDA_SUCCESS);
    launch(more); /* in a step that was uploaded and is not alive */
    assert_reserve(96, 96);
    launch(exec);
    assert_reserve(128, 128);
    release(first);
    release(second);
    trim();
    CUDA_GRAPH_INSTANTIATE_PARAMS parameters = {.flags = CUDA_GRAPH_INSTANTIATE_FLAG_UPLOAD, .hUploadStream = stream};
    assert_int_equal(cuGraphExecDestroy(exec), CUDA_SUCCESS);
    assert_int_equal(cuGraphInstantiateWithParams_ptsz(&exec, graph, &parameters), CUDA_SUCCESS);
    assert_int_equal(parameters.result_out, CUDA_GRAPH_INSTANTIATE_SUCCESS);
    assert_reserve(96, 96);
    end(graph, exec);
    assert_reserve(96, 96);
    end(other, more);
}

static void auto_free_launches_again(void **state)
{
    (void)state;
    CUdeviceptr address[5];
    CUgraphNode after = NULL;
    CUgraph graph = graph_make();
    for (int i = 0; i < 5; i++)
        after = add_alloc(graph, after, 10 * MIB, &address[i]);
    CUgraphExec exec = instantiate(graph, CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH);
    for (int i = 0; i < 3; i++) {
        launch(exec);
        assert_reserve(64, 64);
    }
    for (int i = 0; i < 5; i++)
        release(address[i]);
    end(graph, exec);
}

static void bytes_are_real_between_launch_and_free(void **state)
{
    (void)state;
    CUdeviceptr address;
    unsigned type;
    CUgraph graph = graph_make();
    CUgraphNode after = add_alloc(graph, NULL, 3 * MIB, &address);
    add_set(graph, after, address, 'g', 3 * MIB);
    CUgraphExec exec = instantiate(graph, 0);
    assert_int_equal(cuMemsetD8_v2(address, 1, 1), CUDA_ERROR_INVALID_VALUE); /* not there yet */
    assert_int_equal(cuPointerGetAttribute(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, address), CUDA_ERROR_INVALID_VALUE);
    launch(exec);
    assert_int_equal(byte_at(address + 3 * MIB - 1), 'g');
    assert_int_equal(cuMemsetD8_v2(address, 'h', 1), CUDA_SUCCESS);
    assert_int_equal(byte_at(address), 'h');
    assert_int_equal(cuMemsetD8_v2(address, 1, 3 * MIB + 1), CUDA_ERROR_INVALID_VALUE);
    release(address);
    assert_int_equal(cuMemsetD8_v2(address, 1, 1), CUDA_ERROR_INVALID_VALUE);
    launch(exec); /* at the same address */
    assert_int_equal(byte_at(address), 'g');
    release(address);
    end(graph, exec);
}

static void nodes_run_in_order(void **state)
{
    (void)state;
    CUmodule module = NULL;
    CUfunction fill = NULL;
    CUdeviceptr out = 0, scratch;
    unsigned back[4] = {0};
    assert_int_equal(cuModuleLoadData(&module, "module"), CUDA_SUCCESS);
    assert_int_equal(cuModuleGetFunction(&fill, module, "fill_u32"), CUDA_SUCCESS);
    assert_int_equal(cuMemAlloc_v2(&out, 4096), CUDA_SUCCESS);
    CUgraph graph = graph_make(), child = graph_make();
    CUgraphNode alloc = add_alloc(graph, NULL, MIB, &scratch), empty = NULL, kernel = NULL, copy = NULL, nested = NULL;
    uint64_t to = scratch, count = 4;
    unsigned value = 5;
    void *arguments[] = {&to, &value, &count};
    CUDA_KERNEL_NODE_PARAMS run = {.func = fill,
                                   .gridDimX = 1,
                                   .gridDimY = 1,
                                   .gridDimZ = 1,
                                   .blockDimX = 32,
                                   .blockDimY = 1,
                                   .blockDimZ = 1,
                                   .kernelParams = arguments};
    CUDA_MEMCPY3D move = {.srcMemoryType = CU_MEMORYTYPE_DEVICE,
                          .srcDevice = scratch,
                          .dstMemoryType = CU_MEMORYTYPE_DEVICE,
                          .dstDevice = out,
                          .WidthInBytes = 16,
                          .Height = 1,
                          .Depth = 1};
    assert_int_equal(cuGraphAddEmptyNode(&empty, graph, &alloc, 1), CUDA_SUCCESS);
    assert_int_equal(cuGraphAddKernelNode(&kernel, graph, &empty, 1, &run), CUDA_SUCCESS);
    value = 6; /* the node has its own */
    add_set(child, NULL, out + 4, 9, 4);
    assert_int_equal(cuGraphAddMemcpyNode(&copy, graph, &kernel, 1, &move, context), CUDA_SUCCESS);
    assert_int_equal(cuGraphAddChildGraphNode(&nested, graph, &copy, 1, child), CUDA_SUCCESS);
    add_set(child, NULL, out, 1, 16); /* the child is a copy */
    add_free(graph, nested, scratch);
    CUgraphExec exec = instantiate(graph, 0);
    assert_int_equal(byte_at(out), 0);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(cuMemsetD8_v2(out, 0, 16), CUDA_SUCCESS);
        assert_int_equal(cuGraphLaunch_ptsz(exec, stream), CUDA_SUCCESS);
        assert_int_equal(cuMemcpyDtoH_v2(back, out, 16), CUDA_SUCCESS);
        assert_int_equal(back[0], 5);
        assert_int_equal(back[1], 0x09090909);
        assert_int_equal(back[3], 5);
    }
    end(graph, exec);
    assert_int_equal(cuGraphDestroy(child), CUDA_SUCCESS);
    assert_int_equal(cuModuleUnload(module), CUDA_SUCCESS);
    release(out);
}

static void frees_are_checked(void **state)
{
    (void)state;
    CUdeviceptr mine, theirs, linear = 0;
    CUgraphNode node = NULL;
    CUgraph graph = graph_make(), other = graph_make(), third = graph_make();
    CUgraphNode first = add_alloc(graph, NULL, MIB, &mine);
    first = add_free(graph, first, mine);
    assert_int_equal(cuMemAlloc_v2(&linear, MIB), CUDA_SUCCESS);
    assert_int_equal(cuGraphAddMemFreeNode(&node, graph, &first, 1, mine), CUDA_ERROR_INVALID_VALUE); /* twice */
    assert_int_equal(cuGraphAddMemFreeNode(&node, graph, NULL, 0, linear), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(cuGraphAddMemFreeNode(&node, graph, NULL, 0, 12345), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(cuGraphAddMemFreeNode(&node, other, NULL, 0, mine), CUDA_ERROR_INVALID_VALUE);
    CUgraphNode alloc = add_alloc(other, NULL, MIB, &theirs);
    add_free(third, NULL, theirs);
    assert_int_equal(cuGraphAddMemFreeNode(&node, other, &alloc, 1, theirs), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(cuGraphAddMemFreeNode(&node, third, NULL, 0, theirs), CUDA_ERROR_INVALID_VALUE);
    assert_null(node);
    CUgraphExec makes = instantiate(other, 0), frees = instantiate(third, 0);
    assert_int_equal(cuGraphLaunch(frees, stream), CUDA_ERROR_INVALID_VALUE); /* there is nothing */
    launch(makes);
    launch(frees);
    assert_int_equal(cuGraphLaunch(frees, stream), CUDA_ERROR_INVALID_VALUE);
    launch(makes);
    launch(frees);
    end(other, makes);
    end(third, frees);
    assert_int_equal(cuGraphDestroy(graph), CUDA_SUCCESS);
    release(linear);
}

static void memory_nodes_are_checked(void **state)
{
    (void)state;
    CUgraphNode node = NULL;
    CUgraph graph = graph_make();
    CUDA_MEM_ALLOC_NODE_PARAMS parameters = allocation(0), got;
    assert_int_equal(cuGraphAddMemAllocNode(&node, graph, NULL, 0, &parameters), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(cuGraphAddMemAllocNode(&node, graph, NULL, 0, NULL), CUDA_ERROR_INVALID_VALUE);
    parameters.bytesize = SIZE_MAX;
    assert_int_equal(cuGraphAddMemAllocNode(&node, graph, NULL, 0, &parameters), CUDA_ERROR_OUT_OF_MEMORY);
    parameters.bytesize = 1000;
    parameters.poolProps.location.type = CU_MEM_LOCATION_TYPE_HOST;
    assert_int_equal(cuGraphAddMemAllocNode(&node, graph, NULL, 0, &parameters), CUDA_ERROR_NOT_SUPPORTED);
    assert_null(node);
    assert_true(parameters.dptr == 0);
    CUgraphNodeParams any = {.type = CU_GRAPH_NODE_TYPE_MEM_ALLOC, .alloc = allocation(1000)};
    CUgraphNodeParams gone = {.type = CU_GRAPH_NODE_TYPE_MEM_FREE};
    int type = -1;
    CUdeviceptr address = 0;
    size_t count = 0;
    assert_int_equal(cuGraphAddNode(&node, graph, NULL, 0, &any), CUDA_SUCCESS);
    assert_int_equal(cuGraphNodeGetType(node, &type), CUDA_SUCCESS);
    assert_int_equal(type, CU_GRAPH_NODE_TYPE_MEM_ALLOC);
    assert_int_equal(cuGraphMemAllocNodeGetParams(node, &got), CUDA_SUCCESS);
    assert_true(got.dptr == any.alloc.dptr && got.dptr != 0 && got.bytesize == 1000);
    assert_int_equal(cuGraphMemFreeNodeGetParams(node, &address), CUDA_ERROR_INVALID_VALUE);
    gone.free.dptr = got.dptr;
    assert_int_equal(cuGraphAddNode_v2(&node, graph, &node, NULL, 1, &gone), CUDA_SUCCESS);
    assert_int_equal(cuGraphMemFreeNodeGetParams(node, &address), CUDA_SUCCESS);
    assert_true(address == got.dptr);
    assert_int_equal(cuGraphGetNodes(graph, NULL, &count), CUDA_SUCCESS);
    assert_int_equal(count, 2);
    CUgraphNode nodes[3] = {node, node, node};
    count = 3;
    assert_int_equal(cuGraphGetNodes(graph, nodes, &count), CUDA_SUCCESS);
    assert_int_equal(count, 2);
    assert_ptr_equal(nodes[1], node);
    assert_null(nodes[2]);
    assert_int_equal(cuGraphDestroy(graph), CUDA_SUCCESS);
    assert_int_equal(cuGraphDestroy(graph), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(cuGraphNodeGetType(node, &type), CUDA_ERROR_INVALID_VALUE);
}

static void children_with_memory_are_moved(void **state)
{
    (void)state;
    CUdeviceptr address;
    CUgraphNode node = NULL;
    CUgraph parent = graph_make(), child = graph_make(), other = graph_make(), found = NULL;
    CUgraphExec exec = NULL;
    CUgraphNode alloc = add_alloc(child, NULL, MIB, &address);
    add_set(child, alloc, address, 'c', MIB);
    CUgraphNodeParams nested = {.type = CU_GRAPH_NODE_TYPE_GRAPH, .graph = {.graph = child}};
    assert_int_equal(cuGraphAddChildGraphNode(&node, parent, NULL, 0, child), CUDA_ERROR_NOT_SUPPORTED);
    assert_int_equal(cuGraphAddNode_v2(&node, parent, NULL, NULL, 0, &nested), CUDA_ERROR_NOT_SUPPORTED);
    assert_int_equal(cuGraphClone(&found, child), CUDA_ERROR_NOT_SUPPORTED);
    nested.graph.ownership = CU_GRAPH_CHILD_GRAPH_OWNERSHIP_MOVE;
    assert_int_equal(cuGraphAddNode_v2(&node, parent, NULL, NULL, 0, &nested), CUDA_SUCCESS);
    assert_int_equal(cuGraphAddNode_v2(&node, other, NULL, NULL, 0, &nested), CUDA_ERROR_NOT_SUPPORTED);
    assert_int_equal(cuGraphInstantiateWithFlags(&exec, child, 0), CUDA_ERROR_NOT_SUPPORTED);
    assert_int_equal(cuGraphDestroy(child), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(cuGraphChildGraphNodeGetGraph(node, &found), CUDA_SUCCESS);
    assert_ptr_equal(found, child);
    CUDA_MEM_ALLOC_NODE_PARAMS more = allocation(MIB);
    CUgraphNode late = NULL;
    assert_int_equal(cuGraphAddMemAllocNode(&late, child, NULL, 0, &more), CUDA_ERROR_NOT_SUPPORTED);
    exec = instantiate(parent, 0);
    launch(exec);
    assert_reserve(32, 32);
    assert_int_equal(byte_at(address), 'c');
    assert_int_equal(cuGraphLaunch(exec, stream), CUDA_ERROR_INVALID_VALUE);
    release(address);
    end(parent, exec);
    assert_int_equal(cuGraphDestroy(other), CUDA_SUCCESS);
}

static void graphs_with_memory_have_one_exec(void **state)
{
    (void)state;
    CUdeviceptr address;
    CUgraph graph = graph_make(), plain = graph_make(), clone = NULL;
    CUgraphExec exec = NULL, second = (CUgraphExec)(uintptr_t)77;
    add_alloc(graph, NULL, MIB, &address);
    assert_int_equal(cuGraphInstantiate(&exec, graph, NULL, NULL, 0), CUDA_SUCCESS);
    assert_int_equal(cuGraphInstantiateWithFlags(&second, graph, 0), CUDA_ERROR_NOT_SUPPORTED);
    assert_ptr_equal(second, (void *)(uintptr_t)77);
    assert_int_equal(cuGraphExecDestroy(exec), CUDA_SUCCESS);
    assert_int_equal(cuGraphExecDestroy(exec), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(cuGraphLaunch(exec, stream), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(cuGraphInstantiate_v2(&exec, graph, NULL, NULL, 0), CUDA_SUCCESS);
    assert_int_equal(cuGraphDestroy(graph), CUDA_SUCCESS); /* an exec does not need its graph */
    launch(exec);
    release(address);
    launch(exec);
    assert_int_equal(cuGraphExecDestroy(exec), CUDA_SUCCESS);
    release(address);
    CUgraphExec third = NULL;
    assert_int_equal(cuMemAlloc_v2(&address, 16), CUDA_SUCCESS);
    add_set(plain, NULL, address, 3, 16);
    assert_int_equal(cuGraphClone(&clone, plain), CUDA_SUCCESS);
    exec = instantiate(plain, 0);
    second = instantiate(plain, CUDA_GRAPH_INSTANTIATE_FLAG_USE_NODE_PRIORITY);
    third = instantiate(clone, 0);
    assert_int_equal(cuGraphInstantiateWithFlags(&third, clone, 1 << 9), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(cuGraphExecDestroy(second), CUDA_SUCCESS);
    end(plain, exec);
    launch(third);
    assert_int_equal(byte_at(address + 15), 3);
    end(clone, third);
    release(address);
}

/* As measured: the reserve keeps what the card still had. */
static void launches_that_do_not_fit_leave_the_reserve_grown(void **state)
{
    (void)state;
    CUdeviceptr address;
    CUgraph graph = graph_make();
    add_alloc(graph, NULL, 30 * GIB, &address);
    CUgraphExec exec = instantiate(graph, 0);
    assert_int_equal(cuGraphLaunch(exec, stream), CUDA_ERROR_OUT_OF_MEMORY);
    uint64_t most = (24 * GIB - CONTEXT_BYTES) / (32 * MIB) * 32;
    assert_reserve(0, most);
    assert_int_equal(cuGraphUpload(exec, stream), CUDA_ERROR_OUT_OF_MEMORY);
    assert_reserve(0, most);
    assert_int_equal(cuMemsetD8_v2(address, 1, 1), CUDA_ERROR_INVALID_VALUE);
    trim();
    assert_reserve(0, 0);
    end(graph, exec);
}

static void high_marks_are_kept_and_reset(void **state)
{
    (void)state;
    uint64_t zero = 0, one = 1;
    CUdeviceptr address;
    CUgraph graph = graph_make();
    add_alloc(graph, NULL, 40 * MIB, &address);
    CUgraphExec exec = instantiate(graph, 0);
    assert_int_equal(cuDeviceSetGraphMemAttribute(0, CU_GRAPH_MEM_ATTR_USED_MEM_HIGH, &zero), CUDA_SUCCESS);
    assert_int_equal(cuDeviceSetGraphMemAttribute(0, CU_GRAPH_MEM_ATTR_RESERVED_MEM_HIGH, &zero), CUDA_SUCCESS);
    launch(exec);
    release(address);
    trim();
    assert_int_equal(attribute(CU_GRAPH_MEM_ATTR_USED_MEM_HIGH), 64);
    assert_int_equal(attribute(CU_GRAPH_MEM_ATTR_RESERVED_MEM_HIGH), 64);
    assert_int_equal(cuDeviceSetGraphMemAttribute(0, CU_GRAPH_MEM_ATTR_USED_MEM_HIGH, &zero), CUDA_SUCCESS);
    assert_int_equal(attribute(CU_GRAPH_MEM_ATTR_USED_MEM_HIGH), 0);
    assert_int_equal(cuDeviceSetGraphMemAttribute(0, CU_GRAPH_MEM_ATTR_USED_MEM_HIGH, &one), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(cuDeviceSetGraphMemAttribute(0, CU_GRAPH_MEM_ATTR_USED_MEM_CURRENT, &zero),
                     CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(cuDeviceGetGraphMemAttribute(0, 4, &zero), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(cuDeviceGetGraphMemAttribute(9, 0, &zero), CUDA_ERROR_INVALID_DEVICE);
    assert_int_equal(cuDeviceGraphMemTrim(9), CUDA_ERROR_INVALID_DEVICE);
    end(graph, exec);
}

static void memory_lies_on_the_device_of_its_node(void **state)
{
    (void)state;
    CUgraphNode node = NULL;
    CUgraph graph = graph_make();
    CUDA_MEM_ALLOC_NODE_PARAMS parameters = allocation(MIB);
    parameters.poolProps.location.id = 1;
    assert_int_equal(cuGraphAddMemAllocNode(&node, graph, NULL, 0, &parameters), CUDA_SUCCESS);
    CUgraphExec exec = instantiate(graph, 0);
    launch(exec);
    assert_reserve(0, 0);
    assert_int_equal(stage_figures().device[1].used_bytes, 32 * MIB);
    release(parameters.dptr);
    end(graph, exec);
    assert_int_equal(cuDeviceGraphMemTrim(1), CUDA_SUCCESS);
    assert_int_equal(stage_figures().device[1].used_bytes, 0);
}

/* What one of several threads does; what it returns is the line where something went wrong. */
static void *thread_run(void *argument)
{
    unsigned char mine = (unsigned char)(uintptr_t)argument, back;
    CUstream own = NULL;
    CUgraph graph = NULL;
    CUgraphNode alloc = NULL, set = NULL, gone = NULL;
    CUgraphExec exec = NULL;
    CUDA_MEM_ALLOC_NODE_PARAMS parameters = allocation(20 * MIB), kept = allocation(MIB);
#define WORKS(call)                                                                                                    \
    do {                                                                                                               \
        if ((call) != CUDA_SUCCESS)                                                                                    \
            return (void *)(uintptr_t)__LINE__;                                                                        \
    } while (0)
    WORKS(cuCtxSetCurrent(context));
    WORKS(cuStreamCreate(&own, 1));
    WORKS(cuGraphCreate(&graph, 0));
    WORKS(cuGraphAddMemAllocNode(&alloc, graph, NULL, 0, &parameters));
    WORKS(cuGraphAddMemAllocNode(&set, graph, &alloc, 1, &kept));
    WORKS(cuGraphAddMemFreeNode(&gone, graph, &set, 1, parameters.dptr));
    WORKS(cuGraphInstantiateWithFlags(&exec, graph, 0));
    for (unsigned i = 0; i < 40; i++) {
        CUdeviceptr address = 0;
        size_t bytes = (i % 5) * 9 * MIB + 1 + mine;
        WORKS(cuMemAllocAsync(&address, bytes, own));
        WORKS(cuMemsetD8Async(address + bytes - 1, mine, 1, own));
        WORKS(cuGraphLaunch(exec, own));
        WORKS(cuMemsetD8Async(kept.dptr, mine, 1, own));
        WORKS(cuMemcpyDtoH_v2(&back, address + bytes - 1, 1));
        WORKS(back != mine);
        WORKS(cuMemcpyDtoH_v2(&back, kept.dptr, 1));
        WORKS(back != mine);
        WORKS(i % 2 ? cuMemFreeAsync(address, own) : cuMemFree_v2(address));
        WORKS(cuMemFreeAsync(kept.dptr, own));
        WORKS(i % 3 ? cuStreamSynchronize(own) : cuDeviceGraphMemTrim(0));
    }
    WORKS(cuGraphExecDestroy(exec));
    WORKS(cuGraphDestroy(graph));
    WORKS(cuStreamDestroy_v2(own));
    return NULL;
}

static void threads_share_pools_and_the_reserve(void **state)
{
    (void)state;
    enum { THREADS = 4 };
    pthread_t thread[THREADS];
    void *line = NULL;
    for (uintptr_t i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&thread[i], NULL, thread_run, (void *)(i + 1)), 0);
    for (int i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_join(thread[i], &line), 0);
        assert_int_equal((uintptr_t)line, 0);
    }
}

static void memory_outlives_the_primary_context(void **state)
{
    (void)state;
    CUdeviceptr address;
    CUgraph graph = graph_make();
    add_alloc(graph, NULL, MIB, &address);
    CUgraphExec exec = instantiate(graph, 0);
    launch(exec);
    assert_int_equal(cuDevicePrimaryCtxReset_v2(0), CUDA_SUCCESS);
    assert_int_equal(stage_figures().device[0].used_bytes, 32 * MIB);
    assert_int_equal(cuDevicePrimaryCtxRetain(&context, 0), CUDA_SUCCESS);
    release(address);
    end(graph, exec);
}

#define GRAPH_TEST(name) cmocka_unit_test_setup_teardown(name, NULL, nothing_is_left)

int main(void)
{
    const struct CMUnitTest tests[] = {
        GRAPH_TEST(launches_cost_and_trims_give_back),
        GRAPH_TEST(what_follows_a_free_has_its_memory),
        GRAPH_TEST(branches_do_not_share),
        GRAPH_TEST(trims_leave_the_steps_that_are_alive),
        GRAPH_TEST(reserve_grows_by_what_is_lacking),
        GRAPH_TEST(uploads_cost_like_launches),
        GRAPH_TEST(auto_free_launches_again),
        GRAPH_TEST(bytes_are_real_between_launch_and_free),
        GRAPH_TEST(nodes_run_in_order),
        GRAPH_TEST(frees_are_checked),
        GRAPH_TEST(memory_nodes_are_checked),
        GRAPH_TEST(children_with_memory_are_moved),
        GRAPH_TEST(graphs_with_memory_have_one_exec),
        GRAPH_TEST(launches_that_do_not_fit_leave_the_reserve_grown),
        GRAPH_TEST(high_marks_are_kept_and_reset),
        GRAPH_TEST(memory_lies_on_the_device_of_its_node),
        GRAPH_TEST(threads_share_pools_and_the_reserve),
        GRAPH_TEST(memory_outlives_the_primary_context), /* the last: streams end with the context */
    };
    return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
