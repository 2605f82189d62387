/* Looks for a GPU; card.h has the promises. Called by the preload's constructor. */
#include "config.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "platform/card.h"

enum { NODES = 64 }; /* a container may have been given any one of a large machine's */

static bool node_is_there(const char *path)
{
    struct stat status;
    return stat(path, &status) == 0 && S_ISCHR(status.st_mode);
}

static bool nodes_are_there(void)
{
    for (unsigned number = 0; number < NODES; number++) {
        char path[32];
        (void)snprintf(path, sizeof path, "/dev/nvidia%u", number);
        if (node_is_there(path))
            return true;
    }
    return node_is_there("/dev/dxg") || node_is_there("/dev/nvhost-gpu"); /* WSL 2; Tegra */
}

/* One hexadecimal word of sysfs; 0 where it cannot be read. */
static unsigned long word_read(const char *device, const char *name)
{
    char path[320], text[32];
    (void)snprintf(path, sizeof path, "/sys/bus/pci/devices/%s/%s", device, name);
    int descriptor = open(path, O_RDONLY | O_CLOEXEC);
    if (descriptor < 0)
        return 0;
    ssize_t bytes = read(descriptor, text, sizeof text - 1);
    (void)close(descriptor);
    text[bytes > 0 ? bytes : 0] = '\0';
    return strtoul(text, NULL, 16);
}

/* The nodes appear when the driver's helper first runs, so a card on the bus is enough. */
static bool bus_has_card(void)
{
    enum { VENDOR_NVIDIA = 0x10DE, CLASS_DISPLAY = 0x03, CLASS_SHIFT = 16 };
    /* The kernel's own records, because opendir takes memory from the program's heap. */
    struct record {
        unsigned long inode;
        long offset;
        unsigned short length;
        unsigned char type;
        char name[];
    };
    _Alignas(struct record) char buffer[4096];
    bool found = false;
    long bytes;
    int descriptor = open("/sys/bus/pci/devices", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (descriptor < 0)
        return false;
    while (!found && (bytes = syscall(SYS_getdents64, descriptor, buffer, sizeof buffer)) > 0) {
        for (long at = 0; at < bytes && !found;) {
            const struct record *record = (const struct record *)(const void *)(buffer + at);
            found = record->name[0] != '.' && word_read(record->name, "vendor") == VENDOR_NVIDIA &&
                    word_read(record->name, "class") >> CLASS_SHIFT == CLASS_DISPLAY;
            at += record->length;
        }
    }
    (void)close(descriptor);
    return found;
}

bool card_is_present(void)
{
    return nodes_are_there() || bus_has_card();
}
