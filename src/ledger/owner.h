/*
 * Who a process is, as its rows tell people: pid, PID namespace and start time. Private to src/ledger.
 * Never used to decide whether a process lives (the locks do that), only to know one's own rows again.
 */
#ifndef LEDGER_OWNER_H
#define LEDGER_OWNER_H

#include <stdbool.h>
#include <stdint.h>
#include <cubudget/ledger_abi.h>

struct row_owner {
    uint32_t pid;
    uint64_t pid_namespace, start_ticks; /* 0: unknown, no /proc */
};

void owner_read(struct row_owner *owner);
bool owner_is(const struct row_owner *owner, const struct ledger_row *row);

/* Whether the process that a row names is surely gone, as far as a process of its own PID namespace can tell; for people. The
 * driver may keep the address space of a killed process, and with it the life byte, while a forked child holds the
 * driver's descriptors (seen on an H100): its row is LIVE then, and charged, and nobody is there. */
bool owner_is_gone(const struct row_owner *self, const struct ledger_row *row);

#endif
