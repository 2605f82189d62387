/*
 * A CUDA program that makes one scripted use of the driver's function that the environment's FAULT_NAME names, for test_faults.c, which starts it
 * preloaded and has the simulated driver fail that function a few times. Commands on its standard input, one a line:
 *
 *   scene   what the function works on, made with others: "ok", or "error N"
 *   call    one call: "N touched" or "N untouched": the result, and whether any output was written
 *   undo    takes back what a successful call made: "ok", or "error N"
 *   quit
 *
 * One thread. Where there is no script for the name, the answer to all is "none".
 */
#include <dlfcn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cuda/cuda_abi.h"

#define MIB         (1024ULL * 1024)
#define PIECE_BYTES (20 * MIB)
#define IMAGE       ".version 8.0 .target sm_90 .address_size 64 .global .align 4 .b8 big[67108864];"

/* Every function that has a type in the table of hooks. */
static struct {
#define WRAP(name, class, parameters) CUresult(*name) parameters;
#define PASS(name, class, parameters) CUresult(*name) parameters;
#define SAFE(name, class, parameters) CUresult(*name) parameters;
#include "interpose/hooks.def"
} driver;

/* What the calls work on, and where they write. */
static struct {
    CUcontext primary, context;
    CUdeviceptr address;
    CUdeviceptr_v1 low;
    CUmemGenericAllocationHandle memory;
    CUmemoryPool pool;
    CUstream stream;
    CUevent event;
    CUgraph graph;
    CUgraphExec instance;
    CUdeviceptr of_graph;
    CUarray array;
    CUmipmappedArray mipmap;
    CUmodule module;
    CUlibrary library;
    CUexternalMemory external;
    CUgreenCtx green;
    CUdevResourceDesc description;
    int descriptor;
    char path[64];
} scene;
static union {
    struct {
        CUdeviceptr address;
        size_t pitch;
        CUdeviceptr_v1 low;
        unsigned low_pitch;
        void *handle;
        CUmemGenericAllocationHandle memory;
        int descriptor;
    };
    unsigned char bytes[64];
} out;

static const CUmemAllocationProp properties = {.type = CU_MEM_ALLOCATION_TYPE_PINNED,
                                               .requestedHandleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR,
                                               .location = {CU_MEM_LOCATION_TYPE_DEVICE, 0}};
static const CUmemPoolProps pool_properties = {.allocType = CU_MEM_ALLOCATION_TYPE_PINNED,
                                               .location = {CU_MEM_LOCATION_TYPE_DEVICE, 0}};
static CUmemLocation location = {CU_MEM_LOCATION_TYPE_DEVICE, 0};
static const CUmulticastObjectProp object_properties = {.numDevices = 1, .size = 2 * PIECE_BYTES};
static const CUDA_ARRAY3D_DESCRIPTOR shape = {2048, 1024, 0, CU_AD_FORMAT_FLOAT, 1, 0};
static const CUDA_ARRAY3D_DESCRIPTOR_v1 shape_v1 = {2048, 1024, 0, CU_AD_FORMAT_FLOAT, 1, 0};
static const CUDA_ARRAY_DESCRIPTOR flat = {2048, 1024, CU_AD_FORMAT_FLOAT, 1};
static const CUDA_ARRAY_DESCRIPTOR_v1 flat_v1 = {2048, 1024, CU_AD_FORMAT_FLOAT, 1};

/* In what answers a CUresult: hands on what is not success. */
#define TRY(call)                                                                                                      \
    do {                                                                                                               \
        CUresult try_result_ = (call);                                                                                 \
        if (try_result_ != CUDA_SUCCESS)                                                                               \
            return try_result_;                                                                                        \
    } while (0)

/* --- scenes: each begins with the one before it ---------------------------------------------------------------------------- */

static CUresult begin_nothing(void)
{
    return driver.cuInit(0);
}

static CUresult begin_context(void)
{
    TRY(driver.cuInit(0));
    TRY(driver.cuDevicePrimaryCtxRetain(&scene.primary, 0));
    return driver.cuCtxSetCurrent(scene.primary);
}

static CUresult begin_second(void)
{
    TRY(begin_context());
    TRY(driver.cuCtxCreate_v2(&scene.context, 0, 0));
    return driver.cuMemAlloc_v2(&scene.address, PIECE_BYTES);
}

