/* Opening a ledger: the budget that is there, and everything that a file under its name can be but a ledger. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "ledger/layout.h"
#include "unit/scene.h"

/* Refused with that error and one line that holds each of the words. */
static void open_refuse(struct scene *scene, int result, const char *word, const char *other)
{
    struct ledger ledger;
    struct ledger_request request = {
        .directory = scene->directory, .name = "default", .create = true, .budget_bytes = 8 * GIB};
    int got = ledger_open(&ledger, &request, &scene->fault);
    if (got != result)
        fail_msg("%d instead of %d: %s", got, result, scene->fault.text);
    assert_null(ledger.file.bytes);
    assert_null(strchr(scene->fault.text, '\n'));
    if (strstr(scene->fault.text, word) == NULL || strstr(scene->fault.text, other) == NULL)
        fail_msg("'%s' does not name '%s' and '%s'", scene->fault.text, word, other);
}

static void budget_belongs_to_the_ledger(void **state)
{
    struct scene *scene = *state;
    struct ledger ledger;
    assert_int_equal(scene_ledger(scene, &ledger, 8 * GIB), 0); /* the same is no conflict */
    assert_string_equal(scene->fault.text, "");
    ledger_close(&ledger);
    assert_int_equal(scene_ledger(scene, &ledger, 0), 0); /* nor is none */
    assert_int_equal(layout_budget(&ledger, 0), 8 * GIB);
    ledger_close(&ledger);
    assert_int_equal(scene_ledger(scene, &ledger, 4 * GIB), -EEXIST);
    assert_non_null(strstr(scene->fault.text, "8 GiB"));
    assert_non_null(strstr(scene->fault.text, "4 GiB"));
    assert_int_equal(scene_ledger(scene, &ledger, 8 * GIB + 1), -EEXIST); /* told apart to the byte */
    assert_non_null(strstr(scene->fault.text, "8589934592 B"));
    assert_non_null(strstr(scene->fault.text, "8589934593 B"));
}

static void missing(void **state)
{
    struct scene *scene = *state;
    struct ledger ledger;
    char path[128];
    snprintf(path, sizeof path, "%s/none", scene->directory);
    struct ledger_request request = {.directory = path, .name = "default"};
    assert_int_equal(ledger_open(&ledger, &request, &scene->fault), -ENOENT);
    assert_int_equal(access(path, F_OK), -1); /* looking makes nothing */
    request.directory = scene->directory;
    request.name = "other";
    assert_int_equal(ledger_open(&ledger, &request, &scene->fault), -ENOENT);
    assert_non_null(strstr(scene->fault.text, "'other'"));
    request = (struct ledger_request){.directory = path, .name = "x", .create = true, .budget_bytes = GIB};
    assert_int_equal(ledger_open(&ledger, &request, &scene->fault), 0);
    assert_string_equal(layout_header(&ledger)->name, "x");
    assert_int_equal(atomic_load(&layout_header(&ledger)->budget_explicit), 0);
    ledger_close(&ledger);
}

static void fixed_fields(void **state)
{
    struct scene *scene = *state;
    struct ledger_header *header = layout_header(&scene->ledger), good = *header;
    header->abi_version = 7;
    open_refuse(scene, -EPROTO, "version 7", "gc");
    *header = good;
    header->magic[0] = 'C';
    open_refuse(scene, -EPROTO, "not a ledger", "gc");
    *header = good;
    header->word_bytes = 4;
    open_refuse(scene, -EPROTO, "4 bytes", "gc");
    *header = good;
    header->byte_order = 0x04030201;
    open_refuse(scene, -EPROTO, "byte order", "gc");
    *header = good;
    header->rows = 512;
    open_refuse(scene, -EPROTO, "damaged", "512 rows");
    *header = good;
    atomic_store(&header->budget_bytes, 0);
    open_refuse(scene, -EPROTO, "damaged", "budget of 0");
    atomic_store(&header->budget_bytes, 1ULL << 63);
    open_refuse(scene, -EPROTO, "damaged", "9223372036854775808");
    *header = good;
    struct ledger ledger;
    assert_int_equal(scene_ledger(scene, &ledger, 0), 0);
    ledger_close(&ledger);
}

