/*
 * What the driver takes by itself, at no call that names a size: code that it loads at a kernel's first launch, streams,
 * stacks that it grows. A process whose row says less than NVML says it holds is charged the difference, and given it back when it
 * is gone, so that the books agree with the card within a second or so. Called by account_tick; the driver's calls need no
 * more for it than they do.
 *
 * A reading counts only where nothing of the process was on its way and nothing changed around it (drift.c). It is taken each
 * second while the process allocates, and more and more rarely while it does not: an idle process costs nothing. A process
 * that has imported memory is left alone, for NVML may count that as its own, and it is charged to who made it.
 */
#include "config.h"

#include "account/state.h"

enum { REST_MOST = 32 }; /* ticks between two readings of a process that does nothing */

static bool device_is_used(const struct account *account, unsigned device)
{
    for (size_t i = 0; i < account->contexts.capacity; i++)
        if (account->contexts.places[i].pointer != 0 && purse_device(account->contexts.places[i].purse) == device)
            return true;
    return false;
}

void implicit_forget(struct account *account, unsigned device)
{
    if (account->implicit.bytes[device] == 0 || device_is_used(account, device))
        return;
    books_credit(account, device, LEDGER_KIND_MODULE, account->implicit.bytes[device]);
    account->implicit.bytes[device] = 0;
}

/* Makes the charge what the reading says, unless something has changed since. True: it moved. Under `books`. */
static bool charge_follow(struct account *account, unsigned device, const struct drift *now)
{
    struct ledger_held held = books_held(account, device);
    uint64_t *implicit = &account->implicit.bytes[device];
    if (held.changes != now->changes || account->foreign || now->own_bytes == now->committed_bytes)
        return false;
    if (now->own_bytes > now->committed_bytes) {
        uint64_t more = now->own_bytes - now->committed_bytes;
        books_settle(account, device, LEDGER_KIND_MODULE, 0, more);
        *implicit += more;
        return true;
    }
    uint64_t less = now->committed_bytes - now->own_bytes;
    if (less > *implicit)
        less = *implicit; /* the rest is charged before it is taken: managed memory, a library not used yet */
    books_credit(account, device, LEDGER_KIND_MODULE, less);
    *implicit -= less;
    return less != 0;
}

/* Whether it is time for a reading: at once after something was done, and then at growing distances. Under `books`. */
static bool reading_is_due(struct account *account)
{
    struct implicit *implicit = &account->implicit;
    uint64_t done = 0;
    for (unsigned i = 0; i < account->rows; i++)
        done += ledger_done(account->ledger, account->row[i].claim.row);
    if (done != implicit->done) {
        implicit->done = done;
        implicit->rest = 0;
        implicit->wait = 0;
    }
    if (implicit->wait > 0) {
        implicit->wait--;
        return false;
    }
    implicit->rest = implicit->rest == 0 ? 1 : implicit->rest * 2 < REST_MOST ? implicit->rest * 2 : REST_MOST;
    implicit->wait = implicit->rest;
    return true;
}

void implicit_follow(struct account *account)
{
    biased_lock_take(&account->books);
    bool due = !account->foreign && reading_is_due(account);
    biased_lock_give(&account->books);
    for (unsigned device = 0; due && device < account->devices; device++) {
        struct drift now;
        biased_lock_take(&account->books);
        bool used = device_is_used(account, device);
        biased_lock_give(&account->books);
        if (!used)
            continue;
        drift_look(account, device, &now);
        if (now.state != DRIFT_CLEAN)
            continue;
        biased_lock_take(&account->books);
        if (charge_follow(account, device, &now))
            account->implicit.rest = 0; /* look again soon: loading goes on */
        biased_lock_give(&account->books);
    }
}
