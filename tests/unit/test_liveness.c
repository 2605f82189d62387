/* Who is alive: the two bytes through fork, exec, a program that closes everything, a kill, and on a file system where they do not hold. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "platform/liveness.h"
#include "unit/scene.h"

enum { LIFE = 5, MEMORY = 1029, NOT_PERMITTED = 77 };

struct place {
    struct scene scene;
    char path[192];
    dev_t device;
    ino_t inode;
    int look; /* a description of the test's own, to ask with */
};

static void place_file_make(struct place *place, const char *directory)
{
    struct stat status;
    snprintf(place->path, sizeof place->path, "%s/file", directory);
    int descriptor = open(place->path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    REQUIRE(descriptor >= 0 && ftruncate(descriptor, 8192) == 0 && fstat(descriptor, &status) == 0);
    place->device = status.st_dev;
    place->inode = status.st_ino;
    place->look = descriptor;
}

static int place_setup(void **state)
{
    struct place *place = calloc(1, sizeof *place);
    scene_open(&place->scene, 0);
    place_file_make(place, place->scene.directory);
    *state = place;
    return 0;
}

static int place_teardown(void **state)
{
    struct place *place = *state;
    close(place->look);
    scene_close(&place->scene);
    free(place);
    return 0;
}

static int place_hold(const struct place *place, struct liveness *held)
{
    return liveness_hold(held, place->path, place->device, place->inode, LIFE, MEMORY);
}

#define ASSERT_HELD(place, life, memory)                                                                               \
    do {                                                                                                               \
        assert_int_equal(liveness_look((place)->look, LIFE), life);                                                    \
        assert_int_equal(liveness_look((place)->look, MEMORY), memory);                                                \
    } while (0)

static void held_and_dropped(void **state)
{
    struct place *place = *state;
    struct liveness held, second;
    ASSERT_HELD(place, 0, 0);
    assert_int_equal(place_hold(place, &held), 0);
    ASSERT_HELD(place, 1, 1);
    assert_int_equal(liveness_look(place->look, LIFE + 1), 0); /* neighbours are not touched */
    assert_int_equal(liveness_look(place->look, MEMORY - 1), 0);
    assert_int_equal(place_hold(place, &second), -EAGAIN);
    assert_null(second.page);
    assert_int_equal(second.memory_descriptor, -1);
    ASSERT_HELD(place, 1, 1);
    liveness_drop(&held);
    ASSERT_HELD(place, 0, 0);
    liveness_drop(&held); /* once more changes nothing */
    assert_int_equal(place_hold(place, &held), 0);
    liveness_drop(&held);
}

/* Looking never locks: two who look at once do not see each other. */
static void looks_do_not_lock(void **state)
{
    struct place *place = *state;
    int other = open(place->path, O_RDWR | O_CLOEXEC);
    for (unsigned i = 0; i < 100; i++) {
        assert_int_equal(liveness_look(place->look, LIFE), 0);
        assert_int_equal(liveness_look(other, LIFE), 0);
    }
    close(other);
}

/* The memory byte alone taken by another: nothing stays held of the life byte. */
static void half_is_given_back(void **state)
{
    struct place *place = *state;
    struct liveness held;
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = MEMORY, .l_len = 1};
    int other = open(place->path, O_RDWR | O_CLOEXEC);
    assert_int_equal(fcntl(other, F_OFD_SETLK, &lock), 0);
    assert_int_equal(place_hold(place, &held), -EAGAIN);
    ASSERT_HELD(place, 0, 1);
    close(other);
    ASSERT_HELD(place, 0, 0);
}

static void file_is_another(void **state)
{
    struct place *place = *state;
    struct liveness held;
    assert_int_equal(liveness_hold(&held, place->path, place->device, place->inode + 1, LIFE, MEMORY), -ESTALE);
    assert_int_equal(unlink(place->path), 0);
    assert_int_equal(place_hold(place, &held), -ESTALE);
    assert_int_equal(symlink("elsewhere", place->path), 0);
    assert_int_equal(place_hold(place, &held), -ESTALE);
}

