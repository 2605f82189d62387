/* Marks, and the closing side of the gate; gate.h has who calls it and what synchronises it. */
#include "config.h"

#include <errno.h>
#include <linux/membarrier.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include "platform/futex.h"
#include "platform/gate.h"

enum {
    MARK_BYTES = 64, /* a cache line each: a thread's stores are to touch nobody else's */
    CHUNK_BYTES = 4096,
    CHUNK_MARKS = CHUNK_BYTES / MARK_BYTES - 1,
    SPINS = 100,
    NAP_FIRST_NS = 20000,
    NAP_LAST_NS = 1000000,
};

struct chunk {
    struct chunk *next;
    char unused[MARK_BYTES - sizeof(struct chunk *)];
    union {
        struct gate_mark mark;
        char line[MARK_BYTES];
    } place[CHUNK_MARKS];
};
_Static_assert(sizeof(struct chunk) == CHUNK_BYTES, "a page of marks");

/* Of threads that have no mark yet; never written. */
static struct gate_mark nobody = {.inside = GATE_AWAY};
/* Of a thread for which there was no memory: no list has it, and the gate never closes again. */
static __thread struct gate_mark spare __attribute__((tls_model("initial-exec")));

__thread struct gate_mark *gate_self = &nobody;
_Atomic(uint32_t) gate_shut;

static _Atomic(struct chunk *) chunks;
static _Atomic(const char *) reason;
static _Atomic(void (*)(void)) on_arrival;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_key_t key;
static bool key_made;
/* A page that the kernel wipes in a forked child, however it was made: 1 where this process made it, or its fork handler ran. */
static _Atomic(uint32_t) *home;

static bool is_forked(void)
{
    return home != NULL && atomic_load_explicit(home, memory_order_relaxed) == 0;
}

/* --- marks -------------------------------------------------------------------------------------------------------------------- */

static void mark_clear(struct gate_mark *mark)
{
    atomic_store_explicit(&mark->inside, GATE_OUT, memory_order_release);
    atomic_store_explicit(&mark->thread, 0, memory_order_release);
}

/* A thread ends, perhaps cancelled inside. A destructor that runs after this and calls CUDA takes another. */
static void mark_give(void *mark)
{
    gate_self = &nobody;
    mark_clear(mark);
}

/* The child has one thread, which may be inside a wrapper. */
static void child_begins(void)
{
    for (struct chunk *chunk = atomic_load(&chunks); chunk != NULL; chunk = chunk->next)
        for (unsigned i = 0; i < CHUNK_MARKS; i++) {
            struct gate_mark *mark = &chunk->place[i].mark;
            if (mark == gate_self)
                continue;
            atomic_store(&mark->inside, GATE_AWAY);
            atomic_store(&mark->thread, 0);
        }
    if (gate_self != &nobody)
        atomic_store(&gate_self->thread, (int)gettid());
    atomic_store(&gate_shut, 0);
    if (home != NULL)
        atomic_store(home, 1);
}

static void gate_begin(void)
{
    void *page = mmap(NULL, CHUNK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page != MAP_FAILED && madvise(page, CHUNK_BYTES, MADV_WIPEONFORK) == 0) {
        home = page;
        atomic_store(home, 1);
    }
    key_made = pthread_key_create(&key, mark_give) == 0;
    (void)pthread_atfork(NULL, NULL, child_begins);
}

static struct gate_mark *mark_take_from(struct chunk *chunk, int thread)
{
    for (; chunk != NULL; chunk = chunk->next)
        for (unsigned i = 0; i < CHUNK_MARKS; i++) {
            int none = 0;
            struct gate_mark *mark = &chunk->place[i].mark;
            if (atomic_load_explicit(&mark->thread, memory_order_relaxed) == 0 &&
                atomic_compare_exchange_strong(&mark->thread, &none, thread))
                return mark;
        }
    return NULL;
}

