// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "answer.h"

static void extracts(const char *output, const char *marker, const char *wanted) {
    sago_str answer = {0};
    sago_answer_extract(output, marker, &answer);
    assert_string_equal(sago_str_text(&answer), wanted);
    sago_str_free(&answer);
}

static void test_extract(void **state) {
    (void)state;
    extracts("It is 3 + 4. So the answer is 7.", "the answer is", "7");
    extracts("the answer is 1. No: The Answer Is (B).  \n", "the answer is", "(B)");
    extracts("  yes. ", "the answer is", "yes."); /* without the marker nothing but space goes */
    extracts("  a  b ", "", "a  b");
    extracts("the answer is", "the answer is", "");
    extracts("", "", "");
}

static void test_exact_match(void **state) {
    (void)state;
    char *references[] = {"new york", "New  York\n"};
    assert_true(sago_exact_match(" New York", references, 2) == 1);
    assert_true(sago_exact_match("New York", references, 1) == 0); /* letter case counts */
    assert_true(sago_exact_match("New York.", references, 2) == 0);
    assert_true(sago_exact_match("NewYork", references, 2) == 0);
    char *empty[] = {""};
    assert_true(sago_exact_match("  ", empty, 1) == 1);
    assert_true(sago_exact_match("a", empty, 1) == 0);
}

static void near(double got, double wanted) { assert_true(got > wanted - 1e-12 && got < wanted + 1e-12); }

static void test_token_f1(void **state) {
    (void)state;
    char *one[] = {"the cat sat"};
    near(sago_token_f1("A cat, sat!", one, 1), 1); /* articles and punctuation go */
    near(sago_token_f1("cat", one, 1), 2.0 * 1 * .5 / 1.5);
    near(sago_token_f1("cat cat cat", one, 1), 2 * (1. / 3) * .5 / (1. / 3 + .5)); /* a bag: one cat counts once */
    near(sago_token_f1("dog", one, 1), 0);
    char *two[] = {"dog", "big dog"};
    near(sago_token_f1("big dog", two, 2), 1);
    char *nothing[] = {"the"};
    near(sago_token_f1("an", nothing, 1), 1);
    near(sago_token_f1("x", nothing, 1), 0);
}

static void test_rouge_l(void **state) {
    (void)state;
    /* Lin 2004, section 3.1: "police killed the gunman" against two candidates, beta = 1. */
    char *gunman[] = {"police killed the gunman"};
    near(sago_rouge_l("police kill the gunman", gunman, 1), .75);
    near(sago_rouge_l("the gunman kill police", gunman, 1), .5);
    near(sago_rouge_l("The-Gunman POLICE killed!", gunman, 1), .5);
    near(sago_rouge_l("", gunman, 1), 0);
    char *accents[] = {"caf\xc3\xa9 noir"};
    near(sago_rouge_l("caf\xc3\xa9", accents, 1), 2 * .5 / 1.5);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_extract), cmocka_unit_test(test_exact_match),
                                       cmocka_unit_test(test_token_f1), cmocka_unit_test(test_rouge_l)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
