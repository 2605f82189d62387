/*
 * The thunks of thunk_entry.S by themselves, beneath functions of this file: that every argument, in registers and on the stack,
 * and every kind of result comes through, the first time, at a closed gate, and on the straight way. Built for the machine it
 * runs on, and for another beneath an emulator, by tests/integration/thunks. Prints "N passed, N failed".
 */
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "interpose/thunk.h"

/* What thunk_entry.S wants of the library. */
extern _Atomic(uint32_t) gate_shut;
extern _Atomic(uintptr_t) thunk_targets[];
extern const char thunk_pool[];

enum {
#define SAFE(symbol, class, parameters) NUMBER_##symbol,
#define BARE(symbol, class)             NUMBER_##symbol,
#include "interpose/hooks.def"
    NAMED
};
_Atomic(uint32_t) gate_shut;
_Atomic(uintptr_t) thunk_targets[NAMED + THUNK_POOL];

#define SAFE(symbol, class, parameters) int symbol(void);
#define BARE(symbol, class)             int symbol(void);
#include "interpose/hooks.def"

static unsigned passed, failed, arrived;
static uintptr_t arrived_real;
static unsigned arrived_number;

static void check(int holds, const char *what)
{
    if (holds) {
        passed++;
        return;
    }
    failed++;
    printf("FAILED %s\n", what);
}

/* Uses up what a function may change: whatever the thunk had not put away is gone. */
static __attribute__((noinline)) double registers_spoil(double value)
{
#if defined(__x86_64__)
    __asm__ volatile("xor %%eax, %%eax; xor %%ecx, %%ecx; xor %%edx, %%edx; xor %%esi, %%esi; xor %%edi, %%edi;"
                     "xor %%r8d, %%r8d; xor %%r9d, %%r9d; xor %%r10d, %%r10d; xor %%r11d, %%r11d;"
                     "pxor %%xmm0, %%xmm0; pxor %%xmm1, %%xmm1; pxor %%xmm2, %%xmm2; pxor %%xmm3, %%xmm3;"
                     "pxor %%xmm4, %%xmm4; pxor %%xmm5, %%xmm5; pxor %%xmm6, %%xmm6; pxor %%xmm7, %%xmm7;" ::
                         : "rax", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "xmm0", "xmm1", "xmm2", "xmm3",
                           "xmm4", "xmm5", "xmm6", "xmm7");
#elif defined(__aarch64__)
    __asm__ volatile("mov x0, 0; mov x1, 0; mov x2, 0; mov x3, 0; mov x4, 0; mov x5, 0; mov x6, 0; mov x7, 0;"
                     "mov x8, 0; mov x9, 0; mov x16, 0; mov x17, 0; movi v0.2d, 0; movi v1.2d, 0; movi v2.2d, 0;"
                     "movi v3.2d, 0; movi v4.2d, 0; movi v5.2d, 0; movi v6.2d, 0; movi v7.2d, 0;" ::
                         : "x0", "x1", "x2", "x3", "x4", "x5", "x6", "x7", "x8", "x9", "x16", "x17", "v0", "v1", "v2",
                           "v3", "v4", "v5", "v6", "v7");
#endif
    return value;
}

void *thunk_arrive(unsigned number)
{
    arrived++;
    arrived_number = number;
    check(((uintptr_t)__builtin_frame_address(0) & 15) == 0, "the stack is aligned as calls want it");
    (void)registers_spoil(1);
    atomic_store(&gate_shut, 0);
    return (void *)arrived_real;
}

struct wide {
    uint64_t words[8];
};

static uint64_t seen[16];
static double seen_real[10];
static struct wide seen_wide;

static int take_all(uint64_t a, double p, uint64_t b, double q, uint64_t c, double r, uint64_t d, double s, uint64_t e,
                    double t, uint64_t f, double u, uint64_t g, double v, uint64_t h, double w, struct wide wide,
                    uint64_t i, double x, uint64_t j, double y)
{
    const uint64_t words[] = {a, b, c, d, e, f, g, h, i, j};
    const double reals[] = {p, q, r, s, t, u, v, w, x, y};
    memcpy(seen, words, sizeof(words));
    memcpy(seen_real, reals, sizeof(reals));
    seen_wide = wide;
    return -77;
}
typedef __typeof__(take_all) all_call;

