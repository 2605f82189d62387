/* The ring of events: what is read is what was added, whole, in order, or not at all; who sleeps is woken. */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "ledger/events.h"
#include "ledger/layout.h"
#include "unit/scene.h"

static struct ledger_event_entry *entry_of(const struct ledger *ledger, uint64_t number)
{
    return (struct ledger_event_entry *)layout_at(ledger, LEDGER_OFFSET_EVENTS) + number % LEDGER_EVENTS;
}

/* An event whose every field follows from one number, so that a mixture of two is seen. */
static struct ledger_event_record event_of(uint64_t salt)
{
    return (struct ledger_event_record){.kind = LEDGER_EVENT_WAIT,
                                        .bytes = salt,
                                        .duration_ns = salt ^ 0x5555,
                                        .row = (int)(salt % LEDGER_ROWS),
                                        .other = (int)((salt + 1) % LEDGER_ROWS),
                                        .slot = (int)(salt % LEDGER_SLOTS),
                                        .device = (int)(salt % LEDGER_DEVICES),
                                        .why = (enum ledger_why)(salt % LEDGER_WHYS)};
}

static bool event_is_whole(const struct ledger_event_record *event)
{
    struct ledger_event_record wanted = event_of(event->bytes);
    return event->kind == wanted.kind && event->duration_ns == wanted.duration_ns && event->row == wanted.row &&
           event->other == wanted.other && event->slot == wanted.slot && event->device == wanted.device &&
           event->why == wanted.why && event->time_ns != 0;
}

static void added_is_read(void **state)
{
    struct scene *scene = *state;
    struct ledger *ledger = &scene->ledger;
    struct ledger_claim claim;
    struct ledger_event_record event = {.kind = LEDGER_EVENT_REFUSE,
                                        .row = 0,
                                        .slot = -1,
                                        .device = 0,
                                        .other = -1,
                                        .bytes = 3 * GIB,
                                        .duration_ns = 17,
                                        .why = LEDGER_WHY_WAITED},
                               read = {0};
    assert_int_equal(scene_claim(ledger, "other", &claim), 0);
    ledger_row_release(ledger, &claim);
    assert_int_equal(scene_claim(ledger, "mine", &claim), 0);
    assert_int_equal(claim.row, 0);
    assert_int_equal(ledger_event_count(ledger), 0);
    assert_false(ledger_event_read(ledger, 1, &read));
    errno = EDOM;
    ledger_event_add(ledger, &event);
    assert_int_equal(errno, EDOM);
    assert_int_equal(event.number, 1);
    assert_int_equal(ledger_event_count(ledger), 1);
    assert_true(ledger_event_read(ledger, 1, &read));
    assert_int_equal(read.number, 1);
    assert_int_equal(read.kind, LEDGER_EVENT_REFUSE);
    assert_int_equal(read.pid, getpid());
    assert_int_equal(read.row, 0);
    assert_int_equal(read.slot, claim.slot); /* of the row */
    assert_int_equal(read.device, 0);
    assert_int_equal(read.other, -1);
    assert_int_equal(read.bytes, 3 * GIB);
    assert_int_equal(read.duration_ns, 17);
    assert_int_equal(read.why, LEDGER_WHY_WAITED);
    assert_false(ledger_event_read(ledger, 0, &read));
    assert_false(ledger_event_read(ledger, 2, &read));
    ledger_row_release(ledger, &claim);
}

/* What has no row, slot or device says so; and numbers beyond the layout are none. */
static void nothing_is_nothing(void **state)
{
    struct scene *scene = *state;
    struct ledger_event_record event = {.kind = LEDGER_EVENT_PRESSURE,
                                        .row = -1,
                                        .slot = LEDGER_SLOTS,
                                        .device = LEDGER_DEVICES,
                                        .other = 3,
                                        .why = LEDGER_WHY_NONE},
                               read = {0};
    ledger_event_add(&scene->ledger, &event);
    assert_true(ledger_event_read(&scene->ledger, 1, &read));
    assert_int_equal(read.row, -1);
    assert_int_equal(read.slot, -1);
    assert_int_equal(read.device, -1);
    assert_int_equal(read.other, 3); /* a level */
    assert_int_equal(read.pid, 0);
}

