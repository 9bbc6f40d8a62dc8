// SPDX-License-Identifier: Apache-2.0
#include "mask_reference.h"
#include "reference.h"
#include "suite.h"

typedef struct drop_case {
    sago_dtype dtype;
    int64_t rows, tokens, width;
    const sago_dropout *dropout;
    const float *in, *residual;
    bool in_place;
} drop_case;

static void body(suite_run *run, const void *context) {
    const drop_case *c = context;
    sago_device *d = run->device;
    sago_tensor in = suite_typed(run, c->dtype, c->in, DIMS(c->rows, c->tokens, c->width));
    sago_tensor residual = suite_typed(run, c->dtype, c->residual, DIMS(c->rows, c->tokens, c->width));
    sago_tensor out = in, sum = residual;
    if (!c->in_place) {
        out = suite_typed(run, c->dtype, NULL, DIMS(c->rows, c->tokens, c->width));
        sum = suite_typed(run, c->dtype, NULL, DIMS(c->rows, c->tokens, c->width));
    }
    suite_ok(d->ops->residual(d, sum, residual, in, c->dropout));
    suite_ok(d->ops->dropout(d, out, in, c->dropout));
    suite_output(run, "dropout", out);
    suite_output(run, "residual", sum);
}

/* Rates, first rows and row lengths: rows that follow on each other and rows that don't, indices past 32
 * bits. */
static const sago_dropout dropouts[] = {
    {0.0f, 5, 0, 64}, {0.1f, 77, 0, 64}, {0.5f, 0xFFFFFFFFFFFFFFFFull, 3, 67}, {0.003f, 1, 1000000007, 301}};
/* The same as slices of rows of `more` wider tokens, from token 2 and column `from` on. */
static const struct { int64_t more, from; } slices[] = {{5, 3}, {8, 4}, {0, 0}};
static const int64_t shapes[][3] = {{1, 1, 1},    {2, 64, 8}, {3, 61, 7},  {1, 64, 512},
                                    {5, 3, 1031}, {2, 4, 6},  {3, 61, 12}, {2, 0, 8}};

static void check(sago_dtype dtype, const int64_t shape[3], const sago_dropout *dropout, bool in_place) {
    int64_t rows = shape[0], tokens = shape[1], width = shape[2], n = rows * tokens * width;
    float *in = suite_normal(n, 1), *residual = suite_normal(n, 2), *keep = plain_array(n);
    suite_round(dtype, in, n), suite_round(dtype, residual, n);
    drop_case c = {dtype, rows, tokens, width, dropout, in, residual, in_place};
    suite_result result;
    suite_run_op(body, &c, SUITE_SAME_BITS, &result);
    mask_fill(keep, dropout, rows, tokens, width);
    double *exact = ref_array(n), *exact_sum = ref_array(n);
    float *plain = plain_array(n), *plain_sum = plain_array(n);
    for (int64_t i = 0; i < n; i++) {
        exact[i] = keep[i] > 0 ? (double)in[i] / (1.0 - (double)dropout->rate) : 0.0;
        plain[i] = keep[i] > 0 ? in[i] / (1.0f - dropout->rate) : 0.0f;
        exact_sum[i] = (double)residual[i] + exact[i];
        plain_sum[i] = residual[i] + plain[i];
    }
    suite_round(dtype, plain, n), suite_round(dtype, plain_sum, n);
    const float *got = suite_floats(&result, "dropout");
    for (int64_t i = 0; i < n; i++) assert_int_equal(got[i] == 0.0f, keep[i] == 0.0f);
    suite_close("dropout", got, exact, plain, n);
    suite_close("residual", suite_floats(&result, "residual"), exact_sum, plain_sum, n);
    suite_free(&result);
    free(in), free(residual), free(keep), free(exact), free(exact_sum), free(plain), free(plain_sum);
}

static void check_shapes(sago_dtype dtype) {
    for (int s = 0; s < LENGTH(shapes); s++)
        for (int k = 0; k < LENGTH(dropouts); k++)
            for (int place = 0; place < 2; place++) check(dtype, shapes[s], &dropouts[k], place == 1);
    for (int s = 0; s < LENGTH(shapes); s++)
        for (int k = 2; k < LENGTH(dropouts); k++)
            for (int i = 0; i < LENGTH(slices); i++) {
                sago_dropout slice = dropouts[k];
                slice.pitch = shapes[s][2] + slices[i].more;
                slice.first = 2 * slice.pitch + slices[i].from;
                check(dtype, shapes[s], &slice, false);
            }
    /* More than a grid of sim takes at once, in rows that do not follow on each other. */
    check(dtype, (int64_t[]){3, 61, 1464}, &dropouts[1], false);
}

static void test_masks(void **state) {
    (void)state;
    check_shapes(SAGO_F32);
}

static void test_masks_bf16(void **state) {
    (void)state;
    suite_skip_unless_bf16();
    check_shapes(SAGO_BF16);
}

