/* The simulated machine's file; see machine_file.h and machine.h. */
#include "sim/machine_file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum {
    SWEEP_EVERY_MS = 5,    /* how stale the knowledge of who is dead may be where somebody is at work */
    DESCRIPTOR_FLOOR = 64, /* out of the way of programs that count on small numbers */
    PATH_BYTES = 512,
    LIFE_BYTES = 4096, /* of the mapping that holds a life byte */
};

uint64_t machine_clock_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

void machine_directory(char *directory, size_t directory_bytes)
{
    const char *chosen = getenv("CUBUDGET_DIR");
    if (chosen && *chosen)
        snprintf(directory, directory_bytes, "%s", chosen);
    else
        snprintf(directory, directory_bytes, "/dev/shm/cubudget-%lu", (unsigned long)getuid());
}

static unsigned machine_places(const struct machine_shared *shared)
{
    return shared->places < MACHINE_PROCESSES ? shared->places : MACHINE_PROCESSES;
}

static uint64_t machine_sum(const struct machine_shared *shared, unsigned device)
{
    uint64_t used_bytes = 0;
    for (unsigned i = 0; i < machine_places(shared); i++)
        if (shared->process[i].taken)
            used_bytes += shared->process[i].used_bytes[device];
    return used_bytes;
}

void machine_word_wait(_Atomic uint32_t *word, uint32_t value, uint64_t most_ms)
{
    struct timespec most = {.tv_sec = (time_t)(most_ms / 1000), .tv_nsec = (long)(most_ms % 1000) * 1000000};
    int saved = errno;
    syscall(SYS_futex, word, FUTEX_WAIT, value, most_ms ? &most : NULL, NULL, 0);
    errno = saved;
}

void machine_word_wake(_Atomic uint32_t *word)
{
    syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

static uint64_t host_sum(const struct machine_shared *shared)
{
    uint64_t image_bytes = 0;
    for (unsigned i = 0; i < machine_places(shared); i++)
        for (unsigned device = 0; shared->process[i].taken && device < SIM_DEVICES; device++)
            image_bytes += shared->process[i].image_bytes[device];
    return image_bytes;
}

void machine_lock(struct machine_shared *shared)
{
    if (pthread_mutex_lock(&shared->mutex) != EOWNERDEAD)
        return;
    /* The owner may have taken bytes and died before it noted the peak. */
    for (unsigned device = 0; device < shared->devices; device++) {
        uint64_t used_bytes = machine_sum(shared, device);
        if (used_bytes > shared->device[device].peak_bytes)
            shared->device[device].peak_bytes = used_bytes;
    }
    uint64_t image_bytes = host_sum(shared);
    if (image_bytes > shared->host_peak_bytes)
        shared->host_peak_bytes = image_bytes;
    pthread_mutex_consistent(&shared->mutex);
}

void machine_unlock(struct machine_shared *shared)
{
    pthread_mutex_unlock(&shared->mutex);
}

static off_t process_byte(unsigned place)
{
    return (off_t)sizeof(struct machine_shared) + place;
}

/* A program may have closed our descriptor and opened something else under its number: then nobody is judged. */
static bool descriptor_is_ours(const struct machine *machine)
{
    struct stat status;
    return fstat(machine->descriptor, &status) == 0 && status.st_dev == machine->filesystem &&
           status.st_ino == machine->inode;
}

static bool process_is_alive(const struct machine *machine, unsigned place)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = process_byte(place), .l_len = 1};
    if (machine->self == &machine->shared->process[place])
        return true;
    return fcntl(machine->descriptor, F_OFD_GETLK, &lock) != 0 || lock.l_type != F_UNLCK;
}

static struct flock life_lock(unsigned place)
{
    return (struct flock){.l_type = F_WRLCK,
                          .l_whence = SEEK_SET,
                          .l_start = process_byte(MACHINE_PROCESSES) + 1 + place, /* between them: the watcher's */
                          .l_len = 1};
}

