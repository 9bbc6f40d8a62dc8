// SPDX-License-Identifier: Apache-2.0
/* Every source format, read from small files that this test writes. */
#include "files.h"
#include "source.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static sago_source source_of(const char *format, const sago_mapping *mapping) {
    sago_source source = {.mapping = mapping};
    assert_int_equal(sago_source_format_parse(format, &source.format), SAGO_OK);
    return source;
}

/* Parses record i of a scanned text into fields. */
static void parse(const sago_source *source, const char *path, const char *bytes, const sago_scan *scan,
                  size_t i, sago_fields *fields) {
    const sago_record *at = &scan->records[i];
    sago_where where = {path, at->line};
    sago_status status =
        sago_source_parse(source, where, sago_str_text(&scan->note), bytes + at->offset, at->length, fields);
    if (status != SAGO_OK) print_message("%s\n", sago_message());
    assert_int_equal(status, SAGO_OK);
}

static const char *value(const sago_fields *fields, const char *name, int i) {
    const sago_field *field = sago_fields_find(fields, name);
    assert_non_null(field);
    assert_true(i < field->count);
    return sago_str_text(sago_field_value(fields, field, i));
}

static void scan_text(const sago_source *source, const char *path, const char *text, sago_scan *scan) {
    sago_status status = sago_source_scan_bytes(source, path, text, strlen(text), scan);
    if (status != SAGO_OK) print_message("%s\n", sago_message());
    assert_int_equal(status, SAGO_OK);
}

static void refuses_bytes(const sago_source *source, const char *path, const char *bytes, size_t length,
                          const char *expected) {
    sago_scan scan;
    assert_int_not_equal(sago_source_scan_bytes(source, path, bytes, length, &scan), SAGO_OK);
    if (!strstr(sago_message(), expected))
        print_message("message: %s\nwanted: %s\n", sago_message(), expected);
    assert_non_null(strstr(sago_message(), expected));
    assert_null(strchr(sago_message(), '\n'));
}

static void refuses(const sago_source *source, const char *path, const char *text, const char *expected) {
    refuses_bytes(source, path, text, strlen(text), expected);
}

static void jsonl_lines(void **state) {
    (void)state;
    sago_source source = source_of("jsonl", NULL);
    const char *text = "{\"inputs\": \"a\\nb\", \"targets\": \"c\"}\r\n\n{\"inputs\": \"\\u00e9\", "
                       "\"targets\": [\"x\", \"y\"]}";
    sago_scan scan;
    sago_fields fields = {0};
    scan_text(&source, "a.jsonl", text, &scan);
    assert_int_equal(scan.n_records, 2);
    assert_int_equal(scan.records[0].line, 1);
    assert_int_equal(scan.records[1].line, 3);
    parse(&source, "a.jsonl", text, &scan, 0, &fields);
    assert_string_equal(value(&fields, "inputs", 0), "a\nb");
    parse(&source, "a.jsonl", text, &scan, 1, &fields);
    assert_string_equal(value(&fields, "inputs", 0), "\xC3\xA9");
    assert_string_equal(value(&fields, "answer", 1), "y");
    sago_fields_free(&fields);
    sago_scan_free(&scan);

    refuses(&source, "a.jsonl", "{\"inputs\": \"a\", \"targets\": \"b\"}\n{\"inputs\": \"a\"}\n",
            "a.jsonl:2: the line needs");
    refuses(&source, "a.jsonl", "\n{\"inputs\": 1, \"targets\": null}\n", "a.jsonl:2: \"targets\" is null");
    refuses(&source, "a.jsonl", "{\"inputs\": \"a\", \"targets\": \"b\"\n", "a.jsonl:1");
    refuses(&source, "a.jsonl", "[1]\n", "a.jsonl:1: an object");
    refuses(&source, "a.jsonl", "{\"inputs\": \"a\", \"targets\": []}\n",
            "a.jsonl:1: \"targets\" is an empty list");
    refuses(&source, "a.jsonl", "\n  \n", "holds no examples");
    refuses(&source, "a.jsonl", "{\"inputs\": \"\xFF\", \"targets\": \"b\"}\n", "a.jsonl:1: byte 13");
    refuses(&source, "a.jsonl", "{\"inputs\": \"a\\u0000b\", \"targets\": \"b\"}\n",
            "a.jsonl:1: \"inputs\" holds a NUL");
    static const char nul[] =
        "{\"inputs\": \"a\", \"targets\": \"b\"}\n{\"inputs\": \"a\0\", \"targets\": \"b\"}\n";
    refuses_bytes(&source, "a.jsonl", nul, sizeof nul - 1, "a.jsonl:2: holds a NUL");
}

