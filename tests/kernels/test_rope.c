// SPDX-License-Identifier: Apache-2.0
#include "reference.h"
#include "suite.h"

typedef struct rope_case {
    sago_dtype dtype;
    int64_t shape[4];
    sago_rope_args args;
    bool in_place;
    const float *x;
    const int32_t *positions;
} rope_case;

/* Batch, tokens, heads, width: vectors of all sizes, odd numbers of pairs, more heads than are loaded ahead,
   the widest head, more tokens than a grid of sim takes at once. */
static const int64_t shapes[][4] = {{1, 1, 1, 2},   {2, 7, 3, 6},   {1, 5, 5, 64},  {2, 3, 1, 256},
                                    {1, 13, 2, 26}, {3, 11, 7, 16}, {1, 3, 2, 512}, {1, 2, 1, 338},
                                    {1, 701, 1, 8}, {0, 4, 2, 8}};

static void body(suite_run *run, const void *context) {
    const rope_case *c = context;
    sago_tensor x = suite_typed(run, c->dtype, c->x, 4, c->shape), out = x;
    if (!c->in_place) out = suite_typed(run, c->dtype, NULL, 4, c->shape);
    sago_tensor positions = suite_i32(run, c->positions, DIMS(c->shape[0], c->shape[1]));
    suite_ok(run->device->ops->rope(run->device, out, x, positions, &c->args));
    suite_output(run, "rope", out);
}

/* Padding, the first tokens of a row, and positions up to a million. */
static int32_t *make_positions(int64_t n) {
    int32_t *positions = malloc((size_t)(n + 1) * sizeof *positions);
    assert_non_null(positions);
    for (int64_t i = 0; i < n; i++) {
        uint64_t hash = sago_mix(11, (uint64_t)i);
        positions[i] = i % 5 == 3   ? -1 - (int32_t)(hash % 9)
                       : i % 2 == 0 ? 1000000 - (int32_t)(hash % 5000)
                                    : (int32_t)(i / 2);
    }
    return positions;
}

static void check(sago_dtype dtype, const int64_t shape[4], sago_rope_args args) {
    int64_t tokens = shape[0] * shape[1], n = tokens * shape[2] * shape[3];
    float *x = suite_normal(n, 1), *plain = plain_array(n);
    suite_round(dtype, x, n);
    int32_t *positions = make_positions(tokens);
    rope_case c = {dtype, {shape[0], shape[1], shape[2], shape[3]}, args, false, x, positions};
    suite_result result, in_place;
    suite_run_op(body, &c, SUITE_SAME_BITS, &result);
    c.in_place = true;
    suite_run_op(body, &c, SUITE_SAME_BITS, &in_place);
    double *ex = ref_from(x, n), *exact = ref_array(n);
    bool halves = args.style == SAGO_ROPE_HALVES;
    ref_rope(exact, ex, positions, tokens, shape[2], shape[3], args.theta, halves, args.inverse);
    plain_rope(plain, x, positions, tokens, shape[2], shape[3], args.theta, halves, args.inverse);
    suite_round(dtype, plain, n);
    suite_close(halves ? "rope halves" : "rope interleaved", suite_floats(&result, "rope"), exact, plain, n);
    assert_memory_equal(suite_bits(&result, "rope"), suite_bits(&in_place, "rope"),
                        (size_t)n * sago_dtype_bytes(dtype));
    suite_free(&result), suite_free(&in_place);
    free(x), free(plain), free(positions), free(ex), free(exact);
}

static void check_all(sago_dtype dtype, sago_rope_style style) {
    if (dtype == SAGO_BF16) suite_skip_unless_bf16();
    for (int s = 0; s < LENGTH(shapes); s++)
        for (int inverse = 0; inverse < 2; inverse++)
            check(dtype, shapes[s], (sago_rope_args){s % 2 ? 5e5 : 1e4, style, inverse});
}

static void test_interleaved(void **state) {
    (void)state;
    check_all(SAGO_F32, SAGO_ROPE_INTERLEAVED);
}

