/* One line of log: whole, on standard error or in its file, never on standard output; and the line that ends a process. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "platform/log.h"
#include "unit/scene.h"

struct output {
    char error[8192], standard[64];
    int status;
};

static size_t pipe_read(int descriptor, char *text, size_t bytes)
{
    size_t used = 0;
    ssize_t got;
    while (used < bytes - 1 && (got = read(descriptor, text + used, bytes - 1 - used)) > 0)
        used += (size_t)got;
    text[used] = '\0';
    close(descriptor);
    return used;
}

/* Runs body in a process of its own and keeps what it wrote. */
static void output_of(void (*body)(void), struct output *output)
{
    int error[2], standard[2];
    assert_int_equal(pipe(error), 0);
    assert_int_equal(pipe(standard), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        if (dup2(error[1], STDERR_FILENO) < 0 || dup2(standard[1], STDOUT_FILENO) < 0)
            _exit(1);
        body();
        _exit(0);
    }
    close(error[1]);
    close(standard[1]);
    pipe_read(error[0], output->error, sizeof output->error);
    pipe_read(standard[0], output->standard, sizeof output->standard);
    output->status = scene_wait(pid);
    assert_string_equal(output->standard, "");
}

static void levels_write(void)
{
    log_line(LOG_ERROR, "an %s", "error");
    log_line(LOG_WARN, "a warning");
    log_line(LOG_INFO, "not shown");
    log_configure(LOG_ERROR, NULL);
    log_line(LOG_WARN, "not shown");
    log_configure(LOG_DEBUG, NULL);
    log_line(LOG_DEBUG, "a detail");
}

static void levels(void **state)
{
    struct output output;
    (void)state;
    output_of(levels_write, &output);
    assert_string_equal(output.error, "cubudget: an error\ncubudget: a warning\ncubudget: a detail\n");
    assert_int_equal(output.status, 0);
}

static void odd_text_write(void)
{
    log_line(LOG_ERROR, "%s", "two\nlines\tand\033[31m colour\177");
    log_line(LOG_ERROR, "%s", "caf\303\251");
}

static void control_characters(void **state)
{
    struct output output;
    (void)state;
    output_of(odd_text_write, &output);
    assert_string_equal(output.error, "cubudget: two?lines?and?[31m colour?\ncubudget: caf\303\251\n");
}

static void long_text_write(void)
{
    char text[3000];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    log_line(LOG_ERROR, "%s", text);
    for (size_t i = 0; i + 2 < sizeof text; i += 2)
        memcpy(text + i, "\303\251", 2);
    text[sizeof text - 2] = '\0';
    log_line(LOG_ERROR, "%s", text);
}

static void long_text_is_cut(void **state)
{
    struct output output;
    (void)state;
    output_of(long_text_write, &output);
    char *end = strchr(output.error, '\n');
    assert_non_null(end);
    assert_int_equal(end + 1 - output.error, 1000);
    char *last = strchr(end + 1, '\n');
    assert_non_null(last);
    assert_in_range(last - end, 990, 1000);
    assert_int_equal(last[-1], '\251'); /* no half of a character */
    assert_int_equal(last[1], '\0');
}

static void file_and_errno(void **state)
{
    struct scene scene;
    char path[128], text[256] = "";
    (void)state;
    scene_open(&scene, 0);
    snprintf(path, sizeof path, "%s/log", scene.directory);
    log_configure(LOG_INFO, path);
    errno = E2BIG;
    log_line(LOG_INFO, "first");
    log_line(LOG_INFO, "second");
    assert_int_equal(errno, E2BIG);
    log_configure(LOG_WARN, NULL);
    int file = open(path, O_RDONLY);
    assert_true(file >= 0);
    pipe_read(file, text, sizeof text);
    assert_string_equal(text, "cubudget: first\ncubudget: second\n");
    scene_close(&scene);
}

static void unwritable_file_write(void)
{
    log_configure(LOG_WARN, "/nowhere/at/all");
    log_line(LOG_WARN, "still heard");
}

static void unwritable_file_means_standard_error(void **state)
{
    struct output output;
    (void)state;
    output_of(unwritable_file_write, &output);
    assert_string_equal(output.error, "cubudget: still heard\n");
}

/* Standard error is a pipe whose reader has gone: the program that is told something lives, and its signals are as before. */
static void gone_reader_ends_nobody(void **state)
{
    int ends[2];
    (void)state;
    assert_int_equal(pipe(ends), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        sigset_t blocked, pending;
        if (dup2(ends[1], STDERR_FILENO) < 0 || close(ends[0]) != 0 || signal(SIGPIPE, SIG_DFL) == SIG_ERR)
            _exit(1);
        errno = EDOM;
        log_line(LOG_ERROR, "nobody reads this");
        if (errno != EDOM || sigprocmask(SIG_SETMASK, NULL, &blocked) != 0 || sigpending(&pending) != 0)
            _exit(2);
        _exit(sigismember(&blocked, SIGPIPE) != 0 || sigismember(&pending, SIGPIPE) != 0 ? 3 : 0);
    }
    close(ends[0]);
    close(ends[1]);
    assert_int_equal(scene_wait(pid), 0);
}

static void at_exit(void)
{
    static const char text[] = "a handler ran\n";
    (void)!write(STDERR_FILENO, text, sizeof text - 1);
}

static void death(void)
{
    log_configure(LOG_ERROR, NULL);
    if (atexit(at_exit) == 0)
        log_die(EXIT_BAD_SETTINGS, "CUBUDGET_BUDGET: '%s' is not a size", "8 gigs");
}

static void die_runs_no_handler(void **state)
{
    struct output output;
    (void)state;
    output_of(death, &output);
    assert_true(WIFEXITED(output.status));
    assert_int_equal(WEXITSTATUS(output.status), 78);
    assert_string_equal(output.error, "cubudget: CUBUDGET_BUDGET: '8 gigs' is not a size\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(levels),
        cmocka_unit_test(control_characters),
        cmocka_unit_test(long_text_is_cut),
        cmocka_unit_test(file_and_errno),
        cmocka_unit_test(unwritable_file_means_standard_error),
        cmocka_unit_test(gone_reader_ends_nobody),
        cmocka_unit_test(die_runs_no_handler),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