static void long_line(void **state) {
    (void)state;
    sago_source source = source_of("jsonl", NULL);
    size_t length = (size_t)SAGO_LINE_LIMIT_BYTES + 100;
    char *bytes = malloc(length);
    memset(bytes, ' ', length);
    memcpy(bytes, "{}\n{", 4);
    bytes[length - 1] = '}';
    refuses_bytes(&source, "long.jsonl", bytes + 3, length - 3, "long.jsonl:1: a record of");
    free(bytes);
}

static void ids_lines(void **state) {
    (void)state;
    sago_source source = source_of("ids", NULL);
    const char *text =
        "{\"input_ids\": [5, 9, 1], \"target_ids\": [7, 1]}\n{\"input_ids\": [3], \"target_ids\": [11]}\n";
    sago_scan scan;
    sago_fields fields = {0};
    scan_text(&source, "a.jsonl", text, &scan);
    assert_int_equal(scan.max_id, 11);
    assert_int_equal(scan.max_id_line, 2);
    parse(&source, "a.jsonl", text, &scan, 0, &fields);
    assert_int_equal(fields.input_ids.length, 3);
    assert_int_equal(fields.input_ids.data[1], 9);
    assert_int_equal(fields.target_ids.length, 2);
    sago_fields_free(&fields);
    sago_scan_free(&scan);
    refuses(&source, "a.jsonl", "{\"input_ids\": [5], \"target_ids\": [-7]}\n", "a.jsonl:1: id -7");
    refuses(&source, "a.jsonl", "{\"input_ids\": [5.5], \"target_ids\": [7]}\n",
            "a.jsonl:1: \"input_ids\"[0] is not an id");
    refuses(&source, "a.jsonl", "{\"input_ids\": [], \"target_ids\": [7]}\n",
            "a.jsonl:1: \"input_ids\" is empty");
}

static const char *const niv2_text = "{\n \"Contributors\": [\"someone\", {\"deep\": [1, 2, \"]}\"]}],\n"
                                     " \"Categories\": [\"Question Answering\", \"Other\"],\n"
                                     " \"Positive Examples\": [\n  {\"input\": \"p1\", \"output\": \"o1\", "
                                     "\"explanation\": \"because\"}\n ],\n"
                                     " \"Definition\": [\"Do this.\"],\n"
                                     " \"Instances\": [\n  {\n   \"id\": \"t-1\",\n   \"input\": \"first "
                                     "{brace \\\" quote\",\n   \"output\": [\"a\", \"b\"]\n  },\n"
                                     "  {\"input\": \"second\", \"output\": \"c\"}\n ]\n}\n";

