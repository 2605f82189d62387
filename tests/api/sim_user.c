/*
 * A user's own test of code that uses CUDA, on a machine without a GPU: built by tests/api/installed with what
 * `pkg-config cubudget-sim` says, against an installation. It calls CUDA itself as well, and that is charged too.
 */
#include <stdio.h>
#include <string.h>

#include <cubudget/cubudget.h>

typedef unsigned long long CUdeviceptr;
extern int cuInit(unsigned flags);
extern int cuDevicePrimaryCtxRetain(void **context, int device);
extern int cuCtxSetCurrent(void *context);
extern int cuMemAlloc_v2(CUdeviceptr *pointer, size_t bytes);
extern int cuMemFree_v2(CUdeviceptr pointer);
extern int cuMemcpyHtoD_v2(CUdeviceptr to, const void *from, size_t bytes);
extern int cuMemcpyDtoH_v2(void *to, CUdeviceptr from, size_t bytes);

#define REQUIRE(condition)                                                                                             \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "line %d: %s does not hold: %s\n", __LINE__, #condition, cubudget_last_detail());          \
            return 1;                                                                                                  \
        }                                                                                                              \
    } while (0)

static unsigned long long used(void)
{
    struct cubudget_snapshot *snapshot;
    unsigned long long bytes = 0;
    if (cubudget_snapshot_take(&snapshot) == CUBUDGET_OK) {
        bytes = cubudget_snapshot_device(snapshot, 0)->used_bytes;
        cubudget_snapshot_free(snapshot);
    }
    return bytes;
}

int main(int count, char **arguments)
{
    struct cubudget_device device;
    struct cubudget_device_info info = {.size = sizeof info};
    CUdeviceptr own;
    void *context;
    char text[16] = "";
    REQUIRE(count == 2);
    REQUIRE(cubudget_simulate("memory=16GiB,name=Pretend", arguments[1]) == CUBUDGET_OK);
    REQUIRE(cubudget_device_open(0, NULL, &device) == CUBUDGET_OK);
    REQUIRE(cubudget_device_info(device, &info) == CUBUDGET_OK && strcmp(info.name, "Pretend") == 0);
    CUBUDGET_SCOPED_POOL(pool);
    REQUIRE(cubudget_pool_create(device, 1 << 30, &pool) == CUBUDGET_OK);
    CUBUDGET_SCOPED_BUFFER(buffer);
    REQUIRE(cubudget_pool_alloc(pool, 4 << 20, &buffer) == CUBUDGET_OK);
    REQUIRE(cuInit(0) == 0 && cuDevicePrimaryCtxRetain(&context, 0) == 0 && cuCtxSetCurrent(context) == 0);
    REQUIRE(cuMemcpyHtoD_v2(buffer.pointer, "it is memory", 13) == 0);
    REQUIRE(cuMemcpyDtoH_v2(text, buffer.pointer, 13) == 0 && strcmp(text, "it is memory") == 0);
    unsigned long long before = used();
    REQUIRE(cuMemAlloc_v2(&own, 6 << 20) == 0);
    REQUIRE(used() == before + (6 << 20));
    REQUIRE(cuMemFree_v2(own) == 0 && used() == before);
    puts("ok");
    return 0;
}
