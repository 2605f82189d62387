/*
 * A program that uses virtual memory management and imports as its standard input says, one command a line, and answers each
 * with one line: "ok ...", or "error N" with the driver's result. Like client.c it knows nothing of cubudget. Places for
 * handles, addresses, descriptors and allocations are numbered from 0; address N is N GiB into one reservation.
 *
 *   init DEVICE               cuInit, the primary context of DEVICE made current
 *   start / context DEVICE    cuInit alone / the primary context of DEVICE retained and made current
 *   reset DEVICE              cuDevicePrimaryCtxReset_v2
 *   create H DEVICE BYTES     cuMemCreate on DEVICE / on the host with DEVICE -1
 *   release H                 cuMemRelease
 *   map H A BYTES             cuMemMap / unmap A BYTES: cuMemUnmap
 *   retain H A OFFSET         cuMemRetainAllocationHandle of address A + OFFSET into place H
 *   export H F / import H F   cuMemExportToShareableHandle / cuMemImportFromShareableHandle of a descriptor in place F
 *   close F                   closes the descriptor / number F: "ok N" its number
 *   fetch F PID N             takes descriptor N of process PID into place F
 *   external F BYTES / unexternal    cuImportExternalMemory (takes the descriptor) / cuDestroyExternalMemory
 *   buffer K BYTES            cuExternalMemoryGetMappedBuffer into place K
 *   alloc K BYTES / free K    cuMemAlloc_v2 / cuMemFree_v2
 *   write K BYTE COUNT        cuMemsetD8_v2 / read K BYTE COUNT: copies back and compares, "ok" or "differs"
 *   writemap A BYTE COUNT     cuMemSetAccess and cuMemsetD8_v2 of address A
 *   ipcget K                  cuIpcGetMemHandle: "ok HEX" / ipcopen K HEX / ipcclose K
 *   multicast H BYTES         cuMulticastCreate
 *   settle                    cuMemGetInfo_v2: the simulated driver looks whether what it shared was let go
 *   null                      calls with NULL: "ok N N ..." the results
 *   random THREADS ROUNDS SEED MAX SHARES   a mix of all that, with pieces of up to MAX bytes, exported and imported too where
 *                             SHARES is 1; leaves nothing behind: "ok GRANTED REFUSED"
 *   pieces BYTES COUNT        one reservation, COUNT pieces created, mapped and released one by one: "ok MAPPED"; unpieces: all unmapped
 *   quit
 */
#include <dlfcn.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "cuda/cuda_abi.h"

enum { PLACES = 64, THREADS = 16 };
#define RANGE (1ULL << 30)

/* Every function of the driver that is used, once. */
#define FUNCTIONS(F)                                                                                                   \
    F(init, "cuInit", (unsigned))                                                                                      \
    F(context_retain, "cuDevicePrimaryCtxRetain", (CUcontext *, CUdevice))                                             \
    F(context_reset, "cuDevicePrimaryCtxReset_v2", (CUdevice))                                                         \
    F(set_current, "cuCtxSetCurrent", (CUcontext))                                                                     \
    F(reserve, "cuMemAddressReserve", (CUdeviceptr *, size_t, size_t, CUdeviceptr, unsigned long long))                \
    F(create, "cuMemCreate",                                                                                           \
      (CUmemGenericAllocationHandle *, size_t, const CUmemAllocationProp *, unsigned long long))                       \
    F(give, "cuMemRelease", (CUmemGenericAllocationHandle))                                                            \
    F(map, "cuMemMap", (CUdeviceptr, size_t, size_t, CUmemGenericAllocationHandle, unsigned long long))                \
    F(unmap, "cuMemUnmap", (CUdeviceptr, size_t))                                                                      \
    F(set_access, "cuMemSetAccess", (CUdeviceptr, size_t, const void *, size_t))                                       \
    F(retain, "cuMemRetainAllocationHandle", (CUmemGenericAllocationHandle *, void *))                                 \
    F(export, "cuMemExportToShareableHandle", (void *, CUmemGenericAllocationHandle, int, unsigned long long))         \
    F(import, "cuMemImportFromShareableHandle", (CUmemGenericAllocationHandle *, void *, int))                         \
    F(multicast, "cuMulticastCreate", (CUmemGenericAllocationHandle *, const CUmulticastObjectProp *))                 \
    F(external, "cuImportExternalMemory", (CUexternalMemory *, const CUDA_EXTERNAL_MEMORY_HANDLE_DESC *))              \
    F(unexternal, "cuDestroyExternalMemory", (CUexternalMemory))                                                       \
    F(buffer, "cuExternalMemoryGetMappedBuffer",                                                                       \
      (CUdeviceptr *, CUexternalMemory, const CUDA_EXTERNAL_MEMORY_BUFFER_DESC *))                                     \
    F(ipc_get, "cuIpcGetMemHandle", (CUipcMemHandle *, CUdeviceptr))                                                   \
    F(ipc_open, "cuIpcOpenMemHandle_v2", (CUdeviceptr *, CUipcMemHandle, unsigned))                                    \
    F(ipc_close, "cuIpcCloseMemHandle", (CUdeviceptr))                                                                 \
    F(alloc, "cuMemAlloc_v2", (CUdeviceptr *, size_t))                                                                 \
    F(release, "cuMemFree_v2", (CUdeviceptr))                                                                          \
    F(get_info, "cuMemGetInfo_v2", (size_t *, size_t *))                                                               \
    F(set_bytes, "cuMemsetD8_v2", (CUdeviceptr, unsigned char, size_t))                                                \
    F(copy_back, "cuMemcpyDtoH_v2", (void *, CUdeviceptr, size_t))

