/* The rows of the dead: LIVE, ORPHANED, DYING, FREE; told apart from the living, in other PID namespaces too. */
#include <errno.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "ledger/events.h"
#include "ledger/layout.h"
#include "ledger/snapshot.h"
#include "unit/scene.h"

enum { NOT_PERMITTED = 77 };

static enum ledger_row_state state_of(struct scene *scene, unsigned row)
{
    return tag_state(atomic_load(layout_tag(&scene->ledger, row)));
}

/* Holds 1 GiB until the second `go`; with a child that lives on, and never uses the ledger, until the third. */
static int holder_body(struct scene *scene, void *with_child)
{
    struct ledger_claim claim;
    REQUIRE(scene_claim(&scene->ledger, "holder", &claim) == 0);
    REQUIRE(charge_try(&scene->ledger, &claim, 0, GIB, 1) == LEDGER_FITS);
    if (with_child != NULL) {
        pid_t pid = fork();
        REQUIRE(pid >= 0);
        if (pid == 0) {
            board_await(&scene->board->go, 1);
            _exit(0);
        }
    }
    board_arrive(&scene->board->arrived);
    pause();
    return 0;
}

static void process_kill(pid_t pid)
{
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_true(WIFSIGNALED(scene_wait(pid)));
}

static void the_dead_come_free(void **state)
{
    struct scene *scene = *state;
    struct held held;
    pid_t pid = scene_fork(scene, NULL, holder_body, NULL);
    board_await(&scene->board->arrived, 1);
    assert_int_equal(ledger_reap(&scene->ledger), 0);
    assert_int_equal(state_of(scene, 0), LEDGER_ROW_LIVE);
    process_kill(pid);
    assert_int_equal(state_of(scene, 0), LEDGER_ROW_LIVE); /* until somebody looks */
    uint32_t before = clock_monotonic_ms();
    assert_int_equal(ledger_reap(&scene->ledger), 1);
    assert_int_equal(state_of(scene, 0), LEDGER_ROW_DYING);
    held_read(&scene->ledger, 0, &held);
    assert_int_equal(held.dead, GIB); /* the card may have them still */
    scene_settle(&scene->ledger);
    assert_true(clock_monotonic_ms() - before >= LEDGER_DYING_MS);
    assert_int_equal(state_of(scene, 0), LEDGER_ROW_FREE);
    held_read(&scene->ledger, 0, &held);
    assert_int_equal(held.committed + held.dead, 0);
}

/* Who makes the last move tells of it, once for each device where something was held; a row that is given back is no news. */
static void death_is_told(void **state)
{
    struct scene *scene = *state;
    struct ledger_event_record event;
    struct ledger_claim claim;
    pid_t pid = scene_fork(scene, NULL, holder_body, NULL);
    board_await(&scene->board->arrived, 1);
    process_kill(pid);
    assert_int_equal(ledger_reap(&scene->ledger), 1);
    assert_int_equal(ledger_event_count(&scene->ledger), 0); /* the card may hold it yet */
    scene_settle(&scene->ledger);
    assert_int_equal(ledger_reap(&scene->ledger), 0);
    assert_int_equal(ledger_event_count(&scene->ledger), 1);
    assert_true(ledger_event_read(&scene->ledger, 1, &event));
    assert_int_equal(event.kind, LEDGER_EVENT_REAP);
    assert_int_equal(event.pid, pid);
    assert_int_equal(event.row, 0);
    assert_int_equal(event.slot, ledger_slot_find(&scene->ledger, "holder"));
    assert_int_equal(event.device, 0);
    assert_int_equal(event.bytes, GIB);
    assert_int_equal(scene_claim(&scene->ledger, "alive", &claim), 0);
    assert_int_equal(charge_try(&scene->ledger, &claim, 0, GIB, 1), LEDGER_FITS);
    ledger_row_release(&scene->ledger, &claim);
    (void)ledger_reap(&scene->ledger);
    assert_int_equal(ledger_event_count(&scene->ledger), 1);
}

static void orphaned_while_a_child_lives(void **state)
{
    struct scene *scene = *state;
    struct held held;
    struct snapshot snapshot;
    pid_t pid = scene_fork(scene, NULL, holder_body, scene);
    board_await(&scene->board->arrived, 1);
    process_kill(pid);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(ledger_reap(&scene->ledger), 0);
        assert_int_equal(state_of(scene, 0), LEDGER_ROW_ORPHANED);
    }
    assert_int_equal(snapshot_take(&scene->ledger, &snapshot), 0);
    assert_int_equal(snapshot.devices[0].used_bytes, 0);
    assert_int_equal(snapshot.devices[0].dead_bytes, GIB);
    assert_int_equal(snapshot.devices[0].available_bytes, 7 * GIB);
    assert_int_equal(snapshot.processes[0].row_state, LEDGER_ROW_ORPHANED);
    snapshot_free(&snapshot);
    board_arrive(&scene->board->go);
    do {
        held_read(&scene->ledger, 0, &held);
        (void)sched_yield();
    } while (held.orphaned != 0 && ledger_reap(&scene->ledger) >= 0);
    scene_settle(&scene->ledger);
    held_read(&scene->ledger, 0, &held);
    assert_int_equal(held.dead, 0);
}

