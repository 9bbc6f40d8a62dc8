// SPDX-License-Identifier: Apache-2.0
#include "reference.h"
#include "suite.h"

typedef struct sample_case {
    int64_t rows, width;
    sago_sample_args args;
    const float *logits;
    const uint64_t *draws;
} sample_case;

static void body(suite_run *run, const void *context) {
    const sample_case *c = context;
    sago_tensor ids = suite_i32(run, NULL, DIMS(c->rows)), logprobs = suite_f32(run, NULL, DIMS(c->rows));
    sago_tensor logits = suite_f32(run, c->logits, DIMS(c->rows, c->width));
    suite_ok(run->device->ops->sample(run->device, ids, logprobs, logits, c->draws, &c->args));
    suite_output(run, "ids", ids);
    suite_output(run, "logprobs", logprobs);
}

/* Whether id is in the set that the cuts leave, and its probability there; by counting, without sorting. */
static double share(const float *x, int64_t width, int64_t id, const sago_sample_args *a, double *margin) {
    double sum = 0, kept = 0, before = 0;
    *margin = 0;
    for (int64_t i = 0; i < width; i++) {
        int64_t rank = 0;
        for (int64_t j = 0; j < width; j++) rank += x[j] > x[i] || (x[j] == x[i] && j < i);
        if (a->top_k == 0 || rank < a->top_k) sum += exp((double)x[i] / (double)a->temperature);
    }
    for (int64_t i = 0; i < width; i++) {
        int64_t rank = 0;
        double above = 0; /* probability of all better ones, after top_k */
        for (int64_t j = 0; j < width; j++)
            if (x[j] > x[i] || (x[j] == x[i] && j < i))
                rank++, above += exp((double)x[j] / (double)a->temperature) / sum;
        bool in = (a->top_k == 0 || rank < a->top_k) && above < (double)a->top_p;
        double p = exp((double)x[i] / (double)a->temperature);
        if (in) kept += p;
        if (i == id) {
            before = in ? p : 0;
            *margin = fabs(above - (double)a->top_p);
        }
    }
    return before / kept;
}

static const sago_sample_args settings[] = {{1.0f, 0, 1.0f, 11}, {0.7f, 5, 1.0f, 12},
                                            {1.3f, 0, 0.8f, 13}, {1.0f, 20, 0.5f, 14},
                                            {2.0f, 1, 1.0f, 15}, {0.3f, 1000, 0.99f, 16}};

/* Frequencies of many draws against the probabilities, by Pearson's chi-square; ids that are cut never come.
   A block of many threads a row is more than sim has time for: there, test_same_ids stands for it. */
static void test_frequencies(void **state) {
    (void)state;
    enum { DRAWS = 4000, V = 53 };
    if (suite_is_sim()) skip();
    float *row = suite_normal(V, 21), *logits = plain_array((int64_t)DRAWS * V);
    uint64_t *draws = malloc(DRAWS * sizeof *draws);
    row[17] = row[30]; /* equals */
    for (int i = 0; i < DRAWS; i++) {
        memcpy(logits + (int64_t)i * V, row, V * sizeof(float));
        draws[i] = (uint64_t)i * 3;
    }
    for (int s = 0; s < LENGTH(settings); s++) {
        sample_case c = {DRAWS, V, settings[s], logits, draws};
        suite_result result;
        suite_run_op(body, &c, SUITE_SAME_BITS, &result);
        const int32_t *ids = suite_ints(&result, "ids");
        int count[V] = {0}, cells = 0;
        for (int i = 0; i < DRAWS; i++) {
            assert_in_range(ids[i], 0, V - 1);
            count[ids[i]]++;
        }
        double chi = 0;
        for (int id = 0; id < V; id++) {
            double margin, expected = DRAWS * share(row, V, id, &settings[s], &margin);
            if (expected == 0) {
                assert_int_equal(count[id], 0);
            } else {
                chi += (count[id] - expected) * (count[id] - expected) / expected;
                cells++;
            }
        }
        /* Mean cells - 1, variance 2 (cells - 1): six deviations are never reached by chance. */
        assert_true(chi <= cells - 1 + 6 * sqrt(2.0 * cells));
        suite_free(&result);
    }
    free(row), free(logits), free(draws);
}

/* Each row draws by its own counter: the same row alone, or among others, says the same. */
static void test_rows_are_independent(void **state) {
    (void)state;
    enum { ROWS = 9, V = 1009 };
    int64_t rows = suite_is_sim() ? 2 : ROWS;
    float *logits = suite_normal(ROWS * V, 22);
    uint64_t draws[ROWS];
    for (int i = 0; i < ROWS; i++) draws[i] = 100 + (uint64_t)i;
    for (int s = 0; s < LENGTH(settings); s++) {
        sample_case c = {rows, V, settings[s], logits, draws};
        suite_result all, one;
        suite_run_op(body, &c, SUITE_SAME_BITS, &all);
        for (int r = 0; r < rows; r += 4) {
            sample_case alone = {1, V, settings[s], logits + r * V, draws + r};
            suite_run_op(body, &alone, SUITE_SAME_BITS, &one);
            assert_int_equal(suite_ints(&one, "ids")[0], suite_ints(&all, "ids")[r]);
            double margin, p = share(logits + r * V, V, suite_ints(&one, "ids")[0], &settings[s], &margin);
            assert_true(p > 0 || margin < 1e-5);
            suite_free(&one);
        }
        suite_free(&all);
    }
    free(logits);
}

