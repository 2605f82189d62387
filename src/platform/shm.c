/*
 * Where ledgers live, and how a file is made and opened there. Called by src/ledger.
 *
 * Nothing is trusted but what the descriptor says after the open (never a path looked at before), and a file appears
 * under its name whole or not at all: link(2) publishes it, and of several that link one wins.
 */
#include "config.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include "platform/shm.h"
#include "platform/testpoint.h"

/* A file in the making. Its maker holds an OFD lock far behind every byte that anybody else locks: after link() it is
 * the same file, and that lock must not look like a row's. A temporary file without it is a killed maker's. */
#define TEMPORARY_PREFIX ".cubudget-new-"
static const off_t MAKER_BYTE = (off_t)1 << 40;

/* --- directories --------------------------------------------------------------------------------------------------- */

/* An administrator's directory: others may put files into it, but not take ours away. */
static bool directory_is_administrators(const struct stat *status)
{
    return status->st_uid == 0 && ((status->st_mode & S_IWOTH) == 0 || (status->st_mode & S_ISVTX) != 0);
}

static void directory_default(char path[PATH_MAX])
{
    (void)snprintf(path, PATH_MAX, "/dev/shm/cubudget-%lu", (unsigned long)geteuid());
}

void shm_group_directory(gid_t group, char path[PATH_MAX])
{
    (void)snprintf(path, PATH_MAX, "/dev/shm/cubudget-group-%lu", (unsigned long)group);
}

/* A group's directory: what its members make in it is the group's, and nobody else can reach it. */
static bool mode_is_groups(mode_t mode)
{
    return (mode & S_ISGID) != 0 && (mode & S_IRWXG) == S_IRWXG && (mode & S_IRWXO) == 0;
}

/* The kernel says whether we may write: as its owner, as a member of its group (nobody else may), or as root. Where a user's
 * own directory is looked for without being asked to, somebody who shares a group with him may have made one first. */
static bool directory_is_groups(const char *path, const struct stat *status)
{
    char own[PATH_MAX];
    directory_default(own);
    return mode_is_groups(status->st_mode) && strcmp(path, own) != 0 &&
           faccessat(AT_FDCWD, path, W_OK | X_OK, AT_EACCESS) == 0;
}

int shm_directory(const char *asked, char path[PATH_MAX])
{
    static const char administrators[] = "/run/cubudget";
    struct stat status;
    int length;
    if (asked != NULL)
        length = snprintf(path, PATH_MAX, "%s", asked);
    else if (lstat(administrators, &status) == 0 && S_ISDIR(status.st_mode) && directory_is_administrators(&status) &&
             faccessat(AT_FDCWD, administrators, W_OK | X_OK, AT_EACCESS) == 0)
        length = snprintf(path, PATH_MAX, "%s", administrators);
    else {
        directory_default(path);
        return 0;
    }
    return length < 0 || length >= PATH_MAX ? -ENAMETOOLONG : 0;
}

int shm_directory_prepare(const char *path)
{
    struct stat status;
    if (lstat(path, &status) != 0) {
        if (errno != ENOENT)
            return -errno;
        if (mkdir(path, 0700) != 0 && errno != EEXIST) /* EEXIST: another first user; looked at like any other */
            return -errno;
        if (lstat(path, &status) != 0)
            return -errno;
    }
    if (S_ISLNK(status.st_mode))
        return -ELOOP;
    if (!S_ISDIR(status.st_mode))
        return -ENOTDIR;
    bool ours = status.st_uid == geteuid() && (status.st_mode & (S_IWGRP | S_IWOTH)) == 0;
    return ours || directory_is_administrators(&status) || directory_is_groups(path, &status) ? 0 : -EPERM;
}

