/*
 * A process's own account: the row it holds in the ledger, what each pointer and context was charged, and the decision
 * whether a request may go to the driver. Called by the wrappers of src/interpose; calls src/ledger, src/platform, src/cuda.
 *
 * Synchronisation: one lock per process (biased_lock.h) guards the row's cells and the maps; it lies, with all other state of being
 * attached, in pages that a forked child finds wiped (MADV_WIPEONFORK), so that a child, however it was made, is unattached
 * and owes nothing. All functions are safe from any thread and keep errno. Tables come from mmap, never from the heap.
 *
 * How one allocation goes:
 *     account_ask     the bytes are charged and in flight, or the answer is out of memory
 *     (the driver)
 *     account_record  the pointer is known; what the call really cost is charged; the bytes have landed
 *     account_abandon instead, where the driver refused
 */
#ifndef ACCOUNT_ACCOUNT_H
#define ACCOUNT_ACCOUNT_H

#include <stdbool.h>
#include <stdint.h>
#include <cubudget/ledger_abi.h>
#include "cuda/driver.h"
#include "platform/env.h"

/* One sentence that says why something cannot be. */
struct account_fault {
    char text[512];
};

/* Notes the settings this process runs under, and whether it was put under them (the library is preloaded) or links to the
 * library by its own wish: what makes a budget impossible ends the one, and is told to the other. Called by the constructor;
 * again by cubudget_simulate, before anything is attached. */
void account_configure(const struct settings *settings, bool imposed);
bool account_is_imposed(void);

/* Notes that the settings are bad, and why: in a process that links to the library nothing can be attached then. */
void account_misconfigure(const char *why);

/* The settings; NULL, and why in *fault, where they are bad. */
const struct settings *account_settings_get(struct account_fault *fault);

/* Opens the ledger and claims a row, for a process whose cuInit has succeeded. Does nothing where that is done. 0, or the status
 * that a process under a budget ends with, and why: no device good enough 69, no ledger 73, settings that do not fit it 78. */
int account_attach(const struct driver *driver, struct account_fault *fault);

/* Whether this process (not a parent of it) has a row. */
bool account_is_attached(void);

/* What is done about once a second, by the thread of src/evict: where the ledger's file is gone or is another one, the
 * process's charges move to the file that is there now, or to a new one of the same budget, and a line says so; and the row
 * notes when it was last at work, which would cost each allocation a look at the clock. `quiet`: nobody has called the driver for some
 * seconds, so it has taken nothing by itself either, and NVML is not asked. */
void account_tick(bool quiet);

/* The part of it that asks neither the driver nor NVML, which the other does as well: for a process that is off the card. */
void account_tick_ledger(void);

/* --- slots ---------------------------------------------------------------------------------------------------------- */

/* What the calling thread allocates from now on is charged to that slot, in a row of its own, until it pops; it frees what it
 * frees. Nested pushes, up to 32. Where the process is not attached yet the row is claimed when it is. 0; -EINVAL: no name; -ENOSPC:
 * too many pushes, slots or rows; other -errno: the ledger could not be used; *fault says why. */
int account_slot_push(const char *name, struct account_fault *fault);

/* Back to what was before. False: this thread has pushed nothing. */
bool account_slot_pop(void);

/* The name of the slot that the calling thread charges to. */
void account_slot_name(char name[LEDGER_NAME_BYTES]);

/* --- what is charged ---------------------------------------------------------------------------------------------- */

/* A request on its way to the driver: filled by account_ask. */
struct charge {
    unsigned purse; /* which of this process's rows pays, of which device: state.h */
    enum ledger_kind kind;
    uint32_t owner; /* the context whose end frees it; OWNER_NONE: none */
    uint64_t bytes; /* charged and in flight */
};

enum { OWNER_NONE = 0 };

/* What linear memory of that size physically costs, before it is known whether it shares a block: whole 2 MiB blocks.
 * UINT64_MAX where that passes what 64 bits hold. */
#define BLOCK_BYTES (2ULL << 20) /* what the driver takes at a time: measured, cuMemAlloc of 1 byte costs it */
static inline uint64_t linear_cost(uint64_t bytes)
{
    return bytes > UINT64_MAX - BLOCK_BYTES ? UINT64_MAX : (bytes + BLOCK_BYTES - 1) / BLOCK_BYTES * BLOCK_BYTES;
}

