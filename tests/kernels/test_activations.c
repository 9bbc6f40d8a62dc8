// SPDX-License-Identifier: Apache-2.0
#include "mask_reference.h"
#include "reference.h"
#include "suite.h"

enum { D_Y, X, GATE = X, LINEAR, N_INPUTS };

/* The gated activations: operations, and formulas of the function and its slope in both precisions. */
typedef enum gated { GEGLU, SWIGLU, N_GATED } gated;
static const struct {
    const char *y, *d_gate, *d_linear;
    double (*exact)(double), (*exact_slope)(double);
    float (*plain)(float), (*plain_slope)(float);
} gates[] = {
    {"geglu y", "geglu d_gate", "geglu d_linear", ref_gelu, ref_gelu_slope, plain_gelu, plain_gelu_slope},
    {"swiglu y", "swiglu d_gate", "swiglu d_linear", ref_silu, ref_silu_slope, plain_silu, plain_silu_slope}};

typedef struct activation_case {
    gated gated;
    sago_dtype dtype;
    int64_t rows, tokens, width;
    const sago_dropout *dropout;
    const float *in[N_INPUTS];
} activation_case;

static sago_tensor take(suite_run *run, const activation_case *c, const float *values) {
    return suite_typed(run, c->dtype, values, DIMS(c->rows, c->tokens, c->width));
}

static void relu_body(suite_run *run, const void *context) {
    const activation_case *c = context;
    sago_device *d = run->device;
    sago_tensor d_y = take(run, c, c->in[D_Y]), x = take(run, c, c->in[X]), y = take(run, c, NULL),
                d_x = take(run, c, NULL), in_place = take(run, c, c->in[D_Y]);
    suite_ok(d->ops->relu_forward(d, y, x, c->dropout));
    suite_ok(d->ops->relu_backward(d, d_x, d_y, x, c->dropout));
    suite_ok(d->ops->relu_backward(d, in_place, in_place, x, c->dropout));
    suite_output(run, "relu y", y);
    suite_output(run, "relu d_x", d_x);
    suite_output(run, "relu in place", in_place);
}

static void gated_body(suite_run *run, const void *context) {
    const activation_case *c = context;
    sago_device *d = run->device;
    sago_tensor d_y = take(run, c, c->in[D_Y]), gate = take(run, c, c->in[GATE]),
                linear = take(run, c, c->in[LINEAR]);
    sago_tensor y = take(run, c, NULL), d_gate = take(run, c, NULL), d_linear = take(run, c, NULL);
    sago_tensor gate_in_place = take(run, c, c->in[D_Y]), linear_in_place = take(run, c, c->in[D_Y]),
                other = take(run, c, NULL), another = take(run, c, NULL);
    bool geglu = c->gated == GEGLU;
    __typeof__(d->ops->geglu_forward) forward = geglu ? d->ops->geglu_forward : d->ops->swiglu_forward;
    __typeof__(d->ops->geglu_backward) backward = geglu ? d->ops->geglu_backward : d->ops->swiglu_backward;
    suite_ok(forward(d, y, gate, linear, c->dropout));
    suite_ok(backward(d, d_gate, d_linear, d_y, gate, linear, c->dropout));
    suite_ok(backward(d, gate_in_place, other, gate_in_place, gate, linear, c->dropout));
    suite_ok(backward(d, another, linear_in_place, linear_in_place, gate, linear, c->dropout));
    suite_output(run, gates[c->gated].y, y);
    suite_output(run, gates[c->gated].d_gate, d_gate);
    suite_output(run, gates[c->gated].d_linear, d_linear);
    suite_output(run, "d_gate in place", gate_in_place);
    suite_output(run, "d_linear in place", linear_in_place);
    suite_output(run, "d_linear beside", other);
    suite_output(run, "d_gate beside", another);
}

static const sago_dropout none = {0.0f, 0, 0, 0}, some = {0.25f, 99, 2, 70};
/* Never one element alone: where gelu is near 0 the rule, which looks at the largest magnitude, would be
   about the last bit of exp. */
static const int64_t shapes[][3] = {{1, 1, 7}, {2, 61, 7}, {1, 70, 1024}, {3, 5, 331}, {0, 4, 8}};

static void expect_same(const suite_result *result, const char *a, const char *b, size_t bytes) {
    assert_memory_equal(suite_bits(result, a), suite_bits(result, b), bytes);
}

/* What a case is compared with: inputs in double, and room for two outputs. */
typedef struct reference {
    int64_t n;
    size_t bytes;
    double *in[N_INPUTS], *keep, *a, *b;
    float *plain_keep, *plain_a, *plain_b;
} reference;

