// SPDX-License-Identifier: Apache-2.0
#include "reference.h"
#include "suite.h"

static const int64_t counts[] = {0, 1, 3, 17, 1000, 16384, 40001};

typedef struct count_case {
    int64_t n;
    const float *x, *y;
} count_case;

static void body(suite_run *run, const void *context) {
    const count_case *c = context;
    sago_device *d = run->device;
    sago_tensor filled = suite_f32(run, NULL, DIMS(c->n)), copied = suite_f32(run, NULL, DIMS(c->n));
    sago_tensor sum = suite_f32(run, c->y, DIMS(c->n)), scaled = suite_f32(run, c->x, DIMS(c->n));
    sago_tensor x = suite_f32(run, c->x, DIMS(c->n));
    suite_ok(d->ops->fill(d, filled, -2.5f));
    suite_ok(d->ops->copy(d, copied, x));
    suite_ok(d->ops->add_scaled(d, sum, x, 0.3f));
    suite_ok(d->ops->scale(d, scaled, -1.7f));
    suite_output(run, "filled", filled);
    suite_output(run, "copied", copied);
    suite_output(run, "sum", sum);
    suite_output(run, "scaled", scaled);
}

static void test_values(void **state) {
    (void)state;
    for (int s = 0; s < LENGTH(counts); s++) {
        int64_t n = counts[s];
        float *x = suite_normal(n, 1), *y = suite_normal(n, 2), *plain = plain_array(n);
        double *exact = ref_array(n);
        count_case c = {n, x, y};
        suite_result result;
        suite_run_op(body, &c, SUITE_SAME_BITS, &result);
        for (int64_t i = 0; i < n; i++) {
            assert_true(suite_floats(&result, "filled")[i] == -2.5f);
            exact[i] = (double)y[i] + (double)0.3f * (double)x[i], plain[i] = y[i] + 0.3f * x[i];
        }
        assert_memory_equal(suite_floats(&result, "copied"), x, (size_t)n * sizeof(float));
        suite_close("add_scaled", suite_floats(&result, "sum"), exact, plain, n);
        for (int64_t i = 0; i < n; i++) exact[i] = (double)-1.7f * (double)x[i], plain[i] = -1.7f * x[i];
        suite_close("scale", suite_floats(&result, "scaled"), exact, plain, n);
        suite_free(&result);
        free(x), free(y), free(plain), free(exact);
    }
}

typedef struct cast_case {
    int64_t n;
    const float *x;
    const uint16_t *b;
} cast_case;

static void cast_body(suite_run *run, const void *context) {
    const cast_case *c = context;
    sago_device *d = run->device;
    /* Outputs in pairs of halves are compared as words: the count is even. */
    sago_tensor narrow = suite_bf16(run, NULL, DIMS(c->n)), wide = suite_f32(run, NULL, DIMS(c->n));
    sago_tensor x = suite_f32(run, c->x, DIMS(c->n)), b = suite_bf16(run, c->b, DIMS(c->n));
    suite_ok(d->ops->copy(d, narrow, x));
    suite_ok(d->ops->copy(d, wide, b));
    suite_output(run, "narrow", narrow);
    suite_output(run, "wide", wide);
}

/* Every bf16 value, and floats right at, below and above the middle between two of them. */
static void test_casts(void **state) {
    (void)state;
    enum { N = 65536 * 4 };
    float *x = plain_array(N);
    uint16_t *b = malloc(N * sizeof *b);
    for (uint32_t i = 0; i < N; i++) {
        static const uint32_t low[] = {0, 0x7FFF, 0x8000, 0x8001};
        uint32_t bits = (i / 4) << 16 | low[i % 4];
        memcpy(&x[i], &bits, sizeof bits);
        b[i] = (uint16_t)(i / 4);
    }
    cast_case c = {N, x, b};
    suite_result result;
    suite_run_op(cast_body, &c, SUITE_SAME_BITS, &result);
    const uint16_t *narrow = suite_bits(&result, "narrow");
    const uint32_t *wide = suite_bits(&result, "wide");
    for (uint32_t i = 0; i < N; i++) {
        uint32_t top = i / 4, expected = top + (i % 4 == 3 || (i % 4 == 2 && top & 1));
        assert_int_equal(wide[i], top << 16);
        if (isnan(x[i])) {
            assert_true((narrow[i] & 0x7F80) == 0x7F80 && narrow[i] & 0x7F);
        } else {
            assert_int_equal(narrow[i], expected);
        }
    }
    suite_free(&result);
    free(x), free(b);
}