/* One batch of six rows, or micro-batches of 1, 2 and 3 rows of it: the same values. */
static void check_split(int64_t width) {
    enum { ROWS = 6, TOKENS = 5 };
    int64_t row = TOKENS * width;
    float *in = suite_normal(ROWS * row, 9);
    sago_dropout dropout = {0.3f, 1234, 10, 7};
    drop_case c = {SAGO_F32, ROWS, TOKENS, width, &dropout, in, in, false};
    suite_result whole;
    suite_run_op(body, &c, SUITE_SAME_BITS, &whole);
    const int64_t cuts[] = {0, 1, 3, 6};
    for (int i = 0; i < 3; i++) {
        sago_dropout part = dropout;
        part.first_row += cuts[i];
        const float *from = in + cuts[i] * row;
        drop_case p = {SAGO_F32, cuts[i + 1] - cuts[i], TOKENS, width, &part, from, from, false};
        suite_result result;
        suite_run_op(body, &p, SUITE_SAME_BITS, &result);
        assert_memory_equal(suite_floats(&result, "dropout"), suite_floats(&whole, "dropout") + cuts[i] * row,
                            (size_t)((cuts[i + 1] - cuts[i]) * row) * sizeof(float));
        suite_free(&result);
    }
    suite_free(&whole);
    free(in);
}

static void test_split_batches(void **state) {
    (void)state;
    check_split(37);
    check_split(36);
}

/* A share of kept elements within five standard deviations, of all and of each quarter of the words. */
static void test_rate(void **state) {
    (void)state;
    enum { ROWS = 8, TOKENS = 64, WIDTH = 256, N = ROWS * TOKENS * WIDTH };
    float *ones = plain_array(N);
    for (int i = 0; i < N; i++) ones[i] = 1;
    for (int k = 1; k < LENGTH(dropouts); k++) {
        sago_dropout dropout = dropouts[k];
        dropout.row_tokens = TOKENS;
        drop_case c = {SAGO_F32, ROWS, TOKENS, WIDTH, &dropout, ones, ones, false};
        suite_result result;
        suite_run_op(body, &c, SUITE_SAME_BITS, &result);
        const float *got = suite_floats(&result, "dropout");
        double rate = (double)dropout.rate;
        for (int quarter = 0; quarter < 4; quarter++) {
            double kept = 0, n = N / 4.0;
            for (int i = quarter; i < N; i += 4) kept += got[i] > 0;
            assert_true(fabs(kept / n - (1 - rate)) < 5 * sqrt(rate * (1 - rate) / n));
        }
        suite_free(&result);
    }
    free(ones);
}

/* What is dropped is 0 whatever it was; what is kept stays what it was. */
static void test_non_finite(void **state) {
    (void)state;
    enum { N = 64 * 8 };
    float in[N], zeros[N] = {0}, keep[N];
    for (int i = 0; i < N; i++) in[i] = i % 2 ? NAN : INFINITY;
    sago_dropout dropout = dropouts[2];
    drop_case c = {SAGO_F32, 1, 64, 8, &dropout, in, zeros, false};
    suite_result result;
    suite_run_op(body, &c, SUITE_SAME_BITS, &result);
    mask_fill(keep, &dropout, 1, 64, 8);
    const float *got = suite_floats(&result, "dropout"), *sum = suite_floats(&result, "residual");
    for (int i = 0; i < N; i++) {
        assert_int_equal(got[i] == 0.0f && sum[i] == 0.0f, keep[i] == 0.0f);
        assert_int_equal(isfinite(got[i]) || isfinite(sum[i]), keep[i] == 0.0f);
    }
    suite_free(&result);
}

static void shapes_body(suite_run *run, const void *context) {
    (void)context;
    sago_device *d = run->device;
    float zeros[24] = {0};
    sago_dropout dropout = {0.1f, 1, 0, 4};
    sago_tensor a = suite_f32(run, zeros, DIMS(2, 3, 4)), b = suite_f32(run, zeros, DIMS(2, 4, 3));
    sago_tensor flat = suite_f32(run, zeros, DIMS(6, 4)), long_row = suite_f32(run, zeros, DIMS(2, 5, 2));
    suite_expect_shape_error(d->ops->dropout(d, a, b, &dropout), "dropout");
    suite_expect_shape_error(d->ops->residual(d, a, b, a, &dropout), "residual");
    suite_expect_shape_error(d->ops->dropout(d, flat, flat, &dropout), "dropout");
    suite_expect_shape_error(d->ops->dropout(d, long_row, long_row, &dropout), "dropout");
    const sago_dropout outside[] = {{0.1f, 1, 0, 4, -1, 0}, {0.1f, 1, 0, 4, 8, 0}, {0.1f, 1, 0, 4, 1, 0},
                                    {0.1f, 1, 0, 4, 0, 3},  {0.1f, 1, 0, 4, 5, 8}, {0.1f, 1, 0, 4, 16, 8},
                                    {0.1f, 1, -1, 4, 0, 8}, {0.1f, 1, 0, 4, 0, -8}};
    for (int i = 0; i < LENGTH(outside); i++)
        suite_expect_shape_error(d->ops->dropout(d, a, a, &outside[i]), "dropout");
    const sago_dropout last = {0.1f, 1, 0, 4, 12, 8}; /* the last tokens and columns of [4, 8] */
    suite_ok(d->ops->dropout(d, a, a, &last));
    suite_output(run, "a", a);
    dropout.rate = 1.0f;
    assert_int_equal(d->ops->dropout(d, a, a, &dropout), SAGO_E_INTERNAL);
}

static void test_wrong_shapes(void **state) {
    (void)state;
    suite_run_once(shapes_body, NULL);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_masks), cmocka_unit_test(test_masks_bf16), cmocka_unit_test(test_split_batches),
    cmocka_unit_test(test_rate),  cmocka_unit_test(test_non_finite), cmocka_unit_test(test_wrong_shapes)};
SUITE_MAIN(tests)
