/*
 * Slots of a process beside its own: a thread pushes one, and what it allocates is charged to a row there. Called by src/api
 * through account.h, and by account.c where the process attaches.
 *
 * Which slots there are is the process's, under `claiming` (rows are added under `books` too, whose holders read them); which
 * is pushed is the thread's, and ends with it. A row that was claimed is kept: it may be credited at any time.
 */
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include "account/state.h"
#include "ledger/process.h"
#include "platform/log.h"

enum { PUSHES_MAX = 32, FOLLOW_LOOKS = 10, FOLLOW_LOOK_MS = 1000 };

__thread unsigned char row_here;

/* What was current before each push of this thread. */
static __thread struct {
    unsigned char before[PUSHES_MAX];
    unsigned char depth;
} pushed;

_Static_assert(ACCOUNT_ROWS <= 256, "a row's number is one byte");

void slot_name_own(char name[LEDGER_NAME_BYTES])
{
    if (account_settings.slot[0] != '\0')
        memcpy(name, account_settings.slot, LEDGER_NAME_BYTES);
    else
        name_from_executable(name);
}

void slots_forget(void)
{
    row_here = 0;
    pushed.depth = 0;
}

/* One row in the slot of that name. 0, -ESTALE or -errno with the fault filled. */
static int slot_row_claim(struct ledger *ledger, const char *name, const char *command, struct ledger_claim *claim,
                          struct ledger_fault *fault)
{
    static const struct slot_terms as_it_is = {0};
    int slot = ledger_slot_claim(ledger, name);
    if (slot < 0) {
        (void)snprintf(fault->text, sizeof fault->text,
                       "the ledger has its %d slots already and '%s' is another; use one of them or another --ledger",
                       LEDGER_SLOTS, name);
        return slot;
    }
    int result = ledger_row_claim(ledger, (unsigned)slot, command, claim);
    if (result != 0) {
        claim_fault(ledger, result, fault);
        return result;
    }
    return ledger_slot_settle(ledger, (unsigned)slot, &as_it_is, fault); /* newcomers may not change its terms now */
}

int slots_claim(const struct account *account, struct opening *opening)
{
    int result = 0;
    while (result == 0 && opening->rows < account->rows) {
        result = slot_row_claim(opening->ledger, account->slot[opening->rows], account->command,
                                &opening->claim[opening->rows], &opening->fault);
        if (result == 0)
            ledger_lead(opening->ledger, opening->claim[opening->rows].row, opening->claim[0].row);
        opening->rows += result == 0;
    }
    return result;
}

/* Adds a row under that name; claims it where the process is attached. Under `claiming`. */
static int row_add(struct account *account, const char *name, struct account_fault *fault)
{
    struct ledger_claim claim = {0};
    struct ledger_fault why = {""};
    if (account->rows == ACCOUNT_ROWS) {
        (void)snprintf(fault->text, sizeof fault->text, "a process charges to at most %d slots", ACCOUNT_ROWS);
        return -ENOSPC;
    }
    if (account_get() != NULL) {
        int result = slot_row_claim(account->ledger, name, account->command, &claim, &why);
        if (result != 0) {
            (void)snprintf(fault->text, sizeof fault->text, "%s", why.text);
            return result;
        }
    }
    biased_lock_take(&account->books);
    if (claim.held)
        ledger_lead(account->ledger, claim.row, own_leader(account));
    memcpy(account->slot[account->rows], name, strlen(name) + 1);
    account->row[account->rows++].claim = claim;
    biased_lock_give(&account->books);
    return 0;
}

/* The number of the row under that name, added where there is none; -errno. Under `claiming`. */
static int row_find(struct account *account, const char *name, struct account_fault *fault)
{
    if (account->rows == 0) /* a forked child's pages, or new ones */
        account->rows = 1;
    if (account->slot[0][0] == '\0')
        slot_name_own(account->slot[0]);
    for (unsigned i = 0; i < account->rows; i++)
        if (strcmp(account->slot[i], name) == 0)
            return (int)i;
    int result = row_add(account, name, fault);
    return result == 0 ? (int)account->rows - 1 : result;
}

/* The same where the ledger was removed a moment ago: the thread that looks after the row moves it to another within a second or so, and is
 * waited for; where there is none, nobody else looks at the ledger now and then, and we move. */
static int row_find_now(struct account *account, const char *name, struct account_fault *fault)
{
    for (unsigned looks = 0;; looks++) {
        uint32_t moves = atomic_load(&account->moves);
        claiming_take(account);
        int row = row_find(account, name, fault);
        bool stale = row == -ESTALE;
        if (stale && atomic_load(&account->ticked) == 0)
            account_follow(account);
        bool stranded = account->stranded;
        claiming_give(account);
        if (!stale)
            return row;
        if (stranded || looks == FOLLOW_LOOKS) {
            (void)snprintf(
                fault->text, sizeof fault->text,
                "the ledger '%s' was removed and could not be made again; see to its directory, and try again",
                account_settings.ledger);
            return row;
        }
        (void)futex_wait(&account->moves, moves, FOLLOW_LOOK_MS);
    }
}

int account_slot_push(const char *name, struct account_fault *fault)
{
    struct account *account = atomic_load_explicit(&account_current, memory_order_acquire);
    struct settings_fault why;
    int before = errno;
    if (name_validate("slot", name, &why) != 0) {
        (void)snprintf(fault->text, sizeof fault->text, "%s", why.text);
        return -EINVAL;
    }
    if (pushed.depth == PUSHES_MAX) {
        (void)snprintf(fault->text, sizeof fault->text, "a thread has at most %d slots pushed", PUSHES_MAX);
        return -ENOSPC;
    }
    if (account == NULL && account_make(&account, fault) != 0)
        return -ENOMEM;
    int row = row_find_now(account, name, fault);
    errno = before;
    if (row < 0)
        return row;
    pushed.before[pushed.depth++] = row_here;
    row_here = (unsigned char)row;
    return 0;
}

bool account_slot_pop(void)
{
    if (pushed.depth == 0)
        return false;
    row_here = pushed.before[--pushed.depth];
    return true;
}

void account_slot_name(char name[LEDGER_NAME_BYTES])
{
    struct account *account = atomic_load_explicit(&account_current, memory_order_acquire);
    if (account == NULL) {
        slot_name_own(name);
        return;
    }
    claiming_take(account);
    unsigned row = row_here < account->rows ? row_here : 0;
    if (account->slot[row][0] != '\0')
        memcpy(name, account->slot[row], LEDGER_NAME_BYTES);
    else
        slot_name_own(name);
    claiming_give(account);
}
