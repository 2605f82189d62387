/*
 * Knowing of deaths in time. A real card has a killed process's memory back some 30 ms after the death, whether anybody
 * looks or not; this machine has only its processes to look. So one of them watches for all: the one whose thread holds
 * the watch byte of the machine's file. The others' threads sleep on that lock, and the kernel wakes the next when the
 * watcher dies. Where the watcher is stopped, or nobody is left, deaths are seen by whoever looks next.
 */
#include "sim/sim.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

enum { WATCH_EVERY_MS = 5, WATCH_STACK_BYTES = 64 * 1024 };

static void *watch_run(void *argument)
{
    struct machine *machine = argument;
    struct flock lock = {.l_type = F_WRLCK,
                         .l_whence = SEEK_SET,
                         .l_start = (off_t)sizeof(struct machine_shared) + MACHINE_PROCESSES,
                         .l_len = 1};
    char path[64];
    snprintf(path, sizeof(path), "/proc/self/fd/%d", machine->descriptor);
    int descriptor = open(path, O_RDWR | O_CLOEXEC); /* a description of its own: it is what holds the lock */
    if (descriptor < 0)
        return NULL;
    while (fcntl(descriptor, F_OFD_SETLKW, &lock) != 0)
        if (errno != EINTR) {
            close(descriptor);
            return NULL;
        }
    for (;;) {
        struct timespec time = {.tv_nsec = WATCH_EVERY_MS * 1000000L};
        nanosleep(&time, NULL);
        machine_watch(machine);
    }
    return NULL;
}

bool thread_start(size_t stack_bytes, void *(*run)(void *), void *argument)
{
    pthread_t thread;
    pthread_attr_t attributes;
    sigset_t all, before;
    if (pthread_attr_init(&attributes) != 0)
        return false;
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attributes, stack_bytes);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int failed = pthread_create(&thread, &attributes, run, argument);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    return failed == 0;
}

void watch_start(struct machine *machine)
{
    (void)thread_start(WATCH_STACK_BYTES, watch_run, machine); /* without it deaths are seen later */
}
