/*
 * Pressure for programs: watching a device's level from any process. Called by programs; one thread at a time uses a watch, and
 * the watch's own thread (made for a descriptor or a callback) beside it: `lock` guards what both use.
 *
 * The waiting is the ledger's (src/ledger/watch.c): a futex in it, woken by whoever changes the level. Once a second somebody of
 * this watch looks for what nobody tells: the dead, a teller that died midway, a ledger that was replaced.
 */
#include "config.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>
#include "api/api.h"
#include "ledger/snapshot.h"
#include "platform/futex.h"
#include "platform/thread.h"

enum { LOOK_MS = 1000, CLOSE_LOOK_MS = 1, KNOWN_AT_MOST = LEDGER_LEVELS * (LEDGER_HISTORY + 1) };

struct cubudget_watch {
    pid_t process;
    pthread_mutex_t lock;
    struct ledger ledger, before; /* before: the one that was replaced; somebody may sleep on it still */
    bool has_before;
    struct ledger_watch held;
    unsigned device;
    uint8_t uuid[LEDGER_UUID_BYTES];
    uint32_t seen;       /* the ledger's count at the last change taken */
    uint64_t generation; /* ours of it */
    unsigned level;      /* what it was then */
    int64_t looked_ms;
    /* The thread: */
    int descriptor; /* -1: none */
    bool has_thread;
    pthread_t thread;
    cubudget_pressure_callback *call;
    void *context;
    _Atomic(uint32_t) closing, ended;
};

/* --- names -------------------------------------------------------------------------------------------------------------------- */

const char *cubudget_pressure_name(enum cubudget_pressure level)
{
    return pressure_name((enum pressure_level)level);
}

enum cubudget_pressure cubudget_pressure_of(uint64_t used_bytes, uint64_t budget_bytes)
{
    return (enum cubudget_pressure)pressure_of(used_bytes, budget_bytes);
}

/* --- looking -------------------------------------------------------------------------------------------------------------------- */

