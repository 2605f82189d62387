/*
 * A program that uses CUDA and starts others in every way there is: usage children LOOK. LOOK is a shell command that prints what
 * the ledger says; it must say the same before and after each child. Prints "N passed, N failed".
 */
#include <dlfcn.h>
#include <errno.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cuda/cuda_abi.h"

extern char **environ;
static unsigned passed, failed;
static const char *look;
static char charged[256];

static void check(int holds, const char *what)
{
    if (holds) {
        passed++;
        return;
    }
    failed++;
    printf("FAILED %s\n", what);
}

static void ledger_says(char *text, size_t text_bytes)
{
    FILE *pipe = popen(look, "r");
    text[0] = 0;
    if (!pipe || !fgets(text, (int)text_bytes, pipe))
        snprintf(text, text_bytes, "nothing");
    if (pipe)
        pclose(pipe);
}

static void books_stand(const char *what)
{
    char now[sizeof(charged)];
    ledger_says(now, sizeof(now));
    check(strcmp(now, charged) == 0, what);
}

static int ended(pid_t child)
{
    int status = 0;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void exec_shell(const char *command)
{
    execl("/bin/sh", "sh", "-c", command, (char *)NULL);
    _exit(127);
}

static void children_run(void *driver)
{
    char *const words[] = {(char[]){"sh"}, (char[]){"-c"}, (char[]){"exit 9"}, NULL};
    pid_t child = 0;
    check(system("exit 7") == 7 << 8, "system()");
    check(posix_spawn(&child, "/bin/sh", NULL, NULL, words, environ) == 0 && ended(child) == 9, "posix_spawn()");
    books_stand("the books stand after system() and posix_spawn()");
    child = vfork();
    if (child == 0)
        exec_shell("exit 5");
    check(ended(child) == 5, "vfork() and exec");
    child = fork();
    if (child == 0)
        exec_shell("exit 6");
    check(ended(child) == 6, "fork() and exec");
    books_stand("the books stand after vfork(), fork() and exec");
    child = fork();
    if (child == 0)
        _exit(dlsym(driver, "cuMemAlloc_v2") && dlsym(RTLD_DEFAULT, "labs") && dlsym(RTLD_NEXT, "labs") ? 4 : 3);
    check(ended(child) == 4, "dlsym in a forked child");
    child = fork();
    if (child == 0)
        exit(2);
    check(ended(child) == 2, "a forked child that runs its parent's exit handlers");
    books_stand("the books stand after them");
}

int main(int count, char **words)
{
    CUresult (*init)(unsigned) = NULL;
    CUresult (*retain)(CUcontext *, CUdevice) = NULL;
    CUresult (*set_current)(CUcontext) = NULL;
    CUresult (*alloc)(CUdeviceptr *, size_t) = NULL;
    CUcontext context;
    CUdeviceptr pointer = 0;
    void *driver = dlopen("libcuda.so.1", RTLD_NOW);
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (count < 2 || !driver)
        return 64;
    look = words[1];
    *(void **)&init = dlsym(driver, "cuInit");
    *(void **)&retain = dlsym(driver, "cuDevicePrimaryCtxRetain");
    *(void **)&set_current = dlsym(driver, "cuCtxSetCurrent");
    *(void **)&alloc = dlsym(driver, "cuMemAlloc_v2");
    check(system("exit 8") == 8 << 8, "system() before CUDA is used");
    if (init(0) || retain(&context, 0) || set_current(context) || alloc(&pointer, (size_t)1 << 30)) {
        printf("the driver does not start\n");
        return 1;
    }
    ledger_says(charged, sizeof(charged));
    check(strncmp(charged, "a 1626341376 ", 13) == 0, "the parent is charged");
    children_run(driver);
    check(alloc(&pointer, (size_t)1 << 20) == CUDA_SUCCESS, "the parent goes on");
    fflush(stdout);
    printf("%u passed, %u failed\n", passed, failed);
    return failed ? 1 : 0;
}
