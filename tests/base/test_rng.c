// SPDX-License-Identifier: Apache-2.0
#include "rng.h"
#include "test.h"

#include <math.h>

/* Known answers published with Random123 1.09 (kat_vectors). */
static void philox_known_answers(void **state) {
    (void)state;
    static const struct {
        uint64_t key, low, high;
        uint32_t out[4];
    } known[] = {
        {0, 0, 0, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {0xffffffffffffffff,
         0xffffffffffffffff,
         0xffffffffffffffff,
         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {0x299f31d0a4093822,
         0x85a308d3243f6a88,
         0x0370734413198a2e,
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        uint32_t out[4];
        sago_philox(known[i].key, known[i].low, known[i].high, out);
        assert_memory_equal(out, known[i].out, sizeof out);
    }
}

/* XXH3 of nothing with seed 0, from the algorithm's specification. */
static void hash_known_answer(void **state) {
    (void)state;
    assert_true(sago_hash_bytes("", 0) == 0x2d06800538d394c2u);
    assert_true(sago_hash_bytes("a", 1) != sago_hash_bytes("b", 1));
}

static void below_is_even(void **state) {
    (void)state;
    enum { SIDES = 7, DRAWS = 70000 };
    int count[SIDES] = {0};
    double chi = 0;
    for (uint64_t i = 0; i < DRAWS; i++) count[sago_below(sago_mix(3, i), SIDES)]++;
    for (int i = 0; i < SIDES; i++) chi += pow(count[i] - DRAWS / SIDES, 2) / (DRAWS / SIDES);
    assert_true(chi < 22.5); /* 6 degrees of freedom, one in a thousand */
    assert_int_equal(sago_below(UINT64_MAX, 10), 9);
    assert_int_equal(sago_below(0, 10), 0);
    assert_true(sago_unit(UINT64_MAX) < 1 && sago_unit(0) == 0);
}

static void normals_are_normal(void **state) {
    (void)state;
    enum { N = 200000 };
    float *x = sago_alloc(N * sizeof *x);
    sago_normal_fill(x, 0, N, 42);
    double sum = 0, square = 0, fourth = 0, neighbours = 0;
    for (int i = 0; i < N; i++) {
        assert_true(isfinite(x[i]));
        sum += x[i], square += (double)x[i] * x[i], fourth += pow(x[i], 4);
        if (i) neighbours += (double)x[i] * x[i - 1];
    }
    /* Each within five standard errors. */
    assert_true(fabs(sum / N) < 5 / sqrt(N));
    assert_true(fabs(square / N - 1) < 5 * sqrt(2.0 / N));
    assert_true(fabs(fourth / N - 3) < 5 * sqrt(96.0 / N));
    assert_true(fabs(neighbours / N) < 5 / sqrt(N));
    free(x);
}

static void any_piece_is_the_same_piece(void **state) {
    (void)state;
    float whole[1000], piece[1000];
    sago_normal_fill(whole, 0, 1000, 9);
    for (int first = 0; first < 1000; first += 37) {
        int n = 1000 - first < 37 ? 1000 - first : 37;
        sago_normal_fill(piece, first, n, 9);
        assert_memory_equal(piece, whole + first, (size_t)n * sizeof *piece);
    }
    sago_normal_fill(piece, 0, 1000, 10);
    assert_memory_not_equal(piece, whole, sizeof whole);
}

static void a_permutation_hits_everything_once(void **state) {
    (void)state;
    static const uint64_t sizes[] = {1, 2, 3, 4, 5, 16, 17, 1000, 4096, 4097, 30000};
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        for (uint64_t key = 0; key < 5; key++) {
            char *seen = sago_alloc_zero(sizes[s], 1);
            for (uint64_t i = 0; i < sizes[s]; i++) {
                uint64_t at = sago_permute(i, sizes[s], key);
                assert_true(at < sizes[s] && !seen[at]);
                seen[at] = 1;
            }
            free(seen);
        }
    }
    assert_true(sago_permute(123, 1ull << 50, 1) < 1ull << 50);
}

/* Where the first element goes is even over keys: an order of 5 whose every place is as likely. */
static void permutations_are_even(void **state) {
    (void)state;
    enum { N = 5, KEYS = 50000 };
    int count[N][N] = {{0}};
    for (uint64_t key = 0; key < KEYS; key++)
        for (uint64_t i = 0; i < N; i++) count[i][sago_permute(i, N, key)]++;
    for (int i = 0; i < N; i++) {
        double chi = 0;
        for (int j = 0; j < N; j++) chi += pow(count[i][j] - KEYS / N, 2) / (KEYS / N);
        assert_true(chi < 23.5); /* 4 degrees of freedom, one in ten thousand */
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(philox_known_answers),
        cmocka_unit_test(hash_known_answer),
        cmocka_unit_test(below_is_even),
        cmocka_unit_test(normals_are_normal),
        cmocka_unit_test(any_piece_is_the_same_piece),
        cmocka_unit_test(a_permutation_hits_everything_once),
        cmocka_unit_test(permutations_are_even),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
