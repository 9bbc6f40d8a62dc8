// SPDX-License-Identifier: Apache-2.0
#include "reference.h"
#include "suite.h"

typedef enum place { IN_PLACE, BESIDE, BESIDE_BF16 } place; /* of the gradient */

typedef struct loss_case {
    int64_t rows, width;
    sago_cross_entropy_args args;
    const float *logits, *lse, *weights;
    const int32_t *targets;
    place place;
} loss_case;

static void forward_body(suite_run *run, const void *context) {
    const loss_case *c = context;
    sago_tensor stats = suite_f32(run, NULL, DIMS(c->rows, SAGO_CE_STATS));
    sago_tensor logits = suite_f32(run, c->logits, DIMS(c->rows, c->width));
    sago_tensor targets = suite_i32(run, c->targets, DIMS(c->rows));
    suite_ok(run->device->ops->cross_entropy_forward(run->device, stats, logits, targets, &c->args));
    suite_output(run, "stats", stats);
}

static void backward_body(suite_run *run, const void *context) {
    const loss_case *c = context;
    sago_tensor logits = suite_f32(run, c->logits, DIMS(c->rows, c->width)),
                lse = suite_f32(run, c->lse, DIMS(c->rows));
    sago_tensor targets = suite_i32(run, c->targets, DIMS(c->rows)),
                weights = suite_f32(run, c->weights, DIMS(c->rows));
    sago_tensor d_logits = logits;
    if (c->place != IN_PLACE)
        d_logits = suite_typed(run, c->place == BESIDE ? SAGO_F32 : SAGO_BF16, NULL, DIMS(c->rows, c->width));
    suite_ok(run->device->ops->cross_entropy_backward(run->device, d_logits, logits, lse, targets, weights,
                                                      &c->args));
    suite_output(run, "d_logits", d_logits);
}

static const int64_t shapes[][2] = {{1, 1}, {1, 32128}, {7, 13}, {3, 2048}, {5, 4099}, {64, 31}, {0, 16}};

/* The parts of one row, in the precision of REAL; the maximum has no error. */
static void exact_stats(double *out, const float *x, int64_t width, int32_t target) {
    double max = (double)x[0], sum = 0, all = 0;
    for (int64_t i = 0; i < width; i++) max = fmax(max, (double)x[i]);
    for (int64_t i = 0; i < width; i++) sum += exp((double)x[i] - max), all += (double)x[i];
    out[SAGO_CE_MAX] = max, out[SAGO_CE_SUM_EXP] = sum, out[SAGO_CE_SUM] = all;
    out[SAGO_CE_TARGET] = target >= 0 && target < width ? (double)x[target] : 0;
}

static void plain_stats(float *out, const float *x, int64_t width, int32_t target) {
    float max = x[0], sum = 0, all = 0;
    for (int64_t i = 0; i < width; i++) max = fmaxf(max, x[i]);
    for (int64_t i = 0; i < width; i++) sum += expf(x[i] - max), all += x[i];
    out[SAGO_CE_MAX] = max, out[SAGO_CE_SUM_EXP] = sum, out[SAGO_CE_SUM] = all;
    out[SAGO_CE_TARGET] = target >= 0 && target < width ? x[target] : 0;
}

static int32_t *some_targets(int64_t rows, int64_t width, int64_t first_id) {
    int32_t *targets = malloc((size_t)(rows + 1) * sizeof *targets);
    for (int64_t r = 0; r < rows; r++)
        targets[r] = (int32_t)first_id + (int32_t)sago_below(sago_mix(3, (uint64_t)r), (uint64_t)width);
    return targets;
}

