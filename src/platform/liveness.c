/*
 * Who is alive: single bytes of a file, locked by open file descriptions. Called by src/ledger for its rows.
 * The kernel synchronises; nothing here keeps state but what the caller's struct liveness holds.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#include "platform/liveness.h"

/* The kernel rounds it up to its page size, in mmap, madvise and munmap alike. */
enum { PAGE_BYTES = 4096 };

static struct flock byte_lock(short type, off_t byte)
{
    return (struct flock){.l_type = type, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};
}

static int byte_take(int descriptor, short type, off_t byte)
{
    struct flock lock = byte_lock(type, byte);
    if (fcntl(descriptor, F_OFD_SETLK, &lock) == 0)
        return 0;
    if (errno == EACCES)
        return -EAGAIN;
    return errno == EINVAL || errno == ENOLCK ? -ENOTSUP : -errno; /* EINVAL: no such locks in this kernel */
}

int liveness_look(int descriptor, off_t byte)
{
    struct flock lock = byte_lock(F_WRLCK, byte);
    if (fcntl(descriptor, F_OFD_GETLK, &lock) != 0)
        return -errno;
    return lock.l_type != F_UNLCK;
}

int liveness_open(const char *path, dev_t device, ino_t inode)
{
    struct stat status;
    int descriptor = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
    if (descriptor < 0)
        return errno == ENOENT || errno == ELOOP ? -ESTALE : -errno;
    if (fstat(descriptor, &status) == 0 && status.st_dev == device && status.st_ino == inode)
        return descriptor;
    (void)close(descriptor);
    return -ESTALE;
}

/* Takes a byte and leaves it in a mapping alone. */
static int life_take(const char *path, dev_t device, ino_t inode, short type, off_t byte, void **page)
{
    int descriptor = liveness_open(path, device, inode);
    if (descriptor < 0)
        return descriptor;
    int result = byte_take(descriptor, type, byte);
    void *mapped = MAP_FAILED;
    if (result == 0) {
        mapped = mmap(NULL, PAGE_BYTES, PROT_READ, MAP_SHARED, descriptor, 0);
        if (mapped == MAP_FAILED)
            result = -errno;
        else if (madvise(mapped, PAGE_BYTES, MADV_DONTFORK) != 0)
            result = -errno; /* a child would keep its dead parent alive */
    }
    if (result != 0 && mapped != MAP_FAILED)
        (void)munmap(mapped, PAGE_BYTES);
    (void)close(descriptor); /* the lock stays: the mapping refers to the same open file description */
    if (result == 0)
        *page = mapped;
    return result;
}

/* Moves a descriptor out of the numbers that programs count on, or dup2 over, as high as its limit lets. */
static int descriptor_raise(int descriptor)
{
    struct rlimit limit;
    int floor = LIVENESS_DESCRIPTOR_FLOOR;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur <= (rlim_t)floor)
        floor = (int)limit.rlim_cur - 1;
    for (; floor > descriptor; floor--) {
        int raised = fcntl(descriptor, F_DUPFD_CLOEXEC, floor);
        if (raised >= 0) {
            (void)close(descriptor); /* the copy is of the same description and keeps the lock */
            return raised;
        }
    }
    return descriptor;
}

int liveness_hold(struct liveness *held, const char *path, dev_t device, ino_t inode, off_t life_byte,
                  off_t memory_byte)
{
    *held = (struct liveness){.page = NULL, .memory_descriptor = -1, .device = device, .inode = inode};
    int result = life_take(path, device, inode, F_WRLCK, life_byte, &held->page);
    if (result != 0)
        return result;
    int descriptor = liveness_open(path, device, inode);
    if (descriptor < 0) {
        liveness_drop(held);
        return descriptor;
    }
    held->memory_descriptor = descriptor;
    result = byte_take(descriptor, F_WRLCK, memory_byte);
    if (result == 0) {
        /* The other description's look, now that only the mapping can hold the life byte. On overlayfs it does
         * not: what is mapped there is the file below, and the lock went with the descriptor. */
        int seen = liveness_look(descriptor, life_byte);
        result = seen == 1 ? 0 : seen == 0 ? -ENOTSUP : seen;
    }
    if (result != 0) {
        liveness_drop(held);
        return result;
    }
    held->memory_descriptor = descriptor_raise(descriptor);
    return 0;
}

/* Whether the number still is our descriptor: programs that become daemons close what they do not know. */
static bool descriptor_is_ours(const struct liveness *held)
{
    struct stat status;
    return held->memory_descriptor >= 0 && fstat(held->memory_descriptor, &status) == 0 &&
           status.st_dev == held->device && status.st_ino == held->inode;
}

void liveness_drop(struct liveness *held)
{
    if (held->page != NULL)
        (void)munmap(held->page, PAGE_BYTES);
    if (descriptor_is_ours(held)) {
        /* Unlocked by name, because a forked child may hold the description: giving back is the owner's word
         * that the memory is gone, and a child must not keep the row from its next owner. */
        struct flock lock = {.l_type = F_UNLCK, .l_whence = SEEK_SET};
        (void)fcntl(held->memory_descriptor, F_OFD_SETLK, &lock);
        (void)close(held->memory_descriptor);
    }
    *held = (struct liveness){.page = NULL, .memory_descriptor = -1};
}

int liveness_byte_take(const char *path, dev_t device, ino_t inode, off_t byte)
{
    int descriptor = liveness_open(path, device, inode);
    if (descriptor < 0)
        return descriptor;
    int result = byte_take(descriptor, F_WRLCK, byte);
    if (result == 0)
        return descriptor;
    (void)close(descriptor);
    return result;
}

void liveness_byte_give(int descriptor, off_t byte)
{
    struct flock lock = byte_lock(F_UNLCK, byte);
    (void)fcntl(descriptor, F_OFD_SETLK, &lock);
    (void)close(descriptor);
}

int liveness_share(const char *path, dev_t device, ino_t inode, off_t byte, void **page)
{
    return life_take(path, device, inode, F_RDLCK, byte, page);
}

void liveness_unshare(void *page)
{
    if (page != NULL)
        (void)munmap(page, PAGE_BYTES);
}
