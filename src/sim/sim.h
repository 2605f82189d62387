/*
 * What the parts of the simulated driver share: the process's state, the devices it sees, its contexts, streams and
 * memory. Included by every file of the driver (not by nvml.c, machine.c and options.c, which the driver is built on).
 *
 * Synchronisation: everything here is read and changed under sim_lock(), but where a field says otherwise. The lock is
 * never held over a copy, a kernel or a callback. Order: sim_lock, then the machine's mutex.
 *
 * All work is done by the calling thread before the call returns, so streams are always idle and events complete.
 */
#ifndef SIM_SIM_H
#define SIM_SIM_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cuda/cuda_abi.h"
#include "sim/machine_file.h"

/* An entry point of the driver. Its prototype is the driver's interface, which no header of ours declares: callers are
 * programs built with NVIDIA's, and tests compare the names. */
#define SIM_API __attribute__((visibility("default")))
#pragma GCC diagnostic ignored "-Wmissing-prototypes"

/* A second name with an address of its own (an alias would share it, and interposers go by addresses) for the same
 * prototype, whatever it is: a jump that leaves the arguments as they came, after a word on which name was called. */
#if defined(__x86_64__)
#define SIM_JUMP(name)                                                                                                 \
    "push %rdi\n\tpush %rsi\n\tpush %rdx\n\tpush %rcx\n\tpush %r8\n\tpush %r9\n\tsub $8, %rsp\n\t"                     \
    "lea 8f(%rip), %rdi\n\tlea 9f(%rip), %rsi\n\tcall process_called_as\n\t"                                           \
    "add $8, %rsp\n\tpop %r9\n\tpop %r8\n\tpop %rcx\n\tpop %rdx\n\tpop %rsi\n\tpop %rdi\n\tjmp " name
#else
#define SIM_JUMP(name)                                                                                                 \
    "stp x0, x1, [sp, #-80]!\n\tstp x2, x3, [sp, #16]\n\tstp x4, x5, [sp, #32]\n\tstp x6, x7, [sp, #48]\n\t"           \
    "stp x8, x30, [sp, #64]\n\tadrp x0, 8f\n\tadd x0, x0, :lo12:8f\n\tadrp x1, 9f\n\tadd x1, x1, :lo12:9f\n\t"         \
    "bl process_called_as\n\tldp x2, x3, [sp, #16]\n\tldp x4, x5, [sp, #32]\n\tldp x6, x7, [sp, #48]\n\t"              \
    "ldp x8, x30, [sp, #64]\n\tldp x0, x1, [sp], #80\n\tb " name
