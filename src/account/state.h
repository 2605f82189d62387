/*
 * All state of being attached, in one place that a forked child finds wiped. Private to src/account.
 *
 * `books` is the lock of account.h, lent to the thread that mostly takes it: some tens of nanoseconds at a time, never across a driver's call or a sleep.
 * `making` lets one thread at a time make or end a context and is held across that driver call. `claiming` is held while
 * locks on the ledger's file are taken, by the fork handler too. Order: claiming, making, books.
 */
#ifndef ACCOUNT_STATE_H
#define ACCOUNT_STATE_H

#include <stdatomic.h>
#include "account/account.h"
#include "account/allocmap.h"
#include "account/handles.h"
#include "account/reservoir.h"
#include "ledger/events.h"
#include "ledger/ledger.h"
#include "ledger/residents.h"
#include "platform/biased_lock.h"
#include "platform/futex.h"

/* A GPU as this process numbers it. */
struct account_device {
    CUuuid uuid;
    CUdevice ordinal;
    unsigned index; /* in the ledger; changed by a move, under `books` */
    uint64_t total_bytes;
    uint32_t compute;  /* 10 * major + minor */
    CUcontext primary; /* its primary context where there is one; under `books` */
    char name[LEDGER_NAME_BYTES];
};

enum { ACCOUNT_POOLS = 1024 };

/*
 * A process has a row for each slot that it uses: number 0 is its own, the others are pushed (slots.c). A purse is a row and
 * a device, in one number: what is charged names its purse, and so is credited to whoever paid, whatever is pushed then.
 */
enum { ACCOUNT_ROWS = LEDGER_SLOTS, PURSE_DEVICE_BITS = 4 };
_Static_assert(LEDGER_DEVICES == 1 << PURSE_DEVICE_BITS &&
                   ACCOUNT_ROWS << PURSE_DEVICE_BITS == 1 << ALLOCATION_PURSE_BITS &&
                   LEDGER_KINDS <= 1 << ALLOCATION_KIND_BITS,
               "a table's entry has room for every purse and kind");

static inline unsigned purse_row(unsigned purse)
{
    return purse >> PURSE_DEVICE_BITS;
}

static inline unsigned purse_device(unsigned purse)
{
    return purse & (LEDGER_DEVICES - 1);
}

/* So many bytes of a pool were handed out to a row, or came back from it. Under `books`. */
static inline void reservoir_hand(struct reservoir *reservoir, unsigned purse, int64_t bytes)
{
    if (__builtin_expect(purse != reservoir->purse, 0))
        reservoir->part[purse_row(purse)].live_bytes += (uint64_t)bytes;
}

/* A line of the cache each. */
struct account_row {
    struct ledger_claim claim;
    bool bidding; /* a thread's bid stands in the row's cell between two of its looks: nobody else may bid there */
} __attribute__((aligned(64)));

/* The small arrays of one context: arrays.c. */
enum { ARRAY_SHARERS = 32 };
struct array_sharer {
    uint32_t owner;         /* OWNER_NONE: a free place */
    uint32_t count;         /* of them alive */
    uint16_t purse;         /* who pays for them */
    uint64_t charged_bytes; /* whole blocks */
    uint64_t class_bytes;   /* the sum of their sizes, each rounded up to a power of two */
};

/* What the driver took by itself (implicit.c). */
struct implicit {
    uint64_t bytes[LEDGER_DEVICES]; /* charged */
    uint64_t done;                  /* allocations and frees at the last look */
    unsigned rest, wait;            /* ticks between readings, and until the next */
};

/* What this process waits in line for: one thread at a time stands there for it, or its agent. */
struct in_line {
    bool taken;      /* by a thread */
    unsigned device; /* its number here, for which the thread waits */
    uint64_t bytes, ticket, since_ms, deadline_ms;
    struct { /* what was refused last after waiting */
        uint64_t bytes, at_ms;
        unsigned purse;
    } refused;
};

/* What a process that is off the card needs to come back: evicted.c. */
struct absence {
    uint64_t footprint_bytes[LEDGER_DEVICES]; /* by this process's number of the device */
    uint64_t charged_bytes[LEDGER_DEVICES];   /* of it, granted for the restore that is under way */
    uint64_t ticket, wanted_ms;               /* its place in line; since when */
    bool charged;
};

