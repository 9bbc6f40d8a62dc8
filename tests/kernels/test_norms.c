// SPDX-License-Identifier: Apache-2.0
/* RMSNorm and LayerNorm: the same claims of both. */
#include "reference.h"
#include "suite.h"

typedef enum norm { RMSNORM, LAYERNORM } norm;
static const char *const y_name[] = {"rmsnorm y", "layernorm y"},
                         *const rstd_name[] = {"rmsnorm rstd", "layernorm rstd"},
                         *const d_x_name[] = {"rmsnorm d_x", "layernorm d_x"},
                         *const d_scale_name[] = {"rmsnorm d_scale", "layernorm d_scale"};

typedef struct norm_case {
    norm norm;
    sago_dtype dtype;
    int64_t rows, width;
    float epsilon;
    const float *x, *scale, *d_y, *d_x, *d_scale, *mean, *rstd;
} norm_case;

typedef struct shape {
    int64_t rows, width;
} shape;
static const shape shapes[] = {{1, 1},     {1, 512},   {7, 13},   {3, 64}, {31, 127},
                               {257, 512}, {2200, 16}, {5, 1024}, {0, 8}};
/* More than a grid of sim takes at once, or wide enough for other numbers of threads a row, or for none. */
static const shape large_shapes[] = {{290, 13},   {540, 1032}, {40, 2056}, {9, 4104},
                                     {220, 8200}, {2, 18432},  {7920, 8}};

/* Formulas of both norms; RMSNorm leaves mean as it is. */
#define BOTH_NORMS(REAL, REF)                                                                                \
    static void REF##_forward(norm of, REAL *y, REAL *mean, REAL *rstd, const REAL *x, const REAL *scale,    \
                              int64_t rows, int64_t width) {                                                 \
        if (of == RMSNORM)                                                                                   \
            REF##_rmsnorm_forward(y, rstd, x, scale, rows, width, 1e-6f);                                    \
        else                                                                                                 \
            REF##_layernorm_forward(y, mean, rstd, x, scale, rows, width, 1e-6f);                            \
    }                                                                                                        \
    static void REF##_backward(norm of, REAL *d_x, REAL *d_scale, const REAL *d_y, const REAL *x,            \
                               const REAL *scale, const REAL *mean, const REAL *rstd, int64_t rows,          \
                               int64_t width) {                                                              \
        if (of == RMSNORM)                                                                                   \
            REF##_rmsnorm_backward(d_x, d_scale, d_y, x, scale, rstd, rows, width);                          \
        else                                                                                                 \
            REF##_layernorm_backward(d_x, d_scale, d_y, x, scale, mean, rstd, rows, width);                  \
    }
BOTH_NORMS(double, ref)
BOTH_NORMS(float, plain)

static void forward_body(suite_run *run, const void *context) {
    const norm_case *c = context;
    sago_device *d = run->device;
    sago_tensor y = suite_typed(run, c->dtype, NULL, DIMS(c->rows, c->width)),
                rstd = suite_f32(run, NULL, DIMS(c->rows));
    sago_tensor x = suite_typed(run, c->dtype, c->x, DIMS(c->rows, c->width)),
                scale = suite_typed(run, c->dtype, c->scale, DIMS(c->width));
    if (c->norm == RMSNORM) {
        suite_ok(d->ops->rmsnorm_forward(d, y, rstd, x, scale, c->epsilon));
    } else {
        sago_tensor mean = suite_f32(run, NULL, DIMS(c->rows));
        suite_ok(d->ops->layernorm_forward(d, y, mean, rstd, x, scale, c->epsilon));
        suite_output(run, "layernorm mean", mean);
    }
    suite_output(run, y_name[c->norm], y);
    suite_output(run, rstd_name[c->norm], rstd);
}

