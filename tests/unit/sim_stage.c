/* The stage of tests of the simulator; see sim_stage.h. */
#include "unit/sim_stage.h"

#include <ftw.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>
#include <sys/wait.h>

char stage_directory[64];

int stage_open(const char *options)
{
    snprintf(stage_directory, sizeof(stage_directory), "/dev/shm/cubudget-test-XXXXXX");
    if (!mkdtemp(stage_directory))
        return -1;
    setenv("CUBUDGET_DIR", stage_directory, 1);
    setenv("CUBUDGET_SIMULATE", options, 1);
    unsetenv("CUDA_VISIBLE_DEVICES");
    return 0;
}

static int entry_remove(const char *path, const struct stat *status, int kind, struct FTW *walk)
{
    (void)status;
    (void)kind;
    (void)walk;
    return remove(path);
}

int stage_close(void)
{
    return nftw(stage_directory, entry_remove, 8, FTW_DEPTH | FTW_PHYS);
}

struct sim_figures stage_figures(void)
{
    struct sim_figures figures;
    assert_int_equal(sim_machine_read(stage_directory, "default", &figures), 0);
    return figures;
}

void stage_await_used(uint64_t bytes)
{
    for (int look = 0; look < 60000 && stage_figures().device[0].used_bytes != bytes; look++)
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    assert_int_equal(stage_figures().device[0].used_bytes, bytes);
}

int stage_child(int (*body)(void))
{
    int status = -1;
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0)
        _exit(body());
    assert_int_equal(waitpid(child, &status, 0), child);
    return status;
}