static void niv2_task(void **state) {
    (void)state;
    sago_source source = source_of("niv2", NULL);
    sago_scan scan;
    sago_fields fields = {0};
    scan_text(&source, "task.json", niv2_text, &scan);
    assert_int_equal(scan.n_records, 3);
    assert_int_equal(scan.n_exemplars, 1);
    assert_string_equal(sago_str_text(&scan.note), "Do this.");
    assert_string_equal(sago_str_text(&scan.categories), "Question Answering\nOther");
    assert_int_equal(scan.records[0].line, 9);
    parse(&source, "task.json", niv2_text, &scan, 0, &fields);
    assert_string_equal(value(&fields, "input", 0), "first {brace \" quote");
    assert_string_equal(value(&fields, "answer", 1), "b");
    parse(&source, "task.json", niv2_text, &scan, 1, &fields);
    assert_string_equal(value(&fields, "answer", 0), "c");
    parse(&source, "task.json", niv2_text, &scan, 2, &fields);
    assert_string_equal(value(&fields, "input", 0), "p1");
    sago_fields_free(&fields);
    sago_scan_free(&scan);

    refuses(&source, "t.json", "{\"Definition\": [\"d\"]}", "no \"Instances\"");
    refuses(&source, "t.json", "{\"Instances\": []}", "no \"Definition\"");
    refuses(&source, "t.json", "{\"Definition\": [\"d\"], \"Instances\": []}", "holds no examples");
    refuses(&source, "t.json", "{\"Definition\": [\"d\"], \"Instances\": [\n{\"input\": \"a\"}]}",
            "t.json:2: the instance needs");
    refuses(&source, "t.json",
            "{\"Definition\": [\"d\"], \"Instances\": [{\"input\": \"a\", \"output\": []}]}", "empty list");
    refuses(&source, "t.json",
            "{\"Definition\": [\"d\"], \"Instances\": [{\"input\": \"a\",\n \"output\": [\"b\"]}",
            "t.json:2");
    refuses(&source, "t.json", "{\"Definition\": [\"d\"], \"Instances\": [{]}", "brackets do not match");
    refuses(&source, "t.json", "[]", "an object {...} is expected");
    sago_str deep = {0};
    sago_str_puts(&deep, "{\"a\": ");
    for (int i = 0; i < 100000; i++) sago_str_putc(&deep, '[');
    refuses(&source, "t.json", sago_str_text(&deep), "nested too deep");
    sago_str_free(&deep);
}

static void cot_columns(void **state) {
    (void)state;
    sago_source source = source_of("cot", NULL);
    const char *text = "What?\\nOptions:\\n- a\ta\tIt is \"a\".\\nSo.\nWhy?\tbecause\n";
    sago_scan scan;
    sago_fields fields = {0};
    scan_text(&source, "a.tsv", text, &scan);
    assert_int_equal(scan.n_records, 2);
    parse(&source, "a.tsv", text, &scan, 0, &fields);
    assert_string_equal(value(&fields, "question", 0), "What?\nOptions:\n- a");
    assert_string_equal(value(&fields, "chain", 0), "It is \"a\".\nSo.");
    parse(&source, "a.tsv", text, &scan, 1, &fields);
    assert_null(sago_fields_find(&fields, "chain"));
    sago_fields_free(&fields);
    sago_scan_free(&scan);
    refuses(&source, "a.tsv", "one\n", "a.tsv:1: 1 column");
    refuses(&source, "a.tsv", "a\tb\tc\td\n", "a.tsv:1: more than three");
    refuses(&source, "a.tsv", "a\tb\n\tb\tc\n", "a.tsv:2: the question is empty");
}

static sago_mapping *mapping_of(const char *text) {
    sago_mapping *mapping = NULL;
    sago_status status = sago_mapping_parse("test", "test.yaml", text, strlen(text), &mapping);
    if (status != SAGO_OK) print_message("%s\n", sago_message());
    assert_int_equal(status, SAGO_OK);
    return mapping;
}