static void test_halves(void **state) {
    (void)state;
    check_all(SAGO_F32, SAGO_ROPE_HALVES);
}

static void test_interleaved_bf16(void **state) {
    (void)state;
    check_all(SAGO_BF16, SAGO_ROPE_INTERLEAVED);
}

static void test_halves_bf16(void **state) {
    (void)state;
    check_all(SAGO_BF16, SAGO_ROPE_HALVES);
}

/*
 * Every angle of a head against sin and cos of doubles: of (1, 0) a rotation leaves cosine and sine. An angle
 * kept in fp32 would be off by 0.03 at position 1e6; 2^-23 is an ulp at 1.
 */
static void test_angles(void **state) {
    (void)state;
    enum { WIDTH = 64, PAIRS = WIDTH / 2, TOKENS = 24 };
    static const int32_t some[] = {0, 1, 2, 3, 355, 710, 1023, 4096, 65535, 99999, 524288, 999999, 1000000};
    int32_t positions[TOKENS];
    float x[TOKENS * WIDTH];
    for (int t = 0; t < TOKENS; t++)
        positions[t] = t < LENGTH(some) ? some[t] : (int32_t)(sago_mix(3, (uint64_t)t) % 1000001);
    for (int i = 0; i < TOKENS * WIDTH; i++) x[i] = i % 2 == 0 ? 1.0f : 0.0f;
    rope_case c = {SAGO_F32, {1, TOKENS, 1, WIDTH}, {1e4, SAGO_ROPE_INTERLEAVED, false}, false, x, positions};
    suite_result result;
    suite_run_op(body, &c, SUITE_SAME_BITS, &result);
    const float *got = suite_floats(&result, "rope");
    for (int t = 0; t < TOKENS; t++)
        for (int i = 0; i < PAIRS; i++) {
            double angle = positions[t] * pow(1e4, -(double)i / PAIRS);
            double off = fmax(fabs(got[t * WIDTH + 2 * i] - cos(angle)),
                              fabs(got[t * WIDTH + 2 * i + 1] - sin(angle)));
            if (off > 0x1p-23) fail_msg("position %d, pair %d: off by %g", (int)positions[t], i, off);
        }
    suite_free(&result);
}

/* What the embedding is for: after it, q . k depends on how far the two are apart and not on where they are.
 */
static void test_relative(void **state) {
    (void)state;
    enum { WIDTH = 32, TOKENS = 2 };
    static const int32_t positions[][TOKENS] = {{7, 0}, {40007, 40000}, {1000000, 999993}};
    float *x = suite_normal(TOKENS * WIDTH, 5);
    for (int style = 0; style < 2; style++) {
        double first = 0;
        for (int p = 0; p < LENGTH(positions); p++) {
            rope_case c = {SAGO_F32, {1, TOKENS, 1, WIDTH}, {1e4, (sago_rope_style)style, false}, false,
                           x,        positions[p]};
            suite_result result;
            suite_run_op(body, &c, SUITE_SAME_BITS, &result);
            const float *got = suite_floats(&result, "rope");
            double dot = 0;
            for (int i = 0; i < WIDTH; i++) dot += (double)got[i] * (double)got[WIDTH + i];
            if (p == 0) first = dot;
            if (fabs(dot - first) > 1e-5) fail_msg("q . k is %.8g, was %.8g", dot, first);
            suite_free(&result);
        }
    }
    free(x);
}

static double loss(const double *x, const double *d, const int32_t *positions, int64_t tokens, bool halves) {
    double y[64], sum = 0;
    ref_rope(y, x, positions, tokens, 2, 8, 100.0, halves, false);
    for (int64_t i = 0; i < tokens * 16; i++) sum += y[i] * d[i];
    return sum;
}