static void check_relu(const activation_case *c, const reference *r) {
    suite_result result;
    suite_run_op(relu_body, c, SUITE_SAME_BITS, &result);
    for (int64_t i = 0; i < r->n; i++) {
        bool on = r->in[X][i] > 0;
        r->a[i] = on ? r->in[X][i] * r->keep[i] : 0.0,
        r->plain_a[i] = on ? c->in[X][i] * r->plain_keep[i] : 0.0f;
        r->b[i] = on ? r->in[D_Y][i] * r->keep[i] : 0.0;
        r->plain_b[i] = on ? c->in[D_Y][i] * r->plain_keep[i] : 0.0f;
    }
    suite_round(c->dtype, r->plain_a, r->n), suite_round(c->dtype, r->plain_b, r->n);
    suite_close("relu y", suite_floats(&result, "relu y"), r->a, r->plain_a, r->n);
    suite_close("relu d_x", suite_floats(&result, "relu d_x"), r->b, r->plain_b, r->n);
    expect_same(&result, "relu in place", "relu d_x", r->bytes);
    suite_free(&result);
}

static void check_gated(const activation_case *c, const reference *r) {
    const gated g = c->gated;
    suite_result result;
    suite_run_op(gated_body, c, SUITE_SAME_BITS, &result);
    ref_gated_forward(gates[g].exact, r->a, r->in[GATE], r->in[LINEAR], r->keep, r->n);
    plain_gated_forward(gates[g].plain, r->plain_a, c->in[GATE], c->in[LINEAR], r->plain_keep, r->n);
    suite_round(c->dtype, r->plain_a, r->n);
    suite_close(gates[g].y, suite_floats(&result, gates[g].y), r->a, r->plain_a, r->n);
    ref_gated_backward(gates[g].exact, gates[g].exact_slope, r->a, r->b, r->in[D_Y], r->in[GATE],
                       r->in[LINEAR], r->keep, r->n);
    plain_gated_backward(gates[g].plain, gates[g].plain_slope, r->plain_a, r->plain_b, c->in[D_Y],
                         c->in[GATE], c->in[LINEAR], r->plain_keep, r->n);
    suite_round(c->dtype, r->plain_a, r->n), suite_round(c->dtype, r->plain_b, r->n);
    suite_close(gates[g].d_gate, suite_floats(&result, gates[g].d_gate), r->a, r->plain_a, r->n);
    suite_close(gates[g].d_linear, suite_floats(&result, gates[g].d_linear), r->b, r->plain_b, r->n);
    expect_same(&result, "d_gate in place", gates[g].d_gate, r->bytes);
    expect_same(&result, "d_linear in place", gates[g].d_linear, r->bytes);
    expect_same(&result, "d_linear beside", gates[g].d_linear, r->bytes);
    expect_same(&result, "d_gate beside", gates[g].d_gate, r->bytes);
    suite_free(&result);
}

static void check(sago_dtype dtype, int64_t rows, int64_t tokens, int64_t width, const sago_dropout *dropout,
                  float spread) {
    int64_t n = rows * tokens * width;
    float *in[N_INPUTS];
    reference r = {.n = n,
                   .bytes = (size_t)n * sago_dtype_bytes(dtype),
                   .keep = ref_array(n),
                   .a = ref_array(n),
                   .b = ref_array(n),
                   .plain_keep = plain_array(n),
                   .plain_a = plain_array(n),
                   .plain_b = plain_array(n)};
    for (int i = 0; i < N_INPUTS; i++) {
        in[i] = suite_normal(n, (uint64_t)i + 1);
        for (int64_t j = 0; j < n && i > 0; j++) in[i][j] *= spread;
        suite_round(dtype, in[i], n);
        r.in[i] = ref_from(in[i], n);
    }
    mask_fill(r.plain_keep, dropout, rows, tokens, width);
    for (int64_t i = 0; i < n; i++)
        r.keep[i] = r.plain_keep[i] == 0 ? 0.0 : 1.0 / (1.0 - (double)dropout->rate);
    activation_case c = {GEGLU, dtype, rows, tokens, width, dropout, {in[0], in[1], in[2]}};
    check_relu(&c, &r);
    for (int g = 0; g < N_GATED; g++) c.gated = (gated)g, check_gated(&c, &r);
    for (int i = 0; i < N_INPUTS; i++) free(in[i]), free(r.in[i]);
    free(r.keep), free(r.a), free(r.b), free(r.plain_keep), free(r.plain_a), free(r.plain_b);
}

static void check_shapes(sago_dtype dtype) {
    for (int s = 0; s < LENGTH(shapes); s++)
        for (int drops = 0; drops < 2; drops++)
            for (int wide = 0; wide < 2; wide++) /* values around 1, and far into both tails */
                check(dtype, shapes[s][0], shapes[s][1], shapes[s][2], drops ? &some : &none,
                      wide ? 20.0f : 1.0f);
}