/* Whether nothing is in it but itself. */
static bool directory_is_empty(int descriptor)
{
    int copy = openat(descriptor, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *stream = copy >= 0 ? fdopendir(copy) : NULL;
    unsigned entries = 0;
    if (stream == NULL) {
        if (copy >= 0)
            (void)close(copy);
        return false;
    }
    while (entries < 3 && readdir(stream) != NULL)
        entries++;
    (void)closedir(stream);
    return entries == 2;
}

/* Changes what was opened, never what a path leads to a moment later, and only what was made for this: a directory of this call's,
 * or an empty private one of this user's. Whose else it is does not want it given to a group. A directory that is the group's
 * already, whoever of the group made it, is good for each member. */
static int directory_give(const char *path, int descriptor, bool fresh, gid_t group)
{
    struct stat status;
    if (fstat(descriptor, &status) != 0)
        return -errno;
    if (status.st_gid == group && directory_is_groups(path, &status))
        return 0;
    if (status.st_uid != geteuid() || (mode_is_groups(status.st_mode) && status.st_gid != group))
        return -EPERM;
    if (!fresh && ((status.st_mode & 07777) != 0700 || !directory_is_empty(descriptor)))
        return -ENOTEMPTY;
    if (fchown(descriptor, (uid_t)-1, group) != 0 || fchmod(descriptor, 02770) != 0)
        return -errno;
    /* Without the right to, the kernel drops the setgid bit and says nothing. */
    return fstat(descriptor, &status) == 0 && mode_is_groups(status.st_mode) ? 0 : -EPERM;
}

static uint64_t suffix_draw(void)
{
    uint64_t suffix;
    if (getrandom(&suffix, sizeof suffix, GRND_NONBLOCK) == (ssize_t)sizeof suffix)
        return suffix;
    struct timespec now; /* early at boot; O_EXCL tells of a collision */
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_nsec << 32 ^ (uint64_t)now.tv_sec << 20 ^ (uint64_t)getpid();
}

/* Makes it beside its place, and puts it there when it is the group's: who comes meanwhile finds none, and never one that he may not
 * enter yet. -EEXIST: somebody was quicker. A maker who is killed leaves an empty directory. */
static int group_directory_publish(const char *path, gid_t group)
{
    char beside[PATH_MAX];
    size_t length = strlen(path);
    while (length > 1 && path[length - 1] == '/')
        length--;
    while (length > 0 && path[length - 1] != '/')
        length--;
    int result = snprintf(beside, sizeof beside, "%.*s" TEMPORARY_PREFIX "%016llx", (int)length, path,
                          (unsigned long long)suffix_draw());
    if (result < 0 || result >= PATH_MAX)
        return -ENAMETOOLONG;
    if (mkdir(beside, 0700) != 0)
        return -errno;
    TESTPOINT("group.made");
    int descriptor = open(beside, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    result = descriptor >= 0 ? directory_give(beside, descriptor, true, group) : -errno;
    if (descriptor >= 0)
        (void)close(descriptor);
    if (result == 0 && renameat2(AT_FDCWD, beside, AT_FDCWD, path, RENAME_NOREPLACE) != 0)
        result = -errno;
    if (result != 0)
        (void)rmdir(beside);
    return result;
}

int shm_group_directory_make(const char *path, gid_t group)
{
    struct stat status;
    int result = lstat(path, &status) == 0 ? -EEXIST : group_directory_publish(path, group);
    if (result != -EEXIST)
        return result;
    int descriptor = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (descriptor < 0)
        return errno == EACCES ? -EPERM : -errno;
    result = directory_give(path, descriptor, false, group);
    (void)close(descriptor);
    return result;
}

/* --- files of a group ------------------------------------------------------------------------------------------------ */

/* Writes the path of `name` beside `path`. */
static int path_beside(const char *path, const char *name, char result[PATH_MAX])
{
    const char *slash = strrchr(path, '/');
    int directory = slash != NULL ? (int)(slash - path) + 1 : 0;
    int length = snprintf(result, PATH_MAX, "%.*s%s", directory, path, name);
    return length < 0 || length >= PATH_MAX ? -ENAMETOOLONG : 0;
}

/* Whether `path` lies in a group's directory that is ours to use, and whose. */
static bool path_is_groups(const char *path, gid_t *group)
{
    char directory[PATH_MAX];
    struct stat status;
    if (path_beside(path, "", directory) != 0)
        return false;
    size_t length = strlen(directory);
    while (length > 1 && directory[length - 1] == '/')
        directory[--length] = '\0';
    if (length == 0 || lstat(directory, &status) != 0 || !S_ISDIR(status.st_mode))
        return false;
    *group = status.st_gid;
    return directory_is_groups(directory, &status);
}

bool shm_file_is_ours(const char *path, const struct stat *status)
{
    gid_t group;
    if (status->st_uid == geteuid())
        return true;
    return path_is_groups(path, &group) && status->st_gid == group && (status->st_mode & S_IRWXO) == 0;
}

/* What a new file's mode is, whatever the program's umask left of it. */
static mode_t file_mode(const char *path)
{
    gid_t group;
    return path_is_groups(path, &group) ? 0660 : 0600;
}

/* --- opening ------------------------------------------------------------------------------------------------------- */

/* Opens without following, waiting or becoming anybody's terminal. */
static int file_open_checked(const char *path, struct stat *status)
{
    int descriptor = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
    if (descriptor < 0) {
        int error = errno;
        if ((error == EACCES || error == EPERM) && lstat(path, status) == 0 && status->st_uid != geteuid())
            return -EPERM;
        return error == ENXIO ? -ENODEV : -error; /* a socket */
    }
    int result = 0;
    if (fstat(descriptor, status) != 0)
        result = -errno;
    else if (!S_ISREG(status->st_mode))
        result = -ENODEV;
    else if (!shm_file_is_ours(path, status))
        result = -EPERM;
    if (result == 0)
        return descriptor;
    (void)close(descriptor);
    return result;
}

static int file_map(int descriptor, size_t size, void **bytes)
{
    void *mapped = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
    if (mapped == MAP_FAILED)
        return -errno;
    *bytes = mapped;
    return 0;
}

int shm_open_existing(const char *path, size_t size, struct shm_file *file)
{
    struct stat status;
    void *bytes = NULL;
    int descriptor = file_open_checked(path, &status);
    if (descriptor < 0)
        return descriptor;
    int result = (uintmax_t)status.st_size == size ? file_map(descriptor, size, &bytes) : -EFBIG;
    (void)close(descriptor);
    if (result == 0 && madvise(bytes, size, MADV_DONTFORK) != 0) {
        result = -errno;
        (void)munmap(bytes, size);
    }
    if (result == 0)
        *file = (struct shm_file){.bytes = bytes, .size = size, .device = status.st_dev, .inode = status.st_ino};
    return result;
}

int shm_is_current(const char *path, const struct shm_file *file)
{
    struct stat status;
    if (lstat(path, &status) != 0)
        return errno == ENOENT || errno == ENOTDIR ? 0 : -errno;
    return status.st_dev == file->device && status.st_ino == file->inode;
}

void shm_close(struct shm_file *file)
{
    if (file->bytes != NULL)
        (void)munmap(file->bytes, file->size);
    *file = (struct shm_file){0};
}

/* --- making -------------------------------------------------------------------------------------------------------- */

static int temporary_open(const char *path, char temporary[PATH_MAX])
{
    enum { TRIES = 100 };
    for (unsigned i = 0; i < TRIES; i++) {
        char name[sizeof TEMPORARY_PREFIX + 16];
        (void)snprintf(name, sizeof name, TEMPORARY_PREFIX "%016llx", (unsigned long long)suffix_draw());
        int result = path_beside(path, name, temporary);
        if (result != 0)
            return result;
        int descriptor = open(temporary, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC | O_NOCTTY, 0600);
        if (descriptor >= 0)
            return descriptor;
        if (errno != EEXIST)
            return -errno;
    }
    return -EEXIST;
}

/* Allocates every block and lets the caller write. */
static int temporary_fill(int descriptor, mode_t mode, size_t size, void (*fill)(void *bytes, void *context),
                          void *context)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = MAKER_BYTE, .l_len = 1};
    if (fcntl(descriptor, F_OFD_SETLK, &lock) != 0 && errno != EAGAIN)
        return errno == EINVAL ? -ENOTSUP : -errno; /* EAGAIN: a sweeper is looking; our link will tell */
    if (fchmod(descriptor, mode) != 0)
        return -errno;
    int result;
    do {
        result = -posix_fallocate(descriptor, 0, (off_t)size);
    } while (result == -EINTR);
    if (result != 0)
        return result;
    void *bytes = NULL;
    result = file_map(descriptor, size, &bytes);
    if (result != 0)
        return result;
    fill(bytes, context);
    (void)munmap(bytes, size);
    TESTPOINT("create.filled");
    return 0;
}

