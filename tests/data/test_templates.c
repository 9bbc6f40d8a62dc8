// SPDX-License-Identifier: Apache-2.0
/* The template files that are part of the program, and the language they are written in. */
#include "files.h"
#include "rng.h"
#include "source.h"
#include "template.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static char *render(const char *text, const sago_fields *fields, sago_answer answer) {
    sago_pattern *pattern;
    sago_str out = {0};
    assert_int_equal(sago_pattern_parse(text, "p.yaml", 1, &pattern), SAGO_OK);
    sago_pattern_render(pattern, fields, answer, &out);
    sago_pattern_free(pattern);
    return out.data ? out.data : sago_strdup("");
}

static void check(const char *text, const sago_fields *fields, const char *expected) {
    char *got = render(text, fields, (sago_answer){.option = -1});
    assert_string_equal(got, expected);
    free(got);
}

static void pattern_language(void **state) {
    (void)state;
    sago_fields f = {.right_option = 1};
    sago_str_puts(sago_fields_add(&f, "question"), "Which?");
    sago_str_puts(sago_fields_add(&f, "options"), "red");
    sago_str_puts(sago_fields_add(&f, "options"), "green");
    sago_str_puts(sago_fields_add(&f, "options"), "blue");
    sago_str_puts(sago_fields_add(&f, "answer"), "green");
    sago_str_puts(sago_fields_add(&f, "empty"), "");
    check("Q: {question} {{x}}", &f, "Q: Which? {x}");
    check("{options}", &f, "red, green, blue");
    check("{options:letters}", &f, "(A) red\n(B) green\n(C) blue");
    check("{options:dotted}", &f, "A. red\nB. green\nC. blue");
    check("{options:numbers}", &f, "1. red\n2. green\n3. blue");
    check("{options:dashes}", &f, "- red\n- green\n- blue");
    check("{options:or}", &f, "red, green or blue");
    check("{options:quoted}", &f, "\"red\", \"green\" or \"blue\"");
    check("{options:inline}", &f, "(A) red (B) green (C) blue");
    check("{answer} {answer:letter} {answer:bracket} {answer:number}", &f, "green B (B) 2");
    check("{question:small}|{answer:capital}", &f, "which?|Green");
    check("a{?passage}no{/}b{?question}yes{/}c{!passage}d{/}{?empty}e{/}", &f, "abyescd");
    char *other = render("{answer} {answer:bracket}", &f, (sago_answer){.option = 2});
    assert_string_equal(other, "blue (C)");
    free(other);
    sago_fields_free(&f);
}