static int64_t now_ms(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Begins to watch the device in a ledger. */
static enum cubudget_error ledger_watch(struct ledger *ledger, const uint8_t *uuid, struct ledger_watch *held)
{
    int device = ledger_device_find(ledger, uuid);
    if (device < 0)
        return api_fail(CUBUDGET_ERROR_NO_DEVICE, "the ledger has no such device");
    (void)ledger_reap(ledger);
    int result = ledger_watch_begin(ledger, (unsigned)device, held);
    return result == 0 ? CUBUDGET_OK
                       : api_fail(CUBUDGET_ERROR_SYSTEM, "the ledger cannot be watched: %s", strerror(-result));
}

/* The ledger's file is another now: watch that one. A level that differs counts as one change. Under the lock. */
static void watch_follow(struct cubudget_watch *watch)
{
    struct ledger ledger;
    struct ledger_watch held;
    if (api_ledger_open(&ledger) != CUBUDGET_OK)
        return;
    if (ledger_watch(&ledger, watch->uuid, &held) != CUBUDGET_OK) {
        ledger_close(&ledger);
        return;
    }
    ledger_watch_end(&watch->ledger, &watch->held);
    if (watch->has_before)
        ledger_close(&watch->before);
    watch->before = watch->ledger;
    watch->has_before = true;
    watch->ledger = ledger;
    watch->held = held;
    watch->device = held.device;
    struct ledger_pressure now = ledger_pressure_read(&ledger, held.device);
    watch->seen = now.generation - (now.level != watch->level);
}

/* What nobody tells, once a second. Under the lock. */
static void watch_look(struct cubudget_watch *watch)
{
    int64_t now = now_ms();
    if (now - watch->looked_ms < LOOK_MS)
        return;
    watch->looked_ms = now;
    if (ledger_is_current(&watch->ledger) == 0)
        watch_follow(watch);
    (void)ledger_reap(&watch->ledger);
    ledger_pressure_publish(&watch->ledger, watch->device);
}

/* The next change, where there is one. Under the lock. */
static bool change_take(struct cubudget_watch *watch, struct cubudget_pressure_change *change)
{
    struct ledger_pressure now = ledger_pressure_read(&watch->ledger, watch->device);
    uint32_t behind = now.generation - watch->seen, untold = behind > KNOWN_AT_MOST ? behind - KNOWN_AT_MOST : 0;
    int level = -1;
    for (; untold < behind; untold++) {
        level = ledger_pressure_told(&watch->ledger, watch->device, watch->seen + untold + 1);
        if (level >= 0)
            break;
    }
    if (level < 0)
        return false;
    watch->seen += untold + 1;
    watch->generation += untold + 1;
    watch->level = (unsigned)level;
    *change = (struct cubudget_pressure_change){
        .generation = watch->generation,
        .level = (enum cubudget_pressure)level,
        .pending = now.generation - watch->seen,
        .untold = untold,
    };
    return true;
}

/* Sleeps until there may be a change after the count `seen`, or for so long at most. Not under the lock: the ledger that is slept on
 * stays mapped until the next but one. */
static void watch_sleep(struct cubudget_watch *watch, uint32_t seen, int64_t most_ms)
{
    (void)pthread_mutex_lock(&watch->lock);
    struct ledger ledger = watch->ledger;
    unsigned device = watch->device;
    (void)pthread_mutex_unlock(&watch->lock);
    if (most_ms > LOOK_MS)
        most_ms = LOOK_MS;
    ledger_pressure_sleep(&ledger, device, seen, (uint32_t)most_ms);
}

/* --- opening and closing ---------------------------------------------------------------------------------------------------------- */

static enum cubudget_error watch_begin(struct cubudget_watch *watch, const char *uuid)
{
    if (uuid != NULL && !uuid_read(uuid, watch->uuid))
        return api_fail(CUBUDGET_ERROR_INVALID, "'%s' is no uuid; write GPU- and 32 hexadecimal digits", uuid);
    enum cubudget_error error = api_ledger_open(&watch->ledger);
    if (error != CUBUDGET_OK)
        return error;
    error = ledger_watch(&watch->ledger, uuid != NULL ? watch->uuid : NULL, &watch->held);
    if (error != CUBUDGET_OK) {
        ledger_close(&watch->ledger);
        return error;
    }
    watch->device = watch->held.device;
    ledger_device_uuid(&watch->ledger, watch->device, watch->uuid);
    struct ledger_pressure now = ledger_pressure_read(&watch->ledger, watch->device);
    watch->seen = now.generation;
    watch->level = now.level;
    watch->looked_ms = now_ms();
    return CUBUDGET_OK;
}

enum cubudget_error cubudget_watch_open(const char *uuid, struct cubudget_watch **watch)
{
    int before = errno;
    if (watch == NULL)
        return api_fail(CUBUDGET_ERROR_INVALID, "watch is NULL");
    struct cubudget_watch *made = calloc(1, sizeof *made);
    if (made == NULL)
        return api_fail(CUBUDGET_ERROR_NO_HOST_MEMORY, NULL);
    made->process = getpid();
    made->descriptor = -1;
    (void)pthread_mutex_init(&made->lock, NULL);
    enum cubudget_error error = watch_begin(made, uuid);
    if (error == CUBUDGET_OK)
        *watch = made;
    else
        free(made);
    errno = before;
    return error;
}

/* The thread may be just about to sleep when it is woken: it is woken until it has ended. */
static void thread_end(struct cubudget_watch *watch)
{
    atomic_store(&watch->closing, 1);
    while (atomic_load(&watch->ended) == 0) {
        (void)pthread_mutex_lock(&watch->lock);
        ledger_pressure_wake(&watch->ledger, watch->device);
        if (watch->has_before)
            ledger_pressure_wake(&watch->before, watch->device);
        (void)pthread_mutex_unlock(&watch->lock);
        (void)futex_wait(&watch->ended, 0, CLOSE_LOOK_MS);
    }
    (void)pthread_join(watch->thread, NULL);
}

void cubudget_watch_close(struct cubudget_watch *watch)
{
    int before = errno;
    if (watch == NULL)
        return;
    if (watch->process == getpid()) { /* a child has neither the thread nor the mappings */
        if (watch->has_thread)
            thread_end(watch);
        ledger_watch_end(&watch->ledger, &watch->held);
        ledger_close(&watch->ledger);
        if (watch->has_before)
            ledger_close(&watch->before);
        (void)pthread_mutex_destroy(&watch->lock);
    }
    if (watch->descriptor >= 0)
        (void)close(watch->descriptor);
    free(watch);
    errno = before;
}

static enum cubudget_error watch_check(const struct cubudget_watch *watch, const void *argument)
{
    if (watch == NULL || argument == NULL)
        return api_fail(CUBUDGET_ERROR_INVALID, watch == NULL ? "watch is NULL" : "an argument is NULL");
    if (watch->process != getpid())
        return api_fail(CUBUDGET_ERROR_FORKED, "the watch is of process %d", (int)watch->process);
    return CUBUDGET_OK;
}

enum cubudget_error cubudget_watch_level(struct cubudget_watch *watch, enum cubudget_pressure *level)
{
    enum cubudget_error error = watch_check(watch, level);
    if (error != CUBUDGET_OK)
        return error;
    (void)pthread_mutex_lock(&watch->lock);
    watch_look(watch);
    *level = (enum cubudget_pressure)ledger_pressure_level(&watch->ledger, watch->device);
    (void)pthread_mutex_unlock(&watch->lock);
    return CUBUDGET_OK;
}

/* --- waiting ------------------------------------------------------------------------------------------------------------------------ */

/* Whether a change was taken. The descriptor says again afterwards whether there is another. */
static bool watch_take(struct cubudget_watch *watch, struct cubudget_pressure_change *change, uint32_t *seen)
{
    uint64_t told;
    (void)pthread_mutex_lock(&watch->lock);
    watch_look(watch);
    if (watch->descriptor >= 0 && read(watch->descriptor, &told, sizeof told) < 0)
        told = 0; /* it was clear */
    bool taken = change_take(watch, change);
    if (taken && change->pending != 0 && watch->descriptor >= 0)
        (void)eventfd_write(watch->descriptor, 1);
    *seen = watch->seen;
    (void)pthread_mutex_unlock(&watch->lock);
    return taken;
}

enum cubudget_error cubudget_pressure_wait(struct cubudget_watch *watch, int timeout_ms,
                                           struct cubudget_pressure_change *change)
{
    int before = errno;
    uint32_t seen;
    enum cubudget_error error = watch_check(watch, change);
    if (error != CUBUDGET_OK)
        return error;
    if (watch->call != NULL)
        return api_fail(CUBUDGET_ERROR_INVALID, "the watch has a callback, which is told");
    int64_t end = timeout_ms < 0 ? INT64_MAX : now_ms() + timeout_ms;
    while (!watch_take(watch, change, &seen)) {
        int64_t left = timeout_ms < 0 ? LOOK_MS : end - now_ms();
        if (left <= 0) {
            errno = before;
            return api_fail(CUBUDGET_ERROR_TIMEOUT, NULL);
        }
        watch_sleep(watch, seen, left);
    }
    errno = before;
    return CUBUDGET_OK;
}

/* --- the thread ------------------------------------------------------------------------------------------------------------------------ */

/* Tells by the callback all there is, or by the descriptor that there is something; returns the count told so far. */
static uint32_t thread_tell(struct cubudget_watch *watch, uint32_t told)
{
    struct cubudget_pressure_change change;
    uint32_t seen = told;
    if (watch->call != NULL) {
        while (atomic_load(&watch->closing) == 0 && watch_take(watch, &change, &seen))
            watch->call(&change, watch->context);
        return seen;
    }
    (void)pthread_mutex_lock(&watch->lock);
    watch_look(watch);
    uint32_t now = ledger_pressure_read(&watch->ledger, watch->device).generation;
    if (now != watch->seen) /* whatever was told: after a move the count is another ledger's */
        (void)eventfd_write(watch->descriptor, 1);
    (void)pthread_mutex_unlock(&watch->lock);
    return now;
}

static void *thread_run(void *argument)
{
    struct cubudget_watch *watch = argument;
    uint32_t told = watch->seen - 1; /* what changed before the thread was there is told as well */
    while (atomic_load(&watch->closing) == 0) {
        told = thread_tell(watch, told);
        watch_sleep(watch, told, LOOK_MS);
    }
    atomic_store(&watch->ended, 1);
    futex_wake_all(&watch->ended);
    return NULL;
}

static enum cubudget_error thread_start(struct cubudget_watch *watch)
{
    int result = thread_begin("cubudget-watch", thread_run, watch, &watch->thread);
    if (result != 0)
        return api_fail(CUBUDGET_ERROR_SYSTEM, "no thread can be started: %s", strerror(result));
    watch->has_thread = true;
    return CUBUDGET_OK;
}

enum cubudget_error cubudget_watch_descriptor(struct cubudget_watch *watch, int *descriptor)
{
    int before = errno;
    enum cubudget_error error = watch_check(watch, descriptor);
    if (error == CUBUDGET_OK && watch->call != NULL)
        error = api_fail(CUBUDGET_ERROR_INVALID, "the watch has a callback, which is told");
    if (error == CUBUDGET_OK && watch->descriptor < 0) {
        watch->descriptor = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (watch->descriptor < 0)
            return api_fail(CUBUDGET_ERROR_SYSTEM, "eventfd: %s", strerror(errno));
        error = thread_start(watch);
        if (error != CUBUDGET_OK) {
            (void)close(watch->descriptor);
            watch->descriptor = -1;
        }
    }
    if (error == CUBUDGET_OK)
        *descriptor = watch->descriptor;
    errno = before;
    return error;
}

enum cubudget_error cubudget_watch_callback(struct cubudget_watch *watch, cubudget_pressure_callback *call,
                                            void *context)
{
    enum cubudget_error error = watch_check(watch, (const void *)(uintptr_t)call);
    if (error == CUBUDGET_OK && watch->has_thread)
        error = api_fail(CUBUDGET_ERROR_INVALID, "the watch has a callback or a descriptor already");
    if (error != CUBUDGET_OK)
        return error;
    watch->call = call;
    watch->context = context;
    error = thread_start(watch);
    if (error != CUBUDGET_OK)
        watch->call = NULL;
    return error;
}
