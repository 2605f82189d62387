/* The stage of the command's C tests; see cli_stage.h. */
#include "config.h"

#include <fcntl.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>
#include "integration/cli_stage.h"

static const uint8_t uuid[LEDGER_UUID_BYTES] = {0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef,
                                                0xfe, 0xdc, 0xba, 0x98, 0x76, 0x54, 0x32, 0x10};

/* --- running the command --------------------------------------------------------------------------------------------- */

static void file_read(int descriptor, char *text, size_t bytes)
{
    size_t used = 0;
    ssize_t got;
    assert_int_equal(lseek(descriptor, 0, SEEK_SET), 0);
    while (used < bytes - 1 && (got = read(descriptor, text + used, bytes - 1 - used)) > 0)
        used += (size_t)got;
    text[used] = '\0';
    (void)close(descriptor);
}

static int file_scratch(const struct stage *stage)
{
    int descriptor = open(stage->directory, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    assert_true(descriptor >= 0);
    return descriptor;
}

/* Runs `cubudget` with up to three words, and keeps its output and exit status. */
int cubudget(struct stage *stage, const char *first, const char *second, const char *third)
{
    char program[4096];
    int out = file_scratch(stage), err = file_scratch(stage), status;
    const char *words[] = {"cubudget", first, second, second != NULL ? third : NULL, NULL};
    (void)snprintf(program, sizeof program, "%s/cubudget", getenv("abs_top_builddir"));
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        (void)dup2(out, STDOUT_FILENO);
        (void)dup2(err, STDERR_FILENO);
        (void)execv(program, (char *const *)(uintptr_t)words);
        _exit(127);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    stage->status = WEXITSTATUS(status);
    file_read(out, stage->out, sizeof stage->out);
    file_read(err, stage->err, sizeof stage->err);
    return stage->status;
}

void require_text(const char *text, const char *part)
{
    if (strstr(text, part) == NULL)
        fail_msg("'%s' is not in:\n%s", part, text);
}

/* --- the ledger ------------------------------------------------------------------------------------------------------ */

int stage_open(void **state)
{
    struct stage *stage = calloc(1, sizeof *stage);
    struct ledger_fault fault;
    uint64_t shrunk_to;
    assert_non_null(stage);
    (void)snprintf(stage->directory, sizeof stage->directory, "/dev/shm/cubudget-test-XXXXXX");
    assert_non_null(mkdtemp(stage->directory));
    assert_int_equal(setenv("CUBUDGET_DIR", stage->directory, 1), 0);
    assert_int_equal(setenv("LC_ALL", "C", 1), 0);
    (void)unsetenv("CUBUDGET_LEDGER");
    const struct ledger_request request = {
        .directory = stage->directory, .name = "default", .create = true, .has_budget = true, .budget_bytes = 8 * GIB};
    assert_int_equal(ledger_open(&stage->ledger, &request, &fault), 0);
    int device = ledger_device_claim(&stage->ledger, uuid, "Test Card");
    assert_true(device >= 0);
    stage->device = (unsigned)device;
    assert_int_equal(ledger_device_settle(&stage->ledger, stage->device, 24 * GIB, 300 * MIB, &shrunk_to, &fault), 0);
    ledger_device_describe(&stage->ledger, stage->device, false, 90);
    *state = stage;
    return 0;
}

static int entry_remove(const char *path, const struct stat *status, int kind, struct FTW *walk)
{
    (void)status;
    (void)kind;
    (void)walk;
    return remove(path);
}

int stage_close(void **state)
{
    struct stage *stage = *state;
    for (unsigned i = 0; i < sizeof stage->claims / sizeof *stage->claims; i++)
        if (stage->claims[i].held)
            ledger_row_release(&stage->ledger, &stage->claims[i]);
    ledger_close(&stage->ledger);
    (void)nftw(stage->directory, entry_remove, 8, FTW_DEPTH | FTW_PHYS);
    free(stage);
    return 0;
}

static unsigned slot_claim(struct stage *stage, const char *name)
{
    int slot = ledger_slot_claim(&stage->ledger, name);
    assert_true(slot >= 0);
    return (unsigned)slot;
}

/* A row of this process in a slot of that name. */
struct ledger_claim *row_claim(struct stage *stage, unsigned which, const char *slot, const char *command)
{
    struct ledger_claim *claim = &stage->claims[which];
    assert_int_equal(ledger_row_claim(&stage->ledger, slot_claim(stage, slot), command, claim), 0);
    return claim;
}

/* Charges by the protocol, as an allocation does. */
void charge(struct stage *stage, const struct ledger_claim *claim, uint64_t bytes, enum ledger_kind kind)
{
    struct ledger_bid bid = {
        .device = stage->device, .row = claim->row, .slot = claim->slot, .bytes = bytes, .ticket = LEDGER_NO_TICKET};
    assert_int_equal(ledger_bid_look(&stage->ledger, &bid, NULL), LEDGER_FITS);
    ledger_landed(&stage->ledger, claim->row, stage->device, bytes);
    ledger_kind_add(&stage->ledger, claim->row, stage->device, kind, (int64_t)bytes);
    ledger_count(&stage->ledger, claim->row, LEDGER_COUNT_ALLOCATION);
}

/* --- JSON ---------------------------------------------------------------------------------------------------------- */

json_t *dump_parse(struct stage *stage)
{
    json_error_t error;
    (void)cubudget(stage, "dump", "--json", NULL);
    require_status(stage, 0);
    assert_string_equal(stage->err, "");
    json_t *root = json_loads(stage->out, JSON_REJECT_DUPLICATES, &error);
    if (root == NULL)
        fail_msg("line %d: %s\n%s", error.line, error.text, stage->out);
    return root;
}

const json_t *member(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    if (value == NULL)
        fail_msg("there is no \"%s\"", key);
    return value;
}

void require_integer(const json_t *object, const char *key, uint64_t wanted)
{
    const json_t *value = member(object, key);
    if (!json_is_integer(value) || (uint64_t)json_integer_value(value) != wanted)
        fail_msg("%s is %lld, not %llu", key, (long long)json_integer_value(value), (unsigned long long)wanted);
}

void require_string(const json_t *object, const char *key, const char *wanted)
{
    assert_true(json_is_string(member(object, key)));
    assert_string_equal(json_string_value(member(object, key)), wanted);
}