static void pattern_errors(void **state) {
    (void)state;
    static const char *const wrong[][2] = {
        {"{question", "p.yaml:7: { without }"},   {"a}b", "p.yaml:7: } without {"},
        {"{Question}", "names no field"},         {"{options:leters}", "there is no form \"leters\""},
        {"{?a}b", "a condition is not closed"},   {"{/}", "closes no condition"},
        {"{?a}{?b}{/}{/}", "inside a condition"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        sago_pattern *pattern;
        assert_int_equal(sago_pattern_parse(wrong[i][0], "p.yaml", 7, &pattern), SAGO_E_CONFIG);
        assert_non_null(strstr(sago_message(), wrong[i][1]));
    }
}

static void ten_wordings_each(void **state) {
    (void)state;
    static const char *const categories[] = {
        "multiple_choice", "classification", "nli",          "reading", "generation",
        "arithmetic",      "cot_zero_shot",  "cot_few_shot", "direct",  "instruction"};
    sago_templates *templates;
    assert_int_equal(sago_templates_open("", &templates), SAGO_OK);
    assert_true(sago_templates_styles(templates) >= 10);
    int inverted = 0;
    for (size_t c = 0; c < sizeof categories / sizeof *categories; c++) {
        const sago_template_set *set;
        sago_status status = sago_templates_set(templates, categories[c], &set);
        if (status != SAGO_OK) print_message("%s\n", sago_message());
        assert_int_equal(status, SAGO_OK);
        int plain = 0, different = 0;
        uint64_t seen[64];
        sago_fields f = {.right_option = 0};
        static const char *const names[] = {"question",   "passage", "text",  "premise",
                                            "hypothesis", "task",    "input", "definition",
                                            "chain",      "options", "answer"};
        for (size_t n = 0; n < sizeof names / sizeof *names; n++)
            sago_str_puts(sago_fields_add(&f, names[n]), names[n]);
        for (int i = 0; i < set->n_wordings; i++) {
            const sago_wording *wording = &set->wordings[i];
            inverted += wording->inverted;
            plain += !wording->inverted;
            /* The whole prompt, to see that no two wordings are one. */
            sago_str prompt = {0};
            sago_answer answer = {.option = -1};
            sago_pattern_render(wording->instruction, &f, answer, &prompt);
            sago_pattern_render(wording->lead, &f, answer, &prompt);
            sago_pattern_render(wording->inputs, &f, answer, &prompt);
            sago_pattern_render(wording->cue, &f, answer, &prompt);
            sago_pattern_render(wording->targets, &f, answer, &prompt);
            uint64_t hash = sago_hash_bytes(prompt.data, prompt.length);
            bool same = false;
            for (int k = 0; k < different; k++) same = same || seen[k] == hash;
            if (!same) seen[different++] = hash;
            sago_str_free(&prompt);
        }
        sago_fields_free(&f);
        if (plain < 10) print_message("%s has %d wordings\n", categories[c], plain);
        assert_true(plain >= 10);
        assert_int_equal(different, set->n_wordings);
    }
    assert_true(inverted >= 10);
    sago_templates_close(templates);
}

static void every_built_in_file_loads(void **state) {
    (void)state;
    sago_templates *templates;
    assert_int_equal(sago_templates_open("", &templates), SAGO_OK);
    for (const sago_embedded_file *file = sago_embedded_templates; file->name; file++) {
        const char *base = sago_path_base(file->name);
        char *name = sago_strndup(base, strlen(base) - 5);
        sago_status status = SAGO_OK;
        if (sago_starts_with(file->name, "tables/")) {
            const sago_mapping *mapping;
            const sago_template_set *set;
            status = sago_templates_mapping(templates, name, &mapping);
            if (status == SAGO_OK) status = sago_templates_set(templates, mapping->category, &set);
        } else if (strcmp(name, "exemplars") != 0) {
            const sago_template_set *set;
            status = sago_templates_set(templates, name, &set);
        }
        if (status != SAGO_OK) print_message("%s: %s\n", file->name, sago_message());
        assert_int_equal(status, SAGO_OK);
        free(name);
    }
    sago_templates_close(templates);
}

/* One record of each published table, as its set is published, through its built-in mapping. */
static void published_tables(void **state) {
    (void)state;
    static const struct {
        const char *mapping, *file, *text, *answer;
        int right;
    } tables[] = {
        {"commonsense_qa", "a.jsonl",
         "{\"answerKey\": \"B\", \"question\": {\"stem\": \"q\", \"choices\": [{\"text\": \"x\"}, {\"text\": "
         "\"y\"}]}}",
         "y", 1},
        {"arc", "a.jsonl",
         "{\"answerKey\": \"A\", \"question\": {\"stem\": \"q\", \"choices\": [{\"text\": \"x\"}, {\"text\": "
         "\"y\"}]}}",
         "x", 0},
        {"aqua", "a.jsonl",
         "{\"question\": \"q\", \"options\": [\"A)21\", \"B)21.5\"], \"rationale\": \"r\", \"correct\": "
         "\"B\"}",
         "21.5", 1},
        {"squad", "a.jsonl",
         "{\"context\": \"c\", \"question\": \"q\", \"answers\": {\"text\": [\"one\", \"two\"], "
         "\"answer_start\": [1, 2]}}",
         "one", -1},
        {"boolq", "a.jsonl",
         "{\"question\": \"is it\", \"title\": \"t\", \"answer\": true, \"passage\": \"p\"}", "yes", 1},
        {"rte", "a.jsonl",
         "{\"premise\": \"p\", \"hypothesis\": \"h\", \"label\": \"not_entailment\", \"idx\": 0}", "no", 1},
        {"cb", "a.jsonl",
         "{\"premise\": \"p\", \"hypothesis\": \"h\", \"label\": \"contradiction\", \"idx\": 0}", "no", 2},
        {"snli", "a.jsonl", "{\"sentence1\": \"p\", \"sentence2\": \"h\", \"gold_label\": \"neutral\"}",
         "it is not possible to tell", 1},
        {"hellaswag", "a.jsonl", "{\"ctx\": \"c\", \"endings\": [\"e0\", \"e1\", \"e2\"], \"label\": 2}",
         "e2", 2},
        {"winogrande", "a.jsonl",
         "{\"sentence\": \"s _ .\", \"option1\": \"a\", \"option2\": \"b\", \"answer\": \"2\"}", "b", 1},
        {"copa", "a.jsonl",
         "{\"premise\": \"p\", \"choice1\": \"a\", \"choice2\": \"b\", \"question\": \"cause\", \"label\": "
         "0}",
         "a", 0},
        {"gsm8k", "a.jsonl", "{\"question\": \"q\", \"answer\": \"Half of 48.\\n#### 24\"}", "24", -1},
        {"ag_news", "a.csv", "\"3\",\"Title\",\"Text, with a comma\"\n", "Business", 2},
        {"sst2", "a.tsv", "sentence\tlabel\na fine film \t1\n", "positive", 1},
        {"mmlu", "a.csv", "\"What, now?\",1,2,3,4,C\n", "3", 2},
        {"mmlu", "a.csv", "question,choice0,choice1,choice2,choice3,answer\n\"What, now?\",5,6,7,8,3\n", "8", 3},
        {"mmlu", "a.csv", "Question,A,B,C,D,Answer\nWhat?,5,6,7,8,0\n", "5", 0},
        {"svamp", "a.json", "[{\"Body\": \"He has 5.\", \"Question\": \"How many?\", \"Answer\": 5.0}]", "5",
         -1},
        {"multi_arith", "a.json", "[{\"sQuestion\": \" q \", \"lSolutions\": [39.0]}]", "39", -1},
        {"coin_flip", "a.json", "{\"examples\": [{\"question\": \"q\", \"answer\": \"no\"}]}", "no", 1},
        {"antonyms", "a.json",
         "{\"metadata\": {}, \"examples\": {\"1\": {\"input\": \"sane\", \"output\": \"insane\"}}}", "insane",
         -1},
    };
    sago_templates *templates;
    assert_int_equal(sago_templates_open("", &templates), SAGO_OK);
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++) {
        sago_source source = {.format = SAGO_FORMAT_TABLE};
        sago_scan scan;
        sago_fields fields = {0};
        assert_int_equal(sago_templates_mapping(templates, tables[i].mapping, &source.mapping), SAGO_OK);
        sago_status status =
            sago_source_scan_bytes(&source, tables[i].file, tables[i].text, strlen(tables[i].text), &scan);
        if (status != SAGO_OK) print_message("%s: %s\n", tables[i].mapping, sago_message());
        assert_int_equal(status, SAGO_OK);
        const sago_record *at = &scan.records[0];
        sago_where where = {tables[i].file, at->line};
        assert_int_equal(sago_source_parse(&source, where, sago_str_text(&scan.note),
                                           tables[i].text + at->offset, at->length, &fields),
                         SAGO_OK);
        const sago_field *answer = sago_fields_find(&fields, "answer");
        assert_string_equal(sago_str_text(sago_field_value(&fields, answer, 0)), tables[i].answer);
        assert_int_equal(fields.right_option, tables[i].right);
        sago_fields_free(&fields);
        sago_scan_free(&scan);
    }
    sago_templates_close(templates);
}

