/* What the simulated driver takes of the card beside memory that is asked for: modules, libraries, stacks, green contexts. */
#include "unit/sim_context.h"

#define PTX ".version 8.0\n.target sm_90\n.address_size 64\n"
#define BIG PTX ".visible .global .align 4 .b8 big[67108864];\n"

CUresult cuLibraryLoadData(CUlibrary *library, const void *image, CUjit_option *options, void **values, unsigned count,
                           CUlibraryOption *library_options, void **library_values, unsigned library_count);
CUresult cuLibraryGetKernel(CUkernel *kernel, CUlibrary library, const char *name);
CUresult cuLibraryGetModule(CUmodule *module, CUlibrary library);
CUresult cuLibraryUnload(CUlibrary library);
CUresult cuKernelGetFunction(CUfunction *function, CUkernel kernel);
CUresult cuCtxSetLimit(int limit, size_t value);
CUresult cuCtxGetLimit(size_t *value, int limit);
CUresult cuDeviceGetDevResource(CUdevice device, CUdevResource *resource, CUdevResourceType type);
CUresult cuDevSmResourceSplitByCount(CUdevResource *groups, unsigned *count, const CUdevResource *input,
                                     CUdevResource *rest, unsigned flags, unsigned least);
CUresult cuDevResourceGenerateDesc(CUdevResourceDesc *description, CUdevResource *resources, unsigned count);
CUresult cuGreenCtxCreate(CUgreenCtx *green, CUdevResourceDesc description, CUdevice device, unsigned flags);
CUresult cuGreenCtxDestroy(CUgreenCtx green);
CUresult cuCtxFromGreenCtx(CUcontext *context, CUgreenCtx green);
CUresult cuGreenCtxStreamCreate(CUstream *stream, CUgreenCtx green, unsigned flags, int priority);

static int group_setup(void **state)
{
    (void)state;
    return context_open("");
}

static void modules_cost_their_global_variables(void **state)
{
    (void)state;
    static const struct {
        const char *image;
        uint64_t mib;
    } cases[] = {
        {"x", 0},
        {PTX ".global .u32 one;\n", 0},
        {BIG, 64},
        {PTX ".global .align 8 .f64 grid[1024][1024];\n", 8},
        {PTX ".global .b32 a[786432];\n.global .b32 b[786432] = {1, 2};\n", 6},
        {PTX "ld.global.u32 %r1, [67108864];\n", 0},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        CUmodule module;
        assert_int_equal(cuModuleLoadData(&module, cases[i].image), CUDA_SUCCESS);
        assert_int_equal(used(), cases[i].mib * MIB);
        assert_int_equal(cuModuleUnload(module), CUDA_SUCCESS);
        assert_int_equal(used(), 0);
    }
    CUmodule module = (CUmodule)(uintptr_t)5;
    assert_int_equal(cuModuleLoadData(&module, PTX ".global .b8 huge[68719476736];\n"), CUDA_ERROR_OUT_OF_MEMORY);
    assert_ptr_equal(module, (CUmodule)(uintptr_t)5);
}

static void modules_go_with_their_context(void **state)
{
    (void)state;
    CUcontext other;
    CUmodule module;
    assert_int_equal(cuCtxCreate_v2(&other, 0, 0), CUDA_SUCCESS);
    assert_int_equal(cuModuleLoadData(&module, BIG), CUDA_SUCCESS);
    assert_int_equal(used(), CONTEXT_BYTES + 64 * MIB);
    assert_int_equal(cuCtxDestroy_v2(other), CUDA_SUCCESS);
    assert_int_equal(used(), 0);
    assert_int_equal(cuCtxSetCurrent(context), CUDA_SUCCESS);
    assert_int_equal(cuModuleUnload(module), CUDA_ERROR_INVALID_HANDLE);
}

