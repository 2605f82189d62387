/* Memory that crosses between processes and interfaces: charged once, to who made it, and never to who imports it. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "integration/vmm_failures.h"

static void vmm_start(struct stage *stage, struct client *client, const char *slot)
{
    client_start(stage, client, &(struct client_terms){.slot = slot, .program = "vmm_client"});
}

/* A client with a context, whose handle 0 has that much memory, exported as its descriptor 0. */
static void exporter_start(struct stage *stage, struct client *client, uint64_t bytes)
{
    vmm_start(stage, client, "a");
    client_expect(client, "ok", "init 0");
    client_expect(client, "ok", "create 0 0 %llu", (unsigned long long)bytes);
    client_expect(client, "ok", "export 0 0");
}

/* The same, and another with a context, whose descriptor 0 is a copy of the first one's, of 6 MiB. */
static void pair_start(struct stage *stage, struct client *exporter, struct client *importer)
{
    unsigned number;
    exporter_start(stage, exporter, 6 * MIB);
    vmm_start(stage, importer, "b");
    client_expect(importer, "ok", "init 0");
    assert_int_equal(sscanf(client_ask(exporter, "number 0"), "ok %u", &number), 1);
    client_expect(importer, "ok", "fetch 0 %d %u", (int)exporter->pid, number);
}

/* An import of the process's own memory has a handle of its own; the memory stays until both, and the descriptor, are gone. */
static void own_memory_comes_back(void **state)
{
    struct stage *stage = *state;
    struct client a;
    exporter_start(stage, &a, 6 * MIB);
    client_expect(&a, "ok", "import 1 0");
    books_are(stage, 0, CONTEXT_BYTES + 6 * MIB);
    client_expect(&a, "ok", "close 0");
    client_expect(&a, "ok", "release 0");
    books_are(stage, 0, CONTEXT_BYTES + 6 * MIB);
    client_expect(&a, "ok", "map 1 0 %llu", 6 * MIB);
    client_expect(&a, "ok", "release 1");
    books_are(stage, 0, CONTEXT_BYTES + 6 * MIB);
    client_expect(&a, "ok", "unmap 0 %llu", 6 * MIB);
    client_expect(&a, "ok", "settle");
    books_are(stage, 0, CONTEXT_BYTES);
    client_end(&a, 0);
}

/* An open descriptor alone keeps exported memory: no way to have more than the budget. */
static void descriptor_keeps_memory(void **state)
{
    struct stage *stage = *state;
    struct client a;
    exporter_start(stage, &a, 5 * GIB);
    client_expect(&a, "ok", "release 0");
    books_are(stage, 0, CONTEXT_BYTES + 5 * GIB);
    client_expect(&a, "error 2", "create 1 0 %llu", 5 * GIB);
    client_expect(&a, "ok", "close 0");
    client_expect(&a, "ok", "create 1 0 %llu", 5 * GIB);
    client_expect(&a, "ok", "release 1");
    client_expect(&a, "ok", "settle");
    books_are(stage, 0, CONTEXT_BYTES);
    assert_true(peak_of(stage, 0) <= 8 * GIB);
    client_end(&a, 0);
}

/* The same in a process that never had a context and asks for nothing more: seen by the thread that its first memory started. */
static void closed_descriptor_is_noticed(void **state)
{
    struct stage *stage = *state;
    struct client a;
    vmm_start(stage, &a, "a");
    client_expect(&a, "ok", "start");
    client_expect(&a, "ok", "create 0 0 %llu", 6 * MIB);
    client_expect(&a, "ok", "export 0 0");
    client_expect(&a, "ok", "release 0");
    books_are(stage, 0, 6 * MIB);
    client_expect(&a, "ok", "close 0");
    books_await(stage, 0, 0);
    client_end(&a, 0);
}

static void another_process_is_not_charged(void **state)
{
    struct stage *stage = *state;
    struct client a, b;
    pair_start(stage, &a, &b);
    client_expect(&a, "ok", "close 0");
    client_expect(&b, "ok", "import 0 0");
    client_expect(&b, "ok", "close 0");
    client_expect(&b, "ok", "map 0 0 %llu", 6 * MIB);
    books_are(stage, 0, 2 * CONTEXT_BYTES + 6 * MIB);
    client_expect(&b, "ok", "release 0");
    client_expect(&b, "ok", "unmap 0 %llu", 6 * MIB);
    books_are(stage, 0, 2 * CONTEXT_BYTES + 6 * MIB);
    client_expect(&a, "ok", "release 0");
    client_expect(&a, "ok", "settle");
    books_are(stage, 0, 2 * CONTEXT_BYTES);
    client_end(&a, 0);
    client_end(&b, 0);
}

/* External memory takes the descriptor; its buffers are freed by cuMemFree and outlive it. */
static void external_memory_of_our_own(void **state)
{
    struct stage *stage = *state;
    struct client a;
    exporter_start(stage, &a, 6 * MIB);
    client_expect(&a, "ok", "external 0 %llu", 6 * MIB);
    client_expect(&a, "ok", "release 0");
    books_are(stage, 0, CONTEXT_BYTES + 6 * MIB);
    client_expect(&a, "ok", "buffer 0 %llu", 6 * MIB);
    client_expect(&a, "ok", "write 0 9 %llu", 6 * MIB);
    client_expect(&a, "ok", "unexternal");
    books_are(stage, 0, CONTEXT_BYTES + 6 * MIB);
    client_expect(&a, "ok", "free 0");
    client_expect(&a, "ok", "settle");
    books_are(stage, 0, CONTEXT_BYTES);
    client_end(&a, 0);
}

