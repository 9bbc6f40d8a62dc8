// SPDX-License-Identifier: Apache-2.0
#include "mask_reference.h"
#include "reference.h"
#include "suite.h"

enum { D_Y, X, GATE = X, LINEAR, N_INPUTS };

typedef struct activation_case {
    sago_dtype dtype;
    int64_t rows, tokens, width;
    const sago_dropout *dropout;
    const float *in[N_INPUTS];
} activation_case;

static sago_tensor take(suite_run *run, const activation_case *c, const float *values) {
    return suite_typed(run, c->dtype, values, DIMS(c->rows, c->tokens, c->width));
}

static void body(suite_run *run, const void *context) {
    const activation_case *c = context;
    sago_device *d = run->device;
    sago_tensor d_y = take(run, c, c->in[D_Y]), gate = take(run, c, c->in[GATE]),
                linear = take(run, c, c->in[LINEAR]);
    sago_tensor relu = take(run, c, NULL), relu_d = take(run, c, NULL), geglu = take(run, c, NULL);
    sago_tensor d_gate = take(run, c, NULL), d_linear = take(run, c, NULL);
    sago_tensor relu_in_place = take(run, c, c->in[D_Y]), gate_in_place = take(run, c, c->in[D_Y]);
    sago_tensor linear_in_place = take(run, c, c->in[D_Y]), other = take(run, c, NULL),
                another = take(run, c, NULL);
    suite_ok(d->ops->relu_forward(d, relu, gate, c->dropout));
    suite_ok(d->ops->relu_backward(d, relu_d, d_y, gate, c->dropout));
    suite_ok(d->ops->geglu_forward(d, geglu, gate, linear, c->dropout));
    suite_ok(d->ops->geglu_backward(d, d_gate, d_linear, d_y, gate, linear, c->dropout));
    suite_ok(d->ops->relu_backward(d, relu_in_place, relu_in_place, gate, c->dropout));
    suite_ok(d->ops->geglu_backward(d, gate_in_place, other, gate_in_place, gate, linear, c->dropout));
    suite_ok(d->ops->geglu_backward(d, another, linear_in_place, linear_in_place, gate, linear, c->dropout));
    suite_output(run, "relu y", relu);
    suite_output(run, "relu d_x", relu_d);
    suite_output(run, "geglu y", geglu);
    suite_output(run, "geglu d_gate", d_gate);
    suite_output(run, "geglu d_linear", d_linear);
    suite_output(run, "relu in place", relu_in_place);
    suite_output(run, "d_gate in place", gate_in_place);
    suite_output(run, "d_linear in place", linear_in_place);
    suite_output(run, "d_linear beside", other);
    suite_output(run, "d_gate beside", another);
}

static const sago_dropout none = {0.0f, 0, 0, 0}, some = {0.25f, 99, 2, 70};
/* Never one element alone: where gelu is near 0 the rule, which looks at the largest magnitude, would be
   about the last bit of exp. */
static const int64_t shapes[][3] = {{1, 1, 7}, {2, 61, 7}, {1, 70, 1024}, {3, 5, 331}, {0, 4, 8}};

