/*
 * Memory of one process of the simulated driver used by another: IPC handles and exported descriptors. Each test runs a maker
 * and a user in children that talk over a pair of sockets; this process itself never uses CUDA.
 */
#include "unit/sim_stage.h"

#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <unistd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

#define CONTEXT_BYTES (527 * MIB)
#define PIECE         (20 * MIB)

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

static bool enter(CUdevice device)
{
    CUcontext context;
    return cuInit(0) == CUDA_SUCCESS && cuDevicePrimaryCtxRetain(&context, device) == CUDA_SUCCESS &&
           cuCtxSetCurrent(context) == CUDA_SUCCESS;
}

/* A step of the play: the other has come so far / waits until it has. Bytes of any kind go with it, and a descriptor. */
static bool tell(int socket, const void *bytes, size_t count, int descriptor)
{
    char control[CMSG_SPACE(sizeof(int))] = "";
    struct iovec part = {.iov_base = (void *)(uintptr_t)bytes, .iov_len = count};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    if (descriptor >= 0) {
        message.msg_control = control;
        message.msg_controllen = sizeof(control);
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        *header =
            (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
        memcpy(CMSG_DATA(header), &descriptor, sizeof(int));
    }
    return sendmsg(socket, &message, MSG_NOSIGNAL) == (ssize_t)count;
}

static bool hear(int socket, void *bytes, size_t count, int *descriptor)
{
    char control[CMSG_SPACE(sizeof(int))] = "";
    struct iovec part = {.iov_base = bytes, .iov_len = count};
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
    if (recvmsg(socket, &message, MSG_CMSG_CLOEXEC) != (ssize_t)count)
        return false;
    const struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    if (header && descriptor)
        memcpy(descriptor, CMSG_DATA(header), sizeof(int));
    return true;
}

static bool step(int socket)
{
    return tell(socket, "", 1, -1);
}

static bool await_step(int socket)
{
    char byte;
    return hear(socket, &byte, 1, NULL);
}

static pid_t player_start(int (*body)(int), int sockets[2], int mine)
{
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        close(sockets[!mine]);
        _exit(body(sockets[mine]));
    }
    return child;
}

/* Runs both to their ends; either's failure is the test's. */
static void play(int (*maker)(int), int (*user)(int))
{
    int sockets[2], status[2] = {-1, -1};
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets), 0);
    pid_t players[2] = {player_start(maker, sockets, 0), player_start(user, sockets, 1)};
    close(sockets[0]);
    close(sockets[1]);
    for (int i = 0; i < 2; i++)
        assert_int_equal(waitpid(players[i], &status[i], 0), players[i]);
    assert_int_equal(status[0], 0);
    assert_int_equal(status[1], 0);
    assert_int_equal(stage_figures().device[0].used_bytes, 0);
    assert_int_equal(stage_figures().device[1].used_bytes, 0);
}

/* What the maker shares: one block of its own, and one that small allocations share. */
struct offer {
    CUipcMemHandle large, small;
};

static int ipc_maker(int socket)
{
    struct offer offer;
    CUdeviceptr large = 0, first = 0, small = 0, managed = 0;
    CUdeviceptr own = 7;
    unsigned char byte = 0;
    must(enter(0) && cuMemAlloc_v2(&large, 3 * MIB) == CUDA_SUCCESS);
    must(cuMemAlloc_v2(&first, 1000) == CUDA_SUCCESS && cuMemAlloc_v2(&small, 1000) == CUDA_SUCCESS);
    must(cuMemAllocManaged(&managed, MIB, 1) == CUDA_SUCCESS);
    must(cuMemsetD8_v2(large, 5, 3 * MIB) == CUDA_SUCCESS && cuMemsetD8_v2(small, 6, 1000) == CUDA_SUCCESS);
    must(cuIpcGetMemHandle(&offer.large, large + MIB) == CUDA_SUCCESS); /* any address in it */
    must(cuIpcGetMemHandle(&offer.small, small) == CUDA_SUCCESS);
    must(cuIpcGetMemHandle(&offer.small, managed) == CUDA_ERROR_INVALID_VALUE);
    must(cuIpcGetMemHandle(&offer.small, 12345) == CUDA_ERROR_INVALID_VALUE);
    must(cuIpcGetMemHandle(NULL, large) == CUDA_ERROR_INVALID_VALUE);
    must(cuMemcpyDtoH_v2(&byte, small + 999, 1) == CUDA_SUCCESS && byte == 6); /* the move left them */
    must(cuMemcpyDtoH_v2(&byte, large + 3 * MIB - 1, 1) == CUDA_SUCCESS && byte == 5);
    must(cuIpcOpenMemHandle_v2(&own, offer.large, 1) == CUDA_ERROR_INVALID_CONTEXT && own == 7);
    must(cuIpcCloseMemHandle(large) == CUDA_ERROR_INVALID_VALUE);
    must(tell(socket, &offer, sizeof(offer), -1) && await_step(socket));
    must(stage_figures().device[0].used_bytes == 2 * CONTEXT_BYTES + 8 * MIB); /* none of it twice */
    must(cuMemcpyDtoH_v2(&byte, large + 2 * MIB, 1) == CUDA_SUCCESS && byte == 'L');
    must(cuMemcpyDtoH_v2(&byte, small, 1) == CUDA_SUCCESS && byte == 'S');
    must(cuMemcpyHtoD_v2(small + 999, "m", 1) == CUDA_SUCCESS);
    must(step(socket) && await_step(socket));
    must(cuMemFree_v2(large) == CUDA_SUCCESS && cuMemFree_v2(small) == CUDA_SUCCESS);
    must(cuMemFree_v2(first) == CUDA_SUCCESS && cuMemFree_v2(managed) == CUDA_SUCCESS);
    return 0;
}

