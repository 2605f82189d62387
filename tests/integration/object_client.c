/*
 * A CUDA driver API program like tests/integration/client.c, for what is not plain memory: arrays, modules, libraries, limits and
 * green contexts. One command a line on its standard input, one answer a line: "ok", or "error N". It knows nothing of cubudget.
 *
 *   init                                       cuInit, the primary context of device 0 made current
 *   uncontext / reset                          the primary context released / reset
 *   new / end                                  a context of its own made, and current / destroyed, the primary current again
 *   alloc INDEX BYTES / free INDEX             cuMemAlloc_v2, cuMemFree_v2
 *   narrow INDEX BYTES / unnarrow INDEX        cuMemAlloc, cuMemFree: the interface of 32 bits
 *   pitch INDEX WIDTH HEIGHT                   cuMemAllocPitch of it
 *   array INDEX W H D FORMAT CHANNELS FLAGS    cuArray3DCreate_v2; array2, array3v1, array2v1: the other three
 *   mipmap INDEX W H D FORMAT CHANNELS FLAGS LEVELS
 *   destroy INDEX                              cuArrayDestroy or cuMipmappedArrayDestroy
 *   module INDEX HOW TEXT                      cuModuleLoadData, ...DataEx, ...FatBinary or cuModuleLoad (HOW: data, ex, fat, file)
 *   unload INDEX                               cuModuleUnload
 *   library INDEX TEXT / libraryfile INDEX TEXT, function INDEX, unlibrary INDEX
 *                                              cuLibraryLoadData, ...FromFile; its kernel's function; cuLibraryUnload
 *   limit LIMIT VALUE                          cuCtxSetLimit
 *   green INDEX / ungreen INDEX / greenalloc INDEX BYTES
 *                                              a green context made, destroyed, or current for one cuMemAlloc_v2
 *   churn ROUNDS SEED                          arrays and memory at random, most of it small; all gone at the end
 *   null                                       every creating call with NULL arguments: "ok" where each is refused with 1
 *   quit
 */
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cuda/cuda_abi.h"

enum { PLACES = 2048, TEXT_BYTES = 4096 };

#define FUNCTIONS(F)                                                                                                   \
    F(cuInit, (unsigned))                                                                                              \
    F(cuDevicePrimaryCtxRetain, (CUcontext *, CUdevice))                                                               \
    F(cuDevicePrimaryCtxRelease_v2, (CUdevice))                                                                        \
    F(cuDevicePrimaryCtxReset_v2, (CUdevice))                                                                          \
    F(cuCtxCreate_v2, (CUcontext *, unsigned, CUdevice))                                                               \
    F(cuCtxDestroy_v2, (CUcontext))                                                                                    \
    F(cuCtxSetCurrent, (CUcontext))                                                                                    \
    F(cuCtxSetLimit, (int, size_t))                                                                                    \
    F(cuMemAlloc_v2, (CUdeviceptr *, size_t))                                                                          \
    F(cuMemFree_v2, (CUdeviceptr))                                                                                     \
    F(cuMemAlloc, (CUdeviceptr_v1 *, unsigned))                                                                        \
    F(cuMemFree, (CUdeviceptr_v1))                                                                                     \
    F(cuMemAllocPitch, (CUdeviceptr_v1 *, unsigned *, unsigned, unsigned, unsigned))                                   \
    F(cuArray3DCreate_v2, (CUarray *, const CUDA_ARRAY3D_DESCRIPTOR *))                                                \
    F(cuArray3DCreate, (CUarray *, const CUDA_ARRAY3D_DESCRIPTOR_v1 *))                                                \
    F(cuArrayCreate_v2, (CUarray *, const CUDA_ARRAY_DESCRIPTOR *))                                                    \
    F(cuArrayCreate, (CUarray *, const CUDA_ARRAY_DESCRIPTOR_v1 *))                                                    \
    F(cuArrayDestroy, (CUarray))                                                                                       \
    F(cuMipmappedArrayCreate, (CUmipmappedArray *, const CUDA_ARRAY3D_DESCRIPTOR *, unsigned))                         \
    F(cuMipmappedArrayDestroy, (CUmipmappedArray))                                                                     \
    F(cuModuleLoad, (CUmodule *, const char *))                                                                        \
    F(cuModuleLoadData, (CUmodule *, const void *))                                                                    \
    F(cuModuleLoadDataEx, (CUmodule *, const void *, unsigned, int *, void **))                                        \
    F(cuModuleLoadFatBinary, (CUmodule *, const void *))                                                               \
    F(cuModuleUnload, (CUmodule))                                                                                      \
    F(cuLibraryLoadData, (CUlibrary *, const void *, int *, void **, unsigned, int *, void **, unsigned))              \
    F(cuLibraryLoadFromFile, (CUlibrary *, const char *, int *, void **, unsigned, int *, void **, unsigned))          \
    F(cuLibraryGetKernel, (CUkernel *, CUlibrary, const char *))                                                       \
    F(cuLibraryUnload, (CUlibrary))                                                                                    \
    F(cuKernelGetFunction, (CUfunction *, CUkernel))                                                                   \
    F(cuDeviceGetDevResource, (CUdevice, CUdevResource *, int))                                                        \
    F(cuDevResourceGenerateDesc, (CUdevResourceDesc *, CUdevResource *, unsigned))                                     \
    F(cuGreenCtxCreate, (CUgreenCtx *, CUdevResourceDesc, CUdevice, unsigned))                                         \
    F(cuGreenCtxDestroy, (CUgreenCtx))                                                                                 \
    F(cuCtxFromGreenCtx, (CUcontext *, CUgreenCtx))

