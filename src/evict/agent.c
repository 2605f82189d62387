/* The thread of each process; agent.h has what it does and who starts it. */
#include "config.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "account/account.h"
#include "evict/agent.h"
#include "platform/log.h"

enum { LOOK_SECONDS = 1, STACK_BYTES = 256 * 1024 };

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

static int thread_start(void)
{
    pthread_t thread;
    pthread_attr_t attributes;
    sigset_t all, before;
    int result = pthread_attr_init(&attributes);
    if (result != 0)
        return result;
    (void)pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    (void)pthread_attr_setstacksize(&attributes, STACK_BYTES);
    /* The program's signals are for its own threads. */
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    result = pthread_create(&thread, &attributes, agent_run, NULL);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (result == 0)
        (void)pthread_setname_np(thread, "cubudget");
    (void)pthread_attr_destroy(&attributes);
    return result;
}

void agent_start(void)
{
    int before = errno, own = (int)getpid(), seen = atomic_load(&owner_pid);
    if (seen != own && atomic_compare_exchange_strong(&owner_pid, &seen, own)) {
        int result = thread_start();
        if (result != 0)
            log_line(LOG_WARN, "no thread can be started (%s): a ledger that is removed will not be noticed",
                     strerror(result));
    }
    errno = before;
}