static void file_is_no_ledger(void **state)
{
    struct scene *scene = *state;
    const char *path = scene_path(scene);
    uint32_t random = 12345;
    uint8_t *bytes = scene->ledger.file.bytes;
    for (size_t i = 0; i < LEDGER_FILE_BYTES; i++)
        bytes[i] = (uint8_t)random_next(&random);
    open_refuse(scene, -EPROTO, "not a ledger", path);
    assert_int_equal(truncate(path, 100), 0);
    open_refuse(scene, -EFBIG, path, "gc");
    assert_int_equal(truncate(path, 0), 0);
    open_refuse(scene, -EFBIG, path, "gc");
    ledger_close(&scene->ledger);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(mkdir(path, 0700), 0);
    open_refuse(scene, -EISDIR, path, "directory");
    assert_int_equal(rmdir(path), 0);
    assert_int_equal(symlink("/etc/passwd", path), 0);
    open_refuse(scene, -ELOOP, path, "symbolic link");
    assert_int_equal(unlink(path), 0);
    assert_int_equal(mkfifo(path, 0600), 0);
    open_refuse(scene, -ENODEV, path, "not a regular file");
}

static void another_users(void **state)
{
    struct scene *scene = *state;
    if (chown(scene_path(scene), 65534, 65534) != 0) {
        print_message("skipped: only root can give a file away\n");
        skip();
    }
    open_refuse(scene, -EPERM, scene_path(scene), "another user");
    assert_int_equal(ledger_remove(scene->directory, "default", &scene->fault), -EPERM);
    assert_int_equal(access(scene_path(scene), F_OK), 0);
    assert_int_equal(chown(scene->directory, 65534, 65534), 0);
    open_refuse(scene, -EPERM, scene->directory, "CUBUDGET_DIR");
}

static void removing(void **state)
{
    struct scene *scene = *state;
    struct ledger_claim claim;
    assert_int_equal(scene_claim(&scene->ledger, "a", &claim), 0);
    assert_int_equal(ledger_remove(scene->directory, "default", &scene->fault), -EBUSY);
    assert_non_null(strstr(scene->fault.text, "in use"));
    assert_int_equal(ledger_is_current(&scene->ledger), 1);
    ledger_row_release(&scene->ledger, &claim);
    assert_int_equal(truncate(scene_path(scene), 10), 0); /* cut off: what gc is most wanted for */
    assert_int_equal(ledger_remove(scene->directory, "default", &scene->fault), 0);
    assert_int_equal(ledger_is_current(&scene->ledger), 0);
    assert_int_equal(ledger_remove(scene->directory, "default", &scene->fault), -ENOENT);
    assert_int_equal(symlink("elsewhere", scene_path(scene)), 0);
    assert_int_equal(ledger_remove(scene->directory, "default", &scene->fault), -ELOOP);
}

static void names_too_long(void **state)
{
    struct scene *scene = *state;
    struct ledger ledger;
    static char very_long[PATH_MAX + 10];
    memset(very_long, 'x', sizeof very_long - 1);
    very_long[0] = '/';
    struct ledger_request request = {.directory = very_long, .name = "a", .create = true, .budget_bytes = GIB};
    assert_int_equal(ledger_open(&ledger, &request, &scene->fault), -ENAMETOOLONG);
    assert_string_not_equal(scene->fault.text, "");
}

enum { TRIES = 2000, USERS = 2 };

/* Two first users with different budgets at the same moment: one ledger, and the loser is told. */
static int first_users_race(struct scene *scene, void *context)
{
    unsigned mine = *(unsigned *)context;
    struct board *board = scene->board;
    for (uint32_t try = 1; try <= TRIES; try++) {
        struct ledger ledger;
        board_meet(&board->arrived, USERS, try);
        int result = scene_ledger(scene, &ledger, (mine + 1) * GIB);
        REQUIRE(result == 0 || result == -EEXIST);
        atomic_fetch_add(&board->figures[0], result == 0);
        board_meet(&board->done, USERS, try);
        REQUIRE(atomic_load(&board->figures[0]) == try); /* one ledger has one budget, so one of the two got it */
        if (result == 0) {
            REQUIRE(ledger_is_current(&ledger) == 1);
            REQUIRE(unlink(scene_path(scene)) == 0);
            ledger_close(&ledger);
        }
        board_meet(&board->go, USERS, try);
    }
    return 0;
}

static void first_users_at_once(void **state)
{
    struct scene *scene = *state;
    unsigned numbers[USERS] = {0, 1};
    pid_t pids[USERS];
    ledger_close(&scene->ledger);
    assert_int_equal(unlink(scene_path(scene)), 0);
    for (unsigned i = 0; i < USERS; i++)
        pids[i] = scene_fork(scene, NULL, first_users_race, &numbers[i]);
    for (unsigned i = 0; i < USERS; i++)
        scene_join(pids[i]);
}

#define SCENE(test) cmocka_unit_test_setup_teardown(test, scene_setup, scene_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        SCENE(budget_belongs_to_the_ledger),
        SCENE(missing),
        SCENE(fixed_fields),
        SCENE(file_is_no_ledger),
        SCENE(another_users),
        SCENE(removing),
        SCENE(names_too_long),
        SCENE(first_users_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