/* Takes a place's life byte on an opening that only a mapping keeps, which fork does not copy. False: another has it. */
static bool life_take(struct machine *machine, unsigned place)
{
    char path[48];
    struct flock lock = life_lock(place);
    snprintf(path, sizeof(path), "/proc/self/fd/%d", machine->descriptor);
    int descriptor = open(path, O_RDWR | O_CLOEXEC);
    void *life = MAP_FAILED;
    if (descriptor >= 0 && fcntl(descriptor, F_OFD_SETLK, &lock) == 0)
        life = mmap(NULL, LIFE_BYTES, PROT_READ, MAP_SHARED, descriptor, 0);
    if (life != MAP_FAILED) {
        madvise(life, LIFE_BYTES, MADV_DONTFORK);
        machine->life = life;
    }
    if (descriptor >= 0)
        close(descriptor);
    return life != MAP_FAILED;
}

static bool process_is_itself_alive(const struct machine *machine, const struct machine_process *process)
{
    struct flock lock = life_lock((unsigned)(process - machine->shared->process));
    return fcntl(machine->descriptor, F_OFD_GETLK, &lock) != 0 || lock.l_type != F_UNLCK;
}

bool machine_process_serves(const struct machine *machine, const struct machine_process *process, uint64_t number)
{
    return process->taken && process->number == number && process->thread != 0 &&
           process_is_itself_alive(machine, process);
}

/* An image is the process's own memory: it goes with the process, whoever has inherited its descriptors. */
static void image_look(const struct machine *machine, struct machine_process *process)
{
    uint64_t any = 0;
    for (unsigned device = 0; device < SIM_DEVICES; device++)
        any |= process->image_bytes[device];
    if (any && !process_is_itself_alive(machine, process))
        memset(process->image_bytes, 0, sizeof(process->image_bytes));
}

static bool process_holds(const struct machine_process *process)
{
    uint64_t any = 0;
    for (unsigned device = 0; device < SIM_DEVICES; device++)
        any |= process->used_bytes[device];
    return any != 0;
}

/* Looks who is dead, and gives back the memory of those who have been for long enough. Under the mutex. */
static void machine_sweep(struct machine *machine)
{
    struct machine_shared *shared = machine->shared;
    uint64_t now_ms = machine_clock_ms();
    if (!descriptor_is_ours(machine))
        return;
    for (unsigned i = 0; i < machine_places(shared); i++) {
        struct machine_process *process = &shared->process[i];
        if (!process->taken)
            continue;
        image_look(machine, process);
        if (process_is_alive(machine, i)) {
            process->alive_ms = now_ms;
            continue;
        }
        process->dead = 1;
        if (now_ms - process->alive_ms >= shared->release_ms || !process_holds(process))
            process->taken = 0;
    }
    shared->swept_ms = now_ms;
}

/* What a process at work does: it says that it lives, and looks for the dead every few milliseconds. */
static void machine_sweep_if_due(struct machine *machine)
{
    machine->self->alive_ms = machine_clock_ms();
    if (machine->self->alive_ms - machine->shared->swept_ms >= SWEEP_EVERY_MS)
        machine_sweep(machine);
}

int machine_charge(struct machine *machine, unsigned device, uint64_t bytes)
{
    struct machine_shared *shared = machine->shared;
    uint64_t most_bytes = shared->memory_bytes - shared->baseline_bytes;
    if (bytes > most_bytes)
        return -ENOMEM;
    machine_lock(shared);
    machine_sweep_if_due(machine);
    uint64_t used_bytes = machine_sum(shared, device);
    if (used_bytes > most_bytes - bytes) {
        machine_sweep(machine);
        used_bytes = machine_sum(shared, device);
    }
    bool fits = used_bytes <= most_bytes - bytes;
    if (fits) {
        machine->self->used_bytes[device] += bytes;
        if (used_bytes + bytes > shared->device[device].peak_bytes)
            shared->device[device].peak_bytes = used_bytes + bytes;
    }
    machine_unlock(shared);
    return fits ? 0 : -ENOMEM;
}

static void cell_reduce(uint64_t *cell_bytes, uint64_t bytes)
{
    *cell_bytes -= bytes < *cell_bytes ? bytes : *cell_bytes; /* less: a thread that frees while its process leaves */
}

