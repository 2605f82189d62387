/*
 * Running a small program unseen; helper.h has who calls it. Between us and the program stands a process that is none of the program's
 * children to anybody who does not ask for such (no exit signal: no SIGCHLD, and waitpid(-1) passes it over, which __WCLONE alone does not). It
 * must stay until the program has ended: an exec would give it SIGCHLD again, and an orphan would go to whoever adopts orphans, which
 * may be this very process. It shares our memory, as a child of vfork does, and not our descriptors: the pipe is its own, so that nothing that
 * the program starts meanwhile inherits it.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "evict/helper.h"

enum {
    STACK_BYTES = 64 * 1024,
    KILLED_LOOKS = 100, /* for a killed program to end, a ms each: NVML may keep it in the kernel */
};

struct order {
    const char *path;
    char *const *arguments, *const *environment;
    uint64_t deadline_ms;
    char *answer;
    size_t answer_bytes;
    int result;
};

static uint64_t now_ms(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static int program_start(const struct order *order, int output, pid_t *child)
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t none, all;
    (void)sigemptyset(&none);
    (void)sigfillset(&all);
    int result = posix_spawn_file_actions_init(&actions);
    if (result != 0)
        return -result;
    result = posix_spawnattr_init(&attributes);
    if (result == 0) {
        (void)posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
        (void)posix_spawnattr_setsigmask(&attributes, &none);
        (void)posix_spawnattr_setsigdefault(&attributes, &all);
        result = posix_spawn_file_actions_adddup2(&actions, output, STDOUT_FILENO);
        if (result == 0)
            result = posix_spawn(child, order->path, &actions, &attributes, order->arguments, order->environment);
        (void)posix_spawnattr_destroy(&attributes);
    }
    (void)posix_spawn_file_actions_destroy(&actions);
    return -result;
}

/* All that it prints, until it closes its output. */
static int answer_read(const struct order *order, int input)
{
    size_t had = 0;
    for (;;) {
        struct pollfd ready = {.fd = input, .events = POLLIN};
        uint64_t now = now_ms();
        int left = order->deadline_ms > now ? (int)(order->deadline_ms - now) : 0;
        int polled = poll(&ready, 1, left);
        if (polled < 0 && errno == EINTR)
            continue;
        if (polled <= 0)
            return -ETIMEDOUT;
        ssize_t bytes = read(input, order->answer + had, order->answer_bytes - 1 - had);
        if (bytes <= 0) {
            order->answer[had] = '\0';
            return bytes == 0 ? 0 : -errno;
        }
        had += (size_t)bytes;
        if (had == order->answer_bytes - 1)
            return -EOVERFLOW;
    }
}

static int program_end(pid_t child, int result)
{
    int status = 0;
    if (result == 0) {
        while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
        }
        return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -EIO;
    }
    (void)kill(child, SIGKILL);
    for (int look = 0; look < KILLED_LOOKS && waitpid(child, &status, WNOHANG) == 0; look++)
        (void)clock_nanosleep(CLOCK_MONOTONIC, 0, &(struct timespec){.tv_nsec = 1000000}, NULL);
    return result;
}

/* In the process between. */
static int order_do(void *argument)
{
    struct order *order = argument;
    int ends[2];
    pid_t child;
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL); /* it holds copies of the driver's descriptors: not beyond our death */
    if (pipe2(ends, O_CLOEXEC) != 0) {
        order->result = -errno;
        _exit(0);
    }
    order->result = program_start(order, ends[1], &child);
    (void)close(ends[1]);
    if (order->result == 0)
        order->result = program_end(child, answer_read(order, ends[0]));
    _exit(0); /* not the program's handlers */
}

int helper_run(const char *path, char *const arguments[], char *const environment[], uint32_t timeout_ms, char *answer,
               size_t answer_bytes)
{
    int before = errno;
    struct order order = {
        .path = path,
        .arguments = arguments,
        .environment = environment,
        .deadline_ms = now_ms() + timeout_ms,
        .answer = answer,
        .answer_bytes = answer_bytes,
        .result = -EIO, /* killed before it could say */
    };
    char *stack = mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
    if (stack == MAP_FAILED)
        return -ENOMEM;
    pid_t between = clone(order_do, stack + STACK_BYTES, CLONE_VM | CLONE_VFORK, &order);
    if (between < 0)
        order.result = -errno;
    else
        while (waitpid(between, NULL, (int)__WCLONE) < 0 && errno == EINTR) {
        }
    (void)munmap(stack, STACK_BYTES);
    errno = before;
    return order.result == -EAGAIN ? -EBUSY : order.result; /* no process was to be had, which says nothing of a card */
}
