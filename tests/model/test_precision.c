// SPDX-License-Identifier: Apache-2.0
#include "precision.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void a_gpu_takes_bf16_of_itself(void **state) {
    (void)state;
    const struct {
        const char *stated;
        const char *device;
        bool has, stores, bf16;
    } cases[] = {
        {NULL, "cuda", true, true, true},
        {NULL, "sim", true, true, false},
        {NULL, "cpu", false, false, false},
        {NULL, "cpu", true, false, false}, /* a processor with matrix units of bf16: products round, tensors stay fp32 */
        {"train.precision=auto", "cuda", true, true, true},
        {"train.precision=fp32", "cuda", true, true, false},
        {"train.precision=bf16", "sim", true, true, true},
        {"train.precision=bf16", "cpu", false, false, true}, /* who can't says so himself */
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char *sets[] = {(char *)(uintptr_t)cases[i].stated};
        sago_config *config;
        assert_int_equal(sago_config_load(NULL, sets, cases[i].stated != NULL, &config), SAGO_OK);
        const sago_device device = {.name = cases[i].device, .has_bf16 = cases[i].has, .stores_bf16 = cases[i].stores};
        assert_int_equal(sago_precision_bf16(config, &device), cases[i].bf16);
        sago_config_free(config);
    }
    assert_string_equal(sago_precision_name(true), "bf16");
    assert_string_equal(sago_precision_name(false), "fp32");
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_gpu_takes_bf16_of_itself)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
