/*
 * cubudget for programs that want to know: devices, pools of device memory under the budget, slots, pressure, the books.
 *
 * A program compiles with `pkg-config --cflags --libs cubudget`, or loads libcubudget.so. It works
 *   - under the preload (`cubudget run`): then everything else that the process allocates is charged as well;
 *   - linked alone: what goes through this interface is charged, and the program's own CUDA calls where the library comes
 *     before libcuda.so.1 in the order of linking;
 *   - on the simulator, in builds that have it (cubudget_simulate).
 * A program that only links to the library is never ended by it: where there is no device, the calls say so.
 *
 * Sizes are bytes, times milliseconds. Every function is safe from any thread unless it says otherwise, keeps errno, and leaves
 * its output arguments untouched when it fails. Handles are numbers, checked at every use: one that is used after its end is
 * an error that is reported (CUBUDGET_ERROR_FREED, _POOL_CLOSED), never corruption. In a forked child the parent's handles are
 * CUBUDGET_ERROR_FORKED. Structures with a first field `size` grow at their end: set it to sizeof before the call.
 */
#ifndef CUBUDGET_CUBUDGET_H
#define CUBUDGET_CUBUDGET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define CUBUDGET_API __attribute__((visibility("default")))

#define CUBUDGET_API_VERSION 1

enum {
    CUBUDGET_NAME_BYTES = 64,      /* a slot's, device's or ledger's name with its terminating zero */
    CUBUDGET_UUID_TEXT_BYTES = 48, /* "GPU-01234567-89ab-cdef-0123-456789abcdef" with its terminating zero */
    CUBUDGET_COMMAND_BYTES = 65,
    CUBUDGET_KINDS = 8,
    CUBUDGET_REASON_BYTES = 49,
};

#define CUBUDGET_NO_LIMIT UINT64_MAX

/* --- errors ---------------------------------------------------------------------------------------------------------- */

/* What every function returns. Numbers never change; new ones go to the end. */
enum cubudget_error {
    CUBUDGET_OK = 0,
    CUBUDGET_ERROR_INVALID = 1,       /* an argument is NULL, out of range or of the wrong size */
    CUBUDGET_ERROR_NO_DEVICE = 2,     /* this machine has no GPU, or none of that number or uuid */
    CUBUDGET_ERROR_NO_DRIVER = 3,     /* there is a GPU and libcuda.so.1 cannot be loaded */
    CUBUDGET_ERROR_UNSUITABLE = 4,    /* the device lacks something that was required */
    CUBUDGET_ERROR_OUT_OF_MEMORY = 5, /* the budget, the slot's limit or the card has no room */
    CUBUDGET_ERROR_POOL_LIMIT = 6,    /* the pool's own limit has no room */
    CUBUDGET_ERROR_NO_LEDGER = 7,     /* there is no ledger, or it cannot be used */
    CUBUDGET_ERROR_SETTINGS = 8,      /* the CUBUDGET_* settings are bad, or do not fit the ledger */
    CUBUDGET_ERROR_FREED = 9,         /* the buffer was freed before */
    CUBUDGET_ERROR_POOL_CLOSED = 10,  /* the pool was closed before, and with it everything in it */
    CUBUDGET_ERROR_FOREIGN = 11,      /* the buffer is of another pool, or never was one */
    CUBUDGET_ERROR_TIMEOUT = 12,      /* nothing happened in the time given */
    CUBUDGET_ERROR_NOT_PUSHED = 13,   /* a pop without a push of the same thread before it */
    CUBUDGET_ERROR_TOO_MANY = 14,     /* of slots, rows, pools or nested pushes */
    CUBUDGET_ERROR_NO_HOST_MEMORY = 15,
    CUBUDGET_ERROR_FORKED = 16,      /* the handle belongs to the parent process */
    CUBUDGET_ERROR_CUDA = 17,        /* the driver refused: cubudget_last_cuda_error() says what */
    CUBUDGET_ERROR_SYSTEM = 18,      /* the operating system refused: errno of the call is in cubudget_last_detail() */
    CUBUDGET_ERROR_UNSUPPORTED = 19, /* this build or this driver cannot do it */
};

/* "CUBUDGET_ERROR_NO_DEVICE"; a number that is none: "CUBUDGET_ERROR_UNKNOWN". A constant text. */
CUBUDGET_API const char *cubudget_error_name(enum cubudget_error error);

/* A sentence for people, without a full stop: "this machine has no such GPU". A constant text. */
CUBUDGET_API const char *cubudget_error_sentence(enum cubudget_error error);

