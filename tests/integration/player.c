/* A process that plays a program with an agent; see player.h. */
#include "config.h"

#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>
#include "integration/player.h"
#include "ledger/events.h"
#include "ledger/process.h"

struct player {
    struct ledger ledger;
    struct ledger_claim claim;
    unsigned device;
    uint64_t bytes;
    enum player_way way;
};

static void event_note(struct player *player, enum ledger_event_kind kind, enum ledger_why why)
{
    struct ledger_event_record event = {.kind = kind,
                                        .row = (int)player->claim.row,
                                        .other = -1,
                                        .slot = -1,
                                        .device = (int)player->device,
                                        .bytes = player->bytes,
                                        .duration_ns = 250000000,
                                        .why = why};
    ledger_event_add(&player->ledger, &event);
}

static void move(struct player *player, uint32_t *word, enum ledger_process_state state, bool want)
{
    while (!ledger_process_move(&player->ledger, player->claim.row, word, state, want)) {
    }
}

static void leave(struct player *player, uint32_t word)
{
    move(player, &word, LEDGER_PROCESS_EVICTING, true);
    (void)ledger_host_take(&player->ledger, player->claim.row, player->bytes, UINT64_MAX);
    (void)ledger_evict_bytes(&player->ledger, player->claim.row, player->device);
    event_note(player, LEDGER_EVENT_EVICT, LEDGER_WHY_NONE);
    move(player, &word, LEDGER_PROCESS_EVICTED, true);
}

static void come_back(struct player *player, uint32_t word)
{
    move(player, &word, LEDGER_PROCESS_RESTORING, true);
    ledger_restore_bytes(&player->ledger, player->claim.row, player->device, 0);
    (void)ledger_host_take(&player->ledger, player->claim.row, 0, 0);
    event_note(player, LEDGER_EVENT_RESTORE, LEDGER_WHY_NONE);
    move(player, &word, LEDGER_PROCESS_RUNNING, false);
}

static void answer(struct player *player, uint32_t word)
{
    switch (player->way) {
    case PLAYER_LEAVES:
    case PLAYER_RETURNS:
    case PLAYER_STAYS_AWAY:
        leave(player, word);
        return;
    case PLAYER_DECLINES:
        event_note(player, LEDGER_EVENT_DECLINE, LEDGER_WHY_NOT_QUIET);
        move(player, &word, LEDGER_PROCESS_RUNNING, false);
        return;
    case PLAYER_DIES:
        _exit(0);
    default:
        (void)ledger_process_sleep(&player->ledger, player->claim.row, word, UINT32_MAX);
        return;
    }
}

static _Noreturn void player_play(struct player *player)
{
    for (;;) {
        uint32_t word = ledger_process_word(&player->ledger, player->claim.row);
        enum ledger_process_state state = process_word_state(word);
        if (state == LEDGER_PROCESS_ASKED)
            answer(player, word);
        else if (state == LEDGER_PROCESS_EVICTED &&
                 (player->way == PLAYER_RETURNS || (process_word_wants(word) && player->way != PLAYER_STAYS_AWAY)))
            come_back(player, word);
        else
            (void)ledger_process_sleep(&player->ledger, player->claim.row, word, UINT32_MAX);
    }
}

static bool player_settle(struct stage *stage, const char *slot, struct player *player)
{
    const struct ledger_request request = {.directory = stage->directory, .name = "default"};
    struct ledger_fault fault;
    if (ledger_open(&player->ledger, &request, &fault) != 0)
        return false;
    int index = ledger_slot_claim(&player->ledger, slot);
    if (index < 0 || ledger_row_claim(&player->ledger, (unsigned)index, "player", &player->claim) != 0)
        return false;
    if (player->way == PLAYER_HAS_NOTHING)
        return true;
    ledger_commit_unasked(&player->ledger, player->claim.row, player->device, player->bytes);
    ledger_kind_add(&player->ledger, player->claim.row, player->device, LEDGER_KIND_LINEAR, (int64_t)player->bytes);
    ledger_evictable_note(&player->ledger, player->claim.row, player->way == PLAYER_IS_BOUND ? "managed memory" : NULL);
    uint32_t word = ledger_process_word(&player->ledger, player->claim.row);
    return ledger_process_move(&player->ledger, player->claim.row, &word, LEDGER_PROCESS_RUNNING, false);
}

pid_t player_start(struct stage *stage, const char *slot, uint64_t bytes, enum player_way way)
{
    int ready[2];
    char word;
    pid_t parent = getpid();
    assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        static struct player player;
        player = (struct player){.device = stage->device, .bytes = bytes, .way = way};
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent || !player_settle(stage, slot, &player) || write(ready[1], "x", 1) != 1)
            _exit(1);
        player_play(&player);
    }
    (void)close(ready[1]);
    assert_int_equal(read(ready[0], &word, 1), 1);
    (void)close(ready[0]);
    return pid;
}

void player_end(pid_t pid)
{
    int status;
    (void)kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, &status, 0), pid);
}

uint32_t player_word(const struct stage *stage, unsigned row)
{
    return ledger_process_word(&stage->ledger, row);
}
