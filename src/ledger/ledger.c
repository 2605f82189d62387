/*
 * Opening, making, checking and removing the file of a ledger. Called by src/account at the first use of CUDA and by
 * the command. Nothing is shared here but the file, which appears whole (platform/shm) and whose fixed fields are
 * checked at each open, because anybody with access may have written them.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "ledger/layout.h"
#include "ledger/plan.h"
#include "platform/env.h"
#include "platform/size.h"
#include "platform/testpoint.h"

enum { OPEN_TRIES = 200 }; /* each one lost to somebody who removed or made the file meanwhile */

void size_pair_format(struct size_pair *pair, uint64_t first, uint64_t second)
{
    (void)size_format(first, pair->first, sizeof pair->first);
    (void)size_format(second, pair->second, sizeof pair->second);
    /* "8 GiB" and "8.00 GiB" read alike too. */
    uint64_t first_read = first, second_read = second;
    (void)size_parse(pair->first, &first_read);
    (void)size_parse(pair->second, &second_read);
    if (first != second && (first_read == second_read || strcmp(pair->first, pair->second) == 0)) {
        (void)snprintf(pair->first, sizeof pair->first, "%llu B", (unsigned long long)first);
        (void)snprintf(pair->second, sizeof pair->second, "%llu B", (unsigned long long)second);
    }
}

/* --- what is wrong, for people -------------------------------------------------------------------------------------- */

static int path_make(const char *directory, const char *name, char path[PATH_MAX])
{
    int length = snprintf(path, PATH_MAX, "%s/%s.ledger", directory, name);
    return length < 0 || length >= PATH_MAX ? -ENAMETOOLONG : 0;
}

static int directory_fault(const char *directory, int result, struct ledger_fault *fault)
{
    static const char remedy[] = "set CUBUDGET_DIR to a directory of your own";
    char text[128];
    switch (result) {
    case -EPERM:
        fault_set(fault, "the directory %s is another user's, or others may write to it; %s", directory, remedy);
        break;
    case -ELOOP:
        fault_set(fault, "%s is a symbolic link, which is not followed; remove it or %s", directory, remedy);
        break;
    case -ENOTDIR:
        fault_set(fault, "%s is not a directory; remove it or %s", directory, remedy);
        break;
    default:
        fault_set(fault, "the directory %s cannot be used: %s; %s", directory, strerror_r(-result, text, sizeof text),
                  remedy);
    }
    return result;
}

static int file_fault(const char *path, const char *name, int result, struct ledger_fault *fault)
{
    static const char remedy[] = "remove it or choose another with --ledger";
    char text[128];
    switch (result) {
    case -ENOENT:
        fault_set(fault, "there is no ledger '%s' (%s); cubudget run or init makes it", name, path);
        break;
    case -EPERM:
        fault_set(fault, "%s is another user's file; choose another ledger with --ledger, or set CUBUDGET_DIR", path);
        break;
    case -ELOOP:
        fault_set(fault, "%s is a symbolic link, which is not followed; %s", path, remedy);
        break;
    case -EISDIR:
        fault_set(fault, "%s is a directory; %s", path, remedy);
        break;
    case -ENODEV:
        fault_set(fault, "%s is not a regular file; %s", path, remedy);
        break;
    case -EFBIG:
        fault_set(fault,
                  "%s is not %d bytes long, as a ledger is: cut off, or something else; cubudget gc --ledger "
                  "%s removes it where nobody uses it",
                  path, LEDGER_FILE_BYTES, name);
        break;
    case -ENOSPC:
    case -EDQUOT:
        fault_set(fault, "no room for the %d bytes of %s; free some there or set CUBUDGET_DIR", LEDGER_FILE_BYTES,
                  path);
        break;
    case -ENOTSUP:
        fault_set(fault,
                  "%s lies where locks on a file's bytes do not hold; set CUBUDGET_DIR to a directory under "
                  "/dev/shm",
                  path);
        break;
    case -EAGAIN:
        fault_set(fault,
                  "%s is removed as often as it is made; stop what removes it, or choose another with "
                  "--ledger",
                  path);
        break;
    default:
        fault_set(fault, "%s cannot be used: %s; choose another ledger with --ledger, or set CUBUDGET_DIR", path,
                  strerror_r(-result, text, sizeof text));
    }
    return result;
}

/* --- what is in the header ------------------------------------------------------------------------------------------ */

