/* Files of ledgers: made whole by one of many, refused where they are not what they should be. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <dirent.h>
#include <unistd.h>
#include <cmocka.h>

#include "platform/shm.h"
#include "unit/scene.h"

enum { SIZE = 3 * 4096, NOT_PERMITTED = 77 };

static int bare_setup(void **state)
{
    struct scene *scene = calloc(1, sizeof *scene);
    scene_open(scene, 0);
    *state = scene;
    return 0;
}

static int bare_teardown(void **state)
{
    scene_close(*state);
    free(*state);
    return 0;
}

static const char *path_in(const struct scene *scene, const char *name)
{
    static char path[256];
    snprintf(path, sizeof path, "%s/%s", scene->directory, name);
    return path;
}

static void fill(void *bytes, void *context)
{
    memcpy(bytes, context, strlen(context));
}

static unsigned files_count(const char *directory)
{
    unsigned count = 0;
    DIR *open_directory = opendir(directory);
    for (struct dirent *entry; open_directory != NULL && (entry = readdir(open_directory)) != NULL;)
        count += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
    if (open_directory != NULL)
        closedir(open_directory);
    return count;
}

static void made_and_opened(void **state)
{
    struct scene *scene = *state;
    struct shm_file file, again;
    struct stat status;
    char text[] = "first contents", other[] = "never seen";
    mode_t before = umask(0377);
    assert_int_equal(shm_create(path_in(scene, "file"), SIZE, fill, text), 0);
    umask(before);
    assert_int_equal(shm_create(path_in(scene, "file"), SIZE, fill, other), -EEXIST);
    assert_int_equal(files_count(scene->directory), 1); /* no temporary file is left */
    assert_int_equal(stat(path_in(scene, "file"), &status), 0);
    assert_int_equal(status.st_mode & 07777, 0600);
    assert_int_equal(status.st_size, SIZE);
    assert_true(status.st_blocks * 512 >= SIZE); /* no hole that could end in SIGBUS */
    assert_int_equal(shm_open_existing(path_in(scene, "file"), SIZE, &file), 0);
    assert_int_equal(shm_open_existing(path_in(scene, "file"), SIZE, &again), 0);
    assert_string_equal(file.bytes, "first contents");
    ((char *)file.bytes)[0] = 'F';
    assert_string_equal(again.bytes, "First contents"); /* shared */
    assert_int_equal(shm_is_current(path_in(scene, "file"), &file), 1);
    assert_int_equal(unlink(path_in(scene, "file")), 0);
    assert_int_equal(shm_is_current(path_in(scene, "file"), &file), 0);
    assert_int_equal(shm_create(path_in(scene, "file"), SIZE, fill, text), 0);
    assert_int_equal(shm_is_current(path_in(scene, "file"), &file), 0); /* replaced */
    shm_close(&file);
    shm_close(&again);
    assert_null(file.bytes);
}

static void not_what_it_should_be(void **state)
{
    struct scene *scene = *state;
    struct shm_file file;
    char text[] = "x", target[256];
    assert_int_equal(shm_open_existing(path_in(scene, "none"), SIZE, &file), -ENOENT);
    assert_int_equal(mkdir(path_in(scene, "directory"), 0700), 0);
    assert_int_equal(shm_open_existing(path_in(scene, "directory"), SIZE, &file), -EISDIR);
    assert_int_equal(mkfifo(path_in(scene, "fifo"), 0600), 0);
    assert_int_equal(shm_open_existing(path_in(scene, "fifo"), SIZE, &file), -ENODEV);
    assert_int_equal(shm_create(path_in(scene, "file"), SIZE, fill, text), 0);
    snprintf(target, sizeof target, "%s", path_in(scene, "file"));
    assert_int_equal(symlink(target, path_in(scene, "link")), 0);
    assert_int_equal(shm_open_existing(path_in(scene, "link"), SIZE, &file), -ELOOP);
    assert_int_equal(truncate(target, SIZE - 1), 0);
    assert_int_equal(shm_open_existing(target, SIZE, &file), -EFBIG);
    assert_int_equal(truncate(target, SIZE + 1), 0);
    assert_int_equal(shm_open_existing(target, SIZE, &file), -EFBIG);
    assert_int_equal(truncate(target, 0), 0);
    assert_int_equal(shm_open_existing(target, SIZE, &file), -EFBIG);
    /* Nor is any of them replaced. */
    assert_int_equal(shm_create(path_in(scene, "link"), SIZE, fill, text), -EEXIST);
    assert_int_equal(shm_create(path_in(scene, "directory"), SIZE, fill, text), -EEXIST);
}