/* The ring holds the last LEDGER_EVENTS. */
static void ring_wraps(void **state)
{
    struct scene *scene = *state;
    struct ledger_event_record read;
    enum { MORE = 1000 };
    for (uint64_t i = 1; i <= LEDGER_EVENTS + MORE; i++) {
        struct ledger_event_record event = event_of(i);
        ledger_event_add(&scene->ledger, &event);
    }
    assert_int_equal(ledger_event_count(&scene->ledger), LEDGER_EVENTS + MORE);
    for (uint64_t i = 1; i <= MORE; i++)
        assert_false(ledger_event_read(&scene->ledger, i, &read));
    for (uint64_t i = MORE + 1; i <= LEDGER_EVENTS + MORE; i++) {
        assert_true(ledger_event_read(&scene->ledger, i, &read));
        assert_int_equal(read.bytes, i);
        assert_true(event_is_whole(&read));
    }
}

/* An entry over which another was half written, or whose fields are not what was checked, is skipped; its neighbours are not. */
static void torn_is_skipped(void **state)
{
    struct scene *scene = *state;
    struct ledger *ledger = &scene->ledger;
    struct ledger_event_record read;
    for (uint64_t i = 1; i <= 5; i++) {
        struct ledger_event_record event = event_of(i);
        ledger_event_add(ledger, &event);
    }
    entry_of(ledger, 2)->bytes++;                  /* half of another */
    atomic_store(&entry_of(ledger, 3)->number, 0); /* being written */
    struct ledger_event_entry moved = {0};
    memcpy((char *)&moved + 8, (char *)entry_of(ledger, 5) + 8,
           sizeof moved - 8); /* another's, whole, with this number */
    memcpy((char *)entry_of(ledger, 4) + 8, (char *)&moved + 8, sizeof moved - 8);
    assert_true(ledger_event_read(ledger, 1, &read));
    assert_false(ledger_event_read(ledger, 2, &read));
    assert_false(ledger_event_read(ledger, 3, &read));
    assert_false(ledger_event_read(ledger, 4, &read));
    assert_true(ledger_event_read(ledger, 5, &read));
}

/* Whatever lies in the ring, nothing is read that could not have been added. */
static void garbage_is_skipped(void **state)
{
    struct scene *scene = *state;
    struct ledger_event_record read;
    uint32_t random = 4711;
    uint64_t *words = layout_at(&scene->ledger, LEDGER_OFFSET_EVENTS);
    for (size_t i = 0; i < 64 / 8 * LEDGER_EVENTS; i++)
        words[i] = (uint64_t)random_next(&random) << 32 | random_next(&random);
    for (uint64_t i = 1; i <= LEDGER_EVENTS; i++) {
        atomic_store(&entry_of(&scene->ledger, i)->number, i);
        assert_false(ledger_event_read(&scene->ledger, i, &read));
    }
}

enum { WRITERS = 2, EACH = 200000 };

static int writer_body(struct scene *scene, void *context)
{
    uint64_t salt = *(uint64_t *)context;
    board_meet(&scene->board->arrived, WRITERS, 1);
    for (uint64_t i = 0; i < EACH; i++) {
        struct ledger_event_record event = event_of(salt + i);
        ledger_event_add(&scene->ledger, &event);
    }
    board_arrive(&scene->board->done);
    return 0;
}

/* Two who write as fast as they can, several times around, and one who reads meanwhile: all he reads is whole, and what each wrote comes
 * in the order in which it wrote it. */