static void ledger_fill(void *bytes, void *context)
{
    const struct ledger_request *request = context;
    struct ledger image = {.file = {.bytes = bytes, .size = LEDGER_FILE_BYTES}};
    struct ledger_header *header = layout_header(&image);
    memcpy(header->magic, LEDGER_MAGIC, sizeof header->magic);
    header->abi_version = LEDGER_ABI_VERSION;
    header->byte_order = LEDGER_BYTE_ORDER;
    header->file_bytes = LEDGER_FILE_BYTES;
    header->word_bytes = sizeof(void *);
    header->rows = LEDGER_ROWS;
    header->slots = LEDGER_SLOTS;
    header->devices = LEDGER_DEVICES;
    header->kinds = LEDGER_KINDS;
    header->created_ns = clock_realtime_ns(CLOCK_REALTIME);
    memcpy(header->name, request->name, strnlen(request->name, sizeof header->name - 1));
    atomic_init(&header->budget_bytes, request->budget_bytes);
    atomic_init(&header->budget_explicit, request->has_budget);
    for (unsigned slot = 0; slot < LEDGER_SLOTS; slot++)
        atomic_init(&layout_slot(&image, slot)->priority, SETTINGS_DEFAULT_PRIORITY);
    if (request->plan != NULL)
        plan_write(&image, request->plan);
}

static int header_check(const struct ledger *ledger, struct ledger_fault *fault)
{
    static const char remedy[] = "cubudget gc removes a ledger nobody uses; or choose another with --ledger";
    const struct ledger_header *header = layout_header(ledger);
    if (memcmp(header->magic, LEDGER_MAGIC, sizeof header->magic) != 0) {
        fault_set(fault, "%s is not a ledger (its first 8 bytes are not \"cubudget\"); %s", ledger->path, remedy);
        return -EPROTO;
    }
    if (header->abi_version != LEDGER_ABI_VERSION) {
        fault_set(fault, "%s has layout version %u and this is version %d; %s", ledger->path, header->abi_version,
                  LEDGER_ABI_VERSION, remedy);
        return -EPROTO;
    }
    if (header->byte_order != LEDGER_BYTE_ORDER || header->word_bytes != sizeof(void *)) {
        fault_set(fault, "%s was made by a program of another word size (%u bytes) or byte order; %s", ledger->path,
                  header->word_bytes, remedy);
        return -EPROTO;
    }
    uint64_t budget = atomic_load(&header->budget_bytes);
    if (header->file_bytes != LEDGER_FILE_BYTES || header->rows != LEDGER_ROWS || header->slots != LEDGER_SLOTS ||
        header->devices != LEDGER_DEVICES || header->kinds != LEDGER_KINDS || budget == 0 || budget >> 63 != 0) {
        fault_set(fault, "%s is damaged (%u rows, %u slots, %u devices, a budget of %llu bytes); %s", ledger->path,
                  header->rows, header->slots, header->devices, (unsigned long long)budget, remedy);
        return -EPROTO;
    }
    return 0;
}

/* The budget belongs to the ledger: who asks for another one is told both. A default that shrank to a small card is
 * not what an explicit wish of the same number asks for either. */
static int budget_check(const struct ledger *ledger, const struct ledger_request *request, struct ledger_fault *fault)
{
    struct size_pair sizes;
    uint64_t there = atomic_load(&layout_header(ledger)->budget_bytes);
    bool is_default = !ledger_budget_is_explicit(ledger);
    for (unsigned device = 0; device < LEDGER_DEVICES && is_default && there == request->budget_bytes; device++) {
        uint64_t decided = atomic_load(&layout_device(ledger, device)->budget_bytes);
        if (atomic_load(&layout_device(ledger, device)->claim) != 0 && decided != 0)
            there = decided;
    }
    if (!request->has_budget || there == request->budget_bytes)
        return 0;
    size_pair_format(&sizes, there, request->budget_bytes);
    fault_set(fault,
              "the ledger '%s' has a budget of %s and %s was asked for; leave the budget unset to take its "
              "own, change it with cubudget limit --budget, or choose another with --ledger",
              request->name, sizes.first, sizes.second);
    return -EEXIST;
}

/* --- opening ---------------------------------------------------------------------------------------------------------- */

/* Makes sure of the directory; without `create` it must be there already. */
static int directory_check(const struct ledger_request *request)
{
    struct stat status;
    if (!request->create && lstat(request->directory, &status) != 0)
        return -errno;
    return shm_directory_prepare(request->directory);
}

