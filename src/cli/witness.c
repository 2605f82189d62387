/*
 * The simulated machines of a directory; see witness.h. The only file of the command that knows of the simulator.
 */
#include "config.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "cli/witness.h"

#ifdef ENABLE_SIMULATOR
#include "sim/machine.h"

static const char machine_prefix[] = "simulator-", machine_suffix[] = ".machine";

/* Writes the NAME of "simulator-NAME.machine". */
static bool machine_name(const char *file, char name[NAME_MAX + 1])
{
    size_t prefix = sizeof machine_prefix - 1, suffix = sizeof machine_suffix - 1, length = strlen(file);
    if (length <= prefix + suffix || length > NAME_MAX || strncmp(file, machine_prefix, prefix) != 0 ||
        strcmp(file + length - suffix, machine_suffix) != 0)
        return false;
    memcpy(name, file + prefix, length - prefix - suffix);
    name[length - prefix - suffix] = '\0';
    return true;
}

int witness_machines_walk(const char *directory, int (*each)(const char *name, void *context), void *context)
{
    DIR *entries = opendir(directory);
    const struct dirent *entry;
    char name[NAME_MAX + 1];
    int result = 0;
    if (entries == NULL)
        return 0; /* no directory, no machine */
    while (result == 0 && (entry = readdir(entries)) != NULL)
        if (machine_name(entry->d_name, name))
            result = each(name, context);
    (void)closedir(entries);
    return result;
}

struct search {
    const char *directory;
    const uint8_t *uuid;
    struct witness_figures *figures;
};

static int machine_search(const char *name, void *context)
{
    const struct search *search = context;
    struct sim_figures figures;
    if (sim_machine_read(search->directory, name, &figures) != 0)
        return 0;
    for (unsigned i = 0; i < figures.devices && i < SIM_DEVICES; i++)
        if (memcmp(figures.device[i].uuid, search->uuid, sizeof figures.device[i].uuid) == 0) {
            search->figures->used_bytes = figures.device[i].used_bytes;
            search->figures->peak_bytes = figures.device[i].peak_bytes;
            return 1;
        }
    return 0;
}

bool witness_find(const char *directory, const uint8_t uuid[16], struct witness_figures *figures)
{
    struct search search = {directory, uuid, figures};
    return witness_machines_walk(directory, machine_search, &search) == 1;
}

struct holder_search {
    const char *directory;
    const uint8_t *uuid;
    struct sim_holder *found;
    unsigned places, count;
};

static int holders_search(const char *name, void *context)
{
    struct holder_search *search = context;
    return sim_machine_holders(search->directory, name, search->uuid, search->found, search->places, &search->count) ==
           0;
}

int witness_holders_read(const char *directory, const uint8_t uuid[16], struct witness_holder *holders, unsigned places)
{
    struct holder_search search = {.directory = directory, .uuid = uuid, .places = places};
    search.found = calloc(places, sizeof *search.found);
    if (search.found == NULL || witness_machines_walk(directory, holders_search, &search) != 1) {
        free(search.found);
        return -1;
    }
    for (unsigned i = 0; i < search.count && i < places; i++)
        holders[i] = (struct witness_holder){(uint32_t)search.found[i].pid, search.found[i].used_bytes};
    free(search.found);
    return (int)search.count;
}

int witness_machine_remove(const char *directory, const char *name)
{
    return sim_machine_remove(directory, name);
}

int witness_options_check(const char *options, char *fault, size_t fault_bytes)
{
    return sim_options_check(options, fault, fault_bytes);
}

#else

bool witness_find(const char *directory, const uint8_t uuid[16], struct witness_figures *figures)
{
    (void)directory;
    (void)uuid;
    (void)figures;
    return false;
}

int witness_holders_read(const char *directory, const uint8_t uuid[16], struct witness_holder *holders, unsigned places)
{
    (void)directory;
    (void)uuid;
    (void)holders;
    (void)places;
    return -1;
}

int witness_machines_walk(const char *directory, int (*each)(const char *name, void *context), void *context)
{
    (void)directory;
    (void)each;
    (void)context;
    return 0;
}

int witness_machine_remove(const char *directory, const char *name)
{
    (void)directory;
    (void)name;
    return -ENOENT;
}

int witness_options_check(const char *options, char *fault, size_t fault_bytes)
{
    (void)options;
    (void)fault;
    (void)fault_bytes;
    return 0;
}
#endif