static void csv_quoting(void **state) {
    (void)state;
    sago_mapping *mapping =
        mapping_of("category: direct\nfields: {question: the question}\nanswer: answer\n");
    sago_source source = source_of("table", mapping);
    /* RFC 4180: commas, doubled quotes and line breaks inside quotes; CRLF; a byte order mark. */
    const char *text = "\xEF\xBB\xBFid,the question,answer\r\n"
                       "1,\"a, \"\"b\"\"\nc\",yes\r\n"
                       "2,plain,\"\"\"no\"\"\"\r\n"
                       "3,,last\n";
    sago_scan scan;
    sago_fields fields = {0};
    scan_text(&source, "a.csv", text, &scan);
    assert_int_equal(scan.n_records, 3);
    assert_int_equal(scan.records[1].line, 4);
    parse(&source, "a.csv", text, &scan, 0, &fields);
    assert_string_equal(value(&fields, "question", 0), "a, \"b\"\nc");
    assert_string_equal(value(&fields, "answer", 0), "yes");
    parse(&source, "a.csv", text, &scan, 1, &fields);
    assert_string_equal(value(&fields, "answer", 0), "\"no\"");
    parse(&source, "a.csv", text, &scan, 2, &fields);
    assert_string_equal(value(&fields, "question", 0), "");
    sago_fields_free(&fields);
    sago_scan_free(&scan);
    refuses(&source, "a.csv", "the question,answer\nq,a\nq,\"a\n", "a.csv:3: a quote is left open");
    refuses(&source, "a.csv", "the question,answer\nq,a,b\n", "a.csv:2: 3 columns; the header has 2");
    refuses(&source, "a.csv", "the question,answer\nq,\"a\"b\n", "a.csv:2: text after a closing quote");
    refuses(&source, "a.csv", "question,answer\nq,a\n",
            "a.csv:2: field \"question\": the record has no \"the question\"");
    sago_mapping_free(mapping);
}

static void table_addresses(void **state) {
    (void)state;
    sago_mapping *mapping =
        mapping_of("category: multiple_choice\nfields:\n  question: q.stem\n  options: q.choices[*].text\n"
                   "answer: key\nanswer_is: letter\n");
    sago_source source = source_of("table", mapping);
    const char *text = "{\"key\": \"B\", \"q\": {\"stem\": \" Which? \", \"choices\": [{\"text\": \"x\"}, "
                       "{\"text\": 2}]}}\n";
    sago_scan scan;
    sago_fields fields = {0};
    scan_text(&source, "a.jsonl", text, &scan);
    parse(&source, "a.jsonl", text, &scan, 0, &fields);
    assert_string_equal(value(&fields, "question", 0), "Which?");
    assert_string_equal(value(&fields, "options", 1), "2");
    assert_string_equal(value(&fields, "answer", 0), "2");
    assert_int_equal(fields.right_option, 1);
    sago_scan_free(&scan);
    refuses(&source, "a.jsonl",
            "{\"key\": \"C\", \"q\": {\"stem\": \"?\", \"choices\": [{\"text\": \"x\"}]}}\n",
            "a.jsonl:1: the answer \"C\" names none of the 1 options");
    refuses(&source, "a.jsonl",
            "{\"key\": \"A\", \"q\": {\"stem\": \"?\", \"choices\": [{\"txt\": \"x\"}]}}\n",
            "a.jsonl:1: field \"options\"");
    sago_mapping_free(mapping);

    mapping = mapping_of(
        "category: arithmetic\nrecords: data.rows\nfields: {question: \"{a} and {b[0]}\"}\nanswer: n\n"
        "answer_after: \"####\"\n");
    source.mapping = mapping;
    const char *document = "{\"data\": {\"x\": [1], \"rows\": {\"1\": {\"a\": \"A\", \"b\": [\"B\", 2], "
                           "\"n\": \"why #### 39\"},\n"
                           "\"2\": {\"a\": \"A\", \"b\": [3], \"n\": 39.0}}}}";
    scan_text(&source, "a.json", document, &scan);
    assert_int_equal(scan.n_records, 2);
    assert_int_equal(scan.records[1].line, 2);
    parse(&source, "a.json", document, &scan, 0, &fields);
    assert_string_equal(value(&fields, "question", 0), "A and B");
    assert_string_equal(value(&fields, "answer", 0), "39");
    assert_string_equal(value(&fields, "chain", 0), "why");
    parse(&source, "a.json", document, &scan, 1, &fields);
    assert_string_equal(value(&fields, "question", 0), "A and 3");
    assert_string_equal(value(&fields, "answer", 0), "39");
    sago_fields_free(&fields);
    sago_scan_free(&scan);
    refuses(&source, "a.json", "{\"data\": {}}", "there is no \"data.rows\"");
    refuses(&source, "a.json", "{\"data\": {\"rows\": [1]}}", "a record must be an object");
    sago_mapping_free(mapping);
}