static void sockets_are_no_files(void **state)
{
    struct scene *scene = *state;
    struct shm_file file;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int descriptor = socket(AF_UNIX, SOCK_STREAM, 0);
    snprintf(address.sun_path, sizeof address.sun_path, "%s/socket", scene->directory);
    assert_int_equal(bind(descriptor, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(shm_open_existing(path_in(scene, "socket"), SIZE, &file), -ENODEV);
    close(descriptor);
}

static void another_users_file(void **state)
{
    struct scene *scene = *state;
    struct shm_file file;
    char text[] = "x";
    assert_int_equal(shm_create(path_in(scene, "file"), SIZE, fill, text), 0);
    if (chown(path_in(scene, "file"), 65534, 65534) != 0) {
        print_message("skipped: only root can give a file away\n");
        skip();
    }
    assert_int_equal(shm_open_existing(path_in(scene, "file"), SIZE, &file), -EPERM);
    assert_int_equal(chmod(path_in(scene, "file"), 0666), 0);
    assert_int_equal(shm_open_existing(path_in(scene, "file"), SIZE, &file), -EPERM);
}

/* A killed maker's file goes at the next making; one that is still being made stays. */
static void leftovers_are_swept(void **state)
{
    struct scene *scene = *state;
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = (off_t)1 << 40, .l_len = 1};
    char text[] = "x";
    int dead = open(path_in(scene, ".cubudget-new-0000000000000001"), O_RDWR | O_CREAT, 0600);
    int living = open(path_in(scene, ".cubudget-new-0000000000000002"), O_RDWR | O_CREAT, 0600);
    int foreign = open(path_in(scene, "something-else"), O_RDWR | O_CREAT, 0600);
    assert_true(dead >= 0 && living >= 0 && foreign >= 0);
    assert_int_equal(fcntl(living, F_OFD_SETLK, &lock), 0);
    assert_int_equal(shm_create(path_in(scene, "file"), SIZE, fill, text), 0);
    assert_int_equal(access(path_in(scene, ".cubudget-new-0000000000000001"), F_OK), -1);
    assert_int_equal(access(path_in(scene, ".cubudget-new-0000000000000002"), F_OK), 0);
    assert_int_equal(access(path_in(scene, "something-else"), F_OK), 0);
    close(dead);
    close(living);
    close(foreign);
}

/* --- first users at once ---------------------------------------------------------------------------------------------- */

enum { TRIES = 2000, USERS = 2 };

/* Makes or opens the file of each try at the same moment as the other, and tells which inode it got. */
static int first_users_race(struct scene *scene, void *context)
{
    unsigned mine = *(unsigned *)context;
    char path[256], text[] = "contents";
    for (uint32_t try = 1; try <= TRIES; try++) {
        struct shm_file file;
        snprintf(path, sizeof path, "%s/%u", scene->directory, try);
        board_meet(&scene->board->arrived, USERS, try);
        int made = shm_create(path, SIZE, fill, text);
        REQUIRE(made == 0 || made == -EEXIST);
        REQUIRE(shm_open_existing(path, SIZE, &file) == 0);
        REQUIRE(strcmp(file.bytes, text) == 0); /* whole, the moment it is there */
        atomic_store(&scene->board->figures[mine], (uint64_t)file.inode);
        atomic_fetch_add(&scene->board->figures[2], made == 0);
        board_meet(&scene->board->done, USERS, try);
        REQUIRE(atomic_load(&scene->board->figures[0]) == atomic_load(&scene->board->figures[1]));
        REQUIRE(atomic_load(&scene->board->figures[2]) == try); /* one of the two made it */
        shm_close(&file);
        board_meet(&scene->board->go, USERS, try);
        if (mine == 0)
            REQUIRE(unlink(path) == 0);
    }
    return 0;
}

static void first_users_at_once(void **state)
{
    struct scene *scene = *state;
    unsigned numbers[USERS] = {0, 1};
    pid_t pids[USERS];
    for (unsigned i = 0; i < USERS; i++)
        pids[i] = scene_fork(scene, NULL, first_users_race, &numbers[i]);
    for (unsigned i = 0; i < USERS; i++)
        scene_join(pids[i]);
    assert_int_equal(files_count(scene->directory), 0);
}

/* --- directories ------------------------------------------------------------------------------------------------------ */

static void directory_is_chosen(void **state)
{
    char path[PATH_MAX], expected[64];
    static char very_long[PATH_MAX + 1];
    (void)state;
    assert_int_equal(shm_directory("/some/where", path), 0);
    assert_string_equal(path, "/some/where");
    memset(very_long, 'x', PATH_MAX);
    assert_int_equal(shm_directory(very_long, path), -ENAMETOOLONG);
    if (access("/run/cubudget", F_OK) == 0)
        skip(); /* an administrator's: the default depends on it */
    snprintf(expected, sizeof expected, "/dev/shm/cubudget-%lu", (unsigned long)geteuid());
    assert_int_equal(shm_directory(NULL, path), 0);
    assert_string_equal(path, expected);
}

static void directory_is_prepared(void **state)
{
    struct scene *scene = *state;
    struct stat status;
    assert_int_equal(shm_directory_prepare(path_in(scene, "new")), 0);
    assert_int_equal(stat(path_in(scene, "new"), &status), 0);
    assert_int_equal(status.st_mode & 07777, 0700);
    assert_int_equal(shm_directory_prepare(path_in(scene, "new")), 0);
    assert_int_equal(shm_directory_prepare(path_in(scene, "not/its/parents")), -ENOENT);
    close(open(path_in(scene, "file"), O_RDWR | O_CREAT, 0600));
    assert_int_equal(shm_directory_prepare(path_in(scene, "file")), -ENOTDIR);
    assert_int_equal(symlink("new", path_in(scene, "link")), 0);
    assert_int_equal(shm_directory_prepare(path_in(scene, "link")), -ELOOP);
    assert_int_equal(chmod(path_in(scene, "new"), 0777), 0);
    assert_int_equal(shm_directory_prepare(path_in(scene, "new")), -EPERM); /* anybody could take the file away */
}

static void another_users_directory(void **state)
{
    struct scene *scene = *state;
    assert_int_equal(mkdir(path_in(scene, "theirs"), 0700), 0);
    if (chown(path_in(scene, "theirs"), 65534, 65534) != 0) {
        print_message("skipped: only root can give a directory away\n");
        skip();
    }
    assert_int_equal(shm_directory_prepare(path_in(scene, "theirs")), -EPERM);
}

/* A directory that our own group shares: what is made in it is the group's. Any more or less rights, and it is not taken. */
static void groups_directory(void **state)
{
    static const mode_t wrong[] = {02775, 02771, 0770, 02750, 01777};
    struct scene *scene = *state;
    struct shm_file file;
    struct stat status;
    char text[] = "x", path[256];
    snprintf(path, sizeof path, "%s", path_in(scene, "ours"));
    assert_int_equal(shm_group_directory_make(path, getegid()), 0);
    assert_int_equal(stat(path, &status), 0);
    assert_int_equal(status.st_mode & 07777, 02770);
    assert_int_equal(shm_group_directory_make(path, getegid()), 0); /* it is one already */
    assert_int_equal(shm_directory_prepare(path), 0);
    mode_t before = umask(0077);
    assert_int_equal(shm_create(path_in(scene, "ours/file"), SIZE, fill, text), 0);
    umask(before);
    assert_int_equal(stat(path_in(scene, "ours/file"), &status), 0);
    assert_int_equal(status.st_mode & 07777, 0660);
    assert_int_equal(status.st_gid, getegid());
    assert_int_equal(shm_open_existing(path_in(scene, "ours/file"), SIZE, &file), 0);
    shm_close(&file);
    if (geteuid() != 0) /* root's directories are an administrator's, and sticky ones good */
        for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
            assert_int_equal(chmod(path, wrong[i]), 0);
            assert_int_equal(shm_directory_prepare(path), (wrong[i] & (S_IWGRP | S_IWOTH)) == 0 ? 0 : -EPERM);
        }
    assert_int_equal(symlink("ours", path_in(scene, "link")), 0);
    assert_true(shm_group_directory_make(path_in(scene, "link"), getegid()) < 0);
    close(open(path_in(scene, "plain"), O_RDWR | O_CREAT, 0600));
    assert_int_equal(shm_group_directory_make(path_in(scene, "plain"), getegid()), -ENOTDIR);
}

