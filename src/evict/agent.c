/* The thread of each process; agent.h has what it does and who starts it. */
#include "config.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "account/account.h"
#include "evict/agent.h"
#include "platform/log.h"
#include "platform/thread.h"

enum { LOOK_SECONDS = 1 };

static _Atomic(int) owner_pid; /* a forked child has no thread, and finds its parent's id here */

static void *agent_run(void *argument)
{
    (void)argument;
    for (;;) {
        struct timespec time = {.tv_sec = LOOK_SECONDS};
        (void)clock_nanosleep(CLOCK_MONOTONIC, 0, &time, NULL);
        account_tick();
    }
    return NULL;
}

void agent_start(void)
{
    int before = errno, own = (int)getpid(), seen = atomic_load(&owner_pid);
    if (seen != own && atomic_compare_exchange_strong(&owner_pid, &seen, own)) {
        int result = thread_begin("cubudget", agent_run, NULL, NULL);
        if (result != 0)
            log_line(LOG_WARN, "no thread can be started (%s): a ledger that is removed will not be noticed",
                     strerror(result));
    }
    errno = before;
}
