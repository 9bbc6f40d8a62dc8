// SPDX-License-Identifier: Apache-2.0
#include "reference.h"
#include "suite.h"

/* The largest is more than a grid of sim takes at once. */
static const int64_t counts[] = {0, 1, 3, 17, 1000, 16384, 40001, 270011};

typedef struct count_case {
    sago_dtype dtype;
    int64_t n;
    int64_t skip; /* elements that lie before the tensors: they begin at an address that vectors cannot */
    const float *x, *y;
} count_case;

/* A tensor without its first elements. */
static sago_tensor behind(sago_tensor t, int64_t skip) {
    t.data = (char *)t.data + (size_t)skip * sago_dtype_bytes(t.dtype);
    t.shape[0] -= skip;
    return t;
}

static void body(suite_run *run, const void *context) {
    const count_case *c = context;
    sago_device *d = run->device;
    int64_t n = c->n + c->skip;
    sago_tensor filled = suite_typed(run, c->dtype, c->y, DIMS(n)),
                copied = suite_typed(run, c->dtype, c->y, DIMS(n));
    sago_tensor sum = suite_typed(run, c->dtype, c->y, DIMS(n)),
                scaled = suite_typed(run, c->dtype, c->x, DIMS(n));
    sago_tensor x = suite_typed(run, c->dtype, c->x, DIMS(n));
    suite_ok(d->ops->fill(d, behind(filled, c->skip), -2.5f));
    suite_ok(d->ops->copy(d, behind(copied, c->skip), behind(x, c->skip)));
    suite_ok(d->ops->add_scaled(d, behind(sum, c->skip), behind(x, c->skip), 0.3f));
    suite_ok(d->ops->scale(d, behind(scaled, c->skip), -1.7f));
    suite_output(run, "filled", filled);
    suite_output(run, "copied", copied);
    suite_output(run, "sum", sum);
    suite_output(run, "scaled", scaled);
}

static void check_count(sago_dtype dtype, int64_t count, int64_t skip) {
    int64_t n = count + skip;
    float *x = suite_normal(n, 1), *y = suite_normal(n, 2), *plain = plain_array(n);
    double *exact = ref_array(n);
    suite_round(dtype, x, n), suite_round(dtype, y, n);
    count_case c = {dtype, count, skip, x, y};
    suite_result result;
    suite_run_op(body, &c, SUITE_SAME_BITS, &result);
    for (int64_t i = 0; i < n; i++) {
        assert_true(suite_floats(&result, "filled")[i] == (i < skip ? y[i] : -2.5f));
        assert_true(suite_floats(&result, "copied")[i] == (i < skip ? y[i] : x[i]));
        exact[i] = (double)y[i] + (i < skip ? 0 : (double)0.3f * (double)x[i]);
        plain[i] = i < skip ? y[i] : y[i] + 0.3f * x[i];
    }
    suite_round(dtype, plain, n);
    suite_close("add_scaled", suite_floats(&result, "sum"), exact, plain, n);
    for (int64_t i = 0; i < n; i++) {
        exact[i] = (double)x[i] * (i < skip ? 1 : (double)-1.7f);
        plain[i] = i < skip ? x[i] : -1.7f * x[i];
    }
    suite_round(dtype, plain, n);
    suite_close("scale", suite_floats(&result, "scaled"), exact, plain, n);
    suite_free(&result);
    free(x), free(y), free(plain), free(exact);
}

static void test_values(void **state) {
    (void)state;
    for (int s = 0; s < LENGTH(counts); s++) check_count(SAGO_F32, counts[s], 0);
    check_count(SAGO_F32, 9001, 1);
}

