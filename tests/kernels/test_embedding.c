// SPDX-License-Identifier: Apache-2.0
#include "reference.h"
#include "suite.h"

typedef struct embedding_case {
    int64_t tokens, width, vocabulary;
    float factor;
    const float *table, *d_y, *d_table;
    const int32_t *ids;
} embedding_case;

static void body(suite_run *run, const void *context) {
    const embedding_case *c = context;
    sago_device *d = run->device;
    sago_tensor y = suite_f32(run, NULL, DIMS(c->tokens, c->width)),
                ids = suite_i32(run, c->ids, DIMS(c->tokens));
    sago_tensor table = suite_f32(run, c->table, DIMS(c->vocabulary, c->width));
    sago_tensor d_y = suite_f32(run, c->d_y, DIMS(c->tokens, c->width));
    sago_tensor d_table = suite_f32(run, c->d_table, DIMS(c->vocabulary, c->width));
    suite_ok(d->ops->embedding_forward(d, y, table, ids, c->factor));
    suite_ok(d->ops->embedding_backward(d, d_table, d_y, ids, c->factor));
    suite_output(run, "embedding y", y);
    suite_output(run, "embedding d_table", d_table);
}

static void check(int64_t tokens, int64_t width, int64_t vocabulary, float factor, int32_t one_id) {
    int32_t *ids = malloc((size_t)(tokens + 1) * sizeof *ids);
    for (int64_t t = 0; t < tokens; t++) {
        /* Frequent low ids, rare high ones, some padding; or one id for all. */
        uint64_t hash = sago_mix(7, (uint64_t)t);
        ids[t] = one_id >= 0
                     ? one_id
                     : (int32_t)sago_below(sago_mix(8, hash), 1 + sago_below(hash, (uint64_t)vocabulary));
        if (one_id < 0 && hash % 11 == 0) ids[t] = -1 - (int32_t)(hash % 3);
    }
    float *table = suite_normal(vocabulary * width, 1), *d_y = suite_normal(tokens * width, 2);
    float *d_table = suite_normal(vocabulary * width, 3);
    embedding_case c = {tokens, width, vocabulary, factor, table, d_y, d_table, ids};
    suite_result result;
    suite_run_op(body, &c, SUITE_SAME_BITS, &result);
    double *y = ref_array(tokens * width), *exact = ref_from(d_table, vocabulary * width);
    float *plain_y = plain_array(tokens * width), *plain = plain_from(d_table, vocabulary * width);
    for (int64_t t = 0; t < tokens; t++)
        for (int64_t i = 0; i < width && ids[t] >= 0; i++) {
            y[t * width + i] = (double)table[ids[t] * width + i] * (double)factor;
            plain_y[t * width + i] = table[ids[t] * width + i] * factor;
            exact[ids[t] * width + i] += (double)d_y[t * width + i] * (double)factor;
            plain[ids[t] * width + i] += d_y[t * width + i] * factor;
        }
    suite_close("embedding y", suite_floats(&result, "embedding y"), y, plain_y, tokens * width);
    suite_close("embedding d_table", suite_floats(&result, "embedding d_table"), exact, plain,
                vocabulary * width);
    suite_free(&result);
    free(ids), free(table), free(d_y), free(d_table), free(y), free(exact), free(plain_y), free(plain);
}

static void test_values(void **state) {
    (void)state;
    check(1, 1, 1, 1.0f, -1);
    check(37, 13, 11, 0.5f, -1);
    check(512, 64, 5000, 22.627417f, -1);
    check(300, 515, 4100, 1.0f, -1);
    check(1000, 8, 3, 1.0f, 2);
    check(0, 8, 3, 1.0f, -1);
    check(64, 4, 70000, 1.0f, -1);
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
    assert_int_equal(d->ops->embedding_forward(d, y, table, wrong, 1), SAGO_E_INPUT);
    assert_non_null(strstr(sago_message(), "id 5 of token 3"));
    assert_int_equal(d->ops->embedding_backward(d, table, y, wrong, 1), SAGO_E_INPUT);
}

static void test_errors(void **state) {
    (void)state;
    suite_run_once(errors_body, NULL);
}

static const struct CMUnitTest tests[] = {cmocka_unit_test(test_values), cmocka_unit_test(test_errors)};
SUITE_MAIN(tests)
