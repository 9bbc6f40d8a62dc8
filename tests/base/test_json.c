// SPDX-License-Identifier: Apache-2.0
#include "json.h"
#include "test.h"

static sago_status parse(const char *text, json_t **out) {
    return sago_json_parse(text, strlen(text), "f.json", 7, out);
}

static void errors_name_file_and_line(void **state) {
    (void)state;
    json_t *value;
    assert_fails(parse("{\"a\": 1,\n \"b\" 2}", &value), SAGO_E_INPUT, "f.json:8:");
    assert_null(value);
    assert_fails(parse("", &value), SAGO_E_INPUT, "f.json:7:");
    assert_fails(parse("{\"a\": 1, \"a\": 2}", &value), SAGO_E_INPUT, "duplicate");
    assert_fails(parse("{\"a\": \"\xff\"}", &value), SAGO_E_INPUT, "f.json");
    assert_fails(parse("{} x", &value), SAGO_E_INPUT, "f.json");
    assert_fails(parse("[99999999999999999999]", &value), SAGO_E_INPUT, "big integer");
    assert_fails(parse("[1e999]", &value), SAGO_E_INPUT, "f.json");
    assert_fails(parse("[NaN]", &value), SAGO_E_INPUT, "f.json");
    assert_fails(parse("1", &value), SAGO_E_INPUT, "f.json");
}

static void depth_is_bounded(void **state) {
    (void)state;
    enum { DEEP = 1000000 };
    char *text = sago_alloc(DEEP);
    json_t *value;
    memset(text, '[', DEEP);
    assert_fails(sago_json_parse(text, DEEP, "deep.json", 1, &value), SAGO_E_INPUT, "deep.json:1:");
    memset(text, '{', DEEP);
    assert_int_equal(sago_json_parse(text, DEEP, "deep.json", 1, &value), SAGO_E_INPUT);
    free(text);
}

static void nul_bytes_live_in_strings(void **state) {
    (void)state;
    json_t *value;
    assert_ok(parse("{\"a\": \"x\\u0000y\"}", &value));
    assert_int_equal(json_string_length(json_object_get(value, "a")), 3);
    json_decref(value);
}

static void numbers_keep_their_bits(void **state) {
    (void)state;
    sago_str text = {0};
    static const double numbers[] = {0.1, 1.0 / 3, 5e-324, 1.7976931348623157e308, 123456789.123456789};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        json_t *list = json_pack("[f]", numbers[i]), *again;
        sago_str_clear(&text);
        sago_json_add(&text, list, 17);
        assert_ok(parse(text.data, &again));
        assert_true(json_number_value(json_array_get(again, 0)) == numbers[i]);
        json_decref(list);
        json_decref(again);
    }
    sago_str_free(&text);
}

static void files(void **state) {
    (void)state;
    json_t *value = json_pack("{s:i, s:[s, n]}", "one", 1, "two", "x"), *again;
    assert_ok(sago_json_write(test_path("a.json"), value));
    assert_ok(sago_json_read(test_path("a.json"), 0, &again));
    assert_true(json_equal(value, again));
    json_decref(value);
    json_decref(again);
    assert_fails(sago_json_read(test_path("a.json"), 10, &again), SAGO_E_INPUT, "larger than 10 bytes");
    assert_null(again);
    assert_fails(sago_json_read(test_write("empty.json", "", 0), 0, &again), SAGO_E_INPUT, "empty.json");
    assert_fails(sago_json_read(test_path("none.json"), 0, &again), SAGO_E_IO, "none.json");
    assert_fails(sago_json_write(test_path("none/a.json"), NULL), SAGO_E_IO, "none/a.json");
}

/* What is quoted is JSON again, and reads back as the same bytes but for those that were no UTF-8. */
static void quoting(void **state) {
    (void)state;
    sago_str text = {0};
    static const char bytes[] = "\"\\\n\t\x01 \xc3\xa9 \xff\xc3 \xf0\x9f\x98\x80";
    sago_str_putc(&text, '[');
    sago_json_quote(&text, bytes, sizeof bytes - 1);
    sago_str_putc(&text, ',');
    sago_json_quote(&text, "a\0b", 3);
    sago_str_putc(&text, ']');
    json_t *value;
    assert_ok(parse(text.data, &value));
    assert_string_equal(json_string_value(json_array_get(value, 0)),
                        "\"\\\n\t\x01 \xc3\xa9 \xef\xbf\xbd\xef\xbf\xbd \xf0\x9f\x98\x80");
    assert_int_equal(json_string_length(json_array_get(value, 1)), 3);
    json_decref(value);
    sago_str_free(&text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(errors_name_file_and_line),
        cmocka_unit_test(depth_is_bounded),
        cmocka_unit_test(nul_bytes_live_in_strings),
        cmocka_unit_test(numbers_keep_their_bits),
        cmocka_unit_test(files),
        cmocka_unit_test(quoting),
    };
    return cmocka_run_group_tests(tests, make_test_folder, remove_test_folder);
}
