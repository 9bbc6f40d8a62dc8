// SPDX-License-Identifier: Apache-2.0
#include "cuda/embedding_sort.h"
#include "reference.h"
#include "suite.h"

typedef struct embedding_case {
    sago_dtype dtype, d_table_dtype;
    int64_t tokens, width, vocabulary;
    float factor;
    const float *table, *d_y, *d_table;
    const int32_t *ids;
} embedding_case;

static void body(suite_run *run, const void *context) {
    const embedding_case *c = context;
    sago_device *d = run->device;
    sago_tensor y = suite_typed(run, c->dtype, NULL, DIMS(c->tokens, c->width)),
                ids = suite_i32(run, c->ids, DIMS(c->tokens));
    sago_tensor table = suite_typed(run, c->dtype, c->table, DIMS(c->vocabulary, c->width));
    sago_tensor d_y = suite_typed(run, c->dtype, c->d_y, DIMS(c->tokens, c->width));
    sago_tensor d_table = suite_typed(run, c->d_table_dtype, c->d_table, DIMS(c->vocabulary, c->width));
    suite_ok(d->ops->embedding_forward(d, y, table, ids, c->factor));
    suite_ok(d->ops->embedding_backward(d, d_table, d_y, ids, c->factor));
    suite_output(run, "embedding y", y);
    suite_output(run, "embedding d_table", d_table);
}

/* Frequent low ids, rare high ones, some padding; or one id for all but a few. */
static int32_t *make_ids(int64_t tokens, int64_t vocabulary, int32_t one_id) {
    int32_t *ids = malloc((size_t)(tokens + 1) * sizeof *ids);
    assert_non_null(ids);
    for (int64_t t = 0; t < tokens; t++) {
        uint64_t hash = sago_mix(7, (uint64_t)t);
        ids[t] = (int32_t)sago_below(sago_mix(8, hash), 1 + sago_below(hash, (uint64_t)vocabulary));
        if (one_id >= 0 && hash % 7 > 0) ids[t] = one_id;
        if (one_id < 0 && hash % 11 == 0) ids[t] = -1 - (int32_t)(hash % 3);
    }
    return ids;
}

static void check(sago_dtype dtype, sago_dtype d_table_dtype, int64_t tokens, int64_t width,
                  int64_t vocabulary, float factor, int32_t one_id) {
    int32_t *ids = make_ids(tokens, vocabulary, one_id);
    int64_t n = tokens * width, entries = vocabulary * width;
    float *table = suite_normal(entries, 1), *d_y = suite_normal(n, 2), *d_table = suite_normal(entries, 3);
    suite_round(dtype, table, entries), suite_round(dtype, d_y, n),
        suite_round(d_table_dtype, d_table, entries);
    embedding_case c = {dtype, d_table_dtype, tokens, width, vocabulary, factor, table, d_y, d_table, ids};
    suite_result result;
    suite_run_op(body, &c, SUITE_SAME_BITS, &result);
    double *y = ref_array(n), *exact = ref_from(d_table, entries);
    float *plain_y = plain_array(n), *plain = plain_from(d_table, entries);
    for (int64_t t = 0; t < tokens; t++)
        for (int64_t i = 0; i < width && ids[t] >= 0; i++) {
            y[t * width + i] = (double)table[ids[t] * width + i] * (double)factor;
            plain_y[t * width + i] = table[ids[t] * width + i] * factor;
            exact[ids[t] * width + i] += (double)d_y[t * width + i] * (double)factor;
            plain[ids[t] * width + i] += d_y[t * width + i] * factor;
        }
    suite_round(dtype, plain_y, n), suite_round(d_table_dtype, plain, entries);
    suite_close("embedding y", suite_floats(&result, "embedding y"), y, plain_y, n);
    suite_close("embedding d_table", suite_floats(&result, "embedding d_table"), exact, plain, entries);
    suite_free(&result);
    free(ids), free(table), free(d_y), free(d_table), free(y), free(exact), free(plain_y), free(plain);
}

static void check_all(sago_dtype dtype, sago_dtype d_table_dtype) {
    check(dtype, d_table_dtype, 1, 1, 1, 1.0f, -1);
    check(dtype, d_table_dtype, 37, 13, 11, 0.5f, -1);
    check(dtype, d_table_dtype, 512, 64, suite_is_sim() ? 700 : 5000, 22.627417f, -1);
    check(dtype, d_table_dtype, 300, 515, suite_is_sim() ? 300 : 4100, 1.0f, -1);
    check(dtype, d_table_dtype, 1000, 8, 3, 1.0f, 2);
    check(dtype, d_table_dtype, 1400, 8, 3, 1.0f, 2); /* an id of more windows than a warp has lanes */
    check(dtype, d_table_dtype, 1000, 24, 900, 1.0f, 450);
    check(dtype, d_table_dtype, 0, 8, 3, 1.0f, -1);
    check(dtype, d_table_dtype, 64, 4, 70000, 1.0f, -1);
    check(dtype, d_table_dtype, 65, 1096, 40, 1.0f, -1);
    check(dtype, d_table_dtype, 2500, 8, 300, 1.0f, -1); /* two tiles, of one block, */
    check(dtype, d_table_dtype, 4500, 8, 300, 1.0f, -1); /* and more than one block sorts */
}

