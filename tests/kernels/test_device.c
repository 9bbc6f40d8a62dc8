// SPDX-License-Identifier: Apache-2.0
#include "check.h"
#include "suite.h"

static void test_names(void **state) {
    (void)state;
    sago_device *device = (sago_device *)&device;
    assert_int_equal(sago_device_open("abacus", 1, &device), SAGO_E_DEVICE);
    assert_null(device);
    assert_non_null(strstr(sago_message(), "abacus"));
    assert_non_null(strstr(sago_message(), "auto, cpu"));
    assert_int_equal(sago_device_open("cpu:v9", 1, &device), SAGO_E_DEVICE);
    assert_non_null(strstr(sago_message(), "v9"));
    assert_int_equal(sago_device_open("cpux", 1, &device), SAGO_E_DEVICE);
    assert_int_equal(sago_device_open("", 1, &device), SAGO_E_DEVICE);
    assert_int_equal(sago_device_open("cpu", -1, &device), SAGO_E_DEVICE);
}

static void test_open(void **state) {
    (void)state;
    static const char *const names[] = {"auto", "cpu", "cpu:base"};
    for (int i = 0; i < LENGTH(names); i++) {
        sago_device *device;
        suite_ok(sago_device_open(names[i], 2, &device));
        assert_string_equal(device->name, "cpu");
        assert_int_equal(device->n_threads, 2);
        assert_non_null(strstr(device->description, "cpu: "));
        assert_non_null(strstr(device->description, "2 threads"));
        assert_non_null(strstr(device->description, "oneDNN "));
        sago_device_close(device);
        suite_ok(sago_device_open(names[i], 0, &device));
        assert_true(device->n_threads >= 1);
        sago_device_close(device);
    }
    sago_device_close(NULL);
}

/* A table with holes is refused, and every hole is named. */
static void test_missing_operations(void **state) {
    (void)state;
    sago_device *device;
    suite_ok(sago_device_open("cpu", 1, &device));
    sago_ops ops = *device->ops;
    suite_ok(sago_device_check_table("cpu", &ops));
    ops.allocate = NULL;
    ops.geglu_backward = NULL;
    ops.sample = NULL;
    assert_int_equal(sago_device_check_table("sieve", &ops), SAGO_E_DEVICE);
    assert_non_null(strstr(sago_message(), "sieve"));
    assert_non_null(strstr(sago_message(), "allocate, geglu_backward, sample"));
    sago_device_close(device);
}

static const struct CMUnitTest tests[] = {cmocka_unit_test(test_names), cmocka_unit_test(test_open),
                                          cmocka_unit_test(test_missing_operations)};
int main(void) {
    return _cmocka_run_group_tests("device", tests, LENGTH(tests), NULL, NULL);
}
