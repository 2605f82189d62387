/*
 * A stage for end-to-end tests: a ledger directory and a simulated machine of its own, and preloaded clients
 * (tests/integration/client.c) that do what they are told. Used by the tests of this folder and of tests/crash.
 */
#ifndef TESTS_STAGE_H
#define TESTS_STAGE_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#include "ledger/snapshot.h"
#include "sim/machine.h"

#define MIB           (1024ULL * 1024)
#define GIB           (1024ULL * MIB)
#define CONTEXT_BYTES (527 * MIB) /* what a context costs on the simulated machine */

struct stage {
    char directory[64];
    struct ledger ledger;
    bool opened;
};

struct client {
    pid_t pid;
    int to, from;
    char heard[512]; /* the last answer */
    size_t pending_bytes;
    char pending[1024];
};

/* What a client is started with; all fields may be zero. */
struct client_terms {
    const char *slot, *budget, *limit, *simulate, *testpoint, *gate, *visible_devices, *log_file;
    const char *program;    /* of this folder's build; NULL: client */
    const char *wrapper[4]; /* a command put before the client, such as unshare */
    bool testpoints;        /* preload the library that has test points */
    bool loud;              /* standard error is the test's, else /dev/null */
};

/* cmocka's fixture: *state is a stage of the test's own. */
int stage_setup(void **state);
int stage_teardown(void **state);

/* Makes the directory / removes it with all that is in it. */
void stage_open(struct stage *stage);
void stage_close(struct stage *stage);

/* Opens the ledger the clients have made, if not yet open; fails the test where there is none. */
struct ledger *stage_ledger(struct stage *stage);

/* Takes a snapshot; the caller frees it. */
void stage_snapshot(struct stage *stage, struct snapshot *snapshot);

/* Bytes the ledger has committed on device 0: live, and of the dead. */
uint64_t stage_used(struct stage *stage);
uint64_t stage_dead(struct stage *stage);

/* The witness's figures for device 0. */
uint64_t stage_witness_used(struct stage *stage);
uint64_t stage_witness_peak(struct stage *stage);

/* Reaps and looks until nothing is held and nobody waits, or fails the test after a minute. */
void stage_await_empty(struct stage *stage);

void client_start(struct stage *stage, struct client *client, const struct client_terms *terms);

/* Sends one line / waits for one line (a minute at most, then the test fails); NULL: the client's output ended. */
void client_tell(struct client *client, const char *format, ...) __attribute__((format(printf, 2, 3)));
const char *client_hear(struct client *client);

/* Whether client_hear would return at once. */
bool client_is_ready(struct client *client);

/* client_tell and client_hear. */
const char *client_ask(struct client *client, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Ends a client as `quit` does, or with a signal (0: quit); returns its wait status. */
int client_end(struct client *client, int signal);

#define client_expect(client, answer, ...) assert_string_equal(client_ask(client, __VA_ARGS__), answer)

#endif
