/* A vmm_client whose steps fail once. Used by test_vmm.c and test_imports.c. */
#ifndef TESTS_VMM_FAILURES_H
#define TESTS_VMM_FAILURES_H

#include <stdio.h>
#include <string.h>

#include "integration/books_agree.h"

/* Each step in turn while the simulator fails one call as it was ordered to; the step that fails is tried once more. After each,
 * the books are the machine's. */
static inline void failure_passes(const char *order, const char *const *steps, size_t count)
{
    struct stage stage;
    struct client a;
    unsigned failed = 0;
    stage_open(&stage);
    client_start(&stage, &a, &(struct client_terms){.slot = "a", .simulate = order, .program = "vmm_client"});
    client_expect(&a, "ok", "init 0");
    for (size_t step = 0; step < count; step++) {
        char answer[32];
        snprintf(answer, sizeof(answer), "%.31s", client_ask(&a, "%s", steps[step]));
        client_expect(&a, "ok", "settle");
        assert_int_equal(books_of(&stage, 0), machine_of(&stage, 0));
        if (strcmp(answer, "error 304") == 0) {
            failed++;
            step--; /* once more */
        } else
            assert_string_equal(answer, "ok");
    }
    assert_int_equal(failed, 1);
    assert_int_equal(books_of(&stage, 0), CONTEXT_BYTES);
    client_end(&a, 0);
    stage_await_empty(&stage);
    stage_close(&stage);
}

/* Once before the call did anything, and once after. */
static inline void failures_of(const char *call, const char *const *steps, size_t count)
{
    static const char *const kinds[] = {"fail", "fail-after"};
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        char order[128];
        snprintf(order, sizeof(order), "%s=%s:1:304", kinds[i], call);
        failure_passes(order, steps, count);
    }
}

#endif