static void check_forward_about(norm of, sago_dtype dtype, int64_t rows, int64_t width, float level) {
    int64_t n = rows * width;
    float *x = suite_normal(n, 1), *scale = suite_normal(width, 2);
    for (int64_t i = 0; i < n; i++) x[i] += level;
    suite_round(dtype, x, n), suite_round(dtype, scale, width);
    norm_case c = {
        .norm = of, .dtype = dtype, .rows = rows, .width = width, .epsilon = 1e-6f, .x = x, .scale = scale};
    suite_result result;
    suite_run_op(forward_body, &c, SUITE_SAME_BITS, &result);
    double *ex = ref_from(x, n), *es = ref_from(scale, width), *ey = ref_array(n), *er = ref_array(rows),
           *em = ref_array(rows);
    float *py = plain_array(n), *pr = plain_array(rows), *pm = plain_array(rows);
    ref_forward(of, ey, em, er, ex, es, rows, width);
    plain_forward(of, py, pm, pr, x, scale, rows, width);
    suite_round(dtype, py, n);
    suite_close(y_name[of], suite_floats(&result, y_name[of]), ey, py, n);
    suite_close(rstd_name[of], suite_floats(&result, rstd_name[of]), er, pr, rows);
    if (of == LAYERNORM) suite_close("layernorm mean", suite_floats(&result, "layernorm mean"), em, pm, rows);
    suite_free(&result);
    free(x), free(scale), free(ex), free(es), free(ey), free(er), free(em), free(py), free(pr), free(pm);
}

static void check_forward(norm of, sago_dtype dtype, shape s) {
    /* A mean about 0 would be compared by the size of what cancellation leaves of it. */
    check_forward_about(of, dtype, s.rows, s.width, of == LAYERNORM ? 3 : 0);
}

static void backward_body(suite_run *run, const void *context) {
    const norm_case *c = context;
    sago_device *d = run->device;
    sago_tensor d_x = suite_typed(run, c->dtype, c->d_x, DIMS(c->rows, c->width)),
                d_scale = suite_f32(run, c->d_scale, DIMS(c->width)),
                d_y = suite_typed(run, c->dtype, c->d_y, DIMS(c->rows, c->width)),
                scale = suite_typed(run, c->dtype, c->scale, DIMS(c->width));
    sago_tensor x = suite_typed(run, c->dtype, c->x, DIMS(c->rows, c->width)),
                rstd = suite_f32(run, c->rstd, DIMS(c->rows));
    if (c->norm == RMSNORM) {
        suite_ok(d->ops->rmsnorm_backward(d, d_x, d_scale, d_y, x, scale, rstd));
    } else {
        sago_tensor mean = suite_f32(run, c->mean, DIMS(c->rows));
        suite_ok(d->ops->layernorm_backward(d, d_x, d_scale, d_y, x, scale, mean, rstd));
    }
    suite_output(run, d_x_name[c->norm], d_x);
    suite_output(run, d_scale_name[c->norm], d_scale);
}

static void check_backward(norm of, sago_dtype dtype, shape s) {
    int64_t rows = s.rows, width = s.width, n = rows * width;
    float *x = suite_normal(n, 1), *scale = suite_normal(width, 2), *d_y = suite_normal(n, 3);
    float *d_x = suite_normal(n, 4), *d_scale = suite_normal(width, 5), *rstd = plain_array(rows),
          *mean = plain_array(rows);
    for (int64_t i = 0; i < n; i++) x[i] += of == LAYERNORM ? 3.0f : 0.0f;
    suite_round(dtype, x, n), suite_round(dtype, scale, width);
    suite_round(dtype, d_y, n), suite_round(dtype, d_x, n);
    float *y = plain_array(n), *pd_x = plain_from(d_x, n), *pd_scale = plain_from(d_scale, width);
    plain_forward(of, y, mean, rstd, x, scale, rows, width);
    norm_case c = {of, dtype, rows, width, 1e-6f, x, scale, d_y, d_x, d_scale, mean, rstd};
    suite_result result;
    suite_run_op(backward_body, &c, SUITE_SAME_BITS, &result);
    double *ex = ref_from(x, n), *es = ref_from(scale, width), *ed = ref_from(d_y, n),
           *er = ref_from(rstd, rows), *em = ref_from(mean, rows);
    double *ed_x = ref_from(d_x, n), *ed_scale = ref_from(d_scale, width);
    ref_backward(of, ed_x, ed_scale, ed, ex, es, em, er, rows, width);
    plain_backward(of, pd_x, pd_scale, d_y, x, scale, mean, rstd, rows, width);
    suite_round(dtype, pd_x, n);
    suite_close(d_x_name[of], suite_floats(&result, d_x_name[of]), ed_x, pd_x, n);
    suite_close(d_scale_name[of], suite_floats(&result, d_scale_name[of]), ed_scale, pd_scale, width);
    suite_free(&result);
    free(x), free(scale), free(d_y), free(d_x), free(d_scale), free(rstd), free(mean), free(y), free(pd_x),
        free(pd_scale);
    free(ex), free(es), free(ed), free(er), free(em), free(ed_x), free(ed_scale);
}

