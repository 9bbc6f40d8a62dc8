// SPDX-License-Identifier: Apache-2.0
/**
 * What a step's loss adds up to and what becomes of the step, against formulas in float64. The structs hold
 * doubles, which the suite's tensors do not have, so this program allocates for itself; every device of the
 * suite must leave the same bits as the first.
 */
#include "suite.h"

#include <math.h>

static void *on_device(sago_device *d, const void *values, size_t bytes) {
    void *memory;
    suite_ok(d->ops->allocate(d, &memory, bytes ? bytes : 1));
    suite_ok(d->ops->upload(d, memory, values, bytes));
    return memory;
}

typedef struct loss_case {
    int64_t n;
    sago_cross_entropy_args args;
    float *stats, *weights;
} loss_case;

/* Tokens with weight 0 hold what is not finite. */
static loss_case open_case(int64_t n, float z_loss, float smoothing) {
    loss_case c = {
        n, {0, 1000, z_loss, smoothing, 1}, suite_normal(n * SAGO_CE_STATS, 1), suite_normal(n, 2)};
    for (int64_t i = 0; i < n; i++) {
        float *s = c.stats + i * SAGO_CE_STATS;
        s[SAGO_CE_MAX] = 5 + 3 * s[SAGO_CE_MAX];
        s[SAGO_CE_SUM_EXP] = 1 + 100 * fabsf(s[SAGO_CE_SUM_EXP]);
        s[SAGO_CE_TARGET] = i % 3 == 0 ? s[SAGO_CE_MAX] : s[SAGO_CE_MAX] - fabsf(s[SAGO_CE_TARGET]) - 0.1f;
        s[SAGO_CE_SUM] *= 1000;
        c.weights[i] = i % 5 == 4 ? 0 : fabsf(c.weights[i]) + 0.1f;
        if (i % 10 == 9) s[SAGO_CE_MAX] = NAN, s[SAGO_CE_SUM_EXP] = INFINITY;
    }
    return c;
}

static void close_case(loss_case *c) {
    free(c->stats), free(c->weights);
}

static void run_finish(sago_device *d, const loss_case *c, sago_loss_sums *sums, float *lse) {
    size_t bytes = (size_t)c->n * sizeof *lse;
    float *stats = on_device(d, c->stats, SAGO_CE_STATS * bytes), *weights = on_device(d, c->weights, bytes),
          *out = on_device(d, lse, bytes);
    sago_loss_sums *memory = on_device(d, sums, sizeof *sums);
    suite_ok(d->ops->loss_finish(d, sago_tensor_1d(out, SAGO_F32, c->n), memory,
                                 sago_tensor_2d(stats, SAGO_F32, c->n, SAGO_CE_STATS),
                                 sago_tensor_1d(weights, SAGO_F32, c->n), &c->args));
    suite_ok(d->ops->download(d, sums, memory, sizeof *sums));
    suite_ok(d->ops->download(d, lse, out, bytes));
    d->ops->release(d, stats), d->ops->release(d, weights);
    d->ops->release(d, out), d->ops->release(d, memory);
}

static void expect_near(const char *what, int64_t n, double got, double exact, double size) {
    if (!(fabs(got - exact) <= 1e-13 * size))
        fail_msg("%s of %lld tokens: %.17g, must be %.17g", what, (long long)n, got, exact);
}

