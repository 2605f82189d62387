/* Entry points: every name of src/cuda/symbols.tsv is exported, and cuGetProcAddress follows its rules for each. */
#include "unit/sim_stage.h"

#include <dlfcn.h>
#include <stdio.h>

enum { SYMBOLS = 1024 };

static struct symbol {
    char name[64], class[16], base[64];
    int version;
    void *address;
} symbols[SYMBOLS];
static unsigned count;

static int group_setup(void **state)
{
    (void)state;
    char path[512], line[256];
    const char *top = getenv("abs_top_srcdir");
    snprintf(path, sizeof(path), "%s/src/cuda/symbols.tsv", top ? top : ".");
    FILE *file = fopen(path, "r");
    if (!file) {
        fprintf(stderr, "%s cannot be read\n", path);
        return -1;
    }
    while (fgets(line, sizeof(line), file) && count < SYMBOLS) {
        struct symbol *symbol = &symbols[count];
        if (*line != '#' &&
            sscanf(line, "%63s %15s %63s %d", symbol->name, symbol->class, symbol->base, &symbol->version) == 4)
            count++;
    }
    fclose(file);
    return count > 600 ? 0 : -1;
}

/* The driver's own handle: what is asked of it is not answered by this program or a preload. */
static void *driver(void)
{
    void *handle = dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);
    assert_non_null(handle);
    return handle;
}

static void every_name_is_exported_at_an_address_of_its_own(void **state)
{
    (void)state;
    for (unsigned i = 0; i < count; i++) {
        symbols[i].address = dlsym(driver(), symbols[i].name);
        if (!symbols[i].address)
            fail_msg("%s is not exported", symbols[i].name);
        for (unsigned j = 0; j < i; j++)
            if (symbols[j].address == symbols[i].address)
                fail_msg("%s and %s share an address", symbols[j].name, symbols[i].name);
    }
}

static const struct symbol *symbol_at(const void *address)
{
    for (unsigned i = 0; i < count; i++)
        if (symbols[i].address == address)
            return &symbols[i];
    return NULL;
}

static int name_is_per_thread(const char *name)
{
    size_t length = strlen(name);
    return length > 5 && (strcmp(name + length - 5, "_ptds") == 0 || strcmp(name + length - 5, "_ptsz") == 0);
}

/* The newest version of a base name that is not newer than asked; 0: none. */
static int version_expected(const char *base, int version)
{
    int best = 0;
    for (unsigned i = 0; i < count; i++)
        if (!name_is_per_thread(symbols[i].name) && strcmp(symbols[i].base, base) == 0 &&
            symbols[i].version <= version && symbols[i].version > best)
            best = symbols[i].version;
    return best;
}

static void every_name_is_found_by_version(void **state)
{
    (void)state;
    static const int asked[] = {1000, 2000, 3020, 7000, 11030, 12000, 13000};
    for (unsigned i = 0; i < count; i++)
        for (size_t j = 0; symbols[i].version && j < sizeof(asked) / sizeof(asked[0]); j++) {
            void *address = &address;
            int status = -1, expected = version_expected(symbols[i].base, asked[j]);
            assert_int_equal(cuGetProcAddress_v2(symbols[i].base, &address, asked[j], 0, &status), CUDA_SUCCESS);
            const struct symbol *found = symbol_at(address);
            if (!expected) {
                assert_null(address);
                assert_int_equal(status, CU_GET_PROC_ADDRESS_VERSION_NOT_SUFFICIENT);
                continue;
            }
            assert_int_equal(status, CU_GET_PROC_ADDRESS_SUCCESS);
            if (!found || strcmp(found->base, symbols[i].base) != 0 || found->version != expected ||
                name_is_per_thread(found->name))
                fail_msg("%s at %d is %s", symbols[i].base, asked[j], found ? found->name : "nothing known");
        }
}

