/* A ledger of a test's own and its processes; see scene.h. */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#include "ledger/layout.h"
#include "platform/futex.h"
#include "unit/scene.h"

enum { PATIENCE_S = 300 }; /* a test that hangs is ended by SIGALRM, which fails it */

_Noreturn void require_failed(const char *condition, const char *file, int line)
{
    dprintf(STDERR_FILENO, "%s:%d: process %d: %s does not hold\n", file, line, (int)getpid(), condition);
    _exit(SCENE_FAILED);
}

void scene_open(struct scene *scene, uint64_t budget_bytes)
{
    static const uint8_t uuid[LEDGER_UUID_BYTES] = "scene device 0";
    (void)alarm(PATIENCE_S);
    memset(scene, 0, sizeof *scene);
    snprintf(scene->directory, sizeof scene->directory, "/dev/shm/cubudget-test-XXXXXX");
    assert_non_null(mkdtemp(scene->directory));
    void *shared = mmap(NULL, sizeof *scene->board, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(shared != MAP_FAILED);
    scene->board = shared;
    scene->budget_bytes = budget_bytes;
    if (budget_bytes == 0)
        return;
    uint64_t shrunk_to;
    assert_int_equal(scene_ledger(scene, &scene->ledger, budget_bytes), 0);
    assert_int_equal(ledger_device_claim(&scene->ledger, uuid, "scene"), 0);
    assert_int_equal(
        ledger_device_settle(&scene->ledger, 0, budget_bytes + 4 * GIB, 512 * MIB, &shrunk_to, &scene->fault), 0);
}

static int entry_remove(const char *path, const struct stat *status, int kind, struct FTW *walk)
{
    (void)status;
    (void)kind;
    (void)walk;
    return remove(path);
}

void directory_remove(const char *path)
{
    (void)nftw(path, entry_remove, 8, FTW_DEPTH | FTW_PHYS);
}

void scene_close(struct scene *scene)
{
    if (scene->ledger.file.bytes != NULL)
        ledger_close(&scene->ledger);
    directory_remove(scene->directory);
    (void)munmap(scene->board, sizeof *scene->board);
    (void)alarm(0);
}

int scene_setup(void **state)
{
    struct scene *scene = calloc(1, sizeof *scene);
    scene_open(scene, 8 * GIB);
    *state = scene;
    return 0;
}

int scene_teardown(void **state)
{
    scene_close(*state);
    free(*state);
    return 0;
}

int scene_ledger(struct scene *scene, struct ledger *ledger, uint64_t budget_bytes)
{
    struct ledger_request request = {
        .directory = scene->directory,
        .name = "default",
        .create = budget_bytes != 0,
        .has_budget = budget_bytes != 0,
        .budget_bytes = budget_bytes,
    };
    return ledger_open(ledger, &request, &scene->fault);
}

const char *scene_path(const struct scene *scene)
{
    static char path[128];
    snprintf(path, sizeof path, "%s/default.ledger", scene->directory);
    return path;
}

pid_t scene_fork(struct scene *scene, const char *testpoint, scene_body *body, void *context)
{
    pid_t parent = getpid();
    pid_t pid = fork();
    if (pid != 0) {
        assert_true(pid > 0);
        return pid;
    }
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(SCENE_FAILED);
    if (testpoint != NULL)
        REQUIRE(setenv("CUBUDGET_TESTPOINT", testpoint, 1) == 0);
    if (scene->ledger.file.bytes != NULL) /* the parent's mapping is not ours: MADV_DONTFORK */
        REQUIRE(scene_ledger(scene, &scene->ledger, 0) == 0);
    _exit(body(scene, context));
}

int scene_wait(pid_t pid)
{
    int status;
    while (waitpid(pid, &status, 0) < 0)
        assert_int_equal(errno, EINTR);
    return status;
}

void scene_join(pid_t pid)
{
    assert_int_equal(scene_wait(pid), 0);
}

bool scene_stopped(pid_t pid)
{
    siginfo_t end = {0};
    while (waitid(P_PID, (id_t)pid, &end, WSTOPPED | WEXITED | WNOWAIT) != 0)
        assert_int_equal(errno, EINTR);
    return end.si_code == CLD_STOPPED;
}

void board_arrive(_Atomic(uint32_t) *word)
{
    atomic_fetch_add(word, 1);
    futex_wake_all(word);
}

void board_await(_Atomic(uint32_t) *word, uint32_t count)
{
    uint32_t seen;
    while ((seen = atomic_load(word)) < count)
        (void)futex_wait(word, seen, UINT32_MAX);
}

void board_meet(_Atomic(uint32_t) *word, uint32_t count, uint32_t round)
{
    board_arrive(word);
    board_await(word, count * round);
}

int scene_claim(struct ledger *ledger, const char *slot, struct ledger_claim *claim)
{
    int index = ledger_slot_claim(ledger, slot);
    return index < 0 ? index : ledger_row_claim(ledger, (unsigned)index, "scene", claim);
}

struct ledger_bid bid_of(const struct ledger_claim *claim, unsigned device, uint64_t bytes)
{
    return (struct ledger_bid){
        .device = device, .row = claim->row, .slot = claim->slot, .bytes = bytes, .ticket = LEDGER_NO_TICKET};
}

enum ledger_verdict charge_try(struct ledger *ledger, const struct ledger_claim *claim, unsigned device, uint64_t bytes,
                               unsigned looks)
{
    struct ledger_bid bid = bid_of(claim, device, bytes);
    enum ledger_verdict verdict = LEDGER_CONTENDED;
    for (unsigned i = 0; i < looks && verdict == LEDGER_CONTENDED; i++)
        verdict = ledger_bid_look(ledger, &bid, NULL);
    ledger_bid_withdraw(ledger, &bid);
    return verdict;
}

uint32_t random_next(uint32_t *state)
{
    uint32_t x = *state;
    x ^= x << 13;
    x ^= x >> 17;
    x ^= x << 5;
    return *state = x;
}

void held_read(const struct ledger *ledger, unsigned device, struct held *held)
{
    *held = (struct held){0};
    for (unsigned row = 0; row < LEDGER_ROWS; row++) {
        const struct ledger_cell *cell = layout_cell(ledger, device, row);
        enum ledger_row_state state = tag_state(atomic_load(layout_tag(ledger, row)));
        held->live += state == LEDGER_ROW_LIVE;
        held->orphaned += state == LEDGER_ROW_ORPHANED;
        held->dying += state == LEDGER_ROW_DYING;
        if (state == LEDGER_ROW_LIVE) {
            held->committed += atomic_load(&cell->committed_bytes);
            held->in_flight += atomic_load(&cell->in_flight_bytes);
            held->bids += atomic_load(&cell->bid_bytes);
        } else if (state != LEDGER_ROW_FREE) {
            held->dead += atomic_load(&cell->committed_bytes);
        }
    }
}

void scene_settle(struct ledger *ledger)
{
    while (ledger_reap(ledger) > 0)
        (void)nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
}
