/* What sim/machine.h does not declare yet. Goes together with machine_pending.c. */
#ifndef CLI_MACHINE_PENDING_H
#define CLI_MACHINE_PENDING_H

#include <stddef.h>
#include "sim/machine.h"

int sim_options_check(const char *text, char *fault, size_t fault_bytes);

#endif
