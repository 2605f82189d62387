/*
 * A stage for the command's C tests: a directory of its own with a ledger of 8 GiB and one device of 24 GiB, which the test
 * fills through ledger.h, and what `cubudget` says of it.
 */
#ifndef TESTS_CLI_STAGE_H
#define TESTS_CLI_STAGE_H

#include <jansson.h>
#include "ledger/snapshot.h"

#define MIB (1ULL << 20)
#define GIB (1ULL << 30)

enum { OUTPUT_BYTES = 1 << 18 };

struct stage {
    char directory[64];
    struct ledger ledger;
    struct ledger_claim claims[4];
    unsigned device;
    int status;
    char out[OUTPUT_BYTES], err[4096];
};

/* cmocka's setup and teardown. */
int stage_open(void **state);
int stage_close(void **state);

/* Runs `cubudget` with up to three words, and keeps its output and exit status. */
int cubudget(struct stage *stage, const char *first, const char *second, const char *third);

/* A row of this process in a slot of that name; `which` of the stage's four. */
struct ledger_claim *row_claim(struct stage *stage, unsigned which, const char *slot, const char *command);

/* Charges by the protocol, as an allocation does. */
void charge(struct stage *stage, const struct ledger_claim *claim, uint64_t bytes, enum ledger_kind kind);

/* Runs dump --json; the caller gives it back. */
json_t *dump_parse(struct stage *stage);

/* Each fails the test where it is not so. */
const json_t *member(const json_t *object, const char *key);
void require_integer(const json_t *object, const char *key, uint64_t wanted);
void require_string(const json_t *object, const char *key, const char *wanted);
void require_text(const char *text, const char *part);
#define require_status(stage, wanted)                                                                                  \
    do {                                                                                                               \
        if ((stage)->status != (wanted))                                                                               \
            fail_msg("exit status %d, not %d\n%s%s", (stage)->status, (wanted), (stage)->out, (stage)->err);           \
    } while (0)

#endif
