/*
 * The memory of graphs; see graph.h. The reserve grows by what an allocation lacks, in steps; launches share it where they
 * are not alive at once; a step of a layout that nothing is alive in may be taken for another layout; only a trim gives
 * steps back to the card. "Used" is what is mapped, alive or not, as the driver says it. All under sim_lock.
 */
#include "sim/graph.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "sim/reservoir.h"

/* Of each card of the machine. Invariant: reserved >= mapped = steps mapped in layouts + idle. */
static struct reserve {
    uint64_t reserved, reserved_high, mapped, mapped_high;
    uint64_t idle; /* mapped once in layouts that are gone */
} reserves[SIM_DEVICES];

static struct graph_layout *layouts;

struct graph_layout *layout_new(CUdevice device)
{
    struct graph_layout *layout = calloc(1, sizeof(*layout));
    if (layout) {
        layout->device = sim_process.physical[device];
        layout->references = 1;
        layout->next = layouts;
        layouts = layout;
    }
    return layout;
}

void layout_hold(struct graph_layout *layout)
{
    layout->references++;
}

static void layout_free(struct graph_layout *layout)
{
    struct graph_layout **link = &layouts;
    while (*link != layout)
        link = &(*link)->next;
    *link = layout->next;
    for (uint64_t step = 0; step < layout->steps; step++)
        if (layout->mapped[step])
            reserves[layout->device].idle++;
    free(layout->live);
    free(layout->mapped);
    free(layout);
}

/* Takes an allocation from its layout. */
static void allocation_remove(struct graph_allocation *allocation)
{
    struct graph_allocation **link = &allocation->layout->allocations;
    while (*link != allocation)
        link = &(*link)->next;
    *link = allocation->next;
    allocation->block->graph = NULL;
    free(allocation);
}

struct block *layout_leave(struct graph_layout *layout, struct block *dead)
{
    if (--layout->references > 0)
        return dead;
    struct graph_allocation *next;
    for (struct graph_allocation *allocation = layout->allocations; allocation; allocation = next) {
        next = allocation->next;
        if (allocation->live) /* outlives its graph */
            continue;
        struct block *block = allocation->block;
        allocation_remove(allocation);
        if (memory_end_block(block)) {
            block->next = dead;
            dead = block;
        }
    }
    if (!layout->allocations)
        layout_free(layout);
    return dead;
}

static bool steps_add(struct graph_layout *layout, uint64_t steps)
{
    if (steps <= layout->steps)
        return true;
    unsigned *live = realloc(layout->live, steps * sizeof(*live));
    if (live)
        layout->live = live;
    bool *mapped = realloc(layout->mapped, steps * sizeof(*mapped));
    if (mapped)
        layout->mapped = mapped;
    if (!live || !mapped)
        return false;
    memset(layout->live + layout->steps, 0, (steps - layout->steps) * sizeof(*live));
    memset(layout->mapped + layout->steps, 0, (steps - layout->steps) * sizeof(*mapped));
    layout->steps = steps;
    return true;
}

/* The first place that no allocation is in the way of. */
static uint64_t place_search(const struct graph_layout *layout, uint64_t bytes, uint64_t mark)
{
    uint64_t at = 0;
    for (const struct graph_allocation *other = layout->allocations; other;) {
        bool gone = mark && other->free_node && other->free_node->mark == mark;
        if (gone || other->offset >= at + bytes || other->offset + other->bytes <= at) {
            other = other->next;
            continue;
        }
        at = other->offset + other->bytes;
        other = layout->allocations;
    }
    return at;
}

struct graph_allocation *layout_place(struct graph_layout *layout, const CUDA_MEM_ALLOC_NODE_PARAMS *parameters,
                                      uint64_t mark)
{
    uint64_t bytes = (parameters->bytesize + UNIT_BYTES - 1) / UNIT_BYTES * UNIT_BYTES;
    struct block kind = {.device = layout->device, .uncharged = true, .absent = true};
    struct graph_allocation **link = &layout->allocations;
    struct graph_allocation *made = calloc(1, sizeof(*made));
    uint64_t at = place_search(layout, bytes, mark);
    uint64_t address = made && steps_add(layout, (at + bytes - 1) / STEP_BYTES + 1)
                           ? memory_place(&kind, parameters->bytesize, false, false)
                           : 0;
    if (!address) {
        free(made);
        return NULL;
    }
    *made = (struct graph_allocation){
        .layout = layout, .block = address_block(address), .parameters = *parameters, .offset = at, .bytes = bytes};
    made->parameters.dptr = address;
    made->parameters.accessDescs = NULL; /* the caller's */
    made->parameters.accessDescCount = 0;
    made->block->graph = made;
    while (*link)
        link = &(*link)->next;
    *link = made;
    return made;
}