/* The cpu device draws the same ids from the same logits; equal logits at the cuts too, and widths that end
   within a warp's run of ids. */
static void test_same_ids(void **state) {
    (void)state;
    static const int64_t widths[] = {1, 53, 130, 515, 4099, 32128};
    enum { ROWS = 3 };
    sago_device *cpu;
    suite_ok(sago_device_open("cpu", 1, &cpu));
    for (int w = 0; w < LENGTH(widths); w++) {
        int64_t v = widths[w];
        float *logits = suite_normal(ROWS * v, 24);
        uint64_t draws[ROWS];
        for (int i = 0; i < ROWS; i++) draws[i] = 1000 * (uint64_t)w + (uint64_t)i;
        for (int64_t i = 0; i < ROWS * v; i++) {
            if (i % 3) logits[i] = roundf(logits[i] * 8) / 8; /* many equals */
            if (i % 11 == 5) logits[i] = i % 2 ? -0.0f : 0.0f;
            if (i % 13 == 7 && i % v) logits[i] = -INFINITY;
            if (i / v == 1 && v == 130) logits[i] = i % 2 ? 0.0f : -0.0f; /* all equal */
        }
        for (int s = 0; s < LENGTH(settings); s++) {
            if (suite_is_sim() && (w + s) % 3) continue;
            sample_case c = {ROWS, v, settings[s], logits, draws};
            if (s == 1) c.args.temperature = 0;
            suite_result here;
            suite_run_op(body, &c, SUITE_SAME_BITS, &here);
            int32_t ids[ROWS];
            float logprobs[ROWS];
            suite_ok(cpu->ops->sample(cpu, sago_tensor_1d(ids, SAGO_I32, ROWS),
                                      sago_tensor_1d(logprobs, SAGO_F32, ROWS),
                                      sago_tensor_2d(logits, SAGO_F32, ROWS, v), draws, &c.args));
            for (int r = 0; r < ROWS; r++) {
                int32_t id = suite_ints(&here, "ids")[r];
                if (id != ids[r])
                    fail_msg("row %d of width %lld, setting %d: id %d, the cpu device says %d", r,
                             (long long)v, s, (int)id, (int)ids[r]);
                double difference = (double)suite_floats(&here, "logprobs")[r] - (double)logprobs[r];
                /* fp32 sums over the vocabulary, in another order on every device. */
                assert_true(fabs(difference) <= 1e-5 * fmax(1, fabs((double)logprobs[r])));
            }
            suite_free(&here);
        }
        free(logits);
    }
    sago_device_close(cpu);
}

static void test_greedy(void **state) {
    (void)state;
    static const int64_t widths[] = {1, 7, 31, 32128};
    for (int w = 0; w < LENGTH(widths); w++) {
        int64_t rows = 5, v = widths[w];
        float *logits = suite_normal(rows * v, 23), plain[5];
        double exact[5];
        uint64_t draws[5] = {0};
        if (v > 20) logits[v + 20] = logits[v + 3] = 9.0f; /* the lower of two equals */
        sample_case c = {rows, v, {0, 0, 1, 1}, logits, draws};
        suite_result result;
        suite_run_op(body, &c, SUITE_SAME_BITS, &result);
        const int32_t *ids = suite_ints(&result, "ids");
        for (int64_t r = 0; r < rows; r++) {
            double *x = ref_from(logits + r * v, v);
            int64_t best = 0;
            float plain_lse;
            for (int64_t i = 1; i < v; i++)
                if (x[i] > x[best]) best = i;
            assert_int_equal(ids[r], best);
            double lse;
            ref_cross_entropy(&lse, x, v, 0, 0, 0);
            plain_cross_entropy(&plain_lse, logits + r * v, v, 0, 0, 0);
            exact[r] = x[best] - lse;
            plain[r] = logits[r * v + best] - plain_lse;
            free(x);
        }
        suite_close("sample logprobs", suite_floats(&result, "logprobs"), exact, plain, rows);
        suite_free(&result);
        free(logits);
    }
}

static void errors_body(suite_run *run, const void *context) {
    (void)context;
    sago_device *d = run->device;
    float values[12] = {1, 2, 3, 4, 5, 6, 1, 2, NAN, 4, 5, 6};
    uint64_t draws[2] = {0};
    sago_tensor ids = suite_i32(run, NULL, DIMS(2)), logprobs = suite_f32(run, NULL, DIMS(2));
    sago_tensor logits = suite_f32(run, values, DIMS(2, 6)), few = suite_f32(run, values, DIMS(1, 6));
    sago_sample_args good = {1, 0, 1, 1}, bad = {1, 0, 0, 1};
    suite_expect_shape_error(d->ops->sample(d, ids, logprobs, few, draws, &good), "sample");
    suite_expect_shape_error(d->ops->sample(d, logprobs, logprobs, logits, draws, &good), "sample");
    assert_int_equal(d->ops->sample(d, ids, logprobs, logits, draws, &bad), SAGO_E_INTERNAL);
    assert_int_equal(d->ops->sample(d, ids, logprobs, logits, draws, &good), SAGO_E_NONFINITE);
    assert_non_null(strstr(sago_message(), "row 1"));
    suite_output(run, "ids", ids);
    suite_output(run, "logprobs", logprobs);
}

static void test_errors(void **state) {
    (void)state;
    suite_run_once(errors_body, NULL);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_frequencies), cmocka_unit_test(test_rows_are_independent),
    cmocka_unit_test(test_same_ids), cmocka_unit_test(test_greedy), cmocka_unit_test(test_errors)};
SUITE_MAIN(tests)
