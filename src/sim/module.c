/*
 * Modules and kernels. Any image that is not empty loads; what it has are a few kernels by name, which run on the CPU in
 * the calling thread. A kernel that touches memory that is not there faults its context, as on a card.
 *
 *   fill_u32(u64 to, u32 value, u64 count)               to[i] = value
 *   saxpy_f32(f32 a, u64 x, u64 y, u64 count)            y[i] = a * x[i] + y[i]
 *   spin_ms(u32 milliseconds)                            keeps the device busy for that long
 *
 * A module takes of the card what its PTX declares as global variables, and what the option module= says, until it is unloaded or
 * its context ends; less than 1 MiB costs nothing.
 *
 * A handle is valid if it is in its list. The lists are under sim_lock; no lock is held while a kernel runs.
 */
#include "sim/module.h"
#include "sim/graph.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

struct kernel {
    const char *name;
    CUresult (*run)(void **parameters);
    unsigned char bytes[KERNEL_VALUES]; /* of each parameter; 0: no more */
};

struct CUfunc_st {
    CUfunction next;
    CUmodule module;
    const struct kernel *kernel;
};

struct CUmod_st {
    bool loaded;
    CUmodule next;
    CUcontext context;
    uint64_t generation;
    CUlibrary library; /* NULL: loaded by itself */
    uint64_t address;  /* of what it takes of the card; 0: nothing */
};

static CUmodule modules;
static CUfunction functions;

static uint64_t parameter_u64(void **parameters, unsigned index)
{
    uint64_t value;
    memcpy(&value, parameters[index], sizeof(value));
    return value;
}

static uint32_t parameter_u32(void **parameters, unsigned index)
{
    uint32_t value;
    memcpy(&value, parameters[index], sizeof(value));
    return value;
}

static CUresult fill_u32(void **parameters)
{
    struct span to;
    uint32_t value = parameter_u32(parameters, 1);
    uint64_t count = parameter_u64(parameters, 2), bytes;
    if (__builtin_mul_overflow(count, sizeof(value), &bytes) ||
        span_take(&to, parameter_u64(parameters, 0), bytes, SPAN_DEVICE | SPAN_WRITE) != CUDA_SUCCESS)
        return CUDA_ERROR_ILLEGAL_ADDRESS;
    for (uint64_t i = 0; i < count; i++)
        memcpy(to.bytes + i * sizeof(value), &value, sizeof(value));
    span_release(&to);
    return CUDA_SUCCESS;
}

static CUresult saxpy_f32(void **parameters)
{
    struct span x, y;
    float a, left, right;
    uint64_t count = parameter_u64(parameters, 3), bytes;
    memcpy(&a, parameters[0], sizeof(a));
    if (__builtin_mul_overflow(count, sizeof(float), &bytes) ||
        span_take(&x, parameter_u64(parameters, 1), bytes, SPAN_DEVICE) != CUDA_SUCCESS)
        return CUDA_ERROR_ILLEGAL_ADDRESS;
    CUresult result = span_take(&y, parameter_u64(parameters, 2), bytes, SPAN_DEVICE | SPAN_WRITE);
    for (uint64_t i = 0; result == CUDA_SUCCESS && i < count; i++) {
        memcpy(&left, x.bytes + i * sizeof(float), sizeof(float));
        memcpy(&right, y.bytes + i * sizeof(float), sizeof(float));
        right += a * left;
        memcpy(y.bytes + i * sizeof(float), &right, sizeof(float));
    }
    span_release(&x);
    if (result != CUDA_SUCCESS)
        return CUDA_ERROR_ILLEGAL_ADDRESS;
    span_release(&y);
    return CUDA_SUCCESS;
}

static CUresult spin_ms(void **parameters)
{
    uint32_t milliseconds = parameter_u32(parameters, 0);
    struct timespec time = {.tv_sec = milliseconds / 1000, .tv_nsec = (long)(milliseconds % 1000) * 1000000};
    while (clock_nanosleep(CLOCK_MONOTONIC, 0, &time, &time) != 0)
        ;
    return CUDA_SUCCESS;
}

static const struct kernel kernels[] = {
    {"fill_u32", fill_u32, {8, 4, 8}},
    {"saxpy_f32", saxpy_f32, {4, 8, 8, 8}},
    {"spin_ms", spin_ms, {4}},
};