/* One try. -EAGAIN: the file came or went meanwhile. */
static int ledger_try(struct ledger *ledger, const struct ledger_request *request, struct ledger_fault *fault)
{
    int result = shm_open_existing(ledger->path, LEDGER_FILE_BYTES, &ledger->file);
    if (result == -ENOENT && request->create) {
        struct ledger_request wish = *request;
        result = shm_create(ledger->path, LEDGER_FILE_BYTES, ledger_fill, &wish);
        if (result == 0 || result == -EEXIST)
            return -EAGAIN; /* ours or the winner's: opened like any other */
    }
    if (result != 0)
        return file_fault(ledger->path, request->name, result, fault);
    if (ledger_is_current(ledger) != 1)
        result = -EAGAIN;
    else
        result = header_check(ledger, fault);
    if (result == 0)
        result = budget_check(ledger, request, fault);
    if (result != 0)
        shm_close(&ledger->file);
    return result;
}

int ledger_open(struct ledger *ledger, const struct ledger_request *request, struct ledger_fault *fault)
{
    *ledger = (struct ledger){0};
    fault->text[0] = '\0';
    int result = path_make(request->directory, request->name, ledger->path);
    if (result == 0)
        result = directory_check(request);
    if (result == -ENOENT && !request->create)
        return file_fault(ledger->path, request->name, result, fault);
    if (result != 0)
        return directory_fault(request->directory, result, fault);
    result = -EAGAIN;
    for (unsigned i = 0; i < OPEN_TRIES && result == -EAGAIN; i++)
        result = ledger_try(ledger, request, fault);
    if (result == -EAGAIN)
        (void)file_fault(ledger->path, request->name, result, fault);
    return result;
}

void ledger_close(struct ledger *ledger)
{
    shm_close(&ledger->file);
}

uint64_t ledger_budget(const struct ledger *ledger)
{
    return atomic_load(&layout_header(ledger)->budget_bytes);
}

bool ledger_budget_is_explicit(const struct ledger *ledger)
{
    return atomic_load(&layout_header(ledger)->budget_explicit) != 0;
}

int ledger_is_current(const struct ledger *ledger)
{
    return shm_is_current(ledger->path, &ledger->file);
}

/* --- removing --------------------------------------------------------------------------------------------------------- */

/* Holds every row's two bytes, so that nobody uses it and nobody can begin to, and takes the name away. */
static int file_remove(const char *path, int descriptor)
{
    struct stat opened, named;
    struct flock all = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = LEDGER_LOCK_BYTES};
    if (fcntl(descriptor, F_OFD_SETLK, &all) != 0)
        return errno == EAGAIN || errno == EACCES ? -EBUSY : -errno;
    TESTPOINT("remove.locked");
    if (fstat(descriptor, &opened) != 0)
        return -errno;
    if (lstat(path, &named) != 0)
        return -errno;
    if (opened.st_dev != named.st_dev || opened.st_ino != named.st_ino)
        return -EBUSY; /* somebody made another meanwhile, and uses it */
    return unlink(path) == 0 ? 0 : -errno;
}

int ledger_remove(const char *directory, const char *name, struct ledger_fault *fault)
{
    char path[PATH_MAX];
    struct stat status;
    fault->text[0] = '\0';
    int result = path_make(directory, name, path);
    if (result != 0)
        return directory_fault(directory, result, fault);
    if (lstat(directory, &status) != 0)
        return file_fault(path, name, -errno, fault);
    result = shm_directory_prepare(directory);
    if (result != 0)
        return directory_fault(directory, result, fault);
    shm_sweep(path);
    /* Not opened as a ledger: one that is cut off, or of another version, is what gc is most wanted for. */
    int descriptor = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
    if (descriptor < 0)
        return file_fault(path, name, -errno, fault);
    if (fstat(descriptor, &status) != 0)
        result = -errno;
    else if (!S_ISREG(status.st_mode))
        result = -ENODEV;
    else
        result = shm_file_is_ours(path, &status) ? file_remove(path, descriptor) : -EPERM;
    (void)close(descriptor);
    if (result == -EBUSY)
        fault_set(fault, "the ledger '%s' (%s) is in use; end its processes first (cubudget dump shows them)", name,
                  path);
    else if (result != 0)
        (void)file_fault(path, name, result, fault);
    return result;
}