static void own_folder_comes_first(void **state) {
    (void)state;
    test_write("own/nli.yaml",
               "category: nli\nwordings:\n  - {name: mine, inputs: \"{premise}\", targets: \"{answer}\"}\n");
    test_write("own/wrong.yaml", "category: wrong\nwordings:\n  - {name: a, inputs: \"x\", targets: \"y\"}\n"
                                 "  - {name: b, input: \"x\", targets: \"y\"}\n");
    sago_templates *templates;
    const sago_template_set *set;
    assert_int_equal(sago_templates_open(test_path("own"), &templates), SAGO_OK);
    assert_int_equal(sago_templates_set(templates, "nli", &set), SAGO_OK);
    assert_int_equal(set->n_wordings, 1);
    assert_string_equal(sago_templates_name(templates, set->first), "nli/mine");
    assert_int_equal(sago_templates_set(templates, "reading", &set), SAGO_OK);
    assert_true(set->n_wordings > 10);
    assert_int_equal(sago_templates_set(templates, "wrong", &set), SAGO_E_CONFIG);
    assert_non_null(strstr(sago_message(), "own/wrong.yaml:4: unknown key \"input\""));
    assert_int_equal(sago_templates_set(templates, "absent", &set), SAGO_E_CONFIG);
    assert_non_null(strstr(sago_message(), "multiple_choice"));
    sago_templates_close(templates);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pattern_language),  cmocka_unit_test(pattern_errors),
        cmocka_unit_test(ten_wordings_each), cmocka_unit_test(every_built_in_file_loads),
        cmocka_unit_test(published_tables),  cmocka_unit_test(own_folder_comes_first),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
