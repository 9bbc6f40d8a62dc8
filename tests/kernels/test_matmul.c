// SPDX-License-Identifier: Apache-2.0
#include "reference.h"
#include "suite.h"

typedef struct product {
    int64_t m, n, k;
    sago_matmul_args args;
    const float *a, *b, *c;
    sago_dtype in, out; /* of a and b; of c */
} product;

static void body(suite_run *run, const void *context) {
    const product *p = context;
    const int64_t *a_shape = p->args.transpose_a ? (int64_t[]){p->k, p->m} : (int64_t[]){p->m, p->k};
    const int64_t *b_shape = p->args.transpose_b ? (int64_t[]){p->n, p->k} : (int64_t[]){p->k, p->n};
    sago_tensor c = suite_typed(run, p->out, p->c, DIMS(p->m, p->n));
    sago_tensor a = suite_typed(run, p->in, p->a, 2, a_shape);
    sago_tensor b = suite_typed(run, p->in, p->b, 2, b_shape);
    suite_ok(run->device->ops->matmul(run->device, c, a, b, &p->args));
    suite_output(run, "matmul c", c);
}

/* Operands that are stored in bf16, or rounded to it inside, are rounded here first; c is rounded where it is
 * bf16. */
static void check(int64_t m, int64_t n, int64_t k, sago_matmul_args args, sago_dtype in, sago_dtype out) {
    float *a = suite_normal(m * k, 1), *b = suite_normal(k * n, 2), *c = suite_normal(m * n, 3);
    /* beta 0 must not read c: it begins as NaN then. */
    product p = {m, n, k, args, a, b, args.beta == 0 ? NULL : c, in, out};
    suite_result result;
    suite_run_op(body, &p, SUITE_THREADS_MAY_DIFFER, &result);
    sago_dtype operands = args.bf16 ? SAGO_BF16 : in;
    suite_round(operands, a, m * k);
    suite_round(operands, b, k * n);
    suite_round(out, c, m * n);
    double *ea = ref_from(a, m * k), *eb = ref_from(b, k * n), *ec = ref_from(c, m * n);
    float *pc = plain_from(c, m * n);
    ref_matmul(ec, ea, eb, m, n, k, args.transpose_a, args.transpose_b, args.alpha, args.beta);
    plain_matmul(pc, a, b, m, n, k, args.transpose_a, args.transpose_b, args.alpha, args.beta);
    suite_round(out, pc, m * n);
    suite_close(operands == SAGO_BF16 ? "matmul bf16" : "matmul f32", suite_floats(&result, "matmul c"), ec,
                pc, m * n);
    suite_free(&result);
    free(a), free(b), free(c), free(ea), free(eb), free(ec), free(pc);
}

static const int64_t shapes[][3] = {{1, 1, 1},    {1, 512, 64},  {8, 97, 131}, {2, 33, 7},
                                    {3, 1, 5},    {4, 130, 16},  {5, 61, 67},  {6, 600, 20},
                                    {7, 1031, 9}, {9, 17, 23},   {64, 64, 64}, {67, 129, 31},
                                    {128, 96, 1}, {1, 1000, 33}, {8, 64, 256}, {200, 1, 40}};

static void check_all(bool bf16, sago_dtype in, sago_dtype out) {
    static const float factors[][2] = {{1, 0}, {1, 1}, {0.5f, -2}};
    for (int s = 0; s < LENGTH(shapes); s++)
        for (int transposes = 0; transposes < 4; transposes++)
            for (int f = 0; f < LENGTH(factors); f++) {
                sago_matmul_args args = {(transposes & 1) != 0, (transposes & 2) != 0, factors[f][0],
                                         factors[f][1], bf16};
                check(shapes[s][0], shapes[s][1], shapes[s][2], args, in, out);
            }
}

static void test_f32(void **state) {
    (void)state;
    check_all(false, SAGO_F32, SAGO_F32);
}

static void test_bf16(void **state) {
    (void)state;
    check_all(true, SAGO_F32, SAGO_F32);
}

static void test_stored_bf16(void **state) {
    (void)state;
    suite_skip_unless_bf16();
    check_all(true, SAGO_BF16, SAGO_F32);
    check_all(false, SAGO_BF16, SAGO_BF16);
}

/* Operands of different dtypes, and sums of fp32 operands in bf16, are nobody's products; nor is bf16 without
 * it. */
static void mixed_body(suite_run *run, const void *context) {
    (void)context;
    const sago_ops *ops = run->device->ops;
    const sago_matmul_args args = {.alpha = 1};
    sago_tensor f = suite_f32(run, NULL, DIMS(4, 4)), g = suite_f32(run, NULL, DIMS(4, 4));
    sago_tensor h = suite_bf16(run, NULL, DIMS(4, 4)), i = suite_bf16(run, NULL, DIMS(4, 4));
    suite_expect_shape_error(ops->matmul(run->device, f, g, h, &args), "matmul");
    suite_expect_shape_error(ops->matmul(run->device, f, h, g, &args), "matmul");
    suite_expect_shape_error(ops->matmul(run->device, h, f, g, &args), "matmul");
    if (!run->device->stores_bf16)
        suite_expect_shape_error(ops->matmul(run->device, f, h, i, &args), "matmul");
}

static void test_mixed(void **state) {
    (void)state;
    suite_run_once(mixed_body, NULL);
}