static int ipc_user(int socket)
{
    struct offer offer;
    CUipcMemHandle junk;
    CUdeviceptr large = 0, again = 0, small = 0, base = 0, none = 7;
    size_t bytes = 0;
    unsigned char byte = 0;
    must(enter(0) && hear(socket, &offer, sizeof(offer), NULL));
    memset(&junk, 'x', sizeof(junk));
    must(cuIpcOpenMemHandle_v2(&none, junk, 1) == CUDA_ERROR_INVALID_VALUE);
    must(cuIpcOpenMemHandle_v2(&none, offer.large, 0) == CUDA_ERROR_INVALID_VALUE && none == 7);
    must(cuIpcOpenMemHandle(&large, offer.large, 1) == CUDA_SUCCESS);
    must(cuIpcOpenMemHandle_v2(&again, offer.large, 1) == CUDA_SUCCESS && again == large);
    must(cuIpcOpenMemHandle_v2(&small, offer.small, 1) == CUDA_SUCCESS);
    must(cuMemGetAddressRange_v2(&base, &bytes, large + 5) == CUDA_SUCCESS && base == large && bytes == 3 * MIB);
    must(cuMemGetAddressRange_v2(&base, &bytes, small) == CUDA_SUCCESS && base == small && bytes == 1000);
    must(cuMemcpyDtoH_v2(&byte, large + 3 * MIB - 1, 1) == CUDA_SUCCESS && byte == 5);
    must(cuMemcpyDtoH_v2(&byte, small, 1) == CUDA_SUCCESS && byte == 6);
    must(cuMemcpyHtoD_v2(large + 2 * MIB, "L", 1) == CUDA_SUCCESS);
    must(cuMemcpyHtoD_v2(small, "S", 1) == CUDA_SUCCESS);
    must(cuMemFree_v2(large) == CUDA_ERROR_INVALID_VALUE);
    must(step(socket) && await_step(socket));
    must(cuMemcpyDtoH_v2(&byte, small + 999, 1) == CUDA_SUCCESS && byte == 'm');
    must(cuIpcCloseMemHandle(large) == CUDA_SUCCESS);
    must(cuMemcpyDtoH_v2(&byte, large, 1) == CUDA_SUCCESS && byte == 5);
    must(cuIpcCloseMemHandle(large) == CUDA_SUCCESS && cuIpcCloseMemHandle(large) == CUDA_ERROR_INVALID_VALUE);
    must(cuMemcpyDtoH_v2(&byte, large, 1) == CUDA_ERROR_INVALID_VALUE);
    must(cuDevicePrimaryCtxReset_v2(0) == CUDA_SUCCESS); /* takes the other along */
    must(cuIpcCloseMemHandle(small) == CUDA_ERROR_INVALID_VALUE);
    must(step(socket));
    return 0;
}

static void linear_memory_is_shared_by_ipc_handles(void **state)
{
    (void)state;
    play(ipc_maker, ipc_user);
}

static int gone_maker(int socket)
{
    CUipcMemHandle handle;
    CUdeviceptr address = 0;
    must(enter(0) && cuMemAlloc_v2(&address, 3 * MIB) == CUDA_SUCCESS);
    must(cuIpcGetMemHandle(&handle, address) == CUDA_SUCCESS && cuMemFree_v2(address) == CUDA_SUCCESS);
    must(tell(socket, &handle, sizeof(handle), -1) && await_step(socket));
    return 0;
}

