/*
 * The gate: what every wrapper passes on its way to the driver. In this version it knows one thing, whether the thread is
 * inside a wrapper already, so that a driver which calls its own exported functions is not charged twice. One mark a
 * thread, no shared write.
 */
#ifndef INTERPOSE_GATE_H
#define INTERPOSE_GATE_H

#include <stdbool.h>

extern __thread bool gate_inside __attribute__((tls_model("initial-exec"), visibility("hidden")));

static inline bool gate_is_inside(void)
{
    return gate_inside;
}

/* False: the thread was inside already; pass the call on as it is, and do not leave. */
static inline bool gate_enter(void)
{
    if (gate_inside)
        return false;
    gate_inside = true;
    return true;
}

static inline void gate_leave(void)
{
    gate_inside = false;
}

#endif
