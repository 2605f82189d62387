/* Loaded objects, by an address in them; object.h has who calls it and what synchronises it. */
#include "config.h"

#include <dlfcn.h>
#include <link.h>
#include <string.h>
#include "cuda/object.h"

struct range_search {
    uintptr_t address, first, last;
};

static int range_visit(struct dl_phdr_info *object, size_t bytes, void *context)
{
    struct range_search *search = context;
    uintptr_t first = UINTPTR_MAX, last = 0;
    (void)bytes;
    for (unsigned i = 0; i < object->dlpi_phnum; i++) {
        const ElfW(Phdr) *segment = &object->dlpi_phdr[i];
        uintptr_t start = object->dlpi_addr + segment->p_vaddr;
        if (segment->p_type != PT_LOAD)
            continue;
        first = start < first ? start : first;
        last = start + segment->p_memsz > last ? start + segment->p_memsz : last;
    }
    if (search->address < first || search->address >= last)
        return 0;
    search->first = first;
    search->last = last;
    return 1;
}

bool object_range_find(uintptr_t address, uintptr_t *first, uintptr_t *last)
{
    struct range_search search = {.address = address};
    if (dl_iterate_phdr(range_visit, &search) == 0)
        return false;
    *first = search.first;
    *last = search.last;
    return true;
}

static int code_visit(struct dl_phdr_info *object, size_t bytes, void *context)
{
    uintptr_t address = (uintptr_t)context;
    (void)bytes;
    for (unsigned i = 0; i < object->dlpi_phnum; i++) {
        const ElfW(Phdr) *segment = &object->dlpi_phdr[i];
        uintptr_t start = object->dlpi_addr + segment->p_vaddr;
        if (segment->p_type == PT_LOAD && (segment->p_flags & PF_X) != 0 && address >= start &&
            address < start + segment->p_memsz)
            return 1;
    }
    return 0;
}

bool object_is_code(const void *address)
{
    union {
        const void *address;
        void *context;
    } passed = {.address = address}; /* looked at as a number only */
    return dl_iterate_phdr(code_visit, passed.context) != 0;
}

const char *object_path(const void *address, const char *stem)
{
    Dl_info info;
    struct link_map *map = NULL;
    if (dladdr1(address, &info, (void **)&map, RTLD_DL_LINKMAP) == 0 || map == NULL)
        return NULL;
    const char *slash = strrchr(map->l_name, '/');
    return strncmp(slash != NULL ? slash + 1 : map->l_name, stem, strlen(stem)) == 0 ? map->l_name : NULL;
}
