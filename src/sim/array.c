/*
 * Arrays and mipmapped arrays. Their bytes are taken as linear memory is: more than 1 MiB has 2 MiB blocks of its own, less
 * shares blocks with other small requests of its context, as measured; all of it goes with the context. Sparse arrays and those
 * that are mapped later hold nothing.
 *
 * A handle is valid if it is in its list, live, and its context in the life that made it. The lists are under sim_lock.
 */
#include "sim/array.h"

#include <stdlib.h>

#define NO_BACKING (CUDA_ARRAY3D_SPARSE | CUDA_ARRAY3D_DEFERRED_MAPPING)

enum { LEVELS = 32, TILE_BYTES = 65536 };

struct CUarray_st {
    CUarray next;
    bool live;
    CUcontext context;
    uint64_t generation;
    CUmipmappedArray of; /* NULL: an array by itself, else a level */
    CUDA_ARRAY3D_DESCRIPTOR descriptor;
    uint64_t address; /* 0: holds nothing */
};

struct CUmipmappedArray_st {
    CUmipmappedArray next;
    bool live;
    CUcontext context;
    uint64_t generation;
    CUDA_ARRAY3D_DESCRIPTOR descriptor;
    unsigned levels;
    CUarray level[LEVELS]; /* made when first asked for */
    uint64_t address;
};

static CUarray arrays;
static CUmipmappedArray mipmaps;

static bool life_is_on(CUcontext context, uint64_t generation)
{
    return atomic_load(&context->alive) && atomic_load(&context->generation) == generation;
}

static bool array_is_live(CUarray array)
{
    CUarray known = arrays;
    while (known && known != array)
        known = known->next;
    return known && known->live && life_is_on(known->context, known->generation);
}

static bool mipmap_is_live(CUmipmappedArray mipmap)
{
    CUmipmappedArray known = mipmaps;
    while (known && known != mipmap)
        known = known->next;
    return known && known->live && life_is_on(known->context, known->generation);
}

/* A handle that nobody has, its list's for good: one that is out of use, or a new one. NULL: no memory. Under sim_lock. */
static CUarray array_handle(void)
{
    CUarray array = arrays;
    while (array && array->live && life_is_on(array->context, array->generation))
        array = array->next;
    if (!array && (array = calloc(1, sizeof(*array))) != NULL) {
        array->next = arrays;
        arrays = array;
    }
    return array;
}

static CUmipmappedArray mipmap_handle(void)
{
    CUmipmappedArray mipmap = mipmaps;
    while (mipmap && mipmap->live && life_is_on(mipmap->context, mipmap->generation))
        mipmap = mipmap->next;
    if (!mipmap && (mipmap = calloc(1, sizeof(*mipmap))) != NULL) {
        mipmap->next = mipmaps;
        mipmaps = mipmap;
    }
    return mipmap;
}

static void array_fill(CUarray array, CUcontext context, const CUDA_ARRAY3D_DESCRIPTOR *descriptor, uint64_t address)
{
    CUarray next = array->next;
    *array = (struct CUarray_st){.next = next,
                                 .live = true,
                                 .context = context,
                                 .generation = atomic_load(&context->generation),
                                 .descriptor = *descriptor,
                                 .address = address};
}

/* Takes the bytes of something with these flags; *address stays 0 where it holds nothing. */
static CUresult backing_take(CUcontext context, unsigned flags, uint64_t bytes, uint64_t *address)
{
    return flags & NO_BACKING ? CUDA_SUCCESS : memory_allocate(context, bytes, false, false, address);
}

