// SPDX-License-Identifier: Apache-2.0
/* The greatest logit without all logits, against all logits: the same ids as matmul and sample, for weights
   that make it easy and for such as make it hard. */
#include "greedy.h"

#include "suite.h"

#include <float.h>
#include <math.h>

static const char *device_name = "cpu";

typedef struct problem {
    int64_t rows, n, k;
    float scale;
    float *x, *w; /* [rows, k], [n, k] */
} problem;

static problem random_problem(int64_t rows, int64_t n, int64_t k, float scale, uint64_t seed) {
    return (problem){rows, n, k, scale, suite_normal(rows * k, seed), suite_normal(n * k, seed + 1)};
}

static void release(problem *p) {
    free(p->x);
    free(p->w);
}

/* What decoding does otherwise. */
static sago_status all_logits(sago_device *device, const problem *p, int32_t *ids) {
    float *logits = malloc((size_t)(p->rows * p->n) * sizeof *logits), logprobs[SAGO_GREEDY_ROWS];
    const sago_matmul_args product = {.transpose_b = true, .alpha = p->scale};
    const sago_sample_args greedy = {.top_p = 1};
    sago_tensor c = sago_tensor_2d(logits, SAGO_F32, p->rows, p->n);
    assert_int_equal(device->ops->matmul(device, c, sago_tensor_2d(p->x, SAGO_F32, p->rows, p->k),
                                         sago_tensor_2d(p->w, SAGO_F32, p->n, p->k), &product),
                     SAGO_OK);
    sago_status status = device->ops->sample(device, sago_tensor_1d(ids, SAGO_I32, p->rows),
                                             sago_tensor_1d(logprobs, SAGO_F32, p->rows), c, NULL, &greedy);
    free(logits);
    return status;
}

/* Whether it decides, and if so, that the ids are the same with one thread and with three. */
static bool decides(const problem *p) {
    bool decided[2];
    for (int i = 0; i < 2; i++) {
        sago_device *device;
        assert_int_equal(sago_device_open(device_name, i ? 3 : 1, &device), SAGO_OK);
        assert_true(sago_greedy_possible(device, p->k, p->scale));
        sago_greedy greedy = {0};
        int32_t ids[SAGO_GREEDY_ROWS], expected[SAGO_GREEDY_ROWS];
        assert_int_equal(
            sago_greedy_prepare(device, &greedy, sago_tensor_2d(p->w, SAGO_F32, p->n, p->k), p->scale),
            SAGO_OK);
        assert_int_equal(sago_greedy_choose(device, &greedy, sago_tensor_1d(ids, SAGO_I32, p->rows),
                                            sago_tensor_2d(p->x, SAGO_F32, p->rows, p->k), &decided[i]),
                         SAGO_OK);
        if (decided[i]) {
            assert_int_equal(all_logits(device, p, expected), SAGO_OK);
            assert_memory_equal(ids, expected, (size_t)p->rows * sizeof *ids);
        }
        sago_greedy_release(device, &greedy);
        sago_device_close(device);
    }
    assert_int_equal(decided[0], decided[1]);
    return decided[0];
}

static void test_random(void **state) {
    (void)state;
    const int64_t shapes[][2] = {{4000, 512}, {3001, 64}, {1000, 1000}, {700, 37}, {600, 4096}, {5000, 5}};
    const float scales[] = {1, 0.0441941738f, 17};
    for (int s = 0; s < 6; s++)
        for (int64_t rows = 1; rows <= SAGO_GREEDY_ROWS; rows++) {
            problem p = random_problem(rows, shapes[s][0], shapes[s][1], scales[(s + rows) % 3],
                                       (uint64_t)(100 * s + rows));
            assert_true(decides(&p));
            release(&p);
        }
    /* Small ones may leave too many, but never the wrong one. */
    for (int64_t n = 1; n <= 40; n++) {
        problem p = random_problem(1 + n % 8, n, 1 + n * 7 % 19, 1, (uint64_t)n);
        (void)decides(&p);
        release(&p);
    }
}

/* The best rows of x[0], closer to one another than 8 bits tell apart, some of them equal, at places that
 * `seed` names. */