struct graph_allocation *allocation_of_graph(uint64_t address)
{
    const struct block *block = address_block(address);
    return block && !block->freed && block->base == address ? block->graph : NULL;
}

static bool step_is_idle(const struct graph_layout *layout, uint64_t step)
{
    return layout->busy == 0 && layout->mapped[step] && layout->live[step] == 0;
}

/* Steps of the reserve that a layout could have. */
static uint64_t steps_free(unsigned device)
{
    uint64_t steps = reserves[device].reserved - reserves[device].mapped + reserves[device].idle;
    for (const struct graph_layout *layout = layouts; layout; layout = layout->next)
        for (uint64_t step = 0; layout->device == device && step < layout->steps; step++)
            steps += step_is_idle(layout, step);
    return steps;
}

/* One by one, as measured: what the card had stays where it then has no more. */
static bool reserve_grow(unsigned device, uint64_t steps)
{
    struct reserve *reserve = &reserves[device];
    for (; steps > 0; steps--) {
        if (machine_charge(&sim_process.machine, device, STEP_BYTES) != 0)
            return false;
        if (++reserve->reserved > reserve->reserved_high)
            reserve->reserved_high = reserve->reserved;
    }
    return true;
}

/* Takes one of the free steps: the unused before those of layouts where nothing is alive. */
static void step_take(unsigned device)
{
    struct reserve *reserve = &reserves[device];
    if (reserve->reserved > reserve->mapped) {
        if (++reserve->mapped > reserve->mapped_high)
            reserve->mapped_high = reserve->mapped;
        return;
    }
    if (reserve->idle > 0) {
        reserve->idle--;
        return;
    }
    for (struct graph_layout *layout = layouts; layout; layout = layout->next)
        for (uint64_t step = 0; layout->device == device && step < layout->steps; step++)
            if (step_is_idle(layout, step)) {
                layout->mapped[step] = false;
                return;
            }
}

/* Backs the steps an allocation lies in, of which those up to covered hold others of this launch. What is asked of the card
 * is measured by the whole allocation, though part of it may lie in a step that is covered. */
static bool allocation_map(const struct graph_allocation *allocation, uint64_t covered)
{
    struct graph_layout *layout = allocation->layout;
    uint64_t first = allocation->offset / STEP_BYTES, missing = 0, own = 0;
    uint64_t last = (allocation->offset + allocation->bytes - 1) / STEP_BYTES;
    for (uint64_t step = first; step <= last; step++) {
        missing += !layout->mapped[step];
        own += layout->mapped[step] && step >= covered;
    }
    uint64_t have = missing > 0 ? steps_free(layout->device) : 0;
    if (missing > have) {
        uint64_t whole = (allocation->bytes + STEP_BYTES - 1) / STEP_BYTES, more = missing - have;
        if (whole > have + own + more)
            more = whole - have - own;
        if (!reserve_grow(layout->device, more))
            return false;
    }
    for (uint64_t step = first; step <= last; step++)
        if (!layout->mapped[step]) {
            step_take(layout->device);
            layout->mapped[step] = true;
        }
    return true;
}

bool layout_map(struct graph_layout *layout)
{
    uint64_t covered = 0;
    for (const struct graph_allocation *allocation = layout->allocations; allocation; allocation = allocation->next) {
        if (!allocation_map(allocation, covered))
            return false;
        uint64_t end = (allocation->offset + allocation->bytes - 1) / STEP_BYTES + 1;
        covered = end > covered ? end : covered;
    }
    return true;
}