static void test_values_bf16(void **state) {
    (void)state;
    suite_skip_unless_bf16();
    for (int s = 0; s < LENGTH(counts); s++) check_count(SAGO_BF16, counts[s], 0);
    for (int64_t skip = 1; skip < 4; skip++) check_count(SAGO_BF16, 9001, skip);
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

typedef struct odd_cast {
    const float *x;
    int64_t skip;
} odd_cast;

enum { ODD = 1003 };

static void odd_cast_body(suite_run *run, const void *context) {
    const odd_cast *c = context;
    sago_device *d = run->device;
    sago_tensor x = suite_f32(run, c->x, DIMS(ODD)), narrow = suite_bf16_of(run, c->x, DIMS(ODD));
    sago_tensor wide = suite_f32(run, c->x, DIMS(ODD));
    suite_ok(d->ops->fill(d, behind(wide, c->skip), 0));
    suite_ok(d->ops->copy(d, behind(narrow, c->skip), behind(wide, c->skip)));
    suite_ok(d->ops->copy(d, behind(narrow, c->skip), behind(x, c->skip)));
    suite_ok(d->ops->copy(d, behind(wide, c->skip), behind(narrow, c->skip)));
    suite_output(run, "narrow", narrow);
    suite_output(run, "wide", wide);
}

/* The last elements are no whole vector; then neither is the address that the tensors begin at. */
static void test_casts_of_odd_places(void **state) {
    (void)state;
    float *x = suite_normal(ODD, 4);
    for (int64_t skip = 0; skip < 4; skip += 3) {
        suite_result result;
        suite_run_op(odd_cast_body, &(odd_cast){x, skip}, SUITE_SAME_BITS, &result);
        for (int i = 0; i < ODD; i++) {
            float rounded = suite_from_bf16(suite_to_bf16(x[i]));
            assert_true(suite_floats(&result, "narrow")[i] == rounded);
            assert_true(suite_floats(&result, "wide")[i] == (i < skip ? x[i] : rounded));
        }
        suite_free(&result);
    }
    free(x);
}

/* More tensors than a launch takes, of all lengths, none and more than a block's among them, wherever they
 * begin. */
enum { SQUARES = 300, SQUARES_VALUES = 70001 };

typedef struct squares_case {
    sago_dtype dtype;
    const float *x;
} squares_case;

static void squares_range(int t, int64_t *first, int64_t *count) {
    uint64_t hash = sago_mix(11, (uint64_t)t);
    *count = t == 7 ? SQUARES_VALUES : t % 50 == 3 ? 0 : (int64_t)sago_below(hash, t % 10 == 0 ? 40000 : 400);
    *first = t % 3 == 0 ? 0 : (int64_t)sago_below(hash >> 7, (uint64_t)(SQUARES_VALUES - *count + 1));
}

static void squares_body(suite_run *run, const void *context) {
    const squares_case *c = context;
    sago_device *d = run->device;
    sago_tensor in[SQUARES], x = suite_typed(run, c->dtype, c->x, DIMS(SQUARES_VALUES));
    double sum, expected = 0;
    void *on_device;
    for (int t = 0; t < SQUARES; t++) {
        int64_t first, count;
        squares_range(t, &first, &count);
        in[t] = behind(x, first);
        in[t].shape[0] = count;
        for (int64_t i = first; i < first + count; i++) expected += (double)c->x[i] * (double)c->x[i];
    }
    suite_ok(d->ops->allocate(d, &on_device, sizeof sum));
    suite_ok(d->ops->sum_squares(d, on_device, in, SQUARES));
    suite_ok(d->ops->download(d, &sum, on_device, sizeof sum));
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

static void check_squares(sago_dtype dtype) {
    const float bad[] = {0.5f, 3e38f, NAN, INFINITY, -INFINITY};
    for (int k = 0; k < LENGTH(bad); k++) {
        float *x = suite_normal(SQUARES_VALUES, 3);
        x[SQUARES_VALUES - 1] = bad[k];
        suite_round(dtype, x, SQUARES_VALUES);
        squares_case c = {dtype, x};
        suite_result result;
        suite_run_op(squares_body, &c, SUITE_SAME_BITS, &result);
        suite_free(&result);
        free(x);
    }
}

static void test_sum_squares(void **state) {
    (void)state;
    check_squares(SAGO_F32);
}

static void test_sum_squares_bf16(void **state) {
    (void)state;
    suite_skip_unless_bf16();
    check_squares(SAGO_BF16);
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

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_values),      cmocka_unit_test(test_values_bf16),
    cmocka_unit_test(test_casts),       cmocka_unit_test(test_casts_of_odd_places),
    cmocka_unit_test(test_sum_squares), cmocka_unit_test(test_sum_squares_bf16),
    cmocka_unit_test(test_memory),      cmocka_unit_test(test_wrong_shapes)};
SUITE_MAIN(tests)
