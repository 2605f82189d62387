/* Choosing victims; policy.h has the rules and who calls it. */
#include "config.h"

#include <string.h>
#include "account/policy.h"
#include "ledger/process.h"
#include "platform/env.h"

/* Bytes of each slot that are on the device, less what was chosen. */
struct stock {
    uint64_t used_bytes[LEDGER_SLOTS];
};

static uint64_t less(uint64_t a, uint64_t b)
{
    return a > b ? a - b : 0;
}

static void stock_take(const struct policy_question *question, struct stock *stock)
{
    memset(stock, 0, sizeof *stock);
    for (unsigned i = 0; i < question->count; i++)
        if (question->residents[i].slot < LEDGER_SLOTS)
            stock->used_bytes[question->residents[i].slot] += question->residents[i].bytes;
}

/* What others could have once the process of `leader` has left; the stock is then what is left. */
static uint64_t process_take(const struct policy_question *question, unsigned leader, struct stock *stock)
{
    uint64_t gain = 0;
    for (unsigned i = 0; i < question->count; i++) {
        const struct ledger_resident *row = &question->residents[i];
        if (row->leader != leader || row->slot >= LEDGER_SLOTS)
            continue;
        uint64_t *used = &stock->used_bytes[row->slot];
        uint64_t kept = row->slot == question->slot ? 0 : question->reserves[row->slot];
        gain += less(*used, kept) - less(less(*used, row->bytes), kept);
        *used = less(*used, row->bytes);
    }
    return gain;
}

static bool is_first_of_process(const struct policy_question *question, unsigned at)
{
    for (unsigned i = 0; i < at; i++)
        if (question->residents[i].leader == question->residents[at].leader)
            return false;
    return true;
}

static bool is_leaving(const struct ledger_resident *process)
{
    switch (process_word_state(process->word)) {
    case LEDGER_PROCESS_ASKED:
        return process->state_ms < POLICY_ASKED_MS;
    case LEDGER_PROCESS_EVICTING:
        return process->state_ms < POLICY_EVICTING_MS + (process->bytes >> 20);
    default:
        return false;
    }
}

/* The most that any of its slots' priorities says: a process is moved as a whole. */
static uint32_t process_priority(const struct policy_question *question, unsigned leader)
{
    uint32_t priority = 0;
    for (unsigned i = 0; i < question->count; i++)
        if (question->residents[i].leader == leader && question->residents[i].priority > priority)
            priority = question->residents[i].priority;
    return priority;
}

static bool may_be_asked(const struct policy_question *question, const struct ledger_resident *process)
{
    return process->leader != question->leader && process->evictable &&
           process_word_state(process->word) == LEDGER_PROCESS_RUNNING && process->ticket >= question->ticket &&
           process_priority(question, process->leader) < SETTINGS_PRIORITY_MAX;
}

/* From when on it may be. */
static uint64_t asked_from_ms(const struct ledger_resident *process)
{
    uint64_t since = process->resident_ms > process->declined_ms ? process->resident_ms : process->declined_ms;
    return since == 0 ? 0 : since + POLICY_RESIDENCY_MS;
}

/* Whether `a` goes before `b`. */
static bool goes_before(const struct policy_question *question, const struct ledger_resident *a,
                        const struct ledger_resident *b)
{
    uint32_t first = process_priority(question, a->leader), second = process_priority(question, b->leader);
    uint64_t idle_a = less(question->now_ms, a->referenced_ms) / POLICY_STEP_MS;
    uint64_t idle_b = less(question->now_ms, b->referenced_ms) / POLICY_STEP_MS;
    if (first != second)
        return first < second;
    if (idle_a != idle_b)
        return idle_a > idle_b;
    return a->resident_ms < b->resident_ms;
}

static bool is_chosen(const struct policy_answer *answer, unsigned leader)
{
    for (unsigned i = 0; i < answer->count; i++)
        if (answer->victims[i].row == leader)
            return true;
    return false;
}

/* The next to go; -1: there is none. */
static int next_find(const struct policy_question *question, const struct policy_answer *answer,
                     const struct stock *stock, bool later)
{
    int best = -1;
    for (unsigned i = 0; i < question->count; i++) {
        const struct ledger_resident *process = &question->residents[i];
        struct stock left = *stock;
        if (!is_first_of_process(question, i) || !may_be_asked(question, process) ||
            is_chosen(answer, process->leader) || (!later && asked_from_ms(process) > question->now_ms) ||
            process_take(question, process->leader, &left) == 0)
            continue;
        if (best < 0 || goes_before(question, process, &question->residents[best]))
            best = (int)i;
    }
    return best;
}

/* Chooses until there is enough. Returns what is gained. */
static uint64_t choose(const struct policy_question *question, uint64_t missing, struct stock stock, bool later,
                       struct policy_answer *answer)
{
    uint64_t gain = 0;
    answer->count = 0;
    answer->until_ms = 0;
    while (gain < missing && answer->count < POLICY_VICTIMS) {
        int at = next_find(question, answer, &stock, later);
        if (at < 0)
            break;
        const struct ledger_resident *process = &question->residents[at];
        uint64_t from_ms = asked_from_ms(process);
        if (from_ms > answer->until_ms)
            answer->until_ms = from_ms;
        answer->victims[answer->count].row = process->leader;
        answer->victims[answer->count].bytes = process_take(question, process->leader, &stock);
        gain += answer->victims[answer->count++].bytes;
    }
    return gain;
}

/* Leaves out who is not needed, the one that would go last first. Where slots' reserves make gains depend on each other the sum is
 * an estimate, and who waits asks again. */
static void spare(struct policy_answer *answer, uint64_t gain, uint64_t missing)
{
    for (unsigned i = answer->count; i-- > 0;) {
        if (gain - answer->victims[i].bytes < missing)
            continue;
        gain -= answer->victims[i].bytes;
        memmove(&answer->victims[i], &answer->victims[i + 1], (answer->count - i - 1) * sizeof answer->victims[0]);
        answer->count--;
    }
}

void policy_choose(const struct policy_question *question, struct policy_answer *answer)
{
    struct stock stock;
    uint64_t missing = question->missing_bytes;
    *answer = (struct policy_answer){.verdict = POLICY_COMING};
    stock_take(question, &stock);
    for (unsigned i = 0; i < question->count; i++)
        if (is_first_of_process(question, i) && question->residents[i].leader != question->leader &&
            is_leaving(&question->residents[i]))
            missing = less(missing, process_take(question, question->residents[i].leader, &stock));
    if (missing == 0)
        return;
    uint64_t gain = choose(question, missing, stock, false, answer);
    if (gain >= missing) {
        answer->verdict = POLICY_ASK;
        spare(answer, gain, missing);
        return;
    }
    answer->verdict = choose(question, missing, stock, true, answer) >= missing ? POLICY_LATER : POLICY_NOBODY;
    answer->count = 0;
}