struct account {
    _Atomic(uint32_t) attached;
    struct biased_lock books;
    struct brief_lock making, claiming;
    /* Under books: */
    struct ledger *ledger; /* replaced by account_follow alone, under `claiming` too */
    struct account_row row[ACCOUNT_ROWS];
    unsigned rows; /* of them; more are added under `claiming` too */
    struct allocmap allocations, blocks, contexts;
    struct allocmap reused;    /* addresses whose last owner's free is still on its way here, and how many such */
    struct allocmap pools;     /* handle to number in `pool` */
    struct allocmap instances; /* of graphs that allocate: handle + device to bytes, and the epoch it was launched in */
    _Atomic(unsigned) pools_high;
    _Atomic(bool) graphs_allocate; /* there was an instance; never false again */
    struct reservoir pool[ACCOUNT_POOLS];
    struct reservoir graph[LEDGER_DEVICES]; /* by this process's number of the device */
    uint32_t graph_epoch[LEDGER_DEVICES];   /* trims seen */
    struct array_sharer array_sharer[ARRAY_SHARERS];
    _Atomic(bool) measured;   /* a reading was taken, or a context ended, while memory was held: frees are announced */
    _Atomic(int32_t) leaving; /* calls under way that may give memory back; without the lock */
    uint32_t measuring, measurements; /* those under way, and those begun since attaching: drift.c */
    struct handles handles;
    struct implicit implicit;
    bool foreign; /* memory of others was imported; never false again */
    struct in_line in_line;
    struct absence absence;
    struct ledger_resident residents[LEDGER_ROWS]; /* what who chooses victims looks at */
    uint32_t next_owner;
    uint64_t next_aside; /* numbers of charges whose handle is being ended */
    uint32_t ending;     /* the owner that the driver may be ending just now; OWNER_NONE: none */
    /* Written while attaching or under claiming: */
    struct ledger *ledger_before; /* unmapped at the next move: a thread may still be reaping in it */
    uint64_t moved_ms;            /* when that came to be; CLOCK_MONOTONIC */
    bool stranded;                /* the ledger is gone and no other could be had: said once */
    _Atomic(uint32_t) ticked;     /* a thread looks after the row */
    _Atomic(uint32_t) moves;      /* to other ledgers; a futex */
    unsigned devices;
    struct account_device device[LEDGER_DEVICES];
    char slot[ACCOUNT_ROWS][LEDGER_NAME_BYTES]; /* of each row; under claiming */
    char command[LEDGER_NAME_BYTES];
};

/* The settings of account_configure. */
extern struct settings account_settings;

/* This process's account, or NULL where it is not attached. A forked child inherits the pointer and finds the pages wiped. */
extern _Atomic(struct account *) account_current;
static inline struct account *account_get(void)
{
    struct account *account = atomic_load_explicit(&account_current, memory_order_acquire);
    if (account == NULL || atomic_load_explicit(&account->attached, memory_order_acquire) == 0)
        return NULL;
    return account;
}

/* Take and give `claiming`, but for the fork handlers: a fork by the thread that holds it so does not wait for itself. */
void claiming_take(struct account *account);
void claiming_give(struct account *account);

/* The device of a CUDA ordinal, or NULL. */
struct account_device *account_device_of(struct account *account, CUdevice ordinal);

/* Its number in account->device. Purses name devices by it, never by the ledger's index, which is another after a move to
 * another ledger. */
unsigned account_number(const struct account *account, const struct account_device *device);

/* Opens a ledger for this process: its slot, its devices, a row. Used to attach and to follow. */
struct opening {
    struct ledger *ledger;
    struct ledger_claim claim[ACCOUNT_ROWS]; /* of account->row[i] */
    unsigned rows;                           /* claimed */
    unsigned index[LEDGER_DEVICES];          /* of account->device[i] */
    uint64_t shrunk_to[LEDGER_DEVICES];
    struct ledger_fault fault;
    int status; /* exit status for the fault */
};
int opening_make(const struct account *account, const struct ledger_request *request, struct opening *opening);
void opening_undo(struct opening *opening);