static CUresult begin_linear(void)
{
    TRY(begin_context());
    return driver.cuMemAlloc_v2(&scene.address, PIECE_BYTES);
}

static CUresult begin_low(void)
{
    TRY(begin_context());
    return driver.cuMemAlloc(&scene.low, PIECE_BYTES);
}

static CUresult begin_pool(void)
{
    TRY(begin_context());
    return driver.cuMemPoolCreate(&scene.pool, &pool_properties);
}

static CUresult begin_pooled(void)
{
    TRY(begin_context());
    TRY(driver.cuStreamCreate(&scene.stream, 0));
    return driver.cuMemAllocAsync(&scene.address, PIECE_BYTES, scene.stream);
}

/* A pool whose memory goes back when somebody waits. */
static CUresult begin_freed(void)
{
    TRY(begin_pooled());
    TRY(driver.cuMemFreeAsync(scene.address, scene.stream));
    TRY(driver.cuEventCreate(&scene.event, 0));
    return driver.cuEventRecord(scene.event, scene.stream);
}

static CUresult begin_freed_alone(void)
{
    TRY(begin_context());
    TRY(driver.cuMemAllocAsync(&scene.address, PIECE_BYTES, CU_STREAM_PER_THREAD));
    return driver.cuMemFreeAsync(scene.address, CU_STREAM_PER_THREAD);
}

static CUresult begin_graph(void)
{
    CUgraphNode node;
    CUDA_MEM_ALLOC_NODE_PARAMS parameters = {.poolProps = pool_properties, .bytesize = PIECE_BYTES};
    TRY(begin_context());
    TRY(driver.cuGraphCreate(&scene.graph, 0));
    TRY(driver.cuGraphAddMemAllocNode(&node, scene.graph, NULL, 0, &parameters));
    scene.of_graph = parameters.dptr;
    return CUDA_SUCCESS;
}

static CUresult begin_instance(void)
{
    TRY(begin_graph());
    return driver.cuGraphInstantiateWithFlags(&scene.instance, scene.graph, 0);
}

/* The device's memory for graphs has what nothing uses any more. */
static CUresult begin_reserve(void)
{
    TRY(begin_instance());
    TRY(driver.cuGraphLaunch(scene.instance, NULL));
    return driver.cuMemFree_v2(scene.of_graph);
}

static CUresult begin_array(void)
{
    TRY(begin_context());
    return driver.cuArray3DCreate_v2(&scene.array, &shape);
}

static CUresult begin_mipmap(void)
{
    TRY(begin_context());
    return driver.cuMipmappedArrayCreate(&scene.mipmap, &shape, 2);
}

static CUresult begin_physical(void)
{
    TRY(begin_context());
    TRY(driver.cuMemAddressReserve(&scene.address, PIECE_BYTES, 0, 0, 0));
    return driver.cuMemCreate(&scene.memory, PIECE_BYTES, &properties, 0);
}

static CUresult begin_mapped(void)
{
    TRY(begin_physical());
    return driver.cuMemMap(scene.address, PIECE_BYTES, 0, scene.memory, 0);
}

/* The mapping alone holds it. */
static CUresult begin_mapped_alone(void)
{
    TRY(begin_mapped());
    return driver.cuMemRelease(scene.memory);
}

static CUresult begin_exported(void)
{
    TRY(begin_physical());
    return driver.cuMemExportToShareableHandle(&scene.descriptor, scene.memory,
                                               CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0);
}

static CUDA_EXTERNAL_MEMORY_HANDLE_DESC external_description(void)
{
    return (CUDA_EXTERNAL_MEMORY_HANDLE_DESC){
        .type = CU_EXTERNAL_MEMORY_HANDLE_TYPE_OPAQUE_FD, .handle.fd = scene.descriptor, .size = PIECE_BYTES};
}

static CUresult begin_external(void)
{
    TRY(begin_exported());
    CUDA_EXTERNAL_MEMORY_HANDLE_DESC description = external_description();
    return driver.cuImportExternalMemory(&scene.external, &description);
}

static CUresult begin_module(void)
{
    TRY(begin_context());
    return driver.cuModuleLoadData(&scene.module, IMAGE);
}

