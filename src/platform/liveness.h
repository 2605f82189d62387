/*
 * Who is alive, by the kernel's word alone: open-file-description locks on single bytes of a file.
 *
 * The life byte: locked on a fresh open, which is then mapped, kept out of forked children (MADV_DONTFORK) and closed.
 * The mapping keeps the lock: it ends with the process however it ends, is dropped by exec, is not inherited by fork,
 * survives a program that closes every descriptor, and is the same in every PID namespace.
 * The memory byte: locked on a descriptor that is kept, close-on-exec and inherited by fork, exactly like the
 * driver's own descriptors, because the driver keeps a dead process's memory while a child holds those.
 *
 * Callers see to it that no fork falls into liveness_hold (src/account takes its lock in an atfork handler).
 */
#ifndef PLATFORM_LIVENESS_H
#define PLATFORM_LIVENESS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* What keeps one row's two bytes held. */
struct liveness {
    void *page;            /* the mapping whose file description holds the life byte; NULL: not held */
    int memory_descriptor; /* -1: not held */
    dev_t device;          /* the file of both: a program may close our descriptor and get its number for its own */
    ino_t inode;
};

enum { LIVENESS_DESCRIPTOR_FLOOR = 200 }; /* kept descriptors are moved above it (or as high as the limit lets) */

/* Takes both bytes of a row on fresh opens of `path` (which must be the file dev:ino, else -ESTALE).
 * 0; -EAGAIN: somebody holds one of them; -ENOTSUP: the lock does not hold here (seen from another open one's own
 * byte reads free, as on overlayfs); else -errno. Leaves nothing held on failure. */
int liveness_hold(struct liveness *held, const char *path, dev_t device, ino_t inode, off_t life_byte,
                  off_t memory_byte);

/* Gives both bytes up, the memory byte even where a forked child holds its descriptor too. Only for the process that
 * called liveness_hold: a child that dropped its copy would give up its parent's. A descriptor that the program has
 * closed, and perhaps opened again as something of its own, is left alone. */
void liveness_drop(struct liveness *held);

/* Shares one byte with others who do, on a fresh open that is left in a mapping alone, as the life byte is. Results as
 * liveness_hold's. / Gives it up. */
int liveness_share(const char *path, dev_t device, ino_t inode, off_t byte, void **page);
void liveness_unshare(void *page);

/* Opens `path` anew where it still is the file dev:ino: the descriptor, -ESTALE or -errno. To look with. */
int liveness_open(const char *path, dev_t device, ino_t inode);

/* Whether some other file description holds that byte of the file open at `descriptor`: 1, 0 or -errno. Looks, never
 * locks: a look that locked would make dead rows seem alive to others. */
int liveness_look(int descriptor, off_t byte);

/* Takes one byte alone on a descriptor, for as long as something takes: the descriptor; -EAGAIN: somebody holds it; -ESTALE;
 * -errno. liveness_byte_give takes it back, where a forked child has the descriptor too. */
int liveness_byte_take(const char *path, dev_t device, ino_t inode, off_t byte);
void liveness_byte_give(int descriptor, off_t byte);

#endif
