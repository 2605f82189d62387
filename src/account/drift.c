/*
 * What a call cost that nobody can compute: what NVML says this process holds, less what its row says, before and after. What
 * other threads allocate meanwhile is in both and does not count; what is on its way at the moment of a reading would, so such a
 * reading is not used, nor are two measurements at once, nor is one beside a call that gives memory back. Called by arrays.c,
 * modules.c and implicit.c.
 */
#include "config.h"

#include <errno.h>
#include "account/state.h"
#include "cuda/nvml.h"

void account_leaving(int change)
{
    struct account *account = account_get();
    if (account != NULL)
        (void)atomic_fetch_add(&account->leaving, change);
}

static struct ledger_held held_now(struct account *account, unsigned device)
{
    biased_lock_take(&account->books);
    struct ledger_held held = books_held(account, device);
    if (!reservoirs_are_settled(account, device)) /* charged more than it holds, and landed */
        held.in_flight_bytes = UINT64_MAX;
    biased_lock_give(&account->books);
    return held;
}

/* One reading, good where only `in_flight_bytes` were in flight and nothing changed around it. */
static void drift_read(struct account *account, unsigned device, uint64_t in_flight_bytes, struct drift *drift)
{
    struct ledger_held before = held_now(account, device);
    drift->device = device;
    drift->state = DRIFT_BUSY;
    drift->committed_bytes = before.committed_bytes;
    drift->changes = before.changes;
    if (before.in_flight_bytes != in_flight_bytes || atomic_load(&account->leaving) != 0)
        return;
    if (nvml_own_bytes(&account->device[device].uuid, &drift->own_bytes) != 0) {
        drift->state = DRIFT_UNKNOWN;
        return;
    }
    struct ledger_held after = held_now(account, device);
    if (atomic_load(&account->leaving) == 0 && after.changes == before.changes &&
        after.in_flight_bytes == before.in_flight_bytes)
        drift->state = DRIFT_CLEAN;
}

void drift_look(struct account *account, unsigned device, struct drift *now)
{
    *now = (struct drift){.state = DRIFT_BUSY};
    drift_read(account, device, 0, now);
}

void drift_begin(struct account *account, unsigned device, struct drift *before)
{
    drift_begin_charged(account, device, 0, before);
}

void drift_begin_charged(struct account *account, unsigned device, uint64_t charged_bytes, struct drift *before)
{
    before->own_changes = DRIFT_ANY_CHANGES;
    biased_lock_take(&account->books);
    bool alone = account->measuring++ == 0;
    before->measurement = ++account->measurements;
    biased_lock_give(&account->books);
    drift_read(account, device, charged_bytes, before);
    before->committed_bytes -= charged_bytes; /* as it was without it */
    if (before->committed_bytes != 0) /* before a process holds anything, none of its frees can spoil a reading */
        atomic_store(&account->measured, true);
    if (!alone && before->state == DRIFT_CLEAN)
        before->state = DRIFT_BUSY;
}

enum drift_state drift_end(struct account *account, const struct drift *before, uint64_t in_flight_bytes,
                           int64_t *excess_bytes)
{
    struct drift after = {.state = before->state};
    if (before->state == DRIFT_CLEAN)
        drift_read(account, before->device, in_flight_bytes, &after);
    biased_lock_take(&account->books);
    account->measuring--;
    bool alone = account->measurements == before->measurement;
    biased_lock_give(&account->books);
    if (after.state == DRIFT_CLEAN && !alone)
        after.state = DRIFT_BUSY;
    if (after.state == DRIFT_CLEAN && before->own_changes != DRIFT_ANY_CHANGES &&
        after.changes - before->changes != before->own_changes)
        after.state = DRIFT_BUSY;
    if (after.state == DRIFT_CLEAN)
        *excess_bytes =
            (int64_t)(after.own_bytes - before->own_bytes) - (int64_t)(after.committed_bytes - before->committed_bytes);
    return after.state;
}
