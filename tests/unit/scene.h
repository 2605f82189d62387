/*
 * A ledger of a test's own, in a directory of its own, and processes that use it. Used by the tests of src/ledger and
 * src/platform here and in tests/crash; links against either copy of the two (with test points or without).
 *
 * What a child process does is judged by REQUIRE, which ends it: cmocka's assertions jump, and belong to the parent.
 */
#ifndef TESTS_SCENE_H
#define TESTS_SCENE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "ledger/ledger.h"

#define MIB (1024ULL * 1024)
#define GIB (1024ULL * MIB)

enum { SCENE_FAILED = 99 }; /* how a child whose REQUIRE did not hold ends */

#define REQUIRE(condition) ((condition) ? (void)0 : require_failed(#condition, __FILE__, __LINE__))
_Noreturn void require_failed(const char *condition, const char *file, int line);

/* Memory that forked processes share, all zeroes at first. */
struct board {
    _Atomic(uint32_t) arrived, go, done, failed;
    _Atomic(uint64_t) figures[64];
};

struct scene {
    char directory[64];
    struct ledger ledger;
    struct ledger_fault fault;
    uint64_t budget_bytes;
    unsigned device;
    struct board *board;
};

/* Makes the directory, and (where budget_bytes is not 0) the ledger "default" in it with one device of that budget. */
void scene_open(struct scene *scene, uint64_t budget_bytes);
void scene_close(struct scene *scene);

/* cmocka's fixture: *state is a scene of the test's own, with a ledger of 8 GiB. */
int scene_setup(void **state);
int scene_teardown(void **state);

/* Opens the scene's ledger; with budget_bytes not 0 makes it where it is missing. As ledger_open. */
int scene_ledger(struct scene *scene, struct ledger *ledger, uint64_t budget_bytes);

/* The path of the ledger's file. */
const char *scene_path(const struct scene *scene);

/* Removes a directory with all that is in it. */
void directory_remove(const char *path);

/* Starts a process that opens the ledger anew (where there is one), runs body, and ends with what body returns. It dies
 * with the test. testpoint: NULL, or what CUBUDGET_TESTPOINT shall be. */
typedef int scene_body(struct scene *scene, void *context);
pid_t scene_fork(struct scene *scene, const char *testpoint, scene_body *body, void *context);

/* Waits for the end of a process and returns its wait status; scene_join fails the test unless that is exit(0). */
int scene_wait(pid_t pid);
void scene_join(pid_t pid);

/* Waits until a process has stopped or ended. Returns true where it stopped. */
bool scene_stopped(pid_t pid);

/* On the board: counts oneself in / waits until `count` have come (a futex, no polling). */
void board_arrive(_Atomic(uint32_t) *word);
void board_await(_Atomic(uint32_t) *word, uint32_t count);
/* All `count` callers leave together, for the round-th time (from 1). */
void board_meet(_Atomic(uint32_t) *word, uint32_t count, uint32_t round);

/* Claims a row in the slot of that name. */
int scene_claim(struct ledger *ledger, const char *slot, struct ledger_claim *claim);

/* A bid not published yet. */
struct ledger_bid bid_of(const struct ledger_claim *claim, unsigned device, uint64_t bytes);

/* Looks until the answer is certain, or `looks` times. */
enum ledger_verdict charge_try(struct ledger *ledger, const struct ledger_claim *claim, unsigned device, uint64_t bytes,
                               unsigned looks);

/* A small generator of its own, so that a failing seed can be run again. */
uint32_t random_next(uint32_t *state);

/* The sums over all rows of a device, straight from the bytes: what is committed, in flight and bid, live and dead apart. */
struct held {
    uint64_t committed, in_flight, bids, dead;
    unsigned live, orphaned, dying;
};
void held_read(const struct ledger *ledger, unsigned device, struct held *held);

/* Reaps until no row is DYING. Needs no clock: it ends when the ledger says so. */
void scene_settle(struct ledger *ledger);

#endif