static void check_all(norm of, sago_dtype dtype, void (*check)(norm, sago_dtype, shape)) {
    if (dtype == SAGO_BF16) suite_skip_unless_bf16();
    for (int s = 0; s < LENGTH(shapes); s++) check(of, dtype, shapes[s]);
    for (int s = 0; s < LENGTH(large_shapes); s++) {
        shape now = large_shapes[s];
        /* Many wide rows are for the sums over them. */
        if (check == check_forward && now.rows * now.width > 1 << 20) now.rows = 3;
        check(of, dtype, now);
    }
}

static void test_rmsnorm_forward(void **state) {
    (void)state;
    check_all(RMSNORM, SAGO_F32, check_forward);
}

static void test_rmsnorm_backward(void **state) {
    (void)state;
    check_all(RMSNORM, SAGO_F32, check_backward);
}

static void test_rmsnorm_forward_bf16(void **state) {
    (void)state;
    check_all(RMSNORM, SAGO_BF16, check_forward);
}

static void test_rmsnorm_backward_bf16(void **state) {
    (void)state;
    check_all(RMSNORM, SAGO_BF16, check_backward);
}

static void test_layernorm_forward(void **state) {
    (void)state;
    check_all(LAYERNORM, SAGO_F32, check_forward);
}

static void test_layernorm_backward(void **state) {
    (void)state;
    check_all(LAYERNORM, SAGO_F32, check_backward);
}

static void test_layernorm_forward_bf16(void **state) {
    (void)state;
    check_all(LAYERNORM, SAGO_BF16, check_forward);
}

static void test_layernorm_backward_bf16(void **state) {
    (void)state;
    check_all(LAYERNORM, SAGO_BF16, check_backward);
}

/* A mean far larger than what varies about it: mean(x^2) - mean^2 would have few right digits, or none. */
static void test_layernorm_far_from_zero(void **state) {
    (void)state;
    check_forward_about(LAYERNORM, SAGO_F32, 31, 127, 1000);
    check_forward_about(LAYERNORM, SAGO_F32, 5, 512, -3e4f);
}

/* The loss of the differences: sum of y * d_y. */
static double loss(norm of, const double *x, const double *scale, const double *d_y, int64_t rows,
                   int64_t width) {
    double y[64], mean[8], rstd[8], sum = 0;
    ref_forward(of, y, mean, rstd, x, scale, rows, width);
    for (int64_t i = 0; i < rows * width; i++) sum += y[i] * d_y[i];
    return sum;
}

