/*
 * Two models in one process, each with a slot of its own: what each takes is charged to it, and `cubudget dump` shows two rows.
 *
 *     cc two_models.c $(pkg-config --cflags --libs cubudget) -o two_models
 *     ./two_models [--simulate DIRECTORY]
 *
 * Holds the memory until its standard input ends.
 */
#include <stdio.h>
#include <string.h>

#include <cubudget/cubudget.h>

#define MIB (1024ULL * 1024)

static int fail(const char *what, enum cubudget_error error)
{
    fprintf(stderr, "%s: %s: %s\n", what, cubudget_error_sentence(error), cubudget_last_detail());
    return 1;
}

/* "Loads" a model of that many bytes into its slot. */
static enum cubudget_error model_load(struct cubudget_pool pool, const char *name, size_t bytes,
                                      struct cubudget_buffer *weights)
{
    enum cubudget_error error = cubudget_slot_push(name);
    if (error != CUBUDGET_OK)
        return error;
    error = cubudget_pool_alloc(pool, bytes, weights);
    (void)cubudget_slot_pop();
    return error;
}

static void rows_print(void)
{
    struct cubudget_snapshot *snapshot;
    const struct cubudget_process_entry *row;
    if (cubudget_snapshot_take(&snapshot) != CUBUDGET_OK)
        return;
    for (unsigned i = 0; (row = cubudget_snapshot_process(snapshot, i)) != NULL; i++)
        printf("%s %llu MiB\n", cubudget_snapshot_slot(snapshot, row->slot)->name,
               (unsigned long long)(row->used_bytes / MIB));
    cubudget_snapshot_free(snapshot);
    fflush(stdout);
}

int main(int count, char **arguments)
{
    struct cubudget_device device;
    enum cubudget_error error = CUBUDGET_OK;
    CUBUDGET_SCOPED_POOL(pool);
    CUBUDGET_SCOPED_BUFFER(encoder); /* freed before the pool is closed */
    CUBUDGET_SCOPED_BUFFER(reranker);

    if (count == 3 && strcmp(arguments[1], "--simulate") == 0)
        error = cubudget_simulate("memory=16GiB", arguments[2]);
    if (error == CUBUDGET_OK)
        error = cubudget_available();
    if (error != CUBUDGET_OK)
        return fail("no GPU", error);
    if ((error = cubudget_device_open(0, NULL, &device)) != CUBUDGET_OK)
        return fail("device 0", error);
    if ((error = cubudget_pool_create(device, CUBUDGET_NO_LIMIT, &pool)) != CUBUDGET_OK)
        return fail("pool", error);
    if ((error = model_load(pool, "encoder", 1024 * MIB, &encoder)) != CUBUDGET_OK)
        return fail("encoder", error);
    if ((error = model_load(pool, "reranker", 512 * MIB, &reranker)) != CUBUDGET_OK)
        return fail("reranker", error);
    rows_print();
    while (getchar() != EOF) {
    }
    return 0;
}