static void test_forward(void **state) {
    (void)state;
    for (int s = 0; s < LENGTH(shapes); s++)
        for (int64_t first_id = 0; first_id < 200; first_id += 100) {
            int64_t rows = shapes[s][0], width = shapes[s][1], n = rows * SAGO_CE_STATS;
            float *logits = suite_normal(rows * width, 1);
            for (int64_t i = 0; i < rows * width; i++) logits[i] = logits[i] * 5 + 3;
            int32_t *targets = some_targets(rows, width, first_id);
            if (rows > 2) targets[1] = (int32_t)(first_id + width), targets[2] = -1; /* not in this slice */
            loss_case c = {rows, width, {first_id, 1000000, 0, 0, 1}, logits, NULL, NULL, targets};
            suite_result result;
            suite_run_op(forward_body, &c, SUITE_SAME_BITS, &result);
            const float *got = suite_floats(&result, "stats");
            double *exact = ref_array(n);
            float *plain = plain_array(n);
            for (int64_t r = 0; r < rows; r++) {
                exact_stats(exact + r * SAGO_CE_STATS, logits + r * width, width,
                            targets[r] - (int32_t)first_id);
                plain_stats(plain + r * SAGO_CE_STATS, logits + r * width, width,
                            targets[r] - (int32_t)first_id);
            }
            static const char *const names[SAGO_CE_STATS] = {"CE max", "CE sum of exp", "CE target",
                                                             "CE sum"};
            for (int part = 0; part < SAGO_CE_STATS; part++) {
                float *g = plain_array(rows), *p = plain_array(rows);
                double *e = ref_array(rows);
                for (int64_t r = 0; r < rows; r++) {
                    g[r] = got[r * SAGO_CE_STATS + part], p[r] = plain[r * SAGO_CE_STATS + part];
                    e[r] = exact[r * SAGO_CE_STATS + part];
                }
                suite_close(names[part], g, e, p, rows);
                free(g), free(p), free(e);
            }
            suite_free(&result);
            free(logits), free(targets), free(exact), free(plain);
        }
}

static void expect_gradient(int64_t rows, int64_t width, float z, float smoothing, place where) {
    int64_t n = rows * width;
    float scale = 1.0f / 17;
    float *logits = suite_normal(n, 1), *lse = plain_array(rows), *weights = plain_array(rows),
          *plain = plain_array(n);
    int32_t *targets = some_targets(rows, width, 50);
    double *x = ref_from(logits, n), *exact = ref_array(n);
    for (int64_t r = 0; r < rows; r++) {
        double l;
        ref_cross_entropy(&l, x + r * width, width, 0, 0, 0);
        lse[r] = (float)l;
        weights[r] = r % 3 == 1 ? 0.0f : 0.5f + (float)r;
        if (weights[r] == 0) { /* no gradient, whatever stands there */
            logits[r * width] = NAN, lse[r] = INFINITY;
            continue;
        }
        if (r == 4) targets[r] = -1; /* the target is in another slice */
        ref_cross_entropy_gradient(exact + r * width, x + r * width, (double)lse[r], width, targets[r] - 50,
                                   (double)z, (double)smoothing, (double)(width + 77),
                                   (double)weights[r] * (double)scale);
        plain_cross_entropy_gradient(plain + r * width, logits + r * width, lse[r], width, targets[r] - 50, z,
                                     smoothing, (float)(width + 77), weights[r] * scale);
    }
    suite_round(where == BESIDE_BF16 ? SAGO_BF16 : SAGO_F32, plain, n);
    loss_case c = {rows, width, {50, width + 77, z, smoothing, scale}, logits, lse, weights, targets, where};
    suite_result result;
    suite_run_op(backward_body, &c, SUITE_SAME_BITS, &result);
    suite_close(where == BESIDE_BF16 ? "CE d_logits bf16" : "CE d_logits", suite_floats(&result, "d_logits"),
                exact, plain, n);
    suite_free(&result);
    free(logits), free(lse), free(weights), free(plain), free(targets), free(x), free(exact);
}

static void test_backward(void **state) {
    (void)state;
    for (int s = 0; s < LENGTH(shapes); s++) {
        expect_gradient(shapes[s][0], shapes[s][1], 0, 0, IN_PLACE);
        expect_gradient(shapes[s][0], shapes[s][1], 1e-4f, 0, BESIDE);
        expect_gradient(shapes[s][0], shapes[s][1], 1e-2f, 0.1f, IN_PLACE);
    }
}

static void test_backward_to_bf16(void **state) {
    (void)state;
    suite_skip_unless_bf16();
    for (int s = 0; s < LENGTH(shapes); s++)
        expect_gradient(shapes[s][0], shapes[s][1], 1e-4f, 0.1f, BESIDE_BF16);
}

