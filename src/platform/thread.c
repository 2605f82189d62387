/* Starting a thread; thread.h has who calls it and what such a thread is like. */
#include "config.h"

#include <signal.h>
#include <stddef.h>
#include "platform/thread.h"

enum { STACK_BYTES = 256 * 1024 };

int thread_begin(const char *name, void *(*run)(void *), void *argument, pthread_t *thread)
{
    pthread_t started;
    pthread_attr_t attributes;
    sigset_t all, before;
    int result = pthread_attr_init(&attributes);
    if (result != 0)
        return result;
    if (thread == NULL)
        (void)pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    (void)pthread_attr_setstacksize(&attributes, STACK_BYTES);
    (void)sigfillset(&all); /* before it starts, so that it never has one open */
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    result = pthread_create(thread != NULL ? thread : &started, &attributes, run, argument);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    (void)pthread_attr_destroy(&attributes);
    if (result == 0)
        (void)pthread_setname_np(thread != NULL ? *thread : started, name);
    return result;
}