/* Moves to the ledger that is there now, where the one in use was removed or replaced (follow.c). By account_tick, and where no thread
 * calls that, by who needs a row; under `claiming`. */
void account_follow(struct account *account);

/* Puts the slot's terms of this process's settings to the ledger; 0 or as ledger_slot_settle, with the fault filled. */
int opening_terms(struct opening *opening);

/* --- slots.c -------------------------------------------------------------------------------------------------------- */

/* The number of the row that the calling thread charges to; 0 unless it has pushed. */
extern __thread unsigned char row_here __attribute__((tls_model("initial-exec"), visibility("hidden")));

/* The purse of a device for what the calling thread asks for. Under `books`. */
static inline unsigned purse_here(const struct account *account, unsigned device)
{
    unsigned row = row_here;
    if (__builtin_expect(row != 0, 0) && row >= account->rows) /* pushed before a fork */
        row = 0;
    return row << PURSE_DEVICE_BITS | device;
}

/* The process's account, made where there is none yet. 0 or an exit status. */
int account_make(struct account **made, struct account_fault *fault);

/* The name of this process's own slot. */
void slot_name_own(char name[LEDGER_NAME_BYTES]);

/* In a forked child: what its thread had pushed is its parent's. */
void slots_forget(void);

/* Claims the rows of the account beyond the first in a ledger that is being opened. 0, -ESTALE or -errno with the fault filled. */
int slots_claim(const struct account *account, struct opening *opening);

/* Why a row cannot be claimed. */
void claim_fault(const struct ledger *ledger, int result, struct ledger_fault *fault);

/* --- admit.c ------------------------------------------------------------------------------------------------------- */

/* Charges bytes, in flight, or refuses. Called with `books` held and returns with it held; gives it up while it waits. */
bool admit(struct account *account, unsigned purse, uint64_t bytes);

/* The same, but what does not fit at once is not granted, and is not a refusal. */
enum ledger_verdict admit_look(struct account *account, unsigned purse, uint64_t bytes);
bool admit_at_once(struct account *account, unsigned purse, uint64_t bytes);

/* Whether what is in the way is what is held, so that giving some back helps; else it is who was there first. */
static inline bool verdict_is_full(enum ledger_verdict verdict)
{
    return verdict == LEDGER_OVER_BUDGET || verdict == LEDGER_OVER_LIMIT;
}

/* --- waiting.c ------------------------------------------------------------------------------------------------------- */

/* A look at a bid by the rules of one process: where another thread's bid stands in the same cell it is LEDGER_CONTENDED. Under `books`. */
enum ledger_verdict bid_look(struct account *account, unsigned purse, struct ledger_bid *bid, struct ledger_room *room);

/* Takes a bid back that stands. Under `books`. */
void bid_drop(struct account *account, unsigned purse, struct ledger_bid *bid);

/* What did not fit waits in line, asking others to leave the card, until it is granted, cannot be, or its time is over; why it then was
 * refused, and how long it waited. Called with `books` held and returns with it held; gives it up while it sleeps. */
struct wait_end {
    enum ledger_why why;
    uint64_t waited_ms;
};
enum ledger_verdict line_wait(struct account *account, unsigned purse, struct ledger_bid *bid,
                              enum ledger_verdict verdict, struct ledger_room *room, struct wait_end *end);

/* The first row of this process. Under `books`. */
static inline unsigned own_leader(const struct account *account)
{
    return account->row[0].claim.row;
}

/* Those who were asked to leave, for one request. */
enum { ASKED_MOST = 64 };
struct asked {
    unsigned count;
    struct {
        unsigned row;
        uint32_t word;
        uint64_t at_ms;
    } who[ASKED_MOST];
};

/* Asks who has to leave so that `missing_bytes` of a device (the ledger's index) come free, for whoever has that ticket. Until when it is worth
 * waiting for that; 0: there is nobody to wait for. Under `books`. */
struct wish {
    unsigned device, slot;
    uint64_t missing_bytes, ticket, now_ms;
};
uint64_t victims_ask(struct account *account, const struct wish *wish, struct asked *asked);