static void check_formula(norm of) {
    enum { ROWS = 4, WIDTH = 11, N = ROWS * WIDTH };
    float *fx = suite_normal(N, 1), *fs = suite_normal(WIDTH, 2), *fd = suite_normal(N, 3);
    double *x = ref_from(fx, N), *scale = ref_from(fs, WIDTH), *d_y = ref_from(fd, N), y[N], mean[ROWS],
           rstd[ROWS];
    double d_x[N] = {0}, d_scale[WIDTH] = {0}, numeric[N], h = 1e-5;
    ref_forward(of, y, mean, rstd, x, scale, ROWS, WIDTH);
    ref_backward(of, d_x, d_scale, d_y, x, scale, mean, rstd, ROWS, WIDTH);
    for (int part = 0; part < 2; part++) {
        double *p = part ? scale : x;
        int n = part ? WIDTH : N;
        for (int i = 0; i < n; i++) {
            double old = p[i];
            p[i] = old + h;
            double up = loss(of, x, scale, d_y, ROWS, WIDTH);
            p[i] = old - h;
            numeric[i] = (up - loss(of, x, scale, d_y, ROWS, WIDTH)) / (2 * h);
            p[i] = old;
        }
        suite_gradient_close(part ? "d_scale" : "d_x", numeric, part ? d_scale : d_x, n, 1e-8);
    }
    free(fx), free(fs), free(fd), free(x), free(scale), free(d_y);
}

static void test_formulas_by_differences(void **state) {
    (void)state;
    check_formula(RMSNORM);
    check_formula(LAYERNORM);
}

static void test_non_finite_stays(void **state) {
    (void)state;
    float x[3 * 17], scale[17];
    const float bad[] = {NAN, INFINITY, -INFINITY};
    for (int kind = 0; kind < 6; kind++) {
        norm of = kind < 3 ? RMSNORM : LAYERNORM;
        for (int i = 0; i < 3 * 17; i++) x[i] = 1.0f + (float)i;
        for (int i = 0; i < 17; i++) scale[i] = 1;
        x[17 + 5] = bad[kind % 3];
        norm_case c = {.norm = of, .rows = 3, .width = 17, .epsilon = 1e-6f, .x = x, .scale = scale};
        suite_result result;
        suite_run_op(forward_body, &c, SUITE_SAME_BITS, &result);
        const float *y = suite_floats(&result, y_name[of]);
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
    suite_expect_shape_error(d->ops->layernorm_forward(d, y, scale, rstd, x, scale, 1e-6f),
                             "layernorm_forward");
    suite_expect_shape_error(d->ops->layernorm_forward(d, y, rstd, wrong, x, scale, 1e-6f),
                             "layernorm_forward");
    suite_expect_shape_error(d->ops->layernorm_forward(d, other, rstd, rstd, x, scale, 1e-6f),
                             "layernorm_forward");
    suite_expect_shape_error(d->ops->layernorm_forward(d, y, rstd, rstd, x, whole, 1e-6f),
                             "layernorm_forward");
    suite_expect_shape_error(d->ops->layernorm_backward(d, y, wrong, x, x, scale, rstd, rstd),
                             "layernorm_backward");
    suite_expect_shape_error(d->ops->layernorm_backward(d, y, scale, x, other, scale, rstd, rstd),
                             "layernorm_backward");
    suite_expect_shape_error(d->ops->layernorm_backward(d, y, scale, x, x, scale, scale, rstd),
                             "layernorm_backward");
}

static void test_wrong_shapes(void **state) {
    (void)state;
    suite_run_once(shapes_body, NULL);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_rmsnorm_forward),         cmocka_unit_test(test_rmsnorm_backward),
    cmocka_unit_test(test_rmsnorm_forward_bf16),    cmocka_unit_test(test_rmsnorm_backward_bf16),
    cmocka_unit_test(test_layernorm_forward),       cmocka_unit_test(test_layernorm_backward),
    cmocka_unit_test(test_layernorm_forward_bf16),  cmocka_unit_test(test_layernorm_backward_bf16),
    cmocka_unit_test(test_layernorm_far_from_zero), cmocka_unit_test(test_formulas_by_differences),
    cmocka_unit_test(test_non_finite_stays),        cmocka_unit_test(test_wrong_shapes)};
SUITE_MAIN(tests)