/* The CUresult behind the calling thread's last call that failed; 0 where it was not the driver that refused. */
CUBUDGET_API int cubudget_last_cuda_error(void);

/* What the calling thread's last call that failed had to say, with the values in it; "" where there is no more to say than the
 * error does. The text is the thread's and stays until its next failing call. */
CUBUDGET_API const char *cubudget_last_detail(void);

/* --- devices --------------------------------------------------------------------------------------------------------- */

/* Whether a device could be used at all: settings, a card, the driver's library, the ledger where there is one already. Needs no
 * pool, initialises no CUDA and so breaks no later fork. Under 100 ms; under 10 ms where there is no device. */
CUBUDGET_API enum cubudget_error cubudget_available(void);

/* How many devices CUDA shows this process (CUDA_VISIBLE_DEVICES counts). Initialises CUDA: some 100 ms the first time. */
CUBUDGET_API enum cubudget_error cubudget_device_count(unsigned *count);

/* A device as this process numbers it. A plain value: nothing to close. */
struct cubudget_device {
    int ordinal;
};

/* What a device must have; fields that are zero require nothing. */
struct cubudget_requirements {
    size_t size;                 /* sizeof(struct cubudget_requirements) */
    unsigned compute_capability; /* at least; 10 * major + minor */
    bool virtual_memory;         /* cuMemCreate and its family */
    uint64_t total_bytes;        /* at least, as struct cubudget_device_info has it */
};

/* Opens a device by its number or by its uuid ("GPU-..." or "MIG-..."). `required` may be NULL. Initialises CUDA, attaches the
 * process to its ledger. NO_DEVICE, NO_DRIVER, UNSUITABLE, NO_LEDGER, SETTINGS, CUDA. */
CUBUDGET_API enum cubudget_error cubudget_device_open(int ordinal, const struct cubudget_requirements *required,
                                                      struct cubudget_device *device);
CUBUDGET_API enum cubudget_error cubudget_device_open_uuid(const char *uuid,
                                                           const struct cubudget_requirements *required,
                                                           struct cubudget_device *device);

/* How full a device's budget is: low < 50 % <= medium <= 80 % < high <= 95 % < critical. */
enum cubudget_pressure {
    CUBUDGET_PRESSURE_LOW = 0,
    CUBUDGET_PRESSURE_MEDIUM = 1,
    CUBUDGET_PRESSURE_HIGH = 2,
    CUBUDGET_PRESSURE_CRITICAL = 3,
};

struct cubudget_device_info {
    size_t size; /* sizeof(struct cubudget_device_info) */
    int ordinal;
    unsigned compute_capability; /* 10 * major + minor */
    unsigned multiprocessors;
    bool virtual_memory;
    enum cubudget_pressure pressure;
    uint64_t total_bytes; /* of the calling thread's slot: its limit, or the budget where that is less */
    uint64_t free_bytes;  /* what that slot could be granted now, and the card has */
    uint64_t card_bytes;  /* the whole card, as CUDA tells of it */
    char uuid[CUBUDGET_UUID_TEXT_BYTES];
    char name[CUBUDGET_NAME_BYTES];
};

/* Fills *info, whose `size` the caller has set. */
CUBUDGET_API enum cubudget_error cubudget_device_info(struct cubudget_device device, struct cubudget_device_info *info);

/* --- pools and buffers ------------------------------------------------------------------------------------------------ */

/* A pool of device memory on one device, with a limit of its own inside the slot's. All zeroes is no pool. */
struct cubudget_pool {
    uint64_t handle;
};

/* Device memory of a pool. `pointer` is a CUdeviceptr. All zeroes is no buffer, and freeing that does nothing. A copy is the same
 * buffer: once one of them is freed the others are CUBUDGET_ERROR_FREED. Fill one in only by cubudget_pool_alloc. */
struct cubudget_buffer {
    uint64_t pointer;
    size_t size; /* as asked for */
    struct cubudget_pool pool;
    uint64_t handle;
};

/* Makes a pool of at most `limit_bytes` (CUBUDGET_NO_LIMIT: the slot's and the budget's alone; 0 is INVALID). Retains the
 * device's primary context, which costs some 500 MiB where the process has none yet and is charged to the calling thread's
 * slot. OUT_OF_MEMORY, TOO_MANY (256 pools), NO_DEVICE, CUDA. The pool is the caller's, to be closed. */
CUBUDGET_API enum cubudget_error cubudget_pool_create(struct cubudget_device device, uint64_t limit_bytes,
                                                      struct cubudget_pool *pool);