/* Empty sizes: no rows leave nothing to do; an empty sum is 0, so that beta * c remains. */
static void empty_body(suite_run *run, const void *context) {
    (void)context;
    const float c_values[6] = {1, 2, 3, 4, 5, 6};
    sago_device *d = run->device;
    sago_tensor c = suite_f32(run, c_values, DIMS(2, 3)), a = suite_f32(run, NULL, DIMS(2, 0));
    sago_tensor b = suite_f32(run, NULL, DIMS(0, 3)), none = suite_f32(run, NULL, DIMS(0, 3));
    sago_tensor wide = suite_f32(run, c_values, DIMS(3, 2)), overwritten = suite_f32(run, NULL, DIMS(2, 3));
    suite_ok(d->ops->matmul(d, c, a, b, &(sago_matmul_args){.alpha = 1, .beta = 2}));
    suite_ok(d->ops->matmul(d, overwritten, a, b, &(sago_matmul_args){.alpha = 1}));
    suite_ok(d->ops->matmul(d, none, none, sago_tensor_2d(wide.data, SAGO_F32, 3, 3),
                            &(sago_matmul_args){.alpha = 1}));
    suite_output(run, "doubled", c);
    suite_output(run, "zero", overwritten);
}

static void test_empty(void **state) {
    (void)state;
    suite_result result;
    suite_run_op(empty_body, NULL, SUITE_SAME_BITS, &result);
    for (int i = 0; i < 6; i++) {
        assert_true(suite_floats(&result, "doubled")[i] == 2.0f * (float)(i + 1));
        assert_true(suite_floats(&result, "zero")[i] == 0.0f);
    }
    suite_free(&result);
}

/* [B, S, D] is a matrix of B * S rows. */
static void flattened_body(suite_run *run, const void *context) {
    const float *const *values = context;
    sago_device *d = run->device;
    sago_tensor c = suite_f32(run, NULL, DIMS(2, 3, 4)), a = suite_f32(run, values[0], DIMS(2, 3, 5));
    sago_tensor b = suite_f32(run, values[1], DIMS(5, 4)), g = suite_f32(run, NULL, DIMS(5, 4));
    suite_ok(d->ops->matmul(d, c, a, b, &(sago_matmul_args){.alpha = 1}));
    suite_ok(d->ops->matmul(d, g, a, c, &(sago_matmul_args){.alpha = 1, .transpose_a = true}));
    suite_output(run, "c", c);
    suite_output(run, "g", g);
}

static void test_flattened(void **state) {
    (void)state;
    float *a = suite_normal(30, 1), *b = suite_normal(20, 2), pc[24], pg[20];
    const float *values[2] = {a, b};
    suite_result result;
    suite_run_op(flattened_body, values, SUITE_THREADS_MAY_DIFFER, &result);
    double *ea = ref_from(a, 30), *eb = ref_from(b, 20), c[24], g[20];
    ref_matmul(c, ea, eb, 6, 4, 5, false, false, 1, 0);
    plain_matmul(pc, a, b, 6, 4, 5, false, false, 1, 0);
    suite_close("matmul flattened", suite_floats(&result, "c"), c, pc, 24);
    ref_matmul(g, ea, c, 5, 4, 6, true, false, 1, 0);
    plain_matmul(pg, a, pc, 5, 4, 6, true, false, 1, 0);
    suite_close("matmul flattened", suite_floats(&result, "g"), g, pg, 20);
    suite_free(&result);
    free(a), free(b), free(ea), free(eb);
}

static void test_non_finite_stays(void **state) {
    (void)state;
    for (int bf16 = 0; bf16 < 2; bf16++)
        for (int64_t m = 2; m < 40; m += 30)
            for (int side = 0; side < 2; side++) {
                float *a = suite_normal(m * 20, 1), *b = suite_normal(20 * 30, 2);
                (side ? b : a)[0] = side ? INFINITY : NAN;
                product p = {m, 30, 20, {.alpha = 1, .bf16 = bf16 != 0}, a, b, NULL};
                suite_result result;
                suite_run_op(body, &p, SUITE_THREADS_MAY_DIFFER, &result);
                const float *c = suite_floats(&result, "matmul c");
                for (int64_t i = 0; i < m; i++)
                    for (int64_t j = 0; j < 30; j++)
                        assert_int_equal(!isfinite(c[i * 30 + j]), side ? j == 0 : i == 0);
                suite_free(&result);
                free(a), free(b);
            }
}

static void shapes_body(suite_run *run, const void *context) {
    (void)context;
    sago_device *d = run->device;
    float zeros[12] = {0};
    sago_tensor a = suite_f32(run, zeros, DIMS(2, 3)), b = suite_f32(run, zeros, DIMS(3, 4));
    sago_tensor c = suite_f32(run, zeros, DIMS(2, 4)), wrong = suite_f32(run, zeros, DIMS(4, 2));
    const sago_matmul_args plain = {.alpha = 1}, ta = {.alpha = 1, .transpose_a = true},
                           tb = {.alpha = 1, .transpose_b = true};
    suite_expect_shape_error(d->ops->matmul(d, wrong, a, b, &plain), "matmul");
    suite_expect_shape_error(d->ops->matmul(d, c, b, a, &plain), "matmul");
    suite_expect_shape_error(d->ops->matmul(d, c, a, b, &ta), "matmul");
    suite_expect_shape_error(d->ops->matmul(d, c, a, b, &tb), "matmul");
}

static void test_wrong_shapes(void **state) {
    (void)state;
    suite_run_once(shapes_body, NULL);
}

static const struct CMUnitTest tests[] = {cmocka_unit_test(test_f32),
                                          cmocka_unit_test(test_bf16),
                                          cmocka_unit_test(test_stored_bf16),
                                          cmocka_unit_test(test_mixed),
                                          cmocka_unit_test(test_empty),
                                          cmocka_unit_test(test_flattened),
                                          cmocka_unit_test(test_non_finite_stays),
                                          cmocka_unit_test(test_wrong_shapes)};
SUITE_MAIN(tests)
