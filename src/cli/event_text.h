/*
 * An event as a line for people or as one JSON object. Used by watch.
 */
#ifndef CLI_EVENT_TEXT_H
#define CLI_EVENT_TEXT_H

#include <stdbool.h>
#include "ledger/events.h"

#define EVENT_BYTES_UNKNOWN UINT64_MAX

/* Prints the event, and a line's end, on standard output; names are looked up in the ledger. An event with number 0 is not in the ring.
 * False: no memory. */
bool event_print(const struct ledger *ledger, const struct ledger_event_record *event, bool json);

#endif
