/* Asking a program of ours what a card has free; room.h has who calls it and why. */
#include "config.h"

#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>
#include "account/evicted.h"
#include "cuda/nvml_library.h"
#include "evict/helper.h"
#include "evict/room.h"
#include "platform/log.h"

enum {
    UUID_TEXT_BYTES = 64,
    ANSWER_BYTES = 1024,
    VARIABLES_BYTES = 16 * 1024,
    HELPER_MS = 2000, /* measured: nvmlInit takes 9 ms */
    NAP_FIRST_MS = 2,
    NAP_LAST_MS = 50,
    BYTE_PATIENCE_MS = 300, /* its holder may be stopped, and everybody else wants to come back too */
    BYTE_NAP_MS = 2,
};

/* What the helper needs of the environment: where NVML is, and for the simulator's which machine. LD_PRELOAD is not among them: it is to
 * hear what the card says. */
static const char *const variables_needed[] = {"LD_LIBRARY_PATH", "CUBUDGET_DIR", "CUBUDGET_SIMULATE"};
enum { VARIABLES = sizeof variables_needed / sizeof *variables_needed };

struct places {
    char helper[PATH_MAX];
    char nvml[PATH_MAX]; /* the program's; empty: by its name */
    char *environment[VARIABLES + 1];
    char variables[VARIABLES_BYTES];
};
static struct places *places;
static const char own_object = 0; /* an address in this library */

/* What one question is about. */
struct question {
    unsigned devices;
    unsigned index[LEDGER_DEVICES];
    uint64_t needed_bytes[LEDGER_DEVICES], free_bytes[LEDGER_DEVICES];
    char uuid[LEDGER_DEVICES][UUID_TEXT_BYTES];
};

static int byte_held[LEDGER_DEVICES]; /* descriptors of the restore bytes; */
static unsigned bytes_held;           /* the first so many */

