/*
 * Ends or stops the process at a named point, for the crash tests; built into the tests' own copies alone.
 * Called through TESTPOINT() by src/platform and src/ledger. The count of passings is atomic: threads may race for it.
 */
#include "config.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include "platform/testpoint.h"

#ifndef CUBUDGET_TESTPOINTS
#error "testpoint.c belongs to the copies built with -DCUBUDGET_TESTPOINTS"
#endif

static _Atomic(unsigned long) passings;

void testpoint_pass(const char *name)
{
    const char *wish = getenv("CUBUDGET_TESTPOINT");
    size_t length = strlen(name);
    if (wish == NULL || strncmp(wish, name, length) != 0 || wish[length] != ':')
        return;
    const char *action = wish + length + 1;
    const char *at = strchr(action, '@');
    unsigned long nth = at != NULL ? strtoul(at + 1, NULL, 10) : 1;
    if (atomic_fetch_add(&passings, 1) + 1 != nth)
        return;
    size_t action_length = at != NULL ? (size_t)(at - action) : strlen(action);
    if (action_length == 4 && memcmp(action, "kill", 4) == 0)
        (void)raise(SIGKILL);
    else if (action_length == 4 && memcmp(action, "stop", 4) == 0)
        (void)raise(SIGSTOP);
    else
        abort(); /* a test that asks for something unknown must not pass */
}
