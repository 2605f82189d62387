/*
 * Random kills and stops among twelve runners that press for room, aimed at each thing that a process can be doing: nobody else
 * stands still for more than ten seconds, no byte is lost or counted twice, and no row stays in a state.
 *
 *   SEED=N   the choices (printed); the times at which processes run are nobody's choice, so a replay is of the same deeds
 *   KILLS=N  how many deeds: 60 by itself, half a minute; the full trial is 1000
 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "integration/crowd.h"

enum {
    SEEK_MS = 400,           /* how long somebody is looked for who does what the deed is aimed at */
    STOPPED_MOST = 2,        /* what they hold cannot be had, and the rest has to fit the rest */
    REST_EVERY = 20,         /* deeds */
    ALL_HIT_FROM_KILLS = 300 /* so many deeds find everything */
};

struct chaos {
    struct crowd crowd;
    uint64_t random;
    unsigned killed[DOINGS], stopped[DOINGS], aimed[DOINGS], never;
};

static uint64_t random_below(struct chaos *chaos, uint64_t bound)
{
    chaos->random ^= chaos->random << 13;
    chaos->random ^= chaos->random >> 7;
    chaos->random ^= chaos->random << 17;
    return chaos->random % bound;
}

static unsigned stopped_count(const struct crowd *crowd)
{
    unsigned count = 0;
    for (unsigned place = 0; place < CROWD_MEMBERS; place++)
        count += crowd->members[place].stopped;
    return count;
}

/* Somebody who is doing that now, from a random place on, or -1. */
static int member_find(struct chaos *chaos, enum crowd_doing doing)
{
    struct crowd *crowd = &chaos->crowd;
    unsigned first = (unsigned)random_below(chaos, CROWD_MEMBERS);
    uint64_t until = crowd_now_ms() + SEEK_MS;
    do {
        for (unsigned i = 0; i < CROWD_MEMBERS; i++) {
            unsigned place = (first + i) % CROWD_MEMBERS;
            const struct member *member = &crowd->members[place];
            if (member->pid != 0 && !member->stopped && member_doing(crowd, place) == doing)
                return (int)place;
        }
        crowd_watch(crowd, 100);
    } while (crowd_now_ms() < until);
    return -1;
}

static void member_replace(struct chaos *chaos, unsigned place)
{
    enum crowd_doing doing = member_kill(&chaos->crowd, place);
    chaos->killed[doing]++;
    if (doing == DOING_LOST)
        fail_msg("member %u was lost", place);
    member_start(&chaos->crowd, place, random_below(chaos, 1000000));
}

/* An agent leaves ASKED within microseconds; one that is stopped stays in it when somebody asks. */
static int member_await_asked(struct chaos *chaos)
{
    struct crowd *crowd = &chaos->crowd;
    int place = member_find(chaos, DOING_RUNNING);
    if (place < 0)
        return -1;
    member_stop(crowd, (unsigned)place, UINT64_MAX);
    uint64_t until = crowd_now_ms() + 2 * SEEK_MS;
    while (member_doing(crowd, (unsigned)place) != DOING_ASKED && crowd_now_ms() < until)
        crowd_watch(crowd, 100);
    chaos->stopped[member_doing(crowd, (unsigned)place)]++;
    return place;
}

/* Makes room among the stopped: the one that is to stay so for longest goes on, or is killed where it never would. */
static void stopped_relieve(struct chaos *chaos)
{
    struct crowd *crowd = &chaos->crowd;
    int longest = -1;
    if (stopped_count(crowd) < STOPPED_MOST)
        return;
    for (int place = 0; place < CROWD_MEMBERS; place++)
        if (crowd->members[place].stopped &&
            (longest < 0 || crowd->members[place].until_ms > crowd->members[longest].until_ms))
            longest = place;
    if (crowd->members[longest].until_ms == UINT64_MAX)
        member_replace(chaos, (unsigned)longest);
    else
        member_continue(crowd, (unsigned)longest);
}

static void deed_do(struct chaos *chaos)
{
    struct crowd *crowd = &chaos->crowd;
    enum crowd_doing aim = (enum crowd_doing)random_below(chaos, DOING_LOST);
    uint64_t how = random_below(chaos, 10), for_ms = 50 + random_below(chaos, 3000);
    chaos->aimed[aim]++;
    stopped_relieve(chaos);
    int place = aim == DOING_ASKED ? member_await_asked(chaos) : member_find(chaos, aim);
    if (place < 0) /* nobody does that now: somebody, whatever it does */
        for (place = (int)random_below(chaos, CROWD_MEMBERS); crowd->members[place].stopped;)
            place = (place + 1) % CROWD_MEMBERS;
    if (how < 5)
        member_replace(chaos, (unsigned)place);
    else if (crowd->members[place].stopped)
        crowd->members[place].until_ms = crowd_now_ms() + for_ms;
    else {
        chaos->never += how == 9;
        chaos->stopped[member_stop(crowd, (unsigned)place, how == 9 ? UINT64_MAX : crowd_now_ms() + for_ms)]++;
    }
}

static void chaos_show(const struct chaos *chaos, unsigned deeds)
{
    print_message("%u deeds; of those stopped %u were never to go on\n", deeds, chaos->never);
    for (int doing = 0; doing < DOING_LOST; doing++)
        print_message("  while %s: killed %u, stopped %u (aimed at %u times)\n",
                      crowd_doing_name((enum crowd_doing)doing), chaos->killed[doing], chaos->stopped[doing],
                      chaos->aimed[doing]);
}

static struct chaos chaos;

/* Also after a failure: whoever is left would make the directory again that is being removed. */
static int chaos_teardown(void **state)
{
    crowd_close(&chaos.crowd);
    return stage_teardown(state);
}

static void kills_and_stops_in_every_state_hold_nobody_up(void **state)
{
    const char *seed_text = getenv("SEED"), *kills_text = getenv("KILLS");
    unsigned long seed = seed_text ? strtoul(seed_text, NULL, 10) : (unsigned long)crowd_now_ms() % 1000000;
    unsigned kills = kills_text ? (unsigned)strtoul(kills_text, NULL, 10) : 60;
    print_message("SEED=%lu KILLS=%u\n", seed, kills);
    chaos.random = seed * 0x9E3779B97F4A7C15u | 1;
    crowd_open(&chaos.crowd, *state);
    for (unsigned place = 0; place < CROWD_MEMBERS; place++)
        member_start(&chaos.crowd, place, random_below(&chaos, 1000000));
    for (unsigned deed = 1; deed <= kills; deed++) {
        deed_do(&chaos);
        uint64_t until = crowd_now_ms() + random_below(&chaos, 200);
        do
            crowd_watch(&chaos.crowd, 1000);
        while (crowd_now_ms() < until);
        if (deed % REST_EVERY == 0 || deed == kills) {
            crowd_rest(&chaos.crowd);
            crowd_continue(&chaos.crowd);
        }
    }
    crowd_finish(&chaos.crowd);
    chaos_show(&chaos, kills);
    stage_await_empty(*state);
    assert_int_equal(stage_witness_used(*state), 0);
    for (int doing = 0; doing < DOING_LOST && kills >= ALL_HIT_FROM_KILLS; doing++)
        if (chaos.killed[doing] == 0 || chaos.stopped[doing] == 0)
            fail_msg("nobody was killed, or nobody stopped, while %s", crowd_doing_name((enum crowd_doing)doing));
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(kills_and_stops_in_every_state_hold_nobody_up, stage_setup, chaos_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
