// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "reduce.h"

#include <stdio.h>
#include <string.h>

/* --- sums that only note what they were asked for --- */

struct sago_collective {
    int number;
};

static struct {
    float *buffer;
    int64_t count;
} started[64];
static struct sago_collective handles[64];
static int n_started, n_waited, fail_at;

sago_status sago_all_reduce_start(sago_mesh *mesh, sago_mesh_axis axis, float *buffer, int64_t count,
                                  sago_collective **out) {
    (void)mesh;
    assert_int_equal(axis, SAGO_DATA_AXIS);
    if (n_started == fail_at) return sago_fail(SAGO_E_IO, "the sum that fails");
    started[n_started].buffer = buffer;
    started[n_started].count = count;
    handles[n_started].number = n_started;
    *out = &handles[n_started++];
    return SAGO_OK;
}

sago_status sago_collective_wait(sago_mesh *mesh, sago_collective *reduction) {
    (void)mesh;
    assert_int_equal(reduction->number, n_waited); /* each once, in the order of their start */
    n_waited++;
    return SAGO_OK;
}

/* --- a registry of blocks of these sizes --- */

static const int64_t rows[] = {40, 3, 17, 17, 1, 60, 5};
enum { BLOCKS = sizeof rows / sizeof *rows };

static sago_registry registry;
static sago_mesh mesh = {.size = 2, .axis_size = {[SAGO_DATA_AXIS] = 2, [SAGO_MODEL_AXIS] = 1}};
static float gradients[BLOCKS * 1024];

static int setup(void **state) {
    (void)state;
    registry = (sago_registry){0};
    n_started = n_waited = 0;
    fail_at = -1;
    for (int b = 0; b < BLOCKS; b++) {
        char name[16];
        snprintf(name, sizeof name, "block.%d", b);
        const int64_t shape[] = {rows[b], 10};
        const sago_axis axes[] = {SAGO_AXIS_MLP, SAGO_AXIS_EMBED};
        if (sago_registry_declare(&registry, b, name, 2, shape, axes, SAGO_INIT_ZERO, 0) < 0) return -1;
    }
    return sago_registry_shard(&registry, NULL, 0, 0, 1) == SAGO_OK ? 0 : -1;
}

static int teardown(void **state) {
    (void)state;
    sago_registry_free(&registry);
    return 0;
}

static sago_reducer *open_over(int64_t bucket_bytes) {
    sago_reducer *r;
    assert_int_equal(sago_reducer_open(&registry, &mesh, bucket_bytes, &r), SAGO_OK);
    n_started = n_waited = 0;
    sago_reducer_begin(r, gradients);
    return r;
}

/* What was started, from the last element of the buffer to the first, without gap or overlap. */
static void assert_backwards_and_whole(int64_t bucket_bytes) {
    int64_t end = registry.n_elements;
    for (int i = 0; i < n_started; i++) {
        int64_t first = started[i].buffer - gradients;
        assert_int_equal(first + started[i].count, end);
        if (i + 1 < n_started) assert_true(started[i].count * (int64_t)sizeof(float) >= bucket_bytes);
        end = first;
    }
    assert_int_equal(end, 0);
    assert_int_equal(n_waited, n_started);
}

static void test_buckets_start_as_their_blocks_end(void **state) {
    (void)state;
    for (int64_t bytes = 1; bytes <= 1 << 14; bytes *= 4) {
        sago_reducer *r = open_over(bytes);
        for (int step = 0; step < 2; step++) {
            n_started = n_waited = 0;
            sago_reducer_begin(r, gradients);
            for (int b = BLOCKS - 1; b >= 0; b--) {
                int64_t first, end;
                assert_int_equal(sago_reducer_block_done(r, b), SAGO_OK);
                sago_registry_block_range(&registry, b, &first, &end);
                /* Nothing of a block that backward still works on. */
                if (n_started) assert_true(started[n_started - 1].buffer - gradients >= first);
                if (bytes == 1) assert_int_equal(n_started, BLOCKS - b); /* a bucket a block */
            }
            assert_int_equal(sago_reducer_finish(r), SAGO_OK);
            assert_backwards_and_whole(bytes);
        }
        sago_reducer_close(r);
    }
}

/* Blocks that end in any order, or none at all (a rank without rows): every rank submits the same sums. */
static void test_every_rank_submits_the_same(void **state) {
    (void)state;
    const int order[] = {3, 0, 6, 5, 1, 2, 4};
    sago_reducer *r = open_over(500);
    assert_int_equal(sago_reducer_finish(r), SAGO_OK);
    assert_backwards_and_whole(500);
    int wanted = n_started;
    int64_t counts[BLOCKS];
    assert_true(wanted > 1 && wanted < BLOCKS);
    for (int i = 0; i < wanted; i++) counts[i] = started[i].count;
    n_started = n_waited = 0;
    sago_reducer_begin(r, gradients);
    for (int i = 0; i < BLOCKS; i++) {
        assert_int_equal(sago_reducer_block_done(r, order[i]), SAGO_OK);
        if (i < 2) assert_int_equal(n_started, 0);
    }
    assert_int_equal(n_started, wanted);
    assert_int_equal(sago_reducer_finish(r), SAGO_OK);
    for (int i = 0; i < wanted; i++) assert_int_equal(started[i].count, counts[i]);
    sago_reducer_close(r);
}

/* The buffer may go once the reducer is closed, so nothing may be left in flight; the first error is the one
 * told. */
static void test_a_failure_leaves_nothing_in_flight(void **state) {
    (void)state;
    sago_reducer *r = open_over(1);
    fail_at = 2;
    assert_int_equal(sago_reducer_finish(r), SAGO_E_IO);
    sago_reducer_close(r);
    assert_int_equal(n_started, 2);
    assert_int_equal(n_waited, 2);
    assert_string_equal(sago_message(), "the sum that fails");
}

static void test_one_rank_sums_nothing(void **state) {
    (void)state;
    mesh.axis_size[SAGO_DATA_AXIS] = 1;
    sago_reducer *r = open_over(1);
    for (int b = BLOCKS - 1; b >= 0; b--) assert_int_equal(sago_reducer_block_done(r, b), SAGO_OK);
    assert_int_equal(sago_reducer_finish(r), SAGO_OK);
    assert_int_equal(n_started, 0);
    sago_reducer_close(r);
    mesh.axis_size[SAGO_DATA_AXIS] = 2;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_buckets_start_as_their_blocks_end, setup, teardown),
        cmocka_unit_test_setup_teardown(test_every_rank_submits_the_same, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_failure_leaves_nothing_in_flight, setup, teardown),
        cmocka_unit_test_setup_teardown(test_one_rank_sums_nothing, setup, teardown)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