/* A buffer of another's memory: its free credits nothing, and what is allocated at its address later is charged as ever. */
static void external_memory_of_another(void **state)
{
    struct stage *stage = *state;
    struct client a, b;
    pair_start(stage, &a, &b);
    client_expect(&b, "ok", "external 0 %llu", 6 * MIB);
    client_expect(&b, "ok", "buffer 0 %llu", 6 * MIB);
    client_expect(&b, "ok", "alloc 1 %llu", 4 * MIB);
    books_are(stage, 0, 2 * CONTEXT_BYTES + 10 * MIB);
    client_expect(&b, "ok", "free 0");
    client_expect(&b, "ok", "alloc 2 %llu", 6 * MIB);
    books_are(stage, 0, 2 * CONTEXT_BYTES + 16 * MIB);
    client_expect(&b, "ok", "free 1");
    client_expect(&b, "ok", "free 2");
    client_expect(&b, "ok", "unexternal");
    books_are(stage, 0, 2 * CONTEXT_BYTES + 6 * MIB);
    client_end(&a, 0);
    client_end(&b, 0);
}

static void ipc_is_charged_once(void **state)
{
    struct stage *stage = *state;
    struct client a, b;
    char handle[129];
    vmm_start(stage, &a, "a");
    vmm_start(stage, &b, "b");
    client_expect(&a, "ok", "init 0");
    client_expect(&b, "ok", "init 0");
    client_expect(&a, "ok", "alloc 0 %llu", 6 * MIB);
    client_expect(&a, "ok", "write 0 77 4096");
    assert_int_equal(sscanf(client_ask(&a, "ipcget 0"), "ok %128s", handle), 1);
    const char *answer = client_ask(&b, "ipcopen 0 %s", handle);
    if (strcmp(answer, "error 801") == 0) { /* a simulator that cannot do it says so */
        client_end(&a, 0);
        client_end(&b, 0);
        skip();
    }
    assert_string_equal(answer, "ok");
    client_expect(&b, "ok", "read 0 77 4096");
    books_are(stage, 0, 2 * CONTEXT_BYTES + 6 * MIB);
    client_expect(&b, "ok", "ipcclose 0");
    books_are(stage, 0, 2 * CONTEXT_BYTES + 6 * MIB);
    client_expect(&a, "ok", "free 0");
    books_are(stage, 0, 2 * CONTEXT_BYTES);
    client_end(&a, 0);
    client_end(&b, 0);
}

/* Each wrapped call fails once, before it did anything and after; the books stay the machine's, and all goes on. */
static void failures_leave_the_books_alone(void **state)
{
    static const char *const calls[] = {
        "cuMemExportToShareableHandle", "cuMemImportFromShareableHandle",  "cuImportExternalMemory",
        "cuDestroyExternalMemory",      "cuExternalMemoryGetMappedBuffer",
    };
    static const char *const steps[] = {
        "create 0 0 6291456", "export 0 0", "import 1 0", "export 0 1", "external 1 6291456", "release 0", "release 1",
        "buffer 0 6291456",   "close 0",    "unexternal", "free 0",
    };
    (void)state;
    for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++)
        failures_of(calls[i], steps, sizeof(steps) / sizeof(steps[0]));
}

/* Handles, mappings, imports and descriptors in any order, from several threads: never more than the budget, nothing left. */
static void random_work_leaves_nothing(void **state)
{
    struct stage *stage = *state;
    struct client a;
    client_start(
        stage, &a,
        &(struct client_terms){.slot = "a", .budget = "1GiB", .simulate = "devices=2", .program = "vmm_client"});
    client_expect(&a, "ok", "init 0"); /* with a context there is a thread that looks */
    for (unsigned round = 0; round < 4; round++) {
        unsigned long long granted = 0, refused = 0;
        const char *answer = client_ask(&a, "random 4 1500 %u %llu 1", 60 + round, 64 * MIB);
        assert_int_equal(sscanf(answer, "ok %llu %llu", &granted, &refused), 2);
        assert_true(granted > 0 && refused > 0);
        client_expect(&a, "ok", "settle");
        books_await(stage, 0, CONTEXT_BYTES);
        books_await(stage, 1, 0);
    }
    assert_true(peak_of(stage, 0) <= GIB && peak_of(stage, 1) <= GIB);
    client_end(&a, 0);
    stage_await_empty(stage);
}

int main(void)
{
#define STAGED(test) cmocka_unit_test_setup_teardown(test, stage_setup, stage_teardown)
    static const struct CMUnitTest tests[] = {
        STAGED(own_memory_comes_back),
        STAGED(descriptor_keeps_memory),
        STAGED(closed_descriptor_is_noticed),
        STAGED(another_process_is_not_charged),
        STAGED(external_memory_of_our_own),
        STAGED(external_memory_of_another),
        STAGED(ipc_is_charged_once),
        STAGED(random_work_leaves_nothing),
        cmocka_unit_test(failures_leave_the_books_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
