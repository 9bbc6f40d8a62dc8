// SPDX-License-Identifier: Apache-2.0
#include "test.h"

#include <unistd.h>

static void a_string_grows_and_holds_nul_bytes(void **state) {
    (void)state;
    sago_str s = {0};
    assert_string_equal(sago_str_text(&s), "");
    sago_str_add(&s, "a\0b", 3);
    sago_str_printf(&s, "%05d", 42);
    sago_str_putc(&s, '!');
    assert_int_equal(s.length, 9);
    assert_memory_equal(s.data, "a\0b00042!", 10);
    sago_str_clear(&s);
    for (int i = 0; i < 100000; i++) sago_str_puts(&s, "xyz");
    assert_int_equal(s.length, 300000);
    assert_int_equal(strlen(s.data), 300000);
    sago_str_free(&s);
    assert_null(s.data);
    char *text = sago_format("%s-%s", "a", "b");
    assert_string_equal(text, "a-b");
    free(text);
    text = sago_format("%s", "");
    assert_string_equal(text, "");
    free(text);
}

static void check_path(char *got, const char *wanted) {
    assert_string_equal(got, wanted);
    free(got);
}

static void paths(void **state) {
    (void)state;
    check_path(sago_path_join("a", "b"), "a/b");
    check_path(sago_path_join("a/", "b"), "a/b");
    check_path(sago_path_join("a", "/b"), "/b");
    check_path(sago_path_join("", "b"), "b");
    check_path(sago_path_dir("a/b"), "a");
    check_path(sago_path_dir("b"), ".");
    check_path(sago_path_dir("/b"), "/");
    assert_string_equal(sago_path_base("a/b"), "b");
    assert_string_equal(sago_path_base("b"), "b");
    check_path(sago_path_absolute("/a/./b//../c/"), "/a/c");
    check_path(sago_path_absolute("/../.."), "/");
    check_path(sago_path_absolute("/"), "/");
    assert_int_equal(chdir("/usr"), 0);
    check_path(sago_path_absolute("bin/../lib"), "/usr/lib");
    check_path(sago_path_absolute(".."), "/");
}

static void words(void **state) {
    (void)state;
    assert_true(sago_starts_with("step-1", "step-") && !sago_starts_with("st", "step"));
    assert_true(sago_ends_with("a.json", ".json") && !sago_ends_with("n", ".json"));
    assert_int_equal(sago_edit_distance("kitten", "sitting"), 3);
    assert_int_equal(sago_edit_distance("", "abc"), 3);
    assert_int_equal(sago_edit_distance("same", "same"), 0);
    char longest[200];
    memset(longest, 'a', sizeof longest);
    longest[199] = '\0';
    assert_true(sago_edit_distance(longest, "a") > 50);
    assert_true(sago_glob_match("task*_qa", "task001_x_qa"));
    assert_true(sago_glob_match("*", "") && sago_glob_match("**a**", "bab"));
    assert_true(sago_glob_match("encoder.*.wi", "encoder.0.mlp.wi"));
    assert_true(sago_glob_match("a?c", "abc") && !sago_glob_match("a?c", "ac"));
    assert_false(sago_glob_match("task", "task1"));
    /* A pattern of many stars takes time in proportion to pattern x text, not more. */
    assert_false(sago_glob_match("*a*a*a*a*a*a*a*a*a*a*b",
                                 "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"));
}

/* The borders of RFC 3629's table, each side. */
static void utf8(void **state) {
    (void)state;
    static const char *const good[] = {"",
                                       "abc",
                                       "\x7f",
                                       "\xc2\x80",
                                       "\xdf\xbf",
                                       "\xe0\xa0\x80",
                                       "\xed\x9f\xbf",
                                       "\xee\x80\x80",
                                       "\xf0\x90\x80\x80",
                                       "\xf4\x8f\xbf\xbf"};
    static const char *const bad[] = {"\x80",
                                      "\xc1\xbf",
                                      "\xc2",
                                      "\xe0\x9f\xbf",
                                      "\xed\xa0\x80",
                                      "\xf0\x8f\xbf\xbf",
                                      "\xf4\x90\x80\x80",
                                      "\xf5\x80\x80\x80",
                                      "\xff",
                                      "\xe2\x82"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        assert_true(sago_utf8_valid(good[i], strlen(good[i]), NULL));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char text[16];
        size_t at = 99;
        snprintf(text, sizeof text, "ab%s", bad[i]);
        assert_false(sago_utf8_valid(text, strlen(text), &at));
        assert_int_equal(at, 2);
    }
    assert_true(sago_utf8_valid("a\0b", 3, NULL));
    assert_int_equal(sago_utf8_step("\xf0\x90\x80\x80", 3), 0);
    assert_int_equal(sago_utf8_step("", 0), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_string_grows_and_holds_nul_bytes),
        cmocka_unit_test(paths),
        cmocka_unit_test(words),
        cmocka_unit_test(utf8),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
