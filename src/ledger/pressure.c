/* How full a device is, in four words; and the names of kinds. Pure functions, called by the snapshot and the command. */
#include "config.h"

#include "ledger/snapshot.h"

enum pressure_level pressure_of(uint64_t used_bytes, uint64_t budget_bytes)
{
    /* In hundredths of both sides, wide enough that no size overflows and no boundary is rounded. */
    unsigned __int128 used = (unsigned __int128)used_bytes * 100, budget = budget_bytes;
    if (budget_bytes == 0 || used > budget * 95)
        return PRESSURE_CRITICAL;
    if (used > budget * 80)
        return PRESSURE_HIGH;
    return used >= budget * 50 ? PRESSURE_MEDIUM : PRESSURE_LOW;
}

const char *pressure_name(enum pressure_level level)
{
    static const char *const names[] = {
        [PRESSURE_LOW] = "low",
        [PRESSURE_MEDIUM] = "medium",
        [PRESSURE_HIGH] = "high",
        [PRESSURE_CRITICAL] = "critical",
    };
    return (unsigned)level < sizeof names / sizeof *names ? names[level] : "?";
}

const char *ledger_kind_name(enum ledger_kind kind)
{
    static const char *const names[LEDGER_KIND_COUNT] = {
        [LEDGER_KIND_LINEAR] = "linear", [LEDGER_KIND_MANAGED] = "managed", [LEDGER_KIND_CONTEXT] = "context",
        [LEDGER_KIND_POOL] = "pool",     [LEDGER_KIND_VMM] = "vmm",         [LEDGER_KIND_ARRAY] = "array",
        [LEDGER_KIND_GRAPH] = "graph",   [LEDGER_KIND_MODULE] = "module",
    };
    return (unsigned)kind < LEDGER_KIND_COUNT ? names[kind] : "?";
}