/* The inverse is the backward pass. */
static void test_formula_by_differences(void **state) {
    (void)state;
    enum { TOKENS = 4, N = TOKENS * 16 };
    static const int32_t positions[TOKENS] = {0, 3, -1, 12345};
    float *random = suite_normal(2 * N, 7);
    double *x = ref_from(random, N), *d = ref_from(random + N, N), d_x[N], numeric[N], h = 1e-5;
    for (int halves = 0; halves < 2; halves++) {
        ref_rope(d_x, d, positions, TOKENS, 2, 8, 100.0, halves, true);
        for (int i = 0; i < N; i++) {
            double old = x[i];
            x[i] = old + h;
            double up = loss(x, d, positions, TOKENS, halves);
            x[i] = old - h;
            numeric[i] = (up - loss(x, d, positions, TOKENS, halves)) / (2 * h);
            x[i] = old;
        }
        suite_gradient_close("d_x", numeric, d_x, N, 1e-8);
    }
    free(random), free(x), free(d);
}

/* Padding keeps its bits, whatever they are; what is not finite stays in its pair. */
static void test_padding_and_non_finite(void **state) {
    (void)state;
    static const int32_t positions[2] = {-1, 9};
    for (int style = 0; style < 2; style++) {
        float x[16];
        for (int i = 0; i < 16; i++) x[i] = (float)(i + 1);
        x[1] = INFINITY, x[2] = NAN, x[9] = INFINITY, x[10] = NAN;
        rope_case c = {SAGO_F32, {1, 2, 1, 8}, {1e4, (sago_rope_style)style, false}, false, x, positions};
        suite_result result;
        suite_run_op(body, &c, SUITE_SAME_BITS, &result);
        const float *got = suite_floats(&result, "rope");
        assert_memory_equal(got, x, 8 * sizeof(float));
        int finite = 0;
        for (int i = 8; i < 16; i++) finite += isfinite(got[i]) ? 1 : 0;
        assert_int_equal(finite, 4);
        suite_free(&result);
    }
}

static void shapes_body(suite_run *run, const void *context) {
    (void)context;
    sago_device *d = run->device;
    float zeros[48] = {0};
    int32_t ints[8] = {0};
    sago_tensor x = suite_f32(run, zeros, DIMS(1, 3, 2, 8)), other = suite_f32(run, zeros, DIMS(1, 3, 8, 2)),
                odd = suite_f32(run, zeros, DIMS(1, 3, 2, 7)), flat = suite_f32(run, zeros, DIMS(3, 2, 8));
    sago_tensor positions = suite_i32(run, ints, DIMS(1, 3)), few = suite_i32(run, ints, DIMS(1, 2)),
                floats = suite_f32(run, zeros, DIMS(1, 3));
    const sago_rope_args args = {.theta = 1e4}, never = {.theta = 0.5}, nan = {.theta = NAN};
    suite_expect_shape_error(d->ops->rope(d, x, other, positions, &args), "rope");
    suite_expect_shape_error(d->ops->rope(d, odd, odd, positions, &args), "rope");
    suite_expect_shape_error(d->ops->rope(d, flat, flat, positions, &args), "rope");
    suite_expect_shape_error(d->ops->rope(d, x, x, few, &args), "rope");
    suite_expect_shape_error(d->ops->rope(d, x, x, floats, &args), "rope");
    assert_int_equal(d->ops->rope(d, x, x, positions, &never), SAGO_E_INTERNAL);
    assert_int_equal(d->ops->rope(d, x, x, positions, &nan), SAGO_E_INTERNAL);
    assert_non_null(strstr(sago_message(), "theta"));
}

static void test_wrong_shapes(void **state) {
    (void)state;
    suite_run_once(shapes_body, NULL);
}

static const struct CMUnitTest tests[] = {cmocka_unit_test(test_interleaved),
                                          cmocka_unit_test(test_halves),
                                          cmocka_unit_test(test_interleaved_bf16),
                                          cmocka_unit_test(test_halves_bf16),
                                          cmocka_unit_test(test_angles),
                                          cmocka_unit_test(test_relative),
                                          cmocka_unit_test(test_formula_by_differences),
                                          cmocka_unit_test(test_padding_and_non_finite),
                                          cmocka_unit_test(test_wrong_shapes)};
SUITE_MAIN(tests)