static bool module_is_live(CUmodule module)
{
    CUmodule known = modules;
    while (known && known != module)
        known = known->next;
    return known && known->loaded && atomic_load(&known->context->alive) &&
           atomic_load(&known->context->generation) == known->generation;
}

static bool function_is_live(CUfunction function)
{
    CUfunction known = functions;
    while (known && known != function)
        known = known->next;
    return known && module_is_live(known->module);
}

/* Bytes of a variable of the types that begin so: .b8, .u32, .f64, ... */
static uint64_t type_bytes(const char *type)
{
    unsigned long bits = *type && strchr("busf", *type) ? strtoul(type + 1, NULL, 10) : 0;
    return bits / 8;
}

/* Bytes of the variable that a ".global" declares: its type, and the numbers in brackets behind its name. */
static uint64_t global_bytes(const char *declaration)
{
    uint64_t bytes = 0;
    for (const char *at = declaration; *at && *at != ';' && *at != '=' && *at != '{'; at++) {
        if (*at == '.' && bytes == 0)
            bytes = type_bytes(at + 1);
        else if (*at == '[' && __builtin_mul_overflow(bytes, strtoull(at + 1, NULL, 10), &bytes))
            return UINT64_MAX;
    }
    return bytes;
}

uint64_t image_bytes(const void *image)
{
    static const char word[] = ".global";
    uint64_t bytes = sim_process.options.module_bytes;
    if ((*(const unsigned char *)image & 0x80) != 0 || memcmp(image, "\177", 1) == 0) /* not a text */
        return bytes;
    for (const char *at = image; (at = strstr(at, word)) != NULL;) {
        at += sizeof(word) - 1;
        if (*at == ' ' || *at == '\t') /* else an instruction: ld.global.u32 */
            bytes += global_bytes(at);
    }
    return bytes;
}

/* The driver keeps some room for what is small: modules without large variables cost nothing (measured). */
enum { FREE_BYTES = 1 << 20 };