static CUresult begin_library(void)
{
    TRY(begin_context());
    return driver.cuLibraryLoadData(&scene.library, IMAGE, NULL, NULL, 0, NULL, NULL, 0);
}

static CUresult begin_file(void)
{
    const char *directory = getenv("CUBUDGET_DIR");
    TRY(begin_context());
    snprintf(scene.path, sizeof(scene.path), "%s/image", directory ? directory : "/nonexistent");
    FILE *file = fopen(scene.path, "w");
    if (!file)
        return CUDA_ERROR_FILE_NOT_FOUND;
    fputs(IMAGE, file);
    fclose(file);
    return CUDA_SUCCESS;
}

static CUresult begin_resources(void)
{
    CUdevResource resource;
    TRY(begin_context());
    TRY(driver.cuDeviceGetDevResource(0, &resource, CU_DEV_RESOURCE_TYPE_SM));
    return driver.cuDevResourceGenerateDesc(&scene.description, &resource, 1);
}

static CUresult begin_green(void)
{
    TRY(begin_resources());
    return driver.cuGreenCtxCreate(&scene.green, scene.description, 0, CU_GREEN_CTX_DEFAULT_STREAM);
}

/* --- what takes back what a call made ---------------------------------------------------------------------------------------- */

static CUresult undo_nothing(void)
{
    return CUDA_SUCCESS;
}

static CUresult undo_address(void)
{
    return driver.cuMemFree_v2(out.address);
}

static CUresult undo_low(void)
{
    return driver.cuMemFree_v2(out.low);
}

static CUresult undo_pooled(void)
{
    TRY(driver.cuMemFreeAsync(out.address, NULL));
    return driver.cuCtxSynchronize();
}

static CUresult undo_array(void)
{
    return driver.cuArrayDestroy(out.handle);
}

static CUresult undo_mipmap(void)
{
    return driver.cuMipmappedArrayDestroy(out.handle);
}

static CUresult undo_memory(void)
{
    return driver.cuMemRelease(out.memory);
}

static CUresult undo_mapping(void)
{
    return driver.cuMemUnmap(scene.address, PIECE_BYTES);
}

static CUresult undo_context(void)
{
    return driver.cuCtxDestroy_v2(out.handle);
}

static CUresult undo_primary(void)
{
    return driver.cuDevicePrimaryCtxRelease_v2(0);
}

static CUresult undo_module(void)
{
    return driver.cuModuleUnload(out.handle);
}

static CUresult undo_library(void)
{
    return driver.cuLibraryUnload(out.handle);
}

static CUresult undo_pool(void)
{
    return driver.cuMemPoolDestroy(out.handle);
}

static CUresult undo_instance(void)
{
    return driver.cuGraphExecDestroy(out.handle);
}

static CUresult undo_launch(void)
{
    TRY(driver.cuMemFree_v2(scene.of_graph));
    return driver.cuDeviceGraphMemTrim(0);
}

static CUresult undo_upload(void)
{
    return driver.cuDeviceGraphMemTrim(0);
}

static CUresult undo_external(void)
{
    return driver.cuDestroyExternalMemory(out.handle);
}

static CUresult undo_green(void)
{
    return driver.cuGreenCtxDestroy(out.handle);
}

/* --- calls -------------------------------------------------------------------------------------------------------------------- */

static CUDA_GRAPH_INSTANTIATE_PARAMS instantiate_parameters;
static CUDA_EXTERNAL_MEMORY_BUFFER_DESC buffer_description = {.size = PIECE_BYTES};

static CUresult call_external(void)
{
    CUDA_EXTERNAL_MEMORY_HANDLE_DESC description = external_description();
    return driver.cuImportExternalMemory((CUexternalMemory *)&out.handle, &description);
}

#define HANDLE(type) ((type *)&out.handle)