static void allocation_count(const struct graph_allocation *allocation, int by)
{
    uint64_t last = (allocation->offset + allocation->bytes - 1) / STEP_BYTES;
    for (uint64_t step = allocation->offset / STEP_BYTES; step <= last; step++)
        allocation->layout->live[step] += (unsigned)by;
}

void allocation_begin(struct graph_allocation *allocation)
{
    allocation->live = true;
    allocation->block->absent = false;
    allocation->block->id = memory_next_id();
    allocation_count(allocation, 1);
}

/* The bytes are forgotten, unless something still works on them. */
void allocation_over(struct graph_allocation *allocation)
{
    struct block *block = allocation->block;
    allocation->live = false;
    block->absent = true;
    allocation_count(allocation, -1);
    if (block->holds == 0)
        madvise(block->data, block->granules * GRANULE_BYTES, MADV_DONTNEED);
}

bool graph_freed(struct block *block)
{
    struct graph_allocation *allocation = block->graph;
    struct graph_layout *layout = allocation->layout;
    allocation_over(allocation);
    if (layout->references > 0)
        return true;
    allocation_remove(allocation);
    if (!layout->allocations)
        layout_free(layout);
    return false;
}

SIM_API CUresult cuDeviceGraphMemTrim(CUdevice device)
{
    SIM_ENTER();
    if (device_check(device) != CUDA_SUCCESS)
        return CUDA_ERROR_INVALID_DEVICE;
    unsigned physical = sim_process.physical[device];
    struct reserve *reserve = &reserves[physical];
    sim_lock();
    for (struct graph_layout *layout = layouts; layout; layout = layout->next)
        for (uint64_t step = 0; layout->device == physical && step < layout->steps; step++)
            if (step_is_idle(layout, step)) {
                layout->mapped[step] = false;
                reserve->mapped--;
            }
    reserve->mapped -= reserve->idle;
    reserve->idle = 0;
    if (reserve->reserved > reserve->mapped)
        machine_credit(&sim_process.machine, physical, (reserve->reserved - reserve->mapped) * STEP_BYTES);
    reserve->reserved = reserve->mapped;
    sim_unlock();
    return CUDA_SUCCESS;
}

SIM_API CUresult cuDeviceGetGraphMemAttribute(CUdevice device, int attribute, void *value)
{
    SIM_ENTER();
    if (device_check(device) != CUDA_SUCCESS)
        return CUDA_ERROR_INVALID_DEVICE;
    if (!value || attribute < CU_GRAPH_MEM_ATTR_USED_MEM_CURRENT || attribute > CU_GRAPH_MEM_ATTR_RESERVED_MEM_HIGH)
        return CUDA_ERROR_INVALID_VALUE;
    const struct reserve *reserve = &reserves[sim_process.physical[device]];
    sim_lock();
    const uint64_t steps[] = {reserve->mapped, reserve->mapped_high, reserve->reserved, reserve->reserved_high};
    uint64_t bytes = steps[attribute] * STEP_BYTES;
    sim_unlock();
    memcpy(value, &bytes, sizeof(bytes));
    return CUDA_SUCCESS;
}

/* The marks of the highest can be reset to zero, which makes them what is now. */
SIM_API CUresult cuDeviceSetGraphMemAttribute(CUdevice device, int attribute, const void *value)
{
    SIM_ENTER();
    uint64_t bytes;
    if (device_check(device) != CUDA_SUCCESS)
        return CUDA_ERROR_INVALID_DEVICE;
    if (!value || (attribute != CU_GRAPH_MEM_ATTR_USED_MEM_HIGH && attribute != CU_GRAPH_MEM_ATTR_RESERVED_MEM_HIGH))
        return CUDA_ERROR_INVALID_VALUE;
    memcpy(&bytes, value, sizeof(bytes));
    if (bytes != 0)
        return CUDA_ERROR_INVALID_VALUE;
    struct reserve *reserve = &reserves[sim_process.physical[device]];
    sim_lock();
    if (attribute == CU_GRAPH_MEM_ATTR_USED_MEM_HIGH)
        reserve->mapped_high = reserve->mapped;
    else
        reserve->reserved_high = reserve->reserved;
    sim_unlock();
    return CUDA_SUCCESS;
}
