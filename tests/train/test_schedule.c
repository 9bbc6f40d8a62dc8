// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "schedule.h"

#include <math.h>

static sago_config config;

static void use(char *name, double peak, int64_t warmup, int64_t length) {
    config.optimizer.schedule = name;
    config.optimizer.learning_rate = peak;
    config.optimizer.warmup_steps = warmup;
    config.optimizer.schedule_steps = length;
    config.optimizer.final_learning_rate = 0;
}

static void rate_is(int64_t k, double wanted) {
    assert_true(fabs(sago_schedule_rate(&config, k) - wanted) <= 1e-12 * fabs(wanted) + 1e-15);
}

static void test_constant(void **state) {
    (void)state;
    use("constant", 5e-4, 0, 0);
    rate_is(1, 5e-4);
    rate_is(98000, 5e-4);
    use("constant", 1, 4, 0);
    rate_is(1, .25);
    rate_is(4, 1);
}

static void test_rsqrt(void **state) {
    (void)state;
    use("rsqrt", 1e-2, 0, 10000); /* PaLM: 1e-2 for 10k steps, then 1/sqrt(k) */
    rate_is(1, 1e-2);
    rate_is(10000, 1e-2);
    rate_is(40000, 1 / sqrt(40000));
    rate_is(255000, 1 / sqrt(255000));
}

static void test_cosine(void **state) {
    (void)state;
    use("cosine", 1e-4, 0, 20000); /* U-PaLM: 1e-4 to 1e-6 over 20k steps */
    config.optimizer.final_learning_rate = 1e-6;
    rate_is(10000, (1e-4 + 1e-6) / 2);
    rate_is(20000, 1e-6);
    rate_is(30000, 1e-6);
}

static void test_linear(void **state) {
    (void)state;
    use("linear", 1, 10, 110);
    rate_is(5, .5);
    rate_is(10, 1);
    rate_is(60, .5);
    rate_is(110, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_constant), cmocka_unit_test(test_rsqrt),
                                       cmocka_unit_test(test_cosine), cmocka_unit_test(test_linear)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
