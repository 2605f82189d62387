/*
 * The books of a process that leaves the card and comes back; evicted.h has who calls it, and in which order. All of it runs on the
 * agent's thread, under the books' lock where it touches rows; while the process is away no other thread changes them.
 */
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <fcntl.h>
#include <unistd.h>
#include "account/evicted.h"
#include "account/state.h"
#include "cuda/nvml.h"
#include "ledger/line.h"
#include "platform/gate.h"
#include "platform/testpoint.h"

/* A restore succeeds with the footprint and 2 MiB free and fails, for good, with 2 MiB less than the footprint (measured). */
#define MARGIN_BYTES (32ULL << 20)

bool account_own(struct ledger **ledger, unsigned *row)
{
    struct account *account = account_get();
    if (account == NULL)
        return false;
    *ledger = account->ledger;
    *row = own_leader(account);
    return true;
}

void account_want(void)
{
    int before = errno;
    struct account *account = account_get();
    if (account != NULL) {
        biased_lock_take(&account->books); /* the agent may be moving to another ledger; nobody sleeps with it */
        (void)ledger_process_want(account->ledger, own_leader(account));
        biased_lock_give(&account->books);
    }
    errno = before;
}

/* --- whether ------------------------------------------------------------------------------------------------------------ */

static bool driver_can(const struct driver *driver)
{
    return driver->cuCheckpointProcessLock != NULL && driver->cuCheckpointProcessCheckpoint != NULL &&
           driver->cuCheckpointProcessRestore != NULL && driver->cuCheckpointProcessUnlock != NULL;
}

static bool holds_managed(struct account *account)
{
    for (unsigned row = 0; row < account->rows; row++)
        for (unsigned i = 0; i < account->devices; i++)
            if (ledger_kind_bytes(account->ledger, account->row[row].claim.row, account->device[i].index,
                                  LEDGER_KIND_MANAGED) != 0)
                return true;
    return false;
}

static bool is_pinned(struct account *account)
{
    for (unsigned row = 0; row < account->rows; row++) {
        struct slot_terms terms;
        ledger_slot_terms(account->ledger, account->row[row].claim.slot, &terms);
        if (terms.priority >= SETTINGS_PRIORITY_MAX)
            return true;
    }
    return false;
}

/* Whether NVML tells of each device's memory: asked until it does. */
static bool room_can_be_proven(const struct account *account)
{
    static _Atomic(bool) known;
    if (atomic_load(&known))
        return true;
    for (unsigned i = 0; i < account->devices; i++) {
        uint64_t bytes;
        if (nvml_used_bytes(&account->device[i].uuid, &bytes) != 0)
            return false;
    }
    atomic_store(&known, account->devices != 0);
    return account->devices != 0;
}

const char *account_unevictable(const struct driver *driver)
{
    struct account *account = account_get();
    if (account == NULL)
        return "it has no account";
    if (account_settings.evict == EVICT_OFF)
        return "eviction is switched off for it";
    if (gate_unevictable_reason() != NULL)
        return gate_unevictable_reason();
    if (!driver_can(driver))
        return "this driver is too old to checkpoint (570)";
    if (!room_can_be_proven(account))
        return "NVML does not tell of its device (MIG?)";
    biased_lock_take(&account->books);
    const char *reason = is_pinned(account)       ? "its slot's priority is max"
                         : account->foreign       ? "it uses memory of another process"
                         : holds_managed(account) ? "it holds managed memory"
                                                  : NULL;
    biased_lock_give(&account->books);
    return reason;
}

void account_evictable_note(const struct driver *driver)
{
    struct account *account = account_get();
    const char *reason = account_unevictable(driver);
    if (account == NULL)
        return;
    biased_lock_take(&account->books);
    ledger_evictable_note(account->ledger, own_leader(account), reason);
    biased_lock_give(&account->books);
}

/* --- host memory -------------------------------------------------------------------------------------------------------- */

