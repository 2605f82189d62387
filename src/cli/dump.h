/*
 * A snapshot as cubudget dump shows it: a table for people, or JSON for programs.
 */
#ifndef CLI_DUMP_H
#define CLI_DUMP_H

#include <jansson.h>
#include "cli/drift.h"
#include "cli/witness.h"
#include "ledger/snapshot.h"

/* What is shown: the ledger's figures and, beside each simulated device, the simulator's own; beside each process NVML's. */
struct dump {
    const char *path;
    struct snapshot snapshot;
    bool has_witness[LEDGER_DEVICES];
    struct witness_figures witness[LEDGER_DEVICES];
    struct drift *drift; /* one for each process */
};

void dump_table_print(const struct dump *dump);

/* The caller gives it back with json_decref. NULL: no memory. */
json_t *dump_json(const struct dump *dump);

/* "running", "asked", "evicting", "evicted", "restoring", "lost"; of the dead "orphaned", "dying". */
const char *dump_state_name(const struct snapshot_process *process);

enum { DUMP_UUID_TEXT = 41 };
/* Writes "GPU-xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx". */
const char *dump_uuid_text(const uint8_t uuid[LEDGER_UUID_BYTES], char text[DUMP_UUID_TEXT]);

#endif