static void test_values(void **state) {
    (void)state;
    check_all(SAGO_F32, SAGO_F32);
}

static void test_values_bf16(void **state) {
    (void)state;
    suite_skip_unless_bf16();
    check_all(SAGO_BF16, SAGO_F32);
}

static void test_values_bf16_table(void **state) {
    (void)state;
    suite_skip_unless_bf16();
    check_all(SAGO_BF16, SAGO_BF16);
}

static void errors_body(suite_run *run, const void *context) {
    (void)context;
    sago_device *d = run->device;
    float zeros[20] = {0};
    int32_t good[4] = {0, 1, 2, -1}, outside[4] = {0, 1, 2, 5};
    sago_tensor table = suite_f32(run, zeros, DIMS(5, 4)), y = suite_f32(run, zeros, DIMS(4, 4));
    sago_tensor short_y = suite_f32(run, zeros, DIMS(3, 4)), narrow = suite_f32(run, zeros, DIMS(4, 3));
    sago_tensor ids = suite_i32(run, good, DIMS(4)), wrong = suite_i32(run, outside, DIMS(4));
    suite_expect_shape_error(d->ops->embedding_forward(d, short_y, table, ids, 1), "embedding_forward");
    suite_expect_shape_error(d->ops->embedding_forward(d, narrow, table, ids, 1), "embedding_forward");
    suite_expect_shape_error(d->ops->embedding_forward(d, y, table, table, 1), "embedding_forward");
    suite_expect_shape_error(d->ops->embedding_backward(d, table, short_y, ids, 1), "embedding_backward");
    suite_expect_shape_error(d->ops->embedding_backward(d, table, narrow, ids, 1), "embedding_backward");
    if (d->asynchronous) return; /* the host does not see the ids: test_ids_outside */
    assert_int_equal(d->ops->embedding_forward(d, y, table, wrong, 1), SAGO_E_INPUT);
    assert_non_null(strstr(sago_message(), "id 5 of token 3"));
    assert_int_equal(d->ops->embedding_backward(d, table, y, wrong, 1), SAGO_E_INPUT);
}

/* A digit more for each eight bits of the largest id, which is the number of rows itself; never a fifth. */
static void test_sort_passes(void **state) {
    (void)state;
    static const struct {
        uint32_t rows;
        int passes;
    } cases[] = {{1, 1},        {0xff, 1},      {0x100, 2},      {0xffff, 2},    {0x10000, 3},
                 {0xffffff, 3}, {0x1000000, 4}, {0x7fffffff, 4}, {0xffffffff, 4}};
    for (int i = 0; i < LENGTH(cases); i++)
        assert_int_equal(sago_sort_passes(cases[i].rows), cases[i].passes);
}

static void test_errors(void **state) {
    (void)state;
    suite_run_once(errors_body, NULL);
}

/* An asynchronous device takes an id that is not in the table for none. */
static void outside_body(suite_run *run, const void *context) {
    sago_device *d = run->device;
    if (!d->asynchronous) skip();
    const float *values = context;
    sago_tensor ids = suite_i32(run, (int32_t[]){1, 5, INT32_MAX, -7, INT32_MIN, 4}, DIMS(6));
    sago_tensor table = suite_f32(run, values, DIMS(5, 4)), y = suite_f32(run, NULL, DIMS(6, 4));
    sago_tensor d_table = suite_f32(run, values, DIMS(5, 4)), d_y = suite_f32(run, values, DIMS(6, 4));
    suite_ok(d->ops->embedding_forward(d, y, table, ids, 2));
    suite_ok(d->ops->embedding_backward(d, d_table, d_y, ids, 2));
    suite_output(run, "y", y);
    suite_output(run, "d_table", d_table);
}

static void test_ids_outside(void **state) {
    (void)state;
    float values[24];
    for (int i = 0; i < 24; i++) values[i] = (float)(i + 1);
    suite_result result;
    suite_run_op(outside_body, values, SUITE_SAME_BITS, &result);
    for (int t = 0; t < 6; t++)
        for (int i = 0; i < 4; i++) {
            float y = t == 0 ? 2 * values[4 + i] : t == 5 ? 2 * values[16 + i] : 0;
            assert_true(suite_floats(&result, "y")[4 * t + i] == y);
        }
    for (int r = 0; r < 5; r++)
        for (int i = 0; i < 4; i++) {
            float added = r == 1 ? 2 * values[i] : r == 4 ? 2 * values[20 + i] : 0;
            assert_true(suite_floats(&result, "d_table")[4 * r + i] == values[4 * r + i] + added);
        }
    suite_free(&result);
}

static const struct CMUnitTest tests[] = {cmocka_unit_test(test_values),
                                          cmocka_unit_test(test_values_bf16),
                                          cmocka_unit_test(test_values_bf16_table),
                                          cmocka_unit_test(test_ids_outside),
                                          cmocka_unit_test(test_errors),
                                          cmocka_unit_test(test_sort_passes)};
SUITE_MAIN(tests)
