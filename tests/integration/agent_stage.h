/*
 * What tests of the agent share: asking a client's process to leave the card, as another process would, and waiting for its state.
 * Included by the tests of the agent, which are its only users.
 */
#ifndef TESTS_AGENT_STAGE_H
#define TESTS_AGENT_STAGE_H

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>

#include "integration/stage.h"
#include "ledger/events.h"
#include "ledger/process.h"

enum { AGENT_PATIENCE_MS = 60000 };

static inline uint64_t stage_now_ns(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000U + (uint64_t)now.tv_nsec;
}

/* The first row of a client's process, which is the one of its pid, once it is there. */
static inline unsigned row_of(struct stage *stage, const struct client *client)
{
    unsigned row = LEDGER_ROWS;
    for (uint64_t until_ns = stage_now_ns() + AGENT_PATIENCE_MS * 1000000ULL;
         row == LEDGER_ROWS && stage_now_ns() < until_ns;) {
        struct snapshot snapshot;
        stage_snapshot(stage, &snapshot);
        for (unsigned i = 0; i < snapshot.process_count; i++)
            if (snapshot.processes[i].pid == (uint32_t)client->pid && snapshot.processes[i].row < row)
                row = snapshot.processes[i].row;
        snapshot_free(&snapshot);
        if (row == LEDGER_ROWS)
            nanosleep(&(struct timespec){.tv_nsec = 10 * 1000 * 1000}, NULL);
    }
    assert_true(row < LEDGER_ROWS);
    return row;
}

#define DATA_BYTES (64 * MIB)
#define ON_CARD    (CONTEXT_BYTES + DATA_BYTES)

/* Starts a client with data on the card; its row. */
static inline unsigned client_ready(struct stage *stage, struct client *client, struct client_terms terms)
{
    terms.program = "agent_client";
    client_start(stage, client, &terms);
    client_expect(client, "ok", "init %llu", DATA_BYTES);
    return row_of(stage, client);
}

/* Sleeps until a process's word says so. */
static inline void state_await(struct stage *stage, unsigned row, enum ledger_process_state state)
{
    struct ledger *ledger = stage_ledger(stage);
    uint64_t deadline_ns = stage_now_ns() + AGENT_PATIENCE_MS * 1000000ULL;
    for (;;) {
        uint32_t word = ledger_process_word(ledger, row);
        if (process_word_state(word) == state)
            return;
        if (stage_now_ns() > deadline_ns)
            fail_msg("row %u is %s and not %s after a minute", row, ledger_process_state_name(process_word_state(word)),
                     ledger_process_state_name(state));
        (void)ledger_process_sleep(ledger, row, word, 100);
    }
}

/* Asks as the operator's command does. Returns the word of the ask. */
static inline uint32_t ask(struct stage *stage, unsigned row)
{
    uint32_t word;
    state_await(stage, row, LEDGER_PROCESS_RUNNING);
    assert_int_equal(ledger_process_ask(stage_ledger(stage), row, LEDGER_ROWS, &word), 0);
    return word;
}

static inline void evict(struct stage *stage, unsigned row)
{
    (void)ask(stage, row);
    state_await(stage, row, LEDGER_PROCESS_EVICTED);
}

/* The newest event of a kind since `since`, waited for. */
static inline struct ledger_event_record event_await(struct stage *stage, enum ledger_event_kind kind, uint64_t since)
{
    struct ledger *ledger = stage_ledger(stage);
    uint64_t deadline_ns = stage_now_ns() + AGENT_PATIENCE_MS * 1000000ULL;
    for (;;) {
        struct ledger_event_record event;
        uint64_t count = ledger_event_count(ledger);
        for (uint64_t number = count; number > since; number--)
            if (ledger_event_read(ledger, number, &event) && event.kind == kind)
                return event;
        if (stage_now_ns() > deadline_ns)
            fail_msg("no %s in the ring after a minute", ledger_event_name(kind));
        ledger_events_sleep(ledger, count, 100);
    }
}

#endif