static void test_ties(void **state) {
    (void)state;
    enum { N = 4000, K = 256, BEST = 30 };
    int lowest_of_equals = 0;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        problem p = random_problem(4, N, K, seed % 2 ? 1 : 0.3f, 1000 * seed);
        float *noise = suite_normal(BEST * K, seed);
        int64_t least = N, at[BEST];
        for (int b = 0; b < BEST; b++) {
            at[b] = (int64_t)((seed * 7919 + (uint64_t)b * 131) % N);
            for (int i = 0; i < K; i++)
                p.w[at[b] * K + i] = p.x[i] * (seed <= 10 ? 1 : 1 + noise[(b / 3) * K + i] * 1e-7f);
            if (at[b] < least) least = at[b];
        }
        assert_true(decides(&p));
        sago_device *device;
        int32_t ids[4];
        assert_int_equal(sago_device_open(device_name, 1, &device), SAGO_OK);
        assert_int_equal(all_logits(device, &p, ids), SAGO_OK);
        lowest_of_equals += ids[0] == least;
        sago_device_close(device);
        free(noise);
        release(&p);
    }
    assert_true(lowest_of_equals >= 10 && lowest_of_equals < 20); /* both kinds were there */
}

/* Rounding of the logits themselves: the exact order of two rows is not that of their fp32 sums. */
static void test_order_of_rounded_sums(void **state) {
    (void)state;
    enum { N = 2000, K = 300 };
    for (uint64_t seed = 1; seed <= 30; seed++) {
        problem p = random_problem(1, N, K, 1, 77 * seed);
        for (int i = 0; i < K; i++) {
            float near = p.x[i], up = nextafterf(near, INFINITY);
            p.w[500 * K + i] = near, p.w[1500 * K + i] = i % 2 ? up : nextafterf(near, -INFINITY);
        }
        assert_true(decides(&p));
        release(&p);
    }
}

/* Integers that both copies hold without error: the sums of the best rows differ by less than the rounding of
   their fp32 sums, in which elements of equal pairs of x have changed places and which say which row is the
   greatest. */
static void test_rounding_alone(void **state) {
    (void)state;
    enum { N = 2000, K = 4096, BEST = 40 };
    for (uint64_t seed = 1; seed <= 5; seed++) {
        problem p = random_problem(1, N, K, 1, seed);
        int most = (int)(2147483647.0 / (127.0 * K)); /* x is its own copy, with a step of 1 */
        for (int64_t i = 0; i < K; i++)
            p.x[i] =
                i < 2 ? (float)most : (float)sago_below(sago_mix(seed, (uint64_t)(i / 2)), (uint64_t)most);
        for (int64_t j = 0; j < N; j++)
            for (int64_t i = 2; i < K; i++) {
                uint64_t pair = sago_mix(seed + 50, (uint64_t)(i / 2));
                float small = (float)(30 + sago_below(pair, 50)), large = 127 - small / 8;
                bool swapped = sago_mix(sago_mix(seed, (uint64_t)j), (uint64_t)(i / 2)) & 1;
                if (j < BEST) p.w[j * K + i] = floorf((i & 1) == swapped ? small : large);
            }
        p.x[2] = p.x[3] = 1;
        for (int j = 0; j < BEST; j++) {
            float *w = p.w + j * K;
            w[0] = w[1] = 127, w[2] = (float)j, w[3] = 0;
        }
        assert_true(decides(&p));
        release(&p);
    }
}

static void test_unequal_rows(void **state) {
    (void)state;
    enum { N = 3000, K = 128 };
    problem p = random_problem(8, N, K, 1, 5);
    for (int64_t j = 0; j < N; j++) {
        float factor = powf(10, (float)(j % 9) - 6);
        for (int i = 0; i < K; i++) p.w[j * K + i] *= j % 10 == 0 ? 0 : factor;
        if (j % 50 == 1) p.w[j * K + j % K] *= 1e4f; /* one element that takes all of the 8 bits */
    }
    for (int i = 0; i < K; i++) p.x[2 * K + i] = 0, p.x[3 * K + i] *= i == 7 ? 1e5f : 1e-3f;
    assert_true(decides(&p));
    /* All logits of row 4 below zero, so that rows of zeros win. */
    for (int64_t j = 0; j < N * K; j++) p.w[j] = -fabsf(p.w[j]);
    for (int i = 0; i < K; i++) p.x[4 * K + i] = fabsf(p.x[4 * K + i]);
    (void)decides(&p);
    release(&p);
    /* An element of x that takes all of its bits and meets zeros. The others are zeros in the copy, and row
       77 is made of what is lost so; the rows are their own copies. */
    p = random_problem(1, N, K, 1, 6);
    for (int i = 0; i < K; i++) p.x[i] = i % 2 ? 0.3f : -0.3f;
    for (int64_t i = 0; i < N * K; i++) p.w[i] = floorf(p.w[i]);
    p.x[9] = 3e4f, p.x[10] = 10, p.x[11] = 0;
    for (int64_t j = 0; j < N; j++) {
        float *w = p.w + j * K;
        for (int i = 0; i < K && j == 77; i++) w[i] = i % 2 ? 127 : -127;
        w[9] = 0, w[10] = j == 5 ? 127 : j == 77 ? 0 : 40, w[11] = 127;
    }
    (void)decides(&p);
    release(&p);
}