/* SCRIPT(function, its arguments, scene, what takes it back) */
#define SCRIPTS(SCRIPT)                                                                                                \
    SCRIPT(cuArray3DCreate, (HANDLE(CUarray), &shape_v1), begin_context, undo_array)                                   \
    SCRIPT(cuArray3DCreate_v2, (HANDLE(CUarray), &shape), begin_context, undo_array)                                   \
    SCRIPT(cuArrayCreate, (HANDLE(CUarray), &flat_v1), begin_context, undo_array)                                      \
    SCRIPT(cuArrayCreate_v2, (HANDLE(CUarray), &flat), begin_context, undo_array)                                      \
    SCRIPT(cuArrayDestroy, (scene.array), begin_array, undo_nothing)                                                   \
    SCRIPT(cuCtxAttach, (HANDLE(CUcontext), 0), begin_second, undo_nothing)                                            \
    SCRIPT(cuCtxCreate, (HANDLE(CUcontext), 0, 0), begin_context, undo_context)                                        \
    SCRIPT(cuCtxCreate_v2, (HANDLE(CUcontext), 0, 0), begin_context, undo_context)                                     \
    SCRIPT(cuCtxCreate_v3, (HANDLE(CUcontext), NULL, 0, 0, 0), begin_context, undo_context)                            \
    SCRIPT(cuCtxCreate_v4, (HANDLE(CUcontext), NULL, 0, 0), begin_context, undo_context)                               \
    SCRIPT(cuCtxDestroy, (scene.context), begin_second, undo_nothing)                                                  \
    SCRIPT(cuCtxDestroy_v2, (scene.context), begin_second, undo_nothing)                                               \
    SCRIPT(cuCtxDetach, (scene.context), begin_second, undo_nothing)                                                   \
    SCRIPT(cuCtxSetLimit, (CU_LIMIT_STACK_SIZE, 2048), begin_context, undo_nothing)                                    \
    SCRIPT(cuCtxSynchronize, (), begin_freed, undo_nothing)                                                            \
    SCRIPT(cuCtxSynchronize_v2, (scene.primary), begin_freed, undo_nothing)                                            \
    SCRIPT(cuDestroyExternalMemory, (scene.external), begin_external, undo_nothing)                                    \
    SCRIPT(cuDeviceGetDefaultMemPool, (HANDLE(CUmemoryPool), 0), begin_context, undo_nothing)                          \
    SCRIPT(cuDeviceGetMemPool, (HANDLE(CUmemoryPool), 0), begin_context, undo_nothing)                                 \
    SCRIPT(cuDeviceGraphMemTrim, (0), begin_reserve, undo_nothing)                                                     \
    SCRIPT(cuDevicePrimaryCtxRelease, (0), begin_linear, undo_nothing)                                                 \
    SCRIPT(cuDevicePrimaryCtxRelease_v2, (0), begin_linear, undo_nothing)                                              \
    SCRIPT(cuDevicePrimaryCtxReset, (0), begin_linear, undo_nothing)                                                   \
    SCRIPT(cuDevicePrimaryCtxReset_v2, (0), begin_linear, undo_nothing)                                                \
    SCRIPT(cuDevicePrimaryCtxRetain, (HANDLE(CUcontext), 0), begin_nothing, undo_primary)                              \
    SCRIPT(cuEventSynchronize, (scene.event), begin_freed, undo_nothing)                                               \
    SCRIPT(cuExternalMemoryGetMappedBuffer, (&out.address, scene.external, &buffer_description), begin_external,       \
           undo_address)                                                                                               \
    SCRIPT(cuGraphExecDestroy, (scene.instance), begin_instance, undo_nothing)                                         \
    SCRIPT(cuGraphInstantiate, (HANDLE(CUgraphExec), scene.graph, NULL, NULL, 0), begin_graph, undo_instance)          \
    SCRIPT(cuGraphInstantiate_v2, (HANDLE(CUgraphExec), scene.graph, NULL, NULL, 0), begin_graph, undo_instance)       \
    SCRIPT(cuGraphInstantiateWithFlags, (HANDLE(CUgraphExec), scene.graph, 0), begin_graph, undo_instance)             \
    SCRIPT(cuGraphInstantiateWithParams, (HANDLE(CUgraphExec), scene.graph, &instantiate_parameters), begin_graph,     \
           undo_instance)                                                                                              \
    SCRIPT(cuGraphInstantiateWithParams_ptsz, (HANDLE(CUgraphExec), scene.graph, &instantiate_parameters),             \
           begin_graph, undo_instance)                                                                                 \
    SCRIPT(cuGraphLaunch, (scene.instance, NULL), begin_instance, undo_launch)                                         \
    SCRIPT(cuGraphLaunch_ptsz, (scene.instance, NULL), begin_instance, undo_launch)                                    \
    SCRIPT(cuGraphUpload, (scene.instance, NULL), begin_instance, undo_upload)                                         \
    SCRIPT(cuGraphUpload_ptsz, (scene.instance, NULL), begin_instance, undo_upload)                                    \
    SCRIPT(cuGreenCtxCreate, (HANDLE(CUgreenCtx), scene.description, 0, CU_GREEN_CTX_DEFAULT_STREAM), begin_resources, \
           undo_green)                                                                                                 \
    SCRIPT(cuGreenCtxDestroy, (scene.green), begin_green, undo_nothing)                                                \
    SCRIPT(cuLibraryLoadData, (HANDLE(CUlibrary), IMAGE, NULL, NULL, 0, NULL, NULL, 0), begin_context, undo_library)   \
    SCRIPT(cuLibraryLoadFromFile, (HANDLE(CUlibrary), scene.path, NULL, NULL, 0, NULL, NULL, 0), begin_file,           \
           undo_library)                                                                                               \
    SCRIPT(cuLibraryUnload, (scene.library), begin_library, undo_nothing)                                              \
    SCRIPT(cuMemAlloc, (&out.low, PIECE_BYTES), begin_context, undo_low)                                               \
    SCRIPT(cuMemAllocAsync, (&out.address, PIECE_BYTES, NULL), begin_context, undo_pooled)                             \
    SCRIPT(cuMemAllocAsync_ptsz, (&out.address, PIECE_BYTES, NULL), begin_context, undo_pooled)                        \
    SCRIPT(cuMemAllocFromPoolAsync, (&out.address, PIECE_BYTES, scene.pool, NULL), begin_pool, undo_pooled)            \
    SCRIPT(cuMemAllocFromPoolAsync_ptsz, (&out.address, PIECE_BYTES, scene.pool, NULL), begin_pool, undo_pooled)       \
    SCRIPT(cuMemAllocManaged, (&out.address, PIECE_BYTES, 1), begin_context, undo_address)                             \
    SCRIPT(cuMemAllocPitch, (&out.low, &out.low_pitch, 4000, 1000, 4), begin_context, undo_low)                        \
    SCRIPT(cuMemAllocPitch_v2, (&out.address, &out.pitch, 4000, 1000, 4), begin_context, undo_address)                 \
    SCRIPT(cuMemAlloc_v2, (&out.address, PIECE_BYTES), begin_context, undo_address)                                    \
    SCRIPT(cuMemCreate, (&out.memory, PIECE_BYTES, &properties, 0), begin_context, undo_memory)                        \
    SCRIPT(cuMemExportToShareableHandle, (&out.descriptor, scene.memory, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0), \
           begin_physical, undo_nothing)                                                                               \
    SCRIPT(cuMemFree, (scene.low), begin_low, undo_nothing)                                                            \
    SCRIPT(cuMemFreeAsync, (scene.address, scene.stream), begin_pooled, undo_nothing)                                  \
    SCRIPT(cuMemFreeAsync_ptsz, (scene.address, scene.stream), begin_pooled, undo_nothing)                             \
    SCRIPT(cuMemFree_v2, (scene.address), begin_linear, undo_nothing)                                                  \
    SCRIPT(cuMemGetDefaultMemPool, (HANDLE(CUmemoryPool), &location, CU_MEM_ALLOCATION_TYPE_PINNED), begin_context,    \
           undo_nothing)                                                                                               \
    SCRIPT(cuMemGetMemPool, (HANDLE(CUmemoryPool), &location, CU_MEM_ALLOCATION_TYPE_PINNED), begin_context,           \
           undo_nothing)                                                                                               \
    SCRIPT(cuMemImportFromShareableHandle,                                                                             \
           (&out.memory, (void *)(intptr_t)scene.descriptor, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR),                \
           begin_exported, undo_memory)                                                                                \
    SCRIPT(cuMemMap, (scene.address, PIECE_BYTES, 0, scene.memory, 0), begin_physical, undo_mapping)                   \
    SCRIPT(cuMemPoolCreate, (HANDLE(CUmemoryPool), &pool_properties), begin_context, undo_pool)                        \
    SCRIPT(cuMemPoolDestroy, (scene.pool), begin_pool, undo_nothing)                                                   \
    SCRIPT(cuMemPoolTrimTo, (scene.pool, 0), begin_pool, undo_nothing)                                                 \
    SCRIPT(cuMemRelease, (scene.memory), begin_physical, undo_nothing)                                                 \
    SCRIPT(cuMemRetainAllocationHandle, (&out.memory, (void *)(uintptr_t)scene.address), begin_mapped, undo_memory)    \
    SCRIPT(cuMemUnmap, (scene.address, PIECE_BYTES), begin_mapped_alone, undo_nothing)                                 \
    SCRIPT(cuMipmappedArrayCreate, (HANDLE(CUmipmappedArray), &shape, 2), begin_context, undo_mipmap)                  \
    SCRIPT(cuMipmappedArrayDestroy, (scene.mipmap), begin_mipmap, undo_nothing)                                        \
    SCRIPT(cuModuleLoad, (HANDLE(CUmodule), scene.path), begin_file, undo_module)                                      \
    SCRIPT(cuModuleLoadData, (HANDLE(CUmodule), IMAGE), begin_context, undo_module)                                    \
    SCRIPT(cuModuleLoadDataEx, (HANDLE(CUmodule), IMAGE, 0, NULL, NULL), begin_context, undo_module)                   \
    SCRIPT(cuModuleLoadFatBinary, (HANDLE(CUmodule), IMAGE), begin_context, undo_module)                               \
    SCRIPT(cuModuleUnload, (scene.module), begin_module, undo_nothing)                                                 \
    SCRIPT(cuMulticastCreate, (&out.memory, &object_properties), begin_context, undo_memory)                           \
    SCRIPT(cuStreamSynchronize, (scene.stream), begin_freed, undo_nothing)                                             \
    SCRIPT(cuStreamSynchronize_ptsz, (NULL), begin_freed_alone, undo_nothing)

