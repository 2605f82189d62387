/*
 * Prints each change of a device's pressure, whoever causes it, without polling. Needs no GPU, only the ledger.
 *
 *     cc watch_pressure.c $(pkg-config --cflags --libs cubudget) -o watch_pressure
 *     ./watch_pressure [CHANGES]
 */
#include <stdio.h>
#include <stdlib.h>

#include <cubudget/cubudget.h>

int main(int count, char **arguments)
{
    long changes = count > 1 ? strtol(arguments[1], NULL, 10) : -1;
    struct cubudget_watch *watch;
    enum cubudget_pressure level;
    enum cubudget_error error = cubudget_watch_open(NULL, &watch);
    if (error == CUBUDGET_OK)
        error = cubudget_watch_level(watch, &level);
    if (error != CUBUDGET_OK) {
        fprintf(stderr, "%s: %s\n", cubudget_error_sentence(error), cubudget_last_detail());
        return 1;
    }
    printf("now %s\n", cubudget_pressure_name(level));
    fflush(stdout);
    while (changes-- != 0) {
        struct cubudget_pressure_change change;
        if ((error = cubudget_pressure_wait(watch, -1, &change)) != CUBUDGET_OK)
            break;
        if (change.untold != 0)
            printf("(%llu changes before it)\n", (unsigned long long)change.untold);
        printf("%llu %s\n", (unsigned long long)change.generation, cubudget_pressure_name(change.level));
        fflush(stdout);
    }
    cubudget_watch_close(watch);
    return error == CUBUDGET_OK ? 0 : 1;
}
