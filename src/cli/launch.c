/*
 * The preloaded library and the simulator: where they are, and the loader's variables; see launch.h.
 */
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "cli/launch.h"
#include "cli/output.h"
#include "platform/log.h"

static const char library_name[] = "libcubudget.so";
static const char driver_name[] = "libcuda.so.1"; /* the simulator's */

static bool path_join(char path[PATH_MAX], const char *directory, const char *name)
{
    int length = snprintf(path, PATH_MAX, "%s/%s", directory, name);
    return length > 0 && length < PATH_MAX;
}

static bool file_is_in(const char *directory, const char *name)
{
    char path[PATH_MAX];
    return path_join(path, directory, name) && access(path, R_OK) == 0;
}

/* Writes the directory of this executable. */
static bool own_directory(char directory[PATH_MAX])
{
    ssize_t length = readlink("/proc/self/exe", directory, PATH_MAX - 1);
    if (length <= 0)
        return false;
    directory[length] = '\0';
    char *slash = strrchr(directory, '/');
    if (slash == NULL)
        return false;
    *slash = '\0';
    return true;
}

/* Where `installed` is now that the executable, which was to be in BINDIR, is in `own`: the prefix that the two share may
 * have been moved as a whole. False where it was not. */
static bool directory_moved(const char *own, const char *installed, char moved[PATH_MAX])
{
    size_t shared = 0;
    for (size_t i = 0;; i++) { /* up to the last '/' that both have */
        bool ends = BINDIR[i] == '\0' || BINDIR[i] == '/', also = installed[i] == '\0' || installed[i] == '/';
        if (ends && also)
            shared = i;
        if (BINDIR[i] == '\0' || BINDIR[i] != installed[i])
            break;
    }
    const char *tail = &BINDIR[shared]; /* "/bin" */
    size_t own_length = strlen(own), tail_length = strlen(tail);
    if (own_length < tail_length || strcmp(own + own_length - tail_length, tail) != 0)
        return false;
    int length = snprintf(moved, PATH_MAX, "%.*s%s", (int)(own_length - tail_length), own, installed + shared);
    return length > 0 && length < PATH_MAX;
}

static int library_missing(const char *own)
{
    return fault_say(EXIT_BAD_SETTINGS, "%s is neither beside %s nor in %s; install cubudget again, or build it there",
                     library_name, own, LIBDIR);
}

static int simulator_missing(const char *directory)
{
    return fault_say(
        EXIT_BAD_SETTINGS,
        "the simulator (%s) is not in %s; install it, build with --enable-simulator, or leave out --simulate",
        driver_name, directory);
}

int launch_files_find(struct launch_files *files, bool with_simulator)
{
    char own[PATH_MAX], libraries[PATH_MAX], helpers[PATH_MAX];
    const char *simulator_below = "src/sim/.libs";
    if (!own_directory(own))
        return fault_say(EXIT_BAD_SETTINGS, "/proc/self/exe cannot be read: %s; mount /proc", strerror(errno));
    bool found = path_join(libraries, own, ".libs") && file_is_in(libraries, library_name);
    if (found) {
        (void)snprintf(helpers, sizeof helpers, "%s", own);
    } else {
        simulator_below = "simulator";
        found = directory_moved(own, LIBDIR, libraries) && file_is_in(libraries, library_name);
        if (!found || !directory_moved(own, PKGLIBDIR, helpers))
            (void)snprintf(helpers, sizeof helpers, "%s", PKGLIBDIR);
        if (!found)
            (void)snprintf(libraries, sizeof libraries, "%s", LIBDIR);
        found = found || file_is_in(libraries, library_name);
    }
    if (!found || !path_join(files->library, libraries, library_name))
        return library_missing(own);
    files->simulator[0] = '\0';
    if (!with_simulator)
        return 0;
    if (!path_join(files->simulator, helpers, simulator_below) || !file_is_in(files->simulator, driver_name))
        return simulator_missing(files->simulator);
    return 0;
}

/* The loader splits at these and expands '$'; it has no way to write one of them in a path. */
static int path_check(const char *variable, const char *path, const char *forbidden)
{
    size_t at = strcspn(path, forbidden);
    if (path[at] == '\0')
        return 0;
    return fault_say(
        EXIT_BAD_SETTINGS,
        "'%s' cannot be named in %s, where '%c' separates or means something else; move cubudget to a path "
        "without it",
        path, variable, path[at]);
}

/* Puts `path` in front of the list in `variable`, and takes it away elsewhere in it. */
static int list_prepend(const char *variable, const char *path, const char *separators)
{
    const char *before = getenv(variable);
    size_t bytes = strlen(path) + (before != NULL ? strlen(before) : 0) + 2;
    char *list = malloc(bytes);
    if (list == NULL)
        return fault_say(EXIT_BAD_SETTINGS, "no memory for %s; free some", variable);
    (void)strcpy(list, path);
    char *end = list + strlen(list);
    while (before != NULL && *before != '\0') {
        size_t length = strcspn(before, separators);
        if (length > 0 && (length != strlen(path) || strncmp(before, path, length) != 0)) {
            *end++ = ':';
            memcpy(end, before, length);
            end += length;
            *end = '\0';
        }
        before += length;
        before += *before != '\0';
    }
    int result =
        setenv(variable, list, 1) == 0 ? 0 : fault_say(EXIT_BAD_SETTINGS, "no memory for %s; free some", variable);
    free(list);
    return result;
}

int launch_environment_set(const struct launch_files *files, bool with_simulator)
{
    int result = path_check("LD_PRELOAD", files->library, ": \t\n;$");
    if (result == 0)
        result = list_prepend("LD_PRELOAD", files->library, ": \t\n");
    if (result == 0 && with_simulator)
        result = path_check("LD_LIBRARY_PATH", files->simulator, ":;$");
    if (result == 0 && with_simulator)
        result = list_prepend("LD_LIBRARY_PATH", files->simulator, ":;");
    return result;
}