/* A state that is none, and a time in the future, end like any death. */
static void damaged_tags(void **state)
{
    struct scene *scene = *state;
    assert_true(ledger_slot_claim(&scene->ledger, "a") == 0);
    atomic_store(&layout_header(&scene->ledger)->rows_high, UINT32_MAX);
    atomic_store(layout_tag(&scene->ledger, 3), 0xFFFFFFFFFFFFFFFF);
    atomic_store(layout_tag(&scene->ledger, 1023), tag_make(LEDGER_ROW_DYING, 0, 0, clock_monotonic_ms() + 100000));
    assert_int_equal(ledger_reap(&scene->ledger), 1);
    assert_int_equal(state_of(scene, 3), LEDGER_ROW_DYING);
    assert_int_equal(state_of(scene, 1023), LEDGER_ROW_FREE);
    scene_settle(&scene->ledger);
    assert_int_equal(state_of(scene, 3), LEDGER_ROW_FREE);
}

/* Where the file is gone nobody can be asked, so nobody is declared dead; what is dying still comes free. */
static void file_gone(void **state)
{
    struct scene *scene = *state;
    struct ledger_claim claim;
    assert_int_equal(scene_claim(&scene->ledger, "a", &claim), 0);
    atomic_store(layout_tag(&scene->ledger, 5), tag_make(LEDGER_ROW_DYING, 0, 0, clock_monotonic_ms() - 1000));
    atomic_store(&layout_header(&scene->ledger)->rows_high, 6);
    assert_int_equal(unlink(scene_path(scene)), 0);
    errno = E2BIG;
    assert_int_equal(ledger_reap(&scene->ledger), -ESTALE);
    assert_int_equal(errno, E2BIG);
    assert_int_equal(state_of(scene, claim.row), LEDGER_ROW_LIVE);
    assert_int_equal(state_of(scene, 5), LEDGER_ROW_FREE);
    ledger_row_release(&scene->ledger, &claim);
}

/* In a PID namespace of its own every process is number 1: the living and the dead are told apart all the same. */
static int namespaced_body(struct scene *scene, void *unused)
{
    (void)unused;
    if (unshare(CLONE_NEWPID) != 0)
        return NOT_PERMITTED;
    pid_t pid = fork();
    if (pid < 0)
        return NOT_PERMITTED;
    if (pid == 0) {
        REQUIRE(getpid() == 1 && prctl(PR_SET_PDEATHSIG, SIGKILL) == 0);
        REQUIRE(scene_ledger(scene, &scene->ledger, 0) == 0); /* the mapping of our parent is not ours */
        (void)holder_body(scene, NULL);
    }
    int status;
    REQUIRE(waitpid(pid, &status, 0) == pid);
    return 0;
}

static void pid_namespaces(void **state)
{
    struct scene *scene = *state;
    struct ledger_claim claim;
    pid_t outer[2];
    struct held held;
    for (unsigned i = 0; i < 2; i++) {
        outer[i] = scene_fork(scene, NULL, namespaced_body, NULL);
        while (atomic_load(&scene->board->arrived) <= i) {
            siginfo_t end = {0};
            assert_int_equal(waitid(P_PID, (id_t)outer[i], &end, WEXITED | WNOHANG | WNOWAIT), 0);
            if (end.si_pid != 0) {
                assert_int_equal(end.si_status, NOT_PERMITTED);
                print_message("skipped: a PID namespace is not permitted here\n");
                (void)scene_wait(outer[i]);
                skip();
            }
            (void)sched_yield();
        }
    }
    assert_int_equal(scene_claim(&scene->ledger, "outside", &claim), 0);
    assert_int_equal(atomic_load(&layout_row(&scene->ledger, 0)->pid), 1);
    assert_int_equal(atomic_load(&layout_row(&scene->ledger, 1)->pid), 1);
    assert_int_equal(ledger_reap(&scene->ledger), 0);
    held_read(&scene->ledger, 0, &held);
    assert_int_equal(held.live, 3);
    assert_int_equal(held.committed, 2 * GIB);
    ledger_row_release(&scene->ledger, &claim);
    unsigned first = 0;                           /* outer[0] arrived before outer[1] began */
    assert_int_equal(kill(outer[0], SIGKILL), 0); /* and with it its namespace's only process */
    (void)scene_wait(outer[0]);
    while (state_of(scene, first) == LEDGER_ROW_LIVE && ledger_reap(&scene->ledger) >= 0)
        (void)sched_yield();
    scene_settle(&scene->ledger);
    assert_int_equal(state_of(scene, first), LEDGER_ROW_FREE);
    assert_int_equal(state_of(scene, 1 - first), LEDGER_ROW_LIVE);
    held_read(&scene->ledger, 0, &held);
    assert_int_equal(held.committed, GIB);
    assert_int_equal(kill(outer[1], SIGKILL), 0);
    (void)scene_wait(outer[1]);
}

#define SCENE(test) cmocka_unit_test_setup_teardown(test, scene_setup, scene_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        SCENE(the_dead_come_free), SCENE(death_is_told), SCENE(orphaned_while_a_child_lives),
        SCENE(damaged_tags),       SCENE(file_gone),     SCENE(pid_namespaces),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
