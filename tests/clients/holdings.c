/*
 * Prints what is held of the first device, for the script tests: "charged BYTES held BYTES peak BYTES", what the ledger in
 * $CUBUDGET_DIR has charged to living processes ("none" where there is no ledger), what the simulated machine holds, and the most
 * it ever held. Each says it alone.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "ledger/snapshot.h"
#include "sim/machine.h"

static int charged_print(const char *directory)
{
    static struct ledger ledger;
    static struct snapshot snapshot;
    const struct ledger_request request = {.directory = directory, .name = "default"};
    struct ledger_fault fault = {""};
    int result = ledger_open(&ledger, &request, &fault);
    if (result == -ENOENT) {
        printf("charged none ");
        return 0;
    }
    if (result != 0 || snapshot_take(&ledger, &snapshot) != 0) {
        fprintf(stderr, "holdings: %s\n", fault.text);
        return -1;
    }
    printf("charged %llu ", (unsigned long long)(snapshot.device_count > 0 ? snapshot.devices[0].used_bytes : 0));
    snapshot_free(&snapshot);
    ledger_close(&ledger);
    return 0;
}

int main(void)
{
    const char *directory = getenv("CUBUDGET_DIR");
    struct sim_figures figures;
    if (!directory || charged_print(directory) != 0 || sim_machine_read(directory, "default", &figures) != 0)
        return 73;
    printf("held %llu peak %llu\n", (unsigned long long)figures.device[0].used_bytes,
           (unsigned long long)figures.device[0].peak_bytes);
    return 0;
}
