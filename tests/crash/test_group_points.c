/*
 * A member of a group stopped, or killed, while making the group's directory: the other members find none or a whole one, never one
 * that they may not enter. Needs root, to be several users.
 */
#include <errno.h>
#include <grp.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "unit/scene.h"

enum { GROUP = 61234, FIRST = 71234, SECOND = 71235 };

static const char *shared_path(const struct scene *scene)
{
    static char path[128];
    (void)snprintf(path, sizeof path, "%s/shared", scene->directory);
    return path;
}

/* Becomes a member of the group, and makes its directory. The body's context is the user. */
static int member_body(struct scene *scene, void *user)
{
    uid_t id = *(uid_t *)user;
    const gid_t groups[] = {GROUP};
    REQUIRE(setgroups(1, groups) == 0 && setresgid(id, id, id) == 0 && setresuid(id, id, id) == 0);
    REQUIRE(shm_group_directory_make(shared_path(scene), GROUP) == 0);
    return 0;
}

/* A directory that everybody may write to, without a ledger. */
static int root_setup(void **state)
{
    if (geteuid() != 0)
        return 0;
    struct scene *scene = calloc(1, sizeof *scene);
    scene_open(scene, 0);
    *state = scene;
    return chmod(scene->directory, 0777);
}

static int root_teardown(void **state)
{
    if (*state != NULL)
        scene_close(*state);
    free(*state);
    return 0;
}

static void require_groups(const struct scene *scene)
{
    struct stat status;
    assert_int_equal(lstat(shared_path(scene), &status), 0);
    assert_int_equal(status.st_mode & 07777, 02770);
    assert_int_equal(status.st_gid, GROUP);
}

static void maker_stopped(void **state)
{
    struct scene *scene = *state;
    uid_t first = FIRST, second = SECOND;
    if (scene == NULL)
        skip();
    pid_t pid = scene_fork(scene, "group.made:stop", member_body, &first);
    assert_true(scene_stopped(pid));
    scene_join(scene_fork(scene, NULL, member_body, &second)); /* makes it himself */
    require_groups(scene);
    assert_int_equal(kill(pid, SIGCONT), 0);
    scene_join(pid); /* finds that somebody was quicker, and his is good */
    require_groups(scene);
}

static void maker_killed(void **state)
{
    struct scene *scene = *state;
    uid_t first = FIRST, second = SECOND;
    if (scene == NULL)
        skip();
    int status = scene_wait(scene_fork(scene, "group.made:kill", member_body, &first));
    assert_true(WIFSIGNALED(status));
    scene_join(scene_fork(scene, NULL, member_body, &second));
    require_groups(scene);
}

#define ROOT(test) cmocka_unit_test_setup_teardown(test, root_setup, root_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {ROOT(maker_stopped), ROOT(maker_killed)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