#define SCRIPT(name, arguments, begin, undo)                                                                           \
    static CUresult call_##name(void)                                                                                  \
    {                                                                                                                  \
        return driver.name arguments;                                                                                  \
    }
SCRIPTS(SCRIPT)
#undef SCRIPT

static const struct script {
    const char *name;
    CUresult (*begin)(void), (*call)(void), (*undo)(void);
} scripts[] = {
#define SCRIPT(name, arguments, begin, undo) {#name, begin, call_##name, undo},
    SCRIPTS(SCRIPT)
#undef SCRIPT
        {"cuImportExternalMemory", begin_exported, call_external, undo_external},
};

static void driver_load(void)
{
    void *handle = dlopen("libcuda.so.1", RTLD_NOW);
    if (!handle)
        exit(2);
#define WRAP(symbol, class, parameters) *(void **)&driver.symbol = dlsym(handle, #symbol);
#define PASS(symbol, class, parameters) *(void **)&driver.symbol = dlsym(handle, #symbol);
#define SAFE(symbol, class, parameters) *(void **)&driver.symbol = dlsym(handle, #symbol);
#include "interpose/hooks.def"
}

static void answer(CUresult result)
{
    if (result)
        printf("error %d\n", result);
    else
        printf("ok\n");
}

static void script_run(const struct script *script, const char *command)
{
    if (strcmp(command, "scene") == 0)
        answer(script->begin());
    else if (strcmp(command, "undo") == 0)
        answer(script->undo());
    else {
        bool touched = false;
        memset(out.bytes, 0x77, sizeof(out.bytes));
        CUresult result = script->call();
        for (size_t i = 0; i < sizeof(out.bytes); i++)
            touched |= out.bytes[i] != 0x77;
        printf("%d %s\n", result, touched ? "touched" : "untouched");
    }
}

int main(void)
{
    char line[64];
    const struct script *script = NULL;
    const char *name = getenv("FAULT_NAME");
    for (size_t i = 0; i < sizeof(scripts) / sizeof(scripts[0]); i++)
        if (name && strcmp(scripts[i].name, name) == 0)
            script = &scripts[i];
    driver_load();
    while (fgets(line, sizeof(line), stdin)) {
        line[strcspn(line, "\n")] = '\0';
        if (strcmp(line, "quit") == 0)
            return 0;
        if (script)
            script_run(script, line);
        else
            printf("none\n");
        fflush(stdout);
    }
    return 0;
}
