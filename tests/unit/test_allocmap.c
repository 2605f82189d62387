/* The table of pointers, against a plain list that is right by being simple. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "account/allocmap.h"

static struct allocation entry_of(uint64_t pointer, uint32_t owner)
{
    return (struct allocation){.pointer = pointer, .bytes = pointer ^ 5, .owner = owner};
}

static void insert(struct allocmap *map, uint64_t pointer, uint32_t owner)
{
    struct allocation entry = entry_of(pointer, owner), replaced;
    assert_int_equal(allocmap_insert(map, &entry, &replaced), 0);
}

static void empty_table_answers(void **state)
{
    (void)state;
    struct allocmap map = {0};
    struct allocation removed;
    size_t at = 0;
    assert_null(allocmap_find(&map, 512));
    assert_false(allocmap_remove(&map, 512, &removed));
    assert_false(allocmap_remove_of(&map, 1, &at, &removed));
}

static void same_pointer_replaces(void **state)
{
    (void)state;
    struct allocmap map = {0};
    struct allocation second = entry_of(512, 2), replaced;
    insert(&map, 512, 1);
    assert_int_equal(allocmap_insert(&map, &second, &replaced), 1);
    assert_int_equal(replaced.owner, 1);
    assert_int_equal(map.count, 1);
    assert_int_equal(allocmap_find(&map, 512)->owner, 2);
}

static uint64_t random_next(uint64_t *seed)
{
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    return *seed;
}

/* Few addresses in a small table, so that runs of neighbours are long and are broken and mended all the time. */
static void random_work_is_remembered(void **state)
{
    enum { ADDRESSES = 700, STEPS = 200000 };
    (void)state;
    static bool there[ADDRESSES];
    struct allocmap map = {0};
    uint64_t seed = 88172645463325252ULL;
    size_t count = 0;
    memset(there, 0, sizeof there);
    for (unsigned step = 0; step < STEPS; step++) {
        unsigned number = (unsigned)(random_next(&seed) % ADDRESSES);
        uint64_t pointer = (number % 2 ? 512ULL : 2ULL << 20) * (number + 1);
        struct allocation removed;
        if (there[number]) {
            assert_true(allocmap_remove(&map, pointer, &removed));
            assert_int_equal(removed.bytes, pointer ^ 5);
            count--;
        } else {
            assert_false(allocmap_remove(&map, pointer, &removed));
            insert(&map, pointer, number % 3 + 1);
            count++;
        }
        there[number] = !there[number];
        assert_int_equal(map.count, count);
    }
    for (unsigned number = 0; number < ADDRESSES; number++) {
        uint64_t pointer = (number % 2 ? 512ULL : 2ULL << 20) * (number + 1);
        assert_int_equal(allocmap_find(&map, pointer) != NULL, there[number]);
    }
}

static void growing_loses_nothing(void **state)
{
    enum { MANY = 100000 };
    (void)state;
    struct allocmap map = {0};
    for (uint64_t i = 1; i <= MANY; i++)
        insert(&map, i * 512, 1);
    assert_int_equal(map.count, MANY);
    assert_true(map.count <= map.capacity / 4 * 3);
    for (uint64_t i = 1; i <= MANY; i++)
        assert_int_equal(allocmap_find(&map, i * 512)->bytes, i * 512 ^ 5);
    assert_null(allocmap_find(&map, (MANY + 1) * 512ULL));
}

/* The end of an owner takes all of it, entries that wrap round the table's end too, and nothing else. */
static void owner_is_taken_whole(void **state)
{
    (void)state;
    for (unsigned count = 1; count < 760; count += 13) {
        struct allocmap map = {0};
        struct allocation removed;
        size_t at = 0, taken = 0, wanted = 0;
        for (unsigned i = 1; i <= count; i++) {
            insert(&map, i * (2ULL << 20), i % 3);
            wanted += i % 3 == 1;
        }
        while (allocmap_remove_of(&map, 1, &at, &removed)) {
            assert_int_equal(removed.owner, 1);
            taken++;
        }
        assert_int_equal(taken, wanted);
        assert_int_equal(map.count, count - wanted);
        for (unsigned i = 1; i <= count; i++)
            assert_int_equal(allocmap_find(&map, i * (2ULL << 20)) != NULL, i % 3 != 1);
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(empty_table_answers),       cmocka_unit_test(same_pointer_replaces),
        cmocka_unit_test(random_work_is_remembered), cmocka_unit_test(growing_loses_nothing),
        cmocka_unit_test(owner_is_taken_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
