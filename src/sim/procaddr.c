/*
 * cuGetProcAddress in both forms: an entry point by the name without suffix and the CUDA version the caller was built for.
 * Answers the newest interface that is not newer than that version, by the address dlsym gives for its exported name.
 * Works before cuInit. No state.
 */
#include "sim/sim.h"

#include <string.h>

#include "sim/symbols.h"

/* The _ptds or _ptsz twin of a name, if it had appeared by that version. NULL: none. */
static const struct symbol *symbol_twin(const struct symbol *plain, int version)
{
    size_t length = strlen(plain->name);
    for (unsigned i = 0; i < symbol_count; i++)
        if (symbols[i].per_thread && symbols[i].version <= version &&
            strncmp(symbols[i].name, plain->name, length) == 0 &&
            (strcmp(symbols[i].name + length, "_ptds") == 0 || strcmp(symbols[i].name + length, "_ptsz") == 0))
            return &symbols[i];
    return NULL;
}

static const struct symbol *symbol_find(const char *name, int version, bool per_thread, int *status)
{
    const struct symbol *best = NULL;
    *status = CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND;
    for (unsigned i = 0; i < symbol_count; i++) {
        const struct symbol *symbol = &symbols[i];
        if (symbol->per_thread || symbol->version == 0 || strcmp(symbol->base, name) != 0)
            continue;
        if (symbol->version > version)
            *status = best ? *status : CU_GET_PROC_ADDRESS_VERSION_NOT_SUFFICIENT;
        else if (!best || symbol->version > best->version)
            best = symbol;
    }
    if (!best)
        return NULL;
    *status = CU_GET_PROC_ADDRESS_SUCCESS;
    const struct symbol *twin = per_thread ? symbol_twin(best, version) : NULL;
    return twin ? twin : best;
}

static CUresult address_find(const char *name, void **address, int version, uint64_t flags, int *status)
{
    int found = CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND;
    if (!name || !address || version > SIM_DRIVER_VERSION ||
        flags & ~(uint64_t)(CU_GET_PROC_ADDRESS_LEGACY_STREAM | CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM))
        return CUDA_ERROR_INVALID_VALUE;
    const struct symbol *symbol =
        symbol_find(name, version, flags & CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM, &found);
    *address = NULL;
    if (symbol)
        memcpy(address, &symbol->address, sizeof(*address));
    if (status)
        *status = found;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuGetProcAddress(const char *name, void **address, int version, uint64_t flags)
{
    return address_find(name, address, version, flags, NULL);
}

SIM_API CUresult cuGetProcAddress_v2(const char *name, void **address, int version, uint64_t flags, int *status)
{
    return address_find(name, address, version, flags, status);
}