static void test_formula_by_differences(void **state) {
    (void)state;
    enum { V = 19 };
    float *random = suite_normal(V, 4);
    double *x = ref_from(random, V), d[V], numeric[V], lse, ignored, h = 1e-5;
    ref_cross_entropy(&lse, x, V, 7, 1e-2, 0.1);
    ref_cross_entropy_gradient(d, x, lse, V, 7, 1e-2, 0.1, V, 1);
    for (int i = 0; i < V; i++) {
        double old = x[i];
        x[i] = old + h;
        double up = ref_cross_entropy(&ignored, x, V, 7, 1e-2, 0.1);
        x[i] = old - h;
        numeric[i] = (up - ref_cross_entropy(&ignored, x, V, 7, 1e-2, 0.1)) / (2 * h);
        x[i] = old;
    }
    suite_gradient_close("d_logits", numeric, d, V, 1e-8);
    free(random), free(x);
}

typedef struct combine_case {
    int64_t rows, slices;
    const float *parts;
} combine_case;

static void combine_body(suite_run *run, const void *context) {
    const combine_case *c = context;
    sago_tensor stats = suite_f32(run, NULL, DIMS(c->rows, SAGO_CE_STATS));
    sago_tensor parts = suite_f32(run, c->parts, DIMS(c->slices, c->rows, SAGO_CE_STATS));
    suite_ok(run->device->ops->cross_entropy_combine(run->device, stats, parts));
    suite_output(run, "stats", stats);
}

/* Columns [first, first + width) of rows of V logits: what the device leaves of them. */
static void slice_stats(float *out, const float *logits, const int32_t *targets, int64_t rows, int64_t v,
                        int64_t first, int64_t width) {
    float *part = plain_array(rows * width);
    for (int64_t r = 0; r < rows; r++)
        memcpy(part + r * width, logits + r * v + first, (size_t)width * sizeof(float));
    loss_case c = {rows, width, {first, v, 0, 0, 1}, part, NULL, NULL, targets};
    suite_result result;
    suite_run_op(forward_body, &c, SUITE_SAME_BITS, &result);
    memcpy(out, suite_floats(&result, "stats"), (size_t)(rows * SAGO_CE_STATS) * sizeof(float));
    suite_free(&result);
    free(part);
}

/* Slices of a vocabulary, from one to eight and one of a single id: the statistics and the loss of all of it.
 */
static void test_combine(void **state) {
    (void)state;
    enum { ROWS = 150, V = 1500, MOST = 8 };
    static const int64_t cuts[][MOST + 1] = {
        {0, V}, {0, 899, V}, {0, 1, 700, V}, {0, 200, 400, 600, 800, 1000, 1200, 1400, V}};
    const int64_t n = ROWS * SAGO_CE_STATS;
    float *logits = suite_normal(ROWS * V, 2), *parts = plain_array(MOST * n), *plain = plain_array(n);
    double *exact = ref_array(n);
    int32_t *targets = some_targets(ROWS, V, 0);
    /* Slices whose maxima lie far apart, either way. */
    for (int i = 0; i < ROWS * V; i++) logits[i] = logits[i] * 4 + (i / V % 3 - 1) * (float)(i % V) / 50;
    for (int r = 0; r < ROWS; r++) {
        exact_stats(exact + r * SAGO_CE_STATS, logits + r * V, V, targets[r]);
        plain_stats(plain + r * SAGO_CE_STATS, logits + r * V, V, targets[r]);
    }
    for (int k = 0; k < LENGTH(cuts); k++) {
        int64_t slices = 0;
        do {
            slice_stats(parts + slices * n, logits, targets, ROWS, V, cuts[k][slices],
                        cuts[k][slices + 1] - cuts[k][slices]);
        } while (cuts[k][++slices] < V);
        combine_case c = {ROWS, slices, parts};
        suite_result result;
        suite_run_op(combine_body, &c, SUITE_SAME_BITS, &result);
        const float *got = suite_floats(&result, "stats");
        if (slices == 1) assert_memory_equal(got, parts, (size_t)n * sizeof(float));
        static const char *const names[SAGO_CE_STATS] = {"combined max", "combined sum of exp",
                                                         "combined target", "combined sum"};
        for (int part = 0; part < SAGO_CE_STATS; part++) {
            float g[ROWS], p[ROWS];
            double e[ROWS];
            for (int64_t r = 0; r < ROWS; r++) {
                g[r] = got[r * SAGO_CE_STATS + part], p[r] = plain[r * SAGO_CE_STATS + part];
                e[r] = exact[r * SAGO_CE_STATS + part];
            }
            suite_close(names[part], g, e, p, ROWS);
        }
        for (int r = 0; r < ROWS; r++) {
            const float *s = got + r * SAGO_CE_STATS;
            double *x = ref_from(logits + r * V, V), lse;
            ref_cross_entropy(&lse, x, V, targets[r], 0, 0);
            assert_true(fabs((double)s[SAGO_CE_MAX] + log((double)s[SAGO_CE_SUM_EXP]) - lse) < 1e-5);
            assert_true(s[SAGO_CE_TARGET] == logits[r * V + targets[r]]);
            free(x);
        }
        suite_free(&result);
    }
    free(logits), free(parts), free(plain), free(exact), free(targets);
}