static void squares_body(suite_run *run, const void *context) {
    const count_case *c = context;
    sago_device *d = run->device;
    sago_tensor in[LENGTH(counts)];
    for (int s = 0; s < LENGTH(counts); s++) in[s] = suite_f32(run, c->x, DIMS(counts[s]));
    double sum, expected = 0;
    void *on_device;
    suite_ok(d->ops->allocate(d, &on_device, sizeof sum));
    suite_ok(d->ops->sum_squares(d, on_device, in, LENGTH(counts)));
    suite_ok(d->ops->download(d, &sum, on_device, sizeof sum));
    for (int s = 0; s < LENGTH(counts); s++)
        for (int64_t i = 0; i < counts[s]; i++) expected += (double)c->x[i] * (double)c->x[i];
    if (isfinite(expected))
        assert_true(fabs(sum - expected) <= 1e-12 * expected);
    else
        assert_true(!isfinite(sum));
    /* The sum travels as an output, so that its bits are compared over threads and runs. */
    float halves[2];
    memcpy(halves, &sum, sizeof sum);
    suite_output(run, "squares", suite_f32(run, isfinite(sum) ? halves : (float[]){0, 0}, DIMS(2)));
    suite_ok(d->ops->sum_squares(d, on_device, NULL, 0));
    suite_ok(d->ops->download(d, &sum, on_device, sizeof sum));
    assert_true(sum == 0);
    d->ops->release(d, on_device);
}

static void test_sum_squares(void **state) {
    (void)state;
    int64_t n = counts[LENGTH(counts) - 1];
    const float bad[] = {0.5f, 3e38f, NAN, INFINITY, -INFINITY};
    for (int k = 0; k < LENGTH(bad); k++) {
        float *x = suite_normal(n, 3);
        x[n - 1] = bad[k];
        count_case c = {n, x, x};
        suite_result result;
        suite_run_op(squares_body, &c, SUITE_SAME_BITS, &result);
        suite_free(&result);
        free(x);
    }
}

static void memory_body(suite_run *run, const void *context) {
    (void)context;
    sago_device *d = run->device;
    static const size_t sizes[] = {0, 1, 63, 4096, (size_t)3 << 20};
    for (int s = 0; s < LENGTH(sizes); s++)
        for (int again = 0; again < 2; again++) {
            void *memory;
            char *host = malloc(sizes[s] + 1);
            suite_ok(d->ops->allocate(d, &memory, sizes[s]));
            assert_true((uintptr_t)memory % 64 == 0);
            suite_ok(d->ops->download(d, host, memory, sizes[s]));
            for (size_t i = 0; i < sizes[s]; i++) assert_int_equal(host[i], 0);
            memset(host, 0x5A, sizes[s]);
            suite_ok(d->ops->upload(d, memory, host, sizes[s]));
            d->ops->release(d, memory);
            free(host);
        }
    void *memory = &memory;
    assert_int_equal(d->ops->allocate(d, &memory, SIZE_MAX - 4096), SAGO_E_MEMORY);
    assert_null(memory);
    d->ops->release(d, NULL);
}

static void test_memory(void **state) {
    (void)state;
    suite_run_once(memory_body, NULL);
}

static void shapes_body(suite_run *run, const void *context) {
    (void)context;
    sago_device *d = run->device;
    float zeros[8] = {0};
    int32_t ints[8] = {0};
    sago_tensor a = suite_f32(run, zeros, DIMS(8)), b = suite_f32(run, zeros, DIMS(7)),
                i = suite_i32(run, ints, DIMS(8));
    double sum;
    suite_expect_shape_error(d->ops->fill(d, i, 1), "fill");
    suite_expect_shape_error(d->ops->copy(d, a, b), "copy");
    suite_expect_shape_error(d->ops->copy(d, a, i), "copy");
    suite_expect_shape_error(d->ops->add_scaled(d, a, b, 1), "add_scaled");
    suite_expect_shape_error(d->ops->scale(d, i, 1), "scale");
    suite_expect_shape_error(d->ops->sum_squares(d, &sum, &i, 1), "sum_squares");
}

static void test_wrong_shapes(void **state) {
    (void)state;
    suite_run_once(shapes_body, NULL);
}

static const struct CMUnitTest tests[] = {cmocka_unit_test(test_values), cmocka_unit_test(test_casts),
                                          cmocka_unit_test(test_sum_squares), cmocka_unit_test(test_memory),
                                          cmocka_unit_test(test_wrong_shapes)};
SUITE_MAIN(tests)