/* Removes one name of a maker's file where its maker is dead. */
static void temporary_sweep(const char *temporary)
{
    struct stat status;
    int descriptor = file_open_checked(temporary, &status);
    if (descriptor < 0)
        return;
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = MAKER_BYTE, .l_len = 1};
    if (fcntl(descriptor, F_OFD_GETLK, &lock) == 0 && lock.l_type == F_UNLCK)
        (void)unlink(temporary); /* a maker between its open and its lock finds out at link(), and starts again */
    (void)close(descriptor);
}

void shm_sweep(const char *path)
{
    /* The kernel's own records, because opendir takes memory from the program's heap. */
    struct record {
        uint64_t inode;
        int64_t offset;
        unsigned short length;
        unsigned char type;
        char name[];
    };
    char directory[PATH_MAX], temporary[PATH_MAX];
    _Alignas(struct record) char buffer[4096];
    if (path_beside(path, ".", directory) != 0)
        return;
    int descriptor = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (descriptor < 0)
        return;
    long bytes;
    while ((bytes = syscall(SYS_getdents64, descriptor, buffer, sizeof buffer)) > 0) {
        const struct record *record;
        for (long at = 0; at < bytes; at += record->length) {
            record = (const struct record *)(const void *)(buffer + at);
            if (strncmp(record->name, TEMPORARY_PREFIX, sizeof TEMPORARY_PREFIX - 1) == 0 &&
                path_beside(path, record->name, temporary) == 0)
                temporary_sweep(temporary);
        }
    }
    (void)close(descriptor);
}

int shm_create(const char *path, size_t size, void (*fill)(void *bytes, void *context), void *context)
{
    enum { TRIES = 100 };
    char temporary[PATH_MAX];
    int result = -EAGAIN;
    shm_sweep(path);
    for (unsigned i = 0; i < TRIES && result == -EAGAIN; i++) {
        int descriptor = temporary_open(path, temporary);
        if (descriptor < 0)
            return descriptor;
        result = temporary_fill(descriptor, file_mode(path), size, fill, context);
        if (result == 0 && link(temporary, path) != 0)
            result = errno == ENOENT ? -EAGAIN : -errno; /* swept as if its maker were dead: once more */
        if (result == 0)
            TESTPOINT("create.linked");
        (void)unlink(temporary);
        (void)close(descriptor);
    }
    return result;
}