/* Frees everything that is left in the pool and gives the context back. POOL_CLOSED, FOREIGN, FORKED. */
CUBUDGET_API enum cubudget_error cubudget_pool_close(struct cubudget_pool pool);

struct cubudget_pool_info {
    size_t size; /* sizeof(struct cubudget_pool_info) */
    struct cubudget_device device;
    enum cubudget_pressure pressure; /* of the device */
    uint64_t limit_bytes;
    uint64_t used_bytes;      /* the sum of the sizes of the buffers in it */
    uint64_t peak_bytes;      /* the most that was */
    uint64_t available_bytes; /* the least of what the pool's limit and the calling thread's slot leave */
    uint64_t buffers;         /* in it now */
};

CUBUDGET_API enum cubudget_error cubudget_pool_info(struct cubudget_pool pool, struct cubudget_pool_info *info);

/* Allocates `bytes` (0 is INVALID), charged to the calling thread's slot as cuMemAlloc is: in blocks of 2 MiB, which small
 * buffers share. Needs no current context and leaves the thread's as it is. Blocks while the budget's rules make it wait. Under 1 ms
 * where there is room. POOL_LIMIT, OUT_OF_MEMORY, POOL_CLOSED, CUDA. The buffer is the caller's until it or its pool goes. */
CUBUDGET_API enum cubudget_error cubudget_pool_alloc(struct cubudget_pool pool, size_t bytes,
                                                     struct cubudget_buffer *buffer);

/* Frees a buffer of that pool, from any thread: the slot that paid is credited. Sets *buffer to zeroes. Work that still uses the
 * memory is waited for by the driver. Under 0.5 ms. FREED, POOL_CLOSED, FOREIGN, FORKED, CUDA. */
CUBUDGET_API enum cubudget_error cubudget_pool_free(struct cubudget_pool pool, struct cubudget_buffer *buffer);

/* The same, of whatever pool it is. */
CUBUDGET_API enum cubudget_error cubudget_buffer_free(struct cubudget_buffer *buffer);

/* A buffer (a pool) that goes with its scope: CUBUDGET_SCOPED_BUFFER(scratch); cubudget_pool_alloc(pool, n, &scratch); */
static inline void cubudget_buffer_leave(struct cubudget_buffer *buffer)
{
    if (buffer->handle != 0)
        (void)cubudget_buffer_free(buffer);
}
static inline void cubudget_pool_leave(struct cubudget_pool *pool)
{
    if (pool->handle != 0)
        (void)cubudget_pool_close(*pool);
}
#define CUBUDGET_SCOPED_BUFFER(name)                                                                                   \
    __attribute__((cleanup(cubudget_buffer_leave))) struct cubudget_buffer name = {0, 0, {0}, 0}
#define CUBUDGET_SCOPED_POOL(name) __attribute__((cleanup(cubudget_pool_leave))) struct cubudget_pool name = {0}

/* --- slots ------------------------------------------------------------------------------------------------------------- */

/* From now on what the calling thread allocates is charged to the slot of that name (1 to 63 bytes of UTF-8, no '/'), in a row of
 * its own, until the matching pop. Pushes nest, 32 deep; they end with the thread. Where the process is not attached to a ledger yet
 * the row is made when it is; where its ledger was removed a moment ago, a push of a slot that is new to it waits for the next one,
 * about a second. Freeing credits the slot that paid, whichever thread frees and whatever is pushed.
 * INVALID, TOO_MANY (64 slots of a process or of the ledger, 1,024 rows), NO_LEDGER. */
CUBUDGET_API enum cubudget_error cubudget_slot_push(const char *name);

/* Back to what was before the last push. NOT_PUSHED. */
CUBUDGET_API enum cubudget_error cubudget_slot_pop(void);

/* Writes the name of the slot that the calling thread charges to. */
CUBUDGET_API enum cubudget_error cubudget_slot_current(char name[CUBUDGET_NAME_BYTES]);

/* A push that is popped at the end of its scope: CUBUDGET_SCOPED_SLOT("encoder"); a push that failed is not popped. */
static inline void cubudget_slot_leave(const enum cubudget_error *pushed)
{
    if (*pushed == CUBUDGET_OK)
        (void)cubudget_slot_pop();
}
#define CUBUDGET_JOIN_(a, b) a##b
#define CUBUDGET_JOIN(a, b)  CUBUDGET_JOIN_(a, b)
#define CUBUDGET_SCOPED_SLOT(name)                                                                                     \
    __attribute__((cleanup(cubudget_slot_leave), unused)) const enum cubudget_error CUBUDGET_JOIN(                     \
        cubudget_pushed_, __LINE__) = cubudget_slot_push(name)