/* Where it cannot know, it says so: then all logits decide, and name what is not finite. */
static void test_does_not_decide(void **state) {
    (void)state;
    enum { N = 800, K = 64 };
    const float values[] = {NAN, INFINITY, -INFINITY, 1e20f, FLT_MAX};
    for (int where = 0; where < 2; where++)
        for (int v = 0; v < 5; v++) {
            problem p = random_problem(3, N, K, 1, (uint64_t)(10 + v));
            assert_true(decides(&p));
            (where ? p.w + 333 * K : p.x + 2 * K)[K - 1] = values[v];
            assert_false(decides(&p));
            release(&p);
        }
    problem p = random_problem(3, N, K, 1, 3);
    for (int64_t j = 1; j < N; j++) memcpy(p.w + j * K, p.w, K * sizeof(float)); /* all equal */
    assert_false(decides(&p));
    memset(p.w, 0, (size_t)N * K * sizeof(float));
    assert_false(decides(&p));
    for (int i = 0; i < 3 * K; i++) p.x[i] *= 1e-20f;
    assert_false(decides(&p));
    release(&p);
}

/* The copy is made anew from weights that have changed, of another size too. */
static void test_prepare_again(void **state) {
    (void)state;
    sago_device *device;
    assert_int_equal(sago_device_open(device_name, 2, &device), SAGO_OK);
    sago_greedy greedy = {0};
    for (int i = 0; i < 4; i++) {
        problem p = random_problem(2, i < 2 ? 900 : 1300, i < 3 ? 48 : 50, 1, (uint64_t)(40 + i));
        int32_t ids[2], expected[2];
        bool settled;
        assert_int_equal(sago_greedy_prepare(device, &greedy, sago_tensor_2d(p.w, SAGO_F32, p.n, p.k), 1),
                         SAGO_OK);
        assert_int_equal(sago_greedy_choose(device, &greedy, sago_tensor_1d(ids, SAGO_I32, 2),
                                            sago_tensor_2d(p.x, SAGO_F32, 2, p.k), &settled),
                         SAGO_OK);
        assert_true(settled);
        assert_int_equal(all_logits(device, &p, expected), SAGO_OK);
        assert_memory_equal(ids, expected, sizeof ids);
        release(&p);
    }
    float x[9 * 50] = {0};
    int32_t ids[9];
    bool settled;
    assert_int_equal(sago_greedy_choose(device, &greedy, sago_tensor_1d(ids, SAGO_I32, 9),
                                        sago_tensor_2d(x, SAGO_F32, 9, 50), &settled),
                     SAGO_E_SHAPE);
    sago_greedy_release(device, &greedy);
    assert_null(greedy.memory);
    sago_device_close(device);
    assert_int_equal(sago_device_open("sim", 1, &device), SAGO_OK);
    assert_false(sago_greedy_possible(device, 64, 1));
    sago_device_close(device);
}

int main(int argc, char **argv) {
    if (argc > 1) device_name = argv[1];
    sago_device *device;
    if (sago_device_open(device_name, 1, &device) != SAGO_OK) {
        printf("%s\n", sago_message());
        return 77;
    }
    sago_device_close(device);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random),
        cmocka_unit_test(test_ties),
        cmocka_unit_test(test_order_of_rounded_sums),
        cmocka_unit_test(test_rounding_alone),
        cmocka_unit_test(test_unequal_rows),
        cmocka_unit_test(test_does_not_decide),
        cmocka_unit_test(test_prepare_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