/* What the system could give without swapping; UINT64_MAX: it does not say. */
static uint64_t host_available_bytes(void)
{
    char text[4096];
    int descriptor = open("/proc/meminfo", O_RDONLY | O_CLOEXEC);
    ssize_t length = descriptor >= 0 ? read(descriptor, text, sizeof text - 1) : -1;
    if (descriptor >= 0)
        (void)close(descriptor);
    if (length <= 0)
        return UINT64_MAX;
    text[length] = '\0';
    const char *at = strstr(text, "MemAvailable:");
    return at != NULL ? strtoull(at + strlen("MemAvailable:"), NULL, 10) * 1024 : UINT64_MAX;
}

/* Half of what there is when nothing is evicted: what images take is not available any more, so they are counted to it again. */
static uint64_t host_limit(const struct account *account)
{
    if (account_settings.has_host_limit)
        return account_settings.host_limit_bytes;
    uint64_t available = host_available_bytes();
    return available == UINT64_MAX ? available
                                   : (available + ledger_host_bytes(account->ledger, own_leader(account))) / 2;
}

/* What has to be free on a device for all that this process has there to come back. */
static uint64_t footprint_of(struct account *account, unsigned device)
{
    uint64_t own = 0;
    biased_lock_take(&account->books);
    uint64_t charged = books_held(account, device).committed_bytes;
    biased_lock_give(&account->books);
    if (nvml_own_bytes(&account->device[device].uuid, &own) != 0) /* it does not know us by this pid: in a container */
        own = 0;
    uint64_t bytes = own > charged ? own : charged;
    return bytes == 0 ? 0 : bytes + MARGIN_BYTES;
}

int account_image_take(void)
{
    struct account *account = account_get();
    uint64_t image = 0;
    if (account == NULL)
        return -ENOSPC;
    for (unsigned i = 0; i < account->devices; i++) {
        account->absence.footprint_bytes[i] = footprint_of(account, i);
        image += account->absence.footprint_bytes[i];
    }
    return ledger_host_take(account->ledger, own_leader(account), image, host_limit(account));
}

void account_image_drop(void)
{
    struct account *account = account_get();
    if (account != NULL)
        (void)ledger_host_take(account->ledger, own_leader(account), 0, 0);
}

/* --- out ---------------------------------------------------------------------------------------------------------------- */

uint64_t account_evict(void)
{
    struct account *account = account_get();
    uint64_t bytes = 0;
    if (account == NULL)
        return 0;
    account->absence.ticket = LEDGER_NO_TICKET;
    account->absence.wanted_ms = 0;
    biased_lock_take(&account->books);
    for (unsigned i = 0; i < account->devices; i++)
        for (unsigned row = 0; row < account->rows; row++) {
            uint64_t moved = ledger_evict_bytes(account->ledger, account->row[row].claim.row, account->device[i].index);
            bytes += moved;
        }
    ledger_count(account->ledger, own_leader(account), LEDGER_COUNT_EVICTION);
    biased_lock_give(&account->books);
    return bytes;
}

/* --- back --------------------------------------------------------------------------------------------------------------- */

static uint64_t own_evicted(const struct account *account, unsigned device)
{
    uint64_t bytes = 0;
    for (unsigned row = 0; row < account->rows; row++)
        bytes += ledger_evicted(account->ledger, account->row[row].claim.row, account->device[device].index);
    return bytes;
}

/* What has to be free on a device: never less than what the books moved there. */
static uint64_t footprint_away(const struct account *account, unsigned device)
{
    uint64_t evicted = own_evicted(account, device), footprint = account->absence.footprint_bytes[device];
    uint64_t least = evicted == 0 ? 0 : evicted + MARGIN_BYTES;
    return footprint > least ? footprint : least;
}

/* What could be had of a device if all others were away. */
static uint64_t readmission_most(const struct account *account, unsigned device)
{
    uint64_t reserves[LEDGER_SLOTS];
    uint64_t budget = ledger_device_budget(account->ledger, account->device[device].index);
    uint64_t others = ledger_reserves_read(account->ledger, account->row[0].claim.slot, reserves);
    return budget > others ? budget - others : 0;
}

