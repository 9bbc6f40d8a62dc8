// SPDX-License-Identifier: Apache-2.0
#include "reference.h"
#include "suite.h"

typedef struct norm_case {
    sago_dtype dtype;
    int64_t rows, width;
    float epsilon;
    const float *x, *scale, *d_y, *d_x, *d_scale, *rstd;
} norm_case;

typedef struct shape {
    int64_t rows, width;
} shape;
static const shape shapes[] = {{1, 1},     {1, 512},   {7, 13},   {3, 64}, {31, 127},
                               {257, 512}, {2200, 16}, {5, 1024}, {0, 8}};
/* More than a grid of sim takes at once, or wide enough for other numbers of threads a row. */
static const shape large_shapes[] = {{290, 13}, {540, 1032}, {40, 2056}, {9, 4104}, {2, 16392}};

static void forward_body(suite_run *run, const void *context) {
    const norm_case *c = context;
    sago_tensor y = suite_typed(run, c->dtype, NULL, DIMS(c->rows, c->width)),
                rstd = suite_f32(run, NULL, DIMS(c->rows));
    sago_tensor x = suite_typed(run, c->dtype, c->x, DIMS(c->rows, c->width)),
                scale = suite_typed(run, c->dtype, c->scale, DIMS(c->width));
    suite_ok(run->device->ops->rmsnorm_forward(run->device, y, rstd, x, scale, c->epsilon));
    suite_output(run, "rmsnorm y", y);
    suite_output(run, "rmsnorm rstd", rstd);
}

static void check_forward(sago_dtype dtype, shape of) {
    int64_t rows = of.rows, width = of.width, n = rows * width;
    float *x = suite_normal(n, 1), *scale = suite_normal(width, 2);
    suite_round(dtype, x, n), suite_round(dtype, scale, width);
    norm_case c = {.dtype = dtype, .rows = rows, .width = width, .epsilon = 1e-6f, .x = x, .scale = scale};
    suite_result result;
    suite_run_op(forward_body, &c, SUITE_SAME_BITS, &result);
    double *ex = ref_from(x, n), *es = ref_from(scale, width), *ey = ref_array(n), *er = ref_array(rows);
    float *py = plain_array(n), *pr = plain_array(rows);
    ref_rmsnorm_forward(ey, er, ex, es, rows, width, 1e-6f);
    plain_rmsnorm_forward(py, pr, x, scale, rows, width, 1e-6f);
    suite_round(dtype, py, n);
    suite_close("rmsnorm y", suite_floats(&result, "rmsnorm y"), ey, py, n);
    suite_close("rmsnorm rstd", suite_floats(&result, "rmsnorm rstd"), er, pr, rows);
    suite_free(&result);
    free(x), free(scale), free(ex), free(es), free(ey), free(er), free(py), free(pr);
}

static void backward_body(suite_run *run, const void *context) {
    const norm_case *c = context;
    sago_tensor d_x = suite_typed(run, c->dtype, c->d_x, DIMS(c->rows, c->width)),
                d_y = suite_typed(run, c->dtype, c->d_y, DIMS(c->rows, c->width));
    sago_tensor d_scale = suite_f32(run, c->d_scale, DIMS(c->width)),
                scale = suite_typed(run, c->dtype, c->scale, DIMS(c->width));
    sago_tensor x = suite_typed(run, c->dtype, c->x, DIMS(c->rows, c->width)),
                rstd = suite_f32(run, c->rstd, DIMS(c->rows));
    suite_ok(run->device->ops->rmsnorm_backward(run->device, d_x, d_scale, d_y, x, scale, rstd));
    suite_output(run, "rmsnorm d_x", d_x);
    suite_output(run, "rmsnorm d_scale", d_scale);
}

