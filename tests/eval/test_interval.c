// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "interval.h"

#include <math.h>

static void test_against_the_normal_interval(void **state) {
    (void)state;
    /* 400 coin flips, 120 heads: the bootstrap's interval is that of the normal approximation within its own noise. */
    double flips[400];
    for (int i = 0; i < 400; i++) flips[i] = i % 10 < 3;
    sago_scores one = {flips, 400};
    sago_interval x = sago_bootstrap(&one, 1, 4000, 7);
    double half = 1.96 * sqrt(.3 * .7 / 400);
    assert_true(fabs(x.mean - .3) < 1e-12);
    assert_true(fabs(x.low - (.3 - half)) < .006 && fabs(x.high - (.3 + half)) < .006);
}

static void test_macro_average(void **state) {
    (void)state;
    double many[100], few[] = {1, 1};
    for (int i = 0; i < 100; i++) many[i] = 0;
    sago_scores tasks[] = {{many, 100}, {few, 2}, {NULL, 0}};
    sago_interval x = sago_bootstrap(tasks, 3, 100, 1);
    assert_true(x.mean == .5 && x.low == .5 && x.high == .5); /* tasks weigh the same, and these do not vary */
}

static void test_repeats(void **state) {
    (void)state;
    double values[50];
    for (int i = 0; i < 50; i++) values[i] = (double)(i * i % 17);
    sago_scores one = {values, 50};
    sago_interval a = sago_bootstrap(&one, 1, 500, 3), b = sago_bootstrap(&one, 1, 500, 3);
    sago_interval c = sago_bootstrap(&one, 1, 500, 4);
    assert_true(a.low == b.low && a.high == b.high);
    assert_true(a.low != c.low || a.high != c.high);
    assert_true(a.low < a.mean && a.mean < a.high);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_against_the_normal_interval),
                                       cmocka_unit_test(test_macro_average), cmocka_unit_test(test_repeats)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
