// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "straggler.h"

#include <math.h>
#include <string.h>

enum { RANKS = 8 };

/*
 * Ranks that meet in every step, as they would run: rank r computes and waits for data, its messages then
 * travel for link[r], and a step ends for all when the last has arrived. What is handed over is what clocks
 * on the ranks would show.
 */
static sago_straggler slowest_of(int n, const double compute[], const double data[], const double link[]) {
    double seconds[SAGO_N_PARTS * RANKS];
    for (int r = 0; r < n; r++) {
        double others = 0;
        for (int q = 0; q < n; q++)
            if (q != r) others = fmax(others, compute[q] + data[q] + link[q]);
        double step = fmax(others, compute[r] + data[r] + link[r]);
        sago_rank_times times = {0};
        for (int i = 0; i < 5; i++) sago_rank_times_add(&times, step, data[r], step - compute[r] - data[r]);
        assert_int_equal(times.steps, 5);
        seconds[SAGO_PART_COMPUTE * n + r] = sago_rank_times_compute(&times) / 5;
        seconds[SAGO_PART_DATA * n + r] = data[r];
        seconds[SAGO_PART_MESSAGES * n + r] = fmax(0, compute[r] + data[r] + link[r] - others);
    }
    sago_straggler found;
    sago_straggler_find(seconds, n, &found);
    return found;
}

static void test_each_part(void **unused) {
    (void)unused;
    for (int n = 2; n <= RANKS; n++) {
        for (int slow = 0; slow < n; slow++) {
            for (int part = 0; part < SAGO_N_PARTS; part++) {
                double times[SAGO_N_PARTS][RANKS];
                for (int r = 0; r < n; r++) {
                    times[SAGO_PART_COMPUTE][r] = 1 + 0.001 * (r % 3);
                    times[SAGO_PART_DATA][r] = 0.01 + 0.001 * (r % 2);
                    times[SAGO_PART_MESSAGES][r] = 0.1;
                }
                times[part][slow] += 0.5;
                sago_straggler found = slowest_of(n, times[0], times[1], times[2]);
                assert_int_equal(found.rank, slow);
                assert_int_equal(found.part, part);
                assert_true(fabs(found.excess - 0.5) < 0.01);
                assert_true(found.seconds > found.median);
            }
        }
    }
}

/* Slow twice: what holds the others up by more is told. */
static void test_the_larger_part(void **unused) {
    (void)unused;
    const double compute[] = {1, 1, 1.3, 1}, data[] = {0, 0, 0.4, 0}, link[] = {0.1, 0.1, 0.1, 0.1};
    sago_straggler found = slowest_of(4, compute, data, link);
    assert_int_equal(found.rank, 2);
    assert_string_equal(sago_straggler_part_name(found.part), "data wait");
    assert_true(fabs(found.excess - 0.4) < 1e-12 && fabs(found.seconds - 0.4) < 1e-12 && found.median == 0);
}

static void test_alike(void **unused) {
    (void)unused;
    const double same[] = {1, 1, 1, 1}, none[] = {0, 0, 0, 0};
    sago_straggler found = slowest_of(4, same, none, none);
    assert_int_equal(found.rank, 0);
    assert_true(fabs(found.excess) < 1e-12);
    /* Clocks that overlap never make a time of less than nothing. */
    sago_rank_times times = {0};
    sago_rank_times_add(&times, 1, 0.7, 0.7);
    assert_true(sago_rank_times_compute(&times) == 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_each_part),
                                       cmocka_unit_test(test_the_larger_part), cmocka_unit_test(test_alike)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
