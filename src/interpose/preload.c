/*
 * What happens when the library comes into a process: settings are read, a GPU is looked for, and that is all. It runs in every
 * process under the preload, shells included, so it touches neither the driver (cuInit takes 100 ms and breaks CUDA in every
 * forked child) nor the heap, starts no thread and opens no ledger.
 */
#include "config.h"

#include <errno.h>
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

__attribute__((constructor)) static void preload(void)
{
    struct settings settings;
    struct settings_fault fault;
    int before = errno; /* 0, as the program may expect to find it */
    if (&cubudget_command != NULL)
        return;
    if (settings_read(&settings, &fault) != 0)
        log_die(EXIT_BAD_SETTINGS, "%s", fault.text);
    log_configure(settings.log_level, settings.log_file);
    if (!settings.simulate && !card_is_present())
        log_die(EXIT_NO_DEVICE, "no GPU here: looked for %s" REMEDY, CARD_LOOKED_FOR);
    account_configure(&settings);
    errno = before;
}