static void expect_finish(const loss_case *c) {
    const sago_loss_sums start = {3.5, 0.25, -7, 2, 4};
    sago_loss_sums exact = start, first = start;
    float *lse = suite_normal(c->n, 3), *again = suite_normal(c->n, 3), *plain = suite_normal(c->n, 3);
    double *true_lse = suite_to_double(lse, c->n), size = 20;
    run_finish(suite_device(0), c, &first, lse);
    for (int64_t i = 0; i < c->n; i++) {
        const float *s = c->stats + i * SAGO_CE_STATS;
        double w = (double)c->weights[i], l = (double)s[SAGO_CE_MAX] + log((double)s[SAGO_CE_SUM_EXP]),
               target = (double)s[SAGO_CE_TARGET], smoothing = (double)c->args.label_smoothing;
        if (!isfinite(l)) {
            assert_false(isfinite(lse[i]));
            lse[i] = plain[i] = 0, true_lse[i] = 0;
            continue;
        }
        true_lse[i] = l, plain[i] = (float)l;
        if (w == 0) continue;
        double z = (double)c->args.z_loss * l * l, mean = (double)s[SAGO_CE_SUM] / (double)c->args.vocabulary;
        exact.nll += w * (l - target);
        exact.z += w * z;
        exact.objective += w * (l - (1 - smoothing) * target - smoothing * mean + z);
        exact.correct += target >= (double)s[SAGO_CE_MAX];
        exact.tokens += 1;
        size += w * (fabs(l) + fabs(target) + fabs(mean) + z);
    }
    suite_close("lse", lse, true_lse, plain, c->n);
    expect_near("nll", c->n, first.nll, exact.nll, size);
    expect_near("z", c->n, first.z, exact.z, size);
    expect_near("objective", c->n, first.objective, exact.objective, size);
    assert_true(first.correct == exact.correct && first.tokens == exact.tokens);
    for (int k = 0; k < suite_n_devices(); k++) {
        sago_loss_sums now = start;
        run_finish(suite_device(k), c, &now, again);
        if (memcmp(&now, &first, sizeof now) != 0)
            fail_msg("%s leaves other sums", suite_device(k)->description);
    }
    free(lse), free(again), free(plain), free(true_lse);
}

static void test_loss_finish(void **state) {
    (void)state;
    static const int64_t counts[] = {0, 1, 31, 256, 257, 1000, 70000};
    for (int i = 0; i < LENGTH(counts) - (suite_is_sim() ? 1 : 0); i++)
        for (int smooth = 0; smooth < 2; smooth++) {
            loss_case c = open_case(counts[i], smooth ? 1e-2f : 0, smooth ? 0.1f : 0);
            expect_finish(&c);
            close_case(&c);
        }
}

/* A token with weight whose loss is not finite is seen in the sums. */
static void test_loss_not_finite(void **state) {
    (void)state;
    loss_case c = open_case(40, 1e-4f, 0);
    sago_loss_sums sums = {0};
    float lse[40];
    c.weights[9] = 1; /* whose statistics are not finite */
    run_finish(suite_device(0), &c, &sums, lse);
    assert_false(isfinite(sums.nll));
    assert_true(sums.tokens == 33);
    close_case(&c);
}

static void test_step_control(void **state) {
    (void)state;
    static const double squares[] = {0, 4, 1e-300, 1e300, INFINITY, NAN}, norms[] = {0, 0.5, 2, 3, 1e200},
                        losses[] = {0, 1.5, -2, INFINITY, -INFINITY, NAN};
    for (int k = 0; k < suite_n_devices(); k++) {
        sago_device *d = suite_device(k);
        for (int i = 0; i < LENGTH(squares) * LENGTH(norms) * LENGTH(losses) * LENGTH(losses); i++) {
            int rest = i;
            double square = squares[rest % LENGTH(squares)];
            rest /= LENGTH(squares);
            double clip = norms[rest % LENGTH(norms)];
            rest /= LENGTH(norms);
            sago_loss_sums sums = {.nll = losses[rest % LENGTH(losses)], .z = losses[rest / LENGTH(losses)]};
            if (k > 0 && i % 7) continue;
            sago_step_control control = {1e9, 1e9, 77, 0};
            double *from = on_device(d, &square, sizeof square);
            sago_loss_sums *loss = on_device(d, &sums, sizeof sums);
            sago_step_control *to = on_device(d, &control, sizeof control);
            suite_ok(d->ops->step_control(d, to, from, loss, clip));
            suite_ok(d->ops->download(d, &control, to, sizeof control));
            d->ops->release(d, from), d->ops->release(d, loss), d->ops->release(d, to);
            bool finite = isfinite(square) && isfinite(sums.nll) && isfinite(sums.z);
            double norm = sqrt(square), scale = clip > 0 && norm > clip ? clip / norm : 1;
            assert_int_equal(control.apply, finite);
            assert_memory_equal(&control.gradient_squares, &square, sizeof square);
            if (control.gradient_scale != scale)
                fail_msg("clip %g of norm %g: %g, must be %g", clip, norm, control.gradient_scale, scale);
        }
    }
}

