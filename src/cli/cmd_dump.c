/*
 * cubudget dump: who holds what, as a table or as JSON. Works without a GPU, and while the programs run.
 */
#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include "cli/command.h"
#include "cli/dump.h"
#include "cli/options.h"
#include "cli/output.h"
#include "cli/over.h"
#include "platform/log.h"

const char *dump_state_name(const struct snapshot_process *process)
{
    switch (process->row_state) {
    case LEDGER_ROW_LIVE:
        return ledger_process_state_name(process->process_state);
    case LEDGER_ROW_ORPHANED:
        return "orphaned";
    case LEDGER_ROW_DYING:
        return "dying";
    default:
        return "free";
    }
}

const char *dump_uuid_text(const uint8_t uuid[LEDGER_UUID_BYTES], char text[DUMP_UUID_TEXT])
{
    char *end = text + sprintf(text, "GPU-");
    for (unsigned i = 0; i < LEDGER_UUID_BYTES; i++)
        end += sprintf(end, "%s%02x", i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", uuid[i]);
    return text;
}

static int json_print(const struct dump *dump)
{
    json_t *root = dump_json(dump);
    if (root == NULL)
        return fault_say(EXIT_NO_LEDGER, "no memory to write %s as JSON; free some", dump->path);
    (void)json_dumpf(root, stdout, JSON_INDENT(2) | JSON_PRESERVE_ORDER);
    (void)putchar('\n');
    json_decref(root);
    return 0;
}

static int dump_print(struct dump *dump, const char *directory, bool json)
{
    int status = 0;
    for (unsigned i = 0; i < dump->snapshot.device_count; i++)
        if (dump->snapshot.devices[i].simulated)
            dump->has_witness[i] = witness_find(directory, dump->snapshot.devices[i].uuid, &dump->witness[i]);
    if (json) { /* whose keys are fixed */
        status = json_print(dump);
        over_say(&dump->snapshot, -1);
    } else
        dump_table_print(dump);
    return output_finish(status);
}

static int dump_run(int argc, char **argv)
{
    struct ledger_options options = {.with_json = true};
    struct ledger_place place;
    struct ledger ledger;
    static struct dump dump; /* too large for a stack that somebody may have limited */
    enum options_result result =
        ledger_options_read(&options, "Shows who holds what of each device, and who is refused.", argc, argv);
    if (result != OPTIONS_GOOD)
        return options_status(result);
    int status = ledger_place_find(options.name, &place);
    if (status == 0)
        status = ledger_open_existing(&place, &ledger);
    if (status != 0)
        return status;
    dump.path = ledger.path;
    if (snapshot_take(&ledger, &dump.snapshot) == 0)
        dump.drift = drift_read(place.directory, &dump.snapshot);
    if (dump.drift != NULL)
        status = dump_print(&dump, place.directory, options.json);
    else
        status = fault_say(EXIT_NO_LEDGER, "no memory to look at %s; free some", ledger.path);
    free(dump.drift);
    snapshot_free(&dump.snapshot);
    ledger_close(&ledger);
    return status;
}

const struct command command_dump = {"dump", "[--json]", "show who holds what", dump_run};
