// SPDX-License-Identifier: Apache-2.0
#include "cpu/vector_math.h"
#include "suite.h"

#include <math.h>

/* Distance in units of the last place of a float at the exact value. */
static double ulps(float got, double exact) {
    if (isinf(got) && exact > (double)3.4028235e38f) return 0;
    float near = (float)exact;
    double ulp = (double)nextafterf(fabsf(near), INFINITY) - fabs((double)near);
    return fabs((double)got - exact) / ulp;
}

/* Every 97th float of both signs: subnormals, both tails and all between. */
static void test_exp(void **state) {
    (void)state;
    double worst = 0;
    for (uint32_t bits = 0; bits < 0x7F800000u; bits += 97)
        for (int sign = 0; sign < 2; sign++) {
            float x = sago_bits_float((int32_t)(bits | (sign ? 0x80000000u : 0)));
            double distance = ulps(sago_exp(x), exp((double)x));
            if (!(distance <= 2))
                fail_msg("exp(%.9g) is %.9g, off by %.2f ulp", (double)x, (double)sago_exp(x), distance);
            if (distance > worst) worst = distance;
        }
    printf("exp: at most %.2f ulp\n", worst);
    assert_true(sago_exp(-INFINITY) == 0.0f);
    assert_true(sago_exp(INFINITY) == INFINITY);
    assert_true(isnan(sago_exp(NAN)) && isnan(sago_exp(-NAN)));
    assert_true(sago_exp(0.0f) == 1.0f);
}

static const struct CMUnitTest tests[] = {cmocka_unit_test(test_exp)};
int main(void) {
    return _cmocka_run_group_tests("vector math", tests, LENGTH(tests), NULL, NULL);
}