static int gone_user(int socket)
{
    CUipcMemHandle handle;
    CUdeviceptr address = 7;
    must(enter(0) && hear(socket, &handle, sizeof(handle), NULL));
    must(cuIpcOpenMemHandle_v2(&address, handle, 1) == CUDA_ERROR_INVALID_HANDLE && address == 7);
    must(step(socket));
    return 0;
}

static void freed_memory_cannot_be_opened(void **state)
{
    (void)state;
    play(gone_maker, gone_user);
}

static CUresult create_shareable(CUmemGenericAllocationHandle *handle)
{
    CUmemAllocationProp properties = {.type = CU_MEM_ALLOCATION_TYPE_PINNED,
                                      .requestedHandleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR,
                                      .location = {CU_MEM_LOCATION_TYPE_DEVICE, 1}};
    return cuMemCreate(handle, PIECE, &properties, 0);
}

static bool map_at(CUdeviceptr *address, CUmemGenericAllocationHandle handle)
{
    CUmemAccessDesc access = {.location = {CU_MEM_LOCATION_TYPE_DEVICE, 1}, .flags = 3};
    return cuMemAddressReserve(address, PIECE, 0, 0, 0) == CUDA_SUCCESS &&
           cuMemMap(*address, PIECE, 0, handle, 0) == CUDA_SUCCESS &&
           cuMemSetAccess(*address, PIECE, &access, 1) == CUDA_SUCCESS;
}

/* Looks until the machine says so: the maker hears of another's close from the kernel, in its own time. */
static bool used_becomes(uint64_t bytes)
{
    for (int look = 0; look < 60000 && stage_figures().device[1].used_bytes != bytes; look++)
        usleep(1000);
    return stage_figures().device[1].used_bytes == bytes;
}

static int export_maker(int socket)
{
    CUmemGenericAllocationHandle handle = 0;
    CUdeviceptr address = 0;
    int descriptor = -1;
    must(enter(1) && create_shareable(&handle) == CUDA_SUCCESS && map_at(&address, handle));
    must(cuMemcpyHtoD_v2(address + 9, "made", 4) == CUDA_SUCCESS);
    must(cuMemExportToShareableHandle(&descriptor, handle, 1, 0) == CUDA_SUCCESS);
    must(cuMemRelease(handle) == CUDA_SUCCESS && cuMemUnmap(address, PIECE) == CUDA_SUCCESS);
    must(tell(socket, "", 1, descriptor));
    must(close(descriptor) == 0);
    must(await_step(socket)); /* the user has imported it, closed the descriptor and released the handle */
    must(stage_figures().device[1].used_bytes == 2 * CONTEXT_BYTES + PIECE);
    must(step(socket) && await_step(socket)); /* it has unmapped */
    must(used_becomes(2 * CONTEXT_BYTES));
    must(step(socket));
    return 0;
}

static int export_user(int socket)
{
    CUmemGenericAllocationHandle handle = 0;
    CUmemAllocationProp properties;
    CUdeviceptr address = 0;
    int descriptor = -1;
    char byte, bytes[4];
    must(enter(1) && hear(socket, &byte, 1, &descriptor) && descriptor >= 0);
    must(cuMemImportFromShareableHandle(&handle, (void *)(intptr_t)descriptor, 1) == CUDA_SUCCESS);
    must(close(descriptor) == 0);
    must(cuMemGetAllocationPropertiesFromHandle(&properties, handle) == CUDA_SUCCESS);
    must(properties.location.type == CU_MEM_LOCATION_TYPE_DEVICE && properties.location.id == 1);
    must(map_at(&address, handle) && cuMemRelease(handle) == CUDA_SUCCESS);
    must(cuMemcpyDtoH_v2(bytes, address + 9, 4) == CUDA_SUCCESS && memcmp(bytes, "made", 4) == 0);
    must(step(socket) && await_step(socket));
    must(cuMemUnmap(address, PIECE) == CUDA_SUCCESS);
    must(step(socket) && await_step(socket));
    return 0;
}

static void exported_memory_stays_with_its_maker_until_nobody_has_it(void **state)
{
    (void)state;
    play(export_maker, export_user);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(linear_memory_is_shared_by_ipc_handles, setup, teardown),
        cmocka_unit_test_setup_teardown(freed_memory_cannot_be_opened, setup, teardown),
        cmocka_unit_test_setup_teardown(exported_memory_stays_with_its_maker_until_nobody_has_it, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
