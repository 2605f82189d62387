/* What an image says that it will take, and that no broken one does harm. */
#include <elf.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <cmocka.h>

#include "account/image_cost.h"

#define MIB (1024ULL * 1024)
#define PTX ".version 8.0\n.target sm_90\n.address_size 64\n"

static void ptx_is_read_for_its_variables(void **state)
{
    (void)state;
    assert_int_equal(image_cost(PTX ".visible .global .align 4 .b8 big[67108864];\n"), 64 * MIB);
    assert_int_equal(image_cost(PTX ".global .align 8 .f64 grid[1024][1024];\n"), 8 * MIB);
    assert_int_equal(image_cost(PTX ".global .u32 a[786432];\n.global .s16 b[1572864] = {1};\n"), 6 * MIB);
    assert_int_equal(image_cost(PTX ".global .u32 one;\n"), 0);
    assert_int_equal(image_cost(PTX ".entry k() { ld.global.u32 %r1, [67108864]; }\n"), 0);
    assert_int_equal(image_cost(PTX ".global"), 0);
    assert_int_equal(image_cost(PTX ".global "), 0);
    assert_int_equal(image_cost(PTX ".global .b8 huge[18446744073709551615][18446744073709551615];"), UINT64_MAX);
    assert_int_equal(image_cost("x"), 0);
    assert_int_equal(image_cost(""), 0);
    assert_int_equal(image_cost(NULL), 0);
}

/* A cubin of a header and three sections: 3 MiB of variables, 1 MiB of code, and 8 MiB that have no place on the device. */
struct cubin {
    Elf64_Ehdr header;
    Elf64_Shdr sections[3];
};

static struct cubin cubin_make(void)
{
    struct cubin cubin = {.header = {.e_ident = {ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB},
                                     .e_shoff = offsetof(struct cubin, sections),
                                     .e_shentsize = sizeof(Elf64_Shdr),
                                     .e_shnum = 3}};
    cubin.sections[0] = (Elf64_Shdr){.sh_type = SHT_NOBITS, .sh_flags = SHF_ALLOC | SHF_WRITE, .sh_size = 3 * MIB};
    cubin.sections[1] = (Elf64_Shdr){.sh_type = SHT_PROGBITS, .sh_flags = SHF_ALLOC | SHF_EXECINSTR, .sh_size = MIB};
    cubin.sections[2] = (Elf64_Shdr){.sh_type = SHT_PROGBITS, .sh_size = 8 * MIB};
    return cubin;
}

static void cubins_are_read_for_what_is_placed_on_the_device(void **state)
{
    (void)state;
    struct cubin cubin = cubin_make();
    assert_int_equal(image_cost(&cubin), 4 * MIB);
    cubin.sections[1].sh_size = UINT64_MAX;
    assert_int_equal(image_cost(&cubin), UINT64_MAX);
    cubin.sections[0].sh_size = cubin.sections[1].sh_size = 1000;
    assert_int_equal(image_cost(&cubin), 0);
}

struct fat {
    uint32_t magic;
    uint16_t version, header_bytes;
    uint64_t bytes;
    struct fat_part {
        uint16_t kind, version;
        uint32_t header_bytes;
        uint64_t bytes;
        unsigned char more[48];
        struct cubin cubin;
    } parts[2];
};

static struct fat fat_make(void)
{
    struct fat fat = {.magic = 0xba55ed50u, .version = 1, .header_bytes = 16, .bytes = sizeof fat.parts};
    for (int i = 0; i < 2; i++) {
        fat.parts[i].kind = 2;
        fat.parts[i].version = 257;
        fat.parts[i].header_bytes = 64;
        fat.parts[i].bytes = sizeof fat.parts[i].cubin;
        fat.parts[i].cubin = cubin_make();
    }
    fat.parts[1].cubin.sections[0].sh_size = 7 * MIB;
    return fat;
}