static void writers_at_once(void **state)
{
    struct scene *scene = *state;
    uint64_t salts[WRITERS] = {1, 1ULL << 32}, last[WRITERS] = {0}, total = 0, next = 1;
    struct ledger_event_record read;
    pid_t pids[WRITERS];
    for (unsigned i = 0; i < WRITERS; i++)
        pids[i] = scene_fork(scene, NULL, writer_body, &salts[i]);
    while (atomic_load(&scene->board->done) < WRITERS || next <= ledger_event_count(&scene->ledger)) {
        uint64_t count = ledger_event_count(&scene->ledger);
        if (count >= LEDGER_EVENTS && next <= count - LEDGER_EVENTS)
            next = count - LEDGER_EVENTS + 1;
        for (; next <= count; next++) {
            if (!ledger_event_read(&scene->ledger, next, &read))
                continue;
            assert_true(event_is_whole(&read));
            unsigned who = read.bytes >= salts[1];
            assert_true(read.bytes > last[who]);
            last[who] = read.bytes;
            total++;
        }
    }
    for (unsigned i = 0; i < WRITERS; i++)
        scene_join(pids[i]);
    assert_int_equal(ledger_event_count(&scene->ledger), WRITERS * EACH);
    assert_true(total > 0);
    for (uint64_t number = WRITERS * EACH - LEDGER_EVENTS + 1; number <= WRITERS * EACH; number++)
        assert_true(ledger_event_read(&scene->ledger, number, &read)); /* at rest all of them are whole */
}

static int one_body(struct scene *scene, void *unused)
{
    struct ledger_event_record event = event_of(99);
    (void)unused;
    ledger_event_add(&scene->ledger, &event);
    return 0;
}

/* A writer that is killed costs the one event, and one that is stopped does until it goes on. */
static void writer_killed_and_stopped(void **state)
{
    struct scene *scene = *state;
    struct ledger *ledger = &scene->ledger;
    struct ledger_event_record read, event = event_of(1);
    int status = scene_wait(scene_fork(scene, "event.written:kill", one_body, NULL));
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    pid_t stopped = scene_fork(scene, "event.written:stop", one_body, NULL);
    assert_true(scene_stopped(stopped));
    ledger_event_add(ledger, &event);
    assert_int_equal(event.number, 3);
    assert_false(ledger_event_read(ledger, 1, &read));
    assert_false(ledger_event_read(ledger, 2, &read));
    assert_true(ledger_event_read(ledger, 3, &read));
    assert_int_equal(kill(stopped, SIGCONT), 0);
    scene_join(stopped);
    assert_true(ledger_event_read(ledger, 2, &read));
    assert_int_equal(read.bytes, 99);
    assert_false(ledger_event_read(ledger, 1, &read));
}

/* Stopped before its last store, while others write once around, its entry is theirs: neither is taken for the other. */
static void writer_overtaken(void **state)
{
    struct scene *scene = *state;
    struct ledger_event_record read;
    pid_t stopped = scene_fork(scene, "event.written:stop", one_body, NULL);
    assert_true(scene_stopped(stopped));
    for (uint64_t i = 2; i <= LEDGER_EVENTS + 1; i++) {
        struct ledger_event_record event = event_of(i);
        ledger_event_add(&scene->ledger, &event);
    }
    assert_true(ledger_event_read(&scene->ledger, LEDGER_EVENTS + 1, &read));
    assert_int_equal(kill(stopped, SIGCONT), 0);
    scene_join(stopped);
    assert_false(ledger_event_read(&scene->ledger, 1, &read));
    assert_false(ledger_event_read(&scene->ledger, LEDGER_EVENTS + 1, &read)); /* its number was written over */
}

enum { ROUNDS = 300 };

static int sleeper_body(struct scene *scene, void *unused)
{
    (void)unused;
    for (uint64_t seen = 0; seen < ROUNDS; seen++) {
        board_arrive(&scene->board->arrived);
        while (ledger_event_count(&scene->ledger) == seen)
            ledger_events_sleep(&scene->ledger, seen, UINT32_MAX);
    }
    return 0;
}