static void test_values(void **state) {
    (void)state;
    check_shapes(SAGO_F32);
}

static void test_values_bf16(void **state) {
    (void)state;
    suite_skip_unless_bf16();
    check_shapes(SAGO_BF16);
}

static void check_formula(gated g) {
    enum { N = 41 };
    double gate[N], linear[N], d_y[N], keep[N], d_gate[N], d_linear[N], numeric_gate[N], numeric_linear[N],
        h = 1e-5;
    float *random = suite_normal(2 * N, 5);
    for (int i = 0; i < N; i++)
        gate[i] = (i - 20) / 4.0, linear[i] = random[i], d_y[i] = random[N + i], keep[i] = 1 + i % 2;
    ref_gated_backward(gates[g].exact, gates[g].exact_slope, d_gate, d_linear, d_y, gate, linear, keep, N);
    for (int i = 0; i < N; i++) {
        double up, down, x = gate[i] + h, y = gate[i] - h, l = linear[i] + h, m = linear[i] - h;
        ref_gated_forward(gates[g].exact, &up, &x, &linear[i], &keep[i], 1);
        ref_gated_forward(gates[g].exact, &down, &y, &linear[i], &keep[i], 1);
        numeric_gate[i] = d_y[i] * (up - down) / (2 * h);
        ref_gated_forward(gates[g].exact, &up, &gate[i], &l, &keep[i], 1);
        ref_gated_forward(gates[g].exact, &down, &gate[i], &m, &keep[i], 1);
        numeric_linear[i] = d_y[i] * (up - down) / (2 * h);
    }
    suite_gradient_close(gates[g].d_gate, numeric_gate, d_gate, N, 1e-8);
    suite_gradient_close(gates[g].d_linear, numeric_linear, d_linear, N, 1e-8);
    free(random);
}

static void test_formulas_by_differences(void **state) {
    (void)state;
    for (int g = 0; g < N_GATED; g++) check_formula((gated)g);
}

static void test_non_finite_stays(void **state) {
    (void)state;
    float gate[5] = {NAN, 1, INFINITY, 1, 2}, linear[5] = {1, NAN, 1, 1, 2}, d_y[5] = {1, 1, 1, INFINITY, 2};
    activation_case c = {GEGLU, SAGO_F32, 1, 1, 5, &none, {d_y, gate, linear}};
    suite_result result;
    suite_run_op(relu_body, &c, SUITE_SAME_BITS, &result);
    const float *relu = suite_floats(&result, "relu y");
    assert_true(isnan(relu[0]) && relu[2] == INFINITY && relu[4] == 2);
    suite_free(&result);
    for (int g = 0; g < N_GATED; g++) {
        c.gated = (gated)g;
        suite_run_op(gated_body, &c, SUITE_SAME_BITS, &result);
        const float *y = suite_floats(&result, gates[g].y), *d_gate = suite_floats(&result, gates[g].d_gate);
        assert_true(isnan(y[0]) && isnan(y[1]) && y[2] == INFINITY && isfinite(y[4]));
        assert_true(!isfinite(d_gate[0]) && !isfinite(d_gate[1]) && !isfinite(d_gate[3]) &&
                    isfinite(d_gate[4]));
        suite_free(&result);
    }
}

static void shapes_body(suite_run *run, const void *context) {
    (void)context;
    sago_device *d = run->device;
    float zeros[24] = {0};
    sago_tensor a = suite_f32(run, zeros, DIMS(2, 3, 4)), b = suite_f32(run, zeros, DIMS(2, 4, 3));
    suite_expect_shape_error(d->ops->relu_forward(d, a, b, &none), "relu_forward");
    suite_expect_shape_error(d->ops->relu_backward(d, a, b, a, &none), "relu_backward");
    suite_expect_shape_error(d->ops->geglu_forward(d, a, a, b, &none), "geglu_forward");
    suite_expect_shape_error(d->ops->geglu_backward(d, a, b, a, a, a, &none), "geglu_backward");
    suite_expect_shape_error(d->ops->swiglu_forward(d, a, b, a, &none), "swiglu_forward");
    suite_expect_shape_error(d->ops->swiglu_backward(d, a, a, a, a, b, &none), "swiglu_backward");
}

static void test_wrong_shapes(void **state) {
    (void)state;
    suite_run_once(shapes_body, NULL);
}

static const struct CMUnitTest tests[] = {cmocka_unit_test(test_values), cmocka_unit_test(test_values_bf16),
                                          cmocka_unit_test(test_formulas_by_differences),
                                          cmocka_unit_test(test_non_finite_stays),
                                          cmocka_unit_test(test_wrong_shapes)};
SUITE_MAIN(tests)