void machine_credit(struct machine *machine, unsigned device, uint64_t bytes)
{
    machine_lock(machine->shared);
    machine_sweep_if_due(machine);
    cell_reduce(&machine->self->used_bytes[device], bytes);
    cell_reduce(&machine->self->image_bytes[device], bytes); /* what others let go of while the memory is away */
    machine_unlock(machine->shared);
}

int machine_image_make(struct machine *machine)
{
    struct machine_shared *shared = machine->shared;
    struct machine_process *self = machine->self;
    uint64_t image_bytes = 0;
    machine_lock(shared);
    machine_sweep(machine);
    uint64_t taken_bytes = host_sum(shared);
    for (unsigned device = 0; device < SIM_DEVICES; device++)
        image_bytes += self->used_bytes[device];
    bool fits = taken_bytes <= shared->host_bytes && image_bytes <= shared->host_bytes - taken_bytes;
    if (fits) {
        memcpy(self->image_bytes, self->used_bytes, sizeof(self->image_bytes));
        if (taken_bytes + image_bytes > shared->host_peak_bytes)
            shared->host_peak_bytes = taken_bytes + image_bytes;
    }
    machine_unlock(shared);
    return fits ? 0 : -ENOMEM;
}

void machine_image_keep(struct machine *machine)
{
    machine_lock(machine->shared);
    machine_sweep_if_due(machine);
    memset(machine->self->used_bytes, 0, sizeof(machine->self->used_bytes));
    machine_unlock(machine->shared);
}

int machine_image_return(struct machine *machine)
{
    struct machine_shared *shared = machine->shared;
    struct machine_process *self = machine->self;
    uint64_t most_bytes = shared->memory_bytes - shared->baseline_bytes, used_bytes[SIM_DEVICES];
    bool fits = true;
    machine_lock(shared);
    machine_sweep(machine);
    for (unsigned device = 0; device < shared->devices; device++) {
        used_bytes[device] = machine_sum(shared, device);
        fits = fits && self->image_bytes[device] <= most_bytes - used_bytes[device];
    }
    for (unsigned device = 0; fits && device < shared->devices; device++) {
        self->used_bytes[device] += self->image_bytes[device];
        used_bytes[device] += self->image_bytes[device];
        if (used_bytes[device] > shared->device[device].peak_bytes)
            shared->device[device].peak_bytes = used_bytes[device];
    }
    machine_unlock(shared);
    return fits ? 0 : -ENOMEM;
}

void machine_image_drop(struct machine *machine)
{
    machine_lock(machine->shared);
    machine_sweep_if_due(machine);
    memset(machine->self->image_bytes, 0, sizeof(machine->self->image_bytes));
    machine_unlock(machine->shared);
}

void machine_watch(struct machine *machine)
{
    machine_lock(machine->shared);
    machine_sweep_if_due(machine);
    machine_unlock(machine->shared);
}

uint64_t machine_used(struct machine *machine, unsigned device)
{
    machine_lock(machine->shared);
    machine_sweep(machine);
    uint64_t used_bytes = machine_sum(machine->shared, device);
    machine_unlock(machine->shared);
    return used_bytes;
}

unsigned machine_holders(struct machine *machine, unsigned device, struct sim_holder *holders, unsigned places)
{
    unsigned count = 0;
    machine_lock(machine->shared);
    machine_sweep(machine);
    for (unsigned i = 0; i < machine_places(machine->shared); i++) {
        const struct machine_process *process = &machine->shared->process[i];
        if (!process->taken || process->dead || !process->used_bytes[device])
            continue;
        if (count < places)
            holders[count] = (struct sim_holder){process->pid, process->used_bytes[device]};
        count++;
    }
    machine_unlock(machine->shared);
    return count;
}

/* NVML names processes by their pid in the host's namespace: what /proc calls us, where /proc is the host's. */
static int32_t process_pid(void)
{
    char text[32];
    ssize_t length = readlink("/proc/self", text, sizeof(text) - 1);
    if (length <= 0)
        return (int32_t)getpid();
    text[length] = '\0';
    int32_t pid = (int32_t)strtol(text, NULL, 10);
    return pid > 0 ? pid : (int32_t)getpid();
}