/* Charges `bytes` of `kind` to the device and owner of the thread's current context. True: granted, fill in and go on.
 * False with *passes set: nothing to charge (unattached, no context, a context of an unknown device): let the driver
 * answer. False without: out of memory. */
bool account_ask(const struct driver *driver, enum ledger_kind kind, uint64_t bytes, struct charge *charge,
                 bool *passes);

/* The same for a device that the call itself names, whatever context is current, for memory that outlives all contexts. */
bool account_ask_device(CUdevice ordinal, enum ledger_kind kind, uint64_t bytes, struct charge *charge, bool *passes);

/* The driver returned `pointer`, which physically takes linear_cost(actual_bytes). */
void account_record(const struct charge *charge, CUdeviceptr pointer, uint64_t actual_bytes);

/* The driver refused. */
void account_abandon(const struct charge *charge);

/* The driver made memory that is not charged here (another process's, a graphics buffer) visible at `pointer`: what the books
 * have there still was freed by a way that they did not see, and is credited. */
void account_imported(CUdeviceptr pointer);

/* The owner that stands for the thread's current context; OWNER_NONE where there is none. */
uint32_t account_owner(const struct driver *driver);

/* The driver has freed `pointer`: what it was charged is credited. Does nothing for a pointer that is not one of ours. After
 * the call and not before: until it returns, the memory is on the card. True: it was handed out of a pool, which may have
 * shrunk. */
bool account_freed(CUdeviceptr pointer);

/* Around a driver's call that ends what has a handle (an array, a module, a library) and not an address. The driver may hand the
 * handle out again before it has given the memory back, so that the charge is set aside meanwhile, under a number of its own
 * (0: nothing is known by that handle); *gone* says whether the driver did as asked. */
uint64_t account_ending(uint64_t handle);
void account_ended(uint64_t handle, uint64_t aside, bool gone);

/* Around a driver's call that may give memory back, and its books: +1 before, -1 after. Between the two the card says less than the
 * books, and no reading of both counts. */
void account_leaving(int change);

/* The same before a call that frees `pointer`, which is made so often that it counts only in processes where it matters: those
 * that take readings or end contexts while they hold memory. Returns what is to be taken away after, as -change. */
int account_freeing(CUdeviceptr pointer);

/* --- what only the card can say ---------------------------------------------------------------------------------------- */

/* A reading of what the card says that this process holds, beside what its row says. */
enum drift_state {
    DRIFT_CLEAN,   /* nothing else of this process was on its way to or from the driver */
    DRIFT_BUSY,    /* something was: the figures say nothing */
    DRIFT_UNKNOWN, /* the card does not know this process */
};
struct drift {
    unsigned device;
    enum drift_state state;
    uint32_t measurement;
    uint64_t own_bytes, committed_bytes, changes;
    uint64_t
        own_changes; /* how often the call itself will have changed the row by the next reading; no other may have */
};
#define DRIFT_ANY_CHANGES UINT64_MAX

/* --- arrays ----------------------------------------------------------------------------------------------------------- */

/* Arrays of more than 1 MiB have blocks of their own. Smaller ones share blocks, with each other and with small memory, and nobody
 * is told which: so each is charged a block before it is made, and given it back where the card says that it took none. */
struct array_charge {
    struct charge charge;
    uint64_t bytes; /* of the array itself, padded */
    struct drift before;
};

/* Before an array of that many bytes (array_cost.h) is made. As account_ask; 0 bytes pass. */
bool array_ask(const struct driver *driver, uint64_t bytes, struct array_charge *array, bool *passes);

/* The driver returned `handle`; or it refused. */
void array_record(const struct array_charge *array, uint64_t handle);
void array_abandon(const struct array_charge *array);

/* Around the driver's destroying one. A handle that is none of ours (an import) is left alone. */
struct array_ending {
    uint64_t handle, aside;
    uint32_t owner;
    unsigned purse;
    bool small;
    struct drift before;
};
void array_ending_begin(uint64_t handle, struct array_ending *ending);
void array_ending_end(const struct array_ending *ending, bool gone);

/* --- modules, libraries, limits, green contexts ------------------------------------------------------------------------- */

/* A call that takes what nobody can compute: asked for as far as it was predicted, measured around the call, charged after. */
struct measured_charge {
    struct charge charge; /* bytes: asked for, and in flight */
    struct drift before;
};

/* Before the call, for the current context; 0 predicted bytes are not asked for. As account_ask. */
bool measured_ask(const struct driver *driver, enum ledger_kind kind, uint64_t bytes, struct measured_charge *measured,
                  bool *passes);