/* Who sleeps is woken by each event, without a timeout of its own; the test would end by its alarm else. */
static void sleep_wakes(void **state)
{
    struct scene *scene = *state;
    pid_t sleeper = scene_fork(scene, NULL, sleeper_body, NULL);
    for (uint32_t round = 1; round <= ROUNDS; round++) {
        struct ledger_event_record event = event_of(round);
        board_await(&scene->board->arrived, round);
        ledger_event_add(&scene->ledger, &event);
    }
    scene_join(sleeper);
}

static int follower_body(struct scene *scene, void *unused)
{
    struct ledger_follow follow;
    uint64_t seen = 0;
    uint32_t generation = ledger_pressure_read(&scene->ledger, 0).generation;
    (void)unused;
    for (unsigned round = 0; round < ROUNDS; round++) {
        board_arrive(&scene->board->arrived);
        for (;;) {
            ledger_follow_look(&scene->ledger, &follow);
            uint64_t count = ledger_event_count(&scene->ledger);
            uint32_t now = ledger_pressure_read(&scene->ledger, 0).generation;
            if (count != seen || now != generation) {
                REQUIRE((count == seen + 1) != (now == generation + 1));
                seen = count;
                generation = now;
                break;
            }
            (void)ledger_follow_sleep(&scene->ledger, &follow, UINT32_MAX);
        }
    }
    return 0;
}

/* Who follows events and pressure is woken by either. */
static void follower_is_told_of_both(void **state)
{
    struct scene *scene = *state;
    struct ledger *ledger = &scene->ledger;
    struct ledger_watch watch;
    struct ledger_claim claim;
    assert_int_equal(scene_claim(ledger, "a", &claim), 0);
    assert_int_equal(ledger_watch_begin(ledger, 0, &watch), 0);
    pid_t follower = scene_fork(scene, NULL, follower_body, NULL);
    for (uint32_t round = 1; round <= ROUNDS; round++) {
        struct ledger_event_record event = event_of(round);
        board_await(&scene->board->arrived, round);
        if (round % 2 == 0)
            ledger_event_add(ledger, &event);
        else if (round % 4 == 1)
            ledger_commit_unasked(ledger, claim.row, 0, 7 * GIB);
        else
            ledger_credit(ledger, claim.row, 0, 7 * GIB);
    }
    scene_join(follower);
    ledger_watch_end(ledger, &watch);
    ledger_row_release(ledger, &claim);
}

/* What happens between the look and the sleep ends the sleep at once; the test would end by its alarm else. */
static void nothing_is_lost_before_the_sleep(void **state)
{
    struct scene *scene = *state;
    struct ledger_follow follow;
    struct ledger_watch watch;
    struct ledger_claim claim;
    struct ledger_event_record event = event_of(1);
    assert_int_equal(scene_claim(&scene->ledger, "a", &claim), 0);
    assert_int_equal(ledger_watch_begin(&scene->ledger, 0, &watch), 0);
    ledger_follow_look(&scene->ledger, &follow);
    assert_int_equal(ledger_follow_sleep(&scene->ledger, &follow, 1), -ETIMEDOUT);
    ledger_event_add(&scene->ledger, &event);
    assert_int_equal(ledger_follow_sleep(&scene->ledger, &follow, UINT32_MAX), 0);
    ledger_follow_look(&scene->ledger, &follow);
    ledger_commit_unasked(&scene->ledger, claim.row, 0, 7 * GIB);
    assert_int_equal(ledger_follow_sleep(&scene->ledger, &follow, UINT32_MAX), 0);
    ledger_watch_end(&scene->ledger, &watch);
    ledger_row_release(&scene->ledger, &claim);
}

#define SCENE(test) cmocka_unit_test_setup_teardown(test, scene_setup, scene_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        SCENE(added_is_read),
        SCENE(nothing_is_nothing),
        SCENE(ring_wraps),
        SCENE(torn_is_skipped),
        SCENE(garbage_is_skipped),
        SCENE(writers_at_once),
        SCENE(writer_killed_and_stopped),
        SCENE(writer_overtaken),
        SCENE(sleep_wakes),
        SCENE(nothing_is_lost_before_the_sleep),
        SCENE(follower_is_told_of_both),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