/* Runs in a mount namespace of its own, with a file system of 64 KiB. */
static int small_file_system_fill(struct scene *scene, void *unused)
{
    char text[] = "x";
    (void)unused;
    if (unshare(CLONE_NEWNS) != 0 && unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0)
        return NOT_PERMITTED;
    if (mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
        mount("none", scene->directory, "tmpfs", 0, "size=64k") != 0)
        return NOT_PERMITTED;
    REQUIRE(shm_create(path_in(scene, "file"), 1 << 20, fill, text) == -ENOSPC);
    REQUIRE(files_count(scene->directory) == 0);
    REQUIRE(shm_create(path_in(scene, "file"), SIZE, fill, text) == 0); /* what fits is made all the same */
    return 0;
}

static void full_file_system(void **state)
{
    int status = scene_wait(scene_fork(*state, NULL, small_file_system_fill, NULL));
    if (WIFEXITED(status) && WEXITSTATUS(status) == NOT_PERMITTED) {
        print_message("skipped: mounting a small file system is not permitted here\n");
        skip();
    }
    assert_int_equal(status, 0);
}

#define SCENE(test) cmocka_unit_test_setup_teardown(test, bare_setup, bare_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        SCENE(made_and_opened),     SCENE(not_what_it_should_be), SCENE(sockets_are_no_files),
        SCENE(another_users_file),  SCENE(leftovers_are_swept),   SCENE(first_users_at_once),
        SCENE(directory_is_chosen), SCENE(directory_is_prepared), SCENE(another_users_directory),
        SCENE(groups_directory),    SCENE(full_file_system),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