/* Nothing at the load and at the kernel, all at its function. */
static void libraries_cost_at_first_use(void **state)
{
    (void)state;
    CUlibrary library;
    CUkernel kernel, again;
    CUfunction function, other;
    CUmodule module;
    CUdeviceptr address;
    uint32_t value = 7, seen[4];
    uint64_t count = 4;
    assert_int_equal(cuMemAlloc_v2(&address, 16), CUDA_SUCCESS);
    assert_int_equal(cuLibraryLoadData(&library, BIG, NULL, NULL, 0, NULL, NULL, 0), CUDA_SUCCESS);
    assert_int_equal(cuLibraryGetKernel(&kernel, library, "fill_u32"), CUDA_SUCCESS);
    assert_int_equal(cuLibraryGetKernel(&again, library, "fill_u32"), CUDA_SUCCESS);
    assert_ptr_equal(kernel, again);
    assert_int_equal(cuLibraryGetKernel(&again, library, "nothing"), CUDA_ERROR_NOT_FOUND);
    assert_int_equal(used(), 2 * MIB);
    assert_int_equal(cuKernelGetFunction(&function, kernel), CUDA_SUCCESS);
    assert_int_equal(used(), 66 * MIB);
    assert_int_equal(cuKernelGetFunction(&other, kernel), CUDA_SUCCESS);
    assert_ptr_equal(function, other);
    assert_int_equal(cuLibraryGetModule(&module, library), CUDA_SUCCESS);
    assert_int_equal(used(), 66 * MIB);
    assert_int_equal(cuModuleUnload(module), CUDA_ERROR_NOT_PERMITTED);
    void *parameters[] = {&address, &value, &count};
    assert_int_equal(cuLaunchKernel(function, 1, 1, 1, 4, 1, 1, 0, NULL, parameters, NULL), CUDA_SUCCESS);
    assert_int_equal(cuMemcpyDtoH_v2(seen, address, sizeof(seen)), CUDA_SUCCESS);
    assert_int_equal(seen[3], 7);
    assert_int_equal(cuLibraryUnload(library), CUDA_SUCCESS);
    assert_int_equal(used(), 2 * MIB);
    assert_int_equal(cuLibraryUnload(library), CUDA_ERROR_INVALID_HANDLE);
    assert_int_equal(cuKernelGetFunction(&function, kernel), CUDA_ERROR_INVALID_HANDLE);
    assert_int_equal(cuMemFree_v2(address), CUDA_SUCCESS);
}

static void stacks_cost_what_was_measured(void **state)
{
    (void)state;
    CUcontext other;
    size_t value;
    assert_int_equal(cuCtxCreate_v2(&other, 0, 0), CUDA_SUCCESS);
    uint64_t before = used();
    assert_int_equal(cuCtxSetLimit(0, 16384), CUDA_SUCCESS);
    assert_int_equal(used() - before, 3960 * MIB);
    assert_int_equal(cuCtxSetLimit(0, 65536), CUDA_SUCCESS);
    assert_int_equal(used() - before, 16632 * MIB);
    assert_int_equal(cuCtxSetLimit(0, 1024), CUDA_SUCCESS);
    assert_int_equal(used() - before, 0);
    assert_int_equal(cuCtxSetLimit(0, 131072), CUDA_ERROR_OUT_OF_MEMORY);
    assert_int_equal(cuCtxGetLimit(&value, 0), CUDA_SUCCESS);
    assert_int_equal(value, 1024);
    assert_int_equal(cuCtxSetLimit(1, 64 * MIB), CUDA_SUCCESS);
    assert_int_equal(cuCtxSetLimit(2, 256 * MIB), CUDA_SUCCESS);
    assert_int_equal(cuCtxSetLimit(3, 10), CUDA_ERROR_UNSUPPORTED_LIMIT);
    assert_int_equal(used() - before, 0);
    assert_int_equal(cuCtxDestroy_v2(other), CUDA_SUCCESS);
    assert_int_equal(used(), 0);
    assert_int_equal(cuCtxSetCurrent(context), CUDA_SUCCESS);
}

