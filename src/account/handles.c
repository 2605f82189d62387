/* Physical memory held by handle; handles.h has who calls it, what synchronises it, and the rules. */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include "account/state.h"
#include "platform/log.h"
#include "platform/testpoint.h"

enum { PAGE_SHIFT = 12, FIRST_PLACES = 256 };
#define FIRST_NAME ((memory_name)1 << 32) /* place 0, its first life */

/* --- pieces of memory ------------------------------------------------------------------------------------------------- */

/* The same array with twice the room, kept out of forked children like it; NULL: no memory, and it is as it was. */
static void *array_grow(void *array, uint32_t *capacity, size_t element_bytes)
{
    uint32_t larger = *capacity != 0 ? *capacity * 2 : FIRST_PLACES;
    void *places = mmap(NULL, larger * element_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (places == MAP_FAILED)
        return NULL;
    (void)madvise(places, larger * element_bytes, MADV_DONTFORK);
    if (array != NULL) {
        memcpy(places, array, *capacity * element_bytes);
        (void)munmap(array, *capacity * element_bytes);
    }
    *capacity = larger;
    return places;
}

static struct memory *memory_of(const struct handles *handles, memory_name name)
{
    uint32_t index = (uint32_t)name, life = (uint32_t)(name >> 32);
    if (name == 0 || index >= handles->memory_count)
        return NULL;
    struct memory *memory = &handles->memory[index];
    return memory->life == life && memory->bytes != 0 ? memory : NULL;
}

/* A place for a piece with one reference; 0: no memory for it. */
static memory_name memory_add(struct handles *handles, unsigned purse, uint64_t bytes)
{
    uint32_t index = handles->memory_free - 1;
    if (handles->memory_free != 0) {
        handles->memory_free = handles->memory[index].next;
    } else {
        if (handles->memory_count == handles->memory_capacity) {
            void *grown = array_grow(handles->memory, &handles->memory_capacity, sizeof *handles->memory);
            if (grown == NULL)
                return 0;
            handles->memory = grown;
        }
        index = handles->memory_count++;
    }
    struct memory *memory = &handles->memory[index];
    uint32_t life = memory->life + 1 != 0 ? memory->life + 1 : 1; /* where it came round: 0 is "none" */
    *memory = (struct memory){.bytes = bytes, .life = life, .references = 1, .purse = (uint16_t)purse};
    return (memory_name)life << 32 | index;
}

/* Whether the descriptor still is what was exported. A number that leads to the same device again would be taken for it: the
 * driver opens no such descriptor but by another export, which we see (handle_export_end). Never asks a file system. */
static bool export_is_open(const struct export *export)
{
    struct statx seen;
    int before = errno;
    bool open = statx(export->shareable.descriptor, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_INO, &seen) == 0 &&
                makedev(seen.stx_dev_major, seen.stx_dev_minor) == export->device && seen.stx_ino == export->inode;
    errno = before;
    return open;
}

static void export_remove(struct handles *handles, uint32_t at)
{
    struct memory *memory = memory_of(handles, handles->exports[at].name);
    if (memory != NULL && handles->exports[at].shareable.is_descriptor)
        memory->exports--;
    handles->exports[at] = handles->exports[--handles->export_count];
}

/* Forgets the exports of a piece: those whose descriptor is closed, or all. */
static void exports_remove(struct handles *handles, memory_name name, bool all)
{
    for (uint32_t at = handles->export_count; at-- > 0;) {
        const struct export *export = &handles->exports[at];
        if (export->name == name && (all || (export->shareable.is_descriptor && !export_is_open(export))))
            export_remove(handles, at);
    }
}

/* After anything that kept a piece is gone: credits it where that was the last. */
static void memory_settle(struct account *account, memory_name name, struct memory *memory)
{
    struct handles *handles = &account->handles;
    if (memory->references != 0 || memory->mappings != 0)
        return;
    if (memory->exports != 0)
        exports_remove(handles, name, false);
    if ((memory->exports != 0) != memory->lingers) {
        memory->lingers = !memory->lingers;
        handles->lingering += memory->lingers ? 1 : (uint32_t)-1;
    }
    if (memory->exports != 0)
        return;
    if (memory->exported)
        exports_remove(handles, name, true);
    books_credit(account, memory->purse, LEDGER_KIND_VMM, memory->bytes);
    books_count(account, memory->purse, LEDGER_COUNT_FREE);
    memory->bytes = 0;
    memory->next = handles->memory_free;
    handles->memory_free = (uint32_t)name + 1;
}

static void references_drop(struct account *account, memory_name name, uint32_t count)
{
    struct memory *memory = memory_of(&account->handles, name);
    if (memory == NULL)
        return;
    memory->references -= count;
    memory_settle(account, name, memory);
}

static void mapping_drop(struct account *account, memory_name name)
{
    struct memory *memory = memory_of(&account->handles, name);
    if (memory == NULL)
        return;
    memory->mappings--;
    memory_settle(account, name, memory);
}

/* A piece held once more, by a reference or a mapping that is about to be. */
static void reference_take(struct handles *handles, memory_name name)
{
    struct memory *memory = memory_of(handles, name);
    if (memory == NULL)
        return;
    memory->references++;
    if (memory->lingers) {
        memory->lingers = false;
        handles->lingering--;
    }
}

void handles_look(struct account *account)
{
    struct handles *handles = &account->handles;
    for (uint32_t index = 0; handles->lingering != 0 && index < handles->memory_count; index++) {
        struct memory *memory = &handles->memory[index];
        if (memory->bytes != 0 && memory->lingers)
            memory_settle(account, (memory_name)memory->life << 32 | index, memory);
    }
}

/* --- handle values ------------------------------------------------------------------------------------------------------ */

/* The memory that goes by a handle; 0: none that we know. */
static memory_name value_name(const struct handles *handles, uint64_t handle)
{
    const struct allocation *value = allocmap_find(&handles->values, handle);
    return value != NULL ? value->bytes : 0;
}

/* One reference, which the memory counts already, goes by this value. What went by it before and is something else was
 * released, or the driver would not have handed the value out again; its books are not closed yet. */
static void value_enter(struct account *account, uint64_t handle, memory_name name)
{
    bool fresh;
    struct allocation *value = allocmap_enter(&account->handles.values, handle, &fresh);
    if (value == NULL) {
        log_line(LOG_WARN, "no memory for the books: memory of cuMemCreate stays charged until its process ends");
        return;
    }
    memory_name before = fresh ? name : value->bytes;
    uint32_t references = value->owner;
    value->bytes = name;
    value->owner = before == name ? references + 1 : 1;
    if (before != name)
        references_drop(account, before, references);
}

bool handle_record(const struct charge *charge, uint64_t handle)
{
    struct account *account = account_get();
    TESTPOINT("handle.driver_returned");
    if (account == NULL)
        return false;
    biased_lock_take(&account->books);
    books_settle(account, charge->purse, charge->kind, charge->bytes, charge->bytes);
    books_count(account, charge->purse, LEDGER_COUNT_ALLOCATION);
    memory_name name = handle != 0 ? memory_add(&account->handles, charge->purse, charge->bytes) : 0;
    if (name != 0)
        value_enter(account, handle, name);
    biased_lock_give(&account->books);
    TESTPOINT("handle.recorded");
    if (name == 0)
        log_line(LOG_WARN, "no memory for the books: memory of cuMemCreate stays charged until its process ends");
    return name == FIRST_NAME;
}

void handle_forget(uint64_t handle)
{
    struct account *account = account_get();
    struct allocation value;
    if (account == NULL)
        return;
    biased_lock_take(&account->books);
    if (allocmap_remove(&account->handles.values, handle, &value))
        references_drop(account, value.bytes, value.owner);
    biased_lock_give(&account->books);
}

memory_name handle_release_begin(uint64_t handle)
{
    struct account *account = account_get();
    if (account == NULL)
        return 0;
    biased_lock_take(&account->books);
    memory_name name = value_name(&account->handles, handle);
    biased_lock_give(&account->books);
    return name;
}

void handle_release_end(memory_name name, uint64_t handle, bool released)
{
    struct account *account = account_get();
    if (account == NULL || name == 0 || !released)
        return;
    TESTPOINT("handle.released");
    biased_lock_take(&account->books);
    struct allocation *value = allocmap_find(&account->handles.values, handle);
    if (value != NULL && value->bytes == name) {
        if (--value->owner == 0)
            allocmap_drop(&account->handles.values, value);
        references_drop(account, name, 1);
    }
    biased_lock_give(&account->books);
    TESTPOINT("handle.credited");
}

/* --- mappings ------------------------------------------------------------------------------------------------------------- */

static void mapping_fill(struct allocation *entry, size_t bytes, memory_name name)
{
    uint64_t pages = (uint64_t)bytes >> PAGE_SHIFT;
    entry->bytes = name;
    entry->owner = pages < UINT32_MAX ? (uint32_t)pages : UINT32_MAX;
}

/* The address is entered before the call where nothing is known to be mapped there: nearly always all is done when the driver
 * agrees. */
struct mapping_begun handle_map_begin(uint64_t handle, CUdeviceptr address, size_t bytes)
{
    struct account *account = account_get();
    struct mapping_begun begun = {0};
    if (account == NULL || address == 0)
        return begun;
    biased_lock_take(&account->books);
    memory_name name = value_name(&account->handles, handle);
    struct memory *memory = memory_of(&account->handles, name);
    if (memory != NULL) {
        struct allocation *entry = allocmap_enter(&account->handles.mapped, address, &begun.entered);
        memory->mappings++;
        begun.name = name;
        begun.stale = entry != NULL && !begun.entered;
        if (entry != NULL && begun.entered)
            mapping_fill(entry, bytes, name);
    } else
        begun.stale = allocmap_find(&account->handles.mapped, address) != NULL;
    biased_lock_give(&account->books);
    return begun;
}

static void mapping_refused(struct account *account, const struct mapping_begun *begun, CUdeviceptr address)
{
    struct allocation *there = allocmap_find(&account->handles.mapped, address);
    if (begun->entered && there != NULL && there->bytes == begun->name)
        allocmap_drop(&account->handles.mapped, there);
    mapping_drop(account, begun->name);
}

/* What was known to be mapped there was unmapped by a way that we do not see. */
static void mapping_replace(struct account *account, const struct mapping_begun *begun, CUdeviceptr address,
                            size_t bytes)
{
    struct allocation *there = allocmap_find(&account->handles.mapped, address);
    if (there == NULL)
        return;
    memory_name before = there->bytes;
    if (begun->name != 0)
        mapping_fill(there, bytes, begun->name);
    else
        allocmap_drop(&account->handles.mapped, there);
    mapping_drop(account, before);
}

void handle_map_end(const struct mapping_begun *begun, CUdeviceptr address, size_t bytes, bool mapped)
{
    struct account *account = account_get();
    if (account == NULL || (mapped && !begun->stale) || (!mapped && begun->name == 0))
        return;
    biased_lock_take(&account->books);
    if (mapped)
        mapping_replace(account, begun, address, bytes);
    else
        mapping_refused(account, begun, address);
    biased_lock_give(&account->books);
}

/* Ends the mapping at an address; returns how long it was, 0 where we know of none. */
static uint64_t mapping_remove(struct account *account, CUdeviceptr address)
{
    struct allocation *entry = allocmap_find(&account->handles.mapped, address);
    if (entry == NULL)
        return 0;
    memory_name name = entry->bytes;
    uint64_t bytes = (uint64_t)entry->owner << PAGE_SHIFT;
    allocmap_drop(&account->handles.mapped, entry);
    mapping_drop(account, name);
    return bytes;
}

/* Searches the whole table. A removal moves entries back towards the place it made free, so no entry is passed by. */
static void mappings_remove(struct account *account, CUdeviceptr first, CUdeviceptr last)
{
    const struct allocmap *map = &account->handles.mapped;
    for (size_t at = 0; at < map->capacity; at++)
        while (map->places[at].pointer >= first && map->places[at].pointer < last && map->places[at].pointer != 0)
            (void)mapping_remove(account, map->places[at].pointer);
}

/* Mappings nearly always follow one another; only at a hole (the driver accepts them) is the table searched. */
void handle_unmapped(CUdeviceptr address, size_t bytes)
{
    struct account *account = account_get();
    CUdeviceptr end = address + bytes;
    uint64_t length;
    if (account == NULL)
        return;
    TESTPOINT("handle.unmapped");
    biased_lock_take(&account->books);
    while (address < end && (length = mapping_remove(account, address)) != 0)
        address += length;
    if (address < end && account->handles.mapped.count != 0)
        mappings_remove(account, address, end);
    biased_lock_give(&account->books);
}

/* --- retaining ------------------------------------------------------------------------------------------------------------ */

/* The memory mapped at an address, which may lie inside a mapping. */
static memory_name mapping_name(const struct allocmap *map, CUdeviceptr address)
{
    const struct allocation *exact = allocmap_find(map, address);
    if (exact != NULL)
        return exact->bytes;
    for (size_t at = 0; at < map->capacity; at++) {
        const struct allocation *place = &map->places[at];
        if (place->pointer != 0 && address > place->pointer &&
            address - place->pointer < (uint64_t)place->owner << PAGE_SHIFT)
            return place->bytes;
    }
    return 0;
}

memory_name handle_retain_begin(CUdeviceptr address)
{
    struct account *account = account_get();
    if (account == NULL)
        return 0;
    biased_lock_take(&account->books);
    memory_name name = mapping_name(&account->handles.mapped, address);
    reference_take(&account->handles, name);
    biased_lock_give(&account->books);
    return name;
}

/* Gives the reference that was taken to a value, or back. */
static void reference_end(memory_name name, uint64_t handle, bool held)
{
    struct account *account = account_get();
    if (account == NULL || (name == 0 && !held))
        return;
    biased_lock_take(&account->books);
    if (name == 0 && (name = value_name(&account->handles, handle)) != 0)
        reference_take(&account->handles, name);
    if (!held)
        references_drop(account, name, 1);
    else if (name != 0)
        value_enter(account, handle, name);
    biased_lock_give(&account->books);
}

void handle_retain_end(memory_name name, uint64_t handle, bool retained)
{
    reference_end(name, handle, retained);
}

/* --- exporting and importing ------------------------------------------------------------------------------------------------ */

static struct export *export_find(const struct handles *handles, const struct shareable *shareable)
{
    for (uint32_t at = 0; at < handles->export_count; at++) {
        struct export *export = &handles->exports[at];
        if (export->shareable.is_descriptor == shareable->is_descriptor &&
            export->shareable.descriptor == shareable->descriptor && export->shareable.digest == shareable->digest)
            return export;
    }
    return NULL;
}

/* The descriptor is closed. */
static void export_close(struct account *account, struct export *export)
{
    memory_name name = export->name;
    export_remove(&account->handles, (uint32_t)(export - account->handles.exports));
    references_drop(account, name, 0);
}

static void export_add(struct account *account, memory_name name, const struct shareable *shareable)
{
    struct handles *handles = &account->handles;
    struct export *there = export_find(handles, shareable);
    struct memory *memory = memory_of(handles, name);
    struct export export = {.name = name, .shareable = *shareable};
    struct statx seen;
    if (memory == NULL || (there != NULL && !shareable->is_descriptor))
        return;
    if (there != NULL) /* a descriptor's number that comes again was closed before */
        export_close(account, there);
    if (shareable->is_descriptor) {
        if (statx(shareable->descriptor, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_INO, &seen) != 0)
            return;
        export.device = makedev(seen.stx_dev_major, seen.stx_dev_minor);
        export.inode = seen.stx_ino;
    }
    if (handles->export_count == handles->export_capacity) {
        void *grown = array_grow(handles->exports, &handles->export_capacity, sizeof export);
        if (grown == NULL)
            return;
        handles->exports = grown;
    }
    handles->exports[handles->export_count++] = export;
    memory->exported = true;
    memory->exports += shareable->is_descriptor;
}

memory_name handle_export_begin(uint64_t handle)
{
    struct account *account = account_get();
    if (account == NULL)
        return 0;
    biased_lock_take(&account->books);
    memory_name name = value_name(&account->handles, handle);
    reference_take(&account->handles, name);
    biased_lock_give(&account->books);
    return name;
}

void handle_export_end(memory_name name, const struct shareable *shareable, bool exported)
{
    struct account *account = account_get();
    if (account == NULL || name == 0)
        return;
    int before = errno;
    biased_lock_take(&account->books);
    if (exported)
        export_add(account, name, shareable);
    references_drop(account, name, 1);
    biased_lock_give(&account->books);
    errno = before;
}

memory_name handle_import_begin(const struct shareable *shareable)
{
    struct account *account = account_get();
    memory_name name = 0;
    if (account == NULL)
        return 0;
    biased_lock_take(&account->books);
    struct export *export = export_find(&account->handles, shareable);
    if (export != NULL && (!shareable->is_descriptor || export_is_open(export)))
        name = export->name;
    reference_take(&account->handles, name);
    biased_lock_give(&account->books);
    return name;
}

/* Another's memory under a value that we know: what we know by it was released, or the driver would not have given it out. */
void handle_import_end(memory_name name, uint64_t handle, bool imported)
{
    struct account *account = account_get();
    if (name != 0 || !imported || account == NULL) {
        reference_end(name, handle, imported);
        return;
    }
    handle_forget(handle);
    biased_lock_take(&account->books);
    account->foreign = true;
    biased_lock_give(&account->books);
}

/* --- external memory ------------------------------------------------------------------------------------------------------- */

/* An entry of `externals` or `buffers` that holds one reference; what was there under the same pointer is gone. */
static void holder_enter(struct account *account, struct allocmap *map, uint64_t pointer, memory_name name,
                         uint32_t owner)
{
    struct allocation entry = {.pointer = pointer, .bytes = name, .owner = owner}, replaced;
    int result = name != 0 ? allocmap_insert(map, &entry, &replaced) : allocmap_remove(map, pointer, &replaced);
    if (result == 1)
        references_drop(account, replaced.bytes, 1);
}

static void holder_end(const struct driver *driver, bool buffer, memory_name name, uint64_t pointer, bool held)
{
    struct account *account = account_get();
    if (account == NULL || (name == 0 && !held))
        return;
    uint32_t owner = account_owner(driver);
    biased_lock_take(&account->books);
    if (held)
        holder_enter(account, buffer ? &account->handles.buffers : &account->handles.externals, pointer, name, owner);
    else
        references_drop(account, name, 1);
    biased_lock_give(&account->books);
}

void external_import_end(const struct driver *driver, memory_name name, uint64_t external, bool imported,
                         const struct shareable *taken)
{
    struct account *account = account_get();
    holder_end(driver, false, name, external, imported);
    if (account == NULL || !imported)
        return;
    biased_lock_take(&account->books);
    struct export *export = export_find(&account->handles, taken);
    if (export != NULL)
        export_close(account, export);
    biased_lock_give(&account->books);
}

memory_name external_destroy_begin(uint64_t external)
{
    struct account *account = account_get();
    if (account == NULL)
        return 0;
    biased_lock_take(&account->books);
    const struct allocation *there = allocmap_find(&account->handles.externals, external);
    memory_name name = there != NULL ? there->bytes : 0;
    biased_lock_give(&account->books);
    return name;
}

void external_destroy_end(memory_name name, uint64_t external, bool destroyed)
{
    struct account *account = account_get();
    struct allocation removed;
    if (account == NULL || name == 0 || !destroyed)
        return;
    biased_lock_take(&account->books);
    const struct allocation *there = allocmap_find(&account->handles.externals, external);
    if (there != NULL && there->bytes == name && allocmap_remove(&account->handles.externals, external, &removed))
        references_drop(account, name, 1);
    biased_lock_give(&account->books);
}

memory_name external_buffer_begin(uint64_t external)
{
    struct account *account = account_get();
    if (account == NULL)
        return 0;
    biased_lock_take(&account->books);
    const struct allocation *there = allocmap_find(&account->handles.externals, external);
    memory_name name = there != NULL ? there->bytes : 0;
    reference_take(&account->handles, name);
    biased_lock_give(&account->books);
    return name;
}

void external_buffer_end(const struct driver *driver, memory_name name, CUdeviceptr buffer, bool mapped)
{
    holder_end(driver, true, name, buffer, mapped);
}

void handles_close_owner(struct account *account, uint32_t owner)
{
    struct allocation entry;
    struct allocmap *maps[] = {&account->handles.externals, &account->handles.buffers};
    for (size_t i = 0; i < sizeof maps / sizeof *maps; i++)
        for (size_t at = 0; allocmap_remove_of(maps[i], owner, &at, &entry);)
            references_drop(account, entry.bytes, 1);
}

void handles_buffer_freed(struct account *account, CUdeviceptr buffer)
{
    struct allocation removed;
    if (allocmap_remove(&account->handles.buffers, buffer, &removed))
        references_drop(account, removed.bytes, 1);
}