static void descriptor_is_out_of_the_way(void **state)
{
    struct place *place = *state;
    struct liveness held;
    struct rlimit limit, low;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    assert_int_equal(place_hold(place, &held), 0);
    assert_true(held.memory_descriptor >= LIVENESS_DESCRIPTOR_FLOOR);
    assert_int_equal(fcntl(held.memory_descriptor, F_GETFD), FD_CLOEXEC);
    liveness_drop(&held);
    low = limit;
    low.rlim_cur = 40;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
    assert_int_equal(place_hold(place, &held), 0);
    assert_int_equal(held.memory_descriptor, 39);
    liveness_drop(&held);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
}

/* A program may close our descriptor and be given its number for a file of its own: that one is not ours to close. */
static void number_may_be_anothers(void **state)
{
    struct place *place = *state;
    struct liveness held;
    assert_int_equal(place_hold(place, &held), 0);
    int number = held.memory_descriptor, mine = open("/dev/null", O_RDWR | O_CLOEXEC);
    close(number);
    assert_int_equal(dup2(mine, number), number);
    liveness_drop(&held);
    assert_true(fcntl(number, F_GETFD) >= 0);
    close(number);
    close(mine);
    ASSERT_HELD(place, 0, 0);
}

/* --- other processes --------------------------------------------------------------------------------------------------- */

enum deed { HOLD, HOLD_AND_FORK, HOLD_AND_CLOSE_ALL, HOLD_AND_EXEC };

static int place_live(struct scene *scene, void *context)
{
    struct place *place = ((void **)context)[0];
    enum deed deed = *(enum deed *)((void **)context)[1];
    struct liveness held;
    REQUIRE(place_hold(place, &held) == 0);
    if (deed == HOLD_AND_FORK) {
        pid_t parent = getpid(), pid = fork();
        REQUIRE(pid >= 0);
        if (pid == 0) { /* lives on until told, whatever becomes of its parent */
            atomic_store(&scene->board->figures[0], (uint64_t)getpid());
            atomic_store(&scene->board->figures[1], (uint64_t)parent);
            board_arrive(&scene->board->arrived);
            board_await(&scene->board->go, 1);
            _exit(0);
        }
    }
    if (deed == HOLD_AND_CLOSE_ALL)
        REQUIRE(syscall(SYS_close_range, 3U, ~0U, 0U) == 0);
    if (deed == HOLD_AND_EXEC) {
        char *const arguments[] = {(char *)"sh", (char *)"-c", (char *)"echo here; read line", NULL};
        execv("/bin/sh", arguments);
        _exit(SCENE_FAILED);
    }
    board_arrive(&scene->board->arrived);
    pause();
    return 0;
}

static pid_t place_start(struct place *place, enum deed deed)
{
    void *context[] = {place, &deed};
    return scene_fork(&place->scene, NULL, place_live, context);
}

static void process_end(pid_t pid)
{
    assert_int_equal(kill(pid, SIGKILL), 0);
    int status = scene_wait(pid);
    assert_true(WIFSIGNALED(status));
}

static void killed(void **state)
{
    struct place *place = *state;
    pid_t pid = place_start(place, HOLD);
    board_await(&place->scene.board->arrived, 1);
    ASSERT_HELD(place, 1, 1);
    process_end(pid);
    ASSERT_HELD(place, 0, 0);
}

static void stopped_is_alive(void **state)
{
    struct place *place = *state;
    pid_t pid = place_start(place, HOLD);
    board_await(&place->scene.board->arrived, 1);
    assert_int_equal(kill(pid, SIGSTOP), 0);
    assert_true(scene_stopped(pid));
    ASSERT_HELD(place, 1, 1);
    process_end(pid);
    ASSERT_HELD(place, 0, 0);
}

/* The life byte ends with its process; the memory byte with the last child that has its descriptor. */
static void killed_beside_a_child(void **state)
{
    struct place *place = *state;
    struct board *board = place->scene.board;
    pid_t pid = place_start(place, HOLD_AND_FORK);
    board_await(&board->arrived, 2);
    ASSERT_HELD(place, 1, 1);
    int child = (int)syscall(SYS_pidfd_open, (pid_t)atomic_load(&board->figures[0]), 0U);
    process_end(pid);
    ASSERT_HELD(place, 0, 1);
    struct liveness held;
    assert_int_equal(place_hold(place, &held), -EAGAIN);
    board_arrive(&board->go);
    if (child >= 0) { /* not our child, so not ours to wait for by number */
        siginfo_t end;
        while (waitid(P_PIDFD, (id_t)child, &end, WEXITED) != 0 && errno == EINTR) {
        }
        close(child);
    }
    while (liveness_look(place->look, MEMORY) == 1)
        sched_yield();
    ASSERT_HELD(place, 0, 0);
}