static void test_carry_nonfinite(void **state) {
    (void)state;
    enum { N = 5 };
    static const double losses[] = {0, -3, INFINITY, -INFINITY, NAN};
    const float before[N] = {1, -2, 3, -4, 5};
    for (int k = 0; k < suite_n_devices(); k++)
        for (int i = 0; i < LENGTH(losses) * LENGTH(losses); i++) {
            sago_device *d = suite_device(k);
            sago_loss_sums sums = {.nll = losses[i % LENGTH(losses)],
                                   .z = losses[i / LENGTH(losses)],
                                   .objective = NAN, /* which is not asked */
                                   .correct = INFINITY};
            float now[N];
            float *gradient = on_device(d, before, sizeof before);
            sago_loss_sums *loss = on_device(d, &sums, sizeof sums);
            suite_ok(d->ops->carry_nonfinite(d, sago_tensor_1d(gradient, SAGO_F32, N), loss));
            suite_ok(d->ops->download(d, now, gradient, sizeof now));
            d->ops->release(d, gradient), d->ops->release(d, loss);
            if (isfinite(sums.nll) && isfinite(sums.z))
                assert_memory_equal(now, before, sizeof now);
            else
                assert_true(isnan(now[0]));
            assert_memory_equal(now + 1, before + 1, sizeof now - sizeof *now);
        }
}

static void test_wrong_shapes(void **state) {
    (void)state;
    sago_device *d = suite_device(0);
    const float zeros[16] = {0};
    float *memory = on_device(d, zeros, sizeof zeros);
    sago_loss_sums *sums = on_device(d, zeros, sizeof *sums);
    sago_tensor stats = sago_tensor_2d(memory, SAGO_F32, 4, SAGO_CE_STATS),
                four = sago_tensor_1d(memory, SAGO_F32, 4), three = sago_tensor_1d(memory, SAGO_F32, 3);
    sago_cross_entropy_args args = {.vocabulary = 8}, nothing = {0};
    suite_expect_shape_error(d->ops->loss_finish(d, three, sums, stats, four, &args), "loss_finish");
    suite_expect_shape_error(d->ops->loss_finish(d, four, sums, stats, three, &args), "loss_finish");
    suite_expect_shape_error(d->ops->loss_finish(d, four, sums, four, four, &args), "loss_finish");
    suite_expect_shape_error(d->ops->loss_finish(d, four, NULL, stats, four, &args), "loss_finish");
    suite_expect_shape_error(d->ops->loss_finish(d, four, sums, stats, four, &nothing), "loss_finish");
    suite_expect_shape_error(d->ops->carry_nonfinite(d, sago_tensor_1d(memory, SAGO_F32, 0), sums),
                             "carry_nonfinite");
    suite_expect_shape_error(d->ops->carry_nonfinite(d, sago_tensor_1d(memory, SAGO_I32, 3), sums),
                             "carry_nonfinite");
    suite_expect_shape_error(d->ops->carry_nonfinite(d, four, NULL), "carry_nonfinite");
    d->ops->release(d, memory), d->ops->release(d, sums);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_loss_finish), cmocka_unit_test(test_loss_not_finite),
    cmocka_unit_test(test_step_control), cmocka_unit_test(test_carry_nonfinite),
    cmocka_unit_test(test_wrong_shapes)};
SUITE_MAIN(tests)
