// SPDX-License-Identifier: Apache-2.0
/* The bundled tasks: equal seeds give equal bytes, the answers are right by an oracle of this test's own, and
 * the whole set opens as a mixture without leaks. */
#include "files.h"
#include "generate.h"
#include "json.h"
#include "mixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static char *folder(const char *name) {
    return sago_strdup(test_path(name));
}

static void compare(const char *a, const char *b, bool equal) {
    static const char *const files[] = {"niv2/last_animal.json",    "jsonl/larger_of_two.jsonl",
                                        "cot/coin_two.tsv",         "table/additions.csv",
                                        "choice/choose_tool.jsonl", "corpus.txt"};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char *left = sago_path_join(a, files[i]), *right = sago_path_join(b, files[i]);
        sago_str x = {0}, y = {0};
        assert_int_equal(sago_file_read(left, 0, &x), SAGO_OK);
        assert_int_equal(sago_file_read(right, 0, &y), SAGO_OK);
        assert_int_equal(x.length == y.length && memcmp(x.data, y.data, x.length) == 0, equal);
        sago_str_free(&x), sago_str_free(&y);
        free(left), free(right);
    }
}

static void equal_seeds_equal_bytes(void **state) {
    (void)state;
    char *a = folder("a"), *b = folder("b"), *c = folder("c");
    assert_int_equal(sago_generate(a, 7, 60), SAGO_OK);
    assert_int_equal(sago_generate(b, 7, 60), SAGO_OK);
    assert_int_equal(sago_generate(c, 8, 60), SAGO_OK);
    compare(a, b, true);
    compare(a, c, false);
    free(a), free(b), free(c);
}

/* The word at a place of "x, y, z", from the front or the back. */
static void nth_word(const char *list, int place, char *out, size_t room) {
    const char *at = list;
    if (place < 0) {
        const char *comma = strrchr(list, ',');
        at = comma ? comma + 2 : list;
    }
    for (; place > 0; place--) at = strchr(at, ',') + 2;
    snprintf(out, room, "%.*s", (int)strcspn(at, ","), at);
}

static void answers_are_right(void **state) {
    (void)state;
    static const struct {
        const char *file;
        int place;
    } positions[] = {
        {"a/niv2/first_fruit.json", 0}, {"a/niv2/second_name.json", 1}, {"a/niv2/last_tool.json", -1}};
    for (size_t p = 0; p < 3; p++) {
        json_t *task, *instance;
        size_t i;
        assert_int_equal(sago_json_read(test_path(positions[p].file), 0, &task), SAGO_OK);
        assert_true(json_array_size(json_object_get(task, "Instances")) >= 50);
        json_array_foreach(json_object_get(task, "Instances"), i, instance) {
            char word[32];
            nth_word(json_string_value(json_object_get(instance, "input")), positions[p].place, word,
                     sizeof word);
            assert_string_equal(word,
                                json_string_value(json_array_get(json_object_get(instance, "output"), 0)));
        }
        json_decref(task);
    }
    sago_line_reader lines;
    bool more;
    assert_int_equal(sago_lines_open(&lines, test_path("a/jsonl/larger_of_two.jsonl"), 0), SAGO_OK);
    while (sago_lines_next(&lines, &more) == SAGO_OK && more) {
        json_t *line;
        int a, b;
        assert_int_equal(sago_json_parse(lines.line.data, lines.line.length, "x", 1, &line), SAGO_OK);
        assert_int_equal(sscanf(json_string_value(json_object_get(line, "inputs")),
                                "Which number is larger: %d or %d?", &a, &b),
                         2);
        assert_int_equal(atoi(json_string_value(json_object_get(line, "targets"))), a > b ? a : b);
        json_decref(line);
    }
    sago_lines_close(&lines);
    assert_int_equal(sago_lines_open(&lines, test_path("a/cot/coin_two.tsv"), 0), SAGO_OK);
    while (sago_lines_next(&lines, &more) == SAGO_OK && more) {
        int flips = 0;
        for (const char *at = lines.line.data; (at = strstr(at, " flips the")); at++) flips++;
        assert_non_null(strstr(lines.line.data, flips % 2 ? "\tno\t" : "\tyes\t"));
    }
    sago_lines_close(&lines);
}

static void opens_as_a_mixture(void **state) {
    (void)state;
    sago_config *config =
        test_config("data:\n  few_shot: 0.3\n  cot: 0.5\n  eval_fraction: 0.1\n  holdout: [last_tool, "
                    "count_fruits, which_animal, Odd*]\n"
                    "  mixture:\n    - {name: niv2, format: niv2, path: a/niv2}\n    - {name: jsonl, format: "
                    "jsonl, path: a/jsonl}\n"
                    "    - {name: cot, format: cot, path: a/cot}\n    - {name: sums, format: table, path: "
                    "a/table, template: question_answer}\n"
                    "    - {name: choice, format: table, path: a/choice, template: commonsense_qa}\n");
    sago_mixture *mixture;
    sago_status status = sago_mixture_open(config, NULL, 0, false, &mixture);
    if (status != SAGO_OK) print_message("%s\n", sago_message());
    assert_int_equal(status, SAGO_OK);
    assert_true(sago_mixture_tasks(mixture) > 80);
    sago_example example = {0};
    for (uint64_t i = 0; i < 2000; i++) {
        status = sago_mixture_draw(mixture, i, &example, NULL);
        if (status != SAGO_OK) print_message("%s\n", sago_message());
        assert_int_equal(status, SAGO_OK);
        assert_true(example.input_text.length > 0 && example.target_text.length > 0);
    }
    sago_example_free(&example);
    sago_mixture_close(mixture);
    sago_config_free(config);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equal_seeds_equal_bytes),
        cmocka_unit_test(answers_are_right),
        cmocka_unit_test(opens_as_a_mixture),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
