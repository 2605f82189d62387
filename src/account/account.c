/*
 * Being attached: the ledger, the slot and the row of this process. Called by the constructor (account_configure) and by the
 * wrapper of cuInit; state.h says what lock guards what.
 */
#include "config.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include "account/state.h"
#include "cuda/nvml.h"
#include "platform/log.h"
#include "platform/size.h"
#include "platform/testpoint.h"

struct settings account_settings;

_Atomic(struct account *) account_current;

static bool imposed_here;
static struct account_fault settings_fault; /* empty: they are good */

void account_configure(const struct settings *settings, bool imposed)
{
    account_settings = *settings;
    imposed_here = imposed;
    settings_fault.text[0] = '\0';
}

bool account_is_imposed(void)
{
    return imposed_here;
}

void account_misconfigure(const char *why)
{
    (void)snprintf(settings_fault.text, sizeof settings_fault.text, "%s", why);
}

const struct settings *account_settings_get(struct account_fault *fault)
{
    *fault = settings_fault;
    return settings_fault.text[0] == '\0' ? &account_settings : NULL;
}

bool account_is_attached(void)
{
    return account_get() != NULL;
}

struct account_device *account_device_of(struct account *account, CUdevice ordinal)
{
    for (unsigned i = 0; i < account->devices; i++)
        if (account->device[i].ordinal == ordinal)
            return &account->device[i];
    return NULL;
}

unsigned account_number(const struct account *account, const struct account_device *device)
{
    return (unsigned)(device - account->device);
}

/* --- fork ------------------------------------------------------------------------------------------------------------ */

/* Set in the thread that holds `claiming` for attaching or moving: what it calls meanwhile may fork (the driver's and NVML's
 * start nvidia-modprobe), and must not wait for its own lock. Nothing is half open there: it is not between an open and its
 * madvise when it calls them. */
static __thread bool claiming_here __attribute__((tls_model("initial-exec")));

/* No fork may fall between the open of a life byte and its madvise: the child would keep the row of its parent alive. */
static void fork_prepare(void)
{
    struct account *account = atomic_load(&account_current);
    if (account != NULL && !claiming_here)
        brief_lock_take(&account->claiming);
}

static void fork_parent(void)
{
    struct account *account = atomic_load(&account_current);
    if (account != NULL && !claiming_here)
        brief_lock_give(&account->claiming);
}

static void fork_child(void)
{
    claiming_here = false; /* its parent's lock went with its parent's pages */
    slots_forget();
}

void claiming_take(struct account *account)
{
    brief_lock_take(&account->claiming);
    claiming_here = true;
}

void claiming_give(struct account *account)
{
    claiming_here = false;
    brief_lock_give(&account->claiming);
}

/* Writes why, and returns the status. */
__attribute__((format(printf, 3, 4))) static int attach_fail(struct account_fault *fault, int status,
                                                             const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(fault->text, sizeof fault->text, format, arguments);
    va_end(arguments);
    return status;
}