/* Takes back what nobody has begun to follow. Under `books`. */
void victims_spare(struct account *account, struct asked *asked);

/* What is missing of a device for `bytes` more, by what a look saw. */
uint64_t room_missing(const struct ledger_room *room, uint64_t bytes);

/* Milliseconds of CLOCK_MONOTONIC. */
uint64_t now_ms(void);

/* --- books.c ------------------------------------------------------------------------------------------------------- */

/* Gives back bytes of a kind, under `books`. */
void books_credit(struct account *account, unsigned purse, enum ledger_kind kind, uint64_t bytes);

/* Credits everything that an owner still has, under `books`. */
void books_close_owner(struct account *account, uint32_t owner);

/* Moves a charge from what was asked for to what it cost, and lands it, under `books`. */
void books_settle(struct account *account, unsigned purse, enum ledger_kind kind, uint64_t charged_bytes,
                  uint64_t actual_bytes);

/* Counts an event in the row that the purse is of, under `books`. */
static inline void books_count(struct account *account, unsigned purse, enum ledger_event event)
{
    ledger_count(account->ledger, account->row[purse_row(purse)].claim.row, event);
}

/* What all rows of this process hold of a device, by its number here. Under `books`. */
struct ledger_held books_held(const struct account *account, unsigned device);

/* Remembers a pointer that was handed out of a pool; the pool's reserve is what is charged. Under `books`. */
struct pool_call;
void books_pool_pointer(struct account *account, CUdeviceptr pointer, uint64_t bytes, const struct pool_call *call);

/* --- overhead.c ----------------------------------------------------------------------------------------------------- */

/* What a context will cost on a device, before. */
uint64_t overhead_predict(const struct account *account, const struct account_device *device);

/* What the card says is held, before a context is made there. */
struct overhead overhead_read(const struct account_device *device);

/* What the context that was made since cost; 0: the card cannot say. */
uint64_t overhead_measure(const struct account_device *device, const struct overhead *before, enum drift_state state,
                          int64_t cost_bytes);

/* --- drift.c -------------------------------------------------------------------------------------------------------- */

/* Before a call whose cost nobody can compute, with nothing of it charged yet. Each begin has its end. Not under `books`. */
void drift_begin(struct account *account, unsigned device, struct drift *before);

/* The same with the call's own charge made and in flight already. */
void drift_begin_charged(struct account *account, unsigned device, uint64_t charged_bytes, struct drift *before);

/* After it, with `in_flight_bytes` of it in flight still: by how much more the process holds (less, where negative) beyond what
 * its row says, than before the call. The figure is good where both readings were clean. Not under `books`. */
enum drift_state drift_end(struct account *account, const struct drift *before, uint64_t in_flight_bytes,
                           int64_t *excess_bytes);

/* One reading by itself, with nothing of one's own in flight. Not under `books`. */
void drift_look(struct account *account, unsigned device, struct drift *now);

/* --- implicit.c ----------------------------------------------------------------------------------------------------- */

/* Charges or credits what the driver has taken by itself. By account_tick alone. */
void implicit_follow(struct account *account);

/* Credits it on a device of which the process has no context any more. Under `books`. */
void implicit_forget(struct account *account, unsigned device);

/* --- arrays.c ------------------------------------------------------------------------------------------------------- */

/* Under `books`: a small array is gone; a block of small memory has lost the last of that (true: small arrays may lie in it, and
 * it stays charged for them); an owner has ended. */
void arrays_small_gone(struct account *account, const struct allocation *entry);
bool arrays_keep_block(struct account *account, uint32_t owner, unsigned purse);
void arrays_close_owner(struct account *account, uint32_t owner);

/* --- books.c again -------------------------------------------------------------------------------------------------- */

/* Remembers what something was charged, by its handle. Under `books`. */
void books_remember(struct account *account, const struct allocation *entry);

/* The device and owner of the calling thread's context. False: it has none that we know. Not under `books`. */
bool books_context(const struct driver *driver, struct account *account, unsigned *device, uint32_t *owner);

#endif