/* Slices of -inf add nothing, one of them or all, and what is not finite stays so. */
static void test_combine_extremes(void **state) {
    (void)state;
    enum { ROWS = 5 };
    const float none = -INFINITY;
    const float parts[2][ROWS][SAGO_CE_STATS] = {
        {{none, 0, 0, none},
         {none, 0, 0, none},
         {1, NAN, 0, NAN},
         {INFINITY, NAN, 0, INFINITY},
         {3e38f, 2, 3e38f, 1}},
        {{2, 3, 1.5f, 4}, {none, 0, none, none}, {2, 3, 1, 4}, {2, 3, 1, 4}, {-3e38f, 5, 0, 2}}};
    combine_case c = {ROWS, 2, &parts[0][0][0]};
    suite_result result;
    suite_run_op(combine_body, &c, SUITE_SAME_BITS, &result);
    const float *s = suite_floats(&result, "stats");
    assert_true(s[SAGO_CE_MAX] == 2 && s[SAGO_CE_SUM_EXP] == 3 && s[SAGO_CE_TARGET] == 1.5f);
    s += SAGO_CE_STATS;
    assert_true(s[SAGO_CE_MAX] == none && s[SAGO_CE_SUM_EXP] == 0 && s[SAGO_CE_TARGET] == none);
    s += SAGO_CE_STATS;
    assert_true(isnan(s[SAGO_CE_SUM_EXP]) && isnan(s[SAGO_CE_SUM]) && s[SAGO_CE_TARGET] == 1);
    s += SAGO_CE_STATS;
    assert_true(s[SAGO_CE_MAX] == INFINITY && isnan(s[SAGO_CE_SUM_EXP]));
    s += SAGO_CE_STATS;
    assert_true(s[SAGO_CE_MAX] == 3e38f && s[SAGO_CE_SUM_EXP] == 2 && s[SAGO_CE_TARGET] == 3e38f &&
                s[SAGO_CE_SUM] == 3);
    suite_free(&result);
    combine_case empty = {0, 3, &parts[0][0][0]};
    suite_run_op(combine_body, &empty, SUITE_SAME_BITS, &result);
    suite_free(&result);
}