/* One part will be loaded, and the largest is asked for. */
static void fat_binaries_cost_their_largest_cubin(void **state)
{
    (void)state;
    struct fat fat = fat_make();
    struct {
        uint32_t magic, version;
        const void *data;
        void *other;
    } wrapper = {0x466243b1u, 1, &fat, NULL};
    assert_int_equal(image_cost(&fat), 8 * MIB);
    assert_int_equal(image_cost(&wrapper), 8 * MIB);
    memset(&fat.parts[1].cubin, 0x55, sizeof fat.parts[1].cubin); /* compressed: says nothing */
    assert_int_equal(image_cost(&fat), 4 * MIB);
    fat.parts[0].kind = 1;
    assert_int_equal(image_cost(&fat), 0);
}

static void broken_images_are_left_to_the_driver(void **state)
{
    (void)state;
    struct cubin cubin = cubin_make();
    struct fat fat = fat_make();
    struct {
        uint32_t magic, version;
        const void *data;
        void *other;
    } wrapper = {0x466243b1u, 1, (const void *)(uintptr_t)4096, NULL};
    assert_int_equal(image_cost(&wrapper), 0);
    assert_int_equal(image_cost((const void *)(uintptr_t)4096), 0);
    cubin.header.e_shoff = 1ULL << 46;
    assert_int_equal(image_cost(&cubin), 0);
    cubin.header.e_shoff = UINT64_MAX - 8;
    assert_int_equal(image_cost(&cubin), 0);
    fat.parts[0].header_bytes = 0;
    assert_int_equal(image_cost(&fat), 0);
    fat = fat_make();
    fat.bytes = UINT64_MAX;
    fat.parts[1].bytes = UINT64_MAX - 10;
    assert_int_equal(image_cost(&fat), 4 * MIB);
}

/* An image whose section table ends at the end of what is mapped. */
static void images_at_the_end_of_memory_are_read_as_far_as_they_go(void **state)
{
    (void)state;
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    char *pages = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(pages != MAP_FAILED);
    assert_int_equal(munmap(pages + page, page), 0);
    struct cubin cubin = cubin_make();
    char *at = pages + page - sizeof cubin + sizeof(Elf64_Shdr);
    memcpy(at, &cubin, sizeof cubin - sizeof(Elf64_Shdr));
    assert_int_equal(image_cost(at), 4 * MIB);
    assert_int_equal(munmap(pages, page), 0);
}

static void files_are_read_like_images(void **state)
{
    (void)state;
    char path[] = "/dev/shm/cubudget-test-XXXXXX";
    struct cubin cubin = cubin_make();
    static const char text[] = PTX ".global .b8 big[67108864"; /* ends in a number */
    int descriptor = mkstemp(path);
    assert_true(descriptor >= 0);
    assert_int_equal(write(descriptor, &cubin, sizeof cubin), sizeof cubin);
    assert_int_equal(image_cost_of_file(path), 4 * MIB);
    assert_int_equal(ftruncate(descriptor, 0), 0);
    assert_int_equal(image_cost_of_file(path), 0);
    assert_int_equal(pwrite(descriptor, text, sizeof text - 1, 0), sizeof text - 1);
    assert_int_equal(image_cost_of_file(path), 64 * MIB);
    close(descriptor);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(image_cost_of_file(path), 0);
    assert_int_equal(image_cost_of_file("/dev/zero"), 0);
    assert_int_equal(image_cost_of_file(NULL), 0);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(ptx_is_read_for_its_variables),
        cmocka_unit_test(cubins_are_read_for_what_is_placed_on_the_device),
        cmocka_unit_test(fat_binaries_cost_their_largest_cubin),
        cmocka_unit_test(broken_images_are_left_to_the_driver),
        cmocka_unit_test(images_at_the_end_of_memory_are_read_as_far_as_they_go),
        cmocka_unit_test(files_are_read_like_images),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
