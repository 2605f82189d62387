/*
 * cubudget evict and restore over processes that play programs with an agent: what is asked of them, what is said of each answer, and
 * that a wait ends whatever they do.
 */
#include "config.h"

#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>
#include "integration/player.h"
#include "ledger/events.h"
#include "platform/log.h"

/* What is said of one process of slot 'a'. */
static void require_said(const char *said, pid_t pid, const char *text)
{
    char line[256];
    (void)snprintf(line, sizeof line, "slot 'a': process %d %s", (int)pid, text);
    require_text(said, line);
}

static enum ledger_process_state state_of(const struct stage *stage, unsigned row)
{
    return process_word_state(player_word(stage, row));
}

static void test_leaves_and_comes_back(void **state)
{
    struct stage *stage = *state;
    pid_t pid = player_start(stage, "a", 1 * GIB, PLAYER_LEAVES);
    (void)cubudget(stage, "evict", "a", "--wait");
    require_status(stage, 0);
    require_said(stage->out, pid, "left the card: 1 GiB in 0.25 s\n");
    assert_string_equal(stage->err, "");
    assert_int_equal(state_of(stage, 0), LEDGER_PROCESS_EVICTED);
    (void)cubudget(stage, "evict", "a", NULL);
    require_status(stage, 0);
    require_said(stage->out, pid, "is off the card already\n");
    (void)cubudget(stage, "restore", "a", "--wait");
    require_status(stage, 0);
    require_said(stage->out, pid, "is back on the card: 1 GiB");
    assert_int_equal(state_of(stage, 0), LEDGER_PROCESS_RUNNING);
    (void)cubudget(stage, "restore", "a", NULL);
    require_status(stage, 0);
    require_said(stage->out, pid, "is on the card\n");
    player_end(pid);
}

/* Without --wait it says what was asked, and returns; what comes of it is the program's. */
static void test_asks_only(void **state)
{
    struct stage *stage = *state;
    pid_t pid = player_start(stage, "a", 1 * GIB, PLAYER_IS_SILENT);
    (void)cubudget(stage, "evict", "a", NULL);
    require_status(stage, 0);
    require_said(stage->out, pid, "was asked to leave the card (1 GiB)\n");
    uint32_t word = player_word(stage, 0);
    assert_int_equal(process_word_state(word), LEDGER_PROCESS_ASKED);
    assert_int_equal(process_word_asker(word), LEDGER_ROWS);
    (void)cubudget(stage, "evict", "a", NULL);
    require_said(stage->out, pid, "is on its way off the card already\n");
    assert_int_equal(player_word(stage, 0), word);
    /* It is told of as well. */
    struct ledger_event_record event;
    assert_int_equal(ledger_event_count(&stage->ledger), 1);
    assert_true(ledger_event_read(&stage->ledger, 1, &event));
    assert_int_equal(event.kind, LEDGER_EVENT_ASK);
    assert_int_equal(event.other, 0);
    assert_int_equal(event.why, LEDGER_WHY_OPERATOR);
    player_end(pid);
}

static void test_declines(void **state)
{
    struct stage *stage = *state;
    pid_t pid = player_start(stage, "a", 1 * GIB, PLAYER_DECLINES);
    (void)cubudget(stage, "evict", "a", "--wait");
    require_status(stage, EXIT_CHECK_FAILED);
    assert_string_equal(stage->out, "");
    require_said(stage->err, pid, "stays on the card: a thread stayed inside the driver\n");
    player_end(pid);
}

/* What cannot leave is not asked. */
static void test_unevictable(void **state)
{
    struct stage *stage = *state;
    pid_t pid = player_start(stage, "a", 1 * GIB, PLAYER_IS_BOUND);
    uint32_t word = player_word(stage, 0);
    (void)cubudget(stage, "evict", "a", NULL);
    require_status(stage, EXIT_CHECK_FAILED);
    require_said(stage->err, pid, "stays on the card: managed memory\n");
    assert_int_equal(player_word(stage, 0), word);
    player_end(pid);
}

/* Who does not answer in time is not asked any more: nothing is left behind. */
static void test_silent(void **state)
{
    struct stage *stage = *state;
    pid_t pid = player_start(stage, "a", 1 * GIB, PLAYER_IS_SILENT);
    (void)cubudget(stage, "evict", "a", "--wait=150ms");
    require_status(stage, EXIT_CHECK_FAILED);
    require_said(stage->err, pid, "did not leave the card in time, and is not asked any more\n");
    assert_int_equal(state_of(stage, 0), LEDGER_PROCESS_RUNNING);
    assert_int_equal(process_word_number(player_word(stage, 0)), 1);
    player_end(pid);
}