static struct wide make_wide(uint64_t first)
{
    struct wide wide;
    for (unsigned i = 0; i < 8; i++)
        wide.words[i] = first + i;
    return wide;
}
typedef __typeof__(make_wide) wide_call;

static double make_real(double value)
{
    return value * 2;
}
typedef __typeof__(make_real) real_call;

static void all_check(uintptr_t thunk, const char *what)
{
    char text[128];
    all_call *call;
    struct wide wide = make_wide(100);
    int right = 1;
    memcpy(&call, &thunk, sizeof(call));
    memset(seen, 0, sizeof(seen));
    memset(seen_real, 0, sizeof(seen_real));
    memset(&seen_wide, 0, sizeof(seen_wide));
    int result = call(UINT64_MAX, 0.5, 2, 1.5, 3, 2.5, 4, 3.5, 5, 4.5, 6, 5.5, 7, 6.5, 8, 7.5, wide, 9, 8.5, 10, 9.5);
    for (unsigned i = 0; i < 10; i++)
        right = right && seen[i] == (i == 0 ? UINT64_MAX : i + 1u) && seen_real[i] == i + 0.5;
    snprintf(text, sizeof(text), "%s: the arguments", what);
    check(right && memcmp(&wide, &seen_wide, sizeof(wide)) == 0, text);
    snprintf(text, sizeof(text), "%s: the result", what);
    check(result == -77, text);
}

static void results_check(uintptr_t thunk)
{
    wide_call *wide;
    real_call *real;
    memcpy(&wide, &thunk, sizeof(wide));
    memcpy(&real, &thunk, sizeof(real));
    for (unsigned shut = 0; shut < 2; shut++) {
        arrived_real = (uintptr_t)make_wide;
        atomic_store(&thunk_targets[NAMED], arrived_real);
        atomic_store(&gate_shut, shut);
        check(wide(7).words[7] == 14, "a result in memory");
        arrived_real = (uintptr_t)make_real;
        atomic_store(&thunk_targets[NAMED], arrived_real);
        atomic_store(&gate_shut, shut);
        check(real(21.25) == 42.5, "a result in a vector register");
    }
}

/* Each thunk has a number of its own, and its place is where C believes it. */
static void numbers_check(void)
{
    static int (*const named[])(void) = {
#define SAFE(symbol, class, parameters) symbol,
#define BARE(symbol, class)             symbol,
#include "interpose/hooks.def"
    };
    unsigned right = 0;
    arrived_real = (uintptr_t)take_all;
    for (unsigned i = 0; i < NAMED + THUNK_POOL; i++) {
        uintptr_t address = i < NAMED ? (uintptr_t)named[i] : (uintptr_t)thunk_pool + ((i - NAMED) << THUNK_SHIFT);
        int (*call)(void);
        memcpy(&call, &address, sizeof(call));
        real_call *real;
        memcpy(&real, &address, sizeof(real));
        arrived_real = (uintptr_t)make_real;
        arrived = 0;
        right += real(4) == 8 && arrived == 1 && arrived_number == i;
    }
    check(right == NAMED + THUNK_POOL, "each thunk arrives with its own number");
}

int main(void)
{
    uintptr_t thunk = (uintptr_t)thunk_pool;
    numbers_check();
    arrived_real = (uintptr_t)take_all;
    all_check(thunk, "the first call");
    atomic_store(&thunk_targets[NAMED], arrived_real);
    arrived = 0;
    all_check(thunk, "the straight way");
    check(arrived == 0, "it is straight");
    atomic_store(&gate_shut, 1);
    all_check(thunk, "a closed gate");
    check(arrived == 1, "it arrives there");
    results_check(thunk);
    printf("%u passed, %u failed\n", passed, failed);
    return failed ? 1 : 0;
}
