/*
 * The driver's checkpoint: a process's device memory and contexts moved to the host and back, by itself or by another process
 * of the same machine. call.c says who is inside the driver and keeps out who must stay out; mail.c brings another process's
 * request to the process it is about; checkpoint.c does the work there. Each file says what synchronises it.
 */
#ifndef SIM_CHECKPOINT_H
#define SIM_CHECKPOINT_H

#include "sim/sim.h"

enum { CHECKPOINT_LOCK = 1, CHECKPOINT_CHECKPOINT, CHECKPOINT_RESTORE, CHECKPOINT_UNLOCK };

/* Before the first call; best while the process has one thread, for which the kernel is quicker. */
void calls_prepare(void);
/* Marks the calling thread as inside, or waits until it may go in. 0; OPERATING_SYSTEM: it may not; OUT_OF_MEMORY; only after 0
 * call_end is due. A call that meets a checkpointed driver where the real one crashes does not return. */
CUresult call_begin(const char *name);
/* Waits while the process's driver is locked. */
void call_await_running(void);
/* Whether the calling thread is inside a call (in a callback). */
bool call_is_inside(void);
/* Waits until nobody is inside that was there before the state was changed. False: not until the deadline (0: none). */
bool calls_await(uint64_t deadline_ms);
/* For a call that was ordered to hang. */
_Noreturn void call_hang(void);

/* Changes the process's own state, and wakes who waits for that. */
void state_set(uint32_t state);
uint32_t state_get(void);

/* The process of a pid and its number, for mail_ask. NULL: none that has called cuInit and lives. */
struct machine_process *process_of_pid(int pid, uint64_t *number);
/* Has a request done by another process. Its CUresult; NOT_READY: not begun until its deadline; NOT_INITIALIZED: it has died. */
CUresult mail_ask(struct machine_process *process, uint64_t number, const struct machine_request *request);
/* Waits for the next request to this process / answers it. */
void mail_take(struct machine_request *request);
void mail_answer(CUresult result);

/* Starts the thread that serves the mail. Without one the process has no checkpoint. */
void checkpoint_start(void);

#endif