static void mapping_errors(void **state) {
    (void)state;
    static const char *const wrong[][2] = {
        {"category: x\nfields: {a: b}\n", "m.yaml:1: answer is missing"},
        {"category: x\nanswer: a\nfield: {a: b}\n", "m.yaml:3: unknown key \"field\""},
        {"category: x\nanswer: a\nanswer_is: letters\n", "m.yaml:3: answer_is is one of: text, letter"},
        {"category: x\nanswer: a\nanswer_is: letter\n", "no field \"options\""},
        {"category: x\nanswer: a\nfields: {q: \"{a\"}\n", "m.yaml:3: { without a path"},
        {"category: x\n answer: a\n", "m.yaml:2: not YAML"},
        {"category: x\ncategory: y\n", "m.yaml:2: \"category\" stands twice"},
        {"", "a mapping needs keys"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        sago_mapping *mapping;
        assert_int_equal(sago_mapping_parse("m", "m.yaml", wrong[i][0], strlen(wrong[i][0]), &mapping),
                         SAGO_E_CONFIG);
        if (!strstr(sago_message(), wrong[i][1]))
            print_message("%s\nwanted: %s\n", sago_message(), wrong[i][1]);
        assert_non_null(strstr(sago_message(), wrong[i][1]));
    }
}

static void check_normal(const char *text, const char *expected) {
    sago_str out = {0};
    sago_normalise(text, strlen(text), &out);
    assert_string_equal(sago_str_text(&out), expected);
    sago_str_free(&out);
}

static void normalised_text(void **state) {
    (void)state;
    check_normal("  The \t Cat,\nsat!  ", "the cat sat");
    check_normal("2+2", "2 + 2");
    check_normal("2 + 2?", "2 + 2");
    check_normal("2 - 2", "2 - 2");
    check_normal("pi is 3.14.", "pi is 3.14");
    check_normal("well-known", "well known");
    check_normal("\xC3\x89t\xC3\xA9 \xE2\x80\x9Cquoted\xE2\x80\x9D", "\xC3\xA9t\xC3\xA9 quoted");
    check_normal("\xD0\x9C\xD0\xB8\xD1\x80", "\xD0\xBC\xD0\xB8\xD1\x80");
}

static void byte_order_mark(void **state) {
    (void)state;
    static const char *const texts[][2] = {
        {"jsonl", "\xEF\xBB\xBF{\"inputs\": \"a\", \"targets\": \"b\"}\n"},
        {"cot", "\xEF\xBB\xBFWhy?\tbecause\n"},
        {"niv2",
         "\xEF\xBB\xBF{\"Definition\": [\"d\"], \"Instances\": [{\"input\": \"a\", \"output\": [\"b\"]}]}"},
    };
    for (size_t i = 0; i < 3; i++) {
        sago_source source = source_of(texts[i][0], NULL);
        sago_scan scan;
        sago_fields fields = {0};
        scan_text(&source, "a", texts[i][1], &scan);
        parse(&source, "a", texts[i][1], &scan, 0, &fields);
        const char *first = sago_str_text(sago_field_value(&fields, &fields.fields[0], 0));
        assert_true(!strcmp(first, "a") || !strcmp(first, "Why?"));
        sago_fields_free(&fields);
        sago_scan_free(&scan);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(jsonl_lines),     cmocka_unit_test(long_line),
        cmocka_unit_test(ids_lines),       cmocka_unit_test(niv2_task),
        cmocka_unit_test(cot_columns),     cmocka_unit_test(csv_quoting),
        cmocka_unit_test(table_addresses), cmocka_unit_test(mapping_errors),
        cmocka_unit_test(normalised_text), cmocka_unit_test(byte_order_mark),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