static struct gate_mark *mark_take_new(int thread)
{
    struct chunk *chunk = mmap(NULL, CHUNK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (chunk == MAP_FAILED)
        return NULL;
    for (unsigned i = 0; i < CHUNK_MARKS; i++)
        atomic_store_explicit(&chunk->place[i].mark.inside, GATE_AWAY, memory_order_relaxed);
    atomic_store(&chunk->place[0].mark.thread, thread);
    chunk->next = atomic_load(&chunks);
    while (!atomic_compare_exchange_weak(&chunks, &chunk->next, chunk)) {
    }
    return &chunk->place[0].mark;
}

static void mark_take(void)
{
    int thread = (int)gettid(), before = errno;
    (void)pthread_once(&once, gate_begin);
    struct gate_mark *mark = mark_take_from(atomic_load(&chunks), thread);
    if (mark == NULL)
        mark = mark_take_new(thread);
    if (mark == NULL) {
        (void)gate_make_unevictable("no memory for a thread's mark at the gate");
        mark = &spare;
    } else if (key_made)
        (void)pthread_setspecific(key, mark); /* without it the place stays taken: mark_await finds that out */
    gate_self = mark;
    errno = before;
}

/* --- arriving ------------------------------------------------------------------------------------------------------------------ */

void gate_wait(void)
{
    int before = errno;
    uint32_t shut;
    while ((shut = atomic_load_explicit(&gate_shut, memory_order_acquire)) != 0) {
        if (is_forked()) { /* by a bare system call: who closed it is not here */
            gate_open();
            break;
        }
        void (*arrival)(void) = atomic_load_explicit(&on_arrival, memory_order_acquire);
        if (arrival != NULL)
            arrival();
        (void)futex_wait(&gate_shut, shut, UINT32_MAX); /* of this closing alone: of the next nobody was told yet */
    }
    errno = before;
}

static bool on_signal_stack(void)
{
    stack_t now;
    return sigaltstack(NULL, &now) == 0 && (now.ss_flags & SS_ONSTACK) != 0;
}

/* Comes back inside from a wait that was no driver's. */
static void come_back(struct gate_mark *mark, uintptr_t stack)
{
    atomic_store(&mark->inside, stack);
    while (atomic_load(&gate_shut) != 0) {
        atomic_store(&mark->inside, stack | GATE_AWAY);
        gate_wait();
        atomic_store(&mark->inside, stack);
    }
}

static bool outermost_enter(struct gate_mark *mark, uintptr_t stack)
{
    atomic_store(&mark->inside, stack);
    while (atomic_load(&gate_shut) != 0) {
        atomic_store(&mark->inside, GATE_OUT);
        gate_wait();
        atomic_store(&mark->inside, stack);
    }
    return true;
}

bool gate_enter_slowly(uintptr_t stack)
{
    if (gate_self == &nobody) {
        mark_take();
        return outermost_enter(gate_self, stack);
    }
    struct gate_mark *mark = gate_self;
    uintptr_t inside = atomic_load_explicit(&mark->inside, memory_order_relaxed);
    if (inside <= GATE_AWAY)
        return outermost_enter(mark, stack);
    /* Not deeper than the outermost call: that one was left by longjmp. A handler on a stack of its own may lie anywhere. */
    if (stack >= (inside & ~(uintptr_t)GATE_AWAY) && !on_signal_stack())
        return outermost_enter(mark, stack);
    /* A signal handler while the thread waits for room: into the driver it may go only through the gate. */
    if ((inside & GATE_AWAY) != 0)
        come_back(mark, inside & ~(uintptr_t)GATE_AWAY);
    return false;
}

void gate_outside_begin(void)
{
    struct gate_mark *mark = gate_self;
    uintptr_t inside = atomic_load_explicit(&mark->inside, memory_order_relaxed);
    if (inside > GATE_AWAY)
        atomic_store_explicit(&mark->inside, inside | GATE_AWAY, memory_order_release);
}

void gate_outside_end(void)
{
    struct gate_mark *mark = gate_self;
    uintptr_t inside = atomic_load_explicit(&mark->inside, memory_order_relaxed);
    if (inside > GATE_AWAY && (inside & GATE_AWAY) != 0)
        come_back(mark, inside & ~(uintptr_t)GATE_AWAY);
}

/* --- closing ------------------------------------------------------------------------------------------------------------------- */

static uint64_t now_ns(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static bool mark_is_inside(struct gate_mark *mark)
{
    return gate_value_is_inside(atomic_load_explicit(&mark->inside, memory_order_acquire));
}

/* Takes the mark from a thread that ended without its destructors (a bare exit system call). True: it was one. In a child of a
 * bare fork the ids are the parent's: there a mark is believed. */
static bool mark_take_back(struct gate_mark *mark)
{
    int thread = atomic_load(&mark->thread);
    if (thread <= 0 || is_forked() || syscall(SYS_tgkill, getpid(), thread, 0) == 0 || errno != ESRCH ||
        !atomic_compare_exchange_strong(&mark->thread, &thread, -1)) /* another has it since */
        return false;
    mark_clear(mark);
    return true;
}

/* Waits until a mark is not inside. False: it still is. The deadline is set when there is something to wait for. */
static bool mark_await(struct gate_mark *mark, uint32_t timeout_ms, uint64_t *deadline_ns)
{
    struct timespec nap = {.tv_nsec = NAP_FIRST_NS};
    for (unsigned i = 0; mark_is_inside(mark); i++) {
        if (i < SPINS)
            continue;
        if (*deadline_ns == 0)
            *deadline_ns = now_ns() + (uint64_t)timeout_ms * 1000000;
        if (mark_take_back(mark))
            return true;
        if (now_ns() >= *deadline_ns)
            return false;
        (void)clock_nanosleep(CLOCK_MONOTONIC, 0, &nap, NULL); /* nobody wakes: leaving is a plain store */
        nap.tv_nsec = nap.tv_nsec * 2 < NAP_LAST_NS ? nap.tv_nsec * 2 : NAP_LAST_NS;
    }
    return true;
}

static int close_wait(uint32_t timeout_ms)
{
    uint64_t deadline_ns = 0;
    for (struct chunk *chunk = atomic_load(&chunks); chunk != NULL; chunk = chunk->next)
        for (unsigned i = 0; i < CHUNK_MARKS; i++)
            if (!mark_await(&chunk->place[i].mark, timeout_ms, &deadline_ns))
                return -ETIMEDOUT;
    return 0;
}

/* Every running thread of the process passes a full barrier. */
static int threads_barrier(void)
{
    static _Atomic(bool) registered; /* inherited by fork, as the kernel's registration is not: said again then */
    if (!atomic_load(&registered) || syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0) != 0) {
        if (syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0) != 0 ||
            syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0) != 0)
            return -ENOSYS;
        atomic_store(&registered, true);
    }
    return 0;
}