_Atomic uint32_t *machine_self_away(struct machine *machine)
{
    struct machine_shared *shared = machine->shared;
    _Atomic uint32_t *away = NULL;
    int32_t pid = 0;
    machine_lock(shared);
    for (unsigned i = 0; !away && i < machine_places(shared); i++) {
        struct machine_process *process = &shared->process[i];
        uint32_t state = process->state;
        if (!process->taken || state == STATE_RUNNING || state == STATE_LOCKED || state == STATE_LOCKING)
            continue;
        if (pid == 0)
            pid = process_pid();
        if (process->pid == pid && machine_process_serves(machine, process, process->number))
            away = &process->state;
    }
    machine_unlock(shared);
    return away;
}

int machine_claim(struct machine *machine)
{
    struct machine_shared *shared = machine->shared;
    int result = -EUSERS;
    machine_lock(shared);
    machine_sweep(machine);
    if (shared->removed)
        result = -EAGAIN;
    for (unsigned i = 0; result == -EUSERS && i < MACHINE_PROCESSES; i++) {
        struct machine_process *process = &shared->process[i];
        struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = process_byte(i), .l_len = 1};
        if (process->taken || fcntl(machine->descriptor, F_OFD_SETLK, &lock) != 0)
            continue;
        if (!life_take(machine, i)) {
            lock.l_type = F_UNLCK;
            fcntl(machine->descriptor, F_OFD_SETLK, &lock);
            continue;
        }
        memset(process, 0, sizeof(*process));
        process->pid = process_pid();
        process->alive_ms = machine_clock_ms();
        process->number = ++shared->claims;
        if (i >= shared->places)
            shared->places = i + 1; /* first: a killed claimer must not leave a place that nobody looks at */
        process->taken = 1;
        machine->self = process;
        result = 0;
    }
    machine_unlock(shared);
    return result;
}

/* A uuid that differs between machines and devices and is the same each time: FNV-1a over name and index. */
static void device_uuid(const char *machine_name, unsigned device, uint8_t uuid[16])
{
    for (unsigned half = 0; half < 2; half++) {
        uint64_t hash = 0xCBF29CE484222325u + half;
        for (const char *letter = machine_name; *letter; letter++)
            hash = (hash ^ (uint8_t)*letter) * 0x100000001B3u;
        hash = (hash ^ (device + 1)) * 0x100000001B3u;
        hash = (hash ^ hash >> 29) * 0xBF58476D1CE4E5B9u;
        for (unsigned i = 0; i < 8; i++)
            uuid[half * 8 + i] = (uint8_t)(hash >> (8 * i));
    }
}

static void machine_describe(struct machine_shared *shared, const struct sim_options *options)
{
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    pthread_mutex_init(&shared->mutex, &attributes);
    pthread_mutexattr_destroy(&attributes);
    shared->version = MACHINE_VERSION;
    shared->bytes = sizeof(*shared);
    shared->devices = options->devices;
    shared->release_ms = options->release_ms;
    shared->compute_major = options->compute_major;
    shared->compute_minor = options->compute_minor;
    shared->memory_bytes = options->memory_bytes;
    shared->baseline_bytes = options->baseline_bytes;
    shared->context_bytes = options->context_bytes;
    shared->host_bytes = options->host_bytes;
    memcpy(shared->name, options->name, sizeof(shared->name));
    for (unsigned device = 0; device < SIM_DEVICES; device++)
        device_uuid(options->machine, device, shared->device[device].uuid);
    memcpy(shared->magic, MACHINE_MAGIC, sizeof(shared->magic));
}

/* In a directory that a group shares, the machine is the group's too. */
static int machine_share(int descriptor, const char *path)
{
    char directory[PATH_BYTES];
    struct stat status;
    snprintf(directory, sizeof(directory), "%s", path);
    char *slash = strrchr(directory, '/');
    if (slash)
        *slash = '\0';
    if (!slash || stat(directory, &status) != 0 || !(status.st_mode & S_ISGID) || !(status.st_mode & S_IWGRP))
        return 0;
    return fchmod(descriptor, 0660) == 0 ? 0 : -errno;
}