static void check(sago_dtype dtype, int64_t rows, int64_t tokens, int64_t width, const sago_dropout *dropout,
                  float spread) {
    int64_t n = rows * tokens * width;
    float *in[N_INPUTS], *keep = plain_array(n);
    double *e[N_INPUTS], *e_keep = ref_array(n);
    for (int i = 0; i < N_INPUTS; i++) {
        in[i] = suite_normal(n, (uint64_t)i + 1);
        for (int64_t j = 0; j < n && i > 0; j++) in[i][j] *= spread;
        suite_round(dtype, in[i], n);
        e[i] = ref_from(in[i], n);
    }
    activation_case c = {dtype, rows, tokens, width, dropout, {in[0], in[1], in[2]}};
    suite_result result;
    suite_run_op(body, &c, SUITE_SAME_BITS, &result);
    mask_fill(keep, dropout, rows, tokens, width);
    for (int64_t i = 0; i < n; i++) e_keep[i] = keep[i] == 0 ? 0.0 : 1.0 / (1.0 - (double)dropout->rate);
    double *a = ref_array(n), *b = ref_array(n);
    float *pa = plain_array(n), *pb = plain_array(n);
    for (int64_t i = 0; i < n; i++) {
        a[i] = e[X][i] > 0 ? e[X][i] * e_keep[i] : 0.0, pa[i] = in[X][i] > 0 ? in[X][i] * keep[i] : 0.0f;
        b[i] = e[X][i] > 0 ? e[D_Y][i] * e_keep[i] : 0.0, pb[i] = in[X][i] > 0 ? in[D_Y][i] * keep[i] : 0.0f;
    }
    suite_round(dtype, pa, n), suite_round(dtype, pb, n);
    suite_close("relu y", suite_floats(&result, "relu y"), a, pa, n);
    suite_close("relu d_x", suite_floats(&result, "relu d_x"), b, pb, n);
    ref_geglu_forward(a, e[GATE], e[LINEAR], e_keep, n);
    plain_geglu_forward(pa, in[GATE], in[LINEAR], keep, n);
    suite_round(dtype, pa, n);
    suite_close("geglu y", suite_floats(&result, "geglu y"), a, pa, n);
    ref_geglu_backward(a, b, e[D_Y], e[GATE], e[LINEAR], e_keep, n);
    plain_geglu_backward(pa, pb, in[D_Y], in[GATE], in[LINEAR], keep, n);
    suite_round(dtype, pa, n), suite_round(dtype, pb, n);
    suite_close("geglu d_gate", suite_floats(&result, "geglu d_gate"), a, pa, n);
    suite_close("geglu d_linear", suite_floats(&result, "geglu d_linear"), b, pb, n);
    static const char *const same[][2] = {{"relu in place", "relu d_x"},
                                          {"d_gate in place", "geglu d_gate"},
                                          {"d_linear in place", "geglu d_linear"},
                                          {"d_linear beside", "geglu d_linear"},
                                          {"d_gate beside", "geglu d_gate"}};
    for (int i = 0; i < LENGTH(same); i++)
        assert_memory_equal(suite_bits(&result, same[i][0]), suite_bits(&result, same[i][1]),
                            (size_t)n * sago_dtype_bytes(dtype));
    suite_free(&result);
    for (int i = 0; i < N_INPUTS; i++) free(in[i]), free(e[i]);
    free(keep), free(e_keep), free(a), free(b), free(pa), free(pb);
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

static void test_formula_by_differences(void **state) {
    (void)state;
    enum { N = 41 };
    double gate[N], linear[N], d_y[N], keep[N], d_gate[N], d_linear[N], numeric_gate[N], numeric_linear[N],
        h = 1e-5;
    float *random = suite_normal(2 * N, 5);
    for (int i = 0; i < N; i++)
        gate[i] = (i - 20) / 4.0, linear[i] = random[i], d_y[i] = random[N + i], keep[i] = 1 + i % 2;
    ref_geglu_backward(d_gate, d_linear, d_y, gate, linear, keep, N);
    for (int i = 0; i < N; i++) {
        double up, down, x = gate[i] + h, y = gate[i] - h, l = linear[i] + h, m = linear[i] - h;
        ref_geglu_forward(&up, &x, &linear[i], &keep[i], 1);
        ref_geglu_forward(&down, &y, &linear[i], &keep[i], 1);
        numeric_gate[i] = d_y[i] * (up - down) / (2 * h);
        ref_geglu_forward(&up, &gate[i], &l, &keep[i], 1);
        ref_geglu_forward(&down, &gate[i], &m, &keep[i], 1);
        numeric_linear[i] = d_y[i] * (up - down) / (2 * h);
    }
    suite_gradient_close("d_gate", numeric_gate, d_gate, N, 1e-8);
    suite_gradient_close("d_linear", numeric_linear, d_linear, N, 1e-8);
    free(random);
}

static void test_non_finite_stays(void **state) {
    (void)state;
    float gate[5] = {NAN, 1, INFINITY, 1, 2}, linear[5] = {1, NAN, 1, 1, 2}, d_y[5] = {1, 1, 1, INFINITY, 2};
    activation_case c = {SAGO_F32, 1, 1, 5, &none, {d_y, gate, linear}};
    suite_result result;
    suite_run_op(body, &c, SUITE_SAME_BITS, &result);
    const float *relu = suite_floats(&result, "relu y"), *geglu = suite_floats(&result, "geglu y");
    const float *d_gate = suite_floats(&result, "geglu d_gate");
    assert_true(isnan(relu[0]) && relu[2] == INFINITY && relu[4] == 2);
    assert_true(isnan(geglu[0]) && isnan(geglu[1]) && geglu[2] == INFINITY && isfinite(geglu[4]));
    assert_true(!isfinite(d_gate[0]) && !isfinite(d_gate[1]) && !isfinite(d_gate[3]) && isfinite(d_gate[4]));
    suite_free(&result);
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
}

static void test_wrong_shapes(void **state) {
    (void)state;
    suite_run_once(shapes_body, NULL);
}

static const struct CMUnitTest tests[] = {cmocka_unit_test(test_values), cmocka_unit_test(test_values_bf16),
                                          cmocka_unit_test(test_formula_by_differences),
                                          cmocka_unit_test(test_non_finite_stays),
                                          cmocka_unit_test(test_wrong_shapes)};
SUITE_MAIN(tests)
