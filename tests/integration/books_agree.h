/* What the ledger has committed of each device beside what the witness counts there. Used by the tests of this folder. */
#ifndef TESTS_BOOKS_AGREE_H
#define TESTS_BOOKS_AGREE_H

#include <time.h>

#include "integration/stage.h"

/* Of the machine's first device, the dead counted in. */
static inline void books_agree(struct stage *stage)
{
    assert_int_equal(stage_used(stage) + stage_dead(stage), stage_witness_used(stage));
}

/* Of one device, by the machine's number; 0 where the ledger does not know it yet. */
static inline uint64_t books_of(struct stage *stage, unsigned device)
{
    struct snapshot snapshot;
    stage_snapshot(stage, &snapshot);
    uint64_t bytes = device < snapshot.device_count ? snapshot.devices[device].used_bytes : 0;
    for (unsigned i = 0; i < snapshot.process_count; i++)
        assert_int_equal(snapshot.processes[i].in_flight_bytes, 0);
    snapshot_free(&snapshot);
    return bytes;
}

static inline uint64_t machine_of(struct stage *stage, unsigned device)
{
    struct sim_figures figures;
    assert_int_equal(sim_machine_read(stage->directory, "default", &figures), 0);
    return figures.device[device].used_bytes;
}

static inline uint64_t peak_of(struct stage *stage, unsigned device)
{
    struct sim_figures figures;
    assert_int_equal(sim_machine_read(stage->directory, "default", &figures), 0);
    return figures.device[device].peak_bytes;
}

/* Looks until both are, or fails the test after a minute: a descriptor that was closed is seen to be at the process's next
 * look, in the books as in the machine. */
static inline void books_await(struct stage *stage, unsigned device, uint64_t bytes)
{
    enum { LOOKS = 6000 };
    for (int look = 0; look < LOOKS; look++) {
        if (books_of(stage, device) == bytes && machine_of(stage, device) == bytes)
            return;
        nanosleep(&(struct timespec){.tv_nsec = 10 * 1000 * 1000}, NULL);
    }
    fail_msg("device %u: the books are %llu, the machine has %llu", device, (unsigned long long)books_of(stage, device),
             (unsigned long long)machine_of(stage, device));
}

/* The books are those bytes, and the machine's. */
#define books_are(stage, device, bytes)                                                                                \
    do {                                                                                                               \
        assert_int_equal(books_of(stage, device), bytes);                                                              \
        assert_int_equal(machine_of(stage, device), bytes);                                                            \
    } while (0)

#endif
