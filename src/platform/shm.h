/*
 * Where ledgers live, and how a file of one is made and opened. Knows nothing of what is in it.
 */
#ifndef PLATFORM_SHM_H
#define PLATFORM_SHM_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/stat.h>
#include <sys/types.h>

/* Writes the directory to use: `asked` (CUBUDGET_DIR) where not NULL; else /run/cubudget where an administrator made
 * one this user can write to; else /dev/shm/cubudget-UID. 0 or -ENAMETOOLONG. Does not create it. */
int shm_directory(const char *asked, char path[PATH_MAX]);

/* Makes sure `path` is a directory that is ours to use: creates it with mode 0700 where missing (not its parents).
 * A group's is ours where this process may write to it as a member: setgid, nothing for others, and not where this user's own
 * default directory would be, which nobody else may make for him. Files made in it are the group's, with mode 0660.
 * -ENOTDIR; -ELOOP: a symbolic link; -EPERM: another user's, or writable by others and neither an administrator's nor a
 * group's; -errno. */
int shm_directory_prepare(const char *path);

/* Makes `path`, where it is missing or this user's own, private (0700) and empty, a directory of that group (mode 2770), or finds that it
 * is one that this user may write to. -EPERM: this user is not in the group, or the directory is another's or another group's;
 * -ENOTEMPTY: it is this user's own and holds something, or is not private: it is left as it is.
 * Otherwise as shm_directory_prepare. */
int shm_group_directory_make(const char *path, gid_t group);

/* Where a group's directory is unless somebody says otherwise: /dev/shm/cubudget-group-GID. */
void shm_group_directory(gid_t group, char path[PATH_MAX]);

/* Whether a file found at `path` is one that this user may use: his own, or his group's in a directory of that group. */
bool shm_file_is_ours(const char *path, const struct stat *status);

struct shm_file {
    void *bytes; /* shared mapping, kept out of forked children */
    size_t size;
    dev_t device;
    ino_t inode;
};

/* Maps the file of exactly `size` bytes. -ENOENT; -ELOOP; -EISDIR and -ENODEV: no regular file; -EPERM: another user's;
 * -EFBIG: another size; -errno. */
int shm_open_existing(const char *path, size_t size, struct shm_file *file);

/* Makes the file whole aside (every block allocated, so that no store can end in SIGBUS), lets `fill` write its first
 * contents, and publishes it under `path` by link(2): of several first users one wins. -EEXIST: somebody else did, open
 * theirs; -ENOSPC: full; -errno. Leaves no temporary file. */
int shm_create(const char *path, size_t size, void (*fill)(void *bytes, void *context), void *context);

/* Removes what killed makers of files left in the directory of `path`: shm_create and gc do it. */
void shm_sweep(const char *path);

/* Whether `path` still is that file: 1, 0 (gone or replaced) or -errno. */
int shm_is_current(const char *path, const struct shm_file *file);
void shm_close(struct shm_file *file);

#endif
