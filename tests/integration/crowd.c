/* The crowd of the trial of random kills; crowd.h has what it is for. */
#include "integration/crowd.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#include "ledger/process.h"

/* The card is a context larger than the budget, so that the bytes of one who died can still be there when the books have them back. */
#define MACHINE_OPTIONS "memory=896MiB,context=64MiB,lock=1ms,checkpoint=15ms,restore=10ms"

enum { LOOK_LATE_MS = 500 }; /* this process itself did not run: nobody is blamed for that time */

uint64_t crowd_now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

const char *crowd_doing_name(enum crowd_doing doing)
{
    static const char *const names[DOINGS] = {
        [DOING_STARTING] = "starting", [DOING_RUNNING] = "running",     [DOING_ALLOCATING] = "allocating",
        [DOING_ASKED] = "asked",       [DOING_EVICTING] = "evicting",   [DOING_EVICTED] = "evicted",
        [DOING_WANTING] = "wanting",   [DOING_RESTORING] = "restoring", [DOING_LOST] = "lost",
    };
    return names[doing];
}

void crowd_open(struct crowd *crowd, struct stage *stage)
{
    memset(crowd, 0, sizeof(*crowd));
    crowd->stage = stage;
    snprintf(crowd->board_path, sizeof(crowd->board_path), "%s/board", stage->directory);
    snprintf(crowd->errors_path, sizeof(crowd->errors_path), "%s/errors", stage->directory);
    int descriptor = open(crowd->board_path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    assert_true(descriptor >= 0);
    assert_int_equal(ftruncate(descriptor, sizeof(*crowd->board)), 0);
    crowd->board = mmap(NULL, sizeof(*crowd->board), PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
    assert_ptr_not_equal(crowd->board, MAP_FAILED);
    close(descriptor);
}

void crowd_close(struct crowd *crowd)
{
    for (unsigned place = 0; place < CROWD_MEMBERS; place++)
        if (crowd->members[place].pid > 0) {
            kill(crowd->members[place].pid, SIGKILL);
            waitpid(crowd->members[place].pid, NULL, 0);
        }
    if (crowd->board)
        munmap(crowd->board, sizeof(*crowd->board));
}

static _Noreturn void member_become(const struct crowd *crowd, unsigned place, uint64_t seed)
{
    const char *build = getenv("abs_top_builddir");
    char library[512], simulator[512], program[512], slot[32], words[3][160];
    int errors = open(crowd->errors_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    dup2(errors, STDERR_FILENO);
    dup2(errors, STDOUT_FILENO);
    snprintf(library, sizeof(library), "%s/.libs/libcubudget.so", build);
    snprintf(simulator, sizeof(simulator), "%s/src/sim/.libs", build);
    snprintf(program, sizeof(program), "%s/tests/integration/runner", build);
    snprintf(slot, sizeof(slot), "chaos%u", place);
    snprintf(words[0], sizeof(words[0]), "seed=%llu", (unsigned long long)seed);
    snprintf(words[1], sizeof(words[1]), "bytes=%u", 48 + 112 * place / (CROWD_MEMBERS - 1) / 16 * 16);
    snprintf(words[2], sizeof(words[2]), "place=%u", place);
    char board[160], name[64];
    snprintf(board, sizeof(board), "board=%s", crowd->board_path);
    snprintf(name, sizeof(name), "name=%s", slot);
    setenv("CUBUDGET_DIR", crowd->stage->directory, 1);
    setenv("CUBUDGET_SLOT", slot, 1);
    setenv("CUBUDGET_BUDGET", "832MiB", 1);
    setenv("CUBUDGET_SIMULATE", MACHINE_OPTIONS, 1);
    setenv("CUBUDGET_WAIT", "30s", 1);         /* nobody is to come near it */
    setenv("CUBUDGET_HOST_LIMIT", "64GiB", 1); /* the simulator's images take next to nothing */
    setenv("ASAN_OPTIONS", "verify_asan_link_order=0:detect_leaks=0", 1);
    setenv("LD_LIBRARY_PATH", simulator, 1);
    setenv("LD_PRELOAD", library, 1);
    execl(program, program, words[0], words[1], words[2], board, name, "rounds=0", "idle=10", "rest=800", "scratch=16",
          (char *)NULL);
    _exit(127);
}

void member_start(struct crowd *crowd, unsigned place, uint64_t seed)
{
    struct member *member = &crowd->members[place];
    struct runner_place *told = &crowd->board->places[place];
    assert_int_equal(member->pid, 0);
    told->order = RUNNER_GO;
    told->state = RUNNER_STARTING;
    told->pid = 0;
    told->steps = told->rounds = 0;
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0)
        member_become(crowd, place, seed);
    *member = (struct member){.pid = child, .moved_ms = crowd_now_ms(), .born = member->born + 1};
}

static struct ledger_row *row_at(const struct ledger *ledger, unsigned row)
{
    return (struct ledger_row *)((char *)ledger->file.bytes + LEDGER_OFFSET_ROWS) + row;
}

/* The row of a process, alive or dead and not yet claimed again; -1: none. Each runner has one. */
static int row_of(const struct ledger *ledger, pid_t pid)
{
    for (unsigned row = 0; row < LEDGER_ROWS; row++)
        if (row_at(ledger, row)->pid == (uint32_t)pid)
            return (int)row;
    return -1;
}

static bool ledger_is_there(struct crowd *crowd)
{
    char path[128];
    snprintf(path, sizeof(path), "%s/default.ledger", crowd->stage->directory);
    return access(path, F_OK) == 0;
}

enum crowd_doing member_doing(struct crowd *crowd, unsigned place)
{
    if (!ledger_is_there(crowd))
        return DOING_STARTING;
    struct ledger *ledger = stage_ledger(crowd->stage);
    int row = row_of(ledger, crowd->members[place].pid);
    if (row < 0)
        return DOING_STARTING;
    uint32_t word = row_at(ledger, (unsigned)row)->process_state;
    bool allocating = row_at(ledger, (unsigned)row)->waiting == LEDGER_WAITING_ALLOCATION &&
                      row_at(ledger, (unsigned)row)->wait_ticket != 0;
    switch (process_word_state(word)) {
    case LEDGER_PROCESS_RUNNING:
        return allocating ? DOING_ALLOCATING : DOING_RUNNING;
    case LEDGER_PROCESS_ASKED:
        return DOING_ASKED;
    case LEDGER_PROCESS_EVICTING:
        return DOING_EVICTING;
    case LEDGER_PROCESS_EVICTED:
        return process_word_wants(word) ? DOING_WANTING : DOING_EVICTED;
    case LEDGER_PROCESS_RESTORING:
        return DOING_RESTORING;
    case LEDGER_PROCESS_LOST:
        return DOING_LOST;
    default:
        return DOING_STARTING;
    }
}

enum crowd_doing member_kill(struct crowd *crowd, unsigned place)
{
    struct member *member = &crowd->members[place];
    siginfo_t how;
    kill(member->pid, SIGKILL);
    assert_int_equal(waitid(P_PID, (id_t)member->pid, &how, WEXITED | WNOWAIT), 0);
    enum crowd_doing doing = member_doing(crowd, place); /* its word stays as it was until its row is claimed again */
    waitpid(member->pid, NULL, 0);
    if (how.si_code != CLD_KILLED || how.si_status != SIGKILL)
        fail_msg("member %u ended by itself, with %d", place, how.si_status);
    member->pid = 0;
    member->stopped = false;
    return doing;
}

enum crowd_doing member_stop(struct crowd *crowd, unsigned place, uint64_t until_ms)
{
    struct member *member = &crowd->members[place];
    int status = 0;
    kill(member->pid, SIGSTOP);
    assert_int_equal(waitpid(member->pid, &status, WUNTRACED), member->pid);
    if (!WIFSTOPPED(status))
        fail_msg("member %u ended by itself, with status %#x", place, (unsigned)status);
    member->stopped = true;
    member->until_ms = until_ms;
    return member_doing(crowd, place);
}

void member_continue(struct crowd *crowd, unsigned place)
{
    struct member *member = &crowd->members[place];
    member->stopped = false;
    member->moved_ms = crowd_now_ms();
    kill(member->pid, SIGCONT);
}

void crowd_show(struct crowd *crowd)
{
    uint64_t now = crowd_now_ms();
    for (unsigned place = 0; place < CROWD_MEMBERS; place++) {
        const struct member *member = &crowd->members[place];
        if (member->pid == 0)
            continue;
        print_message("  member %u (pid %d): %s%s, moved %llu ms ago, %llu rounds\n", place, (int)member->pid,
                      crowd_doing_name(member_doing(crowd, place)), member->stopped ? ", stopped" : "",
                      (unsigned long long)(now - member->moved_ms),
                      (unsigned long long)crowd->board->places[place].rounds);
    }
    char command[400];
    snprintf(command, sizeof(command), "tail -n 40 %s; CUBUDGET_DIR=%s %s/cubudget dump", crowd->errors_path,
             crowd->stage->directory, getenv("abs_top_builddir"));
    fflush(stdout);
    (void)!system(command);
}

static void member_look(struct crowd *crowd, unsigned place, uint64_t now)
{
    struct member *member = &crowd->members[place];
    const struct runner_place *told = &crowd->board->places[place];
    int status;
    if (member->pid == 0 || member->stopped)
        return;
    if (told->steps != member->steps || told->state == RUNNER_PARKED) {
        member->steps = told->steps;
        member->moved_ms = now;
    }
    if (waitpid(member->pid, &status, WNOHANG) == member->pid) {
        member->pid = 0;
        if (told->order == RUNNER_END && status == 0)
            return;
        crowd_show(crowd);
        fail_msg("member %u ended by itself, with status %#x", place, (unsigned)status);
    }
    if (told->wrong != 0)
        fail_msg("member %u has found wrong bytes", place);
    if (now > member->moved_ms + CROWD_PATIENCE_MS) { /* who goes on again now has moved after `now` */
        crowd_show(crowd);
        fail_msg("member %u stands still for %d ms", place, CROWD_PATIENCE_MS);
    }
}

void crowd_watch(struct crowd *crowd, unsigned microseconds)
{
    if (microseconds != 0)
        nanosleep(&(struct timespec){.tv_nsec = (long)microseconds * 1000}, NULL);
    uint64_t now = crowd_now_ms(), late = crowd->looked_ms != 0 ? now - crowd->looked_ms : 0;
    crowd->looked_ms = now;
    for (unsigned place = 0; place < CROWD_MEMBERS; place++) {
        struct member *member = &crowd->members[place];
        if (late > LOOK_LATE_MS) /* who began to move since is not put into the future */
            member->moved_ms = member->moved_ms + late < now ? member->moved_ms + late : now;
        if (member->stopped && member->until_ms <= now)
            member_continue(crowd, place);
        member_look(crowd, place, now);
    }
}

void crowd_continue(struct crowd *crowd)
{
    for (unsigned place = 0; place < CROWD_MEMBERS; place++) {
        if (crowd->members[place].stopped)
            member_continue(crowd, place);
        crowd->board->places[place].order = RUNNER_GO;
    }
}

static uint64_t holder_bytes(const struct sim_holder *holders, unsigned count, uint32_t pid)
{
    for (unsigned i = 0; i < count; i++)
        if (holders[i].pid == (int32_t)pid)
            return holders[i].used_bytes;
    return 0;
}

/* Whether the books agree with the machine, and nothing is under way; the difference in text. */
static bool books_agree(struct crowd *crowd, char *text, size_t text_bytes)
{
    struct sim_holder holders[CROWD_MEMBERS * 2];
    struct sim_figures figures;
    struct snapshot snapshot;
    unsigned count = 0;
    uint64_t evicted = 0;
    bool agree = true;
    stage_snapshot(crowd->stage, &snapshot);
    assert_int_equal(sim_machine_read(crowd->stage->directory, "default", &figures), 0);
    assert_int_equal(sim_machine_holders(crowd->stage->directory, "default", figures.device[0].uuid, holders,
                                         CROWD_MEMBERS * 2, &count),
                     0);
    text[0] = '\0';
    for (unsigned i = 0; i < snapshot.process_count && agree; i++) {
        const struct snapshot_process *process = &snapshot.processes[i];
        uint64_t held = holder_bytes(holders, count < CROWD_MEMBERS * 2 ? count : CROWD_MEMBERS * 2, process->pid);
        evicted += process->evicted_bytes;
        agree = process->used_bytes == held && process->in_flight_bytes == 0 && process->bid_bytes == 0;
        if (!agree)
            snprintf(text, text_bytes, "process %u: charged %llu, in flight %llu, bid %llu; the machine says %llu",
                     process->pid, (unsigned long long)process->used_bytes,
                     (unsigned long long)process->in_flight_bytes, (unsigned long long)process->bid_bytes,
                     (unsigned long long)held);
    }
    uint64_t used = snapshot.devices[0].used_bytes, dead = snapshot.devices[0].dead_bytes;
    snapshot_free(&snapshot);
    if (agree && (used != figures.device[0].used_bytes || dead != 0 || evicted != figures.host_used_bytes)) {
        agree = false;
        snprintf(text, text_bytes, "charged %llu, of the dead %llu, evicted %llu; the machine says %llu, images %llu",
                 (unsigned long long)used, (unsigned long long)dead, (unsigned long long)evicted,
                 (unsigned long long)figures.device[0].used_bytes, (unsigned long long)figures.host_used_bytes);
    }
    return agree;
}

static bool everybody_is_quiet(struct crowd *crowd)
{
    for (unsigned place = 0; place < CROWD_MEMBERS; place++) {
        if (crowd->members[place].pid == 0)
            continue;
        enum crowd_doing doing = member_doing(crowd, place);
        if (crowd->board->places[place].state != RUNNER_PARKED || (doing != DOING_RUNNING && doing != DOING_EVICTED))
            return false;
    }
    return true;
}

void crowd_rest(struct crowd *crowd)
{
    char text[256] = "";
    crowd_continue(crowd);
    for (unsigned place = 0; place < CROWD_MEMBERS; place++)
        crowd->board->places[place].order = RUNNER_PARK;
    uint64_t until = crowd_now_ms() + 2 * CROWD_PATIENCE_MS;
    while (!everybody_is_quiet(crowd) || !books_agree(crowd, text, sizeof(text))) {
        crowd_watch(crowd, 5000);
        if (crowd_now_ms() > until) {
            crowd_show(crowd);
            fail_msg("nothing comes to rest: %s", text);
        }
    }
    if (stage_witness_peak(crowd->stage) > CROWD_BUDGET_BYTES)
        fail_msg("the card held %llu, more than the budget", (unsigned long long)stage_witness_peak(crowd->stage));
}

void crowd_finish(struct crowd *crowd)
{
    crowd_continue(crowd);
    for (unsigned place = 0; place < CROWD_MEMBERS; place++)
        crowd->board->places[place].order = RUNNER_END;
    for (unsigned left = 1; left != 0;) {
        crowd_watch(crowd, 5000);
        left = 0;
        for (unsigned place = 0; place < CROWD_MEMBERS; place++)
            left += crowd->members[place].pid != 0;
    }
}