static void test_extremes(void **state) {
    (void)state;
    enum { V = 4500 };
    float *x = plain_array(5 * V);
    int32_t targets[5] = {1, 1, 1, 1, 1};
    for (int i = 0; i < 5 * V; i++) x[i] = (float)(i % 7);
    x[V + 4000] = NAN;
    x[2 * V + 3] = INFINITY;
    for (int i = 0; i < V; i++) x[3 * V + i] = i < 4400 ? -INFINITY : 1.0f; /* ids that may not be said */
    for (int i = 0; i < V; i++) x[4 * V + i] = i == 4490 ? 3e38f : -3e38f;
    loss_case c = {5, V, {0, V, 0, 0, 1}, x, NULL, NULL, targets};
    suite_result result;
    suite_run_op(forward_body, &c, SUITE_SAME_BITS, &result);
    const float *s = suite_floats(&result, "stats");
    assert_true(isfinite(s[SAGO_CE_SUM_EXP]));
    assert_true(!isfinite(s[SAGO_CE_STATS + SAGO_CE_SUM_EXP]));
    assert_true(!isfinite(s[2 * SAGO_CE_STATS + SAGO_CE_SUM_EXP]));
    assert_true(s[3 * SAGO_CE_STATS + SAGO_CE_MAX] == 1.0f &&
                s[3 * SAGO_CE_STATS + SAGO_CE_SUM_EXP] == 100.0f);
    assert_true(s[4 * SAGO_CE_STATS + SAGO_CE_MAX] == 3e38f &&
                s[4 * SAGO_CE_STATS + SAGO_CE_SUM_EXP] == 1.0f);
    suite_free(&result);
    free(x);
}

static void shapes_body(suite_run *run, const void *context) {
    (void)context;
    sago_device *d = run->device;
    float zeros[32] = {0};
    int32_t ints[4] = {0};
    sago_tensor stats = suite_f32(run, zeros, DIMS(4, SAGO_CE_STATS)),
                logits = suite_f32(run, zeros, DIMS(4, 8));
    sago_tensor targets = suite_i32(run, ints, DIMS(4)), few = suite_i32(run, ints, DIMS(3));
    sago_tensor lse = suite_f32(run, zeros, DIMS(4)), wrong = suite_f32(run, zeros, DIMS(5));
    sago_cross_entropy_args args = {.vocabulary = 8, .scale = 1}, nothing = {.scale = 1};
    suite_expect_shape_error(d->ops->cross_entropy_forward(d, stats, logits, few, &args),
                             "cross_entropy_forward");
    suite_expect_shape_error(d->ops->cross_entropy_forward(d, lse, logits, targets, &args),
                             "cross_entropy_forward");
    suite_expect_shape_error(d->ops->cross_entropy_forward(d, stats, logits, lse, &args),
                             "cross_entropy_forward");
    suite_expect_shape_error(d->ops->cross_entropy_backward(d, logits, logits, wrong, targets, lse, &args),
                             "cross_entropy_backward");
    suite_expect_shape_error(d->ops->cross_entropy_backward(d, logits, logits, lse, few, lse, &args),
                             "cross_entropy_backward");
    suite_expect_shape_error(d->ops->cross_entropy_backward(d, logits, logits, lse, targets, wrong, &args),
                             "cross_entropy_backward");
    sago_tensor parts = suite_f32(run, NULL, DIMS(2, 4, SAGO_CE_STATS)), none = parts, cut = parts;
    none.shape[0] = 0, cut.shape[1] = 3;
    suite_expect_shape_error(d->ops->cross_entropy_combine(d, stats, stats), "cross_entropy_combine");
    suite_expect_shape_error(d->ops->cross_entropy_combine(d, stats, none), "cross_entropy_combine");
    suite_expect_shape_error(d->ops->cross_entropy_combine(d, stats, cut), "cross_entropy_combine");
    suite_expect_shape_error(d->ops->cross_entropy_combine(d, logits, parts), "cross_entropy_combine");
    if (!d->stores_bf16)
        suite_expect_shape_error(d->ops->cross_entropy_backward(d, suite_bf16(run, NULL, DIMS(4, 8)), logits,
                                                                lse, targets, lse, &args),
                                 "cross_entropy_backward");
    suite_expect_shape_error(d->ops->cross_entropy_backward(d, logits, logits, lse, targets, lse, &nothing),
                             "cross_entropy_backward");
}

static void test_wrong_shapes(void **state) {
    (void)state;
    suite_run_once(shapes_body, NULL);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_forward),          cmocka_unit_test(test_backward),
    cmocka_unit_test(test_backward_to_bf16), cmocka_unit_test(test_formula_by_differences),
    cmocka_unit_test(test_combine),          cmocka_unit_test(test_combine_extremes),
    cmocka_unit_test(test_extremes),         cmocka_unit_test(test_wrong_shapes)};
SUITE_MAIN(tests)