CUresult module_load(CUcontext context, uint64_t bytes, CUlibrary library, CUmodule *module, CUresult after)
{
    uint64_t address = 0;
    CUresult result = bytes > FREE_BYTES ? memory_allocate(context, bytes, false, false, &address) : CUDA_SUCCESS;
    if (result != CUDA_SUCCESS)
        return result;
    if (after != CUDA_SUCCESS) {
        memory_free(address);
        return after;
    }
    sim_lock();
    CUmodule made = modules;
    while (made && made->loaded)
        made = made->next;
    if (!made && (made = calloc(1, sizeof(*made))) != NULL) {
        made->next = modules;
        modules = made;
    }
    if (made) {
        made->loaded = true;
        made->context = context;
        made->generation = atomic_load(&context->generation);
        made->library = library;
        made->address = address;
    }
    sim_unlock();
    if (!made) {
        memory_free(address);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    *module = made;
    return CUDA_SUCCESS;
}

static CUresult image_load(CUcontext context, CUmodule *module, const void *image, CUresult after)
{
    if (!module || !image)
        return CUDA_ERROR_INVALID_VALUE;
    return *(const char *)image ? module_load(context, image_bytes(image), NULL, module, after)
                                : CUDA_ERROR_INVALID_IMAGE;
}

SIM_API CUresult cuModuleLoadData(CUmodule *module, const void *image)
{
    SIM_ENTER_MAKING(after);
    SIM_CONTEXT(context);
    return image_load(context, module, image, after);
}

SIM_API CUresult cuModuleLoadDataEx(CUmodule *module, const void *image, unsigned count, int *options, void **values)
{
    SIM_ENTER_MAKING(after);
    SIM_CONTEXT(context);
    if (count && (!options || !values))
        return CUDA_ERROR_INVALID_VALUE;
    return image_load(context, module, image, after);
}

SIM_API CUresult cuModuleLoadFatBinary(CUmodule *module, const void *image)
{
    SIM_ENTER_MAKING(after);
    SIM_CONTEXT(context);
    return image_load(context, module, image, after);
}

SIM_API CUresult cuModuleLoad(CUmodule *module, const char *path)
{
    SIM_ENTER_MAKING(after);
    SIM_CONTEXT(context);
    struct stat status;
    if (!module || !path)
        return CUDA_ERROR_INVALID_VALUE;
    if (stat(path, &status) != 0)
        return CUDA_ERROR_FILE_NOT_FOUND;
    return status.st_size > 0 ? module_load(context, sim_process.options.module_bytes, NULL, module, after)
                              : CUDA_ERROR_INVALID_IMAGE;
}

/* Takes a module and its functions away; returns the address of what it took. Under sim_lock. */
static uint64_t module_end(CUmodule module)
{
    module->loaded = false;
    for (CUfunction *link = &functions; *link;) {
        CUfunction function = *link;
        if (function->module != module) {
            link = &function->next;
            continue;
        }
        *link = function->next;
        free(function);
    }
    return module->address;
}

/* A library's module goes with the library. */
SIM_API CUresult cuModuleUnload(CUmodule module)
{
    SIM_ENTER();
    uint64_t address = 0;
    sim_lock();
    bool live = module_is_live(module), owned = live && module->library != NULL;
    if (live && !owned)
        address = module_end(module);
    sim_unlock();
    memory_free(address);
    return !live ? CUDA_ERROR_INVALID_HANDLE : owned ? CUDA_ERROR_NOT_PERMITTED : CUDA_SUCCESS;
}

CUmodule module_of_library(CUlibrary library, CUcontext context)
{
    for (CUmodule known = modules; known; known = known->next)
        if (known->library == library && known->context == context && module_is_live(known))
            return known;
    return NULL;
}

/* A module whose context has ended has given its bytes back with it. */
bool module_end_of_library(CUlibrary library, uint64_t *address)
{
    for (CUmodule known = modules; known; known = known->next) {
        if (!known->loaded || known->library != library)
            continue;
        bool live = module_is_live(known);
        *address = module_end(known);
        if (!live)
            *address = 0;
        return true;
    }
    return false;
}

CUfunction function_of(CUmodule module, const struct kernel *kernel)
{
    for (CUfunction known = functions; known; known = known->next)
        if (known->module == module && known->kernel == kernel)
            return known;
    CUfunction made = calloc(1, sizeof(*made));
    if (made) {
        *made = (struct CUfunc_st){.next = functions, .module = module, .kernel = kernel};
        functions = made;
    }
    return made;
}

const struct kernel *kernel_find(const char *name)
{
    for (size_t i = 0; i < sizeof(kernels) / sizeof(kernels[0]); i++)
        if (strcmp(kernels[i].name, name) == 0)
            return &kernels[i];
    return NULL;
}

SIM_API CUresult cuModuleGetFunction(CUfunction *function, CUmodule module, const char *name)
{
    SIM_ENTER_CONTEXT(context);
    (void)context;
    if (!function || !name)
        return CUDA_ERROR_INVALID_VALUE;
    const struct kernel *kernel = kernel_find(name);
    sim_lock();
    bool live = module_is_live(module);
    CUfunction found = live && kernel ? function_of(module, kernel) : NULL;
    sim_unlock();
    if (!live)
        return CUDA_ERROR_INVALID_HANDLE;
    if (!kernel)
        return CUDA_ERROR_NOT_FOUND;
    if (!found)
        return CUDA_ERROR_OUT_OF_MEMORY;
    *function = found;
    return CUDA_SUCCESS;
}

/* A simulated module has no globals. */
static CUresult global_find(CUmodule module, const char *name)
{
    if (!name)
        return CUDA_ERROR_INVALID_VALUE;
    sim_lock();
    bool live = module_is_live(module);
    sim_unlock();
    return live ? CUDA_ERROR_NOT_FOUND : CUDA_ERROR_INVALID_HANDLE;
}

SIM_API CUresult cuModuleGetGlobal_v2(CUdeviceptr *address, size_t *bytes, CUmodule module, const char *name)
{
    SIM_ENTER_CONTEXT(context);
    (void)context;
    (void)address;
    (void)bytes;
    return global_find(module, name);
}

SIM_API CUresult cuModuleGetGlobal(CUdeviceptr_v1 *address, unsigned *bytes, CUmodule module, const char *name)
{
    SIM_ENTER_CONTEXT(context);
    (void)context;
    (void)address;
    (void)bytes;
    return global_find(module, name);
}

/* 1: modules are loaded eagerly */
SIM_API CUresult cuModuleGetLoadingMode(int *mode)
{
    SIM_ENTER();
    if (!mode)
        return CUDA_ERROR_INVALID_VALUE;
    *mode = 1;
    return CUDA_SUCCESS;
}

static CUresult function_check(CUfunction function)
{
    sim_lock();
    bool live = function_is_live(function);
    sim_unlock();
    return live ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

SIM_API CUresult cuFuncGetAttribute(int *value, int attribute, CUfunction function)
{
    SIM_ENTER_CONTEXT(context);
    (void)context;
    if (!value || attribute < 0 || attribute > 15)
        return CUDA_ERROR_INVALID_VALUE;
    CUresult result = function_check(function);
    if (result != CUDA_SUCCESS)
        return result;
    int version = (int)(sim_process.machine.shared->compute_major * 10 + sim_process.machine.shared->compute_minor);
    *value = attribute == CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK                                          ? 1024
             : attribute == CU_FUNC_ATTRIBUTE_NUM_REGS                                                     ? 16
             : attribute == CU_FUNC_ATTRIBUTE_PTX_VERSION || attribute == CU_FUNC_ATTRIBUTE_BINARY_VERSION ? version
                                                                                                           : 0;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuFuncSetAttribute(CUfunction function, int attribute, int value)
{
    SIM_ENTER_CONTEXT(context);
    (void)context;
    if (value < 0 || (attribute != 8 && attribute != 9)) /* dynamic shared memory, carve-out */
        return CUDA_ERROR_INVALID_VALUE;
    return function_check(function);
}

SIM_API CUresult cuFuncSetCacheConfig(CUfunction function, int config)
{
    SIM_ENTER_CONTEXT(context);
    (void)context;
    return config < 0 || config > 3 ? CUDA_ERROR_INVALID_VALUE : function_check(function);
}

SIM_API CUresult cuFuncGetModule(CUmodule *module, CUfunction function)
{
    SIM_ENTER();
    CUresult result = module ? function_check(function) : CUDA_ERROR_INVALID_VALUE;
    if (result == CUDA_SUCCESS)
        *module = function->module;
    return result;
}

SIM_API CUresult cuFuncGetName(const char **name, CUfunction function)
{
    SIM_ENTER();
    CUresult result = name ? function_check(function) : CUDA_ERROR_INVALID_VALUE;
    if (result == CUDA_SUCCESS)
        *name = function->kernel->name;
    return result;
}

/* Parameters must come one by one: a packed buffer (extra) has no layout that the simulator knows. */
CUresult kernel_record(struct kernel_call *call, CUfunction function, const CUlaunchConfig *launch, void **parameters,
                       void **extra)
{
    CUresult result = function_check(function);
    if (result != CUDA_SUCCESS)
        return result;
    uint64_t threads = (uint64_t)launch->blockDimX * launch->blockDimY * launch->blockDimZ;
    if (!launch->gridDimX || !launch->gridDimY || !launch->gridDimZ || threads == 0 || threads > 1024 || !parameters)
        return extra && !parameters ? CUDA_ERROR_NOT_SUPPORTED : CUDA_ERROR_INVALID_VALUE;
    *call = (struct kernel_call){.kernel = function->kernel};
    for (unsigned i = 0; i < KERNEL_VALUES && call->kernel->bytes[i]; i++)
        memcpy(&call->values[i], parameters[i], call->kernel->bytes[i]);
    return CUDA_SUCCESS;
}

CUresult kernel_run(const struct kernel_call *call)
{
    uint64_t values[KERNEL_VALUES];
    void *parameters[KERNEL_VALUES];
    memcpy(values, call->values, sizeof(values));
    for (unsigned i = 0; i < KERNEL_VALUES; i++)
        parameters[i] = &values[i];
    return call->kernel->run(parameters);
}

static CUresult kernel_launch(CUfunction function, const CUlaunchConfig *launch, void **parameters, void **extra)
{
    CUcontext context;
    struct graph_work work = {.type = CU_GRAPH_NODE_TYPE_KERNEL};
    CUresult result = stream_check(launch->hStream, &context);
    if (result == CUDA_SUCCESS)
        result = kernel_record(&work.kernel, function, launch, parameters, extra);
    if (result != CUDA_SUCCESS || capture_work(launch->hStream, &work, &result))
        return result;
    result = kernel_run(&work.kernel);
    if (result != CUDA_SUCCESS)
        atomic_store(&context->fault, result); /* the launch succeeds: whoever waits for the kernel hears of it */
    return CUDA_SUCCESS;
}

SIM_API CUresult cuLaunchKernel(CUfunction function, unsigned grid_x, unsigned grid_y, unsigned grid_z,
                                unsigned block_x, unsigned block_y, unsigned block_z, unsigned shared_bytes,
                                CUstream stream, void **parameters, void **extra)
{
    SIM_ENTER();
    CUlaunchConfig launch = {.gridDimX = grid_x,
                             .gridDimY = grid_y,
                             .gridDimZ = grid_z,
                             .blockDimX = block_x,
                             .blockDimY = block_y,
                             .blockDimZ = block_z,
                             .sharedMemBytes = shared_bytes,
                             .hStream = stream};
    return kernel_launch(function, &launch, parameters, extra);
}

SIM_API CUresult cuLaunchCooperativeKernel(CUfunction function, unsigned grid_x, unsigned grid_y, unsigned grid_z,
                                           unsigned block_x, unsigned block_y, unsigned block_z, unsigned shared_bytes,
                                           CUstream stream, void **parameters)
{
    SIM_ENTER();
    CUlaunchConfig launch = {.gridDimX = grid_x,
                             .gridDimY = grid_y,
                             .gridDimZ = grid_z,
                             .blockDimX = block_x,
                             .blockDimY = block_y,
                             .blockDimZ = block_z,
                             .sharedMemBytes = shared_bytes,
                             .hStream = stream};
    return kernel_launch(function, &launch, parameters, NULL);
}

SIM_API CUresult cuLaunchKernelEx(const CUlaunchConfig *launch, CUfunction function, void **parameters, void **extra)
{
    SIM_ENTER();
    return launch ? kernel_launch(function, launch, parameters, extra) : CUDA_ERROR_INVALID_VALUE;
}

SIM_API CUresult cuOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, CUfunction function, int block_size,
                                                             size_t shared_bytes)
{
    SIM_ENTER_CONTEXT(context);
    (void)context;
    (void)shared_bytes;
    if (!blocks || block_size < 1 || block_size > 1024)
        return CUDA_ERROR_INVALID_VALUE;
    CUresult result = function_check(function);
    if (result == CUDA_SUCCESS)
        *blocks = 2048 / block_size > 32 ? 32 : 2048 / block_size;
    return result;
}

SIM_API CUresult cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *blocks, CUfunction function, int block_size,
                                                                      size_t shared_bytes, unsigned flags)
{
    if (flags & ~1u)
        return CUDA_ERROR_INVALID_VALUE;
    return cuOccupancyMaxActiveBlocksPerMultiprocessor(blocks, function, block_size, shared_bytes);
}

SIM_API CUresult cuOccupancyMaxPotentialBlockSize(int *grid_size, int *block_size, CUfunction function,
                                                  size_t (*shared_of_block)(int), size_t shared_bytes, int limit)
{
    SIM_ENTER_CONTEXT(context);
    (void)context;
    (void)shared_of_block;
    (void)shared_bytes;
    if (!grid_size || !block_size || limit < 0)
        return CUDA_ERROR_INVALID_VALUE;
    CUresult result = function_check(function);
    if (result == CUDA_SUCCESS) {
        *block_size = limit > 0 && limit < 1024 ? limit : 1024;
        *grid_size = 132 * (2048 / *block_size);
    }
    return result;
}

SIM_API CUresult cuOccupancyMaxPotentialBlockSizeWithFlags(int *grid_size, int *block_size, CUfunction function,
                                                           size_t (*shared_of_block)(int), size_t shared_bytes,
                                                           int limit, unsigned flags)
{
    if (flags & ~1u)
        return CUDA_ERROR_INVALID_VALUE;
    return cuOccupancyMaxPotentialBlockSize(grid_size, block_size, function, shared_of_block, shared_bytes, limit);
}

SIM_API CUresult cuProfilerStart(void)
{
    SIM_ENTER_CONTEXT(context);
    (void)context;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuProfilerStop(void)
{
    SIM_ENTER_CONTEXT(context);
    (void)context;
    return CUDA_SUCCESS;
}
