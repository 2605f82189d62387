/* Who is asked to leave: a table of who is there, and a clock of the test's own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "account/policy.h"
#include "ledger/process.h"
#include "platform/env.h"
#include "unit/scene.h"

enum { NOW_MS = 1000000, ASKER = 0 };

/* Row and leader i, slot i, 1 GiB, on the card for long, not used for long, evictable. */
static struct ledger_resident resident(unsigned i)
{
    return (struct ledger_resident){
        .row = i,
        .leader = i,
        .slot = i,
        .priority = 50,
        .word = LEDGER_PROCESS_RUNNING,
        .evictable = true,
        .bytes = GIB,
        .resident_ms = 1000,
        .referenced_ms = NOW_MS - 60000,
        .ticket = LEDGER_NO_TICKET,
    };
}

static struct policy_answer ask(const struct ledger_resident *residents, unsigned count, const uint64_t *reserves,
                                uint64_t missing)
{
    static const uint64_t none[LEDGER_SLOTS];
    struct policy_answer answer;
    struct policy_question question = {
        .residents = residents,
        .count = count,
        .reserves = reserves != NULL ? reserves : none,
        .missing_bytes = missing,
        .now_ms = NOW_MS,
        .leader = ASKER,
        .slot = ASKER,
        .ticket = 7,
    };
    policy_choose(&question, &answer);
    return answer;
}

static void assert_victims(const struct policy_answer *answer, unsigned count, unsigned first, unsigned second)
{
    assert_int_equal(answer->verdict, POLICY_ASK);
    assert_int_equal(answer->count, count);
    assert_int_equal(answer->victims[0].row, first);
    if (count > 1)
        assert_int_equal(answer->victims[1].row, second);
}

static void lowest_priority_goes_first(void **state)
{
    (void)state;
    struct ledger_resident list[] = {resident(0), resident(1), resident(2), resident(3)};
    list[1].referenced_ms = 0; /* the longest unused, and of higher priority */
    list[1].priority = 51;
    list[3].priority = 49;
    struct policy_answer answer = ask(list, 4, NULL, 2 * GIB);
    assert_victims(&answer, 2, 3, 2);
}

static void longest_unused_goes_first(void **state)
{
    (void)state;
    struct ledger_resident list[] = {resident(1), resident(2), resident(3)};
    list[1].referenced_ms = NOW_MS - 90000;
    struct policy_answer answer = ask(list, 3, NULL, 1);
    assert_victims(&answer, 1, 2, 0);
}

static void of_equally_unused_the_oldest_resident_goes(void **state)
{
    (void)state;
    struct ledger_resident list[] = {resident(1), resident(2), resident(3)};
    list[0].referenced_ms = NOW_MS - 60900; /* less than a step of the agents' clock */
    list[2].resident_ms = 999;
    struct policy_answer answer = ask(list, 3, NULL, 1);
    assert_victims(&answer, 1, 3, 0);
}

static void newcomers_are_left_for_their_time(void **state)
{
    (void)state;
    struct ledger_resident list[] = {resident(1), resident(2)};
    list[0].resident_ms = NOW_MS - POLICY_RESIDENCY_MS + 1;
    list[1].declined_ms = NOW_MS - 100;
    struct policy_answer answer = ask(list, 2, NULL, 2 * GIB);
    assert_int_equal(answer.verdict, POLICY_LATER);
    assert_int_equal(answer.until_ms, NOW_MS - 100 + POLICY_RESIDENCY_MS);
    list[0].resident_ms--;
    list[1].declined_ms = NOW_MS - POLICY_RESIDENCY_MS;
    answer = ask(list, 2, NULL, 2 * GIB);
    assert_victims(&answer, 2, 2, 1); /* the later of the two came later */
}

static void some_are_never_asked(void **state)
{
    (void)state;
    struct ledger_resident list[] = {resident(ASKER), resident(1), resident(2), resident(3), resident(4), resident(5)};
    list[1].evictable = false;
    list[2].priority = SETTINGS_PRIORITY_MAX;
    list[3].ticket = 6; /* older in line than who asks */
    list[4].word = LEDGER_PROCESS_NO_AGENT;
    list[5].word = LEDGER_PROCESS_LOST;
    struct policy_answer answer = ask(list, 6, NULL, 1);
    assert_int_equal(answer.verdict, POLICY_NOBODY);
    list[3].ticket = 8;
    answer = ask(list, 6, NULL, 1);
    assert_victims(&answer, 1, 3, 0);
}

static void no_more_than_needed(void **state)
{
    (void)state;
    struct ledger_resident list[] = {resident(1), resident(2), resident(3)};
    list[0].referenced_ms = 0; /* first, and too small alone */
    list[0].bytes = GIB / 2;
    list[1].bytes = 3 * GIB;
    struct policy_answer answer = ask(list, 3, NULL, GIB);
    assert_victims(&answer, 1, 2, 0); /* makes the first superfluous */
}

static void reserve_of_the_victim_does_not_count(void **state)
{
    (void)state;
    uint64_t reserves[LEDGER_SLOTS] = {[1] = GIB / 2, [2] = 2 * GIB};
    struct ledger_resident list[] = {resident(1), resident(2)};
    struct policy_answer answer = ask(list, 2, reserves, GIB / 2);
    assert_victims(&answer, 1, 1, 0);
    assert_int_equal(answer.victims[0].bytes, GIB / 2);
    answer = ask(list, 2, reserves, GIB / 2 + 1);
    assert_int_equal(answer.verdict, POLICY_NOBODY);
}

static void rows_of_a_process_go_together(void **state)
{
    (void)state;
    struct ledger_resident list[] = {resident(1), resident(2), resident(3)};
    list[1].leader = 1;
    struct policy_answer answer = ask(list, 3, NULL, 2 * GIB);
    assert_victims(&answer, 1, 1, 0);
    assert_int_equal(answer.victims[0].bytes, 2 * GIB);
    list[1].priority = SETTINGS_PRIORITY_MAX; /* one of its slots is pinned: it stays as a whole */
    answer = ask(list, 3, NULL, 1);
    assert_victims(&answer, 1, 3, 0);
}

static void who_leaves_already_counts(void **state)
{
    (void)state;
    struct ledger_resident list[] = {resident(1), resident(2), resident(3)};
    list[0].word = LEDGER_PROCESS_ASKED;
    list[1].word = LEDGER_PROCESS_EVICTING;
    struct policy_answer answer = ask(list, 3, NULL, 2 * GIB);
    assert_int_equal(answer.verdict, POLICY_COMING);
    answer = ask(list, 3, NULL, 2 * GIB + 1);
    assert_victims(&answer, 1, 3, 0);
    list[0].state_ms = POLICY_ASKED_MS; /* stopped: it does not come */
    answer = ask(list, 3, NULL, 2 * GIB);
    assert_victims(&answer, 1, 3, 0);
    list[1].state_ms = POLICY_EVICTING_MS + 1024;
    answer = ask(list, 3, NULL, 2 * GIB);
    assert_int_equal(answer.verdict, POLICY_NOBODY);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lowest_priority_goes_first),
        cmocka_unit_test(longest_unused_goes_first),
        cmocka_unit_test(of_equally_unused_the_oldest_resident_goes),
        cmocka_unit_test(newcomers_are_left_for_their_time),
        cmocka_unit_test(some_are_never_asked),
        cmocka_unit_test(no_more_than_needed),
        cmocka_unit_test(reserve_of_the_victim_does_not_count),
        cmocka_unit_test(rows_of_a_process_go_together),
        cmocka_unit_test(who_leaves_already_counts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