/* --- pressure ----------------------------------------------------------------------------------------------------------- */

/* "low" "medium" "high" "critical"; "?" for anything else. A constant text. */
CUBUDGET_API const char *cubudget_pressure_name(enum cubudget_pressure level);

/* The level of so many bytes of a budget; of a budget of 0, critical. */
CUBUDGET_API enum cubudget_pressure cubudget_pressure_of(uint64_t used_bytes, uint64_t budget_bytes);

/* Somebody who wants to hear of changes of one device's level. A process needs no GPU for it, only the ledger. While anybody
 * watches, allocations of all processes cost some tens of nanoseconds more; a watcher that is killed is noticed. */
struct cubudget_watch;

/* Begins to watch a device by its uuid; NULL: the ledger's first. NO_LEDGER, NO_DEVICE, NO_HOST_MEMORY, SYSTEM. The watch is the
 * caller's, to be closed; it does not survive a fork (FORKED). */
CUBUDGET_API enum cubudget_error cubudget_watch_open(const char *uuid, struct cubudget_watch **watch);

/* Ends it. No other thread may be using it; NULL does nothing. Not from its own callback. */
CUBUDGET_API void cubudget_watch_close(struct cubudget_watch *watch);

/* The level as it is now. */
CUBUDGET_API enum cubudget_error cubudget_watch_level(struct cubudget_watch *watch, enum cubudget_pressure *level);

struct cubudget_pressure_change {
    uint64_t generation;          /* counts the device's changes */
    enum cubudget_pressure level; /* what it changed to */
    uint64_t pending;             /* changes after this one that wait to be taken */
    uint64_t untold;              /* changes before this one whose level is not known any more: see below */
};

/* Takes the next change since the watch was opened, in order; waits for one where there is none. `timeout_ms` < 0: for ever; 0: not
 * at all. Every change is counted and told, of this process and any other, within microseconds and without polling. A watcher
 * that falls more than 64 changes behind is told how many it missed (`untold`), and the rest in order. A level that was there
 * and gone again between two looks of whoever changed it is no change. A process that is killed is noticed within a second.
 * One thread at a time. TIMEOUT, FORKED. */
CUBUDGET_API enum cubudget_error cubudget_pressure_wait(struct cubudget_watch *watch, int timeout_ms,
                                                        struct cubudget_pressure_change *change);

/* A descriptor for poll, select or epoll, readable while there may be a change to take: then call cubudget_pressure_wait with 0
 * until it says TIMEOUT, which clears it. Never read it, never close it: it is the watch's. Starts a thread. */
CUBUDGET_API enum cubudget_error cubudget_watch_descriptor(struct cubudget_watch *watch, int *descriptor);

/* Has each change told by a thread of the library's, in order; cubudget_pressure_wait is then not to be used, and the callback is
 * to return soon. Once for a watch. */
typedef void cubudget_pressure_callback(const struct cubudget_pressure_change *change, void *context);
CUBUDGET_API enum cubudget_error cubudget_watch_callback(struct cubudget_watch *watch, cubudget_pressure_callback *call,
                                                         void *context);

/* --- the books ----------------------------------------------------------------------------------------------------------- */

/* The whole ledger as it was at one moment. */
struct cubudget_snapshot;

struct cubudget_ledger_entry {
    size_t size;      /* of the library's structure: what lies beyond is not there */
    uint32_t version; /* of the ledger's layout */
    uint64_t budget_bytes;
    unsigned devices, slots, processes; /* how many entries of each */
    char name[CUBUDGET_NAME_BYTES];
};

struct cubudget_device_entry {
    size_t size;
    char uuid[CUBUDGET_UUID_TEXT_BYTES];
    char name[CUBUDGET_NAME_BYTES];
    bool simulated;
    bool steady; /* the sums were true at one moment; else writers never rested */
    enum cubudget_pressure pressure;
    uint64_t total_bytes, budget_bytes, used_bytes, available_bytes, peak_bytes;
};

struct cubudget_slot_entry {
    size_t size;
    char name[CUBUDGET_NAME_BYTES];
    uint32_t priority;    /* 0 to 100; 101: never evicted */
    unsigned processes;   /* living */
    uint64_t limit_bytes; /* CUBUDGET_NO_LIMIT: none */
    uint64_t reserve_bytes, used_bytes, evicted_bytes, peak_bytes;
    uint64_t allocations, frees, refusals, evictions, restores, waits;
};