/* Makes a machine aside and publishes it with link(), so that two first users get one. 0, -EEXIST or -errno. */
static int machine_make(const char *path, const struct sim_options *options)
{
    char aside[PATH_BYTES + 32];
    snprintf(aside, sizeof(aside), "%s.XXXXXX", path);
    int descriptor = mkostemp(aside, O_CLOEXEC);
    if (descriptor < 0)
        return -errno;
    int result = machine_share(descriptor, path);
    if (result == 0)
        result = -posix_fallocate(descriptor, 0, (off_t)sizeof(struct machine_shared));
    void *mapping = MAP_FAILED;
    if (result == 0) {
        mapping = mmap(NULL, sizeof(struct machine_shared), PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
        result = mapping == MAP_FAILED ? -errno : 0;
    }
    if (result == 0) {
        machine_describe(mapping, options);
        munmap(mapping, sizeof(struct machine_shared));
        result = link(aside, path) == 0 ? 0 : -errno;
    }
    unlink(aside);
    close(descriptor);
    return result;
}

static bool shared_is_valid(const struct machine_shared *shared)
{
    return memcmp(shared->magic, MACHINE_MAGIC, sizeof(shared->magic)) == 0 && shared->version == MACHINE_VERSION &&
           shared->bytes == sizeof(*shared) && shared->devices >= 1 && shared->devices <= SIM_DEVICES &&
           shared->baseline_bytes <= shared->memory_bytes;
}

/* Maps the file that was opened, through another open: the mapping would keep the lock of that descriptor after it was
 * closed. 0; -ENOENT: replaced between the two; -errno. */
static int shared_map(const char *path, const struct stat *opened, void **mapping)
{
    struct stat again;
    int descriptor = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (descriptor < 0)
        return -errno;
    int result = -ENOENT;
    if (fstat(descriptor, &again) == 0 && again.st_ino == opened->st_ino && again.st_dev == opened->st_dev) {
        *mapping = mmap(NULL, sizeof(struct machine_shared), PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
        result = *mapping == MAP_FAILED ? -errno : 0;
    }
    close(descriptor);
    return result;
}

/* Maps the file at path. 0; -ENOENT; -EPROTO; -errno. */
static int machine_map(struct machine *machine, const char *path)
{
    struct stat status;
    memset(machine, 0, sizeof(*machine));
    machine->descriptor = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (machine->descriptor < 0)
        return -errno;
    int higher = fcntl(machine->descriptor, F_DUPFD_CLOEXEC, DESCRIPTOR_FLOOR);
    if (higher >= 0) {
        close(machine->descriptor);
        machine->descriptor = higher;
    }
    int result = 0;
    void *mapping = MAP_FAILED;
    if (fstat(machine->descriptor, &status) != 0)
        result = -errno;
    else if (!S_ISREG(status.st_mode) || status.st_size != (off_t)sizeof(struct machine_shared))
        result = -EPROTO;
    if (result == 0)
        result = shared_map(path, &status, &mapping);
    if (result == 0 && !shared_is_valid(mapping)) {
        munmap(mapping, sizeof(struct machine_shared));
        result = -EPROTO;
    }
    if (result != 0) {
        close(machine->descriptor);
        return result;
    }
    machine->shared = mapping;
    machine->filesystem = status.st_dev;
    machine->inode = status.st_ino;
    return 0;
}

void machine_close(struct machine *machine)
{
    if (!machine->shared)
        return;
    if (machine->life)
        munmap(machine->life, LIFE_BYTES);
    machine->life = NULL;
    munmap(machine->shared, sizeof(*machine->shared));
    close(machine->descriptor);
    machine->shared = NULL;
}

/* What the options ask for and the machine does not have. 0 or -EINVAL. */
static int machine_compare(const struct machine_shared *shared, const struct sim_options *options, char *fault,
                           size_t fault_bytes)
{
    const char *key = NULL;
    if (options->memory_given && options->memory_bytes != shared->memory_bytes)
        key = "memory";
    else if (options->devices_given && options->devices != shared->devices)
        key = "devices";
    else if (options->baseline_given && options->baseline_bytes != shared->baseline_bytes)
        key = "baseline";
    else if (options->host_given && options->host_bytes != shared->host_bytes)
        key = "host";
    else if (options->compute_given &&
             (options->compute_major != shared->compute_major || options->compute_minor != shared->compute_minor))
        key = "compute";
    if (!key)
        return 0;
    snprintf(
        fault, fault_bytes,
        "%s= differs from the machine '%s' that is running (memory %llu MiB, devices %u, baseline %llu MiB, compute "
        "%u.%u): leave it out, or write machine= with another name",
        key, options->machine, (unsigned long long)(shared->memory_bytes >> 20), shared->devices,
        (unsigned long long)(shared->baseline_bytes >> 20), shared->compute_major, shared->compute_minor);
    return -EINVAL;
}

static int machine_path(char *path, size_t path_bytes, const char *directory, const char *name)
{
    int length = snprintf(path, path_bytes, "%s/simulator-%s.machine", directory, name);
    return length < 0 || (size_t)length >= path_bytes ? -ENAMETOOLONG : 0;
}

int machine_open(struct machine *machine, const struct sim_options *options, char *fault, size_t fault_bytes)
{
    char directory[PATH_BYTES - 128], path[PATH_BYTES];
    machine_directory(directory, sizeof(directory));
    int result = machine_path(path, sizeof(path), directory, options->machine);
    if (result != 0)
        return result;
    while ((result = machine_map(machine, path)) == -ENOENT) {
        if (mkdir(directory, 0700) != 0 && errno != EEXIST)
            return -errno;
        result = machine_make(path, options);
        if (result != 0 && result != -EEXIST)
            return result;
    }
    if (result != 0)
        return result;
    result = machine_compare(machine->shared, options, fault, fault_bytes);
    if (result != 0)
        machine_close(machine);
    return result;
}

int sim_machine_read(const char *directory, const char *name, struct sim_figures *figures)
{
    struct machine machine;
    char path[PATH_BYTES];
    int result = machine_path(path, sizeof(path), directory, name);
    if (result == 0)
        result = machine_map(&machine, path);
    if (result != 0)
        return result;
    memset(figures, 0, sizeof(*figures));
    machine_lock(machine.shared);
    machine_sweep(&machine);
    figures->devices = machine.shared->devices;
    figures->host_used_bytes = host_sum(machine.shared);
    figures->host_peak_bytes = machine.shared->host_peak_bytes;
    for (unsigned device = 0; device < figures->devices; device++) {
        memcpy(figures->device[device].uuid, machine.shared->device[device].uuid, 16);
        figures->device[device].total_bytes = machine.shared->memory_bytes;
        figures->device[device].used_bytes = machine_sum(machine.shared, device);
        figures->device[device].peak_bytes = machine.shared->device[device].peak_bytes;
    }
    machine_unlock(machine.shared);
    machine_close(&machine);
    return 0;
}

int sim_machine_holders(const char *directory, const char *name, const uint8_t uuid[16], struct sim_holder *holders,
                        unsigned places, unsigned *count)
{
    struct machine machine;
    char path[PATH_BYTES];
    int result = machine_path(path, sizeof(path), directory, name);
    if (result == 0)
        result = machine_map(&machine, path);
    if (result != 0)
        return result;
    result = -ENODEV;
    for (unsigned device = 0; result != 0 && device < machine.shared->devices && device < SIM_DEVICES; device++)
        if (memcmp(machine.shared->device[device].uuid, uuid, 16) == 0) {
            *count = machine_holders(&machine, device, holders, places);
            result = 0;
        }
    machine_close(&machine);
    return result;
}

int sim_machine_remove(const char *directory, const char *name)
{
    struct machine machine;
    char path[PATH_BYTES];
    int result = machine_path(path, sizeof(path), directory, name);
    if (result == 0)
        result = machine_map(&machine, path);
    if (result != 0)
        return result;
    machine_lock(machine.shared);
    for (unsigned i = 0; result == 0 && i < machine_places(machine.shared); i++)
        if (machine.shared->process[i].taken && process_is_alive(&machine, i))
            result = -EBUSY;
    if (result == 0) {
        result = unlink(path) == 0 ? 0 : -errno;
        machine.shared->removed = result == 0;
    }
    machine_unlock(machine.shared);
    machine_close(&machine);
    return result;
}