static void check_backward(sago_dtype dtype, shape of) {
    int64_t rows = of.rows, width = of.width, n = rows * width;
    float *x = suite_normal(n, 1), *scale = suite_normal(width, 2), *d_y = suite_normal(n, 3);
    float *d_x = suite_normal(n, 4), *d_scale = suite_normal(width, 5), *rstd = plain_array(rows);
    suite_round(dtype, x, n), suite_round(dtype, scale, width);
    suite_round(dtype, d_y, n), suite_round(dtype, d_x, n);
    float *y = plain_array(n), *pd_x = plain_from(d_x, n), *pd_scale = plain_from(d_scale, width);
    plain_rmsnorm_forward(y, rstd, x, scale, rows, width, 1e-6f);
    norm_case c = {dtype, rows, width, 1e-6f, x, scale, d_y, d_x, d_scale, rstd};
    suite_result result;
    suite_run_op(backward_body, &c, SUITE_SAME_BITS, &result);
    double *ex = ref_from(x, n), *es = ref_from(scale, width), *ed = ref_from(d_y, n),
           *er = ref_from(rstd, rows);
    double *ed_x = ref_from(d_x, n), *ed_scale = ref_from(d_scale, width);
    ref_rmsnorm_backward(ed_x, ed_scale, ed, ex, es, er, rows, width);
    plain_rmsnorm_backward(pd_x, pd_scale, d_y, x, scale, rstd, rows, width);
    suite_round(dtype, pd_x, n);
    suite_close("rmsnorm d_x", suite_floats(&result, "rmsnorm d_x"), ed_x, pd_x, n);
    suite_close("rmsnorm d_scale", suite_floats(&result, "rmsnorm d_scale"), ed_scale, pd_scale, width);
    suite_free(&result);
    free(x), free(scale), free(d_y), free(d_x), free(d_scale), free(rstd), free(y), free(pd_x),
        free(pd_scale);
    free(ex), free(es), free(ed), free(er), free(ed_x), free(ed_scale);
}

static void check_all(sago_dtype dtype, void (*check)(sago_dtype, shape)) {
    for (int s = 0; s < LENGTH(shapes); s++) check(dtype, shapes[s]);
    for (int s = 0; s < LENGTH(large_shapes); s++) check(dtype, large_shapes[s]);
}

static void test_forward(void **state) {
    (void)state;
    check_all(SAGO_F32, check_forward);
}

static void test_backward(void **state) {
    (void)state;
    check_all(SAGO_F32, check_backward);
}

static void test_forward_bf16(void **state) {
    (void)state;
    suite_skip_unless_bf16();
    check_all(SAGO_BF16, check_forward);
}

static void test_backward_bf16(void **state) {
    (void)state;
    suite_skip_unless_bf16();
    check_all(SAGO_BF16, check_backward);
}

/* The loss of the differences: sum of y * d_y. */
static double loss(const double *x, const double *scale, const double *d_y, int64_t rows, int64_t width) {
    double y[64], rstd[8], sum = 0;
    ref_rmsnorm_forward(y, rstd, x, scale, rows, width, 1e-6);
    for (int64_t i = 0; i < rows * width; i++) sum += y[i] * d_y[i];
    return sum;
}

static void test_formula_by_differences(void **state) {
    (void)state;
    enum { ROWS = 4, WIDTH = 11, N = ROWS * WIDTH };
    float *fx = suite_normal(N, 1), *fs = suite_normal(WIDTH, 2), *fd = suite_normal(N, 3);
    double *x = ref_from(fx, N), *scale = ref_from(fs, WIDTH), *d_y = ref_from(fd, N), y[N], rstd[ROWS];
    double d_x[N] = {0}, d_scale[WIDTH] = {0}, numeric[N], h = 1e-5;
    ref_rmsnorm_forward(y, rstd, x, scale, ROWS, WIDTH, 1e-6);
    ref_rmsnorm_backward(d_x, d_scale, d_y, x, scale, rstd, ROWS, WIDTH);
    for (int part = 0; part < 2; part++) {
        double *p = part ? scale : x;
        int n = part ? WIDTH : N;
        for (int i = 0; i < n; i++) {
            double old = p[i];
            p[i] = old + h;
            double up = loss(x, scale, d_y, ROWS, WIDTH);
            p[i] = old - h;
            numeric[i] = (up - loss(x, scale, d_y, ROWS, WIDTH)) / (2 * h);
            p[i] = old;
        }
        suite_gradient_close(part ? "d_scale" : "d_x", numeric, part ? d_scale : d_x, n, 1e-8);
    }
    free(fx), free(fs), free(fd), free(x), free(scale), free(d_y);
}