/* `after`: the error that the call is to end with, all undone. */
static CUresult array_create(CUcontext context, CUarray *array, const CUDA_ARRAY3D_DESCRIPTOR *descriptor,
                             CUresult after)
{
    uint64_t address = 0;
    if (!array_descriptor_is_valid(descriptor))
        return CUDA_ERROR_INVALID_VALUE;
    CUresult result = backing_take(context, descriptor->Flags, array_layout_of(descriptor).bytes, &address);
    if (result != CUDA_SUCCESS)
        return result;
    if (after != CUDA_SUCCESS) {
        memory_free(address);
        return after;
    }
    sim_lock();
    CUarray made = array_handle();
    if (made)
        array_fill(made, context, descriptor, address);
    sim_unlock();
    if (!made) {
        memory_free(address);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    *array = made;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuArray3DCreate_v2(CUarray *array, const CUDA_ARRAY3D_DESCRIPTOR *descriptor)
{
    SIM_ENTER_MAKING(after);
    SIM_CONTEXT(context);
    return array && descriptor ? array_create(context, array, descriptor, after) : CUDA_ERROR_INVALID_VALUE;
}

SIM_API CUresult cuArray3DCreate(CUarray *array, const CUDA_ARRAY3D_DESCRIPTOR_v1 *descriptor)
{
    SIM_ENTER_MAKING(after);
    SIM_CONTEXT(context);
    if (!array || !descriptor)
        return CUDA_ERROR_INVALID_VALUE;
    CUDA_ARRAY3D_DESCRIPTOR wide = {.Width = descriptor->Width,
                                    .Height = descriptor->Height,
                                    .Depth = descriptor->Depth,
                                    .Format = descriptor->Format,
                                    .NumChannels = descriptor->NumChannels,
                                    .Flags = descriptor->Flags};
    return array_create(context, array, &wide, after);
}

SIM_API CUresult cuArrayCreate_v2(CUarray *array, const CUDA_ARRAY_DESCRIPTOR *descriptor)
{
    SIM_ENTER_MAKING(after);
    SIM_CONTEXT(context);
    if (!array || !descriptor)
        return CUDA_ERROR_INVALID_VALUE;
    CUDA_ARRAY3D_DESCRIPTOR wide = {.Width = descriptor->Width,
                                    .Height = descriptor->Height,
                                    .Format = descriptor->Format,
                                    .NumChannels = descriptor->NumChannels};
    return array_create(context, array, &wide, after);
}

SIM_API CUresult cuArrayCreate(CUarray *array, const CUDA_ARRAY_DESCRIPTOR_v1 *descriptor)
{
    SIM_ENTER_MAKING(after);
    SIM_CONTEXT(context);
    if (!array || !descriptor)
        return CUDA_ERROR_INVALID_VALUE;
    CUDA_ARRAY3D_DESCRIPTOR wide = {.Width = descriptor->Width,
                                    .Height = descriptor->Height,
                                    .Format = descriptor->Format,
                                    .NumChannels = descriptor->NumChannels};
    return array_create(context, array, &wide, after);
}

/* A level goes with its mipmapped array and not before. */
SIM_API CUresult cuArrayDestroy(CUarray array)
{
    SIM_ENTER();
    uint64_t address = 0;
    sim_lock();
    bool known = array_is_live(array) && !array->of;
    if (known) {
        array->live = false;
        address = array->address;
    }
    sim_unlock();
    return known ? memory_free(address) : CUDA_ERROR_INVALID_HANDLE;
}

static CUresult descriptor_read(CUarray array, CUDA_ARRAY3D_DESCRIPTOR *descriptor)
{
    sim_lock();
    bool live = array_is_live(array);
    if (live)
        *descriptor = array->descriptor;
    sim_unlock();
    return live ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

SIM_API CUresult cuArray3DGetDescriptor_v2(CUDA_ARRAY3D_DESCRIPTOR *descriptor, CUarray array)
{
    SIM_ENTER_CONTEXT(context);
    (void)context;
    return descriptor ? descriptor_read(array, descriptor) : CUDA_ERROR_INVALID_VALUE;
}

SIM_API CUresult cuArray3DGetDescriptor(CUDA_ARRAY3D_DESCRIPTOR_v1 *descriptor, CUarray array)
{
    SIM_ENTER_CONTEXT(context);
    (void)context;
    CUDA_ARRAY3D_DESCRIPTOR wide;
    CUresult result = descriptor ? descriptor_read(array, &wide) : CUDA_ERROR_INVALID_VALUE;
    if (result == CUDA_SUCCESS)
        *descriptor = (CUDA_ARRAY3D_DESCRIPTOR_v1){.Width = (unsigned)wide.Width,
                                                   .Height = (unsigned)wide.Height,
                                                   .Depth = (unsigned)wide.Depth,
                                                   .Format = wide.Format,
                                                   .NumChannels = wide.NumChannels,
                                                   .Flags = wide.Flags};
    return result;
}

SIM_API CUresult cuArrayGetDescriptor_v2(CUDA_ARRAY_DESCRIPTOR *descriptor, CUarray array)
{
    SIM_ENTER_CONTEXT(context);
    (void)context;
    CUDA_ARRAY3D_DESCRIPTOR wide;
    CUresult result = descriptor ? descriptor_read(array, &wide) : CUDA_ERROR_INVALID_VALUE;
    if (result == CUDA_SUCCESS)
        *descriptor = (CUDA_ARRAY_DESCRIPTOR){
            .Width = wide.Width, .Height = wide.Height, .Format = wide.Format, .NumChannels = wide.NumChannels};
    return result;
}

SIM_API CUresult cuArrayGetDescriptor(CUDA_ARRAY_DESCRIPTOR_v1 *descriptor, CUarray array)
{
    SIM_ENTER_CONTEXT(context);
    (void)context;
    CUDA_ARRAY3D_DESCRIPTOR wide;
    CUresult result = descriptor ? descriptor_read(array, &wide) : CUDA_ERROR_INVALID_VALUE;
    if (result == CUDA_SUCCESS)
        *descriptor = (CUDA_ARRAY_DESCRIPTOR_v1){.Width = (unsigned)wide.Width,
                                                 .Height = (unsigned)wide.Height,
                                                 .Format = wide.Format,
                                                 .NumChannels = wide.NumChannels};
    return result;
}

CUresult array_look(CUarray array, struct array_view *view)
{
    CUDA_ARRAY3D_DESCRIPTOR descriptor = {0};
    sim_lock();
    bool live = array_is_live(array);
    if (live) {
        descriptor = array->descriptor;
        view->address = array->address;
    }
    sim_unlock();
    if (!live)
        return CUDA_ERROR_INVALID_HANDLE;
    view->layout = array_layout_of(&descriptor);
    return view->address != 0 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

/* --- mipmapped arrays ------------------------------------------------------------------------------------------------- */

/* Bytes before a level: the sum of those of the levels before it. */
static uint64_t levels_bytes(const CUDA_ARRAY3D_DESCRIPTOR *descriptor, unsigned levels)
{
    uint64_t bytes = 0;
    for (unsigned level = 0; level < levels; level++) {
        CUDA_ARRAY3D_DESCRIPTOR part = array_level(descriptor, level);
        bytes += array_layout_of(&part).bytes;
    }
    return bytes;
}

SIM_API CUresult cuMipmappedArrayCreate(CUmipmappedArray *mipmap, const CUDA_ARRAY3D_DESCRIPTOR *descriptor,
                                        unsigned levels)
{
    SIM_ENTER_MAKING(after);
    SIM_CONTEXT(context);
    uint64_t address = 0;
    if (!mipmap || !descriptor || levels == 0 || !array_descriptor_is_valid(descriptor))
        return CUDA_ERROR_INVALID_VALUE;
    if (levels > array_level_limit(descriptor)) /* as many as there are */
        levels = array_level_limit(descriptor);
    CUresult result = backing_take(context, descriptor->Flags, levels_bytes(descriptor, levels), &address);
    if (result != CUDA_SUCCESS)
        return result;
    if (after != CUDA_SUCCESS) {
        memory_free(address);
        return after;
    }
    sim_lock();
    CUmipmappedArray made = mipmap_handle();
    if (made) {
        CUmipmappedArray next = made->next;
        *made = (struct CUmipmappedArray_st){.next = next,
                                             .live = true,
                                             .context = context,
                                             .generation = atomic_load(&context->generation),
                                             .descriptor = *descriptor,
                                             .levels = levels,
                                             .address = address};
    }
    sim_unlock();
    if (!made) {
        memory_free(address);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    *mipmap = made;
    return CUDA_SUCCESS;
}

/* The array of a level: the same handle each time. NULL: no memory. Under sim_lock. */
static CUarray level_array(CUmipmappedArray mipmap, unsigned level)
{
    if (mipmap->level[level])
        return mipmap->level[level];
    CUarray made = array_handle();
    if (!made)
        return NULL;
    CUDA_ARRAY3D_DESCRIPTOR part = array_level(&mipmap->descriptor, level);
    uint64_t address = mipmap->address ? mipmap->address + levels_bytes(&mipmap->descriptor, level) : 0;
    array_fill(made, mipmap->context, &part, address);
    made->of = mipmap;
    mipmap->level[level] = made;
    return made;
}

SIM_API CUresult cuMipmappedArrayGetLevel(CUarray *array, CUmipmappedArray mipmap, unsigned level)
{
    SIM_ENTER_CONTEXT(context);
    (void)context;
    if (!array)
        return CUDA_ERROR_INVALID_VALUE;
    sim_lock();
    bool live = mipmap_is_live(mipmap);
    bool there = live && level < mipmap->levels;
    CUarray found = there ? level_array(mipmap, level) : NULL;
    sim_unlock();
    if (!there)
        return live ? CUDA_ERROR_INVALID_VALUE : CUDA_ERROR_INVALID_HANDLE;
    if (!found)
        return CUDA_ERROR_OUT_OF_MEMORY;
    *array = found;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuMipmappedArrayDestroy(CUmipmappedArray mipmap)
{
    SIM_ENTER();
    uint64_t address = 0;
    sim_lock();
    bool live = mipmap_is_live(mipmap);
    if (live) {
        mipmap->live = false;
        address = mipmap->address;
        for (unsigned level = 0; level < mipmap->levels; level++)
            if (mipmap->level[level])
                mipmap->level[level]->live = false;
    }
    sim_unlock();
    return live ? memory_free(address) : CUDA_ERROR_INVALID_HANDLE;
}

/* --- what is mapped later ----------------------------------------------------------------------------------------------- */

/* Of arrays that are mapped later, and of no others: measured. */
static CUresult requirements_write(CUDA_ARRAY_MEMORY_REQUIREMENTS *requirements,
                                   const CUDA_ARRAY3D_DESCRIPTOR *descriptor, unsigned levels)
{
    if (!(descriptor->Flags & CUDA_ARRAY3D_DEFERRED_MAPPING))
        return CUDA_ERROR_INVALID_VALUE;
    uint64_t bytes = levels_bytes(descriptor, levels);
    *requirements = (CUDA_ARRAY_MEMORY_REQUIREMENTS){.size = (bytes + TILE_BYTES - 1) / TILE_BYTES * TILE_BYTES,
                                                     .alignment = TILE_BYTES};
    return CUDA_SUCCESS;
}

SIM_API CUresult cuArrayGetMemoryRequirements(CUDA_ARRAY_MEMORY_REQUIREMENTS *requirements, CUarray array,
                                              CUdevice device)
{
    SIM_ENTER();
    CUDA_ARRAY3D_DESCRIPTOR descriptor;
    if (!requirements)
        return CUDA_ERROR_INVALID_VALUE;
    if (device_check(device) != CUDA_SUCCESS)
        return CUDA_ERROR_INVALID_DEVICE;
    CUresult result = descriptor_read(array, &descriptor);
    return result == CUDA_SUCCESS ? requirements_write(requirements, &descriptor, 1) : result;
}

/* The descriptor and levels of a mipmapped array. */
static CUresult mipmap_read(CUmipmappedArray mipmap, CUDA_ARRAY3D_DESCRIPTOR *descriptor, unsigned *levels)
{
    sim_lock();
    bool live = mipmap_is_live(mipmap);
    if (live) {
        *descriptor = mipmap->descriptor;
        *levels = mipmap->levels;
    }
    sim_unlock();
    return live ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

SIM_API CUresult cuMipmappedArrayGetMemoryRequirements(CUDA_ARRAY_MEMORY_REQUIREMENTS *requirements,
                                                       CUmipmappedArray mipmap, CUdevice device)
{
    SIM_ENTER();
    CUDA_ARRAY3D_DESCRIPTOR descriptor;
    unsigned levels;
    if (!requirements)
        return CUDA_ERROR_INVALID_VALUE;
    if (device_check(device) != CUDA_SUCCESS)
        return CUDA_ERROR_INVALID_DEVICE;
    CUresult result = mipmap_read(mipmap, &descriptor, &levels);
    return result == CUDA_SUCCESS ? requirements_write(requirements, &descriptor, levels) : result;
}

/* Tiles of 64 KiB, square as nearly as powers of two are. */
static CUresult sparse_write(CUDA_ARRAY_SPARSE_PROPERTIES *properties, const CUDA_ARRAY3D_DESCRIPTOR *descriptor,
                             unsigned levels)
{
    if (!(descriptor->Flags & CUDA_ARRAY3D_SPARSE))
        return CUDA_ERROR_INVALID_VALUE;
    unsigned elements = TILE_BYTES / array_element_bytes(descriptor->Format, descriptor->NumChannels);
    unsigned width = 1, height = 1;
    while (width * height < elements) {
        if (width <= height)
            width *= 2;
        else
            height *= 2;
    }
    *properties = (CUDA_ARRAY_SPARSE_PROPERTIES){.tileExtent = {width, height, 1}, .miptailFirstLevel = levels};
    return CUDA_SUCCESS;
}

SIM_API CUresult cuArrayGetSparseProperties(CUDA_ARRAY_SPARSE_PROPERTIES *properties, CUarray array)
{
    SIM_ENTER();
    CUDA_ARRAY3D_DESCRIPTOR descriptor;
    CUresult result = properties ? descriptor_read(array, &descriptor) : CUDA_ERROR_INVALID_VALUE;
    return result == CUDA_SUCCESS ? sparse_write(properties, &descriptor, 1) : result;
}

SIM_API CUresult cuMipmappedArrayGetSparseProperties(CUDA_ARRAY_SPARSE_PROPERTIES *properties, CUmipmappedArray mipmap)
{
    SIM_ENTER();
    CUDA_ARRAY3D_DESCRIPTOR descriptor;
    unsigned levels;
    CUresult result = properties ? mipmap_read(mipmap, &descriptor, &levels) : CUDA_ERROR_INVALID_VALUE;
    return result == CUDA_SUCCESS ? sparse_write(properties, &descriptor, levels) : result;
}
