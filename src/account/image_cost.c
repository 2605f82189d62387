/* What an image will take; image_cost.h says who asks. */
#include "config.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>
#include "account/account.h"
#include "account/image_cost.h"

#define FAT_WRAPPER_MAGIC 0x466243b1u /* what a program's own section has: a pointer to the fat binary */
#define FAT_MAGIC         0xba55ed50u
#define NOTHING_BYTES     (1ULL << 20) /* less than this costs nothing (measured: small modules fit what a context holds) */

enum { SECTIONS_MOST = 1 << 16, FAT_PARTS_MOST = 4096, FAT_KIND_CUBIN = 2 };

/* Copies from memory that may not be there. */
static bool peek(uintptr_t from, void *to, size_t bytes)
{
    struct iovec local = {.iov_base = to, .iov_len = bytes}, remote = {.iov_base = (void *)from, .iov_len = bytes};
    return process_vm_readv(getpid(), &local, 1, &remote, 1, 0) == (ssize_t)bytes;
}

static uint64_t plus(uint64_t a, uint64_t b)
{
    uint64_t sum;
    return __builtin_add_overflow(a, b, &sum) ? UINT64_MAX : sum;
}

/* --- cubins ---------------------------------------------------------------------------------------------------------------- */

/* All sections that have a place on the device: code, constants, variables with and without values. */
static uint64_t cubin_bytes(uintptr_t image)
{
    Elf64_Ehdr header;
    uint64_t bytes = 0;
    if (!peek(image, &header, sizeof header) || memcmp(header.e_ident, ELFMAG, SELFMAG) != 0 ||
        header.e_ident[EI_CLASS] != ELFCLASS64 || header.e_shentsize != sizeof(Elf64_Shdr) ||
        header.e_shoff > UINTPTR_MAX - image)
        return 0;
    for (unsigned i = 0; i < header.e_shnum && i < SECTIONS_MOST; i++) {
        Elf64_Shdr section;
        if (!peek(image + header.e_shoff + i * sizeof section, &section, sizeof section))
            return bytes;
        if ((section.sh_flags & SHF_ALLOC) != 0)
            bytes = plus(bytes, section.sh_size);
    }
    return bytes;
}

/* --- fat binaries ------------------------------------------------------------------------------------------------------------ */

struct fat_header {
    uint32_t magic;
    uint16_t version, header_bytes;
    uint64_t bytes; /* of all parts */
};
struct fat_part {
    uint16_t kind, version;
    uint32_t header_bytes;
    uint64_t bytes; /* behind the header */
};
struct fat_wrapper {
    uint32_t magic, version;
    uint64_t image;
};

/* One of the cubins will be loaded. Those that are compressed do not say how much they hold. */
static uint64_t fat_bytes(uintptr_t image)
{
    struct fat_header header;
    uint64_t most = 0;
    if (!peek(image, &header, sizeof header) || header.magic != FAT_MAGIC)
        return 0;
    uintptr_t at = image + header.header_bytes;
    for (uint64_t left = header.bytes, n = 0; left >= sizeof(struct fat_part) && n < FAT_PARTS_MOST; n++) {
        struct fat_part part;
        if (!peek(at, &part, sizeof part) || part.header_bytes < sizeof part ||
            plus(part.header_bytes, part.bytes) > left)
            break;
        uint64_t bytes = part.kind == FAT_KIND_CUBIN ? cubin_bytes(at + part.header_bytes) : 0;
        most = bytes > most ? bytes : most;
        at += part.header_bytes + part.bytes;
        left -= part.header_bytes + part.bytes;
    }
    return most;
}

/* --- PTX ---------------------------------------------------------------------------------------------------------------------- */

static bool is_text(const unsigned char *bytes, size_t count)
{
    for (size_t i = 0; i < count && bytes[i] != 0; i++)
        if ((bytes[i] < ' ' && (bytes[i] < '\t' || bytes[i] > '\r')) || bytes[i] > '~')
            return false;
    return bytes[0] != 0;
}

static bool is_blank(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

/* A declaration from behind its ".global" on: ".align 4 .b8 name[67108864];", any number of dimensions. */
static uint64_t variable_bytes(const char *at, const char *end)
{
    uint64_t bytes = 0;
    for (; at < end && *at != ';' && *at != '=' && *at != '{'; at++) {
        if (end - at < 3)
            break;
        uint64_t number = strchr("[busf", *at) != NULL && at[1] >= '0' && at[1] <= '9' ? strtoull(at + 1, NULL, 10) : 0;
        if (*at == '[') {
            if (__builtin_mul_overflow(bytes, number, &bytes))
                return UINT64_MAX;
        } else if (bytes == 0 && number != 0 && at[-1] == '.')
            bytes = number / 8;
    }
    return bytes;
}

static uint64_t text_bytes(const char *text, size_t length)
{
    static const char word[] = ".global";
    const char *end = text + length;
    uint64_t bytes = 0;
    for (const char *at = text; (at = memmem(at, (size_t)(end - at), word, sizeof word - 1)) != NULL;) {
        at += sizeof word - 1;
        if (at < end && is_blank(*at)) /* ld.global.u32 is no declaration */
            bytes = plus(bytes, variable_bytes(at, end));
    }
    return bytes;
}

/* --- any of them ---------------------------------------------------------------------------------------------------------------- */

/* `length` SIZE_MAX: a text ends with a zero. */
static uint64_t bytes_of(const void *image, size_t length)
{
    unsigned char head[16] = {0};
    struct fat_wrapper wrapper;
    uintptr_t at = (uintptr_t)image;
    uint32_t magic;
    if (!peek(at, head, 4))
        return 0;
    memcpy(&magic, head, sizeof magic);
    if (memcmp(head, ELFMAG, SELFMAG) == 0)
        return cubin_bytes(at);
    if (magic == FAT_WRAPPER_MAGIC)
        return peek(at, &wrapper, sizeof wrapper) ? fat_bytes((uintptr_t)wrapper.image) : 0;
    if (magic == FAT_MAGIC)
        return fat_bytes(at);
    if (is_text(head, 4))
        return text_bytes(image, length == SIZE_MAX ? strlen(image) : length);
    return 0;
}

static uint64_t cost_of(uint64_t bytes)
{
    return bytes > NOTHING_BYTES ? linear_cost(bytes) : 0;
}

uint64_t image_cost(const void *image)
{
    int before = errno;
    uint64_t bytes = image != NULL ? bytes_of(image, SIZE_MAX) : 0;
    errno = before;
    return cost_of(bytes);
}

static uint64_t descriptor_bytes(int descriptor)
{
    struct stat status;
    if (fstat(descriptor, &status) != 0 || !S_ISREG(status.st_mode) || status.st_size <= 0)
        return 0;
    size_t length = (size_t)status.st_size;
    /* A page more than the file has: what reads a number at the very end finds a zero. */
    char *copy = mmap(NULL, length + 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (copy == MAP_FAILED)
        return 0;
    size_t done = 0;
    for (ssize_t count = 1; done < length && count > 0; done += count > 0 ? (size_t)count : 0)
        count = read(descriptor, copy + done, length - done);
    uint64_t bytes = bytes_of(copy, done);
    (void)munmap(copy, length + 1);
    return bytes;
}

uint64_t image_cost_of_file(const char *path)
{
    int before = errno;
    uint64_t bytes = 0;
    int descriptor = path != NULL ? open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK) : -1;
    if (descriptor >= 0) {
        bytes = descriptor_bytes(descriptor);
        (void)close(descriptor);
    }
    errno = before;
    return cost_of(bytes);
}
