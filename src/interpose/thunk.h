/*
 * Thunks, from C: who hands one out for a function that has no wrapper. Called by resolve.c; thunk_entry.S has the code of them and says
 * when it calls back. A thunk stands for one real function for good, and each real function has one.
 */
#ifndef INTERPOSE_THUNK_H
#define INTERPOSE_THUNK_H

#define THUNK_POOL  1024 /* functions unknown when this was built: far more than a driver can have new */
#define THUNK_SHIFT 6    /* 64 bytes each */

#ifndef __ASSEMBLER__

/* What stands for a function of the driver's that hooks.def does not have: a thunk; where there are none left the function itself,
 * and then the process stays on the card. Called by any thread; what was handed out once is found without a lock. */
void *thunk_for(void *real, const char *name);

/* Waits at the gate and says where the call goes on. Called by thunk_entry.S alone. */
void *thunk_arrive(unsigned number);

#endif
#endif