enum cubudget_process_state {
    CUBUDGET_PROCESS_LIVE = 1,
    CUBUDGET_PROCESS_ORPHANED = 2, /* dead, and a child of it keeps its memory on the card */
    CUBUDGET_PROCESS_DYING = 3,    /* dead, and its memory comes back within 200 ms */
};

/* Where a living process's memory is. */
enum cubudget_activity {
    CUBUDGET_ACTIVITY_NO_CONTEXT = 0, /* it has none on the card yet */
    CUBUDGET_ACTIVITY_RUNNING = 1,    /* on the card */
    CUBUDGET_ACTIVITY_ASKED = 2,      /* and was asked to leave it */
    CUBUDGET_ACTIVITY_EVICTING = 3,
    CUBUDGET_ACTIVITY_EVICTED = 4, /* in host memory */
    CUBUDGET_ACTIVITY_RESTORING = 5,
    CUBUDGET_ACTIVITY_LOST = 6, /* it could not be restored, and is about to end */
};

/* What a process stands in line for. */
enum cubudget_waiting {
    CUBUDGET_WAITING_NOT = 0,
    CUBUDGET_WAITING_ALLOCATION = 1,
    CUBUDGET_WAITING_RESTORE = 2,
};

/* What one process holds of one device in one slot. */
struct cubudget_process_entry {
    size_t size;
    uint32_t pid;  /* in its own PID namespace */
    int device;    /* index of a device entry; -1: it holds nothing yet */
    unsigned slot; /* index of a slot entry */
    enum cubudget_process_state state;
    uint64_t used_bytes, evicted_bytes;
    uint64_t by_kind[CUBUDGET_KINDS]; /* linear, managed, context, pool, vmm, array, graph, module */
    char command[CUBUDGET_COMMAND_BYTES];
    /* Of the whole process, in each of its entries: */
    enum cubudget_activity activity;
    uint64_t activity_since_ns; /* CLOCK_REALTIME */
    bool evictable;
    char unevictable_reason[CUBUDGET_REASON_BYTES]; /* "" where it is, or where that is not known yet */
    uint64_t host_bytes;                            /* of host memory for what has left the card */
    enum cubudget_waiting waiting;                  /* where it does not wait, the rest means nothing */
    int waiting_device;                             /* index of a device entry; -1: unknown */
    uint64_t waiting_bytes;
    uint64_t waiting_since_ns; /* CLOCK_REALTIME */
    uint32_t waiting_for_pid;  /* who was asked to make room; 0: nobody in particular */
    int waiting_for_slot;      /* index of a slot entry; -1: unknown */
};

/* Takes one; it is the caller's, to be freed. Works in any process that may read the ledger. NO_LEDGER, NO_HOST_MEMORY. */
CUBUDGET_API enum cubudget_error cubudget_snapshot_take(struct cubudget_snapshot **snapshot);
CUBUDGET_API void cubudget_snapshot_free(struct cubudget_snapshot *snapshot);

/* What is in it; NULL where the index is beyond the last. It goes with the snapshot. */
CUBUDGET_API const struct cubudget_ledger_entry *cubudget_snapshot_ledger(const struct cubudget_snapshot *snapshot);
CUBUDGET_API const struct cubudget_device_entry *cubudget_snapshot_device(const struct cubudget_snapshot *snapshot,
                                                                          unsigned index);
CUBUDGET_API const struct cubudget_slot_entry *cubudget_snapshot_slot(const struct cubudget_snapshot *snapshot,
                                                                      unsigned index);
CUBUDGET_API const struct cubudget_process_entry *cubudget_snapshot_process(const struct cubudget_snapshot *snapshot,
                                                                            unsigned index);

/* --- test support ---------------------------------------------------------------------------------------------------------- */

/* For a program's own tests: from now on the process uses a simulated GPU (`options` as `cubudget run --simulate=` takes them,
 * "memory=4GiB,devices=2"; NULL: a card of 24 GiB), and its ledger and the machine live in `directory` (NULL: CUBUDGET_DIR), which
 * should be one of the test's own. Call it first of all, before threads are started and CUDA is used. A program that itself calls
 * CUDA links to the simulated driver (`pkg-config --libs cubudget-sim`). SETTINGS; UNSUPPORTED where the library was built without the
 * simulator, or a driver is loaded already; NO_DRIVER where the simulator's files are not there. */
CUBUDGET_API enum cubudget_error cubudget_simulate(const char *options, const char *directory);

#ifdef __cplusplus
}
#endif

#endif