static void test_non_finite_stays(void **state) {
    (void)state;
    float x[3 * 17], scale[17];
    const float bad[] = {NAN, INFINITY, -INFINITY};
    for (int kind = 0; kind < 3; kind++) {
        for (int i = 0; i < 3 * 17; i++) x[i] = 1.0f + (float)i;
        for (int i = 0; i < 17; i++) scale[i] = 1;
        x[17 + 5] = bad[kind];
        norm_case c = {.rows = 3, .width = 17, .epsilon = 1e-6f, .x = x, .scale = scale};
        suite_result result;
        suite_run_op(forward_body, &c, SUITE_SAME_BITS, &result);
        const float *y = suite_floats(&result, "rmsnorm y");
        assert_true(isnan(y[17 + 5]));
        for (int i = 0; i < 17; i++) assert_true(isfinite(y[i]) && isfinite(y[2 * 17 + i]));
        suite_free(&result);
    }
}

static void shapes_body(suite_run *run, const void *context) {
    (void)context;
    sago_device *d = run->device;
    float zeros[64] = {0};
    sago_tensor y = suite_f32(run, zeros, DIMS(4, 8)), x = suite_f32(run, zeros, DIMS(4, 8));
    sago_tensor scale = suite_f32(run, zeros, DIMS(8)), wrong = suite_f32(run, zeros, DIMS(7));
    sago_tensor rstd = suite_f32(run, zeros, DIMS(4)), other = suite_f32(run, zeros, DIMS(8, 4));
    int32_t ints[8] = {0};
    sago_tensor whole = suite_i32(run, ints, DIMS(8));
    suite_expect_shape_error(d->ops->rmsnorm_forward(d, y, rstd, x, wrong, 1e-6f), "rmsnorm_forward");
    suite_expect_shape_error(d->ops->rmsnorm_forward(d, other, rstd, x, scale, 1e-6f), "rmsnorm_forward");
    suite_expect_shape_error(d->ops->rmsnorm_forward(d, y, scale, x, scale, 1e-6f), "rmsnorm_forward");
    suite_expect_shape_error(d->ops->rmsnorm_forward(d, y, rstd, x, whole, 1e-6f), "rmsnorm_forward");
    suite_expect_shape_error(d->ops->rmsnorm_backward(d, y, wrong, x, x, scale, rstd), "rmsnorm_backward");
    suite_expect_shape_error(d->ops->rmsnorm_backward(d, y, scale, other, x, scale, rstd),
                             "rmsnorm_backward");
    suite_expect_shape_error(d->ops->rmsnorm_backward(d, y, scale, x, x, scale, scale), "rmsnorm_backward");
}

static void test_wrong_shapes(void **state) {
    (void)state;
    suite_run_once(shapes_body, NULL);
}

static const struct CMUnitTest tests[] = {cmocka_unit_test(test_forward),
                                          cmocka_unit_test(test_backward),
                                          cmocka_unit_test(test_forward_bf16),
                                          cmocka_unit_test(test_backward_bf16),
                                          cmocka_unit_test(test_formula_by_differences),
                                          cmocka_unit_test(test_non_finite_stays),
                                          cmocka_unit_test(test_wrong_shapes)};
SUITE_MAIN(tests)
