// SPDX-License-Identifier: Apache-2.0
#include "test.h"

#include <errno.h>
#include <pthread.h>

static void messages_are_kept_and_wrapped(void **state) {
    (void)state;
    assert_int_equal(sago_fail(SAGO_E_SHAPE, "%d heads", 3), SAGO_E_SHAPE);
    assert_string_equal(sago_message(), "3 heads");
    assert_int_equal(sago_wrap(SAGO_E_SHAPE, "layer %d", 2), SAGO_E_SHAPE);
    assert_string_equal(sago_message(), "layer 2: 3 heads");
    assert_int_equal(sago_wrap(SAGO_OK, "nothing happened"), SAGO_OK);
    assert_string_equal(sago_message(), "layer 2: 3 heads");
    errno = ENOENT;
    assert_int_equal(sago_fail_errno(SAGO_E_IO, "a file"), SAGO_E_IO);
    assert_string_equal(sago_message(), "a file: No such file or directory");
}

static void a_message_is_one_line_of_utf8(void **state) {
    (void)state;
    assert_int_equal(sago_fail(SAGO_E_INPUT, "%s", "a\nb\tc\033[31m\x7f \xff \xc3\xa9 \xc3"), SAGO_E_INPUT);
    assert_string_equal(sago_message(), "a\\x0ab\\x09c\\x1b[31m\\x7f \\xff \xc3\xa9 \\xc3");
    char longest[2 * SAGO_ERROR_BYTES];
    memset(longest, '\n', sizeof longest);
    longest[sizeof longest - 1] = '\0';
    assert_int_equal(sago_fail(SAGO_E_INPUT, "%s", longest), SAGO_E_INPUT);
    assert_true(strlen(sago_message()) < SAGO_ERROR_BYTES && strlen(sago_message()) > SAGO_ERROR_BYTES - 16);
    for (int i = 0; i < 2000; i++) assert_int_equal(sago_wrap(SAGO_E_INPUT, "deeper"), SAGO_E_INPUT);
    assert_true(strlen(sago_message()) < SAGO_ERROR_BYTES);
}

static void *fail_elsewhere(void *out) {
    assert_int_equal(sago_fail(SAGO_E_IO, "elsewhere"), SAGO_E_IO);
    sago_error_take(SAGO_E_IO, out);
    return NULL;
}

static void a_record_is_of_its_thread_and_travels(void **state) {
    (void)state;
    assert_int_equal(sago_fail(SAGO_E_MEMORY, "here"), SAGO_E_MEMORY);
    sago_error error;
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, fail_elsewhere, &error), 0);
    pthread_join(thread, NULL);
    assert_string_equal(sago_message(), "here");
    assert_int_equal(sago_error_give(&error), SAGO_E_IO);
    assert_string_equal(sago_message(), "elsewhere");
}

static void every_status_has_a_name_and_an_exit_code(void **state) {
    (void)state;
    for (int i = 0; i < SAGO_STATUS_COUNT; i++) {
        assert_true(strlen(sago_status_name((sago_status)i)) > 1);
        for (int j = 0; j < i; j++)
            assert_string_not_equal(sago_status_name((sago_status)i), sago_status_name((sago_status)j));
    }
    assert_string_equal(sago_status_name((sago_status)99), "unknown");
    assert_int_equal(sago_status_exit_code(SAGO_OK), 0);
    assert_int_equal(sago_status_exit_code(SAGO_E_USAGE), 2);
    assert_int_equal(sago_status_exit_code(SAGO_E_CONFIG), 2);
    assert_int_equal(sago_status_exit_code(SAGO_E_INTERRUPTED), 75);
    assert_int_equal(sago_status_exit_code(SAGO_E_IO), 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(messages_are_kept_and_wrapped),
        cmocka_unit_test(a_message_is_one_line_of_utf8),
        cmocka_unit_test(a_record_is_of_its_thread_and_travels),
        cmocka_unit_test(every_status_has_a_name_and_an_exit_code),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