/* The same for a device's primary context, of which a green one is made. False with *passes: it is not there yet. */
bool measured_ask_primary(CUdevice ordinal, uint64_t bytes, struct measured_charge *measured, bool *passes);

/* The driver refused. */
void measured_abandon(const struct measured_charge *measured);

/* What the call took, in whole blocks; what was predicted where the card cannot say. Once after each call that succeeded. */
uint64_t measured_cost(struct measured_charge *measured);

/* Asks for what it took beyond the prediction, which is on the card already and so cannot be waited for. False: it does not fit now; the caller
 * undoes the call, then account_abandon. */
bool measured_extend(struct measured_charge *measured, uint64_t bytes);

/* Remembers what it took under its handle; the free of that (account_freed) or the end of its context credits it. */
void measured_record(const struct measured_charge *measured, uint64_t handle, uint64_t bytes);

/* The same for what belongs to the context and goes with it alone; added to what is there. */
enum context_part {
    CONTEXT_STACKS = 1,
    CONTEXT_OTHER = 3,
};
void measured_record_context(const struct measured_charge *measured, enum context_part part, uint64_t bytes);

/* What a limit of so many bytes of stack takes more than the current context has for stacks: at once, for all threads that can be
 * resident, beyond what a context comes with. Measured on an H100: 16384 cost (16384 - 1024) * 132 * 2048 bytes. */
enum { CONTEXT_STACK_BYTES = 1024 };
uint64_t stacks_cost(const struct driver *driver, size_t bytes);

/* They are of that many bytes now: what the context held for larger ones is back (measured). */
void stacks_lowered(const struct driver *driver, size_t bytes);

/* A library was loaded, charged by account_ask. It takes memory at its first use (measured), which may be a launch that nobody
 * sees, so it is charged from its load to its unload. */
void library_record(const struct charge *charge, uint64_t handle);

/* The context of a green one: what is allocated in it belongs to the device's primary context. / Its device. / It is gone. */
void green_remember(CUcontext context, CUdevice ordinal);
bool green_find(CUcontext context, CUdevice *ordinal);
void green_forget(CUcontext context);

/* --- contexts -------------------------------------------------------------------------------------------------------- */

/* Contexts are made and ended one at a time in a process: between a begin and its end no other thread of it does either. */
struct overhead {
    uint64_t own_bytes, used_bytes; /* of this process, and on the whole card; UINT64_MAX: the card cannot say */
};
struct context_charge {
    struct charge charge;
    CUdevice ordinal;
    struct overhead before;
    struct drift reading;
    bool locked; /* context_end has something to end */
    bool counts; /* charged; false: unattached, or the context is there already */
};

/* Before a context is made on a device: charges its predicted cost. False: out of memory, and no context_end. */
bool context_begin(const struct driver *driver, CUdevice ordinal, bool primary, struct context_charge *context);

/* After it: corrects the charge to what it really cost and remembers the handle; `result` is what the driver returned. */
void context_end(struct context_charge *context, CUresult result, CUcontext handle, bool primary);

/* Around a call that may end a context: afterwards everything that went with it is credited. `handle` NULL: the primary
 * context of `ordinal`. */
struct context_ending {
    CUcontext handle;
    CUdevice ordinal;
    bool locked;
};
void context_ending_begin(CUcontext handle, CUdevice ordinal, struct context_ending *ending);
void context_ending_end(struct context_ending *ending, bool ended);

/* Whether a device's primary context is inactive, as it is after its last release and after a reset. */
bool context_primary_is_gone(const struct driver *driver, CUdevice ordinal);

/* Counts a use of a context more or less (cuCtxAttach, cuCtxDetach); returns whether the last one is gone. */
bool context_use(CUcontext handle, int change);

/* --- what programs see ------------------------------------------------------------------------------------------------- */

/* The slot's view of a device by its CUDA ordinal. False: unattached or unknown; tell the program what the driver says. */
bool account_view(CUdevice ordinal, uint64_t *free_bytes, uint64_t *total_bytes);

/* A device's level of pressure (enum pressure_level) by its CUDA ordinal; the lowest where the process is unattached. */
unsigned account_pressure(CUdevice ordinal);

/* account_view by the device's uuid, with no more in all than CUDA says the card has (NVML counts what the card keeps for itself
 * to its total). */
bool account_view_uuid(const CUuuid *uuid, uint64_t *free_bytes, uint64_t *total_bytes);

#endif