/* An ask that was there before is somebody else's: it stands when the command gives up, and so does what came of it. */
static void test_ask_of_another(void **state)
{
    struct stage *stage = *state;
    uint32_t word;
    pid_t pid = player_start(stage, "a", 1 * GIB, PLAYER_IS_SILENT);
    const struct ledger_claim *asker = row_claim(stage, 0, "b", "x");
    assert_int_equal(ledger_process_ask(&stage->ledger, 0, asker->row, &word), 0);
    (void)cubudget(stage, "evict", "a", "--wait=150ms");
    require_status(stage, EXIT_CHECK_FAILED);
    require_said(stage->err, pid, "has not left the card yet, and is still asked to by somebody else\n");
    assert_int_equal(player_word(stage, 0), word);
    assert_true(ledger_process_move(&stage->ledger, 0, &word, LEDGER_PROCESS_EVICTING, true));
    (void)cubudget(stage, "evict", "a", "--wait=150ms");
    require_status(stage, EXIT_CHECK_FAILED);
    require_said(stage->err, pid, "has not left the card yet, and is on its way\n");
    assert_int_equal(player_word(stage, 0), word);
    player_end(pid);
}

/* Plays who asked and, where it is not so that he withdraws, the agent that lets him choose again: once the command waits, the ask is
 * over without an answer. What the command asks then is answered. */
static _Noreturn void asker_play(const struct stage *stage, uint32_t word, bool withdraws)
{
    enum { TRIES = 10000 };
    const struct ledger_request request = {.directory = stage->directory, .name = "default"};
    struct ledger ledger;
    struct ledger_fault fault;
    if (ledger_open(&ledger, &request, &fault) != 0)
        _exit(1);
    const struct ledger_header *header = ledger.file.bytes;
    for (unsigned i = 0; header->events_followed == 0 && i < TRIES; i++)
        (void)poll(NULL, 0, 1);
    if (withdraws)
        (void)ledger_process_withdraw(&ledger, 0, word);
    else
        (void)ledger_process_move(&ledger, 0, &word, LEDGER_PROCESS_RUNNING, false);
    for (unsigned i = 0; process_word_asker(word) != LEDGER_ROWS && i < TRIES; i++) {
        (void)poll(NULL, 0, 1);
        word = ledger_process_word(&ledger, 0);
    }
    bool left = process_word_state(word) == LEDGER_PROCESS_ASKED && process_word_number(word) == 2 &&
                ledger_process_move(&ledger, 0, &word, LEDGER_PROCESS_EVICTING, true) &&
                ledger_process_move(&ledger, 0, &word, LEDGER_PROCESS_EVICTED, true);
    _exit(left ? 0 : 1);
}

static void ask_of_another_ends(struct stage *stage, bool withdraws)
{
    uint32_t word;
    int status;
    pid_t pid = player_start(stage, "a", 1 * GIB, PLAYER_IS_SILENT), parent = getpid();
    const struct ledger_claim *asker = row_claim(stage, 0, "b", "x");
    assert_int_equal(ledger_process_ask(&stage->ledger, 0, asker->row, &word), 0);
    pid_t other = fork();
    assert_true(other >= 0);
    if (other == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() == parent)
            asker_play(stage, word, withdraws);
        _exit(1);
    }
    (void)cubudget(stage, "evict", "a", "--wait=5s");
    if (stage->status != 0)
        (void)kill(other, SIGKILL);
    assert_int_equal(waitpid(other, &status, 0), other);
    require_status(stage, 0);
    require_said(stage->out, pid, "left the card: 1 GiB\n");
    assert_int_equal(status, 0);
    player_end(pid);
}

static void test_ask_of_another_is_withdrawn(void **state)
{
    ask_of_another_ends(*state, true);
}

static void test_another_is_to_choose_again(void **state)
{
    ask_of_another_ends(*state, false);
}

static void test_dies(void **state)
{
    struct stage *stage = *state;
    pid_t pid = player_start(stage, "a", 1 * GIB, PLAYER_DIES);
    (void)cubudget(stage, "evict", "a", "--wait");
    require_status(stage, 0); /* it holds nothing any more */
    require_said(stage->out, pid, "has ended\n");
    player_end(pid);
}

