/* The thread of each process; agent.h has what it does and who starts it. */
#include "config.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "account/evicted.h"
#include "evict/agent.h"
#include "evict/passage.h"
#include "platform/gate.h"
#include "platform/log.h"
#include "platform/thread.h"

enum {
    TICK_MS = 1000,
    QUIET_TICK_MS =
        4000, /* where nothing happens: a look costs some 140 us, most of it the wake, and thirteen may idle beside each other */
    QUIET_AFTER = 3, /* ticks */
};

static _Atomic(int) owner_pid; /* a forked child has no thread, and finds its parent's id here */
static struct passage passage;
static unsigned quiet_ticks; /* in a row, that found the gate not used */

static uint64_t now_ms(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static void rest(uint64_t milliseconds)
{
    struct timespec time = {.tv_sec = (time_t)(milliseconds / 1000), .tv_nsec = (long)(milliseconds % 1000) * 1000000};
    (void)clock_nanosleep(CLOCK_MONOTONIC, 0, &time, NULL);
}

/* The process ends: what of it still calls the driver, destructors and other handlers of exit, is not worth anybody's room. Once. */
static void agent_end(void)
{
    static atomic_flag done = ATOMIC_FLAG_INIT;
    if (atomic_load(&owner_pid) != (int)getpid() || !passage_end() || atomic_flag_test_and_set(&done))
        return;
    driver_deinitialize();
    gate_open();
}

/* Where no memory was left for a handler of exit. */
__attribute__((destructor)) static void agent_end_last(void)
{
    agent_end();
}

/* Handlers of exit run from the last that was registered to the first: ours is to come before those that call the driver, so it is
 * registered again now and then, at the 1st, 2nd, 4th... eviction. */
static void end_register(void)
{
    static unsigned registered;
    if (passage.evictions == registered || (passage.evictions & (passage.evictions - 1)) != 0)
        return;
    registered = passage.evictions;
    (void)atexit(agent_end);
}

/* What is asked of driver and NVML waits until the process is on the card, and is not asked of one that ends. */
static void tick(void)
{
    if (passage.out || passage_is_ended()) {
        quiet_ticks++;
        account_tick_ledger();
        return;
    }
    account_tick(quiet_ticks >= QUIET_AFTER);
    quiet_ticks = passage_sweep(&passage) ? 0 : quiet_ticks + 1;
    account_evictable_note(passage.driver);
}

static uint64_t due_next_ms(void)
{
    return now_ms() + (quiet_ticks < QUIET_AFTER ? TICK_MS : QUIET_TICK_MS);
}

static void *agent_run(void *argument)
{
    (void)argument;
    uint64_t due_ms = now_ms() + TICK_MS;
    bool noted = false;
    for (;;) {
        if (!passage_follow(&passage)) {
            rest(TICK_MS);
            continue;
        }
        if (!noted) { /* who needs room need not wait for the first tick to know of this process */
            account_evictable_note(passage.driver);
            noted = true;
        }
        bool again;
        uint32_t word = passage_step(&passage, &again);
        uint64_t seen_ms = now_ms();
        if (!again && seen_ms < due_ms)
            (void)ledger_process_sleep(passage.ledger, passage.row, word, (uint32_t)(due_ms - seen_ms));
        if (now_ms() < due_ms)
            continue;
        tick();
        due_ms = due_next_ms();
    }
    return NULL;
}

void agent_start(void)
{
    int before = errno, own = (int)getpid(), seen = atomic_load(&owner_pid);
    const struct driver *driver = driver_bound();
    if (driver != NULL && seen != own && atomic_compare_exchange_strong(&owner_pid, &seen, own)) {
        passage_reset();
        quiet_ticks = 0;
        (void)passage_begin(&passage, driver, &mechanism_checkpoint);
        passage.on_out = end_register;
        gate_set_arrival(passage_arrival);
        (void)atexit(agent_end);
        int result = thread_begin("cubudget", agent_run, NULL, NULL);
        if (result != 0)
            log_line(LOG_WARN,
                     "no thread can be started (%s): a ledger that is removed will not be noticed, and this process "
                     "stays on the card",
                     strerror(result));
    }
    errno = before;
}
