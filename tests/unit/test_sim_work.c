/* The simulated driver's contexts, streams, events, modules and kernels. Each test begins and ends without a context. */
#include "unit/sim_stage.h"

#include <pthread.h>

#define CONTEXT_BYTES (527 * MIB)

static uint64_t used(void)
{
    return stage_figures().device[0].used_bytes;
}

static int group_setup(void **state)
{
    (void)state;
    return stage_open("devices=2") != 0 || cuInit(0) != CUDA_SUCCESS ? -1 : 0;
}

static int group_teardown(void **state)
{
    (void)state;
    return stage_close();
}

static CUcontext primary_enter(void)
{
    CUcontext context = NULL;
    assert_int_equal(cuDevicePrimaryCtxRetain(&context, 0), CUDA_SUCCESS);
    assert_int_equal(cuCtxSetCurrent(context), CUDA_SUCCESS);
    return context;
}

static void primary_leave(void)
{
    assert_int_equal(cuCtxSetCurrent(NULL), CUDA_SUCCESS);
    assert_int_equal(cuDevicePrimaryCtxRelease_v2(0), CUDA_SUCCESS);
    assert_int_equal(used(), 0);
}

static int primary_is_active(void)
{
    int active = -1;
    unsigned flags;
    assert_int_equal(cuDevicePrimaryCtxGetState(0, &flags, &active), CUDA_SUCCESS);
    return active;
}

static void primary_context_is_counted(void **state)
{
    (void)state;
    CUcontext one, two;
    assert_int_equal(cuDevicePrimaryCtxRelease(0), CUDA_ERROR_INVALID_CONTEXT);
    assert_int_equal(cuDevicePrimaryCtxRetain(&one, 7), CUDA_ERROR_INVALID_DEVICE);
    assert_int_equal(primary_is_active(), 0);
    assert_int_equal(cuDevicePrimaryCtxRetain(&one, 0), CUDA_SUCCESS);
    assert_int_equal(cuDevicePrimaryCtxRetain(&two, 0), CUDA_SUCCESS);
    assert_ptr_equal(one, two);
    assert_int_equal(used(), CONTEXT_BYTES);
    assert_int_equal(cuDevicePrimaryCtxRelease(0), CUDA_SUCCESS);
    assert_int_equal(primary_is_active(), 1);
    assert_int_equal(cuDevicePrimaryCtxRelease_v2(0), CUDA_SUCCESS);
    assert_int_equal(primary_is_active(), 0);
    assert_int_equal(used(), 0);
}

static void reset_gives_all_back_and_keeps_references(void **state)
{
    (void)state;
    CUdeviceptr address;
    CUstream stream;
    CUresult (*const resets[])(CUdevice) = {cuDevicePrimaryCtxReset, cuDevicePrimaryCtxReset_v2};
    for (int i = 0; i < 2; i++) {
        primary_enter();
        assert_int_equal(cuMemAlloc_v2(&address, 512 * MIB), CUDA_SUCCESS);
        assert_int_equal(cuMemAlloc_v2(&address, 1000), CUDA_SUCCESS);
        assert_int_equal(cuStreamCreate(&stream, 0), CUDA_SUCCESS);
        assert_int_equal(used(), CONTEXT_BYTES + 514 * MIB);
        assert_int_equal(resets[i](0), CUDA_SUCCESS);
        assert_int_equal(used(), 0);
        assert_int_equal(primary_is_active(), 0);
        assert_int_equal(cuMemAlloc_v2(&address, 1), CUDA_ERROR_CONTEXT_IS_DESTROYED);
        assert_int_equal(cuCtxSynchronize(), CUDA_ERROR_CONTEXT_IS_DESTROYED);
        primary_enter(); /* the next retain makes a new one */
        assert_int_equal(used(), CONTEXT_BYTES);
        assert_int_equal(cuMemAlloc_v2(&address, 1), CUDA_SUCCESS);
        assert_int_equal(cuStreamQuery(stream), CUDA_ERROR_INVALID_HANDLE); /* it was the old one's */
        assert_int_equal(cuDevicePrimaryCtxRelease_v2(0), CUDA_SUCCESS);
        assert_int_equal(used(), CONTEXT_BYTES + 2 * MIB);
        primary_leave();
    }
}