#endif
#define SIM_TWIN(twin, name)                                                                                           \
    __asm__(".pushsection .text\n\t.globl " #twin "\n\t.type " #twin ", %function\n" #twin                             \
            ":\n\t" SIM_JUMP(#name) "\n\t.size " #twin ", . - " #twin                                                  \
                                    "\n\t.popsection\n\t.pushsection .rodata\n8:\t.asciz \"" #twin                     \
                                    "\"\n9:\t.asciz \"" #name "\"\n\t.popsection")

/* The first line of each entry point: initialised, in this process, not locked out, and no fault ordered for this call. The call
 * counts as inside the driver until its function returns. */
#define SIM_ENTER() SIM_ENTER_AFTER_(NULL)
#define SIM_ENTER_AFTER_(after)                                                                                        \
    __attribute__((cleanup(call_end))) struct call enter_call_ = process_enter(__func__, after);                       \
    if (enter_call_.result != CUDA_SUCCESS)                                                                            \
    return enter_call_.result

/* The same for one that makes something and can undo it: declares, under the given name, the error it must then return,
 * with all it made undone and no output written; success: none. Without this a fail-after= fails like a fail=. */
#define SIM_ENTER_MAKING(after)                                                                                        \
    CUresult after = CUDA_SUCCESS;                                                                                     \
    SIM_ENTER_AFTER_(&(after))

/* A usable context current to the calling thread, declared under the given name; after one of the above. */
#define SIM_CONTEXT(context)                                                                                           \
    CUcontext context;                                                                                                 \
    do {                                                                                                               \
        CUresult enter_result_ = context_current(&(context));                                                          \
        if (enter_result_ != CUDA_SUCCESS)                                                                             \
            return enter_result_;                                                                                      \
    } while (0)
#define SIM_ENTER_CONTEXT(context)                                                                                     \
    SIM_ENTER();                                                                                                       \
    SIM_CONTEXT(context)

enum { SIM_DRIVER_VERSION = 13000 };

struct sim_process {
    struct machine machine;
    struct sim_options options;
    unsigned device_count;          /* that this process sees; fixed at cuInit */
    unsigned physical[SIM_DEVICES]; /* the machine's number of each of them */
};
extern struct sim_process sim_process;

/* A call under way: what its entry says, and whether it counts as inside. */
struct call {
    CUresult result;
    bool inside;
};
struct call process_enter(const char *name, CUresult *after);
/* The same for a call of the checkpoint, which no lock keeps out and no lock waits for. */
CUresult process_look(const char *name, CUresult *after);
void call_end(const struct call *call);
void process_called_as(const char *twin, const char *name);
CUresult device_check(CUdevice device);
/* Whether some memory of this process is managed, or shared with other processes: the checkpoint moves none of either. Under
 * sim_lock. */
bool memory_stays(void);
bool physical_in_use(void);
/* This process's number of a card of the machine. */
CUdevice device_ordinal(unsigned physical);
/* Starts the thread that watches for deaths, or waits to. */
void watch_start(struct machine *machine);

/* Starts a thread of the simulator's own, detached; the program's signals are not for it. */
bool thread_start(size_t stack_bytes, void *(*run)(void *), void *argument);
void sim_lock(void);
void sim_unlock(void);
/* Lets go of the lock until sim_wake / wakes all that wait. Under it. */
void sim_wait(void);
void sim_wake(void);

/* Contexts: never given back to the heap, so that a stale handle can be told from a live one. */
struct block;
struct host_range;

enum { CONTEXT_LIMITS = 10 };

struct CUctx_st {
    struct CUctx_st *next;
    CUdevice device;
    bool primary;
    atomic_bool alive;
    atomic_int fault;            /* a CUresult that every later call returns, as after an illegal address in a kernel */
    _Atomic uint64_t generation; /* one more each time the context ends: what belongs to it remembers which life */
    unsigned flags, references;
    unsigned peers; /* bits of the devices whose memory it may touch besides its own */
    uint64_t id;
    int cache_config, shared_config;
    size_t limits[CONTEXT_LIMITS];
    struct block *blocks;
    struct host_range *hosts;
    uint64_t extra_bytes;         /* of the card, for its threads' stacks and its green contexts: back when it ends */
    uint64_t stack_bytes;         /* the part for stacks */
    unsigned greens, greens_paid; /* green contexts alive, and paid for: a primary context's */
    CUcontext parent; /* of a green one: the primary context that all of it belongs to, in the life it had */
    uint64_t parent_generation;
};

/* The calling thread's context, usable now: 0, or INVALID_CONTEXT, CONTEXT_IS_DESTROYED or the context's fault. */
CUresult context_current(CUcontext *context);
/* Retains a device's primary context, as the entry points do. / Releases it. */
CUresult primary_retain(CUdevice device, CUcontext *primary);
CUresult primary_release(CUdevice device);
/* Takes bytes of the card for a context until it ends: 0, or OUT_OF_MEMORY. Under sim_lock. */
CUresult context_extend(CUcontext context, uint64_t bytes);
/* A new handle that stands for a primary context; NULL: no memory. / Ends it. Under sim_lock. */
CUcontext context_make_green(CUcontext parent);
void context_end_green(CUcontext context);
/* Whether a handle is that of a context that lives. */
bool context_is_alive(CUcontext context);

/* Streams: resolves a handle, the three implicit ones included, to the context it works in / to all that tells its place
 * among others. */
CUresult stream_check(CUstream stream, CUcontext *context);
CUresult stream_create(CUcontext context, CUstream *stream, unsigned flags, int priority);
struct stream_place {
    CUcontext context;
    uint64_t id;
    bool legacy, blocking; /* the legacy stream itself; one that waits for it */
};
CUresult stream_find(CUstream stream, struct stream_place *place);
/* Counts the moments at which streams did something that others may wait for; under sim_lock. */
uint64_t stream_moment(void);

/* Memory. */
#define GRANULE_BYTES (2ULL << 20)

struct allocation {
    uint64_t base, bytes; /* as asked for */
    struct block *block;
    bool managed;
    CUcontext owner; /* NULL: of no context */
    unsigned device; /* the machine's number */
    uint64_t id;
};

/* A piece of memory that stays mapped until span_release, whoever frees it meanwhile. */
struct reservation;
struct span {
    unsigned char *bytes;
    struct block *block;
    struct reservation *reservation;
};

/* What a span may be: bits. */
enum {
    SPAN_ANY = 0,    /* an address of either: unified addressing */
    SPAN_DEVICE = 1, /* device memory, or host memory that the driver knows */
    SPAN_WRITE = 2,  /* will be written */
};
CUresult span_take(struct span *span, uint64_t address, uint64_t bytes, unsigned kind);
void span_release(struct span *span);

CUresult memory_allocate(CUcontext context, uint64_t bytes, bool managed, bool low, uint64_t *address);
CUresult memory_free(uint64_t address);
/* Finds an address and bytes for an allocation in a block like the given one, a new one or (where small ones share) one
 * that is there. 0: no room. Under sim_lock. */
uint64_t memory_place(const struct block *kind, uint64_t bytes, bool share, bool low);
/* Finds what an address lies in; under sim_lock. */
bool memory_find(uint64_t address, struct allocation *allocation);
/* Whether an address lies where device memory can be, allocated or not. */
bool memory_is_device_range(uint64_t address);
/* Takes from a context all it owns, and gives the bytes back to the card; under sim_lock. What it returns is unmapped
 * with memory_dispose, which needs no lock. */
struct block *memory_end_context(CUcontext context);
void memory_dispose(struct block *dead);

struct host_range {
    struct host_range *next;
    uint64_t address, bytes, id;
    unsigned flags;
    bool registered; /* the program's own memory, made known; else ours */
    CUcontext owner;
};
/* The range an address lies in / forgets those of a context; under sim_lock. */
struct host_range *host_find(uint64_t address);
void host_end_context(CUcontext context);
void external_end_context(CUcontext context);

/* Pools: an allocation of theirs was freed, on a stream if a place is given (under sim_lock) / the host has waited for
 * what happened until a moment in a place (id 0: in all of a context), so that unused memory may go back to the card. */
struct reservoir;
void pool_freed(struct reservoir *reservoir, uint64_t address, const struct stream_place *place);
void pools_see(const struct stream_place *place, uint64_t moment);
CUmemoryPool pool_of(const struct reservoir *reservoir);

/* A number no other allocation of this process has ever had; under sim_lock. */
uint64_t memory_next_id(void);

#endif