int gate_close(uint32_t timeout_ms)
{
    int before = errno, result;
    (void)pthread_once(&once, gate_begin);
    if (is_forked() && gate_is_closed())
        gate_open();
    if (gate_is_closed())
        return -EALREADY;
    if (mark_is_inside(gate_self))
        return -EDEADLK;
    if (gate_unevictable_reason() != NULL)
        return -EPERM;
    static uint32_t closings; /* one thread at a time; never 0 */
    closings = closings == UINT32_MAX ? 1 : closings + 1;
    atomic_store(&gate_shut, closings);
    result = threads_barrier();
    if (result == 0)
        result = close_wait(timeout_ms);
    /* A call that nothing is known of says so and then looks at the gate (thunk.c): one of the two sees the other. */
    if (result == 0 && gate_unevictable_reason() != NULL)
        result = -EPERM;
    if (result != 0)
        gate_open();
    errno = before;
    return result;
}

void gate_open(void)
{
    atomic_store(&gate_shut, 0);
    futex_wake_all(&gate_shut);
}

void gate_set_arrival(void (*arrival)(void))
{
    atomic_store(&on_arrival, arrival);
}

bool gate_sweep(void)
{
    bool used = false;
    for (struct chunk *chunk = atomic_load(&chunks); chunk != NULL; chunk = chunk->next)
        for (unsigned i = 0; i < CHUNK_MARKS; i++) {
            struct gate_mark *mark = &chunk->place[i].mark;
            uintptr_t inside = atomic_load(&mark->inside);
            if (inside == GATE_AWAY)
                continue;
            used = true;
            /* Its thread may pass just now and overwrite this, or leave: then it has passed, and the next sweep says so. */
            if (inside == GATE_OUT)
                (void)atomic_compare_exchange_strong(&mark->inside, &inside, GATE_AWAY);
        }
    return used;
}

bool gate_make_unevictable(const char *text)
{
    const char *none = NULL;
    return atomic_compare_exchange_strong(&reason, &none, text);
}

const char *gate_unevictable_reason(void)
{
    return atomic_load(&reason);
}