static struct {
#define FIELD(field, name, parameters) CUresult(*field) parameters;
    FUNCTIONS(FIELD)
#undef FIELD
} driver;

static CUmemGenericAllocationHandle handles[PLACES];
static CUdeviceptr base, places[PLACES];
static int descriptors[PLACES];
static CUexternalMemory external;
static CUcontext context;

static void driver_load(void)
{
    void *object = dlopen("libcuda.so.1", RTLD_NOW);
#define FIND(field, name, parameters)                                                                                  \
    if (!object || !(*(void **)&driver.field = dlsym(object, name)))                                                   \
        printf("error no %s\n", name);
    FUNCTIONS(FIND)
#undef FIND
}

static CUmemAllocationProp properties(CUdevice device)
{
    CUmemAllocationProp prop = {.type = 1, .requestedHandleTypes = 1, .location = {.type = 1, .id = device}};
    if (device < 0)
        prop.location = (CUmemLocation){.type = CU_MEM_LOCATION_TYPE_HOST};
    return prop;
}

static CUresult context_enter(CUdevice device)
{
    CUresult result = driver.context_retain(&context, device);
    return result ? result : driver.set_current(context);
}

static CUdeviceptr address_of(unsigned long long place)
{
    if (!base && driver.reserve(&base, PLACES * RANGE, 0, 0, 0))
        abort();
    return base + place * RANGE;
}

static CUresult create(CUmemGenericAllocationHandle *handle, CUdevice device, uint64_t bytes)
{
    CUmemAllocationProp prop = properties(device);
    CUmemGenericAllocationHandle made = 4711;
    CUresult result = driver.create(&made, bytes, &prop, 0);
    if (result == CUDA_SUCCESS)
        *handle = made;
    else if (made != 4711)
        printf("output touched ");
    return result;
}

/* --- at random ------------------------------------------------------------------------------------------------------------- */

enum { PIECES = 12 };

struct piece {
    CUmemGenericAllocationHandle references[4];
    unsigned count;
    bool mapped[2];
    int descriptor; /* -1: none */
    uint64_t bytes;
};

struct churn {
    unsigned number, shares;
    unsigned long rounds;
    uint64_t seed, max_blocks, granted, refused;
    CUresult result;
    struct piece pieces[PIECES];
};

