/*
 * cuBLAS's way: a CUDA runtime of its own looks up everything by cuGetProcAddress_v2, each name at the version it was built for,
 * with flags 0 and 2; then a workspace of 32 MiB. usage: way_blas SYMBOLS, the list of symbols (src/cuda/symbols.tsv): name,
 * class, name without ABI suffix, version, separated by tabs.
 */
#include "way.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WORKSPACES = 512, LOOKUPS_LEAST = 440 };

static CUresult (*ask)(const char *, void **, int, uint64_t, CUdriverProcAddressQueryResult *);

static void *lookup(const char *name, int version, uint64_t flags)
{
    void *found = NULL, *again = NULL;
    CUdriverProcAddressQueryResult status = CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND;
    if (ask(name, &found, version, flags, &status) != CUDA_SUCCESS || !found || status != CU_GET_PROC_ADDRESS_SUCCESS ||
        ask(name, &again, version, flags, &status) != CUDA_SUCCESS || again != found) {
        printf("%s of %d was not found\n", name, version);
        exit(1);
    }
    return found;
}

/* Each name at each version that its interfaces have, both ways. */
static void round_make(const char *symbols)
{
    char line[512], name[128], class[32], base[128];
    unsigned names = 0;
    int version;
    FILE *list = fopen(symbols, "r");
    if (!list) {
        printf("%s cannot be read\n", symbols);
        exit(1);
    }
    while (fgets(line, sizeof(line), list)) {
        if (*line == '#' || sscanf(line, "%127s %31s %127s %d", name, class, base, &version) != 4 || version < 2000 ||
            version > 13000 || strstr(name, "_ptsz") || strstr(name, "_ptds"))
            continue;
        (void)lookup(base, version, CU_GET_PROC_ADDRESS_DEFAULT);
        (void)lookup(base, version, CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM);
        names++;
    }
    fclose(list);
    printf("%s\n", names >= LOOKUPS_LEAST ? "at least 440 names, each found twice" : "too few names");
}

int main(int words_count, char **words)
{
    static const CUdeviceptr untouched = 0x5eed5eed;
    CUdeviceptr workspaces[WORKSPACES];
    CUresult (*alloc)(CUdeviceptr *, size_t) = NULL;
    CUresult (*release)(CUdeviceptr) = NULL;
    unsigned taken = 0;
    if (words_count < 2)
        return 64;
    way_start();
    *(void **)&ask = way_find("cuGetProcAddress_v2");
    way_look("start");
    round_make(words[1]);
    *(void **)&alloc = lookup("cuMemAlloc", 3020, 0);
    *(void **)&release = lookup("cuMemFree", 3020, 0);
    way_must(alloc(&workspaces[0], 32 * MIB));
    way_use(workspaces[0], 32 * MIB, 1);
    way_look("a workspace");
    for (taken = 1; taken < WORKSPACES; taken++) {
        workspaces[taken] = untouched;
        CUresult result = alloc(&workspaces[taken], 32 * MIB);
        if (result == CUDA_ERROR_OUT_OF_MEMORY && workspaces[taken] == untouched)
            break;
        way_expect(CUDA_SUCCESS, result, "cuMemAlloc");
    }
    printf("%u workspaces, then %s\n", taken, taken < WORKSPACES ? "refused" : "enough");
    way_look("full");
    for (unsigned i = 0; i < taken; i++)
        way_must(release(workspaces[i]));
    way_look("all given back");
    return 0;
}
