/*
 * A ledger file that was removed or replaced under running programs (logind's RemoveIPC, somebody's rm): the process moves
 * its charges to the file that is there now. Called by the thread of src/evict about once a second; in a process that has none,
 * by who needs a row (slots.c).
 */
#include "config.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include "account/pools.h"
#include "account/state.h"
#include "ledger/process.h"
#include "platform/log.h"
#include "platform/size.h"

enum { BETWEEN_MOVES_MS = 900 };

/* Unmaps the ledger of the move before the last: no thread has looked into it for a second or so. */
static void ledger_drop(struct ledger *ledger)
{
    if (ledger == NULL)
        return;
    ledger_close(ledger);
    (void)munmap(ledger, sizeof *ledger);
}

static uint64_t now_of_move_ms(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* The directory a ledger lies in, from its path. */
static void directory_of(const struct ledger *ledger, char directory[PATH_MAX])
{
    memcpy(directory, ledger->path, PATH_MAX);
    char *slash = strrchr(directory, '/');
    if (slash != NULL)
        *slash = '\0';
}

/* Moves everything under the books' lock. False: a thread's bid stands in the old row; next time. */
static bool charges_move(struct account *account, const struct opening *opening, uint64_t *moved_bytes)
{
    struct ledger *before = account->ledger;
    struct ledger_claim claims[ACCOUNT_ROWS];
    unsigned rows = account->rows;
    bool bidding = false;
    biased_lock_take(&account->books);
    for (unsigned i = 0; i < rows; i++)
        bidding = bidding || account->row[i].bidding;
    if (bidding) {
        biased_lock_give(&account->books);
        return false;
    }
    *moved_bytes = 0;
    for (unsigned i = 0; i < account->devices; i++) {
        unsigned old_index = account->device[i].index;
        for (unsigned row = 0; row < rows; row++) {
            unsigned from = account->row[row].claim.row, to = opening->claim[row].row;
            *moved_bytes += ledger_committed(before, from, old_index);
            ledger_row_copy(before, from, old_index, opening->ledger, to, opening->index[i]);
        }
        account->device[i].index = opening->index[i];
    }
    for (unsigned row = 0; row < rows; row++) {
        claims[row] = account->row[row].claim;
        ledger_counts_copy(before, claims[row].row, opening->ledger, opening->claim[row].row);
        account->row[row].claim = opening->claim[row];
    }
    ledger_process_copy(before, claims[0].row, opening->ledger, opening->claim[0].row);
    account->absence.ticket = account->in_line.ticket = LEDGER_NO_TICKET; /* the old line's */
    account->ledger = opening->ledger;
    biased_lock_give(&account->books);
    ledger_process_want_carry(before, claims[0].row, opening->ledger, opening->claim[0].row);
    for (unsigned row = 0; row < rows; row++)
        ledger_row_release(before, &claims[row]);
    ledger_drop(account->ledger_before);
    account->ledger_before = before;
    account->moved_ms = now_of_move_ms();
    return true;
}

/* What the slots had in the old ledger, set by whomever, they have in the new one. */
static void terms_carry(const struct account *account, struct opening *opening)
{
    for (unsigned i = 0; i < account->rows; i++) {
        struct slot_terms terms;
        ledger_slot_terms(account->ledger, account->row[i].claim.slot, &terms);
        if (ledger_slot_settle(opening->ledger, opening->claim[i].slot, &terms, &opening->fault) != 0)
            log_line(LOG_WARN, "slot '%s' in the new ledger: %s", account->slot[i], opening->fault.text);
    }
}

void account_follow(struct account *account)
{
    char directory[PATH_MAX], size[SIZE_TEXT_BYTES];
    struct opening opening;
    uint64_t moved_bytes;
    if (ledger_is_current(account->ledger) != 0) /* somebody was quicker */
        return;
    if (account->ledger_before != NULL && now_of_move_ms() - account->moved_ms < BETWEEN_MOVES_MS)
        return; /* next time */
    directory_of(account->ledger, directory);
    struct ledger_request request = {
        .directory = directory,
        .name = account_settings.ledger,
        .create = true,
        .has_budget = ledger_budget_is_explicit(account->ledger),
        .budget_bytes = ledger_budget(account->ledger),
    };
    int result = opening_make(account, &request, &opening);
    if (result == -EEXIST) { /* somebody made it with a budget of his own: one budget that differs is better than two */
        request.has_budget = false;
        result = opening_make(account, &request, &opening);
    }
    if (result == 0)
        terms_carry(account, &opening);
    if (result != 0) {
        log_line(account->stranded ? LOG_DEBUG : LOG_WARN, "the ledger '%s' is gone and cannot be made again: %s",
                 account_settings.ledger, opening.fault.text);
        account->stranded = true; /* tried again every second, and not told every second */
        return;
    }
    account->stranded = false;
    if (!charges_move(account, &opening, &moved_bytes)) {
        opening_undo(&opening);
        return;
    }
    log_line(LOG_WARN, "the ledger '%s' was removed or replaced; %s of slot '%s' moved to the one that is there now",
             account_settings.ledger, size_format(moved_bytes, size, sizeof size), account->slot[0]);
    atomic_fetch_add(&account->moves, 1);
    futex_wake_all(&account->moves);
}

/* The ledger in use. It stays mapped for a second after it was left. */
static struct ledger *ledger_now(struct account *account)
{
    biased_lock_take(&account->books);
    struct ledger *ledger = account->ledger;
    biased_lock_give(&account->books);
    return ledger;
}

static void ledger_tick(struct account *account)
{
    atomic_store(&account->ticked, 1);
    if (ledger_is_current(ledger_now(account)) == 0) {
        claiming_take(account);
        account_follow(account);
        claiming_give(account);
    }
    ledger_watch_prune(ledger_now(account)); /* by the one thread that replaces it */
}

void account_tick_ledger(void)
{
    struct account *account = account_get();
    int before = errno;
    if (account != NULL)
        ledger_tick(account);
    errno = before;
}

void account_tick(bool quiet)
{
    struct account *account = account_get();
    int before = errno;
    if (account == NULL)
        return;
    ledger_tick(account);
    const struct driver *driver = driver_bound();
    if (driver != NULL && pools_hold()) /* what came free at no call that we know of, or where no call comes any more */
        pools_correct(driver);
    if (!quiet) /* the driver takes nothing by itself where nobody calls it */
        implicit_follow(account);
    biased_lock_take(&account->books);
    handles_look(account);
    for (unsigned i = 0; i < account->rows; i++)
        ledger_row_touch(account->ledger, account->row[i].claim.row);
    biased_lock_give(&account->books);
    errno = before;
}
