/*
 * A crowd for the trial of random kills (test_chaos.c): preloaded runners (runner.c), one to a slot, in a budget that holds a part of
 * them; what each is doing as the ledger's bytes say, and whether it moves. Reads the ledger and never reaps: what the dead leave behind is
 * for the living to find. One thread; a member is started, signalled and awaited only here.
 */
#ifndef TESTS_CROWD_H
#define TESTS_CROWD_H

#include "integration/runner.h"
#include "integration/stage.h"

enum {
    CROWD_MEMBERS = 12,
    CROWD_PATIENCE_MS = 10000, /* nobody stands still for longer */
};
#define CROWD_BUDGET_BYTES (832 * MIB)

/* What a member is doing, by its state word and its place in line. */
enum crowd_doing {
    DOING_STARTING, /* no row, or no agent yet */
    DOING_RUNNING,
    DOING_ALLOCATING, /* its memory is on the card and a thread of it waits in line for more */
    DOING_ASKED,
    DOING_EVICTING,
    DOING_EVICTED,
    DOING_WANTING, /* evicted, and a thread of it waits to be back */
    DOING_RESTORING,
    DOING_LOST,
    DOINGS,
};
const char *crowd_doing_name(enum crowd_doing doing);

struct member {
    pid_t pid;
    bool stopped;
    uint64_t until_ms; /* of a stopped one: when it goes on; UINT64_MAX: it does not, it is killed */
    uint64_t steps, moved_ms;
    unsigned born; /* how often its place was filled */
};

struct crowd {
    struct stage *stage;
    struct runner_board *board;
    char board_path[128], errors_path[128];
    struct member members[CROWD_MEMBERS];
    uint64_t looked_ms;
};

uint64_t crowd_now_ms(void);

void crowd_open(struct crowd *crowd, struct stage *stage);
/* Kills what is left. */
void crowd_close(struct crowd *crowd);

/* Starts a runner in an empty place. */
void member_start(struct crowd *crowd, unsigned place, uint64_t seed);

/* What it does at this moment. */
enum crowd_doing member_doing(struct crowd *crowd, unsigned place);

/* Kills it, awaits its end, and returns what it was doing when it died. Its place is empty then. */
enum crowd_doing member_kill(struct crowd *crowd, unsigned place);
/* Stops it and awaits that; what it was doing. */
enum crowd_doing member_stop(struct crowd *crowd, unsigned place, uint64_t until_ms);
void member_continue(struct crowd *crowd, unsigned place);

/* Sleeps for a moment (0: looks only), and fails the test where somebody who is not stopped has stood still for CROWD_PATIENCE_MS, or has
 * ended though nobody killed it. */
void crowd_watch(struct crowd *crowd, unsigned microseconds);

/* Everybody goes on / leaves the driver alone / ends. Who is stopped goes on first. crowd_rest returns when everything is quiet and ledger,
 * machine and images agree to the byte, process by process, or fails the test. */
void crowd_continue(struct crowd *crowd);
void crowd_rest(struct crowd *crowd);
void crowd_finish(struct crowd *crowd);

/* What everybody does, for a failure's report. */
void crowd_show(struct crowd *crowd);

#endif
