/*
 * The board of the trials: what a runner (runner.c) tells whoever started it, and is told, without a pipe that either could hang
 * on. A file of RUNNER_PLACES places that both map; each word is written by one side alone, atomically.
 */
#ifndef TESTS_RUNNER_H
#define TESTS_RUNNER_H

#include <stdatomic.h>
#include <stdint.h>

enum { RUNNER_PLACES = 32 };

enum runner_state {
    RUNNER_STARTING, /* it has not all its memory yet */
    RUNNER_WORKING,
    RUNNER_PARKED, /* inside no call of the driver, and makes none until it may */
    RUNNER_DONE,
};

/* What it is told. */
enum runner_order { RUNNER_GO, RUNNER_PARK, RUNNER_END };

struct runner_place {
    _Atomic uint32_t order; /* enum runner_order; by who started it, as is nothing else */
    _Atomic uint32_t pid;   /* the rest by the runner */
    _Atomic uint32_t state;
    _Atomic uint32_t wrong;   /* windows whose bytes were not what they should be, and calls that failed */
    _Atomic uint64_t rounds;  /* done */
    _Atomic uint64_t steps;   /* calls that came back */
    _Atomic uint64_t refused; /* requests for memory that were */
};

struct runner_board {
    struct runner_place places[RUNNER_PLACES];
};

/* How a runner ends. */
enum { RUNNER_EXIT_WRONG = 1, RUNNER_EXIT_REFUSED = 3, RUNNER_EXIT_USAGE = 64 };

#endif