static void test_nothing_there(void **state)
{
    struct stage *stage = *state;
    pid_t pid = player_start(stage, "a", 0, PLAYER_HAS_NOTHING);
    (void)cubudget(stage, "evict", "a", "--wait");
    require_status(stage, EXIT_CHECK_FAILED);
    assert_string_equal(stage->err, "cubudget: slot 'a': nothing to evict: no program of it has used the GPU yet\n");
    (void)cubudget(stage, "restore", "a", "--wait");
    require_status(stage, EXIT_CHECK_FAILED);
    assert_string_equal(stage->err, "cubudget: slot 'a': nothing to restore: no program of it has used the GPU yet\n");
    player_end(pid);
    (void)row_claim(stage, 0, "semantic", "x");
    (void)cubudget(stage, "evict", "semantik", NULL);
    require_status(stage, EXIT_BAD_SETTINGS);
    require_text(stage->err, "cubudget: there is no slot 'semantik' in ");
    require_text(stage->err, "did you mean 'semantic'?");
}

/* All of the slot and nobody else; one that stays makes it 1, and the others leave all the same. */
static void test_several(void **state)
{
    struct stage *stage = *state;
    pid_t stays = player_start(stage, "a", 1 * GIB, PLAYER_DECLINES);
    pid_t leaves = player_start(stage, "a", 2 * GIB, PLAYER_LEAVES);
    pid_t other = player_start(stage, "b", 3 * GIB, PLAYER_LEAVES);
    (void)cubudget(stage, "evict", "a", "--wait");
    require_status(stage, EXIT_CHECK_FAILED);
    require_said(stage->out, leaves, "left the card: 2 GiB");
    require_said(stage->err, stays, "stays on the card: ");
    assert_int_equal(state_of(stage, 1), LEDGER_PROCESS_EVICTED);
    assert_int_equal(state_of(stage, 2), LEDGER_PROCESS_RUNNING);
    assert_int_equal(process_word_number(player_word(stage, 2)), 0);
    player_end(stays);
    player_end(leaves);
    player_end(other);
}

/* A process is moved as a whole: by any slot that it has a row in, and once. */
static void test_rows_of_one_process(void **state)
{
    struct stage *stage = *state;
    const struct ledger_claim *first = row_claim(stage, 0, "a", "x"), *second = row_claim(stage, 1, "b", "x");
    uint32_t word = 0;
    charge(stage, first, 1 * GIB, LEDGER_KIND_LINEAR);
    charge(stage, second, 2 * GIB, LEDGER_KIND_LINEAR);
    ledger_lead(&stage->ledger, second->row, first->row);
    assert_true(ledger_process_move(&stage->ledger, first->row, &word, LEDGER_PROCESS_RUNNING, false));
    (void)cubudget(stage, "evict", "b", NULL);
    require_status(stage, 0);
    require_text(stage->out, "was asked to leave the card (3 GiB)\n");
    assert_int_equal(process_word_state(player_word(stage, first->row)), LEDGER_PROCESS_ASKED);
    assert_int_equal(player_word(stage, second->row), 0);
}

/* Off the card for a moment is off the card: it is not taken for one that stayed, or that was never asked. */
static void test_returns_at_once(void **state)
{
    struct stage *stage = *state;
    for (unsigned i = 0; i < 20; i++) {
        pid_t pid = player_start(stage, "a", 1 * GIB, PLAYER_RETURNS);
        (void)cubudget(stage, "evict", "a", "--wait");
        require_status(stage, 0);
        require_said(stage->out, pid, "left the card");
        player_end(pid);
    }
}

static void test_does_not_come_back(void **state)
{
    struct stage *stage = *state;
    pid_t pid = player_start(stage, "a", 1 * GIB, PLAYER_STAYS_AWAY);
    (void)cubudget(stage, "evict", "a", "--wait");
    require_status(stage, 0);
    (void)cubudget(stage, "restore", "a", NULL);
    require_status(stage, 0);
    require_said(stage->out, pid, "is wanted back on the card (1 GiB)\n");
    assert_true(process_word_wants(player_word(stage, 0)));
    (void)cubudget(stage, "restore", "a", "--wait=150ms");
    require_status(stage, EXIT_CHECK_FAILED);
    require_said(stage->err, pid, "is not back yet: it waits for room\n");
    player_end(pid);
}

#define stage_test(test) cmocka_unit_test_setup_teardown(test, stage_open, stage_close)

int main(void)
{
    const struct CMUnitTest tests[] = {
        stage_test(test_leaves_and_comes_back),
        stage_test(test_asks_only),
        stage_test(test_declines),
        stage_test(test_unevictable),
        stage_test(test_silent),
        stage_test(test_ask_of_another),
        stage_test(test_ask_of_another_is_withdrawn),
        stage_test(test_another_is_to_choose_again),
        stage_test(test_dies),
        stage_test(test_nothing_there),
        stage_test(test_several),
        stage_test(test_rows_of_one_process),
        stage_test(test_returns_at_once),
        stage_test(test_does_not_come_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