static struct {
#define F(name, parameters) CUresult(*name) parameters;
    FUNCTIONS(F)
#undef F
} driver;

static CUcontext primary, own;
static CUdeviceptr memory[PLACES];
static void *objects[PLACES];
static unsigned char is_mipmap[PLACES];

static void driver_load(void)
{
    void *handle = dlopen("libcuda.so.1", RTLD_NOW);
#define F(name, parameters)                                                                                            \
    *(void **)&driver.name = handle ? dlsym(handle, #name) : NULL;                                                     \
    if (!driver.name) {                                                                                                \
        printf("error no %s\n", #name);                                                                                \
        exit(2);                                                                                                       \
    }
    FUNCTIONS(F)
#undef F
}

static CUresult context_enter(void)
{
    CUresult result = driver.cuInit(0);
    if (result == CUDA_SUCCESS)
        result = driver.cuDevicePrimaryCtxRetain(&primary, 0);
    return result ? result : driver.cuCtxSetCurrent(primary);
}

static CUresult array_make(const char *verb, unsigned index, const CUDA_ARRAY3D_DESCRIPTOR *shape, unsigned levels)
{
    CUDA_ARRAY3D_DESCRIPTOR_v1 narrow = {(unsigned)shape->Width, (unsigned)shape->Height, (unsigned)shape->Depth,
                                         shape->Format,          shape->NumChannels,      shape->Flags};
    CUDA_ARRAY_DESCRIPTOR flat = {shape->Width, shape->Height, shape->Format, shape->NumChannels};
    CUDA_ARRAY_DESCRIPTOR_v1 narrow_flat = {narrow.Width, narrow.Height, narrow.Format, narrow.NumChannels};
    is_mipmap[index] = strcmp(verb, "mipmap") == 0;
    if (is_mipmap[index])
        return driver.cuMipmappedArrayCreate((CUmipmappedArray *)&objects[index], shape, levels);
    if (strcmp(verb, "array2") == 0)
        return driver.cuArrayCreate_v2((CUarray *)&objects[index], &flat);
    if (strcmp(verb, "array3v1") == 0)
        return driver.cuArray3DCreate((CUarray *)&objects[index], &narrow);
    if (strcmp(verb, "array2v1") == 0)
        return driver.cuArrayCreate((CUarray *)&objects[index], &narrow_flat);
    return driver.cuArray3DCreate_v2((CUarray *)&objects[index], shape);
}

static CUresult array_destroy(unsigned index)
{
    return is_mipmap[index] ? driver.cuMipmappedArrayDestroy(objects[index]) : driver.cuArrayDestroy(objects[index]);
}

static CUresult module_load(unsigned index, const char *how, const char *text)
{
    CUmodule *module = (CUmodule *)&objects[index];
    if (strcmp(how, "file") == 0)
        return driver.cuModuleLoad(module, text);
    if (strcmp(how, "ex") == 0)
        return driver.cuModuleLoadDataEx(module, text, 0, NULL, NULL);
    return strcmp(how, "fat") == 0 ? driver.cuModuleLoadFatBinary(module, text) : driver.cuModuleLoadData(module, text);
}

static CUresult library_function(unsigned index)
{
    CUkernel kernel;
    CUfunction function;
    CUresult result = driver.cuLibraryGetKernel(&kernel, objects[index], "fill_u32");
    return result ? result : driver.cuKernelGetFunction(&function, kernel);
}

static CUresult green_make(unsigned index)
{
    CUdevResource resource;
    CUdevResourceDesc description;
    CUresult result = driver.cuDeviceGetDevResource(0, &resource, CU_DEV_RESOURCE_TYPE_SM);
    if (result == CUDA_SUCCESS)
        result = driver.cuDevResourceGenerateDesc(&description, &resource, 1);
    if (result == CUDA_SUCCESS)
        result = driver.cuGreenCtxCreate((CUgreenCtx *)&objects[index], description, 0, CU_GREEN_CTX_DEFAULT_STREAM);
    return result;
}

static CUresult green_allocate(unsigned index, size_t bytes)
{
    CUcontext context;
    CUresult result = driver.cuCtxFromGreenCtx(&context, objects[index]);
    if (result == CUDA_SUCCESS)
        result = driver.cuCtxSetCurrent(context);
    if (result == CUDA_SUCCESS)
        result = driver.cuMemAlloc_v2(&memory[index], bytes);
    CUresult back = driver.cuCtxSetCurrent(primary);
    return result ? result : back;
}

static uint64_t random_next(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

/* A place of the churn: taken at random as memory or an array, or given back. */
static CUresult churn_step(unsigned place, uint64_t *state)
{
    CUDA_ARRAY3D_DESCRIPTOR shape = {.Format = CU_AD_FORMAT_FLOAT, .NumChannels = 1};
    CUresult result;
    if (memory[place] != 0) {
        result = driver.cuMemFree_v2(memory[place]);
        memory[place] = 0;
        return result;
    }
    if (objects[place] != NULL) {
        result = array_destroy(place);
        objects[place] = NULL;
        return result;
    }
    if (random_next(state) % 2 == 0)
        return driver.cuMemAlloc_v2(&memory[place], random_next(state) % (1 << 20) + 1);
    shape.Width = random_next(state) % 600 + 1;
    shape.Height = random_next(state) % 600;
    return array_make(random_next(state) % 4 == 0 ? "mipmap" : "array", place, &shape, 3);
}

static CUresult churn(unsigned rounds, uint64_t seed)
{
    uint64_t state = seed * 0x9E3779B97F4A7C15u + 1;
    CUresult result = CUDA_SUCCESS;
    for (unsigned round = 0; round < rounds && result == CUDA_SUCCESS; round++) {
        result = churn_step((unsigned)(random_next(&state) % 64), &state);
        if (result == CUDA_ERROR_OUT_OF_MEMORY)
            result = CUDA_SUCCESS;
    }
    for (unsigned place = 0; place < 64 && result == CUDA_SUCCESS; place++)
        if (memory[place] != 0 || objects[place] != NULL)
            result = churn_step(place, &state);
    return result;
}

static CUresult nulls(void)
{
    CUDA_ARRAY3D_DESCRIPTOR shape = {.Width = 2048, .Height = 2048, .Format = CU_AD_FORMAT_FLOAT, .NumChannels = 1};
    CUarray array;
    CUmipmappedArray mipmap;
    CUmodule module;
    unsigned pitch;
    const CUresult results[] = {
        driver.cuArray3DCreate_v2(NULL, &shape),
        driver.cuArray3DCreate_v2(&array, NULL),
        driver.cuArray3DCreate(&array, NULL),
        driver.cuArrayCreate_v2(&array, NULL),
        driver.cuArrayCreate(&array, NULL),
        driver.cuMipmappedArrayCreate(NULL, &shape, 1),
        driver.cuMipmappedArrayCreate(&mipmap, NULL, 1),
        driver.cuMemAlloc(NULL, 1),
        driver.cuMemAllocPitch(NULL, &pitch, 1, 1, 4),
        driver.cuModuleLoadData(NULL, "x"),
        driver.cuModuleLoadData(&module, NULL),
        driver.cuModuleLoad(&module, NULL),
    };
    for (size_t i = 0; i < sizeof(results) / sizeof(results[0]); i++)
        if (results[i] != CUDA_ERROR_INVALID_VALUE)
            return (CUresult)(1000 + (int)i);
    return CUDA_SUCCESS;
}

/* Commands about places with numbers for arguments. */
static CUresult place_run(const char *verb, const char *arguments)
{
    unsigned index = 0, pitch = 0, channels = 1, flags = 0, levels = 1;
    size_t first = 0, second = 0, third = 0;
    int format = CU_AD_FORMAT_FLOAT;
    sscanf(arguments, "%u %zu %zu %zu %i %u %i %u", &index, &first, &second, &third, &format, &channels, (int *)&flags,
           &levels);
    if (index >= PLACES)
        abort();
    CUDA_ARRAY3D_DESCRIPTOR shape = {first, second, third, format, channels, flags};
    CUdeviceptr_v1 narrow = (CUdeviceptr_v1)memory[index];
    CUresult result = -1;
    if (strcmp(verb, "alloc") == 0)
        return driver.cuMemAlloc_v2(&memory[index], first);
    if (strcmp(verb, "free") == 0)
        return driver.cuMemFree_v2(memory[index]);
    if (strcmp(verb, "narrow") == 0)
        result = driver.cuMemAlloc(&narrow, (unsigned)first);
    else if (strcmp(verb, "pitch") == 0)
        result = driver.cuMemAllocPitch(&narrow, &pitch, (unsigned)first, (unsigned)second, 4);
    else if (strcmp(verb, "unnarrow") == 0)
        return driver.cuMemFree(narrow);
    else if (strcmp(verb, "destroy") == 0)
        return array_destroy(index);
    else if (strcmp(verb, "unload") == 0)
        return driver.cuModuleUnload(objects[index]);
    else if (strcmp(verb, "function") == 0)
        return library_function(index);
    else if (strcmp(verb, "unlibrary") == 0)
        return driver.cuLibraryUnload(objects[index]);
    else if (strcmp(verb, "limit") == 0)
        return driver.cuCtxSetLimit((int)index, first);
    else if (strcmp(verb, "green") == 0)
        return green_make(index);
    else if (strcmp(verb, "ungreen") == 0)
        return driver.cuGreenCtxDestroy(objects[index]);
    else if (strcmp(verb, "greenalloc") == 0)
        return green_allocate(index, first);
    else if (strcmp(verb, "churn") == 0)
        abort();
    else
        return array_make(verb, index, &shape, levels);
    if (result == CUDA_SUCCESS)
        memory[index] = narrow;
    return result;
}

static CUresult command_run(char *line)
{
    static char text[TEXT_BYTES];
    char how[16];
    unsigned index, rounds;
    unsigned long long seed;
    char *arguments = line + strcspn(line, " ");
    if (*arguments)
        *arguments++ = '\0';
    if (strcmp(line, "init") == 0)
        return context_enter();
    if (strcmp(line, "uncontext") == 0)
        return driver.cuDevicePrimaryCtxRelease_v2(0);
    if (strcmp(line, "reset") == 0)
        return driver.cuDevicePrimaryCtxReset_v2(0);
    if (strcmp(line, "new") == 0)
        return driver.cuCtxCreate_v2(&own, 0, 0);
    if (strcmp(line, "end") == 0) {
        CUresult result = driver.cuCtxDestroy_v2(own);
        return result ? result : driver.cuCtxSetCurrent(primary);
    }
    if (strcmp(line, "null") == 0)
        return nulls();
    if (strcmp(line, "churn") == 0 && sscanf(arguments, "%u %llu", &rounds, &seed) == 2)
        return churn(rounds, seed);
    if (strcmp(line, "module") == 0 && sscanf(arguments, "%u %15s %4095[^\n]", &index, how, text) == 3)
        return module_load(index, how, text);
    if (strcmp(line, "library") == 0 && sscanf(arguments, "%u %4095[^\n]", &index, text) == 2)
        return driver.cuLibraryLoadData((CUlibrary *)&objects[index], text, NULL, NULL, 0, NULL, NULL, 0);
    if (strcmp(line, "libraryfile") == 0 && sscanf(arguments, "%u %4095[^\n]", &index, text) == 2)
        return driver.cuLibraryLoadFromFile((CUlibrary *)&objects[index], text, NULL, NULL, 0, NULL, NULL, 0);
    return place_run(line, arguments);
}

int main(void)
{
    static char line[TEXT_BYTES + 64];
    driver_load();
    while (fgets(line, sizeof(line), stdin)) {
        line[strcspn(line, "\n")] = '\0';
        if (strcmp(line, "quit") == 0)
            return 0;
        CUresult result = command_run(line);
        if (result)
            printf("error %d\n", result);
        else
            printf("ok\n");
        fflush(stdout);
    }
    return 0;
}