static uint64_t now_ms(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static void nap(unsigned milliseconds)
{
    struct timespec time = {.tv_sec = milliseconds / 1000, .tv_nsec = (long)(milliseconds % 1000) * 1000000};
    (void)clock_nanosleep(CLOCK_MONOTONIC, 0, &time, NULL);
}

/* --- where the helper is -------------------------------------------------------------------------------------------------- */

static bool helper_is(const char *directory, const char *below)
{
    int length = snprintf(places->helper, sizeof places->helper, "%s/%s", directory, below);
    return length > 0 && (size_t)length < sizeof places->helper && access(places->helper, X_OK) == 0;
}

/* In the build tree the library is in .libs beside it. Installed, the library's directory has moved with the helper's, or neither has. */
static bool helper_find(void)
{
    char directory[PATH_MAX];
    Dl_info self;
    if (dladdr(&own_object, &self) == 0 || self.dli_fname == NULL || realpath(self.dli_fname, directory) == NULL)
        return false;
    char *slash = strrchr(directory, '/');
    if (slash == NULL)
        return false;
    *slash = '\0';
    char *base = strrchr(directory, '/');
    if (base != NULL && strcmp(base, "/.libs") == 0 && helper_is(directory, "../card-room"))
        return true;
    static const char installed[] = PKGLIBDIR "/card-room";
    size_t length = strlen(LIBDIR);
    if (strncmp(installed, LIBDIR "/", length + 1) == 0 && helper_is(directory, installed + length + 1))
        return true;
    return helper_is(PKGLIBDIR, "card-room");
}

static void environment_note(void)
{
    char *at = places->variables;
    unsigned count = 0;
    for (unsigned i = 0; i < VARIABLES; i++) {
        const char *value = getenv(variables_needed[i]);
        size_t left = sizeof places->variables - (size_t)(at - places->variables);
        if (value == NULL)
            continue;
        int length = snprintf(at, left, "%s=%s", variables_needed[i], value);
        if (length < 0 || (size_t)length >= left)
            continue;
        places->environment[count++] = at;
        at += length + 1;
    }
    places->environment[count] = NULL;
}

/* Where the program found it, which may be where nobody else would. */
static void nvml_note(void)
{
    const struct nvml_library *nvml = nvml_library_bound();
    Dl_info object;
    if (nvml == NULL || dladdr((const void *)nvml->first, &object) == 0 || object.dli_fname == NULL ||
        realpath(object.dli_fname, places->nvml) == NULL)
        places->nvml[0] = '\0';
}

const char *room_prepare(void)
{
    if (places == NULL) {
        void *made = mmap(NULL, sizeof *places, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (made == MAP_FAILED)
            return "no memory to note where its helper is";
        places = made;
    }
    bytes_held = 0;
    environment_note();
    nvml_note();
    return helper_find() ? NULL : "cubudget's helper card-room, which would prove the room to come back to, is missing";
}

/* --- asking ------------------------------------------------------------------------------------------------------------------ */

static void uuid_format(const CUuuid *uuid, char text[UUID_TEXT_BYTES])
{
    char *at = text + sprintf(text, "GPU");
    for (unsigned i = 0; i < sizeof uuid->bytes; i++)
        at += sprintf(at, i == 0 || i == 4 || i == 6 || i == 8 || i == 10 ? "-%02x" : "%02x", (uint8_t)uuid->bytes[i]);
}

/* What must be free where. Called once before the cards are read and once after, and the larger need is what counts: a grant that
 * lands between the two is on the card in one reading and promised in the other. */
static void needs_note(struct question *question)
{
    CUuuid uuid;
    unsigned index;
    uint64_t bytes;
    for (unsigned number = 0; account_proof(number, &uuid, &index, &bytes); number++) {
        unsigned at = 0;
        while (at < question->devices && question->index[at] < index)
            at++;
        if (at < question->devices && question->index[at] == index) {
            if (question->needed_bytes[at] < bytes)
                question->needed_bytes[at] = bytes;
            continue;
        }
        if (bytes == 0 || question->devices == LEDGER_DEVICES)
            continue;
        for (unsigned i = question->devices; i > at;
             i--) { /* in the order of the ledger, in which all take the restore bytes */
            question->index[i] = question->index[i - 1];
            question->needed_bytes[i] = question->needed_bytes[i - 1];
            memcpy(question->uuid[i], question->uuid[i - 1], UUID_TEXT_BYTES);
        }
        question->index[at] = index;
        question->needed_bytes[at] = bytes;
        uuid_format(&uuid, question->uuid[at]);
        question->devices++;
    }
}

static int answer_parse(const char *answer, struct question *question)
{
    for (unsigned i = 0; i < question->devices; i++) {
        char *end;
        errno = 0;
        question->free_bytes[i] = strtoull(answer, &end, 10);
        if (end == answer || errno != 0 || *end != '\n')
            return -EPROTO;
        answer = end + 1;
    }
    return *answer == '\0' ? 0 : -EPROTO;
}

static int cards_read(struct question *question)
{
    char answer[ANSWER_BYTES];
    char *arguments[LEDGER_DEVICES + 3];
    unsigned count = 0;
    arguments[count++] = places->helper;
    if (places->nvml[0] != '\0')
        arguments[count++] = places->nvml;
    for (unsigned i = 0; i < question->devices; i++)
        arguments[count++] = question->uuid[i];
    arguments[count] = NULL;
    int result = helper_run(places->helper, arguments, places->environment, HELPER_MS, answer, sizeof answer);
    return result == 0 ? answer_parse(answer, question) : result;
}

/* One look. 0; -EAGAIN: a card has less; -errno. */
static int room_look(void)
{
    struct question question = {.devices = 0};
    int before = errno;
    needs_note(&question);
    int result = question.devices == 0 ? 0 : cards_read(&question);
    needs_note(&question);
    for (unsigned i = 0; result == 0 && i < question.devices; i++)
        if (question.free_bytes[i] < question.needed_bytes[i])
            result = -EAGAIN;
    errno = before;
    return result;
}

/* --- one restorer at a time ----------------------------------------------------------------------------------------------------- */

void room_give_up(void)
{
    while (bytes_held > 0)
        ledger_restore_unlock(byte_held[--bytes_held]);
}

/* Who was stopped with the byte is passed by: the proof counts what he was granted as well, so the byte spares looks in vain and no more. */
static void byte_take(const struct ledger *ledger, unsigned device)
{
    uint64_t deadline_ms = now_ms() + BYTE_PATIENCE_MS;
    int result = ledger_restore_lock(ledger, device, &byte_held[bytes_held]);
    while (result == -EAGAIN && now_ms() < deadline_ms) {
        nap(BYTE_NAP_MS);
        result = ledger_restore_lock(ledger, device, &byte_held[bytes_held]);
    }
    if (result == 0)
        bytes_held++;
    else
        log_line(LOG_DEBUG, "device %u: restoring without its restore byte: %s", device, strerror(-result));
}

static void bytes_take(void)
{
    struct question question = {.devices = 0};
    struct ledger *ledger;
    unsigned row;
    if (!account_own(&ledger, &row))
        return;
    needs_note(&question);
    for (unsigned i = 0; i < question.devices; i++)
        byte_take(ledger, question.index[i]);
}

int room_prove(uint32_t patience_ms)
{
    unsigned pause_ms = NAP_FIRST_MS;
    bytes_take();
    uint64_t deadline_ms = now_ms() + patience_ms;
    for (;;) {
        int result = room_look();
        if (result == 0)
            return 0;
        if (now_ms() >= deadline_ms) {
            room_give_up();
            return result;
        }
        nap(pause_ms);
        pause_ms = pause_ms * 2 < NAP_LAST_MS ? pause_ms * 2 : NAP_LAST_MS;
    }
}