static void green_contexts_work_in_the_primary_context(void **state)
{
    (void)state;
    CUdevResource all, groups[2];
    CUdevResourceDesc description;
    CUgreenCtx green[2];
    CUcontext view, seen;
    CUstream stream;
    CUdeviceptr address;
    unsigned count = 2;
    int active = 0;
    assert_int_equal(cuDeviceGetDevResource(0, &all, CU_DEV_RESOURCE_TYPE_SM), CUDA_SUCCESS);
    assert_int_equal(cuDevSmResourceSplitByCount(groups, &count, &all, NULL, 0, 64), CUDA_SUCCESS);
    assert_int_equal(count, 2);
    assert_int_equal(cuDevResourceGenerateDesc(&description, &groups[0], 1), CUDA_SUCCESS);
    assert_int_equal(cuGreenCtxCreate(&green[0], description, 0, 0), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(cuGreenCtxCreate(&green[0], description, 0, CU_GREEN_CTX_DEFAULT_STREAM), CUDA_SUCCESS);
    assert_int_equal(used(), 6 * MIB);
    assert_int_equal(cuGreenCtxCreate(&green[1], description, 0, CU_GREEN_CTX_DEFAULT_STREAM), CUDA_SUCCESS);
    assert_int_equal(used(), 10 * MIB);
    assert_int_equal(cuCtxFromGreenCtx(&view, green[0]), CUDA_SUCCESS);
    assert_int_equal(cuGreenCtxStreamCreate(&stream, green[0], CU_STREAM_NON_BLOCKING, 0), CUDA_SUCCESS);
    assert_int_equal(cuStreamDestroy_v2(stream), CUDA_SUCCESS);
    assert_int_equal(cuCtxSetCurrent(view), CUDA_SUCCESS);
    assert_int_equal(cuCtxGetCurrent(&seen), CUDA_SUCCESS);
    assert_ptr_equal(seen, view);
    assert_int_equal(cuMemAlloc_v2(&address, 4 * MIB), CUDA_SUCCESS);
    assert_int_equal(cuCtxDestroy_v2(view), CUDA_ERROR_INVALID_CONTEXT);
    assert_int_equal(cuGreenCtxDestroy(green[0]), CUDA_SUCCESS);
    assert_int_equal(cuCtxSynchronize(), CUDA_ERROR_CONTEXT_IS_DESTROYED);
    assert_int_equal(cuCtxSetCurrent(context), CUDA_SUCCESS);
    assert_int_equal(used(), 14 * MIB); /* what was allocated is the primary context's */
    assert_int_equal(cuMemFree_v2(address), CUDA_SUCCESS);
    assert_int_equal(used(), 10 * MIB);
    assert_int_equal(cuDevicePrimaryCtxRelease_v2(0), CUDA_SUCCESS);
    assert_int_equal(cuDevicePrimaryCtxGetState(0, NULL, &active), CUDA_SUCCESS);
    assert_int_equal(active, 1); /* the other green one retains it */
    assert_int_equal(cuGreenCtxDestroy(green[1]), CUDA_SUCCESS);
    assert_int_equal(cuGreenCtxDestroy(green[1]), CUDA_ERROR_INVALID_CONTEXT);
    assert_int_equal(stage_figures().device[0].used_bytes, 0);
    assert_int_equal(cuDevicePrimaryCtxRetain(&context, 0), CUDA_SUCCESS);
    assert_int_equal(cuCtxSetCurrent(context), CUDA_SUCCESS);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(modules_cost_their_global_variables),
        cmocka_unit_test(modules_go_with_their_context),
        cmocka_unit_test(libraries_cost_at_first_use),
        cmocka_unit_test(stacks_cost_what_was_measured),
        cmocka_unit_test(green_contexts_work_in_the_primary_context),
    };
    return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