static void name_expect(const char *base, int version, uint64_t flags, const char *expected)
{
    void *address = NULL, *older = NULL;
    int status = -1;
    assert_int_equal(cuGetProcAddress_v2(base, &address, version, flags, &status), CUDA_SUCCESS);
    assert_int_equal(cuGetProcAddress(base, &older, version, flags), CUDA_SUCCESS);
    assert_ptr_equal(address, older);
    assert_ptr_equal(address, dlsym(driver(), expected));
    assert_int_equal(status, CU_GET_PROC_ADDRESS_SUCCESS);
}

static void known_cases_hold(void **state)
{
    (void)state;
    name_expect("cuMemAlloc", 2000, 0, "cuMemAlloc");
    name_expect("cuMemAlloc", 3020, 0, "cuMemAlloc_v2");
    name_expect("cuMemAlloc", 13000, 2, "cuMemAlloc_v2");
    name_expect("cuDevicePrimaryCtxReset", 7000, 0, "cuDevicePrimaryCtxReset");
    name_expect("cuDevicePrimaryCtxReset", 11000, 0, "cuDevicePrimaryCtxReset_v2");
    name_expect("cuCtxCreate", 3020, 0, "cuCtxCreate_v2");
    name_expect("cuCtxCreate", 11040, 0, "cuCtxCreate_v3");
    name_expect("cuCtxCreate", 13000, 0, "cuCtxCreate_v4");
    name_expect("cuCtxGetDevice", 12000, 0, "cuCtxGetDevice");
    name_expect("cuCtxGetDevice", 13000, 0, "cuCtxGetDevice_v2");
    name_expect("cuMemcpyHtoD", 13000, 0, "cuMemcpyHtoD_v2");
    name_expect("cuMemcpyHtoD", 13000, 1, "cuMemcpyHtoD_v2");
    name_expect("cuMemcpyHtoD", 13000, 2, "cuMemcpyHtoD_v2_ptds");
    name_expect("cuMemcpyHtoD", 3020, 2, "cuMemcpyHtoD_v2");
    name_expect("cuMemFreeAsync", 11020, 2, "cuMemFreeAsync_ptsz");
    name_expect("cuGetProcAddress", 11030, 0, "cuGetProcAddress");
    name_expect("cuGetProcAddress", 11080, 0, "cuGetProcAddress");
    name_expect("cuGetProcAddress", 12000, 0, "cuGetProcAddress_v2");
    name_expect("cuGetProcAddress", 13000, 0, "cuGetProcAddress_v2");
}

static void what_cannot_be_answered_is_told_apart(void **state)
{
    (void)state;
    void *address = &address;
    int status = -1;
    assert_int_equal(cuGetProcAddress_v2("", &address, 0, 0, NULL), CUDA_SUCCESS);
    assert_null(address);
    assert_int_equal(cuGetProcAddress_v2("cuNoSuchCall", &address, 13000, 0, &status), CUDA_SUCCESS);
    assert_null(address);
    assert_int_equal(status, CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND);
    assert_int_equal(cuGetProcAddress_v2("cuMemAlloc_v2", &address, 13000, 0, &status), CUDA_SUCCESS);
    assert_int_equal(status, CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND);
    assert_int_equal(cuGetProcAddress_v2("cuMemAllocAsync", &address, 11010, 0, &status), CUDA_SUCCESS);
    assert_null(address);
    assert_int_equal(status, CU_GET_PROC_ADDRESS_VERSION_NOT_SUFFICIENT);
    address = &address;
    assert_int_equal(cuGetProcAddress_v2("cuInit", &address, 13010, 0, &status), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(cuGetProcAddress_v2("cuInit", &address, 13000, 4, &status), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(cuGetProcAddress_v2(NULL, &address, 13000, 0, &status), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(cuGetProcAddress_v2("cuInit", NULL, 13000, 0, &status), CUDA_ERROR_INVALID_VALUE);
    assert_ptr_equal(address, &address);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_name_is_exported_at_an_address_of_its_own),
        cmocka_unit_test(every_name_is_found_by_version),
        cmocka_unit_test(known_cases_hold),
        cmocka_unit_test(what_cannot_be_answered_is_told_apart),
    };
    return cmocka_run_group_tests(tests, group_setup, NULL);
}
