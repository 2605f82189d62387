/*
 * What must hold of the states of processes, whatever they do; see check.h. A state and bytes are never changed at the same instant, so a
 * check that does not hold counts only where it fails every time (cmd_check.c).
 */
#include "config.h"

#include <time.h>
#include "cli/check.h"

enum { PATIENCE_S = 10 }; /* who was asked answers in less than a second, unless it is stopped and its asker too */

static uint64_t clock_now_ns(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000000000U + (uint64_t)now.tv_nsec;
}

static unsigned long long large(uint64_t value)
{
    return value;
}

/* What it is charged by kind is what it has, on the card or off it; what is in flight may be in one and not yet in the other. */
static bool kinds_agree(const struct snapshot_process *process, uint64_t *kinds_bytes)
{
    uint64_t held = process->used_bytes + process->evicted_bytes;
    *kinds_bytes = 0;
    for (unsigned kind = 0; kind < LEDGER_KIND_COUNT; kind++)
        *kinds_bytes += process->by_kind[kind];
    uint64_t differs = *kinds_bytes > held ? *kinds_bytes - held : held - *kinds_bytes;
    return differs <= process->in_flight_bytes;
}

static void kinds_check(struct check_list *list, const struct snapshot *snapshot)
{
    unsigned wrong = 0;
    for (unsigned i = 0; i < snapshot->process_count; i++) {
        const struct snapshot_process *process = &snapshot->processes[i];
        uint64_t kinds_bytes;
        if (process->row_state != LEDGER_ROW_LIVE || process->device < 0 || kinds_agree(process, &kinds_bytes))
            continue;
        check_add(list, false,
                  "device %u: process %u has %llu bytes by kind, and %llu on the card and %llu off it, %llu in flight",
                  snapshot->devices[process->device].index, process->pid, large(kinds_bytes),
                  large(process->used_bytes), large(process->evicted_bytes), large(process->in_flight_bytes));
        wrong++;
    }
    if (wrong == 0)
        check_add(list, true, "what each process holds, on the card or off it, is what it is charged by kind");
}

/* Charged for its way back, and so in flight, is all that an evicted process may have; and who runs has nothing off the card. */
static void evicted_check(struct check_list *list, const struct snapshot *snapshot)
{
    unsigned wrong = 0;
    for (unsigned i = 0; i < snapshot->process_count; i++) {
        const struct snapshot_process *process = &snapshot->processes[i];
        bool evicted = process->process_state == LEDGER_PROCESS_EVICTED,
             running =
                 process->process_state == LEDGER_PROCESS_RUNNING || process->process_state == LEDGER_PROCESS_NO_AGENT;
        if (process->row_state != LEDGER_ROW_LIVE)
            continue;
        if (evicted && process->used_bytes > process->in_flight_bytes) {
            check_add(list, false, "process %u is evicted, and is charged %llu bytes", process->pid,
                      large(process->used_bytes));
            wrong++;
        }
        if (running && process->evicted_bytes != 0) {
            check_add(list, false, "process %u is on the card, and %llu bytes of it are off it", process->pid,
                      large(process->evicted_bytes));
            wrong++;
        }
    }
    if (wrong == 0)
        check_add(list, true, "who is evicted is charged nothing, and who runs has nothing off the card");
}

static void answers_check(struct check_list *list, const struct snapshot *snapshot)
{
    unsigned wrong = 0;
    uint64_t now_ns = clock_now_ns();
    for (unsigned i = 0; i < snapshot->process_count; i++) {
        const struct snapshot_process *process = &snapshot->processes[i];
        uint64_t since_s = now_ns > process->state_since_ns ? (now_ns - process->state_since_ns) / 1000000000U : 0;
        if (process->row_state != LEDGER_ROW_LIVE || process->row != process->leader ||
            process->process_state != LEDGER_PROCESS_ASKED || since_s <= PATIENCE_S)
            continue;
        check_add(list, false, "process %u was asked to leave %llu s ago and has not answered", process->pid,
                  large(since_s));
        wrong++;
    }
    if (wrong == 0)
        check_add(list, true, "nobody was asked to leave more than %d s ago without an answer", PATIENCE_S);
}

/* What is wrong with a process's place in line, or NULL. */
static const char *place_fault(const struct snapshot_process *process)
{
    if (process->row_state != LEDGER_ROW_LIVE)
        return process->stands_in_line ? "has ended, and still stands in line" : NULL;
    if (process->wait.kind == LEDGER_WAITING_NOT)
        return NULL;
    if (process->wait.bytes == 0)
        return "stands in line, and waits for nothing";
    return process->is_overdue ? "stands in line, more than 10 s after it was to give up" : NULL;
}

static void line_check(struct check_list *list, const struct snapshot *snapshot)
{
    unsigned wrong = 0;
    for (unsigned i = 0; i < snapshot->process_count; i++) {
        const struct snapshot_process *process = &snapshot->processes[i];
        const char *fault = process->row == process->leader ? place_fault(process) : NULL;
        if (fault == NULL)
            continue;
        check_add(list, false, "process %u %s", process->pid, fault);
        wrong++;
    }
    if (wrong == 0)
        check_add(list, true, "who stands in line lives, waits for something, and has time left");
}

void check_states(struct check_list *list, const struct snapshot *snapshot)
{
    kinds_check(list, snapshot);
    evicted_check(list, snapshot);
    answers_check(list, snapshot);
    line_check(list, snapshot);
}