static void created_contexts_own_their_memory(void **state)
{
    (void)state;
    CUcontext one = NULL, two = NULL, top = NULL;
    CUdeviceptr first, second;
    CUdevice device = -1;
    assert_int_equal(cuCtxCreate_v2(&one, 0, 0), CUDA_SUCCESS);
    assert_int_equal(cuMemAlloc_v2(&first, 3 * MIB), CUDA_SUCCESS);
    assert_int_equal(cuCtxCreate_v4(&two, NULL, 0, 1), CUDA_SUCCESS);
    assert_int_equal(cuCtxGetDevice(&device), CUDA_SUCCESS);
    assert_int_equal(device, 1);
    assert_int_equal(cuMemAlloc_v2(&second, 5 * MIB), CUDA_SUCCESS);
    assert_int_equal(used(), CONTEXT_BYTES + 4 * MIB);
    assert_int_equal(stage_figures().device[1].used_bytes, CONTEXT_BYTES + 6 * MIB);
    assert_int_equal(cuCtxDestroy_v2(two), CUDA_SUCCESS);
    assert_int_equal(stage_figures().device[1].used_bytes, 0);
    assert_int_equal(cuCtxGetCurrent(&top), CUDA_SUCCESS);
    assert_ptr_equal(top, one);
    assert_int_equal(cuMemFree_v2(second), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(cuCtxDestroy_v2(two), CUDA_ERROR_INVALID_CONTEXT);
    assert_int_equal(cuCtxSetCurrent(two), CUDA_ERROR_INVALID_CONTEXT);
    assert_int_equal(cuCtxAttach(&top, 0), CUDA_SUCCESS);
    assert_int_equal(cuCtxDetach(one), CUDA_SUCCESS);
    assert_int_equal(used(), CONTEXT_BYTES + 4 * MIB);
    assert_int_equal(cuCtxDetach(one), CUDA_SUCCESS);
    assert_int_equal(used(), 0);
    assert_int_equal(cuCtxGetCurrent(&top), CUDA_SUCCESS);
    assert_null(top);
}

static void a_context_that_does_not_fit_is_out_of_memory(void **state)
{
    (void)state;
    CUcontext context = primary_enter(), other = (CUcontext)(uintptr_t)77;
    CUdeviceptr address;
    size_t free_bytes, total_bytes;
    assert_int_equal(cuMemGetInfo_v2(&free_bytes, &total_bytes), CUDA_SUCCESS);
    assert_int_equal(cuMemAlloc_v2(&address, free_bytes - 500 * MIB), CUDA_SUCCESS);
    assert_int_equal(cuCtxCreate_v2(&other, 0, 0), CUDA_ERROR_OUT_OF_MEMORY);
    assert_ptr_equal(other, (CUcontext)(uintptr_t)77);
    assert_int_equal(cuCtxGetCurrent(&other), CUDA_SUCCESS);
    assert_ptr_equal(other, context);
    primary_leave();
}

static void *threads_own_stack(void *argument)
{
    CUcontext top = (CUcontext)argument;
    CUresult result = cuCtxGetCurrent(&top);
    return result != CUDA_SUCCESS || top || cuCtxSynchronize() != CUDA_ERROR_INVALID_CONTEXT ? argument : NULL;
}

static void contexts_are_stacked_by_thread(void **state)
{
    (void)state;
    pthread_t thread;
    void *failed;
    CUcontext context = primary_enter(), popped = NULL;
    assert_int_equal(cuCtxPushCurrent_v2(context), CUDA_SUCCESS);
    assert_int_equal(pthread_create(&thread, NULL, threads_own_stack, context), 0);
    pthread_join(thread, &failed);
    assert_null(failed);
    assert_int_equal(cuCtxPopCurrent_v2(&popped), CUDA_SUCCESS);
    assert_ptr_equal(popped, context);
    assert_int_equal(cuCtxPopCurrent_v2(NULL), CUDA_SUCCESS);
    assert_int_equal(cuCtxPopCurrent_v2(&popped), CUDA_ERROR_INVALID_CONTEXT);
    assert_int_equal(cuCtxPushCurrent_v2((CUcontext)(uintptr_t)&popped), CUDA_ERROR_INVALID_CONTEXT);
    CUdeviceptr address;
    assert_int_equal(cuMemAlloc_v2(&address, 1), CUDA_ERROR_INVALID_CONTEXT);
    primary_leave();
}

static int called;

static void stream_called(CUstream stream, CUresult result, void *data)
{
    called += stream == data && result == CUDA_SUCCESS;
}

static void host_called(void *data)
{
    called += *(int *)data;
}

static void streams_and_events_work(void **state)
{
    (void)state;
    CUstream stream;
    CUevent start, end, untimed;
    float milliseconds = -1;
    int ten = 10;
    primary_enter();
    called = 0;
    assert_int_equal(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING), CUDA_SUCCESS);
    assert_int_equal(cuStreamCreate(&stream, 2), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(cuEventCreate(&start, 0), CUDA_SUCCESS);
    assert_int_equal(cuEventCreate(&end, 0), CUDA_SUCCESS);
    assert_int_equal(cuEventCreate(&untimed, CU_EVENT_DISABLE_TIMING), CUDA_SUCCESS);
    assert_int_equal(cuEventElapsedTime(&milliseconds, start, end), CUDA_ERROR_INVALID_HANDLE);
    assert_int_equal(cuEventRecord(start, stream), CUDA_SUCCESS);
    assert_int_equal(cuStreamAddCallback(stream, stream_called, stream, 0), CUDA_SUCCESS);
    assert_int_equal(cuLaunchHostFunc(stream, host_called, &ten), CUDA_SUCCESS);
    assert_int_equal(cuEventRecord(end, NULL), CUDA_SUCCESS);
    assert_int_equal(cuEventRecord(untimed, CU_STREAM_PER_THREAD), CUDA_SUCCESS);
    assert_int_equal(cuStreamSynchronize(stream), CUDA_SUCCESS);
    assert_int_equal(called, 11);
    assert_int_equal(cuEventQuery(end), CUDA_SUCCESS);
    assert_int_equal(cuEventElapsedTime(&milliseconds, start, end), CUDA_SUCCESS);
    assert_true(milliseconds >= 0);
    assert_int_equal(cuEventElapsedTime(&milliseconds, start, untimed), CUDA_ERROR_INVALID_HANDLE);
    assert_int_equal(cuEventDestroy_v2(start), CUDA_SUCCESS);
    assert_int_equal(cuEventQuery(start), CUDA_ERROR_INVALID_HANDLE);
    assert_int_equal(cuStreamDestroy_v2(stream), CUDA_SUCCESS);
    assert_int_equal(cuStreamSynchronize(stream), CUDA_ERROR_INVALID_HANDLE);
    assert_int_equal(cuStreamDestroy_v2(stream), CUDA_ERROR_INVALID_HANDLE);
    assert_int_equal(cuEventDestroy_v2(end), CUDA_SUCCESS);
    assert_int_equal(cuEventDestroy_v2(untimed), CUDA_SUCCESS);
    primary_leave();
}

static CUresult launch(CUfunction function, void **parameters)
{
    return cuLaunchKernel(function, 1, 1, 1, 128, 1, 1, 0, NULL, parameters, NULL);
}

static void kernels_run(void **state)
{
    (void)state;
    CUmodule module;
    CUfunction fill, saxpy, spin;
    CUdeviceptr words, x, y;
    primary_enter();
    assert_int_equal(cuModuleLoadData(&module, ""), CUDA_ERROR_INVALID_IMAGE);
    assert_int_equal(cuModuleLoadData(&module, ".version 8.0"), CUDA_SUCCESS);
    assert_int_equal(cuModuleGetFunction(&fill, module, "no_such_kernel"), CUDA_ERROR_NOT_FOUND);
    assert_int_equal(cuModuleGetFunction(&fill, module, "fill_u32"), CUDA_SUCCESS);
    assert_int_equal(cuModuleGetFunction(&saxpy, module, "saxpy_f32"), CUDA_SUCCESS);
    assert_int_equal(cuModuleGetFunction(&spin, module, "spin_ms"), CUDA_SUCCESS);
    assert_int_equal(cuMemAlloc_v2(&words, 4000), CUDA_SUCCESS);
    uint32_t value = 7, back[1000], milliseconds = 1;
    uint64_t count = 1000, three = 3;
    assert_int_equal(launch(fill, (void *[]){&words, &value, &count}), CUDA_SUCCESS);
    assert_int_equal(cuMemcpyDtoH_v2(back, words, sizeof(back)), CUDA_SUCCESS);
    assert_int_equal(back[0], 7);
    assert_int_equal(back[999], 7);
    float a = 2, xs[3] = {1, 2, 3}, ys[3] = {10, 20, 30};
    assert_int_equal(cuMemAlloc_v2(&x, sizeof(xs)), CUDA_SUCCESS);
    assert_int_equal(cuMemAlloc_v2(&y, sizeof(ys)), CUDA_SUCCESS);
    assert_int_equal(cuMemcpyHtoD_v2(x, xs, sizeof(xs)), CUDA_SUCCESS);
    assert_int_equal(cuMemcpyHtoD_v2(y, ys, sizeof(ys)), CUDA_SUCCESS);
    assert_int_equal(launch(saxpy, (void *[]){&a, &x, &y, &three}), CUDA_SUCCESS);
    assert_int_equal(cuMemcpyDtoH_v2(ys, y, sizeof(ys)), CUDA_SUCCESS);
    assert_true(ys[0] == 12 && ys[1] == 24 && ys[2] == 36);
    assert_int_equal(launch(spin, (void *[]){&milliseconds}), CUDA_SUCCESS);
    assert_int_equal(cuModuleUnload(module), CUDA_SUCCESS);
    assert_int_equal(launch(fill, (void *[]){&words, &value, &count}), CUDA_ERROR_INVALID_HANDLE);
    assert_int_equal(cuModuleUnload(module), CUDA_ERROR_INVALID_HANDLE);
    primary_leave();
}

static void a_kernel_that_strays_faults_its_context(void **state)
{
    (void)state;
    CUmodule module;
    CUfunction fill;
    CUdeviceptr words, more;
    uint32_t value = 7;
    uint64_t count = 1001;
    primary_enter();
    assert_int_equal(cuModuleLoadData(&module, "x"), CUDA_SUCCESS);
    assert_int_equal(cuModuleGetFunction(&fill, module, "fill_u32"), CUDA_SUCCESS);
    assert_int_equal(cuMemAlloc_v2(&words, 4000), CUDA_SUCCESS);
    assert_int_equal(launch(fill, (void *[]){&words, &value, &count}), CUDA_SUCCESS);
    assert_int_equal(cuCtxSynchronize(), CUDA_ERROR_ILLEGAL_ADDRESS);
    assert_int_equal(cuMemAlloc_v2(&more, 1), CUDA_ERROR_ILLEGAL_ADDRESS);
    assert_int_equal(cuDevicePrimaryCtxReset_v2(0), CUDA_SUCCESS);
    primary_enter();
    assert_int_equal(cuCtxSynchronize(), CUDA_SUCCESS);
    assert_int_equal(cuDevicePrimaryCtxRelease_v2(0), CUDA_SUCCESS);
    primary_leave();
}

static void what_is_not_real_says_so(void **state)
{
    (void)state;
    int handle = 7;
    primary_enter();
    assert_int_equal(cuMemPoolExportToShareableHandle(&handle, NULL, 1, 0), CUDA_ERROR_NOT_SUPPORTED);
    assert_int_equal(cuMemMapArrayAsync(NULL, 0, NULL), CUDA_ERROR_NOT_SUPPORTED);
    assert_int_equal(handle, 7);
    primary_leave();
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(primary_context_is_counted),
        cmocka_unit_test(reset_gives_all_back_and_keeps_references),
        cmocka_unit_test(created_contexts_own_their_memory),
        cmocka_unit_test(a_context_that_does_not_fit_is_out_of_memory),
        cmocka_unit_test(contexts_are_stacked_by_thread),
        cmocka_unit_test(streams_and_events_work),
        cmocka_unit_test(kernels_run),
        cmocka_unit_test(a_kernel_that_strays_faults_its_context),
        cmocka_unit_test(what_is_not_real_says_so),
    };
    return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