/* What the owner gives back is free, though a child has the descriptor. */
static void dropped_beside_a_child(void **state)
{
    struct place *place = *state;
    struct liveness held;
    int hold[2];
    char byte;
    assert_int_equal(pipe(hold), 0);
    assert_int_equal(place_hold(place, &held), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        close(hold[1]);
        _exit((int)read(hold[0], &byte, 1));
    }
    ASSERT_HELD(place, 1, 1);
    liveness_drop(&held);
    ASSERT_HELD(place, 0, 0);
    close(hold[1]);
    scene_join(pid);
    close(hold[0]);
}

static void all_descriptors_closed(void **state)
{
    struct place *place = *state;
    pid_t pid = place_start(place, HOLD_AND_CLOSE_ALL);
    board_await(&place->scene.board->arrived, 1);
    ASSERT_HELD(place, 1, 0);
    process_end(pid);
    ASSERT_HELD(place, 0, 0);
}

static void exec_ends_it(void **state)
{
    struct place *place = *state;
    int output[2], saved = dup(STDOUT_FILENO), input[2];
    char text[16];
    assert_int_equal(pipe(output), 0);
    assert_int_equal(pipe(input), 0);
    int saved_input = dup(STDIN_FILENO);
    dup2(output[1], STDOUT_FILENO);
    dup2(input[0], STDIN_FILENO);
    pid_t pid = place_start(place, HOLD_AND_EXEC);
    dup2(saved, STDOUT_FILENO);
    dup2(saved_input, STDIN_FILENO);
    close(output[1]);
    assert_true(read(output[0], text, sizeof text) > 0); /* the new program runs */
    ASSERT_HELD(place, 0, 0);
    process_end(pid);
    close(output[0]);
    close(input[0]);
    close(input[1]);
    close(saved);
    close(saved_input);
}

static int overlay_hold(struct scene *scene, void *context)
{
    struct place *place = context;
    struct liveness held;
    char options[512], merged[128] = "";
    if (unshare(CLONE_NEWNS) != 0 && unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0)
        return NOT_PERMITTED;
    static const char *const parts[] = {"lower", "upper", "work", "merged"};
    for (unsigned i = 0; i < 4; i++) {
        snprintf(merged, sizeof merged, "%s/%s", scene->directory, parts[i]);
        REQUIRE(mkdir(merged, 0700) == 0);
    }
    snprintf(options, sizeof options, "lowerdir=%s/lower,upperdir=%s/upper,workdir=%s/work", scene->directory,
             scene->directory, scene->directory);
    if (mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
        mount("overlay", merged, "overlay", 0, options) != 0)
        return NOT_PERMITTED;
    place_file_make(place, merged);
    REQUIRE(place_hold(place, &held) == -ENOTSUP);
    REQUIRE(held.page == NULL && held.memory_descriptor == -1);
    return 0;
}

static void overlayfs_is_refused(void **state)
{
    struct place *place = *state;
    int status = scene_wait(scene_fork(&place->scene, NULL, overlay_hold, place));
    if (WIFEXITED(status) && WEXITSTATUS(status) == NOT_PERMITTED) {
        print_message("skipped: mounting an overlay is not permitted here\n");
        skip();
    }
    assert_int_equal(status, 0);
}

#define PLACE(test) cmocka_unit_test_setup_teardown(test, place_setup, place_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        PLACE(held_and_dropped),
        PLACE(looks_do_not_lock),
        PLACE(half_is_given_back),
        PLACE(file_is_another),
        PLACE(descriptor_is_out_of_the_way),
        PLACE(number_may_be_anothers),
        PLACE(killed),
        PLACE(stopped_is_alive),
        PLACE(killed_beside_a_child),
        PLACE(dropped_beside_a_child),
        PLACE(all_descriptors_closed),
        PLACE(exec_ends_it),
        PLACE(overlayfs_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