int account_make(struct account **made, struct account_fault *fault)
{
    struct account *none = NULL;
    struct account *account = mmap(NULL, sizeof *account, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (account == MAP_FAILED)
        return attach_fail(fault, EXIT_NO_LEDGER, "no memory for the books of this process: %s", strerror(errno));
    if (madvise(account, sizeof *account, MADV_WIPEONFORK) != 0) {
        int error = errno;
        (void)munmap(account, sizeof *account);
        return attach_fail(fault, EXIT_NO_LEDGER,
                           "this kernel cannot keep the books of a process out of its children (MADV_WIPEONFORK, "
                           "since Linux 4.14): %s",
                           strerror(error));
    }
    account->rows = 1;
    if (!atomic_compare_exchange_strong(&account_current, &none, account)) {
        (void)munmap(account, sizeof *account);
        *made = none;
        return 0;
    }
    *made = account;
    if (pthread_atfork(fork_prepare, fork_parent, fork_child) != 0) /* once: children inherit it */
        return attach_fail(fault, EXIT_NO_LEDGER, "no memory for a fork handler");
    return 0;
}

/* --- devices --------------------------------------------------------------------------------------------------------- */

static bool device_read(const struct driver *driver, int number, struct account_device *device)
{
    int major = 0, minor = 0;
    size_t total = 0;
    if (driver->cuDeviceGet(&device->ordinal, number) != CUDA_SUCCESS)
        return false;
    /* _v2 tells a MIG instance from its card; the older one says the card's for both. */
    CUresult result = driver->cuDeviceGetUuid_v2 != NULL ? driver->cuDeviceGetUuid_v2(&device->uuid, device->ordinal)
                      : driver->cuDeviceGetUuid != NULL  ? driver->cuDeviceGetUuid(&device->uuid, device->ordinal)
                                                         : CUDA_ERROR_NOT_FOUND;
    if (result != CUDA_SUCCESS || driver->cuDeviceTotalMem_v2(&total, device->ordinal) != CUDA_SUCCESS)
        return false;
    if (driver->cuDeviceGetName(device->name, (int)sizeof device->name, device->ordinal) != CUDA_SUCCESS)
        (void)snprintf(device->name, sizeof device->name, "GPU %d", number);
    (void)driver->cuDeviceGetAttribute(&major, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, device->ordinal);
    (void)driver->cuDeviceGetAttribute(&minor, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, device->ordinal);
    device->compute = (uint32_t)(10 * major + minor);
    device->total_bytes = total;
    return true;
}

static int devices_read(const struct driver *driver, struct account *account, struct account_fault *fault)
{
    int count = 0;
    CUresult result = driver->cuDeviceGetCount(&count);
    if (result != CUDA_SUCCESS)
        return attach_fail(
            fault, EXIT_NO_DEVICE,
            "the driver does not say how many GPUs there are (error %d); nvidia-smi may say what is wrong with them",
            result);
    if (count > LEDGER_DEVICES) {
        log_line(LOG_WARN, "%d GPUs are visible; only the first %d are held to a budget", count, LEDGER_DEVICES);
        count = LEDGER_DEVICES;
    }
    account->devices = 0;
    for (int number = 0; number < count; number++) {
        struct account_device *device = &account->device[account->devices];
        *device = (struct account_device){0};
        if (!device_read(driver, number, device))
            return attach_fail(
                fault, EXIT_NO_DEVICE,
                "GPU %d does not say its uuid and memory; a driver older than 410 has no uuids: install a newer one",
                number);
        account->devices++;
    }
    return 0;
}

/* Whether any of them is good enough. */
static int devices_judge(const struct account *account, struct account_fault *fault)
{
    const struct account_device *best = NULL;
    uint32_t wanted = account_settings.min_compute;
    for (unsigned i = 0; i < account->devices; i++)
        if (best == NULL || account->device[i].compute > best->compute)
            best = &account->device[i];
    if (best == NULL)
        return attach_fail(fault, EXIT_NO_DEVICE, "the driver is there and finds no GPU; nvidia-smi may say why");
    if (best->compute >= wanted)
        return 0;
    return attach_fail(fault, EXIT_NO_DEVICE,
                       "no visible GPU has compute capability %u.%u or better: the best, '%s', has %u.%u; set "
                       "CUBUDGET_MIN_COMPUTE "
                       "to use it all the same",
                       wanted / 10, wanted % 10, best->name, best->compute / 10, best->compute % 10);
}

/* --- opening ---------------------------------------------------------------------------------------------------------- */

__attribute__((format(printf, 2, 3))) static void fault_write(struct ledger_fault *fault, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(fault->text, sizeof fault->text, format, arguments);
    va_end(arguments);
}

static int opening_fail(struct opening *opening, int status, int result)
{
    opening->status = status;
    return result;
}

static int opening_devices(const struct account *account, struct opening *opening)
{
    for (unsigned i = 0; i < account->devices; i++) {
        const struct account_device *device = &account->device[i];
        int index = ledger_device_claim(opening->ledger, device->uuid.bytes, device->name);
        if (index < 0) {
            fault_write(&opening->fault,
                        "the ledger has its %d devices already and '%s' is another; use another --ledger",
                        LEDGER_DEVICES, device->name);
            return opening_fail(opening, EXIT_NO_LEDGER, index);
        }
        opening->index[i] = (unsigned)index;
        ledger_device_describe(opening->ledger, (unsigned)index, account_settings.simulate, device->compute);
        /* 0 where nobody can say. Who moves from another ledger knows, and may be off the card, where NVML never answers. */
        uint64_t baseline = account->ledger != NULL ? ledger_device_baseline(account->ledger, device->index) : 0;
        if (account->ledger == NULL && !ledger_device_is_settled(opening->ledger, (unsigned)index))
            (void)nvml_idle_bytes(&device->uuid, &baseline);
        int result = ledger_device_settle(opening->ledger, (unsigned)index, device->total_bytes, baseline,
                                          &opening->shrunk_to[i], &opening->fault);
        if (result != 0)
            return opening_fail(opening, EXIT_BAD_SETTINGS, result);
    }
    return 0;
}

void claim_fault(const struct ledger *ledger, int result, struct ledger_fault *fault)
{
    switch (result) {
    case -ENOSPC:
        fault_write(fault, "all %d rows of %s are taken; use another --ledger", LEDGER_ROWS, ledger->path);
        break;
    case -EBUSY:
        fault_write(fault, "%s is held by something that was stopped while removing it; end that (a cubudget gc)",
                    ledger->path);
        break;
    case -ENOTSUP:
        fault_write(fault,
                    "%s lies where locks on a file's bytes do not hold (overlayfs does that); set CUBUDGET_DIR to a "
                    "directory under /dev/shm",
                    ledger->path);
        break;
    default:
        fault_write(fault, "no row can be claimed in %s: %s", ledger->path, strerror(-result));
    }
}

static void rows_release(struct opening *opening)
{
    while (opening->rows > 0)
        ledger_row_release(opening->ledger, &opening->claim[--opening->rows]);
}

/* One try; -ESTALE: the file went away meanwhile. */
static int opening_try(const struct account *account, const struct ledger_request *request, struct opening *opening)
{
    int result = ledger_open(opening->ledger, request, &opening->fault);
    if (result != 0)
        return opening_fail(opening, result == -EEXIST ? EXIT_BAD_SETTINGS : EXIT_NO_LEDGER, result);
    TESTPOINT("attach.opened");
    int slot = ledger_slot_claim(opening->ledger, account->slot[0]);
    if (slot < 0) {
        fault_write(&opening->fault,
                    "the ledger has its %d slots already and '%s' is another; use one of them or another --ledger",
                    LEDGER_SLOTS, account->slot[0]);
        result = opening_fail(opening, EXIT_NO_LEDGER, slot);
    }
    if (result == 0)
        result = opening_devices(account, opening);
    if (result == 0) {
        result = ledger_row_claim(opening->ledger, (unsigned)slot, account->command, &opening->claim[0]);
        opening->rows = result == 0;
        if (result == 0)
            result = slots_claim(account, opening);
        else if (result != -ESTALE)
            claim_fault(opening->ledger, result, &opening->fault);
        if (result != 0)
            opening->status = EXIT_NO_LEDGER;
    }
    if (result != 0) {
        rows_release(opening);
        ledger_close(opening->ledger);
    }
    return result;
}

int opening_make(const struct account *account, const struct ledger_request *request, struct opening *opening)
{
    enum { TRIES = 100 };
    *opening = (struct opening){0};
    opening->ledger = mmap(NULL, sizeof *opening->ledger, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (opening->ledger == MAP_FAILED) {
        fault_write(&opening->fault, "no memory for a ledger");
        return opening_fail(opening, EXIT_NO_LEDGER, -ENOMEM);
    }
    (void)madvise(opening->ledger, sizeof *opening->ledger, MADV_DONTFORK);
    int result = -ESTALE;
    for (unsigned i = 0; i < TRIES && result == -ESTALE; i++)
        result = opening_try(account, request, opening);
    if (result == -ESTALE) {
        fault_write(&opening->fault, "the ledger '%s' is removed as often as it is made; stop what removes it",
                    request->name);
        opening->status = EXIT_NO_LEDGER;
    }
    if (result != 0)
        (void)munmap(opening->ledger, sizeof *opening->ledger);
    return result;
}

void opening_undo(struct opening *opening)
{
    rows_release(opening);
    ledger_close(opening->ledger);
    (void)munmap(opening->ledger, sizeof *opening->ledger);
}

/* --- attaching --------------------------------------------------------------------------------------------------------- */

int opening_terms(struct opening *opening)
{
    struct slot_terms terms = {
        .has_limit = account_settings.has_limit,
        .has_reserve = account_settings.has_reserve,
        .has_priority = account_settings.has_priority,
        .limit_bytes = account_settings.limit_bytes,
        .reserve_bytes = account_settings.reserve_bytes,
        .priority = account_settings.priority,
    };
    return ledger_slot_settle(opening->ledger, opening->claim[0].slot, &terms, &opening->fault);
}

static void budgets_say(const struct account *account, const struct opening *opening)
{
    char size[SIZE_TEXT_BYTES];
    for (unsigned i = 0; i < account->devices; i++)
        if (opening->shrunk_to[i] != 0)
            log_line(LOG_WARN, "'%s' is smaller than the default budget: its budget is %s", account->device[i].name,
                     size_format(opening->shrunk_to[i], size, sizeof size));
}

static int attach(struct account *account, const struct driver *driver, struct account_fault *fault)
{
    char directory[PATH_MAX];
    struct opening opening;
    if (account->rows == 0) /* a forked child's pages are wiped */
        account->rows = 1;
    slot_name_own(account->slot[0]);
    name_from_executable(account->command);
    int status = devices_read(driver, account, fault);
    if (status == 0)
        status = devices_judge(account, fault);
    if (status != 0)
        return status;
    if (shm_directory(account_settings.directory, directory) != 0)
        return attach_fail(fault, EXIT_NO_LEDGER,
                           "the ledger directory's path is too long; set CUBUDGET_DIR to a shorter one");
    struct ledger_request request = {
        .directory = directory,
        .name = account_settings.ledger,
        .create = true,
        .has_budget = account_settings.has_budget,
        .budget_bytes = account_settings.budget_bytes,
    };
    if (opening_make(account, &request, &opening) != 0)
        return attach_fail(fault, opening.status, "%s", opening.fault.text);
    if (opening_terms(&opening) != 0) {
        opening_undo(&opening);
        return attach_fail(fault, EXIT_BAD_SETTINGS, "slot '%s': %s", account->slot[0], opening.fault.text);
    }
    budgets_say(account, &opening);
    account->ledger = opening.ledger;
    account->rows = opening.rows;
    for (unsigned i = 0; i < opening.rows; i++)
        account->row[i].claim = opening.claim[i];
    for (unsigned i = 0; i < account->devices; i++) {
        account->device[i].index = opening.index[i];
        account->graph[i].purse = (uint16_t)i; /* its own slot, where nobody says otherwise */
        account->graph[i].kind = LEDGER_KIND_GRAPH;
    }
    TESTPOINT("attach.claimed");
    return 0;
}

int account_attach(const struct driver *driver, struct account_fault *fault)
{
    int before = errno, status = 0;
    struct account *account = atomic_load_explicit(&account_current, memory_order_acquire);
    if (account_settings_get(fault) == NULL)
        return EXIT_BAD_SETTINGS;
    if (account == NULL)
        status = account_make(&account, fault);
    if (status != 0)
        return status;
    if (atomic_load(&account->attached) == 0)
        nvml_prepare(); /* dlopen under the lock would wait for a constructor whose thread calls cuInit as well */
    claiming_take(account);
    if (atomic_load(&account->attached) == 0) {
        biased_lock_prepare(&account->books);
        status = attach(account, driver, fault);
        if (status == 0)
            atomic_store_explicit(&account->attached, 1, memory_order_release);
    }
    claiming_give(account);
    errno = before;
    return status;
}

/* --- what programs see ------------------------------------------------------------------------------------------------- */

static void view_take(struct account *account, const struct account_device *device, uint64_t *free_bytes,
                      uint64_t *total_bytes)
{
    struct ledger_view view;
    biased_lock_take(&account->books);
    unsigned row = purse_row(purse_here(account, 0));
    /* Who does not wait asks nobody to leave, either. */
    if (account_settings.wait_ms == 0)
        ledger_view(account->ledger, device->index, account->row[row].claim.slot, &view);
    else
        ledger_view_evictable(account->ledger, device->index, account->row[row].claim.slot, own_leader(account), &view);
    biased_lock_give(&account->books);
    *free_bytes = view.free_bytes;
    *total_bytes = view.total_bytes;
}

bool account_view(CUdevice ordinal, uint64_t *free_bytes, uint64_t *total_bytes)
{
    struct account *account = account_get();
    const struct account_device *device = account != NULL ? account_device_of(account, ordinal) : NULL;
    if (device == NULL)
        return false;
    view_take(account, device, free_bytes, total_bytes);
    return true;
}

unsigned account_pressure(CUdevice ordinal)
{
    struct account *account = account_get();
    const struct account_device *device = account != NULL ? account_device_of(account, ordinal) : NULL;
    unsigned level = 0;
    if (device == NULL)
        return level;
    biased_lock_take(&account->books); /* a move to another ledger waits */
    level = ledger_pressure_level(account->ledger, device->index);
    biased_lock_give(&account->books);
    return level;
}

bool account_view_uuid(const CUuuid *uuid, uint64_t *free_bytes, uint64_t *total_bytes)
{
    struct account *account = account_get();
    for (unsigned i = 0; account != NULL && i < account->devices; i++) {
        const struct account_device *device = &account->device[i];
        if (memcmp(&device->uuid, uuid, sizeof *uuid) != 0)
            continue;
        view_take(account, device, free_bytes, total_bytes);
        if (*total_bytes > device->total_bytes)
            *total_bytes = device->total_bytes;
        return true;
    }
    return false;
}
