/*
 * What happens when the library comes into a process: settings are read, a GPU is looked for, and that is all. It runs in every
 * process under the preload, shells included, so it touches neither the driver (cuInit takes 100 ms and breaks CUDA in every
 * forked child) nor the heap, starts no thread and opens no ledger.
 */
#include "config.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "account/account.h"
#include "platform/gate.h"
#include "platform/card.h"
#include "platform/log.h"

#ifdef ENABLE_SIMULATOR
#define REMEDY "; cubudget run --simulate tries it without one"
#else
#define REMEDY "; install the NVIDIA driver, or run it without cubudget"
#endif

/* Exported by the command alone, which must work without a GPU and under any settings. */
extern const char cubudget_command __attribute__((weak, visibility("default")));

static const char own_object = 0; /* an address in it */

static bool ends_entry(char letter)
{
    return letter == '\0' || letter == ':' || letter == ' ' || letter == '\t' || letter == '\n';
}

/* Whether a list of preloaded objects has this one, by the name of its file. */
static bool list_has(const char *list, const char *name)
{
    size_t length = strlen(name);
    while (*list != '\0') {
        size_t entry = 0;
        while (!ends_entry(list[entry]))
            entry++;
        if (entry >= length && strncmp(list + entry - length, name, length) == 0 &&
            (entry == length || list[entry - length - 1] == '/'))
            return true;
        list += entry;
        list += *list != '\0';
    }
    return false;
}

/* A program under the preload was put under a budget and ends where there can be none. One that links to the library, or opens
 * it, asks (cubudget_available) and is told. */
static bool library_is_preloaded(void)
{
    const char *preloads = getenv("LD_PRELOAD");
    char system_wide[4096];
    Dl_info self;
    if (dladdr(&own_object, &self) == 0 || self.dli_fname == NULL)
        return true;
    const char *slash = strrchr(self.dli_fname, '/'), *name = slash != NULL ? slash + 1 : self.dli_fname;
    if (preloads != NULL && list_has(preloads, name))
        return true;
    int descriptor = open("/etc/ld.so.preload", O_RDONLY | O_CLOEXEC);
    if (descriptor < 0)
        return false;
    ssize_t bytes = read(descriptor, system_wide, sizeof system_wide - 1);
    (void)close(descriptor);
    system_wide[bytes > 0 ? bytes : 0] = '\0';
    return list_has(system_wide, name);
}

__attribute__((constructor)) static void preload(void)
{
    struct settings settings;
    struct settings_fault fault;
    int before = errno; /* 0, as the program may expect to find it */
    if (&cubudget_command != NULL)
        return;
    bool imposed = library_is_preloaded(), good = settings_read(&settings, &fault) == 0;
    if (imposed && !good)
        log_die(EXIT_BAD_SETTINGS, "%s", fault.text);
    log_configure(settings.log_level, settings.log_file);
    char unknown[SETTINGS_UNKNOWN_BYTES];
    for (size_t at = 0; settings_unknown_next(&at, unknown);)
        log_line(LOG_WARN, "%s", unknown);
    if (imposed && !settings.simulate && !card_is_present())
        log_die(EXIT_NO_DEVICE, "no GPU here: looked for %s" REMEDY, CARD_LOOKED_FOR);
    account_configure(&settings, imposed);
    if (!good)
        account_misconfigure(fault.text);
    errno = before;
}
