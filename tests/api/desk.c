/* The desk of the C API's tests; see desk.h. */
#include "api/desk.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cubudget/ledger_abi.h>
#include "sim/machine.h"

char desk_directory[64];

void desk_open(const char *options, const char *budget)
{
    (void)snprintf(desk_directory, sizeof desk_directory, "/dev/shm/cubudget-test-XXXXXX");
    if (mkdtemp(desk_directory) == NULL || setenv("CUBUDGET_BUDGET", budget, 1) != 0 ||
        setenv("CUBUDGET_LOG", "error", 1) != 0 || setenv("CUBUDGET_SLOT", "own", 1) != 0)
        abort();
    enum cubudget_error error = cubudget_simulate(options, desk_directory);
    if (error != CUBUDGET_OK) {
        (void)fprintf(stderr, "cubudget_simulate: %s: %s\n", cubudget_error_name(error), cubudget_last_detail());
        abort();
    }
}

static int entry_remove(const char *path, const struct stat *status, int kind, struct FTW *walk)
{
    (void)status;
    (void)kind;
    (void)walk;
    return remove(path);
}

void desk_close(void)
{
    (void)nftw(desk_directory, entry_remove, 8, FTW_DEPTH | FTW_PHYS);
}

void desk_expect(enum cubudget_error wanted, enum cubudget_error got, const char *call, const char *file, int line)
{
    if (got == wanted)
        return;
    print_error("%s: %s (%s), wanted %s\n", call, cubudget_error_name(got), cubudget_last_detail(),
                cubudget_error_name(wanted));
    _fail(file, line);
}

static struct sim_figures figures_read(void)
{
    struct sim_figures figures;
    assert_int_equal(sim_machine_read(desk_directory, "default", &figures), 0);
    return figures;
}

uint64_t desk_witness_used(void)
{
    return figures_read().device[0].used_bytes;
}

uint64_t desk_witness_peak(void)
{
    return figures_read().device[0].peak_bytes;
}

uint64_t desk_ledger_used(void)
{
    struct cubudget_snapshot *snapshot;
    expect_ok(cubudget_snapshot_take(&snapshot));
    uint64_t used = cubudget_snapshot_device(snapshot, 0)->used_bytes;
    cubudget_snapshot_free(snapshot);
    return used;
}

uint64_t desk_slot_used(const char *name)
{
    struct cubudget_snapshot *snapshot;
    const struct cubudget_slot_entry *slot;
    uint64_t used = 0;
    expect_ok(cubudget_snapshot_take(&snapshot));
    for (unsigned i = 0; (slot = cubudget_snapshot_slot(snapshot, i)) != NULL; i++)
        if (strcmp(slot->name, name) == 0)
            used = slot->used_bytes;
    cubudget_snapshot_free(snapshot);
    return used;
}

unsigned desk_watchers(void)
{
    struct ledger_device entry;
    char path[128];
    (void)snprintf(path, sizeof path, "%s/default.ledger", desk_directory);
    int descriptor = open(path, O_RDONLY | O_CLOEXEC);
    assert_int_equal(pread(descriptor, &entry, sizeof entry, LEDGER_OFFSET_DEVICES), sizeof entry);
    (void)close(descriptor);
    return entry.watchers;
}

pid_t desk_fork(int (*work)(void *context), void *context, int new_pid_namespace)
{
    pid_t pid = fork();
    if (pid != 0)
        return pid;
    if (new_pid_namespace == 0)
        _exit(work(context));
    /* The one that unshares stays outside; its child is process 1 inside. */
    if (unshare(CLONE_NEWPID) != 0)
        _exit(77);
    pid = fork();
    if (pid == 0)
        _exit(work(context));
    _exit(desk_join(pid));
}

int desk_join(pid_t pid)
{
    int status;
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