/* What is charged for a device: the footprint, but no more than could be had if all others were away. It was there once, so it
 * must be able to come back. */
static uint64_t readmission_bytes(const struct account *account, unsigned device)
{
    uint64_t footprint = footprint_away(account, device), most = readmission_most(account, device);
    return footprint < most ? footprint : most;
}

/* What a thread of this process waits for besides, there. */
static uint64_t thread_bytes(const struct account *account, unsigned device)
{
    return account->in_line.taken && account->in_line.device == device ? account->in_line.bytes : 0;
}

static void place_take(struct account *account, const uint64_t need[LEDGER_DEVICES], uint64_t now)
{
    struct absence *absence = &account->absence;
    struct ledger_place place = {
        .ticket = account->in_line.taken ? account->in_line.ticket : absence->ticket,
        .kind = LEDGER_WAITING_RESTORE,
        .since_ms = absence->wanted_ms != 0 ? absence->wanted_ms : now,
        .deadline_ms = LEDGER_NO_DEADLINE,
    };
    absence->wanted_ms = place.since_ms;
    for (unsigned i = 0; i < account->devices; i++)
        place.wanted_bytes[account->device[i].index] = need[i];
    ledger_line_enter(account->ledger, own_leader(account), &place);
    absence->ticket = place.ticket;
    if (account->in_line.taken)
        account->in_line.ticket = place.ticket;
}

static void charges_give(struct account *account)
{
    struct absence *absence = &account->absence;
    for (unsigned i = 0; i < account->devices; i++) {
        if (absence->charged_bytes[i] != 0)
            ledger_settle(account->ledger, own_leader(account), account->device[i].index, absence->charged_bytes[i], 0);
        absence->charged_bytes[i] = 0;
    }
    absence->charged = false;
}

/* Charges one device, asking others to leave where it does not fit. */
static enum ledger_verdict device_readmit(struct account *account, unsigned device, uint64_t bytes, uint64_t need,
                                          struct asked *asked, uint64_t now)
{
    unsigned index = account->device[device].index;
    struct ledger_room room = {0};
    struct ledger_bid bid = {
        .bytes = need,
        .ticket = account->absence.ticket,
        .line_ticket = account->absence.ticket,
        .restores = true,
    };
    if (!ledger_line_turn(account->ledger, index, own_leader(account), now))
        return LEDGER_IN_LINE;
    enum ledger_verdict verdict = bid_look(account, device, &bid, &room);
    bid_drop(account, device, &bid);
    if (verdict == LEDGER_FITS) {
        if (need > bytes) /* the thread's part is looked for and not taken: it asks for itself when it is back */
            ledger_settle(account->ledger, own_leader(account), index, need - bytes, 0);
        account->absence.charged_bytes[device] = bytes;
    } else if (verdict == LEDGER_OVER_BUDGET) {
        struct wish wish = {
            .device = index,
            .slot = account->row[0].claim.slot,
            .missing_bytes = room_missing(&room, need),
            .ticket = account->absence.ticket,
            .now_ms = now,
        };
        if (victims_ask(account, &wish, asked) != 0)
            ledger_line_turn_extend(account->ledger, own_leader(account), now);
    }
    return verdict;
}

/* One try for all devices. LEDGER_DEVICES: all are charged; else the first that was not (its number). */
static unsigned all_readmit(struct account *account, struct asked *asked, uint64_t now)
{
    uint64_t bytes[LEDGER_DEVICES] = {0}, need[LEDGER_DEVICES] = {0};
    for (unsigned i = 0; i < account->devices; i++) {
        bytes[i] = readmission_bytes(account, i);
        need[i] = bytes[i] + thread_bytes(account, i);
        if (need[i] > readmission_most(account, i)) /* nobody could ever give that */
            need[i] = bytes[i];
    }
    place_take(account, need, now);
    for (unsigned i = 0; i < account->devices; i++)
        if (need[i] != 0 && device_readmit(account, i, bytes[i], need[i], asked, now) != LEDGER_FITS) {
            charges_give(account);
            return i;
        }
    account->absence.charged = true;
    return LEDGER_DEVICES;
}

