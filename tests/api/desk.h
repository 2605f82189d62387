/*
 * What the tests of the C API share: a process that links to the library and uses a simulated GPU, with a directory of its own;
 * and children of it that watch. Used by the programs of this folder.
 */
#ifndef TESTS_DESK_H
#define TESTS_DESK_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <cmocka.h>

#include <cubudget/cubudget.h>

#define MIB           (1024ULL * 1024)
#define GIB           (1024ULL * MIB)
#define CONTEXT_BYTES (527 * MIB) /* what a context costs on the simulated machine */

extern char desk_directory[64];

/* Makes the directory and simulates a machine of `options` there, under that budget. Once in a process. / Removes it. */
void desk_open(const char *options, const char *budget);
void desk_close(void);

/* Fails the test, with what the library had to say, where a call did not end as wanted. */
#define expect_error(wanted, call) desk_expect((wanted), (call), #call, __FILE__, __LINE__)
#define expect_ok(call)            expect_error(CUBUDGET_OK, call)
void desk_expect(enum cubudget_error wanted, enum cubudget_error got, const char *call, const char *file, int line);

/* What the witness says is used of device 0, and was at most. */
uint64_t desk_witness_used(void);
uint64_t desk_witness_peak(void);

/* What the ledger says is used of device 0. */
uint64_t desk_ledger_used(void);

/* Bytes that a slot uses, by the ledger; 0 where there is none of that name. */
uint64_t desk_slot_used(const char *name);

/* How often somebody began to watch device 0 since the last time nobody did. */
unsigned desk_watchers(void);

/* Runs `work` in a forked child, in a new PID namespace where asked for. / Waits for it: what `work` returned, 77 where the
 * namespace was refused, 128 + the signal that ended it. */
pid_t desk_fork(int (*work)(void *context), void *context, int new_pid_namespace);
int desk_join(pid_t pid);

#endif
