/*
 * The simulated GPU for a program's own tests. Called once, before anything else of CUDA or of this library is used and before
 * there are threads: it changes the environment, which the simulator reads.
 */
#include "config.h"

#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "api/api.h"
#include "platform/log.h"

#ifdef ENABLE_SIMULATOR
static const char own_object = 0; /* an address in this library */

/* Opens one of the simulator's libraries, in `below` beside this library's own directory, for good: whoever asks for
 * its name afterwards finds it. */
static bool simulator_open(const char *directory, const char *below, const char *name)
{
    char path[PATH_MAX];
    int length = snprintf(path, sizeof path, "%s/%s/%s", directory, below, name);
    return length > 0 && length < PATH_MAX && dlopen(path, RTLD_NOW | RTLD_GLOBAL) != NULL;
}

/* Installed, and in a build tree. */
static bool simulator_load(void)
{
    static const char *const places[] = {"cubudget/simulator", "../src/sim/.libs"};
    char directory[PATH_MAX];
    Dl_info self;
    if (dladdr(&own_object, &self) == 0 || self.dli_fname == NULL || realpath(self.dli_fname, directory) == NULL)
        return false;
    char *slash = strrchr(directory, '/');
    if (slash == NULL)
        return false;
    *slash = '\0';
    for (size_t i = 0; i < sizeof places / sizeof *places; i++)
        if (simulator_open(directory, places[i], "libcuda.so.1") &&
            simulator_open(directory, places[i], "libnvidia-ml.so.1"))
            return true;
    return false;
}

enum cubudget_error cubudget_simulate(const char *options, const char *directory)
{
    struct settings settings;
    struct settings_fault fault;
    if (account_is_attached() || driver_bound() != NULL)
        return api_fail(CUBUDGET_ERROR_UNSUPPORTED, "a driver is in use already; call cubudget_simulate first");
    if (setenv("CUBUDGET_SIMULATE", options != NULL ? options : "", 1) != 0 ||
        (directory != NULL && setenv("CUBUDGET_DIR", directory, 1) != 0))
        return api_fail(CUBUDGET_ERROR_NO_HOST_MEMORY, NULL);
    if (settings_read(&settings, &fault) != 0)
        return api_fail(CUBUDGET_ERROR_SETTINGS, "%s", fault.text);
    if (!simulator_load())
        return api_fail(CUBUDGET_ERROR_NO_DRIVER, "the simulator's libraries are not where this library is");
    account_configure(&settings, account_is_imposed());
    return CUBUDGET_OK;
}
#else
enum cubudget_error cubudget_simulate(const char *options, const char *directory)
{
    (void)options;
    (void)directory;
    return api_fail(CUBUDGET_ERROR_UNSUPPORTED, "this build is without the simulator (--enable-simulator)");
}
#endif
