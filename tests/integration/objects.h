/* A client with the commands of object_client.c, and what it holds. Used by test_arrays.c and test_modules.c. */
#ifndef TESTS_OBJECTS_H
#define TESTS_OBJECTS_H

#include "integration/books_agree.h"

/* With its primary context current. */
static inline void objects_start(struct stage *stage, struct client *client, const char *budget, const char *simulate)
{
    client_start(
        stage, client,
        &(struct client_terms){.slot = "a", .budget = budget, .simulate = simulate, .program = "object_client"});
    client_expect(client, "ok", "init");
}

/* Beside its context. */
static inline uint64_t held(struct stage *stage)
{
    return stage_used(stage) - CONTEXT_BYTES;
}

#endif