static uint64_t random_next(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

/* Each mapping of each piece of each thread has an address of its own, in a reservation of the thread's own. */
static CUdeviceptr churn_address(const struct churn *churn, unsigned piece, unsigned mapping)
{
    return base + (churn->number * PIECES * 2 + piece * 2 + mapping) * (RANGE / 8);
}

static CUresult piece_new(struct churn *churn, struct piece *piece)
{
    piece->bytes = (random_next(&churn->seed) % churn->max_blocks + 1) << 21;
    CUresult result = create(&piece->references[0], (CUdevice)(random_next(&churn->seed) % 2), piece->bytes);
    piece->count = result == CUDA_SUCCESS;
    churn->granted += result == CUDA_SUCCESS;
    churn->refused += result == CUDA_ERROR_OUT_OF_MEMORY;
    return result == CUDA_ERROR_OUT_OF_MEMORY ? CUDA_SUCCESS : result;
}

static CUresult piece_refer(struct churn *churn, unsigned number)
{
    struct piece *piece = &churn->pieces[number];
    CUresult result = CUDA_SUCCESS;
    if (piece->count == 4)
        return CUDA_SUCCESS;
    if (piece->descriptor >= 0)
        result = driver.import(&piece->references[piece->count], (void *)(intptr_t)piece->descriptor,
                               CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR);
    else if (piece->mapped[0])
        result = driver.retain(&piece->references[piece->count], (void *)(uintptr_t)churn_address(churn, number, 0));
    else
        return CUDA_SUCCESS;
    piece->count += result == CUDA_SUCCESS;
    return result;
}

static CUresult piece_map(struct churn *churn, unsigned number, unsigned mapping)
{
    struct piece *piece = &churn->pieces[number];
    CUdeviceptr address = churn_address(churn, number, mapping);
    CUresult result = CUDA_SUCCESS;
    if (piece->mapped[mapping])
        result = driver.unmap(address, piece->bytes);
    else if (piece->count != 0)
        result = driver.map(address, piece->bytes, 0, piece->references[0], 0);
    else
        return CUDA_SUCCESS;
    piece->mapped[mapping] = result == CUDA_SUCCESS ? !piece->mapped[mapping] : piece->mapped[mapping];
    return result;
}

static CUresult piece_share(struct piece *piece)
{
    if (piece->descriptor >= 0) {
        close(piece->descriptor);
        piece->descriptor = -1;
        return CUDA_SUCCESS;
    }
    return piece->count == 0 ? CUDA_SUCCESS : driver.export(&piece->descriptor, piece->references[0], 1, 0);
}

static bool piece_is_free(const struct piece *piece)
{
    return piece->count == 0 && !piece->mapped[0] && !piece->mapped[1] && piece->descriptor < 0;
}

static CUresult churn_step(struct churn *churn)
{
    unsigned number = (unsigned)(random_next(&churn->seed) % PIECES);
    struct piece *piece = &churn->pieces[number];
    if (piece_is_free(piece))
        return piece_new(churn, piece);
    switch (random_next(&churn->seed) % 6) {
    case 0:
        return piece_refer(churn, number);
    case 1:
        return piece_map(churn, number, 0);
    case 2:
        return piece_map(churn, number, 1);
    case 3:
        return churn->shares ? piece_share(piece) : CUDA_SUCCESS;
    default:
        return piece->count == 0 ? CUDA_SUCCESS : driver.give(piece->references[--piece->count]);
    }
}

static void *churn_run(void *argument)
{
    struct churn *churn = argument;
    for (unsigned i = 0; i < PIECES; i++)
        churn->pieces[i].descriptor = -1;
    for (unsigned long round = 0; round < churn->rounds && churn->result == CUDA_SUCCESS; round++)
        churn->result = churn_step(churn);
    for (unsigned i = 0; i < PIECES && churn->result == CUDA_SUCCESS; i++) {
        struct piece *piece = &churn->pieces[i];
        if (piece->descriptor >= 0)
            close(piece->descriptor);
        for (unsigned m = 0; m < 2 && churn->result == CUDA_SUCCESS; m++)
            churn->result = piece->mapped[m] ? piece_map(churn, i, m) : CUDA_SUCCESS;
        while (piece->count > 0 && churn->result == CUDA_SUCCESS)
            churn->result = driver.give(piece->references[--piece->count]);
    }
    return NULL;
}

static void command_random(const char *arguments)
{
    static struct churn churns[THREADS];
    pthread_t threads[THREADS];
    unsigned count, shares;
    unsigned long rounds;
    unsigned long long seed, max_bytes;
    uint64_t granted = 0, refused = 0;
    CUresult result = CUDA_SUCCESS;
    if (sscanf(arguments, "%u %lu %llu %llu %u", &count, &rounds, &seed, &max_bytes, &shares) != 5 || count > THREADS)
        abort();
    (void)address_of(0);
    for (unsigned i = 0; i < count; i++) {
        churns[i] = (struct churn){.number = i,
                                   .shares = shares,
                                   .rounds = rounds,
                                   .seed = (seed + i) * 0x9E3779B97F4A7C15ULL + 1,
                                   .max_blocks = max_bytes >> 21};
        if (pthread_create(&threads[i], NULL, churn_run, &churns[i]) != 0)
            abort();
    }
    for (unsigned i = 0; i < count; i++) {
        pthread_join(threads[i], NULL);
        granted += churns[i].granted;
        refused += churns[i].refused;
        result = churns[i].result ? churns[i].result : result;
    }
    if (result)
        printf("error %d\n", result);
    else
        printf("ok %llu %llu\n", (unsigned long long)granted, (unsigned long long)refused);
}

/* --- the rest --------------------------------------------------------------------------------------------------------------- */

static uint64_t piece_bytes, pieces_mapped;

/* Expandable segments: reserve once, map piece by piece. */
static void command_pieces(unsigned long long bytes, unsigned long long count)
{
    CUresult result = CUDA_SUCCESS;
    piece_bytes = bytes;
    for (pieces_mapped = 0; pieces_mapped < count && result == CUDA_SUCCESS; pieces_mapped += result == CUDA_SUCCESS) {
        CUmemGenericAllocationHandle handle;
        result = create(&handle, 0, bytes);
        if (result == CUDA_SUCCESS)
            result = driver.map(address_of(0) + pieces_mapped * bytes, bytes, 0, handle, 0);
        if (result == CUDA_SUCCESS)
            result = driver.give(handle);
    }
    printf("ok %llu\n", (unsigned long long)pieces_mapped);
}

static void command_read(unsigned long long place, unsigned long long byte, unsigned long long count)
{
    unsigned char *copy = malloc(count);
    CUresult result = driver.copy_back(copy, places[place], count);
    size_t same = 0;
    while (result == CUDA_SUCCESS && same < count && copy[same] == byte)
        same++;
    free(copy);
    if (result)
        printf("error %d\n", result);
    else
        printf(same == count ? "ok\n" : "differs\n");
}

static void command_ipc(const char *verb, const char *arguments)
{
    CUipcMemHandle handle = {{0}};
    unsigned place = 0;
    char text[2 * sizeof handle + 1] = "";
    sscanf(arguments, "%u %128s", &place, text);
    CUresult result = CUDA_SUCCESS;
    if (strcmp(verb, "ipcget") == 0) {
        result = driver.ipc_get(&handle, places[place]);
        for (size_t i = 0; i < sizeof handle; i++)
            snprintf(text + 2 * i, 3, "%02x", (unsigned char)handle.reserved[i]);
    } else {
        for (size_t i = 0; i < sizeof handle; i++) {
            unsigned byte = 0;
            sscanf(text + 2 * i, "%2x", &byte);
            handle.reserved[i] = (char)byte;
        }
        result = driver.ipc_open(&places[place], handle, 1);
        text[0] = '\0';
    }
    if (result)
        printf("error %d\n", result);
    else
        printf(text[0] ? "ok %s\n" : "ok\n", text);
}

static void command_null(void)
{
    CUmemAllocationProp prop = properties(0);
    CUmemGenericAllocationHandle handle = 0;
    printf("ok %d %d %d %d %d %d\n", driver.create(NULL, 2 << 20, &prop, 0), driver.create(&handle, 2 << 20, NULL, 0),
           driver.retain(NULL, (void *)(uintptr_t)address_of(0)), driver.import(NULL, (void *)(intptr_t)-1, 1),
           driver.unmap(address_of(0), 0), driver.give(12345));
}

static CUresult external_run(const char *verb, unsigned long long first, unsigned long long second)
{
    CUDA_EXTERNAL_MEMORY_HANDLE_DESC description = {.type = 1, .handle = {.fd = descriptors[first]}, .size = second};
    CUDA_EXTERNAL_MEMORY_BUFFER_DESC buffer = {.size = second};
    if (strcmp(verb, "external") == 0)
        return driver.external(&external, &description);
    return strcmp(verb, "buffer") == 0 ? driver.buffer(&places[first], external, &buffer) : driver.unexternal(external);
}

static CUresult access_write(unsigned long long place, unsigned long long byte, unsigned long long count)
{
    const struct {
        CUmemLocation location;
        int flags;
    } access = {{1, 0}, 3};
    CUresult result = driver.set_access(address_of(place), count, &access, 1);
    return result ? result : driver.set_bytes(address_of(place), (unsigned char)byte, count);
}

static CUresult share_run(const char *verb, unsigned long long first, unsigned long long second)
{
    CUmulticastObjectProp prop = {.numDevices = 1, .size = second};
    if (strcmp(verb, "export") == 0)
        return driver.export(&descriptors[second], handles[first], 1, 0);
    if (strcmp(verb, "import") == 0)
        return driver.import(&handles[first], (void *)(intptr_t)descriptors[second], 1);
    return driver.multicast(&handles[first], &prop);
}

static CUresult command_run(const char *verb, unsigned long long first, unsigned long long second,
                            unsigned long long third)
{
    if (strcmp(verb, "create") == 0)
        return create(&handles[first], (CUdevice)second, third);
    if (strcmp(verb, "release") == 0)
        return driver.give(handles[first]);
    if (strcmp(verb, "map") == 0)
        return driver.map(address_of(second), third, 0, handles[first], 0);
    if (strcmp(verb, "unmap") == 0)
        return driver.unmap(address_of(first), second);
    if (strcmp(verb, "unpieces") == 0)
        return driver.unmap(address_of(0), piece_bytes * pieces_mapped);
    if (strcmp(verb, "retain") == 0)
        return driver.retain(&handles[first], (void *)(uintptr_t)(address_of(second) + third));
    if (strcmp(verb, "export") == 0 || strcmp(verb, "import") == 0 || strcmp(verb, "multicast") == 0)
        return share_run(verb, first, second);
    if (strcmp(verb, "external") == 0 || strcmp(verb, "unexternal") == 0 || strcmp(verb, "buffer") == 0)
        return external_run(verb, first, second);
    if (strcmp(verb, "alloc") == 0)
        return driver.alloc(&places[first], second);
    if (strcmp(verb, "free") == 0)
        return driver.release(places[first]);
    if (strcmp(verb, "write") == 0)
        return driver.set_bytes(places[first], (unsigned char)second, third);
    if (strcmp(verb, "writemap") == 0)
        return access_write(first, second, third);
    if (strcmp(verb, "ipcclose") == 0)
        return driver.ipc_close(places[first]);
    if (strcmp(verb, "settle") == 0)
        return driver.get_info(NULL, NULL);
    if (strcmp(verb, "reset") == 0)
        return driver.context_reset((CUdevice)first);
    if (strcmp(verb, "context") == 0)
        return context_enter((CUdevice)first);
    CUresult result = driver.init(0);
    return result || strcmp(verb, "start") == 0 ? result : context_enter((CUdevice)first);
}

/* Descriptors are the kernel's business, not the driver's. False: the verb is another. */
static bool command_descriptor(const char *verb, unsigned long long first, unsigned long long second,
                               unsigned long long third)
{
    if (strcmp(verb, "close") == 0)
        printf(close(descriptors[first]) == 0 ? "ok\n" : "error close\n");
    else if (strcmp(verb, "number") == 0)
        printf("ok %d\n", descriptors[first]);
    else if (strcmp(verb, "fetch") == 0) {
        int process = (int)syscall(SYS_pidfd_open, (pid_t)second, 0);
        descriptors[first] = (int)syscall(SYS_pidfd_getfd, process, (int)third, 0);
        close(process);
        printf(descriptors[first] >= 0 ? "ok\n" : "error fetch\n");
    } else
        return false;
    return true;
}

int main(void)
{
    char line[512], verb[32];
    driver_load();
    while (fgets(line, sizeof(line), stdin)) {
        unsigned long long first = 0, second = 0, third = 0;
        int length = 0;
        line[strcspn(line, "\n")] = '\0';
        if (sscanf(line, "%31s%n", verb, &length) != 1 || strcmp(verb, "quit") == 0)
            break;
        sscanf(line + length, "%llu %llu %llu", &first, &second, &third);
        if (strcmp(verb, "random") == 0)
            command_random(line + length);
        else if (strcmp(verb, "pieces") == 0)
            command_pieces(first, second);
        else if (strcmp(verb, "read") == 0)
            command_read(first, second, third);
        else if (strcmp(verb, "ipcget") == 0 || strcmp(verb, "ipcopen") == 0)
            command_ipc(verb, line + length);
        else if (strcmp(verb, "null") == 0)
            command_null();
        else if (!command_descriptor(verb, first, second, third)) {
            CUresult result = command_run(verb, first, second, third);
            if (result)
                printf("error %d\n", result);
            else
                printf("ok\n");
        }
        fflush(stdout);
    }
    return 0;
}