int account_readmit(uint32_t patience_ms)
{
    enum { SLEEP_MS = 20 };
    struct account *account = account_get();
    struct asked asked = {.count = 0};
    if (account == NULL)
        return -ESTALE;
    for (uint64_t started = now_ms();;) {
        uint64_t now = now_ms();
        uint32_t seen[LEDGER_DEVICES];
        biased_lock_take(&account->books);
        for (unsigned i = 0; i < account->devices; i++) /* before the look: what comes free after it wakes */
            seen[i] = ledger_room_seen(account->ledger, account->device[i].index);
        unsigned lacking = all_readmit(account, &asked, now);
        bool done = lacking == LEDGER_DEVICES;
        if (done || now - started >= patience_ms)
            victims_spare(account, &asked);
        if (done) /* others are not to stand behind it while it moves; its ticket is kept */
            ledger_line_leave(account->ledger, own_leader(account));
        unsigned index = done ? 0 : account->device[lacking].index;
        biased_lock_give(&account->books);
        if (done)
            return 0;
        if (now - started >= patience_ms)
            return -EAGAIN;
        (void)ledger_reap(account->ledger);
        TESTPOINT("readmit.sleeps");
        ledger_room_sleep(account->ledger, index, seen[lacking], SLEEP_MS);
    }
}

void account_readmit_undo(void)
{
    struct account *account = account_get();
    if (account == NULL)
        return;
    biased_lock_take(&account->books);
    charges_give(account);
    biased_lock_give(&account->books);
}

bool account_proof(unsigned number, CUuuid *uuid, unsigned *index, uint64_t *bytes)
{
    struct account *account = account_get();
    if (account == NULL || number >= account->devices)
        return false;
    *uuid = account->device[number].uuid;
    *index = account->device[number].index;
    uint64_t footprint = footprint_away(account, number);
    *bytes = footprint == 0 ? 0 : footprint + ledger_promised(account->ledger, *index, own_leader(account));
    return true;
}

/* A thread that waited when its process left tries again now, before those who came later. */
static void place_give_back(struct account *account, uint64_t now)
{
    struct in_line *line = &account->in_line;
    if (!line->taken) {
        ledger_line_leave(account->ledger, own_leader(account));
        return;
    }
    struct ledger_place place = {
        .ticket = line->ticket,
        .kind = LEDGER_WAITING_ALLOCATION,
        .since_ms = line->since_ms,
        .deadline_ms = line->deadline_ms,
    };
    place.wanted_bytes[account->device[line->device].index] = line->bytes;
    ledger_line_enter(account->ledger, own_leader(account), &place);
    ledger_line_turn_extend(account->ledger, own_leader(account), now);
}

void account_restored(void)
{
    struct account *account = account_get();
    if (account == NULL)
        return;
    uint64_t now = now_ms();
    biased_lock_take(&account->books);
    for (unsigned i = 0; i < account->devices; i++) {
        for (unsigned row = account->rows; row-- > 1;) /* the first row's charge is for all of them: given back last */
            ledger_restore_bytes(account->ledger, account->row[row].claim.row, account->device[i].index, 0);
        ledger_restore_bytes(account->ledger, own_leader(account), account->device[i].index,
                             account->absence.charged_bytes[i]);
        account->absence.charged_bytes[i] = 0;
    }
    account->absence.charged = false;
    ledger_resident_note(account->ledger, own_leader(account), now);
    ledger_referenced_note(account->ledger, own_leader(account), now);
    ledger_count(account->ledger, own_leader(account), LEDGER_COUNT_RESTORE);
    place_give_back(account, now);
    biased_lock_give(&account->books);
    account_image_drop();
}
